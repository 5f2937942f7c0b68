"""Starting programs that end with whoever started them, at the same addresses each time."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tpumake.errors import CheckFailed
from tpumake.job import PARENT

__all__ = ["die_with_parent", "fix_addresses", "started"]

# From <sys/personality.h> and <sys/prctl.h>.
ADDR_NO_RANDOMIZE = 0x0040000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def fix_addresses() -> None:
    """Have what is started from here on its memory at the same addresses each time.

    The compiler walks tables that are ordered by address, so the order of commands in a model
    follows the kernel's randomisation.

    :raises CheckFailed: where that can't be switched off, as under Docker's default profile
    """
    if Path("/proc/sys/kernel/randomize_va_space").read_text().strip() == "0":
        return
    now = LIBC.personality(0xFFFFFFFF)
    if now == -1 or LIBC.personality(now | ADDR_NO_RANDOMIZE) == -1:
        reason = os.strerror(ctypes.get_errno())
        raise CheckFailed(
            f"address randomisation can't be switched off ({reason}), so the result would be other "
            "bytes each time; start the container with --security-opt seccomp=unconfined, or "
            "accept that with REPRODUCIBLE=0"
        )


@contextmanager
def started(
    command: list[str],
    end: Callable[[int], None] | None = None,
    last: int = signal.SIGKILL,
    **options: object,
) -> Iterator[subprocess.Popen]:
    """Start a command in a group of its own, which ends with this block and with this process.

    :param end: how a group is ended, by its number; by default it is killed
    :param last: the signal for the command itself if this process is killed
    """
    end = end or _kill
    # Whatever ends Make ends this process, too, and that ends what it has started.
    die_with_parent(signal.SIGTERM)
    if os.getppid() != PARENT:
        # Make ended before that was asked for.
        raise KeyboardInterrupt
    with _guard(end) as announce:
        # A signal would lose a process that is started and not known yet.
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

        def begin() -> None:
            die_with_parent(last)
            announce()
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)

        try:
            process = subprocess.Popen(command, start_new_session=True, preexec_fn=begin, **options)
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            raise
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            yield process
        except BaseException:
            # A signal, or a full disk. Guarded still: this process may be killed meanwhile.
            end(process.pid)
            process.wait()
            raise


def die_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, in whatever way."""
    LIBC.prctl(PR_SET_PDEATHSIG, number)


@contextmanager
def _guard(end: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Have a process of its own end a group if this process is killed, its children's children too.

    It is there before the group is: a process that is started announces itself by what is given
    here, before it becomes the command. The guard shares this one's locks, so what they protect is
    in use until then.
    """
    reading, writing = os.pipe()
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    guard = os.fork()
    if guard == 0:
        try:
            # Not hit by what hits Make's group.
            os.setsid()
            os.close(writing)
            told = b""
            while chunk := os.read(reading, 64):
                told += chunk
            if told and not told.endswith(b"done"):
                end(int(told))
        finally:
            os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    os.close(reading)
    try:
        yield lambda: os.write(writing, b"%d" % os.getpid())
    finally:
        os.write(writing, b"done")
        os.close(writing)
        os.waitpid(guard, 0)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
