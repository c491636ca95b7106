/*
 * Errors as values with a fixed text buffer, so that reporting "out of
 * memory" needs none. Never allocates, never prints.
 */
#include <sendq/error.h>

#include <errno.h>
#include <sysexits.h>

static void
mark_cut(struct sq_error *err, int wanted)
{
	if (wanted >= (int)sizeof(err->text))
		memcpy(err->text + sizeof(err->text) - 4, "...", 4);
}

static void
one_line(struct sq_error *err)
{
	for (char *p = err->text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
}

static SQ_PRINTF(4, 0) void
set_text(struct sq_error *err, enum sq_err code, int sys, const char *fmt, va_list ap)
{
	err->code = code;
	err->sys = sys;
	mark_cut(err, vsnprintf(err->text, sizeof(err->text), fmt, ap));
	one_line(err);
}

enum sq_err
sq_error_set(struct sq_error *err, enum sq_err code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	set_text(err, code, 0, fmt, ap);
	va_end(ap);
	return code;
}

enum sq_err
sq_error_errno(struct sq_error *err, enum sq_err code, const char *fmt, ...)
{
	int sys = errno;
	char why[128];
	size_t n;
	va_list ap;

	if (sys == ENOSPC || sys == EDQUOT)
		code = SQ_ENOSPC;
	else if (sys == ENOMEM)
		code = SQ_ENOMEM;
	if (!err)
		return code;
	va_start(ap, fmt);
	set_text(err, code, sys, fmt, ap);
	va_end(ap);
	n = strlen(err->text);
	mark_cut(err, (int)n + snprintf(err->text + n, sizeof(err->text) - n, ": %s", strerror_r(sys, why, sizeof(why))));
	errno = sys;
	return code;
}

enum sq_err
sq_error_wrap(struct sq_error *err, enum sq_err code, const char *fmt, ...)
{
	char inner[sizeof(err->text)];
	size_t n;
	va_list ap;

	if (!err)
		return code;
	memcpy(inner, err->text, sizeof(inner));
	va_start(ap, fmt);
	set_text(err, code, err->sys, fmt, ap);
	va_end(ap);
	n = strlen(err->text);
	mark_cut(err, (int)n + snprintf(err->text + n, sizeof(err->text) - n, ": %s", inner));
	return code;
}

const char *
sq_err_name(enum sq_err code)
{
	switch (code) {
	case SQ_OK: return "ok";
	case SQ_ENOMEM: return "nomem";
	case SQ_EIO: return "io";
	case SQ_EBUSY: return "busy";
	case SQ_ENOSPC: return "nospc";
	case SQ_ENOENT: return "noent";
	case SQ_EAMBIGUOUS: return "ambiguous";
	case SQ_EINVAL: return "inval";
	case SQ_ELIMIT: return "limit";
	case SQ_EPERM: return "perm";
	case SQ_EPROTO: return "proto";
	case SQ_EEOF: return "eof";
	case SQ_ETIMEOUT: return "timeout";
	case SQ_ECORRUPT: return "corrupt";
	case SQ_ENEWER: return "newer";
	case SQ_ECOMMIT: return "commit";
	}
	return "?";
}

int
sq_err_sysexit(enum sq_err code)
{
	switch (code) {
	case SQ_OK: return EX_OK;
	case SQ_ENOMEM: return EX_OSERR;
	case SQ_EIO:
	case SQ_ECOMMIT: return EX_IOERR;
	case SQ_EBUSY:
	case SQ_ENOSPC:
	case SQ_ETIMEOUT: return EX_TEMPFAIL;
	case SQ_ENOENT:
	case SQ_EAMBIGUOUS: return EX_NOINPUT;
	case SQ_EINVAL:
	case SQ_ELIMIT: return EX_DATAERR;
	case SQ_EPERM: return EX_NOPERM;
	case SQ_EPROTO:
	case SQ_EEOF: return EX_PROTOCOL;
	case SQ_ECORRUPT:
	case SQ_ENEWER: return EX_CONFIG;
	}
	return EX_SOFTWARE;
}
