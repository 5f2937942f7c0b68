"""What programs do first that any Python of the host may run, before they import the rest."""

import _signal  # what `signal` adds takes a while to import
import sys

__all__ = ["insist_on_python"]

# Until it can tidy up, Ctrl-C just ends it: imports know no better than to show where they were.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def insist_on_python(program: str) -> None:
    """End a program whose Python, which may be any, is too old for the rest of it."""
    if sys.version_info < (3, 10):  # noqa: UP036
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"{program}: python3 is {found}, 3.10 or newer is needed; name one: make PYTHON=…")
