/*
 * The big providers, as far as one can know them without asking: servers,
 * how one logs in, whether what was sent is filed by the server, OAuth 2.
 */
#ifndef SENDQ_PROVIDER_H
#define SENDQ_PROVIDER_H

#include <sendq/base.h>

struct sq_provider {
	const char *id;            /* a short word */
	const char *name;          /* for people */
	const char *domains;       /* of addresses, separated by blanks; "" where there are none of its own */
	const char *mx;            /* the end of its MX hosts' names; NULL: none to go by */
	const char *server, *imap; /* as in the configuration */
	bool files_sent;           /* the server files what it accepts */
	bool rewrites;             /* it puts a Message-ID of its own in the place of ours */
	const char *password;      /* what it wants as a password, a sentence; NULL: the usual one */
	const char *auth_url, *device_url, *token_url; /* OAuth 2; NULL: none, or not this way */
	const char *scope, *imap_scope;
};

extern const struct sq_provider sq_providers[];
extern const size_t sq_n_providers;

const struct sq_provider *sq_provider_of_domain(const char *domain);
/* By the host of a submission server. */
const struct sq_provider *sq_provider_of_host(const char *host);
const struct sq_provider *sq_provider_of_mx(const char *mx);

#endif
