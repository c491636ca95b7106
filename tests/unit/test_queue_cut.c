/*
 * When the sender of a message that broke off is to be told: at the first cut,
 * and never twice within the time that he wants his peace.
 */
#include "queue_fixture.h"

enum { MINUTE = 60000, HOUR = 60 * MINUTE };

/* Cuts of one message at these minutes after NOW; where it must be told, it is. */
static const struct row {
	const char *name;
	int64_t quiet_ms;
	struct { int minute; bool told; } cuts[8];
	size_t n;
} rows[] = {
	{ "the first", HOUR, { { 0, true } }, 1 },
	{ "not again within the hour", HOUR, { { 0, true }, { 1, false }, { 30, false }, { 59, false }, { 60, true }, { 61, false } }, 6 },
	{ "an hour from the last word, not from the last cut", HOUR, { { 5, true }, { 64, false }, { 65, true }, { 124, false }, { 130, true } }, 5 },
	{ "whoever wants it rarely", 6 * HOUR, { { 0, true }, { 359, false }, { 360, true } }, 3 },
	{ "a clock that went back", HOUR, { { 500, true }, { 100, true }, { 120, false }, { 160, true } }, 4 },
};

START_TEST(rule)
{
	struct sq_message_id id = queue_put("b@x c@x"), found;
	int64_t at, cut_ms;
	bool due;

	for (size_t i = 0; i < rows[_i].n; i++) {
		at = NOW + (int64_t)rows[_i].cuts[i].minute * MINUTE;
		ck_ok(sq_queue_cut(q, id, rows[_i].quiet_ms, at, &due, &err), err);
		ck_assert_msg(due == rows[_i].cuts[i].told, "%s: cut %zu", rows[_i].name, i);
		/* The daemon ends here, and another begins. */
		sq_queue_close(q);
		q = queue_open(SQ_QUEUE_RUN);
		if (!due) {
			ck_assert_int_eq(sq_queue_next_cut(q, &found, &cut_ms, &err), SQ_ENOENT);
			continue;
		}
		ck_ok(sq_queue_next_cut(q, &found, &cut_ms, &err), err);
		ck_assert_int_eq(found.v, id.v);
		ck_assert_int_eq(cut_ms, at);
		ck_ok(sq_queue_cut_told(q, id, &err), err);
		ck_assert_int_eq(sq_queue_next_cut(q, &found, &cut_ms, &err), SQ_ENOENT);
	}
}
END_TEST

/* Until he was told, later cuts change nothing: the notice keeps its name. */
START_TEST(untold)
{
	struct sq_message_id id = queue_put("b@x"), found;
	int64_t cut_ms;
	bool due;

	ck_ok(sq_queue_cut(q, id, HOUR, NOW, &due, &err), err);
	ck_ok(sq_queue_cut(q, id, HOUR, NOW + 2 * HOUR, &due, &err), err);
	ck_assert(!due);
	ck_ok(sq_queue_next_cut(q, &found, &cut_ms, &err), err);
	ck_assert_int_eq(cut_ms, NOW);
}
END_TEST

/* Each message for itself. */
START_TEST(of_each)
{
	struct sq_message_id a = queue_put("b@x"), b = queue_put("c@x"), found;
	int64_t cut_ms;
	bool due;

	ck_ok(sq_queue_cut(q, a, HOUR, NOW, &due, &err), err);
	ck_assert(due);
	ck_ok(sq_queue_cut_told(q, a, &err), err);
	ck_ok(sq_queue_cut(q, b, HOUR, NOW + MINUTE, &due, &err), err);
	ck_assert(due);
	ck_ok(sq_queue_cut_told(q, b, &err), err);
	ck_assert_int_eq(sq_queue_next_cut(q, &found, &cut_ms, &err), SQ_ENOENT);
}
END_TEST

/* What its own record in the order rests on: cuts in content, of a day, on the network of the last try. */
START_TEST(of_a_day)
{
	static const struct { const char *network; int hours; enum sq_outcome outcome; enum sq_phase phase; int cuts; } tries[] = {
		{ "a", 0, SQ_OUTCOME_CUT, SQ_PHASE_CONTENT, 1 }, { "a", 1, SQ_OUTCOME_STALLED, SQ_PHASE_CONTENT, 2 }, { "a", 2, SQ_OUTCOME_CUT, SQ_PHASE_RCPT, 2 },
		{ "a", 3, SQ_OUTCOME_DEFERRED, SQ_PHASE_CONTENT, 2 }, { "b", 4, SQ_OUTCOME_CUT, SQ_PHASE_CONTENT, 1 }, { "a", 5, SQ_OUTCOME_CUT, SQ_PHASE_CONTENT, 3 },
		{ "a", 24, SQ_OUTCOME_CUT, SQ_PHASE_CONTENT, 3 },
	};
	struct sq_message_id id = queue_put("b@x");
	struct sq_candidate c;
	int doubt;

	ck_ok(sq_queue_candidate(q, id, NOW, &c, &err), err);
	ck_assert_int_eq(c.cuts_day, 0);
	for (size_t i = 0; i < SQ_LEN(tries); i++) {
		int64_t at = NOW + (int64_t)tries[i].hours * HOUR;
		struct sq_attempt_end end = { .outcome = tries[i].outcome, .phase = tries[i].phase, .next_try_ms = at, .counts = true };
		struct sq_work *w = NULL;

		ck_ok(sq_queue_claim(q, id, true, tries[i].network, at, &w, &err), err);
		ck_ok(sq_queue_attempt_end(q, w->attempt, &end, at + 1, &doubt, &err), err);
		sq_work_free(w);
		ck_ok(sq_queue_candidate(q, id, at + 2, &c, &err), err);
		ck_assert_msg(c.cuts_day == tries[i].cuts, "try %zu: %d", i, c.cuts_day);
	}
	id.v += 1000;
	ck_refused(sq_queue_candidate(q, id, NOW, &c, &err), SQ_ENOENT, "no such message");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("queue_cut");
	TCase *t = tcase_create("cut");

	tcase_add_checked_fixture(t, queue_setup, queue_teardown);
	tcase_add_loop_test(t, rule, 0, SQ_LEN(rows));
	tcase_add_test(t, untold);
	tcase_add_test(t, of_each);
	tcase_add_test(t, of_a_day);
	suite_add_tcase(s, t);
	return test_main(s);
}
