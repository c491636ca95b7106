/*
 * The configuration: the shortest text that works, new or as one more route
 * of a file that is there. What is written was loaded before by the loader
 * itself; the old file stays beside it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>

#include "setup.h"

enum { FILE_MAX = 1024 * 1024 };

void
setup_quote(struct sq_buf *out, const char *value)
{
	sq_buf_addc(out, '"');
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			sq_buf_addc(out, '\\');
		sq_buf_addc(out, *value);
	}
	sq_buf_addc(out, '"');
}

static void
setting(struct sq_buf *out, const char *name, const char *value)
{
	if (!value || !*value)
		return;
	sq_buf_addf(out, " %s = ", name);
	setup_quote(out, value);
	sq_buf_addc(out, ';');
}

/* "smtps://h:465" → "smtps://h": what is the default need not be written. */
static void
short_url(const char *url, char out[URL_MAX])
{
	static const struct { const char *scheme, *port; } usual[] = { { "smtps://", ":465" }, { "smtp://", ":587" }, { "imaps://", ":993" } };
	size_t n = strlen(url);

	snprintf(out, URL_MAX, "%s", url);
	for (size_t i = 0; i < SQ_LEN(usual); i++)
		if (strncmp(url, usual[i].scheme, strlen(usual[i].scheme)) == 0 && n > 4 && strcmp(url + n - 4, usual[i].port) == 0)
			out[n - 4] = '\0';
}

static void
group(const struct setup *s, const char *from, const char *secret_line, struct sq_buf *out)
{
	char server[URL_MAX], imap[URL_MAX];

	short_url(s->chosen->server, server);
	short_url(s->imap_url, imap);
	sq_buf_adds(out, "  {");
	setting(out, "name", s->route);
	setting(out, "from", from);
	setting(out, "server", server);
	setting(out, "user", s->user_name);
	sq_buf_adds(out, "\n   ");
	sq_buf_addf(out, " %s", secret_line);
	if (imap[0])
		sq_buf_adds(out, "\n   ");
	setting(out, "imap", imap);
	setting(out, "ca_file", s->ca_file);
	if (s->chosen->provider && s->chosen->provider->rewrites)
		setting(out, "message_id", "rewritten");
	sq_buf_adds(out, " }\n");
}

void
setup_text(const struct setup *s, const char *from, struct sq_buf *out)
{
	group(s, from, s->secret_line, out);
}

/* The loader wants a file: one without a name will do. */
static enum sq_err
load_text(const char *text, size_t n, struct sq_config **out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = memfd_create("sendq.conf", MFD_CLOEXEC);
	char path[64];
	enum sq_err e;

	if (fd < 0 || fchmod(fd, 0600) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot try the configuration");
	if ((e = sq_write_all(fd, text, n, err)) != SQ_OK)
		return e;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return sq_config_load(path, out, err);
}

enum sq_err
setup_try_config(struct setup *s, const char *secret_line, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf text = SQ_BUF_INIT(16384);

	sq_config_freep(&s->trial);
	sq_buf_adds(&text, "routes = (\n");
	group(s, NULL, secret_line, &text);
	sq_buf_adds(&text, ");\n");
	if (text.failed)
		return sq_error_set(err, SQ_ELIMIT, "the settings are too long");
	return load_text(text.p, text.n, &s->trial, err);
}

/* ---- a file that is there ---- */

/* Where the first route of `routes = (` would stand, by the words of libconfig's grammar; 0: not found. */
static size_t
place_of_first(const char *text)
{
	size_t depth = 0;
	bool routes = false;

	for (size_t i = 0; text[i]; i++) {
		if (text[i] == '#' || (text[i] == '/' && text[i + 1] == '/')) {
			i += strcspn(text + i, "\n");
			if (!text[i])
				return 0;
		} else if (text[i] == '/' && text[i + 1] == '*') {
			const char *end = strstr(text + i + 2, "*/");

			if (!end)
				return 0;
			i = (size_t)(end - text) + 1;
		} else if (text[i] == '"') {
			for (i++; text[i] && text[i] != '"'; i++)
				if (text[i] == '\\' && text[i + 1])
					i++;
			if (!text[i])
				return 0;
		} else if (text[i] == '(' && depth == 0 && routes) {
			return i + 1;
		} else if (strchr("({[", text[i])) {
			depth++;
		} else if (strchr(")}]", text[i])) {
			depth -= depth > 0;
		} else if (depth == 0 && strncmp(text + i, "routes", 6) == 0 && strchr(" \t\r\n=:", text[i + 6])) {
			routes = true;
			i += 5;
		} else if (text[i] == ';') {
			routes = false;
		}
	}
	return 0;
}

/* The old file under another name, which is told. */
static enum sq_err
keep_old(struct setup *s, struct sq_error *err)
{
	char name[4096];

	for (int i = 1; i < 100; i++) {
		snprintf(name, sizeof(name), i == 1 ? "%s.bak" : "%s.bak%d", s->config, i);
		if (link(s->config, name) == 0) {
			say(s, "The file as it was: %s\n", name);
			return SQ_OK;
		}
		if (errno != EEXIST)
			break;
	}
	return sq_error_errno(err, SQ_EIO, "cannot keep a copy of '%s'", s->config);
}

/* A name that no other route has. */
static bool
free_name(struct setup *s, const struct sq_config *there)
{
	char base[65];

	if (!sq_config_route(there, s->route))
		return true;
	if (s->name)
		return false;
	snprintf(base, sizeof(base), "%.56s", s->route);
	for (int i = 2; i < 100; i++) {
		snprintf(s->route, sizeof(s->route), "%.56s-%d", base, i);
		if (!sq_config_route(there, s->route))
			return true;
	}
	return false;
}

/* May it be written? Before anything is kept anywhere. */
int
setup_may_write(struct setup *s)
{
	SQ_CLEANUP(sq_config_freep) struct sq_config *there = NULL;

	if (access(s->config, F_OK) < 0)
		return EX_OK;
	if (sq_config_load(s->config, &there, &s->c->err) != SQ_OK) {
		fprintf(stderr, "sendq: '%s' is there, and cannot be added to: %s\n", s->config, s->c->err.text);
		return EX_CONFIG;
	}
	if (!free_name(s, there))
		return cli_usage("a route '%s' is there already: say another --name", s->route);
	if (!s->yes && !s->terminal) {
		fprintf(stderr, "sendq: '%s' is there already: --yes adds the route to it\n", s->config);
		return EX_USAGE;
	}
	s->declined = !ask_yes(s, true, "%s is there already. Add the route to it, for mail from %s?", s->config, s->address);
	return EX_OK;
}

static int
add_route(struct setup *s, const struct sq_buf *old)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf text = SQ_BUF_INIT(FILE_MAX);
	SQ_CLEANUP(sq_config_freep) struct sq_config *after = NULL;
	size_t at = old->p ? place_of_first(old->p) : 0;

	if (at == 0) {
		fprintf(stderr, "sendq: '%s' is there, and cannot be added to: its list of routes is not found\n", s->config);
		return EX_CONFIG;
	}
	sq_buf_add(&text, old->p, at);
	sq_buf_adds(&text, "\n");
	setup_text(s, s->address, &text);
	sq_buf_adds(&text, "  ,");
	sq_buf_adds(&text, old->p + at);
	if (text.failed || load_text(text.p, text.n, &after, &s->c->err) != SQ_OK) {
		fprintf(stderr, "sendq: the file is left as it was: %s\n", text.failed ? "it would be too long" : s->c->err.text);
		return EX_CONFIG;
	}
	if (keep_old(s, &s->c->err) != SQ_OK || sq_write_private(s->config, (struct sq_str){ text.p, text.n }, &s->c->err) != SQ_OK)
		return cli_fail(s->c);
	setup_share(s, s->config, false);
	return EX_OK;
}

int
setup_write(struct setup *s)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf old = SQ_BUF_INIT(FILE_MAX);
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf text = SQ_BUF_INIT(16384);
	const char *slash = strrchr(s->config, '/');
	SQ_CLEANUP(sq_freep) char *folder = slash ? sq_str_dup((struct sq_str){ s->config, (size_t)(slash - s->config) }) : NULL;
	SQ_CLEANUP(sq_closep) int fd = open(s->config, O_RDONLY | O_CLOEXEC);
	int status;

	if (fd >= 0) {
		if (sq_buf_read_fd(&old, fd, &s->c->err) != SQ_OK)
			return cli_fail(s->c);
		if ((status = add_route(s, &old)) != EX_OK)
			return status;
		say(s, "The route '%s' is in %s\n", s->route, s->config);
		return EX_OK;
	}
	sq_buf_adds(&text, "routes = (\n");
	setup_text(s, NULL, &text);
	sq_buf_adds(&text, ");\n");
	if ((folder && folder[0] && sq_mkdirs(folder, &s->c->err) != SQ_OK) || sq_write_private(s->config, (struct sq_str){ text.p, text.n }, &s->c->err) != SQ_OK)
		return cli_fail(s->c);
	setup_share(s, s->config, false);
	say(s, "The configuration is written: %s\n", s->config);
	return EX_OK;
}
