"""What a maintainer would ask for about a failed build, in one archive.

Stanza, versions, keys, logs, the network in tpu_mlir's form, tables. Weights and pictures are
somebody's own and only go in where that is asked for. The same files make the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tpumake.errors import BadInput
from tpumake.files import atomic_write

__all__ = ["Entry", "Subject", "collect", "last_failure", "pack", "private_paths", "versions"]

# Times in the archive: the earliest that the format has.
EPOCH = (1980, 1, 1, 0, 0, 0)
WORDS = ("weights", "pictures")
# What the stages of a chip that belong to every variant are called.
SHARED = ("qtable", "float")


class Subject(NamedTuple):
    """What the report is about; no variant is all of them, no chip none."""

    model: str
    chip: str = ""
    variant: str = ""

    @property
    def name(self) -> str:
        """How the target is called."""
        return f"{self.model}_{self.variant}" if self.variant else self.model


class Entry(NamedTuple):
    """A file of the archive: a place on the disk, or a text; ``own`` texts are rid of paths."""

    name: str
    place: Path | None = None
    text: str = ""
    own: bool = True


def last_failure(build: Path, sets: dict[str, str]) -> Subject:
    """What failed last, of what has not succeeded since.

    :param sets: the models' datasets, by model
    :raises BadInput: if nothing did
    """
    notes = sorted(build.glob("**/logs/*.failed"), key=lambda path: (path.stat().st_mtime, path))
    if not notes:
        raise BadInput("no stage has failed; name a target: make <model>_<variant>.bugreport")
    *folders, _, name = notes[-1].relative_to(build).parts
    variant = Path(name).stem.partition(".")[0]
    if folders == ["datasets"]:
        users = [model for model, used in sets.items() if used == Path(name).stem]
        return Subject(users[0] if users else "datasets")
    if len(folders) > 1:
        return Subject(folders[0], folders[1], "" if variant in SHARED else variant)
    return Subject(folders[0])


def collect(
    build: Path, subject: Subject, dataset: str, network: Path | None, wanted: Iterable[str]
) -> list[Entry]:
    """The files of a report, but for what is said of the host.

    :param dataset: the name of the model's set of pictures
    :param network: the file that the stanza names
    :param wanted: ``weights``, ``pictures``
    :raises BadInput: if there is nothing of the model
    """
    m, chip = build / subject.model, build / subject.model / subject.chip
    named = [m / f"{subject.model}.mlir", m / f"{subject.model}_calib_table"]
    named += sorted([*m.glob("*.parameters"), *m.glob("logs/*")])
    if subject.chip:
        named += sorted(
            path
            for path in [*chip.glob("*.parameters"), *chip.glob("logs/*"), *chip.glob("*_table*"),
                         *chip.glob("*_qtable")]
            if _is_of(path, subject)
        )  # fmt: skip
    if dataset:
        named.append(build / "datasets" / f"{dataset}.parameters")
        named += sorted(build.glob(f"datasets/logs/{dataset}.*"))
    found = [
        Entry(str(path.relative_to(build)), path)
        for path in named
        if path.is_file() and path.suffix != ".lock"
    ]
    if not any(entry.name.startswith(f"{subject.model}/") for entry in found):
        raise BadInput(f"there is nothing of {subject.name} in {build}; make it first")
    large = []
    if "weights" in wanted:
        large += sorted([*m.glob("*_v8.onnx"), *m.glob("*_imported.onnx"), *m.glob("*_weight.npz")])
    if "pictures" in wanted:
        large += sorted([*m.glob("*_in_f32.npz"), *(build / "datasets" / dataset).glob("*")])
    found += [
        Entry(str(path.relative_to(build)), path, own=False) for path in large if path.is_file()
    ]
    if network is not None and network.is_file():
        if "weights" in wanted:
            found.append(Entry(f"network/{network.name}", network, own=False))
        else:
            found.append(Entry("network.txt", text=_listing(network)))
    return found


def _is_of(path: Path, subject: Subject) -> bool:
    """Whether a file of a chip's folder is about the variant; keys and logs have its name."""
    if not subject.variant or path.suffix not in (".log", ".key", ".failed", ".parameters"):
        return True
    return path.name.partition(".")[0] in (subject.variant, *SHARED)


def _listing(network: Path) -> str:
    """An ONNX network without its weights, a line a node; why there is none where there is none."""
    try:
        import onnx

        model = onnx.load(network, load_external_data=False)
    except Exception as error:
        return f"{network.suffix} of {network.stat().st_size} bytes, not read: {error}\n"
    return "\n".join(_lines(model)) + "\n"


def _lines(model) -> Iterator[str]:
    versions = ", ".join(
        f"{each.domain or 'ai.onnx'} {each.version}" for each in model.opset_import
    )
    yield f"IR {model.ir_version}, opset {versions}, by {model.producer_name or '?'}"
    graph = model.graph
    for kind, tensors in (("input", graph.input), ("output", graph.output)):
        for each in tensors:
            dims = [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
            yield f"{kind} {each.name} {each.type.tensor_type.elem_type} {dims}"
    for each in graph.initializer:
        yield f"weight {each.name} {each.data_type} {list(each.dims)}"
    for each in graph.node:
        attributes = ", ".join(_attribute(one) for one in each.attribute)
        yield (
            f"{each.domain or ''}{each.op_type}({', '.join(each.input)}) → "
            f"{', '.join(each.output)}  {attributes}"
        )


def _attribute(attribute) -> str:
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    is_short = isinstance(value, (int, float, bytes)) or (
        isinstance(value, (list, tuple)) and all(isinstance(one, (int, float)) for one in value)
    )
    return f"{attribute.name}={value}" if is_short else attribute.name


def versions(locks: Iterable[Path], environments: Iterable[Path], make: str) -> Entry:
    """What the host is, what was installed from which locks, and which tpumake this is."""
    release = Path("/etc/os-release")
    names = (
        re.search(r'^PRETTY_NAME="?([^"\n]*)', release.read_text(), re.M)
        if release.exists()
        else None
    )
    cpu = re.search(r"^model name\s*: (.*)", _read(Path("/proc/cpuinfo")), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", _read(Path("/proc/meminfo")), re.M)
    document = {
        "tpumake": _commit(),
        "system": names[1] if names else "?",
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
        "processors": f"{os.cpu_count()} of {cpu[1] if cpu else '?'}",
        "memory": int(memory[1]) * 1024 if memory else None,
        "python": platform.python_version(),
        "make": make,
        "locks": {path.name: _digest(path) for path in sorted(locks)},
        "environments": {str(path): _digest(path) for path in sorted(environments)},
    }
    return Entry("versions.json", text=json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _commit() -> str:
    """The checkout's commit, and whether files differ from it; of a copy without Git, that."""
    with suppress(OSError):
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not done.returncode:
            return done.stdout.strip()
    return "not a checkout of Git"


def private_paths(places: dict[str, Path]) -> list[tuple[re.Pattern[bytes], bytes]]:
    """What is put in place of which paths: the checkout is ., the home folder ~.

    :param places: others, by what they are to be called
    """
    given = {".": Path.cwd(), "~": Path.home()} | places
    known = {
        os.fsencode(form): name
        for name, path in given.items()
        for form in (path.absolute(), path.resolve())
        if len(form.parts) > 1
    }
    # The longest first: the checkout may be in the home folder.
    return [
        (re.compile(rb"(?<![\w.~-])" + re.escape(form) + rb"(?![\w.-])"), known[form].encode())
        for form in sorted(known, key=len, reverse=True)
    ]


def pack(
    entries: Iterable[Entry], target: Path, hidden: list[tuple[re.Pattern[bytes], bytes]]
) -> list[tuple[str, int]]:
    """Write the archive; gives the files that are in it, with their sizes in bytes.

    :param hidden: what :func:`private_paths` gave
    :raises OSError: the disk is full, for instance
    """
    told = []
    with atomic_write(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for entry in sorted(entries):
            info = zipfile.ZipInfo(entry.name, EPOCH)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            if entry.own:
                content = entry.place.read_bytes() if entry.place else entry.text.encode()
                for pattern, name in hidden:
                    content = pattern.sub(name, content)
                archive.writestr(info, content)
            elif entry.place:
                # Weights may be larger than the memory.
                with (
                    entry.place.open("rb") as source,
                    archive.open(info, "w", force_zip64=True) as copy,
                ):
                    shutil.copyfileobj(source, copy, 1 << 20)
            told.append((entry.name, archive.getinfo(entry.name).file_size))
    return told
