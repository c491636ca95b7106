/*
 * The session machine by scripts: what the server says, step by step, and
 * what became of every recipient. "lost" breaks the connection there.
 */
#include <sendq/smtp.h>

#include "harness.h"

#define P SQ_CAP_PIPELINING
#define C SQ_CAP_CHUNKING
#define LOST "lost"

static const char content[] = "Subject: x\r\n\r\n.dot\r\n";
enum { SIZE = sizeof(content) - 1, SCRIPT_MAX = 12 };

/*
 * `says`: one entry each time a reply is wanted; several replies may stand in
 * one. `became`: a letter a recipient (A accepted, D deferred, R refused, ? in
 * doubt), "-": the session ended without a verdict.
 */
static const struct row {
	const char *what;
	uint32_t caps, flags, n;
	uint64_t limit;
	const char *says[SCRIPT_MAX];
	const char *became;
	enum sq_outcome ended;     /* of the session: ACCEPTED: an orderly end */
	const char *sent, *not_sent;
} rows[] = {
	{ "DATA, step by step", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 2.0.0 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "..dot\r\n.\r\n", "BDAT" },
	{ "BDAT, small commit", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "BDAT 0 LAST\r\n", "DATA\r\n" },
	{ "pipelined envelope", P, 0, 2, 0, { "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", "250 queued\r\n", "221 bye\r\n" }, "AA", SQ_OUTCOME_ACCEPTED, NULL, NULL },
	{ "one refused among good ones", P | C, 0, 3, 0, { "250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "ARA", SQ_OUTCOME_ACCEPTED, NULL, NULL },
	{ "greylisted among good ones", 0, 0, 2, 0, { "250 ok\r\n", "450 4.7.1 later\r\n", "250 ok\r\n", "354 go\r\n", "250 queued\r\n", "221 bye\r\n" }, "DA", SQ_OUTCOME_ACCEPTED, NULL, NULL },
	{ "all refused: no content", 0, 0, 2, 0, { "250 ok\r\n", "550 no\r\n", "550 no\r\n", "250 reset\r\n", "221 bye\r\n" }, "RR", SQ_OUTCOME_ACCEPTED, "RSET", "dot" },
	{ "all refused and pipelined DATA got 354: a lone dot", P, 0, 1, 0, { "250 ok\r\n550 no\r\n354 go\r\n", "554 no recipients\r\n", "250 reset\r\n", "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, "\r\n.\r\n", "dot" },
	{ "a lone dot that is accepted: nothing was", P, 0, 1, 0, { "250 ok\r\n550 no\r\n354 go\r\n", "250 queued\r\n", "250 reset\r\n", "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "dot" },
	{ "MAIL refused", 0, 0, 2, 0, { "550 5.7.1 no\r\n", "250 reset\r\n", "221 bye\r\n" }, "RR", SQ_OUTCOME_ACCEPTED, NULL, "RCPT" },
	{ "DATA deferred", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "451 later\r\n", "250 reset\r\n", "221 bye\r\n" }, "D", SQ_OUTCOME_ACCEPTED, NULL, "dot" },
	{ "a chunk refused", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "552 5.3.4 too big\r\n", "250 reset\r\n", "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "LAST" },
	{ "the verdict is a refusal", 0, 0, 2, 0, { "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "554 5.7.1 spam\r\n", "250 reset\r\n", "221 bye\r\n" }, "RR", SQ_OUTCOME_ACCEPTED, NULL, NULL },
	{ "421 in place of the verdict is no acceptance", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "421 4.3.2 bye\r\n" }, "D", SQ_OUTCOME_DEFERRED, NULL, NULL },
	{ "421 to MAIL", 0, 0, 1, 0, { "421 busy\r\n" }, "D", SQ_OUTCOME_DEFERRED, NULL, "RCPT" },
	{ "lost before MAIL's reply", 0, 0, 1, 0, { LOST }, "-", SQ_OUTCOME_CUT, NULL, NULL },
	{ "lost before RCPT's reply", 0, 0, 1, 0, { "250 ok\r\n", LOST }, "-", SQ_OUTCOME_CUT, NULL, NULL },
	{ "lost before 354", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", LOST }, "-", SQ_OUTCOME_CUT, NULL, "dot" },
	{ "lost before a chunk's reply", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", LOST }, "-", SQ_OUTCOME_CUT, NULL, "LAST" },
	{ "lost after the dot: doubt", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", LOST }, "-", SQ_OUTCOME_DOUBT, "\r\n.\r\n", NULL },
	{ "lost after BDAT LAST: doubt", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "250 chunk\r\n", LOST }, "-", SQ_OUTCOME_DOUBT, "BDAT 0 LAST", NULL },
	{ "a verdict without its line end is none", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 2.0.0 Ok: queued", LOST }, "-", SQ_OUTCOME_DOUBT, NULL, NULL },
	{ "a verdict in two pieces is one", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "25", "0 ok\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, NULL, NULL },
	{ "lost before QUIT's reply: the verdict stands", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n", LOST }, "A", SQ_OUTCOME_ACCEPTED, NULL, NULL },
	{ "garbage", 0, 0, 1, 0, { "what?\r\n" }, "-", SQ_OUTCOME_PROTOCOL, NULL, NULL },
	{ "garbage in place of the verdict is doubt", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "what?\r\n" }, "-", SQ_OUTCOME_DOUBT, NULL, NULL },
	{ "larger than the server takes", SQ_CAP_SIZE, 0, 1, 10, { "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "MAIL" },
	{ "8-bit for a server without 8BITMIME", 0, SQ_TXN_8BIT, 1, 0, { "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "MAIL" },
	{ "8-bit for one with it", SQ_CAP_8BITMIME, SQ_TXN_8BIT, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "BODY=8BITMIME", NULL },
	{ "UTF-8 addresses for a server without SMTPUTF8", SQ_CAP_8BITMIME, SQ_TXN_SMTPUTF8, 1, 0, { "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "MAIL" },
	{ "too many recipients: the rest goes later", 0, 0, 2, 0, { "250 ok\r\n", "250 ok\r\n", "452 4.5.3 too many\r\n", "354 go\r\n", "250 ok\r\n", "221 bye\r\n" }, "AD", SQ_OUTCOME_ACCEPTED, NULL, NULL },
};

struct play { struct sq_session s; struct sq_buf sent; char became[8]; bool go; int at; };

static void
say(struct play *p, const struct row *t)
{
	const char *octets = p->at < SCRIPT_MAX ? t->says[p->at] : NULL;

	ck_assert_msg(octets != NULL, "%s: waits for a reply in state %s and the script is over", t->what, sq_session_fact(p->s.state)->name);
	p->at++;
	if (strcmp(octets, LOST) == 0)
		sq_session_lost(&p->s, SQ_OUTCOME_CUT, "lost");
	else
		sq_session_receive(&p->s, octets, strlen(octets));
}

static void
note_verdict(struct play *p, const struct row *t)
{
	static const char letters[] = { [SQ_CLASS_ACCEPTED] = 'A', [SQ_CLASS_DEFERRED] = 'D', [SQ_CLASS_REFUSED] = 'R', [SQ_CLASS_DOUBT] = '?' };

	for (uint32_t i = 0; i < t->n; i++) {
		p->became[i] = letters[p->s.results[i].cls];
		ck_assert_int_eq(p->s.results[i].id, 100 + i);
	}
	p->became[t->n] = '\0';
}

static void
play(struct play *p, const struct row *t)
{
	static struct sq_txn txn;
	bool begun = false;

	txn = (struct sq_txn){ .size = SIZE, .sender = SQ_STR("ann@example.org"), .flags = t->flags, .n_recipients = t->n };
	for (uint32_t i = 0; i < t->n; i++)
		txn.recipients[i] = (struct sq_txn_recipient){ .id = 100 + i, .address = SQ_STR("bob@example.org") };
	for (int step = 0; step < 1000; step++) {
		switch (sq_session_want(&p->s)) {
		case SQ_WANT_SEND:
			ck_assert(p->s.state != SQ_SESSION_TERMINATOR || p->go);
			sq_buf_add(&p->sent, p->s.out.p, p->s.out.n);
			sq_session_sent(&p->s, p->s.out.n);
			break;
		case SQ_WANT_REPLY:
			say(p, t);
			break;
		case SQ_WANT_TXN:
			begun ? sq_session_quit(&p->s) : sq_session_begin(&p->s, &txn);
			begun = true;
			break;
		case SQ_WANT_ENVELOPE_GO:
			sq_session_go(&p->s);
			break;
		case SQ_WANT_TERMINATOR_GO:
			p->go = true;
			sq_session_go(&p->s);
			break;
		case SQ_WANT_CONTENT:
			sq_session_content(&p->s, (struct sq_str){ content + p->s.content_at, SIZE - (size_t)p->s.content_at });
			break;
		case SQ_WANT_DRAINED:
			sq_session_drained(&p->s);
			break;
		case SQ_WANT_VERDICT:
			note_verdict(p, t);
			sq_session_reported(&p->s);
			break;
		case SQ_WANT_NOTHING:
			return;
		}
	}
	ck_abort_msg("%s: does not end", t->what);
}

START_TEST(script)
{
	const struct row *t = &rows[_i];
	struct sq_ehlo ehlo = { .caps = t->caps, .size_limit = t->limit };
	struct sq_job job = { 0 };
	struct play p = { .sent = SQ_BUF_INIT(65536), .became = "-" };
	struct sq_error err = { 0 };
	struct sq_str sent = { 0 };

	ck_ok(sq_session_init(&p.s, &ehlo, &job, &err), err);
	play(&p, t);
	ck_ok(sq_buf_view(&p.sent, &sent, &err), err);
	ck_assert_msg(strcmp(p.became, t->became) == 0, "%s: became %s, not %s", t->what, p.became, t->became);
	ck_assert_msg(p.s.end.outcome == t->ended, "%s: ended %s", t->what, sq_outcome_name(p.s.end.outcome));
	if (t->sent)
		ck_assert_msg(memmem(sent.p, sent.n, t->sent, strlen(t->sent)), "%s: '%s' was not sent", t->what, t->sent);
	if (t->not_sent && sent.n > 0)
		ck_assert_msg(!memmem(sent.p, sent.n, t->not_sent, strlen(t->not_sent)), "%s: '%s' was sent", t->what, t->not_sent);
	sq_session_fini(&p.s);
	sq_buf_fini(&p.sent);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("smtp_session");
	TCase *t = tcase_create("scripts");

	tcase_add_loop_test(t, script, 0, SQ_LEN(rows));
	suite_add_tcase(s, t);
	return test_main(s);
}
