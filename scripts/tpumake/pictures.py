"""Pictures as tpu_mlir's calibration can read them: told by content, checked by decoding.

tpu_mlir 1.7 reads pictures with OpenCV 4.8 (``cv2.imread(path, IMREAD_COLOR)``) and finds them by
their suffix (calibration/data_selector.py). What OpenCV reads as 8-bit colour stays as it is, byte
for byte. All else becomes an 8-bit RGB PNG with the pixels that OpenCV would give: alpha dropped
without blending, the high byte of 16-bit samples, palettes and grey spread to RGB. Where OpenCV
errs (orientation of formats other than JPEG, PNG and TIFF, CMYK JPEGs that aren't inverted, TIFF
alpha, which it multiplies in), the right pixels. 16-bit colour TIFFs it rounds; this doesn't.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from tpumake.errors import Told

__all__ = ["Picture", "UnusableError", "looks_like_picture", "pixels", "prepare"]

# Formats told by their first bytes. Others that Pillow knows are left alone: some (EPS) start
# programs, some (TGA) take any bytes for a picture.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
_MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"II*\x00",
    b"MM\x00*",
    b"GIF87a",
    b"GIF89a",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
)
_SHORT_MAGIC = (b"BM", *(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b"\n\r\t "))
_PNG_END = b"IEND\xaeB`\x82"
_PNG_RGB8 = bytes((8, 2))
_BMP_565 = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)

# Half of what Pillow refuses by itself. A picture of this size takes 270 MB when decoded.
_MOST_PIXELS = 89_478_485

# Oddities in metadata, of which a user could make nothing; size is checked here.
warnings.filterwarnings("ignore", module="PIL")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class UnusableError(Told):
    """A file is no usable picture or sample; the text says why, in a few words."""


class Picture(NamedTuple):
    """A picture that is ready for calibration.

    ``data`` is a whole file with the lower-case ``suffix`` tpu_mlir needs, ``width`` and ``height``
    count pixels as stored (before a JPEG's EXIF rotation), ``changes`` says what was done, nothing
    if ``data`` is what came in.
    """

    data: bytes
    suffix: str
    format: str
    width: int
    height: int
    changes: tuple[str, ...]


def looks_like_picture(head: bytes, surely: bool = False) -> bool:
    """Whether a file that starts with ``head`` (at least 16 bytes of it) says it is a picture.

    ``surely``: not by two letters that a text may start with as well.
    """
    return (
        head.startswith(_MAGIC if surely else _MAGIC + _SHORT_MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or head[4:12] in (b"ftypavif", b"ftypavis")
    )


def prepare(data: bytes) -> Picture:
    """Decode ``data``, a file's bytes, to its end and make a Picture of it.

    Raises UnusableError if it is no picture, damaged, cut short or beyond 89 megapixels.
    """
    if not data:
        raise UnusableError("empty")
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        raise UnusableError("HEIC, which can't be read; export it as JPEG")
    try:
        return _prepare(data)
    except (UnusableError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise UnusableError(_too_large()) from None
    except Image.UnidentifiedImageError:
        raise UnusableError("not a picture, or of a kind that can't be read") from None
    except Exception as error:
        # Damaged files make Pillow's readers raise nearly anything: SyntaxError, struct.error, …
        text = " ".join(str(error).split()) or type(error).__name__
        raise UnusableError(f"damaged or cut short ({text})") from None


def pixels(data: bytes) -> np.ndarray:
    """Decode ``data``, a file's bytes, as OpenCV would; uint8 [height, width, 3], RGB.

    A picture is turned as its EXIF data says. Raises UnusableError as ``prepare`` does.
    """
    picture = prepare(data)
    with Image.open(io.BytesIO(picture.data)) as image:
        return _rgb(ImageOps.exif_transpose(image) if _turned(image) else image, picture.format)


def _prepare(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise UnusableError(_too_large())
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        mode, size = image.mode, image.size
        # Multi-picture JPEGs hold previews behind the picture, which OpenCV doesn't see either.
        several = kind != "JPEG" and getattr(image, "is_animated", False)
        turned = _turned(image)
        image.load()
        suffix = _suffix_if_fit(data, kind, image)
        if suffix:
            return Picture(data, suffix, kind, *size, ())
        pixels = _rgb(ImageOps.exif_transpose(image) if turned else image, kind)
    changes = [f"{kind} {mode} to 8-bit RGB PNG"]
    if turned:
        changes.append("turned as EXIF says")
    if several:
        changes.append("first of several frames")
    height, width = pixels.shape[:2]
    return Picture(_png(pixels), ".png", kind, width, height, tuple(changes))


def _turned(image: Image.Image) -> bool:
    """Whether EXIF says that the picture is to be turned or mirrored."""
    try:
        return image.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:
        # Metadata may be damaged in as many ways as pixels, but the picture is none the worse.
        return False


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _too_large() -> str:
    return f"more than {_MOST_PIXELS // 10**6} megapixels"


def _suffix_if_fit(data: bytes, kind: str, image: Image.Image) -> str | None:
    """The suffix if OpenCV reads the file as 8-bit colour, else None."""
    if kind == "JPEG":
        return ".jpg" if image.mode == "RGB" else None
    if kind == "BMP":
        return ".bmp" if image.mode == "RGB" and _common_bmp(data) else None
    if kind == "PNG":
        # Without its end mark OpenCV refuses a file of which Pillow has all pixels.
        if _PNG_END not in data[-4096:] and _PNG_END not in data:
            raise UnusableError("damaged or cut short (no end mark)")
        fit = data[24:26] == _PNG_RGB8 and "transparency" not in image.info
        return ".png" if fit else None
    return None


def _common_bmp(data: bytes) -> bool:
    """Whether a colour BMP is laid out in one of the ways that OpenCV knows."""
    header, bits, compression = struct.unpack("<14xI10xHI", data[:34])
    if header < 40 or bits not in (16, 24, 32):
        return False
    return compression == 0 or (compression == 3 and bits == 16 and data[54:66] == _BMP_565)


def _rgb(image: Image.Image, kind: str) -> np.ndarray:
    """Pixels, uint8 [height, width, 3], in RGB order."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "CMYK":
        return _rgb_from_cmyk(np.asarray(image), kind)
    if image.mode in ("I", "F", "LAB"):
        raise UnusableError(f"{kind} with samples of type {image.mode}, whose range is unknown")
    if image.mode in ("LA", "La", "PA", "RGBa"):
        image = image.convert("RGBA")
    # For RGBA this drops alpha and blends nothing.
    return np.asarray(image.convert("RGB"))


def _rgb_from_cmyk(cmyk: np.ndarray, kind: str) -> np.ndarray:
    """RGB, rounded as OpenCV does; ``cmyk`` is uint8 [height, width, 4] with 255 for full ink."""
    ink, paper = cmyk[:, :, :3].astype(np.int32), 255 - cmyk[:, :, 3:].astype(np.int32)
    rgb = (255 - ink) * paper // 255 if kind == "TIFF" else paper - (ink * paper >> 8)
    return rgb.astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Made from bare pixels: no metadata, no time. Level 3 is twice as fast and hardly larger.
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
