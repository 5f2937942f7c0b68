"""A remote cache that speaks HTTP/1.1: bazel-remote, nginx with WebDAV, and their like.

`urllib.request` closes its connection after each request, and a picture set is a hundred files;
so this is `http.client`, whose connections stay open, with `urllib`'s opinion about proxies and
what is left to do: redirects, and names and passwords.
"""

from __future__ import annotations

import base64
import errno
import http.client
import netrc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from tpumake.address import Address
from tpumake.store import Lie, NoWrites, Unusable

__all__ = ["HttpStore", "Origin", "cause"]

CHUNK = 1 << 16
REDIRECTS = 5
ABSENT = (404, 410)
# What a server does that was closing the connection just when it was used again.
STALE = (
    http.client.RemoteDisconnected,
    http.client.BadStatusLine,
    http.client.CannotSendRequest,
    ConnectionError,
)
# Codes of refused writes that a setting of the server decides.
ADVICE = {
    400: "; bazel-remote has to be started with --disable_http_ac_validation",
    405: "; nginx has to be told: dav_methods PUT",
    409: "; nginx has to be told: create_full_put_path on",
    413: "; the server takes no files of that size: for nginx, client_max_body_size",
}


class Origin(NamedTuple):
    """Whom a connection is to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, parts: SplitResult) -> Origin:
        """That of an address."""
        standard = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname or "", parts.port or standard)


class HttpStore:
    """See ``Store``. Each thread has connections of its own."""

    def __init__(self, address: Address) -> None:
        self.base = f"{address.shown}/"
        self.seconds = address.seconds
        self.origin = Origin.of(address.parts)
        self.authorization = _authorization(address)
        self.proxies = getproxies()
        self.mine = threading.local()

    def get(self, name: str, target: Path, most: int) -> bool:
        """Write what is kept under a name to a file; False if nothing is."""
        with self._answer("GET", name) as answer:
            if answer.status in ABSENT:
                return False
            if answer.status != 200:
                raise Unusable(_said("GET", answer))
            told = answer.length
            got = 0
            with target.open("wb") as file:
                # One byte more shows that there is more.
                while chunk := answer.read1(min(CHUNK, most + 1 - got)):
                    got += len(chunk)
                    if got > most:
                        raise Lie(f"{name} is larger than it is told to be")
                    file.write(chunk)
            if told is not None and got != told:
                raise Unusable(f"it broke off after {got} of {told} bytes")
        return True

    def size(self, name: str) -> int | None:
        """How many bytes are kept under a name, -1 if that isn't told; None if there is nothing."""
        with self._answer("HEAD", name) as answer:
            # Some servers know no HEAD; that one needlessly writes is all that comes of it.
            if answer.status in (*ABSENT, 405, 501):
                return None
            if answer.status != 200:
                raise Unusable(_said("HEAD", answer))
            length = answer.getheader("Content-Length", "")
            return int(length) if length.isdecimal() else -1

    def put(self, name: str, source: Path) -> None:
        """Keep a file under a name."""
        with self._answer("PUT", name, source) as answer:
            if answer.status in ADVICE or answer.status in (401, 403, 411, 501, 507):
                raise NoWrites(_said("PUT", answer) + ADVICE.get(answer.status, ""))
            if answer.status not in (200, 201, 202, 204):
                raise Unusable(_said("PUT", answer))

    @contextmanager
    def _answer(
        self, method: str, name: str, body: Path | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and give the answer, wherever it leads.

        The connection is kept if the answer was read to its end.
        """
        url = urljoin(self.base, name)
        try:
            for _ in range(REDIRECTS):
                origin = Origin.of(urlsplit(url))
                connection, answer = self._send(method, url, body)
                finished = False
                try:
                    url, redirected = self._next(method, url, answer), True
                    if not url:
                        redirected = False
                        yield answer
                    # What an error's page says is not read.
                    answer.read(CHUNK)
                    finished = answer.isclosed() and not answer.will_close
                finally:
                    if finished:
                        self._connections()[origin] = connection
                    else:
                        connection.close()
                if not redirected:
                    return
            raise Unusable("it redirects for ever")
        except (OSError, http.client.HTTPException, ValueError) as error:
            # A disk that is full here is no fault of the server's.
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Unusable(cause(error)) from None

    def _next(self, method: str, url: str, answer: http.client.HTTPResponse) -> str:
        """Where an answer redirects to; empty if it doesn't."""
        follow = (307, 308) if method == "PUT" else (301, 302, 303, 307, 308)
        place = answer.getheader("Location")
        if answer.status not in follow or not place:
            return ""
        there = urljoin(url, place)
        schemes = ("https",) if url.startswith("https:") else ("http", "https")
        if urlsplit(there).scheme not in schemes:
            raise Unusable("it redirects to where nothing is encrypted")
        return there

    def _send(
        self, method: str, url: str, body: Path | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        origin = Origin.of(urlsplit(url))
        kept = self._connections().pop(origin, None)
        if kept:
            # The server may have closed it meanwhile, which is no fault of its.
            with suppress(*STALE):
                return kept, self._ask(kept, method, url, body)
            kept.close()
        connection = self._connect(origin)
        try:
            return connection, self._ask(connection, method, url, body)
        except BaseException:
            connection.close()
            raise

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, url: str, body: Path | None
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        origin = Origin.of(parts)
        path = quote(parts.path, safe="/%:@!$&'()*+,;=~") or "/"
        path += f"?{parts.query}" if parts.query else ""
        headers = {"User-Agent": "tpumake", "Accept": "*/*"}
        # Not to whom the server sends us.
        if self.authorization and origin == self.origin:
            headers["Authorization"] = self.authorization
        proxy = self._proxy(origin)
        if proxy and origin.scheme == "http":
            host = parts.netloc.rpartition("@")[2]
            path = f"http://{host}{path}"
            headers |= {"Host": host, **_proxy_headers(proxy)}
        if body is None:
            connection.request(method, path, headers=headers)
            return connection.getresponse()
        with body.open("rb") as file:
            headers["Content-Length"] = str(os.fstat(file.fileno()).st_size)
            headers["Content-Type"] = "application/octet-stream"
            # A server that won't have it may say so, and close, before all of it was sent.
            with suppress(BrokenPipeError):
                connection.request(method, path, body=file, headers=headers)
        return connection.getresponse()

    def _connect(self, origin: Origin) -> http.client.HTTPConnection:
        proxy = self._proxy(origin)
        secure = origin.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        if not proxy:
            return kind(origin.host, origin.port, timeout=self.seconds)
        connection = kind(proxy.hostname or "", proxy.port or 8080, timeout=self.seconds)
        if secure:
            connection.set_tunnel(origin.host, origin.port, _proxy_headers(proxy))
        return connection

    def _proxy(self, origin: Origin) -> SplitResult | None:
        proxy = self.proxies.get(origin.scheme)
        if not proxy or proxy_bypass(f"{origin.host}:{origin.port}"):
            return None
        return urlsplit(proxy if "://" in proxy else f"http://{proxy}")

    def _connections(self) -> dict[Origin, http.client.HTTPConnection]:
        if not hasattr(self.mine, "connections"):
            self.mine.connections = {}
        return self.mine.connections


def _authorization(address: Address) -> str:
    """What the server is told about who asks; the address comes first, then the environment."""
    login = address.login
    token = os.environ.get("CACHE_REMOTE_TOKEN", "")
    if not login and token:
        return f"Bearer {token}"
    if not login:
        place = os.environ.get("NETRC") or Path("~/.netrc").expanduser()
        with suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            known = netrc.netrc(place).authenticators(address.parts.hostname or "")
            login = (known[0], known[2] or "") if known else None
    return _basic(*login) if login else ""


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    login = unquote(proxy.username), unquote(proxy.password or "")
    return {"Proxy-Authorization": _basic(*login)}


def _basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def _said(method: str, answer: http.client.HTTPResponse) -> str:
    return f"it answers {method} with {answer.status} {answer.reason}".rstrip()


def cause(error: Exception) -> str:
    """Why a server can't be talked to, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.IncompleteRead):
        return f"it broke off after {len(error.partial)} bytes"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
