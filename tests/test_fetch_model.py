"""Fetching networks, from a server on this machine that can break off, lie and redirect."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import helper, refused

import fetch_model
from tpumake.errors import BadInput

NETWORK = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Serves a network; ``broken_at``: where the next answer ends; ``ranges``: what was asked for.

    ``mark``: by which the server knows the file; ``length``: what it says of its length.
    """

    broken_at: int | None = None
    ranges: list[str | None]
    resumes = True
    network = NETWORK
    mark = '"one"'
    length: str | None = None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.path == "/gone":
            self.send_error(404, "Not Found")
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1/network")
            self.end_headers()
            return
        network, same = self.server.network, self.headers.get("If-Range") == self.server.mark
        start = int(asked[6:-1]) if asked and same and self.server.resumes else 0
        if start >= len(network):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.server.length != "":
            self.send_header("Content-Length", self.server.length or str(len(network) - start))
        if self.server.mark:
            self.send_header("ETag", self.server.mark)
        self.end_headers()
        end, self.server.broken_at = self.server.broken_at, None
        with suppress(ConnectionError):
            self.wfile.write(network[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.ranges = []
    # It looks that often whether it shall end.
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(server: Server, folder: Path, path: str = "network") -> str:
    opener = urllib.request.build_opener(fetch_model._SecureRedirects())
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    return fetch_model.fetch(url, folder / "m.onnx", folder / "fetched.lock", opener)


def test_the_first_fetch_pins_the_digest(server: Server, tmp_path: Path) -> None:
    digest = fetch(server, tmp_path)
    assert (tmp_path / "m.onnx").read_bytes() == NETWORK
    assert digest == hashlib.sha256(NETWORK).hexdigest()
    assert (tmp_path / "fetched.lock").read_text() == f"{digest}  {tmp_path}/m.onnx\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched.lock", "m.onnx"]


@pytest.mark.parametrize("resumes", [True, False])
def test_what_broke_off_is_gone_on_from(server: Server, tmp_path: Path, resumes: bool) -> None:
    server.broken_at, server.resumes = 300_000, resumes
    with pytest.raises(BadInput, match=r"broke off at 0\.3 of 1\.0 MB.*run again"):
        fetch(server, tmp_path)
    assert not (tmp_path / "m.onnx").exists()
    fetch(server, tmp_path)
    assert server.ranges == [None, "bytes=300000-"]
    assert (tmp_path / "m.onnx").read_bytes() == NETWORK


def left(server: Server, folder: Path, data: bytes, path: str = "network") -> None:
    """What a fetch that broke off left."""
    (folder / "m.onnx.part").write_bytes(data)
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    (folder / "m.onnx.part.from").write_text(f'{url}\n"one"\n')


def test_a_complete_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    left(server, tmp_path, NETWORK)
    fetch(server, tmp_path)
    assert (tmp_path / "m.onnx").read_bytes() == NETWORK
    assert server.ranges == [f"bytes={len(NETWORK)}-"]


def test_a_part_of_another_file_is_not_gone_on_from(server: Server, tmp_path: Path) -> None:
    # Of another address; of the same, where there is another file now; of who knows where.
    left(server, tmp_path, b"x" * 1000, "other")
    fetch(server, tmp_path)
    assert (tmp_path / "m.onnx").read_bytes() == NETWORK
    left(server, tmp_path, b"x" * 1000)
    server.mark = '"two"'
    fetch(server, tmp_path)
    assert (tmp_path / "m.onnx").read_bytes() == NETWORK
    (tmp_path / "m.onnx.part").write_bytes(b"x" * 1000)
    fetch(server, tmp_path)
    assert (tmp_path / "m.onnx").read_bytes() == NETWORK
    assert server.ranges == [None, "bytes=1000-", None]


@pytest.mark.parametrize("mark", ["", 'W/"weak"', "no mark", '"\x1b[2J"'])
def test_without_a_mark_to_rely_on_it_begins_again(
    server: Server, tmp_path: Path, mark: str
) -> None:
    server.mark, server.broken_at = mark, 300_000
    with pytest.raises(BadInput, match="broke off"):
        fetch(server, tmp_path)
    fetch(server, tmp_path)
    assert server.ranges == [None, None]
    assert (tmp_path / "m.onnx").read_bytes() == NETWORK


def test_no_more_is_taken_than_a_network_can_have(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_model, "LARGEST", 500_000)
    with pytest.raises(BadInput, match="more than a network can have"):
        fetch(server, tmp_path)
    # It need not say how much it sends.
    server.length = ""
    with pytest.raises(BadInput, match="sends without end"):
        fetch(server, tmp_path)
    assert not (tmp_path / "m.onnx.part").exists()


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_model, "PATIENCE", 0.0)
    monkeypatch.setattr(fetch_model, "SLOWEST", 1e12)
    with pytest.raises(BadInput, match=r"only \d+ bytes came in \d+ s; run again"):
        fetch(server, tmp_path)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("length", ["many", "-5", "1" * 5000])
def test_a_length_that_is_none(server: Server, tmp_path: Path, length: str) -> None:
    server.length = length
    try:
        fetch(server, tmp_path)
    except BadInput as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "line",
    ["0" * 63 + "  m.onnx", "0" * 64 + " m.onnx", "0" * 64, "m.onnx", "\x1b[2J", "0" * 64 + "  ",
     "X" * 64 + "  m.onnx", "0" * 64 + "  a\n" + "1" * 64 + "  ./a"],
)  # fmt: skip
def test_a_lock_that_is_damaged_pins_nothing_anew(
    server: Server, tmp_path: Path, line: str
) -> None:
    (tmp_path / "fetched.lock").write_text(f"{line}\n")
    with pytest.raises(BadInput, match=r"fetched\.lock, line \d: "):
        fetch(server, tmp_path)
    assert (tmp_path / "fetched.lock").read_text() == f"{line}\n"
    assert not (tmp_path / "m.onnx").exists()


def test_a_name_is_pinned_however_it_is_written(server: Server, tmp_path: Path) -> None:
    lock = tmp_path / "fetched.lock"
    lock.write_text(f"{'0' * 64} *{tmp_path}/./m.onnx\n")
    with pytest.raises(BadInput, match="lock says"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("url", ["https://[", "https://h:x/", "https://h:99999/", "https:///x",
                                 "https://\x1b[2J/", "https://a b/", "file:///etc/passwd",
                                 f"https://{'a' * 70}.invalid/ü"])  # fmt: skip
def test_an_address_that_is_none_is_one_line(tmp_path: Path, url: str) -> None:
    refused(helper("fetch_model", url, tmp_path / "m.onnx", "--lock", tmp_path / "lock"))
    assert not list(tmp_path.iterdir())


def test_other_bytes_than_the_locked_ones_are_refused(server: Server, tmp_path: Path) -> None:
    lock = tmp_path / "fetched.lock"
    lock.write_text(f"{'0' * 64}  {tmp_path}/m.onnx\n")
    with pytest.raises(BadInput, match=rf"fetched\.lock says {'0' * 64}"):
        fetch(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fetched.lock"]
    assert "0" * 64 in lock.read_text()


def test_a_missing_file_is_one_line_that_says_where_to_put_it(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"404 Not Found; put the file at .*m\.onnx by hand"):
        fetch(server, tmp_path, "gone")


def test_a_redirect_to_plain_http_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not HTTPS"):
        fetch(server, tmp_path, "elsewhere")


def test_no_server_is_one_line(tmp_path: Path) -> None:
    opener = urllib.request.build_opener()
    with pytest.raises(BadInput, match=r"run again to go on, or put the file at"):
        fetch_model.fetch("http://127.0.0.1:9/x", tmp_path / "m", tmp_path / "lock", opener)


def test_only_https_is_fetched() -> None:
    done = CliRunner().invoke(fetch_model.main, ["http://127.0.0.1/x", "m.onnx"])
    assert isinstance(done.exception, BadInput)
    assert "only HTTPS" in str(done.exception)
