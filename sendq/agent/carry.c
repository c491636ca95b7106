/*
 * One session, driven. Everything that decides about acceptance is in the
 * session machine; here are only octets, frames, deadlines and the hash.
 * Memory does not grow with a message: content passes through one buffer.
 */
#include "carry.h"
#include "carry_group.h"
#include "patient.h"

#include <errno.h>
#include <openssl/evp.h>
#include <poll.h>

#include <sendq/fault.h>
#include <sendq/io.h>

enum {
	WRITE = 64 * 1024,
	CONTENT_BUFFER = SQ_READ_OPEN_MAX * SQ_CONTENT_MAX,
	TICK_MS = 1000, DRAIN_MS = 5, QUIT_MS = 5000,
};

enum asked { ASKED_NOTHING, ASKED_ENVELOPE, ASKED_TERMINATOR };

struct carry {
	struct sq_stream *runner;
	const struct sq_job *job;
	struct sq_str address;
	const struct carry_io *io;
	struct sq_session s;
	struct window *w;

	/* the transaction */
	struct sq_txn *txn;           /* strings live in `words` */
	char *words;
	uint16_t number;
	uint64_t wanted;              /* content asked for up to here */
	uint64_t handed;              /* content hashed, and given to the machine where it is behind what the server has */
	bool prefix;                  /* the octets that the server has already are being hashed */
	char last_octet;              /* before `handed` */
	uint64_t told_acked;
	int reads;                    /* READs without their CONTENT */
	struct sq_buf content;
	size_t content_at;            /* taken from its front */
	EVP_MD_CTX *hash;
	uint8_t sha256[32];

	enum asked asked;
	uint32_t seq;
	bool idle_told, runner_gone, bye, blocked_write;
	struct patient patient;
	int64_t next_tick;            /* awake ms: progress is told */
	struct sq_frame *frame;
};

static bool
put(struct carry *c, const struct sq_frame *f)
{
	struct sq_error err;

	if (sq_stream_put(c->runner, f, &err) != SQ_OK || sq_stream_flush(c->runner, &err) != SQ_OK)
		c->runner_gone = true;
	return !c->runner_gone;
}

/* ---- the transaction ---- */

static struct sq_str
keep(char **at, struct sq_str s)
{
	struct sq_str kept = { *at, s.n };

	if (s.n > 0)
		memcpy(*at, s.p, s.n);
	*at += s.n;
	return kept;
}

/* Copy what the frame only lends. */
static bool
keep_txn(struct carry *c, const struct sq_txn *t)
{
	size_t n = t->sender.n + t->envid.n + t->transid.n + t->store.n + 1;
	char *at;

	for (uint32_t i = 0; i < t->n_recipients; i++)
		n += t->recipients[i].address.n + t->recipients[i].orcpt.n;
	free(c->words);
	if (!(c->words = at = malloc(n)))
		return false;
	*c->txn = *t;
	c->txn->sender = keep(&at, t->sender);
	c->txn->envid = keep(&at, t->envid);
	c->txn->transid = keep(&at, t->transid);
	c->txn->store = keep(&at, t->store);
	for (uint32_t i = 0; i < t->n_recipients; i++) {
		c->txn->recipients[i].address = keep(&at, t->recipients[i].address);
		c->txn->recipients[i].orcpt = keep(&at, t->recipients[i].orcpt);
	}
	return true;
}

/* What is wrong, or NULL. */
static const char *
begin_txn(struct carry *c, const struct sq_frame *f)
{
	if (!c->bye && (window_open(c->w) || (f->u.transaction.flags & SQ_TXN_MORE))) {
		c->number = f->txn;
		c->idle_told = false;
		return window_txn(c->w, f);
	}
	if (sq_session_want(&c->s) != SQ_WANT_TXN || c->bye)
		return "TXN out of turn";
	if (f->u.transaction.n_recipients == 0)
		return "TXN without recipients";
	if (!keep_txn(c, &f->u.transaction))
		return "out of memory";
	c->number = f->txn;
	c->wanted = c->handed = c->told_acked = 0;
	c->prefix = false;
	c->reads = 0;
	c->content_at = 0;
	sq_buf_clear(&c->content);
	c->idle_told = false;
	if (EVP_DigestInit_ex(c->hash, EVP_sha256(), NULL) != 1)
		return "no SHA-256";
	sq_session_begin(&c->s, c->txn);
	return NULL;
}

static const char *
take_content(struct carry *c, const struct sq_frame *f)
{
	const struct sq_content *x = &f->u.content;

	if (window_open(c->w))
		return window_content(c->w, f);
	if (f->txn != c->number || c->reads == 0 || x->octets.n == 0 || c->handed + (c->content.n - c->content_at) != x->offset ||
	    x->offset + x->octets.n > c->wanted)
		return "CONTENT that was not asked for";
	sq_buf_consume(&c->content, c->content_at);
	c->content_at = 0;
	sq_buf_add_str(&c->content, x->octets);
	c->reads--;
	return c->content.failed ? "out of memory" : NULL;
}

/* Keep a few READs outstanding, as far as the buffer has room for their answers. */
static void
ask_content(struct carry *c)
{
	while (c->reads < SQ_READ_OPEN_MAX && c->wanted < c->txn->size && !c->runner_gone) {
		struct sq_frame f = { .type = SQ_FRAME_READ, .txn = c->number };
		uint64_t left = c->txn->size - c->wanted;
		size_t buffered = c->content.n - c->content_at;

		if (buffered + (size_t)(c->reads + 1) * SQ_CONTENT_MAX > CONTENT_BUFFER)
			return;
		f.u.read.offset = c->wanted;
		f.u.read.length = left < SQ_CONTENT_MAX ? (uint32_t)left : SQ_CONTENT_MAX;
		c->wanted += f.u.read.length;
		c->reads++;
		put(c, &f);
	}
}

/* The next piece of content, of at most `max` octets, hashed and taken. Empty: it has not come yet. */
static struct sq_str
next_piece(struct carry *c, uint64_t max)
{
	struct sq_str piece = { c->content.p + c->content_at, c->content.n - c->content_at };

	ask_content(c);
	if (piece.n > WRITE)
		piece.n = WRITE;
	if (piece.n > max)
		piece.n = (size_t)max;
	if (piece.n == 0)
		return piece;
	if (EVP_DigestUpdate(c->hash, piece.p, piece.n) != 1)
		sq_bug("no SHA-256");
	c->handed += piece.n;
	c->content_at += piece.n;
	c->last_octet = piece.p[piece.n - 1];
	return piece;
}

/* True: the machine got some. */
static bool
give_content(struct carry *c)
{
	struct sq_str piece = next_piece(c, UINT64_MAX);

	if (piece.n > 0)
		sq_session_content(&c->s, piece);
	return piece.n > 0;
}

/* ---- what the server has already (RFC 1845 §3) ---- */

static const char *
prefix_wrong(struct carry *c)
{
	const struct sq_checkpoint *r = &c->s.resumed;
	EVP_MD_CTX *so_far = EVP_MD_CTX_new();
	uint8_t sha256[32];
	unsigned n = 0;

	if (!so_far || EVP_MD_CTX_copy_ex(so_far, c->hash) != 1 || EVP_DigestFinal_ex(so_far, sha256, &n) != 1)
		sq_bug("no SHA-256");
	EVP_MD_CTX_free(so_far);
	if (r->hashed && memcmp(sha256, r->sha256, sizeof(sha256)) != 0)
		return "what the server has is not the beginning of this message";
	if (!c->s.bdat && r->offset > 0 && c->last_octet != '\n')
		return "the server's offset is in the middle of a line";
	return NULL;
}

/* It is hashed, not sent. True: something moved. */
static bool
pass_prefix(struct carry *c)
{
	const char *wrong;

	if (c->handed < c->s.resumed.offset)
		return next_piece(c, c->s.resumed.offset - c->handed).n > 0;
	c->prefix = false;
	if ((wrong = prefix_wrong(c)) != NULL) {
		sq_session_mismatch(&c->s, wrong);
		return true;
	}
	c->io->mark(c->io->arg, c->handed);
	sq_session_go(&c->s);
	return true;
}

/* ---- asking and reporting ---- */

static void
ask_envelope(struct carry *c)
{
	struct sq_frame *f = c->frame;

	memset(f, 0, sizeof(*f));
	f->type = SQ_FRAME_ENVELOPE;
	f->txn = c->number;
	f->u.envelope = (struct sq_envelope){ .seq = ++c->seq, .verb = c->s.bdat ? 'B' : 'D', .address = c->address, .n_results = c->txn->n_recipients };
	if (c->s.transid) {
		f->u.envelope.transid = c->txn->transid;
		f->u.envelope.store = sq_str(c->s.ehlo.store);
		f->u.envelope.retain_s = c->s.ehlo.retain_s;
		f->u.envelope.offset = c->s.resumed.offset;
	}
	for (uint32_t i = 0; i < c->txn->n_recipients; i++)
		f->u.envelope.results[i] = c->s.results[i];
	c->asked = ASKED_ENVELOPE;
	put(c, f);
}

static void
ask_terminator(struct carry *c)
{
	struct sq_frame *f = c->frame;
	unsigned n = 0;

	memset(f, 0, sizeof(*f));
	f->type = SQ_FRAME_TERMINATOR;
	f->u.terminator.seq = ++c->seq;
	f->u.terminator.n = 1;
	f->u.terminator.txns[0].txn = c->number;
	f->u.terminator.txns[0].octets = c->handed;
	if (EVP_DigestFinal_ex(c->hash, c->sha256, &n) != 1 || n != sizeof(c->sha256))
		sq_bug("no SHA-256");
	memcpy(f->u.terminator.txns[0].sha256, c->sha256, sizeof(c->sha256));
	c->asked = ASKED_TERMINATOR;
	put(c, f);
}

/* The provider's own Message-ID: "<…@…>" in the final reply, as Office 365 and SES print it. */
static struct sq_str
id_in(struct sq_str text)
{
	const char *open = text.n > 0 ? memchr(text.p, '<', text.n) : NULL, *close;

	if (!open)
		return (struct sq_str){ 0 };
	close = memchr(open, '>', text.n - (size_t)(open - text.p));
	if (!close || close - open > 900 || !memchr(open, '@', (size_t)(close - open)) || memchr(open, ' ', (size_t)(close - open)))
		return (struct sq_str){ 0 };
	return (struct sq_str){ open, (size_t)(close - open) + 1 };
}

struct sq_str
provider_id(const struct sq_recipient_result *results, uint32_t n, char out[SQ_PROVIDER_ID_MAX])
{
	struct sq_str id = { 0 };

	for (uint32_t i = 0; i < n && id.n == 0; i++)
		if (results[i].cls == SQ_CLASS_ACCEPTED)
			id = id_in(results[i].reply.text);
	if (id.n > 0)
		memcpy(out, id.p, id.n);
	return (struct sq_str){ out, id.n };
}

static void
learned(struct carry *c, struct sq_str key, struct sq_str value)
{
	struct sq_frame f = { .type = SQ_FRAME_LEARNED };

	f.u.learned = (struct sq_learned){ key, value };
	put(c, &f);
}

static void
report_verdict(struct carry *c)
{
	struct sq_frame *f = c->frame;
	static char id[SQ_PROVIDER_ID_MAX];

	SQ_FAULT(agent_after_reply);
	c->io->arm(c->io->arg, false);
	memset(f, 0, sizeof(*f));
	f->type = SQ_FRAME_VERDICT;
	f->txn = c->number;
	f->u.verdict.n_results = c->txn->n_recipients;
	f->u.verdict.forget = c->s.forget;
	for (uint32_t i = 0; i < c->txn->n_recipients; i++)
		f->u.verdict.results[i] = c->s.results[i];
	f->u.verdict.provider_id = provider_id(c->s.results, c->txn->n_recipients, id);
	put(c, f);
	if (c->s.checkpoint_refused)
		learned(c, SQ_STR("checkpoint"), SQ_STR("no"));
	SQ_FAULT(agent_after_verdict);
	sq_session_reported(&c->s);
}

static void
tell_progress(struct carry *c)
{
	struct sq_frame f = { .type = SQ_FRAME_PROGRESS, .txn = c->number };
	struct sq_frame l = { .type = SQ_FRAME_LINK };

	if (c->io->sample(c->io->arg, &l.u.link))
		put(c, &l);
	if (!c->s.txn || c->handed == 0 || c->prefix)
		return;
	f.u.progress.handed = c->handed;
	f.u.progress.durable = sq_session_durable(&c->s);
	f.u.progress.acked = c->io->acked(c->io->arg);
	if (f.u.progress.acked > c->handed)
		f.u.progress.acked = c->handed;
	if (f.u.progress.acked < f.u.progress.durable)
		f.u.progress.acked = f.u.progress.durable;
	if (f.u.progress.acked > c->told_acked)
		c->patient.since = sq_awake_ms();
	c->told_acked = f.u.progress.acked;
	put(c, &f);
}

/* ---- frames ---- */

static void hear_server(struct carry *c);

static const char *
on_go(struct carry *c, const struct sq_frame *f)
{
	if (window_open(c->w)) {
		/* A reply that came before the group is none of its verdicts. */
		hear_server(c);
		c->patient.since = sq_awake_ms();
		return window_go(c->w, f);
	}
	if (f->u.go.seq != c->seq || c->asked == ASKED_NOTHING)
		return "GO that nobody asked for";
	if (c->asked == ASKED_TERMINATOR) {
		/* A reply that came before the terminator is not its verdict. */
		hear_server(c);
		if (c->s.state != SQ_SESSION_ASK)
			return NULL;
		SQ_FAULT(agent_before_terminator);
		c->io->arm(c->io->arg, true);
	} else {
		SQ_FAULT(agent_after_envelope);
	}
	c->prefix = c->asked == ASKED_ENVELOPE;
	if (!c->prefix)
		sq_session_go(&c->s);
	c->asked = ASKED_NOTHING;
	return NULL;
}

static const char *
on_frame(struct carry *c, const struct sq_frame *f)
{
	switch (f->type) {
	case SQ_FRAME_TXN:
		return begin_txn(c, f);
	case SQ_FRAME_CONTENT:
		return take_content(c, f);
	case SQ_FRAME_GO:
		return on_go(c, f);
	case SQ_FRAME_CANCEL:
		if (window_open(c->w))
			(void)window_cancel(c->w);
		else if (c->s.state != SQ_SESSION_TERMINATOR && c->s.state != SQ_SESSION_VERDICT)
			sq_session_lost(&c->s, SQ_OUTCOME_CANCELLED, "cancelled");
		return NULL;
	case SQ_FRAME_BYE:
		c->bye = true;
		return NULL;
	case SQ_FRAME_HELLO:
	case SQ_FRAME_JOB:
	case SQ_FRAME_SECRET:
	case SQ_FRAME_READY:
	case SQ_FRAME_READ:
	case SQ_FRAME_ENVELOPE:
	case SQ_FRAME_TERMINATOR:
	case SQ_FRAME_PROGRESS:
	case SQ_FRAME_VERDICT:
	case SQ_FRAME_LINK:
	case SQ_FRAME_LEARNED:
	case SQ_FRAME_EVIDENCE:
	case SQ_FRAME_ASK:
	case SQ_FRAME_STAGE:
	case SQ_FRAME_CERTIFICATE:
	case SQ_FRAME_TOKEN_JOB:
	case SQ_FRAME_TOKEN_PROMPT:
	case SQ_FRAME_TOKEN:
	case SQ_FRAME_LOOKUP_JOB:
	case SQ_FRAME_LOOKUP:
	case SQ_FRAME_IDLE:
	case SQ_FRAME_END:
		break;
	}
	return "a frame that is not the runner's to send";
}

static void
hear_runner(struct carry *c)
{
	static struct sq_frame frame;
	struct sq_error err = { 0 };
	enum sq_err filled = sq_stream_fill(c->runner, &err);
	bool have = true;

	/* What the runner said before it heard that the session is over means nothing any more. */
	while (!c->runner_gone && have && c->s.state != SQ_SESSION_ENDED) {
		if (sq_stream_next(c->runner, &frame, &have, &err) != SQ_OK || (have && on_frame(c, &frame) != NULL))
			c->runner_gone = true;
	}
	if (filled != SQ_OK)
		c->runner_gone = true;
}

/* ---- the connection ---- */

static void
lost(struct carry *c, enum sq_outcome outcome, const char *why, bool by_server)
{
	if (window_open(c->w))
		window_lost(c->w, outcome, why, by_server);
	else
		sq_session_lost(&c->s, outcome, why);
}

static void
hear_server(struct carry *c)
{
	char octets[16384];
	struct sq_error err = { 0 };
	size_t n = 0;
	enum sq_err e;

	while (c->s.state != SQ_SESSION_ENDED) {
		e = c->io->recv(c->io->arg, octets, sizeof(octets), &n, &err);
		if (e == SQ_OK && n == 0)
			return;
		if (e == SQ_OK) {
			c->patient.since = sq_awake_ms();
			if (window_open(c->w))
				window_receive(c->w, octets, n);
			else
				sq_session_receive(&c->s, octets, n);
			continue;
		}
		lost(c, SQ_OUTCOME_CUT, e == SQ_EEOF ? "the server closed the connection" : err.text, e == SQ_EEOF);
		return;
	}
}

/* True: something moved. */
static bool
hand_over(struct carry *c)
{
	size_t n = c->s.out.n < WRITE ? c->s.out.n : WRITE, done = 0;
	bool terminator = c->s.state == SQ_SESSION_TERMINATOR;
	struct sq_error err = { 0 };

	if (c->io->send(c->io->arg, c->s.out.p, n, &done, &err) != SQ_OK) {
		hear_server(c); /* its last words may explain it */
		sq_session_lost(&c->s, SQ_OUTCOME_CUT, err.text);
		return true;
	}
	c->blocked_write = done == 0;
	if (done == 0)
		return false;
	c->patient.since = sq_awake_ms();
	sq_session_sent(&c->s, done);
	if (c->s.state == SQ_SESSION_CONTENT || c->s.state == SQ_SESSION_CHUNKS || c->s.state == SQ_SESSION_DRAIN) {
		c->io->mark(c->io->arg, c->s.out.n < c->handed ? c->handed - c->s.out.n : 0);
		SQ_FAULT(agent_content);
	}
	if (terminator && c->s.out.n == 0)
		SQ_FAULT(agent_after_terminator);
	return true;
}

/* The same for a window. */
static bool
hand_over_window(struct carry *c)
{
	struct sq_str out = window_out(c->w, WRITE);
	struct sq_error err = { 0 };
	size_t done = 0;

	if (c->io->send(c->io->arg, out.p, out.n, &done, &err) != SQ_OK) {
		hear_server(c);
		lost(c, SQ_OUTCOME_CUT, err.text, false);
		return true;
	}
	c->blocked_write = done == 0;
	if (done == 0)
		return false;
	c->patient.since = sq_awake_ms();
	window_sent(c->w, done);
	return true;
}

static bool
step_window(struct carry *c)
{
	enum sq_want want = window_step(c->w);

	return want == SQ_WANT_SEND ? hand_over_window(c) : want == SQ_WANT_NOTHING;
}

/* Do what the machine wants, as far as it goes without waiting. True: something moved. */
static bool
step(struct carry *c)
{
	if (window_open(c->w))
		return step_window(c);
	switch (sq_session_want(&c->s)) {
	case SQ_WANT_SEND:
		return hand_over(c);
	case SQ_WANT_TXN:
		if (c->bye) {
			sq_session_quit(&c->s);
			return true;
		}
		if (!c->idle_told && c->number != 0) {
			struct sq_frame f = { .type = SQ_FRAME_IDLE };

			put(c, &f);
		}
		c->idle_told = true;
		return false;
	case SQ_WANT_ENVELOPE_GO:
		if (c->prefix)
			return pass_prefix(c);
		if (c->asked == ASKED_NOTHING)
			ask_envelope(c);
		return false;
	case SQ_WANT_CONTENT:
		return give_content(c);
	case SQ_WANT_DRAINED:
		if (!c->io->drained(c->io->arg))
			return false;
		sq_session_drained(&c->s);
		return true;
	case SQ_WANT_TERMINATOR_GO:
		if (c->asked == ASKED_NOTHING)
			ask_terminator(c);
		return false;
	case SQ_WANT_VERDICT:
		report_verdict(c);
		return true;
	case SQ_WANT_REPLY:
	case SQ_WANT_NOTHING:
		break;
	}
	return false;
}

/* ---- time ---- */

static enum sq_patience_at
patience_at(const struct carry *c)
{
	if (window_open(c->w))
		return window_given(c->w) ? SQ_AT_VERDICT : SQ_AT_IDLE;
	switch (sq_session_fact(c->s.state)->deadline) {
	case SQ_DEADLINE_RUNNER: /* our own side's turn */
		return SQ_AT_IDLE;
	case SQ_DEADLINE_REPLY:
	case SQ_DEADLINE_QUIT:
		return c->s.state == SQ_SESSION_IDLE ? SQ_AT_IDLE : SQ_AT_ENVELOPE;
	case SQ_DEADLINE_CONTENT:
		return SQ_AT_CONTENT;
	case SQ_DEADLINE_VERDICT:
		return SQ_AT_VERDICT;
	}
	return SQ_AT_IDLE;
}

static void
check_time(struct carry *c)
{
	struct sq_patience_in in = { .at = patience_at(c), .patient = c->job->patient, .resumes = !window_open(c->w) && c->s.transid,
		.octets = window_open(c->w) ? window_octets(c->w) : c->handed, .past_ms = c->job->verdict_past_ms,
		.reply_ms = c->s.state == SQ_SESSION_QUIT ? QUIT_MS : c->job->reply_timeout_ms,
		.content_ms = c->job->content_timeout_ms, .verdict_ms = c->job->verdict_timeout_ms };
	int64_t now = sq_awake_ms();
	char why[160];

	if (now >= c->next_tick) {
		c->next_tick = now + TICK_MS;
		tell_progress(c);
	}
	switch (patient_look(&c->patient, c->io, &in, (int)c->s.state, now, why)) {
	case SQ_PATIENCE_WAIT:
		break;
	case SQ_PATIENCE_ADDRESS:
		lost(c, SQ_OUTCOME_CUT, why, false);
		break;
	case SQ_PATIENCE_DEAD:
	case SQ_PATIENCE_SILENT:
		lost(c, SQ_OUTCOME_STALLED, why, false);
		break;
	}
}

static int
wait_ms(const struct carry *c)
{
	int64_t left = c->patient.next_look, now = sq_awake_ms();

	if (!window_open(c->w) && sq_session_want(&c->s) == SQ_WANT_DRAINED)
		return DRAIN_MS;
	/* Only a transfer has something to tell every second. */
	if (c->s.txn && c->next_tick < left)
		left = c->next_tick;
	if (left == INT64_MAX)
		return -1;
	left -= now;
	return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void
wait_for_something(struct carry *c)
{
	struct pollfd fds[3] = {
		{ .fd = c->runner->fd, .events = (short)(POLLIN | (sq_stream_pending(c->runner) ? POLLOUT : 0)) },
		{ .fd = c->io->fd(c->io->arg), .events = (short)(POLLIN | (c->blocked_write ? POLLOUT : 0)) },
		{ .fd = c->io->addresses(c->io->arg), .events = POLLIN },
	};
	struct sq_error err;

	if (poll(fds, 3, wait_ms(c)) < 0 && errno != EINTR)
		sq_bug("poll: %s", strerror(errno));
	if (sq_stream_pending(c->runner) && sq_stream_flush(c->runner, &err) != SQ_OK)
		c->runner_gone = true;
	if (fds[0].revents)
		hear_runner(c);
	if (fds[2].revents)
		patient_addresses(&c->patient, c->io, sq_awake_ms());
}

/* The last progress is what back-off goes by. */
static void
say_end(struct carry *c)
{
	struct sq_frame f = { .type = SQ_FRAME_END };

	tell_progress(c);
	f.u.end = c->s.end;
	put(c, &f);
}

bool
sq_carry(struct sq_stream *runner, const struct sq_job *job, const struct sq_ehlo *ehlo, struct sq_str address, const struct carry_io *io)
{
	struct carry c = { .runner = runner, .job = job, .address = address, .io = io, .content = SQ_BUF_INIT(CONTENT_BUFFER) };
	int64_t now = sq_awake_ms();
	struct sq_error err = { 0 };

	c.txn = calloc(1, sizeof(*c.txn));
	c.frame = calloc(1, sizeof(*c.frame));
	c.hash = EVP_MD_CTX_new();
	if (!c.txn || !c.frame || !c.hash || sq_session_init(&c.s, ehlo, job, &err) != SQ_OK)
		sq_bug("out of memory");
	c.w = window_new(runner, job, io, &c.s, &c.runner_gone);
	c.next_tick = now + TICK_MS;
	patient_begin(&c.patient, io, now);
	hear_runner(&c); /* what came while connecting lies in the stream's buffer, where poll cannot see it */
	while (!c.runner_gone && c.s.state != SQ_SESSION_ENDED) {
		hear_server(&c);
		while (!c.runner_gone && step(&c))
			;
		check_time(&c);
		while (!c.runner_gone && c.s.state == SQ_SESSION_ENDED && step(&c))
			; /* a window's last verdicts */
		if (c.s.state == SQ_SESSION_ENDED || c.runner_gone)
			break;
		wait_for_something(&c);
	}
	if (!c.runner_gone)
		say_end(&c);
	window_free(c.w);
	sq_session_fini(&c.s);
	sq_buf_fini(&c.content);
	EVP_MD_CTX_free(c.hash);
	free(c.txn);
	free(c.words);
	free(c.frame);
	return !c.runner_gone;
}
