"""Put a report's facts together from documents that a build made; schemas/report.schema.json."""

from __future__ import annotations

from collections.abc import Sequence

from tpumake.report.records import Kept, by_hand, stages, versions

__all__ = ["Evaluation", "accuracy", "document", "summary"]

_SCHEMA = "report.schema.json"
_MB = 1 << 20
_TURNED = ("_f32", "_f16", "_bf16", "_si8", "_ui8")


class Evaluation(dict):
    """An ``eval.json``; ``outdated`` where it was measured on a model of other bytes."""

    outdated = False


def document(
    target: str,
    variant: str,
    kept: Sequence[Kept],
    info: dict,
    layers: dict | None,
    evaluations: Sequence[Evaluation],
    goal: dict | None = None,
) -> dict:
    """All facts of a build; ``pictures`` are the worst of its own evaluation.

    :param info: what the model is, schemas/info.schema.json
    :param layers: schemas/layers.schema.json; None where they can't be measured
    :param evaluations: of all variants of the model, schemas/eval.schema.json
    :param goal: what was tried to make it good enough, schemas/qtable_goal.schema.json
    """
    own = next((each for each in evaluations if each["target"] == target), None)
    return {
        "$schema": _SCHEMA,
        "target": target,
        "chip": info["chip"],
        "versions": versions(list(kept)),
        "stages": stages(list(kept)),
        "by_hand": by_hand(list(kept)),
        "info": info,
        "layers": layers,
        "outputs": _outputs(info, layers) if layers else [],
        "accuracy": accuracy(evaluations),
        "goal": goal,
        "pictures": _pictures(own, variant) if own else [],
    }


def _outputs(info: dict, layers: dict) -> list[str]:
    """The tensors that the model ends in; what turns them into floats there adds to their names."""
    ends = {tensor["name"] for program in info["programs"] for tensor in program["outputs"]}
    ends |= {name.rpartition("_")[0] for name in ends if name.endswith(_TURNED)}
    return [layer["name"] for layer in layers["layers"] if layer["name"] in ends]


def accuracy(evaluations: Sequence[Evaluation]) -> dict | None:
    """What all evaluations came to, a row for each network; None without any.

    What several variants share, the ONNX, stands in each of their documents, and is a row once.
    Only what was run on the same pictures as the first one is put beside it.
    """
    if not evaluations:
        return None
    first = evaluations[0]
    like = [each for each in evaluations if _comparable(each) == _comparable(first)]
    rows: dict[tuple, dict] = {}
    for each in like:
        for run in each["runs"]:
            row = run | {"outdated": each.outdated and run["variant"] is not None}
            rows.setdefault((run["kind"], run["variant"]), row)
    return {
        "task": first["task"],
        "set": first["set"],
        "confidence": first["settings"]["confidence"],
        "runs": sorted(rows.values(), key=lambda row: row["variant"] is not None),
        "apart": [one for each in like for one in each["apart"]],
        "gates": [one for each in like for one in each["gates"]],
        "quick": [each["target"] for each in like if each.get("quick")],
        "left_out": [each["target"] for each in evaluations if each not in like],
    }


def _comparable(evaluation: dict) -> tuple:
    chosen = evaluation["set"]
    names = ("source", "seed", "pictures", "of", "layout")
    return evaluation["task"], *(chosen[name] for name in names)


def _pictures(own: Evaluation, variant: str) -> list[dict]:
    """The pictures that suffered most, with the boxes of both networks by the classes' names."""
    classes = own["set"]["classes"]
    first = own["runs"][0]["title"]
    model = [run["title"] for run in own["runs"] if run["variant"] == variant]
    return [
        {
            "name": worst["picture"],
            "file": None,
            "width": worst["width"],
            "height": worst["height"],
            "harm": worst["harm"],
            "panels": [
                {"title": title, "boxes": [_box(box, classes) for box in boxes]}
                for title, boxes in (
                    (first, worst["reference"]),
                    (model[-1] if model else variant, worst["model"]),
                    *([("labels", worst["truth"])] if worst["truth"] is not None else []),
                )
            ],
        }
        for worst in own["worst"]
        if worst["variant"] == variant
    ]


def _box(box: dict, classes: Sequence[str]) -> dict:
    number = box["class"]
    name = classes[number] if number < len(classes) else f"class {number}"
    return {"class": number, "name": name, "score": box["score"], "box": box["box"]}


def summary(facts: dict) -> list[str]:
    """The same in at most ten lines of text."""
    info, memory = facts["info"], facts["info"]["memory"]
    contract = info.get("contract")
    lines = [f"{facts['target']} for {facts['chip']}: {info['size'] / 1e6:.2f} MB, "
             f"memory {memory['total'] / _MB:.1f} MB{_of_pool(contract)}"]  # fmt: skip
    ran = [each["seconds"] for each in facts["stages"] if each["cached"] is False]
    cached = sum(each["cached"] in (True, "remote") for each in facts["stages"])
    lines.append(f"stages: {len(ran)} ran here in {sum(ran):.1f} s, {cached} came from the cache")
    lines += [_accuracy_line(facts["accuracy"], run) for run in _shown(facts["accuracy"])[:4]]
    if facts["layers"]:
        layers = facts["layers"]["layers"]
        ends = [layer for layer in layers if layer["name"] in facts["outputs"]]
        least = min(ends or layers, key=lambda layer: layer["cosine"])
        most = max(layers, key=lambda layer: layer["added_noise"])
        which = "output" if ends else "tensor"
        lines.append(f"{which} least like the float network's: {least['name']}, "
                     f"cosine {least['cosine']:.4f}")  # fmt: skip
        lines.append(f"adds most noise: {most['name']}, {100 * most['added_noise']:.1f} %")
    if contract:
        wrong = [each["text"] for each in contract["findings"]]
        lines.append(f"{contract['device']}: {'; '.join(wrong) if wrong else 'keeps the contract'}")
    return lines


def _of_pool(contract: dict | None) -> str:
    pool = contract["ion"]["pool"] if contract else None
    return f" of {pool / _MB:.0f} MB" if pool else ""


def _shown(accuracy: dict | None) -> list[dict]:
    return [run for run in accuracy["runs"] if run["measures"]] if accuracy else []


def _accuracy_line(accuracy: dict, run: dict) -> str:
    measures = run["measures"]
    names = {"map50": "mAP50", "map50_95": "mAP50-95", "top1": "top-1", "top5": "top-5"}
    figures = [f"{text} {100 * measures[name]:.1f}" for name, text in names.items()
               if measures.get(name) is not None]  # fmt: skip
    return f"{run['title']}: {', '.join(figures)} on {accuracy['set']['pictures']} pictures"
