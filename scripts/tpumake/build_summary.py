"""What came of builds in many places, as one table for a page in Markdown.

It runs on the host's own Python with nothing but the standard library: who gathers results has
built nothing, and needs no environment for it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tpumake.batch import DONE, HEADINGS, SCHEMA, WORDS, cells, summary
from tpumake.columns import in_markdown, plain_markdown
from tpumake.documents import read_document
from tpumake.errors import BadInput
from tpumake.report import facts

__all__ = ["gathered", "main", "page"]

_REPORT = "report.schema.json"
_LOST = "its job ended without a result; the job's own log tells more"


def gathered(documents: Sequence[dict], planned: Sequence[dict]) -> dict:
    """Documents of builds as one, in the plan's order; what was planned and has none counts, too.

    :param documents: schemas/build_list.schema.json
    :param planned: the jobs of a matrix, schemas/matrix.schema.json
    """
    found = {
        (each["target"], each["chip"]): each for one in documents for each in one["targets"]
    }  # fmt: skip
    order = dict.fromkeys((each["target"], each["chip"]) for each in planned)
    lost = {"status": "not tried", "seconds": 0, "size": None, "lowest_cosine": None,
            "causes": [{"cause": _LOST, "log": None}]}  # fmt: skip
    return {
        "targets": [
            found.get((target, chip), {"target": target, "chip": chip} | lost)
            for target, chip in (order | dict.fromkeys(found))
        ],
        "seconds": sum(one["seconds"] for one in documents),
        "interrupted": any(one["interrupted"] for one in documents),
    }


def page(told: dict, reports: Sequence[dict]) -> list[str]:
    """The lines of the page: the table, causes of failures, and the figures of reports."""
    lines = [*in_markdown([HEADINGS, *cells(told)], words=WORDS), "", summary(told)]
    for each in told["targets"]:
        for cause in each["causes"]:
            log = f" (log: {plain_markdown(cause['log'])})" if cause["log"] else ""
            lines += ["", f"**{each['target']}**: {plain_markdown(cause['cause'])}{log}"]
    for report in reports:
        first, *others = facts.summary(report)
        lines += ["", f"**{plain_markdown(first)}**", ""]
        lines += [f"- {plain_markdown(line)}" for line in others]
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="summarize_build", description=__doc__.splitlines()[0])
    parser.add_argument("documents", nargs="*", type=Path, help="what `make all` left, all.json, "
                        "and reports, M_VARIANT.report.json")  # fmt: skip
    parser.add_argument("--planned", default='{"include": []}', help="the matrix that these are "
                        "of: what is missing counts as failed")  # fmt: skip
    return parser.parse_args()


def _planned(text: str) -> list[dict]:
    try:
        jobs = json.loads(text)["include"]
        return [{"target": str(each["target"]), "chip": str(each["chip"])} for each in jobs]
    except (ValueError, KeyError, TypeError):
        raise BadInput("--planned: is no matrix that make matrix printed") from None


def main() -> int:
    """Print the page; 0 if all that was built or planned is there and what it should be."""
    chosen = _arguments()
    reports = [path for path in chosen.documents if path.name.endswith(".report.json")]
    builds = [path for path in chosen.documents if path not in reports]
    told = gathered(
        [read_document(path, SCHEMA, "targets") for path in builds], _planned(chosen.planned)
    )
    if not told["targets"]:
        print("Nothing was to be built.")
        return 0
    print("\n".join(page(told, [read_document(path, _REPORT) for path in reports])))
    return 0 if all(each["status"] in DONE for each in told["targets"]) else 1
