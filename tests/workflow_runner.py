"""Runs GitHub workflows on this machine, as far as ours go: what it does not know fails the test.

Each job gets an empty workspace and home, as on a hosted runner; between jobs only outputs,
artifacts and caches pass. Of the actions that are used, what they document is done here.
"""

from __future__ import annotations

import fnmatch
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

STATUS = ("success", "failure", "always", "cancelled")
STEP_KEYS = {"name", "id", "if", "uses", "with", "run", "shell", "env"}
JOB_KEYS = {"name", "needs", "if", "strategy", "runs-on", "timeout-minutes", "steps", "outputs",
            "uses", "with", "container"}  # fmt: skip
WORKFLOW_KEYS = {"name", "on", "permissions", "concurrency", "jobs"}
# What of an action's settings is understood here.
ACTIONS = {
    "actions/checkout": {"repository", "ref", "path", "fetch-depth", "persist-credentials", "lfs"},
    "actions/cache/restore": {"path", "key", "restore-keys"},
    "actions/cache/save": {"path", "key"},
    "actions/upload-artifact": {"name", "path", "if-no-files-found"},
    "actions/download-artifact": {"pattern", "path"},
}
OUTPUTS = {"actions/cache/restore": ("cache-hit", "cache-matched-key", "cache-primary-key")}
TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][\w-]*)"
    r"|(?P<sign>==|!=|&&|\|\||[!().,\[\]]))"
)


class Unknown(Exception):
    """Something that this runner, or GitHub itself, does not know."""


def load(path: Path) -> dict:
    return YAML(typ="safe").load(path.read_text())


def only(known: Iterable[str], given: Iterable[str], where: str) -> None:
    if unknown := set(given) - set(known):
        raise Unknown(f"{where}: {sorted(unknown)}")


# ---------------------------------------------------------------------------------------------
# Expressions: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions


class Strict(dict):
    """A context of which every property is known."""


class Expression:
    """One expression, read and evaluated in a go."""

    def __init__(self, text: str, contexts: dict[str, Any]) -> None:
        self.text, self.contexts, self.at = text, contexts, 0
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while text[place:].strip():
            match = TOKEN.match(text, place)
            if not match:
                raise Unknown(f"expression {text!r} at {text[place:]!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            place = match.end()

    def value(self) -> Any:
        found = self._or()
        if self.at != len(self.tokens):
            raise Unknown(f"expression {self.text!r}: {self.tokens[self.at :]}")
        return found

    def _take(self, *signs: str) -> str:
        if self.at < len(self.tokens) and self.tokens[self.at][1] in signs:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    # Both sides are read, as they have to be; nothing here has an effect.
    def _or(self) -> Any:
        found = self._and()
        while self._take("||"):
            other = self._and()
            found = found if true(found) else other
        return found

    def _and(self) -> Any:
        found = self._equal()
        while self._take("&&"):
            other = self._equal()
            found = other if true(found) else found
        return found

    def _equal(self) -> Any:
        found = self._not()
        while sign := self._take("==", "!="):
            found = equal(found, self._not()) == (sign == "==")
        return found

    def _not(self) -> Any:
        return not true(self._not()) if self._take("!") else self._postfix()

    def _postfix(self) -> Any:
        found = self._primary()
        while sign := self._take(".", "["):
            if sign == ".":
                name = self.tokens[self.at][1]
                self.at += 1
            else:
                name = self._or()
                if not self._take("]"):
                    raise Unknown(f"expression {self.text!r}")
            found = self._property(found, name)
        return found

    def _property(self, thing: Any, name: Any) -> Any:
        if isinstance(thing, Strict) and name not in thing:
            raise Unknown(f"{self.text!r}: there is no {name}")
        if isinstance(thing, list):
            return thing[name] if isinstance(name, int) and name < len(thing) else None
        return thing.get(name) if isinstance(thing, dict) else None

    def _primary(self) -> Any:
        if self._take("("):
            found = self._or()
            if not self._take(")"):
                raise Unknown(f"expression {self.text!r}")
            return found
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "text":
            return text[1:-1].replace("''", "'")
        if kind == "number":
            return float(text) if "." in text else int(text)
        if text in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[text]
        if self._take("("):
            arguments = []
            while not self._take(")"):
                arguments.append(self._or())
                self._take(",")
            return self._call(text, arguments)
        if kind != "name" or text not in self.contexts:
            raise Unknown(f"{self.text!r}: context {text}")
        return self.contexts[text]

    def _call(self, name: str, arguments: list) -> Any:
        if name in STATUS:
            return self.contexts["()"][name]
        functions: dict[str, Callable] = {
            "fromJSON": json.loads,
            "join": lambda parts, between=",": between.join(map(shown, parts)),
            "format": lambda text, *parts: re.sub(
                r"\{(\d+)\}", lambda match: shown(parts[int(match[1])]), text
            ),
        }
        if name not in functions:
            raise Unknown(f"{self.text!r}: function {name}")
        return functions[name](*arguments)


def true(value: Any) -> bool:
    return value not in (None, False, 0, "") or isinstance(value, (dict, list))


def number(value: Any) -> float:
    if value is None or value == "":
        return 0
    if isinstance(value, (dict, list)):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.lower() == other.lower()
    return number(one) == number(other)


def shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise Unknown(f"{value} as a text")
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def filled(value: Any, contexts: dict[str, Any]) -> Any:
    """A value of a workflow with its expressions evaluated; what is nothing else keeps its type."""
    if isinstance(value, dict):
        return {name: filled(one, contexts) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, contexts) for one in value]
    if not isinstance(value, str):
        return value
    if whole := re.fullmatch(r"\s*\$\{\{((?:(?!\}\}).)*)\}\}\s*", value, re.S):
        return Expression(whole[1], contexts).value()
    return re.sub(
        r"\$\{\{(.*?)\}\}",
        lambda match: shown(Expression(match[1], contexts).value()),
        value,
        flags=re.S,
    )


def wanted(condition: str | None, contexts: dict[str, Any]) -> bool:
    """Whether an `if:` holds; where it doesn't ask for the status, success is meant, too."""
    text = re.sub(r"^\s*\$\{\{(.*)\}\}\s*$", r"\1", condition or "true", flags=re.S)
    asked = any(f"{name}(" in text for name in STATUS)
    return (asked or contexts["()"]["success"]) and true(Expression(text, contexts).value())


# ---------------------------------------------------------------------------------------------
# Jobs


@dataclass
class Result:
    """What came of a job: what it printed and showed, and which steps ran, by name."""

    name: str
    status: str = "success"
    said: str = ""
    summary: str = ""
    steps: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)


@dataclass
class Job:
    """A job that runs: its places, and what its steps leave to the next ones."""

    result: Result
    workspace: Path
    home: Path
    temporary: Path
    github: Strict
    contexts: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)


@dataclass
class Server:
    """What is there besides the jobs: repositories by name, artifacts and caches in a folder.

    ``home`` is what the first job that asks for caches finds in its own, as where a runner is kept.
    """

    folder: Path
    repositories: dict[str, Path]
    home: Path | None = None
    run_number: int = 0
    restored: list[tuple[str, str]] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)

    def run(self, repository: str, file: str, event: dict, event_name: str) -> list[Result]:
        """Run a repository's workflow at its newest commit."""
        self.run_number += 1
        self.restored.clear()
        self.saved.clear()
        source = self.repositories[repository]
        sha = git(source, "rev-parse", "HEAD")
        github = Strict(
            repository=repository, sha=sha, event=event, event_name=event_name,
            ref="refs/heads/main", workflow=file, run_id=str(self.run_number),
        )  # fmt: skip
        return self._workflow(repository, sha, file, github, {})

    def _workflow(
        self, repository: str, sha: str, file: str, github: Strict, inputs: dict
    ) -> list[Result]:
        workflow = YAML(typ="safe").load(
            git(self.repositories[repository], "show", f"{sha}:{file}")
        )
        only(WORKFLOW_KEYS, workflow, file)
        called = (workflow["on"] if isinstance(workflow["on"], dict) else {}).get("workflow_call")
        declared = (called or {}).get("inputs", {})
        only(declared, inputs, f"{file}: inputs")
        values = Strict(
            {name: inputs.get(name, each["default"]) for name, each in declared.items()}
        )
        identity = Strict(workflow_repository=repository, workflow_sha=sha)
        results: list[Result] = []
        done: dict[str, Result] = {}
        for name, job in workflow["jobs"].items():
            only(JOB_KEYS, job, f"{file}: {name}")
            needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            statuses = [done[each].status for each in needs]
            contexts = {
                "github": github, "inputs": values, "job": identity,
                "needs": Strict({each: Strict(outputs=done[each].outputs, result=done[each].status)
                                 for each in needs}),
                "()": {"success": all(each == "success" for each in statuses),
                       "failure": "failure" in statuses, "always": True, "cancelled": False},
            }  # fmt: skip
            done[name] = Result(name, "skipped")
            if not wanted(job.get("if"), contexts):
                results.append(done[name])
                continue
            if "uses" in job:
                place, commit, path = self._called(job["uses"], repository, sha)
                given = filled(job.get("with", {}), contexts)
                found = self._workflow(place, commit, path, github, given)
            else:
                matrix = filled(
                    job.get("strategy", {}).get("matrix", {"include": [None]}), contexts
                )
                only({"include"}, matrix, "matrix")
                if not matrix["include"]:
                    raise Unknown(f"{name}: a matrix without a job fails on GitHub")
                found = [self._job(name, job, contexts, entry) for entry in matrix["include"]]
                done[name].outputs = found[0].outputs
            failed = any(each.status == "failure" for each in found)
            done[name].status = "failure" if failed else "success"
            results += found
        return results

    def _called(self, uses: str, repository: str, sha: str) -> tuple[str, str, str]:
        if uses.startswith("./"):
            return repository, sha, uses[2:]
        name, revision = uses.split("@")
        owner, place, path = name.split("/", 2)
        there = self.repositories[f"{owner}/{place}"]
        return f"{owner}/{place}", git(there, "rev-parse", f"{revision}^{{commit}}"), path

    def _job(self, name: str, job: dict, contexts: dict, entry: dict | None) -> Result:
        contexts = contexts | {"matrix": Strict(entry or {}), "steps": Strict()}
        contexts["runner"] = Strict(os="Linux", temp="")
        result = Result(filled(job.get("name", name), contexts), entry=entry or {})
        # A runner's label and minutes have to be of the types that GitHub takes.
        assert isinstance(filled(job["runs-on"], contexts), (str, list))
        assert isinstance(filled(job["timeout-minutes"], contexts), int)
        # These have the same paths on all hosted runners, and nothing in them.
        folder = self.folder / "runner"
        shutil.rmtree(folder, ignore_errors=True)
        running = Job(result, folder / "work/a project", folder / "home", folder / "temp",
                      contexts["github"], contexts)  # fmt: skip
        for place in (running.workspace, running.home, running.temporary):
            place.mkdir(parents=True)
        if self.home and "build" in name:
            shutil.copytree(self.home, running.home, symlinks=True, dirs_exist_ok=True)
            self.home = None
        self._steps(running, job["steps"], contexts, running.workspace)
        # Between jobs there are only texts.
        result.outputs = {k: shown(v) for k, v in filled(job.get("outputs", {}), contexts).items()}
        return result

    def _steps(self, job: Job, steps: list[dict], contexts: dict, action: Path) -> bool:
        """Run steps; whether all of them that ran succeeded."""
        fine = True
        for step in steps:
            name = step.get("name", step.get("uses", step.get("run", "")))
            only(STEP_KEYS, step, name)
            contexts["()"] = {"success": fine, "failure": not fine, "always": True,
                              "cancelled": False}  # fmt: skip
            outputs: dict[str, Any] = {}
            if "id" in step:
                contexts["steps"][step["id"]] = Strict(outputs=outputs)
            if not wanted(step.get("if"), contexts):
                continue
            job.result.steps.append(name)
            if "uses" in step:
                given = filled(step.get("with", {}), contexts)
                succeeded = self._uses(job, step["uses"], given, outputs)
            else:
                succeeded = self._run(job, step, contexts, outputs, action)
            fine = fine and succeeded
        if not fine:
            job.result.status = "failure"
        return fine

    # -----------------------------------------------------------------------------------------
    # Steps

    def _run(
        self, job: Job, step: dict, contexts: dict, outputs: dict[str, Any], action: Path
    ) -> bool:
        files = {name: job.temporary / f"_{name}" for name in ("OUTPUT", "ENV", "PATH", "SUMMARY")}
        for file in files.values():
            file.write_text("")
        script = job.temporary / "_script"
        script.write_text(filled(step["run"], contexts))
        environment = {
            "PATH": os.pathsep.join([*reversed(job.path), os.environ["PATH"]]),
            "LANG": "C.UTF-8", "HOME": str(job.home), "CI": "true", "GITHUB_ACTIONS": "true",
            "RUNNER_OS": "Linux", "RUNNER_ARCH": "X64", "ImageOS": "ubuntu24",
            "RUNNER_TEMP": str(job.temporary), "GITHUB_WORKSPACE": str(job.workspace),
            "GITHUB_ACTION_PATH": str(action), "GITHUB_SHA": job.github["sha"],
            "GITHUB_OUTPUT": str(files["OUTPUT"]), "GITHUB_ENV": str(files["ENV"]),
            "GITHUB_PATH": str(files["PATH"]), "GITHUB_STEP_SUMMARY": str(files["SUMMARY"]),
        }  # fmt: skip
        environment |= job.environment
        environment |= {k: shown(v) for k, v in filled(step.get("env", {}), contexts).items()}
        shell = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"], None: ["bash", "-e"]}
        done = subprocess.run(
            [*shell[step.get("shell")], script], cwd=job.workspace, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        job.result.said += done.stdout
        job.result.summary += files["SUMMARY"].read_text()
        found = assignments(files["OUTPUT"].read_text())
        # A name that the step does not write is misspelt, there or where it is read.
        outputs.update(found)
        job.environment |= assignments(files["ENV"].read_text())
        job.path += files["PATH"].read_text().splitlines()
        return done.returncode == 0

    def _uses(self, job: Job, uses: str, given: dict[str, Any], outputs: dict[str, Any]) -> bool:
        if uses.startswith("./"):
            return self._composite(job, job.workspace / uses, given, outputs)
        name, _, revision = uses.partition("@")
        if name not in ACTIONS or not revision:
            raise Unknown(uses)
        only(ACTIONS[name], given, uses)
        words = {key: shown(value) for key, value in given.items()}
        outputs.update(dict.fromkeys(OUTPUTS.get(name, ()), ""))
        getattr(self, "_" + name.removeprefix("actions/").replace("/", "_").replace("-", "_"))(
            job, words, outputs
        )
        return True

    def _composite(
        self, job: Job, folder: Path, given: dict[str, Any], outputs: dict[str, Any]
    ) -> bool:
        action = load(folder / "action.yml")
        only({"name", "description", "inputs", "outputs", "runs"}, action, "action.yml")
        only(action["inputs"], given, "action.yml: inputs")
        missing = {name for name, each in action["inputs"].items() if each.get("required")}
        assert missing <= set(given), missing
        # Here all inputs are texts.
        inputs = Strict({name: shown(given.get(name, each.get("default")))
                         for name, each in action["inputs"].items()})  # fmt: skip
        contexts = {"github": job.github, "inputs": inputs, "steps": Strict(),
                    "runner": job.contexts["runner"]}  # fmt: skip
        assert all("shell" in step for step in action["runs"]["steps"] if "run" in step)
        fine = self._steps(job, action["runs"]["steps"], contexts, folder)
        outputs.update({name: shown(filled(each["value"], contexts))
                        for name, each in action.get("outputs", {}).items()})  # fmt: skip
        return fine

    def _checkout(self, job: Job, given: dict[str, str], _: dict) -> None:
        place = job.workspace / given.get("path", "")
        place.mkdir(parents=True, exist_ok=True)
        source = self.repositories[given.get("repository", job.github["repository"])]
        depth = given.get("fetch-depth", "1")
        git(place, "init", "-q")
        git(place, "fetch", "-q", *([] if depth == "0" else [f"--depth={depth}"]),
            f"file://{source}", given.get("ref", job.github["sha"]))  # fmt: skip
        git(place, "checkout", "-q", "FETCH_HEAD")

    def _places(self, job: Job, paths: str) -> list[Path]:
        return [Path(str(job.home) + path[1:]) if path.startswith("~") else job.workspace / path
                for path in paths.splitlines()]  # fmt: skip

    def _cache_restore(self, job: Job, given: dict[str, str], outputs: dict[str, Any]) -> None:
        """Of the key itself, else the newest that begins with one of the others, in their order."""
        outputs["cache-primary-key"] = given["key"]
        kept = sorted((self.folder / "caches").glob("*/key"), key=lambda path: path.parent.name)
        known = {path.read_text(): path.parent for path in kept}
        found = given["key"] if given["key"] in known else ""
        for prefix in given.get("restore-keys", "").split():
            newest = [key for key in known if key.startswith(prefix)]
            found = found or (newest[-1] if newest else "")
        self.restored.append((given["key"], found))
        if not found:
            return
        outputs["cache-matched-key"] = found
        outputs["cache-hit"] = "true" if found == given["key"] else "false"
        for number_, place in enumerate(self._places(job, given["path"])):
            shutil.copytree(known[found] / str(number_), place, symlinks=True, dirs_exist_ok=True)

    def _cache_save(self, job: Job, given: dict[str, str], _: dict) -> None:
        folder = self.folder / "caches"
        folder.mkdir(exist_ok=True)
        if any(path.read_text() == given["key"] for path in folder.glob("*/key")):
            return
        self.saved.append(given["key"])
        kept = folder / f"{len(list(folder.iterdir())):04}"
        for number_, place in enumerate(self._places(job, given["path"])):
            shutil.copytree(place, kept / str(number_), symlinks=True)
        (kept / "key").write_text(given["key"])

    def artifacts(self) -> Path:
        return self.folder / f"artifacts {self.run_number}"

    def _upload_artifact(self, job: Job, given: dict[str, str], _: dict) -> None:
        target = self.artifacts() / given["name"]
        assert not target.exists(), f"artifact {given['name']} is there twice"
        source = job.workspace / given["path"]
        # Hidden files are left out.
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"))

    def _download_artifact(self, job: Job, given: dict[str, str], _: dict) -> None:
        for each in sorted(self.artifacts().glob("*")):
            if fnmatch.fnmatch(each.name, given["pattern"]):
                shutil.copytree(each, job.workspace / given["path"] / each.name)


def assignments(text: str) -> dict[str, str]:
    """What a step wrote for GitHub: NAME=value, a line each."""
    lines = [line.partition("=") for line in text.splitlines()]
    assert all(sign for _, sign, _ in lines), text
    return {name: value for name, _, value in lines}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main",
         "-c", "advice.detachedHead=false", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
