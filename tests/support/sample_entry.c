#include "support/sample_entry.h"

#include <stdlib.h>

ptier_entry *
ptier_test_entry_with(const char *key, uint64_t hash, uint64_t revision, const char *username,
                      const char *password)
{
    static const ptier_label labels[] = {{"country", "DE"}, {"note", "a \"quoted\" \\ value"}};
    const ptier_record record = {
        .key = key,
        .url = "http://10.0.0.1:8080",
        .username = username,
        .password = password,
        .source = "sample",
        .fetch_time_ms = 1700000000000,
        .health = PTIER_HEALTH_HEALTHY,
        .labels = labels,
        .label_count = 2,
        .revision = revision,
    };
    ptier_entry *entry = ptier_entry_create(&record, hash, 0, PTIER_NEVER);
    if (!entry)
        abort();
    return entry;
}

ptier_entry *
ptier_test_entry(const char *key, uint64_t hash, uint64_t revision)
{
    return ptier_test_entry_with(key, hash, revision, NULL, NULL);
}

uint64_t
ptier_test_random(uint64_t *state, uint64_t limit)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (x * UINT64_C(2685821657736338717) >> 16) % limit;
}
