/*
 * The policy for messages in doubt, in one place.
 */
#include <string.h>

#include <sendq/doubt.h>

#define MINUTE INT64_C(60000)

int64_t
sq_doubt_ask_gap_ms(int n)
{
	static const int64_t gaps[] = { 4 * MINUTE, 10 * MINUTE, 45 * MINUTE };

	return n >= 1 && (size_t)n <= SQ_LEN(gaps) ? gaps[n - 1] : 60 * MINUTE;
}

static struct sq_doubt_out
decided(enum sq_doubt_action action, enum sq_doubt_why why)
{
	return (struct sq_doubt_out){ .action = action, .why = why, .when_ms = INT64_MAX, .usable_ms = INT64_MAX };
}

static int64_t
next_ask(const struct sq_doubt_in *in)
{
	return in->next_ask_ms > 0 ? in->next_ask_ms : in->since_ms + SQ_DOUBT_FIRST_ASK_MS;
}

struct sq_doubt_out
sq_doubt_decide(const struct sq_doubt_in *in)
{
	bool ends_by_time = in->policy == SQ_DOUBT_AVOID && in->id == SQ_DOUBT_ID_KEPT;
	bool asks = in->source || ends_by_time;
	struct sq_doubt_out out;

	if (in->now_ms >= in->expires_ms)
		return decided(SQ_DOUBT_GIVE_UP, SQ_DOUBT_WHY_EXPIRED);
	if (in->policy == SQ_DOUBT_ALLOW)
		return decided(SQ_DOUBT_RESEND, SQ_DOUBT_WHY_ALLOWED);
	if (in->policy == SQ_DOUBT_AVOID && in->service)
		return decided(SQ_DOUBT_RESEND, SQ_DOUBT_WHY_SERVICE);
	/* After a long sleep an ask is overdue: it comes before any decision by time. */
	if (asks && in->now_ms >= next_ask(in))
		return decided(SQ_DOUBT_ASK_NOW, SQ_DOUBT_WHY_EVIDENCE);
	if (in->policy == SQ_DOUBT_AVOID && in->negatives >= SQ_DOUBT_NEGATIVES)
		return decided(SQ_DOUBT_RESEND, SQ_DOUBT_WHY_NEGATIVE);
	if (ends_by_time && in->asked > 0 && in->usable_ms >= SQ_DOUBT_KEPT_USABLE_MS)
		return decided(SQ_DOUBT_RESEND, SQ_DOUBT_WHY_KEPT);
	out = decided(SQ_DOUBT_WAIT, ends_by_time ? SQ_DOUBT_WHY_KEPT : in->source ? SQ_DOUBT_WHY_EVIDENCE : SQ_DOUBT_WHY_PERSON);
	out.when_ms = asks && next_ask(in) < in->expires_ms ? next_ask(in) : in->expires_ms;
	if (ends_by_time && in->asked > 0)
		out.usable_ms = SQ_DOUBT_KEPT_USABLE_MS - in->usable_ms;
	return out;
}

enum sq_doubt_policy
sq_doubt_policy_of(int own, int routes)
{
	/* Stored numbers, and words in the order of the table of settings. */
	static const enum sq_doubt_policy of_own[] = { SQ_DOUBT_AVOID, SQ_DOUBT_AVOID, SQ_DOUBT_ALLOW, SQ_DOUBT_ASK };
	static const enum sq_doubt_policy of_route[] = { SQ_DOUBT_AVOID, SQ_DOUBT_ALLOW, SQ_DOUBT_ASK };

	if (own > 0 && own < (int)SQ_LEN(of_own))
		return of_own[own];
	return routes >= 0 && routes < (int)SQ_LEN(of_route) ? of_route[routes] : SQ_DOUBT_AVOID;
}

enum sq_doubt_id
sq_doubt_id_of(int setting, const char *learned, const char *host)
{
	if (setting == 1 || setting == 2)
		return setting == 1 ? SQ_DOUBT_ID_KEPT : SQ_DOUBT_ID_REWRITTEN;
	if (learned)
		return strcmp(learned, "kept") == 0 ? SQ_DOUBT_ID_KEPT : SQ_DOUBT_ID_REWRITTEN;
	return sq_doubt_provider(host);
}

static bool
under(const char *host, const char *domain)
{
	size_t h = strlen(host), d = strlen(domain);

	return h >= d && sq_str_caseeq(sq_str(host + h - d), sq_str(domain)) && (h == d || host[h - d - 1] == '.');
}

enum sq_doubt_id
sq_doubt_provider(const char *host)
{
	static const struct { const char *domain; enum sq_doubt_id id; } table[] = {
		{ "office365.com", SQ_DOUBT_ID_REWRITTEN },
		{ "outlook.com", SQ_DOUBT_ID_REWRITTEN },
		{ "live.com", SQ_DOUBT_ID_REWRITTEN },
		{ "hotmail.com", SQ_DOUBT_ID_REWRITTEN },
		{ "amazonaws.com", SQ_DOUBT_ID_REWRITTEN },
		{ "gmail.com", SQ_DOUBT_ID_KEPT },
		{ "googlemail.com", SQ_DOUBT_ID_KEPT },
	};

	for (size_t i = 0; host && i < SQ_LEN(table); i++)
		if (under(host, table[i].domain))
			return table[i].id;
	return SQ_DOUBT_ID_UNKNOWN;
}
