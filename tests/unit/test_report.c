/*
 * Reports: what we write, GMime reads as RFC 3464 and RFC 3462 want it, with
 * the fields of every recipient; nobody's words can add a field or a part.
 */
#include <dirent.h>
#include <gmime/gmime.h>
#include <sendq/report.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

enum { WHEN = 1700000000 };

static struct sq_buf text = SQ_BUF_INIT(1 << 24);
static struct sq_error err;

static const struct row {
	enum sq_report_kind kind;
	bool expired;
	int code;
	const char *enhanced;
	const char *subject, *action, *status;
} rows[] = {
	{ SQ_REPORT_FAILED, false, 550, "5.1.1", "Not delivered: hello", "failed", "5.1.1" },
	{ SQ_REPORT_FAILED, false, 550, "", "Not delivered: hello", "failed", "5.0.0" },
	{ SQ_REPORT_FAILED, false, 0, "", "Not delivered: hello", "failed", "5.0.0" },
	{ SQ_REPORT_FAILED, true, 451, "4.7.1", "Not delivered: hello", "failed", "4.4.7" },
	{ SQ_REPORT_DOUBT, false, 0, "", "In doubt: hello", "delayed", "4.4.2" },
	{ SQ_REPORT_SETTLED, false, 250, "2.0.0", "Sent after all: hello", "relayed", "2.0.0" },
	{ SQ_REPORT_RESENT, false, 0, "", "Sent again: hello", "delayed", "4.4.2" },
	{ SQ_REPORT_DELAYED, false, 451, "4.7.1", "Still waiting: hello", "delayed", "4.7.1" },
	{ SQ_REPORT_DELAYED, false, 0, "", "Still waiting: hello", "delayed", "4.0.0" },
	{ SQ_REPORT_CUT, false, 0, "", "Broke off, goes on: hello", "delayed", "4.4.2" },
};

static const char header[] = "From: ann@example.org\r\nTo: bob@example.org\r\nSubject: hello\r\n";

static GMimeMessage *
build(const struct sq_report *r)
{
	GMimeStream *stream;
	GMimeParser *parser;
	GMimeMessage *m;

	sq_buf_clear(&text);
	ck_ok(sq_report_build(r, &text, &err), err);
	/* Lines as they may go by mail. */
	for (const char *p = text.p, *end; (end = strchr(p, '\n')) != NULL; p = end + 1)
		ck_assert_msg(end - p <= 998, "a line of %td octets: %.60s", end - p, p);
	ck_assert_ptr_null(memchr(text.p, '\r', text.n));
	ck_assert_ptr_null(memchr(text.p, '\0', text.n));
	stream = g_mime_stream_mem_new_with_buffer(text.p, text.n);
	parser = g_mime_parser_new_with_stream(stream);
	m = g_mime_parser_construct_message(parser, NULL);
	g_object_unref(parser);
	g_object_unref(stream);
	ck_assert_msg(m != NULL, "GMime reads no message");
	return m;
}

/* The octets of a part, decoded. Heap. */
static char *
body_of(GMimeObject *part)
{
	GMimeStream *mem = g_mime_stream_mem_new();
	GByteArray *a;
	char *out;

	ck_assert(GMIME_IS_PART(part));
	g_mime_data_wrapper_write_to_stream(g_mime_part_get_content(GMIME_PART(part)), mem);
	a = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(mem));
	out = sq_str_dup((struct sq_str){ (const char *)a->data, a->len });
	g_object_unref(mem);
	return out;
}

/* The groups of fields of the delivery-status part: 0 the message's, then one a recipient. */
static GMimeHeaderList *
group(GMimeObject *part, int n)
{
	SQ_CLEANUP(sq_freep) char *body = body_of(part);
	GMimeHeaderList *out = NULL;
	char *p = body, *end;

	for (int i = 0; i < n; i++) {
		end = strstr(p, "\n\n");
		if (!end)
			return NULL;
		p = end + 2;
	}
	if (*p) {
		GMimeStream *stream;
		GMimeParser *parser;

		if ((end = strstr(p, "\n\n")) != NULL)
			end[2] = '\0';
		stream = g_mime_stream_mem_new_with_buffer(p, strlen(p));
		parser = g_mime_parser_new_with_stream(stream);
		GMimeMessage *m = g_mime_parser_construct_message(parser, NULL);

		out = g_object_ref(g_mime_object_get_header_list(GMIME_OBJECT(m)));
		g_object_unref(m);
		g_object_unref(parser);
		g_object_unref(stream);
	}
	return out;
}

static void
ck_field(GMimeHeaderList *l, const char *name, const char *want)
{
	GMimeHeader *h = l ? g_mime_header_list_get_header(l, name) : NULL;
	const char *value = h ? g_mime_header_get_value(h) : NULL;

	if (!want)
		ck_assert_msg(!value, "%s: '%s'", name, value);
	else
		ck_assert_msg(value && strcmp(value, want) == 0, "%s: '%s', not '%s'", name, value ? value : "(none)", want);
}

/* Three parts of the right types, the status before what is returned. */
static GMimeObject *
parts(GMimeMessage *m)
{
	static const char *const types[] = { "text/plain", "message/delivery-status", "text/rfc822-headers" };
	GMimeObject *top = g_mime_message_get_mime_part(m);
	GMimeContentType *t = g_mime_object_get_content_type(top);

	ck_assert(g_mime_content_type_is_type(t, "multipart", "report"));
	ck_assert_str_eq(g_mime_content_type_get_parameter(t, "report-type"), "delivery-status");
	ck_assert_int_eq(g_mime_multipart_get_count(GMIME_MULTIPART(top)), 3);
	for (int i = 0; i < 3; i++) {
		GMimeContentType *part = g_mime_object_get_content_type(g_mime_multipart_get_part(GMIME_MULTIPART(top), i));
		char *name = g_mime_content_type_get_mime_type(part);

		ck_assert_str_eq(name, types[i]);
		g_free(name);
	}
	return top;
}

static struct sq_report
report(const struct row *row, const struct sq_report_recipient *told, size_t n)
{
	return (struct sq_report){ .kind = row->kind, .id = "1000", .to = "ann@example.org", .message_id = "<1@example.org>", .subject = "hello",
		.envid = "mine+2Bx", .route = "home", .submitted_ms = INT64_C(1000) * WHEN, .now_ms = INT64_C(1000) * (WHEN + 60),
		.until_ms = INT64_C(1000) * (WHEN + 432000), .recipients = told, .n_recipients = n, .words = "seen in Sent", .header = SQ_STR(header) };
}

START_TEST(as_gmime_reads_it)
{
	const struct row *row = &rows[_i];
	struct sq_report_recipient told[2] = {
		{ .address = "bob@example.org", .orcpt = "rfc822;Bob+40example.org", .expired = row->expired, .reply = { .code = row->code, .text = SQ_STR("the server's\nwords") } },
		{ .address = "carol@example.org", .expired = row->expired, .reply = { .text = SQ_STR("our own words") } },
	};
	struct sq_report r = report(row, told, 2);
	GMimeMessage *m;
	GMimeObject *top, *status;
	GMimeHeaderList *l;
	InternetAddressList *to;
	GDateTime *when;
	char *body;

	snprintf(told[0].reply.enhanced, sizeof(told[0].reply.enhanced), "%s", row->enhanced);
	m = build(&r);
	ck_assert_str_eq(g_mime_message_get_subject(m), row->subject);
	to = g_mime_message_get_to(m);
	ck_assert_int_eq(internet_address_list_length(to), 1);
	ck_assert_str_eq(internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(internet_address_list_get_address(to, 0))), "ann@example.org");
	when = g_mime_message_get_date(m);
	ck_assert_ptr_nonnull(when);
	ck_assert_int_eq(g_date_time_to_unix(when), WHEN + 60);
	/* Nothing answers a report by itself. */
	ck_assert_str_eq(g_mime_object_get_header(GMIME_OBJECT(m), "Auto-Submitted"), "auto-replied");
	ck_assert_str_eq(g_mime_object_get_header(GMIME_OBJECT(m), "References"), "<1@example.org>");
	ck_assert_ptr_nonnull(g_mime_message_get_message_id(m));

	top = parts(m);
	status = g_mime_multipart_get_part(GMIME_MULTIPART(top), 1);
	l = group(status, 0);
	ck_field(l, "Reporting-MTA", "dns; localhost");
	ck_field(l, "Original-Envelope-Id", "mine+x");
	ck_assert_ptr_nonnull(g_mime_header_list_get_header(l, "Arrival-Date"));
	g_object_unref(l);
	l = group(status, 1);
	ck_field(l, "Original-Recipient", "rfc822; Bob@example.org");
	ck_field(l, "Final-Recipient", "rfc822; bob@example.org");
	ck_field(l, "Action", row->action);
	ck_field(l, "Status", row->status);
	if (row->code) {
		char want[80];

		snprintf(want, sizeof(want), "smtp; %d %s%sthe server's words", row->code, row->enhanced, row->enhanced[0] ? " " : "");
		ck_field(l, "Diagnostic-Code", want);
	} else {
		ck_field(l, "Diagnostic-Code", NULL);
	}
	ck_assert_int_eq(g_mime_header_list_get_header(l, "Will-Retry-Until") != NULL, row->kind == SQ_REPORT_DELAYED || row->kind == SQ_REPORT_CUT);
	ck_field(l, "X-Sendq-State", row->kind == SQ_REPORT_DOUBT ? "in-doubt" : row->kind == SQ_REPORT_SETTLED ? "settled"
		: row->kind == SQ_REPORT_RESENT ? "sent-again" : row->kind == SQ_REPORT_DELAYED ? "waiting" : row->kind == SQ_REPORT_CUT ? "broke-off" : "failed");
	g_object_unref(l);
	l = group(status, 2);
	ck_field(l, "Final-Recipient", "rfc822; carol@example.org");
	ck_field(l, "Original-Recipient", NULL);
	ck_field(l, "Action", row->action);
	g_object_unref(l);
	ck_assert_ptr_null(group(status, 3));

	/* What is returned is the header, and nothing of a body. */
	body = body_of(g_mime_multipart_get_part(GMIME_MULTIPART(top), 2));
	ck_assert_ptr_nonnull(strstr(body, "Subject: hello\n"));
	free(body);
	body = body_of(g_mime_multipart_get_part(GMIME_MULTIPART(top), 0));
	ck_assert_ptr_nonnull(strstr(body, "bob@example.org"));
	ck_assert_ptr_nonnull(strstr(body, "1000"));
	free(body);
	g_object_unref(m);
}
END_TEST

/* Whatever stands in a subject, a reply, an address or an ENVID: the same parts, the same fields, no more. */
static const char *const nasty[] = {
	"x\nX-Injected: yes", "x\r\nX-Injected: yes\r\n\r\n--", "\n\nX-Injected: yes", "-- \n--x--\n", "gr\xc3\xbc\xc3\x9f aus K\xc3\xb6ln", "\xff\xfe\xfd", "\x1b[31mred",
	"=?utf-8?Q?X-Injected?=", "", "   ",
};

START_TEST(no_words_break_out)
{
	static char long_text[SQ_REPLY_TEXT_MAX + 1], header8[400];
	const struct row *row = &rows[_i % (int)SQ_LEN(rows)];
	const char *words = nasty[_i / (int)SQ_LEN(rows)];
	struct sq_report_recipient told[1] = { { .address = "bob@example.org", .orcpt = words, .expired = row->expired, .reply = { .code = 550 } } };
	struct sq_report r = report(row, told, 1);
	GMimeMessage *m;
	GMimeObject *top, *status;
	GMimeHeaderList *l;
	const char *subject;
	char *all;

	snprintf(told[0].reply.enhanced, sizeof(told[0].reply.enhanced), "%s", row->enhanced);
	/* The words again and again, up to the length of a reply. */
	for (size_t n = 0; words[0] && n + strlen(words) < sizeof(long_text); n += strlen(words))
		memcpy(long_text + n, words, strlen(words) + 1);
	snprintf(header8, sizeof(header8), "%sX-Words: gr\xc3\xbc\xc3\x9f\r\n", header);
	told[0].reply.text = sq_str(long_text);
	r.subject = r.envid = r.message_id = r.to = r.words = words;
	r.header = sq_str(header8);
	m = build(&r);
	top = parts(m);
	status = g_mime_multipart_get_part(GMIME_MULTIPART(top), 1);
	ck_assert_ptr_null(g_mime_object_get_header(GMIME_OBJECT(m), "X-Injected"));
	l = group(status, 1);
	ck_field(l, "X-Injected", NULL);
	ck_field(l, "Action", row->action);
	ck_field(l, "Status", row->status);
	g_object_unref(l);
	l = group(status, 0);
	ck_field(l, "X-Injected", NULL);
	g_object_unref(l);
	ck_assert_ptr_null(group(status, 2));
	/* The fields are ASCII, and a subject of letters is the same subject. */
	all = body_of(status);
	for (const char *p = all; *p; p++)
		ck_assert_msg((unsigned char)*p < 0x7f, "octet %d among the fields", (unsigned char)*p);
	free(all);
	subject = g_mime_message_get_subject(m);
	if (strstr(words, "K\xc3\xb6ln"))
		ck_assert_msg(strstr(subject, words) != NULL, "%s", subject);
	g_object_unref(m);
}
END_TEST

START_TEST(long_words_are_folded)
{
	static char word[SQ_REPLY_TEXT_MAX + 1], subject[201];
	struct sq_report_recipient told[1] = { { .address = "j\xc3\xb6rg+x@b\xc3\xbc" "cher.example", .reply = { .code = 550, .text = { word, SQ_REPLY_TEXT_MAX } } } };
	struct sq_report r = report(&rows[0], told, 1);
	GMimeMessage *m;
	GMimeHeaderList *l;

	memset(word, 'w', SQ_REPLY_TEXT_MAX);
	for (size_t i = 0; i < 200; i += 2)
		memcpy(subject + i, "\xc3\xa9", 2);
	r.subject = subject;
	m = build(&r);
	ck_assert_msg(strstr(g_mime_message_get_subject(m), subject) != NULL, "%s", g_mime_message_get_subject(m));
	l = group(g_mime_multipart_get_part(GMIME_MULTIPART(parts(m)), 1), 1);
	ck_field(l, "Final-Recipient", "utf-8; j\\x{F6}rg\\x{2B}x@b\\x{FC}cher.example");
	g_object_unref(l);
	g_object_unref(m);
}
END_TEST

/* To nobody is to the local user; a report that goes by mail comes from the address given. */
START_TEST(to_and_from)
{
	struct sq_report_recipient told[1] = { { .address = "bob@example.org" } };
	struct sq_report r = report(&rows[0], told, 1);
	GMimeMessage *m;

	r.to = NULL;
	r.envid = NULL;
	m = build(&r);
	ck_assert_str_eq(g_mime_object_get_header(GMIME_OBJECT(m), "To"), "sendq@localhost");
	ck_assert_str_eq(g_mime_object_get_header(GMIME_OBJECT(m), "From"), "sendq <sendq@localhost>");
	g_object_unref(m);
	r.from = "me@example.org";
	m = build(&r);
	ck_assert_str_eq(g_mime_object_get_header(GMIME_OBJECT(m), "From"), "sendq <me@example.org>");
	g_object_unref(m);
}
END_TEST

START_TEST(a_limit_is_told)
{
	struct sq_report_recipient told[1] = { { .address = "bob@example.org" } };
	struct sq_report r = report(&rows[0], told, 1);
	struct sq_buf small = SQ_BUF_INIT(500);

	ck_assert_int_eq(sq_report_build(&r, &small, &err), SQ_ELIMIT);
	sq_buf_fini(&small);
}
END_TEST

/* ---- the Maildir ---- */

static int
files_in(const char *maildir, const char *sub)
{
	char path[300];
	struct dirent *d;
	DIR *dir;
	int n = 0;

	snprintf(path, sizeof(path), "%s/%s", maildir, sub);
	dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	while ((d = readdir(dir)) != NULL)
		n += d->d_name[0] != '.';
	closedir(dir);
	return n;
}

START_TEST(maildir)
{
	char path[256], sub[300];
	struct stat st;

	test_path(path, "notices");
	ck_ok(sq_maildir_deliver(path, "1000-failed-1", SQ_STR("one\n"), 5000, &err), err);
	ck_assert_int_eq(files_in(path, "new"), 1);
	ck_assert_int_eq(files_in(path, "tmp"), 0);
	ck_assert_int_eq(files_in(path, "cur"), 0);
	/* The same again, as after a crash: it replaces the first. */
	ck_ok(sq_maildir_deliver(path, "1000-failed-1", SQ_STR("two\n"), 5000, &err), err);
	ck_assert_int_eq(files_in(path, "new"), 1);
	ck_ok(sq_maildir_deliver(path, "1000-failed-1", SQ_STR("three\n"), 6000, &err), err);
	ck_assert_int_eq(files_in(path, "new"), 2);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0700);
	/* A Maildir that cannot be written: a sentence, and no half file. */
	snprintf(sub, sizeof(sub), "%s/new", path);
	ck_assert_int_eq(rename(sub, path) == 0, 0);
	snprintf(sub, sizeof(sub), "%s/new/5.1000-failed-1.sendq", path);
	ck_assert_int_eq(unlink(sub), 0);
	ck_assert_int_eq(mkdir(sub, 0700), 0);
	ck_assert_int_ne(sq_maildir_deliver(path, "1000-failed-1", SQ_STR("four\n"), 5000, &err), SQ_OK);
	ck_assert_ptr_nonnull(strstr(err.text, sub));
	ck_assert_int_eq(files_in(path, "tmp"), 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("report");
	TCase *t = tcase_create("report");
	int failed;

	g_mime_init();
	tcase_add_loop_test(t, as_gmime_reads_it, 0, SQ_LEN(rows));
	tcase_add_loop_test(t, no_words_break_out, 0, SQ_LEN(nasty) * SQ_LEN(rows));
	tcase_add_test(t, long_words_are_folded);
	tcase_add_test(t, to_and_from);
	tcase_add_test(t, a_limit_is_told);
	tcase_add_test(t, maildir);
	suite_add_tcase(s, t);
	failed = test_main(s);
	sq_buf_fini(&text);
	return failed;
}
