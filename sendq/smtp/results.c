/*
 * What each recipient of the transaction under way was answered. The words of
 * a reply are copied: the parser's buffer is used again.
 */
#include "results.h"

void
sq_result_set(struct sq_session *s, uint32_t i, const struct sq_reply *r, struct sq_policy p)
{
	struct sq_recipient_result *out = &s->results[i];
	char *text = s->texts + (size_t)i * SQ_REPLY_TEXT_MAX;
	size_t n = r->text.n < SQ_REPLY_TEXT_MAX ? r->text.n : SQ_REPLY_TEXT_MAX;

	/* A refusal to talk about a message in doubt is no verdict on it. */
	if (s->in_doubt && p.cls != SQ_CLASS_ACCEPTED) {
		p.cls = SQ_CLASS_DOUBT;
		p.outcome = SQ_OUTCOME_DOUBT;
	}
	*out = (struct sq_recipient_result){
		.id = s->txn->recipients[i].id,
		.cls = p.cls, .scope = p.scope, .cause = p.outcome, .wait_s = p.wait_s, .reply = *r,
	};
	if (n > 0)
		memcpy(text, r->text.p, n);
	out->reply.text = (struct sq_str){ text, n };
}

void
sq_result_set_open(struct sq_session *s, const struct sq_reply *r, struct sq_policy p)
{
	for (uint32_t i = 0; i < s->txn->n_recipients; i++)
		if (i >= s->rcpt_answered || s->results[i].cls == SQ_CLASS_ACCEPTED)
			sq_result_set(s, i, r, p);
	s->accepted = p.cls == SQ_CLASS_ACCEPTED ? s->accepted : 0;
	s->rcpt_answered = s->txn->n_recipients;
}

void
sq_result_defer_unasked(struct sq_session *s)
{
	struct sq_reply r = { .code = 452, .enhanced = "4.5.3", .text = SQ_STR("the server takes fewer recipients at once") };
	struct sq_policy p = { SQ_CLASS_DEFERRED, SQ_SCOPE_RECIPIENT, 1, SQ_OUTCOME_DEFERRED };

	for (uint32_t i = s->rcpt_limit; i < s->txn->n_recipients; i++)
		sq_result_set(s, i, &r, p);
	s->rcpt_answered = s->txn->n_recipients;
}
