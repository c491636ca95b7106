/*
 * sendq-logread: what the log of an own MTA says of one message. The runner
 * starts it, so that the process which decides parses no words of servers.
 * Everything comes in the environment; the answer is one line: a word, a tab,
 * a sentence. It writes no file and opens none but the log.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "logread.h"

enum { LINE_OCTETS = 8192 };

static const char *
given(const char *name)
{
	const char *v = getenv(name);

	if (!v) {
		fprintf(stderr, "sendq-logread is started by sendqd\n");
		exit(EX_USAGE);
	}
	return v;
}

/* Of longer lines only the beginning counts. */
static void
read_lines(struct logread *l, FILE *f)
{
	static char line[LINE_OCTETS];
	bool whole = true;

	while (fgets(line, sizeof(line), f)) {
		size_t n = strlen(line);
		bool begins = whole;

		whole = n > 0 && line[n - 1] == '\n';
		while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
			n--;
		if (begins)
			logread_line(l, (struct sq_str){ line, n });
	}
}

static bool
read_file(struct logread *l, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	FILE *f;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !(f = fdopen(fd, "r"))) {
		sq_closep(&fd);
		return false;
	}
	read_lines(l, f);
	sq_fclosep(&f);
	return true;
}

/* The log may have been turned over since: the one before it first. */
static bool
read_log(struct logread *l, const char *path)
{
	char before[4096];

	if ((size_t)snprintf(before, sizeof(before), "%s.1", path) < sizeof(before))
		(void)read_file(l, before);
	return read_file(l, path);
}

static bool
read_command(struct logread *l, const char *command)
{
	FILE *f = popen(command, "re");

	if (!f)
		return false;
	read_lines(l, f);
	return pclose(f) == 0;
}

int
main(void)
{
	static const char *const words[] = { [LOGREAD_UNKNOWN] = "unknown", [LOGREAD_POSITIVE] = "positive",
		[LOGREAD_NEGATIVE] = "negative", [LOGREAD_ENDED] = "ended" };
	static struct logread l;
	const char *source = given("SENDQ_LOG");
	struct logread_question q = { .message_id = given("SENDQ_LOG_MESSAGE_ID"), .ehlo = given("SENDQ_LOG_EHLO"),
		.since_ms = strtoll(given("SENDQ_LOG_SINCE"), NULL, 10), .cut_ms = strtoll(given("SENDQ_LOG_CUT"), NULL, 10),
		.now_ms = strtoll(given("SENDQ_LOG_NOW"), NULL, 10) };
	char quote[512];
	enum logread_answer answer;
	bool read;

	/* Nothing is looked for that could stand anywhere. */
	if (strlen(q.message_id) < 3 || q.message_id[0] != '<' || strpbrk(q.message_id, " \t")) {
		puts("unknown\tthis Message-ID cannot be looked for");
		return EX_OK;
	}
	logread_init(&l, &q);
	/* A command may need what a file does not: sudo, ssh's known hosts. */
	if (source[0] != '|') {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		(void)setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 0, 0 });
	}
	read = source[0] == '|' ? read_command(&l, source + 1) : read_log(&l, source);
	if (!read) {
		puts(source[0] == '|' ? "unknown\tthe command failed" : "unknown\tit cannot be read");
		return EX_OK;
	}
	answer = logread_answer(&l, quote);
	printf("%s\t%s\n", words[answer], quote);
	return EX_OK;
}
