#!/bin/sh
# usage: mobile/android/build-stand-in.sh VENV ABI...   (SPIKINGBRAIN_MOBILE=full make test-mobile runs it)
# Builds what Gradle would have CMake build, with Debian's compilers in the NDK's place (mobile/tests/android-stand-in.cmake), in
# build/android/ABI. build/android/build.log tells.
set -e
cd "$(dirname "$0")/../.."
root=$PWD venv=$1
shift
export PATH="$root/$venv/bin:$PATH"
jni=$root/build/android-parts
[ -f "$jni/jni.h" ] || { echo "android: build/android-parts/jni.h: got none, expected Android's; do python3 mobile/android/debian_parts.py build/android-parts" >&2; exit 1; }
mkdir -p build/android
for abi in "$@"; do
    out=$root/build/android/$abi
    { python mobile/android/pack ask "$out" &&
      cmake -S mobile/android/library/src/main/cpp -B "$out" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$root/mobile/tests/android-stand-in.cmake" \
          -DANDROID_ABI="$abi" -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-g0 -DCMAKE_CXX_FLAGS="-g0 -I$jni" &&
      cmake --build "$out" --target $(python mobile/android/pack targets "$out"); } > build/android/build.log 2>&1 ||
        { tail -n 40 build/android/build.log; echo "make: android: got a failure, expected none; do read build/android/build.log" >&2; exit 1; }
done
