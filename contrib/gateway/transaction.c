/*
 * A transaction from MAIL to its last octet: begin or take over, recipients,
 * octets, drop, and the sweep of what is too old. Every function leaves either
 * all of its work durable or none of it.
 */
#include "store.h"

#include <inttypes.h>
#include <openssl/evp.h>

#include <sendq/io.h>

static enum sq_err
fresh(struct gw_store *s, const struct gw_mail *mail, struct gw_txn *out, struct sq_error *err)
{
	unsigned char raw[16];
	char name[33];
	int64_t now = sq_wall_ms();
	enum sq_err e;

	sq_random(raw, sizeof(raw));
	sq_hex(raw, sizeof(raw), name);
	e = gw_sql(s, NULL, err,
	    "INSERT INTO txn (auth, ehlo, transid, sender, params, declared, resend, owner, name, begun_ms, touched_ms)"
	    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	    "sssssiiisii", mail->auth, mail->ehlo, mail->transid, mail->sender, mail->params, mail->declared,
	    (int64_t)mail->resend, out->owner, name, now, now);
	out->id = sqlite3_last_insert_rowid(s->db);
	return e;
}

/* Room for `more` octets in all and for this user. */
static enum sq_err
quota(struct gw_store *s, const char *auth, int64_t more, bool another, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e = gw_sql(s, &row, err,
	    "SELECT coalesce(sum(octets), 0), coalesce(sum(octets) FILTER (WHERE auth = ?), 0),"
	    " count(*) FILTER (WHERE auth = ?) FROM txn WHERE body = 1",
	    "ss", auth, auth);

	if (e != SQ_OK || !row)
		return e;
	if (sqlite3_column_int64(row, 0) + more > s->limits->total_bytes ||
	    sqlite3_column_int64(row, 1) + more > s->limits->user_bytes ||
	    (another && sqlite3_column_int64(row, 2) >= s->limits->user_messages))
		return sq_error_set(err, SQ_ENOSPC, "the quota is used up");
	return SQ_OK;
}

/* The row for this key, if it is still worth something. */
static enum sq_err
look_up(struct gw_store *s, const struct gw_mail *mail, enum gw_found *found, struct gw_txn *out, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e;
	int64_t oldest = sq_wall_ms() - s->limits->interrupted_s * 1000;
	bool settled;

	*found = GW_FRESH;
	if (!mail->transid)
		return SQ_OK;
	e = gw_sql(s, &row, err,
	    "SELECT id, verb, octets, sender = ? AND params = ?, verdict IS NOT NULL, touched_ms, sha256 FROM txn"
	    " WHERE auth = ? AND ehlo = ? AND transid = ?",
	    "sssss", mail->sender, mail->params, mail->auth, mail->ehlo, mail->transid);
	if (e != SQ_OK || !row)
		return e;
	out->id = sqlite3_column_int64(row, 0);
	out->verb = (enum gw_verb)sqlite3_column_int(row, 1);
	out->octets = sqlite3_column_int64(row, 2);
	settled = sqlite3_column_int(row, 4);
	if (!settled && (out->verb == GW_VERB_NONE || sqlite3_column_int64(row, 5) < oldest)) {
		/* Cut before its content, or too old: forget it and begin anew. */
		sqlite3_reset(row);
		return gw_sql(s, NULL, err, "DELETE FROM txn WHERE id = ?", "i", out->id);
	}
	*found = sqlite3_column_int(row, 3) ? GW_RESUMED : GW_DIFFERS;
	if (sqlite3_column_text(row, 6))
		snprintf(out->sha256, sizeof(out->sha256), "%s", (const char *)sqlite3_column_text(row, 6));
	return SQ_OK;
}

static enum sq_err
begin(struct gw_store *s, const struct gw_mail *mail, enum gw_found *found, struct gw_txn *out, struct sq_error *err)
{
	enum sq_err e = look_up(s, mail, found, out, err);
	int64_t owner;

	if (e != SQ_OK || *found == GW_DIFFERS)
		return e;
	sq_random(&owner, sizeof(owner));
	if (*found == GW_FRESH) {
		*out = (struct gw_txn){ .owner = owner };
		if ((e = quota(s, mail->auth, mail->declared, true, err)) != SQ_OK)
			return e;
		return fresh(s, mail, out, err);
	}
	out->owner = owner;
	if (!out->sha256[0] && (e = gw_store_hash(s, out->id, out->octets, out->sha256, err)) != SQ_OK)
		return e;
	return gw_sql(s, NULL, err, "UPDATE txn SET owner = ?, resend = max(resend, ?), touched_ms = ? WHERE id = ?",
	    "iiii", owner, (int64_t)mail->resend, sq_wall_ms(), out->id);
}

enum sq_err
gw_store_begin(void *store, const struct gw_mail *mail, enum gw_found *found, struct gw_txn *out, struct sq_error *err)
{
	struct gw_store *s = store;
	struct gw_txn txn = { 0 };
	enum sq_err e;

	if ((e = gw_store_lock(s, err)) != SQ_OK)
		return e;
	e = begin(s, mail, found, &txn, err);
	if ((e = gw_store_end(s, e, err)) == SQ_OK)
		*out = txn;
	return e;
}

enum sq_err
gw_store_owned(struct gw_store *s, const struct gw_txn *txn, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e =
	    gw_sql(s, &row, err, "SELECT octets FROM txn WHERE id = ? AND owner = ?", "ii", txn->id, txn->owner);

	if (e == SQ_OK && (!row || sqlite3_column_int64(row, 0) != txn->octets))
		return sq_error_set(err, SQ_EPERM, "the transaction belongs to a newer session");
	return e;
}

enum sq_err
gw_store_rcpt(void *store, const struct gw_txn *txn, const char *address, struct sq_error *err)
{
	struct gw_store *s = store;
	STMT row = NULL;
	enum sq_err e;

	if ((e = gw_store_lock(s, err)) != SQ_OK)
		return e;
	if ((e = gw_store_owned(s, txn, err)) == SQ_OK)
		e = gw_sql(s, &row, err, "SELECT count(*) FROM rcpt WHERE txn = ?", "i", txn->id);
	if (e == SQ_OK && row && sqlite3_column_int64(row, 0) >= GW_RCPT_MAX)
		e = sq_error_set(err, SQ_ELIMIT, "too many recipients");
	sqlite3_reset(row);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "INSERT OR IGNORE INTO rcpt (txn, address) VALUES (?, ?)", "is", txn->id, address);
	return gw_store_end(s, e, err);
}

bool
gw_store_has_rcpt(void *store, const struct gw_txn *txn, const char *address)
{
	STMT row = NULL;

	return gw_sql(store, &row, NULL, "SELECT 1 FROM rcpt WHERE txn = ? AND address = ?", "is", txn->id, address) ==
		   SQ_OK &&
	       row;
}

enum sq_err
gw_store_append(void *store, struct gw_txn *txn, const void *p, size_t n, struct sq_error *err)
{
	struct gw_store *s = store;
	STMT row = NULL;
	enum sq_err e;

	if ((e = gw_store_lock(s, err)) != SQ_OK)
		return e;
	if ((e = gw_store_owned(s, txn, err)) == SQ_OK)
		e = gw_sql(s, &row, err, "SELECT auth FROM txn WHERE id = ?", "i", txn->id);
	if (e == SQ_OK && row && n)
		e = quota(s, (const char *)sqlite3_column_text(row, 0), (int64_t)n, false, err);
	sqlite3_reset(row);
	if (e == SQ_OK && n)
		e = gw_sql(s, NULL, err, "INSERT INTO chunk (txn, start, octets) VALUES (?, ?, ?)", "iib", txn->id,
		    txn->octets, p, n);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "UPDATE txn SET octets = octets + ?, verb = ?, touched_ms = ? WHERE id = ?", "iiii",
		    (int64_t)n, (int64_t)txn->verb, sq_wall_ms(), txn->id);
	if ((e = gw_store_end(s, e, err)) == SQ_OK)
		txn->octets += (int64_t)n;
	return e;
}

static enum sq_err
drop(struct gw_store *s, const struct gw_txn *txn)
{
	enum sq_err e = gw_store_owned(s, txn, NULL);

	if (e == SQ_OK)
		e = gw_sql(s, NULL, NULL, "DELETE FROM txn WHERE id = ? AND (verdict IS NULL OR transid IS NULL)", "i", txn->id);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, NULL, "DELETE FROM chunk WHERE txn = ?", "i", txn->id);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, NULL, "UPDATE txn SET body = 0 WHERE id = ?", "i", txn->id);
	return e;
}

/* Failing leaves more than needed; the sweep takes it. */
void
gw_store_drop(void *store, const struct gw_txn *txn)
{
	struct gw_store *s = store;
	enum sq_err e;

	if (gw_store_lock(s, NULL) != SQ_OK)
		return;
	e = gw_store_end(s, drop(s, txn), NULL);
	(void)e;
}

enum sq_err
gw_store_read(struct gw_store *s, int64_t id, int64_t octets, gw_store_reader *take, void *ctx, struct sq_error *err)
{
	int64_t at = 0;

	while (at < octets) {
		STMT row = NULL;
		enum sq_err e = gw_sql(s, &row, err, "SELECT octets FROM chunk WHERE txn = ? AND start = ?", "ii", id, at);

		if (e != SQ_OK)
			return e;
		if (!row || sqlite3_column_bytes(row, 0) <= 0)
			return sq_error_set(err, SQ_ECORRUPT, "octets %" PRId64 " of %" PRId64 " are missing", at, octets);
		if ((e = take(ctx, sqlite3_column_blob(row, 0), (size_t)sqlite3_column_bytes(row, 0), err)) != SQ_OK)
			return e;
		at += sqlite3_column_bytes(row, 0);
	}
	return at == octets ? SQ_OK : sq_error_set(err, SQ_ECORRUPT, "more octets are stored than were counted");
}

static enum sq_err
hash_take(void *ctx, const char *p, size_t n, struct sq_error *err)
{
	return EVP_DigestUpdate(ctx, p, n) == 1 ? SQ_OK : sq_error_set(err, SQ_ENOMEM, "cannot hash");
}

enum sq_err
gw_store_hash(struct gw_store *s, int64_t id, int64_t octets, char out[65], struct sq_error *err)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char raw[32];
	enum sq_err e;

	if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) {
		EVP_MD_CTX_free(md);
		return sq_error_set(err, SQ_ENOMEM, "cannot hash");
	}
	if ((e = gw_store_read(s, id, octets, hash_take, md, err)) == SQ_OK) {
		if (EVP_DigestFinal_ex(md, raw, NULL) == 1)
			sq_hex(raw, sizeof(raw), out);
		else
			e = sq_error_set(err, SQ_ENOMEM, "cannot hash");
	}
	EVP_MD_CTX_free(md);
	return e;
}

enum sq_err
gw_store_sweep(struct gw_store *s, struct sq_error *err)
{
	int64_t now = sq_wall_ms();
	enum sq_err e = gw_store_lock(s, err);

	if (e != SQ_OK)
		return e;
	e = gw_sql(s, NULL, err, "DELETE FROM txn WHERE verdict IS NULL AND touched_ms < ?", "i",
	    now - s->limits->interrupted_s * 1000);
	/* Without a TRANSID nobody can come back for it; a live session touches its row every few seconds. */
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "DELETE FROM txn WHERE transid IS NULL AND touched_ms < ?", "i", now - 86400000);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "DELETE FROM txn WHERE verdict IS NOT NULL AND touched_ms < ?", "i",
		    now - s->limits->retain_s * 1000);
	/* Bodies whose verdict is final and whose client has not been seen since. */
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err,
		    "DELETE FROM chunk WHERE txn IN (SELECT id FROM txn WHERE verdict IS NOT NULL AND touched_ms < ?)", "i",
		    now - 3600000);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "UPDATE txn SET body = 0 WHERE verdict IS NOT NULL AND touched_ms < ?", "i",
		    now - 3600000);
	if (e == SQ_OK)
		e = gw_sql(s, NULL, err, "DELETE FROM accepted WHERE at_ms < ?", "i", now - s->limits->duplicate_s * 1000);
	return gw_store_end(s, e, err);
}
