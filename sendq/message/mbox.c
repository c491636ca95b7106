/*
 * Delivery of a notice into a user's mailbox of this machine (/var/mail, in
 * mbox form), by a process that is not that user. A mailbox that is there is
 * appended to; one that is not is made, and given to its user by owner where
 * that is permitted, else by an access list.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/report.h>

enum { LOCK_TRIES = 50, LOCK_PAUSE_MS = 100, LOCK_STALE_S = 300 };

/* "user: read and write" beside the owner, as acl(5) stores it: version 2, entries of tag, rights, id, little-endian. */
static bool
give_by_list(int fd, uid_t uid)
{
	static const struct { uint16_t tag, rights; bool named; } entries[] = {
		{ 0x01, 6, false }, { 0x02, 6, true }, { 0x04, 6, false }, { 0x10, 6, false }, { 0x20, 0, false },
	};
	unsigned char acl[4 + 8 * SQ_LEN(entries)] = { 2 };
	unsigned char *p = acl + 4;

	for (size_t i = 0; i < SQ_LEN(entries); i++, p += 8) {
		uint32_t id = entries[i].named ? (uint32_t)uid : UINT32_MAX;

		p[0] = (unsigned char)entries[i].tag;
		p[2] = (unsigned char)entries[i].rights;
		for (int k = 0; k < 4; k++)
			p[4 + k] = (unsigned char)(id >> (8 * k));
	}
	return fsetxattr(fd, "system.posix_acl_access", acl, sizeof(acl), 0) == 0;
}

/* Open it, or make it for its user. Never through a link, never into a file of somebody else. */
static enum sq_err
open_mailbox(const char *path, uid_t uid, int *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 && errno == ENOENT) {
		fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0660);
		if (fd >= 0 && fchown(fd, uid, (gid_t)-1) < 0 && !give_by_list(fd, uid)) {
			sq_error_errno(err, SQ_EPERM, "cannot give the mailbox '%s' to its user", path);
			unlink(path);
			return SQ_EPERM;
		}
		if (fd >= 0 && fchmod(fd, 0660) < 0)
			return sq_error_errno(err, SQ_EIO, "cannot set the mode of '%s'", path);
	}
	if (fd < 0 || fstat(fd, &st) < 0)
		return sq_error_errno(err, errno == EACCES || errno == ELOOP ? SQ_EPERM : SQ_EIO, "cannot open the mailbox '%s'", path);
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || (st.st_uid != uid && st.st_uid != geteuid()))
		return sq_error_set(err, SQ_EPERM, "'%s' is not the mailbox of uid %u", path, (unsigned)uid);
	*out = fd;
	fd = -1;
	return SQ_OK;
}

/* `<mailbox>.lock` beside it, as mail programs do. False: somebody else holds it for too long. */
static bool
dot_lock(const char *lock)
{
	for (int i = 0; i < LOCK_TRIES; i++) {
		int fd = open(lock, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0444);
		struct stat st;

		if (fd >= 0) {
			close(fd);
			return true;
		}
		if (errno != EEXIST)
			return true; /* no lock files in this folder: fcntl has to do */
		if (stat(lock, &st) == 0 && time(NULL) - st.st_mtime > LOCK_STALE_S)
			unlink(lock);
		nanosleep(&(struct timespec){ .tv_nsec = LOCK_PAUSE_MS * 1000000 }, NULL);
	}
	return false;
}

/* "From " line in front, every line that looks like one quoted, an empty line behind. */
static void
as_mbox(struct sq_str message, int64_t when_ms, struct sq_buf *out)
{
	time_t t = (time_t)(when_ms / 1000);
	char date[64];
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(date, sizeof(date), "%a %b %e %H:%M:%S %Y", &tm);
	sq_buf_addf(out, "From MAILER-DAEMON %s\n", date);
	for (size_t at = 0; at < message.n;) {
		const char *line = message.p + at, *lf = memchr(line, '\n', message.n - at);
		size_t n = lf ? (size_t)(lf - line) + 1 : message.n - at, k = 0;

		while (k < n && line[k] == '>')
			k++;
		if (n - k >= 5 && memcmp(line + k, "From ", 5) == 0)
			sq_buf_addc(out, '>');
		sq_buf_add(out, line, n);
		at += n;
	}
	sq_buf_adds(out, message.n > 0 && message.p[message.n - 1] == '\n' ? "\n" : "\n\n");
}

enum sq_err
sq_mbox_deliver(const char *path, int64_t uid, struct sq_str message, int64_t when_ms, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(2 * message.n + 4096);
	SQ_CLEANUP(sq_freep) char *lock = sq_path_suffix(path, ".lock");
	SQ_CLEANUP(sq_closep) int fd = -1;
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct sq_str v;
	off_t was;
	enum sq_err e;

	as_mbox(message, when_ms, &text);
	if (!lock || (e = sq_buf_view(&text, &v, err)) != SQ_OK)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (!dot_lock(lock))
		return sq_error_set(err, SQ_EBUSY, "the mailbox '%s' is locked", path);
	e = open_mailbox(path, (uid_t)uid, &fd, err);
	if (e == SQ_OK && fcntl(fd, F_OFD_SETLK, &whole) < 0)
		e = sq_error_errno(err, SQ_EBUSY, "cannot lock the mailbox '%s'", path);
	if (e == SQ_OK) {
		was = lseek(fd, 0, SEEK_END);
		if ((e = sq_write_all(fd, v.p, v.n, err)) == SQ_OK && fsync(fd) < 0)
			e = sq_error_errno(err, SQ_EIO, "cannot write the mailbox '%s'", path);
		if (e != SQ_OK && was >= 0)
			(void)!ftruncate(fd, was);
	}
	unlink(lock);
	return e;
}
