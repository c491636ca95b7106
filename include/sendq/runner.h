/*
 * The runner: the loop that decides what is tried when, and the only writer
 * of delivery state. sendqd is a main() around it; `sendq flush` runs it in
 * the foreground when there is no daemon. One runner a queue, by flock.
 */
#ifndef SENDQ_RUNNER_H
#define SENDQ_RUNNER_H

#include <sendq/queue.h>

/*
 * Take the runner lock: flock on `<queue_path>.lock` (made 0600, its directory
 * 0700). The descriptor is close-on-exec; agents inherit a copy of it, so the
 * lock is held until the last orphan of a dead runner has ended too.
 *
 * wait false: SQ_EBUSY at once when it is held.
 * wait true:  waits for orphans of a dead runner; after 2 s one line in the
 *             log says so. SQ_EBUSY when a live runner answers on
 *             `<queue_path>.wake`, or when a SIGTERM or SIGINT came meanwhile (only if the
 *             caller has blocked them; they stay pending).
 * SQ_EIO, SQ_EPERM (the file belongs to another user).
 */
SQ_MUST_USE enum sq_err sq_runner_lock(const char *queue_path, bool wait, int *out_fd, struct sq_error *err);

/*
 * Carry out every waiting request but flush, while no agent runs: what the CLI
 * does where there is no daemon. The caller holds the lock and has opened the
 * queue as RUN. *n: how many were done; a request that was refused counts and
 * has its sentence in the row. A flush request that lies before others does
 * not hold them up. Durable.
 */
SQ_MUST_USE enum sq_err sq_runner_carry_out(struct sq_queue *q, int64_t now_ms, int *n, struct sq_error *err);

struct sq_bus_driver;      /* sendq/runner/bus.h */

struct sq_runner_options {
	const char *config_path;
	int lock_fd;       /* from sq_runner_lock(), stays the caller's; -1: the runner takes it (and waits) */
	bool once;         /* end when nothing is due any more */
	bool flush;        /* as once, and try what is named below now, whatever the back-off says */
	const struct sq_message_id *flush_ids;
	size_t n_flush_ids; /* 0: everything */
	const struct sq_bus_driver *bus; /* what the machine says of network and sleep is heard by it; NULL, and with once: not */
	bool interactive;  /* secret commands may use the terminal (stderr, /dev/tty); notices are not repeated on stderr */
};

/*
 * Run. Returns SQ_OK after SIGTERM or SIGINT (daemon), or when there is
 * nothing more to try (once, flush). Whatever happened to mail is in the
 * queue; an error is returned only where the runner itself cannot go on: no
 * usable configuration at the start, no lock (SQ_EBUSY), no queue. Blocks and
 * takes SIGTERM, SIGINT, SIGHUP and SIGCHLD for its duration; the mask is
 * restored. One runner a process.
 */
SQ_MUST_USE enum sq_err sq_runner_run(const struct sq_runner_options *o, struct sq_error *err);

#endif
