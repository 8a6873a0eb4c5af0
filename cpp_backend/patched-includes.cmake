# Headers of ours that a patched source of llama.cpp reads: the compiler includes them before the source's own, so that the patch holds
# the calls only. Sources that are compiled into nothing here are left out.

# SOURCE and HEADERs relative to llama.cpp; TARGET is one that is made in the source's folder
function (include_first target source)
    if (NOT TARGET ${target})
        return()
    endif()
    foreach (header IN LISTS ARGN)
        set_property(SOURCE ${llama_dir}/${source} TARGET_DIRECTORY ${target} APPEND PROPERTY COMPILE_OPTIONS -include ${llama_dir}/${header})
    endforeach()
endfunction()

include_first(ggml-base ggml/src/ggml-cpu/ggml-cpu.c   ggml/src/ggml-cpu/spikingbrain/spikingbrain.h) # 0002
include_first(ggml-base ggml/src/ggml-cpu/ggml-cpu.cpp ggml/src/ggml-cpu/spikingbrain/spikingbrain.h) # 0003
include_first(ggml-base ggml/src/ggml-cpu/vec.cpp      ggml/src/ggml-cpu/spikingbrain/spk-bf16.h)     # 0013
include_first(ggml-rpc  ggml/src/ggml-rpc/ggml-rpc.cpp ggml/src/ggml-rpc/spikingbrain/rpc.h)          # 0044

include_first(llama src/llama.cpp              src/models/spikingbrain-print.h)                                                             # 0028
include_first(llama src/llama-context.cpp      include/llama-spikingbrain.h src/models/spikingbrain-print.h src/models/spikingbrain-remote.h) # 0009, 0028, 0045
include_first(llama src/llama-model-loader.cpp src/models/spikingbrain-loader.h)                                                            # 0003
include_first(llama src/llama-quant.cpp        src/spikingbrain-quantize.h include/whole-file.h)                                                            # 0016, 0033

include_first(llama-common          common/arg.cpp                  common/arg-spikingbrain.h)                         # 0017, 0032
include_first(llama-cli-impl        tools/cli/cli-context.cpp       common/prompt-bar.h)                               # 0010
include_first(llama-completion-impl tools/completion/completion.cpp common/prompt-bar.h common/completion-limit.h)     # 0010, 0038
include_first(llama-perplexity-impl tools/perplexity/perplexity.cpp common/tool-failed.h)                              # 0025
include_first(llama-gguf-split      tools/gguf-split/gguf-split.cpp include/whole-file.h)                              # 0034
include_first(llama-server-impl     tools/server/server.cpp         tools/server/server-spikes.h)                      # 0051
