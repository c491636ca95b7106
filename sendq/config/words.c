/*
 * Durations, sizes, points in time and the nearest name: the words of
 * configuration files and command lines.
 */
#include <sendq/config.h>

/* Sum of number-unit pairs; a bare number counts in `bare`. -1: none, or too large. */
static int64_t
parse_units(const char *s, const char *units, const int64_t *values, int64_t bare)
{
	int64_t sum = 0;

	if (!s || !*s)
		return -1;
	while (*s) {
		int64_t n = 0, unit = bare;
		const char *digits = s, *u;

		for (; *s >= '0' && *s <= '9'; s++)
			if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *s - '0', &n))
				return -1;
		if (s == digits)
			return -1;
		if (*s) {
			if (!(u = strchr(units, *s)))
				return -1;
			unit = values[u - units];
			s++;
		} else if (digits != s && sum > 0) {
			return -1; /* "1h30" leaves open what the 30 are */
		}
		if (__builtin_mul_overflow(n, unit, &n) || __builtin_add_overflow(sum, n, &sum))
			return -1;
	}
	return sum;
}

int64_t
sq_parse_duration_ms(const char *s)
{
	static const int64_t values[] = { 1000, 60000, 3600000, 86400000, 604800000 };

	return parse_units(s, "smhdw", values, 1000);
}

int64_t
sq_parse_size(const char *s)
{
	static const int64_t values[] = { 1024, 1024, 1048576, 1048576, 1073741824, 1073741824,
		INT64_C(1099511627776), INT64_C(1099511627776) };

	return parse_units(s, "kKmMgGtT", values, 1);
}

static size_t
smallest(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* Levenshtein's distance; words longer than the row are far from everything. */
static size_t
distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b), row[64], diagonal, up;

	if (n > 60 || m > 60)
		return 100;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			up = row[j];
			row[j] = smallest(up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
			diagonal = up;
		}
	}
	return row[m];
}

const char *
sq_nearest_name(const char *word, const char *const *names)
{
	const char *best = NULL;
	size_t least = 4;

	for (size_t i = 0; names[i]; i++) {
		size_t d = distance(word, names[i]);

		if (d < least) {
			least = d;
			best = names[i];
		}
	}
	return best;
}

/* Digits, exactly n of them. -1: not so. */
static int
digits(const char **s, int n)
{
	int v = 0;

	for (int i = 0; i < n; i++, ++*s) {
		if (**s < '0' || **s > '9')
			return -1;
		v = v * 10 + (**s - '0');
	}
	return v;
}

/* "HH:MM" or "HH:MM:SS", to the end. */
static bool
clock_of(const char *s, struct tm *tm)
{
	tm->tm_hour = digits(&s, 2);
	if (tm->tm_hour < 0 || tm->tm_hour > 23 || *s++ != ':')
		return false;
	tm->tm_min = digits(&s, 2);
	tm->tm_sec = 0;
	if (tm->tm_min < 0 || tm->tm_min > 59)
		return false;
	if (*s == ':') {
		s++;
		tm->tm_sec = digits(&s, 2);
	}
	return tm->tm_sec >= 0 && tm->tm_sec <= 60 && *s == '\0';
}

static int64_t
local_ms(struct tm tm)
{
	struct tm want = tm;
	time_t t;

	tm.tm_isdst = -1;
	t = mktime(&tm);
	/* The 31st of June is none. */
	if (t == (time_t)-1 || tm.tm_mday != want.tm_mday || tm.tm_mon != want.tm_mon)
		return -1;
	return (int64_t)t * 1000;
}

int64_t
sq_parse_when(const char *s, int64_t now_ms)
{
	time_t now = (time_t)(now_ms / 1000);
	struct tm tm;
	int64_t v;

	if (*s == '@') {
		char *end;

		v = strtoll(s + 1, &end, 10);
		return s[1] >= '0' && s[1] <= '9' && *end == '\0' && v <= INT64_MAX / 1000 ? v * 1000 : -1;
	}
	if ((v = sq_parse_duration_ms(*s == '+' ? s + 1 : s)) >= 0)
		return v <= INT64_MAX - now_ms ? now_ms + v : -1;
	localtime_r(&now, &tm);
	if (strlen(s) > 10 && s[4] == '-') {
		tm.tm_year = digits(&s, 4) - 1900;
		if (tm.tm_year < 70 || *s++ != '-')
			return -1;
		tm.tm_mon = digits(&s, 2) - 1;
		if (tm.tm_mon < 0 || tm.tm_mon > 11 || *s++ != '-')
			return -1;
		tm.tm_mday = digits(&s, 2);
		if (tm.tm_mday < 1 || tm.tm_mday > 31 || (*s != ' ' && *s != 'T') || !clock_of(s + 1, &tm))
			return -1;
		return local_ms(tm);
	}
	if (!clock_of(s, &tm))
		return -1;
	v = local_ms(tm);
	if (v >= 0 && v <= now_ms) { /* tomorrow, then */
		tm.tm_mday++;
		tm.tm_isdst = -1;
		v = (int64_t)mktime(&tm) * 1000;
	}
	return v;
}
