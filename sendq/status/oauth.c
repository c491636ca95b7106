/*
 * `sendq oauth ROUTE`: consent to sendq's sending mail, once; and taking back
 * what is kept of it.
 */
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/probe.h>

#include "status.h"

static void
print_str(struct sq_str s)
{
	SQ_CLEANUP(sq_freep) char *copy = sq_str_dup(s);

	print_safe(copy);
}

void
oauth_prompt(void *arg, const struct sq_token_prompt *p)
{
	struct cli *c = arg;
	char span[32];

	if (c->json) {
		struct json j = JSON_INIT;

		json_open(&j, NULL, '{');
		json_str(&j, "url", p->url);
		if (p->code.n > 0)
			json_str(&j, "code", p->code);
		else
			json_null(&j, "code");
		json_int(&j, "expires_s", p->expires_s);
		json_close(&j, '}');
		json_line(&j);
		sq_buf_fini(&j.b);
		fflush(stdout);
		return;
	}
	printf("Open this in a browser%s:\n\n  ", p->code.n > 0 ? ", here or on any other device" : " of this machine");
	print_str(p->url);
	if (p->code.n > 0) {
		printf("\n\nand enter the code  ");
		print_str(p->code);
	}
	text_ago((int64_t)p->expires_s * 1000, span);
	printf("\n\nWaiting for you, %s at most ...\n", span);
	fflush(stdout);
}

static int
forget(struct cli *c, const struct sq_route *route)
{
	if (!route->oauth_refresh_file)
		return cli_usage("the refresh token is kept by commands of yours: remove it there");
	if (unlink(route->oauth_refresh_file) < 0 && access(route->oauth_refresh_file, F_OK) == 0) {
		sq_error_errno(&c->err, SQ_EIO, "cannot remove '%s'", route->oauth_refresh_file);
		return cli_fail(c);
	}
	if (!c->json)
		puts("Forgotten here. The provider's account page takes the consent itself back.");
	return EX_OK;
}

/* What waited for the consent goes now, where a daemon runs. */
static void
go_on(struct cli *c)
{
	SQ_CLEANUP(sq_freep) char *wake = sq_path_suffix(c->cfg->queue, ".wake");
	struct sq_error err = { 0 };
	int64_t request;

	if (c->q && wake && sq_wake_poke(wake) && sq_queue_request_add(c->q, SQ_REQUEST_FLUSH, (struct sq_message_id){ 0 }, "", c->now_ms, &request, &err) == SQ_OK)
		(void)sq_wake_poke(wake);
}

int
cmd_oauth(struct cli *c, int argc, char **argv)
{
	struct sq_consent ask = { .interactive = c->terminal, .prompt = oauth_prompt, .arg = c };
	const char *name = NULL;
	bool device = false, browser = false, gone = false;

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--device") == 0)
			device = true;
		else if (strcmp(argv[i], "--browser") == 0)
			browser = true;
		else if (strcmp(argv[i], "--forget") == 0)
			gone = true;
		else if (argv[i][0] == '-' || name)
			return cli_usage("oauth takes one route, and --device, --browser or --forget, not '%s'", argv[i]);
		else
			name = argv[i];
	}
	if (device + browser + gone > 1)
		return cli_usage("only one of --device, --browser and --forget");
	for (size_t i = 0; i < c->cfg->n_routes && !name && c->cfg->n_routes == 1; i++)
		name = c->cfg->routes[i].name;
	if (!name || !(ask.route = sq_config_route(c->cfg, name)))
		return cli_usage(name ? "there is no route '%s'" : "which route?%s", name ? name : "");
	if (ask.route->secret_kind != SQ_SECRET_OAUTH)
		return cli_usage("route '%s' has no auth = \"oauth\"", name);
	if (gone)
		return forget(c, ask.route);
	ask.device = device || (!browser && ask.route->oauth_device_url);
	if (sq_consent(&ask, &c->err) != SQ_OK)
		return cli_fail(c);
	go_on(c);
	if (!c->json)
		puts("Done: sendq has what it needs to log in.");
	return EX_OK;
}
