/*
 * The embedded backend: delivery into Maildirs, <root>/<address>/{tmp,new,cur}. A delivery has the
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
#include <sendq/log.h>

struct gw_drop {
	char *tmp, *final;
	struct sq_buf text;
	bool held;             /* a CR whose LF may stand in the next piece */
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

static void
drop_freep(struct gw_drop **d)
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

static enum sq_err
drop_begin(const char *root, const char *address, const struct gw_message *m, struct gw_drop **out, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *fresh = mailbox_path(root, address, "/new");
	SQ_CLEANUP(sq_freep) char *seen = mailbox_path(root, address, "/cur");
	SQ_CLEANUP(sq_freep) char *tmp = mailbox_path(root, address, "/tmp");
	SQ_CLEANUP(drop_freep) struct gw_drop *d = calloc(1, sizeof(*d));

	if (!d)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	d->fd = -1;
	d->text = (struct sq_buf)SQ_BUF_INIT(4 << 20);
	if (!fresh || !seen || !tmp || !(d->tmp = join(tmp, m->name)) || !(d->final = join(fresh, m->name)))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	/* The name is random: only an earlier try of this message can have used it. */
	if (m->again && (is_there(fresh, m->name) || is_there(seen, m->name))) {
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
static enum sq_err
drop_write(void *ctx, const char *p, size_t n, struct sq_error *err)
{
	struct gw_drop *d = ctx;
	const char *end = p + n;
	struct sq_str view;
	enum sq_err e;

	sq_buf_clear(&d->text);
	while (p < end) {
		const char *cr = memchr(p, '\r', (size_t)(end - p));

		if (d->held && *p != '\n')
			sq_buf_addc(&d->text, '\r');
		d->held = cr != NULL;
		sq_buf_add(&d->text, p, (size_t)((cr ? cr : end) - p));
		p = cr ? cr + 1 : end;
	}
	if ((e = sq_buf_view(&d->text, &view, err)) != SQ_OK)
		return e;
	return sq_write_all(d->fd, view.p, view.n, err);
}

/* fsync, rename into new, fsync the folder. */
static enum sq_err
drop_commit(struct gw_drop *d, struct sq_error *err)
{
	if (d->held && sq_write_all(d->fd, "\r", 1, err) != SQ_OK)
		return SQ_EIO;
	gw_point();
	if (fsync(d->fd) != 0)
		return sq_error_errno(err, SQ_EIO, "cannot write '%s'", d->tmp);
	gw_point();
	if (rename(d->tmp, d->final) != 0)
		return sq_error_errno(err, SQ_EIO, "cannot deliver '%s'", d->final);
	sq_closep(&d->fd);
	d->fd = -1;
	gw_point();
	return sq_fsync_parent(d->final, err);
}

static enum sq_err
deliver_one(const char *root, const char *address, const struct gw_message *m, struct sq_error *err)
{
	SQ_CLEANUP(drop_freep) struct gw_drop *drop = NULL;
	SQ_CLEANUP(sq_buf_fini) struct sq_buf head = SQ_BUF_INIT(8192);
	struct sq_str view;
	enum sq_err e;

	if ((e = drop_begin(root, address, m, &drop, err)) != SQ_OK || !drop)
		return e;
	sq_buf_addf(&head, "Return-Path: <%s>\r\nDelivered-To: %s\r\n%s", m->env->sender, address, m->trace);
	if ((e = sq_buf_view(&head, &view, err)) != SQ_OK || (e = drop_write(drop, view.p, view.n, err)) != SQ_OK)
		return e;
	if ((e = m->read(m->source, drop_write, drop, err)) != SQ_OK)
		return e;
	return drop_commit(drop, err);
}

/* ---- as a backend */

static enum gw_step
do_auth(void *ctx, const char *mech, const char *words, char identity[GW_NAME_MAX + 1], struct gw_reply *reply)
{
	struct gw_maildir *m = ctx;

	return gw_auth_local(&m->auth, mech, words, identity, reply);
}

static bool
do_mail(void *ctx, const struct gw_envelope *env, struct gw_reply *reply)
{
	(void)ctx, (void)env;
	gw_reply_set(reply, "250 2.1.0 sender ok");
	return true;
}

static bool
do_rcpt(void *ctx, const char *address, const char *params, struct gw_reply *reply)
{
	struct gw_maildir *m = ctx;
	bool here = gw_maildir_has(m->root, address);

	(void)params;
	gw_reply_set(reply, here ? "250 2.1.5 recipient ok" : "550 5.1.1 no such mailbox here");
	return here;
}

static bool
do_deliver(void *ctx, const struct gw_message *message, struct gw_reply *reply)
{
	struct gw_maildir *m = ctx;
	struct sq_error err = { 0 };
	enum sq_err e = message->commit ? message->commit(message->source, &err) : SQ_OK;

	for (size_t i = 0; i < message->rcpts; i++) {
		if (e == SQ_OK && !message->rcpt[i].skip)
			e = deliver_one(m->root, message->rcpt[i].address, message, &err);
		if (e != SQ_OK) {
			/* Some have it, or the folder could not be synced behind the rename: the next try looks. */
			sq_log(SQ_LOG_ERROR, "undelivered name=%s error=%s text=\"%s\"", message->name, sq_err_name(e), err.text);
			gw_reply_set(reply, e == SQ_ENOSPC ? "452 4.3.1 the disk is full" : "451 4.3.0 cannot deliver at the moment");
			return false;
		}
		message->rcpt[i].done = !message->rcpt[i].skip;
	}
	gw_reply_set(reply, "250 2.0.0 delivered as %s", message->name);
	return true;
}

static void
do_nothing(void *ctx)
{
	(void)ctx;
}

void
gw_maildir_backend(struct gw_maildir *m, const struct gw_settings *s, struct gw_backend *out)
{
	*m = (struct gw_maildir){ .root = s->maildir, .auth = { .passwords = s->passwords } };
	*out = (struct gw_backend){ .ctx = m, .mechanisms = "PLAIN LOGIN", .features = GW_HAS_8BITMIME | GW_HAS_SMTPUTF8, .finds = true,
		.auth = do_auth, .mail = do_mail, .rcpt = do_rcpt, .deliver = do_deliver, .reset = do_nothing, .close = do_nothing };
}
