#!/usr/bin/env python3
"""Fetch a network by HTTPS, resume what broke off, and hold every later fetch to the same bytes.

The digest of the first fetch goes into a lock file (`sha256sum` format, so that
`sha256sum --check models/fetched.lock` works); commit it, and everybody has the same network.
"""

from __future__ import annotations

import hashlib
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import click

from tpumake import cli

CHUNK = 1 << 16
# No network that a TPU of this class runs comes near it.
LARGEST = 4 << 30
TIMEOUT = 30


def fetch(url: str, target: Path, lock: Path, opener: urllib.request.OpenerDirector) -> str:
    """Fetch ``url`` into ``target`` and give its SHA-256 in hex.

    What arrived before a break stays in ``<target>.part`` and is gone on from.

    :raises BadInput: when it can't be had, is too large, or isn't what the lock says
    """
    part = target.with_name(f"{target.name}.part")
    place = f"put the file at {target} by hand"
    try:
        _download(url, part, opener)
    except urllib.error.HTTPError as error:
        raise cli.BadInput(f"{url}: the server says {error.code} {error.reason}; {place}") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "reason", error)
        raise cli.BadInput(f"{url}: {reason}; run again to go on, or {place}") from None
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (
            3, 11) else hashlib.sha256(file.read()).hexdigest()  # fmt: skip
    locked = _read_lock(lock)
    wanted = locked.setdefault(target.as_posix(), digest)
    if digest != wanted:
        part.unlink()
        raise cli.BadInput(
            f"{url}: SHA-256 is {digest}, {lock} says {wanted}; if the new file is right, delete "
            "its line there"
        )
    part.replace(target)
    with cli.atomic_write(lock) as temporary:
        temporary.write_text("".join(f"{locked[name]}  {name}\n" for name in sorted(locked)))
    return digest


def _download(url: str, part: Path, opener: urllib.request.OpenerDirector) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        # 416: nothing is left to send, or the file is another one now; the digest will tell.
        if error.code == 416 and have:
            return
        raise
    with response:
        # A server that can't resume answers 200 and sends everything again.
        resumed = response.status == 206
        size = int(response.headers.get("Content-Length") or 0) + (have if resumed else 0)
        if size > LARGEST:
            raise cli.BadInput(f"{url}: {size / 1e9:.1f} GB is more than a network can have")
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if done > LARGEST:
                    raise cli.BadInput(f"{url}: sends without end; stopped at {done / 1e9:.1f} GB")
                if sys.stderr.isatty():
                    print(f"\r{done / 1e6:.1f} of {size / 1e6:.1f} MB", end="", file=sys.stderr)
        if done < size:
            raise EOFError(f"the connection broke off at {done / 1e6:.1f} of {size / 1e6:.1f} MB")


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from HTTPS to anything else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(newurl).scheme != "https":
            raise cli.BadInput(f"{req.full_url}: sent on to {newurl}, which is not HTTPS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read_lock(lock: Path) -> dict[str, str]:
    lines = lock.read_text().splitlines() if lock.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


@click.command(help=__doc__.splitlines()[0])
@click.argument("url")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--lock", type=click.Path(path_type=Path), default=Path("models/fetched.lock"))
def main(url: str, target: Path, lock: Path) -> None:
    """Fetch URL into TARGET."""
    if urlsplit(url).scheme != "https":
        raise cli.BadInput(f"{url}: only HTTPS is fetched")
    digest = fetch(url, target, lock, urllib.request.build_opener(_SecureRedirects()))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, SHA-256 {digest[:16]}…")


if __name__ == "__main__":
    cli.run(main)
