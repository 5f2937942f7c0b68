"""The cvimodel file: its header, and how to free it from the time it was built at.

Layout (little endian), from cviruntime (`include/runtime/model.hpp`) and tpu-mlir
(`MlirToCvimodel.cpp`): magic `CviModel`, u32 size of the flatbuffer, u8 major and minor version,
MD5 of everything after the header, 16 bytes chip name, 2 bytes padding; then the flatbuffer,
weights and commands. The flatbuffer has the local time of the build as text.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
from pathlib import Path

from tpumake.errors import CheckFailed
from tpumake.files import atomic_write

__all__ = ["set_build_time"]

MAGIC = b"CviModel"
HEADER = 48
MD5 = slice(14, 30)
# A flatbuffer string: its length, 19, then YYYY-MM-DD HH:MM:SS, then a zero byte.
BUILD_TIME = re.compile(rb"\x13\0\0\0(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\0")


def set_build_time(path: Path, epoch: int) -> None:
    """Write another build time into a cvimodel, in place of the one it has, and mend its MD5.

    :param epoch: seconds since 1970, shown in UTC
    :raises CheckFailed: if the file isn't what it should be; then it stays as it was
    """
    data = bytearray(path.read_bytes())
    if len(data) < HEADER or not data.startswith(MAGIC):
        raise CheckFailed(f"{path.name} is not a cvimodel")
    if data[MD5] != hashlib.md5(data[HEADER:]).digest():
        raise CheckFailed(f"{path.name} is damaged: its MD5 is another")
    (size,) = struct.unpack_from("<I", data, len(MAGIC))
    found = list(BUILD_TIME.finditer(data, HEADER, HEADER + size))
    if len(found) != 1:
        raise CheckFailed(f"{path.name} has {len(found)} build times where one is expected")
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(epoch)).encode()
    data[slice(*found[0].span(1))] = text
    data[MD5] = hashlib.md5(data[HEADER:]).digest()
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
