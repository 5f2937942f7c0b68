"""What a network wants to be fed with, as tpu_mlir's float network has it written down.

``model_transform`` writes the stanza's settings into the input's operation, with their defaults, so
that file is the one place where all of them are, whatever the network came as. Its form is MLIR's
generic one (https://mlir.llvm.org/docs/LangRef/): a dictionary of attributes, then the types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tpumake.errors import BadInput

__all__ = ["NetworkInput", "read_network_input"]

_INPUT = re.compile(r'"top\.Input"\([^)]*\)(?: \{([^}]*)\})? : \(tensor<([\dx]+)xf32>\)')
_ATTRIBUTE = re.compile(r'(\w+) = (\[[^\]]*\]|"[^"]*"|[^,]+)')
# As many as the largest picture that is read here.
_MOST_PIXELS = 89_478_485
# The order of the channels that tpu_mlir takes for each name, in a picture that is RGB.
_CHANNELS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}


@dataclass(frozen=True)
class NetworkInput:
    """The one input of a network on pictures.

    A pixel x of a channel becomes (x - mean) · scale, in ``pixel_format``'s order of channels, and
    channels come first. ``covering``: a picture that keeps its form fills the input, and what
    stands over is cut off. ``resized``: width and height that it is resized to before the
    middle of the input's size is cut out, if those are others.
    """

    width: int
    height: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    pixel_format: str
    keep_aspect_ratio: bool
    centred: bool
    covering: bool = False
    resized: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def of(self, picture: np.ndarray) -> np.ndarray:
        """Make the input from a picture of the network's size.

        :param picture: uint8 [height,width,3], RGB
        :returns: float32 [1,channels,height,width]
        :raises BadInput: for a colour order that is no picture's
        """
        if self.pixel_format not in _CHANNELS:
            raise BadInput(f"PIXEL_FORMAT is {self.pixel_format}; rgb and bgr can be fed")
        planes = picture[:, :, _CHANNELS[self.pixel_format]].astype(np.float32).transpose(2, 0, 1)
        mean, scale = np.array([self.mean, self.scale], np.float32)[:, :, None, None]
        return np.ascontiguousarray((planes - mean) * scale)[None]


def read_network_input(path: Path) -> NetworkInput:
    """Read the input of a float network, as model_transform wrote it.

    :raises BadInput: there is no such file, or the network takes something else than one picture
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; is the network transformed?") from None
    found = _INPUT.findall(text)
    if len(found) != 1:
        raise BadInput(f"{path}: has {len(found)} inputs; only networks of one picture can be fed")
    attributes = dict(_ATTRIBUTE.findall(found[0][0]))
    shape = [int(side) for side in found[0][1].split("x") if side]
    if "pixel_format" not in attributes or len(shape) != 4:
        raise BadInput(f"{path}: its input is no picture")
    channels_first = attributes.get("channel_format", "").split(" : ")[0] != '"nhwc"'
    if shape[0] != 1 or shape[1] != 3 or not channels_first:
        form = "×".join(map(str, shape))
        raise BadInput(f"{path}: its input is {form}; one picture of 3 planes (1×3×h×w) can be fed")
    if not 0 < shape[2] * shape[3] <= _MOST_PIXELS:
        raise BadInput(f"{path}: its input is {shape[3]}×{shape[2]}, which no picture can be")
    try:
        return NetworkInput(
            width=shape[3],
            height=shape[2],
            mean=_numbers(attributes, "mean"),
            scale=_numbers(attributes, "scale"),
            pixel_format=_text(attributes, "pixel_format"),
            keep_aspect_ratio=attributes["keep_aspect_ratio"] == "true",
            centred=_text(attributes, "pad_type") == "center",
            covering='"short_side_scale"' in attributes.get("keep_ratio_mode", ""),
            resized=_resized(attributes, (shape[3], shape[2])),
        )
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path}: its input can't be read ({error})") from None


def _text(attributes: dict[str, str], name: str) -> str:
    return attributes[name].split(" : ")[0].strip('" ')


def _numbers(attributes: dict[str, str], name: str) -> tuple[float, ...]:
    numbers = tuple(float(each) for each in attributes[name].strip("[] ").split(","))
    if len(numbers) != 3:
        raise ValueError(f"{name} has {len(numbers)} numbers")
    return numbers


def _resized(attributes: dict[str, str], size: tuple[int, int]) -> tuple[int, int] | None:
    words = attributes.get("resize_dims", "").strip("[] ").split(",")
    if len(words) != 2:
        return None
    height, width = map(int, words)
    return (width, height) if (width, height) != size and min(width, height) > 0 else None
