#!/usr/bin/env bash
# Install the locked dependencies into .venv with uv. Needs python3 (3.11 to 3.13) with venv; names what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
home=${SPECTRALIZE_HOME:-.spectralize}

fail() { echo "error: $1" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is missing: install python3 (3.11 to 3.13)"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
    fail "$python is $("$python" -c 'import platform; print(platform.python_version())'): Python 3.11 to 3.13 is needed; name one with make PYTHON=python3.11"
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "$python has no venv: install it as root with: apt-get install $package"
    echo "installing $package"
    { apt-get update -qq && apt-get install -y -qq "$package"; } >/dev/null || fail "apt-get install $package failed"
fi

uv="$home/uv/bin/uv"
if [ ! -x "$uv" ]; then
    echo "installing uv"
    mkdir -p "$home"
    "$python" -m venv "$home/uv"
    "$home/uv/bin/pip" --quiet --disable-pip-version-check install --require-hashes -r requirements/uv.txt
fi

echo "installing the locked dependencies into .venv (about 2 GB; minutes the first time)"
unset PYTHONDONTWRITEBYTECODE
export VIRTUAL_ENV="$PWD/.venv" UV_LINK_MODE=${UV_LINK_MODE:-copy}
[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
"$uv" pip sync --quiet --require-hashes requirements/dev.txt
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .
.venv/bin/python -c 'import airflow, av, pyspark, spectralize' || fail "the installation in .venv does not import; run make clean and try again"
touch .venv/.installed
