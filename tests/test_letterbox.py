"""Where a picture goes in a network's input, what it looks like there, and the way back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Toolchain

from tpumake.letterbox import fit, letterbox, resize


@pytest.mark.parametrize(
    ("size", "placed"),
    [
        ((640, 480), (640, 480, 0, 80)),
        ((480, 640), (480, 640, 80, 0)),
        ((1920, 1080), (640, 360, 0, 140)),
        # An odd rest: the smaller part comes first.
        ((641, 480), (640, 479, 0, 80)),
        ((320, 241), (640, 482, 0, 79)),
        # Small ones are enlarged, thin ones keep a pixel.
        ((64, 64), (640, 640, 0, 0)),
        ((1, 3000), (1, 640, 319, 0)),
    ],
)
def test_where_a_picture_goes(size: tuple[int, int], placed: tuple[int, ...]) -> None:
    found = fit(size, (640, 640))
    assert (found.new_width, found.new_height, found.left, found.top) == placed


def test_a_picture_may_be_stretched_or_lie_in_the_corner() -> None:
    assert fit((100, 50), (64, 64), keep_aspect_ratio=False)[4:] == (64, 64, 0, 0)
    assert fit((100, 50), (64, 64), centred=False)[4:] == (64, 32, 0, 0)


def test_the_way_back_is_the_way_there() -> None:
    found = fit((333, 217), (640, 640))
    assert (found.left, found.top) == (0, 111)
    # The whole picture, a box that leaves it, and one in the border.
    boxes = np.array([[0, 111, 640, 528], [-50, 0, 320, 320], [10, 0, 20, 50]], float)
    back = found.back(boxes)
    np.testing.assert_allclose(back[0], [0, 0, 333, 217], atol=1e-4)
    np.testing.assert_allclose(back[1], [0, 0, 166.5, 217 * (320 - 111) / 417], atol=1e-4)
    assert back[2, 1] == back[2, 3] == 0
    assert back.dtype == np.float32


def test_the_ground_is_grey_and_the_picture_as_it_was() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    made = letterbox(picture, fit((64, 48), (64, 64)))
    assert (made[:8] == 114).all()
    assert (made[56:] == 114).all()
    np.testing.assert_array_equal(made[8:56], picture)
    assert (letterbox(picture, fit((64, 48), (64, 64)), 0)[:8] == 0).all()


def test_scaling_is_between_neighbours() -> None:
    """Two pixels made four: a quarter of the way from each middle, as worked out by hand."""
    picture = np.array([[[0], [100]]], np.uint8)
    assert resize(picture, (4, 1)).ravel().tolist() == [0, 25, 75, 100]
    # Half the size is the mean of four.
    picture = np.array([[[1], [2]], [[4], [7]]], np.uint8)
    assert resize(picture, (1, 1)).ravel().tolist() == [4]


SIZES = [
    ((640, 480), (320, 240)), ((1920, 1080), (640, 360)), ((333, 217), (640, 417)),
    ((640, 480), (320, 480)), ((641, 480), (640, 479)), ((64, 64), (13, 200)),
    ((1, 300), (1, 64)), ((5, 1), (640, 128)),
]  # fmt: skip


@pytest.mark.toolchain
def test_scaling_is_opencvs_to_the_last_bit(toolchain: Toolchain, tmp_path: Path) -> None:
    program = tmp_path / "opencv.py"
    program.write_text(
        f"import cv2, numpy as np\nsizes = {SIZES}\nrng = np.random.default_rng(0)\n"
        "made = [cv2.resize(rng.integers(0, 256, (h, w, 3), dtype=np.uint8), new)"
        " for (w, h), new in sizes]\n"
        "np.savez('made.npz', *made)\n"
    )
    done = toolchain.run(["python3", program.name], tmp_path)
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(0)
    made = np.load(tmp_path / "made.npz")
    for index, ((width, height), new) in enumerate(SIZES):
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        np.testing.assert_array_equal(resize(picture, new), made[f"arr_{index}"], str(new))


def test_it_needs_nothing_but_numpy() -> None:
    assert "cv2" not in sys.modules
    assert "import cv2" not in (ROOT / "scripts/tpumake/letterbox.py").read_text()
