#!/bin/sh
# usage: desktop/check-wine.sh   (make test-windows runs it): Debian's wine64 is here, or is installed (as root), or named in one sentence
[ -x /usr/lib/wine/wine64 ] || command -v wine64 >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    { apt-get update -q && apt-get install -y -q --no-install-recommends wine64; } >/dev/null && exit 0
fi
echo "make: test-windows: got no wine64, expected it; do apt-get install -y wine64 (as root; apt-get update first, if it is not found)" >&2
exit 1
