/* Frames: every type comes back as it went, cut anywhere; what breaks a limit is refused. */
#include <sys/socket.h>
#include <unistd.h>

#include <sendq/agent.h>

#include "harness.h"

static struct sq_frame f, g;

static void
fill(enum sq_frame_type type)
{
	memset(&f, 0, sizeof(f));
	f.type = type;
	switch (type) {
	case SQ_FRAME_HELLO:
		f.u.hello.version = SQ_AGENT_VERSION;
		break;
	case SQ_FRAME_JOB:
		f.u.job = (struct sq_job){ .kind = SQ_JOB_EVIDENCE, .url = SQ_STR("imaps://h:993"), .user = SQ_STR("u"), .tls = SQ_TLS_NONE, .verdict_timeout_ms = 600000, .bdat = SQ_FACT_NO };
		break;
	case SQ_FRAME_SECRET:
		f.u.secret = SQ_STR("p\0w");
		break;
	case SQ_FRAME_TXN:
		f.txn = 7;
		f.u.transaction = (struct sq_txn){ .size = 99, .sender = SQ_STR("a@b"), .ret = SQ_RET_HDRS, .flags = SQ_TXN_8BIT, .transid = SQ_STR("<1.2@x>"), .resume = true, .verb = 'B', .store = SQ_STR("s"), .retained = true, .n_recipients = 2 };
		f.u.transaction.recipients[0] = (struct sq_txn_recipient){ .id = 1, .address = SQ_STR("c@d"), .notify = SQ_NOTIFY_NEVER };
		f.u.transaction.recipients[1] = (struct sq_txn_recipient){ .id = INT64_MAX, .address = SQ_STR("e@f"), .orcpt = SQ_STR("rfc822;x") };
		break;
	case SQ_FRAME_READY:
		f.u.ready = (struct sq_ready){ .address = SQ_STR("127.0.0.1:25"), .caps = SQ_CAP_DSN, .size_limit = 5, .ehlo = SQ_STR("me\nDSN"), .tls = SQ_STR("TLSv1.3") };
		break;
	case SQ_FRAME_READ:
		f.txn = 1;
		f.u.read = (struct sq_read){ 5, 6 };
		break;
	case SQ_FRAME_CONTENT:
		f.txn = 1;
		f.u.content = (struct sq_content){ 5, SQ_STR("octets") };
		break;
	case SQ_FRAME_ENVELOPE:
		f.txn = 2;
		f.u.envelope = (struct sq_envelope){ .seq = 3, .verb = 'D', .transid = SQ_STR("<1.2@x>"), .store = SQ_STR("s"), .retain_s = 9, .offset = 8, .n_results = 1 };
		f.u.envelope.results[0] = (struct sq_recipient_result){ .id = 4, .cls = SQ_CLASS_DEFERRED, .scope = SQ_SCOPE_ROUTE, .wait_s = 60, .reply = { .code = 450, .text = SQ_STR("later") } };
		break;
	case SQ_FRAME_TERMINATOR:
		f.u.terminator = (struct sq_terminator){ .seq = 4, .n = 1 };
		f.u.terminator.txns[0].txn = 2;
		f.u.terminator.txns[0].octets = 99;
		break;
	case SQ_FRAME_GO:
		f.u.go.seq = 4;
		break;
	case SQ_FRAME_PROGRESS:
		f.txn = 1;
		f.u.progress = (struct sq_progress){ 3, 2, 1 };
		break;
	case SQ_FRAME_VERDICT:
		f.txn = 2;
		f.u.verdict = (struct sq_verdict){ .provider_id = SQ_STR("<x@y>"), .n_results = 1 };
		f.u.verdict.results[0] = (struct sq_recipient_result){ .id = 4, .cls = SQ_CLASS_ACCEPTED, .reply = { .code = 250, .enhanced = "2.0.0", .text = SQ_STR("ok") } };
		break;
	case SQ_FRAME_LINK:
		f.u.link = (struct sq_link_sample){ 1, 2, 3, 4, 5, 6 };
		break;
	case SQ_FRAME_LEARNED:
		f.u.learned = (struct sq_learned){ SQ_STR("bdat"), SQ_STR("no") };
		break;
	case SQ_FRAME_ASK:
		f.txn = 1;
		f.u.ask = (struct sq_ask){ SQ_STR("<a@b>"), 2 };
		break;
	case SQ_FRAME_EVIDENCE:
		f.txn = 1;
		f.u.evidence = (struct sq_evidence){ SQ_STR("sent folder"), SQ_EVIDENCE_NEGATIVE, SQ_STR("no copy"), SQ_STR("<new@provider>") };
		break;
	case SQ_FRAME_END:
		f.u.end = (struct sq_end){ .outcome = SQ_OUTCOME_CUT, .phase = SQ_PHASE_CONTENT, .reply = { .text = SQ_STR("lost") } };
		break;
	case SQ_FRAME_STAGE:
		f.u.stage = (struct sq_stage){ .kind = SQ_STAGE_GREETING, .ms = 12, .server_ms = 1798131600000, .words = SQ_STR("mx ESMTP") };
		break;
	case SQ_FRAME_CERTIFICATE:
		f.u.certificate = (struct sq_certificate){ SQ_STR("CN=mx"), SQ_STR("CN=ca"), SQ_STR("mx 127.0.0.1"), 5, 6, { 1, 2 }, SQ_STR("certificate has expired") };
		break;
	case SQ_FRAME_LOOKUP_JOB:
		f.u.lookup_job = (struct sq_lookup_job){ SQ_STR("a@b"), SQ_STR("b"), SQ_STR("https://c"), SQ_STR("/ca"), 9 };
		break;
	case SQ_FRAME_LOOKUP:
		f.u.lookup = (struct sq_lookup){ .source = SQ_STR("srv"), .where = SQ_STR("_s._tcp.b"), .server = SQ_STR("smtps://h:465"), .user = SQ_STR("a"), .password = true };
		break;
	case SQ_FRAME_TOKEN_JOB:
		f.u.token_job = (struct sq_token_job){ .kind = SQ_TOKEN_BROWSER, .token_url = SQ_STR("https://t"), .auth_url = SQ_STR("https://a"), .client_id = SQ_STR("me"), .refresh = SQ_STR("r"), .timeout_ms = 9 };
		break;
	case SQ_FRAME_TOKEN_PROMPT:
		f.u.token_prompt = (struct sq_token_prompt){ SQ_STR("https://d"), SQ_STR("ABCD"), 600 };
		break;
	case SQ_FRAME_TOKEN:
		f.u.token = (struct sq_token){ SQ_OUTCOME_ACCEPTED, SQ_STR("a"), SQ_STR("r"), 3600, SQ_STR("") };
		break;
	case SQ_FRAME_IDLE:
	case SQ_FRAME_CANCEL:
	case SQ_FRAME_BYE:
		break;
	}
}

START_TEST(comes_back)
{
	struct sq_buf one = SQ_BUF_INIT(SQ_FRAME_MAX), two = SQ_BUF_INIT(SQ_FRAME_MAX);
	struct sq_error err = { 0 };
	size_t used = 1;

	fill((enum sq_frame_type)_i);
	ck_ok(sq_frame_encode(&f, &one, &err), err);
	/* Every part of it is "more are needed", none is read past. */
	for (size_t n = 0; n < one.n; n++) {
		char *part = malloc(n ? n : 1);

		memcpy(part, one.p, n);
		ck_ok(sq_frame_decode((struct sq_str){ part, n }, &g, &used, &err), err);
		ck_assert_uint_eq(used, 0);
		free(part);
	}
	ck_ok(sq_frame_decode((struct sq_str){ one.p, one.n }, &g, &used, &err), err);
	ck_assert_uint_eq(used, one.n);
	ck_assert_int_eq(g.type, _i);
	ck_assert_uint_eq(g.txn, f.txn);
	ck_ok(sq_frame_encode(&g, &two, &err), err);
	ck_assert(sq_str_eq((struct sq_str){ one.p, one.n }, (struct sq_str){ two.p, two.n }));
	/* An octet left over, or one too few for what it says, is no frame. */
	for (int delta = -1; delta <= 1; delta += 2) {
		struct sq_buf bad = SQ_BUF_INIT(SQ_FRAME_MAX);
		uint32_t payload = (uint32_t)(one.n - SQ_FRAME_HEADER);

		if (payload == 0 && delta < 0)
			continue;
		sq_buf_add(&bad, one.p, one.n);
		sq_buf_addc(&bad, 0);
		payload += (uint32_t)delta;
		for (size_t k = 0; k < 4; k++)
			bad.p[k] = (char)(payload >> (8 * k) & 255);
		ck_assert_msg(sq_frame_decode((struct sq_str){ bad.p, bad.n }, &g, &used, &err) == SQ_EPROTO, "%s with %+d octets is taken", sq_frame_type_name(f.type), delta);
		sq_buf_fini(&bad);
	}
	sq_buf_fini(&one);
	sq_buf_fini(&two);
}
END_TEST

static const struct { const char *what, *octets; size_t n; } bad[] = {
	{ "a payload beyond the limit", "\xff\xff\xff\x7f\x01\x00\x00\x00", 8 },
	{ "an unknown type", "\x00\x00\x00\x00\x63\x00\x00\x00", 8 },
	{ "type 0", "\x00\x00\x00\x00\x00\x00\x00\x00", 8 },
	{ "a transaction where none belongs", "\x00\x00\x00\x00\x12\x00\x01\x00", 8 },
	{ "no transaction where one belongs", "\x0c\x00\x00\x00\x06\x00\x00\x00" "\0\0\0\0\0\0\0\0\1\0\0\0", 20 },
	{ "a read of nothing", "\x0c\x00\x00\x00\x06\x00\x01\x00" "\0\0\0\0\0\0\0\0\0\0\0\0", 20 },
	{ "a read past the end of numbers", "\x0c\x00\x00\x00\x06\x00\x01\x00" "\xff\xff\xff\xff\xff\xff\xff\xff\1\0\0\0", 20 },
};

START_TEST(refused)
{
	struct sq_error err = { 0 };
	size_t used;

	ck_assert_msg(sq_frame_decode((struct sq_str){ bad[_i].octets, bad[_i].n }, &g, &used, &err) == SQ_EPROTO, "%s is taken", bad[_i].what);
	ck_assert_msg(err.text[0], "%s: no sentence", bad[_i].what);
}
END_TEST

START_TEST(limits_of_the_encoder)
{
	static char long_text[SQ_ADDRESS_MAX + 2];
	struct sq_buf out = SQ_BUF_INIT(SQ_FRAME_MAX);
	struct sq_error err = { 0 };

	memset(long_text, 'a', SQ_ADDRESS_MAX + 1);
	fill(SQ_FRAME_TXN);
	f.u.transaction.recipients[0].address = sq_str(long_text);
	ck_assert_int_eq(sq_frame_encode(&f, &out, &err), SQ_ELIMIT);
	fill(SQ_FRAME_TXN);
	f.u.transaction.transid = SQ_STR(""); /* to be resumed, and yet without a name */
	ck_assert_int_eq(sq_frame_encode(&f, &out, &err), SQ_ELIMIT);
	ck_assert_uint_eq(out.n, 0);
	sq_buf_fini(&out);
}
END_TEST

/* Octet by octet through a socket pair: frames come out whole and in order. */
START_TEST(stream)
{
	struct sq_stream in, out;
	struct sq_error err = { 0 };
	int pair[2], got = 0;
	bool have;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	sq_stream_init(&out, pair[0]);
	sq_stream_init(&in, pair[1]);
	for (int type = 1; type <= SQ_FRAME_LAST; type++) {
		fill((enum sq_frame_type)type);
		ck_ok(sq_stream_put(&out, &f, &err), err);
	}
	for (size_t i = 0; i < out.out.n; i++) {
		ck_assert_int_eq(write(pair[0], out.out.p + i, 1), 1);
		ck_ok(sq_stream_fill(&in, &err), err);
		for (;;) {
			ck_ok(sq_stream_next(&in, &g, &have, &err), err);
			if (!have)
				break;
			ck_assert_int_eq(g.type, ++got);
		}
	}
	ck_assert_int_eq(got, SQ_FRAME_LAST);
	close(pair[0]);
	ck_assert_int_eq(sq_stream_fill(&in, &err), SQ_EEOF);
	sq_stream_wipe(&in);
	sq_stream_wipe(&out);
	close(pair[1]);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("wire");
	TCase *t = tcase_create("frames");

	tcase_add_loop_test(t, comes_back, 1, SQ_FRAME_LAST + 1);
	tcase_add_loop_test(t, refused, 0, SQ_LEN(bad));
	tcase_add_test(t, limits_of_the_encoder);
	tcase_add_test(t, stream);
	suite_add_tcase(s, t);
	return test_main(s);
}
