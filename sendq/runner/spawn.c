/*
 * The process of an agent: which program, with which descriptors, and nothing
 * of this program's environment that it has no use for.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sendq/io.h>

#include "inside.h"

char *
program_path(const char *name)
{
	struct sq_buf b = SQ_BUF_INIT(4096);
	char self[3072], *slash, *out = NULL;
	ssize_t n;

#ifdef SENDQ_FAULTS
	/* Builds for tests find each other by the agent's place; the agent itself may have any name. */
	if (getenv("SENDQ_AGENT") && strcmp(name, "sendq-smtp") == 0)
		return sq_str_dup(sq_str(getenv("SENDQ_AGENT")));
	if (getenv("SENDQ_AGENT") && (slash = strrchr(getenv("SENDQ_AGENT"), '/'))) {
		sq_buf_addf(&b, "%.*s/%s", (int)(slash - getenv("SENDQ_AGENT")), getenv("SENDQ_AGENT"), name);
		if (sq_buf_take(&b, &out, NULL) == SQ_OK && access(out, X_OK) == 0)
			return out;
		free(out);
		out = NULL;
	}
#endif
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash)
			sq_buf_addf(&b, "%.*s/%s", (int)(slash - self), self, name);
	}
	if (b.n == 0 || access(b.p, X_OK) < 0) {
		sq_buf_clear(&b);
		sq_buf_addf(&b, SENDQ_LIBEXECDIR "/%s", name);
	}
	if (sq_buf_take(&b, &out, NULL) != SQ_OK)
		sq_buf_fini(&b);
	return out;
}

/* The agent's environment: what locale and time need; in test builds what tests need. */
static size_t
agent_environment(char **env, size_t max)
{
	static const char *const kept[] = {
		"PATH", "LANG", "LC_ALL", "TZ",
#ifdef SENDQ_FAULTS
		"SENDQ_FAULT", "SENDQ_FAULT_PROGRAM", "SENDQ_TEST_CLOCK", "SENDQ_TEST_AUTOCONFIG", "SENDQ_TEST_RESOLVER", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS",
#endif
	};
	size_t n = 0;

	for (size_t i = 0; i < SQ_LEN(kept) && n + 1 < max; i++) {
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
	return n;
}

enum sq_err
helper_spawn(const char *name, int lock_fd, pid_t *pid, int *out_fd, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = program_path(name);
	char *argv[] = { (char *)(uintptr_t)name, NULL }, *env[16];
	SQ_CLEANUP(sq_closep) int ours = -1;
	SQ_CLEANUP(sq_closep) int theirs = -1;
	SQ_CLEANUP(sq_closep) int lock = -1;
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, def;
	int pair[2], rc;

	if (!path)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot make a socket pair");
	ours = pair[0];
	/* Above the numbers they will have, so that neither dup2 hits the other's source. */
	theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, 16);
	close(pair[1]);
	lock = lock_fd >= 0 ? fcntl(lock_fd, F_DUPFD_CLOEXEC, 16) : -1;
	if (theirs < 0 || (lock < 0 && lock_fd >= 0))
		return sq_error_errno(err, SQ_EIO, "cannot duplicate a descriptor");
	sigemptyset(&none);
	sigfillset(&def);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&files, theirs, SQ_AGENT_FD);
	if (lock >= 0)
		posix_spawn_file_actions_adddup2(&files, lock, SQ_AGENT_LOCK_FD);
	posix_spawn_file_actions_addclosefrom_np(&files, SQ_AGENT_FD + (lock >= 0 ? 2 : 1));
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &def);
	agent_environment(env, SQ_LEN(env));
	rc = posix_spawn(pid, path, &files, &attr, argv, env);
	for (size_t i = 0; env[i]; i++)
		free(env[i]);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	if (rc != 0) {
		*pid = 0;
		errno = rc;
		return sq_error_errno(err, SQ_EIO, "cannot run '%s'", path);
	}
	*out_fd = ours;
	ours = -1;
	return SQ_OK;
}

enum sq_err
agent_spawn(struct runner *r, struct agent *a, struct sq_error *err)
{
	enum sq_err e = helper_spawn("sendq-smtp", r->lock_fd, &a->pid, &a->fd, err);

	if (e == SQ_OK)
		sq_stream_init(&a->stream, a->fd);
	return e;
}
