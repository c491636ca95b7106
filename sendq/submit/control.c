/*
 * The control socket's session. Words come from anybody: they choose one of
 * the few programs below and are its arguments. The program is told in its
 * environment for whom it works, and keeps to that (SENDQ_FOR_UID); the
 * queue itself shows it nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/control.h>
#include <sendq/io.h>

#include "submitd.h"

enum { REQUEST_MS = 10000, WRITE_MS = 60000, GROUPS_MAX = 1024 };

/* ---- who may see all ---- */

static bool
sees_all(int fd, int64_t uid)
{
	gid_t groups[GROUPS_MAX];
	socklen_t size = sizeof(groups);
	struct ucred cred;
	socklen_t n = sizeof(cred);

	if (uid == 0 || uid == (int64_t)geteuid())
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0 && cred.gid == getegid())
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		return false;
	for (size_t i = 0; i < size / sizeof(gid_t); i++)
		if (groups[i] == getegid())
			return true;
	return false;
}

/* ---- the program ---- */

/* Beside this program, else where it was installed. */
static void
program_path(const char *name, const char *installed, char out[4096])
{
	char self[2048], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

#ifdef SENDQ_FAULTS
	const char *folder = getenv("SENDQ_BIN");

	if (folder) {
		snprintf(out, 4096, "%s/%s", folder, name);
		return;
	}
#endif
	if (n > 0) {
		self[n] = '\0';
		if ((slash = strrchr(self, '/')) != NULL) {
			snprintf(out, 4096, "%.*s/%s", (int)(slash - self), self, name);
			if (access(out, X_OK) == 0)
				return;
		}
	}
	snprintf(out, 4096, "%s/%s", installed, name);
}

/*
 * argv for the request; false: it is none. Only `sendq` takes the caller's
 * words as options, and refuses by itself those that are not for strangers.
 */
static bool
command_of(char **words, size_t n, char path[4096], char **argv)
{
	static const struct { const char *word, *option; bool addresses; } modes[] = {
		{ "mailq", "-bp", false }, { "count", "-bpc", false }, { "runq", "-q", false }, { "newaliases", "-bi", false }, { "verify", "-bv", true },
	};
	size_t k = 0;

	if (strcmp(words[0], "sendq") == 0) {
		program_path("sendq", SENDQ_BINDIR, path);
		for (size_t i = 0; i < n; i++)
			argv[k++] = words[i];
		argv[k] = NULL;
		return true;
	}
	for (size_t i = 0; i < SQ_LEN(modes); i++) {
		if (strcmp(words[0], modes[i].word) != 0)
			continue;
		program_path("sendq-sendmail", SENDQ_SBINDIR, path);
		argv[k++] = (char *)(uintptr_t)"sendmail";
		argv[k++] = (char *)(uintptr_t)modes[i].option;
		argv[k++] = (char *)(uintptr_t)"--";
		for (size_t w = 1; modes[i].addresses && w < n; w++)
			argv[k++] = words[w];
		argv[k] = NULL;
		return true;
	}
	return false;
}

static void
run(char **argv, const char *path, const char *config, int64_t uid, bool all, int out, int err)
{
	char texts[4][4200];
	char *env[16];
	size_t n = 0;
#ifdef SENDQ_FAULTS
	static const char *const kept[] = { "SENDQ_SYSTEM_ROOT", "SENDQ_TEST_CLOCK", "ASAN_OPTIONS", "UBSAN_OPTIONS" };
	char more[SQ_LEN(kept)][4200];
#endif

	snprintf(texts[0], sizeof(texts[0]), "SENDQ_CONFIG=%s", config);
	snprintf(texts[1], sizeof(texts[1]), "SENDQ_FOR_UID=%lld%s", (long long)uid, all ? " all" : "");
	snprintf(texts[2], sizeof(texts[2]), "PATH=/usr/sbin:/usr/bin:/sbin:/bin");
	snprintf(texts[3], sizeof(texts[3]), "LANG=C.UTF-8");
	for (size_t i = 0; i < SQ_LEN(texts); i++)
		env[n++] = texts[i];
#ifdef SENDQ_FAULTS
	for (size_t i = 0; i < SQ_LEN(kept); i++)
		if (getenv(kept[i])) {
			snprintf(more[i], sizeof(more[i]), "%s=%s", kept[i], getenv(kept[i]));
			env[n++] = more[i];
		}
#endif
	env[n] = NULL;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(open("/dev/null", O_RDONLY), STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
		_exit(EX_OSERR);
	close_range(3, ~0U, 0);
	execve(path, argv, env);
	_exit(EX_OSFILE);
}

/* ---- carrying back ---- */

/* The caller reads slowly, or not at all: not for ever. */
static bool
may_write(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, WRITE_MS) > 0 && !(p.revents & (POLLERR | POLLHUP));
}

/* False: nothing more comes from this pipe, or the caller is gone. */
static bool
carry(int fd, int from, char kind, bool *gone)
{
	static char octets[16384];
	ssize_t n = read(from, octets, sizeof(octets));

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	if (!may_write(fd) || sq_control_frame(fd, kind, octets, (size_t)n, NULL) != SQ_OK)
		*gone = true;
	return !*gone;
}

static void
carry_back(int fd, int out, int err, bool *gone)
{
	/* The caller says nothing more: readable means that it has gone. */
	struct pollfd p[3] = { { .fd = out, .events = POLLIN }, { .fd = err, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

	while ((p[0].fd >= 0 || p[1].fd >= 0) && !*gone) {
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			return;
		if (p[2].revents)
			*gone = true;
		for (int i = 0; i < 2 && !*gone; i++)
			if (p[i].revents && !carry(fd, p[i].fd, i ? 'e' : 'o', gone))
				p[i].fd = -1;
	}
}

static int
refuse(int fd, const char *words, int status)
{
	if (sq_control_frame(fd, 'e', words, strlen(words), NULL) == SQ_OK)
		(void)!sq_control_end(fd, status, NULL);
	return status;
}

int
serve_control(int fd, int64_t uid, const char *config_path)
{
	static char room[SQ_CONTROL_REQUEST_MAX], path[4096];
	static char *words[SQ_CONTROL_WORDS_MAX], *argv[SQ_CONTROL_WORDS_MAX + 8];
	int out[2], err[2], status = 0;
	bool gone = false;
	struct sq_error e = { 0 };
	pid_t pid;
	size_t n = 0;

	if (sq_control_read(fd, REQUEST_MS, room, words, &n, &e) != SQ_OK || n == 0)
		return EX_PROTOCOL;
	if (!command_of(words, n, path, argv))
		return refuse(fd, "sendq: this is not done over the control socket\n", EX_USAGE);
	if (pipe2(out, 0) < 0 || pipe2(err, 0) < 0 || (pid = fork()) < 0)
		return refuse(fd, "sendq: the machine is too busy: try later\n", EX_TEMPFAIL);
	if (pid == 0)
		run(argv, path, config_path, uid, sees_all(fd, uid), out[1], err[1]);
	close(out[1]);
	close(err[1]);
	carry_back(fd, out[0], err[0], &gone);
	if (gone)
		kill(pid, SIGTERM);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!gone)
		(void)!sq_control_end(fd, WIFEXITED(status) ? WEXITSTATUS(status) : EX_SOFTWARE, NULL);
	return EX_OK;
}
