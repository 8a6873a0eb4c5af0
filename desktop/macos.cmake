# zig's compiler for macOS (desktop/check-macos.sh, which says from which version on): libSystem's symbols come with it, Apple's frameworks do not
# -DSPIKINGBRAIN_ARCH=arm64|x86_64 -DSPIKINGBRAIN_COMPILERS=FOLDER
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SPIKINGBRAIN_ARCH SPIKINGBRAIN_COMPILERS)
set(CMAKE_SYSTEM_NAME      Darwin)
set(CMAKE_SYSTEM_PROCESSOR ${SPIKINGBRAIN_ARCH})
set(CMAKE_OSX_SYSROOT      "" CACHE STRING "none: zig has its own")
set(CMAKE_OSX_DEPLOYMENT_TARGET "" CACHE STRING "zig's target says it")
set(CMAKE_C_COMPILER   ${SPIKINGBRAIN_COMPILERS}/clang)
set(CMAKE_CXX_COMPILER ${SPIKINGBRAIN_COMPILERS}/clang++)
set(CMAKE_AR           ${SPIKINGBRAIN_COMPILERS}/ar)
set(CMAKE_RANLIB       ${SPIKINGBRAIN_COMPILERS}/ranlib)
set(CMAKE_STRIP                    true) # this machine's knows no Mach-O
set(CMAKE_INSTALL_NAME_TOOL        true) # none here: run paths are set when
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)   # it is linked

# trials are compiled, not linked: zig would build its C++ library for each instruction set that is tried
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

# libSystem's symbols are those of the newest macOS: what an older one lacks is known by its headers
set(CMAKE_C_FLAGS_INIT   "-O3 -g0 -fomit-frame-pointer -Werror=unguarded-availability")
set(CMAKE_CXX_FLAGS_INIT "-O3 -g0 -fomit-frame-pointer -Werror=unguarded-availability")

# libraries and headers of the target only: none but the compiler's own
set(CMAKE_FIND_ROOT_PATH              ${SPIKINGBRAIN_COMPILERS}/none)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
