/*
 * Inside sendq/net: telling a person how a connection comes about, while
 * libcurl makes it. Every function does nothing where nobody wants to know.
 */
#ifndef SENDQ_NET_TOLD_H
#define SENDQ_NET_TOLD_H

#include <openssl/ssl.h>
#include <sys/socket.h>

#include <sendq/net.h>

struct told {
	const struct sq_told *to;   /* NULL: nobody */
	int64_t began, since;       /* boot ms: of all, of the step under way */
	bool named, connected, greeted;
	bool shaken;                /* a handshake is done, and not told yet: the name is checked behind it */
	uint32_t shaken_ms;
	char tls[96];
};

void told_begin(struct told *t, const struct sq_told *to);
void told_name(struct told *t, const struct sockaddr *address);      /* it is going to be connected to */
void told_connected(struct told *t, void *easy);
void told_handshake(struct told *t, SSL_CTX *ctx);                   /* one begins */
void told_certificate(struct told *t, X509 *leaf, const char *problem);
void told_reply(struct told *t, const struct sq_reply *reply);
void told_imap_line(struct told *t, bool untagged, struct sq_str rest);
void told_through(struct told *t, bool logged_in);                   /* libcurl is done; logged_in: and it was IMAP's login that came last */

#endif
