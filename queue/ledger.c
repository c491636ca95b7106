/*
 * The ledger: what was accepted, when, by whom. Rows are added by a verdict
 * or a person's word and go by age only.
 */
#include "db.h"

enum sq_err
sq_ledger_add(struct sq_queue *q, const struct sq_ledger_new *n, struct sq_error *err)
{
	enum sq_err e;
	SQ_STMT(s, q, SQL_LEDGER_ADD);

	sq_stmt_bind(&s, "iitzizti", n->recipient.v, n->accepted_ms, n->provider_id, n->source, (int64_t)n->reply->code, n->reply->enhanced, n->reply->text,
		n->earlier ? (int64_t)n->epoch : INT64_C(-1));
	if ((e = sq_stmt_run(&s, err)) != SQ_OK)
		return e;
	if (sqlite3_changes(q->db) != 1)
		return sq_error_set(err, SQ_ECORRUPT, "queue '%s' has a recipient without its message", q->path);
	return SQ_OK;
}

struct row_texts {
	char *message_id, *recipient, *sha256, *route, *provider_id, *source, *reply;
};

static void
texts_fini(struct row_texts *t)
{
	free(t->message_id);
	free(t->recipient);
	free(t->sha256);
	free(t->route);
	free(t->provider_id);
	free(t->source);
	free(t->reply);
	*t = (struct row_texts){ 0 };
}

static enum sq_err
read_row(struct sq_stmt *s, struct sq_ledger_row *r, struct row_texts *t, struct sq_error *err)
{
	t->message_id = sq_col_dup(s, 1);
	t->recipient = sq_col_dup(s, 2);
	t->sha256 = sq_col_dup(s, 3);
	t->route = sq_col_dup(s, 4);
	t->provider_id = sq_col_dup(s, 5);
	t->source = sq_col_dup(s, 6);
	t->reply = sq_col_dup(s, 13);
	if (!t->message_id || !t->recipient || !t->sha256 || !t->route || !t->provider_id || !t->source || !t->reply)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	*r = (struct sq_ledger_row){
		.message_id = t->message_id, .recipient = t->recipient, .sha256 = t->sha256, .route = t->route,
		.provider_id = t->provider_id, .source = t->source, .accepted_ms = sq_col(s, 7), .message = { sq_col(s, 8) },
		.epoch = (int)sq_col(s, 9), .copies = (int)sq_col(s, 10),
		.reply = { .code = (int)sq_col(s, 11), .text = sq_str(t->reply) },
	};
	snprintf(r->reply.enhanced, sizeof(r->reply.enhanced), "%s", (const char *)sqlite3_column_text(s->st, 12));
	r->unknown_copies = (int)sq_col(s, 14);
	return SQ_OK;
}

/* One row a statement: nothing stays open while the caller prints to a slow terminal. */
enum sq_err
sq_queue_sent(struct sq_queue *q, const struct sq_ledger_filter *f, bool (*each)(void *arg, const struct sq_ledger_row *row), void *arg, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	struct sq_ledger_filter any = { 0 };
	int64_t last = 0;

	if (!f)
		f = &any;
	for (;;) {
		SQ_CLEANUP(texts_fini) struct row_texts t = { 0 };
		struct sq_ledger_row row;

		{
			SQ_STMT(s, q, f->message_id ? SQL_LEDGER_NEXT_MID : SQL_LEDGER_NEXT);
			sq_stmt_bind(&s, f->message_id ? "iiziiz" : "iizi", last, f->since_ms, f->recipient,
				q->restricted ? q->only_uid : INT64_C(-1), sq_hash64(sq_str(f->message_id)), f->message_id);
			switch (sq_stmt_step(&s, e)) {
			case SQ_DONE:
				return SQ_OK;
			case SQ_FAILED:
				return e->code;
			case SQ_ROW:
				break;
			}
			last = sq_col(&s, 0);
			if (read_row(&s, &row, &t, e) != SQ_OK)
				return e->code;
		}
		if (!each(arg, &row))
			return SQ_OK;
	}
}

enum sq_err
sq_queue_provider_id(struct sq_queue *q, const char *message_id, const char *provider_id, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_LEDGER_PROVIDER_ID);

		sq_stmt_bind(&s, "izz", sq_hash64(sq_str(message_id)), message_id, provider_id);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}
