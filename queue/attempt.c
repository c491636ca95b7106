/*
 * An attempt from its envelope to its end: what was answered, the intent that
 * is durable before the terminator, the verdict, progress, and what a start
 * after a crash makes of attempts that never ended. Which time comes next is
 * the caller's decision.
 */
#include "db.h"

/* ---- shared ---- */

enum sq_err
sq_attempt_members(struct sq_queue *q, struct sq_attempt_id a, struct sq_member **out, size_t *n, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_CLEANUP(sq_freep) struct sq_member *v = calloc(SQ_GROUP_MAX, sizeof(*v));
	enum sq_step step;
	size_t count = 0;
	SQ_STMT(s, q, SQL_ATTEMPT_MEMBERS);

	if (!v)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	sq_stmt_bind(&s, "i", a.v);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		if (count == SQ_GROUP_MAX)
			return sq_error_set(err, SQ_ECORRUPT, "queue '%s' has an attempt with too many recipients", q->path);
		v[count++] = (struct sq_member){ { sq_col(&s, 0) }, (enum sq_state)sq_col(&s, 1), (uint8_t)sq_col(&s, 2), sq_col(&s, 3) != 0 };
	}
	if (step == SQ_FAILED)
		return e->code;
	*out = v;
	*n = count;
	v = NULL;
	return SQ_OK;
}

static struct sq_member *
member(struct sq_member *v, size_t n, int64_t id)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].id.v == id)
			return &v[i];
	return NULL;
}

struct attempt_row {
	int64_t txn;
	enum sq_phase phase;
};

/* SQ_ENOENT unless the attempt is running. */
static enum sq_err
running(struct sq_queue *q, struct sq_attempt_id a, struct attempt_row *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_ATTEMPT_GET);

	sq_stmt_bind(&s, "i", a.v);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE || sq_col(&s, 4) != 0)
		return sq_error_set(err, SQ_ENOENT, "this attempt is not under way");
	*out = (struct attempt_row){ sq_col(&s, 2), (enum sq_phase)sq_col(&s, 3) };
	return SQ_OK;
}

/* Every result names a member, and every member has its result. */
static enum sq_err
check_results(const struct sq_recipient_result *r, uint32_t n, struct sq_member *v, size_t n_members, struct sq_error *err)
{
	bool seen[SQ_GROUP_MAX] = { false };

	if (n != n_members)
		return sq_error_set(err, SQ_EINVAL, "%u results for %zu recipients", (unsigned)n, n_members);
	for (uint32_t i = 0; i < n; i++) {
		struct sq_member *m = member(v, n_members, r[i].id);

		if (!m || seen[m - v])
			return sq_error_set(err, SQ_EINVAL, "a result names a recipient that is not in this attempt, or names one twice");
		seen[m - v] = true;
	}
	return SQ_OK;
}

/* One statement, one or two numbers. */
static enum sq_err
run2(struct sq_queue *q, enum sq_sql id, const char *kinds, int64_t a, int64_t b, struct sq_error *err)
{
	SQ_STMT(s, q, id);

	sq_stmt_bind(&s, kinds, a, b);
	return sq_stmt_run(&s, err);
}

enum sq_err
sq_attempt_close(struct sq_queue *q, const struct sq_attempt_close *c, struct sq_error *err)
{
	int64_t message = sq_attempt_message(c->id);
	enum sq_err e;

	{
		SQ_STMT(s, q, SQL_ATTEMPT_CLOSE);
		/* An end at time 0 would read as "running". */
		sq_stmt_bind(&s, "iiiiiiizt", c->id.v, c->now_ms > 0 ? c->now_ms : INT64_C(1), (int64_t)c->phase, (int64_t)c->outcome,
			(int64_t)c->counts, c->octets, (int64_t)c->reply->code, c->reply->enhanced, c->reply->text);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	if ((e = run2(q, SQL_ATTEMPT_TRIES, "i", c->id.v, 0, err)) != SQ_OK)
		return e;
	/* A laptop that is offline for a week must not push the real history out. */
	if (!c->counts && (e = run2(q, SQL_ATTEMPT_COLLAPSE, "ii", c->id.v, message, err)) != SQ_OK)
		return e;
	return run2(q, SQL_ATTEMPT_THIN, "i", message, 0, err);
}

/* ---- envelope and intent ---- */

static enum sq_err
put_txn(struct sq_queue *q, int64_t id, const struct sq_envelope *env, const struct sq_said *said, int64_t epoch, int64_t now_ms, struct sq_error *err)
{
	int64_t retained_until = env->store.n > 0 ? now_ms + (int64_t)env->retain_s * 1000 : 0;
	SQ_STMT(s, q, SQL_TXN_PUT);

	sq_stmt_bind(&s, "ititiztiiz", id, env->transid, epoch, env->address, (int64_t)env->verb, said->ehlo_name, env->store, retained_until,
		(int64_t)env->offset, said->login);
	return sq_stmt_run(&s, err);
}

static enum sq_err
size_of(struct sq_queue *q, int64_t message, uint64_t *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_MESSAGE_FACTS);

	sq_stmt_bind(&s, "i", message);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	*out = (uint64_t)sq_col(&s, 0);
	return SQ_OK;
}

/* The server showed that the terminator of those in doubt was not processed: they are being sent. */
static enum sq_err
doubt_over(struct sq_queue *q, const struct sq_member *v, size_t n, int64_t now_ms, struct sq_error *err)
{
	enum sq_err e;

	for (size_t i = 0; i < n; i++) {
		struct sq_move m = { .id = v[i].id, .from = SQ_STATE_DOUBT, .to = SQ_STATE_QUEUED, .next_try_ms = now_ms, .now_ms = now_ms };

		if (v[i].state != SQ_STATE_DOUBT)
			continue;
		if ((e = sq_state_move(q, &m, err)) != SQ_OK)
			return e;
		m.from = SQ_STATE_QUEUED;
		m.to = SQ_STATE_SENDING;
		if ((e = sq_state_move(q, &m, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

static enum sq_err
epoch_of(struct sq_queue *q, struct sq_recipient_id id, int64_t *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_RECIPIENT_EPOCH);

	sq_stmt_bind(&s, "i", id.v);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	*out = sq_col(&s, 0);
	return SQ_OK;
}

static enum sq_err
store_answers(struct sq_queue *q, const struct sq_envelope *env, int64_t txn, struct sq_error *err)
{
	enum sq_err e;
	SQ_STMT(s, q, SQL_RECIPIENT_ACCEPTED);

	for (uint32_t i = 0; i < env->n_results; i++) {
		const struct sq_recipient_result *r = &env->results[i];
		bool accepted = r->cls == SQ_CLASS_ACCEPTED;

		sq_stmt_again(&s);
		sq_stmt_bind(&s, "iiiizt", r->id, (int64_t)accepted, accepted ? txn : INT64_C(0), (int64_t)r->reply.code, r->reply.enhanced, r->reply.text);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

enum sq_err
sq_queue_envelope(struct sq_queue *q, struct sq_attempt_id a, const struct sq_envelope *env, const struct sq_said *said, int64_t now_ms, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_member *v = NULL;
	struct attempt_row row;
	size_t n = 0;
	uint64_t size = 0;
	int64_t txn = 0, epoch = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK ||
	    (e = running(q, a, &row, err)) != SQ_OK ||
	    (e = sq_attempt_members(q, a, &v, &n, err)) != SQ_OK ||
	    (e = check_results(env->results, env->n_results, v, n, err)) != SQ_OK ||
	    (e = size_of(q, sq_attempt_message(a), &size, err)) != SQ_OK)
		return e;
	if (env->offset > size)
		return sq_error_set(err, SQ_EINVAL, "a server that has more of a message than there is");
	if (env->offset < size && (e = doubt_over(q, v, n, now_ms, err)) != SQ_OK)
		return e;
	if (env->transid.n > 0) {
		/* A resumed transaction keeps its row. */
		txn = row.txn ? row.txn : a.v;
		if ((e = epoch_of(q, v[0].id, &epoch, err)) != SQ_OK || (e = put_txn(q, txn, env, said, epoch, now_ms, err)) != SQ_OK)
			return e;
	}
	{
		SQ_STMT(s, q, SQL_ATTEMPT_ENVELOPE);
		sq_stmt_bind(&s, "iitii", a.v, (int64_t)SQ_PHASE_DATA, env->address, (int64_t)env->verb, txn);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	if ((e = store_answers(q, env, txn, err)) != SQ_OK || (txn != row.txn && row.txn && (e = run2(q, SQL_TXN_DELETE, "i", row.txn, 0, err)) != SQ_OK))
		return e;
	return sq_tx_commit(&tx, err);
}

/* Sets *known when the message has this hash already; SQ_ECORRUPT when it has another. */
static enum sq_err
check_hash(struct sq_queue *q, int64_t message, const uint8_t sha256[32], bool *known, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	struct sq_str have;
	SQ_STMT(s, q, SQL_MESSAGE_HASH);

	sq_stmt_bind(&s, "i", message);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	have = sq_col_str(&s, 0);
	*known = have.n > 0;
	if (*known && !sq_str_eq(have, (struct sq_str){ (const char *)sha256, 32 }))
		return sq_error_set(err, SQ_ECORRUPT, "the content that was sent is not the content that was sent before");
	return SQ_OK;
}

/* `unasked`: the envelope is not answered yet, so every recipient may be accepted. */
static enum sq_err
committing(struct sq_queue *q, struct sq_attempt_id a, bool unasked, const uint8_t sha256[32], int64_t now_ms, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_member *v = NULL;
	int64_t message = sq_attempt_message(a);
	struct attempt_row row;
	bool known = false;
	size_t n = 0, moved = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK ||
	    (e = running(q, a, &row, err)) != SQ_OK ||
	    (e = check_hash(q, message, sha256, &known, err)) != SQ_OK ||
	    (e = sq_attempt_members(q, a, &v, &n, err)) != SQ_OK)
		return e;
	for (size_t i = 0; i < n; i++)
		moved += (v[i].state == SQ_STATE_SENDING && (unasked || v[i].accepted)) || (v[i].state == SQ_STATE_DOUBT && v[i].accepted);
	if (moved == 0)
		return sq_error_set(err, SQ_EINVAL, "no recipient of this attempt was accepted by an envelope");
	for (size_t i = 0; i < n; i++) {
		struct sq_move m = { .id = v[i].id, .from = SQ_STATE_SENDING, .to = SQ_STATE_COMMITTING, .now_ms = now_ms };

		if (v[i].state == SQ_STATE_SENDING && (unasked || v[i].accepted) && (e = sq_state_move(q, &m, err)) != SQ_OK)
			return e;
		/* It goes without a TRANSID: who knows an earlier one must not be asked what became of it. */
		if (unasked && (e = run2(q, SQL_RECIPIENT_NO_TXN, "i", m.id.v, 0, err)) != SQ_OK)
			return e;
	}
	if (unasked && row.txn && (e = run2(q, SQL_TXN_DELETE, "i", row.txn, 0, err)) != SQ_OK)
		return e;
	if (!known) {
		SQ_STMT(s, q, SQL_MESSAGE_SET_HASH);
		sq_stmt_bind(&s, "ib", message, (const void *)sha256, (size_t)32);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	if ((e = run2(q, SQL_ATTEMPT_PHASE, "ii", a.v, SQ_PHASE_TERMINATOR, err)) != SQ_OK)
		return e;
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_committing(struct sq_queue *q, struct sq_attempt_id a, const uint8_t sha256[32], int64_t now_ms, struct sq_error *err)
{
	return committing(q, a, false, sha256, now_ms, err);
}

enum sq_err
sq_queue_committing_unasked(struct sq_queue *q, struct sq_attempt_id a, const uint8_t sha256[32], int64_t now_ms, struct sq_error *err)
{
	return committing(q, a, true, sha256, now_ms, err);
}

/* ---- verdict ---- */

static enum sq_err
target(enum sq_class cls, enum sq_state from, enum sq_state *to, struct sq_error *err)
{
	switch (cls) {
	case SQ_CLASS_ACCEPTED:
		*to = SQ_STATE_SENT;
		break;
	case SQ_CLASS_DEFERRED:
		*to = SQ_STATE_QUEUED;
		break;
	case SQ_CLASS_REFUSED:
		*to = SQ_STATE_FAILED;
		break;
	case SQ_CLASS_DOUBT:
		*to = SQ_STATE_DOUBT;
		break;
	default:
		return sq_error_set(err, SQ_EINVAL, "a result of class %d", (int)cls);
	}
	if (from == SQ_STATE_DOUBT && *to == SQ_STATE_DOUBT)
		return SQ_OK; /* the server was asked, and did not say */
	if (!sq_state_may(from, *to))
		return sq_error_set(err, SQ_EINVAL, "a verdict says '%s' of a recipient that is %s", sq_state_name(*to), sq_state_name(from));
	return SQ_OK;
}

static enum sq_err
one_result(struct sq_queue *q, const struct sq_verdict *v, const struct sq_recipient_result *r, const struct sq_member *m,
	int64_t next_try_ms, int64_t now_ms, struct sq_error *err)
{
	struct sq_move move = { .id = m->id, .from = m->state, .notify = m->notify, .next_try_ms = next_try_ms, .now_ms = now_ms };
	struct sq_ledger_new l = { .recipient = m->id, .accepted_ms = now_ms, .provider_id = v->provider_id, .source = "", .reply = &r->reply };
	enum sq_err e;

	if ((e = target(r->cls, m->state, &move.to, err)) != SQ_OK ||
	    (e = move.to == move.from ? run2(q, SQL_DOUBT_NEXT, "ii", m->id.v, next_try_ms, err) : sq_state_move(q, &move, err)) != SQ_OK ||
	    (e = sq_state_reply(q, m->id, &r->reply, err)) != SQ_OK)
		return e;
	if (move.to == SQ_STATE_SENT && (e = sq_ledger_add(q, &l, err)) != SQ_OK)
		return e;
	/* Accepted or refused, the transaction is over; deferred or in doubt, a later try goes on with it. */
	if (v->forget || sq_state_is_final(move.to))
		return run2(q, SQL_RECIPIENT_NO_TXN, "i", m->id.v, 0, err);
	return SQ_OK;
}

static const struct sq_reply *
telling_reply(const struct sq_verdict *v)
{
	for (uint32_t i = 0; i < v->n_results; i++)
		if (v->results[i].cls != SQ_CLASS_ACCEPTED)
			return &v->results[i].reply;
	return &v->results[0].reply;
}

enum sq_err
sq_queue_verdict(struct sq_queue *q, struct sq_attempt_id a, const struct sq_verdict *v, const int64_t *next_try_ms,
	enum sq_outcome outcome, int64_t now_ms, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_member *mv = NULL;
	struct sq_message_id message = { sq_attempt_message(a) };
	struct attempt_row row;
	struct sq_attempt_close c = { .id = a, .outcome = outcome, .octets = -1, .counts = true, .now_ms = now_ms };
	size_t n = 0;
	bool doubt = false, committed = false;
	enum sq_state to;
	uint64_t size = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK ||
	    (e = running(q, a, &row, err)) != SQ_OK ||
	    (e = sq_attempt_members(q, a, &mv, &n, err)) != SQ_OK ||
	    (e = check_results(v->results, v->n_results, mv, n, err)) != SQ_OK)
		return e;
	if (n == 0)
		return sq_error_set(err, SQ_EINVAL, "a verdict without recipients");
	/* All of it is checked before any of it is written: a bad verdict must not spoil a batch. */
	for (uint32_t i = 0; i < v->n_results; i++) {
		const struct sq_member *m = member(mv, n, v->results[i].id);

		if (!m)
			sq_bug("a result that was checked has no recipient");
		if ((e = target(v->results[i].cls, m->state, &to, err)) != SQ_OK)
			return e;
		committed = committed || m->state == SQ_STATE_COMMITTING || (m->state == SQ_STATE_DOUBT && to != SQ_STATE_DOUBT);
		doubt = doubt || v->results[i].cls == SQ_CLASS_DOUBT;
	}
	for (uint32_t i = 0; i < v->n_results; i++) {
		const struct sq_member *m = member(mv, n, v->results[i].id);

		if (!m)
			sq_bug("a result that was checked has no recipient");
		if ((e = one_result(q, v, &v->results[i], m, next_try_ms ? next_try_ms[i] : now_ms, now_ms, err)) != SQ_OK)
			return e;
	}
	if (committed && !doubt) {
		if ((e = size_of(q, message.v, &size, err)) != SQ_OK)
			return e;
		c.octets = (int64_t)size;
	}
	c.phase = committed ? doubt ? SQ_PHASE_TERMINATOR : SQ_PHASE_VERDICT : SQ_PHASE_RCPT;
	c.reply = telling_reply(v);
	if ((row.txn && (e = run2(q, SQL_TXN_DELETE, "i", row.txn, 0, err)) != SQ_OK) ||
	    (e = sq_attempt_close(q, &c, err)) != SQ_OK ||
	    (e = sq_state_settle_message(q, message, now_ms, err)) != SQ_OK)
		return e;
	return sq_tx_commit(&tx, err);
}

/* ---- an end without a verdict ---- */

static enum sq_err
end_attempt(struct sq_queue *q, struct sq_attempt_id a, const struct sq_attempt_end *end, int64_t now_ms, int *doubt, int *requeued, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_member *v = NULL;
	struct attempt_row row;
	struct sq_attempt_close c = { .id = a, .phase = end->phase, .outcome = end->outcome, .reply = &end->reply,
		.octets = -1, .counts = end->counts, .now_ms = now_ms };
	size_t n = 0;
	enum sq_err e;

	*doubt = *requeued = 0;
	if ((e = running(q, a, &row, err)) != SQ_OK || (e = sq_attempt_members(q, a, &v, &n, err)) != SQ_OK)
		return e;
	for (size_t i = 0; i < n; i++) {
		bool in_doubt = v[i].state == SQ_STATE_COMMITTING, asked = v[i].state == SQ_STATE_DOUBT;
		struct sq_move m = { .id = v[i].id, .from = v[i].state, .to = in_doubt ? SQ_STATE_DOUBT : SQ_STATE_QUEUED,
			.notify = v[i].notify, .next_try_ms = end->next_try_ms, .waits = end->waits, .now_ms = now_ms };

		if ((e = asked ? run2(q, SQL_DOUBT_NEXT, "ii", v[i].id.v, end->next_try_ms, err) : sq_state_move(q, &m, err)) != SQ_OK ||
		    (e = sq_state_reply(q, v[i].id, &end->reply, err)) != SQ_OK)
			return e;
		if (asked)
			continue;
		++*(in_doubt ? doubt : requeued);
	}
	if (*doubt > 0) {
		c.outcome = SQ_OUTCOME_DOUBT;
		c.counts = true;
	}
	if ((e = sq_attempt_close(q, &c, err)) != SQ_OK)
		return e;
	return sq_state_settle_message(q, (struct sq_message_id){ sq_attempt_message(a) }, now_ms, err);
}

enum sq_err
sq_queue_attempt_end(struct sq_queue *q, struct sq_attempt_id a, const struct sq_attempt_end *end, int64_t now_ms, int *out_doubt, struct sq_error *err)
{
	int doubt, requeued;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK ||
	    (e = end_attempt(q, a, end, now_ms, &doubt, &requeued, err)) != SQ_OK ||
	    (e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	if (out_doubt)
		*out_doubt = doubt;
	return SQ_OK;
}

enum sq_err
sq_queue_progress(struct sq_queue *q, struct sq_attempt_id a, enum sq_phase phase, const struct sq_progress *p, int64_t now_ms, struct sq_error *err)
{
	struct attempt_row row;
	enum sq_err e;
	SQ_TX(tx);

	(void)now_ms;
	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK || (e = running(q, a, &row, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_ATTEMPT_PROGRESS);
		sq_stmt_bind(&s, "iiiii", a.v, (int64_t)phase, (int64_t)p->handed, (int64_t)p->acked, (int64_t)p->durable);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	if (row.txn && (e = run2(q, SQL_TXN_DURABLE, "ii", row.txn, (int64_t)p->durable, err)) != SQ_OK)
		return e;
	return sq_tx_commit(&tx, err);
}

/* ---- recovery ---- */

static enum sq_err
next_orphan(struct sq_queue *q, struct sq_attempt_id *a, bool *found, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_STATE_ATTEMPTS);

	step = sq_stmt_step(&s, e);
	*found = step == SQ_ROW;
	if (*found)
		a->v = sq_col(&s, 0);
	return step == SQ_FAILED ? e->code : SQ_OK;
}

enum sq_err
sq_queue_recover(struct sq_queue *q, int64_t now_ms, struct sq_recovered *out, struct sq_error *err)
{
	struct sq_recovered r = { 0 };
	struct sq_attempt_end end = {
		.outcome = SQ_OUTCOME_LOCAL, .next_try_ms = now_ms, .counts = true,
		.reply = { .text = SQ_STR("sendq was stopped while this was being sent") },
	};
	bool found = true, more = true;
	enum sq_err e;

	{
		SQ_TX(tx);

		if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
			return e;
		for (;;) {
			struct sq_attempt_id a = { 0 };
			int doubt, requeued;

			if ((e = next_orphan(q, &a, &found, err)) != SQ_OK)
				return e;
			if (!found)
				break;
			if ((e = end_attempt(q, a, &end, now_ms, &doubt, &requeued, err)) != SQ_OK)
				return sq_error_wrap(err, e == SQ_ENOENT ? SQ_ECORRUPT : e, "cannot recover an attempt");
			r.doubt += doubt;
			r.requeued += requeued;
		}
		if ((e = sq_tx_commit(&tx, err)) != SQ_OK)
			return e;
	}
	while (more) {
		int swept = 0;

		if ((e = sq_ingest_sweep(q, &swept, &more, err)) != SQ_OK)
			return e;
		r.swept += swept;
	}
	*out = r;
	return SQ_OK;
}
