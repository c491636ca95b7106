/* message/address.c: what is read as which address, and what each mistake is told. */
#include "harness.h"

#include <sendq/message.h>

#define X10 "xxxxxxxxxx"
#define X60 X10 X10 X10 X10 X10 X10

/* One line: the list, and its addresses joined by '|', or '!' and words of the sentence. */
static const struct {
	const char *in, *want;
} rows[] = {
	{ "", "" },
	{ " , ,, ", "" },
	{ "a@b", "a@b" },
	{ "a@b.example, c@d.example", "a@b.example|c@d.example" },
	{ "<a@b>", "a@b" },
	{ "Anna <a@b>", "a@b" },
	{ "\"Last, First\" <a@b>", "a@b" },
	{ "J. R. Smith <a@b>", "a@b" },
	{ "a@b (Anna, of (the) house)", "a@b" },
	{ "(x) a (y) @ (z) b . example (w)", "a@b.example" },
	{ "foo@bar <a@b>", "a@b" },
	{ "Anna [work] <a@b>", "a@b" },
	{ "=?utf-8?Q?J=C3=B6rg?= <j@b>", "j@b" },
	{ "J\xc3\xb6rg <j@b>", "j@b" },
	{ "J\xf6rg <j@b>", "j@b" },
	{ "root", "root" },
	{ "root (Cron Daemon)", "root" },
	{ "friends: a@b, c@d;, e@f", "a@b|c@d|e@f" },
	{ "undisclosed-recipients:;", "" },
	{ "a: ; b@c", "b@c" },
	{ "a@b; c@d", "a@b|c@d" },
	{ "<@x.example,@y.example:a@b>", "a@b" },
	{ "\"a b\"@c", "\"a b\"@c" },
	{ "\"ab\"@c", "ab@c" },
	{ "\"a\\\"b\"@c", "\"a\\\"b\"@c" },
	{ "\"a@b\"@c", "\"a@b\"@c" },
	{ "\"\"@c", "\"\"@c" },
	{ "a..b@c.example", "\"a..b\"@c.example" },
	{ "a.@c.example", "\"a.\"@c.example" },
	{ "a+b=c/d@e", "a+b=c/d@e" },
	{ "a@[192.0.2.1]", "a@[192.0.2.1]" },
	{ "a@[IPv6:2001:db8::1], b@c", "a@[IPv6:2001:db8::1]|b@c" },
	{ "a@b\xc3\xbc" "cher.example", "a@xn--bcher-kva.example" },
	{ "j\xc3\xb6rg@b\xc3\xbc" "cher.example", "j\xc3\xb6rg@xn--bcher-kva.example" },
	{ "A@B.Example", "A@B.Example" },
	{ X60 "1234@b", X60 "1234@b" },
	{ X60 "12345@b", "!64 octets" },
	{ "a@" X60 "123", "a@" X60 "123" },
	{ "a@" X60 "1234", "!63 octets" },
	{ "a@" X60 "." X60 "." X60 "." X60 "." X60, "!255 octets" },
	{ "a@b, bob@@c.example", "!address 2 ('bob@@c.example')|domain|octet 10" },
	{ "a b@c", "!'a b@c'|octet 3" },
	{ "a@b c@d", "!'a@b c@d'" },
	{ "a@", "!domain that is missing" },
	{ "@b", "!no local part" },
	{ "<>", "!no address" },
	{ "a@b..c", "!empty label" },
	{ "a@b.", "!ends in a dot" },
	{ "a@-b!", "!no domain has" },
	{ "a@[300.0.0.1]", "!no IP address" },
	{ "a@[b", "!never closes" },
	{ "\"a@b", "!quotation mark" },
	{ "a@b (c", "!comment that never closes" },
	{ "c <a@b", "!'<' that never closes|octet 3" },
	{ "c <a@b> d", "!behind '>'" },
	{ "a <b@c> <d@e>", "!second '<'" },
	{ "x: y: a@b;", "!group inside a group" },
	{ "a@b\r\nRCPT TO:<c@d>", "!control character|octet 4" },
	{ "a\x01@b", "!control character" },
	{ "a@b\x7f", "!control character" },
	{ "a\xff@b", "!not UTF-8" },
	{ "a\xed\xa0\x80@b", "!not UTF-8" },
	{ "a@b\xff", "!not UTF-8" },
};

START_TEST(list)
{
	const char *want = rows[_i].want;
	struct sq_address_list l = { 0 };
	struct sq_error err = { 0 };
	struct sq_buf got = SQ_BUF_INIT(4096);
	enum sq_err e = sq_address_parse_list(sq_str(rows[_i].in), &l, &err);

	if (want[0] == '!') {
		ck_assert_int_ne(e, SQ_OK);
		for (const char *w = want + 1; *w;) {
			size_t n = strcspn(w, "|");
			char *word = sq_str_dup((struct sq_str){ w, n });

			ck_assert_msg(strstr(err.text, word) != NULL, "'%s' lacks '%s'", err.text, word);
			free(word);
			w += n + (w[n] == '|');
		}
	} else {
		ck_ok(e, err);
		for (size_t i = 0; i < l.n; i++) {
			sq_buf_addf(&got, "%s%s", i ? "|" : "", l.v[i].text);
			ck_assert_uint_le(l.v[i].at, strlen(l.v[i].text));
			/* The normal form is a fixed point. */
			struct sq_address again;

			ck_ok(sq_address_parse(sq_str(l.v[i].text), &again, &err), err);
			ck_assert_str_eq(again.text, l.v[i].text);
			ck_assert(again.utf8 == l.v[i].utf8 && sq_address_same(&again, &l.v[i]));
			sq_address_fini(&again);
		}
		ck_assert_str_eq(got.p ? got.p : "", want);
	}
	sq_buf_fini(&got);
	sq_address_list_fini(&l);
}
END_TEST

/* Cut anywhere, a list is still read within its octets (the sanitizers watch) and never crashes. */
START_TEST(every_prefix_is_read_within_bounds)
{
	size_t n = strlen(rows[_i].in);

	for (size_t k = 0; k <= n; k++) {
		char *exact = malloc(k ? k : 1);
		struct sq_address_list l = { 0 };
		struct sq_error err = { 0 };

		ck_assert_ptr_nonnull(exact);
		memcpy(exact, rows[_i].in, k);
		if (sq_address_parse_list((struct sq_str){ exact, k }, &l, &err) != SQ_OK)
			ck_assert_str_ne(err.text, "");
		sq_address_list_fini(&l);
		free(exact);
	}
}
END_TEST

START_TEST(one_address_is_one)
{
	static const char *const bad[] = { "", " ", "a@b, c@d", "x: a@b;", "a@b; c@d", "<>", "not an address" };
	struct sq_address a = { 0 };
	struct sq_error err = { 0 };

	for (size_t i = 0; i < SQ_LEN(bad); i++)
		ck_assert_msg(sq_address_parse(sq_str(bad[i]), &a, &err) != SQ_OK, "'%s' was taken as '%s'", bad[i], a.text);
	ck_assert_ptr_nonnull(strstr(err.text, "not an address"));
	ck_ok(sq_address_parse(SQ_STR("J\xc3\xb6rg <j\xc3\xb6@b>"), &a, &err), err);
	ck_assert(a.utf8);
	sq_address_fini(&a);
}
END_TEST

START_TEST(unique_keeps_the_first)
{
	struct sq_address_list l = { 0 };
	struct sq_error err = { 0 };

	ck_ok(sq_address_parse_list(SQ_STR("a@B.c, d, a@b.C, A@b.c, \"a\"@b.c, d, e@f"), &l, &err), err);
	ck_ok(sq_address_list_unique(&l, &err), err);
	ck_assert_uint_eq(l.n, 4);
	ck_assert_str_eq(l.v[0].text, "a@B.c");
	ck_assert_str_eq(l.v[1].text, "d");
	ck_assert_str_eq(l.v[2].text, "A@b.c");
	ck_ok(sq_address_qualify(&l.v[1], "x.y", &err), err);
	ck_assert_str_eq(l.v[1].text, "d@x.y");
	ck_assert_str_eq(sq_address_domain(&l.v[1]), "x.y");
	ck_ok(sq_address_qualify(&l.v[3], "x.y", &err), err);
	ck_assert_str_eq(l.v[3].text, "e@f");
	sq_address_list_fini(&l);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("message_address");
	TCase *t = tcase_create("address");

	tcase_add_loop_test(t, list, 0, SQ_LEN(rows));
	tcase_add_loop_test(t, every_prefix_is_read_within_bounds, 0, SQ_LEN(rows));
	tcase_add_test(t, one_address_is_one);
	tcase_add_test(t, unique_keeps_the_first);
	suite_add_tcase(s, t);
	return test_main(s);
}
