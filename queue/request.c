/*
 * Wishes of people, written by the status program and carried out by whoever
 * holds the runner lock. Rows only: nothing here acts on a message.
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

/* "at deadline utf8\nto\ninstead of": neither address holds a line end. */
static void
write_edit(const struct sq_edit *e, struct sq_buf *out)
{
	sq_buf_addf(out, "%lld %lld %d\n%s\n%s", (long long)e->at_ms, (long long)e->deadline_ms, (int)e->utf8, e->to, e->instead_of);
}

static void
read_edit(struct sq_str s, struct sq_edit *out)
{
	char line[64];
	long long at = 0, deadline = 0;
	int utf8 = 0;
	const char *lf = s.n > 0 ? memchr(s.p, '\n', s.n) : NULL, *second;

	if (!lf)
		return;
	copy_text(line, sizeof(line), (struct sq_str){ s.p, (size_t)(lf - s.p) });
	if (sscanf(line, "%lld %lld %d", &at, &deadline, &utf8) != 3)
		return;
	*out = (struct sq_edit){ .at_ms = at, .deadline_ms = deadline, .utf8 = utf8 != 0 };
	s = (struct sq_str){ lf + 1, s.n - (size_t)(lf + 1 - s.p) };
	if (!(second = s.n > 0 ? memchr(s.p, '\n', s.n) : NULL))
		return;
	copy_text(out->to, sizeof(out->to), (struct sq_str){ s.p, (size_t)(second - s.p) });
	copy_text(out->instead_of, sizeof(out->instead_of), (struct sq_str){ second + 1, s.n - (size_t)(second + 1 - s.p) });
}

static void
read_row(struct sq_stmt *s, struct sq_request *r)
{
	*r = (struct sq_request){
		.id = sq_col(s, 0), .kind = (enum sq_request_kind)sq_col(s, 1), .message = { sq_col(s, 2) },
		.asked_ms = sq_col(s, 4), .done_ms = sq_col(s, 5), .ok = sq_col(s, 6) != 0,
		.number = sq_col(s, 8), .code = (int)sq_col(s, 9),
	};
	copy_text(r->address, sizeof(r->address), sq_col_str(s, 3));
	copy_text(r->result, sizeof(r->result), sq_col_str(s, 7));
	copy_text(r->enhanced, sizeof(r->enhanced), sq_col_str(s, 10));
	copy_text(r->words, sizeof(r->words), sq_col_str(s, 11));
	if (r->kind == SQ_REQUEST_EDIT)
		read_edit(sq_col_str(s, 12), &r->edit);
}

enum sq_err
sq_queue_request_put(struct sq_queue *q, const struct sq_request *r, int64_t *out_id, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t id = 0;
	enum sq_err code;
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(2 * SQ_ADDRESS_MAX + 128);
	struct sq_str detail;
	SQ_TX(tx);

	if (r->kind < SQ_REQUEST_FLUSH || r->kind > SQ_REQUEST_RETRY || (r->message.v == 0 && r->kind != SQ_REQUEST_FLUSH && r->kind != SQ_REQUEST_FORGET))
		return sq_error_set(err, SQ_EINVAL, "a request needs a message");
	if (q->restricted && (r->kind == SQ_REQUEST_FLUSH || r->message.v == 0))
		return sq_error_set(err, SQ_EPERM, "this is not for everybody: it concerns messages of others too");
	if (r->message.v && (code = sq_message_visible(q, r->message, err)) != SQ_OK)
		return code;
	if (strchr(r->edit.to, '\n') || strchr(r->edit.instead_of, '\n'))
		return sq_error_set(err, SQ_EINVAL, "an address holds a line end");
	if (r->kind == SQ_REQUEST_EDIT)
		write_edit(&r->edit, &b);
	if ((code = sq_buf_view(&b, &detail, err)) != SQ_OK)
		return code;
	if (!detail.p)
		detail = SQ_STR("");
	if ((code = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
		return code;
	{
		SQ_STMT(s, q, SQL_REQUEST_ADD);
		sq_stmt_bind(&s, "iiziiizzt", (int64_t)r->kind, r->message.v, r->address, r->asked_ms, r->number, (int64_t)r->code, r->enhanced, r->words, detail);
		if (sq_stmt_step(&s, e) != SQ_ROW)
			return e->code;
		id = sq_col(&s, 0);
		if ((code = sq_stmt_run(&s, err)) != SQ_OK)
			return code;
	}
	if ((code = sq_tx_commit(&tx, err)) != SQ_OK)
		return code;
	*out_id = id;
	return SQ_OK;
}

enum sq_err
sq_queue_request_add(struct sq_queue *q, enum sq_request_kind kind, struct sq_message_id m, const char *address, int64_t now_ms, int64_t *out_id, struct sq_error *err)
{
	struct sq_request r = { .kind = kind, .message = m, .asked_ms = now_ms };

	if (address && strlen(address) >= sizeof(r.address))
		return sq_error_set(err, SQ_ELIMIT, "the address is longer than %d octets", SQ_ADDRESS_MAX - 1);
	if (kind == SQ_REQUEST_EDIT)
		return sq_error_set(err, SQ_EINVAL, "an edit needs its values");
	copy_text(r.address, sizeof(r.address), sq_str(address));
	return sq_queue_request_put(q, &r, out_id, err);
}

enum sq_err
sq_queue_request_get(struct sq_queue *q, int64_t id, struct sq_request *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_REQUEST_GET);

	sq_stmt_bind(&s, "i", id);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE)
		return sq_error_set(err, SQ_ENOENT, "there is no request %lld", (long long)id);
	read_row(&s, out);
	return SQ_OK;
}

enum sq_err
sq_queue_request_next(struct sq_queue *q, int64_t after, struct sq_request *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_REQUEST_NEXT);

	sq_stmt_bind(&s, "i", after);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE)
		return sq_error_set(err, SQ_ENOENT, "there is no request to carry out");
	read_row(&s, out);
	return SQ_OK;
}

enum sq_err
sq_queue_request_done(struct sq_queue *q, int64_t id, bool ok, const char *result, int64_t now_ms, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_REQUEST_DONE);
		sq_stmt_bind(&s, "iiiz", id, now_ms > 0 ? now_ms : INT64_C(1), (int64_t)ok, result ? result : "");
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	if (sqlite3_changes(q->db) == 0)
		return sq_error_set(err, SQ_ENOENT, "request %lld is not waiting", (long long)id);
	return sq_tx_commit(&tx, err);
}
