/*
 * What is done about a message in doubt (DESIGN §7): numbers in, a decision
 * out. No clock, no queue, no network. Never "send again" before evidence was
 * asked for where there is a source of it.
 */
#ifndef SENDQ_DOUBT_H
#define SENDQ_DOUBT_H

#include <sendq/base.h>

enum sq_doubt_policy { SQ_DOUBT_AVOID, SQ_DOUBT_ALLOW, SQ_DOUBT_ASK };

/* Does the provider keep the Message-ID, so that a second copy can be recognised? */
enum sq_doubt_id { SQ_DOUBT_ID_UNKNOWN, SQ_DOUBT_ID_KEPT, SQ_DOUBT_ID_REWRITTEN };

/* A message's own word (enum sq_own_duplicates, 0: none) before its route's (enum sq_duplicates). */
enum sq_doubt_policy sq_doubt_policy_of(int own, int routes);
/* The route's setting (enum sq_message_id_kept, 0: auto), then what was seen ("kept", "rewritten", NULL), then what is known of the host. */
enum sq_doubt_id sq_doubt_id_of(int setting, const char *learned, const char *host);

struct sq_doubt_in {
	enum sq_doubt_policy policy;
	enum sq_doubt_id id;
	bool service;          /* Auto-Submitted mail of a program on this machine: a second copy beats a lost alert */
	bool source;           /* there is somebody to ask for evidence */
	int64_t now_ms, since_ms, expires_ms;  /* wall time */
	int64_t next_ask_ms;   /* 0: not asked yet */
	int64_t usable_ms;     /* for how long the link was usable since the cut */
	int asked;             /* answers got */
	int negatives;         /* answers in a row that count as "not accepted" */
};

enum sq_doubt_action {
	SQ_DOUBT_WAIT,         /* look again at *when* (wall time), or after *usable* more of usable link */
	SQ_DOUBT_ASK_NOW,      /* ask for evidence, or, without a source, prove that the link is usable */
	SQ_DOUBT_RESEND,       /* queue it again, next epoch */
	SQ_DOUBT_GIVE_UP,      /* expired: tell the sender that the outcome is unknown */
};

/* Why, for people and logs. */
enum sq_doubt_why {
	SQ_DOUBT_WHY_PERSON,     /* only a person, or evidence, ends it */
	SQ_DOUBT_WHY_EVIDENCE,   /* more evidence is asked for */
	SQ_DOUBT_WHY_ALLOWED,    /* a second copy is allowed */
	SQ_DOUBT_WHY_SERVICE,    /* the same, because it is a program's mail */
	SQ_DOUBT_WHY_NEGATIVE,   /* the provider files what it accepts, and did not file this */
	SQ_DOUBT_WHY_KEPT,       /* no evidence to be had; the Message-ID lets downstream recognise a second copy */
	SQ_DOUBT_WHY_EXPIRED,
};

struct sq_doubt_out {
	enum sq_doubt_action action;
	enum sq_doubt_why why;
	int64_t when_ms;       /* WAIT: wall time, INT64_MAX: by the clock nothing comes */
	int64_t usable_ms;     /* WAIT: more usable link that it takes until RESEND, INT64_MAX: none does */
};

enum {
	SQ_DOUBT_FIRST_ASK_MS = 60 * 1000,
	SQ_DOUBT_NEGATIVE_AFTER_MS = 15 * 60 * 1000,   /* earlier a negative answer may only be a slow server */
	SQ_DOUBT_NEGATIVES = 2,
	SQ_DOUBT_KEPT_USABLE_MS = 2 * 3600 * 1000,
};

struct sq_doubt_out sq_doubt_decide(const struct sq_doubt_in *in);

/* The wait behind the n-th answer (n ≥ 1): asked at +1, +5, +15, +60 minutes, then hourly. */
int64_t sq_doubt_ask_gap_ms(int n);

/*
 * What is known of a provider by its host (Office 365 and SES put their own
 * Message-ID in place of ours; Gmail keeps a valid one).
 */
enum sq_doubt_id sq_doubt_provider(const char *host);

#endif
