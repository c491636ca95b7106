/*
 * Connections: libcurl connects, does proxies, TLS and SASL; after that the
 * octets are ours. The only folder that knows libcurl.
 */
#ifndef SENDQ_NET_H
#define SENDQ_NET_H

#include <sendq/agent.h>
#include <sendq/smtp.h>

struct sq_conn;

/*
 * Connect, secure, log in and learn what the server offers, as `job` says.
 * Blocks up to job->connect_timeout_ms; `abandoned` (may be NULL) is asked
 * about once a second and ends it when true. `secret` is used and not kept
 * by us; libcurl's own copy goes with the connection.
 *
 * True: *out is the connection, *ready and *ehlo are filled; the views in
 * *ready live as long as the connection. False: *end says why, in the
 * server's own words where it said any; its text lives in end_text.
 */
bool sq_conn_open(const struct sq_job *job, struct sq_str secret, bool (*abandoned)(void *), void *arg,
		  struct sq_conn **out, struct sq_ready *ready, struct sq_ehlo *ehlo,
		  struct sq_end *end, char end_text[SQ_REPLY_TEXT_MAX]);

/* For who wants to see how the connection comes about; called from inside sq_conn_open_told(). */
struct sq_told {
	void (*step)(void *arg, const struct sq_stage *s);
	void (*certificate)(void *arg, const struct sq_certificate *c); /* also of one that is not taken */
	void *arg;
};
bool sq_conn_open_told(const struct sq_job *job, struct sq_str secret, bool (*abandoned)(void *), void *arg, const struct sq_told *told,
		       struct sq_conn **out, struct sq_ready *ready, struct sq_ehlo *ehlo,
		       struct sq_end *end, char end_text[SQ_REPLY_TEXT_MAX]);

/* Plain close, or RST where sq_conn_arm() was called and not undone. NULL-safe. */
void sq_conn_close(struct sq_conn *c);

int sq_conn_fd(const struct sq_conn *c);

/*
 * Non-blocking. SQ_OK with *out octets (0: nothing now), SQ_EEOF, SQ_EIO.
 * A send that gave 0 must be repeated with the same octets (TLS).
 * Receive until it gives 0 before polling: TLS may hold decrypted octets.
 */
SQ_MUST_USE enum sq_err sq_conn_send(struct sq_conn *c, const char *p, size_t n, size_t *out, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_conn_recv(struct sq_conn *c, char *p, size_t n, size_t *out, struct sq_error *err);

/* From here every end, SIGKILL too, is an RST (DESIGN §5); off again. */
void sq_conn_arm(struct sq_conn *c, bool on);

/* Nothing handed over is still in the kernel (SIOCOUTQ). True where it cannot be told. */
bool sq_conn_drained(const struct sq_conn *c);

/*
 * Since the peer's kernel was last heard, be it the answer to a probe; INT64_MAX
 * where it cannot be told. Of a connection that stands idle no older than
 * SQ_PROBE_MS and a round trip, as long as the link lives; 0 while its window
 * is closed and nothing is unanswered (probes are minutes apart then).
 */
enum { SQ_PROBE_MS = 5000 };
int64_t sq_conn_quiet_ms(const struct sq_conn *c);

/*
 * Probes that find a silent connection out (RFC 9293 §3.8.4), and leave it to
 * us to end it: the kernel alone gives up after 6 min of silence, `patient` after 20.
 */
void sq_conn_probe(const struct sq_conn *c, bool patient);

/* The connection's local address is not this machine's any more. */
bool sq_conn_homeless(const struct sq_conn *c);

/* A descriptor that becomes readable when addresses go (rtnetlink); -1 where there is none. _heard() empties it. */
int sq_addresses_watch(void);
void sq_addresses_heard(int fd);

/* From TCP_INFO; false where there is none. */
bool sq_conn_sample(const struct sq_conn *c, struct sq_link_sample *out);

/* ---- HTTPS: token servers, files that tell about mail servers ---- */

struct sq_https {
	struct sq_str url;        /* https:// and nothing else */
	struct sq_str body;       /* POSTed as a form; empty: GET, which follows at most three redirects, to https:// only */
	struct sq_str ca_file, proxy;
	uint32_t timeout_ms;      /* of all */
	size_t max;               /* octets of the answer */
	bool (*abandoned)(void *); /* may be NULL */
	void *arg;
};

/*
 * One exchange. SQ_OK with the status, whatever it is; else *outcome says
 * whether the network, the other side or its certificate failed, in words in `err`.
 */
SQ_MUST_USE enum sq_err sq_https(const struct sq_https *q, int *status, struct sq_buf *answer, enum sq_outcome *outcome, struct sq_error *err);

/* `s` as a part of a form or a query (RFC 3986 §2.1). */
void sq_url_escape(struct sq_buf *out, struct sq_str s);

/*
 * Content positions and the octets on the wire: sq_watch_mark() after a send
 * says that content up to `plain` was handed over; sq_watch_acked() says up
 * to where the peer's kernel has acknowledged it, TLS included.
 */
enum { SQ_WATCH_MARKS = 128 };
struct sq_watch {
	struct { uint64_t plain, wire; } marks[SQ_WATCH_MARKS];
	size_t first, n;
	uint64_t acked;
};
void sq_watch_mark(struct sq_watch *w, const struct sq_conn *c, uint64_t plain);
uint64_t sq_watch_acked(struct sq_watch *w, const struct sq_conn *c);

#endif
