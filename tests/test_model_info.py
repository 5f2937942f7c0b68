"""What model_info tells of a model's file, on small ones that the tests make.

That it says what tpu_mlir's own model_tool says of real ones is in test_build.py (cvimodels) and
test_bmodel.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from pathlib import Path

import bmodels
import cvimodels
import jsonschema
import pytest
from bmodels import bmodel
from conftest import ROOT, Checkout, copy_project, helper, refused
from cvimodels import cvimodel

from tpumake.bmodel_reader import Binary, read_bmodel
from tpumake.errors import BadInput
from tpumake.model_info import describe, lines

VALIDATOR = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas/info.schema.json").read_text())
)
BODY = len(bmodels.flatbuffer())


def written(folder: Path, data: bytes, name: str = "m") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def info(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return helper("model_info", *arguments)


# ---------------------------------------------------------------------------------------------
# The reader of bmodels; that of cvimodels has tests of its own


def test_every_field_is_where_the_schema_has_it(tmp_path: Path) -> None:
    file = read_bmodel(written(tmp_path, bmodel()))
    model = file.model
    assert (model.type, model.chip, model.version) == ("B", "BM1684X", "2.2+v1.7")
    assert model.time == "Tue Jan  1 00:00:00 1980\n"
    assert (model.kernel_module.file_name, model.cpuop_module) == ("lib.so", None)
    assert bytes(file.bytes_of(model.kernel_module.binary)) == bmodels.MODULE
    (net,) = model.net
    (stage,) = net.parameter
    assert (net.name, net.addr_mode, stage.ctx_size, stage.core_num) == ("net", 0, 4096, 0)
    assert bytes(file.bytes_of(stage.coeff_mem.binary_coeff)) == bmodels.WEIGHTS
    assert stage.coeff_mem.check_code == hashlib.sha256(bmodels.WEIGHTS).digest()
    (image,), (out,) = stage.input_tensor, stage.output_tensor
    assert (image.name, image.data_type, image.scale, image.zero_point) == ("images", 3, 0.5, 128)
    assert (image.shape[0].dim, out.shape[0].dim, out.scale) == ((1, 3, 2, 2), (1, 2), 1.0)
    (subnet,) = stage.sub_net
    assert (subnet.id, subnet.groups()) == (-1, subnet.cmd_group)
    assert bytes(file.bytes_of(subnet.cmd_group[0].binary_gdma)) == bmodels.MOVE


def test_parts_are_told_once_and_in_their_order(tmp_path: Path) -> None:
    file = read_bmodel(written(tmp_path, bmodel(stages=[(1, 3, 2, 2), (2, 3, 2, 2)])))
    assert [(each.kind, each.name) for each in file.parts()] == [
        ("module", "lib.so"), ("weights", "net"), ("commands", "net bdc"), ("commands", "net gdma"),
    ]  # fmt: skip
    assert b"".join(bytes(file.bytes_of(each.where)) for each in file.parts()) == bmodels.BINARY


def test_commands_of_several_cores_count(tmp_path: Path) -> None:
    """tpu_mlir 1.7's own model_tool overlooks them."""
    file = read_bmodel(written(tmp_path, bmodel(cores=2)))
    assert Binary(len(bmodels.MODULE), 64) in [each.where for each in file.parts()]
    told = describe(tmp_path / "m")
    assert told["memory"]["commands"] == 2 * (len(bmodels.COMPUTE) + len(bmodels.MOVE))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bmodel()[:60], "not a bmodel"),
        (bmodel()[:64], "cut short"),
        (bmodel()[: 64 + BODY // 2], "cut short"),
        (bmodel()[:-1], "cut short"),
        (bmodel(binary=bmodels.BINARY[:-1]), "a part of it ends outside it"),
        (bmodel(header=100), "its header has 100 bytes"),
        (bmodel(body=b""), "damaged"),
        (bmodel(body=b"\xff" * 64), "damaged"),
        (bmodel(body=bmodels.flatbuffer()[:-40]), "damaged"),
        (bmodel(stages=[]), "no network in it"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said) as error:
        read_bmodel(written(tmp_path, data))
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------
# What is told


@pytest.mark.parametrize("data", [cvimodel(), bmodel(), bmodel(cores=2), cvimodel(md5=bytes(16))])
def test_the_document_follows_its_schema(tmp_path: Path, data: bytes) -> None:
    done = info(written(tmp_path, data), "--json")
    told = json.loads(done.stdout)
    VALIDATOR.validate(told)
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    assert told["size"] == len(data)


def test_a_cvimodel(tmp_path: Path) -> None:
    told = describe(written(tmp_path, cvimodel()))
    assert (told["kind"], told["name"], told["chip"]) == ("cvimodel", "net", "cv181x")
    assert (told["format_version"], told["tool_version"]) == ("1.4.0", "v1.7")
    assert told["built"] == "1980-01-01 00:00:00"
    assert told["checksum"] == {
        "algorithm": "md5", "covers": "all after the header", "right": True,
    }  # fmt: skip
    (program,) = told["programs"]
    assert [(each["name"], each["dtype"], each["shape"], each["scale"]) for each in
            program["inputs"] + program["outputs"]] == [
        ("images", "uint8", [1, 3, 8, -1], 0.5), ("out", "uint8", [1, 3, 8, -1], 1.0)
    ]  # fmt: skip
    assert [(each["kind"], each["size"], each["md5"]) for each in told["parts"]] == [
        ("weights", 64, hashlib.md5(cvimodels.WEIGHTS).hexdigest()),
        ("commands", 100, hashlib.md5(cvimodels.COMMANDS).hexdigest()),
    ]


def test_a_cvimodels_memory_counts_inputs_and_outputs_where_they_have_their_own(
    tmp_path: Path,
) -> None:
    tensors = [("images", 3 << 40, 0.5), ("hidden", 16, 1.0), ("private", 2 << 40, 1.0),
               ("nowhere", -1, 1.0)]  # fmt: skip
    body = cvimodels.flatbuffer(tensors=tensors, dims=(1, 3, 4, 5))
    memory = describe(written(tmp_path, cvimodel(body)))["memory"]
    assert memory == {
        "total": 64 + 100 + 4096 + 512 + 60, "weights": 64, "commands": 100, "host": 0,
        "runtime": 4096 + 512 + 60, "private": 512, "shared": 4096, "io": 60,
    }  # fmt: skip


def test_a_bmodel(tmp_path: Path) -> None:
    told = describe(written(tmp_path, bmodel()))
    assert (told["kind"], told["name"], told["chip"]) == ("bmodel", "net", "bm1684x")
    assert (told["format_version"], told["tool_version"]) == ("2.2", "v1.7")
    assert told["built"] == "1980-01-01 00:00:00"
    assert told["checksum"] == {"algorithm": "sha256", "covers": "weights", "right": True}
    (program,) = told["programs"]
    assert program["inputs"] == [
        {"name": "images", "shape": [1, 3, 2, 2], "dtype": "uint8", "scale": 0.5,
         "zero_point": 128, "size": 48},
    ]  # fmt: skip
    # The buffer that inputs and outputs pass through has four bytes an element, here twelve.
    assert told["memory"] == {
        "total": 64 + 110 + 4096 + 48, "weights": 64, "commands": 110, "host": 0,
        "runtime": 4096 + 48,
    }  # fmt: skip


def test_every_stage_is_a_program_and_weights_they_share_count_once(tmp_path: Path) -> None:
    told = describe(written(tmp_path, bmodel(stages=[(1, 3, 2, 2), (4, 3, 2, 2)])))
    shapes = [(each["stage"], each["inputs"][0]["shape"][0]) for each in told["programs"]]
    assert shapes == [(0, 1), (1, 4)]
    assert (told["memory"]["weights"], told["memory"]["commands"]) == (64, 220)
    assert told["memory"]["runtime"] == 4096 + 4 * 48


def test_the_text_has_it_all(tmp_path: Path) -> None:
    text = "\n".join(lines(describe(written(tmp_path, bmodel()))))
    for said in ("bm1684x", "1980-01-01 00:00:00", "v1.7", "weights 64, commands 110",
                 "right (SHA256 of weights)", "1x3x2x2  0.5    128", "lib.so"):  # fmt: skip
        assert said in text
    assert "programs       1" in text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (cvimodel(md5=bytes(16)), "the MD5 of all after the header is another"),
        (cvimodel()[:-1] + b"x", "the MD5 of all after the header is another"),
        (bmodel(check_code=bytes(32)), "the SHA256 of weights is another"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_wrong_checksum_is_told_and_the_exit_code_is_1(
    tmp_path: Path, data: bytes, said: str, flags: tuple[str, ...]
) -> None:
    done = info(written(tmp_path, data), *flags)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert '"right": false' in done.stdout if flags else "WRONG" in done.stdout


def test_weights_without_a_digest_are_not_called_right(tmp_path: Path) -> None:
    done = info(written(tmp_path, bmodel(check_code=b"")))
    assert done.returncode == 0
    assert "checksum       there is none" in done.stdout


def test_a_terminal_gets_no_orders_from_a_file(tmp_path: Path) -> None:
    body = cvimodels.flatbuffer(name="net\x1b[2J\r\n")
    said = info(written(tmp_path, cvimodel(body))).stdout
    assert "\x1b" not in said
    assert "net�[2J��, a cvimodel" in said


# ---------------------------------------------------------------------------------------------
# Other files


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither a cvimodel nor a bmodel"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither a cvimodel nor a bmodel"),
        (cvimodel()[:100], "cut short"),
        (bmodel()[:100], "cut short"),
    ],
)
def test_what_is_no_model_is_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = written(tmp_path, data)
    assert said in refused(info(path))
    assert str(path) in refused(info(path, "--json"))


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    assert "there is no such file" in refused(info(tmp_path / "m.cvimodel"))
    assert "not a file" in refused(info(tmp_path))
    assert "not a file" in refused(info("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refused(info(tmp_path / "pipe"))


def test_a_damaged_shape_is_one_line(tmp_path: Path) -> None:
    body = cvimodels.flatbuffer(tensors=[("images", 3 << 40, 1.0)], dims=[1 << 62] * 500)
    assert "more elements than any memory" in refused(info(written(tmp_path, cvimodel(body))))


@pytest.mark.slow
def test_lists_of_lists_of_themselves_end(tmp_path: Path) -> None:
    """Three hundred programs have three hundred tensors each, and they are the same ones."""
    tensors = [(f"t{index}", 0, 1.0) for index in range(300)]
    data = cvimodel(cvimodels.flatbuffer(tensors=tensors, programs=300))
    assert "more than fits into it" in refused(info(written(tmp_path, data)))


@pytest.mark.parametrize("kind", ["cvimodel", "bmodel"])
@pytest.mark.parametrize("damage", ["bytes", "bits", "ends"])
def test_no_damage_leads_to_anything_but_one_line(tmp_path: Path, kind: str, damage: str) -> None:
    generator = random.Random(f"{kind} {damage}")
    good = cvimodel() if kind == "cvimodel" else bmodel()
    told = 0
    for _ in range(120):
        data = bytearray(good)
        if damage == "ends":
            del data[generator.randrange(len(data)) :]
        for _ in range(0 if damage == "ends" else generator.randint(1, 6)):
            place = generator.randrange(len(data))
            bit = 1 << generator.randrange(8)
            data[place] = data[place] ^ bit if damage == "bits" else generator.randrange(256)
        try:
            document = describe(written(tmp_path, bytes(data)))
        except BadInput as error:
            assert "\n" not in str(error)
            told += 1
            continue
        VALIDATOR.validate(document)
        json.dumps(document, allow_nan=False)
        assert lines(document)
    assert told > 10


# ---------------------------------------------------------------------------------------------
# In the Makefile


@pytest.mark.slow
def test_make_tells_of_any_file(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "check out")
    path = written(tmp_path, cvimodel(), "some one's.cvimodel")
    assert "cv181x" in project.make("info", f"FILE={path}").stdout
    told = json.loads(project.make("info", f"FILE={path}", "JSON=1").stdout)
    assert told["file"] == "some one's.cvimodel"
    home = project.make("info", "FILE=~/some one's.cvimodel", HOME=str(tmp_path))
    assert "cv181x" in home.stdout
    assert_one_line(project, "info", said="make info FILE=")
    assert_one_line(project, "info", "FILE=no/such", said="no/such: there is no such file")
    assert_one_line(project, "tiny_f16.info", said="there is no tiny_f16.info")


def assert_one_line(project: Checkout, *arguments: str, said: str) -> None:
    done = project.make(*arguments, check=False)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(told) == 1
    assert said in told[0]
