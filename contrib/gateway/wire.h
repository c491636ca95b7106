/*
 * A connection to the backend: TLS, lines out, replies in. Blocks, with time limits.
 */
#ifndef GATEWAY_WIRE_H
#define GATEWAY_WIRE_H

#include "gateway.h"

/* What the backend offers. */
enum {
	WIRE_CHUNKING = 1, WIRE_8BITMIME = 2, WIRE_SMTPUTF8 = 4, WIRE_DSN = 8, WIRE_SIZE = 16, WIRE_STARTTLS = 32,
	WIRE_XCLIENT = 64,   /* with ADDR and LOGIN */
};

enum { WIRE_REPLY_MS = 600000, WIRE_CONNECT_MS = 30000 };

struct wire {
	int fd;
	struct ssl_st *ssl;
	char in[4096];
	size_t in_n, in_at;
	unsigned offers;
	char mechanisms[256];
	bool dead;             /* nothing more comes of it */
};

/* Where to. */
struct wire_place {
	const char *host, *port;
	enum gw_tls tls;
};

#define WIRE_INIT { .fd = -1 }

/*
 * Connect, read the greeting, say EHLO, and start TLS where the backend is to be spoken to in TLS.
 * SQ_EIO, SQ_EPROTO, SQ_EPERM (certificate).
 */
SQ_MUST_USE enum sq_err wire_open(struct wire *w, const struct gw_settings *s, const struct wire_place *place,
    struct sq_error *err);
void wire_close(struct wire *w);
/* EHLO again. */
SQ_MUST_USE enum sq_err wire_ehlo(struct wire *w, const struct gw_settings *s, struct sq_error *err);

/* Send octets. False: the connection is gone. */
bool wire_send(struct wire *w, const char *p, size_t n);
/* Read one reply. False: none came (then w->dead), *out is empty. */
bool wire_reply(struct wire *w, struct gw_reply *out);
/* Nothing has come that nobody asked for, and the other side has not hung up. */
bool wire_quiet(const struct wire *w);
/* A command without its CRLF, and the reply to it. */
bool wire_command(struct wire *w, struct gw_reply *out, const char *fmt, ...) SQ_PRINTF(3, 4);

#endif
