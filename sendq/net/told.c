/*
 * How a connection comes about, step by step, as libcurl and OpenSSL show it
 * through their callbacks; and a certificate in words. Nothing here decides
 * anything, and nothing here sees a secret.
 */
#include "told.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <openssl/x509v3.h>

#include <sendq/io.h>

enum { NAMES_MAX = 4096 };

static void
step(struct told *t, enum sq_stage_kind kind, uint32_t ms, uint64_t server_ms, struct sq_str words)
{
	struct sq_stage s = { kind, ms, server_ms, words };

	t->to->step(t->to->arg, &s);
	t->since = sq_boot_ms();
}

static uint32_t
spent(const struct told *t)
{
	return (uint32_t)(sq_boot_ms() - t->since);
}

void
told_begin(struct told *t, const struct sq_told *to)
{
	*t = (struct told){ .to = to, .began = sq_boot_ms() };
	t->since = t->began;
}

void
told_name(struct told *t, const struct sockaddr *address)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (!t->to || t->named)
		return;
	t->named = true;
	if (address->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)address)->sin_addr, text, sizeof(text));
	else if (address->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, text, sizeof(text));
	step(t, SQ_STAGE_NAME, spent(t), 0, sq_str(text));
}

/* The first octet of the server, or the start of a handshake, comes later than the connection: libcurl knows when that stood. */
void
told_connected(struct told *t, void *easy)
{
	curl_off_t name_us = 0, connect_us = 0;
	const char *ip = NULL;
	long port = 0;
	char text[96];

	if (!t->to || t->connected)
		return;
	t->connected = true;
	curl_easy_getinfo(easy, CURLINFO_NAMELOOKUP_TIME_T, &name_us);
	curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connect_us);
	curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &ip);
	curl_easy_getinfo(easy, CURLINFO_PRIMARY_PORT, &port);
	snprintf(text, sizeof(text), ip && strchr(ip, ':') ? "[%s]:%ld" : "%s:%ld", ip ? ip : "?", port);
	step(t, SQ_STAGE_CONNECT, connect_us > name_us ? (uint32_t)((connect_us - name_us) / 1000) : 0, 0, sq_str(text));
	if (t->began + connect_us / 1000 < t->since)
		t->since = t->began + connect_us / 1000;
}

/* ---- TLS ---- */

static int
own_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return index;
}

/* Tickets that come later look like a handshake too: the first one counts. */
static void
on_info(const SSL *ssl, int where, int ret)
{
	struct told *t = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), own_index());

	(void)ret;
	if (!(where & SSL_CB_HANDSHAKE_DONE) || !t || t->tls[0])
		return;
	snprintf(t->tls, sizeof(t->tls), "%s, %s", SSL_get_version(ssl), SSL_get_cipher_name(ssl));
	t->shaken = true;
	t->shaken_ms = spent(t);
	t->since = sq_boot_ms();
}

void
told_handshake(struct told *t, SSL_CTX *ctx)
{
	if (!t->to)
		return;
	t->since = sq_boot_ms();
	SSL_CTX_set_ex_data(ctx, own_index(), t);
	SSL_CTX_set_info_callback(ctx, on_info);
}

static void
shaken_is_good(struct told *t)
{
	int64_t since = t->since;

	if (!t->shaken)
		return;
	t->shaken = false;
	step(t, SQ_STAGE_TLS, t->shaken_ms, 0, sq_str(t->tls));
	t->since = since;
}

static struct sq_str
printable(char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] < ' ' || p[i] > '~')
			p[i] = '?';
	return (struct sq_str){ p, n };
}

static struct sq_str
name_words(const X509_NAME *name, char out[512])
{
	BIO *b = BIO_new(BIO_s_mem());
	int n = 0;

	if (b && X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0)
		n = BIO_read(b, out, 511);
	BIO_free(b);
	return printable(out, n > 0 ? (size_t)n : 0);
}

static void
add_name(struct sq_buf *b, const unsigned char *p, int n)
{
	if (n > 0 && b->n + (size_t)n + 1 < NAMES_MAX) {
		if (b->n > 0)
			sq_buf_addc(b, ' ');
		sq_buf_add(b, p, (size_t)n);
	}
}

/* What the certificate is for (RFC 6125 §1.8): DNS names and addresses. */
static void
subject_names(const X509 *leaf, struct sq_buf *b)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
		char ip[INET6_ADDRSTRLEN] = "";

		if (g->type == GEN_DNS) {
			add_name(b, ASN1_STRING_get0_data(g->d.dNSName), ASN1_STRING_length(g->d.dNSName));
		} else if (g->type == GEN_IPADD) {
			int n = ASN1_STRING_length(g->d.iPAddress);

			if ((n == 4 || n == 16) && inet_ntop(n == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(g->d.iPAddress), ip, sizeof(ip)))
				add_name(b, (const unsigned char *)ip, (int)strlen(ip));
		}
	}
	GENERAL_NAMES_free(names);
}

static uint64_t
unix_time(const ASN1_TIME *t)
{
	struct tm tm;
	time_t s;

	if (ASN1_TIME_to_tm(t, &tm) != 1 || (s = timegm(&tm)) < 0)
		return 0;
	return (uint64_t)s;
}

void
told_certificate(struct told *t, X509 *leaf, const char *problem)
{
	struct sq_buf names = SQ_BUF_INIT(NAMES_MAX);
	struct sq_certificate c = { 0 };
	unsigned char digest[EVP_MAX_MD_SIZE];
	char subject[512], issuer[512];
	unsigned n = 0;

	if (!t->to || !leaf)
		return;
	c.subject = name_words(X509_get_subject_name(leaf), subject);
	c.issuer = name_words(X509_get_issuer_name(leaf), issuer);
	subject_names(leaf, &names);
	if (names.n > 0)
		c.names = printable(names.p, names.n);
	c.not_before_s = unix_time(X509_get0_notBefore(leaf));
	c.not_after_s = unix_time(X509_get0_notAfter(leaf));
	if (X509_digest(leaf, EVP_sha256(), digest, &n) == 1 && n == sizeof(c.sha256))
		memcpy(c.sha256, digest, n);
	c.problem = sq_str(problem);
	t->to->certificate(t->to->arg, &c);
	sq_buf_fini(&names);
}

/* ---- what the server says ---- */

/* Exim and sendmail put the date into their greeting: "… Thu, 26 Nov 2026 10:15:43 +0000". */
static uint64_t
date_in(struct sq_str words)
{
	static const char *const days[] = { "Mon, ", "Tue, ", "Wed, ", "Thu, ", "Fri, ", "Sat, ", "Sun, " };
	char line[512];
	time_t s;

	snprintf(line, sizeof(line), "%.*s", (int)(words.n < 500 ? words.n : 500), words.p ? words.p : "");
	for (size_t i = 0; i < SQ_LEN(days); i++) {
		const char *at = strstr(line, days[i]);

		if (at && (s = curl_getdate(at, NULL)) > 0)
			return (uint64_t)s * 1000;
	}
	return 0;
}

static void
greeting(struct told *t, struct sq_str words)
{
	t->greeted = true;
	step(t, SQ_STAGE_GREETING, spent(t), date_in(words), words);
}

void
told_reply(struct told *t, const struct sq_reply *reply)
{
	if (!t->to)
		return;
	shaken_is_good(t);
	if (reply->code >= 400)
		return; /* END has it */
	if (!t->greeted)
		greeting(t, reply->text);
	else if (reply->code == 250)
		step(t, SQ_STAGE_EHLO, spent(t), 0, reply->text);
	else if (reply->code == 235)
		step(t, SQ_STAGE_LOGIN, spent(t), 0, reply->text);
	else
		t->since = sq_boot_ms();
}

void
told_imap_line(struct told *t, bool untagged, struct sq_str rest)
{
	if (!t->to)
		return;
	shaken_is_good(t);
	if (untagged && !t->greeted && rest.n <= SQ_REPLY_TEXT_MAX)
		greeting(t, rest);
}

void
told_through(struct told *t, bool logged_in)
{
	if (!t->to)
		return;
	shaken_is_good(t);
	if (logged_in)
		step(t, SQ_STAGE_LOGIN, spent(t), 0, (struct sq_str){ 0 });
}
