"""What stages left on record, told for a report: what ran, from what, how long, to what end."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tpumake.errors import BadInput
from tpumake.keys import Digest, Record, whole

__all__ = ["Kept", "by_hand", "read_records", "stages", "versions"]

# What people know as tpu_mlir's steps; all others are ours.
_TOOLS = ("transform", "calibrate", "qtable", "deploy")
_SHOWN_FOLDER = "by_hand"
# What the runner writes behind a command's words: its environment, and the C library.
_ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9_]*=|glibc |another libc$")


class Kept(NamedTuple):
    """A stage's record and where it lies: ``build/M/logs/transform.key``."""

    path: Path
    record: Record

    @property
    def name(self) -> str:
        """What the stage is called among those of a model: deploy's record bears the variant."""
        return self.record.key.stage if self.record.key.stage != "stanza" else "check"

    def made(self) -> Iterator[tuple[str, Path]]:
        """Every file that it made: its digest and its place; of folders, the files in them."""
        for name, digest in self.record.outputs.items():
            place = self.path.parent.parent / name
            yield whole(digest), place
            if isinstance(digest, dict):
                yield from ((one, place / inner) for inner, one in digest.items() if one)


def read_records(paths: list[Path]) -> list[Kept]:
    """Read records, in the order given.

    :raises BadInput: one isn't there, or is damaged
    """
    kept = []
    for path in paths:
        record = Record.load(path)
        if record is None:
            raise BadInput(f"{path}: there is no record that can be read; build the model again")
        kept.append(Kept(path, record))
    return kept


def stages(kept: list[Kept]) -> list[dict]:
    """Every stage as schemas/report.schema.json has it."""
    makers = {digest: each.name for each in kept for digest, _ in each.made()}
    return [_stage(each, makers) for each in kept]


def _stage(kept: Kept, makers: dict[str, str]) -> dict:
    record, key = kept.record, kept.record.key
    return {
        "name": kept.name,
        "key": key.digest,
        # Records were without these once.
        "cached": record.cached if record.seconds or record.cached else None,
        "seconds": record.seconds or None,
        "peak": record.peak or None,
        "figure": record.figure,
        "parameters": key.parameters,
        "inputs": [
            _file(name, one) | {"made_by": _other(makers.get(whole(one)), kept.name)}
            for name, one in key.inputs.items()
        ],
        "outputs": [_file(name, one) for name, one in record.outputs.items()],
        "code": key.code,
    }


def _other(maker: str | None, own: str) -> str | None:
    return None if maker == own else maker


def _file(name: str, digest: Digest) -> dict:
    files = len(digest) if isinstance(digest, dict) else None
    return {"name": name, "sha256": whole(digest), "files": files}


def versions(kept: list[Kept]) -> dict[str, str | None]:
    """Which tpu_mlir did the work, by the lock that it was installed from; and the C library."""
    code = {path for each in kept for path in each.record.key.code}
    locks = [re.fullmatch(r"requirements/tpu_mlir-(.+)\.txt", path) for path in sorted(code)]
    words = [word for each in kept for word in each.record.key.parameters[-1:]]
    return {
        "tpu_mlir": next((found[1] for found in locks if found), None),
        "libc": next((word for word in words if word.startswith("glibc ")), None),
    }


def by_hand(kept: list[Kept]) -> list[str]:
    """Lines for a shell at the top of the checkout that do the same with plain tpu_mlir.

    They take what other stages made from the build folder, under the names that the tools were
    given.
    """
    tools = [each for each in kept if each.record.key.stage in _TOOLS]
    places = {digest: place for each in kept for digest, place in each.made()}
    here: dict[str, str] = {}
    fetched: list[str] = []
    lines: list[str] = []
    for each in tools:
        for name, digest in each.record.key.inputs.items():
            one = whole(digest)
            if here.get(one) == name:
                continue
            if one in here:
                lines.append(shlex.join(["cp", here[one], name]))
            else:
                fetched.append(_fetch(name, one, places.get(one), isinstance(digest, dict)))
            here.setdefault(one, name)
        lines.append(shlex.join(_command(each.record.key.parameters)))
        here |= {whole(one): name for name, one in each.record.outputs.items()}
    if not tools:
        return []
    return [f"mkdir {_SHOWN_FOLDER}", *dict.fromkeys(fetched), f"cd {_SHOWN_FOLDER}", *lines]


def _fetch(name: str, digest: str, place: Path | None, folder: bool) -> str:
    if place is None:
        # Where a file of the user's lies is not on record, and none of a report's business.
        return f"# into {_SHOWN_FOLDER}/, as {shlex.quote(name)}: your file of SHA-256 {digest}"
    copy = ["cp", "-r"] if folder else ["cp"]
    return shlex.join([*copy, str(place), f"{_SHOWN_FOLDER}/{name}"])


def _command(parameters: list[str]) -> list[str]:
    words = list(parameters)
    while words and _ENVIRONMENT.match(words[-1]):
        words.pop()
    # `with_extra torch model_transform.py`: our way of putting a framework beside the tools.
    # `side_by_side model_deploy.py`: some of its steps beside others.
    ours = {"with_extra": 2, "side_by_side": 1}
    return words[ours.get(words[0], 0) :] if words else words
