# Headers of ours that a patched source of llama.cpp reads: the compiler includes them before the source's own, so that the patch holds
# the calls only. Sources that are compiled into nothing here are left out.

# SOURCE and HEADERs relative to llama.cpp; TARGET is one that is made in the source's folder
function (include_first target source)
    if (NOT TARGET ${target})
        return()
    endif()
    set(include -include)
    if (MSVC) # clang-cl
        set(include /FI)
    endif()
    foreach (header IN LISTS ARGN)
        set_property(SOURCE ${llama_dir}/${source} TARGET_DIRECTORY ${target} APPEND PROPERTY COMPILE_OPTIONS ${include} ${llama_dir}/${header})
    endforeach()
endfunction()

include_first(ggml-base ggml/src/ggml-cpu/ggml-cpu.c   ggml/src/ggml-cpu/spikingbrain/spikingbrain.h)
include_first(ggml-base ggml/src/ggml-cpu/ggml-cpu.cpp ggml/src/ggml-cpu/spikingbrain/spikingbrain.h)
include_first(ggml-base ggml/src/ggml-cpu/vec.cpp      ggml/src/ggml-cpu/spikingbrain/spk-bf16.h)
include_first(ggml-rpc  ggml/src/ggml-rpc/ggml-rpc.cpp ggml/src/ggml-rpc/spikingbrain/rpc.h)

include_first(llama src/llama.cpp              src/models/spikingbrain-print.h)
include_first(llama src/llama-adapter.cpp      src/models/spikingbrain-header.h)
include_first(llama src/llama-context.cpp      include/llama-spikingbrain.h src/models/spikingbrain-print.h src/models/spikingbrain-remote.h)
include_first(llama src/llama-model-loader.cpp src/models/spikingbrain-loader.h)
include_first(llama src/llama-quant.cpp        src/spikingbrain-quantize.h include/whole-file.h)

include_first(llama-common          common/arg.cpp                  common/arg-spikingbrain.h)
include_first(llama-common          common/common.cpp               common/whole-number.h)
include_first(llama-cli-impl        tools/cli/cli-context.cpp       common/prompt-bar.h)
include_first(llama-completion-impl tools/completion/completion.cpp common/prompt-bar.h common/completion-limit.h)
include_first(llama-perplexity-impl tools/perplexity/perplexity.cpp common/tool-failed.h)
include_first(llama-gguf-split      tools/gguf-split/gguf-split.cpp include/whole-file.h)

include_first(server-context    tools/server/server-chat.cpp    tools/server/server-messages.h tools/server/server-responses.h)
include_first(server-context    tools/server/server-common.cpp  tools/server/server-request.h)
include_first(server-context    tools/server/server-context.cpp tools/server/server-spikingbrain.h)
include_first(server-context    tools/server/server-queue.cpp   tools/server/server-stop.h)
include_first(server-context    tools/server/server-schema.cpp  tools/server/server-echo.h)
include_first(server-context    tools/server/server-task.cpp    tools/server/server-echo.h tools/server/server-responses.h)
include_first(llama-server-impl tools/server/server.cpp         tools/server/server-request.h tools/server/server-spikes.h)
