/*
 * The window's side of a session: it collects transactions until the last
 * one, asks for the terminators of all, and reports each as it is answered.
 */
#include "carry_group.h"

#include <openssl/evp.h>
#include <stddef.h>

#include <sendq/fault.h>

enum { SEQ_FIRST = 1 << 30 }; /* apart from those of single transactions */

struct member {
	struct sq_txn *txn;   /* strings in `words` */
	char *words;
	uint16_t number;
	size_t at;            /* of its content in the window's */
};

struct window {
	struct sq_stream *runner;
	const struct sq_job *job;
	const struct carry_io *io;
	struct sq_session *s;
	bool *runner_gone;
	struct sq_group g;
	struct member members[SQ_TXN_OPEN_MAX];
	uint32_t n, whole;    /* collected; those whose content is there */
	bool last, asked, begun, told_anomaly;
	struct sq_buf content;
	uint32_t seq;
	struct sq_frame *frame;
};

struct window *
window_new(struct sq_stream *runner, const struct sq_job *job, const struct carry_io *io, struct sq_session *s, bool *runner_gone)
{
	struct window *w = calloc(1, sizeof(*w));

	if (!w || !(w->frame = calloc(1, sizeof(*w->frame))))
		sq_bug("out of memory");
	w->runner = runner;
	w->job = job;
	w->io = io;
	w->s = s;
	w->runner_gone = runner_gone;
	w->seq = SEQ_FIRST;
	w->content = (struct sq_buf)SQ_BUF_INIT(SQ_WINDOW_OCTETS);
	return w;
}

static void
close_window(struct window *w)
{
	for (uint32_t i = 0; i < w->n; i++) {
		free(w->members[i].txn);
		free(w->members[i].words);
	}
	memset(w->members, 0, sizeof(w->members));
	w->n = w->whole = 0;
	w->last = w->asked = w->begun = w->told_anomaly = false;
	sq_buf_clear(&w->content);
	sq_group_fini(&w->g);
}

void
window_free(struct window *w)
{
	close_window(w);
	sq_buf_fini(&w->content);
	free(w->frame);
	free(w);
}

bool
window_open(const struct window *w)
{
	return w->n > 0;
}

static void
put(struct window *w, const struct sq_frame *f)
{
	struct sq_error err;

	if (sq_stream_put(w->runner, f, &err) != SQ_OK || sq_stream_flush(w->runner, &err) != SQ_OK)
		*w->runner_gone = true;
}

/* ---- frames ---- */

static struct sq_str
keep(char **at, struct sq_str s)
{
	struct sq_str kept = { *at, s.n };

	if (s.n > 0)
		memcpy(*at, s.p, s.n);
	*at += s.n;
	return kept;
}

/* Copy what the frame only lends; of the large struct no more than is used. */
static bool
keep_txn(struct member *m, const struct sq_txn *t)
{
	size_t n = t->sender.n + t->envid.n + 1;
	char *at;

	for (uint32_t i = 0; i < t->n_recipients; i++)
		n += t->recipients[i].address.n + t->recipients[i].orcpt.n;
	m->txn = malloc(sizeof(*m->txn));
	m->words = at = malloc(n);
	if (!m->txn || !m->words)
		return false;
	memcpy(m->txn, t, offsetof(struct sq_txn, recipients) + t->n_recipients * sizeof(t->recipients[0]));
	m->txn->transid = m->txn->store = (struct sq_str){ 0 };
	m->txn->sender = keep(&at, t->sender);
	m->txn->envid = keep(&at, t->envid);
	for (uint32_t i = 0; i < t->n_recipients; i++) {
		m->txn->recipients[i].address = keep(&at, t->recipients[i].address);
		m->txn->recipients[i].orcpt = keep(&at, t->recipients[i].orcpt);
	}
	return true;
}

const char *
window_txn(struct window *w, const struct sq_frame *f)
{
	struct member *m;

	if (w->n == SQ_TXN_OPEN_MAX || w->last || w->whole < w->n || (w->n == 0 && !sq_group_may(w->s)) || !w->job->pipeline_messages)
		return "TXN of a window out of turn";
	if (f->u.transaction.n_recipients == 0 || f->u.transaction.size == 0)
		return "TXN without recipients or content";
	for (uint32_t i = 0; i < w->n; i++)
		if (w->members[i].number == f->txn)
			return "two transactions of a window with one number";
	m = &w->members[w->n++];
	m->number = f->txn;
	m->at = w->content.n;
	w->last = !(f->u.transaction.flags & SQ_TXN_MORE);
	return keep_txn(m, &f->u.transaction) ? NULL : "out of memory";
}

/* The last one is whole: make the group. */
static const char *
begin(struct window *w)
{
	const struct sq_txn *txns[SQ_TXN_OPEN_MAX];
	struct sq_str contents[SQ_TXN_OPEN_MAX];
	struct sq_error err = { 0 };

	if (!sq_group_may(w->s))
		return NULL; /* the session ended meanwhile, and says so itself */
	for (uint32_t i = 0; i < w->n; i++) {
		txns[i] = w->members[i].txn;
		contents[i] = (struct sq_str){ w->content.p + w->members[i].at, (size_t)w->members[i].txn->size };
	}
	if (sq_group_begin(&w->g, w->s, txns, contents, w->n, &err) != SQ_OK)
		return "a window that is too large";
	w->begun = true;
	return NULL;
}

const char *
window_content(struct window *w, const struct sq_frame *f)
{
	const struct sq_content *x = &f->u.content;
	const struct member *m = &w->members[w->n - 1];

	if (w->whole == w->n || f->txn != m->number || x->offset != 0 || x->octets.n != m->txn->size)
		return "CONTENT that is not the last transaction's";
	sq_buf_add_str(&w->content, x->octets);
	if (w->content.failed)
		return "a window that is too large";
	w->whole++;
	return w->last ? begin(w) : NULL;
}

static void
ask_terminator(struct window *w)
{
	struct sq_frame *f = w->frame;
	struct sq_terminator *t = &f->u.terminator;

	memset(f, 0, sizeof(*f));
	f->type = SQ_FRAME_TERMINATOR;
	t->seq = ++w->seq;
	for (uint32_t i = 0; i < w->n; i++) {
		const struct member *m = &w->members[i];
		unsigned n = 0;

		if (w->g.messages[i].end == 0)
			continue;
		t->txns[t->n].txn = m->number;
		t->txns[t->n].octets = m->txn->size;
		if (EVP_Digest(w->content.p + m->at, (size_t)m->txn->size, t->txns[t->n].sha256, &n, EVP_sha256(), NULL) != 1 || n != 32)
			sq_bug("no SHA-256");
		t->n++;
	}
	w->asked = true;
	put(w, f);
}

const char *
window_go(struct window *w, const struct sq_frame *f)
{
	if (!w->asked || f->u.go.seq != w->seq)
		return "GO that nobody asked for";
	w->asked = false;
	if (sq_group_want(&w->g) != SQ_WANT_TERMINATOR_GO)
		return NULL; /* the server has spoken before it was asked: nothing goes out */
	SQ_FAULT(agent_before_terminator);
	w->io->arm(w->io->arg, true);
	sq_group_go(&w->g);
	return NULL;
}

bool
window_cancel(struct window *w)
{
	if (w->begun && w->g.state != SQ_GROUP_ASK)
		return false;
	window_lost(w, SQ_OUTCOME_CANCELLED, "cancelled", false);
	return true;
}

/* ---- the connection ---- */

void
window_receive(struct window *w, const char *p, size_t n)
{
	if (w->begun)
		sq_group_receive(&w->g, p, n);
	else
		sq_session_receive(w->s, p, n);
}

void
window_lost(struct window *w, enum sq_outcome outcome, const char *why, bool by_server)
{
	if (w->begun)
		sq_group_lost(&w->g, outcome, why, by_server);
	else
		sq_session_lost(w->s, outcome, why);
}

struct sq_str
window_out(struct window *w, size_t max)
{
	size_t n = w->g.out.n < max ? w->g.out.n : max;

	sq_group_offer(&w->g, n);
	return (struct sq_str){ w->g.out.p, n };
}

void
window_sent(struct window *w, size_t n)
{
	sq_group_sent(&w->g, n);
	SQ_FAULT(agent_content);
	if (w->g.out.n == 0)
		SQ_FAULT(agent_after_terminator);
}

/* What has been answered is told in one go: the runner commits it in one. */
static void
report(struct window *w)
{
	struct sq_frame *f = w->frame;
	char id[SQ_PROVIDER_ID_MAX];
	struct sq_error err;

	SQ_FAULT(agent_after_reply);
	while (sq_group_want(&w->g) == SQ_WANT_VERDICT && !*w->runner_gone) {
		uint32_t i = sq_group_verdict(&w->g);
		const struct sq_group_message *m = &w->g.messages[i];

		f->type = SQ_FRAME_VERDICT;
		f->txn = w->members[i].number;
		f->u.verdict.forget = false;
		f->u.verdict.n_results = m->txn->n_recipients;
		memcpy(f->u.verdict.results, m->results, m->txn->n_recipients * sizeof(m->results[0]));
		f->u.verdict.provider_id = provider_id(m->results, m->txn->n_recipients, id);
		if (sq_stream_put(w->runner, f, &err) != SQ_OK)
			*w->runner_gone = true;
		sq_group_reported(&w->g);
	}
	if (sq_stream_flush(w->runner, &err) != SQ_OK)
		*w->runner_gone = true;
	SQ_FAULT(agent_after_verdict);
}

/* What a server did that it must not is said before the session's end. */
static void
tell_anomaly(struct window *w)
{
	struct sq_frame f = { .type = SQ_FRAME_LEARNED };

	if (!w->g.anomaly || w->told_anomaly)
		return;
	f.u.learned.key = SQ_STR("window");
	f.u.learned.value = sq_str(w->g.anomaly);
	w->told_anomaly = true;
	put(w, &f);
}

enum sq_want
window_step(struct window *w)
{
	while (w->begun && !*w->runner_gone) {
		enum sq_want want = sq_group_want(&w->g);

		tell_anomaly(w);
		switch (want) {
		case SQ_WANT_VERDICT:
			report(w);
			continue;
		case SQ_WANT_TERMINATOR_GO:
			if (!w->asked)
				ask_terminator(w);
			return SQ_WANT_REPLY;
		case SQ_WANT_NOTHING:
			/* Armed it stays where something is without its answer: the end is a reset then. */
			if (!w->g.doubt)
				w->io->arm(w->io->arg, false);
			close_window(w);
			return SQ_WANT_NOTHING;
		case SQ_WANT_SEND:
		case SQ_WANT_REPLY:
		case SQ_WANT_TXN:
		case SQ_WANT_ENVELOPE_GO:
		case SQ_WANT_CONTENT:
		case SQ_WANT_DRAINED:
			return want;
		}
	}
	return SQ_WANT_REPLY;
}

bool
window_given(const struct window *w)
{
	return w->begun && w->g.state == SQ_GROUP_SENT;
}

uint64_t
window_octets(const struct window *w)
{
	return w->content.n;
}
