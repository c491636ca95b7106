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
	{ "sendmail|-oA|/etc/aliases|-oMr|smtp|-z|x|a", "to=a" },
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
	{ "sendmail|-qp1h", "flush" },
	{ "sendmail|-qRexample.org", "flush q2=example.org" },
	{ "sendmail|-q!S|ann", "flush q3=!ann" },
	{ "sendmail|-qI1000", "flush q1=1000" },
	{ "runq", "flush" },
	{ "sendmail|-bv|a@b", "verify to=a@b" },
	{ "sendmail|-bpc", "count" },
	{ "sendmail|-bC", "check" },
	{ "sendmail|-O|NotBefore=@4000000000|-O|deadline=@4000000001|a", "at=4000000000 until=4000000001 to=a" },
	{ "sendmail|-ODeadline=@4000000001|-O|Whatever=1|-O|AliasFile=/x|a", "until=4000000001 to=a" },
	{ "sendmail|-O|NotBefore=soon|a", "!soon" },
	{ "sendmail|-O|NotBefore=@1|a", "!over" },
	{ "sendmail|-O|NotBefor=2h|a", "!NotBefore" },
	{ "sendmail|-O|Duplicates=perhaps|a", "!perhaps" },
	{ "sendmail|-Mrm|1000", "!sendq flush" },
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
	static const char *const modes[] = { "", "list ", "init ", "flush ", "done ", "smtp ", "verify", "count ", "check " };

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
	if (a->flush_by != FLUSH_ALL)
		sq_buf_addf(b, "q%d=%s%s", (int)a->flush_by, a->flush_inverse ? "!" : "", a->flush_text);
	if (a->not_before_ms)
		sq_buf_addf(b, " at=%lld", (long long)a->not_before_ms / 1000);
	if (a->deadline_ms)
		sq_buf_addf(b, " until=%lld", (long long)a->deadline_ms / 1000);
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

/*
 * Every option of the manuals: LSB 5 (sendmail), Postfix 3.7 sendmail(1), Exim 4.96 exim(8), sendmail 8.17 sendmail(8).
 * Taken, ignored or refused with a reason; none is unknown, none is taken for a recipient.
 */
static const char *const manuals[] = {
	/* LSB */
	"-bm", "-bp", "-bs", "-Fname", "-fname", "-i", "-odb", "-odq", "-oem", "-oep", "-oeq", "-oew", "-oi", "-om", "-t",
	/* Postfix */
	"-Am", "-Ac", "-B7BIT", "-bd", "-bH", "-bh", "-bi", "-bl", "-bv", "-C/dir", "-G", "-h5", "-I", "-Llabel", "-m", "-Nnever", "-n", "-oA/x",
	"-OA=b", "-o7", "-o8", "-ox", "-q", "-q10m", "-qIid", "-qRsite", "-qSsite", "-ra@b", "-Rfull", "-U", "-Vid", "-v", "-X/log", "-XV", "-XVxy",
	/* sendmail */
	"-ba", "-bC", "-bD", "-bP", "-bt", "-D/log", "-d0.1", "-E", "-pUUCP:host", "-qf", "-qp5m", "-qGname", "-q!Iid", "-qQtext", "-q!Qtext", "-q!Rto",
	"-q!Sfrom", "-Q", "-Qwhy", "-s", "-T3d", "-c", "-em", "-x",
	/* Exim */
	"--help", "--version", "-bdf", "-be", "-bem/x", "-bF/x", "-bf/x", "-bfdx", "-bflx", "-bfpx", "-bfsx", "-bh1.2.3.4", "-bhc1.2.3.4", "-bI:dscp",
	"-bI:help", "-bI:sieve", "-bmalware/x", "-bnq", "-bpa", "-bpc", "-bpr", "-bpra", "-bpru", "-bpu", "-brt", "-brw", "-bS", "-bV", "-bvs", "-bw",
	"-DX=y", "-dd", "-dropcr", "-ex", "-M", "-Mar", "-MC", "-MCA", "-MCD", "-MCd", "-MCG", "-MCK", "-MCL", "-MCP", "-MCp", "-MCQ", "-MCq", "-MCr",
	"-MCS", "-MCs", "-MCT", "-MCt", "-Mc", "-Mes", "-Mf", "-MG", "-Mg", "-Mmad", "-Mmd", "-Mrm", "-Mset", "-Mt", "-Mvb", "-Mvc", "-Mvh", "-Mvl",
	"-oB1", "-odd", "-odf", "-odi", "-odqr", "-odqs", "-oee", "-oitrue", "-oMaX", "-oMaaX", "-oMaiX", "-oMasX", "-oMiX", "-oMmX", "-oMrX", "-oMsX",
	"-oMtX", "-oo", "-oP/x", "-oPX", "-or5m", "-os5m", "-ov", "-oX25", "-oY", "-pd", "-ps", "-qq", "-qi", "-qff", "-ql", "-Sx", "-ti",
	"-tls-on-connect", "-Tqt", "-zx",
};

START_TEST(manual)
{
	char program[] = "sendmail", word[32], *argv[] = { program, word, NULL };
	struct sq_error err = { 0 };
	struct arguments a;
	enum sq_err e;

	snprintf(word, sizeof(word), "%s", manuals[_i]);
	if (!freopen("/dev/null", "w", stdout)) /* --help */
		ck_abort();
	e = sq_options_parse(2, argv, &a, &err);
	ck_assert_msg(e == SQ_OK || e == SQ_EPERM, "%s: %s", word, err.text);
	ck_assert_int_eq(e == SQ_OK ? a.n_recipients : 0, 0);
}
END_TEST

START_TEST(long_names)
{
	const struct long_option *o = &sq_long_options[_i];
	char program[] = "sendmail", flag[] = "-O", word[64], *argv[] = { program, flag, word, NULL };
	struct sq_error err = { 0 };
	struct arguments a;

	ck_assert(o->help && o->help[0]);
	snprintf(word, sizeof(word), "%s=%s", o->name, o->id == LONG_IGNORED || o->id == LONG_DOTS ? "true" : o->id == LONG_DUPLICATES ? "ask" : "2h");
	ck_ok(sq_options_parse(3, argv, &a, &err), err);
	ck_assert(a.ignore_dots == (o->id == LONG_DOTS) && (a.not_before_ms > 0) == (o->id == LONG_NOT_BEFORE) && (a.deadline_ms > 0) == (o->id == LONG_DEADLINE) &&
		(a.duplicates == SQ_OWN_ASK) == (o->id == LONG_DUPLICATES));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("submit_options");
	TCase *t = tcase_create("options");

	tcase_add_loop_test(t, command_line, 0, SQ_LEN(rows));
	tcase_add_loop_test(t, manual, 0, SQ_LEN(manuals));
	tcase_add_loop_test(t, long_names, 0, (int)sq_n_long_options);
	tcase_add_loop_test(t, table_holds, 0, (int)sq_n_options);
	suite_add_tcase(s, t);
	return test_main(s);
}
