# zig's compiler for the glibc of a manylinux tag, with the C++ runtime of release/cxx (release/build-wheel.sh uses it)
# -DSPIKINGBRAIN_ARCH=x86_64|aarch64 -DSPIKINGBRAIN_COMPILERS=FOLDER -DSPIKINGBRAIN_CXX=FOLDER
include(${CMAKE_CURRENT_LIST_DIR}/zig.cmake)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SPIKINGBRAIN_ARCH SPIKINGBRAIN_CXX)
if (NOT SPIKINGBRAIN_ARCH STREQUAL CMAKE_HOST_SYSTEM_PROCESSOR)
    set(CMAKE_SYSTEM_NAME      Linux)
    set(CMAKE_SYSTEM_PROCESSOR ${SPIKINGBRAIN_ARCH})
endif()

# types are the same when their names are: exceptions cross libraries that dlopen keeps apart
string(APPEND CMAKE_CXX_FLAGS_INIT " -D_LIBCPP_TYPEINFO_COMPARISON_IMPLEMENTATION=2")
foreach (kind EXE SHARED MODULE)
    set(CMAKE_${kind}_LINKER_FLAGS_INIT "-Wl,-s")
endforeach()
if (SPIKINGBRAIN_CXX)
    set(CMAKE_CXX_STANDARD_LIBRARIES "${SPIKINGBRAIN_CXX}/libsb-c++.so ${SPIKINGBRAIN_CXX}/libgcc_s.so.1")
endif()
