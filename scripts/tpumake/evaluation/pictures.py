"""Choose the pictures that a model is evaluated on, with what is on them.

Which are taken hangs on their contents and the seed alone: they are ordered by
SHA-256(seed ":" SHA-256(contents)), as those to calibrate with are. So the first ten of fifty are
those that ten alone would be, and what was found in them is found again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tpumake.errors import BadInput, one_line
from tpumake.evaluation.truth import Labels, Object, find_labels
from tpumake.pictures import UnusableError, looks_like_picture, pixels

__all__ = ["EvalSet", "Picture", "choose", "read_picture", "read_set"]

# What may be a picture by its first bytes, and is called as none.
_NOTES = frozenset((".txt", ".json", ".yaml", ".yml", ".xml", ".csv", ".md", ".cache", ".npy"))


class Picture(NamedTuple):
    """One picture: its name in the folder, and what is on it.

    ``objects`` is None where nobody says what is there, ``number`` the class of the whole picture.
    """

    name: str
    sha256: str
    width: int
    height: int
    objects: list[Object] | None
    number: int | None


class EvalSet(NamedTuple):
    """The pictures that were chosen ``of`` so many, how they are labelled, and the classes' names.

    ``known``: how many classes the network has, 0 where it doesn't say. ``plain`` counts pictures
    without a label file, which are taken to show nothing.
    """

    source: str
    layout: str
    seed: int
    of: int
    plain: int
    known: int
    classes: list[str]
    pictures: list[Picture]

    @property
    def labelled(self) -> bool:
        """Whether somebody says what is on the pictures."""
        return self.layout != "none"

    def to_json(self) -> str:
        """As a file, which ``read_set`` reads."""
        document = self._asdict() | {"pictures": [each._asdict() for each in self.pictures]}
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_set(path: Path) -> EvalSet:
    """Read what ``to_json`` wrote."""
    try:
        document = json.loads(path.read_bytes())
        return EvalSet(**document | {"pictures": [_picture(each) for each in document["pictures"]]})
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; are pictures chosen?") from None
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path}: no set of pictures to evaluate with ({error})") from None


def _picture(fields: dict) -> Picture:
    objects = fields["objects"]
    if objects is not None:
        objects = [Object(number, tuple(box), crowd) for number, box, crowd in objects]
    return Picture(**fields | {"objects": objects})


def choose(source: Path, count: int, seed: int, classes: Sequence[str]) -> EvalSet:
    """Choose pictures of a folder.

    :param classes: the names of the network's classes, if they are known
    :raises BadInput: there are none, one that is chosen can't be read, or a label is wrong
    """
    if not source.is_dir():
        raise BadInput(f"{source}: there is no such folder of pictures")
    names = list(_pictures(source))
    if not names:
        raise BadInput(f"{source}: holds no picture")
    labels = find_labels(source, names, classes)
    names = labels.labelled(names)
    by_digest = {hashlib.sha256((source / name).read_bytes()).hexdigest(): name for name in
                 reversed(names)}  # fmt: skip
    order = sorted(by_digest, key=lambda digest: _rank(digest, seed))[:count]
    chosen = [_look(source, by_digest[digest], digest, labels) for digest in order]
    plain = sum(labels.missing(each.name) for each in chosen)
    if (
        labels.layout != "none"
        and plain == len(chosen)
        and all(not each.objects for each in chosen)
    ):
        raise BadInput(f"{source}: none of the {plain} pictures that were chosen has a label file")
    return EvalSet(source.name, labels.layout, seed, len(by_digest), plain, len(classes),
                   labels.classes or list(classes), chosen)  # fmt: skip


def _rank(digest: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest()


def _pictures(source: Path) -> Iterator[str]:
    """The names of what begins as a picture does, below a folder, in order."""
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for file in sorted(files):
            path = Path(folder, file)
            if file.startswith(".") or path.suffix.lower() in _NOTES or not path.is_file():
                continue
            with path.open("rb") as opened:
                head = opened.read(64)
            if looks_like_picture(head):
                yield path.relative_to(source).as_posix()


def _look(source: Path, name: str, digest: str, labels: Labels) -> Picture:
    height, width = read_picture(source, name, digest).shape[:2]
    objects = labels.objects(name, (width, height))
    return Picture(name, digest, width, height, objects, labels.number(name))


def read_picture(source: Path, name: str, digest: str):
    """Decode a picture that was chosen; uint8 [height,width,3], RGB.

    :raises BadInput: it isn't the same any more, or can't be decoded
    """
    data = (source / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise BadInput(f"{source / name}: has changed meanwhile; run make again")
    try:
        return pixels(data)
    except UnusableError as error:
        raise BadInput(f"{one_line(source / name)}: {error}; mend it, or take it away") from None
