/*
 * The session machine: replies and decisions in, octets and wishes out. It
 * owns the order of a transaction and the answer to "was it accepted?". It
 * does no I/O, reads no clock and never holds more than a piece of content.
 *
 * Commands are written into `out` only while `out` is empty, and no decision
 * is acted upon before all of it was handed over: so a TLS write that has to
 * be repeated meets the same octets.
 */
#include "command.h"
#include "results.h"

enum {
	OUT_MAX = 768 * 1024,       /* a piece of content with every dot doubled; or 100 RCPTs of the longest kind */
	CHUNK = 1024 * 1024,        /* BDAT */
};

static const struct sq_policy unknown = { SQ_CLASS_DOUBT, SQ_SCOPE_MESSAGE, 0, SQ_OUTCOME_DOUBT };

static const struct sq_session_fact facts[] = {
#define X(id, name, phase, deadline, loss) \
	[SQ_SESSION_##id] = { name, SQ_PHASE_##phase, SQ_DEADLINE_##deadline, SQ_LOSS_##loss },
	SQ_SESSION_STATES(X)
#undef X
};

const struct sq_session_fact *
sq_session_fact(enum sq_session_state s)
{
	return &facts[s];
}

static void
set_state(struct sq_session *s, enum sq_session_state to)
{
	if (s->state == SQ_SESSION_ENDED && to != SQ_SESSION_ENDED)
		sq_bug("session moved from ended to %s", facts[to].name);
	/* What the terminator started, only a reply or a loss ends. */
	if (s->state == SQ_SESSION_TERMINATOR && to != SQ_SESSION_VERDICT && to != SQ_SESSION_ENDED)
		sq_bug("session moved from terminator to %s", facts[to].name);
	s->state = to;
}

enum sq_err
sq_session_init(struct sq_session *s, const struct sq_ehlo *ehlo, const struct sq_job *job, struct sq_error *err)
{
	memset(s, 0, sizeof(*s));
	s->ehlo = *ehlo;
	s->out = (struct sq_buf)SQ_BUF_INIT(OUT_MAX);
	s->eightbit_send = job->eightbit_send;
	s->chunking = (ehlo->caps & SQ_CAP_CHUNKING) && job->bdat != SQ_FACT_NO;
	s->checkpointing = (ehlo->caps & SQ_CAP_CHECKPOINT) && job->checkpoint != SQ_FACT_NO;
	s->pipelining = (ehlo->caps & SQ_CAP_PIPELINING) && job->pipelining != SQ_FACT_NO;
	s->results = calloc(SQ_GROUP_MAX, sizeof(*s->results));
	s->texts = calloc(SQ_GROUP_MAX, SQ_REPLY_TEXT_MAX);
	if (s->results && s->texts)
		return SQ_OK;
	sq_session_fini(s);
	return sq_error_set(err, SQ_ENOMEM, "out of memory");
}

void
sq_session_fini(struct sq_session *s)
{
	sq_buf_fini(&s->out);
	free(s->results);
	free(s->texts);
	s->results = NULL;
	s->texts = NULL;
}

/* Why the session will have ended, as seen from this state. */
static void
prepare_end(struct sq_session *s, enum sq_outcome outcome, const struct sq_reply *r, struct sq_policy p)
{
	size_t n = r->text.n < sizeof(s->end_text) ? r->text.n : sizeof(s->end_text);

	s->end = (struct sq_end){
		.outcome = outcome,
		.phase = facts[s->state].phase,
		.scope = p.scope,
		.wait_s = p.wait_s,
		.reply = *r,
	};
	if (n > 0)
		memcpy(s->end_text, r->text.p, n);
	s->end.reply.text = (struct sq_str){ s->end_text, n };
	sq_buf_clear(&s->out);
}

static void
end_session(struct sq_session *s, enum sq_outcome outcome, const struct sq_reply *r, struct sq_policy p)
{
	prepare_end(s, outcome, r, p);
	set_state(s, SQ_SESSION_ENDED);
}

/* ---- results ---- */

static void
refuse_locally(struct sq_session *s, int code, const char *enhanced, const char *text)
{
	struct sq_reply r = { .code = code, .text = sq_str(text) };
	struct sq_policy p = { SQ_CLASS_REFUSED, SQ_SCOPE_MESSAGE, 0, SQ_OUTCOME_REFUSED };

	memcpy(r.enhanced, enhanced, strlen(enhanced) + 1);
	sq_result_set_open(s, &r, p);
	s->after_verdict = SQ_SESSION_IDLE;
	set_state(s, SQ_SESSION_VERDICT);
}

/*
 * The transaction was refused: RSET, or, where the server keeps what it has
 * for a later try, only the end of the connection (RFC 1845 §3; RFC 3030's
 * RSET behind a refused BDAT would throw it away).
 */
static void
refused_verdict(struct sq_session *s)
{
	static const struct sq_reply words = { .text = { "closed, so that the server keeps what it has", 44 } };
	struct sq_policy p = { SQ_CLASS_ACCEPTED, SQ_SCOPE_MESSAGE, 0, SQ_OUTCOME_ACCEPTED };

	s->after_verdict = SQ_SESSION_RSET;
	/* Behind 354 an RSET would be content. */
	if ((s->keep && !s->forget) || (s->state == SQ_SESSION_ENVELOPE && s->data_354)) {
		prepare_end(s, SQ_OUTCOME_ACCEPTED, &words, p);
		s->after_verdict = SQ_SESSION_ENDED;
	}
	set_state(s, SQ_SESSION_VERDICT);
}

static void
set_own_results(struct sq_session *s, struct sq_policy p, const char *words)
{
	sq_result_set_open(s, &(struct sq_reply){ .text = sq_str(words) }, p);
}

/* ---- commands ---- */

static void
add_data(struct sq_session *s)
{
	sq_buf_adds(&s->out, "DATA\r\n");
	s->data_sent = true;
}

/* ---- a transaction ---- */

static bool
refused_here(struct sq_session *s)
{
	const struct sq_refusal *no = sq_command_refusal(s->txn, &s->ehlo, s->eightbit_send);

	if (no)
		refuse_locally(s, no->code, no->enhanced, no->words);
	return no != NULL;
}

/* In doubt, and this server cannot be asked: that is all that is known. */
static bool
cannot_ask(struct sq_session *s, bool resumable)
{
	if (!s->in_doubt || resumable)
		return false;
	s->forget = true;
	set_own_results(s, unknown, "the server does not offer CHECKPOINT any more");
	s->after_verdict = SQ_SESSION_IDLE;
	set_state(s, SQ_SESSION_VERDICT);
	return true;
}

/* The RCPTs that may go at once, and DATA where it does. */
static void
add_group(struct sq_session *s)
{
	while (s->rcpt_sent < s->rcpt_limit)
		sq_command_rcpt(&s->txn->recipients[s->rcpt_sent++], s->ehlo.caps, &s->out);
	if (!s->bdat)
		add_data(s);
}

void
sq_session_begin(struct sq_session *s, const struct sq_txn *t)
{
	bool continues = t->resume || (t->flags & SQ_TXN_DOUBT);
	/* DATA and BDAT are never mixed in one transaction (RFC 3030 §3), however often it is interrupted. */
	bool resumable = s->checkpointing && sq_transid_valid(t->transid) && (!continues || t->verb == 'D' || s->chunking);

	if (s->state != SQ_SESSION_IDLE || s->out.n > 0)
		sq_bug("transaction begun in state %s", facts[s->state].name);
	s->txn = t;
	s->transid = resumable;
	s->bdat = s->chunking && !(resumable && continues && t->verb == 'D');
	s->mail_alone = resumable && continues;
	s->in_doubt = t->flags & SQ_TXN_DOUBT;
	s->keep = s->forget = s->checkpoint_refused = false;
	s->resumed = (struct sq_checkpoint){ 0 };
	s->rcpt_sent = s->rcpt_answered = s->accepted = 0;
	s->mail_answered = s->mail_refused = s->data_sent = s->data_answered = s->data_354 = s->refused_content = false;
	s->content_at = s->chunk_left = s->chunks_sent = s->chunks_answered = 0;
	s->stuff = (struct sq_stuff){ 0 };
	s->rcpt_limit = t->n_recipients;
	if (s->ehlo.rcpt_max > 0 && s->ehlo.rcpt_max < s->rcpt_limit)
		s->rcpt_limit = s->ehlo.rcpt_max;
	if (cannot_ask(s, resumable) || refused_here(s))
		return;
	sq_command_mail(t, s->ehlo.caps, s->transid, &s->out);
	if (s->pipelining && !s->mail_alone)
		add_group(s);
	set_state(s, SQ_SESSION_MAIL);
}

static void
reset(struct sq_session *s)
{
	sq_buf_adds(&s->out, "RSET\r\n");
	set_state(s, SQ_SESSION_RSET);
}

/* MAIL and every RCPT are answered, and DATA if it was sent. */
static void
envelope_over(struct sq_session *s)
{
	if (!s->mail_refused)
		sq_result_defer_unasked(s);
	if (s->accepted > 0) {
		set_state(s, SQ_SESSION_ENVELOPE);
		return;
	}
	if (s->data_354) {
		/* RFC 2920 §3.1: the server waits for content to nobody; there is none. */
		sq_buf_adds(&s->out, ".\r\n");
		set_state(s, SQ_SESSION_LONE_DOT);
		return;
	}
	refused_verdict(s);
}

/* The next command of the envelope, or its end. */
static void
envelope_next(struct sq_session *s)
{
	if (s->rcpt_answered < s->rcpt_limit && (!s->mail_refused || s->rcpt_answered < s->rcpt_sent)) {
		if (s->rcpt_answered == s->rcpt_sent) {
			if (s->pipelining && s->mail_alone)
				add_group(s);
			else
				sq_command_rcpt(&s->txn->recipients[s->rcpt_sent++], s->ehlo.caps, &s->out);
		}
		set_state(s, SQ_SESSION_RCPT);
		return;
	}
	if (!s->bdat && s->accepted > 0 && !s->data_sent)
		add_data(s);
	if (s->data_sent && !s->data_answered) {
		set_state(s, SQ_SESSION_DATA);
		return;
	}
	envelope_over(s);
}

/* What the server has of the TRANSID is not ours, or it does not understand it: anew, with another. */
static void
begin_anew(struct sq_session *s, const char *why)
{
	struct sq_policy p = { SQ_CLASS_DEFERRED, SQ_SCOPE_MESSAGE, 1, SQ_OUTCOME_DEFERRED };

	s->forget = true;
	set_own_results(s, p, why);
	refused_verdict(s);
}

/* The server goes on where the connection broke: behind this there are no RCPTs. */
static void
on_resumed(struct sq_session *s, const struct sq_reply *r)
{
	struct sq_policy ok = { SQ_CLASS_ACCEPTED, SQ_SCOPE_RECIPIENT, 0, SQ_OUTCOME_ACCEPTED };

	if (!sq_checkpoint_parse(r, &s->resumed) || s->resumed.offset > s->txn->size) {
		s->resumed = (struct sq_checkpoint){ 0 };
		begin_anew(s, "the server's offset does not fit this message");
		return;
	}
	/* Less than all of it: the terminator cannot have been processed. All of it: the final reply is still open. */
	s->in_doubt = s->in_doubt && s->resumed.offset == s->txn->size;
	s->keep = true;
	s->content_at = s->resumed.offset;
	sq_result_set_open(s, r, ok);
	s->rcpt_sent = s->rcpt_limit = s->rcpt_answered;
	s->accepted = s->txn->n_recipients;
	envelope_next(s);
}

/*
 * The answer to a TRANSID of an earlier session (notes on RFC 1845 §1.6).
 * True: the transaction goes on as a new one, with RCPTs.
 */
static bool
on_known_mail(struct sq_session *s, const struct sq_reply *r)
{
	const struct sq_txn *t = s->txn;
	struct sq_policy p = sq_policy_decide(r, SQ_PHASE_MAIL);

	if (r->code == 355) {
		on_resumed(s, r);
		return false;
	}
	if (p.cls == SQ_CLASS_ACCEPTED) {
		bool promised = t->retained && t->store.n > 0 && sq_str_eq(t->store, sq_str(s->ehlo.store));

		/* It would remember an acceptance, and has none. */
		if (s->in_doubt && promised)
			s->in_doubt = false;
		if (!s->in_doubt)
			return true;
		s->forget = true;
		set_own_results(s, unknown, "the server knows nothing of this transfer any more, and never promised that it would");
		refused_verdict(s);
		return false;
	}
	if (r->code >= 500) {
		begin_anew(s, "the server does not take the transfer up again");
		return false;
	}
	s->keep = true;
	sq_result_set_open(s, r, p); /* in use: later */
	refused_verdict(s);
	return false;
}

static void
on_mail(struct sq_session *s, const struct sq_reply *r)
{
	struct sq_policy p = sq_policy_decide(r, SQ_PHASE_MAIL);

	s->mail_answered = true;
	if (s->mail_alone && !on_known_mail(s, r))
		return;
	/* Offered, and yet the parameter is what it does not like: without it the next time. */
	if (s->transid && !s->mail_alone && (r->code == 501 || r->code == 504 || r->code == 555)) {
		s->checkpoint_refused = s->forget = true;
		p = (struct sq_policy){ SQ_CLASS_DEFERRED, SQ_SCOPE_MESSAGE, 1, SQ_OUTCOME_DEFERRED };
	}
	if (p.cls != SQ_CLASS_ACCEPTED) {
		s->mail_refused = true;
		sq_result_set_open(s, r, p);
		s->rcpt_answered = 0; /* those pipelined behind are still to be read, and change nothing */
	}
	envelope_next(s);
}

static void
on_rcpt(struct sq_session *s, const struct sq_reply *r)
{
	struct sq_policy p = sq_policy_decide(r, SQ_PHASE_RCPT);

	if (!s->mail_refused) {
		sq_result_set(s, s->rcpt_answered, r, p);
		s->accepted += p.cls == SQ_CLASS_ACCEPTED;
	}
	s->rcpt_answered++;
	envelope_next(s);
}

static void
on_data(struct sq_session *s, const struct sq_reply *r)
{
	s->data_answered = true;
	s->data_354 = r->code == 354;
	if (!s->data_354 && s->accepted > 0) {
		struct sq_policy p = sq_policy_decide(r, SQ_PHASE_DATA);

		if (p.cls == SQ_CLASS_ACCEPTED) /* 2yz here is not an answer; nothing was sent yet */
			p = (struct sq_policy){ SQ_CLASS_DEFERRED, SQ_SCOPE_MESSAGE, 0, SQ_OUTCOME_PROTOCOL };
		s->keep = s->transid && p.cls == SQ_CLASS_DEFERRED;
		s->forget = s->mail_alone && p.cls == SQ_CLASS_REFUSED;
		sq_result_set_open(s, r, p);
	}
	envelope_over(s);
}

/* A chunk was answered. The first refusal ends the transaction once all owed replies are read. */
static void
on_chunk(struct sq_session *s, const struct sq_reply *r)
{
	struct sq_policy p = sq_policy_decide(r, SQ_PHASE_CONTENT);

	s->chunks_answered++;
	if (p.cls != SQ_CLASS_ACCEPTED && !s->refused_content) {
		s->refused_content = true;
		s->keep = s->transid && p.cls == SQ_CLASS_DEFERRED;
		sq_result_set_open(s, r, p);
	}
	if (s->chunks_answered < s->chunks_sent)
		return;
	if (s->refused_content && s->chunk_left == 0) {
		refused_verdict(s); /* RFC 3030 §2: RSET is a MUST */
	} else if (s->state == SQ_SESSION_CHUNKS) {
		set_state(s, SQ_SESSION_ASK);
	}
}

static void
out_of_turn(struct sq_session *s, const struct sq_reply *r)
{
	struct sq_policy p = { SQ_CLASS_DEFERRED, SQ_SCOPE_ROUTE, 0, SQ_OUTCOME_PROTOCOL };

	if (r->code >= 400)
		p = sq_policy_decide(r, facts[s->state].phase);
	end_session(s, r->code >= 400 ? p.outcome : SQ_OUTCOME_PROTOCOL, r, p);
}

/*
 * A refusal in the middle of a transaction after which the session cannot go
 * on: 421 anywhere, any refusal while DATA's content is on its way.
 */
static void
refused_and_over(struct sq_session *s, const struct sq_reply *r)
{
	struct sq_policy p = sq_policy_decide(r, facts[s->state].phase);

	sq_result_set_open(s, r, p);
	prepare_end(s, p.outcome, r, p);
	s->after_verdict = SQ_SESSION_ENDED;
	set_state(s, SQ_SESSION_VERDICT);
}

static void
on_terminator(struct sq_session *s, const struct sq_reply *r)
{
	struct sq_policy p = sq_policy_decide(r, SQ_PHASE_TERMINATOR);

	if (r->code == 355 && s->transid) {
		/* sendq-gateway, when its own server gave it no verdict: there is nothing more to be asked of it. */
		s->forget = true;
		sq_result_set_open(s, r, unknown);
		refused_verdict(s);
		return;
	}
	if (r->code >= 300 && r->code < 400) {
		end_session(s, SQ_OUTCOME_DOUBT, r, unknown);
		return;
	}
	s->in_doubt = false;
	s->keep = s->transid && p.cls == SQ_CLASS_DEFERRED;
	if (r->code == 421) {
		refused_and_over(s, r);
		return;
	}
	sq_result_set_open(s, r, p);
	if (p.cls != SQ_CLASS_ACCEPTED) {
		refused_verdict(s);
		return;
	}
	s->after_verdict = SQ_SESSION_IDLE;
	set_state(s, SQ_SESSION_VERDICT);
}

static void
on_reply(struct sq_session *s, const struct sq_reply *r)
{
	if (r->code == 421 && s->state >= SQ_SESSION_MAIL && s->state <= SQ_SESSION_ASK) {
		refused_and_over(s, r);
		return;
	}
	switch (s->state) {
	case SQ_SESSION_MAIL:
		on_mail(s, r);
		return;
	case SQ_SESSION_RCPT:
		on_rcpt(s, r);
		return;
	case SQ_SESSION_DATA:
		on_data(s, r);
		return;
	case SQ_SESSION_CONTENT:
	case SQ_SESSION_CHUNKS:
		if (s->bdat && s->chunks_answered < s->chunks_sent) {
			on_chunk(s, r);
			return;
		}
		break;
	case SQ_SESSION_TERMINATOR:
		on_terminator(s, r);
		return;
	case SQ_SESSION_LONE_DOT:
		refused_verdict(s);
		return;
	case SQ_SESSION_RSET:
		if (r->code < 200 || r->code >= 300)
			out_of_turn(s, r);
		else
			set_state(s, SQ_SESSION_IDLE);
		return;
	case SQ_SESSION_QUIT: {
		struct sq_policy p = { SQ_CLASS_ACCEPTED, SQ_SCOPE_MESSAGE, 0, SQ_OUTCOME_ACCEPTED };

		end_session(s, SQ_OUTCOME_ACCEPTED, r, p);
		return;
	}
	case SQ_SESSION_VERDICT: /* what comes after the verdict does not touch it */
	case SQ_SESSION_ENDED:
		return;
	case SQ_SESSION_IDLE:
	case SQ_SESSION_ENVELOPE:
	case SQ_SESSION_DRAIN:
	case SQ_SESSION_ASK:
	case SQ_SESSION_STATE_COUNT:
		break;
	}
	if (r->code >= 400 && s->state != SQ_SESSION_IDLE)
		refused_and_over(s, r);
	else
		out_of_turn(s, r);
}

void
sq_session_receive(struct sq_session *s, const char *p, size_t n)
{
	while (n > 0 && s->state != SQ_SESSION_ENDED) {
		size_t used;
		enum sq_reply_step step = sq_reply_feed(&s->parser, p, n, &used);

		if (step == SQ_REPLY_MORE)
			return;
		if (step == SQ_REPLY_BAD) {
			sq_session_lost(s, SQ_OUTCOME_PROTOCOL, "the server does not speak SMTP");
			return;
		}
		on_reply(s, &s->parser.reply);
		p += used;
		n -= used;
	}
}

/* ---- what is wanted, and its coming ---- */

enum sq_want
sq_session_want(const struct sq_session *s)
{
	if (s->out.n > 0)
		return SQ_WANT_SEND;
	switch (s->state) {
	case SQ_SESSION_IDLE:
		return SQ_WANT_TXN;
	case SQ_SESSION_ENVELOPE:
		return SQ_WANT_ENVELOPE_GO;
	case SQ_SESSION_CONTENT:
		/* A refused transaction finishes the chunk it is in, for the octets were announced. */
		if (s->bdat && s->chunk_left == 0 && s->chunks_sent > s->chunks_answered &&
		    (!s->pipelining || s->refused_content))
			return SQ_WANT_REPLY;
		return SQ_WANT_CONTENT;
	case SQ_SESSION_DRAIN:
		return SQ_WANT_DRAINED;
	case SQ_SESSION_ASK:
		return SQ_WANT_TERMINATOR_GO;
	case SQ_SESSION_VERDICT:
		return SQ_WANT_VERDICT;
	case SQ_SESSION_ENDED:
		return SQ_WANT_NOTHING;
	case SQ_SESSION_MAIL:
	case SQ_SESSION_RCPT:
	case SQ_SESSION_DATA:
	case SQ_SESSION_CHUNKS:
	case SQ_SESSION_TERMINATOR:
	case SQ_SESSION_LONE_DOT:
	case SQ_SESSION_RSET:
	case SQ_SESSION_QUIT:
	case SQ_SESSION_STATE_COUNT:
		break;
	}
	return SQ_WANT_REPLY;
}

void
sq_session_sent(struct sq_session *s, size_t n)
{
	sq_buf_consume(&s->out, n);
}

void
sq_session_quit(struct sq_session *s)
{
	if (s->state != SQ_SESSION_IDLE)
		return;
	sq_buf_adds(&s->out, "QUIT\r\n");
	set_state(s, SQ_SESSION_QUIT);
}

static void
content_over(struct sq_session *s)
{
	if (!s->bdat)
		set_state(s, SQ_SESSION_DRAIN);
	else if (s->chunks_answered < s->chunks_sent)
		set_state(s, SQ_SESSION_CHUNKS);
	else
		set_state(s, SQ_SESSION_ASK);
}

void
sq_session_go(struct sq_session *s)
{
	if (s->state == SQ_SESSION_ENVELOPE) {
		set_state(s, SQ_SESSION_CONTENT);
		if (s->content_at == s->txn->size)
			content_over(s);
	} else if (s->state == SQ_SESSION_ASK) {
		set_state(s, SQ_SESSION_TERMINATOR);
		sq_buf_adds(&s->out, s->bdat ? "BDAT 0 LAST\r\n" : s->stuff.inside ? "\r\n.\r\n" : ".\r\n");
	}
}

void
sq_session_mismatch(struct sq_session *s, const char *why)
{
	if (s->state != SQ_SESSION_ENVELOPE)
		sq_bug("mismatch in state %s", facts[s->state].name);
	begin_anew(s, why);
}

uint64_t
sq_session_durable(const struct sq_session *s)
{
	uint64_t chunks = s->resumed.offset + s->chunks_answered * CHUNK;

	/* A 250 to a chunk is a promise only where the server says that it keeps what it has. */
	if (!s->transid || !s->bdat || s->ehlo.store[0] == '\0' || s->refused_content)
		return s->resumed.offset;
	return chunks < s->content_at ? chunks : s->content_at;
}

void
sq_session_content(struct sq_session *s, struct sq_str c)
{
	uint64_t left = s->txn->size - s->content_at;

	if (s->state != SQ_SESSION_CONTENT || c.n > left)
		sq_bug("%zu octets of content in state %s", c.n, facts[s->state].name);
	s->content_at += c.n;
	if (!s->bdat)
		sq_stuff_add(&s->stuff, c, &s->out);
	while (s->bdat && c.n > 0) {
		size_t part;

		if (s->chunk_left == 0) {
			s->chunk_left = left < CHUNK ? left : CHUNK;
			s->chunks_sent++;
			sq_buf_addf(&s->out, "BDAT %llu\r\n", (unsigned long long)s->chunk_left);
		}
		part = c.n < s->chunk_left ? c.n : (size_t)s->chunk_left;
		sq_buf_add(&s->out, c.p, part);
		c.p += part;
		c.n -= part;
		left -= part;
		s->chunk_left -= part;
	}
	if (s->out.failed)
		sq_session_lost(s, SQ_OUTCOME_LOCAL, "out of memory");
	else if (s->content_at == s->txn->size)
		content_over(s);
}

void
sq_session_drained(struct sq_session *s)
{
	if (s->state == SQ_SESSION_DRAIN)
		set_state(s, SQ_SESSION_ASK);
}

void
sq_session_reported(struct sq_session *s)
{
	enum sq_session_state to = s->after_verdict;

	if (s->state != SQ_SESSION_VERDICT)
		sq_bug("verdict reported in state %s", facts[s->state].name);
	s->txn = NULL;
	s->in_doubt = false;
	sq_buf_clear(&s->out);
	if (to == SQ_SESSION_RSET)
		reset(s);
	else
		set_state(s, to);
}

void
sq_session_lost(struct sq_session *s, enum sq_outcome outcome, const char *why)
{
	struct sq_reply r = { .text = sq_str(why) };
	struct sq_policy p = { .scope = SQ_SCOPE_ROUTE };

	if (s->state == SQ_SESSION_ENDED)
		return;
	switch (facts[s->state].loss) {
	case SQ_LOSS_DOUBT:
		outcome = SQ_OUTCOME_DOUBT;
		break;
	case SQ_LOSS_STANDS: /* report first; then it is over */
		if (s->after_verdict != SQ_SESSION_ENDED) {
			prepare_end(s, outcome, &r, p);
			s->after_verdict = SQ_SESSION_ENDED;
		}
		return;
	case SQ_LOSS_NOT_ACCEPTED:
		if (s->state == SQ_SESSION_QUIT)
			outcome = SQ_OUTCOME_ACCEPTED; /* nothing was open */
		break;
	}
	end_session(s, outcome, &r, p);
}

/* ---- for a group of messages (group.c) ---- */

bool
sq_session_prepare(struct sq_session *s, const struct sq_txn *t, uint32_t *asked)
{
	bool refused;

	s->txn = t;
	s->accepted = s->rcpt_answered = 0;
	*asked = s->rcpt_limit = s->ehlo.rcpt_max > 0 && s->ehlo.rcpt_max < t->n_recipients ? s->ehlo.rcpt_max : t->n_recipients;
	refused = refused_here(s);
	if (refused)
		set_state(s, SQ_SESSION_IDLE);
	else
		sq_result_defer_unasked(s);
	s->txn = NULL;
	return refused;
}

void
sq_session_reset(struct sq_session *s)
{
	if (s->state == SQ_SESSION_IDLE)
		reset(s);
}

void
sq_session_over(struct sq_session *s, const struct sq_reply *r)
{
	if (s->state != SQ_SESSION_ENDED)
		out_of_turn(s, r);
}
