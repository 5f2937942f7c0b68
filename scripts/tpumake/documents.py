"""JSON documents that a build made, each in the form that its ``$schema`` names."""

from __future__ import annotations

import json
from pathlib import Path

from tpumake.errors import BadInput

__all__ = ["read_document"]


def read_document(path: Path, schema: str, wanted: str = "$schema") -> dict:
    """Read a document.

    :param schema: what it must name: ``layers.schema.json``
    :param wanted: a part that must not be empty
    :raises BadInput: it isn't there, or is none of that schema
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["$schema"] == schema and document[wanted]:
            return document
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise BadInput(f"{path}: is no {schema.split('.')[0]}.json that a build made")
