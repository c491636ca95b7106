/*
 * How long mail takes over links that break, by the order in which it goes:
 * sendq's (sendq/link, the real code), first in first out, shortest first.
 * A simulation without a clock; the same seed prints the same tables.
 *
 *   order [--seed N] [--runs N] [RECORDING...]
 *
 * A RECORDING is what a link was seen to do, a line a span: milliseconds,
 * octets acknowledged, cuts at its end:
 *
 *   sqlite3 -separator ' ' queue.db 'SELECT ms, octets, cuts FROM link_past ORDER BY at_ms'
 *
 * The server cannot resume. Beyond the order all have the same: the connection
 * to set up, 15 s between a cut and the next attempt, five days until mail is
 * given up. What comes in while something is being sent waits for its end,
 * but for sendq, which gives small mail a connection of its own.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include <sendq/link.h>

enum { DAY = 86400, GIVE_UP = 5 * DAY, MESSAGES = 51, PAUSE = 15, RECORD = 20, RUNS = 20, SPANS_MAX = 20000 };
#define DAY_MS (INT64_C(1000) * DAY)
#define SETUP_SECONDS 0.3
#define START_MS INT64_C(1700000000000)
#define SPENT_MAX 64e6

/* ---- links ---- */

struct span {
	double seconds, rate;      /* octets/s */
	double mean_octets, mean_seconds; /* between cuts; 0: none follow these */
	bool cut;                  /* at its end, of a recording */
};

struct link {
	const char *name, *words;
	struct span *spans;
	size_t n;
	bool again;                /* after the last comes the first; else the last stays */
};

static struct span poor[] = { { DAY, 14e3, 3e5, 0, false } };
static struct span timed[] = { { DAY, 40e3, 0, 25, false } };
static struct span fair[] = { { DAY, 100e3, 8e6, 0, false } };
static struct span good[] = { { DAY, 1e6, 0, 0, false } };
static struct span spell[] = { { 1.5 * DAY, 14e3, 3e5, 0, false }, { DAY, 500e3, 0, 0, false } };
static struct span passes[] = { { 90, 60e3, 0, 0, true }, { 300, 0.001, 0, 0, false } };

static const struct link synthetic[] = {
	{ "poor", "14 KB/s, breaks about every 300 KB", poor, 1, true },
	{ "by time", "40 KB/s, breaks about every 25 s", timed, 1, true },
	{ "fair", "100 KB/s, breaks about every 8 MB", fair, 1, true },
	{ "good", "1 MB/s, never breaks", good, 1, true },
	{ "a bad spell", "poor for 36 hours, then 500 KB/s that never breaks", spell, 2, false },
	{ "passes", "60 KB/s for 90 s, then nothing for 5 min", passes, 2, true },
};

/* Where a link is: the span, and how much of it is over. */
struct place { size_t span; double over; };

static void
move(const struct link *l, struct place *p, double seconds)
{
	while (seconds > 0) {
		double left = l->spans[p->span].seconds - p->over;

		if (p->span + 1 == l->n && !l->again)
			return;
		if (seconds < left) {
			p->over += seconds;
			return;
		}
		seconds -= left;
		p->over = 0;
		p->span = (p->span + 1) % l->n;
	}
}

/* ---- chance, the same for each order ---- */

static uint64_t state;

static double
chance(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (double)((state >> 11) + 1) / 9007199254740993.0;
}

/* ---- mail ---- */

enum kind { SMALL, MEDIUM, BIG, KINDS };
enum policy { SENDQ, FIFO, SHORTEST, POLICIES };
static const char *const policy_names[] = { "sendq", "first in, first out", "shortest first" };

struct mail {
	enum kind kind;
	double size, at, done;     /* octets, seconds; done < 0: not delivered */
	int64_t last_try_ms;
	int64_t cuts_ms[RECORD];   /* when it was cut, the last ones */
	int cuts;
};

/* A working day of one person: most are small, all come within eight hours. */
static void
make_mail(struct mail *m)
{
	for (int i = 0; i < MESSAGES; i++) {
		enum kind k = i < 40 ? SMALL : i < 48 ? MEDIUM : BIG;

		m[i] = (struct mail){ .kind = k, .at = chance() * 8 * 3600, .done = -1,
			.size = k == SMALL ? 2e3 * pow(25, chance()) : k == MEDIUM ? 2e5 + 8e5 * chance() : 5e6 + 15e6 * chance() };
	}
}

/* ---- one run ---- */

struct run {
	const struct link *link;
	enum policy policy;
	struct mail *mail;
	struct place place;
	double now, octets;        /* seconds; sent */
	struct sq_quality quality;
	double spent, spent_oldest;
};

static int64_t
ms(double seconds)
{
	return START_MS + (int64_t)(seconds * 1000);
}

static struct sq_order_link
order_link(const struct run *r)
{
	struct sq_order_link l = { .est = sq_quality_estimate(&r->quality, ms(r->now)), .now_ms = ms(r->now), .spent = r->spent, .spent_oldest = r->spent_oldest };

	sq_order_prepare(&l);
	return l;
}

static struct sq_order_item
order_item(const struct mail *m, int64_t now_ms)
{
	struct sq_order_item i = { .size = (uint64_t)m->size, .submitted_ms = ms(m->at), .last_try_ms = m->last_try_ms };

	for (int k = 0; k < RECORD && k < m->cuts; k++)
		i.cuts_day += m->cuts_ms[k] > now_ms - DAY_MS;
	return i;
}

static bool
waiting(const struct run *r, const struct mail *m)
{
	return m->done < 0 && m->at <= r->now && r->now - m->at < GIVE_UP;
}

/* When something changes by itself: the next message comes. */
static double
next_arrival(const struct run *r)
{
	double at = INFINITY;

	for (int i = 0; i < MESSAGES; i++)
		if (r->mail[i].at > r->now && r->mail[i].at < at)
			at = r->mail[i].at;
	return at;
}

/* What goes next; NULL: nothing may before *until. */
static struct mail *
choose(struct run *r, double *until)
{
	struct sq_order_link l = order_link(r);
	struct sq_order_item items[MESSAGES];
	struct mail *of[MESSAGES], *best = NULL;
	size_t n = 0, k;

	*until = next_arrival(r);
	for (int i = 0; i < MESSAGES; i++) {
		struct mail *m = &r->mail[i];

		if (!waiting(r, m))
			continue;
		if (!best || (r->policy == FIFO ? m->at < best->at : m->size < best->size))
			best = m;
		of[n] = m;
		items[n++] = order_item(m, ms(r->now));
	}
	if (r->policy != SENDQ || n == 0)
		return best;
	if ((k = sq_order_pick(items, n, &l)) < n)
		return of[k];
	for (k = 0; k < n; k++)
		*until = fmin(*until, (double)(sq_order_start(&items[k], &l).when_ms - START_MS) / 1000 + 0.001);
	return NULL;
}

static bool
oldest(const struct run *r, const struct mail *m)
{
	for (int i = 0; i < MESSAGES; i++)
		if (&r->mail[i] != m && waiting(r, &r->mail[i]) && r->mail[i].at < m->at)
			return false;
	return true;
}

/* The link carries so many octets, or breaks before: true, and how many it carried. */
static bool
carry(struct run *r, double octets, double *carried)
{
	*carried = 0;
	while (octets - *carried > 0.5) {
		const struct span *s = &r->link->spans[r->place.span];
		bool last = r->place.span + 1 == r->link->n && !r->link->again;
		double seconds = (octets - *carried) / s->rate, left = last ? INFINITY : s->seconds - r->place.over, cut = INFINITY;
		double began = r->now;
		bool broke;

		if (s->mean_octets > 0)
			cut = -log(chance()) * s->mean_octets / s->rate;
		if (s->mean_seconds > 0)
			cut = fmin(cut, -log(chance()) * s->mean_seconds);
		broke = cut < seconds && cut < left;
		seconds = fmin(fmin(seconds, left), cut);
		/* Memoryless: the end of a span is no event but where it says so. */
		broke |= seconds >= left && s->cut;
		*carried += seconds * s->rate;
		r->now = began + seconds;
		move(r->link, &r->place, seconds);
		if (broke)
			return false;
		if (s->rate < 1)
			return false; /* dead: nobody waits for it to come back */
	}
	return true;
}

static void
seen(struct run *r, const struct mail *m, double octets, double seconds, bool steady, bool cut)
{
	sq_quality_stretch(&r->quality, ms(r->now), &(struct sq_stretch){ .octets = octets, .seconds = seconds, .cut = cut, .steady = steady,
		.rate = cut && seconds > 0 ? octets / seconds : 0 });
	r->octets += octets;
	r->spent += octets;
	r->spent_oldest += oldest(r, m) ? octets : 0;
	if (r->spent > SPENT_MAX) {
		r->spent /= 2;
		r->spent_oldest /= 2;
	}
}

/* Small mail that may go beside what is being sent; NULL: none. */
static struct mail *
beside(struct run *r, const struct mail *running, double acked)
{
	struct sq_order_link l = order_link(r);
	struct sq_order_item big = order_item(running, ms(r->now));
	struct mail *best = NULL;

	if (r->policy != SENDQ || !l.est.rate_known)
		return NULL;
	for (int i = 0; i < MESSAGES; i++) {
		struct mail *m = &r->mail[i];
		struct sq_order_item item = order_item(m, ms(r->now));

		if (m != running && waiting(r, m) && sq_order_start(&item, &l).start == SQ_START_NOW &&
		    sq_order_express(&big, (uint64_t)acked, &item, &l) && (!best || m->size < best->size))
			best = m;
	}
	return best;
}

/* An attempt, in pieces of a second or so, as the runner hears of it; false: it broke. */
static bool
attempt(struct run *r, struct mail *m)
{
	double acked = 0, carried, began = r->now;
	bool whole;

	m->last_try_ms = ms(r->now);
	r->now += SETUP_SECONDS;
	move(r->link, &r->place, SETUP_SECONDS);
	whole = carry(r, SQ_SETUP_OCTETS, &carried);
	seen(r, m, carried, r->now - began, false, !whole);
	while (whole && m->size - acked > 0.5) {
		double rate = r->link->spans[r->place.span].rate, part = fmin(m->size - acked, fmax(rate, 1000));
		struct mail *other = beside(r, m, acked);

		if (other) {
			double at = r->now;

			other->last_try_ms = ms(r->now);
			whole = carry(r, other->size + SQ_SETUP_OCTETS, &carried);
			seen(r, other, carried, r->now - at, false, !whole);
			if (whole)
				other->done = r->now;
			continue;
		}
		began = r->now;
		whole = carry(r, part, &carried);
		acked += carried;
		seen(r, m, carried, r->now - began, true, !whole);
	}
	if (whole)
		m->done = r->now;
	else
		m->cuts_ms[m->cuts++ % RECORD] = m->last_try_ms;
	return whole;
}

static void
simulate(struct run *r)
{
	while (r->now < GIVE_UP + 8 * 3600) {
		double until;
		struct mail *m = choose(r, &until);
		double wait = m ? 0 : until - r->now;

		if (!m && until == INFINITY)
			return;
		if (m && !attempt(r, m))
			wait = PAUSE;
		r->now += wait;
		move(r->link, &r->place, wait);
	}
}

/* ---- figures ---- */

struct times { double *v; size_t n, asked; };

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void
print_time(double s)
{
	if (s < 120)
		printf("%.0f s", s);
	else if (s < 7200)
		printf("%.0f min", s / 60);
	else
		printf("%.0f h", s / 3600);
}

/* Median and worst of those delivered, and how many never were. */
static void
print_times(struct times *t)
{
	qsort(t->v, t->n, sizeof(*t->v), by_value);
	printf(" ");
	if (t->n == 0) {
		printf("never |");
		return;
	}
	print_time(t->v[t->n / 2]);
	printf(" / ");
	print_time(t->v[t->n - 1]);
	if (t->n < t->asked)
		printf(", %.0f %% never", 100 * (double)(t->asked - t->n) / (double)t->asked);
	printf(" |");
}

static void
table(const struct link *l, uint64_t seed, int runs)
{
	printf("\n%s (%s):\n\n| order | small, 2-50 KB | 0.2-1 MB | 5-20 MB | octets sent / delivered |\n|---|---|---|---|---|\n", l->name, l->words);
	for (int p = 0; p < POLICIES; p++) {
		struct times t[KINDS] = { { 0 } };
		double sent = 0, delivered = 0;

		for (int k = 0; k < KINDS; k++)
			t[k].v = calloc((size_t)runs * MESSAGES, sizeof(double));
		for (int n = 0; n < runs; n++) {
			struct mail mail[MESSAGES];
			struct run r = { .link = l, .policy = (enum policy)p, .mail = mail };

			state = seed * 1000 + (uint64_t)n + 1;
			for (int i = 0; i < 16; i++)
				chance();
			make_mail(mail);
			simulate(&r);
			sent += r.octets;
			for (int i = 0; i < MESSAGES; i++) {
				struct times *of = &t[mail[i].kind];

				of->asked++;
				if (mail[i].done < 0)
					continue;
				of->v[of->n++] = mail[i].done - mail[i].at;
				delivered += mail[i].size;
			}
		}
		printf("| %s |", policy_names[p]);
		for (int k = 0; k < KINDS; k++) {
			print_times(&t[k]);
			free(t[k].v);
		}
		printf(" %.2f |\n", delivered > 0 ? sent / delivered : 0);
	}
}

static void
recorded(const char *path, uint64_t seed, int runs)
{
	struct link l = { .name = "recorded", .words = path, .again = true };
	FILE *f = fopen(path, "r");
	long long span_ms, octets;
	int cuts;

	if (!f || !(l.spans = calloc(SPANS_MAX, sizeof(*l.spans)))) {
		fprintf(stderr, "order: cannot read '%s'\n", path);
		exit(1);
	}
	while (l.n < SPANS_MAX && fscanf(f, "%lld %lld %d", &span_ms, &octets, &cuts) == 3)
		if (span_ms > 0)
			l.spans[l.n++] = (struct span){ .seconds = (double)span_ms / 1000, .rate = fmax((double)octets * 1000 / (double)span_ms, 0.001), .cut = cuts > 0 };
	fclose(f);
	if (l.n == 0) {
		fprintf(stderr, "order: '%s' holds no spans\n", path);
		exit(1);
	}
	table(&l, seed, runs);
	free(l.spans);
}

int
main(int argc, char **argv)
{
	uint64_t seed = 1;
	int runs = RUNS, i = 1;

	for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2)
		if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--runs") == 0)
			runs = (int)strtol(argv[i + 1], NULL, 10);
	printf("Seed %" PRIu64 ", %d runs; each cell: median / worst of those delivered within five days.\n", seed, runs);
	for (size_t k = 0; k < SQ_LEN(synthetic); k++)
		table(&synthetic[k], seed, runs);
	for (; i < argc; i++)
		recorded(argv[i], seed, runs);
	return 0;
}
