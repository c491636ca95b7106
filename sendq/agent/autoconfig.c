/*
 * Autoconfig files, read by expat. The file comes from a stranger: what is
 * taken is a host name, a port, a few known words and addresses that begin
 * with https://, each bounded; a document type with entities ends it.
 */
#include "autoconfig.h"

#include <expat.h>

enum { TEXT_MAX = 1024, DEPTH_MAX = 32 };

struct server {
	bool smtp, imap;             /* which kind this element is about */
	char host[256], user[320];
	char socket[16];
	int port;
	bool password, oauth;
};

struct reading {
	XML_Parser parser;
	const char *address;
	struct autoconfig *out;
	bool root, stopped;
	int depth, rank_smtp, rank_imap; /* 0 none, 1 STARTTLS, 2 TLS */
	struct server server;
	bool in_server, in_oauth;
	char text[TEXT_MAX];
	size_t n_text;
};

bool
autoconfig_host_ok(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-");

	return n > 0 && n < 254 && s[n] == '\0' && s[0] != '-' && s[0] != '.' && !strstr(s, "..");
}

static const char *
attribute(const char **atts, const char *name)
{
	for (size_t i = 0; atts[i]; i += 2)
		if (strcmp(atts[i], name) == 0)
			return atts[i + 1];
	return "";
}

static void
on_start(void *arg, const char *name, const char **atts)
{
	struct reading *r = arg;

	if (++r->depth > DEPTH_MAX) {
		XML_StopParser(r->parser, XML_FALSE);
		return;
	}
	r->n_text = 0;
	if (r->depth == 1)
		r->root = strcmp(name, "clientConfig") == 0;
	if (strcmp(name, "outgoingServer") == 0 || strcmp(name, "incomingServer") == 0) {
		r->server = (struct server){ .smtp = name[0] == 'o' && strcmp(attribute(atts, "type"), "smtp") == 0,
			.imap = name[0] == 'i' && strcmp(attribute(atts, "type"), "imap") == 0 };
		r->in_server = true;
	}
	if (strcmp(name, "oAuth2") == 0)
		r->in_oauth = true;
}

static void
on_text(void *arg, const char *s, int n)
{
	struct reading *r = arg;

	for (int i = 0; i < n && r->n_text + 1 < TEXT_MAX; i++)
		r->text[r->n_text++] = s[i];
}

/* The element's text without blanks around it; "" where it has anything but printable ASCII. */
static const char *
text_of(struct reading *r)
{
	char *p = r->text, *end = r->text + r->n_text;

	*end = '\0';
	while (*p && strchr(" \t\r\n", *p))
		p++;
	while (end > p && strchr(" \t\r\n", end[-1]))
		*--end = '\0';
	for (const char *q = p; *q; q++)
		if (*q < ' ' || *q > '~')
			return "";
	return r->n_text + 1 < TEXT_MAX ? p : "";
}

/* "%EMAILLOCALPART%" and its like; "" where it does not fit. */
static void
fill_in(const char *pattern, const char *address, char out[320])
{
	static const char *const marks[] = { "%EMAILADDRESS%", "%EMAILLOCALPART%", "%EMAILDOMAIN%" };
	const char *at = strrchr(address, '@');
	size_t n = 0;

	while (*pattern) {
		struct sq_str put = { pattern, 1 };
		size_t used = 1;

		for (size_t i = 0; i < SQ_LEN(marks); i++)
			if (strncmp(pattern, marks[i], strlen(marks[i])) == 0) {
				used = strlen(marks[i]);
				put = i == 0 ? sq_str(address) : i == 1 ? (struct sq_str){ address, (size_t)(at - address) } : sq_str(at + 1);
			}
		if (n + put.n >= 320) {
			out[0] = '\0';
			return;
		}
		memcpy(out + n, put.p, put.n);
		n += put.n;
		pattern += used;
	}
	out[n] = '\0';
}

static int
port_of(const char *s)
{
	int port = 0;

	for (; *s >= '0' && *s <= '9' && port <= 65535; s++)
		port = port * 10 + (*s - '0');
	return *s == '\0' && port <= 65535 ? port : 0;
}

static void
server_member(struct reading *r, const char *name, const char *text)
{
	struct server *s = &r->server;

	if (strcmp(name, "hostname") == 0) {
		char host[320];

		fill_in(text, r->address, host); /* "mail.%EMAILDOMAIN%" */
		snprintf(s->host, sizeof(s->host), "%.254s", autoconfig_host_ok(host) ? host : "");
	} else if (strcmp(name, "port") == 0) {
		s->port = port_of(text);
	} else if (strcmp(name, "socketType") == 0) {
		snprintf(s->socket, sizeof(s->socket), "%.15s", text);
	} else if (strcmp(name, "username") == 0) {
		fill_in(text, r->address, s->user);
	} else if (strcmp(name, "authentication") == 0) {
		s->password |= strncmp(text, "password", 8) == 0 || strcmp(text, "plain") == 0;
		s->oauth |= strcmp(text, "OAuth2") == 0;
	}
}

static void
server_over(struct reading *r)
{
	const struct server *s = &r->server;
	int rank = strcmp(s->socket, "SSL") == 0 ? 2 : strcmp(s->socket, "STARTTLS") == 0 ? 1 : 0;

	if (rank == 0 || !s->host[0] || s->port == 0)
		return;
	if (s->smtp && rank > r->rank_smtp) {
		r->rank_smtp = rank;
		snprintf(r->out->server, sizeof(r->out->server), "%s://%s:%d", rank == 2 ? "smtps" : "smtp", s->host, s->port);
		snprintf(r->out->user, sizeof(r->out->user), "%s", s->user);
		r->out->password = s->password;
		r->out->oauth = s->oauth;
	}
	if (s->imap && rank == 2 && rank > r->rank_imap) {
		r->rank_imap = rank;
		snprintf(r->out->imap, sizeof(r->out->imap), "imaps://%s:%d", s->host, s->port);
	}
}

static void
oauth_member(struct reading *r, const char *name, const char *text)
{
	if (strcmp(name, "authURL") == 0 && strncmp(text, "https://", 8) == 0)
		snprintf(r->out->auth_url, sizeof(r->out->auth_url), "%s", text);
	else if (strcmp(name, "tokenURL") == 0 && strncmp(text, "https://", 8) == 0)
		snprintf(r->out->token_url, sizeof(r->out->token_url), "%s", text);
	else if (strcmp(name, "scope") == 0)
		snprintf(r->out->scope, sizeof(r->out->scope), "%s", text);
}

static void
on_end(void *arg, const char *name)
{
	struct reading *r = arg;

	r->depth--;
	if (strcmp(name, "outgoingServer") == 0 || strcmp(name, "incomingServer") == 0) {
		if (r->in_server)
			server_over(r);
		r->in_server = false;
	} else if (strcmp(name, "oAuth2") == 0) {
		r->in_oauth = false;
	} else if (r->in_server) {
		server_member(r, name, text_of(r));
	} else if (r->in_oauth) {
		oauth_member(r, name, text_of(r));
	}
	r->n_text = 0;
}

/* Nothing that such a file needs, and the way to small files that grow large. */
static void
on_doctype(void *arg, const char *name, const char *system, const char *public, int internal)
{
	struct reading *r = arg;

	(void)name, (void)system, (void)public, (void)internal;
	r->stopped = true;
	XML_StopParser(r->parser, XML_FALSE);
}

bool
autoconfig_parse(const char *p, size_t n, const char *address, struct autoconfig *out, const char **why)
{
	struct reading r = { .address = address, .out = out };
	bool well;

	*out = (struct autoconfig){ 0 };
	*why = "it is no file that tells about mail servers";
	if (!strrchr(address, '@') || n > 1024 * 1024 || !(r.parser = XML_ParserCreate(NULL)))
		return false;
	XML_SetUserData(r.parser, &r);
	XML_SetElementHandler(r.parser, on_start, on_end);
	XML_SetCharacterDataHandler(r.parser, on_text);
	XML_SetStartDoctypeDeclHandler(r.parser, on_doctype);
	well = XML_Parse(r.parser, p, (int)n, 1) == XML_STATUS_OK && !r.stopped && r.root;
	XML_ParserFree(r.parser);
	if (!well)
		return false;
	*why = "it tells no server with TLS";
	return out->server[0] != '\0';
}
