"""`make X.layers`: which layers a precision harms, measured on both networks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from conftest import QUICK, ROOT, Checkout, copy_checkout, helper, refused

import show_layers

SCHEMA = json.loads((ROOT / "schemas/layers.schema.json").read_text())


def layer(name: str, added: float, sqnr: float | None = 20.0, **more: object) -> dict:
    return {
        "name": name, "type": "Conv", "shape": [1, 8], "precision": "INT8", "cosine": 0.99,
        "sqnr_db": sqnr, "added_noise": added, "min": -1.0, "max": 1.0, "threshold": 0.9,
        "clipped": 0.01,
    } | more  # fmt: skip


def document(*layers: dict) -> dict:
    return {
        "$schema": "layers.schema.json", "target": "m_int8", "chip": "cv181x", "pictures": 4,
        "layers": list(layers), "histograms": [],
    }  # fmt: skip


def test_the_layer_that_adds_most_noise_comes_first() -> None:
    said = show_layers.lines(document(layer("a", 0.01), layer("b", 0.04), layer("c", -0.02)))
    rows = [line for line in said if re.search(r" [abc]$", line)]
    assert [row[-1] for row in rows] == ["b", "a", "c"]
    assert [row.count("█") for row in rows] == [16, 4, 0]
    assert "4.00 %" in rows[0]


def test_the_plot_has_the_worst_of_each_stretch() -> None:
    assert show_layers.plot([None, 50, 0]) == "██▁"
    values = [50.0] * 640
    values[325] = 0
    plot = show_layers.plot(values)
    assert len(plot) == 64
    assert [at for at, bar in enumerate(plot) if bar == "▁"] == [32]


def test_layers_without_threshold_or_noise_are_shown() -> None:
    float_layer = layer("f", 0.0, None, precision="F32", threshold=None, clipped=None, cosine=1)
    said = "\n".join(show_layers.lines(document(float_layer)))
    assert re.search(r"0\.00 % +- +1\.000000 +F32 +Conv +f", said)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"$schema": "layers.schema.json"}', "\x00"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    said = refused(helper("show_layers", tmp_path / "x.json"))
    assert "is no layers.json that a build made" in said


def test_what_has_no_float_network_is_refused(checkout: Checkout) -> None:
    words = ("tiny_int8.layers", "tiny_TFLITE=models/mobile_int8.tflite", "CHIP=bm1684x")
    done = checkout.make(*words, check=False)
    assert done.returncode == 2
    assert "tiny comes quantised: there is no float network" in done.stderr
    assert "there is no nosuch whose layers" in checkout.make("nosuch.layers", check=False).stderr
    assert not (checkout.path / "build").exists()


@pytest.mark.toolchain
@pytest.mark.slow
def test_every_tensor_of_both_networks_is_compared(quick: Checkout, tmp_path: Path) -> None:
    made = copy_checkout(quick, tmp_path / "check out")
    done = made.make("tiny_int8.layers", "JSON=1", "COUNT=2", *QUICK)
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    assert (found["target"], found["chip"], found["pictures"]) == ("tiny_int8", "cv181x", 2)
    layers = {one["name"]: one for one in found["layers"]}
    # All that the table knows, but the input.
    table = (made.path / "build/tiny/tiny_calib_table").read_text()
    limits = {row.split()[0]: float(row.split()[1])
              for row in table.splitlines() if row and row[0] == "/"}  # fmt: skip
    assert layers.keys() == limits.keys()
    assert {name: one["threshold"] for name, one in layers.items()} == limits
    # INT8 takes something from each, and leaves most.
    assert all(0.5 < one["cosine"] < 1 for one in layers.values())
    assert all(one["precision"] == "INT8" for one in layers.values())
    assert len({one["added_noise"] for one in layers.values()}) > len(layers) / 2
    names = [one["name"] for one in found["histograms"]]
    assert max(layers.values(), key=lambda one: one["added_noise"])["name"] in names
    for one in found["histograms"]:
        values = 2
        for size in layers[one["name"]]["shape"]:
            values *= size
        assert sum(one["counts"]) == values
    # BF16 takes far less; and what was measured is not measured again.
    text = made.make("tiny.layers", "COUNT=2", *QUICK).stdout
    assert "tiny_bf16 on cv181x, 2 samples" in text
    assert not re.search(r"int8 layers .* s$", text, re.M)
    cosines = [float(value) for value in re.findall(r"in the end: .* cosine (\S+)", text)]
    assert cosines[0] < cosines[1]
