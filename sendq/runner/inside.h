/*
 * Inside the runner only: its state and what its files ask of each other.
 *
 * loop.c      the loop, the batch of a round, start and stop
 * spawn.c     the process of an agent
 * session.c   one agent as seen from here: frames in, marks into the batch
 * window.c    several messages on one agent at once: where that is allowed, and what becomes of them
 * assign.c    agents: when one is started, and what it gets
 * fallback.c  mail of a route that takes nothing goes by another
 * pick.c      which message goes next on a route
 * links.c     how routes fare on this network: quality, state, waits
 * netwatch.c  the world outside: networks, suspend, changed files
 * bus.c       the machine's own services: captive portals, sleep
 * secrets.c   commands that print passwords
 * requests.c  what people ask for
 * doubt.c     messages in doubt: evidence, policy, time of usable link
 * mtalog.c    evidence from the log of an own MTA
 * reports.c   reports
 * hooks.c     the notify command
 * alert.c     a word at the first cut
 * tokens.c    access tokens of OAuth: had, kept, asked for anew
 * probe.c     trying a connection for a person who looks
 * delayed.c   warnings of long waits, reports by mail
 */
#ifndef SENDQ_RUNNER_INSIDE_H
#define SENDQ_RUNNER_INSIDE_H

#include <sendq/agent.h>
#include <sendq/config.h>
#include <sendq/link.h>
#include <sendq/queue.h>
#include <sendq/report.h>
#include <sendq/runner.h>

#include "bus.h"

enum { SQ_PREFER_ONLY_MS = 86400000, SQ_KEEP_SESSION_MS = 2000, SQ_BYE_MS = 5000, SQ_CANCEL_MS = 5000, SQ_SECRET_MS = 30000, SQ_STORE_RETRY_MS = 30000,
	SQ_CHECKING_MS = 20000 };

enum agent_state {
	AGENT_SECRET,   /* its password command runs; no process of its own yet */
	AGENT_CONNECTING,
	AGENT_BUSY,     /* a transaction is open */
	AGENT_IDLE,
	AGENT_LEAVING,  /* BYE was sent */
	AGENT_GONE,     /* reaped: to be freed */
};

enum txn_state { TXN_NONE, TXN_SENT, TXN_ENVELOPE, TXN_TERMINATOR };

struct command {
	pid_t pid;      /* 0: none */
	int out, err;
	struct sq_buf text, words;
	int64_t deadline;  /* boot ms */
};

struct evidence;
struct access_token;

struct log_question;

/* What a source of evidence said. */
struct finding {
	enum sq_evidence_kind kind;
	bool certain;           /* negative, and it need not be asked twice, nor waited for */
	char source[64], quote[512];
};

/* Since when the link of a route is known to be usable, and up to where that was counted (ms awake). */
struct link_use {
	struct link_use *next;
	char route[65];
	bool usable;
	int64_t counted_ms;
};

/* A route on the network that we are on; its row is written through. */
struct link {
	struct link *next;
	struct sq_link_row row;
	int64_t saved_ms;          /* boot */
	int64_t probed_ms;         /* boot: asked last whether it would do as a fallback; 0: never */
	double spent, spent_oldest;
	struct sq_message_id oldest;
	double waited_mean;        /* octets between cuts when messages were put aside; 0: they were let go */
	struct sq_link_past past;  /* being gathered */
	int64_t past_since;        /* boot ms; 0: nothing is */
};

struct picks;
struct netwatch;

/* What one agent has carried, as far as it was not credited to its link. Times: boot ms. */
struct meter {
	int64_t since;             /* up to where time was credited; 0: nothing is under way */
	int64_t asked, go;         /* TXN, the terminator's GO were sent; 0: answered */
	int64_t go_awake;          /* the same as go, on the clock of waking hours */
	uint64_t wire, content, open, credited; /* octets: acknowledged with all that wraps them; of whole messages; of the open one */
	uint32_t retransmits;
	double rate;               /* of the last second */
	bool in_content;
};

/* A run of the notify command that waits for its turn. */
struct hook_run {
	struct hook_run *next;
	char **env;             /* NULL-terminated, heap */
};

/* A notice that waits for the commit of what it tells. */
struct resolved {
	struct resolved *next;
	struct sq_message_id id;
	enum sq_report_kind kind;
	int64_t since_ms;       /* SETTLED: about recipients that were settled from then on */
	char words[700];
};

/* A report on its way: kind, recipients, words and now_ms are the caller's, the rest is of the message. */
struct notice {
	struct sq_report rep;
	char id[SQ_ID_TEXT];
	struct sq_buf header;
};

/* Several messages that one agent has at once (DESIGN §5), and how many it may have next. */
struct window {
	int n;                  /* open or not yet sent; 0: no window */
	int max;                /* messages in the next; 0: none on this session */
	bool permitted;         /* JOB said that windows may come */
	bool able, proved;      /* by what the server offers; by what was learned */
	bool due;               /* TXN and content go out behind the round's commit */
	bool used, clean;       /* on this session; this window so far */
	bool route_noted;       /* a refusal that concerns the route was counted */
	struct window_item {
		struct sq_work *work; /* NULL: over, or in the agent's hand */
		uint16_t txn;
		enum txn_state mark;
	} items[SQ_TXN_OPEN_MAX];
};

/* The way to an access token: the client's secret, the refresh token, the provider, keeping a new refresh token. */
enum token_step { TOKEN_CLIENT, TOKEN_REFRESH, TOKEN_PROVIDER, TOKEN_STORING };
struct token_way {
	enum token_step step;   /* whose command or process runs */
	bool again;             /* the refresh token was replaced by somebody else meanwhile: its successor is tried */
	struct sq_buf client, refresh;
	struct sq_buf access;   /* had already, while the refresh token is being kept */
	uint32_t expires_s;     /* of that */
};

struct agent {
	struct agent *next;
	char route[65];
	enum sq_job_kind kind;
	struct sq_message_id about; /* not DELIVER: the doubt it was started for */
	struct evidence *evidence;
	enum agent_state state;
	pid_t pid;
	struct sq_stream stream;
	int fd;
	struct command secret;
	bool secret_tried_now;  /* the command ran for this agent */
	struct token_way token; /* with OAuth: how far it is */

	char ehlo_name[256];    /* said in this session: part of what a resume goes by (RFC 1845 §2) */
	char login[512];        /* and as whom: whether the server's promise is for us */

	struct sq_work *work;   /* claimed; NULL: none */
	bool cleared;           /* its doubt is over: the server showed that it had accepted nothing */
	struct window window;   /* then `work` is the one that a frame is about, or NULL */
	bool corked;            /* frames are gathered and flushed together */
	uint16_t txn;
	enum txn_state mark;    /* how far it is by what was committed */
	enum sq_phase phase;
	bool cancelled, progressed, was_ready, had_end;
	struct sq_read reads[SQ_READ_OPEN_MAX];
	int n_reads;
	uint32_t go_seq;        /* to be sent after the round's commit */
	bool go_due, go_doubtful;
	struct meter meter;
	bool express;           /* beside the route's connections: takes only what may go so */
	int64_t deadline;       /* boot ms by which the state must change; 0: none */
	int64_t began;          /* boot ms of the connection */
};

/* What was made of the system bus. Times: boot ms. */
struct bus_watch {
	struct sq_bus *bus;     /* NULL: not heard */
	struct sq_bus_news news; /* the last */
	enum sq_connectivity connectivity, before; /* acted upon; that of the last time it was known */
	bool told, sleeping;    /* of sleep; nothing is begun until we are awake */
	int64_t let_go_by, awake_by;
};

struct runner {
	const struct sq_runner_options *o;
	struct sq_config *cfg;
	int64_t cfg_mtime_ns, cfg_ino;
	struct sq_queue *q;
	char *ehlo_name;
	int lock_fd, wake_fd, signal_fd, timer_fd;
	char *wake_path;
	uint64_t wake_inode;    /* of the socket at wake_path that is ours */
	struct agent *agents;
	bool batch;             /* open */
	bool stopping;
	int64_t stop_by;        /* boot ms */
	int64_t *flushes;       /* requests under way */
	size_t n_flushes;
	bool store_failed, verdict_due; /* a verdict is in the open batch */
	int64_t store_retry;    /* boot ms */
	struct command hook;
	struct hook_run *hooks; /* oldest first */
	size_t n_hooks;
	int64_t next_sweep;     /* boot ms */
	int64_t next_warning;   /* wall ms; 0: to be looked up */
	struct link_use *uses;
	struct access_token *tokens;
	struct log_question *logs;
	struct link *links;
	struct picks *picks;
	struct netwatch *watch;
	struct bus_watch bus;
	struct sq_network network;
	struct resolved *resolved;
	bool cuts_due;          /* a message broke off of which its sender is to be told */
	bool fallback_due;      /* a route failed, or was reached */
	int64_t fallback_at;    /* wall ms: some mail has then waited for its route long enough */
	bool doubts_due;        /* something happened that a doubt may have waited for */
	bool doubts_open;       /* evidence that is due is still to be asked for */
	int64_t doubts_wake;    /* boot ms */
};

/* loop.c */
SQ_MUST_USE bool runner_mark(struct runner *r);           /* a durable batch is open; false: the store failed */
void runner_store_failed(struct runner *r, const struct sq_error *err);

/* spawn.c: on SQ_OK a->pid, a->fd and a->stream are set; else nothing is left behind */
SQ_MUST_USE enum sq_err helper_spawn(const char *name, int lock_fd, pid_t *pid, int *out_fd, struct sq_error *err); /* lock_fd -1: none */
SQ_MUST_USE enum sq_err agent_spawn(struct runner *r, struct agent *a, struct sq_error *err);

/* session.c */
void agent_events(struct runner *r, struct agent *a);     /* readable or writable */
char *program_path(const char *name);                     /* beside this program, else where it was installed; heap, NULL: memory */
void agent_after_commit(struct runner *r, struct agent *a); /* GO and CONTENT that waited for the commit */
void agent_start(struct runner *r, struct agent *a, const struct sq_route *route, struct sq_str secret);
bool agent_give(struct runner *r, struct agent *a);       /* claim the next due message and send TXN; false: none */
void agent_send_txn(struct runner *r, struct agent *a, uint32_t flags);
void agent_bye(struct runner *r, struct agent *a);
void agent_cancel(struct runner *r, struct agent *a);
void agent_kill(struct runner *r, struct agent *a, const char *why);
void agent_failed(struct runner *r, struct agent *a, const struct sq_end *end); /* without a process: secret, spawn */
void agent_put(struct runner *r, struct agent *a, const struct sq_frame *f);
struct agent *agent_of_message(struct runner *r, struct sq_message_id id);
const struct sq_work *agent_work(const struct agent *a, struct sq_message_id id); /* alone or in a window; NULL: it has none of it */

/* window.c */
bool window_allowed(struct runner *r, const struct sq_route *route); /* by what was learned of it */
void window_ready(struct runner *r, struct agent *a, uint32_t caps); /* the session stands: how many may it have at once? */
bool window_give(struct runner *r, struct agent *a);      /* its work, if it has one, and as many more as may be; false: only one */
void window_send(struct runner *r, struct agent *a);      /* behind the commit of the claims */
struct window_item *window_focus(struct agent *a, uint16_t txn); /* what frames of `txn` are about becomes the agent's work */
void window_unfocus(struct agent *a, struct window_item *item);
bool window_next(struct agent *a);                        /* the next that is open becomes the agent's work */
bool window_committing(const struct agent *a);
const struct sq_work *window_work(const struct agent *a, struct sq_message_id id); /* NULL: it has none of it */
const char *window_terminator(struct runner *r, struct agent *a, const struct sq_terminator *t);
void window_verdict(struct agent *a, enum sq_outcome outcome);
void window_idle(struct agent *a);
void window_broken(struct runner *r, struct agent *a, const char *why); /* the server did what it must not */
void window_ended(struct runner *r, struct agent *a, enum sq_outcome outcome); /* the session, before its works are ended */
void window_free(struct agent *a);

/* assign.c */
void assign(struct runner *r);
void assign_windows(struct runner *r);                    /* only beside what is committed anyway */
void route_open(struct runner *r, const struct sq_route *route, struct agent *a); /* the secret, then the process */
bool quiet(struct runner *r);                             /* nothing is being tried, nothing could be */
int64_t next_wake(struct runner *r);                      /* boot ms, INT64_MAX: never */
bool agent_checking(const struct agent *a);               /* the server has been at its verdict for long */

/* fallback.c */
void fallback(struct runner *r);                          /* looks only where something happened or the time has come */

/* pick.c */
struct claim_limits { int messages; uint64_t each, octets; uint32_t recipients; }; /* octets, recipients: of all that is claimed together */
int claim_some(struct runner *r, const struct sq_route *route, const struct claim_limits *l, struct sq_work **out);
bool claim_next(struct runner *r, const struct sq_route *route, struct sq_work **out);
bool picks_any(struct runner *r, const struct sq_route *route); /* something may go now, as far as the route goes; puts aside what may not */
bool picks_nothing(struct runner *r, const struct sq_route *route); /* nothing may; only looks */
bool picks_express(struct runner *r, const struct sq_route *route); /* something may go beside what is under way */
void picks_forget(struct runner *r, const char *route);   /* what is due has changed; NULL: on any route */
void picks_new_mail(struct runner *r);
void picks_free(struct runner *r);

/* links.c */
struct link *route_link(struct runner *r, const char *route);
struct sq_order_link link_order(struct runner *r, const struct sq_route *route);
void link_note(struct runner *r, const char *route, enum sq_outcome cause, const struct sq_end *end, bool progressed);
void link_ended(struct runner *r, struct agent *a, enum sq_outcome cause, const struct sq_end *end); /* a session: its last octets, then the note */
void link_good(struct runner *r, const char *route, const struct sq_ready *ready, int64_t connect_ms);
void link_clear_waits(struct runner *r, bool stopped_only);
int64_t link_waits_until(struct runner *r, const char *route, int64_t now); /* wall time: 0 ready, INT64_MAX stopped */
void links_stirred(struct runner *r);                     /* an address or a route came, the machine woke up */
void links_moved(struct runner *r, const struct sq_network *to, bool same);
void links_forget(struct runner *r);
uint32_t link_verdict_ms(struct runner *r, const char *route); /* how long verdicts have taken there, with their spread; 0: unknown */
bool link_went_silent(struct runner *r, const char *route);   /* the last sessions there, without anything between */
void meter_begin(struct agent *a);
void meter_envelope(struct runner *r, struct agent *a);
void meter_go(struct agent *a);
void meter_sample(struct runner *r, struct agent *a, const struct sq_link_sample *s);
void meter_progress(struct agent *a, uint64_t acked);
void meter_verdict(struct runner *r, struct agent *a, uint64_t octets);
void meter_idle(struct agent *a);

/* loop.c */
void socket_moved(struct runner *r);                      /* there is a new file at wake_path */

/* netwatch.c */
enum { NETWATCH_FDS = 3 };
struct pollfd;
SQ_MUST_USE enum sq_err netwatch_open(struct runner *r, struct sq_error *err);
size_t netwatch_fds(const struct runner *r, struct pollfd *fds);
void netwatch_events(struct runner *r);                   /* read what came */
void netwatch_act(struct runner *r);                      /* then, with the queue open */
void netwatch_files(struct runner *r);                    /* the configuration names other files */
void netwatch_refine(struct runner *r);
void netwatch_close(struct runner *r);

/* bus.c */
void bus_open(struct runner *r);
void bus_close(struct runner *r);
void bus_fd(struct runner *r, struct pollfd *out);
void bus_events(struct runner *r);                        /* read what came */
void bus_act(struct runner *r);                           /* then, with the queue open */
void bus_lock(struct runner *r);                          /* behind a round's work: sleep waits while something is under way */
int64_t bus_deadline(struct runner *r);                   /* boot ms, INT64_MAX: none */
int64_t bus_holds_until(struct runner *r, const char *route); /* nothing is begun on it before; wall ms, 0 where nothing holds it */
int64_t bus_portal_ms(const struct runner *r);            /* for a network that we come to: its portal_ms */

/* secrets.c */
/* `input` is its standard input; empty: /dev/null. */
SQ_MUST_USE enum sq_err command_start(struct command *c, const char *shell, char *const *more_env, struct sq_str input, bool interactive, struct sq_error *err);
bool command_events(struct command *c);                   /* true: over; text and words are what it said */
void command_kill(struct command *c);
void command_fini(struct command *c);
SQ_MUST_USE enum sq_err secret_read_file(const char *path, struct sq_buf *out, struct sq_error *err);
/* What systemd gave this process; SQ_EPERM with a sentence where it gave none. */
SQ_MUST_USE enum sq_err secret_read_credential(const char *name, struct sq_buf *out, struct sq_error *err);
void secret_trim(struct sq_buf *b);

/*
 * tokens.c. A way is walked by one caller: token_begin(), then, whenever the
 * command it left running is over, token_go_on(). TOKEN_HAVE: `out` has the
 * token; TOKEN_WAITS: *c runs; TOKEN_FAILED: *end says why.
 */
enum token_result { TOKEN_HAVE, TOKEN_WAITS, TOKEN_FAILED };
enum token_result token_begin(struct token_way *w, const struct sq_route *route, bool interactive, struct command *c, struct sq_buf *out, uint32_t *expires_s, struct sq_end *end, char words[SQ_REPLY_TEXT_MAX]);
enum token_result token_go_on(struct token_way *w, const struct sq_route *route, bool interactive, struct command *c, struct sq_buf *out, uint32_t *expires_s, struct sq_end *end, char words[SQ_REPLY_TEXT_MAX]);
void token_way_fini(struct token_way *w);
void token_open(struct runner *r, struct agent *a, const struct sq_route *route);   /* a kept one, or the way to one */
void token_over(struct runner *r, struct agent *a, const struct sq_route *route);   /* what ran for it is over */
void token_refused(struct runner *r, const char *route);                            /* the server did not take it */
void tokens_free(struct runner *r);

/* requests.c */
void requests(struct runner *r);
void requests_over(struct runner *r);

/* notify.c: tell systemd, where it asked (NOTIFY_SOCKET) */
void sq_runner_ready(void);
void sq_runner_stopping(void);

/* reports.c */
void reports(struct runner *r);
const char *report_name(enum sq_report_kind kind);
void notice_fini(struct notice *n);
SQ_MUST_USE enum sq_err notice_deliver(struct runner *r, const struct sq_message *m, struct notice *n, const char *unique, int64_t when_ms, struct sq_error *err);
/* After the round's commit. since_ms: SETTLED is about recipients whose state is not older. */
void report_resolved(struct runner *r, struct sq_message_id id, enum sq_report_kind kind, int64_t since_ms, const char *words);

/* hooks.c */
void hook_tell(struct runner *r, const struct sq_report *rep, const struct sq_message *m);
void hooks_next(struct runner *r);                        /* the next run, where none is under way */
void hooks_free(struct runner *r);

/* alert.c */
void alert_cut(struct runner *r, const struct agent *a, enum sq_outcome outcome); /* its attempt ended so, and left no doubt */
void alerts(struct runner *r);

/* delayed.c */
bool wants_warning(const struct sq_recipient *p);         /* of a delay: RFC 3461 section 4.1 */
void delays(struct runner *r);
SQ_MUST_USE enum sq_err mail_report(struct runner *r, const struct sq_message *m, const struct sq_report *rep, struct sq_error *err); /* joins a batch */

/* doubt.c */
void doubts(struct runner *r);                            /* what is due for messages in doubt */
void doubts_ask_now(struct runner *r, struct sq_message_id id); /* a flush; v 0: all */
void doubt_link(struct runner *r, const char *route, bool usable);
void doubt_learn_reply(struct runner *r, const char *route, const char *message_id, struct sq_str provider_id);
void doubt_free_uses(struct runner *r);
void evidence_ready(struct runner *r, struct agent *a, const struct sq_ready *ready);
const char *evidence_answer(struct runner *r, struct agent *a, uint16_t number, const struct sq_evidence *e); /* what is wrong, or NULL */
void evidence_failed(struct runner *r, struct agent *a, const struct sq_end *end);
void evidence_free(struct evidence *ev);
void doubt_finding(struct runner *r, const char *route, struct sq_message_id id, const struct finding *f); /* the last source of a round has spoken */

/* mtalog.c */
bool mtalog_ask(struct runner *r, const struct sq_route *route, const struct sq_doubt *d, const struct finding *before); /* false: there is none */
bool mtalog_busy(struct runner *r, const char *route);    /* NULL: of any route */
void mtalog_events(struct runner *r);
int64_t mtalog_deadline(struct runner *r);                /* boot ms, INT64_MAX: none */
void mtalog_free(struct runner *r);

#endif
