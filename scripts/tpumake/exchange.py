"""What goes between the cache of this machine and a remote one, in a process of its own.

The remote one has the entries and files of tpumake/cache.py, as `ac/<digest of the key>` and
`cas/<digest of the content>`: what bazel-remote and its like serve. What comes from there is
compared with its digest, and looked through, before it is taken in; and goes the way of all that is
in the cache from then on. What is kept there is kept in that order, files before the entry that
names them, so whoever finds an entry finds its files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tpumake.cache import Cache, Entry, parse_entry
from tpumake.folders import private_folder
from tpumake.store import Lie, Store

__all__ = ["ENTRY_MOST", "fetch", "keep"]

# An entry is a record and a log: more than that many bytes is none.
ENTRY_MOST = 16 << 20
# Connections at once: a picture set is a hundred small files, and each answer takes a way there and
# back. Browsers have as many.
AT_ONCE = 6
CHUNK = 1 << 20
# The digest of nothing, which some servers don't take.
EMPTY = hashlib.sha256().hexdigest()
T = TypeVar("T")


def fetch(store: Store, cache: Cache, digest: str, told: Callable[[int], None]) -> int | None:
    """Take in what the remote cache has for a key.

    :param digest: of the key
    :param told: called with the number of bytes that follow, before they do
    :return: how many came; None if there was nothing
    :raises Lie: what came is not what its name says, or says what it must not; nothing is taken in
    :raises Unusable: the server can't be used
    :raises OSError: the cache can't be written to
    """
    cache.folder.mkdir(parents=True, exist_ok=True)
    with private_folder(cache.folder, "tmp-") as temporary:
        place = temporary / "entry"
        if not store.get(f"ac/{digest}", place, ENTRY_MOST):
            return None
        sizes = _sizes(parse_entry(place.read_bytes()), digest, cache.limit)
        lacking = {name: size for name, size in sizes.items() if not cache.holds(name)}
        told(sum(lacking.values()))

        def one(name: str) -> bool:
            return _fetch_file(store, temporary / name, lacking[name])

        # One that is gone there, as servers drop what is old, is as if there was nothing.
        if not all(_each(one, lacking)):
            return None
        cache.admit(place, digest, temporary, lacking)
    return sum(lacking.values())


def keep(store: Store, cache: Cache, digest: str, anew: bool, told: Callable[[int], None]) -> int:
    """Keep what the cache has for a key in the remote one, too.

    :param anew: also files of which there seems to be one already
    :param told: as for ``fetch``; of what may follow
    :return: how many bytes went there
    :raises Unusable: the server can't be used; then there is no entry, or that of another
    """
    place = cache.entry_place(digest)
    try:
        data = place.read_bytes()
    except OSError:
        # It was too large for the cache, or is gone already.
        return 0
    try:
        sizes = _sizes(parse_entry(data), digest, cache.limit)
    except Lie:
        # One of a version that told no sizes; a stage that runs makes another.
        return 0
    sizes = {name: size for name, size in sizes.items() if name != EMPTY}
    if len(data) > ENTRY_MOST or not all(map(cache.holds, sizes)):
        return 0
    told(sum(sizes.values()))

    def one(name: str) -> int:
        there = None if anew else store.size(f"cas/{name}")
        if there in (-1, sizes[name]):
            return 0
        store.put(f"cas/{name}", cache.place(name))
        return sizes[name]

    went = sum(_each(one, sizes))
    store.put(f"ac/{digest}", place)
    return went + len(data)


def _sizes(entry: Entry | None, digest: str, most: int) -> dict[str, int]:
    """The sizes of an entry's files by digest.

    :raises Lie: if it may not be believed
    """
    if entry is None or entry.record.key.digest != digest:
        raise Lie(f"ac/{digest} is no entry of this key")
    names = {one for files in entry.files.values() for one in files.values()}
    if names != entry.sizes.keys():
        raise Lie(f"ac/{digest} doesn't tell how large its files are")
    total = sum(entry.sizes.values())
    if total > most:
        raise Lie(f"ac/{digest} names files of {total} bytes, more than CACHE_MAX")
    return entry.sizes


def _fetch_file(store: Store, target: Path, size: int) -> bool:
    """Fetch a file to where its digest is its name; False if it is gone there.

    :raises Lie: if it is another one
    """
    if target.name == EMPTY:
        target.touch()
    elif not store.get(f"cas/{target.name}", target, size):
        return False
    hasher = hashlib.sha256()
    with target.open("rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
    if hasher.hexdigest() != target.name:
        raise Lie(f"cas/{target.name} has other bytes than its name says")
    return True


def _each(work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Do the same for all, several at once. The first that fails ends it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            return list(pool.map(work, sorted(names)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
