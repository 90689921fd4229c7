/* L2: compaction and rotation of keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/l2_box.h"

/* ---- compaction ---- */

static void
l2_compaction_keeps_what_lives_and_deletes_the_dead(void **state)
{
    ptier_test_l2 *f = *state;
    f->options.shard_bytes = 65536;
    ptier_box_reopen(f);
    ptier_box_put_many(f, 1, 1000);
    for (uint64_t i = 1; i <= 1000; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        if (i % 5)
            ptier_box_apply(f, PTIER_OP_REMOVE, key, 1000 + i, i);
    }
    uint64_t before = f->l2->ops->bytes(f->l2);
    ptier_box_compact(f);
    assert_true(f->l2->ops->bytes(f->l2) < before / 2);
    assert_int_equal(ptier_box_get_many(f, 1, 1000), 200);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, 1000), 200);
    assert_int_equal(f->l2->ops->count(f->l2), 200);
}

/* ---- rotation of keys ---- */

static void
reencrypt(ptier_test_l2 *f)
{
    bool done = false;
    for (int i = 0; !done && i < 100000; i++)
        if (ptier_l2_reencrypt(f->l2, i == 0, &done, &f->error))
            fail_msg("%s", f->error.message);
    assert_true(done);
}

static bool
anything_left_of_the_old_key(ptier_test_l2 *f)
{
    ptier_box_close(f);
    ptier_box_use_keys(f, BOX_KEY, NULL);
    ptier_box_open(f);
    bool left = !f->found.unverified;
    ptier_box_close(f);
    return left;
}

static bool
count_op(void *context, const ptier_op *op)
{
    (void)op;
    ++*(size_t *)context;
    return true;
}

static void
l2_reencrypt_leaves_nothing_of_the_old_key_in_any_file(void **state)
{
    ptier_test_l2 *f = *state;
    size_t replayed = 0;
    f->options.shard_bytes = 65536;
    ptier_box_reopen_above(f, 0);
    ptier_box_put_many(f, 1, 500);
    ptier_box_apply(f, PTIER_OP_REMOVE, "k7", 501, 7);
    assert_true(anything_left_of_the_old_key(f));

    ptier_box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    ptier_box_reopen_above(f, 0);
    assert_int_equal(f->found.damaged, 0);
    reencrypt(f);
    assert_int_equal(ptier_box_get_many(f, 1, 500), 499);
    uint64_t log_bytes = ptier_l2_log_bytes(f->l2);
    assert_false(anything_left_of_the_old_key(f));

    ptier_box_use_keys(f, BOX_OTHER_KEY, NULL); /* the new one is enough */
    ptier_box_open(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(f->found.last_revision, 501);
    assert_int_equal(ptier_l2_replay(f->l2, 0, count_op, &replayed, &f->error), PTIER_OK);
    assert_int_equal(replayed, 500); /* the removal, too */
    assert_int_equal(ptier_l2_log_bytes(f->l2), log_bytes);
    assert_int_equal(ptier_box_get_many(f, 1, 500), 499);
}

static void
l2_reencrypt_can_be_interrupted_and_begun_again(void **state)
{
    ptier_test_l2 *f = *state;
    bool done;
    f->options.shard_bytes = 65536;
    ptier_box_reopen_above(f, 0);
    ptier_box_put_many(f, 1, 500);
    ptier_box_close(f);
    ptier_box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    for (int steps = 1; steps < 4; steps++) {
        ptier_box_reopen_above(f, 0);
        for (int i = 0; i < steps; i++)
            assert_int_equal(ptier_l2_reencrypt(f->l2, i == 0, &done, &f->error), PTIER_OK);
        assert_false(done);
        assert_int_equal(f->found.damaged, 0);
        assert_int_equal(ptier_box_get_many(f, 1, 500), 500);
    }
    ptier_box_put_many(f, 501, 510); /* goes on meanwhile */
    reencrypt(f);
    assert_false(anything_left_of_the_old_key(f));
    ptier_box_use_keys(f, BOX_OTHER_KEY, NULL);
    ptier_box_reopen_above(f, 0);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, 510), 510);
}

static void
l2_reencrypt_and_compaction_share_the_work(void **state)
{
    ptier_test_l2 *f = *state;
    bool done, worked;
    f->options.shard_bytes = 65536;
    ptier_box_reopen(f);
    ptier_box_put_many(f, 1, 500);
    ptier_box_close(f);
    ptier_box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    ptier_box_reopen(f);
    assert_int_equal(ptier_l2_reencrypt(f->l2, true, &done, &f->error), PTIER_OK);
    assert_int_equal(ptier_l2_compact(f->l2, &worked, &f->error), PTIER_OK);
    assert_true(worked);
    ptier_box_compact(f);
    assert_int_equal(ptier_l2_reencrypt(f->l2, false, &done, &f->error), PTIER_OK);
    assert_true(done);
    assert_false(anything_left_of_the_old_key(f));
}

/* The check was right, but the tokens are of a key that is gone. */
static void
l2_reencrypt_counts_what_it_cannot_decrypt(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_use_keys(f, BOX_OTHER_KEY, NULL);
    ptier_keyring *gone = f->keyring;
    f->keyring = NULL;
    ptier_box_use_keys(f, BOX_KEY, NULL);
    ptier_box_reopen(f);
    ptier_box_put_many(f, 1, 10);
    ptier_keyring *kept = f->keyring;
    f->keyring = gone; /* seals the tokens of the next one */
    ptier_box_put_many(f, 11, 11);
    f->keyring = kept;
    reencrypt(f);
    assert_int_equal(ptier_l2_damaged(f->l2), 1);
    assert_int_equal(ptier_box_get_many(f, 1, 11), 10);
    char key[PTIER_KEY_MAX + 1];
    assert_true(ptier_l2_peek_key(f->l2, ptier_box_hash(f, "k11"), 11, key));
    assert_string_equal(key, "k11");
    ptier_keyring_destroy(gone);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_L2(l2_compaction_keeps_what_lives_and_deletes_the_dead),
        WITH_L2(l2_reencrypt_leaves_nothing_of_the_old_key_in_any_file),
        WITH_L2(l2_reencrypt_can_be_interrupted_and_begun_again),
        WITH_L2(l2_reencrypt_and_compaction_share_the_work),
        WITH_L2(l2_reencrypt_counts_what_it_cannot_decrypt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
