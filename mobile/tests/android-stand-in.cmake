# In place of the NDK's toolchain file, for tests: what the NDK's says to CMake (so that llama.cpp and mobile/android take their branches for
# Android), over Debian's compilers, which make glibc's programs. -DANDROID_ABI=arm64-v8a or x86_64.
set(CMAKE_SYSTEM_NAME    Android)
set(CMAKE_SYSTEM_VERSION 1) # CMake looks for no NDK, as it does not with the NDK's own file
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_ABI)
if (ANDROID_ABI STREQUAL "arm64-v8a")
    set(CMAKE_SYSTEM_PROCESSOR aarch64)
    set(CMAKE_C_COMPILER       aarch64-linux-gnu-gcc)
    set(CMAKE_CXX_COMPILER     aarch64-linux-gnu-g++)
else()
    set(CMAKE_SYSTEM_PROCESSOR x86_64)
    set(CMAKE_C_COMPILER       gcc)
    set(CMAKE_CXX_COMPILER     g++)
endif()
set(CMAKE_ANDROID_ARCH_ABI ${ANDROID_ABI})
