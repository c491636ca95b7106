/*
 * The configuration file (libconfig), checked whole: after sq_config_load()
 * every value is present, in range and of its type, defaults included.
 * One table in sendq/config/ names every setting with type, default and unit;
 * it also feeds the "did you mean" of an unknown name.
 */
#ifndef SENDQ_CONFIG_H
#define SENDQ_CONFIG_H

#include <sendq/agent.h>
#include <sendq/buf.h>

enum { SQ_CREDENTIAL_MAX = 100 }; /* octets of a credential's name */
enum sq_secret_kind { SQ_SECRET_NONE, SQ_SECRET_LITERAL, SQ_SECRET_FILE, SQ_SECRET_COMMAND, SQ_SECRET_TOKEN_COMMAND, SQ_SECRET_OAUTH, SQ_SECRET_CREDENTIAL };
enum sq_duplicates { SQ_DUPLICATES_AVOID, SQ_DUPLICATES_ALLOW, SQ_DUPLICATES_ASK };
enum sq_tristate { SQ_AUTO, SQ_YES, SQ_NO };
enum sq_masquerade { SQ_MASQUERADE_ENVELOPE, SQ_MASQUERADE_HEADER, SQ_MASQUERADE_OFF };
enum sq_message_id_kept { SQ_MSGID_AUTO, SQ_MSGID_KEPT, SQ_MSGID_REWRITTEN };

/* Strings are heap, owned by the configuration, NULL where not set. Times in milliseconds, sizes in octets. */
struct sq_route {
	char *name;              /* unique, [A-Za-z0-9._-]{1,64} */
	char **from;             /* globs, case-insensitive; NULL-terminated; empty: every sender */
	char *server;            /* normal form: smtp://host:port or smtps://host:port */
	char *host;              /* without brackets */
	int port;                /* default 587 (smtp), 465 (smtps) */
	bool implicit_tls;       /* smtps */
	bool local;              /* certainly of this machine alone: 'server' and 'imap' by a loopback address or "localhost", no proxy */
	char *user;
	enum sq_secret_kind secret_kind;
	char *secret;            /* the password itself, a file, a command for /bin/sh -c, or the name of a credential of systemd */
	char *auth;              /* capitals; NULL: PLAIN or LOGIN, XOAUTH2 with token_command; OAUTH: OAUTHBEARER or XOAUTH2 with secret_kind OAUTH */
	/* With secret_kind OAUTH: whose client this is, where tokens come from (https://; the provider's where not set), where the refresh token is kept. */
	char *oauth_client_id, *oauth_client_secret_file, *oauth_client_secret_command;
	char *oauth_auth_url, *oauth_device_url, *oauth_token_url, *oauth_scope, *oauth_ca_file; /* auth or device may be NULL */
	char *oauth_refresh_file; /* set where no command is */
	char *oauth_refresh_command, *oauth_refresh_store;
	enum sq_tls tls;
	char *ca_file, *fingerprint, *client_cert, *client_key, *proxy, *ehlo_name;
	char *imap;              /* imaps://host:port; kept for evidence */
	char *mta_log;
	enum sq_duplicates duplicates;
	enum sq_tristate keeps_partial;
	enum sq_message_id_kept message_id;
	bool eightbit_send;      /* eightbit = "send" */
	int connections;         /* 1…20, default 1 */
	int64_t retry_min_ms;    /* first wait after a 4yz, default 30 min */
	int64_t retry_max_ms;    /* default 2 h */
	int64_t warn_ms;         /* default 4 h; 0: never */
	int64_t alert_ms;        /* between two notices of a message that broke off: at least 1 h, the default; 0: none */
	int64_t expire_ms;       /* default 5 d */
	char *fallback;          /* name of another route */
	int64_t fallback_after_ms; /* default 30 min */
	char *force_from;        /* sender of the envelope and address in From, whatever the caller says */
	int line;                /* where it begins in the file */
};

struct sq_config {
	char *path;              /* of the file */
	bool system;             /* it is that of the machine (system mode) */
	char *queue;             /* of the database */
	bool autostart;          /* default true */
	struct sq_route *routes; /* in file order, at least one */
	size_t n_routes;
	char *identity;          /* address used where nothing else gives a sender */
	char *aliases;           /* file of aliases(5) */
	char *domain;            /* completes recipients without one; NULL: the sender's */
	char **local_domains;    /* globs of domains that only this machine knows; NULL: none */
	enum sq_masquerade masquerade;
	char *notices;           /* Maildir, default <state dir>/sendq/notices */
	char *notify;            /* "desktop" (default), "none", or a shell command */
	char *report_to;         /* "local" (default) or an address: reports go there by mail as well */
	char *log;               /* error, warn, info (default), debug */
	int user_messages_max;       /* system mode: waiting messages of one user */
	int user_connections_max;    /* system mode: sessions of one user at once */
	int64_t undo_window_ms;      /* default 0 */
	int64_t duplicate_window_ms; /* default 10 min */
	int64_t ledger_ms;           /* ledger_days, default 90 d; 0: none kept */
	int64_t message_size_max;    /* default 150 MB; 0: no limit */
	int64_t queue_size_max;      /* default 4 GB; 0: no limit */
	int64_t free_disk_min;       /* default 64 MB */
	int64_t connect_timeout_ms;  /* default 120 s */
	int64_t verdict_timeout_ms;  /* default 10 min, not less except in test builds */
	int64_t stop_grace_ms;       /* how long SIGTERM waits for jobs in commit, default 10 s */
};

/*
 * Which file: `option` (-C/--config) if not NULL, else SENDQ_CONFIG, else the
 * effective user's own. In a process with AT_SECURE the environment is
 * ignored. Heap path in *out. SQ_ENOENT names everything that was tried.
 */
SQ_MUST_USE enum sq_err sq_config_find(const char *option, char **out, struct sq_error *err);

/* Where it would be, whether it is there or not: to be written. Heap; NULL: this user has no home. */
char *sq_config_place(const char *option);

/*
 * System mode (DESIGN §2): one queue for all users of the machine, who need
 * no configuration. Its places, below SENDQ_SYSTEM_ROOT in builds with fault
 * points. Heap; NULL only when memory is out.
 */
enum sq_system_place {
	SQ_SYSTEM_CONFIG,    /* /etc/sendq/sendq.conf */
	SQ_SYSTEM_QUEUE,     /* /var/lib/sendq/queue.db */
	SQ_SYSTEM_NOTICES,   /* /var/lib/sendq/notices: for users without a mailbox */
	SQ_SYSTEM_MAIL,      /* /var/mail */
	SQ_SYSTEM_SUBMIT,    /* /run/sendq/submit.sock */
	SQ_SYSTEM_CONTROL,   /* /run/sendq/control.sock */
	SQ_SYSTEM_CREDENTIALS, /* /etc/credstore.encrypted: systemd's */
	SQ_SYSTEM_DROP_INS,  /* /etc/systemd/system/sendqd.service.d */
};
char *sq_system_path(enum sq_system_place which);

/*
 * Does this machine have it, and is it meant: no -C, no SENDQ_CONFIG, no
 * configuration of the user's own? To be asked when sq_config_find() said SQ_ENOENT.
 */
bool sq_system_is_meant(const char *option);

/*
 * Load and check. SQ_EINVAL: "'/path': line 12: unknown setting 'pasword' in
 * route 'home', did you mean 'password'?"; also for a wrong type, a value out
 * of range, two secrets in one route, a fallback that does not exist.
 * SQ_EPERM: a file that holds `password` or is named by `password_file` and
 * that others may read or write (says the chmod to type), or a file of
 * another user than the effective one or root. A missing or empty `routes`
 * is SQ_EINVAL with the shortest configuration that works.
 */
SQ_MUST_USE enum sq_err sq_config_load(const char *path, struct sq_config **out, struct sq_error *err);
void sq_config_free(struct sq_config *cfg);
void sq_config_freep(struct sq_config **cfg);

/*
 * The route of a message (DESIGN §4): the first in file order of which a
 * `from` glob matches `envelope_sender`, or, where that is NULL, `header_from`;
 * a route without `from` matches every sender. NULL: none (EX_CONFIG).
 */
const struct sq_route *sq_config_route_for(const struct sq_config *cfg, const char *envelope_sender, const char *header_from);
const struct sq_route *sq_config_route(const struct sq_config *cfg, const char *name);

/* "10m", "1h30m", "25M": used by the loader and by command-line options. -1 when it is none. */
int64_t sq_parse_duration_ms(const char *s);
int64_t sq_parse_size(const char *s);

/*
 * A point in time, in Unix milliseconds: a duration from now ("2h", "+90m"),
 * a local time of day ("18:00": today's, or tomorrow's when that is over), a local date and
 * time ("2026-12-24 18:00"), or "@<seconds since 1970>". -1 when it is none.
 */
int64_t sq_parse_when(const char *s, int64_t now_ms);

/* Of `names` (NULL-terminated) the one nearest to `word` by edit distance ≤ 3, or NULL. */
const char *sq_nearest_name(const char *word, const char *const *names);

#endif
