/*
 * Capabilities out of an EHLO reply. What is not known or not well formed is
 * passed over; nothing here is trusted beyond a bit or a number.
 */
#include <sendq/smtp.h>

static const struct {
	const char *word;
	uint32_t cap;
} known[] = {
	{ "PIPELINING", SQ_CAP_PIPELINING }, { "CHUNKING", SQ_CAP_CHUNKING },
	{ "8BITMIME", SQ_CAP_8BITMIME },     { "SMTPUTF8", SQ_CAP_SMTPUTF8 },
	{ "DSN", SQ_CAP_DSN },               { "SIZE", SQ_CAP_SIZE },
	{ "ENHANCEDSTATUSCODES", SQ_CAP_ENHANCED }, { "CHECKPOINT", SQ_CAP_CHECKPOINT },
	{ "STARTTLS", SQ_CAP_STARTTLS },     { "AUTH", SQ_CAP_AUTH },
	{ "BURL", SQ_CAP_BURL },             { "XSENDQ", SQ_CAP_XSENDQ },
};

/* The next part of *s up to one of `stops`, which is passed. */
static struct sq_str
split(struct sq_str *s, const char *stops)
{
	struct sq_str part = { s->p, 0 };

	size_t gone;

	while (part.n < s->n && !strchr(stops, s->p[part.n]))
		part.n++;
	gone = part.n < s->n ? part.n + 1 : part.n;

	s->n -= gone;
	if (gone > 0)
		s->p += gone;
	return part;
}

/* All digits, and it fits; else 0. */
static uint64_t
number(struct sq_str s)
{
	uint64_t v = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9' || v > (UINT64_MAX - 9) / 10)
			return 0;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	return v;
}

static void
take_limits(struct sq_str args, struct sq_ehlo *out)
{
	while (args.n > 0) {
		struct sq_str one = split(&args, " ");

		if (sq_str_casestarts(one, SQ_STR("RCPTMAX="))) {
			uint64_t v = number((struct sq_str){ one.p + 8, one.n - 8 });

			out->rcpt_max = v <= UINT32_MAX ? (uint32_t)v : 0;
		}
	}
}

/* Both words or neither: a promise without a name to recognise the store by cannot be relied upon. */
static void
take_promise(struct sq_str args, struct sq_ehlo *out)
{
	struct sq_str store = { 0 };
	uint64_t retain = 0;

	while (args.n > 0) {
		struct sq_str one = split(&args, " ");

		if (sq_str_casestarts(one, SQ_STR("RETAIN=")))
			retain = number((struct sq_str){ one.p + 7, one.n - 7 });
		else if (sq_str_casestarts(one, SQ_STR("STORE=")))
			store = (struct sq_str){ one.p + 6, one.n - 6 };
	}
	if (retain == 0 || retain > UINT32_MAX || store.n == 0 || store.n > SQ_STORE_MAX)
		return;
	out->retain_s = (uint32_t)retain;
	memcpy(out->store, store.p, store.n);
	out->store[store.n] = '\0';
}

void
sq_ehlo_parse(struct sq_str text, struct sq_ehlo *out)
{
	*out = (struct sq_ehlo){ 0 };
	(void)split(&text, "\n");
	while (text.n > 0) {
		struct sq_str line = split(&text, "\n");
		struct sq_str word = split(&line, " =");

		for (size_t i = 0; i < SQ_LEN(known); i++)
			if (sq_str_caseeq(word, sq_str(known[i].word)))
				out->caps |= known[i].cap;
		if (sq_str_caseeq(word, SQ_STR("SIZE")))
			out->size_limit = number(split(&line, " "));
		else if (sq_str_caseeq(word, SQ_STR("LIMITS")))
			take_limits(line, out);
		else if (sq_str_caseeq(word, SQ_STR("XSENDQ")))
			take_promise(line, out);
	}
}
