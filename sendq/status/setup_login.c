/*
 * The secret: where it comes from, whether the servers take it, where it is
 * kept. A secret that was typed is kept only behind a login that worked.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>

#include "setup.h"

enum { LOGIN_MS = 30000, TRIES = 3, LINE = 4096 };

static bool
has_keyring(void)
{
	return getenv("DBUS_SESSION_BUS_ADDRESS") && system("command -v secret-tool >/dev/null 2>&1") == 0;
}

static void
set_line(struct setup *s, const char *setting, const char *value)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(sizeof(s->secret_line) - 1);

	sq_buf_addf(&b, "%s = ", setting);
	setup_quote(&b, value);
	sq_buf_adds(&b, ";");
	snprintf(s->secret_line, sizeof(s->secret_line), "%s", b.failed || !b.p ? "" : b.p);
}

/* From standard input, one line. */
static bool
secret_of_stdin(struct setup *s)
{
	char line[LINE];
	bool got = fgets(line, sizeof(line), stdin) != NULL;

	if (got) {
		line[strcspn(line, "\r\n")] = '\0';
		sq_buf_adds(&s->secret, line);
	}
	sq_wipe(line, sizeof(line));
	return got && s->secret.n > 0;
}

/* ---- trying ---- */

/* True: logged in. */
static bool
try_smtp(struct setup *s, struct sq_probe_answer *a)
{
	struct sq_probe p = { .route = &s->trial->routes[0], .login = true, .secret = { s->secret.p, s->secret.n }, .ehlo_name = "setup.invalid", .timeout_ms = LOGIN_MS };

	if (sq_probe(&p, a, &s->c->err) != SQ_OK) {
		say(s, "  %s\n", s->c->err.text);
		return false;
	}
	if (a->ready) {
		say(s, "Login ok (%u ms)\n", (unsigned)a->setup_ms);
		return true;
	}
	if (a->code > 0)
		say(s, "The server does not let you in: %d %s\n", a->code, a->words);
	else
		say(s, "The server does not let you in: %s\n", a->words);
	if (a->outcome == SQ_OUTCOME_LOGIN && s->chosen->provider && s->chosen->provider->password)
		say(s, "%s wants %s.\n", s->chosen->provider->name, s->chosen->provider->password);
	return false;
}

static void
try_imap(struct setup *s)
{
	static struct sq_probe_answer a; /* large; one thread */
	struct sq_probe p = { .route = &s->trial->routes[0], .imap = true, .login = true, .secret = { s->secret.p, s->secret.n }, .ehlo_name = "setup.invalid", .timeout_ms = LOGIN_MS };

	if (!s->imap_url[0])
		return;
	if (sq_probe(&p, &a, &s->c->err) == SQ_OK && a.ready && a.asked && a.kind == SQ_EVIDENCE_POSITIVE) {
		say(s, "Folder of sent mail: '%s' at %s; it will be asked when an answer is lost\n", a.quote, s->imap_url);
		return;
	}
	say(s, "%s cannot be used (%s): set up without it\n", s->imap_url, a.ready ? a.quote : a.words);
	s->imap_url[0] = '\0';
}

/* A secret that nobody types: tried once. */
static int
try_both(struct setup *s)
{
	static struct sq_probe_answer a; /* large; one thread */

	if (!try_smtp(s, &a))
		return EX_NOPERM;
	try_imap(s);
	return EX_OK;
}

/* ---- the ways ---- */

static int
no_secret(struct setup *s)
{
	(void)s;
	fputs("sendq: there is no terminal to ask for the password: say --password-command, --password-file, --password-stdin or --oauth-client-id\n", stderr);
	return EX_USAGE;
}

static int
load_trial(struct setup *s)
{
	if (setup_try_config(s, s->secret_line, &s->c->err) == SQ_OK)
		return EX_OK;
	fprintf(stderr, "sendq: %s\n", s->c->err.text);
	return EX_CONFIG;
}

static void
oauth_lines(struct setup *s, const char *client_id)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(sizeof(s->secret_line) - 1);
	const struct candidate *k = s->chosen;
	const struct { const char *setting, *value; } lines[] = { { "oauth_client_id", client_id }, { "oauth_auth_url", k->auth_url }, { "oauth_token_url", k->token_url },
		{ "oauth_scope", k->scope }, { "oauth_ca_file", k->token_url[0] && s->ca_file ? s->ca_file : "" } };

	sq_buf_adds(&b, "auth = \"oauth\";");
	for (size_t i = 0; i < SQ_LEN(lines); i++) {
		if (!lines[i].value[0])
			continue;
		sq_buf_addf(&b, " %s = ", lines[i].setting);
		setup_quote(&b, lines[i].value);
		sq_buf_adds(&b, ";");
	}
	snprintf(s->secret_line, sizeof(s->secret_line), "%s", b.failed || !b.p ? "" : b.p);
}

static int
login_oauth(struct setup *s, const char *client_id)
{
	struct sq_consent ask = { .interactive = s->terminal != NULL, .prompt = oauth_prompt, .arg = s->c };
	int status;

	oauth_lines(s, client_id);
	if ((status = load_trial(s)) != EX_OK || s->print)
		return status;
	ask.route = &s->trial->routes[0];
	ask.device = s->device || (!s->browser && ask.route->oauth_device_url);
	if (sq_consent(&ask, &s->c->err) != SQ_OK || sq_probe_secret(ask.route, ask.interactive, &s->secret, &s->c->err) != SQ_OK)
		return cli_fail(s->c);
	return try_both(s);
}

/* The secret comes by itself: tried once. */
static int
login_given(struct setup *s)
{
	int status = load_trial(s);

	if (status != EX_OK)
		return status;
	if (sq_probe_secret(&s->trial->routes[0], s->terminal != NULL, &s->secret, &s->c->err) != SQ_OK)
		return cli_fail(s->c);
	return try_both(s);
}

static int
login_typed(struct setup *s)
{
	static struct sq_probe_answer a; /* large; one thread */
	int status;

	s->keep_secret = true;
	if (s->chosen->provider && s->chosen->provider->password && s->terminal)
		say(s, "%s wants %s.\n", s->chosen->provider->name, s->chosen->provider->password);
	for (int i = 0; i < TRIES; i++) {
		if (s->terminal && !s->user)
			ask_line(s, "User name", s->user_name, s->user_name, sizeof(s->user_name));
		if (s->password_stdin ? i > 0 || !secret_of_stdin(s) : !ask_secret(s, "Password (not shown): ", &s->secret))
			return i > 0 ? EX_NOPERM : no_secret(s);
		snprintf(s->secret_line, sizeof(s->secret_line), "password_command = \"true\";");
		if ((status = load_trial(s)) != EX_OK)
			return status;
		if (try_smtp(s, &a)) {
			try_imap(s);
			return EX_OK;
		}
		if (a.outcome != SQ_OUTCOME_LOGIN)
			break;
	}
	return EX_NOPERM;
}

/* --print: the secret is not kept anywhere; a place where it may be. */
static void
nothing_kept(struct setup *s)
{
	char command[URL_MAX + 32], name[SQ_CREDENTIAL_MAX + 1];

	if (s->store == STORE_CREDENTIAL) {
		snprintf(name, sizeof(name), "sendq-%s", s->route);
		set_line(s, "password_credential", name);
		return;
	}
	snprintf(command, sizeof(command), "secret-tool lookup mail %s", s->address);
	set_line(s, "password_command", command);
}

int
setup_login(struct setup *s)
{
	int status;

	const struct sq_provider *p = s->chosen->provider;
	bool oauth = s->chosen->oauth_only || (p && p->device_url);
	char client[URL_MAX] = "";

	if (s->oauth_client_id)
		return login_oauth(s, s->oauth_client_id);
	if (s->password_command)
		set_line(s, "password_command", s->password_command);
	if (s->password_file)
		set_line(s, "password_file", s->password_file);
	if (s->print && !s->password_stdin && !s->password_command && !s->password_file) {
		nothing_kept(s); /* nobody was asked for it, so nothing was tried */
		return EX_OK;
	}
	if (s->secret_line[0])
		return login_given(s);
	if (oauth && s->terminal && !s->password_stdin) {
		say(s, "It wants OAuth, for which you need the id of a client that you registered with the provider.\n");
		ask_line(s, "Client id (empty: try a password) ", "", client, sizeof(client));
		if (client[0])
			return login_oauth(s, client);
	}
	status = login_typed(s);
	if (status == EX_OK && s->print)
		nothing_kept(s);
	return status;
}

/* ---- keeping it ---- */

static enum sq_err
keep_in_file(struct setup *s, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf path = SQ_BUF_INIT(4096);
	const char *slash = strrchr(s->config, '/');
	SQ_CLEANUP(sq_freep) char *folder = sq_str_dup((struct sq_str){ s->config, slash ? (size_t)(slash - s->config) : 0 });
	SQ_CLEANUP(sq_closep) int fd = -1;
	enum sq_err e;

	if (!folder || !folder[0])
		return sq_error_set(err, SQ_EINVAL, "the configuration '%s' must be an absolute path", s->config);
	if ((e = sq_mkdirs(folder, err)) != SQ_OK)
		return e;
	sq_buf_addf(&path, "%s/password-%s", folder, s->route);
	fd = open(path.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	for (int i = 2; fd < 0 && errno == EEXIST && i < 100; i++) {
		sq_buf_clear(&path);
		sq_buf_addf(&path, "%s/password-%s-%d", folder, s->route, i);
		fd = open(path.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", path.p);
	if ((e = sq_write_all(fd, s->secret.p, s->secret.n, err)) != SQ_OK)
		return e;
	if (fsync(fd) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", path.p);
	setup_share(s, path.p, true);
	set_line(s, "password_file", path.p);
	say(s, "The password is kept in %s (only %s may read it)\n", path.p, s->system ? "sendqd's user" : "you");
	return sq_fsync_parent(path.p, err);
}

/* By secret-tool(1), which reads it on standard input. */
static enum sq_err
keep_in_keyring(struct setup *s, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf command = SQ_BUF_INIT(1024);
	char label[URL_MAX + 16];
	char *argv[] = { (char *)(uintptr_t)"secret-tool", (char *)(uintptr_t)"store", label, (char *)(uintptr_t)"mail", (char *)(uintptr_t)s->address, NULL };

	if (strspn(s->address, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.@_+-") != strlen(s->address))
		return sq_error_set(err, SQ_EINVAL, "the address has characters that a command line takes badly: keep it in a file");
	snprintf(label, sizeof(label), "--label=Mail of %s", s->address);
	if (setup_run(argv, (struct sq_str){ s->secret.p, s->secret.n }) != 0)
		return sq_error_set(err, SQ_EIO, "secret-tool did not take the password");
	sq_buf_addf(&command, "secret-tool lookup mail %s", s->address);
	set_line(s, "password_command", command.p ? command.p : "");
	say(s, "The password is kept in the keyring\n");
	return SQ_OK;
}

static enum sq_err
keep_as_credential(struct setup *s, struct sq_error *err)
{
	char name[SQ_CREDENTIAL_MAX + 1] = "";
	enum sq_err e = setup_keep_credential(s, name, err);

	set_line(s, "password_credential", name);
	return e;
}

/* The place that nobody named. */
static enum store
where_to_keep(struct setup *s)
{
	if (s->system)
		return setup_has_creds() && ask_yes(s, true, "Keep the password as a credential of the service, encrypted for this machine? (else in a file)") ?
			STORE_CREDENTIAL : STORE_FILE;
	return has_keyring() && ask_yes(s, true, "Keep the password in the keyring? (else in a file that only you may read)") ? STORE_KEYRING : STORE_FILE;
}

int
setup_keep_secret(struct setup *s)
{
	enum store where = s->store;
	enum sq_err e = SQ_OK;

	if (!s->keep_secret)
		return EX_OK;
	if (where == STORE_ASK)
		where = where_to_keep(s);
	if (where == STORE_CREDENTIAL)
		e = keep_as_credential(s, &s->c->err);
	else if (where == STORE_KEYRING)
		e = keep_in_keyring(s, &s->c->err);
	else if (where == STORE_FILE)
		e = keep_in_file(s, &s->c->err);
	else
		set_line(s, "password", s->secret.p);
	return e == SQ_OK ? EX_OK : cli_fail(s->c);
}
