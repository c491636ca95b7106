/*
 * A window of several messages cut at every single octet, both ways, in one
 * process: the real group machine, the real queue, and a model of a server
 * that accepts a message at the instant its last octet is there. Only the wire
 * is replaced.
 *
 * Three messages to one or two recipients go out in one group; in two of the
 * three scenes the server refuses the MAIL or a RCPT of the second. For every
 * K the wire carries K octets in one direction and then breaks, by FIN (what
 * the server had answered still arrives) or by RST; the client hands the group
 * over whole, or by small pieces between which it reads. Then must hold:
 *
 *   what counts as sent the server has, what waits again it has not;
 *   in doubt is exactly what was offered to the end and has no answer;
 *   with evidence from the server's log everything is accepted exactly once.
 */
#include "../unit/harness.h"

#include <sys/stat.h>

#include <sendq/io.h>
#include <sendq/queue.h>
#include <sendq/smtp.h>

enum { MESSAGES = 3, RECIPIENTS = 2, NEVER = 1 << 30 };

static const char *const content[MESSAGES] = {
	"Message-ID: <0.1@example.org>\r\nSubject: one\r\n\r\nRSET\r\nBDAT 3 LAST\r\n",
	"Message-ID: <1.2@example.org>\r\nSubject: two\r\n\r\nMAIL FROM:<a@b>\r\n",
	"Message-ID: <2.3@example.org>\r\nSubject: three\r\n\r\nno end of line",
};
static const uint32_t recipients[MESSAGES] = { 1, 2, 1 };

enum scene { GOOD, MAIL_REFUSED, RCPT_REFUSED };
static const char *const scene_names[] = { "all good", "MAIL refused", "one RCPT refused" };

/* ---- the server ---- */

struct log { int accepted[MESSAGES][RECIPIENTS]; };

struct server {
	enum scene scene;
	struct sq_buf in, out;
	struct log *log;
	bool mail, rcpt[RECIPIENTS];
	int message;             /* by the sender's first octet */
	bool bdat;
	size_t left;
	struct sq_buf body;
};

static void
say(struct server *v, const char *line)
{
	sq_buf_adds(&v->out, line);
	sq_buf_adds(&v->out, "\r\n");
}

static void
forget(struct server *v)
{
	v->mail = false;
	memset(v->rcpt, 0, sizeof(v->rcpt));
	sq_buf_clear(&v->body);
}

static void
end_of_content(struct server *v)
{
	bool any = v->rcpt[0] || v->rcpt[1];

	if (v->mail && any) {
		ck_assert_msg(v->body.n == strlen(content[v->message]) && memcmp(v->body.p, content[v->message], v->body.n) == 0,
			"the server got something else under the envelope of message %d", v->message);
		for (int r = 0; r < RECIPIENTS; r++)
			v->log->accepted[v->message][r] += v->rcpt[r];
	}
	say(v, v->mail && any ? "250 2.0.0 accepted" : "503 5.5.1 no envelope");
	forget(v);
}

static void
on_line(struct server *v, const char *line)
{
	if (strncmp(line, "MAIL FROM:<s", 12) == 0) {
		ck_assert_msg(!v->mail, "MAIL inside a transaction");
		v->message = line[12] - '0';
		v->mail = v->scene != MAIL_REFUSED || v->message != 1;
		say(v, v->mail ? "250 2.1.0 sender" : "550 5.7.1 not you");
	} else if (strncmp(line, "RCPT TO:<r", 10) == 0) {
		int r = line[10] - '0';

		v->rcpt[r] = v->mail && (v->scene != RCPT_REFUSED || v->message != 1 || r != 0);
		say(v, v->rcpt[r] ? "250 2.1.5 recipient" : v->mail ? "550 5.1.1 nobody" : "503 5.5.1 no sender");
	} else if (strncmp(line, "BDAT ", 5) == 0) {
		v->left = (size_t)strtoul(line + 5, NULL, 10);
		ck_assert_ptr_nonnull(strstr(line, " LAST"));
		v->bdat = true;
	} else if (strcmp(line, "RSET") == 0) {
		forget(v);
		say(v, "250 2.0.0 reset");
	} else if (strcmp(line, "QUIT") == 0) {
		say(v, "221 2.0.0 bye");
	} else {
		ck_abort_msg("the server cannot understand '%s'", line);
	}
}

static void
serve(struct server *v)
{
	for (;;) {
		char line[256], *end;
		size_t n;

		if (v->bdat) {
			n = v->in.n < v->left ? v->in.n : v->left;
			sq_buf_add(&v->body, v->in.p, n);
			sq_buf_consume(&v->in, n);
			v->left -= n;
			if (v->left > 0)
				return;
			v->bdat = false;
			end_of_content(v);
			continue;
		}
		if (v->in.n == 0 || !(end = memmem(v->in.p, v->in.n, "\r\n", 2)))
			return;
		n = (size_t)(end - v->in.p);
		ck_assert_uint_lt(n, sizeof(line));
		memcpy(line, v->in.p, n);
		line[n] = '\0';
		sq_buf_consume(&v->in, n + 2);
		on_line(v, line);
	}
}

/* ---- the wire ---- */

struct wire {
	struct server server;
	int to_server, to_client, carried[2];
	bool rst, broken;
	size_t piece;
};

static void
carry_up(struct wire *w, const char *p, size_t n)
{
	size_t fits = (size_t)w->to_server < n ? (size_t)w->to_server : n;

	if (w->broken)
		return;
	sq_buf_add(&w->server.in, p, fits);
	w->to_server -= (int)fits;
	w->carried[0] += (int)fits;
	serve(&w->server);
	w->broken |= fits < n;
}

static size_t
carry_down(struct wire *w, char *out, size_t max)
{
	size_t n = w->server.out.n < max ? w->server.out.n : max;

	if (w->broken && w->rst)
		return 0;
	if ((size_t)w->to_client < n) {
		n = (size_t)w->to_client;
		w->broken = true;
	}
	memcpy(out, w->server.out.p ? w->server.out.p : "", n);
	sq_buf_consume(&w->server.out, n);
	w->to_client -= (int)n;
	w->carried[1] += (int)n;
	return n;
}

/* ---- the client ---- */

struct client {
	struct sq_queue *q;
	struct sq_work *works[MESSAGES];
	struct sq_txn txns[MESSAGES];
	struct sq_buf contents[MESSAGES];
	uint32_t n;
	bool go, answered[MESSAGES];
	struct sq_session s;
	struct sq_group g;
	int64_t now;
	int doubts_wanted;          /* recipients, by what the client itself saw */
};

static struct sq_error err;

static bool
claim(struct client *c)
{
	struct sq_candidate due[MESSAGES];
	const struct sq_txn *list[MESSAGES];
	struct sq_str octets[MESSAGES];
	static char senders[MESSAGES][16];
	size_t n = 0;

	c->n = 0;
	c->go = false;
	memset(c->answered, 0, sizeof(c->answered));
	ck_ok(sq_queue_due(c->q, "home", c->now, due, MESSAGES, &n, &err), err);
	for (size_t i = 0; i < n; i++, c->n++) {
		struct sq_work *w;
		struct sq_txn *t = &c->txns[i];

		ck_ok(sq_queue_claim(c->q, due[i].id, false, "", c->now, &c->works[i], &err), err);
		w = c->works[i];
		*t = (struct sq_txn){ .size = w->size, .n_recipients = w->n_recipients };
		snprintf(senders[i], sizeof(senders[i]), "%s", w->sender);
		t->sender = sq_str(senders[i]);
		for (uint32_t k = 0; k < w->n_recipients; k++)
			t->recipients[k] = (struct sq_txn_recipient){ .id = w->recipients[k].id.v, .address = sq_str(w->recipients[k].address) };
		sq_buf_clear(&c->contents[i]);
		c->contents[i].max = 4096;
		ck_ok(sq_queue_read_content(c->q, w->id, 0, (size_t)w->size, &c->contents[i], &err), err);
		list[i] = t;
		octets[i] = (struct sq_str){ c->contents[i].p, c->contents[i].n };
	}
	if (n > 0)
		ck_ok(sq_group_begin(&c->g, &c->s, list, octets, c->n, &err), err);
	return n > 0;
}

static void
report_verdict(struct client *c)
{
	uint32_t k = sq_group_verdict(&c->g);
	const struct sq_group_message *m = &c->g.messages[k];
	struct sq_verdict v = { .n_results = m->txn->n_recipients };
	int64_t next[SQ_GROUP_MAX];

	for (uint32_t i = 0; i < v.n_results; i++) {
		v.results[i] = m->results[i];
		next[i] = c->now;
	}
	ck_ok(sq_queue_verdict(c->q, c->works[k]->attempt, &v, next, SQ_OUTCOME_MIXED, c->now, &err), err);
	c->answered[k] = true;
	sq_group_reported(&c->g);
}

/* As the runner does: the intent of all, in one batch. */
static void
intend(struct client *c)
{
	static const uint8_t hash[MESSAGES][32] = { { 1 }, { 2 }, { 3 } };

	for (uint32_t i = 0; i < c->n; i++)
		ck_ok(sq_queue_committing_unasked(c->q, c->works[i]->attempt, hash[c->works[i]->message_id[1] - '0'], c->now, &err), err);
	c->go = true;
	sq_group_go(&c->g);
}

/* What has no verdict: in doubt where GO was given, waiting again where it was not. */
static void
end_works(struct client *c)
{
	for (uint32_t i = 0; i < c->n; i++) {
		struct sq_attempt_end end = { .outcome = SQ_OUTCOME_CUT, .phase = SQ_PHASE_TERMINATOR, .next_try_ms = c->now, .counts = true };
		int doubt = 0;

		if (!c->answered[i]) {
			ck_ok(sq_queue_attempt_end(c->q, c->works[i]->attempt, &end, c->now, &doubt, &err), err);
			ck_assert_int_eq(doubt, c->go ? (int)c->works[i]->n_recipients : 0);
			c->doubts_wanted += doubt;
		}
		sq_work_free(c->works[i]);
	}
	c->n = 0;
}

static bool
hear(struct client *c, struct wire *w, bool group)
{
	char octets[48];
	size_t n = carry_down(w, octets, sizeof(octets));

	if (n > 0)
		group ? sq_group_receive(&c->g, octets, n) : sq_session_receive(&c->s, octets, n);
	return n > 0;
}

static void
group(struct client *c, struct wire *w)
{
	for (enum sq_want want; (want = sq_group_want(&c->g)) != SQ_WANT_NOTHING; ) {
		size_t n = c->g.out.n < w->piece ? c->g.out.n : w->piece;

		switch (want) {
		case SQ_WANT_TERMINATOR_GO:
			intend(c);
			break;
		case SQ_WANT_VERDICT:
			report_verdict(c);
			break;
		case SQ_WANT_SEND:
			ck_assert(c->go);
			sq_group_offer(&c->g, n);
			carry_up(w, c->g.out.p, n);
			sq_group_sent(&c->g, n);
			if (!hear(c, w, true) && w->broken)
				sq_group_lost(&c->g, SQ_OUTCOME_CUT, "broken pipe", false);
			break;
		case SQ_WANT_REPLY:
			if (!hear(c, w, true)) {
				ck_assert_msg(w->broken, "client and server wait for each other");
				sq_group_lost(&c->g, SQ_OUTCOME_CUT, "connection reset by peer", false);
			}
			break;
		case SQ_WANT_TXN:
		case SQ_WANT_ENVELOPE_GO:
		case SQ_WANT_CONTENT:
		case SQ_WANT_DRAINED:
		case SQ_WANT_NOTHING:
			ck_abort_msg("the group wants %d", (int)want);
		}
	}
	ck_assert_msg(!c->g.anomaly, "%s", c->g.anomaly);
}

static void
connect_and_carry(struct client *c, struct log *log, enum scene scene, int up, int down, bool rst, size_t piece, int carried[2])
{
	struct wire w = { .to_server = up, .to_client = down, .rst = rst, .piece = piece, .server = { .scene = scene, .log = log,
		.in = SQ_BUF_INIT(65536), .out = SQ_BUF_INIT(65536), .body = SQ_BUF_INIT(65536) } };
	struct sq_ehlo ehlo = { .caps = SQ_CAP_ENHANCED | SQ_CAP_PIPELINING | SQ_CAP_CHUNKING };
	struct sq_job job = { 0 };

	ck_ok(sq_session_init(&c->s, &ehlo, &job, &err), err);
	for (enum sq_want want; (want = sq_session_want(&c->s)) != SQ_WANT_NOTHING; ) {
		if (want == SQ_WANT_SEND) {
			carry_up(&w, c->s.out.p, c->s.out.n);
			sq_session_sent(&c->s, c->s.out.n);
		} else if (want == SQ_WANT_TXN && claim(c)) {
			group(c, &w);
			end_works(c);
		} else if (want == SQ_WANT_TXN) {
			sq_session_quit(&c->s);
		} else if (!hear(c, &w, false)) {
			ck_assert(w.broken);
			sq_session_lost(&c->s, SQ_OUTCOME_CUT, "connection reset by peer");
		}
	}
	sq_group_fini(&c->g);
	sq_session_fini(&c->s);
	if (carried)
		memcpy(carried, w.carried, sizeof(w.carried));
	sq_buf_fini(&w.server.in);
	sq_buf_fini(&w.server.out);
	sq_buf_fini(&w.server.body);
}

/* ---- one case ---- */

static struct sq_message_id
submit(struct sq_queue *q, int m, int64_t now)
{
	static const char *const ids[] = { "<0.1@example.org>", "<1.2@example.org>", "<2.3@example.org>" }, *const senders[] = { "s0@x", "s1@x", "s2@x" };
	struct sq_new_recipient to[RECIPIENTS] = { { .address = SQ_STR("r0@example.net") }, { .address = SQ_STR("r1@example.net") } };
	struct sq_submission s = { .message_id = sq_str(ids[m]), .sender = sq_str(senders[m]), .route = "home", .source = "argv",
		.submitted_ms = now, .expires_ms = now + 1000000, .recipients = to, .n_recipients = recipients[m] };
	struct sq_submitted done;
	struct sq_ingest *in;

	ck_ok(sq_ingest_begin(q, &in, &err), err);
	ck_ok(sq_ingest_write(in, content[m], strlen(content[m]), &err), err);
	ck_ok(sq_ingest_commit(in, &s, &done, &err), err);
	return done.id;
}

struct seen {
	const struct log *log;
	struct { struct sq_message_id id; const char *address; bool accepted; } doubt[MESSAGES * RECIPIENTS];
	int doubts, queued;
};

static void
look(struct seen *seen, const struct sq_message *x)
{
	int m = x->message_id[1] - '0';

	for (size_t i = 0; i < x->n_recipients; i++) {
		const struct sq_recipient *p = &x->recipients[i];
		int r = p->address[1] - '0', accepted = seen->log->accepted[m][r];

		if (p->state == SQ_STATE_DOUBT) {
			seen->doubt[seen->doubts].id = x->id;
			seen->doubt[seen->doubts].address = r == 0 ? "r0@example.net" : "r1@example.net";
			seen->doubt[seen->doubts++].accepted = accepted > 0;
			ck_assert_int_le(accepted, 1);
			continue;
		}
		seen->queued += p->state == SQ_STATE_QUEUED;
		ck_assert_msg(p->state == SQ_STATE_QUEUED || p->state == SQ_STATE_SENT || p->state == SQ_STATE_FAILED, "left %s", sq_state_name(p->state));
		ck_assert_msg(accepted == (p->state == SQ_STATE_SENT), "message %d, recipient %d is %s and was accepted %d times", m, r,
			sq_state_name(p->state), accepted);
	}
}

static void
look_at_all(struct sq_queue *q, const struct sq_message_id ids[MESSAGES], struct seen *seen)
{
	for (int m = 0; m < MESSAGES; m++) {
		struct sq_message *x;

		ck_ok(sq_queue_show(q, ids[m], &x, &err), err);
		look(seen, x);
		sq_message_free(x);
	}
}

static int cases, doubts;

static void
one_case(struct sq_queue *q, enum scene scene, size_t piece, int up, int down, bool rst, int carried[2])
{
	static int64_t clock = 1000000;
	struct client c = { .q = q };
	struct log log = { 0 };
	struct seen seen = { .log = &log }, after = { .log = &log };
	struct sq_message_id ids[MESSAGES];
	int n;

	c.now = clock += 10000000; /* another life: nothing of an earlier case is a duplicate of this one */
	for (int m = 0; m < MESSAGES; m++)
		ids[m] = submit(q, m, c.now);
	ck_ok(sq_queue_batch_begin(q, false, &err), err);
	connect_and_carry(&c, &log, scene, up, down, rst, piece, carried);
	look_at_all(q, ids, &seen);
	ck_assert_int_eq(seen.doubts, c.doubts_wanted);
	doubts += seen.doubts;
	for (int i = 0; i < seen.doubts; i++)
		ck_ok(sq_queue_settle(q, seen.doubt[i].id, seen.doubt[i].address, seen.doubt[i].accepted, "server log", c.now, &n, &err), err);
	connect_and_carry(&c, &log, scene, NEVER, NEVER, false, piece, NULL);
	look_at_all(q, ids, &after);
	ck_assert_int_eq(after.queued + after.doubts, 0);
	for (int m = 0; m < MESSAGES; m++)
		for (uint32_t r = 0; r < recipients[m]; r++) {
			bool refused = m == 1 && (scene == MAIL_REFUSED || (scene == RCPT_REFUSED && r == 0));

			ck_assert_msg(log.accepted[m][r] == !refused, "accepted %d times: message %d, recipient %u, up %d, down %d, %s", log.accepted[m][r],
				m, r, up, down, rst ? "RST" : "FIN");
		}
	ck_ok(sq_queue_batch_commit(q, &err), err);
	for (int m = 0; m < MESSAGES; m++)
		sq_buf_fini(&c.contents[m]);
	cases++;
}

static const struct { enum scene scene; size_t piece; } matrix[] = {
	{ GOOD, NEVER }, { MAIL_REFUSED, NEVER }, { RCPT_REFUSED, NEVER }, { GOOD, 33 }, { MAIL_REFUSED, 33 }, { RCPT_REFUSED, 33 },
};

/* SENDQ_CUTS_STEP=n takes every n-th octet (and both ends); 1, the default, all of them. */
START_TEST(every_octet)
{
	const char *step_text = getenv("SENDQ_CUTS_STEP");
	int step = step_text ? (int)strtol(step_text, NULL, 10) : 1, whole[2];
	enum scene scene = matrix[_i].scene;
	size_t piece = matrix[_i].piece;
	struct sq_queue *q;
	char path[256];

	test_path(path, "q");
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "/queue.db");
	ck_ok(sq_queue_open(path, SQ_QUEUE_RUN, &q, &err), err);
	cases = doubts = 0;
	one_case(q, scene, piece, NEVER, NEVER, false, whole);
	ck_assert_int_eq(doubts, 0);
	for (int way = 0; way < 2; way++)
		for (int k = 0; k <= whole[way]; k += step)
			for (int rst = 0; rst < 2; rst++)
				one_case(q, scene, piece, way == 0 ? k : NEVER, way == 1 ? k : NEVER, rst, NULL);
	sq_queue_close(q);
	ck_assert_int_gt(doubts, 0);
	printf("# %s, %s: %d cuts over %d octets up and %d down, %d recipients in doubt\n", scene_names[scene],
		piece == NEVER ? "whole" : "by pieces", cases, whole[0], whole[1], doubts);
	fflush(stdout);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("cuts_window");
	TCase *t = tcase_create("cuts");

	tcase_set_timeout(t, 600);
	tcase_add_loop_test(t, every_octet, 0, (int)SQ_LEN(matrix));
	suite_add_tcase(s, t);
	return test_main(s);
}
