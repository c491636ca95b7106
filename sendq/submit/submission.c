/*
 * The way of one message into the queue. Decides sender, route, recipients
 * and what the header lacks; the octets go through the intake into an ingest
 * of the queue as they come. Nothing exists before submission_commit().
 */
#include "submission.h"

#include <sys/statvfs.h>
#include <sysexits.h>

#include <sendq/fault.h>
#include <sendq/io.h>

#include "aliases.h"

struct submission {
	struct submitter *by;
	struct wish wish;
	const struct sq_route *route;
	struct sq_ingest *ingest;
	struct sq_intake *intake;
	struct sq_address sender;     /* envelope; text NULL: the null sender */
	struct to_list to;
	const char *id_domain;        /* stands in Message-IDs */
	char *from;                   /* address for a From that is missing or replaced */
	char *own;                    /* the address for mail to this machine's own names */
	int64_t now_ms;
	int exit_hint;                /* sysexits code where the error's own does not fit; 0: none */
};

void
submitter_fini(struct submitter *by)
{
	sq_queue_close(by->q);
	aliases_free(by->aliases);
	by->q = NULL;
	by->aliases = NULL;
}

int
submission_exit(const struct submission *s)
{
	return s ? s->exit_hint : 0;
}

static enum sq_err
refuse(struct submission *s, int status, struct sq_error *err, const char *fmt, ...) SQ_PRINTF(4, 5);

static enum sq_err
refuse(struct submission *s, int status, struct sq_error *err, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	s->exit_hint = status;
	return sq_error_set(err, SQ_EINVAL, "%s", text);
}

/* ---- who sends ---- */

static bool
null_sender(const char *f)
{
	return f && (f[0] == '\0' || strcmp(f, "<>") == 0);
}

/* Nobody outside can answer it: "root", and "root@thismachine" where masquerading is on. */
static bool
names_nobody_outside(const struct submission *s, const struct sq_address *a)
{
	if (!sq_address_is_qualified(a))
		return true;
	return s->by->cfg->masquerade != SQ_MASQUERADE_OFF && is_local_domain(s->by->cfg, sq_address_domain(a));
}

/* The From field's address, if it can be mailed to. NULL: none. */
static enum sq_err
usable_from(const struct submission *s, const struct sq_intake_facts *facts, const char **out, struct sq_error *err)
{
	struct sq_address a = { 0 };
	enum sq_err e;

	*out = NULL;
	if (!facts->from)
		return SQ_OK;
	if ((e = sq_address_parse(sq_str(facts->from), &a, err)) != SQ_OK)
		return e;
	if (!names_nobody_outside(s, &a))
		*out = facts->from;
	sq_address_fini(&a);
	return SQ_OK;
}

static enum sq_err
set_sender(struct submission *s, const char *address, int status, struct sq_error *err)
{
	enum sq_err e = sq_address_parse(sq_str(address), &s->sender, err);

	if (e != SQ_OK) {
		s->exit_hint = status;
		return sq_error_wrap(err, e, "sender");
	}
	return SQ_OK;
}

static const char *
own_address(const struct submission *s)
{
	return s->route->user && strchr(s->route->user, '@') ? s->route->user : s->by->cfg->identity;
}

/*
 * The envelope sender: the route's force_from; else -f; else the header's
 * From; else the route's user if it is an address, else `identity` (DESIGN
 * §4). One that nobody outside can answer (cron's "root") counts as none
 * given; a From that cannot be read is refused, for a guess could take the
 * wrong account. The null sender says nothing of the account, so From chooses
 * the route.
 */
static enum sq_err
choose_sender(struct submission *s, const struct sq_intake_facts *facts, struct sq_error *err)
{
	const char *given = s->wish.sender, *header_from = NULL, *fallback;
	struct sq_address a = { 0 };
	enum sq_err e;

	if (given && !null_sender(given)) {
		if ((e = sq_address_parse(sq_str(given), &a, err)) != SQ_OK) {
			s->exit_hint = EX_DATAERR;
			return sq_error_wrap(err, e, "sender");
		}
		if (names_nobody_outside(s, &a)) {
			sq_address_fini(&a);
			given = NULL;
		}
	}
	if ((e = usable_from(s, facts, &header_from, err)) != SQ_OK)
		return e;
	if (!given && !facts->from && facts->from_fault)
		return refuse(s, EX_DATAERR, err, "the From field: %s", facts->from_fault);
	s->route = sq_config_route_for(s->by->cfg, a.text, header_from);
	if (!s->route) {
		sq_address_fini(&a);
		return refuse(s, EX_CONFIG, err, "no route in '%s' matches the sender '%s'", s->by->cfg->path, given ? given : facts->from ? facts->from : "(none)");
	}
	if (null_sender(given))
		return SQ_OK;
	if (s->route->force_from) {
		sq_address_fini(&a);
		return set_sender(s, s->route->force_from, EX_CONFIG, err);
	}
	if (a.text) {
		s->sender = a;
		return SQ_OK;
	}
	fallback = header_from ? header_from : own_address(s);
	if (!fallback)
		return refuse(s, EX_CONFIG, err, "no sender: give -f, a From field, or set `identity` in '%s'", s->by->cfg->path);
	return set_sender(s, fallback, fallback == header_from ? EX_DATAERR : EX_CONFIG, err);
}

/* The domain that completes names without one and stands in Message-IDs. */
static const char *
sender_domain(const struct submission *s)
{
	const char *identity = s->by->cfg->identity ? strrchr(s->by->cfg->identity, '@') : NULL, *user = s->route->user ? strrchr(s->route->user, '@') : NULL;

	if (s->sender.text && sq_address_is_qualified(&s->sender))
		return sq_address_domain(&s->sender);
	return identity ? identity + 1 : user ? user + 1 : NULL;
}

/*
 * Does the header's From get the sender's address? Where the route forces it;
 * where it has no domain at all, which no server takes; and where the
 * administrator asked that names of this machine be hidden in the header too.
 * Never under a DKIM signature, which covers it.
 */
static enum sq_err
replace_from(const struct submission *s, const struct sq_intake_facts *facts, bool *out, struct sq_error *err)
{
	struct sq_address a = { 0 };
	enum sq_err e;

	*out = false;
	if (!facts->from || facts->dkim || !s->from)
		return SQ_OK;
	if ((e = sq_address_parse(sq_str(facts->from), &a, err)) != SQ_OK)
		return e;
	if (s->route->force_from)
		*out = !sq_str_caseeq(sq_str(a.text), sq_str(s->route->force_from));
	else if (!sq_address_is_qualified(&a))
		*out = true;
	else
		*out = s->by->cfg->masquerade == SQ_MASQUERADE_HEADER && is_local_domain(s->by->cfg, sq_address_domain(&a));
	sq_address_fini(&a);
	return SQ_OK;
}

/* ---- callbacks of the intake ---- */

static enum sq_err
on_header(void *arg, const struct sq_intake_facts *facts, struct sq_intake_missing *missing, struct sq_error *err)
{
	struct submission *s = arg;
	const char *own, *domain;
	bool replace = false;
	enum sq_err e = choose_sender(s, facts, err);

	if (e != SQ_OK)
		return e;
	own = s->by->cfg->identity ? s->by->cfg->identity : own_address(s);
	domain = sender_domain(s);
	s->id_domain = domain ? domain : "localhost.invalid";
	if (s->sender.text)
		s->from = sq_str_dup(sq_str(s->sender.text));
	else if (s->by->cfg->identity || s->route->user)
		s->from = sq_str_dup(sq_str(s->by->cfg->identity ? s->by->cfg->identity : s->route->user));
	if (own && !(s->own = sq_str_dup(sq_str(own))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = replace_from(s, facts, &replace, err)) != SQ_OK)
		return e;
	*missing = (struct sq_intake_missing){ .from = s->from, .full_name = s->wish.full_name, .id_domain = s->id_domain, .now_ms = s->now_ms,
		.replace_from = replace, .undisclosed = true };
	return SQ_OK;
}

static enum sq_err
too_large(struct submission *s, struct sq_error *err)
{
	int64_t max = s->by->cfg->message_size_max;
	bool whole_k = max % 1024 == 0;

	s->exit_hint = EX_DATAERR;
	return sq_error_set(err, SQ_ELIMIT, "the message is larger than message_size_max allows (%lld%s)", (long long)(whole_k ? max / 1024 : max), whole_k ? "K" : " octets");
}

static enum sq_err
on_content(void *arg, const void *p, size_t n, struct sq_error *err)
{
	struct submission *s = arg;

	SQ_FAULT(submit_chunk);
	if (s->by->cfg->message_size_max > 0 && sq_ingest_size(s->ingest) + n > (uint64_t)s->by->cfg->message_size_max)
		return too_large(s, err);
	return sq_ingest_write(s->ingest, p, n, err);
}

/* ---- the way in ---- */

static enum sq_err
check_disk(const struct sq_config *cfg, struct sq_error *err)
{
	struct statvfs v;
	SQ_CLEANUP(sq_freep) char *dir = sq_str_dup(sq_str(cfg->queue));
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash || cfg->free_disk_min == 0)
		return SQ_OK;
	*(slash == dir ? slash + 1 : slash) = '\0';
	if (statvfs(dir, &v) < 0 || (uint64_t)v.f_bavail * v.f_frsize >= (uint64_t)cfg->free_disk_min)
		return SQ_OK;
	return sq_error_set(err, SQ_ENOSPC, "the disk of the queue '%s' is nearly full (%llu octets free; free_disk_min): try later",
		cfg->queue, (unsigned long long)v.f_bavail * v.f_frsize);
}

enum sq_err
submission_new(struct submitter *by, const struct wish *wish, struct submission **out, struct sq_error *err)
{
	SQ_CLEANUP(submission_freep) struct submission *s = calloc(1, sizeof(*s));
	struct sq_intake_options options = { .dot_ends = wish->dot_ends, .want_recipients = wish->want_recipients };
	struct sq_intake_ops ops = { .header = on_header, .sink = on_content };
	enum sq_err e;

	if (!s)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	s->by = by;
	s->wish = *wish;
	s->now_ms = sq_wall_ms();
	ops.arg = s;
	if ((!by->q && (e = sq_queue_open(by->cfg->queue, SQ_QUEUE_SUBMIT, &by->q, err)) != SQ_OK) ||
	    (e = check_disk(by->cfg, err)) != SQ_OK ||
	    (e = sq_ingest_begin(by->q, &s->ingest, err)) != SQ_OK ||
	    (e = sq_intake_new(options, ops, &s->intake, err)) != SQ_OK)
		return e;
	*out = s;
	s = NULL;
	return SQ_OK;
}

void
submission_free(struct submission *s)
{
	if (!s)
		return;
	sq_ingest_abort(s->ingest);
	sq_intake_free(s->intake);
	sq_address_fini(&s->sender);
	to_list_fini(&s->to);
	free(s->from);
	free(s->own);
	free(s);
}

void
submission_freep(struct submission **s)
{
	submission_free(*s);
	*s = NULL;
}

enum sq_err
submission_add(struct submission *s, struct sq_str addresses, uint8_t notify, struct sq_str orcpt, struct sq_error *err)
{
	struct sq_address_list l = { 0 };
	enum sq_err e = sq_address_parse_list(addresses, &l, err);

	if (e != SQ_OK)
		s->exit_hint = EX_DATAERR;
	for (size_t i = 0; e == SQ_OK && i < l.n; i++)
		e = s->to.n < SQ_RECIPIENTS_MAX ? to_list_add(&s->to, &l.v[i], notify, orcpt, err)
			: sq_error_set(err, SQ_ELIMIT, "a message has at most %d recipients", SQ_RECIPIENTS_MAX);
	sq_address_list_fini(&l);
	return e;
}

enum sq_err
submission_feed(struct submission *s, const void *p, size_t n, bool *ended, struct sq_error *err)
{
	return sq_intake_feed(s->intake, p, n, ended, err);
}

bool
submission_mended(const struct submission *s, char out[160])
{
	const struct sq_intake_facts *facts = sq_intake_facts(s->intake);

	if (facts->nuls + facts->bare_cr == 0)
		return false;
	snprintf(out, 160, "mended in the body: %llu bare CR made line ends, %llu NUL dropped", (unsigned long long)facts->bare_cr, (unsigned long long)facts->nuls);
	return true;
}

/* ---- recipients ---- */

static enum sq_err
collect_recipients(struct submission *s, const struct sq_intake_facts *facts, struct sq_error *err)
{
	struct resolve r = { .by = s->by, .domain = s->by->cfg->domain ? s->by->cfg->domain : sender_domain(s), .own = s->own };
	enum sq_err e;

	for (size_t i = 0; i < facts->recipients.n; i++)
		if ((e = submission_add(s, sq_str(facts->recipients.v[i].text), s->wish.notify, (struct sq_str){ 0 }, err)) != SQ_OK)
			return e;
	if (s->to.n == 0)
		return refuse(s, EX_USAGE, err, s->wish.want_recipients ? "no recipients: none in To, Cc or Bcc and none given" : "no recipients: name them, or use -t");
	if ((e = resolve_recipients(&r, &s->to, err)) != SQ_OK) {
		s->exit_hint = e == SQ_EINVAL ? EX_DATAERR : e == SQ_ENOENT || e == SQ_EPERM ? EX_CONFIG : 0;
		return e;
	}
	if (s->to.n > SQ_RECIPIENTS_MAX)
		return refuse(s, EX_DATAERR, err, "%zu recipients are too many (%d)", s->to.n, SQ_RECIPIENTS_MAX);
	return SQ_OK;
}

/* RFC 3461 §4: printable ASCII but for '+' and '='. */
static void
add_xtext(const char *v, struct sq_buf *out)
{
	for (const unsigned char *p = (const unsigned char *)v; *p; p++) {
		if (*p < '!' || *p > '~' || *p == '+' || *p == '=')
			sq_buf_addf(out, "+%02X", *p);
		else
			sq_buf_addc(out, (char)*p);
	}
}

/* Who asks for reports wants to know the address as it was given (RFC 3461 §4.2). */
static enum sq_err
give_orcpts(struct to_list *l, struct sq_error *err)
{
	for (size_t i = 0; i < l->n; i++) {
		struct sq_buf b = SQ_BUF_INIT(4096);
		enum sq_err e;

		if (l->v[i].notify == 0 || l->v[i].orcpt || l->v[i].address.utf8)
			continue;
		sq_buf_adds(&b, "rfc822;");
		add_xtext(l->v[i].address.text, &b);
		if ((e = sq_buf_take(&b, &l->v[i].orcpt, err)) != SQ_OK) {
			sq_buf_fini(&b);
			return e;
		}
	}
	return SQ_OK;
}

/* When the first try is due, and when it is given up. */
static enum sq_err
set_times(struct submission *s, struct sq_submission *sub, struct sq_error *err)
{
	int64_t undo = s->by->cfg->undo_window_ms;

	sub->submitted_ms = s->now_ms;
	sub->not_before_ms = undo > 0 ? s->now_ms + undo : 0;
	if (s->wish.not_before_ms > sub->not_before_ms)
		sub->not_before_ms = s->wish.not_before_ms;
	sub->expires_ms = (sub->not_before_ms > s->now_ms ? sub->not_before_ms : s->now_ms) + s->route->expire_ms;
	if (s->wish.deadline_ms == 0)
		return SQ_OK;
	if (s->wish.deadline_ms <= s->now_ms || s->wish.deadline_ms <= sub->not_before_ms)
		return refuse(s, EX_USAGE, err, "the deadline is over before the message may be sent");
	if (s->wish.deadline_ms < sub->expires_ms)
		sub->expires_ms = s->wish.deadline_ms;
	return SQ_OK;
}

static enum sq_err
commit(struct submission *s, const struct sq_intake_facts *facts, struct sq_submitted *done, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_new_recipient *to = calloc(s->to.n, sizeof(*to));
	SQ_CLEANUP(sq_buf_fini) struct sq_buf envid = SQ_BUF_INIT(400);
	struct sq_ingest *ingest = s->ingest;
	bool utf8 = facts->smtputf8 || s->sender.utf8;
	struct sq_submission sub = { 0 };
	enum sq_err e;

	if (!to)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = set_times(s, &sub, err)) != SQ_OK || (e = give_orcpts(&s->to, err)) != SQ_OK)
		return e;
	for (size_t i = 0; i < s->to.n; i++) {
		to[i] = (struct sq_new_recipient){ .address = sq_str(s->to.v[i].address.text), .orcpt = sq_str(s->to.v[i].orcpt), .notify = s->to.v[i].notify };
		utf8 |= s->to.v[i].address.utf8;
	}
	if (s->wish.envid)
		add_xtext(s->wish.envid, &envid);
	sub.message_id = sq_str(facts->message_id);
	sub.sender = sq_str(s->sender.text);
	sub.header_from = sq_str(facts->from ? facts->from : s->from);
	sub.subject = sq_str(facts->subject);
	sub.route = s->route->name;
	sub.source = s->by->source;
	sub.uid = s->by->uid;
	sub.priority = s->by->priority;
	sub.duplicate_window_ms = s->by->cfg->duplicate_window_ms;
	sub.queue_size_max = s->by->cfg->queue_size_max;
	sub.ret = s->wish.ret;
	sub.duplicates = s->wish.duplicates;
	sub.envid = (struct sq_str){ envid.p, envid.n };
	sub.flags = (facts->eightbit ? SQ_TXN_8BIT : 0u) | (utf8 ? SQ_TXN_SMTPUTF8 : 0u);
	sub.auto_submitted = facts->auto_submitted;
	sub.recipients = to;
	sub.n_recipients = s->to.n;
	s->ingest = NULL; /* commit frees it in every case */
	SQ_FAULT(submit_before_commit);
	if ((e = sq_ingest_commit(ingest, &sub, done, err)) == SQ_OK)
		SQ_FAULT(submit_after_commit);
	if (e == SQ_EIO || e == SQ_ECOMMIT) { /* such a handle is closed: the next message opens anew */
		sq_queue_close(s->by->q);
		s->by->q = NULL;
	}
	return e;
}

enum sq_err
submission_commit(struct submission *s, struct sq_submitted *done, struct sq_error *err)
{
	const struct sq_intake_facts *facts = sq_intake_facts(s->intake);
	enum sq_err e;

	if ((e = sq_intake_finish(s->intake, err)) != SQ_OK)
		return e;
	if (facts->empty)
		return refuse(s, EX_NOINPUT, err, "the message is empty: nothing came on standard input");
	if ((e = collect_recipients(s, facts, err)) != SQ_OK)
		return e;
	return commit(s, facts, done, err);
}

enum sq_err
submission_where(struct submitter *by, const struct wish *wish, struct sq_str addresses, struct to_list *out, char route[65], struct sq_error *err)
{
	struct submission s = { .by = by, .wish = *wish };
	struct sq_intake_facts nothing = { 0 };
	const char *own, *domain;
	enum sq_err e = choose_sender(&s, &nothing, err);

	if (e == SQ_OK) {
		own = by->cfg->identity ? by->cfg->identity : own_address(&s);
		domain = by->cfg->domain ? by->cfg->domain : sender_domain(&s);
		snprintf(route, 65, "%s", s.route->name);
		if ((e = submission_add(&s, addresses, 0, (struct sq_str){ 0 }, err)) == SQ_OK)
			e = resolve_recipients(&(struct resolve){ .by = by, .domain = domain, .own = own }, &s.to, err);
	}
	if (e == SQ_OK) {
		*out = s.to;
		s.to = (struct to_list){ 0 };
	}
	sq_address_fini(&s.sender);
	to_list_fini(&s.to);
	return e;
}
