/*
 * One connection's transaction: where the SMTP machine, the store and the
 * backend meet. Owns the content's file and what was seen of it. Without a TRANSID the
 * content has no name anywhere and goes with the session.
 */
#include "store.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

enum { QUOTA_STEP = 1 << 20, SPARE_MOST = 1 << 20 };

struct gw_session {
	const struct gw_settings *settings;
	struct gw_store *store;
	struct gw_backend *backend;
	const char *client;

	struct gw_envelope env;
	struct gw_txn txn;
	struct gw_seen seen;
	struct gw_rcpt *rcpt;
	size_t rcpts;
	int fd;                /* this session's file */
	int spare;             /* a small file without a name that the last message did not need to keep; making one is dear (ext4) */
	off_t stale;           /* octets of an older message in it */
	int64_t checked;       /* octets, when the quota was last looked at */
	bool keep;             /* refused, but not for ever: the client will be back */
};

static void
release(struct gw_session *s)
{
	struct stat st;

	if (s->fd >= 0 && s->spare < 0 && !s->txn.id && fstat(s->fd, &st) == 0 && st.st_nlink == 0 && st.st_size <= SPARE_MOST) {
		s->spare = s->fd;
		s->stale = st.st_size;
		s->fd = -1;
	}
	sq_closep(&s->fd);
	s->fd = -1;
	gw_seen_fini(&s->seen);
	free(s->rcpt);
	s->rcpt = NULL;
	s->rcpts = 0;
	s->txn = (struct gw_txn){ 0 };
	s->keep = false;
	s->checked = 0;
}

enum sq_err
gw_session_new(const struct gw_settings *settings, struct gw_store *store, struct gw_backend *backend,
    const char *client, struct gw_session **out, struct sq_error *err)
{
	struct gw_session *s = calloc(1, sizeof(*s));

	if (!s)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	*s = (struct gw_session){ .settings = settings, .store = store, .backend = backend, .client = client, .fd = -1, .spare = -1 };
	*out = s;
	return SQ_OK;
}

void
gw_session_free(struct gw_session *s)
{
	if (!s)
		return;
	release(s);
	sq_closep(&s->spare);
	free(s);
}

static enum gw_step
do_auth(void *ctx, const char *mech, const char *words, char identity[GW_NAME_MAX + 1], struct gw_reply *reply)
{
	struct gw_session *s = ctx;

	return s->backend->auth(s->backend->ctx, mech, words, identity, reply);
}

static void
do_drop(void *ctx)
{
	struct gw_session *s = ctx;

	if (s->txn.id && !s->keep)
		gw_txn_drop(s->store, &s->txn);
	s->backend->reset(s->backend->ctx);
	release(s);
}

static void
do_reset(void *ctx)
{
	struct gw_session *s = ctx;

	s->backend->reset(s->backend->ctx);
	release(s);
}

/* ---- MAIL and RCPT */

/* What another session left, read once for its hash. */
static enum sq_err
take_up(struct gw_session *s, struct gw_reply *reply, struct sq_error *err)
{
	enum sq_err e = gw_txn_recipients(s->store, s->txn.id, &s->rcpt, &s->rcpts, err);

	if (e == SQ_OK && !s->txn.settled &&
	    (e = gw_txn_read(s->store, s->txn.id, s->txn.octets, gw_seen_take, &s->seen, err)) == SQ_OK)
		e = gw_seen_hash(&s->seen, s->txn.sha256, err);
	if (e == SQ_OK)
		gw_reply_set(reply, "355 %" PRId64 " sha256=%s octets are here", s->txn.octets, s->txn.sha256);
	return e;
}

static enum gw_found
begin(struct gw_session *s, struct gw_reply *reply)
{
	unsigned char raw[16];

	if (s->env.transid[0] && gw_store_quota(s->store, s->env.auth, s->env.declared, true, NULL) != SQ_OK) {
		gw_reply_set(reply, "452 4.3.1 no room for it at the moment");
		return GW_REFUSED;
	}
	sq_random(raw, sizeof(raw));
	sq_hex(raw, sizeof(raw), s->txn.name);
	if (!(s->rcpt = calloc(GW_RCPT_MAX, sizeof(*s->rcpt)))) {
		gw_reply_set(reply, "451 4.3.0 out of memory");
		return GW_REFUSED;
	}
	return s->backend->mail(s->backend->ctx, &s->env, reply) ? GW_FRESH : GW_REFUSED;
}

static enum gw_found
do_mail(void *ctx, const struct gw_envelope *env, struct gw_reply *reply)
{
	struct gw_session *s = ctx;
	enum gw_found found = GW_FRESH;
	enum sq_err e;

	release(s);
	s->env = *env;
	e = gw_seen_init(&s->seen, NULL);
	if (e == SQ_OK && env->transid[0])
		e = gw_txn_take(s->store, env, &found, &s->txn, NULL);
	if (e == SQ_OK && found == GW_RESUMED && (e = take_up(s, reply, NULL)) == SQ_ECORRUPT && !s->txn.complete &&
	    (e = gw_txn_remove(s->store, s->txn.id, NULL)) == SQ_OK) {
		/* The disk lost what the row counted: worth nothing, and nothing of it was accepted. */
		release(s);
		e = gw_seen_init(&s->seen, NULL);
		found = GW_FRESH;
	}
	if (e != SQ_OK) {
		release(s);
		gw_reply_set(reply, "451 4.3.0 the store is not to be had");
		return GW_REFUSED;
	}
	if (found == GW_REFUSED)
		gw_reply_set(reply, "501 5.5.4 this TRANSID came with another sender or other parameters");
	return found == GW_FRESH ? begin(s, reply) : found;
}

static bool
has_rcpt(void *ctx, const char *address)
{
	struct gw_session *s = ctx;

	for (size_t i = 0; i < s->rcpts; i++)
		if (strcmp(s->rcpt[i].address, address) == 0)
			return true;
	return false;
}

static bool
do_rcpt(void *ctx, const char *address, const char *params, struct gw_reply *reply)
{
	struct gw_session *s = ctx;
	struct gw_rcpt *r;

	if (has_rcpt(s, address)) {
		gw_reply_set(reply, "250 2.1.5 recipient known");
		return true;
	}
	if (s->rcpts >= GW_RCPT_MAX) {
		gw_reply_set(reply, "452 4.5.3 too many recipients");
		return false;
	}
	if (!s->backend->rcpt(s->backend->ctx, address, params, reply))
		return false;
	r = &s->rcpt[s->rcpts++];
	snprintf(r->address, sizeof(r->address), "%s", address);
	snprintf(r->params, sizeof(r->params), "%s", params);
	return true;
}

/* ---- content */

static enum sq_err
do_content(void *ctx, enum gw_verb verb)
{
	struct gw_session *s = ctx;
	enum sq_err e = SQ_OK;

	s->txn.verb = verb;
	if (s->txn.complete)
		return SQ_OK;
	if (!s->env.transid[0] && s->spare >= 0) {
		s->fd = s->spare;
		s->spare = -1;
		return lseek(s->fd, 0, SEEK_SET) == 0 ? SQ_OK : SQ_EIO;
	}
	s->stale = 0;
	if (!s->env.transid[0])
		return gw_spool_anonymous(s->store, &s->fd, NULL);
	if (!s->txn.id)
		e = gw_txn_create(s->store, &s->env, s->rcpt, s->rcpts, &s->txn, NULL);
	return e == SQ_OK ? gw_txn_segment(s->store, &s->txn, &s->fd, NULL) : e;
}

static enum gw_verb
do_verb(void *ctx)
{
	return ((struct gw_session *)ctx)->txn.verb;
}

static int64_t
do_octets(void *ctx)
{
	return ((struct gw_session *)ctx)->txn.octets;
}

static enum sq_err
do_append(void *ctx, const char *p, size_t n)
{
	struct gw_session *s = ctx;
	enum sq_err e;

	if (s->txn.complete)
		return SQ_EINVAL;
	if ((e = sq_write_all(s->fd, p, n, NULL)) != SQ_OK || (e = gw_seen_take(&s->seen, p, n, NULL)) != SQ_OK)
		return e;
	s->txn.octets += (int64_t)n;
	return SQ_OK;
}

static enum sq_err
do_sync(void *ctx)
{
	struct gw_session *s = ctx;
	enum sq_err e;

	if (!s->txn.id || s->txn.complete)
		return SQ_OK;
	gw_point();
	if (fdatasync(s->fd) != 0)
		return SQ_EIO;
	gw_point();
	if ((e = gw_txn_count(s->store, &s->txn, &s->seen, NULL)) != SQ_OK)
		return e;
	if (s->txn.octets - s->checked < QUOTA_STEP)
		return SQ_OK;
	s->checked = s->txn.octets;
	return gw_store_quota(s->store, s->env.auth, 0, false, NULL);
}

static enum sq_err
do_finish(void *ctx, bool tls, struct gw_reply *reply)
{
	struct gw_session *s = ctx;
	char trace[GW_TRACE_MAX], date[40];
	struct gw_settling m = { .store = s->store, .backend = s->backend, .env = &s->env, .txn = &s->txn, .seen = &s->seen,
		.rcpt = s->rcpt, .rcpts = s->rcpts, .trace = trace, .anonymous = s->txn.id ? -1 : s->fd };
	enum sq_err e;

	/* A claim to deliver says that the whole content is there, so it has to be. */
	if ((e = do_sync(s)) != SQ_OK)
		return e;
	if (s->stale > s->txn.octets && ftruncate(s->fd, s->txn.octets) != 0)
		return SQ_EIO;
	sq_format_date(sq_wall_ms(), date);
	snprintf(trace, sizeof(trace), "Received: from %s ([%s])\r\n\tby %s (sendq-gateway) with %s%sA id %s;\r\n\t%s\r\n",
	    s->env.ehlo, s->client, s->settings->hostname, s->env.utf8 ? "UTF8SMTP" : "ESMTP", tls ? "S" : "", s->txn.name, date);
	e = gw_settle(&m, reply, NULL);
	s->keep = e != SQ_OK || gw_reply_is(reply, '4');
	s->txn.complete = true;
	return e;
}

const struct gw_ops gw_session_ops = {
	.auth = do_auth,
	.mail = do_mail,
	.rcpt = do_rcpt,
	.has_rcpt = has_rcpt,
	.content = do_content,
	.verb = do_verb,
	.octets = do_octets,
	.append = do_append,
	.sync = do_sync,
	.finish = do_finish,
	.drop = do_drop,
	.reset = do_reset,
};
