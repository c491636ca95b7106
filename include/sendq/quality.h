/*
 * What is remembered of a link, as numbers: words shared by sendq/link, which
 * computes them, and the queue, which only stores them. The names are columns
 * of the database; new ones are appended.
 */
#ifndef SENDQ_QUALITY_H
#define SENDQ_QUALITY_H

#include <sendq/base.h>

/*
 * Sums, all of them decayed to at_ms with the half-life of sq_quality_…:
 *
 *   cuts, octets, seconds  cuts seen, and what was exposed to them: octets
 *                          acknowledged and time spent sending, of transfers
 *                          that ended well too (censored exposure)
 *   rated, log_rate        cuts whose rate at the moment is known, and the
 *                          sum of the logarithms of those rates (octets/s)
 *   connects, refusals     connections that stood, that did not
 *   unreached              failures to connect since the last that stood
 *
 * Means, not decayed (they follow what is seen):
 *
 *   speed, speed_weight    goodput × weight, and the weight in 0…1
 *   rtt                    round trip of the network, seconds
 *   reply, reply_var       time to the answer of an envelope, RFC 6298
 *   verdict, verdict_var   time to the answer of a whole message, RFC 6298
 */
#define SQ_QUALITY_LIST(X) \
	X(cuts) X(octets) X(seconds) X(rated) X(log_rate) X(connects) X(refusals) X(unreached) \
	X(speed) X(speed_weight) X(rtt) X(reply) X(reply_var) X(verdict) X(verdict_var)

struct sq_quality {
	int64_t at_ms;
#define X(name) double name;
	SQ_QUALITY_LIST(X)
#undef X
};

enum sq_link_state { SQ_LINK_UNKNOWN, SQ_LINK_GOOD, SQ_LINK_FAIR, SQ_LINK_POOR, SQ_LINK_DOWN };

#endif
