/* proxytier keygen: a new Fernet key, 32 random bytes in URL-safe base64. Talks to no daemon. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "json.h"

#define KEY_BYTES 32
#define KEY_TEXT  44

/* Writes the key and a line break. */
static bool
make_key(char text[KEY_TEXT + 2])
{
    unsigned char bytes[KEY_BYTES], encoded[KEY_TEXT + 1];

    if (RAND_priv_bytes(bytes, sizeof bytes) != 1)
        return false;
    (void)EVP_EncodeBlock(encoded, bytes, sizeof bytes); /* always KEY_TEXT characters */
    for (int i = 0; i < KEY_TEXT; i++)
        text[i] = encoded[i] == '+' ? '-' : encoded[i] == '/' ? '_' : (char)encoded[i];
    text[KEY_TEXT] = '\n';
    text[KEY_TEXT + 1] = '\0';
    explicit_bzero(bytes, sizeof bytes);
    explicit_bzero(encoded, sizeof encoded);
    return true;
}

static ptier_cli_exit
write_key(const ptier_cli *cli, const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0 && errno == EEXIST)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "%s exists and is never overwritten: its key may be in use; name "
                              "another file",
                              path);
    if (fd < 0)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot create %s: %s", path, strerror(errno));
    bool ok = write(fd, text, KEY_TEXT + 1) == KEY_TEXT + 1 && fsync(fd) == 0;
    int problem = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        problem = errno;
    }
    if (ok)
        return PTIER_CLI_OK;
    (void)unlink(path); /* half a key is worse than none */
    return ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot write %s: %s", path, strerror(problem));
}

ptier_cli_exit
ptier_cmd_keygen(ptier_cli *cli)
{
    const ptier_cli_option none[] = {{NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL}};
    char text[KEY_TEXT + 2];
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, none, 0, 1, &code))
        return code;
    if (!make_key(text))
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "the system gives no random bytes");
    bool to_file = cli->argument_count > 0 && strcmp(cli->arguments[0], "-") != 0;
    if (to_file)
        code = write_key(cli, cli->arguments[0], text);
    else if (!cli->json)
        (void)fputs(text, stdout); /* told by ferror at the end, as below */
    text[KEY_TEXT] = '\0';
    if (cli->json && code == PTIER_CLI_OK)
        (void)ptier_json_pair(stdout, to_file ? "file" : "key", to_file ? cli->arguments[0] : text);
    explicit_bzero(text, sizeof text);
    return code;
}
