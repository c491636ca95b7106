/* Delivery reports and bounces as servers write them, and what must not be taken for one. */
#include <fcntl.h>
#include <unistd.h>

#include <sendq/bounce.h>
#include <sendq/report.h>

#include "harness.h"

#define STATUS(fields) \
	"Return-Path: <>\nFrom: Mail Delivery System <MAILER-DAEMON@mx.example.org>\nTo: ann@example.test\nMessage-ID: <1@mx.example.org>\n" \
	"Content-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"B=1\"\nMIME-Version: 1.0\n\n" \
	"--B=1\nContent-Type: text/plain\n\nWords with Message-ID: <in@words.test>\n\n" \
	"--B=1\nContent-Type: message/delivery-status\n\n" fields "\n" \
	"--B=1\nContent-Type: text/rfc822-headers\n\nSubject: hello\nMessage-ID: <ours@example.test>\n\n--B=1--\n"

static const struct row {
	const char *what, *mail;
	bool is_report;
	const char *envid, *message_id; /* the first one; NULL: none */
	size_t n;                       /* recipients */
	const char *original, *final;   /* of the first one */
	bool failed;
	int code;
	const char *enhanced, *words;
} rows[] = {
	{ "relayed", STATUS("Reporting-MTA: dns; mx.example.org\nOriginal-Envelope-Id: 0123abcd-1004-0\n\n"
		"Final-Recipient: rfc822; bob@example.test\nOriginal-Recipient: rfc822;bob+2Bx@example.test\nAction: relayed\nStatus: 2.0.0\n"
		"Diagnostic-Code: smtp; 250 2.0.0 ok\n"),
	  true, "0123abcd-1004-0", "<ours@example.test>", 1, "bob+x@example.test", "bob@example.test", false, 0, "2.0.0", "250 2.0.0 ok" },
	{ "failed, a reply of several lines", STATUS("Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; <bob@example.test>\nAction: Failed\nStatus: 5.1.1\n"
		"Diagnostic-Code: smtp; 550-5.1.1 No such\n    user here\n"),
	  true, "", "<ours@example.test>", 1, "", "bob@example.test", true, 550, "5.1.1", "No such user here" },
	{ "delayed, no diagnostic", STATUS("Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; bob@example.test\nAction: delayed\nStatus: 4.2.2\n"),
	  true, "", "<ours@example.test>", 1, "", "bob@example.test", false, 0, "4.2.2", "delayed" },
	{ "two recipients", STATUS("Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; bob@example.test\nAction: failed\nStatus: 5.0.0\n\n"
		"Final-Recipient: rfc822; carol@example.test\nAction: delivered\nStatus: 2.0.0\n"),
	  true, "", "<ours@example.test>", 2, "", "bob@example.test", true, 0, "5.0.0", "failed" },
	{ "an action that nobody knows proves nothing", STATUS("Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; bob@example.test\nAction: pondered\n"),
	  false, "", NULL, 0, NULL, NULL, false, 0, NULL, NULL },
	{ "a notice of sendq about a doubt", STATUS("Original-Envelope-Id: 0123abcd-1004-0\nReporting-MTA: dns; localhost\n\n"
		"Final-Recipient: rfc822; bob@example.test\nAction: delayed\nStatus: 4.4.2\nX-Sendq-State: in-doubt\n"),
	  false, "", NULL, 0, NULL, NULL, false, 0, NULL, NULL },
	{ "xtext with a control in it", STATUS("Reporting-MTA: dns; mx\n\nOriginal-Recipient: rfc822;bob+0A@example.test\nAction: delivered\n"),
	  false, "", NULL, 0, NULL, NULL, false, 0, NULL, NULL },
	{ "a notice of sendq by its Message-ID", "Return-Path: <>\nMessage-ID: <1.a@sendq.invalid>\nX-Failed-Recipients: bob@example.test\n\n"
		"Message-ID: <ours@example.test>\n", false, "", NULL, 0, NULL, NULL, false, 0, NULL, NULL },
	{ "an ordinary message that quotes", "Return-Path: <bob@example.test>\nFrom: bob@example.test\nMessage-ID: <x@y>\nReferences: <ours@example.test>\n\n"
		"> Message-ID: <ours@example.test>\n", false, "", NULL, 0, NULL, NULL, false, 0, NULL, NULL },
	{ "Exim", "From MAILER-DAEMON Tue Nov 24 12:00:00 2026\nReturn-Path: <>\nX-Failed-Recipients: bob@example.test,\n  carol@example.test\n"
		"Message-ID: <E1@exim>\nFrom: Mail Delivery System <Mailer-Daemon@exim.test>\n\nThis message was created automatically.\n\n"
		"------ This is a copy of the message ------\n\nReceived: by x\nMessage-ID: <ours@example.test>\nSubject: hello\n\nbody\n",
	  true, "", "<ours@example.test>", 2, "", "bob@example.test", true, 0, "", "a bounce names it as failed" },
	{ "qmail", "Return-Path: <>\nFrom: MAILER-DAEMON@qmail.test\n\nHi. This is the qmail-send program at qmail.test.\nI'm afraid.\n\n"
		"<bob@example.test>:\n550 5.1.1 no such user\n\n--- Below this line is a copy of the message.\n\nMessage-ID: <ours@example.test>\n<not@this.one>:\n",
	  true, "", "<ours@example.test>", 1, "", "bob@example.test", true, 550, "5.1.1", "no such user" },
	{ "a bounce that names nobody", "Return-Path: <>\nFrom: x@y\n\nIt did not work.\n\n>Message-ID: <ours@example.test>\n",
	  true, "", "<ours@example.test>", 0, NULL, NULL, false, 0, NULL, NULL },
	{ "a bounce that quotes nothing", "Return-Path: <>\nFrom: x@y\n\nIt did not work.\n", false, "", NULL, 0, NULL, NULL, false, 0, NULL, NULL },
	{ "cut in the report", "Return-Path: <>\nContent-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
		"Original-Envelope-Id: e\n\nFinal-Recipient: rfc822; bob@example.test\nAction: delivered",
	  true, "e", NULL, 1, "", "bob@example.test", false, 0, "", "delivered" },
	{ "a report in a wrapper", "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/report; boundary=i\n\n--i\n"
		"Content-Type: message/delivery-status\n\nX: y\n\nFinal-Recipient: rfc822; bob@example.test\nAction: delivered\n\n--i--\n--o--\n",
	  true, "", NULL, 1, "", "bob@example.test", false, 0, "", "delivered" },
	{ "nothing", "", false, "", NULL, 0, NULL, NULL, false, 0, NULL, NULL },
	{ "a boundary alone", "Content-Type: multipart/report; boundary=b\n\n--b", false, "", NULL, 0, NULL, NULL, false, 0, NULL, NULL },
};

static void
check_row(const struct row *t, struct sq_str mail)
{
	struct sq_bounce b;
	struct sq_error err = { 0 };

	ck_ok(sq_bounce_read(mail, &b, &err), err);
	ck_assert_msg(b.is_report == t->is_report, "%s: report %d", t->what, b.is_report);
	ck_assert_str_eq(b.envid, t->envid);
	ck_assert_msg((b.n_message_ids > 0) == (t->message_id != NULL), "%s: %zu Message-IDs", t->what, b.n_message_ids);
	if (t->message_id)
		ck_assert_str_eq(b.message_ids[0], t->message_id);
	ck_assert_msg(b.n_recipients == t->n, "%s: %zu recipients", t->what, b.n_recipients);
	if (t->n > 0) {
		ck_assert_str_eq(b.recipients[0].original, t->original);
		ck_assert_str_eq(b.recipients[0].final, t->final);
		ck_assert_int_eq(b.recipients[0].failed, t->failed);
		ck_assert_int_eq(b.recipients[0].code, t->code);
		ck_assert_str_eq(b.recipients[0].enhanced, t->enhanced);
		ck_assert_str_eq(b.recipients[0].words, t->words);
	}
	sq_bounce_fini(&b);
}

START_TEST(row)
{
	check_row(&rows[_i], sq_str(rows[_i].mail));
}
END_TEST

/* The same with CRLF line ends. */
START_TEST(row_crlf)
{
	struct sq_buf b = SQ_BUF_INIT(65536);

	for (const char *p = rows[_i].mail; *p; p++)
		*p == '\n' ? sq_buf_add(&b, "\r\n", 2) : sq_buf_addc(&b, *p);
	check_row(&rows[_i], (struct sq_str){ b.p, b.n });
	sq_buf_fini(&b);
}
END_TEST

/* Cut anywhere it is read without harm, and never says more than the whole. */
START_TEST(cut_anywhere)
{
	struct sq_str mail = sq_str(rows[0].mail);

	for (size_t n = 0; n <= mail.n; n++) {
		SQ_CLEANUP(sq_freep) char *copy = sq_str_dup((struct sq_str){ mail.p, n });
		struct sq_bounce b;

		ck_assert_int_eq(sq_bounce_read((struct sq_str){ copy, n }, &b, NULL), SQ_OK);
		ck_assert_uint_le(b.n_recipients, 1);
		sq_bounce_fini(&b);
	}
}
END_TEST

static const struct { const char *file; size_t n; const char *first, *enhanced, *message_id; bool failed; } files[] = {
	{ "multi_address_bounce1.eml", 5, "bbbbvhvbbvkjbhfbvbvjhb@gmail.com", "5.1.1", "<118707422.15521266992174819.JavaMail.root@lvmail01>", true },
	{ "multi_address_bounce2.eml", 5, "bbbbvhvbbvkjbhfbvbvjhb@gmail.com", "5.1.1", "<118707422.15521266992174819.JavaMail.root@lvmail01>", true },
	{ "multipart_report_multiple_status.eml", 1, "u@ci.com", "5.3.0", "<4c2a146147ac8_61ff157c4ec1652df@s.h.c.mail>", true },
	{ "report_422.eml", 1, "fraser@oooooooo.com.au", "4.2.2", "<15655788.13.1200472642578.JavaMail.Administrator@mail.ttttt.com.au>", false },
	{ "report_530.eml", 1, "edwin@zzzzzzz.com", "5.3.0", "<200712232303.lBNN3jDq002941@mail12.rrrr.com.au>", true },
};

START_TEST(from_the_corpus)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf mail = SQ_BUF_INIT(1024 * 1024);
	SQ_CLEANUP(sq_closep) int fd = -1;
	char path[512];
	struct sq_bounce b;
	struct sq_error err = { 0 };

	snprintf(path, sizeof(path), "%s/corpus/multipart_report_emails/%s", test_data_dir(), files[_i].file);
	fd = open(path, O_RDONLY);
	ck_assert_msg(fd >= 0, "%s", path);
	ck_ok(sq_buf_read_fd(&mail, fd, &err), err);
	ck_ok(sq_bounce_read((struct sq_str){ mail.p, mail.n }, &b, &err), err);
	ck_assert(b.is_report);
	ck_assert_uint_eq(b.n_recipients, files[_i].n);
	ck_assert_str_eq(b.recipients[0].final, files[_i].first);
	ck_assert_str_eq(b.recipients[0].enhanced, files[_i].enhanced);
	ck_assert_int_eq(b.recipients[0].failed, files[_i].failed);
	ck_assert_uint_eq(b.n_message_ids, 1);
	ck_assert_str_eq(b.message_ids[0], files[_i].message_id);
	sq_bounce_fini(&b);
}
END_TEST

/* Reports of sendq's own come back to the same mailbox; the more so where they are mailed, under a Message-ID like any other. */
START_TEST(own_reports)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf mail = SQ_BUF_INIT(1024 * 1024);
	struct sq_report_recipient to = { .address = "bob@example.test", .expired = true };
	struct sq_report rep = { .kind = (enum sq_report_kind)_i, .id = "1000", .to = "ann@example.test", .from = "ann@example.test",
		.own_id = "<own@example.test>", .message_id = "<ours@example.test>", .subject = "hello", .envid = "mine", .route = "home",
		.submitted_ms = 1000, .now_ms = 2000, .recipients = &to, .n_recipients = 1, .words = "because",
		.header = SQ_STR("Message-ID: <ours@example.test>\r\n") };
	struct sq_bounce b;
	struct sq_error err = { 0 };

	ck_ok(sq_report_build(&rep, &mail, &err), err);
	ck_ok(sq_bounce_read((struct sq_str){ mail.p, mail.n }, &b, &err), err);
	ck_assert(!b.is_report);
	ck_assert_uint_eq(b.n_message_ids, 0);
}
END_TEST

/* Far more of everything than anybody needs. */
START_TEST(bounded)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf mail = SQ_BUF_INIT(8 * 1024 * 1024);
	struct sq_bounce b;
	struct sq_error err = { 0 };

	sq_buf_adds(&mail, "Content-Type: multipart/report; boundary=b\n\n");
	for (int i = 0; i < 3000; i++)
		sq_buf_addf(&mail, "--b\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; u%d@example.test\nAction: delivered\n\n"
			"--b\nContent-Type: message/rfc822\n\nMessage-ID: <%d@example.test>\n\n", i, i);
	for (int i = 0; i < 2000000; i++)
		sq_buf_addc(&mail, i % 80 ? 'x' : '\n');
	ck_ok(sq_bounce_read((struct sq_str){ mail.p, mail.n }, &b, &err), err);
	ck_assert(b.is_report);
	ck_assert_uint_le(b.n_recipients, SQ_BOUNCE_RECIPIENTS_MAX);
	ck_assert_uint_le(b.n_message_ids, SQ_BOUNCE_IDS_MAX);
	sq_bounce_fini(&b);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("bounce");
	TCase *t = tcase_create("read");

	tcase_add_loop_test(t, row, 0, SQ_LEN(rows));
	tcase_add_loop_test(t, row_crlf, 0, SQ_LEN(rows));
	tcase_add_test(t, cut_anywhere);
	tcase_add_loop_test(t, from_the_corpus, 0, SQ_LEN(files));
	tcase_add_loop_test(t, own_reports, SQ_REPORT_FAILED, SQ_REPORT_DELAYED + 1);
	tcase_add_test(t, bounded);
	suite_add_tcase(s, t);
	return test_main(s);
}
