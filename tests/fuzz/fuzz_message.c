/*
 * Whatever comes in: the intake freezes it or refuses it with a sentence, the
 * same however it is cut; what is frozen is canonical; an address that is
 * taken is its own normal form.
 */
#include <sendq/message.h>

struct sink {
	struct sq_buf out;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum sq_err
on_header(void *arg, const struct sq_intake_facts *facts, struct sq_intake_missing *missing, struct sq_error *err)
{
	(void)arg, (void)facts, (void)err;
	*missing = (struct sq_intake_missing){ .from = "me@x.example", .full_name = "M\xc3\xa9", .id_domain = "x.example", .now_ms = 1764000000000 };
	return SQ_OK;
}

static enum sq_err
on_octets(void *arg, const void *p, size_t n, struct sq_error *err)
{
	struct sink *s = arg;

	(void)err;
	sq_buf_add(&s->out, p, n);
	return SQ_OK;
}

static enum sq_err
freeze(struct sq_str in, struct sq_intake_options o, size_t piece, struct sink *s, struct sq_intake **intake)
{
	struct sq_error err = { 0 };
	bool ended = false;
	enum sq_err e = sq_intake_new(o, (struct sq_intake_ops){ on_header, on_octets, s }, intake, &err);

	for (size_t i = 0; i < in.n && e == SQ_OK && !ended; i += piece)
		e = sq_intake_feed(*intake, in.p + i, in.n - i < piece ? in.n - i : piece, &ended, &err);
	if (e == SQ_OK)
		e = sq_intake_finish(*intake, &err);
	if (e != SQ_OK && err.text[0] == '\0')
		sq_bug("an error without a sentence");
	return e;
}

static void
check_canonical(const struct sq_buf *b)
{
	for (size_t i = 0; i < b->n; i++)
		if ((b->p[i] == '\r' && (i + 1 == b->n || b->p[i + 1] != '\n')) || (b->p[i] == '\n' && (i == 0 || b->p[i - 1] != '\r')) || b->p[i] == '\0')
			sq_bug("octet %zu of a frozen stream is not canonical", i);
	if (b->n > 0 && (b->n < 2 || b->p[b->n - 1] != '\n'))
		sq_bug("a frozen stream does not end its last line");
}

static void
fuzz_intake(uint8_t flags, struct sq_str in)
{
	struct sq_intake_options o = { .dot_ends = flags & 1, .want_recipients = flags & 2 };
	struct sink a = { SQ_BUF_INIT(16u << 20) }, b = { SQ_BUF_INIT(16u << 20) };
	struct sq_intake *one = NULL, *two = NULL;
	enum sq_err e = freeze(in, o, in.n ? in.n : 1, &a, &one), f = freeze(in, o, 1 + (flags >> 2) % 13, &b, &two);

	if (e != f)
		sq_bug("cut otherwise it ends otherwise");
	/* A made Message-ID is random, of one length. */
	if (e == SQ_OK && (a.out.n != b.out.n || (sq_intake_facts(one)->has_message_id && a.out.n > 0 && memcmp(a.out.p, b.out.p, a.out.n) != 0)))
		sq_bug("cut otherwise it freezes otherwise");
	if (e == SQ_OK)
		check_canonical(&a.out);
	sq_intake_free(one);
	sq_intake_free(two);
	sq_buf_fini(&a.out);
	sq_buf_fini(&b.out);
}

static void
fuzz_addresses(struct sq_str in)
{
	struct sq_address_list l = { 0 };
	struct sq_error err = { 0 };
	struct sq_address again;

	if (sq_address_parse_list(in, &l, &err) != SQ_OK && err.text[0] == '\0')
		sq_bug("an error without a sentence");
	for (size_t i = 0; i < l.n; i++) {
		if (sq_address_parse(sq_str(l.v[i].text), &again, &err) != SQ_OK)
			sq_bug("'%s' was taken once and refused then: %s", l.v[i].text, err.text);
		if (strcmp(again.text, l.v[i].text) != 0)
			sq_bug("'%s' turned into '%s'", l.v[i].text, again.text);
		for (const char *p = again.text; *p; p++)
			if ((unsigned char)*p < ' ' && *p != '\t')
				sq_bug("a control character in an address");
		sq_address_fini(&again);
	}
	if (sq_address_list_unique(&l, &err) != SQ_OK)
		sq_bug("%s", err.text);
	sq_address_list_fini(&l);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sq_buf text = SQ_BUF_INIT(4096);
	struct sq_str in;

	if (size < 2)
		return 0;
	in = (struct sq_str){ (const char *)data + 2, size - 2 };
	if (data[0] & 1)
		fuzz_intake(data[1], in);
	else
		fuzz_addresses(in);
	sq_header_text(in, SQ_SUBJECT_MAX, &text);
	if (text.n > SQ_SUBJECT_MAX || text.failed)
		sq_bug("a text for people beyond its limit");
	sq_buf_clear(&text);
	sq_header_phrase((struct sq_str){ in.p, in.n < 200 ? in.n : 200 }, &text);
	sq_buf_fini(&text);
	return 0;
}
