#!/bin/sh
# usage: mobile/arm64/install-site.sh VENV   (make test-mobile runs it)
# Installs the newest arm64 wheel and what it depends on into build/arm64/site, for the sysroot's Python under qemu.
set -e
cd "$(dirname "$0")/../.."
pip="$1/bin/python -m pip --disable-pip-version-check install --quiet --target build/arm64/site --upgrade
    --only-binary=:all: --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64
    --platform manylinux2014_aarch64 --platform linux_aarch64"
wheel=$(ls build/wheels-arm64/*_aarch64.whl)
if [ ! -d build/arm64/site/numpy ]; then
    rm -rf build/arm64/site
    $pip "$wheel"
else
    $pip --no-deps "$wheel"
fi
