/*
 * The transaction that makes a message exist: duplicates left out, the last
 * chunk, the message, its recipients. Everything before it can be thrown
 * away; nothing slow happens inside it.
 */
#include "ingest.h"

#include <sha256.h>

/* ---- duplicates ---- */

/* The octets of chunk `n` of the ingest: stored, or still in memory. Called with the view of the chunk it is compared to. */
static enum sq_err
chunk_equals(struct sq_ingest *in, int64_t n, struct sq_str other, bool *equal, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;

	if (n == in->chunks) {
		*equal = sq_str_eq(other, (struct sq_str){ in->pending.p, in->pending.n });
		return SQ_OK;
	}
	SQ_STMT(s, in->q, SQL_CONTENT_GET_OWN);
	sq_stmt_bind(&s, "i", in->id << SQ_CHUNK_BITS | n);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	*equal = step == SQ_ROW && sq_str_eq(other, sq_col_str(&s, 0));
	return SQ_OK;
}

/* Octet by octet; sizes are known to be equal, so chunks fall together. */
static enum sq_err
compare_stored(struct sq_ingest *in, int64_t earlier, bool *equal, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t last = in->pending.n > 0 ? in->chunks : in->chunks - 1;
	SQ_STMT(s, in->q, SQL_CONTENT_GET);

	*equal = true;
	for (int64_t n = 0; n <= last && *equal; n++) {
		enum sq_step step;

		sq_stmt_again(&s);
		sq_stmt_bind(&s, "i", earlier << SQ_CHUNK_BITS | n);
		if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
			return e->code;
		*equal = false;
		if (step == SQ_ROW && chunk_equals(in, n, sq_col_str(&s, 0), equal, e) != SQ_OK)
			return e->code;
	}
	return SQ_OK;
}

/* Only where content is gone and a hash is all there is to compare with. */
static enum sq_err
hash_content(struct sq_ingest *in, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SHA2_CTX ctx;
	SQ_STMT(s, in->q, SQL_CONTENT_GET);

	if (in->hashed)
		return SQ_OK;
	SHA256Init(&ctx);
	for (int64_t n = 0; n < in->chunks; n++) {
		struct sq_str data;

		sq_stmt_again(&s);
		sq_stmt_bind(&s, "i", in->id << SQ_CHUNK_BITS | n);
		switch (sq_stmt_step(&s, e)) {
		case SQ_ROW:
			break;
		case SQ_DONE:
			return sq_error_set(err, SQ_ECORRUPT, "queue '%s' lost a part of this submission", in->q->path);
		case SQ_FAILED:
			return e->code;
		}
		data = sq_col_str(&s, 0);
		SHA256Update(&ctx, (const uint8_t *)data.p, data.n);
	}
	if (in->pending.n > 0)
		SHA256Update(&ctx, (const uint8_t *)in->pending.p, in->pending.n);
	SHA256Final(in->sha256, &ctx);
	in->hashed = true;
	return SQ_OK;
}

struct earlier {
	int64_t id;
	bool stored, hash_known;
	uint8_t sha256[32];
};

static enum sq_err
same_content(struct sq_ingest *in, const struct earlier *m, bool *equal, struct sq_error *err)
{
	enum sq_err e;

	for (size_t i = 0; i < in->n_compared; i++)
		if (in->compared[i].id == m->id) {
			*equal = in->compared[i].equal;
			return SQ_OK;
		}
	*equal = false;
	if (m->stored) {
		if ((e = compare_stored(in, m->id, equal, err)) != SQ_OK)
			return e;
	} else if (m->hash_known) {
		if ((e = hash_content(in, err)) != SQ_OK)
			return e;
		*equal = memcmp(in->sha256, m->sha256, sizeof(in->sha256)) == 0;
	}
	if (in->n_compared < SQ_COMPARED_MAX) {
		in->compared[in->n_compared].id = m->id;
		in->compared[in->n_compared++].equal = *equal;
	}
	return SQ_OK;
}

struct ingest_view { const struct sq_submission *s; bool *left_out; const struct sq_new_recipient **sorted; };

static int
by_address(const void *a, const void *b)
{
	const struct sq_new_recipient *const *x = a, *const *y = b;
	int d = sq_address_cmp((*x)->address, (*y)->address);

	return d ? d : (*x < *y ? -1 : *x > *y);
}

/* Those of our recipients which the earlier message has, in a state that counts. */
static enum sq_err
match_recipients(struct sq_queue *q, int64_t earlier, struct ingest_view *v, struct sq_submitted *out, struct sq_error *err)
{
	/* Not removed, failed or expired: sending those again is an intention. */
	static const unsigned counts = 1u << SQ_STATE_QUEUED | 1u << SQ_STATE_SENDING | 1u << SQ_STATE_COMMITTING |
		1u << SQ_STATE_HELD | 1u << SQ_STATE_DOUBT | 1u << SQ_STATE_SENT;
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_MESSAGE_RECIPIENTS);

	sq_stmt_bind(&s, "i", earlier);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		struct sq_str address = sq_col_str(&s, 1);
		size_t low = 0, high = v->s->n_recipients;

		if (!(counts & 1u << sq_col(&s, 2)))
			continue;
		while (low < high) {
			size_t mid = low + (high - low) / 2;

			if (sq_address_cmp(v->sorted[mid]->address, address) < 0)
				low = mid + 1;
			else
				high = mid;
		}
		for (; low < v->s->n_recipients && sq_address_eq(v->sorted[low]->address, address); low++) {
			bool *left_out = &v->left_out[v->sorted[low] - v->s->recipients];

			out->n_duplicates += !*left_out;
			*left_out = true;
			if (out->same_as.v == 0)
				out->same_as.v = earlier;
		}
	}
	return step == SQ_DONE ? SQ_OK : e->code;
}

/* Earlier messages with this Message-ID and size. With v NULL only the contents are compared, ahead of the transaction. */
static enum sq_err
find_duplicates(struct sq_ingest *in, const struct sq_submission *s, struct ingest_view *v, struct sq_submitted *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(same, in->q, SQL_SAME_MID);

	sq_stmt_bind(&same, "itii", sq_hash64(s->message_id), s->message_id, (int64_t)in->size, s->submitted_ms - s->duplicate_window_ms);
	while ((step = sq_stmt_step(&same, e)) == SQ_ROW) {
		struct sq_str hash = sq_col_str(&same, 2);
		struct earlier m = { .id = sq_col(&same, 0), .stored = sq_col(&same, 1) != 0, .hash_known = hash.n == sizeof(m.sha256) };
		bool equal;

		if (m.hash_known)
			memcpy(m.sha256, hash.p, sizeof(m.sha256));
		if (same_content(in, &m, &equal, e) != SQ_OK || (equal && v && match_recipients(in->q, m.id, v, out, e) != SQ_OK))
			return e->code;
	}
	return step == SQ_DONE ? SQ_OK : e->code;
}

/* ---- the rows ---- */

static enum sq_err
check_room(struct sq_ingest *in, const struct sq_submission *s, struct sq_error *err)
{
	int64_t pages = 0, free_pages = 0;
	enum sq_err e;

	if (s->queue_size_max <= 0)
		return SQ_OK;
	if ((e = sq_db_int(in->q, SQL_PAGE_COUNT, &pages, err)) != SQ_OK || (e = sq_db_int(in->q, SQL_FREE_PAGES, &free_pages, err)) != SQ_OK)
		return e;
	/* What was stored ahead of this transaction is counted by the pages already. */
	if ((pages - free_pages) * 4096 + (int64_t)in->pending.n > s->queue_size_max)
		return sq_error_set(err, SQ_ENOSPC, "queue '%s' is full: it holds %lld MB of the %lld MB that `queue_size_max` allows",
			in->q->path, (long long)((pages - free_pages) * 4096 / 1000000), (long long)(s->queue_size_max / 1000000));
	return SQ_OK;
}

static enum sq_err
add_message(struct sq_ingest *in, const struct sq_submission *s, int64_t id, int64_t route, struct sq_error *err)
{
	SQ_STMT(m, in->q, SQL_MESSAGE_ADD);

	sq_stmt_bind(&m, "ititttiziiiitiiiiii", id, s->message_id, sq_hash64(s->message_id), s->sender, s->header_from, s->subject, route,
		s->source, s->uid, (int64_t)in->size, (int64_t)s->flags, (int64_t)s->ret, s->envid, (int64_t)s->priority,
		(int64_t)s->auto_submitted, s->submitted_ms, s->not_before_ms, s->expires_ms,
		(int64_t)s->duplicates);
	return sq_stmt_run(&m, err);
}

static enum sq_err
add_recipients(struct sq_queue *q, const struct sq_submission *s, const bool *left_out, int64_t id, int64_t route, struct sq_error *err)
{
	int64_t due_ms = s->not_before_ms > s->submitted_ms ? s->not_before_ms : s->submitted_ms;
	int64_t rowid = id << 16;
	enum sq_err e;
	SQ_STMT(st, q, SQL_RECIPIENT_ADD);

	for (size_t i = 0; i < s->n_recipients; i++) {
		const struct sq_new_recipient *r = &s->recipients[i];

		if (left_out && left_out[i])
			continue;
		sq_stmt_again(&st);
		sq_stmt_bind(&st, "ittiiiiiii", rowid++, r->address, r->orcpt, (int64_t)r->notify,
			(int64_t)(s->hold ? SQ_STATE_HELD : SQ_STATE_QUEUED), s->submitted_ms, route, (int64_t)s->priority,
			s->hold ? INT64_C(0) : due_ms, s->expires_ms);
		if ((e = sq_stmt_run(&st, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

/* Chunks that were committed ahead are counted: a message is never made of fewer octets than were taken in. */
static enum sq_err
finish_content(struct sq_ingest *in, int64_t id, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t stored = 0;

	if (in->pending.n > 0 && sq_content_add(in->q, id, in->chunks, (struct sq_str){ in->pending.p, in->pending.n }, e) != SQ_OK)
		return e->code;
	if (in->id == 0)
		return SQ_OK;
	{
		SQ_STMT(size, in->q, SQL_CONTENT_SIZE);
		sq_stmt_bind(&size, "i", id);
		if (sq_stmt_step(&size, e) != SQ_ROW)
			return e->code;
		stored = sq_col(&size, 0);
	}
	if ((uint64_t)stored != in->size)
		return sq_error_set(err, SQ_ECORRUPT, "queue '%s' lost a part of this submission: %lld of %llu octets are there",
			in->q->path, (long long)stored, (unsigned long long)in->size);

	SQ_STMT(done, in->q, SQL_INGEST_DELETE);
	sq_stmt_bind(&done, "i", in->id);
	return sq_stmt_run(&done, err);
}

static enum sq_err
submit(struct sq_ingest *in, const struct sq_submission *s, struct ingest_view *v, struct sq_submitted *out, struct sq_error *err)
{
	int64_t id = in->id, route = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, in->q, true, __func__, err)) != SQ_OK)
		return e;
	if (v->sorted && (e = find_duplicates(in, s, v, out, err)) != SQ_OK)
		return e;
	if (out->n_duplicates == s->n_recipients)
		return SQ_OK;
	if ((e = check_room(in, s, err)) != SQ_OK || (e = sq_route_id(in->q, s->route, true, &route, err)) != SQ_OK)
		return e;
	if (id == 0 && (e = sq_db_int(in->q, SQL_NEXT_ID, &id, err)) != SQ_OK)
		return e;
	if ((e = add_message(in, s, id, route, err)) != SQ_OK ||
	    (e = add_recipients(in->q, s, v->left_out, id, route, err)) != SQ_OK ||
	    (e = finish_content(in, id, err)) != SQ_OK)
		return e;
	out->id.v = id;
	tx.submission = true;
	return sq_tx_commit(&tx, err);
}

static enum sq_err
check_submission(const struct sq_ingest *in, const struct sq_submission *s, struct sq_error *err)
{
	if (in->failed)
		return sq_error_set(err, in->failed, "a part of the message could not be stored");
	if (s->n_recipients == 0 || s->n_recipients > SQ_RECIPIENTS_MAX)
		return sq_error_set(err, s->n_recipients ? SQ_ELIMIT : SQ_EINVAL, "a message has 1 to %d recipients, not %zu", SQ_RECIPIENTS_MAX, s->n_recipients);
	if (s->priority < -SQ_PRIORITY_MAX || s->priority > SQ_PRIORITY_MAX)
		return sq_error_set(err, SQ_EINVAL, "priority %d is not between -%d and %d", s->priority, SQ_PRIORITY_MAX, SQ_PRIORITY_MAX);
	return SQ_OK;
}

enum sq_err
sq_ingest_commit(struct sq_ingest *in, const struct sq_submission *s, struct sq_submitted *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) const struct sq_new_recipient **sorted = NULL;
	SQ_CLEANUP(sq_freep) bool *left_out = NULL;
	struct sq_submitted done = { 0 };
	struct ingest_view v = { .s = s };
	enum sq_err e = check_submission(in, s, err);

	if (e == SQ_OK && s->duplicate_window_ms > 0 && s->message_id.n > 0) {
		sorted = calloc(s->n_recipients, sizeof(*sorted));
		left_out = calloc(s->n_recipients, sizeof(*left_out));
		if (!sorted || !left_out)
			e = sq_error_set(err, SQ_ENOMEM, "out of memory");
		for (size_t i = 0; e == SQ_OK && i < s->n_recipients; i++)
			sorted[i] = &s->recipients[i];
		if (e == SQ_OK) {
			qsort(sorted, s->n_recipients, sizeof(*sorted), by_address);
			v.sorted = sorted;
			v.left_out = left_out;
		}
		/* Large content is compared before the write lock is taken: stored content does not change. */
		if (e == SQ_OK && in->chunks > 0)
			e = find_duplicates(in, s, NULL, NULL, err);
	}
	if (e == SQ_OK)
		e = submit(in, s, &v, &done, err);
	if (e == SQ_OK || e == SQ_ECOMMIT)
		*out = done;
	if ((e == SQ_OK && done.id.v) || e == SQ_ECOMMIT)
		sq_ingest_free(in);
	else
		sq_ingest_abort(in);
	return e;
}

enum sq_err
sq_queue_open_of(struct sq_queue *q, int64_t uid, int64_t *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_OPEN_OF);

	sq_stmt_bind(&s, "i", uid);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	*out = sq_col(&s, 0);
	return SQ_OK;
}
