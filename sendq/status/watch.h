/*
 * Inside sendq/status: `sendq watch`. watch.c reads the queue and has the
 * terminal; watch_draw.c turns what was read into lines, and is pure.
 */
#ifndef SENDQ_WATCH_H
#define SENDQ_WATCH_H

#include "status.h"

enum { WATCH_ITEMS = 32, WATCH_NEXT = 8, WATCH_ROUTES = 32, WATCH_SAMPLES = 24, WATCH_SPAN_MS = 15000 };

struct watch_item {            /* a message under way */
	char id[SQ_ID_TEXT], to[256];
	size_t more;               /* further recipients */
	uint64_t size;
	int64_t acked, durable;    /* octets: acknowledged; kept by the server for a resume */
	bool checking;             /* all is out, the server's answer is awaited */
	int64_t since_ms;          /* wall time of its present state */
	double rate;               /* octets/s; 0: not known yet */
};

struct watch_next {            /* a message that waits */
	char id[SQ_ID_TEXT], to[256];
	size_t more;
	uint64_t size;
	int64_t at_ms;
	bool better_link;
};

struct watch_route {
	char name[65], state[8], cause[16];
	int64_t since_ms, next_ms, rtt_us;
	double rate;               /* 0: not known */
	bool stopped;
};

struct watch_view {
	int64_t now_ms;
	bool daemon;
	int64_t counts[SQ_STATE_COUNT];
	struct watch_item items[WATCH_ITEMS];
	struct watch_next next[WATCH_NEXT];
	struct watch_route routes[WATCH_ROUTES];
	size_t n_items, n_next, n_routes;
	size_t more_items;         /* that found no room above */
};

struct watch_style {
	int columns, rows;         /* rows 0: as many as it takes */
	bool colour;
	bool plain;                /* lines to be read one after the other: absolute times, no bars, no last line */
};

/*
 * Append the screen to `out`, a line end after each line. No line has more
 * than `columns` cells (escape sequences for colour not counted), nobody's
 * controls among them; no more than `rows` lines. Text is of the locale.
 */
void watch_draw(const struct watch_view *v, const struct watch_style *s, struct sq_buf *out);

/* One JSON object; without what changes by the clock alone where `steady`. */
void watch_json(const struct watch_view *v, bool steady, struct json *out);

/* How fast one message goes, over the last WATCH_SPAN_MS. Fewer octets than before: another attempt, from anew. */
struct watch_track {
	int64_t message;
	int n;
	struct { int64_t ms, acked; } sample[WATCH_SAMPLES];
};
double watch_rate(struct watch_track *t, int64_t now_ms, int64_t acked); /* octets/s; 0: not known yet */

/* What turns the screen `before` into `after` (both of watch_draw(); before NULL: whatever is there): only lines that differ are written. */
void watch_redraw(const char *before, const char *after, struct sq_buf *out);

/* When the screen looks different by the clock alone, in ms from now; -1: never. */
int64_t watch_next_look(const struct watch_view *v);

#endif
