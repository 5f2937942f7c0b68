"""Draw what several networks found in one picture, side by side."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tpumake.detections import Detections
from tpumake.labels import label

__all__ = ["Panel", "side_by_side"]

Box = tuple[float, float, float, float]

# Okabe and Ito's colours, which people with any colour vision can tell apart (2008,
# "Color universal design"), the light ones first, without black.
_COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
    (213, 94, 0), (204, 121, 167), (0, 114, 178),
)  # fmt: skip
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 32, 32), (110, 110, 110)
# Pixels: the longest side of a panel's picture, at most and at least; between panels; of writing.
_LONGEST, _SHORTEST, _GAP, _WRITING = 800, 480, 16, 17
# Letters of a class's name; longer ones would not fit anyway.
_LETTERS = 60
# What the whole should look like: a screen.
_WANTED_RATIO = 1.6


class Panel(NamedTuple):
    """One network: what to write above its picture, and what it found there."""

    title: str
    found: Detections


def side_by_side(picture: np.ndarray, panels: Sequence[Panel], names: list[str]) -> Image.Image:
    """Draw the same picture once for each panel, with the panel's boxes.

    :param picture: uint8 [height,width,3], RGB
    :param panels: boxes are in pixels of the picture
    :param names: of the classes
    """
    background, scale = _scaled(picture)
    font = ImageFont.load_default(_WRITING)
    head = 2 * _WRITING
    columns = _columns(len(panels), background.width, background.height + head)
    rows = math.ceil(len(panels) / columns)
    step = background.width + _GAP, background.height + head + _GAP
    sheet = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP // 2), _PAPER)
    for index, panel in enumerate(panels):
        corner = _GAP + index % columns * step[0], index // columns * step[1]
        _write_head(sheet, corner, background.width, head, panel, font)
        drawn = background.copy()
        _draw_boxes(drawn, panel.found, scale, names, font)
        sheet.paste(drawn, (corner[0], corner[1] + head))
    return sheet


def _scaled(picture: np.ndarray) -> tuple[Image.Image, float]:
    """The picture in a size in which it can be looked at, and the factor."""
    image = Image.fromarray(picture)
    longest = max(image.size)
    scale = min(max(longest, _SHORTEST), _LONGEST) / longest
    if scale == 1:
        return image, scale
    size = tuple(max(round(side * scale), 1) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS), scale


def _columns(count: int, width: int, height: int) -> int:
    """In how many columns so many panels are nearest to a screen's shape, with few gaps."""

    def ugliness(columns: int) -> float:
        rows = math.ceil(count / columns)
        ratio = columns * width / (rows * height)
        return abs(math.log(ratio / _WANTED_RATIO)) + 0.5 * (rows * columns - count)

    return min(range(1, count + 1), key=ugliness)


def _write_head(
    sheet: Image.Image, corner: tuple[int, int], width: int, height: int, panel: Panel, font
) -> None:
    draw = ImageDraw.Draw(sheet)
    middle = corner[1] + height / 2 + 2
    count = f"{len(panel.found.scores)} found"
    draw.text((corner[0], middle), panel.title, _INK, font, anchor="lm")
    draw.text((corner[0] + width, middle), count, _FAINT, font, anchor="rm")


def _draw_boxes(
    image: Image.Image, found: Detections, scale: float, names: list[str], font
) -> None:
    draw = ImageDraw.Draw(image)
    line = max(3, round(max(image.size) / 220))
    order = range(len(found.scores) - 1, -1, -1)
    boxes = [tuple(float(side) * scale for side in box) for box in found.boxes]
    # The surest come last, and lie on top. A dark edge keeps them visible on whatever is behind.
    for index in order:
        left, top, right, bottom = boxes[index]
        colour = _colour(int(found.classes[index]))
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), None, _INK, line + 2)
        draw.rectangle((left, top, right, bottom), None, colour, line)
    taken: list[Box] = []
    # Labels the other way round: the surest choose their places.
    for index in reversed(order):
        number = int(found.classes[index])
        name = label(names, number)
        if len(name) > _LETTERS:
            name = f"{name[:_LETTERS]}…"
        text = f"{name} {100 * found.scores[index]:.1f} %"
        place = _place(draw, boxes[index], text, font, image.size, taken)
        taken.append(place)
        colour = _colour(number)
        draw.rectangle(place, colour, _INK)
        middle = (place[1] + place[3]) / 2
        draw.text((place[0] + 4, middle), text, _ink_on(colour), font, anchor="lm")


def _place(
    draw: ImageDraw.ImageDraw, box: Box, text: str, font, size: tuple[int, int], taken: list[Box]
) -> Box:
    """Where a box's label goes: above it, or where there is room and no other label."""
    width, height = draw.textlength(text, font) + 8, _WRITING + 5
    left, top, right, bottom = box
    wishes = [
        (left, top - height), (right - width, top - height), (left, bottom),
        (right - width, bottom), (left, top), (left, bottom - height),
    ]  # fmt: skip
    # In a crowd, further and further away.
    for step in range(1, 12):
        wishes += [(left, bottom + step * height), (left, top - (step + 1) * height)]
    places = []
    for x, y in wishes:
        x = min(max(x, 0), max(size[0] - 1 - width, 0))
        y = min(max(y, 0), max(size[1] - 1 - height, 0))
        places.append((x, y, x + width, y + height))
    free = [place for place in places if not any(_meet(place, other) for other in taken)]
    return (free or places)[0]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _colour(number: int) -> tuple[int, int, int]:
    """A class's colour, the same in all pictures."""
    if number < len(_COLOURS):
        return _COLOURS[number]
    # Steps of the golden angle leave no two neighbours alike.
    shares = colorsys.hls_to_rgb(number * 0.381966 % 1, 0.6, 0.75)
    return tuple(round(255 * share) for share in shares)


def _ink_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever can be read (ITU-R BT.601's weights of brightness)."""
    red, green, blue = colour
    return _INK if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else _PAPER
