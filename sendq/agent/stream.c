/*
 * The frame stream of agent.h, for both ends: buffers both ways over a socket,
 * and never blocks by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <sendq/agent.h>

enum {
	STREAM_IN_MAX = SQ_FRAME_HEADER + SQ_FRAME_MAX,
	STREAM_OUT_MAX = 1024 * 1024,
};

void
sq_stream_init(struct sq_stream *s, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	*s = (struct sq_stream){
		.fd = fd,
		.in = SQ_BUF_INIT(STREAM_IN_MAX),
		.out = SQ_BUF_INIT(STREAM_OUT_MAX),
	};
	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	/* All at once, so that growing never leaves a copy of a secret behind in freed memory. */
	(void)sq_buf_reserve(&s->in, STREAM_IN_MAX);
}

static void
drop_taken(struct sq_stream *s)
{
	if (s->taken > 0) {
		sq_buf_consume(&s->in, s->taken);
		s->taken = 0;
	}
}

enum sq_err
sq_stream_fill(struct sq_stream *s, struct sq_error *err)
{
	drop_taken(s);
	while (!s->eof && s->in.n < s->in.max) {
		size_t room = s->in.max - s->in.n;
		char *p = sq_buf_reserve(&s->in, room);
		ssize_t n;

		if (!p)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		n = recv(s->fd, p, room, 0);
		if (n > 0) {
			s->in.n += (size_t)n;
			s->in.p[s->in.n] = 0;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return SQ_OK;
		/* A peer that died with frames of ours unread shows as a reset, behind all that it had sent. */
		if (n == 0 || errno == ECONNRESET)
			s->eof = true;
		else
			return sq_error_errno(err, SQ_EIO, "cannot read frames");
	}
	return s->eof ? sq_error_set(err, SQ_EEOF, "the other side closed") : SQ_OK;
}

enum sq_err
sq_stream_next(struct sq_stream *s, struct sq_frame *f, bool *out_have, struct sq_error *err)
{
	size_t used;
	enum sq_err e;

	*out_have = false;
	drop_taken(s);
	e = sq_frame_decode((struct sq_str){ s->in.p, s->in.n }, f, &used, err);
	if (e != SQ_OK)
		return e; /* nothing is consumed: the next call meets the same frame */
	s->taken = used;
	*out_have = used > 0;
	return SQ_OK;
}

enum sq_err
sq_stream_put(struct sq_stream *s, const struct sq_frame *f, struct sq_error *err)
{
	return sq_frame_encode(f, &s->out, err);
}

enum sq_err
sq_stream_flush(struct sq_stream *s, struct sq_error *err)
{
	size_t done = 0;
	enum sq_err e = SQ_OK;

	while (done < s->out.n) {
		ssize_t n = send(s->fd, s->out.p + done, s->out.n - done, MSG_NOSIGNAL);

		if (n >= 0) {
			done += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			e = errno == EPIPE ? sq_error_set(err, SQ_EEOF, "the other side closed")
					   : sq_error_errno(err, SQ_EIO, "cannot send frames");
		break;
	}
	if (done > 0)
		sq_buf_consume(&s->out, done);
	return e;
}

void
sq_stream_wipe(struct sq_stream *s)
{
	sq_buf_wipe(&s->in);
	sq_buf_wipe(&s->out);
	s->taken = 0;
}
