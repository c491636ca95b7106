/*
 * Inside sendq/agent: files that tell a mail program its servers
 * (draft-ietf-mailmaint-autoconfig, "clientConfig" version 1.1).
 */
#ifndef SENDQ_AGENT_AUTOCONFIG_H
#define SENDQ_AGENT_AUTOCONFIG_H

#include <sendq/base.h>

struct autoconfig {
	char server[300], imap[300];  /* smtps://host:port …; "" where none that can be used is told */
	char user[320];               /* of the server; "" where not told */
	bool password, oauth;
	char auth_url[1024], token_url[1024], scope[1024];
};

/*
 * Read the file for this address. Servers without TLS are passed over, TLS
 * from the start comes before STARTTLS. False: it is not such a file (also:
 * it declares entities), or tells no server that can be used; *why says so.
 */
bool autoconfig_parse(const char *p, size_t n, const char *address, struct autoconfig *out, const char **why);

/* A host name and nothing else. */
bool autoconfig_host_ok(const char *s);

#endif
