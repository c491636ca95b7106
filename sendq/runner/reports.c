/*
 * Reports that are due: written into the notices Maildir, told to the hook,
 * then marked. After a crash between file and mark the same file is written
 * again. Nothing here uses the link that is broken.
 */
#include <errno.h>
#include <pwd.h>

#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/log.h>
#include <sendq/report.h>

#include "inside.h"

enum { HEADER_MAX = 64 * 1024, REPORTS_A_ROUND = 50 };

/* The header block of the stored content, as far as it is there and bounded. */
static void
read_header(struct runner *r, const struct sq_message *m, struct sq_buf *out)
{
	size_t n = m->size < HEADER_MAX ? (size_t)m->size : HEADER_MAX;
	char *end;

	if (!m->has_content || sq_queue_read_content(r->q, m->id, 0, n, out, NULL) != SQ_OK || !out->p)
		return;
	if ((end = memmem(out->p, out->n, "\r\n\r\n", 4)) != NULL)
		out->n = (size_t)(end - out->p) + 2;
}

/*
 * To whom it concerns. In system mode that is the user's mailbox of this
 * machine; where he has no name, or it cannot be used, it is kept in the
 * Maildir of notices, so that nothing is lost.
 */
static enum sq_err
deliver(struct runner *r, int64_t uid, const char *unique, struct sq_str text, int64_t when_ms, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *folder = r->cfg->system ? sq_system_path(SQ_SYSTEM_MAIL) : NULL;
	struct sq_error why = { 0 };
	struct passwd pw, *found = NULL;
	char buf[4096], path[4096];

	if (folder && getpwuid_r((uid_t)uid, &pw, buf, sizeof(buf), &found) == 0 && found) {
		snprintf(path, sizeof(path), "%s/%s", folder, found->pw_name);
		if (sq_mbox_deliver(path, uid, text, when_ms, &why) == SQ_OK)
			return SQ_OK;
		sq_log(SQ_LOG_WARN, "a notice goes to '%s': %s", r->cfg->notices, why.text);
	}
	return sq_maildir_deliver(r->cfg->notices, unique, text, when_ms, err);
}

const char *
report_name(enum sq_report_kind kind)
{
	static const char *const names[] = { [SQ_REPORT_FAILED] = "failed", [SQ_REPORT_DOUBT] = "doubt",
		[SQ_REPORT_SETTLED] = "settled", [SQ_REPORT_RESENT] = "resent", [SQ_REPORT_DELAYED] = "delayed", [SQ_REPORT_CUT] = "cut" };

	return names[kind];
}

static bool
is_due(const struct sq_recipient *p, enum sq_report_kind kind)
{
	bool failed = p->state == SQ_STATE_FAILED || p->state == SQ_STATE_EXPIRED;

	if (p->reported_ms != 0)
		return false;
	return kind == SQ_REPORT_DOUBT ? p->state == SQ_STATE_DOUBT : failed;
}

void
notice_fini(struct notice *n)
{
	sq_buf_fini(&n->header);
}

/* Into the notices Maildir, and to the hook. */
enum sq_err
notice_deliver(struct runner *r, const struct sq_message *m, struct notice *n, const char *unique, int64_t when_ms, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(64 * 1024 * 1024);
	struct sq_report *rep = &n->rep;
	char name[96];
	enum sq_err e;

	sq_id_format(m->id, n->id);
	n->header = (struct sq_buf)SQ_BUF_INIT(HEADER_MAX);
	read_header(r, m, &n->header);
	rep->id = n->id;
	rep->to = m->sender;
	rep->message_id = m->message_id;
	rep->subject = m->subject;
	rep->envid = m->envid;
	rep->route = m->route;
	rep->submitted_ms = m->submitted_ms;
	rep->until_ms = m->expires_ms;
	rep->header = (struct sq_str){ n->header.p, n->header.n };
	if ((e = sq_report_build(rep, &text, err)) != SQ_OK)
		return e;
	snprintf(name, sizeof(name), "%s-%s%s", n->id, report_name(rep->kind), unique);
	SQ_FAULT(runner_before_report);
	/* Named by when it happened: after a crash behind the delivery the repeated report replaces the first. */
	if ((e = deliver(r, m->uid, name, (struct sq_str){ text.p, text.n }, when_ms, err)) != SQ_OK)
		return e;
	SQ_FAULT(runner_after_report);
	sq_log(SQ_LOG_INFO, "report msg=%s kind=%s recipients=%zu", n->id, report_name(rep->kind), rep->n_recipients);
	hook_tell(r, rep, m);
	return SQ_OK;
}

/* One report for all recipients of the message that are due for this kind. */
static enum sq_err
report_kind(struct runner *r, const struct sq_message *m, enum sq_report_kind kind, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_report_recipient *told = calloc(m->n_recipients, sizeof(*told));
	SQ_CLEANUP(sq_freep) struct sq_recipient_id *ids = calloc(m->n_recipients, sizeof(*ids));
	SQ_CLEANUP(notice_fini) struct notice n = { .rep = { .kind = kind, .now_ms = sq_wall_ms(), .recipients = told } };
	struct sq_report *rep = &n.rep;
	char unique[32];
	int64_t since = 0;
	enum sq_err e;

	if (!told || !ids)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (size_t i = 0; i < m->n_recipients; i++) {
		const struct sq_recipient *p = &m->recipients[i];

		if (!is_due(p, kind))
			continue;
		since = rep->n_recipients == 0 ? p->state_ms : since;
		ids[rep->n_recipients] = p->id;
		told[rep->n_recipients++] = (struct sq_report_recipient){ .address = p->address, .orcpt = p->orcpt, .expired = p->state == SQ_STATE_EXPIRED, .reply = p->reply };
	}
	if (rep->n_recipients == 0)
		return SQ_OK;
	snprintf(unique, sizeof(unique), "-%lld", (long long)ids[0].v);
	/* The copy by mail and the mark are one transaction: it is mailed once. */
	if ((e = notice_deliver(r, m, &n, unique, since, err)) != SQ_OK || (e = sq_queue_batch_begin(r->q, true, err)) != SQ_OK)
		return e;
	if ((e = mail_report(r, m, rep, err)) == SQ_OK)
		e = sq_queue_reported(r->q, m->id, ids, rep->n_recipients, rep->now_ms, err);
	return sq_queue_batch_commit(r->q, e == SQ_OK ? err : NULL) != SQ_OK && e == SQ_OK ? SQ_EIO : e;
}

/* Which recipients a later notice is about. */
static bool
concerns(const struct sq_recipient *p, enum sq_report_kind kind, int64_t since_ms)
{
	if (p->notify & SQ_NOTIFY_NEVER)
		return false;
	return kind == SQ_REPORT_DOUBT ? p->state == SQ_STATE_DOUBT : kind == SQ_REPORT_SETTLED ? p->state == SQ_STATE_SENT && p->state_ms >= since_ms
		: p->epoch > 0 && (p->state == SQ_STATE_QUEUED || p->state == SQ_STATE_SENDING);
}

/* A notice without a mark in the queue: told once, at most. */
static enum sq_err
tell_resolved(struct runner *r, const struct sq_message *m, const struct resolved *n, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_report_recipient *told = calloc(m->n_recipients, sizeof(*told));
	SQ_CLEANUP(notice_fini) struct notice out = { .rep = { .kind = n->kind, .now_ms = sq_wall_ms(), .recipients = told, .words = n->words } };
	enum sq_err e;

	if (!told)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (size_t i = 0; i < m->n_recipients; i++)
		if (concerns(&m->recipients[i], n->kind, n->since_ms))
			told[out.rep.n_recipients++] = (struct sq_report_recipient){ .address = m->recipients[i].address, .orcpt = m->recipients[i].orcpt, .reply = m->recipients[i].reply };
	if (out.rep.n_recipients == 0)
		return SQ_OK;
	e = notice_deliver(r, m, &out, "", out.rep.now_ms, err);
	return e == SQ_OK ? mail_report(r, m, &out.rep, err) : e;
}

void
report_resolved(struct runner *r, struct sq_message_id id, enum sq_report_kind kind, int64_t since_ms, const char *words)
{
	struct resolved *n = calloc(1, sizeof(*n));

	if (!n)
		return;
	n->id = id;
	n->kind = kind;
	n->since_ms = since_ms;
	snprintf(n->words, sizeof(n->words), "%s", words);
	n->next = r->resolved;
	r->resolved = n;
}

static void
resolved_ones(struct runner *r)
{
	while (r->resolved) {
		struct resolved *n = r->resolved;
		struct sq_message *m = NULL;
		struct sq_error err = { 0 };

		r->resolved = n->next;
		if (sq_queue_show(r->q, n->id, &m, &err) != SQ_OK || tell_resolved(r, m, n, &err) != SQ_OK)
			sq_log(SQ_LOG_WARN, "a notice cannot be delivered: %s", err.text);
		sq_message_free(m);
		free(n);
	}
}

void
reports(struct runner *r)
{
	resolved_ones(r);
	for (int i = 0; i < REPORTS_A_ROUND; i++) {
		struct sq_message *m = NULL;
		struct sq_error err = { 0 };
		enum sq_err e = sq_queue_next_report(r->q, &m, &err);

		if (e == SQ_ENOENT)
			return;
		if (e == SQ_OK && (e = report_kind(r, m, SQ_REPORT_FAILED, &err)) == SQ_OK)
			e = report_kind(r, m, SQ_REPORT_DOUBT, &err);
		sq_message_free(m);
		if (e != SQ_OK) {
			/* It stays due: the next wake tries again. */
			sq_log(SQ_LOG_ERROR, "a report cannot be delivered: %s", err.text);
			return;
		}
	}
}
