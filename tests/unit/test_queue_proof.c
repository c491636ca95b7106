/*
 * Proof of acceptance and forgetting: for every state of a recipient and
 * every copy that a report may speak of, what moves and what the ledger says.
 */
#include "queue_fixture.h"

static const char letters[] = "qsc?hSFER";

/*
 * One recipient in each state, its latest copy `epoch`, `unknown` earlier ones
 * in doubt; a report of copy `about` (-1: it does not say which).
 */
static const struct row { char before; int epoch, unknown, about; bool failed; char after; int rows, rows_epoch, left; } rows[] = {
	{ '?', 0, 0, 0, false, 'S', 1, 0, 0 },
	{ '?', 0, 0, -1, false, 'S', 1, 0, 0 },
	{ '?', 0, 0, 0, true, 'F', 0, 0, 0 },
	{ '?', 0, 0, 1, false, '?', 0, 0, 0 },   /* a copy that never was */
	{ '?', 1, 1, 1, false, 'S', 1, 1, 1 },   /* the earlier one stays unknown */
	{ '?', 1, 1, 0, false, 'S', 1, 0, 1 },   /* now the later one is */
	{ '?', 1, 1, 0, true, '?', 0, 0, 1 },
	{ '?', 1, 0, 0, false, '?', 0, 0, 0 },   /* the earlier copy was refused, not in doubt */
	{ 'q', 0, 0, 0, false, 'q', 0, 0, 0 },   /* tried and cut, never in doubt */
	{ 'q', 0, 0, -1, false, 'q', 0, 0, 0 },
	{ 'q', 0, 0, 0, true, 'q', 0, 0, 0 },
	{ 'q', 1, 1, 0, false, 'S', 1, 0, 0 },
	{ 'q', 1, 1, -1, false, 'S', 1, 0, 0 },
	{ 'q', 1, 1, 0, true, 'q', 0, 0, 1 },
	{ 's', 1, 1, 0, false, 's', 1, 0, 0 },
	{ 'c', 1, 1, 0, false, 'c', 1, 0, 0 },
	{ 'S', 1, 1, 0, false, 'S', 1, 0, 0 },
	{ 'S', 1, 1, 1, false, 'S', 0, 0, 1 },
	{ 'S', 0, 0, 0, false, 'S', 0, 0, 0 },
	{ 'S', 0, 0, 0, true, 'S', 0, 0, 0 },
	{ 'S', 0, 0, -1, true, 'S', 0, 0, 0 },
	{ 'F', 1, 1, 0, false, 'F', 1, 0, 0 },
	{ 'E', 0, 1, 0, false, 'S', 1, 0, 0 },   /* expired in doubt */
	{ 'E', 0, 0, 0, false, 'E', 0, 0, 0 },   /* expired while it waited */
	{ 'h', 0, 0, 0, false, 'h', 0, 0, 0 },
	{ 'R', 0, 0, 0, false, 'R', 0, 0, 0 },
};

START_TEST(proof)
{
	const struct row *t = &rows[_i];
	struct sq_message_id id = queue_put("b@x");
	struct sq_proof p = { .id = id, .epoch = t->about, .address = "b@X", .failed = t->failed, .source = "a report",
		.reply = { .code = 550, .text = SQ_STR("no such user") } };
	struct sq_proved out;
	char sql[160], want[2] = { t->after };

	snprintf(sql, sizeof(sql), "UPDATE recipient SET state = %d, epoch = %d, unknown_copies = %d, attempt = 77", (int)(strchr(letters, t->before) - letters), t->epoch, t->unknown);
	db_do(q, sql);
	for (int twice = 0; twice < 2; twice++) {
		/* What comes twice changes nothing the second time. */
		ck_ok(sq_queue_prove(q, &p, NOW + 5, &out, &err), err);
		ck_states(id, want);
		ck_assert_int_eq(db_number(q, "SELECT count(*) FROM ledger"), t->rows);
		ck_assert_int_eq(db_number(q, "SELECT unknown_copies FROM recipient"), t->left);
		if (t->rows)
			ck_assert_int_eq(db_number(q, "SELECT epoch FROM ledger"), t->rows_epoch);
		ck_assert_int_eq(out.sent + out.failed + out.earlier, twice ? 0 : t->rows + (t->after == 'F' && t->before == '?'));
	}
	if (t->after == 'F' && t->before == '?')
		ck_assert_int_eq(db_number(q, "SELECT count(*) FROM recipient WHERE reply_code = 550 AND reply_text = 'no such user' AND reported_ms = 0"), 1);
}
END_TEST

/* What is accepted is a transaction, not a recipient. */
START_TEST(transaction)
{
	struct sq_message_id id = queue_put("b@x c@x d@x e@x");
	struct sq_proof p = { .id = id, .epoch = 0, .address = "b@x", .failed = true, .source = "a report", .reply = { .text = SQ_STR("no") } };
	struct sq_proved out;

	db_do(q, "UPDATE recipient SET state = 3, attempt = CASE WHEN address IN ('b@x', 'c@x') THEN 7 ELSE 8 END");
	ck_ok(sq_queue_prove(q, &p, NOW, &out, &err), err);
	ck_states(id, "FS??");
	ck_assert_int_eq(out.failed, 1);
	ck_assert_int_eq(out.sent, 1);
	/* An address of nobody here: all that is left belongs to one transaction. */
	p.address = "list-member@elsewhere";
	ck_ok(sq_queue_prove(q, &p, NOW, &out, &err), err);
	ck_states(id, "FSSS");
}
END_TEST

START_TEST(not_told_apart)
{
	struct sq_message_id id = queue_put("b@x c@x");
	struct sq_proof p = { .id = id, .epoch = -1, .address = "", .source = "a report" };
	struct sq_proved out;

	db_do(q, "UPDATE recipient SET state = 3, attempt = CASE WHEN address = 'b@x' THEN 7 ELSE 8 END");
	ck_ok(sq_queue_prove(q, &p, NOW, &out, &err), err);
	ck_states(id, "??");
	ck_assert_int_eq(out.sent, 0);
	p.id.v = 3;
	ck_ok(sq_queue_prove(q, &p, NOW, &out, &err), err);
}
END_TEST

/* A doubt that is sent again, or given up, leaves a copy of which nobody knows. */
START_TEST(unknown_copies)
{
	struct sq_message_id id = queue_put("b@x c@x");
	int n;

	db_do(q, "UPDATE recipient SET state = CASE WHEN address = 'b@x' THEN 3 ELSE 4 END");
	ck_ok(sq_queue_resend(q, id, "", NOW, &n, &err), err);
	ck_assert_int_eq(db_number(q, "SELECT unknown_copies FROM recipient WHERE address = 'b@x'"), 1);
	ck_assert_int_eq(db_number(q, "SELECT unknown_copies FROM recipient WHERE address = 'c@x'"), 0);
	db_do(q, "UPDATE recipient SET state = 3");
	ck_ok(sq_queue_doubt_expire(q, id, NOW, &n, &err), err);
	ck_assert_int_eq(db_number(q, "SELECT sum(unknown_copies) FROM recipient"), 3);
}
END_TEST

static struct { int n; int64_t id; int epoch; } seen;

static void
note(void *arg, struct sq_message_id id, int epoch)
{
	(void)arg;
	seen.n++;
	seen.id = id.v;
	seen.epoch = epoch;
}

START_TEST(named)
{
	struct sq_message_id id = queue_put("b@x");
	struct sq_work *w = queue_claim(id, NOW);
	struct sq_str none = { 0 };
	char text[64];

	ck_assert(!w->envid_is_users);
	ck_ok(sq_queue_named(q, sq_str(w->envid), none, note, NULL, &err), err);
	ck_assert(seen.n == 1 && seen.id == id.v && seen.epoch == 0);
	snprintf(text, sizeof(text), "%sx", w->envid);
	ck_ok(sq_queue_named(q, sq_str(text), none, note, NULL, &err), err);
	ck_assert_int_eq(seen.n, 1);
	/* Exact: case counts, and so does whose queue it is. */
	snprintf(text, sizeof(text), "z%s", w->envid + 1);
	ck_ok(sq_queue_named(q, sq_str(text), none, note, NULL, &err), err);
	ck_assert_int_eq(seen.n, 1);
	ck_ok(sq_queue_named(q, none, sq_str(w->message_id), note, NULL, &err), err);
	ck_assert(seen.n == 2 && seen.id == id.v && seen.epoch == -1);
	ck_ok(sq_queue_named(q, none, none, note, NULL, &err), err);
	ck_assert_int_eq(seen.n, 2);
	/* A user's own stands in the queue as xtext, in reports as it was. */
	db_do(q, "UPDATE message SET envid = 'a+2Bb+3D'");
	ck_ok(sq_queue_named(q, SQ_STR("a+b="), none, note, NULL, &err), err);
	ck_assert(seen.n == 3 && seen.epoch == -1);
	sq_work_free(w);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("queue_proof");
	TCase *t = tcase_create("proof");

	tcase_add_checked_fixture(t, queue_setup, queue_teardown);
	tcase_add_loop_test(t, proof, 0, SQ_LEN(rows));
	tcase_add_test(t, transaction);
	tcase_add_test(t, not_told_apart);
	tcase_add_test(t, unknown_copies);
	tcase_add_test(t, named);
	suite_add_tcase(s, t);
	return test_main(s);
}
