/* `sendq` alone: the state of things in one screen. */
#include <dirent.h>
#include <inttypes.h>
#include <sysexits.h>

#include <sendq/io.h>

#include "status.h"

enum { LINES_MAX = 15, BAR = 12 };

struct screen {
	struct cli *c;
	int64_t shown, all;
};

static void
bar(int64_t acked, uint64_t size)
{
	int full = size > 0 ? (int)(acked * BAR / (int64_t)size) : 0;

	putchar('[');
	for (int i = 0; i < BAR; i++)
		putchar(i < full ? '#' : '.');
	printf("] %d %%", size > 0 ? (int)(acked * 100 / (int64_t)size) : 0);
}

static const char *
shown_state(enum sq_state s)
{
	return s == SQ_STATE_DOUBT ? "IN DOUBT" : s == SQ_STATE_COMMITTING ? "the server is checking" : sq_state_name(s);
}

static void
recipient_line(struct screen *s, const struct sq_message *m, const struct sq_recipient *r)
{
	char id[SQ_ID_TEXT], age[32], size[16], next[48];

	sq_id_format(m->id, id);
	text_ago(s->c->now_ms - m->submitted_ms, age);
	text_size(m->size, size);
	printf("%-6s %-10s %7s  ", id, age, size);
	print_safe(r->address);
	printf("  %s%s%s", paint(s->c, r->state), shown_state(r->state), unpaint(s->c));
	switch (r->state) {
	case SQ_STATE_SENDING:
		putchar(' ');
		bar(r->acked_octets, m->size);
		break;
	case SQ_STATE_COMMITTING:
		text_ago(s->c->now_ms - r->state_ms, age);
		printf(", %s", age);
		break;
	case SQ_STATE_QUEUED:
		if (is_stranded(s->c, m)) {
			printf(", no route '%s': sendq why %s", m->route, id);
			break;
		}
		text_in(s->c, r->next_try_ms, next);
		printf(", %s %s", text_waits(r), next);
		break;
	case SQ_STATE_DOUBT:
		printf(": sendq why %s", id);
		break;
	case SQ_STATE_HELD:
		printf(": sendq release %s", id);
		break;
	case SQ_STATE_SENT:
	case SQ_STATE_FAILED:
	case SQ_STATE_EXPIRED:
	case SQ_STATE_REMOVED:
	case SQ_STATE_COUNT:
		break;
	}
	putchar('\n');
}

static bool
each(void *arg, const struct sq_message *m)
{
	struct screen *s = arg;

	for (size_t i = 0; i < m->n_recipients; i++) {
		const struct sq_recipient *r = &m->recipients[i];

		if (sq_state_is_final(r->state))
			continue;
		s->all++;
		if (s->shown == LINES_MAX && r->state == SQ_STATE_QUEUED)
			continue; /* what waits is the least news: the counts below say how many */
		if (s->shown++ == 0)
			printf("\n%-6s %-10s %7s  TO\n", "ID", "AGE", "SIZE");
		recipient_line(s, m, r);
	}
	return s->shown < 10 * LINES_MAX;
}

/* Notices that no mail program has seen yet. */
static void
notices_line(const struct cli *c)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(c->cfg->notices, "/new");
	DIR *dir = path ? opendir(path) : NULL;
	int64_t n = 0;

	for (struct dirent *d; dir && (d = readdir(dir)) != NULL; )
		n += d->d_name[0] != '.';
	if (dir)
		closedir(dir);
	if (n > 0)
		printf("%" PRId64 " new notice%s in the Maildir %s\n", n, n == 1 ? "" : "s", c->cfg->notices);
}

static void
counts_line(const int64_t n[SQ_STATE_COUNT])
{
	bool any = false;

	for (int i = 0; i < SQ_STATE_COUNT; i++) {
		if (n[i] == 0 || sq_state_is_final((enum sq_state)i))
			continue;
		printf("%s%" PRId64 " %s", any ? ", " : "Queue: ", n[i], sq_state_name((enum sq_state)i));
		any = true;
	}
	puts(any ? "." : "The queue is empty.");
}

struct stranded {
	struct cli *c;
	struct json *j;
	int n;
};

/* Routes that have mail and are not in the configuration: nothing is tried on them, and nothing else would say so. */
static void
stranded_each(void *arg, const char *route, int64_t n)
{
	struct stranded *s = arg;

	if (sq_config_route(s->c->cfg, route))
		return;
	s->n++;
	if (s->j) {
		json_open(s->j, NULL, '{');
		json_text(s->j, "route", route);
		json_int(s->j, "recipients", n);
		json_close(s->j, '}');
		return;
	}
	printf("%s: NOT IN THE CONFIGURATION, and %" PRId64 " recipient%s for it\n"
		"  to send: name a route \"%s\" in '%s'; to give up: sendq remove ID\n", route, n, n == 1 ? " waits" : "s wait", route, s->c->cfg->path);
}

static int
state_json(struct cli *c, const int64_t n[SQ_STATE_COUNT], bool daemon)
{
	struct json j = JSON_INIT;
	struct stranded s = { c, &j, 0 };
	enum sq_err e = SQ_OK;

	json_open(&j, NULL, '{');
	json_bool(&j, "daemon", daemon);
	json_text(&j, "queue", c->cfg->queue);
	json_open(&j, "recipients", '{');
	for (int i = 0; i < SQ_STATE_COUNT; i++)
		json_int(&j, sq_state_name((enum sq_state)i), n[i]);
	json_close(&j, '}');
	json_open(&j, "unknown_routes", '[');
	if (c->q)
		e = sq_queue_busy_routes(c->q, stranded_each, &s, &c->err);
	json_close(&j, ']');
	json_close(&j, '}');
	if (e == SQ_OK)
		json_line(&j);
	sq_buf_fini(&j.b);
	return e == SQ_OK ? EX_OK : cli_fail(c);
}

int
cmd_state(struct cli *c, int argc, char **argv)
{
	struct screen s = { .c = c };
	SQ_CLEANUP(sq_freep) char *wake = sq_path_suffix(c->cfg->queue, ".wake");
	int64_t n[SQ_STATE_COUNT] = { 0 };
	bool daemon = wake && sq_wake_poke(wake);

	if (argc > 0)
		return cli_usage("no such command '%s'", argv[0]);
	if (c->q && sq_queue_counts(c->q, (struct sq_message_id){ 0 }, n, &c->err) != SQ_OK)
		return cli_fail(c);
	if (c->json)
		return state_json(c, n, daemon);
	if (c->q)
		links_brief(c);
	if (c->q && sq_queue_busy_routes(c->q, stranded_each, &(struct stranded){ c, NULL, 0 }, &c->err) != SQ_OK)
		return cli_fail(c);
	counts_line(n);
	notices_line(c);
	if (!daemon)
		puts(c->cfg->autostart ? "No daemon runs; it starts with the next message, or `sendq flush` tries now." : "No daemon runs: start sendqd, or `sendq flush` tries now.");
	if (c->q && sq_queue_list(c->q, false, each, &s, &c->err) != SQ_OK)
		return cli_fail(c);
	if (s.all > s.shown)
		printf("… and %" PRId64 " more: sendq list\n", s.all - s.shown);
	if (n[SQ_STATE_DOUBT] > 0)
		puts("\nIn doubt: the message went out, the answer was lost.\n  sendq resend ID, or sendq settle ID sent|unsent.");
	return EX_OK;
}
