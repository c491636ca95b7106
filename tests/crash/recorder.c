/*
 * LD_PRELOAD: write down what a program does to the files of one folder, so
 * that a test can say what a power loss would have left of them; and let the
 * Nth of these writes or syncs fail.
 *
 *   SENDQ_RECORD_DIR   the folder, with its slash; files whose names end in "-shm" are not of interest
 *   SENDQ_RECORD_LOG   gets the records, appended, each in one write
 *   SENDQ_RECORD_FAIL  "write:N=ERRNO", "sync:N=ERRNO": the Nth fails; "write:N+=ERRNO": that one and all behind it
 *
 * A record is a header (struct record) and behind it the path and the octets.
 * Kinds: W write, T truncate, B sync begun, S sync done, C created, R renamed
 * (octets: the old path), U unlinked, N octets for a TCP socket (before they
 * are sent), F a failure made here. A write is written down when it was done,
 * a sync covers what was written down before it began.
 */
/* Both names of each function are wanted, as they are. */
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct record {
	uint32_t path_n, octets_n;
	int64_t offset;
	int32_t pid;
	char kind, pad[3];
};

enum { PATH = 4096 };

#define REAL(name) ((__typeof__(&name))(uintptr_t)real(#name))

static void *
real(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);

	if (!f)
		abort();
	return f;
}

static int
log_fd(void)
{
	static int fd = -1;

	if (fd < 0 && getenv("SENDQ_RECORD_LOG")) {
		fd = REAL(open)(getenv("SENDQ_RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		/* Out of the way of the descriptors that programs give a meaning. */
		if (fd >= 0 && fd < 200) {
			int high = fcntl(fd, F_DUPFD_CLOEXEC, 200);

			close(fd);
			fd = high;
		}
	}
	return fd;
}

static void
put(char kind, const char *path, int64_t offset, const void *octets, size_t n)
{
	struct record r = { .path_n = (uint32_t)strlen(path), .octets_n = (uint32_t)n, .offset = offset, .pid = getpid(), .kind = kind };
	struct iovec v[3] = { { &r, sizeof(r) }, { (void *)(uintptr_t)path, r.path_n }, { (void *)(uintptr_t)octets, n } };
	int keep = errno;

	if (log_fd() >= 0 && writev(log_fd(), v, 3) != (ssize_t)(sizeof(r) + r.path_n + n))
		abort();
	errno = keep;
}

static bool
ours(const char *path)
{
	const char *dir = getenv("SENDQ_RECORD_DIR");
	size_t n = strlen(path);

	return dir && strncmp(path, dir, strlen(dir)) == 0 && !(n > 4 && strcmp(path + n - 4, "-shm") == 0);
}

/* The path of a descriptor where it is one of ours. A folder's ends in a slash. */
static bool
path_of(int fd, char path[PATH])
{
	char link[64];
	struct stat st;
	ssize_t n;

	if (!getenv("SENDQ_RECORD_DIR") || fd < 0)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH - 2);
	if (n <= 0)
		return false;
	path[n] = '\0';
	if (path[0] == '/' && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		strcpy(path + n, "/");
	return ours(path);
}

/* The errno with which this one has to fail, or 0. */
static int
failure(const char *what)
{
	static int hits[2];
	const char *spec = getenv("SENDQ_RECORD_FAIL"), *colon = spec ? strchr(spec, ':') : NULL;
	char *end;
	long at;
	bool sync = strcmp(what, "sync") == 0;

	if (!colon || (size_t)(colon - spec) != strlen(what) || strncmp(spec, what, strlen(what)) != 0)
		return 0;
	at = strtol(colon + 1, &end, 10);
	hits[sync]++;
	if (*end == '+' ? hits[sync] < at : hits[sync] != at)
		return 0;
	put('F', what, hits[sync], NULL, 0);
	return (int)strtol(strchr(end, '=') + 1, NULL, 10);
}

static bool
fails(const char *what)
{
	int e = failure(what);

	if (e)
		errno = e;
	return e != 0;
}

/* ---- writes ---- */

#define PWRITE(name, type) \
ssize_t \
name(int fd, const void *p, size_t n, type offset) \
{ \
	char path[PATH]; \
	bool known = path_of(fd, path); \
	ssize_t done; \
\
	if (known && fails("write")) \
		return -1; \
	done = REAL(name)(fd, p, n, offset); \
	if (known && done > 0) \
		put('W', path, (int64_t)offset, p, (size_t)done); \
	return done; \
}
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t
write(int fd, const void *p, size_t n)
{
	char path[PATH];
	bool known = fd != log_fd() && path_of(fd, path);
	off_t at = known ? lseek(fd, 0, SEEK_CUR) : 0;
	ssize_t done;

	if (known && fails("write"))
		return -1;
	done = REAL(write)(fd, p, n);
	if (known && done > 0)
		put('W', path, at, p, (size_t)done);
	return done;
}

#define TRUNCATE(name, type) \
int \
name(int fd, type n) \
{ \
	char path[PATH]; \
	bool known = path_of(fd, path); \
	int rc; \
\
	if (known && fails("write")) \
		return -1; \
	rc = REAL(name)(fd, n); \
	if (known && rc == 0) \
		put('T', path, (int64_t)n, NULL, 0); \
	return rc; \
}
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define SYNC(name) \
int \
name(int fd) \
{ \
	char path[PATH]; \
	bool known = path_of(fd, path); \
	int rc; \
\
	if (known && fails("sync")) \
		return -1; \
	if (known) \
		put('B', path, 0, NULL, 0); \
	rc = REAL(name)(fd); \
	if (known && rc == 0) \
		put('S', path, 0, NULL, 0); \
	return rc; \
}
SYNC(fsync)
SYNC(fdatasync)

/* ---- names ---- */

static void
created(const char *path, bool was_there)
{
	if (!was_there && ours(path))
		put('C', path, 0, NULL, 0);
}

#define OPEN(name) \
int \
name(const char *path, int flags, ...) \
{ \
	bool makes = (flags & O_CREAT) && ours(path), there = makes && access(path, F_OK) == 0; \
	va_list ap; \
	mode_t mode; \
	int fd; \
\
	va_start(ap, flags); \
	mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(ap, mode_t) : 0; \
	va_end(ap); \
	fd = REAL(name)(path, flags, mode); \
	if (fd >= 0 && makes) \
		created(path, there); \
	if (fd >= 0 && there && (flags & O_TRUNC)) \
		put('T', path, 0, NULL, 0); \
	return fd; \
}
OPEN(open)
OPEN(open64)

int
mknod(const char *path, mode_t mode, dev_t dev)
{
	int rc = REAL(mknod)(path, mode, dev);

	if (rc == 0)
		created(path, false);
	return rc;
}

int
rename(const char *from, const char *to)
{
	int rc = REAL(rename)(from, to);

	if (rc == 0 && ours(to))
		put('R', to, 0, from, strlen(from));
	return rc;
}

int
unlink(const char *path)
{
	int rc = REAL(unlink)(path);

	if (rc == 0 && ours(path))
		put('U', path, 0, NULL, 0);
	return rc;
}

/* ---- the wire ---- */

ssize_t
send(int fd, const void *p, size_t n, int flags)
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);

	if (log_fd() >= 0 && getsockname(fd, (struct sockaddr *)&a, &size) == 0 && (a.ss_family == AF_INET || a.ss_family == AF_INET6))
		put('N', "", 0, p, n);
	return REAL(send)(fd, p, n, flags);
}
