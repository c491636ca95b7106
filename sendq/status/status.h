/*
 * Inside sendq/status: what the commands share. One walk over what the queue
 * says, two printers: text for people and JSON, one object a line.
 */
#ifndef SENDQ_STATUS_H
#define SENDQ_STATUS_H

#include <sendq/config.h>
#include <sendq/queue.h>

struct cli {
	struct sq_config *cfg;
	struct sq_queue *q;     /* READ; NULL while there is no database */
	const char *config_option; /* -C */
	bool json, colour, terminal;
	bool quiet;             /* part of another command: no words about what went well */
	bool remote;            /* run by sendq-submitd for somebody: nothing is carried out in this process */
	bool restricted;        /* … who sees only his own messages */
	int64_t uid;            /* who asks */
	int64_t now_ms;
	struct sq_error err;
};

/* A command: its arguments without its name. Returns a sysexits status. */
struct command {
	const char *name, *arguments, *help;
	int (*run)(struct cli *c, int argc, char **argv);
	bool bare;              /* opens configuration and queue by itself */
};
extern const struct command sq_commands[];
extern const size_t sq_n_commands;

int cmd_state(struct cli *c, int argc, char **argv);
int cmd_list(struct cli *c, int argc, char **argv);
int cmd_show(struct cli *c, int argc, char **argv);
int cmd_why(struct cli *c, int argc, char **argv);
int cmd_flush(struct cli *c, int argc, char **argv);
int cmd_hold(struct cli *c, int argc, char **argv);
int cmd_release(struct cli *c, int argc, char **argv);
int cmd_remove(struct cli *c, int argc, char **argv);
int cmd_resend(struct cli *c, int argc, char **argv);
int cmd_settle(struct cli *c, int argc, char **argv);
int cmd_undo(struct cli *c, int argc, char **argv);
int cmd_edit(struct cli *c, int argc, char **argv);
int cmd_links(struct cli *c, int argc, char **argv);
int cmd_watch(struct cli *c, int argc, char **argv);
int cmd_sent(struct cli *c, int argc, char **argv);
int cmd_forget(struct cli *c, int argc, char **argv);
int cmd_setup(struct cli *c, int argc, char **argv);
int cmd_oauth(struct cli *c, int argc, char **argv);
int cmd_doctor(struct cli *c, int argc, char **argv);

/* Tell a person what to do to consent; `arg` is the struct cli. */
struct sq_token_prompt;
void oauth_prompt(void *arg, const struct sq_token_prompt *p);

/* A delivery report on stdin settles what it is about. */
int settle_from_mail(struct cli *c);
/* Wait until these requests are carried out, by a daemon or here. SQ_EBUSY: somebody has the queue and does not answer; they stay. */
SQ_MUST_USE enum sq_err requests_done(struct cli *c, const int64_t *requests, size_t n);

/* Wait until these requests are done, by a daemon or by ourselves, and say each answer. An exit status. */
int cli_settle(struct cli *c, const int64_t *requests, size_t n);

/* "sendq: <text of c->err>" on stderr; the exit status that belongs to it. */
int cli_fail(struct cli *c);
/* "sendq: <words>", and EX_USAGE. */
int cli_usage(const char *fmt, ...) SQ_PRINTF(1, 2);
/* The id of an argument; false: it was said what is wrong, exit with EX_NOINPUT. */
bool cli_id(struct cli *c, const char *text, struct sq_message_id *out);

/* ---- JSON: always valid UTF-8, keys in the order they are put ---- */

struct json {
	struct sq_buf b;
	bool comma;
};
#define JSON_INIT { .b = SQ_BUF_INIT(64 * 1024 * 1024) }
void json_open(struct json *j, const char *key, char bracket);   /* key NULL inside arrays and at the top */
void json_close(struct json *j, char bracket);
void json_str(struct json *j, const char *key, struct sq_str v);
void json_text(struct json *j, const char *key, const char *v);  /* NULL: null */
void json_int(struct json *j, const char *key, int64_t v);
void json_real(struct json *j, const char *key, double v);        /* null where it is no number */
void json_bool(struct json *j, const char *key, bool v);
void json_null(struct json *j, const char *key);
void json_reply(struct json *j, const char *key, const struct sq_reply *r); /* {code, enhanced, text}, or null */
void json_line(struct json *j);  /* print as one line, empty the writer */

void json_message(struct json *j, const struct sq_message *m, bool whole);

/* ---- for people ---- */

void text_ago(int64_t ms, char out[32]);        /* "3 min", "2 h 10 min", "5 d" */
void text_in(const struct cli *c, int64_t at_ms, char out[48]);  /* "now", "in 12 min" */
void text_size(uint64_t octets, char out[16]);  /* "6 KB", "18 MB" */
const char *text_waits(const struct sq_recipient *r);             /* what stands before text_in() of a queued one */
void text_reply(const struct sq_reply *r, struct sq_buf *out);   /* "451 4.7.1 try later", first line */
const char *paint(const struct cli *c, enum sq_state s);         /* escape sequence or "" */
const char *paint_link(const struct cli *c, const char *state);
const char *unpaint(const struct cli *c);
/* Print without control characters, so that nobody's words move the cursor. */
void print_safe(const char *s);
/* The same; on a terminal lines end between words, and go on behind `indent` blanks. `at`: the column where it begins. */
void print_wrapped(const char *s, int at, int indent);

/* A line a route, and what it waits for. */
void links_brief(struct cli *c);

/*
 * The latest row of a route; zeroed with the route's name when there is none.
 * Where the runner tries nothing because the network asks for a sign-in
 * (captive portal), that is the row's cause, and link_portal() true.
 */
void link_of(struct cli *c, const char *route, struct sq_link_row *out);
bool link_portal(const struct sq_link_row *row);

/* The message's route is not in the configuration: nothing tries it. */
bool is_stranded(const struct cli *c, const struct sq_message *m);

/* What happened to the message, what comes next and when, what a person can do. */
void why_message(const struct sq_message *m, const struct sq_link_row *link, const struct sq_doubt *d, const struct sq_route *route,
	const char *learned, int cuts_day, int64_t now_ms, struct sq_buf *out); /* learned: of the route's Message-IDs, NULL: nothing; cuts_day: of its candidate */

#endif
