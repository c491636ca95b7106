/* submit/session.c: what is answered to what, and which octets a message gets, however the input is cut. */
#include "harness.h"

#include "../../sendq/submit/session.h"

struct seen {
	struct sq_buf log;      /* what was asked of us: "M<a>" "R<b>" "+content" "!" commit, "-" reset */
	const char *refuse;     /* a recipient to be refused */
	bool full;              /* commit fails */
};

static enum sq_err
on_mail(void *arg, const struct smtp_mail *m, struct sq_error *err)
{
	struct seen *s = arg;

	(void)err;
	sq_buf_addf(&s->log, "M<%.*s>", (int)m->sender.n, m->sender.p ? m->sender.p : "");
	if (m->ret)
		sq_buf_addf(&s->log, "r%d", (int)m->ret);
	if (m->envid.n)
		sq_buf_addf(&s->log, "e=%.*s ", (int)m->envid.n, m->envid.p);
	if (m->none)
		sq_buf_adds(&s->log, "none ");
	if (m->full_name.n)
		sq_buf_addf(&s->log, "n=%.*s ", (int)m->full_name.n, m->full_name.p);
	if (m->duplicates)
		sq_buf_addf(&s->log, "d=%d ", m->duplicates);
	if (m->not_before_ms || m->deadline_ms)
		sq_buf_addf(&s->log, "t=%lld,%lld ", (long long)m->not_before_ms, (long long)m->deadline_ms);
	return SQ_OK;
}

static enum sq_err
on_rcpt(void *arg, const struct smtp_rcpt *r, struct sq_error *err)
{
	struct seen *s = arg;

	if (s->refuse && sq_str_eq(r->address, sq_str(s->refuse)))
		return sq_error_set(err, SQ_EINVAL, "not\rthis one");
	sq_buf_addf(&s->log, "R<%.*s>", (int)r->address.n, r->address.p);
	if (r->notify)
		sq_buf_addf(&s->log, "n%d", r->notify);
	if (r->orcpt.n)
		sq_buf_addf(&s->log, "o=%.*s ", (int)r->orcpt.n, r->orcpt.p);
	return SQ_OK;
}

static enum sq_err
on_content(void *arg, const void *p, size_t n, struct sq_error *err)
{
	struct seen *s = arg;

	(void)err;
	for (size_t i = 0; i < n; i++) {
		char ch = ((const char *)p)[i];

		if (ch == '\r')
			sq_buf_adds(&s->log, "\\r");
		else if (ch == '\n')
			sq_buf_adds(&s->log, "\\n");
		else
			sq_buf_addc(&s->log, ch ? ch : '0');
	}
	return SQ_OK;
}

static enum sq_err
on_commit(void *arg, char words[200], struct sq_error *err)
{
	struct seen *s = arg;

	if (s->full)
		return sq_error_set(err, SQ_ENOSPC, "full");
	sq_buf_addc(&s->log, '!');
	snprintf(words, 200, "queued as 1000");
	return SQ_OK;
}

static void
on_reset(void *arg)
{
	sq_buf_addc(&((struct seen *)arg)->log, '-');
}

#define E "EHLO x\r\n"
#define M "MAIL FROM:<a@b>\r\n"
#define R "RCPT TO:<c@d>\r\n"

/* input; the codes of the replies ("250" for a reply of several lines); what the message's side saw */
static const struct {
	const char *in, *codes, *log;
} rows[] = {
	{ E M R "DATA\r\nx\r\n.\r\nQUIT\r\n", "220 250 250 250 354 250 221", "M<a@b>R<c@d>x\\r\\n!" },
	{ "HELO x\r\n" M R "DATA\r\n\r\n.\r\nQUIT\r\n", "220 250 250 250 354 250 221", "M<a@b>R<c@d>\\r\\n!" },
	/* stuffing */
	{ E M R "DATA\r\n..a\r\n.b\r\n...\r\n.\r\n", "220 250 250 250 354 250", "M<a@b>R<c@d>.a\\r\\nb\\r\\n..\\r\\n!" },
	{ E M R "DATA\r\n.\r\n", "220 250 250 250 354 250", "M<a@b>R<c@d>!" },
	/* two messages, pipelined */
	{ E M R "DATA\r\na\r\n.\r\n" M R "DATA\r\nb\r\n.\r\n", "220 250 250 250 354 250 250 250 354 250", "M<a@b>R<c@d>a\\r\\n!M<a@b>R<c@d>b\\r\\n!" },
	/* only LF, from the beginning */
	{ "EHLO x\nMAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\n.x\n.\nQUIT\n", "220 250 250 250 354 250 221", "M<a@b>R<c@d>x\\r\\n!" },
	/* smuggling: no dot but the session's own ends the message; what comes behind is not carried out */
	{ E M R "DATA\r\nx\n.\nMAIL FROM:<e@v>\r\nRCPT TO:<i@l>\r\nDATA\r\ny\r\n.\r\n" M, "220 250 250 250 354 554 421", "M<a@b>R<c@d>x\\r\\n-" },
	{ E M R "DATA\r\nx\r\n.\nMAIL FROM:<e@v>\r\n.\r\n" M, "220 250 250 250 354 554 421", "M<a@b>R<c@d>x\\r\\n-" },
	{ E M R "DATA\r\nx\n.\r\nMAIL FROM:<e@v>\r\n.\r\n" M, "220 250 250 250 354 554 421", "M<a@b>R<c@d>x\\r\\n-" },
	{ E M R "DATA\r\nx\r\n.\rMAIL FROM:<e@v>\r\n.\r\n" M, "220 250 250 250 354 554 421", "M<a@b>R<c@d>x\\r\\n-" },
	{ E M R "DATA\r\nx\r\n.\r\rMAIL FROM:<e@v>\r\n.\r\n" M, "220 250 250 250 354 554 421", "M<a@b>R<c@d>x\\r\\n-" },
	{ "EHLO x\nMAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\nx\r\n.\r\nMAIL FROM:<e@v>\n.\n", "220 250 250 250 354 554 421", "M<a@b>R<c@d>x\\r\\n-" },
	/* a dot behind a bare CR begins no line: content, which is stuffed when it is sent */
	{ E M R "DATA\r\nx\r.\r\ny\r\n.\r\n" M, "220 250 250 250 354 250 250", "M<a@b>R<c@d>x\\r.\\r\\ny\\r\\n!M<a@b>-" },
	/* Python's smtplib sends octets with LF as they are, and stuffs their dots */
	{ E M R "DATA\r\nx\n..\n..y\n\r\n.\r\n", "220 250 250 250 354 250", "M<a@b>R<c@d>x\\r\\n.\\r\\n.y\\r\\n\\r\\n!" },
	{ "EHLO x\nMAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\nx\r\ny\r\n.\n", "220 250 250 250 354 250", "M<a@b>R<c@d>x\\r\\ny\\r\\n!" },
	{ E "NOOP\n", "220 250 554 421", "" },
	{ "EHLO x\nNOOP\r\n", "220 250 554 421", "" },
	{ E M "RCPT TO:<c@d>\n" R, "220 250 250 554 421", "M<a@b>-" },
	/* BDAT */
	{ E M R "BDAT 3\r\na\nbBDAT 2 LAST\r\n\r\n", "220 250 250 250 250 250", "M<a@b>R<c@d>a\\nb\\r\\n!" },
	{ E M R "BDAT 0 LAST\r\n" M, "220 250 250 250 250 250", "M<a@b>R<c@d>!M<a@b>-" },
	{ E M R "BDAT 4 LAST\r\nQUITBDAT 4 LAST\r\nQUITQUIT\r\n", "220 250 250 250 250 503 221", "M<a@b>R<c@d>QUIT!" },
	{ E M "BDAT 4 LAST\r\nQUIT" M "QUIT\r\n", "220 250 250 503 250 221", "M<a@b>-M<a@b>-" },
	{ "BDAT 4 LAST\r\nQUITQUIT\r\n", "220 503 221", "" },
	{ E M R "BDAT x\r\nQUIT", "220 250 250 250 501 421", "M<a@b>R<c@d>-" },
	{ E M R "BDAT 1\r\naDATA\r\n" R "BDAT 0 LAST\r\n", "220 250 250 250 250 503 503 250", "M<a@b>R<c@d>a!" },
	{ E M R "BDAT 1\r\naRSET\r\n" M, "220 250 250 250 250 250 250", "M<a@b>R<c@d>a-M<a@b>-" },
	/* order */
	{ M, "220 503", "" },
	{ E R, "220 250 503", "" },
	{ E "DATA\r\n", "220 250 503", "" },
	{ E M "DATA\r\n", "220 250 250 554", "M<a@b>-" },
	{ E M M, "220 250 250 503", "M<a@b>-" },
	{ E M R E "DATA\r\n", "220 250 250 250 250 503", "M<a@b>R<c@d>-" },
	{ E M R "RSET\r\nDATA\r\n", "220 250 250 250 250 503", "M<a@b>R<c@d>-" },
	{ E M R "QUIT\r\n" M, "220 250 250 250 221", "M<a@b>R<c@d>-" },
	{ "EHLO\r\n", "220 501", "" },
	{ E M R "DATA x\r\n", "220 250 250 250 501", "M<a@b>R<c@d>-" },
	/* a refused recipient does not spoil the others; its words cannot break the line */
	{ E M "RCPT TO:<no@no>\r\n" R "DATA\r\n.\r\n", "220 250 250 501 250 354 250", "M<a@b>R<c@d>!" },
	{ E M "RCPT TO:<no@no>\r\nDATA\r\n", "220 250 250 501 554", "M<a@b>-" },
	/* what else RFC 5321 knows */
	{ E "VRFY ann\r\nVRFY\r\nEXPN x\r\nHELP\r\nNOOP x\r\nRSET x\r\nTURN\r\nETRN x\r\nAUTH PLAIN\r\nSTARTTLS\r\nWHAT\r\n\r\n",
	  "220 250 252 501 502 214 250 501 502 458 503 502 500 500", "" },
	/* paths and parameters */
	{ E "MAIL FROM: a@b\r\n", "220 250 250", "M<a@b>-" },
	{ E "mail from:<> ret=hdrs envid=a+2Bb size=10 body=8bitmime smtputf8\r\n", "220 250 250", "M<>r2e=a+b -" },
	{ E "MAIL FROM:<\"a>b\"@c> RET=FULL\r\n", "220 250 250", "M<\"a>b\"@c>r1-" },
	{ E "MAIL FROM:<a@b\r\nMAIL FROM:<a@b>x\r\nMAIL a@b\r\nMAIL FROM:\r\n", "220 250 501 501 501 501", "" },
	{ E "MAIL FROM:<a@b> AUTH=<>\r\nMAIL FROM:<a@b> SIZE=x\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nMAIL FROM:<a@b> RET=X\r\nMAIL FROM:<a@b> ENVID=a+0D\r\n",
	  "220 250 555 501 501 501 501", "" },
	{ E "MAIL FROM:<a@b> SIZE=1001\r\nMAIL FROM:<a@b> SIZE=1000\r\n", "220 250 552 250", "M<a@b>-" },
	{ E M "RCPT TO:<c@d> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+2Bd@e\r\n", "220 250 250 250", "M<a@b>R<c@d>n10o=rfc822;c+2Bd@e -" },
	{ E M "RCPT TO:<c@d> NOTIFY=NEVER,DELAY\r\nRCPT TO:<c@d> ORCPT=c@d\r\nRCPT TO:<>\r\nRCPT TO:<c@d> X=1\r\nRCPT TO:<c@d> NOTIFY=\r\n",
	  "220 250 250 501 501 501 555 501", "M<a@b>-" },
	{ E "MAIL FROM:<a@b> XNAME=a\r\n", "220 250 555", "" },
	/* a control character in a command */
	{ E "MAIL FROM:<a\001@b>\r\n", "220 250 501", "" },
};

static void
codes_of(const char *replies, struct sq_buf *out)
{
	for (const char *p = replies; *p;) {
		const char *lf = strstr(p, "\r\n");

		ck_assert_msg(lf != NULL && lf - p <= 510, "a reply without an end, or too long: %s", p);
		if (p[3] == ' ')
			sq_buf_addf(out, "%s%.3s", out->n ? " " : "", p);
		p = lf + 2;
	}
}

static void
run(const char *in, size_t n, size_t step, struct smtp_options options, struct seen *seen, struct sq_buf *said)
{
	struct smtp_ops ops = { on_mail, on_rcpt, on_content, on_commit, on_reset, seen };
	struct sq_error err = { 0 };
	struct smtp *s;

	ck_ok(smtp_new(options, ops, &s, &err), err);
	for (size_t at = 0;;) {
		size_t k = n - at < step ? n - at : step;

		sq_buf_add(said, smtp_out(s)->p, smtp_out(s)->n);
		sq_buf_clear(smtp_out(s));
		if (smtp_over(s) || k == 0)
			break;
		at += smtp_feed(s, in + at, k);
	}
	smtp_free(s);
}

static const struct smtp_options plain = { .size_max = 1000 };

START_TEST(dialogue)
{
	size_t n = strlen(rows[_i].in);

	for (size_t step = 1; step <= n; step++) {
		struct seen seen = { .log = SQ_BUF_INIT(65536), .refuse = "no@no" };
		struct sq_buf said = SQ_BUF_INIT(1 << 20), codes = SQ_BUF_INIT(4096);

		run(rows[_i].in, n, step, plain, &seen, &said);
		codes_of(said.p, &codes);
		ck_assert_msg(strcmp(codes.p, rows[_i].codes) == 0, "pieces of %zu: %s, not %s", step, codes.p, rows[_i].codes);
		ck_assert_msg(strcmp(seen.log.p ? seen.log.p : "", rows[_i].log) == 0, "pieces of %zu: '%s', not '%s'", step, seen.log.p, rows[_i].log);
		sq_buf_fini(&seen.log);
		sq_buf_fini(&said);
		sq_buf_fini(&codes);
	}
}
END_TEST

START_TEST(private_words)
{
	static const char in[] = E "MAIL FROM:<> XNONE XNAME=Ann+20B XNOTBEFORE=5 XDEADLINE=7 XDUPLICATES=2\r\nMAIL FROM:<a@b> XDEADLINE=x\r\nMAIL FROM:<a@b> XDUPLICATES=9\r\n";
	struct seen seen = { .log = SQ_BUF_INIT(65536) };
	struct sq_buf said = SQ_BUF_INIT(1 << 20);

	run(in, sizeof(in) - 1, 100, (struct smtp_options){ .private = true }, &seen, &said);
	ck_assert_str_eq(seen.log.p, "M<>none n=Ann B d=2 t=5,7 -");
	ck_assert_ptr_nonnull(strstr(said.p, "250-XSENDQ\r\n"));
	sq_buf_fini(&seen.log);
	sq_buf_fini(&said);
}
END_TEST

/* 250 means stored: a full disk at the last moment is said, and the next message is another one. */
START_TEST(store_fails)
{
	static const char in[] = E M R "DATA\r\nx\r\n.\r\nNOOP\r\n";
	struct seen seen = { .log = SQ_BUF_INIT(65536), .full = true };
	struct sq_buf said = SQ_BUF_INIT(1 << 20), codes = SQ_BUF_INIT(4096);

	run(in, sizeof(in) - 1, 1000, plain, &seen, &said);
	codes_of(said.p, &codes);
	ck_assert_str_eq(codes.p, "220 250 250 250 354 452 250");
	ck_assert_str_eq(seen.log.p, "M<a@b>R<c@d>x\\r\\n-");
	sq_buf_fini(&seen.log);
	sq_buf_fini(&said);
	sq_buf_fini(&codes);
}
END_TEST

/* Lines without end, commands without end: bounded, and shown out. */
START_TEST(bounds)
{
	struct seen seen = { .log = SQ_BUF_INIT(65536) };
	struct sq_buf said = SQ_BUF_INIT(1 << 20), codes = SQ_BUF_INIT(4096), in = SQ_BUF_INIT(1 << 20);

	sq_buf_adds(&in, E "NOOP ");
	for (int i = 0; i < SMTP_LINE_MAX; i++)
		sq_buf_addc(&in, 'x');
	sq_buf_adds(&in, "\r\nNOOP\r\n");
	run(in.p, in.n, 999, plain, &seen, &said);
	codes_of(said.p, &codes);
	ck_assert_str_eq(codes.p, "220 250 500 250");
	sq_buf_clear(&in);
	sq_buf_clear(&said);
	for (int i = 0; i < 2 * SMTP_ERRORS_MAX; i++)
		sq_buf_adds(&in, "WHAT\r\n");
	run(in.p, in.n, in.n, plain, &seen, &said);
	ck_assert_ptr_nonnull(strstr(said.p, "421 "));
	sq_buf_clear(&in);
	sq_buf_clear(&said);
	/* Much to say: what goes out is waited for, and nothing is lost. */
	for (int i = 0; i < 10000; i++)
		sq_buf_adds(&in, "NOOP\r\n");
	run(in.p, in.n, in.n, plain, &seen, &said);
	ck_assert_uint_eq(said.n, strlen("220 localhost ESMTP sendq\r\n") + 10000 * strlen("250 2.0.0 ok\r\n"));
	sq_buf_fini(&seen.log);
	sq_buf_fini(&said);
	sq_buf_fini(&codes);
	sq_buf_fini(&in);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("submit_session");
	TCase *t = tcase_create("session");

	tcase_add_loop_test(t, dialogue, 0, SQ_LEN(rows));
	tcase_add_test(t, private_words);
	tcase_add_test(t, store_fails);
	tcase_add_test(t, bounds);
	suite_add_tcase(s, t);
	return test_main(s);
}
