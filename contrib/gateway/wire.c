/* See wire.h. Owns the socket and its TLS; knows lines and replies, no mail. */
#include "wire.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sendq/io.h>

enum { COMMAND_MAX = 16 * 1024, REPLY_LINES_MAX = 200 };

void
wire_close(struct wire *w)
{
	SSL_free(w->ssl);
	sq_closep(&w->fd);
	*w = (struct wire)WIRE_INIT;
}

/* ---- octets */

static void
set_timeout(int fd, int64_t ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

/* A signal (we are to end) does not break off what is under way: the verdict is worth waiting for. */
static ssize_t
ssl_again(struct wire *w, int rc)
{
	int why = SSL_get_error(w->ssl, rc);
	bool again = (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) && errno == EINTR;

	ERR_clear_error();
	return again ? 0 : -1;
}

bool
wire_send(struct wire *w, const char *p, size_t n)
{
	while (n > 0 && !w->dead) {
		ssize_t sent;

		errno = 0;
		if (w->ssl) {
			sent = SSL_write(w->ssl, p, n > 16384 ? 16384 : (int)n);
			if (sent <= 0)
				sent = ssl_again(w, (int)sent);
		} else {
			sent = send(w->fd, p, n, MSG_NOSIGNAL);
			if (sent < 0 && errno == EINTR)
				sent = 0;
		}
		if (sent < 0)
			w->dead = true;
		else
			p += sent, n -= (size_t)sent;
	}
	return !w->dead;
}

static bool
fill(struct wire *w)
{
	ssize_t n = 0;

	w->in_n = w->in_at = 0;
	do {
		errno = 0;
		if (w->ssl) {
			n = SSL_read(w->ssl, w->in, sizeof(w->in));
			if (n <= 0 && ssl_again(w, (int)n) == 0)
				continue;
		} else {
			n = recv(w->fd, w->in, sizeof(w->in), 0);
			if (n < 0 && errno == EINTR)
				continue;
		}
		break;
	} while (true);
	if (n <= 0) {
		w->dead = true;
		return false;
	}
	w->in_n = (size_t)n;
	return true;
}

bool
wire_quiet(const struct wire *w)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN | POLLRDHUP };

	return w->in_at == w->in_n && (!w->ssl || SSL_pending(w->ssl) == 0) && poll(&p, 1, 0) == 0;
}

static bool
read_line(struct wire *w, char *out, size_t room)
{
	size_t n = 0;

	for (;;) {
		char c;

		if (w->in_at == w->in_n && !fill(w))
			return false;
		c = w->in[w->in_at++];
		if (c == '\n')
			break;
		/* Longer lines are cut; control characters are not passed on. */
		if (c != '\r' && n + 1 < room)
			out[n++] = (unsigned char)c < ' ' || c == 0x7f ? '?' : c;
	}
	out[n] = 0;
	return true;
}

static bool
reply_shape(const char *line)
{
	return line[0] >= '2' && line[0] <= '5' && isdigit((unsigned char)line[1]) && isdigit((unsigned char)line[2]) &&
	       (line[3] == ' ' || line[3] == '-' || line[3] == 0);
}

bool
wire_reply(struct wire *w, struct gw_reply *out)
{
	char line[1024];
	size_t used = 0;

	out->text[0] = 0;
	for (int lines = 0; lines < REPLY_LINES_MAX && !w->dead && read_line(w, line, sizeof(line)); lines++) {
		bool last = line[3] != '-';
		size_t n = strlen(line);

		if (!reply_shape(line))
			break;
		if (!line[3] && n + 2 < sizeof(line))
			memcpy(line + 3, " ", 2), n = 4;
		/* What does not fit is left out, but for the last line, which stands for the whole. */
		if (used + n + 3 < sizeof(out->text)) {
			used += (size_t)snprintf(out->text + used, sizeof(out->text) - used, "%s%s", used ? "\r\n" : "", line);
		} else if (last) {
			memcpy(out->text, line, n + 1);
		}
		if (last)
			return true;
	}
	w->dead = true;
	out->text[0] = 0;
	return false;
}

bool
wire_command(struct wire *w, struct gw_reply *out, const char *fmt, ...)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf line = SQ_BUF_INIT(COMMAND_MAX);
	char text[COMMAND_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n > 0 && n < (int)sizeof(text))
		sq_buf_add(&line, text, (size_t)n);
	else
		line.failed = true;
	sq_buf_adds(&line, "\r\n");
	sq_wipe(text, sizeof(text));
	out->text[0] = 0;
	if (line.failed) {
		w->dead = true;
		return false;
	}
	return wire_send(w, line.p, line.n) && wire_reply(w, out);
}

/* ---- connecting */

static int
dial(const struct wire_place *to, struct sq_error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *list = NULL, *a;
	int fd = -1, on = 1, rc = getaddrinfo(to->host, to->port, &hints, &list);

	if (rc != 0) {
		(void)sq_error_set(err, SQ_EIO, "cannot find the backend '%s': %s", to->host, gai_strerror(rc));
		return -1;
	}
	for (a = list; a; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			continue;
		set_timeout(fd, WIRE_CONNECT_MS);
		if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
			break;
		(void)sq_error_errno(err, SQ_EIO, "cannot connect to the backend '%s' port %s", to->host, to->port);
		sq_closep(&fd);
		fd = -1;
	}
	freeaddrinfo(list);
	if (fd >= 0) {
		set_timeout(fd, WIRE_REPLY_MS);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
	return fd;
}

static enum sq_err
start_tls(struct wire *w, const struct gw_settings *s, const struct wire_place *to, struct sq_error *err)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	const char *name = s->backend_name ? s->backend_name : to->host;
	enum sq_err e = SQ_OK;
	unsigned char address[16];
	bool numeric = inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;

	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
		e = sq_error_set(err, SQ_ENOMEM, "no TLS");
	else if (s->backend_ca ? SSL_CTX_load_verify_locations(ctx, s->backend_ca, NULL) != 1 : SSL_CTX_set_default_verify_paths(ctx) != 1)
		e = sq_error_set(err, SQ_EINVAL, "cannot use '%s'", s->backend_ca ? s->backend_ca : "the system's certificates");
	if (e == SQ_OK) {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
		w->ssl = SSL_new(ctx);
		if (!w->ssl || SSL_set_fd(w->ssl, w->fd) != 1)
			e = sq_error_set(err, SQ_ENOMEM, "no TLS");
		else if (numeric ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(w->ssl), name) != 1 :
			(SSL_set1_host(w->ssl, name) != 1 || SSL_set_tlsext_host_name(w->ssl, name) != 1))
			e = sq_error_set(err, SQ_EINVAL, "'%s' is no name for a certificate", name);
	}
	if (e == SQ_OK && SSL_connect(w->ssl) != 1) {
		long why = SSL_get_verify_result(w->ssl);

		e = sq_error_set(err, SQ_EPERM, "no TLS with the backend '%s': %s", name,
		    why != X509_V_OK ? X509_verify_cert_error_string(why) : "handshake failed");
		ERR_clear_error();
	}
	SSL_CTX_free(ctx);
	return e;
}

static void
learn(struct wire *w, const char *word)
{
	static const struct { const char *word; unsigned offer; } words[] = {
		{ "CHUNKING", WIRE_CHUNKING }, { "8BITMIME", WIRE_8BITMIME }, { "SMTPUTF8", WIRE_SMTPUTF8 }, { "DSN", WIRE_DSN },
		{ "SIZE", WIRE_SIZE }, { "STARTTLS", WIRE_STARTTLS },
	};
	size_t n = strcspn(word, " \r");

	for (size_t i = 0; i < SQ_LEN(words); i++)
		if (strlen(words[i].word) == n && strncasecmp(word, words[i].word, n) == 0)
			w->offers |= words[i].offer;
	if (n == 7 && strncasecmp(word, "XCLIENT", n) == 0) {
		const char *end = strchr(word, '\r'), *addr = strcasestr(word, " ADDR"), *login = strcasestr(word, " LOGIN");

		if (addr && login && (!end || (addr < end && login < end)))
			w->offers |= WIRE_XCLIENT;
	}
	if (n == 4 && word[4] == ' ' && strncasecmp(word, "AUTH", n) == 0)
		snprintf(w->mechanisms, sizeof(w->mechanisms), "%.*s", (int)strcspn(word + 5, "\r"), word + 5);
}

enum sq_err
wire_ehlo(struct wire *w, const struct gw_settings *s, struct sq_error *err)
{
	struct gw_reply r;

	if (!wire_command(w, &r, "EHLO %s", s->hostname))
		return sq_error_set(err, SQ_EIO, "the backend gave no answer to EHLO");
	if (!gw_reply_is(&r, '2'))
		return sq_error_set(err, SQ_EPROTO, "the backend says to EHLO: %.200s", r.text);
	w->offers = 0;
	w->mechanisms[0] = 0;
	for (const char *line = strchr(r.text, '\n'); line; line = strchr(line + 1, '\n'))
		learn(w, line + 5);
	return SQ_OK;
}

enum sq_err
wire_open(struct wire *w, const struct gw_settings *s, const struct wire_place *to, struct sq_error *err)
{
	struct gw_reply r;
	enum sq_err e;

	wire_close(w);
	if ((w->fd = dial(to, err)) < 0)
		return SQ_EIO;
	if (to->tls == GW_TLS_IMPLICIT && (e = start_tls(w, s, to, err)) != SQ_OK)
		return e;
	if (!wire_reply(w, &r) || !gw_reply_is(&r, '2'))
		return sq_error_set(err, SQ_EIO, "the backend does not greet: %.200s", r.text);
	if ((e = wire_ehlo(w, s, err)) != SQ_OK || to->tls != GW_TLS_STARTTLS)
		return e;
	if (!(w->offers & WIRE_STARTTLS))
		return sq_error_set(err, SQ_EPROTO, "the backend offers no STARTTLS");
	if (!wire_command(w, &r, "STARTTLS") || !gw_reply_is(&r, '2') || w->in_at != w->in_n)
		return sq_error_set(err, SQ_EPROTO, "the backend does not start TLS: %.200s", r.text);
	if ((e = start_tls(w, s, to, err)) != SQ_OK)
		return e;
	return wire_ehlo(w, s, err);
}
