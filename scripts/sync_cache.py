#!/usr/bin/env python3
"""Exchange a stage's results with the remote cache. Stages start it: tpumake/remote.py.

A process of its own, so that it can be ended when it takes too long, whatever it waits for, and
nothing that a server sends can harm the build. What came of it is a line of JSON.
"""

from tpumake.early import insist_on_python

insist_on_python("sync_cache")

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

from tpumake.address import Address  # noqa: E402
from tpumake.cache import Cache  # noqa: E402
from tpumake.errors import BadInput  # noqa: E402
from tpumake.exchange import fetch, keep  # noqa: E402
from tpumake.store import Lie, NoWrites, Unusable, open_store  # noqa: E402


def tell(**what: object) -> None:
    """Write a line for who started this."""
    print(json.dumps(what), flush=True)


def exchange(verb: str, digest: str, anew: bool) -> None:
    """Do what is asked for, and tell what came of it.

    ``result`` is ``hit``, ``miss``, ``kept``, ``refused`` (what came is not to be believed),
    ``read-only`` (nothing can be kept there), ``unusable``, or ``local`` (the cache of this machine
    can't be written to); ``bytes`` are those that went, before that those that will.
    """
    address, cache = Address.from_environment(), Cache.from_environment()
    if address is None or cache is None:
        raise BadInput("there is no remote cache: CACHE_REMOTE, CACHE and CACHE_DIR say none")

    def told(size: int) -> None:
        tell(bytes=size)

    try:
        store = open_store(address)
        if verb == "fetch":
            came = fetch(store, cache, digest, told)
            tell(result="miss" if came is None else "hit", bytes=came or 0)
        elif verb == "keep":
            tell(result="kept", bytes=keep(store, cache, digest, anew, told))
        else:
            store.size(f"ac/{digest}")
            tell(result="answers")
    except Lie as error:
        tell(result="refused", cause=str(error))
    except NoWrites as error:
        tell(result="read-only", cause=str(error))
    except Unusable as error:
        tell(result="unusable", cause=str(error))
    except OSError as error:
        tell(result="local", cause=f"{error.filename or cache.folder}: {error.strerror or error}")


def main() -> None:
    """Fetch or keep what belongs to a key."""
    arguments = argparse.ArgumentParser(prog="sync_cache", description=__doc__.splitlines()[0])
    arguments.add_argument("verb", choices=("fetch", "keep", "try"))
    arguments.add_argument("digest", help="of the stage's key")
    arguments.add_argument("--anew", action="store_true", help="keep also what seems to be there")
    chosen = arguments.parse_args()
    try:
        exchange(chosen.verb, chosen.digest, chosen.anew)
    except BadInput as error:
        sys.exit(f"sync_cache: {error}")
    # Threads may hang in a request that nobody waits for any more.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
