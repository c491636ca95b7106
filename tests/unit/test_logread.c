/* Logs of Postfix and Exim, line by line, and what they prove. */
#include "harness.h"

#include "../../sendq/agent/logread.h"

#define T0 INT64_C(1764134480000) /* 2025-11-26 05:21:20 UTC: the attempt begins */
#define CUT (T0 + 5000)

/* Postfix, its own file's form. %s stand for nothing: times are around T0. */
#define P "Nov 26 05:21:2"
#define BEFORE "Nov 26 05:00:00 mx postfix/master[1]: daemon started\n"
#define AFTER "Nov 26 05:21:30 mx postfix/anvil[9]: statistics\n"
#define CLIENT P "1 mx postfix/smtps/smtpd[77]: 4A5B6C7D: client=localhost[127.0.0.1], sasl_method=PLAIN\n"
#define CLEANUP P "2 mx postfix/cleanup[78]: 4A5B6C7D: message-id=<m@x>\n"
#define QMGR P "4 mx postfix/qmgr[79]: 4A5B6C7D: from=<ann@x>, size=100, nrcpt=1 (queue active)\n"
#define LOST P "5 mx postfix/smtps/smtpd[77]: lost connection after BDAT (100 bytes) from localhost[127.0.0.1]\n"

#define E "2025-11-26 05:21:2"
#define E_BEFORE "2025-11-26 05:00:00 exim 4.96 daemon started\n"
#define E_AFTER "2025-11-26 05:21:30 End queue run\n"

static const struct row { const char *what, *log; enum logread_answer answer; const char *quote; } rows[] = {
	{ "nothing", "", LOGREAD_UNKNOWN, "no line of Postfix" },
	{ "another program's log", "Nov 26 05:21:20 mx sshd[4]: hello\n", LOGREAD_UNKNOWN, "no line of Postfix" },
	{ "accepted", BEFORE CLIENT CLEANUP QMGR LOST AFTER, LOGREAD_POSITIVE, "(queue active)" },
	{ "accepted, qmgr after the session's end", BEFORE CLIENT CLEANUP P "5 mx postfix/smtps/smtpd[77]: lost connection after END-OF-MESSAGE from x\n" QMGR AFTER, LOGREAD_POSITIVE, "queue active" },
	{ "accepted and delivered at once", BEFORE CLIENT CLEANUP P "4 mx postfix/virtual[80]: 4A5B6C7D: to=<b@x>, relay=virtual, status=sent\n", LOGREAD_POSITIVE, "status=sent" },
	{ "accepted, the log begins later", CLEANUP QMGR, LOGREAD_POSITIVE, "queue active" },
	{ "cut in the content", BEFORE CLIENT CLEANUP LOST AFTER, LOGREAD_ENDED, "lost connection after BDAT" },
	{ "cut in the content, cleanup writes later", BEFORE CLIENT LOST P "5 mx postfix/smtps/smtpd[77]: disconnect from x\n" CLEANUP AFTER, LOGREAD_ENDED, "lost connection after BDAT" },
	{ "another message of the same process was cut", BEFORE CLIENT LOST P "5 mx postfix/smtps/smtpd[77]: 99998888: client=x\n" CLEANUP AFTER, LOGREAD_UNKNOWN, "does not say" },
	{ "cut behind the end, not in the queue: nobody knows", BEFORE CLIENT CLEANUP P "5 mx postfix/smtps/smtpd[77]: lost connection after END-OF-MESSAGE from x\n" AFTER, LOGREAD_UNKNOWN, "does not say" },
	{ "still being taken in", BEFORE CLIENT CLEANUP AFTER, LOGREAD_UNKNOWN, "does not say" },
	{ "another session was cut", BEFORE CLIENT CLEANUP P "5 mx postfix/smtps/smtpd[76]: lost connection after BDAT from x\n" AFTER, LOGREAD_UNKNOWN, "does not say" },
	{ "the process took in something else before it was cut", BEFORE CLIENT CLEANUP P "4 mx postfix/smtps/smtpd[77]: 11112222: client=x\n" LOST AFTER, LOGREAD_UNKNOWN, "does not say" },
	{ "refused at the end", BEFORE CLIENT CLEANUP P "4 mx postfix/cleanup[78]: 4A5B6C7D: milter-reject: END-OF-MESSAGE from x: 5.7.1 no\n" AFTER, LOGREAD_ENDED, "milter-reject" },
	{ "no trace of it", BEFORE AFTER, LOGREAD_NEGATIVE, "no acceptance" },
	{ "no trace, but the log begins later", CLIENT AFTER, LOGREAD_UNKNOWN, "reach back" },
	{ "no trace, but the log ends before", BEFORE, LOGREAD_UNKNOWN, "ends before" },
	{ "another message", BEFORE CLIENT P "2 mx postfix/cleanup[78]: 4A5B6C7D: message-id=<mm@x>\n" QMGR AFTER, LOGREAD_NEGATIVE, "no acceptance" },
	{ "a Message-ID that begins with ours", BEFORE CLIENT P "2 mx postfix/cleanup[78]: 4A5B6C7D: message-id=<m@xy>\n" QMGR AFTER, LOGREAD_NEGATIVE, "" },
	{ "an earlier submission of it", BEFORE "Nov 26 05:10:00 mx postfix/cleanup[78]: 1111AAAA: message-id=<m@x>\nNov 26 05:10:00 mx postfix/qmgr[79]: 1111AAAA: from=<a>\n" AFTER, LOGREAD_UNKNOWN, "earlier" },
	{ "ISO times", "2025-11-26T05:21:22.123456+00:00 mx postfix/cleanup[78]: 4A5B6C7D: message-id=<m@x>\n2025-11-26T06:21:23+01:00 mx postfix/qmgr[79]: 4A5B6C7D: from=<ann@x>\n", LOGREAD_POSITIVE, "from=<ann@x>" },
	{ "forged by words in a line", BEFORE CLIENT P "3 mx postfix/smtps/smtpd[77]: warning: 4A5B6C7D: message-id=<m@x>\n" QMGR AFTER, LOGREAD_NEGATIVE, "" },
	{ "Exim: accepted", E_BEFORE E "3 1tXyzA-000123-AB <= ann@x H=(abc.invalid) [127.0.0.1] P=esmtpsa S=100 id=m@x\n", LOGREAD_POSITIVE, "<= ann@x" },
	{ "Exim: accepted, with process ids", E_BEFORE E "3 [55] 1tXyzA-000123-AB <= ann@x H=(abc.invalid) [127.0.0.1] P=esmtpsa S=100 id=m@x for b@x\n", LOGREAD_POSITIVE, "<= ann@x" },
	{ "Exim: lost after the final dot", E_BEFORE E "4 1tXyzA-000123-AB SMTP connection lost after final dot H=(abc.invalid) [127.0.0.1] P=esmtp\n", LOGREAD_ENDED, "final dot" },
	{ "Exim: the same, of somebody else", E_BEFORE E "4 1tXyzA-000123-AB SMTP connection lost after final dot H=(abd.invalid) [127.0.0.1] P=esmtp\n" E_AFTER, LOGREAD_NEGATIVE, "" },
	{ "Exim: accepted under another id", E_BEFORE E "3 1tXyzA-000123-AB <= ann@x H=(abc.invalid) S=100 id=mm@x\n" E_AFTER, LOGREAD_NEGATIVE, "" },
	{ "Exim: no trace", E_BEFORE E_AFTER, LOGREAD_NEGATIVE, "" },
	{ "Exim: earlier", E_BEFORE "2025-11-26 05:01:00 1tXyzA-000123-AB <= ann@x S=100 id=m@x\n" E_AFTER, LOGREAD_UNKNOWN, "earlier" },
	{ "Exim: with a zone", E_BEFORE "2025-11-26 04:21:23.123 -0100 1tXyzA-000123-AB <= ann@x S=100 id=m@x\n", LOGREAD_POSITIVE, "" },
};

static void
feed(struct logread *l, const char *log)
{
	for (const char *p = log; *p; p = strchr(p, '\n') + 1)
		logread_line(l, (struct sq_str){ p, strcspn(p, "\n") });
}

START_TEST(row)
{
	struct logread_question q = { "<m@x>", "abc.invalid", T0, CUT, T0 + 3600000 };
	struct logread l;
	char quote[512];
	enum logread_answer a;

	logread_init(&l, &q);
	feed(&l, rows[_i].log);
	a = logread_answer(&l, quote);
	ck_assert_msg(a == rows[_i].answer && strstr(quote, rows[_i].quote), "%s: %d, %s", rows[_i].what, a, quote);
}
END_TEST

static const struct { const char *line; int64_t now, at; } times[] = {
	{ "Nov 26 05:21:20 x", T0 + 1000, T0 },
	{ "Dec 31 23:59:59 x", INT64_C(1767225700000), INT64_C(1767225599000) }, /* seen on January 1st */
	{ "Jan  1 00:00:01 x", INT64_C(1767225700000), INT64_C(1767225601000) },
	{ "2025-11-26 05:21:20 x", T0, T0 },
	{ "2025-11-26T05:21:20Z x", T0, T0 },
	{ "2025-11-26T07:21:20.250+02:00 x", T0, T0 + 250 },
	{ "2025-13-26 05:21:20 x", T0, 0 },
	{ "Foo 26 05:21:20 x", T0, 0 },
	{ "2025-11-26", T0, 0 },
	{ "", T0, 0 },
};

START_TEST(time_of)
{
	ck_assert_int_eq(logread_time(sq_str(times[_i].line), times[_i].now), times[_i].at);
}
END_TEST

/* Lines cut anywhere, and octets of all kinds. */
START_TEST(anything)
{
	struct logread_question q = { "<m@x>", "abc.invalid", T0, CUT, T0 + 3600000 };

	for (size_t i = 0; i < SQ_LEN(rows); i++)
		for (size_t n = 0; n <= strlen(rows[i].log); n++) {
			SQ_CLEANUP(sq_freep) char *copy = sq_str_dup((struct sq_str){ rows[i].log, n });
			struct logread l;
			char quote[512];
			size_t at = 0;

			logread_init(&l, &q);
			while (at < n) {
				/* A copy of its own size, so that a sanitizer sees what is read behind it. */
				size_t len = strcspn(copy + at, "\n");
				char *line = malloc(len ? len : 1);

				ck_assert_ptr_nonnull(line);
				memcpy(line, copy + at, len);
				logread_line(&l, (struct sq_str){ line, len });
				free(line);
				at += len + 1;
			}
			(void)logread_answer(&l, quote);
		}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("logread");
	TCase *t = tcase_create("lines");

	setenv("TZ", "UTC", 1);
	tcase_add_loop_test(t, row, 0, SQ_LEN(rows));
	tcase_add_loop_test(t, time_of, 0, SQ_LEN(times));
	tcase_add_test(t, anything);
	suite_add_tcase(s, t);
	return test_main(s);
}
