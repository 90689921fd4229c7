/* Passwords and tokens: from standard input or a file, never from an argument. Wiped by whoever
 * asked for them. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/*
 * Reads up to the first line break into room bytes. By read(), so that no stdio buffer keeps a
 * copy, and byte by byte, so that what follows the line is left to the next reader. OUT_OF_RANGE:
 * longer than room. CANCELLED: met `interrupt` (0: none).
 */
static ptier_status
read_first_line(int fd, char *line, size_t room, char interrupt, ptier_error *error)
{
    size_t used = 0;

    for (;;) {
        char c;
        ssize_t n = read(fd, &c, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ptier_fail(error, PTIER_UNAVAILABLE, "cannot read: %s", strerror(errno));
        if (n == 0 || c == '\n')
            break;
        if (interrupt && c == interrupt)
            return ptier_fail(error, PTIER_CANCELLED, "interrupted");
        if (used + 1 >= room)
            return ptier_fail(error, PTIER_OUT_OF_RANGE, "the line has more than %zu bytes",
                              room - 1);
        if (c == '\0')
            return ptier_fail(error, PTIER_OUT_OF_RANGE, "the line holds a NUL byte");
        line[used++] = c;
    }
    if (used > 0 && line[used - 1] == '\r')
        used--;
    line[used] = '\0';
    return PTIER_OK;
}

/* As the daemon is with its keys: only of root's file, such as a systemd credential, the group may
 * be a reader. */
static bool
is_private(int fd)
{
    struct stat about;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode))
        return true; /* a pipe, say */
    mode_t fine = about.st_uid == 0 && geteuid() != 0 ? S_IRGRP : 0;
    return (about.st_mode & (S_IRWXG | S_IRWXO) & ~fine) == 0;
}

ptier_status
ptier_cli_read_line(const char *path, bool secret, char *line, size_t room, ptier_error *error)
{
    ptier_error inner = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return ptier_fail(error, errno == ENOENT ? PTIER_NOT_FOUND : PTIER_PERMISSION_DENIED,
                          "cannot open %s: %s", path, strerror(errno));
    ptier_status status = secret && !is_private(fd)
                              ? ptier_fail(&inner, PTIER_PERMISSION_DENIED,
                                           "it may be read by others than its owner: chmod 600 it")
                              : read_first_line(fd, line, room, 0, &inner);
    (void)close(fd); /* only read */
    if (status != PTIER_OK)
        return ptier_fail(error, status, "%s: %s", path, inner.message);
    if (line[0] == '\0')
        return ptier_fail(error, PTIER_OUT_OF_RANGE, "%s: the first line is empty", path);
    return PTIER_OK;
}

/*
 * Signals wait until the terminal echoes again; Ctrl-C arrives as a byte that ends the line.
 */
static ptier_status
read_without_echo(char *line, size_t room, ptier_error *error)
{
    const char ctrl_c = 3;
    struct termios normal, quiet;
    sigset_t stopping, before;
    bool changed = false;

    (void)sigemptyset(&stopping); /* these cannot fail: valid sets, valid signals */
    (void)sigaddset(&stopping, SIGTERM);
    (void)sigaddset(&stopping, SIGHUP);
    (void)sigaddset(&stopping, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &stopping, &before);
    if (tcgetattr(STDIN_FILENO, &normal) == 0) {
        quiet = normal;
        quiet.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
        quiet.c_cc[VEOL] = (cc_t)ctrl_c;
        changed = tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) == 0;
    }
    (void)fprintf(stderr, "Password: "); /* a prompt */
    ptier_status status = read_first_line(STDIN_FILENO, line, room, ctrl_c, error);
    if (changed)
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &normal); /* nothing else can be tried */
    (void)fputc('\n', stderr);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}

ptier_cli_exit
ptier_cli_read_password(const ptier_cli *cli, const char *password, const char *file,
                        ptier_cli_secret *secret)
{
    ptier_error error = {0};
    ptier_status status;

    secret->set = false;
    if (!password && !file)
        return PTIER_CLI_OK;
    if (password && file)
        return ptier_cli_usage(cli, "give only one of --password - and --password-file FILE");
    if (password && strcmp(password, "-") != 0)
        return ptier_cli_usage(cli, "a password on the command line is open to others: use "
                                    "'--password -' (standard input) or --password-file FILE");
    if (file)
        status = ptier_cli_read_line(file, false, secret->text, sizeof secret->text, &error);
    else if (isatty(STDIN_FILENO))
        status = read_without_echo(secret->text, sizeof secret->text, &error);
    else
        status = read_first_line(STDIN_FILENO, secret->text, sizeof secret->text, 0, &error);
    if (status != PTIER_OK)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "password: %s", error.message);
    if (secret->text[0] == '\0')
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "password: standard input gave none; leave --password out for none");
    secret->set = true;
    return PTIER_CLI_OK;
}
