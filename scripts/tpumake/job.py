"""One stage of a build, as the Makefile asks for it, and whether it has to run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from tpumake.errors import BadInput
from tpumake.keys import Digest, Digests, Key, Record, why

__all__ = ["Job", "date", "fresh"]


class Job(NamedTuple):
    """What is to be made, from what, and how.

    Paths are relative to the top of the checkout. ``inputs`` maps the name that a file or folder
    has in the private folder to where it is; of those that ``lists`` names and that are text files,
    the files that they list count, too; ``outputs`` are final places, found by their last
    part in the private folder. ``spares`` are files that help where they are there, with the record
    of the stage that made them. ``by_products`` are outputs that nothing depends on, large and
    quickly made again: the cache leaves them out. ``needs`` are targets that Make has to make
    before the command can be started. ``libc_matters`` says that the bytes depend on the host's C
    library.
    """

    stage: str
    model: str
    inputs: dict[str, Path]
    outputs: list[Path]
    command: list[str]
    build: Path
    log: Path
    at_top: bool = False
    environment: dict[str, str] = {}  # noqa: RUF012 (a default that nobody writes to)
    code: list[Path] = []  # noqa: RUF012
    lists: list[str] = []  # noqa: RUF012
    spares: list[tuple[Path, Path]] = []  # noqa: RUF012
    by_products: list[Path] = []  # noqa: RUF012
    needs: list[str] = []  # noqa: RUF012
    same_addresses: bool = False
    libc_matters: bool = False

    @property
    def record(self) -> Path:
        """Where the key of what was made is kept, beside the log: the file that Make goes by."""
        return self.log.with_suffix(".key")

    @property
    def failure(self) -> Path:
        """Where is noted that it failed, until it succeeds: beside the log."""
        return self.log.with_suffix(".failed")

    @property
    def lock(self) -> Path:
        """Held by whoever makes it, however the build folder was named to them."""
        name = os.path.relpath(self.log.with_suffix(""), self.build)
        return self.work / f"{name.replace('/', '-')}.lock"

    @property
    def work(self) -> Path:
        """Where private folders are made: in the build folder, for renames from there."""
        return self.build / ".work"

    def key(self, digests: Digests) -> Key:
        """What this job's result depends on.

        :raises BadInput: for an input that isn't there
        """
        for path in self.inputs.values():
            if not path.exists():
                wanted = "; put pictures there, or name a folder that has some: DATASET"
                what_to_do = wanted if self.stage == "dataset" else ""
                raise BadInput(f"{path}: there is no such file or folder{what_to_do}")
        # Where an input lies is not what it is. The first word is the program, whose code counts.
        names = {str(path): f"<{name}>" for name, path in self.inputs.items()}
        return Key(
            stage=self.stage,
            # A stanza may say ./x or a//x, which paths, unlike words, take for x and a/x.
            parameters=[names.get(str(Path(word)), word) for word in self.command[1:]]
            + [f"{name}={value}" for name, value in sorted(self.environment.items())]
            + ([os.confstr("CS_GNU_LIBC_VERSION") or "another libc"] if self.libc_matters else []),
            inputs={name: self._digest(name, path, digests) for name, path in self.inputs.items()},
            code={path.as_posix(): str(digests.of(path)) for path in self.code},
        )

    def _digest(self, name: str, path: Path, digests: Digests) -> Digest:
        if name not in self.lists or path.is_dir():
            return digests.of(path)
        from tpumake.lists import read_list

        listed = (one for line in read_list(path) for one in zip(*line, strict=True))
        return {"": str(digests.of(path))} | {
            file: str(digests.of(place)) for file, place in listed if place.is_file()
        }


def fresh(job: Job, record: Record | None, key: Key, digests: Digests) -> str:
    """Say why the job has to run; empty if its outputs are what it would make.

    Then the record alone gets a new time, since Make goes by that.
    """
    changed = [out.name for out in job.outputs if not _is_made(out, record, digests)]
    reason = why(record, key, changed)
    if record and not reason:
        drop_by_products(job, record, digests)
        date(job.record)
    return reason


def _is_made(out: Path, record: Record | None, digests: Digests) -> bool:
    return bool(record) and out.exists() and digests.of(out) == record.outputs.get(out.name)


def drop_by_products(job: Job, record: Record, digests: Digests) -> None:
    """Remove by-products of other runs: they would pass for this one's."""
    for path in job.by_products:
        if path.exists() and digests.of(path) != record.by_products.get(path.name):
            path.unlink()


# The moment before anything was read. Results are as new as that, not as the moment they are done:
# what is changed while a stage runs must count as newer than its result.
STARTED = time.time_ns()
# Who started this process: Make.
PARENT = os.getppid()


def date(out: Path, like: Path | None = None) -> None:
    """Give a result, a file or a folder with its files, the time at which this process began.

    :param like: a file or folder, of the same names, whose times they get instead
    """
    for path in [out, *out.iterdir()] if out.is_dir() else [out]:
        time_ns = (like / path.relative_to(out)).stat().st_mtime_ns if like else STARTED
        os.utime(path, ns=(time_ns, time_ns))
