# shellcheck shell=sh
# What the other scripts share. PATH: what SSH gives to a command often lacks where a board has its own programs.
PATH=$PATH:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin:/mnt/system/usr/bin
export PATH

# A file's digest, by the tool that there is.
# shellcheck disable=SC2154
digest() {
  case $tool in
    openssl) openssl dgst -sha256 <"$1" | sed 's/.*= *//' ;;
    none) ;;
    *) "$tool" <"$1" | { read -r sum _ && printf '%s\n' "$sum"; } ;;
  esac
}

# A command, as root where the profile wants that; a password, where sudo wants one, came with standard input.
# shellcheck disable=SC2154
as_root() {
  case $root in
    sudo) sudo -n "$@" ;;
    password) printf '%s\n' "$word" | sudo -S -p '' "$@" ;;
    *) "$@" ;;
  esac </dev/null
}
