"""A reCamera's web interface for tests: what its published source does to a request, on a folder.

Written from Seeed-Studio/sscma-example-sg200x, solutions/supervisor: ``current`` is its commit
2ac13a1, ``folder`` the one before, and ``first`` the one before that. None of them is any board.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from servers import Handler, Server

FORM = "multipart/form-data"


class Supervisor(Server):
    """``path``: the folder of models there; ``token``: what uploads take, empty if anybody may."""

    def __init__(self, path: Path, kind: str = "current") -> None:
        super().__init__(Calls)
        self.path, self.kind, self.token = path, kind, ""
        self.told = {"appName": "supervisor", "cpu": "sg2002", "osName": "reCameraOS",
                     "osVersion": "0.2.1"}  # fmt: skip
        # How many bytes go on the disk yet.
        self.room: int | None = None

    @property
    def model(self) -> Path:
        return self.path / "model.cvimodel"

    @property
    def side_car(self) -> Path:
        return self.path / "model.json"

    def calls(self) -> list[str]:
        return [path.rpartition("/")[2] for _, path in self.asked]

    def write(self, path: Path, content: bytes, offset: int = 0) -> int:
        """As a disk does: what fits. How much that was."""
        fits = content if self.room is None else content[: self.room]
        if self.room is not None:
            self.room -= len(fits)
        with path.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(fits)
        return len(fits)


class Calls(Handler):
    """Its calls."""

    server: Supervisor

    do_POST = Handler.answer

    def serve(self) -> None:
        call = self.path.removeprefix("/api/deviceMgr/")
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.server.token
        if call == "uploadModel" and token and self.headers.get("Authorization") != token:
            return self.send(401, b"Unauthorized", Content_Type="text/plain")
        does = getattr(self, call, None)
        if not does:
            return self.send(307, Location=f"http://{self.headers['Host']}/")
        return does()

    def say(self, code: int, msg: str = "OK", data: dict | None = None) -> None:
        text = json.dumps({"code": code, "msg": msg, "data": data or {}}).encode()
        self.send(200, text, Content_Type="application/json")

    def queryDeviceInfo(self) -> None:
        self.say(0, data=self.server.told)

    def getModelInfo(self) -> None:
        data = {}
        if self.server.kind == "first":
            data = {"model_md5": "d41d8cd98f00b204e9800998ecf8427e"}
        elif self.server.kind == "folder":
            data = {"file": str(self.server.model), "info": str(self.server.side_car)}
        there = self.server.side_car
        self.say(0, data=data | {"model_info": there.read_text() if there.exists() else ""})

    def getModelFile(self) -> None:
        if not self.server.model.exists():
            return self.send(404, b"Not found\n", Content_Type="text/plain")
        return self.send(200, self.server.model.read_bytes(), Content_Type="text/plain")

    def uploadModel(self) -> None:
        getattr(self, f"upload_to_{self.server.kind}")(parts(self.body))

    def upload_to_first(self, form: dict) -> None:
        if "model_file" in form:
            self.server.model.write_bytes(form["model_file"][1])
        self.server.side_car.write_bytes(form.get("model_info", ("", b""))[1])
        self.say(0, "upload model successfully")

    def upload_to_folder(self, form: dict) -> None:
        named = {name: content for name, content in form.values() if name and content}
        for name, content in named.items():
            (self.server.path / name).write_bytes(content)
        self.say(0, data={"count": len(named), "list": list(named)})

    def upload_to_whole(self, form: dict) -> None:
        """One that nobody has seen: as careless as the older ones, but for its answers."""
        if "model_file" not in form:
            return self.upload_to_current(form)
        self.server.model.write_bytes(form["model_file"][1])
        return self.say(0)

    def upload_to_current(self, form: dict) -> None:
        form = {name: content for name, (_, content) in form.items() if content}
        offset, size = (_number(form.get(name)) for name in ("offset", "size"))
        places = {"model_file": self.server.model, "model_info": self.server.side_car}
        new = {name: path.with_name(f"{path.name}.tmp") for name, path in places.items()}
        data: dict = {}
        if "model_file" in form:
            part = form["model_file"]
            in_parts = offset >= 0 and size > 0
            try:
                wrote = self.server.write(new["model_file"], part, offset if in_parts else 0)
            except FileNotFoundError:
                return self.say(-1, "Failed to open model file for writing.")
            if in_parts:
                if wrote != len(part):
                    return self.say(-1, "Failed to write chunk data.")
                data = {"offset": offset + len(part), "received": offset + len(part)}
                if offset + len(part) < size:
                    return self.say(0, data=data)
        if "model_info" in form:
            with contextlib.suppress(OSError):
                self.server.write(new["model_info"], form["model_info"])
        if not {"model_file", "model_info"} & set(form):
            return self.say(-1, "No model file or model info provided.")
        assert "model_file" in form, "nobody here sends a side-car alone"
        try:
            for name in new:
                if name in form:
                    new[name].replace(places[name])
        except OSError as error:
            return self.say(-1, f"Upload model failed. {error}")
        return self.say(0, data=data | {"list": [{name: "…"} for name in new if name in form]})


def parts(body: bytes) -> dict[str, tuple[str, bytes]]:
    """The file name and content of each part: the first line is what parts them."""
    boundary = body.partition(b"\r\n")[0]
    found = {}
    for part in body.split(boundary + b"\r\n")[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        content = content.removesuffix(boundary + b"--\r\n").removesuffix(b"\r\n")
        words = dict(word.partition("=")[::2] for word in head.decode().split("; "))
        found[words["name"].strip('"')] = (words.get("filename", "").strip('"'), content)
    return found


def _number(text: bytes | None) -> int:
    with contextlib.suppress(TypeError, ValueError):
        return int(text)
    return -1
