/* Exit code 0: the library's cure for nng acts in this program. With an argument the library is
 * loaded from there, as a plug-in would bring it. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

#include <proxytier/client.h>

#ifdef WITH_NNG
#include <nng/nng.h>
#endif

int
main(int argc, char **argv)
{
    bool (*is_cured)(void) = NULL;
#ifdef WITH_NNG
    printf("nng %s\n", nng_version()); /* a program that uses nng itself */
#endif
    if (argc < 2) {
#ifndef WITHOUT_LIBRARY
        is_cured = ptier_nng_is_cured;
#endif
    } else {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            return fprintf(stderr, "%s\n", dlerror()), 2;
        is_cured = (bool (*)(void))(uintptr_t)dlsym(library, "ptier_nng_is_cured");
    }
    return is_cured && is_cured() ? 0 : 1;
}
