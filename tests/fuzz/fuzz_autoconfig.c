/* Autoconfig files are a stranger's. What is taken of them is a host with a port, printable words, and https:// alone. */
#include "../../sendq/agent/autoconfig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* No octet that could end a line, a string or a word. */
static void
printable(const char *s, size_t max)
{
	if (strlen(s) >= max)
		sq_bug("a text without end");
	for (; *s; s++)
		if (*s < ' ' || *s > '~')
			sq_bug("octet %d", *s);
}

static void
server_url(const char *s, const char *scheme, const char *other)
{
	size_t n = strncmp(s, scheme, strlen(scheme)) == 0 ? strlen(scheme) : strncmp(s, other, strlen(other)) == 0 ? strlen(other) : 0;
	const char *colon = strrchr(s, ':');
	char host[300];
	long port;

	if (n == 0)
		sq_bug("a server '%s'", s);
	snprintf(host, sizeof(host), "%.*s", (int)(colon - s - (long)n), s + n);
	port = strtol(colon + 1, NULL, 10);
	if (!autoconfig_host_ok(host) || port < 1 || port > 65535 || strspn(colon + 1, "0123456789") != strlen(colon + 1))
		sq_bug("a server '%s'", s);
}

static void
https(const char *s)
{
	if (s[0] && strncmp(s, "https://", 8) != 0)
		sq_bug("a url '%s'", s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const addresses[] = { "ann@example.test", "\"a b\"@[192.0.2.1]", "@" };
	static struct autoconfig a;
	const char *why = NULL;

	for (size_t i = 0; i < SQ_LEN(addresses); i++) {
		bool good = autoconfig_parse((const char *)data, size, addresses[i], &a, &why);

		printable(a.server, sizeof(a.server));
		printable(a.imap, sizeof(a.imap));
		printable(a.user, sizeof(a.user));
		printable(a.auth_url, sizeof(a.auth_url));
		printable(a.token_url, sizeof(a.token_url));
		printable(a.scope, sizeof(a.scope));
		if (!why || !why[0])
			sq_bug("no reason");
		if (!good)
			continue;
		server_url(a.server, "smtps://", "smtp://");
		if (a.imap[0])
			server_url(a.imap, "imaps://", "imaps://");
		https(a.auth_url);
		https(a.token_url);
	}
	return 0;
}
