/* sendmail's side of system mode. Inside sendq/submit only; each returns a sysexits status. */
#ifndef SENDQ_SUBMIT_CLIENT_H
#define SENDQ_SUBMIT_CLIENT_H

#include "options.h"

/* Give the message on standard input to the submission socket. EX_TEMPFAIL where nobody answers for ten seconds. */
int client_deliver(const struct arguments *args, const char *submit_path);

/* -bs: standard input and output to the submission socket. */
int client_relay(const char *submit_path);

/* Have a command (mailq, …) carried out over the control socket. */
int client_command(const char *const *words, size_t n, const char *control_path);

#endif
