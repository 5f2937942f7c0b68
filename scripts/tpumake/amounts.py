"""Amounts of bytes as people write them."""

from __future__ import annotations

from tpumake.errors import BadInput

__all__ = ["byte_count"]

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def byte_count(name: str, text: str) -> int:
    """Read ``5G``, ``500M`` or a plain number.

    :param name: of the variable that holds it, for the message
    :raises BadInput: if it is something else
    """
    written = text.strip().upper().removesuffix("B")
    number = written.rstrip("KMGT")
    try:
        return int(float(number) * UNITS[written[len(number) :]])
    except (ValueError, KeyError, OverflowError):
        raise BadInput(f"{name}={text}: an amount of bytes is wanted, as in {name}=5G") from None
