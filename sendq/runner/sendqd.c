/* sendqd: a main() around the runner. */
#include <errno.h>
#include <signal.h>
#include <sysexits.h>

#include <sendq/config.h>
#include <sendq/io.h>
#include <sendq/log.h>
#include <sendq/runner.h>

#include "bus.h"

static int
usage(FILE *to, int status)
{
	fputs("usage: sendqd [-C FILE] [--once] [--log LEVEL]\n"
		"  -C, --config FILE  the configuration (else $SENDQ_CONFIG, else ~/.config/sendq/sendq.conf)\n"
		"  --once             try what is due, then end\n"
		"  --log LEVEL        error, warn, info or debug (else the setting `log`)\n"
		"  --version, --help\n"
		"Stays in the foreground. SIGTERM ends it, SIGHUP reads the configuration anew.\n", to);
	return status;
}

static int
level_of(const char *word)
{
	static const char *const words[] = { "error", "warn", "info", "debug" };

	for (int i = 0; i < (int)SQ_LEN(words); i++)
		if (strcmp(words[i], word) == 0)
			return i;
	return -1;
}

struct arguments { const char *config, *log; bool once; int status; };

/* True: go on. */
static bool
parse(int argc, char **argv, struct arguments *a)
{
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(arg, "--once") == 0) {
			a->once = true;
		} else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
			a->status = usage(stdout, EX_OK);
			return false;
		} else if (strcmp(arg, "--version") == 0) {
			puts("sendqd " SENDQ_VERSION);
			return false;
		} else if ((strcmp(arg, "-C") == 0 || strcmp(arg, "--config") == 0) && value) {
			a->config = value;
			i++;
		} else if (strncmp(arg, "--config=", 9) == 0) {
			a->config = arg + 9;
		} else if (strcmp(arg, "--log") == 0 && value && level_of(value) >= 0) {
			a->log = value;
			i++;
		} else {
			fprintf(stderr, "sendqd: cannot use '%s'\n", arg);
			a->status = usage(stderr, EX_USAGE);
			return false;
		}
	}
	return true;
}

int
main(int argc, char **argv)
{
	struct arguments a = { .status = EX_OK };
	SQ_CLEANUP(sq_config_freep) struct sq_config *cfg = NULL;
	SQ_CLEANUP(sq_freep) char *path = NULL;
	struct sq_runner_options o = { .lock_fd = -1 };
	struct sq_error err = { 0 };
	sigset_t stop;
	enum sq_err e;

	if (!parse(argc, argv, &a))
		return a.status;
	signal(SIGPIPE, SIG_IGN);
	/* Before the wait for the lock, so that it can be told to stop there too. */
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	if ((e = sq_config_find(a.config, &path, &err)) != SQ_OK || (e = sq_config_load(path, &cfg, &err)) != SQ_OK) {
		fprintf(stderr, "sendqd: %s\n", err.text);
		return EX_CONFIG;
	}
	sq_log_init("sendqd", (enum sq_log_level)level_of(a.log ? a.log : cfg->log));
	o.config_path = path;
	o.once = a.once;
#ifdef SENDQ_SYSTEM_BUS
	o.bus = &sq_system_bus;
#endif
	if ((e = sq_runner_run(&o, &err)) == SQ_OK)
		return EX_OK;
	fprintf(stderr, "sendqd: %s\n", err.text);
	return sq_err_sysexit(e);
}
