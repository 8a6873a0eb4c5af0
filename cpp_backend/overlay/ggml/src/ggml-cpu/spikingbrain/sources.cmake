# included by ggml-cpu/CMakeLists.txt, once per CPU variant; paths are relative to ggml/src
foreach (name IN ITEMS spikingbrain gla swa mul-mat spk-buffer spk-layout spk-isa
        spk-isa-generic spk-isa-avx2 spk-isa-avx512 spk-isa-dotprod spk-isa-i8mm)
    list(APPEND GGML_CPU_SOURCES ggml-cpu/spikingbrain/${name}.cpp)
endforeach()
