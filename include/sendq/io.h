/*
 * Small file and time helpers shared by all programs.
 */
#ifndef SENDQ_IO_H
#define SENDQ_IO_H

#include <sendq/error.h>

/* Write all n octets to a blocking fd, across EINTR and short writes. */
SQ_MUST_USE enum sq_err sq_write_all(int fd, const void *p, size_t n, struct sq_error *err);

/*
 * Make a directory and those above it that are missing, 0700, and fsync each
 * parent in which one was created. An existing directory is fine.
 */
SQ_MUST_USE enum sq_err sq_mkdirs(const char *path, struct sq_error *err);

/*
 * A file of mode 0600 with these octets under this name, in place of what was there: first as `path`.new,
 * durable before it gets its name. An error, or a crash, leaves the old file whole, and perhaps `path`.new.
 */
SQ_MUST_USE enum sq_err sq_write_private(const char *path, struct sq_str octets, struct sq_error *err);

/* fsync the directory that holds `path`. */
SQ_MUST_USE enum sq_err sq_fsync_parent(const char *path, struct sq_error *err);

/* The effective user's home: $HOME where it belongs to that user, else getpwuid's. Heap; NULL when there is none. */
char *sq_home_dir(void);

/* `<queue path><suffix>`, heap; NULL only when memory is out. */
char *sq_path_suffix(const char *path, const char *suffix);

/*
 * The one clock. Wall time is for people and for rows, boot time
 * (CLOCK_BOOTTIME: counts suspend, never jumps) for waiting. In builds with
 * fault points both are shifted by the number of milliseconds that stands in
 * the file named by SENDQ_TEST_CLOCK, read anew on each call.
 */
int64_t sq_wall_ms(void);  /* Unix milliseconds */
int64_t sq_boot_ms(void);
int64_t sq_awake_ms(void); /* CLOCK_MONOTONIC: stands still while the machine sleeps */

/* RFC 5322 date-time with the local zone, e.g. "Tue, 24 Nov 2026 12:00:00 +0000"; out has at least 40 octets. */
void sq_format_date(int64_t wall_ms, char out[40]);

/* The kernel's news of these groups (rtnetlink; non-blocking), or with 0 a socket to ask it by; -1: there is none. */
int sq_netlink_open(unsigned groups);

/* Does the routing table know a way to the world? Nothing is sent. */
bool sq_has_way_out(void);

/* Fill from getrandom(); aborts when the kernel refuses. */
void sq_random(void *p, size_t n);
/* 2*n lower-case hex digits and a NUL into out. */
void sq_hex(const void *p, size_t n, char *out);

/*
 * Datagram sockets named by a path that may be longer than sun_path: the
 * directory is opened and reached through /proc/self/fd. Both are
 * non-blocking and close-on-exec.
 *
 * sq_wake_bind: takes the socket of that name which systemd handed over, if
 *   it did; else removes a stale one first; 0600. The caller holds the
 *   runner lock, so no live daemon owns the name.
 * sq_wake_inherited: systemd handed one of that name over, so who listens
 *   there is this process.
 * sq_wake_poke: send one octet; true when somebody listened. Never blocks.
 * sq_wake_answers: somebody would listen; nothing is sent.
 */
bool sq_wake_inherited(const char *path);
SQ_MUST_USE enum sq_err sq_wake_bind(const char *path, int *out_fd, struct sq_error *err);
bool sq_wake_poke(const char *path);
bool sq_wake_answers(const char *path);

#endif
