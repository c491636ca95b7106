/*
 * Errors: something here went wrong (a full disk, a bad setting). What a
 * server answered is not an error but data: see outcome.h. A mistake in the
 * program is sq_bug().
 *
 * A function that can fail returns enum sq_err and takes a last argument
 * `struct sq_error *err`, which is untouched on success and may be NULL.
 * Wording: lower case, no full stop, the problem first, the subject in single
 * quotes: "cannot open '/x/y': permission denied".
 */
#ifndef SENDQ_ERROR_H
#define SENDQ_ERROR_H

#include <sendq/base.h>

enum sq_err {
	SQ_OK = 0,
	SQ_ENOMEM,   /* out of memory */
	SQ_EIO,      /* the system or the store failed; try later */
	SQ_EBUSY,    /* somebody else holds it; try later */
	SQ_ENOSPC,   /* disk full, or a limit of the queue reached; try later */
	SQ_ENOENT,   /* there is no such thing */
	SQ_EAMBIGUOUS, /* a prefix fits more than one id */
	SQ_EINVAL,   /* bad input or setting */
	SQ_ELIMIT,   /* larger than a fixed limit allows */
	SQ_EPERM,    /* not allowed: owner, mode, or a state that forbids it */
	SQ_EPROTO,   /* the other side broke the protocol */
	SQ_EEOF,     /* the other side closed */
	SQ_ETIMEOUT, /* took too long */
	SQ_ECORRUPT, /* the database is damaged */
	SQ_ENEWER,   /* the database was written by a newer sendq */
	SQ_ECOMMIT,  /* the disk failed inside the commit itself: it may or may not be stored */
};

struct sq_error {
	enum sq_err code;
	int sys;         /* errno or extended SQLite code underneath, else 0 */
	char text[512];  /* one line, no newline; never truncated silently: ends in "..." if cut */
};

/* Set *err (when not NULL) and return `code`. */
enum sq_err sq_error_set(struct sq_error *err, enum sq_err code, const char *fmt, ...) SQ_PRINTF(3, 4);

/* The same with ": <strerror(errno)>" behind the text; ENOSPC and EDQUOT give SQ_ENOSPC, ENOMEM SQ_ENOMEM. */
enum sq_err sq_error_errno(struct sq_error *err, enum sq_err code, const char *fmt, ...) SQ_PRINTF(3, 4);

/* Put "<fmt>: " in front of the text that *err already has; returns `code`. */
enum sq_err sq_error_wrap(struct sq_error *err, enum sq_err code, const char *fmt, ...) SQ_PRINTF(3, 4);

/* "ENOSPC"-like stable name of a code, for JSON and tests: "nospc", "busy", … */
const char *sq_err_name(enum sq_err code);

/* The exit status of sysexits.h which a sendmail-compatible caller expects for a code. */
int sq_err_sysexit(enum sq_err code);

#endif
