/*
 * Files, directories, the clock, randomness, and the wake socket. The clock
 * is the only one: test builds shift it by the file that SENDQ_TEST_CLOCK names.
 */
#include <sendq/io.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum sq_err
sq_write_all(int fd, const void *p, size_t n, struct sq_error *err)
{
	const char *at = p;

	while (n > 0) {
		ssize_t w = write(fd, at, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return sq_error_errno(err, SQ_EIO, "cannot write");
		at += w;
		n -= (size_t)w;
	}
	return SQ_OK;
}

/* The directory part of a path: "." for a bare name, "/" for one in the root. Heap. */
static char *
parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return sq_str_dup(SQ_STR("."));
	return sq_str_dup((struct sq_str){ path, slash == path ? 1 : (size_t)(slash - path) });
}

enum sq_err
sq_write_private(const char *path, struct sq_str octets, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *fresh = sq_path_suffix(path, ".new");
	SQ_CLEANUP(sq_closep) int fd = -1;
	enum sq_err e;

	if (!fresh)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	(void)unlink(fresh);
	if ((fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", fresh);
	if ((e = sq_write_all(fd, octets.p, octets.n, err)) != SQ_OK)
		return e;
	if (fsync(fd) < 0 || rename(fresh, path) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", path);
	return sq_fsync_parent(path, err);
}

enum sq_err
sq_fsync_parent(const char *path, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *dir = parent_of(path);
	SQ_CLEANUP(sq_closep) int fd = -1;

	if (!dir)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open directory '%s'", dir);
	if (fsync(fd) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot sync directory '%s'", dir);
	return SQ_OK;
}

static enum sq_err
make_one(const char *path, struct sq_error *err)
{
	if (mkdir(path, 0700) == 0)
		return sq_fsync_parent(path, err);
	if (errno == EEXIST)
		return SQ_OK;
	return sq_error_errno(err, errno == EACCES || errno == EPERM ? SQ_EPERM : SQ_EIO, "cannot make directory '%s'", path);
}

enum sq_err
sq_mkdirs(const char *path, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *copy = sq_str_dup(sq_str(path));
	struct stat st;
	enum sq_err e;

	if (!copy)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode) ? SQ_OK : sq_error_set(err, SQ_EIO, "'%s' is not a directory", path);
	for (char *p = copy + 1; *p; p++) {
		if (*p != '/' || p[1] == '/' || p[1] == '\0')
			continue;
		*p = '\0';
		if ((e = make_one(copy, err)) != SQ_OK)
			return e;
		*p = '/';
	}
	return make_one(copy, err);
}

char *
sq_home_dir(void)
{
	const char *home = getauxval(AT_SECURE) ? NULL : getenv("HOME");
	struct stat st;
	struct passwd *pw;

	if (home && home[0] == '/' && stat(home, &st) == 0 && st.st_uid == geteuid())
		return sq_str_dup(sq_str(home));
	pw = getpwuid(geteuid());
	return pw && pw->pw_dir && pw->pw_dir[0] == '/' ? sq_str_dup(sq_str(pw->pw_dir)) : NULL;
}

char *
sq_path_suffix(const char *path, const char *suffix)
{
	size_t n = strlen(path), m = strlen(suffix);
	char *p = malloc(n + m + 1);

	if (!p)
		return NULL;
	memcpy(p, path, n);
	memcpy(p + n, suffix, m + 1);
	return p;
}

static int64_t
test_shift_ms(clockid_t which)
{
#ifdef SENDQ_FAULTS
	const char *path = getenv("SENDQ_TEST_CLOCK");
	char text[32] = "";
	int fd;

	if (!path || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	char *rest = text;
	int64_t shift = n > 0 ? strtoll(text, &rest, 10) : 0;

	/* A second number: time spent in suspend, which the clock of waking hours does not see. */
	return shift + (which == CLOCK_MONOTONIC ? 0 : strtoll(rest, NULL, 10));
#else
	(void)which;
	return 0;
#endif
}

static int64_t
clock_ms(clockid_t which)
{
	struct timespec ts;

	if (clock_gettime(which, &ts) < 0)
		sq_bug("no clock %d", (int)which);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + test_shift_ms(which);
}

int64_t
sq_wall_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

int64_t
sq_boot_ms(void)
{
	return clock_ms(CLOCK_BOOTTIME);
}

int64_t
sq_awake_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

void
sq_format_date(int64_t wall_ms, char out[40])
{
	static const char days[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
		"Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm;
	long minutes;

	localtime_r(&t, &tm);
	minutes = tm.tm_gmtoff / 60;
	snprintf(out, 40, "%s, %d %s %d %02d:%02d:%02d %c%02ld%02ld", days[tm.tm_wday], tm.tm_mday,
		months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec,
		minutes < 0 ? '-' : '+', labs(minutes) / 60 % 100, labs(minutes) % 60);
}

int
sq_netlink_open(unsigned groups)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | (groups ? SOCK_NONBLOCK : 0), NETLINK_ROUTE);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		sq_closep(&fd);
	return fd;
}

/* Asked of UDP, which sends nothing; the addresses are for documentation. */
bool
sq_has_way_out(void)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0xc0000201) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr.s6_addr = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 } };
	SQ_CLEANUP(sq_closep) int four = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	SQ_CLEANUP(sq_closep) int six = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return (four >= 0 && connect(four, (struct sockaddr *)&v4, sizeof(v4)) == 0) ||
		(six >= 0 && connect(six, (struct sockaddr *)&v6, sizeof(v6)) == 0);
}

void
sq_random(void *p, size_t n)
{
	char *at = p;

	while (n > 0) {
		ssize_t got = getrandom(at, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			sq_bug("no randomness: %s", strerror(errno));
		at += got;
		n -= (size_t)got;
	}
}

void
sq_hex(const void *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *b = p;

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[b[i] >> 4];
		out[2 * i + 1] = digits[b[i] & 15];
	}
	out[2 * n] = '\0';
}

/*
 * Fill in an address that reaches `path` through its opened directory, so
 * that only the last component must fit into sun_path. *dir stays open while
 * the address is used.
 */
static enum sq_err
wake_address(const char *path, struct sockaddr_un *out, int *dir, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *parent = parent_of(path);
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	int n;

	if (!parent)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	*dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open directory '%s'", parent);
	*out = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d/%s", *dir, name);
	if (n >= (int)sizeof(out->sun_path))
		return sq_error_set(err, SQ_ELIMIT, "the name of the socket '%s' is too long", path);
	return SQ_OK;
}

/* The socket that systemd bound for us under this name (sd_listen_fds(3)); -1: none. */
static int
inherited_wake(const char *path)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	long n = pid && count && strtol(pid, NULL, 10) == (long)getpid() ? strtol(count, NULL, 10) : 0;

	for (int fd = 3; fd < 3 + n && fd < 64; fd++) {
		struct sockaddr_un a = { 0 };
		socklen_t size = sizeof(a), int_size = sizeof(int);
		int type = 0;

		if (getsockname(fd, (struct sockaddr *)&a, &size) == 0 && a.sun_family == AF_UNIX && strcmp(a.sun_path, path) == 0 &&
		    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_size) == 0 && type == SOCK_DGRAM &&
		    fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
			return fd;
	}
	return -1;
}

bool
sq_wake_inherited(const char *path)
{
	return inherited_wake(path) >= 0;
}

enum sq_err
sq_wake_bind(const char *path, int *out_fd, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int dir = -1;
	SQ_CLEANUP(sq_closep) int fd = -1;
	struct sockaddr_un addr;
	enum sq_err e;

	if ((*out_fd = inherited_wake(path)) >= 0)
		return SQ_OK;
	if ((e = wake_address(path, &addr, &dir, err)) != SQ_OK)
		return e;
	if (unlink(path) < 0 && errno != ENOENT)
		return sq_error_errno(err, SQ_EIO, "cannot remove the old socket '%s'", path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot make a socket");
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot bind the socket '%s'", path);
	if (chmod(path, 0600) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot set the mode of '%s'", path);
	*out_fd = fd;
	fd = -1;
	return SQ_OK;
}

/* A socket for the daemon's address in *addr; -1: neither can be had. */
static int
wake_socket(const char *path, struct sockaddr_un *addr, int *dir)
{
	if (wake_address(path, addr, dir, NULL) != SQ_OK)
		return -1;
	return socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

bool
sq_wake_answers(const char *path)
{
	SQ_CLEANUP(sq_closep) int dir = -1;
	struct sockaddr_un addr;
	SQ_CLEANUP(sq_closep) int fd = wake_socket(path, &addr, &dir);

	return fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

bool
sq_wake_poke(const char *path)
{
	SQ_CLEANUP(sq_closep) int dir = -1;
	struct sockaddr_un addr;
	SQ_CLEANUP(sq_closep) int fd = wake_socket(path, &addr, &dir);

	/* A full socket buffer means that the daemon has pokes enough to read. */
	return fd >= 0 && (sendto(fd, "!", 1, MSG_NOSIGNAL, (struct sockaddr *)&addr, sizeof(addr)) == 1 || errno == EAGAIN);
}
