"""What is on pictures, as labels beside them say it.

Three ways to write it down are read:

- YOLO's, as Ultralytics lays it out (docs.ultralytics.com/datasets/detect): for ``images/a/b.jpg``
  a text ``labels/a/b.txt``, or one beside the picture where it lies in no ``images``; a line an
  object: class, centre x, centre y, width, height as fractions of the picture, or class and a
  polygon. A picture without such a file shows nothing, one line twice is one object.
- COCO's (cocodataset.org/#format-data): one ``.json`` with ``images``, ``annotations``,
  ``categories``.
- folders: each class's pictures in a folder of its own, for classifiers. Classes are numbered in
  the order of the folders' names, as ImageNet's are.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tpumake.errors import BadInput

__all__ = ["Labels", "Object", "find_labels"]

# A coordinate may be that much outside of the picture: labelling tools round.
_OUTSIDE = 0.01
# Nobody labels so much in one picture (bytes); the largest of COCO's own .json has 450 MB.
_MOST_TEXT = 1 << 22
_MOST_JSON = 1 << 29


class Object(NamedTuple):
    """One object: left, top, right, bottom in pixels; ``crowd``: many that nobody has counted."""

    number: int
    box: tuple[float, float, float, float]
    crowd: bool = False


class Labels:
    """Pictures without labels, and what the kinds with labels have in common.

    ``layout`` says which kind it is; ``classes`` are the classes' names where the labels have them.
    """

    layout = "none"

    def __init__(self, source: Path, classes: Sequence[str] = ()) -> None:
        self.source = source
        self.classes = list(classes)

    def labelled(self, pictures: Sequence[str]) -> list[str]:
        """Those of the pictures that the labels are about."""
        return list(pictures)

    def objects(self, name: str, size: tuple[int, int]) -> list[Object] | None:
        """What is on the picture ``name`` of ``size`` pixels; None if that isn't said.

        :raises BadInput: its label can't be read; one line with file and line
        """
        return None

    def number(self, name: str) -> int | None:
        """The class of the whole picture; None if that isn't said."""
        return None

    def missing(self, name: str) -> bool:
        """Whether a picture has no label file, so that it is taken to show nothing."""
        return False


def find_labels(source: Path, pictures: Sequence[str], classes: Sequence[str]) -> Labels:
    """Tell how the pictures of a folder are labelled.

    :param pictures: their names, relative to the folder, with slashes
    :param classes: the names of the network's classes, if they are known
    :raises BadInput: there are labels that belong to none of the pictures, or too many kinds
    """
    annotations = [path for path in _notes(source) if _is_coco(path)]
    if len(annotations) > 1:
        told = ", ".join(path.relative_to(source).as_posix() for path in annotations)
        raise BadInput(f"{source}: has several COCO files ({told}); leave the one that counts")
    if annotations:
        return _Coco(source, annotations[0], pictures, classes)
    if any((source / _label_of(name)).is_file() for name in pictures):
        return _Yolo(source, classes)
    if source.name == "images" and (source.parent / "labels").is_dir():
        raise BadInput(
            f"{source}: its labels lie beside it; give the folder above, {source.parent}"
        )
    stray = next((source / "labels").rglob("*.txt"), None) if pictures else None
    if stray:
        raise BadInput(f"{stray}: no picture in images/ has this name, nor any other label's")
    folders = sorted({name.split("/")[0] for name in pictures if "/" in name})
    flat = any("/" not in name for name in pictures)
    if len(folders) > 1 and not flat and "images" not in folders:
        return _Folders(source, folders, classes)
    return Labels(source)


def _notes(source: Path) -> list[Path]:
    return sorted([*source.glob("*.json"), *source.glob("annotations/*.json")])


def _is_coco(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_MOST_TEXT)
    return b'"annotations"' in head or (len(head) == _MOST_TEXT and b'"images"' in head)


def _label_of(name: str) -> str:
    """Where the label of a picture is: Ultralytics looks at the last ``images`` in its path."""
    *folders, file = name.split("/")
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        folders[last] = "labels"
    return "/".join([*folders, f"{posixpath.splitext(file)[0]}.txt"])


def _no_such_class(number: int, classes: Sequence[str]) -> str:
    told = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
    return f"class {number}, but the network has {len(classes)}: {told}"


class _Yolo(Labels):
    layout = "yolo"

    def missing(self, name: str) -> bool:
        return not (self.source / _label_of(name)).is_file()

    def objects(self, name: str, size: tuple[int, int]) -> list[Object] | None:
        path = self.source / _label_of(name)
        try:
            if path.stat().st_size > _MOST_TEXT:
                raise BadInput(f"{path}: too large for labels")
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return []
        except UnicodeDecodeError:
            raise BadInput(f"{path}: no text; a line an object is wanted") from None
        lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1)]
        found: dict[Object, None] = {}
        for number, words in lines:
            if not words:
                continue
            try:
                found[_object(words, size, self.classes)] = None
            except ValueError as error:
                raise BadInput(f"{path}:{number}: {error}") from None
        return list(found)


def _object(words: list[str], size: tuple[int, int], classes: Sequence[str]) -> Object:
    """One line of YOLO's. ValueError says what is wrong with it."""
    try:
        kind, *places = (float(word) for word in words)
    except ValueError:
        raise ValueError(f'"{" ".join(words)[:60]}" are no numbers') from None
    polygon = len(places) >= 6 and len(places) % 2 == 0
    if len(places) != 4 and not polygon:
        raise ValueError(
            f"{len(words)} numbers; class, centre x, centre y, width, height are wanted"
        )
    if kind < 0 or not kind.is_integer():
        raise ValueError(f"class {words[0]} is no whole number from 0")
    if classes and kind >= len(classes):
        raise ValueError(_no_such_class(int(kind), classes))
    outside = [word for word, place in zip(words[1:], places, strict=True)
               if not -_OUTSIDE <= place <= 1 + _OUTSIDE]  # fmt: skip
    if outside:
        raise ValueError(f"{outside[0]} is no fraction of the picture (0 to 1); are these pixels?")
    if polygon:
        across, down = places[::2], places[1::2]
        sides = min(across), min(down), max(across), max(down)
    else:
        x, y, width, height = places
        sides = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if sides[2] <= sides[0] or sides[3] <= sides[1]:
        raise ValueError("a box without area")
    left, top, right, bottom = (side * size[index % 2] for index, side in enumerate(sides))
    return Object(int(kind), (left, top, right, bottom))


class _Coco(Labels):
    layout = "coco"

    def __init__(
        self, source: Path, path: Path, pictures: Sequence[str], classes: Sequence[str]
    ) -> None:
        document = _read_json(path)
        self.path = path
        names = self._names(document)
        super().__init__(source, names)
        self._numbers = self._order(names, classes)
        if classes:
            self.classes = list(classes)
        else:
            self.classes = list(names.values())
        self._images = self._by_name(document)
        self._objects: dict[object, list[Object]] = {}
        for index, entry in enumerate(document["annotations"]):
            try:
                self._take(entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                told = f"no {error}" if isinstance(error, KeyError) else error
                raise BadInput(f"{path}: annotation {index}: {told}") from None
        if not self.labelled(pictures):
            raise BadInput(f"{path}: names none of the pictures in {source}")

    def _names(self, document: dict) -> dict[int, str]:
        try:
            return {int(each["id"]): str(each["name"]) for each in document["categories"]}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BadInput(f"{self.path}: has no categories with id and name") from None

    def _order(self, names: dict[int, str], classes: Sequence[str]) -> dict[int, int]:
        """The network's number of each category: by name, or where that is unknown by id."""
        if not classes:
            return {number: place for place, number in enumerate(sorted(names))}
        unknown = [name for name in names.values() if name not in classes]
        if unknown:
            told = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
            raise BadInput(f"{self.path}: category {unknown[0]} is none of the network's: {told}")
        return {number: classes.index(name) for number, name in names.items()}

    def _by_name(self, document: dict) -> dict[str, dict]:
        try:
            return {posixpath.normpath(str(each["file_name"])): each for each in document["images"]}
        except (KeyError, TypeError, AttributeError):
            raise BadInput(f"{self.path}: has no images with file_name and id") from None

    def _take(self, entry: dict) -> None:
        left, top, width, height = (float(side) for side in entry["bbox"])
        if not all(map(math.isfinite, (left, top, width, height))) or min(width, height) < 0:
            raise ValueError(f"bbox {entry['bbox']} is no box")
        if entry["category_id"] not in self._numbers:
            raise ValueError(f"category {entry['category_id']} is none of categories")
        box = left, top, left + width, top + height
        number = self._numbers[entry["category_id"]]
        crowd = bool(entry.get("iscrowd", 0))
        self._objects.setdefault(entry["image_id"], []).append(Object(number, box, crowd))

    def _image(self, name: str) -> dict | None:
        """A picture's entry, by its path, or what is left of it without folders."""
        found = self._images.get(name)
        return found or self._images.get(name.rsplit("/", 1)[-1])

    def labelled(self, pictures: Sequence[str]) -> list[str]:
        return [name for name in pictures if self._image(name)]

    def objects(self, name: str, size: tuple[int, int]) -> list[Object] | None:
        entry = self._image(name) or {}
        said = entry.get("width", size[0]), entry.get("height", size[1])
        if said != size:
            raise BadInput(
                f"{self.path}: image {name} is {said[0]}×{said[1]} there, {size[0]}×{size[1]} here"
            )
        return self._objects.get(entry.get("id"), [])


def _read_json(path: Path) -> dict:
    if path.stat().st_size > _MOST_JSON:
        raise BadInput(f"{path}: too large for COCO's annotations")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: no JSON ({error})") from None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(part), list) for part in ("images", "annotations", "categories")
    ):
        raise BadInput(f"{path}: has no images, annotations and categories as COCO's have")
    return document


class _Folders(Labels):
    layout = "folders"

    def __init__(self, source: Path, folders: Sequence[str], classes: Sequence[str]) -> None:
        super().__init__(source, classes or folders)
        named = set(folders) <= set(classes)
        if classes and not named and len(folders) != len(classes):
            raise BadInput(
                f"{source}: {len(folders)} folders, but the network has {len(classes)} classes, "
                f"and {next(each for each in folders if each not in classes)} is none of them"
            )
        order = list(classes) if named and classes else list(folders)
        self._number = {folder: order.index(folder) for folder in folders}

    def number(self, name: str) -> int | None:
        return self._number[name.split("/")[0]]
