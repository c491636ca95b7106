/*
 * What strangers answer, in turn, for targets that ask them: an input parted by
 * lines "--". Of an HTTPS answer the first octet is its status: 2, 4, 5, else
 * it could not be had.
 */
#ifndef SENDQ_TESTS_FUZZ_ANSWERS_H
#define SENDQ_TESTS_FUZZ_ANSWERS_H

#include <sendq/net.h>

static struct sq_str answers_left;

static struct sq_str
answers_next(void)
{
	const char *cut = answers_left.n > 0 ? memmem(answers_left.p, answers_left.n, "\n--\n", 4) : NULL;
	struct sq_str out = { answers_left.p, cut ? (size_t)(cut - answers_left.p) : answers_left.n };

	answers_left = cut ? (struct sq_str){ cut + 4, answers_left.n - out.n - 4 } : (struct sq_str){ 0 };
	return out;
}

/* The next one, as sq_https() would give it. */
static enum sq_err
answers_https(const struct sq_https *q, int *status, struct sq_buf *answer, enum sq_outcome *outcome, struct sq_error *err)
{
	struct sq_str s = answers_next();

	*outcome = SQ_OUTCOME_UNREACHABLE;
	*status = s.n > 0 ? (s.p[0] - '0') * 100 : 0;
	if (*status != 200 && *status != 400 && *status != 500)
		return sq_error_set(err, SQ_EIO, "nobody there: %.*s", (int)(s.n < 300 ? s.n : 300), s.n ? s.p : "");
	*outcome = SQ_OUTCOME_ACCEPTED;
	if (s.n > q->max)
		s.n = q->max;
	sq_buf_add(answer, s.p + 1, s.n - 1);
	return SQ_OK;
}

#endif
