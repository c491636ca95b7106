/*
 * What the log of an own MTA (Postfix, Exim) says of one message: lines in,
 * an answer out. No file, no clock.
 */
#ifndef SENDQ_AGENT_LOGREAD_H
#define SENDQ_AGENT_LOGREAD_H

#include <sendq/base.h>

enum { LOGREAD_QIDS = 16, LOGREAD_SESSIONS = 256, LOGREAD_WORDS = 400, LOGREAD_SLACK_MS = 2000 };

struct logread_question {
	const char *message_id;  /* with brackets */
	const char *ehlo;        /* our EHLO name, "" */
	int64_t since_ms;        /* the attempt began */
	int64_t cut_ms;          /* it ended in doubt */
	int64_t now_ms;          /* for times without a year */
};

enum logread_answer {
	LOGREAD_UNKNOWN,   /* the log does not reach, or does not say */
	LOGREAD_POSITIVE,  /* it was accepted */
	LOGREAD_NEGATIVE,  /* the log is whole for that time and shows no acceptance */
	LOGREAD_ENDED,     /* and it shows that the session ended without one: certain at once */
};

struct logread {
	struct logread_question q;
	int64_t first_ms, last_ms;   /* of the lines; 0: none */
	char last_line[80];
	bool postfix, exim;
	bool accepted, earlier;      /* earlier: before this attempt */
	bool ended;
	char quote[LOGREAD_WORDS];   /* the line that decides */
	struct { char qid[24]; enum { QID_OPEN, QID_CUT, QID_REFUSED } state; } ours[LOGREAD_QIDS];
	size_t n_ours;
	bool too_many;
	/* smtpd processes and what they took in last; cut: the line that says so. cleanup may speak of it later. */
	struct logread_session { long pid; char qid[24], cut[160]; bool over; } sessions[LOGREAD_SESSIONS];
};

void logread_init(struct logread *l, const struct logread_question *q);
void logread_line(struct logread *l, struct sq_str line);  /* without its line end */
/* `quote`: a sentence for people, printable ASCII and UTF-8 as the log has it. */
enum logread_answer logread_answer(struct logread *l, char quote[512]);

/* The time at which a line begins, 0: none that is understood. */
int64_t logread_time(struct sq_str line, int64_t now_ms);

#endif
