/*
 * The wrapper around SQLite: statements borrowed by name, transactions that
 * know who opened them, batches, and the one translation of SQLite's results
 * into errors. It knows no table. Errors quote SQL with its '?', never values.
 */
#include "db.h"

#include <errno.h>

/* ---- errors ---- */

static enum sq_err
code_of(struct sq_queue *q, int rc)
{
	int sys = q->db ? sqlite3_system_errno(q->db) : 0;

	switch (rc & 0xff) {
	case SQLITE_NOMEM:
		return SQ_ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return SQ_EBUSY;
	case SQLITE_FULL:
		return SQ_ENOSPC;
	case SQLITE_IOERR:
		/* Quotas and file size limits are "disk full" for a person, though not for SQLite. */
		return rc == SQLITE_IOERR_WRITE && (sys == ENOSPC || sys == EDQUOT || sys == EFBIG) ? SQ_ENOSPC : SQ_EIO;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return SQ_ECORRUPT;
	case SQLITE_PERM:
	case SQLITE_READONLY:
	case SQLITE_AUTH:
		return SQ_EPERM;
	case SQLITE_CANTOPEN:
		return sys == EACCES || sys == EROFS ? SQ_EPERM : sys == ENOSPC || sys == EDQUOT ? SQ_ENOSPC : SQ_EIO;
	case SQLITE_TOOBIG:
		return SQ_ELIMIT;
	default:
		return SQ_EIO;
	}
}

enum sq_err
sq_db_error(struct sq_queue *q, int rc, const char *what, struct sq_error *err)
{
	enum sq_err code = code_of(q, rc);
	int sys = q->db ? sqlite3_system_errno(q->db) : 0;
	bool file = (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN || (rc & 0xff) == SQLITE_FULL;

	if (code == SQ_ECORRUPT && (rc & 0xff) == SQLITE_NOTADB)
		sq_error_set(err, code, "'%s' is not a database", q->path);
	else if (code == SQ_EBUSY)
		sq_error_set(err, code, "queue '%s' is busy: another program has been writing to it for too long", q->path);
	else if (code == SQ_ENOSPC)
		sq_error_set(err, code, "no room for queue '%s': %s", q->path, sys ? strerror(sys) : "disk full");
	else
		sq_error_set(err, code, "queue '%s': %s%s%s (%s)", q->path, sqlite3_errstr(rc), file && sys ? ": " : "", file && sys ? strerror(sys) : "", what);
	if (err)
		err->sys = rc;
	return code;
}

static enum sq_err
closed(struct sq_queue *q, struct sq_error *err)
{
	return sq_error_set(err, SQ_EIO, "queue '%s' was closed after a disk error and must be opened anew", q->path);
}

/* ---- statements ---- */

struct sq_stmt
sq_stmt_borrow(struct sq_queue *q, enum sq_sql id, const char *user)
{
	struct sq_stmt s = { .q = q, .id = id, .rc = SQLITE_OK };

	if (q->slot[id].user)
		sq_bug("%s wants statement %d, which %s holds", user, (int)id, q->slot[id].user);
	if (!q->db) {
		s.rc = SQLITE_MISUSE;
		return s;
	}
	if (!q->slot[id].st)
		s.rc = sqlite3_prepare_v3(q->db, sq_sql_text(id), -1, SQLITE_PREPARE_PERSISTENT, &q->slot[id].st, NULL);
	s.st = q->slot[id].st;
	q->slot[id].user = user;
	return s;
}

void
sq_stmt_return(struct sq_stmt *s)
{
	if (s->q->slot[s->id].st) {
		sqlite3_reset(s->q->slot[s->id].st);
		sqlite3_clear_bindings(s->q->slot[s->id].st);
	}
	s->q->slot[s->id].user = NULL;
}

void
sq_stmt_again(struct sq_stmt *s)
{
	if (s->st)
		sqlite3_reset(s->st);
	/* A row that was not the last is no failure: the next values must be bound. */
	if (s->rc == SQLITE_ROW)
		s->rc = SQLITE_OK;
}

static int
bind_text(struct sq_stmt *s, int i, struct sq_str t)
{
	return sqlite3_bind_text64(s->st, i, t.p ? t.p : "", t.n, SQLITE_STATIC, SQLITE_UTF8);
}

void
sq_stmt_bind(struct sq_stmt *s, const char *kinds, ...)
{
	va_list ap;

	va_start(ap, kinds);
	for (int i = 1; kinds[i - 1] && s->rc == SQLITE_OK; i++) {
		switch (kinds[i - 1]) {
		case 'i':
			s->rc = sqlite3_bind_int64(s->st, i, va_arg(ap, int64_t));
			break;
		case 'd':
			s->rc = sqlite3_bind_double(s->st, i, va_arg(ap, double));
			break;
		case 't':
			s->rc = bind_text(s, i, va_arg(ap, struct sq_str));
			break;
		case 'z': {
			const char *z = va_arg(ap, const char *);

			s->rc = z ? bind_text(s, i, sq_str(z)) : sqlite3_bind_null(s->st, i);
			break;
		}
		case 'b': {
			const void *p = va_arg(ap, const void *);
			size_t n = va_arg(ap, size_t);

			s->rc = p ? sqlite3_bind_blob64(s->st, i, p, n, SQLITE_STATIC) : sqlite3_bind_null(s->st, i);
			break;
		}
		default:
			sq_bug("unknown kind '%c' of a value", kinds[i - 1]);
		}
	}
	va_end(ap);
}

enum sq_step
sq_stmt_step(struct sq_stmt *s, struct sq_error *err)
{
	if (!s->q->db) {
		closed(s->q, err);
		return SQ_FAILED;
	}
	if (s->rc == SQLITE_OK || s->rc == SQLITE_ROW)
		s->rc = sqlite3_step(s->st);
	if (s->rc == SQLITE_ROW)
		return SQ_ROW;
	if (s->rc == SQLITE_DONE) {
		s->rc = SQLITE_OK;
		return SQ_DONE;
	}
	sq_db_error(s->q, s->rc, sq_sql_text(s->id), err);
	return SQ_FAILED;
}

enum sq_err
sq_stmt_run(struct sq_stmt *s, struct sq_error *err)
{
	struct sq_error scratch, *e = err ? err : &scratch;
	enum sq_step step;

	while ((step = sq_stmt_step(s, e)) == SQ_ROW)
		;
	return step == SQ_DONE ? SQ_OK : e->code;
}

struct sq_str
sq_col_str(struct sq_stmt *s, int i)
{
	const char *p = sqlite3_column_blob(s->st, i);

	return (struct sq_str){ p, (size_t)sqlite3_column_bytes(s->st, i) };
}

char *
sq_col_dup(struct sq_stmt *s, int i)
{
	return sq_str_dup(sq_col_str(s, i));
}

enum sq_err
sq_db_int(struct sq_queue *q, enum sq_sql id, int64_t *out, struct sq_error *err)
{
	struct sq_error scratch, *e = err ? err : &scratch;
	SQ_STMT(s, q, id);

	switch (sq_stmt_step(&s, e)) {
	case SQ_ROW:
		*out = sq_col(&s, 0);
		return SQ_OK;
	case SQ_DONE:
		*out = 0;
		return SQ_OK;
	case SQ_FAILED:
		break;
	}
	return e->code;
}

enum sq_err
sq_db_exec(struct sq_queue *q, const char *sql, struct sq_error *err)
{
	int rc = sqlite3_exec(q->db, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? SQ_OK : sq_db_error(q, rc, "setting up", err);
}

/* ---- transactions ---- */

static enum sq_err
run(struct sq_queue *q, enum sq_sql id, struct sq_error *err)
{
	SQ_STMT(s, q, id);

	return sq_stmt_run(&s, err);
}

static enum sq_err
begin(struct sq_queue *q, bool durable, const char *who, struct sq_error *err)
{
	enum sq_err e;

	if (!q->db)
		return closed(q, err);
	if (q->writer)
		sq_bug("%s begins inside the transaction of %s", who, q->writer);
	/* Inside a transaction the setting cannot be changed, so it is set before. */
	if (q->full != durable) {
		if ((e = run(q, durable ? SQL_SYNC_FULL : SQL_SYNC_NORMAL, err)) != SQ_OK)
			return e;
		q->full = durable;
	}
	if ((e = run(q, SQL_BEGIN_WRITE, err)) == SQ_OK)
		q->writer = who;
	return e;
}

static void
rollback(struct sq_queue *q)
{
	if (q->db && !sqlite3_get_autocommit(q->db))
		(void)!run(q, SQL_ROLLBACK, NULL);
	q->writer = NULL;
}

/*
 * The disk failed inside the commit: whether its frames reached the disk is
 * unknown, and this handle's view of the log can no longer be trusted.
 */
static enum sq_err
commit_failed(struct sq_queue *q, enum sq_err e, struct sq_error *err)
{
	rollback(q);
	if (e != SQ_EIO)
		return e;
	for (size_t i = 0; i < SQL_COUNT; i++) {
		sqlite3_finalize(q->slot[i].st);
		q->slot[i].st = NULL;
	}
	sqlite3_db_config(q->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_close(q->db);
	q->db = NULL;
	if (err)
		err->code = SQ_ECOMMIT;
	return SQ_ECOMMIT;
}

static enum sq_err
commit(struct sq_queue *q, struct sq_error *err)
{
	enum sq_err e = run(q, SQL_COMMIT, err);

	if (e != SQ_OK)
		return commit_failed(q, e, err);
	q->writer = NULL;
	return SQ_OK;
}

/* Only a submission tells its caller that it may have happened; others open anew and look. */
static enum sq_err
as_eio(struct sq_error *err)
{
	if (err)
		err->code = SQ_EIO;
	return SQ_EIO;
}

enum sq_err
sq_tx_begin(struct sq_tx *tx, struct sq_queue *q, bool durable, const char *who, struct sq_error *err)
{
	enum sq_err e;

	if (q->batch) {
		if (q->batch_failed)
			return sq_error_set(err, q->batch_failed, "an earlier change of the same batch failed: nothing of it is kept");
		tx->joined = true;
	} else if ((e = begin(q, durable, who, err)) != SQ_OK) {
		return e;
	}
	tx->changes = sqlite3_total_changes64(q->db);
	tx->q = q;
	return SQ_OK;
}

enum sq_err
sq_tx_read(struct sq_tx *tx, struct sq_queue *q, const char *who, struct sq_error *err)
{
	enum sq_err e;

	if (!q->db)
		return closed(q, err);
	if (q->batch && q->batch_failed)
		return sq_error_set(err, q->batch_failed, "an earlier change of the same batch failed: nothing of it is kept");
	tx->reading = true;
	if (q->writer) {
		tx->joined = true;
	} else {
		if ((e = run(q, SQL_BEGIN_READ, err)) != SQ_OK)
			return e;
		q->writer = who;
	}
	tx->q = q;
	return SQ_OK;
}

enum sq_err
sq_tx_commit(struct sq_tx *tx, struct sq_error *err)
{
	struct sq_queue *q = tx->q;
	enum sq_err e;

	tx->q = NULL;
	if (tx->joined)
		return SQ_OK;
	e = commit(q, err);
	return e == SQ_ECOMMIT && !tx->submission ? as_eio(err) : e;
}

void
sq_tx_leave(struct sq_tx *tx)
{
	struct sq_queue *q = tx->q;

	tx->q = NULL;
	if (!q)
		return;
	if (!tx->joined) {
		rollback(q);
		return;
	}
	/* A reader changes nothing; SQLite itself rolls back after some failures. */
	if (q->batch && q->db && (sqlite3_get_autocommit(q->db) || (!tx->reading && sqlite3_total_changes64(q->db) != tx->changes))) {
		rollback(q);
		q->batch_failed = SQ_EIO;
	}
}

enum sq_err
sq_queue_batch_begin(struct sq_queue *q, bool durable, struct sq_error *err)
{
	enum sq_err e;

	if (q->batch)
		sq_bug("a batch inside a batch");
	if ((e = begin(q, durable, __func__, err)) != SQ_OK)
		return e;
	q->batch = true;
	q->batch_failed = SQ_OK;
	return SQ_OK;
}

enum sq_err
sq_queue_batch_commit(struct sq_queue *q, struct sq_error *err)
{
	enum sq_err failed = q->batch_failed, e;

	if (!q->batch)
		sq_bug("the commit of a batch that was not begun");
	q->batch = false;
	q->batch_failed = SQ_OK;
	if (failed)
		return sq_error_set(err, failed, "a change of the batch failed: nothing of it is kept");
	e = commit(q, err);
	return e == SQ_ECOMMIT ? as_eio(err) : e;
}
