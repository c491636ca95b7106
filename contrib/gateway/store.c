/*
 * The store. Owns store.db, its schema, its identity, and the rule
 * that an octet is counted only after the commit that holds it. Whoever has
 * the number in txn.owner has the transaction; a resume writes a new number,
 * which makes everything that the older session still tries void. Here: the
 * database itself. Transactions stand in transaction.c, their end in settle.c.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

static const char schema[] =
	"PRAGMA application_id = 1936156535;"
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
	"CREATE TABLE txn (id INTEGER PRIMARY KEY AUTOINCREMENT, auth TEXT NOT NULL, ehlo TEXT NOT NULL, transid TEXT,"
	" sender TEXT NOT NULL, params TEXT NOT NULL, declared INTEGER NOT NULL, resend INTEGER NOT NULL,"
	" owner INTEGER NOT NULL, verb INTEGER NOT NULL DEFAULT 0, octets INTEGER NOT NULL DEFAULT 0,"
	" name TEXT NOT NULL UNIQUE, sha256 TEXT, verdict TEXT, body INTEGER NOT NULL DEFAULT 1, begun_ms INTEGER NOT NULL,"
	" touched_ms INTEGER NOT NULL, UNIQUE (auth, ehlo, transid)) STRICT;"
	"CREATE INDEX txn_bodies ON txn (auth, octets) WHERE body = 1;"
	"CREATE TABLE rcpt (txn INTEGER NOT NULL REFERENCES txn ON DELETE CASCADE, address TEXT NOT NULL,"
	" state INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (txn, address)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE chunk (txn INTEGER NOT NULL REFERENCES txn ON DELETE CASCADE, start INTEGER NOT NULL,"
	" octets BLOB NOT NULL, UNIQUE (txn, start)) STRICT;"
	"CREATE TABLE accepted (auth TEXT NOT NULL, message_id TEXT NOT NULL, sha256 TEXT NOT NULL, address TEXT NOT NULL,"
	" name TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (auth, message_id, sha256, address)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE user (auth TEXT PRIMARY KEY, allow_duplicates INTEGER NOT NULL DEFAULT 0,"
	" partial INTEGER NOT NULL DEFAULT 0) STRICT;"
	"PRAGMA user_version = 1;";

#ifdef SENDQ_FAULTS
bool gw_points_armed;

void
gw_point(void)
{
	static long left = -1;
	const char *text = getenv("SENDQ_GATEWAY_KILL");

	if (!gw_points_armed)
		return;
	if (left < 0)
		left = text ? strtol(text, NULL, 10) : 0;
	if (left > 0 && --left == 0)
		raise(SIGKILL);
}
#endif

void
gw_stmt_freep(sqlite3_stmt **st)
{
	sqlite3_finalize(*st);
}

static enum sq_err
db_error(struct gw_store *s, int rc, const char *sql, struct sq_error *err)
{
	enum sq_err e = SQ_EIO;

	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		e = SQ_EBUSY;
		break;
	case SQLITE_FULL:
		e = SQ_ENOSPC;
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		e = SQ_ECORRUPT;
		break;
	default:
		break;
	}
	return sq_error_set(err, e, "%s: %s", sql, sqlite3_errmsg(s->db));
}

static int
bind(sqlite3_stmt *st, int at, char type, va_list *args)
{
	const void *p;
	const char *text;

	if (type == 'i')
		return sqlite3_bind_int64(st, at, va_arg(*args, int64_t));
	if (type == 's') {
		text = va_arg(*args, const char *);
		return sqlite3_bind_text(st, at, text, -1, SQLITE_TRANSIENT);
	}
	p = va_arg(*args, const void *);
	return sqlite3_bind_blob64(st, at, p, va_arg(*args, size_t), SQLITE_STATIC);
}

enum sq_err
gw_sql(struct gw_store *s, sqlite3_stmt **row, struct sq_error *err, const char *sql, const char *types, ...)
{
	STMT st = NULL;
	va_list args;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

	va_start(args, types);
	for (int i = 0; rc == SQLITE_OK && types[i]; i++)
		rc = bind(st, i + 1, types[i], &args);
	va_end(args);
	if (rc == SQLITE_OK) {
		do
			rc = sqlite3_step(st);
		while (rc == SQLITE_ROW && !row);
	}
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		return db_error(s, rc, sql, err);
	if (row) {
		*row = rc == SQLITE_ROW ? st : NULL;
		if (*row)
			st = NULL;
	}
	return SQ_OK;
}

enum sq_err
gw_store_lock(struct gw_store *s, struct sq_error *err)
{
	enum sq_err e = gw_sql(s, NULL, err, "BEGIN IMMEDIATE", "");

	s->inside = e == SQ_OK;
	return e;
}

enum sq_err
gw_store_commit(struct gw_store *s, struct sq_error *err)
{
	enum sq_err e;

	gw_point();
	e = gw_sql(s, NULL, err, "COMMIT", "");
	if (e == SQ_OK) {
		s->inside = false;
		gw_point();
	}
	return e;
}

void
gw_store_rollback(struct gw_store *s)
{
	if (s->inside && !sqlite3_get_autocommit(s->db))
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	s->inside = false;
}

enum sq_err
gw_store_end(struct gw_store *s, enum sq_err e, struct sq_error *err)
{
	if (e == SQ_OK)
		e = gw_store_commit(s, err);
	gw_store_rollback(s);
	return e;
}

/* ---- opening */

static void
new_uuid(char out[37])
{
	unsigned char raw[16];
	char hex[33];

	sq_random(raw, sizeof(raw));
	raw[6] = (unsigned char)((raw[6] & 0x0f) | 0x40);
	raw[8] = (unsigned char)((raw[8] & 0x3f) | 0x80);
	sq_hex(raw, sizeof(raw), hex);
	snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

static enum sq_err
meta_get(struct gw_store *s, const char *key, char *out, size_t room, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e = gw_sql(s, &row, err, "SELECT value FROM meta WHERE key = ?", "s", key);

	if (e == SQ_OK)
		snprintf(out, room, "%s", row ? (const char *)sqlite3_column_text(row, 0) : "");
	return e;
}

static enum sq_err
meta_set(struct gw_store *s, const char *key, const char *value, struct sq_error *err)
{
	return gw_sql(s, NULL, err, "INSERT OR REPLACE INTO meta VALUES (?, ?)", "ss", key, value);
}

/* What the file beside the store says: a random word and its own inode, which a copy does not share. */
static void
mark_read(const char *path, char out[64])
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char word[33] = "";

	out[0] = 0;
	if (fd >= 0 && fstat(fd, &st) == 0 && read(fd, word, 32) == 32)
		snprintf(out, 64, "%s %ju", word, (uintmax_t)st.st_ino);
}

static enum sq_err
mark_write(const char *path, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	unsigned char raw[16];
	char word[33];
	enum sq_err e;

	sq_random(raw, sizeof(raw));
	sq_hex(raw, sizeof(raw), word);
	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", path);
	if ((e = sq_write_all(fd, word, 32, err)) != SQ_OK)
		return e;
	if (fsync(fd) != 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", path);
	return sq_fsync_parent(path, err);
}

static enum sq_err
renew(struct gw_store *s, struct sq_error *err)
{
	enum sq_err e;

	new_uuid(s->id);
	if ((e = meta_set(s, "id", s->id, err)) != SQ_OK)
		return e;
	return gw_sql(s, NULL, err, "DELETE FROM txn WHERE verdict IS NULL", "");
}

enum sq_err
gw_store_check_mark(struct gw_store *s, const char *dir, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(dir, "/mark");
	char beside[64], inside[64] = "";
	enum sq_err e;

	if (!path)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = gw_store_lock(s, err)) != SQ_OK)
		return e;
	mark_read(path, beside);
	e = meta_get(s, "mark", inside, sizeof(inside), err);
	if (e == SQ_OK && (!inside[0] || strcmp(beside, inside) != 0))
		e = renew(s, err);
	if (e == SQ_OK)
		e = mark_write(path, err);
	mark_read(path, beside);
	if (e == SQ_OK)
		e = meta_set(s, "mark", beside, err);
	return gw_store_end(s, e, err);
}

static enum sq_err
prepare(struct gw_store *s, struct sq_error *err)
{
	STMT row = NULL;
	int64_t version;
	enum sq_err e;

	if (sqlite3_exec(s->db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
				"PRAGMA secure_delete = ON; PRAGMA trusted_schema = OFF", NULL, NULL, NULL) != SQLITE_OK)
		return db_error(s, sqlite3_errcode(s->db), "PRAGMA", err);
	if ((e = gw_sql(s, &row, err, "PRAGMA user_version", "")) != SQ_OK)
		return e;
	version = row ? sqlite3_column_int64(row, 0) : 0;
	sqlite3_reset(row);
	if (version > 1)
		return sq_error_set(err, SQ_ENEWER, "the store was written by a newer sendq-gateway");
	if (version == 0) {
		if ((e = gw_store_lock(s, err)) != SQ_OK)
			return e;
		if (sqlite3_exec(s->db, schema, NULL, NULL, NULL) != SQLITE_OK)
			e = db_error(s, sqlite3_errcode(s->db), "schema", err);
		if ((e = gw_store_end(s, e, err)) != SQ_OK)
			return e;
	}
	return meta_get(s, "id", s->id, sizeof(s->id), err);
}

enum sq_err
gw_store_open(const char *dir, struct gw_store **out, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(dir, "/store.db");
	SQ_CLEANUP(sq_freep) char *locks = sq_path_suffix(dir, "/locks");
	struct gw_store *s = calloc(1, sizeof(*s));
	enum sq_err e;

	if (!path || !locks || !s) {
		free(s);
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	s->locks = -1;
	if ((e = sq_mkdirs(dir, err)) != SQ_OK) {
		free(s);
		return e;
	}
	if ((s->locks = open(locks, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
		e = sq_error_errno(err, SQ_EIO, "cannot open '%s'", locks);
	else if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXRESCODE, NULL))
		e = sq_error_set(err, SQ_EIO, "cannot open '%s': %s", path, s->db ? sqlite3_errmsg(s->db) : "no memory");
	else if (sqlite3_busy_timeout(s->db, 20000) == SQLITE_OK)
		e = prepare(s, err);
	if (e != SQ_OK)
		gw_store_free(s);
	else
		*out = s;
	return e;
}

void
gw_store_free(struct gw_store *s)
{
	if (!s)
		return;
	gw_store_rollback(s);
	sqlite3_close_v2(s->db);
	sq_closep(&s->locks);
	free(s);
}

const char *
gw_store_id(const struct gw_store *s)
{
	return s->id;
}

void
gw_store_limits(struct gw_store *s, const struct gw_limits *limits, const char *maildir)
{
	s->limits = limits;
	s->maildir = maildir;
}
