"""Where a device is: what people type for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tpumake.errors import BadInput

__all__ = ["Address", "parse"]

_FORM = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@/]+)@)?"
    r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%\w]*)"
    r"|(?P<name>[^\[\]:/@]+))(?::(?P<port>\d+))?/?"
)
# What ssh would take for an option, or a shell for more than a word.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.%:-]*\$?")


@dataclass(frozen=True)
class Address:
    """A user on a host, and the port where that is not ssh's own choice."""

    user: str
    host: str
    port: int | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f" port {self.port}" if self.port else "")

    def arguments(self) -> list[str]:
        """As ssh takes it."""
        port = ["-p", str(self.port)] if self.port else []
        return [*port, "-l", self.user, "--", self.host]


def parse(text: str, user: str) -> Address:
    """Read ``host``, ``user@host``, ``user@host:port``, ``ssh://…``, ``[2001:db8::1]:22``.

    :param user: who it is where the text names nobody
    :raises BadInput: it is none of these
    """
    found = _FORM.fullmatch(text.strip())
    host = found and (found["six"] or found["bare"] or found["name"])
    named = (found and found["user"]) or user
    port = int(found["port"]) if found and found["port"] else None
    usable = host and all(map(_NAME.fullmatch, (named, host.lstrip(":") or "-")))
    if not usable or (port is not None and not 0 < port < 65536):
        raise BadInput(
            f"DEVICE_HOST={text}: not an address; DEVICE_HOST=192.168.42.1, {user}@recamera.local "
            f"or {user}@192.168.42.1:2222"
        )
    return Address(named, host, port)
