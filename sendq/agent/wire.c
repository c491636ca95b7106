/*
 * The frame codec of agent.h, for both ends.
 *
 * Each frame type has one walk over its fields which serves both directions,
 * so that encoder and decoder cannot drift apart. The walk checks every count,
 * length, enum and bool before it is used; the bytes of the other side are
 * hostile. It never allocates while decoding: views point into the input.
 */
#include <sendq/agent.h>

enum {
	NAME_MAX_OCTETS = 4096,       /* url, paths, proxy */
	WORD_MAX_OCTETS = 1024,       /* mechanism, keys, peer addresses */
};

struct walk {
	struct sq_buf *out;  /* encoding, or NULL */
	struct sq_str in;    /* decoding */
	size_t at;
	const char *why;     /* the first limit that was broken */
};

const char *
sq_frame_type_name(enum sq_frame_type t)
{
	static const char *const names[] = {
		[SQ_FRAME_HELLO] = "HELLO", [SQ_FRAME_JOB] = "JOB", [SQ_FRAME_SECRET] = "SECRET",
		[SQ_FRAME_TXN] = "TXN", [SQ_FRAME_READY] = "READY", [SQ_FRAME_READ] = "READ",
		[SQ_FRAME_CONTENT] = "CONTENT", [SQ_FRAME_ENVELOPE] = "ENVELOPE",
		[SQ_FRAME_TERMINATOR] = "TERMINATOR", [SQ_FRAME_GO] = "GO",
		[SQ_FRAME_PROGRESS] = "PROGRESS", [SQ_FRAME_VERDICT] = "VERDICT",
		[SQ_FRAME_LINK] = "LINK", [SQ_FRAME_LEARNED] = "LEARNED",
		[SQ_FRAME_ASK] = "ASK", [SQ_FRAME_EVIDENCE] = "EVIDENCE", [SQ_FRAME_IDLE] = "IDLE",
		[SQ_FRAME_CANCEL] = "CANCEL", [SQ_FRAME_BYE] = "BYE", [SQ_FRAME_END] = "END",
		[SQ_FRAME_STAGE] = "STAGE", [SQ_FRAME_CERTIFICATE] = "CERTIFICATE",
		[SQ_FRAME_TOKEN_JOB] = "TOKEN_JOB", [SQ_FRAME_TOKEN_PROMPT] = "TOKEN_PROMPT", [SQ_FRAME_TOKEN] = "TOKEN",
		[SQ_FRAME_LOOKUP_JOB] = "LOOKUP_JOB", [SQ_FRAME_LOOKUP] = "LOOKUP",
	};

	return (size_t)t < SQ_LEN(names) && names[t] ? names[t] : "?";
}

/* ---- one field, either way ---- */

static void
walk_fail(struct walk *w, const char *why)
{
	if (!w->why)
		w->why = why;
}

static void
walk_uint(struct walk *w, uint64_t *v, size_t octets)
{
	unsigned char raw[8];

	if (w->why)
		return;
	if (w->out) {
		for (size_t i = 0; i < octets; i++)
			raw[i] = (unsigned char)(*v >> (8 * i));
		sq_buf_add(w->out, raw, octets);
		return;
	}
	if (w->in.n - w->at < octets) {
		walk_fail(w, "too short");
		return;
	}
	*v = 0;
	for (size_t i = 0; i < octets; i++)
		*v |= (uint64_t)(unsigned char)w->in.p[w->at + i] << (8 * i);
	w->at += octets;
}

static void
walk_u16(struct walk *w, uint16_t *v)
{
	uint64_t wide = *v;

	walk_uint(w, &wide, 2);
	*v = (uint16_t)wide;
}

static void
walk_u32(struct walk *w, uint32_t *v)
{
	uint64_t wide = *v;

	walk_uint(w, &wide, 4);
	*v = (uint32_t)wide;
}

static void
walk_u64(struct walk *w, uint64_t *v)
{
	walk_uint(w, v, 8);
}

/* A number from 0 to max in one octet: enums, bools, bit sets. */
static uint8_t
walk_small(struct walk *w, unsigned v, unsigned max)
{
	uint64_t wide = v;

	if (w->out && v > max)
		walk_fail(w, "value out of range");
	walk_uint(w, &wide, 1);
	if (wide > max) {
		walk_fail(w, "value out of range");
		return 0;
	}
	return (uint8_t)wide;
}

static void
walk_bool(struct walk *w, bool *v)
{
	*v = walk_small(w, *v, 1);
}

#define WALK_ENUM(w, field, type, max) ((field) = (type)walk_small((w), (unsigned)(field), (max)))

static uint32_t
walk_count(struct walk *w, uint32_t n, uint32_t max)
{
	if (w->out && n > max)
		walk_fail(w, "too many entries");
	walk_u32(w, &n);
	if (n > max) {
		walk_fail(w, "too many entries");
		return 0;
	}
	return w->why ? 0 : n;
}

static void
walk_str(struct walk *w, struct sq_str *s, size_t max)
{
	uint32_t n = (uint32_t)s->n;

	if (w->out && s->n > max)
		walk_fail(w, "string too long");
	walk_u32(w, &n);
	if (w->why)
		return;
	if (w->out) {
		sq_buf_add_str(w->out, *s);
		return;
	}
	if (n > max) {
		walk_fail(w, "string too long");
		return;
	}
	if (n > w->in.n - w->at) {
		walk_fail(w, "too short");
		return;
	}
	*s = (struct sq_str){ w->in.p + w->at, n };
	w->at += n;
}

static void
walk_octets(struct walk *w, uint8_t *p, size_t n)
{
	if (w->why)
		return;
	if (w->out) {
		sq_buf_add(w->out, p, n);
		return;
	}
	if (w->in.n - w->at < n) {
		walk_fail(w, "too short");
		return;
	}
	memcpy(p, w->in.p + w->at, n);
	w->at += n;
}

/* ---- parts that several frames share ---- */

static void
walk_reply(struct walk *w, struct sq_reply *r)
{
	uint16_t code = (uint16_t)r->code;
	struct sq_str enhanced = { r->enhanced, strnlen(r->enhanced, sizeof(r->enhanced)) };

	if (w->out && (r->code < 0 || r->code > 599))
		walk_fail(w, "reply code out of range");
	walk_u16(w, &code);
	if (code != 0 && (code < 200 || code > 599))
		walk_fail(w, "reply code out of range");
	r->code = code;

	walk_str(w, &enhanced, SQ_ENHANCED_MAX - 1);
	if (!w->out && !w->why) {
		if (enhanced.n > 0 && memchr(enhanced.p, 0, enhanced.n))
			walk_fail(w, "NUL in an enhanced code");
		memset(r->enhanced, 0, sizeof(r->enhanced));
		if (enhanced.n > 0)
			memcpy(r->enhanced, enhanced.p, enhanced.n);
	}
	walk_str(w, &r->text, SQ_REPLY_TEXT_MAX);
}

static void
walk_results(struct walk *w, uint32_t *n, struct sq_recipient_result *results)
{
	*n = walk_count(w, *n, SQ_GROUP_MAX);
	for (uint32_t i = 0; i < *n; i++) {
		struct sq_recipient_result *r = &results[i];
		uint64_t id = (uint64_t)r->id;

		walk_u64(w, &id);
		r->id = (int64_t)id;
		WALK_ENUM(w, r->cls, enum sq_class, SQ_CLASS_DOUBT);
		WALK_ENUM(w, r->scope, enum sq_scope, SQ_SCOPE_ROUTE);
		WALK_ENUM(w, r->cause, enum sq_outcome, SQ_OUTCOME_COUNT - 1);
		walk_u32(w, &r->wait_s);
		walk_reply(w, &r->reply);
	}
}

/* ---- the frames ---- */

static void
walk_job(struct walk *w, struct sq_job *j)
{
	WALK_ENUM(w, j->kind, enum sq_job_kind, SQ_JOB_FETCH);
	walk_str(w, &j->url, NAME_MAX_OCTETS);
	walk_str(w, &j->user, WORD_MAX_OCTETS);
	walk_str(w, &j->auth, WORD_MAX_OCTETS);
	WALK_ENUM(w, j->tls, enum sq_tls, SQ_TLS_NONE);
	walk_str(w, &j->ehlo_name, WORD_MAX_OCTETS);
	walk_str(w, &j->proxy, NAME_MAX_OCTETS);
	walk_str(w, &j->ca_file, NAME_MAX_OCTETS);
	walk_str(w, &j->fingerprint, WORD_MAX_OCTETS);
	walk_str(w, &j->client_cert, NAME_MAX_OCTETS);
	walk_str(w, &j->client_key, NAME_MAX_OCTETS);
	walk_u32(w, &j->connect_timeout_ms);
	walk_u32(w, &j->reply_timeout_ms);
	walk_u32(w, &j->content_timeout_ms);
	walk_u32(w, &j->verdict_timeout_ms);
	walk_u32(w, &j->verdict_past_ms);
	walk_bool(w, &j->patient);
	walk_bool(w, &j->eightbit_send);
	WALK_ENUM(w, j->ehlo_after_auth, enum sq_fact, SQ_FACT_NO);
	WALK_ENUM(w, j->bdat, enum sq_fact, SQ_FACT_NO);
	WALK_ENUM(w, j->pipelining, enum sq_fact, SQ_FACT_NO);
	WALK_ENUM(w, j->checkpoint, enum sq_fact, SQ_FACT_NO);
	walk_bool(w, &j->pipeline_messages);
	walk_str(w, &j->prefer, WORD_MAX_OCTETS);
	walk_bool(w, &j->prefer_only);
	walk_bool(w, &j->tell);
}

static void
walk_txn(struct walk *w, struct sq_txn *t)
{
	walk_u64(w, &t->size);
	walk_bool(w, &t->hash_known);
	walk_octets(w, t->sha256, sizeof(t->sha256));
	walk_str(w, &t->sender, SQ_ADDRESS_MAX);
	walk_str(w, &t->envid, WORD_MAX_OCTETS);
	WALK_ENUM(w, t->ret, enum sq_ret, SQ_RET_HDRS);
	t->flags = walk_small(w, t->flags, SQ_TXN_8BIT | SQ_TXN_SMTPUTF8 | SQ_TXN_RESEND | SQ_TXN_MORE | SQ_TXN_DOUBT);
	walk_str(w, &t->transid, SQ_TRANSID_MAX);
	walk_bool(w, &t->resume);
	t->verb = walk_small(w, t->verb, 'D');
	if (t->verb != 0 && t->verb != 'D' && t->verb != 'B')
		walk_fail(w, "verb is neither D nor B");
	walk_str(w, &t->store, SQ_STORE_MAX);
	walk_bool(w, &t->retained);
	if ((t->resume || (t->flags & SQ_TXN_DOUBT)) && (t->transid.n == 0 || t->verb == 0))
		walk_fail(w, "a transfer to resume without its TRANSID and verb");
	t->n_recipients = walk_count(w, t->n_recipients, SQ_GROUP_MAX);
	for (uint32_t i = 0; i < t->n_recipients; i++) {
		struct sq_txn_recipient *r = &t->recipients[i];
		uint64_t id = (uint64_t)r->id;

		walk_u64(w, &id);
		r->id = (int64_t)id;
		walk_str(w, &r->address, SQ_ADDRESS_MAX);
		walk_str(w, &r->orcpt, NAME_MAX_OCTETS);
		r->notify = walk_small(w, r->notify,
				       SQ_NOTIFY_NEVER | SQ_NOTIFY_SUCCESS | SQ_NOTIFY_FAILURE | SQ_NOTIFY_DELAY);
	}
}

static void
walk_ready(struct walk *w, struct sq_ready *r)
{
	walk_str(w, &r->address, WORD_MAX_OCTETS);
	walk_u32(w, &r->caps);
	walk_u64(w, &r->size_limit);
	walk_str(w, &r->ehlo, SQ_REPLY_TEXT_MAX);
	walk_u32(w, &r->connect_ms);
	walk_u32(w, &r->setup_ms);
	walk_str(w, &r->tls, WORD_MAX_OCTETS);
}

static void
walk_envelope(struct walk *w, struct sq_envelope *e)
{
	walk_u32(w, &e->seq);
	e->verb = walk_small(w, e->verb, 'D');
	if (e->verb != 'D' && e->verb != 'B')
		walk_fail(w, "verb is neither D nor B");
	walk_str(w, &e->transid, SQ_TRANSID_MAX);
	walk_str(w, &e->address, WORD_MAX_OCTETS);
	walk_str(w, &e->store, SQ_STORE_MAX);
	walk_u32(w, &e->retain_s);
	walk_u64(w, &e->offset);
	walk_results(w, &e->n_results, e->results);
}

static void
walk_terminator(struct walk *w, struct sq_terminator *t)
{
	walk_u32(w, &t->seq);
	t->n = walk_count(w, t->n, SQ_TXN_OPEN_MAX);
	if (t->n == 0)
		walk_fail(w, "no transaction named");
	for (uint32_t i = 0; i < t->n; i++) {
		walk_u16(w, &t->txns[i].txn);
		walk_u64(w, &t->txns[i].octets);
		walk_octets(w, t->txns[i].sha256, sizeof(t->txns[i].sha256));
	}
}

static void
walk_end(struct walk *w, struct sq_end *e)
{
	WALK_ENUM(w, e->outcome, enum sq_outcome, SQ_OUTCOME_COUNT - 1);
	WALK_ENUM(w, e->phase, enum sq_phase, SQ_PHASE_COUNT - 1);
	WALK_ENUM(w, e->scope, enum sq_scope, SQ_SCOPE_ROUTE);
	walk_u32(w, &e->wait_s);
	walk_u32(w, &e->os_error);
	walk_reply(w, &e->reply);
}

static void
walk_sample(struct walk *w, struct sq_link_sample *l)
{
	walk_u32(w, &l->rtt_us);
	walk_u32(w, &l->rttvar_us);
	walk_u32(w, &l->retransmits);
	walk_u32(w, &l->goodput_bps);
	walk_u32(w, &l->unacked);
	walk_u64(w, &l->acked);
}

static void
walk_step(struct walk *w, struct sq_stage *s)
{
	WALK_ENUM(w, s->kind, enum sq_stage_kind, SQ_STAGE_COUNT - 1);
	walk_u32(w, &s->ms);
	walk_u64(w, &s->server_ms);
	walk_str(w, &s->words, SQ_REPLY_TEXT_MAX);
}

static void
walk_certificate(struct walk *w, struct sq_certificate *c)
{
	walk_str(w, &c->subject, WORD_MAX_OCTETS);
	walk_str(w, &c->issuer, WORD_MAX_OCTETS);
	walk_str(w, &c->names, NAME_MAX_OCTETS);
	walk_u64(w, &c->not_before_s);
	walk_u64(w, &c->not_after_s);
	walk_octets(w, c->sha256, sizeof(c->sha256));
	walk_str(w, &c->problem, WORD_MAX_OCTETS);
}

static void
walk_lookup_job(struct walk *w, struct sq_lookup_job *j)
{
	walk_str(w, &j->address, WORD_MAX_OCTETS);
	walk_str(w, &j->domain, WORD_MAX_OCTETS);
	walk_str(w, &j->autoconfig, NAME_MAX_OCTETS);
	walk_str(w, &j->ca_file, NAME_MAX_OCTETS);
	walk_u32(w, &j->timeout_ms);
}

static void
walk_lookup(struct walk *w, struct sq_lookup *l)
{
	walk_str(w, &l->source, WORD_MAX_OCTETS);
	walk_str(w, &l->where, NAME_MAX_OCTETS);
	walk_str(w, &l->server, WORD_MAX_OCTETS);
	walk_str(w, &l->imap, WORD_MAX_OCTETS);
	walk_str(w, &l->user, WORD_MAX_OCTETS);
	walk_bool(w, &l->password);
	walk_bool(w, &l->oauth);
	walk_str(w, &l->auth_url, NAME_MAX_OCTETS);
	walk_str(w, &l->token_url, NAME_MAX_OCTETS);
	walk_str(w, &l->scope, NAME_MAX_OCTETS);
}

static void
walk_token_job(struct walk *w, struct sq_token_job *j)
{
	WALK_ENUM(w, j->kind, enum sq_token_kind, SQ_TOKEN_BROWSER);
	walk_str(w, &j->token_url, NAME_MAX_OCTETS);
	walk_str(w, &j->device_url, NAME_MAX_OCTETS);
	walk_str(w, &j->auth_url, NAME_MAX_OCTETS);
	walk_str(w, &j->client_id, WORD_MAX_OCTETS);
	walk_str(w, &j->client_secret, SQ_TOKEN_MAX);
	walk_str(w, &j->scope, NAME_MAX_OCTETS);
	walk_str(w, &j->refresh, SQ_TOKEN_MAX);
	walk_str(w, &j->login_hint, WORD_MAX_OCTETS);
	walk_str(w, &j->ca_file, NAME_MAX_OCTETS);
	walk_str(w, &j->proxy, NAME_MAX_OCTETS);
	walk_u32(w, &j->timeout_ms);
}

static void
walk_token(struct walk *w, struct sq_token *t)
{
	WALK_ENUM(w, t->outcome, enum sq_outcome, SQ_OUTCOME_COUNT - 1);
	walk_str(w, &t->access, SQ_TOKEN_MAX);
	walk_str(w, &t->refresh, SQ_TOKEN_MAX);
	walk_u32(w, &t->expires_s);
	walk_str(w, &t->words, SQ_REPLY_TEXT_MAX);
	if (!w->why && (t->outcome == SQ_OUTCOME_ACCEPTED) != (t->access.n > 0))
		walk_fail(w, "a token that is none");
}

static void
walk_read(struct walk *w, struct sq_read *r)
{
	walk_u64(w, &r->offset);
	walk_u32(w, &r->length);
	if (r->length == 0 || r->length > SQ_CONTENT_MAX || r->offset > UINT64_MAX - r->length)
		walk_fail(w, "length out of range");
}

static void
walk_payload(struct walk *w, struct sq_frame *f)
{
	switch (f->type) {
	case SQ_FRAME_HELLO:
		walk_u32(w, &f->u.hello.version);
		return;
	case SQ_FRAME_JOB:
		walk_job(w, &f->u.job);
		return;
	case SQ_FRAME_SECRET:
		walk_str(w, &f->u.secret, SQ_SECRET_MAX);
		return;
	case SQ_FRAME_TXN:
		walk_txn(w, &f->u.transaction);
		return;
	case SQ_FRAME_READY:
		walk_ready(w, &f->u.ready);
		return;
	case SQ_FRAME_READ:
		walk_read(w, &f->u.read);
		return;
	case SQ_FRAME_CONTENT:
		walk_u64(w, &f->u.content.offset);
		walk_str(w, &f->u.content.octets, SQ_CONTENT_MAX);
		return;
	case SQ_FRAME_ENVELOPE:
		walk_envelope(w, &f->u.envelope);
		return;
	case SQ_FRAME_TERMINATOR:
		walk_terminator(w, &f->u.terminator);
		return;
	case SQ_FRAME_GO:
		walk_u32(w, &f->u.go.seq);
		return;
	case SQ_FRAME_PROGRESS:
		walk_u64(w, &f->u.progress.handed);
		walk_u64(w, &f->u.progress.acked);
		walk_u64(w, &f->u.progress.durable);
		return;
	case SQ_FRAME_VERDICT:
		walk_str(w, &f->u.verdict.provider_id, WORD_MAX_OCTETS);
		walk_bool(w, &f->u.verdict.forget);
		walk_results(w, &f->u.verdict.n_results, f->u.verdict.results);
		return;
	case SQ_FRAME_LINK:
		walk_sample(w, &f->u.link);
		return;
	case SQ_FRAME_LEARNED:
		walk_str(w, &f->u.learned.key, WORD_MAX_OCTETS);
		walk_str(w, &f->u.learned.value, WORD_MAX_OCTETS);
		return;
	case SQ_FRAME_ASK:
		walk_str(w, &f->u.ask.message_id, NAME_MAX_OCTETS);
		walk_u32(w, &f->u.ask.traces);
		return;
	case SQ_FRAME_EVIDENCE:
		walk_str(w, &f->u.evidence.source, WORD_MAX_OCTETS);
		WALK_ENUM(w, f->u.evidence.kind, enum sq_evidence_kind, SQ_EVIDENCE_NEGATIVE);
		walk_str(w, &f->u.evidence.quote, SQ_REPLY_TEXT_MAX);
		walk_str(w, &f->u.evidence.provider_id, WORD_MAX_OCTETS);
		return;
	case SQ_FRAME_END:
		walk_end(w, &f->u.end);
		return;
	case SQ_FRAME_STAGE:
		walk_step(w, &f->u.stage);
		return;
	case SQ_FRAME_CERTIFICATE:
		walk_certificate(w, &f->u.certificate);
		return;
	case SQ_FRAME_TOKEN_JOB:
		walk_token_job(w, &f->u.token_job);
		return;
	case SQ_FRAME_TOKEN_PROMPT:
		walk_str(w, &f->u.token_prompt.url, SQ_TOKEN_URL_MAX);
		walk_str(w, &f->u.token_prompt.code, WORD_MAX_OCTETS);
		walk_u32(w, &f->u.token_prompt.expires_s);
		return;
	case SQ_FRAME_TOKEN:
		walk_token(w, &f->u.token);
		return;
	case SQ_FRAME_LOOKUP_JOB:
		walk_lookup_job(w, &f->u.lookup_job);
		return;
	case SQ_FRAME_LOOKUP:
		walk_lookup(w, &f->u.lookup);
		return;
	case SQ_FRAME_IDLE:
	case SQ_FRAME_CANCEL:
	case SQ_FRAME_BYE:
		return;
	}
	walk_fail(w, "unknown type");
}

/* Frames about a transaction name it; frames about the session do not. */
static bool
txn_fits(enum sq_frame_type type, uint16_t txn)
{
	switch (type) {
	case SQ_FRAME_TXN:
	case SQ_FRAME_READ:
	case SQ_FRAME_CONTENT:
	case SQ_FRAME_ENVELOPE:
	case SQ_FRAME_PROGRESS:
	case SQ_FRAME_VERDICT:
	case SQ_FRAME_ASK:
		return txn != 0;
	case SQ_FRAME_HELLO:
	case SQ_FRAME_JOB:
	case SQ_FRAME_SECRET:
	case SQ_FRAME_READY:
	case SQ_FRAME_TERMINATOR:
	case SQ_FRAME_LINK:
	case SQ_FRAME_LEARNED:
	case SQ_FRAME_IDLE:
	case SQ_FRAME_BYE:
	case SQ_FRAME_END:
	case SQ_FRAME_STAGE:
	case SQ_FRAME_CERTIFICATE:
	case SQ_FRAME_TOKEN_JOB:
	case SQ_FRAME_TOKEN_PROMPT:
	case SQ_FRAME_TOKEN:
	case SQ_FRAME_LOOKUP_JOB:
	case SQ_FRAME_LOOKUP:
		return txn == 0;
	case SQ_FRAME_GO:
	case SQ_FRAME_CANCEL:
	case SQ_FRAME_EVIDENCE:
		return true;
	}
	return false;
}

static void
put_header(char *p, size_t payload, enum sq_frame_type type, uint16_t txn)
{
	for (size_t i = 0; i < 4; i++)
		p[i] = (char)(unsigned char)(payload >> (8 * i));
	p[4] = (char)((unsigned)type & 255);
	p[5] = (char)((unsigned)type >> 8);
	p[6] = (char)(txn & 255);
	p[7] = (char)(txn >> 8);
}

enum sq_err
sq_frame_encode(const struct sq_frame *f, struct sq_buf *out, struct sq_error *err)
{
	struct walk w = { .out = out };
	size_t start = out->n;
	char header[SQ_FRAME_HEADER] = { 0 };
	struct sq_str whole;
	enum sq_err e;

	if ((e = sq_buf_view(out, &whole, err)) != SQ_OK)
		return e;
	sq_buf_add(out, header, sizeof(header));
	/* The walk writes through its pointers only while decoding, but for values that it leaves as they are. */
	walk_payload(&w, (struct sq_frame *)(uintptr_t)f);
	if (!w.why && !txn_fits(f->type, f->txn))
		w.why = "wrong transaction number";
	if (!w.why && !out->failed && out->n - start - sizeof(header) > SQ_FRAME_MAX)
		w.why = "frame too large";

	if (w.why)
		e = sq_error_set(err, SQ_ELIMIT, "cannot encode frame %s: %s", sq_frame_type_name(f->type), w.why);
	else
		e = sq_buf_view(out, &whole, err);
	if (e != SQ_OK) {
		out->failed = false;
		if (out->p) {
			sq_wipe(out->p + start, out->n - start);
			out->n = start;
		}
		return e;
	}
	put_header(out->p + start, out->n - start - sizeof(header), f->type, f->txn);
	return SQ_OK;
}

static uint32_t
get_le(const char *p, size_t octets)
{
	uint32_t v = 0;

	for (size_t i = 0; i < octets; i++)
		v |= (uint32_t)(unsigned char)p[i] << (8 * i);
	return v;
}

enum sq_err
sq_frame_decode(struct sq_str in, struct sq_frame *out, size_t *used, struct sq_error *err)
{
	struct walk w = { .out = NULL };
	uint32_t length, type;

	*used = 0;
	if (in.n < SQ_FRAME_HEADER)
		return SQ_OK;
	length = get_le(in.p, 4);
	type = get_le(in.p + 4, 2);
	if (length > SQ_FRAME_MAX)
		return sq_error_set(err, SQ_EPROTO, "bad frame: %u octets", length);
	if (type < SQ_FRAME_HELLO || type > SQ_FRAME_LAST)
		return sq_error_set(err, SQ_EPROTO, "bad frame: type %u", type);
	if (in.n - SQ_FRAME_HEADER < length)
		return SQ_OK;

	memset(out, 0, sizeof(*out));
	out->type = (enum sq_frame_type)type;
	out->txn = (uint16_t)get_le(in.p + 6, 2);
	w.in = (struct sq_str){ in.p + SQ_FRAME_HEADER, length };
	if (!txn_fits(out->type, out->txn))
		walk_fail(&w, "wrong transaction number");
	walk_payload(&w, out);
	if (!w.why && w.at != length)
		w.why = "octets left over";
	if (w.why)
		return sq_error_set(err, SQ_EPROTO, "bad frame %s: %s", sq_frame_type_name(out->type), w.why);
	*used = SQ_FRAME_HEADER + length;
	return SQ_OK;
}
