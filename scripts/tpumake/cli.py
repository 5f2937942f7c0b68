"""The edge between a helper and its user: one-line errors and exit codes.

Exit codes, the same for every helper: 0 done or passed, 1 a check failed, 2 bad input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import click

__all__ = ["BadInput", "CheckFailed", "atomic_write", "run"]


class BadInput(Exception):
    """The input can't be used. The text is one line: what, where, what to do. Exit code 2."""


class CheckFailed(Exception):
    """The input was fine, the result is not good enough. One line. Exit code 1."""


def run(command: click.Command) -> None:
    """Run a Click command as a program and exit; no traceback reaches the user.

    ``TPUMAKE_DEBUG=1`` in the environment lets tracebacks through, for those who mend helpers.
    """
    name = Path(sys.argv[0]).stem
    try:
        code = command.main(standalone_mode=False)
    except BadInput as error:
        code = _complain(name, error, 2)
    except CheckFailed as error:
        code = _complain(name, error, 1)
    except click.Abort:
        code = _complain(name, "interrupted", 130)
    except click.ClickException as error:
        code = _complain(name, error.format_message(), 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _complain(name, f"{where}{error.strerror or error}", 2)
    except MemoryError:
        code = _complain(name, "out of memory; close other programs or use a larger machine", 2)
    except Exception as error:
        if os.environ.get("TPUMAKE_DEBUG"):
            raise
        text = " ".join(str(error).split())
        hint = "this is a bug in tpumake; TPUMAKE_DEBUG=1 shows where"
        code = _complain(name, f"{type(error).__name__}: {text} ({hint})", 2)
    # Click hands back a callback's return value; only an int is meant as an exit code.
    sys.exit(code if isinstance(code, int) else 0)


def _complain(name: str, error: object, code: int) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    return code


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path``; on success it becomes ``path``, on error it goes.

    Being in the same folder, the rename can't cross file systems, so nobody ever sees half a file.
    """
    with NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix, delete=False
    ) as handle:
        temporary = Path(handle.name)
    try:
        yield temporary
        # NamedTemporaryFile makes private files; results are as readable as any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
