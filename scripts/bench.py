#!/usr/bin/env python3
"""Measure how long `make` takes, beside other tools, and beside the guides' commands."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import jsonschema

from tpumake.bench.chart import chart
from tpumake.bench.heavy import HEAVY, PICTURES, Choice, heavy_rows, insist_on_models
from tpumake.bench.measure import Bystanders, Cost, measure
from tpumake.bench.project import Project
from tpumake.bench.report import (
    accept,
    counted,
    describe_machine,
    describe_row,
    left_out,
    missed,
    regressions,
    summary,
    table,
)
from tpumake.bench.rows import COMPARED, ROWS, TOOLS, Bench, Row
from tpumake.cli import BadInput, CheckFailed, atomic_write, run
from tpumake.folders import private_folder

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "schemas" / "bench.schema.json"
NOTHING_ACCEPTED = {"$schema": "bench.schema.json#/$defs/accepted", "targets": {}}
# What others may do, in cores, before it is told.
DISTURBING = 0.2
# How often what is quick and what is heavy runs, if nobody says.
QUICK_ROUNDS, HEAVY_ROUNDS = 11, 3
# What a quick row takes (s), about.
QUICK_ROW = 40
MOST_PICTURES = 100_000
PATH = click.Path(path_type=Path)


def _chosen_rows(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    """Names of rows: of ROWS and HEAVY, or all."""
    known = [*ROWS, *HEAVY]
    names = [name.strip() for name in text.split(",")] if text.strip() else list(ROWS)
    if "all" in names:
        names = known
    for name in names:
        if name not in known:
            said = ", ".join(known)
            raise BadInput(f"ROWS={text}: there is no row {name!r}; there are {said}, and all")
    return [name for name in known if name in names]


def _chosen_pictures(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    """Numbers of pictures, from small to large."""
    numbers = []
    for word in text.split(",") if text.strip() else map(str, PICTURES):
        if not word.strip().isdecimal() or not 1 <= int(word) <= MOST_PICTURES:
            raise BadInput(
                f"PICTURES={text}: {word.strip()!r} is no number of pictures, from 1 to "
                f"{MOST_PICTURES}; for instance PICTURES=25,100"
            )
        numbers.append(int(word))
    return sorted(set(numbers))


def _chosen_rounds(context: click.Context, option: click.Parameter, text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise BadInput(f"ROUNDS={text}: is no number of rounds, 1 or more")
    return int(text)


def _names(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    return text.replace(",", " ").split()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target")
@click.option(
    "--rows", default="", callback=_chosen_rows, metavar="A,B",
    help=f"Which: {', '.join(ROWS)} (all of them by default), {', '.join(HEAVY)}; or all.",
)  # fmt: skip
@click.option("--tool", "tools", multiple=True, type=click.Choice(TOOLS), help="Only this tool.")
@click.option(
    "--rounds", default="", callback=_chosen_rounds, metavar="N",
    help=f"How often.  [{QUICK_ROUNDS}, and {HEAVY_ROUNDS} where something is built]",
)  # fmt: skip
@click.option(
    "--pictures", default="", callback=_chosen_pictures, metavar="N,M",
    help=f"For calibration.  [{','.join(map(str, PICTURES))}]",
)  # fmt: skip
@click.option(
    "--models", default="", callback=_names, metavar="A,B",
    help="For parallel; the first is there again under other names where there are not three.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A variable of the stanza."
)
@click.option("--out", default="build/bench", show_default=True, type=PATH, help="For the results.")
@click.option("--accepted", type=PATH, help="Ratios that those measured are held against.")
@click.option("--accept", "accepting", is_flag=True, help="Put those measured in their place.")
@click.option("--make", default="make", show_default=True, help="The program.")
@click.option("--venv", default=".venv", show_default=True, type=PATH)
@click.option("--toolchain", default=".toolchain", show_default=True, type=PATH)
@click.option("--rivals", default=".bench", show_default=True, type=PATH, help="DVC, Snakemake.")
def command(
    target: str,
    rows: list[str],
    tools: tuple[str, ...],
    rounds: int | None,
    pictures: list[int],
    models: list[str],
    settings: tuple[str, ...],
    out: Path,
    accepted: Path | None,
    accepting: bool,
    make: str,
    venv: Path,
    toolchain: Path,
    rivals: Path,
) -> int:
    """Measure `make TARGET`, for instance tiny_int8, when there is nothing to compile.

    With the rows guides, cold, variant, parallel and calibration also when there is. Everything
    runs in copies of this checkout. All that is compared runs in turn, round by round; figures are
    medians and quartiles. Writes bench.json (schemas/bench.schema.json), bench.md and bench.svg,
    also of what was measured before an interruption.

    Exit code 0: done, 1: something is slower than it has to be, or a ratio more than 20 % lower
    than accepted, 2: bad input, 130: interrupted.
    """
    if accepting and not accepted:
        raise BadInput("--accept needs --accepted, the file to write")
    if accepting and settings:
        raise BadInput(
            f"ACCEPT=1 with {' '.join(settings)}: ratios are accepted for stanzas as they are"
        )
    before = _load(accepted) if accepted and not settings else NOTHING_ACCEPTED
    # So that folders are removed and programs ended then, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "logs", ignore_errors=True)
    project = Project(ROOT, target, make, venv, toolchain, out / "logs", settings)
    insist_on_models(project, models)
    with private_folder(out, ".work-") as work:
        session = _Session(out, project, before if not accepting else NOTHING_ACCEPTED)
        names = [name for name in TOOLS if name in (tools or TOOLS)] if COMPARED & {*rows} else []
        try:
            bench = Bench(project, work.absolute(), names, rivals / "bin" / "python", _step)
            planned = [ROWS[name](bench) for name in rows if name in ROWS]
            planned += heavy_rows(bench, Choice(rows, pictures, models))
            session.measure(bench, planned, rounds)
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            return session.interrupted()
        except CheckFailed:
            # An hour's figures are worth seeing all the same.
            session.incomplete()
            raise
    document = session.keep()
    session.show()
    if accepting:
        _write(accepted, accept(document, before))
        click.echo(f"→ {accepted}")
    _judge(document)
    return 0


class _Session:
    """What has been measured so far, which is written whenever there is more."""

    def __init__(self, out: Path, project: Project, before: dict) -> None:
        self.out = out
        self.before = before
        self.bystanders = Bystanders()
        self.described: list[dict] = []
        self.planned: list[Row] = []
        self.document = {
            "$schema": SCHEMA.name,
            "target": project.target,
            "settings": list(project.settings),
            "incomplete": False,
        }

    def measure(self, bench: Bench, planned: list[Row], rounds: int | None) -> None:
        """Measure row by row, and keep what there is after each round of the heavy ones."""
        self.planned = planned
        self.document |= {
            "versions": {name: said for name, said in bench.versions.items() if said},
            "stages": [stage.name for stage in bench.stages],
        }
        progress = _Progress(planned, rounds)
        progress.announce()
        for row in planned:
            row.prepare()
            progress.begin(row)
            self.described.append(describe_row(row, {name: [] for name in row.contenders}))

            def note(samples: dict, row: Row = row) -> None:
                self.described[-1] = describe_row(row, samples)
                if row.heavy:
                    self.keep()

            contenders = progress.told(row)
            measure(
                contenders, progress.rounds(row), progress.round,
                warm_up=not row.heavy, rotate=row.rotate, note=note,
            )  # fmt: skip
            progress.done()

    def keep(self) -> dict:
        """Write what there is; give it as a document."""
        # Rows of which nothing was measured yet are no rows.
        rows = [row for row in self.described if row["times"] or row["left_out"]]
        machine = describe_machine() | {"others": round(self.bystanders.cores(), 2)}
        document = self.document | {"machine": machine, "rows": rows}
        document["missed"] = missed(document)
        document["regressions"] = regressions(document, self.before)
        if rows:
            _write(self.out / "bench.json", document)
            with atomic_write(self.out / "bench.svg") as temporary:
                temporary.write_text(chart(document), encoding="utf-8")
            with atomic_write(self.out / "bench.md") as temporary:
                lines = [*table(document), "", *summary(document), *left_out(document)]
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.kept = document
        return document

    def show(self) -> None:
        """Print the tables, and where they are."""
        for line in ["", *table(self.kept), "", *left_out(self.kept)]:
            click.echo(line)
        click.echo(f"→ {', '.join(str(self.out / f'bench.{kind}') for kind in _KINDS)}")

    def incomplete(self) -> list[dict]:
        """Keep and show what is there, though there should be more; give its rows."""
        self.document["incomplete"] = True
        rows = self.keep()["rows"] if "stages" in self.document else []
        if rows:
            self.show()
        return rows

    def interrupted(self) -> int:
        """Keep what is there, and say what that is; give the exit code."""
        rows = self.incomplete()
        done = ", ".join(f"{counted(row['rounds'])} of {row['name']}" for row in rows)
        kept = (
            f"; {self.out / 'bench.json'} has {done}" if done else " before anything was measured"
        )
        click.echo(f"bench: interrupted{kept}", err=True)
        return 130


_KINDS = ("json", "md", "svg")


def _judge(document: dict) -> None:
    """Say what is wrong with the figures, and what may be wrong with the measurement."""
    others, cores = document["machine"]["others"], document["machine"]["cores"]
    if others > DISTURBING:
        click.echo(f"other programs kept {others:.1f} of {cores} cores busy meanwhile", err=True)
    lines = document["missed"] + document["regressions"]
    if lines:
        raise CheckFailed(*lines)


def _load(path: Path) -> dict:
    """The accepted ratios, none if there is no such file yet."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        definitions = json.loads(SCHEMA.read_text())["$defs"]
        jsonschema.validate(document, {"$ref": "#/$defs/accepted", "$defs": definitions})
    except FileNotFoundError:
        return NOTHING_ACCEPTED
    except ValueError as error:
        raise BadInput(f"{path}: is not JSON: {error}") from None
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise BadInput(f"{path}: at {place}: {error.message}") from None
    return document


def _write(path: Path, document: dict) -> None:
    with atomic_write(path) as temporary:
        text = json.dumps(document, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _step(name: str, text: str, seconds: float | None) -> None:
    """Show a step that is done, or without seconds one that begins."""
    took = "" if seconds is None else f" {seconds:6.1f} s"
    print(f"bench    {name:<15} {text:<55}{took}".rstrip(), flush=True)


class _Progress:
    """A line for each step that is done, and on a terminal one that moves."""

    def __init__(self, planned: Sequence[Row], rounds: int | None) -> None:
        self.planned = planned
        self.wanted = rounds
        self.row = planned[0]
        self.number = 0
        self.moving = sys.stdout.isatty()
        # What each took the last time, in seconds; until then it is expected to be as much slower
        # than it should as all that ran already was.
        self.took: dict[tuple[str, str], float] = {}
        self.spent = self.should = 0.0
        self.to_do = {
            row.name: {each: self.rounds(row) for each in row.expected} for row in planned
        }

    def rounds(self, row: Row) -> int:
        """How often a row is measured."""
        return self.wanted or (HEAVY_ROUNDS if row.heavy else QUICK_ROUNDS)

    def announce(self) -> None:
        """Tell what is about to run, and about how long that will take."""
        heavy = [row for row in self.planned if row.heavy]
        if not heavy:
            return
        quick = QUICK_ROW * (len(self.planned) - len(heavy))
        for row in heavy:
            each = ", ".join(f"{name} {_about(took)}" for name, took in row.expected.items())
            print(f"bench    {counted(self.rounds(row))} of {row.title}: {each}")
        print(f"bench    all of it takes about {_about(self._left() + quick)}", flush=True)

    def begin(self, row: Row) -> None:
        """Come to a row."""
        self.row = row

    def round(self, number: int, tool: str) -> None:
        """Show who is being measured."""
        self.number = number
        if self.moving:
            when = f"round {number} of {self.rounds(self.row)}" if number else "warming up"
            print(f"\r\033[Kbench    {self.row.title}: {when}, {tool}", end="", flush=True)

    def told(self, row: Row) -> dict:
        """A row's contenders; heavy ones tell when they are done, and how much is left."""
        if not row.heavy:
            return dict(row.contenders)

        def telling(name: str) -> Cost:
            cost = row.contenders[name]()
            self.took[row.name, name] = cost.seconds
            self.spent += cost.seconds
            self.should += row.expected[name]
            self.to_do[row.name][name] -= 1
            left = self._left()
            more = f", about {_about(left)} left" if left else ""
            self.done()
            when = f"round {self.number} of {self.rounds(row)}, load {cost.load:.1f}{more}"
            _step(name, f"{row.name}: {when}", cost.seconds)
            return cost

        return {name: (lambda name=name: telling(name)) for name in row.contenders}

    def _left(self) -> float:
        pace = self.spent / self.should if self.should else 1
        return sum(
            self.to_do[row.name][name] * self.took.get((row.name, name), pace * expected)
            for row in self.planned
            for name, expected in row.expected.items()
        )

    def done(self) -> None:
        """Take the moving line away."""
        if self.moving:
            print("\r\033[K", end="", flush=True)


def _about(seconds: float) -> str:
    """Seconds or minutes, as one says them."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


if __name__ == "__main__":
    run(command)
