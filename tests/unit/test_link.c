/* link: waits by cause, their growth, their limits, their spread. */
#include "harness.h"

#include <sendq/link.h>

static const struct { enum sq_outcome cause; bool progressed; int64_t failures, hint, least, most; bool stop; } rows[] = {
	{ SQ_OUTCOME_OFFLINE, false, 1, 0, 24000, 36000, false },
	{ SQ_OUTCOME_UNREACHABLE, false, 3, 0, 54000, 81000, false },
	{ SQ_OUTCOME_UNREACHABLE, false, 1000000, 0, 720000, 1080000, false },
	{ SQ_OUTCOME_CUT, true, 1, 0, 12000, 18000, false },
	{ SQ_OUTCOME_CUT, true, 50, 0, 480000, 720000, false },
	{ SQ_OUTCOME_CUT, false, 1, 0, 48000, 72000, false },
	{ SQ_OUTCOME_CUT, false, 50, 0, 1440000, 2160000, false },
	{ SQ_OUTCOME_DEFERRED, false, 1, 0, 1440000, 2160000, false },
	{ SQ_OUTCOME_DEFERRED, false, 9, 0, 5760000, 8640000, false },
	{ SQ_OUTCOME_DEFERRED, false, 9, 300000, 300000, 300000, false },
	{ SQ_OUTCOME_QUOTA, false, 1, 0, 2880000, 4320000, false },
	{ SQ_OUTCOME_QUOTA, false, 1, 21600000, 21600000, 21600000, false },
	{ SQ_OUTCOME_LOGIN, false, 1, 0, 4000, 6000, false },
	{ SQ_OUTCOME_LOGIN, false, 2, 0, 2880000, 4320000, false },
	{ SQ_OUTCOME_LOGIN, false, 3, 0, 0, 0, true },
	{ SQ_OUTCOME_LOGIN, false, 30, 600000, 0, 0, true },
	{ SQ_OUTCOME_CERTIFICATE, false, 7, 0, 1440000, 2160000, false },
	{ SQ_OUTCOME_SECRET, false, 1, 0, 48000, 72000, false },
};

START_TEST(waits)
{
	struct sq_backoff_in in = { .cause = rows[_i].cause, .failures = rows[_i].failures, .progressed = rows[_i].progressed,
		.hint_ms = rows[_i].hint, .retry_min_ms = 1800000, .retry_max_ms = 7200000 };
	int64_t least = INT64_MAX, most = 0;

	for (uint32_t r = 0; r < 2000; r++) {
		struct sq_backoff_out out;

		in.random = r;
		out = sq_backoff(&in);
		ck_assert_int_eq(out.stop, rows[_i].stop);
		least = out.wait_ms < least ? out.wait_ms : least;
		most = out.wait_ms > most ? out.wait_ms : most;
	}
	ck_assert_int_ge(least, rows[_i].least);
	ck_assert_int_le(most, rows[_i].most);
	if (rows[_i].least < rows[_i].most)
		ck_assert_int_gt(most, least); /* the spread is real */
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("link");
	TCase *t = tcase_create("link");

	tcase_add_loop_test(t, waits, 0, (int)SQ_LEN(rows));
	suite_add_tcase(s, t);
	return test_main(s);
}
