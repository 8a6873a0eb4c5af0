#!/bin/sh
# usage: release/build-wheel.sh VENV ARCH FOLDER   (make wheel and make arm64 run it)
# One wheel for any Linux of ARCH (x86_64 or aarch64) with glibc 2.28 or newer, every CPU library and tool in it, in FOLDER: compiled by zig
# for that glibc, checked and tagged by auditwheel. VENV holds the build requirements and release extras. build/portable/ARCH/build.log tells.
# Its module is there for VENV's Python and for those that SPIKINGBRAIN_PYTHONS names ("3.11 3.13": all that release/python_headers.py knows).
set -e
cd "$(dirname "$0")/.."
root=$PWD venv=$1 arch=$2 folder=$3
glibc=2_28
made=$root/build/portable/$arch
python=$root/$venv/bin/python
export PATH="$root/$venv/bin:$PATH"

# llama.cpp has two more for aarch64, with SME, for KleidiAI's kernels: without these nothing uses it
only=$SPIKINGBRAIN_ONLY_VARIANTS
[ "$only" ] || [ "$arch" != aarch64 ] || only="armv8.0_1;armv8.2_1;armv8.2_2;armv8.2_3;armv8.6_1;armv8.6_2"

mkdir -p "$made"
rm -rf "$made/wheel" "$made/tagged"

# headers of Python: cross-built, Debian's; otherwise this Python's in a folder of their own, since zig must not see the rest of /usr/include
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
others= tags=cp$(echo "$version" | tr -d .)
for other in ${SPIKINGBRAIN_PYTHONS-3.11 3.13}; do
    [ "$other" != "$version" ] || continue
    short=$(echo "$other" | tr -d .)
    others="$others;$short=$made/include/python$other" tags="$tags.cp$short"
    [ -d "$made/include/python$other" ] || "$python" release/python_headers.py "$made/include/python$other" "$other" "$arch"
done
if [ "$arch" = "$(uname -m)" ]; then
    include=$made/include/python$version
    "$python" release/python_headers.py "$include"
else
    include=$root/build/arm64/sysroot/usr/include/python$version
    # what scikit-build-core and pybind11 read when they build for another machine than theirs
    export _PYTHON_HOST_PLATFORM=linux-$arch SETUPTOOLS_EXT_SUFFIX=.cpython-$(echo "$version" | tr -d .)-$arch-linux-gnu.so
fi

run() {
    sh release/zig.sh "$venv" "$arch-linux-gnu.$(echo $glibc | tr _ .)" "$made/compilers" -nostdlib++ &&
    zig=$("$python" -c 'import ziglang; print(ziglang.__path__[0])')/lib &&
    cmake -S release/cxx -B "$made/cxx" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE="$root/release/toolchain.cmake" \
        -DSPIKINGBRAIN_ARCH="$arch" -DSPIKINGBRAIN_COMPILERS="$made/compilers" -DZIG_LIB="$zig" &&
    cmake --build "$made/cxx" &&
    "$python" -m pip --disable-pip-version-check wheel --no-build-isolation --no-deps --verbose --wheel-dir "$made/wheel" \
        --config-settings=build-dir="build/portable/$arch/cmake" \
        --config-settings=install.strip=false \
        --config-settings=cmake.define.CMAKE_TOOLCHAIN_FILE="$root/release/toolchain.cmake" \
        --config-settings=cmake.define.SPIKINGBRAIN_ARCH="$arch" \
        --config-settings=cmake.define.SPIKINGBRAIN_COMPILERS="$made/compilers" \
        --config-settings=cmake.define.SPIKINGBRAIN_CXX="$made/cxx/lib" \
        --config-settings=cmake.python-hints=false \
        --config-settings=cmake.define.Python_EXECUTABLE="$python" \
        --config-settings=cmake.define.Python_INCLUDE_DIR="$include" \
        --config-settings=cmake.define.PYBIND11_USE_CROSSCOMPILING=ON \
        --config-settings=cmake.define.SPIKINGBRAIN_OTHER_PYTHONS="${others#;}" \
        --config-settings=cmake.define.SPIKINGBRAIN_VARIANTS=ON \
        --config-settings=cmake.define.SPIKINGBRAIN_ONLY_VARIANTS="$only" \
        --config-settings=cmake.define.SPIKINGBRAIN_TESTS=ON \
        . &&
    "$python" -m wheel tags --remove --python-tag "$tags" --abi-tag "$tags" "$made"/wheel/*.whl &&
    "$python" release/tag.py "$made"/wheel/*.whl "manylinux_${glibc}_$arch" "$made/tagged"
}
run > "$made/build.log" 2>&1 || {
    tail -n 40 "$made/build.log"
    echo "make: wheel: got a failure, expected none; do read build/portable/$arch/build.log" >&2
    exit 1
}
mkdir -p "$folder"
rm -f "$folder"/*_"$arch".whl
mv "$made"/tagged/*.whl "$folder"
ls "$folder"/*_"$arch".whl
