/*
 * The schema, as the steps that lead to it from an empty file. The array is
 * append-only: a step that has been released never changes, and the last
 * step's number is the user_version this build writes and understands.
 * Each step and its version are one transaction; the version is read again
 * under the write lock, because another process may have been faster.
 */
#include "db.h"

/*
 * Keys that need no index of their own:
 *   recipient.id = message << 16 | n
 *   content.id   = message << 20 | chunk (256 KiB each); an ingest's id becomes the message's
 *   attempt.id   = message << 20 | n; txn.id = the attempt that opened it
 * so everything of a message lies together and a submission dirties few pages.
 *
 * recipient copies route, priority and expiry of its message, so that "due on
 * this route", "next on this route" and "next to expire" are each one descent
 * of a partial index, however many others wait on other routes.
 *
 * No foreign key leads from content to message: chunks are committed before
 * the message exists.
 */
static const char *const step_1[] = {
	"CREATE TABLE meta ("
	"  key TEXT PRIMARY KEY,"
	"  value ANY NOT NULL"
	") STRICT, WITHOUT ROWID;"

	"CREATE TABLE route ("
	"  id INTEGER PRIMARY KEY,"
	"  name TEXT NOT NULL UNIQUE"
	") STRICT;"

	"CREATE TABLE message ("
	"  id INTEGER PRIMARY KEY,"
	"  message_id TEXT NOT NULL,"
	"  mid_hash INTEGER NOT NULL,"
	"  sender TEXT NOT NULL,"
	"  header_from TEXT NOT NULL,"
	"  subject TEXT NOT NULL,"
	"  route INTEGER NOT NULL REFERENCES route,"
	"  source TEXT NOT NULL,"
	"  uid INTEGER NOT NULL,"
	"  size INTEGER NOT NULL,"
	"  sha256 BLOB,"
	"  stored INTEGER NOT NULL,"        /* content is here */
	"  flags INTEGER NOT NULL,"
	"  ret INTEGER NOT NULL,"
	"  envid TEXT NOT NULL,"
	"  priority INTEGER NOT NULL,"
	"  auto_submitted INTEGER NOT NULL,"
	"  submitted_ms INTEGER NOT NULL,"
	"  not_before_ms INTEGER NOT NULL,"
	"  expires_ms INTEGER NOT NULL,"
	"  tries INTEGER NOT NULL DEFAULT 0,"     /* attempts that reached content */
	"  done_ms INTEGER NOT NULL DEFAULT 0"    /* all recipients final and reported since; 0: not */
	") STRICT;"
	"CREATE INDEX message_mid ON message (mid_hash);"
	"CREATE INDEX message_done ON message (stored, done_ms) WHERE done_ms > 0;"

	"CREATE TABLE ingest (id INTEGER PRIMARY KEY) STRICT;"
	"CREATE TABLE content (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;"

	"CREATE TABLE recipient ("
	"  id INTEGER PRIMARY KEY,"
	"  address TEXT NOT NULL,"
	"  orcpt TEXT NOT NULL,"
	"  notify INTEGER NOT NULL,"
	"  state INTEGER NOT NULL,"
	"  state_ms INTEGER NOT NULL,"
	"  route INTEGER NOT NULL,"
	"  priority INTEGER NOT NULL,"
	"  next_try_ms INTEGER NOT NULL,"
	"  expires_ms INTEGER NOT NULL,"
	"  epoch INTEGER NOT NULL DEFAULT 0,"
	"  attempt INTEGER NOT NULL DEFAULT 0,"   /* the last one */
	"  accepted INTEGER NOT NULL DEFAULT 0,"  /* RCPT answered 2yz in that attempt */
	"  txn INTEGER NOT NULL DEFAULT 0,"       /* what a resume continues */
	"  reported_ms INTEGER NOT NULL DEFAULT 0,"
	"  reply_code INTEGER NOT NULL DEFAULT 0,"
	"  reply_enhanced TEXT NOT NULL DEFAULT '',"
	"  reply_text TEXT NOT NULL DEFAULT ''"
	") STRICT;"
	"CREATE INDEX recipient_due ON recipient (route, priority, next_try_ms) WHERE state = 0;"
	"CREATE INDEX recipient_open ON recipient (state, route, expires_ms) WHERE state < 5;"
	"CREATE INDEX recipient_report ON recipient (state) WHERE state IN (3, 6, 7) AND reported_ms = 0;",

	"CREATE TABLE attempt ("
	"  id INTEGER PRIMARY KEY,"
	"  route INTEGER NOT NULL,"
	"  network TEXT NOT NULL,"
	"  first INTEGER NOT NULL,"               /* its recipients lie between these two */
	"  last INTEGER NOT NULL,"
	"  txn INTEGER NOT NULL DEFAULT 0,"
	"  started_ms INTEGER NOT NULL,"
	"  ended_ms INTEGER NOT NULL DEFAULT 0,"
	"  phase INTEGER NOT NULL DEFAULT 0,"
	"  outcome INTEGER NOT NULL DEFAULT 0,"
	"  counts INTEGER NOT NULL DEFAULT 1,"
	"  address TEXT NOT NULL DEFAULT '',"
	"  verb INTEGER NOT NULL DEFAULT 0,"
	"  octets_sent INTEGER NOT NULL DEFAULT 0,"
	"  octets_acked INTEGER NOT NULL DEFAULT 0,"
	"  octets_durable INTEGER NOT NULL DEFAULT 0,"
	"  reply_code INTEGER NOT NULL DEFAULT 0,"
	"  reply_enhanced TEXT NOT NULL DEFAULT '',"
	"  reply_text TEXT NOT NULL DEFAULT ''"
	") STRICT;"

	"CREATE TABLE txn ("
	"  id INTEGER PRIMARY KEY,"
	"  transid TEXT NOT NULL,"
	"  epoch INTEGER NOT NULL,"
	"  address TEXT NOT NULL,"
	"  verb INTEGER NOT NULL,"
	"  durable INTEGER NOT NULL DEFAULT 0"
	") STRICT;"

	"CREATE TABLE ledger ("
	"  id INTEGER PRIMARY KEY,"
	"  message_id TEXT NOT NULL,"
	"  mid_hash INTEGER NOT NULL,"
	"  recipient TEXT NOT NULL,"
	"  sha256 BLOB,"
	"  accepted_ms INTEGER NOT NULL,"
	"  route INTEGER NOT NULL,"
	"  message INTEGER NOT NULL,"
	"  epoch INTEGER NOT NULL,"
	"  provider_id TEXT NOT NULL,"
	"  source TEXT NOT NULL,"
	"  reply_code INTEGER NOT NULL,"
	"  reply_enhanced TEXT NOT NULL,"
	"  reply_text TEXT NOT NULL"
	") STRICT;"
	"CREATE INDEX ledger_mid ON ledger (mid_hash);"

	"CREATE TABLE link ("
	"  route INTEGER NOT NULL REFERENCES route,"
	"  network TEXT NOT NULL,"
	"  written INTEGER NOT NULL,"             /* the highest of a route is the latest */
	"  state TEXT NOT NULL, since_ms INTEGER NOT NULL, next_try_ms INTEGER NOT NULL,"
	"  cause TEXT NOT NULL, stopped INTEGER NOT NULL, failures INTEGER NOT NULL,"
	"  connects INTEGER NOT NULL, connect_failures INTEGER NOT NULL, cuts INTEGER NOT NULL,"
	"  octets INTEGER NOT NULL, seconds INTEGER NOT NULL,"
	"  rtt_us INTEGER NOT NULL, goodput_bps INTEGER NOT NULL,"
	"  last_ok_ms INTEGER NOT NULL, last_fail_ms INTEGER NOT NULL,"
	"  caps INTEGER NOT NULL, size_limit INTEGER NOT NULL, address TEXT NOT NULL,"
	"  reply_code INTEGER NOT NULL, reply_enhanced TEXT NOT NULL, reply_text TEXT NOT NULL,"
	"  PRIMARY KEY (route, network)"
	") STRICT, WITHOUT ROWID;"

	"CREATE TABLE learned ("
	"  route INTEGER NOT NULL REFERENCES route,"
	"  key TEXT NOT NULL,"
	"  value TEXT NOT NULL,"
	"  learned_ms INTEGER NOT NULL,"
	"  PRIMARY KEY (route, key)"
	") STRICT, WITHOUT ROWID;"

	"CREATE TABLE request ("
	"  id INTEGER PRIMARY KEY,"
	"  kind INTEGER NOT NULL,"
	"  message INTEGER NOT NULL,"
	"  address TEXT NOT NULL,"
	"  asked_ms INTEGER NOT NULL,"
	"  done_ms INTEGER NOT NULL DEFAULT 0,"
	"  ok INTEGER NOT NULL DEFAULT 0,"
	"  result TEXT NOT NULL DEFAULT ''"
	") STRICT;"
	"CREATE INDEX request_open ON request (id) WHERE done_ms = 0;"

	"INSERT INTO meta VALUES ('identity', lower(hex(randomblob(16)))),"
	"  ('ehlo_name', lower(hex(randomblob(8))) || '.invalid'), ('epoch', 0);"
	"PRAGMA application_id = 1936614513;",    /* SQ_APPLICATION_ID */
	NULL
};

/*
 * What is being done about a message in doubt. A row belongs to the doubt
 * that began at since_ms; one of an earlier doubt of the message is void.
 */
static const char *const step_2[] = {
	"CREATE TABLE doubt ("
	"  message INTEGER PRIMARY KEY,"
	"  since_ms INTEGER NOT NULL,"
	"  usable_ms INTEGER NOT NULL,"        /* time for which the link was usable since */
	"  asked INTEGER NOT NULL,"            /* times that evidence was asked for and answered */
	"  next_ask_ms INTEGER NOT NULL,"
	"  negatives INTEGER NOT NULL,"        /* negative answers that count, in a row */
	"  told_ms INTEGER NOT NULL,"          /* the sender was told last */
	"  source TEXT NOT NULL,"              /* of the last answer */
	"  answer INTEGER NOT NULL,"           /* enum sq_evidence_kind */
	"  quote TEXT NOT NULL"
	") STRICT;",
	NULL
};

/*
 * How good a link is and was, on which network this machine is, and why a
 * recipient waits (enum sq_waits).
 */
#define REAL_COLUMN(name) ", " #name " REAL NOT NULL DEFAULT 0"
static const char *const step_3[] = {
	"ALTER TABLE recipient ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;",
	"CREATE TABLE quality ("
	"  route INTEGER NOT NULL,"
	"  network TEXT NOT NULL,"
	"  at_ms INTEGER NOT NULL" SQ_QUALITY_LIST(REAL_COLUMN) ","
	"  PRIMARY KEY (route, network)"
	") STRICT, WITHOUT ROWID;",
	"CREATE TABLE link_past ("
	"  route INTEGER NOT NULL,"
	"  network TEXT NOT NULL,"
	"  at_ms INTEGER NOT NULL, ms INTEGER NOT NULL, octets INTEGER NOT NULL,"
	"  rtt_us INTEGER NOT NULL, retransmits INTEGER NOT NULL, cuts INTEGER NOT NULL,"
	"  PRIMARY KEY (at_ms, route, network)"
	") STRICT, WITHOUT ROWID;",
	"CREATE TABLE network ("
	"  seq INTEGER PRIMARY KEY,"              /* the highest is where we are */
	"  id TEXT NOT NULL UNIQUE,"
	"  interface TEXT NOT NULL,"
	"  since_ms INTEGER NOT NULL"
	") STRICT;",
	NULL
};

/*
 * Copies of which nobody knows whether they were accepted, counted where they
 * are sent again; what evidence says, told by requests; a message's own
 * policy for doubt (0: its route's).
 */
static const char *const step_4[] = {
	"ALTER TABLE message ADD COLUMN duplicates INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE recipient ADD COLUMN unknown_copies INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE ledger ADD COLUMN unknown_copies INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE request ADD COLUMN number INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE request ADD COLUMN code INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE request ADD COLUMN enhanced TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE request ADD COLUMN words TEXT NOT NULL DEFAULT '';",
	NULL
};

/*
 * What a resumed transfer goes by beside its TRANSID (RFC 1845): the name that
 * was said in EHLO, and what the server promised to remember. And whether a
 * person asked for the copy of this epoch.
 */
static const char *const step_5[] = {
	"ALTER TABLE txn ADD COLUMN ehlo_name TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE txn ADD COLUMN store TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE txn ADD COLUMN retained_until_ms INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE recipient ADD COLUMN by_hand INTEGER NOT NULL DEFAULT 0;",
	NULL
};

/*
 * What a request says beyond its kind; and who has how much waiting, where
 * many people share a queue (nobody else's submission touches that index).
 */
static const char *const step_6[] = {
	"ALTER TABLE request ADD COLUMN detail TEXT NOT NULL DEFAULT '';"
	"CREATE INDEX message_open_of ON message (uid) WHERE done_ms = 0 AND source = 'socket';"
	"ALTER TABLE ledger ADD COLUMN uid INTEGER NOT NULL DEFAULT -1;",
	NULL
};

/* When a message broke off of which its sender is yet to be told, and when he was told last. */
static const char *const step_7[] = {
	"ALTER TABLE message ADD COLUMN cut_ms INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE message ADD COLUMN cut_told_ms INTEGER NOT NULL DEFAULT 0;"
	"CREATE INDEX message_cut ON message (cut_ms) WHERE cut_ms > 0;",
	NULL
};

/* As whom a resumable transaction was begun: servers keep them by login, and promise nothing to another one. */
static const char *const step_8[] = {
	"ALTER TABLE txn ADD COLUMN login TEXT NOT NULL DEFAULT '';",
	NULL
};

/* Since when a network asks for a sign-in (captive portal). */
static const char *const step_9[] = {
	"ALTER TABLE network ADD COLUMN portal_ms INTEGER NOT NULL DEFAULT 0;",
	NULL
};

static const char *const *const steps[] = { step_1, step_2, step_3, step_4, step_5, step_6, step_7, step_8, step_9 };

int
sq_migrate_latest(void)
{
	return (int)SQ_LEN(steps);
}

/* Whose file is this? An empty one may become ours; anything else must carry our id. */
static enum sq_err
check_owner(struct sq_queue *q, int64_t *version, struct sq_error *err)
{
	int64_t app = 0, tables = 0;
	enum sq_err e;

	if ((e = sq_db_int(q, SQL_APPLICATION_ID, &app, err)) != SQ_OK ||
	    (e = sq_db_int(q, SQL_USER_VERSION, version, err)) != SQ_OK)
		return e;
	if (app == 0 && *version == 0 && (e = sq_db_int(q, SQL_COUNT_SCHEMA, &tables, err)) != SQ_OK)
		return e;
	if (app != SQ_APPLICATION_ID && (app != 0 || *version != 0 || tables > 0))
		return sq_error_set(err, SQ_ECORRUPT, "'%s' is a database of another program, not a queue of sendq", q->path);
	if (*version > sq_migrate_latest())
		return sq_error_set(err, SQ_ENEWER, "queue '%s' has version %lld, this sendq knows %d: "
			"install the newer sendq again, or name another queue", q->path, (long long)*version, sq_migrate_latest());
	return SQ_OK;
}

static enum sq_err
migrate_step(struct sq_queue *q, int *done, struct sq_error *err)
{
	SQ_TX(tx);
	int64_t version;
	char text[64];
	enum sq_err e;

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK || (e = check_owner(q, &version, err)) != SQ_OK)
		return e;
	*done = (int)version + 1;
	if (version == sq_migrate_latest())
		return sq_tx_commit(&tx, err);
	snprintf(text, sizeof(text), "PRAGMA user_version = %d;", (int)version + 1);
	for (const char *const *sql = steps[version]; e == SQ_OK && *sql; sql++)
		e = sq_db_exec(q, *sql, err);
	if (e != SQ_OK || (e = sq_db_exec(q, text, err)) != SQ_OK)
		return sq_error_wrap(err, e, "cannot bring '%s' to version %d", q->path, (int)version + 1);
	return sq_tx_commit(&tx, err);
}

/* In one view: another process may be making the first version at this moment. */
static enum sq_err
look(struct sq_queue *q, int64_t *version, struct sq_error *err)
{
	SQ_TX(tx);
	enum sq_err e = sq_tx_read(&tx, q, __func__, err);

	if (e == SQ_OK)
		e = check_owner(q, version, err);
	return e == SQ_OK ? sq_tx_commit(&tx, err) : e;
}

enum sq_err
sq_migrate(struct sq_queue *q, struct sq_error *err)
{
	int64_t version;
	int done = 0;
	enum sq_err e = look(q, &version, err);

	if (e != SQ_OK || version == sq_migrate_latest())
		return e;
	while (done < sq_migrate_latest())
		if ((e = migrate_step(q, &done, err)) != SQ_OK)
			return e;
	return SQ_OK;
}
