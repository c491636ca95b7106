/*
 * Inside sendq/status: what the parts of `sendq setup` share.
 *
 * setup.c        options, the order of things, questions
 * setup_find.c   which servers: the table, look-ups, guesses; what they show before a login
 * setup_login.c  the secret: asked for, tried, kept where the user says
 * setup_write.c  the route as text, put into the file
 * setup_after.c  a test message, the service
 * setup_system.c the machine's own configuration: credentials of systemd, its services
 */
#ifndef SENDQ_STATUS_SETUP_H
#define SENDQ_STATUS_SETUP_H

#include <sendq/message.h>
#include <sendq/probe.h>
#include <sendq/provider.h>

#include "status.h"

enum { CANDIDATES_MAX = 24, URL_MAX = 512 };

/* A server that may be it. */
struct candidate {
	int rank;                  /* lower is asked first */
	const char *source;        /* for people */
	char where[1024];
	char server[URL_MAX], imap[URL_MAX], user[URL_MAX];
	char auth_url[1024], token_url[1024], scope[1024];
	bool oauth_only;
	bool trusted;              /* told by the user, the table or over HTTPS: need not be confirmed */
	const struct sq_provider *provider;
};

enum store { STORE_ASK, STORE_FILE, STORE_KEYRING, STORE_CONFIG, STORE_CREDENTIAL };

struct setup {
	struct cli *c;
	const char *address;
	struct sq_address parsed;  /* its domain in ASCII */
	/* told by options; NULL or false: not told */
	const char *name, *server, *imap, *user, *autoconfig, *ca_file, *password_command, *password_file, *oauth_client_id, *test_to;
	bool password_stdin, device, browser, test, no_test, service, no_service, print, yes;
	enum store store;
	/* state */
	FILE *out;                 /* what people read; stdout, or stderr where stdout is for the configuration */
	FILE *terminal;            /* where questions are asked and answered; NULL: nobody is there */
	char *config;              /* the file */
	bool system;               /* it is the machine's */
	struct candidate candidates[CANDIDATES_MAX];
	size_t n_candidates;
	struct candidate *chosen;
	char route[65], user_name[URL_MAX], imap_url[URL_MAX];
	char mx[256];              /* the domain's; "": none */
	char asked_in_vain[SQ_REPLY_TEXT_MAX + 1]; /* look-ups, for people */
	bool no_such_host;         /* the last server that was looked at */
	bool certificates_failed;  /* of a server that was looked at */
	char secret_line[2048];    /* the settings by which the secret is had, as text of the configuration */
	struct sq_buf secret;      /* wiped at the end */
	bool keep_secret;          /* it was typed: it has to be kept somewhere */
	struct sq_config *trial;   /* the route, loaded from text that is nowhere yet */
	bool files_sent, declined;
};

/* setup.c */
void say(struct setup *s, const char *fmt, ...) SQ_PRINTF(2, 3);
/* Yes or no; without a terminal the default. */
bool ask_yes(struct setup *s, bool otherwise, const char *fmt, ...) SQ_PRINTF(3, 4);
/* A line; without a terminal or with an empty answer `otherwise`. */
void ask_line(struct setup *s, const char *question, const char *otherwise, char *out, size_t size);
/* A line that is not shown. False: there is no terminal. */
bool ask_secret(struct setup *s, const char *question, struct sq_buf *out);

/* setup_find.c: chosen is set; or a sysexits status and it was said why */
int setup_find(struct setup *s);
/* setup_login.c */
int setup_login(struct setup *s);
/* What was typed, where the user wants it; behind a login that worked. */
int setup_keep_secret(struct setup *s);
/* setup_write.c */
void setup_quote(struct sq_buf *out, const char *value);           /* as a string of the configuration */
void setup_text(const struct setup *s, const char *from, struct sq_buf *out); /* the route's group; from NULL: every sender */
/* The route as it would be loaded. SQ_EINVAL with the loader's sentence. */
SQ_MUST_USE enum sq_err setup_try_config(struct setup *s, const char *secret_line, struct sq_error *err);
int setup_may_write(struct setup *s); /* asks, where there is a file: s->declined */
int setup_write(struct setup *s);
/* setup_after.c */
int setup_after(struct setup *s);
/* Run with this as standard input; its exit status, -1: it could not be run. */
int setup_run(char *const *argv, struct sq_str input);
/* setup_system.c */
int setup_system_check(struct setup *s);                           /* sets s->system; before anything is asked */
bool setup_has_creds(void);                                        /* systemd-creds is there, and may be used */
/* Let the daemon's user read what root has written: `whole`: it owns the file, else its group reads. Nothing with a user's own configuration. */
void setup_share(struct setup *s, const char *path, bool whole);
SQ_MUST_USE enum sq_err setup_keep_credential(struct setup *s, char name[SQ_CREDENTIAL_MAX + 1], struct sq_error *err);
int setup_system_after(struct setup *s);

#endif
