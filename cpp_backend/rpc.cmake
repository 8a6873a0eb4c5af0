# ggml's RPC backend with a transport and a server of ours, without a patch: see overlay/ggml/src/ggml-rpc/spikingbrain/transport.cpp

# replace_source(TARGET THEIRS OURS): a source of llama.cpp's target
function (replace_source target theirs ours)
    get_target_property(sources ${target} SOURCES)
    if (NOT theirs IN_LIST sources)
        message(FATAL_ERROR "cpp_backend: ${target}: got no source ${theirs}, expected it; do adapt rpc.cmake to this llama.cpp")
    endif()
    list(REMOVE_ITEM sources ${theirs})
    set_target_properties(${target} PROPERTIES SOURCES "${sources};${llama_dir}/${ours}")
endfunction()

replace_source(ggml-rpc        transport.cpp  ggml/src/ggml-rpc/spikingbrain/transport.cpp)
target_sources(ggml-rpc PRIVATE ${llama_dir}/ggml/src/ggml-rpc/spikingbrain/connection.cpp)
replace_source(ggml-rpc-server rpc-server.cpp tools/rpc/sb-rpc-server.cpp)
set_target_properties(ggml-rpc-server PROPERTIES OUTPUT_NAME llama-rpc-server) # as the other tools in lib/

# Peers compute the same or part at once: of one llama.cpp, one protocol, one set of operators, whatever their CPUs.
file(GLOB_RECURSE operator_files RELATIVE ${backend} ${backend}/overlay/ggml/* ${backend}/patches/*.patch)
list(SORT operator_files)
file(SHA256 ${backend}/llama.lock operators)
foreach (file IN LISTS operator_files)
    if (file MATCHES "\\.patch$")
        file(STRINGS ${backend}/${file} of_ggml REGEX "^--- a/ggml/")
        if (NOT of_ggml)
            continue()
        endif()
    endif()
    file(SHA256 ${backend}/${file} one)
    string(SHA256 operators "${operators} ${file} ${one}")
endforeach()
string(SUBSTRING ${operators} 0 16 operators)
set_property(SOURCE ${llama_dir}/ggml/src/ggml-rpc/spikingbrain/transport.cpp TARGET_DIRECTORY ggml-rpc
    APPEND PROPERTY COMPILE_DEFINITIONS SPIKINGBRAIN_OPERATORS=0x${operators}ull)
