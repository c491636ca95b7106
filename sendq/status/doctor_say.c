/*
 * Findings for people, for programs, and for strangers: a report leaves out
 * who somebody is, and keeps what a fault can be found by.
 */
#include <ctype.h>
#include <unistd.h>

#include "doctor.h"

enum { SAID_MAX = 16 * 1024, CHECK_WIDTH = 28, SAYS_WIDTH = 15 };

static const char *const names[] = { [VERDICT_OK] = "ok", [VERDICT_WARNING] = "warning", [VERDICT_FAILED] = "failed", [VERDICT_SKIPPED] = "skipped" };

/* ---- without names ---- */

static bool
is_of_address(char ch)
{
	return isalnum((unsigned char)ch) || (ch && strchr(".!#$%&'*+-/=?^_`{|}~", ch)) || (unsigned char)ch >= 0x80;
}

/* `name` stands at s[i] as a word of its own. */
static bool
stands_at(const char *s, size_t i, const char *name)
{
	size_t n = strlen(name);

	return strncasecmp(s + i, name, n) == 0 && (i == 0 || !isalnum((unsigned char)s[i - 1])) && !isalnum((unsigned char)s[i + n]);
}

/* Octets at s[i] that are the name of somebody, and what stands for them. */
static size_t
name_at(const struct doctor *d, const char *s, size_t i, const char **instead)
{
	const char *user = d->route ? d->route->user : NULL;
	size_t n = 0;

	if (d->home && strncmp(s + i, d->home, strlen(d->home)) == 0 && (s[i + strlen(d->home)] == '/' || !s[i + strlen(d->home)])) {
		*instead = "~";
		return strlen(d->home);
	}
	*instead = "...";
	/* An address: its local part. */
	while ((i == 0 || !is_of_address(s[i - 1])) && is_of_address(s[i + n]))
		n++;
	if (n > 0 && s[i + n] == '@' && is_of_address(s[i + n + 1]))
		return n;
	if (user && user[0] && stands_at(s, i, user))
		return strlen(user);
	if (user && strchr(user, '@')) {
		SQ_CLEANUP(sq_freep) char *local = sq_str_dup((struct sq_str){ user, strcspn(user, "@") });

		if (local && local[0] && stands_at(s, i, local))
			return strlen(local);
	}
	return d->login && d->login[0] && stands_at(s, i, d->login) ? strlen(d->login) : 0;
}

static void
add_masked(const struct doctor *d, const char *s, struct sq_buf *out)
{
	for (size_t i = 0; s[i]; ) {
		const char *instead = NULL;
		size_t n = d->report ? name_at(d, s, i, &instead) : 0;

		if (n == 0)
			sq_buf_addc(out, s[i++]);
		else
			sq_buf_adds(out, instead);
		i += n;
	}
}

/* Heap, in one line if `lines` is false; NULL where there is nothing to say. */
static char *
masked(const struct doctor *d, const char *s, bool lines)
{
	struct sq_buf b = SQ_BUF_INIT(SAID_MAX);
	char *out = NULL;

	if (!s || !*s)
		return NULL;
	add_masked(d, s, &b);
	if (sq_buf_take(&b, &out, NULL) != SQ_OK) {
		sq_buf_fini(&b);
		return sq_str_dup(SQ_STR("(too long)"));
	}
	for (char *p = out; *p && !lines; p++)
		if (*p == '\n')
			*p = '|';
	return out;
}

/* ---- saying it ---- */

static void
say_json(struct doctor *d, const struct finding *f, const char *what, const char *words, const char *mend)
{
	struct json j = JSON_INIT;

	json_open(&j, NULL, '{');
	json_text(&j, "check", f->check);
	json_text(&j, "route", d->route ? d->route->name : NULL);
	json_text(&j, "verdict", names[f->verdict]);
	if (f->ms >= 0)
		json_int(&j, "ms", f->ms);
	else
		json_null(&j, "ms");
	json_text(&j, "what", what);
	json_text(&j, "words", words);
	json_text(&j, "mend", mend);
	json_close(&j, '}');
	json_line(&j);
	sq_buf_fini(&j.b);
}

static void
say_text(struct doctor *d, const struct finding *f, const char *what, const char *words, const char *mend)
{
	static const char *const colours[] = { [VERDICT_OK] = "\033[32m", [VERDICT_WARNING] = "\033[33m", [VERDICT_FAILED] = "\033[31m", [VERDICT_SKIPPED] = "" };
	const char *colour = d->c->colour ? colours[f->verdict] : "";
	SQ_CLEANUP(sq_buf_fini) struct sq_buf line = SQ_BUF_INIT(SAID_MAX + 64);
	char check[40];

	snprintf(check, sizeof(check), "%s%s", d->route ? "  " : "", f->check);

	doctor_waits(d, NULL);
	printf("%-18s %s%-8s%s ", check, colour, names[f->verdict], *colour ? "\033[0m" : "");
	if (f->ms >= 0)
		sq_buf_addf(&line, "%s (%lld ms)", what, (long long)f->ms);
	print_wrapped(line.n > 0 && !line.failed ? line.p : what, CHECK_WIDTH, CHECK_WIDTH);
	putchar('\n');
	if (words) {
		printf("      it says: ");
		print_wrapped(words, SAYS_WIDTH, SAYS_WIDTH);
		putchar('\n');
	}
	if (mend) {
		printf("      to mend: ");
		print_wrapped(mend, SAYS_WIDTH, SAYS_WIDTH);
		putchar('\n');
	}
}

void
doctor_waits(struct doctor *d, const char *words)
{
	if (d->c->json || !isatty(STDOUT_FILENO))
		return;
	if (d->waiting > 0)
		printf("\r%*s\r", d->waiting, "");
	d->waiting = words ? printf("  %s", words) : 0;
	fflush(stdout);
}

void
doctor_say(struct doctor *d, const struct finding *f)
{
	SQ_CLEANUP(sq_freep) char *what = masked(d, f->what, false);
	SQ_CLEANUP(sq_freep) char *words = masked(d, f->words, d->c->json);
	SQ_CLEANUP(sq_freep) char *mend = masked(d, f->mend, false);

	d->failed += f->verdict == VERDICT_FAILED;
	d->warnings += f->verdict == VERDICT_WARNING;
	if (d->c->json)
		say_json(d, f, what, words, mend);
	else
		say_text(d, f, what ? what : "", words, mend);
	fflush(stdout); /* the next check may take its time */
	if (d->visiting)
		doctor_waits(d, d->visiting);
}

void
doctor_sayf(struct doctor *d, const char *check, enum verdict v, int64_t ms, const char *mend, const char *fmt, ...)
{
	char what[1024];
	struct finding f = { check, v, ms, what, NULL, mend };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	doctor_say(d, &f);
}

void
doctor_heading(struct doctor *d, const char *words)
{
	SQ_CLEANUP(sq_freep) char *out = masked(d, words, false);

	if (d->c->json)
		return;
	putchar('\n');
	print_safe(out);
	putchar('\n');
	fflush(stdout);
}

void
doctor_summary(struct doctor *d)
{
	if (d->c->json)
		return;
	if (d->failed == 0 && d->warnings == 0)
		puts("\nAll is well.");
	else
		printf("\n%d failed, %d warning%s.\n", d->failed, d->warnings, d->warnings == 1 ? "" : "s");
}
