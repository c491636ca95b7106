/*
 * One connection by libcurl (CONNECT_ONLY): name, proxy, TCP, TLS, greeting,
 * EHLO and AUTH are libcurl's; every octet behind that is ours. A handle is
 * used for one connection and never again. VERBOSE stays off: it would show
 * credentials. The CURLcode and the server's last reply are turned into an
 * outcome in one place, classify().
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/net.h>

#include "told.h"

enum { NOTSENT_LOWAT = 128 * 1024, EHLO_WAIT_STEP_MS = 500, PREFER_MS = 30000 };

struct sq_conn {
	CURL *easy;
	curl_socket_t fd;
	char error[CURL_ERROR_SIZE];
	struct sq_reply_parser parser;
	struct sq_reply last;               /* the newest complete reply; text in last_text */
	char last_text[SQ_REPLY_TEXT_MAX];
	char ehlo_text[SQ_REPLY_TEXT_MAX];
	size_t ehlo_n;
	unsigned char pin[32];
	bool pinned, pin_failed;
	bool (*abandoned)(void *);
	void *abandoned_arg;
	char peer[96];
	const char *tls;
	struct curl_slist *connect_to;      /* the address that holds a partial transfer */
	struct told told;
	bool imap;
	char imap_words[512];               /* the newest answer that says no */
};

static void
fill_reply(struct sq_reply *to, char text[SQ_REPLY_TEXT_MAX], const struct sq_reply *from)
{
	size_t n = from->text.n < SQ_REPLY_TEXT_MAX ? from->text.n : SQ_REPLY_TEXT_MAX;

	*to = *from;
	if (n > 0)
		memcpy(text, from->text.p, n);
	to->text = (struct sq_str){ text, n };
}

/* libcurl reads IMAP by itself; here it is only listened to. A greeting, and an answer that says no: "A003 NO Too many". */
static void
on_imap_line(struct sq_conn *c, struct sq_str line)
{
	const char *blank = line.n > 0 ? memchr(line.p, ' ', line.n) : NULL;
	struct sq_str rest = blank ? (struct sq_str){ blank + 1, (size_t)(line.p + line.n - blank - 1) } : (struct sq_str){ 0 };

	while (rest.n > 0 && (rest.p[rest.n - 1] == '\n' || rest.p[rest.n - 1] == '\r'))
		rest.n--;
	if (line.n > 0 && line.p[0] != '*' && line.p[0] != '+' && (sq_str_casestarts(rest, SQ_STR("NO ")) || sq_str_casestarts(rest, SQ_STR("BAD "))))
		snprintf(c->imap_words, sizeof(c->imap_words), "%.*s", (int)(rest.n < 500 ? rest.n : 500), rest.p);
	told_imap_line(&c->told, line.n > 0 && line.p[0] == '*', rest);
}

/* Every line of the server comes through here, before and after TLS. */
static size_t
on_line(char *p, size_t size, size_t n, void *arg)
{
	struct sq_conn *c = arg;
	size_t left = size * n;

	told_connected(&c->told, c->easy);
	if (c->imap) {
		on_imap_line(c, (struct sq_str){ p, left });
		return left;
	}
	while (left > 0) {
		size_t used;
		enum sq_reply_step step = sq_reply_feed(&c->parser, p, left, &used);

		if (step == SQ_REPLY_BAD) /* 334 challenges end otherwise; whatever else it is, libcurl judges it */
			return size * n;
		if (step == SQ_REPLY_DONE) {
			fill_reply(&c->last, c->last_text, &c->parser.reply);
			told_reply(&c->told, &c->last);
			if (c->last.code == 250) {
				memcpy(c->ehlo_text, c->last_text, c->last.text.n);
				c->ehlo_n = c->last.text.n;
			}
		}
		p += used;
		left -= used;
	}
	return size * n;
}

static int
on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t e)
{
	struct sq_conn *c = arg;

	(void)a, (void)b, (void)d, (void)e;
	return c->abandoned && c->abandoned(c->abandoned_arg);
}

/* The pinned certificate is the whole trust: checked inside the handshake, before any credential. */
static int
verify_pin(X509_STORE_CTX *ctx, void *arg)
{
	struct sq_conn *c = arg;
	X509 *leaf = X509_STORE_CTX_get0_cert(ctx);
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	told_certificate(&c->told, leaf, NULL);
	if (leaf && X509_digest(leaf, EVP_sha256(), digest, &n) == 1 && n == sizeof(c->pin) &&
	    memcmp(digest, c->pin, n) == 0) {
		X509_STORE_CTX_set_error(ctx, X509_V_OK);
		return 1;
	}
	c->pin_failed = true;
	X509_STORE_CTX_set_error(ctx, X509_V_ERR_APPLICATION_VERIFICATION);
	return 0;
}

/* The usual verification, and a look at what was verified. */
static int
verify_told(X509_STORE_CTX *ctx, void *arg)
{
	struct sq_conn *c = arg;
	int good = X509_verify_cert(ctx);

	told_certificate(&c->told, X509_STORE_CTX_get0_cert(ctx), good == 1 ? NULL : X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
	return good;
}

static CURLcode
on_ssl_ctx(CURL *easy, void *ctx, void *arg)
{
	struct sq_conn *c = arg;

	told_connected(&c->told, easy);
	told_handshake(&c->told, ctx);
	SSL_CTX_set_cert_verify_callback(ctx, c->pinned ? verify_pin : verify_told, c);
	return CURLE_OK;
}

static curl_socket_t
on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct sq_conn *c = arg;

	(void)purpose;
	told_name(&c->told, &a->addr);
	return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static bool
parse_pin(struct sq_str s, unsigned char out[32])
{
	size_t digits = 0;

	if (!sq_str_casestarts(s, SQ_STR("sha256:")))
		return false;
	memset(out, 0, 32);
	for (size_t i = 7; i < s.n; i++) {
		char ch = s.p[i];
		int v = ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
		      : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : -1;

		if (ch == ':')
			continue;
		if (v < 0 || digits == 64)
			return false;
		out[digits / 2] = (unsigned char)(out[digits / 2] << 4 | v);
		digits++;
	}
	return digits == 64;
}

/* libcurl takes C strings; a NUL inside one would be cut silently. */
static CURLcode
set_str(CURL *easy, CURLoption option, struct sq_str s)
{
	char *copy;
	CURLcode rc;

	if (s.n == 0)
		return CURLE_OK;
	if (memchr(s.p, 0, s.n) || !(copy = sq_str_dup(s)))
		return CURLE_BAD_FUNCTION_ARGUMENT;
	rc = curl_easy_setopt(easy, option, copy);
	sq_wipe(copy, s.n);
	free(copy);
	return rc;
}

static bool
is_bearer(struct sq_str auth)
{
	return sq_str_caseeq(auth, SQ_STR("XOAUTH2")) || sq_str_caseeq(auth, SQ_STR("OAUTHBEARER")) || sq_str_caseeq(auth, SQ_STR("OAUTH"));
}

static CURLcode
set_login(struct sq_conn *c, const struct sq_job *job, struct sq_str secret)
{
	char option[64];
	CURLcode rc = set_str(c->easy, CURLOPT_USERNAME, job->user);

	if (rc == CURLE_OK)
		rc = set_str(c->easy, is_bearer(job->auth) ? CURLOPT_XOAUTH2_BEARER : CURLOPT_PASSWORD, secret);
	if (rc != CURLE_OK)
		return rc;
	/* Never left to libcurl: with a token and nothing forced it tries CRAM-MD5 with an empty password. */
	if (job->auth.n == 0)
		return curl_easy_setopt(c->easy, CURLOPT_LOGIN_OPTIONS, "AUTH=PLAIN;AUTH=LOGIN");
	if (sq_str_caseeq(job->auth, SQ_STR("OAUTH")))
		return curl_easy_setopt(c->easy, CURLOPT_LOGIN_OPTIONS, "AUTH=OAUTHBEARER;AUTH=XOAUTH2");
	if (job->auth.n > 32)
		return CURLE_BAD_FUNCTION_ARGUMENT;
	snprintf(option, sizeof(option), "AUTH=%.*s", (int)job->auth.n, job->auth.p);
	return curl_easy_setopt(c->easy, CURLOPT_LOGIN_OPTIONS, option);
}

static bool
is_imap(const struct sq_job *job)
{
	return sq_str_casestarts(job->url, SQ_STR("imap:")) || sq_str_casestarts(job->url, SQ_STR("imaps:"));
}

static CURLcode
set_options(struct sq_conn *c, const struct sq_job *job, struct sq_str secret)
{
	struct sq_buf url = SQ_BUF_INIT(8192);
	struct sq_str view = { 0 };
	long timeout = job->connect_timeout_ms ? (long)job->connect_timeout_ms : 120000;
	CURLcode rc = CURLE_OUT_OF_MEMORY;
	CURL *e = c->easy;

	sq_buf_add_str(&url, job->url);
	sq_buf_addc(&url, '/');
	if (!is_imap(job)) /* there it would name a folder */
		sq_buf_add_str(&url, job->ehlo_name);
	if (sq_buf_view(&url, &view, NULL) == SQ_OK)
		rc = set_str(e, CURLOPT_URL, view);
	sq_buf_fini(&url);
#define SET(option, value) (rc = rc != CURLE_OK ? rc : curl_easy_setopt(e, (option), (value)))
	SET(CURLOPT_CONNECT_ONLY, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "smtp,smtps,imap,imaps");
	SET(CURLOPT_ERRORBUFFER, c->error);
	SET(CURLOPT_SASL_IR, 1L);
	SET(CURLOPT_HEADERFUNCTION, on_line);
	SET(CURLOPT_HEADERDATA, c);
	SET(CURLOPT_NOPROGRESS, 0L);
	SET(CURLOPT_XFERINFOFUNCTION, on_progress);
	SET(CURLOPT_XFERINFODATA, c);
	SET(CURLOPT_CONNECTTIMEOUT_MS, timeout);
	SET(CURLOPT_SERVER_RESPONSE_TIMEOUT, (timeout + 999) / 1000);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_USE_SSL, job->tls == SQ_TLS_NONE ? (long)CURLUSESSL_NONE : (long)CURLUSESSL_ALL);
	if (job->proxy.n == 0)
		SET(CURLOPT_PROXY, "");
	if (c->pinned)
		SET(CURLOPT_SSL_VERIFYHOST, 0L);
	if (c->told.to) {
		SET(CURLOPT_OPENSOCKETFUNCTION, on_socket);
		SET(CURLOPT_OPENSOCKETDATA, c);
	}
	if (c->pinned || c->told.to) {
		SET(CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
		SET(CURLOPT_SSL_CTX_DATA, c);
	}
#undef SET
	if (rc == CURLE_OK)
		rc = set_str(e, CURLOPT_PROXY, job->proxy);
	if (rc == CURLE_OK)
		rc = set_str(e, CURLOPT_CAINFO, job->ca_file);
	if (rc == CURLE_OK)
		rc = set_str(e, CURLOPT_SSLCERT, job->client_cert);
	if (rc == CURLE_OK)
		rc = set_str(e, CURLOPT_SSLKEY, job->client_key);
	if (rc == CURLE_OK && job->user.n > 0)
		rc = set_login(c, job, secret);
	return rc;
}

/* Connect to this address and no other; name checks stay with the URL. */
static CURLcode
set_address(struct sq_conn *c, struct sq_str address)
{
	char entry[128];

	for (size_t i = 0; i < address.n; i++)
		if (!strchr("0123456789abcdefABCDEF.:[]", address.p[i]))
			return CURLE_BAD_FUNCTION_ARGUMENT;
	snprintf(entry, sizeof(entry), "::%.*s", (int)(address.n < 100 ? address.n : 100), address.p);
	if (!(c->connect_to = curl_slist_append(NULL, entry)))
		return CURLE_OUT_OF_MEMORY;
	return curl_easy_setopt(c->easy, CURLOPT_CONNECT_TO, c->connect_to);
}

/* ---- what went wrong ---- */

static bool
end_with(struct sq_end *end, char text[SQ_REPLY_TEXT_MAX], enum sq_outcome outcome, enum sq_phase phase, const char *words)
{
	size_t n = strnlen(words, SQ_REPLY_TEXT_MAX - 1);

	*end = (struct sq_end){ .outcome = outcome, .phase = phase, .scope = SQ_SCOPE_ROUTE };
	for (size_t i = 0; i < n; i++)
		text[i] = words[i] >= 32 && words[i] < 127 ? words[i] : '?';
	end->reply.text = (struct sq_str){ text, n };
	return false;
}

/* The server's refusal while the session was set up. */
static bool
end_with_reply(struct sq_end *end, char text[SQ_REPLY_TEXT_MAX], const struct sq_reply *r, enum sq_phase phase)
{
	struct sq_policy p = sq_policy_decide(r, phase);

	*end = (struct sq_end){ .outcome = p.outcome, .phase = phase, .scope = SQ_SCOPE_ROUTE, .wait_s = p.wait_s };
	fill_reply(&end->reply, text, r);
	return false;
}

static bool
network_is_off(long os_error)
{
	return os_error == ENETUNREACH || os_error == ENETDOWN || os_error == EHOSTUNREACH || os_error == EADDRNOTAVAIL;
}

/* libcurl does not tell a name that does not exist from a network that is not there; it is tried again in both cases. */
static bool
no_name(struct sq_end *end, char text[SQ_REPLY_TEXT_MAX], const char *words)
{
	char sentence[512];

	snprintf(sentence, sizeof(sentence), sq_has_way_out() ?
		"%.300s. This machine has a network: the name may be wrong, or the network's name service does not answer" :
		"%.300s. This machine has no network", words);
	return end_with(end, text, SQ_OUTCOME_OFFLINE, SQ_PHASE_CONNECT, sentence);
}

/* OpenSSL's words where they tell a person nothing. */
static const char *
handshake_words(const char *words)
{
	if (strstr(words, "wrong version number"))
		return "the server does not speak TLS on this port";
	if (strstr(words, "SSL_ERROR_SYSCALL") || strstr(words, "Connection reset"))
		return "the server ended the connection instead of a TLS handshake";
	return words;
}

static bool
classify(struct sq_conn *c, CURLcode rc, struct sq_end *end, char text[SQ_REPLY_TEXT_MAX])
{
	const char *words = c->error[0] ? c->error : curl_easy_strerror(rc);
	bool refused = c->last.code >= 400;
	enum sq_phase reached = c->last.code == 0 ? SQ_PHASE_GREETING : SQ_PHASE_EHLO;
	curl_off_t connected_us = 0;
	long os_error = 0;

	curl_easy_getinfo(c->easy, CURLINFO_OS_ERRNO, &os_error);
	curl_easy_getinfo(c->easy, CURLINFO_CONNECT_TIME_T, &connected_us);
	if (rc == CURLE_LOGIN_DENIED) {
		if (refused)
			return end_with_reply(end, text, &c->last, SQ_PHASE_AUTH);
		return end_with(end, text, SQ_OUTCOME_LOGIN, SQ_PHASE_AUTH, c->imap_words[0] ? c->imap_words : words);
	}
	if (c->pin_failed)
		return end_with(end, text, SQ_OUTCOME_CERTIFICATE, SQ_PHASE_TLS,
				"the server's certificate is not the one whose fingerprint is set");
	if (rc == CURLE_PEER_FAILED_VERIFICATION || rc == CURLE_SSL_ISSUER_ERROR)
		return end_with(end, text, SQ_OUTCOME_CERTIFICATE, SQ_PHASE_TLS, words);
	if (rc == CURLE_USE_SSL_FAILED && !refused)
		return end_with(end, text, SQ_OUTCOME_TLS, SQ_PHASE_TLS, "the server does not offer STARTTLS");
	if (rc == CURLE_USE_SSL_FAILED || rc == CURLE_SSL_CONNECT_ERROR || rc == CURLE_SSL_CERTPROBLEM ||
	    rc == CURLE_SSL_CACERT_BADFILE || rc == CURLE_SSL_CIPHER) {
		if (refused)
			return end_with_reply(end, text, &c->last, SQ_PHASE_TLS) || (end->outcome = SQ_OUTCOME_TLS, false);
		return end_with(end, text, SQ_OUTCOME_TLS, SQ_PHASE_TLS, handshake_words(words));
	}
	if (rc == CURLE_ABORTED_BY_CALLBACK)
		return end_with(end, text, SQ_OUTCOME_CANCELLED, SQ_PHASE_CONNECT, "given up by the runner");
	if (refused)
		return end_with_reply(end, text, &c->last, reached);
	if (rc == CURLE_COULDNT_RESOLVE_HOST || rc == CURLE_COULDNT_RESOLVE_PROXY)
		no_name(end, text, words);
	else if (rc == CURLE_OPERATION_TIMEDOUT && c->last.code == 0 && connected_us > 0)
		end_with(end, text, SQ_OUTCOME_UNREACHABLE, SQ_PHASE_CONNECT, "the connection stands, but the server says nothing");
	else if (rc == CURLE_COULDNT_CONNECT || (rc == CURLE_OPERATION_TIMEDOUT && c->last.code == 0))
		end_with(end, text, network_is_off(os_error) ? SQ_OUTCOME_OFFLINE : SQ_OUTCOME_UNREACHABLE, SQ_PHASE_CONNECT, words);
	else if (rc == CURLE_OPERATION_TIMEDOUT)
		end_with(end, text, SQ_OUTCOME_STALLED, reached, words);
	else if (rc == CURLE_WEIRD_SERVER_REPLY || rc == CURLE_REMOTE_ACCESS_DENIED)
		end_with(end, text, SQ_OUTCOME_PROTOCOL, reached, words);
	else if (rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR || rc == CURLE_GOT_NOTHING)
		end_with(end, text, SQ_OUTCOME_CUT, reached, words);
	else if (rc == CURLE_OUT_OF_MEMORY || rc == CURLE_BAD_FUNCTION_ARGUMENT)
		end_with(end, text, SQ_OUTCOME_LOCAL, SQ_PHASE_NONE, words);
	else
		end_with(end, text, SQ_OUTCOME_UNREACHABLE, SQ_PHASE_CONNECT, words);
	end->os_error = os_error > 0 ? (uint32_t)os_error : 0;
	return false;
}

/* ---- our own EHLO behind AUTH ---- */

static bool
wait_for(struct sq_conn *c, short events, int64_t deadline)
{
	while (sq_boot_ms() < deadline) {
		struct pollfd pfd = { .fd = c->fd, .events = events };

		if (c->abandoned && c->abandoned(c->abandoned_arg))
			return false;
		if (poll(&pfd, 1, EHLO_WAIT_STEP_MS) > 0)
			return true;
	}
	return false;
}

static bool
own_ehlo(struct sq_conn *c, const struct sq_job *job, struct sq_end *end, char text[SQ_REPLY_TEXT_MAX])
{
	int64_t deadline = sq_boot_ms() + (job->reply_timeout_ms ? job->reply_timeout_ms : 120000);
	struct sq_buf line = SQ_BUF_INIT(2048);
	struct sq_error err = { 0 };
	size_t done = 0;
	char in[4096];
	enum sq_err e = SQ_OK;

	sq_buf_adds(&line, "EHLO ");
	sq_buf_add_str(&line, job->ehlo_name);
	sq_buf_adds(&line, "\r\n");
	while (!line.failed && done < line.n) {
		size_t n;

		e = sq_conn_send(c, line.p + done, line.n - done, &n, &err);
		if (e != SQ_OK || (n == 0 && !wait_for(c, POLLOUT, deadline)))
			break;
		done += n;
	}
	e = e == SQ_OK && (line.failed || done < line.n) ? SQ_ETIMEOUT : e;
	sq_buf_fini(&line);
	memset(&c->last, 0, sizeof(c->last));
	while (e == SQ_OK && c->last.code == 0) {
		size_t n;

		e = sq_conn_recv(c, in, sizeof(in), &n, &err);
		if (e == SQ_OK && n > 0)
			on_line(in, 1, n, c);
		else if (e == SQ_OK && !wait_for(c, POLLIN, deadline))
			e = SQ_ETIMEOUT;
	}
	if (e == SQ_ETIMEOUT)
		return end_with(end, text, SQ_OUTCOME_STALLED, SQ_PHASE_EHLO, "no reply to EHLO after the login");
	if (e != SQ_OK)
		return end_with(end, text, SQ_OUTCOME_CUT, SQ_PHASE_EHLO, err.text);
	if (c->last.code >= 400)
		return end_with_reply(end, text, &c->last, SQ_PHASE_EHLO);
	return true;
}

/* ---- opening and closing ---- */

static void
describe(struct sq_conn *c, const struct sq_job *job, struct sq_ready *ready)
{
	struct curl_tlssessioninfo *tls = NULL;
	double connect_s = 0;
	const char *ip = NULL;
	long port = 0;
	int lowat = NOTSENT_LOWAT;

	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	curl_easy_getinfo(c->easy, CURLINFO_PRIMARY_IP, &ip);
	curl_easy_getinfo(c->easy, CURLINFO_PRIMARY_PORT, &port);
	curl_easy_getinfo(c->easy, CURLINFO_CONNECT_TIME, &connect_s);
	snprintf(c->peer, sizeof(c->peer), ip && strchr(ip, ':') ? "[%s]:%ld" : "%s:%ld", ip ? ip : "?", port);
	if (job->tls != SQ_TLS_NONE || sq_str_casestarts(job->url, SQ_STR("smtps:")) || sq_str_casestarts(job->url, SQ_STR("imaps:"))) {
		curl_easy_getinfo(c->easy, CURLINFO_TLS_SSL_PTR, &tls);
		if (tls && tls->internals && tls->backend == CURLSSLBACKEND_OPENSSL)
			c->tls = SSL_get_version(tls->internals);
	}
	ready->address = sq_str(c->peer);
	ready->connect_ms = (uint32_t)(connect_s * 1000);
	ready->tls = sq_str(c->tls);
}

static bool
open_checked(struct sq_conn *c, const struct sq_job *job, struct sq_str secret, struct sq_end *end, char text[SQ_REPLY_TEXT_MAX])
{
	bool clear = job->tls == SQ_TLS_NONE && (sq_str_casestarts(job->url, SQ_STR("smtp:")) || sq_str_casestarts(job->url, SQ_STR("imap:")));
	CURLcode rc;
	long code = 0;

	if (job->fingerprint.n > 0 && !(c->pinned = parse_pin(job->fingerprint, c->pin)))
		return end_with(end, text, SQ_OUTCOME_LOCAL, SQ_PHASE_NONE, "bad fingerprint: want sha256: and 64 hex digits");
	if (!is_imap(job) && !sq_str_casestarts(job->url, SQ_STR("smtp:")) && !sq_str_casestarts(job->url, SQ_STR("smtps:")))
		return end_with(end, text, SQ_OUTCOME_LOCAL, SQ_PHASE_NONE, "bad server URL: want smtp:// or smtps://");
	if (c->pinned && clear)
		return end_with(end, text, SQ_OUTCOME_LOCAL, SQ_PHASE_NONE, "a fingerprint is set, and tls is \"none\"");
	for (size_t i = 0; i < job->ehlo_name.n; i++)
		if (job->ehlo_name.p[i] <= 32 || job->ehlo_name.p[i] == 127)
			return end_with(end, text, SQ_OUTCOME_LOCAL, SQ_PHASE_NONE, "bad EHLO name");

	rc = set_options(c, job, secret);
	if (rc == CURLE_OK && job->prefer.n > 0 && job->proxy.n == 0)
		rc = set_address(c, job->prefer);
	if (rc == CURLE_OK)
		rc = curl_easy_perform(c->easy);
	if (rc == CURLE_OK)
		rc = curl_easy_getinfo(c->easy, CURLINFO_ACTIVESOCKET, &c->fd);
	if (rc != CURLE_OK)
		return classify(c, rc, end, text);
	told_through(&c->told, c->imap && job->user.n > 0);
	if (c->imap)
		return true; /* libcurl fails where the login does */
	curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &code);
	/* libcurl says OK without a login where the server offers none. */
	if (job->user.n > 0 && code != 235)
		return end_with(end, text, SQ_OUTCOME_LOGIN, SQ_PHASE_AUTH, "the server offers no login");
	if (job->user.n > 0 && job->ehlo_after_auth != SQ_FACT_NO)
		return own_ehlo(c, job, end, text);
	return true;
}

static bool
open_one(const struct sq_job *job, struct sq_str secret, bool (*abandoned)(void *), void *arg, const struct sq_told *told,
	 struct sq_conn **out, struct sq_ready *ready, struct sq_ehlo *ehlo,
	 struct sq_end *end, char end_text[SQ_REPLY_TEXT_MAX])
{
	int64_t started = sq_boot_ms();
	struct sq_conn *c = calloc(1, sizeof(*c));

	if (!c || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(c->easy = curl_easy_init())) {
		free(c);
		return end_with(end, end_text, SQ_OUTCOME_LOCAL, SQ_PHASE_NONE, "libcurl does not start");
	}
	c->fd = CURL_SOCKET_BAD;
	c->abandoned = abandoned;
	c->abandoned_arg = arg;
	c->imap = is_imap(job);
	told_begin(&c->told, told);
	if (!open_checked(c, job, secret, end, end_text)) {
		sq_conn_close(c);
		return false;
	}
	*ready = (struct sq_ready){ 0 };
	describe(c, job, ready);
	ready->ehlo = (struct sq_str){ c->ehlo_text, c->ehlo_n };
	sq_ehlo_parse(ready->ehlo, ehlo);
	ready->caps = ehlo->caps;
	ready->size_limit = ehlo->size_limit;
	ready->setup_ms = (uint32_t)(sq_boot_ms() - started);
	*out = c;
	return true;
}

bool
sq_conn_open(const struct sq_job *job, struct sq_str secret, bool (*abandoned)(void *), void *arg,
	     struct sq_conn **out, struct sq_ready *ready, struct sq_ehlo *ehlo,
	     struct sq_end *end, char end_text[SQ_REPLY_TEXT_MAX])
{
	return sq_conn_open_told(job, secret, abandoned, arg, NULL, out, ready, ehlo, end, end_text);
}

bool
sq_conn_open_told(const struct sq_job *job, struct sq_str secret, bool (*abandoned)(void *), void *arg, const struct sq_told *told,
		  struct sq_conn **out, struct sq_ready *ready, struct sq_ehlo *ehlo,
		  struct sq_end *end, char end_text[SQ_REPLY_TEXT_MAX])
{
	struct sq_job one = *job;

	if (job->prefer.n > 0 && job->proxy.n == 0 && !job->prefer_only) {
		if (one.connect_timeout_ms == 0 || one.connect_timeout_ms > PREFER_MS)
			one.connect_timeout_ms = PREFER_MS;
		if (open_one(&one, secret, abandoned, arg, told, out, ready, ehlo, end, end_text))
			return true;
		if (end->phase != SQ_PHASE_CONNECT || end->outcome == SQ_OUTCOME_CANCELLED)
			return false;
		one.connect_timeout_ms = job->connect_timeout_ms;
		one.prefer.n = 0;
	}
	return open_one(&one, secret, abandoned, arg, told, out, ready, ehlo, end, end_text);
}

void
sq_conn_close(struct sq_conn *c)
{
	if (!c)
		return;
	curl_easy_cleanup(c->easy);
	curl_slist_free_all(c->connect_to);
	sq_wipe(c, sizeof(*c));
	free(c);
}

int
sq_conn_fd(const struct sq_conn *c)
{
	return c->fd;
}

void
sq_conn_arm(struct sq_conn *c, bool on)
{
	struct linger l = { .l_onoff = on, .l_linger = 0 };

	(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

static enum sq_err
io_error(struct sq_conn *c, CURLcode rc, struct sq_error *err)
{
	int sys = 0;
	socklen_t n = sizeof(sys);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &sys, &n) == 0 && sys != 0) {
		errno = sys;
		return sq_error_errno(err, SQ_EIO, "connection lost");
	}
	return sq_error_set(err, SQ_EIO, "connection lost: %s", c->error[0] ? c->error : curl_easy_strerror(rc));
}

enum sq_err
sq_conn_send(struct sq_conn *c, const char *p, size_t n, size_t *out, struct sq_error *err)
{
	CURLcode rc = curl_easy_send(c->easy, p, n, out);

	if (rc == CURLE_AGAIN) {
		*out = 0;
		return SQ_OK;
	}
	return rc == CURLE_OK ? SQ_OK : io_error(c, rc, err);
}

enum sq_err
sq_conn_recv(struct sq_conn *c, char *p, size_t n, size_t *out, struct sq_error *err)
{
	CURLcode rc = curl_easy_recv(c->easy, p, n, out);

	if (rc == CURLE_AGAIN) {
		*out = 0;
		return SQ_OK;
	}
	if (rc == CURLE_OK)
		return *out > 0 ? SQ_OK : sq_error_set(err, SQ_EEOF, "the server closed the connection");
	return io_error(c, rc, err);
}
