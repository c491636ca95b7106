/*
 * One connection: octets between the socket (or TLS on it) and the SMTP
 * machine, timeouts, the two-second sync. Runs in a process of its own, which
 * can open what the service needs and nothing else.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/log.h>

enum { WIRE_BLOCK = 16 * 1024, WRITE_MS = 300000, HANDSHAKE_MS = 60000 };

struct conn {
	int fd;
	SSL *ssl;
	struct gw_machine *m;
	int64_t idle_ms, synced_ms;
	bool mute;             /* the client hears nothing any more; what it sent may still be coming in */
	bool dead;
};

static volatile sig_atomic_t ended;

static void
on_term(int sig)
{
	(void)sig;
	ended = 1;
}

/* Wait for the socket. False: time is up, the other side is gone, or we are to end. */
static bool
wait_for(struct conn *c, short what, int64_t ms)
{
	struct pollfd p = { .fd = c->fd, .events = what };
	int64_t until = sq_boot_ms() + ms;

	for (;;) {
		int64_t left = until - sq_boot_ms();
		int n;

		if (ended || left <= 0)
			return false;
		n = poll(&p, 1, left > 1000 ? 1000 : (int)left);
		if (n > 0)
			return true;
		if (n < 0 && errno != EINTR)
			return false;
	}
}

/* What a TLS call that did not go through waits for; 0: it failed. */
static short
ssl_wants(struct conn *c, int rc)
{
	int why = SSL_get_error(c->ssl, rc);

	ERR_clear_error();
	return why == SSL_ERROR_WANT_READ ? POLLIN : why == SSL_ERROR_WANT_WRITE ? POLLOUT : 0;
}

static bool
handshake(struct conn *c, SSL_CTX *tls)
{
	int64_t until = sq_boot_ms() + HANDSHAKE_MS;

	if (!(c->ssl = SSL_new(tls)) || SSL_set_fd(c->ssl, c->fd) != 1)
		return false;
	for (;;) {
		int rc = SSL_accept(c->ssl);
		short wants = rc == 1 ? 0 : ssl_wants(c, rc);

		if (rc == 1)
			return true;
		if (!wants || !wait_for(c, wants, until - sq_boot_ms()))
			return false;
	}
}

/*
 * Send all that the machine has said. Where nobody hears it the session goes on:
 * a link that broke has left content in the kernel, and it was sent once already.
 */
static void
send_out(struct conn *c)
{
	struct sq_buf *out = &c->m->out;

	while (out->n > 0 && !c->mute) {
		ssize_t n = c->ssl ? SSL_write(c->ssl, out->p, out->n > WIRE_BLOCK ? WIRE_BLOCK : (int)out->n) :
				     send(c->fd, out->p, out->n, MSG_NOSIGNAL);
		short wants = POLLOUT;

		if (n > 0) {
			sq_buf_consume(out, (size_t)n);
			continue;
		}
		if (c->ssl)
			wants = ssl_wants(c, (int)n);
		else if (errno != EAGAIN && errno != EINTR)
			wants = 0;
		c->mute = !wants || !wait_for(c, wants, WRITE_MS);
	}
	sq_buf_clear(out);
}

/* Octets from the client: their number, 0 at the end, -1 when there are none at the moment. */
static ssize_t
receive(struct conn *c, char *p, size_t room, short *wants)
{
	ssize_t n;

	*wants = POLLIN;
	if (c->ssl) {
		n = SSL_read(c->ssl, p, (int)room);
		if (n > 0)
			return n;
		*wants = ssl_wants(c, (int)n);
		return *wants ? -1 : 0;
	}
	n = recv(c->fd, p, room, 0);
	return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? -1 : 0;
}

/* Wait for the client; meanwhile what it sent becomes durable every two seconds. False: nothing came in time. */
static bool
wait_client(struct conn *c, short wants)
{
	int64_t until = sq_boot_ms() + c->idle_ms;

	while (!ended) {
		struct pollfd p = { .fd = c->fd, .events = wants };
		int64_t now = sq_boot_ms(), next = until;
		int n;

		if (gw_machine_unsynced(c->m) && c->synced_ms + GW_SYNC_MS < next)
			next = c->synced_ms + GW_SYNC_MS;
		n = poll(&p, 1, next <= now ? 0 : next - now > 1000 ? 1000 : (int)(next - now));
		if (n > 0)
			return true;
		now = sq_boot_ms();
		if (gw_machine_unsynced(c->m) && now >= c->synced_ms + GW_SYNC_MS) {
			gw_machine_sync(c->m);
			c->synced_ms = sq_boot_ms();
			if (c->m->closing)
				return true;
		}
		if (now >= until)
			break;
	}
	sq_buf_adds(&c->m->out, ended ? "421 4.3.2 the service ends\r\n" : "421 4.4.2 nothing came for too long\r\n");
	c->m->closing = true;
	return false;
}

static void
step(struct conn *c, SSL_CTX *tls)
{
	char block[WIRE_BLOCK];
	short wants;
	ssize_t n = receive(c, block, sizeof(block), &wants);

	if (n > 0) {
		bool clean = !gw_machine_unsynced(c->m);

		gw_machine_feed(c->m, block, (size_t)n);
		sq_wipe(block, (size_t)n);
		if (clean)
			c->synced_ms = sq_boot_ms();
		else if (gw_machine_unsynced(c->m) && sq_boot_ms() >= c->synced_ms + GW_SYNC_MS) {
			gw_machine_sync(c->m);
			c->synced_ms = sq_boot_ms();
		}
	} else if (n == 0) {
		c->dead = true;
	} else {
		(void)wait_client(c, wants);
	}
	send_out(c);
	if (c->m->starttls && !c->dead) {
		if (!handshake(c, tls)) {
			c->dead = true;
			return;
		}
		gw_machine_secured(c->m);
	}
}

static void
converse(struct conn *c, SSL_CTX *tls, enum gw_tls how)
{
	if (how == GW_TLS_IMPLICIT && !handshake(c, tls))
		return;
	gw_machine_start(c->m);
	send_out(c);
	while (!c->dead && !c->m->closing)
		step(c, tls);
	/* Whoever comes back finds all that came. */
	if (!c->m->closing)
		gw_machine_sync(c->m);
	send_out(c);
}

static void
confine(void)
{
	struct rlimit none = { 0, 0 };
	struct sigaction term = { .sa_handler = on_term }, plain = { .sa_handler = SIG_DFL };

	sigaction(SIGTERM, &term, NULL);
	sigaction(SIGINT, &term, NULL);
	sigaction(SIGCHLD, &plain, NULL);
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static enum sq_err
serve(const struct gw_settings *s, struct conn *c, SSL_CTX *tls, const char *client, enum gw_tls how, struct sq_error *err)
{
	SQ_CLEANUP(gw_store_freep) struct gw_store *store = NULL;
	struct gw_maildir maildir;
	struct gw_backend backend;
	struct gw_session *session;
	struct gw_machine m;
	enum sq_err e;

	if ((e = gw_store_open(s->state, &s->limits, &store, err)) != SQ_OK)
		return e;
	if (s->maildir)
		gw_maildir_backend(&maildir, s, &backend);
	else if ((e = gw_relay_backend(s, client, &backend, err)) != SQ_OK)
		return e;
	if ((e = gw_session_new(s, store, &backend, client, &session, err)) != SQ_OK)
		return e;
	m = (struct gw_machine){ .ops = &gw_session_ops, .ctx = session, .hostname = s->hostname, .store_id = store->id,
		.mechanisms = backend.mechanisms, .features = backend.features, .max_size_bytes = s->max_size_bytes,
		.retain_s = s->limits.retain_ms / 1000, .tls_possible = how == GW_TLS_STARTTLS, .tls = how == GW_TLS_IMPLICIT,
		.clear_auth = how == GW_TLS_NONE };
	c->m = &m;
	converse(c, tls, how);
	gw_machine_fini(&m);
	gw_session_free(session);
	backend.close(backend.ctx);
	return SQ_OK;
}

void
gw_serve(const struct gw_settings *s, struct ssl_ctx_st *tls, int fd, const char *client, enum gw_tls how)
{
	struct conn c = { .fd = fd, .idle_ms = s->idle_ms };
	struct sq_error err = { 0 };

	confine();
#ifdef SENDQ_FAULTS
	gw_points_armed = true;
#endif
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	if (serve(s, &c, tls, client, how, &err) != SQ_OK) {
		static const char sorry[] = "421 4.3.0 the store is not to be had\r\n";

		sq_log(SQ_LOG_ERROR, "unserved error=%s text=\"%s\"", sq_err_name(err.code), err.text);
		if (how != GW_TLS_IMPLICIT)
			(void)!send(fd, sorry, sizeof(sorry) - 1, MSG_NOSIGNAL);
	}
	if (c.ssl && !c.dead)
		SSL_shutdown(c.ssl);
	SSL_free(c.ssl);
	close(fd);
}

enum sq_err
gw_tls_context(const struct gw_settings *s, struct ssl_ctx_st **out, struct sq_error *err)
{
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
	bool good = tls && SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) == 1;

	if (good && (SSL_CTX_use_certificate_chain_file(tls, s->certificate) != 1 ||
			SSL_CTX_use_PrivateKey_file(tls, s->key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(tls) != 1)) {
		char text[256];

		ERR_error_string_n(ERR_get_error(), text, sizeof(text));
		SSL_CTX_free(tls);
		return sq_error_set(err, SQ_EINVAL, "cannot use '%s' and '%s': %s", s->certificate, s->key, text);
	}
	if (!good) {
		SSL_CTX_free(tls);
		return sq_error_set(err, SQ_ENOMEM, "no TLS");
	}
	/* No early data: a replay would be a second message. Partial writes let a slow client be timed out. */
	SSL_CTX_set_max_early_data(tls, 0);
	SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	*out = tls;
	return SQ_OK;
}
