#!/usr/bin/env python3
"""Build a target twice, from nothing and under other conditions, and compare all bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import click

from tpumake.cli import BadInput, CheckFailed, run
from tpumake.display import Display
from tpumake.folders import private_folder, replace_folder
from tpumake.two_builds import BuildFailed, Condition, Request, Twice, build_twice, results

_SCHEMA = "reproduce.schema.json"
# So many digits of a digest are enough to look at; the JSON has all of them.
_DIGITS = 16
_PATH = click.Path(path_type=Path)


class Row(NamedTuple):
    """A result: its name below the build folder, its SHA-256 in each build, how they differ.

    A digest is None where the build has no such file. ``differences`` is empty for equal files.
    """

    name: Path
    first: str | None
    second: str | None
    differences: list[str]


def compare(first: Path, second: Path) -> list[Row]:
    """Compare the results of two build folders, in the order of their names."""
    rows = []
    for name in sorted({*results(first), *results(second)}):
        one, other = (_digest(folder / name) for folder in (first, second))
        told = [] if one == other else _differences(first / name, second / name)
        rows.append(Row(name, one, other, told))
    return rows


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _differences(first: Path, second: Path) -> list[str]:
    if not first.exists():
        return ["only in the second build"]
    if not second.exists():
        return ["only in the first build"]
    # Only where something differs: it imports what reads all kinds of files.
    from tpumake.differences import differences

    return differences(first, second)


def table(rows: list[Row]) -> list[str]:
    """The lines that people see; a folder's pictures that are the same become one line."""
    shown = []
    for folder in dict.fromkeys(row.name.parent for row in rows):
        here = [row for row in rows if row.name.parent == folder]
        pictures = [row for row in here if _is_picture(row.name) and not row.differences]
        if len(pictures) > 1:
            lines = "".join(f"{row.first}  {row.name.name}\n" for row in pictures)
            digest = hashlib.sha256(lines.encode()).hexdigest()
            shown.append((f"{folder}/Calibration… ({len(pictures)} files)", digest, []))
        else:
            pictures = []
        shown += [
            (str(row.name), row.first, row.differences) for row in here if row not in pictures
        ]
    width = max(len(name) for name, _, _ in shown)
    lines = []
    for name, digest, differences in shown:
        digits = (digest or "")[:_DIGITS]
        lines.append(
            f"{name:<{width}}  {digits:<{_DIGITS}}  {'differs' if differences else 'same'}"
        )
        lines += [f"    {line}" for line in differences]
    return lines


def _is_picture(name: Path) -> bool:
    return name.name.startswith("Calibration")


def document(target: str, rows: list[Row], conditions: list[Condition]) -> dict:
    """What ``--json`` prints."""
    return {
        "$schema": _SCHEMA,
        "target": target,
        "same": not any(row.differences for row in rows),
        "varied": [
            {"name": each.name, "first": each.first, "second": each.second}
            for each in conditions
            if not each.without
        ],
        "not_varied": [
            {"name": each.name, "reason": each.without} for each in conditions if each.without
        ],
        "files": [
            {
                "path": row.name.as_posix(),
                "first": row.first,
                "second": row.second,
                "same": not row.differences,
                "differences": row.differences,
            }
            for row in rows
        ],
    }


def _conditions(conditions: list[Condition]) -> list[str]:
    varied = ", ".join(each.name for each in conditions if not each.without)
    others = "; ".join(f"{each.name} ({each.without})" for each in conditions if each.without)
    return [f"varied: {varied}"] + ([f"not varied: {others}"] if others else [])


def _keep(place: Path, twice: Twice, rows: list[Row]) -> None:
    """Keep both versions of what differs, for a closer look; what was kept before goes."""
    with replace_folder(place) as folder:
        for row in rows:
            for name, build in (("first", twice.first), ("second", twice.second)):
                if (build / row.name).exists():
                    kept = folder / name / row.name
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    (build / row.name).rename(kept)


def _keep_logs(place: Path, build: Path) -> None:
    with replace_folder(place) as folder:
        for log in sorted(build.rglob("*.log")):
            kept = folder / log.relative_to(build)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(log, kept)


def _stop(number: int, frame: FrameType | None) -> None:
    # A second one must not disturb the tidying up.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise click.Abort


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target")
@click.option("--build", default="build", show_default=True, type=_PATH, help="The build folder.")
@click.option("--make", default="make", show_default=True, help="The make to build with.")
@click.option(
    "--makefile", "makefiles", multiple=True, type=_PATH, default=["Makefile", "models.mk"],
    show_default=True, help="What it reads.",
)  # fmt: skip
@click.option(
    "--source", "sources", multiple=True, metavar="VARIABLE=PATH",
    help="A network or pictures that the target is built from, as a variable of the Makefile.",
)  # fmt: skip
@click.option(
    "--environment", "environments", multiple=True, type=_PATH, default=[".venv", ".toolchain"],
    show_default=True, help="A folder that both builds share.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True,
    help="Print one JSON document, and on standard error what people see.",
)  # fmt: skip
def command(
    target: str,
    build: Path,
    make: str,
    makefiles: tuple[Path, ...],
    sources: tuple[str, ...],
    environments: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Build TARGET twice and compare all results, byte for byte.

    The Makefile runs this for `make TARGET.reproduce`. Exit code 0: all are the same, 1: some
    differ, or only the second build failed, 2: bad input, or the first build failed.
    """
    output = sys.stderr if as_json else sys.stdout
    request = Request(
        target, build, make, list(makefiles), _named(sources), list(environments), output
    )
    display = Display(target, "reproduce", verbose=False)
    kept = build / "reproduce" / target.replace("/", "_")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    work = build / ".work"
    work.mkdir(parents=True, exist_ok=True)
    with private_folder(work, "reproduce-") as made:
        # Relative if BUILD is: its absolute path may have spaces, which Make can't take.
        folder = work / made.name
        try:
            twice = build_twice(
                request, folder, lambda line: click.echo(f"{display.head} {line}", output)
            )
        except BuildFailed as error:
            _keep_logs(kept, error.build)
            kind = BadInput if error.number == 1 else CheckFailed
            raise kind(f"{target}: {error}; its logs are kept in {kept}") from None
        rows = compare(twice.first, twice.second)
        if not rows:
            raise BadInput(f"{target}: nothing was built that could be compared")
        differing = [row for row in rows if row.differences]
        if differing:
            _keep(kept, twice, differing)
        else:
            shutil.rmtree(kept, ignore_errors=True)
            with suppress(OSError):
                kept.parent.rmdir()
    for line in [*table(rows), *_conditions(twice.conditions)]:
        click.echo(line, output)
    if as_json:
        click.echo(json.dumps(document(target, rows, twice.conditions), indent=1))
    if differing:
        raise CheckFailed(
            f"{len(differing)} of {len(rows)} files differ; both versions are kept in {kept}"
        )
    click.echo(f"the same in both builds: {len(rows)} of {len(rows)} files", output)


def _named(pairs: tuple[str, ...]) -> dict[str, Path]:
    split = [pair.partition("=") for pair in pairs]
    if not all(name and path for name, _, path in split):
        raise BadInput("--source wants VARIABLE=PATH")
    return {name: Path(path) for name, _, path in split}


if __name__ == "__main__":
    run(command)
