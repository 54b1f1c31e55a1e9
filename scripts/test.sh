#!/bin/sh
# Runs the tests with what they stand on. Programs that are missing are installed where that needs no question (root on Debian);
# elsewhere the tests that need them skip, and say so in pytest's summary.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v nginx >/dev/null; then
    apt-get install --yes --quiet --no-install-recommends nginx-light >/dev/null 2>&1 ||
        echo "nginx could not be installed: tests that need it will skip" >&2
fi
# Two at a time, a file at a time: most tests wait for processes and sockets, and a file may share a gateway. The slow ones are for
# `make faults`.
exec .venv/bin/python -m pytest -n "${PYTEST_WORKERS:-auto}" --dist loadfile -m "not slow" "$@"
