# Compile time of what upstream compiles and a spikingbrain model does not run through, without a patch.

# Sources of one kind as one file each: mostly the same headers, 61 files of models that are never loaded here.
function (compile_together target)
    get_target_property(dir     ${target} SOURCE_DIR)
    get_target_property(sources ${target} SOURCES)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
    foreach (group IN LISTS ARGN) # NAME=regex of paths relative to the target's folder
        string(REGEX MATCH "^([a-z-]+)=(.*)$" matched ${group})
        set(members ${sources})
        list(FILTER members INCLUDE REGEX "${CMAKE_MATCH_2}")
        if (NOT members)
            message(FATAL_ERROR "cpp_backend: ${target}: got no source like ${CMAKE_MATCH_2}, expected some; do adapt compile-less.cmake to this llama.cpp")
        endif()
        list(TRANSFORM members PREPEND ${dir}/ REGEX "^[^/]")
        set_source_files_properties(${members} TARGET_DIRECTORY ${target} PROPERTIES UNITY_GROUP ${CMAKE_MATCH_1})
    endforeach()
endfunction()

compile_together(llama-common "parsers=parsers/[^/]*\\.cpp$" "jinja=jinja/[^/]*\\.cpp$" "chat=^chat[^/]*\\.cpp$")
if (TARGET mtmd)
    compile_together(mtmd "models=models/[^/]*\\.cpp$")
endif()

# Text in, text out: llama-common is no faster for -O3, and its largest file is a table of options.
if (NOT MSVC)
    target_compile_options(llama-common PRIVATE $<$<CONFIG:Release>:-O2>)
    set_source_files_properties(${llama_dir}/common/arg.cpp TARGET_DIRECTORY llama-common PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Release>:-O1>)
endif()

# Without the tools nobody reads a command line, downloads a model or answers HTTP.
if (NOT SPIKINGBRAIN_TOOLS)
    set(of_tools arg console debug download hf-cache imatrix-loader llguidance preset subproc)
    list(JOIN of_tools "|" of_tools)
    get_target_property(sources llama-common SOURCES)
    list(FILTER sources EXCLUDE REGEX "^(${of_tools})\\.")
    get_target_property(libraries llama-common LINK_LIBRARIES)
    list(REMOVE_ITEM libraries cpp-httplib)
    set_target_properties(llama-common PROPERTIES SOURCES "${sources}" LINK_LIBRARIES "${libraries}")
    if (CMAKE_SYSTEM_NAME STREQUAL "Linux" OR ANDROID)
        target_link_options(llama-common PRIVATE -Wl,--no-undefined) # one of them that is needed is found here, not at run time
    endif()
endif()
