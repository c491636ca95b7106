/* The runner lock: one runner a queue, its orphans included. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/log.h>
#include <sendq/runner.h>

/* The directory that holds the queue; made when it is not there. */
static enum sq_err
make_directory(const char *queue_path, struct sq_error *err)
{
	const char *slash = strrchr(queue_path, '/');
	SQ_CLEANUP(sq_freep) char *dir = slash && slash != queue_path ? sq_str_dup((struct sq_str){ queue_path, (size_t)(slash - queue_path) }) : NULL;

	return dir ? sq_mkdirs(dir, err) : SQ_OK;
}

static bool
told_to_stop(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 && (sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT));
}

enum sq_err
sq_runner_lock(const char *queue_path, bool wait, int *out_fd, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(queue_path, ".lock");
	SQ_CLEANUP(sq_freep) char *wake = sq_path_suffix(queue_path, ".wake");
	SQ_CLEANUP(sq_closep) int fd = -1;
	bool we_listen;
	struct stat st;
	enum sq_err e;

	if (!path || !wake)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = make_directory(queue_path, err)) != SQ_OK)
		return e;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fstat(fd, &st) < 0)
		return sq_error_errno(err, errno == EACCES || errno == ELOOP ? SQ_EPERM : SQ_EIO, "cannot open the lock '%s'", path);
	if (st.st_uid != geteuid())
		return sq_error_set(err, SQ_EPERM, "the lock '%s' belongs to uid %u: a queue has one user", path, (unsigned)st.st_uid);
	we_listen = sq_wake_inherited(wake);
	for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return sq_error_errno(err, SQ_EIO, "cannot lock '%s'", path);
		/*
		 * Who listens is alive; orphans of a dead runner only hold the lock. With a socket of systemd's it is we who
		 * listen, and a runner that was there before sees that and lets go (loop.c).
		 */
		if (!wait || told_to_stop() || (tries > 0 && !we_listen && sq_wake_poke(wake)))
			return sq_error_set(err, SQ_EBUSY, "another runner has the queue '%s'", queue_path);
		if (tries == 20)
			sq_log(SQ_LOG_INFO, "waiting for another runner, or for the last session of one that died, to let go of '%s'", queue_path);
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	}
	*out_fd = fd;
	fd = -1;
	return SQ_OK;
}
