# Folder = layer = one static library dspark_<name> that links only the layers below it. Sources are found by
# glob: `x_test.cc` beside a source belongs to the layer's test binary, `x_avx2.cc` and `x_avx512.cc` are compiled
# for their instruction set (and called only after a check at run time).

add_library(dspark_options INTERFACE)
target_include_directories(dspark_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(dspark_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Werror
  # One rounding per operation, in every file: a * b + c is fused only where the code says std::fma.
  -ffp-contract=off)
if(DSPARK_SANITIZE)
  target_compile_options(dspark_options INTERFACE -fsanitize=${DSPARK_SANITIZE} -fno-omit-frame-pointer -g
    -fno-sanitize-recover=all)
  target_link_options(dspark_options INTERFACE -fsanitize=${DSPARK_SANITIZE})
endif()

set(DSPARK_LAYERS "" CACHE INTERNAL "")

function(dspark_isa_flags)
  foreach(source ${ARGN})
    if(source MATCHES "_avx512\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mfma;-mf16c;-mprefer-vector-width=512")
    elseif(source MATCHES "_avx2\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
    endif()
  endforeach()
endfunction()

function(dspark_layer name)
  cmake_parse_arguments(LAYER "" "" "LINKS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS src/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "(_(test|bench|fuzz)|/main)\\.cc$")
  dspark_isa_flags(${sources})
  if(sources)
    add_library(dspark_${name} STATIC ${sources})
    target_link_libraries(dspark_${name} PUBLIC dspark_options ${LAYER_LINKS})
  else()
    add_library(dspark_${name} INTERFACE)
    target_link_libraries(dspark_${name} INTERFACE dspark_options ${LAYER_LINKS})
  endif()
  set(DSPARK_LAYERS ${DSPARK_LAYERS} ${name} CACHE INTERNAL "")
endfunction()

# One binary, one short file per subcommand; all but main.cc is the layer dspark_apps, so that it has tests too.
function(dspark_apps)
  if(EXISTS ${PROJECT_SOURCE_DIR}/src/apps/main.cc)
    add_executable(dspark src/apps/main.cc)
    target_link_libraries(dspark PRIVATE dspark_apps)
    install(TARGETS dspark)
  endif()
endfunction()

# Tests of a layer are one binary; tests/*_test.cc (several layers at once) are another.
# Labels: a gtest whose suite name starts with Model needs the default model, with Golden the golden data.
function(dspark_test_binary name)
  cmake_parse_arguments(TEST "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${TEST_SOURCES} ${PROJECT_SOURCE_DIR}/tests/test_main.cc)
  target_link_libraries(${name} PRIVATE ${TEST_LINKS} GTest::gtest GTest::gmock)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE DSPARK_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 900)
endfunction()

function(dspark_tests)
  find_package(GTest REQUIRED)
  foreach(layer ${DSPARK_LAYERS})
    file(GLOB tests CONFIGURE_DEPENDS src/${layer}/*_test.cc)
    if(tests)
      dspark_isa_flags(${tests})
      dspark_test_binary(dspark_${layer}_test SOURCES ${tests} LINKS dspark_${layer})
    endif()
  endforeach()
  file(GLOB tests CONFIGURE_DEPENDS tests/*_test.cc)
  if(tests)
    dspark_test_binary(dspark_system_test SOURCES ${tests} LINKS dspark_engine)
  endif()
  # Scripts get the path of the dspark binary as their argument.
  file(GLOB scripts CONFIGURE_DEPENDS tests/*_test.py tests/*_test.sh)
  set(binary $<$<TARGET_EXISTS:dspark>:$<TARGET_FILE:dspark>>)
  foreach(script ${scripts})
    get_filename_component(name ${script} NAME_WE)
    set(interpreter bash)
    if(script MATCHES "\\.py$")
      set(interpreter python3)
    endif()
    add_test(NAME ${name} COMMAND ${interpreter} ${script} ${binary} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900)
  endforeach()
endfunction()

# Micro-benchmarks: src/<layer>/x_bench.cc, one binary per layer.
function(dspark_benchmarks)
  find_package(benchmark REQUIRED)
  foreach(layer ${DSPARK_LAYERS})
    file(GLOB benches CONFIGURE_DEPENDS src/${layer}/*_bench.cc)
    if(benches)
      add_executable(dspark_${layer}_bench ${benches})
      target_link_libraries(dspark_${layer}_bench PRIVATE dspark_${layer} benchmark::benchmark_main)
    endif()
  endforeach()
endfunction()

# Fuzz targets: fuzz/x_fuzz.cc, one binary each, libFuzzer's main.
function(dspark_fuzzers)
  file(GLOB fuzzers CONFIGURE_DEPENDS fuzz/*_fuzz.cc)
  foreach(source ${fuzzers})
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(${name} PRIVATE dspark_engine)
  endforeach()
endfunction()
