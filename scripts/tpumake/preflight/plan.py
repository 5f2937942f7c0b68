"""What is to be checked, as the Makefile writes it down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tpumake.shapes import read_shapes

__all__ = ["Plan", "numbers", "shapes"]

Shape = tuple[int, ...]


@dataclass
class Plan:
    """A model that is to be built, and from what.

    ``values`` are the stanza's, with the defaults; ``stanza`` only what it assigns. ``counts`` are
    how many files the dataset has, by suffix, and ``samples`` some of them. ``refused`` gives for
    each precision that is to be built why it can't, or nothing. ``strict``: what can't be built in
    one of them is an error, since they were asked for.
    """

    model: str
    chip: str
    version: str = "1.7"
    device: str = "recamera"
    kind: str = "ONNX"
    source: Path = Path()
    values: dict[str, str] = field(default_factory=dict)
    stanza: dict[str, str] = field(default_factory=dict)
    test_inputs: list[Path] = field(default_factory=list)
    dataset: Path | None = None
    counts: dict[str, int] = field(default_factory=dict)
    samples: list[Path] = field(default_factory=list)
    labels: Path | None = None
    refused: dict[str, str] = field(default_factory=dict)
    strict: bool = False
    validating: bool = True

    @classmethod
    def read(
        cls, document: dict, variants: Iterable[str] = (), samples: Iterable[Path] = ()
    ) -> Plan:
        """From the document that the Makefile writes, in which all is text.

        :param variants: the precisions that are asked for; if none, all that there are
        """
        plan = dict(document["plan"])
        chosen = list(variants) or [each for each, why in plan["refused"].items() if not why]
        names = ("chip", "version", "device", "kind")
        return cls(
            model=document["model"],
            **{name: plan[name] for name in names},
            source=Path(plan["source"]),
            values=plan["values"],
            stanza={key: text for key, text in document.items() if key not in ("plan", "model")},
            test_inputs=[Path(each) for each in plan["test_inputs"].split("\n") if each],
            dataset=Path(plan["dataset"]) if plan["dataset"] else None,
            counts={suffix: int(count) for suffix, count in plan["counts"].items()},
            labels=Path(plan["labels"]) if plan["labels"] else None,
            validating=plan["validating"] == "1",
            refused={each: plan["refused"][each] for each in chosen},
            strict=bool(variants),
            samples=list(samples),
        )

    def variable(self, name: str) -> str:
        """A variable's full name, as people write it."""
        return f"{self.model}_{name}"

    def value(self, name: str) -> str:
        """What a variable is; empty if it is not set."""
        return self.values.get(name, "")

    @property
    def precisions(self) -> list[str]:
        """Those that are to be built and can be."""
        return [each for each, why in self.refused.items() if not why] or ["int8"]

    @property
    def told(self) -> list[str]:
        """Those of which it is worth telling: asked for, or in the stanza."""
        if self.strict:
            return self.precisions
        return [each for each in self.precisions if each in self.value("VARIANTS").split()]

    @property
    def fused(self) -> bool:
        """Does the model take pictures as they come?"""
        return self.value("FUSE_PREPROCESS") == "1"

    @property
    def pictures(self) -> bool:
        """Is the model fed with pictures, rather than tensors?"""
        return self.value("CHANNEL_FORMAT") != "none" and not self.tensors

    @property
    def tensors(self) -> bool:
        """Are the samples, or the test inputs, tensors?"""
        suffixes = {path.suffix for path in self.test_inputs} | set(self.counts)
        return bool(suffixes & {".npz", ".npy"}) and not self.fused


def shapes(text: str) -> tuple[Shape, ...]:
    """INPUT_SHAPES as numbers; empty where it is not set, or no such thing."""
    try:
        return tuple(tuple(shape) for shape in read_shapes(text))
    except ValueError:
        return ()


def numbers(text: str) -> tuple[float, ...]:
    """MEAN or SCALE as numbers; empty if it is none."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()
