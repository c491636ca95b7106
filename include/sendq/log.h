/*
 * Logs of the programs. Libraries return errors; programs log, each failure
 * once. A line is an event and key=value pairs: `deferred msg=1003 code=451`.
 * Goes to stderr; with the journal's level prefix (<3> …) when stderr is the
 * journal (JOURNAL_STREAM), else with an RFC 3339 time. Addresses and server
 * words appear at SQ_LOG_DEBUG only; secrets never.
 */
#ifndef SENDQ_LOG_H
#define SENDQ_LOG_H

#include <sendq/base.h>

enum sq_log_level { SQ_LOG_ERROR, SQ_LOG_WARN, SQ_LOG_INFO, SQ_LOG_DEBUG };

void sq_log_init(const char *program, enum sq_log_level level);
void sq_log(enum sq_log_level level, const char *fmt, ...) SQ_PRINTF(2, 3);
bool sq_log_enabled(enum sq_log_level level);

#endif
