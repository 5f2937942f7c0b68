"""`make X.report`: the facts of a build, and the page that is made of them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from conftest import QUICK, ROOT, Checkout, copy_checkout, helper, refused
from referencing import Registry, Resource
from reports import HOSTILE, NAMES, evaluation, record, write_build
from test_makefile import insist_on_code

from tpumake.report.facts import Evaluation, accuracy, summary
from tpumake.report.records import Kept, by_hand, stages

SCHEMAS = {
    name: json.loads((ROOT / "schemas" / name).read_text())
    for name in (
        "report.schema.json",
        "info.schema.json",
        "layers.schema.json",
        "qtable_goal.schema.json",
    )
}
REGISTRY = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMAS["report.schema.json"], registry=REGISTRY)
# Elements that do or fetch something.
ACTIVE = {"script", "iframe", "object", "embed", "form", "input", "link", "base", "img", "video"}


def kept(*records: tuple[str, object]) -> list[Kept]:
    return [Kept(Path(path), one) for path, one in records]


def collected(folder: Path, *more: object) -> dict:
    done = helper("collect_report", *write_build(folder), *more)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "facts.json").read_text())


# ---------------------------------------------------------------------------------------------
# Facts


def test_the_facts_are_what_the_schema_says(tmp_path: Path) -> None:
    facts = collected(tmp_path)
    VALIDATOR.validate(facts)
    assert facts["versions"] == {"tpu_mlir": "1.7", "libc": "glibc 2.36"}
    assert [(each["name"], each["cached"], each["seconds"]) for each in facts["stages"]] == [
        ("transform", False, 3.25), ("deploy", True, 1.5),
    ]  # fmt: skip
    assert facts["stages"][1]["inputs"][0]["made_by"] == "transform"
    assert facts["info"]["contract"]["names"] == NAMES
    assert facts["outputs"] == ["out0"]
    # A picture that is gone is told of without it; none gets its own name.
    assert [each["file"] for each in facts["pictures"]] == ["0.jpg", None]
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["0.jpg"]
    assert [panel["title"] for panel in facts["pictures"][0]["panels"]] == ["ONNX", "INT8 cvimodel"]


def test_without_evaluation_or_layers_there_are_facts_all_the_same(tmp_path: Path) -> None:
    words = write_build(tmp_path)
    left_out = [at for at, word in enumerate(words) if word in ("--layers", "--eval")]
    words = [word for at, word in enumerate(words) if {at, at - 1}.isdisjoint(left_out)]
    done = helper("collect_report", *words)
    facts = json.loads((tmp_path / "facts.json").read_text())
    VALIDATOR.validate(facts)
    assert (facts["layers"], facts["accuracy"], facts["pictures"]) == (None, None, [])
    assert done.stdout.startswith("m_int8 for cv181x: ")


def test_a_picture_outside_its_folder_is_not_read(tmp_path: Path) -> None:
    words = write_build(tmp_path)
    document = evaluation("int8")
    document["worst"][0]["picture"] = "../seen/there.png"
    (tmp_path / "eval.json").write_text(json.dumps(document))
    assert "leads out of its folder" in refused(helper("collect_report", *words))


@pytest.mark.parametrize("name", ["layers.json", "eval.json", "build/m/logs/transform.key"])
def test_a_damaged_document_is_refused(tmp_path: Path, name: str) -> None:
    words = write_build(tmp_path)
    (tmp_path / name).write_text("[{")
    assert name in refused(helper("collect_report", *words))


def test_an_evaluation_of_another_model_is_told_as_such(tmp_path: Path) -> None:
    words = write_build(tmp_path)
    built = tmp_path / "build/m/cv181x/logs/int8.key"
    then = tmp_path / "build/m/cv181x/logs/int8.eval_model.key"
    for digest, outdated in (("3" * 64, False), ("4" * 64, True)):
        then.write_text(record("evaluate", [], {"m_int8.cvimodel": digest}, {}).to_json())
        done = helper("collect_report", *words, "--built", built, "--evaluated", then)
        assert done.returncode == 0, done.stderr
        runs = json.loads((tmp_path / "facts.json").read_text())["accuracy"]["runs"]
        assert [run["outdated"] for run in runs] == [False, outdated]


def test_evaluations_are_those_of_make_eval() -> None:
    schema = ROOT / "schemas/eval.schema.json"
    if schema.exists():
        validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
        validator.validate(evaluation("int8"))


def test_a_quick_evaluation_is_told_as_such() -> None:
    quick = evaluation("int8") | {"quick": True}
    assert accuracy([Evaluation(evaluation("mix")), Evaluation(quick)])["quick"] == ["m_int8"]


def test_variants_on_the_same_pictures_stand_side_by_side() -> None:
    others = [evaluation("int8"), evaluation("mix", 0.94), evaluation("bf16", seed=1)]
    told = accuracy([Evaluation(each) for each in others])
    assert [run["title"] for run in told["runs"]] == ["ONNX", "INT8 cvimodel", "MIX cvimodel"]
    assert told["left_out"] == ["m_bf16"]
    assert accuracy([]) is None


def test_by_hand_each_tool_finds_what_it_is_told() -> None:
    found = kept(
        ("build/m/logs/downgrade.key",
         record("downgrade", ["scripts/onnx_downgrade.py"], {"source": "0" * 64},
                {"m_v8.onnx": "1" * 64})),
        ("build/datasets/logs/set.key",
         record("dataset", [], {}, {"set": {"Calibration1.jpg": "5" * 64}})),
        ("build/m/logs/transform.key",
         record("transform", ["model_transform.py", "--x", "a b", "A=1"],
                {"m_v8.onnx": "1" * 64, "m_test.jpg": "5" * 64},
                {"m.mlir": "2" * 64, "m_in.npz": "4" * 64})),
        ("build/m/cv181x/logs/int8.key",
         record("deploy", ["with_extra", "torch", "model_deploy.py", "--y"],
                {"m.mlir": "2" * 64, "m_test.npz": "4" * 64,
                 "dataset": {"Calibration1.jpg": "5" * 64}, "m_qtable": "9" * 64}, {})),
    )  # fmt: skip
    assert by_hand(found) == [
        "mkdir by_hand",
        "cp build/m/m_v8.onnx by_hand/m_v8.onnx",
        "cp build/datasets/set/Calibration1.jpg by_hand/m_test.jpg",
        "cp -r build/datasets/set by_hand/dataset",
        f"# into by_hand/, as m_qtable: your file of SHA-256 {'9' * 64}",
        "cd by_hand",
        "model_transform.py --x 'a b'",
        "cp m_in.npz m_test.npz",
        "model_deploy.py --y",
    ]


def test_words_of_a_command_stay_words() -> None:
    parameters = ["model_transform.py", "; rm -rf ~", "$(x)", "`y`", HOSTILE]
    (*_, line) = by_hand(kept(("b/logs/t.key", record("transform", parameters, {}, {}))))
    assert shlex.split(line) == parameters


def test_a_record_without_times_says_nothing_of_them() -> None:
    (told,) = stages(kept(("b/logs/t.key", record("transform", [], {}, {}))))
    assert (told["seconds"], told["cached"]) == (None, None)


def test_the_summary_has_ten_lines_at_most(tmp_path: Path) -> None:
    facts = collected(tmp_path)
    facts["accuracy"]["runs"] *= 9
    said = summary(facts)
    assert len(said) <= 10
    assert "stages: 1 ran here in 3.2 s, 1 came from the cache" in said
    assert "INT8 cvimodel: mAP50 90.0, mAP50-95 50.0 on 12 pictures" in said
    assert "output least like the float network's: out0, cosine 0.9900" in said


# ---------------------------------------------------------------------------------------------
# The page


class Page(HTMLParser):
    """What a browser would make of a page, as far as tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, name: str) -> list[str]:
        """An attribute's values wherever it is."""
        return [str(attributes[name]) for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="session")
def report_python() -> Path:
    """The environment that draws pages; made here if `make test` didn't."""
    folder = Path(os.environ.get("REPORT_VENV", ROOT / ".report"))
    env = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    words = ["make", "--silent", f"REPORT_VENV={folder}", f"{folder}/ready"]
    subprocess.run(words, cwd=ROOT, env=env, check=True)
    return folder / "bin/python"


def rendered(python: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, ROOT / "scripts/render_report.py", folder / "facts.json", folder / "pictures",
         folder / "report.html"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(report_python: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    collected(folder)
    done = rendered(report_python, folder)
    assert done.returncode == 0, done.stderr
    return (folder / "report.html").read_text()


@pytest.mark.slow
def test_names_become_text_and_nothing_else(written: str) -> None:
    page = Page(written)
    assert len([tag for tag, _ in page.tags if tag in ACTIVE]) == 1
    assert len(page.scripts) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]
    # They are there as they are, but for what turns or ends a line.
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x07", "\\x07")
    for text in (f"{shown}29", "</svg><script>alert(3)</script>", "{{7*7}}"):
        assert text in page.text
    assert "\u202e" not in written
    assert any(label.startswith(f"{shown}0 · ") for label in page.all("aria-label"))


@pytest.mark.slow
def test_no_script_runs_but_the_pages_own_and_nothing_is_fetched(written: str) -> None:
    page = Page(written)
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policies[0]
    assert policies[0].startswith("default-src 'none'; img-src data:;")
    links = [link for name in ("href", "src", "xlink:href") for link in page.all(name)]
    assert {link[:1] if link[0] == "#" else link[:23] for link in links} == {
        "#", "data:image/jpeg;base64,",
    }  # fmt: skip
    assert "@import" not in written
    assert "url(" not in written


@pytest.mark.slow
def test_the_page_has_what_people_ask_for(written: str) -> None:
    page = Page(written)
    for text in (
        "50 MB memory, of", "90.0 -5.0", "MAX_DROP 0.02: broken", "lowest cosine of an output",
        "transform 30 of 30 agree", "3.2", "cache", "model_deploy.py --mlir m.mlir",
        "requirements/tpu_mlir-1.7.txt", "The contract is kept", "YOLO11",
        "2 of 31 layers are BF16: the cheapest of what was tried that loses 0.5 points at most",
    ):  # fmt: skip
        words = text.split(" memory, of")[0]
        assert words in page.text, text
    points = [label for label in page.all("aria-label") if "SQNR" in label]
    # Once for a screen, once for a phone.
    assert len(points) == 2 * 30
    assert "cosine 0.990000 · SQNR 40.0 dB" in points[0]
    assert "threshold 0.9" in points[0]
    assert any("output, tensor 31, Conv, BF16 · " in label for label in page.all("aria-label"))
    floats = [label for label in page.all("aria-label") if "float layers · " in label]
    assert floats[:2] == ["0 float layers · 0.00 MB more · drops by 45.00 points",
                          "2 float layers · 1.23 MB more · drops by 0.30 points"]  # fmt: skip
    assert "goal · 0.5 points" in page.all("aria-label")
    assert len(written.encode()) < 500_000


@pytest.mark.slow
def test_it_can_be_found_ones_way_in_by_keys_and_ears(written: str) -> None:
    page = Page(written)
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    targets = [link[1:] for link in page.all("href") if link.startswith("#")]
    assert len(targets) == 9 + 1
    assert set(targets) | {*page.all("aria-labelledby")} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    # What scrolls or has points can be reached, and says what it is.
    reached = [attributes for _, attributes in page.tags if attributes.get("tabindex") == "0"]
    assert reached
    assert all(attributes.get("aria-label") for attributes in reached)


@pytest.mark.slow
def test_a_page_is_the_same_bytes_each_time(
    written: str, report_python: Path, tmp_path: Path
) -> None:
    facts = collected(tmp_path)
    assert rendered(report_python, tmp_path).returncode == 0
    assert (tmp_path / "report.html").read_text() == written
    # And one of little is a page, too.
    little = facts | {"layers": None, "outputs": [], "accuracy": None, "pictures": []}
    (tmp_path / "facts.json").write_text(json.dumps(little))
    assert rendered(report_python, tmp_path).returncode == 0
    text = Page((tmp_path / "report.html").read_text()).text
    assert "Not measured yet: make m_int8.eval" in text


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "[]", '{"$schema": "report.schema.json"}'])
def test_a_page_of_other_facts_is_refused(report_python: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "facts.json").write_text(text)
    done = rendered(report_python, tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


# ---------------------------------------------------------------------------------------------
# By make


def test_what_is_not_there_is_told(checkout: Checkout) -> None:
    for words, said in (
        (["nosuch.report"], "there is no nosuch to report on"),
        (["compare"], "which two? make compare A=yolo11n_int8 B=yolo11n_bf16"),
        (["compare", "A=tiny_int8"], "which two?"),
        (["compare", "A=tiny_int8", "B=nosuch_int8"], "there is no nosuch_int8 for cv181x"),
        (["compare", "A=tiny_f32", "B=tiny_int8"], "there is no tiny_f32 for cv181x to compare"),
    ):
        done = checkout.make(*words, check=False)
        assert done.returncode == 2
        assert said in done.stderr
    assert not (checkout.path / "build").exists()


def test_its_stages_keys_cover_their_code(checkout: Checkout) -> None:
    said = checkout.make("--dry-run", "tiny_int8.report").stdout.replace("\\\n", " ")
    for stage, program in (("report", "collect_report.py"), ("page", "render_report.py")):
        line = next(line for line in said.splitlines() if f" --stage {stage} " in line)
        covered = insist_on_code(line, program)
    assert {f"tpumake/page/page.{kind}" for kind in ("css", "js", "html.jinja")} <= covered


@pytest.mark.toolchain
@pytest.mark.slow
def test_a_build_has_its_report(quick: Checkout, report_python: Path, tmp_path: Path) -> None:
    made = copy_checkout(quick, tmp_path / "check out")
    done = made.make("tiny_int8.report", "COUNT=1", *QUICK)
    folder = made.path / "build/tiny/cv181x"
    facts = json.loads((folder / "tiny_int8.report.json").read_text())
    VALIDATOR.validate(facts)
    assert [each["name"] for each in facts["stages"]] == [
        "check", "downgrade", "dataset", "transform", "calibrate", "deploy", "contract",
    ]  # fmt: skip
    assert all(each["seconds"] > 0 and each["cached"] is False for each in facts["stages"])
    assert facts["info"]["sha256"] == facts["stages"][5]["outputs"][0]["sha256"]
    assert len(facts["outputs"]) == 6
    assert "tiny_int8" in Page((folder / "tiny_int8.report.html").read_text()).text
    assert "→ build/tiny/cv181x/tiny_int8.report.html" in done.stdout
    # An evaluation that comes later is seen; nothing is made that is there.
    document = evaluation("int8") | {"target": "tiny_int8"}
    (folder / "tiny_int8.eval.json").write_text(json.dumps(document))
    said = made.make("tiny_int8.report", "COUNT=1", "JSON=1", *QUICK)
    assert json.loads(said.stdout)["accuracy"]["runs"][1]["title"] == "INT8 cvimodel"
    assert "int8 layers" not in said.stderr
    again = made.make("tiny_int8.report", "COUNT=1", *QUICK)
    assert again.stdout == "→ build/tiny/cv181x/tiny_int8.report.html\n"


@pytest.mark.toolchain
@pytest.mark.full
def test_the_commands_make_by_hand_what_the_build_made(
    quick: Checkout, toolchain, tmp_path: Path
) -> None:
    made = copy_checkout(quick, tmp_path / "check out")
    made.make("tiny_int8.report", "COUNT=1", *QUICK)
    facts = json.loads((made.path / "build/tiny/cv181x/tiny_int8.report.json").read_text())
    lines = [f"'{toolchain.program}' {line}" if line.startswith(("model_", "run_")) else line
             for line in facts["by_hand"]]  # fmt: skip
    subprocess.run(["sh", "-e"], input="\n".join(lines), text=True, check=True, cwd=made.path,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    table = (made.path / "by_hand/tiny_calib_table").read_text()
    ours = (made.path / "build/tiny/tiny_calib_table").read_text()
    assert [line for line in table.splitlines() if line[0] != "#"] == [
        line for line in ours.splitlines() if line[0] != "#"
    ]
    sizes = [path.stat().st_size for path in (made.path / "by_hand/tiny_int8.cvimodel",
             made.path / "build/tiny/cv181x/tiny_int8.cvimodel")]  # fmt: skip
    assert sizes[0] == pytest.approx(sizes[1], rel=0.001)


# ---------------------------------------------------------------------------------------------
# Two of them


@pytest.mark.slow
def test_two_builds_side_by_side(report_python: Path, tmp_path: Path) -> None:
    one = collected(tmp_path)
    two = json.loads(json.dumps(one)) | {"target": "m_mix"}
    two["info"]["size"] += 2_000_000
    two["layers"]["layers"][3] |= {"cosine": 0.5, "precision": "BF16"}
    two["layers"]["layers"][-1]["cosine"] = 0.999
    two["accuracy"]["runs"][1] |= {"variant": "mix"}
    two["accuracy"]["runs"][1]["measures"]["map50"] = 0.93
    two["stages"][1] |= {"key": "other", "parameters": ["model_deploy.py", HOSTILE]}
    for name, facts in (("one.json", one), ("two.json", two)):
        (tmp_path / name).write_text(json.dumps(facts))
    done = subprocess.run(
        [report_python, ROOT / "scripts/compare_reports.py", tmp_path / "one.json",
         tmp_path / "two.json", tmp_path / "both.html"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = {line[:28].strip(): line[28:].split() for line in done.stdout.splitlines()}
    assert rows["file, MB"] == ["0.00", "2.00", "+2.00"]
    assert rows["mAP50, %"] == ["90.0", "93.0", "+3.0"]
    assert rows["lowest cosine of an output"] == ["0.990000", "0.999000", "+0.009000"]
    assert rows["tensors not in INT8"] == ["1", "2", "+1"]
    assert rows["recall, %"] == ["80.0", "80.0"]
    page = Page((tmp_path / "both.html").read_text())
    assert len(page.scripts) == 1
    assert not {tag for tag, _ in page.tags} & (ACTIVE - {"script"})
    assert "The same: key" in page.text
    assert "parameters of m_mix /x/<img src=x onerror=alert(1)>" in page.text
    differ = page.text.partition("Where they differ most")[2]
    assert "INT8, BF16 0.990000 0.500000" in differ
