#!/bin/sh
# Runs the tests with what they stand on. Programs that are missing are installed where that needs no question (root on Debian);
# elsewhere the tests that need them skip, and say so in pytest's summary.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    missing=""
    command -v nginx >/dev/null || missing="$missing nginx-light"
    command -v redis-server >/dev/null || missing="$missing redis-server"
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # several words are meant
        apt-get install --yes --quiet --no-install-recommends $missing >/dev/null 2>&1 ||
            { apt-get update --quiet >/dev/null 2>&1 && apt-get install --yes --quiet --no-install-recommends $missing >/dev/null 2>&1; } ||
            echo "could not be installed:$missing; tests that need it will skip" >&2
    fi
fi
# Two at a time, a file at a time: most tests wait for processes and sockets, and a file may share a gateway.
# The slow ones are `make faults`'; ARGS="-m slow ..." asks for them, since the last -m counts.
exec .venv/bin/python -m pytest -n "${PYTEST_WORKERS:-auto}" --dist loadfile -m "not slow" "$@"
