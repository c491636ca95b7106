/*
 * sendq-oauth: one process for one token (agent.h). It hears and speaks on
 * descriptor 3 alone, takes no arguments and no environment of ours, reads
 * nothing but what names and certificates need, writes nothing, and its
 * memory can be read by nobody.
 */
#include <poll.h>
#include <signal.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>

#include "confine.h"
#include "oauth.h"

enum { JOB_WAIT_MS = 10000 };

static bool
runner_gone(void *arg)
{
	struct sq_stream *s = arg;
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static void
put(struct sq_stream *s, const struct sq_frame *f)
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

static void
prompt(void *arg, const struct sq_token_prompt *p)
{
	struct sq_frame f = { .type = SQ_FRAME_TOKEN_PROMPT };

	f.u.token_prompt = *p;
	put(arg, &f);
}

/* The job; its views point into the stream, which is not read any more. */
static void
read_job(struct sq_stream *s, struct sq_frame *f)
{
	int64_t until = sq_boot_ms() + JOB_WAIT_MS;
	bool hello = false, have;
	struct sq_error err;

	while (sq_boot_ms() < until) {
		struct pollfd p = { .fd = s->fd, .events = POLLIN };
		enum sq_err filled = sq_stream_fill(s, &err);

		do {
			if (sq_stream_next(s, f, &have, &err) != SQ_OK)
				_exit(EX_PROTOCOL);
			if (have && f->type == SQ_FRAME_TOKEN_JOB && hello)
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

int
main(void)
{
	static struct sq_frame f;
	static struct oauth_answer answer;
	struct sq_stream runner;
	struct oauth o = { .job = &f.u.token_job, .prompt = prompt, .gone = runner_gone, .arg = &runner };
	struct sq_frame out = { .type = SQ_FRAME_TOKEN };
	char *ca;

	signal(SIGPIPE, SIG_IGN);
	confine_process();
	sq_stream_init(&runner, SQ_AGENT_FD);
	read_job(&runner, &f);
	ca = sq_str_dup(f.u.token_job.ca_file);
	confine_to_system(ca);
	oauth_run(&o, &answer);
	out.u.token = answer.token;
	put(&runner, &out);
	sq_wipe(&answer, sizeof(answer));
	sq_stream_wipe(&runner);
	_exit(EX_OK);
}
