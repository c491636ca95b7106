/*
 * The gateway's SMTP machine against a client that says anything, in pieces of
 * any size, and a world that refuses at will: nothing is promised that the
 * world did not give, and content is counted octet by octet.
 */
#include <gateway.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
	const uint8_t *p;
	size_t n;
	enum gw_verb verb;
	int64_t octets;
	bool open, content, logged_in, finished, rcpt, resumed, bol;
	unsigned finishes;
};

static uint8_t
octet(struct world *w)
{
	if (w->n == 0)
		return 0;
	w->n--;
	return *w->p++;
}

/* Mostly yes: conversations are to become long. */
static bool
yes(struct world *w)
{
	return octet(w) % 8 != 7;
}

static enum gw_step
do_auth(void *ctx, const char *mech, const char *words, char identity[GW_NAME_MAX + 1], struct gw_reply *reply)
{
	static struct gw_auth local = { .passwords = "/nonexistent" };
	struct world *w = ctx;
	enum gw_step step = gw_auth_local(&local, mech, words, identity, reply);

	if (w->logged_in)
		sq_bug("AUTH after AUTH");
	if (step == GW_NO && yes(w)) {
		snprintf(identity, GW_NAME_MAX + 1, "ann");
		gw_reply_set(reply, "235 2.7.0 welcome");
		w->logged_in = true;
		return GW_YES;
	}
	return step;
}

static enum gw_found
do_mail(void *ctx, const struct gw_envelope *env, struct gw_reply *reply)
{
	struct world *w = ctx;
	uint8_t how = octet(w) % 4;

	if (!w->logged_in || w->open)
		sq_bug("MAIL without a login or inside a transaction");
	if (strlen(env->sender) > GW_ADDRESS_MAX || strlen(env->transid) > GW_TRANSID_MAX || strpbrk(env->sender, "\r\n") ||
	    strpbrk(env->params, "\r\n"))
		sq_bug("an envelope that could not be written down");
	w->octets = 0;
	w->content = w->finished = w->rcpt = w->resumed = false;
	w->verb = GW_VERB_NONE;
	if (how == 3) {
		gw_reply_set(reply, "451 4.3.0 no");
		return GW_REFUSED;
	}
	w->open = true;
	if (how == 2 && env->transid[0]) {
		w->resumed = true;
		w->verb = octet(w) % 2 ? GW_VERB_DATA : GW_VERB_BDAT;
		w->octets = octet(w);
		gw_reply_set(reply, "355 %d go on", (int)w->octets);
		return GW_RESUMED;
	}
	gw_reply_set(reply, "250 2.1.0 ok");
	return GW_FRESH;
}

static bool
do_rcpt(void *ctx, const char *address, const char *params, struct gw_reply *reply)
{
	struct world *w = ctx;
	bool good = yes(w);

	if (!w->open || w->resumed || w->content || strpbrk(address, "\r\n") || strpbrk(params, "\r\n"))
		sq_bug("RCPT at the wrong time, or with a line end");
	gw_reply_set(reply, good ? "250 2.1.5 ok" : "550 5.1.1 no");
	w->rcpt |= good;
	return good;
}

static bool
has_rcpt(void *ctx, const char *address)
{
	return strlen(address) + octet(ctx) > 5;
}

static enum sq_err
do_content(void *ctx, enum gw_verb verb)
{
	struct world *w = ctx;

	if (!w->open || w->content || !(w->rcpt || w->resumed) || (w->verb != GW_VERB_NONE && w->verb != verb))
		sq_bug("content without an envelope, twice, or with another verb");
	if (!yes(w))
		return SQ_EPERM;
	w->verb = verb;
	w->content = true;
	w->bol = true;
	return SQ_OK;
}

static enum gw_verb
do_verb(void *ctx)
{
	return ((struct world *)ctx)->verb;
}

static int64_t
do_octets(void *ctx)
{
	return ((struct world *)ctx)->octets;
}

static enum sq_err
do_append(void *ctx, const char *p, size_t n)
{
	struct world *w = ctx;

	if (!w->content || w->finished || n == 0)
		sq_bug("octets at the wrong time");
	if (w->verb == GW_VERB_DATA)
		for (size_t i = 0; i < n; i++)
			if (p[i] == '\n' && (i == 0 || p[i - 1] != '\r'))
				sq_bug("a bare LF got through DATA");
	w->octets += (int64_t)n;
	return octet(w) % 32 == 31 ? SQ_ENOSPC : SQ_OK;
}

static enum sq_err
do_sync(void *ctx)
{
	return octet(ctx) % 16 == 15 ? SQ_EPERM : SQ_OK;
}

static enum sq_err
do_finish(void *ctx, bool tls, struct gw_reply *reply)
{
	struct world *w = ctx;

	(void)tls;
	if (!w->content || w->finished)
		sq_bug("an end without content, or a second one");
	w->finished = true;
	w->finishes++;
	/* Accepted; nobody knows; nobody knows, and no TRANSID to say it of. */
	switch (octet(w) % 4) {
	case 0:
		gw_reply_set(reply, "355 %d nobody knows", (int)w->octets);
		break;
	case 1:
		reply->text[0] = 0;
		w->open = false;
		break;
	default:
		gw_reply_set(reply, "250-2.0.0 one\r\n250 2.0.0 accepted");
		break;
	}
	return yes(w) ? SQ_OK : SQ_EIO;
}

static void
do_drop(void *ctx)
{
	((struct world *)ctx)->open = false;
}

static void
do_reset(void *ctx)
{
	struct world *w = ctx;

	w->open = w->logged_in = false;
}

static const struct gw_ops ops = { .auth = do_auth, .mail = do_mail, .rcpt = do_rcpt, .has_rcpt = has_rcpt, .content = do_content,
	.verb = do_verb, .octets = do_octets, .append = do_append, .sync = do_sync, .finish = do_finish, .drop = do_drop,
	.reset = do_reset };

/* Every line that is said has a code and an end. */
static void
check_out(struct gw_machine *m)
{
	const char *p = m->out.p, *end = p + m->out.n;

	if (m->out.failed)
		sq_bug("the replies have no room");
	while (p < end) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));

		if (!lf || lf == p || lf[-1] != '\r' || lf - p < 5 || *p < '2' || *p > '5' || (p[3] != ' ' && p[3] != '-'))
			sq_bug("no reply: %.*s", (int)(end - p), p);
		p = lf + 1;
	}
	sq_buf_clear(&m->out);
}

/* The first octets decide what the world does; the rest is what the client says. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = { .p = data + 1, .n = size > 64 ? 63 : size / 2 };
	struct gw_machine m = { .ops = &ops, .ctx = &w, .hostname = "gw.test", .store_id = "id", .mechanisms = "PLAIN LOGIN",
		.max_size_bytes = 4096, .retain_s = 60, .features = 7, .tls_possible = size && data[0] & 1, .clear_auth = true };
	const char *p;
	size_t left;

	if (size < 4)
		return 0;
	p = (const char *)data + 1 + w.n;
	left = size - 1 - w.n;
	gw_machine_start(&m);
	check_out(&m);
	while (left > 0 && !m.closing) {
		size_t n = data[0] & 2 ? left : 1 + octet(&w) % 32;

		if (n > left)
			n = left;
		gw_machine_feed(&m, p, n);
		check_out(&m);
		p += n;
		left -= n;
		if (m.starttls && !m.closing && octet(&w) % 2)
			gw_machine_secured(&m);
		if (octet(&w) % 8 == 1)
			gw_machine_sync(&m);
		check_out(&m);
	}
	gw_machine_sync(&m);
	gw_machine_fini(&m);
	return 0;
}
