"""The remote cache: what two machines share, and what no server can do to a build."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import servers
from conftest import QUICK, ROOT, Checkout, copy_project
from servers import Server, dav, serving
from test_cache import Tree, blobs, entries

from tpumake import exchange
from tpumake.address import Address
from tpumake.cache import Cache, seal
from tpumake.errors import BadInput
from tpumake.http_store import HttpStore
from tpumake.keys import Key, Record, sha256
from tpumake.store import Lie, NoWrites, Unusable

# Together they take more than `make test-fast` has; what is quick stands for them there.
slow = pytest.mark.slow
WRITE = {"CACHE_REMOTE_MODE": "read-write"}
SECRET = "pass/wörd@1"
QUOTED = "pass%2Fw%C3%B6rd%401"


class Machine(Tree):
    """A checkout with one stage and a cache of its own."""

    def __init__(self, folder: Path, remote: str = "") -> None:
        folder.mkdir()
        super().__init__(folder / "tree", folder / "cache")
        self.remote = remote

    def run(self, *options: str, **environment: str) -> str:
        own = {"CACHE_REMOTE": self.remote, "CACHE_REMOTE_TIMEOUT": "20"}
        return super().run(*options, **own | environment)

    @property
    def notes(self) -> list[dict]:
        place = self.folder / "build/.remote"
        return [json.loads(line) for line in place.read_text().splitlines()]


def warnings(said: str) -> list[str]:
    return [line for line in said.splitlines() if "warning:" in line]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a server has after one machine has built."""
    server = Server()
    with serving(server):
        Machine(tmp_path_factory.mktemp("first") / "one", server.url).run(**WRITE)
    return server.kept


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[Server]:
    server = Server()
    server.kept = dict(files)
    with serving(server):
        yield server


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Machine:
    """One that has built nothing, and knows of the server."""
    return Machine(tmp_path / "one", server.url)


@pytest.fixture(scope="module")
def webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real server, which has the folders that it would not make by itself."""
    folder = tmp_path_factory.mktemp("dav")
    with dav(folder, {"me": SECRET}) as url:
        for kind in ("ac", "cas"):
            (folder / "open" / kind).mkdir()
            (folder / "closed" / kind).mkdir()
        yield url, folder


@pytest.mark.slow
def test_a_second_machine_builds_nothing(webdav: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = webdav
    one, two = (Machine(tmp_path / name, f"{url}/open/") for name in ("one", "two"))
    assert warnings(one.run(**WRITE)) == []
    said = two.run("--why")
    assert (one.runs, two.runs) == (1, 0)
    assert re.search(r"^m +downgrade +the figure +remote$", said, re.M)
    assert "comes from the remote cache: it has not run yet" in said
    assert [note["result"] for note in one.notes] == ["miss", "kept"]
    assert [note["result"] for note in two.notes] == ["hit"]
    for name in ("made/out", "logs/stage.log"):
        assert (two.folder / name).read_bytes() == (one.folder / name).read_bytes()
    # The record tells where it is from, and is the same otherwise.
    ours, theirs = (json.loads((each.folder / "logs/stage.key").read_text()) for each in (one, two))
    assert theirs == ours | {"cached": "remote"}
    # From then on it is in the cache of the second machine, too, byte for byte.
    third = Tree(tmp_path / "third", two.cache)
    assert third.run().rstrip().endswith("cached")
    assert third.runs == 0
    assert [path.read_bytes() for path in entries(two.cache)] == [
        path.read_bytes() for path in entries(one.cache)
    ]
    # The layout is that of bazel-remote: full digests, of the key and of the contents.
    assert {path.name for path in (folder / "open/cas").iterdir()} == {
        path.name for path in blobs(one.cache)
    }
    assert all(sha256(path) == path.name for path in (folder / "open/cas").iterdir())
    (entry,) = (folder / "open/ac").iterdir()
    assert entry.name == ours["digest"]
    text = entry.read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_by_default_it_is_only_read(machine: Machine, server: Server, files) -> None:
    (machine.folder / "in").write_text("other")
    assert warnings(machine.run()) == []
    assert machine.runs == 1
    assert [verb for verb, _ in server.asked] == ["GET"]
    assert server.kept == files


def test_cache_0_is_without_the_remote_one_too(machine: Machine, server: Server) -> None:
    machine.run(CACHE="0", **WRITE)
    assert machine.runs == 1
    assert server.asked == []


@slow
def test_without_one_nothing_of_it_is_imported(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree", tmp_path / "cache")
    command = [
        sys.executable, "-S", "-X", "importtime", str(ROOT / "scripts/run_stage.py"), "--stage",
        "downgrade", "--model", "m", "--build", "build", "--log", "logs/stage.log", "--in", "in",
        "--out", "out", "--", "/bin/cp", "in", "out",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tree.folder, text=True, capture_output=True, check=True,
        env=os.environ | {"CACHE": "1", "CACHE_DIR": str(tree.cache), "CACHE_REMOTE": ""},
    )  # fmt: skip
    assert "tpumake.cache" in done.stderr
    assert not re.search(r"http\.client|\bssl|tpumake\.(remote|exchange|store)\b", done.stderr)


@slow
@pytest.mark.parametrize("way", ["address", "netrc", "wrong", "nobody"])
def test_names_and_passwords(webdav: tuple[str, Path], tmp_path: Path, way: str) -> None:
    """They are used, and are nowhere afterwards."""
    url, folder = webdav
    login = {"address": f"me:{QUOTED}@", "wrong": f"me:{QUOTED}x@"}.get(way, "")
    machine = Machine(tmp_path / "one", f"{url}/closed/".replace("//", f"//{login}", 1))
    (machine.folder / "in").write_text(way)
    netrc = tmp_path / "netrc"
    if way == "netrc":
        netrc.write_text(f'machine 127.0.0.1 login me password "{SECRET}"\n')
    said = machine.run("--verbose", "--why", NETRC=str(netrc), **WRITE)
    keys = {path.name for path in (folder / "closed/ac").iterdir()}
    there = machine.folder / "logs/stage.key"
    if way in ("address", "netrc"):
        assert warnings(said) == []
        assert json.loads(there.read_text())["digest"] in keys
    else:
        assert "401" in warnings(said)[0]
    everything = [said, *(path.read_text(errors="replace") for path in machine.folder.rglob("*")
                          if path.is_file())]  # fmt: skip
    everything += [path.read_text(errors="replace") for path in entries(machine.cache)]
    for secret in (SECRET, QUOTED, "bWU6"):
        assert not [text for text in everything if secret in text]


@slow
def test_a_token(machine: Machine, server: Server) -> None:
    machine.run(CACHE_REMOTE_TOKEN="t0ken")
    assert {header["Authorization"] for header in server.headers} == {"Bearer t0ken"}


@slow
def test_tools_are_not_told(tmp_path: Path, server: Server) -> None:
    tree = Tree(tmp_path / "tree", tmp_path / "cache")
    remote = server.url.replace("//", f"//me:{QUOTED}@")
    command = [
        sys.executable, "-S", str(ROOT / "scripts/run_stage.py"), "--stage", "downgrade",
        "--model", "m", "--build", "build", "--log", "logs/stage.log", "--in", "in", "--out", "out",
        "--", "/bin/sh", "-c", "env; cp in out",
    ]  # fmt: skip
    own = {"CACHE": "1", "CACHE_DIR": str(tree.cache), "CACHE_REMOTE": remote,
           "CACHE_REMOTE_TOKEN": "t0ken", "MAKEFLAGS": f" -- CACHE_REMOTE={remote}"}  # fmt: skip
    subprocess.run(command, cwd=tree.folder, env=os.environ | own, check=True, capture_output=True)
    log = (tree.folder / "logs/stage.log").read_text()
    assert "CACHE_DIR" in log
    assert QUOTED not in log
    assert "t0ken" not in log


# What a server does, and the warning that it gets; bodies are of what is asked for.
FAULTS = {
    "silent": (servers.silent, "its answer took more than 1 s|no answer in time"),
    "dripping": (servers.dripping, "its answer took more than 1 s"),
    "dripping files": (servers.dripping_files, "[0-9.]+ MB took more than 1 s"),
    "closing": (servers.closing, "closed the connection without an answer"),
    "gibberish": (servers.gibberish, "220 smtp"),
    "failing": (servers.failing, "answers GET with 500"),
    "refusing": (servers.refusing, "answers GET with 401"),
    "circling": (servers.circling, "redirects for ever"),
    "truncated": (servers.truncated, "broke off after"),
}


@slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_fails_costs_a_warning(machine: Machine, server: Server, name: str) -> None:
    server.fault, warning = FAULTS[name]
    started = time.monotonic()
    # A second is not enough for others on a busy machine.
    said = machine.run(CACHE_REMOTE_TIMEOUT="1" if " 1 s" in warning else "20", **WRITE)
    assert time.monotonic() - started < 10
    assert machine.runs == 1
    assert len(warnings(said)) == 1
    assert re.search(warning, warnings(said)[0])
    assert f"{server.url}: " in warnings(said)[0]
    # For the rest of this make it is left alone, and nothing more is told.
    asked = len(server.asked)
    (machine.folder / "in").write_text("other")
    assert warnings(machine.run(**WRITE)) == []
    assert machine.runs == 2
    assert len(server.asked) == asked
    assert server.put() == []


@slow
def test_the_next_make_asks_again(machine: Machine, server: Server) -> None:
    server.fault = servers.failing
    machine.run()
    server.fault = None
    (machine.folder / "made/out").unlink()
    (machine.folder / "logs/stage.key").unlink()
    for place in entries(machine.cache):
        place.unlink()
    place = machine.folder / "build/.remote"
    place.write_text(place.read_text().replace('"make": "', '"make": "before '))
    assert "remote" in machine.run()
    assert machine.runs == 1


@pytest.mark.slow
def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    server = Server()
    server.server_close()
    machine = Machine(tmp_path / "one", server.url)
    (line,) = warnings(machine.run(**WRITE))
    assert "Connection refused; this make goes on without it" in line
    assert machine.runs == 1


@slow
def test_one_that_vanishes_in_the_middle(machine: Machine, server: Server) -> None:
    def vanish(handler: servers.Handler) -> bool | None:
        handler.close_connection = True
        return False if "/ac/" in handler.path else None

    server.fault = vanish
    said = machine.run()
    assert machine.runs == 1
    assert len(warnings(said)) == 1


@slow
@pytest.mark.slow
def test_stages_side_by_side_warn_once(tmp_path: Path) -> None:
    server = Server()
    server.server_close()
    tree = Machine(tmp_path / "one", server.url)
    environment = os.environ | {
        "CACHE": "1", "CACHE_DIR": str(tree.cache), "CACHE_REMOTE": server.url
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, "-S", str(ROOT / "scripts/run_stage.py"), "--stage", "downgrade",
             "--model", "m", "--build", "build", "--log", f"logs/{number}.log", "--in", "in",
             "--out", f"made/out{number}", "--", "/bin/cp", "in", f"out{number}"],
            cwd=tree.folder, env=environment, stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    said = "".join(process.communicate()[0] for process in started)
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(warnings(said)) == 1


def spoil(kept: dict[str, bytes], kind: str, change) -> None:
    for name in [name for name in kept if name.startswith(f"/{kind}/")]:
        kept[name] = change(kept[name])


LIES = {
    "other bytes": ("cas", lambda body: body[:-1] + b"\1"),
    "longer": ("cas", lambda body: body + b"x"),
    "a login page": ("ac", lambda body: b"<html>Who are you?</html>"),
    "a large entry": ("ac", lambda body: b" " * (exchange.ENTRY_MOST + 1)),
    "brackets": ("ac", lambda body: b"[" * 100_000),
}


@slow
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_seen_told_once_and_mended(
    machine: Machine, server: Server, files: dict[str, bytes], lie: str, tmp_path: Path
) -> None:
    kind, change = LIES[lie]
    spoil(server.kept, kind, change)
    said = machine.run(**WRITE)
    assert machine.runs == 1
    (line,) = warnings(said)
    assert "what it has there is not used" in line
    # The machine that may write puts right what is there, and others have it.
    assert server.kept.keys() == files.keys()
    assert all(server.kept[name] == files[name] for name in files if "/cas/" in name)
    other = Machine(tmp_path / "other", server.url)
    other.run()
    assert other.runs == 0


@slow
def test_a_body_without_an_end(machine: Machine, server: Server) -> None:
    server.fault = lambda handler: servers.endless(handler) if "/cas/" in handler.path else False
    (line,) = warnings(machine.run())
    assert "is larger than it is told to be" in line
    assert machine.runs == 1


@slow
def test_what_a_server_has_dropped_is_no_more_than_missing(
    machine: Machine, server: Server
) -> None:
    for name in [name for name in server.kept if name.startswith("/cas/")]:
        del server.kept[name]
    assert warnings(machine.run(**WRITE)) == []
    assert machine.runs == 1
    assert [name for name in server.kept if name.startswith("/cas/")], "it is there again"


class Shelf:
    """A store in memory."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        self.kept = kept
        self.asked: list[str] = []

    def get(self, name: str, target: Path, most: int) -> bool:
        self.asked.append(name)
        if f"/{name}" in self.kept:
            target.write_bytes(self.kept[f"/{name}"])
        return f"/{name}" in self.kept


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry["files"]["set"].update({"../../x": entry["files"]["out"][""]}),
        lambda entry: entry["files"]["set"].update({"/tmp/x": entry["files"]["out"][""]}),
        lambda entry: entry["files"].update({"../out": {"": entry["files"]["out"][""]}}),
        lambda entry: entry["files"]["out"].update({"": "../../../etc/passwd"}),
        lambda entry: entry.pop("sizes"),
        lambda entry: entry.update(sizes=[]),
        lambda entry: entry["sizes"].popitem(),
        lambda entry: entry["sizes"].update({"0" * 64: 1}),
        lambda entry: entry["sizes"].update(dict.fromkeys(entry["sizes"], -1)),
        lambda entry: entry["sizes"].update(dict.fromkeys(entry["sizes"], True)),
        lambda entry: entry["sizes"].update(dict.fromkeys(entry["sizes"], 1.5)),
        lambda entry: entry["sizes"].update(dict.fromkeys(entry["sizes"], 10**18)),
        lambda entry: entry["record"].update(digest="0" * 64),
        lambda entry: entry["record"]["key"]["parameters"].append("x"),
        lambda entry: entry["record"]["outputs"].update(out="0" * 64),
        lambda entry: entry["record"].update(mode=0o4755),
        lambda entry: entry["record"].update(cached="yes"),
        lambda entry: entry.update(record=None),
    ],
)
def test_an_entry_that_says_what_it_must_not_is_refused(
    files: dict[str, bytes], tmp_path: Path, change
) -> None:
    """Nothing that it names is asked for, and nothing is taken in."""
    (name,) = (name for name in files if name.startswith("/ac/"))
    entry = json.loads(files[name])
    del entry["seal"]
    change(entry)
    entry["seal"] = seal(entry)
    shelf = Shelf(files | {name: json.dumps(entry).encode()})
    cache = Cache(tmp_path / "cache", 10**9)
    with pytest.raises(Lie):
        exchange.fetch(shelf, cache, name[4:], lambda size: None)
    assert shelf.asked == [name[1:]]
    assert blobs(cache.folder) == entries(cache.folder) == list(cache.folder.glob("tmp-*")) == []


@pytest.mark.parametrize(
    "change", [lambda body: body[:-1], lambda body: b"", lambda body: body + b"x", bytes.swapcase]
)
def test_a_file_that_is_another_is_not_taken_in(
    files: dict[str, bytes], tmp_path: Path, change
) -> None:
    (name,) = (name for name in files if name.startswith("/ac/"))
    shelf = Shelf(dict(files))
    spoil(shelf.kept, "cas", change)
    cache = Cache(tmp_path / "cache", 10**9)
    with pytest.raises(Lie, match="other bytes than its name says"):
        exchange.fetch(shelf, cache, name[4:], ignore)
    assert blobs(cache.folder) == entries(cache.folder) == []


def test_the_entry_of_another_key_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    (name,) = (name for name in files if name.startswith("/ac/"))
    shelf = Shelf({f"/ac/{'1' * 64}": files[name]})
    with pytest.raises(Lie, match="no entry of this key"):
        exchange.fetch(shelf, Cache(tmp_path, 10**9), "1" * 64, lambda size: None)


def filled(cache: Cache, count: int, folder: Path) -> str:
    """Put a result of that many files into a cache; gives its key's digest."""
    (folder / "set").mkdir(parents=True)
    digests = {}
    for number in range(count):
        (folder / "set" / str(number)).write_text(str(number))
        digests[str(number)] = hashlib.sha256(str(number).encode()).hexdigest()
    key = Key("dataset", [], {}, {})
    cache.put(Record(key, {"set": digests}, "figure"), [folder / "set"], "log")
    return key.digest


@pytest.mark.slow
def test_a_disk_that_is_full_is_not_the_servers_fault(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(name for name in server.kept if "/cas/" in name)[1:]
    with pytest.raises(OSError, match="No space left"):
        store_of(server, monkeypatch).get(name, Path("/dev/full"), 10**6)


def store_of(server: Server, monkeypatch: pytest.MonkeyPatch, path: str = "") -> HttpStore:
    monkeypatch.setenv("CACHE_REMOTE", f"{server.url}{path}")
    return HttpStore(Address.from_environment())


def ignore(size: int) -> None:
    """Nobody wants to know how much follows."""


def test_files_come_before_the_entry_and_only_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.kept.clear()
    here, there = (Cache(tmp_path / name, 10**9) for name in ("here", "there"))
    digest = filled(here, 60, tmp_path / "made")
    went = exchange.keep(store_of(server, monkeypatch), here, digest, False, ignore)
    assert len(server.put()) == 61
    assert server.put()[-1] == f"/ac/{digest}"
    assert went == sum(map(len, server.kept.values()))
    # The connections stay open: one for each thread, not one for each of 121 requests.
    assert server.connections <= exchange.AT_ONCE + 1
    # What is there is not sent again; the entry is.
    del server.asked[:]
    exchange.keep(store_of(server, monkeypatch), here, digest, False, ignore)
    assert server.put() == [f"/ac/{digest}"]
    # What is here doesn't come again, either.
    server.asked.clear()
    assert exchange.fetch(store_of(server, monkeypatch), there, digest, ignore) > 0
    assert len(server.asked) == 61
    server.asked.clear()
    entries(there.folder)[0].unlink()
    exchange.fetch(store_of(server, monkeypatch), there, digest, ignore)
    assert server.asked == [("GET", f"/ac/{digest}")]


def test_an_entry_without_sizes_stays_here(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions before this one wrote such."""
    cache = Cache(tmp_path / "cache", 10**9)
    digest = filled(cache, 2, tmp_path / "made")
    (place,) = entries(cache.folder)
    entry = json.loads(place.read_text())
    del entry["sizes"], entry["seal"]
    place.write_text(json.dumps(entry | {"seal": seal(entry)}))
    assert cache.find(Key("dataset", [], {}, {})) is not None
    assert exchange.keep(store_of(server, monkeypatch), cache, digest, False, ignore) == 0
    assert server.asked == []


def test_there_is_no_entry_where_a_file_could_not_be_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.kept.clear()
    cache = Cache(tmp_path / "cache", 10**9)
    digest = filled(cache, 5, tmp_path / "made")
    last = max(path.name for path in blobs(cache.folder))
    server.fault = lambda handler: servers.failing(handler) if last in handler.path else False
    with pytest.raises(Unusable, match="500"):
        exchange.keep(store_of(server, monkeypatch), cache, digest, False, ignore)
    assert not [name for name in server.kept if name.startswith("/ac/")]


@slow
def test_one_that_takes_nothing_is_read(machine: Machine, server: Server) -> None:
    def full(handler: servers.Handler) -> bool | None:
        if handler.command != "PUT":
            return False
        handler.close_connection = True
        handler.send(403)
        return None

    server.fault = full
    (machine.folder / "in").write_text("other")
    (line,) = warnings(machine.run(**WRITE))
    assert "it answers PUT with 403 Forbidden; nothing is kept there" in line
    # What it has is still taken, and nothing more is sent.
    server.asked.clear()
    (machine.folder / "in").write_text("input")
    assert machine.run(**WRITE).rstrip().endswith("remote")
    (machine.folder / "in").write_text("third")
    assert warnings(machine.run(**WRITE)) == []
    assert server.put() == []


@pytest.mark.parametrize(
    "code, advice",
    [(400, "disable_http_ac_validation"), (405, "dav_methods"), (409, "create_full_put_path"),
     (413, "client_max_body_size")],
)  # fmt: skip
def test_what_a_refusal_may_come_of(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, advice: str
) -> None:
    """Also where the server doesn't wait for all that is sent."""

    def refuse(handler: servers.Handler) -> None:
        handler.close_connection = True
        handler.send(code)

    server.fault = refuse
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    with pytest.raises(Unusable, match=f"answers PUT with {code}.*{advice}|Connection reset"):
        store_of(server, monkeypatch).put("cas/x", tmp_path / "large")
    (tmp_path / "small").write_bytes(b"x")
    with pytest.raises(NoWrites, match=f"answers PUT with {code}.*{advice}"):
        store_of(server, monkeypatch).put("cas/x", tmp_path / "small")


def test_redirects_are_followed_without_the_password(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Server()
    cache = Cache(tmp_path / "cache", 10**9)
    digest = filled(cache, 3, tmp_path / "made")
    with serving(other):
        server.fault = lambda handler: handler.send(
            307, handler.rfile.read(int(handler.headers.get("Content-Length", 0))) and b"",
            Location=f"{other.url}/there{handler.path}",
        )  # fmt: skip
        monkeypatch.setenv("CACHE_REMOTE_TOKEN", "t0ken")
        exchange.keep(store_of(server, monkeypatch), cache, digest, False, ignore)
        got = exchange.fetch(
            store_of(server, monkeypatch), Cache(tmp_path / "new", 10**9), digest, ignore
        )
    assert got > 0
    assert f"/there/ac/{digest}" in other.kept
    assert all(header.get("Authorization") == "Bearer t0ken" for header in server.headers)
    assert not [header for header in other.headers if "Authorization" in header]


def test_proxies_of_the_environment_are_used(
    server: Server, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy is asked for whole addresses, and gets its own password."""
    (name,) = (name for name in files if name.startswith("/ac/"))
    server.kept |= {f"http://cache.test/x{path}": body for path, body in files.items()}
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//you:me@"))
    monkeypatch.setenv("no_proxy", "nowhere.test")
    monkeypatch.setenv("CACHE_REMOTE", "http://cache.test/x")
    cache = Cache(tmp_path / "cache", 10**9)
    exchange.fetch(HttpStore(Address.from_environment()), cache, name[4:], ignore)
    assert server.asked[0] == ("GET", f"http://cache.test/x{name}")
    assert server.headers[0]["Host"] == "cache.test"
    assert server.headers[0]["Proxy-Authorization"] == "Basic eW91Om1l"
    monkeypatch.setenv("no_proxy", "cache.test")
    with pytest.raises(Unusable):
        HttpStore(Address.from_environment()).size("ac/x")


def test_encryption_is_not_given_up_by_a_redirect(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(server, monkeypatch)

    class Answer:
        status = 302

        def getheader(self, name: str) -> str:
            return "http://127.0.0.1/ac/x"

    with pytest.raises(Unusable, match="nothing is encrypted"):
        store._next("GET", "https://127.0.0.1/ac/x", Answer())


def test_one_that_closes_an_idle_connection_is_asked_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(server, monkeypatch)
    name = next(name for name in server.kept if "/cas/" in name)[1:]
    assert store.size(name) == len(server.kept[f"/{name}"])
    (kept,) = store._connections().values()
    kept.sock.shutdown(socket.SHUT_RDWR)
    assert store.get(name, tmp_path / "got", 10**6)
    server.fault = lambda handler: setattr(handler, "close_connection", True) or False
    assert store.get(name, tmp_path / "got", 10**6)


@slow
def test_an_interruption_while_it_is_kept_loses_nothing(machine: Machine, server: Server) -> None:
    reached = []

    def hang(handler: servers.Handler) -> bool | None:
        if handler.command != "PUT":
            return False
        reached.append(handler)
        time.sleep(20)
        return None

    server.fault = hang
    (machine.folder / "in").write_text("other")
    command = [
        sys.executable, "-S", str(ROOT / "scripts/run_stage.py"), "--stage", "downgrade",
        "--model", "m", "--build", "build", "--log", "logs/stage.log", "--in", "in",
        "--out", "made/out", "--", "/bin/cp", "in", "out",
    ]  # fmt: skip
    own = {"CACHE": "1", "CACHE_DIR": str(machine.cache), "CACHE_REMOTE": server.url} | WRITE
    with subprocess.Popen(
        command, cwd=machine.folder, env=os.environ | own, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        while not reached:
            time.sleep(0.01)
        # As Ctrl-C does it: to all of the group.
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate()
        assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert error == "run_stage: interrupted\n"
    assert (machine.folder / "made/out").read_text() == "other"
    assert (machine.folder / "logs/stage.key").exists()
    assert len(entries(machine.cache)) == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@slow
@pytest.mark.slow
def test_two_that_keep_the_same_at_once(webdav: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = webdav
    machines = [Machine(tmp_path / name, f"{url}/open") for name in ("one", "two")]
    for machine in machines:
        (machine.folder / "in").write_text("the same")
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda machine: machine.run(**WRITE), machines))
    assert [warnings(one) for one in said] == [[], []]
    third = Machine(tmp_path / "three", f"{url}/open")
    (third.folder / "in").write_text("the same")
    assert warnings(third.run()) == []
    assert third.runs == 0


@pytest.mark.parametrize(
    "setting, told",
    [
        ({"CACHE_REMOTE": "host:8080"}, "http://HOST/PATH, https://HOST/PATH or s3://BUCKET"),
        ({"CACHE_REMOTE": "ftp://me:secret@host"}, "is wanted"),
        ({"CACHE_REMOTE": "http://me:secret@"}, "is wanted"),
        ({"CACHE_REMOTE": "http://me:sec?ret@host"}, "is wanted"),
        ({"CACHE_REMOTE": "http://host:0x50/secret"}, "is wanted"),
        ({"CACHE_REMOTE": "http://[::1/secret"}, "is wanted"),
        ({"CACHE_REMOTE": "http://host/?secret=1"}, r"without a \? or #"),
        ({"CACHE_REMOTE": "s3://key:secret@bucket"}, "AWS_ACCESS_KEY_ID"),
        ({"CACHE_REMOTE_MODE": "always"}, "CACHE_REMOTE_MODE=always: it is read-only or read-wri"),
        ({"CACHE_REMOTE_TIMEOUT": "soon"}, "CACHE_REMOTE_TIMEOUT=soon: seconds are wanted"),
        ({"CACHE_REMOTE_TIMEOUT": "nan"}, "seconds are wanted"),
    ],
)
def test_settings_without_sense_are_one_line(
    setting: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"CACHE_REMOTE": "http://host"} | setting).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=told) as error:
        Address.from_environment()
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["read-write", "write", "READ_WRITE"])
def test_words_for_writing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_REMOTE", "https://me:x@host:8443/a/")
    monkeypatch.setenv("CACHE_REMOTE_MODE", mode)
    address = Address.from_environment()
    assert address.writes
    assert address.shown == "https://host:8443/a"


@slow
def test_what_the_cache_is_asked_for(server: Server, machine: Machine) -> None:
    machine.run()
    command = [sys.executable, "-S", str(ROOT / "scripts/show_cache.py"), "--build", "build"]
    own = {"CACHE": "1", "CACHE_DIR": str(machine.cache), "CACHE_REMOTE": server.url}

    def show(*options: str) -> str:
        return subprocess.run(
            [*command, *options], cwd=machine.folder, env=os.environ | own, text=True,
            capture_output=True, check=True,
        ).stdout  # fmt: skip

    told = json.loads(show("--json"))
    assert told["local"]["results"] == 1
    assert told["remote"]["answers"]
    assert told["remote"]["mode"] == "read-only"
    assert told["remote"]["looks"]["hit"]["count"] == 1
    assert told["remote"]["looks"]["miss"]["count"] == 0
    server.fault = servers.failing
    said = show()
    assert "1 came from there" in said
    assert "it answers HEAD with 500" in said


@pytest.mark.slow
def test_help_and_make_show_no_password(checkout: Checkout) -> None:
    remote = "CACHE_REMOTE=https://me:s3cret@host/x"
    said = checkout.make("help", remote).stdout
    assert "CACHE_REMOTE=https://…@host/x" in said
    assert "s3cret" not in said
    assert "s3cret" not in checkout.make("--dry-run", "tiny_int8", remote).stdout


S3 = {
    "AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "s3cretkey",
    "AWS_REGION": "eu-test-1",
    "S3_VENV": str(Path(os.environ.get("S3_VENV", ROOT / ".s3")).absolute()),
}  # fmt: skip


def in_a_bucket(folder: Path) -> Machine:
    machine = Machine(folder, "s3://bucket/pre/fix")
    (machine.folder / "requirements").symlink_to(ROOT / "requirements")
    return machine


@pytest.mark.slow
def test_a_bucket(tmp_path: Path, server: Server) -> None:
    """With a stand-in, which sees what is asked for; a server with S3's manners is in test-full."""
    server.kept.clear()
    one, two = (in_a_bucket(tmp_path / name) for name in ("one", "two"))
    own = S3 | {"AWS_ENDPOINT_URL": server.url}
    assert warnings(one.run(**WRITE, **own)) == []
    assert {path.split("/")[1:4:2][0] for path in server.kept} == {"bucket"}
    assert server.put()[-1].startswith("/bucket/pre/fix/ac/")
    assert all("AKIATEST" in header["authorization"] for header in map(lower, server.headers))
    assert "remote" in two.run(**own)
    assert (one.runs, two.runs) == (1, 0)
    # Other bytes, and no server.
    spoil(server.kept, "bucket/pre/fix/cas", lambda body: body[:-1] + b"\1")
    three, four = (in_a_bucket(tmp_path / name) for name in ("three", "four"))
    assert "what it has there is not used" in warnings(three.run(**own))[0]
    server.fault = servers.silent
    said = four.run(**own, CACHE_REMOTE_TIMEOUT="1")
    assert "goes on without it" in warnings(said)[0]
    assert "s3cretkey" not in said
    assert (three.runs, four.runs) == (1, 1)


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@pytest.mark.full
def test_a_bucket_of_a_server_with_the_manners_of_s3(tmp_path: Path) -> None:
    python = Path(os.environ.get("S3_SERVER_VENV", ROOT / ".s3-server")).absolute() / "bin/python"
    with ExitStack() as stack:
        moto = stack.enter_context(
            subprocess.Popen(
                [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
                stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            )
        )  # fmt: skip
        stack.callback(moto.kill)
        url = next(
            found[0] for line in moto.stderr if (found := re.search(r"http://[\d.:]+", line))
        )
        own = S3 | {"AWS_ENDPOINT_URL": url}
        one, two = (in_a_bucket(tmp_path / name) for name in ("one", "two"))
        # Without its bucket it can't be used, and with it it can.
        (line,) = warnings(one.run(**WRITE, **own))
        assert "there is no such bucket" in line
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
        three = in_a_bucket(tmp_path / "three")
        assert warnings(three.run(**WRITE, **own)) == []
        assert "remote" in two.run(**own)
        assert (three.runs, two.runs) == (1, 0)
        # Larger than what is sent in one piece.
        (three.folder / "in").write_text("x" * 12_000_000)
        (two.folder / "in").write_text("x" * 12_000_000)
        assert warnings(three.run(**WRITE, **own)) == []
        assert "remote" in two.run(**own)


@pytest.mark.toolchain
@pytest.mark.slow
def test_a_second_machine_with_nothing_but_the_address(
    webdav: tuple[str, Path], tmp_path: Path, record_property
) -> None:
    """One builds tiny and keeps it; the other has neither environment nor cache, and builds it."""
    url, _ = webdav
    seconds, said, built = [], [], []
    for name, mode in (("one", "read-write"), ("two", "read-only")):
        checkout = copy_project(tmp_path / name)
        own = {"CACHE": "1", "CACHE_DIR": str(tmp_path / f"cache {name}"),
               "CACHE_REMOTE": f"{url}/open", "CACHE_REMOTE_MODE": mode}  # fmt: skip
        if name == "two":
            (checkout.path / ".venv").unlink()
            (checkout.path / ".toolchain").unlink()
        started = time.perf_counter()
        done = checkout.make("tiny_bf16", *QUICK, f"PYTHON={sys.executable}", **own)
        seconds.append(time.perf_counter() - started)
        said.append(done.stdout)
        built.append(checkout.path / "build/tiny")
    assert "remote\n" not in said[0]
    assert said[1].count("remote\n") == 4
    assert "warning:" not in said[1]
    assert not (tmp_path / "two/.venv").exists()
    made = [
        {path.relative_to(one): path.read_bytes() for path in one.rglob("*") if path.is_file()}
        for one in built
    ]
    assert made[0].keys() - made[1].keys() == {Path("tiny_top_outputs.npz")}
    differing = {name for name in made[1] if made[0][name] != made[1][name]}
    assert {name.suffix for name in differing} == {".key"}
    for name in differing:
        ours, theirs = (json.loads(each[name]) for each in made)
        assert theirs == ours | {"cached": "remote"}
    record_property("figure", f"tiny_bf16 by another machine: {seconds[1]:.2f} s from the remote "
                    f"cache, {seconds[0]:.1f} s where it was built")  # fmt: skip
