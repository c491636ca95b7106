/*
 * What becomes of recipients: the table of moves, the claim, envelope, intent
 * and verdict, ends without one, recovery, expiry, reports, people's wishes,
 * the ledger, housekeeping.
 */
#include "queue_fixture.h"

static const char letters[] = "qsc?hSFER";

/* ---- the table of moves (DESIGN section 4) ---- */

/* By the state it comes from: where it may go. Every other move is refused. */
static const char *const allowed[SQ_STATE_COUNT] = {
	[SQ_STATE_QUEUED] = "shERS", [SQ_STATE_SENDING] = "cqFh", [SQ_STATE_COMMITTING] = "SqF?h", [SQ_STATE_DOUBT] = "SqFhER",
	[SQ_STATE_HELD] = "qR", [SQ_STATE_SENT] = "q", [SQ_STATE_FAILED] = "q", [SQ_STATE_EXPIRED] = "qS", [SQ_STATE_REMOVED] = "q",
};

START_TEST(move)
{
	enum sq_state from = (enum sq_state)(_i / SQ_STATE_COUNT), to = (enum sq_state)(_i % SQ_STATE_COUNT);
	bool may = strchr(allowed[from], letters[to]) != NULL;
	struct sq_message_id id = queue_put("b@x");
	struct sq_move m = { .id = { id.v << 16 }, .from = from, .to = to, .next_try_ms = 5, .now_ms = 7 };
	char sql[80], one[2] = { may ? letters[to] : letters[from] };

	snprintf(sql, sizeof(sql), "UPDATE recipient SET state = %d", (int)from);
	db_do(q, sql);
	ck_assert_int_eq(sq_state_may(from, to), may);
	if (may) {
		ck_ok(sq_state_move(q, &m, &err), err);
		ck_assert_int_eq(db_number(q, "SELECT state_ms FROM recipient"), 7);
		ck_assert_int_eq(db_number(q, "SELECT next_try_ms FROM recipient"), to == SQ_STATE_QUEUED ? 5 : 0);
		/* It is there already: a second mover must not believe that it moved it. */
		if (to != from)
			ck_refused(sq_state_move(q, &m, &err), SQ_ECORRUPT, sq_state_name(from));
	} else {
		ck_refused(sq_state_move(q, &m, &err), SQ_EPERM, "cannot go from");
	}
	ck_states(id, one);
}
END_TEST

START_TEST(no_such_state)
{
	ck_assert(!sq_state_may(SQ_STATE_COUNT, SQ_STATE_QUEUED));
	ck_assert(!sq_state_may(SQ_STATE_QUEUED, SQ_STATE_COUNT));
}
END_TEST

/* ---- what is due ---- */

START_TEST(due_in_order)
{
	struct sq_message_id late = queue_put("b@x"), soon = queue_put("c@x d@x"), urgent = queue_put("e@x"), other = queue_put("f@x");
	struct sq_candidate due[8];
	int64_t next = 0;
	size_t n = 0;
	char sql[300];

	snprintf(sql, sizeof(sql), "UPDATE recipient SET next_try_ms = %d WHERE id >> 16 = %lld; UPDATE recipient SET priority = 7, next_try_ms = %d WHERE id >> 16 = %lld;"
		"UPDATE message SET priority = 7, tries = 3 WHERE id = %lld", NOW + 2, (long long)late.v, NOW + 5, (long long)urgent.v, (long long)urgent.v);
	db_do(q, sql);
	snprintf(sql, sizeof(sql), "INSERT INTO route (name) VALUES ('other'); UPDATE recipient SET route = 2 WHERE id >> 16 = %lld", (long long)other.v);
	db_do(q, sql);
	ck_ok(sq_queue_due(q, "home", NOW - 1, due, SQ_LEN(due), &n, &err), err);
	ck_assert_uint_eq(n, 0);
	ck_ok(sq_queue_due(q, "home", NOW, due, SQ_LEN(due), &n, &err), err);
	ck_assert_uint_eq(n, 1);
	ck_assert_int_eq(due[0].id.v, soon.v);
	ck_ok(sq_queue_due(q, "home", NOW + 5, due, SQ_LEN(due), &n, &err), err);
	ck_assert_uint_eq(n, 3);
	ck_assert_int_eq(due[0].id.v, urgent.v);
	ck_assert_int_eq(due[0].priority, 7);
	ck_assert_int_eq(due[0].tries, 3);
	ck_assert_int_eq(due[1].id.v, soon.v);
	ck_assert_uint_eq(due[1].size, 11);
	ck_assert_int_eq(due[2].id.v, late.v);
	ck_ok(sq_queue_due(q, "home", NOW + 5, due, 2, &n, &err), err);
	ck_assert_uint_eq(n, 2);
	ck_ok(sq_queue_due(q, "nowhere", NOW + 5, due, 2, &n, &err), err);
	ck_assert_uint_eq(n, 0);
	ck_ok(sq_queue_next_due(q, "home", &next, &err), err);
	ck_assert_int_eq(next, NOW);
	ck_ok(sq_queue_next_due(q, "nowhere", &next, &err), err);
	ck_assert_int_eq(next, INT64_MAX);
}
END_TEST

static void
note_route(void *arg, const char *route, int64_t n)
{
	char *text = arg;

	snprintf(text + strlen(text), 100 - strlen(text), "%s=%lld ", route, (long long)n);
}

START_TEST(busy_routes)
{
	struct sq_message_id id = queue_put("b@x c@x d@x e@x f@x g@x");
	char text[100] = "";
	int n;

	queue_verdict(id, "AD?RDD", NOW);
	ck_refused(sq_queue_hold(q, id, "e@x", NOW, &n, &err), SQ_EPERM, "is failed already");
	ck_ok(sq_queue_hold(q, id, "f@x", NOW, &n, &err), err);
	ck_states(id, "Sq?Fhq");
	ck_ok(sq_queue_busy_routes(q, note_route, text, &err), err);
	ck_assert_str_eq(text, "home=4 ");
	ck_ok(sq_queue_settle(q, id, "d@x", true, "x", NOW, &n, &err), err);
	ck_ok(sq_queue_remove(q, id, "", NOW, &n, &err), err);
	ck_states(id, "SRSFRR");
	text[0] = '\0';
	ck_ok(sq_queue_busy_routes(q, note_route, text, &err), err);
	ck_assert_str_eq(text, "");
}
END_TEST

/* ---- by another route ---- */

/* Beside a recipient that is due, one in each state: only what is queued or finished may move. */
START_TEST(rerouted)
{
	bool may = strchr("qSFER", letters[_i]) != NULL;
	int64_t oldest = 0;
	char sql[200];
	int n = -1;

	queue_put("b@x c@x");
	snprintf(sql, sizeof(sql), "UPDATE recipient SET state = %d WHERE address = 'c@x'; UPDATE recipient SET waits = 3, next_try_ms = %d WHERE address = 'b@x'", _i, NOW + 9);
	db_do(q, sql);
	ck_ok(sq_queue_reroutable(q, "home", NOW, &oldest, &err), err);
	ck_assert(may == (oldest != INT64_MAX));
	ck_ok(sq_queue_reroute(q, "home", "work", NOW - 100000, 9, NOW, &n, &err), err);
	ck_assert_int_eq(n, 0); /* too young */
	ck_ok(sq_queue_reroute(q, "home", "work", oldest == INT64_MAX ? NOW : oldest, 9, NOW, &n, &err), err);
	ck_assert_int_eq(n, may);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM recipient p JOIN route r ON r.id = p.route WHERE r.name = 'work'"), may ? 2 : 0);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM message m JOIN route r ON r.id = m.route WHERE r.name = 'work'"), may);
	ck_assert_int_eq(db_number(q, "SELECT next_try_ms FROM recipient WHERE address = 'b@x'"), may ? NOW : NOW + 9);
	ck_ok(sq_queue_reroutable(q, "nowhere", NOW, &oldest, &err), err);
	ck_assert(oldest == INT64_MAX);
}
END_TEST

/* What the server keeps a part of stays, and what is not due yet for a reason of its own. */
START_TEST(not_rerouted)
{
	int64_t oldest = 0;

	queue_put("b@x");
	db_do(q, "INSERT INTO txn (id, transid, epoch, address, verb, durable) VALUES (77, '<t>', 0, '', 0, 5); UPDATE recipient SET txn = 77");
	ck_ok(sq_queue_reroutable(q, "home", NOW, &oldest, &err), err);
	ck_assert(oldest == INT64_MAX);
	db_do(q, "UPDATE txn SET durable = 0");
	ck_ok(sq_queue_reroutable(q, "home", NOW, &oldest, &err), err);
	ck_assert(oldest != INT64_MAX);
	db_do(q, "UPDATE recipient SET next_try_ms = 9223372036854775807");
	ck_ok(sq_queue_reroutable(q, "home", NOW, &oldest, &err), err);
	ck_assert(oldest == INT64_MAX);
}
END_TEST

/* ---- the claim ---- */

static void
many_addresses(char *out, size_t size, int n)
{
	size_t at = 0;

	for (int i = 0; i < n; i++)
		at += (size_t)snprintf(out + at, size - at, "%sr%03d@x", i ? " " : "", i);
}

static void
ck_group(const struct sq_work *w, int first, uint32_t n)
{
	ck_assert_uint_eq(w->n_recipients, n);
	for (uint32_t i = 0; i < n; i++) {
		char want[16];

		snprintf(want, sizeof(want), "r%03d@x", first + (int)i);
		ck_assert_str_eq(w->recipients[i].address, want);
	}
}

START_TEST(groups_are_deterministic)
{
	char addresses[4096];
	struct sq_message_id id;
	struct sq_work *w, *rest;
	struct sq_attempt_end end = { .outcome = SQ_OUTCOME_CUT, .phase = SQ_PHASE_CONTENT, .next_try_ms = NOW, .counts = true };

	many_addresses(addresses, sizeof(addresses), SQ_GROUP_MAX + 50);
	id = queue_put(addresses);
	for (int again = 0; again < 3; again++) {
		w = queue_claim(id, NOW);
		ck_group(w, 0, SQ_GROUP_MAX);
		rest = queue_claim(id, NOW);
		ck_group(rest, SQ_GROUP_MAX, 50);
		ck_assert_int_eq(rest->attempt.v, w->attempt.v + 1);
		ck_refused(sq_queue_claim(q, id, true, "", NOW, &(struct sq_work *){ NULL }, &err), SQ_ENOENT, "nothing of this message is due");
		ck_ok(sq_queue_attempt_end(q, w->attempt, &end, NOW, NULL, &err), err);
		ck_ok(sq_queue_attempt_end(q, rest->attempt, &end, NOW, NULL, &err), err);
		sq_work_free(w);
		sq_work_free(rest);
	}
}
END_TEST

START_TEST(claim_takes_what_is_due)
{
	struct sq_message_id id = queue_put("b@x c@x"), none = { 5 };
	struct sq_work *w = NULL;
	char sql[100];

	snprintf(sql, sizeof(sql), "UPDATE recipient SET next_try_ms = %d WHERE address = 'c@x'", NOW + 10);
	db_do(q, sql);
	ck_refused(sq_queue_claim(q, none, true, "", NOW, &w, &err), SQ_ENOENT, "nothing");
	ck_refused(sq_queue_claim(q, id, false, "", NOW - 1, &w, &err), SQ_ENOENT, "nothing");
	w = queue_claim(id, NOW);
	ck_assert_uint_eq(w->n_recipients, 1);
	ck_assert_str_eq(w->recipients[0].address, "b@x");
	ck_assert_str_eq(w->sender, "a@x");
	ck_assert(!w->hash_known);
	ck_assert_ptr_null(w->transid);
	ck_states(id, "sq");
	sq_work_free(w);
	/* By a person's wish what is not due goes too. */
	ck_ok(sq_queue_claim(q, id, true, "net", NOW, &w, &err), err);
	ck_assert_str_eq(w->recipients[0].address, "c@x");
	ck_states(id, "ss");
	sq_work_free(w);
}
END_TEST

/* Our own ENVID is the same at every attempt and another for another copy; one of the user's stays. */
START_TEST(envid_tells_the_copies_apart)
{
	struct sq_message_id id = queue_put("b@x");
	struct sq_submitted users = { 0 };
	struct submission s;
	struct sq_work *a, *b, *c;
	int n;

	a = queue_claim(id, NOW);
	ck_ok(sq_queue_attempt_end(q, a->attempt, &(struct sq_attempt_end){ .outcome = SQ_OUTCOME_CUT, .next_try_ms = NOW, .counts = true }, NOW, NULL, &err), err);
	b = queue_claim(id, NOW);
	ck_assert_str_eq(a->envid, b->envid);
	ck_assert(!a->envid_is_users);
	queue_intent(b);
	ck_ok(sq_queue_attempt_end(q, b->attempt, &(struct sq_attempt_end){ .outcome = SQ_OUTCOME_CUT, .next_try_ms = NOW, .counts = true }, NOW, NULL, &err), err);
	ck_ok(sq_queue_resend(q, id, "", NOW, &n, &err), err);
	c = queue_claim(id, NOW);
	ck_assert_str_ne(a->envid, c->envid);
	ck_assert_int_eq(c->epoch, 1);
	ck_assert_uint_eq(c->flags & SQ_TXN_RESEND, SQ_TXN_RESEND);
	ck_assert(c->hash_known);
	sq_work_free(a);
	sq_work_free(b);
	sq_work_free(c);
	submission_init(&s, "<u@x>", "b@x");
	s.s.envid = SQ_STR("mine+20");
	ck_ok(submission_commit(q, &s, "x\r\n", 3, &users), err);
	a = queue_claim(users.id, NOW);
	ck_assert_str_eq(a->envid, "mine+20");
	ck_assert(a->envid_is_users);
	sq_work_free(a);
}
END_TEST

/* ---- envelope, intent, verdict ---- */

static struct sq_envelope env;
static struct sq_verdict ver;
static const uint8_t hash_a[32] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", hash_b[32] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
static const int64_t next_try[SQ_GROUP_MAX] = { NOW + 1, NOW + 2, NOW + 3, NOW + 4 };

START_TEST(the_whole_way)
{
	struct sq_message_id id = queue_put("b@x c@x d@x e@x");
	struct sq_work *w = queue_claim(id, NOW);
	struct sq_message *m = NULL;

	env = (struct sq_envelope){ .verb = 'B', .address = SQ_STR("127.0.0.1:587"), .n_results = 4 };
	results_of(w, env.results, "AADR");
	ck_ok(sq_queue_envelope(q, w->attempt, &env, &(struct sq_said){ "", "" }, NOW, &err), err);
	ck_states(id, "ssss");
	ck_ok(sq_queue_committing(q, w->attempt, hash_a, NOW, &err), err);
	/* Only those whom the envelope accepted can be in doubt. */
	ck_states(id, "ccss");
	ver = (struct sq_verdict){ .provider_id = SQ_STR("<theirs@x>"), .n_results = 4 };
	results_of(w, ver.results, "ADDR");
	memcpy(ver.results[0].reply.enhanced, "2.0.0", 6);
	ck_ok(sq_queue_verdict(q, w->attempt, &ver, next_try, SQ_OUTCOME_MIXED, NOW + 9, &err), err);
	ck_states(id, "SqqF");
	ck_ok(sq_queue_show(q, id, &m, &err), err);
	ck_assert_int_eq(m->recipients[1].next_try_ms, NOW + 2);
	ck_assert_int_eq(m->recipients[2].next_try_ms, NOW + 3);
	ck_assert_int_eq(m->recipients[3].reply.code, 550);
	ck_assert_str_eq(m->recipients[0].reply.enhanced, "2.0.0");
	ck_assert_int_eq(m->n_attempts, 1);
	ck_assert_int_eq(m->attempts[0].outcome, SQ_OUTCOME_MIXED);
	ck_assert_int_eq(m->attempts[0].phase, SQ_PHASE_VERDICT);
	ck_assert_int_eq(m->attempts[0].ended_ms, NOW + 9);
	ck_assert_int_eq(m->attempts[0].octets_sent, 11);
	ck_assert_str_eq(m->sha256, "6161616161616161616161616161616161616161616161616161616161616100");
	sq_message_free(m);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM ledger"), 1);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM ledger WHERE provider_id = '<theirs@x>' AND recipient = 'b@x'"), 1);
	sq_work_free(w);
}
END_TEST

/* An attempt is over once: nothing of it can be said again. */
START_TEST(an_attempt_ends_once)
{
	struct sq_message_id id = queue_put("b@x");
	struct sq_work *w = queue_claim(id, NOW);
	struct sq_attempt_end end = { .outcome = SQ_OUTCOME_CUT, .next_try_ms = NOW, .counts = true };
	struct sq_progress p = { 1, 1, 1 };

	ck_ok(sq_queue_attempt_end(q, w->attempt, &end, NOW, NULL, &err), err);
	env = (struct sq_envelope){ .n_results = 1 };
	results_of(w, env.results, "A");
	ver = (struct sq_verdict){ .n_results = 1 };
	results_of(w, ver.results, "A");
	ck_refused(sq_queue_attempt_end(q, w->attempt, &end, NOW, NULL, &err), SQ_ENOENT, "not under way");
	ck_refused(sq_queue_envelope(q, w->attempt, &env, &(struct sq_said){ "", "" }, NOW, &err), SQ_ENOENT, "not under way");
	ck_refused(sq_queue_committing(q, w->attempt, hash_a, NOW, &err), SQ_ENOENT, "not under way");
	ck_refused(sq_queue_verdict(q, w->attempt, &ver, next_try, SQ_OUTCOME_ACCEPTED, NOW, &err), SQ_ENOENT, "not under way");
	ck_refused(sq_queue_progress(q, w->attempt, SQ_PHASE_CONTENT, &p, NOW, &err), SQ_ENOENT, "not under way");
	ck_states(id, "q");
	sq_work_free(w);
}
END_TEST

/* What an agent that errs or lies might say: refused, and nothing is changed. `stage`: 0 claimed, 1 envelope, 2 intent. */
static const struct { const char *what; int stage; const char *classes; uint32_t n; int64_t first, second; enum sq_err code; } lies[] = {
	{ "too few results", 2, "AA", 1, 0, 1, SQ_EINVAL },
	{ "too many results", 2, "AAA", 3, 0, 1, SQ_EINVAL },
	{ "one recipient twice", 2, "AA", 2, 0, 0, SQ_EINVAL },
	{ "a stranger", 2, "AA", 2, 0, 7, SQ_EINVAL },
	{ "acceptance without an intent", 1, "AA", 2, 0, 1, SQ_EINVAL },
	{ "doubt without an intent", 1, "R?", 2, 0, 1, SQ_EINVAL },
	{ "acceptance without an envelope", 0, "AA", 2, 0, 1, SQ_EINVAL },
};

START_TEST(lies_change_nothing)
{
	struct sq_message_id id = queue_put("b@x c@x");
	struct sq_work *w = queue_claim(id, NOW);
	const char *before = lies[_i].stage == 2 ? "cc" : "ss";

	if (lies[_i].stage == 1)
		queue_envelope(w);
	else if (lies[_i].stage == 2)
		queue_intent(w);
	ver = (struct sq_verdict){ .n_results = 2 };
	results_of(w, ver.results, lies[_i].classes);
	ver.n_results = lies[_i].n;
	ver.results[0].id = (id.v << 16) + lies[_i].first;
	ver.results[1].id = (id.v << 16) + lies[_i].second;
	ck_assert_int_eq(sq_queue_verdict(q, w->attempt, &ver, next_try, SQ_OUTCOME_ACCEPTED, NOW, &err), lies[_i].code);
	ck_states(id, before);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM ledger"), 0);
	/* Neither is a batch spoiled by it: the verdict that follows is taken. */
	ck_ok(sq_queue_batch_begin(q, true, &err), err);
	ck_assert_int_eq(sq_queue_verdict(q, w->attempt, &ver, next_try, SQ_OUTCOME_ACCEPTED, NOW, &err), lies[_i].code);
	results_of(w, ver.results, "R");
	ver.n_results = 2;
	ck_ok(sq_queue_verdict(q, w->attempt, &ver, next_try, SQ_OUTCOME_REFUSED, NOW, &err), err);
	ck_ok(sq_queue_batch_commit(q, &err), err);
	ck_states(id, "FF");
	sq_work_free(w);
}
END_TEST

START_TEST(intent_needs_an_envelope_and_the_same_octets)
{
	struct sq_message_id id = queue_put("b@x");
	struct sq_work *w = queue_claim(id, NOW);
	struct sq_attempt_end end = { .outcome = SQ_OUTCOME_CUT, .next_try_ms = NOW, .counts = true };
	int doubt = 0, n;

	ck_refused(sq_queue_committing(q, w->attempt, hash_a, NOW, &err), SQ_EINVAL, "accepted by an envelope");
	env = (struct sq_envelope){ .n_results = 1 };
	results_of(w, env.results, "D");
	ck_ok(sq_queue_envelope(q, w->attempt, &env, &(struct sq_said){ "", "" }, NOW, &err), err);
	ck_refused(sq_queue_committing(q, w->attempt, hash_a, NOW, &err), SQ_EINVAL, "accepted by an envelope");
	results_of(w, env.results, "A");
	ck_ok(sq_queue_envelope(q, w->attempt, &env, &(struct sq_said){ "", "" }, NOW, &err), err);
	ck_ok(sq_queue_committing(q, w->attempt, hash_a, NOW, &err), err);
	ck_states(id, "c");
	ck_ok(sq_queue_attempt_end(q, w->attempt, &end, NOW, &doubt, &err), err);
	ck_assert_int_eq(doubt, 1);
	sq_work_free(w);
	ck_ok(sq_queue_settle(q, id, "", false, "", NOW, &n, &err), err);
	w = queue_claim(id, NOW);
	queue_envelope(w);
	ck_refused(sq_queue_committing(q, w->attempt, hash_b, NOW, &err), SQ_ECORRUPT, "not the content that was sent before");
	ck_states(id, "s");
	ck_ok(sq_queue_committing(q, w->attempt, hash_a, NOW, &err), err);
	sq_work_free(w);
}
END_TEST

/* ---- ends without a verdict ---- */

START_TEST(an_end_is_doubt_only_behind_the_intent)
{
	struct sq_message_id id = queue_put("b@x c@x");
	struct sq_work *w = queue_claim(id, NOW);
	struct sq_attempt_end end = { .outcome = SQ_OUTCOME_CUT, .phase = SQ_PHASE_TERMINATOR, .next_try_ms = NOW + 50, .counts = false,
		.reply = { .text = SQ_STR("connection reset by peer") } };
	struct sq_message *m = NULL;
	int doubt = -1;

	env = (struct sq_envelope){ .n_results = 2 };
	results_of(w, env.results, "AD");
	ck_ok(sq_queue_envelope(q, w->attempt, &env, &(struct sq_said){ "", "" }, NOW, &err), err);
	if (_i == 1)
		ck_ok(sq_queue_committing(q, w->attempt, hash_a, NOW, &err), err);
	ck_ok(sq_queue_attempt_end(q, w->attempt, &end, NOW, &doubt, &err), err);
	ck_assert_int_eq(doubt, _i);
	ck_states(id, _i ? "?q" : "qq");
	ck_ok(sq_queue_show(q, id, &m, &err), err);
	ck_assert_int_eq(m->attempts[0].outcome, _i ? SQ_OUTCOME_DOUBT : SQ_OUTCOME_CUT);
	ck_assert_int_eq(m->recipients[1].next_try_ms, NOW + 50);
	ck_assert_str_eq(m->recipients[0].reply.text.p, "connection reset by peer");
	ck_assert_str_eq(m->attempts[0].reply.text.p, "connection reset by peer");
	sq_message_free(m);
	sq_work_free(w);
}
END_TEST

/* The server in a window is one without TRANSID: what an earlier session left with another knows nothing of this terminator. */
START_TEST(doubt_of_a_window_is_not_resumed)
{
	static const uint8_t hash[32] = "0123456789abcdef0123456789abcde";
	static struct sq_envelope e;
	struct sq_attempt_end end = { .outcome = SQ_OUTCOME_CUT, .next_try_ms = NOW, .counts = true };
	struct sq_message_id id = queue_put("b@x");
	struct sq_work *w = queue_claim(id, NOW);
	int64_t next = 0;
	int doubt = 0;

	e = (struct sq_envelope){ .verb = 'B', .address = SQ_STR("127.0.0.1:25"), .transid = SQ_STR("<a@b>"), .n_results = 1 };
	results_of(w, e.results, "A");
	ck_ok(sq_queue_envelope(q, w->attempt, &e, &(struct sq_said){ "name", "" }, NOW, &err), err);
	ck_ok(sq_queue_attempt_end(q, w->attempt, &end, NOW, &doubt, &err), err);
	sq_work_free(w);
	w = queue_claim(id, NOW);
	ck_assert_str_eq(w->transid, "<a@b>");
	ck_ok(sq_queue_committing_unasked(q, w->attempt, hash, NOW, &err), err);
	ck_ok(sq_queue_attempt_end(q, w->attempt, &end, NOW, &doubt, &err), err);
	sq_work_free(w);
	ck_assert_int_eq(doubt, 1);
	ck_states(id, "?");
	ck_ok(sq_queue_next_doubt(q, "home", &next, &err), err);
	ck_assert_int_eq(next, INT64_MAX);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM txn"), 0);
}
END_TEST

START_TEST(recover)
{
	struct sq_message_id waits = queue_put("b@x"), sending = queue_put("c@x d@x"), committing = queue_put("e@x"), done = queue_put("f@x");
	struct sq_recovered was = { 0 };
	struct sq_message *m = NULL;
	struct sq_work *w;

	queue_verdict(done, "A", NOW);
	sq_work_free(queue_claim(sending, NOW));
	w = queue_claim(committing, NOW);
	queue_intent(w);
	sq_work_free(w);
	ck_ok(sq_queue_recover(q, NOW + 3, &was, &err), err);
	ck_assert_int_eq(was.doubt, 1);
	ck_assert_int_eq(was.requeued, 2);
	ck_states(waits, "q");
	ck_states(sending, "qq");
	ck_states(committing, "?");
	ck_states(done, "S");
	ck_ok(sq_queue_show(q, sending, &m, &err), err);
	ck_assert_int_eq(m->recipients[0].next_try_ms, NOW + 3);
	ck_assert_int_eq(m->attempts[0].outcome, SQ_OUTCOME_LOCAL);
	sq_message_free(m);
	ck_ok(sq_queue_recover(q, NOW + 4, &was, &err), err);
	ck_assert_int_eq(was.doubt + was.requeued + was.swept, 0);
}
END_TEST

/* Twenty attempts and the first are kept; a series of offline ones is one row. */
START_TEST(history_is_thinned)
{
	struct sq_message_id id = queue_put("b@x");
	struct sq_attempt_end end = { .outcome = SQ_OUTCOME_CUT, .phase = SQ_PHASE_CONTENT, .next_try_ms = NOW, .counts = true };
	struct sq_message *m = NULL;
	struct sq_candidate c;
	size_t n;

	for (int i = 0; i < 60; i++) {
		struct sq_work *w = queue_claim(id, NOW);

		end.counts = i < 30;
		end.outcome = i < 30 ? SQ_OUTCOME_CUT : SQ_OUTCOME_OFFLINE;
		ck_ok(sq_queue_attempt_end(q, w->attempt, &end, NOW + i, NULL, &err), err);
		sq_work_free(w);
	}
	ck_ok(sq_queue_show(q, id, &m, &err), err);
	ck_assert_uint_eq(m->n_attempts, 21);
	ck_assert_int_eq(m->attempts[0].ended_ms, NOW);
	ck_assert_int_eq(m->attempts[20].ended_ms, NOW + 59);
	ck_assert_int_eq(m->attempts[19].outcome, SQ_OUTCOME_CUT);
	sq_message_free(m);
	ck_ok(sq_queue_due(q, "home", NOW, &c, 1, &n, &err), err);
	ck_assert_int_eq(c.tries, 30);
}
END_TEST

START_TEST(progress_is_seen)
{
	struct sq_message_id id = queue_put("b@x");
	struct sq_work *w = queue_claim(id, NOW);
	struct sq_progress p = { 9, 7, 5 };
	struct sq_message *m = NULL;

	ck_ok(sq_queue_progress(q, w->attempt, SQ_PHASE_CONTENT, &p, NOW, &err), err);
	ck_ok(sq_queue_show(q, id, &m, &err), err);
	ck_assert_int_eq(m->recipients[0].acked_octets, 7);
	ck_assert_int_eq(m->recipients[0].durable_octets, 5);
	ck_assert_int_eq(m->attempts[0].octets_sent, 9);
	ck_assert_int_eq(m->attempts[0].phase, SQ_PHASE_CONTENT);
	sq_message_free(m);
	sq_work_free(w);
}
END_TEST

/* ---- expiry ---- */

START_TEST(expiry)
{
	struct sq_message_id id = queue_put("b@x c@x d@x e@x"), later;
	struct submission s;
	struct sq_submitted out = { 0 };
	int64_t next = 0;
	int n = -1, held;

	submission_init(&s, "<later@x>", "f@x");
	s.s.expires_ms = NOW + 7200000;
	ck_ok(submission_commit(q, &s, "x\r\n", 3, &out), err);
	later = out.id;
	queue_verdict(id, "A?DD", NOW);
	ck_ok(sq_queue_hold(q, id, "d@x", NOW, &held, &err), err);
	ck_ok(sq_queue_next_expiry(q, &next, &err), err);
	ck_assert_int_eq(next, NOW + 3600000);
	ck_ok(sq_queue_expire(q, NOW + 3599999, &n, &err), err);
	ck_assert_int_eq(n, 0);
	ck_ok(sq_queue_expire(q, NOW + 3600000, &n, &err), err);
	ck_assert_int_eq(n, 1);
	/* What is in doubt or held is not given up by the clock. */
	ck_states(id, "S?hE");
	ck_states(later, "q");
	ck_ok(sq_queue_next_expiry(q, &next, &err), err);
	ck_assert_int_eq(next, NOW + 7200000);
	/* Set going again by hand it has a whole life before it. */
	ck_ok(sq_queue_resend(q, id, "e@x", NOW + 3600000, &n, &err), err);
	ck_ok(sq_queue_expire(q, NOW + 3600001, &n, &err), err);
	ck_assert_int_eq(n, 0);
	ck_states(id, "S?hq");
}
END_TEST

/* ---- reports ---- */

/* By NOTIFY: is a report due for one that failed, expired, came into doubt. */
static const struct { uint8_t notify; bool failed, expired, doubt; } wishes[] = {
	{ 0, true, true, true },
	{ SQ_NOTIFY_NEVER, false, false, false },
	{ SQ_NOTIFY_SUCCESS, false, false, true },
	{ SQ_NOTIFY_FAILURE, true, true, true },
	{ SQ_NOTIFY_DELAY, false, false, true },
	{ SQ_NOTIFY_SUCCESS | SQ_NOTIFY_FAILURE, true, true, true },
};

START_TEST(reports_due)
{
	for (int kind = 0; kind < 3; kind++) {
		bool due = kind == 0 ? wishes[_i].failed : kind == 1 ? wishes[_i].expired : wishes[_i].doubt;
		struct submission s;
		struct sq_submitted out = { 0 };
		struct sq_message *m = NULL;
		enum sq_err e;
		char mid[20];
		int n;

		snprintf(mid, sizeof(mid), "<%d@x>", kind);
		submission_init(&s, mid, "b@x");
		s.recipients[0].notify = wishes[_i].notify;
		ck_ok(submission_commit(q, &s, "x\r\n", 3, &out), err);
		if (kind == 1)
			ck_ok(sq_queue_expire(q, NOW + 3600000, &n, &err), err);
		else
			queue_verdict(out.id, kind == 0 ? "R" : "?", NOW);
		e = sq_queue_next_report(q, &m, &err);
		ck_assert_msg(e == (due ? SQ_OK : SQ_ENOENT), "kind %d: %s", kind, sq_err_name(e));
		if (due) {
			struct sq_recipient_id other = { (out.id.v + 1) << 16 };

			ck_assert_int_eq(m->id.v, out.id.v);
			ck_refused(sq_queue_reported(q, out.id, &other, 1, NOW, &err), SQ_EINVAL, "another message");
			ck_ok(sq_queue_reported(q, out.id, &m->recipients[0].id, 1, NOW, &err), err);
			sq_message_free(m);
			ck_assert_int_eq(sq_queue_next_report(q, &m, &err), SQ_ENOENT);
		}
		/* A message is done when all is final and told: only then may its content go. */
		ck_assert_int_eq(db_number(q, "SELECT done_ms > 0 FROM message ORDER BY id DESC LIMIT 1"), kind < 2);
	}
}
END_TEST

/* ---- people ---- */

/* What may be done in which state: Y moves, N is refused; states in the order of the letters. */
static const struct {
	const char *what, *may;
	enum sq_state to;
	enum sq_err (*act)(struct sq_queue *, struct sq_message_id, const char *, int64_t, int *, struct sq_error *);
} acts[] = {
	/*           qsc?hSFER */
	{ "hold",    "YNNNNNNNN", SQ_STATE_HELD, sq_queue_hold },
	{ "release", "NNNNYNNNN", SQ_STATE_QUEUED, sq_queue_release },
	{ "remove",  "YNNYYNNNN", SQ_STATE_REMOVED, sq_queue_remove },
	{ "resend",  "NNNYYYYYY", SQ_STATE_QUEUED, sq_queue_resend },
	{ "settle",  "NNNYNNNNN", SQ_STATE_SENT, NULL },
};

static enum sq_err
act(int what, struct sq_message_id id, const char *address, int *n)
{
	return acts[what].act ? acts[what].act(q, id, address, NOW + 1, n, &err) : sq_queue_settle(q, id, address, true, "seen", NOW + 1, n, &err);
}

START_TEST(people)
{
	int what = _i / SQ_STATE_COUNT, state = _i % SQ_STATE_COUNT, n = -1;
	struct sq_message_id id = queue_put("b@x c@x");
	bool may = acts[what].may[state] == 'Y';
	char sql[80], want[3] = { 0 };

	snprintf(sql, sizeof(sql), "UPDATE recipient SET state = %d", state);
	db_do(q, sql);
	want[0] = want[1] = letters[state];
	if (may) {
		/* The domain is compared without case. */
		ck_ok(act(what, id, "c@X", &n), err);
		want[1] = letters[acts[what].to];
		ck_states(id, want);
		ck_assert_int_eq(n, 1);
		ck_assert_int_eq(db_number(q, "SELECT epoch FROM recipient WHERE address = 'c@x'"), acts[what].act == sq_queue_resend);
		ck_assert_int_eq(db_number(q, "SELECT count(*) FROM ledger WHERE source = 'seen'"), !acts[what].act);
		if (acts[what].to == SQ_STATE_QUEUED)
			ck_assert_int_eq(db_number(q, "SELECT next_try_ms FROM recipient WHERE address = 'c@x'"), NOW + 1);
	} else {
		ck_refused(act(what, id, "c@x", &n), SQ_EPERM, "c@x is ");
		ck_states(id, want);
		ck_assert_int_eq(n, -1);
	}
	ck_refused(act(what, id, "d@x", &n), SQ_ENOENT, "no recipient 'd@x'");
	ck_refused(act(what, (struct sq_message_id){ 3 }, "", &n), SQ_ENOENT, "no such message");
}
END_TEST

/* "The whole message again": who is in doubt, else who certainly has none, else a second copy. */
static const struct { const char *before, *after; } again[] = { { "S?F", "SqF" }, { "ShF", "SqF" }, { "SFE", "Sqq" }, { "SSR", "SSq" }, { "SSS", "qqq" }, { "S?h", "Sqq" } };

START_TEST(resend_the_whole)
{
	struct sq_message_id id = queue_put("b@x c@x d@x");
	int n;

	for (int i = 0; i < 3; i++) {
		char sql[100];

		snprintf(sql, sizeof(sql), "UPDATE recipient SET state = %d WHERE (id & 65535) = %d", (int)(strchr(letters, again[_i].before[i]) - letters), i);
		db_do(q, sql);
	}
	ck_ok(sq_queue_resend(q, id, "", NOW, &n, &err), err);
	ck_states(id, again[_i].after);
	db_do(q, "UPDATE recipient SET state = 5; UPDATE message SET stored = 0");
	ck_refused(sq_queue_resend(q, id, "", NOW, &n, &err), SQ_EPERM, "its content is gone");
}
END_TEST

START_TEST(retry_makes_due)
{
	struct sq_message_id a = queue_put("b@x"), b = queue_put("c@x"), all = { 0 };
	int64_t next;
	int n;

	db_do(q, "UPDATE recipient SET next_try_ms = 9000000000");
	ck_ok(sq_queue_retry(q, a, NOW, &n, &err), err);
	ck_assert_int_eq(n, 1);
	ck_ok(sq_queue_next_due(q, "home", &next, &err), err);
	ck_assert_int_eq(next, NOW);
	ck_ok(sq_queue_retry(q, all, NOW, &n, &err), err);
	ck_assert_int_eq(n, 2);
	ck_assert_int_eq(db_number(q, "SELECT max(next_try_ms) FROM recipient"), NOW);
	ck_ok(sq_queue_hold(q, b, "", NOW, &n, &err), err);
	ck_ok(sq_queue_retry(q, b, NOW, &n, &err), err);
	ck_assert_int_eq(n, 0);
}
END_TEST

START_TEST(requests)
{
	struct sq_message_id none = { 0 }, some = { 32768 };
	static char long_address[SQ_ADDRESS_MAX + 1];
	struct sq_request r;
	int64_t a = 0, b = 0;

	memset(long_address, 'a', SQ_ADDRESS_MAX);
	ck_refused(sq_queue_request_next(q, 0, &r, &err), SQ_ENOENT, "no request");
	ck_refused(sq_queue_request_add(q, SQ_REQUEST_HOLD, none, "", NOW, &a, &err), SQ_EINVAL, "needs a message");
	ck_refused(sq_queue_request_add(q, (enum sq_request_kind)99, some, "", NOW, &a, &err), SQ_EINVAL, "needs a message");
	ck_refused(sq_queue_request_add(q, SQ_REQUEST_HOLD, some, long_address, NOW, &a, &err), SQ_ELIMIT, "longer than");
	ck_ok(sq_queue_request_add(q, SQ_REQUEST_FLUSH, none, NULL, NOW, &a, &err), err);
	ck_ok(sq_queue_request_add(q, SQ_REQUEST_REMOVE, some, "b@x", NOW + 1, &b, &err), err);
	ck_ok(sq_queue_request_next(q, 0, &r, &err), err);
	ck_assert_int_eq(r.id, a);
	ck_ok(sq_queue_request_next(q, a, &r, &err), err);
	ck_assert_int_eq(r.id, b);
	ck_assert_int_eq(r.kind, SQ_REQUEST_REMOVE);
	ck_assert_str_eq(r.address, "b@x");
	ck_assert_int_eq(r.asked_ms, NOW + 1);
	ck_ok(sq_queue_request_done(q, a, true, "done", NOW + 5, &err), err);
	ck_refused(sq_queue_request_done(q, a, true, "twice", NOW + 6, &err), SQ_ENOENT, "is not waiting");
	ck_ok(sq_queue_request_get(q, a, &r, &err), err);
	ck_assert(r.ok);
	ck_assert_int_eq(r.done_ms, NOW + 5);
	ck_assert_str_eq(r.result, "done");
	ck_ok(sq_queue_request_next(q, 0, &r, &err), err);
	ck_assert_int_eq(r.id, b);
	ck_refused(sq_queue_request_get(q, b + 1, &r, &err), SQ_ENOENT, "no request");
}
END_TEST

/* ---- ledger ---- */

struct found { int n, copies, epoch; };

static bool
count_row(void *arg, const struct sq_ledger_row *row)
{
	struct found *f = arg;

	f->n++;
	f->copies = row->copies;
	f->epoch = row->epoch;
	return true;
}

static int
ledger_rows(const char *recipient, const char *message_id, int64_t since)
{
	struct sq_ledger_filter filter = { .recipient = recipient, .message_id = message_id, .since_ms = since };
	struct found f = { 0 };

	ck_ok(sq_queue_sent(q, &filter, count_row, &f, &err), err);
	return f.n;
}

START_TEST(ledger)
{
	struct sq_message_id id = queue_put("b@x c@x");
	struct sq_message *m = NULL;
	struct found f = { 0 };
	int n;

	queue_verdict(id, "AR", NOW + 5);
	ck_ok(sq_queue_show(q, id, &m, &err), err);
	ck_assert_int_eq(ledger_rows(NULL, NULL, 0), 1);
	ck_assert_int_eq(ledger_rows("B@X", NULL, 0), 1);
	ck_assert_int_eq(ledger_rows("c@x", NULL, 0), 0);
	ck_assert_int_eq(ledger_rows(NULL, m->message_id, 0), 1);
	ck_assert_int_eq(ledger_rows(NULL, "<none@x>", 0), 0);
	ck_assert_int_eq(ledger_rows("b@x", m->message_id, NOW + 5), 1);
	ck_assert_int_eq(ledger_rows("b@x", m->message_id, NOW + 6), 0);
	/* A second copy is told for what it is. */
	ck_ok(sq_queue_resend(q, id, "b@x", NOW + 6, &n, &err), err);
	queue_verdict(id, "A", NOW + 7);
	ck_ok(sq_queue_sent(q, NULL, count_row, &f, &err), err);
	ck_assert_int_eq(f.n, 2);
	ck_assert_int_eq(f.copies, 2);
	ck_assert_int_eq(f.epoch, 1);
	sq_message_free(m);
}
END_TEST

/* ---- housekeeping ---- */

static void
sweep_all(int64_t now_ms, int64_t ledger_ms)
{
	bool more = true;

	for (int i = 0; more && i < 100; i++)
		ck_ok(sq_queue_sweep(q, now_ms, ledger_ms, true, &more, &err), err);
	ck_assert(!more);
}

START_TEST(sweep)
{
	struct sq_message_id done = queue_put("b@x"), waits = queue_put("c@x"), failed = queue_put("d@x"), last = queue_put("e@x"), next;
	struct sq_buf b = SQ_BUF_INIT(64);
	struct sq_message *m = NULL;

	queue_verdict(done, "A", NOW);
	queue_verdict(failed, "R", NOW);
	queue_verdict(last, "A", NOW);
	sweep_all(NOW + 1, 1000);
	/* Content goes at acceptance, not before its failure was told; the rows stay as long as the ledger. */
	ck_refused(sq_queue_read_content(q, done, 0, 1, &b, &err), SQ_ENOENT, "is gone");
	ck_ok(sq_queue_read_content(q, waits, 0, 1, &b, &err), err);
	ck_ok(sq_queue_read_content(q, failed, 0, 1, &b, &err), err);
	ck_states(done, "S");
	ck_assert_int_eq(ledger_rows(NULL, NULL, 0), 2);
	ck_ok(sq_queue_next_report(q, &m, &err), err);
	ck_assert_int_eq(m->id.v, failed.v);
	ck_ok(sq_queue_reported(q, failed, &m->recipients[0].id, 1, NOW, &err), err);
	sq_message_free(m);
	sweep_all(NOW + 2000, 1000);
	ck_assert_int_eq(sq_queue_show(q, done, &m, &err), SQ_ENOENT);
	ck_assert_int_eq(sq_queue_show(q, failed, &m, &err), SQ_ENOENT);
	ck_states(waits, "q");
	ck_assert_int_eq(ledger_rows(NULL, NULL, 0), 0);
	/* Ids never come back: the last message keeps its place. */
	ck_states(last, "S");
	next = queue_put("f@x");
	ck_assert_int_gt(next.v, last.v);
	sweep_all(NOW + 2000, 1000);
	ck_assert_int_eq(sq_queue_show(q, last, &m, &err), SQ_ENOENT);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM attempt"), 0);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM content"), 2);
	sq_buf_fini(&b);
}
END_TEST

/* 10 MB go in slices, and what was begun cannot be sent again. */
START_TEST(sweep_in_slices)
{
	static char chunk[SQ_CHUNK];
	struct sq_submitted out = { 0 };
	struct submission s;
	struct sq_ingest *in;
	bool more = false;
	int slices = 1, n;

	submission_init(&s, "<large@x>", "b@x");
	ck_ok(sq_ingest_begin(q, &in, &err), err);
	for (int i = 0; i < 40; i++)
		ck_ok(sq_ingest_write(in, chunk, sizeof(chunk), &err), err);
	ck_ok(sq_ingest_commit(in, &s.s, &out, &err), err);
	queue_verdict(out.id, "A", NOW);
	ck_ok(sq_queue_sweep(q, NOW, 1000, false, &more, &err), err);
	ck_assert(more);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM content"), 40 - SQ_SLICE / SQ_CHUNK);
	ck_refused(sq_queue_resend(q, out.id, "", NOW, &n, &err), SQ_EPERM, "its content is gone");
	for (; more && slices < 20; slices++)
		ck_ok(sq_queue_sweep(q, NOW, 1000, false, &more, &err), err);
	ck_assert_int_eq(slices, 3);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM content"), 0);
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM ingest"), 0);
	ck_states(out.id, "S");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("queue_flow");
	TCase *t = tcase_create("flow");

	tcase_add_checked_fixture(t, queue_setup, queue_teardown);
	tcase_add_loop_test(t, move, 0, SQ_STATE_COUNT * SQ_STATE_COUNT);
	tcase_add_test(t, no_such_state);
	tcase_add_test(t, due_in_order);
	tcase_add_test(t, busy_routes);
	tcase_add_loop_test(t, rerouted, 0, SQ_STATE_COUNT);
	tcase_add_test(t, not_rerouted);
	tcase_add_test(t, groups_are_deterministic);
	tcase_add_test(t, claim_takes_what_is_due);
	tcase_add_test(t, envid_tells_the_copies_apart);
	tcase_add_test(t, the_whole_way);
	tcase_add_test(t, an_attempt_ends_once);
	tcase_add_loop_test(t, lies_change_nothing, 0, SQ_LEN(lies));
	tcase_add_test(t, intent_needs_an_envelope_and_the_same_octets);
	tcase_add_loop_test(t, an_end_is_doubt_only_behind_the_intent, 0, 2);
	tcase_add_test(t, doubt_of_a_window_is_not_resumed);
	tcase_add_test(t, recover);
	tcase_add_test(t, history_is_thinned);
	tcase_add_test(t, progress_is_seen);
	tcase_add_test(t, expiry);
	tcase_add_loop_test(t, reports_due, 0, SQ_LEN(wishes));
	tcase_add_loop_test(t, people, 0, SQ_LEN(acts) * SQ_STATE_COUNT);
	tcase_add_loop_test(t, resend_the_whole, 0, SQ_LEN(again));
	tcase_add_test(t, retry_makes_due);
	tcase_add_test(t, requests);
	tcase_add_test(t, ledger);
	tcase_add_test(t, sweep);
	tcase_add_test(t, sweep_in_slices);
	suite_add_tcase(s, t);
	return test_main(s);
}
