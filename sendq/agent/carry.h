/*
 * The driver of one session: frames of the runner on one side, a connection
 * on the other, the session machine between them. The connection is reached
 * through a few functions, so that a test can put itself in its place.
 */
#ifndef SENDQ_AGENT_CARRY_H
#define SENDQ_AGENT_CARRY_H

#include <sendq/agent.h>
#include <sendq/net.h>

/* What a carry needs of a connection; as sq_conn_… of net.h. */
struct carry_io {
	void *arg;
	int (*fd)(void *arg);
	enum sq_err (*send)(void *arg, const char *p, size_t n, size_t *out, struct sq_error *err);
	enum sq_err (*recv)(void *arg, char *p, size_t n, size_t *out, struct sq_error *err);
	void (*arm)(void *arg, bool on);
	bool (*drained)(void *arg);
	int64_t (*quiet_ms)(void *arg);                /* since the peer's kernel was last heard */
	void (*probe)(void *arg, bool patient);
	int (*addresses)(void *arg);                   /* descriptor: addresses have changed */
	bool (*homeless)(void *arg);                   /* after that: ours is gone */
	bool (*sample)(void *arg, struct sq_link_sample *out);
	uint64_t (*acked)(void *arg);                  /* content octets acknowledged */
	void (*mark)(void *arg, uint64_t plain);       /* content up to here was handed over */
};

/*
 * Carry transactions until BYE, until the session ends, or until the runner
 * is gone. END was sent on return where there is still somebody to read it.
 * True: the runner heard the end; false: it is gone (close at once).
 */
bool sq_carry(struct sq_stream *runner, const struct sq_job *job, const struct sq_ehlo *ehlo, struct sq_str address, const struct carry_io *io);

enum { SQ_PROVIDER_ID_MAX = 1024 };

/* The provider's own Message-ID out of the reply to an accepted recipient, copied to `out`; or empty. */
struct sq_str provider_id(const struct sq_recipient_result *results, uint32_t n, char out[SQ_PROVIDER_ID_MAX]);

#endif
