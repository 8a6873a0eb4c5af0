#!/bin/sh
# usage: desktop/windows-module.sh VENV PYTHON FOLDER   (make test-windows runs it, after desktop/build-windows.sh and windows-python.sh)
# The Python package for Windows' CPython 3.13 in FOLDER, not as a wheel: the module cross-compiled with Debian's headers of that Python (the same
# on every system, but for pyconfig.h) and an import library of PYTHON's DLL. build/desktop/windows/module.log tells.
set -e
cd "$(dirname "$0")/.."
root=$PWD venv=$1 dll=$2/python313.dll folder=$3
made=$root/build/desktop/windows
export PATH="$root/$venv/bin:$PATH" ZIG_GLOBAL_CACHE_DIR="$made/compilers/cache"

run() {
    [ -f "$made/python/Python.h" ] || python release/python_headers.py "$made/python" 3.13 x86_64
    cp desktop/pyconfig.h "$made/python/pyconfig.h" &&
    python desktop/import_library.py "$dll" "$made/python313.def" &&
    python -m ziglang dlltool -m i386:x86-64 -d "$made/python313.def" -l "$made/libpython313.a" &&
    cmake -S cpp_backend -B "$made/cmake" -DSPIKINGBRAIN_MODULE=ON -DPYBIND11_FINDPYTHON=ON -DPYBIND11_USE_CROSSCOMPILING=ON \
        -DPython_INCLUDE_DIR="$made/python" -DPython_LIBRARY="$made/libpython313.a" \
        -DPYTHON_IS_DEBUG=OFF -DPYTHON_MODULE_DEBUG_POSTFIX= -DPYTHON_MODULE_EXTENSION=.cp313-win_amd64.pyd &&
    cmake --build "$made/cmake" --target _core &&
    rm -rf "$folder" && mkdir -p "$folder" &&
    cp -r bindings/spikingbrain_cpp "$folder" &&
    cp "$made"/cmake/bindings/_core*.pyd "$folder/spikingbrain_cpp" &&
    cp -rl "$made/zip" "$folder/spikingbrain_cpp/lib"
}
run > "$made/module.log" 2>&1 || { tail -n 40 "$made/module.log"; echo "make: test-windows: got a failure, expected a Python module; do read build/desktop/windows/module.log" >&2; exit 1; }
