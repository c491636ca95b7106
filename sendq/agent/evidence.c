/*
 * Evidence: each ASK is a search in the account's Sent folder, each answer
 * says what was seen. It never says what follows from that.
 */
#include "evidence.h"

#include <poll.h>

#include <sendq/imap.h>

struct asker {
	struct sq_stream *runner;
	const struct sq_job *job;
	struct sq_imap imap;
};

/* What was found in words; true while the session can go on. */
static bool
look(struct asker *a, const struct sq_ask *ask, struct sq_evidence *ev, char quote[512], char provider_id[256], struct sq_error *err)
{
	int timeout = a->job->reply_timeout_ms > 0 && a->job->reply_timeout_ms < 60000 ? (int)a->job->reply_timeout_ms : 60000;
	struct sq_imap_copies found;
	enum sq_err e = a->imap.opened ? SQ_OK : sq_imap_open_sent(&a->imap, timeout, err);

	if (ask->message_id.n == 0) {
		snprintf(quote, 512, "%s", e == SQ_OK ? a->imap.folder : err->text);
		*ev = (struct sq_evidence){ SQ_STR("sent folder"), e == SQ_OK ? SQ_EVIDENCE_POSITIVE : SQ_EVIDENCE_UNKNOWN, sq_str(quote), { 0 } };
		return e == SQ_OK || e == SQ_ENOENT;
	}
	if (e == SQ_OK)
		e = sq_imap_find(&a->imap, ask->message_id, (int)ask->traces, timeout, &found, err);
	*ev = (struct sq_evidence){ .source = SQ_STR("sent folder"), .kind = SQ_EVIDENCE_UNKNOWN };
	if (e != SQ_OK)
		snprintf(quote, 512, "%s", err->text);
	else if (found.n == 0)
		snprintf(quote, 512, "folder '%.200s' has no copy", a->imap.folder);
	else if (found.traced == 0)
		snprintf(quote, 512, "folder '%.200s' has a copy without a server's trace: a mail program may have filed it", a->imap.folder);
	else
		snprintf(quote, 512, "folder '%.200s' has a copy that a server received: %.240s", a->imap.folder, found.trace);
	if (e == SQ_OK)
		ev->kind = found.n == 0 ? SQ_EVIDENCE_NEGATIVE : found.traced > 0 ? SQ_EVIDENCE_POSITIVE : SQ_EVIDENCE_UNKNOWN;
	ev->quote = sq_str(quote);
	if (e == SQ_OK && found.traced > 0) {
		struct sq_frame learned = { .type = SQ_FRAME_LEARNED };

		if (found.rewritten) {
			memcpy(provider_id, found.message_id, sizeof(found.message_id));
			ev->provider_id = sq_str(provider_id);
		}
		learned.u.learned = (struct sq_learned){ SQ_STR("message_id"), sq_str(found.rewritten ? "rewritten" : "kept") };
		(void)!sq_stream_put(a->runner, &learned, NULL);
	}
	return e == SQ_OK || e == SQ_ENOENT || e == SQ_EINVAL;
}

/* Say goodbye and hear it said, so that the server's log has no lost connection in it; 5 s at most. */
static void
quit(struct sq_conn *conn)
{
	struct pollfd p = { .fd = sq_conn_fd(conn), .events = POLLIN };
	size_t n = 0;
	char in[1024];
	struct sq_error err;

	if (sq_conn_send(conn, "QUIT\r\n", 6, &n, &err) != SQ_OK || n != 6)
		return;
	while (sq_conn_recv(conn, in, sizeof(in), &n, &err) == SQ_OK)
		if (n > 0 ? in[0] == '2' : poll(&p, 1, 5000) <= 0)
			return;
}

static void
put_end(struct asker *a, enum sq_outcome outcome, const char *words)
{
	struct sq_frame f = { .type = SQ_FRAME_END };

	f.u.end = (struct sq_end){ .outcome = outcome, .scope = SQ_SCOPE_MESSAGE, .reply = { .text = sq_str(words) } };
	(void)!sq_stream_put(a->runner, &f, NULL);
}

/* False: this was the last frame. */
static bool
take(struct asker *a, const struct sq_frame *f)
{
	struct sq_frame answer = { .type = SQ_FRAME_EVIDENCE, .txn = f->txn };
	struct sq_error err = { 0 };
	char quote[512], provider_id[256];
	bool alive;

	if (f->type == SQ_FRAME_BYE || f->type == SQ_FRAME_CANCEL) {
		if (a->job->kind == SQ_JOB_EVIDENCE)
			sq_imap_logout(&a->imap);
		else if (a->job->tell)
			quit(a->imap.conn);
		put_end(a, SQ_OUTCOME_ACCEPTED, "");
		return false;
	}
	if (f->type != SQ_FRAME_ASK || a->job->kind != SQ_JOB_EVIDENCE) {
		put_end(a, SQ_OUTCOME_LOCAL, "the runner asked for what this job is not about");
		return false;
	}
	alive = look(a, &f->u.ask, &answer.u.evidence, quote, provider_id, &err);
	if (!alive) {
		put_end(a, err.code == SQ_ETIMEOUT ? SQ_OUTCOME_STALLED : err.code == SQ_EPROTO ? SQ_OUTCOME_PROTOCOL : SQ_OUTCOME_CUT, err.text);
		return false;
	}
	return sq_stream_put(a->runner, &answer, NULL) == SQ_OK;
}

bool
sq_evidence(struct sq_stream *runner, const struct sq_job *job, struct sq_conn *conn, bool (*runner_gone)(void *), void *arg)
{
	static struct sq_frame f; /* large; one thread */
	struct asker a = { .runner = runner, .job = job };
	struct sq_error err = { 0 };
	bool going = true, have, gone = false;

	sq_imap_init(&a.imap, conn, runner_gone, arg);
	while (going) {
		struct pollfd p = { .fd = runner->fd, .events = (short)(POLLIN | (sq_stream_pending(runner) ? POLLOUT : 0)) };
		enum sq_err filled = sq_stream_fill(runner, &err);

		while (going && (going = sq_stream_next(runner, &f, &have, &err) == SQ_OK) && have)
			going = take(&a, &f);
		if (sq_stream_flush(runner, &err) != SQ_OK || filled != SQ_OK) {
			gone = filled != SQ_OK;
			break;
		}
		if (going)
			(void)poll(&p, 1, -1);
	}
	sq_imap_fini(&a.imap);
	return !gone;
}
