"""The bmodel file: its header, and how to free it from the time it was built at.

Layout (little endian), from tpu-mlir (`lib/Builder/bmodel.cpp`, `bmodel.fbs`): magic, u32 each for
the sizes of header, flatbuffer and binary part, 48 bytes reserved; then those parts. The flatbuffer
has the time of the build as `ctime` writes it. There is no checksum.
"""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path

from tpumake.errors import CheckFailed
from tpumake.files import atomic_write

__all__ = ["set_build_time"]

MAGIC = 0xFF55AAEE
HEADER = struct.Struct("<4I")
# A flatbuffer string: its length, 25, then `Www Mmm dd hh:mm:ss yyyy` and a line's end, then zero.
BUILD_TIME = re.compile(
    rb"\x19\0\0\0([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\n)\0"
)


def set_build_time(path: Path, epoch: int) -> None:
    """Write another build time into a bmodel, in place of the one it has.

    :param epoch: seconds since 1970, shown in UTC
    :raises CheckFailed: if the file isn't what it should be; then it stays as it was
    """
    data = bytearray(path.read_bytes())
    if len(data) < HEADER.size:
        raise CheckFailed(f"{path.name} is not a bmodel")
    magic, header, flatbuffer, binary = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CheckFailed(f"{path.name} is not a bmodel")
    if header + flatbuffer + binary != len(data):
        raise CheckFailed(f"{path.name} is damaged: its parts are not as long as its header says")
    found = list(BUILD_TIME.finditer(data, header, header + flatbuffer))
    if len(found) != 1:
        raise CheckFailed(f"{path.name} has {len(found)} build times where one is expected")
    # In English, whatever the locale.
    data[slice(*found[0].span(1))] = f"{time.asctime(time.gmtime(epoch))}\n".encode()
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
