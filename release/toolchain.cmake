# zig's compiler for the glibc of a manylinux tag, with the C++ runtime of release/cxx (release/build-wheel.sh uses it)
# -DSPIKINGBRAIN_ARCH=x86_64|aarch64 -DSPIKINGBRAIN_COMPILERS=FOLDER -DSPIKINGBRAIN_CXX=FOLDER
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SPIKINGBRAIN_ARCH SPIKINGBRAIN_COMPILERS SPIKINGBRAIN_CXX)
if (NOT SPIKINGBRAIN_ARCH STREQUAL CMAKE_HOST_SYSTEM_PROCESSOR)
    set(CMAKE_SYSTEM_NAME      Linux)
    set(CMAKE_SYSTEM_PROCESSOR ${SPIKINGBRAIN_ARCH})
endif()
set(CMAKE_C_COMPILER   ${SPIKINGBRAIN_COMPILERS}/clang)
set(CMAKE_CXX_COMPILER ${SPIKINGBRAIN_COMPILERS}/clang++)
set(CMAKE_AR           ${SPIKINGBRAIN_COMPILERS}/ar)
set(CMAKE_RANLIB       ${SPIKINGBRAIN_COMPILERS}/ranlib)

# zig keeps frame pointers otherwise. Types are the same when their names are: exceptions cross libraries that dlopen keeps apart
set(CMAKE_C_FLAGS_INIT   "-g0 -fomit-frame-pointer")
set(CMAKE_CXX_FLAGS_INIT "-g0 -fomit-frame-pointer -D_LIBCPP_TYPEINFO_COMPARISON_IMPLEMENTATION=2")
foreach (kind EXE SHARED MODULE)
    set(CMAKE_${kind}_LINKER_FLAGS_INIT "-Wl,-s")
endforeach()
if (SPIKINGBRAIN_CXX)
    set(CMAKE_CXX_STANDARD_LIBRARIES "${SPIKINGBRAIN_CXX}/libsb-c++.so ${SPIKINGBRAIN_CXX}/libgcc_s.so.1")
endif()

# libraries and headers of the target only: none but the compiler's own
set(CMAKE_FIND_ROOT_PATH              ${SPIKINGBRAIN_COMPILERS}/none)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
