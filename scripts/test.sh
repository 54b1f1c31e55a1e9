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
# What pytest and the SDKs compile is kept for the next run, also where Python is told to keep nothing: it is half a minute of each worker's.
unset PYTHONDONTWRITEBYTECODE
# One more at a time than there are cores, a file at a time: most tests wait for processes and sockets, and a file may share a gateway.
# The slow ones are `make slow` and `make faults`: MARK=slow; more of them is about time.
workers=auto
[ -n "${MARK:-}" ] || workers=$(($(getconf _NPROCESSORS_ONLN) + 1))
status=0
FAILED_TESTS=$(mktemp)
export FAILED_TESTS
.venv/bin/python -m pytest -n "${PYTEST_WORKERS:-$workers}" --dist loadfile --max-worker-restart=0 -m "${MARK:-not slow}" "$@" || status=$?
failed=$(sort -u "$FAILED_TESTS" | wc -l)
if [ "$status" = 1 ] && [ "$failed" -gt 0 ] && [ "$failed" -le 5 ]; then
    # Tests with real processes and real time wait for a core that others are using. What is broken fails alone, too.
    printf '\n%s failed beside all others; once more, alone:\n' "$failed"
    sort -u "$FAILED_TESTS"
    sort -u "$FAILED_TESTS" >"$FAILED_TESTS.names"
    status=0
    .venv/bin/python -m pytest -n 0 -m "${MARK:-not slow}" "@$FAILED_TESTS.names" || status=$?
    [ "$status" = 0 ] && printf '\npassed alone: they depend on how busy the machine is, which is worth a look\n'
fi
if [ -s "$FAILED_TESTS.died" ]; then
    # What it had still before it was not run by anybody: whatever passed, this is no run of the tests.
    printf '\na process of the tests died in\n' >&2
    cat "$FAILED_TESTS.died" >&2
    status=1
fi
rm -f "$FAILED_TESTS" "$FAILED_TESTS.names" "$FAILED_TESTS.died"
exit "$status"
