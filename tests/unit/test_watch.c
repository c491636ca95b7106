/*
 * What `sendq watch` draws: whatever the numbers and however small the
 * terminal, no line is too long, no screen too high, nobody's controls get
 * through; and what is written between two screens leads from one to the other.
 */
#include <locale.h>
#include <wchar.h>

#include "../../sendq/status/watch.h"
#include "harness.h"

enum { NOW = 1700000000 };
static struct sq_buf screen = SQ_BUF_INIT(1 << 20);

static struct watch_view
view(void)
{
	struct watch_view v = { .now_ms = NOW * INT64_C(1000), .daemon = true, .n_routes = 2, .n_items = 2, .n_next = 3 };

	v.counts[SQ_STATE_QUEUED] = 3;
	v.counts[SQ_STATE_SENDING] = 1;
	v.counts[SQ_STATE_COMMITTING] = 1;
	v.counts[SQ_STATE_DOUBT] = 1;
	v.routes[0] = (struct watch_route){ .name = "home", .state = "poor", .cause = "cut", .since_ms = v.now_ms - 7260000, .next_ms = v.now_ms + 12000,
		.rtt_us = 310400, .rate = 14000 };
	v.routes[1] = (struct watch_route){ .name = "a.route.with.a.long.name.that.does.not.end", .state = "down", .cause = "login", .since_ms = v.now_ms - 90000000, .stopped = true };
	v.items[0] = (struct watch_item){ .id = "1000", .to = "bob@example.net", .size = 5000000, .acked = 2100000, .durable = 1000000,
		.since_ms = v.now_ms - 60000, .rate = 14000 };
	v.items[1] = (struct watch_item){ .id = "1001", .to = "first.last.of.a.very.long.name.indeed@a.domain.that.is.not.short.either.example.org", .more = 12,
		.size = 900, .acked = 900, .checking = true, .since_ms = v.now_ms - 125000 };
	v.next[0] = (struct watch_next){ .id = "1002", .to = "carol@example.net", .size = 2500, .at_ms = v.now_ms + 12000 };
	v.next[1] = (struct watch_next){ .id = "1003", .to = "gr\xc3\xbc\xc3\x9f" "e@\xe6\xbc\xa2\xe5\xad\x97.example", .size = 25000000, .at_ms = v.now_ms + 18000000, .better_link = true };
	v.next[2] = (struct watch_next){ .id = "1004", .to = "e\x1b[31mvil\n\x07\xff@x", .more = 2, .size = 1, .at_ms = 0 };
	return v;
}

static const char *
draw(const struct watch_view *v, struct watch_style s)
{
	sq_buf_clear(&screen);
	watch_draw(v, &s, &screen);
	ck_assert(!screen.failed);
	return screen.p;
}

/* Cells of a line; escape sequences for colour have none. */
static int
cells_of(const char *line, size_t n)
{
	mbstate_t state = { 0 };
	int cells = 0;

	for (size_t i = 0; i < n; ) {
		wchar_t w;
		size_t len;

		if (line[i] == '\033') {
			i += strcspn(line + i, "m") + 1;
			continue;
		}
		len = mbrtowc(&w, line + i, n - i, &state);
		ck_assert_msg(len > 0 && len <= MB_CUR_MAX, "no character in '%.*s'", (int)n, line);
		ck_assert_msg(wcwidth(w) >= 0, "a control in '%.*s'", (int)n, line);
		cells += wcwidth(w);
		i += len;
	}
	return cells;
}

START_TEST(fits)
{
	static const int heights[] = { 2, 3, 5, 8, 24, 40 };
	struct watch_view v = view();

	for (size_t h = 0; h < SQ_LEN(heights); h++)
		for (int what = 0; what < 4; what++) {
			int rows = heights[h];
			struct watch_style s = { .columns = _i, .rows = rows, .colour = what & 1, .plain = what & 2 };
			int n = 0;

			for (const char *p = draw(&v, s); *p; p += strcspn(p, "\n") + 1, n++)
				ck_assert_msg(cells_of(p, strcspn(p, "\n")) <= _i, "%d columns: %.*s", _i, (int)strcspn(p, "\n"), p);
			ck_assert_msg(n <= rows, "%d lines for %d rows of %d columns", n, rows, _i);
		}
}
END_TEST

/* The whole screen at 80 columns. */
START_TEST(looks)
{
	static const char want[] =
		"sendq: 3 queued, 1 sending, 1 committing, 1 in doubt\n"
		"home         poor for 2 h 1 min, next try in 12 s (cut), 14 KB/s, RTT 310 ms\n"
		"a.route.with down for 25 h, stopped (login)\n"
		"\n"
		"1000   bob@example.net\n"
		"  [###====...........]  42 %  2.1 MB of 5.0 MB, 1.0 MB kept  14 KB/s  3 min left\n"
		"1001   first.last.of.a.very.long.name.indeed@a.domain.that.is.not.sh and 12 more\n"
		"  all is out; the server is checking, 2 min\n"
		"\n"
		"Next:\n"
		"1002   carol@example.net  2.5 KB  in 12 s\n"
		"1003   gr\xc3\xbc\xc3\x9f" "e@\xe6\xbc\xa2\xe5\xad\x97.example  25 MB  waits for a better link, in 5 h at the latest\n"
		"1004   e?[31mvil???@x and 2 more  1 B  now\n"
		"q ends   [#] kept by the server  [=] acknowledged\n";
	struct watch_view v = view();

	ck_assert_str_eq(draw(&v, (struct watch_style){ .columns = 80, .rows = 24 }), want);
}
END_TEST

/* No bar beyond its end, none that hides what is known, whatever the numbers. */
static const struct { int64_t acked, durable; uint64_t size; const char *holds; } bars[] = {
	{ 0, 0, 1000000, "[........................................]   0 %" },
	{ 500000, 0, 1000000, "[====================....................]  50 %" },
	{ 500000, 500000, 1000000, "[####################....................]  50 %" },
	{ 1000000, 250000, 1000000, "[##########==============================] 100 %" },
	{ 2000000, 0, 1000000, "[========================================] 100 %" },
	{ 0, 0, 0, "[........................................]   0 %" },
};

START_TEST(a_bar)
{
	struct watch_view v = view();

	v.items[0].acked = bars[_i].acked;
	v.items[0].durable = bars[_i].durable;
	v.items[0].size = bars[_i].size;
	v.items[0].rate = 0;
	ck_assert_msg(strstr(draw(&v, (struct watch_style){ .columns = 160, .rows = 24 }), bars[_i].holds) != NULL, "no %s in\n%s", bars[_i].holds, screen.p);
}
END_TEST

START_TEST(colours)
{
	struct watch_view v = view();

	ck_assert_ptr_nonnull(strstr(draw(&v, (struct watch_style){ .columns = 80, .rows = 24, .colour = true }), "\033[31mpoor\033[0m"));
	ck_assert_ptr_null(strchr(draw(&v, (struct watch_style){ .columns = 80, .rows = 24 }), '\033'));
}
END_TEST

/* ---- a terminal of the smallest kind ---- */

static char cells[50][200];

static void
terminal(const char *octets)
{
	int row = 0, column = 0;

	while (*octets) {
		int r = 0, n = 0;

		if (sscanf(octets, "\033[%d;1H%n", &r, &n) == 1 && n > 0) {
			row = r - 1;
			column = 0;
		} else if (strncmp(octets, "\033[K", n = 3) == 0) {
			memset(&cells[row][column], 0, sizeof(cells[row]) - (size_t)column);
		} else if (strncmp(octets, "\033[J", n = 3) == 0) {
			memset(&cells[row], 0, sizeof(cells) - sizeof(cells[0]) * (size_t)row);
		} else if (strncmp(octets, "\033[2J", n = 4) == 0) {
			memset(cells, 0, sizeof(cells));
		} else {
			ck_assert_int_ne(*octets, '\033');
			cells[row][column++] = *octets;
			n = 1;
		}
		octets += n;
	}
}

START_TEST(redraw)
{
	static const char *const screens[] = { "a\nb\nc", "a\nB\nc", "a\nB\nc\nd\ne", "short", "", "x\n\ny", "x\n\ny", "longer than before\n\ny\n" };
	const char *before = NULL;

	memset(cells, 'Z', sizeof(cells));
	for (size_t i = 0; i < SQ_LEN(screens); i++) {
		SQ_CLEANUP(sq_buf_fini) struct sq_buf out = SQ_BUF_INIT(4096);
		const char *p = screens[i];

		watch_redraw(before, screens[i], &out);
		terminal(out.p ? out.p : "");
		for (int row = 0; row < 10; row++) {
			size_t n = strcspn(p, "\n");

			ck_assert_msg(strlen(cells[row]) == n && memcmp(cells[row], p, n) == 0, "screen %zu, row %d: '%s'", i, row, cells[row]);
			p += n + (p[n] == '\n');
		}
		if (before && strcmp(before, screens[i]) == 0)
			ck_assert_int_eq((int)out.n, 0);
		if (i == 1)
			ck_assert_str_eq(out.p, "\033[2;1HB\033[K"); /* what stays is not written again */
		before = screens[i];
	}
}
END_TEST

START_TEST(rates)
{
	struct watch_track t = { 0 };
	int64_t at = 1000;

	ck_assert_double_eq(watch_rate(&t, at, 0), 0);
	for (int i = 1; i <= 100; i++)
		ck_assert_double_eq_tol(watch_rate(&t, at + i * 500, i * 5000), 10000, 1);
	/* It stands still: within the span it comes to nothing. */
	for (int i = 1; i <= 40; i++)
		watch_rate(&t, at + 50000 + i * 1000, 500000);
	ck_assert_double_eq(watch_rate(&t, at + 95000, 500000), 0);
	/* Another attempt. */
	ck_assert_double_eq(watch_rate(&t, at + 96000, 1000), 0);
	ck_assert_double_eq_tol(watch_rate(&t, at + 98000, 3000), 1000, 1);
}
END_TEST

START_TEST(looks_again)
{
	struct watch_view v = view(), calm = { .now_ms = v.now_ms };

	ck_assert_int_eq(watch_next_look(&v), 1000);
	v.n_items = 0;
	ck_assert_int_eq(watch_next_look(&v), 1000); /* a next try in 12 s */
	v.routes[0].next_ms = v.next[0].at_ms = v.now_ms + 600000;
	ck_assert_int_eq(watch_next_look(&v), 30000);
	ck_assert_int_eq(watch_next_look(&calm), -1);
}
END_TEST

START_TEST(json)
{
	struct watch_view v = view();
	struct json a = JSON_INIT, b = JSON_INIT;

	watch_json(&v, true, &a);
	v.now_ms += 5000;
	v.items[0].rate = 3;
	watch_json(&v, true, &b);
	ck_assert_str_eq(a.b.p, b.b.p);
	ck_assert_ptr_nonnull(strstr(a.b.p, "\"acked_octets\":2100000,\"durable_octets\":1000000"));
	sq_buf_clear(&b.b);
	v.items[0].acked++;
	watch_json(&v, true, &b);
	ck_assert_str_ne(a.b.p, b.b.p);
	sq_buf_fini(&a.b);
	sq_buf_fini(&b.b);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("watch");
	TCase *t = tcase_create("watch");

	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return 1;
	tcase_add_loop_test(t, fits, 1, 121);
	tcase_add_test(t, looks);
	tcase_add_loop_test(t, a_bar, 0, SQ_LEN(bars));
	tcase_add_test(t, colours);
	tcase_add_test(t, redraw);
	tcase_add_test(t, rates);
	tcase_add_test(t, looks_again);
	tcase_add_test(t, json);
	suite_add_tcase(s, t);
	return test_main(s);
}
