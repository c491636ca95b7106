/* See queue_fixture.h. */
#include "queue_fixture.h"

struct sq_queue *q;
struct sq_error err;
char queue_path[256];

struct sq_queue *
queue_open(enum sq_queue_role role)
{
	struct sq_queue *out = NULL;

	ck_ok(sq_queue_open(queue_path, role, &out, &err), err);
	return out;
}

void
queue_setup(void)
{
	char dir[256];

	test_path(dir, "q");
	snprintf(queue_path, sizeof(queue_path), "%.240s/queue.db", dir);
	q = queue_open(SQ_QUEUE_RUN);
}

void
queue_teardown(void)
{
	sq_queue_close(q);
	q = NULL;
}

void
submission_init(struct submission *s, const char *message_id, const char *addresses)
{
	char *p;

	memset(s, 0, sizeof(*s));
	s->s = (struct sq_submission){ .message_id = sq_str(message_id), .sender = SQ_STR("a@x"), .header_from = SQ_STR("a@x"), .subject = SQ_STR("s"),
		.route = "home", .source = "argv", .uid = 1, .submitted_ms = NOW, .expires_ms = NOW + 3600000, .recipients = s->recipients };
	ck_assert_uint_lt(strlen(addresses), sizeof(s->addresses));
	memcpy(s->addresses, addresses, strlen(addresses));
	for (p = s->addresses; *p; ) {
		size_t n = strcspn(p, " ");

		ck_assert_uint_lt(s->s.n_recipients, SQ_LEN(s->recipients));
		s->recipients[s->s.n_recipients++].address = (struct sq_str){ p, n };
		p += n + (p[n] == ' ');
	}
}

enum sq_err
submission_commit(struct sq_queue *on, struct submission *s, const char *content, size_t n, struct sq_submitted *out)
{
	struct sq_ingest *in;

	ck_ok(sq_ingest_begin(on, &in, &err), err);
	ck_ok(sq_ingest_write(in, content, n, &err), err);
	return sq_ingest_commit(in, &s->s, out, &err);
}

struct sq_message_id
queue_put(const char *addresses)
{
	static int number;
	struct submission s;
	struct sq_submitted out = { 0 };
	char mid[40];

	snprintf(mid, sizeof(mid), "<%d@x>", ++number);
	submission_init(&s, mid, addresses);
	ck_ok(submission_commit(q, &s, "A: b\r\n\r\nc\r\n", 11, &out), err);
	return out.id;
}

struct sq_work *
queue_claim(struct sq_message_id id, int64_t now_ms)
{
	struct sq_work *w = NULL;

	ck_ok(sq_queue_claim(q, id, false, "", now_ms, &w, &err), err);
	return w;
}

void
results_of(const struct sq_work *w, struct sq_recipient_result *out, const char *classes)
{
	static const char letters[] = "ADR?";

	for (uint32_t i = 0; i < w->n_recipients; i++) {
		char c = classes[strlen(classes) > i ? i : strlen(classes) - 1];

		ck_assert_ptr_nonnull(strchr(letters, c));
		out[i] = (struct sq_recipient_result){ .id = w->recipients[i].id.v, .cls = (enum sq_class)(strchr(letters, c) - letters),
			.reply = { .code = c == 'A' ? 250 : c == 'D' ? 450 : c == 'R' ? 550 : 0, .text = SQ_STR("words") } };
	}
}

static struct sq_envelope envelope;
static struct sq_verdict verdict;

void
queue_envelope(const struct sq_work *w)
{
	envelope = (struct sq_envelope){ .verb = 'D', .address = SQ_STR("127.0.0.1:25"), .n_results = w->n_recipients };
	results_of(w, envelope.results, "A");
	ck_ok(sq_queue_envelope(q, w->attempt, &envelope, &(struct sq_said){ "", "" }, NOW, &err), err);
}

void
queue_intent(const struct sq_work *w)
{
	static const uint8_t hash[32] = "0123456789abcdef0123456789abcde";

	queue_envelope(w);
	ck_ok(sq_queue_committing(q, w->attempt, w->hash_known ? w->sha256 : hash, NOW, &err), err);
}

void
queue_verdict(struct sq_message_id id, const char *classes, int64_t now_ms)
{
	struct sq_work *w = queue_claim(id, now_ms);
	int64_t next[SQ_GROUP_MAX];

	queue_intent(w);
	verdict = (struct sq_verdict){ .n_results = w->n_recipients };
	results_of(w, verdict.results, classes);
	for (size_t i = 0; i < SQ_LEN(next); i++)
		next[i] = now_ms + 60000;
	ck_ok(sq_queue_verdict(q, w->attempt, &verdict, next, SQ_OUTCOME_ACCEPTED, now_ms, &err), err);
	sq_work_free(w);
}

void
ck_states(struct sq_message_id id, const char *letters)
{
	static const char of[] = "qsc?hSFER";
	struct sq_message *m = NULL;
	char have[256] = "";

	ck_ok(sq_queue_show(q, id, &m, &err), err);
	for (size_t i = 0; i < m->n_recipients && i < sizeof(have) - 1; i++)
		have[i] = of[m->recipients[i].state];
	sq_message_free(m);
	ck_assert_str_eq(have, letters);
}

int64_t
db_number(struct sq_queue *on, const char *sql)
{
	sqlite3_stmt *st = NULL;
	int64_t v;

	ck_assert_msg(sqlite3_prepare_v2(on->db, sql, -1, &st, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(on->db));
	ck_assert_int_eq(sqlite3_step(st), SQLITE_ROW);
	v = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return v;
}

void
db_do(struct sq_queue *on, const char *sql)
{
	ck_assert_msg(sqlite3_exec(on->db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(on->db));
}
