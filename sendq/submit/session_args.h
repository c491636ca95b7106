/* What stands behind MAIL, RCPT and BDAT. Between session.c and session_args.c only. */
#ifndef SENDQ_SUBMIT_SESSION_ARGS_H
#define SENDQ_SUBMIT_SESSION_ARGS_H

#include "session.h"

/*
 * Each returns NULL, or the reply that refuses (static text). Views of the
 * result lead into `args` or into `room`, which decoded values are put into.
 */
const char *smtp_parse_mail(struct sq_str args, bool is_private, char *room, size_t size, struct smtp_mail *out);
const char *smtp_parse_rcpt(struct sq_str args, char *room, size_t size, struct smtp_rcpt *out);
bool smtp_parse_bdat(struct sq_str args, uint64_t *size, bool *last);
struct sq_str smtp_trim(struct sq_str s);

#endif
