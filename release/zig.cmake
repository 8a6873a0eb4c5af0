# What the toolchain files of all targets by zig have in common (release/, desktop/): -DSPIKINGBRAIN_COMPILERS=FOLDER, which release/zig.sh made
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SPIKINGBRAIN_COMPILERS)
set(CMAKE_C_COMPILER   ${SPIKINGBRAIN_COMPILERS}/clang)
set(CMAKE_CXX_COMPILER ${SPIKINGBRAIN_COMPILERS}/clang++)
set(CMAKE_AR           ${SPIKINGBRAIN_COMPILERS}/ar)
set(CMAKE_RANLIB       ${SPIKINGBRAIN_COMPILERS}/ranlib)

# zig keeps frame pointers otherwise
set(CMAKE_C_FLAGS_INIT   "-g0 -fomit-frame-pointer")
set(CMAKE_CXX_FLAGS_INIT "-g0 -fomit-frame-pointer")

# libraries and headers of the target only: none but the compiler's own
set(CMAKE_FIND_ROOT_PATH              ${SPIKINGBRAIN_COMPILERS}/none)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
