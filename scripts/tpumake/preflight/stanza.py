"""The stanza itself, against its schema."""

from __future__ import annotations

import difflib

import jsonschema

from tpumake.preflight.finding import ERROR, Finding

__all__ = ["check_stanza"]


def check_stanza(stanza: dict[str, str], schema: dict) -> list[Finding]:
    """What a stanza says that it can't, and doesn't say that it must.

    :param stanza: values by variable name, and the model's name as ``model``
    :param schema: schemas/stanza.schema.json
    """
    name = stanza.get("model", "?")
    found: list[Finding] = []

    def add(where: str, what: str, remedy: str = "") -> None:
        found.append(Finding("variable", ERROR, where, what, remedy))

    for error in jsonschema.Draft202012Validator(schema).iter_errors(stanza):
        if error.validator == "additionalProperties":
            for key in sorted(set(stanza) - set(schema["properties"])):
                add(f"{name}_{key}", *_unknown(name, key, schema))
        elif error.validator == "oneOf":
            sources = [one["required"][0] for one in error.validator_value]
            named = [f"{name}_{key}" for key in sources if key in stanza]
            if named:
                add(" and ".join(named), "a stanza names one network")
            else:
                others = ", ".join(sources[1:])
                add(f"{name}_ONNX", f"it is not set, nor {others}", "where is the network?")
        elif error.validator == "dependentRequired":
            for key in (key for keys in error.validator_value.values() for key in keys):
                if key not in stanza:
                    add(f"{name}_{key}", "it is not set")
        elif error.validator == "required":
            for key in error.validator_value:
                if key not in stanza:
                    add(f"{name}_{key}", "it is not set")
        else:
            key = error.path[0]
            add(f"{name}_{key} = {stanza[key]}", _wanted(schema, key))
    return found


def _unknown(name: str, key: str, schema: dict) -> tuple[str, str]:
    """Why there is no such variable, and what to write instead."""
    if key in schema["not_offered"]:
        return schema["not_offered"][key], ""
    known = [each for each in schema["properties"] if each != "model"]
    near = difflib.get_close_matches(key.upper(), known, 1)
    hint = f"did you mean {name}_{near[0]}?" if near else "make help lists them"
    return "there is no such variable", hint


def _wanted(schema: dict, key: str) -> str:
    """What a variable should be, in the schema's own words."""
    about = schema["properties"][key]
    if "enum" in about:
        return f"must be one of {', '.join(filter(None, about['enum']))}"
    form = schema["$defs"].get(about.get("$ref", "").rpartition("/")[2])
    return f"must be {form['description']}" if form else f"must be: {about['description']}"
