/* sendq list, sendq show, sendq sent: what is there, printed. */
#include <inttypes.h>
#include <sysexits.h>

#include "status.h"

struct walk {
	struct cli *c;
	struct json j;
	int64_t n;
};

static void
message_line(struct cli *c, const struct sq_message *m)
{
	char id[SQ_ID_TEXT], age[32], size[16], next[48];

	sq_id_format(m->id, id);
	text_ago(c->now_ms - m->submitted_ms, age);
	text_size(m->size, size);
	for (size_t i = 0; i < m->n_recipients; i++) {
		const struct sq_recipient *r = &m->recipients[i];

		printf("%-6s %-10s %7s  %s%-10s%s ", i ? "" : id, i ? "" : age, i ? "" : size, paint(c, r->state), sq_state_name(r->state), unpaint(c));
		print_safe(r->address);
		if (r->state == SQ_STATE_QUEUED && is_stranded(c, m)) {
			printf("  no route '%s'", m->route);
		} else if (r->state == SQ_STATE_QUEUED) {
			text_in(c, r->next_try_ms, next);
			printf("  %s %s", text_waits(r), next);
		}
		putchar('\n');
	}
}

static bool
list_each(void *arg, const struct sq_message *m)
{
	struct walk *w = arg;

	if (w->c->json) {
		json_message(&w->j, m, false);
		json_line(&w->j);
	} else {
		if (w->n == 0)
			printf("%-6s %-10s %7s  %-10s %s\n", "ID", "AGE", "SIZE", "STATE", "TO");
		message_line(w->c, m);
	}
	w->n++;
	return !ferror(stdout);
}

int
cmd_list(struct cli *c, int argc, char **argv)
{
	struct walk w = { .c = c, .j = JSON_INIT };
	bool all = false;
	enum sq_err e = SQ_OK;

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--all") != 0)
			return cli_usage("list takes --all, not '%s'", argv[i]);
		all = true;
	}
	if (c->q)
		e = sq_queue_list(c->q, all, list_each, &w, &c->err);
	sq_buf_fini(&w.j.b);
	if (e != SQ_OK)
		return cli_fail(c);
	if (w.n == 0 && !c->json)
		puts(all ? "Nothing was ever sent." : "The queue is empty.");
	return EX_OK;
}

static void
show_text(struct cli *c, const struct sq_message *m)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf words = SQ_BUF_INIT(8192);
	char id[SQ_ID_TEXT], age[32], size[16];

	sq_id_format(m->id, id);
	text_ago(c->now_ms - m->submitted_ms, age);
	text_size(m->size, size);
	printf("%s  %s, queued %s ago, route %s\nMessage-ID: ", id, size, age, m->route);
	print_safe(m->message_id);
	printf("\nFrom:       ");
	print_safe(m->sender[0] ? m->sender : "<>");
	printf("\nSubject:    ");
	print_safe(m->subject);
	printf("\n");
	message_line(c, m);
	for (size_t i = 0; i < m->n_recipients; i++)
		if (m->recipients[i].state == SQ_STATE_QUEUED && (m->recipients[i].waits == SQ_WAITS_BETTER_LINK || m->recipients[i].waits == SQ_WAITS_PARTIAL)) {
			printf("  why it waits: sendq why %s; to try it now all the same: sendq flush %s\n", id, id);
			break;
		}
	for (size_t i = 0; i < m->n_attempts; i++) {
		const struct sq_attempt *a = &m->attempts[i];

		text_ago(c->now_ms - a->started_ms, age);
		sq_buf_clear(&words);
		text_reply(&a->reply, &words);
		printf("  tried %s ago: %s at %s, %" PRId64 " octets sent", age, sq_outcome_name(a->outcome), sq_phase_name(a->phase), a->octets_sent);
		if (a->octets_durable > 0)
			printf(", %" PRId64 " kept by the server", a->octets_durable);
		if (words.n > 0) {
			printf(": ");
			print_safe(words.p);
		}
		putchar('\n');
	}
}

int
cmd_show(struct cli *c, int argc, char **argv)
{
	if (argc == 0)
		return cli_usage("show needs an ID");
	for (int i = 0; i < argc; i++) {
		struct json j = JSON_INIT;
		struct sq_message *m = NULL;
		struct sq_message_id id;

		if (!cli_id(c, argv[i], &id))
			return EX_NOINPUT;
		if (sq_queue_show(c->q, id, &m, &c->err) != SQ_OK)
			return cli_fail(c);
		if (c->json) {
			json_message(&j, m, true);
			json_line(&j);
		} else {
			show_text(c, m);
		}
		sq_buf_fini(&j.b);
		sq_message_free(m);
	}
	return EX_OK;
}

static bool
sent_each(void *arg, const struct sq_ledger_row *r)
{
	struct walk *w = arg;
	char id[SQ_ID_TEXT], age[32];

	w->n++;
	sq_id_format(r->message, id);
	if (w->c->json) {
		json_open(&w->j, NULL, '{');
		json_text(&w->j, "message_id", r->message_id);
		json_text(&w->j, "recipient", r->recipient);
		json_text(&w->j, "sha256", r->sha256 && r->sha256[0] ? r->sha256 : NULL);
		json_int(&w->j, "accepted_ms", r->accepted_ms);
		json_text(&w->j, "route", r->route);
		json_reply(&w->j, "reply", &r->reply);
		json_text(&w->j, "id", id);
		json_int(&w->j, "epoch", r->epoch);
		json_int(&w->j, "copies", r->copies);
		json_int(&w->j, "unknown_copies", r->unknown_copies);
		json_text(&w->j, "provider_id", r->provider_id && r->provider_id[0] ? r->provider_id : NULL);
		json_text(&w->j, "source", r->source);
		json_close(&w->j, '}');
		json_line(&w->j);
		return !ferror(stdout);
	}
	SQ_CLEANUP(sq_buf_fini) struct sq_buf words = SQ_BUF_INIT(8192);
	if (w->n == 1)
		printf("%-6s %-10s TO  ROUTE  ANSWER\n", "ID", "AGE");
	text_ago(w->c->now_ms - r->accepted_ms, age);
	text_reply(&r->reply, &words);
	printf("%-6s %-10s ", id, age);
	print_safe(r->recipient);
	printf("  %s  ", r->route);
	print_safe(words.p);
	if (r->copies == 2)
		printf("  SENT TWICE");
	else if (r->copies > 2)
		printf("  SENT %d TIMES", r->copies);
	if (r->unknown_copies > 0)
		printf("  (an earlier copy was in doubt: may have been sent %s)", r->copies + r->unknown_copies == 2 ? "twice" : "more often");
	putchar('\n');
	return !ferror(stdout);
}

/* A Message-ID with its angle brackets, whether they were typed or not. */
static const char *
bracketed(const char *id, char *out, size_t size)
{
	if (id[0] == '<')
		return id;
	snprintf(out, size, "<%s>", id);
	return out;
}

int
cmd_sent(struct cli *c, int argc, char **argv)
{
	struct walk w = { .c = c, .j = JSON_INIT };
	struct sq_ledger_filter f = { 0 };
	char with_brackets[1100];
	enum sq_err e = SQ_OK;

	for (int i = 0; i < argc; i += 2) {
		int64_t span;

		if (i + 1 >= argc)
			return cli_usage("'%s' is no option here, or lacks its value", argv[i]);
		if (strcmp(argv[i], "--to") == 0)
			f.recipient = argv[i + 1];
		else if (strcmp(argv[i], "--message-id") == 0)
			f.message_id = bracketed(argv[i + 1], with_brackets, sizeof(with_brackets));
		else if (strcmp(argv[i], "--since") == 0 && (span = sq_parse_duration_ms(argv[i + 1])) >= 0)
			f.since_ms = c->now_ms - span;
		else
			return cli_usage("sent takes --to ADDRESS, --message-id ID and --since DURATION (like 2d), not '%s %s'", argv[i], argv[i + 1]);
	}
	if (c->q)
		e = sq_queue_sent(c->q, &f, sent_each, &w, &c->err);
	sq_buf_fini(&w.j.b);
	if (e != SQ_OK)
		return cli_fail(c);
	if (w.n == 0 && !c->json)
		puts("Nothing.");
	return EX_OK;
}

bool
is_stranded(const struct cli *c, const struct sq_message *m)
{
	return !sq_config_route(c->cfg, m->route);
}
