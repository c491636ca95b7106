/*
 * What `sendq watch` shows, as lines of text. Pure: a view in, octets out.
 */
#include <inttypes.h>
#include <time.h>
#include <wchar.h>

#include "watch.h"

enum { BAR_MIN = 12, BAR_MAX = 40, SOON_MS = 120000, SECOND = 1000, LATER_MS = 30000 };

/* ---- a line that never gets too long ---- */

struct line {
	struct sq_buf *out;
	const struct watch_style *style;
	int room;
};

static struct line
line_begin(struct sq_buf *out, const struct watch_style *s)
{
	return (struct line){ out, s, s->columns };
}

static void
line_end(struct line *l)
{
	sq_buf_addc(l->out, '\n');
}

/* The next character of s: its octets, cells, and whether it can be shown. */
static size_t
next_char(const char *s, mbstate_t *state, int *cells)
{
	wchar_t w;
	size_t n = mbrtowc(&w, s, MB_CUR_MAX, state);

	*cells = 1;
	if (n == 0 || n == (size_t)-1 || n == (size_t)-2) {
		memset(state, 0, sizeof(*state));
		*cells = -1;
		return 1;
	}
	*cells = wcwidth(w);
	return n;
}

/* At most `max` cells of s. */
static void
put_max(struct line *l, const char *s, int max)
{
	mbstate_t state = { 0 };

	while (*s && l->room > 0 && max > 0) {
		int cells;
		size_t n = next_char(s, &state, &cells);
		bool shown = cells >= 0;

		cells = shown ? cells : 1;
		if (cells > l->room || cells > max) {
			l->room = cells > l->room ? 0 : l->room;
			return;
		}
		if (shown)
			sq_buf_add(l->out, s, n);
		else
			sq_buf_addc(l->out, '?');
		l->room -= cells;
		max -= cells;
		s += n;
	}
}

static void
put(struct line *l, const char *s)
{
	put_max(l, s, l->room);
}

static void SQ_PRINTF(2, 3)
putf(struct line *l, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	put(l, text);
}

static void
fill(struct line *l, int cells)
{
	for (; cells > 0 && l->room > 0; cells--, l->room--)
		sq_buf_addc(l->out, ' ');
}

/* In a column of so many cells, cut where it is longer. */
static void
put_column(struct line *l, const char *s, int cells)
{
	int before = l->room;

	put_max(l, s, cells);
	fill(l, cells - (before - l->room));
}

static void
paint_on(struct line *l, const char *escape)
{
	if (l->style->colour)
		sq_buf_adds(l->out, escape);
}

static void
paint_off(struct line *l)
{
	paint_on(l, "\033[0m");
}

static const char *
colour_of(const char *state)
{
	return strcmp(state, "good") == 0 ? "\033[32m" : strcmp(state, "fair") == 0 ? "\033[33m"
		: strcmp(state, "poor") == 0 || strcmp(state, "down") == 0 ? "\033[31m" : "";
}

/* ---- times ---- */

/* "in 12 s", or for lines that stay "at 14:03:10". */
static void
when(const struct watch_view *v, const struct watch_style *s, int64_t at_ms, char out[48])
{
	time_t t = (time_t)(at_ms / 1000);
	struct tm tm;
	char span[32];

	if (s->plain && at_ms > 0 && localtime_r(&t, &tm)) {
		strftime(out, 48, "at %H:%M:%S", &tm);
		return;
	}
	text_ago(at_ms - v->now_ms, span);
	snprintf(out, 48, at_ms > v->now_ms ? "in %s" : "now", span);
}

int64_t
watch_next_look(const struct watch_view *v)
{
	int64_t look = -1;

	if (v->n_items > 0)
		return SECOND;
	for (size_t i = 0; i < v->n_routes; i++)
		if (v->routes[i].next_ms > v->now_ms)
			look = v->routes[i].next_ms - v->now_ms < SOON_MS ? SECOND : look < 0 ? LATER_MS : look;
	for (size_t i = 0; i < v->n_next; i++)
		look = v->next[i].at_ms > v->now_ms && v->next[i].at_ms - v->now_ms < SOON_MS ? SECOND : look < 0 ? LATER_MS : look;
	return look;
}

/* ---- the parts of the screen ---- */

static void
head(const struct watch_view *v, const struct watch_style *s, struct sq_buf *out)
{
	struct line l = line_begin(out, s);
	bool any = false;

	put(&l, "sendq: ");
	for (int i = 0; i < SQ_STATE_COUNT; i++) {
		if (v->counts[i] == 0 || sq_state_is_final((enum sq_state)i))
			continue;
		putf(&l, "%s%" PRId64 " %s", any ? ", " : "", v->counts[i], i == SQ_STATE_DOUBT ? "in doubt" : sq_state_name((enum sq_state)i));
		any = true;
	}
	put(&l, any ? "" : "the queue is empty");
	put(&l, v->daemon ? "" : "; no daemon runs");
	line_end(&l);
}

static void
route_line(const struct watch_view *v, const struct watch_style *s, const struct watch_route *r, struct sq_buf *out)
{
	struct line l = line_begin(out, s);
	char text[48], size[16];

	put_column(&l, r->name, s->columns < 60 ? 8 : 12);
	put(&l, " ");
	paint_on(&l, colour_of(r->state));
	put(&l, r->state[0] ? r->state : "not tried yet");
	paint_off(&l);
	if (r->since_ms > 0 && !s->plain) {
		text_ago(v->now_ms - r->since_ms, text);
		putf(&l, " for %s", text);
	}
	/* What a narrow terminal loses is what matters least. */
	if (r->next_ms > v->now_ms) {
		when(v, s, r->next_ms, text);
		putf(&l, ", next try %s (%s)", text, r->cause);
	} else if (r->stopped) {
		putf(&l, ", stopped (%s)", r->cause);
	} else if (strcmp(r->cause, "portal") == 0) {
		putf(&l, ", the network asks for a sign-in");
	}
	if (r->rate > 0 && !s->plain) {
		text_size((uint64_t)r->rate, size);
		putf(&l, ", %s/s", size);
	}
	if (r->rtt_us > 0 && !s->plain)
		putf(&l, ", RTT %" PRId64 " ms", (r->rtt_us + 500) / 1000);
	line_end(&l);
}

static void
who(struct line *l, const char *id, const char *to, size_t more)
{
	char count[32] = "";

	if (more > 0)
		snprintf(count, sizeof(count), " and %zu more", more);
	put_column(l, id, 6);
	put(l, " ");
	put_max(l, to, l->room - (int)strlen(count));
	put(l, count);
}

/* Part of `cells` that `octets` of `size` are. */
static int
share(int64_t octets, uint64_t size, int cells)
{
	double part = size > 0 && octets > 0 ? (double)octets / (double)size : 0;

	return (int)((part > 1 ? 1 : part) * cells);
}

static int
percent_of(const struct watch_item *m)
{
	return m->checking ? 100 : share(m->acked, m->size, 100);
}

/* What stands behind the bar, from much to little: 0, 1, 2. */
static void
figures(const struct watch_item *m, int detail, char out[160])
{
	char acked[16], size[16], kept[16], rate[16], left[32];
	size_t n = (size_t)snprintf(out, 160, "%3d %%", percent_of(m));

	if (detail == 0) {
		text_size((uint64_t)(m->acked > 0 ? m->acked : 0), acked);
		text_size(m->size, size);
		n += (size_t)snprintf(out + n, 160 - n, "  %s of %s", acked, size);
		if (m->durable > 0) {
			text_size((uint64_t)m->durable, kept);
			n += (size_t)snprintf(out + n, 160 - n, ", %s kept", kept);
		}
	}
	if (detail < 2 && m->rate > 0) {
		text_size((uint64_t)m->rate, rate);
		text_ago((int64_t)(((double)m->size - (double)m->acked) / m->rate * 1000), left);
		snprintf(out + n, 160 - n, "  %s/s  %s left", rate, left);
	}
}

static void
bar(struct line *l, const struct watch_item *m, int cells)
{
	int kept = share(m->durable, m->size, cells), acked = share(m->acked, m->size, cells);

	paint_on(l, "\033[32m");
	put(l, "[");
	for (int i = 0; i < cells; i++)
		put(l, i < kept ? "#" : i < acked ? "=" : ".");
	put(l, "]");
	paint_off(l);
}

static void
item_lines(const struct watch_view *v, const struct watch_style *s, const struct watch_item *m, struct sq_buf *out)
{
	struct line l = line_begin(out, s);
	char text[160], span[32];
	int cells = 0, detail = 0;

	who(&l, m->id, m->to, m->more);
	if (s->plain) {
		figures(m, 0, text);
		put(&l, m->checking ? "  the server is checking" : "  being sent ");
		put(&l, m->checking ? "" : text);
		line_end(&l);
		return;
	}
	line_end(&l);
	l = line_begin(out, s);
	if (m->checking) {
		text_ago(v->now_ms - m->since_ms, span);
		putf(&l, "  all is out; the server is checking, %s", span);
		line_end(&l);
		return;
	}
	for (; detail < 3; detail++) {
		figures(m, detail, text);
		cells = s->columns - 4 - 1 - (int)strlen(text);
		if (cells >= BAR_MIN)
			break;
	}
	put(&l, "  ");
	if (cells >= 4)
		bar(&l, m, cells > BAR_MAX ? BAR_MAX : cells);
	put(&l, " ");
	put(&l, text);
	line_end(&l);
}

static void
next_line(const struct watch_view *v, const struct watch_style *s, const struct watch_next *m, struct sq_buf *out)
{
	struct line l = line_begin(out, s);
	char text[128], size[16], at[48];
	int tail;

	when(v, s, m->at_ms, at);
	text_size(m->size, size);
	snprintf(text, sizeof(text), "  %s  %s%s%s", size, m->better_link ? "waits for a better link, " : "", at, m->better_link ? " at the latest" : "");
	tail = (int)strlen(text);
	if (s->columns < 60)
		snprintf(text, sizeof(text), "  %s", at), tail = (int)strlen(text);
	put_column(&l, m->id, 6);
	put(&l, " ");
	put_max(&l, m->to, l.room - tail > 0 ? l.room - tail : 0);
	if (m->more > 0 && l.room > tail + 12)
		putf(&l, " and %zu more", m->more);
	put(&l, text);
	line_end(&l);
}

static void
text_line(const struct watch_style *s, const char *text, struct sq_buf *out)
{
	struct line l = line_begin(out, s);

	put(&l, text);
	line_end(&l);
}

void
watch_draw(const struct watch_view *v, const struct watch_style *s, struct sq_buf *out)
{
	/* Rows left for what follows the head; the last is for the legend. */
	int rows = s->rows > 0 ? s->rows - (s->plain ? 1 : 2) : INT32_MAX;
	size_t items = 0, routes = v->n_routes;
	char text[64];

	head(v, s, out);
	if (rows < INT32_MAX && routes > (size_t)(rows > 6 ? rows / 3 : 2))
		routes = (size_t)(rows > 6 ? rows / 3 : 2);
	for (size_t i = 0; i < routes && rows > 0; i++, rows--)
		route_line(v, s, &v->routes[i], out);
	if (v->n_items > 0 && rows > 3 && !s->plain) {
		sq_buf_addc(out, '\n');
		rows--;
	}
	/* A message has two rows, and one is kept for how many have none. */
	for (; items < v->n_items && rows > (items + 1 < v->n_items || v->more_items ? 2 : 1); items++, rows -= s->plain ? 1 : 2)
		item_lines(v, s, &v->items[items], out);
	if (items < v->n_items + v->more_items && rows > 0) {
		snprintf(text, sizeof(text), "… and %zu more under way", v->n_items + v->more_items - items);
		text_line(s, text, out);
		rows--;
	}
	if (v->n_next > 0 && rows > 2) {
		if (!s->plain) {
			sq_buf_addc(out, '\n');
			text_line(s, "Next:", out);
			rows -= 2;
		}
		for (size_t i = 0; i < v->n_next && rows > 0; i++, rows--)
			next_line(v, s, &v->next[i], out);
	}
	if (!s->plain)
		text_line(s, s->columns >= 60 ? "q ends   [#] kept by the server  [=] acknowledged" : "q ends", out);
}

/* ---- JSON ---- */

void
watch_json(const struct watch_view *v, bool steady, struct json *j)
{
	json_open(j, NULL, '{');
	if (!steady)
		json_int(j, "at_ms", v->now_ms);
	json_bool(j, "daemon", v->daemon);
	json_open(j, "recipients", '{');
	for (int i = 0; i < SQ_STATE_COUNT; i++)
		if (!sq_state_is_final((enum sq_state)i))
			json_int(j, sq_state_name((enum sq_state)i), v->counts[i]);
	json_close(j, '}');
	json_open(j, "under_way", '[');
	for (size_t i = 0; i < v->n_items; i++) {
		const struct watch_item *m = &v->items[i];

		json_open(j, NULL, '{');
		json_text(j, "id", m->id);
		json_text(j, "to", m->to);
		json_int(j, "recipients", (int64_t)m->more + 1);
		json_int(j, "size", (int64_t)m->size);
		json_text(j, "state", sq_state_name(m->checking ? SQ_STATE_COMMITTING : SQ_STATE_SENDING));
		json_int(j, "state_ms", m->since_ms);
		json_int(j, "acked_octets", m->acked);
		json_int(j, "durable_octets", m->durable);
		if (!steady) {
			json_int(j, "octets_per_second", (int64_t)m->rate);
			json_int(j, "left_ms", m->rate > 0 ? (int64_t)(((double)m->size - (double)m->acked) / m->rate * 1000) : -1);
		}
		json_close(j, '}');
	}
	json_close(j, ']');
	json_open(j, "routes", '[');
	for (size_t i = 0; i < v->n_routes; i++) {
		const struct watch_route *r = &v->routes[i];

		json_open(j, NULL, '{');
		json_text(j, "route", r->name);
		json_text(j, "state", r->state);
		json_int(j, "since_ms", r->since_ms);
		json_int(j, "next_try_ms", r->next_ms);
		json_text(j, "cause", r->cause[0] ? r->cause : NULL);
		json_bool(j, "stopped", r->stopped);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_open(j, "next", '[');
	for (size_t i = 0; i < v->n_next; i++) {
		const struct watch_next *m = &v->next[i];

		json_open(j, NULL, '{');
		json_text(j, "id", m->id);
		json_text(j, "to", m->to);
		json_int(j, "recipients", (int64_t)m->more + 1);
		json_int(j, "size", (int64_t)m->size);
		json_int(j, "next_try_ms", m->at_ms);
		json_bool(j, "better_link", m->better_link);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_close(j, '}');
}

/* ---- rates ---- */

double
watch_rate(struct watch_track *t, int64_t now_ms, int64_t acked)
{
	int old = 0;

	if (t->n > 0 && (acked < t->sample[t->n - 1].acked || now_ms < t->sample[t->n - 1].ms))
		t->n = 0;
	while (old < t->n && (now_ms - t->sample[old].ms > WATCH_SPAN_MS || t->n - old == WATCH_SAMPLES))
		old++;
	memmove(t->sample, t->sample + old, (size_t)(t->n - old) * sizeof(t->sample[0]));
	t->n -= old;
	t->sample[t->n].ms = now_ms;
	t->sample[t->n++].acked = acked;
	if (now_ms - t->sample[0].ms < SECOND / 2)
		return 0;
	return (double)(acked - t->sample[0].acked) * 1000 / (double)(now_ms - t->sample[0].ms);
}

/* ---- from one screen to the next ---- */

void
watch_redraw(const char *before, const char *after, struct sq_buf *out)
{
	int row = 1;

	if (!before)
		sq_buf_adds(out, "\033[2J");
	for (; *after; row++) {
		size_t n = strcspn(after, "\n"), was = before ? strcspn(before, "\n") : 0;

		if (!before || was != n || memcmp(before, after, n) != 0) {
			sq_buf_addf(out, "\033[%d;1H", row);
			sq_buf_add(out, after, n);
			sq_buf_adds(out, "\033[K");
		}
		after += n + (after[n] == '\n');
		if (before)
			before += was + (before[was] == '\n');
	}
	if (before && *before)
		sq_buf_addf(out, "\033[%d;1H\033[J", row);
}
