/*
 * Behind the configuration: a test message that is seen to go, whether the
 * server files what it sends, the service that starts by itself.
 */
#include <errno.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>

#include "setup.h"

enum { FILED_TRIES = 5, PAUSE_MS = 1000, IMAP_MS = 30000 };

extern char **environ;

/* A program that was installed with this one; heap. */
static char *
program(const char *name)
{
	static const char *const places[] = { "", "../sbin/", "../submit/" };
	char self[3072], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return NULL;
	self[n] = '\0';
	if (!(slash = strrchr(self, '/')))
		return NULL;
	for (size_t i = 0; i < SQ_LEN(places); i++) {
		struct sq_buf b = SQ_BUF_INIT(4096);
		char *out = NULL;

		sq_buf_addf(&b, "%.*s/%s%s", (int)(slash - self), self, places[i], name);
		if (sq_buf_take(&b, &out, NULL) == SQ_OK && access(out, X_OK) == 0)
			return out;
		free(out);
	}
	return NULL;
}

int
setup_run(char *const *argv, struct sq_str input)
{
	SQ_CLEANUP(sq_closep) int fd = memfd_create("input", MFD_CLOEXEC);
	posix_spawn_file_actions_t files;
	int status = 0, rc;
	pid_t pid;

	if (fd < 0 || sq_write_all(fd, input.p, input.n, NULL) != SQ_OK || lseek(fd, 0, SEEK_SET) < 0)
		return -1;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, fd, 0);
	posix_spawn_file_actions_adddup2(&files, 2, 1);
	rc = posix_spawnp(&pid, argv[0], &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	if (rc != 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static bool
each_sent(void *arg, const struct sq_ledger_row *row)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf words = SQ_BUF_INIT(4096);

	text_reply(&row->reply, &words);
	say(arg, "Accepted for %s: %s\n", row->recipient, words.p ? words.p : "");
	return true;
}

/* Does a copy turn up in the Sent folder that nobody but the server put there? */
static void
look_for_copy(struct setup *s, const char *message_id)
{
	static struct sq_probe_answer a; /* large; one thread */
	struct sq_probe p = { .route = sq_config_route(s->c->cfg, s->route), .imap = true, .login = true, .secret = { s->secret.p, s->secret.n },
		.ehlo_name = "setup.invalid", .message_id = message_id, .timeout_ms = IMAP_MS };

	if (!p.route || !p.route->imap)
		return;
	for (int i = 0; i < FILED_TRIES && !s->files_sent; i++) {
		if (i > 0)
			nanosleep(&(struct timespec){ .tv_sec = PAUSE_MS / 1000 }, NULL);
		if (sq_probe(&p, &a, &s->c->err) != SQ_OK || !a.ready || !a.asked)
			return;
		s->files_sent = a.kind == SQ_EVIDENCE_POSITIVE;
	}
	say(s, s->files_sent ? "The server files what it sends: let your mail program keep no copy of its own.\n" :
		"The server files no copy: let your mail program keep one in Sent.\n");
}

static int
test_message(struct setup *s, const char *to)
{
	SQ_CLEANUP(sq_freep) char *sendmail = program("sendq-sendmail");
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(4096);
	char id[64], hex[33], *flush[1] = { NULL };
	struct sq_ledger_filter filter = { .message_id = id };
	unsigned char random[16];
	char *argv[] = { sendmail, (char *)(uintptr_t)"-C", s->config, (char *)(uintptr_t)"-i", (char *)(uintptr_t)"-f", (char *)(uintptr_t)s->address,
		(char *)(uintptr_t)"--", (char *)(uintptr_t)to, NULL };
	int status;

	if (!sendmail) {
		fputs("sendq: sendq-sendmail is not installed beside this program: no test message\n", stderr);
		return EX_UNAVAILABLE;
	}
	sq_random(random, sizeof(random));
	sq_hex(random, sizeof(random), hex);
	snprintf(id, sizeof(id), "<%s@setup.sendq.invalid>", hex);
	sq_buf_addf(&text, "From: %s\nTo: %s\nSubject: sendq works\nMessage-ID: %s\n\nThis is the test message of `sendq setup`.\n", s->address, to, id);
	if ((status = setup_run(argv, (struct sq_str){ text.p, text.n })) != 0)
		return status > 0 ? status : EX_UNAVAILABLE;
	say(s, "Queued for %s ...\n", to);
	if (sq_queue_open(s->c->cfg->queue, SQ_QUEUE_READ, &s->c->q, &s->c->err) != SQ_OK)
		return cli_fail(s->c);
	s->c->quiet = true;
	status = cmd_flush(s->c, 0, flush);
	s->c->quiet = false;
	if (sq_queue_sent(s->c->q, &filter, each_sent, s, &s->c->err) != SQ_OK)
		return cli_fail(s->c);
	if (status != EX_OK)
		return status;
	look_for_copy(s, id);
	return EX_OK;
}

static bool
has_systemd_of_user(void)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char path[1024];

	snprintf(path, sizeof(path), "%.900s/systemd", runtime ? runtime : "/nonexistent");
	return access(path, F_OK) == 0;
}

static void
enable_service(struct setup *s)
{
	char *argv[] = { (char *)(uintptr_t)"systemctl", (char *)(uintptr_t)"--user", (char *)(uintptr_t)"enable", (char *)(uintptr_t)"--now",
		(char *)(uintptr_t)"sendqd.socket", NULL };

	if (setup_run(argv, (struct sq_str){ "", 0 }) == 0)
		say(s, "sendqd.socket is enabled: the daemon starts with your session\n");
	else
		say(s, "systemctl --user enable --now sendqd.socket failed; the daemon starts with the first message all the same\n");
}

/* The consent was given to the route as it was tried; in the file its name or the queue may be another. */
static void
move_refresh_token(struct setup *s)
{
	const struct sq_route *was = &s->trial->routes[0], *is = sq_config_route(s->c->cfg, s->route);

	if (is && is->oauth_refresh_file && was->oauth_refresh_file && strcmp(is->oauth_refresh_file, was->oauth_refresh_file) != 0 &&
	    rename(was->oauth_refresh_file, is->oauth_refresh_file) < 0)
		say(s, "The refresh token stays in %s: sendq oauth %s gets another\n", was->oauth_refresh_file, s->route);
}

/* Is the machine's sendmail this one? Then much of what sends needs nothing more. */
static void
tell_how_to_send(struct setup *s)
{
	SQ_CLEANUP(sq_freep) char *ours = program("sendq-sendmail");
	SQ_CLEANUP(sq_freep) char *real = ours ? realpath(ours, NULL) : NULL;
	SQ_CLEANUP(sq_freep) char *usual = realpath("/usr/sbin/sendmail", NULL);

	if (real && usual && strcmp(real, usual) == 0)
		say(s, "\nmail, mutt, git send-email, cron and whatever else calls /usr/sbin/sendmail send by it now.\n");
	else
		say(s, "\nLet your mail program send by %s.\n", real ? real : "sendq-sendmail");
	say(s, "`sendq` shows the state of things, `sendq doctor` what does not work.\n");
}

int
setup_after(struct setup *s)
{
	struct cli *c = s->c;
	const char *to = s->test_to ? s->test_to : s->address;
	int status = EX_OK;

	if (sq_config_load(s->config, &c->cfg, &c->err) != SQ_OK)
		return cli_fail(c);
	move_refresh_token(s);
	if (s->system)
		return setup_system_after(s);
	/* Before the first message, which would start a daemon outside the service. */
	if (s->service || (!s->no_service && s->terminal && has_systemd_of_user() && ask_yes(s, true, "Let the daemon start with your session?")))
		enable_service(s);
	if (s->test || (!s->no_test && s->terminal && ask_yes(s, true, "Send a test message to %s?", to)))
		status = test_message(s, to);
	if (status == EX_OK)
		tell_how_to_send(s);
	return status;
}
