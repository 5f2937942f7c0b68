#!/usr/bin/env python3
"""Build many targets and tell at the end what came of each. The Makefile runs it for `make all`."""

import _signal  # what `signal` adds takes a while to import
import sys

# Until it can tidy up, Ctrl-C just ends it: imports know no better than to show where they were.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

if sys.version_info < (3, 10):  # noqa: UP036 (the host's Python may be any)
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"build_list: python3 is {found}, 3.10 or newer is needed; name one: make PYTHON=…")

from tpumake.batch import main
from tpumake.errors import run_guarded

if __name__ == "__main__":
    run_guarded(main)
