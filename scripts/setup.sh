#!/bin/sh
# Builds the virtual environments from hash-locked files.   setup.sh bootstrap|runtime|dev VENV   setup.sh bench BENCH_VENV VENV
# uv installs, since it is ten times faster; where it cannot run or cannot reach the packages, pip does the same from the same file.
# Stamps are touched last, so that an interrupted set-up is done again.
set -eu

fail() {
    printf '\n%s\n' "$@" >&2
    exit 1
}

usable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Interpreters that were compiled without profile-guided optimization (pyenv's default) need a third more CPU for the same requests.
# Distributions' own, conda's and python.org's have it; only configure's arguments tell for the rest.
optimized() {
    "$1" -c 'import os, sys, sysconfig
args, prefix = sysconfig.get_config_var("CONFIG_ARGS") or "", sys.base_prefix
plain = args and "--enable-optimizations" not in args and prefix != "/usr" and not os.path.isdir(prefix + "/conda-meta")
sys.exit(bool(plain))'
}

find_python() {
    [ -z "${PYTHON:-}" ] || usable "$PYTHON" || fail "$PYTHON is no Python of 3.11 or newer with its venv module."
    second=
    for candidate in ${PYTHON:-} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        usable "$candidate" || continue
        if [ "$candidate" = "${PYTHON:-}" ] || optimized "$candidate"; then
            command -v "$candidate"
            return
        fi
        second=${second:-$candidate}
    done
    [ -z "$second" ] || { command -v "$second"; return; }
    fail "Python 3.11 or newer with its venv module is needed; \`python3\` here is $(python3 --version 2>&1 || echo missing)." \
        "Debian/Ubuntu: apt-get install python3 python3-venv    macOS: brew install python    or: make PYTHON=/path/to/python3.12 run"
}

make_venv() {
    python=$(find_python)
    # An environment whose interpreter is gone or too old is made anew; any other is kept.
    if ! "$1/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        "$python" -m venv --clear "$1"
    fi
}

install() { # VENV FILE [options]
    venv=$1 file=$2
    shift 2
    # pip's own settings (a local folder of wheels) hold for uv too.
    UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
    [ -z "$UV_FIND_LINKS" ] && unset UV_FIND_LINKS || export UV_FIND_LINKS
    if [ -x "$uv" ] && "$uv" pip install --quiet --python "$venv/bin/python" --require-hashes "$@" -r "$file"; then
        return
    fi
    echo "uv could not install $file: trying pip" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes "$@" -r "$file"
}

step=$1 venv=$2
uv=${3:-$venv}/bin/uv
case $step in
bootstrap)
    echo "Setting up $venv ..." >&2
    make_venv "$venv"
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/bootstrap.txt; then
        echo "no wheel of uv for this platform: pip will do all" >&2
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/build.txt
    fi
    touch "$venv/.stamp-bootstrap"
    ;;
runtime)
    echo "Installing what the gateway runs on ..." >&2
    install "$venv" requirements/runtime.txt
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
    touch "$venv/.stamp-runtime"
    ;;
dev)
    echo "Installing what the tests need ..." >&2
    install "$venv" requirements/dev.txt
    touch "$venv/.stamp-dev"
    ;;
bench)
    echo "Installing peers to measure beside, into $venv ..." >&2
    make_venv "$venv"
    install "$venv" requirements/bench.txt
    install "$venv" requirements/bench-nodeps.txt --no-deps
    touch "$venv/.stamp"
    ;;
clients)
    echo "Installing client libraries to test with, into $venv ..." >&2
    make_venv "$venv"
    install "$venv" requirements/clients.txt
    if command -v npm >/dev/null; then
        (cd tests/clients/node && npm ci --no-audit --no-fund --loglevel=error >/dev/null)
    else
        echo "no npm: the tests of Node clients will skip" >&2
    fi
    touch "$venv/.stamp"
    ;;
*)
    fail "setup.sh bootstrap|runtime|dev|bench|clients VENV"
    ;;
esac
