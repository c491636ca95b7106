/*
 * The connection cut at every single octet, both ways, in one process: the
 * real session machine, the real queue and a model of a server that accepts
 * a message at the moment RFC 5321 says it does. Only the wire is replaced.
 *
 * A session carries two messages to two recipients each. For every K the wire
 * carries K octets in one direction and then breaks: by FIN (what the server
 * had answered still arrives) or by RST (it does not). Then:
 *
 *   evidence available: what is in doubt is settled by the server's own log,
 *     the rest is sent again: everything is accepted exactly once, always;
 *   evidence withheld: nothing in doubt moves by itself, nothing is accepted
 *     twice, and after `resend` by hand every second copy has its own row in
 *     the ledger (epoch 1).
 *
 * The matrix is {PIPELINING, CHUNKING} on/off. Prints the number of cases.
 */
#include "../unit/harness.h"

#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/queue.h>
#include <sendq/smtp.h>

enum { MESSAGES = 2, RECIPIENTS = 2, NEVER = 1 << 30 };

static const char *const content[MESSAGES] = {
	"Message-ID: <0.1@example.org>\r\nSubject: one\r\n\r\n.a dot line\r\nBDAT 3 LAST\r\n",
	"Message-ID: <1.2@example.org>\r\nSubject: two\r\n\r\nbody without end",
};

/* ---- the server: one connection's state, and a log that outlives it ---- */

struct log {
	int accepted[MESSAGES][RECIPIENTS];
};

struct server {
	bool pipelining, chunking;
	struct sq_buf in, out, body;
	struct log *log;
	bool rcpt[RECIPIENTS], mail, data;
	size_t bdat_left;
	bool bdat_open, bdat_last;
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
	v->mail = v->data = v->bdat_open = false;
	memset(v->rcpt, 0, sizeof(v->rcpt));
	sq_buf_clear(&v->body);
}

/* The instant of acceptance: it is in the log before the reply is even written. */
static void
accept_body(struct server *v)
{
	int m = v->body.n > 13 ? v->body.p[13] - '0' : -1;

	ck_assert_msg(m >= 0 && m < MESSAGES, "the server got something that is none of the messages");
	ck_assert_msg(v->body.n == strlen(content[m]) || (v->body.n == strlen(content[m]) + 2 && !v->chunking),
		"message %d arrived with %zu octets", m, v->body.n);
	ck_assert(memcmp(v->body.p, content[m], strlen(content[m])) == 0);
	for (int r = 0; r < RECIPIENTS; r++)
		v->log->accepted[m][r] += v->rcpt[r];
	forget(v);
	say(v, "250 2.0.0 accepted");
}

static void
on_line(struct server *v, const char *line)
{
	if (strncmp(line, "MAIL ", 5) == 0) {
		ck_assert_msg(!v->mail, "MAIL inside a transaction");
		v->mail = true;
		say(v, "250 2.1.0 sender");
	} else if (strncmp(line, "RCPT TO:<r", 10) == 0) {
		v->rcpt[line[10] - '0'] = true;
		say(v, "250 2.1.5 recipient");
	} else if (strcmp(line, "DATA") == 0) {
		v->data = true;
		say(v, "354 go on");
	} else if (strncmp(line, "BDAT ", 5) == 0) {
		v->bdat_left = (size_t)strtoul(line + 5, NULL, 10);
		v->bdat_last = strstr(line, " LAST") != NULL;
		v->bdat_open = true;
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
on_data_line(struct server *v, const char *line, size_t n)
{
	if (n == 1 && line[0] == '.') {
		accept_body(v);
		return;
	}
	if (n > 0 && line[0] == '.')
		line++, n--;
	sq_buf_add(&v->body, line, n);
	sq_buf_adds(&v->body, "\r\n");
}

/* Work through what has arrived. */
static void
serve(struct server *v)
{
	for (;;) {
		if (v->bdat_open) {
			size_t n = v->in.n < v->bdat_left ? v->in.n : v->bdat_left;

			sq_buf_add(&v->body, v->in.p, n);
			sq_buf_consume(&v->in, n);
			v->bdat_left -= n;
			if (v->bdat_left > 0)
				return;
			v->bdat_open = false;
			if (v->bdat_last)
				accept_body(v);
			else
				say(v, "250 2.0.0 chunk");
			continue;
		}
		char *end = v->in.n > 0 ? memmem(v->in.p, v->in.n, "\r\n", 2) : NULL;

		if (!end)
			return;
		size_t n = (size_t)(end - v->in.p);
		char line[256];

		ck_assert_uint_lt(n, sizeof(line));
		memcpy(line, v->in.p, n);
		line[n] = '\0';
		sq_buf_consume(&v->in, n + 2);
		if (v->data)
			on_data_line(v, line, n);
		else
			on_line(v, line);
	}
}

/* ---- the wire and the client ---- */

struct wire {
	struct server server;
	int to_server, to_client;    /* octets it will still carry */
	int carried_up, carried_down;
	bool rst, broken;
};

/* Carry octets up; what lies beyond the cut is lost, and so is the connection. */
static void
carry_up(struct wire *w, const char *p, size_t n)
{
	size_t fits = (size_t)w->to_server < n ? (size_t)w->to_server : n;

	if (w->broken)
		return;
	sq_buf_add(&w->server.in, p, fits);
	w->to_server -= (int)fits;
	w->carried_up += (int)fits;
	serve(&w->server);
	if (fits < n)
		w->broken = true;
}

/* What the client can read now: after RST nothing that was still on its way. */
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
	w->carried_down += (int)n;
	return n;
}

struct client {
	struct sq_queue *q;
	struct sq_work *work;
	struct sq_txn txn;
	struct sq_session s;
	int64_t now;
};

static struct sq_error err;

static bool
next_message(struct client *c)
{
	struct sq_candidate due;
	size_t n = 0;

	ck_ok(sq_queue_due(c->q, "home", c->now, &due, 1, &n, &err), err);
	if (n == 0)
		return false;
	ck_ok(sq_queue_claim(c->q, due.id, false, "", c->now, &c->work, &err), err);
	memset(&c->txn, 0, sizeof(c->txn));
	c->txn.size = c->work->size;
	c->txn.sender = sq_str(c->work->sender);
	c->txn.n_recipients = c->work->n_recipients;
	for (uint32_t i = 0; i < c->work->n_recipients; i++)
		c->txn.recipients[i] = (struct sq_txn_recipient){
			.id = c->work->recipients[i].id.v,
			.address = sq_str(c->work->recipients[i].address),
		};
	sq_session_begin(&c->s, &c->txn);
	return true;
}

static void
drop_work(struct client *c)
{
	sq_work_free(c->work);
	c->work = NULL;
}

static void
report_verdict(struct client *c)
{
	struct sq_verdict v = { .n_results = c->txn.n_recipients };
	int64_t next[SQ_GROUP_MAX];

	for (uint32_t i = 0; i < v.n_results; i++) {
		v.results[i] = c->s.results[i];
		next[i] = c->now;
	}
	ck_ok(sq_queue_verdict(c->q, c->work->attempt, &v, next, SQ_OUTCOME_ACCEPTED, c->now, &err), err);
	sq_session_reported(&c->s);
	drop_work(c);
}

static void
report_envelope(struct client *c)
{
	struct sq_envelope e = { .verb = c->s.bdat ? 'B' : 'D', .address = SQ_STR("wire"), .n_results = c->txn.n_recipients };

	for (uint32_t i = 0; i < e.n_results; i++)
		e.results[i] = c->s.results[i];
	ck_ok(sq_queue_envelope(c->q, c->work->attempt, &e, &(struct sq_said){ "", "" }, c->now, &err), err);
	sq_session_go(&c->s);
}

static void
report_loss(struct client *c)
{
	struct sq_attempt_end end = { .outcome = c->s.end.outcome, .phase = c->s.end.phase, .reply = c->s.end.reply,
		.next_try_ms = c->now, .counts = true };
	int doubt;

	if (!c->work)
		return;
	ck_ok(sq_queue_attempt_end(c->q, c->work->attempt, &end, c->now, &doubt, &err), err);
	ck_assert_msg((doubt > 0) == (c->s.end.outcome == SQ_OUTCOME_DOUBT), "the queue and the session differ about doubt");
	drop_work(c);
}

static void
feed_content(struct client *c)
{
	struct sq_buf piece = SQ_BUF_INIT(4096);
	uint64_t left = c->txn.size - c->s.content_at;

	ck_ok(sq_queue_read_content(c->q, c->work->id, c->s.content_at, left < 37 ? (size_t)left : 37, &piece, &err), err);
	sq_session_content(&c->s, (struct sq_str){ piece.p, piece.n });
	sq_buf_fini(&piece);
}

/* One connection, until it ends one way or the other. */
static void
session(struct client *c, struct wire *w, const struct sq_job *job)
{
	struct sq_ehlo ehlo = { .caps = SQ_CAP_ENHANCED | (w->server.pipelining ? SQ_CAP_PIPELINING : 0u) |
		(w->server.chunking ? SQ_CAP_CHUNKING : 0u) };
	static const uint8_t hash[MESSAGES][32] = { { 1 }, { 2 } };
	char octets[64];
	size_t n;

	ck_ok(sq_session_init(&c->s, &ehlo, job, &err), err);
	for (enum sq_want want; (want = sq_session_want(&c->s)) != SQ_WANT_NOTHING; ) {
		switch (want) {
		case SQ_WANT_SEND:
			n = c->s.out.n;
			carry_up(w, c->s.out.p, n);
			sq_session_sent(&c->s, n);
			break;
		case SQ_WANT_REPLY:
			n = carry_down(w, octets, sizeof(octets));
			if (n > 0)
				sq_session_receive(&c->s, octets, n);
			else if (w->broken)
				sq_session_lost(&c->s, SQ_OUTCOME_CUT, "connection reset by peer");
			else
				ck_abort_msg("client and server wait for each other in state %s", sq_session_fact(c->s.state)->name);
			break;
		case SQ_WANT_TXN:
			if (!next_message(c))
				sq_session_quit(&c->s);
			break;
		case SQ_WANT_ENVELOPE_GO:
			report_envelope(c);
			break;
		case SQ_WANT_CONTENT:
			feed_content(c);
			break;
		case SQ_WANT_DRAINED:
			sq_session_drained(&c->s);
			break;
		case SQ_WANT_TERMINATOR_GO:
			ck_ok(sq_queue_committing(c->q, c->work->attempt, hash[c->work->id.v & 1], c->now, &err), err);
			sq_session_go(&c->s);
			break;
		case SQ_WANT_VERDICT:
			report_verdict(c);
			break;
		case SQ_WANT_NOTHING:
			break;
		}
	}
	report_loss(c);
	sq_session_fini(&c->s);
}

static void
connect_and_carry(struct client *c, struct log *log, bool pipelining, bool chunking, int up, int down, bool rst, int carried[2])
{
	struct wire w = { .to_server = up, .to_client = down, .rst = rst, .server = { .pipelining = pipelining,
		.chunking = chunking, .log = log, .in = SQ_BUF_INIT(65536), .out = SQ_BUF_INIT(65536), .body = SQ_BUF_INIT(65536) } };
	struct sq_job job = { .bdat = SQ_FACT_UNKNOWN };

	session(c, &w, &job);
	if (carried) {
		carried[0] = w.carried_up;
		carried[1] = w.carried_down;
	}
	sq_buf_fini(&w.server.in);
	sq_buf_fini(&w.server.out);
	sq_buf_fini(&w.server.body);
}

/* ---- one case ---- */

static void
submit(struct sq_queue *q, int m, int64_t now)
{
	struct sq_new_recipient to[RECIPIENTS] = { { .address = SQ_STR("r0@example.net") }, { .address = SQ_STR("r1@example.net") } };
	struct sq_submission s = { .message_id = m == 0 ? SQ_STR("<0.1@example.org>") : SQ_STR("<1.2@example.org>"),
		.sender = SQ_STR("me@example.org"), .route = "home", .source = "argv", .submitted_ms = now, .expires_ms = now + 1000000,
		.recipients = to, .n_recipients = RECIPIENTS };
	struct sq_submitted done;
	struct sq_ingest *in;

	ck_ok(sq_ingest_begin(q, &in, &err), err);
	ck_ok(sq_ingest_write(in, content[m], strlen(content[m]), &err), err);
	ck_ok(sq_ingest_commit(in, &s, &done, &err), err);
}

struct doubtful { struct sq_message_id id; const char *address; int m, r; };
struct seen { struct doubtful doubt[MESSAGES * RECIPIENTS]; int n, queued; };

static bool
look(void *arg, const struct sq_message *m)
{
	struct seen *seen = arg;

	for (size_t i = 0; i < m->n_recipients; i++) {
		const struct sq_recipient *r = &m->recipients[i];

		seen->queued += r->state == SQ_STATE_QUEUED;
		ck_assert_msg(r->state != SQ_STATE_SENDING && r->state != SQ_STATE_COMMITTING, "left %s", sq_state_name(r->state));
		if (r->state == SQ_STATE_DOUBT)
			seen->doubt[seen->n++] = (struct doubtful){ m->id, r->address[1] == '0' ? "r0@example.net" : "r1@example.net",
				m->message_id[1] - '0', r->address[1] - '0' };
	}
	return true;
}

static bool
count_copies(void *arg, const struct sq_ledger_row *row)
{
	int (*rows)[RECIPIENTS] = arg;

	rows[row->message_id[1] - '0'][row->recipient[1] - '0']++;
	return true;
}

struct matrix { bool pipelining, chunking, evidence; };
static int cases, doubts;

static void
one_case(struct sq_queue *q, struct matrix x, int up, int down, bool rst, int carried[2])
{
	struct client c = { .q = q };
	struct log log = { 0 };
	struct seen seen = { 0 };
	int rows[MESSAGES][RECIPIENTS] = { 0 }, n;
	static int64_t clock = 1000000;

	c.now = clock += 10000000; /* another life: nothing of an earlier case is a duplicate of this one */
	ck_ok(sq_queue_batch_begin(q, false, &err), err);
	ck_ok(sq_queue_batch_commit(q, &err), err);
	for (int m = 0; m < MESSAGES; m++)
		submit(q, m, c.now);
	connect_and_carry(&c, &log, x.pipelining, x.chunking, up, down, rst, carried);
	ck_ok(sq_queue_list(q, false, look, &seen, &err), err);
	doubts += seen.n;
	if (x.evidence)
		for (int i = 0; i < seen.n; i++) {
			struct doubtful d = seen.doubt[i];

			ck_ok(sq_queue_settle(q, d.id, d.address, log.accepted[d.m][d.r] > 0, "server log", c.now, &n, &err), err);
		}
	connect_and_carry(&c, &log, x.pipelining, x.chunking, NEVER, NEVER, false, NULL);
	for (int m = 0; m < MESSAGES; m++)
		for (int r = 0; r < RECIPIENTS; r++)
			ck_assert_msg(x.evidence ? log.accepted[m][r] == 1 : log.accepted[m][r] <= 1,
				"accepted %d times: message %d, recipient %d, up %d, down %d, %s", log.accepted[m][r], m, r, up, down, rst ? "RST" : "FIN");

	struct seen after = { 0 };
	ck_ok(sq_queue_list(q, false, look, &after, &err), err);
	ck_assert_int_eq(after.queued, 0);
	ck_assert_int_eq(after.n, x.evidence ? 0 : seen.n); /* what is in doubt stays there by itself */
	for (int i = 0; i < after.n; i++)
		ck_ok(sq_queue_resend(q, after.doubt[i].id, after.doubt[i].address, c.now, &n, &err), err);
	connect_and_carry(&c, &log, x.pipelining, x.chunking, NEVER, NEVER, false, NULL);

	struct sq_ledger_filter since = { .since_ms = c.now };
	ck_ok(sq_queue_sent(q, &since, count_copies, rows, &err), err);
	for (int m = 0; m < MESSAGES; m++)
		for (int r = 0; r < RECIPIENTS; r++) {
			ck_assert_int_ge(log.accepted[m][r], 1);
			ck_assert_int_le(log.accepted[m][r], 2);
			ck_assert_int_eq(rows[m][r], 1); /* one acceptance was heard; a second copy only behind a resend */
			if (log.accepted[m][r] == 2)
				ck_assert_msg(!x.evidence, "a second copy although there was evidence");
		}
	cases++;
}

static const struct matrix matrix[] = {
	{ false, false, true }, { true, false, true }, { false, true, true }, { true, true, true },
	{ false, false, false }, { true, false, false }, { false, true, false }, { true, true, false },
};

/* SENDQ_CUTS_STEP=n takes every n-th octet (and both ends); 1, the default, all of them. */
START_TEST(every_octet)
{
	const char *step_text = getenv("SENDQ_CUTS_STEP");
	int step = step_text ? (int)strtol(step_text, NULL, 10) : 1, whole[2];
	struct sq_queue *q;
	char path[256];

	test_path(path, "q");
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "/queue.db");
	ck_ok(sq_queue_open(path, SQ_QUEUE_RUN, &q, &err), err);
	cases = doubts = 0;
	one_case(q, matrix[_i], NEVER, NEVER, false, whole);
	for (int way = 0; way < 2; way++)
		for (int k = 0; k <= whole[way]; k += step)
			for (int rst = 0; rst < 2; rst++)
				one_case(q, matrix[_i], way == 0 ? k : NEVER, way == 1 ? k : NEVER, rst, NULL);
	sq_queue_close(q);
	ck_assert_int_gt(doubts, 0);
	printf("# pipelining %d, chunking %d, evidence %d: %d cuts over %d octets up and %d down, %d recipients in doubt\n",
		matrix[_i].pipelining, matrix[_i].chunking, matrix[_i].evidence, cases, whole[0], whole[1], doubts);
	fflush(stdout);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("cuts");
	TCase *t = tcase_create("cuts");

	tcase_set_timeout(t, 600);
	tcase_add_loop_test(t, every_octet, 0, (int)SQ_LEN(matrix));
	suite_add_tcase(s, t);
	return test_main(s);
}
