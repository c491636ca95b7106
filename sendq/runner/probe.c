/*
 * One connection of one agent, tried in the foreground for a person who looks.
 * It uses nothing of the loop: no queue, no lock, no link state.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/probe.h>

#include "inside.h"

enum { BEHIND_MS = 90000, LAST_WORDS_MS = 8000, LOOK_MS = 100, ASK_NUMBER = 1 };

struct probe {
	const struct sq_probe *p;
	struct sq_probe_answer *out;
	struct sq_stream stream;
	bool over;
	int64_t deadline;
};

/* ---- the secret ---- */

static enum sq_err
secret_of_command(const char *shell, bool interactive, struct sq_buf *out, struct sq_error *err)
{
	SQ_CLEANUP(command_fini) struct command c = { .out = -1, .err = -1 };
	enum sq_err e = command_start(&c, shell, NULL, (struct sq_str){ 0 }, interactive, err);

	if (e != SQ_OK)
		return e;
	while (!command_events(&c)) {
		struct pollfd fds[2] = { { .fd = c.out, .events = POLLIN }, { .fd = c.err, .events = POLLIN } };

		(void)poll(fds, 2, LOOK_MS);
	}
	if (c.text.failed)
		return sq_error_set(err, SQ_EIO, "%.400s", c.words.n > 0 ? c.words.p : "the command failed");
	secret_trim(&c.text);
	sq_buf_add(out, c.text.p, c.text.n);
	return SQ_OK;
}

static enum sq_err
token_now(const struct sq_route *route, bool interactive, struct sq_buf *out, struct sq_error *err)
{
	SQ_CLEANUP(token_way_fini) struct token_way w = { 0 };
	SQ_CLEANUP(command_fini) struct command c = { .out = -1, .err = -1 };
	char words[SQ_REPLY_TEXT_MAX];
	uint32_t expires_s;
	struct sq_end end = { 0 };
	enum token_result t = token_begin(&w, route, interactive, &c, out, &expires_s, &end, words);

	while (t == TOKEN_WAITS) {
		struct pollfd fds[2] = { { .fd = c.out, .events = POLLIN }, { .fd = c.err, .events = POLLIN } };

		if (command_events(&c))
			t = token_go_on(&w, route, interactive, &c, out, &expires_s, &end, words);
		else
			(void)poll(fds, 2, LOOK_MS);
	}
	if (t == TOKEN_FAILED)
		return sq_error_set(err, SQ_EIO, "%.*s", (int)(end.reply.text.n < 400 ? end.reply.text.n : 400), end.reply.text.p);
	return SQ_OK;
}

enum sq_err
sq_probe_secret(const struct sq_route *route, bool interactive, struct sq_buf *out, struct sq_error *err)
{
	enum sq_err e = SQ_OK;

	(void)sq_buf_reserve(out, out->max);
	switch (route->secret_kind) {
	case SQ_SECRET_COMMAND:
	case SQ_SECRET_TOKEN_COMMAND:
		e = secret_of_command(route->secret, interactive, out, err);
		break;
	case SQ_SECRET_OAUTH:
		return token_now(route, interactive, out, err);
	case SQ_SECRET_FILE:
		e = secret_read_file(route->secret, out, err);
		secret_trim(out);
		break;
	case SQ_SECRET_CREDENTIAL:
		e = secret_read_credential(route->secret, out, err);
		secret_trim(out);
		break;
	case SQ_SECRET_LITERAL:
		sq_buf_adds(out, route->secret);
		break;
	case SQ_SECRET_NONE:
		return SQ_OK;
	}
	if (e == SQ_OK && out->n == 0)
		return sq_error_set(err, SQ_EIO, "the secret is empty");
	return e;
}

/* ---- the session ---- */

static enum sq_err
put(struct probe *pr, const struct sq_frame *f, struct sq_error *err)
{
	enum sq_err e = sq_stream_put(&pr->stream, f, err);

	return e == SQ_OK ? sq_stream_flush(&pr->stream, err) : e;
}

static enum sq_err
put_job_and_secret(struct probe *pr, struct sq_error *err)
{
	const struct sq_probe *p = pr->p;
	const struct sq_route *r = p->route;
	struct sq_frame f = { .type = SQ_FRAME_HELLO };
	enum sq_err e;

	f.u.hello.version = SQ_AGENT_VERSION;
	if ((e = put(pr, &f, err)) != SQ_OK)
		return e;
	f = (struct sq_frame){ .type = SQ_FRAME_JOB };
	f.u.job = (struct sq_job){
		.kind = p->imap ? SQ_JOB_EVIDENCE : SQ_JOB_PROBE,
		.url = sq_str(p->imap ? r->imap : r->server),
		.user = p->login ? sq_str(r->user) : (struct sq_str){ 0 },
		.auth = sq_str(r->auth ? r->auth : r->secret_kind == SQ_SECRET_TOKEN_COMMAND ? "XOAUTH2" : NULL),
		.tls = r->tls,
		.ehlo_name = sq_str(r->ehlo_name ? r->ehlo_name : p->ehlo_name),
		.proxy = sq_str(r->proxy),
		.ca_file = sq_str(r->ca_file),
		.fingerprint = sq_str(r->fingerprint),
		.client_cert = sq_str(r->client_cert),
		.client_key = sq_str(r->client_key),
		.connect_timeout_ms = (uint32_t)p->timeout_ms,
		.reply_timeout_ms = 30000,
		.tell = true,
	};
	if ((e = put(pr, &f, err)) != SQ_OK || !p->login || p->secret.n == 0)
		return e;
	f = (struct sq_frame){ .type = SQ_FRAME_SECRET };
	f.u.secret = p->secret;
	return put(pr, &f, err);
}

static void
copy(struct sq_str s, char *out, size_t size)
{
	size_t n = s.n < size - 1 ? s.n : size - 1;

	for (size_t i = 0; i < n; i++)
		out[i] = s.p[i] ? s.p[i] : '?';
	out[n] = '\0';
}

static enum sq_err
bye(struct probe *pr, struct sq_error *err)
{
	struct sq_frame f = { .type = SQ_FRAME_BYE };

	pr->deadline = sq_boot_ms() + LAST_WORDS_MS;
	return put(pr, &f, err);
}

static enum sq_err
on_ready(struct probe *pr, const struct sq_ready *r, struct sq_error *err)
{
	struct sq_frame f = { .type = SQ_FRAME_ASK, .txn = ASK_NUMBER };

	pr->out->ready = true;
	copy(r->address, pr->out->address, sizeof(pr->out->address));
	copy(r->tls, pr->out->tls, sizeof(pr->out->tls));
	copy(r->ehlo, pr->out->ehlo, sizeof(pr->out->ehlo));
	pr->out->caps = r->caps;
	pr->out->size_limit = r->size_limit;
	pr->out->setup_ms = r->setup_ms;
	pr->deadline = sq_boot_ms() + BEHIND_MS;
	if (!pr->p->imap || !pr->p->login)
		return bye(pr, err);
	f.u.ask.message_id = sq_str(pr->p->message_id);
	return put(pr, &f, err);
}

static enum sq_err
on_end(struct probe *pr, const struct sq_end *end)
{
	size_t n;

	pr->over = true;
	if (pr->out->ready && pr->out->asked == pr->p->imap && end->outcome == SQ_OUTCOME_ACCEPTED)
		return SQ_OK;
	pr->out->outcome = end->outcome;
	pr->out->phase = end->phase;
	pr->out->code = end->reply.code;
	snprintf(pr->out->words, sizeof(pr->out->words), "%s%s", end->reply.enhanced, end->reply.enhanced[0] ? " " : "");
	n = strlen(pr->out->words);
	copy(end->reply.text, pr->out->words + n, sizeof(pr->out->words) - n);
	return SQ_OK;
}

static enum sq_err
on_frame(struct probe *pr, const struct sq_frame *f, struct sq_error *err)
{
	const struct sq_probe *p = pr->p;

	if (f->type == SQ_FRAME_HELLO && f->u.hello.version == SQ_AGENT_VERSION)
		return SQ_OK;
	if (f->type == SQ_FRAME_STAGE && !pr->out->ready) {
		if (p->stage)
			p->stage(p->arg, &f->u.stage);
		return SQ_OK;
	}
	if (f->type == SQ_FRAME_CERTIFICATE && !pr->out->ready) {
		if (p->certificate)
			p->certificate(p->arg, &f->u.certificate);
		return SQ_OK;
	}
	if (f->type == SQ_FRAME_READY && !pr->out->ready)
		return on_ready(pr, &f->u.ready, err);
	if (f->type == SQ_FRAME_EVIDENCE && pr->out->ready && p->imap && !pr->out->asked && f->txn == ASK_NUMBER) {
		pr->out->asked = true;
		pr->out->kind = f->u.evidence.kind;
		copy(f->u.evidence.quote, pr->out->quote, sizeof(pr->out->quote));
		return bye(pr, err);
	}
	if (f->type == SQ_FRAME_LEARNED)
		return SQ_OK;
	if (f->type == SQ_FRAME_END)
		return on_end(pr, &f->u.end);
	return sq_error_set(err, SQ_EPROTO, "the delivery agent sent %s, which does not belong here", sq_frame_type_name(f->type));
}

static enum sq_err
talk(struct probe *pr, struct sq_error *err)
{
	static struct sq_frame frame; /* large; one thread */
	bool have;

	for (;;) {
		struct pollfd fd = { .fd = pr->stream.fd, .events = (short)(POLLIN | (sq_stream_pending(&pr->stream) ? POLLOUT : 0)) };
		enum sq_err filled = sq_stream_fill(&pr->stream, err), e;

		for (have = true; have && !pr->over; ) {
			if ((e = sq_stream_next(&pr->stream, &frame, &have, err)) != SQ_OK || (have && (e = on_frame(pr, &frame, err)) != SQ_OK))
				return e;
		}
		if (pr->over)
			return SQ_OK;
		if (filled != SQ_OK)
			return sq_error_set(err, SQ_EIO, "the delivery agent died");
		if (sq_boot_ms() >= pr->deadline)
			return sq_error_set(err, SQ_ETIMEOUT, "the delivery agent did not end in time");
		if (sq_stream_pending(&pr->stream) && sq_stream_flush(&pr->stream, err) != SQ_OK)
			return err->code;
		(void)poll(&fd, 1, LOOK_MS);
	}
}

enum sq_err
sq_probe(const struct sq_probe *p, struct sq_probe_answer *out, struct sq_error *err)
{
	struct probe pr = { .p = p, .out = out, .deadline = sq_boot_ms() + p->timeout_ms + BEHIND_MS };
	SQ_CLEANUP(sq_closep) int fd = -1;
	struct sq_error scratch = { 0 };
	struct sq_error *to = err ? err : &scratch;
	pid_t pid = 0;
	enum sq_err e;

	*out = (struct sq_probe_answer){ 0 };
	if ((e = helper_spawn("sendq-smtp", -1, &pid, &fd, to)) != SQ_OK)
		return e;
	sq_stream_init(&pr.stream, fd);
	e = put_job_and_secret(&pr, to);
	if (e == SQ_OK)
		e = talk(&pr, to);
	sq_stream_wipe(&pr.stream);
	sq_closep(&fd);
	if (e != SQ_OK)
		kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return e;
}
