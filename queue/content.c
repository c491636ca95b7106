/*
 * The octets of messages: chunks written while a submission reads its input,
 * the lock that tells a live ingest from one whose process died, reading and
 * deleting. A message knows nothing of its chunks but their number.
 *
 * Up to one chunk is kept in memory until the submission's own transaction.
 * The ingest's id becomes the message's, so its chunks need not be touched again.
 */
#include "ingest.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

/* ---- the lock ---- */

/* An open file description lock on the octet that the id names; other locks of this process do not matter. */
/* No id is so high: whoever waits for the write lock holds this octet while it sleeps. */
enum { POLITE_CHUNKS = 50 };
#define WAITING_ROOM (INT64_C(1) << 62)

static int
lock_octet(int fd, int64_t id)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)id, .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &l);
}

void
sq_queue_waits(struct sq_queue *q, bool waits)
{
	struct flock l = { .l_type = waits ? F_RDLCK : F_UNLCK, .l_whence = SEEK_SET, .l_start = WAITING_ROOM, .l_len = 1 };

	if (q->waiting_fd < 0) {
		SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(q->path, ".ingest");

		/* Where no large message was ever written there is no such file, and nobody to wait for so long. */
		q->waiting_fd = path && waits ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	}
	if (q->waiting_fd >= 0)
		(void)fcntl(q->waiting_fd, F_OFD_SETLK, &l);
}

static bool
somebody_waits(int fd)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = WAITING_ROOM, .l_len = 1 };

	return fcntl(fd, F_OFD_GETLK, &l) < 0 || l.l_type != F_UNLCK;
}

static int
open_locks(struct sq_queue *q, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(q->path, ".ingest");
	int fd;

	if (!path) {
		sq_error_set(err, SQ_ENOMEM, "out of memory");
		return -1;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fchmod(fd, 0600) < 0) {
		sq_error_errno(err, SQ_EIO, "cannot open '%s'", path);
		sq_closep(&fd);
		return -1;
	}
	return fd;
}

/* ---- writing ---- */

enum sq_err
sq_ingest_begin(struct sq_queue *q, struct sq_ingest **out, struct sq_error *err)
{
	struct sq_ingest *in = calloc(1, sizeof(*in));

	if (!in)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	in->q = q;
	in->lock_fd = -1;
	in->pending = (struct sq_buf)SQ_BUF_INIT(SQ_CHUNK);
	*out = in;
	return SQ_OK;
}

uint64_t
sq_ingest_size(const struct sq_ingest *in)
{
	return in->size;
}

enum sq_err
sq_content_add(struct sq_queue *q, int64_t id, int64_t chunk, struct sq_str data, struct sq_error *err)
{
	SQ_STMT(s, q, SQL_CONTENT_ADD);

	if (chunk >= 1 << SQ_CHUNK_BITS)
		return sq_error_set(err, SQ_ELIMIT, "message is too large for a queue");
	sq_stmt_bind(&s, "ib", id << SQ_CHUNK_BITS | chunk, (const void *)data.p, data.n);
	return sq_stmt_run(&s, err);
}

/* Take an id and say that its chunks belong to somebody alive: the lock stands before the row is seen. */
static enum sq_err
register_ingest(struct sq_ingest *in, struct sq_error *err)
{
	int64_t id = 0;
	enum sq_err e;

	if (in->lock_fd < 0 && (in->lock_fd = open_locks(in->q, SQ_ERR(err))) < 0)
		return SQ_EIO;
	if ((e = sq_db_int(in->q, SQL_NEXT_ID, &id, err)) != SQ_OK)
		return e;
	if (lock_octet(in->lock_fd, id) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot lock '%s.ingest'", in->q->path);

	SQ_STMT(s, in->q, SQL_INGEST_ADD);
	sq_stmt_bind(&s, "i", id);
	if ((e = sq_stmt_run(&s, err)) == SQ_OK)
		in->id = id;
	return e;
}

/* One full chunk, in a transaction of its own; not durable yet, the submission's commit makes it so. */
static enum sq_err
store_chunk(struct sq_ingest *in, struct sq_error *err)
{
	int64_t had = in->id;
	enum sq_err e;

	{
		SQ_TX(tx);

		if ((e = sq_tx_begin(&tx, in->q, false, __func__, err)) != SQ_OK)
			return e;
		if ((had == 0 && (e = register_ingest(in, err)) != SQ_OK) ||
		    (e = sq_content_add(in->q, in->id, in->chunks, (struct sq_str){ in->pending.p, in->pending.n }, err)) != SQ_OK ||
		    (e = sq_tx_commit(&tx, err)) != SQ_OK) {
			in->id = had;
			return e;
		}
	}
	in->chunks++;
	sq_buf_clear(&in->pending);
	/* Others get their turn: without the pause their wait is ten times as long. Where one waited, more will come. */
	in->polite = somebody_waits(in->lock_fd) ? POLITE_CHUNKS : in->polite > 0 ? in->polite - 1 : 0;
	if (in->polite > 0)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return SQ_OK;
}

enum sq_err
sq_ingest_write(struct sq_ingest *in, const void *p, size_t n, struct sq_error *err)
{
	const char *from = p;

	if (in->failed)
		return sq_error_set(err, in->failed, "an earlier part of the message could not be stored");
	while (n > 0) {
		size_t room, take;

		if (in->pending.n == SQ_CHUNK && (in->failed = store_chunk(in, err)) != SQ_OK)
			return in->failed;
		room = SQ_CHUNK - in->pending.n;
		take = n < room ? n : room;
		sq_buf_add(&in->pending, from, take);
		if (in->pending.failed)
			return in->failed = sq_error_set(err, SQ_ENOMEM, "out of memory");
		from += take;
		n -= take;
		in->size += take;
	}
	return SQ_OK;
}

void
sq_ingest_free(struct sq_ingest *in)
{
	sq_closep(&in->lock_fd);
	sq_buf_fini(&in->pending);
	free(in);
}

/* Remove what was stored; if that fails the runner's sweep will, as the lock ends with us. */
void
sq_ingest_abort(struct sq_ingest *in)
{
	bool left = true;

	if (!in)
		return;
	while (in->id && left && in->q->db) {
		SQ_TX(tx);

		left = false;
		if (sq_tx_begin(&tx, in->q, false, __func__, NULL) != SQ_OK || sq_content_delete(in->q, in->id, &left, NULL) != SQ_OK)
			break;
		if (!left) {
			SQ_STMT(s, in->q, SQL_INGEST_DELETE);
			sq_stmt_bind(&s, "i", in->id);
			if (sq_stmt_run(&s, NULL) != SQ_OK)
				break;
		}
		if (sq_tx_commit(&tx, NULL) != SQ_OK)
			break;
	}
	sq_ingest_free(in);
}

/* ---- deleting ---- */

enum sq_err
sq_content_delete(struct sq_queue *q, int64_t id, bool *left, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t octets = 0;

	SQ_STMT(first, q, SQL_CONTENT_FIRST);
	SQ_STMT(del, q, SQL_CONTENT_DELETE);
	for (;;) {
		enum sq_step step;
		int64_t chunk, n;

		sq_stmt_again(&first);
		sq_stmt_bind(&first, "i", id);
		if ((step = sq_stmt_step(&first, e)) != SQ_ROW) {
			*left = false;
			return step == SQ_DONE ? SQ_OK : e->code;
		}
		if (octets >= SQ_SLICE)
			break;
		chunk = sq_col(&first, 0);
		n = sq_col(&first, 1);
		sq_stmt_again(&first);
		sq_stmt_again(&del);
		sq_stmt_bind(&del, "i", chunk);
		if (sq_stmt_run(&del, e) != SQ_OK)
			return e->code;
		octets += n;
	}
	*left = true;
	return SQ_OK;
}

/* One slice of the first ingest after *id whose owner is gone. */
static enum sq_err
sweep_one(struct sq_queue *q, int64_t *id, bool *found, bool *left, bool *swept, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_TX(tx);
	/* A new description each time: what it locks is let go when it closes. */
	SQ_CLEANUP(sq_closep) int fd = open_locks(q, e);
	enum sq_step step;

	*found = *left = *swept = false;
	if (fd < 0)
		return e->code;
	if (sq_tx_begin(&tx, q, false, __func__, e) != SQ_OK)
		return e->code;
	{
		SQ_STMT(s, q, SQL_INGEST_AFTER);
		sq_stmt_bind(&s, "i", *id);
		step = sq_stmt_step(&s, e);
		if (step == SQ_ROW)
			*id = sq_col(&s, 0);
	}
	if (step != SQ_ROW)
		return step == SQ_FAILED ? e->code : SQ_OK;
	*found = true;
	if (lock_octet(fd, *id) < 0)
		return errno == EAGAIN || errno == EACCES ? SQ_OK : sq_error_errno(err, SQ_EIO, "cannot lock '%s.ingest'", q->path);
	if (sq_content_delete(q, *id, left, e) != SQ_OK)
		return e->code;
	if (!*left) {
		SQ_STMT(s, q, SQL_INGEST_DELETE);
		sq_stmt_bind(&s, "i", *id);
		if (sq_stmt_run(&s, e) != SQ_OK)
			return e->code;
		*swept = true;
	}
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_ingest_sweep(struct sq_queue *q, int *out_swept, bool *more, struct sq_error *err)
{
	int64_t id = 0, any = 0;
	bool found = true, left, swept;
	enum sq_err e;

	*out_swept = 0;
	*more = false;
	/* Mostly there is none: then no write lock is taken. */
	if ((e = sq_db_int(q, SQL_INGEST_ANY, &any, err)) != SQ_OK || any == 0)
		return e;
	while (found) {
		if ((e = sweep_one(q, &id, &found, &left, &swept, err)) != SQ_OK)
			return e;
		*out_swept += swept;
		if (left) {
			*more = true;
			return SQ_OK;
		}
	}
	return SQ_OK;
}

/* ---- reading ---- */

static enum sq_err
append_chunk(struct sq_queue *q, int64_t chunk_id, uint64_t expect, size_t from, size_t n, struct sq_buf *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	struct sq_str data;
	enum sq_step step;
	SQ_STMT(s, q, SQL_CONTENT_GET);

	sq_stmt_bind(&s, "i", chunk_id);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	data = step == SQ_ROW ? sq_col_str(&s, 0) : (struct sq_str){ NULL, 0 };
	if (step != SQ_ROW || data.n != expect || (expect > 0 && !data.p))
		return sq_error_set(err, SQ_ECORRUPT, "queue '%s' lost content of a message: %llu octets expected, %zu found",
			q->path, (unsigned long long)expect, data.n);
	sq_buf_add(out, data.p + from, n);
	return sq_buf_view(out, &data, err);
}

static enum sq_err
message_facts(struct sq_queue *q, struct sq_message_id id, uint64_t *size, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_MESSAGE_FACTS);

	sq_stmt_bind(&s, "i", id.v);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE)
		return sq_error_set(err, SQ_ENOENT, "there is no such message");
	if (!sq_col(&s, 1))
		return sq_error_set(err, SQ_ENOENT, "the content of this message is gone");
	*size = (uint64_t)sq_col(&s, 0);
	return SQ_OK;
}

enum sq_err
sq_queue_read_content(struct sq_queue *q, struct sq_message_id id, uint64_t offset, size_t length, struct sq_buf *out, struct sq_error *err)
{
	uint64_t size = 0, end;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_read(&tx, q, __func__, err)) != SQ_OK || (e = message_facts(q, id, &size, err)) != SQ_OK)
		return e;
	if (offset > size || length > size - offset)
		return sq_error_set(err, SQ_EINVAL, "octets beyond the end of a message were asked for");
	for (end = offset + length; offset < end;) {
		uint64_t chunk = offset / SQ_CHUNK, begin = chunk * SQ_CHUNK;
		uint64_t whole = size - begin < SQ_CHUNK ? size - begin : SQ_CHUNK;
		uint64_t upto = begin + whole < end ? begin + whole : end;

		e = append_chunk(q, id.v << SQ_CHUNK_BITS | (int64_t)chunk, whole, (size_t)(offset - begin), (size_t)(upto - offset), out, err);
		if (e != SQ_OK)
			return e;
		offset = upto;
	}
	return sq_tx_commit(&tx, err);
}
