/*
 * A queue for the unit tests: made for each test, opened as the runner opens
 * it, and the few steps that most tests begin with. Looks behind the contract
 * (queue/db.h) only where a test is about what lies there.
 */
#ifndef SENDQ_TESTS_QUEUE_FIXTURE_H
#define SENDQ_TESTS_QUEUE_FIXTURE_H

#include "../../queue/db.h"
#include "harness.h"

extern struct sq_queue *q;        /* RUN */
extern struct sq_error err;
extern char queue_path[256];

void queue_setup(void);
void queue_teardown(void);
struct sq_queue *queue_open(enum sq_queue_role role);

enum { NOW = 1000000 };

/* A submission on route "home" of a few octets, from a@x, at NOW, expiring an hour later. Addresses are separated by spaces. */
struct sq_message_id queue_put(const char *addresses);

/* The same with everything open to the caller. */
struct submission {
	struct sq_submission s;
	struct sq_new_recipient recipients[200];
	char addresses[8192];
};
void submission_init(struct submission *s, const char *message_id, const char *addresses);
enum sq_err submission_commit(struct sq_queue *on, struct submission *s, const char *content, size_t n, struct sq_submitted *out);

/* One step of the way: claim, envelope with all accepted, intent. */
struct sq_work *queue_claim(struct sq_message_id id, int64_t now_ms);
void queue_envelope(const struct sq_work *w);
void queue_intent(const struct sq_work *w);
void results_of(const struct sq_work *w, struct sq_recipient_result *out, const char *classes);

/* The whole way with a letter a recipient, in the order of ids: A accepted, D deferred, R refused, ? doubt. */
void queue_verdict(struct sq_message_id id, const char *classes, int64_t now_ms);

/* The states of a message, a letter each: q s c ? h S F E R. */
void ck_states(struct sq_message_id id, const char *letters);

/* A number out of the database, by the text of a statement. */
int64_t db_number(struct sq_queue *on, const char *sql);
void db_do(struct sq_queue *on, const char *sql);

/* Refused with this code, and a sentence that has these words. */
#define ck_refused(call, code_, words) do { enum sq_err e_ = (call); \
	ck_assert_msg(e_ == (code_), "%s: %s: %s", #call, sq_err_name(e_), err.text); \
	ck_assert_msg(strstr(err.text, (words)) != NULL, "%s: no '%s' in: %s", #call, (words), err.text); } while (0)

#endif
