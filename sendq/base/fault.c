/*
 * Fault points of test builds: parse SENDQ_FAULT once, count hits, act. Not
 * there in releases.
 */
#include <sendq/base.h>
#include <sendq/fault.h>

#ifdef SENDQ_FAULTS

#include <errno.h>
#include <signal.h>
#include <unistd.h>

enum action { NOTHING, KILL, STOP, EXIT, FAIL_EIO, FAIL_ENOSPC };

static const char *const names[] = {
#define X(name) #name,
	SQ_FAULT_LIST(X)
#undef X
};

static struct { enum action action; int at, hits; } points[SQ_FAULT_COUNT];
static bool parsed;

static enum action
action_of(const char *word, size_t n)
{
	static const struct { const char *word; enum action action; } table[] = {
		{ "kill", KILL }, { "stop", STOP }, { "exit", EXIT }, { "eio", FAIL_EIO }, { "enospc", FAIL_ENOSPC },
	};

	for (size_t i = 0; i < SQ_LEN(table); i++)
		if (strlen(table[i].word) == n && strncmp(table[i].word, word, n) == 0)
			return table[i].action;
	sq_bug("SENDQ_FAULT: no such action '%.*s'", (int)n, word);
}

/* One "name[:n]=action". */
static void
arm(const char *item, size_t n)
{
	const char *eq = memchr(item, '=', n), *colon;
	size_t name_n;

	if (!eq)
		sq_bug("SENDQ_FAULT: '%.*s' has no action", (int)n, item);
	name_n = (size_t)(eq - item);
	colon = memchr(item, ':', name_n);
	if (colon)
		name_n = (size_t)(colon - item);
	for (size_t i = 0; i < SQ_FAULT_COUNT; i++) {
		if (strlen(names[i]) != name_n || strncmp(names[i], item, name_n) != 0)
			continue;
		points[i].action = action_of(eq + 1, n - (size_t)(eq + 1 - item));
		points[i].at = colon ? (int)strtol(colon + 1, NULL, 10) : 1;
		return;
	}
	sq_bug("SENDQ_FAULT: no such point '%.*s'", (int)name_n, item);
}

static void
parse(void)
{
	const char *spec = getenv("SENDQ_FAULT"), *program = getenv("SENDQ_FAULT_PROGRAM");

	parsed = true;
	if (!spec || (program && strcmp(program, program_invocation_short_name) != 0))
		return;
	while (*spec) {
		size_t n = strcspn(spec, ",");

		if (n > 0)
			arm(spec, n);
		spec += n + (spec[n] == ',');
	}
}

int
sq_fault_hit(enum sq_fault point)
{
	if (!parsed)
		parse();
	if (points[point].action == NOTHING || ++points[point].hits != points[point].at)
		return 0;
	switch (points[point].action) {
	case KILL:
		kill(getpid(), SIGKILL);
		break;
	case STOP:
		kill(getpid(), SIGSTOP);
		break;
	case EXIT:
		_exit(1);
	case FAIL_EIO:
		return EIO;
	case FAIL_ENOSPC:
		return ENOSPC;
	case NOTHING:
		break;
	}
	return 0;
}

#endif
