/*
 * MAIL and RCPT as they go over the wire, and what may stand in them. Nothing
 * is checked while writing: ask sq_command_refusal() first.
 */
#ifndef SENDQ_SMTP_COMMAND_H
#define SENDQ_SMTP_COMMAND_H

#include <sendq/smtp.h>

/*
 * Why this server can never take the transaction, so that nothing is sent:
 * SIZE, 8BITMIME (unless the route says that it goes as it is), SMTPUTF8, or
 * an address or xtext that could be read as another command or parameter.
 * NULL: nothing speaks against it.
 */
struct sq_refusal { int code; const char *enhanced, *words; };
const struct sq_refusal *sq_command_refusal(const struct sq_txn *t, const struct sq_ehlo *e, bool eightbit_send);

/* With the parameters that `caps` offers and `t` wants; TRANSID and XRESEND where they are meant. */
void sq_command_mail(const struct sq_txn *t, uint32_t caps, bool transid, struct sq_buf *out);
void sq_command_rcpt(const struct sq_txn_recipient *r, uint32_t caps, struct sq_buf *out);

#endif
