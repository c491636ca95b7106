/*
 * What goes beyond the report of a failure: a word to the sender of a message
 * that waits long (`warn`), and the copy of every report by mail where
 * `report_to` names an address. The local notice always comes first; nothing
 * is ever mailed about a report.
 */
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/log.h>
#include <sendq/message.h>

#include "inside.h"

enum { WARNINGS_A_ROUND = 50, MAILED_MAX = 16 * 1024 * 1024 };

/* ---- by mail ---- */

static bool
goes_by_mail(const struct runner *r, const struct sq_message *m)
{
	return r->cfg->report_to && strcmp(r->cfg->report_to, "local") != 0 && strcmp(m->source, "report") != 0 && m->sender[0] != '\0';
}

/* The report once more, as a message of the queue's own: CRLF, from the user's own address, to the same. */
static enum sq_err
queue_mail(struct runner *r, const struct sq_route *route, const struct sq_report *rep, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(MAILED_MAX), own_id = SQ_BUF_INIT(512);
	const char *to = r->cfg->report_to, *at = strrchr(to, '@');
	struct sq_report mailed = *rep;
	struct sq_new_recipient recipient = { .address = sq_str(to), .notify = SQ_NOTIFY_NEVER };
	struct sq_submission s = { .sender = sq_str(to), .header_from = sq_str(to), .subject = SQ_STR("report of sendq"), .route = route->name,
		.source = "report", .uid = (int64_t)getuid(), .submitted_ms = rep->now_ms, .expires_ms = rep->now_ms + route->expire_ms,
		.auto_submitted = true, .recipients = &recipient, .n_recipients = 1 };
	struct sq_submitted out = { 0 };
	struct sq_ingest *in = NULL;
	enum sq_err e;

	sq_message_id_make(rep->now_ms, at ? at + 1 : "sendq.invalid", &own_id);
	mailed.own_id = own_id.p;
	mailed.to = mailed.from = to;
	if (own_id.failed || !own_id.p)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = sq_report_build(&mailed, &text, err)) != SQ_OK || (e = sq_ingest_begin(r->q, &in, err)) != SQ_OK)
		return e;
	for (char *p = text.p, *end; e == SQ_OK && (end = strchr(p, '\n')) != NULL; p = end + 1)
		if ((e = sq_ingest_write(in, p, (size_t)(end - p), err)) == SQ_OK)
			e = sq_ingest_write(in, "\r\n", 2, err);
	if (e != SQ_OK) {
		sq_ingest_abort(in);
		return e;
	}
	s.message_id = (struct sq_str){ own_id.p, own_id.n };
	for (size_t i = 0; i < text.n; i++)
		if ((unsigned char)text.p[i] > 127)
			s.flags |= SQ_TXN_8BIT;
	if ((e = sq_ingest_commit(in, &s, &out, err)) == SQ_OK)
		picks_new_mail(r); /* nobody pokes us for it */
	return e;
}

/* Where it cannot be mailed the local notice stands, and the log says why: only the store's failure is one. */
enum sq_err
mail_report(struct runner *r, const struct sq_message *m, const struct sq_report *rep, struct sq_error *err)
{
	const struct sq_route *route;

	if (!goes_by_mail(r, m))
		return SQ_OK;
	if (!(route = sq_config_route_for(r->cfg, r->cfg->report_to, NULL))) {
		sq_log(SQ_LOG_WARN, "a report is not mailed: no route takes the address of `report_to`");
		return SQ_OK;
	}
	return queue_mail(r, route, rep, err);
}

/* ---- a message that waits long ---- */

static struct sq_reply
last_words(const struct sq_message *m, const struct sq_recipient *p, const struct sq_link_row *link)
{
	struct sq_reply out = { .code = link->reply_code, .text = sq_str(link->reply_text) };

	if (p->reply.code || p->reply.text.n > 0)
		return p->reply;
	if (m->n_attempts > 0 && (m->attempts[m->n_attempts - 1].reply.code || m->attempts[m->n_attempts - 1].reply.text.n > 0))
		return m->attempts[m->n_attempts - 1].reply;
	memcpy(out.enhanced, link->reply_enhanced, sizeof(out.enhanced));
	return out;
}

/* RFC 3461 section 4.1: who names conditions and not DELAY wants to hear of none. */
bool
wants_warning(const struct sq_recipient *p)
{
	return (p->state == SQ_STATE_QUEUED || p->state == SQ_STATE_SENDING) && (p->notify == 0 || (p->notify & SQ_NOTIFY_DELAY));
}

/* Up to which message the waits of a route were looked at: a message is told of once, in the order of submission. */
static enum sq_err
warned_up_to(struct runner *r, const char *route, struct sq_message_id *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *text = NULL;
	enum sq_err e = sq_queue_learned(r->q, route, "warned", &text, err);

	out->v = text ? strtoll(text, NULL, 10) : 0;
	return e;
}

/* The copy by mail and the mark are one transaction; a message that left the queue meanwhile is only marked. */
static enum sq_err
mark_warned(struct runner *r, const char *route, const struct sq_message *m, const struct sq_report *rep, struct sq_error *err)
{
	char text[32];
	enum sq_err e;

	snprintf(text, sizeof(text), "%lld", (long long)m->id.v);
	if ((e = sq_queue_batch_begin(r->q, true, err)) != SQ_OK)
		return e;
	if (rep->n_recipients > 0)
		e = mail_report(r, m, rep, err);
	if (e == SQ_OK)
		e = sq_queue_learn(r->q, route, "warned", text, rep->now_ms, err);
	return sq_queue_batch_commit(r->q, e == SQ_OK ? err : NULL) != SQ_OK && e == SQ_OK ? SQ_EIO : e;
}

static enum sq_err
warn_of(struct runner *r, const char *route, const struct sq_message *m, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_report_recipient *told = calloc(m->n_recipients, sizeof(*told));
	SQ_CLEANUP(notice_fini) struct notice n = { .rep = { .kind = SQ_REPORT_DELAYED, .now_ms = sq_wall_ms(), .recipients = told } };
	struct sq_link_row link;
	enum sq_err e;

	if (!told)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = sq_queue_link_get(r->q, route, "", &link, err)) != SQ_OK)
		return e;
	for (size_t i = 0; i < m->n_recipients; i++)
		if (wants_warning(&m->recipients[i]))
			told[n.rep.n_recipients++] = (struct sq_report_recipient){ .address = m->recipients[i].address, .orcpt = m->recipients[i].orcpt,
				.reply = last_words(m, &m->recipients[i], &link) };
	/* Named by when it was submitted, so that a crash before the mark does not double it. */
	if (n.rep.n_recipients > 0 && (e = notice_deliver(r, m, &n, "", m->submitted_ms, err)) != SQ_OK)
		return e;
	return mark_warned(r, route, m, &n.rep, err);
}

static enum sq_err
warn_one(struct runner *r, const char *route, struct sq_message_id id, struct sq_error *err)
{
	struct sq_message *m = NULL;
	enum sq_err e = sq_queue_show(r->q, id, &m, err);

	if (e == SQ_OK)
		e = warn_of(r, route, m, err);
	sq_message_free(m);
	return e;
}

/* Those of a route that have waited for `warn_ms`; *next: when the next one will have, in wall time. */
static enum sq_err
warn_route(struct runner *r, const char *route, int64_t warn_ms, int64_t now, int64_t *next, struct sq_error *err)
{
	struct sq_message_id after, id;
	int64_t submitted;
	enum sq_err e = warned_up_to(r, route, &after, err);

	/* Whoever comes after now waits as long. */
	*next = now + warn_ms;
	for (int i = 0; e == SQ_OK && i < WARNINGS_A_ROUND; i++) {
		if ((e = sq_queue_first_waiting(r->q, route, after, &id, &submitted, err)) == SQ_ENOENT)
			return SQ_OK;
		if (e == SQ_OK && submitted + warn_ms > now) {
			*next = submitted + warn_ms;
			return SQ_OK;
		}
		if (e == SQ_OK)
			e = warn_one(r, route, id, err);
		after = id;
	}
	*next = now;
	return e;
}

void
delays(struct runner *r)
{
	int64_t now = sq_wall_ms(), first = INT64_MAX;
	struct sq_error err = { 0 };

	if (r->next_warning > now)
		return;
	for (size_t i = 0; i < r->cfg->n_routes; i++) {
		const struct sq_route *route = &r->cfg->routes[i];
		int64_t next;

		if (route->warn_ms == 0)
			continue;
		if (warn_route(r, route->name, route->warn_ms, now, &next, &err) != SQ_OK) {
			sq_log(SQ_LOG_ERROR, "a warning cannot be delivered: %s", err.text);
			next = now + SQ_STORE_RETRY_MS;
		}
		first = next < first ? next : first;
	}
	r->next_warning = first;
}
