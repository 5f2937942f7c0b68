"""What a remote cache is to us: files under names, and the ways in which it can disappoint.

Two kinds: any server that speaks HTTP (tpumake/http_store.py), and buckets (tpumake/s3_store.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tpumake.address import Address

__all__ = ["Lie", "NoWrites", "Store", "Unusable", "open_store"]


class Unusable(Exception):
    """The server can't be reached, or doesn't do what it is there for. The text says how."""


class NoWrites(Unusable):
    """It lets nothing be written, though it may well be read."""


class Lie(Exception):
    """What came is not what its name says, or nothing that may be believed."""


class Store(Protocol):
    """A remote cache. Names are ``ac/<digest>`` and ``cas/<digest>``.

    Several threads may use one. Every method raises Unusable.
    """

    def get(self, name: str, target: Path, most: int) -> bool:
        """Write what is kept under a name to a file; False if nothing is.

        :param most: bytes
        :raises Lie: if there is more than that
        """

    def size(self, name: str) -> int | None:
        """How many bytes are kept under a name, -1 if that isn't told; None if there is nothing."""

    def put(self, name: str, source: Path) -> None:
        """Keep a file under a name.

        :raises NoWrites: if that is not allowed
        """


def open_store(address: Address) -> Store:
    """The store at an address; nothing is sent yet.

    :raises Unusable: if what is needed for that isn't there
    """
    if address.parts.scheme == "s3":
        from tpumake.s3_store import S3Store

        return S3Store(address)
    from tpumake.http_store import HttpStore

    return HttpStore(address)
