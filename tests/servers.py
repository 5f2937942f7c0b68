"""Servers for tests of the remote cache: a real one, and one that does what it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# What a fault does: it sends something, or nothing, instead of the answer; False: the answer, too.
Fault = Callable[["Handler"], "bool | None"]


class Handler(BaseHTTPRequestHandler):
    """GET, HEAD and PUT of whatever names, as any simple server has them."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def answer(self) -> None:
        self.server.asked.append((self.command, self.path))
        self.server.headers.append(dict(self.headers))
        fault = self.server.fault
        if fault and fault(self) is not False:
            return
        self.serve()

    do_GET = do_HEAD = do_PUT = answer

    def serve(self) -> None:
        if self.command == "PUT":
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.kept[self.path] = content
            self.send(201)
        elif self.path in self.server.kept:
            self.send(200, self.server.kept[self.path])
        else:
            self.send(404, b"<html>there is no such thing</html>")

    def send(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        # A bucket's answers have these two.
        named = {"ETag": '"1"', "Last_Modified": formatdate(0, usegmt=True)}
        named |= {"Content_Length": str(len(body))} | headers
        for name, value in named.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Keeps what is put there, tells what it was asked, and has a fault if it is given one."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: type[Handler] = Handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.kept: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.fault: Fault | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self) -> list[str]:
        """What was put there, in this order."""
        return [path for verb, path in self.asked if verb == "PUT"]

    def handle_error(self, *_: object) -> None:
        """Clients go away in the middle, which is what some tests are about."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def dav(folder: Path, logins: dict[str, str]) -> Iterator[str]:
    """A WebDAV server of a folder's folders `open` and, for who has a login, `closed`."""
    from cheroot.wsgi import Server as Cheroot
    from wsgidav.wsgidav_app import WsgiDAVApp

    for name in ("open", "closed"):
        (folder / name).mkdir()
    users = {name: {"password": password} for name, password in logins.items()}
    application = WsgiDAVApp(
        {
            "provider_mapping": {f"/{name}": str(folder / name) for name in ("open", "closed")},
            "simple_dc": {"user_mapping": {"/open": True, "/closed": users}},
            "http_authenticator": {"accept_digest": False, "default_to_digest": False},
            "verbose": 0,
            "logging": {"enable": False},
        }
    )
    server = Cheroot(("127.0.0.1", 0), application, numthreads=8)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join()


def silent(handler: Handler) -> None:
    time.sleep(30)


def dripping(handler: Handler) -> None:
    """Never idle for long, and never done."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(300):
        handler.wfile.write(f"X-{number}: x\r\n".encode())
        time.sleep(0.1)


def dripping_files(handler: Handler) -> bool | None:
    return dripping(handler) if "/cas/" in handler.path else False


def closing(handler: Handler) -> None:
    handler.close_connection = True


def gibberish(handler: Handler) -> None:
    handler.wfile.write(b"220 smtp.example ready\r\n")
    handler.close_connection = True


def failing(handler: Handler) -> None:
    handler.close_connection = True
    handler.send(500, b"<html>database is down</html>")


def refusing(handler: Handler) -> None:
    handler.close_connection = True
    handler.send(401, WWW_Authenticate='Basic realm="cache"')


def circling(handler: Handler) -> None:
    handler.send(302, Location=handler.path)


def endless(handler: Handler) -> None:
    """A body without an end, in chunks."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


def truncated_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/pl")
    handler.close_connection = True


def truncated(handler: Handler) -> bool | None:
    body = handler.server.kept.get(handler.path)
    if body is None:
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True
    return None
