/*
 * Lines of Postfix (syslog's or its own file's form) and of Exim's main log.
 *
 * Postfix names a message by a queue id: smtpd ties it to a process, cleanup
 * to the Message-ID, and qmgr speaks of it once it is in the queue: that is
 * the acceptance. cleanup's line alone is none: it is written while the
 * content still comes in. Exim writes one line, "<=", when it has accepted.
 */
#include "logread.h"

#include <ctype.h>

void
logread_init(struct logread *l, const struct logread_question *q)
{
	memset(l, 0, sizeof(*l));
	l->q = *q;
}

/* ---- times ---- */

static int
number(const char *p, size_t n)
{
	int v = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)p[i]) && !(p[i] == ' ' && v == 0))
			return -1;
		v = v * 10 + (p[i] == ' ' ? 0 : p[i] - '0');
	}
	return v;
}

/* "HH:MM:SS" */
static bool
clock_of(const char *p, struct tm *tm)
{
	tm->tm_hour = number(p, 2);
	tm->tm_min = number(p + 3, 2);
	tm->tm_sec = number(p + 6, 2);
	return p[2] == ':' && p[5] == ':' && tm->tm_hour >= 0 && tm->tm_hour < 24 && tm->tm_min >= 0 && tm->tm_min < 60 && tm->tm_sec >= 0 && tm->tm_sec < 61;
}

/* Behind the seconds: a fraction, then a zone or none (local time). */
static int64_t
with_zone(const char *p, const char *end, struct tm *tm)
{
	int64_t ms = 0, scale = 100;
	int hours, minutes;

	if (p < end && *p == '.')
		for (p++; p < end && isdigit((unsigned char)*p); p++, scale /= 10)
			ms += (*p - '0') * scale;
	if (p < end && *p == 'Z')
		return (int64_t)timegm(tm) * 1000 + ms;
	if (end - p > 1 && *p == ' ' && (p[1] == '+' || p[1] == '-'))
		p++; /* Exim's log_timezone */
	if (end - p >= 5 && (*p == '+' || *p == '-')) {
		int sign = *p == '-' ? -1 : 1;
		bool colon = p[3] == ':';

		hours = number(p + 1, 2);
		minutes = end - p >= 5 + colon ? number(p + 3 + colon, 2) : -1;
		if (hours >= 0 && minutes >= 0)
			return ((int64_t)timegm(tm) - sign * (hours * 3600 + minutes * 60)) * 1000 + ms;
	}
	tm->tm_isdst = -1;
	return (int64_t)mktime(tm) * 1000 + ms;
}

/* "Nov 26 05:21:20": the year in which that was, as seen from now. */
static int64_t
without_year(const char *p, const char *end, int64_t now_ms)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t now = (time_t)(now_ms / 1000);
	struct tm tm = { 0 }, today;
	int64_t at;

	if (end - p < 15 || p[3] != ' ' || p[6] != ' ' || !localtime_r(&now, &today))
		return 0;
	for (tm.tm_mon = 0; tm.tm_mon < 12 && memcmp(months + 3 * (size_t)tm.tm_mon, p, 3) != 0; tm.tm_mon++)
		;
	tm.tm_mday = number(p + 4, 2);
	if (tm.tm_mon == 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || !clock_of(p + 7, &tm))
		return 0;
	tm.tm_year = today.tm_year;
	tm.tm_isdst = -1;
	at = (int64_t)mktime(&tm) * 1000;
	if (at > now_ms + INT64_C(86400000)) {
		struct tm before = { .tm_year = today.tm_year - 1, .tm_mon = tm.tm_mon, .tm_mday = tm.tm_mday, .tm_hour = tm.tm_hour,
			.tm_min = tm.tm_min, .tm_sec = tm.tm_sec, .tm_isdst = -1 };

		at = (int64_t)mktime(&before) * 1000;
	}
	return at;
}

int64_t
logread_time(struct sq_str line, int64_t now_ms)
{
	const char *p = line.p, *end = line.p + line.n;
	struct tm tm = { 0 };

	if (line.n < 15)
		return 0;
	if (!isdigit((unsigned char)p[0]))
		return without_year(p, end, now_ms);
	if (line.n < 19 || p[4] != '-' || p[7] != '-' || (p[10] != ' ' && p[10] != 'T') || !clock_of(p + 11, &tm))
		return 0;
	tm.tm_year = number(p, 4) - 1900;
	tm.tm_mon = number(p + 5, 2) - 1;
	tm.tm_mday = number(p + 8, 2);
	if (tm.tm_year < 70 || tm.tm_mon < 0 || tm.tm_mon > 11 || tm.tm_mday < 1 || tm.tm_mday > 31)
		return 0;
	return with_zone(p + 19, end, &tm);
}

/* ---- words ---- */

static bool
holds(struct sq_str s, const char *word)
{
	return s.p && memmem(s.p, s.n, word, strlen(word)) != NULL;
}

static bool
begins(struct sq_str s, const char *word)
{
	size_t n = strlen(word);

	return s.n >= n && memcmp(s.p, word, n) == 0;
}

static void
printable(struct sq_str line, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < line.n && n + 1 < size; i++)
		out[n++] = (unsigned char)line.p[i] < ' ' || line.p[i] == 0x7f ? '?' : line.p[i];
	out[n] = '\0';
}

static void
keep_quote(struct logread *l, struct sq_str line)
{
	printable(line, l->quote, sizeof(l->quote));
}

static bool
in_time(const struct logread *l, struct sq_str line)
{
	int64_t at = logread_time(line, l->q.now_ms);

	return at > 0 && at >= l->q.since_ms - LOGREAD_SLACK_MS;
}

/* ---- Postfix ---- */

/* "QID: " in front: the id and what follows. */
static bool
queue_id(struct sq_str *text, char qid[24])
{
	size_t n = 0;

	while (n < text->n && n < 23 && isalnum((unsigned char)text->p[n]))
		n++;
	if (n < 5 || n + 2 > text->n || text->p[n] != ':' || text->p[n + 1] != ' ')
		return false;
	memcpy(qid, text->p, n);
	qid[n] = '\0';
	text->p += n + 2;
	text->n -= n + 2;
	return true;
}

static int
ours(const struct logread *l, const char *qid)
{
	for (size_t i = 0; i < l->n_ours; i++)
		if (strcmp(l->ours[i].qid, qid) == 0)
			return (int)i;
	return -1;
}

/* The session that took it in; NULL: not seen. */
static const struct logread_session *
session_of(const struct logread *l, const char *qid)
{
	for (size_t i = 0; i < SQ_LEN(l->sessions); i++)
		if (l->sessions[i].pid && strcmp(l->sessions[i].qid, qid) == 0)
			return &l->sessions[i];
	return NULL;
}

static void
mark_cut(struct logread *l, int i, const struct logread_session *s)
{
	l->ours[i].state = QID_CUT;
	if (!l->accepted)
		snprintf(l->quote, sizeof(l->quote), "%s", s->cut);
}

static void
smtpd_line(struct logread *l, struct sq_str line, long pid, struct sq_str text)
{
	struct logread_session *s = &l->sessions[(size_t)pid % SQ_LEN(l->sessions)];
	bool lost = begins(text, "lost connection after ") || begins(text, "timeout after ");
	char qid[24];
	int i;

	if (queue_id(&text, qid) && begins(text, "client=")) {
		*s = (struct logread_session){ .pid = pid };
		memcpy(s->qid, qid, sizeof(qid));
		return;
	}
	if (s->pid != pid || s->over || (!lost && !begins(text, "disconnect from ")))
		return;
	s->over = true;
	/* Behind the end of the content it may be in the queue all the same: qmgr says so, or nobody does. */
	if (!lost || holds(text, "END-OF-MESSAGE"))
		return;
	printable(line, s->cut, sizeof(s->cut));
	if ((i = ours(l, s->qid)) >= 0 && l->ours[i].state == QID_OPEN)
		mark_cut(l, i, s);
}

static void
cleanup_line(struct logread *l, struct sq_str line, const char *qid, struct sq_str text)
{
	const struct logread_session *s;
	int i = ours(l, qid);

	if (i >= 0 && (begins(text, "milter-reject: ") || begins(text, "reject: "))) {
		l->ours[i].state = QID_REFUSED;
		keep_quote(l, line);
	}
	if (i >= 0 || !begins(text, "message-id=") || !sq_str_eq((struct sq_str){ text.p + 11, text.n - 11 }, sq_str(l->q.message_id)))
		return;
	if (!in_time(l, line)) {
		l->earlier = true;
	} else if (l->n_ours == LOGREAD_QIDS) {
		l->too_many = true;
	} else {
		snprintf(l->ours[l->n_ours].qid, sizeof(l->ours[0].qid), "%s", qid);
		l->ours[l->n_ours++].state = QID_OPEN;
		if ((s = session_of(l, qid)) != NULL && s->cut[0])
			mark_cut(l, (int)l->n_ours - 1, s);
	}
}

/* "… postfix/submission/smtpd[123]: text": the service, its process, the text. */
static bool
postfix_line(struct sq_str line, char service[24], long *pid, struct sq_str *text)
{
	const char *close = memmem(line.p, line.n, "]: ", 3), *open, *name;
	size_t n = 0;

	if (!close || !(open = memrchr(line.p, '[', (size_t)(close - line.p))) || number(open + 1, (size_t)(close - open - 1)) < 1)
		return false;
	*pid = number(open + 1, (size_t)(close - open - 1));
	for (name = open; name > line.p && name[-1] != '/' && name[-1] != ' '; name--)
		n++;
	if (name == line.p || name[-1] != '/' || n == 0 || n >= 24)
		return false;
	memcpy(service, name, n);
	service[n] = '\0';
	*text = (struct sq_str){ close + 3, line.n - (size_t)(close + 3 - line.p) };
	return true;
}

static void
take_postfix(struct logread *l, struct sq_str line, const char *service, long pid, struct sq_str text)
{
	char qid[24];
	int i;

	l->postfix = true;
	if (strcmp(service, "smtpd") == 0) {
		smtpd_line(l, line, pid, text);
		return;
	}
	if (!queue_id(&text, qid))
		return;
	if (strcmp(service, "cleanup") == 0)
		cleanup_line(l, line, qid, text);
	else if ((i = ours(l, qid)) >= 0 && !l->accepted && (begins(text, "to=<") || (strcmp(service, "qmgr") == 0 && begins(text, "from=<")))) {
		l->accepted = true;
		keep_quote(l, line);
	}
}

/* ---- Exim ---- */

/* "2026-11-26 05:21:20 [123] 1tXyzA-000123-AB <= …": behind time, process and id. */
static bool
exim_line(struct sq_str line, struct sq_str *text)
{
	static const char shape[] = "dddd-dd-dd dd:dd:dd";

	if (line.n < sizeof(shape))
		return false;
	for (size_t i = 0; shape[i]; i++)
		if (shape[i] == 'd' ? !isdigit((unsigned char)line.p[i]) : line.p[i] != shape[i])
			return false;
	*text = (struct sq_str){ line.p + sizeof(shape) - 1, line.n - sizeof(shape) + 1 };
	return true;
}

static void
take_exim(struct logread *l, struct sq_str line, struct sq_str text)
{
	const char *id = NULL, *bare = l->q.message_id + 1;
	size_t n = strlen(bare) - 1; /* without its bracket */
	char name[300];

	l->exim = true;
	if (holds(text, " <= ")) {
		for (const char *p = text.p; (p = memmem(p, (size_t)(text.p + text.n - p), " id=", 4)) != NULL; p += 4)
			id = p + 4;
		if (!id || (size_t)(text.p + text.n - id) < n || memcmp(id, bare, n) != 0 || (id + n < text.p + text.n && id[n] != ' '))
			return;
		if (!in_time(l, line)) {
			l->earlier = true;
		} else if (!l->accepted) {
			l->accepted = true;
			keep_quote(l, line);
		}
		return;
	}
	/* Ours by the EHLO name, which nobody else has. */
	if (!l->q.ehlo[0] || !holds(text, "connection lost after final dot"))
		return;
	snprintf(name, sizeof(name), "(%s)", l->q.ehlo);
	if ((holds(text, name) || (snprintf(name, sizeof(name), "H=%s ", l->q.ehlo) > 0 && holds(text, name))) && in_time(l, line) && !l->accepted) {
		l->ended = true;
		keep_quote(l, line);
	}
}

/* ---- all ---- */

void
logread_line(struct logread *l, struct sq_str line)
{
	char service[24];
	struct sq_str text;
	long pid;
	size_t n = line.n < sizeof(l->last_line) - 1 ? line.n : sizeof(l->last_line) - 1;

	if (!line.p || line.n == 0)
		return;
	if (isdigit((unsigned char)line.p[0]) || isupper((unsigned char)line.p[0])) {
		memcpy(l->last_line, line.p, n);
		l->last_line[n] = '\0';
		if (l->first_ms == 0)
			l->first_ms = logread_time(line, l->q.now_ms);
	}
	if (postfix_line(line, service, &pid, &text))
		take_postfix(l, line, service, pid, text);
	else if (exim_line(line, &text))
		take_exim(l, line, text);
}

enum logread_answer
logread_answer(struct logread *l, char quote[512])
{
	bool open = l->too_many, cut = l->ended;

	l->last_ms = logread_time(sq_str(l->last_line), l->q.now_ms);
	for (size_t i = 0; i < l->n_ours; i++) {
		open |= l->ours[i].state == QID_OPEN;
		cut |= l->ours[i].state != QID_OPEN;
	}
	if (l->accepted) {
		snprintf(quote, 512, "%s", l->quote);
		return LOGREAD_POSITIVE;
	}
	if (!l->postfix && !l->exim)
		snprintf(quote, 512, "it has no line of Postfix or Exim");
	else if (open)
		snprintf(quote, 512, "it has the message and does not say what became of it");
	else if (l->first_ms == 0 || l->first_ms > l->q.since_ms)
		snprintf(quote, 512, "it does not reach back to when the message was sent");
	else if (l->last_ms < l->q.cut_ms - LOGREAD_SLACK_MS)
		snprintf(quote, 512, "it ends before the connection broke");
	else if (l->earlier)
		snprintf(quote, 512, "it has this Message-ID from an earlier time");
	else if (cut) {
		snprintf(quote, 512, "%s", l->quote);
		return LOGREAD_ENDED;
	} else {
		snprintf(quote, 512, "it shows no acceptance");
		return LOGREAD_NEGATIVE;
	}
	return LOGREAD_UNKNOWN;
}
