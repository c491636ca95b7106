/*
 * A delivery agent that lies: a test build's runner starts it in the place of
 * sendq-smtp (SENDQ_AGENT). What it does is the name it is called by, one of
 * the table below; up to that point it behaves. It connects to nobody.
 */
#include <poll.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <sendq/agent.h>

enum when { AT_START, AT_READY, AT_TXN, AT_ENVELOPE_GO, AT_TERMINATOR_GO };

static struct sq_stream stream;
static struct sq_frame in, out;
static struct sq_txn txn;
static struct sq_txn_recipient recipients[SQ_GROUP_MAX];
static uint16_t number;

static void
put(void)
{
	if (sq_stream_put(&stream, &out, NULL) != SQ_OK)
		_exit(9);
}

static void
flush(void)
{
	while (sq_stream_pending(&stream)) {
		struct pollfd p = { .fd = SQ_AGENT_FD, .events = POLLOUT };

		if (sq_stream_flush(&stream, NULL) == SQ_EEOF || poll(&p, 1, -1) < 0)
			_exit(0);
	}
}

/* Octets that are no frame of ours. */
static void
raw(const char *octets, size_t n)
{
	flush();
	if (write(SQ_AGENT_FD, octets, n) < 0)
		_exit(0);
}

static void
hello(uint32_t version)
{
	out = (struct sq_frame){ .type = SQ_FRAME_HELLO };
	out.u.hello.version = version;
	put();
}

static void
ready(void)
{
	out = (struct sq_frame){ .type = SQ_FRAME_READY };
	out.u.ready = (struct sq_ready){ .address = SQ_STR("127.0.0.1:25"), .ehlo = SQ_STR("liar") };
	put();
}

static void
results(struct sq_recipient_result *r, uint32_t *n, enum sq_class cls)
{
	*n = txn.n_recipients;
	for (uint32_t i = 0; i < *n; i++)
		r[i] = (struct sq_recipient_result){ .id = recipients[i].id, .cls = cls, .cause = cls == SQ_CLASS_ACCEPTED ? SQ_OUTCOME_ACCEPTED : SQ_OUTCOME_DOUBT,
			.reply = { .code = 250, .text = SQ_STR("I have it") } };
}

static void
envelope(void)
{
	out = (struct sq_frame){ .type = SQ_FRAME_ENVELOPE, .txn = number };
	out.u.envelope = (struct sq_envelope){ .seq = 1, .verb = 'D', .address = SQ_STR("127.0.0.1:25") };
	results(out.u.envelope.results, &out.u.envelope.n_results, SQ_CLASS_ACCEPTED);
	put();
}

static void
terminator(uint64_t octets)
{
	out = (struct sq_frame){ .type = SQ_FRAME_TERMINATOR };
	out.u.terminator = (struct sq_terminator){ .seq = 2, .n = 1 };
	out.u.terminator.txns[0].txn = number;
	out.u.terminator.txns[0].octets = octets;
	put();
}

static void
verdict(enum sq_class cls)
{
	out = (struct sq_frame){ .type = SQ_FRAME_VERDICT, .txn = number };
	results(out.u.verdict.results, &out.u.verdict.n_results, cls);
	put();
}

static void
read_content(uint64_t offset, uint32_t length)
{
	out = (struct sq_frame){ .type = SQ_FRAME_READ, .txn = number };
	out.u.read = (struct sq_read){ offset, length };
	put();
}

static void
plain(enum sq_frame_type type)
{
	out = (struct sq_frame){ .type = type };
	put();
}

/* ---- the lies ---- */

static void lie_garbage(void) { raw("\x16\x03\x01 this is no frame at all, and it goes on for a while", 50); }
static void lie_oversize(void) { raw("\xff\xff\xff\x7f\x01\x00\x00\x00", 8); }
static void lie_type(void) { raw("\x00\x00\x00\x00\x63\x00\x00\x00", 8); }
static void lie_half(void) { raw("\x40\x00\x00\x00\x03", 5); _exit(0); }
static void lie_version(void) { hello(99); }
static void lie_dies(void) { _exit(0); }
static void lie_go(void) { plain(SQ_FRAME_GO); }
static void lie_bye(void) { plain(SQ_FRAME_BYE); }
static void lie_idle(void) { plain(SQ_FRAME_IDLE); }
static void lie_ready(void) { ready(); }
static void lie_accepted(void) { number = number ? number : 1; verdict(SQ_CLASS_ACCEPTED); }
static void lie_doubt(void) { verdict(SQ_CLASS_DOUBT); }
static void lie_terminator(void) { terminator(txn.size); }
static void lie_octets(void) { terminator(txn.size - 1); }
static void lie_envelope_again(void) { envelope(); }
static void lie_read_behind(void) { read_content(txn.size - 1, 2); }
static void lie_number(void) { number++; envelope(); }
static void lie_silent(void) { for (;;) pause(); }

static void
lie_many_reads(void)
{
	for (int i = 0; i <= SQ_READ_OPEN_MAX; i++)
		read_content(0, 1);
}

static void
lie_stranger(void)
{
	recipients[0].id++;
	verdict(SQ_CLASS_ACCEPTED);
}

static void
lie_nobody(void)
{
	txn.n_recipients = 0;
	verdict(SQ_CLASS_ACCEPTED);
}

static void
lie_evidence(void)
{
	out = (struct sq_frame){ .type = SQ_FRAME_EVIDENCE, .txn = number };
	out.u.evidence = (struct sq_evidence){ SQ_STR("thin air"), SQ_EVIDENCE_POSITIVE, SQ_STR("I saw it"), SQ_STR("") };
	put();
}

/* Acceptance and the end of the session in one write, with a second verdict behind. */
static void
lie_twice(void)
{
	verdict(SQ_CLASS_ACCEPTED);
	verdict(SQ_CLASS_ACCEPTED);
}

static const struct {
	const char *name;
	enum when when;
	void (*lie)(void);
} lies[] = {
	{ "garbage", AT_START, lie_garbage }, { "oversize", AT_START, lie_oversize }, { "unknown-type", AT_START, lie_type },
	{ "half-a-frame", AT_START, lie_half }, { "version", AT_START, lie_version }, { "dies-at-once", AT_START, lie_dies },
	{ "silent", AT_START, lie_silent }, { "go", AT_READY, lie_go }, { "bye", AT_READY, lie_bye }, { "accepted-before-ready", AT_START, lie_accepted },
	{ "ready-again", AT_TXN, lie_ready }, { "accepted-at-once", AT_TXN, lie_accepted }, { "doubt-at-once", AT_TXN, lie_doubt },
	{ "terminator-at-once", AT_TXN, lie_terminator }, { "idle-with-work", AT_TXN, lie_idle }, { "reads-behind-the-end", AT_TXN, lie_read_behind },
	{ "too-many-reads", AT_TXN, lie_many_reads }, { "another-transaction", AT_TXN, lie_number }, { "evidence", AT_TXN, lie_evidence },
	{ "dies-with-work", AT_TXN, lie_dies },
	{ "accepted-without-terminator", AT_ENVELOPE_GO, lie_accepted }, { "other-octets", AT_ENVELOPE_GO, lie_octets },
	{ "envelope-again", AT_ENVELOPE_GO, lie_envelope_again }, { "garbage-behind-envelope", AT_ENVELOPE_GO, lie_garbage },
	{ "dies-behind-terminator", AT_TERMINATOR_GO, lie_dies }, { "garbage-behind-terminator", AT_TERMINATOR_GO, lie_garbage },
	{ "verdict-on-a-stranger", AT_TERMINATOR_GO, lie_stranger }, { "verdict-on-nobody", AT_TERMINATOR_GO, lie_nobody },
	{ "terminator-again", AT_TERMINATOR_GO, lie_terminator }, { "reads-behind-terminator", AT_TERMINATOR_GO, lie_read_behind },
	{ "accepted-twice", AT_TERMINATOR_GO, lie_twice }, { "behaves", AT_TERMINATOR_GO, lie_accepted },
};

static size_t mine;

static void
reached(enum when when, void (*otherwise)(void))
{
	if (lies[mine].when == when)
		lies[mine].lie();
	else if (otherwise)
		otherwise();
}

static void
right_hello(void)
{
	hello(SQ_AGENT_VERSION);
}

static void
right_terminator(void)
{
	terminator(txn.size);
}

static void
take(void)
{
	static bool first_go = true;

	if (in.type == SQ_FRAME_JOB) {
		ready();
		reached(AT_READY, NULL);
	} else if (in.type == SQ_FRAME_TXN) {
		txn = in.u.transaction;
		memcpy(recipients, txn.recipients, sizeof(recipients));
		number = in.txn;
		reached(AT_TXN, envelope);
	} else if (in.type == SQ_FRAME_GO && first_go) {
		first_go = false;
		reached(AT_ENVELOPE_GO, right_terminator);
	} else if (in.type == SQ_FRAME_GO) {
		reached(AT_TERMINATOR_GO, NULL);
		plain(SQ_FRAME_IDLE);
	} else if (in.type == SQ_FRAME_BYE) {
		out = (struct sq_frame){ .type = SQ_FRAME_END };
		out.u.end = (struct sq_end){ .outcome = SQ_OUTCOME_ACCEPTED, .phase = SQ_PHASE_VERDICT };
		put();
		flush();
		_exit(0);
	}
}

int
main(void)
{
	const char *path = (const char *)getauxval(AT_EXECFN), *name = strrchr(path, '/');
	bool have;

	name = name ? name + 1 : path;
	while (mine < SQ_LEN(lies) && strcmp(lies[mine].name, name) != 0)
		mine++;
	if (mine == SQ_LEN(lies)) {
		for (size_t i = 0; i < SQ_LEN(lies); i++)
			puts(lies[i].name);
		return 64;
	}
	sq_stream_init(&stream, SQ_AGENT_FD);
	reached(AT_START, right_hello);
	for (;;) {
		struct pollfd p = { .fd = SQ_AGENT_FD, .events = POLLIN };

		flush();
		if (poll(&p, 1, -1) < 0 || sq_stream_fill(&stream, NULL) != SQ_OK)
			return 0;
		while (sq_stream_next(&stream, &in, &have, NULL) == SQ_OK && have)
			take();
	}
}
