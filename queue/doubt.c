/*
 * What people may do to recipients: hold, release, remove, resend, settle,
 * retry. Each acts on all recipients of a message or on one address. Whether
 * a state allows it is asked of state.c and of the short table here; the
 * sentences are for people.
 */
#include "db.h"

enum action { HOLD, RELEASE, REMOVE, RESEND, RESEND_DOUBT, SETTLE_SENT, SETTLE_UNSENT, RETRY, GIVE_UP };

#define IN(s) (1u << SQ_STATE_##s)

static const struct {
	const char *verb;      /* "it cannot be …" */
	unsigned from;         /* states it acts on */
	enum sq_state to;
} actions[] = {
	[HOLD] = { "held", IN(QUEUED), SQ_STATE_HELD },
	[RELEASE] = { "released", IN(HELD), SQ_STATE_QUEUED },
	[REMOVE] = { "removed", IN(QUEUED) | IN(HELD) | IN(DOUBT), SQ_STATE_REMOVED },
	[RESEND] = { "sent again", IN(DOUBT) | IN(HELD) | IN(FAILED) | IN(EXPIRED) | IN(SENT) | IN(REMOVED), SQ_STATE_QUEUED },
	[RESEND_DOUBT] = { "sent again", IN(DOUBT), SQ_STATE_QUEUED },
	[SETTLE_SENT] = { "settled", IN(DOUBT), SQ_STATE_SENT },
	[SETTLE_UNSENT] = { "settled", IN(DOUBT), SQ_STATE_QUEUED },
	[GIVE_UP] = { "given up", IN(DOUBT), SQ_STATE_EXPIRED },
	[RETRY] = { "tried", IN(QUEUED), SQ_STATE_QUEUED },
};

struct person_recipient {
	struct sq_recipient_id id;
	char *address;
	enum sq_state state;
	uint8_t notify;
};

struct group {
	struct person_recipient *v;
	size_t n;
};

static void
group_fini(struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		free(g->v[i].address);
	free(g->v);
}

static enum sq_err
group_load(struct sq_queue *q, struct sq_message_id m, const char *address, struct group *g, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	bool any = !address || !address[0];
	enum sq_step step;
	SQ_STMT(s, q, SQL_MESSAGE_RECIPIENTS);

	sq_stmt_bind(&s, "i", m.v);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		struct person_recipient *more;

		if (!any && !sq_address_eq(sq_col_str(&s, 1), sq_str(address)))
			continue;
		if ((g->n & (g->n - 1)) == 0) {
			if (!(more = reallocarray(g->v, g->n ? 2 * g->n : 1, sizeof(*more))))
				return sq_error_set(err, SQ_ENOMEM, "out of memory");
			g->v = more;
		}
		g->v[g->n] = (struct person_recipient){ { sq_col(&s, 0) }, sq_col_dup(&s, 1), (enum sq_state)sq_col(&s, 2), (uint8_t)sq_col(&s, 3) };
		if (!g->v[g->n++].address)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	if (step == SQ_FAILED)
		return e->code;
	if (g->n == 0 && any)
		return sq_error_set(err, SQ_ENOENT, "there is no such message");
	if (g->n == 0)
		return sq_error_set(err, SQ_ENOENT, "the message has no recipient '%.256s'", address);
	return SQ_OK;
}

/* Why not: in the words of the state it is in. */
static enum sq_err
forbidden(enum action what, const struct person_recipient *r, struct sq_error *err)
{
	const char *verb = actions[what].verb;

	switch (r->state) {
	case SQ_STATE_SENDING:
		return sq_error_set(err, SQ_EPERM, "%.256s is being sent; it can be %s when the attempt has ended", r->address, verb);
	case SQ_STATE_COMMITTING:
		return sq_error_set(err, SQ_EPERM, "%.256s is being committed; it can be %s when the server has answered", r->address, verb);
	case SQ_STATE_DOUBT:
		return sq_error_set(err, SQ_EPERM, "%.256s is in doubt and cannot be %s: resend it or settle it", r->address, verb);
	case SQ_STATE_QUEUED:
		return sq_error_set(err, SQ_EPERM, "%.256s is queued and cannot be %s: it has not been sent yet", r->address, verb);
	case SQ_STATE_HELD:
		return sq_error_set(err, SQ_EPERM, "%.256s is held and cannot be %s: release it first", r->address, verb);
	case SQ_STATE_SENT:
	case SQ_STATE_FAILED:
	case SQ_STATE_EXPIRED:
	case SQ_STATE_REMOVED:
	case SQ_STATE_COUNT:
		break;
	}
	return sq_error_set(err, SQ_EPERM, "%.256s is %s already and cannot be %s", r->address, sq_state_name(r->state), verb);
}

static enum sq_err
need_content(struct sq_queue *q, struct sq_message_id m, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_MESSAGE_FACTS);

	sq_stmt_bind(&s, "i", m.v);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	return sq_col(&s, 1) ? SQ_OK : sq_error_set(err, SQ_EPERM, "the message cannot be sent again: its content is gone");
}

static enum sq_err
with_number(struct sq_queue *q, enum sq_sql id, const char *kinds, int64_t a, int64_t b, struct sq_error *err)
{
	SQ_STMT(s, q, id);

	sq_stmt_bind(&s, kinds, a, b);
	return sq_stmt_run(&s, err);
}

static bool
is_resend(enum action what)
{
	return what == RESEND || what == RESEND_DOUBT;
}

static enum sq_err
next_epoch(struct sq_queue *q, const struct person_recipient *r, bool by_hand, struct sq_error *err)
{
	SQ_STMT(s, q, SQL_RECIPIENT_RESEND);

	sq_stmt_bind(&s, "iii", r->id.v, (int64_t)(r->state == SQ_STATE_DOUBT), (int64_t)by_hand);
	return sq_stmt_run(&s, err);
}

static enum sq_err
act_one(struct sq_queue *q, enum action what, const struct person_recipient *r, const char *source, int64_t now_ms, struct sq_error *err)
{
	struct sq_move m = { .id = r->id, .from = r->state, .to = actions[what].to, .notify = r->notify, .next_try_ms = now_ms, .now_ms = now_ms };
	struct sq_reply said = { .text = sq_str(source) };
	struct sq_ledger_new l = { .recipient = r->id, .accepted_ms = now_ms, .source = source, .reply = &said };
	enum sq_err e;

	if (what == RETRY)
		return with_number(q, SQL_RECIPIENT_DUE, "ii", r->id.v, now_ms, err);
	if ((e = sq_state_move(q, &m, err)) != SQ_OK)
		return e;
	/* What a person sets going again gets a whole life, or it would expire at once. */
	if (m.to == SQ_STATE_QUEUED && (e = with_number(q, SQL_RECIPIENT_EXTEND, "ii", r->id.v, now_ms, err)) != SQ_OK)
		return e;
	if (is_resend(what))
		return next_epoch(q, r, what == RESEND, err);
	if (what == GIVE_UP && (e = with_number(q, SQL_RECIPIENT_COPY, "ii", r->id.v, 1, err)) != SQ_OK)
		return e;
	if ((what == SETTLE_SENT || what == GIVE_UP) && (e = sq_state_reply(q, r->id, &said, err)) != SQ_OK)
		return e;
	if (what == SETTLE_SENT)
		return sq_ledger_add(q, &l, err);
	return SQ_OK;
}

/*
 * "Send the message again" means those who may not have it: whoever is in
 * doubt or waits for a person; else those who certainly do not have it; and a
 * second copy to those who do only where there is nobody else.
 */
static unsigned
resend_whole(const struct group *g)
{
	static const unsigned order[] = { IN(DOUBT) | IN(HELD), IN(FAILED) | IN(EXPIRED) | IN(REMOVED), IN(SENT) };
	unsigned have = 0;

	for (size_t i = 0; i < g->n; i++)
		have |= 1u << g->v[i].state;
	for (size_t i = 0; i < SQ_LEN(order); i++)
		if (have & order[i])
			return order[i];
	return 0;
}

static enum sq_err
act(struct sq_queue *q, enum action what, struct sq_message_id m, const char *address, const char *source, int64_t now_ms, int *n, struct sq_error *err)
{
	SQ_CLEANUP(group_fini) struct group g = { 0 };
	unsigned from;
	int moved = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK || (e = group_load(q, m, address, &g, err)) != SQ_OK ||
	    (is_resend(what) && (e = need_content(q, m, err)) != SQ_OK))
		return e;
	from = what == RESEND && (!address || !address[0]) ? resend_whole(&g) : actions[what].from;
	for (size_t i = 0; i < g.n; i++) {
		if (!(from & 1u << g.v[i].state))
			continue;
		if ((e = act_one(q, what, &g.v[i], source, now_ms, err)) != SQ_OK)
			return e;
		moved++;
	}
	if (moved == 0 && what != RETRY)
		return forbidden(what, &g.v[0], err);
	if ((e = with_number(q, SQL_MESSAGE_EXTEND, "i", m.v, 0, err)) != SQ_OK ||
	    (e = sq_state_settle_message(q, m, now_ms, err)) != SQ_OK || (e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	if (n)
		*n = moved;
	return SQ_OK;
}

enum sq_err
sq_queue_hold(struct sq_queue *q, struct sq_message_id m, const char *address, int64_t now_ms, int *n, struct sq_error *err)
{
	return act(q, HOLD, m, address, "", now_ms, n, err);
}

enum sq_err
sq_queue_release(struct sq_queue *q, struct sq_message_id m, const char *address, int64_t now_ms, int *n, struct sq_error *err)
{
	return act(q, RELEASE, m, address, "", now_ms, n, err);
}

enum sq_err
sq_queue_remove(struct sq_queue *q, struct sq_message_id m, const char *address, int64_t now_ms, int *n, struct sq_error *err)
{
	return act(q, REMOVE, m, address, "", now_ms, n, err);
}

enum sq_err
sq_queue_resend(struct sq_queue *q, struct sq_message_id m, const char *address, int64_t now_ms, int *n, struct sq_error *err)
{
	return act(q, RESEND, m, address, "", now_ms, n, err);
}

enum sq_err
sq_queue_resend_doubt(struct sq_queue *q, struct sq_message_id m, int64_t now_ms, int *n, struct sq_error *err)
{
	return act(q, RESEND_DOUBT, m, "", "", now_ms, n, err);
}

enum sq_err
sq_queue_settle(struct sq_queue *q, struct sq_message_id m, const char *address, bool sent, const char *source, int64_t now_ms, int *n, struct sq_error *err)
{
	return act(q, sent ? SETTLE_SENT : SETTLE_UNSENT, m, address, source && source[0] ? source : "settled by hand", now_ms, n, err);
}

enum sq_err
sq_queue_doubt_expire(struct sq_queue *q, struct sq_message_id m, int64_t now_ms, int *n, struct sq_error *err)
{
	return act(q, GIVE_UP, m, "", "the outcome is unknown: the server may have accepted it, its answer was lost", now_ms, n, err);
}

enum sq_err
sq_queue_retry(struct sq_queue *q, struct sq_message_id m, int64_t now_ms, int *n, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	if (m.v != 0)
		return act(q, RETRY, m, "", "", now_ms, n, err);
	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_RETRY_ALL);

		sq_stmt_bind(&s, "i", now_ms);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
		*n = sqlite3_changes(q->db);
	}
	return sq_tx_commit(&tx, err);
}
