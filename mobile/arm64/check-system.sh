#!/bin/sh
# usage: mobile/arm64/check-system.sh build|test [--install]
# Names, in one sentence, every Debian package that cross-compiling for arm64 (test: and running the result here) needs and
# the system lacks; as root, --install installs them instead.
missing=
command -v aarch64-linux-gnu-g++ >/dev/null 2>&1 && command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 || missing="$missing g++-aarch64-linux-gnu"
[ "$1" = build ] || command -v qemu-aarch64 >/dev/null 2>&1 || missing="$missing qemu-user"
[ -n "$missing" ] || exit 0

if [ "$2" = --install ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    { apt-get update -q && apt-get install -y -q $missing; } >/dev/null && exit 0
fi
echo "make: system packages: got no$missing, expected all of these; do apt-get install -y$missing (as root; apt-get update first, if they are not found)" >&2
exit 1
