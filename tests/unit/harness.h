/*
 * The small vocabulary of the unit tests: one main, TAP on stdout, and
 * temporary directories that are removed even after a failed test (each test
 * runs in its own process under Check; the parent removes).
 */
#ifndef SENDQ_TESTS_HARNESS_H
#define SENDQ_TESTS_HARNESS_H

#include <check.h>
#include <sendq/error.h>

/* Assert that an sq_err is SQ_OK and show the error's text when it is not. */
#define ck_ok(call, err) do { enum sq_err e_ = (call); \
	ck_assert_msg(e_ == SQ_OK, "%s: %s: %s", #call, sq_err_name(e_), (err).text); } while (0)

/* A directory of this run, made before the tests start and removed after the last. */
const char *test_dir(void);

/* `<test_dir>/<unique number>-<name>`: a path nobody else uses. Static buffer per call site is the caller's: out has 256 octets. */
void test_path(char out[256], const char *name);

/* Directory of tests/data. */
const char *test_data_dir(void);

/* Run the suite; the exit status of main. */
int test_main(Suite *suite);

#endif
