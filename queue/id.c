/*
 * Small texts and comparisons of the queue: ids as people type them, the
 * stored 64-bit hash of a Message-ID, equality of addresses, route numbers.
 */
#include "db.h"

#include <ctype.h>

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

void
sq_id_format(struct sq_message_id id, char out[SQ_ID_TEXT])
{
	char rev[SQ_ID_TEXT];
	size_t n = 0;
	uint64_t v = (uint64_t)id.v;

	do
		rev[n++] = digits[v & 31];
	while ((v >>= 5) != 0);
	while (n < 4)
		rev[n++] = '0';
	for (size_t i = 0; i < n; i++)
		out[i] = rev[n - 1 - i];
	out[n] = '\0';
}

/* Letters that are left out read as the digits they look like. */
static int
digit_of(char c)
{
	const char *p;

	c = (char)tolower((unsigned char)c);
	c = c == 'o' ? '0' : c == 'i' || c == 'l' ? '1' : c;
	p = c ? strchr(digits, c) : NULL;
	return p ? (int)(p - digits) : -1;
}

/* Ids that are the text itself, then those one digit longer, and so on: the first that exist decide. */
enum sq_err
sq_queue_find(struct sq_queue *q, const char *text, struct sq_message_id *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	size_t len = strlen(text), found = 0;
	int64_t low = 0, ids[4];
	char name[SQ_ID_TEXT];
	SQ_STMT(s, q, SQL_FIND);

	for (size_t i = 0; i < len; i++) {
		int d = digit_of(text[i]);

		/* Ids begin at 1000, so none has a zero in front. */
		if (d < 0 || i >= 9 || (i == 0 && d == 0))
			return sq_error_set(err, SQ_ENOENT, "no message has the id '%.64s'", text);
		low = low << 5 | d;
	}
	for (int64_t span = 1; len > 0 && len <= 9 && found < SQ_LEN(ids); span <<= 5, low <<= 5, len++) {
		enum sq_step step;

		if (len < 4)
			continue;
		sq_stmt_again(&s);
		sq_stmt_bind(&s, "iii", low, low + span - 1, q->restricted ? q->only_uid : INT64_C(-1));
		while ((step = sq_stmt_step(&s, e)) == SQ_ROW && found < SQ_LEN(ids))
			ids[found++] = sq_col(&s, 0);
		if (step == SQ_FAILED)
			return e->code;
		if (span == 1 && found == 1)
			break;
	}
	if (found == 0)
		return sq_error_set(err, SQ_ENOENT, "no message has the id '%.64s'", text);
	if (found == 1) {
		out->v = ids[0];
		return SQ_OK;
	}
	sq_error_set(err, SQ_EAMBIGUOUS, "several messages have an id that begins with '%.64s':", text);
	for (size_t i = 0; i < found && err; i++) {
		size_t n = strlen(err->text);

		sq_id_format((struct sq_message_id){ ids[i] }, name);
		snprintf(err->text + n, sizeof(err->text) - n, "%s %s", i ? "," : "", name);
	}
	return SQ_EAMBIGUOUS;
}

/* FNV-1a: only a filter, equality is always checked on the text. */
int64_t
sq_hash64(struct sq_str s)
{
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < s.n; i++)
		h = (h ^ (unsigned char)s.p[i]) * 1099511628211u;
	return (int64_t)h;
}

static size_t
local_part(struct sq_str a)
{
	const char *at = a.n ? memrchr(a.p, '@', a.n) : NULL;

	return at ? (size_t)(at - a.p) : a.n;
}

static int
fold(char c)
{
	return c >= 'A' && c <= 'Z' ? c + 32 : (unsigned char)c;
}

/* The local part as it is, the domain without case (RFC 5321 section 2.4). */
int
sq_address_cmp(struct sq_str a, struct sq_str b)
{
	size_t la = local_part(a), lb = local_part(b), n = la < lb ? la : lb;
	int d = n ? memcmp(a.p, b.p, n) : 0;

	if (d != 0 || la != lb)
		return d ? d : la < lb ? -1 : 1;
	if (a.n != b.n)
		return a.n < b.n ? -1 : 1;
	for (size_t i = la; i < a.n; i++)
		if ((d = fold(a.p[i]) - fold(b.p[i])) != 0)
			return d;
	return 0;
}

bool
sq_address_eq(struct sq_str a, struct sq_str b)
{
	return sq_address_cmp(a, b) == 0;
}

enum sq_err
sq_route_id(struct sq_queue *q, const char *name, bool make, int64_t *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;

	{
		SQ_STMT(s, q, SQL_ROUTE_FIND);
		sq_stmt_bind(&s, "z", name);
		step = sq_stmt_step(&s, e);
		if (step == SQ_ROW)
			*out = sq_col(&s, 0);
	}
	if (step == SQ_FAILED)
		return e->code;
	if (step == SQ_ROW)
		return SQ_OK;
	if (!make)
		return SQ_ENOENT;

	SQ_STMT(s, q, SQL_ROUTE_ADD);
	sq_stmt_bind(&s, "z", name);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	*out = sq_col(&s, 0);
	return sq_stmt_run(&s, err);
}
