"""Draw pictures of circles, squares, triangles and stars, with labels in the YOLO text format.

The demonstration network is trained, calibrated and validated on such pictures. Picture ``i`` of
seed ``s`` depends on ``s``, ``i`` and the size alone, so any one of them can be drawn again. The
random numbers come from ``numpy.random.RandomState``, whose streams NumPy has frozen (NEP 19), and
what processors may round differently is computed in float64, far finer than a pixel value. Labels
are therefore the same everywhere, and JPEG bytes wherever Pillow carries the same encoder.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from tpumake.cli import BadInput, atomic_write, run

__all__ = ["CLASSES", "Shape", "draw", "label_line", "save"]

CLASSES = ("circle", "square", "triangle", "star")
SMALLEST, LARGEST = 60, 240
"""Least and greatest outer diameter of a shape, in pixels."""

_OVERSAMPLING = 4
_JPEG_QUALITY = 80
_MOST_COVERED = 0.25
_LEAST_CONTRAST = 110.0
_TRIES = 60


Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge in pixels, the picture's upper left corner at 0, 0."""


@dataclass(frozen=True)
class Shape:
    """One drawn shape: its class index, and the box around it, cut at the picture's frame."""

    kind: int
    box: Box


Picture = tuple[Image.Image, list[Shape]]
"""A picture and what was drawn on it, the hindmost first."""


def draw(seed: int, index: int, width: int = 640, height: int = 480) -> Picture:
    """Draw one picture.

    The picture is 8-bit RGB and shows one to five shapes; small pictures show fewer.
    """
    rng = np.random.RandomState([seed, index])
    canvas = _background(rng, width, height)
    most = max(1, round(5 * min(1.0, width * height / (640 * 480))))
    shapes: list[Shape] = []
    for _ in range(rng.randint(1, most + 1)):
        shape = _place(rng, canvas, shapes)
        if shape is not None:
            shapes.append(shape)
    return _camera(rng, canvas), shapes


def label_line(shape: Shape, width: int, height: int) -> str:
    """Write one shape as YOLO does: class, box centre, box size, as fractions of the picture."""
    x0, y0, x1, y1 = shape.box
    fractions = (
        (x0 + x1) / 2 / width,
        (y0 + y1) / 2 / height,
        (x1 - x0) / width,
        (y1 - y0) / height,
    )
    return " ".join([str(shape.kind), *(f"{value:.5f}" for value in fractions)])


def save(folder: Path, seed: int, index: int, width: int = 640, height: int = 480) -> None:
    """Draw one picture to ``folder/images/NNNN.jpg`` and its labels to ``folder/labels``."""
    picture, shapes = draw(seed, index, width, height)
    with atomic_write(folder / "images" / f"{index:04d}.jpg") as path:
        picture.save(path, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    lines = "".join(label_line(shape, width, height) + "\n" for shape in shapes)
    with atomic_write(folder / "labels" / f"{index:04d}.txt") as path:
        path.write_text(lines, encoding="ascii")


# ---------------------------------------------------------------------------------- background


def _background(rng: np.random.RandomState, width: int, height: int) -> Image.Image:
    """Return a gradient between two muted colours with soft blobs, bands and coarse noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    angle = rng.uniform(0, 2 * math.pi)
    along = (x - width / 2) * math.cos(angle) + (y - height / 2) * math.sin(angle)
    ramp = np.clip(along / math.hypot(width, height) + 0.5, 0, 1)[..., None]
    first, second = _muted(rng), _muted(rng)
    pixels = first * (1 - ramp) + second * ramp
    for _ in range(rng.randint(0, 7)):
        pixels = _add_blob(rng, pixels, x, y)
    if rng.uniform() < 0.35:
        period, strength = rng.uniform(30, 160), rng.uniform(4, 18)
        pixels += (np.sin(along * (2 * math.pi / period)) * strength)[..., None]
    pixels += _coarse_noise(rng, width, height, rng.uniform(0, 22))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _muted(rng: np.random.RandomState) -> np.ndarray:
    """Return a colour of little saturation and any brightness, RGB in 0..255."""
    grey = rng.uniform(25, 225)
    return np.clip(grey + rng.uniform(-45, 45, 3), 0, 255).astype(np.float64)


def _add_blob(
    rng: np.random.RandomState, pixels: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    height, width = x.shape
    centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, height)
    radius_x, radius_y = rng.uniform(25, 220, 2)
    distance = ((x - centre_x) / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2
    opacity = (np.exp(-distance) * rng.uniform(0.2, 0.8))[..., None]
    return pixels * (1 - opacity) + _muted(rng) * opacity


def _coarse_noise(
    rng: np.random.RandomState, width: int, height: int, strength: float
) -> np.ndarray:
    """Return cloudy noise, (height, width, 1), with a grain of some twenty pixels."""
    grain = rng.randint(0, 256, (height // 20 + 2, width // 20 + 2)).astype(np.uint8)
    cloud = Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC)
    return (np.asarray(cloud, np.float64)[..., None] / 127.5 - 1) * np.float64(strength)


# -------------------------------------------------------------------------------------- shapes


def _place(rng: np.random.RandomState, canvas: Image.Image, others: list[Shape]) -> Shape | None:
    """Draw a random shape where it hides no other much; None where no such place was found."""
    kind = int(rng.randint(len(CLASSES)))
    for _ in range(_TRIES):
        # Square-rooted limits: small shapes are more common than large ones, as in photographs.
        diameter = rng.uniform(math.sqrt(SMALLEST), math.sqrt(LARGEST)) ** 2
        outline = _outline(rng, kind, diameter / 2)
        centre = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        outline = outline + np.asarray(centre)
        whole = _bounds(outline)
        box = _clip(whole, canvas.width, canvas.height)
        if _area(box) < 0.8 * _area(whole):
            continue
        if all(_covered(other.box, box) <= _MOST_COVERED for other in others):
            _paint(rng, canvas, outline, box)
            return Shape(kind, box)
    return None


def _outline(rng: np.random.RandomState, kind: int, radius: float) -> np.ndarray:
    """Return corners (n, 2) of a shape around the origin, turned, and stretched a little."""
    corners, inner = ((96, 1.0), (4, 1.0), (3, 1.0), (10, rng.uniform(0.38, 0.5)))[kind]
    angles = np.arange(corners) * (2 * math.pi / corners) + rng.uniform(0, 2 * math.pi)
    radii = np.where(np.arange(corners) % 2, inner, 1.0) * radius
    stretch = rng.uniform(0.88, 1.0)
    lean = rng.uniform(0, math.pi)
    x, y = radii * np.cos(angles), radii * np.sin(angles)
    # Shrink along one direction, as a slanted view would.
    shrink = (1 - stretch) * (x * math.cos(lean) + y * math.sin(lean))
    return np.stack([x - shrink * math.cos(lean), y - shrink * math.sin(lean)], axis=1)


def _paint(
    rng: np.random.RandomState,
    canvas: Image.Image,
    outline: np.ndarray,
    box: Box,
) -> None:
    x0, y0 = math.floor(box[0]), math.floor(box[1])
    size = math.ceil(box[2]) - x0, math.ceil(box[3]) - y0
    under = np.asarray(canvas.crop((x0, y0, x0 + size[0], y0 + size[1])), np.float64)
    colour = _contrasting(rng, under.reshape(-1, 3).mean(axis=0))
    mask = _mask(outline - (x0, y0), size)
    if rng.uniform() < 0.3:
        _cast_shadow(rng, canvas, mask, (x0, y0))
    fill = np.empty((size[1], size[0], 3), np.float64)
    shade = np.linspace(-1, 1, size[int(rng.randint(2))], dtype=np.float64) * rng.uniform(0, 25)
    fill[:] = colour + (shade[:, None, None] if len(shade) == size[1] else shade[None, :, None])
    paint = Image.fromarray(np.clip(fill, 0, 255).astype(np.uint8))
    canvas.paste(paint, (x0, y0), mask)
    if rng.uniform() < 0.3:
        edge = mask.filter(ImageFilter.MinFilter(5))
        rim = Image.fromarray(np.asarray(mask) - np.minimum(np.asarray(mask), np.asarray(edge)))
        dark = tuple(int(value) for value in colour * rng.uniform(0.3, 0.7))
        canvas.paste(dark, (x0, y0), rim)


def _contrasting(rng: np.random.RandomState, under: np.ndarray) -> np.ndarray:
    """Return a colour that stands out from ``under``: the first far enough, else the farthest."""
    best, farthest = under, -1.0
    for _ in range(_TRIES):
        colour = rng.uniform(10, 245, 3).astype(np.float64)
        distance = float(np.linalg.norm(colour - under))
        if distance > farthest:
            best, farthest = colour, distance
        if distance > _LEAST_CONTRAST:
            break
    return best


def _mask(outline: np.ndarray, size: tuple[int, int]) -> Image.Image:
    large = Image.new("L", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
    points = [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in outline.tolist()]
    ImageDraw.Draw(large).polygon(points, fill=255)
    return large.resize(size, Image.Resampling.BOX)


def _cast_shadow(
    rng: np.random.RandomState, canvas: Image.Image, mask: Image.Image, corner: tuple[int, int]
) -> None:
    margin = 12
    grown = Image.new("L", (mask.width + 2 * margin, mask.height + 2 * margin))
    grown.paste(mask.point(lambda value: value * 2 // 5), (margin, margin))
    soft = grown.filter(ImageFilter.GaussianBlur(4))
    shift = int(rng.randint(2, 9))
    canvas.paste((0, 0, 0), (corner[0] - margin + shift, corner[1] - margin + shift), soft)


def _camera(rng: np.random.RandomState, canvas: Image.Image) -> Image.Image:
    """Return the picture as a modest camera takes it: unsharp, badly exposed, noisy."""
    soft = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.6)))
    pixels = np.asarray(soft, np.float64)
    pixels = (pixels - 127.5) * rng.uniform(0.7, 1.15) + 127.5 + rng.uniform(-30, 30)
    pixels = pixels + rng.normal(0, rng.uniform(0, 5), (*pixels.shape[:2], 1))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


# --------------------------------------------------------------------------------------- boxes


def _bounds(outline: np.ndarray) -> Box:
    x0, y0 = outline.min(axis=0).tolist()
    x1, y1 = outline.max(axis=0).tolist()
    return x0, y0, x1, y1


def _clip(box: Box, width: int, height: int) -> Box:
    x0, y0, x1, y1 = box
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _covered(first: Box, second: Box) -> float:
    """Return the overlap of two boxes as a fraction of the smaller one."""
    overlap = (
        max(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        min(first[3], second[3]),
    )
    return _area(overlap) / min(_area(first), _area(second))


# ----------------------------------------------------------------------------------------- CLI


def _parse_size(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= LARGEST):
        raise click.BadParameter(
            f'"{text}" is no size such as 640x480, at least {LARGEST}x{LARGEST}'
        )
    return int(width), int(height)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1, 9999), required=True, help="How many pictures.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), required=True, help="Another seed, other pictures."
)
@click.option(
    "--size", default="640x480", show_default=True, callback=_parse_size, help="In pixels."
)
def command(folder: Path, count: int, seed: int, size: tuple[int, int]) -> None:
    """Draw COUNT pictures to FOLDER/images and their labels to FOLDER/labels."""
    for part in ("images", "labels"):
        if (folder / part).is_dir() and any((folder / part).iterdir()):
            raise BadInput(f"{folder / part} is not empty; give a new folder or empty it first")
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        save(folder, seed, index, *size)


if __name__ == "__main__":
    run(command)
