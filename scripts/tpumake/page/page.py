"""From a report's facts to the page: what the template needs besides them, and filling it in.

Names of layers, classes and files are other people's text. The template engine escapes all of it;
plots come as SVG from a library that escapes, and are looked through once more; and the page's own
policy lets no script run but ours.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import jinja2
from markupsafe import Markup

from tpumake.errors import BadInput, one_line
from tpumake.page import plots

__all__ = ["COLUMNS", "both", "fill", "own_runs", "page", "printable"]

_HERE = Path(__file__).parent
_MB = 1 << 20
# The measures that are shown, by task.
COLUMNS = {
    "detect": {"map50": "mAP50", "map50_95": "mAP50-95", "precision": "precision",
               "recall": "recall"},
    "classify": {"top1": "top-1", "top5": "top-5"},
}  # fmt: skip
_WORST = 12
# Letters of a class's name at most, and the width of one, by its height.
_LETTERS, _WIDTH = 30, 0.62
# All that a plot is drawn with.
_ELEMENTS = {"svg", "g", "path", "line", "rect", "text", "circle", "defs", "clipPath"}


def page(facts: dict, pictures: Path) -> str:
    """Make the page.

    :param facts: schemas/report.schema.json
    :param pictures: the folder of small pictures that the facts name
    :raises BadInput: something that the page needs isn't in them
    """
    facts = printable(facts)
    try:
        shown = _shown(facts, pictures)
        title = f"{facts['target']} for {facts['chip']}: report"
        return fill("page.html.jinja", title=title, **facts, **shown)
    except (KeyError, TypeError) as error:
        raise BadInput(f"the report's facts are not complete: {error}; make them again") from None


def fill(template: str, **names: object) -> str:
    """Fill in a template that begins as all our pages do."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    try:
        return environment.get_template(template).render(
            **names,
            style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
        )
    except jinja2.UndefinedError as error:
        raise BadInput(f"the report's facts are not complete: {error}; make them again") from None


def printable(value: object) -> object:
    """The same with nothing in any text that is no letter: no controls, no turned writing."""
    if isinstance(value, str):
        return "\n".join(map(one_line, value.split("\n")))
    if isinstance(value, list):
        return [printable(each) for each in value]
    if isinstance(value, dict):
        return {printable(name): printable(each) for name, each in value.items()}
    return value


def _shown(facts: dict, pictures: Path) -> dict:
    """What follows from the facts, for the template; some of it in place of what they have."""
    info, layers = facts["info"], facts["layers"]
    contract = info["contract"]
    ion = contract["ion"] if contract else {"pool": None, "published": None}
    parts = _memory_parts(info["memory"])
    for stage in facts["stages"]:
        stage["lines"] = stage["figure"].splitlines()
    _shares(facts["stages"], "seconds")
    for each in facts["pictures"]:
        each["data"] = _data(pictures / each["file"]) if each["file"] else None
        each["letter"] = round(max(each["width"], each["height"]) / 24, 1)
        for panel in each["panels"]:
            _place_labels(panel["boxes"], each["width"], each["height"], each["letter"])
    return {
        "tiles": _tiles(facts, ion["pool"]),
        "columns": _columns(facts["accuracy"]),
        "classes": _classes(facts["accuracy"]),
        "contract": contract,
        "pool": ion["pool"],
        "published": ion["published"],
        "memory_parts": parts,
        "memory_plot": both(plots.memory, parts, _limits(ion)),
        "layer_plot": both(plots.layers, layers, facts["outputs"]) if layers else None,
        "goal_plot": both(plots.goal, facts["goal"]) if facts["goal"] else None,
        "worst": _worst(layers),
        "histograms": _histograms(layers),
        "json_name": f"{facts['target']}.report.json",
    }


def _shares(rows: Sequence[dict], name: str) -> None:
    """Give rows the length of their bar, in percent of the longest."""
    most = max((row[name] or 0 for row in rows), default=0)
    for row in rows:
        row["share"] = 100 * max(row[name] or 0, 0) / most if most > 0 else 0


def _place_labels(boxes: Sequence[dict], width: int, height: int, letter: float) -> None:
    """Give each box its label and where that begins: above it, or where no other one is."""
    taken: list[tuple[float, float, float]] = []
    for box in boxes:
        left, top, _, bottom = box["box"]
        score = "" if box["score"] is None else f" {100 * box['score']:.0f}"
        name = box["name"] if len(box["name"]) <= _LETTERS else f"{box['name'][:_LETTERS]}…"
        wide = letter * _WIDTH * len(name + score)
        x = max(min(left, width - wide), 0)
        wishes = [top - 0.3 * letter, bottom + letter, top + letter, bottom - 0.4 * letter]
        wishes = [min(max(y, letter), height - 0.3 * letter) for y in wishes]
        free = [y for y in wishes if not any(
            x < other + long and other < x + wide and abs(y - beside) < letter
            for other, beside, long in taken)]  # fmt: skip
        y = (free or wishes)[0]
        taken.append((x, y, wide))
        box["label"] = {"text": f"{name}{score}", "x": round(x, 1), "y": round(y, 1)}


def _data(path: Path) -> str:
    # Nothing of the name gets into the page.
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _tiles(facts: dict, pool: int | None) -> list[dict]:
    """The figures at the top: what it costs, what it is worth."""
    info, layers, contract = facts["info"], facts["layers"], facts["info"]["contract"]
    memory = f"{info['memory']['total'] / _MB:.1f} MB"
    tiles = [
        {"value": f"{info['size'] / 1e6:.2f} MB", "about": "the model's file", "how": ""},
        {"value": memory, "about": f"memory, of {pool / _MB:.0f} MB" if pool else "memory",
         "how": "bad" if pool and info["memory"]["total"] > pool else ""},
    ]  # fmt: skip
    drop = _headline(facts)
    if drop:
        tiles.append(drop)
    if layers:
        ends = [each for each in layers["layers"] if each["name"] in facts["outputs"]]
        least = min(each["cosine"] for each in ends or layers["layers"])
        about = "lowest cosine of an output" if ends else "lowest cosine of a tensor"
        tiles.append({"value": f"{least:.3f}", "about": about, "how": ""})
    if contract:
        tiles.append({"value": "kept" if contract["kept"] else "broken",
                      "about": f"contract with {contract['device']}",
                      "how": "good" if contract["kept"] else "bad"})  # fmt: skip
    seconds = [each["seconds"] for each in facts["stages"]]
    cached = sum(each["cached"] in (True, "remote") for each in facts["stages"])
    if all(seconds):
        about = f"of work; {cached} of {len(seconds)} stages from the cache"
        tiles.append({"value": f"{sum(seconds):.0f} s", "about": about,
                      "how": ""})  # fmt: skip
    return tiles


def _headline(facts: dict) -> dict | None:
    """The figure that people ask for first, and what became of it."""
    accuracy = facts["accuracy"]
    measured = [run for run in accuracy["runs"] if run["measures"]] if accuracy else []
    own = own_runs(facts)
    if not own:
        return None
    name, title = next(iter(COLUMNS[accuracy["task"]].items()))
    now, before = own[-1]["measures"][name], measured[0]["measures"][name]
    which = "" if own[-1]["kind"] == "model" else f" of {own[-1]['title']}"
    return {"value": f"{100 * now:.1f}", "about": f"{title}{which}; "
            f"{measured[0]['title']} {100 * before:.1f}", "how": ""}  # fmt: skip


def own_runs(facts: dict) -> list[dict]:
    """What was measured of the build itself: last of the model on its emulator, if that ran."""
    runs = facts["accuracy"]["runs"] if facts["accuracy"] else []
    return [run for run in runs if run["measures"] and run["variant"] and
            facts["target"].endswith(f"_{run['variant']}")]  # fmt: skip


def _columns(accuracy: dict | None) -> list[dict]:
    """The measures that were taken, each with what every row lost beside the first."""
    if not accuracy:
        return []
    for number, run in enumerate(accuracy["runs"]):
        run["number"] = number
    if not any(run["measures"] for run in accuracy["runs"]):
        return []
    return [
        {"name": name, "title": title, "drops": _drops(accuracy["runs"], name)}
        for name, title in COLUMNS[accuracy["task"]].items()
    ]


def _drops(runs: Sequence[dict], name: str) -> list[float | None]:
    """Points more or less than the first row; None for that itself, or where nothing is known."""
    values = [run["measures"][name] if run["measures"] else None for run in runs]
    first = values[0]
    drops = [None if value is None or first is None else 100 * (value - first) for value in values]
    return [None, *drops[1:]]


def _classes(accuracy: dict | None) -> list[dict]:
    if not accuracy or accuracy["task"] != "detect":
        return []
    tables = [
        {each["name"]: each for each in run["measures"]["classes"]} if run["measures"] else {}
        for run in accuracy["runs"]
    ]
    return [
        {"name": name, "objects": one["objects"],
         "map50": [table[name]["map50"] if name in table else None for table in tables]}
        for name, one in tables[0].items()
    ]  # fmt: skip


def _memory_parts(memory: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """What takes memory: what it is called, its colour, bytes; cvimodels tell activations apart."""
    parts = [("weights", "int", memory["weights"]), ("commands", "single", memory["commands"])]
    if "shared" in memory:
        parts += [
            ("activations", "float", memory["private"] + memory["shared"]),
            ("inputs and outputs", "half", memory["io"]),
        ]
    else:
        parts.append(("activations", "float", memory["runtime"]))
    return [part for part in parts if part[2]]


def _limits(ion: dict) -> list[tuple[str, int]]:
    return [("the device's pool", ion["pool"])] if ion["pool"] else []


def _worst(layers: dict | None) -> list[dict]:
    if not layers:
        return []
    rows = sorted(layers["layers"], key=lambda layer: -layer["added_noise"])[:_WORST]
    _shares(rows, "added_noise")
    return rows


def _histograms(layers: dict | None) -> list[dict]:
    if not layers:
        return []
    known = {layer["name"]: layer for layer in layers["layers"]}
    return [
        {"layer": known[each["name"]],
         "plot": _checked(plots.histogram(known[each["name"]], each["counts"]))}
        for each in layers["histograms"] if each["name"] in known
    ]  # fmt: skip


def both(draw: Callable[..., str], *arguments: object) -> dict[str, Markup]:
    """A plot in both widths."""
    return {name: _checked(draw(*arguments, width)) for name, width in plots.WIDTHS.items()}


def _checked(svg: str) -> Markup:
    """A plot for the page, if it is nothing but drawing.

    :raises ValueError: there is an element in it, or a handler or link, that no plot has
    """
    for element in ElementTree.fromstring(svg).iter():
        name = element.tag.rpartition("}")[2]
        active = [one for one in element.attrib if one.startswith("on") or one.endswith("href")]
        if name not in _ELEMENTS or active:
            raise ValueError(f"a plot with <{name}> {active}")
    return Markup(svg)
