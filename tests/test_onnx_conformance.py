"""The downgrade measured on ONNX's own node tests.

The standard brings a small model with input and expected output for every operator. Those that
need an opset above 17, and that onnxruntime runs and gets right as they are, are the population.
Each is taken to opset 17 and IR 8 and must then still give what the standard expects.
"""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.runner import Runner

from tpumake import onnx_io
from tpumake.downgrade import CannotExpress, downgrade

pytestmark = pytest.mark.slow

OLD = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 26)
"""onnxruntime 1.23, the last for Python 3.10, ends at opset 23 and runs fewer of the tests."""

POPULATION = 650 if OLD else 800
"""Fewer tests than this can't be the standard's; onnx 1.23 with onnxruntime 1.31 has 809."""

SAME = 642 if OLD else 787
"""How many are known to stay the same. Only ever raise it."""

REFUSED = {"StringSplit", "StringConcat", "RegexFullMatch", "BitCast", "Equal"}
"""The operators (Equal: of strings) that opset 17 has no words for."""


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def agrees(model, case):
    """Does the model give what the test expects, within the test's own tolerance?"""
    runner = session(model)
    names = [value.name for value in runner.get_inputs()]
    for inputs, outputs in case.data_sets:
        found = runner.run(None, dict(zip(names, inputs, strict=True)))
        Runner.assert_similar_outputs(outputs, found, case.rtol, case.atol)
    return True


def passes(model, case):
    try:
        return agrees(model, case)
    except Exception:
        return False


@pytest.fixture(scope="module")
def population():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return [
        case for case in cases if onnx_io.opset_of(case.model) > 17 and passes(case.model, case)
    ]


def lowered(case, tmp_path):
    """The model after the journey through files that the helper takes it on."""
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    source.write_bytes(case.model.SerializeToString())
    network = onnx_io.load(source)
    downgrade(network)
    onnx_io.save(network, target)
    onnx.checker.check_model(str(target), full_check=True)
    model = onnx.load(target)
    assert onnx_io.opset_of(model) <= 17
    assert model.ir_version <= 8
    return model


def outcome(case, tmp_path: Path):
    try:
        model = lowered(case, tmp_path)
    except CannotExpress as error:
        return "refused", str(error)
    except Exception as error:
        return "wrong", f"{case.name}: {error!r}"
    try:
        agrees(model, case)
    except Exception as error:
        return "wrong", f"{case.name}: {error!r}"
    return "same", ""


def test_node_tests_of_the_standard(population, tmp_path, record_property):
    assert len(population) >= POPULATION
    results = [outcome(case, tmp_path) for case in population]
    counts = Counter(kind for kind, _ in results)
    record_property(
        "figure",
        f"{len(population)} node tests above opset 17, taken to 17: "
        f"{counts['same']} same, {counts['refused']} refused, {counts['wrong']} wrong",
    )
    assert not [text for kind, text in results if kind == "wrong"]
    refused = {text.split()[2] for kind, text in results if kind == "refused"}
    assert refused <= REFUSED
    assert counts["same"] >= SAME


def test_the_measurement_can_fail(population, tmp_path):
    """Overwriting the version numbers, as a script for this job does, must not count as same."""
    case = next(case for case in population if case.name.startswith("test_split_equal"))
    relabelled = onnx.ModelProto()
    relabelled.CopyFrom(case.model)
    relabelled.opset_import[0].version, relabelled.ir_version = 17, 8
    assert passes(case.model, case)
    assert not passes(relabelled, case)
