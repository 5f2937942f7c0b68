"""Run a network in onnxruntime, but not for ever, and not in more memory than there is.

A network may loop as often as it likes, and make a tensor of any size out of one number.
"""

from __future__ import annotations

import resource
import threading

import onnxruntime

from tpumake.memory import most

__all__ = ["LIMIT", "RanTooLong", "run"]

# Seconds. The largest networks that a TPU of this class runs take some on one core.
LIMIT = 600.0


class RanTooLong(Exception):
    """A network was ended after LIMIT; the text says so."""


def run(session: onnxruntime.InferenceSession, names: list[str] | None, feed: dict) -> list:
    """Do what ``session.run`` does.

    :raises RanTooLong: it didn't end
    """
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4

    def end() -> None:
        options.terminate = True

    timer = threading.Timer(LIMIT, end)
    timer.daemon = True
    timer.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = min(each for each in (most(), soft, hard) if each != resource.RLIM_INFINITY)
    # Without it the kernel would end whichever program it likes.
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    try:
        return session.run(names, feed, options)
    except Exception:
        if options.terminate:
            raise RanTooLong(f"it hadn't ended after {LIMIT:.0f} s") from None
        raise
    finally:
        timer.cancel()
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
