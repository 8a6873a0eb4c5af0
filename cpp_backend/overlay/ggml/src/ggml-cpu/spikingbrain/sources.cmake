# included by ggml-cpu/CMakeLists.txt, once per CPU variant; paths are relative to ggml/src
set(spk_sources spikingbrain decay decode encode gla key mul-mat mul-mat-id rope store swa top1 wait spk-buffer spk-layout spk-isa)
set(spk_isa_sources spk-isa-avx2 spk-isa-avxvnni spk-isa-avx512 spk-isa-zen4 spk-isa-dotprod spk-isa-i8mm)
# generic code is what the compiler makes of a variant's flags, except on ARM, where it is written with NEON
if (GGML_SYSTEM_ARCH STREQUAL "ARM") # on macOS not always that of CMAKE_SYSTEM_PROCESSOR, the machine that builds
    list(APPEND spk_isa_sources spk-isa-generic)
else()
    list(APPEND spk_sources spk-isa-generic)
endif()
list(TRANSFORM spk_sources     REPLACE "(.+)" "ggml-cpu/spikingbrain/\\1.cpp")
list(TRANSFORM spk_isa_sources REPLACE "(.+)" "ggml-cpu/spikingbrain/\\1.cpp")
list(APPEND GGML_CPU_SOURCES ${spk_sources})

# each of these names its own instruction set, so that every variant can hold the same object, compiled once
if (GGML_BACKEND_DL)
    if (NOT TARGET ggml-spk-isa)
        add_library(ggml-spk-isa OBJECT ${spk_isa_sources})
        target_compile_features(ggml-spk-isa PRIVATE cxx_std_17)
        target_include_directories(ggml-spk-isa PRIVATE .. . ggml-cpu)
        target_link_libraries(ggml-spk-isa PRIVATE ggml-base)
        set_target_properties(ggml-spk-isa PROPERTIES POSITION_INDEPENDENT_CODE ON)
    endif()
    list(APPEND GGML_CPU_SOURCES $<TARGET_OBJECTS:ggml-spk-isa>)
else()
    list(APPEND GGML_CPU_SOURCES ${spk_isa_sources})
endif()
