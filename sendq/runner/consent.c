/*
 * A person's consent, in the foreground: sendq-oauth asks the provider, this
 * hands its prompt on and keeps the refresh token.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <sendq/io.h>
#include <sendq/probe.h>

#include "tokens.h"

enum { LOOK_MS = 200 };

static enum sq_err
on_token(const struct sq_consent *c, const struct sq_token *t, struct sq_error *err)
{
	if (t->outcome != SQ_OUTCOME_ACCEPTED)
		return sq_error_set(err, t->outcome == SQ_OUTCOME_SECRET ? SQ_EPERM : SQ_EIO, "no consent: %.*s", (int)(t->words.n < 400 ? t->words.n : 400), t->words.p);
	if (t->refresh.n == 0)
		return sq_error_set(err, SQ_EPROTO, "the provider gave no refresh token: the scope must allow it (offline_access, for most)");
	return token_store(c->route, t->refresh, err);
}

static enum sq_err
talk(const struct sq_consent *c, int fd, struct sq_error *err)
{
	static struct sq_frame f; /* large; one thread */
	SQ_CLEANUP(sq_stream_wipe) struct sq_stream s;
	bool have, prompted = false;

	sq_stream_init(&s, fd);
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		enum sq_err filled = sq_stream_fill(&s, err), e;

		do {
			if ((e = sq_stream_next(&s, &f, &have, err)) != SQ_OK)
				return e;
			if (have && f.type == SQ_FRAME_TOKEN) {
				e = on_token(c, &f.u.token, err);
				sq_wipe(&f, sizeof(f));
				return e;
			}
			if (have && (f.type != SQ_FRAME_TOKEN_PROMPT || prompted))
				return sq_error_set(err, SQ_EPROTO, "sendq-oauth sent %s, which does not belong here", sq_frame_type_name(f.type));
			if (have)
				c->prompt(c->arg, &f.u.token_prompt);
			prompted |= have;
		} while (have);
		if (filled != SQ_OK)
			return sq_error_set(err, SQ_EIO, "sendq-oauth died");
		(void)poll(&p, 1, LOOK_MS);
	}
}

/* The client's secret, by waiting for it. */
static enum sq_err
client_secret(const struct sq_consent *c, struct sq_buf *out, struct sq_error *err)
{
	struct sq_route r = { .secret_kind = SQ_SECRET_NONE };

	if (c->route->oauth_client_secret_command) {
		r.secret_kind = SQ_SECRET_COMMAND;
		r.secret = c->route->oauth_client_secret_command;
	} else if (c->route->oauth_client_secret_file) {
		r.secret_kind = SQ_SECRET_FILE;
		r.secret = c->route->oauth_client_secret_file;
	}
	return sq_probe_secret(&r, c->interactive, out, err);
}

enum sq_err
sq_consent(const struct sq_consent *c, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf client = SQ_BUF_INIT(SQ_TOKEN_MAX);
	SQ_CLEANUP(sq_closep) int fd = -1;
	struct sq_error scratch = { 0 };
	pid_t pid = 0;
	enum sq_err e;

	if (!(c->device ? c->route->oauth_device_url : c->route->oauth_auth_url))
		return sq_error_set(err, SQ_EINVAL, c->device ? "the provider has no consent by code: set oauth_device_url, or use --browser" :
			"no address to consent at is known: set oauth_auth_url, or use --device");
	if ((e = client_secret(c, &client, err)) != SQ_OK)
		return e;
	e = token_helper(c->route, c->device ? SQ_TOKEN_DEVICE : SQ_TOKEN_BROWSER, (struct sq_str){ client.p, client.n }, (struct sq_str){ 0 }, &pid, &fd, err);
	if (e != SQ_OK)
		return e;
	e = talk(c, fd, err ? err : &scratch);
	sq_closep(&fd);
	if (e != SQ_OK)
		kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return e;
}
