#!/bin/sh
# usage: desktop/build-windows.sh VENV   (make windows runs it)
# build/windows/spikingbrain_cpp-VERSION-windows-x64.zip: programs and libraries for 64-bit Windows, cross-compiled by zig (PyPI's ziglang in
# VENV). build/desktop/windows/build.log tells.
set -e
cd "$(dirname "$0")/.."
root=$PWD venv=$1
made=$root/build/desktop/windows
export PATH="$root/$venv/bin:$PATH"
mkdir -p "$made"

sh release/zig.sh "$venv" x86_64-windows-gnu "$made/compilers"

run() {
    cmake -S cpp_backend -B "$made/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE="$root/desktop/windows.cmake" \
        -DSPIKINGBRAIN_COMPILERS="$made/compilers" -DSPIKINGBRAIN_VARIANTS=ON -DSPIKINGBRAIN_ONLY_VARIANTS="$SPIKINGBRAIN_ONLY_VARIANTS" \
        -DSPIKINGBRAIN_TESTS=ON -DSPIKINGBRAIN_MODULE=OFF -DSPIKINGBRAIN_LIB_DIR=. &&
    cmake --build "$made/cmake" &&
    rm -rf "$made/zip" && cmake --install "$made/cmake" --prefix "$made/zip" &&
    "$venv/bin/python" desktop/pack.py "$made/zip" build/windows
}
run > "$made/build.log" 2>&1 || { tail -n 40 "$made/build.log"; echo "make: windows: got a failure, expected none; do read build/desktop/windows/build.log" >&2; exit 1; }
ls build/windows/*.zip
