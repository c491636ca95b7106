/* SMTP's parts: replies, EHLO, dot stuffing, what a refusal means. */
#include <sendq/smtp.h>

#include "harness.h"

static const struct { const char *octets; int n, code; const char *enhanced, *text; } replies[] = {
	{ "250 2.1.0 Ok\r\n", 1, 250, "2.1.0", "Ok" },
	{ "250-first\r\n250 last\r\n", 1, 250, "", "first\nlast" },
	{ "250-2.0.0 first\r\n250 2.0.0 last\r\n", 1, 250, "2.0.0", "first\nlast" },
	{ "250\r\n", 1, 250, "", "" },
	{ "250 ok\n", 1, 250, "", "ok" },
	{ "421 4.3.2 bye\r\n", 1, 421, "4.3.2", "bye" },
	{ "550 5.7.1 a\tb\x01" "c\r\n", 1, 550, "5.7.1", NULL },
	{ "250 one\r\n354 two\r\n", 2, 354, "", "two" },
	{ "550 2.0.0 class and code differ\r\n", 1, 550, NULL, NULL },
	{ "250 Ok", 0, 0, NULL, NULL },
	{ "250-more\r\n", 0, 0, NULL, NULL },
	{ "25", 0, 0, NULL, NULL },
	{ "2x0 no\r\n", -1, 0, NULL, NULL },
	{ "hello\r\n", -1, 0, NULL, NULL },
	{ "99 no\r\n", -1, 0, NULL, NULL },
	{ "250-a\r\n350 b\r\n", -1, 0, NULL, NULL },
};

/* Replies seen, or -1 when it broke; the last one is left in the parser. */
static int
feed(struct sq_reply_parser *p, const char *octets, size_t n, size_t piece)
{
	int done = 0;

	for (size_t at = 0; at < n; ) {
		size_t used = 0, now = n - at < piece ? n - at : piece;
		enum sq_reply_step step = sq_reply_feed(p, octets + at, now, &used);

		if (step == SQ_REPLY_BAD)
			return -1;
		done += step == SQ_REPLY_DONE;
		at += used;
	}
	return done;
}

START_TEST(reply_at_every_cut)
{
	size_t n = strlen(replies[_i].octets);

	for (size_t piece = 1; piece <= n; piece++) {
		struct sq_reply_parser p = { 0 };
		int done = feed(&p, replies[_i].octets, n, piece);

		ck_assert_msg(done == replies[_i].n, "pieces of %zu: %d replies", piece, done);
		if (replies[_i].n <= 0)
			continue;
		ck_assert_int_eq(p.reply.code, replies[_i].code);
		if (replies[_i].enhanced)
			ck_assert_str_eq(p.reply.enhanced, replies[_i].enhanced);
		if (replies[_i].text)
			ck_assert_msg(sq_str_eq(p.reply.text, sq_str(replies[_i].text)), "'%.*s'", (int)p.reply.text.n, p.reply.text.p);
	}
}
END_TEST

/* Ten megabytes in one line, or in lines without an end: bounded, and the session is over. */
START_TEST(reply_too_long)
{
	struct sq_reply_parser p = { 0 };
	char line[1000];
	size_t used, i;

	memset(line, 'x', sizeof(line));
	ck_assert_int_eq(sq_reply_feed(&p, "250 ", 4, &used), SQ_REPLY_MORE);
	for (i = 0; i < 10000 && sq_reply_feed(&p, line, sizeof(line), &used) == SQ_REPLY_MORE; i++)
		;
	ck_assert_msg(i * sizeof(line) <= SQ_REPLY_OCTETS_MAX, "%zu kB were taken", i);
	p = (struct sq_reply_parser){ 0 };
	for (i = 0; i < 1000000 && sq_reply_feed(&p, "250-x\r\n", 7, &used) == SQ_REPLY_MORE; i++)
		;
	ck_assert_uint_le(i * 7, SQ_REPLY_OCTETS_MAX);
}
END_TEST

START_TEST(partial)
{
	struct sq_reply_parser p = { 0 };
	size_t used;

	ck_assert(!sq_reply_partial(&p));
	ck_assert_int_eq(sq_reply_feed(&p, "25", 2, &used), SQ_REPLY_MORE);
	ck_assert(sq_reply_partial(&p));
	ck_assert_int_eq(sq_reply_feed(&p, "0 ok\r\n", 6, &used), SQ_REPLY_DONE);
	ck_assert(!sq_reply_partial(&p));
}
END_TEST

static const struct { const char *text; uint32_t caps; uint64_t size; } ehlos[] = {
	{ "mail.example.org", 0, 0 },
	{ "me\nPIPELINING\nSIZE 1000\nchunking", SQ_CAP_PIPELINING | SQ_CAP_SIZE | SQ_CAP_CHUNKING, 1000 },
	{ "me\nSIZE", SQ_CAP_SIZE, 0 },
	{ "me\nSIZE 99999999999999999999999", SQ_CAP_SIZE, 0 },
	{ "me\nSIZE x", SQ_CAP_SIZE, 0 },
	{ "me\nAUTH PLAIN LOGIN\nAUTH=PLAIN", SQ_CAP_AUTH, 0 },
	{ "me\n8BITMIME\nSMTPUTF8\nDSN\nENHANCEDSTATUSCODES\nSTARTTLS", SQ_CAP_8BITMIME | SQ_CAP_SMTPUTF8 | SQ_CAP_DSN | SQ_CAP_ENHANCED | SQ_CAP_STARTTLS, 0 },
	{ "PIPELINING\nCHECKPOINT", SQ_CAP_CHECKPOINT, 0 },   /* the first line is the greeting */
	{ "me\nXPIPELINING\nPIPELININGX", 0, 0 },
};

START_TEST(ehlo)
{
	struct sq_ehlo e;

	sq_ehlo_parse(sq_str(ehlos[_i].text), &e);
	ck_assert_msg(e.caps == ehlos[_i].caps, "caps %x, not %x", e.caps, ehlos[_i].caps);
	ck_assert_uint_eq(e.size_limit, ehlos[_i].size);
}
END_TEST

START_TEST(stuffing_at_every_cut)
{
	static const char in[] = ".\r\n..\r\na.b\r\n.x\r\n", want[] = "..\r\n...\r\na.b\r\n..x\r\n";

	for (size_t piece = 1; piece < sizeof(in); piece++) {
		struct sq_buf out = SQ_BUF_INIT(256);
		struct sq_stuff st = { 0 };

		for (size_t at = 0; at < sizeof(in) - 1; at += piece)
			sq_stuff_add(&st, (struct sq_str){ in + at, sizeof(in) - 1 - at < piece ? sizeof(in) - 1 - at : piece }, &out);
		ck_assert_msg(sq_str_eq((struct sq_str){ out.p, out.n }, SQ_STR(want)), "pieces of %zu: '%.*s'", piece, (int)out.n, out.p);
		sq_buf_fini(&out);
	}
}
END_TEST

static const struct { int code; const char *enhanced, *text; enum sq_phase phase; enum sq_class cls; enum sq_scope scope; enum sq_outcome outcome; } refusals[] = {
	{ 550, "5.4.5", "Daily user sending quota exceeded.", SQ_PHASE_VERDICT, SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, SQ_OUTCOME_QUOTA },
	{ 550, "5.7.1", "Your message was rejected due to exceeding the DAILY LIMIT", SQ_PHASE_RCPT, SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, SQ_OUTCOME_QUOTA },
	{ 432, "4.3.2", "Concurrent connections limit exceeded", SQ_PHASE_MAIL, SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, SQ_OUTCOME_QUOTA },
	{ 454, "", "Throttling failure: Maximum sending rate exceeded.", SQ_PHASE_VERDICT, SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, SQ_OUTCOME_QUOTA },
	{ 535, "5.7.8", "Username and Password not accepted", SQ_PHASE_AUTH, SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, SQ_OUTCOME_LOGIN },
	{ 454, "4.7.0", "Temporary authentication failure", SQ_PHASE_AUTH, SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, SQ_OUTCOME_LOGIN_LATER },
	{ 530, "5.7.0", "Authentication required", SQ_PHASE_MAIL, SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, SQ_OUTCOME_LOGIN },
	{ 452, "4.5.3", "Too many recipients", SQ_PHASE_RCPT, SQ_CLASS_DEFERRED, SQ_SCOPE_RECIPIENT, SQ_OUTCOME_DEFERRED },
	{ 552, "", "too many recipients", SQ_PHASE_RCPT, SQ_CLASS_DEFERRED, SQ_SCOPE_RECIPIENT, SQ_OUTCOME_DEFERRED },
	{ 552, "5.3.4", "Message too big", SQ_PHASE_VERDICT, SQ_CLASS_REFUSED, SQ_SCOPE_MESSAGE, SQ_OUTCOME_REFUSED },
	{ 450, "4.7.1", "Greylisted", SQ_PHASE_RCPT, SQ_CLASS_DEFERRED, SQ_SCOPE_RECIPIENT, SQ_OUTCOME_DEFERRED },
	{ 451, "", "try later", SQ_PHASE_VERDICT, SQ_CLASS_DEFERRED, SQ_SCOPE_MESSAGE, SQ_OUTCOME_DEFERRED },
	{ 421, "", "closing", SQ_PHASE_VERDICT, SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, SQ_OUTCOME_DEFERRED },
	{ 550, "5.1.1", "no such user", SQ_PHASE_RCPT, SQ_CLASS_REFUSED, SQ_SCOPE_RECIPIENT, SQ_OUTCOME_REFUSED },
	{ 554, "", "no", SQ_PHASE_VERDICT, SQ_CLASS_REFUSED, SQ_SCOPE_MESSAGE, SQ_OUTCOME_REFUSED },
	{ 250, "", "ok", SQ_PHASE_VERDICT, SQ_CLASS_ACCEPTED, SQ_SCOPE_RECIPIENT, SQ_OUTCOME_ACCEPTED },
	{ 354, "", "out of turn", SQ_PHASE_MAIL, SQ_CLASS_DEFERRED, SQ_SCOPE_MESSAGE, SQ_OUTCOME_PROTOCOL },
};

START_TEST(refusal)
{
	struct sq_reply r = { .code = refusals[_i].code, .text = sq_str(refusals[_i].text) };
	struct sq_policy p;

	snprintf(r.enhanced, sizeof(r.enhanced), "%s", refusals[_i].enhanced);
	p = sq_policy_decide(&r, refusals[_i].phase);
	ck_assert_msg(p.cls == refusals[_i].cls && p.scope == refusals[_i].scope && p.outcome == refusals[_i].outcome,
		"%d %s: class %d scope %d outcome %s", r.code, r.enhanced, p.cls, p.scope, sq_outcome_name(p.outcome));
}
END_TEST

static const struct { const char *text; int code; bool ok; uint64_t offset; bool hashed; } answers[] = {
	{ "6135 is the transaction offset", 355, true, 6135, false },
	{ "0", 355, true, 0, false },
	{ "7\nsha256=0", 355, true, 7, false },
	{ "5 sha256=000102030405060708090a0b0c0d0e0fF0112233445566778899aabbccddeeff go", 355, true, 5, true },
	{ "5 sha256=00", 355, true, 5, false },
	{ "5 go sha256=000102030405060708090a0b0c0d0e0ff0112233445566778899aabbccddeefg", 355, true, 5, false },
	{ "99999999999999999999", 355, false, 0, false },
	{ "-1", 355, false, 0, false }, { "5x", 355, false, 0, false }, { "", 355, false, 0, false }, { "\n5", 355, false, 0, false },
	{ "5", 250, false, 0, false },
};

START_TEST(checkpoint_answer)
{
	struct sq_reply r = { .code = answers[_i].code, .text = sq_str(answers[_i].text) };
	struct sq_checkpoint c = { .offset = 77 };
	bool ok = sq_checkpoint_parse(&r, &c);

	ck_assert_msg(ok == answers[_i].ok, "'%s'", answers[_i].text);
	ck_assert_uint_eq(c.offset, ok ? answers[_i].offset : 77);
	ck_assert_int_eq(c.hashed, answers[_i].hashed);
	if (c.hashed)
		ck_assert(c.sha256[0] == 0 && c.sha256[16] == 0xf0 && c.sha256[31] == 0xff);
}
END_TEST

static const struct { const char *text; bool ok; } transids[] = {
	{ "<a@b>", true }, { "<0f.e1@q.invalid>", true }, { "<a.b.c@d.e>", true },
	{ "<a@>", false }, { "<@b>", false }, { "<ab>", false }, { "a@b", false }, { "<a..b@c>", false }, { "<.a@c>", false }, { "<a.@c>", false },
	{ "<a@b.>", false }, { "<a@b@c>", false }, { "<a b@c>", false }, { "<a@[1.2.3.4]>", false }, { "<a=b@c>", false }, { "<a\n@c>", false }, { "", false },
	{ "<1234567890123456789012345678901234567890123456789012345678901234567890123@12345>", false }, /* 81 octets */
	{ "<123456789012345678901234567890123456789012345678901234567890123456789012@12345>", true },
};

START_TEST(transid)
{
	ck_assert_msg(sq_transid_valid(sq_str(transids[_i].text)) == transids[_i].ok, "'%s'", transids[_i].text);
}
END_TEST

START_TEST(promise)
{
	static const struct { const char *ehlo, *store; uint32_t retain; } rows[] = {
		{ "gw\nXSENDQ RETAIN=86400 STORE=1f-2e", "1f-2e", 86400 }, { "gw\nxsendq STORE=a RETAIN=1", "a", 1 },
		{ "gw\nXSENDQ RETAIN=86400", "", 0 }, { "gw\nXSENDQ STORE=a", "", 0 }, { "gw\nXSENDQ RETAIN=0 STORE=a", "", 0 }, { "gw\nXSENDQ", "", 0 },
		{ "gw\nXSENDQ RETAIN=5 STORE=12345678901234567890123456789012345678901234567890123456789012345", "", 0 },
	};

	for (size_t i = 0; i < SQ_LEN(rows); i++) {
		struct sq_ehlo e;

		sq_ehlo_parse(sq_str(rows[i].ehlo), &e);
		ck_assert(e.caps & SQ_CAP_XSENDQ);
		ck_assert_str_eq(e.store, rows[i].store);
		ck_assert_uint_eq(e.retain_s, rows[i].retain);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("smtp");
	TCase *t = tcase_create("parts");

	tcase_add_loop_test(t, reply_at_every_cut, 0, SQ_LEN(replies));
	tcase_add_test(t, reply_too_long);
	tcase_add_test(t, partial);
	tcase_add_loop_test(t, ehlo, 0, SQ_LEN(ehlos));
	tcase_add_test(t, stuffing_at_every_cut);
	tcase_add_loop_test(t, refusal, 0, SQ_LEN(refusals));
	tcase_add_loop_test(t, checkpoint_answer, 0, SQ_LEN(answers));
	tcase_add_loop_test(t, transid, 0, SQ_LEN(transids));
	tcase_add_test(t, promise);
	suite_add_tcase(s, t);
	return test_main(s);
}
