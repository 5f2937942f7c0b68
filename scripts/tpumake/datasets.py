"""Make a calibration folder of pictures or tensor samples: find, choose, check, write.

Which files are taken depends on their contents and the seed alone: files are ordered by
SHA-256(seed ":" SHA-256(contents)), and the first that are usable are taken and numbered in this
order. So neither names nor the order of listing matter, one file more or less changes at most one
of those taken, and the first ten of a hundred are the ten that ``count`` 10 gives. A list may be
taken in its own order instead. Where a line of it names several files, they are one sample, a file
for each input of the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tpumake.errors import BadInput
from tpumake.folders import replace_folder
from tpumake.lists import read_list
from tpumake.pictures import UnusableError, looks_like_picture, prepare
from tpumake.samples import Inputs, check_sample

__all__ = ["MANIFEST", "Choice", "make_dataset", "printable"]

MANIFEST = "manifest.json"
SCHEMA = "dataset_manifest.schema.json"

# A file that is no picture is worth a word if its name promises one; labels and notes are not.
_ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"))
_PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".img", ".webp", ".tif", ".tiff")
_MORE_PICTURES = (".gif", ".ppm", ".pgm", ".pbm", ".jp2", ".avif", ".heic", ".heif", ".tga", ".svg")
_PROMISING = _ARCHIVES | {"", ".npy", ".npz", *_PICTURES, *_MORE_PICTURES}
_NOTES = frozenset((".txt", ".json", ".yaml", ".yml", ".xml", ".csv", ".md", ".html"))
_CLUTTER = frozenset(("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"))

Progress = Callable[[int, int], None]


class Choice(NamedTuple):
    """How many samples are wanted, how few will do, and what decides which: seed, or list."""

    count: int
    least: int
    seed: int
    in_order: bool = False


class Source(NamedTuple):
    """A file that may be taken. ``kind`` is "picture", ".npy" or ".npz"."""

    name: str
    path: Path
    kind: str
    sha256: str


class Sample(NamedTuple):
    """What is taken together: a file for each input, or one."""

    sources: tuple[Source, ...]
    place: int

    @property
    def name(self) -> str:
        """The names of its files, as a list has them."""
        return ",".join(source.name for source in self.sources)

    @property
    def sha256(self) -> str:
        """That of its file; of several, that of their digests."""
        if len(self.sources) == 1:
            return self.sources[0].sha256
        return hashlib.sha256(",".join(one.sha256 for one in self.sources).encode()).hexdigest()


def make_dataset(
    source: Path,
    target: Path,
    choice: Choice,
    inputs: Inputs | None = None,
    progress: Progress = lambda done, total: None,
) -> dict:
    """Fill the folder ``target`` from ``source``, a folder or a list file; give the manifest.

    ``inputs``: the model's, which samples must fit. Everything in ``target`` is replaced. If it
    holds anything that isn't from here, if the two overlap, or if too few files are usable,
    BadInput is raised and ``target`` stays as it is.
    """
    found = _listed(source) if source.is_file() else _walked(source)
    _check_apart(source, target, found.files)
    _check_own(target)
    samples = _hashed(found, progress, extra=choice.count)
    kind = _one_kind((one for each in samples for one in each.sources), printable(source))
    _one_length(samples, inputs, printable(source))
    unique, duplicates = _without_duplicates(samples, choice.in_order)
    if not choice.in_order:
        unique.sort(key=lambda one: _rank(one.sha256, choice.seed))
    looked_into, total = len(found.files), len(found.files) + min(choice.count, len(unique))
    with replace_folder(target.resolve()) as folder:
        files, count = [], 0
        waiting = iter(unique)
        for entries in _usable(waiting, choice.count, inputs, found.left_out, folder):
            files += entries
            count += 1
            progress(looked_into + count, total)
        manifest = {
            "$schema": SCHEMA,
            "kind": "pictures" if kind == "picture" else "samples",
            "seed": choice.seed,
            "wanted": choice.count,
            "count": count,
            "files": files,
            "left_out": sorted(found.left_out, key=lambda one: _by_name(one["source"])),
            "duplicates": duplicates,
            "not_needed": len(list(waiting)),
            "other_files": found.others,
        }
        if count < choice.least:
            raise BadInput(_too_few(printable(source), manifest, choice.least))
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    progress(total, total)
    return manifest


def printable(name: Path | str) -> str:
    """A name that may hold line breaks or stray bytes, as text for one line and for JSON."""
    text = os.fsencode(str(name)).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


@dataclass
class _Found:
    """Samples to look into; those already left out; how many files are none.

    A sample is (shown name, path) of each of its files.
    """

    samples: list[list[tuple[str, Path]]] = field(default_factory=list)
    left_out: list[dict] = field(default_factory=list)
    others: int = 0

    @property
    def files(self) -> list[tuple[str, Path]]:
        return [file for sample in self.samples for file in sample]

    def leave_out(self, name: str, reason: str) -> None:
        self.left_out.append({"source": name, "reason": reason})


def _walked(root: Path) -> _Found:
    """All files below ``root``; links are followed, each folder is entered once."""
    if not root.is_dir():
        raise BadInput(f"{printable(root)}: there is no such folder or list of pictures")
    found = _Found()
    seen: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        name = printable(os.path.relpath(error.filename, root))
        found.leave_out(name, f"can't be opened: {error.strerror}")

    for folder, folders, names in os.walk(root, followlinks=True, onerror=failed):
        info = Path(folder).stat()
        # Marked on the way down: a link back up, or a second way in, ends here.
        if (info.st_dev, info.st_ino) in seen:
            folders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        # The order decides by which of two ways a linked folder is entered first.
        folders[:] = sorted(filter(_in_sight, folders), key=_by_name)
        for name in sorted(filter(_in_sight, names), key=_by_name):
            path = Path(folder) / name
            found.samples.append([(printable(path.relative_to(root)), path)])
    return found


def _listed(path: Path) -> _Found:
    """The samples that a list names, one in a line; relative to the list's folder."""
    head = path.open("rb").read(4096)
    if looks_like_picture(head) or b"\0" in head:
        raise BadInput(
            f"{printable(path)}: give a folder of pictures, or a text file that lists them"
        )
    found = _Found()
    for line in read_list(path):
        # A manifest must not depend on where the tree lies.
        shown = [
            Path(name).name if Path(name).is_absolute() else os.path.normpath(name)
            for name in line.names
        ]
        found.samples.append(list(zip(map(printable, shown), line.paths, strict=True)))
    return found


def _in_sight(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _CLUTTER


def _by_name(name: str) -> str:
    # Composed, as the same name is stored otherwise on macOS.
    return unicodedata.normalize("NFC", name)


def _hashed(found: _Found, progress: Progress, extra: int) -> list[Sample]:
    """The samples that may be taken. The rest is left out with a reason, or counted."""
    samples = []
    with ThreadPoolExecutor(_workers()) as pool:
        results = pool.map(lambda files: [_look_into(*one) for one in files], found.samples)
        for index, (files, looked) in enumerate(zip(found.samples, results, strict=True), 1):
            sources = [result for result in looked if isinstance(result, Source)]
            if len(sources) == len(files):
                samples.append(Sample(tuple(sources), index))
            for (name, _), result in zip(files, looked, strict=True):
                if isinstance(result, str):
                    found.leave_out(name, result)
                elif result is None:
                    found.others += 1
            progress(index, len(found.files) + extra)
    return samples


def _look_into(name: str, path: Path) -> Source | str | None:
    """A source, or why the file is left out, or None if nobody would take it for a picture."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Opening a pipe would wait for ever.
            return "not a file"
        with path.open("rb") as file:
            head = file.read(4096)
            kind = _kind(head, path.suffix.lower())
            if not kind:
                return _why_not(head, path.suffix.lower())
            file.seek(0)
            return Source(name, path, kind, _digest(file))
    except FileNotFoundError:
        return "leads nowhere" if path.is_symlink() else "there is no such file"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except ValueError:  # a list may name a null byte
        return "no file can be called so"


def _kind(head: bytes, suffix: str) -> str | None:
    # By name too: training tools leave caches of the same format beside the pictures.
    if head.startswith(b"\x93NUMPY") and suffix in (".npy", ""):
        return ".npy"
    if head.startswith(b"PK\x03\x04") and (suffix == ".npz" or b".npy" in head[:256]):
        return ".npz"
    # Label and note files may begin with a picture's two letters ("BM", "P1") by chance.
    if looks_like_picture(head, surely=suffix in _NOTES):
        return "picture"
    # ISO media: HEIC, which is named as such later on.
    return "picture" if head[4:8] == b"ftyp" and suffix in (".heic", ".heif", "") else None


def _why_not(head: bytes, suffix: str) -> str | None:
    if suffix not in _PROMISING:
        return None
    if not head:
        return "empty"
    return "an archive; unpack it" if suffix in _ARCHIVES else "not a picture"


def _digest(file) -> str:
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _rank(sha256: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{sha256}".encode()).digest()


def _one_kind(sources: Iterable[Source], shown: str) -> str:
    """The kind that all sources have; run_calibration takes no mixture."""
    first: dict[str, Source] = {}
    for source in sources:
        first.setdefault(source.kind, source)
    if len(first) > 1:
        one, other = list(first.values())[:2]
        raise BadInput(
            f"{shown}: holds {_called(one.kind)} ({one.name}) and {_called(other.kind)}"
            f" ({other.name}); move one kind elsewhere"
        )
    return next(iter(first), "picture")


def _one_length(samples: Sequence[Sample], inputs: Inputs | None, shown: str) -> None:
    """Insist on as many files in each sample; as many as there are inputs, where that is known."""
    for sample in samples:
        files, wanted = len(sample.sources), len(samples[0].sources)
        if files != wanted:
            raise BadInput(f"{shown}: {sample.name} is {files} files, {samples[0].name} {wanted}")
        if files > 1 and sample.sources[0].kind == ".npz":
            raise BadInput(f"{shown}: {sample.name}: an .npz holds all inputs, so one in a line")
        if files > 1 and inputs and files != len(inputs.shapes):
            raise BadInput(
                f"{shown}: {sample.name} is {files} files,"
                f" the model has {len(inputs.shapes)} inputs"
            )


def _called(kind: str) -> str:
    return "pictures" if kind == "picture" else f"{kind} samples"


def _without_duplicates(samples: list[Sample], in_order: bool) -> tuple[list[Sample], list[dict]]:
    """Of samples with the same contents, the first by name, or in its list; and the others."""
    kept: dict[str, Sample] = {}
    duplicates = []
    for source in sorted(
        samples, key=lambda one: one.place if in_order else (_by_name(one.name), one.name)
    ):
        if source.sha256 in kept:
            same = kept[source.sha256].name
            duplicates.append({"source": source.name, "same_as": same})
        else:
            kept[source.sha256] = source
    return list(kept.values()), duplicates


def _usable(
    waiting: Iterator[Sample],
    count: int,
    inputs: Inputs | None,
    left_out: list[dict],
    folder: Path,
) -> Iterator[list[dict]]:
    """Check and write samples until ``count`` are; yield their files' entries in the manifest."""
    number = 0
    with ThreadPoolExecutor(_workers()) as pool:
        # As many as can be taken in any case, so that none is decoded in vain.
        while batch := _next(waiting, count - number):
            results = pool.map(lambda sample: _try_all(sample, inputs, folder), batch)
            for sample, result in zip(batch, results, strict=True):
                if isinstance(result, str):
                    left_out.append({"source": sample.name, "reason": result})
                    continue
                number += 1
                several = len(result) > 1
                entries = []
                for index, (entry, written) in enumerate(result, 1):
                    stem = f"Calibration{number}_{index}" if several else f"Calibration{number}"
                    written.rename(folder / f"{stem}{written.suffix}")
                    entries.append({"name": f"{stem}{written.suffix}", **entry})
                yield entries


def _next(waiting: Iterator[Sample], count: int) -> Sequence[Sample]:
    return [source for _, source in zip(range(count), waiting, strict=False)]


def _try_all(sample: Sample, inputs: Inputs | None, folder: Path) -> list[tuple[dict, Path]] | str:
    """Check a sample's files and write them under passing names; or why it is left out."""
    results: list[tuple[dict, Path]] = []
    for index, source in enumerate(sample.sources):
        own = inputs
        if inputs and len(sample.sources) > 1:
            own = Inputs((inputs.shapes[index],), ())
        # Samples may share a file.
        result = _try(source, own, folder / f"{sample.place}-{index}")
        if isinstance(result, str):
            for _, written in results:
                written.unlink()
            return result if len(sample.sources) == 1 else f"{source.name}: {result}"
        results.append(result)
    return results


def _try(source: Source, inputs: Inputs | None, place: Path) -> tuple[dict, Path] | str:
    """Check a source and write it as ``place`` with a suffix; or why it is left out."""
    try:
        data = source.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != source.sha256:
            return "was changed while it was read"
        entry = {"source": source.name, "source_sha256": source.sha256, "source_size": len(data)}
        if source.kind == "picture":
            picture = prepare(data)
            data, suffix = picture.data, picture.suffix
            details = {
                "format": picture.format,
                "width": picture.width,
                "height": picture.height,
                "changes": list(picture.changes),
            }
        else:
            suffix = source.kind
            tensors = check_sample(data, suffix, inputs)
            details = {"tensors": list(tensors), "changes": []}
    except UnusableError as error:
        return str(error)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), **details}
    written = place.with_name(f"{place.name}{suffix}")
    written.write_bytes(data)
    return entry, written


def _check_apart(source: Path, target: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Refuse a target that would touch the source."""
    shown, target = printable(target), target.resolve()
    if source.is_dir():
        root = source.resolve()
        if target == root or target in root.parents or root in target.parents:
            raise BadInput(f"{shown}: overlaps with {printable(source)}; choose another folder")
    places = {path.parent for _, path in files} | {source.parent}
    for place in {place.resolve() for place in places}:
        if target == place or target in place.parents:
            raise BadInput(f"{shown}: holds files of {printable(source)}; choose another folder")


def _check_own(target: Path) -> None:
    """Refuse to replace anything that this program didn't make."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise BadInput(f"{printable(target)}: is a file, not a folder; choose another name")
    held = {entry.name for entry in target.iterdir()}
    foreign = sorted(held - _own_names(target))
    if foreign:
        raise BadInput(
            f"{printable(target)}: holds {printable(foreign[0])}, which is not from here;"
            " choose another folder or empty this one"
        )


def _own_names(target: Path) -> set[str]:
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
        if manifest["$schema"] != SCHEMA:
            return set()
        return {MANIFEST, *(file["name"] for file in manifest["files"])}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()


def _too_few(shown: str, manifest: dict, least: int) -> str:
    text = (
        f"{shown}: {manifest['count']} usable {manifest['kind']}, at least {least} needed (--min)"
    )
    left_out = manifest["left_out"]
    if left_out:
        some = ", ".join(f"{one['source']} ({one['reason']})" for one in left_out[:3])
        text += f"; {len(left_out)} left out: {some}" + (", …" if len(left_out) > 3 else "")
    if manifest["other_files"]:
        text += f"; {manifest['other_files']} other files"
    return text


def _workers() -> int:
    return min(4, len(os.sched_getaffinity(0)))
