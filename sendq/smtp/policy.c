/*
 * THE table of what a refusal means: for whom, for how long, and whether the
 * route as a whole has a chance. First row that fits wins. The basic code
 * decides the class (RFC 3463: on conflict trust it), except where a provider
 * is known to say "never" and mean "not today" (DESIGN §5).
 */
#include <sendq/smtp.h>

enum { MINUTE = 60, HOUR = 3600 };

enum when { ANYWHERE, AT_LOGIN, AT_RCPT };

static const struct row {
	int low, high;          /* basic codes */
	enum when when;
	const char *enhanced;   /* prefix, NULL: any or none */
	const char *words;      /* found in the text, any case; NULL: any */
	enum sq_class cls;
	enum sq_scope scope;
	uint32_t wait_s;
	enum sq_outcome outcome;
} table[] = {
#define DEFER(scope, wait, outcome) SQ_CLASS_DEFERRED, SQ_SCOPE_##scope, (wait), SQ_OUTCOME_##outcome
#define REFUSE(scope, outcome) SQ_CLASS_REFUSED, SQ_SCOPE_##scope, 0, SQ_OUTCOME_##outcome
	/* Quotas and rates of providers: the route pauses, nothing bounces. */
	{ 550, 550, ANYWHERE, "5.4.5", NULL, DEFER(ROUTE, 6 * HOUR, QUOTA) },           /* Gmail: daily user sending limit */
	{ 550, 554, ANYWHERE, "5.7.1", "daily limit", DEFER(ROUTE, 6 * HOUR, QUOTA) },  /* iCloud */
	{ 550, 554, ANYWHERE, "5.7.1", "daily message limit", DEFER(ROUTE, 6 * HOUR, QUOTA) },
	{ 550, 554, ANYWHERE, NULL, "sending limit", DEFER(ROUTE, 6 * HOUR, QUOTA) },
	{ 550, 554, ANYWHERE, NULL, "quota exceeded for sending", DEFER(ROUTE, 6 * HOUR, QUOTA) },
	{ 554, 554, ANYWHERE, "5.2.0", "submissionquotaexceeded", DEFER(ROUTE, 6 * HOUR, QUOTA) }, /* Office 365 */
	{ 432, 432, ANYWHERE, "4.3.2", NULL, DEFER(ROUTE, 15 * MINUTE, QUOTA) },        /* Office 365: concurrent connections */
	{ 454, 454, ANYWHERE, NULL, "throttling", DEFER(ROUTE, 15 * MINUTE, QUOTA) },   /* Amazon SES */
	{ 454, 454, ANYWHERE, NULL, "maximum sending rate", DEFER(ROUTE, 15 * MINUTE, QUOTA) },
	{ 454, 454, ANYWHERE, NULL, "daily message quota", DEFER(ROUTE, 6 * HOUR, QUOTA) },
	{ 421, 452, ANYWHERE, "4.7.28", NULL, DEFER(ROUTE, 30 * MINUTE, QUOTA) },       /* Gmail: unusual rate */

	{ 421, 421, AT_LOGIN, NULL, NULL, DEFER(ROUTE, 10 * MINUTE, LOGIN_LATER) },
	{ 421, 421, ANYWHERE, NULL, NULL, DEFER(ROUTE, 0, DEFERRED) },

	/* The account. Mail stays; the runner decides how often to ask again. */
	{ 432, 432, AT_LOGIN, NULL, NULL, DEFER(ROUTE, 10 * MINUTE, LOGIN_LATER) },
	{ 450, 459, AT_LOGIN, NULL, NULL, DEFER(ROUTE, 10 * MINUTE, LOGIN_LATER) },
	{ 500, 599, AT_LOGIN, NULL, NULL, DEFER(ROUTE, 0, LOGIN) },
	{ 530, 530, ANYWHERE, NULL, NULL, DEFER(ROUTE, 0, LOGIN) },
	{ 534, 535, ANYWHERE, NULL, NULL, DEFER(ROUTE, 0, LOGIN) },
	{ 538, 538, ANYWHERE, NULL, NULL, DEFER(ROUTE, 0, LOGIN) },

	/* RFC 5321 §4.5.3.1.10: 552 for too many recipients is 452. The rest of the group goes in its own transaction. */
	{ 452, 452, AT_RCPT, "4.5.3", NULL, DEFER(RECIPIENT, 1, DEFERRED) },
	{ 552, 552, AT_RCPT, "5.5.3", NULL, DEFER(RECIPIENT, 1, DEFERRED) },
	{ 452, 452, AT_RCPT, NULL, "too many recipients", DEFER(RECIPIENT, 1, DEFERRED) },
	{ 550, 552, AT_RCPT, NULL, "too many recipients", DEFER(RECIPIENT, 1, DEFERRED) },

	/* Greylisting asks for minutes. */
	{ 450, 451, ANYWHERE, "4.7.1", NULL, DEFER(RECIPIENT, 5 * MINUTE, DEFERRED) },
	{ 450, 451, ANYWHERE, "4.7.0", NULL, DEFER(RECIPIENT, 15 * MINUTE, DEFERRED) },
	{ 450, 451, ANYWHERE, NULL, "greylist", DEFER(RECIPIENT, 5 * MINUTE, DEFERRED) },
	{ 450, 451, ANYWHERE, NULL, "graylist", DEFER(RECIPIENT, 5 * MINUTE, DEFERRED) },
	{ 450, 452, ANYWHERE, "4.2.", NULL, DEFER(RECIPIENT, 2 * HOUR, DEFERRED) },     /* mailbox disabled or full */
	{ 452, 452, ANYWHERE, "4.3.1", NULL, DEFER(ROUTE, 10 * MINUTE, DEFERRED) },     /* system full */
	{ 450, 459, ANYWHERE, "4.3.2", NULL, DEFER(ROUTE, 10 * MINUTE, DEFERRED) },     /* not accepting messages */
	{ 452, 452, AT_RCPT, NULL, NULL, DEFER(RECIPIENT, 10 * MINUTE, DEFERRED) },
	{ 452, 452, ANYWHERE, NULL, NULL, DEFER(ROUTE, 10 * MINUTE, DEFERRED) },
	{ 400, 499, AT_RCPT, NULL, NULL, DEFER(RECIPIENT, 0, DEFERRED) },
	{ 400, 499, ANYWHERE, NULL, NULL, DEFER(MESSAGE, 0, DEFERRED) },

	{ 500, 599, AT_RCPT, NULL, NULL, REFUSE(RECIPIENT, REFUSED) },
	{ 500, 599, ANYWHERE, NULL, NULL, REFUSE(MESSAGE, REFUSED) },
#undef DEFER
#undef REFUSE
};

static bool
contains(struct sq_str text, struct sq_str words)
{
	for (size_t i = 0; i + words.n <= text.n; i++)
		if (sq_str_casestarts((struct sq_str){ text.p + i, text.n - i }, words))
			return true;
	return false;
}

static bool
when_fits(enum when when, enum sq_phase phase)
{
	switch (when) {
	case ANYWHERE:
		return true;
	case AT_LOGIN:
		return phase == SQ_PHASE_AUTH;
	case AT_RCPT:
		return phase == SQ_PHASE_RCPT;
	}
	return false;
}

struct sq_policy
sq_policy_decide(const struct sq_reply *r, enum sq_phase phase)
{
	if (r->code >= 200 && r->code < 300)
		return (struct sq_policy){ SQ_CLASS_ACCEPTED, SQ_SCOPE_RECIPIENT, 0, SQ_OUTCOME_ACCEPTED };
	for (size_t i = 0; i < SQ_LEN(table); i++) {
		const struct row *t = &table[i];

		if (r->code < t->low || r->code > t->high || !when_fits(t->when, phase))
			continue;
		if (t->enhanced && strncmp(r->enhanced, t->enhanced, strlen(t->enhanced)) != 0)
			continue;
		if (t->words && !contains(r->text, sq_str(t->words)))
			continue;
		return (struct sq_policy){ t->cls, t->scope, t->wait_s, t->outcome };
	}
	return (struct sq_policy){ SQ_CLASS_DEFERRED, SQ_SCOPE_MESSAGE, 0, SQ_OUTCOME_PROTOCOL };
}
