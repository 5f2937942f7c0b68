# shellcheck shell=sh
# Runs a program of the device's and shows all that it says. Given: root, line.
# shellcheck disable=SC2154,SC2034
LC_ALL=C
export LC_ALL
word=
[ "$root" != password ] || IFS= read -r word
eval "set -- $line"
as_root "$@" 2>&1
