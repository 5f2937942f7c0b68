#!/bin/sh
# No variable of the Makefile may be used without being set: a misspelt name expands to nothing, and
# Make says so only when it is asked to. Nothing is built, this is a dry run.
set -u
said=$(for json in "" 1; do
    make --warn-undefined-variables --dry-run BUILD=build/lint JSON=$json help list all all.reproduce 2>&1 >/dev/null || exit
done)
status=$?
warnings=$(printf '%s\n' "$said" | grep 'undefined variable')
if [ -n "$warnings" ]; then
    printf '%s\n' "$warnings" >&2
    exit 1
fi
if [ $status -ne 0 ]; then
    printf '%s\n' "$said" >&2
fi
exit $status
