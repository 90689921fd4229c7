#include "soak/oracle.h"

#include <assert.h>
#include <stdio.h>

void
ptier_soak_announce(ptier_soak_key *key, ptier_soak_state state)
{
    assert(key->count >= 1 && key->count < PTIER_SOAK_STATES);
    key->possible[key->count++] = state;
}

void
ptier_soak_settle(ptier_soak_key *key, ptier_soak_state state)
{
    key->possible[0] = state;
    key->count = 1;
    key->fleeting = false;
}

ptier_soak_verdict
ptier_soak_judge(const ptier_soak_key *key, ptier_soak_state seen)
{
    bool may_be_there = false;
    uint32_t newest = 0;
    for (unsigned i = 0; i < key->count; i++) {
        const ptier_soak_state *p = &key->possible[i];
        if (p->version == seen.version && p->failures == seen.failures)
            return PTIER_SOAK_RIGHT;
        may_be_there |= p->version != 0;
        newest = p->version > newest ? p->version : newest;
    }
    if (seen.version == 0)
        return PTIER_SOAK_LOST;
    if (!may_be_there)
        return PTIER_SOAK_RESURRECTED;
    return seen.version > newest ? PTIER_SOAK_WRONG : PTIER_SOAK_LOST;
}

ptier_soak_state
ptier_soak_failed(ptier_soak_state state)
{
    if (state.version == 0)
        return state;
    state.failures++;
    return state.failures < PTIER_SOAK_THRESHOLD ? state : (ptier_soak_state){0};
}

ptier_soak_state
ptier_soak_succeeded(ptier_soak_state state)
{
    state.failures = 0;
    return state;
}

void
ptier_soak_key_text(char text[24], int writer, int key)
{
    (void)snprintf(text, 24, "w%d-k%d", writer, key);
}

static void
fill_text(ptier_soak_text *text, int writer, int key, uint32_t version)
{
    ptier_soak_key_text(text->key, writer, key);
    (void)snprintf(text->url, sizeof text->url, "http://10.%u.%u.%u:8080", version >> 16 & 255,
                   version >> 8 & 255, version & 255);
    (void)snprintf(text->password, sizeof text->password, "secret-%d-%d-%u", writer, key, version);
}

void
ptier_soak_record(ptier_record *record, ptier_soak_text *text, int writer, int key,
                  uint32_t version)
{
    fill_text(text, writer, key, version);
    ptier_record_init(record);
    record->key = text->key;
    record->url = text->url;
    record->username = "soak";
    record->password = text->password;
    record->source = "soak";
}

bool
ptier_soak_read(const ptier_record *record, int writer, int key, ptier_soak_state *state)
{
    ptier_soak_text text;
    unsigned a, b, c;
    if (sscanf(record->url, "http://10.%u.%u.%u:8080", &a, &b, &c) != 3)
        return false;
    *state = (ptier_soak_state){.version = a << 16 | b << 8 | c, .failures = record->failure_count};
    fill_text(&text, writer, key, state->version);
    return state->version && strcmp(record->key, text.key) == 0 &&
           strcmp(record->url, text.url) == 0 && record->username &&
           strcmp(record->username, "soak") == 0 && record->password &&
           strcmp(record->password, text.password) == 0 && strcmp(record->source, "soak") == 0 &&
           record->needs_revalidation == (state->failures > 0);
}
