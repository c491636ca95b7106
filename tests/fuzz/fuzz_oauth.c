/*
 * What token servers answer, and what comes to the address where the browser should come back: anybody on this machine may
 * connect there. The first octet of the input chooses the way; the rest is answers and requests in turn, parted by lines
 * "--"; of an answer the first octet is its status: 2, 4, 5, else it could not be had. Time passes by itself.
 */
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sendq/io.h>

#include "fuzz_answers.h"
#include "../../sendq/agent/oauth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
enum sq_err __wrap_sq_https(const struct sq_https *q, int *status, struct sq_buf *answer, enum sq_outcome *outcome, struct sq_error *err);
int __wrap_poll(struct pollfd *p, nfds_t n, int ms);
int __wrap_accept4(int fd, struct sockaddr *a, socklen_t *n, int flags);
int64_t __wrap_sq_boot_ms(void);
void __wrap_sq_random(void *p, size_t n);

static int64_t now;
static int looks;

enum sq_err
__wrap_sq_https(const struct sq_https *q, int *status, struct sq_buf *answer, enum sq_outcome *outcome, struct sq_error *err)
{
	for (size_t i = 0; i < q->body.n; i++)
		if (q->body.p[i] <= ' ' || q->body.p[i] > '~')
			sq_bug("octet %d in a form", q->body.p[i]);
	return answers_https(q, status, answer, outcome, err);
}

int64_t
__wrap_sq_boot_ms(void)
{
	return now++;
}

/* All zero, so that an input may know the state that a browser brings back. */
void
__wrap_sq_random(void *p, size_t n)
{
	memset(p, 0, n);
}

int
__wrap_poll(struct pollfd *p, nfds_t n, int ms)
{
	now += ms;
	if (n > 0)
		p[0].revents = POLLIN;
	return (int)n;
}

/* A browser: its request is a file, to which the answer is appended. */
int
__wrap_accept4(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
	struct sq_str s = answers_next();
	int request = memfd_create("request", MFD_CLOEXEC);

	(void)fd, (void)a, (void)n, (void)flags;
	if (request < 0 || (s.n > 0 && write(request, s.p, s.n) != (ssize_t)s.n) || lseek(request, 0, SEEK_SET) != 0)
		abort();
	return request;
}

static void
fits(const struct sq_frame *f)
{
	struct sq_buf b = SQ_BUF_INIT(SQ_FRAME_MAX + 64);

	if (sq_frame_encode(f, &b, NULL) != SQ_OK)
		sq_bug("%s does not fit into a frame", sq_frame_type_name(f->type));
	sq_buf_fini(&b);
}

static void
printable(struct sq_str s, size_t max)
{
	if (s.n > max)
		sq_bug("%zu octets", s.n);
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < ' ' || s.p[i] > '~')
			sq_bug("octet %d", s.p[i]);
}

static void
prompt(void *arg, const struct sq_token_prompt *p)
{
	static struct sq_frame f;

	(void)arg;
	f = (struct sq_frame){ .type = SQ_FRAME_TOKEN_PROMPT };
	f.u.token_prompt = *p;
	fits(&f);
	printable(p->url, SQ_TOKEN_URL_MAX);
	printable(p->code, 128);
	if (p->url.n == 0)
		sq_bug("nothing to open");
}

/* Whoever waits does so for as long as there is something to read, and a while longer. */
static bool
gone(void *arg)
{
	(void)arg;
	return answers_left.n == 0 && ++looks > 50;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum sq_token_kind kinds[] = { SQ_TOKEN_REFRESH, SQ_TOKEN_DEVICE, SQ_TOKEN_BROWSER };
	static struct sq_frame f;
	static struct oauth_answer out;
	struct sq_token_job job = { .token_url = SQ_STR("https://t.test/token"), .device_url = SQ_STR("https://t.test/device"), .auth_url = SQ_STR("https://t.test/a"),
		.client_id = SQ_STR("id & co"), .client_secret = SQ_STR("s"), .scope = SQ_STR("mail"), .refresh = SQ_STR("r"), .login_hint = SQ_STR("ann@x.test"), .timeout_ms = 1000 };
	struct oauth o = { .job = &job, .prompt = prompt, .gone = gone };

	if (size == 0)
		return 0;
	job.kind = kinds[data[0] % SQ_LEN(kinds)];
	answers_left = (struct sq_str){ (const char *)data + 1, size - 1 };
	now = looks = 0;
	oauth_run(&o, &out);
	f = (struct sq_frame){ .type = SQ_FRAME_TOKEN };
	f.u.token = out.token;
	fits(&f);
	printable(out.token.access, SQ_TOKEN_MAX);
	printable(out.token.refresh, SQ_TOKEN_MAX);
	printable(out.token.words, SQ_REPLY_TEXT_MAX);
	if ((out.token.outcome == SQ_OUTCOME_ACCEPTED) != (out.token.access.n > 0))
		sq_bug("outcome %d with an access token of %zu octets", out.token.outcome, out.token.access.n);
	return 0;
}
