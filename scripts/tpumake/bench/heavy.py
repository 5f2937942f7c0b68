"""The rows for which something is built: by the guides' commands, from nothing, side by side.

A row is a function that takes a :class:`Bench` and a :class:`Choice` and gives its :class:`Row`s,
without building anything yet: how long that may take is told before. All but the guides' commands
is Make without the cache, in a fresh copy of the project.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

from tpumake.bench.graph import Stage
from tpumake.bench.guides import Guides, starter, thresholds, why_not
from tpumake.bench.measure import Cost
from tpumake.bench.project import Project, seconds_of_stages, stages_that_ran
from tpumake.bench.rows import Bench, Ratio, Row
from tpumake.cli import BadInput, CheckFailed
from tpumake.memory import available
from tpumake.stages import STAGES

__all__ = ["HEAVY", "PICTURES", "Choice", "heavy_rows", "insist_on_models"]

HEAVY = ("guides", "cold", "variant", "parallel", "calibration")
PICTURES = (25, 100, 400, 1000)
JOBS = (1, 2)
MODELS = 3
# About how many times as long the tools take alone as our stages do, and a second variant as the
# first one's last stage: for telling beforehand how long it may take, and nothing else.
BY_HAND = {"transform": 1.5, "calibrate": 5.0, "deploy": 1.2}
OTHER_VARIANT = 2.5
# Pictures that take about as long as tuning does, whatever their number.
TUNING = 40
OTHER_MODEL = 20.0
COPYING = 2.0
# Make's own words for a network under another name, in all else like it.
AGAIN = """
$(foreach part,$(STANZA_PARTS),$(foreach name,$(STANZA_$(part)),$(if $(filter \
undefined,$(origin {model}_$(name))),,$(eval {name}_$(name) = $(value {model}_$(name))))))
$(eval $(call model,{name}))
"""


@dataclass(frozen=True)
class Choice:
    """What is to be measured: names of HEAVY, numbers of pictures, and models for `parallel`."""

    names: Sequence[str]
    pictures: Sequence[int] = PICTURES
    models: Sequence[str] = ()


def insist_on_models(project: Project, names: Sequence[str]) -> None:
    """Make sure that there are models of these names.

    :raises BadInput: there is one not
    """
    known = project.variants() if names else {}
    for name in names:
        if name not in known:
            raise BadInput(f"BENCH_MODELS: there is no model {name}; make list shows which are")


def heavy_rows(bench: Bench, choice: Choice) -> list[Row]:
    """The rows that are chosen."""
    rows = []
    if {"guides", "cold", "variant"} & {*choice.names}:
        rows.append(from_nothing(bench, choice))
    if "parallel" in choice.names:
        rows.append(parallel(bench, choice))
    if "calibration" in choice.names:
        rows += [calibration(bench, count) for count in choice.pictures]
    return rows


def from_nothing(bench: Bench, choice: Choice) -> Row:
    """The guides' commands, `make` from nothing, and a second variant after that."""
    project, stages = bench.project, bench.stages
    model, variant = _model(bench), _second_variant(bench)
    hand, cold_folder = bench.work / "guides", bench.work / "cold"
    reason = why_not(stages) if "guides" in choice.names else ""
    by_hand = "guides" in choice.names and not reason
    guides = Guides.of(project, stages, bench.built) if by_hand else None

    def run_guides() -> Cost:
        assert guides
        shutil.rmtree(hand, ignore_errors=True)
        return guides.run(hand)

    def run_cold() -> Cost:
        shutil.rmtree(cold_folder, ignore_errors=True)
        project.copy(cold_folder)
        cost, said = project.cost_of_make(cold_folder, project.target, log="cold")
        ran = stages_that_ran(said)
        if len(ran) < len(stages):
            raise CheckFailed(f"everything was to run, but only this did: {', '.join(ran)}")
        if guides and hand.exists():
            _insist_on_same_work(guides.table(hand), cold_folder / _made(stages, "calibrate"))
        return replace(cost, steps=seconds_of_stages(said))

    def run_variant() -> Cost:
        cost, said = project.cost_of_make(cold_folder, f"{model}_{variant}", log="variant")
        return replace(cost, steps=seconds_of_stages(said))

    runs: dict[str, Callable[[], Cost]] = {}
    if by_hand:
        runs["guides"] = run_guides
    if {"cold", "variant"} & {*choice.names}:
        runs["cold"] = run_cold
    if "variant" in choice.names:
        runs["variant"] = run_variant
    pairs = [pair for pair in (("guides", "cold"), ("cold", "variant")) if {*pair} <= {*runs}]
    second = f", then {model}_{variant}" if "variant" in runs else ""
    return Row(
        name="from-nothing",
        title=f"from nothing{second}",
        contenders=runs,
        ratios=_ratios(pairs),
        left_out={"guides": reason} if reason else {},
        expected={name: _expected(bench)[name] for name in runs},
        prepare=lambda: _read_through_toolchain(bench),
        # The second variant goes on from what is built.
        rotate=False,
    )


def parallel(bench: Bench, choice: Choice) -> Row:
    """Three models in two variants, by one job and by two."""
    project, own = bench.project, _model(bench)
    variants = [project.target.removeprefix(f"{own}_"), _second_variant(bench)]
    named = list(dict.fromkeys(choice.models or [own]))[:MODELS]
    again = [f"bench_{number}" for number in range(len(named) + 1, MODELS + 1)]
    stanzas = "".join(AGAIN.format(model=named[0], name=name) for name in again)
    others = [f"{name}_{variant}" for name in named for variant in variants]
    targets = [f"{name}_{variant}" for name in (*named, *again) for variant in variants]
    folder = bench.work / "parallel"

    def runner(jobs: int) -> Callable[[], Cost]:
        def run() -> Cost:
            shutil.rmtree(folder, ignore_errors=True)
            project.copy(folder, *others)
            with (folder / "models.mk").open("a") as file:
                file.write(stanzas)
            cost, said = project.cost_of_make(folder, f"-j{jobs}", *targets, log=f"j{jobs}")
            missing = [each for each in targets if f"/{each}." not in said]
            if missing:
                raise CheckFailed(f"not built: {', '.join(missing)}")
            return cost

        return run

    expected = _expected(bench)
    one = expected["cold"] + expected["variant"]
    total = sum(one if name == own else OTHER_MODEL for name in named) + one * len(again)
    names = [*named, *(f"{named[0]} again" for _ in again)]
    return Row(
        name="parallel",
        title=f"{', '.join(names)}: {', '.join(variants)}",
        contenders={f"j{jobs}": runner(jobs) for jobs in JOBS},
        ratios=_ratios([(f"j{JOBS[0]}", f"j{JOBS[-1]}")]),
        expected={f"j{jobs}": total for jobs in JOBS},
        prepare=lambda: _read_through_toolchain(bench),
    )


def calibration(bench: Bench, count: int) -> Row:
    """Calibration of so many pictures, by tpu_mlir's own tool and by ours: of `make`'s two ways."""
    name, title = f"calibration-{count}", f"calibration, {count} pictures"
    project, model = bench.project, _model(bench)
    named = {stage.name: stage for stage in bench.stages}
    reason = _no_calibration(named, bench.built)
    if reason:
        left_out = dict.fromkeys(("run_calibration", "tpumake"), reason)
        return Row(name, title, contenders={}, left_out=left_out)
    folder = bench.work / name
    settings = (f"{model}_INPUT_NUM={count}", "VALIDATE=0")
    stages: dict[str, Stage] = {}
    tables: dict[str, list[str]] = {}

    def prepare() -> None:
        project.copy(folder)
        _fill(folder / named["dataset"].inputs[0], count)
        stages.update({stage.name: stage for stage in project.stages(folder, *settings)})
        manifest = f"{stages['dataset'].outputs[0]}/manifest.json"
        project.run_make(folder, *settings, manifest, stages["transform"].outputs[0], log=name)

    def runner(calibrator: str) -> Callable[[], Cost]:
        def run() -> Cost:
            stage = stages["calibrate"]
            table, log = folder / stage.outputs[0], f"{name}-{calibrator}"
            for path in (table, folder / stage.record):
                path.unlink(missing_ok=True)
            wanted = (*settings, f"{model}_CALIBRATOR={calibrator}", stage.outputs[0])
            cost, said = project.cost_of_make(folder, *wanted, log=log)
            if len(stages_that_ran(said)) != 1:
                raise CheckFailed(f"one stage was to run (log: {project.logs / log}.log)")
            tables[calibrator] = thresholds(table)
            if any(each != tables[calibrator] for each in tables.values()):
                raise CheckFailed(f"{title}: the two tables are not the same")
            return cost

        return run

    short = _short_of_memory(bench.built / _made(bench.stages, "transform"), count)
    runs = {"tpumake": runner("tpumake")}
    if not short:
        runs = {"run_calibration": runner("tpu_mlir"), **runs}
    last = _pictures(bench.built / named["dataset"].outputs[0])
    ours = (TUNING + count) / (TUNING + last) * bench.seconds["calibrate"] + COPYING
    times = {"run_calibration": BY_HAND["calibrate"] * ours, "tpumake": ours}
    return Row(
        name,
        title,
        contenders=runs,
        ratios=[] if short else _ratios([("run_calibration", "tpumake")]),
        left_out={"run_calibration": short} if short else {},
        expected={each: times[each] for each in runs},
        prepare=prepare,
    )


def _ratios(pairs: Sequence[tuple[str, str]]) -> list[Ratio]:
    """Of time, of processor time and of memory."""
    return [
        Ratio(slow, fast, of=of) for slow, fast in pairs for of in ("time", "processor", "memory")
    ]


def _expected(bench: Bench) -> dict[str, float]:
    """About how many seconds each may take, from what the stages took when they ran last."""
    took = bench.seconds
    return {
        "guides": sum(BY_HAND.get(name, 0) * seconds for name, seconds in took.items()),
        "cold": sum(took.values()) + COPYING,
        "variant": OTHER_VARIANT * took.get("deploy", 0) + COPYING,
    }


def _model(bench: Bench) -> str:
    """The target's model: the folder of what its last stage makes."""
    return Path(bench.stages[-1].outputs[0]).parent.parent.name


def _second_variant(bench: Bench) -> str:
    """Another variant of the target's model, one that needs no search."""
    first = bench.project.target.removeprefix(f"{_model(bench)}_")
    named = bench.project.variants().get(_model(bench), [])
    others = [each for each in (*named, "bf16", "int8") if each not in (first, "mix")]
    return others[0]


def _made(stages: Sequence[Stage], name: str) -> Path:
    """The first result of a stage."""
    return next(Path(stage.outputs[0]) for stage in stages if stage.name == name)


def _read_through_toolchain(bench: Bench) -> None:
    """Have the kernel hold its files, so that not whoever is first waits for the disk."""
    (stage,) = [stage for stage in bench.stages if stage.name == "transform"]
    for path in (bench.built / starter(stage)).parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def _insist_on_same_work(one: Path, other: Path) -> None:
    if one.exists() and thresholds(one) != thresholds(other):
        raise CheckFailed("the guides' commands made another calibration table than make did")


def _no_calibration(stages: dict[str, Stage], built: Path) -> str:
    """Why there is no calibration of any number of pictures; empty if there is."""
    if "calibrate" not in stages or "dataset" not in stages:
        return "the target is built without"
    kept = built / stages["dataset"].outputs[0]
    source = built / stages["dataset"].inputs[0]
    if not source.is_dir() or any(kept.glob("Calibration*.np[yz]")):
        return "its samples are no folder of pictures"
    return ""


def _pictures(folder: Path) -> int:
    """How many there are in a set."""
    return len(list(folder.glob("Calibration*")))


def _fill(folder: Path, count: int) -> None:
    """Have so many pictures in a folder: further ones look like those, and are other bytes.

    Decoders stop before what is behind a picture; what a picture shows does not matter here.

    :raises BadInput: there are none
    """
    kinds = (".jpg", ".jpeg", ".png")
    there = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    if not there:
        raise BadInput(f"{folder.name}: calibration of several numbers needs a folder of pictures")
    for number in range(len(there), count):
        source = there[number % len(there)]
        copy = source.with_name(f"bench-{number}{source.suffix}")
        copy.write_bytes(source.read_bytes() + b"%d" % number)


def _short_of_memory(network: Path, count: int) -> str:
    """Why tpu_mlir's own calibration, which holds all pictures' tensors, can't run; or nothing."""
    command = ["run_calibration.py", "--input_num", str(count)]
    need = STAGES["calibrate"].memory(SimpleNamespace(inputs={"": network}, command=command))
    free = _free_memory()
    if need <= free:
        return ""
    return f"it would take about {need / 1e9:.0f} GB of memory, and there are {free / 1e9:.0f}"


def _free_memory() -> int:
    """What stages may take, but no more than is free now (bytes)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    now = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([available(), *now])
