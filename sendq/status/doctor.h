/*
 * Inside sendq/status: what `sendq doctor` finds, and how it is said.
 *
 * doctor.c        the command: which checks in which order
 * doctor_say.c    findings as text, as JSON, and without names for strangers
 * doctor_here.c   this machine: files, queue, daemon, units, clock
 * doctor_route.c  a route: its secret, its server, its folder of sent mail
 */
#ifndef SENDQ_STATUS_DOCTOR_H
#define SENDQ_STATUS_DOCTOR_H

#include "status.h"

enum verdict { VERDICT_OK, VERDICT_WARNING, VERDICT_FAILED, VERDICT_SKIPPED };

struct finding {
	const char *check;       /* stable names: part of the JSON interface */
	enum verdict verdict;
	int64_t ms;              /* it took; -1: not measured */
	const char *what;        /* what was found, one line */
	const char *words;       /* of the server, a command, SQLite; NULL or "": none */
	const char *mend;        /* what to do; NULL: nothing */
};

struct doctor {
	struct cli *c;
	const struct sq_route *route; /* whose checks these are; NULL: the machine's */
	bool report;             /* for strangers: no names of people */
	int failed, warnings;
	const char *visiting;    /* on a terminal: what the next finding waits for; NULL: nothing */
	int waiting;             /* columns of that on the screen */
	char *login, *home;      /* of who runs it; NULL: not known */
};

void doctor_say(struct doctor *d, const struct finding *f);
/* The same with `what` printed here; `check`, `verdict` and `ms` as there. */
void doctor_sayf(struct doctor *d, const char *check, enum verdict v, int64_t ms, const char *mend, const char *fmt, ...) SQ_PRINTF(6, 7);
/* On a terminal: say what is waited for, until the next finding; NULL: take it away. */
void doctor_waits(struct doctor *d, const char *words);
void doctor_heading(struct doctor *d, const char *words);
void doctor_summary(struct doctor *d);

void doctor_machine(struct doctor *d);      /* for a report: versions */
void doctor_files(struct doctor *d);
void doctor_queue(struct doctor *d);
void doctor_daemon(struct doctor *d);
void doctor_units(struct doctor *d);
void doctor_clock(struct doctor *d);
void doctor_route(struct doctor *d, const struct sq_route *route);

#endif
