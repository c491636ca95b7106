/* submit/options.c: command lines as callers really write them, and the table against itself. */
#include "harness.h"

#include "../../sendq/submit/options.h"

enum { WORDS = 12 };

/* A command line, parted by '|', and what it means: flags, then f= F= C= V= N= R= and recipients; or '!' and words. */
static const struct {
	const char *line, *want;
} rows[] = {
	/* callers: cron, PHP, mutt, git, emacs, unattended-upgrades */
	{ "sendmail|-FCronDaemon|-i|-B8BITMIME|-oem|root", "i8 F=CronDaemon to=root" },
	{ "sendmail|-t|-i", "ti" },
	{ "sendmail|-oem|-oi|-f|a@b|-N|failure,delay|-R|hdrs|--|-x@y|c@d", "i f=a@b N=12 R=2 to=-x@y,c@d" },
	{ "sendmail|-i|a@b|c@d", "i to=a@b,c@d" },
	{ "sendmail|-oi|-f|a@b|-t", "ti f=a@b" },
	{ "/usr/sbin/sendmail|-oi|-t", "ti" },
	/* every way to attach */
	{ "sendmail|-fa@b|c", "f=a@b to=c" },
	{ "sendmail|-r|a@b|c", "f=a@b to=c" },
	{ "sendmail|-f||c", "f= to=c" },
	{ "sendmail|-f|<>|c", "f=<> to=c" },
	{ "sendmail|-ti", "ti" },
	{ "sendmail|-tiv", "tiv" },
	{ "sendmail|-tif|a@b|c", "ti f=a@b to=c" },
	{ "sendmail|-tfa@b|c", "t f=a@b to=c" },
	{ "sendmail|-itF|A B|c", "ti F=A B to=c" },
	{ "sendmail|--config=/x|-t", "t C=/x" },
	{ "sendmail|--config|/x|-t", "t C=/x" },
	{ "sendmail|-C/x|-t", "t C=/x" },
	{ "sendmail|-V|id|-N|NEVER|a", "V=id N=1 to=a" },
	{ "sendmail|-Rfull|-N|Success,failure,delay|a", "N=14 R=1 to=a" },
	{ "sendmail|-O|IgnoreDots=true|-O|DeliveryMode=b|a", "i to=a" },
	/* taken and ignored, their arguments with them */
	{ "sendmail|-Am|-Ac|-G|-h|5|-L|tag|-U|-X|/log|-d0.1|-d|-m|-n|-pSMTP|-x|-em|-odb|-odq|-oee|-oA/etc/aliases|-c|-D|/x|a", "to=a" },
	{ "sendmail|-bm|a", "to=a" },
	/* modes */
	{ "sendmail|-bp", "list" },
	{ "mailq", "list" },
	{ "/usr/bin/mailq|-v", "list v" },
	{ "newaliases", "init" },
	{ "sendmail|-bi", "init" },
	{ "sendmail|-I", "init" },
	{ "sendmail|-q", "flush" },
	{ "sendmail|-q30m", "flush" },
	{ "sendmail|-qf", "flush" },
	/* refused */
	{ "sendmail|-bs", "smtp" },
	{ "sendmail|-bd", "!sendqd" },
	{ "sendmail|-bz", "!-bz" },
	{ "sendmail|-t|--no-such", "!--no-such" },
	{ "sendmail|--configure", "!--configure" },
	{ "sendmail|-tY", "!-tY" },
	{ "sendmail|-f", "!-f" },
	{ "sendmail|-tf", "!-f" },
	{ "sendmail|--config", "!--config" },
	{ "sendmail|-N|never,delay|a", "!never" },
	{ "sendmail|-N||a", "!none of" },
	{ "sendmail|-N|delay,|a", "!none of" },
	{ "sendmail|-R|half|a", "!half" },
	{ "sendmail|-B|BINARYMIME|a", "!BINARYMIME" },
	{ "sendmail|-V|a b|a", "!blank" },
	{ "sendmail|-V||a", "!1 to 100" },
};

static void
show(const struct arguments *a, struct sq_buf *b)
{
	static const char *const modes[] = { "", "list ", "init ", "flush ", "done ", "smtp " };

	sq_buf_adds(b, modes[a->mode]);
	sq_buf_addf(b, "%s%s%s%s", a->want_recipients ? "t" : "", a->ignore_dots ? "i" : "", a->eightbit ? "8" : "", a->verbose ? "v" : "");
	if (a->sender)
		sq_buf_addf(b, " f=%s", a->sender);
	if (a->full_name)
		sq_buf_addf(b, " F=%s", a->full_name);
	if (a->config)
		sq_buf_addf(b, " C=%s", a->config);
	if (a->envid)
		sq_buf_addf(b, " V=%s", a->envid);
	if (a->notify)
		sq_buf_addf(b, " N=%d", a->notify);
	if (a->ret)
		sq_buf_addf(b, " R=%d", (int)a->ret);
	for (int i = 0; i < a->n_recipients; i++)
		sq_buf_addf(b, "%s%s", i ? "," : " to=", a->recipients[i]);
}

START_TEST(command_line)
{
	char *line = sq_str_dup(sq_str(rows[_i].line)), *argv[WORDS * 3] = { NULL };
	struct sq_buf got = SQ_BUF_INIT(4096);
	struct sq_error err = { 0 };
	struct arguments a;
	const char *want = rows[_i].want;
	int argc = 0;
	enum sq_err e;

	ck_assert_ptr_nonnull(line);
	for (char *p = line; p;) {
		ck_assert_int_lt(argc, (int)SQ_LEN(argv) - 1);
		argv[argc++] = p;
		p = strchr(p, '|');
		if (p)
			*p++ = '\0';
	}
	e = sq_options_parse(argc, argv, &a, &err);
	if (want[0] == '!') {
		ck_assert_int_ne(e, SQ_OK);
		ck_assert_msg(strstr(err.text, want + 1) != NULL, "'%s' lacks '%s'", err.text, want + 1);
	} else {
		const char *text;

		ck_ok(e, err);
		show(&a, &got);
		for (text = got.p ? got.p : ""; *text == ' ';)
			text++;
		while (got.n > 0 && got.p[got.n - 1] == ' ')
			got.p[--got.n] = '\0';
		ck_assert_str_eq(text, want);
	}
	sq_buf_fini(&got);
	free(line);
}
END_TEST

/* Each row of the table: taken, refused with its own words, or ignored; and help says so. */
START_TEST(table_holds)
{
	const struct option *o = &sq_options[_i];
	char word[64], program[] = "sendmail", value[] = "x", *argv[] = { program, word, value, NULL };
	struct sq_error err = { 0 };
	struct arguments a;

	ck_assert(o->name[0] == '-' && o->help && o->help[0]);
	for (size_t k = 0; k < sq_n_options; k++)
		ck_assert(k == (size_t)_i || strcmp(sq_options[k].name, o->name) != 0);
	snprintf(word, sizeof(word), "%s", o->name);
	if (o->use == OPTION_REFUSED) {
		ck_assert_int_eq(sq_options_parse(2, argv, &a, &err), SQ_EPERM);
		ck_assert_ptr_nonnull(strstr(err.text, o->help));
	} else if (o->use == OPTION_IGNORED) {
		ck_ok(sq_options_parse(3, argv, &a, &err), err);
		ck_assert_int_eq(a.mode, MODE_DELIVER);
		ck_assert_int_eq(a.n_recipients, o->argument == ARGUMENT_NEEDED ? 0 : 1);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("submit_options");
	TCase *t = tcase_create("options");

	tcase_add_loop_test(t, command_line, 0, SQ_LEN(rows));
	tcase_add_loop_test(t, table_holds, 0, (int)sq_n_options);
	suite_add_tcase(s, t);
	return test_main(s);
}
