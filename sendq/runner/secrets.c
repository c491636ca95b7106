/*
 * Commands run for their output: passwords, tokens, and the notify hook. Each
 * in its own process group, with /dev/null as input or octets that are given
 * to it, bounded in time and octets, read without ever blocking the loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sendq/io.h>

#include "inside.h"

enum { WORDS_MAX = 2048 };

extern char **environ;

static void
nonblocking(int fd)
{
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* A file without a name, to be read from its beginning; -1 where there is nothing to read. */
static enum sq_err
input_of(struct sq_str octets, int *fd, struct sq_error *err)
{
	enum sq_err e;

	*fd = -1;
	if (octets.n == 0)
		return SQ_OK;
	if ((*fd = memfd_create("input", MFD_CLOEXEC)) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot make a file in memory");
	e = sq_write_all(*fd, octets.p, octets.n, err);
	if (e == SQ_OK && lseek(*fd, 0, SEEK_SET) < 0)
		e = sq_error_errno(err, SQ_EIO, "cannot use a file in memory");
	return e;
}

enum sq_err
command_start(struct command *c, const char *shell, char *const *more_env, struct sq_str input, bool interactive, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int in = -1;
	int out[2] = { -1, -1 }, words[2] = { -1, -1 };
	char *argv[] = { (char *)(uintptr_t)"sh", (char *)(uintptr_t)"-c", (char *)(uintptr_t)shell, NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, def;
	size_t n_env = 0, n_more = 0;
	char **env;
	enum sq_err e = input_of(input, &in, err);
	int rc;

	if (e != SQ_OK)
		return e;
	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(words, O_CLOEXEC) < 0) {
		sq_closep(&out[0]);
		sq_closep(&out[1]);
		return sq_error_errno(err, SQ_EIO, "cannot make a pipe");
	}
	while (environ[n_env])
		n_env++;
	while (more_env && more_env[n_more])
		n_more++;
	if (!(env = calloc(n_env + n_more + 1, sizeof(*env))))
		sq_bug("out of memory for an environment");
	memcpy(env, environ, n_env * sizeof(*env));
	if (n_more > 0)
		memcpy(env + n_env, more_env, n_more * sizeof(*env));
	sigemptyset(&none);
	sigfillset(&def);
	posix_spawn_file_actions_init(&files);
	if (in >= 0)
		posix_spawn_file_actions_adddup2(&files, in, 0);
	else
		posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, out[1], 1);
	if (!interactive)
		posix_spawn_file_actions_adddup2(&files, words[1], 2);
	posix_spawnattr_init(&attr);
	/* Of its own group, so that what the command starts ends with it; but a terminal only obeys the foreground group. */
	posix_spawnattr_setflags(&attr, (short)((interactive ? 0 : POSIX_SPAWN_SETPGROUP) | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF));
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &def);
	rc = posix_spawn(&c->pid, "/bin/sh", &files, &attr, argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	free(env);
	close(out[1]);
	close(words[1]);
	if (rc != 0) {
		close(out[0]);
		close(words[0]);
		c->pid = 0;
		errno = rc;
		return sq_error_errno(err, SQ_EIO, "cannot run /bin/sh");
	}
	c->out = out[0];
	c->err = words[0];
	nonblocking(c->out);
	nonblocking(c->err);
	c->text = (struct sq_buf)SQ_BUF_INIT(SQ_SECRET_MAX);
	c->words = (struct sq_buf)SQ_BUF_INIT(WORDS_MAX);
	(void)sq_buf_reserve(&c->text, SQ_SECRET_MAX);
	c->deadline = sq_boot_ms() + SQ_SECRET_MS;
	return SQ_OK;
}

/* Everything that is there; true at the end of the stream. */
static bool
drain(int *fd, struct sq_buf *to, bool keep_last)
{
	char chunk[4096];
	ssize_t n;

	while (*fd >= 0 && (n = read(*fd, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno != EAGAIN;
		if (keep_last && to->n + (size_t)n > to->max)
			sq_buf_clear(to);
		sq_buf_add(to, chunk, (size_t)n < to->max ? (size_t)n : to->max);
		sq_wipe(chunk, sizeof(chunk));
	}
	sq_closep(fd);
	return true;
}

void
command_kill(struct command *c)
{
	if (c->pid > 0 && kill(-c->pid, SIGKILL) < 0)
		kill(c->pid, SIGKILL);
}

bool
command_events(struct command *c)
{
	bool text_over = drain(&c->out, &c->text, false), words_over = drain(&c->err, &c->words, true);
	int status = 0;

	if (sq_boot_ms() >= c->deadline) {
		command_kill(c);
		(void)waitpid(c->pid, &status, 0);
		c->pid = 0;
		sq_buf_clear(&c->words);
		sq_buf_adds(&c->words, "the command did not end within 30 s");
		c->text.failed = true;
		return true;
	}
	if (!text_over || !words_over || waitpid(c->pid, &status, WNOHANG) != c->pid)
		return false;
	c->pid = 0;
	if (c->text.failed) {
		sq_buf_clear(&c->words);
		sq_buf_adds(&c->words, "the command printed more than 64 KiB");
	} else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		c->text.failed = true;
		if (c->words.n == 0)
			sq_buf_addf(&c->words, WIFEXITED(status) ? "the command failed with status %d" : "the command was ended by signal %d",
				WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	}
	return true;
}

void
command_fini(struct command *c)
{
	command_kill(c);
	if (c->pid > 0)
		(void)waitpid(c->pid, NULL, 0);
	c->pid = 0;
	sq_closep(&c->out);
	sq_closep(&c->err);
	sq_buf_wipe(&c->text);
	sq_buf_fini(&c->words);
}

enum sq_err
secret_read_file(const char *path, struct sq_buf *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	enum sq_err e;

	if (fd < 0 || fstat(fd, &st) < 0)
		return sq_error_errno(err, SQ_EPERM, "cannot read the password file '%s'", path);
	if (!S_ISREG(st.st_mode))
		return sq_error_set(err, SQ_EPERM, "the password file '%s' is not a regular file", path);
	if (st.st_mode & 077)
		return sq_error_set(err, SQ_EPERM, "others may read the password file '%s': chmod 600 '%s'", path, path);
	(void)sq_buf_reserve(out, out->max);
	if ((e = sq_buf_read_fd(out, fd, err)) != SQ_OK)
		return sq_error_wrap(err, e, "the password file '%s'", path);
	return SQ_OK;
}

enum sq_err
secret_read_credential(const char *name, struct sq_buf *out, struct sq_error *err)
{
	const char *folder = secure_getenv("CREDENTIALS_DIRECTORY");
	SQ_CLEANUP(sq_buf_fini) struct sq_buf path = SQ_BUF_INIT(4096);
	SQ_CLEANUP(sq_closep) int fd = -1;
	struct stat st;
	enum sq_err e;

	if (!folder || folder[0] != '/')
		return sq_error_set(err, SQ_EPERM, "the credential '%s' is only for sendqd as a service whose unit has LoadCredentialEncrypted=%s: "
			"systemd gave this process none", name, name);
	sq_buf_addf(&path, "%s/%s", folder, name);
	if (path.failed || (fd = open(path.p, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)) < 0 || fstat(fd, &st) < 0)
		return sq_error_set(err, SQ_EPERM, "systemd gave the service no credential '%s': its unit needs LoadCredentialEncrypted=%s, and then a restart (%s)",
			name, name, strerror(errno));
	/* Its group bits are the mask of an access list: that of the service's user. */
	if (!S_ISREG(st.st_mode) || (st.st_mode & 07))
		return sq_error_set(err, SQ_EPERM, "the credential '%s' is no file of systemd's: others may read it", path.p);
	(void)sq_buf_reserve(out, out->max);
	if ((e = sq_buf_read_fd(out, fd, err)) != SQ_OK)
		return sq_error_wrap(err, e, "the credential '%s'", name);
	return SQ_OK;
}

/* Commands and editors end their output with a line end which is no part of the password. */
void
secret_trim(struct sq_buf *b)
{
	while (b->n > 0 && (b->p[b->n - 1] == '\n' || b->p[b->n - 1] == '\r'))
		b->p[--b->n] = '\0';
}
