/* Both ends of control.h, and stream sockets by path. Blocks; the caller has set SIGPIPE aside. */
#include <sendq/control.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <sendq/io.h>

enum { BACKLOG = 128, PAUSE_MS = 50 };

/* Paths longer than sun_path are reached through the opened directory, as the wake socket is. */
static enum sq_err
address_of(const char *path, struct sockaddr_un *out, int *dir, struct sq_error *err)
{
	const char *slash = strrchr(path, '/');
	SQ_CLEANUP(sq_freep) char *parent = NULL;
	int n;

	*out = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) < sizeof(out->sun_path)) {
		memcpy(out->sun_path, path, strlen(path));
		return SQ_OK;
	}
	if (!slash || !(parent = sq_str_dup((struct sq_str){ path, (size_t)(slash - path) })))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((*dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open directory '%s'", parent);
	n = snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d%s", *dir, slash);
	return n < (int)sizeof(out->sun_path) ? SQ_OK : sq_error_set(err, SQ_ELIMIT, "the name of the socket '%s' is too long", path);
}

enum sq_err
sq_socket_connect(const char *path, int64_t patience_ms, int *out_fd, struct sq_error *err)
{
	int64_t until = sq_boot_ms() + patience_ms;

	for (;;) {
		SQ_CLEANUP(sq_closep) int dir = -1;
		SQ_CLEANUP(sq_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		struct sockaddr_un a;
		enum sq_err e = address_of(path, &a, &dir, err);

		if (fd < 0)
			return sq_error_errno(err, SQ_EIO, "cannot make a socket");
		if (e == SQ_OK && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0) {
			if (fcntl(fd, F_SETFL, 0) < 0)
				return sq_error_errno(err, SQ_EIO, "cannot use the socket '%s'", path);
			*out_fd = fd;
			fd = -1;
			return SQ_OK;
		}
		if (e == SQ_OK && errno == EACCES)
			return sq_error_errno(err, SQ_EPERM, "cannot connect to '%s'", path);
		/* Not there, nobody behind it, or too many before us: all may change. */
		if (sq_boot_ms() >= until)
			return sq_error_set(err, SQ_ETIMEOUT, "the mail service of this machine does not answer ('%s')", path);
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_MS * 1000000 }, NULL);
	}
}

enum sq_err
sq_socket_listen(const char *path, int *out_fd, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int dir = -1;
	SQ_CLEANUP(sq_closep) int fd = -1;
	struct sockaddr_un a;
	enum sq_err e = address_of(path, &a, &dir, err);

	if (e != SQ_OK)
		return e;
	if (unlink(path) < 0 && errno != ENOENT)
		return sq_error_errno(err, SQ_EIO, "cannot remove the old socket '%s'", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, 0666) < 0 || listen(fd, BACKLOG) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot listen on '%s'", path);
	*out_fd = fd;
	fd = -1;
	return SQ_OK;
}

/* Exactly n octets. SQ_EEOF where the other side ends before. */
static enum sq_err
read_exactly(int fd, void *to, size_t n, int64_t until, struct sq_error *err)
{
	char *p = to;

	while (n > 0) {
		int64_t left = until - sq_boot_ms();
		struct pollfd f = { .fd = fd, .events = POLLIN };
		int ready = poll(&f, 1, until == INT64_MAX ? -1 : left < 0 ? 0 : (int)left);
		ssize_t got;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0)
			return sq_error_set(err, SQ_ETIMEOUT, "nothing came in time");
		got = ready < 0 ? -1 : read(fd, p, n);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got < 0 && errno != ECONNRESET)
			return sq_error_errno(err, SQ_EIO, "cannot read");
		if (got <= 0)
			return sq_error_set(err, SQ_EEOF, "the other side has gone");
		p += got;
		n -= (size_t)got;
	}
	return SQ_OK;
}

/* ---- who asks ---- */

static enum sq_err
send_words(int fd, const char *const *words, size_t n, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(SQ_CONTROL_REQUEST_MAX);
	struct sq_str all;
	uint32_t length;
	enum sq_err e;

	for (size_t i = 0; i < n; i++)
		sq_buf_add(&b, words[i], strlen(words[i]) + 1);
	if (n > SQ_CONTROL_WORDS_MAX || sq_buf_view(&b, &all, err) != SQ_OK)
		return sq_error_set(err, SQ_ELIMIT, "the command line is too long");
	length = htonl((uint32_t)all.n);
	if ((e = sq_write_all(fd, &length, 4, err)) != SQ_OK)
		return e;
	return sq_write_all(fd, all.p, all.n, err);
}

enum sq_err
sq_control_call(const char *path, const char *const *words, size_t n, int *status, struct sq_error *err)
{
	static char octets[SQ_CONTROL_FRAME_MAX];
	SQ_CLEANUP(sq_closep) int fd = -1;
	enum sq_err e;

	if ((e = sq_socket_connect(path, 10000, &fd, err)) != SQ_OK || (e = send_words(fd, words, n, err)) != SQ_OK)
		return e;
	for (;;) {
		char kind;
		uint32_t length;

		if ((e = read_exactly(fd, &kind, 1, INT64_MAX, err)) != SQ_OK || (e = read_exactly(fd, &length, 4, INT64_MAX, err)) != SQ_OK)
			return sq_error_wrap(err, e, "the mail service of this machine");
		length = ntohl(length);
		if (length > sizeof(octets))
			return sq_error_set(err, SQ_EPROTO, "the mail service of this machine said something odd");
		if ((e = read_exactly(fd, octets, length, INT64_MAX, err)) != SQ_OK)
			return sq_error_wrap(err, e, "the mail service of this machine");
		if (kind == 'x' && length == 4) {
			memcpy(&length, octets, 4);
			*status = (int)ntohl(length);
			return SQ_OK;
		}
		if ((e = sq_write_all(kind == 'e' ? STDERR_FILENO : STDOUT_FILENO, octets, length, err)) != SQ_OK)
			return e;
	}
}

/* ---- who answers ---- */

enum sq_err
sq_control_read(int fd, int64_t patience_ms, char *room, char **words, size_t *n, struct sq_error *err)
{
	int64_t until = sq_boot_ms() + patience_ms;
	uint32_t length;
	enum sq_err e;

	if ((e = read_exactly(fd, &length, 4, until, err)) != SQ_OK)
		return e;
	length = ntohl(length);
	if (length == 0 || length > SQ_CONTROL_REQUEST_MAX)
		return sq_error_set(err, SQ_EPROTO, "a request of %u octets", length);
	if ((e = read_exactly(fd, room, length, until, err)) != SQ_OK)
		return e;
	if (room[length - 1] != '\0')
		return sq_error_set(err, SQ_EPROTO, "a request without an end");
	*n = 0;
	for (char *p = room; p < room + length; p += strlen(p) + 1) {
		if (*n == SQ_CONTROL_WORDS_MAX)
			return sq_error_set(err, SQ_EPROTO, "more than %d words", SQ_CONTROL_WORDS_MAX);
		words[(*n)++] = p;
	}
	return SQ_OK;
}

enum sq_err
sq_control_frame(int fd, char kind, const void *p, size_t n, struct sq_error *err)
{
	char head[5] = { kind };
	uint32_t length = htonl((uint32_t)n);
	enum sq_err e;

	memcpy(head + 1, &length, 4);
	if ((e = sq_write_all(fd, head, sizeof(head), err)) != SQ_OK)
		return e;
	return sq_write_all(fd, p, n, err);
}

enum sq_err
sq_control_end(int fd, int status, struct sq_error *err)
{
	uint32_t v = htonl((uint32_t)status);

	return sq_control_frame(fd, 'x', &v, 4, err);
}
