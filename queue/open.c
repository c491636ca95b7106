/*
 * Opening and closing the database file: who owns it, where it lies, whether
 * it is one of ours, the settings of a connection, checkpoints. The file is
 * never opened or closed but by SQLite: closing a second descriptor of it
 * would drop the locks of the whole process. So a new file is made with
 * mknod(), and everything else is asked with stat().
 */
#include "db.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <sendq/io.h>

enum {
	WAL_PASSIVE = 4 * 1024 * 1024,    /* checkpoint from here on */
	WAL_TRUNCATE = 64 * 1024 * 1024,  /* give the disk back when idle */
	WAL_NOBODY = 512 * 1024,     /* so much only where no runner checkpoints */
	PAGE = 4096,
};

/* statfs(2) types on which POSIX locks or shared memory cannot be trusted. */
static const struct {
	long type;
	const char *name;
} network_fs[] = {
	{ 0x6969, "NFS" }, { 0x517b, "SMB" }, { 0xff534d42, "CIFS" }, { 0xfe534d42, "SMB2" },
	{ 0x01021997, "9p" }, { 0x5346414f, "AFS" }, { 0x6b414653, "AFS" }, { 0x73757245, "Coda" },
	{ 0x00c36400, "Ceph" }, { 0x564c, "NCP" }, { 0x0bd00bd0, "Lustre" }, { 0x01161970, "GFS2" },
	{ 0x7461636f, "OCFS2" }, { 0x47504653, "GPFS" }, { 0x19830326, "BeeGFS" },
};

const char *
sq_db_network_fs(long type)
{
	for (size_t i = 0; i < SQ_LEN(network_fs); i++)
		if ((type & 0xffffffffL) == network_fs[i].type)
			return network_fs[i].name;
	return NULL;
}

static void
user_name(uid_t uid, char out[64])
{
	struct passwd pw, *found = NULL;
	char buf[2048];

	if (getpwuid_r(uid, &pw, buf, sizeof(buf), &found) == 0 && found)
		snprintf(out, 64, "%.62s", found->pw_name);
	else
		snprintf(out, 64, "uid %lu", (unsigned long)uid);
}

static enum sq_err
not_yours(const char *path, uid_t owner, struct sq_error *err)
{
	char theirs[64], mine[64];

	user_name(owner, theirs);
	user_name(geteuid(), mine);
	return sq_error_set(err, SQ_EPERM, "'%s' belongs to %s, but this is %s: a queue has one user", path, theirs, mine);
}

/* The directory: ours or root's, writable by nobody else, on a local disk. */
static enum sq_err
check_directory(const char *path, struct sq_error *err)
{
	const char *slash = strrchr(path, '/'), *fs;
	SQ_CLEANUP(sq_freep) char *dir = slash ? sq_str_dup((struct sq_str){ path, slash == path ? 1 : (size_t)(slash - path) }) : sq_str_dup(SQ_STR("."));
	struct stat st;
	struct statfs sf;

	if (!dir)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (stat(dir, &st) < 0 || statfs(dir, &sf) < 0)
		return sq_error_errno(err, errno == ENOENT || errno == ENOTDIR ? SQ_ENOENT : errno == EACCES ? SQ_EPERM : SQ_EIO,
			"cannot use queue directory '%s'", dir);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return not_yours(dir, st.st_uid, err);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return sq_error_set(err, SQ_EPERM, "directory '%s' of the queue may be written by others: chmod go-w '%s'", dir, dir);
	if ((fs = sq_db_network_fs((long)sf.f_type)) != NULL)
		return sq_error_set(err, SQ_EINVAL, "'%s' is on a network file system (%s), where a queue is not safe: "
			"set `queue` to a file on a local disk", path, fs);
	return SQ_OK;
}

/* The directory and an empty file of mode 0600, whatever the umask. */
static enum sq_err
create(const char *path, struct sq_error *err)
{
	const char *slash = strrchr(path, '/');

	if (slash && slash != path) {
		SQ_CLEANUP(sq_freep) char *dir = sq_str_dup((struct sq_str){ path, (size_t)(slash - path) });
		enum sq_err e;

		if (!dir)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		if ((e = sq_mkdirs(dir, err)) != SQ_OK || (e = check_directory(path, err)) != SQ_OK)
			return e;
	}
	if (mknod(path, S_IFREG | 0600, 0) < 0)
		return errno == EEXIST ? SQ_OK : sq_error_errno(err, errno == EACCES || errno == EROFS ? SQ_EPERM : SQ_EIO, "cannot create queue '%s'", path);
	if (chmod(path, 0600) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot set the mode of '%s'", path);
	return sq_fsync_parent(path, err);
}

/* A file of ours: owner and kind; others' access is taken away. */
static enum sq_err
check_file(const char *path, const struct stat *st, struct sq_error *err)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };

	if (st->st_uid != geteuid())
		return not_yours(path, st->st_uid, err);
	if (!S_ISREG(st->st_mode))
		return sq_error_set(err, SQ_EINVAL, "queue '%s' is not a regular file", path);
	if ((st->st_mode & 077) == 0)
		return SQ_OK;
	for (size_t i = 0; i < SQ_LEN(suffixes); i++) {
		SQ_CLEANUP(sq_freep) char *p = sq_path_suffix(path, suffixes[i]);

		if (!p)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		if (chmod(p, 0600) < 0 && errno != ENOENT)
			return sq_error_errno(err, SQ_EPERM, "cannot set the mode of '%s'", p);
	}
	return SQ_OK;
}

static enum sq_err
check_path(const char *path, enum sq_queue_role role, bool *out_new, struct sq_error *err)
{
	struct stat st;
	enum sq_err e;

	if (stat(path, &st) < 0) {
		if (errno != ENOENT)
			return sq_error_errno(err, errno == EACCES ? SQ_EPERM : SQ_EIO, "cannot use queue '%s'", path);
		if (role == SQ_QUEUE_READ)
			return sq_error_set(err, SQ_ENOENT, "there is no queue '%s' yet: nothing was ever sent", path);
		if ((e = create(path, err)) != SQ_OK)
			return e;
		if (stat(path, &st) < 0)
			return sq_error_errno(err, SQ_EIO, "cannot use queue '%s'", path);
	}
	if ((e = check_directory(path, err)) != SQ_OK)
		return e;
	*out_new = st.st_size == 0;
	return check_file(path, &st, err);
}

/* A wait of 60 to 650 microseconds; what it sleeps for must differ between processes that collide. */
static int
on_busy(void *arg, int count)
{
	struct sq_queue *q = arg;
	static const int64_t limit_ms[] = { [SQ_QUEUE_SUBMIT] = 30000, [SQ_QUEUE_RUN] = 30000, [SQ_QUEUE_READ] = 5000 };
	struct timespec now;
	int64_t now_ns;
	unsigned r;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	if (count == 0)
		q->busy_until_ns = now_ns + limit_ms[q->role] * 1000000;
	if (now_ns >= q->busy_until_ns)
		return 0;
	sqlite3_randomness(sizeof(r), &r);
	sq_queue_waits(q, true);
	nanosleep(&(struct timespec){ .tv_nsec = 60000 + (long)(r % 590000) }, NULL);
	sq_queue_waits(q, false);
	return 1;
}

static int
on_wal(void *arg, sqlite3 *db, const char *name, int frames)
{
	(void)db, (void)name;
	((struct sq_queue *)arg)->wal_frames = frames;
	return SQLITE_OK;
}

static enum sq_err
set_flag(struct sq_queue *q, int option, int value, struct sq_error *err)
{
	int now = -1;
	int rc = sqlite3_db_config(q->db, option, value, &now);

	if (rc != SQLITE_OK || now != value)
		return sq_error_set(err, SQ_EIO, "this SQLite does not take setting %d", option);
	return SQ_OK;
}

/* Several processes may meet at an empty file: the switch to WAL does not wait by itself. */
static enum sq_err
make_wal(struct sq_queue *q, struct sq_error *err)
{
	enum sq_err e;

	for (int count = 0; ; count++) {
		e = sq_db_exec(q, "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL", SQ_ERR(err));
		if (e != SQ_EBUSY || !on_busy(q, count))
			return e;
	}
}

static enum sq_err
configure(struct sq_queue *q, bool is_new, struct sq_error *err)
{
	static const struct { int option, value; } flags[] = {
		{ SQLITE_DBCONFIG_ENABLE_FKEY, 1 }, { SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 }, { SQLITE_DBCONFIG_DEFENSIVE, 1 },
		{ SQLITE_DBCONFIG_DQS_DML, 0 }, { SQLITE_DBCONFIG_DQS_DDL, 0 },
	};
	enum sq_err e;

	sqlite3_busy_handler(q->db, on_busy, q);
	for (size_t i = 0; i < SQ_LEN(flags); i++)
		if ((e = set_flag(q, flags[i].option, flags[i].value, err)) != SQ_OK)
			return e;
	if (q->role != SQ_QUEUE_RUN && (e = set_flag(q, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, err)) != SQ_OK)
		return e;
	sqlite3_wal_autocheckpoint(q->db, 0);
	sqlite3_wal_hook(q->db, on_wal, q);
	if (is_new && (e = make_wal(q, err)) != SQ_OK)
		return e;
	if ((e = sq_db_exec(q, "PRAGMA secure_delete = FAST; PRAGMA synchronous = FULL", err)) != SQ_OK)
		return e;
	q->full = true;
	return sq_migrate(q, err);
}

enum sq_err
sq_queue_open(const char *path, enum sq_queue_role role, struct sq_queue **out, struct sq_error *err)
{
	SQ_CLEANUP(sq_queue_closep) struct sq_queue *q = NULL;
	bool is_new = false;
	int rc;
	enum sq_err e;

	if ((e = check_path(path, role, &is_new, err)) != SQ_OK)
		return e;
	if (!(q = calloc(1, sizeof(*q))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	q->waiting_fd = -1;
	q->role = role;
	if (!(q->path = sq_str_dup(sq_str(path))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	rc = sqlite3_open_v2(path, &q->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE, NULL);
	if (rc != SQLITE_OK)
		return sq_db_error(q, rc, "open", err);
	if ((e = configure(q, is_new, err)) != SQ_OK)
		return e;
	*out = q;
	q = NULL;
	return SQ_OK;
}

static int64_t
wal_size(struct sq_queue *q)
{
	SQ_CLEANUP(sq_freep) char *wal = sq_path_suffix(q->path, "-wal");
	struct stat st;

	return wal && stat(wal, &st) == 0 ? (int64_t)st.st_size : 0;
}

enum sq_err
sq_db_checkpoint(struct sq_queue *q, bool idle, struct sq_error *err)
{
	int64_t size = wal_size(q);
	bool truncate = idle && size > WAL_TRUNCATE;
	int rc;

	if (size <= WAL_PASSIVE)
		return SQ_OK;
	/* TRUNCATE waits for readers with the busy handler; a reader that stays is no error. */
	rc = sqlite3_wal_checkpoint_v2(q->db, NULL, truncate ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	if (rc == SQLITE_OK || rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
		return SQ_OK;
	return sq_db_error(q, rc, "checkpoint", err);
}

void
sq_queue_rest(struct sq_queue *q)
{
	if (q->db)
		(void)sqlite3_db_release_memory(q->db);
	(void)malloc_trim(0);
}

void
sq_queue_close(struct sq_queue *q)
{
	int keep = errno;

	if (!q)
		return;
	if (q->writer && q->db)
		sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
	/*
	 * Nobody else has checkpointed for long: the next opener would have to read all of it. It must be
	 * truncated: an opener that recovers the log forgets what was checkpointed and can only append.
	 * Whoever holds a lock is not waited for.
	 */
	if (q->db && q->role == SQ_QUEUE_SUBMIT && (int64_t)q->wal_frames * PAGE > WAL_NOBODY) {
		sqlite3_busy_handler(q->db, NULL, NULL);
		sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	}
	for (size_t i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(q->slot[i].st);
	sqlite3_close(q->db);
	sq_closep(&q->waiting_fd);
	free(q->path);
	free(q);
	errno = keep;
}

void
sq_queue_closep(struct sq_queue **q)
{
	sq_queue_close(*q);
	*q = NULL;
}
