/*
 * Delivery into Maildirs, <root>/<address>/{tmp,new,cur}. A delivery has the
 * same name at every try, so that one which was cut between the rename and
 * the store's commit is found and not made twice. Creates no mailbox: an
 * address without a folder does not exist.
 */
#include "gateway.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

struct gw_drop {
	char *tmp, *final;
	struct sq_buf text;
	char last;
	int fd;
};

static char *
mailbox_path(const char *root, const char *address, const char *rest)
{
	struct sq_buf b = SQ_BUF_INIT(4096);
	char *out = NULL;

	sq_buf_adds(&b, root);
	sq_buf_addc(&b, '/');
	for (; *address; address++)
		sq_buf_addc(&b, (char)(*address >= 'A' && *address <= 'Z' ? *address | 0x20 : *address));
	sq_buf_adds(&b, rest);
	if (sq_buf_take(&b, &out, NULL) != SQ_OK)
		sq_buf_fini(&b);
	return out;
}

bool
gw_maildir_has(const char *root, const char *address)
{
	SQ_CLEANUP(sq_freep) char *path = NULL;
	struct stat st;

	if (address[0] == '.' || strchr(address, '/') || !strchr(address, '@'))
		return false;
	path = mailbox_path(root, address, "/new");
	return path && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Seen or unseen, whatever flags stand behind it. */
static bool
is_there(const char *folder, const char *name)
{
	size_t n = strlen(name);
	DIR *d = opendir(folder);
	struct dirent *entry;
	bool found = false;

	while (d && !found && (entry = readdir(d)))
		found = strncmp(entry->d_name, name, n) == 0 && (entry->d_name[n] == 0 || entry->d_name[n] == ':');
	if (d)
		closedir(d);
	return found;
}

void
gw_maildir_freep(struct gw_drop **d)
{
	struct gw_drop *drop = *d;

	if (!drop)
		return;
	if (drop->fd >= 0)
		unlink(drop->tmp);
	sq_closep(&drop->fd);
	sq_buf_fini(&drop->text);
	free(drop->tmp);
	free(drop->final);
	free(drop);
	*d = NULL;
}

static char *
join(const char *folder, const char *name)
{
	struct sq_buf b = SQ_BUF_INIT(4096);
	char *out = NULL;

	sq_buf_addf(&b, "%s/%s", folder, name);
	if (sq_buf_take(&b, &out, NULL) != SQ_OK)
		sq_buf_fini(&b);
	return out;
}

enum sq_err
gw_maildir_begin(const char *root, const char *address, const char *name, struct gw_drop **out, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *fresh = mailbox_path(root, address, "/new");
	SQ_CLEANUP(sq_freep) char *seen = mailbox_path(root, address, "/cur");
	SQ_CLEANUP(sq_freep) char *tmp = mailbox_path(root, address, "/tmp");
	SQ_CLEANUP(gw_maildir_freep) struct gw_drop *d = calloc(1, sizeof(*d));

	if (!d)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	d->fd = -1;
	d->text = (struct sq_buf)SQ_BUF_INIT(4 << 20);
	if (!fresh || !seen || !tmp || !(d->tmp = join(tmp, name)) || !(d->final = join(fresh, name)))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (is_there(fresh, name) || is_there(seen, name)) {
		*out = NULL;
		return SQ_OK;
	}
	/* What a crash left under this name is nobody's: the content's lock is ours. */
	d->fd = open(d->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (d->fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", d->tmp);
	*out = d;
	d = NULL;
	return SQ_OK;
}

/* CRLF becomes LF, also where it falls between two calls. */
enum sq_err
gw_maildir_write(struct gw_drop *d, const char *p, size_t n, struct sq_error *err)
{
	struct sq_str view;
	enum sq_err e;

	sq_buf_clear(&d->text);
	for (size_t i = 0; i < n; i++) {
		if (d->last == '\r' && p[i] != '\n')
			sq_buf_addc(&d->text, '\r');
		if (p[i] != '\r')
			sq_buf_addc(&d->text, p[i]);
		d->last = p[i];
	}
	if ((e = sq_buf_view(&d->text, &view, err)) != SQ_OK)
		return e;
	return sq_write_all(d->fd, view.p, view.n, err);
}

enum sq_err
gw_maildir_commit(struct gw_drop *d, struct sq_error *err)
{
	if (d->last == '\r' && sq_write_all(d->fd, "\r", 1, err) != SQ_OK)
		return SQ_EIO;
	gw_point();
	if (fsync(d->fd) != 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", d->tmp);
	gw_point();
	if (rename(d->tmp, d->final) != 0)
		return sq_error_errno(err, SQ_EIO, "cannot deliver '%s'", d->final);
	sq_closep(&d->fd);
	gw_point();
	return sq_fsync_parent(d->final, err);
}
