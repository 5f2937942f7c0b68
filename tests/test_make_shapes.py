"""The committed pictures come from the committed generator."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DRAWN_WITH_PILLOW = "13.0.0"


def make_shapes(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "training" / "make_shapes.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def boxes(path):
    return np.loadtxt(path, ndmin=2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), [("shapes", 1), ("shapes_val", 2)])
def test_draws_the_committed_pictures_again(tmp_path, name, seed):
    assert make_shapes(tmp_path, "--count", 3, "--seed", seed).returncode == 0
    for index in range(3):
        label, picture = f"labels/{index:04d}.txt", f"images/{index:04d}.jpg"
        committed = ROOT / "datasets" / name
        assert (tmp_path / label).read_bytes() == (committed / label).read_bytes()
        if PIL.__version__ == DRAWN_WITH_PILLOW:
            assert (tmp_path / picture).read_bytes() == (committed / picture).read_bytes()
        ours = np.asarray(Image.open(tmp_path / picture), np.float32)
        theirs = np.asarray(Image.open(committed / picture), np.float32)
        assert np.abs(ours - theirs).mean() < 1.0


@pytest.mark.slow
def test_another_seed_draws_other_pictures(tmp_path):
    assert make_shapes(tmp_path, "--count", 1, "--seed", 7).returncode == 0
    committed = ROOT / "datasets" / "shapes" / "labels" / "0000.txt"
    assert (tmp_path / "labels" / "0000.txt").read_bytes() != committed.read_bytes()


@pytest.mark.parametrize(("name", "count"), [("shapes", 128), ("shapes_val", 100)])
def test_committed_sets_are_whole(name, count):
    images = sorted((ROOT / "datasets" / name / "images").iterdir())
    labels = sorted((ROOT / "datasets" / name / "labels").iterdir())
    assert [path.stem for path in images] == [path.stem for path in labels]
    assert len(images) == count
    rows = np.concatenate([boxes(path) for path in labels])
    # Every class is common enough for its average precision to mean something.
    assert np.bincount(rows[:, 0].astype(int), minlength=4).min() >= count // 3
    corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2])
    assert corners.min() > -1e-4
    assert corners.max() < 1 + 1e-4
    # 60 pixels and more, but for a squashed shape that stands askew or leaves the picture a little.
    assert (rows[:, 3:] * [640, 480]).min() > 35


def test_labels_lie_on_their_shapes():
    """A box's middle differs in colour from its surroundings; misplaced labels would fail here."""
    in_place, misplaced = [], []
    for path in sorted((ROOT / "datasets" / "shapes" / "images").iterdir())[:40]:
        pixels = np.asarray(Image.open(path), np.float32)
        for _, x, y, w, h in boxes(path.parent.parent / "labels" / f"{path.stem}.txt"):
            in_place.append(middle_against_corners(pixels, x, y, w, h))
            misplaced.append(middle_against_corners(pixels, 1 - x, 1 - y, w, h))
    assert np.median(in_place) > 2 * np.median(misplaced)
    assert np.percentile(in_place, 10) > 50


def middle_against_corners(pixels, x, y, w, h):
    """Largest RGB distance of a box's middle to points a little outside of its corners."""

    def at(column, row):
        column, row = round(column * 640), round(row * 480)
        return pixels[min(max(row, 0), 479), min(max(column, 0), 639)]

    corners = [
        at(x + side * (w / 2 + 0.008), y + end * (h / 2 + 0.01))
        for side in (-1, 1)
        for end in (-1, 1)
    ]
    return max(np.linalg.norm(at(x, y) - corner) for corner in corners)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", 1, "--seed", 1, "--size", "12x"], "no size such as 640x480"),
        (["--count", 1, "--seed", 1, "--size", "100x100"], "at least 240x240"),
        (["--count", 0, "--seed", 1], "--count"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, words):
    result = make_shapes(tmp_path / "out", *arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_never_mixes_with_other_pictures(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.jpg").write_bytes(b"")
    result = make_shapes(tmp_path, "--count", 1, "--seed", 1)
    assert result.returncode == 2
    assert "not empty" in result.stderr
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["mine.jpg"]
