/*
 * Routes with auth = "oauth": what they need, and what the provider's row of
 * the table adds.
 */
#include <sendq/provider.h>

#include "config_inside.h"

static enum sq_err
bad(const char *path, const struct sq_route *r, struct sq_error *err, const char *what)
{
	return sq_error_set(err, SQ_EINVAL, "'%s': line %d: route '%s': %s", path, r->line, r->name, what);
}

static bool
fill(char **member, const char *value)
{
	return *member || !value || (*member = sq_str_dup(sq_str(value))) != NULL;
}

static enum sq_err
fill_from_provider(struct sq_route *r, struct sq_error *err)
{
	const struct sq_provider *p = sq_provider_of_host(r->host);
	struct sq_buf scope = SQ_BUF_INIT(2048);

	if (!p || !p->token_url)
		return SQ_OK;
	if (!fill(&r->oauth_auth_url, p->auth_url) || !fill(&r->oauth_device_url, p->device_url) || !fill(&r->oauth_token_url, p->token_url))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (r->oauth_scope)
		return SQ_OK;
	sq_buf_adds(&scope, p->scope);
	if (r->imap && p->imap_scope)
		sq_buf_addf(&scope, " %s", p->imap_scope);
	return sq_buf_take(&scope, &r->oauth_scope, err);
}

static bool
https_or_none(const char *url)
{
	return !url || sq_str_casestarts(sq_str(url), SQ_STR("https://"));
}

enum sq_err
sq_oauth_check(const char *path, struct sq_route *r, struct sq_error *err)
{
	bool any = r->oauth_client_id || r->oauth_client_secret_file || r->oauth_client_secret_command || r->oauth_refresh_file ||
		r->oauth_refresh_command || r->oauth_refresh_store || r->oauth_auth_url || r->oauth_device_url || r->oauth_token_url ||
		r->oauth_scope || r->oauth_ca_file;
	enum sq_err e;

	if (!r->auth || !sq_str_caseeq(sq_str(r->auth), SQ_STR("OAUTH")))
		return any ? bad(path, r, err, "settings of oauth need auth = \"oauth\"") : SQ_OK;
	if (r->secret_kind != SQ_SECRET_NONE)
		return bad(path, r, err, "auth = \"oauth\" gets its tokens by itself: no password and no token_command");
	if (!r->user || !r->oauth_client_id)
		return bad(path, r, err, "auth = \"oauth\" needs 'user' and 'oauth_client_id'");
	if (r->oauth_client_secret_file && r->oauth_client_secret_command)
		return bad(path, r, err, "'oauth_client_secret_command' is a second client secret");
	if (r->oauth_refresh_file && r->oauth_refresh_command)
		return bad(path, r, err, "'oauth_refresh_command' is a second place of the refresh token");
	if (r->oauth_refresh_store && !r->oauth_refresh_command)
		return bad(path, r, err, "'oauth_refresh_store' needs 'oauth_refresh_command', which reads what it keeps");
	if ((e = fill_from_provider(r, err)) != SQ_OK)
		return e;
	if (!r->oauth_token_url)
		return bad(path, r, err, "the provider is not known: set 'oauth_token_url', 'oauth_auth_url' or 'oauth_device_url', and 'oauth_scope'");
	if (!https_or_none(r->oauth_token_url) || !https_or_none(r->oauth_device_url) || !https_or_none(r->oauth_auth_url))
		return bad(path, r, err, "addresses of oauth must begin with https://");
	r->secret_kind = SQ_SECRET_OAUTH;
	return SQ_OK;
}

enum sq_err
sq_oauth_files(struct sq_config *cfg, struct sq_error *err)
{
	const char *slash = strrchr(cfg->queue, '/');

	for (size_t i = 0; i < cfg->n_routes; i++) {
		struct sq_route *r = &cfg->routes[i];
		struct sq_buf b = SQ_BUF_INIT(4096);
		enum sq_err e;

		if (r->secret_kind != SQ_SECRET_OAUTH || r->oauth_refresh_file || r->oauth_refresh_command)
			continue;
		sq_buf_addf(&b, "%.*s/oauth-%s", slash ? (int)(slash - cfg->queue) : 1, slash ? cfg->queue : ".", r->name);
		if ((e = sq_buf_take(&b, &r->oauth_refresh_file, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}
