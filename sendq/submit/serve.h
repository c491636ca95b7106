/* An SMTP session on two descriptors, with the queue behind it. Inside sendq/submit only. */
#ifndef SENDQ_SUBMIT_SERVE_H
#define SENDQ_SUBMIT_SERVE_H

#include <sendq/config.h>

struct serve {
	const struct sq_config *cfg;
	int in, out;           /* may be one socket */
	int stop;              /* readable when the service is to end: what is under way is finished first; -1: none */
	const char *source;    /* "bs", "socket" */
	int64_t uid;           /* whose messages they are */
	bool private;          /* XSENDQ is offered */
	int64_t open_max;      /* messages of this uid that may wait; 0: any number */
};

/*
 * Speak until the other side says QUIT, goes away, or is silent for five
 * minutes. Returns a sysexits status: EX_OK, EX_NOINPUT where the other side
 * went away in the middle of a message (nothing of that one is queued),
 * EX_IOERR where it does not read what it is told.
 */
int serve_smtp(const struct serve *how);

/* Say "554 words" instead, to somebody who may not speak here. */
int serve_refusal(int out, const char *words);

/*
 * Who is at the other end of a socket on this machine. False: it is no socket
 * (a pipe, a file, a terminal: whoever started us). *uid is -1 where the
 * other end is not to be found, or not on this machine.
 */
bool peer_of(int fd, int64_t *uid);

#endif
