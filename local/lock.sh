#!/usr/bin/env bash
# Resolve the dependencies of pyproject.toml anew: hashes, no addresses, one lock for Python 3.11 to 3.13.
set -euo pipefail
cd "$(dirname "$0")/.."
uv="${SPECTRALIZE_HOME:-.spectralize}/uv/bin/uv"
lock() { "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links "$@"; }
lock pyproject.toml --extra dev --output-file requirements/dev.txt
lock pyproject.toml --extra reader --output-file requirements/reader.txt
echo "uv" | lock - --output-file requirements/uv.txt
