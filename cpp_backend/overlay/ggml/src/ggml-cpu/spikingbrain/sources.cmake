# included by ggml-cpu/CMakeLists.txt, once per CPU variant; paths are relative to ggml/src
list(APPEND GGML_CPU_SOURCES
    ggml-cpu/spikingbrain/spikingbrain.cpp
    ggml-cpu/spikingbrain/gla.cpp
    ggml-cpu/spikingbrain/swa.cpp
    )
