/*
 * Building reports and putting them into a Maildir. Words of servers are
 * quoted; nothing of a message but its header block goes into a report.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/message.h>
#include <sendq/report.h>

static void
date(int64_t ms, struct sq_buf *out)
{
	char text[40];

	sq_format_date(ms, text);
	sq_buf_adds(out, text);
}

/* One line: line ends and controls become spaces, so that no words can add a field. */
static void
one_line(struct sq_str s, struct sq_buf *out)
{
	for (size_t i = 0; i < s.n; i++)
		sq_buf_addc(out, (unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f ? ' ' : s.p[i]);
}

/* In lines of some 76 octets, the next ones behind `indent`; a word that is too long for any is cut. */
static void
folded(struct sq_str s, bool ascii, const char *indent, struct sq_buf *out)
{
	enum { LINE = 76, HARD = 900 };
	size_t column = 0;

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		c = c < ' ' || c == 0x7f ? ' ' : ascii && c > 0x7e ? '?' : c;
		/* Never a line of blanks only, and never inside a character. */
		if ((c == ' ' && column >= LINE && i + 1 < s.n) || (column >= HARD && (c & 0xc0) != 0x80)) {
			sq_buf_adds(out, "\n");
			sq_buf_adds(out, indent);
			column = 0;
			if (c == ' ')
				continue;
		}
		if (c == ' ' && column == 0)
			continue;
		sq_buf_addc(out, (char)c);
		column++;
	}
}

static void
reply_line(const struct sq_reply *r, bool ascii, const char *indent, struct sq_buf *out)
{
	if (r->code)
		sq_buf_addf(out, "%d ", r->code);
	if (r->enhanced[0])
		sq_buf_addf(out, "%s ", r->enhanced);
	folded(r->text, ascii, indent, out);
}

static bool
is_ascii(struct sq_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] > 0x7e)
			return false;
	return true;
}

/* The code point at s.p[*i], which moves on; what is no UTF-8 counts octet by octet. */
static unsigned long
code_point(struct sq_str s, size_t *i)
{
	unsigned char c = (unsigned char)s.p[(*i)++];
	int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
	unsigned long v = more ? c & (0x3fu >> more) : c;

	for (; more > 0 && *i < s.n && ((unsigned char)s.p[*i] & 0xc0) == 0x80; more--)
		v = v << 6 | ((unsigned char)s.p[(*i)++] & 0x3f);
	return v;
}

/* "rfc822; a@b", or where it is not ASCII "utf-8; \x{E9}@b" (RFC 6533 section 3). */
static void
typed_address(const char *address, struct sq_buf *out)
{
	struct sq_str s = sq_str(address);

	if (is_ascii(s)) {
		sq_buf_adds(out, "rfc822; ");
		one_line(s, out);
		return;
	}
	sq_buf_adds(out, "utf-8; ");
	for (size_t i = 0; i < s.n; ) {
		unsigned long c = code_point(s, &i);

		if (c > ' ' && c < 0x7f && c != '\\' && c != '+' && c != '=')
			sq_buf_addc(out, (char)c);
		else
			sq_buf_addf(out, "\\x{%lX}", c);
	}
}

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* What the xtext says (RFC 3461 section 4), without what could end the line. */
static void
decoded(struct sq_str x, struct sq_buf *out)
{
	for (size_t i = 0; i < x.n; i++) {
		char c = x.p[i];

		if (c == '+' && i + 2 < x.n && hex_digit(x.p[i + 1]) >= 0 && hex_digit(x.p[i + 2]) >= 0) {
			c = (char)(hex_digit(x.p[i + 1]) << 4 | hex_digit(x.p[i + 2]));
			i += 2;
		}
		sq_buf_addc(out, c < ' ' || c > 0x7e ? '?' : c);
	}
}

static void
words_failed(const struct sq_report *r, struct sq_buf *out)
{
	sq_buf_adds(out, "Your message could not be delivered to some of its recipients.\n\n");
	for (size_t i = 0; i < r->n_recipients; i++) {
		const struct sq_report_recipient *p = &r->recipients[i];

		sq_buf_addf(out, "  %s\n      %s", p->address, p->expired ? "given up because it waited too long; the last answer was: " :
			p->reply.code ? "the server said: " : "");
		reply_line(&p->reply, false, "      ", out);
		sq_buf_adds(out, "\n");
	}
	sq_buf_addf(out, "\nWhat happened, in detail:   sendq show %s\nTo try once more:           sendq resend %s\n", r->id, r->id);
}

static void
words_doubt(const struct sq_report *r, struct sq_buf *out)
{
	sq_buf_adds(out, "The whole of your message went out, and the connection broke before the\n"
		"server's answer was read. The server may have it, or not. It is not sent\n"
		"again by itself. In doubt for:\n\n");
	for (size_t i = 0; i < r->n_recipients; i++)
		sq_buf_addf(out, "  %s\n", r->recipients[i].address);
	sq_buf_addf(out, "\nIf it arrived:                                   sendq settle %s sent\n"
		"If it certainly did not arrive:                  sendq settle %s unsent\n"
		"To send it again, which may make a second copy:  sendq resend %s\n"
		"What happened, in detail:                        sendq why %s\n", r->id, r->id, r->id, r->id);
}

static void
words_delayed(const struct sq_report *r, struct sq_buf *out)
{
	sq_buf_adds(out, "Your message still waits to be delivered. It goes on being tried; you need not\nsend it again. It waits for:\n\n");
	for (size_t i = 0; i < r->n_recipients; i++) {
		const struct sq_report_recipient *p = &r->recipients[i];

		sq_buf_addf(out, "  %s\n", p->address);
		if (p->reply.code || p->reply.text.n > 0) {
			sq_buf_addf(out, "      %s", p->reply.code ? "the server said: " : "the reason: ");
			reply_line(&p->reply, false, "      ", out);
			sq_buf_adds(out, "\n");
		}
	}
	sq_buf_adds(out, "\nIt is given up, with another report, on ");
	date(r->until_ms, out);
	sq_buf_addf(out, ".\n\nWhy it waits:        sendq why %s\nTo try it now:       sendq flush %s\nTo take it out:      sendq remove %s\n", r->id, r->id, r->id);
}

static void
words_cut(const struct sq_report *r, struct sq_buf *out)
{
	sq_buf_adds(out, "The connection broke while your message was being sent. It is kept, and goes on by\nitself; you need not send it again.\n\n      ");
	folded(sq_str(r->words), false, "      ", out);
	sq_buf_adds(out, "\n\n");
	for (size_t i = 0; i < r->n_recipients; i++)
		sq_buf_addf(out, "  %s\n", r->recipients[i].address);
	sq_buf_addf(out, "\nHow it stands:       sendq why %s\nTo try it now:       sendq flush %s\nTo take it out:      sendq remove %s\n", r->id, r->id, r->id);
}

static void
words_resolved(const struct sq_report *r, struct sq_buf *out)
{
	sq_buf_adds(out, r->kind == SQ_REPORT_SETTLED ?
		"This message was in doubt. Now it is known that the server has it:\n\n      " :
		"This message was in doubt. It is sent again, with the same Message-ID; a second\ncopy may arrive. The reason:\n\n      ");
	folded(sq_str(r->words), false, "      ", out);
	sq_buf_adds(out, "\n\n");
	for (size_t i = 0; i < r->n_recipients; i++)
		sq_buf_addf(out, "  %s\n", r->recipients[i].address);
	sq_buf_addf(out, "\nWhat happened, in detail:   sendq show %s\n", r->id);
}

/* What the fields Action and Status say, by kind. */
static const char *
action_of(enum sq_report_kind kind)
{
	switch (kind) {
	case SQ_REPORT_FAILED:
		return "failed";
	case SQ_REPORT_SETTLED:
		return "relayed";
	case SQ_REPORT_DOUBT:
	case SQ_REPORT_RESENT:
	case SQ_REPORT_DELAYED:
	case SQ_REPORT_CUT:
		break;
	}
	return "delayed";
}

static const char *
status_of(enum sq_report_kind kind, const struct sq_report_recipient *p)
{
	switch (kind) {
	case SQ_REPORT_FAILED:
		return p->expired ? "4.4.7" : p->reply.enhanced[0] == '5' ? p->reply.enhanced : "5.0.0";
	case SQ_REPORT_SETTLED:
		return "2.0.0";
	case SQ_REPORT_DELAYED:
		return p->reply.enhanced[0] == '4' ? p->reply.enhanced : "4.0.0";
	case SQ_REPORT_DOUBT:
	case SQ_REPORT_RESENT:
	case SQ_REPORT_CUT:
		break;
	}
	return "4.4.2";
}

static void
status_part(const struct sq_report *r, struct sq_buf *out)
{
	static const char *const states[] = { [SQ_REPORT_FAILED] = "failed", [SQ_REPORT_DOUBT] = "in-doubt",
		[SQ_REPORT_SETTLED] = "settled", [SQ_REPORT_RESENT] = "sent-again", [SQ_REPORT_DELAYED] = "waiting",
		[SQ_REPORT_CUT] = "broke-off" };

	if (r->envid && r->envid[0]) {
		sq_buf_adds(out, "Original-Envelope-Id: ");
		decoded(sq_str(r->envid), out);
		sq_buf_adds(out, "\n");
	}
	sq_buf_adds(out, "Reporting-MTA: dns; localhost\nArrival-Date: ");
	date(r->submitted_ms, out);
	sq_buf_adds(out, "\n");
	for (size_t i = 0; i < r->n_recipients; i++) {
		const struct sq_report_recipient *p = &r->recipients[i];
		const char *type = p->orcpt ? strchr(p->orcpt, ';') : NULL;

		sq_buf_adds(out, "\n");
		if (type) {
			sq_buf_addf(out, "Original-Recipient: %.*s; ", (int)(type - p->orcpt), p->orcpt);
			decoded(sq_str(type + 1), out);
			sq_buf_adds(out, "\n");
		}
		sq_buf_adds(out, "Final-Recipient: ");
		typed_address(p->address, out);
		sq_buf_addf(out, "\nAction: %s\nStatus: %s\n", action_of(r->kind), status_of(r->kind, p));
		if (p->reply.code) {
			sq_buf_adds(out, "Diagnostic-Code: smtp; ");
			reply_line(&p->reply, true, " ", out);
			sq_buf_adds(out, "\n");
		}
		sq_buf_adds(out, "Last-Attempt-Date: ");
		date(r->now_ms, out);
		sq_buf_adds(out, "\n");
		if (r->kind == SQ_REPORT_DELAYED || r->kind == SQ_REPORT_CUT) {
			sq_buf_adds(out, "Will-Retry-Until: ");
			date(r->until_ms, out);
			sq_buf_adds(out, "\n");
		}
		/* By this sendq knows its own: none of them is evidence of what a server did. */
		sq_buf_addf(out, "X-Sendq-State: %s\n", states[r->kind]);
	}
}

static void
header_part(struct sq_str header, struct sq_buf *out)
{
	for (size_t i = 0; i < header.n; i++)
		if (header.p[i] != '\r')
			sq_buf_addc(out, header.p[i]);
}

/* A header's text: as it is, or in encoded words where it is not ASCII. */
static void
header_text(struct sq_str s, struct sq_buf *out)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf words = SQ_BUF_INIT(8192);

	if (is_ascii(s)) {
		one_line(s, out);
		return;
	}
	sq_header_phrase(s, &words);
	header_part((struct sq_str){ words.p, words.n }, out);
}

enum sq_err
sq_report_build(const struct sq_report *r, struct sq_buf *out, struct sq_error *err)
{
	static const char *const subjects[] = { [SQ_REPORT_FAILED] = "Not delivered", [SQ_REPORT_DOUBT] = "In doubt",
		[SQ_REPORT_SETTLED] = "Sent after all", [SQ_REPORT_RESENT] = "Sent again", [SQ_REPORT_DELAYED] = "Still waiting",
		[SQ_REPORT_CUT] = "Broke off, goes on" };
	unsigned char random[16];
	char hex[33];
	struct sq_str whole;

	sq_random(random, sizeof(random));
	sq_hex(random, sizeof(random), hex);
	sq_buf_adds(out, "From: sendq <");
	one_line(sq_str(r->from ? r->from : "sendq@localhost"), out);
	sq_buf_adds(out, ">\nTo: ");
	one_line(sq_str(r->to && r->to[0] ? r->to : "sendq@localhost"), out);
	sq_buf_adds(out, "\nDate: ");
	date(r->now_ms, out);
	if (r->own_id)
		sq_buf_addf(out, "\nMessage-ID: %s\n", r->own_id);
	else
		sq_buf_addf(out, "\nMessage-ID: <%" PRId64 ".%s@sendq.invalid>\n", r->now_ms, hex);
	if (r->message_id && r->message_id[0]) {
		sq_buf_adds(out, "References: ");
		one_line(sq_str(r->message_id), out);
		sq_buf_adds(out, "\n");
	}
	sq_buf_addf(out, "Subject: %s: ", subjects[r->kind]);
	header_text(sq_str(r->subject && r->subject[0] ? r->subject : "(no subject)"), out);
	sq_buf_addf(out, "\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n"
		"Content-Type: multipart/report; report-type=delivery-status; boundary=\"%s\"\n\n"
		"--%s\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n", hex, hex);
	if (r->kind == SQ_REPORT_DOUBT)
		words_doubt(r, out);
	else if (r->kind == SQ_REPORT_DELAYED)
		words_delayed(r, out);
	else if (r->kind == SQ_REPORT_CUT)
		words_cut(r, out);
	else if (r->kind == SQ_REPORT_SETTLED || r->kind == SQ_REPORT_RESENT)
		words_resolved(r, out);
	else
		words_failed(r, out);
	sq_buf_addf(out, "\n--%s\nContent-Type: message/delivery-status\n\n", hex);
	status_part(r, out);
	sq_buf_addf(out, "\n--%s\nContent-Type: text/rfc822-headers\n%s\n", hex, is_ascii(r->header) ? "" : "Content-Transfer-Encoding: 8bit\n");
	header_part(r->header, out);
	sq_buf_addf(out, "\n--%s--\n", hex);
	return sq_buf_view(out, &whole, err);
}

static enum sq_err
make_maildir(const char *maildir, struct sq_error *err)
{
	static const char *const parts[] = { "/tmp", "/new", "/cur" };

	for (size_t i = 0; i < SQ_LEN(parts); i++) {
		SQ_CLEANUP(sq_freep) char *dir = sq_path_suffix(maildir, parts[i]);
		enum sq_err e;

		if (!dir)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		if ((e = sq_mkdirs(dir, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

enum sq_err
sq_maildir_deliver(const char *maildir, const char *unique, struct sq_str message, int64_t when_ms, struct sq_error *err)
{
	struct sq_buf tmp = SQ_BUF_INIT(8192), final = SQ_BUF_INIT(8192);
	SQ_CLEANUP(sq_freep) char *from = NULL;
	SQ_CLEANUP(sq_freep) char *to = NULL;
	SQ_CLEANUP(sq_closep) int fd = -1;
	enum sq_err e;

	if ((e = make_maildir(maildir, err)) != SQ_OK)
		return e;
	sq_buf_addf(&tmp, "%s/tmp/%" PRId64 ".%s.sendq", maildir, when_ms / 1000, unique);
	sq_buf_addf(&final, "%s/new/%" PRId64 ".%s.sendq", maildir, when_ms / 1000, unique);
	if ((e = sq_buf_take(&tmp, &from, err)) != SQ_OK || (e = sq_buf_take(&final, &to, err)) != SQ_OK) {
		sq_buf_fini(&tmp);
		sq_buf_fini(&final);
		return e;
	}
	fd = open(from, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot write the report '%s'", from);
	e = sq_write_all(fd, message.p, message.n, err);
	if (e == SQ_OK && (fsync(fd) < 0 || rename(from, to) < 0))
		e = sq_error_errno(err, SQ_EIO, "cannot deliver the report '%s'", to);
	if (e != SQ_OK) {
		unlink(from);
		return e;
	}
	return sq_fsync_parent(to, err);
}
