/* Between the files of sendq/submit only. */
#ifndef SENDQ_SUBMIT_INSIDE_H
#define SENDQ_SUBMIT_INSIDE_H

#include <sendq/config.h>
#include <sendq/queue.h>

#include "options.h"

/*
 * Tell the daemon that there is something to do, and start one where nobody
 * listens and the configuration says so. Never fails: a lost poke costs time,
 * not mail. When a daemon had to be started and cannot, one line on stderr.
 */
void wake_daemon(const struct sq_config *cfg);

/* Started by sendq-submitd for a user: the handle knows only that user's messages. */
void restrict_queue(struct sq_queue *q);

/* The classic listing with its summary line, or only the number of messages. Returns an exit status. */
int print_mailq(const struct sq_config *cfg, bool only_count);

#endif
