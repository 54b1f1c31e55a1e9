#!/bin/sh
# Runs the fault matrix with what it stands on. Programs that are missing are installed where that needs no question (root on
# Debian); elsewhere the rows that need them skip, and docs/faults.md says so.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    missing=""
    command -v nginx >/dev/null || missing="$missing nginx-light"
    command -v ip >/dev/null || missing="$missing iproute2"
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # several words are meant
        apt-get install --yes --quiet --no-install-recommends $missing >/dev/null 2>&1 ||
            echo "could not be installed:$missing; rows that need it will skip" >&2
    fi
fi
exec .venv/bin/python tests/faults/report.py "$@"
