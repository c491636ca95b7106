/* base: buffers keep their limit, errors their words, the wake socket its long path. */
#include "harness.h"

#include <errno.h>
#include <sendq/buf.h>
#include <sendq/io.h>
#include <sendq/outcome.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

START_TEST(buffer_keeps_its_limit)
{
	struct sq_buf b = SQ_BUF_INIT(100);
	struct sq_error err = { 0 };
	struct sq_str v;

	for (int i = 0; i < 100; i++)
		sq_buf_addc(&b, 'x');
	ck_ok(sq_buf_view(&b, &v, &err), err);
	ck_assert_uint_eq(v.n, 100);
	sq_buf_addc(&b, 'y');
	ck_assert_int_eq(sq_buf_view(&b, &v, &err), SQ_ELIMIT);
	sq_buf_clear(&b);
	sq_buf_addf(&b, "%d-%s", 7, "seven");
	ck_ok(sq_buf_view(&b, &v, &err), err);
	ck_assert(sq_str_eq(v, SQ_STR("7-seven")));
	sq_buf_consume(&b, 2);
	ck_assert_str_eq(b.p, "seven");
	sq_buf_wipe(&b);
	ck_assert_ptr_null(b.p);
}
END_TEST

START_TEST(empty_buffer_gives_an_empty_string)
{
	struct sq_buf b = SQ_BUF_INIT(10);
	struct sq_error err = { 0 };
	char *s;

	ck_ok(sq_buf_take(&b, &s, &err), err);
	ck_assert_str_eq(s, "");
	free(s);
}
END_TEST

START_TEST(errors_keep_words_and_one_line)
{
	struct sq_error err = { 0 };

	errno = ENOSPC;
	ck_assert_int_eq(sq_error_errno(&err, SQ_EIO, "cannot write '%s'", "a\nb"), SQ_ENOSPC);
	ck_assert_str_eq(err.text, "cannot write 'a b': No space left on device");
	ck_assert_int_eq(sq_error_wrap(&err, SQ_ENOSPC, "line %d", 3), SQ_ENOSPC);
	ck_assert_str_eq(err.text, "line 3: cannot write 'a b': No space left on device");
	for (int i = 0; i < 30; i++)
		sq_error_wrap(&err, SQ_EIO, "a fairly long context, number %d", i);
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_str_eq(err.text + strlen(err.text) - 3, "...");
}
END_TEST

START_TEST(directories_are_private)
{
	char path[256], deep[300];
	struct sq_error err = { 0 };
	struct stat st;

	test_path(path, "a");
	snprintf(deep, sizeof(deep), "%s/b/c/", path);
	ck_ok(sq_mkdirs(deep, &err), err);
	ck_ok(sq_mkdirs(deep, &err), err);
	ck_assert_int_eq(stat(deep, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0700);
}
END_TEST

START_TEST(wake_socket_of_a_long_path)
{
	char path[256], deep[900];
	struct sq_error err = { 0 };
	char octet;
	int fd = -1;
	size_t n;

	test_path(path, "wake");
	n = (size_t)snprintf(deep, sizeof(deep), "%s", path);
	for (int i = 0; i < 8; i++)
		n += (size_t)snprintf(deep + n, sizeof(deep) - n, "/%s", "a-directory-with-a-long-name");
	ck_ok(sq_mkdirs(deep, &err), err);
	snprintf(deep + n, sizeof(deep) - n, "/queue.db.wake");
	ck_assert(!sq_wake_poke(deep));
	ck_ok(sq_wake_bind(deep, &fd, &err), err);
	ck_assert(sq_wake_poke(deep));
	ck_assert_int_eq(recv(fd, &octet, 1, 0), 1);
	for (int i = 0; i < 5000; i++) /* nobody reads: a full socket is a listener all the same */
		ck_assert(sq_wake_poke(deep));
	close(fd);
	ck_assert(!sq_wake_poke(deep));
}
END_TEST

START_TEST(dates_are_rfc_5322)
{
	char out[40];

	setenv("TZ", "IST-5:30", 1);
	tzset();
	sq_format_date(1795522857000, out);
	ck_assert_str_eq(out, "Tue, 24 Nov 2026 17:50:57 +0530");
	setenv("TZ", "NST3:30", 1);
	tzset();
	sq_format_date(0, out);
	ck_assert_str_eq(out, "Wed, 31 Dec 1969 20:30:00 -0330");
}
END_TEST

START_TEST(names_cover_the_tables)
{
	for (int i = 0; i < SQ_STATE_COUNT; i++)
		ck_assert_str_ne(sq_state_name((enum sq_state)i), "?");
	for (int i = 0; i < SQ_PHASE_COUNT; i++)
		ck_assert_str_ne(sq_phase_name((enum sq_phase)i), "?");
	for (int i = 0; i < SQ_OUTCOME_COUNT; i++)
		ck_assert_str_ne(sq_outcome_name((enum sq_outcome)i), "?");
	ck_assert_str_eq(sq_state_name((enum sq_state)99), "?");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("base");
	TCase *t = tcase_create("base");

	tcase_add_test(t, buffer_keeps_its_limit);
	tcase_add_test(t, empty_buffer_gives_an_empty_string);
	tcase_add_test(t, errors_keep_words_and_one_line);
	tcase_add_test(t, directories_are_private);
	tcase_add_test(t, wake_socket_of_a_long_path);
	tcase_add_test(t, dates_are_rfc_5322);
	tcase_add_test(t, names_cover_the_tables);
	suite_add_tcase(s, t);
	return test_main(s);
}
