/*
 * For io_shim.c only: the changes of a directory in memory, and what a power loss leaves of them
 * (the model is in io_shim.h). Not thread-safe: the shim's lock is held. Paths are below the
 * directory, "." itself. Failures end the program.
 */
#ifndef PTIER_TEST_IO_JOURNAL_H
#define PTIER_TEST_IO_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Forgets what it has, takes the directory as it is; NULL: only forgets. */
void ptier_journal_start(const char *directory);

size_t ptier_journal_position(void);

/* Files and directories ("nodes") are numbers; -1: there is none. */
int ptier_journal_find(const char *path);
int ptier_journal_create(const char *path, bool directory);

void ptier_journal_write(int node, uint64_t offset, const void *data, size_t length);
void ptier_journal_resize(int node, uint64_t size);
uint64_t ptier_journal_size(int node);

/* `covers`: a position. */
void ptier_journal_sync(int node, size_t covers);
void ptier_journal_sync_failed(int node);

void ptier_journal_link(const char *from, const char *to);
void ptier_journal_rename(const char *from, const char *to);
void ptier_journal_unlink(const char *path);

void ptier_journal_image(size_t cut, uint64_t seed, const char *to);
bool ptier_journal_same_as(const char *directory);

/* Whether a file of this name is left out of images and copies. */
bool ptier_journal_ignores(const char *name);

#endif
