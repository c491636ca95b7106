/*
 * A transaction from MAIL to its last octet: taken over or begun, its files,
 * what counts of them, its end without a verdict, and the sweep. Every
 * function leaves either all of its work or none of it.
 */
#include "store.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sendq/io.h>

enum { DRAIN_MS = 5000, DRAIN_QUIET_MS = 200, DRAIN_STEP_MS = 20 };

/* ---- quotas */

enum sq_err
gw_store_quota(struct gw_store *s, const char *auth, int64_t more, bool another, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e = gw_sql(s, &row, err,
	    "SELECT coalesce(sum(octets), 0), coalesce(sum(octets) FILTER (WHERE auth = ?), 0),"
	    " count(*) FILTER (WHERE auth = ? AND verdict IS NULL) FROM txn WHERE body = 1 AND kind = 0",
	    "ss", auth, auth);

	if (e != SQ_OK || !row)
		return e;
	if (sqlite3_column_int64(row, 0) + more > s->limits->total_bytes ||
	    sqlite3_column_int64(row, 1) + more > s->limits->user_bytes ||
	    (another && sqlite3_column_int64(row, 2) >= s->limits->user_messages))
		return sq_error_set(err, SQ_ENOSPC, "the quota is used up");
	return SQ_OK;
}

/* ---- taking over */

/* Fix how much of the file that the last session wrote counts. */
static enum sq_err
close_segment(struct gw_store *s, struct gw_txn *t, struct sq_error *err)
{
	STMT row = NULL;
	char file[GW_FILE_NAME];
	int64_t start, octets;
	enum sq_err e = gw_sql(s, &row, err, "SELECT start, file FROM segment WHERE txn = ? AND octets IS NULL", "i", t->id);

	if (e != SQ_OK || !row)
		return e;
	start = sqlite3_column_int64(row, 0);
	gw_column(row, 1, file, sizeof(file));
	gw_stmt_freep(&row);
	if ((e = gw_spool_settle(s, file, t->verb == GW_VERB_DATA && !t->complete, &octets, err)) != SQ_OK)
		return e;
	t->octets = start + octets;
	if (octets > 0)
		return gw_sql(s, NULL, err, "UPDATE segment SET octets = ? WHERE txn = ? AND start = ?", "iii", octets, t->id, start);
	/* Its session may still have it open: a name that no row knows goes with the sweep. */
	return gw_sql(s, NULL, err, "DELETE FROM segment WHERE txn = ? AND start = ?", "ii", t->id, start);
}

/* The row for this key, if it is still worth something. */
static enum sq_err
look_up(struct gw_store *s, const struct gw_envelope *env, enum gw_found *found, struct gw_txn *t, struct sq_error *err)
{
	STMT row = NULL;
	int64_t touched;
	bool settled, same;
	enum sq_err e = gw_sql(s, &row, err,
	    "SELECT id, verb, octets, sender = ? AND params = ? AND declared = ?, verdict IS NOT NULL, settling, touched_ms,"
	    " sha256, name, resend FROM txn WHERE auth = ? AND ehlo = ? AND transid = ?",
	    "ssisss", env->sender, env->params, env->declared, env->auth, env->ehlo, env->transid);

	*found = GW_FRESH;
	if (e != SQ_OK || !row)
		return e;
	t->id = sqlite3_column_int64(row, 0);
	t->verb = (enum gw_verb)sqlite3_column_int(row, 1);
	t->octets = sqlite3_column_int64(row, 2);
	same = sqlite3_column_int(row, 3);
	settled = sqlite3_column_int(row, 4);
	t->settled = settled;
	t->complete = settled || sqlite3_column_int(row, 5);
	touched = sqlite3_column_int64(row, 6);
	gw_column(row, 7, t->sha256, sizeof(t->sha256));
	gw_column(row, 8, t->name, sizeof(t->name));
	t->resend = sqlite3_column_int(row, 9);
	gw_stmt_freep(&row);
	/* What may have been accepted is remembered for as long as what was. */
	if (touched < sq_wall_ms() - (t->complete ? s->limits->retain_ms : s->limits->interrupted_ms)) {
		/* What was promised has run out. */
		return gw_sql(s, NULL, err, "DELETE FROM txn WHERE id = ?", "i", t->id);
	}
	*found = same ? GW_RESUMED : GW_REFUSED;
	return SQ_OK;
}

/* What the row says must be in the files; else (a damaged disk) the state is worth nothing. */
static enum sq_err
check_octets(struct gw_store *s, const struct gw_txn *t, bool *good, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e = gw_sql(s, &row, err,
	    "SELECT coalesce(sum(s.octets), 0), t.verdict IS NOT NULL FROM txn t LEFT JOIN segment s ON s.txn = t.id WHERE t.id = ?",
	    "i", t->id);

	*good = e == SQ_OK && row && (sqlite3_column_int(row, 1) || sqlite3_column_int64(row, 0) == t->octets);
	return e;
}

static enum sq_err
take(struct gw_store *s, const struct gw_envelope *env, enum gw_found *found, struct gw_txn *t, struct sq_error *err)
{
	bool good;
	int64_t counted;
	enum sq_err e = look_up(s, env, found, t, err);

	if (e != SQ_OK || *found != GW_RESUMED)
		return e;
	counted = t->octets;
	if (t->settled) {
		/* Its files may have gone; what counts is the verdict. */
		sq_random(&t->owner, sizeof(t->owner));
		return gw_sql(s, NULL, err, "UPDATE txn SET owner = ? WHERE id = ?", "ii", t->owner, t->id);
	}
	if ((e = close_segment(s, t, err)) != SQ_OK || (e = check_octets(s, t, &good, err)) != SQ_OK)
		return e;
	/* Not "never heard of it": the client would take that for "not accepted". */
	if (t->complete && (!good || t->octets != counted))
		return sq_error_set(err, SQ_ECORRUPT, "what may have been accepted is damaged");
	if (!good) {
		*found = GW_FRESH;
		return gw_sql(s, NULL, err, "DELETE FROM txn WHERE id = ?", "i", t->id);
	}
	sq_random(&t->owner, sizeof(t->owner));
	t->durable = true;
	t->resend |= env->resend;
	return gw_sql(s, NULL, err, "UPDATE txn SET owner = ?, octets = ?, resend = ?, touched_ms = ? WHERE id = ?", "iiiii",
	    t->owner, t->octets, (int64_t)t->resend, sq_wall_ms(), t->id);
}

/*
 * The link of the older session may be dead while much of what it carried still
 * lies in the kernel: let that session read it before it is voided. Ends when the
 * session does, or when nothing more comes in.
 */
static void
let_drain(struct gw_store *s, const struct gw_envelope *env)
{
	const struct timespec pause = { 0, DRAIN_STEP_MS * 1000000 };
	SQ_CLEANUP(sq_closep) int fd = -1;
	char file[GW_FILE_NAME];
	off_t before = -1;
	struct stat st;

	{
		STMT row = NULL;

		if (gw_sql(s, &row, NULL, "SELECT s.file FROM txn t JOIN segment s ON s.txn = t.id"
		    " WHERE t.auth = ? AND t.ehlo = ? AND t.transid = ? AND s.octets IS NULL", "sss", env->auth, env->ehlo, env->transid) != SQ_OK || !row)
			return;
		gw_column(row, 0, file, sizeof(file));
	}
	if ((fd = openat(s->spool, file, O_RDONLY | O_CLOEXEC)) < 0)
		return;
	for (int waited = 0, quiet = 0; waited < DRAIN_MS && quiet < DRAIN_QUIET_MS; waited += DRAIN_STEP_MS) {
		if (flock(fd, LOCK_SH | LOCK_NB) == 0 || fstat(fd, &st) != 0)
			return;
		quiet = st.st_size == before ? quiet + DRAIN_STEP_MS : 0;
		before = st.st_size;
		(void)nanosleep(&pause, NULL);
	}
}

enum sq_err
gw_txn_take(struct gw_store *s, const struct gw_envelope *env, enum gw_found *found, struct gw_txn *out,
    struct sq_error *err)
{
	struct gw_txn t = { 0 };
	enum sq_err e;

	let_drain(s, env);
	if ((e = gw_store_lock(s, GW_DURABLE, err)) != SQ_OK)
		return e;
	e = take(s, env, found, &t, err);
	if ((e = gw_store_end(s, e, err)) == SQ_OK)
		*out = *found == GW_RESUMED ? t : (struct gw_txn){ 0 };
	return e;
}

/* ---- beginning */

static enum sq_err
create(struct gw_store *s, const struct gw_envelope *env, const struct gw_rcpt *rcpt, size_t rcpts, struct gw_txn *t,
    struct sq_error *err)
{
	STMT row = NULL;
	int64_t now = sq_wall_ms();
	enum sq_err e = gw_sql(s, &row, err, "SELECT 1 FROM txn WHERE auth = ? AND ehlo = ? AND transid = ?", "sss", env->auth,
	    env->ehlo, env->transid);

	if (e != SQ_OK)
		return e;
	if (row)
		return sq_error_set(err, SQ_EPERM, "another session has begun this transaction");
	e = gw_sql(s, NULL, err,
	    "INSERT INTO txn (auth, ehlo, transid, sender, params, declared, resend, owner, verb, name, begun_ms, touched_ms)"
	    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	    "sssssiiiisii", env->auth, env->ehlo, env->transid, env->sender, env->params, env->declared, (int64_t)env->resend,
	    t->owner, (int64_t)t->verb, t->name, now, now);
	t->id = sqlite3_last_insert_rowid(s->db);
	for (size_t i = 0; e == SQ_OK && i < rcpts; i++)
		e = gw_sql(s, NULL, err, "INSERT OR IGNORE INTO rcpt VALUES (?, ?, ?)", "iss", t->id, rcpt[i].address, rcpt[i].params);
	return e;
}

enum sq_err
gw_txn_create(struct gw_store *s, const struct gw_envelope *env, const struct gw_rcpt *rcpt, size_t rcpts,
    struct gw_txn *t, struct sq_error *err)
{
	struct gw_txn made = *t;
	enum sq_err e;

	sq_random(&made.owner, sizeof(made.owner));
	/* Nothing has been promised yet: it becomes durable with the first octets that are counted. */
	if ((e = gw_store_lock(s, GW_LAZY, err)) != SQ_OK)
		return e;
	e = create(s, env, rcpt, rcpts, &made, err);
	if ((e = gw_store_end(s, e, err)) == SQ_OK)
		*t = made;
	return e;
}

enum sq_err
gw_txn_segment(struct gw_store *s, struct gw_txn *t, int *fd, struct sq_error *err)
{
	char file[GW_FILE_NAME];
	uint64_t r;
	enum sq_err e;

	sq_random(&r, sizeof(r));
	snprintf(file, sizeof(file), "%016jx", (uintmax_t)r);
	if ((e = gw_store_lock(s, GW_LAZY, err)) != SQ_OK)
		return e;
	/* Inside the lock: the sweep must not meet a file without its row. */
	if ((e = gw_spool_create(s, file, fd, err)) == SQ_OK)
		e = gw_sql(s, NULL, err, "INSERT INTO segment SELECT id, ?, NULL, ? FROM txn WHERE id = ? AND owner = ?", "isii",
		    t->octets, file, t->id, t->owner);
	if (e == SQ_OK)
		e = gw_changed(s);
	if ((e = gw_store_end(s, e, err)) == SQ_OK) {
		memcpy(t->file, file, sizeof(file));
		t->durable = false;
	} else if (*fd >= 0) {
		sq_closep(fd);
		*fd = -1;
		gw_spool_remove(s, file);
	}
	return e;
}

enum sq_err
gw_txn_count(struct gw_store *s, struct gw_txn *t, const struct gw_seen *seen, struct sq_error *err)
{
	char message_id[512] = "";
	enum sq_err e;

	gw_seen_field(seen, "Message-ID", message_id, sizeof(message_id));
	gw_point();
	if (!t->durable && fsync(s->spool) != 0)
		return sq_error_errno(err, SQ_EIO, "cannot sync the spool");
	gw_point();
	if ((e = gw_store_lock(s, t->durable ? GW_LAZY : GW_DURABLE, err)) != SQ_OK)
		return e;
	e = gw_sql(s, NULL, err, "UPDATE txn SET octets = ?, message_id = nullif(?, ''), touched_ms = ? WHERE id = ? AND owner = ?",
	    "isiii", t->octets, message_id, sq_wall_ms(), t->id, t->owner);
	if (e == SQ_OK)
		e = gw_changed(s);
	if ((e = gw_store_end(s, e, err)) == SQ_OK)
		t->durable = true;
	return e;
}

/* ---- reading back */

enum sq_err
gw_txn_recipients(struct gw_store *s, int64_t id, struct gw_rcpt **out, size_t *n, struct sq_error *err)
{
	STMT row = NULL;
	struct gw_rcpt *list;
	size_t count = 0;
	enum sq_err e = gw_sql(s, &row, err, "SELECT address, params FROM rcpt WHERE txn = ? ORDER BY address", "i", id);

	if (e != SQ_OK)
		return e;
	if (!(list = calloc(GW_RCPT_MAX, sizeof(*list))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	while (row && count < GW_RCPT_MAX) {
		gw_column(row, 0, list[count].address, sizeof(list[count].address));
		gw_column(row, 1, list[count].params, sizeof(list[count].params));
		count++;
		if (sqlite3_step(row) != SQLITE_ROW)
			break;
	}
	*out = list;
	*n = count;
	return SQ_OK;
}

enum sq_err
gw_txn_read(struct gw_store *s, int64_t id, int64_t octets, gw_reader *take_octets, void *ctx, struct sq_error *err)
{
	int64_t at = 0;

	while (at < octets) {
		STMT row = NULL;
		SQ_CLEANUP(sq_closep) int fd = -1;
		char file[GW_FILE_NAME];
		int64_t n;
		enum sq_err e =
		    gw_sql(s, &row, err, "SELECT coalesce(octets, -1), file FROM segment WHERE txn = ? AND start = ?", "ii", id, at);

		if (e != SQ_OK)
			return e;
		if (!row)
			return sq_error_set(err, SQ_ECORRUPT, "octets %" PRId64 " of %" PRId64 " are missing", at, octets);
		n = sqlite3_column_int64(row, 0);
		gw_column(row, 1, file, sizeof(file));
		gw_stmt_freep(&row);
		if (n < 0 || n > octets - at)
			n = octets - at;
		if ((fd = openat(s->spool, file, O_RDONLY | O_CLOEXEC)) < 0)
			return sq_error_errno(err, SQ_ECORRUPT, "cannot open '%s' in the spool", file);
		if (n == 0)
			return sq_error_set(err, SQ_ECORRUPT, "an empty file is in the way");
		if ((e = gw_spool_read(fd, n, take_octets, ctx, err)) != SQ_OK)
			return e;
		at += n;
	}
	return SQ_OK;
}

/* ---- ending */

enum { FILES_MAX = 4096 };

/* The names of a transaction's files, each with its NUL. They are unlinked after the commit that forgets them. */
static enum sq_err
list_files(struct gw_store *s, int64_t id, struct sq_buf *out, struct sq_error *err)
{
	STMT row = NULL;
	char file[GW_FILE_NAME];
	enum sq_err e = gw_sql(s, &row, err, "SELECT file FROM segment WHERE txn = ?", "i", id);

	if (e != SQ_OK || !row)
		return e;
	do {
		gw_column(row, 0, file, sizeof(file));
		sq_buf_add(out, file, strlen(file) + 1);
	} while (sqlite3_step(row) == SQLITE_ROW);
	return SQ_OK;
}

static void
unlink_files(struct gw_store *s, const struct sq_buf *files)
{
	for (size_t at = 0; !files->failed && at < files->n; at += strlen(files->p + at) + 1)
		gw_spool_remove(s, files->p + at);
}

static enum sq_err
forget(struct gw_store *s, const struct gw_txn *t, struct sq_buf *files)
{
	STMT row = NULL;
	enum sq_err e = gw_sql(s, &row, NULL, "SELECT kind, settling AND verdict IS NULL FROM txn WHERE id = ? AND owner = ?", "ii",
	    t->id, t->owner);

	if (e != SQ_OK || !row)
		return e == SQ_OK ? SQ_EPERM : e;
	if (sqlite3_column_int(row, 0) || sqlite3_column_int(row, 1))
		return SQ_OK; /* a duplicate is kept, for people; what may have been accepted, for its client */
	gw_stmt_freep(&row);
	e = gw_sql(s, NULL, NULL, "UPDATE txn SET body = 0 WHERE id = ?", "i", t->id);
	if (e == SQ_OK)
		e = list_files(s, t->id, files, NULL);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, NULL, "DELETE FROM txn WHERE id = ? AND verdict IS NULL", "i", t->id);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, NULL, "DELETE FROM segment WHERE txn = ?", "i", t->id);
	return e;
}

/* Failing leaves more than needed; the sweep takes it. */
void
gw_txn_drop(struct gw_store *s, const struct gw_txn *t)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf files = SQ_BUF_INIT(FILES_MAX * GW_FILE_NAME);

	if (gw_store_lock(s, GW_LAZY, NULL) == SQ_OK && gw_store_end(s, forget(s, t, &files), NULL) == SQ_OK)
		unlink_files(s, &files);
}

enum sq_err
gw_txn_remove(struct gw_store *s, int64_t id, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf files = SQ_BUF_INIT(FILES_MAX * GW_FILE_NAME);
	enum sq_err e = gw_store_lock(s, GW_DURABLE, err);

	if (e != SQ_OK)
		return e;
	if ((e = list_files(s, id, &files, err)) == SQ_OK)
		e = gw_sql(s, NULL, err, "DELETE FROM txn WHERE id = ?", "i", id);
	if (e == SQ_OK && gw_changed(s) != SQ_OK)
		e = sq_error_set(err, SQ_ENOENT, "there is no message %" PRId64, id);
	if ((e = gw_store_end(s, e, err)) == SQ_OK)
		unlink_files(s, &files);
	return e;
}

/* ---- copies */

enum sq_err
gw_copy_has_room(struct gw_store *s, const char *auth, int64_t octets, bool *out, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e = gw_sql(s, &row, err, "SELECT coalesce(sum(octets), 0) FROM txn WHERE auth = ? AND body = 1 AND kind = 1",
	    "s", auth);

	*out = e == SQ_OK && row && sqlite3_column_int64(row, 0) + octets <= s->limits->user_bytes / 4;
	return e;
}

static enum sq_err
copy_keep(struct gw_store *s, const struct gw_envelope *env, const struct gw_rcpt *rcpt, size_t rcpts,
    const struct gw_txn *t, const char *file, const char *message_id, const char *verdict, struct sq_error *err)
{
	int64_t now = sq_wall_ms(), id;
	enum sq_err e = gw_sql(s, NULL, err,
	    "INSERT INTO txn (kind, auth, ehlo, sender, params, declared, resend, owner, verb, octets, name, message_id, sha256,"
	    " settling, verdict, begun_ms, touched_ms) VALUES (1, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?, ?, 1, ?, ?, ?)",
	    "ssssiiissssii", env->auth, env->ehlo, env->sender, env->params, env->declared, (int64_t)t->verb, t->octets, t->name,
	    message_id, t->sha256, verdict, now, now);

	id = sqlite3_last_insert_rowid(s->db);
	for (size_t i = 0; e == SQ_OK && i < rcpts; i++)
		e = gw_sql(s, NULL, err, "INSERT OR IGNORE INTO rcpt VALUES (?, ?, ?)", "iss", id, rcpt[i].address, rcpt[i].params);
	if (e == SQ_OK && t->octets > 0)
		e = gw_sql(s, NULL, err, "INSERT INTO segment VALUES (?, 0, ?, ?)", "iis", id, t->octets, file);
	return e;
}

enum sq_err
gw_copy_keep(struct gw_store *s, const struct gw_envelope *env, const struct gw_rcpt *rcpt, size_t rcpts,
    const struct gw_txn *t, int fd, const char *message_id, const char *verdict, struct sq_error *err)
{
	char file[GW_FILE_NAME], path[64];
	uint64_t r;
	bool room;
	enum sq_err e = gw_copy_has_room(s, env->auth, t->octets, &room, err);

	if (e != SQ_OK || !room)
		return e;
	sq_random(&r, sizeof(r));
	snprintf(file, sizeof(file), "%016jx", (uintmax_t)r);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if ((e = gw_store_lock(s, GW_LAZY, err)) != SQ_OK)
		return e;
	if (linkat(AT_FDCWD, path, s->spool, file, AT_SYMLINK_FOLLOW) != 0)
		e = sq_error_errno(err, SQ_EIO, "cannot keep a copy");
	if (e == SQ_OK)
		e = copy_keep(s, env, rcpt, rcpts, t, file, message_id, verdict, err);
	return gw_store_end(s, e, err);
}

/* ---- sweep */

enum { IDLE_MS = 3600 * 1000 };

/* Files that no row knows. */
static enum sq_err
sweep_files(struct gw_store *s, struct sq_error *err)
{
	int fd = dup(s->spool);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	enum sq_err e = SQ_OK;

	if (!d) {
		sq_closep(&fd);
		return sq_error_errno(err, SQ_EIO, "cannot read the spool");
	}
	rewinddir(d);
	while (e == SQ_OK && (entry = readdir(d))) {
		STMT row = NULL;

		if (entry->d_name[0] == '.')
			continue;
		e = gw_sql(s, &row, err, "SELECT 1 FROM segment WHERE file = ?", "s", entry->d_name);
		if (e == SQ_OK && !row)
			gw_spool_remove(s, entry->d_name);
	}
	closedir(d);
	return e;
}

enum sq_err
gw_store_sweep(struct gw_store *s, struct sq_error *err)
{
	int64_t now = sq_wall_ms();
	enum sq_err e = gw_store_lock(s, GW_DURABLE, err);

	if (e != SQ_OK)
		return e;
	e = gw_sql(s, NULL, err, "DELETE FROM txn WHERE verdict IS NULL AND settling = 0 AND touched_ms < ?", "i",
	    now - s->limits->interrupted_ms);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "DELETE FROM txn WHERE (verdict IS NOT NULL OR settling = 1) AND touched_ms < ?", "i",
		    now - s->limits->retain_ms);
	/* Bodies whose verdict is known and whose client has not been seen since. */
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err,
		    "DELETE FROM segment WHERE txn IN (SELECT id FROM txn WHERE kind = 0 AND verdict IS NOT NULL AND touched_ms < ?)",
		    "i", now - IDLE_MS);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "UPDATE txn SET body = 0 WHERE kind = 0 AND verdict IS NOT NULL AND touched_ms < ?", "i",
		    now - IDLE_MS);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "DELETE FROM segment WHERE txn IN (SELECT id FROM txn WHERE kind = 1 AND begun_ms < ?)", "i",
		    now - s->limits->duplicate_ms);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "UPDATE txn SET body = 0 WHERE kind = 1 AND begun_ms < ?", "i", now - s->limits->duplicate_ms);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "DELETE FROM txn WHERE transid IS NULL AND body = 0", "");
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "DELETE FROM accepted WHERE at_ms < ?", "i", now - s->limits->duplicate_ms);
	if (e == SQ_OK)
		e = sweep_files(s, err);
	return gw_store_end(s, e, err);
}
