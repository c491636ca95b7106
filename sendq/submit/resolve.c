/*
 * Where a recipient's name leads. A name of this machine (no domain, or one
 * that only this machine knows) is looked up in the aliases; without one,
 * mail to root and other service accounts, and to oneself, goes to one's own
 * address: completed with the provider's domain it would reach a stranger.
 * Any other name gets the domain.
 */
#include <fnmatch.h>
#include <pwd.h>
#include <unistd.h>

#include "aliases.h"
#include "submission.h"

enum { FIRST_PERSON = 1000 };

void
to_list_fini(struct to_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		sq_address_fini(&l->v[i].address);
		free(l->v[i].orcpt);
	}
	free(l->v);
	*l = (struct to_list){ 0 };
}

enum sq_err
to_list_add(struct to_list *l, struct sq_address *take, uint8_t notify, struct sq_str orcpt, struct sq_error *err)
{
	char *copy = NULL;

	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 8;
		struct to *v = reallocarray(l->v, cap, sizeof(*v));

		if (!v)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		l->v = v;
		l->cap = cap;
	}
	if (orcpt.n > 0 && !(copy = sq_str_dup(orcpt)))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	l->v[l->n++] = (struct to){ .address = *take, .notify = notify, .orcpt = copy };
	*take = (struct sq_address){ 0 };
	return SQ_OK;
}

/* A domain by which the configuration sends mail is a place in the Internet, whatever this machine is called. */
static bool
sends_as(const struct sq_config *cfg, const char *domain)
{
	const char *at = cfg->identity ? strrchr(cfg->identity, '@') : NULL;

	if (at && sq_str_caseeq(sq_str(at + 1), sq_str(domain)))
		return true;
	for (size_t i = 0; i < cfg->n_routes; i++) {
		const struct sq_route *r = &cfg->routes[i];

		at = r->user ? strrchr(r->user, '@') : NULL;
		if (at && sq_str_caseeq(sq_str(at + 1), sq_str(domain)))
			return true;
		for (size_t k = 0; r->from && r->from[k]; k++)
			if ((at = strrchr(r->from[k], '@')) != NULL && fnmatch(at + 1, domain, FNM_CASEFOLD) == 0)
				return true;
	}
	return false;
}

bool
is_local_domain(const struct sq_config *cfg, const char *domain)
{
	char host[256] = "";

	if (sq_str_caseeq(sq_str(domain), SQ_STR("localhost")) || sq_str_caseeq(sq_str(domain), SQ_STR("localhost.localdomain")))
		return true;
	for (size_t i = 0; cfg->local_domains && cfg->local_domains[i]; i++)
		if (fnmatch(cfg->local_domains[i], domain, FNM_CASEFOLD) == 0)
			return true;
	if (gethostname(host, sizeof(host) - 1) < 0 || !host[0] || !sq_str_caseeq(sq_str(host), sq_str(domain)))
		return false;
	return !sends_as(cfg, domain);
}

static enum sq_err
aliases_of(struct submitter *by, struct sq_error *err)
{
	if (by->aliases || !by->cfg->aliases)
		return SQ_OK;
	return aliases_load(by->cfg->aliases, &by->aliases, err);
}

/* root, daemons, and whoever submits: their mail is for the person of this machine. */
static bool
is_own_name(const struct resolve *r, const char *name)
{
	struct passwd pw, *found = NULL;
	char buf[4096];

	if (sq_str_caseeq(sq_str(name), SQ_STR("postmaster")) || sq_str_caseeq(sq_str(name), SQ_STR("mailer-daemon")))
		return true;
	if (getpwnam_r(name, &pw, buf, sizeof(buf), &found) != 0 || !found)
		return false;
	return found->pw_uid < FIRST_PERSON || (int64_t)found->pw_uid == r->by->uid;
}

/* A name of this machine that no alias explains. */
static enum sq_err
complete(const struct resolve *r, struct sq_address *a, bool was_local_domain, struct sq_error *err)
{
	struct sq_address own = { 0 };
	enum sq_err e;

	if (r->own && is_own_name(r, a->text)) {
		if ((e = sq_address_parse(sq_str(r->own), &own, err)) != SQ_OK)
			return e;
		sq_address_fini(a);
		*a = own;
		return SQ_OK;
	}
	if (was_local_domain)
		return sq_error_set(err, SQ_EINVAL, "'%s' is a name of this machine and no alias says where its mail goes (setting `aliases`)", a->text);
	if (!r->domain)
		return sq_error_set(err, SQ_EINVAL, "'%s' has no domain, and neither a sender nor the setting `domain` gives one", a->text);
	return sq_address_qualify(a, r->domain, err);
}

/* The name as the aliases have it: without the quotes that an address needs. */
static struct sq_str
bare_name(const char *local)
{
	size_t n = strlen(local);

	return n >= 2 && local[0] == '"' && local[n - 1] == '"' ? (struct sq_str){ local + 1, n - 2 } : (struct sq_str){ local, n };
}

static enum sq_err
resolve_one(const struct resolve *r, struct to *to, struct to_list *out, struct sq_error *err)
{
	bool local = sq_address_is_qualified(&to->address) && is_local_domain(r->by->cfg, sq_address_domain(&to->address));
	struct sq_address_list l = { 0 };
	bool found = false;
	enum sq_err e;

	if (sq_address_is_qualified(&to->address) && !local)
		return to_list_add(out, &to->address, to->notify, sq_str(to->orcpt), err);
	if (local)
		to->address.text[to->address.at] = '\0';
	if ((e = aliases_of(r->by, err)) != SQ_OK)
		return e;
	if (r->by->aliases && (e = aliases_expand(r->by->aliases, bare_name(to->address.text), local || is_own_name(r, to->address.text), &l, &found, err)) != SQ_OK)
		goto out;
	if (!found) {
		if ((e = complete(r, &to->address, local, err)) == SQ_OK)
			e = to_list_add(out, &to->address, to->notify, sq_str(to->orcpt), err);
		goto out;
	}
	for (size_t i = 0; i < l.n && e == SQ_OK; i++)
		if (sq_address_is_qualified(&l.v[i]) || (e = complete(r, &l.v[i], false, err)) == SQ_OK)
			e = to_list_add(out, &l.v[i], to->notify, sq_str(to->orcpt), err);
out:
	sq_address_list_fini(&l);
	return e;
}

/* Later ones that are the same as an earlier one go. */
static enum sq_err
unique(struct to_list *l, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) size_t *slots = NULL; /* 1 + index */
	size_t size = 16, kept = 0;

	while (size < 2 * l->n)
		size *= 2;
	if (!(slots = calloc(size, sizeof(*slots))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (size_t i = 0; i < l->n; i++) {
		uint64_t h = 0xcbf29ce484222325u;
		size_t s;

		for (const char *p = l->v[i].address.text; *p; p++)
			h = (h ^ ((unsigned char)*p | 0x20)) * 0x100000001b3u;
		for (s = (size_t)h & (size - 1); slots[s] && !sq_address_same(&l->v[slots[s] - 1].address, &l->v[i].address);)
			s = (s + 1) & (size - 1);
		if (slots[s]) {
			sq_address_fini(&l->v[i].address);
			free(l->v[i].orcpt);
			continue;
		}
		if (kept != i)
			l->v[kept] = l->v[i];
		slots[s] = ++kept;
	}
	l->n = kept;
	return SQ_OK;
}

enum sq_err
resolve_recipients(const struct resolve *r, struct to_list *l, struct sq_error *err)
{
	struct to_list out = { 0 };
	enum sq_err e = SQ_OK;

	for (size_t i = 0; i < l->n && e == SQ_OK; i++)
		e = resolve_one(r, &l->v[i], &out, err);
	if (e == SQ_OK)
		e = unique(&out, err);
	if (e != SQ_OK) {
		to_list_fini(&out);
		return e;
	}
	to_list_fini(l);
	*l = out;
	return SQ_OK;
}
