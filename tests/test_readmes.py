"""The translated READMEs are in step with the English one: commands, figures, links.

What is compared is what a reader would paste or rely on; words are left to people who read them. A
translation has no command, code or figure that the English one lacks. It has all commands of that
one's first block and of its table of what can be built, and all figures of what is needed.
"""

from __future__ import annotations

import re
import shlex
from functools import lru_cache
from urllib.parse import unquote

import pytest
from conftest import ROOT, Checkout

ENGLISH = "README.md"
TRANSLATIONS = ("README.zh.md", "README.es.md")
READMES = (ENGLISH, *TRANSLATIONS)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)]*)\)")
# A number with what it counts, or of a version. No \b: Chinese letters are word characters, too.
NUMBER = r"(?<![A-Za-z0-9.])\d+(?:\.\d+)*(?![A-Za-z0-9])"
COUNTED = re.compile(rf"({NUMBER})\s*(MB|GB|%)")
VERSION = re.compile(rf"(Python|glibc|Make|Ubuntu|tpu_mlir|opset|IR)\s*[≥≤]?\s*({NUMBER})")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def shell(text: str) -> list[str]:
    """The commands of the blocks marked as `sh`, without comments, which are translated."""
    lines = "".join(block for kind, block in FENCE.findall(text) if kind == "sh").splitlines()
    bare = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in lines]
    return [line for line in bare if line]


def shown(text: str) -> list[str]:
    """The lines of all other blocks: output, which is no one's to translate, and stanzas."""
    return "".join(block for kind, block in FENCE.findall(text) if kind != "sh").splitlines()


def spans(text: str) -> set[str]:
    """What stands in code between words."""
    return set(SPAN.findall(FENCE.sub("", text)))


def first(text: str) -> list[str]:
    """The commands of the first block: from nothing to a model."""
    return shell(FENCE.search(text)[0])


def table(text: str) -> list[str]:
    """The commands in the first column of the first table: what can be built."""
    rows = re.search(r"^\|.*?\n\n", FENCE.sub("", text) + "\n", re.M | re.S)[0].split("\n")[2:-2]
    return [span for row in rows for span in SPAN.findall(row.split("|")[1])]


def figures(text: str) -> set[tuple[str, str]]:
    """Counts and versions of the prose: ("MB", "435"), ("glibc", "2.35")."""
    prose = SPAN.sub("", FENCE.sub("", text))
    return {(unit, number) for number, unit in COUNTED.findall(prose)} | set(VERSION.findall(prose))


def numbers(text: str) -> set[str]:
    return set(re.findall(NUMBER, LINK.sub("", SPAN.sub("", FENCE.sub("", text)))))


def needed(text: str) -> str:
    """The prose between the second heading and the first block: what has to be there."""
    return re.search(r"^## .*?(?=^```)", text, re.M | re.S)[0]


def links(text: str) -> list[str]:
    """Those into the project."""
    return [unquote(to.split("#")[0]) for to in LINK.findall(FENCE.sub("", text)) if ":" not in to]


def out_of_step(translation: str, english: str) -> list[str]:
    """What a translation has that the English README lacks, and the other way round."""
    return [
        *(f"command: {it}" for it in set(shell(translation)) - set(shell(english))),
        *(f"shown: {it}" for it in set(shown(translation)) - set(shown(english))),
        *(f"code: {it}" for it in spans(translation) - spans(english)),
        *(f"figure: {it}" for it in figures(translation) - figures(english)),
        *(f"number: {it}" for it in numbers(translation) - numbers(english)),
        *(f"lacks: {it}" for it in first(english) if it not in first(translation)),
        *(f"lacks: {it}" for it in table(english) if it not in table(translation)),
        *(f"lacks: {it}" for it in figures(needed(english)) - figures(needed(translation))),
    ]


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_a_translation_is_in_step(name: str) -> None:
    assert out_of_step(read(name), read(ENGLISH)) == []
    assert table(read(name)) == table(read(ENGLISH)), "in another order"


@pytest.mark.parametrize("name", TRANSLATIONS)
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("make yolo11n_int8  ", "make yolo12n_int8  ", "command: make yolo12n_int8"),
        ("make yolo11n_int8  ", "", "lacks: make yolo11n_int8"),
        ("`make yolo11n_mix`", "`make yolo11n_mixed`", "lacks: make yolo11n_mix"),
        ("`make tiny`", "", "lacks: make tiny"),
        ("`make gate_int8`", "`make gate_bf16`", "code: make gate_bf16"),
        ("`VALIDATE=0`", "`VALIDATE=no`", "code: VALIDATE=no"),
        ("gate_PIXEL_FORMAT = rgb", "gate_PIXEL_FORMAT = bgr", "shown: gate_PIXEL_FORMAT = bgr"),
        ("0.9871054", "0.99", "shown: yolo11n  int8"),
        ("435 MB", "436 MB", "figure: ('MB', '436')"),
        ("435 MB", "", "lacks: ('MB', '435')"),
        ("glibc ≥ 2.35", "glibc ≥ 3.10", "figure: ('glibc', '3.10')"),
        ("640×640", "320×320", "number: 320"),
    ],
)
def test_a_translation_that_went_astray_is_noticed(
    name: str, old: str, new: str, told: str
) -> None:
    astray = read(name).replace(old, new)
    assert astray != read(name), "nothing was changed: this test is out of step itself"
    assert any(it.startswith(told) for it in out_of_step(astray, read(ENGLISH)))


@pytest.mark.parametrize("name", READMES)
def test_links_lead_somewhere(name: str) -> None:
    linked = links(read(name))
    assert {*READMES, "docs/guides.md"} - {name} <= set(linked)
    assert [to for to in linked if not (ROOT / to).exists()] == []


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_a_translation_is_short(name: str) -> None:
    assert len(read(name).splitlines()) <= 80


def test_the_commands_are_those_of_the_makefile() -> None:
    text = read(ENGLISH)
    prompted = [line.removeprefix("$ ") for line in shown(text) if line.startswith("$ ")]
    commands = {it for it in [*shell(text), *spans(text), *prompted] if it.startswith("make ")}
    assert len(commands) > 20
    strange = [(it, unknown(shlex.split(it)[1:], text)) for it in sorted(commands)]
    assert [each for each in strange if each[1]] == []


def test_a_command_that_the_makefile_does_not_know_is_noticed() -> None:
    text = read(ENGLISH)
    assert unknown(["tiny_int8.infos"], text) == ["tiny_int8.infos"]
    assert unknown(["tiny_f16", "-k"], text) == ["tiny_f16"]
    assert unknown(["tiny", "tiny_MAEN=0", "VALID=0"], text) == ["tiny_MAEN=0", "VALID=0"]


@lru_cache
def make(*words: str) -> str:
    return Checkout(ROOT).make(*words).stdout


def unknown(words: list[str], readme: str) -> list[str]:
    """Words of a make command that `make help` and `make list`, with its knobs, don't tell of."""
    knobs = [word for word in words if word.startswith(("STANZAS=", "CHIP="))]
    told = make("help", *knobs)
    models = [line.split(":")[0] for line in make("list", *knobs).splitlines()]
    # The reader's own, which the README shows how to add.
    models += re.findall(r"call model,(\w+)", readme)
    variants = re.search(r"^Variants: ([^(]+)", told, re.M)[1].split()
    products = [*models, *(f"{model}_{variant}" for model in models for variant in variants)]
    suffixes = re.findall(r"MODEL(?:_VARIANT)?\.(\w+)", told)
    targets = {
        *("help", *re.findall(r"make ([a-z][\w-]*)", told), *products),
        *(f"{product}.{suffix}" for product in products for suffix in suffixes),
    }
    names = {
        *re.findall(r"\b([A-Z]\w*)=", told),
        *(f"{model}_{name}" for model in models for name in re.findall(r"<model>_(\w+)", told)),
    }
    given = [word for word in words if not word.startswith("-")]
    return [word for word in given if word.split("=")[0] not in (names if "=" in word else targets)]
