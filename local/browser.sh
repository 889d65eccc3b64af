#!/usr/bin/env bash
# Find the browser of the tests, or install Debian's Chromium. Only `make test` and `make test-slow` need one.
set -euo pipefail
cd "$(dirname "$0")/.."
log=${SPECTRALIZE_HOME:-.spectralize}/browser.log

fail() { echo "error: $1" >&2; exit 1; }
find_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

if find_browser >/dev/null; then exit 0; fi
need="the tests need a browser: install chromium and fonts-liberation, or Google Chrome"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then fail "$need"; fi

echo "installing chromium (about 350 MB)"
mkdir -p "$(dirname "$log")"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
# A failed update is no reason to stop: the package lists may be good enough. Without a font, every letter would be a box.
{
    apt-get update || true
    apt-get install -y --no-install-recommends chromium fonts-liberation
} >"$log" 2>&1 </dev/null || fail "apt-get install chromium failed, see $log; $need"
# Ubuntu's package is a wrapper around one of another system, which containers do not have.
find_browser >/dev/null && "$(find_browser)" --version >>"$log" 2>&1 || fail "the chromium of apt-get does not start, see $log; $need"
