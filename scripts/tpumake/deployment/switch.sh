# shellcheck shell=sh
# Puts a model and its side-car in the place of those that are there, has the device's service take them, and puts
# the old ones back where anything of that fails. It goes on to its end even if nobody is there to hear of it.
# Given: folder, token, model, side_car, new_model, new_side_car, model_digest, side_car_digest, tool, root, reload,
# rollback.
# shellcheck disable=SC2154,SC2034
trap '' HUP INT TERM PIPE
LC_ALL=C
export LC_ALL
word=
[ "$root" != password ] || IFS= read -r word
lock=$folder/.tpumake.lock

end() {
  rm -rf "$folder/.tpumake-$token".* "$lock"
  printf 'tpumake %s\n' "$*"
  exit 0
}
if [ "$(cat "$lock/token" 2>/dev/null)" != "$token" ] || ! mkdir "$lock/switching" 2>/dev/null; then
  printf 'tpumake lost\n'
  exit 0
fi
printf '%s\n' "$$" >"$lock/pid"

# A second name where the file system has such, else a copy.
also() { ln "$1" "$2" 2>/dev/null || cp -p "$1" "$2" 2>/dev/null || { rm -f "$2"; return 1; }; }
# What is there now stays as .replaced until it is known whether it stays replaced. One that is left from a deploy
# that the power ended is what was there before, unless nothing had been changed yet.
keep() {
  [ -n "$1" ] || return 0
  if [ -e "$1.replaced" ]; then
    if cmp -s "$1.replaced" "$1"; then rm -f "$1.replaced"; else mv -f "$1.replaced" "$1.previous"; fi
  fi
  [ ! -e "$1" ] || also "$1" "$1.replaced"
}
put() {
  [ -n "$1" ] || return 0
  if [ -e "$2" ]; then mv -f "$2" "$1" 2>/dev/null; else rm -f "$1"; fi
}
# Of two names of the same file some versions of mv make nothing, and others an error.
undo() {
  [ -n "$1" ] || return 0
  if [ ! -e "$1.replaced" ]; then rm -f "$1"
  elif cmp -s "$1.replaced" "$1"; then rm -f "$1.replaced"
  else mv -f "$1.replaced" "$1" 2>/dev/null
  fi
}
settle() {
  [ -n "$1" ] || return 0
  if [ -e "$1.replaced" ]; then mv -f "$1.replaced" "$1.previous"; else rm -f "$1.previous"; fi
}
# Not into a file or a pipe of ours: the service may keep it open for as long as it runs.
# shellcheck disable=SC2120 # its own arguments it sets itself
take_up() {
  [ -n "$reload" ] || return 0
  eval "set -- $reload"
  as_root "$@" >/dev/null 2>&1
}

if [ -n "$rollback" ]; then
  [ -e "$model.previous" ] || end no-previous
  also "$model.previous" "$new_model" || end full
  if [ -n "$side_car" ] && [ -e "$side_car.previous" ]; then
    also "$side_car.previous" "$new_side_car" || end full
  fi
else
  found=$(digest "$new_model")
  [ "$found" = "$model_digest" ] || end damaged "$model" "$found"
  if [ -n "$side_car" ]; then
    found=$(digest "$new_side_car")
    [ "$found" = "$side_car_digest" ] || end damaged "$side_car" "$found"
  fi
fi
# What is named before it is written is empty when the power goes.
sync
before=
[ -e "$model" ] && before=old
if ! keep "$model" || ! keep "$side_car"; then
  rm -f "$model.replaced"
  [ -z "$side_car" ] || rm -f "$side_car.replaced"
  end full
fi
why=unswitched
if put "$side_car" "$new_side_car" && put "$model" "$new_model"; then
  sync
  take_up ""
  code=$?
  if [ $code = 0 ]; then
    settle "$side_car"
    settle "$model"
    sync
    end 'done' "${before:-new}"
  fi
  why="reload $code"
fi
if ! undo "$side_car" || ! undo "$model"; then end unrestored "$why"; fi
sync
case $why in
  reload*) take_up "" || end "$why" down ;;
esac
end "$why" "${before:-new}"
