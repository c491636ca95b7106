/*
 * The list of copies, and which kind of mailbox a name is.
 */
#include <sys/stat.h>
#include <sysexits.h>

#include "dedup.h"

struct copy *
copies_add(struct copies *c)
{
	if (c->n == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 256;
		struct copy *v = reallocarray(c->v, cap, sizeof(*v));

		if (!v) {
			fputs("sendq-dedup: out of memory\n", stderr);
			exit(EX_OSERR);
		}
		c->v = v;
		c->cap = cap;
	}
	c->v[c->n] = (struct copy){ 0 };
	return &c->v[c->n++];
}

void
copies_fini(struct copies *c)
{
	for (size_t k = 0; k < c->n; k++) {
		free(c->v[k].where);
		free(c->v[k].id);
		free(c->v[k].facts);
	}
	free(c->v);
	*c = (struct copies){ 0 };
}

enum sq_err
mailbox_open(struct mailbox *m, const char *name, const struct options *o, struct sq_error *err)
{
	struct stat st;

	*m = (struct mailbox){ .options = o, .fd = -1, .name = sq_str_dup(sq_str(name)) };
	if (!m->name)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (sq_str_casestarts(sq_str(name), SQ_STR("imap://")) || sq_str_casestarts(sq_str(name), SQ_STR("imaps://")))
		return remote_open(m, err);
	while (strlen(m->name) > 1 && m->name[strlen(m->name) - 1] == '/')
		m->name[strlen(m->name) - 1] = '\0';
	if (stat(m->name, &st) < 0)
		return sq_error_errno(err, SQ_ENOENT, "cannot open '%s'", m->name);
	return S_ISDIR(st.st_mode) ? maildir_open(m, err) : mbox_open(m, err);
}
