# libdspark: the layers up to src/api as one shared and one static library, the headers of include/dspark, and what
# find_package and pkg-config need. The shared library shows the functions of dspark.h and nothing else.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# The number behind the SONAME is the header's.
file(STRINGS include/dspark/dspark.h abi REGEX "^#define DSPARK_ABI_VERSION ")
string(REGEX REPLACE "[^0-9]" "" DSPARK_ABI_VERSION "${abi}")

set(DSPARK_LIBRARY_LAYERS core load kernels kv model draft verify grammar engine api)

function(dspark_library)
  target_include_directories(dspark_api PUBLIC ${PROJECT_SOURCE_DIR}/include)
  target_compile_definitions(dspark_api PRIVATE DSPARK_VERSION="${PROJECT_VERSION}")

  add_library(dspark_shared SHARED $<TARGET_OBJECTS:dspark_api>)
  target_link_libraries(dspark_shared PRIVATE dspark_engine dspark_grammar)
  set(symbols ${PROJECT_SOURCE_DIR}/cmake/libdspark.map)
  target_link_options(dspark_shared PRIVATE -Wl,--version-script=${symbols})
  if(NOT DSPARK_SANITIZE)  # whose functions are the program's
    target_link_options(dspark_shared PRIVATE -Wl,--no-undefined)
  endif()
  set_target_properties(dspark_shared PROPERTIES EXPORT_NAME dspark LINK_DEPENDS ${symbols}
    VERSION ${PROJECT_VERSION} SOVERSION ${DSPARK_ABI_VERSION})

  set(objects "")
  foreach(layer ${DSPARK_LIBRARY_LAYERS})
    list(APPEND objects $<TARGET_OBJECTS:dspark_${layer}>)
  endforeach()
  add_library(dspark_static STATIC ${objects})
  # By their own names: what a program that links the static library must find again.
  target_link_libraries(dspark_static INTERFACE Threads::Threads fmt::fmt PkgConfig::PCRE2 PkgConfig::UTF8PROC)

  foreach(library dspark_shared dspark_static)
    set_target_properties(${library} PROPERTIES OUTPUT_NAME dspark LINKER_LANGUAGE CXX)
    target_include_directories(${library} INTERFACE
      $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  endforeach()
  # For projects that take dspark in with add_subdirectory: the names that find_package gives.
  add_library(dspark::dspark ALIAS dspark_shared)
  add_library(dspark::dspark_static ALIAS dspark_static)
  dspark_install_library()
endfunction()

# `cmake --install BUILD --component library` installs this alone.
function(dspark_install_library)
  set(package ${CMAKE_INSTALL_LIBDIR}/cmake/dspark)
  set(made ${PROJECT_BINARY_DIR}/package)
  install(TARGETS dspark_shared dspark_static EXPORT dsparkTargets COMPONENT library)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/dspark DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/drafters DESTINATION ${CMAKE_INSTALL_DATADIR}/dspark COMPONENT library)
  install(EXPORT dsparkTargets NAMESPACE dspark:: DESTINATION ${package} COMPONENT library)
  configure_package_config_file(cmake/dsparkConfig.cmake.in ${made}/dsparkConfig.cmake INSTALL_DESTINATION ${package})
  # Before 1.0 any minor version may change what a program compiles against.
  write_basic_package_version_file(${made}/dsparkConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${made}/dsparkConfig.cmake ${made}/dsparkConfigVersion.cmake DESTINATION ${package}
    COMPONENT library)
  file(RELATIVE_PATH DSPARK_PC_UP /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  configure_file(cmake/dspark.pc.in ${made}/dspark.pc @ONLY)
  install(FILES ${made}/dspark.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
endfunction()

function(dspark_examples)
  add_executable(example_c examples/generate.c)
  set_target_properties(example_c PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
  target_compile_options(example_c PRIVATE -Wall -Wextra -Wpedantic -Werror)
  add_executable(example_cc examples/generate.cc)
  target_compile_options(example_cc PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Werror)
  add_executable(example_static examples/generate.c)
  foreach(example example_c example_cc)
    target_link_libraries(${example} PRIVATE dspark::dspark)
  endforeach()
  target_link_libraries(example_static PRIVATE dspark::dspark_static)
endfunction()

# Each example on a tiny model, and its text compared with that of `dspark run`. A sanitizer's library does not load into
# programs and interpreters without it.
function(dspark_library_tests)
  if(DSPARK_SANITIZE)
    return()
  endif()
  dspark_examples()
  set(check ${DSPARK_TEST_PYTHON} ${PROJECT_SOURCE_DIR}/tests/check_example.py $<TARGET_FILE:dspark>)
  foreach(example example_c example_cc example_static)
    add_test(NAME ${example} COMMAND ${check} $<TARGET_FILE:${example}>)
  endforeach()
  add_test(NAME example_python COMMAND ${check} ${DSPARK_TEST_PYTHON} ${PROJECT_SOURCE_DIR}/examples/generate.py
    $<TARGET_FILE:dspark_shared>)
  add_test(NAME example_consumer COMMAND ${DSPARK_TEST_PYTHON} ${PROJECT_SOURCE_DIR}/tests/check_install.py
    $<TARGET_FILE:dspark> ${PROJECT_BINARY_DIR})
  set_tests_properties(example_c example_cc example_static example_python example_consumer PROPERTIES
    SKIP_RETURN_CODE 77 TIMEOUT 1800)
endfunction()
