/*
 * The store's database: opening, schema, identity, statements. Transactions
 * stand in transaction.c, their end in settle.c.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

/*
 * txn.verb, enum gw_verb. txn.settling: the backend may have accepted it, and
 * nobody knows until verdict is set. txn.body: files are there.
 * txn.kind: 0 an open or ended transaction, 1 a duplicate that was set aside.
 * segment.octets: how much of the file counts; NULL while its session adds to
 * it. user: NULL where the configuration's word holds.
 */
static const char schema[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
	"CREATE TABLE txn (id INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL DEFAULT 0, auth TEXT NOT NULL,"
	" ehlo TEXT NOT NULL, transid TEXT, sender TEXT NOT NULL, params TEXT NOT NULL, declared INTEGER NOT NULL,"
	" resend INTEGER NOT NULL, owner INTEGER NOT NULL, verb INTEGER NOT NULL, octets INTEGER NOT NULL DEFAULT 0,"
	" name TEXT NOT NULL UNIQUE, message_id TEXT, sha256 TEXT, settling INTEGER NOT NULL DEFAULT 0, verdict TEXT,"
	" body INTEGER NOT NULL DEFAULT 1, alerted_ms INTEGER, begun_ms INTEGER NOT NULL, touched_ms INTEGER NOT NULL,"
	" UNIQUE (auth, ehlo, transid)) STRICT;"
	"CREATE INDEX txn_bodies ON txn (auth, octets) WHERE body = 1;"
	"CREATE TABLE rcpt (txn INTEGER NOT NULL REFERENCES txn ON DELETE CASCADE, address TEXT NOT NULL,"
	" params TEXT NOT NULL, PRIMARY KEY (txn, address)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE segment (txn INTEGER NOT NULL REFERENCES txn ON DELETE CASCADE, start INTEGER NOT NULL,"
	" octets INTEGER, file TEXT NOT NULL UNIQUE, PRIMARY KEY (txn, start)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE accepted (auth TEXT NOT NULL, message_id TEXT NOT NULL, sha256 TEXT NOT NULL, address TEXT NOT NULL,"
	" name TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (auth, message_id, sha256, address)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE user (auth TEXT PRIMARY KEY, allow_duplicates INTEGER, partial INTEGER) STRICT;"
	"PRAGMA application_id = 1936156535;"
	"PRAGMA user_version = 1;";

/*
 * Statements stay prepared until their store is closed: to parse one costs more than to run it. Found by where their
 * text stands; what has no room here is finalized at once.
 */
static struct { const char *sql; sqlite3_stmt *st; } kept[64];

static int
prepared(struct gw_store *s, const char *sql, sqlite3_stmt **st)
{
	size_t room = SQ_LEN(kept);
	int rc;

	for (size_t i = 0; i < SQ_LEN(kept); i++) {
		if (!kept[i].st)
			room = i;
		else if (kept[i].sql == sql && sqlite3_db_handle(kept[i].st) == s->db && !sqlite3_stmt_busy(kept[i].st) &&
			 strcmp(sqlite3_sql(kept[i].st), sql) == 0) {
			*st = kept[i].st;
			return SQLITE_OK;
		}
	}
	rc = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, st, NULL);
	if (rc == SQLITE_OK && room < SQ_LEN(kept))
		kept[room].sql = sql, kept[room].st = *st;
	return rc;
}

void
gw_stmt_freep(sqlite3_stmt **st)
{
	size_t i = 0;

	while (*st && i < SQ_LEN(kept) && kept[i].st != *st)
		i++;
	if (!*st || i == SQ_LEN(kept)) {
		sqlite3_finalize(*st);
	} else {
		sqlite3_reset(*st);
		sqlite3_clear_bindings(*st);
	}
	*st = NULL;
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

enum sq_err
gw_sql(struct gw_store *s, sqlite3_stmt **row, struct sq_error *err, const char *sql, const char *types, ...)
{
	STMT st = NULL;
	va_list args;
	int rc = prepared(s, sql, &st);

	va_start(args, types);
	for (int i = 0; rc == SQLITE_OK && types[i]; i++)
		rc = types[i] == 'i' ? sqlite3_bind_int64(st, i + 1, va_arg(args, int64_t)) :
				       sqlite3_bind_text(st, i + 1, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
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

void
gw_column(sqlite3_stmt *row, int at, char *out, size_t room)
{
	const char *text = (const char *)sqlite3_column_text(row, at);

	snprintf(out, room, "%s", text ? text : "");
}

enum sq_err
gw_store_lock(struct gw_store *s, enum gw_durability how, struct sq_error *err)
{
	bool lazy = how == GW_LAZY;
	enum sq_err e;

	if (s->lazy != lazy) {
		/* Not kept prepared: it takes effect when it is parsed. */
		const char *sql = lazy ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL";

		if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
			return db_error(s, sqlite3_errcode(s->db), sql, err);
		s->lazy = lazy;
	}
	e = gw_sql(s, NULL, err, "BEGIN IMMEDIATE", "");
	s->inside = e == SQ_OK;
	return e;
}

/* ---- identity */

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

	if (e == SQ_OK && row)
		gw_column(row, 0, out, room);
	else
		out[0] = 0;
	return e;
}

static enum sq_err
meta_set(struct gw_store *s, const char *key, const char *value, struct sq_error *err)
{
	return gw_sql(s, NULL, err, "INSERT OR REPLACE INTO meta VALUES (?, ?)", "ss", key, value);
}

/*
 * Beside the store lies the file `mark`: a random word of the last start, and
 * how many durable commits there have been. A store that knows another word, another
 * inode of that file or fewer commits is an older copy put back.
 */
enum { WORD = 32, MARK_MAX = 128 };

static void
mark_read(struct gw_store *s, char word[MARK_MAX], int64_t *count)
{
	char text[WORD + 21] = "";
	struct stat st;

	word[0] = 0;
	*count = 0;
	if (fstat(s->mark, &st) != 0 || pread(s->mark, text, sizeof(text) - 1, 0) <= WORD)
		return;
	*count = strtoll(text + WORD, NULL, 10);
	snprintf(word, MARK_MAX, "%.32s %ju", text, (uintmax_t)st.st_ino);
}

static enum sq_err
mark_write(struct gw_store *s, int64_t count, struct sq_error *err)
{
	unsigned char raw[WORD / 2];
	char text[WORD + 21];

	sq_random(raw, sizeof(raw));
	sq_hex(raw, sizeof(raw), text);
	snprintf(text + WORD, sizeof(text) - WORD, "%020" PRId64, count);
	if (pwrite(s->mark, text, sizeof(text) - 1, 0) != sizeof(text) - 1 || fsync(s->mark) != 0)
		return sq_error_errno(err, SQ_EIO, "cannot write the store's mark");
	return SQ_OK;
}

/* Beside the store, after the commit: it is never ahead of a store that the machine's end has thrown back. */
static void
mark_count(struct gw_store *s, int64_t count)
{
	char text[21];

	snprintf(text, sizeof(text), "%020" PRId64, count);
	(void)!pwrite(s->mark, text, sizeof(text) - 1, WORD);
}

static enum sq_err
count_get(struct gw_store *s, int64_t *out, struct sq_error *err)
{
	char text[32];
	enum sq_err e = meta_get(s, "count", text, sizeof(text), err);

	*out = strtoll(text, NULL, 10);
	return e;
}

enum sq_err
gw_store_end(struct gw_store *s, enum sq_err e, struct sq_error *err)
{
	int64_t count = 0;

	if (e == SQ_OK && !s->lazy) {
		if ((e = count_get(s, &count, err)) == SQ_OK)
			e = gw_sql(s, NULL, err, "INSERT OR REPLACE INTO meta VALUES ('count', CAST(? AS TEXT))", "i", ++count);
	}
	if (e == SQ_OK) {
		gw_point();
		if ((e = gw_sql(s, NULL, err, "COMMIT", "")) == SQ_OK) {
			s->inside = false;
			gw_point();
			if (count > 0)
				mark_count(s, count);
		}
	}
	if (s->inside && !sqlite3_get_autocommit(s->db))
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	s->inside = false;
	return e;
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
gw_store_check_mark(struct gw_store *s, struct sq_error *err)
{
	char beside[MARK_MAX], inside[MARK_MAX] = "";
	int64_t count_beside, count;
	enum sq_err e;

	if ((e = gw_store_lock(s, GW_DURABLE, err)) != SQ_OK)
		return e;
	mark_read(s, beside, &count_beside);
	if ((e = meta_get(s, "mark", inside, sizeof(inside), err)) == SQ_OK)
		e = count_get(s, &count, err);
	if (e == SQ_OK && (!inside[0] || strcmp(beside, inside) != 0 || count < count_beside))
		e = renew(s, err);
	/* A crash between the two makes it look restored: a new id, and nothing worse. */
	if (e == SQ_OK)
		e = mark_write(s, count, err);
	mark_read(s, beside, &count_beside);
	if (e == SQ_OK)
		e = meta_set(s, "mark", beside, err);
	return gw_store_end(s, e, err);
}

/* ---- opening */

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
	gw_stmt_freep(&row);
	if (version > 1)
		return sq_error_set(err, SQ_ENEWER, "the store was written by a newer sendq-gateway");
	if (version == 0) {
		if ((e = gw_store_lock(s, GW_DURABLE, err)) != SQ_OK)
			return e;
		/* Somebody else may have made it while we waited. */
		if ((e = gw_sql(s, &row, err, "PRAGMA user_version", "")) == SQ_OK && row && sqlite3_column_int64(row, 0) == 0) {
			gw_stmt_freep(&row);
			if (sqlite3_exec(s->db, schema, NULL, NULL, NULL) != SQLITE_OK)
				e = db_error(s, sqlite3_errcode(s->db), "schema", err);
		}
		gw_stmt_freep(&row);
		if ((e = gw_store_end(s, e, err)) != SQ_OK)
			return e;
	}
	return meta_get(s, "id", s->id, sizeof(s->id), err);
}

static enum sq_err
open_all(struct gw_store *s, const char *dir, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(dir, "/store.db");
	SQ_CLEANUP(sq_freep) char *locks = sq_path_suffix(dir, "/locks");
	SQ_CLEANUP(sq_freep) char *spool = sq_path_suffix(dir, "/spool");
	SQ_CLEANUP(sq_freep) char *mark = sq_path_suffix(dir, "/mark");
	enum sq_err e;

	if (!path || !locks || !spool || !mark)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = sq_mkdirs(spool, err)) != SQ_OK)
		return e;
	if ((s->spool = open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open '%s'", spool);
	if ((s->locks = open(locks, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open '%s'", locks);
	if ((s->mark = open(mark, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open '%s'", mark);
	if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXRESCODE, NULL))
		return sq_error_set(err, SQ_EIO, "cannot open '%s': %s", path, s->db ? sqlite3_errmsg(s->db) : "no memory");
	sqlite3_busy_timeout(s->db, 20000);
	if ((e = prepare(s, err)) != SQ_OK)
		return sq_error_wrap(err, e, "cannot use '%s'", path);
	return SQ_OK;
}

enum sq_err
gw_store_open(const char *dir, const struct gw_limits *limits, struct gw_store **out, struct sq_error *err)
{
	struct gw_store *s = calloc(1, sizeof(*s));
	mode_t mask = umask(077);
	enum sq_err e;

	if (!s) {
		umask(mask);
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	s->locks = s->spool = s->mark = -1;
	s->limits = limits;
	e = open_all(s, dir, err);
	umask(mask);
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
	for (size_t i = 0; i < SQ_LEN(kept); i++) {
		if (kept[i].st && sqlite3_db_handle(kept[i].st) == s->db) {
			sqlite3_finalize(kept[i].st);
			kept[i].st = NULL;
		}
	}
	sqlite3_close_v2(s->db);
	sq_closep(&s->locks);
	sq_closep(&s->spool);
	sq_closep(&s->mark);
	free(s);
}

void
gw_store_freep(struct gw_store **s)
{
	gw_store_free(*s);
	*s = NULL;
}
