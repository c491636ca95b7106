/*
 * Asking for the servers of a domain: its own autoconfig file, Thunderbird's
 * collection of such files, SRV records (RFC 6186, RFC 8314 §5.1), and the
 * owner of its MX. HTTPS only; records are unsigned, and a person confirms
 * the host behind them.
 */
#include "lookup.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netinet/in.h>
#include <resolv.h>

#include <sendq/net.h>

#include "autoconfig.h"

enum { FILE_MAX = 256 * 1024, SRV_SECONDS = 3 };

/* ---- files ---- */

static void
note(char words[SQ_REPLY_TEXT_MAX], const char *where, const char *what)
{
	size_t n = strlen(words);

	snprintf(words + n, SQ_REPLY_TEXT_MAX - n, "%s%.200s: %.200s", n > 0 ? "\n" : "", where, what);
	for (char *p = words + n; *p; p++)
		if ((*p < ' ' || *p > '~') && *p != '\n')
			*p = '?';
}

/* What became of a question. */
enum answer { UNANSWERED, NOT_THERE, FOUND };

static enum answer
ask_file(const struct lookup *l, const char *source, const char *url, char words[SQ_REPLY_TEXT_MAX])
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf answer = SQ_BUF_INIT(FILE_MAX + 1);
	SQ_CLEANUP(sq_freep) char *address = sq_str_dup(l->job->address);
	struct sq_https q = { .url = sq_str(url), .ca_file = l->job->ca_file, .timeout_ms = l->job->timeout_ms, .max = FILE_MAX, .abandoned = l->gone, .arg = l->arg };
	static struct autoconfig a;
	enum sq_outcome outcome;
	struct sq_error err = { 0 };
	struct sq_lookup found;
	const char *why = "";
	char status_words[64];
	int status = 0;

	if (sq_https(&q, &status, &answer, &outcome, &err) != SQ_OK) {
		note(words, source, err.text);
		return UNANSWERED;
	}
	if (status != 200) {
		snprintf(status_words, sizeof(status_words), "status %d", status);
		note(words, url, status_words);
		return NOT_THERE;
	}
	if (!address || !autoconfig_parse(answer.n > 0 ? answer.p : "", answer.n, address, &a, &why)) {
		note(words, url, why);
		return NOT_THERE;
	}
	found = (struct sq_lookup){ sq_str(source), sq_str(url), sq_str(a.server), sq_str(a.imap), sq_str(a.user), a.password, a.oauth,
		sq_str(a.auth_url), sq_str(a.token_url), sq_str(a.scope) };
	l->found(l->arg, &found);
	return FOUND;
}

static const struct place { const char *source, *before, *behind; bool address; } places[] = {
	{ "autoconfig", "https://autoconfig.", "/mail/config-v1.1.xml", true },
	{ "autoconfig", "https://", "/.well-known/autoconfig/mail/config-v1.1.xml", false },
	{ "ispdb", "https://autoconfig.thunderbird.net/v1.1/", "", false },
};
static const struct place of_mx_owner = { "mx-ispdb", "https://autoconfig.thunderbird.net/v1.1/", "", false };

static enum answer
ask_place(const struct lookup *l, const struct place *place, const char *domain, char words[SQ_REPLY_TEXT_MAX])
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf url = SQ_BUF_INIT(4096);
	const char *before = place->before;

#ifdef SENDQ_FAULTS
	/* Tests have a server of their own in the place of all. */
	if (getenv("SENDQ_TEST_AUTOCONFIG")) {
		sq_buf_addf(&url, "%s/", getenv("SENDQ_TEST_AUTOCONFIG"));
		before += strlen("https://");
	}
#endif
	sq_buf_addf(&url, "%s%s%s", before, domain, place->behind);
	if (place->address) {
		sq_buf_adds(&url, "?emailaddress=");
		sq_url_escape(&url, l->job->address);
	}
	return url.failed || l->gone(l->arg) ? UNANSWERED : ask_file(l, place->source, url.p, words);
}

/* The domain's own file, else that of the collection, else the collection's for the provider whose name the MX has. */
static void
ask_files(const struct lookup *l, const char *domain, const char *mx, char words[SQ_REPLY_TEXT_MAX])
{
	enum answer a = UNANSWERED;

	for (size_t i = 0; i < SQ_LEN(places); i++)
		if ((a = ask_place(l, &places[i], domain, words)) == FOUND)
			return;
	/* "mx1.mail.hoster.example": for mail.hoster.example, then for hoster.example. */
	for (const char *dot = strchr(mx, '.'); a == NOT_THERE && dot && strchr(dot + 1, '.'); dot = strchr(dot + 1, '.')) {
		if (sq_str_caseeq(sq_str(dot + 1), sq_str(domain)))
			return;
		a = ask_place(l, &of_mx_owner, dot + 1, words);
	}
}

/* ---- records ---- */

static bool
resolver(struct __res_state *state)
{
	memset(state, 0, sizeof(*state));
	if (res_ninit(state) != 0)
		return false;
	state->retrans = SRV_SECONDS;
	state->retry = 2;
#ifdef SENDQ_FAULTS
	/* Tests have a name server of their own: "127.0.0.1:5300". */
	if (getenv("SENDQ_TEST_RESOLVER")) {
		const char *colon = strrchr(getenv("SENDQ_TEST_RESOLVER"), ':');

		state->nscount = 1;
		state->nsaddr_list[0] = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
			.sin_port = htons((uint16_t)(colon ? strtol(colon + 1, NULL, 10) : 53)) };
		state->retrans = 1;
	}
#endif
	return true;
}

/* The best record of a type: lowest priority, then highest weight. False: none. */
static bool
ask_record(const char *name, ns_type type, char host[256], int *port)
{
	struct __res_state state;
	static unsigned char answer[16384];
	bool found = false;
	int n, best = 65536, best_weight = -1;
	ns_msg msg;

	if (!resolver(&state))
		return false;
	n = res_nquery(&state, name, ns_c_in, type, answer, sizeof(answer));
	res_nclose(&state);
	if (n <= 0 || n > (int)sizeof(answer) || ns_initparse(answer, n, &msg) < 0)
		return false;
	for (int i = 0; i < ns_msg_count(msg, ns_s_an); i++) {
		size_t fixed = type == ns_t_srv ? 6 : 2;
		char target[NS_MAXDNAME];
		ns_rr rr;
		int priority, weight;

		if (ns_parserr(&msg, ns_s_an, i, &rr) < 0 || ns_rr_type(rr) != type || ns_rr_rdlen(rr) <= fixed)
			continue;
		if (ns_name_uncompress(ns_msg_base(msg), ns_msg_end(msg), ns_rr_rdata(rr) + fixed, target, sizeof(target)) < 0 || !autoconfig_host_ok(target))
			continue; /* a target of "." is "not offered" */
		priority = (int)ns_get16(ns_rr_rdata(rr));
		weight = type == ns_t_srv ? (int)ns_get16(ns_rr_rdata(rr) + 2) : 0;
		if (priority > best || (priority == best && weight <= best_weight))
			continue;
		best = priority;
		best_weight = weight;
		*port = type == ns_t_srv ? (int)ns_get16(ns_rr_rdata(rr) + 4) : 25;
		snprintf(host, 256, "%.255s", target);
		found = *port > 0;
	}
	return found;
}

static void
ask_srv(const struct lookup *l, const char *domain, char words[SQ_REPLY_TEXT_MAX])
{
	static const struct { const char *service, *scheme; } services[] = { { "_submissions._tcp.", "smtps" }, { "_submission._tcp.", "smtp" } };
	char name[512], host[256], server[300], imap[300] = "";
	int port = 0;

	snprintf(name, sizeof(name), "_imaps._tcp.%s", domain);
	if (ask_record(name, ns_t_srv, host, &port))
		snprintf(imap, sizeof(imap), "imaps://%s:%d", host, port);
	for (size_t i = 0; i < SQ_LEN(services) && !l->gone(l->arg); i++) {
		struct sq_lookup found = { .source = SQ_STR("srv"), .where = sq_str(name), .imap = sq_str(imap) };

		snprintf(name, sizeof(name), "%s%s", services[i].service, domain);
		found.where = sq_str(name);
		if (!ask_record(name, ns_t_srv, host, &port)) {
			note(words, name, "no record");
			continue;
		}
		snprintf(server, sizeof(server), "%s://%s:%d", services[i].scheme, host, port);
		found.server = sq_str(server);
		l->found(l->arg, &found);
	}
}

static void
ask_mx(const struct lookup *l, const char *domain, char host[256])
{
	int port = 0;

	if (ask_record(domain, ns_t_mx, host, &port)) {
		struct sq_lookup found = { .source = SQ_STR("mx"), .where = sq_str(domain), .server = sq_str(host) };

		l->found(l->arg, &found);
	}
}

void
lookup_run(const struct lookup *l, char words[SQ_REPLY_TEXT_MAX])
{
	SQ_CLEANUP(sq_freep) char *domain = sq_str_dup(l->job->domain);
	SQ_CLEANUP(sq_freep) char *one = sq_str_dup(l->job->autoconfig);
	char mx[256] = "";

	words[0] = '\0';
	if (!domain || !one || !autoconfig_host_ok(domain))
		return;
	if (one[0]) {
		(void)ask_file(l, "autoconfig", one, words);
		return;
	}
	ask_mx(l, domain, mx);
	ask_files(l, domain, mx, words);
	if (!l->gone(l->arg))
		ask_srv(l, domain, words);
}
