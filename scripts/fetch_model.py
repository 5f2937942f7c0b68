#!/usr/bin/env python3
"""Fetch a network by HTTPS, resume what broke off, and hold every later fetch to the same bytes.

The digest of the first fetch goes into a lock file (`sha256sum` format, so that
`sha256sum --check models/fetched.lock` works); commit it, and everybody has the same network.
"""

from __future__ import annotations

import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import click

from tpumake import cli
from tpumake.files import try_lock
from tpumake.keys import sha256

CHUNK = 1 << 16
# No network that a TPU of this class runs comes near it.
LARGEST = 4 << 30
# Seconds: without a byte; and with few, on average.
TIMEOUT, PATIENCE = 30, 60
# Bytes a second.
SLOWEST = 1024
# As `sha256sum` writes it; * is its mark of a binary file.
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def fetch(url: str, target: Path, lock: Path, opener: urllib.request.OpenerDirector) -> str:
    """Fetch ``url`` into ``target`` and give its SHA-256 in hex.

    What arrived before a break stays in ``<target>.part`` and is gone on from, if the server says
    that it still is the same file.

    :raises BadInput: when it can't be had, is too large, or isn't what the lock says
    """
    part = target.with_name(f"{target.name}.part")
    place = f"put the file at {target} by hand"
    name = os.path.normpath(target)
    wanted = _read_lock(lock).get(name)
    try:
        _download(url, part, opener)
    except urllib.error.HTTPError as error:
        raise cli.BadInput(f"{url}: the server says {error.code} {error.reason}; {place}") from None
    except (OSError, EOFError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise cli.BadInput(f"{url}: {reason}; run again to go on, or {place}") from None
    digest = sha256(part)
    _origin(part).unlink(missing_ok=True)
    if digest != (wanted or digest):
        part.unlink()
        raise cli.BadInput(
            f"{url}: SHA-256 is {digest}, {lock} says {wanted}; if the new file is right, delete "
            "its line there"
        )
    # First, so that no network is ever there without.
    locked = _read_lock(lock) | {name: digest}
    with cli.atomic_write(lock) as temporary:
        temporary.write_text("".join(f"{locked[name]}  {name}\n" for name in sorted(locked)))
    part.replace(target)
    return digest


def _origin(part: Path) -> Path:
    """Beside a part: where it is from, and the mark by which the server knows the whole."""
    return part.with_name(f"{part.name}.from")


def _download(url: str, part: Path, opener: urllib.request.OpenerDirector) -> None:
    have, headers = 0, {}
    with suppress(OSError, ValueError):
        address, mark = _origin(part).read_text().splitlines()
        if address == url:
            have = part.stat().st_size
            # Of a file that is another one now the server sends all.
            headers = {"Range": f"bytes={have}-", "If-Range": mark} if have else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        # 416: nothing is left to send.
        if error.code == 416 and headers:
            return
        raise
    with response:
        # A server that can't resume answers 200 and sends everything again.
        resumed = bool(headers) and response.status == 206
        have = have if resumed else 0
        size = max(int(response.headers.get("Content-Length") or 0), 0) + have
        if size > LARGEST:
            raise cli.BadInput(f"{url}: {size / 1e9:.1f} GB is more than a network can have")
        if not resumed:
            part.unlink(missing_ok=True)
            _origin(part).unlink(missing_ok=True)
            # A weak mark doesn't promise the same bytes.
            mark = response.headers.get("ETag", "")
            if mark.startswith('"') and mark.isprintable():
                _origin(part).write_text(f"{url}\n{mark}\n")
        _receive(response, part, have, size, url)


def _receive(response: HTTPResponse, part: Path, have: int, size: int, url: str) -> None:
    """Write what a server sends behind what is there."""
    done, started = have, time.monotonic()
    with part.open("ab") as file:
        # What has arrived, not so much: a server could send a byte now and then, for ever.
        while chunk := response.read1(CHUNK):
            file.write(chunk)
            done += len(chunk)
            if done > LARGEST:
                part.unlink()
                raise cli.BadInput(f"{url}: sends without end; stopped at {done / 1e9:.1f} GB")
            seconds = time.monotonic() - started
            if seconds > PATIENCE and done - have < SLOWEST * seconds:
                raise EOFError(f"only {done - have} bytes came in {seconds:.0f} s")
            if sys.stderr.isatty():
                print(f"\r{done / 1e6:.1f} of {size / 1e6:.1f} MB", end="", file=sys.stderr)
    if done < size:
        raise EOFError(f"the connection broke off at {done / 1e6:.1f} of {size / 1e6:.1f} MB")


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from HTTPS to anything else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if _scheme(newurl) != "https":
            raise cli.BadInput(f"{req.full_url}: sent on to {newurl}, which is not HTTPS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read_lock(lock: Path) -> dict[str, str]:
    """Digests by name.

    :raises BadInput: a line is none of sha256sum's: who overlooked it would pin anything anew
    """
    try:
        lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
    except UnicodeDecodeError:
        raise cli.BadInput(f"{lock}: not a text file in UTF-8") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise cli.BadInput(f"{lock}, line {number}: must be a SHA-256 and a file's name")
        digest, name = match.groups()
        if found.setdefault(os.path.normpath(name), digest) != digest:
            raise cli.BadInput(f"{lock}, line {number}: says otherwise of {name} than one before")
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else fetches into a folder: two would write one part."""
    handle = None
    # Where the file system knows no locks it goes on without.
    with suppress(OSError):
        while (handle := try_lock(folder, os.O_RDONLY | os.O_DIRECTORY)) is None:
            time.sleep(0.2)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


@click.command(help=__doc__.splitlines()[0])
@click.argument("url")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--lock", type=click.Path(path_type=Path), default=Path("models/fetched.lock"))
def main(url: str, target: Path, lock: Path) -> None:
    """Fetch URL into TARGET."""
    if _scheme(url) != "https":
        raise cli.BadInput(f"{url}: only HTTPS is fetched")
    if not str(target).isprintable():
        raise cli.BadInput(f"{target}: a name with such letters can't be kept in {lock}")
    if not target.parent.is_dir():
        raise cli.BadInput(f"{target.parent}: there is no such folder")
    before = target.exists()
    with _alone(target.parent):
        if target.exists() and not before:
            print(f"{target}: another make fetched it")
            return
        digest = fetch(url, target, lock, urllib.request.build_opener(_SecureRedirects()))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, SHA-256 {digest[:16]}…")


if __name__ == "__main__":
    cli.run(main)
