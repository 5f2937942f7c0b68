"""Findings as people and programs read them."""

from __future__ import annotations

from tpumake.preflight.finding import ERROR, Finding

__all__ = ["document", "summary"]


def document(target: str, chip: str, findings: list[Finding]) -> dict:
    """The findings as schemas/check.schema.json has them."""
    return {
        "$schema": "check.schema.json",
        "target": target,
        "chip": chip,
        "errors": sum(one.severity == ERROR for one in findings),
        "warnings": sum(one.severity != ERROR for one in findings),
        "findings": [one._asdict() for one in findings],
    }


def summary(target: str, findings: list[Finding]) -> str:
    """The last line: how many there are."""
    errors = sum(one.severity == ERROR for one in findings)
    counts = [(errors, "error"), (len(findings) - errors, "warning")]
    said = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in counts if count]
    return f"{target}: {', '.join(said) or 'nothing to complain of'}"
