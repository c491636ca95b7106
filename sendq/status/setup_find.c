/*
 * Which servers an address has. What is asked first: the user's word, the
 * table, the domain's own file, the collection of such files, the owner of its
 * MX, SRV records, guesses. Host and certificate are shown before any secret.
 */
#include <sysexits.h>

#include <sendq/io.h>

#include "setup.h"

enum { RANK_TOLD, RANK_TABLE, RANK_AUTOCONFIG, RANK_ISPDB, RANK_MX, RANK_MX_FILE, RANK_SRV, RANK_GUESS };
enum { FIRST_MS = 15000, GUESS_MS = 5000, NAMES_SHOWN = 3, NAMES_ROOM = 200 };

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

static struct candidate *
add_provider(struct setup *s, int rank, const struct sq_provider *p)
{
	struct candidate *k = add(s, rank, p->name, p->server);

	if (k) {
		k->provider = p;
		snprintf(k->imap, sizeof(k->imap), "%s", p->imap);
	}
	return k;
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
	bool srv = sq_str_eq(l->source, SQ_STR("srv")), ispdb = sq_str_eq(l->source, SQ_STR("ispdb")), by_mx = sq_str_eq(l->source, SQ_STR("mx-ispdb"));
	char server[URL_MAX];
	struct candidate *k;

	copy(server, sizeof(server), l->server);
	if (sq_str_eq(l->source, SQ_STR("mx"))) {
		const struct sq_provider *p = sq_provider_of_mx(server);

		snprintf(s->mx, sizeof(s->mx), "%.255s", server);
		if (p && (k = add_provider(s, RANK_MX, p)))
			snprintf(k->where, sizeof(k->where), "the mail of %s goes to %s", sq_address_domain(&s->parsed), s->mx);
		return;
	}
	if (!(k = add(s, srv ? RANK_SRV : by_mx ? RANK_MX_FILE : ispdb ? RANK_ISPDB : RANK_AUTOCONFIG,
		      srv ? "SRV record" : by_mx ? "the MX's owner, by Thunderbird's collection" : ispdb ? "Thunderbird's collection" : "autoconfig", server)))
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

/* One host: TLS from the start, then STARTTLS; the folder of sent mail may be there as well. */
static void
add_guess(struct setup *s, const char *before, const char *host)
{
	static const struct { const char *scheme, *port; } ways[] = { { "smtps", "465" }, { "smtp", "587" } };
	char server[URL_MAX];

	for (size_t i = 0; i < SQ_LEN(ways); i++) {
		struct candidate *k;

		snprintf(server, sizeof(server), "%s://%s%.255s:%s", ways[i].scheme, before, host, ways[i].port);
		if ((k = add(s, RANK_GUESS, "a guess", server)))
			snprintf(k->imap, sizeof(k->imap), "imaps://%s%.255s:993", before, host);
	}
}

static void
add_guesses(struct setup *s, const char *domain)
{
	static const char *const names[] = { "smtp.", "mail.", "submission." };

	for (size_t i = 0; i < SQ_LEN(names); i++)
		add_guess(s, names[i], domain);
	if (s->mx[0])
		add_guess(s, "", s->mx);
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
	const char *domain = sq_address_domain(&s->parsed);
	const struct sq_provider *p = sq_provider_of_domain(domain);
	struct sq_seek seek = { .address = s->address, .domain = domain, .autoconfig = s->autoconfig, .ca_file = s->ca_file, .found = on_found, .arg = s };
	struct candidate *k;

	if (s->server) {
		if (!(k = add(s, RANK_TOLD, "you", s->server)))
			return cli_usage("'--server' is too long");
		return EX_OK;
	}
	if (p) {
		(void)add_provider(s, RANK_TABLE, p);
		return EX_OK;
	}
	say(s, "Looking for the servers of %s ...\n", domain);
	if (sq_seek(&seek, s->asked_in_vain, &s->c->err) != SQ_OK)
		return cli_fail(s->c);
	if (s->n_candidates == 0 && s->autoconfig)
		say(s, "%s\n", s->asked_in_vain);
	else if (s->n_candidates == 0)
		say(s, "It publishes none (no autoconfig file, not in Thunderbird's collection, no SRV record); trying the usual names.\n");
	if (!s->autoconfig)
		add_guesses(s, domain);
	qsort(s->candidates, s->n_candidates, sizeof(s->candidates[0]), by_rank);
	return EX_OK;
}

/* ---- what a server shows ---- */

/* "a.example b.example and 7 more". */
static void
say_names(struct setup *s, struct sq_str names)
{
	size_t shown = 0, n = 0, end = names.n;

	for (size_t i = 0; i <= names.n; i++)
		if (i == names.n || names.p[i] == ' ') {
			n++;
			if (shown < NAMES_SHOWN && i <= NAMES_ROOM) {
				shown = n;
				end = i;
			}
		}
	if (shown == 0)
		end = names.n < NAMES_ROOM ? names.n : NAMES_ROOM;
	say(s, "  certificate for %.*s", (int)end, names.n ? names.p : "");
	if (n > shown && shown > 0)
		say(s, " and %zu more", n - shown);
}

static void
on_certificate(void *arg, const struct sq_certificate *c)
{
	struct setup *s = arg;
	time_t until = (time_t)c->not_after_s;
	char date[16] = "?";
	struct tm tm;

	if (gmtime_r(&until, &tm))
		(void)strftime(date, sizeof(date), "%Y-%m-%d", &tm);
	say_names(s, c->names.n > 0 ? c->names : c->subject);
	say(s, ", by %.*s, until %s%s%.*s\n", (int)(c->issuer.n < 300 ? c->issuer.n : 300), c->issuer.n ? c->issuer.p : "", date,
		c->problem.n > 0 ? ": " : "", (int)c->problem.n, c->problem.n ? c->problem.p : "");
}

/* Nothing to log in to there; a sentence that says why. */
static bool
not_this(struct setup *s, const struct candidate *k, const struct sq_probe_answer *a)
{
	s->no_such_host = a->outcome == SQ_OUTCOME_OFFLINE;
	s->certificates_failed |= a->outcome == SQ_OUTCOME_CERTIFICATE;
	if (k->rank == RANK_GUESS && a->outcome == SQ_OUTCOME_OFFLINE && sq_has_way_out())
		say(s, "  there is no host of that name\n");
	else
		say(s, "  %s: %s\n", sq_outcome_name(a->outcome), a->words);
	return false;
}

/* The server with the folder of sent mail gets the same password, so it is looked at as well. */
static void
look_at_imap(struct setup *s, const struct candidate *k)
{
	static struct sq_probe_answer a; /* large; one thread */
	bool guess = k->rank == RANK_GUESS && !s->imap;
	struct sq_probe p = { .route = &s->trial->routes[0], .imap = true, .ehlo_name = "setup.invalid", .timeout_ms = guess ? GUESS_MS : FIRST_MS,
		.certificate = guess ? NULL : on_certificate, .arg = s };

	if (!s->imap_url[0])
		return;
	if (!guess)
		say(s, "%s (folder of sent mail)\n", s->imap_url);
	if (sq_probe(&p, &a, &s->c->err) == SQ_OK && a.ready) {
		if (guess)
			say(s, "  %s answers too: the folder of sent mail\n", s->imap_url);
		return;
	}
	if (!guess)
		say(s, "  cannot be used (%s): set up without it\n", a.words[0] ? a.words : s->c->err.text);
	s->imap_url[0] = '\0';
}

static bool
look_at(struct setup *s, struct candidate *k)
{
	static struct sq_probe_answer a; /* large; one thread */
	struct sq_probe p = { .ehlo_name = "setup.invalid", .timeout_ms = k->rank == RANK_GUESS ? GUESS_MS : FIRST_MS, .certificate = on_certificate, .arg = s };
	struct sq_error err = { 0 };
	char size[16];

	s->chosen = k;
	s->no_such_host = false;
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
	if (!a.ready)
		return not_this(s, k, &a);
	text_size(a.size_limit, size);
	say(s, "  it answers (%u ms)%s%s%s\n", (unsigned)a.setup_ms, a.size_limit > 0 ? ", takes up to " : "", a.size_limit > 0 ? size : "",
		a.caps & SQ_CAP_CHECKPOINT ? ", resumes broken uploads" : "; it cannot resume, so a broken upload starts again");
	look_at_imap(s, k);
	return true;
}

static void
name_route(struct setup *s)
{
	const char *domain = sq_address_domain(&s->parsed);
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

/* Is the host below the domain of the address? Then a certificate that is good for it is the domain's word. */
static bool
is_below(const char *server, const char *domain)
{
	const char *host = strstr(server, "://") + 3;
	size_t n = strcspn(host, ":"), m = strlen(domain);

	return n > m && host[n - m - 1] == '.' && sq_str_caseeq((struct sq_str){ host + n - m, m }, sq_str(domain));
}

/* By Return yes, where all who get the password are below the domain. The folder of sent mail may be elsewhere by a word that anybody can forge (SRV). */
static bool
all_below(const struct setup *s, const struct candidate *k)
{
	const char *domain = sq_address_domain(&s->parsed);

	return is_below(k->server, domain) && (!s->imap_url[0] || s->imap || is_below(s->imap_url, domain));
}

static bool
may_log_in(struct setup *s, const struct candidate *k)
{
	if (s->yes)
		return true;
	if (k->trusted)
		return ask_yes(s, true, "Log in there?");
	return ask_yes(s, all_below(s, k), "Nobody vouches for this server (%s). Is it your provider's? Log in there?", k->source);
}

static int
found_none(const struct setup *s)
{
	const char *domain = sq_address_domain(&s->parsed);

	if (!sq_has_way_out()) {
		fprintf(stderr, "sendq: this machine has no network: connect it, and say this again\n");
		return EX_TEMPFAIL;
	}
	if (s->asked_in_vain[0])
		fprintf(stderr, "What was asked in vain:\n%s\n", s->asked_in_vain);
	if (s->server)
		fprintf(stderr, "sendq: %s, which you named, cannot be used\n", s->server);
	else
		fprintf(stderr, "sendq: no server of %s was found that can be used: ask the provider, and say --server smtps://HOST or --server smtp://HOST:587\n", domain);
	if (s->certificates_failed)
		fprintf(stderr, "sendq: where the server is yours and its certificate of your own making, say --ca-file FILE\n");
	return EX_UNAVAILABLE;
}

/* Behind a name that does not exist its other port is not asked. */
static bool
same_host(const struct candidate *a, const struct candidate *b)
{
	const char *x = strstr(a->server, "://") + 3, *y = strstr(b->server, "://") + 3;
	size_t n = strcspn(x, ":");

	return n == strcspn(y, ":") && strncmp(x, y, n) == 0;
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

		if (i > 0 && s->no_such_host && same_host(k, k - 1))
			continue;
		if (!look_at(s, k))
			continue;
		if (!k->trusted && !s->yes && !s->terminal) {
			fprintf(stderr, "sendq: '%s' is %s, which nobody vouches for: say --server %s, or --yes\n", k->server, k->source, k->server);
			return EX_USAGE;
		}
		if (!may_log_in(s, k))
			continue;
		name_route(s);
		return EX_OK;
	}
	return found_none(s);
}
