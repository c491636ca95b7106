/*
 * Asking a service of this machine to run a status command (system mode): the
 * words go over, what the command prints and its exit status come back. The
 * other end knows who asks from the kernel.
 *
 *   request  u32 length (big-endian), then words, each with a NUL behind it
 *   answer   frames: 'o' or 'e' (stdout, stderr), u32 length, octets;
 *            at the end 'x', u32 4, u32 exit status
 */
#ifndef SENDQ_CONTROL_H
#define SENDQ_CONTROL_H

#include <sendq/buf.h>

enum { SQ_CONTROL_REQUEST_MAX = 64 * 1024, SQ_CONTROL_WORDS_MAX = 1024, SQ_CONTROL_FRAME_MAX = 64 * 1024 };

/*
 * Connect to a stream socket; waits up to `patience_ms` while nobody listens.
 * SQ_ETIMEOUT: nobody did; SQ_EPERM: this user may not.
 */
SQ_MUST_USE enum sq_err sq_socket_connect(const char *path, int64_t patience_ms, int *out_fd, struct sq_error *err);

/* Bind and listen; removes what is left of an earlier one. Everybody may connect (0666). */
SQ_MUST_USE enum sq_err sq_socket_listen(const char *path, int *out_fd, struct sq_error *err);

/* Have the words carried out; what comes back goes to stdout and stderr. *status: of the command. */
SQ_MUST_USE enum sq_err sq_control_call(const char *path, const char *const *words, size_t n, int *status, struct sq_error *err);

/*
 * The other end. Read one request within `patience_ms`: words point into
 * `room` (SQ_CONTROL_REQUEST_MAX octets). SQ_EPROTO, SQ_EEOF, SQ_ETIMEOUT.
 */
SQ_MUST_USE enum sq_err sq_control_read(int fd, int64_t patience_ms, char *room, char **words, size_t *n, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_control_frame(int fd, char kind, const void *p, size_t n, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_control_end(int fd, int status, struct sq_error *err);

#endif
