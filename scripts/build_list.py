#!/usr/bin/env python3
"""Build many targets and tell at the end what came of each. The Makefile runs it for `make all`."""

from tpumake.early import insist_on_python

insist_on_python("build_list")

from tpumake.batch import main  # noqa: E402
from tpumake.errors import run_guarded  # noqa: E402

if __name__ == "__main__":
    run_guarded(main)
