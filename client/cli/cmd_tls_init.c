/*
 * proxytier tls-init: a CA of one's own, and a certificate each for the daemon and for clients.
 * Talks to no daemon.
 */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "certificate.h"

#define PATH_ROOM 4096

typedef struct setup {
    const ptier_cli *cli;
    const char *directory;
    const char *hosts[PTIER_CERTIFICATE_HOSTS_MAX];
    size_t host_count;
    ptier_certificate ca;
    size_t made;
} setup;

/* `names` is cut up; separated by commas. */
static ptier_cli_exit
take_hosts(setup *s, char *names)
{
    char *rest = NULL;
    for (char *name = strtok_r(names, ", ", &rest); name; name = strtok_r(NULL, ", ", &rest)) {
        if (!ptier_certificate_host_valid(name))
            return ptier_cli_usage(s->cli,
                                   "--host takes names such as cache.example; numbers do not "
                                   "work: clients connect to one with --tls-server-name NAME");
        if (s->host_count == PTIER_CERTIFICATE_HOSTS_MAX)
            return ptier_cli_usage(s->cli, "--host takes up to %d names",
                                   PTIER_CERTIFICATE_HOSTS_MAX);
        s->hosts[s->host_count++] = name;
    }
    if (s->host_count == 0)
        return ptier_cli_usage(s->cli, "--host takes at least one name");
    return PTIER_CLI_OK;
}

static void
default_hosts(setup *s, char *host, size_t room)
{
    s->hosts[s->host_count++] = "localhost";
    if (gethostname(host, room) == 0 && ptier_certificate_host_valid(host) &&
        strcmp(host, "localhost") != 0)
        s->hosts[s->host_count++] = host;
}

static bool
exists(const char *path)
{
    struct stat about;
    return lstat(path, &about) == 0;
}

static bool
paths(const setup *s, const char *name, char cert[PATH_ROOM], char key[PATH_ROOM])
{
    return snprintf(cert, PATH_ROOM, "%s/%s.pem", s->directory, name) < PATH_ROOM &&
           snprintf(key, PATH_ROOM, "%s/%s.key", s->directory, name) < PATH_ROOM;
}

/* Makes the pair unless it is there; the CA's is needed, and read then. */
static ptier_cli_exit
provide(setup *s, const char *name, ptier_certificate_use use)
{
    char cert[PATH_ROOM], key[PATH_ROOM];
    ptier_error error = {0};
    ptier_certificate made = {0};
    ptier_status status;
    bool is_ca = use == PTIER_CERTIFICATE_CA;
    if (!paths(s, name, cert, key))
        return ptier_cli_usage(s->cli, "the name of the directory is too long");
    if (exists(cert) && !is_ca) {
        (void)fprintf(stderr, "kept %s\n", cert);
        return PTIER_CLI_OK;
    }
    if (exists(cert)) {
        status = ptier_certificate_read(cert, key, &s->ca, &error);
        if (status != PTIER_OK)
            return ptier_cli_status(s->cli, PTIER_UNKNOWN, &error);
        (void)fprintf(stderr, "kept %s\n", cert);
        return PTIER_CLI_OK;
    }
    status =
        ptier_certificate_make(use, is_ca ? NULL : &s->ca, s->hosts, s->host_count, &made, &error);
    if (status == PTIER_OK)
        status = ptier_certificate_write(&made, cert, key, &error);
    if (status == PTIER_OK && is_ca) {
        s->ca = made;
        made = (ptier_certificate){0};
    }
    ptier_certificate_fini(&made);
    if (status != PTIER_OK)
        return ptier_cli_status(s->cli, PTIER_UNKNOWN, &error);
    (void)fprintf(stderr, "made %s and its key\n", cert);
    s->made++;
    return PTIER_CLI_OK;
}

static void
print_lines(const setup *s)
{
    char *full = realpath(s->directory, NULL);
    const char *where = full ? full : s->directory;
    printf("# for the daemon's configuration file. Addresses that are named replace the default:\n"
           "# for callers on its machine name these, too, in a directory that exists:\n"
           "# listen = ipc:///run/proxytier/rpc.sock\n"
           "# events = ipc:///run/proxytier/events.sock\n"
           "listen   = tls+tcp://0.0.0.0:7443\n"
           "events   = tls+tcp://0.0.0.0:7444\n"
           "tls-cert = %s/server.pem\n"
           "tls-key  = %s/server.key\n"
           "tls-ca   = %s/ca.pem\n"
           "# and a token-file; for clients, which need copies of ca.pem, client.pem, client.key:\n"
           "# PROXYTIER_URL=tls+tcp://%s:7443\n"
           "# PROXYTIER_TLS_CA_FILE=%s/ca.pem\n"
           "# PROXYTIER_TLS_CERT_FILE=%s/client.pem\n"
           "# PROXYTIER_TLS_KEY_FILE=%s/client.key\n"
           "# keep ca.key to sign more, and away from the network: who has it can be anybody\n",
           where, where, where, s->hosts[0], where, where, where);
    free(full);
}

ptier_cli_exit
ptier_cmd_tls_init(ptier_cli *cli)
{
    char *hosts = NULL, host[254];
    const ptier_cli_option options[] = {
        {"host", 0, PTIER_CLI_STRING, &hosts, "NAME[,NAME...]",
         "names that clients use for the daemon (default: localhost and this machine's)", NULL},
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL}};
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 1, 1, &code))
        return code;
    setup s = {.cli = cli, .directory = cli->arguments[0]};
    if (hosts)
        code = take_hosts(&s, hosts);
    else
        default_hosts(&s, host, sizeof host);
    if (code != PTIER_CLI_OK)
        return code;
    if (mkdir(s.directory, 0700) != 0 && errno != EEXIST)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot make %s: %s", s.directory,
                              strerror(errno));
    code = provide(&s, "ca", PTIER_CERTIFICATE_CA);
    if (code == PTIER_CLI_OK)
        code = provide(&s, "server", PTIER_CERTIFICATE_SERVER);
    if (code == PTIER_CLI_OK)
        code = provide(&s, "client", PTIER_CERTIFICATE_CLIENT);
    ptier_certificate_fini(&s.ca);
    if (code == PTIER_CLI_OK && s.made == 0)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "all of it is there already, and nothing is overwritten: to have a "
                              "new certificate signed by the same CA, move the old one and its "
                              "key away");
    if (code == PTIER_CLI_OK)
        print_lines(&s);
    return code;
}
