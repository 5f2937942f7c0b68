"""A model's times on a device, from what the device's own programs print."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from tpumake.deployment.deploying import Deploy
from tpumake.deployment.place import Load, line_of
from tpumake.deployment.visit import visit
from tpumake.errors import BadInput, CheckFailed
from tpumake.keys import sha256

__all__ = ["document", "measure", "read_times", "shown"]

_SCHEMA = "device_bench.schema.json"
_PARTS = ("pre", "infer", "post")
# sscma-model (sscma-example-sg200x, solutions/sscma-model/main/main.cpp), for one picture.
_SSCMA = re.compile(r"pre: *(\d+) *ms, *infer: *(\d+) *ms, *post: *(\d+) *ms")
# model_runner with --enable-timer (cviruntime), the mean of all its runs.
_RUNNER = re.compile(r"\b(\d+) runs take [\d.]+ ms, each run takes ([\d.]+) ms")
_SECONDS = 300


def read_times(said: str) -> dict | None:
    """One run's times in ms, None for what the program doesn't tell; None if it tells nothing."""
    found = _SSCMA.search(said)
    if found:
        return dict(zip(_PARTS, map(float, found.groups()), strict=True))
    found = _RUNNER.search(said)
    return {"pre": None, "infer": float(found[2]), "post": None} if found else None


def measure(order: Deploy, load: Load, picture: Path | None, count: int) -> list[dict]:
    """Run a model on the device, beside what is installed there; times of each run in ms.

    A program that is told how often runs once, another one so often.

    :param picture: what it is shown, for a program that wants a picture
    :raises BadInput: the profile names no program
    :raises CheckFailed: it fails, or tells no times
    """
    bench = order.profile["install"].get("bench")
    if not bench:
        raise BadInput(f"devices/{order.profile['name']}.json names no program that measures")
    line = bench["command"]
    program = line.split()[0]
    if "{picture}" in line and picture is None:
        raise BadInput(f"{program} wants a picture: IMAGE=photo.jpg")
    as_root = program if bench["root"] else ""
    with visit(order.address, order.profile, order.place, order.program, as_root,
               order.say) as there:  # fmt: skip
        order.say(there.check(load))
        word = there.password(as_root)
        names = {"model": there.send(load.model, "bench.cvimodel"), "count": str(count)}
        if picture:
            names["picture"] = there.send(picture, f"picture{picture.suffix}")
            names["drawing"] = there.temporary("drawing.jpg")
        runs = []
        for _ in range(1 if "{count}" in line else count):
            done = there.run("measure", word, _SECONDS, line=line_of(line, **names))
            times = read_times(done.stdout)
            if done.returncode or not times:
                raise CheckFailed(_why(done.stdout, done.returncode, line, order))
            runs.append(times)
    return runs


def _why(said: str, code: int, line: str, order: Deploy) -> str:
    program = line.split()[0]
    last = (said.strip().splitlines() or ["nothing"])[-1].strip()
    if code == 127:
        return f"{order.address}: there is no {program} there; update the device's software"
    if code:
        return f"{order.address}: {program} ended with {code}: {last}"
    return f"{order.address}: {program} told no times; its last line: {last}"


def document(target: str, load: Load, profile: dict, runs: Sequence[dict], pictures: int) -> dict:
    """The measurement; schemas/device_bench.schema.json. No host's name, no date."""
    told = {part: [run[part] for run in runs if run[part] is not None] for part in _PARTS}
    return {
        "$schema": _SCHEMA,
        "target": target,
        "chip": load.chip,
        "device": profile["title"],
        "program": profile["install"]["bench"]["command"].split()[0],
        "model_sha256": sha256(load.model),
        "count": pictures,
        "milliseconds": {
            part: statistics.median(values) if values else None for part, values in told.items()
        },
        "runs": list(runs),
        # Until somebody has held these figures beside a board's.
        "tried_on_hardware": False,
    }


def shown(found: dict) -> list[str]:
    """The same in two lines."""
    names = {"pre": "before", "infer": "inference", "post": "after"}
    parts = [f"{names[part]} {value:g} ms" for part, value in found["milliseconds"].items()
             if value is not None]  # fmt: skip
    return [
        f"{found['target']} on a {found['device']}, by {found['program']}: {', '.join(parts)} "
        f"(of {found['count']})",
        "reading these figures has been tried with stand-ins for the device's programs, and not on "
        "a board yet",
    ]
