/*
 * The server's half of SMTP against whoever speaks to it: it always stays
 * bounded, answers in whole lines, opens and ends each message once, and the
 * pieces in which the octets come change nothing.
 */
#include "../../sendq/submit/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	bool open;
	bool fails;          /* every other commit does */
	uint64_t asked, said; /* hashes of everything */
};

static void
mix_into(uint64_t *hash, const void *p, size_t n)
{
	const unsigned char *at = p;

	for (size_t i = 0; i < n; i++)
		*hash = (*hash ^ at[i]) * 0x100000001b3u;
}

static void
mix(struct seen *s, const void *p, size_t n)
{
	mix_into(&s->asked, p, n);
}

static enum sq_err
on_mail(void *arg, const struct smtp_mail *m, struct sq_error *err)
{
	struct seen *s = arg;

	(void)err;
	if (s->open)
		sq_bug("a message inside a message");
	for (size_t i = 0; i < m->envid.n; i++)
		if (m->envid.p[i] <= ' ' || m->envid.p[i] > '~')
			sq_bug("ENVID holds octet %d", m->envid.p[i]);
	for (size_t i = 0; i < m->full_name.n; i++)
		if ((unsigned char)m->full_name.p[i] < ' ')
			sq_bug("XNAME holds a control character");
	s->open = true;
	mix(s, m->sender.p, m->sender.n);
	return SQ_OK;
}

static enum sq_err
on_rcpt(void *arg, const struct smtp_rcpt *r, struct sq_error *err)
{
	struct seen *s = arg;

	if (!s->open || r->address.n == 0)
		sq_bug("a recipient of nothing");
	mix(s, r->address.p, r->address.n);
	return r->address.p[0] == 'n' ? sq_error_set(err, SQ_EINVAL, "%.*s", (int)r->address.n, r->address.p) : SQ_OK;
}

static enum sq_err
on_content(void *arg, const void *p, size_t n, struct sq_error *err)
{
	struct seen *s = arg;

	if (!s->open)
		sq_bug("content of nothing");
	mix(s, p, n);
	return n > 0 && *(const char *)p == 'F' ? sq_error_set(err, SQ_ENOSPC, "full") : SQ_OK;
}

static enum sq_err
on_commit(void *arg, char words[200], struct sq_error *err)
{
	struct seen *s = arg;

	if (!s->open)
		sq_bug("commit of nothing");
	mix(s, "!", 1);
	if ((s->fails = !s->fails))
		return sq_error_set(err, SQ_EIO, "io");
	s->open = false;
	snprintf(words, 200, "ok");
	return SQ_OK;
}

static void
on_reset(void *arg)
{
	struct seen *s = arg;

	if (!s->open)
		sq_bug("reset of nothing");
	s->open = false;
	mix(s, "-", 1);
}

static void
check_said(struct seen *seen, struct sq_buf *out)
{
	size_t begin = 0;

	for (size_t i = 0; i < out->n; i++) {
		if (out->p[i] == '\n') {
			if (i - begin > 511 || i - begin < 4 || out->p[i - 1] != '\r')
				sq_bug("a reply of %zu octets", i - begin);
			begin = i + 1;
		} else if (out->p[i] != '\r' && (out->p[i] < ' ' || out->p[i] > '~')) {
			sq_bug("octet %d in a reply", out->p[i]);
		}
	}
	if (begin != out->n)
		sq_bug("half a reply");
	mix_into(&seen->said, out->p, out->n);
	sq_buf_clear(out);
}

static uint64_t
run(const uint8_t *data, size_t size, size_t step, bool private)
{
	struct seen seen = { .asked = 1, .said = 1 };
	struct smtp_ops ops = { on_mail, on_rcpt, on_content, on_commit, on_reset, &seen };
	struct smtp *s = NULL;

	if (smtp_new((struct smtp_options){ .size_max = 1 << 20, .private = private }, ops, &s, NULL) != SQ_OK)
		return 0;
	for (size_t at = 0;;) {
		size_t n = size - at < step ? size - at : step, used;

		check_said(&seen, smtp_out(s));
		if (smtp_over(s) || n == 0)
			break;
		if ((used = smtp_feed(s, data + at, n)) == 0)
			sq_bug("nothing taken");
		at += used;
	}
	smtp_free(s);
	if (seen.open)
		sq_bug("a message was left open");
	return seen.asked + 31 * seen.said;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t step;

	if (size < 2)
		return 0;
	step = data[0] % 61 + 1;
	/* Content comes in other pieces then; "F" at a piece's beginning must not matter. */
	if (memchr(data + 1, 'F', size - 1) == NULL && run(data + 1, size - 1, size, false) != run(data + 1, size - 1, step, false))
		sq_bug("pieces of %zu change something", step);
	run(data + 1, size - 1, step, true);
	return 0;
}
