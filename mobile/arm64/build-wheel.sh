#!/bin/sh
# usage: mobile/arm64/build-wheel.sh VENV   (make test-mobile runs it)
# Cross-compiles the fork, its C++ tests and the Python module for arm64 by Debian's compiler, every CPU variant that it knows, and packs
# build/wheels-arm64/*.whl, without tools and for this Debian's glibc; VENV holds the build requirements. build/arm64/build.log tells.
set -e
cd "$(dirname "$0")/../.."
root=$PWD venv=$1
python=$root/$venv/bin/python
sysroot=$root/build/arm64/sysroot
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

rm -rf build/wheels-arm64
# the first two: what scikit-build-core and pybind11 read when they build for another machine than theirs
_PYTHON_HOST_PLATFORM=linux-aarch64 \
SETUPTOOLS_EXT_SUFFIX=.cpython-$(echo "$version" | tr -d .)-aarch64-linux-gnu.so \
PATH="$root/$venv/bin:$PATH" \
"$python" -m pip --disable-pip-version-check wheel --no-build-isolation --no-deps --verbose --wheel-dir build/wheels-arm64 \
    --config-settings=build-dir=build/arm64/cmake \
    --config-settings=cmake.define.CMAKE_TOOLCHAIN_FILE="$root/mobile/arm64/toolchain.cmake" \
    --config-settings=cmake.python-hints=false \
    --config-settings=cmake.define.Python_EXECUTABLE="$python" \
    --config-settings=cmake.define.Python_INCLUDE_DIR="$sysroot/usr/include/python$version" \
    --config-settings=cmake.define.PYBIND11_USE_CROSSCOMPILING=ON \
    --config-settings=cmake.define.SPIKINGBRAIN_VARIANTS=ON \
    --config-settings=cmake.define.SPIKINGBRAIN_TESTS=ON \
    --config-settings=cmake.define.SPIKINGBRAIN_TOOLS=OFF \
    . > build/arm64/build.log 2>&1 ||
    { tail -n 40 build/arm64/build.log; echo "make: test-mobile: got a failure, expected none; do read build/arm64/build.log" >&2; exit 1; }
ls build/wheels-arm64/*_aarch64.whl
