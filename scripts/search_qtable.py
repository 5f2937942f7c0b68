#!/usr/bin/env python3
"""Search the smallest quantisation table with which a network loses no more than a goal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from tpumake.cli import BadInput, CheckFailed, atomic_write, run
from tpumake.detections import CONFIDENCE
from tpumake.evaluation.document import GATED, check_labels, measures_of
from tpumake.evaluation.found import Found, Seen, read_found
from tpumake.evaluation.likeness import harm, harm_of_class
from tpumake.evaluation.pictures import EvalSet, read_set
from tpumake.evaluation.running import TOOLCHAIN, Feeding, Kept, code_digest, cores
from tpumake.letterbox import GREY
from tpumake.mixed.document import Searched, document, lines, summary
from tpumake.mixed.search import GROUPS, Layer, search
from tpumake.mixed.trials import PROGRAMS, Trial, Trials, table
from tpumake.network_input import read_network_input

_PATH = click.Path(path_type=Path)
# Pictures that layers' harm is measured on; the drop is measured on all.
RANKED = 4


class Search:
    """The two questions of a search, answered by trials, and what the answers were."""

    def __init__(self, trials: Trials, chosen: EvalSet, reference: float, task: str) -> None:
        self.trials, self.chosen = trials, chosen
        self._reference, self._figure = reference, GATED[task]
        self.layers: list[Layer] = trials.layers()
        self.measured: dict[tuple[int, ...], dict] = {}
        self.harmed: dict[tuple[int, int], float] = {}
        self._float: list[Seen] = []
        self._done = 0

    def _trial(self, places: Sequence[int], pictures: int | None = None) -> Trial:
        return Trial([self.layers[place].name for place in places],
                     self.chosen.pictures[:pictures])  # fmt: skip

    def harms(self, groups: Sequence[Sequence[int]]) -> list[float]:
        """What it does to pictures that groups of layers are INT8, and all others float."""
        everything = range(len(self.layers))
        if not self._float:
            (self._float,) = self.trials.run([self._trial(everything, RANKED)])
        trials = [
            self._trial([place for place in everything if place not in group], RANKED)
            for group in groups
        ]
        found = self.trials.run(trials)
        self._tell(len(groups))
        harms = [sum(map(_harm, self._float, seen)) for seen in found]
        for group, suffered in zip(groups, harms, strict=True):
            self.harmed[group[0], group[-1] + 1] = suffered
        return harms

    def drop(self, places: Sequence[int]) -> float:
        """How much lower the figure is with these layers in float than the reference's."""
        (seen,) = self.trials.run([self._trial(places)])
        self._tell(1)
        first = seen[0]
        found = Found(first.kind, first.outputs, [each.found for each in seen], 0.0)
        measures = measures_of(found, self.chosen, CONFIDENCE)
        self.measured[tuple(places)] = measures
        return self._reference - measures[self._figure]

    def _tell(self, trials: int) -> None:
        """Nobody knows how many there will be: the next few, at least."""
        self._done += trials
        print(f"PROGRESS {self._done} {max(3 * GROUPS, self._done + GROUPS)}", flush=True)


def _harm(one: Seen, two: Seen) -> float:
    if one.kind == "classify":
        return harm_of_class(one.found, two.found)
    return harm(one.found, two.found, CONFIDENCE)


@click.command(help=__doc__, context_settings={"ignore_unknown_options": True})
@click.argument("chosen", type=_PATH)
@click.argument("source", type=_PATH)
@click.argument("reference", type=_PATH)
@click.argument("target", type=_PATH)
@click.argument("told", type=_PATH)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.option("--network", type=_PATH, required=True, help="The float network (.mlir).")
@click.option("--beside", type=_PATH, multiple=True, required=True,
              help="Its weights, and its calibration table.")  # fmt: skip
@click.option("--name", required=True, help="What is built: MODEL_mix.")
@click.option("--chip", required=True, help="What it is built for.")
@click.option("--mode", type=click.Choice(["BF16", "F16", "F32"]), required=True,
              help="What float is there.")  # fmt: skip
@click.option("--goal", type=click.FloatRange(0, 1), required=True,
              help="By how much mAP50 (top-1) may drop, from 0 to 1.")  # fmt: skip
@click.option("--keep", type=_PATH, required=True, help="Where what was found is kept.")
@click.option("--ground", type=click.IntRange(0, 255), default=GREY, show_default=True,
              help="The grey around pictures.")  # fmt: skip
@click.option("--processes", type=click.IntRange(1), help="How many at once; one a core.")
def main(
    chosen: Path,
    source: Path,
    reference: Path,
    target: Path,
    told: Path,
    flags: tuple[str, ...],
    network: Path,
    beside: tuple[Path, ...],
    name: str,
    chip: str,
    mode: str,
    goal: float,
    keep: Path,
    ground: int,
    processes: int | None,
) -> None:
    """Write the quantisation table TARGET, and what was tried for it to TOLD (.json).

    CHOSEN are labelled pictures of SOURCE, REFERENCE (.npz) what the float network found there.
    FLAGS are model_deploy's. Exit code 1: even with all layers in float it loses more.
    """
    pictures = read_set(chosen)
    found = read_found(reference, len(pictures.pictures))
    if not check_labels(pictures, found):
        raise BadInput(f"QTABLE_GOAL: the pictures in {source} have no labels to measure a drop by")
    known = measures_of(found, pictures, CONFIDENCE)
    if known is None:
        raise BadInput("QTABLE_GOAL: no picture that was chosen has a label; EVAL_COUNT = more")
    if not known[GATED[found.kind]]:
        raise BadInput(f"QTABLE_GOAL: the float network itself finds nothing of what the labels of "
                       f"{source} say; are they its classes?")  # fmt: skip
    feeding = Feeding(source, read_network_input(network), ground, pictures.known)
    words = [*flags, mode, ground, feeding.wanted, feeding.classes]
    kept = Kept(keep, code_digest([network, *beside, *PROGRAMS], words))
    with Trials(TOOLCHAIN, network, beside, flags, mode, feeding, kept, target.parent,
                processes or cores()) as trials:  # fmt: skip
        asked = Search(trials, pictures, known[GATED[found.kind]], found.kind)
        outcome = search(asked.layers, asked.harms, asked.drop, goal)
    searched = Searched(name, chip, mode, goal, found.kind, known)
    came_to = document(searched, pictures, asked.layers, outcome, asked.harmed, asked.measured)
    print("\n".join(lines(came_to)))
    if outcome.best is None:
        raise CheckFailed(f"QTABLE_GOAL: {summary(came_to)}")
    with atomic_write(told) as temporary:
        temporary.write_text(json.dumps(came_to, indent=1) + "\n", encoding="utf-8")
    with atomic_write(target) as temporary:
        floats = [asked.layers[place].name for place in outcome.best.layers]
        temporary.write_text(table(floats, mode), encoding="utf-8")
    click.echo(summary(came_to))


if __name__ == "__main__":
    run(main)
