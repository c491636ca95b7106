/*
 * Messages as text: addresses, header fields, and the one pass that turns what
 * a program wrote into the frozen octets that every attempt sends.
 *
 * Knows no queue, no configuration, no clock and no file: octets in, octets
 * and facts out.
 */
#ifndef SENDQ_MESSAGE_H
#define SENDQ_MESSAGE_H

#include <sendq/buf.h>

/* ---- addresses (RFC 5321 §4.1.2, RFC 5322 §3.4, RFC 6531) ------------ */

enum {
	SQ_LOCAL_PART_MAX = 64,      /* octets, RFC 5321 §4.5.3.1.1 */
	SQ_DOMAIN_MAX = 255,         /* octets, RFC 5321 §4.5.3.1.2 */
	SQ_ADDRESSES_MAX = 65535,    /* in one list */
};

/*
 * One address in its normal form: quotes of the local part only where they
 * are needed, comments and white space gone, the domain in ASCII (an
 * internationalised one by IDNA2008). Case is kept.
 */
struct sq_address {
	char *text;      /* heap, "local@domain", or "local" alone */
	size_t at;       /* index of the '@' before the domain; strlen(text) where there is none */
	bool utf8;       /* the local part has non-ASCII octets (valid UTF-8): needs SMTPUTF8 */
};

struct sq_address_list {
	struct sq_address *v;
	size_t n, cap;
};

void sq_address_fini(struct sq_address *a);            /* NULL and zeroed are fine */
void sq_address_list_fini(struct sq_address_list *l);

static inline bool
sq_address_is_qualified(const struct sq_address *a)
{
	return a->text[a->at] != '\0';
}

static inline const char *
sq_address_domain(const struct sq_address *a)
{
	return sq_address_is_qualified(a) ? a->text + a->at + 1 : "";
}

/*
 * Parse exactly one mailbox: "a@b", "<a@b>", "Anna <a@b> (home)". A source route
 * ("<@x,@y:a@b>") is skipped, as RFC 5321 §3.6.1 says. An unqualified "root" is
 * fine; the caller decides. `out` is written on SQ_OK only; free it with
 * sq_address_fini().
 *
 * SQ_EINVAL with a sentence that quotes the address and says where (octet,
 * from 1): control characters (CR and LF with them), no or two addresses,
 * broken quoting, a domain that is none. SQ_ELIMIT: longer than the limits
 * above. SQ_ENOMEM.
 */
SQ_MUST_USE enum sq_err sq_address_parse(struct sq_str in, struct sq_address *out, struct sq_error *err);

/*
 * Append every address of an unfolded list (groups are taken apart, empty
 * members skipped; ';' outside a group parts addresses too, as mail programs
 * write it). An empty list is SQ_OK. The sentence of an error gives the
 * address by number and text; the list keeps those before it.
 */
SQ_MUST_USE enum sq_err sq_address_parse_list(struct sq_str in, struct sq_address_list *out, struct sq_error *err);

/* Append "@domain" to an unqualified address; a qualified one is left alone. */
SQ_MUST_USE enum sq_err sq_address_qualify(struct sq_address *a, const char *domain, struct sq_error *err);

/* The same mailbox: local parts octet by octet, domains without regard to case. */
bool sq_address_same(const struct sq_address *a, const struct sq_address *b);

/* Drop later ones that are the same as an earlier one; order is kept. SQ_ENOMEM. */
SQ_MUST_USE enum sq_err sq_address_list_unique(struct sq_address_list *l, struct sq_error *err);

/* ---- header fields (RFC 5322 §2.2, §3.6) ------------------------------ */

enum {
	SQ_HEADER_MAX = 1024 * 1024, /* octets of a header block; beyond it SQ_ELIMIT */
	SQ_SUBJECT_MAX = 200,        /* octets of UTF-8 kept for people */
	SQ_MESSAGE_ID_MAX = 998,
};

/* One field of a block with CRLF line ends: views into the block. */
struct sq_field {
	struct sq_str name;    /* without blanks before the colon */
	struct sq_str body;    /* behind the colon, folds included, without the last CRLF */
	struct sq_str whole;   /* all of it, last CRLF included */
};

/* Take the first field off `*rest`. False at the end, at the empty line, or where no field stands. */
bool sq_field_next(struct sq_str *rest, struct sq_field *out);

/* Does this line (without its line end) begin a field: name, blanks, colon? */
bool sq_line_begins_field(struct sq_str line);

/* The body of a field on one line: CRLF before a blank taken out, outer blanks cut. Appended to out. */
void sq_field_unfold(struct sq_str body, struct sq_buf *out);

/*
 * An unstructured value for people: RFC 2047 words in UTF-8, ASCII or
 * ISO-8859-1 decoded, others left as they are; valid UTF-8 without control
 * characters whatever came in; cut at a character to fit `max` octets.
 */
void sq_header_text(struct sq_str value, size_t max, struct sq_buf *out);

/* A display name as it may stand before "<": plain, quoted, or RFC 2047 where it is not ASCII. */
void sq_header_phrase(struct sq_str name, struct sq_buf *out);

/*
 * The name beside the first address of an unfolded From value, fit to stand
 * before "<": of `Ann <a@b>` as it stands there, of `root (Cron Daemon)` the
 * last comment. Nothing is appended where there is none.
 */
void sq_header_name(struct sq_str value, struct sq_buf *out);

/* ---- intake ------------------------------------------------------------ */

/*
 * What a program wrote becomes the frozen stream: every line ends in CRLF, and
 * nothing is ever changed again. One pass, constant memory but for the header.
 *
 * Line ends    LF and CRLF end a line; the last line gets its CRLF if it has
 *              none.
 * Bare CR,     cannot be sent (RFC 5321 §2.3.8, §4.5.2): a CR that no LF follows,
 * NUL          and NUL. In the header, and anywhere in a message that says it
 *              is signed (multipart/signed, application/pkcs7-mime,
 *              DKIM-Signature), they are refused with line and octet. In
 *              other bodies, as of cron jobs that draw progress bars, a bare CR becomes
 *              a line end (several before one LF are one), a NUL is
 *              dropped, and the facts count them, so that the caller can say so.
 * Long lines   go as they are, whatever their length: folding would break
 *              signatures, and servers take them.
 * Dot          with dot_ends a line of "." alone ends the message; what stands
 *              behind it is not looked at. There is no dot-unstuffing.
 * "From " line of an mbox, if it is the first line, is dropped.
 * Header       ends at the empty line, or before the first line that is
 *              neither field nor continuation; the empty line is put in then.
 * Taken out    Bcc, Resent-Bcc, Return-Path; and Date, From and Message-ID
 *              fields without a value, which count as missing.
 * Added        Date, From, Message-ID, in this order, at the end of the header
 *              where missing, so that trace and signature fields keep their
 *              places; and, where the caller asks for it, an empty group in To
 *              where neither To nor Cc is there, and another address in From,
 *              with the name that stood there. Nothing with `bare`.
 * Kept         everything else, octet by octet: order, case, folding, a
 *              Message-ID of any shape (of several the first is the one that counts).
 */
struct sq_intake_facts {
	char *from;            /* address of the first From (Resent-From before it); NULL: none */
	bool from_qualified;
	char *from_fault;      /* why From has no address, though it has a value; NULL */
	char *from_value;      /* the first From field, unfolded; NULL: none */
	char *message_id;      /* as it stands or was made; set when the header is through */
	char *subject;         /* for people; "" */
	bool has_from, has_date, has_message_id;
	bool has_to;           /* To or Cc */
	bool auto_submitted;   /* Auto-Submitted: auto-* (RFC 3834) */
	bool is_signed;
	bool dkim;             /* signed with its header */
	bool eightbit;         /* an octet above 127 anywhere */
	bool smtputf8;         /* an address in an address field needs SMTPUTF8 */
	struct sq_address_list recipients; /* with want_recipients: To, Cc, Bcc; where there is any
	                                      Resent-To, -Cc or -Bcc those instead */
	uint64_t bare_cr;      /* made line ends */
	uint64_t nuls;         /* dropped */
	uint64_t size;         /* octets handed to the sink so far */
	bool empty;            /* not one octet came in (or only the final dot) */
};

/* What to add where something is missing. Views live until the callback's caller has returned. */
struct sq_intake_missing {
	const char *from;      /* address; NULL: none, then a missing From stays missing */
	const char *full_name; /* for an added From; NULL: none */
	const char *id_domain; /* right of the '@' of a made Message-ID */
	int64_t now_ms;
	bool replace_from;     /* From gets the address `from`; its name stays */
	bool undisclosed;      /* add To: undisclosed-recipients:; where neither To nor Cc is there */
};

struct sq_intake_ops {
	/* Called once, when the header has been read, before the first octet goes to the sink. */
	enum sq_err (*header)(void *arg, const struct sq_intake_facts *facts, struct sq_intake_missing *missing, struct sq_error *err);
	/* Takes canonical octets, in pieces of up to 64 KiB. */
	enum sq_err (*sink)(void *arg, const void *p, size_t n, struct sq_error *err);
	void *arg;
};

struct sq_intake_options {
	bool dot_ends;
	bool want_recipients;
	bool bare;             /* add nothing: somebody behind does */
};

struct sq_intake;
SQ_MUST_USE enum sq_err sq_intake_new(struct sq_intake_options options, struct sq_intake_ops ops, struct sq_intake **out, struct sq_error *err);
void sq_intake_free(struct sq_intake *in);
void sq_intake_freep(struct sq_intake **in);

/*
 * Feed octets as they come, in pieces of any size: how they are cut changes
 * nothing. *ended (may be NULL) turns true at the final dot; then stop reading.
 * Errors are final: those of the callbacks, SQ_EINVAL for what the table
 * above refuses and for recipients that cannot be read, SQ_ELIMIT for a
 * header beyond SQ_HEADER_MAX.
 */
SQ_MUST_USE enum sq_err sq_intake_feed(struct sq_intake *in, const void *p, size_t n, bool *ended, struct sq_error *err);

/* The input is at its end: hand over the rest. Nothing is written for an empty input (facts.empty). */
SQ_MUST_USE enum sq_err sq_intake_finish(struct sq_intake *in, struct sq_error *err);

/* Valid until sq_intake_free(). */
const struct sq_intake_facts *sq_intake_facts(const struct sq_intake *in);

/* "<unix seconds in base 36 . 26 base-32 digits of 128 random bits @ domain>" into out. No host or user name. */
void sq_message_id_make(int64_t now_ms, const char *domain, struct sq_buf *out);

#endif
