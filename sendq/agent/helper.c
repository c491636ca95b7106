/*
 * One job, one answer, over descriptor 3.
 */
#include "helper.h"

#include <poll.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>

enum { JOB_WAIT_MS = 10000 };

bool
helper_gone(void *arg)
{
	struct sq_stream *s = arg;
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

void
helper_put(struct sq_stream *s, const struct sq_frame *f)
{
	struct sq_error err;

	if (sq_stream_put(s, f, &err) != SQ_OK)
		_exit(EX_SOFTWARE);
	while (sq_stream_pending(s)) {
		struct pollfd p = { .fd = s->fd, .events = POLLOUT };

		if (sq_stream_flush(s, &err) != SQ_OK || (sq_stream_pending(s) && poll(&p, 1, 5000) <= 0))
			_exit(EX_OK);
	}
}

void
helper_job(struct sq_stream *s, enum sq_frame_type type, struct sq_frame *f)
{
	int64_t until = sq_boot_ms() + JOB_WAIT_MS;
	bool hello = false, have;
	struct sq_error err;

	sq_stream_init(s, SQ_AGENT_FD);
	while (sq_boot_ms() < until) {
		struct pollfd p = { .fd = s->fd, .events = POLLIN };
		enum sq_err filled = sq_stream_fill(s, &err);

		do {
			if (sq_stream_next(s, f, &have, &err) != SQ_OK)
				_exit(EX_PROTOCOL);
			if (have && f->type == type && hello)
				return;
			if (have && (f->type != SQ_FRAME_HELLO || f->u.hello.version != SQ_AGENT_VERSION))
				_exit(EX_PROTOCOL);
			hello |= have;
		} while (have);
		if (filled != SQ_OK)
			break;
		(void)poll(&p, 1, 1000);
	}
	_exit(EX_PROTOCOL);
}
