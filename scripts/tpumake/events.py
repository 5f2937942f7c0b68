"""What a build notes of itself while it runs, for the table at its end (scripts/build_list.py).

Whoever wants notes names a file in the environment; each is a line of JSON there.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["VARIABLE", "note", "notes"]

VARIABLE = "TPUMAKE_EVENTS"


def note(**what: object) -> None:
    """Note something if somebody wants it; a disk that is full is not this one's to tell."""
    place = os.environ.get(VARIABLE)
    if place:
        # Several processes write to it: one write, at the end.
        with suppress(OSError), open(place, "ab", buffering=0) as file:  # noqa: PTH123
            file.write(f"{json.dumps(what)}\n".encode())


def notes(place: Path) -> list[dict]:
    """All that was noted, in its order; a line that a killed process left half is left out."""
    found = []
    for line in place.read_text(errors="replace").splitlines() if place.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return [each for each in found if isinstance(each, dict)]
