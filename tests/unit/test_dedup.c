/* sendq-dedup's pure parts: where messages begin and end, boundaries, what FETCH says, and which copy is less. */
#include "dedup.h"
#include "harness.h"

static const struct { const char *value, *edge; } edges[] = {
	{ "multipart/mixed; boundary=\"Edge=1\"", "Edge=1" },
	{ "multipart/mixed; boundary=Edge", "Edge" },
	{ "MULTIPART/Mixed;\tBOUNDARY = Edge ; charset=utf-8", "Edge" },
	{ "multipart/mixed; x=\"; boundary=no\"; boundary=yes", "yes" },
	{ "multipart/mixed; x=\"a\\\"; boundary=no\"; boundary=yes", "yes" },
	{ "multipart/mixed; x-boundary=no; boundary=yes", "yes" },
	{ "multipart/mixed; boundary=\"a\\\"b\\\\c \"", "a\"b\\c" },
	{ "multipart/mixed; boundary=\"open", "open" },
	{ "multipart/mixed; boundary=\"\"", "" },
	{ "multipart/mixed; boundary=", "" },
	{ "multipart/mixed; boundary", "" },
	{ "multipart/mixed", "" },
	{ "text/plain; boundary=x", "" },
	{ "", "" },
};

START_TEST(edge)
{
	char got[EDGE_MAX + 1];

	scan_edge(sq_str(edges[_i].value), got);
	ck_assert_str_eq(got, edges[_i].edge);
}
END_TEST

#define HEAD "Message-ID: <x@y>\nContent-Type: multipart/mixed;\n boundary=E\n\n"
static const struct { const char *what, *text, *id; bool cut; int body; } messages[] = {
	{ "whole", HEAD "--E\n\na\n--E--\n", "<x@y>", false, 62 },
	{ "whole, CRLF", "Message-ID: <x@y>\r\n\r\na\r\n", "<x@y>", false, 21 },
	{ "without the last line end", HEAD "--E\n\na\n--E--", "<x@y>", false, 62 },
	{ "blanks behind the closing boundary, and an epilogue", HEAD "--E--  \nbye\n", "<x@y>", false, 62 },
	{ "one dash is missing", HEAD "--E\n\na\n--E-", "<x@y>", true, 62 },
	{ "not at the line's beginning", HEAD "--E\n\na --E--\n", "<x@y>", true, 62 },
	{ "another case", HEAD "--E\n\na\n--e--\n", "<x@y>", true, 62 },
	{ "the closing boundary of a longer one", HEAD "--EE--\n", "<x@y>", true, 62 },
	{ "cut in the header", "Message-ID: <x@y>\nSubj", "<x@y>", true, 22 },
	{ "a single part", "Subject: x\n\nhello", NULL, false, 12 },
	{ "the first Message-ID counts", "Message-ID:\n <a>\nMessage-ID: <b>\n\n", "<a>", false, 34 },
	{ "an empty Message-ID is none", "Message-ID:  \n\nx", NULL, false, 15 },
	{ "the boundary of a part is not the message's", "A: b\n\nContent-Type: multipart/mixed; boundary=E\n", NULL, false, 6 },
	{ "nothing", "", NULL, true, 0 },
};

START_TEST(scan)
{
	size_t n = strlen(messages[_i].text);

	/* In pieces of every size the same comes out. */
	for (size_t step = 1; step <= n + 1; step++) {
		struct scan s;
		uint64_t body;
		char *id;
		bool cut;

		scan_init(&s);
		for (size_t k = 0; k < n; k += step)
			scan_feed(&s, messages[_i].text + k, n - k < step ? n - k : step);
		cut = scan_finish(&s, &id, &body);
		scan_fini(&s);
		ck_assert_msg(cut == messages[_i].cut, "%s: cut %d", messages[_i].what, cut);
		ck_assert_int_eq((int)body, messages[_i].body);
		if (messages[_i].id)
			ck_assert_str_eq(id, messages[_i].id);
		else
			ck_assert_ptr_null(id);
		free(id);
	}
}
END_TEST

static const struct { const char *line; bool begins; } froms[] = {
	{ "From a@b Thu Nov 26 01:00:00 2026", true },
	{ "From MAILER-DAEMON  Mon Jan  1 00:00:00 2001 +0100", true },
	{ "From me to you", false },
	{ "From Thu to Sun", false },
	{ ">From a@b Thu Nov 26 01:00:00 2026", false },
	{ "From: a@b Thu Nov", false },
	{ "From a@b Thursday", false },
	{ "From ", false },
	{ "", false },
};

START_TEST(from_line)
{
	ck_assert_msg(mbox_begins(sq_str(froms[_i].line)) == froms[_i].begins, "%s", froms[_i].line);
}
END_TEST

#define ENV "ENVELOPE (\"Thu, 26 Nov 2026\" {3}\r\na\"b ((NIL NIL \"a\" \"b\")) NIL NIL NIL NIL NIL NIL \"<x@y>\") "
#define F(structure) "* 5 FETCH (UID 17 RFC822.SIZE 900 " ENV "BODYSTRUCTURE " structure " FLAGS (\\Seen))\r\n"
#define TEXT(octets) "(\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" " octets " 1 NIL NIL NIL NIL)"
#define BLOB(octets) "(\"application\" \"x\" NIL NIL NIL \"base64\" " octets " NIL (\"attachment\" (\"filename\" \"a)b\")) NIL NIL)"
#define MAIL(octets) "(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" " octets " (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) " TEXT("9") " 7)"
#define MIXED(parts) "(" parts " \"mixed\" (\"boundary\" \"0123456789\") NIL NIL NIL)"
#define INNER(parts) "(" parts " \"alternative\" (\"boundary\" \"0123\") NIL NIL NIL)"

/* a, b, and how a stands to b. */
static const struct { const char *what, *a, *b; enum order order; } pairs[] = {
	{ "the same", F(MIXED(TEXT("5") BLOB("9"))), F(MIXED(TEXT("5") BLOB("9"))), ORDER_SAME },
	{ "the last part is shorter", F(MIXED(TEXT("5") BLOB("900"))), F(MIXED(TEXT("5") BLOB("990"))), ORDER_LESS },
	{ "shorter by what may be a delimiter", F(MIXED(TEXT("5") BLOB("972"))), F(MIXED(TEXT("5") BLOB("990"))), ORDER_OTHER },
	{ "shorter by one octet more", F(MIXED(TEXT("5") BLOB("971"))), F(MIXED(TEXT("5") BLOB("990"))), ORDER_LESS },
	{ "a part is missing", F(MIXED(TEXT("5"))), F(MIXED(TEXT("5") BLOB("990"))), ORDER_LESS },
	{ "a part is missing, and the rest of its delimiter is counted", F(MIXED(TEXT("20"))), F(MIXED(TEXT("5") BLOB("990"))), ORDER_LESS },
	{ "more than a delimiter can be", F(MIXED(TEXT("24"))), F(MIXED(TEXT("5") BLOB("990"))), ORDER_OTHER },
	{ "the missing part is empty: it may come from a cut", F(MIXED(TEXT("5"))), F(MIXED(TEXT("5") TEXT("0"))), ORDER_OTHER },
	{ "cut in the header of its last part", F(MIXED(TEXT("5") TEXT("0"))), F(MIXED(TEXT("5") BLOB("990"))), ORDER_LESS },
	{ "an earlier part differs", F(MIXED(TEXT("6") BLOB("9"))), F(MIXED(TEXT("5") BLOB("990"))), ORDER_OTHER },
	{ "another type", F(MIXED(TEXT("6"))), F(MIXED(BLOB("900"))), ORDER_OTHER },
	{ "in an inner multipart", F(MIXED(INNER(TEXT("5")))), F(MIXED(INNER(TEXT("5") TEXT("60")) BLOB("9"))), ORDER_LESS },
	{ "an attached message is one part", F(MIXED(MAIL("50"))), F(MIXED(MAIL("500"))), ORDER_LESS },
	{ "a single part", F(TEXT("5")), F(TEXT("6")), ORDER_LESS },
	{ "another envelope", F(TEXT("5")), "* 5 FETCH (UID 1 RFC822.SIZE 9 ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL NIL \"<x@y>\") BODYSTRUCTURE " TEXT("6") ")", ORDER_OTHER },
	{ "no structure told", "* 5 FETCH (UID 1 RFC822.SIZE 9 " ENV ")", F(TEXT("6")), ORDER_OTHER },
};

START_TEST(order)
{
	static struct sq_imap_message a, b;
	enum order back = pairs[_i].order == ORDER_LESS ? ORDER_MORE : pairs[_i].order;

	ck_assert_msg(sq_imap_parse_fetch(sq_str(pairs[_i].a), &a), "%s", pairs[_i].a);
	ck_assert_msg(sq_imap_parse_fetch(sq_str(pairs[_i].b), &b), "%s", pairs[_i].b);
	ck_assert_str_eq(a.message_id, "<x@y>");
	ck_assert_msg(compare_structure(&a, &b) == pairs[_i].order, "%s: %d", pairs[_i].what, compare_structure(&a, &b));
	ck_assert_msg(compare_structure(&b, &a) == back, "%s, the other way: %d", pairs[_i].what, compare_structure(&b, &a));
}
END_TEST

START_TEST(fetch)
{
	static struct sq_imap_message m;
	struct sq_buf deep = SQ_BUF_INIT(4096);

	ck_assert(sq_imap_parse_fetch(SQ_STR(F(MIXED(TEXT("5") BLOB("9")))), &m));
	ck_assert_uint_eq(m.uid, 17);
	ck_assert_uint_eq(m.size, 900);
	ck_assert_uint_eq(m.n_parts, 2);
	ck_assert_uint_eq(m.parts[1].octets, 9);
	ck_assert_uint_eq(m.edge, 10);
	ck_assert(!sq_imap_parse_fetch(SQ_STR("* 5 FETCH (UID 17 RFC822.SIZE 9"), &m));
	ck_assert(!sq_imap_parse_fetch(SQ_STR("* 5 FETCH (UID 99999999999)"), &m));
	ck_assert(!sq_imap_parse_fetch(SQ_STR("* 5 EXPUNGE"), &m));
	ck_assert(!sq_imap_parse_fetch(SQ_STR("* 5 FETCH (BODYSTRUCTURE (\"text\" \"plain\" NIL))"), &m));
	ck_assert(!sq_imap_parse_fetch(SQ_STR("* 5 FETCH (X {99}\r\nabc)"), &m));
	/* As deep as it may be, and one more. */
	for (int depth = SQ_IMAP_DEPTH_MAX; depth <= SQ_IMAP_DEPTH_MAX + 1; depth++) {
		sq_buf_clear(&deep);
		sq_buf_adds(&deep, "* 1 FETCH (X ");
		for (int k = 0; k < depth; k++)
			sq_buf_addc(&deep, '(');
		for (int k = 0; k < depth; k++)
			sq_buf_addc(&deep, ')');
		sq_buf_addc(&deep, ')');
		ck_assert_int_eq(sq_imap_parse_fetch((struct sq_str){ deep.p, deep.n }, &m), depth == SQ_IMAP_DEPTH_MAX);
	}
	sq_buf_fini(&deep);
}
END_TEST

static const struct { const char *line; int rank; } trashes[] = {
	{ "* LIST (\\HasNoChildren \\Trash) \"/\" \"Papierkorb\"", 3 },
	{ "* LIST () \"/\" Trash", 1 },
	{ "* LIST (\\Sent) \"/\" Sent", 0 },
	{ "* LIST (\\Noselect \\Trash) \"/\" Trash", 0 },
};

START_TEST(trash)
{
	char folder[SQ_IMAP_FOLDER_MAX];

	ck_assert_int_eq(sq_imap_list_trash_rank(sq_str(trashes[_i].line), folder), trashes[_i].rank);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("dedup");
	TCase *t = tcase_create("message");

	tcase_add_loop_test(t, edge, 0, SQ_LEN(edges));
	tcase_add_loop_test(t, scan, 0, SQ_LEN(messages));
	tcase_add_loop_test(t, from_line, 0, SQ_LEN(froms));
	suite_add_tcase(s, t);
	t = tcase_create("imap");
	tcase_add_loop_test(t, order, 0, SQ_LEN(pairs));
	tcase_add_test(t, fetch);
	tcase_add_loop_test(t, trash, 0, SQ_LEN(trashes));
	suite_add_tcase(s, t);
	return test_main(s);
}
