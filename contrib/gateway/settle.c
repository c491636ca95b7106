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
#include <sendq/log.h>

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

/*
 * What the store has of it: the verdict, or ""; `again`: an earlier try was at the point where the backend
 * may accept it, and ended nobody knows how. SQ_EPERM: no verdict, and it is not ours any more.
 */
static enum sq_err
look(struct gw_settling *m, struct gw_reply *verdict, bool *again, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e;

	verdict->text[0] = 0;
	*again = false;
	if (!m->txn->id)
		return SQ_OK;
	e = gw_sql(m->store, &row, err, "SELECT verdict, settling, owner = ? FROM txn WHERE id = ?", "ii", m->txn->owner, m->txn->id);
	if (e != SQ_OK)
		return e;
	if (row) {
		gw_column(row, 0, verdict->text, sizeof(verdict->text));
		*again = sqlite3_column_int(row, 1);
	}
	if (!verdict->text[0] && (!row || !sqlite3_column_int(row, 2)))
		return sq_error_set(err, SQ_EPERM, "the transaction belongs to a newer session");
	return SQ_OK;
}

/*
 * From here the backend may have it, and the store says so. A newer session can take the transaction over, but not undo
 * what we do: it waits for the content's lock.
 */
static enum sq_err
commit(void *source, struct sq_error *err)
{
	struct gw_settling *m = source;
	enum sq_err e;

	if ((e = gw_store_lock(m->store, GW_DURABLE, err)) == SQ_OK) {
		e = gw_sql(m->store, NULL, err,
		    "UPDATE txn SET settling = 1, octets = ?, sha256 = ?, touched_ms = ? WHERE id = ? AND owner = ?", "isiii",
		    m->txn->octets, m->txn->sha256, sq_wall_ms(), m->txn->id, m->txn->owner);
		if (e == SQ_OK && gw_changed(m->store) != SQ_OK)
			e = sq_error_set(err, SQ_EPERM, "the transaction belongs to a newer session");
		e = gw_store_end(m->store, e, err);
	}
	return m->uncommitted = e;
}

/* ---- duplicates */

static enum sq_err
may_repeat(struct gw_settling *m, bool *out, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e = gw_sql(m->store, &row, err, "SELECT allow_duplicates FROM user WHERE auth = ?", "s", m->env->auth);

	*out = m->store->limits->allow_duplicates;
	if (e == SQ_OK && row && sqlite3_column_type(row, 0) != SQLITE_NULL)
		*out = sqlite3_column_int(row, 0);
	*out |= m->txn->resend || m->env->resend;
	return e;
}

/* Mark the recipients that have this very message from this sender already. `known_as`: the name under which it came. */
static enum sq_err
mark_known(struct gw_settling *m, const char *message_id, char known_as[33], size_t *left, struct sq_error *err)
{
	bool repeat;
	enum sq_err e = may_repeat(m, &repeat, err);

	known_as[0] = 0;
	*left = m->rcpts;
	for (size_t i = 0; e == SQ_OK && !repeat && *message_id && i < m->rcpts; i++) {
		STMT row = NULL;

		e = gw_sql(m->store, &row, err,
		    "SELECT name FROM accepted WHERE auth = ? AND message_id = ? AND sha256 = ? AND address = ? AND at_ms > ?"
		    " AND name <> ?", "ssssis", m->env->auth, message_id, m->txn->sha256, m->rcpt[i].address,
		    sq_wall_ms() - m->store->limits->duplicate_ms, m->txn->name);
		m->rcpt[i].skip = row;
		if (row) {
			gw_column(row, 0, known_as, 33);
			--*left;
		}
	}
	return e;
}

/* ---- delivery */

static enum sq_err
read_content(void *source, gw_reader *take, void *ctx, struct sq_error *err)
{
	struct gw_settling *m = source;

	if (m->anonymous >= 0)
		return gw_spool_read(m->anonymous, m->txn->octets, take, ctx, err);
	return gw_txn_read(m->store, m->txn->id, m->txn->octets, take, ctx, err);
}

/* False: nobody knows what became of it. */
static bool
deliver(struct gw_settling *m, bool again, struct gw_reply *verdict)
{
	struct gw_message message = { .name = m->txn->name, .env = m->env, .rcpt = m->rcpt, .rcpts = m->rcpts, .trace = m->trace,
		.octets = m->txn->octets, .again = again, .commit = m->txn->id ? commit : NULL, .read = read_content, .source = m };

	bool known = m->backend->deliver(m->backend->ctx, &message, verdict);

	if (verdict->text[0] != '2' && verdict->text[0] != '4' && verdict->text[0] != '5')
		gw_reply_set(verdict, "451 4.3.0 no answer from where mail goes");
	return known;
}

/*
 * Never twice unknowingly: a backend that cannot tell what became of an earlier try is not tried again. Whose client can be told
 * so is told; another one hears as much as we did.
 */
static void
nobody_knows(struct gw_settling *m, struct gw_reply *verdict)
{
	sq_log(SQ_LOG_WARN, "doubt name=%s text=\"the backend's verdict is not known\"", m->txn->name);
	verdict->text[0] = 0;
	if (m->txn->id)
		gw_reply_set(verdict, "355 %" PRId64 " octets are here, but where they went to gave no verdict: nobody knows whether it was accepted",
		    m->txn->octets);
}

/* Whom it was delivered to, for the table of duplicates: all, or those a refused try had got to. */
static enum sq_err
remember(struct gw_settling *m, const char *message_id, bool all, struct sq_error *err)
{
	enum sq_err e = SQ_OK;

	for (size_t i = 0; e == SQ_OK && *message_id && i < m->rcpts; i++)
		if (!m->rcpt[i].skip && (all || m->rcpt[i].done))
			e = gw_sql(m->store, NULL, err, "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?, ?, ?, ?)", "sssssi",
			    m->env->auth, message_id, m->txn->sha256, m->rcpt[i].address, m->txn->name, sq_wall_ms());
	return e;
}

static bool
any_done(const struct gw_settling *m)
{
	for (size_t i = 0; i < m->rcpts; i++)
		if (m->rcpt[i].done)
			return true;
	return false;
}

/* A temporary refusal is no end: the content waits for the next try. `known`: what became of it is. */
static enum sq_err
store_verdict(struct gw_settling *m, const char *message_id, const struct gw_reply *verdict, bool known,
    struct sq_error *err)
{
	bool final = !gw_reply_is(verdict, '4'), accepted = gw_reply_is(verdict, '2');
	enum sq_err e;

	if (!m->txn->id && (!*message_id || !(accepted || any_done(m))))
		return SQ_OK;
	if ((e = gw_store_lock(m->store, GW_DURABLE, err)) != SQ_OK)
		return e;
	e = remember(m, message_id, accepted, err);
	if (e == SQ_OK && m->txn->id)
		e = gw_sql(m->store, NULL, err,
		    "UPDATE txn SET verdict = ?, settling = ?, octets = ?, sha256 = ?, message_id = nullif(?, ''), touched_ms = ? WHERE id = ?",
		    "siissii", final ? verdict->text : NULL, (int64_t)(final || !known), m->txn->octets, m->txn->sha256, message_id,
		    sq_wall_ms(), m->txn->id);
	return gw_store_end(m->store, e, err);
}

/* What was set aside can be looked at, delivered after all, or removed unseen. Losing it loses nothing. */
static void
set_aside(struct gw_settling *m, const char *message_id, const struct gw_reply *verdict)
{
	struct sq_error err = { 0 };
	bool room = false;
	enum sq_err e;

	if (m->anonymous >= 0) {
		e = gw_copy_keep(m->store, m->env, m->rcpt, m->rcpts, m->txn, m->anonymous, message_id, verdict->text, &err);
	} else if ((e = gw_copy_has_room(m->store, m->env->auth, m->txn->octets, &room, &err)) == SQ_OK && room &&
		   (e = gw_store_lock(m->store, GW_LAZY, &err)) == SQ_OK) {
		e = gw_sql(m->store, NULL, &err, "UPDATE txn SET kind = 1 WHERE id = ?", "i", m->txn->id);
		e = gw_store_end(m->store, e, &err);
	}
	if (e != SQ_OK)
		sq_log(SQ_LOG_WARN, "unkept name=%s error=%s text=\"%s\"", m->txn->name, sq_err_name(e), err.text);
}

static enum sq_err
settle(struct gw_settling *m, struct gw_reply *verdict, struct sq_error *err)
{
	char message_id[512] = "", known_as[33];
	size_t left;
	bool again, known = true;
	enum sq_err e;

	/* Now that we hold the content: another session may have ended it, or taken it. */
	if ((e = look(m, verdict, &again, err)) != SQ_OK || verdict->text[0])
		return e;
	gw_seen_field(m->seen, "Message-ID", message_id, sizeof(message_id));
	if ((e = mark_known(m, message_id, known_as, &left, err)) != SQ_OK)
		return e;
	if (m->seen->bare || m->seen->last == '\r')
		left = 1, gw_reply_set(verdict, "554 5.6.0 a bare CR or LF stands in the message");
	else if (left == 0)
		gw_reply_set(verdict, "250 2.0.0 duplicate of %s", known_as);
	else if (again && !m->backend->finds)
		nobody_knows(m, verdict);
	else if (!(known = deliver(m, again, verdict)) && m->uncommitted == SQ_OK && !m->backend->finds)
		nobody_knows(m, verdict);
	if (m->uncommitted != SQ_OK)
		return m->uncommitted;
	/* The backend has decided, whatever our disk says: to call that undecided would make a second copy. */
	if (store_verdict(m, message_id, verdict, known, err) != SQ_OK)
		sq_log(SQ_LOG_ERROR, "unstored name=%s verdict=%.3s text=\"%s\"", m->txn->name, verdict->text, err->text);
	else if (left == 0)
		set_aside(m, message_id, verdict);
	return SQ_OK;
}

enum sq_err
gw_settle(struct gw_settling *m, struct gw_reply *verdict, struct sq_error *err)
{
	struct sq_error unheard = { 0 };
	bool again;
	enum sq_err e;

	if (!err)
		err = &unheard;
	if ((e = look(m, verdict, &again, err)) != SQ_OK || verdict->text[0])
		return e;
	if ((e = gw_seen_hash(m->seen, m->txn->sha256, err)) != SQ_OK ||
	    (e = content_lock(m->store, m->txn->sha256, F_WRLCK, err)) != SQ_OK)
		return e;
	e = settle(m, verdict, err);
	if (content_lock(m->store, m->txn->sha256, F_UNLCK, NULL) != SQ_OK)
		sq_bug("cannot unlock");
	return e;
}
