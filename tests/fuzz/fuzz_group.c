/*
 * A window against a server that says anything and a wire that takes any part
 * and breaks anywhere: it always comes to an end, nothing leaves without GO,
 * no message is decided twice, nothing is accepted or in doubt that was not
 * offered to its last octet, and what was offered is decided or in doubt.
 */
#include <sendq/smtp.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char content[] = "Subject: x\r\n\r\nRSET\r\nMAIL FROM:<a@b>\r\n";

enum { STEPS_MAX = 20000, SIZE = sizeof(content) - 1, MESSAGES_MAX = 5 };

struct feeder { const uint8_t *p; size_t n; };

static uint8_t
octet(struct feeder *f)
{
	if (f->n == 0)
		return 0;
	f->n--;
	return *f->p++;
}

/* Words of a server, chosen by one octet, so that whole conversations are found soon; or raw octets. */
static void
answer(struct feeder *f, struct sq_group *g)
{
	static const char *const words[] = { "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n", "550 5.1.1 no\r\n", "503 no\r\n",
		"451 later\r\n", "421 bye\r\n", "354 go\r\n", "250-a\r\n", "2", "50 ok\r\n", "550 5.4.5 Daily limit\r\n", "250\r\n", "\r\n" };
	uint8_t what = octet(f);
	char raw[64];
	size_t n = 0;

	if (what < 200) {
		const char *w = words[what % SQ_LEN(words)];

		sq_group_receive(g, w, strlen(w));
		return;
	}
	while (n < sizeof(raw) && n < what - 199u && f->n > 0)
		raw[n++] = (char)octet(f);
	if (n == 0)
		sq_group_lost(g, SQ_OUTCOME_CUT, "lost", what & 1);
	else
		sq_group_receive(g, raw, n);
}

static void
check_verdict(const struct sq_group *g, uint32_t k, bool go)
{
	const struct sq_group_message *m = &g->messages[k];

	for (uint32_t i = 0; i < m->txn->n_recipients; i++) {
		const struct sq_recipient_result *r = &m->results[i];

		if (r->id != (int64_t)(100 * k + i + 1))
			sq_bug("result %u of message %u is about another recipient", i, k);
		if ((r->cls == SQ_CLASS_ACCEPTED || r->cls == SQ_CLASS_DOUBT) && (!go || m->end == 0 || m->end > g->offered))
			sq_bug("class %d of what was not handed over", (int)r->cls);
		if (r->cls == SQ_CLASS_ACCEPTED && (m->mail_refused || m->accepted == 0))
			sq_bug("accepted without an envelope");
		if (r->reply.text.n > SQ_REPLY_TEXT_MAX)
			sq_bug("a result's text is too long");
	}
}

static void
check_end(const struct sq_group *g, const bool *reported, bool go)
{
	bool silent = false;

	for (uint32_t k = 0; k < g->n; k++) {
		if (!reported[k] && (!go || g->messages[k].end > g->offered))
			sq_bug("no verdict of a message that never was whole on the wire");
		silent |= !reported[k];
	}
	if (silent && (g->s->state != SQ_SESSION_ENDED || !g->doubt || g->s->end.outcome != SQ_OUTCOME_DOUBT))
		sq_bug("a message has no verdict, and the session does not end in doubt");
}

static void
run(struct feeder *f, struct sq_group *g)
{
	bool reported[MESSAGES_MAX] = { false }, go = false;

	for (int step = 0; step < STEPS_MAX; step++) {
		uint32_t k;
		size_t n;

		switch (sq_group_want(g)) {
		case SQ_WANT_TERMINATOR_GO:
			if (octet(f) % 8 == 7) {
				answer(f, g);
				break;
			}
			go = true;
			sq_group_go(g);
			break;
		case SQ_WANT_SEND:
			if (!go)
				sq_bug("a window leaves without GO");
			n = octet(f);
			n = n % 3 == 0 || n > g->out.n ? g->out.n : n;
			sq_group_offer(g, n);
			if (octet(f) % 4 == 3)
				answer(f, g); /* the write went nowhere, or only in part */
			else if (n > 0)
				sq_group_sent(g, n);
			break;
		case SQ_WANT_REPLY:
			answer(f, g);
			if (f->n == 0 && sq_group_want(g) == SQ_WANT_REPLY)
				sq_group_lost(g, SQ_OUTCOME_STALLED, "silent", false);
			break;
		case SQ_WANT_VERDICT:
			k = sq_group_verdict(g);
			if (reported[k])
				sq_bug("two verdicts of one message");
			reported[k] = true;
			check_verdict(g, k, go);
			sq_group_reported(g);
			break;
		case SQ_WANT_NOTHING:
			check_end(g, reported, go);
			return;
		case SQ_WANT_TXN:
		case SQ_WANT_ENVELOPE_GO:
		case SQ_WANT_CONTENT:
		case SQ_WANT_DRAINED:
			sq_bug("a window wants what only a session wants");
		}
	}
	sq_bug("the window does not end");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sq_txn txns[MESSAGES_MAX];
	const struct sq_txn *list[MESSAGES_MAX];
	struct sq_str contents[MESSAGES_MAX];
	struct feeder f = { data, size };
	struct sq_ehlo ehlo = { .caps = SQ_CAP_PIPELINING | SQ_CAP_CHUNKING, .rcpt_max = octet(&f) % 4 };
	uint32_t n = octet(&f) % MESSAGES_MAX + 1;
	struct sq_group g = { 0 };
	struct sq_job job = { 0 };
	struct sq_error err = { 0 };
	struct sq_session s;

	for (uint32_t k = 0; k < n; k++) {
		uint8_t what = octet(&f);

		txns[k] = (struct sq_txn){ .size = SIZE, .sender = SQ_STR("ann@example.org"), .n_recipients = 1 + what % 3 };
		for (uint32_t i = 0; i < txns[k].n_recipients; i++)
			txns[k].recipients[i] = (struct sq_txn_recipient){ .id = 100 * (int64_t)k + i + 1, .address = what > 240 ? SQ_STR("no one") : SQ_STR("bob@example.org") };
		list[k] = &txns[k];
		contents[k] = (struct sq_str){ content, SIZE };
	}
	if (sq_session_init(&s, &ehlo, &job, &err) != SQ_OK)
		return 0;
	if (sq_group_begin(&g, &s, list, contents, n, &err) == SQ_OK)
		run(&f, &g);
	sq_group_fini(&g);
	sq_session_fini(&s);
	return 0;
}
