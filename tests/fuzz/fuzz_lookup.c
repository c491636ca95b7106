/*
 * Everything that strangers tell when the servers of an address are looked for: the answers of name servers, octet by
 * octet as they come, and files. The input is the answers in turn, parted by lines "--"; of a file's the first octet is its
 * status: 2, 4, 5, else it could not be had. What is found must fit into a frame, and name hosts and nothing else.
 */
#include <resolv.h>

#include "fuzz_answers.h"
#include "../../sendq/agent/autoconfig.h"
#include "../../sendq/agent/lookup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
enum sq_err __wrap_sq_https(const struct sq_https *q, int *status, struct sq_buf *answer, enum sq_outcome *outcome, struct sq_error *err);
int __wrap_res_nquery(res_state state, const char *name, int class, int type, unsigned char *answer, int room);

enum sq_err
__wrap_sq_https(const struct sq_https *q, int *status, struct sq_buf *answer, enum sq_outcome *outcome, struct sq_error *err)
{
	if (!sq_str_casestarts(q->url, SQ_STR("https://")))
		sq_bug("'%.*s' is asked", (int)q->url.n, q->url.p);
	for (size_t i = 0; i < q->url.n; i++)
		if (q->url.p[i] <= ' ' || q->url.p[i] > '~')
			sq_bug("octet %d in a url", q->url.p[i]);
	return answers_https(q, status, answer, outcome, err);
}

int
__wrap_res_nquery(res_state state, const char *name, int class, int type, unsigned char *answer, int room)
{
	struct sq_str s = answers_next();

	(void)state, (void)name, (void)class, (void)type;
	if (s.n == 0)
		return -1;
	/* A server may say that there is more than was sent. */
	if (s.n > (size_t)room)
		return (int)s.n;
	memcpy(answer, s.p, s.n);
	return (int)s.n;
}

static void
host_of(struct sq_str url)
{
	char text[600];
	char *at, *colon;

	snprintf(text, sizeof(text), "%.*s", (int)url.n, url.p);
	at = strstr(text, "://");
	at = at ? at + 3 : text;
	if ((colon = strrchr(at, ':')))
		*colon = '\0';
	if (!autoconfig_host_ok(at))
		sq_bug("a host '%s'", text);
}

static void
found(void *arg, const struct sq_lookup *l)
{
	static struct sq_frame f, back; /* large */
	struct sq_buf b = SQ_BUF_INIT(SQ_FRAME_MAX + 64);
	size_t used = 0;

	(void)arg;
	f = (struct sq_frame){ .type = SQ_FRAME_LOOKUP };
	f.u.lookup = *l;
	if (sq_frame_encode(&f, &b, NULL) != SQ_OK || sq_frame_decode((struct sq_str){ b.p, b.n }, &back, &used, NULL) != SQ_OK || used != b.n)
		sq_bug("what was found at '%.*s' does not fit", (int)l->where.n, l->where.p);
	if (l->server.n == 0)
		sq_bug("nothing was found");
	host_of(l->server);
	if (l->imap.n > 0)
		host_of(l->imap);
	sq_buf_fini(&b);
}

static bool
gone(void *arg)
{
	(void)arg;
	return false;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sq_lookup_job job = { .address = SQ_STR("ann+x@example.test"), .domain = SQ_STR("example.test"), .timeout_ms = 1000 };
	struct lookup l = { .job = &job, .found = found, .gone = gone };
	char words[SQ_REPLY_TEXT_MAX];

	answers_left = (struct sq_str){ (const char *)data, size };
	lookup_run(&l, words);
	if (strlen(words) >= sizeof(words))
		sq_bug("words without end");
	for (const char *p = words; *p; p++)
		if ((*p < ' ' && *p != '\n') || *p > '~')
			sq_bug("octet %d in words", *p);
	return 0;
}
