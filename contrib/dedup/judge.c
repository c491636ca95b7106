/*
 * What each copy is. Copies of one Message-ID are compared with the most
 * complete of them, the earliest of equals; one pass finds it, a second one
 * judges. A copy whose content is not a beginning of that one's is only ever
 * listed.
 */
#include "dedup.h"

struct ref { const char *id; size_t at; };

static int
by_id(const void *a, const void *b)
{
	const struct ref *x = a, *y = b;
	int d = strcmp(x->id, y->id);

	return d ? d : (x->at > y->at) - (x->at < y->at);
}

static enum sq_err
judge_group(struct mailbox *m, struct copies *c, const struct ref *refs, size_t n, struct sq_error *err)
{
	size_t best = refs[0].at;
	enum order order;
	enum sq_err e;

	for (size_t k = 0; m->ops->look && k < n; k++)
		if ((e = m->ops->look(m, &c->v[refs[k].at], err)) != SQ_OK)
			return e;
	for (size_t k = 1; k < n; k++) {
		if ((e = m->ops->compare(m, &c->v[best], &c->v[refs[k].at], &order, err)) != SQ_OK)
			return e;
		if (order == ORDER_LESS || (order == ORDER_OTHER && c->v[best].cut && !c->v[refs[k].at].cut))
			best = refs[k].at;
	}
	for (size_t k = 0; k < n; k++) {
		struct copy *copy = &c->v[refs[k].at];

		if (refs[k].at == best)
			continue;
		if ((e = m->ops->compare(m, copy, &c->v[best], &order, err)) != SQ_OK)
			return e;
		copy->of = best;
		copy->less = order == ORDER_LESS;
		copy->kind = copy->cut || copy->less ? KIND_PARTIAL : order == ORDER_SAME ? KIND_DUPLICATE : KIND_DIFFERS;
	}
	return SQ_OK;
}

enum sq_err
judge(struct mailbox *m, struct copies *c, struct sq_error *err)
{
	struct ref *refs = calloc(c->n ? c->n : 1, sizeof(*refs));
	enum sq_err e = SQ_OK;
	size_t n = 0;

	if (!refs)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (size_t k = 0; k < c->n; k++) {
		c->v[k].of = k;
		c->v[k].kind = c->v[k].cut ? KIND_PARTIAL : KIND_FIRST;
		if (c->v[k].id)
			refs[n++] = (struct ref){ c->v[k].id, k };
	}
	qsort(refs, n, sizeof(*refs), by_id);
	for (size_t k = 0, end; e == SQ_OK && k < n; k = end) {
		for (end = k + 1; end < n && strcmp(refs[end].id, refs[k].id) == 0; )
			end++;
		if (end - k > 1)
			e = judge_group(m, c, refs + k, end - k, err);
	}
	free(refs);
	return e;
}

enum sq_err
still_less(struct mailbox *m, const struct copies *all, const struct copy *c, bool *out, struct sq_error *err)
{
	enum order order = ORDER_OTHER;
	enum sq_err e = m->ops->compare(m, c, &all->v[c->of], &order, err);

	*out = order == ORDER_LESS;
	return e;
}

/* ---- by sizes and structure ---- */

/* What a cut may leave of the delimiter behind a part: CRLF, two dashes, the boundary, two dashes, CRLF. */
enum { AROUND_EDGE = 8 };

/*
 * All parts of `a` but its last are b's, and from there on `b` has more by
 * more than the rest of a delimiter, which a server counts with the part that
 * stands before it: else the copy that was cut in its closing delimiter would
 * pass for the fuller one.
 */
static bool
is_less(const struct sq_imap_message *a, const struct sq_imap_message *b)
{
	uint64_t edge = a->edge > b->edge ? a->edge : b->edge, slack = edge ? edge + AROUND_EDGE : 0, rest = 0;
	const struct sq_imap_part *x, *y;
	size_t last = a->n_parts - 1;

	if (a->n_parts > b->n_parts)
		return false;
	for (size_t k = 0; k < last; k++)
		if (a->parts[k].kind != b->parts[k].kind || a->parts[k].octets != b->parts[k].octets)
			return false;
	for (size_t k = last; k < b->n_parts; k++)
		rest += b->parts[k].octets;
	x = &a->parts[last], y = &b->parts[last];
	if (rest <= x->octets + slack)
		return false;
	/* A part without content may have been cut in its header: its type says nothing. */
	return x->octets == 0 || (x->kind == y->kind && x->octets <= y->octets + slack);
}

enum order
compare_structure(const struct sq_imap_message *a, const struct sq_imap_message *b)
{
	bool same = a->n_parts == b->n_parts;

	if (!a->n_parts || !b->n_parts || a->envelope != b->envelope)
		return ORDER_OTHER;
	for (size_t k = 0; same && k < a->n_parts; k++)
		same = a->parts[k].kind == b->parts[k].kind && a->parts[k].octets == b->parts[k].octets;
	return same ? ORDER_SAME : is_less(a, b) ? ORDER_LESS : is_less(b, a) ? ORDER_MORE : ORDER_OTHER;
}
