/*
 * Waking and starting the daemon. A daemon started from here has nothing of
 * its caller: no descriptor (somebody may wait for the end of a pipe), no
 * session, no directory, no signal mask, no environment but a short list.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sendq/io.h>

#include "submit.h"

enum { ENVIRONMENT_MAX = 32 };

/* Where sendqd is: beside this program (or where a link to it leads), else where it was installed. Heap. */
static char *
daemon_path(void)
{
	struct sq_buf b = SQ_BUF_INIT(4096);
	char self[3072], *slash, *out = NULL;
	ssize_t n;

#ifdef SENDQ_FAULTS
	if (getenv("SENDQ_DAEMON"))
		return sq_str_dup(sq_str(getenv("SENDQ_DAEMON")));
#endif
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = '\0';
		if ((slash = strrchr(self, '/')) != NULL)
			sq_buf_addf(&b, "%.*s/sendqd", (int)(slash - self), self);
	}
	if (b.n == 0 || access(b.p, X_OK) < 0) {
		sq_buf_clear(&b);
		sq_buf_adds(&b, SENDQ_SBINDIR "/sendqd");
	}
	if (sq_buf_take(&b, &out, NULL) != SQ_OK)
		sq_buf_fini(&b);
	return out;
}

/* What the daemon keeps of the caller's environment: documented in sendqd(8). */
static void
short_environment(char **env)
{
	static const char *const kept[] = {
		"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR",
		"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "SSH_AUTH_SOCK", "GPG_AGENT_INFO", "GNUPGHOME",
#ifdef SENDQ_FAULTS
		"SENDQ_FAULT", "SENDQ_FAULT_PROGRAM", "SENDQ_TEST_CLOCK", "SENDQ_AGENT", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS",
#endif
	};
	size_t n = 0;

	_Static_assert(SQ_LEN(kept) < ENVIRONMENT_MAX, "room for the environment");
	for (size_t i = 0; i < SQ_LEN(kept); i++) {
		struct sq_buf b = SQ_BUF_INIT(65536);
		const char *v = getenv(kept[i]);

		if (!v)
			continue;
		sq_buf_addf(&b, "%s=%s", kept[i], v);
		if (sq_buf_take(&b, &env[n], NULL) == SQ_OK)
			n++;
		else
			sq_buf_fini(&b);
	}
	env[n] = NULL;
}

/* In the grandchild: become the daemon. */
static void
become_daemon(const char *path, const char *config, char **env)
{
	char *argv[] = { (char *)(uintptr_t)"sendqd", (char *)(uintptr_t)"--config", (char *)(uintptr_t)config, NULL };
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(077);
	if (chdir("/") < 0)
		_exit(1);
	close_range(0, ~0U, 0);
	if (open("/dev/null", O_RDWR) != 0 || dup(0) != 1 || dup(0) != 2)
		_exit(1);
	execve(path, argv, env);
	_exit(1);
}

static void
start_daemon(const struct sq_config *cfg)
{
	SQ_CLEANUP(sq_freep) char *path = daemon_path();
	SQ_CLEANUP(sq_freep) char *config = realpath(cfg->path, NULL);
	char *env[ENVIRONMENT_MAX] = { NULL };
	pid_t child;

	if (!path || !config || access(path, X_OK) < 0) {
		fprintf(stderr, "sendq-sendmail: the message is queued, but no daemon runs and '%s' cannot be started: run sendqd or sendq flush\n", path ? path : "sendqd");
		return;
	}
	short_environment(env);
	child = fork();
	if (child == 0) {
		setsid();
		if (fork() == 0)
			become_daemon(path, config, env);
		_exit(0);
	}
	if (child > 0)
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	for (size_t i = 0; env[i]; i++)
		free(env[i]);
}

void
wake_daemon(const struct sq_config *cfg)
{
	SQ_CLEANUP(sq_freep) char *wake = sq_path_suffix(cfg->queue, ".wake");

	/* In system mode its service manager starts it; from here it would inherit a place without a network. */
	if (!wake || sq_wake_poke(wake) || !cfg->autostart || getenv("SENDQ_FOR_UID"))
		return;
	start_daemon(cfg);
}
