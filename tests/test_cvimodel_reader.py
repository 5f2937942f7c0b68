"""The reader of cvimodels, on small ones that a test makes; test_build.py has a real one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cvimodels import COMMANDS, WEIGHTS, cvimodel, flatbuffer

from tpumake.cvimodel_reader import DType, Section, SectionType, read_cvimodel
from tpumake.errors import BadInput


def read(folder: Path, data: bytes):
    path = folder / "m.cvimodel"
    path.write_bytes(data)
    return read_cvimodel(path)


def test_every_field_is_where_the_schema_has_it(tmp_path: Path) -> None:
    file = read(tmp_path, cvimodel())
    assert (file.header.major, file.header.minor, file.header.chip) == (1, 4, "cv181x")
    assert file.header.body_size == len(file.flatbuffer)
    model = file.model
    assert model.version == (1, 4, 0)
    assert (model.name, model.build_time) == ("net", "1980-01-01 00:00:00")
    assert (model.target, model.mlir_version) == ("cv181x", "v1.7")
    assert model.preprocess_hints is None
    weight, bias = model.weight_map
    assert (weight.name, weight.start, weight.size, weight.type) == ("conv.weight", 0, 48, 6)
    assert (bias.start, bias.shape.dim) == (48, (1, 16))
    (program,) = model.programs
    assert program.input_tensors == ("images",)
    assert program.output_tensors == ("out",)
    assert (program.shared_gmem, program.private_gmem, program.batch_num) == (4096, 512, 0)
    assert program.routines[0].tpu_routine.cmdbuf_section == "subfunc_0"
    images, out = program.tensor_map
    assert (images.name, images.dtype, images.aligned) == ("images", DType.UINT8, True)
    assert images.shape.dim == (1, 3, 8, -1)
    assert (out.offset, out.quant.qscale, out.stride, out.scale) == (16, 1.0, None, ())
    assert model.sections[1] == Section(SectionType.CMDBUF, "subfunc_0", 100, 64)


def test_sections_are_cut_out_of_what_follows_the_flatbuffer(tmp_path: Path) -> None:
    file = read(tmp_path, cvimodel())
    assert [file.section(each) for each in file.model.sections] == [WEIGHTS, COMMANDS]


def test_a_type_of_a_later_version_stands_for_itself(tmp_path: Path) -> None:
    file = read(tmp_path, cvimodel(sections=[(77, "new", 4, 0)]))
    assert file.model.sections[0].type == 77


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a cvimodel"),
        (b"CviModel", "not a cvimodel"),
        (cvimodel()[:200], "cut short"),
        (cvimodel()[:-1], "cut short, a section ends outside it"),
        (cvimodel(version=(1, 0)), "version 1.0; 1.1 is the oldest"),
        (cvimodel(body=b""), "damaged"),
        (cvimodel(body=b"\xff" * 64), "damaged"),
        (cvimodel(body=flatbuffer()[:-40]), "damaged"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said) as error:
        read(tmp_path, data)
    assert "\n" not in str(error.value)
    assert "m.cvimodel" in str(error.value)


@pytest.mark.slow
def test_no_damage_leads_to_anything_but_that(tmp_path: Path) -> None:
    generator = random.Random(7)
    good = cvimodel()
    for _ in range(500):
        data = bytearray(good)
        for _ in range(generator.randint(1, 6)):
            data[generator.randrange(48, 48 + len(flatbuffer()))] = generator.randrange(256)
        try:
            read(tmp_path, bytes(data))
        except BadInput as error:
            assert "m.cvimodel" in str(error)
