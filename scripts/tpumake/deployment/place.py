"""What is to go where on a device, by its profile and the model's file."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tpumake.errors import BadInput
from tpumake.model_info import describe

__all__ = ["Load", "Place", "installing", "line_of"]


def installing(profile: dict) -> dict:
    """The part of a profile that says how models get there.

    :raises BadInput: it has none
    """
    install = profile.get("install")
    if not install:
        raise BadInput(
            f"devices/{profile['name']}.json says nothing of installing; DEVICE= names another "
            "device, or add an `install` there (docs/deploy.md)"
        )
    return install


@dataclass(frozen=True)
class Place:
    """Where a model goes on a device. ``side_car`` is empty where none goes with it."""

    model: str
    side_car: str

    @classmethod
    def of(cls, install: dict, name: str) -> Place:
        """The paths for a model of that name; {name} in the profile is put in its place."""
        model, side_car = (
            (install[part] or "").replace("{name}", name) for part in ("model", "side_car")
        )
        return cls(model, side_car)

    @property
    def folder(self) -> str:
        """Where both are, and all that is temporary."""
        return str(PurePosixPath(self.model).parent)

    def temporary(self, token: str, what: str) -> str:
        """A name beside it, which goes with the lock that the token holds."""
        return f"{self.folder}/.tpumake-{token}.{what}"


@dataclass(frozen=True)
class Load:
    """The files that go there, and what the device must be able to do with them."""

    model: Path
    side_car: Path | None
    chip: str
    # Of the file's format: (1, 4).
    version: tuple[int, int]

    @classmethod
    def read(cls, model: Path, side_car: Path | None, profile: dict) -> Load:
        """Look at the files before anything is asked of the device.

        :raises BadInput: one can't be read, is damaged, or is not for this device
        """
        told = describe(model)
        if told["checksum"]["right"] is False:
            raise BadInput(f"{model}: damaged, its checksum is wrong; build it again")
        if told["chip"] not in profile["chips"]:
            raise BadInput(
                f"{model}: built for {told['chip']}, but {profile['title']} has "
                f"{' or '.join(profile['chips']) or 'no chip that is known'}; "
                "build it with CHIP=, or deploy to another DEVICE"
            )
        if side_car is not None and not side_car.is_file():
            raise BadInput(f"{side_car}: there is no such file; build the model again")
        version = re.match(r"(\d+)\.(\d+)", told["format_version"])
        if not version:
            raise BadInput(f"{model}: says no version of its format; build it again")
        return cls(model, side_car, told["chip"], (int(version[1]), int(version[2])))

    def files(self) -> list[tuple[str, Path]]:
        """What is sent, with its name in scripts."""
        return [("model", self.model)] + ([("side_car", self.side_car)] if self.side_car else [])

    def size(self) -> int:
        """Bytes of all."""
        return sum(path.stat().st_size for _, path in self.files())


def digest(path: Path, tool: str) -> str:
    """A file's digest as the device's tool makes it."""
    algorithm = "md5" if tool == "md5sum" else "sha256"
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


def line_of(template: str, **paths: str) -> str:
    """A command of a profile with its {names} replaced, each as one word for a shell."""
    return re.sub(
        r"\{(\w+)\}",
        lambda found: shlex.quote(paths[found[1]]) if found[1] in paths else found[0],
        template,
    )
