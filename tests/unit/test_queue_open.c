/*
 * Opening the queue: whose file it is, where it lies, which version it has,
 * migrations, backups put back; ids; and that every statement prepares.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "queue_fixture.h"

/* The file system that the queue believes to lie on: 0 tells the truth. */
static long pretended_fs;

int statfs(const char *path, struct statfs *out);

int
statfs(const char *path, struct statfs *out)
{
	int rc = (int)syscall(SYS_statfs, path, out);

	if (rc == 0 && pretended_fs)
		out->f_type = pretended_fs;
	return rc;
}

/* Without a fork a test, as under valgrind, what one pretended must not stay. */
static void
setup(void)
{
	pretended_fs = 0;
	queue_setup();
}

/* ---- statements ---- */

START_TEST(every_statement_prepares)
{
	const char *text = sq_sql_text((enum sq_sql)_i), *tail = NULL;
	sqlite3_stmt *st = NULL;

	ck_assert_msg(text != NULL, "statement %d has no text", _i);
	ck_assert_msg(sqlite3_prepare_v3(q->db, text, -1, SQLITE_PREPARE_PERSISTENT, &st, &tail) == SQLITE_OK, "%s: %s", text, sqlite3_errmsg(q->db));
	ck_assert_str_eq(tail, "");
	sqlite3_finalize(st);
}
END_TEST

/* ---- versions ---- */

static void
copy_file(const char *from, const char *to)
{
	struct sq_buf b = SQ_BUF_INIT(16 * 1024 * 1024);
	int fd = open(from, O_RDONLY | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "%s: %s", from, strerror(errno));
	ck_ok(sq_buf_read_fd(&b, fd, &err), err);
	close(fd);
	fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, b.p, b.n), (ssize_t)b.n);
	close(fd);
	sq_buf_fini(&b);
}

/* The texts of the schema in the order of their names; heap. */
static char *
schema(struct sq_queue *of)
{
	struct sq_buf b = SQ_BUF_INIT(65536);
	sqlite3_stmt *st = NULL;
	char *out;

	ck_assert_int_eq(sqlite3_prepare_v2(of->db, "SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name", -1, &st, NULL), SQLITE_OK);
	while (sqlite3_step(st) == SQLITE_ROW)
		sq_buf_addf(&b, "%s: %s\n", (const char *)sqlite3_column_text(st, 0), (const char *)sqlite3_column_text(st, 1));
	sqlite3_finalize(st);
	ck_ok(sq_buf_take(&b, &out, &err), err);
	return out;
}

static bool
count_copy(void *arg, const struct sq_ledger_row *row)
{
	ck_assert_str_eq(row->recipient, "sent@example.org");
	ck_assert_str_eq(row->message_id, "<1@example.org>");
	++*(int *)arg;
	return true;
}

/* A database as the first version wrote it: in every role it becomes today's, and nothing of it is lost. */
START_TEST(version_1_is_brought_up)
{
	static const enum sq_queue_role roles[] = { SQ_QUEUE_SUBMIT, SQ_QUEUE_RUN, SQ_QUEUE_READ };
	SQ_CLEANUP(sq_buf_fini) struct sq_buf content = SQ_BUF_INIT(64);
	SQ_CLEANUP(sq_freep) char *fresh = schema(q), *old = NULL, *name = NULL;
	struct sq_message_id id = { SQ_FIRST_ID };
	struct sq_message *m = NULL;
	char from[512];
	int copies = 0;

	queue_teardown();
	snprintf(from, sizeof(from), "%s/queue-v1.db", test_data_dir());
	memcpy(strrchr(queue_path, '/'), "/old.db", 8);
	copy_file(from, queue_path);
	sq_queue_close(queue_open(roles[_i]));
	q = queue_open(SQ_QUEUE_RUN);
	ck_assert_int_eq(db_number(q, "PRAGMA user_version"), sq_migrate_latest());
	ck_assert_int_gt(sq_migrate_latest(), 1);
	old = schema(q);
	ck_assert_str_eq(old, fresh);
	ck_states(id, "S?qhFcs");
	ck_ok(sq_queue_show(q, id, &m, &err), err);
	ck_assert_str_eq(m->recipients[4].reply.text.p, "no such user");
	ck_assert_str_eq(m->route, "home");
	sq_message_free(m);
	ck_ok(sq_queue_read_content(q, id, 0, 11, &content, &err), err);
	ck_assert_str_eq(content.p, "A: b\r\n\r\nc\r\n");
	ck_ok(sq_queue_sent(q, NULL, count_copy, &copies, &err), err);
	ck_assert_int_eq(copies, 1);
	ck_ok(sq_queue_ehlo_name(q, &name, &err), err);
	ck_assert_str_eq(name, "4f7a1c9e0b2d3c68.invalid");
}
END_TEST

/* What a file may be that is not a queue of ours, and the sentence for it. It is left as it is. */
static const struct { const char *what, *sql; enum sq_err code; const char *words; } others[] = {
	{ "a newer version", "PRAGMA user_version = 999", SQ_ENEWER, "version 999, this sendq knows" },
	{ "another program's", "PRAGMA application_id = 5", SQ_ECORRUPT, "another program" },
	{ "tables without a name", "PRAGMA application_id = 0; PRAGMA user_version = 0", SQ_ECORRUPT, "another program" },
};

START_TEST(others_are_refused)
{
	for (int role = SQ_QUEUE_SUBMIT; role <= SQ_QUEUE_READ; role++) {
		struct sq_queue *other = NULL;
		int64_t before;

		if (role == SQ_QUEUE_SUBMIT)
			db_do(q, others[_i].sql);
		before = db_number(q, "PRAGMA schema_version") + db_number(q, "PRAGMA user_version") + db_number(q, "PRAGMA application_id");
		ck_refused(sq_queue_open(queue_path, (enum sq_queue_role)role, &other, &err), others[_i].code, others[_i].words);
		ck_assert(strstr(err.text, queue_path) != NULL);
		ck_assert_int_eq(db_number(q, "PRAGMA schema_version") + db_number(q, "PRAGMA user_version") + db_number(q, "PRAGMA application_id"), before);
	}
}
END_TEST

static const struct { const char *what; size_t keep; const char *put; size_t at, n; const char *words; } damages[] = {
	{ "no database at all", 0, "these are not the octets of a database\n", 0, 100, "is not a database" },
	{ "cut in its schema", 4096, NULL, 0, 0, "malformed" },
	{ "noise behind its first page", SIZE_MAX, "noise noise noise noise", 4096, 4096 * 20, "malformed" },
};

START_TEST(damage_is_refused)
{
	struct sq_queue *other = NULL;
	enum sq_err e;
	int fd;

	queue_put("b@x");
	queue_teardown();
	fd = open(queue_path, O_RDWR | O_CLOEXEC);
	if (damages[_i].keep != SIZE_MAX)
		ck_assert_int_eq(ftruncate(fd, (off_t)damages[_i].keep), 0);
	for (size_t i = 0; damages[_i].put && i < damages[_i].n; i += strlen(damages[_i].put))
		ck_assert_int_gt(pwrite(fd, damages[_i].put, strlen(damages[_i].put), (off_t)(damages[_i].at + i)), 0);
	close(fd);
	/* What opening cannot see, the first use does: with a code, never with a crash, never with an empty list. */
	e = sq_queue_open(queue_path, SQ_QUEUE_RUN, &other, &err);
	if (e == SQ_OK) {
		int64_t n[SQ_STATE_COUNT];

		e = sq_queue_counts(other, (struct sq_message_id){ 0 }, n, &err);
	}
	ck_assert_msg(e == SQ_ECORRUPT, "%s: %s: %s", damages[_i].what, sq_err_name(e), err.text);
	ck_assert_msg(strstr(err.text, damages[_i].words) != NULL, "%s: %s", damages[_i].what, err.text);
	sq_queue_close(other);
}
END_TEST

START_TEST(an_empty_file_becomes_ours)
{
	queue_teardown();
	ck_assert_int_eq(truncate(queue_path, 0), 0);
	q = queue_open(SQ_QUEUE_SUBMIT);
	ck_assert_int_eq(db_number(q, "PRAGMA user_version"), sq_migrate_latest());
	ck_assert_int_eq(db_number(q, "PRAGMA application_id"), SQ_APPLICATION_ID);
	ck_assert_int_eq(db_number(q, "PRAGMA auto_vacuum"), 2);
	ck_assert_int_eq(db_number(q, "PRAGMA synchronous"), 2);
	ck_assert_int_eq(db_number(q, "PRAGMA foreign_keys"), 1);
	ck_assert_int_eq(db_number(q, "PRAGMA secure_delete"), 2);
}
END_TEST

/* At the moment when an opener counts the tables another process has made them all. */
static bool meddle;

static int
on_statement(unsigned type, void *context, void *statement, void *text)
{
	(void)type, (void)context, (void)statement;
	if (meddle && strstr(text, "sqlite_schema")) {
		meddle = false;
		sq_queue_close(queue_open(SQ_QUEUE_RUN));
	}
	return 0;
}

static int
on_open(sqlite3 *db, char **why, const struct sqlite3_api_routines *api)
{
	(void)why, (void)api;
	return sqlite3_trace_v2(db, SQLITE_TRACE_STMT, on_statement, NULL);
}

START_TEST(who_is_late_takes_it_for_a_queue)
{
	queue_teardown();
	sqlite3_auto_extension((void (*)(void))on_open);
	memcpy(strrchr(queue_path, '/'), "/new.db", 8);
	meddle = true;
	q = queue_open(SQ_QUEUE_SUBMIT);
	sqlite3_reset_auto_extension();
	ck_assert(!meddle);
	ck_assert_int_eq(db_number(q, "PRAGMA user_version"), sq_migrate_latest());
}
END_TEST

/* ---- place and owner ---- */

START_TEST(no_queue_to_read)
{
	struct sq_queue *other = NULL;
	char path[256];

	test_path(path, "none.db");
	ck_refused(sq_queue_open(path, SQ_QUEUE_READ, &other, &err), SQ_ENOENT, path);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(files_are_private)
{
	struct stat st;

	queue_put("b@x");
	ck_assert_int_eq(chmod(queue_path, 0644), 0);
	sq_queue_close(queue_open(SQ_QUEUE_READ));
	ck_assert_int_eq(stat(queue_path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	*strrchr(queue_path, '/') = '\0';
	ck_assert_int_eq(stat(queue_path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0700);
}
END_TEST

static const mode_t open_modes[] = { 0770, 0707, 0777, 0722 };

START_TEST(a_directory_of_many_is_refused)
{
	struct sq_queue *other = NULL;
	char dir[256];

	snprintf(dir, sizeof(dir), "%s", queue_path);
	*strrchr(dir, '/') = '\0';
	ck_assert_int_eq(chmod(dir, open_modes[_i]), 0);
	ck_refused(sq_queue_open(queue_path, SQ_QUEUE_SUBMIT, &other, &err), SQ_EPERM, "chmod go-w");
	ck_assert(strstr(err.text, dir) != NULL);
	ck_assert_int_eq(chmod(dir, 0755), 0);
	sq_queue_close(queue_open(SQ_QUEUE_SUBMIT));
}
END_TEST

/* Row 0: the file is another's, row 1: the directory. Only root can make such files. */
START_TEST(another_users_is_refused)
{
	const struct passwd *pw = getpwnam("nobody");
	struct sq_queue *other = NULL;
	char path[256], theirs[64];

	if (geteuid() != 0 || !pw)
		return;
	snprintf(theirs, sizeof(theirs), "belongs to %s, but this is root", pw->pw_name);
	snprintf(path, sizeof(path), "%s", queue_path);
	if (_i == 1)
		*strrchr(path, '/') = '\0';
	ck_assert_int_eq(chown(path, pw->pw_uid, pw->pw_gid), 0);
	for (int role = SQ_QUEUE_SUBMIT; role <= SQ_QUEUE_READ; role++) {
		ck_refused(sq_queue_open(queue_path, (enum sq_queue_role)role, &other, &err), SQ_EPERM, theirs);
		ck_assert(strstr(err.text, path) != NULL);
	}
}
END_TEST

static const struct { long type; const char *name; } file_systems[] = {
	{ 0x6969, "NFS" }, { (int)0xff534d42, "CIFS" }, { 0xfe534d42, "SMB2" }, { 0x01021997, "9p" },
	{ 0xef53, NULL }, { 0x01021994, NULL }, { 0x9123683e, NULL }, { 0x58465342, NULL },
};

START_TEST(network_file_systems)
{
	struct sq_queue *other = NULL;
	enum sq_err e;

	pretended_fs = file_systems[_i].type;
	e = sq_queue_open(queue_path, SQ_QUEUE_SUBMIT, &other, &err);
	if (file_systems[_i].name) {
		ck_refused(e, SQ_EINVAL, file_systems[_i].name);
		ck_assert(strstr(err.text, "set `queue` to a file on a local disk") != NULL);
		/* Neither is a new one made there. */
		memcpy(strrchr(queue_path, '/'), "/new.db", 8);
		ck_refused(sq_queue_open(queue_path, SQ_QUEUE_RUN, &other, &err), SQ_EINVAL, file_systems[_i].name);
		ck_assert_int_eq(access(queue_path, F_OK), -1);
	} else {
		ck_ok(e, err);
		sq_queue_close(other);
	}
}
END_TEST

START_TEST(not_a_regular_file)
{
	struct sq_queue *other = NULL;

	memcpy(strrchr(queue_path, '/'), "/pipe", 6);
	ck_assert_int_eq(mkfifo(queue_path, 0600), 0);
	ck_refused(sq_queue_open(queue_path, SQ_QUEUE_SUBMIT, &other, &err), SQ_EINVAL, "not a regular file");
}
END_TEST

/* ---- backups ---- */

static bool
restored(void)
{
	bool is = false;

	ck_ok(sq_queue_check_restored(q, &is, &err), err);
	return is;
}

static void
new_run(void)
{
	queue_teardown();
	q = queue_open(SQ_QUEUE_RUN);
}

/* Row 0: the old octets in the file of today; row 1: another file in its place. */
START_TEST(a_backup_is_seen_and_held)
{
	struct sq_message_id waits = queue_put("b@x"), sending = queue_put("c@x"), committing = queue_put("d@x"), done = queue_put("e@x");
	char backup[256 + 8];
	struct sq_work *w;
	struct sq_message *m = NULL;
	int n = 0;

	queue_verdict(done, "A", NOW);
	sq_work_free(queue_claim(sending, NOW));
	w = queue_claim(committing, NOW);
	queue_intent(w);
	sq_work_free(w);
	ck_assert(!restored());
	queue_teardown();
	snprintf(backup, sizeof(backup), "%s.old", queue_path);
	copy_file(queue_path, backup);
	q = queue_open(SQ_QUEUE_RUN);
	ck_assert(!restored());
	ck_assert(!restored());
	queue_teardown();
	/* Of today: only the inode tells that this is not the file that was here. */
	if (_i == 1)
		copy_file(queue_path, backup);
	if (_i == 1)
		ck_assert_int_eq(rename(backup, queue_path), 0);
	else
		copy_file(backup, queue_path);
	q = queue_open(SQ_QUEUE_RUN);
	ck_assert(restored());
	/* A crash between the question and the answer: the question stays. */
	new_run();
	ck_assert(restored());
	ck_ok(sq_queue_hold_restored(q, "from a backup", NOW, &n, &err), err);
	ck_assert_int_eq(n, 3);
	ck_states(waits, "h");
	ck_states(sending, "h");
	ck_states(committing, "h");
	ck_states(done, "S");
	ck_ok(sq_queue_show(q, committing, &m, &err), err);
	ck_assert_str_eq(m->recipients[0].reply.text.p, "from a backup");
	ck_assert_int_ne(m->attempts[0].ended_ms, 0);
	sq_message_free(m);
	new_run();
	ck_assert(!restored());
	if (_i == 0) {
		/* The same backup once more. */
		queue_teardown();
		copy_file(backup, queue_path);
		q = queue_open(SQ_QUEUE_RUN);
		ck_assert(restored());
	}
}
END_TEST

START_TEST(a_missing_epoch_file)
{
	char path[256 + 8];

	snprintf(path, sizeof(path), "%s.epoch", queue_path);
	ck_assert(!restored());
	/* One that died between its two steps wrote no file. */
	ck_assert_int_eq(unlink(path), 0);
	new_run();
	ck_assert(!restored());
	new_run();
	ck_assert_int_eq(unlink(path), 0);
	ck_assert(restored());
	/* Neither does a file of nonsense answer the question. */
	ck_assert_int_eq(symlink("/dev/null", path), 0);
	ck_assert_int_ne(sq_queue_check_restored(q, &(bool){ false }, &err), SQ_OK);
}
END_TEST

/* A queue that was deleted leaves its file behind: the new one has nothing to fear. */
START_TEST(a_new_queue_beside_an_old_file)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };

	ck_assert(!restored());
	new_run();
	ck_assert(!restored());
	queue_teardown();
	for (size_t i = 0; i < SQ_LEN(suffixes); i++) {
		char path[256 + 8];

		snprintf(path, sizeof(path), "%s%s", queue_path, suffixes[i]);
		unlink(path);
	}
	q = queue_open(SQ_QUEUE_RUN);
	ck_assert(!restored());
}
END_TEST

START_TEST(ehlo_name_is_stable)
{
	SQ_CLEANUP(sq_freep) char *a = NULL, *b = NULL;

	ck_ok(sq_queue_ehlo_name(q, &a, &err), err);
	ck_assert_uint_eq(strlen(a), 16 + strlen(".invalid"));
	ck_assert_uint_eq(strspn(a, "0123456789abcdef"), 16);
	new_run();
	ck_ok(sq_queue_ehlo_name(q, &b, &err), err);
	ck_assert_str_eq(a, b);
}
END_TEST

/* ---- ids ---- */

static const struct { int64_t v; const char *text; } texts[] = {
	{ 0, "0000" }, { 31, "000z" }, { 32768, "1000" }, { 32768 + 17, "100h" }, { 32768 + 18, "100j" }, { 32768 + 31, "100z" },
	{ 1048575, "zzzz" }, { 1048576, "10000" }, { INT64_C(1) << 45, "1000000000" },
};

START_TEST(ids_are_typeable)
{
	char out[SQ_ID_TEXT];

	sq_id_format((struct sq_message_id){ texts[_i].v }, out);
	ck_assert_str_eq(out, texts[_i].text);
}
END_TEST

/* Messages 1000 … 1003, 10z0 and, five digits long, 10000: what a text finds; NULL: nothing; "": several. */
static const struct { const char *typed, *found; } finds[] = {
	{ "1000", "1000" },   /* its own text, though 10000 begins with it */
	{ "1001", "1001" }, { "lOOi", "1001" }, { "100L", "1001" }, { "10z0", "10z0" }, { "10Z", "10z0" }, { "10z", "10z0" },
	{ "10000", "10000" }, { "100", "" }, { "1", "" }, { "10", "" },
	{ "2", NULL }, { "1004", NULL }, { "100000", NULL }, { "", NULL }, { "1000000000000000000", NULL }, { "10 0", NULL }, { "100u", NULL },
	/* No id begins with a zero. */
	{ "0", NULL }, { "01", NULL }, { "0100", NULL }, { "o1000", NULL }, { "01000", NULL },
};

START_TEST(ids_are_found)
{
	static const int64_t ids[] = { 32768, 32769, 32770, 32771, 32768 + 31 * 32, 1048576 };
	struct sq_message_id id = { 0 };
	char out[SQ_ID_TEXT];

	for (size_t i = 0; i < SQ_LEN(ids); i++) {
		struct sq_message_id put = queue_put("b@x");
		char sql[200];

		snprintf(sql, sizeof(sql), "UPDATE message SET id = %lld WHERE id = %lld", (long long)ids[i], (long long)put.v);
		db_do(q, sql);
		snprintf(sql, sizeof(sql), "DELETE FROM recipient; DELETE FROM content");
		db_do(q, sql);
	}
	if (finds[_i].found && finds[_i].found[0]) {
		ck_ok(sq_queue_find(q, finds[_i].typed, &id, &err), err);
		sq_id_format(id, out);
		ck_assert_str_eq(out, finds[_i].found);
	} else if (finds[_i].found) {
		ck_refused(sq_queue_find(q, finds[_i].typed, &id, &err), SQ_EAMBIGUOUS, " 1000, 1001");
	} else {
		ck_refused(sq_queue_find(q, finds[_i].typed, &id, &err), SQ_ENOENT, "no message has the id");
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("queue_open");
	TCase *t = tcase_create("open");

	tcase_add_checked_fixture(t, setup, queue_teardown);
	tcase_add_loop_test(t, every_statement_prepares, 0, SQL_COUNT);
	tcase_add_loop_test(t, version_1_is_brought_up, 0, 3);
	tcase_add_loop_test(t, others_are_refused, 0, SQ_LEN(others));
	tcase_add_loop_test(t, damage_is_refused, 0, SQ_LEN(damages));
	tcase_add_test(t, an_empty_file_becomes_ours);
	tcase_add_test(t, who_is_late_takes_it_for_a_queue);
	tcase_add_test(t, no_queue_to_read);
	tcase_add_test(t, files_are_private);
	tcase_add_loop_test(t, a_directory_of_many_is_refused, 0, SQ_LEN(open_modes));
	tcase_add_loop_test(t, another_users_is_refused, 0, 2);
	tcase_add_loop_test(t, network_file_systems, 0, SQ_LEN(file_systems));
	tcase_add_test(t, not_a_regular_file);
	tcase_add_loop_test(t, a_backup_is_seen_and_held, 0, 2);
	tcase_add_test(t, a_missing_epoch_file);
	tcase_add_test(t, a_new_queue_beside_an_old_file);
	tcase_add_test(t, ehlo_name_is_stable);
	tcase_add_loop_test(t, ids_are_typeable, 0, SQ_LEN(texts));
	tcase_add_loop_test(t, ids_are_found, 0, SQ_LEN(finds));
	suite_add_tcase(s, t);
	return test_main(s);
}
