"""scripts/normalize_dataset.py: what is taken, what becomes of it, what is refused."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import helper, refused
from picture_zoo import cmyk, encoded, jpeg, photo, zoo
from PIL import Image

from tpumake import datasets, folders
from tpumake.errors import BadInput
from tpumake.folders import replace_folder
from tpumake.pictures import UnusableError, prepare

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts/normalize_dataset.py"
SCHEMA = json.loads((ROOT / "schemas/dataset_manifest.schema.json").read_text())


def normalize(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return helper("normalize_dataset", *arguments, cwd=cwd)


def done(result: subprocess.CompletedProcess) -> str:
    """The one line on stdout."""
    assert result.returncode == 0, result
    assert result.stdout.count("\n") == 1
    return result.stdout.rstrip("\n")


def manifest_of(folder: Path) -> dict:
    manifest = json.loads((folder / "manifest.json").read_text())
    jsonschema.validate(manifest, SCHEMA)
    return manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def reasons(folder: Path) -> dict[str, str]:
    return {one["source"]: one["reason"] for one in manifest_of(folder)["left_out"]}


def rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve JPEGs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(12):
        (folder / f"{index}.jpg").write_bytes(jpeg(index))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made/out"


def test_pictures_are_copied_numbered_and_listed(photos, out):
    assert done(normalize(photos, out, "--count", 12)) == f"12 pictures from {photos}"
    manifest = manifest_of(out)
    assert set(contents(out)) == {f"Calibration{i}.jpg" for i in range(1, 13)} | {"manifest.json"}
    assert [file["name"] for file in manifest["files"]] == [
        f"Calibration{i}.jpg" for i in range(1, 13)
    ]
    assert {file["source"] for file in manifest["files"]} == set(contents(photos))
    for file in manifest["files"]:
        data = (photos / file["source"]).read_bytes()
        assert (out / file["name"]).read_bytes() == data
        assert file["sha256"] == file["source_sha256"] == hashlib.sha256(data).hexdigest()
        assert file["size"] == file["source_size"] == len(data)
        assert (file["width"], file["height"], file["changes"]) == (34, 24, [])


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", zoo())
def test_every_kind_of_picture(tmp_path, out, name):
    kind = zoo()[name]
    # No suffix to go by.
    (tmp_path / "in").mkdir()
    (tmp_path / "in/picture").write_bytes(kind.data)
    done(normalize(tmp_path / "in", out, "--count", 1))
    file = manifest_of(out)["files"][0]
    made = out / file["name"]
    if kind.rgb is None:
        assert made.read_bytes() == kind.data
        assert made.suffix == Path(name).suffix
        assert file["changes"] == []
    else:
        assert made.suffix == ".png"
        np.testing.assert_array_equal(rgb(made), kind.rgb)
        assert file["changes"]
        assert ("turned as EXIF says" in file["changes"]) == name.startswith("turned")
        assert (file["width"], file["height"]) == kind.rgb.shape[1::-1]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_has_its_colours(kind):
    picture = prepare(cmyk(kind))
    with Image.open(io.BytesIO(picture.data)) as image:
        made = np.asarray(image).astype(int)
    assert picture.suffix == ".png"
    # JPEG loses some; an inverted picture would be off by 128 on average.
    assert np.abs(made - photo(1)).mean() < (12 if kind == "JPEG" else 3)


def test_wrong_suffixes_and_nested_folders(tmp_path, out):
    source = tmp_path / "in"
    (source / "a/b").mkdir(parents=True)
    (source / "Calibration1.img").write_bytes(jpeg(1))
    (source / "a/png.jpg").write_bytes(encoded(photo(2), "PNG"))
    (source / "a/b/JPG.TXT").write_bytes(jpeg(3))
    (source / "a/b/no suffix").write_bytes(jpeg(4))
    done(normalize(source, out, "--count", 4))
    made = {file["source"]: file["name"][-4:] for file in manifest_of(out)["files"]}
    assert made == {
        "Calibration1.img": ".jpg",
        "a/png.jpg": ".png",
        "a/b/JPG.TXT": ".jpg",
        "a/b/no suffix": ".jpg",
    }


def test_bad_files_are_left_out_and_named(photos, out):
    good = jpeg(50)
    (photos / "cut.jpg").write_bytes(good[: len(good) // 2])
    (photos / "cut.png").write_bytes(encoded(photo(51), "PNG")[:-20])
    (photos / "no_end.png").write_bytes(encoded(photo(52), "PNG")[:-12])
    (photos / "cut.bmp").write_bytes(encoded(photo(53), "BMP")[:-9])
    (photos / "empty.jpg").touch()
    (photos / "page.jpg").write_text("<html>404</html>")
    (photos / "pictures.zip").write_bytes(b"PK\x03\x04" + bytes(30))
    (photos / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    result = normalize(photos, out, "--count", 30)
    assert done(result) == f"12 of 30 wanted pictures from {photos}, 9 left out"
    lines = result.stderr.splitlines()
    assert lines[0] == "left out cut.bmp: " + reasons(out)["cut.bmp"]
    assert len(lines) == 6
    assert lines[-1].startswith("… and 4 more")
    named = reasons(out)
    for cut in ("cut.jpg", "cut.png", "no_end.png", "cut.bmp"):
        assert named.pop(cut).startswith("damaged or cut short"), cut
    assert named.pop("phone.heic").startswith("HEIC")
    assert named == {
        "empty.jpg": "empty",
        "page.jpg": "not a picture",
        "pictures.zip": "an archive; unpack it",
        "gone.jpg": "leads nowhere",
    }


def test_labels_and_clutter_are_no_errors(photos, out):
    for name in ("0.txt", "labels.json", "data.yaml", "notes.md", "BM.csv"):
        (photos / name).write_text("BM 0 0.5 0.5 1 1")
    for clutter in (".hidden.jpg", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (photos / clutter).write_bytes(jpeg(1))
    for folder in ("__MACOSX", ".git"):
        (photos / folder).mkdir()
        (photos / folder / "._0.jpg").write_bytes(b"junk")
        (photos / folder / "x.jpg").write_bytes(jpeg(60))
    result = normalize(photos, out, "--count", 12)
    assert done(result) == f"12 pictures from {photos}"
    assert result.stderr == ""
    manifest = manifest_of(out)
    assert (manifest["other_files"], manifest["left_out"]) == (5, [])


def test_decompression_bombs_are_left_out(photos, out):
    # 12000 x 12000 pixels in 20 kB.
    (photos / "bomb.png").write_bytes(encoded(Image.new("1", (12000, 12000)), "PNG"))
    done(normalize(photos, out, "--count", 20))
    assert reasons(out) == {"bomb.png": "more than 89 megapixels"}


def test_duplicates_are_taken_once(photos, out):
    shutil.copy(photos / "3.jpg", photos / "another 3.png")
    (photos / "z").mkdir()
    shutil.copy(photos / "3.jpg", photos / "z/3.jpg")
    done(normalize(photos, out, "--count", 20))
    manifest = manifest_of(out)
    assert manifest["count"] == 12
    assert manifest["duplicates"] == [
        {"source": "another 3.png", "same_as": "3.jpg"},
        {"source": "z/3.jpg", "same_as": "3.jpg"},
    ]


def test_neither_names_nor_order_decide(photos, out, tmp_path, monkeypatch):
    done(normalize(photos, out, "--count", 7, "--min", 5))
    renamed = tmp_path / "other/place"
    renamed.mkdir(parents=True)
    for index, path in enumerate(sorted(photos.iterdir(), reverse=True)):
        shutil.copy(path, renamed / f"{(index * 5) % 12}.img")
    done(normalize(renamed, tmp_path / "out2", "--count", 7, "--min", 5))
    first, second = contents(out), contents(tmp_path / "out2")
    first.pop("manifest.json"), second.pop("manifest.json")
    assert first == second

    real = os.walk
    monkeypatch.setattr(
        os, "walk", lambda *a, **k: ((x, y[::-1], z[::-1]) for x, y, z in real(*a, **k))
    )
    datasets.make_dataset(photos, tmp_path / "out3", datasets.Choice(7, 5, 0))
    assert contents(tmp_path / "out3") == contents(out)


def test_the_first_of_many_are_those_of_few(photos, out, tmp_path):
    done(normalize(photos, out, "--count", 10))
    done(normalize(photos, tmp_path / "few", "--count", 4))
    few = contents(tmp_path / "few")
    few.pop("manifest.json")
    assert few.items() <= contents(out).items()
    assert len(few) == 4


def test_one_more_picture_changes_at_most_one(photos, out, tmp_path):
    def taken(folder: Path) -> set[str]:
        return {file["sha256"] for file in manifest_of(folder)["files"]}

    done(normalize(photos, out, "--count", 6))
    changed = 0
    for index in range(6):
        (photos / "new.jpg").write_bytes(jpeg(100 + index))
        done(normalize(photos, tmp_path / "more", "--count", 6))
        gone = taken(out) - taken(tmp_path / "more")
        assert len(gone) <= 1
        changed += len(gone)
    assert changed


def test_the_order_is_the_documented_one(photos, out):
    done(normalize(photos, out, "--count", 5, "--seed", 7))

    def rank(path: Path) -> bytes:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return hashlib.sha256(f"7:{digest}".encode()).digest()

    wanted = [path.name for path in sorted(photos.iterdir(), key=rank)[:5]]
    assert [file["source"] for file in manifest_of(out)["files"]] == wanted


def test_another_seed_takes_others_and_the_same_the_same(photos, out, tmp_path):
    done(normalize(photos, out, "--count", 6))
    done(normalize(photos, tmp_path / "same", "--count", 6))
    done(normalize(photos, tmp_path / "other", "--count", 6, "--seed", 1))
    assert contents(out) == contents(tmp_path / "same")
    sources = [
        {file["source"] for file in manifest_of(folder)["files"]}
        for folder in (out, tmp_path / "other")
    ]
    assert sources[0] != sources[1]


def test_only_what_is_taken_is_decoded(photos, out, monkeypatch):
    decoded = []
    monkeypatch.setattr(datasets, "prepare", lambda data: decoded.append(1) or prepare(data))
    datasets.make_dataset(photos, out, datasets.Choice(5, 5, 0))
    assert len(decoded) == 5
    assert manifest_of(out)["not_needed"] == 7


def test_the_next_one_stands_in_for_a_damaged_one(photos, out):
    done(normalize(photos, out, "--count", 12))
    second = manifest_of(out)["files"][1]["source"]
    # Its picture data, so that it is found out only by decoding; its rank may change too.
    data = bytearray((photos / second).read_bytes())
    (photos / second).write_bytes(data[:-60])
    done(normalize(photos, out, "--count", 11))
    assert second not in {file["source"] for file in manifest_of(out)["files"]}
    assert manifest_of(out)["count"] == 11


def test_the_source_is_never_touched(photos, out):
    (photos / "cut.jpg").write_bytes(jpeg(50)[:200])
    (photos / "alpha.webp").write_bytes(zoo()["alpha.webp"].data)

    def state() -> list[tuple]:
        return [
            (path.name, path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(photos.iterdir())
        ] + [photos.stat().st_mtime_ns]

    for path in photos.iterdir():
        path.chmod(0o444)
    photos.chmod(0o555)
    before = state()
    done(normalize(photos, out, "--count", 20))
    assert state() == before
    # A copy, not a link: nobody who edits one changes the other.
    inodes = {path.stat().st_ino for path in photos.iterdir()}
    assert inodes.isdisjoint(path.stat().st_ino for path in out.iterdir())
    assert all(os.access(path, os.W_OK) for path in out.iterdir())
    photos.chmod(0o755)


@pytest.mark.parametrize("name", ["a b.jpg", "größe.jpg", "a\nb.jpg", 'it\'s "x".jpg', "-rf.jpg"])
def test_odd_names(tmp_path, name, out):
    source = tmp_path / "-odd ünd\n'folder'"
    source.mkdir()
    (source / name).write_bytes(jpeg(1))
    result = normalize("--count", 1, "--", source.name, out, cwd=tmp_path)
    assert done(result) == "1 picture from -odd ünd\\n'folder'"
    assert manifest_of(out)["files"][0]["source"] == name.replace("\n", "\\n")


def test_names_that_are_no_text(tmp_path, out):
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/\xff.jpg")).write_bytes(jpeg(1))
    done(normalize(tmp_path / "in", out, "--count", 1))
    assert manifest_of(out)["files"][0]["source"] == "\\xff.jpg"


def test_links_are_followed_and_loops_end(photos, out, tmp_path):
    source = tmp_path / "links"
    source.mkdir()
    (source / "one.jpg").symlink_to(photos / "1.jpg")
    (source / "folder").symlink_to(photos)
    (source / "up").symlink_to(source)
    (source / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(source / "pipe.jpg")
    done(normalize(source, out, "--count", 20))
    assert manifest_of(out)["count"] == 12
    named = reasons(out)
    assert named.pop("pipe.jpg") == "not a file"
    assert named.pop("itself.jpg").startswith("can't be read")
    assert not named


def test_unreadable_files_are_named(photos, out, monkeypatch):
    # Not by its mode, which doesn't keep root from reading it.
    real = Path.open

    def guarded(self: Path, *arguments: object, **more: object):
        if self.name == "0.jpg":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", guarded)
    manifest = datasets.make_dataset(photos, out, datasets.Choice(20, 5, 0))
    assert manifest["left_out"] == [
        {"source": "0.jpg", "reason": "can't be read: Permission denied"}
    ]


def test_a_list_of_pictures(photos, out, tmp_path):
    listing = photos.parent / "train.txt"
    lines = ["\ufeff# a comment", "", "./photos/1.jpg", "  photos/2.jpg\r", str(photos / "3.jpg")]
    listing.write_text("\n".join([*lines, "photos/gone.jpg", "photos"]))
    result = normalize(listing, out, "--count", 3)
    assert done(result) == f"3 pictures from {listing}, 2 left out"
    sources = {file["source"] for file in manifest_of(out)["files"]}
    assert sources == {"photos/1.jpg", "photos/2.jpg", "3.jpg"}
    assert reasons(out) == {"photos/gone.jpg": "there is no such file", "photos": "not a file"}
    assert str(tmp_path) not in (out / "manifest.json").read_text()


def test_a_damaged_line_of_a_list_is_left_out(photos, out):
    listing = photos.parent / "train.txt"
    comment = "# " + "long enough for the damage to be none of the list's beginning " * 100
    listing.write_text("\n".join([comment, "photos/1.jpg", "photos/\0.jpg"]))
    normalize(listing, out, "--count", 1)
    assert reasons(out) == {"photos/\\x00.jpg": "no file can be called so"}


def test_too_few(photos, out):
    (photos / "cut.jpg").write_bytes(b"")
    message = refused(normalize(photos, out, "--min", 13))
    assert "12 usable pictures, at least 13 needed" in message
    assert "1 left out: cut.jpg (empty)" in message
    assert not out.parent.exists()
    done(normalize(photos, out, "--min", 12))
    before = contents(out)
    refused(normalize(photos, out, "--min", 13))
    assert contents(out) == before


def test_sources_that_are_none(photos, out, tmp_path):
    assert "no such folder" in refused(normalize(tmp_path / "nothing", out))
    assert "give a folder" in refused(normalize(photos / "1.jpg", out))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/1.txt").write_text("0 0 0 1 1")
    message = refused(normalize(tmp_path / "labels", out))
    assert "0 usable pictures" in message
    assert "1 other files" in message
    assert not out.exists()


@pytest.mark.parametrize("options", [["--count", 0], ["--count", 5, "--min", 6], ["--seed", "x"]])
def test_bad_options(photos, out, options):
    refused(normalize(photos, out, *options))


def test_targets_that_overlap(photos, tmp_path):
    before = contents(photos)
    for target in (photos, photos / "out", tmp_path):
        refused(normalize(photos, target))
    listing = tmp_path / "list.txt"
    listing.write_text("photos/1.jpg")
    refused(normalize(listing, photos, "--count", 1))
    (tmp_path / "link").symlink_to(photos)
    refused(normalize(photos, tmp_path / "link"))
    assert contents(photos) == before


def test_targets_that_are_not_ours(photos, out, tmp_path):
    out.mkdir(parents=True)
    (out / "thesis.tex").write_text("years of work")
    assert "thesis.tex" in refused(normalize(photos, out))
    (out / "manifest.json").write_text('{"name": "a web app"}')
    refused(normalize(photos, out))
    assert (out / "thesis.tex").exists()
    (tmp_path / "file").touch()
    assert "is a file" in refused(normalize(photos, tmp_path / "file"))


def test_own_targets_are_replaced_unless_something_was_added(photos, out):
    done(normalize(photos, out, "--count", 12))
    done(normalize(photos, out, "--count", 4))
    assert len(contents(out)) == 5
    (out / "mine.jpg").write_bytes(jpeg(1))
    assert "mine.jpg" in refused(normalize(photos, out))
    assert (out / "mine.jpg").exists()


def test_only_the_target_is_left_beside_it(photos, out):
    done(normalize(photos, out))
    done(normalize(photos, out))
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_killed_run_leaves_the_old_and_no_litter_for_long(photos, out):
    done(normalize(photos, out, "--count", 12))
    before = contents(out)
    # A pipe in the middle of the work would be skipped, so hold it up from outside.
    code = (
        f"import sys, time; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from pathlib import Path; from tpumake.folders import replace_folder\n"
        f"with replace_folder(Path({str(out)!r})) as folder:\n"
        "    (folder / 'half').touch(); print('there', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        # A run beside it doesn't take its folder away.
        done(normalize(photos, out, "--count", 12))
        assert len(list(out.parent.iterdir())) == 2
        process.send_signal(signal.SIGKILL)
    assert contents(out) == before
    done(normalize(photos, out, "--count", 12))
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_replacing_where_folders_can_not_be_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    path = tmp_path / "folder"
    for text in ("old", "new"):
        with replace_folder(path) as folder:
            (folder / "file").write_text(text)
    assert (path / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    # Killed in between: neither was there, and the next run puts the old one back first.
    path.rename(tmp_path / ".folder.old")
    with pytest.raises(RuntimeError), replace_folder(path):
        raise RuntimeError
    assert (path / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    # Killed after both: what is left of the old one is in nobody's way.
    (tmp_path / ".folder.old").mkdir()
    (tmp_path / ".folder.old/file").write_text("older")
    (tmp_path / "newest").mkdir()
    folders.put_folder(tmp_path / "newest", path)
    assert list(tmp_path.iterdir()) == [path]


def test_json_and_progress(photos, out):
    result = normalize(photos, out, "--count", 12, "--json", "--progress")
    assert json.loads(result.stdout) == manifest_of(out)
    lines = [line.split() for line in result.stderr.splitlines()]
    assert {line[0] for line in lines} == {"PROGRESS"}
    shares = [int(done) / int(total) for _, done, total in lines]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_file_that_changes_meanwhile_is_left_out(photos, out, monkeypatch):
    real = datasets._digest
    monkeypatch.setattr(
        datasets, "_digest", lambda file: real(file) if "7" not in file.name[-5:] else "0" * 64
    )
    manifest = datasets.make_dataset(photos, out, datasets.Choice(12, 5, 0))
    assert manifest["left_out"] == [{"source": "7.jpg", "reason": "was changed while it was read"}]


@pytest.mark.filterwarnings("ignore")
def test_no_damaged_file_gets_through_or_stops_the_run():
    random = np.random.default_rng(9)
    broken = 0
    for name, kind in zoo().items():
        for _ in range(40):
            data = bytearray(kind.data)
            for place in random.integers(0, len(data), 3):
                data[place] = random.integers(256)
            if random.random() < 0.3:
                del data[random.integers(len(data)) :]
            try:
                picture = prepare(bytes(data))
            except UnusableError as error:
                broken += 1
                assert "\n" not in str(error), name
            else:
                assert picture.suffix in (".jpg", ".png", ".bmp")
    assert broken > 100


def test_damaged_metadata_does_not_spoil_a_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(encoded(photo(1), "JPEG", exif=exif))
    place = data.index(b"Exif\0\0") + 6
    data[place : place + 8] = b"\xff" * 8
    assert prepare(bytes(data)).suffix == ".jpg"


def sample(path: Path, value: float, shape: tuple[int, ...] = (1, 3, 8, 8), **more: object) -> None:
    np.savez(path, images=np.full(shape, value, np.float32), **more)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for index in range(12):
        sample(folder / f"s{index}.npz", index)
    return folder


def test_samples_are_copied(samples, out):
    result = normalize(samples, out, "--count", 12, "--input-shapes", "[[1,3,8,8]]")
    assert done(result) == f"12 samples from {samples}"
    manifest = manifest_of(out)
    assert manifest["kind"] == "samples"
    for file in manifest["files"]:
        assert file["name"].endswith(".npz")
        assert file["tensors"] == ["images 1x3x8x8 float32"]
        assert (out / file["name"]).read_bytes() == (samples / file["source"]).read_bytes()


def test_npy_samples(tmp_path, out):
    (tmp_path / "in").mkdir()
    for index in range(3):
        np.save(tmp_path / f"in/{index}.npy", np.full((1, 4), index))
    done(normalize(tmp_path / "in", out, "--count", 3, "--input-shapes", "[[8, 4]]"))
    assert {path.suffix for path in out.iterdir()} == {".npy", ".json"}
    both = ["--input-shapes", "[[1,4],[1,4]]", "--input-names", "a,b"]
    assert "use .npz" in refused(normalize(tmp_path / "in", out, "--count", 3, *both))


def test_samples_that_do_not_fit_are_left_out(samples, out):
    sample(samples / "large.npz", 1, (1, 3, 9, 8))
    sample(samples / "nan.npz", np.nan)
    sample(samples / "two.npz", 1, more=np.ones(3))
    np.savez(samples / "objects.npz", images=np.array([{}]))
    np.savez(samples / "text.npz", images=np.array(["a"]))
    data = (samples / "s0.npz").read_bytes()
    (samples / "cut.npz").write_bytes(data[:-9])
    flipped = bytearray(data)
    flipped[300] ^= 1
    (samples / "flipped.npz").write_bytes(flipped)
    done(normalize(samples, out, "--count", 30, "--input-shapes", "[[4,3,8,8]]"))
    named = reasons(out)
    assert named["large.npz"] == "is 1x3x9x8, the model takes 4x3x8x8"
    assert named["nan.npz"] == "holds NaN or infinity"
    assert named["two.npz"] == "holds 2 tensors, the model has 1 input"
    assert "pickled" in named["objects.npz"]
    assert "no plain numbers" in named["text.npz"]
    assert "cut short" in named["cut.npz"]
    assert "can't be read" in named["flipped.npz"]
    assert len(named) == 7


def test_samples_of_several_inputs_go_by_name(samples, out):
    for index in range(3):
        sample(samples / f"b{index}.npz", index, mask=np.full((1, 2), index))
    sample(samples / "wrong.npz", 1, mask=np.ones((1, 3)))
    flags = ["--input-shapes", "[[1,3,8,8],[1,2]]", "--input-names", "images,mask"]
    done(normalize(samples, out, "--min", 3, *flags))
    assert manifest_of(out)["count"] == 3
    assert reasons(out)["wrong.npz"] == "mask is 1x3, the model takes 1x2"
    assert reasons(out)["s1.npz"] == "holds no tensor mask"


def test_samples_for_several_inputs_without_names(samples, out):
    for index in range(3):
        sample(samples / f"b{index}.npz", index, mask=np.full((1, 2), index))
    done(normalize(samples, out, "--min", 3, "--input-shapes", "[[1,2],[1,3,8,8]]"))
    assert manifest_of(out)["count"] == 3
    assert reasons(out)["s1.npz"] == "holds no tensor 1x2, but 1x3x8x8"


@pytest.fixture
def pairs(tmp_path):
    """A list of four samples of two files each; one is there twice, two share a file."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.jpg").write_bytes(jpeg(index))
    (folder / "list.txt").write_text(
        "2.jpg,1.jpg\n0.jpg, 1.jpg\n\n# no\n2.jpg,1.jpg\n3.jpg,3.jpg\n"
    )
    return folder


def test_a_list_of_samples_of_several_files_in_its_order(pairs, out):
    done(normalize(pairs / "list.txt", out, "--min", 2, "--count", 2, "--in-order"))
    names = {file.name: file.read_bytes() for file in out.glob("Calibration*")}
    assert names == {
        "Calibration1_1.jpg": jpeg(2),
        "Calibration1_2.jpg": jpeg(1),
        "Calibration2_1.jpg": jpeg(0),
        "Calibration2_2.jpg": jpeg(1),
    }
    manifest = manifest_of(out)
    assert manifest["count"] == 2
    assert manifest["not_needed"] == 1
    assert manifest["duplicates"] == [{"source": "2.jpg,1.jpg", "same_as": "2.jpg,1.jpg"}]


def test_samples_of_several_files_are_taken_whole(pairs, out):
    """Chosen by the seed; a damaged file leaves its sample out."""
    (pairs / "3.jpg").write_bytes(jpeg(3)[:-40])
    done(normalize(pairs / "list.txt", out, "--min", 2))
    assert sorted(file.name for file in out.glob("Calibration*")) == [
        "Calibration1_1.jpg", "Calibration1_2.jpg", "Calibration2_1.jpg", "Calibration2_2.jpg",
    ]  # fmt: skip
    assert "3.jpg" in reasons(out)["3.jpg,3.jpg"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1.jpg,2.jpg\n3.jpg", "3.jpg is 1 files, 1.jpg,2.jpg 2"),
        ("a.npz,a.npz", "an .npz holds all inputs"),
        ("a.npy,a.npy,a.npy", "is 3 files, the model has 2 inputs"),
    ],
)
def test_lists_whose_lines_make_no_samples(pairs, out, lines, said):
    np.save(pairs / "a.npy", np.zeros((1, 2)))
    np.savez(pairs / "a.npz", x=np.zeros((1, 2)))
    (pairs / "list.txt").write_text(lines)
    flags = ("--min", 1, "--input-shapes", "[[1,2],[1,2]]")
    assert said in refused(normalize(pairs / "list.txt", out, *flags))


def test_an_npy_for_each_input(pairs, out):
    np.save(pairs / "a.npy", np.zeros((1, 2)))
    np.save(pairs / "b.npy", np.zeros((1, 3)))
    (pairs / "list.txt").write_text("a.npy,b.npy\nb.npy,a.npy")
    done(normalize(pairs / "list.txt", out, "--min", 1, "--input-shapes", "[[1,2],[1,3]]"))
    assert manifest_of(out)["count"] == 1
    assert reasons(out) == {"b.npy,a.npy": "b.npy: is 1x3, the model takes 1x2"}


def test_a_folder_has_no_order(photos, out):
    assert "--in-order is for lists" in refused(normalize(photos, out, "--in-order"))


@pytest.mark.parametrize(
    "options",
    [
        ["--input-shapes", "[1,3,8,8]"],
        ["--input-shapes", "[[1,3,8,-8]]"],
        ["--input-shapes", "__import__('os')"],
        ["--input-shapes", "[[1]]", "--input-names", "a,b"],
        ["--input-names", "a"],
    ],
)
def test_bad_inputs(samples, out, options):
    assert "--input-" in refused(normalize(samples, out, *options))


def test_pictures_and_samples_do_not_mix(samples, out):
    (samples / "p.jpg").write_bytes(jpeg(1))
    message = refused(normalize(samples, out))
    assert "pictures (p.jpg)" in message
    assert ".npz samples (s" in message


def test_the_library_raises_what_the_program_prints(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        datasets.make_dataset(tmp_path / "x", tmp_path / "y", datasets.Choice(1, 1, 0))


@pytest.mark.slow
def test_thousands_of_files_are_quick(tmp_path, out):
    source = tmp_path / "many"
    source.mkdir()
    data = jpeg(1)
    for index in range(5000):
        # After the end mark of a JPEG anything may follow.
        (source / f"{index}.jpg").write_bytes(data + index.to_bytes(4, "big"))
    start = time.perf_counter()
    done(normalize(source, out))
    assert time.perf_counter() - start < 10
    assert manifest_of(out)["not_needed"] == 4900


READ = """
import sys, cv2, numpy
for name in sys.argv[2:]:
    picture = cv2.imread(name, cv2.IMREAD_COLOR)
    numpy.save(f"{sys.argv[1]}/{name}.npy", picture[:, :, ::-1])
"""


@pytest.mark.toolchain
def test_as_the_toolchains_opencv_reads_them(toolchain, tmp_path):
    """Before and after, OpenCV sees the same pixels, but where the zoo says that it errs."""
    names, kinds = [], {name: kind for name, kind in zoo().items() if kind.opencv}
    kinds |= {f"cmyk.{kind}": None for kind in ("JPEG", "TIFF")}
    (tmp_path / "read").mkdir()
    for index, (name, kind) in enumerate(kinds.items()):
        data = kind.data if kind else cmyk(name[5:])
        made = prepare(data)
        suffix = Path(name).suffix.lower().replace("jpeg", "jpg")
        for path, content in ((f"a{index}{suffix}", data), (f"b{index}{made.suffix}", made.data)):
            (tmp_path / path).write_bytes(content)
            names.append(path)
    done = toolchain.run(["python3", "-c", READ, "read", *names], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for before, after, name in zip(names[::2], names[1::2], kinds, strict=True):
        pair = [np.load(tmp_path / f"read/{path}.npy") for path in (before, after)]
        np.testing.assert_array_equal(*pair, err_msg=name)
