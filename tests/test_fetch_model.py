"""Fetching networks, from a server on this machine that can break off, lie and redirect."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

import fetch_model
from tpumake.errors import BadInput

NETWORK = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Serves NETWORK; ``broken_at``: where the next answer ends; ``ranges``: what was asked for."""

    broken_at: int | None = None
    ranges: list[str | None]
    resumes = True


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
        start = int(asked[6:-1]) if asked and self.server.resumes else 0
        if start >= len(NETWORK):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(NETWORK) - start))
        self.end_headers()
        end, self.server.broken_at = self.server.broken_at, None
        self.wfile.write(NETWORK[start:end])

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


def test_a_complete_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.onnx.part").write_bytes(NETWORK)
    fetch(server, tmp_path)
    assert (tmp_path / "m.onnx").read_bytes() == NETWORK


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
