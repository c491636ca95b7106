/*
 * A folder of an IMAP server: sizes and envelopes of all messages, structure
 * of those that share a Message-ID. Content is never fetched, so what is
 * partial is told only where a more complete copy is in the folder. A move is
 * one UID MOVE.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dedup.h"

enum { TIMEOUT_MS = 300000, FETCH_STEP = 100, PORT_IMAP = 143, PORT_IMAPS = 993 };

struct remote {
	struct sq_conn *conn;
	struct sq_imap imap;
	char *user, *url, *folder;
	uint32_t messages;
	struct copies *out;       /* of the FETCH under way */
	struct copy *looking;
};

/* ---- the URL ---- */

static int
hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* %XX taken back. NULL: a broken one, or a control character. */
static char *
unescape(struct sq_str s)
{
	char *out = malloc(s.n + 1);
	size_t n = 0;

	for (size_t k = 0; out && k < s.n; k++) {
		int c = (unsigned char)s.p[k];

		if (c == '%') {
			int a = k + 2 < s.n ? hex(s.p[k + 1]) : -1, b = k + 2 < s.n ? hex(s.p[k + 2]) : -1;

			c = a < 0 || b < 0 ? 0 : a * 16 + b;
			k += 2;
		}
		if (c < ' ' || c == 127) {
			free(out);
			return NULL;
		}
		out[n++] = (char)c;
	}
	if (out)
		out[n] = '\0';
	return out;
}

static enum sq_err
parse_url(struct mailbox *m, struct sq_error *err)
{
	bool tls = sq_str_casestarts(sq_str(m->name), SQ_STR("imaps://"));
	const char *authority = m->name + (tls ? 8 : 7), *slash = strchr(authority, '/'), *at = NULL;
	const char *end = slash ? slash : authority + strlen(authority), *colon;
	struct sq_buf url = SQ_BUF_INIT(1024);
	struct remote *r = m->remote;

	for (const char *p = authority; p < end; p++)
		if (*p == '@')
			at = p;
	if (!at || at == authority)
		return sq_error_set(err, SQ_EINVAL, "'%s' names no user: want %s://USER@HOST/FOLDER", m->name, tls ? "imaps" : "imap");
	if (memchr(authority, ':', (size_t)(at - authority)))
		return sq_error_set(err, SQ_EINVAL, "a password does not belong in a URL, where every user of this machine can read it: use --password-command or --password-file");
	if (end - at <= 1)
		return sq_error_set(err, SQ_EINVAL, "'%s' names no host", m->name);
	r->user = unescape((struct sq_str){ authority, (size_t)(at - authority) });
	r->folder = slash && slash[1] ? unescape(sq_str(slash + 1)) : sq_str_dup(SQ_STR("INBOX"));
	if (!r->user || !r->folder)
		return sq_error_set(err, SQ_EINVAL, "'%s' has a %% without two hexadecimal digits, or a control character", m->name);
	for (const char *p = r->folder; *p; p++)
		if ((unsigned char)*p > 126)
			return sq_error_set(err, SQ_EINVAL, "write the folder '%s' as the server does, in modified UTF-7 ('Entw&APw-rfe')", r->folder);
	colon = memrchr(at, ':', (size_t)(end - at));
	if (colon && memchr(colon, ']', (size_t)(end - colon)))
		colon = NULL;
	sq_buf_addf(&url, "%s://%.*s", tls ? "imaps" : "imap", (int)(end - at - 1), at + 1);
	if (!colon)
		sq_buf_addf(&url, ":%d", tls ? PORT_IMAPS : PORT_IMAP);
	return sq_buf_take(&url, &r->url, err);
}

/* ---- the password ---- */

static enum sq_err
password_from_file(const char *path, struct sq_buf *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return sq_error_errno(err, SQ_EPERM, "cannot read the password file '%s'", path);
	if (!S_ISREG(st.st_mode) || (st.st_mode & 077))
		return sq_error_set(err, SQ_EPERM, "others may read the password file '%s', or it is no file: chmod 600 '%s'", path, path);
	return sq_buf_read_fd(out, fd, err);
}

/* In the foreground, so that it may ask on the terminal. */
static enum sq_err
password_from_command(const char *command, struct sq_buf *out, struct sq_error *err)
{
	FILE *f = popen(command, "re");
	enum sq_err e;
	int status;

	if (!f)
		return sq_error_errno(err, SQ_EIO, "cannot run the password command");
	e = sq_buf_read_fd(out, fileno(f), err);
	status = pclose(f);
	if (e != SQ_OK)
		return sq_error_wrap(err, e, "the password command");
	if (status != 0)
		return sq_error_set(err, SQ_EPERM, "the password command '%s' failed", command);
	return SQ_OK;
}

static enum sq_err
password(const struct options *o, struct sq_buf *out, struct sq_error *err)
{
	enum sq_err e;

	if (!o->password_command == !o->password_file)
		return sq_error_set(err, SQ_EINVAL, "an IMAP folder needs one of --password-command and --password-file");
	(void)sq_buf_reserve(out, out->max); /* so that no copy is left where it grew */
	e = o->password_command ? password_from_command(o->password_command, out, err) : password_from_file(o->password_file, out, err);
	while (e == SQ_OK && out->n > 0 && (out->p[out->n - 1] == '\n' || out->p[out->n - 1] == '\r'))
		out->p[--out->n] = '\0';
	return e != SQ_OK || out->n > 0 ? e : sq_error_set(err, SQ_EPERM, "the password is empty");
}

/* ---- the folder ---- */

static void
note(void *arg, const struct sq_imap_message *f)
{
	struct remote *r = arg;
	struct sq_buf where = SQ_BUF_INIT(32);
	struct copy *c = copies_add(r->out);

	sq_buf_addf(&where, "uid %u", f->uid);
	if (sq_buf_take(&where, &c->where, NULL) != SQ_OK || (f->message_id[0] && !(c->id = sq_str_dup(sq_str(f->message_id)))))
		sq_bug("out of memory for a message");
	c->uid = f->uid;
	c->size = f->size;
}

static enum sq_err
remote_list(struct mailbox *m, struct copies *out, struct sq_error *err)
{
	struct remote *r = m->remote;
	enum sq_err e = SQ_OK;

	r->out = out;
	for (uint32_t first = 1; e == SQ_OK && first <= r->messages && first > 0; first += FETCH_STEP) {
		uint32_t last = r->messages - first < FETCH_STEP ? r->messages : first + FETCH_STEP - 1;

		e = sq_imap_fetch(&r->imap, first, last, 0, TIMEOUT_MS, note, r, err);
	}
	return e;
}

static void
note_structure(void *arg, const struct sq_imap_message *f)
{
	struct remote *r = arg;

	if (f->uid != r->looking->uid)
		return;
	free(r->looking->facts);
	if (!(r->looking->facts = malloc(sizeof(*f))))
		sq_bug("out of memory for a structure");
	*r->looking->facts = *f;
}

static enum sq_err
remote_look(struct mailbox *m, struct copy *c, struct sq_error *err)
{
	m->remote->looking = c;
	return sq_imap_fetch(&m->remote->imap, 0, 0, c->uid, TIMEOUT_MS, note_structure, m->remote, err);
}

static enum sq_err
remote_compare(struct mailbox *m, const struct copy *a, const struct copy *b, enum order *out, struct sq_error *err)
{
	(void)m, (void)err;
	/* Without facts it went away while we looked. */
	*out = a->facts && b->facts ? compare_structure(a->facts, b->facts) : ORDER_OTHER;
	return SQ_OK;
}

static enum sq_err
remote_trash(struct mailbox *m, struct copies *all, struct sq_error *err)
{
	struct remote *r = m->remote;
	char folder[SQ_IMAP_FOLDER_MAX];
	enum sq_err e = SQ_OK;

	if (!m->options->trash_folder && (e = sq_imap_find_trash(&r->imap, TIMEOUT_MS, folder, err)) != SQ_OK)
		return e;
	m->trash = sq_str_dup(sq_str(m->options->trash_folder ? m->options->trash_folder : folder));
	if (!m->trash)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (strcmp(m->trash, r->folder) == 0)
		return sq_error_set(err, SQ_EINVAL, "'%s' is the Trash itself", m->name);
	for (size_t k = 0; e == SQ_OK && k < all->n; k++) {
		struct copy *c = &all->v[k], *better = &all->v[c->of];
		bool less = false;

		if (!c->less)
			continue;
		/* Both as the server has them now. */
		free(better->facts);
		better->facts = NULL;
		if ((e = remote_look(m, better, err)) == SQ_OK && (e = still_less(m, all, c, &less, err)) == SQ_OK && less &&
		    (e = sq_imap_move(&r->imap, c->uid, sq_str(m->trash), TIMEOUT_MS, err)) == SQ_OK)
			c->trashed = true;
	}
	return e;
}

static void
remote_close(struct mailbox *m)
{
	struct remote *r = m->remote;

	if (!r)
		return;
	if (r->conn)
		sq_imap_logout(&r->imap);
	sq_imap_fini(&r->imap);
	sq_conn_close(r->conn);
	free(r->user);
	free(r->url);
	free(r->folder);
	free(r);
	m->remote = NULL;
}

static const struct mailbox_ops remote = { remote_list, remote_look, remote_compare, remote_trash, remote_close };

static enum sq_err
log_in(struct mailbox *m, struct sq_error *err)
{
	static struct sq_ehlo ehlo; /* large */
	static char words[SQ_REPLY_TEXT_MAX];
	struct sq_buf secret = SQ_BUF_INIT(SQ_SECRET_MAX);
	struct remote *r = m->remote;
	struct sq_job job = { .kind = SQ_JOB_EVIDENCE, .url = sq_str(r->url), .user = sq_str(r->user), .ca_file = sq_str(m->options->ca_file) };
	struct sq_ready ready;
	struct sq_end end;
	enum sq_err e = password(m->options, &secret, err);

	if (e == SQ_OK && !sq_conn_open(&job, (struct sq_str){ secret.p, secret.n }, NULL, NULL, &r->conn, &ready, &ehlo, &end, words))
		e = sq_error_set(err, end.outcome == SQ_OUTCOME_LOGIN ? SQ_EPERM : SQ_EIO, "cannot log in to '%s': %.*s", r->url, (int)end.reply.text.n, end.reply.text.p);
	sq_buf_wipe(&secret);
	return e;
}

enum sq_err
remote_open(struct mailbox *m, struct sq_error *err)
{
	enum sq_err e;

	if (!(m->remote = calloc(1, sizeof(*m->remote))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	m->ops = &remote;
	if ((e = parse_url(m, err)) != SQ_OK || (e = log_in(m, err)) != SQ_OK)
		return e;
	sq_imap_init(&m->remote->imap, m->remote->conn, NULL, NULL);
	return sq_imap_open_folder(&m->remote->imap, sq_str(m->remote->folder), m->options->trash, TIMEOUT_MS, &m->remote->messages, err);
}
