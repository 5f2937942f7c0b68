"""Models onto a reCamera over HTTP: its interface stands in, as its published source has it."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
import servers
from boards import fine, wrong
from conftest import ROOT, helper, refused
from cvimodels import COMMANDS, WEIGHTS, camera_model, outputs_of
from servers import Handler
from supervisor import Supervisor

from tpumake import profiles
from tpumake.deployment import web
from tpumake.errors import BadInput

# Of three parts, the last one short.
SIZE = 2 * web.PART + 1000


def model_file(path: Path, filled: bytes, size: int = SIZE) -> Path:
    content = camera_model(outputs_of([(1, 64, 80, 80)]), name=path.stem,
                           binary=WEIGHTS + COMMANDS + filled * size)  # fmt: skip
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"classes": [path.stem, "猫"]}) + "\n")
    return path


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return model_file(tmp_path / "first.cvimodel", b"1")


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return model_file(tmp_path / "second.cvimodel", b"2")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Supervisor]:
    folder = tmp_path / "Models"
    folder.mkdir()
    made = Supervisor(folder)
    made.model.write_bytes(b"the factory's model")
    made.side_car.write_text('{"classes": ["thing"]}')
    with servers.serving(made):
        yield made


def deploy(device: Supervisor, model: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return helper(
        "deploy_model", model, "--side-car", model.with_suffix(".json"), "--device", "recamera",
        "--host", device.url, "--kept", kept(device).parent, *more,
    )  # fmt: skip


def kept(device: Supervisor) -> Path:
    return device.path.parent / "kept" / f"127.0.0.1_{device.server_port}.cvimodel"


def has(device: Supervisor, model: Path) -> bool:
    side_car = model.with_suffix(".json")
    return (device.model.read_bytes(), device.side_car.read_bytes()) == (
        model.read_bytes(), side_car.read_bytes())  # fmt: skip


def is_as_it_was(device: Supervisor) -> bool:
    return (device.model.read_bytes(), device.side_car.read_text()) == (
        b"the factory's model", '{"classes": ["thing"]}')  # fmt: skip


def uploads(device: Supervisor) -> int:
    return device.calls().count("uploadModel")


@pytest.mark.slow
def test_there_and_back(device: Supervisor, first: Path, second: Path) -> None:
    said = fine(deploy(device, first))
    assert "reCameraOS 0.2.1 on sg2002 by its own account" in said
    assert "sent, read back and compared" in said
    assert f"the one before is kept here, {kept(device)}" in said
    assert "has the old model until it starts again" in said
    assert has(device, first)
    # One of nothing, and three parts.
    assert uploads(device) == 4
    assert kept(device).read_bytes() == b"the factory's model"
    fine(deploy(device, second))
    assert has(device, second)
    assert kept(device).read_bytes() == first.read_bytes()
    asked = uploads(device)
    assert "is this model already; nothing to do" in fine(deploy(device, second))
    assert uploads(device) == asked
    assert kept(device).read_bytes() == first.read_bytes()
    fine(deploy(device, second, "--rollback"))
    assert has(device, first)
    fine(deploy(device, second, "--rollback"))
    assert has(device, second)
    assert sorted(path.name for path in device.path.iterdir()) == ["model.cvimodel", "model.json"]


@pytest.mark.slow
def test_nothing_to_go_back_to(device: Supervisor, first: Path) -> None:
    assert "there is nothing to go back to" in wrong(deploy(device, first, "--rollback"))
    assert not device.asked


@pytest.mark.slow
def test_the_first_model_of_all(device: Supervisor, first: Path) -> None:
    device.model.unlink()
    device.side_car.unlink()
    assert "the one before" not in fine(deploy(device, first))
    assert has(device, first)
    assert not kept(device).exists()


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, -1, 1])
def test_models_of_one_part(size: int, device: Supervisor, tmp_path: Path) -> None:
    """Just as large as a part, and a byte about it."""
    small = model_file(tmp_path / "small.cvimodel", b"s", 0)
    model = model_file(small, b"s", web.PART - small.stat().st_size + size)
    fine(deploy(device, model))
    assert has(device, model)
    assert uploads(device) == (3 if model.stat().st_size > web.PART else 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "first"])
def test_older_interfaces_are_left_alone(kind: str, device: Supervisor, first: Path) -> None:
    """Those tell more of a model; nothing is sent to them, not even nothing."""
    device.kind = kind
    assert "is not the one that is known here" in wrong(deploy(device, first))
    assert is_as_it_was(device)
    assert uploads(device) == 0


@pytest.mark.slow
def test_one_that_has_no_parts_gets_none(device: Supervisor, first: Path) -> None:
    """Of the questions that it answers it might be the current one."""
    device.fault = lambda call: _in_place_of_upload(
        call, lambda call: call.say(0, data={"count": 0})
    )
    said = wrong(deploy(device, first))
    assert "is not the one that is known here" in said
    assert "nothing has changed there" in said
    assert is_as_it_was(device)
    assert uploads(device) == 1


@pytest.mark.slow
def test_one_that_takes_a_part_for_the_model(device: Supervisor, first: Path) -> None:
    """Though it answered all questions as the current one does."""
    device.kind = "whole"
    said = wrong(deploy(device, first))
    assert "was sent 524288 bytes, and says that it has none" in said
    assert "what is in place there is not what was sent, 524288 bytes" in said
    assert uploads(device) == 2
    assert kept(device).read_bytes() == b"the factory's model"


def _in_place_of_upload(call: Handler, does: Callable, nth: int = 1) -> bool | None:
    """A fault of the nth upload, and all after it."""
    if not call.path.endswith("uploadModel") or uploads(call.server) < nth:
        return False
    call.body = call.rfile.read(int(call.headers["Content-Length"]))
    return does(call)


def _with_length(call: Handler) -> None:
    call.send_response(200)
    call.send_header("Content-Length", "100")
    call.end_headers()
    call.wfile.write(b'{"code": 0')
    call.close_connection = True


# What answers every question, the exit code and words of the line that tells it.
STRANGERS = [
    (lambda call: call.send(404), 2, "has no queryDeviceInfo (404): another device"),
    (lambda call: call.send(307, Location="http://192.168.16.1/"), 2,
     "has no queryDeviceInfo, but leads to http://192.168.16.1/: another device, "
     "or other software than is known here\n"),
    (lambda call: call.send(301, Location="https://127.0.0.1/api"), 2,
     "try DEVICE_HOST=https://127.0.0.1"),
    (lambda call: call.send(200, b"<html>log in</html>"), 2, "something else than a reCamera does"),
    (lambda call: call.send(200, b"[" * 100_000), 2, "something else than a reCamera does"),
    (lambda call: call.send(200, b'{"code": 0, "data": {"appName": "x"}}'), 2,
     "it is x on None, not supervisor on sg2002: another device?"),
    (lambda call: call.send(200, b'{"code": -1, "msg": "broken\\u001b[2J"}'), 1,
     "queryDeviceInfo ends with broken\\x1b[2J"),
    (lambda call: call.send(401), 2, "it wants a log-in for it: DEVICE_TOKEN"),
    (servers.failing, 1, "answers queryDeviceInfo with 500"),
    (servers.gibberish, 2, "no connection ("),
    (servers.closing, 2, "no connection (it closed the connection without an answer)"),
    (servers.endless, 1, "answers queryDeviceInfo without a length"),
    (lambda call: call.send(200, bytes(1 << 21)), 1, "with 2097152 bytes, more than 1048576"),
    (lambda call: call.say(0, data={"appName": "other", "cpu": "sg2002"}), 2,
     "it is other on sg2002, not supervisor on sg2002"),
    (lambda call: call.say(0, data={"appName": "supervisor", "cpu": "rv1126b"}), 2,
     "it is supervisor on rv1126b, not supervisor on sg2002"),
    (lambda call: call.send(200, b'{"code": 0, "data": []}'), 2, "it is None on None"),
    (_with_length, 1, "the connection was lost: it broke off after 10 bytes"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code", "words"), STRANGERS)
def test_what_is_no_recamera(
    answer: Callable, code: int, words: str, device: Supervisor, first: Path
) -> None:
    device.fault = lambda call: answer(call)
    assert words in wrong(deploy(device, first), code)
    assert is_as_it_was(device)
    assert len(device.asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "does", "words"),
    [
        ("getModelFile", lambda call: call.say(-1, "Invalid model file."),
         "it has no model to read back: Invalid model file."),
        ("getModelInfo", lambda call: call.say(-1, "Invalid model info."),
         "getModelInfo ends with Invalid model info\n"),
        ("getModelInfo", lambda call: call.say(0, data={"model_info": {}}),
         "is not the one that is known here"),
        ("getModelFile", servers.truncated_headers, "without a length"),
        ("getModelFile", lambda call: call.send(401), "getModelFile: it wants a log-in"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_not_replaced(
    call: str, does: Callable, words: str, device: Supervisor, first: Path
) -> None:
    device.fault = lambda asked: does(asked) if asked.path.endswith(call) else False
    done = deploy(device, first)
    assert words in wrong(done, done.returncode or -1)
    assert is_as_it_was(device)
    assert uploads(device) == 0


@pytest.mark.slow
def test_a_side_car_that_is_no_text(device: Supervisor, first: Path) -> None:
    """JSON has letters that nothing can be written in."""

    def odd(call: Handler) -> bool | None:
        if uploads(device) or not call.path.endswith("getModelInfo"):
            return False
        text = b'{"code": 0, "data": {"model_info": "\\ud800"}}'
        return call.send(200, text)

    device.fault = odd
    fine(deploy(device, first))
    assert kept(device).with_suffix(".json").read_text() == "?"


@pytest.mark.slow
@pytest.mark.parametrize("fault", [servers.silent, servers.dripping])
def test_one_that_hangs(
    fault: Callable, device: Supervisor, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_SILENT_SECONDS", 0.3)
    monkeypatch.setattr(web, "_CALL_SECONDS", 0.5)
    device.fault = lambda call: _in_place_of_upload(call, fault, 3)
    begun = time.monotonic()
    said = wrong(deploy(device, first))
    assert "the connection was lost: no answer in time; nothing has changed there" in said
    assert time.monotonic() - begun < 5
    assert is_as_it_was(device)


# What becomes of a part that is not the last one, and words of the line.
BROKEN = [
    (lambda call: call.say(-1, "Failed to write chunk data."),
     "it refuses bytes 524288 to 1048576 of"),
    (lambda call: call.say(0, data={"received": 7}),
     "was sent 1048576 bytes, and says that it has 7"),
    (servers.closing, "the connection was lost: it closed the connection without an answer"),
    (lambda call: call.send(413, b"Payload too large"), "answers uploadModel with 413"),
    (lambda call: call.send(503, b"Server busy"), "answers uploadModel with 503"),
    (lambda call: call.send(401), "wants a log-in for it"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("does", "words"), BROKEN)
def test_a_part_that_fails(does: Callable, words: str, device: Supervisor, first: Path) -> None:
    device.fault = lambda call: _in_place_of_upload(call, does, 3)
    done = deploy(device, first)
    said = wrong(done, done.returncode or -1)
    assert words in said
    assert "nothing has changed there" in said
    assert is_as_it_was(device)
    # What is left of it is in nobody's way.
    device.fault = None
    fine(deploy(device, first))
    assert has(device, first)


@pytest.mark.slow
def test_a_connection_that_is_cut_in_a_part(device: Supervisor, first: Path) -> None:
    def cut(call: Handler) -> bool | None:
        if not call.path.endswith("uploadModel") or uploads(device) < 3:
            return False
        call.rfile.read(1000)
        call.close_connection = True
        return None

    device.fault = cut
    assert "nothing has changed there" in wrong(deploy(device, first))
    assert is_as_it_was(device)


@pytest.mark.slow
@pytest.mark.parametrize("room", [700_000, SIZE])
def test_a_full_disk(room: int, device: Supervisor, first: Path) -> None:
    """In the second part; and in the last one, whose end it loses without a word."""
    device.room = room
    if room < SIZE:
        said = wrong(deploy(device, first))
        assert "refuses bytes 524288 to 1048576" in said
        assert is_as_it_was(device)
        return
    device.write = _forgetful(device)
    said = wrong(deploy(device, first))
    assert f"what is in place there is not what was sent, {room} bytes of" in said
    assert f"the one before is kept, {kept(device)}: .deploy-rollback sends it" in said
    assert kept(device).read_bytes() == b"the factory's model"


def _forgetful(device: Supervisor) -> Callable:
    def write(path: Path, content: bytes, offset: int = 0) -> int:
        Supervisor.write(device, path, content, offset)
        return len(content)

    return write


@pytest.mark.slow
def test_an_answer_that_is_lost(device: Supervisor, first: Path) -> None:
    """The device has done it all, only its answer never came: it is asked what it has."""

    def silenced(call: Handler) -> None:
        call.send = lambda *_, **__: None
        call.uploadModel()
        call.close_connection = True

    device.fault = lambda call: _in_place_of_upload(call, silenced, 4)
    fine(deploy(device, first))
    assert has(device, first)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["refused", "lied about"])
def test_a_switch_that_did_not_happen(
    last: str, device: Supervisor, first: Path, second: Path
) -> None:
    fine(deploy(device, second))
    does = {
        "refused": lambda call: call.say(-1, "Upload model failed. no space"),
        "lied about": lambda call: call.say(0, data={"received": first.stat().st_size}),
    }
    before = uploads(device)
    device.fault = lambda call: _in_place_of_upload(call, does[last], before + 4)
    said = wrong(deploy(device, first))
    assert "nothing has changed there" in said
    assert ("Upload model failed. no space" in said) == (last == "refused")
    assert has(device, second)
    # Nor is what can be gone back to forgotten.
    assert kept(device).read_bytes() == b"the factory's model"


@pytest.mark.slow
def test_a_side_car_that_did_not_get_there(device: Supervisor, first: Path) -> None:
    (device.path / "model.json.tmp").mkdir()
    said = wrong(deploy(device, first))
    assert "the new model is in place, and another side-car" in said
    assert ".deploy-rollback sends it" in said


@pytest.mark.slow
@pytest.mark.parametrize("is_first", [False, True])
def test_what_cannot_be_read_back(is_first: bool, device: Supervisor, first: Path) -> None:
    def gone(call: Handler) -> bool | None:
        if uploads(device) < 4 or call.path.endswith("uploadModel"):
            return False
        return call.send(500)

    device.fault = gone
    if is_first:
        device.model.unlink()
    said = wrong(deploy(device, first))
    assert "it can't be read back, so whether /userdata/Models/model.cvimodel is the new" in said
    assert (".deploy-rollback" in said) == kept(device).exists() == (not is_first)


@pytest.mark.slow
def test_another_upload_between_parts(device: Supervisor, first: Path, second: Path) -> None:
    """From another machine, which no lock here knows of: it ends first, and ours has no file."""

    def other(call: Handler) -> bool:
        if call.path.endswith("uploadModel") and uploads(device) == 3:
            device.fault = None
            new = device.model.with_name("model.cvimodel.tmp")
            new.write_bytes(second.read_bytes())
            new.replace(device.model)
        return False

    device.fault = other
    said = wrong(deploy(device, first))
    assert "Failed to open model file for writing;" in said
    assert device.model.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_two_from_here(device: Supervisor, first: Path) -> None:
    done: list = []

    def meanwhile(call: Handler) -> bool:
        if call.path.endswith("uploadModel") and not done:
            done.append(None)
            done[0] = subprocess.run(command, capture_output=True, text=True, check=False)
        return False

    command = [
        sys.executable, str(ROOT / "scripts/deploy_model.py"), str(first), "--device", "recamera",
        "--side-car", str(first.with_suffix(".json")), "--host", device.url,
        "--kept", str(kept(device).parent),
    ]  # fmt: skip
    device.fault = meanwhile
    fine(deploy(device, first))
    assert "another deploy to it is at work here" in wrong(done[0])
    assert has(device, first)


@pytest.mark.slow
def test_a_token(device: Supervisor, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.token = "t0ken=="
    said = wrong(deploy(device, first), 2)
    assert "uploadModel: it wants a log-in for it: DEVICE_TOKEN in the environment" in said
    assert is_as_it_was(device)
    monkeypatch.setenv("DEVICE_TOKEN", "0ther")
    said = wrong(deploy(device, first), 2)
    assert "doesn't take DEVICE_TOKEN, which may have expired" in said
    assert "0ther" not in said
    monkeypatch.setenv("DEVICE_TOKEN", "t0ken==")
    assert "t0ken" not in fine(deploy(device, first))
    assert has(device, first)


@pytest.mark.slow
def test_a_certificate_of_its_own(
    device: Supervisor, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "its.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=recamera",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    device.socket = context.wrap_socket(device.socket, server_side=True)
    monkeypatch.setattr(Supervisor, "url", property(lambda _: f"https://127.0.0.1:{_.server_port}"))
    assert "its certificate is not trusted here (self" in wrong(deploy(device, first), 2)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    fine(deploy(device, first))
    assert has(device, first)


@pytest.mark.slow
def test_nobody_there(first: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = helper("deploy_model", first, "--device", "recamera", "--host", url, "--kept",
                  first.parent, "--side-car", first.with_suffix(".json"))  # fmt: skip
    assert "no connection (Connection refused); is the board on" in wrong(done, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://", "http://192.168.42.1 or https://HOST:PORT is wanted"),
        ("http:cam", "is wanted"),
        ("http://cam:0", "is wanted"),
        ("http://cam:x", "is wanted"),
        ("http://[::1", "is wanted"),
        ("http://a b", "is wanted"),
        ("http://cam/api", "without a path"),
        ("https://cam?x=1", "without a path"),
        ("http://me:s3cret@cam", "without a name; a token is read from DEVICE_TOKEN"),
    ],
)
def test_what_is_no_address(text: str, words: str) -> None:
    with pytest.raises(BadInput, match="DEVICE_HOST: ") as error:
        web.Web.at(text)
    assert words in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://192.168.42.1", ("http", "192.168.42.1", 80)),
        ("HTTPS://reCamera.local:8443/", ("https", "recamera.local", 8443)),
        ("http://[fe80::1%25usb0]", ("http", "fe80::1%usb0", 80)),
    ],
)
def test_addresses(text: str, origin: tuple) -> None:
    assert web.is_address(text)
    assert web.Web.at(text).origin == origin


def test_what_is_said_at_once(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ("--host", "http://192.0.2.1")
    milkv = profiles.read("milkv")["title"]
    done = helper("deploy_model", first, "--device", "milkv", *there)
    assert f"{milkv} takes no models over HTTP" in refused(done)
    assert "use SSH: DEVICE_HOST=192.0.2.1" in done.stderr
    done = helper("measure_on_device", first, first.parent / "t.json", "--name", "m_int8",
                  "--device", "recamera", *there)  # fmt: skip
    assert "times are measured over SSH" in refused(done)
    (first.parent / "x.json").write_bytes(b"\xff")
    done = helper("deploy_model", first, "--device", "recamera", *there, "--side-car",
                  first.parent / "x.json")  # fmt: skip
    assert "x.json: not UTF-8" in refused(done)
    monkeypatch.setenv("DEVICE_TOKEN", "a\nb")
    done = helper("deploy_model", first, "--device", "recamera", *there)
    assert "DEVICE_TOKEN: there is more in it than a token has" in refused(done)


def test_profiles_with_such_an_interface() -> None:
    schema = json.loads((ROOT / "schemas/device.schema.json").read_text())
    profile = profiles.read("recamera")
    jsonschema.validate(profile, schema)
    assert profile["install"]["web"]["interface"] == "supervisor"
    profile["install"]["web"]["interface"] = "another"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(profile, schema)
