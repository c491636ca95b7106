/*
 * Replies: any octets, cut anywhere, give the same replies; none is longer
 * than its bound; what a reply means is decided for every code and phase.
 */
#include <sendq/smtp.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen { unsigned n, codes, octets; bool bad; };

static void
look(const struct sq_reply *r)
{
	struct sq_ehlo e;

	if (r->code < 200 || r->code > 599 || r->text.n > SQ_REPLY_TEXT_MAX)
		sq_bug("a reply out of bounds: %d, %zu octets", r->code, r->text.n);
	for (size_t i = 0; i < r->text.n; i++)
		if ((unsigned char)r->text.p[i] < 32 && r->text.p[i] != '\n')
			sq_bug("a control character in a reply's text");
	if (memchr(r->enhanced, 0, sizeof(r->enhanced)) == NULL)
		sq_bug("an enhanced code without an end");
	for (int phase = 0; phase < SQ_PHASE_COUNT; phase++) {
		struct sq_policy p = sq_policy_decide(r, (enum sq_phase)phase);

		if (p.cls == SQ_CLASS_DOUBT || (p.cls == SQ_CLASS_ACCEPTED && r->code / 100 != 2))
			sq_bug("code %d means class %d", r->code, (int)p.cls);
	}
	sq_ehlo_parse(r->text, &e);
}

static struct seen
feed(const char *p, size_t n, size_t piece)
{
	static struct sq_reply_parser parser;
	struct seen s = { 0 };

	memset(&parser, 0, sizeof(parser));
	for (size_t at = 0; at < n && !s.bad; ) {
		size_t now = n - at < piece ? n - at : piece, used = 0;

		switch (sq_reply_feed(&parser, p + at, now, &used)) {
		case SQ_REPLY_DONE:
			s.n++;
			s.codes = s.codes * 31 + (unsigned)parser.reply.code;
			s.octets = s.octets * 31 + (unsigned)parser.reply.text.n;
			look(&parser.reply);
			break;
		case SQ_REPLY_BAD:
			s.bad = true;
			break;
		case SQ_REPLY_MORE:
			break;
		}
		if (used > now || (used == 0 && !s.bad))
			sq_bug("%zu of %zu octets were taken", used, now);
		at += used;
	}
	return s;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t piece = size > 0 ? data[0] % 7 + 1 : 1;
	struct seen whole = feed((const char *)data, size, size ? size : 1), cut = feed((const char *)data, size, piece);

	if (whole.n != cut.n || whole.codes != cut.codes || whole.octets != cut.octets || whole.bad != cut.bad)
		sq_bug("pieces of %zu octets give other replies", piece);
	return 0;
}
