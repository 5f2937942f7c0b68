"""The names of a detector's classes: from a list, or from what the exporter left in the ONNX."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from tpumake.errors import BadInput

__all__ = ["class_names", "label", "metadata_of", "names_in", "read_labels"]

# Who has more classes than this has given another file.
_MOST = 100_000
_LETTERS = 200


def read_labels(path: Path) -> list[str]:
    """Read a list of names, one a line, the first for class 0; UTF-8.

    :raises BadInput: it can't be read, or holds no names
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: no text; give a list of names, one a line") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    names = [_printable(line.strip()) for line in text.strip().splitlines()]
    if not names or len(names) > _MOST:
        raise BadInput(f"{path}: {len(names)} names; give a list of them, one a line")
    return names


def class_names(labels: Path | None, network: Path | None) -> list[str]:
    """The classes' names, from a list, or else from an ONNX file; none if neither has them."""
    if labels:
        return read_labels(labels)
    return names_in(metadata_of(network)) if network else []


def metadata_of(network: Path) -> dict[str, str]:
    """What the exporter wrote into an ONNX file about it.

    :raises BadInput: it is none, or can't be read
    """
    # It takes as long to import as all the rest together.
    import onnx

    try:
        model = onnx.load(network, load_external_data=False)
    except OSError as error:
        raise BadInput(f"{network}: {error.strerror}") from None
    except Exception as error:
        # protobuf's own exceptions.
        raise BadInput(f"{network}: no ONNX that can be read ({error})") from None
    return {entry.key: entry.value for entry in model.metadata_props}


def names_in(metadata: Mapping[str, str]) -> list[str]:
    """The names in an ONNX file's metadata, where Ultralytics' exporter writes them.

    They are a Python literal there: ``{0: 'person', 1: 'bicycle'}`` or ``['person', 'bicycle']``.
    What isn't is taken for no names: others may use the word for something else.
    """
    try:
        names = ast.literal_eval(metadata.get("names", ""))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            return []
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, (list, tuple)) or len(names) > _MOST:
        return []
    return [_printable(str(name)) for name in names]


def label(names: list[str], number: int) -> str:
    """What a class is called; its number where it has no name."""
    return names[number] if number < len(names) and names[number] else f"class {number}"


def _printable(name: str) -> str:
    """Without what would move a terminal's cursor, and no longer than can be read."""
    shown = name if len(name) <= _LETTERS else f"{name[:_LETTERS]}…"
    return "".join(letter if letter.isprintable() else "?" for letter in shown)
