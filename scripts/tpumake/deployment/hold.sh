# shellcheck shell=sh
# Takes the device's lock, tells what is known of the device, and holds the lock for as long as somebody is at the
# other end. Where that end goes, by a cut cable say, all that was brought so far goes, too.
# Given: folder, token, owner, model, side_car, chip_command, runtime_command; wants_root: what is to run as root.
# shellcheck disable=SC2154
LC_ALL=C
export LC_ALL
lock=$folder/.tpumake.lock

say() { printf 'tpumake %s\n' "$*"; }
# Two lines would be taken for two answers.
flat() { tr '\n\000' '  '; }

why=$(mkdir -p "$folder" 2>&1) || { say unwritable "$(printf %s "$why" | flat)"; exit 1; }
if ! why=$(mkdir "$lock" 2>&1); then
  [ -d "$lock" ] || { say unwritable "$(printf %s "$why" | flat)"; exit 1; }
  holder=$(cat "$lock/pid" 2>/dev/null)
  # Nobody is behind a lock whose process is gone: the power was. Only one can rename it, and what was renamed must be
  # the lock that was looked at.
  gone=$folder/.tpumake-$token.gone
  if [ -n "$holder" ] && [ ! -d "/proc/$holder" ] && mv "$lock" "$gone" 2>/dev/null; then
    if [ "$(cat "$gone/pid" 2>/dev/null)" != "$holder" ]; then
      mv "$gone" "$lock"
      say locked "by another deploy"
      exit 1
    fi
    rm -rf "$gone"
    mkdir "$lock" 2>/dev/null || { say locked "by another deploy"; exit 1; }
    say stale
  else
    say locked "$(flat 2>/dev/null <"$lock/owner"), process ${holder:-unknown}"
    exit 1
  fi
fi

# shellcheck disable=SC2329 # by the trap
leave() {
  [ "$(cat "$lock/token" 2>/dev/null)" = "$token" ] || return
  # What switches is told by nobody: it goes on to its end, and unlocks.
  [ -e "$lock/switching" ] || rm -rf "$folder/.tpumake-$token".* "$lock"
}
trap 'leave; exit 0' HUP INT TERM PIPE
{ printf '%s\n' "$token" >"$lock/token" && printf '%s\n' "$$" >"$lock/pid" && printf '%s\n' "$owner" >"$lock/owner"; } 2>/dev/null ||
  { say unwritable "no space left on device"; rm -rf "$lock"; exit 1; }
rm -rf "$folder"/.tpumake-*

tool=none
for each in sha256sum openssl md5sum; do
  if command -v "$each" >/dev/null 2>&1; then tool=$each; break; fi
done
say digest "$tool"
say space "$(df -kP "$folder" 2>/dev/null | tail -n 1)"
[ -z "$chip_command" ] || say chip "$(eval "$chip_command" 2>/dev/null | flat)"
[ -z "$runtime_command" ] || say runtime "$(eval "$runtime_command" 2>&1 | flat)"
if [ "$(id -u)" = 0 ]; then say root yes
elif [ -z "$wants_root" ]; then say root no
elif sudo -n true 2>/dev/null || { eval "set -- $wants_root" && sudo -n -l "$@" >/dev/null 2>&1; }; then say root sudo
elif command -v sudo >/dev/null 2>&1; then say root password
else say root no
fi
if [ -e "$model" ]; then say model "$(digest "$model")"; fi
if [ -n "$side_car" ] && [ -e "$side_car" ]; then say side_car "$(digest "$side_car")"; fi
if [ -e "$model.previous" ]; then say previous yes; fi
say held
cat >/dev/null
leave
