# Folder = layer = one static library dspark_<name> that links only the layers below it. Sources are found by
# glob: `x_test.cc` beside a source belongs to the layer's test binary, `x_avx2.cc` and `x_avx512.cc` are compiled
# for their instruction set (and called only after a check at run time).

add_library(dspark_options INTERFACE)
target_include_directories(dspark_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(dspark_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Werror
  # One rounding per operation, in every file: a * b + c is fused only where the code says std::fma.
  -ffp-contract=off)
if(DSPARK_SANITIZE)
  target_compile_options(dspark_options INTERFACE -fsanitize=${DSPARK_SANITIZE} -fno-omit-frame-pointer -g1
    -fno-sanitize-recover=all)
  # g++ 12 takes what sanitizers add, inside std::function of std::regex, for uses of what was never set.
  target_compile_options(dspark_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(dspark_options INTERFACE -fsanitize=${DSPARK_SANITIZE})
endif()

set(DSPARK_LAYERS "" CACHE INTERNAL "")

function(dspark_isa_flags)
  foreach(source ${ARGN})
    if(source MATCHES "_avx(2|512)\\.cc$")
      set_source_files_properties(${source} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)  # whose flags are others
    endif()
    if(source MATCHES "_avx512\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mfma;-mf16c;-mprefer-vector-width=512")
    elseif(source MATCHES "_avx2\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
    endif()
  endforeach()
endfunction()

# Headers that most files of a target include and that take longer than the files themselves.
function(dspark_precompile target)
  target_precompile_headers(${target} PRIVATE ${ARGN})
  # False alarms of g++ 12 inside std::string, which a precompiled header no longer marks as the system's.
  target_compile_options(${target} PRIVATE
    $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-restrict;-Wno-stringop-overflow>)
endfunction()

function(dspark_layer name)
  cmake_parse_arguments(LAYER "" "" "LINKS;PRECOMPILE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS src/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "(_(test|bench|fuzz)|/main)\\.cc$")
  dspark_isa_flags(${sources})
  if(sources)
    add_library(dspark_${name} STATIC ${sources})
    target_link_libraries(dspark_${name} PUBLIC dspark_options ${LAYER_LINKS})
    if(LAYER_PRECOMPILE)
      dspark_precompile(dspark_${name} ${LAYER_PRECOMPILE})
      set(DSPARK_PRECOMPILE_${name} ${LAYER_PRECOMPILE} CACHE INTERNAL "")  # its tests include them as well
    endif()
  else()
    add_library(dspark_${name} INTERFACE)
    target_link_libraries(dspark_${name} INTERFACE dspark_options ${LAYER_LINKS})
  endif()
  set(DSPARK_LAYERS ${DSPARK_LAYERS} ${name} CACHE INTERNAL "")
endfunction()

# A text file as source of `target`: `template` with @variable@ replaced by the text.
function(dspark_embed target file template variable)
  file(READ ${file} ${variable})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  get_filename_component(name ${template} NAME_WLE)
  configure_file(${template} ${PROJECT_BINARY_DIR}/embedded/${name} @ONLY)
  target_sources(${target} PRIVATE ${PROJECT_BINARY_DIR}/embedded/${name})
endfunction()

# One binary, one short file per subcommand; all but main.cc is the layer dspark_apps, so that it has tests too.
function(dspark_apps)
  if(EXISTS ${PROJECT_SOURCE_DIR}/src/apps/main.cc)
    add_executable(dspark src/apps/main.cc)
    target_link_libraries(dspark PRIVATE dspark_apps)
    target_compile_definitions(dspark PRIVATE DSPARK_VERSION="${PROJECT_VERSION}")
    install(TARGETS dspark)
  endif()
endfunction()

# The trainer is a program of its own, which `dspark train` starts: dspark itself never links torch.
function(dspark_trainer)
  target_include_directories(dspark_train SYSTEM PUBLIC ${TORCH_INCLUDE_DIRS})
  separate_arguments(flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
  target_compile_options(dspark_train PUBLIC ${flags})
  # PyPI's torch has headers of a newer fmt beside its own: the system's, whose library is linked, come first.
  find_path(TORCH_FMT_INCLUDE_DIR fmt/format.h PATHS ${TORCH_INCLUDE_DIRS} NO_DEFAULT_PATH)
  get_target_property(system_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
  if(TORCH_FMT_INCLUDE_DIR AND NOT TORCH_FMT_INCLUDE_DIR STREQUAL system_include)
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/system_fmt)
    file(CREATE_LINK ${system_include}/fmt ${PROJECT_BINARY_DIR}/system_fmt/fmt SYMBOLIC)
    target_include_directories(dspark_train SYSTEM BEFORE PUBLIC ${PROJECT_BINARY_DIR}/system_fmt)
  endif()
  # Several processes talk through the gloo that torch was built with, whose headers are needed too (Debian:
  # libgloo-dev). Those of another version would not fit: only where torch's own headers lie is looked for them.
  find_path(GLOO_INCLUDE_DIR gloo/context.h PATHS ${TORCH_INCLUDE_DIRS} NO_DEFAULT_PATH)
  if(GLOO_INCLUDE_DIR)
    target_include_directories(dspark_train SYSTEM PRIVATE ${GLOO_INCLUDE_DIR})
    target_compile_definitions(dspark_train PRIVATE DSPARK_GLOO)
  else()
    message(STATUS "No gloo headers: dspark-train runs in one process only")
  endif()
  if(EXISTS ${PROJECT_SOURCE_DIR}/src/train/main.cc)
    add_executable(dspark-train src/train/main.cc)
    target_link_libraries(dspark-train PRIVATE dspark_train)
    target_compile_definitions(dspark-train PRIVATE DSPARK_VERSION="${PROJECT_VERSION}")
    install(TARGETS dspark-train)
  endif()
endfunction()

# Tests of a layer are one binary; tests/*_test.cc (several layers at once) are another. ctest knows a binary under up to
# three names: plain; _golden (label golden): suites with Golden in their name, which need the golden data; _model (label
# model): suites that begin with Model, which need the default model. Those skip loudly where their data is missing.
function(dspark_test_binary name)
  cmake_parse_arguments(TEST "" "" "SOURCES;LINKS;PRECOMPILE" ${ARGN})
  add_executable(${name} ${TEST_SOURCES} ${PROJECT_SOURCE_DIR}/tests/test_main.cc)
  target_link_libraries(${name} PRIVATE ${TEST_LINKS} GTest::gtest GTest::gmock)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE DSPARK_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  list(LENGTH TEST_SOURCES count)
  if(count GREATER 4)  # gmock is a quarter of what a test takes to compile
    dspark_precompile(${name} <gmock/gmock.h> <gtest/gtest.h> ${TEST_PRECOMPILE})
  endif()
  add_test(NAME ${name} COMMAND ${name} --gtest_filter=-Model*:*Golden*)
  set_tests_properties(${name} PROPERTIES TIMEOUT 1800)
  foreach(source ${TEST_SOURCES})
    file(STRINGS ${source} model_suites REGEX "TEST(_[FP])?\\((Model)")
    file(STRINGS ${source} golden_suites REGEX "TEST(_[FP])?\\(Golden")
    if(model_suites AND NOT TEST ${name}_model)
      add_test(NAME ${name}_model COMMAND ${name} --gtest_filter=Model*)
      set_tests_properties(${name}_model PROPERTIES LABELS model TIMEOUT 1800)
    endif()
    if(golden_suites AND NOT TEST ${name}_golden)
      add_test(NAME ${name}_golden COMMAND ${name} --gtest_filter=*Golden*-Model*)
      set_tests_properties(${name}_golden PROPERTIES LABELS golden TIMEOUT 1800)
    endif()
  endforeach()
endfunction()

function(dspark_tests)
  find_package(GTest REQUIRED)
  foreach(layer ${DSPARK_LAYERS})
    file(GLOB tests CONFIGURE_DEPENDS src/${layer}/*_test.cc)
    if(tests)
      dspark_isa_flags(${tests})
      # What the trainer makes is tried in the engine.
      set(more $<$<STREQUAL:${layer},train>:dspark_engine>)
      dspark_test_binary(dspark_${layer}_test SOURCES ${tests} LINKS dspark_${layer} ${more}
        PRECOMPILE ${DSPARK_PRECOMPILE_${layer}})
    endif()
  endforeach()
  file(GLOB tests CONFIGURE_DEPENDS tests/*_test.cc)
  if(tests)
    dspark_test_binary(dspark_system_test SOURCES ${tests} LINKS dspark_engine dspark_grammar dspark_data
      PRECOMPILE <nlohmann/json.hpp>)
    add_dependencies(dspark_system_test dspark)
    if(TARGET dspark-train)  # `dspark train` starts it
      add_dependencies(dspark_system_test dspark-train)
    endif()
    target_compile_definitions(dspark_system_test PRIVATE DSPARK_BINARY="$<TARGET_FILE:dspark>")
  endif()
  # Scripts get the path of the dspark binary as their argument.
  file(GLOB scripts CONFIGURE_DEPENDS tests/*_test.py tests/*_test.sh)
  set(binary $<$<TARGET_EXISTS:dspark>:$<TARGET_FILE:dspark>>)
  foreach(script ${scripts})
    get_filename_component(name ${script} NAME_WE)
    set(interpreter bash)
    if(script MATCHES "\\.py$")
      # The system's own, which has Debian's python3-numpy; another may come first on PATH.
      find_program(DSPARK_TEST_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH)
      find_program(DSPARK_TEST_PYTHON python3)
      set(interpreter ${DSPARK_TEST_PYTHON})
    endif()
    add_test(NAME ${name} COMMAND ${interpreter} ${script} ${binary} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1800)
  endforeach()
endfunction()

# Micro-benchmarks: src/<layer>/x_bench.cc, one binary per layer. Whole-model ones: bench/.
function(dspark_benchmarks)
  find_package(benchmark REQUIRED)
  foreach(layer ${DSPARK_LAYERS})
    file(GLOB benches CONFIGURE_DEPENDS src/${layer}/*_bench.cc)
    if(benches)
      add_executable(dspark_${layer}_bench ${benches})
      target_link_libraries(dspark_${layer}_bench PRIVATE dspark_${layer} benchmark::benchmark_main)
    endif()
  endforeach()
  foreach(program never_slower candidate_tau forced_drafts)
    add_executable(${program} bench/${program}.cc)
    target_link_libraries(${program} PRIVATE dspark_engine dspark_grammar)
  endforeach()
  if(DSPARK_BUILD_TRAIN)
    add_executable(train_speed bench/train_speed.cc)
    target_link_libraries(train_speed PRIVATE dspark_train)
  endif()
endfunction()

# Fuzz targets: fuzz/x_fuzz.cc, one binary each, libFuzzer's main.
function(dspark_fuzzers)
  file(GLOB fuzzers CONFIGURE_DEPENDS fuzz/*_fuzz.cc)
  foreach(source ${fuzzers})
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(${name} PRIVATE dspark_serve dspark_data)
  endforeach()
  # Of the trainer this part alone knows nothing of torch.
  target_sources(train_config_fuzz PRIVATE src/train/train_config.cc)
endfunction()
