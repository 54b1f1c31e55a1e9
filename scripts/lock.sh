#!/bin/sh
# Recompiles the hash-locked files. Nothing younger than a week is taken: most malicious releases are found sooner.
set -eu
cd "$(dirname "$0")/.."
for name in build bootstrap runtime dev; do
    case $name in
    bootstrap) constrain='-c requirements/build.txt' ;;
    # The SDKs that tests speak with are taken as new as they come: recorded traffic is newer than a week, too.
    dev) constrain='-c requirements/runtime.txt --exclude-newer-package openai=0d --exclude-newer-package anthropic=0d --exclude-newer-package google-genai=0d' ;;
    *) constrain= ;;
    esac
    # shellcheck disable=SC2086
    .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --exclude-newer 7d --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links $constrain --output-file "requirements/$name.txt" "requirements/$name.in"
done
.venv/bin/uv pip compile --quiet --upgrade --python-version 3.11 --exclude-newer 7d --generate-hashes --no-header \
    --exclude-newer-package openai=0d --exclude-newer-package anthropic=0d --exclude-newer-package google-genai=0d \
    --no-emit-index-url --no-emit-find-links --output-file requirements/clients.txt requirements/clients.in
# Benchmarks run on this kind of machine only, so these two are not universal.
.venv/bin/uv pip compile --quiet --upgrade --python-version 3.11 --exclude-newer 7d --generate-hashes --no-header \
    --no-emit-index-url --no-emit-find-links --output-file requirements/bench.txt requirements/bench.in
.venv/bin/uv pip compile --quiet --upgrade --python-version 3.11 --exclude-newer 7d --generate-hashes --no-header --no-deps \
    --no-emit-index-url --no-emit-find-links --output-file requirements/bench-nodeps.txt requirements/bench-nodeps.in
