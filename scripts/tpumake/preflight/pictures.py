"""The pictures, or tensors: those to calibrate with, and the one that is compared on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tpumake.pictures import UnusableError, looks_like_picture, pixels
from tpumake.preflight.finding import ERROR, WARNING, Finding
from tpumake.preflight.plan import Plan, shapes
from tpumake.samples import Inputs, check_sample

__all__ = ["check_dataset", "check_test_inputs", "look"]

_PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif",
             ".ppm", ".pgm", ".jp2", ".avif"}  # fmt: skip
_TENSORS = {".npz", ".npy"}
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
_FILMS = {".mp4", ".avi", ".mov", ".mkv", ".h264"}
# Fewer than that tell little of what a camera sees; what people use is 20 to 1000.
_FEW = 8
# A picture whose sides relate so differently is from elsewhere.
_UNLIKE = 1.6


class Look(NamedTuple):
    """What a picture's first bytes say: width and height as it is seen, and whether it is grey."""

    width: int
    height: int
    grey: bool


def look(path: Path) -> Look | None:
    """Look at a picture without decoding it; None if it is none."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in range(5, 9)
            width, height = image.size[::-1] if turned else image.size
            return Look(width, height, image.mode in ("1", "L", "LA", "I", "I;16"))
    except Exception:
        # Pillow raises nearly anything at what is no picture.
        return None


def check_test_inputs(plan: Plan) -> list[Finding]:
    """Can what the models are compared on be read, and is it what the network takes?"""
    if not plan.validating:
        return []
    found: list[Finding] = []
    for path in plan.test_inputs:
        found += _test_input(plan, path)
    return found


def _test_input(plan: Plan, path: Path) -> list[Finding]:
    where = plan.variable("TEST_INPUT")
    if not path.exists():
        return [Finding("test-input", ERROR, where, f"there is no {path}", "check the name")]
    if path.is_dir():
        what = f"{path} is a folder"
        return [Finding("test-input", ERROR, where, what, "name one picture of it")]
    try:
        data = path.read_bytes()
        if path.suffix.lower() in _TENSORS:
            _tensor(plan, path, data)
        elif data[:8] == b"\x93NUMPY\x01\x00":
            raise UnusableError("holds a tensor, and its suffix says otherwise; call it .npy")
        else:
            pixels(data)
    except UnusableError as error:
        what = f"{path}: a picture can't be decoded: {error}"
        if path.suffix.lower() in _TENSORS:
            what = f"{path} {error}"
        return [Finding("test-input", ERROR, where, what, "name a whole .jpg or .png, or a tensor")]
    return []


def _tensor(plan: Plan, path: Path, data: bytes) -> None:
    said = shapes(plan.value("INPUT_SHAPES"))
    one = len(said) == 1 or len(plan.test_inputs) == 1
    check_sample(data, path.suffix.lower(), Inputs(said, ()) if said and one else None)


def check_dataset(plan: Plan) -> list[Finding]:
    """Is there enough to calibrate with, of one kind, and like the test picture?"""
    if plan.dataset is None:
        return []
    where = plan.variable("DATA_LIST" if plan.value("DATA_LIST") else "DATASET")
    if not plan.dataset.exists():
        what = f"{plan.dataset}: there is no such file or folder"
        return [Finding("dataset", ERROR, where, what, "name a folder of pictures")]
    pictures, tensors = _count(plan, _PICTURES), _count(plan, _TENSORS)
    if not pictures and not tensors:
        # Pictures may have any suffix, or none: what they are is seen in what is inside.
        known = any(looks_like_picture(_head(path), surely=True) for path in plan.samples)
        return [] if known or not plan.counts else _nothing(plan, where)
    if pictures and tensors:
        what = f"{plan.dataset} has {pictures} pictures and {tensors} tensors"
        return [Finding("dataset", ERROR, where, what, "one kind can be calibrated with")]
    found = _enough(plan, where, pictures or tensors)
    return found + (_tensors_fit(plan, where) if tensors else _pictures_fit(plan, where))


def _nothing(plan: Plan, where: str) -> list[Finding]:
    what, remedy = f"{plan.dataset} has no pictures", "name a folder that has some"
    if _count(plan, _ARCHIVES):
        what += ", but an archive"
        remedy = "unpack it"
    elif _count(plan, _FILMS):
        what += ", but a film"
        remedy = "take single pictures out of it: ffmpeg -i film.mp4 -r 1 p%04d.jpg"
    elif _count(plan, {".heic", ".heif"}):
        what += " that can be read, but HEIC"
        remedy = "export them as JPEG"
    return [Finding("dataset", ERROR, where, what, remedy)]


def _count(plan: Plan, suffixes: set[str]) -> int:
    return sum(count for suffix, count in plan.counts.items() if suffix.lower() in suffixes)


def _enough(plan: Plan, where: str, there: int) -> list[Finding]:
    wanted = int(plan.value("INPUT_NUM") or 0)
    if there < wanted:
        what = f"{plan.dataset} has {there} of the {wanted} that INPUT_NUM asks for"
        remedy = f"add some, or {plan.variable('INPUT_NUM')} = {there}"
        return [Finding("few-samples", WARNING, where, what, remedy)]
    if wanted < _FEW:
        what = f"{wanted} to calibrate with are few"
        return [Finding("few-samples", WARNING, plan.variable("INPUT_NUM"), what,
                        "20 to 100 like those that the camera will see")]  # fmt: skip
    return []


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def _tensors_fit(plan: Plan, where: str) -> list[Finding]:
    if plan.fused:
        what = f"{plan.dataset} has tensors, and FUSE_PREPROCESS = 1 takes pictures"
        remedy = f"name pictures, or {plan.variable('FUSE_PREPROCESS')} = 0"
        return [Finding("dataset", ERROR, where, what, remedy)]
    said = shapes(plan.value("INPUT_SHAPES"))
    for path in plan.samples:
        if path.suffix.lower() not in _TENSORS or not path.is_file():
            continue
        try:
            check_sample(path.read_bytes(), path.suffix.lower(), Inputs(said, ()) if said else None)
        except UnusableError as error:
            what = f"{path} {error}"
            return [Finding("dataset", WARNING, where, what, "it will be left out")]
    return []


def _pictures_fit(plan: Plan, where: str) -> list[Finding]:
    """Are they like the test picture, and large enough?"""
    seen = [found for path in plan.samples if path.is_file() and (found := look(path))]
    if not plan.pictures:
        what = f"{plan.dataset} has pictures, and CHANNEL_FORMAT = none says that no input is one"
        return [Finding("dataset", ERROR, where, what, "name a folder of .npz or .npy")]
    if plan.samples and not seen and any(path.is_file() for path in plan.samples):
        what = (
            f"{plan.dataset}: the first {len(plan.samples)} files are no pictures that can be read"
        )
        return [Finding("dataset", ERROR, where, what, "name others")]
    return _like(plan, where, seen) + _sharp(plan, where, seen)


def _like(plan: Plan, where: str, seen: list[Look]) -> list[Finding]:
    test = [found for path in plan.test_inputs if path.is_file() and (found := look(path))]
    if not test or not seen:
        return []
    if test[0].grey != seen[0].grey and len({one.grey for one in seen}) == 1:
        kinds = "grey" if seen[0].grey else "in colour"
        what = f"the pictures are {kinds}, {plan.test_inputs[0]} is not"
        return [Finding("samples", WARNING, where, what, "take it from the same camera")]
    shares = sorted(one.width / one.height for one in seen)
    share = test[0].width / test[0].height
    if share > _UNLIKE * shares[-1] or share * _UNLIKE < shares[0]:
        what = f"{plan.test_inputs[0]} is {test[0].width}×{test[0].height}, the pictures "
        what += f"are like {seen[0].width}×{seen[0].height}"
        return [Finding("samples", WARNING, where, what, "take it from the same camera")]
    return []


def _sharp(plan: Plan, where: str, seen: list[Look]) -> list[Finding]:
    said = shapes(plan.value("INPUT_SHAPES"))
    if not seen or len(said) != 1 or len(said[0]) != 4:
        return []
    size = max(said[0][2:]) if plan.value("CHANNEL_FORMAT") != "nhwc" else max(said[0][1:3])
    small = [one for one in seen if max(one.width, one.height) * 4 < size]
    if len(small) < len(seen):
        return []
    what = f"the pictures are {seen[0].width}×{seen[0].height} and will be enlarged to {size}"
    return [Finding("samples", WARNING, where, what, "use the camera's own")]
