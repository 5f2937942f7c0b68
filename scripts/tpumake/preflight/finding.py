"""A finding: what is wrong, how badly, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["ERROR", "NAMES", "WARNING", "Finding", "in_order", "kept", "told", "unknown"]

ERROR, WARNING = "error", "warning"

# What there is to find, the most important first: findings are told in this order. Each has a row
# in docs/preflight.md. Those of `FIRM` can't be silenced: nothing could be built.
NAMES = (
    # The stanza.
    "variable", "variant", "silence",
    # The network.
    "missing", "unreadable", "kind", "opset", "inputs", "dynamic", "shapes", "batch", "operator",
    "outputs",
    # What goes in.
    "test-input", "dataset", "pixel-format", "scale", "mean", "resolution",
    # The machine.
    "host", "toolchain", "python", "addresses", "shared-memory", "disk", "memory", "clock",
    # What comes out.
    "ion", "classes", "float-operator", "few-samples", "samples", "cache", "other-make", "extra",
)  # fmt: skip
FIRM = frozenset(("variable", "variant", "silence", "missing", "unreadable", "kind"))


class Finding(NamedTuple):
    """One thing that is wrong.

    ``name`` is one of ``NAMES``; ``severity`` is ERROR, of which nothing good can come, or WARNING;
    ``where`` is a variable, a file or a part of the machine.
    """

    name: str
    severity: str
    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line: where, what, what to do."""
        return f"{self.where}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings, the important before the others; each once."""
    return sorted(
        dict.fromkeys(findings),
        key=lambda one: (one.severity != ERROR, NAMES.index(one.name), one.where, one.what),
    )


def kept(findings: Iterable[Finding], silenced: Iterable[str]) -> list[Finding]:
    """Those that nobody silenced, or can."""
    silent = set(silenced) - FIRM
    return [one for one in findings if one.name not in silent]


def unknown(silenced: Iterable[str], where: str) -> list[Finding]:
    """A finding for each name that silences nothing."""
    found = []
    for name in silenced:
        if name in NAMES and name not in FIRM:
            continue
        near = difflib.get_close_matches(name, set(NAMES) - FIRM, 1)
        hint = f"did you mean {near[0]}?" if near else "docs/preflight.md has the names"
        what = "can't be silenced" if name in FIRM else "there is no such finding"
        found.append(Finding("silence", ERROR, where, f"{name}: {what}", hint))
    return found


def told(findings: Iterable[Finding]) -> str:
    """A line for each, as people see them; what they are silenced with comes last."""
    return "\n".join(
        f"{one.severity}: {one}" + (f" [{one.name}]" if one.name not in FIRM else "")
        for one in findings
    )
