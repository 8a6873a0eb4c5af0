#!/bin/sh
# usage: desktop/check-macos.sh VENV [arm64|x86_64]   (make macos-check runs it, for both)
# Library and tools for macOS, compiled and linked by zig (PyPI's ziglang in VENV), without Apple's frameworks (Accelerate, Metal). Nothing of it
# can be run here. build/desktop/macos/ARCH/build.log tells.
set -e
cd "$(dirname "$0")/.."
root=$PWD venv=$1
export PATH="$root/$venv/bin:$PATH"

check() {
    sh release/zig.sh "$venv" "$2-macos" "$3/compilers" &&
    cmake -S cpp_backend -B "$3/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE="$root/desktop/macos.cmake" \
        -DSPIKINGBRAIN_ARCH="$1" -DSPIKINGBRAIN_COMPILERS="$3/compilers" -DSPIKINGBRAIN_NATIVE=OFF -DSPIKINGBRAIN_TESTS=ON -DSPIKINGBRAIN_LIB_DIR=. \
        -DGGML_METAL=OFF -DGGML_ACCELERATE=OFF -DGGML_BLAS=OFF &&
    cmake --build "$3/cmake"
}
for arch in ${2:-arm64 x86_64}; do
    made=$root/build/desktop/macos/$arch
    mkdir -p "$made"
    check "$arch" "$(echo "$arch" | sed s/arm64/aarch64/)" "$made" > "$made/build.log" 2>&1 || {
        tail -n 40 "$made/build.log"; echo "make: macos-check: got a failure, expected none; do read build/desktop/macos/$arch/build.log" >&2; exit 1; }
    echo "$arch: $(ls "$made"/cmake/bin | wc -l) files compiled and linked"
done
