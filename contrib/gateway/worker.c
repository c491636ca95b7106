/*
 * What is done beside the sessions: the sweep, and early alerts for those who
 * want them. An alert is marked as sent before it is: better none than two.
 */
#include "store.h"

#include <inttypes.h>

#include <sendq/io.h>
#include <sendq/log.h>

#include "alert.h"
#include "copies.h"

enum { ALERTS_A_ROUND = 20 };

enum sq_err
gw_local_backend(const struct gw_settings *s, struct gw_maildir *maildir, struct gw_backend *out, struct sq_error *err)
{
	if (s->maildir) {
		gw_maildir_backend(maildir, s, out);
		return SQ_OK;
	}
	if (s->local_server)
		return gw_relay_local(s, out, err);
	return sq_error_set(err, SQ_ENOENT, "no local_server is set: where would it go?");
}

/* ---- delivering to local people */

/* Those of the recipients that the backend takes without a login; in their place the sender, where there are none. */
static size_t
local_people(struct gw_backend *b, const struct gw_envelope *env, const struct gw_rcpt *rcpt, size_t n, const char *instead,
    struct gw_rcpt *out)
{
	struct gw_reply reply;
	size_t found = 0;

	if (!b->mail(b->ctx, env, &reply))
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (b->rcpt(b->ctx, rcpt[i].address, "", &reply)) {
			out[found] = rcpt[i];
			out[found].params[0] = 0;
			out[found++].skip = false;
		}
	}
	if (found == 0 && instead && *instead && b->rcpt(b->ctx, instead, "", &reply)) {
		out[0] = (struct gw_rcpt){ .skip = false };
		snprintf(out[0].address, sizeof(out[0].address), "%s", instead);
		found = 1;
	}
	return found;
}

enum sq_err
gw_deliver_local(const struct gw_settings *s, struct gw_message *m, const char *instead, struct sq_error *err)
{
	struct gw_maildir maildir;
	struct gw_backend b;
	struct gw_rcpt *people;
	struct gw_reply reply = { "" };
	enum sq_err e = gw_local_backend(s, &maildir, &b, err);

	if (e != SQ_OK)
		return e;
	if (!(people = calloc(m->rcpts + 1, sizeof(*people)))) {
		b.close(b.ctx);
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	m->rcpts = local_people(&b, m->env, m->rcpt, m->rcpts, instead, people);
	m->rcpt = people;
	if (m->rcpts == 0)
		e = sq_error_set(err, SQ_ENOENT, "none of the recipients is local");
	else if (!b.deliver(b.ctx, m, &reply) || !gw_reply_is(&reply, '2'))
		e = sq_error_set(err, SQ_EIO, "not delivered: %.200s", reply.text);
	m->rcpt = NULL;
	free(people);
	b.close(b.ctx);
	return e;
}

/* ---- alerts */

static enum sq_err
take_head(void *ctx, const char *p, size_t n, struct sq_error *err)
{
	(void)err;
	sq_buf_add(ctx, p, n);
	return SQ_OK;
}

static enum sq_err
read_buffer(void *source, gw_reader *take, void *ctx, struct sq_error *err)
{
	struct sq_buf *b = source;

	return take(ctx, b->p, b->n, err);
}

enum sq_err
gw_alert_send(const struct gw_settings *s, struct gw_store *store, struct gw_copy *c, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf head = SQ_BUF_INIT(GW_ALERT_HEAD_MAX), text = SQ_BUF_INIT(2 * GW_ALERT_MAX);
	struct gw_alert alert = { .hostname = s->hostname, .name = c->name, .sender = c->env.sender, .message_id = c->message_id,
		.octets = c->octets, .declared = c->env.declared, .begun_ms = c->begun_ms, .now_ms = sq_wall_ms() };
	struct gw_envelope from_nobody = { .declared = 0 };
	struct sq_str view;
	char name[48];
	struct gw_message m = { .name = name, .env = &from_nobody, .rcpt = c->rcpt, .rcpts = c->rcpts, .trace = "",
		.read = read_buffer, .source = &text };
	int64_t want = c->octets < GW_ALERT_HEAD_MAX ? c->octets : GW_ALERT_HEAD_MAX;
	enum sq_err e = gw_txn_read(store, c->id, want, take_head, &head, err);

	if (e != SQ_OK)
		return e;
	alert.head = (struct sq_str){ head.p, head.n };
	gw_alert_write(&alert, &text);
	if ((e = sq_buf_view(&text, &view, err)) != SQ_OK)
		return e;
	m.octets = (int64_t)view.n;
	snprintf(name, sizeof(name), "%s.alert", c->name);
	return gw_deliver_local(s, &m, c->env.sender, err);
}

/* One message that is to be told of, marked as told; *id 0: none. */
static enum sq_err
next_alert(const struct gw_settings *s, struct gw_store *store, int64_t *id, struct sq_error *err)
{
	STMT row = NULL;
	int64_t now = sq_wall_ms();
	enum sq_err e = gw_store_lock(store, GW_DURABLE, err);

	*id = 0;
	if (e != SQ_OK)
		return e;
	e = gw_sql(store, &row, err,
	    "SELECT t.id FROM txn t LEFT JOIN user u USING (auth) WHERE t.kind = 0 AND t.verdict IS NULL AND t.settling = 0"
	    " AND t.alerted_ms IS NULL AND t.octets > 0 AND t.begun_ms <= ? AND coalesce(u.partial, ?)"
	    " AND NOT EXISTS (SELECT 1 FROM txn o WHERE o.auth = t.auth AND o.message_id = t.message_id AND o.alerted_ms IS NOT NULL)"
	    " ORDER BY t.begun_ms LIMIT 1",
	    "ii", now - s->alert_ms, (int64_t)s->limits.deliver_partial);
	if (e == SQ_OK && row)
		*id = sqlite3_column_int64(row, 0);
	gw_stmt_freep(&row);
	if (e == SQ_OK && *id)
		e = gw_sql(store, NULL, err, "UPDATE txn SET alerted_ms = ? WHERE id = ?", "ii", now, *id);
	return gw_store_end(store, e, err);
}

static enum sq_err
alerts(const struct gw_settings *s, struct gw_store *store, struct sq_error *err)
{
	for (int n = 0; n < ALERTS_A_ROUND; n++) {
		struct gw_copy copy;
		struct sq_error why = { 0 };
		int64_t id;
		enum sq_err e = next_alert(s, store, &id, err);

		if (e != SQ_OK || !id)
			return e;
		if ((e = gw_copy_load(store, id, &copy, &why)) == SQ_OK)
			e = gw_alert_send(s, store, &copy, &why);
		gw_copy_fini(&copy);
		sq_log(e == SQ_OK ? SQ_LOG_INFO : SQ_LOG_WARN, "alert id=%" PRId64 " result=%s%s%s", id, sq_err_name(e),
		    e == SQ_OK ? "" : " text=", e == SQ_OK ? "" : why.text);
	}
	return SQ_OK;
}

enum sq_err
gw_worker_round(const struct gw_settings *s, struct sq_error *err)
{
	SQ_CLEANUP(gw_store_freep) struct gw_store *store = NULL;
	enum sq_err e = gw_store_open(s->state, &s->limits, &store, err);

	if (e == SQ_OK)
		e = gw_store_sweep(store, err);
	if (e == SQ_OK && (s->maildir || s->local_server))
		e = alerts(s, store, err);
	return e;
}
