"""The stage cache: results by key, shared by all checkouts and users who may write to it.

Two kinds of file, each written once and put in place by a rename:

| | |
|---|---|
| `ac/ab/abcd…` | under the digest of a stage's key: the record of what it made, its log, a seal |
| `cas/12/1234…` | under the SHA-256 of its content: a file that a stage made |

A remote cache (tpumake/exchange.py) has the same files under the same names, without the folders
of two letters. Nothing in it is believed: what is taken out is compared with its digest on the way.
So processes need no locks against each other; one that finds a file gone or damaged runs the stage.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from tpumake.amounts import byte_count
from tpumake.files import atomic_write, locked
from tpumake.folders import private_folder
from tpumake.keys import NOTED, Key, Record, sha256

__all__ = ["Cache", "Damaged", "Entry", "parse_entry", "seal"]

# From <linux/fs.h>: have the file system share the blocks of another file.
FICLONE = 0x40049409
CHUNK = 1 << 20
# When it is full, it is emptied to this share, so that it isn't looked through each time.
KEPT = 0.8


class Damaged(Exception):
    """What is in the cache is not what was put there. The text says what."""


class Entry(NamedTuple):
    """What the cache knows under one key.

    ``files`` are digests by output and, for a folder, by name in it; a file's own name is empty.
    ``sizes`` are bytes by digest; entries of versions before this one have none.
    """

    record: Record
    log: str
    files: dict[str, dict[str, str]]
    sizes: dict[str, int] = {}  # noqa: RUF012 (a default that nobody writes to)


class Cache:
    """A folder of results.

    :param limit: bytes; when there are more, what was not used for longest is removed
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    @classmethod
    def from_environment(cls) -> Cache | None:
        """What CACHE, CACHE_DIR and CACHE_MAX ask for; None for no cache.

        :raises BadInput: if CACHE_MAX is not an amount
        """
        folder = os.environ.get("CACHE_DIR", "")
        if os.environ.get("CACHE", "1") == "0" or not folder:
            return None
        limit = byte_count("CACHE_MAX", os.environ.get("CACHE_MAX", "5G"))
        return cls(Path(folder).expanduser(), limit)

    def find(self, key: Key) -> Entry | None:
        """The entry of a key; None if there is none. A damaged one is removed."""
        place = self.entry_place(key.digest)
        try:
            with _opened(place, self.limit) as file:
                entry = parse_entry(file.read())
        except FileNotFoundError:
            return None
        except OSError:
            entry = None
        if entry is None or entry.record.key != key:
            _remove(place)
            return None
        return entry

    def take(self, entry: Entry, folder: Path) -> None:
        """Copy what an entry's stage made into a folder, each under its name there.

        :raises Damaged: if a file is gone or not what it was; then it and the entry are removed
        :raises OSError: if the folder can't be written to
        """
        known = self.entry_place(entry.record.key.digest)
        for name, inner, digest in _each(entry):
            target = folder / name / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            source = self.place(digest)
            if not _copy(source, target, digest, self.limit):
                _remove(source)
                _remove(known)
                raise Damaged(f"{name} in the cache was gone or damaged")
            _used(source)
        _used(known)

    def put(self, record: Record, outputs: list[Path], log: str) -> None:
        """Keep what a stage made.

        A result that is larger than the cache is left out: it would empty it for nothing. So is
        one that changes meanwhile.

        :raises OSError: if the cache can't be written to; nothing half-written is left there
        """
        places = [(out.name, *file) for out in outputs for file in _files(out)]
        if sum(path.stat().st_size for _, _, path in places) > self.limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        added = 0
        files: dict[str, dict[str, str]] = {}
        sizes: dict[str, int] = {}
        with private_folder(self.folder, "tmp-") as temporary:
            for name, inner, source in places:
                digest = files.setdefault(name, {})[inner] = sha256(source)
                sizes[digest] = source.stat().st_size
                target = self.place(digest)
                if self.holds(digest):
                    _used(target)
                elif _copy(source, temporary / digest, digest, self.limit):
                    added += sizes[digest]
                    _put(temporary / digest, target)
                else:
                    return
            told = json.loads(record.to_json())
            document = {"record": told, "log": log, "files": files, "sizes": sizes}
            document["seal"] = seal(document)
            text = json.dumps(document, sort_keys=True, separators=(",", ":"))
            (temporary / "entry").write_text(text)
            _put(temporary / "entry", self.entry_place(record.key.digest))
        self._grow(added + len(text))

    def admit(self, entry: Path, digest: str, folder: Path, files: dict[str, int]) -> None:
        """Take in an entry from elsewhere, after the files that it names and that were not here.

        :param entry: what others wrote, looked through by ``parse_entry``; it is moved
        :param digest: of its key
        :param folder: where its files are, on the same file system, under their digests, which
            were compared; they are moved
        :param files: their sizes in bytes
        :raises OSError: if the cache can't be written to
        """
        for name in files:
            _put(folder / name, self.place(name))
        added = entry.stat().st_size + sum(files.values())
        _put(entry, self.entry_place(digest))
        self._grow(added)

    def holds(self, digest: str) -> bool:
        """Whether a file is there, whole."""
        try:
            with _opened(self.place(digest), self.limit) as file:
                hasher = hashlib.sha256()
                while chunk := file.read(CHUNK):
                    hasher.update(chunk)
        except OSError:
            return False
        return hasher.hexdigest() == digest

    def _grow(self, added: int) -> None:
        """Note that there is more, and make room if that is too much."""
        noted = self.folder / "size"
        with locked(self.folder / "lock"):
            try:
                total = int(noted.read_text()) + added
            except (OSError, ValueError):
                total = self.limit + 1
            if total > self.limit:
                total = self._evict()
            with atomic_write(noted) as temporary:
                temporary.write_text(str(total))

    def _evict(self) -> int:
        """If there is too much, remove what was not used for longest; give the bytes left."""
        found = []
        for path in (*self.folder.glob("ac/??/*"), *self.folder.glob("cas/??/*")):
            with suppress(OSError):
                about = path.stat()
                found.append((about.st_mtime_ns, about.st_size, path))
        total = sum(size for _, size, _ in found)
        if total > self.limit:
            for _, size, path in sorted(found):
                if total <= self.limit * KEPT:
                    break
                _remove(path)
                total -= size
        return total

    def place(self, digest: str) -> Path:
        """Where a file of this digest is, if it is there."""
        return self.folder / "cas" / digest[:2] / digest

    def entry_place(self, digest: str) -> Path:
        """Where the entry of the key of this digest is, if it is there."""
        return self.folder / "ac" / digest[:2] / digest


def seal(document: dict) -> str:
    """The digest of an entry: by it, one in which a bit is another is told. Anyone can make it."""
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_entry(data: bytes) -> Entry | None:
    """Read an entry; None if it is damaged, or says what it must not.

    Others may write to the cache, so names must not lead out of a folder.
    """
    try:
        return _parse(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _parse(document: dict) -> Entry | None:
    if document.pop("seal", "") != seal(document):
        return None
    record = Record.from_json(json.dumps(document["record"]))
    if record is None or record.key.digest != document["record"]["digest"]:
        return None
    sizes = document.get("sizes", {})
    if not all(type(one) is int and one >= 0 for one in sizes.values()):
        return None
    entry = Entry(record, str(document["log"]), document["files"], sizes)
    places = [PurePosixPath(name, inner) for name, inner, _ in _each(entry)]
    for inside, (_, _, digest) in zip(places, _each(entry), strict=True):
        leads_out = inside.is_absolute() or ".." in inside.parts or "\0" in str(inside)
        # A file can't be a folder as well.
        if leads_out or not _is_sha256(digest) or set(inside.parents) & set(places):
            return None
    return entry if _agrees(entry) else None


def _agrees(entry: Entry) -> bool:
    """Whether the files are those that the record tells of: its digests are believed later on."""
    for name, files in entry.files.items():
        told = entry.record.outputs.get(name)
        if isinstance(told, str):
            told = {"": told}
        if told is None or told.keys() != files.keys():
            return False
        if any(one not in (NOTED, files[inner]) for inner, one in told.items()):
            return False
    return entry.files.keys() == entry.record.outputs.keys()


def _is_sha256(digest: str) -> bool:
    """Whether it is a SHA-256 in hex."""
    return len(digest) == 64 and set(digest) <= set("0123456789abcdef")


def _each(entry: Entry) -> Iterator[tuple[str, str, str]]:
    for name, files in entry.files.items():
        for inner, digest in files.items():
            yield name, inner, digest


def _files(out: Path) -> list[tuple[str, Path]]:
    """An output's files with their names in it; one that is a file has the empty name."""
    if not out.is_dir():
        return [("", out)]
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    return [(path.relative_to(out).as_posix(), path) for path in files]


def _opened(path: Path, most: int) -> BinaryIO:
    """Open a file for reading.

    :raises OSError: it isn't there, is larger than the whole cache may be, or is no file: a pipe
        would be waited for, a device read for ever
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode) or about.st_size > most:
        file.close()
        raise OSError(errno.EINVAL, "no file of the cache's", str(path))
    return file


def _copy(source: Path, target: Path, digest: str, most: int) -> bool:
    """Copy a file, or share its blocks where the file system can; False if it isn't that digest.

    Not by a hard link: that shares the time, too, by which Make goes, and whoever edited a result
    in place would edit the cache.

    :raises OSError: if the target can't be written
    """
    try:
        reading = _opened(source, most)
    except OSError:
        return False
    hasher = hashlib.sha256()
    with reading, target.open("wb") as writing:
        cloned = _clone(reading.fileno(), writing.fileno())
        while chunk := reading.read(CHUNK):
            hasher.update(chunk)
            if not cloned:
                writing.write(chunk)
    return hasher.hexdigest() == digest


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def _put(temporary: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(place)


def _used(path: Path) -> None:
    """Note the use. In a cache that is only read nothing is removed, so it doesn't matter there."""
    with suppress(OSError):
        os.utime(path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
