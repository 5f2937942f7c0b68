"""How a program ends when something is wrong: one line, and an exit code.

Exit codes, the same for every helper: 0 done or passed, 1 a check failed, 2 bad input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["BadInput", "CheckFailed", "Told", "one_line", "run_guarded"]


def one_line(text: object) -> str:
    """A text in one line, with nothing in it that a terminal obeys: names come from files."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in said)


class Told(Exception):
    """What is told to people: a line, or several where there are several arguments."""

    def __str__(self) -> str:
        return "\n       ".join(map(one_line, self.args))


class BadInput(Told):
    """The input can't be used. The text is one line: what, where, what to do. Exit code 2."""


class CheckFailed(Told):
    """The input was fine, the result is not good enough. One line. Exit code 1."""


def run_guarded(main: Callable[[], object]) -> NoReturn:
    """Call a program's main function and exit; no traceback reaches the user.

    ``TPUMAKE_DEBUG=1`` in the environment lets tracebacks through, for those who mend helpers.
    """
    try:
        code = main()
    except BadInput as error:
        code = _complain(error, 2)
    except CheckFailed as error:
        code = _complain(error, 1)
    except KeyboardInterrupt:
        code = _complain("interrupted", 130)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _complain(f"{where}{error.strerror or error}", 2)
    except MemoryError:
        code = _complain("out of memory; close other programs or use a larger machine", 2)
    except Exception as error:
        if os.environ.get("TPUMAKE_DEBUG"):
            raise
        text = " ".join(str(error).split())
        hint = "this is a bug in tpumake; TPUMAKE_DEBUG=1 shows where"
        code = _complain(f"{type(error).__name__}: {text} ({hint})", 2)
    # Click hands back a callback's return value; only an int is meant as an exit code.
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: object, code: int) -> int:
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]  # noqa: PTH119, PTH122
    cause = str(error) if isinstance(error, Told) else one_line(error)
    print(f"{name}: {cause}", file=sys.stderr)
    # Imported here: where all goes well nobody needs it.
    from tpumake import events

    events.note(program=name, arguments=sys.argv[1:], cause=cause)
    return code
