"""Write libraries that stand in for absent ones, so that programs load which never call them.

PyTorch as it is published for Linux is linked against gigabytes of CUDA's libraries, without
which it doesn't even load; on a machine without such a GPU it calls none of them. A stand-in has
the functions' names and versions, and each returns 1, which is an error to all of those libraries.

Sources: System V ABI, AMD64 supplement, chapters 4 and 5; Linux Standard Base, "Symbol Versioning";
elf(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tpumake.elf_launcher import (
    DT_NULL,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMENT,
    DT_SYMTAB,
    PAGE,
    PT_DYNAMIC,
    PT_GNU_STACK,
    PT_LOAD,
    READ_EXECUTE,
    READ_WRITE,
    Strings,
    align,
    elf_header,
    program_header,
)

__all__ = ["Wanted", "stand_in", "wanted"]

DT_NEEDED, DT_HASH, DT_SONAME = 1, 4, 14
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD
DT_VERNEED = 0x6FFFFFFE
GLOBAL_FUNCTION = 1 << 4 | 2
# Any section will do: the loader only asks whether there is one.
SOME_SECTION = 1
RETURN_1 = b"\xb8\x01\x00\x00\x00\xc3"  # mov eax, 1; ret


class Wanted(NamedTuple):
    """A symbol that a library uses and doesn't have.

    ``version`` and ``library`` (its file name) are empty where the symbol has no version.
    """

    name: str
    version: str
    library: str


def stand_in(soname: str, symbols: Iterable[Wanted]) -> bytes:
    """Give the bytes of an x86-64 library with these functions, each of which returns 1.

    :param soname: the file name that others know the library by
    :param symbols: the functions; those of other libraries are left out
    """
    mine = sorted({symbol for symbol in symbols if symbol.library in ("", soname)})
    versions = sorted({symbol.version for symbol in mine} - {""})
    strings = Strings()
    soname_at = strings.add(soname)
    version_names = {version: strings.add(version) for version in versions}
    symtab = bytes(24)
    versym = struct.pack("<H", 0)
    names = [strings.add(symbol.name) for symbol in mine]
    tables = {"strtab": bytes(strings.data), "hash": _hash_table([one.name for one in mine])}
    for symbol in mine:
        # 1 is the library itself, its versions follow.
        number = versions.index(symbol.version) + 2 if symbol.version else 1
        versym += struct.pack("<H", number)
    if versions:
        tables["versym"] = versym
        tables["verdef"] = _verdef([(soname, soname_at), *version_names.items()])

    at = 64 + 56 * 4
    places = {}
    for name, table in tables.items():
        places[name] = at = align(at)
        at += len(table)
    symtab_at = align(at)
    code_at = align(symtab_at + 24 * (len(mine) + 1), 16)
    for name_at in names:
        symtab += struct.pack("<IBBHQQ", name_at, GLOBAL_FUNCTION, 0, SOME_SECTION, code_at, 6)
    places |= {"symtab": symtab_at, "code": code_at}
    tables |= {"symtab": symtab, "code": RETURN_1}
    text_end = code_at + len(RETURN_1)

    dynamic_at = align(text_end, PAGE)
    dynamic = [
        (DT_SONAME, soname_at),
        (DT_HASH, places["hash"]),
        (DT_STRTAB, places["strtab"]),
        (DT_STRSZ, len(tables["strtab"])),
        (DT_SYMTAB, symtab_at),
        (DT_SYMENT, 24),
    ]
    if versions:
        dynamic += [
            (DT_VERSYM, places["versym"]),
            (DT_VERDEF, places["verdef"]),
            (DT_VERDEFNUM, len(versions) + 1),
        ]
    entries = b"".join(struct.pack("<QQ", *entry) for entry in [*dynamic, (DT_NULL, 0)])
    segments = [
        (PT_LOAD, READ_EXECUTE, 0, text_end, PAGE),
        (PT_LOAD, READ_WRITE, dynamic_at, len(entries), PAGE),
        (PT_DYNAMIC, READ_WRITE, dynamic_at, len(entries), 8),
        (PT_GNU_STACK, READ_WRITE, 0, 0, 16),
    ]
    image = bytearray(dynamic_at + len(entries))
    headers = elf_header(0, len(segments)) + b"".join(program_header(*one) for one in segments)
    for offset, part in [
        (0, headers),
        *((places[name], tables[name]) for name in tables),
        (dynamic_at, entries),
    ]:
        image[offset : offset + len(part)] = part
    return bytes(image)


def wanted(library: Path) -> tuple[list[str], list[Wanted]]:
    """List the libraries that one asks for by name, and the symbols that it takes from others.

    :raises ValueError: if it isn't a library for 64-bit little-endian machines
    """
    image = library.read_bytes()
    if image[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{library} is no 64-bit little-endian library")
    sections = {name: (offset, size, link) for name, offset, size, link in _sections(image)}
    offset, size, _ = sections[".dynamic"]
    strings = sections[".dynstr"][0]

    def text(at: int) -> str:
        end = image.index(b"\0", strings + at)
        return image[strings + at : end].decode()

    entries = list(struct.iter_unpack("<qQ", image[offset : offset + size]))
    needed = [text(value) for tag, value in entries if tag == DT_NEEDED]
    versions = {}
    if ".gnu.version_r" in sections:
        versions = dict(_needed_versions(image, sections[".gnu.version_r"][0], text))
    offset, size, _ = sections[".dynsym"]
    numbers = [0] * (size // 24)
    if ".gnu.version" in sections:
        at, length, _ = sections[".gnu.version"]
        numbers = [
            number & 0x7FFF for (number,) in struct.iter_unpack("<H", image[at : at + length])
        ]
    symbols = struct.iter_unpack("<IBBHQQ", image[offset : offset + size])
    found = [
        Wanted(text(name), *versions.get(number, ("", "")))
        for (name, _, _, section, _, _), number in zip(symbols, numbers, strict=False)
        if name and not section
    ]
    return needed, found


def _sections(image: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Name, offset, size and link of each section."""
    (start,) = struct.unpack_from("<Q", image, 40)
    size, count, names = struct.unpack_from("<HHH", image, 58)
    headers = [struct.unpack_from("<IIQQQQII", image, start + size * n) for n in range(count)]
    text = headers[names][4]
    for name, _, _, _, offset, length, link, _ in headers:
        end = image.index(b"\0", text + name)
        yield image[text + name : end].decode(), offset, length, link


def _needed_versions(image: bytes, at: int, text) -> Iterator[tuple[int, tuple[str, str]]]:
    """Number of each version that is asked for, with its name and library."""
    while True:
        _, count, file, first, following = struct.unpack_from("<HHIII", image, at)
        one = at + first
        for _ in range(count):
            _, _, number, name, after = struct.unpack_from("<IHHII", image, one)
            yield number, (text(name), text(file))
            one += after
        if not following:
            return
        at += following


def _hash_table(names: list[str]) -> bytes:
    """The table by which the loader finds a symbol by its name; symbols count from 1."""
    buckets = [0] * max(1, len(names))
    chains = [0] * (len(names) + 1)
    for number, name in enumerate(names, start=1):
        bucket = _hash(name) % len(buckets)
        chains[number], buckets[bucket] = buckets[bucket], number
    words = [len(buckets), len(chains), *buckets, *chains]
    return struct.pack(f"<{len(words)}I", *words)


def _hash(name: str) -> int:
    """The System V ABI's hash of a symbol's name."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high & 0xFFFFFFFF
    return value


def _verdef(names: list[tuple[str, int]]) -> bytes:
    """The versions that a library defines: itself first, by its name and that one's place."""
    entries = b""
    for number, (name, name_at) in enumerate(names, start=1):
        following = 28 if number < len(names) else 0
        base = 1 if number == 1 else 0
        entries += struct.pack("<HHHHIII", 1, base, number, 1, _hash(name), 20, following)
        entries += struct.pack("<II", name_at, 0)
    return entries
