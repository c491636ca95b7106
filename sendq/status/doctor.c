/*
 * `sendq doctor`: what works and what does not, step by step, and how to mend
 * it. It looks and never changes: the queue is opened for reading, servers are
 * logged in to and left, no message is sent.
 */
#include <pwd.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/control.h>
#include <sendq/io.h>

#include "doctor.h"

enum { ROUTES_MAX = 64, SOCKET_MS = 2000 };

/* System mode, asked by a user who has no configuration: what he can see of it. */
static int
system_mode(struct doctor *d)
{
	static const enum sq_system_place places[] = { SQ_SYSTEM_SUBMIT, SQ_SYSTEM_CONTROL };
	static const char *const checks[] = { "submission", "control" };

	for (size_t i = 0; i < SQ_LEN(places); i++) {
		SQ_CLEANUP(sq_freep) char *path = sq_system_path(places[i]);
		SQ_CLEANUP(sq_closep) int fd = -1;
		int64_t began = sq_boot_ms();
		enum sq_err e = path ? sq_socket_connect(path, SOCKET_MS, &fd, &d->c->err) : SQ_ENOMEM;

		if (e == SQ_OK)
			doctor_sayf(d, checks[i], VERDICT_OK, sq_boot_ms() - began, NULL, "somebody listens on '%s'", path);
		else
			doctor_sayf(d, checks[i], VERDICT_FAILED, sq_boot_ms() - began, "as root: systemctl enable --now sendq-submit.socket", "%s", d->c->err.text);
	}
	doctor_sayf(d, "servers", VERDICT_SKIPPED, -1, "as root: sendq -C /etc/sendq/sendq.conf doctor",
		"this machine sends mail for all its users, who cannot see how it logs in");
	doctor_summary(d);
	return d->failed > 0 ? EX_UNAVAILABLE : EX_OK;
}

/* False: nothing more can be looked at; *status is set. */
static bool
configuration(struct doctor *d, int *status)
{
	struct cli *c = d->c;
	SQ_CLEANUP(sq_freep) char *path = NULL;
	int64_t began = sq_boot_ms();
	struct sq_error err = { 0 };
	enum sq_err e = sq_config_find(c->config_option, &path, &err);

	if (e == SQ_ENOENT && sq_system_is_meant(c->config_option)) {
		*status = system_mode(d);
		return false;
	}
	if (e == SQ_OK)
		e = sq_config_load(path, &c->cfg, &err);
	if (e != SQ_OK) {
		doctor_sayf(d, "configuration", VERDICT_FAILED, -1, e == SQ_EPERM ? NULL : e == SQ_ENOENT ? "sendq setup ADDRESS writes one" : "man sendq.conf tells every setting", "%s", err.text);
		doctor_summary(d);
		*status = EX_CONFIG;
		return false;
	}
	doctor_sayf(d, "configuration", VERDICT_OK, sq_boot_ms() - began, NULL, "'%s', %zu route%s", path, c->cfg->n_routes, c->cfg->n_routes == 1 ? "" : "s");
	return true;
}

static int
look(struct doctor *d, char *const *wanted, size_t n)
{
	const struct sq_route *routes[ROUTES_MAX];
	struct cli *c = d->c;
	size_t n_routes = 0;
	int status = EX_OK;

	if (d->report)
		doctor_machine(d);
	if (!configuration(d, &status))
		return status;
	for (size_t i = 0; i < (n > 0 ? n : c->cfg->n_routes) && i < ROUTES_MAX; i++) {
		routes[n_routes] = n > 0 ? sq_config_route(c->cfg, wanted[i]) : &c->cfg->routes[i];
		if (!routes[n_routes++])
			return cli_usage("there is no route '%s'", wanted[i]);
	}
	doctor_files(d);
	doctor_queue(d);
	doctor_daemon(d);
	doctor_units(d);
	doctor_clock(d);
	for (size_t i = 0; i < n_routes; i++)
		doctor_route(d, routes[i]);
	d->route = NULL;
	doctor_summary(d);
	return d->failed > 0 ? EX_UNAVAILABLE : EX_OK;
}

int
cmd_doctor(struct cli *c, int argc, char **argv)
{
	struct doctor d = { .c = c };
	char *wanted[ROUTES_MAX];
	struct passwd *pw = getpwuid(geteuid());
	size_t n = 0;
	int status;

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--report") == 0)
			d.report = true;
		else if (argv[i][0] == '-')
			return cli_usage("unknown option '%s'", argv[i]);
		else if (n == SQ_LEN(wanted))
			return cli_usage("at most %d routes at once", ROUTES_MAX);
		else
			wanted[n++] = argv[i];
	}
	d.login = pw ? sq_str_dup(sq_str(pw->pw_name)) : NULL;
	d.home = sq_home_dir();
	status = look(&d, wanted, n);
	free(d.login);
	free(d.home);
	return status;
}
