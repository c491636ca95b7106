/*
 * Which servers an address has. What is asked first: the user's word, the
 * table, the domain's own file, the collection of such files, the owner of its
 * MX, SRV records, guesses. Host and certificate are shown before any secret.
 */
#include <sysexits.h>

#include "setup.h"

enum { RANK_TOLD, RANK_TABLE, RANK_AUTOCONFIG, RANK_ISPDB, RANK_MX, RANK_SRV, RANK_GUESS };
enum { FIRST_MS = 15000, GUESS_MS = 5000 };

static struct candidate *
add(struct setup *s, int rank, const char *source, const char *server)
{
	struct candidate *k = s->n_candidates < CANDIDATES_MAX ? &s->candidates[s->n_candidates] : NULL;

	for (size_t i = 0; i < s->n_candidates; i++)
		if (strcmp(s->candidates[i].server, server) == 0 && s->candidates[i].rank <= rank)
			return NULL;
	if (!k || strlen(server) >= sizeof(k->server))
		return NULL;
	s->n_candidates++;
	*k = (struct candidate){ .rank = rank, .source = source, .trusted = rank <= RANK_MX };
	snprintf(k->server, sizeof(k->server), "%s", server);
	snprintf(k->user, sizeof(k->user), "%s", s->address);
	return k;
}

static void
add_provider(struct setup *s, int rank, const struct sq_provider *p)
{
	struct candidate *k = add(s, rank, p->name, p->server);

	if (!k)
		return;
	k->provider = p;
	snprintf(k->imap, sizeof(k->imap), "%s", p->imap);
}

static void
copy(char *out, size_t size, struct sq_str v)
{
	snprintf(out, size, "%.*s", (int)(v.n < size ? v.n : 0), v.n ? v.p : "");
}

static void
on_found(void *arg, const struct sq_lookup *l)
{
	struct setup *s = arg;
	bool srv = sq_str_eq(l->source, SQ_STR("srv")), ispdb = sq_str_eq(l->source, SQ_STR("ispdb"));
	char server[URL_MAX];
	struct candidate *k;

	copy(server, sizeof(server), l->server);
	if (sq_str_eq(l->source, SQ_STR("mx"))) {
		const struct sq_provider *p = sq_provider_of_mx(server);

		if (p)
			add_provider(s, RANK_MX, p);
		return;
	}
	if (!(k = add(s, srv ? RANK_SRV : ispdb ? RANK_ISPDB : RANK_AUTOCONFIG, srv ? "SRV record" : ispdb ? "Thunderbird's collection" : "autoconfig", server)))
		return;
	copy(k->where, sizeof(k->where), l->where);
	copy(k->imap, sizeof(k->imap), l->imap);
	if (l->user.n > 0)
		copy(k->user, sizeof(k->user), l->user);
	copy(k->auth_url, sizeof(k->auth_url), l->auth_url);
	copy(k->token_url, sizeof(k->token_url), l->token_url);
	copy(k->scope, sizeof(k->scope), l->scope);
	k->oauth_only = l->oauth && !l->password;
}

static void
add_guesses(struct setup *s, const char *domain)
{
	static const char *const patterns[] = { "smtps://smtp.%s:465", "smtps://mail.%s:465", "smtp://smtp.%s:587", "smtp://mail.%s:587" };
	char server[URL_MAX];

	for (size_t i = 0; i < SQ_LEN(patterns); i++) {
		int at = (int)(strstr(patterns[i], "%s") - patterns[i]);

		snprintf(server, sizeof(server), "%.*s%.253s%s", at, patterns[i], domain, patterns[i] + at + 2);
		(void)add(s, RANK_GUESS, "a guess", server);
	}
}

static int
by_rank(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return x->rank - y->rank;
}

static int
gather(struct setup *s)
{
	const char *domain = strrchr(s->address, '@') + 1;
	const struct sq_provider *p = sq_provider_of_domain(domain);
	struct sq_seek seek = { .address = s->address, .autoconfig = s->autoconfig, .ca_file = s->ca_file, .found = on_found, .arg = s };
	static char words[SQ_REPLY_TEXT_MAX + 1];
	struct candidate *k;

	if (s->server) {
		if (!(k = add(s, RANK_TOLD, "you", s->server)))
			return cli_usage("'--server' is too long");
		return EX_OK;
	}
	if (p) {
		add_provider(s, RANK_TABLE, p);
		return EX_OK;
	}
	say(s, "Looking for the servers of %s ...\n", domain);
	if (sq_seek(&seek, words, &s->c->err) != SQ_OK)
		return cli_fail(s->c);
	if (s->n_candidates == 0 && words[0])
		say(s, "%s\n", words);
	if (!s->autoconfig)
		add_guesses(s, domain);
	qsort(s->candidates, s->n_candidates, sizeof(s->candidates[0]), by_rank);
	return EX_OK;
}

/* ---- what a server shows ---- */

static void
on_certificate(void *arg, const struct sq_certificate *c)
{
	struct setup *s = arg;
	time_t until = (time_t)c->not_after_s;
	struct sq_str whom = c->names.n > 0 ? c->names : c->subject;
	char date[16] = "?";
	struct tm tm;

	if (gmtime_r(&until, &tm))
		(void)strftime(date, sizeof(date), "%Y-%m-%d", &tm);
	say(s, "  certificate for %.*s, by %.*s, until %s%s%.*s\n", (int)(whom.n < 600 ? whom.n : 600), whom.n ? whom.p : "",
		(int)(c->issuer.n < 300 ? c->issuer.n : 300), c->issuer.n ? c->issuer.p : "", date, c->problem.n > 0 ? ": " : "", (int)c->problem.n, c->problem.n ? c->problem.p : "");
}

static bool
look_at(struct setup *s, struct candidate *k)
{
	static struct sq_probe_answer a; /* large; one thread */
	struct sq_probe p = { .ehlo_name = "setup.invalid", .timeout_ms = k->rank == RANK_GUESS ? GUESS_MS : FIRST_MS, .certificate = on_certificate, .arg = s };
	struct sq_error err = { 0 };
	char size[16];

	s->chosen = k;
	say(s, "%s (%s%s%s)\n", k->server, k->source, k->where[0] ? ": " : "", k->where);
	snprintf(s->user_name, sizeof(s->user_name), "%s", s->user ? s->user : k->user);
	snprintf(s->imap_url, sizeof(s->imap_url), "%s", s->imap ? (strcmp(s->imap, "none") == 0 ? "" : s->imap) : k->imap);
	if (setup_try_config(s, "password_command = \"true\";", &err) != SQ_OK) {
		say(s, "  %s\n", err.text);
		return false;
	}
	p.route = &s->trial->routes[0];
	if (sq_probe(&p, &a, &err) != SQ_OK) {
		say(s, "  %s\n", err.text);
		return false;
	}
	if (!a.ready) {
		say(s, "  %s: %s\n", sq_outcome_name(a.outcome), a.words);
		return false;
	}
	text_size(a.size_limit, size);
	say(s, "  it answers (%u ms)%s%s%s\n", (unsigned)a.setup_ms, a.size_limit > 0 ? ", takes up to " : "", a.size_limit > 0 ? size : "",
		a.caps & SQ_CAP_CHECKPOINT ? ", resumes broken uploads" : "; it cannot resume, so a broken upload starts again");
	return true;
}

static void
name_route(struct setup *s)
{
	const char *domain = strrchr(s->address, '@') + 1;
	size_t n = strcspn(domain, ".");

	if (s->name)
		snprintf(s->route, sizeof(s->route), "%s", s->name);
	else if (s->chosen->provider)
		snprintf(s->route, sizeof(s->route), "%s", s->chosen->provider->id);
	else
		snprintf(s->route, sizeof(s->route), "%.*s", (int)(n < 40 ? n : 40), domain);
	for (char *p = s->route; *p; p++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", *p))
			*p = '-';
}

int
setup_find(struct setup *s)
{
	int status = gather(s);

	if (status != EX_OK)
		return status;
	snprintf(s->route, sizeof(s->route), "trial");
	for (size_t i = 0; i < s->n_candidates; i++) {
		struct candidate *k = &s->candidates[i];

		if (!look_at(s, k))
			continue;
		if (!k->trusted && !s->yes && !s->terminal) {
			fprintf(stderr, "sendq: '%s' is %s, which nobody vouches for: say --server %s, or --yes\n", k->server, k->source, k->server);
			return EX_USAGE;
		}
		if (!ask_yes(s, true, k->trusted ? "Log in there?" : "Nobody vouches for this server (%s). Is it yours? Log in there?", k->source))
			continue;
		name_route(s);
		return EX_OK;
	}
	fprintf(stderr, "sendq: no server of %s was found that can be used: ask the provider, and say --server smtps://…\n", strrchr(s->address, '@') + 1);
	return EX_UNAVAILABLE;
}
