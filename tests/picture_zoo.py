"""Pictures of all kinds, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

TURNED = 6  # EXIF orientation: to be turned by 90 degrees clockwise


class Kind(NamedTuple):
    """``rgb``: what it must become, None if its own bytes; ``opencv``: whether 4.8 agrees."""

    data: bytes
    rgb: np.ndarray | None
    opencv: bool = True


def photo(seed: int, height: int = 24, width: int = 34) -> np.ndarray:
    """A smooth random picture, uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image | np.ndarray, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def jpeg(seed: int, **settings: object) -> bytes:
    return encoded(photo(seed), "JPEG", **settings)


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG; uint16 [height, width] or [height, width, 2 to 4]. Pillow writes only grey."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def bmp(rgb: np.ndarray, bits: int) -> bytes:
    """An uncompressed BMP of 16 bits (5 each) or 32 (8 each and one unused)."""
    red, green, blue = (rgb[:, :, index].astype(np.uint32) for index in range(3))
    if bits == 16:
        values = (red >> 3 << 10 | green >> 3 << 5 | blue >> 3).astype("<u2")
        values = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    else:
        values = (0x4D << 24 | red << 16 | green << 8 | blue).astype("<u4")
    data = values[::-1].tobytes()
    info = struct.pack(
        "<IiiHHIIiiII", 40, rgb.shape[1], rgb.shape[0], 1, bits, 0, len(data), 0, 0, 0, 0
    )
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def spread(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def zoo() -> dict[str, Kind]:
    """File name -> picture. The suffixes are right, which nothing relies on."""
    rgb = photo(1)
    flat = grey(rgb)
    height, width = flat.shape
    alpha = np.dstack([rgb, np.arange(height * width).reshape(flat.shape).astype(np.uint8)])
    palette = Image.fromarray(rgb).quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    deep = np.random.default_rng(2).integers(0, 65536, (height, width, 4)).astype(np.uint16)
    high = (deep >> 8).astype(np.uint8)
    dots = flat > 128
    exif = Image.Exif()
    exif[0x0112] = TURNED
    clockwise = np.ascontiguousarray(np.rot90(rgb, -1))
    lossy = np.asarray(Image.open(io.BytesIO(encoded(rgb, "WEBP", quality=80))))
    jpeg_grey = np.asarray(Image.open(io.BytesIO(encoded(flat, "JPEG"))))
    return {
        "plain.jpg": Kind(encoded(rgb, "JPEG"), None),
        "progressive.jpg": Kind(encoded(rgb, "JPEG", progressive=True), None),
        "turned.jpg": Kind(encoded(rgb, "JPEG", exif=exif), None),
        "grey.jpg": Kind(encoded(flat, "JPEG"), spread(jpeg_grey)),
        "turned_grey.jpg": Kind(encoded(flat, "JPEG", exif=exif), spread(np.rot90(jpeg_grey, -1))),
        "plain.png": Kind(encoded(rgb, "PNG"), None),
        "turned.png": Kind(encoded(rgb, "PNG", exif=exif), None),
        "alpha.png": Kind(encoded(alpha, "PNG"), rgb),
        "turned_alpha.png": Kind(encoded(alpha, "PNG", exif=exif), clockwise),
        "colour_key.png": Kind(encoded(rgb, "PNG", transparency=tuple(rgb[0, 0].tolist())), rgb),
        "grey.png": Kind(encoded(flat, "PNG"), spread(flat)),
        "grey_alpha.png": Kind(encoded(Image.fromarray(alpha).convert("LA"), "PNG"), spread(flat)),
        "palette.png": Kind(encoded(palette, "PNG"), colours),
        "clear_palette.png": Kind(encoded(palette, "PNG", transparency=3), colours),
        "dots.png": Kind(encoded(dots, "PNG"), spread(dots.astype(np.uint8) * 255)),
        "grey16.png": Kind(png16(deep[:, :, 0]), spread(high[:, :, 0])),
        "grey_alpha16.png": Kind(png16(deep[:, :, :2]), spread(high[:, :, 0])),
        "colour16.png": Kind(png16(deep[:, :, :3]), high[:, :, :3]),
        "alpha16.png": Kind(png16(deep), high[:, :, :3]),
        "plain.bmp": Kind(encoded(rgb, "BMP"), None),
        "unused.bmp": Kind(bmp(rgb, 32), None),
        "five.bmp": Kind(bmp(rgb, 16), None),
        "grey.bmp": Kind(encoded(flat, "BMP"), spread(flat)),
        "palette.bmp": Kind(encoded(palette, "BMP"), colours),
        "lossless.webp": Kind(encoded(rgb, "WEBP", lossless=True), rgb),
        "lossy.webp": Kind(encoded(rgb, "WEBP", quality=80), lossy),
        "alpha.webp": Kind(encoded(alpha, "WEBP", lossless=True, exact=True), rgb),
        "turned.webp": Kind(
            encoded(rgb, "WEBP", lossless=True, exif=exif), clockwise, opencv=False
        ),
        "plain.tif": Kind(encoded(rgb, "TIFF"), rgb),
        "lzw.tif": Kind(encoded(rgb, "TIFF", compression="tiff_lzw"), rgb),
        "turned.tif": Kind(encoded(rgb, "TIFF", exif=exif), clockwise),
        "alpha.tif": Kind(encoded(alpha, "TIFF"), rgb, opencv=False),
        "palette.tif": Kind(encoded(palette, "TIFF"), colours),
        "grey16.tif": Kind(encoded(deep[:, :, 0], "TIFF"), spread(high[:, :, 0])),
        "plain.ppm": Kind(encoded(rgb, "PPM"), rgb),
        "grey.pgm": Kind(encoded(flat, "PPM"), spread(flat)),
        "moving.gif": Kind(
            encoded(palette, "GIF", save_all=True, append_images=[Image.new("P", palette.size)]),
            colours,
            opencv=False,
        ),
    }


def cmyk(kind: str) -> bytes:
    """CMYK, as print shops give it."""
    return encoded(Image.fromarray(photo(1)).convert("CMYK"), kind)
