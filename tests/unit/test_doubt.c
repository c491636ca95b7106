/* What is done about doubt, row by row; and what is read from an IMAP server's lines. */
#include <sendq/doubt.h>
#include <sendq/imap.h>

#include "harness.h"

#define MIN INT64_C(60000)
#define HOUR (60 * MIN)
#define T0 INT64_C(1764000000000)

static const struct row {
	const char *what;
	enum sq_doubt_policy policy;
	enum sq_doubt_id id;
	bool service, source;
	int64_t age, next_ask, usable;  /* since the cut; next_ask 0: not asked yet */
	int asked, negatives;
	enum sq_doubt_action action;
	enum sq_doubt_why why;
} rows[] = {
	{ "nobody to ask, nothing known: a person", SQ_DOUBT_AVOID, SQ_DOUBT_ID_UNKNOWN, 0, 0, 10 * HOUR, 0, 9 * HOUR, 0, 0, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_PERSON },
	{ "rewritten: a person", SQ_DOUBT_AVOID, SQ_DOUBT_ID_REWRITTEN, 0, 0, 10 * HOUR, 0, 9 * HOUR, 5, 0, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_PERSON },
	{ "allow: at once", SQ_DOUBT_ALLOW, SQ_DOUBT_ID_REWRITTEN, 0, 1, 0, 0, 0, 0, 0, SQ_DOUBT_RESEND, SQ_DOUBT_WHY_ALLOWED },
	{ "a program's mail: at once", SQ_DOUBT_AVOID, SQ_DOUBT_ID_UNKNOWN, 1, 1, 0, 0, 0, 0, 0, SQ_DOUBT_RESEND, SQ_DOUBT_WHY_SERVICE },
	{ "a program's mail, but ask was said", SQ_DOUBT_ASK, SQ_DOUBT_ID_UNKNOWN, 1, 0, HOUR, 0, 0, 0, 0, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_PERSON },
	{ "a source is not asked within the first minute", SQ_DOUBT_AVOID, SQ_DOUBT_ID_UNKNOWN, 0, 1, MIN - 1, 0, 0, 0, 0, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_EVIDENCE },
	{ "then it is", SQ_DOUBT_AVOID, SQ_DOUBT_ID_UNKNOWN, 0, 1, MIN, 0, 0, 0, 0, SQ_DOUBT_ASK_NOW, SQ_DOUBT_WHY_EVIDENCE },
	{ "with ask too: positive evidence helps", SQ_DOUBT_ASK, SQ_DOUBT_ID_UNKNOWN, 0, 1, MIN, 0, 0, 0, 0, SQ_DOUBT_ASK_NOW, SQ_DOUBT_WHY_EVIDENCE },
	{ "with ask negatives send nothing", SQ_DOUBT_ASK, SQ_DOUBT_ID_KEPT, 0, 1, 9 * HOUR, 10 * HOUR, 9 * HOUR, 9, 9, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_EVIDENCE },
	{ "one negative is too few", SQ_DOUBT_AVOID, SQ_DOUBT_ID_UNKNOWN, 0, 1, HOUR, 2 * HOUR, HOUR, 3, 1, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_EVIDENCE },
	{ "two are enough", SQ_DOUBT_AVOID, SQ_DOUBT_ID_REWRITTEN, 0, 1, HOUR, 2 * HOUR, HOUR, 4, 2, SQ_DOUBT_RESEND, SQ_DOUBT_WHY_NEGATIVE },
	{ "but not after a sleep: first it is asked again", SQ_DOUBT_AVOID, SQ_DOUBT_ID_REWRITTEN, 0, 1, 24 * HOUR, 2 * HOUR, HOUR, 4, 2, SQ_DOUBT_ASK_NOW, SQ_DOUBT_WHY_EVIDENCE },
	{ "kept: the link is proved first", SQ_DOUBT_AVOID, SQ_DOUBT_ID_KEPT, 0, 0, MIN, 0, 0, 0, 0, SQ_DOUBT_ASK_NOW, SQ_DOUBT_WHY_EVIDENCE },
	{ "kept: less than two hours", SQ_DOUBT_AVOID, SQ_DOUBT_ID_KEPT, 0, 0, 3 * HOUR, 4 * HOUR, 2 * HOUR - 1, 4, 0, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_KEPT },
	{ "kept: two hours of usable link", SQ_DOUBT_AVOID, SQ_DOUBT_ID_KEPT, 0, 0, 3 * HOUR, 4 * HOUR, 2 * HOUR, 4, 0, SQ_DOUBT_RESEND, SQ_DOUBT_WHY_KEPT },
	{ "kept: never without an answer", SQ_DOUBT_AVOID, SQ_DOUBT_ID_KEPT, 0, 1, 3 * HOUR, 4 * HOUR, 2 * HOUR, 0, 0, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_KEPT },
	{ "kept: a closed laptop's day does not count", SQ_DOUBT_AVOID, SQ_DOUBT_ID_KEPT, 0, 0, 24 * HOUR, 25 * HOUR, MIN, 1, 0, SQ_DOUBT_WAIT, SQ_DOUBT_WHY_KEPT },
	{ "expired", SQ_DOUBT_ALLOW, SQ_DOUBT_ID_KEPT, 1, 1, 120 * HOUR, 0, 0, 0, 2, SQ_DOUBT_GIVE_UP, SQ_DOUBT_WHY_EXPIRED },
};

START_TEST(policy)
{
	const struct row *t = &rows[_i];
	struct sq_doubt_in in = { .policy = t->policy, .id = t->id, .service = t->service, .source = t->source, .now_ms = T0 + t->age, .since_ms = T0,
		.expires_ms = T0 + 120 * HOUR, .next_ask_ms = t->next_ask ? T0 + t->next_ask : 0, .usable_ms = t->usable, .asked = t->asked, .negatives = t->negatives };
	struct sq_doubt_out out = sq_doubt_decide(&in);

	ck_assert_msg(out.action == t->action && out.why == t->why, "%s: action %d, why %d", t->what, out.action, out.why);
	if (out.action == SQ_DOUBT_WAIT)
		ck_assert_msg(out.when_ms > in.now_ms && out.when_ms <= in.expires_ms, "%s: looks again at %+lld ms", t->what, (long long)(out.when_ms - in.now_ms));
}
END_TEST

/* Asked at +1, +5, +15, +60 minutes and then hourly. */
START_TEST(schedule)
{
	static const int64_t minutes[] = { 1, 5, 15, 60, 120, 180 };
	int64_t at = SQ_DOUBT_FIRST_ASK_MS;

	for (int n = 1; n < (int)SQ_LEN(minutes); n++) {
		ck_assert_int_eq(at, minutes[n - 1] * MIN);
		at += sq_doubt_ask_gap_ms(n);
	}
}
END_TEST

/* A message's own word, its route's; the setting, what was seen, the host. */
START_TEST(whose_word)
{
	static const enum sq_doubt_policy own[] = { SQ_DOUBT_AVOID, SQ_DOUBT_AVOID, SQ_DOUBT_ALLOW, SQ_DOUBT_ASK };

	for (int o = 0; o < 4; o++)
		for (int r = 0; r < 3; r++)
			ck_assert_int_eq(sq_doubt_policy_of(o, r), o ? own[o] : (enum sq_doubt_policy)r);
	ck_assert_int_eq(sq_doubt_policy_of(9, 9), SQ_DOUBT_AVOID);
	ck_assert_int_eq(sq_doubt_id_of(1, "rewritten", "smtp.office365.com"), SQ_DOUBT_ID_KEPT);
	ck_assert_int_eq(sq_doubt_id_of(2, "kept", "smtp.gmail.com"), SQ_DOUBT_ID_REWRITTEN);
	ck_assert_int_eq(sq_doubt_id_of(0, "kept", "smtp.office365.com"), SQ_DOUBT_ID_KEPT);
	ck_assert_int_eq(sq_doubt_id_of(0, NULL, "smtp.office365.com"), SQ_DOUBT_ID_REWRITTEN);
	ck_assert_int_eq(sq_doubt_id_of(0, NULL, "mail.example.org"), SQ_DOUBT_ID_UNKNOWN);
}
END_TEST

START_TEST(provider)
{
	ck_assert_int_eq(sq_doubt_provider("smtp.office365.com"), SQ_DOUBT_ID_REWRITTEN);
	ck_assert_int_eq(sq_doubt_provider("email-smtp.eu-west-1.AMAZONAWS.com"), SQ_DOUBT_ID_REWRITTEN);
	ck_assert_int_eq(sq_doubt_provider("smtp.gmail.com"), SQ_DOUBT_ID_KEPT);
	ck_assert_int_eq(sq_doubt_provider("notgmail.com"), SQ_DOUBT_ID_UNKNOWN);
	ck_assert_int_eq(sq_doubt_provider("mail.example.org"), SQ_DOUBT_ID_UNKNOWN);
	ck_assert_int_eq(sq_doubt_provider(NULL), SQ_DOUBT_ID_UNKNOWN);
}
END_TEST

static const struct { const char *line, *folder; int rank; } lists[] = {
	{ "* LIST (\\HasNoChildren \\Sent) \"/\" \"Sent Items\"\r\n", "Sent Items", 3 },
	{ "* LIST (\\Sent) NIL Gesendet\r\n", "Gesendet", 3 },
	{ "* list (\\sent) \".\" {12}\r\nINBOX.\"Sent\"\r\n", "INBOX.\"Sent\"", 3 },
	{ "* LIST (\\All) \"/\" \"[Gmail]/All Mail\"\r\n", "[Gmail]/All Mail", 2 },
	{ "* LIST () \".\" INBOX.Sent\r\n", "INBOX.Sent", 1 },
	{ "* LIST (\\Noselect \\Sent) \"/\" \"Sent\"\r\n", "Sent", 0 },
	{ "* LIST (\\SentNot) \"/\" \"Other\"\r\n", "Other", 0 },
	{ "* LIST (\\Sent) \"/\" \"\"\r\n", "", 0 },
	{ "* LIST (\\Sent) \"/\" \"a\\\"b\\\\c\"\r\n", "a\"b\\c", 3 },
	{ "* LIST (\\Sent) \"/\" {99}\r\nshort\r\n", "", 0 },
	{ "* LIST (\\Sent", "", 0 },
	{ "* LSUB (\\Sent) \"/\" \"Sent\"\r\n", "", 0 },
	{ "", "", 0 },
};

START_TEST(list_line)
{
	char folder[SQ_IMAP_FOLDER_MAX];

	ck_assert_int_eq(sq_imap_list_rank(sq_str(lists[_i].line), folder), lists[_i].rank);
	ck_assert_str_eq(folder, lists[_i].folder);
}
END_TEST

START_TEST(received)
{
	char trace[256];

	ck_assert_int_eq(sq_imap_count_received(SQ_STR("Received: from a\r\n\t by b; now\r\nX: y\r\nreceived: from c\r\nX-Received: d\r\n"), trace), 2);
	ck_assert_str_eq(trace, "from a by b; now");
	sq_imap_message_id(SQ_STR("Received: from <a>\r\nmessage-id:\r\n <x@y>\r\n"), trace);
	ck_assert_str_eq(trace, "<x@y>");
	sq_imap_message_id(SQ_STR("X-Message-ID: <x@y>\r\nMessage-ID: <x@ y>\r\n"), trace);
	ck_assert_str_eq(trace, "");
	ck_assert_int_eq(sq_imap_count_received(SQ_STR("Subject: Received: x\r\n\r\n"), trace), 0);
	ck_assert_str_eq(trace, "");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("doubt");
	TCase *t = tcase_create("policy");

	tcase_add_loop_test(t, policy, 0, SQ_LEN(rows));
	tcase_add_test(t, schedule);
	tcase_add_test(t, whose_word);
	tcase_add_test(t, provider);
	suite_add_tcase(s, t);
	t = tcase_create("imap");
	tcase_add_loop_test(t, list_line, 0, SQ_LEN(lists));
	tcase_add_test(t, received);
	suite_add_tcase(s, t);
	return test_main(s);
}
