"""Stanzas as text: written for a new model, and appended to a file of them."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from tpumake.errors import BadInput
from tpumake.files import atomic_write

__all__ = [
    "RESERVED",
    "append_stanza",
    "check_name",
    "make_name",
    "names_of",
    "stanza_text",
    "written_path",
]

# Targets of the Makefile's own, folders that it makes in build/, and beginnings of its variables
# that a stanza's would be taken for.
RESERVED = frozenset(
    ("add", "all", "bench", "bugreport", "cache", "clean", "compare", "convert", "converted",
     "datasets", "distclean", "doctor", "examples", "help", "info", "lint", "list", "lock", "logs",
     "matrix", "setup", "sources", "test", "ACCEPT", "CHECK", "DEFAULT", "FITS", "FRAMEWORK",
     "READER", "definition")
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Make takes these in a path for something else, whatever is written before them.
_UNSPEAKABLE = set("'\"`$%*?[]\\:;|<>&#=")
_WIDTH = 100


def make_name(path: Path) -> str:
    """A model's name from its file's: letters, digits and underscores, a letter first."""
    plain = unicodedata.normalize("NFKD", path.stem if path.suffix else path.name)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    name = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
    if not name or not name[0].isalpha():
        name = f"net_{name}".rstrip("_")
    return f"{name}_net" if name in RESERVED else name


def check_name(name: str) -> None:
    """Refuse a name that a stanza can't have.

    :raises BadInput: with what it may be
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"NAME={name}: letters, digits and underscores, a letter first")
    if name in RESERVED:
        raise BadInput(f"NAME={name}: the Makefile has that word for itself; choose another")


def written_path(path: Path, home: Path | None, top: Path) -> str:
    """A path as a stanza has it: from the top of the checkout, from home (~), or whole.

    :raises BadInput: Make could not tell where such a path begins and ends
    """
    bad = sorted(set(str(path)) & _UNSPEAKABLE) + [c for c in str(path) if not c.isprintable()]
    if bad:
        raise BadInput(f"{path}: Make can't say {bad[0]!r} in a path; rename it, or link to it")
    if not path.is_absolute():
        return path.as_posix()
    for base, before in ((top, ""), (home, "~/")):
        if base and base != Path("/") and path.is_relative_to(base) and path != base:
            return before + path.relative_to(base).as_posix()
    return path.as_posix()


def stanza_text(name: str, about: str, settings: Iterable[tuple[str, str, str]]) -> str:
    """A stanza with its comments.

    :param about: what the network is, for the first comment
    :param settings: variable without the model's name, value, and where that is from; or nothing
    """
    settings = list(settings)
    width = max(len(variable) for variable, _, _ in settings)
    lines = [_comment(about)]
    said = ""
    for variable, value, source in settings:
        if source and source != said:
            lines.append(_comment(source))
        said = source
        lines.append(f"{name}_{variable:{width}} = {_escaped(value)}".rstrip())
    lines.append(f"$(eval $(call model,{name}))")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """One line; what a file says of itself must not become anything else."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text).replace("\\", "/")
    return f"# {plain if len(plain) <= _WIDTH else plain[: _WIDTH - 1] + '…'}"


def _escaped(value: str) -> str:
    if "\n" in value or "\\" in value:
        raise BadInput(f"{value!r}: is no value of a stanza")
    return value.replace("$", "$$").replace("#", "\\#")


def names_of(text: str) -> list[str]:
    """The models whose stanzas a file has."""
    return re.findall(r"^\$\(eval \$\(call model,([^)\s]+)\)\)", text, re.M)


def append_stanza(
    stanza: Path, target: Path, taken: Collection[str], suffixes: Iterable[str]
) -> str:
    """Append a stanza to a file of stanzas, which otherwise keeps its bytes; give its name.

    :param taken: names of models that Make knows, beside those that the file shows
    :param suffixes: of targets, which follow a model's name after an underscore
    :raises BadInput: a model of that name, or a target of it, is there already
    """
    text = stanza.read_text(encoding="utf-8")
    (name,) = names_of(text) or [""]
    before = target.read_bytes() if target.exists() else b""
    others = {*taken, *names_of(before.decode("utf-8", "replace"))}
    for other in sorted(others):
        for suffix in ("", *(f"_{each}" for each in suffixes)):
            if name + suffix == other or name == other + suffix:
                raise BadInput(
                    f"{target}: has {other} already; NAME=gate, say, gives the new one another name"
                )
    gap = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
    with atomic_write(target.resolve()) as temporary:
        temporary.write_bytes(before + gap + text.encode())
        if target.exists():
            shutil.copymode(target, temporary)
    return name
