/*
 * The two printers: JSON that is always valid, and words for people.
 */
#include <inttypes.h>
#include <math.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "status.h"

enum { WORD_MIN = 30 };

/* ---- JSON ---- */

static void
key_of(struct json *j, const char *key)
{
	if (j->comma)
		sq_buf_addc(&j->b, ',');
	j->comma = true;
	if (key)
		sq_buf_addf(&j->b, "\"%s\":", key);
}

void
json_open(struct json *j, const char *key, char bracket)
{
	key_of(j, key);
	sq_buf_addc(&j->b, bracket);
	j->comma = false;
}

void
json_close(struct json *j, char bracket)
{
	sq_buf_addc(&j->b, bracket);
	j->comma = true;
}

/* Octets of the well-formed UTF-8 character at p, 0: none (RFC 3629 §4). */
static size_t
utf8_at(const unsigned char *p, size_t n)
{
	size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

static void
add_string(struct sq_buf *b, struct sq_str v)
{
	const unsigned char *p = (const unsigned char *)v.p;

	sq_buf_addc(b, '"');
	for (size_t i = 0; i < v.n; ) {
		size_t len = utf8_at(p + i, v.n - i);

		if (len == 0) {
			sq_buf_adds(b, "\xef\xbf\xbd");
			i++;
		} else if (p[i] == '"' || p[i] == '\\') {
			sq_buf_addf(b, "\\%c", p[i++]);
		} else if (p[i] == '\n') {
			sq_buf_adds(b, "\\n");
			i++;
		} else if (p[i] < ' ' || p[i] == 0x7f) {
			sq_buf_addf(b, "\\u%04x", p[i++]);
		} else {
			sq_buf_add(b, p + i, len);
			i += len;
		}
	}
	sq_buf_addc(b, '"');
}

void
json_str(struct json *j, const char *key, struct sq_str v)
{
	key_of(j, key);
	add_string(&j->b, v);
}

void
json_text(struct json *j, const char *key, const char *v)
{
	if (v)
		json_str(j, key, sq_str(v));
	else
		json_null(j, key);
}

void
json_int(struct json *j, const char *key, int64_t v)
{
	key_of(j, key);
	sq_buf_addf(&j->b, "%" PRId64, v);
}

void
json_real(struct json *j, const char *key, double v)
{
	key_of(j, key);
	if (isfinite(v))
		sq_buf_addf(&j->b, "%.6g", v);
	else
		sq_buf_adds(&j->b, "null");
}

void
json_bool(struct json *j, const char *key, bool v)
{
	key_of(j, key);
	sq_buf_adds(&j->b, v ? "true" : "false");
}

void
json_null(struct json *j, const char *key)
{
	key_of(j, key);
	sq_buf_adds(&j->b, "null");
}

void
json_reply(struct json *j, const char *key, const struct sq_reply *r)
{
	if (r->code == 0 && r->text.n == 0) {
		json_null(j, key);
		return;
	}
	json_open(j, key, '{');
	json_int(j, "code", r->code);
	json_text(j, "enhanced", r->enhanced);
	json_str(j, "text", r->text);
	json_close(j, '}');
}

void
json_line(struct json *j)
{
	struct sq_error err = { 0 };
	struct sq_str v;

	if (sq_buf_view(&j->b, &v, &err) == SQ_OK)
		printf("%.*s\n", (int)v.n, v.p);
	else
		fprintf(stderr, "sendq: cannot print: %s\n", err.text);
	sq_buf_clear(&j->b);
	j->comma = false;
}

static void
json_recipient(struct json *j, const struct sq_recipient *r)
{
	static const char *const waits[] = { [SQ_WAITS_OWN] = NULL, [SQ_WAITS_BETTER_LINK] = "better_link", [SQ_WAITS_FORCED] = "forced",
		[SQ_WAITS_LINK] = "link", [SQ_WAITS_PARTIAL] = "partial" };

	json_open(j, NULL, '{');
	json_text(j, "address", r->address);
	json_text(j, "state", sq_state_name(r->state));
	json_int(j, "next_try_ms", r->next_try_ms);
	json_reply(j, "reply", &r->reply);
	json_int(j, "durable_octets", r->durable_octets);
	json_int(j, "acked_octets", r->acked_octets);
	json_int(j, "state_ms", r->state_ms);
	json_int(j, "epoch", r->epoch);
	json_int(j, "unknown_copies", r->unknown_copies);
	json_text(j, "waits", waits[r->waits < SQ_LEN(waits) ? r->waits : 0]);
	json_close(j, '}');
}

static void
json_attempt(struct json *j, const struct sq_attempt *a)
{
	json_open(j, NULL, '{');
	json_text(j, "route", a->route);
	json_int(j, "started_ms", a->started_ms);
	json_int(j, "ended_ms", a->ended_ms);
	json_text(j, "phase", sq_phase_name(a->phase));
	json_int(j, "octets_sent", a->octets_sent);
	json_int(j, "octets_durable", a->octets_durable);
	json_text(j, "outcome", sq_outcome_name(a->outcome));
	json_reply(j, "reply", &a->reply);
	json_int(j, "octets_acked", a->octets_acked);
	json_close(j, '}');
}

void
json_message(struct json *j, const struct sq_message *m, bool whole)
{
	char id[SQ_ID_TEXT];

	sq_id_format(m->id, id);
	json_open(j, NULL, '{');
	json_text(j, "id", id);
	json_text(j, "message_id", m->message_id);
	json_text(j, "from", m->sender);
	json_int(j, "size", (int64_t)m->size);
	json_int(j, "submitted_ms", m->submitted_ms);
	json_bool(j, "hold", m->hold);
	json_open(j, "recipients", '[');
	for (size_t i = 0; i < m->n_recipients; i++)
		json_recipient(j, &m->recipients[i]);
	json_close(j, ']');
	if (whole) {
		json_open(j, "attempts", '[');
		for (size_t i = 0; i < m->n_attempts; i++)
			json_attempt(j, &m->attempts[i]);
		json_close(j, ']');
		json_text(j, "sha256", m->sha256[0] ? m->sha256 : NULL);
		json_text(j, "envid", m->envid);
		json_text(j, "source", m->source);
		json_bool(j, "has_content", m->has_content);
	}
	json_text(j, "subject", m->subject);
	json_text(j, "header_from", m->header_from);
	json_text(j, "route", m->route);
	json_int(j, "expires_ms", m->expires_ms);
	json_close(j, '}');
}

/* ---- for people ---- */

void
text_ago(int64_t ms, char out[32])
{
	int64_t s = ms < 0 ? 0 : ms / 1000, m = s / 60, h = m / 60;

	if (s < 60)
		snprintf(out, 32, "%" PRId64 " s", s);
	else if (m < 60)
		snprintf(out, 32, "%" PRId64 " min", m);
	else if (h < 10 && m % 60)
		snprintf(out, 32, "%" PRId64 " h %" PRId64 " min", h, m % 60);
	else if (h < 48)
		snprintf(out, 32, "%" PRId64 " h", h);
	else
		snprintf(out, 32, "%" PRId64 " d", h / 24);
}

void
text_in(const struct cli *c, int64_t at_ms, char out[48])
{
	char span[32];

	if (at_ms <= c->now_ms) {
		snprintf(out, 48, "now");
		return;
	}
	text_ago(at_ms - c->now_ms, span);
	snprintf(out, 48, "in %s", span);
}

const char *
text_waits(const struct sq_recipient *r)
{
	return r->waits == SQ_WAITS_BETTER_LINK || r->waits == SQ_WAITS_PARTIAL ? "waits for a better link, tried" : "next try";
}

void
text_size(uint64_t octets, char out[16])
{
	static const char *const units[] = { "B", "KB", "MB", "GB", "TB" };
	double v = (double)octets;
	size_t u = 0;

	while (v >= 999.5 && u + 1 < SQ_LEN(units)) {
		v /= 1000;
		u++;
	}
	snprintf(out, 16, v < 9.95 && u > 0 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

void
text_reply(const struct sq_reply *r, struct sq_buf *out)
{
	const char *end = r->text.n > 0 ? memchr(r->text.p, '\n', r->text.n) : NULL;

	if (r->code)
		sq_buf_addf(out, "%d ", r->code);
	if (r->enhanced[0])
		sq_buf_addf(out, "%s ", r->enhanced);
	sq_buf_add(out, r->text.p, end ? (size_t)(end - r->text.p) : r->text.n);
}

const char *
paint(const struct cli *c, enum sq_state s)
{
	if (!c->colour)
		return "";
	switch (s) {
	case SQ_STATE_DOUBT:
	case SQ_STATE_FAILED:
	case SQ_STATE_EXPIRED:
		return "\033[31m";
	case SQ_STATE_SENDING:
	case SQ_STATE_COMMITTING:
	case SQ_STATE_SENT:
		return "\033[32m";
	case SQ_STATE_HELD:
		return "\033[33m";
	case SQ_STATE_QUEUED:
	case SQ_STATE_REMOVED:
	case SQ_STATE_COUNT:
		break;
	}
	return "";
}

const char *
paint_link(const struct cli *c, const char *state)
{
	if (!c->colour)
		return "";
	return strcmp(state, "good") == 0 ? "\033[32m" : strcmp(state, "fair") == 0 ? "\033[33m"
		: strcmp(state, "poor") == 0 || strcmp(state, "down") == 0 ? "\033[31m" : "";
}

const char *
unpaint(const struct cli *c)
{
	return c->colour ? "\033[0m" : "";
}

void
print_safe(const char *s)
{
	for (const unsigned char *p = (const unsigned char *)(s ? s : ""); *p; p++)
		putchar(*p < ' ' || *p == 0x7f ? '?' : *p);
}

static int
terminal_columns(void)
{
	struct winsize z = { 0 };

	return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &z) == 0 ? z.ws_col : 0;
}

void
print_wrapped(const char *s, int at, int indent)
{
	int columns = terminal_columns();

	while (columns > indent + WORD_MIN && s && *s) {
		size_t n = strcspn(s, " ");
		int width = 0;

		for (size_t i = 0; i < n; i++)
			width += ((unsigned char)s[i] & 0xc0) != 0x80;
		if (at > indent && at + width > columns) {
			printf("\n%*s", indent, "");
			at = indent;
		}
		for (size_t i = 0; i < n; i++)
			putchar((unsigned char)s[i] < ' ' || s[i] == 0x7f ? '?' : s[i]);
		at += width;
		s += n;
		if (*s && at < columns)
			putchar(' ');
		at += *s != '\0';
		s += *s != '\0';
	}
	print_safe(s);
}
