/* Databases for tests of the importer: ProxyWhirl's, and our own as L3 and backups have it. */
#ifndef PTIER_TEST_SAMPLE_DATABASE_H
#define PTIER_TEST_SAMPLE_DATABASE_H

#include <stddef.h>

/* A new database at `path` from these statements. Fails the running test when that is impossible.
 */
void ptier_test_database(const char *path, const char *sql);

/* The tables of our own, of schema version 1, empty; and of ProxyWhirl's. To be followed by rows.
 */
extern const char ptier_test_own_tables[], ptier_test_proxywhirl_tables[];

/* The same with `count` rows of the rowids 1, 2, ...: http://10.x.y.z:80 of the source "many". */
void ptier_test_own_database(const char *path, size_t count);
void ptier_test_proxywhirl_database(const char *path, size_t count);

#endif
