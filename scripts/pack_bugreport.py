#!/usr/bin/env python3
"""Pack what a maintainer would ask for about a failed build into one archive.

It uses the standard library alone, since the environment of the helpers may be what failed; the
network is listed where onnx is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tpumake import bug_report
from tpumake.errors import BadInput, run_guarded


def pairs(texts: list[str]) -> dict[str, str]:
    """What options of the form NAME=VALUE say."""
    return dict(text.split("=", 1) for text in texts)


def parser() -> argparse.ArgumentParser:
    """What the Makefile may say."""
    arguments = argparse.ArgumentParser(prog="pack_bugreport", description=__doc__)
    add = arguments.add_argument
    add("--build", required=True, type=Path, help="the build folder; the archive goes there")
    add("--model", default="", help="what it is about; otherwise what failed last")
    add("--variant", default="", help="one of the model's; otherwise all")
    add("--chip", default="", help="whose variants")
    add("--set", dest="sets", action="append", default=[], metavar="MODEL=NAME",
        help="a model's set of pictures")  # fmt: skip
    add("--network", dest="networks", action="append", default=[], metavar="MODEL=FILE",
        help="a model's file")  # fmt: skip
    add("--lock", dest="locks", action="append", default=[], type=Path)
    add("--environment", dest="environments", action="append", default=[], metavar="NAME=FOLDER",
        help="an environment, and what it is called in the report")  # fmt: skip
    add("--make-version", default="?")
    add("--also", default="", help="weights, pictures, or both: those, too")
    return arguments


def main() -> int:
    """Pack a report and say what is in it."""
    chosen = parser().parse_args()
    wanted = chosen.also.replace(",", " ").split()
    for word in wanted:
        if word not in bug_report.WORDS:
            raise BadInput(f"BUGREPORT={chosen.also}: there is no {word}; weights, pictures")
    sets, networks = pairs(chosen.sets), pairs(chosen.networks)
    subject = bug_report.Subject(chosen.model, chosen.chip, chosen.variant)
    if not subject.model:
        subject = bug_report.last_failure(chosen.build, sets)
    network = networks.get(subject.model)
    entries = bug_report.collect(
        chosen.build, subject, sets.get(subject.model, ""), Path(network) if network else None,
        wanted,
    )  # fmt: skip
    environments = {name: Path(path) for name, path in pairs(chosen.environments).items()}
    ready = [path / "ready" for path in environments.values()]
    entries.append(bug_report.versions(chosen.locks, ready, chosen.make_version))
    target = chosen.build / f"{subject.name}.bugreport.zip"
    told = bug_report.pack(entries, target, bug_report.private_paths(environments))
    for name, size in told:
        print(f"  {size / 1000:>10.1f} kB  {name}")
    missing = [word for word in bug_report.WORDS if word not in wanted]
    print(f"→ {target}, {target.stat().st_size / 1000:.1f} kB")
    if missing:
        print(
            f'  without {" and ".join(missing)}; BUGREPORT="{" ".join(bug_report.WORDS)}" adds them'
        )
    print("  it names your files, with ~ for your home folder: look through it before you send it")
    return 0


if __name__ == "__main__":
    run_guarded(main)
