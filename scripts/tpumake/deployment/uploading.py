"""Putting a model in its place on a device over HTTP, and the one before back."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tpumake.deployment.connection import uninterrupted
from tpumake.deployment.place import Load, Place
from tpumake.deployment.web import PART, There, Web
from tpumake.errors import BadInput, CheckFailed, Told
from tpumake.files import atomic_write, try_lock
from tpumake.http_store import Origin

__all__ = ["Kept", "Upload", "deploy", "rollback", "steps"]


@dataclass(frozen=True)
class Kept:
    """Where the model that was there before is kept here: a file for each device's address."""

    folder: Path
    name: str

    @classmethod
    def of(cls, folder: Path, origin: Origin) -> Kept:
        """For the device at an address."""
        port = "" if origin.port in (80, 443) else f"_{origin.port}"
        return cls(folder, re.sub(r"[^\w.-]", "_", origin.host) + port)

    @property
    def model(self) -> Path:
        """The model's file."""
        return self.folder / f"{self.name}.cvimodel"

    @property
    def side_car(self) -> Path:
        """Its side-car's."""
        return self.folder / f"{self.name}.json"

    def read(self) -> There:
        """What is kept."""
        model, side_car = (path.read_bytes() if path.exists() else b""
                           for path in (self.model, self.side_car))  # fmt: skip
        return There(model, side_car.decode(errors="replace"))

    def write(self, there: There) -> None:
        """Keep this."""
        contents = {self.side_car: there.side_car.encode(), self.model: there.model}
        for path, content in contents.items():
            if not content:
                path.unlink(missing_ok=True)
                continue
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else here upload to that device meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = try_lock(self.folder / f"{self.name}.lock")
        if handle is None:
            raise CheckFailed(f"{self.name}: another deploy to it is at work here; wait for it")
        try:
            yield
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Upload:
    """Where to, by which profile. ``sending`` is told how many bytes of how many are there."""

    web: Web
    profile: dict
    place: Place
    kept: Kept
    say: Callable[[str], None]
    sending: Callable[[int, int], None] = lambda sent, size: None

    @classmethod
    def to(cls, web: Web, profile: dict, place: Place, folder: Path, **given: Callable) -> Upload:
        """One to a device that has an address.

        :param folder: where models that were there before are kept
        :raises BadInput: the device is not known to have such an interface
        """
        if "web" not in profile["install"]:
            raise BadInput(f"{profile['title']} takes no models over HTTP, as far as is known; use "
                           f"SSH: DEVICE_HOST={web.host}")  # fmt: skip
        return cls(web, profile, place, Kept.of(folder, web.origin), **given)


def deploy(order: Upload, load: Load) -> None:
    """Send a model, have it put in place, and read it back; the one before is fetched and kept.

    :raises CheckFailed: the device won't have it, or something else is there afterwards
    """
    web, wanted = order.web, _wanted(load)
    with order.kept.alone():
        cpu = order.profile["install"]["web"]["cpu"]
        order.say(f"{web.software(cpu)} on {cpu} by its own account; over HTTP, runtime and free "
                  "space can't be asked for")  # fmt: skip
        before = web.there()
        if before.has(wanted):
            order.say(f"{order.place.model} is this model already; nothing to do")
            return
        try:
            web.takes_parts(len(wanted.model))
            for start in range(0, len(wanted.model) - PART, PART):
                web.upload(wanted, start)
                order.sending(start + PART, len(wanted.model))
        except (BadInput, CheckFailed) as error:
            raise _broken_off(order, before, error) from None
        with uninterrupted():
            _finish(order, before, wanted)
    order.say(f"{load.model.name}, {wanted.size() / 1e6:.2f} MB with what goes with it, sent, read "
              "back and compared")  # fmt: skip
    kept = f"; the one before is kept here, {order.kept.model}" if before.model else ""
    order.say(f"in place: {order.place.model}{kept}")
    order.say("the software there has the old model until it starts again: Deploy in its Node-RED, "
              "or switch the board off and on")  # fmt: skip


def rollback(order: Upload) -> None:
    """Send the model that was there before; what is there now is kept in its turn."""
    kept = order.kept
    if not kept.model.exists():
        raise CheckFailed(f"{kept.model} is not there, so there is nothing to go back to; a deploy "
                          "over HTTP keeps it there")  # fmt: skip
    side_car = kept.side_car if kept.side_car.exists() else None
    deploy(order, Load.read(kept.model, side_car, order.profile))


def _wanted(load: Load) -> There:
    side_car = load.side_car.read_bytes() if load.side_car else b""
    try:
        return There(load.model.read_bytes(), side_car.decode())
    except UnicodeDecodeError as error:
        raise BadInput(f"{load.side_car}: not UTF-8 ({error.reason})") from None


def _broken_off(order: Upload, before: There, error: Told) -> Told:
    """What is told where a part fails: as the interface is known, nothing is put in place yet."""
    now = None
    with contextlib.suppress(BadInput, CheckFailed):
        now = order.web.there()
    if now in (None, before):
        return type(error)(f"{error}; nothing has changed there")
    order.kept.write(before)
    return CheckFailed(f"{error}; {_instead(now)}{_back(order, before)}")


def _finish(order: Upload, before: There, wanted: There) -> None:
    """Send the last part, upon which the device puts both in place, and see what is there."""
    web, size = order.web, len(wanted.model)
    older = order.kept.read()
    # On the disk before the device has it no more.
    order.kept.write(before)
    wrong = ""
    try:
        web.upload(wanted, (size - 1) // PART * PART)
        order.sending(size, size)
    except (BadInput, CheckFailed) as error:
        wrong = str(error)
    # Also where it said no: it may have renamed one of the two, or only its answer was lost.
    try:
        now = web.there()
    except (BadInput, CheckFailed) as error:
        raise CheckFailed(f"{wrong or error}; it can't be read back, so whether "
                          f"{order.place.model} is the new model or half of it is not known"
                          f"{_back(order, before)}") from None  # fmt: skip
    if now.has(wanted):
        return
    wrong = wrong or f"{web.host}: it took all parts"
    if now == before:
        order.kept.write(older)
        raise CheckFailed(f"{wrong}; nothing has changed there")
    if now.model == wanted.model:
        what = "the new model is in place, and another side-car"
    else:
        what = f"{_instead(now)} of {size}: is its disk full, or another upload going on?"
    raise CheckFailed(f"{wrong}; {what}{_back(order, before)}")


def _instead(now: There) -> str:
    return f"what is in place there is not what was sent, {len(now.model)} bytes"


def _back(order: Upload, before: There) -> str:
    if not before.model:
        return ""
    return f"; the one before is kept, {order.kept.model}: .deploy-rollback sends it"


def steps(order: Upload, load: Load | None, model: str, back: bool) -> list[str]:
    """What a deploy, or with ``back`` a rollback, would do, one step a line. Asks nobody."""
    kept, place = order.kept.model, order.place
    size = f", {load.size() / 1e6:.2f} MB" if load else ", which is still to be built"
    both = f"{place.model}" + (f" and {place.side_car}" if place.side_car else "")
    return [
        f"ask {order.web.host} over {order.web.origin.scheme.upper()} whether it is a "
        f"{order.profile['title']} whose software takes models in parts",
        f"fetch {both}",
        f"send {kept if back else f'{model}{size}'}, in parts of {PART >> 10} KB",
        f"keep what was there as {kept}",
        "have the device put the new ones in place with the last part; fetch and compare them",
    ]
