/*
 * What is being done about messages in doubt: rows as the runner gives them.
 * Which answer means what is decided elsewhere.
 */
#include "db.h"

static void
copy_text(char *out, size_t size, struct sq_str s)
{
	size_t n = s.n < size ? s.n : size - 1;

	if (n)
		memcpy(out, s.p, n);
	out[n] = '\0';
}

static void
read_row(struct sq_stmt *s, struct sq_doubt *d)
{
	*d = (struct sq_doubt){
		.id = { sq_col(s, 0) }, .size = (uint64_t)sq_col(s, 2), .submitted_ms = sq_col(s, 3), .expires_ms = sq_col(s, 4),
		.auto_submitted = sq_col(s, 5) != 0, .since_ms = sq_col(s, 7), .told_ms = sq_col(s, 8), .recipients = (int)sq_col(s, 18),
		.duplicates = (enum sq_own_duplicates)sq_col(s, 19), .resumable = sq_col(s, 20) != 0,
	};
	copy_text(d->message_id, sizeof(d->message_id), sq_col_str(s, 1));
	copy_text(d->submitted_by, sizeof(d->submitted_by), sq_col_str(s, 6));
	if (sq_col(s, 9) != d->since_ms)
		return; /* none, or of an earlier doubt */
	d->usable_ms = sq_col(s, 10);
	d->asked = (int)sq_col(s, 11);
	d->next_ask_ms = sq_col(s, 12);
	d->negatives = (int)sq_col(s, 13);
	if (sq_col(s, 14) > 0 && d->told_ms > 0)
		d->told_ms = sq_col(s, 14);
	copy_text(d->source, sizeof(d->source), sq_col_str(s, 15));
	d->answer = (enum sq_evidence_kind)sq_col(s, 16);
	copy_text(d->quote, sizeof(d->quote), sq_col_str(s, 17));
}

/* All rows first: what is done about one writes to the tables that are read here. */
enum sq_err
sq_queue_doubts(struct sq_queue *q, const char *route, struct sq_message_id id, void (*each)(void *arg, const struct sq_doubt *d), void *arg, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_CLEANUP(sq_freep) struct sq_doubt *rows = NULL;
	enum sq_step step;
	int64_t number = 0;
	size_t n = 0;
	enum sq_err found = sq_route_id(q, route, false, &number, err);

	if (found == SQ_ENOENT)
		return SQ_OK;
	if (found != SQ_OK)
		return found;
	{
		SQ_STMT(s, q, SQL_DOUBTS);

		sq_stmt_bind(&s, "ii", number, id.v);
		while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
			if ((n & (n - 1)) == 0) {
				struct sq_doubt *more = reallocarray(rows, n ? 2 * n : 1, sizeof(*more));

				if (!more)
					return sq_error_set(err, SQ_ENOMEM, "out of memory");
				rows = more;
			}
			read_row(&s, &rows[n++]);
		}
		if (step == SQ_FAILED)
			return e->code;
	}
	for (size_t i = 0; i < n; i++)
		each(arg, &rows[i]);
	return SQ_OK;
}

enum sq_err
sq_queue_doubt_put(struct sq_queue *q, const struct sq_doubt *d, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_DOUBT_PUT);

		sq_stmt_bind(&s, "iiiiiiiziz", d->id.v, d->since_ms, d->usable_ms, (int64_t)d->asked, d->next_ask_ms,
			(int64_t)d->negatives, d->told_ms, d->source, (int64_t)d->answer, d->quote);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}
