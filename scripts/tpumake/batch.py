"""Many targets in one go: which, in one make for each chip, and what came of each.

It runs on the host's own Python with nothing but the standard library, as the stages' runner does:
where everything is in the cache, a build needs no environment.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TextIO

from tpumake import events
from tpumake.columns import in_columns
from tpumake.errors import BadInput
from tpumake.files import atomic_write
from tpumake.folders import private_folder
from tpumake.job import PARENT
from tpumake.keys import Record
from tpumake.processes import die_with_parent

__all__ = [
    "DONE",
    "HEADINGS",
    "SCHEMA",
    "STATUSES",
    "WORDS",
    "Catalogue",
    "Row",
    "Target",
    "Wanted",
    "catalogue",
    "cells",
    "document",
    "main",
    "read_list",
    "summary",
    "table",
    "wanted_targets",
]

SCHEMA = "build_list.schema.json"
# What is there, and what it should be.
DONE = ("built", "cached", "up to date")
# In the order in which they are summed up.
STATUSES = (*DONE, "failed", "interrupted", "not tried")


class Wanted(NamedTuple):
    """A target that somebody wants, for a chip."""

    target: str
    chip: str


class Target(NamedTuple):
    """What the Makefile says of a target (schemas/list.schema.json).

    ``sources`` are the files that the stanza names, by variable; ``records`` those of its stages,
    its own last; ``refused`` is why the chip can't have it.
    """

    target: str
    model: str
    variant: str
    declared: bool
    refused: str | None
    output: str
    sources: dict[str, str]
    records: list[str]


class Catalogue(NamedTuple):
    """All that can be built for a chip; ``models`` only where it was asked for, by INPUTS=1."""

    chip: str
    chips: list[str]
    targets: dict[str, Target]
    models: dict[str, dict] = {}  # noqa: RUF012 (a default that nobody writes to)

    def declared(self, model: str | None = None) -> list[str]:
        """The targets that stanzas declare, of a model or of all."""
        every = self.targets.values()
        return [each.target for each in every if each.declared and model in (None, each.model)]


class Cause(NamedTuple):
    """Why a target failed, in a line, and the log that has more."""

    cause: str
    log: str | None = None


class Row(NamedTuple):
    """What came of a target. ``seconds`` is the work that was done for it, and not for one before.

    ``size`` is in bytes; it and ``cosine`` are None where there is no model or no comparison.
    """

    target: Target
    chip: str
    status: str
    seconds: float
    size: int | None
    cosine: float | None
    figure: str
    causes: list[Cause]


# ---------------------------------------------------------------------------------------------
# What is wanted


def catalogue(make: str, chip: str | None, *settings: str) -> Catalogue:
    """Ask the Makefile what can be built.

    :param settings: variables for that make alone, ``NAME=value``
    :raises BadInput: it can't say; the line is Make's own
    """
    command = [make, "--silent", "--no-print-directory", "list", "JSON=1"]
    # Of the outer make's flags only its variables count here.
    _, _, variables = os.environ.get("MAKEFLAGS", "").partition("-- ")
    environment = os.environ | {"MAKEFLAGS": f" -- {variables}" if variables else ""}
    environment.pop("MFLAGS", None)
    done = subprocess.run(
        [*command, *([f"CHIP={chip}"] if chip else []), *settings],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        told = json.loads(done.stdout)
        targets = [Target(**each) for each in told["targets"]]
        return Catalogue(
            told["chip"], told["chips"], {each.target: each for each in targets},
            told.get("models", {}),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        said = (done.stderr.strip() or "make list JSON=1 failed").splitlines()[0]
        raise BadInput(said) from None


def wanted_targets(listed: Path | None, known: Catalogue) -> list[Wanted]:
    """What a list names, or without one all that stanzas declare.

    :raises BadInput: with the number of the line that can't be followed
    """
    if listed:
        return read_list(listed.expanduser(), known)
    return [Wanted(target, known.chip) for target in known.declared()]


def read_list(path: Path, known: Catalogue) -> list[Wanted]:
    """Read a file with a model or target a line, ``CHIP=…`` after it if need be; # is a comment.

    A model stands for all that its stanza declares. Each target comes once, where it is first.

    :raises BadInput: with the number of the line that can't be followed
    """
    try:
        # Editors elsewhere put a mark before UTF-8, and other ends to lines.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not a text file in UTF-8") from None
    models = {each.model for each in known.targets.values()}
    wanted = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, chip = _line(f"{path}:{number}", words, known)
        if name in models:
            targets = known.declared(name)
            if not targets:
                raise BadInput(f"{path}:{number}: {name}_VARIANTS is empty")
        elif name in known.targets:
            targets = [name]
        else:
            raise BadInput(f"{path}:{number}: there is no {name}{_near(name, known, models)}")
        wanted += [Wanted(target, chip) for target in targets]
    if not wanted:
        raise BadInput(f"{path}: names no target; one a line, as make list shows them")
    return list(dict.fromkeys(wanted))


def _line(where: str, words: list[str], known: Catalogue) -> tuple[str, str]:
    """A line's name and chip."""
    names = [word for word in words if "=" not in word]
    settings = [word.split("=", 1) for word in words if "=" in word]
    if len(names) != 1:
        raise BadInput(f"{where}: {' '.join(words)}: one target a line, and CHIP=… if need be")
    if any(variable != "CHIP" for variable, _ in settings) or len(settings) > 1:
        wrong = next((each for each, _ in settings if each != "CHIP"), "CHIP")
        raise BadInput(
            f"{where}: {wrong}=… can't be given here, only one CHIP=…; give it to make itself"
        )
    chip = settings[0][1] if settings else known.chip
    if chip not in known.chips:
        raise BadInput(f"{where}: CHIP={chip} is not known; known are: {' '.join(known.chips)}")
    return names[0], chip


def _near(name: str, known: Catalogue, models: set[str]) -> str:
    near = difflib.get_close_matches(name, [*known.targets, *sorted(models)])
    return f"; did you mean {' or '.join(near)}?" if near else "; make list shows what there is"


# ---------------------------------------------------------------------------------------------
# Building


class Interruption:
    """The first signal that asks to end; Make is told, and what came of everything still is."""

    def __init__(self) -> None:
        self.number = 0
        self.make: subprocess.Popen | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # One that is ignored, as nohup has it, stays so.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        first = not self.number
        self.number = self.number or number
        # A terminal sends its signals to Make as well, and two of them would kill it outright.
        if first and number == signal.SIGTERM and self.make:
            self.make.send_signal(number)

    def run(self, command: list[str], environment: dict[str, str], output: TextIO) -> int:
        """Run a make to its end, and give its exit code."""
        die_with_parent(signal.SIGTERM)
        if os.getppid() != PARENT or self.number:
            raise KeyboardInterrupt
        # It needs the handles of the outer make's jobs.
        self.make = subprocess.Popen(
            command, env=environment, stdout=output, close_fds=False,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )  # fmt: skip
        if self.number == signal.SIGTERM:
            self.make.send_signal(self.number)
        return self.make.wait()


def _flags() -> str:
    """The outer make's one-letter flags."""
    flags = os.environ.get("MAKEFLAGS", "")
    first = "" if flags.startswith((" ", "-")) else flags.partition(" ")[0]
    return "" if "=" in first else first


def outcomes(
    catalogue: Catalogue, wanted: Iterable[str], notes: list[dict], unexplained: bool
) -> list[Row]:
    """What came of a chip's targets, from what their make noted.

    :param unexplained: whether targets that nothing is noted of have failed all the same
    """
    done = {each["done"] for each in notes if "done" in each}
    stages = {Path(each["record"]): each for each in notes if "record" in each}
    programs = [each for each in notes if "program" in each]
    counted: set[Path] = set()
    rows = []
    for target in (catalogue.targets[name] for name in wanted):
        records = [Path(record) for record in target.records]
        mine = [stages[record] for record in records if record in stages]
        causes = [] if target.target in done else _causes(target, mine, programs)
        if target.target in done:
            own = stages.get(records[-1], {}).get("status")
            status = own if own in DONE else "up to date"
        elif causes:
            status = "failed"
        elif any(each["status"] == "interrupted" for each in mine):
            status = "interrupted"
        else:
            status = "not tried"
        fresh = [record for record in records if record in stages and record not in counted]
        counted.update(fresh)
        seconds = sum(stages[record].get("seconds", 0.0) for record in fresh)
        rows.append(_row(target, catalogue.chip, status, seconds, causes))
    if unexplained and not any(row.causes for row in rows):
        cause = Cause("make ended before it was made; what it said above tells why")
        rows = [
            row._replace(status="failed", causes=[cause]) if row.status == "not tried" else row
            for row in rows
        ]
    return rows


def _causes(target: Target, stages: list[dict], programs: list[dict]) -> list[Cause]:
    if target.refused:
        return [Cause(target.refused)]
    found = []
    for variable, path in target.sources.items():
        if not Path(path).exists():
            # Where it was to be fetched, whoever fetches has said why it isn't there.
            told = [each["cause"] for each in programs if path in each["arguments"]]
            found.append(Cause((told or [f"there is no {path}, which {variable} names"])[-1]))
    found += [
        Cause(each["cause"].strip().partition("\n")[0], each.get("log"))
        for each in stages
        if each["status"] == "failed"
    ]
    return found


def _row(target: Target, chip: str, status: str, seconds: float, causes: list[Cause]) -> Row:
    output, record = Path(target.output), Record.load(Path(target.records[-1]))
    if status not in DONE or not output.exists():
        return Row(target, chip, status, seconds, None, None, "", causes)
    figure = record.figure if record else ""
    cosine = re.search(r"lowest cosine ([\d.]+)", figure)
    size = output.stat().st_size
    return Row(
        target, chip, status, seconds, size, float(cosine[1]) if cosine else None, figure, []
    )


# ---------------------------------------------------------------------------------------------
# What is told


HEADINGS = ("target", "chip", "status", "seconds", "MB", "lowest cosine")
# So many of them hold words, not numbers.
WORDS = 3


def cells(told: dict) -> list[tuple[str, ...]]:
    """A document's targets as rows of text, under HEADINGS."""
    return [
        (
            each["target"],
            each["chip"],
            each["status"],
            f"{each['seconds']:.1f}" if each["seconds"] else "",
            f"{each['size'] / 1e6:.2f}" if each["size"] is not None else "",
            f"{each['lowest_cosine']:.7f}" if each["lowest_cosine"] is not None else "",
        )
        for each in told["targets"]
    ]


def table(told: dict) -> list[str]:
    """A document's targets in columns, with the causes of failures below theirs."""
    first, *lines = in_columns([HEADINGS, *cells(told)], words=WORDS)
    shown = [first]
    for line, each in zip(lines, told["targets"], strict=True):
        shown.append(line)
        for cause in each["causes"]:
            shown.append(f"    {cause['cause']}")
            shown += [f"    log: {cause['log']}"] if cause["log"] else []
    return shown


def summary(told: dict) -> str:
    """How many came to what, and how long all of it took, in a line."""
    statuses = [each["status"] for each in told["targets"]]
    counts = ", ".join(
        f"{statuses.count(status)} {status}" for status in STATUSES if status in statuses
    )
    return f"{counts}; {told['seconds']:.1f} s{', interrupted' if told['interrupted'] else ''}"


def document(rows: list[Row], listed: str | None, seconds: float, interrupted: bool) -> dict:
    """What ``--json`` prints, and all.json in the build folder has."""
    return {
        "$schema": SCHEMA,
        "list": listed,
        "done": all(row.status in DONE for row in rows),
        "interrupted": interrupted,
        "seconds": round(seconds, 3),
        "targets": [
            {
                "target": row.target.target,
                "model": row.target.model,
                "variant": row.target.variant,
                "chip": row.chip,
                "status": row.status,
                "seconds": round(row.seconds, 3),
                "output": row.target.output,
                "size": row.size,
                "lowest_cosine": row.cosine,
                "figure": row.figure,
                "causes": [cause._asdict() for cause in row.causes],
            }
            for row in rows
        ],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="build_list", description=__doc__.splitlines()[0])
    parser.add_argument("--make", default="make", help="the make to build with")
    parser.add_argument("--build", required=True, type=Path, help="the build folder")
    parser.add_argument("--list", type=Path, help="a file with a target a line; without it, all "
                        "that stanzas declare")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document, and on "
                        "standard error what people see")  # fmt: skip
    return parser.parse_args()


def main() -> int:
    """Build what is wanted, tell what came of it; 0 if all is there, 1 if not, 128 + a signal."""
    chosen = _arguments()
    known = catalogue(chosen.make, None)
    wanted = wanted_targets(chosen.list, known)
    catalogues = {chip: known if chip == known.chip else catalogue(chosen.make, chip)
                  for chip in dict.fromkeys(each.chip for each in wanted)}  # fmt: skip
    # Make's own questions: what would be done, whether anything would.
    if set(_flags()) & set("nqt"):
        return max(subprocess.call(_command(chosen.make, each, wanted, known), close_fds=False)
                   for each in catalogues)  # fmt: skip
    output = sys.stderr if chosen.json else sys.stdout
    started = time.monotonic()
    stop = Interruption()
    rows = _build(chosen, known, catalogues, wanted, stop, output)
    seconds = time.monotonic() - started
    listed = str(chosen.list.expanduser()) if chosen.list else None
    told = document(rows, listed, seconds, stop.number != 0)
    with atomic_write(chosen.build / "all.json") as temporary:
        temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    lines = [*table(told), summary(told)]
    print("", *lines, sep="\n", file=output, flush=True)
    if chosen.json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
    return 128 + stop.number if stop.number else 0 if told["done"] else 1


def _command(make: str, chip: str, wanted: list[Wanted], known: Catalogue) -> list[str]:
    other = [] if chip == known.chip else [f"CHIP={chip}"]
    return [make, "--no-print-directory", *other, *(w.target for w in wanted if w.chip == chip)]


def _build(
    chosen: argparse.Namespace,
    known: Catalogue,
    catalogues: dict[str, Catalogue],
    wanted: list[Wanted],
    stop: Interruption,
    output: TextIO,
) -> list[Row]:
    """Run one make for each chip, one after the other, and give the rows in the list's order."""
    rows: dict[Wanted, Row] = {}
    failed = False
    work = chosen.build / ".work"
    work.mkdir(parents=True, exist_ok=True)
    with private_folder(work, "list-") as folder:
        for chip, there in catalogues.items():
            place = folder / f"{chip}.jsonl"
            code = 0
            # As Make itself does: without -k, what comes after a failure isn't tried.
            if not stop.number and not (failed and "k" not in _flags()):
                environment = os.environ | {events.VARIABLE: str(place)}
                command = _command(chosen.make, chip, wanted, known)
                code = stop.run(command, environment, output)
            names = [each.target for each in wanted if each.chip == chip]
            unexplained = code != 0 and not stop.number
            for row in outcomes(there, names, events.notes(place), unexplained):
                rows[Wanted(row.target.target, chip)] = row
            failed = failed or code != 0
    return [rows[each] for each in wanted]
