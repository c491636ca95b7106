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

static void
reply_line(const struct sq_reply *r, struct sq_buf *out)
{
	if (r->code)
		sq_buf_addf(out, "%d ", r->code);
	if (r->enhanced[0])
		sq_buf_addf(out, "%s ", r->enhanced);
	one_line(r->text, out);
}

static void
words_failed(const struct sq_report *r, struct sq_buf *out)
{
	sq_buf_adds(out, "Your message could not be delivered to some of its recipients.\n\n");
	for (size_t i = 0; i < r->n_recipients; i++) {
		const struct sq_report_recipient *p = &r->recipients[i];

		sq_buf_addf(out, "  %s\n      %s", p->address, p->expired ? "given up because it waited too long; the last answer was: " :
			p->reply.code ? "the server said: " : "");
		reply_line(&p->reply, out);
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
words_resolved(const struct sq_report *r, struct sq_buf *out)
{
	sq_buf_adds(out, r->kind == SQ_REPORT_SETTLED ?
		"This message was in doubt. Now it is known that the server has it:\n\n      " :
		"This message was in doubt. It is sent again, with the same Message-ID; a second\ncopy may arrive. The reason:\n\n      ");
	one_line(sq_str(r->words), out);
	sq_buf_adds(out, "\n\n");
	for (size_t i = 0; i < r->n_recipients; i++)
		sq_buf_addf(out, "  %s\n", r->recipients[i].address);
	sq_buf_addf(out, "\nWhat happened, in detail:   sendq show %s\n", r->id);
}

static void
status_part(const struct sq_report *r, struct sq_buf *out)
{
	if (r->envid && r->envid[0])
		sq_buf_addf(out, "Original-Envelope-Id: %s\n", r->envid);
	sq_buf_adds(out, "Reporting-MTA: dns; localhost\nArrival-Date: ");
	date(r->submitted_ms, out);
	sq_buf_adds(out, "\n");
	for (size_t i = 0; i < r->n_recipients; i++) {
		const struct sq_report_recipient *p = &r->recipients[i];
		bool doubt = r->kind == SQ_REPORT_DOUBT;
		const char *action = doubt || r->kind == SQ_REPORT_RESENT ? "delayed" : r->kind == SQ_REPORT_SETTLED ? "relayed" : "failed";
		const char *status = doubt || r->kind == SQ_REPORT_RESENT ? "4.4.2" : r->kind == SQ_REPORT_SETTLED ? "2.0.0" : p->expired ? "4.4.7" : p->reply.enhanced[0] == '5' ? p->reply.enhanced : "5.0.0";

		sq_buf_addf(out, "\nFinal-Recipient: rfc822; %s\nAction: %s\nStatus: %s\n", p->address, action, status);
		if (p->reply.code) {
			sq_buf_adds(out, "Diagnostic-Code: smtp; ");
			reply_line(&p->reply, out);
			sq_buf_adds(out, "\n");
		}
		sq_buf_adds(out, "Last-Attempt-Date: ");
		date(r->now_ms, out);
		sq_buf_adds(out, "\n");
		if (doubt)
			sq_buf_adds(out, "X-Sendq-State: in-doubt\n");
	}
}

static void
header_part(struct sq_str header, struct sq_buf *out)
{
	for (size_t i = 0; i < header.n; i++)
		if (header.p[i] != '\r')
			sq_buf_addc(out, header.p[i]);
}

enum sq_err
sq_report_build(const struct sq_report *r, struct sq_buf *out, struct sq_error *err)
{
	static const char *const subjects[] = { [SQ_REPORT_FAILED] = "Not delivered", [SQ_REPORT_DOUBT] = "In doubt",
		[SQ_REPORT_SETTLED] = "Sent after all", [SQ_REPORT_RESENT] = "Sent again" };
	unsigned char random[16];
	char hex[33];
	struct sq_str whole;

	sq_random(random, sizeof(random));
	sq_hex(random, sizeof(random), hex);
	sq_buf_adds(out, "From: sendq <sendq@localhost>\nTo: ");
	one_line(sq_str(r->to && r->to[0] ? r->to : "sendq@localhost"), out);
	sq_buf_adds(out, "\nDate: ");
	date(r->now_ms, out);
	sq_buf_addf(out, "\nMessage-ID: <%" PRId64 ".%s@sendq.invalid>\n", r->now_ms, hex);
	if (r->message_id && r->message_id[0]) {
		sq_buf_adds(out, "References: ");
		one_line(sq_str(r->message_id), out);
		sq_buf_adds(out, "\n");
	}
	sq_buf_addf(out, "Subject: %s: ", subjects[r->kind]);
	one_line(sq_str(r->subject && r->subject[0] ? r->subject : "(no subject)"), out);
	sq_buf_addf(out, "\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n"
		"Content-Type: multipart/report; report-type=delivery-status; boundary=\"%s\"\n\n"
		"--%s\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n", hex, hex);
	if (r->kind == SQ_REPORT_DOUBT)
		words_doubt(r, out);
	else if (r->kind == SQ_REPORT_SETTLED || r->kind == SQ_REPORT_RESENT)
		words_resolved(r, out);
	else
		words_failed(r, out);
	sq_buf_addf(out, "\n--%s\nContent-Type: message/delivery-status\n\n", hex);
	status_part(r, out);
	sq_buf_addf(out, "\n--%s\nContent-Type: text/rfc822-headers\n\n", hex);
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
