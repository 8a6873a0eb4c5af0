# zig's compiler for 64-bit Windows: clang, mingw-w64's headers, the universal C runtime, libc++ linked in (desktop/README.md)
# -DSPIKINGBRAIN_COMPILERS=FOLDER, which release/zig.sh made
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SPIKINGBRAIN_COMPILERS)
set(CMAKE_SYSTEM_NAME      Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER   ${SPIKINGBRAIN_COMPILERS}/clang)
set(CMAKE_CXX_COMPILER ${SPIKINGBRAIN_COMPILERS}/clang++)
set(CMAKE_AR           ${SPIKINGBRAIN_COMPILERS}/ar)
set(CMAKE_RANLIB       ${SPIKINGBRAIN_COMPILERS}/ranlib)

# -O3 for CMake's trials, too: zig builds its own libraries once per level
set(CMAKE_C_FLAGS_INIT   "-O3 -g0 -fomit-frame-pointer")
set(CMAKE_CXX_FLAGS_INIT "-O3 -g0 -fomit-frame-pointer")
foreach (kind EXE SHARED MODULE)
    set(CMAKE_${kind}_LINKER_FLAGS_INIT "-s")
endforeach()

# libraries and headers of the target only: none but the compiler's own
set(CMAKE_FIND_ROOT_PATH              ${SPIKINGBRAIN_COMPILERS}/none)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
