/*
 * `sendq why ID`: what happened, what comes next and when, and the commands
 * that change it, in sentences. Pure but for the command's own reading.
 */
#include <inttypes.h>
#include <sysexits.h>

#include <sendq/doubt.h>
#include <sendq/link.h>

#include "status.h"

static void
span(int64_t ms, struct sq_buf *out)
{
	char text[32];

	text_ago(ms, text);
	sq_buf_adds(out, text);
}

static void
quote(const struct sq_reply *r, struct sq_buf *out)
{
	if (r->text.n == 0 && r->code == 0)
		return;
	sq_buf_adds(out, r->code ? " The server said: \"" : " Reason: ");
	text_reply(r, out);
	sq_buf_adds(out, r->code ? "\"." : ".");
}

/* Why the route as a whole waits, and until when. */
static void
route_waits(const struct sq_link_row *l, int64_t now_ms, struct sq_buf *out)
{
	static const struct { const char *cause, *words; } table[] = {
		{ "offline", "the server's name is not found, or there is no network" },
		{ "unreachable", "the server cannot be reached" },
		{ "tls", "the server offers no working TLS, and mail is never sent in the clear" },
		{ "certificate", "the server's certificate is not what it should be (perhaps the login page of a Wi-Fi)" },
		{ "login", "the server refuses the login" },
		{ "login_later", "the server cannot check the login now" },
		{ "secret", "the password could not be had" },
		{ "quota", "the provider's limit is reached; nothing is lost, it goes on by itself" },
		{ "cut", "the connection broke" },
		{ "stalled", "the connection went dead" },
		{ "protocol", "the server did not speak SMTP" },
		{ "deferred", "the server asked to come back later" },
		{ "doubt", "the connection broke" },
		{ "local", "something failed on this machine" },
	};
	const char *words = l->cause;

	for (size_t i = 0; i < SQ_LEN(table); i++)
		if (strcmp(table[i].cause, l->cause) == 0)
			words = table[i].words;
	sq_buf_addf(out, " Route '%s' %s: %s", l->route, l->stopped ? "is stopped" : "waits", words);
	if (l->failures > 1)
		sq_buf_addf(out, " (%" PRId64 " times in a row)", l->failures);
	sq_buf_adds(out, ".");
	if (l->reply_text[0] || l->reply_code) {
		struct sq_reply r = { .code = l->reply_code, .text = sq_str(l->reply_text) };

		memcpy(r.enhanced, l->reply_enhanced, sizeof(r.enhanced));
		quote(&r, out);
	}
	if (l->next_try_ms > now_ms) {
		sq_buf_adds(out, " Next try in ");
		span(l->next_try_ms - now_ms, out);
		sq_buf_adds(out, ", or at once with `sendq flush`.");
	}
}

static void
fallback(const struct sq_route *route, struct sq_buf *out)
{
	if (!route->fallback)
		return;
	sq_buf_addf(out, " Its fallback '%s' takes what has waited for ", route->fallback);
	span(route->fallback_after_ms, out);
	sq_buf_addf(out, " if it cannot be reached or refuses us for so long.");
}

/* Attempts that broke off in the content: where the server delivers such copies, so many may exist. */
static void
partial_copies(const struct sq_message *m, const struct sq_route *route, struct sq_buf *out)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_attempts; i++) {
		const struct sq_attempt *a = &m->attempts[i];

		n += a->ended_ms > 0 && a->phase >= SQ_PHASE_CONTENT && a->outcome != SQ_OUTCOME_ACCEPTED && a->outcome != SQ_OUTCOME_MIXED &&
			a->outcome != SQ_OUTCOME_DEFERRED && a->outcome != SQ_OUTCOME_REFUSED && a->outcome != SQ_OUTCOME_QUOTA;
	}
	if (!route || route->keeps_partial != SQ_YES || n == 0)
		return;
	/* The history of a message is thinned after twenty attempts. */
	sq_buf_addf(out, " This server delivers what came before a cut: %s%zu partial cop%s may exist; it is tried at most every hour and six times a day.",
		m->n_attempts >= 20 ? "at least " : "", n, n == 1 ? "y" : "ies");
}

/* The start rule: why it is not even tried, and what ends that. */
static void
better_link(const struct sq_message *m, const struct sq_recipient *r, const struct sq_link_row *l, int cuts_day, int64_t now_ms, const char *id, struct sq_buf *out)
{
	struct sq_estimate e = sq_quality_estimate(&l->quality, now_ms);
	double chance = sq_order_chance(&e, (double)m->size, cuts_day), by_link = sq_order_chance(&e, (double)m->size, 0);
	char size[16], mean[16];

	text_size(m->size, size);
	text_size((uint64_t)e.mean_octets, mean);
	sq_buf_adds(out, " It waits for a better link:");
	if (r->waits == SQ_WAITS_PARTIAL)
		sq_buf_adds(out, " this server delivers what came before a cut, so that it is tried once an hour and six times a day at most.");
	else if (chance < by_link)
		sq_buf_addf(out, " its %s broke off here %d times within a day, so that the next try would get it through with a chance of %.0f %%.", size, cuts_day, 100 * chance);
	else
		sq_buf_addf(out, " here the connection breaks about every %s, so that its %s would get through with a chance of %.0f %%.", mean, size, 100 * chance);
	sq_buf_addf(out, " It goes when the link gets better%s, in ", r->waits == SQ_WAITS_PARTIAL ? "" : ", on another network");
	span(r->next_try_ms - now_ms, out);
	sq_buf_addf(out, " at the latest, or at once with `sendq flush %s`.", id);
}

/* Is it the route as a whole that waits, and says why? */
static bool
route_sentence(const struct sq_recipient *r, const struct sq_link_row *l, int64_t now_ms)
{
	return (l->next_try_ms > now_ms || l->stopped) && l->cause[0] && !link_portal(l) && r->waits != SQ_WAITS_BETTER_LINK && r->waits != SQ_WAITS_PARTIAL;
}

static void
queued(const struct sq_message *m, const struct sq_recipient *r, const struct sq_link_row *l, const struct sq_route *route, int cuts_day, int64_t now_ms, const char *id, struct sq_buf *out)
{
	const struct sq_attempt *last = m->n_attempts > 0 ? &m->attempts[m->n_attempts - 1] : NULL;
	const struct sq_reply *said;

	sq_buf_addf(out, "%s: waits.", r->address);
	if (m->n_attempts == 0 && m->not_before_ms > now_ms) {
		sq_buf_adds(out, " It is kept back as you asked, and goes in ");
		span(m->not_before_ms - now_ms, out);
		sq_buf_addf(out, "; `sendq undo %s` takes it back, `sendq edit %s --at WHEN` moves it, `sendq flush %s` sends it now.", id, id, id);
		return;
	}
	if (m->n_attempts == 0)
		sq_buf_adds(out, " It was not tried yet.");
	else
		sq_buf_addf(out, " It was tried %zu time%s; the last try ended: %s at %s.", m->n_attempts, m->n_attempts == 1 ? "" : "s",
			sq_outcome_name(last->outcome), sq_phase_name(last->phase));
	said = r->reply.code || !last ? &r->reply : &last->reply;
	/* Not what the route's own sentence says again. */
	if (!route || !route_sentence(r, l, now_ms) || said->code != l->reply_code || !sq_str_eq(said->text, sq_str(l->reply_text)))
		quote(said, out);
	if (!route) {
		sq_buf_addf(out, " Its route '%s' is not in the configuration any more, so nothing tries it: name a route \"%s\" again"
			" (renaming one back is enough), or take the message out with `sendq remove %s`.", m->route, m->route, id);
	} else if (link_portal(l)) {
		sq_buf_addf(out, " Route '%s' waits: the network asks for a sign-in (captive portal). It goes on by itself when that is done,"
			" and is tried every half hour all the same; `sendq flush %s` tries at once.", l->route, id);
	} else if (r->waits == SQ_WAITS_BETTER_LINK || r->waits == SQ_WAITS_PARTIAL) {
		better_link(m, r, l, cuts_day, now_ms, id, out);
	} else if (route_sentence(r, l, now_ms)) {
		route_waits(l, now_ms, out);
		fallback(route, out);
	} else if (r->next_try_ms > now_ms) {
		sq_buf_adds(out, " Next try in ");
		span(r->next_try_ms - now_ms, out);
		sq_buf_addf(out, ", or at once with `sendq flush %s`.", id);
	} else {
		sq_buf_addf(out, " It goes as soon as the route is free; is the daemon running? `sendq flush %s` tries now.", id);
	}
	if (r->durable_octets > 0)
		sq_buf_addf(out, " The server keeps %" PRId64 " of %" PRIu64 " octets: they are not sent again.", r->durable_octets, m->size);
	else if (m->n_attempts > 0 && !(l->caps & SQ_CAP_CHECKPOINT))
		sq_buf_adds(out, " This server cannot resume: the next try begins at the first octet.");
	if (m->expires_ms > now_ms) {
		sq_buf_adds(out, " It is given up, with a report, in ");
		span(m->expires_ms - now_ms, out);
		sq_buf_adds(out, ".");
	}
}

/* What evidence said so far, and what comes next by itself. */
static void
doubt_next(const struct sq_doubt *d, const struct sq_route *route, const char *learned, int64_t now_ms, struct sq_buf *out)
{
	struct sq_doubt_in in = { .now_ms = now_ms, .since_ms = d->since_ms, .expires_ms = d->expires_ms, .next_ask_ms = d->next_ask_ms,
		.usable_ms = d->usable_ms, .asked = d->asked, .negatives = d->negatives, .service = d->auto_submitted && d->duplicates == SQ_OWN_ROUTES };
	struct sq_doubt_out next;

	if (d->quote[0])
		sq_buf_addf(out, " The %s was asked: %s.", d->source, d->quote);
	if (d->resumable) {
		sq_buf_adds(out, " This server keeps what it was sent, and what it answered: as soon as it is reached, the server is asked itself.");
		return;
	}
	if (!route)
		return;
	in.source = route->imap || route->mta_log;
	in.policy = sq_doubt_policy_of((int)d->duplicates, (int)route->duplicates);
	in.id = sq_doubt_id_of(route->message_id, learned, route->host);
	next = sq_doubt_decide(&in);
	if (next.action == SQ_DOUBT_WAIT && next.usable_ms != INT64_MAX) {
		sq_buf_adds(out, " It is sent again after ");
		span(next.usable_ms, out);
		sq_buf_adds(out, " more of usable link: this server keeps the Message-ID, so that a second copy can be recognised.");
	} else if (next.action == SQ_DOUBT_WAIT && in.source) {
		sq_buf_adds(out, " It is asked again in ");
		span(next.when_ms - now_ms, out);
		sq_buf_adds(out, ".");
	} else if (next.action == SQ_DOUBT_ASK_NOW) {
		sq_buf_adds(out, in.source ? " Evidence is due to be asked for." : " The link is due to be tried.");
	} else if (next.action == SQ_DOUBT_RESEND) {
		sq_buf_adds(out, " It is about to be sent again.");
	} else if (next.action == SQ_DOUBT_WAIT) {
		sq_buf_adds(out, " It is not sent again by itself.");
	}
}

static void
doubt(const struct sq_recipient *r, const struct sq_link_row *l, const struct sq_doubt *d, const struct sq_route *route, const char *learned, int64_t now_ms, const char *id, struct sq_buf *out)
{
	sq_buf_addf(out, "%s: in doubt for ", r->address);
	span(now_ms - r->state_ms, out);
	sq_buf_adds(out, ". The whole message went out and the connection broke before the server's answer was read:"
		" the server may have it, or not.");
	quote(&r->reply, out);
	doubt_next(d, route, learned, now_ms, out);
	if (link_portal(l))
		sq_buf_adds(out, " The network asks for a sign-in (captive portal): until that is done the server is not asked.");
	sq_buf_addf(out, " If it arrived: `sendq settle %s sent`. If it certainly did not: `sendq settle %s unsent`."
		" To send it again and risk a second copy (same Message-ID): `sendq resend %s`.", id, id, id);
}

static void
why_recipient(const struct sq_message *m, const struct sq_recipient *r, const struct sq_link_row *l, const struct sq_doubt *d, const struct sq_route *route,
	const char *learned, int cuts_day, int64_t now_ms, struct sq_buf *out)
{
	char id[SQ_ID_TEXT];

	sq_id_format(m->id, id);
	switch (r->state) {
	case SQ_STATE_QUEUED:
		queued(m, r, l, route, cuts_day, now_ms, id, out);
		partial_copies(m, route, out);
		return;
	case SQ_STATE_SENDING:
		sq_buf_addf(out, "%s: is being sent", r->address);
		if (m->size > 0)
			sq_buf_addf(out, "; %" PRId64 " of %" PRIu64 " octets are acknowledged", r->acked_octets, m->size);
		sq_buf_adds(out, ".");
		return;
	case SQ_STATE_COMMITTING:
		sq_buf_addf(out, "%s: the whole message is out; the server's answer has been awaited for ", r->address);
		span(now_ms - r->state_ms, out);
		sq_buf_adds(out, ". If the connection breaks now, it is in doubt.");
		return;
	case SQ_STATE_DOUBT:
		doubt(r, l, d, route, learned, now_ms, id, out);
		partial_copies(m, route, out);
		return;
	case SQ_STATE_HELD:
		sq_buf_addf(out, "%s: held for ", r->address);
		span(now_ms - r->state_ms, out);
		sq_buf_adds(out, ".");
		quote(&r->reply, out);
		sq_buf_addf(out, " `sendq release %s` lets it go, `sendq remove %s` takes it out.", id, id);
		return;
	case SQ_STATE_SENT:
		sq_buf_addf(out, "%s: accepted by the server ", r->address);
		span(now_ms - r->state_ms, out);
		sq_buf_adds(out, " ago.");
		quote(&r->reply, out);
		if (r->unknown_copies > 0)
			sq_buf_adds(out, " It was sent again while in doubt: it may have arrived twice.");
		return;
	case SQ_STATE_FAILED:
		sq_buf_addf(out, "%s: refused for good.", r->address);
		quote(&r->reply, out);
		sq_buf_addf(out, " %s `sendq resend %s` tries again, while the content is kept.", r->reported_ms ? "A report was delivered." : "A report is due.", id);
		return;
	case SQ_STATE_EXPIRED:
		sq_buf_addf(out, "%s: given up because it waited too long.", r->address);
		quote(&r->reply, out);
		return;
	case SQ_STATE_REMOVED:
		sq_buf_addf(out, "%s: taken out by hand ", r->address);
		span(now_ms - r->state_ms, out);
		sq_buf_adds(out, " ago.");
		return;
	case SQ_STATE_COUNT:
		break;
	}
}

void
why_message(const struct sq_message *m, const struct sq_link_row *link, const struct sq_doubt *d, const struct sq_route *route,
	const char *learned, int cuts_day, int64_t now_ms, struct sq_buf *out)
{
	for (size_t i = 0; i < m->n_recipients; i++) {
		why_recipient(m, &m->recipients[i], link, d, route, learned, cuts_day, now_ms, out);
		sq_buf_addc(out, '\n');
	}
}

static void
take_doubt(void *arg, const struct sq_doubt *d)
{
	*(struct sq_doubt *)arg = *d;
}

int
cmd_why(struct cli *c, int argc, char **argv)
{
	if (argc == 0)
		return cli_usage("why needs an ID");
	for (int i = 0; i < argc; i++) {
		SQ_CLEANUP(sq_buf_fini) struct sq_buf words = SQ_BUF_INIT(16 * 1024 * 1024);
		struct sq_message *m = NULL;
		struct sq_message_id id;
		struct sq_link_row link;
		struct sq_doubt d = { 0 };
		struct sq_candidate now;
		SQ_CLEANUP(sq_freep) char *learned = NULL;
		struct json j = JSON_INIT;
		char full[SQ_ID_TEXT];

		if (!cli_id(c, argv[i], &id))
			return EX_NOINPUT;
		if (sq_queue_show(c->q, id, &m, &c->err) != SQ_OK)
			return cli_fail(c);
		link_of(c, m->route, &link);
		if (sq_queue_doubts(c->q, m->route, id, take_doubt, &d, &c->err) != SQ_OK ||
		    sq_queue_learned(c->q, m->route, "message_id", &learned, &c->err) != SQ_OK ||
		    sq_queue_candidate(c->q, id, c->now_ms, &now, &c->err) != SQ_OK) {
			sq_message_free(m);
			return cli_fail(c);
		}
		sq_id_format(id, full);
		why_message(m, &link, &d, sq_config_route(c->cfg, m->route), learned, now.cuts_day, c->now_ms, &words);
		if (c->json) {
			json_open(&j, NULL, '{');
			json_text(&j, "id", full);
			json_str(&j, "why", (struct sq_str){ words.p, words.n });
			json_close(&j, '}');
			json_line(&j);
		} else {
			char *rest = words.p; /* a line a recipient */

			for (size_t k = 0; k < words.n; k++)
				words.p[k] = words.p[k] ? words.p[k] : '?';
			for (char *line = strsep(&rest, "\n"); line && rest; line = strsep(&rest, "\n")) {
				print_wrapped(line, 0, 2);
				putchar('\n');
			}
		}
		sq_buf_fini(&j.b);
		sq_message_free(m);
	}
	return EX_OK;
}
