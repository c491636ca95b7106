/*
 * HTTPS by libcurl: one exchange, bounded in time and octets, to https:// and
 * nowhere else. VERBOSE stays off: bodies hold secrets.
 */
#include <curl/curl.h>
#include <errno.h>

#include <sendq/io.h>
#include <sendq/net.h>

struct exchange {
	const struct sq_https *q;
	struct sq_buf *answer;
	bool too_long;
};

static size_t
on_body(char *p, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;

	if (x->answer->n + size * n > x->q->max) {
		x->too_long = true;
		return 0;
	}
	sq_buf_add(x->answer, p, size * n);
	return size * n;
}

static int
on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct exchange *x = arg;

	(void)a, (void)b, (void)c, (void)d;
	return x->q->abandoned && x->q->abandoned(x->q->arg);
}

static CURLcode
set_str(CURL *e, CURLoption option, struct sq_str s)
{
	SQ_CLEANUP(sq_freep) char *copy = memchr(s.n ? s.p : "", 0, s.n) ? NULL : sq_str_dup(s);

	return copy ? curl_easy_setopt(e, option, copy) : CURLE_BAD_FUNCTION_ARGUMENT;
}

static enum sq_outcome
outcome_of(CURLcode rc)
{
	if (rc == CURLE_COULDNT_RESOLVE_HOST || rc == CURLE_COULDNT_RESOLVE_PROXY)
		return SQ_OUTCOME_OFFLINE;
	if (rc == CURLE_PEER_FAILED_VERIFICATION || rc == CURLE_SSL_ISSUER_ERROR)
		return SQ_OUTCOME_CERTIFICATE;
	if (rc == CURLE_SSL_CONNECT_ERROR)
		return SQ_OUTCOME_TLS;
	if (rc == CURLE_ABORTED_BY_CALLBACK)
		return SQ_OUTCOME_CANCELLED;
	if (rc == CURLE_WRITE_ERROR || rc == CURLE_WEIRD_SERVER_REPLY || rc == CURLE_TOO_MANY_REDIRECTS || rc == CURLE_UNSUPPORTED_PROTOCOL)
		return SQ_OUTCOME_PROTOCOL;
	return SQ_OUTCOME_UNREACHABLE;
}

enum sq_err
sq_https(const struct sq_https *q, int *status, struct sq_buf *answer, enum sq_outcome *outcome, struct sq_error *err)
{
	struct exchange x = { .q = q, .answer = answer };
	char words[CURL_ERROR_SIZE] = "";
	CURLcode rc = CURLE_OK;
	long code = 0;
	CURL *e;

	*outcome = SQ_OUTCOME_LOCAL;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(e = curl_easy_init()))
		return sq_error_set(err, SQ_ENOMEM, "libcurl does not start");
#define SET(option, value) (rc = rc != CURLE_OK ? rc : curl_easy_setopt(e, (option), (value)))
	SET(CURLOPT_PROTOCOLS_STR, "https");
	SET(CURLOPT_REDIR_PROTOCOLS_STR, "https");
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_TIMEOUT_MS, (long)q->timeout_ms);
	SET(CURLOPT_ERRORBUFFER, words);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, &x);
	SET(CURLOPT_NOPROGRESS, 0L);
	SET(CURLOPT_XFERINFOFUNCTION, on_progress);
	SET(CURLOPT_XFERINFODATA, &x);
	SET(CURLOPT_USERAGENT, "sendq/" SENDQ_VERSION);
	SET(CURLOPT_PROXY, "");
	if (q->body.n == 0) {
		SET(CURLOPT_FOLLOWLOCATION, 1L);
		SET(CURLOPT_MAXREDIRS, 3L);
	} else {
		SET(CURLOPT_POSTFIELDSIZE, (long)q->body.n);
		SET(CURLOPT_POSTFIELDS, q->body.p);
	}
#undef SET
	if (rc == CURLE_OK)
		rc = set_str(e, CURLOPT_URL, q->url);
	if (rc == CURLE_OK && q->proxy.n > 0)
		rc = set_str(e, CURLOPT_PROXY, q->proxy);
	if (rc == CURLE_OK && q->ca_file.n > 0)
		rc = set_str(e, CURLOPT_CAINFO, q->ca_file);
	if (rc == CURLE_OK)
		rc = curl_easy_perform(e);
	curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &code);
	curl_easy_cleanup(e);
	*status = (int)code;
	if (rc == CURLE_OK && !answer->failed) {
		*outcome = SQ_OUTCOME_ACCEPTED;
		return SQ_OK;
	}
	*outcome = outcome_of(rc);
	if (x.too_long)
		return sq_error_set(err, SQ_ELIMIT, "'%.*s' answers with more than %zu octets", (int)q->url.n, q->url.p, q->max);
	return sq_error_set(err, SQ_EIO, "'%.*s': %s", (int)(q->url.n < 200 ? q->url.n : 200), q->url.p, words[0] ? words : curl_easy_strerror(rc));
}

void
sq_url_escape(struct sq_buf *out, struct sq_str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char ch = (unsigned char)s.p[i];

		if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || (ch && strchr("-._~", ch)))
			sq_buf_addc(out, (char)ch);
		else
			sq_buf_addf(out, "%%%02X", ch);
	}
}
