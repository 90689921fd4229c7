/* ptier_cache_rotate_step with states that no rotation of this cache has had. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/cache_box.h"

#define PHASES 8 /* more than there are */

/* From any phase on: an error, or a rotation that ends. */
static void
try_every_phase(int tiers)
{
    ptier_test_box box;
    ptier_test_box_init(&box, tiers);
    ptier_test_box_open(&box);
    for (int i = 0; i < 20; i++)
        (void)ptier_test_box_put(&box, i); /* the revision */
    for (uint32_t phase = 0; phase < PHASES; phase++) {
        ptier_rotation rotation = {.phase = phase, .cursor = phase, .done = 3, .total = 2};
        ptier_status status = PTIER_OK;
        int64_t deadline = ptier_test_now() + 20000;
        while (status == PTIER_OK && !rotation.finished) {
            assert_true(ptier_test_now() < deadline);
            status = ptier_cache_rotate_step(box.cache, &rotation, &box.error);
        }
        if ((tiers & (BOX_L2 | BOX_L3)) == 0)
            assert_int_equal(status, PTIER_FAILED_PRECONDITION);
        else if (phase == 0)
            assert_int_equal(status, PTIER_OK);
        else if (status != PTIER_OK && status != PTIER_INVALID_ARGUMENT)
            fail_msg("tiers %d, phase %u: %s", tiers, phase, box.error.message);
    }
    assert_int_equal(ptier_test_box_entries(&box), 20);
    ptier_test_box_fini(&box);
}

static void
rotation_states_of_other_caches_do_no_harm(void **state)
{
    (void)state;
    for (int tiers = BOX_L1; tiers <= BOX_ALL; tiers++)
        try_every_phase(tiers);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotation_states_of_other_caches_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
