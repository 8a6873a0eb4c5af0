# zig's compiler for 64-bit Windows: clang, mingw-w64's headers, the universal C runtime, libc++ linked in (desktop/README.md)
include(${CMAKE_CURRENT_LIST_DIR}/../release/zig.cmake)
set(CMAKE_SYSTEM_NAME      Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)

# -O3 for CMake's trials, too: zig builds its own libraries once per level
string(PREPEND CMAKE_C_FLAGS_INIT   "-O3 ")
string(PREPEND CMAKE_CXX_FLAGS_INIT "-O3 ")
foreach (kind EXE SHARED MODULE)
    set(CMAKE_${kind}_LINKER_FLAGS_INIT "-s")
endforeach()
