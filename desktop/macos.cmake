# zig's compiler for macOS (desktop/check-macos.sh, which says from which version on): libSystem's symbols come with it, Apple's frameworks do not
# -DSPIKINGBRAIN_ARCH=arm64|x86_64 -DSPIKINGBRAIN_COMPILERS=FOLDER
include(${CMAKE_CURRENT_LIST_DIR}/../release/zig.cmake)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SPIKINGBRAIN_ARCH)
set(CMAKE_SYSTEM_NAME      Darwin)
set(CMAKE_SYSTEM_PROCESSOR ${SPIKINGBRAIN_ARCH})
set(CMAKE_OSX_SYSROOT      "" CACHE STRING "none: zig has its own")
set(CMAKE_OSX_DEPLOYMENT_TARGET "" CACHE STRING "zig's target says it")
set(CMAKE_STRIP                    true) # this machine's knows no Mach-O
set(CMAKE_INSTALL_NAME_TOOL        true) # none here: run paths are set when
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)   # it is linked

# trials are compiled, not linked: zig would build its C++ library for each instruction set that is tried
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

# libSystem's symbols are those of the newest macOS: what an older one lacks is known by its headers
foreach (lang C CXX)
    set(CMAKE_${lang}_FLAGS_INIT "-O3 ${CMAKE_${lang}_FLAGS_INIT} -Werror=unguarded-availability")
endforeach()
