#!/usr/bin/env python3
"""Run one stage of a build, if it has to. The Makefile starts every stage with this."""

from tpumake.early import insist_on_python

insist_on_python("run_stage")

from tpumake.runner import main, run_guarded  # noqa: E402

if __name__ == "__main__":
    run_guarded(main)
