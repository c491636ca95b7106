/*
 * How a message ends: duplicates are set aside, the rest is delivered, and the
 * verdict is stored before anybody hears it. One content is settled by one
 * session at a time; the others wait and find the verdict.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include <sendq/io.h>

enum { HEADER_MAX = 256 * 1024 };

struct message {
	int64_t id, octets;
	bool resend, allow;
	char auth[GW_NAME_MAX + 1], sender[GW_ADDRESS_MAX + 1], name[33], sha256[65];
	char message_id[512];   /* "" when it has none: then nothing is a duplicate of it */
	char known_as[33];      /* the name under which it came before */
	struct gw_verdict verdict;
};

/* Hold the byte that belongs to this content; the process's end lets it go too. */
static enum sq_err
content_lock(struct gw_store *s, const char *sha256, short how, struct sq_error *err)
{
	struct flock lock = { .l_type = how, .l_whence = SEEK_SET, .l_len = 1 };
	char first[16] = "";

	memcpy(first, sha256, 15);
	lock.l_start = (off_t)strtoll(first, NULL, 16);
	while (fcntl(s->locks, F_OFD_SETLKW, &lock) != 0)
		if (errno != EINTR)
			return sq_error_errno(err, SQ_EIO, "cannot lock");
	return SQ_OK;
}

static enum sq_err
load(struct gw_store *s, struct message *m, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e = gw_sql(s, &row, err,
	    "SELECT t.octets, t.resend, t.auth, t.sender, t.name, coalesce(t.verdict, ''), coalesce(u.allow_duplicates, 0)"
	    " FROM txn t LEFT JOIN user u ON u.auth = t.auth WHERE t.id = ?",
	    "i", m->id);

	if (e != SQ_OK)
		return e;
	if (!row)
		return sq_error_set(err, SQ_EPERM, "the transaction is gone");
	m->octets = sqlite3_column_int64(row, 0);
	m->resend = sqlite3_column_int(row, 1);
	snprintf(m->auth, sizeof(m->auth), "%s", (const char *)sqlite3_column_text(row, 2));
	snprintf(m->sender, sizeof(m->sender), "%s", (const char *)sqlite3_column_text(row, 3));
	snprintf(m->name, sizeof(m->name), "%s", (const char *)sqlite3_column_text(row, 4));
	snprintf(m->verdict.text, sizeof(m->verdict.text), "%s", (const char *)sqlite3_column_text(row, 5));
	m->allow = sqlite3_column_int(row, 6);
	return SQ_OK;
}

/* ---- Message-ID */

static enum sq_err
header_take(void *ctx, const char *p, size_t n, struct sq_error *err)
{
	struct sq_buf *head = ctx;
	size_t room = HEADER_MAX - head->n;

	(void)err;
	sq_buf_add(head, p, n < room ? n : room);
	return strstr(head->p ? head->p : "", "\r\n\r\n") || head->n == HEADER_MAX ? SQ_EEOF : SQ_OK;
}

static void
find_message_id(const char *head, char *out, size_t room)
{
	const char *line = head, *end = strstr(head, "\r\n\r\n");

	for (; line && (!end || line < end); line = (line = strstr(line, "\r\n")) ? line + 2 : NULL) {
		size_t n;

		if (strncasecmp(line, "Message-ID:", 11) != 0)
			continue;
		line += 11 + strspn(line + 11, " \t\r\n");
		n = strcspn(line, " \t\r\n");
		if (n < room) {
			memcpy(out, line, n);
			out[n] = 0;
		}
		return;
	}
}

static enum sq_err
read_message_id(struct gw_store *s, struct message *m, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf head = SQ_BUF_INIT(HEADER_MAX);
	enum sq_err e = gw_store_read(s, m->id, m->octets, header_take, &head, err);

	if (e != SQ_OK && e != SQ_EEOF)
		return e;
	if (head.p && !head.failed)
		find_message_id(head.p, m->message_id, sizeof(m->message_id));
	return SQ_OK;
}

/* ---- recipients */

static bool
came_before(struct gw_store *s, struct message *m, const char *address)
{
	STMT row = NULL;

	if (m->resend || m->allow || !m->message_id[0])
		return false;
	if (gw_sql(s, &row, NULL,
		"SELECT name FROM accepted WHERE auth = ? AND message_id = ? AND sha256 = ? AND address = ? AND at_ms > ?"
		" AND name <> ?", "ssssis", m->auth, m->message_id, m->sha256, address,
		sq_wall_ms() - s->limits->duplicate_s * 1000, m->name) != SQ_OK || !row)
		return false;
	snprintf(m->known_as, sizeof(m->known_as), "%s", (const char *)sqlite3_column_text(row, 0));
	return true;
}

static enum sq_err
write_take(void *ctx, const char *p, size_t n, struct sq_error *err)
{
	return gw_maildir_write(ctx, p, n, err);
}

static enum sq_err
deliver(struct gw_store *s, struct message *m, const char *address, const char *trace, struct sq_error *err)
{
	SQ_CLEANUP(gw_maildir_freep) struct gw_drop *drop = NULL;
	SQ_CLEANUP(sq_buf_fini) struct sq_buf head = SQ_BUF_INIT(8192);
	char date[40];
	struct sq_str view;
	enum sq_err e;

	if ((e = gw_maildir_begin(s->maildir, address, m->name, &drop, err)) != SQ_OK || !drop)
		return e;
	sq_format_date(sq_wall_ms(), date);
	sq_buf_addf(&head, "Return-Path: <%s>\r\nDelivered-To: %s\r\n%s id %s;\r\n\t%s\r\n", m->sender, address, trace,
	    m->name, date);
	if ((e = sq_buf_view(&head, &view, err)) != SQ_OK || (e = gw_maildir_write(drop, view.p, view.n, err)) != SQ_OK)
		return e;
	if ((e = gw_store_read(s, m->id, m->octets, write_take, drop, err)) != SQ_OK)
		return e;
	return gw_maildir_commit(drop, err);
}

enum { RCPT_OPEN, RCPT_DONE, RCPT_DUPLICATE };

/* One recipient that is still open: *any is false when there is none left. */
static enum sq_err
next_rcpt(struct gw_store *s, struct message *m, const char *trace, bool *any, struct sq_error *err)
{
	STMT row = NULL;
	char address[GW_ADDRESS_MAX + 1];
	int64_t state = RCPT_DONE;
	enum sq_err e = gw_sql(s, &row, err, "SELECT address FROM rcpt WHERE txn = ? AND state = 0 LIMIT 1", "i", m->id);

	*any = row;
	if (e != SQ_OK || !row)
		return e;
	snprintf(address, sizeof(address), "%s", (const char *)sqlite3_column_text(row, 0));
	sqlite3_reset(row);
	if (came_before(s, m, address))
		state = RCPT_DUPLICATE;
	else if ((e = deliver(s, m, address, trace, err)) != SQ_OK)
		return e;
	if ((e = gw_store_lock(s, err)) != SQ_OK)
		return e;
	e = gw_sql(s, NULL, err, "UPDATE rcpt SET state = ? WHERE txn = ? AND address = ?", "iis", state, m->id, address);
	if (e == SQ_OK && state == RCPT_DONE && m->message_id[0])
		e = gw_sql(s, NULL, err, "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?, ?, ?, ?)", "sssssi", m->auth,
		    m->message_id, m->sha256, address, m->name, sq_wall_ms());
	return gw_store_end(s, e, err);
}

static enum sq_err
give_verdict(struct gw_store *s, struct message *m, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e =
	    gw_sql(s, &row, err, "SELECT count(*) FROM rcpt WHERE txn = ? AND state = 1", "i", m->id);
	bool fresh = row && sqlite3_column_int64(row, 0) > 0;

	sqlite3_reset(row);
	if (e != SQ_OK || (e = gw_store_lock(s, err)) != SQ_OK)
		return e;
	if (fresh)
		snprintf(m->verdict.text, sizeof(m->verdict.text), "250 2.0.0 delivered as %s", m->name);
	else
		snprintf(m->verdict.text, sizeof(m->verdict.text), "250 2.0.0 duplicate of %s", m->known_as);
	e = gw_sql(s, NULL, err, "UPDATE txn SET verdict = ?, sha256 = ?, touched_ms = ? WHERE id = ?", "ssii",
	    m->verdict.text, m->sha256, sq_wall_ms(), m->id);
	return gw_store_end(s, e, err);
}

static enum sq_err
settle(struct gw_store *s, struct message *m, const struct gw_txn *txn, const char *trace, struct sq_error *err)
{
	bool any = true;
	enum sq_err e;

	/* Now that we hold the content: another session may have ended it, or taken it. */
	if ((e = load(s, m, err)) != SQ_OK || m->verdict.text[0])
		return e;
	if ((e = gw_store_owned(s, txn, err)) != SQ_OK || (e = read_message_id(s, m, err)) != SQ_OK)
		return e;
	while (any)
		if ((e = next_rcpt(s, m, trace, &any, err)) != SQ_OK)
			return e;
	return give_verdict(s, m, err);
}

enum sq_err
gw_store_finish(void *store, const struct gw_txn *txn, const char *trace, struct gw_verdict *out, struct sq_error *err)
{
	struct gw_store *s = store;
	struct message m = { .id = txn->id };
	enum sq_err e;

	if ((e = gw_store_owned(s, txn, err)) != SQ_OK || (e = load(s, &m, err)) != SQ_OK)
		return e;
	if (!m.verdict.text[0]) {
		if ((e = gw_store_hash(s, m.id, m.octets, m.sha256, err)) != SQ_OK ||
		    (e = content_lock(s, m.sha256, F_WRLCK, err)) != SQ_OK)
			return e;
		e = settle(s, &m, txn, trace, err);
		if (content_lock(s, m.sha256, F_UNLCK, NULL) != SQ_OK)
			sq_bug("cannot unlock");
	}
	if (e == SQ_OK)
		*out = m.verdict;
	return e;
}
