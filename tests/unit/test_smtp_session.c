/*
 * The session machine by scripts: what the server says, step by step, and
 * what became of every recipient. "lost" breaks the connection there.
 */
#include <sendq/smtp.h>

#include "harness.h"

#define P SQ_CAP_PIPELINING
#define C SQ_CAP_CHUNKING
#define K SQ_CAP_CHECKPOINT
#define LOST "lost"
#define TID "<0a.e0@q.invalid>"

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
	/* CHECKPOINT: how the transaction was begun before, and what becomes of the TRANSID */
	struct { bool resume, doubt, retained, forgotten, mismatch; uint8_t verb; const char *promises, *promised; } cp;
} rows[] = {
	{ "DATA, step by step", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 2.0.0 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "..dot\r\n.\r\n", "BDAT", { 0 } },
	{ "BDAT, small commit", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "BDAT 0 LAST\r\n", "DATA\r\n", { 0 } },
	{ "pipelined envelope", P, 0, 2, 0, { "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", "250 queued\r\n", "221 bye\r\n" }, "AA", SQ_OUTCOME_ACCEPTED, NULL, NULL, { 0 } },
	{ "one refused among good ones", P | C, 0, 3, 0, { "250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "ARA", SQ_OUTCOME_ACCEPTED, NULL, NULL, { 0 } },
	{ "greylisted among good ones", 0, 0, 2, 0, { "250 ok\r\n", "450 4.7.1 later\r\n", "250 ok\r\n", "354 go\r\n", "250 queued\r\n", "221 bye\r\n" }, "DA", SQ_OUTCOME_ACCEPTED, NULL, NULL, { 0 } },
	{ "all refused: no content", 0, 0, 2, 0, { "250 ok\r\n", "550 no\r\n", "550 no\r\n", "250 reset\r\n", "221 bye\r\n" }, "RR", SQ_OUTCOME_ACCEPTED, "RSET", "dot", { 0 } },
	{ "all refused and pipelined DATA got 354: a lone dot", P, 0, 1, 0, { "250 ok\r\n550 no\r\n354 go\r\n", "554 no recipients\r\n", "250 reset\r\n", "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, "\r\n.\r\n", "dot", { 0 } },
	{ "a lone dot that is accepted: nothing was", P, 0, 1, 0, { "250 ok\r\n550 no\r\n354 go\r\n", "250 queued\r\n", "250 reset\r\n", "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "dot", { 0 } },
	{ "MAIL refused", 0, 0, 2, 0, { "550 5.7.1 no\r\n", "250 reset\r\n", "221 bye\r\n" }, "RR", SQ_OUTCOME_ACCEPTED, NULL, "RCPT", { 0 } },
	{ "DATA deferred", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "451 later\r\n", "250 reset\r\n", "221 bye\r\n" }, "D", SQ_OUTCOME_ACCEPTED, NULL, "dot", { 0 } },
	{ "a chunk refused", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "552 5.3.4 too big\r\n", "250 reset\r\n", "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "LAST", { 0 } },
	{ "the verdict is a refusal", 0, 0, 2, 0, { "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "554 5.7.1 spam\r\n", "250 reset\r\n", "221 bye\r\n" }, "RR", SQ_OUTCOME_ACCEPTED, NULL, NULL, { 0 } },
	{ "421 in place of the verdict is no acceptance", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "421 4.3.2 bye\r\n" }, "D", SQ_OUTCOME_DEFERRED, NULL, NULL, { 0 } },
	{ "421 to MAIL", 0, 0, 1, 0, { "421 busy\r\n" }, "D", SQ_OUTCOME_DEFERRED, NULL, "RCPT", { 0 } },
	{ "lost before MAIL's reply", 0, 0, 1, 0, { LOST }, "-", SQ_OUTCOME_CUT, NULL, NULL, { 0 } },
	{ "lost before RCPT's reply", 0, 0, 1, 0, { "250 ok\r\n", LOST }, "-", SQ_OUTCOME_CUT, NULL, NULL, { 0 } },
	{ "lost before 354", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", LOST }, "-", SQ_OUTCOME_CUT, NULL, "dot", { 0 } },
	{ "lost before a chunk's reply", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", LOST }, "-", SQ_OUTCOME_CUT, NULL, "LAST", { 0 } },
	{ "lost after the dot: doubt", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", LOST }, "-", SQ_OUTCOME_DOUBT, "\r\n.\r\n", NULL, { 0 } },
	{ "lost after BDAT LAST: doubt", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "250 chunk\r\n", LOST }, "-", SQ_OUTCOME_DOUBT, "BDAT 0 LAST", NULL, { 0 } },
	{ "a verdict without its line end is none", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 2.0.0 Ok: queued", LOST }, "-", SQ_OUTCOME_DOUBT, NULL, NULL, { 0 } },
	{ "a verdict in two pieces is one", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "25", "0 ok\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, NULL, NULL, { 0 } },
	{ "lost before QUIT's reply: the verdict stands", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n", LOST }, "A", SQ_OUTCOME_ACCEPTED, NULL, NULL, { 0 } },
	{ "garbage", 0, 0, 1, 0, { "what?\r\n" }, "-", SQ_OUTCOME_PROTOCOL, NULL, NULL, { 0 } },
	{ "garbage in place of the verdict is doubt", 0, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "what?\r\n" }, "-", SQ_OUTCOME_DOUBT, NULL, NULL, { 0 } },
	{ "larger than the server takes", SQ_CAP_SIZE, 0, 1, 10, { "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "MAIL", { 0 } },
	{ "8-bit for a server without 8BITMIME", 0, SQ_TXN_8BIT, 1, 0, { "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "MAIL", { 0 } },
	{ "8-bit for one with it", SQ_CAP_8BITMIME, SQ_TXN_8BIT, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "BODY=8BITMIME", NULL, { 0 } },
	{ "UTF-8 addresses for a server without SMTPUTF8", SQ_CAP_8BITMIME, SQ_TXN_SMTPUTF8, 1, 0, { "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, "MAIL", { 0 } },
	{ "CHECKPOINT: a new transfer has a TRANSID", K | P | C, 0, 1, 0, { "250 ok\r\n250 ok\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, " TRANSID=" TID "\r\nRCPT", NULL, { 0 } },
	{ "CHECKPOINT: resumed with BDAT in the middle of a line", K | P | C, 0, 2, 0, { "355 5 go on\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "AA", SQ_OUTCOME_ACCEPTED, "TRANSID=" TID "\r\nBDAT 15\r\nct: x", "RCPT", { .resume = true, .verb = 'B' } },
	{ "CHECKPOINT: resumed with DATA", K | P | C, 0, 1, 0, { "355 12\r\n", "354 go\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "DATA\r\n\r\n..dot\r\n.\r\n", "BDAT", { .resume = true, .verb = 'D' } },
	{ "CHECKPOINT: resumed at 0 there are no RCPTs", K | C, 0, 1, 0, { "355 0\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "BDAT 20\r\n", "RCPT", { .resume = true, .verb = 'B' } },
	{ "CHECKPOINT: the server has forgotten: anew, with the same TRANSID", K | P | C, 0, 2, 0, { "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "AA", SQ_OUTCOME_ACCEPTED, "RCPT", NULL, { .resume = true, .verb = 'B' } },
	{ "CHECKPOINT: in use: later, and the state is kept", K | C, 0, 1, 0, { "450 4.4.5 in use\r\n" }, "D", SQ_OUTCOME_ACCEPTED, NULL, "RSET", { .resume = true, .verb = 'B' } },
	{ "CHECKPOINT: TRANSID not understood any more: another", K | C, 0, 1, 0, { "501 5.5.4 what\r\n", "250 reset\r\n", "221 bye\r\n" }, "D", SQ_OUTCOME_ACCEPTED, NULL, NULL, { .resume = true, .verb = 'B', .forgotten = true } },
	{ "CHECKPOINT: an offset beyond the message: another", K | C, 0, 1, 0, { "355 21\r\n", "250 reset\r\n", "221 bye\r\n" }, "D", SQ_OUTCOME_ACCEPTED, "RSET", "BDAT", { .resume = true, .verb = 'B', .forgotten = true } },
	{ "CHECKPOINT: 355 without a number: another", K | C, 0, 1, 0, { "355 go on\r\n", "250 reset\r\n", "221 bye\r\n" }, "D", SQ_OUTCOME_ACCEPTED, "RSET", "BDAT", { .resume = true, .verb = 'B', .forgotten = true } },
	{ "CHECKPOINT: other octets than ours: another", K | C, 0, 1, 0, { "355 5\r\n", "250 reset\r\n", "221 bye\r\n" }, "D", SQ_OUTCOME_ACCEPTED, "RSET", "BDAT", { .resume = true, .verb = 'B', .forgotten = true, .mismatch = true } },
	{ "CHECKPOINT: other octets than ours behind 354: only an end helps", K, 0, 1, 0, { "355 12\r\n", "354 go\r\n" }, "D", SQ_OUTCOME_ACCEPTED, "DATA", "RSET", { .resume = true, .verb = 'D', .forgotten = true, .mismatch = true } },
	{ "CHECKPOINT: 4yz to the whole: closed, so that it is kept", K | C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "250 chunk\r\n", "451 4.3.0 backend\r\n" }, "D", SQ_OUTCOME_ACCEPTED, NULL, "RSET", { 0 } },
	{ "CHECKPOINT: 4yz to a chunk: closed, so that it is kept", K | C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "452 4.3.1 full\r\n" }, "D", SQ_OUTCOME_ACCEPTED, NULL, "RSET", { 0 } },
	{ "CHECKPOINT: 5yz to the whole is the end", K | C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "250 chunk\r\n", "554 no\r\n", "250 reset\r\n", "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, "RSET", NULL, { 0 } },
	{ "CHECKPOINT: offered and yet not understood: without, the next time", K | P | C, 0, 1, 0, { "555 5.5.4 what\r\n503 no\r\n", "250 reset\r\n", "221 bye\r\n" }, "D", SQ_OUTCOME_ACCEPTED, "RSET", NULL, { .forgotten = true } },
	{ "CHECKPOINT: not offered any more: the ordinary way", C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "RCPT", "TRANSID", { .resume = true, .verb = 'B' } },
	{ "CHECKPOINT: BDAT not offered any more: the ordinary way", K, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "DATA", "TRANSID", { .resume = true, .verb = 'B' } },
	{ "doubt: all is there and accepted", K | P | C, 0, 2, 0, { "355 20\r\n", "250 queued\r\n", "221 bye\r\n" }, "AA", SQ_OUTCOME_ACCEPTED, "BDAT 0 LAST\r\n", "RCPT", { .doubt = true, .verb = 'B' } },
	{ "doubt: all is there by DATA", K, 0, 1, 0, { "355 20\r\n", "354 go\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "DATA\r\n.\r\n", "dot", { .doubt = true, .verb = 'D' } },
	{ "doubt: all is there and refused", K | C, 0, 1, 0, { "355 20\r\n", "554 no\r\n", "250 reset\r\n", "221 bye\r\n" }, "R", SQ_OUTCOME_ACCEPTED, NULL, NULL, { .doubt = true, .verb = 'B' } },
	{ "doubt: all is there and deferred", K | C, 0, 1, 0, { "355 20\r\n", "451 later\r\n" }, "D", SQ_OUTCOME_ACCEPTED, NULL, "RSET", { .doubt = true, .verb = 'B' } },
	{ "doubt: a part is there: not accepted, it goes on", K | C, 0, 1, 0, { "355 5\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "BDAT 15\r\n", "RCPT", { .doubt = true, .verb = 'B' } },
	{ "doubt: nothing is known, and nothing was promised", K | C, 0, 1, 0, { "250 ok\r\n", "250 reset\r\n", "221 bye\r\n" }, "?", SQ_OUTCOME_ACCEPTED, "RSET", "RCPT", { .doubt = true, .verb = 'B', .forgotten = true } },
	{ "doubt: nothing is known, and this store would know: not accepted", K | C, 0, 1, 0, { "250 ok\r\n", "250 ok\r\n", "250 chunk\r\n", "250 queued\r\n", "221 bye\r\n" }, "A", SQ_OUTCOME_ACCEPTED, "RCPT", "RSET", { .doubt = true, .verb = 'B', .retained = true, .promises = "s1", .promised = "s1" } },
	{ "doubt: nothing is known to another store", K | C, 0, 1, 0, { "250 ok\r\n", "250 reset\r\n", "221 bye\r\n" }, "?", SQ_OUTCOME_ACCEPTED, NULL, "RCPT", { .doubt = true, .verb = 'B', .retained = true, .promises = "s2", .promised = "s1", .forgotten = true } },
	{ "doubt: nothing is known, and the promise is over", K | C, 0, 1, 0, { "250 ok\r\n", "250 reset\r\n", "221 bye\r\n" }, "?", SQ_OUTCOME_ACCEPTED, NULL, "RCPT", { .doubt = true, .verb = 'B', .promises = "s1", .promised = "s1", .forgotten = true } },
	{ "doubt: in use: still in doubt", K | C, 0, 1, 0, { "450 in use\r\n" }, "?", SQ_OUTCOME_ACCEPTED, NULL, "RSET", { .doubt = true, .verb = 'B' } },
	{ "doubt: TRANSID not understood: still in doubt", K | C, 0, 1, 0, { "555 what\r\n", "250 reset\r\n", "221 bye\r\n" }, "?", SQ_OUTCOME_ACCEPTED, NULL, "RCPT", { .doubt = true, .verb = 'B', .forgotten = true } },
	{ "doubt: 421 to MAIL is no verdict", K | C, 0, 1, 0, { "421 4.3.2 busy\r\n" }, "?", SQ_OUTCOME_DEFERRED, NULL, NULL, { .doubt = true, .verb = 'B' } },
	{ "doubt: 421 to DATA is no verdict", K, 0, 1, 0, { "355 20\r\n", "421 4.3.2 busy\r\n" }, "?", SQ_OUTCOME_DEFERRED, NULL, NULL, { .doubt = true, .verb = 'D' } },
	{ "doubt: 5yz to DATA is no verdict", K, 0, 1, 0, { "355 20\r\n", "554 no\r\n", "250 reset\r\n", "221 bye\r\n" }, "?", SQ_OUTCOME_ACCEPTED, NULL, NULL, { .doubt = true, .verb = 'D', .forgotten = true } },
	{ "doubt: not offered any more: still in doubt", C, 0, 1, 0, { "221 bye\r\n" }, "?", SQ_OUTCOME_ACCEPTED, NULL, "MAIL", { .doubt = true, .verb = 'B', .forgotten = true } },
	{ "doubt: too large now: still in doubt", K | C | SQ_CAP_SIZE, 0, 1, 10, { "221 bye\r\n" }, "?", SQ_OUTCOME_ACCEPTED, NULL, "MAIL", { .doubt = true, .verb = 'B' } },
	{ "doubt: other octets than ours: still in doubt", K | C, 0, 1, 0, { "355 20\r\n", "250 reset\r\n", "221 bye\r\n" }, "?", SQ_OUTCOME_ACCEPTED, NULL, "LAST", { .doubt = true, .verb = 'B', .forgotten = true, .mismatch = true } },
	{ "doubt: lost again", K | C, 0, 1, 0, { "355 20\r\n", LOST }, "-", SQ_OUTCOME_DOUBT, NULL, NULL, { .doubt = true, .verb = 'B' } },
	{ "too many recipients: the rest goes later", 0, 0, 2, 0, { "250 ok\r\n", "250 ok\r\n", "452 4.5.3 too many\r\n", "354 go\r\n", "250 ok\r\n", "221 bye\r\n" }, "AD", SQ_OUTCOME_ACCEPTED, NULL, NULL, { 0 } },
};

struct play { struct sq_session s; struct sq_buf sent; char became[8]; bool go, forgotten; int at; };

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
	p->forgotten = p->s.forget;
}

static void
play(struct play *p, const struct row *t)
{
	static struct sq_txn txn;
	bool begun = false;

	txn = (struct sq_txn){ .size = SIZE, .sender = SQ_STR("ann@example.org"), .flags = t->flags, .n_recipients = t->n };
	txn.transid = SQ_STR(TID);
	txn.flags |= t->cp.doubt ? SQ_TXN_DOUBT : 0;
	txn.resume = t->cp.resume || t->cp.doubt;
	txn.retained = t->cp.retained;
	txn.verb = t->cp.verb;
	txn.store = sq_str(t->cp.promised);
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
			t->cp.mismatch ? sq_session_mismatch(&p->s, "not ours") : sq_session_go(&p->s);
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

	if (t->cp.promises)
		snprintf(ehlo.store, sizeof(ehlo.store), "%s", t->cp.promises);
	ck_ok(sq_session_init(&p.s, &ehlo, &job, &err), err);
	play(&p, t);
	ck_ok(sq_buf_view(&p.sent, &sent, &err), err);
	ck_assert_msg(strcmp(p.became, t->became) == 0, "%s: became %s, not %s", t->what, p.became, t->became);
	ck_assert_msg(p.s.end.outcome == t->ended, "%s: ended %s", t->what, sq_outcome_name(p.s.end.outcome));
	ck_assert_msg(p.forgotten == t->cp.forgotten, "%s: the TRANSID is %s", t->what, p.forgotten ? "forgotten" : "kept");
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
