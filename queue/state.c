/*
 * The states of a recipient: which moves exist (DESIGN section 4), and the one
 * statement that writes the column. Everything else asks here. It never
 * decides when a move happens.
 */
#include "db.h"

#define TO(s) (1u << SQ_STATE_##s)

static const unsigned moves[SQ_STATE_COUNT] = {
	/* sent: a copy that was in doubt, and is to be sent again, is proved to have been accepted */
	[SQ_STATE_QUEUED] = TO(SENDING) | TO(HELD) | TO(EXPIRED) | TO(REMOVED) | TO(SENT),
	/* held: only where the queue came out of a backup */
	[SQ_STATE_SENDING] = TO(COMMITTING) | TO(QUEUED) | TO(FAILED) | TO(HELD),
	[SQ_STATE_COMMITTING] = TO(SENT) | TO(QUEUED) | TO(FAILED) | TO(DOUBT) | TO(HELD),
	[SQ_STATE_DOUBT] = TO(SENT) | TO(QUEUED) | TO(FAILED) | TO(HELD) | TO(EXPIRED) | TO(REMOVED),
	[SQ_STATE_HELD] = TO(QUEUED) | TO(REMOVED),
	/* queued: a person wants another copy; sent: it expired in doubt, and evidence came late */
	[SQ_STATE_SENT] = TO(QUEUED),
	[SQ_STATE_FAILED] = TO(QUEUED),
	[SQ_STATE_EXPIRED] = TO(QUEUED) | TO(SENT),
	[SQ_STATE_REMOVED] = TO(QUEUED),
};

bool
sq_state_may(enum sq_state from, enum sq_state to)
{
	return from < SQ_STATE_COUNT && to < SQ_STATE_COUNT && (moves[from] & 1u << to) != 0;
}

/* RFC 3461 section 4.1: whether somebody wants to hear of it. A doubt is told to all but NEVER. */
static bool
wants_report(enum sq_state to, uint8_t notify)
{
	switch (to) {
	case SQ_STATE_FAILED:
	case SQ_STATE_EXPIRED:
		return notify == 0 || (notify & SQ_NOTIFY_FAILURE);
	case SQ_STATE_DOUBT:
		return !(notify & SQ_NOTIFY_NEVER);
	case SQ_STATE_QUEUED:
	case SQ_STATE_SENDING:
	case SQ_STATE_COMMITTING:
	case SQ_STATE_HELD:
	case SQ_STATE_SENT:
	case SQ_STATE_REMOVED:
	case SQ_STATE_COUNT:
		break;
	}
	return false;
}

enum sq_err
sq_state_move(struct sq_queue *q, const struct sq_move *m, struct sq_error *err)
{
	bool reportable = m->to == SQ_STATE_FAILED || m->to == SQ_STATE_EXPIRED || m->to == SQ_STATE_DOUBT;
	int64_t reported = reportable && !wants_report(m->to, m->notify) ? m->now_ms : 0;
	enum sq_err e;
	SQ_STMT(s, q, SQL_STATE_MOVE);

	if (!sq_state_may(m->from, m->to))
		return sq_error_set(err, SQ_EPERM, "a recipient cannot go from %s to %s", sq_state_name(m->from), sq_state_name(m->to));
	sq_stmt_bind(&s, "iiiiiii", m->id.v, (int64_t)m->from, (int64_t)m->to, m->now_ms,
		m->to == SQ_STATE_QUEUED ? m->next_try_ms : INT64_C(0), reported,
		(int64_t)(m->to == SQ_STATE_QUEUED ? m->waits : SQ_WAITS_OWN));
	if ((e = sq_stmt_run(&s, err)) != SQ_OK)
		return e;
	if (sqlite3_changes(q->db) != 1)
		return sq_error_set(err, SQ_ECORRUPT, "recipient %lld is not %s", (long long)m->id.v, sq_state_name(m->from));
	return SQ_OK;
}

enum sq_err
sq_state_reply(struct sq_queue *q, struct sq_recipient_id id, const struct sq_reply *r, struct sq_error *err)
{
	SQ_STMT(s, q, SQL_RECIPIENT_REPLY);

	sq_stmt_bind(&s, "iizt", id.v, (int64_t)r->code, r->enhanced, r->text);
	return sq_stmt_run(&s, err);
}

enum sq_err
sq_state_settle_message(struct sq_queue *q, struct sq_message_id id, int64_t now_ms, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;

	{
		SQ_STMT(open, q, SQL_MESSAGE_OPEN);
		sq_stmt_bind(&open, "i", id.v);
		step = sq_stmt_step(&open, e);
	}
	if (step == SQ_FAILED)
		return e->code;

	SQ_STMT(s, q, SQL_MESSAGE_DONE);
	/* 0 means "not done", so a caller's clock at 0 must not. */
	sq_stmt_bind(&s, "ii", id.v, step == SQ_ROW ? INT64_C(0) : now_ms > 0 ? now_ms : INT64_C(1));
	return sq_stmt_run(&s, err);
}
