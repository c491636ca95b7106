/*
 * Inside smtp/ only: the results of the transaction under way, in s->results
 * and s->texts. Only between begin (s->txn is set) and reported.
 */
#ifndef SENDQ_SMTP_RESULTS_H
#define SENDQ_SMTP_RESULTS_H

#include <sendq/smtp.h>

/* Recipient i was answered r, which means p. While the message is in doubt nothing but acceptance is more than doubt. */
void sq_result_set(struct sq_session *s, uint32_t i, const struct sq_reply *r, struct sq_policy p);

/* The same answer to every recipient that was not refused by itself. All count as answered behind it. */
void sq_result_set_open(struct sq_session *s, const struct sq_reply *r, struct sq_policy p);

/* Those behind LIMITS RCPTMAX were not asked: they go in a transaction of their own. */
void sq_result_defer_unasked(struct sq_session *s);

#endif
