"""The host's own ssh, one connection for all that is done on a device.

The first call makes the connection, and may ask for a password or a key's passphrase on the
terminal; what follows goes through it (ControlMaster). It is in the background from then on, so
that a Ctrl-C, which a terminal sends to all in its foreground, doesn't cut what has to be tidied.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tpumake.deployment.address import Address
from tpumake.errors import BadInput, CheckFailed

__all__ = ["Connection", "Result", "command", "uninterrupted", "words"]

_SCRIPTS = Path(__file__).parent
# A forwarded agent or display is a gift to whoever holds the device; a user's own RemoteCommand
# would run in place of ours. A connection that is silent for 15 s is cut.
_OPTIONS = (
    "-T", "-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no",
    "-o", "RemoteCommand=none", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3", "-o", "LogLevel=ERROR",
)  # fmt: skip
# How long a connection that nobody uses stays, in seconds: for where we were killed.
_PERSIST = 15
_LOST = 255
# Of what a device tells of itself; greetings of its shell may come before.
_MOST_LINES, _LONGEST = 200, 4096
# And how long it may take to.
_ASKING_SECONDS = 60

Result = subprocess.CompletedProcess


def command(script: str, **variables: str) -> str:
    """One of our scripts as one command line, for any shell that may be the user's there.

    Names may hold blanks, quotes, anything: they come as assignments before the script, quoted.
    """
    text = "".join((_SCRIPTS / f"{each}.sh").read_text() for each in ("common", script))
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    given = "\n".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"exec sh -c {shlex.quote(given + chr(10) + code + chr(10))}"


def words(ssh: str) -> list[str]:
    """The ssh to use as the words that a shell would make of it: ``ssh -J jump``."""
    try:
        return shlex.split(ssh) or ["ssh"]
    except ValueError as error:
        raise BadInput(f"DEVICE_SSH={ssh}: {error}") from None


class Connection:
    """A connection to a device; a context, whose end closes it.

    :param program: the ssh to use, with options of the user's: ``["ssh"]``
    :raises BadInput: there can't be a connection: no such host, refused, not trusted
    """

    def __init__(self, address: Address, program: list[str]) -> None:
        self.address = address
        self._ssh = [*program, *_OPTIONS]
        self._folder = ""

    def __enter__(self) -> Connection:
        if not shutil.which(self._ssh[0]):
            raise BadInput(f"{self._ssh[0]}: not found on PATH; install OpenSSH's client "
                           "(openssh-client), or name yours: DEVICE_SSH=")  # fmt: skip
        # Short, whatever TMPDIR is: a socket's path has a hundred letters at most.
        self._folder = tempfile.mkdtemp(prefix="tpumake-", dir="/tmp")
        try:
            self._connect()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _socket(self) -> list[str]:
        return ["-o", f"ControlPath={self._folder}/socket"]

    def _connect(self) -> None:
        """Make the connection; who is asked for a password answers ssh itself."""
        keep = ["-o", "ControlMaster=yes", "-o", f"ControlPersist={_PERSIST}"]
        # A file, not a pipe: some versions keep it open in the background.
        with tempfile.TemporaryFile() as said:
            line = [*self._ssh, *self._socket(), *keep, *self.address.arguments(), "exit 0"]
            code = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=said, check=False).returncode  # fmt: skip
            said.seek(0)
            text = said.read().decode(errors="replace")
        if code:
            raise BadInput(_why(text, self.address))

    def _close(self) -> None:
        line = [*self._ssh, *self._socket(), "-O", "exit", *self.address.arguments()]
        subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, code: str, **streams: object) -> subprocess.Popen:
        # Never a second connection, in case that the first one is gone.
        through = ["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "BatchMode=yes"]
        line = [*self._ssh, *self._socket(), *through, *self.address.arguments(), code]
        return subprocess.Popen(line, start_new_session=True, **streams)  # type: ignore[call-overload]

    def run(
        self, code: str, given: IO[bytes] | bytes | None = None, limit: float | None = None
    ) -> Result:
        """Run a command there to its end; gives exit code, standard output and errors.

        :param given: what it reads: a file, or bytes
        :param limit: seconds
        :raises CheckFailed: the connection is gone, or the time is up
        """
        file = given if given is not None and not isinstance(given, bytes) else None
        stdin = file or (subprocess.PIPE if given else subprocess.DEVNULL)
        process = self._start(code, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            text = given if isinstance(given, bytes) and given else None
            out, err = process.communicate(text, timeout=limit)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{self.address}: no answer after {limit:g} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said = Result(code, process.returncode, _text(out), _text(err))
        if said.returncode == _LOST:
            raise CheckFailed(f"{self.address}: the connection was lost")
        return said

    @contextlib.contextmanager
    def held(self, code: str) -> Iterator[list[str]]:
        """Keep a command running there; gives the lines that it says up to ``held``.

        It ends when its input does, with us at the latest. Without ``held`` it has ended.
        """
        process = self._start(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)  # fmt: skip
        late = threading.Timer(_ASKING_SECONDS, process.kill)
        late.start()
        try:
            lines: list[str] = []
            while len(lines) < _MOST_LINES and (line := process.stdout.readline(_LONGEST)):
                lines.append(_text(line).rstrip("\n"))
                if lines[-1] == "tpumake held":
                    break
            late.cancel()
            yield lines
        finally:
            late.cancel()
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired), uninterrupted():
                process.wait(10)
            process.stdout.close()
            if process.poll() is None:
                process.kill()
                process.wait()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of this."""
    came: list[int] = []
    try:
        before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    except ValueError:
        # Only a program's main thread hears of signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            os.kill(os.getpid(), signal.SIGINT)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _why(said: str, address: Address) -> str:
    """What ssh complains of, with what to do about it."""
    by_hand = "ssh " + shlex.join(each for each in address.arguments() if each != "--")
    port = f"[{address.host}]:{address.port}" if address.port else address.host
    causes = {
        "IDENTIFICATION HAS CHANGED": "another key than the one that is known for it: if it was "
        f"flashed anew, ssh-keygen -R {shlex.quote(port)}; else somebody may be in between",
        "Host key verification failed": "its key is not known here yet: compare it once by hand, "
        + by_hand,
        "Permission denied": "it refused the log-in; see whether this works: " + by_hand,
        "Too many authentication failures": "it refused the log-in; see whether this works: "
        + by_hand,
        "Could not resolve hostname": "there is no host of that name; the board's address will do, "
        "DEVICE_HOST=192.168.42.1 over its own USB network",
        "Connection refused": "nothing answers at that port: is SSH on, and the port right?",
        "timed out": "no answer: is the board on, and in the same network?",
        "No route to host": "no way there: is the board on, and in the same network?",
        "Network is unreachable": "no way there: is the board on, and in the same network?",
    }
    for mark, cause in causes.items():
        if mark in said:
            return f"{address}: {cause}"
    words = " ".join(said.split()[-30:]) or "ssh said nothing"
    return f"{address}: no connection ({words}); see whether this works: {by_hand}"
