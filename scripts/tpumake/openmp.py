"""What the OpenMP libraries of LLVM and Intel need of the scripts that start tools."""

from __future__ import annotations

__all__ = ["FORGET_KILLED"]

# Lines of a POSIX shell script that replaces itself by the tool, hence its own number.
FORGET_KILLED = """\
# OpenMP names a file after each process, killed ones leave theirs behind, and a later process of
# the same number dies of SIGBUS if it is an empty one.
for left in /dev/shm/__KMP_REGISTERED_LIB_*; do
    number=${left#*_LIB_}
    number=${number%_*}
    if [ -O "$left" ] && { [ "$number" = $$ ] || ! kill -0 "$number" 2>/dev/null; }; then
        rm -f "$left"
    fi
done
"""
