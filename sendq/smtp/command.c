/*
 * Commands of a transaction, written out. What could be read as more than one
 * command, or as a parameter, is found here before it is said.
 */
#include "command.h"

static bool
has_octets(struct sq_str s, bool eightbit)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (eightbit ? c > 127 : (c < 32 || c == 127))
			return true;
	}
	return false;
}

/* An address may hold a space or bracket only inside quotes; else it could be a parameter. */
static bool
address_unsafe(struct sq_str a)
{
	bool quoted = false;

	if (has_octets(a, false))
		return true;
	for (size_t i = 0; i < a.n; i++) {
		if (quoted && a.p[i] == '\\')
			i++;
		else if (a.p[i] == '"')
			quoted = !quoted;
		else if (!quoted && (a.p[i] == ' ' || a.p[i] == '<' || a.p[i] == '>'))
			return true;
	}
	return quoted;
}

static bool
xtext_unsafe(struct sq_str s)
{
	return has_octets(s, false) || has_octets(s, true) || (s.n > 0 && memchr(s.p, ' ', s.n));
}

void
sq_command_mail(const struct sq_txn *t, uint32_t caps, bool transid, struct sq_buf *out)
{
	sq_buf_adds(out, "MAIL FROM:<");
	sq_buf_add_str(out, t->sender);
	sq_buf_adds(out, ">");
	if (caps & SQ_CAP_SIZE)
		sq_buf_addf(out, " SIZE=%llu", (unsigned long long)t->size);
	if ((t->flags & (SQ_TXN_8BIT | SQ_TXN_SMTPUTF8)) && (caps & SQ_CAP_8BITMIME))
		sq_buf_adds(out, " BODY=8BITMIME");
	if (t->flags & SQ_TXN_SMTPUTF8)
		sq_buf_adds(out, " SMTPUTF8");
	if (caps & SQ_CAP_DSN) {
		if (t->ret != SQ_RET_NONE)
			sq_buf_adds(out, t->ret == SQ_RET_FULL ? " RET=FULL" : " RET=HDRS");
		if (t->envid.n > 0) {
			sq_buf_adds(out, " ENVID=");
			sq_buf_add_str(out, t->envid);
		}
	}
	if (transid) {
		sq_buf_adds(out, " TRANSID=");
		sq_buf_add_str(out, t->transid);
	}
	if ((t->flags & SQ_TXN_RESEND) && (caps & SQ_CAP_XSENDQ))
		sq_buf_adds(out, " XRESEND");
	sq_buf_adds(out, "\r\n");
}

static void
add_notify(uint8_t notify, struct sq_buf *out)
{
	static const char *const words[] = { "NEVER", "SUCCESS", "FAILURE", "DELAY" };
	char sep = '=';

	if (notify == 0)
		return;
	if (notify & SQ_NOTIFY_NEVER)
		notify = SQ_NOTIFY_NEVER; /* RFC 3461 §4.1: stands alone */
	sq_buf_adds(out, " NOTIFY");
	for (size_t i = 0; i < SQ_LEN(words); i++)
		if (notify & (1u << i)) {
			sq_buf_addc(out, sep);
			sq_buf_adds(out, words[i]);
			sep = ',';
		}
}

void
sq_command_rcpt(const struct sq_txn_recipient *r, uint32_t caps, struct sq_buf *out)
{
	sq_buf_adds(out, "RCPT TO:<");
	sq_buf_add_str(out, r->address);
	sq_buf_adds(out, ">");
	if (caps & SQ_CAP_DSN) {
		add_notify(r->notify, out);
		if (r->orcpt.n > 0) {
			sq_buf_adds(out, " ORCPT=");
			sq_buf_add_str(out, r->orcpt);
		}
	}
	sq_buf_adds(out, "\r\n");
}

const struct sq_refusal *
sq_command_refusal(const struct sq_txn *t, const struct sq_ehlo *e, bool eightbit_send)
{
	static const struct sq_refusal unsayable = { 553, "5.1.3", "an address of this message cannot be said in SMTP" };
	static const struct sq_refusal no_utf8 = { 553, "5.6.7", "non-ASCII addresses, and the server does not offer SMTPUTF8" };
	static const struct sq_refusal no_8bit = { 554, "5.6.3", "8-bit content, and the server does not offer 8BITMIME" };
	static const struct sq_refusal too_large = { 552, "5.3.4", "the message is larger than the server takes" };
	bool utf8 = (t->flags & SQ_TXN_SMTPUTF8) || has_octets(t->sender, true);
	bool unsafe = address_unsafe(t->sender) || xtext_unsafe(t->envid);

	for (uint32_t i = 0; i < t->n_recipients; i++) {
		const struct sq_txn_recipient *r = &t->recipients[i];

		utf8 = utf8 || has_octets(r->address, true);
		unsafe = unsafe || r->address.n == 0 || address_unsafe(r->address) || xtext_unsafe(r->orcpt);
	}
	if (unsafe)
		return &unsayable;
	if (utf8 && !(e->caps & SQ_CAP_SMTPUTF8))
		return &no_utf8;
	if ((t->flags & SQ_TXN_8BIT) && !(e->caps & SQ_CAP_8BITMIME) && !eightbit_send)
		return &no_8bit;
	return e->size_limit > 0 && t->size > e->size_limit ? &too_large : NULL;
}
