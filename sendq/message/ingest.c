/*
 * The intake: raw octets in, the frozen stream out. Two layers: the lower one
 * makes line ends, looks for the final dot and for what cannot be sent; the
 * upper one gathers the header, settles what is missing or must go, and lets
 * the body through. Holds one header and 64 KiB, never more.
 */
#include <sendq/message.h>

#include <sendq/io.h>

enum {
	OUT_SIZE = 64 * 1024,
	/* A first line longer than this without a field name cannot be a header line. */
	PARTIAL_LINE = 998,
};

enum stage { STAGE_HEADER, STAGE_BODY, STAGE_DONE };

struct sq_intake {
	struct sq_intake_options options;
	struct sq_intake_ops ops;
	struct sq_intake_facts facts;
	struct sq_buf header;      /* canonical, whole lines but for the last */
	size_t line_at;            /* where the last line of `header` begins */
	enum stage stage;
	bool first_line;           /* of the header: may be mbox "From " */
	bool at_line_start;        /* nothing of this line seen yet */
	bool dot;                  /* the line is "." so far, held back */
	bool any;                  /* an octet came in */
	size_t crs;                /* CRs seen, what follows not yet */
	uint64_t line, octet;      /* of the input, from 1 */
	size_t out_n;
	char out[OUT_SIZE];
};

enum sq_err
sq_intake_new(struct sq_intake_options options, struct sq_intake_ops ops, struct sq_intake **out, struct sq_error *err)
{
	struct sq_intake *in = malloc(sizeof(*in));

	if (!in)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	memset(in, 0, offsetof(struct sq_intake, out));
	in->options = options;
	in->ops = ops;
	in->header.max = SQ_HEADER_MAX;
	in->first_line = in->at_line_start = true;
	in->line = in->octet = 1;
	in->facts.empty = true;
	*out = in;
	return SQ_OK;
}

void
sq_intake_free(struct sq_intake *in)
{
	if (!in)
		return;
	free(in->facts.from);
	free(in->facts.from_fault);
	free(in->facts.from_value);
	free(in->facts.message_id);
	free(in->facts.subject);
	sq_address_list_fini(&in->facts.recipients);
	sq_buf_fini(&in->header);
	free(in);
}

void
sq_intake_freep(struct sq_intake **in)
{
	sq_intake_free(*in);
	*in = NULL;
}

const struct sq_intake_facts *
sq_intake_facts(const struct sq_intake *in)
{
	return &in->facts;
}

/* ---- out ----------------------------------------------------------- */

static enum sq_err
out_flush(struct sq_intake *in, struct sq_error *err)
{
	size_t n = in->out_n;

	in->out_n = 0;
	return n ? in->ops.sink(in->ops.arg, in->out, n, err) : SQ_OK;
}

static enum sq_err
out_add(struct sq_intake *in, const char *p, size_t n, struct sq_error *err)
{
	enum sq_err e;

	in->facts.size += n;
	while (n > 0) {
		size_t room = OUT_SIZE - in->out_n, k = n < room ? n : room;

		memcpy(in->out + in->out_n, p, k);
		in->out_n += k;
		p += k;
		n -= k;
		if (in->out_n == OUT_SIZE && (e = out_flush(in, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

static bool
has_8bit(const char *p, size_t n)
{
	uint64_t word;

	for (; n >= sizeof(word); p += sizeof(word), n -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		if (word & UINT64_C(0x8080808080808080))
			return true;
	}
	for (; n > 0; p++, n--)
		if (*p & 0x80)
			return true;
	return false;
}

/* ---- the header ------------------------------------------------------ */

enum field_id {
	F_FROM, F_RESENT_FROM, F_SENDER, F_REPLY_TO, F_TO, F_CC, F_BCC, F_RESENT_TO, F_RESENT_CC, F_RESENT_BCC,
	F_DATE, F_MESSAGE_ID, F_SUBJECT, F_AUTO_SUBMITTED, F_RETURN_PATH, F_CONTENT_TYPE, F_DKIM, F_OTHER,
};

enum {
	ADDRESSES = 1,   /* an address list; may need SMTPUTF8 */
	RECIPIENTS = 2,
	RESENT = 4,      /* with RECIPIENTS */
	DROP = 8,        /* never sent */
	DROP_EMPTY = 16, /* counts as missing without a value */
};

static const struct {
	const char *name;
	int kind;
} fields[F_OTHER] = {
	[F_FROM] = { "From", ADDRESSES | DROP_EMPTY },
	[F_RESENT_FROM] = { "Resent-From", ADDRESSES },
	[F_SENDER] = { "Sender", ADDRESSES },
	[F_REPLY_TO] = { "Reply-To", ADDRESSES },
	[F_TO] = { "To", ADDRESSES | RECIPIENTS },
	[F_CC] = { "Cc", ADDRESSES | RECIPIENTS },
	[F_BCC] = { "Bcc", RECIPIENTS | DROP },
	[F_RESENT_TO] = { "Resent-To", ADDRESSES | RECIPIENTS | RESENT },
	[F_RESENT_CC] = { "Resent-Cc", ADDRESSES | RECIPIENTS | RESENT },
	[F_RESENT_BCC] = { "Resent-Bcc", RECIPIENTS | RESENT | DROP },
	[F_DATE] = { "Date", DROP_EMPTY },
	[F_MESSAGE_ID] = { "Message-ID", DROP_EMPTY },
	[F_SUBJECT] = { "Subject", 0 },
	[F_AUTO_SUBMITTED] = { "Auto-Submitted", 0 },
	[F_RETURN_PATH] = { "Return-Path", DROP },
	[F_CONTENT_TYPE] = { "Content-Type", 0 },
	[F_DKIM] = { "DKIM-Signature", 0 },
};

static enum field_id
field_id(struct sq_str name)
{
	int id = 0;

	while (id < F_OTHER && !sq_str_caseeq(name, sq_str(fields[id].name)))
		id++;
	return (enum field_id)id;
}

static bool
is_dropped(enum field_id id, struct sq_str value)
{
	return id != F_OTHER && ((fields[id].kind & DROP) || ((fields[id].kind & DROP_EMPTY) && value.n == 0));
}

static enum sq_err
keep(char **slot, struct sq_str value, struct sq_error *err)
{
	if (*slot)
		return SQ_OK;
	*slot = sq_str_dup(value);
	return *slot ? SQ_OK : sq_error_set(err, SQ_ENOMEM, "out of memory");
}

/* The address that stands for the author. A value that has none is a fact, not an error: -f may give the sender. */
static enum sq_err
note_from(struct sq_intake *in, struct sq_str value, bool resent, struct sq_error *err)
{
	struct sq_address_list l = { 0 };
	struct sq_error why;
	enum sq_err e = sq_address_parse_list(value, &l, &why);

	if (e == SQ_ENOMEM) {
		sq_address_list_fini(&l);
		return sq_error_set(err, e, "out of memory");
	}
	if (l.n > 0) {
		if (resent) {
			free(in->facts.from);
			in->facts.from = NULL;
		}
		in->facts.from_qualified = sq_address_is_qualified(&l.v[0]);
		e = keep(&in->facts.from, sq_str(l.v[0].text), err);
	} else {
		e = keep(&in->facts.from_fault, e == SQ_OK ? SQ_STR("it names nobody") : sq_str(why.text), err);
	}
	sq_address_list_fini(&l);
	return e;
}

static enum sq_err
note_utf8(struct sq_intake *in, struct sq_str value, struct sq_error *err)
{
	struct sq_address_list l = { 0 };
	struct sq_error why;
	enum sq_err e;

	if (!has_8bit(value.p, value.n))
		return SQ_OK;
	e = sq_address_parse_list(value, &l, &why);
	for (size_t i = 0; i < l.n; i++)
		in->facts.smtputf8 |= l.v[i].utf8;
	sq_address_list_fini(&l);
	return e == SQ_ENOMEM ? sq_error_set(err, e, "out of memory") : SQ_OK;
}

static enum sq_err
note_value(struct sq_intake *in, enum field_id id, struct sq_str value, bool *resent, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(SQ_SUBJECT_MAX);
	bool later_resent = *resent;

	switch (id) {
	case F_FROM:
		in->facts.has_from = true;
		if (keep(&in->facts.from_value, value, err) != SQ_OK)
			return SQ_ENOMEM;
		return in->facts.from || *resent ? SQ_OK : note_from(in, value, false, err);
	case F_RESENT_FROM:
		*resent = true;
		return later_resent ? SQ_OK : note_from(in, value, true, err);
	case F_DATE:
		in->facts.has_date = true;
		return SQ_OK;
	case F_MESSAGE_ID:
		if (value.n > SQ_MESSAGE_ID_MAX)
			return sq_error_set(err, SQ_ELIMIT, "the Message-ID is longer than %d octets", SQ_MESSAGE_ID_MAX);
		in->facts.has_message_id = true;
		return keep(&in->facts.message_id, value, err);
	case F_SUBJECT:
		sq_header_text(value, SQ_SUBJECT_MAX, &text);
		return keep(&in->facts.subject, (struct sq_str){ text.p, text.n }, err);
	case F_AUTO_SUBMITTED:
		in->facts.auto_submitted |= sq_str_casestarts(value, SQ_STR("auto-"));
		return SQ_OK;
	case F_CONTENT_TYPE:
		in->facts.is_signed |= sq_str_casestarts(value, SQ_STR("multipart/signed")) ||
			sq_str_casestarts(value, SQ_STR("application/pkcs7-mime")) ||
			sq_str_casestarts(value, SQ_STR("application/x-pkcs7-mime"));
		return SQ_OK;
	case F_DKIM:
		in->facts.is_signed = in->facts.dkim = true;
		return SQ_OK;
	case F_TO: case F_CC:
		in->facts.has_to = true;
		return SQ_OK;
	case F_SENDER: case F_REPLY_TO: case F_BCC: case F_RESENT_TO: case F_RESENT_CC:
	case F_RESENT_BCC: case F_RETURN_PATH: case F_OTHER:
		return SQ_OK;
	}
	return SQ_OK;
}

/* Every field once: what it says, and whether any recipient field is of the Resent kind. */
static enum sq_err
read_fields(struct sq_intake *in, struct sq_str block, bool *resent_recipients, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf value = SQ_BUF_INIT(SQ_HEADER_MAX);
	struct sq_field f;
	bool resent = false;
	enum sq_err e;

	while (sq_field_next(&block, &f)) {
		enum field_id id = field_id(f.name);
		struct sq_str v;

		if (id == F_OTHER)
			continue;
		sq_buf_clear(&value);
		sq_field_unfold(f.body, &value);
		if ((e = sq_buf_view(&value, &v, err)) != SQ_OK)
			return e;
		*resent_recipients |= (fields[id].kind & RESENT) && v.n > 0;
		if (is_dropped(id, v))
			continue;
		if ((e = note_value(in, id, v, &resent, err)) != SQ_OK)
			return e;
		if ((fields[id].kind & ADDRESSES) && (e = note_utf8(in, v, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

static enum sq_err
read_recipients(struct sq_intake *in, struct sq_str block, bool resent, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf value = SQ_BUF_INIT(SQ_HEADER_MAX);
	struct sq_field f;
	enum sq_err e;

	while (sq_field_next(&block, &f)) {
		enum field_id id = field_id(f.name);
		struct sq_str v;

		if (id == F_OTHER || !(fields[id].kind & RECIPIENTS) || ((fields[id].kind & RESENT) != 0) != resent)
			continue;
		sq_buf_clear(&value);
		sq_field_unfold(f.body, &value);
		if ((e = sq_buf_view(&value, &v, err)) != SQ_OK)
			return e;
		if ((e = sq_address_parse_list(v, &in->facts.recipients, err)) != SQ_OK)
			return sq_error_wrap(err, e, "the %s field", fields[id].name);
	}
	return SQ_OK;
}

/* A From that is missing, or gets another address: then its name stays. */
static enum sq_err
add_from(struct sq_intake *in, const struct sq_intake_missing *m, struct sq_buf *b, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf name = SQ_BUF_INIT(4096);
	struct sq_str phrase;
	enum sq_err e;

	if (m->replace_from && in->facts.from_value)
		sq_header_name(sq_str(in->facts.from_value), &name);
	else if (m->full_name)
		sq_header_phrase(sq_str(m->full_name), &name);
	if ((e = sq_buf_view(&name, &phrase, err)) != SQ_OK)
		return sq_error_wrap(err, e, "the name in From");
	if (phrase.n > 0)
		sq_buf_addf(b, "From: %.*s <%s>\r\n", (int)phrase.n, phrase.p, m->from);
	else
		sq_buf_addf(b, "From: %s\r\n", m->from);
	return SQ_OK;
}

/* What is missing goes to the end of the block. */
static enum sq_err
add_missing(struct sq_intake *in, const struct sq_intake_missing *m, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(8192);
	struct sq_str v;
	enum sq_err e;

	if (!in->facts.has_date) {
		char date[40];

		sq_format_date(m->now_ms, date);
		sq_buf_addf(&b, "Date: %s\r\n", date);
	}
	if ((!in->facts.has_from || m->replace_from) && m->from && (e = add_from(in, m, &b, err)) != SQ_OK)
		return e;
	if (!in->facts.has_to && m->undisclosed)
		sq_buf_adds(&b, "To: undisclosed-recipients:;\r\n");
	if (!in->facts.has_message_id) {
		SQ_CLEANUP(sq_buf_fini) struct sq_buf id = SQ_BUF_INIT(SQ_MESSAGE_ID_MAX);

		sq_message_id_make(m->now_ms, m->id_domain, &id);
		sq_buf_addf(&b, "Message-ID: %s\r\n", id.p);
		if ((e = sq_buf_take(&id, &in->facts.message_id, err)) != SQ_OK)
			return e;
	}
	if ((e = sq_buf_view(&b, &v, err)) != SQ_OK)
		return sq_error_wrap(err, e, "cannot add header fields");
	in->facts.eightbit |= has_8bit(v.p, v.n);
	return out_add(in, v.p, v.n, err);
}

/* Write the fields that stay. */
static enum sq_err
write_fields(struct sq_intake *in, struct sq_str block, const struct sq_intake_missing *m, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf value = SQ_BUF_INIT(SQ_HEADER_MAX);
	struct sq_field f;
	enum sq_err e;

	while (sq_field_next(&block, &f)) {
		sq_buf_clear(&value);
		sq_field_unfold(f.body, &value);
		if (is_dropped(field_id(f.name), (struct sq_str){ value.p, value.n }))
			continue;
		if (m->replace_from && m->from && field_id(f.name) == F_FROM)
			continue;
		in->facts.eightbit |= has_8bit(f.whole.p, f.whole.n);
		if ((e = out_add(in, f.whole.p, f.whole.n, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

/* The header is the first `n` octets gathered; what lies behind is the body's beginning. */
static enum sq_err
header_done(struct sq_intake *in, size_t n, struct sq_error *err)
{
	struct sq_str block = { in->header.p, n }, rest = { in->header.p + n, in->header.n - n };
	struct sq_intake_missing missing = { 0 };
	bool resent = false;
	enum sq_err e;

	in->stage = STAGE_BODY;
	if ((e = read_fields(in, block, &resent, err)) != SQ_OK)
		return e;
	if (in->options.want_recipients && (e = read_recipients(in, block, resent, err)) != SQ_OK)
		return e;
	if ((e = keep(&in->facts.subject, SQ_STR(""), err)) != SQ_OK ||
	    (e = in->ops.header(in->ops.arg, &in->facts, &missing, err)) != SQ_OK ||
	    (e = write_fields(in, block, &missing, err)) != SQ_OK ||
	    (!in->options.bare && (e = add_missing(in, &missing, err)) != SQ_OK) ||
	    (e = out_add(in, "\r\n", 2, err)) != SQ_OK)
		return e;
	in->facts.eightbit |= has_8bit(rest.p, rest.n);
	e = out_add(in, rest.p, rest.n, err);
	sq_buf_fini(&in->header);
	return e;
}

/* The last line gathered is complete, or (whole false) long: does it belong to the header? */
static enum sq_err
header_line(struct sq_intake *in, bool whole, struct sq_error *err)
{
	struct sq_str line = { in->header.p + in->line_at, in->header.n - in->line_at };

	if (whole && in->first_line && line.n >= 5 && memcmp(line.p, "From ", 5) == 0) {
		in->first_line = false;
		sq_buf_clear(&in->header);
		return SQ_OK;
	}
	if (whole && line.n == 2) { /* the empty line: written by header_done() */
		in->header.n -= 2;
		return header_done(in, in->line_at, err);
	}
	if (sq_line_begins_field(line) || (in->line_at > 0 && (line.p[0] == ' ' || line.p[0] == '\t'))) {
		if (whole) {
			in->line_at = in->header.n;
			in->first_line = false;
		}
		return SQ_OK;
	}
	return header_done(in, in->line_at, err);
}

static enum sq_err
header_add(struct sq_intake *in, const char *p, size_t n, bool line_end, struct sq_error *err)
{
	struct sq_str v;

	sq_buf_add(&in->header, p, n);
	if (sq_buf_view(&in->header, &v, err) != SQ_OK)
		return sq_error_set(err, SQ_ELIMIT, "the header is longer than %d octets (line %llu)", SQ_HEADER_MAX,
			(unsigned long long)in->line);
	if (line_end)
		return header_line(in, true, err);
	if (v.n - in->line_at > PARTIAL_LINE)
		return header_line(in, false, err);
	return SQ_OK;
}

/* ---- lines --------------------------------------------------------- */

/* Canonical octets of a line, without CR, LF, NUL. */
static enum sq_err
emit(struct sq_intake *in, const char *p, size_t n, struct sq_error *err)
{
	if (n == 0)
		return SQ_OK;
	in->at_line_start = false;
	if (in->stage == STAGE_HEADER)
		return header_add(in, p, n, false, err);
	if (!in->facts.eightbit)
		in->facts.eightbit = has_8bit(p, n);
	return out_add(in, p, n, err);
}

static enum sq_err
emit_line_end(struct sq_intake *in, struct sq_error *err)
{
	in->at_line_start = true;
	if (in->stage == STAGE_HEADER)
		return header_add(in, "\r\n", 2, true, err);
	return out_add(in, "\r\n", 2, err);
}

static enum sq_err
may_mend(const struct sq_intake *in, const char *what, struct sq_error *err)
{
	bool header = in->stage == STAGE_HEADER;

	if (!header && !in->facts.is_signed)
		return SQ_OK;
	return sq_error_set(err, SQ_EINVAL, "line %llu (octet %llu) has %s, which mail cannot carry, and %s must not be changed",
		(unsigned long long)in->line, (unsigned long long)in->octet, what, header ? "a header" : "a signed message");
}

/* Held octets that turned out not to be what they were held for. */
static enum sq_err
release_dot(struct sq_intake *in, struct sq_error *err)
{
	if (!in->dot)
		return SQ_OK;
	in->dot = false;
	return emit(in, ".", 1, err);
}

/* CRs that no LF follows: each is a line end. */
static enum sq_err
mend_crs(struct sq_intake *in, struct sq_error *err)
{
	enum sq_err e;

	if (in->crs == 0)
		return SQ_OK;
	if ((e = release_dot(in, err)) != SQ_OK || (e = may_mend(in, "a carriage return without a line feed", err)) != SQ_OK)
		return e;
	for (; in->crs > 0; in->crs--) {
		in->facts.bare_cr++;
		if ((e = emit_line_end(in, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

static enum sq_err
line_feed(struct sq_intake *in, bool *ended, struct sq_error *err)
{
	enum sq_err e;

	if (in->dot && in->crs < 2) {
		*ended = true;
		return SQ_OK;
	}
	if ((e = release_dot(in, err)) != SQ_OK)
		return e;
	if (in->crs > 1) {
		if ((e = may_mend(in, "carriage returns before its end", err)) != SQ_OK)
			return e;
		in->facts.bare_cr += in->crs - 1;
	}
	in->crs = 0;
	in->line++;
	return emit_line_end(in, err);
}

/* Octets up to the next CR, LF or NUL. */
static size_t
plain_length(const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n);
	size_t k = lf ? (size_t)(lf - p) : n;
	const char *cr = memchr(p, '\r', k);
	const char *nul;

	if (cr)
		k = (size_t)(cr - p);
	nul = memchr(p, '\0', k);
	return nul ? (size_t)(nul - p) : k;
}

/* Take one step of the input; *used octets of it. */
static enum sq_err
step(struct sq_intake *in, const char *p, size_t n, size_t *used, bool *ended, struct sq_error *err)
{
	enum sq_err e;

	*used = 1;
	if (*p == '\n')
		return line_feed(in, ended, err);
	if (*p == '\r') {
		in->crs++;
		return SQ_OK;
	}
	if ((e = mend_crs(in, err)) != SQ_OK)
		return e;
	if (*p == '\0') {
		in->facts.nuls++;
		return may_mend(in, "a NUL octet", err);
	}
	if (*p == '.' && in->options.dot_ends && in->at_line_start && !in->dot) {
		in->dot = true;
		return SQ_OK;
	}
	if ((e = release_dot(in, err)) != SQ_OK)
		return e;
	*used = plain_length(p, n);
	return emit(in, p, *used, err);
}

enum sq_err
sq_intake_feed(struct sq_intake *in, const void *octets, size_t n, bool *ended, struct sq_error *err)
{
	const char *p = octets;
	bool end = in->stage == STAGE_DONE;
	enum sq_err e;

	in->any |= n > 0;
	while (n > 0 && !end) {
		size_t used;

		if ((e = step(in, p, n, &used, &end, err)) != SQ_OK)
			return e;
		in->octet += used;
		p += used;
		n -= used;
	}
	if (end && in->stage != STAGE_DONE) {
		/* sq_intake_finish() still writes what was gathered. */
		in->crs = 0;
		if (in->stage == STAGE_HEADER && in->header.n == 0 && in->first_line)
			in->any = false;
		if (in->stage == STAGE_HEADER && in->any && (e = header_done(in, in->line_at, err)) != SQ_OK)
			return e;
		in->stage = STAGE_DONE;
	}
	if (ended)
		*ended = end;
	return SQ_OK;
}

enum sq_err
sq_intake_finish(struct sq_intake *in, struct sq_error *err)
{
	enum sq_err e;

	in->facts.empty = !in->any || (in->dot && in->stage == STAGE_HEADER && in->header.n == 0 && in->first_line);
	if (in->facts.empty)
		return SQ_OK;
	if (in->stage != STAGE_DONE) {
		/* An input that ends in a lone "." ends there too. */
		if (in->dot && in->crs == 0)
			in->dot = false;
		else if ((e = mend_crs(in, err)) != SQ_OK)
			return e;
		if (!in->at_line_start && (e = emit_line_end(in, err)) != SQ_OK)
			return e;
		if (in->stage == STAGE_HEADER && (e = header_done(in, in->line_at, err)) != SQ_OK)
			return e;
		in->stage = STAGE_DONE;
	}
	return out_flush(in, err);
}
