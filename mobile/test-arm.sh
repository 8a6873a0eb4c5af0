#!/bin/sh
# usage: mobile/test-arm.sh [BUILD_DIR]
# Cross-compiles ggml and the operators' tests for AArch64, statically, and runs them under qemu: on a CPU with the dot
# product, with the generic kernels forced, and on a Cortex-A72, which has no dot product.
# Debian: apt-get install g++-aarch64-linux-gnu qemu-user cmake ninja-build
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$root/build/arm}
tree=$build/llama.cpp

python3 "$root/cpp_backend/upstream.py" --dest "$tree"
cmake -S "$tree" -B "$build/ggml" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF \
    -DGGML_OPENMP=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_NUMBER=1 -DLLAMA_BUILD_COMMIT=none > "$build/cmake.log" 2>&1
ninja -C "$build/ggml" ggml ggml-cpu ggml-base > "$build/ninja.log"

libs=$build/ggml/ggml/src
for name in test-spk-ops test-spk-matmul; do
    aarch64-linux-gnu-g++ -static -O2 -std=c++17 -I"$tree/ggml/include" "$root/tests/cpp/$name.cpp" -o "$build/$name" \
        "$libs/libggml.a" "$libs/libggml-cpu.a" "$libs/libggml-base.a" -lpthread
    qemu-aarch64 "$build/$name"
    SPIKINGBRAIN_ISA=generic qemu-aarch64 "$build/$name"
    qemu-aarch64 -cpu cortex-a72 "$build/$name"
done
