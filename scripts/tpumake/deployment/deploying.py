"""Putting a model in its place on a device, and the one before back."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from tpumake.deployment.address import Address
from tpumake.deployment.connection import uninterrupted
from tpumake.deployment.place import Load, Place, digest, line_of
from tpumake.deployment.visit import Visit, visit
from tpumake.errors import CheckFailed

__all__ = ["Deploy", "deploy", "rollback", "steps"]

# How long the switch, with the service's restart, may take before nobody waits for it any more.
_SWITCH_SECONDS = 120


@dataclass(frozen=True)
class Deploy:
    """Where to, by which profile, with which ssh; ``reload``: have the service take the model."""

    address: Address
    profile: dict
    place: Place
    program: list[str]
    reload: bool
    say: Callable[[str], None]

    def reloading(self) -> dict | None:
        """What the profile says of the service, if it is to be told."""
        return self.profile["install"].get("reload") if self.reload else None

    def as_root(self) -> str:
        """What of that takes root, empty if nothing does."""
        reload = self.reloading() or {}
        return reload["command"] if reload.get("root") else ""


def deploy(order: Deploy, load: Load) -> None:
    """Bring a model, verify it there, and put it in place; the one before is kept.

    :raises CheckFailed: the device can't take it, or it went wrong; then the one before is there
    """
    with visit(order.address, order.profile, order.place, order.program, order.as_root(),
               order.say) as there:  # fmt: skip
        order.say(there.check(load))
        if there.there(load):
            order.say(f"{order.place.model} is this model already; nothing to do")
            return
        word = there.password(order.as_root())
        for what, path in load.files():
            there.send(path, what)
        _try(there, order)
        tool = there.facts["digest"]
        digests = {f"{what}_digest": digest(path, tool) for what, path in load.files()}
        said = _switch(there, order, word, **digests)
        order.say(f"{load.model.name}, {load.size() / 1e6:.2f} MB with what goes with it, sent and "
                  f"verified there ({'MD5' if tool == 'md5sum' else 'SHA-256'})")  # fmt: skip
        _tell(order, said)


def rollback(order: Deploy) -> None:
    """Put the model back that was there before; what is there now is kept in its turn."""
    with visit(order.address, order.profile, order.place, order.program, order.as_root(),
               order.say) as there:  # fmt: skip
        word = there.password(order.as_root())
        _tell(order, _switch(there, order, word, rollback="1"))


def _try(there: Visit, order: Deploy) -> None:
    trial = order.profile["install"].get("trial")
    if trial:
        there.trial(line_of(trial, model=there.temporary("model")))
        for note in there.notes:
            order.say(note)


def _switch(there: Visit, order: Deploy, word: bytes, **given: str) -> list[str]:
    """Run the switch; its last words. It can't be interrupted: it goes on there in any case."""
    place, reload = order.place, order.reloading()
    named = {"rollback": "", "model_digest": "", "side_car_digest": ""} | given
    try:
        with uninterrupted():
            done = there.run(
                "switch", word, _SWITCH_SECONDS, model=place.model, side_car=place.side_car,
                new_model=there.temporary("model"), new_side_car=there.temporary("side_car"),
                reload=shlex.join(shlex.split(reload["command"])) if reload else "", **named,
            )  # fmt: skip
    except CheckFailed as error:
        raise CheckFailed(
            f"{error} during the switch, which the device ends or undoes by itself; deploy again "
            "to be told which"
        ) from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("tpumake ")]
    words = lines[-1].split()[1:] if lines else ["broken"]
    if words[0] != "done":
        raise CheckFailed(_failed(words, order))
    return words


def _failed(words: list[str], order: Deploy) -> str:
    where, place = order.address, order.place
    same = "nothing has changed there"
    # On the first deploy there is none to put back.
    back = "the model before is back" if words[-1] == "old" else "the new one is removed again"
    kept = f"{place.model}.replaced"
    reload = (order.reloading() or {"command": ""})["command"]
    causes = {
        "no-previous": f"{place.model}.previous is not there, so there is nothing to go back to; "
        "it comes with the second deploy",
        "damaged": f"what arrived is not what was sent (its digest is {words[-1][:16]}…); {same}; "
        "try again, and look at cable and disk if it stays so",
        "full": f"no room in {place.folder} to keep the model before; {same}; remove something",
        "unswitched": f"{place.model} could not be put in place; {back}; see whether "
        f"{place.folder} can be written",
        "unrestored": f"{place.model} could not be put in place, nor the model before back: it is "
        f"{kept}; rename it by hand",
        "lost": f"its lock is gone, removed by somebody; {same}; deploy again",
    }
    if words[0] == "reload":
        code = words[1]
        if words[2] == "down":
            return (f"{where}: `{reload}` ended with {code}; the model before is back, but the "
                    "service doesn't start with it either: look at the device's log")  # fmt: skip
        return f"{where}: `{reload}` ended with {code}; {back}; DEVICE_RELOAD=0 goes without"
    return f"{where}: {causes.get(words[0], f'the switch broke off; look for {kept} there')}"


def _tell(order: Deploy, words: list[str]) -> None:
    name = PurePosixPath(order.place.model).name
    kept = f"; the one before is {name}.previous" if words[1] == "old" else ""
    order.say(f"in place: {order.place.model}{kept}")
    reload = order.reloading()
    if reload:
        order.say(f"{reload['command']}: done")
    elif order.profile["install"].get("reload"):
        order.say("the service was not told (DEVICE_RELOAD=0); it has the old model until then")


def steps(order: Deploy, load: Load | None, model: str, back: bool) -> list[str]:
    """What a deploy, or with ``back`` a rollback, would do, one step a line. Asks nobody."""
    place, install = order.place, order.profile["install"]
    both = f"{place.model}" + (f" and {place.side_car}" if place.side_car else "")
    size = f", {load.size() / 1e6:.2f} MB" if load else ", which is still to be built"
    reload = order.reloading()
    bring = [] if back else [
        f"compare chip, runtime ({install.get('runtime', {}).get('version', 'not told')}) and free "
        "space with the model's",
        f"send {model}{size}, to temporary names in {place.folder}; compare digests there",
        *([f"try it: {install['trial']}"] if install.get("trial") else []),
    ]  # fmt: skip
    return [
        f"connect to {order.address} and lock {place.folder}/.tpumake.lock",
        *bring,
        f"{'put back' if back else 'rename to'} {both}; keep what is there as .previous",
        *([f"{'sudo ' if reload.get('root') else ''}{reload['command']}; if that fails, all back"]
          if reload else []),
        "unlock",
    ]  # fmt: skip
