/*
 * An mbox. With --trash it is locked (lock file and fcntl) from before the
 * first look until the end. A move keeps the whole mailbox beside itself,
 * appends to the Trash file, writes the mailbox anew in place (a deliverer
 * that waits for the lock has it open), each with fsync, and takes what it
 * kept away last.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

#include "dedup.h"

enum { LINE_MAX_OCTETS = 4096, LOCK_TRIES = 50, LOCK_PAUSE_MS = 200 };

/* ---- reading ---- */

struct walk {
	struct copies *out;
	struct scan scan;
	bool open;             /* a message is under way, the last of `out` */
	bool after_empty, bad;
	uint64_t at;           /* octets before what comes next */
};

static void
end_message(struct walk *w)
{
	struct copy *c = w->out->n > 0 ? &w->out->v[w->out->n - 1] : NULL;

	if (!w->open)
		return;
	c->size = w->at - c->offset;
	c->cut = scan_finish(&w->scan, &c->id, &c->body);
	w->bad |= w->scan.bad;
	scan_fini(&w->scan);
	w->open = false;
}

static void
begin_message(struct walk *w, size_t from_line)
{
	struct sq_buf where = SQ_BUF_INIT(64);
	struct copy *c;

	end_message(w);
	c = copies_add(w->out);
	sq_buf_addf(&where, "octet %llu", (unsigned long long)w->at);
	if (sq_buf_take(&where, &c->where, NULL) != SQ_OK)
		sq_bug("out of memory for a place");
	/* The copy is what stands behind the From line; that line goes with it on a move. */
	c->offset = w->at + from_line;
	c->from_line = from_line;
	scan_init(&w->scan);
	w->open = true;
}

/* A line, or a piece of one that is longer than LINE_MAX_OCTETS; `first`: it begins the line. False: this is no mbox. */
static bool
take_piece(struct walk *w, const char *p, size_t n, bool first)
{
	struct sq_str l = { p, n };
	bool whole = p[n - 1] == '\n';

	while (l.n > 0 && (l.p[l.n - 1] == '\n' || l.p[l.n - 1] == '\r'))
		l.n--;
	if (first && whole && w->after_empty && mbox_begins(l))
		begin_message(w, n);
	else if (w->open)
		scan_feed(&w->scan, p, n);
	w->after_empty = first && whole && l.n == 0;
	w->at += n;
	return w->out->n > 0 || l.n == 0;
}

static enum sq_err
mbox_list(struct mailbox *m, struct copies *out, struct sq_error *err)
{
	struct walk w = { .out = out, .after_empty = true };
	char line[LINE_MAX_OCTETS];
	bool first = true, good = true;
	FILE *f = NULL;
	size_t n = 0;
	int fd = dup(m->fd), c;

	if (fd < 0 || lseek(fd, 0, SEEK_SET) < 0 || !(f = fdopen(fd, "r"))) {
		sq_closep(&fd);
		return sq_error_errno(err, SQ_EIO, "cannot read '%s'", m->name);
	}
	while (good && (c = getc_unlocked(f)) != EOF) {
		line[n++] = (char)c;
		if (c != '\n' && n < sizeof(line))
			continue;
		good = take_piece(&w, line, n, first);
		first = c == '\n';
		n = 0;
	}
	if (good && n > 0)
		good = take_piece(&w, line, n, first);
	end_message(&w);
	w.bad |= ferror(f) != 0;
	fclose(f);
	if (w.bad)
		return sq_error_set(err, SQ_EIO, "cannot read '%s'", m->name);
	if (!good)
		return sq_error_set(err, SQ_EINVAL, "'%s' is no mbox: it does not begin with a From line", m->name);
	return SQ_OK;
}

static enum sq_err
mbox_compare(struct mailbox *m, const struct copy *a, const struct copy *b, enum order *out, struct sq_error *err)
{
	return compare_regions(m->fd, a->offset + a->body, a->offset + a->size, m->fd, b->offset + b->body, b->offset + b->size, out, err);
}

/* ---- locking ---- */

static enum sq_err
lock_fcntl(int fd, const char *name, struct sq_error *err)
{
	/* Of the open file, not of the process: the list closes a second descriptor of it. */
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	for (int k = 0; k < LOCK_TRIES; k++) {
		struct timespec pause = { 0, LOCK_PAUSE_MS * 1000000L };

		if (fcntl(fd, F_OFD_SETLK, &l) == 0)
			return SQ_OK;
		if (errno != EACCES && errno != EAGAIN)
			return sq_error_errno(err, SQ_EIO, "cannot lock '%s'", name);
		nanosleep(&pause, NULL);
	}
	return sq_error_set(err, SQ_EBUSY, "'%s' is locked by another program", name);
}

static enum sq_err
lock_file(const char *name, char **out, struct sq_error *err)
{
	char *path = sq_path_suffix(name, ".lock");

	if (!path)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (int k = 0; k < LOCK_TRIES; k++) {
		struct timespec pause = { 0, LOCK_PAUSE_MS * 1000000L };
		int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

		if (fd >= 0) {
			close(fd);
			*out = path;
			return SQ_OK;
		}
		if (errno != EEXIST) {
			enum sq_err e = sq_error_errno(err, SQ_EPERM, "cannot make the lock file '%s'", path);

			free(path);
			return e;
		}
		nanosleep(&pause, NULL);
	}
	sq_error_set(err, SQ_EBUSY, "'%s' is locked: there is a file '%s'", name, path);
	free(path);
	return SQ_EBUSY;
}

/* A lock file that stays behind would keep mail from coming in: nothing ends us while there is one. */
static void
hold_signals(bool hold)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGPIPE);
	sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static void
unlock_file(char **path)
{
	if (*path)
		(void)unlink(*path);
	free(*path);
	*path = NULL;
}

/* ---- moving ---- */

static enum sq_err
copy_octets(int from, uint64_t at, uint64_t n, int to, struct sq_error *err)
{
	char octets[65536];

	while (n > 0) {
		ssize_t got = pread(from, octets, n < sizeof(octets) ? (size_t)n : sizeof(octets), (off_t)at);
		enum sq_err e;

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return sq_error_errno(err, SQ_EIO, "cannot read");
		if ((e = sq_write_all(to, octets, (size_t)got, err)) != SQ_OK)
			return e;
		at += (uint64_t)got;
		n -= (uint64_t)got;
	}
	return SQ_OK;
}

static uint64_t
begins(const struct copy *c)
{
	return c->offset - c->from_line;
}

static enum sq_err
append_to_trash(struct mailbox *m, const struct copies *all, const bool *moves, struct sq_error *err)
{
	SQ_CLEANUP(unlock_file) char *lock = NULL;
	SQ_CLEANUP(sq_closep) int fd = -1;
	enum sq_err e = lock_file(m->trash, &lock, err);
	struct stat st, own;

	if (e != SQ_OK)
		return e;
	fd = open(m->trash, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fstat(fd, &st) < 0 || fstat(m->fd, &own) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open '%s'", m->trash);
	if (!S_ISREG(st.st_mode))
		return sq_error_set(err, SQ_EINVAL, "'%s' is no file", m->trash);
	if ((e = lock_fcntl(fd, m->trash, err)) != SQ_OK)
		return e;
	for (size_t k = 0; e == SQ_OK && k < all->n; k++)
		if (moves[k] && (e = copy_octets(m->fd, begins(&all->v[k]), all->v[k].offset + all->v[k].size - begins(&all->v[k]), fd, err)) == SQ_OK)
			e = sq_write_all(fd, "\n", 1, err); /* an empty line stands before the next From line, whatever the message ends with */
	if (e == SQ_OK && fsync(fd) < 0)
		e = sq_error_errno(err, SQ_EIO, "cannot write '%s'", m->trash);
	if (e == SQ_OK)
		e = sq_fsync_parent(m->trash, err);
	if (e != SQ_OK && ftruncate(fd, st.st_size) < 0)
		return sq_error_wrap(err, e, "'%s' holds a beginning of what was to be moved", m->trash);
	return e == SQ_OK ? e : sq_error_wrap(err, e, "nothing was moved");
}

/* The mailbox without what moved, written over itself while `kept` has all of it. */
static enum sq_err
write_anew(struct mailbox *m, const struct copies *all, const bool *moves, int kept, uint64_t size, struct sq_error *err)
{
	uint64_t from = 0;
	enum sq_err e = SQ_OK;
	off_t end;

	if (lseek(m->fd, 0, SEEK_SET) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", m->name);
	for (size_t k = 0; e == SQ_OK && k < all->n; k++) {
		if (!moves[k])
			continue;
		e = copy_octets(kept, from, begins(&all->v[k]) - from, m->fd, err);
		from = all->v[k].offset + all->v[k].size;
	}
	if (e == SQ_OK)
		e = copy_octets(kept, from, size - from, m->fd, err);
	if (e != SQ_OK)
		return e;
	if ((end = lseek(m->fd, 0, SEEK_CUR)) < 0 || ftruncate(m->fd, end) < 0 || fsync(m->fd) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", m->name);
	return SQ_OK;
}

/* The whole mailbox into a file beside it, *out its descriptor and *size its octets. */
static enum sq_err
keep_whole(struct mailbox *m, const char *path, int *out, uint64_t *size, struct sq_error *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;
	enum sq_err e;

	if (fd < 0 && errno == EEXIST)
		return sq_error_set(err, SQ_EPERM, "an earlier run was ended while it wrote '%s': the mailbox as it was is in '%s'; put it back or take it away", m->name, path);
	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot make '%s'", path);
	*out = fd;
	e = fstat(m->fd, &st) < 0 ? sq_error_errno(err, SQ_EIO, "cannot read '%s'", m->name) : copy_octets(m->fd, 0, (uint64_t)st.st_size, fd, err);
	if (e == SQ_OK && fsync(fd) < 0)
		e = sq_error_errno(err, SQ_EIO, "cannot write '%s'", path);
	if (e == SQ_OK)
		e = sq_fsync_parent(path, err);
	if (e != SQ_OK)
		(void)unlink(path);
	else
		*size = (uint64_t)st.st_size;
	return e;
}

static enum sq_err
move(struct mailbox *m, const struct copies *all, const bool *moves, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(m->name, ".sendq-dedup");
	SQ_CLEANUP(sq_closep) int kept = -1;
	uint64_t size = 0;
	enum sq_err e;

	if (!path)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = keep_whole(m, path, &kept, &size, err)) != SQ_OK)
		return e;
	if ((e = append_to_trash(m, all, moves, err)) != SQ_OK) {
		(void)unlink(path);
		return e;
	}
	if ((e = write_anew(m, all, moves, kept, size, err)) != SQ_OK)
		return sq_error_wrap(err, e, "the mailbox as it was is in '%s'", path);
	if (unlink(path) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot take '%s' away", path);
	return SQ_OK;
}

static enum sq_err
mbox_trash(struct mailbox *m, struct copies *all, struct sq_error *err)
{
	bool *moves = calloc(all->n ? all->n : 1, sizeof(*moves)), any = false;
	enum sq_err e = moves ? SQ_OK : sq_error_set(err, SQ_ENOMEM, "out of memory");

	for (size_t k = 0; e == SQ_OK && k < all->n; k++)
		if (all->v[k].less && (e = still_less(m, all, &all->v[k], &moves[k], err)) == SQ_OK)
			any |= moves[k];
	if (e == SQ_OK && any)
		e = move(m, all, moves, err);
	for (size_t k = 0; e == SQ_OK && k < all->n; k++)
		all->v[k].trashed = moves[k];
	free(moves);
	return e;
}

static void
mbox_close(struct mailbox *m)
{
	sq_closep(&m->fd);
	unlock_file(&m->lock);
	if (m->options->trash)
		hold_signals(false);
}

static const struct mailbox_ops mbox = { mbox_list, NULL, mbox_compare, mbox_trash, mbox_close };

enum sq_err
mbox_open(struct mailbox *m, struct sq_error *err)
{
	const char *slash = strrchr(m->name, '/');
	struct sq_buf trash = SQ_BUF_INIT(16384);
	struct stat a, b;
	enum sq_err e;

	m->ops = &mbox;
	if (m->options->trash_folder)
		sq_buf_adds(&trash, m->options->trash_folder);
	else
		sq_buf_addf(&trash, "%.*sTrash", slash ? (int)(slash + 1 - m->name) : 0, m->name);
	if ((e = sq_buf_take(&trash, &m->trash, err)) != SQ_OK)
		return e;
	if (m->options->trash)
		hold_signals(true);
	if (m->options->trash && (e = lock_file(m->name, &m->lock, err)) != SQ_OK)
		return e;
	m->fd = open(m->name, (m->options->trash ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (m->fd < 0 || fstat(m->fd, &a) < 0)
		return sq_error_errno(err, SQ_ENOENT, "cannot open '%s'", m->name);
	if (!S_ISREG(a.st_mode))
		return sq_error_set(err, SQ_EINVAL, "'%s' is neither a file nor a folder", m->name);
	if (!m->options->trash)
		return SQ_OK;
	if (stat(m->trash, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return sq_error_set(err, SQ_EINVAL, "'%s' is the Trash itself", m->name);
	return lock_fcntl(m->fd, m->name, err);
}
