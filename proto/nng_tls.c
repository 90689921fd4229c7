/* See nng_tls.h. */
#include "nng_tls.h"

#include <stdlib.h>
#include <string.h>

ptier_status
ptier_nng_tls_fail(const char *path, int rv, ptier_error *error)
{
    if (rv == NNG_ENOTSUP)
        return ptier_fail(error, PTIER_UNIMPLEMENTED, "nng was built without TLS here");
    if (rv == NNG_ENOMEM)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    return ptier_fail(error, PTIER_FAILED_PRECONDITION, "%s cannot be used for TLS: %s", path,
                      nng_strerror(rv));
}

int
ptier_nng_tls_versions(nng_tls_config *config)
{
    /* 1.5 does not take 1.3 even as an upper bound. */
    if (nng_tls_config_version(config, NNG_TLS_1_2, NNG_TLS_1_3) == 0)
        return 0;
    return nng_tls_config_version(config, NNG_TLS_1_2, NNG_TLS_1_2);
}

ptier_status
ptier_nng_tls_require(nng_tls_config *config, const char *path, const char *pem, ptier_error *error)
{
    int rv = nng_tls_config_ca_chain(config, pem, NULL);
    if (rv == 0)
        rv = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED);
    return rv == 0 ? PTIER_OK : ptier_nng_tls_fail(path, rv, error);
}

void
ptier_nng_tls_forget(char *pem)
{
    if (pem)
        explicit_bzero(pem, strlen(pem));
    free(pem);
}
