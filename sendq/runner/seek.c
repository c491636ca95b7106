/*
 * Looking for servers, in the foreground: sendq-lookup asks, this hands on
 * what it finds.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <sendq/io.h>
#include <sendq/probe.h>

#include "inside.h"

enum { ONE_MS = 8000, ALL_MS = 90000, LOOK_MS = 200 };

static enum sq_err
talk(const struct sq_seek *k, struct sq_stream *s, char words[SQ_REPLY_TEXT_MAX + 1], struct sq_error *err)
{
	static struct sq_frame f; /* large; one thread */
	int64_t until = sq_boot_ms() + ALL_MS;
	bool have;

	while (sq_boot_ms() < until) {
		struct pollfd p = { .fd = s->fd, .events = POLLIN };
		enum sq_err filled = sq_stream_fill(s, err), e;

		do {
			if ((e = sq_stream_next(s, &f, &have, err)) != SQ_OK)
				return e;
			if (have && f.type == SQ_FRAME_END) {
				snprintf(words, SQ_REPLY_TEXT_MAX + 1, "%.*s", (int)f.u.end.reply.text.n, f.u.end.reply.text.n ? f.u.end.reply.text.p : "");
				return SQ_OK;
			}
			if (have && f.type != SQ_FRAME_LOOKUP)
				return sq_error_set(err, SQ_EPROTO, "sendq-lookup sent %s, which does not belong here", sq_frame_type_name(f.type));
			if (have)
				k->found(k->arg, &f.u.lookup);
		} while (have);
		if (filled != SQ_OK)
			return sq_error_set(err, SQ_EIO, "sendq-lookup died");
		(void)poll(&p, 1, LOOK_MS);
	}
	return sq_error_set(err, SQ_ETIMEOUT, "sendq-lookup did not end in time");
}

enum sq_err
sq_seek(const struct sq_seek *k, char words[SQ_REPLY_TEXT_MAX + 1], struct sq_error *err)
{
	struct sq_frame f = { .type = SQ_FRAME_HELLO };
	SQ_CLEANUP(sq_closep) int fd = -1;
	struct sq_stream s;
	struct sq_error scratch = { 0 };
	pid_t pid = 0;
	enum sq_err e = helper_spawn("sendq-lookup", -1, &pid, &fd, err);

	words[0] = '\0';
	if (e != SQ_OK)
		return e;
	sq_stream_init(&s, fd);
	f.u.hello.version = SQ_AGENT_VERSION;
	if ((e = sq_stream_put(&s, &f, err)) == SQ_OK) {
		f = (struct sq_frame){ .type = SQ_FRAME_LOOKUP_JOB };
		f.u.lookup_job = (struct sq_lookup_job){ sq_str(k->address), sq_str(k->domain), sq_str(k->autoconfig), sq_str(k->ca_file), ONE_MS };
		e = sq_stream_put(&s, &f, err);
	}
	if (e == SQ_OK)
		e = sq_stream_flush(&s, err);
	if (e == SQ_OK)
		e = talk(k, &s, words, err ? err : &scratch);
	sq_stream_wipe(&s);
	sq_closep(&fd);
	if (e != SQ_OK)
		kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return e;
}
