"""What a stage's result depends on, as a key; and why a stage has to run again.

A key covers the bytes of every input, every parameter that reaches the tool, the locks and scripts
that do the work, and a format number. It holds no paths and no times: two checkouts with the same
contents have the same keys.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["NOTED", "REMOTE", "Digests", "Key", "Record", "content", "sha256", "whole", "why"]

# Raise it when keys are made otherwise, or results of the same inputs become other bytes.
FORMAT = 1
# A file whose time is this near to the moment of reading may have changed within the clock's tick.
TICK = 50_000_000
# What the dataset stage notes about its work is not what the calibration reads; but it is there.
NOTES = {"manifest.json"}
NOTED = ""
# What a record calls a result that came from the remote cache.
REMOTE = "remote"

# How many reasons are told.
SHOWN = 4
# A file's SHA-256, or those of a folder's files by name.
Digest = str | dict[str, str]


class Key(NamedTuple):
    """What goes into a key, in clear. ``inputs`` and ``code`` are digests by name."""

    stage: str
    parameters: list[str]
    inputs: dict[str, Digest]
    code: dict[str, str]
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all of it, in hex."""
        import hashlib

        text = json.dumps(self._asdict(), sort_keys=True, ensure_ascii=False)
        # File systems take names that are no UTF-8.
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


class Record(NamedTuple):
    """What is kept beside a stage's log: its key, what it made, and the figure that was shown.

    ``outputs`` and ``by_products`` are digests by name; ``peak`` is the most memory that one of the
    tool's processes had, in bytes; ``seconds`` is how long it ran, 0 where that was not noted yet;
    ``cached`` says that its results were not made here, but taken from the cache, or ``"remote"``
    from the remote one. The key knows nothing of these.
    """

    key: Key
    outputs: dict[str, Digest]
    figure: str
    by_products: dict[str, Digest] = {}  # noqa: RUF012 (a default that nobody writes to)
    peak: int = 0
    seconds: float = 0
    cached: bool | str = False

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """Read a record; None if there is none that this version can read."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @classmethod
    def from_json(cls, text: str) -> Record | None:
        """The record in a text that ``to_json`` gave; None if it is damaged or of another kind."""
        try:
            document = json.loads(text)
            del document["digest"]
            record = cls(**document | {"key": Key(**document["key"])})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return record if _is_sound(record) else None

    def to_json(self) -> str:
        """All of it, and the key's digest, as text."""
        document = {"digest": self.key.digest, **self._asdict(), "key": self.key._asdict()}
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        # Names that are no UTF-8 can only be written in JSON's own way.
        return text if _is_utf8(text) else json.dumps(document, indent=1) + "\n"


def _is_sound(record: Record) -> bool:
    """Whether all that was read is of the type that it should be."""
    key = record.key
    digests = (key.inputs, key.code, record.outputs, record.by_products)
    return (
        all(isinstance(one, str) for one in (key.stage, record.figure))
        and all(type(one) is int for one in (key.format, record.peak))
        and type(record.seconds) in (int, float)
        and 0 <= record.seconds < float("inf")
        and (type(record.cached) is bool or record.cached == REMOTE)
        and isinstance(key.parameters, list)
        and all(isinstance(one, str) for one in key.parameters)
        and all(isinstance(one, dict) for one in digests)
        and all(_is_digest(one) for each in digests for one in each.values())
    )


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _is_digest(digest: object) -> bool:
    if isinstance(digest, dict):
        return all(isinstance(one, str) for one in digest.values())
    return isinstance(digest, str)


class Digests:
    """SHA-256 of files, remembered by size, time and inode so that nothing is read twice.

    The memory is an SQLite file that many processes share. It only saves time: where it fails, on
    a full disk for instance, everything is read; and one that is damaged is removed.
    """

    def __init__(self, memory: Path) -> None:
        memory.parent.mkdir(parents=True, exist_ok=True)
        self._place = memory
        # What is new is written in one go: each write takes as long as reading a picture.
        self._new: dict[str, tuple[str, str]] = {}
        self._memory: sqlite3.Connection | None = None
        with suppress(sqlite3.OperationalError):
            self._memory = sqlite3.connect(memory, timeout=30, isolation_level=None)
        self._ask("pragma synchronous = off")
        self._ask(
            "create table if not exists files (path text primary key, stat text, digest text)"
        )

    def __enter__(self) -> Digests:
        return self

    def __exit__(self, *_: object) -> None:
        if self._new:
            self._ask("begin immediate")
            for name, known in self._new.items():
                self._ask("insert or replace into files values (?, ?, ?)", (name, *known))
            self._ask("commit")
        self._close()

    def of(self, path: Path) -> Digest:
        """The digest of a file, or those of all files below a folder; of notes, that they exist."""
        return content(path, self._file)

    def _ask(self, statement: str, values: tuple[str, ...] = ()) -> list[tuple]:
        """Ask the memory, which may know nothing."""
        if self._memory is None:
            return []
        try:
            return self._memory.execute(statement, values).fetchall()
        except UnicodeEncodeError:
            # A name that is no UTF-8.
            return []
        except sqlite3.OperationalError:
            pass
        except sqlite3.DatabaseError:
            with suppress(OSError):
                self._place.unlink()
        self._close()
        return []

    def _close(self) -> None:
        if self._memory:
            self._memory.close()
        self._memory = None

    def _file(self, name: str, stat: os.stat_result) -> str:
        seen = _seen(stat)
        known = [self._new[name]] if name in self._new else []
        known = known or self._ask("select stat, digest from files where path = ?", (name,))
        # One that is no digest is damage.
        if known and known[0][0] == seen and isinstance(known[0][1], str) and known[0][1]:
            return known[0][1]
        now = time.time_ns()
        digest = sha256(Path(name))
        if stat.st_mtime_ns < now - TICK:
            self._new[name] = seen, digest
        return digest

    def remember(self, path: Path, digest: Digest) -> None:
        """Note what is known of a file, or of a folder's files, without reading them."""
        if isinstance(digest, dict):
            for name, one in digest.items():
                if one != NOTED:
                    self.remember(path / name, one)
        else:
            self._new[str(path.absolute())] = _seen(path.stat()), digest


def _seen(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def _read(name: str, stat: os.stat_result) -> str:
    return sha256(Path(name))


def content(path: Path, of_file: Callable[[str, os.stat_result], str] = _read) -> Digest:
    """The digest of a file, or those of all files below a folder; of notes, that they exist.

    :param of_file: gives the digest of a file, of which it gets the absolute path
    """
    # Folders of pictures are large, and pathlib takes as long as all the rest.
    top = str(path.absolute())
    if not path.is_dir():
        return of_file(top, path.stat())
    return {
        name[len(top) + 1 :]: NOTED if os.path.basename(name) in NOTES else of_file(name, stat)  # noqa: PTH119
        for name, stat in _below(top)
    }


def _below(top: str) -> list[tuple[str, os.stat_result]]:
    """The files below a folder with what the file system says of them, in order of their names.

    Links to folders are followed, as the dataset's pictures are; each folder counts once, so that
    one that leads in a circle ends.
    """
    found, folders, seen = [], [top], set()
    while folders:
        folder = folders.pop()
        stat = os.stat(folder)  # noqa: PTH116
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for entry in os.scandir(folder):
            if entry.is_dir():
                folders.append(entry.path)
            elif entry.is_file():
                found.append((entry.path, entry.stat()))
        # The order decides under which name a folder that has several is seen.
        folders.sort(reverse=True)
    return sorted(found, key=lambda file: file[0])


def sha256(path: Path) -> str:
    """A file's SHA-256, in hex."""
    # Imported where something is read: mostly all digests are remembered.
    import hashlib

    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def whole(digest: Digest) -> str:
    """A folder's files' digests as one; a file's as it is."""
    if isinstance(digest, str):
        return digest
    import hashlib

    return hashlib.sha256(json.dumps(digest, sort_keys=True).encode()).hexdigest()


def why(old: Record | None, key: Key, changed_outputs: Iterable[str]) -> str:
    """Say in one line why a stage has to run; empty if it hasn't.

    :param changed_outputs: those that are not there, or not what the stage made
    """
    if old is None:
        return "it has not run yet"
    if key == old.key:
        gone = [f"{name} is not what was made" for name in changed_outputs]
        return ", ".join(gone)
    reasons = []
    if key.stage != old.key.stage:
        reasons.append("another stage was here")
    if key.format != old.key.format:
        reasons.append("this version makes keys otherwise")
    if key.parameters != old.key.parameters:
        reasons.append(_parameters(old.key.parameters, key.parameters))
    for before, after in ((old.key.inputs, key.inputs), (old.key.code, key.code)):
        reasons += [
            _change(name, before.get(name), after.get(name))
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
    # It is one line; the first reasons tell most.
    more = len(reasons) - SHOWN
    return ", ".join(reasons[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _parameters(before: list[str], after: list[str]) -> str:
    gone = [word for word in before if word not in after]
    new = [word for word in after if word not in before]
    if gone and new:
        return f"parameters changed: {' '.join(gone)} → {' '.join(new)}"
    if gone or new:
        return f"parameters changed: {'without' if gone else 'with'} {' '.join(gone or new)}"
    return "parameters changed"


def _change(name: str, before: Digest | None, after: Digest | None) -> str:
    if before is None or after is None:
        return f"{name} is {'new' if before is None else 'gone'}"
    if isinstance(before, dict) and isinstance(after, dict):
        names = before.keys() | after.keys()
        count = sum(before.get(file) != after.get(file) for file in names)
        return f"{name} changed: {count} file{'s' if count > 1 else ''}"
    return f"{name} changed"
