#!/bin/sh
# Names, in one sentence, every Debian package this build needs and the system lacks. Installs nothing.
missing=
need() { missing="$missing $1"; }

command -v c++ >/dev/null 2>&1 && command -v cc >/dev/null 2>&1 || need g++
command -v patch >/dev/null 2>&1 || need patch
if command -v python3 >/dev/null 2>&1; then
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || need python3-venv
    python3 -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
        need python3-dev
else
    missing="$missing python3 python3-venv python3-dev"
fi

if [ -n "$missing" ]; then
    how="apt-get install -y$missing (as root)"
    [ "$(uname -s)" != Darwin ] || how="xcode-select --install"
    echo "make: system packages: got no$missing, expected all of these; do $how" >&2
    exit 1
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "make: python3: got $(python3 --version), expected Python 3.10 or newer; do put one first on PATH" >&2
    exit 1
fi
