#!/usr/bin/env python3
"""Check a model's stanza against schemas/stanza.schema.json, and say what to mend."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import click
import jsonschema

from tpumake import cli

SCHEMA = Path(__file__).resolve().parent.parent / "schemas" / "stanza.schema.json"


def findings(stanza: dict[str, str], schema: dict) -> list[str]:
    """List what is wrong with a stanza, one line each, in the order of its variables.

    :param stanza: values by variable name, and the model's name as ``model``
    """
    name = stanza.get("model", "?")
    known = [key for key in schema["properties"] if key != "model"]
    lines = []
    for error in jsonschema.Draft202012Validator(schema).iter_errors(stanza):
        if error.validator == "additionalProperties":
            for key in sorted(set(stanza) - {*known, "model"}):
                if key in schema["not_offered"]:
                    lines.append(f"{name}_{key}: {schema['not_offered'][key]}")
                    continue
                near = difflib.get_close_matches(key.upper(), known, 1)
                hint = f"did you mean {name}_{near[0]}?" if near else "make help lists them"
                lines.append(f"{name}_{key}: there is no such variable; {hint}")
        elif error.validator == "oneOf":
            sources = [one["required"][0] for one in error.validator_value]
            named = [f"{name}_{key}" for key in sources if key in stanza]
            lines.append(
                f"{' and '.join(named)}: a stanza names one network"
                if named
                else f"{name}_ONNX is not set, nor {', '.join(sources[1:])}: where is the network?"
            )
        elif error.validator == "dependentRequired":
            (missing,) = [
                key for keys in error.validator_value.values() for key in keys if key not in stanza
            ]
            lines.append(f"{name}_{missing} is not set")
        elif error.validator == "required":
            lines += [
                f"{name}_{key} is not set" for key in error.validator_value if key not in stanza
            ]
        else:
            key = error.path[0]
            lines.append(f"{name}_{key} = {stanza[key]}: {_wanted(schema, key)}")
    return sorted(set(lines))


def _read(path: Path) -> dict[str, str]:
    try:
        stanza = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise cli.BadInput(f"{path}: is no JSON in UTF-8 ({error})") from None
    if not isinstance(stanza, dict) or not all(isinstance(one, str) for one in stanza.values()):
        raise cli.BadInput(f"{path}: must be an object of variables, all of them text")
    return stanza


def _wanted(schema: dict, key: str) -> str:
    """What a variable should be, in the schema's own words."""
    about = schema["properties"][key]
    if "enum" in about:
        return f"must be one of {', '.join(filter(None, about['enum']))}"
    form = schema["$defs"].get(about.get("$ref", "").rpartition("/")[2])
    return f"must be {form['description']}" if form else f"must be: {about['description']}"


@click.command(help=__doc__)
@click.argument("stanza", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("mark", required=False, type=click.Path(path_type=Path))
def main(stanza: Path, mark: Path | None) -> None:
    """Check STANZA, a JSON document that the Makefile writes; make the file MARK if it is right."""
    lines = findings(_read(stanza), json.loads(SCHEMA.read_text()))
    if lines:
        raise cli.BadInput(*lines)
    if mark:
        mark.touch()


if __name__ == "__main__":
    cli.run(main)
