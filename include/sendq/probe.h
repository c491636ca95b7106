/*
 * Trying a route's connection for a person who looks (`sendq doctor`, `sendq
 * setup`): an agent connects as it would for mail, tells each part of the way,
 * and says goodbye. No message is touched, the queue is not opened, and what
 * the servers say is parsed by the agent alone.
 */
#ifndef SENDQ_PROBE_H
#define SENDQ_PROBE_H

#include <sendq/agent.h>
#include <sendq/config.h>

struct sq_probe {
	const struct sq_route *route;
	bool imap;                /* its IMAP server instead; asks for the folder of sent mail */
	bool login;               /* with the route's user and `secret`; else up to what comes before a login */
	struct sq_str secret;
	const char *ehlo_name;
	const char *message_id;   /* imap: is there a copy of this message? NULL: only the folder */
	int64_t timeout_ms;       /* of the way to the session */
	void (*stage)(void *arg, const struct sq_stage *s);             /* as each is over */
	void (*certificate)(void *arg, const struct sq_certificate *c);
	void *arg;
};

/* Texts are the server's: of any octets but NUL. */
struct sq_probe_answer {
	bool ready;               /* the session stood */
	char address[128], tls[32];
	uint32_t caps, setup_ms;
	uint64_t size_limit;
	char ehlo[SQ_REPLY_TEXT_MAX + 1];
	/* not ready: why */
	enum sq_outcome outcome;
	enum sq_phase phase;
	int code;                 /* of the server's reply; 0: the words are ours */
	char words[SQ_REPLY_TEXT_MAX + 16]; /* with the enhanced code in front, where there is one */
	/* imap and ready */
	bool asked;
	enum sq_evidence_kind kind; /* POSITIVE: there is the folder, or the copy */
	char quote[SQ_REPLY_TEXT_MAX + 1];
};

/*
 * Blocks; bounded by timeout_ms and the agent's own patience (a minute) behind
 * it. SQ_OK whatever became of the connection; an error only where no agent
 * can be run or it broke its protocol.
 */
SQ_MUST_USE enum sq_err sq_probe(const struct sq_probe *p, struct sq_probe_answer *out, struct sq_error *err);

/*
 * The secret of a route, as a connection would get it now. Blocks up to 30 s;
 * `interactive`: a command may use the terminal. The error has the command's
 * own words. A route without a secret: SQ_OK and nothing.
 */
SQ_MUST_USE enum sq_err sq_probe_secret(const struct sq_route *route, bool interactive, struct sq_buf *out, struct sq_error *err);

/*
 * Look for the servers of an address's domain; `found` gets what there is,
 * in the order of agent.h. `words`: what was asked in vain, for people.
 */
struct sq_seek {
	const char *address;
	const char *domain;       /* of the address, ASCII */
	const char *autoconfig;   /* one file to read instead; NULL: look */
	const char *ca_file;      /* NULL: the system's */
	void (*found)(void *arg, const struct sq_lookup *l);
	void *arg;
};
SQ_MUST_USE enum sq_err sq_seek(const struct sq_seek *s, char words[SQ_REPLY_TEXT_MAX + 1], struct sq_error *err);

/*
 * Ask a person for consent (OAuth 2), on another device or in a browser of
 * this machine, and keep the refresh token where the route says. `prompt` is
 * called once, with what the person is to do; blocks until that was done, was
 * refused, or the time is up.
 */
struct sq_consent {
	const struct sq_route *route;  /* with secret_kind OAUTH */
	bool device;
	bool interactive;
	void (*prompt)(void *arg, const struct sq_token_prompt *p);
	void *arg;
};
SQ_MUST_USE enum sq_err sq_consent(const struct sq_consent *c, struct sq_error *err);

#endif
