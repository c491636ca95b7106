/*
 * sendq links: each route on each network, how good it is by which numbers,
 * since when and why; and what waits for what. What is known of the links is
 * the runner's; here it is only put into words.
 */
#include <inttypes.h>
#include <math.h>
#include <sysexits.h>

#include <sendq/io.h>
#include <sendq/link.h>

#include "status.h"

/* ---- what waits ---- */

/* Messages of a route by what they wait for, each counted once: by its first recipient that is not finished. */
enum wait_kind { WAIT_SENDING, WAIT_CHECKING, WAIT_TURN, WAIT_LINK, WAIT_BETTER, WAIT_OWN, WAIT_DOUBT, WAIT_HELD, WAIT_KINDS };
static const struct { const char *json, *one, *many; } wait_words[] = {
	[WAIT_SENDING] = { "sending", "is being sent", "are being sent" },
	[WAIT_CHECKING] = { "checking", "is being checked by the server", "are being checked by the server" },
	[WAIT_TURN] = { "turn", "waits for its turn", "wait for their turn" },
	[WAIT_LINK] = { "link", "waits for the route", "wait for the route" },
	[WAIT_BETTER] = { "better_link", "waits for a better link", "wait for a better link" },
	[WAIT_OWN] = { "own", "waits for its own time", "wait for their own time" },
	[WAIT_DOUBT] = { "doubt", "is in doubt", "are in doubt" },
	[WAIT_HELD] = { "held", "is held", "are held" },
};

struct waiting {
	char route[65];
	int64_t n[WAIT_KINDS], octets[WAIT_KINDS];
	int64_t next_ms[WAIT_KINDS];   /* the earliest; of those being sent or due 0 */
};

struct links {
	struct cli *c;
	struct sq_network here;
	struct waiting *waiting;
	size_t n_waiting;
	struct sq_link_row *rows;
	size_t n_rows;
	struct json j;
	bool failed;                   /* out of memory */
};

static struct waiting *
waiting_of(struct links *l, const char *route, bool make)
{
	struct waiting *more;

	for (size_t i = 0; i < l->n_waiting; i++)
		if (strcmp(l->waiting[i].route, route) == 0)
			return &l->waiting[i];
	if (!make)
		return NULL;
	if (!(more = reallocarray(l->waiting, l->n_waiting + 1, sizeof(*more)))) {
		l->failed = true;
		return NULL;
	}
	l->waiting = more;
	more += l->n_waiting++;
	*more = (struct waiting){ 0 };
	snprintf(more->route, sizeof(more->route), "%s", route);
	return more;
}

static enum wait_kind
kind_of(const struct links *l, const struct sq_recipient *r)
{
	if (r->state != SQ_STATE_QUEUED)
		return r->state == SQ_STATE_SENDING ? WAIT_SENDING : r->state == SQ_STATE_COMMITTING ? WAIT_CHECKING
			: r->state == SQ_STATE_DOUBT ? WAIT_DOUBT : WAIT_HELD;
	if (r->next_try_ms <= l->c->now_ms || r->waits == SQ_WAITS_FORCED)
		return WAIT_TURN;
	return r->waits == SQ_WAITS_BETTER_LINK || r->waits == SQ_WAITS_PARTIAL ? WAIT_BETTER : r->waits == SQ_WAITS_LINK ? WAIT_LINK : WAIT_OWN;
}

static bool
count_message(void *arg, const struct sq_message *m)
{
	struct links *l = arg;
	struct waiting *w = waiting_of(l, m->route, true);

	for (size_t i = 0; w && i < m->n_recipients; i++) {
		const struct sq_recipient *r = &m->recipients[i];
		enum wait_kind k;

		if (sq_state_is_final(r->state))
			continue;
		k = kind_of(l, r);
		w->n[k]++;
		w->octets[k] += (int64_t)m->size;
		if (r->next_try_ms > l->c->now_ms && (w->next_ms[k] == 0 || r->next_try_ms < w->next_ms[k]))
			w->next_ms[k] = r->next_try_ms;
		break;
	}
	return w != NULL;
}

/* ---- for programs ---- */

static const char *
reason_name(enum sq_link_reason r)
{
	static const char *const names[] = { [SQ_REASON_NOTHING] = NULL, [SQ_REASON_CUTS] = "cuts", [SQ_REASON_SPEED] = "speed",
		[SQ_REASON_CONNECTS] = "connects", [SQ_REASON_RTT] = "rtt", [SQ_REASON_UNREACHED] = "unreached" };

	return names[r];
}

static void
waiting_json(struct json *j, const struct waiting *w)
{
	json_open(j, "waiting", '{');
	for (int k = 0; k < WAIT_KINDS; k++) {
		json_open(j, wait_words[k].json, '{');
		json_int(j, "messages", w ? w->n[k] : 0);
		json_int(j, "octets", w ? w->octets[k] : 0);
		json_int(j, "next_try_ms", w ? w->next_ms[k] : 0);
		json_close(j, '}');
	}
	json_close(j, '}');
}

static void
link_json(struct links *l, const struct sq_link_row *r, bool here)
{
	struct sq_reply reply = { .code = r->reply_code, .text = sq_str(r->reply_text) };
	struct sq_estimate e = sq_quality_estimate(&r->quality, l->c->now_ms);
	struct json *j = &l->j;
	enum sq_link_reason reason;
	double value;

	(void)sq_quality_state(&r->quality, l->c->now_ms, sq_link_state_of(r->state), &reason, &value);
	memcpy(reply.enhanced, r->reply_enhanced, sizeof(reply.enhanced));
	json_open(j, NULL, '{');
	json_text(j, "route", r->route);
	json_text(j, "network", r->network);
	json_text(j, "state", r->state);
	json_int(j, "since_ms", r->since_ms);
	json_int(j, "next_try_ms", r->next_try_ms);
	json_text(j, "cause", r->cause[0] ? r->cause : NULL);
	json_bool(j, "stopped", r->stopped);
	json_int(j, "failures", r->failures);
	json_int(j, "connects", r->connects);
	json_int(j, "connect_failures", r->connect_failures);
	json_int(j, "cuts", r->cuts);
	json_int(j, "octets", r->octets);
	json_int(j, "rtt_us", r->rtt_us);
	json_int(j, "goodput_bps", r->goodput_bps);
	json_int(j, "last_ok_ms", r->last_ok_ms);
	json_int(j, "last_fail_ms", r->last_fail_ms);
	json_int(j, "size_limit", r->size_limit);
	json_bool(j, "can_resume", (r->caps & SQ_CAP_CHECKPOINT) != 0);
	json_text(j, "address", r->address);
	json_reply(j, "reply", &reply);
	json_bool(j, "here", here);
	json_text(j, "interface", here && l->here.interface[0] ? l->here.interface : NULL);
	json_bool(j, "configured", sq_config_route(l->c->cfg, r->route) != NULL);
	json_text(j, "reason", reason_name(reason));
	json_real(j, "reason_value", value);
	json_int(j, "octets_between_cuts", (int64_t)e.mean_octets);
	json_real(j, "cuts_per_mib", 1048576 / e.mean_octets);
	json_real(j, "cuts_per_minute", 60 * e.rate / e.mean_octets);
	json_bool(j, "cuts_follow_time", e.by_time);
	json_real(j, "chance_1mb", sq_chance(&e, 1e6 + SQ_SETUP_OCTETS));
	json_real(j, "chance_10mb", sq_chance(&e, 10e6 + SQ_SETUP_OCTETS));
	json_real(j, "chance_25mb", sq_chance(&e, 25e6 + SQ_SETUP_OCTETS));
	json_real(j, "connect_chance", e.connect_chance);
	json_int(j, "reply_ms", (int64_t)(r->quality.reply * 1000));
	json_int(j, "verdict_ms", (int64_t)(r->quality.verdict * 1000));
	waiting_json(j, here ? waiting_of(l, r->route, false) : NULL);
	json_close(j, '}');
	json_line(j);
}

/* ---- for people ---- */

static void
reason_words(enum sq_link_reason reason, double value, struct sq_buf *out)
{
	char size[16];

	switch (reason) {
	case SQ_REASON_NOTHING:
		return;
	case SQ_REASON_CUTS:
		text_size((uint64_t)value, size);
		sq_buf_addf(out, "\n  because the connection breaks about every %s", size);
		return;
	case SQ_REASON_SPEED:
		text_size((uint64_t)value, size);
		sq_buf_addf(out, "\n  because it carries only %s/s", size);
		return;
	case SQ_REASON_CONNECTS:
		sq_buf_addf(out, "\n  because %.0f %% of connections do not come about", 100 * value);
		return;
	case SQ_REASON_RTT:
		sq_buf_addf(out, "\n  because a round trip takes %.1f s", value);
		return;
	case SQ_REASON_UNREACHED:
		sq_buf_addf(out, "\n  because the server cannot be reached (%.0f time%s)", value, value < 1.5 ? "" : "s in a row");
		return;
	}
}

static void
percent(double chance, char out[12])
{
	snprintf(out, 12, chance >= 0.995 ? "100 %%" : chance >= 0.095 ? "%.0f %%" : chance >= 0.0005 ? "%.1f %%" : "0 %%", 100 * chance);
}

static void
seconds(double s, char out[16])
{
	if (s < 1)
		snprintf(out, 16, "%.0f ms", s * 1000);
	else
		snprintf(out, 16, "%.1f s", s);
}

/* The numbers of the model, each where it is known. */
static void
numbers(const struct sq_link_row *r, const struct sq_estimate *e)
{
	char a[16], b[16], c[16];

	if (e->rate_known) {
		text_size((uint64_t)e->rate, a);
		printf("  speed %s/s", a);
	}
	if (r->quality.rtt > 0) {
		seconds(r->quality.rtt, a);
		printf("%s round trip %s", e->rate_known ? "," : " ", a);
	}
	if (e->rate_known || r->quality.rtt > 0)
		putchar('\n');
	if (r->quality.reply > 0 || r->quality.verdict > 0) {
		seconds(r->quality.reply, a);
		seconds(r->quality.verdict, b);
		printf("  answers after %s, to a whole message after %s\n", a, b);
	}
	if (e->cuts >= 0.2) {
		text_size((uint64_t)e->mean_octets, a);
		printf("  breaks about every %s: %.2g times per MiB, %.2g times a minute of sending%s\n", a, 1048576 / e->mean_octets,
			60 * e->rate / e->mean_octets, e->by_time ? "\n  (after so much time rather than so many octets)" : "");
	}
	percent(sq_chance(e, 1e6 + SQ_SETUP_OCTETS), a);
	percent(sq_chance(e, 10e6 + SQ_SETUP_OCTETS), b);
	percent(sq_chance(e, 25e6 + SQ_SETUP_OCTETS), c);
	printf("  chance to get through unbroken: 1 MB %s, 10 MB %s, 25 MB %s\n", a, b, c);
	percent(e->connect_chance, a);
	printf("  %" PRId64 " connections stood, %" PRId64 " failed, %" PRId64 " were cut; the next stands with %s\n", r->connects, r->connect_failures, r->cuts, a);
	puts(r->caps & SQ_CAP_CHECKPOINT ? "  the server can resume: what it has is not sent again"
		: r->connects > 0 ? "  the server cannot resume: each try begins at the first octet" : "  not known yet whether the server can resume");
}

static void
what_waits(const struct links *l, const struct waiting *w)
{
	char next[48], size[16];

	for (int k = 0; w && k < WAIT_KINDS; k++) {
		if (w->n[k] == 0)
			continue;
		text_size((uint64_t)w->octets[k], size);
		printf("  %" PRId64 " message%s (%s) %s", w->n[k], w->n[k] == 1 ? "" : "s", size, w->n[k] == 1 ? wait_words[k].one : wait_words[k].many);
		if (w->next_ms[k] > 0) {
			text_in(l->c, w->next_ms[k], next);
			printf(", %s%s%s", w->n[k] > 1 ? "the next " : "", next, k == WAIT_BETTER ? " at the latest" : "");
		}
		putchar('\n');
	}
}

/* The state, since when; and what the route as a whole waits for. */
static void
state_line(const struct cli *c, const struct sq_link_row *r, const char *where, const char *why)
{
	char since[32];

	text_ago(c->now_ms - r->since_ms, since);
	printf("%s%s: %s%s%s", r->route, where, paint_link(c, r->state), r->state[0] ? r->state : "not tried yet", unpaint(c));
	if (r->since_ms > 0)
		printf(" for %s", since);
	printf("%s\n", why);
}

static void
route_waits(const struct cli *c, const struct sq_link_row *r)
{
	char next[48];

	if (link_portal(r)) {
		puts("  waits: the network asks for a sign-in (captive portal)");
	} else if (r->next_try_ms > c->now_ms || r->stopped) {
		text_in(c, r->next_try_ms, next);
		printf("  %s (%s), %s%s\n", r->stopped ? "stopped" : "waits", r->cause, r->next_try_ms > c->now_ms ? "next try " : "until you change something: sendq why ID",
			r->next_try_ms > c->now_ms ? next : "");
	}
	if (r->failures > 0 && r->reply_text[0]) {
		int at = printf("  last words: %s%s", r->reply_enhanced, r->reply_enhanced[0] ? " " : "");

		print_wrapped(r->reply_text, at, 4);
		putchar('\n');
	}
}

static void
link_text(struct links *l, const struct sq_link_row *r, bool here)
{
	struct sq_estimate e = sq_quality_estimate(&r->quality, l->c->now_ms);
	SQ_CLEANUP(sq_buf_fini) struct sq_buf why = SQ_BUF_INIT(1024);
	enum sq_link_reason reason;
	char where[64] = "";
	double value;

	(void)sq_quality_state(&r->quality, l->c->now_ms, sq_link_state_of(r->state), &reason, &value);
	if (r->state[0])
		reason_words(reason, value, &why);
	if (!here)
		snprintf(where, sizeof(where), " on another network (%.8s)", r->network[0] ? r->network : "none");
	else if (l->here.interface[0])
		snprintf(where, sizeof(where), " by %s", l->here.interface);
	state_line(l->c, r, where, why.p ? why.p : "");
	numbers(r, &e);
	if (here) {
		route_waits(l->c, r);
		what_waits(l, waiting_of(l, r->route, false));
	}
	if (!sq_config_route(l->c->cfg, r->route))
		puts("  not in the configuration any more");
}

/* As the runner judges (bus.c); told while the one that said so is up. */
static void
portal_over(const struct cli *c, const struct sq_network *here, struct sq_link_row *row)
{
	const struct sq_route *route = sq_config_route(c->cfg, row->route);
	SQ_CLEANUP(sq_freep) char *wake = NULL;

	if (here->portal_ms == 0 || !route || route->local || row->last_ok_ms >= here->portal_ms)
		return;
	if (!(wake = sq_path_suffix(c->cfg->queue, ".wake")) || !sq_wake_answers(wake))
		return;
	snprintf(row->cause, sizeof(row->cause), "portal");
	row->next_try_ms = row->failures = row->reply_code = 0;
	row->reply_enhanced[0] = row->reply_text[0] = '\0';
	row->stopped = false;
}

bool
link_portal(const struct sq_link_row *row)
{
	return strcmp(row->cause, "portal") == 0;
}

/* The rows are copied: what is printed of one asks the queue again. */
static void
keep_row(void *arg, const struct sq_link_row *r)
{
	struct links *l = arg;
	struct sq_link_row *more = reallocarray(l->rows, l->n_rows + 1, sizeof(*more));

	if (!more) {
		l->failed = true;
		return;
	}
	l->rows = more;
	l->rows[l->n_rows++] = *r;
}

static void
print_rows(struct links *l)
{
	for (size_t i = 0; i < l->n_rows; i++) {
		struct sq_link_row now;
		bool here;

		/* The row of where we are; before a first contact here, the latest. */
		link_of(l->c, l->rows[i].route, &now);
		here = strcmp(now.network, l->rows[i].network) == 0;
		if (l->c->json)
			link_json(l, here ? &now : &l->rows[i], here);
		else
			link_text(l, here ? &now : &l->rows[i], here);
	}
}

/* Routes that were never tried have no row. */
static void
print_untried(struct links *l)
{
	for (size_t i = 0; i < l->c->cfg->n_routes; i++) {
		struct sq_link_row r = { 0 };
		bool known = false;

		snprintf(r.route, sizeof(r.route), "%s", l->c->cfg->routes[i].name);
		portal_over(l->c, &l->here, &r);
		for (size_t k = 0; k < l->n_rows; k++)
			known |= strcmp(l->rows[k].route, r.route) == 0;
		if (known)
			continue;
		if (l->c->json) {
			link_json(l, &r, true);
			continue;
		}
		state_line(l->c, &r, "", "");
		route_waits(l->c, &r);
		what_waits(l, waiting_of(l, r.route, false));
	}
}

int
cmd_links(struct cli *c, int argc, char **argv)
{
	struct links l = { .c = c, .j = JSON_INIT };
	enum sq_err e = SQ_OK;

	if (argc > 0)
		return cli_usage("links takes no argument, not '%s'", argv[0]);
	if (c->q && (e = sq_queue_network_get(c->q, &l.here, &c->err)) == SQ_OK && (e = sq_queue_list(c->q, false, count_message, &l, &c->err)) == SQ_OK)
		e = sq_queue_links(c->q, keep_row, &l, &c->err);
	if (e == SQ_OK && l.failed)
		e = sq_error_set(&c->err, SQ_ENOMEM, "out of memory");
	if (e == SQ_OK) {
		print_rows(&l);
		print_untried(&l);
	}
	sq_buf_fini(&l.j.b);
	free(l.waiting);
	free(l.rows);
	return e == SQ_OK ? EX_OK : cli_fail(c);
}

void
links_brief(struct cli *c)
{
	int n = 0;

	for (size_t i = 0; i < c->cfg->n_routes; i++) {
		struct sq_link_row r;
		char more[64] = "", speed[16];
		size_t at = 0;

		link_of(c, c->cfg->routes[i].name, &r);
		if (r.since_ms == 0 && r.connects + r.connect_failures == 0 && !link_portal(&r))
			continue;
		n++;
		if (r.rtt_us > 0)
			at = (size_t)snprintf(more, sizeof(more), ", round trip %" PRId64 " ms", (r.rtt_us + 500) / 1000);
		if (r.goodput_bps > 0) {
			text_size((uint64_t)r.goodput_bps / 8, speed);
			snprintf(more + at, sizeof(more) - at, ", %s/s", speed);
		}
		state_line(c, &r, "", more);
		route_waits(c, &r);
	}
	if (n == 0)
		puts("No route was tried yet.");
}

/* ---- what others ask of a link ---- */

struct pick { const char *route, *network; struct sq_link_row *out; };

/* The one of this network; else the latest, which comes last. */
static void
pick_each(void *arg, const struct sq_link_row *r)
{
	struct pick *p = arg;

	if (strcmp(r->route, p->route) == 0 && strcmp(p->out->network, p->network) != 0)
		*p->out = *r;
}

void
link_of(struct cli *c, const char *route, struct sq_link_row *out)
{
	struct sq_network n;
	struct pick p = { route, n.id, out };

	memset(out, 0, sizeof(*out));
	snprintf(out->route, sizeof(out->route), "%s", route);
	snprintf(out->network, sizeof(out->network), "-");
	if (sq_queue_network_get(c->q, &n, &c->err) == SQ_OK && sq_queue_links(c->q, pick_each, &p, &c->err) == SQ_OK)
		portal_over(c, &n, out);
}
