# loopserve_module(NAME SOURCES ... [DEPS ...] [PRIVATE_DEPS ...] [TESTS ...] [TEST_DEPS ...])
# One folder of src/ as a static library loopserve_NAME, with its tests (x_test.cc beside x.cc) in one binary NAME_test.
add_library(loopserve_options INTERFACE)
target_include_directories(loopserve_options INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR})
target_compile_features(loopserve_options INTERFACE cxx_std_20)  # for programs that include the public headers
target_compile_options(loopserve_options INTERFACE -Wall -Wextra -Wshadow -Wno-missing-field-initializers
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)  # GCC 12 warns of string concatenation wrongly
if(LOOPSERVE_WERROR)
  target_compile_options(loopserve_options INTERFACE -Werror)
endif()
if(LOOPSERVE_SANITIZE)
  target_compile_options(loopserve_options INTERFACE -fsanitize=${LOOPSERVE_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(loopserve_options INTERFACE -fsanitize=${LOOPSERVE_SANITIZE})
endif()

function(loopserve_module name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;PRIVATE_DEPS;TESTS;TEST_DEPS" ${ARGN})
  add_library(loopserve_${name} STATIC ${arg_SOURCES})
  target_link_libraries(loopserve_${name} PUBLIC loopserve_options ${arg_DEPS} PRIVATE ${arg_PRIVATE_DEPS})
  if(LOOPSERVE_TESTS AND arg_TESTS)
    add_executable(${name}_test ${arg_TESTS})
    target_link_libraries(${name}_test PRIVATE loopserve_${name} loopserve_test_support ${arg_TEST_DEPS}
                          GTest::gmock GTest::gtest_main)
    gtest_discover_tests(${name}_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
  endif()
endfunction()
