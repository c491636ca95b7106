/* config: every sentence of a bad file, the defaults of the shortest, the choice of a route. */
#include "harness.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/config.h>
#include <sendq/io.h>

#define ROUTE(more) "routes = ( { name = \"home\"; server = \"smtps://smtp.example.org\"; " more " } );"

static struct sq_error err;

static void
write_file(char path[256], const char *text, mode_t mode)
{
	int fd;

	test_path(path, "sendq.conf");
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	ck_assert_int_ge(fd, 0);
	ck_ok(sq_write_all(fd, text, strlen(text), &err), err);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	close(fd);
}

START_TEST(shortest_file_and_its_defaults)
{
	struct sq_config *c = NULL;
	char path[256];

	write_file(path, "routes = ( { name = \"home\"; server = \"smtps://smtp.example.org\"; user = \"me@example.org\";\n"
		" password_command = \"secret-tool lookup mail me@example.org\"; } );", 0644);
	ck_ok(sq_config_load(path, &c, &err), err);
	ck_assert_uint_eq(c->n_routes, 1);
	ck_assert_str_eq(c->routes[0].server, "smtps://smtp.example.org:465");
	ck_assert_int_eq(c->routes[0].secret_kind, SQ_SECRET_COMMAND);
	ck_assert_int_eq(c->routes[0].tls, SQ_TLS_REQUIRED);
	ck_assert_int_eq(c->routes[0].connections, 1);
	ck_assert_int_eq(c->routes[0].expire_ms, INT64_C(432000000));
	ck_assert(c->autostart);
	ck_assert_int_eq(c->duplicate_window_ms, 600000);
	ck_assert_int_eq(c->ledger_ms, INT64_C(7776000000));
	ck_assert_str_eq(c->report_to, "local");
	ck_assert_ptr_nonnull(strstr(c->queue, "/sendq/queue.db"));
	sq_config_free(c);
}
END_TEST

START_TEST(every_setting)
{
	struct sq_config *c = NULL;
	char path[256];

	write_file(path, "queue = \"/q/queue.db\"; autostart = false; identity = \"i@x\"; aliases = \"/a\"; notices = \"/n\"; notify = \"hook\";\n"
		"report_to = \"me@x\"; log = \"debug\"; undo_window = 30; duplicate_window = \"1h30m\"; ledger_days = 7; message_size_max = \"25M\";\n"
		"queue_size_max = 0; free_disk_min = 1000; connect_timeout = \"5s\"; verdict_timeout = \"20m\"; stop_grace = \"1m\";\n"
		"routes = ( { name = \"a\"; server = \"smtp://[::1]\"; from = (\"*@x\", \"me@*\"); user = \"u\"; password = \"p\"; auth = \"login\";\n"
		" tls = \"none\"; ca_file = \"/ca\"; proxy = \"socks5h://h:1\"; ehlo_name = \"e.invalid\"; imap = \"imaps://h\"; mta_log = \"/l\";\n"
		" duplicates = \"ask\"; keeps_partial = \"no\"; message_id = \"kept\"; eightbit = \"send\"; connections = 4; retry_min = \"1m\";\n"
		" retry_max = \"2m\"; warn = 0; expire = \"2d\"; fallback = \"b\"; fingerprint = \"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\";\n"
		" client_cert = \"/c\"; client_key = \"/k\"; }, { name = \"b\"; server = \"smtp://h:25\"; from = \"*@y\"; tls = \"none\"; } );", 0600);
	ck_ok(sq_config_load(path, &c, &err), err);
	ck_assert_int_eq(c->undo_window_ms, 30000);
	ck_assert_int_eq(c->duplicate_window_ms, 5400000);
	ck_assert_int_eq(c->message_size_max, 25 * 1048576);
	ck_assert_int_eq(c->free_disk_min, 1000);
	ck_assert(!c->autostart);
	ck_assert_str_eq(c->routes[0].server, "smtp://[::1]:587");
	ck_assert_str_eq(c->routes[0].host, "::1");
	ck_assert_str_eq(c->routes[0].auth, "LOGIN");
	ck_assert_int_eq(c->routes[0].duplicates, SQ_DUPLICATES_ASK);
	ck_assert_int_eq(c->routes[0].keeps_partial, SQ_NO);
	ck_assert_int_eq(c->routes[0].message_id, SQ_MSGID_KEPT);
	ck_assert(c->routes[0].eightbit_send);
	ck_assert_int_eq(c->routes[0].connections, 4);
	ck_assert_str_eq(c->routes[0].from[1], "me@*");
	ck_assert_str_eq(c->routes[1].from[0], "*@y");
	ck_assert_str_eq(sq_config_route_for(c, "A@X", NULL)->name, "a");
	ck_assert_str_eq(sq_config_route_for(c, NULL, "q@y")->name, "b");
	ck_assert_ptr_null(sq_config_route_for(c, "q@z", "q@y"));
	ck_assert_ptr_null(sq_config_route_for(c, NULL, NULL));
	sq_config_free(c);
}
END_TEST

static const struct { const char *text; mode_t mode; enum sq_err code; const char *words; } bad[] = {
	{ "", 0600, SQ_EINVAL, "names no route; the shortest configuration that works: routes = (" },
	{ "routes = ();", 0600, SQ_EINVAL, "names no route" },
	{ "routes = 3;", 0600, SQ_EINVAL, "'routes' must be a list" },
	{ "routes = ( 3 );", 0600, SQ_EINVAL, "must be a group" },
	{ "\n\n" ROUTE("pasword = \"x\";"), 0600, SQ_EINVAL, "line 3: unknown setting 'pasword' in route 'home', did you mean 'password'?" },
	{ "quue = \"/x\";", 0600, SQ_EINVAL, "line 1: unknown setting 'quue', did you mean 'queue'?" },
	{ "zzzzzzzzz = 1;", 0600, SQ_EINVAL, "line 1: unknown setting 'zzzzzzzzz'" },
	{ "queue = 1;", 0600, SQ_EINVAL, "'queue' must be a string in quotes" },
	{ "queue = \"\";", 0600, SQ_EINVAL, "'queue' is empty" },
	{ "queue = \"x.db\";", 0600, SQ_EINVAL, "'queue' must be an absolute path" },
	{ "autostart = \"yes\";", 0600, SQ_EINVAL, "'autostart' must be true or false" },
	{ "undo_window = \"soon\";", 0600, SQ_EINVAL, "'soon' is not a duration" },
	{ "undo_window = \"2d\";", 0600, SQ_EINVAL, "'undo_window' is out of range" },
	{ "undo_window = -1;", 0600, SQ_EINVAL, "out of range" },
	{ "message_size_max = \"big\";", 0600, SQ_EINVAL, "'big' is not a size" },
	{ "log = \"loud\";", 0600, SQ_EINVAL, "'log' is \"loud\" but must be one of \"error\", \"warn\", \"info\", \"debug\"" },
	{ "this is not (libconfig", 0600, SQ_EINVAL, "line 1: syntax error" },
	{ "@include \"x\"", 0600, SQ_EINVAL, "line 1: @include is not supported" },
	{ "routes = ( { server = \"smtps://h\"; } );", 0600, SQ_EINVAL, "'name' is missing" },
	{ "routes = ( { name = \"a b\"; server = \"smtps://h\"; } );", 0600, SQ_EINVAL, "'name' may hold" },
	{ "routes = ( { name = \"a\"; } );", 0600, SQ_EINVAL, "line 1: route 'a': 'server' is missing" },
	{ "routes = ( { name = \"a\"; server = \"smtps://h\"; }, { name = \"a\"; server = \"smtps://h\"; } );", 0600, SQ_EINVAL, "a second route is named 'a'" },
	{ "routes = ( { name = \"a\"; server = \"smtps://h\"; fallback = \"c\"; } );", 0600, SQ_EINVAL, "fallback 'c' of route 'a' is not another route" },
	{ "routes = ( { name = \"a\"; server = \"mail.example.org\"; } );", 0600, SQ_EINVAL, "must begin with smtps:// or smtp://" },
	{ "routes = ( { name = \"a\"; server = \"smtp://h:70000\"; } );", 0600, SQ_EINVAL, "must be a number from 1 to 65535" },
	{ "routes = ( { name = \"a\"; server = \"smtp://h:\"; } );", 0600, SQ_EINVAL, "must be a number from 1 to 65535" },
	{ "routes = ( { name = \"a\"; server = \"smtp://h:25x\"; } );", 0600, SQ_EINVAL, "must be a number from 1 to 65535" },
	{ "routes = ( { name = \"a\"; server = \"smtp://[::1\"; } );", 0600, SQ_EINVAL, "with nothing behind it" },
	{ "routes = ( { name = \"a\"; server = \"smtp://[h]\"; } );", 0600, SQ_EINVAL, "no IPv6 address" },
	{ "routes = ( { name = \"a\"; server = \"smtp://h,i\"; } );", 0600, SQ_EINVAL, "no host name has" },
	{ "routes = ( { name = \"a\"; server = \"smtp://\"; } );", 0600, SQ_EINVAL, "with nothing behind it" },
	{ ROUTE("proxy = \"h:1080\";"), 0600, SQ_EINVAL, "'proxy' must begin with" },
	{ ROUTE("imap = \"imap.example.org\";"), 0600, SQ_EINVAL, "'imap' must begin with imaps://" },
	{ ROUTE("expire = \"10s\";"), 0600, SQ_EINVAL, "'expire' is out of range (1m to 365d) in route 'home'" },
	{ "duplicate_window = \"40d\";", 0600, SQ_EINVAL, "line 1: 'duplicate_window' is out of range (0 to 30d)" },
	{ "queue = \"/a\"; queue = \"/b\";", 0600, SQ_EINVAL, "line 1: duplicate setting name" },
	{ "queue = \"/a\tb\";", 0600, SQ_EINVAL, "control character in 'queue'" },
	{ "autostart = true;\nledger_days = \"90d\";", 0600, SQ_EINVAL, "line 2: 'ledger_days' must be a number" },
	{ "routes = ( { name = \"a\"; server = \"smtp://u@h\"; } );", 0600, SQ_EINVAL, "with nothing behind it" },
	{ "routes = ( { name = \"a\"; server = \"smtp://h/x\"; } );", 0600, SQ_EINVAL, "with nothing behind it" },
	{ ROUTE("connections = 0;"), 0600, SQ_EINVAL, "'connections' is out of range (1 to 20)" },
	{ ROUTE("tls = \"maybe\";"), 0600, SQ_EINVAL, "\"required\", \"none\"" },
	{ ROUTE("user = \"u\";"), 0600, SQ_EINVAL, "'user' needs a secret" },
	{ ROUTE("password = \"p\";"), 0600, SQ_EINVAL, "a secret needs 'user'" },
	{ ROUTE("user = \"u\"; password_credential = \"../shadow\";"), 0600, SQ_EINVAL, "'password_credential' may hold letters" },
	{ ROUTE("user = \"u\"; password_credential = \".x\";"), 0600, SQ_EINVAL, "'password_credential' may hold letters" },
	{ ROUTE("user = \"u\"; password = \"p\"; password_credential = \"x\";"), 0600, SQ_EINVAL, "is a second secret" },
	{ ROUTE("user = \"u\"; password = \"p\"; password_file = \"/x\";"), 0600, SQ_EINVAL, "'password_file' is a second secret" },
	{ ROUTE("user = \"u\"; password = \"p\"; auth = \"NTLM\";"), 0600, SQ_EINVAL, "'auth' must be" },
	{ ROUTE("user = \"u\"; password = \"p\";"), 0644, SQ_EPERM, "others may read it: chmod 600" },
	{ ROUTE(""), 0666, SQ_EPERM, "others may write the configuration" },
	{ ROUTE("tls = \"none\";"), 0600, SQ_EINVAL, "contradict" },
	{ "routes = ( { name = \"a\"; server = \"smtp://h\"; tls = \"none\"; user = \"u\"; password = \"p\"; } );", 0600, SQ_EINVAL, "in the clear" },
	{ "routes = ( { name = \"a\"; server = \"smtp://127.example.org\"; tls = \"none\"; user = \"u\"; password = \"p\"; } );", 0600, SQ_EINVAL, "in the clear" },
	{ "routes = ( { name = \"a\"; server = \"smtp://[::2]\"; tls = \"none\"; user = \"u\"; password = \"p\"; } );", 0600, SQ_EINVAL, "in the clear" },
	{ ROUTE("fingerprint = \"sha256:12\";"), 0600, SQ_EINVAL, "64 hex digits" },
	{ ROUTE("client_cert = \"/c\";"), 0600, SQ_EINVAL, "belong together" },
	{ ROUTE("from = 3;"), 0600, SQ_EINVAL, "a string or a list of strings" },
	{ ROUTE("from = (\"a\", 3);"), 0600, SQ_EINVAL, "must hold strings only" },
	{ ROUTE("retry_min = \"3h\";"), 0600, SQ_EINVAL, "'retry_max' is shorter" },
};

START_TEST(bad_files)
{
	struct sq_config *c = NULL;
	char path[256];
	enum sq_err e;

	write_file(path, bad[_i].text, bad[_i].mode);
	err = (struct sq_error){ 0 };
	e = sq_config_load(path, &c, &err);
	ck_assert_msg(e == bad[_i].code && strstr(err.text, bad[_i].words) && strstr(err.text, path) && !c,
		"%s gave %s: %s", bad[_i].text, sq_err_name(e), err.text);
}
END_TEST

START_TEST(secret_file_of_others)
{
	struct sq_config *c = NULL;
	char path[256], secret[256], text[600];

	write_file(secret, "hunter2\n", 0640);
	snprintf(text, sizeof(text), "routes = ( { name = \"a\"; server = \"smtps://h\"; user = \"u\"; password_file = \"%s\"; } );", secret);
	write_file(path, text, 0644);
	ck_assert_int_eq(sq_config_load(path, &c, &err), SQ_EPERM);
	ck_assert_ptr_nonnull(strstr(err.text, "chmod 600"));
	ck_assert_int_eq(chmod(secret, 0600), 0);
	ck_ok(sq_config_load(path, &c, &err), err);
	sq_config_free(c);
	if (geteuid() == 0) {
		ck_assert_int_eq(chown(path, 12345, 12345), 0);
		ck_assert_int_eq(sq_config_load(path, &c, &err), SQ_EPERM);
		ck_assert_ptr_nonnull(strstr(err.text, "belongs to uid 12345"));
	}
}
END_TEST

static const char *const loopback[] = { "127.0.0.1", "127.9.9.9:2525", "localhost", "LocalHost:25", "[::1]:25" };

START_TEST(clear_text_login_to_this_machine)
{
	struct sq_config *c = NULL;
	char path[256], text[256];

	snprintf(text, sizeof(text), "routes = ( { name = \"a\"; server = \"smtp://%s\"; tls = \"none\"; user = \"u\"; password = \"p\"; } );", loopback[_i]);
	write_file(path, text, 0600);
	ck_ok(sq_config_load(path, &c, &err), err);
	sq_config_free(c);
}
END_TEST

static const struct { const char *route; bool local; } locals[] = {
	{ "server = \"smtp://127.0.0.1:25\"", true },
	{ "server = \"smtps://[::1]\"; imap = \"imaps://[::1]:993/\"", true },
	{ "server = \"smtps://localhost\"; imap = \"imaps://127.1.2.3\"", true },
	{ "server = \"smtps://localhost\"; imap = \"imaps://imap.example.org\"", false },
	{ "server = \"smtps://localhost\"; proxy = \"socks5h://localhost:9050\"", false },
	{ "server = \"smtps://localhost.example.org\"", false },
	{ "server = \"smtps://mail.example.org\"; imap = \"imaps://localhost\"", false },
};

START_TEST(routes_that_need_no_network)
{
	struct sq_config *c = NULL;
	char path[256], text[256];

	snprintf(text, sizeof(text), "routes = ( { name = \"a\"; %s; } );", locals[_i].route);
	write_file(path, text, 0600);
	ck_ok(sq_config_load(path, &c, &err), err);
	ck_assert_int_eq(c->routes[0].local, locals[_i].local);
	sq_config_free(c);
}
END_TEST

/* Under sudo the environment is another user's: a folder that only begins like ours is not ours. */
START_TEST(folder_of_another)
{
	char home[256], other[300], config[400], *found = NULL;

	test_path(home, "ann");
	snprintf(other, sizeof(other), "%sa", home);
	snprintf(config, sizeof(config), "%s/sendq", other);
	ck_assert_int_eq(mkdir(home, 0700), 0);
	ck_assert_int_eq(mkdir(other, 0755), 0);
	ck_assert_int_eq(mkdir(config, 0755), 0);
	setenv("HOME", home, 1);
	setenv("XDG_CONFIG_HOME", other, 1);
	unsetenv("SENDQ_CONFIG");
	ck_assert_int_eq(sq_config_find(NULL, &found, &err), SQ_ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, config)); /* ours: it is looked into */
	if (geteuid() != 0)
		return; /* only root can give a folder away */
	ck_assert_int_eq(chown(other, 12345, 12345), 0);
	ck_assert_int_eq(sq_config_find(NULL, &found, &err), SQ_ENOENT);
	ck_assert_ptr_null(strstr(err.text, config));
}
END_TEST

START_TEST(which_file)
{
	char path[256], home[256], *found = NULL;

	write_file(path, "", 0600);
	test_path(home, "home");
	ck_assert_int_eq(mkdir(home, 0700), 0);
	setenv("HOME", home, 1);
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("SENDQ_CONFIG");
	ck_assert_int_eq(sq_config_find(NULL, &found, &err), SQ_ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, home));
	ck_assert_ptr_nonnull(strstr(err.text, "SENDQ_CONFIG (not set)"));
	setenv("SENDQ_CONFIG", path, 1);
	ck_ok(sq_config_find(NULL, &found, &err), err);
	ck_assert_str_eq(found, path);
	free(found);
	ck_assert_int_eq(sq_config_find("/nowhere/x", &found, &err), SQ_ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nowhere/x"));
}
END_TEST

static const struct { const char *text; int64_t duration, size; } units[] = {
	{ "10m", 600000, 10485760 }, { "0", 0, 0 }, { "90", 90000, 90 }, { "1h30m", 5400000, -1 }, { "5d", 432000000, -1 }, { "1w", 604800000, -1 },
	{ "25M", -1, 26214400 }, { "4G", -1, INT64_C(4294967296) }, { "64k", -1, 65536 }, { "2T", -1, INT64_C(2199023255552) }, { "", -1, -1 }, { "m", -1, -1 }, { "1h30", -1, -1 },
	{ "-1", -1, -1 }, { "99999999999999999999", -1, -1 }, { "9223372036854775807w", -1, -1 }, { "1x", -1, -1 },
};

START_TEST(units_of_words)
{
	ck_assert_int_eq(sq_parse_duration_ms(units[_i].text), units[_i].duration);
	ck_assert_int_eq(sq_parse_size(units[_i].text), units[_i].size);
}
END_TEST

/* Points in time as people write them; "now" is 2026-06-15 12:00 in the zone of the test. */
static const struct { const char *text; int64_t minutes; } whens[] = {
	{ "2h", 120 }, { "+90m", 90 }, { "1h30m", 90 }, { "18:00", 360 }, { "18:00:30", 360 }, { "11:00", 23 * 60 }, { "12:00", 24 * 60 },
	{ "2026-06-15 12:30", 30 }, { "2026-06-16T12:00", 24 * 60 }, { "@", -1 }, { "@x", -1 }, { "", -1 }, { "soon", -1 }, { "25:00", -1 }, { "1:00", -1 },
	{ "2026-06-31 12:00", -1 }, { "2026-13-01 12:00", -1 }, { "2026-06-15", -1 }, { "2026-06-15 12:00x", -1 }, { "18:60", -1 }, { "-5m", -1 },
};

START_TEST(points_in_time)
{
	int64_t now, got;
	struct tm tm = { .tm_year = 126, .tm_mon = 5, .tm_mday = 15, .tm_hour = 12 };

	setenv("TZ", "Europe/Berlin", 1);
	tzset();
	tm.tm_isdst = -1;
	now = (int64_t)mktime(&tm) * 1000;
	got = sq_parse_when(whens[_i].text, now);
	ck_assert_int_eq(got < 0 ? -1 : (got - now) / 60000, whens[_i].minutes);
	ck_assert_int_eq(sq_parse_when("@1800000000", now), INT64_C(1800000000000));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("config");
	TCase *t = tcase_create("config");

	tcase_add_test(t, shortest_file_and_its_defaults);
	tcase_add_test(t, every_setting);
	tcase_add_loop_test(t, bad_files, 0, (int)SQ_LEN(bad));
	tcase_add_test(t, secret_file_of_others);
	tcase_add_loop_test(t, clear_text_login_to_this_machine, 0, (int)SQ_LEN(loopback));
	tcase_add_loop_test(t, routes_that_need_no_network, 0, (int)SQ_LEN(locals));
	tcase_add_test(t, folder_of_another);
	tcase_add_test(t, which_file);
	tcase_add_loop_test(t, units_of_words, 0, (int)SQ_LEN(units));
	tcase_add_loop_test(t, points_in_time, 0, (int)SQ_LEN(whens));
	suite_add_tcase(s, t);
	return test_main(s);
}
