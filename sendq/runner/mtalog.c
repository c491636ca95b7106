/*
 * The log of an own MTA as a source of evidence: a process reads it, this
 * side takes one word and a sentence. See sendq/agent/sendq-logread.c.
 */
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/log.h>

#include "inside.h"

struct log_question {
	struct log_question *next;
	char route[65];
	struct sq_message_id about;
	struct finding before;      /* what the source asked before it said */
	struct command c;
};

/* When the attempt began that ended in doubt; 0: there are several, and the log could not tell them apart. */
static int64_t
attempt_began(struct runner *r, const struct sq_doubt *d)
{
	struct sq_message *m = NULL;
	int64_t began = 0;

	if (sq_queue_show(r->q, d->id, &m, NULL) != SQ_OK)
		return 0;
	for (size_t i = 0; m->n_recipients <= SQ_GROUP_MAX && i < m->n_attempts; i++)
		if (m->attempts[i].outcome == SQ_OUTCOME_DOUBT)
			began = m->attempts[i].started_ms;
	sq_message_free(m);
	return began;
}

static enum sq_err
start(struct runner *r, const struct sq_route *route, const struct sq_doubt *d, int64_t began, struct command *c, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *program = program_path("sendq-logread");
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(32768);
	const char *ehlo = route->ehlo_name ? route->ehlo_name : r->ehlo_name;
	char *env[8] = { NULL };
	size_t at[7], n = 0;
	struct sq_str whole;
	enum sq_err e;

	if (!program)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
#define ADD(...) (at[n++] = b.n, sq_buf_addf(&b, __VA_ARGS__), sq_buf_addc(&b, '\0'))
	ADD("SENDQ_LOG_READER=%s", program);
	ADD("SENDQ_LOG=%s", route->mta_log);
	ADD("SENDQ_LOG_MESSAGE_ID=%s", d->message_id);
	ADD("SENDQ_LOG_EHLO=%s", ehlo);
	ADD("SENDQ_LOG_SINCE=%lld", (long long)began);
	ADD("SENDQ_LOG_CUT=%lld", (long long)d->since_ms);
	ADD("SENDQ_LOG_NOW=%lld", (long long)sq_wall_ms());
#undef ADD
	if ((e = sq_buf_view(&b, &whole, err)) != SQ_OK)
		return e;
	for (size_t i = 0; i < n; i++)
		env[i] = b.p + at[i];
	return command_start(c, "exec \"$SENDQ_LOG_READER\"", env, (struct sq_str){ 0 }, false, err);
}

bool
mtalog_busy(struct runner *r, const char *route)
{
	for (struct log_question *l = r->logs; l; l = l->next)
		if (!route || strcmp(l->route, route) == 0)
			return true;
	return false;
}

bool
mtalog_ask(struct runner *r, const struct sq_route *route, const struct sq_doubt *d, const struct finding *before)
{
	int64_t began = route->mta_log ? attempt_began(r, d) : 0;
	struct log_question *l;
	struct sq_error err = { 0 };

	if (began == 0 || !(l = calloc(1, sizeof(*l))))
		return false;
	l->c.out = l->c.err = -1;
	if (start(r, route, d, began, &l->c, &err) != SQ_OK) {
		sq_log(SQ_LOG_WARN, "cannot read the log of route=%s: %s", route->name, err.text);
		free(l);
		return false;
	}
	snprintf(l->route, sizeof(l->route), "%s", route->name);
	l->about = d->id;
	l->before = *before;
	l->next = r->logs;
	r->logs = l;
	sq_log(SQ_LOG_INFO, "evidence route=%s kind=log", route->name);
	return true;
}

/* "positive\twords": one of four words, and what is for people. */
static struct finding
finding_of(struct command *c)
{
	static const struct { const char *word; enum sq_evidence_kind kind; bool certain; } words[] = {
		{ "positive\t", SQ_EVIDENCE_POSITIVE, true }, { "negative\t", SQ_EVIDENCE_NEGATIVE, false },
		{ "ended\t", SQ_EVIDENCE_NEGATIVE, true }, { "unknown\t", SQ_EVIDENCE_UNKNOWN, false },
	};
	struct finding f = { .kind = SQ_EVIDENCE_UNKNOWN, .source = "server's log" };
	struct sq_str text = { c->text.p, c->text.n };

	snprintf(f.quote, sizeof(f.quote), "%.*s", (int)(c->words.n < 500 ? c->words.n : 500), c->words.p ? c->words.p : "");
	for (size_t i = 0; !c->text.failed && i < SQ_LEN(words); i++) {
		size_t n = strlen(words[i].word), end;

		if (text.n < n || memcmp(text.p, words[i].word, n) != 0)
			continue;
		for (end = n; end < text.n && end - n < sizeof(f.quote) - 1 && text.p[end] != '\n'; end++)
			f.quote[end - n] = text.p[end];
		f.quote[end - n] = '\0';
		f.kind = words[i].kind;
		f.certain = words[i].certain;
	}
	for (char *p = f.quote; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	return f;
}

void
mtalog_events(struct runner *r)
{
	for (struct log_question **p = &r->logs; *p && !r->store_failed; ) {
		struct log_question *l = *p;
		struct finding f;

		if (!command_events(&l->c)) {
			p = &l->next;
			continue;
		}
		*p = l->next;
		f = finding_of(&l->c);
		/* What does not say takes nothing from what another source said. */
		doubt_finding(r, l->route, l->about, f.kind == SQ_EVIDENCE_UNKNOWN && l->before.kind != SQ_EVIDENCE_UNKNOWN ? &l->before : &f);
		command_fini(&l->c);
		free(l);
	}
}

int64_t
mtalog_deadline(struct runner *r)
{
	int64_t at = INT64_MAX;

	for (struct log_question *l = r->logs; l; l = l->next)
		at = l->c.deadline < at ? l->c.deadline : at;
	return at;
}

void
mtalog_free(struct runner *r)
{
	while (r->logs) {
		struct log_question *l = r->logs;

		r->logs = l->next;
		command_fini(&l->c);
		free(l);
	}
}
