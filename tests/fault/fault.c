#include "fault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECONDS = 60 };

static char doing[200];

static void
give_up(int number)
{
    static const char text[] = "no end in sight: ";
    (void)number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, doing, strlen(doing));
    (void)!write(STDERR_FILENO, "\n", 1);
    abort();
}

void
ptier_fault_begin(void)
{
    if (access("/dev/shm", W_OK | X_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0); /* else it is slower */
    (void)signal(SIGALRM, give_up);            /* cannot fail */
}

long
ptier_fault_number(const char *variable, long otherwise)
{
    const char *text = getenv(variable);
    return text ? strtol(text, NULL, 10) : otherwise;
}

void
ptier_fault_deadline(const char *what)
{
    (void)alarm(0);
    (void)snprintf(doing, sizeof doing, "%s", what ? what : "");
    (void)alarm(what ? SECONDS : 0);
}

const char *
ptier_fault_doing(void)
{
    return doing;
}
