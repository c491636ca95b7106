/*
 * One line an event, to stderr. Under systemd the journal adds time and
 * program, so only its level prefix is written.
 */
#include <sendq/io.h>
#include <sendq/log.h>

#include <unistd.h>

static const char *name = "sendq";
static enum sq_log_level shown = SQ_LOG_INFO;
static bool journal;

void
sq_log_init(const char *program, enum sq_log_level level)
{
	name = program;
	shown = level;
	journal = getenv("JOURNAL_STREAM") != NULL && !isatty(STDERR_FILENO);
}

bool
sq_log_enabled(enum sq_log_level level)
{
	return level <= shown;
}

void
sq_log(enum sq_log_level level, const char *fmt, ...)
{
	static const char *const words[] = { "error", "warn", "info", "debug" };
	static const int syslog_levels[] = { 3, 4, 6, 7 };
	char line[2048], stamp[40];
	int64_t now;
	time_t seconds;
	struct tm tm;
	va_list ap;

	if (!sq_log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	if (journal) {
		fprintf(stderr, "<%d>%s\n", syslog_levels[level], line);
		return;
	}
	now = sq_wall_ms();
	seconds = (time_t)(now / 1000);
	gmtime_r(&seconds, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(stderr, "%s.%03dZ %s[%d] %s: %s\n", stamp, (int)(now % 1000), name, (int)getpid(), words[level], line);
}
