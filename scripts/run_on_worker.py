#!/usr/bin/env python3
"""Run on a worker what a stage sent there; started by the launcher that RUN names."""

from tpumake.early import insist_on_python

insist_on_python("run_on_worker")

from tpumake.errors import run_guarded  # noqa: E402
from tpumake.worker import main  # noqa: E402

if __name__ == "__main__":
    run_guarded(main)
