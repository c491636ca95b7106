/*
 * OAuth 2.0 as a native program speaks it: refreshing (RFC 6749 §6), consent
 * on another device (RFC 8628) and in a browser with a loopback redirect
 * (RFC 8252 §7.3) and PKCE (RFC 7636). Answers are JSON, read by jansson,
 * bounded; nothing of them is trusted beyond its length and its characters.
 */
#include "oauth.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/net.h>

enum { ANSWER_MAX = 64 * 1024, BODY_MAX = 64 * 1024, PERSON_MS = 600000, LOOK_MS = 500, REQUEST_MAX = 16 * 1024, REQUEST_MS = 5000, INTERVAL_MAX_S = 120 };

/* ---- answers ---- */

/* A string member of printable ASCII that fits, else "". */
static struct sq_str
text_of(const json_t *j, const char *name, size_t max)
{
	const json_t *v = json_object_get(j, name);
	const char *s = json_string_value(v);
	size_t n = json_string_length(v);

	if (!s || n == 0 || n > max)
		return (struct sq_str){ 0 };
	for (size_t i = 0; i < n; i++)
		if (s[i] < ' ' || s[i] > '~')
			return (struct sq_str){ 0 };
	return (struct sq_str){ s, n };
}

/* A number of seconds that makes sense; some servers write it as a string. */
static uint32_t
seconds_of(const json_t *j, const char *name, uint32_t otherwise)
{
	const json_t *v = json_object_get(j, name);
	double n = json_is_string(v) ? strtod(json_string_value(v), NULL) : json_number_value(v);

	return n >= 1 && n < 1e9 ? (uint32_t)n : otherwise;
}

static void
fails(struct oauth_answer *out, enum sq_outcome outcome, const char *words)
{
	size_t n = strnlen(words, SQ_REPLY_TEXT_MAX);

	out->token = (struct sq_token){ .outcome = outcome };
	for (size_t i = 0; i < n; i++)
		out->words[i] = words[i] >= ' ' && words[i] <= '~' ? words[i] : '?';
	out->words[n] = '\0';
	out->token.words = (struct sq_str){ out->words, n };
}

/* "invalid_grant: Token has been revoked" */
static void
refused(struct oauth_answer *out, const json_t *j)
{
	struct sq_str error = text_of(j, "error", 256), more = text_of(j, "error_description", 1500);
	char words[SQ_REPLY_TEXT_MAX];

	snprintf(words, sizeof(words), "%.*s%s%.*s", (int)error.n, error.p ? error.p : "", more.n > 0 ? ": " : "", (int)more.n, more.p ? more.p : "");
	fails(out, SQ_OUTCOME_SECRET, words);
}

static struct sq_str
put_in(char *room, struct sq_str s)
{
	if (s.n > 0)
		memcpy(room, s.p, s.n);
	room[s.n] = '\0';
	return (struct sq_str){ room, s.n };
}

/* ---- asking ---- */

static void
field(struct sq_buf *b, const char *name, struct sq_str value)
{
	if (value.n == 0)
		return;
	sq_buf_addf(b, "%s%s=", b->n > 0 ? "&" : "", name);
	sq_url_escape(b, value);
}

/* The whole buffer at once, so that growing leaves no copy of a secret behind. */
static void
begin(const struct oauth *o, struct sq_buf *b, const char *grant)
{
	(void)sq_buf_reserve(b, b->max);
	field(b, "client_id", o->job->client_id);
	field(b, "client_secret", o->job->client_secret);
	field(b, "grant_type", sq_str(grant));
}

/* POST; the JSON object that came back with its status, or NULL and *out says why. */
static json_t *
ask(const struct oauth *o, struct sq_str url, const struct sq_buf *body, int *status, struct oauth_answer *out)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf answer = SQ_BUF_INIT(ANSWER_MAX);
	struct sq_https q = { .url = url, .ca_file = o->job->ca_file, .proxy = o->job->proxy, .timeout_ms = o->job->timeout_ms, .max = ANSWER_MAX - 1,
		.abandoned = o->gone, .arg = o->arg };
	enum sq_outcome outcome;
	struct sq_error err = { 0 };
	char words[256];
	json_t *j;

	(void)sq_buf_reserve(&answer, answer.max);
	if (sq_buf_view(body, &q.body, &err) != SQ_OK) {
		fails(out, SQ_OUTCOME_LOCAL, err.text);
		return NULL;
	}
	if (sq_https(&q, status, &answer, &outcome, &err) != SQ_OK) {
		fails(out, outcome, err.text);
		return NULL;
	}
	j = json_loadb(answer.n > 0 ? answer.p : "", answer.n, 0, NULL);
	if (json_is_object(j) && (*status == 200 || (*status >= 400 && *status < 500 && text_of(j, "error", 256).n > 0)))
		return j;
	json_decref(j);
	snprintf(words, sizeof(words), "the token server answered with status %d and nothing that can be used", *status);
	fails(out, *status == 429 || *status >= 500 ? SQ_OUTCOME_LOGIN_LATER : SQ_OUTCOME_PROTOCOL, words);
	return NULL;
}

/* The tokens of a good answer. */
static void
take(const json_t *j, struct oauth_answer *out)
{
	struct sq_str access = text_of(j, "access_token", SQ_TOKEN_MAX);

	if (access.n == 0) {
		fails(out, SQ_OUTCOME_PROTOCOL, "the token server's answer has no access token that can be used");
		return;
	}
	out->token = (struct sq_token){ .outcome = SQ_OUTCOME_ACCEPTED };
	out->token.access = put_in(out->access, access);
	out->token.refresh = put_in(out->refresh, text_of(j, "refresh_token", SQ_TOKEN_MAX));
	out->token.expires_s = seconds_of(j, "expires_in", 0);
}

static void
ask_for_token(const struct oauth *o, const struct sq_buf *body, struct oauth_answer *out)
{
	int status = 0;
	json_t *j = ask(o, o->job->token_url, body, &status, out);

	if (!j)
		return;
	if (status == 200)
		take(j, out);
	else
		refused(out, j);
	json_decref(j);
}

static void
refresh(const struct oauth *o, struct oauth_answer *out)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf body = SQ_BUF_INIT(BODY_MAX);

	begin(o, &body, "refresh_token");
	field(&body, "refresh_token", o->job->refresh);
	field(&body, "scope", o->job->scope);
	ask_for_token(o, &body, out);
}

/* ---- on another device ---- */

/* False: nobody waits any more. */
static bool
pause_for(const struct oauth *o, uint32_t s)
{
	int64_t until = sq_boot_ms() + (int64_t)s * 1000, left;

	while ((left = until - sq_boot_ms()) > 0) {
		if (o->gone(o->arg))
			return false;
		(void)poll(NULL, 0, left < LOOK_MS ? (int)left : LOOK_MS);
	}
	return true;
}

/* RFC 8628 §3.5. */
static void
ask_until_answered(const struct oauth *o, struct sq_str code, uint32_t interval, int64_t until, struct oauth_answer *out)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf body = SQ_BUF_INIT(BODY_MAX);

	begin(o, &body, "urn:ietf:params:oauth:grant-type:device_code");
	field(&body, "device_code", code);
	while (sq_boot_ms() < until) {
		if (!pause_for(o, interval)) {
			fails(out, SQ_OUTCOME_CANCELLED, "given up");
			return;
		}
		ask_for_token(o, &body, out);
		if (out->token.outcome == SQ_OUTCOME_ACCEPTED)
			return;
		if (out->token.outcome != SQ_OUTCOME_SECRET) /* not reached: less often */
			interval = interval * 2 < INTERVAL_MAX_S ? interval * 2 : INTERVAL_MAX_S;
		else if (sq_str_casestarts(out->token.words, SQ_STR("slow_down")))
			interval += 5;
		else if (!sq_str_casestarts(out->token.words, SQ_STR("authorization_pending")))
			return;
	}
	fails(out, SQ_OUTCOME_SECRET, "the code expired before it was used");
}

static void
device(const struct oauth *o, struct oauth_answer *out)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf body = SQ_BUF_INIT(BODY_MAX);
	struct sq_token_prompt p = { 0 };
	struct sq_str code;
	int status = 0;
	json_t *j;

	field(&body, "client_id", o->job->client_id);
	field(&body, "scope", o->job->scope);
	if (!(j = ask(o, o->job->device_url, &body, &status, out)))
		return;
	code = text_of(j, "device_code", SQ_TOKEN_MAX);
	p.code = text_of(j, "user_code", 128);
	p.url = text_of(j, "verification_uri", SQ_TOKEN_URL_MAX);
	if (p.url.n == 0) /* Google's name for it */
		p.url = text_of(j, "verification_url", SQ_TOKEN_URL_MAX);
	p.expires_s = seconds_of(j, "expires_in", 600);
	if (status != 200) {
		refused(out, j);
	} else if (code.n == 0 || p.code.n == 0 || p.url.n == 0) {
		fails(out, SQ_OUTCOME_PROTOCOL, "the answer to the request for a code has no code that can be used");
	} else {
		uint32_t interval = seconds_of(j, "interval", 5);

		o->prompt(o->arg, &p);
		ask_until_answered(o, code, interval < INTERVAL_MAX_S ? interval : INTERVAL_MAX_S,
			sq_boot_ms() + (int64_t)(p.expires_s < 3600 ? p.expires_s : 3600) * 1000, out);
	}
	json_decref(j);
}

/* ---- in a browser of this machine ---- */

struct browser {
	const struct oauth *o;
	int listener;
	char redirect[64], state[33], verifier[65];
	char code[SQ_TOKEN_URL_MAX + 1];
	char error[512];
};

static bool
listen_on_loopback(struct browser *b)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);

	b->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (b->listener < 0 || bind(b->listener, (struct sockaddr *)&a, n) < 0 || listen(b->listener, 4) < 0 ||
	    getsockname(b->listener, (struct sockaddr *)&a, &n) < 0)
		return false;
	snprintf(b->redirect, sizeof(b->redirect), "http://127.0.0.1:%u/", ntohs(a.sin_port));
	return true;
}

/* RFC 7636 §4.2: base64url of the hash of the verifier, without padding. */
static void
challenge_of(const char *verifier, char out[64])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	int len;

	if (EVP_Digest(verifier, strlen(verifier), digest, &n, EVP_sha256(), NULL) != 1)
		sq_bug("libcrypto has no SHA-256");
	len = EVP_EncodeBlock((unsigned char *)out, digest, (int)n);
	for (int i = 0; i < len; i++)
		out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i] == '=' ? '\0' : out[i];
}

static void
prompt_browser(struct browser *b)
{
	const struct sq_token_job *j = b->o->job;
	SQ_CLEANUP(sq_buf_fini) struct sq_buf query = SQ_BUF_INIT(SQ_TOKEN_URL_MAX);
	SQ_CLEANUP(sq_buf_fini) struct sq_buf url = SQ_BUF_INIT(SQ_TOKEN_URL_MAX);
	struct sq_token_prompt p = { .expires_s = PERSON_MS / 1000 };
	unsigned char random[32];
	char challenge[64] = "";

	sq_random(random, sizeof(random));
	sq_hex(random, 32, b->verifier);
	sq_random(random, 16);
	sq_hex(random, 16, b->state);
	challenge_of(b->verifier, challenge);
	field(&query, "response_type", SQ_STR("code"));
	field(&query, "client_id", j->client_id);
	field(&query, "redirect_uri", sq_str(b->redirect));
	field(&query, "scope", j->scope);
	field(&query, "state", sq_str(b->state));
	field(&query, "code_challenge", sq_str(challenge));
	field(&query, "code_challenge_method", SQ_STR("S256"));
	field(&query, "login_hint", j->login_hint);
	/* Without these Google gives no refresh token; others ignore them. */
	field(&query, "access_type", SQ_STR("offline"));
	field(&query, "prompt", SQ_STR("consent"));
	sq_buf_add_str(&url, j->auth_url);
	sq_buf_adds(&url, memchr(j->auth_url.p, '?', j->auth_url.n) ? "&" : "?");
	sq_buf_add(&url, query.p, query.n);
	if (sq_buf_view(&url, &p.url, NULL) == SQ_OK)
		b->o->prompt(b->o->arg, &p);
}

static int
hex_of(char ch)
{
	return ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : -1;
}

/* A parameter of a query, decoded; false: it is not there, does not fit or is not printable. */
static bool
parameter(const char *query, const char *name, char *out, size_t size)
{
	size_t n = strlen(name), k = 0;

	for (const char *p = query; p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL) {
		if (strncmp(p, name, n) != 0 || p[n] != '=')
			continue;
		for (p += n + 1; *p && *p != '&'; p++) {
			int ch = *p == '+' ? ' ' : *p;

			if (*p == '%' && p[1] && hex_of(p[1]) >= 0 && hex_of(p[2]) >= 0) {
				ch = hex_of(p[1]) * 16 + hex_of(p[2]);
				p += 2;
			}
			if (k + 1 >= size || ch < ' ' || ch > '~')
				return false;
			out[k++] = (char)ch;
		}
		out[k] = '\0';
		return k > 0;
	}
	return false;
}

/* The first line of what a browser sends, up to its blank line. Empty: none that can be used. */
static void
read_request(int fd, char line[REQUEST_MAX])
{
	int64_t until = sq_boot_ms() + REQUEST_MS;
	size_t n = 0;

	line[0] = '\0';
	while (sq_boot_ms() < until && n + 1 < REQUEST_MAX) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t got;

		if (poll(&p, 1, LOOK_MS) <= 0)
			continue;
		if ((got = read(fd, line + n, REQUEST_MAX - 1 - n)) <= 0)
			break;
		n += (size_t)got;
		line[n] = '\0';
		if (strstr(line, "\r\n\r\n"))
			break;
	}
	line[strcspn(line, "\r\n")] = '\0';
}

/* True: the browser came back with an answer to our question. */
static bool
answered(struct browser *b, char *line)
{
	char state[64], more[256] = "";
	char *end;

	if (strncmp(line, "GET /?", 6) != 0 || !(end = strchr(line + 6, ' ')))
		return false;
	*end = '\0';
	if (!parameter(line + 6, "state", state, sizeof(state)) || strcmp(state, b->state) != 0)
		return false;
	if (parameter(line + 6, "code", b->code, sizeof(b->code)))
		return true;
	if (!parameter(line + 6, "error", b->error, 128))
		return false;
	if (parameter(line + 6, "error_description", more, sizeof(more)))
		snprintf(b->error + strlen(b->error), sizeof(b->error) - strlen(b->error), ": %s", more);
	return true;
}

static void
respond(int fd, const char *status, const char *words)
{
	char answer[512];
	struct sq_error err;
	int n = snprintf(answer, sizeof(answer), "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\nConnection: close\r\n"
		"Cache-Control: no-store\r\n\r\n%s\n", status, strlen(words) + 1, words);

	(void)!sq_write_all(fd, answer, (size_t)n, &err);
}

/* False: nobody came. */
static bool
wait_for_browser(struct browser *b)
{
	int64_t until = sq_boot_ms() + PERSON_MS;
	static char line[REQUEST_MAX];
	bool done = false;

	while (!done && sq_boot_ms() < until && !b->o->gone(b->o->arg)) {
		struct pollfd p = { .fd = b->listener, .events = POLLIN };
		SQ_CLEANUP(sq_closep) int fd = -1;

		if (poll(&p, 1, LOOK_MS) <= 0 || (fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
			continue;
		read_request(fd, line);
		done = answered(b, line);
		sq_wipe(line, sizeof(line));
		if (!done)
			respond(fd, "404 Not Found", "Not what sendq waits for.");
		else if (b->error[0])
			respond(fd, "200 OK", "The provider said no. The terminal says more; this page can be closed.");
		else
			respond(fd, "200 OK", "Done. sendq goes on in the terminal; this page can be closed.");
	}
	return done;
}

static void
browser(const struct oauth *o, struct oauth_answer *out)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf body = SQ_BUF_INIT(BODY_MAX);
	static struct browser b;

	b = (struct browser){ .o = o, .listener = -1 };
	if (!listen_on_loopback(&b)) {
		fails(out, SQ_OUTCOME_LOCAL, "cannot listen on 127.0.0.1 for the browser");
	} else {
		prompt_browser(&b);
		if (!wait_for_browser(&b)) {
			fails(out, SQ_OUTCOME_CANCELLED, "nobody came back from the browser");
		} else if (b.error[0]) {
			fails(out, SQ_OUTCOME_SECRET, b.error);
		} else {
			begin(o, &body, "authorization_code");
			field(&body, "code", sq_str(b.code));
			field(&body, "redirect_uri", sq_str(b.redirect));
			field(&body, "code_verifier", sq_str(b.verifier));
			ask_for_token(o, &body, out);
		}
	}
	sq_closep(&b.listener);
	sq_wipe(&b, sizeof(b));
}

void
oauth_run(const struct oauth *o, struct oauth_answer *out)
{
	switch (o->job->kind) {
	case SQ_TOKEN_REFRESH:
		refresh(o, out);
		return;
	case SQ_TOKEN_DEVICE:
		device(o, out);
		return;
	case SQ_TOKEN_BROWSER:
		browser(o, out);
		return;
	}
}
