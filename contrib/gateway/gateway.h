/*
 * The gateway's contracts. The machine speaks SMTP and knows neither sockets
 * nor SQLite; the store keeps transactions and knows no SMTP; the Maildir
 * delivers. They meet in struct gw_ops.
 */
#ifndef GATEWAY_H
#define GATEWAY_H

#include <sendq/base.h>
#include <sendq/buf.h>
#include <sendq/error.h>

enum {
	GW_LINE_MAX = 2048,          /* a command line, CRLF included */
	GW_ADDRESS_MAX = 320,
	GW_NAME_MAX = 255,           /* EHLO name, login */
	GW_TRANSID_MAX = 80,         /* RFC 1845 section 2, brackets included */
	GW_PARAMS_MAX = 1024,
	GW_FLUSH_BYTES = 64 * 1024,  /* octets that a crash of the machine may cost */
	GW_TEXT_LINE_MAX = 1 << 20,  /* a line of DATA */
	GW_RCPT_MAX = 100,
	GW_ERRORS_MAX = 20,
};

enum gw_verb { GW_VERB_NONE, GW_VERB_DATA, GW_VERB_BDAT };
enum gw_found { GW_FRESH, GW_RESUMED, GW_DIFFERS };

/* What identifies and describes a transaction. Views are C strings of the machine's. */
struct gw_mail {
	const char *auth;      /* authenticated identity */
	const char *ehlo;      /* lower case */
	const char *transid;   /* with brackets, or NULL: then nothing survives the session */
	const char *sender;
	const char *params;    /* all that must be equal when the transaction is taken up again */
	int64_t declared;      /* SIZE, or 0 */
	bool resend;           /* XRESEND: a person wants it sent again, duplicate or not */
};

struct gw_txn {
	int64_t id;            /* 0: none */
	int64_t owner;         /* this session's claim: random, so that a voided one fits no row */
	int64_t octets;        /* stored durably */
	enum gw_verb verb;
	char sha256[65];       /* of those octets; set on GW_RESUMED only */
};

/* The answer to a terminator, as it goes over the wire (no CRLF). */
struct gw_verdict {
	char text[256];
};

/*
 * What the machine needs of the world. SQ_EPERM from append and finish: a
 * newer session has taken the transaction over; nothing was stored. Any other
 * error: nothing was stored either, and the client may try again.
 */
struct gw_ops {
	bool (*login)(void *ctx, const char *user, const char *password);
	bool (*local)(void *ctx, const char *address);
	/* Find or make the transaction and take it from whoever had it, in one step. GW_DIFFERS changes nothing. */
	enum sq_err (*begin)(void *ctx, const struct gw_mail *mail, enum gw_found *found, struct gw_txn *out,
	    struct sq_error *err);
	/* Add a recipient, durable on return. SQ_ELIMIT: too many. */
	enum sq_err (*rcpt)(void *ctx, const struct gw_txn *txn, const char *address, struct sq_error *err);
	bool (*has_rcpt)(void *ctx, const struct gw_txn *txn, const char *address);
	/* Append octets and move txn->octets on; durable on return. n = 0 marks that content has begun (txn->verb). */
	enum sq_err (*append)(void *ctx, struct gw_txn *txn, const void *p, size_t n, struct sq_error *err);
	/* All octets are here: deliver once, store the verdict, and only then give it. */
	enum sq_err (*finish)(void *ctx, const struct gw_txn *txn, const char *trace, struct gw_verdict *out,
	    struct sq_error *err);
	/* The owner ended it (RSET, a new MAIL, QUIT): the body goes, a stored verdict stays. */
	void (*drop)(void *ctx, const struct gw_txn *txn);
};

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
	int64_t retain_s, interrupted_s, duplicate_s;
	int64_t user_bytes, total_bytes;
	int64_t user_messages;
};

struct gw_settings {
	char *hostname, *state, *maildir, *passwords, *certificate, *key, *user;
	struct gw_listen listen[GW_LISTEN_MAX];
	size_t listens;
	struct gw_limits limits;
	int64_t max_size_bytes;
	int connections, idle_s;
};

/* Read the file. Unknown settings and wrong types are errors with their line. */
SQ_MUST_USE enum sq_err gw_settings_load(const char *path, struct gw_settings *out, struct sq_error *err);
void gw_settings_fini(struct gw_settings *s);

/* ---- store.c */

struct gw_store;

/*
 * Open <dir>/store.db, making it where it is missing.
 * SQ_EBUSY, SQ_EIO, SQ_ECORRUPT, SQ_ENEWER. One process, one handle; never across fork.
 */
SQ_MUST_USE enum sq_err gw_store_open(const char *dir, struct gw_store **out, struct sq_error *err);
void gw_store_free(struct gw_store *s);
/*
 * Once at the start. A store that is older than what was written beside it
 * (restored from a backup) or has lost its mark gets a new id, and its
 * interrupted transactions go: nobody can know whether they were delivered
 * after the copy was made.
 */
SQ_MUST_USE enum sq_err gw_store_check_mark(struct gw_store *s, const char *dir, struct sq_error *err);
const char *gw_store_id(const struct gw_store *s);  /* UUID */
/* Before any session: what is kept, and where mail goes (NULL: nowhere). The store keeps the pointers. */
void gw_store_limits(struct gw_store *s, const struct gw_limits *limits, const char *maildir);
/* Remove what is too old. */
SQ_MUST_USE enum sq_err gw_store_sweep(struct gw_store *s, struct sq_error *err);

enum sq_err gw_store_begin(void *store, const struct gw_mail *mail, enum gw_found *found, struct gw_txn *out,
    struct sq_error *err);
enum sq_err gw_store_rcpt(void *store, const struct gw_txn *txn, const char *address, struct sq_error *err);
bool gw_store_has_rcpt(void *store, const struct gw_txn *txn, const char *address);
enum sq_err gw_store_append(void *store, struct gw_txn *txn, const void *p, size_t n, struct sq_error *err);
enum sq_err gw_store_finish(void *store, const struct gw_txn *txn, const char *trace, struct gw_verdict *out,
    struct sq_error *err);
void gw_store_drop(void *store, const struct gw_txn *txn);

#ifdef SENDQ_FAULTS
/* A point where something has just become durable, or is about to: SENDQ_GATEWAY_KILL=n dies at the n-th. */
extern bool gw_points_armed;
void gw_point(void);
#else
#define gw_point() ((void)0)
#endif

/* ---- maildir.c */

/* The folder <root>/<address in lower case> exists. */
bool gw_maildir_has(const char *root, const char *address);

struct gw_drop;

/*
 * Begin a delivery under `name`, which is the same for every try of this
 * message. SQ_OK with *out NULL: it is there already. Lines end in LF in the
 * file. Nothing is seen in the mailbox before gw_maildir_commit.
 */
SQ_MUST_USE enum sq_err gw_maildir_begin(const char *root, const char *address, const char *name,
    struct gw_drop **out, struct sq_error *err);
SQ_MUST_USE enum sq_err gw_maildir_write(struct gw_drop *d, const char *p, size_t n, struct sq_error *err);
/* fsync, rename into new, fsync the folder. */
SQ_MUST_USE enum sq_err gw_maildir_commit(struct gw_drop *d, struct sq_error *err);
void gw_maildir_freep(struct gw_drop **d);  /* removes what was not committed */

/* ---- passwords.c */

/* Lines `user:hash` as crypt(3) makes them. Blank lines and those that begin with # are passed over. */
SQ_MUST_USE enum sq_err gw_passwords_load(const char *path, struct sq_buf *out, struct sq_error *err);
/* Unknown users cost as much time as known ones. */
bool gw_passwords_check(const struct sq_buf *passwords, const char *user, const char *password);

/* ---- machine.c */

struct gw_machine {
	const struct gw_ops *ops;
	void *ctx;
	const char *hostname, *client, *store_id;
	int64_t max_size_bytes, retain_s;
	bool tls_possible, tls, clear_auth;  /* clear_auth: AUTH without TLS, on loopback only */

	struct sq_buf out;         /* replies to be sent */
	bool starttls, closing;    /* the caller starts TLS, or ends, once `out` is sent */

	int mode, data_state, auth_step;
	struct sq_buf line, pending;
	size_t line_end;           /* octets of pending up to its last CRLF */
	bool skip_line;
	int errors;
	bool greeted, resend, utf8, resumed, rcpt_any, bdat_last, bdat_refused, bdat_done;
	int64_t bdat_left, declared;
	char ehlo[GW_NAME_MAX + 1], auth[GW_NAME_MAX + 1], user[GW_NAME_MAX + 1];
	char transid[GW_TRANSID_MAX + 1], sender[GW_ADDRESS_MAX + 1], params[GW_PARAMS_MAX];
	struct gw_txn txn;
};

/* The caller fills the struct's first two groups before. Puts the greeting into out. */
void gw_machine_start(struct gw_machine *m);
/* Take octets from the client. All are used, or the machine is closing. */
void gw_machine_feed(struct gw_machine *m, const char *p, size_t n);
/* Store what is pending (every 2 s, and when the connection has ended). */
void gw_machine_flush(struct gw_machine *m);
/* TLS is up: all that was said before is forgotten (RFC 3207 section 4.2). */
void gw_machine_secured(struct gw_machine *m);
void gw_machine_fini(struct gw_machine *m);

/* ---- serve.c */

struct ssl_ctx_st;
struct gw_server {
	const struct gw_settings *settings;
	const struct sq_buf *passwords;
	struct ssl_ctx_st *tls;
};

SQ_MUST_USE enum sq_err gw_tls_context(const struct gw_settings *s, struct ssl_ctx_st **out, struct sq_error *err);
/* Serve one connection until its end. */
void gw_serve(const struct gw_server *server, int fd, const char *client, enum gw_tls tls);

#endif
