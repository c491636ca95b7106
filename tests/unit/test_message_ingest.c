/* message/ingest.c: the rules of message.h, however the input is cut; every file of the corpus; GMime as second opinion. */
#include "harness.h"

#include <fcntl.h>
#include <ftw.h>
#include <gmime/gmime.h>
#include <sendq/message.h>
#include <unistd.h>

enum { WHOLE = 1 << 20, CORPUS_MAX = 200 };

/* One run of the intake over an input, cut into pieces of `piece` octets. */
struct run {
	struct sq_intake *in;
	struct sq_buf out;
	struct sq_error err;
	enum sq_err e;
	bool ended;
	int headers;   /* calls of the header callback */
	bool ordered;  /* it came before the first octet */
};

static enum sq_err
on_header(void *arg, const struct sq_intake_facts *facts, struct sq_intake_missing *missing, struct sq_error *err)
{
	struct run *r = arg;

	(void)facts, (void)err;
	r->headers++;
	r->ordered = r->out.n == 0;
	*missing = (struct sq_intake_missing){ .from = "me@x.example", .full_name = "Me, Myself", .id_domain = "x.example", .now_ms = 1764000000000 };
	return SQ_OK;
}

static enum sq_err
on_octets(void *arg, const void *p, size_t n, struct sq_error *err)
{
	struct run *r = arg;

	(void)err;
	ck_assert_uint_gt(n, 0);
	ck_assert_uint_le(n, 65536);
	sq_buf_add(&r->out, p, n);
	return SQ_OK;
}

static void
run(struct run *r, struct sq_str input, struct sq_intake_options options, size_t piece)
{
	*r = (struct run){ .out = SQ_BUF_INIT(64u << 20) };
	ck_ok(sq_intake_new(options, (struct sq_intake_ops){ on_header, on_octets, r }, &r->in, &r->err), r->err);
	for (size_t i = 0; i < input.n && r->e == SQ_OK && !r->ended; i += piece)
		r->e = sq_intake_feed(r->in, input.p + i, input.n - i < piece ? input.n - i : piece, &r->ended, &r->err);
	if (r->e == SQ_OK)
		r->e = sq_intake_finish(r->in, &r->err);
}

static void
run_fini(struct run *r)
{
	sq_intake_free(r->in);
	sq_buf_fini(&r->out);
}

/* The frozen stream without the Message-ID that was made (random). */
static char *
without_made_id(const struct run *r)
{
	const struct sq_intake_facts *f = sq_intake_facts(r->in);
	struct sq_buf b = SQ_BUF_INIT(64u << 20);
	const char *at = NULL;
	char line[1100], *out;

	if (f->message_id && !f->has_message_id && r->out.p) {
		snprintf(line, sizeof(line), "Message-ID: %s\r\n", f->message_id);
		at = strstr(r->out.p, line);
		ck_assert_ptr_nonnull(at);
		sq_buf_add(&b, r->out.p, (size_t)(at - r->out.p));
		sq_buf_adds(&b, "Message-ID: MADE\r\n");
		at += strlen(line);
		sq_buf_add(&b, at, r->out.n - (size_t)(at - r->out.p));
	} else if (r->out.p) {
		sq_buf_add(&b, r->out.p, r->out.n);
	}
	ck_assert_int_eq(sq_buf_take(&b, &out, NULL), SQ_OK);
	return out;
}

#define HEAD "Date: d\nFrom: a@b\nMessage-ID: <i@b>\n"
#define HEAD_OUT "Date: d\r\nFrom: a@b\r\nMessage-ID: <i@b>\r\n"
#define FROM_ADDED "From: \"Me, Myself\" <me@x.example>\r\n"
#define ROW(flags, in, want) { flags, { in, sizeof(in) - 1 }, want }

/* flags: 'd' a dot ends, 't' recipients wanted. `want`: the frozen octets, or '!' and words of the refusal, parted by '|'. */
static const struct {
	const char *flags;
	struct sq_str in;
	const char *want;
} rows[] = {
	ROW("", HEAD "\nx\n", HEAD_OUT "\r\nx\r\n"),
	ROW("", HEAD "\r\nx\r\ny\n", HEAD_OUT "\r\nx\r\ny\r\n"),
	ROW("", HEAD "\nx", HEAD_OUT "\r\nx\r\n"),
	ROW("", HEAD "\n", HEAD_OUT "\r\n"),
	ROW("", HEAD, HEAD_OUT "\r\n"),
	ROW("", "Date: d\nFrom: a@b\nMessage-ID: <i@b>", HEAD_OUT "\r\n"),
	ROW("", HEAD "not a field\nx: y\n", HEAD_OUT "\r\nnot a field\r\nx: y\r\n"),
	ROW("", "From me Tue Nov 24\n" HEAD "\nFrom here\n", HEAD_OUT "\r\nFrom here\r\n"),
	ROW("", HEAD "\nx\n.\ny\n", HEAD_OUT "\r\nx\r\n.\r\ny\r\n"),
	ROW("d", HEAD "\nx\n.\ny\n", HEAD_OUT "\r\nx\r\n"),
	ROW("d", HEAD "\nx\n.\r\ny\n", HEAD_OUT "\r\nx\r\n"),
	ROW("d", HEAD "\nx\n.", HEAD_OUT "\r\nx\r\n"),
	ROW("d", HEAD "\nx\n..\n.x\nx.\n", HEAD_OUT "\r\nx\r\n..\r\n.x\r\nx.\r\n"),
	ROW("d", HEAD ".\n\nx\n", HEAD_OUT "\r\n"),
	ROW("d", ".\nx\n", ""),
	ROW("", "", ""),
	/* fields taken out, with their folds, in any case */
	ROW("", "bCC: c@d,\n e@f\n" HEAD "Resent-Bcc:\n\tx@y\nReturn-Path: <z@z>\nBcc : q@q\n\nBcc: stays\n", HEAD_OUT "\r\nBcc: stays\r\n"),
	/* what is missing, at the end */
	ROW("", "Date: d\nMessage-ID: <i@b>\nX: y\n\nx\n", "Date: d\r\nMessage-ID: <i@b>\r\nX: y\r\n" FROM_ADDED "\r\nx\r\n"),
	ROW("", "Date: d\nFrom: a@b\n\nx\n", "Date: d\r\nFrom: a@b\r\nMessage-ID: MADE\r\n\r\nx\r\n"),
	ROW("", "Date: d\nFrom:\nFrom: a@b\nMessage-ID: \n \n\nx\n", "Date: d\r\nFrom: a@b\r\nMessage-ID: MADE\r\n\r\nx\r\n"),
	ROW("", "Date: d\nMessage-Id: no brackets at all\nFrom: a@b\n\n", "Date: d\r\nMessage-Id: no brackets at all\r\nFrom: a@b\r\n\r\n"),
	/* folding, order and odd blanks stay */
	ROW("", "X:  a\n\tb \n" HEAD "Subject : s\n\n", "X:  a\r\n\tb \r\n" HEAD_OUT "Subject : s\r\n\r\n"),
	/* what mail cannot carry */
	ROW("", HEAD "\na\rb\n", HEAD_OUT "\r\na\r\nb\r\n"),
	ROW("", HEAD "\na\r\r\nb\r", HEAD_OUT "\r\na\r\nb\r\n"),
	ROW("", HEAD "\na\r\rb\n", HEAD_OUT "\r\na\r\n\r\nb\r\n"),
	ROW("", HEAD "\na\0b\n\0", HEAD_OUT "\r\nab\r\n"),
	ROW("d", HEAD "\na\r.\rb\n", HEAD_OUT "\r\na\r\n.\r\nb\r\n"),
	ROW("", "X: a\rBcc: e@f\n" HEAD "\n", "!line 1|header|carriage return"),
	ROW("", "X: y\n" "Z: a\0b\n" HEAD "\n", "!line 2|octet 10|NUL"),
	ROW("", "Content-Type: multipart/signed; x=y\n" HEAD "\na\rb\n", "!line 6|signed"),
	ROW("", "Content-Type:\n application/PKCS7-mime\n" HEAD "\na\r\r\nb\n", "!signed"),
	ROW("", "DKIM-Signature: v=1\n" HEAD "\na\0b\n", "!signed|NUL"),
	/* recipients that cannot be read */
	ROW("t", HEAD "To: a@b, c@@d\n\n", "!the To field|address 2"),
	ROW("t", HEAD "Bcc: <x\n\n", "!the Bcc field"),
	ROW("", HEAD "To: a@b, c@@d\n\n", HEAD_OUT "To: a@b, c@@d\r\n\r\n"),
};

static void
check_row(const struct run *r, const char *want)
{
	char *got;

	if (want[0] == '!') {
		ck_assert_int_eq(r->e, SQ_EINVAL);
		for (const char *w = want + 1; *w;) {
			size_t n = strcspn(w, "|");
			char *word = sq_str_dup((struct sq_str){ w, n });

			ck_assert_msg(strstr(r->err.text, word) != NULL, "'%s' lacks '%s'", r->err.text, word);
			free(word);
			w += n + (w[n] == '|');
		}
		return;
	}
	ck_ok(r->e, r->err);
	got = without_made_id(r);
	ck_assert_str_eq(got, want);
	free(got);
	ck_assert_int_eq(r->headers, want[0] ? 1 : 0);
	ck_assert(sq_intake_facts(r->in)->empty == (want[0] == '\0'));
	ck_assert(want[0] == '\0' || r->ordered);
	ck_assert_uint_eq(sq_intake_facts(r->in)->size, r->out.n);
}

START_TEST(rule)
{
	struct sq_intake_options o = { .dot_ends = strchr(rows[_i].flags, 'd'), .want_recipients = strchr(rows[_i].flags, 't') };

	for (size_t piece = 1; piece <= rows[_i].in.n + 1; piece++) {
		struct run r;

		run(&r, rows[_i].in, o, piece);
		check_row(&r, rows[_i].want);
		run_fini(&r);
	}
}
END_TEST

START_TEST(facts)
{
	struct run r;
	const struct sq_intake_facts *f;

	run(&r, SQ_STR("Resent-To: r@x\nResent-Bcc: s@x\nResent-From: me@y\nTo: no@x\nFrom: Ann <ann@z>\nMessage-ID: <1@x>\n"
		"Message-ID: <2@x>\nAuto-Submitted: Auto-Generated\nSubject: =?utf-8?B?w7Y=?=\n =?iso-8859-1?q?=e4_b?= \x1b[31m\n\nb\xc3\xb6\r.\0\n"),
		(struct sq_intake_options){ .want_recipients = true }, 7);
	ck_ok(r.e, r.err);
	f = sq_intake_facts(r.in);
	ck_assert_uint_eq(f->recipients.n, 2);
	ck_assert_str_eq(f->recipients.v[0].text, "r@x");
	ck_assert_str_eq(f->recipients.v[1].text, "s@x");
	ck_assert_str_eq(f->from, "me@y");
	ck_assert_str_eq(f->message_id, "<1@x>");
	ck_assert_str_eq(f->subject, "\xc3\xb6\xc3\xa4 b  [31m");
	ck_assert(f->auto_submitted && f->eightbit && f->from_qualified && !f->smtputf8 && !f->is_signed && !f->has_date);
	ck_assert_uint_eq(f->bare_cr, 1);
	ck_assert_uint_eq(f->nuls, 1);
	run_fini(&r);

	run(&r, SQ_STR("To: a@b, c@d\nCc: c@d\nBcc: e@f\nFrom: root (Cron Daemon)\n\n"), (struct sq_intake_options){ .want_recipients = true }, WHOLE);
	f = sq_intake_facts(r.in);
	ck_assert_uint_eq(f->recipients.n, 4);
	ck_assert_str_eq(f->from, "root");
	ck_assert(!f->from_qualified && !f->eightbit && !f->auto_submitted);
	run_fini(&r);

	run(&r, SQ_STR("From: \xc3\xb6@b\nTo: J\xc3\xb6 <a@b>\n\n"), (struct sq_intake_options){ 0 }, WHOLE);
	f = sq_intake_facts(r.in);
	ck_assert(f->smtputf8 && f->eightbit);
	run_fini(&r);

	run(&r, SQ_STR("From: a@b\nTo: J\xc3\xb6 <a@b>\nSubject: \xf6\n\n"), (struct sq_intake_options){ 0 }, WHOLE);
	f = sq_intake_facts(r.in);
	ck_assert(!f->smtputf8 && f->eightbit);
	ck_assert_str_eq(f->subject, "?");
	run_fini(&r);

	run(&r, SQ_STR("From: nobody <at all\n\nx\n"), (struct sq_intake_options){ 0 }, WHOLE);
	f = sq_intake_facts(r.in);
	ck_assert(f->has_from && !f->from && strstr(f->from_fault, "never closes"));
	run_fini(&r);
}
END_TEST

START_TEST(made_message_ids_differ_and_tell_nothing)
{
	char *before = NULL;

	for (int i = 0; i < 20; i++) {
		struct sq_buf b = SQ_BUF_INIT(200);
		char *id;

		sq_message_id_make(1764000000000, "x.example", &b);
		ck_assert_int_eq(sq_buf_take(&b, &id, NULL), SQ_OK);
		ck_assert_uint_eq(strlen(id), strlen("<t67yo0.") + 26 + strlen("@x.example>"));
		ck_assert(!before || strcmp(id, before) != 0);
		free(before);
		before = id;
	}
	free(before);
}
END_TEST

START_TEST(a_header_has_a_limit_and_a_body_has_none)
{
	struct run r;
	size_t n = 3u << 20;
	char *text = malloc(n + 64);

	ck_assert_ptr_nonnull(text);
	memset(text, 'x', n);
	memcpy(text, "X: ", 3);
	run(&r, (struct sq_str){ text, n }, (struct sq_intake_options){ 0 }, 4096);
	ck_assert_int_eq(r.e, SQ_ELIMIT);
	ck_assert_ptr_nonnull(strstr(r.err.text, "1048576"));
	run_fini(&r);

	/* One endless line without a field name is a body. */
	memset(text, 'x', n);
	run(&r, (struct sq_str){ text, n }, (struct sq_intake_options){ 0 }, 4096);
	ck_ok(r.e, r.err);
	ck_assert_uint_eq(r.out.n, strlen(strstr(r.out.p, "\r\n\r\n")) + (size_t)(strstr(r.out.p, "\r\n\r\n") - r.out.p));
	ck_assert(strlen(strstr(r.out.p, "\r\n\r\n")) == 4 + n + 2);
	run_fini(&r);
	free(text);
}
END_TEST

/* ---- the corpus ---- */

static char *corpus[CORPUS_MAX];
static int n_corpus;

static int
note_file(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	if (flag == FTW_F && path[ftw->base] != '.' && strcmp(path + ftw->base, "LICENSE") != 0 && n_corpus < CORPUS_MAX)
		corpus[n_corpus++] = sq_str_dup(sq_str(path));
	return 0;
}

static void
read_corpus(int i, struct sq_buf *out)
{
	struct sq_error err = { 0 };
	int fd = open(corpus[i], O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_ok(sq_buf_read_fd(out, fd, &err), err);
	close(fd);
}

/* Fields that go: names at a line's beginning in the header that came out. */
static void
check_frozen(const struct run *r)
{
	const char *end = strstr(r->out.p, "\r\n\r\n");
	struct sq_str rest;
	struct sq_field f;
	int froms = 0, dates = 0, ids = 0;

	ck_assert_ptr_nonnull(end);
	for (size_t i = 0; i < r->out.n; i++) {
		ck_assert(r->out.p[i] != '\r' || r->out.p[i + 1] == '\n');
		ck_assert(r->out.p[i] != '\n' || (i > 0 && r->out.p[i - 1] == '\r'));
	}
	ck_assert(memcmp(r->out.p + r->out.n - 2, "\r\n", 2) == 0);
	rest = (struct sq_str){ r->out.p, (size_t)(end - r->out.p) + 2 };
	while (sq_field_next(&rest, &f)) {
		ck_assert(!sq_str_caseeq(f.name, SQ_STR("Bcc")) && !sq_str_caseeq(f.name, SQ_STR("Return-Path")) &&
			!sq_str_caseeq(f.name, SQ_STR("Resent-Bcc")));
		froms += sq_str_caseeq(f.name, SQ_STR("From"));
		dates += sq_str_caseeq(f.name, SQ_STR("Date"));
		ids += sq_str_caseeq(f.name, SQ_STR("Message-ID"));
	}
	ck_assert_uint_eq(rest.n, 0);
	ck_assert_int_ge(froms, 1);
	ck_assert_int_ge(dates, 1);
	ck_assert_int_ge(ids, 1);
}

START_TEST(corpus_file_goes_through)
{
	static const size_t pieces[] = { 1, 2, 3, 61, 4096, 65536 };
	struct sq_buf input = SQ_BUF_INIT(64u << 20), again = SQ_BUF_INIT(64u << 20);
	struct run whole, r;

	read_corpus(_i, &input);
	run(&whole, (struct sq_str){ input.p, input.n }, (struct sq_intake_options){ 0 }, WHOLE);
	ck_assert_msg(whole.e == SQ_OK, "%s: %s", corpus[_i], whole.err.text);
	if (input.n > 0) {
		char *first = without_made_id(&whole), *other;

		check_frozen(&whole);
		for (size_t i = 0; i < SQ_LEN(pieces); i++) {
			run(&r, (struct sq_str){ input.p, input.n }, (struct sq_intake_options){ 0 }, pieces[i]);
			ck_ok(r.e, r.err);
			other = without_made_id(&r);
			ck_assert_msg(strcmp(first, other) == 0, "%s differs in pieces of %zu", corpus[_i], pieces[i]);
			free(other);
			run_fini(&r);
		}
		free(first);
		/* Frozen octets stay what they are. */
		sq_buf_add(&again, whole.out.p, whole.out.n);
		run(&r, (struct sq_str){ again.p, again.n }, (struct sq_intake_options){ 0 }, WHOLE);
		ck_ok(r.e, r.err);
		ck_assert(r.out.n == again.n && memcmp(r.out.p, again.p, again.n) == 0);
		run_fini(&r);
	}
	run_fini(&whole);
	sq_buf_fini(&input);
	sq_buf_fini(&again);
}
END_TEST

/* Every address that GMime finds in a list, in order. */
static void
gmime_addresses(InternetAddressList *l, struct sq_buf *out)
{
	for (int i = 0; l && i < internet_address_list_length(l); i++) {
		InternetAddress *a = internet_address_list_get_address(l, i);

		if (INTERNET_ADDRESS_IS_GROUP(a))
			gmime_addresses(INTERNET_ADDRESS_GROUP(a)->members, out);
		else
			sq_buf_addf(out, "%s\n", internet_address_mailbox_get_idn_addr(INTERNET_ADDRESS_MAILBOX(a)));
	}
}

/* Where we read an address field, we read what GMime reads; where we refuse one, that is our right. */
START_TEST(corpus_file_reads_as_gmime_reads_it)
{
	static const char *const names[] = { "From", "To", "Cc", "Reply-To", "Sender" };
	struct sq_buf input = SQ_BUF_INIT(64u << 20);
	struct run r;
	struct sq_str rest;
	struct sq_field f;

	g_mime_init();
	read_corpus(_i, &input);
	run(&r, (struct sq_str){ input.p, input.n }, (struct sq_intake_options){ 0 }, WHOLE);
	ck_ok(r.e, r.err);
	rest = (struct sq_str){ r.out.p, r.out.n };
	while (sq_field_next(&rest, &f)) {
		struct sq_buf value = SQ_BUF_INIT(1 << 20), ours = SQ_BUF_INIT(1 << 20), theirs = SQ_BUF_INIT(1 << 20);
		struct sq_address_list l = { 0 };
		struct sq_error err = { 0 };
		bool is_address = false;

		for (size_t i = 0; i < SQ_LEN(names); i++)
			is_address |= sq_str_caseeq(f.name, sq_str(names[i]));
		sq_field_unfold(f.body, &value);
		if (is_address && value.n > 0 && sq_address_parse_list((struct sq_str){ value.p, value.n }, &l, &err) == SQ_OK) {
			InternetAddressList *g = internet_address_list_parse(NULL, value.p);

			for (size_t i = 0; i < l.n; i++)
				sq_buf_addf(&ours, "%s\n", l.v[i].text);
			gmime_addresses(g, &theirs);
			ck_assert_msg(strcmp(ours.p ? ours.p : "", theirs.p ? theirs.p : "") == 0, "%s: '%s'\nours:\n%s\ntheirs:\n%s",
				corpus[_i], value.p, ours.p ? ours.p : "", theirs.p ? theirs.p : "");
			if (g)
				g_object_unref(g);
		}
		sq_address_list_fini(&l);
		sq_buf_fini(&value);
		sq_buf_fini(&ours);
		sq_buf_fini(&theirs);
	}
	run_fini(&r);
	sq_buf_fini(&input);
}
END_TEST

/* The header's fields, one by one, are GMime's. */
START_TEST(corpus_file_has_the_fields_gmime_finds)
{
	struct sq_buf input = SQ_BUF_INIT(64u << 20);
	struct run r;
	struct sq_str rest;
	struct sq_field f;
	GMimeStream *stream;
	GMimeParser *parser;
	GMimeMessage *m;
	GMimeHeaderList *headers;
	int n = 0;

	g_mime_init();
	read_corpus(_i, &input);
	run(&r, (struct sq_str){ input.p, input.n }, (struct sq_intake_options){ 0 }, WHOLE);
	ck_ok(r.e, r.err);
	if (r.out.n > 0) {
		stream = g_mime_stream_mem_new_with_buffer(r.out.p, r.out.n);
		parser = g_mime_parser_new_with_stream(stream);
		m = g_mime_parser_construct_message(parser, NULL);
		ck_assert_ptr_nonnull(m);
		rest = (struct sq_str){ r.out.p, r.out.n };
		while (sq_field_next(&rest, &f))
			n++;
		/* GMime keeps the fields that describe the content with the part. */
		headers = g_mime_object_get_header_list(GMIME_OBJECT(m));
		n -= g_mime_header_list_get_count(headers);
		if (g_mime_message_get_mime_part(m))
			n -= g_mime_header_list_get_count(g_mime_object_get_header_list(g_mime_message_get_mime_part(m)));
		ck_assert_msg(n == 0, "%s: %d fields more than GMime finds", corpus[_i], n);
		ck_assert_ptr_nonnull(strstr(sq_intake_facts(r.in)->message_id, g_mime_message_get_message_id(m)));
		g_object_unref(m);
		g_object_unref(parser);
		g_object_unref(stream);
	}
	run_fini(&r);
	sq_buf_fini(&input);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("message_ingest");
	TCase *t = tcase_create("ingest");
	char folder[512];
	int status;

	snprintf(folder, sizeof(folder), "%s/corpus", test_data_dir());
	nftw(folder, note_file, 16, FTW_PHYS);
	tcase_add_loop_test(t, rule, 0, SQ_LEN(rows));
	tcase_add_test(t, facts);
	tcase_add_test(t, made_message_ids_differ_and_tell_nothing);
	tcase_add_test(t, a_header_has_a_limit_and_a_body_has_none);
	tcase_add_loop_test(t, corpus_file_goes_through, 0, n_corpus ? n_corpus : 1);
	tcase_add_loop_test(t, corpus_file_reads_as_gmime_reads_it, 0, n_corpus ? n_corpus : 1);
	tcase_add_loop_test(t, corpus_file_has_the_fields_gmime_finds, 0, n_corpus ? n_corpus : 1);
	suite_add_tcase(s, t);
	status = test_main(s);
	while (n_corpus > 0)
		free(corpus[--n_corpus]);
	return status;
}
