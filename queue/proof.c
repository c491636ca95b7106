/*
 * Proof that a server accepted a message, as it comes with delivery reports:
 * which message is meant, and what follows for each of its recipients. It
 * never says whether a report is to be believed beyond that: no recipient
 * moves that was not in doubt.
 */
#include "db.h"

struct one {
	struct sq_recipient_id id;
	char *address;
	enum sq_state state;
	uint8_t notify;
	int epoch, unknown;
	int64_t attempt;
};

struct all {
	struct one *v;
	size_t n;
};

static void
all_fini(struct all *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->v[i].address);
	free(a->v);
}

static enum sq_err
load(struct sq_queue *q, struct sq_message_id m, struct all *a, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_PROOF_RECIPIENTS);

	sq_stmt_bind(&s, "i", m.v);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		if ((a->n & (a->n - 1)) == 0) {
			struct one *more = reallocarray(a->v, a->n ? 2 * a->n : 1, sizeof(*more));

			if (!more)
				return sq_error_set(err, SQ_ENOMEM, "out of memory");
			a->v = more;
		}
		a->v[a->n] = (struct one){ .id = { sq_col(&s, 0) }, .address = sq_col_dup(&s, 1), .state = (enum sq_state)sq_col(&s, 2),
			.notify = (uint8_t)sq_col(&s, 3), .epoch = (int)sq_col(&s, 4), .attempt = sq_col(&s, 5), .unknown = (int)sq_col(&s, 6) };
		if (!a->v[a->n++].address)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	return step == SQ_FAILED ? e->code : SQ_OK;
}

static enum sq_err
run2(struct sq_queue *q, enum sq_sql id, const char *kinds, int64_t a, int64_t b, struct sq_error *err)
{
	SQ_STMT(s, q, id);

	sq_stmt_bind(&s, kinds, a, b);
	return sq_stmt_run(&s, err);
}

/* The recipient that is named; -1: none of ours. */
static int
named(const struct all *a, const char *address)
{
	for (size_t i = 0; address && address[0] && i < a->n; i++)
		if (sq_address_eq(sq_str(a->v[i].address), sq_str(address)))
			return (int)i;
	return -1;
}

/* The attempt whose transaction is meant; 0: it cannot be told. */
static int64_t
attempt_of(const struct all *a, int who, int epoch)
{
	int64_t attempt = 0;

	if (who >= 0)
		return a->v[who].attempt;
	for (size_t i = 0; i < a->n; i++) {
		const struct one *r = &a->v[i];

		if (r->state != SQ_STATE_DOUBT || (epoch >= 0 && r->epoch != epoch))
			continue;
		if (attempt != 0 && r->attempt != attempt)
			return 0;
		attempt = r->attempt;
	}
	return attempt;
}

/* The copy of the recipient that the proof is about; -1: none that was ever in doubt. */
static int
copy_of(const struct one *r, int epoch)
{
	if (epoch < 0)
		/* One that waits to be sent again has had no later copy yet. */
		epoch = r->state == SQ_STATE_DOUBT ? r->epoch : r->state == SQ_STATE_QUEUED && r->unknown > 0 ? r->epoch - 1
			: r->state == SQ_STATE_EXPIRED && r->unknown > 0 ? r->epoch : -1;
	if (epoch < 0 || epoch > r->epoch)
		return -1;
	if (epoch == r->epoch)
		return r->state == SQ_STATE_DOUBT || (r->state == SQ_STATE_EXPIRED && r->unknown > 0) ? epoch : -1;
	return r->unknown > 0 ? epoch : -1;
}

static enum sq_err
has_row(struct sq_queue *q, const struct one *r, int epoch, bool *has, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_LEDGER_HAS);

	sq_stmt_bind(&s, "ii", r->id.v, (int64_t)epoch);
	step = sq_stmt_step(&s, e);
	*has = step == SQ_ROW;
	return step == SQ_FAILED ? e->code : SQ_OK;
}

static enum sq_err
move(struct sq_queue *q, const struct one *r, enum sq_state to, const struct sq_reply *reply, int64_t now_ms, struct sq_error *err)
{
	struct sq_move m = { .id = r->id, .from = r->state, .to = to, .notify = r->notify, .now_ms = now_ms };
	enum sq_err e = sq_state_move(q, &m, err);

	return e == SQ_OK ? sq_state_reply(q, r->id, reply, err) : e;
}

static enum sq_err
accepted(struct sq_queue *q, const struct sq_proof *p, const struct one *r, int epoch, int64_t now_ms, struct sq_proved *out, struct sq_error *err)
{
	struct sq_reply said = { .text = sq_str(p->source) };
	struct sq_ledger_new l = { .recipient = r->id, .accepted_ms = now_ms, .source = p->source, .reply = &said, .earlier = true, .epoch = epoch };
	bool latest = epoch == r->epoch && r->state == SQ_STATE_DOUBT, has = false;
	bool ends = r->state == SQ_STATE_DOUBT || r->state == SQ_STATE_QUEUED || r->state == SQ_STATE_EXPIRED;
	enum sq_err e;

	if ((e = has_row(q, r, epoch, &has, err)) != SQ_OK || has)
		return e;
	/* Its own latest copy: the row says how many earlier ones are still unknown. */
	l.earlier = !latest;
	if ((e = sq_ledger_add(q, &l, err)) != SQ_OK)
		return e;
	/* Known now; but of one in doubt the latest copy takes its place among the unknown ones. */
	if (!latest && r->state != SQ_STATE_DOUBT && (e = run2(q, SQL_RECIPIENT_COPY, "ii", r->id.v, -1, err)) != SQ_OK)
		return e;
	if (!latest && (e = run2(q, SQL_LEDGER_COPY, "i", r->id.v, 0, err)) != SQ_OK)
		return e;
	if (!ends) {
		out->earlier++;
		return SQ_OK;
	}
	out->sent++;
	return move(q, r, SQ_STATE_SENT, &said, now_ms, err);
}

enum sq_err
sq_queue_prove(struct sq_queue *q, const struct sq_proof *p, int64_t now_ms, struct sq_proved *out, struct sq_error *err)
{
	SQ_CLEANUP(all_fini) struct all a = { 0 };
	struct sq_proved done = { 0 };
	int64_t attempt;
	int who;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK || (e = load(q, p->id, &a, err)) != SQ_OK)
		return e;
	who = named(&a, p->address);
	attempt = attempt_of(&a, who, p->epoch);
	for (size_t i = 0; attempt != 0 && i < a.n; i++) {
		const struct one *r = &a.v[i];
		int epoch = r->attempt == attempt ? copy_of(r, p->epoch) : -1;

		if (epoch < 0)
			continue;
		if ((int)i == who && p->failed) {
			/* A copy on its way again may fare better; only a doubt ends like this. */
			if (r->state != SQ_STATE_DOUBT || epoch != r->epoch)
				continue;
			e = move(q, r, SQ_STATE_FAILED, &p->reply, now_ms, err);
			done.failed++;
		} else {
			e = accepted(q, p, r, epoch, now_ms, &done, err);
		}
		if (e != SQ_OK)
			return e;
	}
	if ((e = sq_state_settle_message(q, p->id, now_ms, err)) != SQ_OK || (e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	*out = done;
	return SQ_OK;
}

/* ---- which message ---- */

/* "<8 hex of the queue's identity>-<id>-<epoch>", as claim.c makes it. */
static enum sq_err
own_envid(struct sq_queue *q, struct sq_str envid, struct sq_message_id *id, int *epoch, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	char text[64], name[SQ_ID_TEXT], *dash, *end = NULL;
	long n;

	if (envid.n < 12 || envid.n >= sizeof(text) || memchr(envid.p, 0, envid.n))
		return SQ_ENOENT;
	memcpy(text, envid.p, envid.n);
	text[envid.n] = '\0';
	{
		SQ_STMT(s, q, SQL_META_GET);
		sq_stmt_bind(&s, "z", "identity");
		if (sq_stmt_step(&s, e) != SQ_ROW)
			return e->code != SQ_OK ? e->code : SQ_ENOENT;
		if (sq_col_str(&s, 0).n < 8 || memcmp(sq_col_str(&s, 0).p, text, 8) != 0 || text[8] != '-')
			return SQ_ENOENT;
	}
	if (!(dash = strchr(text + 9, '-')) || dash[1] < '0' || dash[1] > '9')
		return SQ_ENOENT;
	*dash = '\0';
	n = strtol(dash + 1, &end, 10);
	if (*end || n < 0 || n > 1000000 || sq_queue_find(q, text + 9, id, NULL) != SQ_OK)
		return SQ_ENOENT;
	/* Exactly this id, not one that begins with it. */
	sq_id_format(*id, name);
	*epoch = (int)n;
	return strcmp(name, text + 9) == 0 ? SQ_OK : SQ_ENOENT;
}

/* As MAIL carried it (RFC 3461 §4). */
static void
add_xtext(struct sq_str v, struct sq_buf *out)
{
	for (size_t i = 0; i < v.n; i++) {
		unsigned char c = (unsigned char)v.p[i];

		if (c < '!' || c > '~' || c == '+' || c == '=')
			sq_buf_addf(out, "+%02X", c);
		else
			sq_buf_addc(out, (char)c);
	}
}

static enum sq_err
next_of(struct sq_queue *q, enum sq_sql which, const char *kinds, int64_t hash, struct sq_str a, struct sq_str b, int64_t *id, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, which);

	if (which == SQL_BY_ENVID)
		sq_stmt_bind(&s, kinds, a, b, *id);
	else
		sq_stmt_bind(&s, kinds, hash, a, *id);
	step = sq_stmt_step(&s, e);
	*id = step == SQ_ROW ? sq_col(&s, 0) : 0;
	return step == SQ_FAILED ? e->code : SQ_OK;
}

enum sq_err
sq_queue_named(struct sq_queue *q, struct sq_str envid, struct sq_str message_id,
	void (*each)(void *arg, struct sq_message_id id, int epoch), void *arg, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf xtext = SQ_BUF_INIT(1024);
	struct sq_message_id own = { 0 };
	int64_t id = 0;
	int epoch;
	enum sq_err e = own_envid(q, envid, &own, &epoch, err);

	if (e == SQ_OK) {
		each(arg, own, epoch);
		return SQ_OK;
	}
	if (e != SQ_ENOENT)
		return e;
	add_xtext(envid, &xtext);
	while (envid.n > 0 && !xtext.failed) {
		if ((e = next_of(q, SQL_BY_ENVID, "tti", 0, envid, (struct sq_str){ xtext.p, xtext.n }, &id, err)) != SQ_OK)
			return e;
		if (id == 0)
			break;
		each(arg, (struct sq_message_id){ id }, -1);
		own.v = id;
	}
	/* An ENVID is exact; the Message-ID counts only without one. */
	for (id = 0; message_id.n > 0 && own.v == 0; ) {
		if ((e = next_of(q, SQL_BY_MESSAGE_ID, "iti", sq_hash64(message_id), message_id, (struct sq_str){ 0 }, &id, err)) != SQ_OK)
			return e;
		if (id == 0)
			break;
		each(arg, (struct sq_message_id){ id }, -1);
	}
	return SQ_OK;
}
