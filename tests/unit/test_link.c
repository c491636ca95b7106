/* link: waits by cause, their growth, their limits, their spread; patience with a connection. */
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

/* A second is 1000; a link of 40 ms with 10 ms of spread, unless the row says otherwise. */
#define NEVER INT64_MAX
#define UNKNOWN SQ_QUIET_UNKNOWN
static const struct {
	const char *name;
	struct sq_patience_in in;
	enum sq_patience_end end;
	int64_t wait_ms;
} patience_rows[] = {
	{ "idle, alive", { .at = SQ_AT_IDLE, .taken = true, .quiet_ms = 5000, .stuck_ms = 9000000 }, SQ_PATIENCE_WAIT, 10000 },
	{ "idle, dead", { .at = SQ_AT_IDLE, .taken = true, .quiet_ms = 15000, .stuck_ms = 15000 }, SQ_PATIENCE_DEAD, 0 },
	{ "idle, nothing known", { .at = SQ_AT_IDLE, .taken = true, .quiet_ms = UNKNOWN, .stuck_ms = 9000000 }, SQ_PATIENCE_WAIT, NEVER },
	{ "envelope, alive", { .at = SQ_AT_ENVELOPE, .taken = true, .quiet_ms = 4000, .stuck_ms = 60000 }, SQ_PATIENCE_WAIT, 11000 },
	{ "envelope, dead", { .at = SQ_AT_ENVELOPE, .quiet_ms = 15000, .stuck_ms = 2000 }, SQ_PATIENCE_DEAD, 0 },
	{ "envelope, alive but silent", { .at = SQ_AT_ENVELOPE, .taken = true, .quiet_ms = 4000, .stuck_ms = 300000 }, SQ_PATIENCE_SILENT, 0 },
	{ "envelope, nothing known", { .at = SQ_AT_ENVELOPE, .taken = true, .quiet_ms = UNKNOWN, .stuck_ms = 299000 }, SQ_PATIENCE_WAIT, 1000 },
	{ "envelope by satellite", { .at = SQ_AT_ENVELOPE, .quiet_ms = 20000, .rtt_us = 1200000, .rttvar_us = 400000 }, SQ_PATIENCE_WAIT, 2400 },
	{ "envelope by satellite, dead", { .at = SQ_AT_ENVELOPE, .quiet_ms = 22400, .rtt_us = 1200000, .rttvar_us = 400000 }, SQ_PATIENCE_DEAD, 0 },
	{ "envelope, silent here again and again", { .at = SQ_AT_ENVELOPE, .patient = true, .taken = true, .quiet_ms = 15000, .stuck_ms = 15000 }, SQ_PATIENCE_WAIT, 285000 },
	{ "content with resume, silent here again and again", { .at = SQ_AT_CONTENT, .resumes = true, .patient = true, .quiet_ms = 300000, .stuck_ms = 1000 }, SQ_PATIENCE_DEAD, 0 },
	{ "content with resume, dead", { .at = SQ_AT_CONTENT, .resumes = true, .quiet_ms = 15000, .stuck_ms = 1000 }, SQ_PATIENCE_DEAD, 0 },
	{ "content without, the same", { .at = SQ_AT_CONTENT, .quiet_ms = 15000, .stuck_ms = 1000 }, SQ_PATIENCE_WAIT, 165000 },
	{ "content without, three minutes", { .at = SQ_AT_CONTENT, .quiet_ms = 180000, .stuck_ms = 1000 }, SQ_PATIENCE_DEAD, 0 },
	{ "closed window", { .at = SQ_AT_CONTENT, .quiet_ms = 1000, .stuck_ms = 1700000 }, SQ_PATIENCE_WAIT, 100000 },
	{ "closed window with resume", { .at = SQ_AT_CONTENT, .resumes = true, .quiet_ms = 1000, .stuck_ms = 1700000 }, SQ_PATIENCE_WAIT, 14000 },
	{ "window closed for half an hour", { .at = SQ_AT_CONTENT, .quiet_ms = 1000, .stuck_ms = 1800000 }, SQ_PATIENCE_SILENT, 0 },
	{ "all taken, no reply to a chunk", { .at = SQ_AT_CONTENT, .taken = true, .quiet_ms = 1000, .stuck_ms = 180000 }, SQ_PATIENCE_SILENT, 0 },
	{ "verdict, alive", { .at = SQ_AT_VERDICT, .taken = true, .quiet_ms = 4000, .stuck_ms = 599000 }, SQ_PATIENCE_WAIT, 1000 },
	{ "verdict, dead: giving up makes doubt", { .at = SQ_AT_VERDICT, .quiet_ms = 599000, .stuck_ms = 599000 }, SQ_PATIENCE_WAIT, 1000 },
	{ "verdict, ten minutes", { .at = SQ_AT_VERDICT, .taken = true, .quiet_ms = 4000, .stuck_ms = 600000 }, SQ_PATIENCE_SILENT, 0 },
	{ "verdict that can be asked for, dead", { .at = SQ_AT_VERDICT, .resumes = true, .quiet_ms = 15000, .stuck_ms = 15000 }, SQ_PATIENCE_DEAD, 0 },
	{ "verdict that can be asked for, alive", { .at = SQ_AT_VERDICT, .resumes = true, .taken = true, .quiet_ms = 4000, .stuck_ms = 30000 }, SQ_PATIENCE_WAIT, 11000 },
	{ "verdict of 25 MiB", { .at = SQ_AT_VERDICT, .taken = true, .octets = 25 << 20, .quiet_ms = 4000, .stuck_ms = 600000 }, SQ_PATIENCE_WAIT, 250000 },
	{ "verdict of a slow server", { .at = SQ_AT_VERDICT, .taken = true, .past_ms = 300000, .quiet_ms = 4000, .stuck_ms = 600000 }, SQ_PATIENCE_WAIT, 600000 },
	{ "verdict of a very slow one", { .at = SQ_AT_VERDICT, .taken = true, .past_ms = 9000000, .quiet_ms = 4000, .stuck_ms = 3599000 }, SQ_PATIENCE_WAIT, 1000 },
	{ "address gone: envelope", { .at = SQ_AT_ENVELOPE, .address_gone = true }, SQ_PATIENCE_ADDRESS, 0 },
	{ "address gone: content", { .at = SQ_AT_CONTENT, .address_gone = true }, SQ_PATIENCE_ADDRESS, 0 },
	{ "address gone: verdict", { .at = SQ_AT_VERDICT, .address_gone = true, .gone_ms = 2000, .taken = true, .quiet_ms = 3000, .stuck_ms = 3000 }, SQ_PATIENCE_WAIT, 8000 },
	{ "address gone for good: verdict", { .at = SQ_AT_VERDICT, .address_gone = true, .gone_ms = 10000 }, SQ_PATIENCE_ADDRESS, 0 },
	{ "address gone: verdict that can be asked for", { .at = SQ_AT_VERDICT, .resumes = true, .address_gone = true }, SQ_PATIENCE_ADDRESS, 0 },
};

START_TEST(patience)
{
	struct sq_patience_in in = patience_rows[_i].in;
	struct sq_patience out;

	in.rtt_us = in.rtt_us ? in.rtt_us : 40000;
	in.rttvar_us = in.rttvar_us ? in.rttvar_us : 10000;
	in.reply_ms = 300000;
	in.content_ms = 180000;
	in.verdict_ms = 600000;
	out = sq_patience(&in);
	ck_assert_msg(out.end == patience_rows[_i].end, "%s: end %d", patience_rows[_i].name, (int)out.end);
	ck_assert_msg(out.wait_ms == patience_rows[_i].wait_ms, "%s: wait %lld", patience_rows[_i].name, (long long)out.wait_ms);
	if (out.end != SQ_PATIENCE_WAIT || out.wait_ms == NEVER)
		return;
	/* It says when to look again: not a millisecond before would there be a reason to end it. */
	in.quiet_ms = in.quiet_ms == UNKNOWN ? UNKNOWN : in.quiet_ms + out.wait_ms - 1;
	in.stuck_ms += out.wait_ms - 1;
	in.gone_ms += out.wait_ms - 1;
	ck_assert_int_eq(sq_patience(&in).end, SQ_PATIENCE_WAIT);
	in.quiet_ms = in.quiet_ms == UNKNOWN ? UNKNOWN : in.quiet_ms + 1;
	in.stuck_ms += 1;
	in.gone_ms += 1;
	ck_assert_int_ne(sq_patience(&in).end, SQ_PATIENCE_WAIT);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("link");
	TCase *t = tcase_create("link");

	tcase_add_loop_test(t, waits, 0, (int)SQ_LEN(rows));
	tcase_add_loop_test(t, patience, 0, (int)SQ_LEN(patience_rows));
	suite_add_tcase(s, t);
	return test_main(s);
}
