# shellcheck shell=sh
# Takes a file from standard input; without the lock there is no place for it. Given: folder, token, target.
# shellcheck disable=SC2154
[ "$(cat "$folder/.tpumake.lock/token" 2>/dev/null)" = "$token" ] || { echo "the lock is gone" >&2; exit 1; }
cat >"$target"
