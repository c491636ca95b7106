/*
 * What a person changes of a message that has not begun its last step: when
 * it goes, until when it may, to whom; and taking back one that nobody has
 * seen yet. Only the envelope and the times: the frozen octets stay.
 */
#include "db.h"

struct edited {
	struct sq_recipient_id id;
	enum sq_state state;
	uint8_t notify;
	bool is_named, is_new;   /* the recipient to be replaced; the one that is to replace it, there already */
};

struct edit_group {
	struct edited *v;
	size_t n, open;          /* queued or held */
};

static void
edit_group_fini(struct edit_group *g)
{
	free(g->v);
}

static bool
may_be_edited(enum sq_state s)
{
	return s == SQ_STATE_QUEUED || s == SQ_STATE_HELD;
}

static enum sq_err
load(struct sq_queue *q, struct sq_message_id m, const char *named, const char *to, struct edit_group *g, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_MESSAGE_RECIPIENTS);

	sq_stmt_bind(&s, "i", m.v);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		struct edited *v = (g->n & (g->n - 1)) == 0 ? reallocarray(g->v, g->n ? 2 * g->n : 1, sizeof(*v)) : g->v;

		if (!v)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		g->v = v;
		v[g->n] = (struct edited){ .id = { sq_col(&s, 0) }, .state = (enum sq_state)sq_col(&s, 2), .notify = (uint8_t)sq_col(&s, 3),
			.is_named = named[0] && sq_address_eq(sq_col_str(&s, 1), sq_str(named)), .is_new = to[0] && sq_address_eq(sq_col_str(&s, 1), sq_str(to)) };
		g->open += may_be_edited(v[g->n++].state);
	}
	if (step == SQ_FAILED)
		return e->code;
	return g->n ? SQ_OK : sq_error_set(err, SQ_ENOENT, "there is no such message");
}

static enum sq_err
run(struct sq_queue *q, enum sq_sql id, int64_t a, int64_t b, struct sq_error *err)
{
	SQ_STMT(s, q, id);

	sq_stmt_bind(&s, "ii", a, b);
	return sq_stmt_run(&s, err);
}

/* What a resume would go on with was for the old recipients. */
static enum sq_err
forget_transactions(struct sq_queue *q, const struct edit_group *g, struct sq_error *err)
{
	enum sq_err e = SQ_OK;
	SQ_STMT(s, q, SQL_RECIPIENT_NO_TXN);

	for (size_t i = 0; e == SQ_OK && i < g->n; i++) {
		if (!may_be_edited(g->v[i].state))
			continue;
		sq_stmt_again(&s);
		sq_stmt_bind(&s, "i", g->v[i].id.v);
		e = sq_stmt_run(&s, err);
	}
	return e;
}

static enum sq_err
replace(struct sq_queue *q, struct sq_message_id m, const struct sq_edit *edit, const struct edit_group *g, struct sq_error *err)
{
	const struct edited *old = NULL;
	enum sq_err e;

	for (size_t i = 0; i < g->n; i++) {
		if (g->v[i].is_new)
			return sq_error_set(err, SQ_EPERM, "%.256s is a recipient already", edit->to);
		if (g->v[i].is_named || (!edit->instead_of[0] && may_be_edited(g->v[i].state)))
			old = &g->v[i];
	}
	if (!old)
		return sq_error_set(err, SQ_ENOENT, "the message has no recipient '%.256s'", edit->instead_of);
	if (!edit->instead_of[0] && g->open > 1)
		return sq_error_set(err, SQ_EPERM, "%zu recipients wait: say whom %.256s is to replace", g->open, edit->to);
	if (!may_be_edited(old->state))
		return sq_error_set(err, SQ_EPERM, "%.256s is %s and cannot be replaced: only what is queued or held can", edit->instead_of, sq_state_name(old->state));
	if ((e = forget_transactions(q, g, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_EDIT_ADDRESS);

		sq_stmt_bind(&s, "iz", old->id.v, edit->to);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return edit->utf8 ? run(q, SQL_EDIT_FLAGS, m.v, SQ_TXN_SMTPUTF8, err) : SQ_OK;
}

static enum sq_err
set_times(struct sq_queue *q, struct sq_message_id m, const struct sq_edit *edit, const struct edit_group *g, struct sq_error *err)
{
	enum sq_err e = SQ_OK;

	for (size_t i = 0; e == SQ_OK && i < g->n; i++) {
		if (!may_be_edited(g->v[i].state))
			continue;
		/* A later start gives no shorter life. */
		if (edit->at_ms > 0 && g->v[i].state == SQ_STATE_QUEUED && (e = run(q, SQL_EDIT_AT, g->v[i].id.v, edit->at_ms, err)) != SQ_OK)
			return e;
		if (edit->deadline_ms > 0)
			e = run(q, SQL_EDIT_DEADLINE, g->v[i].id.v, edit->deadline_ms, err);
	}
	if (e == SQ_OK && edit->at_ms > 0)
		e = run(q, SQL_EDIT_MESSAGE_AT, m.v, edit->at_ms, err);
	return e == SQ_OK ? run(q, SQL_EDIT_MESSAGE_EXPIRY, m.v, 0, err) : e;
}

enum sq_err
sq_queue_edit(struct sq_queue *q, struct sq_message_id m, const struct sq_edit *edit, int *n, struct sq_error *err)
{
	SQ_CLEANUP(edit_group_fini) struct edit_group g = { 0 };
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK || (e = load(q, m, edit->instead_of, edit->to, &g, err)) != SQ_OK)
		return e;
	if (g.open == 0)
		return sq_error_set(err, SQ_EPERM, "no recipient is queued or held: it is %s, and cannot be changed any more", sq_state_name(g.v[0].state));
	if (edit->deadline_ms > 0 && edit->at_ms >= edit->deadline_ms)
		return sq_error_set(err, SQ_EPERM, "the deadline is over before the message may be sent");
	if ((edit->to[0] && (e = replace(q, m, edit, &g, err)) != SQ_OK) || (e = set_times(q, m, edit, &g, err)) != SQ_OK ||
	    (e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	*n = edit->to[0] && !edit->at_ms && !edit->deadline_ms ? 1 : (int)g.open;
	return SQ_OK;
}

enum sq_err
sq_queue_undo(struct sq_queue *q, struct sq_message_id m, int64_t now_ms, int *n, struct sq_error *err)
{
	SQ_CLEANUP(edit_group_fini) struct edit_group g = { 0 };
	int64_t tried = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK || (e = load(q, m, "", "", &g, err)) != SQ_OK)
		return e;
	{
		struct sq_error *why = SQ_ERR(err);
		SQ_STMT(s, q, SQL_EDIT_SEEN);

		sq_stmt_bind(&s, "i", m.v);
		if (sq_stmt_step(&s, why) != SQ_ROW)
			return why->code;
		tried = sq_col(&s, 0);
	}
	if (g.open < g.n || tried)
		return sq_error_set(err, SQ_EPERM, "too late to undo it: %s", g.open < g.n ? "it is not waiting any more" : "it was given to the server, which may have seen some of it (sendq remove takes it out)");
	for (size_t i = 0; i < g.n; i++) {
		struct sq_move move = { .id = g.v[i].id, .from = g.v[i].state, .to = SQ_STATE_REMOVED, .notify = g.v[i].notify, .now_ms = now_ms };

		if ((e = sq_state_move(q, &move, err)) != SQ_OK)
			return e;
	}
	if ((e = sq_state_settle_message(q, m, now_ms, err)) != SQ_OK || (e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	*n = (int)g.n;
	return SQ_OK;
}
