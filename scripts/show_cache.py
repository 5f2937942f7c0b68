#!/usr/bin/env python3
"""Show what the cache of stages holds, and how the remote one did in this build folder."""

from tpumake.early import insist_on_python

insist_on_python("show_cache")

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from tpumake.address import Address  # noqa: E402
from tpumake.cache import Cache  # noqa: E402
from tpumake.errors import one_line, run_guarded  # noqa: E402
from tpumake.remote import Notes, command, run  # noqa: E402

MB = 10**6
# In this order, with what each counts.
RESULTS = {
    "hit": "came from there",
    "miss": "were not there",
    "kept": "went there",
    "refused": "were not what they should be",
    "read-only": "could not be kept there",
    "unusable": "got no answer",
}
# The digest of a key that nobody has.
NOBODYS = "0" * 64


def local(cache: Cache) -> dict:
    """What there is in the cache of this machine, in bytes."""
    sizes = {kind: [] for kind in ("ac", "cas")}
    for kind, found in sizes.items():
        found += [path.stat().st_size for path in cache.folder.glob(f"{kind}/??/*")]
    return {
        "folder": str(cache.folder),
        "results": len(sizes["ac"]),
        "bytes": sum(map(sum, sizes.values())),
        "limit": cache.limit,
    }


def remote(address: Address, build: Path) -> dict:
    """Whether the remote cache answers now, and what stages of this build folder noted of it."""
    started = time.monotonic()
    python = [sys.executable, "-S"]
    if address.parts.scheme == "s3":
        python = [str(Path(os.environ.get("S3_VENV", ".s3"), "bin", "python"))]
    answer = run(command(python, "try", NOBODYS), address.seconds)
    answers = answer["result"] == "answers"
    notes = Notes(build).all()
    looks = {
        result: {
            "count": len(own := [note for note in notes if note["result"] == result]),
            "bytes": sum(note.get("bytes", 0) for note in own),
            "seconds": round(sum(note.get("seconds", 0) for note in own), 3),
        }
        for result in RESULTS
    }
    causes = [one_line(note["cause"]) for note in notes if note.get("cause")]
    return {
        "address": address.shown,
        "mode": "read-write" if address.writes else "read-only",
        "answers": answers,
        "seconds": round(time.monotonic() - started, 3),
        "cause": "" if answers else one_line(answer.get("cause", "")),
        "looks": looks,
        "last_cause": causes[-1] if causes else "",
    }


def table(document: dict) -> list[str]:
    """The same in lines."""
    here, there = document["local"], document["remote"]
    if not here:
        return ["there is no cache: CACHE=0, or CACHE_DIR is empty"]
    lines = [f"cache   {here['folder']}: {here['results']} results, {here['bytes'] / MB:.1f} MB "
             f"of {here['limit'] / MB:.0f} MB"]  # fmt: skip
    if not there:
        return [*lines, "remote  none: CACHE_REMOTE= names one"]
    now = f"answers in {there['seconds']:.2f} s" if there["answers"] else there["cause"]
    lines.append(f"remote  {there['address']}, {there['mode']}: {now}")
    for result, look in there["looks"].items():
        if look["count"]:
            size = f", {look['bytes'] / MB:.1f} MB" if look["bytes"] else ""
            what = f"{look['count']:>6} {RESULTS[result]}{size}, in {look['seconds']:.1f} s"
            lines.append(f"        {what}")
    if there["last_cause"]:
        lines.append(f"        the last trouble: {there['last_cause']}")
    return lines


def main() -> None:
    """Show it."""
    arguments = argparse.ArgumentParser(prog="show_cache", description=__doc__)
    arguments.add_argument("--build", required=True, type=Path, help="the build folder")
    arguments.add_argument("--json", action="store_true", help="print all of it as JSON")
    chosen = arguments.parse_args()
    cache, address = Cache.from_environment(), Address.from_environment()
    document = {
        "local": local(cache) if cache else None,
        "remote": remote(address, chosen.build) if cache and address else None,
    }
    print(json.dumps(document, indent=1) if chosen.json else "\n".join(table(document)))


if __name__ == "__main__":
    run_guarded(main)
