#!/bin/sh
# usage: desktop/check-macos.sh VENV [arm64|x86_64]   (make macos-check runs it, for both)
# What a wheel for macOS holds, compiled and linked by zig (PyPI's ziglang in VENV), without Apple's frameworks (Accelerate, Metal), then looked
# into by check_macos.py. Nothing of it can be run here. build/desktop/macos/ARCH/build.log tells.
set -e
cd "$(dirname "$0")/.."
root=$PWD venv=$1
python=$root/$venv/bin/python
made=$root/build/desktop/macos
oldest=$(sed -n 's/.*MACOSX_DEPLOYMENT_TARGET = "\([0-9.]*\)".*/\1/p' pyproject.toml)
# CMake asks what it takes for the macOS it runs on before it believes in run paths
mkdir -p "$made/bin"
printf '#!/bin/sh\necho %s\n' "$oldest" > "$made/bin/sw_vers"
chmod +x "$made/bin/sw_vers"
export PATH="$made/bin:$root/$venv/bin:$PATH"
suffix=$("$python" -c 'import sys; print(".cpython-%d%d-darwin.so" % sys.version_info[:2])')

# This Python's headers: no registry has macOS'. Where their pyconfig.h hides what is not POSIX, macOS' does not.
headers() {
    [ -f "$1/.made" ] || {
        "$python" release/python_headers.py "$1" &&
        printf '#undef _POSIX_C_SOURCE\n#undef _XOPEN_SOURCE\n#define _DARWIN_C_SOURCE 1\n' >> "$1/pyconfig.h" &&
        touch "$1/.made"
    }
}

check() {   # ARCH, its name in zig, FOLDER, CPU libraries (none: all)
    sh release/zig.sh "$venv" "$2-macos.$oldest" "$3/compilers" && headers "$3/include" &&
    SETUPTOOLS_EXT_SUFFIX=$suffix cmake -S . -B "$3/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE="$root/desktop/macos.cmake" \
        -DSPIKINGBRAIN_ARCH="$1" -DSPIKINGBRAIN_COMPILERS="$3/compilers" -DSPIKINGBRAIN_VARIANTS=ON -DSPIKINGBRAIN_ONLY_VARIANTS="$4" -DSPIKINGBRAIN_TESTS=ON \
        -DPython_EXECUTABLE="$python" -DPython_INCLUDE_DIR="$3/include" -DPYBIND11_USE_CROSSCOMPILING=ON \
        -DGGML_METAL=OFF -DGGML_ACCELERATE=OFF -DGGML_BLAS=OFF &&
    cmake --build "$3/cmake" &&
    rm -rf "$3/wheel" && cmake --install "$3/cmake" --prefix "$3/wheel"
}
for arch in ${2:-arm64 x86_64}; do
    here=$made/$arch
    mkdir -p "$here"
    case $arch in
        arm64)  zig=aarch64 variants=$SPIKINGBRAIN_ONLY_VARIANTS ;;
        x86_64) zig=x86_64 variants=${SPIKINGBRAIN_ONLY_VARIANTS-x64;haswell;icelake} ;;
    esac
    check "$arch" "$zig" "$here" "$variants" > "$here/build.log" 2>&1 || {
        tail -n 40 "$here/build.log"; echo "make: macos-check: got a failure, expected none; do read build/desktop/macos/$arch/build.log" >&2; exit 1; }
    "$python" desktop/check_macos.py "$arch" "$oldest" "$here/wheel/spikingbrain_cpp" "$here/cmake/bin"
done
