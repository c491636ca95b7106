/*
 * The gateway's contracts. The machine speaks SMTP and knows neither sockets
 * nor SQLite; the store keeps transactions and knows no SMTP; a backend takes
 * whole messages. They meet in session.c, which is what struct gw_ops reaches.
 */
#ifndef GATEWAY_H
#define GATEWAY_H

#include <sendq/base.h>
#include <sendq/buf.h>
#include <sendq/error.h>

enum {
	GW_LINE_MAX = 4096,          /* a command line, CRLF included; AUTH lines of OAuth are the longest */
	GW_AUTH_LINE_MAX = 12288,    /* RFC 4954 section 4 */
	GW_ADDRESS_MAX = 320,
	GW_NAME_MAX = 255,           /* EHLO name, login */
	GW_TRANSID_MAX = 80,         /* RFC 1845 section 2, brackets included */
	GW_PARAMS_MAX = 1024,        /* of MAIL, of one RCPT */
	GW_REPLY_MAX = 2048,
	GW_TRACE_MAX = 2048,
	GW_BLOCK_BYTES = 64 * 1024,  /* content taken at once */
	GW_SYNC_BYTES = 1024 * 1024, /* octets that a crash of the machine may cost; a slow link is bounded by the time */
	GW_SYNC_MS = 2000,           /* and the time */
	GW_RCPT_MAX = 100,
	GW_ERRORS_MAX = 20,
};

enum gw_verb { GW_VERB_NONE, GW_VERB_DATA, GW_VERB_BDAT };

/* What goes over the wire: one line, or several parted by CRLF; no CRLF at the end. */
struct gw_reply {
	char text[GW_REPLY_MAX];
};

/* Set a reply; a longer text is cut at the end of a line that fits. */
void gw_reply_set(struct gw_reply *r, const char *fmt, ...) SQ_PRINTF(2, 3);
static inline bool gw_reply_is(const struct gw_reply *r, char first) { return r->text[0] == first; }

/* What MAIL said, and who. */
struct gw_envelope {
	char auth[GW_NAME_MAX + 1];      /* authenticated identity */
	char ehlo[GW_NAME_MAX + 1];      /* lower case */
	char transid[GW_TRANSID_MAX + 1];/* with brackets; "": nothing survives the session */
	char sender[GW_ADDRESS_MAX + 1];
	char params[GW_PARAMS_MAX];      /* " BODY=8BITMIME ENVID=…": as it is told to the backend */
	int64_t declared;                /* SIZE, or 0 */
	bool resend;                     /* XRESEND: a person wants it sent again, duplicate or not */
	bool utf8;
};

enum gw_step { GW_MORE, GW_YES, GW_NO };
enum gw_found { GW_FRESH, GW_RESUMED, GW_REFUSED };

/*
 * What the machine needs of the world. Each call that has a `reply` fills it.
 * Errors: SQ_EPERM, a newer session has taken the transaction over or a person
 * removed it, nothing was stored; SQ_EINVAL, the message was complete already;
 * SQ_ENOSPC, a quota or the disk; any other, the client may try again.
 */
struct gw_ops {
	/* A line of the AUTH exchange. `mech` on the first only; `words` NULL: no initial response. GW_YES gives the identity. */
	enum gw_step (*auth)(void *ctx, const char *mech, const char *words, char identity[GW_NAME_MAX + 1],
	    struct gw_reply *reply);
	/* Find the transaction and take it from whoever had it, in one step; or begin one. */
	enum gw_found (*mail)(void *ctx, const struct gw_envelope *env, struct gw_reply *reply);
	bool (*rcpt)(void *ctx, const char *address, const char *params, struct gw_reply *reply);
	bool (*has_rcpt)(void *ctx, const char *address);
	/* Content begins. SQ_EPERM also where another session's content of this transaction has begun meanwhile. */
	enum sq_err (*content)(void *ctx, enum gw_verb verb);
	enum gw_verb (*verb)(void *ctx);     /* with which content has begun */
	int64_t (*octets)(void *ctx);        /* of content, taken so far */
	/* Take octets; a crash of this program does not lose them, a crash of the machine may. */
	enum sq_err (*append)(void *ctx, const char *p, size_t n);
	/* Make them durable, and see that the transaction is still this session's. */
	enum sq_err (*sync)(void *ctx);
	/*
	 * All octets are here: deliver once, store the verdict, and only then give it. A 355 as verdict: the backend
	 * gave none, nobody knows whether it accepted, and it will not be asked again. Empty: the same, for a
	 * client without TRANSID; it hears nothing, as from the backend.
	 */
	enum sq_err (*finish)(void *ctx, bool tls, struct gw_reply *reply);
	/* The client ended it (RSET, a new MAIL, QUIT): the body goes, a stored verdict stays. */
	void (*drop)(void *ctx);
	/* TLS is up: what was said before is forgotten. */
	void (*reset)(void *ctx);
};

/* ---- machine.c, envelope.c, content.c */

/* What EHLO offers besides; those of the backend. */
enum { GW_HAS_8BITMIME = 1, GW_HAS_SMTPUTF8 = 2, GW_HAS_DSN = 4 };

struct gw_machine {
	/* Filled by the caller before gw_machine_start(). */
	const struct gw_ops *ops;
	void *ctx;
	const char *hostname, *store_id, *mechanisms;  /* "PLAIN LOGIN" */
	int64_t max_size_bytes, retain_s;
	unsigned features;
	bool tls_possible, tls, clear_auth;  /* clear_auth: AUTH without TLS, on loopback only */

	struct sq_buf out;         /* replies to be sent */
	bool starttls, closing;    /* the caller starts TLS, or ends, once `out` is sent */

	/* The machine's own. */
	int mode, data_state, errors;
	struct sq_buf line, text;  /* text: un-stuffed content on its way to append */
	bool greeted, authenticated, open, resumed, rcpt_any, settled;
	bool bdat_last, bdat_refused, writing;
	int64_t bdat_left, unsynced;
	struct gw_envelope env;
};

/* Puts the greeting into out. */
void gw_machine_start(struct gw_machine *m);
/* Take octets from the client. All are used, or the machine is closing or waits for TLS. */
void gw_machine_feed(struct gw_machine *m, const char *p, size_t n);
/* Make what has come durable (every 2 s, and when the connection has ended). */
void gw_machine_sync(struct gw_machine *m);
/* True while there is something to sync. */
bool gw_machine_unsynced(const struct gw_machine *m);
/* TLS is up: all that was said before is forgotten (RFC 3207 section 4.2). */
void gw_machine_secured(struct gw_machine *m);
void gw_machine_fini(struct gw_machine *m);

/* Between the machine's files. */
enum { GW_COMMAND, GW_AUTH, GW_DATA, GW_BDAT };
void gw_say(struct gw_machine *m, const char *text);
void gw_refuse(struct gw_machine *m, const char *text);    /* counts as the client's error */
void gw_give_up(struct gw_machine *m, enum sq_err e);
void gw_transaction_drop(struct gw_machine *m);
bool gw_parse_number(const char *s, char **end, int64_t *out);
void gw_do_mail(struct gw_machine *m, char *arg);
void gw_do_rcpt(struct gw_machine *m, char *arg);
void gw_do_data(struct gw_machine *m, char *arg);
void gw_do_bdat(struct gw_machine *m, char *arg);
size_t gw_take_data(struct gw_machine *m, const char *p, size_t n);
size_t gw_take_bdat(struct gw_machine *m, const char *p, size_t n);

/* ---- settings.c */

enum gw_tls { GW_TLS_NONE, GW_TLS_STARTTLS, GW_TLS_IMPLICIT };

enum { GW_LISTEN_MAX = 8 };

struct gw_listen {
	char *host;
	char port[8];
	enum gw_tls tls;
};

/* How long things are kept, and how much. */
struct gw_limits {
	int64_t retain_ms, interrupted_ms, duplicate_ms;
	int64_t user_bytes, total_bytes;
	int64_t user_messages;
	bool allow_duplicates;             /* for users of whom nothing else is said */
	bool deliver_partial;
};

struct gw_settings {
	char *hostname, *state, *maildir, *passwords, *certificate, *key, *user;
	/* The backend, where it is not the Maildir. */
	char *passthrough, *trusted;       /* URL: exactly one of these and maildir */
	char *backend_ca, *backend_name, *probe_recipient;
	char *backend_host;
	char backend_port[8];
	enum gw_tls backend_tls;
	char backend_mechanisms[64];       /* learned at the start */
	unsigned backend_features;
	struct gw_listen listen[GW_LISTEN_MAX];
	size_t listens;
	struct gw_limits limits;
	int64_t max_size_bytes, idle_ms;
	int64_t connections, client_connections;
	int64_t alert_ms;                  /* so long after its beginning a partial message is told of */
	char *local_server;                /* URL: where mail for local people is taken without a login */
	char *local_host;
	char local_port[8];
	enum gw_tls local_tls;
};

/*
 * Read the file. Unknown settings and wrong types are errors with their line.
 * `listen` (may be NULL) stands for the setting of that name.
 */
SQ_MUST_USE enum sq_err gw_settings_load(const char *path, const char *listen, struct gw_settings *out,
    struct sq_error *err);
void gw_settings_fini(struct gw_settings *s);

/* ---- auth.c: AUTH PLAIN and LOGIN against a file of `user:hash` lines, hashes as crypt(3) makes them */

struct gw_auth {
	const char *passwords;  /* path */
	int step;
	char user[GW_NAME_MAX + 1];
};

enum gw_step gw_auth_local(struct gw_auth *a, const char *mech, const char *words, char identity[GW_NAME_MAX + 1],
    struct gw_reply *reply);
/* Base64 of one line into out (NUL behind it); the length, or -1. */
int gw_base64(const char *s, char *out, size_t room);
/* The file can be read and others cannot read it. */
SQ_MUST_USE enum sq_err gw_passwords_check(const char *path, struct sq_error *err);

/* ---- backends: where whole messages go */

struct gw_rcpt {
	char address[GW_ADDRESS_MAX + 1];
	char params[GW_PARAMS_MAX];   /* " NOTIFY=… ORCPT=…" */
	bool skip;                    /* has it already: not to be told to the backend */
	bool done;                    /* the backend delivered to it, whatever its verdict says */
};

typedef enum sq_err gw_reader(void *ctx, const char *p, size_t n, struct sq_error *err);

struct gw_message {
	const char *name;             /* the same at every try of this message */
	const struct gw_envelope *env;
	struct gw_rcpt *rcpt;
	size_t rcpts;
	const char *trace;            /* a Received field, CRLF at its end */
	int64_t octets;
	bool again;                   /* an earlier try ended nobody knows how */
	/* May be NULL. Said before what the backend may accept it by; not SQ_OK: that must not be sent. */
	enum sq_err (*commit)(void *source, struct sq_error *err);
	/* Hand the content to `take`, in order. */
	enum sq_err (*read)(void *source, gw_reader *take, void *ctx, struct sq_error *err);
	void *source;
};

struct gw_backend {
	void *ctx;
	const char *mechanisms;       /* what AUTH offers */
	unsigned features;
	bool finds;                   /* with `again` it finds what the earlier try delivered, and delivers the rest */
	enum gw_step (*auth)(void *ctx, const char *mech, const char *words, char identity[GW_NAME_MAX + 1],
	    struct gw_reply *reply);
	/* The envelope, as it comes. False: refused, with the reply. */
	bool (*mail)(void *ctx, const struct gw_envelope *env, struct gw_reply *reply);
	bool (*rcpt)(void *ctx, const char *address, const char *params, struct gw_reply *reply);
	/* Deliver to all recipients that are not to be skipped. The reply is the verdict. False: nobody knows what became of it. */
	bool (*deliver)(void *ctx, const struct gw_message *m, struct gw_reply *reply);
	/* The transaction that began with `mail` is over, if there was one. */
	void (*reset)(void *ctx);
	void (*close)(void *ctx);
};

/* maildir.c: <root>/<address in lower case>/{tmp,new,cur}. Creates no mailbox. */
struct gw_maildir {
	const char *root;
	struct gw_auth auth;
};
void gw_maildir_backend(struct gw_maildir *m, const struct gw_settings *s, struct gw_backend *out);
bool gw_maildir_has(const char *root, const char *address);

/* relay.c: a real MTA. */
SQ_MUST_USE enum sq_err gw_relay_backend(const struct gw_settings *s, const char *client, struct gw_backend *out,
    struct sq_error *err);
/*
 * Once at the start: learn what the backend offers, and see that it relays nothing for strangers.
 * SQ_EPERM: it does. Any other error: that could not be seen.
 */
SQ_MUST_USE enum sq_err gw_relay_probe(struct gw_settings *s, struct sq_error *err);
/* The server for local people: the same, without who logs in; and the same condition. */
SQ_MUST_USE enum sq_err gw_relay_local(const struct gw_settings *s, struct gw_backend *out, struct sq_error *err);
SQ_MUST_USE enum sq_err gw_relay_local_probe(const struct gw_settings *s, struct sq_error *err);

/* ---- session.c */

struct gw_store;
struct gw_session;

/* What is behind struct gw_ops for one connection. `client`: its address, for trace fields. */
SQ_MUST_USE enum sq_err gw_session_new(const struct gw_settings *s, struct gw_store *store, struct gw_backend *backend,
    const char *client, struct gw_session **out, struct sq_error *err);
void gw_session_free(struct gw_session *s);
extern const struct gw_ops gw_session_ops;

/* ---- serve.c */

struct ssl_ctx_st;
SQ_MUST_USE enum sq_err gw_tls_context(const struct gw_settings *s, struct ssl_ctx_st **out, struct sq_error *err);
/* Serve one connection until its end. `ended` turns true on SIGTERM. */
void gw_serve(const struct gw_settings *s, struct ssl_ctx_st *tls, int fd, const char *client, enum gw_tls how);

/* ---- worker.c: what is done beside the sessions */

/* Sweep, and tell of partial messages, once. */
SQ_MUST_USE enum sq_err gw_worker_round(const struct gw_settings *s, struct sq_error *err);

/* Where mail for local people goes without a login. SQ_ENOENT: the settings name no such place. */
SQ_MUST_USE enum sq_err gw_local_backend(const struct gw_settings *s, struct gw_maildir *maildir, struct gw_backend *out,
    struct sq_error *err);

/* ---- admin.c: what people do with the store */

/* list, show, remove, deliver, set; the exit status. */
int gw_admin(const struct gw_settings *s, int argc, char **argv, bool json);

/* ---- faults.c */
#ifdef SENDQ_FAULTS
/* A point where something has just become durable, or is about to: SENDQ_GATEWAY_KILL=n dies at the n-th of a process. */
extern bool gw_points_armed;
void gw_point(void);
#else
#define gw_point() ((void)0)
#endif

#endif
