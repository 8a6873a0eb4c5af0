#!/bin/sh
# usage: mobile/arm64/build-static.sh VENV   (make arm64-static runs it)
# Static tools (musl, by zig of PyPI's ziglang in VENV) for any arm64 Linux kernel, Android's included, in two flavours:
# build/arm64-static/armv8.0 and build/arm64-static/armv8.2-dotprod. build/arm64-static/build.log tells.
set -e
cd "$(dirname "$0")/../.."
root=$PWD venv=$1
out=$root/build/arm64-static
export PATH="$root/$venv/bin:$PATH"

sh release/zig.sh "$venv" aarch64-linux-musl "$out/compiler"

# flavour NAME ARCH: one tree for both, so that the second compiles upstream's kernels anew and nothing else
flavour() {
    cmake -S cpp_backend -B "$out/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
        -DCMAKE_C_COMPILER="$out/compiler/clang" -DCMAKE_CXX_COMPILER="$out/compiler/clang++" -DCMAKE_AR="$out/compiler/ar" \
        -DCMAKE_RANLIB="$out/compiler/ranlib" -DCMAKE_C_FLAGS=-g0 -DCMAKE_CXX_FLAGS=-g0 -DCMAKE_EXE_LINKER_FLAGS="-static -s" -DCMAKE_FIND_ROOT_PATH="$out/none" \
        -DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=NEVER -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY \
        -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=ONLY \
        -DSPIKINGBRAIN_STATIC=ON -DSPIKINGBRAIN_NATIVE=OFF -DSPIKINGBRAIN_TESTS=ON -DSPIKINGBRAIN_LIB_DIR=. -DGGML_CPU_ARM_ARCH="$2" &&
    cmake --build "$out/cmake" &&
    rm -rf "$out/$1" && cmake --install "$out/cmake" --prefix "$out/$1" && rm -f "$out/$1"/*.a &&
    mkdir "$out/$1/tests" && cp "$out"/cmake/bin/test-* "$out/$1/tests"
}
{ flavour armv8.0 generic && flavour armv8.2-dotprod generic+v8_2a+dotprod; } > "$out/build.log" 2>&1 ||
    { tail -n 40 "$out/build.log"; echo "make: arm64-static: got a failure, expected none; do read build/arm64-static/build.log" >&2; exit 1; }
du -sh "$out/armv8.0" "$out/armv8.2-dotprod"
