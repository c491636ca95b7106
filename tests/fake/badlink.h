/*
 * The parts of badlink: rules (badlink_rules.c), what can be seen of the
 * conversation (badlink_view.c), and the connections (badlink.c).
 */
#ifndef SENDQ_TESTS_BADLINK_H
#define SENDQ_TESTS_BADLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NEVER = -1 };
enum way { UP, DOWN };  /* client to server, server to client */

/* One rule; the words are explained in badlink.c. Offsets not given are NEVER. */
struct rule {
	char text[256];
	int first, last;
	int64_t cut[2], hole[2], stall[2];
	int unit[2], off;
	int reply, nth;
	enum { FINAL_NONE, FINAL_CUT, FINAL_HOLD } final;
	int64_t pass;
	bool fin, side_client, side_server, refuse;
	int64_t rate, delay;
	int times, fired;
};

/* Print and end with status 2: a test must never run on a rule that was not understood. */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

void rule_add(const char *text);            /* from the command line: stays first */
void rule_file(const char *path);           /* read anew at each rule_for() */
struct rule rule_for(int connection);       /* the first that names it and is not used up, or one that breaks nothing */
void rule_fired(const struct rule *r);      /* counts for times= */

/* What is known of the client's side of the SMTP conversation. */
struct command_view {
	enum { COMMANDS, DATA_ASKED, DOT, BDAT, TLS } state;
	char line[512];
	size_t line_n;
	int dot;                  /* how much of CRLF.CRLF was seen */
	int64_t bdat_left;
	bool bdat_last;
	int expected;             /* replies asked for so far, greeting included */
	int terminators;
	int final_reply;          /* number of the reply that answers the chosen terminator */
	/* TLS */
	uint8_t record[5];
	int record_n;
	int64_t record_left;
	bool final_due;           /* the terminator's record was forwarded */
};

struct reply_view {
	char line[8];
	size_t line_n;
	int replies;              /* complete ones */
	bool tls;
};

/* Where one direction can be cut: lines, the octets of a BDAT, or TLS records, whichever comes. */
struct unit_view {
	int n;                    /* whole ones seen */
	int64_t at;               /* octets seen */
	uint8_t head[16];         /* the beginning of the one under way */
	int64_t size;             /* its octets so far */
	int64_t left;             /* of a record or of a BDAT's content; 0: a line, or not known yet */
};

/* Both sides of one conversation. */
struct view {
	struct command_view up;
	struct reply_view down;
	struct unit_view units[2];
};

void view_init(struct view *v);

/* The client's next n octets go to the server. */
void view_up(struct view *v, const struct rule *r, const char *p, size_t n);

/*
 * How many of the server's next n octets may go on before the reply begins at
 * which `r` breaks the connection. Less than n: that reply is here.
 */
size_t view_down(struct view *v, const struct rule *r, const char *p, size_t n);

/* See the next n octets of a direction; where in it the unit of that number ends, if it does so in these, else NEVER. */
int64_t view_units(struct unit_view *u, const char *p, size_t n, int wanted);

#endif
