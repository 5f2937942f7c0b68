"""A visit to a device: its lock is ours, and what it says of itself is known."""

from __future__ import annotations

import contextlib
import getpass
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tpumake.deployment.address import Address
from tpumake.deployment.connection import Connection, Result, command
from tpumake.deployment.place import Load, Place, digest
from tpumake.errors import BadInput, CheckFailed

__all__ = ["Visit", "visit"]

_CHIP = re.compile(r"cv18\dx|bm1684x?|bm1688|bm1690|cv186x")
_VERSION = re.compile(r"\b(\d+)\.(\d+)")
_FREE = re.compile(r"(\d+)\s+(\d+)\s+(-?\d+)\s+\d+%")
# What is left free beside the model, in bytes: a device whose disk is full doesn't start.
_SPARE = 1 << 20
# What the runtime says to a model that it doesn't take (cviruntime, src/common/model.cpp).
_OTHER_CHIP = re.compile(r"cvimodel built for (\S+) CANNOT run on platform (\S+)")
_OTHER_VERSION = re.compile(r"cvimodel\((\S+)\) is not supported in runtime\((\S+)\)")
_TRIAL_SECONDS = 60


@dataclass
class Visit:
    """What is known of the device. ``facts``: by the first word of what hold.sh says."""

    connection: Connection
    place: Place
    token: str
    facts: dict[str, str]
    profile: dict
    notes: list[str] = field(default_factory=list)
    _word: bytes | None = None

    @property
    def address(self) -> Address:
        """Where it is."""
        return self.connection.address

    def run(self, script: str, given: object = None, limit: float | None = None,
            **variables: str) -> Result:  # fmt: skip
        """Run one of our scripts there."""
        shared = {"folder": self.place.folder, "token": self.token, "root": self.facts["root"],
                  "tool": self.facts["digest"]}  # fmt: skip
        return self.connection.run(command(script, **(shared | variables)), given, limit)

    def temporary(self, what: str) -> str:
        """A name there for what goes with the visit."""
        return self.place.temporary(self.token, what)

    def send(self, path: Path, what: str) -> str:
        """Bring a file, under a temporary name, which is given."""
        target = self.temporary(what)
        with path.open("rb") as file:
            done = self.run("send", file, target=target)
        if done.returncode:
            why = done.stderr.strip().rpartition(": ")[2] or f"exit code {done.returncode}"
            raise CheckFailed(
                f"{self.address}: {path.name} could not be written to {self.place.folder}: {why}; "
                "nothing has changed there"
            )
        return target

    def password(self, command: str) -> bytes:
        """What sudo wants there, if anything: asked for on the terminal, tried at once.

        :param command: what is to run as root, if anything
        :raises BadInput: there is no terminal, or sudo doesn't take it
        """
        if not command or self.facts["root"] != "password":
            return b""
        if self._word is None:
            if not (sys.stdin and sys.stdin.isatty()):
                raise BadInput(
                    f"{self.address}: sudo wants a password for {command}, and here is no "
                    "terminal to ask on; run it in one, or allow it without (NOPASSWD), or "
                    "DEVICE_RELOAD=0"
                )
            asked = getpass.getpass(f"{self.address}, sudo's password for {command}: ")
            word = asked.encode() + b"\n"
            if self.run("root", word).returncode:
                raise BadInput(f"{self.address}: sudo doesn't take that password; "
                               "nothing has changed there")  # fmt: skip
            self._word = word
        return self._word

    def check(self, load: Load) -> str:
        """Whether the device can take it; gives what was compared, in words.

        :raises CheckFailed: it can't
        """
        install = self.profile["install"]
        chips = _CHIP.findall(self.facts.get("chip", ""))
        if chips and load.chip not in chips:
            raise CheckFailed(
                f"{self.address}: its chip is {chips[0]}, {load.model.name} is for {load.chip}; "
                f"build it with CHIP={chips[0]}, or see whether this is the right device"
            )
        words = [f"chip {load.chip}" if chips else "chip not told"]
        found = _VERSION.search(self.facts.get("runtime", ""))
        stated = _VERSION.search(install.get("runtime", {}).get("version", ""))
        version = found or stated
        if version:
            self._compare(load, (int(version[1]), int(version[2])))
            words.append(f"runtime {version[0]}" + ("" if found else " by its profile"))
        free = _FREE.search(self.facts.get("space", ""))
        if free:
            room, needed = 1024 * int(free[3]), load.size() + _SPARE
            if room < needed:
                raise CheckFailed(
                    f"{self.address}: {self.place.folder} has {room / 1e6:.1f} MB free, and this "
                    f"takes {needed / 1e6:.1f} MB; remove something there"
                )
            words.append(f"{room / 1e6:.0f} MB free")
        if self.facts["digest"] == "none":
            raise CheckFailed(
                f"{self.address}: has no sha256sum, openssl or md5sum, so nothing that is sent can "
                "be verified; nothing has changed there"
            )
        return ", ".join(words)

    def _compare(self, load: Load, runtime: tuple[int, int]) -> None:
        """As the runtime does it: an older major version will do, a newer minor one won't."""
        if load.version > runtime:
            model, has = (".".join(map(str, each)) for each in (load.version, runtime))
            raise CheckFailed(
                f"{self.address}: its runtime takes models up to version {has}, and "
                f"{load.model.name} has {model}; update the device's software, or build with "
                "another TPU_MLIR_VERSION"
            )

    def trial(self, line: str) -> None:
        """Have the device's own program run the model, where the profile names one.

        Only that its runtime refuses the model counts: it may fail for memory that another program
        has now.
        """
        done = self.run("measure", limit=_TRIAL_SECONDS, line=line, root="no")
        other = _OTHER_CHIP.search(done.stdout)
        if other:
            raise CheckFailed(f"{self.address}: its runtime refuses the model: it is for "
                              f"{other[1]}, the board is {other[2]}; build it with "
                              f"CHIP={other[2]}")  # fmt: skip
        other = _OTHER_VERSION.search(done.stdout)
        if other:
            raise CheckFailed(f"{self.address}: its runtime refuses the model: it has version "
                              f"{other[1]}, the runtime {other[2]}; update the device's "
                              "software")  # fmt: skip
        if done.returncode:
            last = (done.stdout.strip().splitlines() or [""])[-1]
            self.notes.append(f"{line.split()[0]} ended with {done.returncode} ({last}), which "
                              "says nothing of the model for sure")  # fmt: skip

    def there(self, load: Load) -> bool:
        """Whether just these files are in their places already."""
        files = load.files()
        return all(self.facts.get(what) == digest(path, self.facts["digest"])
                   for what, path in files)  # fmt: skip


@contextlib.contextmanager
def visit(
    address: Address,
    profile: dict,
    place: Place,
    program: list[str],
    as_root: str,
    say: Callable[[str], None],
) -> Iterator[Visit]:
    """Connect to a device and take its lock, for as long as this lasts.

    :param as_root: a command that will have to be run as root, empty where none has
    :raises CheckFailed: another deploy has the lock, or the folder can't be written
    """
    install, token = profile["install"], secrets.token_hex(6)
    owner = f"{_user()}@{socket.gethostname()} since {time.strftime('%H:%M:%S')}"
    hold = command(
        "hold", folder=place.folder, token=token, owner=owner, model=place.model,
        side_car=place.side_car, chip_command=install.get("chip", ""),
        runtime_command=install.get("runtime", {}).get("command", ""),
        wants_root=as_root,
    )  # fmt: skip
    with Connection(address, program) as connection, connection.held(hold) as lines:
        facts = {}
        for line in lines:
            mark, _, rest = line.partition(" ")
            if mark == "tpumake":
                name, _, value = rest.partition(" ")
                facts[name] = value.strip()
        _refused(facts, address, place)
        if "stale" in facts:
            say("a deploy before was cut off by a power cut; what it left is removed")
        yield Visit(connection, place, token, facts, profile)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _refused(facts: dict[str, str], address: Address, place: Place) -> None:
    lock = f"{place.folder}/.tpumake.lock"
    if "locked" in facts:
        raise CheckFailed(
            f"{address}: another deploy is at work there, {facts['locked']}; wait for it, or, if "
            f"there is none, remove {lock} on the device"
        )
    if "unwritable" in facts:
        why = facts["unwritable"].rpartition(": ")[2]
        raise CheckFailed(f"{address}: {place.folder} can't be written: {why}; nothing has changed "
                          "there")  # fmt: skip
    if "held" not in facts:
        raise CheckFailed(
            f"{address}: its shell didn't do as a POSIX sh does, or not within a minute; see "
            f"whether this works: ssh {address.host} 'sh -c date'"
        )
