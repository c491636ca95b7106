/*
 * One growable buffer with a hard limit given at birth. Appends after a
 * failure do nothing; every way out of the buffer reports the failure, so the
 * check cannot be missed. Nothing truncates.
 */
#ifndef SENDQ_BUF_H
#define SENDQ_BUF_H

#include <sendq/error.h>

struct sq_buf {
	char *p;       /* NULL while empty; always p[n] == 0 when not NULL */
	size_t n;      /* octets in use */
	size_t cap;
	size_t max;    /* n never exceeds it */
	bool failed;   /* limit or memory reached: contents are unusable */
};

#define SQ_BUF_INIT(limit) { .max = (limit) }

void sq_buf_fini(struct sq_buf *b);                 /* frees; keeps max; NULL-safe */
void sq_buf_wipe(struct sq_buf *b);                 /* overwrites, then frees: for secrets */
void sq_buf_clear(struct sq_buf *b);                /* empty, not failed, memory kept */
void sq_buf_add(struct sq_buf *b, const void *p, size_t n);
void sq_buf_add_str(struct sq_buf *b, struct sq_str s);
void sq_buf_adds(struct sq_buf *b, const char *s);
void sq_buf_addc(struct sq_buf *b, char c);
void sq_buf_addf(struct sq_buf *b, const char *fmt, ...) SQ_PRINTF(2, 3);
void sq_buf_consume(struct sq_buf *b, size_t n);    /* drop the first n octets; n <= b->n */

/* Room for at least n more octets at p + n (not counted until the caller adds to n), or NULL (then failed is set). */
char *sq_buf_reserve(struct sq_buf *b, size_t n);

/* View of the contents. SQ_ELIMIT or SQ_ENOMEM when an append failed. */
SQ_MUST_USE enum sq_err sq_buf_view(const struct sq_buf *b, struct sq_str *out, struct sq_error *err);

/* Hand over the memory as a C string (caller frees); "" when empty. The buffer is empty afterwards. */
SQ_MUST_USE enum sq_err sq_buf_take(struct sq_buf *b, char **out, struct sq_error *err);

/* Read fd to its end. SQ_ELIMIT when it is longer than the limit. Blocks. */
SQ_MUST_USE enum sq_err sq_buf_read_fd(struct sq_buf *b, int fd, struct sq_error *err);

#endif
