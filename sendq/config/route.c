/*
 * Routes: the server's URL, what the members of a route must fulfil together,
 * and which route a message takes.
 */
#include <arpa/inet.h>
#include <fnmatch.h>

#include "config_inside.h"

static enum sq_err
bad(const char *path, const struct sq_route *r, struct sq_error *err, const char *what)
{
	return sq_error_set(err, SQ_EINVAL, "'%s': line %d: route '%s': %s", path, r->line, r->name ? r->name : "?", what);
}

static enum sq_err
bad_server(const char *path, const struct sq_route *r, struct sq_error *err, const char *what)
{
	return sq_error_set(err, SQ_EINVAL, "'%s': line %d: route '%s': 'server' is '%s' but %s", path, r->line, r->name, r->server, what);
}

static bool
name_ok(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n > 0 && n <= 64 && s[n] == '\0';
}

static bool
is_ipv6(const char *s)
{
	struct in6_addr a;

	return inet_pton(AF_INET6, s, &a) == 1;
}

/* ASCII of a name or IPv4 address; other octets are left to the resolver, which knows IDNA. */
static bool
host_ok(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x80 && !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_", *s))
			return false;
	return true;
}

/* A port from 1 to 65535 and nothing behind it, or 0. */
static int
port_of(const char *s)
{
	int port = 0;

	for (; *s >= '0' && *s <= '9' && port <= 65535; s++)
		port = port * 10 + (*s - '0');
	return *s == '\0' && port <= 65535 ? port : 0;
}

/* "smtps://host", "smtp://[::1]:25": scheme, host and port, nothing else. */
static enum sq_err
split_server(const char *path, struct sq_route *r, struct sq_error *err)
{
	const char *p, *end;
	struct sq_buf b = SQ_BUF_INIT(1024);
	bool brackets;

	if (sq_str_casestarts(sq_str(r->server), SQ_STR("smtps://"))) {
		r->implicit_tls = true;
		p = r->server + 8;
	} else if (sq_str_casestarts(sq_str(r->server), SQ_STR("smtp://"))) {
		p = r->server + 7;
	} else {
		return bad_server(path, r, err, "must begin with smtps:// or smtp://");
	}
	brackets = *p == '[';
	end = brackets ? strchr(p, ']') : p + strcspn(p, ":/");
	if (!end || end == p || strpbrk(p, "/@? \\%"))
		return bad_server(path, r, err, "must be smtps://host:port or smtp://host:port, with nothing behind it");
	r->host = sq_str_dup((struct sq_str){ brackets ? p + 1 : p, (size_t)(end - p) - (brackets ? 1 : 0) });
	if (!r->host)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	end += brackets ? 1 : 0;
	r->port = *end == ':' ? port_of(end + 1) : *end == '\0' ? (r->implicit_tls ? 465 : 587) : 0;
	if (r->port == 0)
		return bad(path, r, err, "the port in 'server' must be a number from 1 to 65535");
	if (brackets ? !is_ipv6(r->host) : !host_ok(r->host))
		return bad(path, r, err, brackets ? "'server' has no IPv6 address in its brackets" : "'server' has a character that no host name has");
	sq_buf_addf(&b, "%s://%s%s%s:%d", r->implicit_tls ? "smtps" : "smtp", brackets ? "[" : "", r->host, brackets ? "]" : "", r->port);
	free(r->server);
	r->server = NULL;
	return sq_buf_take(&b, &r->server, err);
}

/* Certainly this machine: a name such as "127.example.org" is not, and "localhost" is by RFC 6761 §6.3. */
static bool
is_loopback(const char *host)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, host, &four) == 1)
		return ntohl(four.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, host, &six) == 1)
		return IN6_IS_ADDR_LOOPBACK(&six);
	return sq_str_caseeq(sq_str(host), SQ_STR("localhost"));
}

/* The same of the host in a URL: "imaps://[::1]:993/". */
static bool
is_loopback_url(const char *url)
{
	const char *p = strstr(url, "://");
	char host[64];
	size_t n;

	if (!p)
		return false;
	p += *(p + 3) == '[' ? 4 : 3;
	n = p[-1] == '[' ? strcspn(p, "]") : strcspn(p, ":/");
	return n < sizeof(host) && (memcpy(host, p, n), host[n] = '\0', is_loopback(host));
}

static enum sq_err
check_auth(const char *path, struct sq_route *r, struct sq_error *err)
{
	static const char *const known[] = { "PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER", "EXTERNAL", "OAUTH", NULL };
	enum sq_err e = sq_oauth_check(path, r, err);

	if (e != SQ_OK)
		return e;
	if (r->user && r->secret_kind == SQ_SECRET_NONE && !(r->auth && strcmp(r->auth, "EXTERNAL") == 0))
		return bad(path, r, err, "'user' needs a secret: password_command, password_file, password_credential, password or token_command");
	if (!r->user && r->secret_kind != SQ_SECRET_NONE)
		return bad(path, r, err, "a secret needs 'user'");
	if (r->user && r->tls == SQ_TLS_NONE && !is_loopback(r->host))
		return bad(path, r, err, "tls = \"none\" with a login would send the password in the clear");
	if (r->implicit_tls && r->tls == SQ_TLS_NONE)
		return bad(path, r, err, "smtps:// and tls = \"none\" contradict each other");
	if (!r->auth)
		return SQ_OK;
	for (size_t i = 0; known[i]; i++)
		if (sq_str_caseeq(sq_str(r->auth), sq_str(known[i]))) {
			memcpy(r->auth, known[i], strlen(known[i]));
			return SQ_OK;
		}
	return bad(path, r, err, "'auth' must be PLAIN, LOGIN, CRAM-MD5, XOAUTH2, OAUTHBEARER, EXTERNAL or oauth");
}

static bool
fingerprint_ok(const char *s)
{
	return strncmp(s, "sha256:", 7) == 0 && strspn(s + 7, "0123456789abcdefABCDEF") == 64 && s[7 + 64] == '\0';
}

static bool
begins_with_one_of(const char *s, const char *const *beginnings)
{
	for (size_t i = 0; beginnings[i]; i++)
		if (sq_str_casestarts(sq_str(s), sq_str(beginnings[i])))
			return true;
	return false;
}

enum sq_err
sq_route_check(const char *path, struct sq_route *r, struct sq_error *err)
{
	static const char *const proxies[] = { "socks5h://", "socks5://", "socks4a://", "http://", "https://", NULL };
	static const char *const imaps[] = { "imaps://", NULL };
	enum sq_err e;

	if (!r->name)
		return bad(path, r, err, "'name' is missing");
	if (!name_ok(r->name))
		return bad(path, r, err, "'name' may hold letters, digits, '.', '_' and '-', at most 64");
	if (!r->server)
		return bad(path, r, err, "'server' is missing");
	if ((e = split_server(path, r, err)) != SQ_OK || (e = check_auth(path, r, err)) != SQ_OK)
		return e;
	if (r->proxy && !begins_with_one_of(r->proxy, proxies))
		return bad(path, r, err, "'proxy' must begin with socks5h://, socks5://, socks4a://, http:// or https://");
	if (r->imap && !begins_with_one_of(r->imap, imaps))
		return bad(path, r, err, "'imap' must begin with imaps://");
	r->local = is_loopback(r->host) && !r->proxy && (!r->imap || is_loopback_url(r->imap));
	if (r->mta_log && r->mta_log[0] != '/' && (r->mta_log[0] != '|' || !r->mta_log[1]))
		return bad(path, r, err, "'mta_log' must be a file by its whole path, or | and a command");
	if (r->fingerprint && !fingerprint_ok(r->fingerprint))
		return bad(path, r, err, "'fingerprint' must be sha256: and 64 hex digits");
	if (!r->client_cert != !r->client_key)
		return bad(path, r, err, "'client_cert' and 'client_key' belong together");
	if (r->ehlo_name && strspn(r->ehlo_name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-[]:") != strlen(r->ehlo_name))
		return bad(path, r, err, "'ehlo_name' must be a host name");
	if (r->force_from && (!strchr(r->force_from, '@') || strpbrk(r->force_from, " <>\t")))
		return bad(path, r, err, "'force_from' must be an address");
	if (r->retry_max_ms < r->retry_min_ms)
		return bad(path, r, err, "'retry_max' is shorter than 'retry_min'");
	if (!r->from && !(r->from = calloc(1, sizeof(*r->from))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	return SQ_OK;
}

const struct sq_route *
sq_config_route_for(const struct sq_config *cfg, const char *envelope_sender, const char *header_from)
{
	const char *sender = envelope_sender ? envelope_sender : header_from;

	for (size_t i = 0; i < cfg->n_routes; i++) {
		const struct sq_route *r = &cfg->routes[i];

		if (!r->from[0])
			return r;
		for (size_t k = 0; sender && r->from[k]; k++)
			if (fnmatch(r->from[k], sender, FNM_CASEFOLD) == 0)
				return r;
	}
	return NULL;
}

const struct sq_route *
sq_config_route(const struct sq_config *cfg, const char *name)
{
	for (size_t i = 0; i < cfg->n_routes; i++)
		if (strcmp(cfg->routes[i].name, name) == 0)
			return &cfg->routes[i];
	return NULL;
}
