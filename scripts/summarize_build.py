#!/usr/bin/env python3
"""Put what came of builds, in one job or many, into one table in Markdown."""

from tpumake.early import insist_on_python

insist_on_python("summarize_build")

from tpumake.build_summary import main  # noqa: E402
from tpumake.errors import run_guarded  # noqa: E402

if __name__ == "__main__":
    run_guarded(main)
