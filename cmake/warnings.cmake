# Warnings for our own code; generated code is compiled without them.
add_library(ptier_warnings INTERFACE)
target_compile_options(ptier_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wformat=2
  -Wvla -Wundef -Wpointer-arith -Wcast-align -Wimplicit-fallthrough)
target_compile_definitions(ptier_warnings INTERFACE _GNU_SOURCE) # Linux and glibc is what we run on
option(PTIER_WERROR "Treat warnings as errors" ON)
if(PTIER_WERROR)
  target_compile_options(ptier_warnings INTERFACE -Werror)
endif()
