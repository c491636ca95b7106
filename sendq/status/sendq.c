/*
 * sendq: what is queued, what is being sent, what is in doubt, and the
 * commands of a person. Parses the general options and hands over.
 */
#include <errno.h>
#include <locale.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/control.h>
#include <sendq/io.h>
#include <sendq/log.h>

#include "status.h"

const struct command sq_commands[] = {
	{ "list", "[--all]", "what is queued; with --all what is finished too", cmd_list, false },
	{ "show", "ID…", "everything about a message, with its attempts", cmd_show, false },
	{ "why", "ID…", "what happened to a message, what comes next, what you can do", cmd_why, false },
	{ "flush", "[ID…]", "try now, whatever the back-off says, and wait", cmd_flush, false },
	{ "hold", "ID… [--to ADDRESS]", "keep a message back", cmd_hold, false },
	{ "release", "ID… [--to ADDRESS]", "let a held message go", cmd_release, false },
	{ "remove", "ID… [--to ADDRESS]", "take a message out of the queue", cmd_remove, false },
	{ "resend", "ID… [--to ADDRESS]", "send again what is in doubt, held or failed; a second copy is possible", cmd_resend, false },
	{ "settle", "ID… sent|unsent [--to ADDRESS] | --from-mail", "say what became of a message in doubt, or let a delivery report on stdin say it", cmd_settle, false },
	{ "undo", "[ID…]", "take back a message that no server has seen yet; without ID the newest", cmd_undo, false },
	{ "edit", "ID [--at WHEN] [--deadline WHEN] [--to ADDRESS [--instead-of ADDRESS]]", "change when a waiting message goes, or to whom", cmd_edit, false },
	{ "links", "", "each route: how good, since when, what it waits for", cmd_links, false },
	{ "watch", "", "the state of things, live: what is under way, how far, how fast; q ends", cmd_watch, false },
	{ "sent", "[--to ADDRESS] [--message-id ID] [--since DURATION]", "what was accepted, when, by which reply", cmd_sent, false },
	{ "doctor", "[--report] [ROUTE…]", "what works and what not, step by step, and how to mend it; --report for strangers", cmd_doctor, true },
	{ "oauth", "[ROUTE] [--device|--browser|--forget]", "consent to sendq's sending mail by a route with auth = \"oauth\"", cmd_oauth, false },
	{ "setup", "ADDRESS [OPTION…]", "find the servers of an address, try the login, write the configuration; its options: man sendq", cmd_setup, true },
	{ "forget", "[ID…] [--to ADDRESS] [--message-id ID] [--before DURATION] [--all]", "remove what is remembered of mail that was sent; --all by itself: of all", cmd_forget, false },
};
const size_t sq_n_commands = SQ_LEN(sq_commands);

/* What may be asked over the control socket: nothing that reads files of the asker's choice, or speaks to the network. */
static bool
is_remote(const struct command *command)
{
	static const char *const remote[] = { "list", "show", "why", "flush", "hold", "release", "remove", "resend", "settle", "undo", "edit", "links", "sent", "forget" };

	for (size_t i = 0; command && i < SQ_LEN(remote); i++)
		if (strcmp(command->name, remote[i]) == 0)
			return true;
	return !command;
}

int
cli_fail(struct cli *c)
{
	fprintf(stderr, "sendq: %s\n", c->err.text);
	return sq_err_sysexit(c->err.code);
}

int
cli_usage(const char *fmt, ...)
{
	char line[1000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* One line, whatever was typed. */
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	fprintf(stderr, "sendq: %s (see sendq --help)\n", line);
	return EX_USAGE;
}

bool
cli_id(struct cli *c, const char *text, struct sq_message_id *out)
{
	if (!c->q) {
		fprintf(stderr, "sendq: there is no message '%s': nothing was ever queued\n", text);
		return false;
	}
	if (sq_queue_find(c->q, text, out, &c->err) == SQ_OK)
		return true;
	fprintf(stderr, "sendq: %s\n", c->err.text);
	return false;
}

static int
help(void)
{
	puts("usage: sendq [-C FILE] [--json] [COMMAND]\n\n"
		"Without a command: the state of things in one screen.\n");
	for (size_t i = 0; i < sq_n_commands; i++)
		printf("  sendq %s %s\n      %s\n", sq_commands[i].name, sq_commands[i].arguments, sq_commands[i].help);
	puts("\n  -C, --config FILE   the configuration (else $SENDQ_CONFIG, else ~/.config/sendq/sendq.conf)\n"
		"  --json              one JSON object a line; times in Unix milliseconds\n"
		"  --version, --help\n\n"
		"IDs are those of `sendq list`; a unique beginning is enough.\n"
		"Exit status: 0 done, 64 usage, 66 no such message, 69 refused (doctor: something failed), 75 something is left (flush), 78 configuration.");
	return EX_OK;
}

/* The general options, wherever they stand; the rest moves to the front. -1: go on. */
static int
options(struct cli *c, int *argc, char **argv, const char **config)
{
	int n = 0;

	for (int i = 0; i < *argc; i++) {
		const char *a = argv[i];

		if (strcmp(a, "--json") == 0)
			c->json = true;
		else if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)
			return help();
		else if (strcmp(a, "--version") == 0)
			return puts("sendq " SENDQ_VERSION), EX_OK;
		else if (strncmp(a, "--config=", 9) == 0)
			*config = a + 9;
		else if (strcmp(a, "--config") == 0 || strcmp(a, "-C") == 0) {
			if (i + 1 >= *argc)
				return cli_usage("'%s' needs a file", a);
			*config = argv[++i];
		} else {
			argv[n++] = argv[i];
		}
	}
	*argc = n;
	return -1;
}

static const struct command *
find_command(const char *name)
{
	for (size_t i = 0; i < sq_n_commands; i++)
		if (strcmp(sq_commands[i].name, name) == 0)
			return &sq_commands[i];
	return NULL;
}

static int
no_command(const char *word)
{
	const char *names[32] = { NULL }, *near;

	for (size_t i = 0; i < sq_n_commands && i < SQ_LEN(names) - 1; i++)
		names[i] = sq_commands[i].name;
	near = sq_nearest_name(word, names);
	return near ? cli_usage("no such command '%s', did you mean '%s'?", word, near) : cli_usage("no such command '%s'", word);
}

/* System mode: asked of the machine's service, which knows who asks. */
static int
ask_system(struct cli *c, int argc, char **argv)
{
	SQ_CLEANUP(sq_freep) char *control = sq_system_path(SQ_SYSTEM_CONTROL);
	const char *words[SQ_CONTROL_WORDS_MAX];
	size_t n = 0;
	int status = EX_OK;

	if (argc > SQ_CONTROL_WORDS_MAX - 2)
		return cli_usage("the command line is too long");
	words[n++] = "sendq";
	if (c->json)
		words[n++] = "--json";
	for (int i = 0; i < argc; i++)
		words[n++] = argv[i];
	if (!control || sq_control_call(control, words, n, &status, &c->err) != SQ_OK)
		return cli_fail(c);
	return status;
}

/* Started by sendq-submitd: for whom. False: what is asked is not for him. */
static bool
for_somebody(struct cli *c, const struct command *command, const char *config)
{
	const char *who = getenv("SENDQ_FOR_UID");
	char *end;

	if (!who)
		return true;
	c->remote = true;
	c->uid = (int64_t)strtoll(who, &end, 10);
	c->restricted = strcmp(end, " all") != 0;
	return !config && is_remote(command);
}

static int
run(struct cli *c, int argc, char **argv, const char *config)
{
	SQ_CLEANUP(sq_freep) char *path = NULL;
	const struct command *command = argc > 0 ? find_command(argv[0]) : NULL;
	int status;
	enum sq_err e;

	if (argc > 0 && !command)
		return no_command(argv[0]);
	c->uid = (int64_t)getuid();
	if (!for_somebody(c, command, config))
		return cli_usage("'%s' is not for the control socket", config ? "--config" : argv[0]);
	c->config_option = config;
	if (command && command->bare)
		return command->run(c, argc - 1, argv + 1);
	e = sq_config_find(config, &path, &c->err);
	if (e == SQ_ENOENT && !c->remote && is_remote(command) && sq_system_is_meant(config))
		return ask_system(c, argc, argv);
	if (e == SQ_ENOENT && command && command->run == cmd_watch && sq_system_is_meant(config))
		return cli_usage("watch reads the queue itself, and that of the machine is not yours to read: `sendq` shows how it stands");
	if (e != SQ_OK || (e = sq_config_load(path, &c->cfg, &c->err)) != SQ_OK) {
		fprintf(stderr, "sendq: %s\n", c->err.text);
		return EX_CONFIG;
	}
	e = sq_queue_open(c->cfg->queue, SQ_QUEUE_READ, &c->q, &c->err);
	if (e != SQ_OK && e != SQ_ENOENT)
		return cli_fail(c);
	if (c->q && c->restricted)
		sq_queue_restrict(c->q, c->uid);
	status = command ? command->run(c, argc - 1, argv + 1) : cmd_state(c, 0, NULL);
	if (fflush(stdout) != 0 && status == EX_OK) {
		fprintf(stderr, "sendq: cannot write: %s\n", strerror(errno));
		return EX_IOERR;
	}
	return status;
}

int
main(int argc, char **argv)
{
	struct cli c = { .now_ms = sq_wall_ms() };
	const char *config = NULL, *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	int status;

	setlocale(LC_CTYPE, "");
	c.terminal = isatty(STDERR_FILENO);
	c.colour = isatty(STDOUT_FILENO) && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
	sq_log_init("sendq", SQ_LOG_WARN);
	argc--, argv++;
	status = options(&c, &argc, argv, &config);
	if (status < 0)
		status = run(&c, argc, argv, config);
	sq_queue_close(c.q);
	sq_config_free(c.cfg);
	return status;
}
