/*
 * DATA and BDAT: octets of the wire become octets of the message. Dots are
 * un-stuffed before anything is counted; a bare CR or LF in DATA is refused,
 * never mended.
 */
#include "gateway.h"

#include <inttypes.h>

enum { BOL, DOT, DOT_CR, TEXT, TEXT_CR };

void
gw_machine_sync(struct gw_machine *m)
{
	enum sq_err e;

	if (!gw_machine_unsynced(m))
		return;
	if ((e = m->ops->sync(m->ctx)) != SQ_OK)
		gw_give_up(m, e);
	m->unsynced = 0;
}

bool
gw_machine_unsynced(const struct gw_machine *m)
{
	return m->open && m->writing && m->unsynced > 0;
}

/* Content that will never be taken: say so and hang up, for nobody can say where such content ends. */
static void
refuse_content(struct gw_machine *m, const char *text)
{
	gw_transaction_drop(m);
	gw_say(m, text);
	m->closing = true;
}

static bool
append(struct gw_machine *m, const char *p, size_t n)
{
	enum sq_err e;

	if (n == 0)
		return true;
	if (m->ops->octets(m->ctx) + (int64_t)n > m->max_size_bytes) {
		refuse_content(m, "552 5.3.4 message too large");
		return false;
	}
	if ((e = m->ops->append(m->ctx, p, n)) != SQ_OK) {
		gw_give_up(m, e);
		return false;
	}
	m->unsynced += (int64_t)n;
	if (m->unsynced >= GW_SYNC_BYTES)
		gw_machine_sync(m);
	return !m->closing;
}

static void
finish(struct gw_machine *m)
{
	struct gw_reply verdict = { "" };
	enum sq_err e;

	m->writing = false;
	if ((e = m->ops->finish(m->ctx, m->tls, &verdict)) != SQ_OK) {
		gw_give_up(m, e);
		return;
	}
	if (!verdict.text[0]) {
		m->closing = true;
		m->open = false;
		return;
	}
	/* The transaction stays this session's until RSET, MAIL or QUIT: that is when the client knows. */
	gw_say(m, verdict.text);
	m->settled = true;
}

static bool
may_send(struct gw_machine *m, enum gw_verb verb)
{
	enum gw_verb begun = m->ops->verb(m->ctx);

	return m->open && !m->settled && (m->resumed || m->rcpt_any) && (begun == GW_VERB_NONE || begun == verb);
}

static bool
begin_content(struct gw_machine *m, enum gw_verb verb)
{
	enum sq_err e = m->writing ? SQ_OK : m->ops->content(m->ctx, verb);

	if (e != SQ_OK)
		gw_give_up(m, e);
	else
		m->writing = true;
	return e == SQ_OK;
}

/* ---- DATA */

/*
 * Take a run of text that holds neither CR nor LF, or one octet that matters.
 * Returns the octets used; *end turns true behind the final dot.
 */
static size_t
data_run(struct gw_machine *m, const char *p, size_t n, bool *end)
{
	int state = m->data_state;
	char c = *p;
	size_t run;

	if (state == BOL && c == '.') {
		m->data_state = DOT;
		return 1;
	}
	if (c == '\r' && state != DOT_CR && state != TEXT_CR) {
		m->data_state = state == DOT ? DOT_CR : TEXT_CR;
		return 1;
	}
	if (c == '\n' && state == TEXT_CR) {
		sq_buf_add(&m->text, "\r\n", 2);
		m->data_state = BOL;
		return 1;
	}
	if (c == '\n' && state == DOT_CR) {
		*end = true;
		return 1;
	}
	if (c == '\n' || state == DOT_CR || state == TEXT_CR) {
		/* Mending it would shift offsets, passing it on is how mail is smuggled. */
		refuse_content(m, "554 5.6.0 a bare CR or LF stands in the message");
		return n;
	}
	for (run = 1; run < n && p[run] != '\r' && p[run] != '\n'; run++)
		;
	sq_buf_add(&m->text, p, run);
	m->data_state = TEXT;
	return run;
}

size_t
gw_take_data(struct gw_machine *m, const char *p, size_t n)
{
	size_t i = 0;
	bool end = false;

	if (n > GW_BLOCK_BYTES)
		n = GW_BLOCK_BYTES;
	while (i < n && !end && !m->closing)
		i += data_run(m, p + i, n - i, &end);
	if (m->closing)
		return i;
	if (m->text.failed) {
		gw_give_up(m, SQ_ENOMEM);
		return i;
	}
	if (!append(m, m->text.p, m->text.n))
		return i;
	sq_buf_clear(&m->text);
	if (end) {
		m->mode = GW_COMMAND;
		finish(m);
	}
	return i;
}

void
gw_do_data(struct gw_machine *m, char *arg)
{
	if (*arg) {
		gw_refuse(m, "501 5.5.4 DATA takes no argument");
	} else if (!may_send(m, GW_VERB_DATA)) {
		gw_refuse(m, m->open && !m->settled && !m->resumed && !m->rcpt_any ?
		    "554 5.5.1 no valid recipients" : "503 5.5.1 MAIL and RCPT first, and the verb that this message began with");
	} else if (begin_content(m, GW_VERB_DATA)) {
		m->mode = GW_DATA;
		m->data_state = BOL;
		gw_say(m, "354 go on");
	}
}

/* ---- BDAT */

static void
bdat_end(struct gw_machine *m)
{
	m->mode = GW_COMMAND;
	if (m->bdat_refused) {
		gw_refuse(m, "503 5.5.1 no transaction for this chunk: MAIL and RCPT first");
	} else if (m->bdat_last) {
		finish(m);
	} else {
		/* The 250 says that the octets are safe. */
		gw_machine_sync(m);
		if (!m->closing)
			sq_buf_addf(&m->out, "250 2.0.0 %" PRId64 " octets stored\r\n", m->ops->octets(m->ctx));
	}
}

size_t
gw_take_bdat(struct gw_machine *m, const char *p, size_t n)
{
	size_t take = (int64_t)n < m->bdat_left ? n : (size_t)m->bdat_left;

	if (take > GW_BLOCK_BYTES)
		take = GW_BLOCK_BYTES;
	if (!m->bdat_refused && !append(m, p, take))
		return take;
	m->bdat_left -= (int64_t)take;
	if (m->bdat_left == 0)
		bdat_end(m);
	return take;
}

void
gw_do_bdat(struct gw_machine *m, char *arg)
{
	char *end;

	if (!gw_parse_number(arg, &end, &m->bdat_left) || (*end && strcasecmp(end, " LAST") != 0)) {
		/* How many octets follow cannot be known. */
		gw_say(m, "501 5.5.4 BDAT needs a number of octets");
		m->closing = true;
		return;
	}
	m->bdat_last = *end != 0;
	m->bdat_refused = !may_send(m, GW_VERB_BDAT);
	if (!m->bdat_refused && m->bdat_left > m->max_size_bytes - m->ops->octets(m->ctx)) {
		refuse_content(m, "552 5.3.4 message too large");
		return;
	}
	if (!m->bdat_refused && !begin_content(m, GW_VERB_BDAT))
		return;
	m->mode = GW_BDAT;
	if (m->bdat_left == 0)
		bdat_end(m);
}
