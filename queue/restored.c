/*
 * The queue's identity: its stable EHLO name, and whether this file came out
 * of a backup. A counter is raised by every run of the runner, in the
 * database and in <queue>.epoch beside it; a restored database is behind the
 * file, or has another inode. Mail in it may have been sent already.
 */
#include "db.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

static enum sq_err
meta_text(struct sq_queue *q, const char *key, char **out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_META_GET);

	sq_stmt_bind(&s, "z", key);
	switch (sq_stmt_step(&s, e)) {
	case SQ_ROW:
		*out = sq_col_dup(&s, 0);
		return *out ? SQ_OK : sq_error_set(err, SQ_ENOMEM, "out of memory");
	case SQ_DONE:
		return sq_error_set(err, SQ_ECORRUPT, "queue '%s' has no %s", q->path, key);
	case SQ_FAILED:
		break;
	}
	return e->code;
}

enum sq_err
sq_queue_ehlo_name(struct sq_queue *q, char **out, struct sq_error *err)
{
	return meta_text(q, "ehlo_name", out, err);
}

struct epoch_file {
	bool exists;
	char identity[33];
	int64_t counter;
	uint64_t inode, device;
};

/* A file that cannot be read or understood is treated as missing, which the counter judges. */
static enum sq_err
epoch_read(const char *path, struct epoch_file *f, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(512);
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	*f = (struct epoch_file){ 0 };
	if (fd < 0)
		return errno == ENOENT ? SQ_OK : sq_error_errno(err, SQ_EIO, "cannot read '%s'", path);
	if (sq_buf_read_fd(&b, fd, NULL) == SQ_OK && b.n > 0 &&
	    sscanf(b.p, "%32[0-9a-f] %" SCNd64 " %" SCNu64 " %" SCNu64, f->identity, &f->counter, &f->inode, &f->device) == 4)
		f->exists = true;
	return SQ_OK;
}

/* Written whole or not at all. */
static enum sq_err
epoch_write(const char *path, const struct epoch_file *f, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *tmp = sq_path_suffix(path, ".new");
	SQ_CLEANUP(sq_closep) int fd = -1;
	char text[160];
	enum sq_err e;

	if (!tmp)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	snprintf(text, sizeof(text), "%s %" PRId64 " %" PRIu64 " %" PRIu64 "\n", f->identity, f->counter, f->inode, f->device);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fchmod(fd, 0600) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", tmp);
	if ((e = sq_write_all(fd, text, strlen(text), err)) != SQ_OK)
		return sq_error_wrap(err, e, "cannot write '%s'", tmp);
	if (fsync(fd) < 0 || rename(tmp, path) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", path);
	return sq_fsync_parent(path, err);
}

static enum sq_err
raise_counter(struct sq_queue *q, int64_t counter, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_META_SET);
		sq_stmt_bind(&s, "zi", "epoch", counter);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}

static bool
is_restored(const struct epoch_file *f, const char *identity, int64_t counter, const struct stat *st)
{
	/* The first run may have died between its two steps: then 1 and no file. */
	if (!f->exists)
		return counter > 1;
	/* The file of a queue that was deleted: a new queue has nothing to fear, an old one in its place has. */
	if (strcmp(f->identity, identity) != 0)
		return counter > 0;
	/* Device numbers change over reboots; inode numbers do not. */
	return f->counter > counter || f->inode != (uint64_t)st->st_ino;
}

/* A new run: from here on the file as it lies here is the real one. The database first, so that it is never behind by a crash. */
static enum sq_err
begin_run(struct sq_queue *q, const struct epoch_file *had, const char *identity, int64_t counter, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(q->path, ".epoch");
	struct epoch_file f = { .exists = true };
	struct stat st;
	enum sq_err e;

	if (!path)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	/* Above both, or the same backup put back once more would look like today's queue. */
	f.counter = (had->exists && had->counter > counter ? had->counter : counter) + 1;
	if ((e = raise_counter(q, f.counter, err)) != SQ_OK)
		return e;
	if (stat(q->path, &st) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot use queue '%s'", q->path);
	snprintf(f.identity, sizeof(f.identity), "%s", identity);
	f.inode = (uint64_t)st.st_ino;
	f.device = (uint64_t)st.st_dev;
	return epoch_write(path, &f, err);
}

static enum sq_err
load(struct sq_queue *q, char **identity, int64_t *counter, struct epoch_file *f, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(q->path, ".epoch");
	SQ_CLEANUP(sq_freep) char *text = NULL;
	enum sq_err e;

	if (!path)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = meta_text(q, "identity", identity, err)) != SQ_OK || (e = meta_text(q, "epoch", &text, err)) != SQ_OK)
		return e;
	*counter = strtoll(text, NULL, 10);
	return epoch_read(path, f, err);
}

enum sq_err
sq_queue_check_restored(struct sq_queue *q, bool *restored, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *identity = NULL;
	struct epoch_file f;
	struct stat st;
	int64_t counter;
	bool answer;
	enum sq_err e;

	if ((e = load(q, &identity, &counter, &f, err)) != SQ_OK)
		return e;
	if (stat(q->path, &st) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot use queue '%s'", q->path);
	answer = is_restored(&f, identity, counter, &st);
	/* Restored: no new run until its mail is held, so that a crash in between asks the same question again. */
	if (!answer && (e = begin_run(q, &f, identity, counter, err)) != SQ_OK)
		return e;
	*restored = answer;
	return SQ_OK;
}

/* ---- holding ---- */

struct held {
	struct sq_move *v;
	size_t n;
};

static void
held_fini(struct held *h)
{
	free(h->v);
}

static enum sq_err
collect(struct sq_queue *q, enum sq_state from, int64_t now_ms, struct held *h, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_STATE_IDS);

	sq_stmt_bind(&s, "i", (int64_t)from);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		if ((h->n & (h->n - 1)) == 0) {
			struct sq_move *more = reallocarray(h->v, h->n ? 2 * h->n : 1, sizeof(*more));

			if (!more)
				return sq_error_set(err, SQ_ENOMEM, "out of memory");
			h->v = more;
		}
		h->v[h->n++] = (struct sq_move){ .id = { sq_col(&s, 0) }, .from = from, .to = SQ_STATE_HELD, .notify = (uint8_t)sq_col(&s, 1), .now_ms = now_ms };
	}
	return step == SQ_DONE ? SQ_OK : e->code;
}

static enum sq_err
hold_attempt(struct sq_queue *q, struct sq_attempt_id a, const struct sq_reply *note, int64_t now_ms, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_member *v = NULL;
	size_t n = 0;
	enum sq_err e = sq_attempt_members(q, a, &v, &n, err);

	for (size_t i = 0; e == SQ_OK && i < n; i++) {
		struct sq_move m = { .id = v[i].id, .from = v[i].state, .to = SQ_STATE_HELD, .notify = v[i].notify, .now_ms = now_ms };

		if ((e = sq_state_move(q, &m, err)) == SQ_OK)
			e = sq_state_reply(q, m.id, note, err);
	}
	return e;
}

static enum sq_err
close_attempts(struct sq_queue *q, const struct sq_reply *note, int64_t now_ms, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t id = 0;

	for (;;) {
		struct sq_attempt_close c = { .phase = SQ_PHASE_NONE, .outcome = SQ_OUTCOME_LOCAL, .reply = note, .octets = -1, .counts = true, .now_ms = now_ms };
		enum sq_step step;

		{
			SQ_STMT(s, q, SQL_STATE_ATTEMPTS);
			step = sq_stmt_step(&s, e);
			if (step == SQ_ROW)
				c.id.v = sq_col(&s, 0);
		}
		if (step != SQ_ROW)
			return step == SQ_DONE ? SQ_OK : e->code;
		if (c.id.v == id)
			return sq_error_set(err, SQ_ECORRUPT, "queue '%s' has an attempt that cannot be closed", q->path);
		id = c.id.v;
		if (sq_attempt_close(q, &c, e) != SQ_OK || hold_attempt(q, c.id, note, now_ms, e) != SQ_OK)
			return e->code;
	}
}

enum sq_err
sq_queue_hold_restored(struct sq_queue *q, const char *why, int64_t now_ms, int *out_n, struct sq_error *err)
{
	static const enum sq_state from[] = { SQ_STATE_QUEUED, SQ_STATE_SENDING, SQ_STATE_COMMITTING };
	SQ_CLEANUP(held_fini) struct held h = { 0 };
	SQ_CLEANUP(sq_freep) char *identity = NULL;
	struct sq_reply note = { .text = sq_str(why) };
	struct epoch_file f;
	int64_t counter;
	enum sq_err e;

	if ((e = load(q, &identity, &counter, &f, err)) != SQ_OK)
		return e;
	{
		SQ_TX(tx);

		if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
			return e;
		for (size_t i = 0; i < SQ_LEN(from); i++)
			if ((e = collect(q, from[i], now_ms, &h, err)) != SQ_OK)
				return e;
		if ((e = close_attempts(q, &note, now_ms, err)) != SQ_OK)
			return e;
		for (size_t i = 0; i < h.n; i++)
			if (h.v[i].from == SQ_STATE_QUEUED &&
			    ((e = sq_state_move(q, &h.v[i], err)) != SQ_OK || (e = sq_state_reply(q, h.v[i].id, &note, err)) != SQ_OK))
				return e;
		if ((e = sq_tx_commit(&tx, err)) != SQ_OK)
			return e;
	}
	if ((e = begin_run(q, &f, identity, counter, err)) != SQ_OK)
		return e;
	if (out_n)
		*out_n = (int)h.n;
	return SQ_OK;
}
