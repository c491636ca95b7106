/*
 * The one table of sendmail's options: what the parser takes, what --help and
 * the manual say. Inside sendq/submit and its manual's generator only.
 */
#ifndef SENDQ_SUBMIT_OPTIONS_H
#define SENDQ_SUBMIT_OPTIONS_H

#include <sendq/agent.h>
#include <sendq/error.h>
#include <sendq/queue.h>

enum option_argument {
	ARGUMENT_NONE,
	ARGUMENT_NEEDED,    /* attached, or the next word */
	ARGUMENT_ATTACHED,  /* only what is attached, may be empty: -q30m, -oi */
};

enum option_use { OPTION_USED, OPTION_IGNORED, OPTION_REFUSED };

enum option_id {
	OPT_IGNORED, OPT_REFUSED, OPT_RECIPIENTS, OPT_DOTS, OPT_SENDER, OPT_FULL_NAME, OPT_BODY, OPT_NOTIFY, OPT_RET, OPT_ENVID,
	OPT_LIST, OPT_COUNT, OPT_FLUSH, OPT_FLUSH_ID, OPT_FLUSH_TO, OPT_FLUSH_FROM, OPT_FLUSH_NOT_ID, OPT_FLUSH_NOT_TO, OPT_FLUSH_NOT_FROM,
	OPT_VERIFY, OPT_CHECK, OPT_CONFIG, OPT_VERBOSE, OPT_SET, OPT_DELIVER, OPT_INIT, OPT_SMTP, OPT_HELP, OPT_VERSION,
};

struct option {
	const char *name;      /* with its dash; the longest that fits a word wins */
	enum option_argument argument;
	enum option_use use;
	enum option_id id;
	const char *value;     /* of the argument, for people; NULL: none */
	const char *help;      /* what it does, or why it is ignored or refused */
};

extern const struct option sq_options[];
extern const size_t sq_n_options;

enum long_id { LONG_IGNORED, LONG_NOT_BEFORE, LONG_DEADLINE, LONG_DUPLICATES, LONG_DOTS };

/* The names of -O, without regard to case. */
struct long_option {
	const char *name;
	const char *value;     /* for people; NULL: none */
	enum long_id id;
	const char *help;      /* what it does, or why it is ignored */
};

extern const struct long_option sq_long_options[];
extern const size_t sq_n_long_options;

enum flush_by { FLUSH_ALL, FLUSH_BY_ID, FLUSH_BY_RECIPIENT, FLUSH_BY_SENDER };

enum mode { MODE_DELIVER, MODE_LIST, MODE_INIT, MODE_FLUSH, MODE_DONE, MODE_SMTP, MODE_VERIFY, MODE_COUNT, MODE_CHECK };

/* What the command line asks for. Strings point into argv. */
struct arguments {
	enum mode mode;
	const char *config;
	bool want_recipients;  /* -t */
	bool ignore_dots;      /* -i, -oi */
	bool verbose;
	const char *sender;    /* -f, -r; NULL: none given; "" or "<>": the null sender */
	const char *full_name; /* -F */
	bool eightbit;         /* -B8BITMIME */
	uint8_t notify;        /* -N */
	enum sq_ret ret;       /* -R */
	const char *envid;     /* -V, checked to be printable */
	enum sq_own_duplicates duplicates; /* -O Duplicates= */
	enum flush_by flush_by;     /* -q: which messages, by a part of their id, a recipient, the sender */
	const char *flush_text;
	bool flush_inverse;         /* -q!…: those in which it is not */
	int64_t not_before_ms; /* -O NotBefore=; 0: at once */
	int64_t deadline_ms;   /* -O Deadline=; 0: none */
	char **recipients;     /* the rest of argv */
	int n_recipients;
};

/*
 * Parse. argv[0] chooses the mode for `mailq` and `newaliases`. SQ_EINVAL with
 * a sentence for an unknown option, a missing argument, a bad -N or -R, and
 * for refused options (the sentence says why). MODE_DONE: --help or --version
 * was printed.
 */
SQ_MUST_USE enum sq_err sq_options_parse(int argc, char **argv, struct arguments *out, struct sq_error *err);

void sq_options_help(FILE *to);

#endif
