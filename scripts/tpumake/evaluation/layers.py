"""Which layers add most noise, from the document that ``make X.layers`` makes."""

from __future__ import annotations

import json
from pathlib import Path

from tpumake.errors import BadInput

__all__ = ["worst_layers"]

_SHOWN = 3


def worst_layers(path: Path) -> list[str]:
    """The layers that add most noise, each with the share of the signal that it is.

    :param path: a document of schemas/layers.schema.json
    :raises BadInput: it is none
    """
    try:
        layers = json.loads(path.read_bytes())["layers"]
        noise = [(-float(each["added_noise"]), str(each["name"])) for each in layers]
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; are layers measured?") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: no document of layers ({error})") from None
    return [f"{name} ({-100 * added:.2f} % noise)" for added, name in sorted(noise)[:_SHOWN]]
