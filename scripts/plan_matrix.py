#!/usr/bin/env python3
"""Print what a build server is to build, a job for each target. `make matrix` runs it."""

from tpumake.early import insist_on_python

insist_on_python("plan_matrix")

from tpumake.errors import run_guarded  # noqa: E402
from tpumake.matrix import main  # noqa: E402

if __name__ == "__main__":
    run_guarded(main)
