/*
 * Access tokens of routes with auth = "oauth": kept while they are good, asked
 * for anew when they are old or were refused. The provider is spoken to by
 * sendq-oauth; here its answer is a few bounded strings. Refresh tokens and
 * the client's secret come from a file or a command, go to the helper by its
 * socket, and are wiped. Nothing of this is logged but that it happened.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/log.h>

#include "inside.h"
#include "tokens.h"

enum { EXCHANGE_MS = 25000, EARLY_MS = 60000, UNTOLD_MS = 300000, LOOK_MS = 100 };

struct access_token {
	struct access_token *next;
	char route[65], user[256];
	struct sq_buf octets;
	int64_t good_until;      /* boot ms */
};

/* ---- keeping the refresh token ---- */

static enum sq_err
store_file(const char *path, struct sq_str token, struct sq_error *err)
{
	const char *slash = strrchr(path, '/');
	SQ_CLEANUP(sq_freep) char *folder = slash && slash != path ? sq_str_dup((struct sq_str){ path, (size_t)(slash - path) }) : NULL;
	enum sq_err e;

	if (folder && (e = sq_mkdirs(folder, err)) != SQ_OK)
		return e;
	return sq_write_private(path, token, err);
}

/* Its standard input is the token; in the foreground, waited for. */
static enum sq_err
store_command(const char *shell, struct sq_str token, struct sq_error *err)
{
	SQ_CLEANUP(command_fini) struct command c = { .out = -1, .err = -1 };
	enum sq_err e = command_start(&c, shell, NULL, token, false, err);

	if (e != SQ_OK)
		return e;
	while (!command_events(&c)) {
		struct pollfd fds[2] = { { .fd = c.out, .events = POLLIN }, { .fd = c.err, .events = POLLIN } };

		(void)poll(fds, 2, LOOK_MS);
	}
	return c.text.failed ? sq_error_set(err, SQ_EIO, "oauth_refresh_store: %.400s", c.words.n > 0 ? c.words.p : "it failed") : SQ_OK;
}

enum sq_err
token_store(const struct sq_route *route, struct sq_str token, struct sq_error *err)
{
	if (route->oauth_refresh_file)
		return store_file(route->oauth_refresh_file, token, err);
	if (route->oauth_refresh_store)
		return store_command(route->oauth_refresh_store, token, err);
	return sq_error_set(err, SQ_EINVAL, "nothing keeps the refresh token: set oauth_refresh_store, which reads it on standard input");
}

/* ---- the helper ---- */

enum sq_err
token_helper(const struct sq_route *route, enum sq_token_kind kind, struct sq_str client, struct sq_str refresh, pid_t *pid, int *fd, struct sq_error *err)
{
	struct sq_stream s;
	struct sq_frame f = { .type = SQ_FRAME_HELLO };
	enum sq_err e = helper_spawn("sendq-oauth", -1, pid, fd, err);

	if (e != SQ_OK)
		return e;
	sq_stream_init(&s, *fd);
	f.u.hello.version = SQ_AGENT_VERSION;
	if ((e = sq_stream_put(&s, &f, err)) == SQ_OK) {
		f = (struct sq_frame){ .type = SQ_FRAME_TOKEN_JOB };
		f.u.token_job = (struct sq_token_job){ .kind = kind, .token_url = sq_str(route->oauth_token_url), .device_url = sq_str(route->oauth_device_url),
			.auth_url = sq_str(route->oauth_auth_url), .client_id = sq_str(route->oauth_client_id), .client_secret = client,
			.scope = sq_str(route->oauth_scope), .refresh = refresh, .login_hint = sq_str(route->user), .ca_file = sq_str(route->oauth_ca_file),
			.proxy = sq_str(route->proxy), .timeout_ms = EXCHANGE_MS };
		e = sq_stream_put(&s, &f, err);
	}
	/* A new socket takes so much at once. */
	if (e == SQ_OK)
		e = sq_stream_flush(&s, err);
	if (e == SQ_OK && sq_stream_pending(&s))
		e = sq_error_set(err, SQ_EIO, "cannot hand the job to sendq-oauth");
	sq_stream_wipe(&s);
	if (e != SQ_OK) {
		sq_closep(fd);
		kill(*pid, SIGKILL);
		(void)waitpid(*pid, NULL, 0);
		*pid = 0;
	}
	return e;
}

/* ---- the way ---- */

static enum token_result
fails(struct sq_end *end, char words[SQ_REPLY_TEXT_MAX], enum sq_outcome outcome, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(words, SQ_REPLY_TEXT_MAX, fmt, ap);
	va_end(ap);
	n = n < 0 ? 0 : n < SQ_REPLY_TEXT_MAX ? n : SQ_REPLY_TEXT_MAX - 1;
	*end = (struct sq_end){ .outcome = outcome, .scope = SQ_SCOPE_ROUTE, .reply = { .text = { words, (size_t)n } } };
	return TOKEN_FAILED;
}

static enum token_result
ask_provider(struct token_way *w, const struct sq_route *route, struct command *c, struct sq_end *end, char words[SQ_REPLY_TEXT_MAX])
{
	struct sq_error err = { 0 };

	w->step = TOKEN_PROVIDER;
	if (token_helper(route, SQ_TOKEN_REFRESH, (struct sq_str){ w->client.p, w->client.n }, (struct sq_str){ w->refresh.p, w->refresh.n }, &c->pid, &c->out, &err) != SQ_OK)
		return fails(end, words, SQ_OUTCOME_LOCAL, "%s", err.text);
	c->err = -1;
	c->text = (struct sq_buf)SQ_BUF_INIT(SQ_SECRET_MAX);
	c->words = (struct sq_buf)SQ_BUF_INIT(2048);
	(void)sq_buf_reserve(&c->text, SQ_SECRET_MAX);
	c->deadline = sq_boot_ms() + SQ_SECRET_MS;
	return TOKEN_WAITS;
}

static enum token_result
have_refresh_token(struct token_way *w, const struct sq_route *route, bool interactive, struct command *c, struct sq_end *end, char words[SQ_REPLY_TEXT_MAX])
{
	struct sq_error err = { 0 };
	struct stat st;

	w->step = TOKEN_REFRESH;
	w->refresh = (struct sq_buf)SQ_BUF_INIT(SQ_TOKEN_MAX);
	if (route->oauth_refresh_command)
		return command_start(c, route->oauth_refresh_command, NULL, (struct sq_str){ 0 }, interactive, &err) == SQ_OK ? TOKEN_WAITS : fails(end, words, SQ_OUTCOME_SECRET, "%s", err.text);
	if (stat(route->oauth_refresh_file, &st) < 0 && errno == ENOENT)
		return fails(end, words, SQ_OUTCOME_SECRET, "nobody has consented yet: sendq oauth %s", route->name);
	if (secret_read_file(route->oauth_refresh_file, &w->refresh, &err) != SQ_OK)
		return fails(end, words, SQ_OUTCOME_SECRET, "%s", err.text);
	secret_trim(&w->refresh);
	return ask_provider(w, route, c, end, words);
}

enum token_result
token_begin(struct token_way *w, const struct sq_route *route, bool interactive, struct command *c, struct sq_buf *out, uint32_t *expires_s, struct sq_end *end,
	    char words[SQ_REPLY_TEXT_MAX])
{
	struct sq_error err = { 0 };

	(void)out, (void)expires_s;
	*w = (struct token_way){ .step = TOKEN_CLIENT, .client = SQ_BUF_INIT(SQ_TOKEN_MAX) };
	if (route->oauth_client_secret_command)
		return command_start(c, route->oauth_client_secret_command, NULL, (struct sq_str){ 0 }, interactive, &err) == SQ_OK ? TOKEN_WAITS : fails(end, words, SQ_OUTCOME_SECRET, "%s", err.text);
	if (route->oauth_client_secret_file && secret_read_file(route->oauth_client_secret_file, &w->client, &err) != SQ_OK)
		return fails(end, words, SQ_OUTCOME_SECRET, "%s", err.text);
	secret_trim(&w->client);
	return have_refresh_token(w, route, interactive, c, end, words);
}

/* What a command printed becomes a part of the way. */
static bool
take_printed(struct command *c, struct sq_buf *part)
{
	secret_trim(&c->text);
	if (c->text.failed || c->text.n == 0 || c->text.n > SQ_TOKEN_MAX)
		return false;
	*part = (struct sq_buf)SQ_BUF_INIT(SQ_TOKEN_MAX);
	(void)sq_buf_reserve(part, part->max);
	sq_buf_add(part, c->text.p, c->text.n);
	return true;
}

/* Somebody else, a second sendq perhaps, has used the token up and kept its successor. */
static bool
was_replaced(struct token_way *w, const struct sq_route *route)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf now = SQ_BUF_INIT(SQ_TOKEN_MAX);

	if (w->again || !route->oauth_refresh_file || secret_read_file(route->oauth_refresh_file, &now, NULL) != SQ_OK)
		return false;
	secret_trim(&now);
	if (now.n == 0 || (now.n == w->refresh.n && memcmp(now.p, w->refresh.p, now.n) == 0))
		return false;
	w->again = true;
	sq_buf_wipe(&w->refresh);
	w->refresh = (struct sq_buf)SQ_BUF_INIT(SQ_TOKEN_MAX);
	(void)sq_buf_reserve(&w->refresh, w->refresh.max);
	sq_buf_add(&w->refresh, now.p, now.n);
	return true;
}

static void
lost(const struct sq_route *route, const char *why)
{
	sq_log(SQ_LOG_ERROR, "route=%s: the provider gave a new refresh token, which is lost: %.400s", route->name, why);
}

/*
 * The provider gave a token. A new refresh token is kept first: in a file at
 * once, by a command beside everything else, so that a slow one delays nobody.
 */
static enum token_result
have_access(struct token_way *w, const struct sq_route *route, const struct sq_token *token, struct command *c, struct sq_buf *out, uint32_t *expires_s)
{
	bool fresh = token->refresh.n > 0 && !sq_str_eq(token->refresh, (struct sq_str){ w->refresh.p, w->refresh.n });
	struct sq_error err = { 0 };

	if (fresh && !route->oauth_refresh_file && route->oauth_refresh_store) {
		struct command keeper = { .out = -1, .err = -1 };

		w->access = (struct sq_buf)SQ_BUF_INIT(SQ_TOKEN_MAX);
		(void)sq_buf_reserve(&w->access, w->access.max);
		sq_buf_add_str(&w->access, token->access);
		w->expires_s = token->expires_s;
		if (command_start(&keeper, route->oauth_refresh_store, NULL, token->refresh, false, &err) == SQ_OK) {
			command_fini(c);
			*c = keeper;
			w->step = TOKEN_STORING;
			return TOKEN_WAITS;
		}
		lost(route, err.text);
	} else if (fresh && token_store(route, token->refresh, &err) != SQ_OK) {
		lost(route, err.text);
	}
	(void)sq_buf_reserve(out, out->max);
	sq_buf_add_str(out, token->access);
	*expires_s = token->expires_s;
	return TOKEN_HAVE;
}

static enum token_result
on_answer(struct token_way *w, const struct sq_route *route, struct command *c, struct sq_buf *out, uint32_t *expires_s, struct sq_end *end, char words[SQ_REPLY_TEXT_MAX])
{
	static struct sq_frame f; /* large; one thread */
	struct sq_error err = { 0 };
	enum token_result t;
	size_t used = 0;

	if (c->text.failed || sq_frame_decode((struct sq_str){ c->text.p, c->text.n }, &f, &used, &err) != SQ_OK || used == 0 || used != c->text.n || f.type != SQ_FRAME_TOKEN)
		return fails(end, words, SQ_OUTCOME_LOCAL, "sendq-oauth died, or did not answer in time");
	if (f.u.token.outcome == SQ_OUTCOME_SECRET && was_replaced(w, route)) {
		command_fini(c);
		return ask_provider(w, route, c, end, words);
	}
	if (f.u.token.outcome == SQ_OUTCOME_SECRET)
		return fails(end, words, SQ_OUTCOME_SECRET, "the provider gives no token: %.*s. To consent again: sendq oauth %s", (int)f.u.token.words.n, f.u.token.words.p, route->name);
	if (f.u.token.outcome != SQ_OUTCOME_ACCEPTED)
		return fails(end, words, f.u.token.outcome, "no token: %.*s", (int)f.u.token.words.n, f.u.token.words.p);
	t = have_access(w, route, &f.u.token, c, out, expires_s);
	sq_wipe(&f, sizeof(f));
	return t;
}

/* The command that keeps the refresh token is over. */
static enum token_result
on_stored(struct token_way *w, const struct sq_route *route, const struct command *c, struct sq_buf *out, uint32_t *expires_s)
{
	if (c->text.failed)
		lost(route, c->words.n > 0 ? c->words.p : "the command failed");
	(void)sq_buf_reserve(out, out->max);
	sq_buf_add(out, w->access.p, w->access.n);
	*expires_s = w->expires_s;
	return TOKEN_HAVE;
}

enum token_result
token_go_on(struct token_way *w, const struct sq_route *route, bool interactive, struct command *c, struct sq_buf *out, uint32_t *expires_s, struct sq_end *end,
	    char words[SQ_REPLY_TEXT_MAX])
{
	enum token_result t;

	if (w->step == TOKEN_PROVIDER) {
		t = on_answer(w, route, c, out, expires_s, end, words);
		if (t == TOKEN_WAITS)
			return t;
	} else if (w->step == TOKEN_STORING) {
		t = on_stored(w, route, c, out, expires_s);
	} else if (!take_printed(c, w->step == TOKEN_CLIENT ? &w->client : &w->refresh)) {
		t = fails(end, words, SQ_OUTCOME_SECRET, "%s gave nothing: %.500s", w->step == TOKEN_CLIENT ? "oauth_client_secret_command" : "oauth_refresh_command",
			c->words.n > 0 ? c->words.p : "it printed nothing");
	} else {
		command_fini(c);
		return w->step == TOKEN_CLIENT ? have_refresh_token(w, route, interactive, c, end, words) : ask_provider(w, route, c, end, words);
	}
	command_fini(c);
	return t;
}

void
token_way_fini(struct token_way *w)
{
	sq_buf_wipe(&w->client);
	sq_buf_wipe(&w->refresh);
	sq_buf_wipe(&w->access);
}

/* ---- for agents ---- */

static void
drop(struct access_token *t)
{
	sq_buf_wipe(&t->octets);
	free(t);
}

void
token_refused(struct runner *r, const char *route)
{
	for (struct access_token **p = &r->tokens; *p; p = &(*p)->next) {
		struct access_token *t = *p;

		if (strcmp(t->route, route) != 0)
			continue;
		*p = t->next;
		drop(t);
		return;
	}
}

static void
keep(struct runner *r, const struct sq_route *route, const struct sq_buf *token, uint32_t expires_s)
{
	struct access_token *t = calloc(1, sizeof(*t));
	int64_t life = expires_s > 0 ? (int64_t)expires_s * 1000 - EARLY_MS : UNTOLD_MS;

	token_refused(r, route->name);
	if (!t || life <= 0) {
		free(t);
		return;
	}
	snprintf(t->route, sizeof(t->route), "%s", route->name);
	snprintf(t->user, sizeof(t->user), "%s", route->user);
	t->octets = (struct sq_buf)SQ_BUF_INIT(SQ_TOKEN_MAX);
	(void)sq_buf_reserve(&t->octets, t->octets.max);
	sq_buf_add(&t->octets, token->p, token->n);
	t->good_until = sq_boot_ms() + life;
	t->next = r->tokens;
	r->tokens = t;
}

static void
result(struct runner *r, struct agent *a, const struct sq_route *route, enum token_result t, struct sq_buf *token, uint32_t expires_s, const struct sq_end *end)
{
	if (t == TOKEN_WAITS)
		return;
	token_way_fini(&a->token);
	if (t == TOKEN_FAILED) {
		sq_log(SQ_LOG_WARN, "route=%s: no access token (%s)", route->name, sq_outcome_name(end->outcome));
		agent_failed(r, a, end);
		return;
	}
	sq_log(SQ_LOG_INFO, "route=%s: new access token for %u s", route->name, (unsigned)expires_s);
	keep(r, route, token, expires_s);
	agent_start(r, a, route, (struct sq_str){ token->p, token->n });
}

void
token_open(struct runner *r, struct agent *a, const struct sq_route *route)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf token = SQ_BUF_INIT(SQ_TOKEN_MAX);
	char words[SQ_REPLY_TEXT_MAX];
	uint32_t expires_s = 0;
	struct sq_end end = { 0 };

	for (struct access_token *t = r->tokens; t; t = t->next)
		if (strcmp(t->route, route->name) == 0 && strcmp(t->user, route->user) == 0 && sq_boot_ms() < t->good_until) {
			agent_start(r, a, route, (struct sq_str){ t->octets.p, t->octets.n });
			return;
		}
	result(r, a, route, token_begin(&a->token, route, r->o->interactive, &a->secret, &token, &expires_s, &end, words), &token, expires_s, &end);
}

void
token_over(struct runner *r, struct agent *a, const struct sq_route *route)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf token = SQ_BUF_INIT(SQ_TOKEN_MAX);
	char words[SQ_REPLY_TEXT_MAX];
	uint32_t expires_s = 0;
	struct sq_end end = { 0 };

	result(r, a, route, token_go_on(&a->token, route, r->o->interactive, &a->secret, &token, &expires_s, &end, words), &token, expires_s, &end);
}

void
tokens_free(struct runner *r)
{
	while (r->tokens) {
		struct access_token *t = r->tokens;

		r->tokens = t->next;
		drop(t);
	}
}
