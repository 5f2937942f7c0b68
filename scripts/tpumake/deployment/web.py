"""A reCamera's own web interface, for where there is no SSH: model and side-car by HTTP.

Its source is public: Seeed-Studio/sscma-example-sg200x, solutions/supervisor, as of commit 2ac13a1
(api_device.cpp and http_server.h for what it takes and answers, www/src/api/device/index.ts for how
its own page sends). It writes parts of a model to a temporary file, and renames that when the last
one has come. Older ones take each part for a whole model, so it is found out first, by questions
that change nothing in any of them, which one is there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from tpumake.errors import BadInput, CheckFailed, Told
from tpumake.http_store import Origin, cause

__all__ = ["PART", "There", "Web", "is_address"]

# In bytes, as the device's own page sends.
PART = 512 << 10
# What the current interface says to an upload of nothing.
NOTHING = "No model file or model info provided."
# In bytes: of an answer, and of a model.
_MOST_SAID, _MOST_MODEL = 1 << 20, 256 << 20
# How long the device may be silent, and how long a call or a model may take in all.
_SILENT_SECONDS, _CALL_SECONDS, _MODEL_SECONDS = 20, 60, 600
# Some older ones write what is sent under the name that comes with it: nothing reads this one.
_PART_NAME = "tpumake.part"


def is_address(text: str) -> bool:
    """Whether a DEVICE_HOST is one of the web's."""
    return bool(re.match(r"https?:", text.strip(), re.IGNORECASE))


@dataclass(frozen=True)
class There:
    """A model and its side-car; empty where there is none."""

    model: bytes
    side_car: str

    def has(self, wanted: There) -> bool:
        """Whether this is that one, as far as that one goes."""
        return self.model == wanted.model and wanted.side_car in ("", self.side_car)

    def size(self) -> int:
        """Bytes of both."""
        return len(self.model) + len(self.side_car.encode())


class Web:
    """The interface at an address; one connection for each call.

    Neither redirects are followed nor proxies used: it is the device that is meant. A token goes
    with each call as the device's page sends its own, which a log-in gave it.

    :raises BadInput: whatever answers is not this interface, or wants a log-in
    :raises CheckFailed: it doesn't answer any more, or says no
    """

    def __init__(self, origin: Origin, token: str = "") -> None:
        self.origin = origin
        self._token = token
        self._reached = False

    @classmethod
    def at(cls, text: str) -> Web:
        """Read ``http://192.168.42.1``; nothing of it is repeated: it may hold a password."""
        wanted = "DEVICE_HOST: http://192.168.42.1 or https://HOST:PORT is wanted"
        try:
            parts = urlsplit(text.strip())
            host, port = unquote(parts.hostname or ""), parts.port
        except ValueError:
            raise BadInput(wanted) from None
        if parts.username is not None:
            raise BadInput(f"{wanted}, without a name; a token is read from DEVICE_TOKEN")
        if not re.fullmatch(r"[\w.:%-]+", host, re.ASCII) or port == 0:
            raise BadInput(wanted)
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise BadInput(f"{wanted}, without a path: that of the interface is known")
        token = os.environ.get("DEVICE_TOKEN", "").strip()
        if not re.fullmatch(r"[!-~]*", token):
            raise BadInput("DEVICE_TOKEN: there is more in it than a token has")
        return cls(Origin(parts.scheme, host, port or (443 if parts.scheme == "https" else 80)),
                   token)  # fmt: skip

    @property
    def host(self) -> str:
        """As messages name it."""
        return self.origin.host

    def software(self, cpu: str) -> str:
        """What runs there, by its own account."""
        told = self._data("queryDeviceInfo")
        if told.get("appName") != "supervisor" or told.get("cpu") != cpu:
            names = " on ".join(str(told.get(each))[:40] for each in ("appName", "cpu"))
            raise BadInput(f"{self.host}: it says that it is {names}, not supervisor on {cpu}: "
                           "another device?")  # fmt: skip
        return " ".join(str(told.get(each, ""))[:40] for each in ("osName", "osVersion")).strip()

    def there(self) -> There:
        """What is in place."""
        told = self._data("getModelInfo")
        # Of older ones, too, which tell more.
        if set(told) != {"model_info"} or not isinstance(told["model_info"], str):
            raise CheckFailed(self._old())
        # Of a text that is no text.
        side_car = told["model_info"].encode(errors="replace").decode()
        kind, model = self._ask("getModelFile", None, _MOST_MODEL, _MODEL_SECONDS)
        if kind.startswith("application/json"):
            raise CheckFailed(f"{self.host}: it has no model to read back: {_said(model)}")
        return There(model, side_car)

    def takes_parts(self, size: int) -> None:
        """Find out whether it takes models in parts, by an upload of nothing."""
        code, message, _ = self._call("uploadModel", _form({"offset": "0", "size": str(size)}))
        if (code, message) != (-1, NOTHING):
            raise CheckFailed(self._old())

    def upload(self, wanted: There, start: int) -> None:
        """Send a part of a model; with the last one the side-car, and both are put in place."""
        size = len(wanted.model)
        end = min(start + PART, size)
        fields: dict[str, str | bytes] = {"model_file": wanted.model[start:end]}
        fields |= {"offset": str(start), "size": str(size)}
        if end == size and wanted.side_car:
            fields["model_info"] = wanted.side_car
        code, message, data = self._call("uploadModel", _form(fields))
        if code != 0:
            raise CheckFailed(f"{self.host}: it refuses bytes {start} to {end} of {size}: "
                              f"{message.rstrip('.') or f'code {code}'}")  # fmt: skip
        if data.get("received") != end:
            raise CheckFailed(f"{self.host}: it was sent {end} bytes, and says that it has "
                              f"{str(data.get('received', 'none'))[:20]}")  # fmt: skip

    def _old(self) -> str:
        return (f"{self.host}: its web interface is not the one that is known here, and older ones "
                "take a part for the whole model; update its software, or use SSH: "
                f"DEVICE_HOST={self.host}")  # fmt: skip

    def _data(self, call: str) -> dict:
        code, message, data = self._call(call)
        if code != 0:
            raise CheckFailed(
                f"{self.host}: {call} ends with {message.rstrip('.') or f'code {code}'}"
            )
        return data

    def _call(self, call: str, form: tuple[str, bytes] | None = None) -> tuple[int, str, dict]:
        """Its code, its message, and its data."""
        _, text = self._ask(call, form, _MOST_SAID, _CALL_SECONDS)
        try:
            told = json.loads(text)
            code, message, data = told["code"], str(told.get("msg", "")), told.get("data")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise BadInput(f"{self.host}: answers {call} with something else than a reCamera does; "
                           "is it one?") from None  # fmt: skip
        return code, message[:200], data if isinstance(data, dict) else {}

    def _ask(
        self, call: str, form: tuple[str, bytes] | None, most: int, seconds: float
    ) -> tuple[str, bytes]:
        """An answer's type and body; that of a file that is not there is empty."""
        try:
            with self._connected(seconds) as connection:
                answer = self._request(connection, call, form)
                self._reached = True
                if answer.status == 404 and call == "getModelFile":
                    return "", b""
                if answer.status == 200:
                    return answer.headers.get_content_type(), self._body(call, answer, most)
                status, reason = answer.status, answer.reason
                place = answer.getheader("Location", "")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._lost(error) from None
        if status in (401, 403):
            words = ("doesn't take DEVICE_TOKEN, which may have expired" if self._token else
                     "wants a log-in for it: DEVICE_TOKEN in the environment is what its page gets "
                     "by one")  # fmt: skip
            raise BadInput(f"{self.host}: {call}: it {words}; or use SSH: DEVICE_HOST={self.host}")
        if 300 <= status < 400:
            secure = place.startswith("https://") and self.origin.scheme == "http"
            hint = f"; try DEVICE_HOST=https://{self.host}" if secure else ""
            raise BadInput(f"{self.host}: has no {call}, but leads to {place[:100]}: another "
                           f"device, or other software than is known here{hint}")  # fmt: skip
        if status in (404, 405, 501):
            raise BadInput(f"{self.host}: has no {call} ({status}): another device, or other "
                           "software than is known here")  # fmt: skip
        raise CheckFailed(f"{self.host}: answers {call} with {status} {reason[:60]}".rstrip())

    def _body(self, call: str, answer: http.client.HTTPResponse, most: int) -> bytes:
        size = answer.length
        if size is None:
            raise CheckFailed(f"{self.host}: answers {call} without a length, so that nobody knows "
                              "whether that is all")  # fmt: skip
        if size > most:
            raise CheckFailed(f"{self.host}: answers {call} with {size} bytes, more than {most}")
        body = answer.read(size)
        if len(body) < size:
            raise http.client.IncompleteRead(body, size - len(body))
        return body

    def _request(
        self, connection: http.client.HTTPConnection, call: str, form: tuple[str, bytes] | None
    ) -> http.client.HTTPResponse:
        headers = {"User-Agent": "tpumake", "Connection": "close"}
        if self._token:
            headers["Authorization"] = self._token
        path = f"/api/deviceMgr/{call}"
        if form is None:
            connection.request("GET", path, headers=headers)
        else:
            # Who won't have it may say so, and close, before all of it was sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", path, form[1], headers | {"Content-Type": form[0]})
        return connection.getresponse()

    @contextlib.contextmanager
    def _connected(self, seconds: float) -> Iterator[http.client.HTTPConnection]:
        """A connection that ends after these seconds whatever goes on in it."""
        secure = self.origin.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self.origin.host, self.origin.port, timeout=_SILENT_SECONDS)
        is_late = threading.Event()

        def end() -> None:
            # Before, or who wakes by it doesn't know why.
            is_late.set()
            # TLS without its good-bye: whoever waits there is in the middle of something.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

        late = threading.Timer(seconds, end)
        late.daemon = True
        try:
            connection.connect()
            connected = connection.sock
            late.start()
            try:
                yield connection
            except Exception:
                if not is_late.is_set():
                    raise
            # Headers that were cut off look like their end.
            if is_late.is_set():
                raise TimeoutError
        finally:
            late.cancel()
            connection.close()

    def _lost(self, error: Exception) -> Told:
        if isinstance(error, ssl.SSLCertVerificationError):
            return BadInput(f"{self.host}: its certificate is not trusted here "
                            f"({error.verify_message}); SSL_CERT_FILE=its.pem in the environment "
                            "trusts it")  # fmt: skip
        if self._reached:
            return CheckFailed(f"{self.host}: the connection was lost: {cause(error)}")
        return BadInput(f"{self.host}: no connection ({cause(error)}); is the board on, in the "
                        "same network, and the port right?")  # fmt: skip


def _form(fields: dict[str, str | bytes]) -> tuple[str, bytes]:
    """Fields as multipart/form-data (RFC 7578): its type, and the body."""
    contents = {name: value.encode() if isinstance(value, str) else value
                for name, value in fields.items()}  # fmt: skip
    boundary = secrets.token_hex(20)
    while any(boundary.encode() in content for content in contents.values()):
        boundary = secrets.token_hex(20)
    body = b""
    for name, content in contents.items():
        file = f'; filename="{_PART_NAME}"' if name == "model_file" else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def _said(text: bytes) -> str:
    try:
        return str(json.loads(text)["msg"])[:200]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "it doesn't say why"
