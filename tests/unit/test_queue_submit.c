/*
 * Submission: content in chunks, commit and abort, leftovers of the dead and
 * only of the dead, local duplicates, two connections at once.
 */
#include <pthread.h>
#include <sha256.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../queue/ingest.h"
#include "queue_fixture.h"

/* Octets that differ from place to place. */
static char *
octets(size_t n)
{
	char *p = malloc(n ? n : 1);

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < n; i++)
		p[i] = (char)(i * 2654435761u >> 13);
	return p;
}

static int64_t
rows(const char *table)
{
	char sql[80];

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", table);
	return db_number(q, sql);
}

static void
ck_nothing_left(void)
{
	ck_assert_int_eq(rows("content"), 0);
	ck_assert_int_eq(rows("ingest"), 0);
	ck_assert_int_eq(rows("message"), 0);
	ck_assert_int_eq(rows("recipient"), 0);
}

/* ---- content ---- */

static const size_t sizes[] = { 0, 1, SQ_CHUNK - 1, SQ_CHUNK, SQ_CHUNK + 1, 2 * SQ_CHUNK, 3 * SQ_CHUNK + 5 };

START_TEST(content_comes_back)
{
	static const size_t windows[] = { 1, 4096, SQ_CHUNK - 1, SQ_CHUNK, SQ_CHUNK + 7 };
	SQ_CLEANUP(sq_freep) char *p = octets(sizes[_i]);
	struct sq_submitted out = { 0 };
	struct submission s;
	struct sq_ingest *in;

	submission_init(&s, "<1@x>", "b@x");
	ck_ok(sq_ingest_begin(q, &in, &err), err);
	for (size_t at = 0, step = 1; at < sizes[_i]; at += step, step = step * 3 % 70001 + 1) {
		if (step > sizes[_i] - at)
			step = sizes[_i] - at;
		ck_ok(sq_ingest_write(in, p + at, step, &err), err);
	}
	ck_assert_uint_eq(sq_ingest_size(in), sizes[_i]);
	/* Nobody sees a message before its commit. */
	ck_assert_int_eq(rows("message"), 0);
	ck_ok(sq_ingest_commit(in, &s.s, &out, &err), err);
	ck_assert_int_eq(out.n_duplicates, 0);
	ck_assert_int_eq(rows("ingest"), 0);
	ck_assert_int_eq(rows("content"), (int64_t)(sizes[_i] + SQ_CHUNK - 1) / SQ_CHUNK);
	for (size_t k = 0; k < SQ_LEN(windows); k++) {
		SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(2 * SQ_CHUNK);

		/* Across every border, and the last octets. */
		for (size_t at = k == 0 && sizes[_i] > 10 ? sizes[_i] - 10 : 0; at < sizes[_i]; at += windows[k]) {
			size_t n = windows[k] < sizes[_i] - at ? windows[k] : sizes[_i] - at;

			sq_buf_clear(&b);
			ck_ok(sq_queue_read_content(q, out.id, at, n, &b, &err), err);
			ck_assert_uint_eq(b.n, n);
			ck_assert_int_eq(memcmp(b.p, p + at, n), 0);
		}
		ck_refused(sq_queue_read_content(q, out.id, sizes[_i], 1, &b, &err), SQ_EINVAL, "beyond the end");
		ck_refused(sq_queue_read_content(q, out.id, UINT64_MAX, 2, &b, &err), SQ_EINVAL, "beyond the end");
	}
}
END_TEST

START_TEST(lost_content_is_seen)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(4 * SQ_CHUNK);
	SQ_CLEANUP(sq_freep) char *p = octets(3 * SQ_CHUNK);
	struct sq_submitted out = { 0 };
	struct submission s;
	struct sq_ingest *in;

	submission_init(&s, "<1@x>", "b@x");
	ck_ok(submission_commit(q, &s, p, 3 * SQ_CHUNK, &out), err);
	db_do(q, _i ? "DELETE FROM content WHERE id & 1048575 = 1" : "UPDATE content SET data = substr(data, 2) WHERE id & 1048575 = 1");
	ck_refused(sq_queue_read_content(q, out.id, 0, 3 * SQ_CHUNK, &b, &err), SQ_ECORRUPT, "lost content");
	ck_refused(sq_queue_read_content(q, (struct sq_message_id){ 1 }, 0, 1, &b, &err), SQ_ENOENT, "no such message");
	/* A chunk that is lost before the message exists: it never does. */
	ck_ok(sq_ingest_begin(q, &in, &err), err);
	ck_ok(sq_ingest_write(in, p, 3 * SQ_CHUNK, &err), err);
	db_do(q, "DELETE FROM content WHERE id >> 20 = (SELECT max(id) FROM ingest) AND id & 1048575 = 0");
	s.s.message_id = SQ_STR("<2@x>");
	ck_refused(sq_ingest_commit(in, &s.s, &out, &err), SQ_ECORRUPT, "lost a part of this submission");
	ck_assert_int_eq(rows("message"), 1);
	ck_assert_int_eq(rows("ingest"), 0);
}
END_TEST

START_TEST(abort_leaves_nothing)
{
	SQ_CLEANUP(sq_freep) char *p = octets(sizes[_i]);
	struct sq_ingest *in;

	ck_ok(sq_ingest_begin(q, &in, &err), err);
	ck_ok(sq_ingest_write(in, p, sizes[_i], &err), err);
	ck_assert_int_eq(rows("ingest"), sizes[_i] > SQ_CHUNK);
	sq_ingest_abort(in);
	ck_nothing_left();
	sq_ingest_abort(NULL);
}
END_TEST

/* What a commit refuses: nothing of it stays. */
static const struct { const char *what; size_t n_recipients; int priority; int64_t queue_size_max; enum sq_err code; const char *words; } bad[] = {
	{ "no recipient", 0, 0, 0, SQ_EINVAL, "1 to 65535 recipients" },
	{ "too many", SQ_RECIPIENTS_MAX + 1, 0, 0, SQ_ELIMIT, "1 to 65535 recipients" },
	{ "a priority out of range", 1, 101, 0, SQ_EINVAL, "priority 101" },
	{ "a queue that is full", 1, 0, 4096, SQ_ENOSPC, "`queue_size_max`" },
};

START_TEST(commit_refuses)
{
	SQ_CLEANUP(sq_freep) char *p = octets(SQ_CHUNK + 1);
	struct sq_submitted out = { .id = { 77 } };

	for (size_t n = 10; n <= SQ_CHUNK + 1; n += SQ_CHUNK - 9) {
		struct submission s;

		submission_init(&s, "<1@x>", "b@x");
		s.s.n_recipients = bad[_i].n_recipients;
		s.s.priority = bad[_i].priority;
		s.s.queue_size_max = bad[_i].queue_size_max;
		ck_refused(submission_commit(q, &s, p, n, &out), bad[_i].code, bad[_i].words);
		ck_nothing_left();
		ck_assert_int_eq(out.id.v, 77);
	}
}
END_TEST

START_TEST(a_large_one_is_the_same_to_all)
{
	SQ_CLEANUP(sq_freep) char *p = octets(2 * SQ_CHUNK + 1);
	struct sq_queue *b = queue_open(SQ_QUEUE_SUBMIT);
	struct sq_ingest *one, *two;
	struct sq_submitted first = { 0 }, second = { 0 };
	struct submission s;

	/* Two that are read at the same time have their own chunks. */
	ck_ok(sq_ingest_begin(q, &one, &err), err);
	ck_ok(sq_ingest_begin(b, &two, &err), err);
	for (size_t at = 0; at < 2 * SQ_CHUNK; at += 4096) {
		ck_ok(sq_ingest_write(one, p + at, 4096, &err), err);
		ck_ok(sq_ingest_write(two, p + at + 1, 4096, &err), err);
	}
	submission_init(&s, "<2@x>", "b@x");
	ck_ok(sq_ingest_commit(two, &s.s, &second, &err), err);
	s.s.message_id = SQ_STR("<1@x>");
	ck_ok(sq_ingest_commit(one, &s.s, &first, &err), err);
	ck_assert_int_ne(first.id.v, second.id.v);
	for (int k = 0; k < 2; k++) {
		SQ_CLEANUP(sq_buf_fini) struct sq_buf got = SQ_BUF_INIT(2 * SQ_CHUNK);

		ck_ok(sq_queue_read_content(q, k ? second.id : first.id, 0, 2 * SQ_CHUNK, &got, &err), err);
		ck_assert_int_eq(memcmp(got.p, p + k, 2 * SQ_CHUNK), 0);
	}
	sq_queue_close(b);
}
END_TEST

/* ---- leftovers ---- */

static void
die_half_way(void)
{
	SQ_CLEANUP(sq_freep) char *p = octets(3 * SQ_CHUNK);
	struct sq_queue *own = NULL;
	struct sq_ingest *in;
	struct sq_error e;

	if (sq_queue_open(queue_path, SQ_QUEUE_SUBMIT, &own, &e) != SQ_OK || sq_ingest_begin(own, &in, &e) != SQ_OK ||
	    sq_ingest_write(in, p, 3 * SQ_CHUNK, &e) != SQ_OK)
		_exit(1);
	_exit(0);
}

START_TEST(only_the_dead_are_swept)
{
	SQ_CLEANUP(sq_freep) char *p = octets(3 * SQ_CHUNK);
	struct sq_recovered was = { 0 };
	struct sq_submitted out = { 0 };
	struct submission s;
	struct sq_queue *b;
	struct sq_ingest *alive;
	bool more;
	int status;
	pid_t child;

	queue_teardown();
	child = fork();
	if (child == 0)
		die_half_way();
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	q = queue_open(SQ_QUEUE_RUN);
	b = queue_open(SQ_QUEUE_SUBMIT);
	ck_assert_int_eq(rows("ingest"), 1);
	ck_assert_int_eq(rows("content"), 2);
	ck_ok(sq_ingest_begin(b, &alive, &err), err);
	ck_ok(sq_ingest_write(alive, p, 3 * SQ_CHUNK, &err), err);
	ck_assert_int_eq(rows("content"), 4);
	if (_i == 0) {
		ck_ok(sq_queue_recover(q, NOW, &was, &err), err);
		ck_assert_int_eq(was.swept, 1);
	} else {
		ck_ok(sq_queue_sweep(q, NOW, 0, false, &more, &err), err);
		ck_assert(!more);
	}
	ck_assert_int_eq(rows("ingest"), 1);
	ck_assert_int_eq(rows("content"), 2);
	submission_init(&s, "<1@x>", "b@x");
	ck_ok(sq_ingest_commit(alive, &s.s, &out, &err), err);
	ck_assert_int_eq(rows("ingest"), 0);
	ck_assert_int_eq(rows("content"), 3);
	ck_states(out.id, "q");
	sq_queue_close(b);
}
END_TEST

/* ---- duplicates (DESIGN section 4) ---- */

/* 32 octets of SHA-256 of "A: b\r\n\r\nc\r\n", as the agent would have told them. */
static void
hash_of_content(const char *content, size_t n, uint8_t out[32])
{
	SHA2_CTX c;

	SHA256Init(&c);
	SHA256Update(&c, (const uint8_t *)content, n);
	SHA256Final(out, &c);
}

enum stored { HERE, GONE, GONE_WITHOUT_HASH };

/*
 * The earlier message has one recipient, bob@Example.org, in `state`, and was
 * submitted `age` ms before the new one; the window is a minute.
 */
static const struct {
	const char *what;
	enum sq_state state;
	enum stored stored;
	int64_t age;
	const char *message_id, *content, *to;
	bool duplicate;
} duplicates[] = {
	{ "queued", SQ_STATE_QUEUED, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", true },
	{ "sending", SQ_STATE_SENDING, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", true },
	{ "committing", SQ_STATE_COMMITTING, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", true },
	{ "in doubt", SQ_STATE_DOUBT, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", true },
	{ "held", SQ_STATE_HELD, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", true },
	{ "sent, content still here", SQ_STATE_SENT, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", true },
	{ "sent, content gone", SQ_STATE_SENT, GONE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", true },
	{ "sent, content and hash gone", SQ_STATE_SENT, GONE_WITHOUT_HASH, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", false },
	{ "failed: an intention", SQ_STATE_FAILED, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", false },
	{ "expired: an intention", SQ_STATE_EXPIRED, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", false },
	{ "removed: an intention", SQ_STATE_REMOVED, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", false },
	{ "removed, content gone", SQ_STATE_REMOVED, GONE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", false },
	{ "another octet", SQ_STATE_QUEUED, HERE, 5, "<d@x>", "A: b\r\n\r\nC\r\n", "bob@Example.org", false },
	{ "another octet, against the hash", SQ_STATE_SENT, GONE, 5, "<d@x>", "A: b\r\n\r\nC\r\n", "bob@Example.org", false },
	{ "another length", SQ_STATE_QUEUED, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\nd\r\n", "bob@Example.org", false },
	{ "another Message-ID", SQ_STATE_QUEUED, HERE, 5, "<D@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", false },
	{ "no Message-ID", SQ_STATE_QUEUED, HERE, 5, "", "A: b\r\n\r\nc\r\n", "bob@Example.org", false },
	{ "another recipient", SQ_STATE_QUEUED, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "eve@Example.org", false },
	{ "domains know no case", SQ_STATE_QUEUED, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@eXAMPLE.ORG", true },
	{ "local parts do", SQ_STATE_QUEUED, HERE, 5, "<d@x>", "A: b\r\n\r\nc\r\n", "Bob@Example.org", false },
	{ "at the end of the window", SQ_STATE_QUEUED, HERE, 60000, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", true },
	{ "past the window", SQ_STATE_QUEUED, HERE, 60001, "<d@x>", "A: b\r\n\r\nc\r\n", "bob@Example.org", false },
};

START_TEST(duplicate)
{
	struct sq_submitted first = { 0 }, second = { 0 };
	struct submission s;
	uint8_t hash[32];
	char sql[200], hex[65];

	submission_init(&s, "<d@x>", "bob@Example.org");
	ck_ok(submission_commit(q, &s, "A: b\r\n\r\nc\r\n", 11, &first), err);
	hash_of_content("A: b\r\n\r\nc\r\n", 11, hash);
	for (size_t i = 0; i < sizeof(hash); i++)
		snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	snprintf(sql, sizeof(sql), "UPDATE recipient SET state = %d; UPDATE message SET stored = %d, sha256 = %s%s%s", (int)duplicates[_i].state,
		duplicates[_i].stored == HERE, duplicates[_i].stored == GONE ? "x'" : "", duplicates[_i].stored == GONE ? hex : "NULL", duplicates[_i].stored == GONE ? "'" : "");
	db_do(q, sql);
	if (duplicates[_i].stored != HERE)
		db_do(q, "DELETE FROM content");

	submission_init(&s, duplicates[_i].message_id, duplicates[_i].to);
	s.s.submitted_ms = NOW + duplicates[_i].age;
	s.s.duplicate_window_ms = 60000;
	ck_ok(submission_commit(q, &s, duplicates[_i].content, strlen(duplicates[_i].content), &second), err);
	ck_assert_msg((second.n_duplicates == 1) == duplicates[_i].duplicate, "%s: %zu duplicates", duplicates[_i].what, second.n_duplicates);
	ck_assert_int_eq(second.same_as.v, duplicates[_i].duplicate ? first.id.v : 0);
	ck_assert_int_eq(second.id.v != 0, !duplicates[_i].duplicate);
	ck_assert_int_eq(rows("message"), duplicates[_i].duplicate ? 1 : 2);
	ck_assert_int_eq(rows("recipient"), duplicates[_i].duplicate ? 1 : 2);
	ck_assert_int_eq(rows("ingest"), 0);
	/* Window 0: no check. */
	s.s.duplicate_window_ms = 0;
	ck_ok(submission_commit(q, &s, duplicates[_i].content, strlen(duplicates[_i].content), &second), err);
	ck_assert_int_ne(second.id.v, 0);
}
END_TEST

START_TEST(some_recipients_are_duplicates)
{
	struct sq_submitted first = { 0 }, second = { 0 };
	struct submission s;

	submission_init(&s, "<d@x>", "b@x c@x d@x");
	ck_ok(submission_commit(q, &s, "x\r\n", 3, &first), err);
	submission_init(&s, "<d@x>", "e@x d@X b@x f@x");
	s.s.duplicate_window_ms = 1;
	ck_ok(submission_commit(q, &s, "x\r\n", 3, &second), err);
	ck_assert_int_eq(second.n_duplicates, 2);
	ck_assert_int_eq(second.same_as.v, first.id.v);
	ck_states(second.id, "qq");
	ck_assert_int_eq(db_number(q, "SELECT count(*) FROM recipient WHERE address IN ('e@x', 'f@x')"), 2);
}
END_TEST

/* Row 0: the earlier content is here; row 1: only its hash. */
START_TEST(large_duplicates_leave_nothing)
{
	SQ_CLEANUP(sq_freep) char *p = octets(2 * SQ_CHUNK + 9);
	struct sq_submitted first = { 0 }, second = { 0 };
	struct submission s;
	int64_t chunks;

	submission_init(&s, "<d@x>", "b@x");
	ck_ok(submission_commit(q, &s, p, 2 * SQ_CHUNK + 9, &first), err);
	if (_i == 1) {
		uint8_t hash[32];
		sqlite3_stmt *st = NULL;

		hash_of_content(p, 2 * SQ_CHUNK + 9, hash);
		ck_assert_int_eq(sqlite3_prepare_v2(q->db, "UPDATE message SET stored = 0, sha256 = ?", -1, &st, NULL), SQLITE_OK);
		sqlite3_bind_blob(st, 1, hash, sizeof(hash), SQLITE_STATIC);
		ck_assert_int_eq(sqlite3_step(st), SQLITE_DONE);
		sqlite3_finalize(st);
		db_do(q, "DELETE FROM content; UPDATE recipient SET state = 5");
	}
	chunks = rows("content");
	s.s.duplicate_window_ms = 1;
	ck_ok(submission_commit(q, &s, p, 2 * SQ_CHUNK + 9, &second), err);
	ck_assert_int_eq(second.n_duplicates, 1);
	ck_assert_int_eq(rows("content"), chunks);
	ck_assert_int_eq(rows("ingest"), 0);
	/* The last octet of the first chunk, and the very last. */
	for (size_t at = SQ_CHUNK - 1; at <= 2 * SQ_CHUNK + 8; at += SQ_CHUNK + 9) {
		p[at] ^= 1;
		ck_ok(submission_commit(q, &s, p, 2 * SQ_CHUNK + 9, &second), err);
		ck_assert_int_eq(second.n_duplicates, 0);
		db_do(q, "DELETE FROM recipient WHERE id >> 16 = (SELECT max(id) FROM message)");
		p[at] ^= 1;
	}
}
END_TEST

/* ---- two connections ---- */

struct other {
	struct sq_queue *on;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	bool begun;
	enum sq_err e;
	struct sq_error err;
	int64_t id;
};

static void *
ask_for_something(void *arg)
{
	struct other *o = arg;

	pthread_mutex_lock(&o->lock);
	o->begun = true;
	pthread_cond_signal(&o->moved);
	pthread_mutex_unlock(&o->lock);
	o->e = sq_queue_request_add(o->on, SQ_REQUEST_FLUSH, (struct sq_message_id){ 0 }, "", NOW, &o->id, &o->err);
	return NULL;
}

/* A writer that meets another waits until that one has committed, and then sees what it wrote. */
START_TEST(a_writer_waits_for_a_writer)
{
	struct other o = { .on = queue_open(SQ_QUEUE_READ), .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER, .e = SQ_EIO };
	struct sq_request r;
	int64_t first = 0;
	pthread_t thread;

	ck_ok(sq_queue_batch_begin(q, true, &err), err);
	ck_ok(sq_queue_request_add(q, SQ_REQUEST_FLUSH, (struct sq_message_id){ 0 }, "", NOW, &first, &err), err);
	ck_assert_int_eq(pthread_create(&thread, NULL, ask_for_something, &o), 0);
	pthread_mutex_lock(&o.lock);
	while (!o.begun)
		pthread_cond_wait(&o.moved, &o.lock);
	pthread_mutex_unlock(&o.lock);
	/* Not seen by others before the commit. */
	{
		struct sq_queue *third = queue_open(SQ_QUEUE_READ);

		ck_assert_int_eq(sq_queue_request_get(third, first, &r, &err), SQ_ENOENT);
		sq_queue_close(third);
	}
	ck_ok(sq_queue_batch_commit(q, &err), err);
	pthread_join(thread, NULL);
	ck_assert_msg(o.e == SQ_OK, "%s", o.err.text);
	ck_assert_int_gt(o.id, first);
	ck_ok(sq_queue_request_get(o.on, first, &r, &err), err);
	sq_queue_close(o.on);
}
END_TEST

/* Past its deadline (5 s for people) it says so, and nothing was changed. */
START_TEST(a_writer_gives_up)
{
	struct sq_queue *b = queue_open(SQ_QUEUE_READ);
	struct timespec from, to;
	int64_t id = 0;

	ck_ok(sq_queue_batch_begin(q, true, &err), err);
	clock_gettime(CLOCK_MONOTONIC, &from);
	ck_refused(sq_queue_request_add(b, SQ_REQUEST_FLUSH, (struct sq_message_id){ 0 }, "", NOW, &id, &err), SQ_EBUSY, "is busy");
	clock_gettime(CLOCK_MONOTONIC, &to);
	ck_assert_int_ge((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000, 4900);
	ck_ok(sq_queue_batch_commit(q, &err), err);
	ck_assert_int_eq(rows("request"), 0);
	/* The handle works as before. */
	ck_ok(sq_queue_request_add(b, SQ_REQUEST_FLUSH, (struct sq_message_id){ 0 }, "", NOW, &id, &err), err);
	sq_queue_close(b);
}
END_TEST

/* Readers never wait, and see what was committed before they began. */
START_TEST(readers_do_not_wait)
{
	struct sq_message_id id = queue_put("b@x"), made;
	struct sq_queue *b = queue_open(SQ_QUEUE_READ);
	int64_t n[SQ_STATE_COUNT];
	int held;

	ck_ok(sq_queue_batch_begin(q, true, &err), err);
	ck_ok(sq_queue_hold(q, id, "", NOW, &held, &err), err);
	ck_ok(sq_queue_counts(b, id, n, &err), err);
	ck_assert_int_eq(n[SQ_STATE_QUEUED], 1);
	ck_ok(sq_queue_batch_commit(q, &err), err);
	ck_ok(sq_queue_counts(b, id, n, &err), err);
	ck_assert_int_eq(n[SQ_STATE_HELD], 1);
	/* A message submitted by one is found by the other. */
	made = queue_put("c@x");
	ck_ok(sq_queue_counts(b, made, n, &err), err);
	ck_assert_int_eq(n[SQ_STATE_QUEUED], 1);
	sq_queue_close(b);
}
END_TEST

/* Four submit at once, each with its own connection: all ids differ, all are there. */
static void *
submit_ten(void *arg)
{
	struct other *o = arg;

	for (int i = 0; i < 10 && o->e == SQ_OK; i++) {
		struct sq_new_recipient r = { .address = SQ_STR("b@x") };
		struct sq_submission s = { .message_id = SQ_STR("<n@x>"), .sender = SQ_STR("a@x"), .header_from = SQ_STR("a@x"), .subject = SQ_STR("s"),
			.route = "home", .source = "argv", .submitted_ms = NOW, .expires_ms = NOW + 1, .recipients = &r, .n_recipients = 1 };
		struct sq_submitted out = { 0 };
		struct sq_ingest *in;

		if ((o->e = sq_ingest_begin(o->on, &in, &o->err)) == SQ_OK && (o->e = sq_ingest_write(in, "x\r\n", 3, &o->err)) == SQ_OK)
			o->e = sq_ingest_commit(in, &s, &out, &o->err);
	}
	return NULL;
}

START_TEST(four_submit_at_once)
{
	struct other o[4];
	pthread_t thread[4];

	for (size_t i = 0; i < SQ_LEN(o); i++) {
		o[i] = (struct other){ .on = queue_open(SQ_QUEUE_SUBMIT), .e = SQ_OK };
		ck_assert_int_eq(pthread_create(&thread[i], NULL, submit_ten, &o[i]), 0);
	}
	for (size_t i = 0; i < SQ_LEN(o); i++) {
		pthread_join(thread[i], NULL);
		ck_assert_msg(o[i].e == SQ_OK, "%s", o[i].err.text);
		sq_queue_close(o[i].on);
	}
	ck_assert_int_eq(rows("message"), 40);
	ck_assert_int_eq(rows("recipient"), 40);
	ck_assert_int_eq(rows("content"), 40);
	ck_assert_int_eq(rows("route"), 1);
}
END_TEST

/* ---- batches ---- */

START_TEST(a_batch_is_whole_or_not_at_all)
{
	struct sq_message_id a = queue_put("b@x"), b = queue_put("d@x c@x");
	int n;

	ck_ok(sq_queue_batch_begin(q, true, &err), err);
	ck_ok(sq_queue_hold(q, a, "", NOW, &n, &err), err);
	/* A refusal that changed nothing spoils nothing. */
	ck_refused(sq_queue_release(q, b, "", NOW, &n, &err), SQ_EPERM, "is queued and cannot be released");
	ck_ok(sq_queue_hold(q, b, "", NOW, &n, &err), err);
	ck_ok(sq_queue_batch_commit(q, &err), err);
	ck_states(a, "h");
	ck_states(b, "hh");

	/* A failure in the middle of a change does: SQLite refuses the second row. */
	db_do(q, "CREATE TRIGGER broken BEFORE UPDATE OF state ON recipient WHEN new.address = 'c@x' BEGIN SELECT raise(FAIL, 'broken'); END");
	ck_ok(sq_queue_batch_begin(q, true, &err), err);
	ck_ok(sq_queue_release(q, a, "", NOW, &n, &err), err);
	ck_assert_int_ne(sq_queue_release(q, b, "", NOW, &n, &err), SQ_OK);
	ck_assert_int_ne(sq_queue_batch_commit(q, &err), SQ_OK);
	db_do(q, "DROP TRIGGER broken");
	ck_states(a, "h");
	ck_states(b, "hh");
	ck_ok(sq_queue_release(q, a, "", NOW, &n, &err), err);
	ck_states(a, "q");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("queue_submit");
	TCase *t = tcase_create("submit");

	tcase_add_checked_fixture(t, queue_setup, queue_teardown);
	tcase_add_loop_test(t, content_comes_back, 0, SQ_LEN(sizes));
	tcase_add_loop_test(t, lost_content_is_seen, 0, 2);
	tcase_add_loop_test(t, abort_leaves_nothing, 0, SQ_LEN(sizes));
	tcase_add_loop_test(t, commit_refuses, 0, SQ_LEN(bad));
	tcase_add_test(t, a_large_one_is_the_same_to_all);
	tcase_add_loop_test(t, only_the_dead_are_swept, 0, 2);
	tcase_add_loop_test(t, duplicate, 0, SQ_LEN(duplicates));
	tcase_add_test(t, some_recipients_are_duplicates);
	tcase_add_loop_test(t, large_duplicates_leave_nothing, 0, 2);
	tcase_add_test(t, a_writer_waits_for_a_writer);
	tcase_add_test(t, a_writer_gives_up);
	tcase_add_test(t, readers_do_not_wait);
	tcase_add_test(t, four_submit_at_once);
	tcase_add_test(t, a_batch_is_whole_or_not_at_all);
	suite_add_tcase(s, t);
	return test_main(s);
}
