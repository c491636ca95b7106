/*
 * A Maildir: `cur` and `new` of one folder, in the order of their names, which
 * begin with the time of arrival. Trash is the folder .Trash of the same
 * Maildir++ tree; a move is one rename that never takes the place of a file.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

#include "dedup.h"

static char *
join(const char *a, const char *b)
{
	struct sq_buf path = SQ_BUF_INIT(16384);
	char *out = NULL;

	sq_buf_addf(&path, "%s/%s", a, b);
	if (sq_buf_take(&path, &out, NULL) != SQ_OK)
		sq_bug("out of memory for a path");
	return out;
}

static int
open_copy(const struct mailbox *m, const struct copy *c)
{
	char *path = join(m->name, c->where);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	free(path);
	return fd;
}

/* Gone between two looks: other programs rename files all the time. */
static bool
read_copy(const struct mailbox *m, struct copy *c)
{
	SQ_CLEANUP(sq_closep) int fd = open_copy(m, c);
	SQ_CLEANUP(scan_fini) struct scan s;
	char octets[65536];
	struct stat st;
	ssize_t n;

	scan_init(&s);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	while ((n = read(fd, octets, sizeof(octets))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		scan_feed(&s, octets, (size_t)n);
		c->size += (uint64_t)n;
	}
	c->cut = scan_finish(&s, &c->id, &c->body);
	return !s.bad;
}

static enum sq_err
list_part(struct mailbox *m, const char *part, struct copies *out, struct sq_error *err)
{
	char *path = join(m->name, part);
	DIR *dir = opendir(path);
	struct dirent *d;

	if (!dir) {
		enum sq_err e = sq_error_errno(err, SQ_ENOENT, "cannot read the folder '%s'", path);

		free(path);
		return e;
	}
	free(path);
	while ((errno = 0, d = readdir(dir))) {
		struct copy *c;

		if (d->d_name[0] == '.')
			continue;
		c = copies_add(out);
		c->where = join(part, d->d_name);
		if (!read_copy(m, c)) {
			free(c->where);
			free(c->id);
			out->n--;
		}
	}
	closedir(dir);
	return errno ? sq_error_errno(err, SQ_EIO, "cannot read the folder '%s/%s'", m->name, part) : SQ_OK;
}

static int
by_name(const void *a, const void *b)
{
	const struct copy *x = a, *y = b;

	return strcmp(x->where + 4, y->where + 4); /* behind "cur/", "new/" */
}

static enum sq_err
maildir_list(struct mailbox *m, struct copies *out, struct sq_error *err)
{
	enum sq_err e = list_part(m, "cur", out, err);

	if (e == SQ_OK)
		e = list_part(m, "new", out, err);
	if (e == SQ_OK && out->n > 0)
		qsort(out->v, out->n, sizeof(*out->v), by_name);
	return e;
}

static enum sq_err
maildir_compare(struct mailbox *m, const struct copy *a, const struct copy *b, enum order *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int x = open_copy(m, a);
	SQ_CLEANUP(sq_closep) int y = open_copy(m, b);

	if (x < 0 || y < 0) {
		*out = ORDER_OTHER; /* renamed meanwhile: nothing is said of it */
		return SQ_OK;
	}
	return compare_regions(x, a->body, a->size, y, b->body, b->size, out, err);
}

static enum sq_err
make_trash(struct mailbox *m, struct sq_error *err)
{
	static const char *const parts[] = { "cur", "new", "tmp" };
	enum sq_err e = SQ_OK;

	for (size_t k = 0; e == SQ_OK && k < SQ_LEN(parts); k++) {
		char *path = join(m->trash, parts[k]);

		e = sq_mkdirs(path, err);
		free(path);
	}
	return e;
}

static enum sq_err
maildir_trash(struct mailbox *m, struct copies *all, struct sq_error *err)
{
	enum sq_err e = make_trash(m, err);

	for (size_t k = 0; e == SQ_OK && k < all->n; k++) {
		struct copy *c = &all->v[k];
		char *from, *cur, *to;
		bool less = false;

		if (!c->less || (e = still_less(m, all, c, &less, err)) != SQ_OK || !less)
			continue;
		from = join(m->name, c->where);
		cur = join(m->trash, "cur");
		to = join(cur, c->where + 4);
		if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
			c->trashed = true;
			e = sq_fsync_parent(to, err);
		} else if (errno != ENOENT) {
			e = sq_error_errno(err, SQ_EIO, "cannot move '%s' to '%s'", from, cur);
		}
		free(from);
		free(cur);
		free(to);
	}
	return e;
}

static bool
is_maildir(const char *path)
{
	static const char *const parts[] = { "cur", "new", "tmp" };

	for (size_t k = 0; k < SQ_LEN(parts); k++) {
		char *p = join(path, parts[k]);
		struct stat st;
		bool there = stat(p, &st) == 0 && S_ISDIR(st.st_mode);

		free(p);
		if (!there)
			return false;
	}
	return true;
}

static void
maildir_close(struct mailbox *m)
{
	(void)m;
}

static const struct mailbox_ops maildir = { maildir_list, NULL, maildir_compare, maildir_trash, maildir_close };

/* The tree's root: this folder, or for one of its dot folders the folder above. */
static char *
root_of(const char *name)
{
	char *real = realpath(name, NULL), *slash = real ? strrchr(real, '/') : NULL;

	if (!slash || slash[1] != '.' || slash == real)
		return real;
	*slash = '\0';
	if (!is_maildir(real))
		*slash = '/';
	return real;
}

enum sq_err
maildir_open(struct mailbox *m, struct sq_error *err)
{
	char *root, *real, *trash;
	bool same;

	if (!is_maildir(m->name))
		return sq_error_set(err, SQ_EINVAL, "'%s' is a folder but no Maildir: it lacks cur, new or tmp", m->name);
	m->ops = &maildir;
	if (m->options->trash_folder) {
		m->trash = sq_str_dup(sq_str(m->options->trash_folder));
	} else {
		root = root_of(m->name);
		m->trash = root ? join(root, ".Trash") : NULL;
		free(root);
	}
	if (!m->trash)
		return sq_error_errno(err, SQ_EIO, "cannot tell where '%s' stands", m->name);
	real = realpath(m->name, NULL);
	trash = realpath(m->trash, NULL);
	same = real && trash && strcmp(real, trash) == 0;
	free(real);
	free(trash);
	if (same && m->options->trash)
		return sq_error_set(err, SQ_EINVAL, "'%s' is the Trash itself", m->name);
	return SQ_OK;
}
