"""Where the remote cache is, and how it may be used: what CACHE_REMOTE and its sisters say.

Nothing but the standard library, and little of that: every stage that looks into it reads this.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from tpumake.errors import BadInput

__all__ = ["SECRETS", "Address"]

SCHEMES = ("http", "https", "s3")
# ccache and sccache call them so; the short ones are what people try first.
MODES = {"read-only": False, "read": False, "read-write": True, "write": True}
# Not for the tools, whatever they print.
SECRETS = ("CACHE_REMOTE", "CACHE_REMOTE_TOKEN", "DEVICE_TOKEN")


class Address(NamedTuple):
    """A remote cache.

    ``writes`` says that what is made here is kept there; ``seconds`` is how long an answer may
    take, transfers get more by their size.
    """

    parts: SplitResult
    writes: bool
    seconds: float

    @classmethod
    def from_environment(cls) -> Address | None:
        """What CACHE_REMOTE, CACHE_REMOTE_MODE and CACHE_REMOTE_TIMEOUT ask for; None for none.

        :raises BadInput: if one of them says nothing that makes sense. Nothing of an address is
            repeated: it may hold a password
        """
        text = os.environ.get("CACHE_REMOTE", "").strip()
        if not text:
            return None
        mode = os.environ.get("CACHE_REMOTE_MODE", "").strip() or "read-only"
        writes = MODES.get(mode.lower().replace("_", "-"))
        if writes is None:
            raise BadInput(f"CACHE_REMOTE_MODE={mode}: it is read-only or read-write")
        return cls(_parts(text), writes, _seconds())

    @property
    def shown(self) -> str:
        """The address without name and password."""
        host = self.parts.netloc.rpartition("@")[2]
        return f"{self.parts.scheme}://{host}{self.parts.path}"

    @property
    def login(self) -> tuple[str, str] | None:
        """Name and password, if the address has them."""
        if self.parts.username is None:
            return None
        return unquote(self.parts.username), unquote(self.parts.password or "")


def _parts(text: str) -> SplitResult:
    wanted = "CACHE_REMOTE: http://HOST/PATH, https://HOST/PATH or s3://BUCKET/PREFIX is wanted"
    try:
        parts = urlsplit(text)
        good = parts.scheme in SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not text.isprintable() or " " in text:
        raise BadInput(wanted)
    if parts.query or parts.fragment:
        raise BadInput(f"{wanted}, without a ? or # in it; in a password they are %3F and %23")
    if parts.scheme == "s3" and "@" in parts.netloc:
        raise BadInput(f"{wanted}; keys are read from AWS_ACCESS_KEY_ID and its sisters")
    return parts._replace(path=parts.path.rstrip("/"))


def _seconds() -> float:
    text = os.environ.get("CACHE_REMOTE_TIMEOUT", "").strip() or "10"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:
        raise BadInput(f"CACHE_REMOTE_TIMEOUT={text}: seconds are wanted, 10 for instance")
    return seconds
