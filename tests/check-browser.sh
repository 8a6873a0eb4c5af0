#!/bin/sh
# Names, in one sentence, the Debian packages that `make test-page` needs and the system lacks. Installs nothing.
missing=
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v chromedriver >/dev/null 2>&1 || missing="$missing chromium-driver"
[ -n "$missing" ] || exit 0
echo "make: test-page: system packages: got no$missing, expected all of these; do apt-get install -y$missing (as root)" >&2
exit 1
