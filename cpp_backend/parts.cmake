# Licences of all that is compiled in, and the bill of materials: parts.json is the list. In a wheel both lie in its metadata
# folder (dist-info/licenses, dist-info/sboms).

set(parts_from llama=${llama_dir} ${SPIKINGBRAIN_PARTS})
if (SPIKINGBRAIN_COMPILERS) # what zig puts into its programs
    execute_process(COMMAND ${Python_EXECUTABLE} -c
        "import importlib.metadata as m, importlib.util as u; print(f'zig={u.find_spec(\"ziglang\").submodule_search_locations[0]}/lib;ziglang={m.distribution(\"ziglang\")._path}', end='')"
        OUTPUT_VARIABLE parts_of_zig COMMAND_ERROR_IS_FATAL ANY)
    list(APPEND parts_from ${parts_of_zig})
    if (WIN32)
        string(REGEX MATCH "zig=([^;]*)" zig_lib "${parts_of_zig}")
        list(APPEND parts_from mingw=${CMAKE_MATCH_1}/libc/mingw)
    endif()
endif()
set(parts_dir ${CMAKE_CURRENT_BINARY_DIR}/parts)
execute_process(COMMAND ${Python_EXECUTABLE} ${backend}/parts.py --out ${parts_dir} --version "${SKBUILD_PROJECT_VERSION}" ${parts_from} RESULT_VARIABLE parts_result)
if (NOT parts_result EQUAL 0)
    message(FATAL_ERROR "the licences could not be gathered: the line beginning with 'parts:' says why")
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${backend}/parts.json ${backend}/parts.py)

if (SKBUILD_METADATA_DIR)
    install(DIRECTORY ${parts_dir}/licenses ${parts_dir}/sboms DESTINATION ${SKBUILD_METADATA_DIR})
else()
    install(DIRECTORY ${parts_dir}/licenses DESTINATION ${SPIKINGBRAIN_LIB_DIR})
endif()
if (SPIKINGBRAIN_CXX)
    install(FILES ${SPIKINGBRAIN_CXX}/libsb-c++.so DESTINATION ${SPIKINGBRAIN_LIB_DIR})
    file(COPY ${SPIKINGBRAIN_CXX}/libsb-c++.so DESTINATION ${CMAKE_BINARY_DIR}/bin) # for programs of the build tree
endif()
