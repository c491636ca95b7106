/* Between the files of sendq-submitd only. */
#ifndef SENDQ_SUBMIT_SUBMITD_H
#define SENDQ_SUBMIT_SUBMITD_H

#include <sendq/config.h>

/*
 * One request of control.sock: read it, run the program for it with a fresh
 * environment, carry back what it prints. A user sees and handles his own
 * messages; root, and members of the group that this runs as, all.
 */
int serve_control(int fd, int64_t uid, const char *config_path);

#endif
