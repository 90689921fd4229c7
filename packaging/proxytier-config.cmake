# find_package(proxytier): the targets proxytier::client and proxytier::tiers (shared), and proxytier::client_static and
# proxytier::tiers_static, which need nng, protobuf-c and so on where the linker finds them.
include(${CMAKE_CURRENT_LIST_DIR}/proxytier-targets.cmake)
