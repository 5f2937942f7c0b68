"""Device profiles: what a device has, and what its software wants of a model.

A profile is data, ``devices/<name>.json``, in the form of schemas/device.schema.json.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from tpumake.errors import BadInput

__all__ = ["DEFAULT", "names", "read"]

FOLDER = Path(__file__).resolve().parents[2] / "devices"
DEFAULT = "recamera"


def names() -> list[str]:
    """The devices that there are profiles of."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> dict:
    """A device's profile.

    :raises BadInput: there is none of that name, or it can't be read
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names())}"
        raise BadInput(f"DEVICE={name}: there is no such device; {hint}")
    try:
        profile = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        profile["chips"], profile["memory"], profile["heads"]
        return profile
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadInput(f"devices/{name}.json: can't be read ({error})") from None
