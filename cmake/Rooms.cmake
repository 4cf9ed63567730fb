# fathom_room(NAME [USES room…] [LIBS library…])
#
# One static library per room: fathom_NAME from src/NAME/*.cpp (and the subfolders named by SUBDIRS). USES is the
# whole list of rooms whose headers it may include; tests/structure reads it and fails on any other include.
function(fathom_room name)
  cmake_parse_arguments(ROOM "" "" "USES;LIBS;SUBDIRS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  foreach(sub ${ROOM_SUBDIRS})
    file(GLOB more CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${sub}/*.cpp)
    list(APPEND sources ${more})
  endforeach()
  add_library(fathom_${name} STATIC ${sources})
  target_include_directories(fathom_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  foreach(used ${ROOM_USES})
    target_link_libraries(fathom_${name} PUBLIC fathom_${used})
  endforeach()
  target_link_libraries(fathom_${name} PUBLIC ${ROOM_LIBS})
endfunction()

# fathom_test(NAME [USES room…] [LIBS library…]): the program test_NAME from tests/NAME/*.cpp.
# tests/run.py finds it in the build folder by its name and counts its cases.
function(fathom_test name)
  cmake_parse_arguments(T "" "" "USES;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_executable(test_${name} ${sources})
  target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/tests)
  target_compile_definitions(test_${name} PRIVATE FATHOM_SOURCE_DIR="${CMAKE_SOURCE_DIR}" FATHOM_BINARY_DIR="${CMAKE_BINARY_DIR}")
  foreach(used ${T_USES})
    target_link_libraries(test_${name} PRIVATE fathom_${used})
  endforeach()
  target_link_libraries(test_${name} PRIVATE ${T_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
  set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endfunction()
