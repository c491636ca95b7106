/*
 * `sendq setup ADDRESS`: from an address to a configuration that is known to
 * work. Every question has an option; without a terminal only options count.
 */
#include <fcntl.h>
#include <signal.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include <sendq/io.h>

#include "setup.h"

void
say(struct setup *s, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		fputc((*p < ' ' && *p != '\n') || *p == 0x7f ? '?' : *p, s->out); /* servers' words are in it */
	fflush(s->out);
}

static bool
read_line(struct setup *s, char *out, size_t size)
{
	if (!fgets(out, (int)size, s->terminal)) {
		out[0] = '\0';
		return false;
	}
	out[strcspn(out, "\r\n")] = '\0';
	return true;
}

bool
ask_yes(struct setup *s, bool otherwise, const char *fmt, ...)
{
	char question[1024], answer[64];
	va_list ap;

	if (!s->terminal)
		return otherwise;
	va_start(ap, fmt);
	vsnprintf(question, sizeof(question), fmt, ap);
	va_end(ap);
	for (;;) {
		say(s, "%s [%s] ", question, otherwise ? "Y/n" : "y/N");
		if (!read_line(s, answer, sizeof(answer)))
			return false; /* the terminal is gone: nothing more is done */
		if (!answer[0])
			return otherwise;
		if (strchr("yYnN", answer[0]))
			return answer[0] == 'y' || answer[0] == 'Y';
	}
}

void
ask_line(struct setup *s, const char *question, const char *otherwise, char *out, size_t size)
{
	char answer[URL_MAX] = "";

	if (s->terminal) {
		say(s, otherwise[0] ? "%s [%s] " : "%s%s", question, otherwise);
		(void)read_line(s, answer, sizeof(answer));
	}
	if (answer[0] || out != otherwise)
		snprintf(out, size, "%s", answer[0] ? answer : otherwise);
}

static struct termios as_it_was;

/* Interrupted while nothing is shown: leave the terminal as it was. */
static void
on_interrupt(int number)
{
	tcsetattr(STDIN_FILENO, TCSANOW, &as_it_was);
	_exit(128 + number);
}

bool
ask_secret(struct setup *s, const char *question, struct sq_buf *out)
{
	struct sigaction interrupt = { .sa_handler = on_interrupt }, before;
	struct termios hidden;
	char line[4096];
	bool got;

	if (!s->terminal || tcgetattr(fileno(s->terminal), &as_it_was) < 0)
		return false;
	hidden = as_it_was;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	sigaction(SIGINT, &interrupt, &before);
	/* Hidden before it is asked: whoever types ahead is not shown either. */
	tcsetattr(fileno(s->terminal), TCSAFLUSH, &hidden);
	say(s, "%s", question);
	got = read_line(s, line, sizeof(line));
	tcsetattr(fileno(s->terminal), TCSADRAIN, &as_it_was);
	sigaction(SIGINT, &before, NULL);
	say(s, "\n");
	sq_buf_clear(out);
	sq_buf_adds(out, line);
	sq_wipe(line, sizeof(line));
	return got && out->n > 0;
}

/* ---- options ---- */

struct option {
	const char *name;
	size_t text, flag;       /* offsets; 0: none (the first member is no option) */
	bool optional;           /* the value may be left out */
};
#define TEXT(n, m) { n, offsetof(struct setup, m), 0, false }
#define FLAG(n, m) { n, 0, offsetof(struct setup, m), false }

static const struct option options[] = {
	TEXT("--name", name), TEXT("--server", server), TEXT("--imap", imap), TEXT("--user", user), TEXT("--autoconfig", autoconfig), TEXT("--ca-file", ca_file),
	TEXT("--password-command", password_command), TEXT("--password-file", password_file), TEXT("--oauth-client-id", oauth_client_id),
	{ "--test", offsetof(struct setup, test_to), offsetof(struct setup, test), true },
	FLAG("--password-stdin", password_stdin), FLAG("--device", device), FLAG("--browser", browser), FLAG("--no-test", no_test), FLAG("--service", service),
	FLAG("--no-service", no_service), FLAG("--print", print), FLAG("--yes", yes),
};

/* The domain as one writes it; true: there is one. */
static bool
lower(struct sq_address *a)
{
	for (char *p = a->text + a->at; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p += 'a' - 'A';
	return sq_address_is_qualified(a);
}

static bool
is_address(struct setup *s)
{
	struct sq_error err = { 0 };

	return strlen(s->address) < 300 && !strpbrk(s->address, " \t\r\n<>\"\\") && sq_address_parse(sq_str(s->address), &s->parsed, &err) == SQ_OK &&
		lower(&s->parsed);
}

static int
parse_store(struct setup *s, const char *word)
{
	static const char *const words[] = { [STORE_FILE] = "file", [STORE_KEYRING] = "keyring", [STORE_CONFIG] = "config", [STORE_CREDENTIAL] = "credential" };

	for (int i = STORE_FILE; word && i <= STORE_CREDENTIAL; i++)
		if (strcmp(word, words[i]) == 0) {
			s->store = (enum store)i;
			return EX_OK;
		}
	return cli_usage("--store is file, keyring, config or credential");
}

static int
parse(struct setup *s, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		const struct option *o = NULL;
		bool value = i + 1 < argc && argv[i + 1][0] != '-';

		if (strcmp(argv[i], "--store") == 0) {
			if (parse_store(s, ++i < argc ? argv[i] : NULL) != EX_OK)
				return EX_USAGE;
			continue;
		}
		for (size_t k = 0; k < SQ_LEN(options) && !o; k++)
			o = strcmp(argv[i], options[k].name) == 0 ? &options[k] : NULL;
		if (!o && argv[i][0] == '-')
			return cli_usage("unknown option '%s'", argv[i]);
		if (!o && s->address)
			return cli_usage("one address at a time, not '%s'", argv[i]);
		if (!o) {
			s->address = argv[i];
			continue;
		}
		if (o->text && !value && !o->optional)
			return cli_usage("'%s' needs a value", argv[i]);
		if (o->flag)
			*(bool *)((char *)s + o->flag) = true;
		if (o->text && value)
			*(const char **)((char *)s + o->text) = argv[++i];
	}
	if (!s->address || !is_address(s))
		return cli_usage(s->address ? "'%s' is no address" : "which address? Like: sendq setup me@example.org%s", s->address ? s->address : "");
	if ((s->password_command != NULL) + (s->password_file != NULL) + s->password_stdin + (s->oauth_client_id != NULL) > 1)
		return cli_usage("only one of --password-command, --password-file, --password-stdin and --oauth-client-id");
	if (s->password_file && s->password_file[0] != '/')
		return cli_usage("--password-file must be an absolute path");
	if ((s->test && s->no_test) || (s->service && s->no_service) || (s->device && s->browser))
		return cli_usage("an option and its opposite");
	return EX_OK;
}

/* ---- the order of things ---- */

static int
result_json(struct setup *s)
{
	struct json j = JSON_INIT;

	json_open(&j, NULL, '{');
	json_text(&j, "config", s->config);
	json_text(&j, "route", s->route);
	json_text(&j, "server", s->chosen->server);
	json_text(&j, "imap", s->imap_url[0] ? s->imap_url : NULL);
	json_text(&j, "user", s->user_name);
	json_text(&j, "source", s->chosen->source);
	json_bool(&j, "files_sent", s->files_sent);
	json_close(&j, '}');
	json_line(&j);
	sq_buf_fini(&j.b);
	return EX_OK;
}

static int
set_up(struct setup *s)
{
	int status;

	if ((status = setup_find(s)) != EX_OK || (status = setup_login(s)) != EX_OK)
		return status;
	if (s->print) {
		SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(16384);

		setup_text(s, NULL, &text);
		printf("routes = (\n%s);\n", text.p ? text.p : "");
		return EX_OK;
	}
	if ((status = setup_may_write(s)) != EX_OK)
		return status;
	if (s->declined) {
		say(s, "Nothing was changed.\n");
		return EX_OK;
	}
	if ((status = setup_keep_secret(s)) != EX_OK || (status = setup_write(s)) != EX_OK || (status = setup_after(s)) != EX_OK)
		return status;
	return s->c->json ? result_json(s) : EX_OK;
}

int
cmd_setup(struct cli *c, int argc, char **argv)
{
	static struct setup s; /* large; one thread */
	int status;

	s = (struct setup){ .c = c, .secret = SQ_BUF_INIT(SQ_SECRET_MAX) };
	if ((status = parse(&s, argc, argv)) != EX_OK || !(s.config = sq_config_place(c->config_option))) {
		sq_address_fini(&s.parsed);
		return status != EX_OK ? status : cli_usage("this user has no home directory: name a file with --config");
	}
	(void)sq_buf_reserve(&s.secret, s.secret.max);
	s.out = s.print || c->json ? stderr : stdout;
	if (!s.yes && isatty(STDIN_FILENO) && isatty(fileno(s.out)))
		s.terminal = stdin;
	if ((status = setup_system_check(&s)) == EX_OK)
		status = set_up(&s);
	sq_buf_wipe(&s.secret);
	sq_wipe(s.secret_line, sizeof(s.secret_line));
	sq_config_free(s.trial);
	sq_address_fini(&s.parsed);
	free(s.config);
	return status;
}
