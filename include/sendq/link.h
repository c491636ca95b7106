/*
 * The arithmetic of links: numbers in, numbers out. No clock, no state, no
 * randomness of its own.
 */
#ifndef SENDQ_LINK_H
#define SENDQ_LINK_H

#include <sendq/outcome.h>
#include <sendq/quality.h>

/* What is known when an attempt has failed. */
struct sq_backoff_in {
	enum sq_outcome cause;
	int64_t failures;       /* of this cause's kind in a row on the route, this one included: ≥ 1 */
	bool progressed;        /* content octets were acknowledged in the attempt */
	int64_t hint_ms;        /* what the server or the policy asks for; 0: nothing */
	int64_t retry_min_ms, retry_max_ms; /* the route's, for refusals of the server */
	uint32_t random;        /* any: spreads the wait by ±20 % */
};

struct sq_backoff_out {
	int64_t wait_ms;        /* until the next try */
	bool stop;              /* no next try by itself: a person, a new secret or a new configuration ends it */
};

/*
 * Back off by cause, not by count alone (DESIGN §8):
 *
 *   offline, unreachable   30 s × 1.5 → 15 min
 *   cut or doubt, with progress  15 s × 1.5 → 10 min
 *   cut, without, stalled, protocol, local  60 s × 2 → 30 min
 *   a 4yz                  retry_min × 2 → retry_max, or the hint
 *   quota                  the hint, else 1 h × 2 → 6 h
 *   login                  at once (5 s), 1 h, then stop
 *   login_later            10 min × 2 → 2 h
 *   secret                 1 min × 2 → 30 min
 *   certificate, tls       30 min
 *
 * Waits are spread by ±20 % except hints, which are never undercut.
 */
struct sq_backoff_out sq_backoff(const struct sq_backoff_in *in);

/* ---- patience: when a connection is given up ---------------------------- */

enum sq_patience_at {
	SQ_AT_IDLE,             /* nothing is under way */
	SQ_AT_ENVELOPE,         /* commands, before any content */
	SQ_AT_CONTENT,          /* content, before its terminator */
	SQ_AT_VERDICT,          /* the terminator was handed over: giving up makes doubt */
};

#define SQ_QUIET_UNKNOWN INT64_MAX

struct sq_patience_in {
	enum sq_patience_at at;
	bool patient;           /* sessions went silent again and again here: it may be the probes that somebody drops */
	bool resumes;           /* the server keeps what it has, and can be asked (CHECKPOINT) */
	bool address_gone;      /* the connection's local address is no longer this machine's, */
	int64_t gone_ms;        /* for so long */
	bool taken;             /* all that was handed over is acknowledged; else its window is closed, or the link is dead */
	int64_t quiet_ms;       /* since the other kernel was last heard, be it an answer to a probe; SQ_QUIET_UNKNOWN. Times while awake: asleep nobody is heard */
	int64_t stuck_ms;       /* since the last progress: octets taken or acknowledged, or octets of a reply */
	uint32_t rtt_us, rttvar_us; /* smoothed; 0: unknown */
	uint64_t octets;        /* of the content that the verdict is about */
	int64_t past_ms;        /* how long this route's verdicts have taken, with their spread; 0: unknown */
	int64_t reply_ms, content_ms, verdict_ms; /* of the JOB (agent.h) */
};

enum sq_patience_end {
	SQ_PATIENCE_WAIT,
	SQ_PATIENCE_ADDRESS,    /* nothing can come any more */
	SQ_PATIENCE_DEAD,       /* no sign of life */
	SQ_PATIENCE_SILENT,     /* the other machine lives, the server does nothing */
};

struct sq_patience { enum sq_patience_end end; int64_t wait_ms; }; /* until to ask again; INT64_MAX: not before something happens */

/*
 * Patience follows what giving up costs (DESIGN §5). Without a sign of life:
 * idle, before content, or where the server can resume, max(15 s, 8 × (rtt +
 * 4 × rttvar)), `patient` no less than reply_ms; in content without resume
 * content_ms; behind the terminator as long as for a verdict. With signs of
 * life: reply_ms for a reply, content_ms for that to a chunk (RFC 3030 §2),
 * half an hour for a closed window (that is a slow server, not a dead link),
 * and for a verdict the longest of verdict_ms (RFC 5321 §4.5.3.2.6: 10 min) and
 * 4 times the past ones (at most 1 h), with 10 s for each MiB on top. At once
 * where the local address is gone; where that makes doubt it has 10 s to come
 * back, as it does when an interface is only set up anew.
 */
struct sq_patience sq_patience(const struct sq_patience_in *in);

/* ---- quality: how good a link is -------------------------------------- */

/*
 * A link (one route on one network) is cut now and then. Two models: cuts come
 * after so many octets, or after so much time; whichever explains the cuts
 * better is used (notes/protocols.md §8.2: the octets do iff the geometric mean of the
 * rates at the cuts exceeds the overall mean rate).
 *
 * Hazard: cuts over exposure, the maximum-likelihood estimate under right
 * censoring, with a Gamma prior (shape SQ_PRIOR_CUTS, exposure SQ_PRIOR_OCTETS
 * or SQ_PRIOR_SECONDS: weak, and hopeful, so that an unknown link is tried) and
 * forgetting: bad spells last a day or two.
 */
#define SQ_PRIOR_CUTS 0.25
#define SQ_PRIOR_OCTETS 2e6
#define SQ_PRIOR_SECONDS 300.0
#define SQ_HALF_LIFE_MS (INT64_C(18) * 3600 * 1000)
#define SQ_UNKNOWN_RATE 50e3   /* octets/s, before anything was seen */

/* One stretch of a transfer. A long transfer is told as several, all but the last uncut: exposure adds up. */
struct sq_stretch {
	double octets, seconds; /* acknowledged in it; spent */
	bool cut;               /* it ended by a broken connection, not by anybody's will */
	bool steady;            /* content was going all the while: its speed is the link's */
	double rate;            /* octets/s when it was cut; 0: not known */
};
void sq_quality_stretch(struct sq_quality *q, int64_t now_ms, const struct sq_stretch *s);
void sq_quality_connect(struct sq_quality *q, int64_t now_ms, bool stood);
void sq_quality_offline(struct sq_quality *q);                  /* there was no network to try it on: no attempt */
void sq_quality_rtt(struct sq_quality *q, double seconds);      /* of the network, from the kernel's smoothed one */
void sq_quality_reply(struct sq_quality *q, double seconds);    /* of an envelope */
void sq_quality_verdict(struct sq_quality *q, double seconds);

struct sq_estimate {
	double mean_octets;     /* between cuts, as expected now */
	bool by_time;           /* cuts follow time; mean_octets holds at the present rate */
	double shape, exposure; /* of the posterior, in octets: what sq_chance() needs */
	double cuts;            /* remembered */
	double rate;            /* goodput in octets/s, SQ_UNKNOWN_RATE where unknown */
	bool rate_known;
	double connect_chance;
};
struct sq_estimate sq_quality_estimate(const struct sq_quality *q, int64_t now_ms);

/* The chance to carry that many octets without a cut, the doubt about the hazard itself included: (exposure / (exposure + n)) ^ shape. */
double sq_chance(const struct sq_estimate *e, double octets);

/* What a state rests on: the worst of these. */
enum sq_link_reason {
	SQ_REASON_NOTHING,      /* nothing against it */
	SQ_REASON_CUTS,         /* value: octets between cuts */
	SQ_REASON_SPEED,        /* octets/s */
	SQ_REASON_CONNECTS,     /* share of connections that do not come about */
	SQ_REASON_RTT,          /* seconds */
	SQ_REASON_UNREACHED,    /* failures to connect in a row */
};

/*
 * The state for people. Each criterion has a limit for poor and one for fair;
 * who is below a limit must exceed twice that limit to rise above it again.
 * A failure to connect is down, until a connection stands.
 */
enum sq_link_state sq_quality_state(const struct sq_quality *q, int64_t now_ms, enum sq_link_state before, enum sq_link_reason *reason, double *value);
const char *sq_link_state_name(enum sq_link_state s);       /* "", good, fair, poor, down */
enum sq_link_state sq_link_state_of(const char *name);      /* UNKNOWN for anything else */

/* ---- cost: what it takes to bring octets over -------------------------- */

struct sq_cost {
	double expected;        /* octets that are expected to be sent until all are over, repetitions included */
	double chance;          /* that the next attempt is the last */
};

enum { SQ_SETUP_OCTETS = 6000, SQ_RESUME_GRAIN = 64 * 1024 };

/*
 * For `octets` that are left, with a set-up that costs as much as `setup`:
 *   without resume   m (e^(L/m) − 1), L = octets + setup
 *   with resume at every `grain` octets (Daly 2006)
 *                    octets/grain · m · e^(setup/m) · (e^(grain/m) − 1) + setup
 * (notes/protocols.md §8.3). Finite for every finite input.
 */
struct sq_cost sq_cost(const struct sq_estimate *e, double octets, double setup, double grain); /* grain 0: no resume */

/* ---- order: what goes next --------------------------------------------- */

struct sq_order_item {
	uint64_t size, durable; /* octets; what the far side keeps */
	int64_t submitted_ms;
	int64_t last_try_ms;    /* the last attempt that reached content; 0: none */
	int tries_day;          /* such attempts within a day */
	int cuts_day;           /* those of them that this link cut */
	int priority;           /* higher goes first, whatever it costs */
	bool forced;            /* a person wants it tried now */
};

struct sq_order_link {
	struct sq_estimate est;
	int64_t now_ms;
	int64_t network_ms;     /* since when this is the network; 0: for ever */
	bool resume;            /* the server can */
	bool keeps_partial;     /* it delivers what came before a cut */
	double spent, spent_oldest; /* octets lately, and those of them that went for the oldest message */
	double easy;            /* from sq_order_prepare(): so many octets may always start; 0: not known */
};

enum {
	SQ_AGE_MS = 4 * 3600 * 1000,         /* weight (1 + age/this)² */
	SQ_TRY_EVERY_MS = 6 * 3600 * 1000,   /* at least one attempt */
	SQ_PARTIAL_PAUSE_MS = 3600 * 1000, SQ_PARTIAL_TRIES_DAY = 6,
	SQ_EXPRESS_MS = 20 * 1000,
};
#define SQ_OLDEST_SHARE 0.2       /* of the octets: saved up until it pays for a try of the oldest, */
#define SQ_OLDEST_TRY_MAX 6e6     /* which is counted as so many at most */
#define SQ_START_CHANCE 0.05
#define SQ_START_CHANCE_PARTIAL 0.5

enum sq_start { SQ_START_NOW, SQ_START_BETTER_LINK, SQ_START_PARTIAL };
struct sq_start_out {
	enum sq_start start;
	double chance;          /* 1 where nothing was computed: it may start anyway */
	int64_t when_ms;        /* not NOW: wall time at which to look again, at the latest */
};

/*
 * The chance that a message gets through, which has been cut so many times
 * within a day: the link's, but for large ones no more than their own record
 * says (rule of succession, 1 / (cuts + 2)). A link with fixed windows is not
 * told from one that breaks at random by sums; who never fits is told by this.
 */
#define SQ_RECORD_OCTETS 65536
double sq_order_chance(const struct sq_estimate *e, double octets, int cuts_day);

/* Fills l->easy: not needed, but a thousand decisions about one link become cheap. */
void sq_order_prepare(struct sq_order_link *l);

/*
 * The start rule (DESIGN §8). An attempt whose chance (sq_order_chance()) is
 * under 5 % waits for a better link, but for one on each new network and one in
 * six hours. Where the server keeps what came before a cut: the link's alone,
 * under 50 %, without those two, at least an hour between attempts, six a day
 * (SQ_START_PARTIAL). With resume every attempt is progress: no rule. A
 * person's wish overrides all.
 */
struct sq_start_out sq_order_start(const struct sq_order_item *i, const struct sq_order_link *l);

/* Weight over expected remaining cost: the higher goes first. */
double sq_order_index(const struct sq_order_item *i, const struct sq_order_link *l);

/*
 * Which goes next of those that may start: the oldest, while less than 20 % of
 * the octets lately went for the oldest; else the highest index. Forced ones
 * first, then by priority. n: none may start.
 */
size_t sq_order_pick(const struct sq_order_item *items, size_t n, const struct sq_order_link *l);

/*
 * May `next` have a connection beside the transfer that is under way? Where
 * that one has more than 20 s to go and its index is less than half: small
 * mail does not wait behind big mail, and big mail is not thrown away for it.
 */
bool sq_order_express(const struct sq_order_item *running, uint64_t acked, const struct sq_order_item *next, const struct sq_order_link *l);

#endif
