/* Random damage to the files of a data directory that nobody has open, and a text that says what
 * was done. */
#ifndef PTIER_PROPERTY_DAMAGE_H
#define PTIER_PROPERTY_DAMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ptier_damage {
    char text[512];  /* of all that was done */
    bool key, state; /* these files were among it */
    bool older;      /* a file was replaced by an older copy of itself */
    int count;
} ptier_damage;

/* Does one more damage to a file of `directory`. `older` has copies of the same files from before.
 */
void ptier_damage_something(const char *directory, const char *older, uint64_t *random,
                            ptier_damage *damage);

#endif
