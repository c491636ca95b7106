/*
 * `sendq settle --from-mail`: a delivery report on standard input settles
 * what it is about. Made for mail filters: whatever the message is, reading
 * it is success; only trouble on this machine is none.
 */
#include <errno.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/bounce.h>

#include "status.h"

enum { MESSAGES_MAX = 16, REQUESTS_MAX = 1000 };

/* All of it is read, so that who writes gets no broken pipe; the beginning is kept. */
static enum sq_err
read_mail(struct cli *c, struct sq_buf *mail)
{
	char octets[65536];

	for (;;) {
		ssize_t n = read(STDIN_FILENO, octets, sizeof(octets));
		size_t room = mail->max - mail->n;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sq_error_errno(&c->err, SQ_EIO, "cannot read the message");
		if (n == 0)
			return SQ_OK;
		sq_buf_add(mail, octets, (size_t)n < room ? (size_t)n : room);
	}
}

struct about { struct sq_message_id id[MESSAGES_MAX]; int epoch[MESSAGES_MAX]; size_t n; };

static void
note(void *arg, struct sq_message_id id, int epoch)
{
	struct about *a = arg;

	for (size_t i = 0; i < a->n; i++)
		if (a->id[i].v == id.v)
			return;
	if (a->n == MESSAGES_MAX)
		return;
	a->id[a->n] = id;
	a->epoch[a->n++] = epoch;
}

static enum sq_err
find(struct cli *c, const struct sq_bounce *b, struct about *a)
{
	struct sq_str none = { 0 };
	enum sq_err e = sq_queue_named(c->q, sq_str(b->envid), none, note, a, &c->err);

	for (size_t i = 0; e == SQ_OK && a->n == 0 && i < b->n_message_ids; i++)
		e = sq_queue_named(c->q, none, sq_str(b->message_ids[i]), note, a, &c->err);
	return e;
}

/* The recipient as the message has it: reports name what the sender wrote, or what became of it. */
static const char *
as_queued(const struct sq_message *m, const struct sq_bounce_recipient *r)
{
	const char *names[] = { r->original, r->final };

	for (size_t k = 0; k < SQ_LEN(names); k++)
		for (size_t i = 0; names[k][0] && i < m->n_recipients; i++)
			if (sq_str_caseeq(sq_str(m->recipients[i].address), sq_str(names[k])))
				return m->recipients[i].address;
	return NULL;
}

static void
fill(struct sq_request *req, const struct sq_bounce *b, const struct sq_bounce_recipient *r, const char *address)
{
	const char *by = b->by[0] ? b->by : "a mail server";

	snprintf(req->address, sizeof(req->address), "%s", address ? address : "");
	/* A failure behind an address of ours (an alias' member) is no failure of ours that we could name. */
	req->kind = r && r->failed && address ? SQ_REQUEST_REPORTED_FAILED : SQ_REQUEST_REPORTED;
	if (req->kind == SQ_REQUEST_REPORTED_FAILED) {
		req->code = r->code;
		snprintf(req->enhanced, sizeof(req->enhanced), "%s", r->enhanced);
		snprintf(req->words, sizeof(req->words), "%s", r->words);
	} else {
		snprintf(req->words, sizeof(req->words), "a delivery report of %s%s%s", by, r && r->words[0] ? ": " : "", r ? r->words : "");
	}
}

/* Failures first: what is accepted settles the whole of its transaction. */
static enum sq_err
ask_about(struct cli *c, const struct sq_bounce *b, struct sq_message_id id, int epoch, int64_t *requests, size_t *n)
{
	struct sq_request *req = calloc(1, sizeof(*req));
	struct sq_message *m = NULL;
	enum sq_err e = req ? sq_queue_show(c->q, id, &m, &c->err) : sq_error_set(&c->err, SQ_ENOMEM, "out of memory");

	for (int pass = 0; e == SQ_OK && pass < 2; pass++)
		for (size_t i = 0; e == SQ_OK && i < (b->n_recipients > 0 ? b->n_recipients : 1) && *n < REQUESTS_MAX; i++) {
			const struct sq_bounce_recipient *r = i < b->n_recipients ? &b->recipients[i] : NULL;

			*req = (struct sq_request){ .message = id, .number = epoch, .asked_ms = c->now_ms };
			fill(req, b, r, r ? as_queued(m, r) : NULL);
			if ((req->kind == SQ_REQUEST_REPORTED_FAILED) == (pass == 0))
				e = sq_queue_request_put(c->q, req, &requests[(*n)++], &c->err);
		}
	sq_message_free(m);
	free(req);
	return e;
}

/* What came of it: only what was settled is worth a line. */
static int
answers(struct cli *c, const int64_t *requests, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct sq_request r;
		char id[SQ_ID_TEXT];

		if (sq_queue_request_get(c->q, requests[i], &r, &c->err) != SQ_OK)
			return cli_fail(c);
		sq_id_format(r.message, id);
		if (c->json) {
			struct json j = JSON_INIT;

			json_open(&j, NULL, '{');
			json_text(&j, "id", id);
			json_bool(&j, "ok", r.ok);
			json_text(&j, "result", r.result);
			json_close(&j, '}');
			json_line(&j);
			sq_buf_fini(&j.b);
		} else if (r.ok) {
			printf("%s: %s\n", id, r.result);
		}
	}
	return EX_OK;
}

int
settle_from_mail(struct cli *c)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf mail = SQ_BUF_INIT(SQ_BOUNCE_MAX);
	SQ_CLEANUP(sq_bounce_fini) struct sq_bounce b = { 0 };
	SQ_CLEANUP(sq_freep) int64_t *requests = calloc(REQUESTS_MAX, sizeof(*requests));
	struct about a = { .n = 0 };
	size_t n = 0;

	if (!requests)
		return sq_error_set(&c->err, SQ_ENOMEM, "out of memory"), cli_fail(c);
	if (read_mail(c, &mail) != SQ_OK || sq_bounce_read((struct sq_str){ mail.p, mail.n }, &b, &c->err) != SQ_OK)
		return cli_fail(c);
	if (!b.is_report || !c->q)
		return EX_OK;
	if (find(c, &b, &a) != SQ_OK)
		return cli_fail(c);
	for (size_t i = 0; i < a.n; i++)
		if (ask_about(c, &b, a.id[i], a.epoch[i], requests, &n) != SQ_OK)
			return cli_fail(c);
	if (n > 0 && requests_done(c, requests, n) != SQ_OK) {
		/* It is on disk as a request; whoever has the queue, or the next daemon, carries it out. */
		if (c->err.code == SQ_EBUSY)
			fprintf(stderr, "sendq: %s\n", c->err.text);
		return c->err.code == SQ_EBUSY ? EX_OK : cli_fail(c);
	}
	return answers(c, requests, n);
}
