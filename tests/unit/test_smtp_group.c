/*
 * A window of several messages by scripts: what the server says, what became
 * of every recipient, what is left of the session, and whether the server is
 * blamed. "lost" cuts the connection there, "closed" is the server's own doing.
 */
#include <sendq/smtp.h>

#include "harness.h"

#define LOST "lost"
#define CLOSED "closed"
#define OK "250 ok\r\n"
#define M2 OK OK OK          /* MAIL, one RCPT, BDAT */
#define N2 OK OK OK OK       /* RSET, MAIL, one RCPT, BDAT */
#define CAPS (SQ_CAP_PIPELINING | SQ_CAP_CHUNKING)

static const char content[] = "Subject: x\r\n\r\n.dot\r\nRSET\r\n";
enum { SIZE = sizeof(content) - 1, SCRIPT_MAX = 24, TEXT = 256 };

/*
 * `shape`: a digit a message, its recipients; an x behind it: with an address
 * that cannot be said. `says`: one entry each time replies are wanted.
 * `became`: messages parted by "|", a letter a recipient (A accepted,
 * D deferred, R refused, ? in doubt), "-": no verdict. `ends`: "idle", "rset",
 * or the outcome of the session that is over.
 */
static const struct row {
	const char *what, *shape;
	uint32_t rcpt_max;
	const char *says[SCRIPT_MAX];
	const char *became, *ends;
	bool blamed;
	size_t handed;             /* octets that are handed over before the first reply; 0: all */
} rows[] = {
	{ "all good", "11", 0, { M2 N2 }, "A|A", "idle", false, 0 },
	{ "all good, an octet at a time", "12", 0, { "2", "50 o", "k\r", "\n250 ok\r\n250", " ok\r\n", "250-a\r\n", "250 b\r\n", M2, OK }, "A|AA", "idle", false, 0 },
	{ "three, with three recipients", "131", 0, { M2, OK OK OK OK OK OK, N2 }, "A|AAA|A", "idle", false, 0 },
	{ "MAIL refused in the middle: the others have theirs", "111", 0, { M2 OK "550 5.7.1 no\r\n503 no mail\r\n503 no mail\r\n" N2 }, "A|R|A", "rset", false, 0 },
	{ "MAIL deferred at the front", "11", 0, { "451 4.3.0 later\r\n503 no\r\n503 no\r\n" N2 }, "D|A", "rset", false, 0 },
	{ "MAIL refused at the end", "11", 0, { M2 OK "552 5.3.4 too big\r\n503 no\r\n503 no\r\n" }, "A|R", "rset", false, 0 },
	{ "all RCPT refused", "121", 0, { M2 OK OK "550 5.1.1 no\r\n550 5.1.1 no\r\n" "503 no recipient\r\n" N2 }, "A|RR|A", "rset", false, 0 },
	{ "RCPT refused and deferred among good ones", "41", 0, { OK OK "550 no\r\n" "450 later\r\n" OK OK N2 }, "ARDA|A", "rset", false, 0 },
	{ "BDAT refused", "111", 0, { M2 OK OK OK "554 5.7.1 spam\r\n" N2 }, "A|R|A", "rset", false, 0 },
	{ "BDAT deferred", "11", 0, { OK OK "452 4.3.1 full\r\n" N2 }, "D|A", "rset", false, 0 },
	{ "everything refused", "11", 0, { "550 no\r\n503 no\r\n503 no\r\n" OK "550 no\r\n503 no\r\n503 no\r\n" }, "R|R", "rset", false, 0 },
	{ "BDAT accepted behind a refused MAIL: doubt, and the session is over", "111", 0, { M2 OK "503 sender already given\r\n" OK OK }, "A|?|-", "doubt", true, 0 },
	{ "the same with every RCPT refused too", "11", 0, { "550 no\r\n550 no\r\n" OK }, "?|-", "doubt", true, 0 },
	{ "BDAT accepted for nobody", "11", 0, { OK "550 no\r\n" OK N2 }, "R|A", "protocol", true, 0 },
	{ "RSET refused: the replies still count, and the server is blamed", "11", 0, { M2 "500 what?\r\n" OK OK OK }, "A|A", "protocol", true, 0 },
	{ "too many nonmail commands, and gone", "11", 0, { M2 "554 Too many nonmail commands\r\n", LOST }, "A|-", "doubt", true, 0 },
	{ "421 to the first MAIL: nothing behind it is accepted", "111", 0, { "421 4.3.2 bye\r\n" }, "D|D|D", "deferred", false, 0 },
	{ "421 to the first RCPT", "21", 0, { OK OK "421 bye\r\n" }, "DD|D", "deferred", false, 0 },
	{ "421 behind a refused RCPT, which stays refused", "31", 0, { OK "550 no\r\n" OK "421 bye\r\n" }, "RDD|D", "deferred", false, 0 },
	{ "421 to the first BDAT", "11", 0, { OK OK "421 bye\r\n" }, "D|D", "deferred", false, 0 },
	{ "421 to RSET: what was accepted stays accepted", "111", 0, { M2 "421 bye\r\n" }, "A|D|D", "deferred", false, 0 },
	{ "421 to the second MAIL", "11", 0, { M2 OK "421 bye\r\n" }, "A|D", "deferred", false, 0 },
	{ "421 to the second RCPT", "11", 0, { M2 OK OK "421 bye\r\n" }, "A|D", "deferred", false, 0 },
	{ "421 to the last BDAT", "11", 0, { M2 OK OK OK "421 bye\r\n" }, "A|D", "deferred", false, 0 },
	{ "421 when all is answered", "11", 0, { M2 N2 "421 bye\r\n" }, "A|A", "deferred", false, 0 },
	{ "421 behind a refused MAIL", "11", 0, { "550 no\r\n" "421 bye\r\n" }, "R|D", "deferred", false, 0 },
	{ "lost before any reply: all in doubt", "11", 0, { LOST }, "-|-", "doubt", false, 0 },
	{ "lost behind the first message", "111", 0, { M2, LOST }, "A|-|-", "doubt", false, 0 },
	{ "lost inside the last reply", "11", 0, { M2 OK OK OK "250 2.0.0 queu", LOST }, "A|-", "doubt", false, 0 },
	{ "lost behind the last reply: the verdicts stand", "11", 0, { M2 N2 }, "A|A", "idle", false, 0 },
	{ "lost behind a refused MAIL: doubt all the same", "11", 0, { "550 no\r\n", LOST }, "-|-", "doubt", false, 0 },
	{ "closed by the server in the middle: blamed", "11", 0, { M2, CLOSED }, "A|-", "doubt", true, 0 },
	{ "lost before the second was handed over whole: that one is certain", "11", 0, { LOST }, "-|D", "doubt", false, 150 },
	{ "lost before the first was handed over whole: nothing is in doubt", "11", 0, { LOST }, "D|D", "cut", false, 60 },
	{ "accepted before it was handed over whole: blamed, and not accepted", "11", 0, { OK OK OK, LOST }, "D|D", "protocol", true, 60 },
	{ "refused before it was handed over whole, and the rest goes out", "11", 0, { OK "550 no\r\n" "503 no\r\n", N2 }, "R|A", "rset", false, 60 },
	{ "354 to RCPT: it is out of step", "11", 0, { OK "354 go\r\n" }, "-|-", "doubt", true, 0 },
	{ "garbage", "11", 0, { M2 "hello?\r\n" }, "A|-", "doubt", true, 0 },
	{ "a reply too many, at once", "11", 0, { M2 N2 OK }, "A|A", "protocol", true, 0 },
	{ "one that cannot be said in SMTP is refused here, the others go", "11x1", 0, { M2 N2 }, "A|R|A", "idle", false, 0 },
	{ "none of them can be said: nothing is sent", "1x1x", 0, { NULL }, "R|R", "idle", false, 0 },
	{ "fewer recipients at once: the rest is for later", "31", 2, { OK OK OK OK N2 }, "AAD|A", "idle", false, 0 },
};

struct play {
	struct sq_session s;
	struct sq_group g;
	struct sq_buf sent;
	char became[SQ_TXN_OPEN_MAX][8];
	bool go, reported[SQ_TXN_OPEN_MAX];
	int at;
	size_t handed;
};

static void
say(struct play *p, const struct row *t)
{
	const char *octets = p->at < SCRIPT_MAX ? t->says[p->at] : NULL;

	ck_assert_msg(octets != NULL, "%s: waits for a reply and the script is over", t->what);
	p->at++;
	if (strcmp(octets, LOST) == 0 || strcmp(octets, CLOSED) == 0)
		sq_group_lost(&p->g, SQ_OUTCOME_CUT, "lost", strcmp(octets, CLOSED) == 0);
	else
		sq_group_receive(&p->g, octets, strlen(octets));
}

static void
note_verdict(struct play *p, uint32_t k)
{
	static const char letters[] = { [SQ_CLASS_ACCEPTED] = 'A', [SQ_CLASS_DEFERRED] = 'D', [SQ_CLASS_REFUSED] = 'R', [SQ_CLASS_DOUBT] = '?' };
	const struct sq_group_message *m = &p->g.messages[k];

	ck_assert_msg(!p->reported[k], "two verdicts of one message");
	p->reported[k] = true;
	for (uint32_t i = 0; i < m->txn->n_recipients; i++) {
		p->became[k][i] = letters[m->results[i].cls];
		ck_assert_int_eq(m->results[i].id, 1000 * (int64_t)k + i);
		ck_assert_uint_le(m->results[i].reply.text.n, SQ_REPLY_TEXT_MAX);
	}
	p->became[k][m->txn->n_recipients] = '\0';
}

/* What is handed over before the first reply. */
static void
hand_over(struct play *p, const struct row *t)
{
	size_t n = t->handed && p->handed < t->handed && p->at == 0 && p->g.out.n > t->handed - p->handed ? t->handed - p->handed : p->g.out.n;

	ck_assert(p->go);
	sq_group_offer(&p->g, n);
	sq_buf_add(&p->sent, p->g.out.p, n);
	p->handed += n;
	sq_group_sent(&p->g, n);
}

static void
play(struct play *p, const struct row *t)
{
	for (int step = 0; step < 1000; step++) {
		switch (sq_group_want(&p->g)) {
		case SQ_WANT_SEND:
			if (t->handed && p->handed == t->handed && p->at == 0)
				say(p, t);
			else
				hand_over(p, t);
			break;
		case SQ_WANT_REPLY:
			say(p, t);
			break;
		case SQ_WANT_TERMINATOR_GO:
			p->go = true;
			sq_group_go(&p->g);
			break;
		case SQ_WANT_VERDICT:
			note_verdict(p, sq_group_verdict(&p->g));
			sq_group_reported(&p->g);
			break;
		case SQ_WANT_NOTHING:
			return;
		case SQ_WANT_TXN:
		case SQ_WANT_ENVELOPE_GO:
		case SQ_WANT_CONTENT:
		case SQ_WANT_DRAINED:
			ck_abort_msg("%s: a window wants what only a session wants", t->what);
		}
	}
	ck_abort_msg("%s: does not end", t->what);
}

static struct sq_txn txns[SQ_TXN_OPEN_MAX];

static uint32_t
make(const char *shape, const struct sq_txn **list, struct sq_str *contents)
{
	uint32_t n = 0;

	for (; *shape; shape++, n++) {
		struct sq_txn *x = &txns[n];

		*x = (struct sq_txn){ .size = SIZE, .sender = SQ_STR("ann@example.org"), .n_recipients = (uint32_t)(*shape - '0') };
		for (uint32_t i = 0; i < x->n_recipients; i++)
			x->recipients[i] = (struct sq_txn_recipient){ .id = 1000 * (int64_t)n + i, .address = SQ_STR("bob@example.org") };
		if (shape[1] == 'x') {
			shape++;
			x->recipients[0].address = SQ_STR("bob@example.org> SIZE=1");
		}
		list[n] = x;
		contents[n] = (struct sq_str){ content, SIZE };
	}
	return n;
}

/* Every message but the first that is sent is behind a RSET, and each has its BDAT with its content. */
static void
check_sent(const struct play *p, const struct row *t, uint32_t n)
{
	struct sq_buf want = SQ_BUF_INIT(65536);

	for (uint32_t k = 0; k < n; k++) {
		const struct sq_group_message *m = &p->g.messages[k];

		if (m->end == 0)
			continue;
		sq_buf_adds(&want, want.n == 0 ? "MAIL FROM:<ann@example.org>\r\n" : "RSET\r\nMAIL FROM:<ann@example.org>\r\n");
		for (uint32_t i = 0; i < m->asked; i++)
			sq_buf_adds(&want, "RCPT TO:<bob@example.org>\r\n");
		sq_buf_addf(&want, "BDAT %d LAST\r\n%s", (int)SIZE, content);
	}
	ck_assert_msg(p->sent.n <= want.n && (p->sent.n == 0 || memcmp(p->sent.p, want.p, p->sent.n) == 0), "%s: sent other octets", t->what);
	ck_assert_msg(p->sent.n == want.n || p->s.state == SQ_SESSION_ENDED, "%s: not all was sent", t->what);
	sq_buf_fini(&want);
}

static const char *
end_of(const struct sq_session *s)
{
	return s->state == SQ_SESSION_ENDED ? sq_outcome_name(s->end.outcome) : sq_session_fact(s->state)->name;
}

static void
start(struct play *p, const char *shape, uint32_t rcpt_max, uint32_t *n)
{
	struct sq_ehlo ehlo = { .caps = CAPS, .rcpt_max = rcpt_max };
	const struct sq_txn *list[SQ_TXN_OPEN_MAX];
	struct sq_str contents[SQ_TXN_OPEN_MAX];
	struct sq_error err = { 0 };
	struct sq_job job = { 0 };

	memset(p, 0, sizeof(*p));
	p->sent = (struct sq_buf)SQ_BUF_INIT(65536);
	ck_ok(sq_session_init(&p->s, &ehlo, &job, &err), err);
	ck_assert(sq_group_may(&p->s));
	*n = make(shape, list, contents);
	ck_ok(sq_group_begin(&p->g, &p->s, list, contents, *n, &err), err);
}

static void
finish(struct play *p)
{
	sq_group_fini(&p->g);
	sq_session_fini(&p->s);
	sq_buf_fini(&p->sent);
}

START_TEST(script)
{
	const struct row *t = &rows[_i];
	static struct play p;
	struct sq_buf became = SQ_BUF_INIT(TEXT);
	uint32_t n;

	start(&p, t->shape, t->rcpt_max, &n);
	play(&p, t);
	ck_assert_msg(p.at >= SCRIPT_MAX || !t->says[p.at] || strcmp(t->says[p.at], LOST) == 0, "%s: the script is not over", t->what);
	for (uint32_t k = 0; k < n; k++) {
		sq_buf_adds(&became, k ? "|" : "");
		sq_buf_adds(&became, p.reported[k] ? p.became[k] : "-");
	}
	ck_assert_msg(strcmp(became.p, t->became) == 0, "%s: became %s, not %s", t->what, became.p, t->became);
	ck_assert_msg(strcmp(end_of(&p.s), t->ends) == 0, "%s: ends %s, not %s", t->what, end_of(&p.s), t->ends);
	ck_assert_msg((p.g.anomaly != NULL) == t->blamed, "%s: %s", t->what, p.g.anomaly ? p.g.anomaly : "nobody is blamed");
	check_sent(&p, t, n);
	sq_buf_fini(&became);
	finish(&p);
}
END_TEST

/* A 421 is the route's; those behind the one it answers are not to blame, and are due at once. */
START_TEST(behind_421)
{
	static struct play p;
	const struct sq_recipient_result *r;
	uint32_t n;

	start(&p, "111", 0, &n);
	sq_group_go(&p.g);
	sq_group_sent(&p.g, p.g.out.n);
	sq_group_receive(&p.g, "421 4.3.2 bye\r\n", 15);
	r = p.g.messages[0].results;
	ck_assert_int_eq(r->scope, SQ_SCOPE_ROUTE);
	ck_assert_int_eq(r->reply.code, 421);
	for (uint32_t k = 1; k < n; k++) {
		r = p.g.messages[k].results;
		ck_assert_int_eq(r->cls, SQ_CLASS_DEFERRED);
		ck_assert_int_eq(r->scope, SQ_SCOPE_MESSAGE);
		ck_assert_uint_eq(r->wait_s, 1);
	}
	finish(&p);
}
END_TEST

/* Replies that come before GO are no verdicts: nothing goes out, nothing is in doubt. */
static const struct early { const char *says, *ends; } early[] = {
	{ "421 4.4.2 idle for too long\r\n", "deferred" },
	{ OK, "protocol" },
	{ "what?\r\n", "protocol" },
	{ LOST, "cut" },
	{ CLOSED, "cut" },
};

START_TEST(before_go)
{
	const struct early *t = &early[_i];
	static struct play p;
	uint32_t n;

	start(&p, "12", 0, &n);
	ck_assert_int_eq(sq_group_want(&p.g), SQ_WANT_TERMINATOR_GO);
	if (strcmp(t->says, LOST) == 0 || strcmp(t->says, CLOSED) == 0)
		sq_group_lost(&p.g, SQ_OUTCOME_CUT, "lost", strcmp(t->says, CLOSED) == 0);
	else
		sq_group_receive(&p.g, t->says, strlen(t->says));
	sq_group_go(&p.g);
	for (uint32_t k = 0; k < n; k++) {
		ck_assert_int_eq(sq_group_want(&p.g), SQ_WANT_VERDICT);
		note_verdict(&p, sq_group_verdict(&p.g));
		sq_group_reported(&p.g);
	}
	ck_assert_int_eq(sq_group_want(&p.g), SQ_WANT_NOTHING);
	ck_assert_str_eq(p.became[0], "D");
	ck_assert_str_eq(p.became[1], "DD");
	ck_assert_str_eq(end_of(&p.s), t->ends);
	finish(&p);
}
END_TEST

/* Not on every session, and not with more than it holds. */
static const struct { const char *what; uint32_t caps; enum sq_fact bdat, pipelining; bool may; } sessions[] = {
	{ "both offered", CAPS, SQ_FACT_UNKNOWN, SQ_FACT_UNKNOWN, true },
	{ "no CHUNKING", SQ_CAP_PIPELINING, SQ_FACT_UNKNOWN, SQ_FACT_UNKNOWN, false },
	{ "no PIPELINING", SQ_CAP_CHUNKING, SQ_FACT_UNKNOWN, SQ_FACT_UNKNOWN, false },
	{ "with CHECKPOINT", CAPS | SQ_CAP_CHECKPOINT, SQ_FACT_UNKNOWN, SQ_FACT_UNKNOWN, false },
	{ "BDAT does harm here", CAPS, SQ_FACT_NO, SQ_FACT_UNKNOWN, false },
	{ "pipelining does harm here", CAPS, SQ_FACT_UNKNOWN, SQ_FACT_NO, false },
};

START_TEST(allowed)
{
	struct sq_ehlo ehlo = { .caps = sessions[_i].caps };
	struct sq_job job = { .bdat = sessions[_i].bdat, .pipelining = sessions[_i].pipelining };
	struct sq_error err = { 0 };
	struct sq_session s;

	ck_ok(sq_session_init(&s, &ehlo, &job, &err), err);
	ck_assert_msg(sq_group_may(&s) == sessions[_i].may, "%s", sessions[_i].what);
	sq_session_quit(&s);
	ck_assert(!sq_group_may(&s));
	sq_session_fini(&s);
}
END_TEST

START_TEST(limits)
{
	static char large[SQ_WINDOW_OCTETS];
	static struct sq_txn x[3];
	const struct sq_txn *list[3] = { &x[0], &x[1], &x[2] };
	struct sq_str contents[3] = { { large, sizeof(large) - 10 }, { large, 10 }, { large, 1 } };
	struct sq_ehlo ehlo = { .caps = CAPS };
	struct sq_error err = { 0 };
	struct sq_job job = { 0 };
	struct sq_group g = { 0 };
	struct sq_session s;

	ck_ok(sq_session_init(&s, &ehlo, &job, &err), err);
	for (int k = 0; k < 3; k++) {
		x[k] = (struct sq_txn){ .size = contents[k].n, .sender = SQ_STR("a@b"), .n_recipients = SQ_GROUP_MAX };
		for (uint32_t i = 0; i < SQ_GROUP_MAX; i++)
			x[k].recipients[i].address = SQ_STR("b@c");
	}
	ck_ok(sq_group_begin(&g, &s, list, contents, 2, &err), err); /* just as much */
	ck_assert_int_eq(sq_group_begin(&g, &s, list, contents, 3, &err), SQ_ELIMIT); /* octets and recipients too many */
	for (int k = 0; k < 3; k++)
		x[k].n_recipients = 1;
	ck_assert_int_eq(sq_group_begin(&g, &s, list, contents, 3, &err), SQ_ELIMIT); /* an octet too many */
	x[0].n_recipients = x[1].n_recipients = SQ_GROUP_MAX;
	contents[2] = (struct sq_str){ large, 0 };
	x[2].size = 0;
	ck_assert_int_eq(sq_group_begin(&g, &s, list, contents, 3, &err), SQ_ELIMIT); /* a recipient too many */
	contents[1].n = 9;
	ck_assert_int_eq(sq_group_begin(&g, &s, list, contents, 2, &err), SQ_ELIMIT); /* content that is not whole */
	ck_assert_int_eq(sq_group_begin(&g, &s, list, contents, 0, &err), SQ_ELIMIT);
	ck_assert(sq_group_may(&s));
	sq_group_fini(&g);
	sq_session_fini(&s);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("smtp_group");
	TCase *t = tcase_create("scripts");

	tcase_add_loop_test(t, script, 0, SQ_LEN(rows));
	tcase_add_loop_test(t, before_go, 0, SQ_LEN(early));
	tcase_add_loop_test(t, allowed, 0, SQ_LEN(sessions));
	tcase_add_test(t, limits);
	tcase_add_test(t, behind_421);
	suite_add_tcase(s, t);
	return test_main(s);
}
