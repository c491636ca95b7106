/*
 * The session machine against a server that says anything and breaks
 * anywhere: it always comes to an end, nothing of a terminator leaves without
 * GO, and every recipient gets one verdict that its GO allows.
 */
#include <sendq/smtp.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char content[] = "Subject: x\r\n\r\n.dot\r\n..dots\r\nline\r\n.\r\nafter a lone dot\r\nand more of it\r\n\r\n";

enum { STEPS_MAX = 20000, SIZE = sizeof(content) - 1, TRANSACTIONS = 3 };

struct feeder { const uint8_t *p; size_t n; };

static uint8_t
octet(struct feeder *f)
{
	if (f->n == 0)
		return 0;
	f->n--;
	return *f->p++;
}

static void
check_verdict(const struct sq_session *s, uint32_t n, bool doubt, bool go)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct sq_recipient_result *r = &s->results[i];

		if (r->id != (int64_t)i + 1)
			sq_bug("result %u is about another recipient", i);
		if ((r->cls == SQ_CLASS_ACCEPTED || (r->cls == SQ_CLASS_DOUBT && !doubt)) && !go)
			sq_bug("class %d without a terminator", (int)r->cls);
		if (r->reply.text.n > SQ_REPLY_TEXT_MAX)
			sq_bug("a result's text is too long");
	}
}

static void
check_end(const struct sq_session *s, bool go, bool open)
{
	if (s->end.outcome == SQ_OUTCOME_DOUBT && !(go && open))
		sq_bug("in doubt without a terminator");
	if (go && open && s->end.outcome != SQ_OUTCOME_DOUBT)
		sq_bug("a terminator without an answer, and no doubt: %s", sq_outcome_name(s->end.outcome));
}

static void
begin(struct sq_session *s, struct sq_txn *t, uint8_t what)
{
	*t = (struct sq_txn){ .size = SIZE, .sender = SQ_STR("ann@example.org"), .envid = what & 1 ? SQ_STR("e1") : (struct sq_str){ 0 },
		.flags = (what & 2 ? SQ_TXN_8BIT : 0) | (what & 64 ? SQ_TXN_DOUBT : 0), .n_recipients = 1 + (what >> 2) % 4,
		.transid = what & 16 ? SQ_STR("<t.e0@c.invalid>") : (struct sq_str){ 0 }, .resume = what & 32, .verb = what & 128 ? 'D' : 'B' };
	for (uint32_t i = 0; i < t->n_recipients; i++)
		t->recipients[i] = (struct sq_txn_recipient){ .id = (int64_t)i + 1, .address = SQ_STR("bob@example.org"), .notify = what & 1 ? SQ_NOTIFY_FAILURE : 0 };
	sq_session_begin(s, t);
}

static void
run(struct feeder *f, struct sq_session *s)
{
	static struct sq_txn txn;
	bool go = false, open = false;
	int begun = 0;

	for (int step = 0; step < STEPS_MAX; step++) {
		uint8_t what;

		switch (sq_session_want(s)) {
		case SQ_WANT_SEND:
			if (s->state == SQ_SESSION_TERMINATOR && !go)
				sq_bug("a terminator leaves without GO");
			what = octet(f);
			sq_session_sent(s, what % 5 && s->out.n > what ? what % s->out.n + 1 : s->out.n);
			break;
		case SQ_WANT_REPLY: {
			char octets[256];
			size_t n = 0, want = octet(f);

			while (n < want && f->n > 0)
				octets[n++] = (char)octet(f);
			if (n == 0) {
				sq_session_lost(s, SQ_OUTCOME_CUT, "lost");
				break;
			}
			sq_session_receive(s, octets, n);
			break;
		}
		case SQ_WANT_TXN:
			open = go = false;
			what = octet(f);
			if (begun++ == TRANSACTIONS || what == 255)
				sq_session_quit(s);
			else
				begin(s, &txn, what), open = true;
			break;
		case SQ_WANT_ENVELOPE_GO:
			sq_session_go(s);
			break;
		case SQ_WANT_CONTENT: {
			size_t left = SIZE - (size_t)s->content_at, n = octet(f) % SIZE + 1;

			sq_session_content(s, (struct sq_str){ content + s->content_at, n < left ? n : left });
			break;
		}
		case SQ_WANT_DRAINED:
			sq_session_drained(s);
			break;
		case SQ_WANT_TERMINATOR_GO:
			if (s->content_at != SIZE)
				sq_bug("%u of %u octets, and it asks for the terminator", (unsigned)s->content_at, (unsigned)SIZE);
			go = true;
			sq_session_go(s);
			break;
		case SQ_WANT_VERDICT:
			check_verdict(s, txn.n_recipients, txn.flags & SQ_TXN_DOUBT, go);
			open = false;
			sq_session_reported(s);
			break;
		case SQ_WANT_NOTHING:
			check_end(s, go, open);
			return;
		}
	}
	sq_bug("the session does not end");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct feeder f = { data, size };
	uint8_t flags = octet(&f);
	struct sq_ehlo ehlo = { .caps = (flags & 1 ? SQ_CAP_PIPELINING : 0) | (flags & 2 ? SQ_CAP_CHUNKING : 0) |
		(flags & 4 ? SQ_CAP_8BITMIME : 0) | (flags & 8 ? SQ_CAP_SIZE | SQ_CAP_DSN : 0) | (flags & 32 ? SQ_CAP_CHECKPOINT : 0), .rcpt_max = flags >> 6 };
	struct sq_job job = { .eightbit_send = flags & 16 };
	struct sq_session s;
	struct sq_error err = { 0 };

	if (sq_session_init(&s, &ehlo, &job, &err) != SQ_OK)
		return 0;
	run(&f, &s);
	sq_session_fini(&s);
	return 0;
}
