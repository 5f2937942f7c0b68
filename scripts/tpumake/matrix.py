"""What a build server is to build: a job for each target, or for those that changed since a commit.

It runs on the host's own Python with nothing but the standard library, as `make all` does, so that
a plan costs a build server no environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tpumake.batch import Catalogue, Target, Wanted, catalogue, wanted_targets
from tpumake.errors import BadInput, one_line
from tpumake.folders import private_folder
from tpumake.lists import read_list

__all__ = ["Changes", "entry", "main", "plan", "touched"]

# https://docs.github.com/en/actions/reference/limits: a matrix has at most 256 jobs.
MOST = 256
# Minutes after which a job is taken to hang, where the stanza has no TIMEOUT; a hosted runner ends
# any job after 360. They are limits, several times what the largest examples took on two cores.
MINUTES = {"cvimodel": 60, "bmodel": 180}
MINUTES_MIX = {"cvimodel": 180, "bmodel": 350}
# Settings that change nothing in what is built; which variants there are is looked at by target.
WITHOUT_EFFECT = {"VARIANTS", "RUNNER", "TIMEOUT", "SILENCE"}
LISTS = ("DATASET", "DATA_LIST", "TUNE_LIST")
INPUTS = "INPUTS=1"


class Changes(NamedTuple):
    """What differs from a commit: ``files`` in the working tree at ``top``.

    ``before`` is what could be built then, by chip; one is missing where that could not be found
    out. ``lock`` holds the digests of networks that are fetched; ``lists`` say what is wanted.
    """

    top: Path
    commit: str
    files: list[Path]
    before: dict[str, Catalogue]
    lock: Path
    lists: list[Path]


# ---------------------------------------------------------------------------------------------
# The document


def entry(target: Target, chip: str, model: dict) -> dict:
    """A job of the matrix, schemas/matrix.schema.json.

    :param model: what `make list JSON=1 INPUTS=1` tells of the target's model
    :raises BadInput: the stanza's TIMEOUT is not a number of minutes
    """
    settings = model["settings"]
    labels = settings["RUNNER"].split()
    kind = Path(target.output).suffix.lstrip(".")
    minutes = settings.get("TIMEOUT", (MINUTES_MIX if target.variant == "mix" else MINUTES)[kind])
    if not str(minutes).isdecimal() or int(minutes) < 1:
        raise BadInput(f"{target.model}_TIMEOUT = {minutes}: must be minutes, 1 or more")
    return {
        "target": target.target,
        "model": target.model,
        "variant": target.variant,
        "chip": chip,
        "runner": labels[0] if len(labels) == 1 else labels,
        "timeout": int(minutes),
        "needs": model["extras"],
    }


def plan(
    wanted: Iterable[Wanted], known: dict[str, Catalogue], changes: Changes | None, code: list[Path]
) -> Iterator[tuple[Wanted, str]]:
    """The targets that are to be built, each with the reason.

    :param known: what can be built, by chip
    :param code: files and folders of tpumake's own that do the work, as they are called there
    """
    everything = _code_changed(code, changes) if changes else ""
    told: dict[tuple[str, str], str] = {}
    for each in wanted:
        there = known[each.chip]
        target = there.targets[each.target]
        if changes is None or everything:
            yield each, everything
            continue
        which = (target.model, each.chip)
        if which not in told:
            told[which] = _model_changed(target.model, there, changes)
        reason = told[which] or _newly_declared(target, changes.before.get(each.chip))
        if reason:
            yield each, reason


def _code_changed(code: list[Path], changes: Changes) -> str:
    looked_at = [changes.top / path for path in code]
    if not (changes.top / "scripts/plan_matrix.py").is_file():
        # In another's project the workflows say which tpumake is used, or it is a part of the tree.
        looked_at = [changes.top / ".github", Path.cwd()]
    return _first(touched([*looked_at, *changes.lists], changes.files), changes)


def _newly_declared(target: Target, before: Catalogue | None) -> str:
    then = before.targets.get(target.target) if before else None
    return "" if not target.declared or (then and then.declared) else "it was not declared then"


def _model_changed(model: str, now: Catalogue, changes: Changes) -> str:
    """Why a model is to be built again; empty if nothing that it depends on changed."""
    before = changes.before.get(now.chip)
    if before is None or model not in before.models:
        return "its stanza is new"
    settings, then = now.models[model]["settings"], before.models[model]["settings"]
    names = sorted((settings.keys() | then.keys()) - WITHOUT_EFFECT)
    differ = [name for name in names if settings.get(name) != then.get(name)]
    if differ:
        return f"{', '.join(differ)} changed"
    fetched = "URL" in settings
    for name, files in now.models[model]["inputs"].items():
        for path in map(Path, files):
            reason = _input_changed(path, name in LISTS, fetched and name == "ONNX", changes)
            if reason:
                return f"{model}_{name}: {reason}"
    return ""


def _input_changed(path: Path, may_be_list: bool, fetched: bool, changes: Changes) -> str:
    if not path.exists() and not fetched:
        return f"there is no {path}; its job will fail"
    real = path.resolve()
    if fetched:
        # Its bytes are those that the lock names.
        paths = [changes.lock]
    else:
        # A link is a file of its own, and leads to what counts.
        paths = [Path(os.path.abspath(path)), real]  # noqa: PTH100
        if not _seen_by_git(real, changes.top):
            return f"git does not keep {path}, so nobody knows"
    if may_be_list and real.is_file():
        with suppress(OSError, ValueError):
            paths += [one.resolve() for line in read_list(real) for one in line.paths]
    hits = touched(paths, changes.files)
    if not fetched and real.is_file():
        # What an ONNX keeps outside of itself lies beside it, called like it.
        beside = (file for file in changes.files if file.parent == real.parent)
        hits += [file for file in beside if file.name.startswith(f"{real.stem}.")]
    return _first(list(dict.fromkeys(hits)), changes)


def touched(paths: Iterable[Path], files: Iterable[Path]) -> list[Path]:
    """Those of the files that are one of the paths, lie below one, or hold one, as a submodule."""
    looked_at = [os.fspath(path) for path in paths]
    return [
        file for file in files
        for name in [os.fspath(file)]
        if any(name == path or name.startswith(f"{path}/") or path.startswith(f"{name}/")
               for path in looked_at)
    ]  # fmt: skip


def _first(files: list[Path], changes: Changes) -> str:
    if not files:
        return ""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0].relative_to(changes.top)} changed{more}"


# ---------------------------------------------------------------------------------------------
# git


def find_changes(
    revision: str, known: dict[str, Catalogue], folder: Path, stanzas: list[str], make: str
) -> Changes:
    """What differs from a revision, in the working tree that a folder belongs to.

    :param folder: what the stanzas' paths are seen from
    :raises BadInput: there is no git checkout, or no such revision in it
    """
    try:
        top = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n")).resolve()
    except BadInput as error:
        raise BadInput(f"CHANGED={revision}: {error}") from None
    try:
        commit = _git(top, "rev-parse", "--verify", "--quiet", "--end-of-options",
                      f"{revision}^{{commit}}").strip()  # fmt: skip
    except BadInput:
        raise BadInput(
            f"CHANGED={revision}: git knows no such revision here, and a shallow clone few"
        ) from None
    listed = _git(top, "diff", "--name-only", "-z", "--no-renames", commit, "--")
    listed += _git(top, "ls-files", "--others", "--exclude-standard", "-z")
    # With a / at its end it is a checkout of something else.
    files = sorted({top / name for name in listed.split("\0") if name and name[-1] != "/"})
    before = _before(top, commit, known, folder, stanzas, make)
    return Changes(top, commit, files, before, folder.resolve() / "models/fetched.lock", [])


def _before(
    top: Path,
    commit: str,
    known: dict[str, Catalogue],
    folder: Path,
    stanzas: list[str],
    make: str,
) -> dict[str, Catalogue]:
    """What could be built at a commit, by today's Makefile: its stanzas are put elsewhere."""
    with private_folder(Path(tempfile.gettempdir()), "tpumake-matrix-") as elsewhere:
        named = [Path(os.path.normpath(folder.resolve() / each)) for each in stanzas]
        if not all(each.is_relative_to(top) for each in named):
            return {}
        names = {each.relative_to(top).as_posix() for each in named}
        for name in _git(top, "ls-tree", "-r", "-z", "--name-only", commit).split("\0"):
            # Stanzas may include others.
            if name in names or name.endswith(".mk"):
                place = elsewhere / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(_git(top, "show", f"{commit}:{name}"), errors="surrogateescape")
        seen_from = elsewhere / folder.resolve().relative_to(top)
        there = " ".join(os.path.relpath(elsewhere / name, seen_from) for name in sorted(names))
        found = {}
        for chip in known:
            try:
                found[chip] = catalogue(
                    make, chip, INPUTS, f"PATHS_FROM={seen_from}", f"STANZAS={there}"
                )
            except BadInput as error:
                _say(f"the stanzas of {commit[:12]} can't be read: {error}")
        return found


def _seen_by_git(path: Path, top: Path) -> bool:
    """Whether git would tell of a change: neither outside of its tree nor ignored."""
    if not path.is_relative_to(top):
        return False
    done = subprocess.run(
        ["git", "-C", top, "check-ignore", "--quiet", "--", path], capture_output=True, check=False
    )
    return done.returncode != 0


def _git(folder: Path, *arguments: str) -> str:
    """What git prints.

    :raises BadInput: with git's own first line
    """
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, check=False,
            env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError:
        raise BadInput("CHANGED= needs git") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadInput(f"git {arguments[0]}: {said[0] if said else 'failed'}")
    return os.fsdecode(done.stdout)


# ---------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    print(one_line(line), file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="plan_matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--make", default="make", help="the make that tells what there is")
    parser.add_argument("--list", type=Path, help="a file with a target a line, and a chip if need "
                        "be; without it, all that stanzas declare")  # fmt: skip
    parser.add_argument("--changed", metavar="REVISION", help="only what has changed since then")
    parser.add_argument("--from", dest="folder", type=Path, default=Path(),
                        help="the folder that the stanzas' paths are seen from")  # fmt: skip
    parser.add_argument("--stanzas", action="append", default=[], help="a file of stanzas, seen "
                        "from there")  # fmt: skip
    parser.add_argument("--code", action="append", type=Path, default=[], help="what does the "
                        "work: everything is built again when it changed")  # fmt: skip
    return parser.parse_args()


def _possible(wanted: list[Wanted], known: dict[str, Catalogue], listed: bool) -> list[Wanted]:
    """Without what a chip can't have: a stanza's variants are meant for one that can."""
    kept = []
    for each in wanted:
        refused = known[each.chip].targets[each.target].refused
        if refused and listed:
            raise BadInput(f"{each.target} CHIP={each.chip}: {refused}")
        if refused:
            _say(f"{each.target}: left out: {refused}")
        else:
            kept.append(each)
    return kept


def main() -> int:
    """Print the matrix on standard output, and why each job is in it on standard error."""
    chosen = _arguments()
    first = catalogue(chosen.make, None, INPUTS)
    wanted = wanted_targets(chosen.list, first)
    chips = dict.fromkeys(each.chip for each in wanted)
    known = {chip: first if chip == first.chip else catalogue(chosen.make, chip, INPUTS)
             for chip in chips}  # fmt: skip
    wanted = _possible(wanted, known, bool(chosen.list))
    changes = None
    if chosen.changed:
        changes = find_changes(chosen.changed, known, chosen.folder, chosen.stanzas, chosen.make)
        # What a list names may be new in it.
        lists = [chosen.list.expanduser().resolve()] if chosen.list else []
        changes = changes._replace(lists=lists)
    include = []
    for each, reason in plan(wanted, known, changes, chosen.code):
        target = known[each.chip].targets[each.target]
        include.append(entry(target, each.chip, known[each.chip].models[target.model]))
        if reason:
            _say(f"{each.target}: {reason}")
    if not include and changes:
        _say(f"nothing that a model depends on has changed since {changes.commit[:12]}")
    if len(include) > MOST:
        raise BadInput(f"{len(include)} targets; a matrix has at most {MOST} jobs: LIST=, CHANGED=")
    print(json.dumps({"include": include}))
    return 0
