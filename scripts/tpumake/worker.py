"""A stage's commands on another machine: what run_on_worker.py does there.

It knows no keys, locks or caches: those stay with the machine that make runs on. What the commands
make lies in the stage's private folder, and counts for nothing until that machine has judged it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tpumake.errand import Ended, Errand
from tpumake.errors import CheckFailed
from tpumake.processes import fix_addresses, started

__all__ = ["here", "main"]

# How often it is looked whether the result is still wanted (seconds).
LOOK = 0.1


def main() -> int:
    """Carry out the errand in the folder that the command line names."""
    errand = Errand(Path(sys.argv[1]))
    order = json.loads(errand.order.read_text())
    # A cancelled job gets SIGTERM first; what was started must not outlive it.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _stop)
    where = here()
    errand.place.write_text(where)
    try:
        ended = carry_out(errand, order)
    except CheckFailed as error:
        ended = Ended(1, 0, refused=str(error))
    except OSError as error:
        ended = Ended(1, 0, refused=f"{error.filename or order['cwd']}: {error.strerror}")
    errand.result.write_text(json.dumps(ended._replace(where=where)._asdict()))
    # For launchers that show it; nobody goes by it.
    return 1 if ended.code else 0


def here() -> str:
    """This machine's name, as its scheduler has it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def carry_out(errand: Errand, order: dict) -> Ended:
    """Run the commands; their output goes to the errand's file, and to whoever started this.

    :raises CheckFailed: if this machine isn't one on which they may run
    :raises OSError: if a program or a folder isn't there
    """
    libc = os.confstr("CS_GNU_LIBC_VERSION") or "another libc"
    if order["libc"] not in ("", libc):
        raise CheckFailed(
            f"its C library is {libc}, that of the machine on which make runs {order['libc']}, and "
            "results depend on it; take workers with the same, or run make on one of these"
        )
    if order["same_addresses"]:
        fix_addresses()
    code = peak = 0
    since = time.monotonic()
    with errand.output.open("ab") as output:
        for command in order["commands"]:
            code, most = _run(command, order, errand, output.fileno())
            peak = max(peak, most)
            if code:
                break
    return Ended(code, peak, seconds=round(time.monotonic() - since, 3))


def _run(command: list[str], order: dict, errand: Errand, output: int) -> tuple[int, int]:
    shown = os.lseek(output, 0, os.SEEK_END)
    _write(output, os.fsencode(f"$ {' '.join(command)}\n"))
    with started(
        command, cwd=order["cwd"], env=order["environment"], stdin=subprocess.DEVNULL,
        stdout=output, stderr=output,
    ) as process:  # fmt: skip
        while True:
            shown = _show(errand.output, shown)
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if not errand.wanted.exists():
                raise KeyboardInterrupt
            time.sleep(LOOK)
        process.returncode = os.waitstatus_to_exitcode(status)
    _show(errand.output, shown)
    return process.returncode, usage.ru_maxrss * 1024


def _show(path: Path, since: int) -> int:
    """Hand on what came since to whoever started this; give where to go on."""
    with path.open("rb") as file:
        file.seek(since)
        chunk = file.read()
    # Nobody need be there to read it.
    with suppress(OSError):
        _write(1, chunk)
    return since + len(chunk)


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _stop(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
