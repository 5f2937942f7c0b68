# shellcheck shell=sh
# Whether sudo takes this password, before anything depends on it.
IFS= read -r word
printf '%s\n' "$word" | sudo -S -p '' -v >/dev/null 2>&1
