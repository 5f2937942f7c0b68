"""What quantisation cost: labels, average precision, what is kept, the document, the gate."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import ROOT, helper, refused
from PIL import Image

from tpumake.detections import Detections
from tpumake.errors import BadInput, CheckFailed
from tpumake.evaluation import found as kept_files
from tpumake.evaluation.document import Gate, Run, document, of_variant
from tpumake.evaluation.found import Found, Seen, find, read_found
from tpumake.evaluation.layers import worst_layers
from tpumake.evaluation.likeness import alike, alike_classes, harm, harm_of_class
from tpumake.evaluation.measures import measure, top
from tpumake.evaluation.pictures import EvalSet, Picture, choose, read_set
from tpumake.evaluation.running import Feeding, Kept, Toolchain, code_digest, run_set
from tpumake.evaluation.table import gate_line, lines
from tpumake.evaluation.truth import Object
from tpumake.letterbox import fit, fit_input, letterbox
from tpumake.network_input import NetworkInput

VALIDATOR = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas/eval.schema.json").read_text())
)
SHAPES = ["circle", "square", "triangle", "star"]
# What one perfect detection comes to: the last recall counts half.
PERFECT = 0.995


def detections(*rows: tuple[float, ...]) -> Detections:
    """Of left, top, right, bottom, score, class."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(np.int64))


def box(left: float, score: float, number: int = 0) -> tuple[float, ...]:
    """A box of 10 by 10 pixels."""
    return (left, 0, left + 10, 10, score, number)


def there(left: float, number: int = 0, crowd: bool = False) -> Object:
    return Object(number, (left, 0, left + 10, 10), crowd)


def measured(truth: list[list[Object]], *found: Detections):
    return measure(truth, found, [(100, 100)] * len(truth), 0.25)


# ---------------------------------------------------------------------------------------------
# Average precision, computed by hand


def test_what_is_found_exactly_is_perfect() -> None:
    told = measured([[there(0), there(50, 1)]], detections(box(0, 0.9), box(50, 0.8, 1)))
    assert (told.map50, told.map50_95) == pytest.approx((PERFECT, PERFECT))
    assert (told.coco_map50, told.coco_map50_95) == pytest.approx((1, 1))
    assert (told.precision, told.recall, told.f1) == (1, 1, 1)


def test_a_wrong_box_between_two_right_ones() -> None:
    """Precision 1 up to a recall of a half, then 2/3."""
    told = measured([[there(0)], [there(0)]], detections(box(0, 0.9), box(50, 0.8)),
                    detections(box(0, 0.7)))  # fmt: skip
    # In steps at 101 recalls: 51 of them up to a half.
    assert told.coco_map50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    # Along straight lines: 49 whole intervals, one down, 49 whole ones, one down to nothing.
    assert told.map50 == pytest.approx(0.49 + 0.01 * (1 + 2 / 3) / 2 + 0.49 * 2 / 3 + 0.01 / 3)
    assert (told.precision, told.recall) == pytest.approx((2 / 3, 1))
    assert told.f1 == pytest.approx(0.8)


def test_ten_overlaps_count() -> None:
    """Overlapping by 0.62, a box counts at 0.5, 0.55 and 0.6."""
    told = measured([[Object(0, (0, 0, 100, 10))]], detections((0, 0, 62, 10, 0.9, 0)))
    assert told.map50 == pytest.approx(PERFECT)
    assert told.map50_95 == pytest.approx(0.3 * PERFECT)


def test_of_two_boxes_on_one_object_the_surer_counts() -> None:
    told = measured([[there(0)]], detections(box(1, 0.9), box(0, 0.8)))
    assert told.map50 == pytest.approx(PERFECT)
    # The surer one overlaps by 9/11, so not at 0.85 and above, where the other one is right.
    assert told.map50_95 < 0.9
    assert (told.precision, told.recall) == (0.5, 1)


def test_a_class_that_is_not_found_or_not_there() -> None:
    told = measured([[there(0), there(50, 2)]], detections(box(0, 0.9), box(50, 0.8, 1)))
    assert [(each.number, each.objects) for each in told.classes] == [(0, 1), (2, 1)]
    assert told.map50 == pytest.approx(PERFECT / 2)
    # What is of a class without labels counts as wrong.
    assert (told.precision, told.recall) == (0.5, 0.5)


def test_only_what_is_sure_enough_counts_for_precision() -> None:
    told = measured([[there(0), there(50)]], detections(box(0, 0.9), box(50, 0.25), box(80, 0.2)))
    assert (told.precision, told.recall) == (1, 0.5)
    assert told.map50 == pytest.approx(PERFECT)


def test_crowds_are_neither_missed_nor_found() -> None:
    told = measured([[there(0), there(50, crowd=True)]], detections(box(0, 0.9), box(50, 0.95)))
    assert told.map50 == pytest.approx(PERFECT)
    assert (told.precision, told.recall) == (1, 1)


def test_without_any_label_there_is_no_figure() -> None:
    assert measured([[], [there(0, crowd=True)]], detections(box(0, 0.9)), detections()) is None
    assert measured([[there(0)]], detections()).map50 == 0


def test_top_classes() -> None:
    found = [detections(box(0, 0.6, 3), box(0, 0.4, 1)), detections(box(0, 0.9, 2))]
    assert top([1, 2], found, 1) == 0.5
    assert top([1, 2], found, 5) == 1


# ---------------------------------------------------------------------------------------------
# Likeness


def test_likeness() -> None:
    one = detections(box(0, 0.9), box(50, 0.5, 1), box(80, 0.26))
    two = detections(box(2, 0.8), box(50, 0.7, 1), box(30, 0.6))
    like = alike([one], [two], 0.25)
    assert like[:3] == (2, 1, 1)
    assert like.share == pytest.approx(2 / 3)
    # Two sides of eight moved by 2.
    assert (like.box_shift, like.most_shift) == pytest.approx((0.5, 2))
    assert (like.score_shift, like.score_apart) == pytest.approx((0.05, 0.15))
    # One went, one came; scores are 0.3 apart, and of 12 by 10 pixels 8 by 10 are in both boxes.
    assert harm(one, two, 0.25) == pytest.approx(2 + 0.3 + 1 / 3)
    nothing = alike([detections()], [detections()], 0.25)
    assert nothing == (0, 0, 0, None, None, None, None, None)


def test_likeness_of_classifiers() -> None:
    one = [detections(box(0, 0.6, 3)), detections(box(0, 0.9, 2))]
    two = [detections(box(0, 0.5, 3)), detections(box(0, 0.9, 1))]
    like = alike_classes(one, two)
    assert like[:4] == (1, 1, 1, 0.5)
    assert (like.box_shift, like.score_shift) == (None, pytest.approx(-0.1))
    assert [harm_of_class(*pair) for pair in zip(one, two, strict=True)] == pytest.approx([0.1, 1])


# ---------------------------------------------------------------------------------------------
# Pictures and labels


def make_pictures(folder: Path, *names: str) -> None:
    """Small pictures, all different."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20), (index, 100, 0)).save(path)


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """One labelled picture, laid out as Ultralytics does it."""
    folder = tmp_path / "a set"
    make_pictures(folder, "images/a.png")
    (folder / "labels").mkdir()
    (folder / "labels/a.txt").write_text("1 0.5 0.5 0.5 1\n")
    return folder


def test_yolo_labels(yolo: Path) -> None:
    # A byte-order mark, blank lines, one line twice, a polygon.
    text = "\ufeff1 0.5 0.5 0.5 1\r\n\n1 0.5 0.5 0.5 1\n0 0.1 0.1 0.3 0.1 0.2 0.5\n"
    (yolo / "labels/a.txt").write_text(text, encoding="utf-8")
    chosen = choose(yolo, 50, 0, SHAPES)
    (picture,) = chosen.pictures
    assert (chosen.layout, chosen.known, picture.width, picture.height) == ("yolo", 4, 40, 20)
    assert picture.objects[0] == Object(1, (10, 0, 30, 20))
    assert picture.objects[1].box == pytest.approx((4, 2, 12, 10))
    assert len(picture.objects) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("circle 0.5 0.5 1 1", '"circle 0.5 0.5 1 1" are no numbers'),
        ("0 0.5 0.5 1", "4 numbers; class, centre x, centre y, width, height are wanted"),
        ("0 0.5 0.5 1 1 0.9", "6 numbers"),
        ("-1 0.5 0.5 1 1", "class -1 is no whole number"),
        ("0.5 0.5 0.5 1 1", "class 0.5 is no whole number"),
        ("4 0.5 0.5 1 1", "class 4, but the network has 4: circle, square, triangle, star"),
        ("0 20 10 8 4", "20 is no fraction of the picture (0 to 1); are these pixels?"),
        ("0 nan 0.5 1 1", "nan is no fraction"),
        ("0 0.5 0.5 0 1", "a box without area"),
    ],
)
def test_a_broken_line_is_named(yolo: Path, line: str, said: str) -> None:
    (yolo / "labels/a.txt").write_text(f"1 0.5 0.5 0.5 1\n{line}\n")
    names = yolo.with_name("names")
    names.write_text("\n".join(SHAPES))
    target = yolo.with_name("set.json")
    told = refused(helper("prepare_evaluation", yolo, target, "--labels", names))
    assert f"{yolo}/labels/a.txt:2: {said}" in told
    assert not target.exists()


def test_without_names_any_class_will_do(yolo: Path) -> None:
    (yolo / "labels/a.txt").write_text("70 0.5 0.5 0.5 1\n")
    assert choose(yolo, 50, 0, []).pictures[0].objects[0].number == 70


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no such folder of pictures"),
        (lambda folder: (folder / "images/a.png").unlink(), "holds no picture"),
        (lambda folder: (folder / "labels/a.txt").rename(folder / "labels/b.txt"),
         "labels/b.txt: no picture in images/ has this name"),
        (lambda folder: (folder / "labels/a.txt").write_bytes(b"\xff\xfe0"), "no text"),
        (lambda folder: (folder / "images/a.png").write_bytes(
            (folder / "images/a.png").read_bytes()[:60]), "a.png: damaged or cut short"),
    ],
)  # fmt: skip
def test_a_folder_that_will_not_do_is_one_line(yolo: Path, damage, said: str) -> None:
    damage(yolo)
    target = yolo.with_name("set.json")
    assert said in refused(helper("prepare_evaluation", yolo, target))
    assert not target.exists()


def test_the_folder_above_is_asked_for(yolo: Path) -> None:
    with pytest.raises(BadInput, match="its labels lie beside it; give the folder above"):
        choose(yolo / "images", 50, 0, [])


def test_pictures_without_a_label_file_show_nothing_and_are_counted(yolo: Path) -> None:
    make_pictures(yolo, "images/c.png", "images/b.png")
    (yolo / "labels/c.txt").write_text("")
    target = yolo.with_name("set.json")
    done = helper("prepare_evaluation", yolo, target)
    # c.png and a.png are of the same bytes, and count once.
    assert done.stdout == "2 pictures, 1 object, 1 without a label file taken for empty\n"
    assert read_set(target).plain == 1


def test_the_choice_hangs_on_contents_and_seed(tmp_path: Path) -> None:
    make_pictures(tmp_path / "one", *(f"{index}.png" for index in range(12)))
    make_pictures(tmp_path / "two", *(f"a/{30 - index}.png" for index in range(12)))

    def taken(folder: str, count: int, seed: int) -> list[str]:
        return [each.sha256 for each in choose(tmp_path / folder, count, seed, []).pictures]

    assert taken("one", 9, 0)[:4] == taken("two", 4, 0)
    assert taken("one", 9, 0) != taken("one", 9, 1)
    assert choose(tmp_path / "one", 9, 0, []).of == 12
    assert not choose(tmp_path / "one", 9, 0, []).labelled


COCO = {
    "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 20}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 3, 4]}],
    "categories": [{"id": 3, "name": "circle"}, {"id": 18, "name": "star"}],
}


def write_coco(folder: Path, **changes: object) -> Path:
    make_pictures(folder, "images/a.png", "images/b.png")
    (folder / "annotations").mkdir(exist_ok=True)
    path = folder / "annotations/val.json"
    path.write_text(json.dumps(COCO | changes))
    return path


def test_coco_labels_by_name_and_by_order(tmp_path: Path) -> None:
    write_coco(tmp_path)
    chosen = choose(tmp_path, 50, 0, SHAPES)
    # b.png is none of its images.
    (picture,) = chosen.pictures
    assert (chosen.layout, picture.name) == ("coco", "images/a.png")
    assert picture.objects == [Object(3, (1, 2, 4, 6))]
    unnamed = choose(tmp_path, 50, 0, [])
    assert unnamed.pictures[0].objects[0].number == 1
    assert (unnamed.classes, unnamed.known) == (["circle", "star"], 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"categories": [{"id": 18, "name": "moon"}]}, "category moon is none of the network's"),
        ({"categories": [{"id": 3, "name": "star"}]}, "annotation 0: category 18 is none of"),
        ({"annotations": [{"image_id": 7, "category_id": 18}]}, "annotation 0: no 'bbox'"),
        ({"annotations": [{"image_id": 7, "category_id": 18, "bbox": [0, 0, -1, 2]}]}, "is no box"),
        ({"images": [{"id": 7, "file_name": "x.png"}]}, "names none of the pictures"),
        ({"images": [{"id": 7, "file_name": "a.png", "width": 4, "height": 2}]}, "is 4×2 there"),
        ({"images": 3}, "has no images, annotations and categories"),
    ],
)
def test_broken_coco_files_are_one_line(tmp_path: Path, changes: dict, said: str) -> None:
    path = write_coco(tmp_path, **changes)
    with pytest.raises(BadInput, match=said) as told:
        choose(tmp_path, 50, 0, SHAPES)
    assert str(path) in str(told.value)


def test_two_coco_files_are_one_too_many(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    shutil.copy(path, tmp_path / "train.json")
    with pytest.raises(BadInput, match=r"several COCO files \(annotations/val.json, train.json\)"):
        choose(tmp_path, 50, 0, SHAPES)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    make_pictures(tmp_path, "cat/a.png", "ant/b.png", "cat/c/d.png")
    chosen = choose(tmp_path, 50, 0, [])
    assert (chosen.layout, chosen.classes) == ("folders", ["ant", "cat"])
    assert {each.name: each.number for each in chosen.pictures} == {
        "cat/a.png": 1, "ant/b.png": 0, "cat/c/d.png": 1,
    }  # fmt: skip
    # Names that the network knows by the same words are numbered as it does it.
    assert {each.number for each in choose(tmp_path, 50, 0, ["dog", "cat", "ant"]).pictures} == {
        1, 2,
    }  # fmt: skip
    with pytest.raises(BadInput, match="2 folders, but the network has 3 classes"):
        choose(tmp_path, 50, 0, ["dog", "cat", "bee"])


# ---------------------------------------------------------------------------------------------
# What was found, and what is kept


def test_found_is_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "found.npz"
    each = [detections(box(0, 0.9)), detections(), detections(box(1, 0.8, 3), box(-9, 0.1))]
    kept_files.write(path, [Seen("detect", 4, one, 0.5) for one in each])
    again = read_found(path, 3)
    assert (again.kind, again.outputs, again.seconds) == ("detect", 4, 0.5)
    for one, two in zip(each, again.each, strict=True):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)
    with pytest.raises(BadInput, match="is of 3 pictures, the set has 4"):
        read_found(path, 4)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadInput, match="or cut short"):
        read_found(path, 3)


def test_a_classifiers_surest_classes() -> None:
    scores = np.zeros((1, 10, 1, 1), np.float32)
    scores[0, [7, 2], 0, 0] = 0.6, 0.4
    seen = find([scores], fit((40, 20), (64, 64)), 0, 0.1)
    assert (seen.kind, seen.outputs) == ("classify", 10)
    assert seen.found.classes.tolist() == [7, 2, 0, 1, 3]
    with pytest.raises(BadInput, match="tells 10 classes apart, 4 are named"):
        find([scores], fit((40, 20), (64, 64)), 4, 0.1)
    with pytest.raises(BadInput, match="can't be decoded"):
        find([np.zeros((1, 3, 5, 7), np.float32)], fit((40, 20), (64, 64)), 4, 0.1)


def test_boxes_are_not_cut_off_at_the_border() -> None:
    """Average precision is Ultralytics', which doesn't, either."""
    whole = np.zeros((1, 8, 84), np.float32)
    whole[0, :, 5] = (0, 32, 20, 20, 0.9, 0, 0, 0)
    seen = find([whole], fit((64, 64), (64, 64)), 4, 0.1)
    np.testing.assert_allclose(seen.found.boxes, [[-10, 22, 10, 42]])


def input_of(side: int, **more) -> NetworkInput:
    return NetworkInput(side, side, (0,) * 3, (1 / 255,) * 3, "rgb", True, True, **more)


def test_what_covers_the_input_is_cut_at_its_sides() -> None:
    """As classifiers want it: the shorter side fills the input, or a larger square before."""
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, 15:25] = 200
    fitted = fit_input(picture, input_of(10, covering=True))
    assert fitted[2:] == (10, 10, 20, 10, -5, 0)
    seen = letterbox(picture, fitted)
    assert seen.shape == (10, 10, 3)
    # The bright middle is 5 of the 20 columns that the picture has then, and of the 10 that stay.
    assert 4 <= (seen[5, :, 0] > 100).sum() <= 6
    larger = fit_input(picture, input_of(10, covering=True, resized=(20, 20)))
    assert larger[2:] == (10, 10, 40, 20, -15, -5)
    assert (letterbox(picture, larger) == 200).all()


class Counting:
    """A runner that finds nothing, and counts what it was asked for; it may break off."""

    files: tuple[Path, ...] = ()

    def __init__(self, breaks_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self.left = breaks_after

    def run(self, feeding: Feeding, pictures: list[Picture]) -> Iterator[tuple[Picture, Seen]]:
        for picture in pictures:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.asked.append(picture.name)
            yield picture, Seen("detect", 4, detections(box(0, 0.5)), 0.1)


def eval_set(count: int = 4, **more) -> EvalSet:
    pictures = [
        Picture(f"{n}.png", f"{n:032x}" * 2, 100, 100, [there(0)], None) for n in range(count)
    ]
    fields = {"source": "a set", "layout": "yolo", "seed": 0, "of": 9, "plain": 0, "known": 4,
              "classes": SHAPES, "pictures": pictures}  # fmt: skip
    return EvalSet(**fields | more)


def test_a_run_that_was_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    feeding, steps = Feeding(tmp_path, input_of(64), 114, 4), []
    with pytest.raises(KeyboardInterrupt):
        run_set(Counting(2), eval_set(), feeding, Kept(tmp_path, "a" * 64), lambda *_: None)
    again = Counting()
    seen = run_set(again, eval_set(), feeding, Kept(tmp_path, "a" * 64), lambda *n: steps.append(n))
    assert again.asked == ["2.png", "3.png"]
    assert steps == [(2, 4), (3, 4), (4, 4)]
    assert len(seen) == 4
    # More pictures: only those.
    more = Counting()
    run_set(more, eval_set(6), feeding, Kept(tmp_path, "a" * 64), lambda *_: None)
    assert more.asked == ["4.png", "5.png"]
    # One that is damaged is run again.
    first = sorted((tmp_path / ("a" * 32)).iterdir())[0]
    first.write_bytes(b"PK\x03\x04")
    mended = Counting()
    run_set(mended, eval_set(), feeding, Kept(tmp_path, "a" * 64), lambda *_: None)
    assert mended.asked == ["0.png"]


def test_another_network_finds_nothing_of_an_earlier_ones(tmp_path: Path) -> None:
    feeding = Feeding(tmp_path, input_of(64), 114, 4)
    place = tmp_path / "kept"
    run_set(Counting(), eval_set(), feeding, Kept(place, "a" * 64), lambda *_: None)
    other = Counting()
    run_set(other, eval_set(), feeding, Kept(place, "b" * 64), lambda *_: None)
    assert len(other.asked) == 4
    assert [each.name for each in place.iterdir()] == ["b" * 32]


def test_the_digest_hangs_on_files_words_and_code(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"one")
    first = code_digest([model], ["--aligned_input"])
    assert first == code_digest([model], ["--aligned_input"])
    assert first != code_digest([model], [])
    model.write_bytes(b"two")
    assert first != code_digest([model], ["--aligned_input"])


# In place of the toolchain's `run`: what it is asked for it "runs" in no time, or fails at.
PROGRAM = """#!{python}
import sys, pathlib
import numpy as np
words = sys.argv[3:]
pairs = [words[n + 1 : n + 3] for n, word in enumerate(words) if word == "--picture"]
for done, (picture, target) in enumerate(pairs, 1):
    assert pathlib.Path(picture).exists() and pathlib.Path("model.cvimodel").exists()
    if {fails!r} == "loudly":
        sys.exit("Error: no emulator")
    if {fails!r} == "silently":
        break
    whole = np.zeros((1, 8, 84), "f4")
    whole[0, :, 5] = (32, 32, 20, 20, 0.9, 0, 0, 0)
    np.savez(target, out=whole)
    print("PROGRESS", done, len(pairs), "0.250", flush=True)
"""


def toolchain_of(folder: Path, fails: str = "") -> tuple[Toolchain, EvalSet, Feeding]:
    make_pictures(folder / "set", *(f"{index}.png" for index in range(5)))
    for name in ("model.cvimodel", "net.mlir"):
        (folder / name).write_text("")
    program = folder / "run"
    program.write_text(PROGRAM.format(python=sys.executable, fails=fails))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    runner = Toolchain([folder / "model.cvimodel"], folder / "net.mlir", [], program, 2, folder)
    chosen = choose(folder / "set", 50, 0, SHAPES)
    return runner, chosen, Feeding(folder / "set", input_of(64), 114, 4)


@pytest.mark.slow
def test_processes_side_by_side_in_folders_of_their_own(tmp_path: Path) -> None:
    runner, chosen, feeding = toolchain_of(tmp_path)
    seen = run_set(runner, chosen, feeding, Kept(tmp_path / "kept", "a" * 64), lambda *_: None)
    assert [len(each.found.scores) for each in seen] == [1] * 5
    assert {each.seconds for each in seen} == {0.25}
    # A picture of 40×20 in an input of 64×64.
    np.testing.assert_allclose(seen[0].found.boxes[0], [13.75, 3.75, 26.25, 16.25])
    assert not list(tmp_path.glob("part-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "said"),
    [("loudly", "model.cvimodel can't be run: Error: no emulator"),
     ("silently", "ended well without running all pictures")],
)  # fmt: skip
def test_a_process_that_fails_ends_the_run(tmp_path: Path, fails: str, said: str) -> None:
    runner, chosen, feeding = toolchain_of(tmp_path, fails)
    with pytest.raises(CheckFailed, match=said):
        run_set(runner, chosen, feeding, Kept(tmp_path / "kept", "a" * 64), lambda *_: None)
    assert not list(tmp_path.glob("part-*"))


def test_a_picture_that_changed_meanwhile_is_told(tmp_path: Path) -> None:
    make_pictures(tmp_path, "a.png")
    chosen = choose(tmp_path, 50, 0, [])
    (tmp_path / "a.png").write_bytes(b"other")
    with pytest.raises(BadInput, match="has changed meanwhile"):
        Feeding(tmp_path, input_of(64), 114, 4).see(chosen.pictures[0])


# ---------------------------------------------------------------------------------------------
# The document, the table, the gate


def found_of(each: list[Detections], kind: str = "detect", outputs: int = 4) -> Found:
    return Found(kind, outputs, each, 1.5)


def runs_of(model: Detections, lowered: Detections | None = None) -> list[Run]:
    """The ONNX finds everything, the model what is given, in each of four pictures."""
    right = found_of([detections(box(0, 0.9))] * 4)
    runs = [Run("onnx", "", "cvimodel", right), Run("cut", "", "cvimodel", right)]
    if lowered is not None:
        runs.append(Run("lowered", "int8", "cvimodel", found_of([lowered] * 4)))
    return [*runs, Run("model", "int8", "cvimodel", found_of([model] * 4))]


def test_the_document_is_as_its_schema_has_it() -> None:
    worse = detections(box(1, 0.6), box(60, 0.4, 2))
    told = document("m_int8", "cv181x", eval_set(), runs_of(worse, worse), 0.25, Gate(0.5, True))
    VALIDATOR.validate(told)
    assert [each["title"] for each in told["runs"]] == [
        "ONNX", "cut ONNX", "INT8 mlir", "INT8 cvimodel",
    ]  # fmt: skip
    assert told["runs"][0]["agreement"] is None
    assert told["runs"][3]["agreement"]["new"] == 4
    assert told["apart"][0]["box_shift"] == 0
    (first, *_) = told["worst"]
    assert first["truth"] == [{"class": 0, "score": None, "box": [0, 0, 10, 10]}]
    assert [each["class"] for each in first["model"]] == [0, 2]
    assert told["gates"][0]["passed"] is True
    shown = "\n".join(lines(told))
    assert "4 of 9 pictures of a set, 4 objects" in shown
    assert "INT8 cvimodel  99.50" in shown
    assert "int8: the emulator against the lowered mlir: 8 of 8 found again, 0 new" in shown


@pytest.mark.parametrize(("most", "passed"), [(PERFECT, True), (0.99, False), (0, False)])
def test_the_gate(most: float, passed: bool) -> None:
    told = document("m_int8", "cv181x", eval_set(), runs_of(detections()), 0.25, Gate(most, True))
    (gate,) = told["gates"]
    assert (gate["drop"], gate["passed"]) == (pytest.approx(PERFECT), passed)
    assert "mAP50 drops by 0.9950" in gate_line(gate)
    assert gate_line(gate, ["conv (cosine 0.5)"]).endswith("what suffers most: conv (cosine 0.5)")


def test_the_layers_that_add_most_noise(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    noise = {"a": 0.01, "b": 0.2, "c": -0.1, "d": 0.034, "e": 0.02}
    layers = [{"name": name, "added_noise": added} for name, added in noise.items()]
    path.write_text(json.dumps({"layers": layers}))
    assert worst_layers(path) == ["b (20.00 % noise)", "d (3.40 % noise)", "e (2.00 % noise)"]
    path.write_text("{}")
    with pytest.raises(BadInput, match="no document of layers"):
        worst_layers(path)


def test_what_is_better_than_before_passes() -> None:
    runs = runs_of(detections(box(0, 0.9)))
    runs[0] = runs[0]._replace(found=found_of([detections()] * 4))
    told = document("m_int8", "cv181x", eval_set(), runs, 0.25, Gate(0, True))
    assert told["gates"][0]["drop"] < 0
    assert told["gates"][0]["passed"] is True


def test_without_the_model_no_gate_decides() -> None:
    runs = [*runs_of(detections())[:2], runs_of(detections(), detections())[2]]
    told = document("m_int8", "cv181x", eval_set(), runs, 0.25, Gate(0.02, False))
    VALIDATOR.validate(told)
    assert told["quick"] is True
    assert told["gates"][0]["passed"] is None
    assert "not decided" in lines(told)[-1]


def test_without_labels_only_agreement() -> None:
    chosen = eval_set(layout="none")
    chosen = chosen._replace(pictures=[each._replace(objects=None) for each in chosen.pictures])
    told = document("m", "cv181x", chosen, runs_of(detections(box(0, 0.8))), 0.25, None)
    VALIDATOR.validate(told)
    assert {json.dumps(each["measures"]) for each in told["runs"]} == {"null"}
    assert "without labels: agreement only" in lines(told)[0]
    assert "mAP" not in "\n".join(lines(told))
    with pytest.raises(BadInput, match="MAX_DROP: the pictures in a set have no labels"):
        document("m", "cv181x", chosen, runs_of(detections()), 0.25, Gate(0.02, True))


def test_a_classifier() -> None:
    pictures = [Picture(f"{n}.png", f"{n:032x}" * 2, 9, 9, None, n) for n in range(2)]
    chosen = eval_set(layout="folders", classes=["ant", "cat"], pictures=pictures)
    right = [detections(box(0, 0.9, 0), box(0, 0.1, 1)), detections(box(0, 0.8, 1), box(0, 0.2))]
    runs = [Run("onnx", "", "cvimodel", found_of(right, "classify", 2)),
            Run("model", "int8", "cvimodel", found_of(right[:1] * 2, "classify", 2))]  # fmt: skip
    told = document("m_int8", "cv181x", chosen, runs, 0.25, Gate(0.1, True))
    VALIDATOR.validate(told)
    assert [each["measures"]["top1"] for each in told["runs"]] == [1, 0.5]
    assert told["gates"][0] == {"variant": "int8", "figure": "top1", "drop": 0.5, "max_drop": 0.1,
                                "passed": False}  # fmt: skip
    assert lines(told)[1].split() == ["top-1", "top-5", "found", "again", "new", "scores", "s",
                                      "a", "picture"]  # fmt: skip
    with pytest.raises(BadInput, match="a folder of pictures for each class"):
        document("m", "cv181x", chosen._replace(layout="yolo"), runs, 0.25, None)
    with pytest.raises(BadInput, match="has 3 folders, the network 2 classes"):
        document("m", "cv181x", chosen._replace(classes=SHAPES[:3]), runs, 0.25, None)


def test_labels_of_a_class_that_the_network_lacks() -> None:
    chosen = eval_set(classes=[], known=0)
    chosen.pictures[0].objects.append(there(0, 7))
    with pytest.raises(BadInput, match="labels of class 7, the network has 4 classes, from 0"):
        document("m", "cv181x", chosen, runs_of(detections()), 0.25, None)


def test_a_variants_part() -> None:
    runs = runs_of(detections(box(0, 0.5)))
    runs.append(runs[-1]._replace(variant="bf16"))
    whole = document("m", "cv181x", eval_set(), runs, 0.25, Gate(0.5, True))
    part = of_variant(whole, "m_bf16", "bf16")
    VALIDATOR.validate(part)
    assert [each["title"] for each in part["runs"]] == ["ONNX", "cut ONNX", "BF16 cvimodel"]
    assert {each["variant"] for each in part["worst"] + part["gates"]} == {"bf16"}


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text(eval_set().to_json())
    for name, one in (("onnx", box(0, 0.9)), ("model", box(50, 0.9))):
        seen = [Seen("detect", 4, detections(one), 0.1)] * 4
        kept_files.write(tmp_path / f"{name}.npz", seen)
    words = ["m_int8", tmp_path / "set.json", "--chip", "cv181x", "--run", "onnx", "-",
             tmp_path / "onnx.npz", "--run", "model", "int8", tmp_path / "model.npz",
             "--write", "int8", "m_int8", tmp_path / "out.json", "--max-drop", "0.02"]  # fmt: skip
    done = helper("evaluate", *words)
    assert done.returncode == 0, done.stderr
    assert "int8: mAP50 drops by 0.9950, at most 0.02 is allowed (MAX_DROP)" in done.stdout
    written = json.loads((tmp_path / "out.json").read_text())
    assert json.loads(helper("evaluate", *words, "--json").stdout) == written
    failed = helper("evaluate", *words, "--gate")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("evaluate: int8: mAP50 drops by 0.9950")
    (tmp_path / "model.npz").write_bytes(b"")
    assert "model.npz" in refused(helper("evaluate", *words))


# ---------------------------------------------------------------------------------------------
# The float network, against what Ultralytics says of it


@pytest.mark.full
@pytest.mark.toolchain
def test_the_float_networks_figures_are_ultralytics(tmp_path: Path, record_property) -> None:
    """Of models/yolo11n.onnx on all of datasets/shapes_val, as `ultralytics val` gives them."""
    for part in ("images", "labels"):
        shutil.copytree(ROOT / f"datasets/shapes_val/{part}", tmp_path / f"val/{part}")
    data = tmp_path / "shapes.yaml"
    data.write_text("train: val/images\nval: val/images\nnames: [circle, square, triangle, star]\n")
    network = ROOT / "models/yolo11n.onnx"
    said = subprocess.run(
        [ROOT / ".extras/torch/run", ROOT / "tests/ultralytics_val.py", network, data, tmp_path],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    theirs = [float(word) for word in said.rpartition("FIGURES")[2].split()]
    (tmp_path / "net.mlir").write_text(MLIR)
    assert helper("prepare_evaluation", tmp_path / "val", tmp_path / "set.json", "--count", 100,
                  "--names-from", network).returncode == 0  # fmt: skip
    assert helper("run_evaluation", tmp_path / "set.json", tmp_path / "val", tmp_path / "f.npz",
                  "--network", tmp_path / "net.mlir", "--onnx", network,
                  "--keep", tmp_path / "kept").returncode == 0  # fmt: skip
    chosen = read_set(tmp_path / "set.json")
    found = read_found(tmp_path / "f.npz", 100)
    ours = measure([each.objects for each in chosen.pictures], found.each, [(640, 480)] * 100, 0.25)
    record_property("figure", f"mAP50 {ours.map50:.4f}, mAP50-95 {ours.map50_95:.4f}; ultralytics "
                              f"{theirs[0]:.4f}, {theirs[1]:.4f}")  # fmt: skip
    assert (ours.map50, ours.map50_95) == pytest.approx(theirs, abs=0.002)
    # And nothing like that by chance.
    assert (ours.map50, ours.map50_95) == pytest.approx((0.9831, 0.884), abs=0.001)


MLIR = (
    '"top.Input"(%arg0) {keep_aspect_ratio = true, keep_ratio_mode = "letterbox", mean = [0.0, 0.0,'
    ' 0.0], pad_type = "center", pixel_format = "rgb", resize_dims = [640, 640], scale = '
    "[0.0039215686, 0.0039215686, 0.0039215686]} : (tensor<1x3x640x640xf32>)"
)
