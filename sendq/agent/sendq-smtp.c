/*
 * sendq-smtp: the delivery agent. One process, one connection, no arguments.
 * It reads its job from descriptor 3, connects, gives up the file system, and
 * carries messages until it is told to stop. It opens neither the queue nor
 * the configuration, and its memory can be read by nobody.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/fault.h>
#include <sendq/io.h>

#include "carry.h"
#include "confine.h"
#include "evidence.h"

enum { JOB_WAIT_MS = 30000 };

/* The job, its strings and the secret, copied out of the stream. */
struct given {
	struct sq_job job;
	struct sq_buf words, secret;
};

static struct sq_str
keep(struct sq_buf *words, struct sq_str s)
{
	size_t at = words->n;

	sq_buf_add_str(words, s);
	sq_buf_addc(words, '\0');
	return words->failed ? (struct sq_str){ 0 } : (struct sq_str){ words->p + at, s.n };
}

static void
keep_job(struct given *g, const struct sq_job *j)
{
	struct sq_str *strings[] = { &g->job.url, &g->job.user, &g->job.auth, &g->job.ehlo_name, &g->job.proxy, &g->job.ca_file,
		&g->job.fingerprint, &g->job.client_cert, &g->job.client_key, &g->job.prefer };

	(void)sq_buf_reserve(&g->words, g->words.max); /* it never moves: views point into it */
	g->job = *j;
	for (size_t i = 0; i < SQ_LEN(strings); i++)
		*strings[i] = keep(&g->words, *strings[i]);
	if (g->words.failed)
		_exit(EX_OSERR);
}

/* True: frame taken; false: more are needed. Exits when the runner breaks the protocol. */
static bool
take(struct sq_stream *runner, struct given *g, bool *hello, bool *job)
{
	static struct sq_frame f;
	struct sq_error err;
	bool have;

	if (sq_stream_next(runner, &f, &have, &err) != SQ_OK)
		_exit(EX_PROTOCOL);
	if (!have)
		return false;
	if (f.type == SQ_FRAME_HELLO && f.u.hello.version == SQ_AGENT_VERSION) {
		*hello = true;
	} else if (f.type == SQ_FRAME_JOB && *hello && f.u.job.kind != SQ_JOB_FETCH) {
		keep_job(g, &f.u.job);
		*job = true;
	} else if (f.type == SQ_FRAME_SECRET && *job) {
		(void)sq_buf_reserve(&g->secret, f.u.secret.n + 1);
		sq_buf_add_str(&g->secret, f.u.secret);
	} else {
		_exit(EX_PROTOCOL);
	}
	return true;
}

/* Read HELLO, JOB and, where the job names a user, SECRET. */
static void
read_job(struct sq_stream *runner, struct given *g)
{
	int64_t until = sq_boot_ms() + JOB_WAIT_MS;
	bool hello = false, job = false;
	struct sq_error err;

	for (;;) {
		struct pollfd p = { .fd = runner->fd, .events = POLLIN };
		enum sq_err filled = sq_stream_fill(runner, &err);

		while (take(runner, g, &hello, &job))
			if (job && (g->job.user.n == 0 || g->secret.n > 0 || sq_str_eq(g->job.auth, SQ_STR("EXTERNAL"))))
				return;
		if (filled != SQ_OK || sq_boot_ms() >= until)
			_exit(EX_PROTOCOL);
		(void)poll(&p, 1, JOB_WAIT_MS);
	}
}

static bool
runner_gone(void *arg)
{
	struct sq_stream *s = arg;
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

/* ---- the connection as carry.h wants it ---- */

struct line { struct sq_conn *conn; struct sq_watch watch; int addresses; };

static int
line_fd(void *arg)
{
	return sq_conn_fd(((struct line *)arg)->conn);
}

static enum sq_err
line_send(void *arg, const char *p, size_t n, size_t *out, struct sq_error *err)
{
	return sq_conn_send(((struct line *)arg)->conn, p, n, out, err);
}

static enum sq_err
line_recv(void *arg, char *p, size_t n, size_t *out, struct sq_error *err)
{
	return sq_conn_recv(((struct line *)arg)->conn, p, n, out, err);
}

static void
line_arm(void *arg, bool on)
{
	sq_conn_arm(((struct line *)arg)->conn, on);
}

static bool
line_drained(void *arg)
{
	return sq_conn_drained(((struct line *)arg)->conn);
}

static int64_t
line_quiet_ms(void *arg)
{
	return sq_conn_quiet_ms(((struct line *)arg)->conn);
}

static void
line_probe(void *arg, bool patient)
{
	sq_conn_probe(((struct line *)arg)->conn, patient);
}

static int
line_addresses(void *arg)
{
	return ((struct line *)arg)->addresses;
}

static bool
line_homeless(void *arg)
{
	struct line *l = arg;

	sq_addresses_heard(l->addresses);
	return sq_conn_homeless(l->conn);
}

static bool
line_sample(void *arg, struct sq_link_sample *out)
{
	return sq_conn_sample(((struct line *)arg)->conn, out);
}

static uint64_t
line_acked(void *arg)
{
	struct line *l = arg;

	return sq_watch_acked(&l->watch, l->conn);
}

static void
line_mark(void *arg, uint64_t plain)
{
	struct line *l = arg;

	sq_watch_mark(&l->watch, l->conn, plain);
}

static void
put_and_flush(struct sq_stream *runner, const struct sq_frame *f)
{
	struct sq_error err;

	if (sq_stream_put(runner, f, &err) != SQ_OK)
		_exit(EX_SOFTWARE);
	while (sq_stream_pending(runner)) {
		struct pollfd p = { .fd = runner->fd, .events = POLLOUT };

		if (sq_stream_flush(runner, &err) != SQ_OK)
			return;
		if (sq_stream_pending(runner) && poll(&p, 1, 5000) <= 0)
			return;
	}
}

/* ---- how the connection comes about, for a JOB with `tell` ---- */

static void
tell_step(void *arg, const struct sq_stage *s)
{
	struct sq_frame f = { .type = SQ_FRAME_STAGE };

	f.u.stage = *s;
	put_and_flush(arg, &f);
}

static void
tell_certificate(void *arg, const struct sq_certificate *c)
{
	struct sq_frame f = { .type = SQ_FRAME_CERTIFICATE };

	f.u.certificate = *c;
	put_and_flush(arg, &f);
}

static void
flush_last_words(struct sq_stream *runner)
{
	struct sq_error err;

	for (int i = 0; sq_stream_pending(runner) && i < 50; i++) {
		struct pollfd p = { .fd = runner->fd, .events = POLLOUT };

		if (poll(&p, 1, 100) < 0 || sq_stream_flush(runner, &err) != SQ_OK)
			return;
	}
}

int
main(void)
{
	static char end_text[SQ_REPLY_TEXT_MAX];
	struct given g = { .words = SQ_BUF_INIT(64 * 1024), .secret = SQ_BUF_INIT(SQ_SECRET_MAX) };
	struct line line = { 0 };
	struct carry_io io = { &line, line_fd, line_send, line_recv, line_arm, line_drained, line_quiet_ms, line_probe, line_addresses, line_homeless, line_sample, line_acked, line_mark };
	struct sq_stream runner;
	struct sq_told told = { tell_step, tell_certificate, &runner };
	struct sq_frame f = { .type = SQ_FRAME_HELLO };
	struct sq_ready ready = { 0 };
	struct sq_ehlo ehlo = { 0 };
	struct sq_end end = { 0 };
	bool open;

	SQ_FAULT(agent_start);
	signal(SIGPIPE, SIG_IGN);
	confine_process();
	sq_stream_init(&runner, SQ_AGENT_FD);
	f.u.hello.version = SQ_AGENT_VERSION;
	put_and_flush(&runner, &f);
	read_job(&runner, &g);
	confine_writes();
	open = sq_conn_open_told(&g.job, (struct sq_str){ g.secret.p, g.secret.n }, runner_gone, &runner, g.job.tell ? &told : NULL,
		&line.conn, &ready, &ehlo, &end, end_text);
	sq_buf_wipe(&g.secret);
	if (!open) {
		f = (struct sq_frame){ .type = SQ_FRAME_END };
		f.u.end = end;
		put_and_flush(&runner, &f);
		_exit(EX_OK);
	}
	confine_files();
	line.addresses = sq_addresses_watch();
	SQ_FAULT(agent_connected);
	f = (struct sq_frame){ .type = SQ_FRAME_READY };
	f.u.ready = ready;
	put_and_flush(&runner, &f);
	if (g.job.kind == SQ_JOB_DELIVER ? sq_carry(&runner, &g.job, &ehlo, ready.address, &io)
	    : sq_evidence(&runner, &g.job, line.conn, runner_gone, &runner))
		flush_last_words(&runner);
	/* Armed where a terminator is under way: then this is an RST. */
	sq_conn_close(line.conn);
	_exit(EX_OK);
}
