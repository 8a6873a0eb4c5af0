#!/bin/sh
# usage: desktop/check-wine.sh   (make test-windows runs it): Debian's wine64 and nsis are here, or are installed (as root), or named in one sentence
here() { { [ -x /usr/lib/wine/wine64 ] || command -v wine64; } && command -v makensis; } >/dev/null 2>&1
here && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    { apt-get update -q && apt-get install -y -q --no-install-recommends wine64 nsis; } >/dev/null && exit 0
fi
echo "make: test-windows: got no wine64 or no makensis, expected both; do apt-get install -y wine64 nsis (as root; apt-get update first, if they are not found)" >&2
exit 1
