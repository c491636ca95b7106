/*
 * sink: a receiving SMTP server for benches and tests: as fast as possible,
 * keeps the exact octets, and offers just the extensions it is told to.
 *
 *   sink --listen PORT [--without WORD]... [--store DIR] [--log FILE]
 *        [--delay MS] [--verdict-delay MS] [--size N]
 *
 * PORT 0 takes a free one; it is printed on stdout once the socket listens.
 * WORD is PIPELINING, CHUNKING, 8BITMIME, SMTPUTF8, DSN, SIZE or
 * ENHANCEDSTATUSCODES. --store writes each accepted message as
 * DIR/<number>.eml, dots unstuffed, otherwise octet for octet, before it says
 * 250. --log gets one JSON line a message: connection, sender, recipients,
 * octets and SHA-256. --delay holds every reply back that long, as a distant
 * server would; --verdict-delay only the reply to a terminator.
 *
 * One process, poll(), loopback only. It refuses nothing but wrong order. It
 * never believes a length: a message over --size (default 1 GiB) gets 552.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IN_MAX = 1 << 17, OUT_MAX = 1 << 15, LINE_MAX_ = 2048, ADDRESSES_MAX = 1 << 16, CONNS_MAX = 1000, DELAYED_MAX = 512 };

static const char *const words[] = { "PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "ENHANCEDSTATUSCODES" };
enum { N_WORDS = sizeof(words) / sizeof(words[0]), WORD_SIZE = 5 };

struct conn {
	int fd, number;
	char in[IN_MAX];
	size_t in_n;
	char out[OUT_MAX];         /* replies; out_at..out_due may be written now */
	size_t out_at, out_n;
	struct { size_t end; int64_t due_ms; } delayed[DELAYED_MAX];
	size_t n_delayed;
	enum { COMMANDS, DOT, CHUNK } state;
	bool have_mail, line_start, chunk_last, too_large, quit, stepped;
	int rcpts;
	int64_t chunk_left, octets;
	char sender[512];
	char addresses[ADDRESSES_MAX];
	size_t addresses_n;
	EVP_MD_CTX *md;
	int store_fd;
	bool has_message;
};

static bool without[N_WORDS];
static const char *store_dir;
static FILE *log_file;
static int64_t delay_ms, verdict_delay_ms, size_max = 1 << 30;
static struct conn *conns[CONNS_MAX];
static size_t n_conns;
static int n_messages;
static volatile sig_atomic_t stopping;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("sink: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- replies ---------------------------------------------------------- */

static void
reply_after(struct conn *c, int64_t wait_ms, const char *text)
{
	size_t n = strlen(text);

	if (c->out_at > 0 && c->out_n + n > OUT_MAX) {
		memmove(c->out, c->out + c->out_at, c->out_n - c->out_at);
		for (size_t i = 0; i < c->n_delayed; i++)
			c->delayed[i].end -= c->out_at;
		c->out_n -= c->out_at;
		c->out_at = 0;
	}
	if (c->out_n + n > OUT_MAX || (wait_ms > 0 && c->n_delayed == DELAYED_MAX)) {
		c->quit = true;
		return;
	}
	memcpy(c->out + c->out_n, text, n);
	c->out_n += n;
	if (wait_ms > 0) {
		c->delayed[c->n_delayed].end = c->out_n;
		c->delayed[c->n_delayed++].due_ms = now_ms() + wait_ms;
	}
}

static void
reply(struct conn *c, const char *text)
{
	reply_after(c, delay_ms, text);
}

/* ---- messages --------------------------------------------------------- */

static void
message_begin(struct conn *c)
{
	if (c->has_message)
		return;
	c->has_message = true;
	c->octets = 0;
	c->too_large = false;
	c->line_start = true;
	EVP_DigestInit_ex(c->md, EVP_sha256(), NULL);
	c->store_fd = -1;
	if (store_dir) {
		char path[1024];

		snprintf(path, sizeof(path), "%s/.part-%d", store_dir, c->number);
		c->store_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (c->store_fd < 0)
			die("cannot write '%s': %s", path, strerror(errno));
	}
}

static void
message_octets(struct conn *c, const char *p, size_t n)
{
	c->octets += (int64_t)n;
	if (c->octets > size_max)
		c->too_large = true;
	if (n == 0 || c->too_large)
		return;
	if (log_file)
		EVP_DigestUpdate(c->md, p, n);
	while (c->store_fd >= 0 && n > 0) {
		ssize_t w = write(c->store_fd, p, n);

		if (w < 0)
			die("cannot store: %s", strerror(errno));
		p += w;
		n -= (size_t)w;
	}
}

static void
message_forget(struct conn *c)
{
	if (c->has_message && c->store_fd >= 0) {
		char path[1024];

		close(c->store_fd);
		snprintf(path, sizeof(path), "%s/.part-%d", store_dir, c->number);
		unlink(path);
	}
	c->store_fd = -1;
	c->has_message = c->have_mail = false;
	c->rcpts = 0;
	c->addresses_n = 0;
	c->state = COMMANDS;
}

static void
json_text(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', f);
		if ((unsigned char)*s >= ' ')
			fputc(*s, f);
	}
	fputc('"', f);
}

static void
message_log(struct conn *c)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned int n;

	if (!log_file)
		return;
	EVP_DigestFinal_ex(c->md, sum, &n);
	fprintf(log_file, "{\"n\":%d,\"conn\":%d,\"octets\":%lld,\"sha256\":\"", n_messages, c->number, (long long)c->octets);
	for (unsigned int i = 0; i < n; i++)
		fprintf(log_file, "%02x", sum[i]);
	fputs("\",\"from\":", log_file);
	json_text(log_file, c->sender);
	fputs(",\"to\":[", log_file);
	for (size_t i = 0; i < c->addresses_n; i += strlen(c->addresses + i) + 1) {
		if (i > 0)
			fputc(',', log_file);
		json_text(log_file, c->addresses + i);
	}
	fputs("]}\n", log_file);
	fflush(log_file);
}

static void
message_end(struct conn *c)
{
	char text[64];

	message_begin(c);
	if (c->too_large) {
		message_forget(c);
		reply_after(c, delay_ms + verdict_delay_ms, "552 5.3.4 too large\r\n");
		return;
	}
	n_messages++;
	if (c->store_fd >= 0) {
		char from[1024], to[1024];

		snprintf(from, sizeof(from), "%s/.part-%d", store_dir, c->number);
		snprintf(to, sizeof(to), "%s/%06d.eml", store_dir, n_messages);
		if (close(c->store_fd) != 0 || rename(from, to) != 0)
			die("cannot store '%s': %s", to, strerror(errno));
		c->store_fd = -1;
	}
	message_log(c);
	snprintf(text, sizeof(text), "250 2.0.0 accepted as %d\r\n", n_messages);
	message_forget(c);
	reply_after(c, delay_ms + verdict_delay_ms, text);
}

/* ---- commands --------------------------------------------------------- */

static void
on_ehlo(struct conn *c)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "250-sink");

	for (int i = 0; i < N_WORDS; i++) {
		if (without[i])
			continue;
		n += snprintf(text + n, sizeof(text) - (size_t)n, "\r\n250-%s", words[i]);
		if (i == WORD_SIZE)
			n += snprintf(text + n, sizeof(text) - (size_t)n, " %lld", (long long)size_max);
	}
	snprintf(text + n, sizeof(text) - (size_t)n, "\r\n250 HELP\r\n");
	message_forget(c);
	reply(c, text);
}

/* The text between the angle brackets, cut at the size of out. */
static void
address_of(const char *line, char *out, size_t max)
{
	const char *b = strchr(line, '<'), *e = b ? strrchr(b, '>') : NULL;

	snprintf(out, max, "%.*s", e ? (int)(e - b - 1) : 0, b ? b + 1 : "");
}

static void
on_rcpt(struct conn *c, const char *line)
{
	char address[512];
	size_t n;

	if (!c->have_mail) {
		reply(c, "503 5.5.1 MAIL first\r\n");
		return;
	}
	address_of(line, address, sizeof(address));
	n = strlen(address) + 1;
	if (c->addresses_n + n > ADDRESSES_MAX) {
		reply(c, "452 4.5.3 too many recipients\r\n");
		return;
	}
	memcpy(c->addresses + c->addresses_n, address, n);
	c->addresses_n += n;
	c->rcpts++;
	reply(c, "250 2.1.5 ok\r\n");
}

static void
on_bdat(struct conn *c, const char *line)
{
	char *end;

	c->chunk_left = strtoll(line + 5, &end, 10);
	c->chunk_last = strcasestr(end, "LAST") != NULL;
	if (c->chunk_left < 0 || end == line + 5) {
		c->quit = true;
		reply(c, "501 5.5.4 BDAT size\r\n");
		return;
	}
	if (c->rcpts > 0)
		message_begin(c);
	c->state = CHUNK;
}

static void
on_chunk_end(struct conn *c)
{
	c->state = COMMANDS;
	if (c->rcpts == 0)
		reply(c, "503 5.5.1 no recipients\r\n");
	else if (c->chunk_last)
		message_end(c);
	else
		reply(c, "250 2.0.0 chunk taken\r\n");
}

static bool
is(const char *line, const char *verb)
{
	return strncasecmp(line, verb, strlen(verb)) == 0;
}

static void
on_command(struct conn *c, char *line)
{
	if (is(line, "EHLO") || is(line, "HELO")) {
		on_ehlo(c);
	} else if (is(line, "MAIL FROM:")) {
		if (c->have_mail) {
			reply(c, "503 5.5.1 nested MAIL\r\n");
			return;
		}
		c->have_mail = true;
		address_of(line, c->sender, sizeof(c->sender));
		reply(c, "250 2.1.0 ok\r\n");
	} else if (is(line, "RCPT TO:")) {
		on_rcpt(c, line);
	} else if (is(line, "BDAT ") && !without[1]) {
		on_bdat(c, line);
	} else if (is(line, "DATA")) {
		if (c->rcpts == 0) {
			reply(c, "503 5.5.1 no recipients\r\n");
			return;
		}
		message_begin(c);
		c->state = DOT;
		c->line_start = true;
		reply(c, "354 go on\r\n");
	} else if (is(line, "RSET")) {
		message_forget(c);
		reply(c, "250 2.0.0 ok\r\n");
	} else if (is(line, "NOOP")) {
		reply(c, "250 2.0.0 ok\r\n");
	} else if (is(line, "QUIT")) {
		reply(c, "221 2.0.0 bye\r\n");
		c->quit = true;
	} else {
		reply(c, "502 5.5.2 not known\r\n");
	}
}

/* ---- octets ----------------------------------------------------------- */

/* Content after DATA: whole lines only, so that dots are seen at line starts. Returns octets used. */
static size_t
eat_dot(struct conn *c)
{
	size_t at = 0;

	while (at < c->in_n && c->state == DOT) {
		const char *p = c->in + at;
		const char *nl = memmem(p, c->in_n - at, "\r\n", 2);
		size_t n = nl ? (size_t)(nl - p) + 2 : 0;

		if (!nl) {
			/* A line longer than the buffer is passed on in parts; its CR may be the buffer's last octet. */
			if (c->in_n - at < IN_MAX - 1)
				break;
			n = c->in_n - at - 1;
		}
		if (c->line_start && n == 3 && p[0] == '.') {
			at += 3;
			message_end(c);
			break;
		}
		if (c->line_start && p[0] == '.')
			message_octets(c, p + 1, n - 1);
		else
			message_octets(c, p, n);
		c->line_start = nl != NULL;
		at += n;
	}
	return at;
}

static size_t
eat(struct conn *c)
{
	if (c->state == DOT)
		return eat_dot(c);
	if (c->state == CHUNK) {
		size_t n = (int64_t)c->in_n < c->chunk_left ? c->in_n : (size_t)c->chunk_left;

		if (c->rcpts > 0)
			message_octets(c, c->in, n);
		c->chunk_left -= (int64_t)n;
		if (c->chunk_left == 0) {
			on_chunk_end(c);
			c->stepped = true;
		}
		return n;
	}
	char *nl = memchr(c->in, '\n', c->in_n);

	if (!nl) {
		if (c->in_n >= LINE_MAX_)
			c->quit = true;
		return 0;
	}
	char line[LINE_MAX_ + 1];
	size_t n = (size_t)(nl - c->in) + 1, keep = n < LINE_MAX_ ? n : LINE_MAX_;

	memcpy(line, c->in, keep);
	line[keep] = '\0';
	line[strcspn(line, "\r\n")] = '\0';
	on_command(c, line);
	return n;
}

/* Take in what is there; false when the connection is over. */
static bool
take(struct conn *c)
{
	ssize_t got = read(c->fd, c->in + c->in_n, IN_MAX - c->in_n);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (got <= 0)
		return false;
	c->in_n += (size_t)got;
	while ((c->in_n > 0 || c->state == CHUNK) && !c->quit) {
		size_t used = eat(c);

		/* An empty chunk uses nothing and still was a step. */
		if (used == 0 && !c->stepped)
			break;
		c->stepped = false;
		memmove(c->in, c->in + used, c->in_n - used);
		c->in_n -= used;
	}
	return true;
}

/* Write what is due; *again is lowered to the time of the next delayed reply. False: over. */
static bool
give(struct conn *c, int64_t *again)
{
	int64_t now = now_ms();

	while (c->out_at < c->out_n) {
		size_t end = c->out_n;
		ssize_t w;

		if (c->n_delayed > 0) {
			size_t k = 0;

			for (end = c->out_at; k < c->n_delayed && c->delayed[k].due_ms <= now; k++)
				end = c->delayed[k].end;
			if (end == c->out_at) {
				if (c->delayed[0].due_ms < *again)
					*again = c->delayed[0].due_ms;
				return true;
			}
		}
		w = send(c->fd, c->out + c->out_at, end - c->out_at, MSG_NOSIGNAL);
		if (w < 0)
			return errno == EAGAIN || errno == EINTR;
		c->out_at += (size_t)w;
		size_t gone = 0;

		while (gone < c->n_delayed && c->delayed[gone].end <= c->out_at)
			gone++;
		memmove(c->delayed, c->delayed + gone, (c->n_delayed - gone) * sizeof(c->delayed[0]));
		c->n_delayed -= gone;
	}
	c->out_at = c->out_n = 0;
	return !c->quit;
}

static void
accept_one(int listener)
{
	static int count;
	int one = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct conn *c;

	if (fd < 0)
		return;
	c = n_conns < CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->fd = fd;
	c->number = ++count;
	c->store_fd = -1;
	c->md = EVP_MD_CTX_new();
	conns[n_conns++] = c;
	reply(c, "220 sink ESMTP\r\n");
}

static void
end_conn(size_t i)
{
	message_forget(conns[i]);
	close(conns[i]->fd);
	EVP_MD_CTX_free(conns[i]->md);
	free(conns[i]);
	conns[i] = conns[--n_conns];
}

static void
run(int listener)
{
	static struct pollfd fds[1 + CONNS_MAX];
	int64_t again = INT64_MAX;

	while (!stopping) {
		int64_t now = now_ms();
		size_t n = n_conns;

		fds[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
		for (size_t i = 0; i < n; i++) {
			bool waits = conns[i]->n_delayed > 0;

			fds[i + 1] = (struct pollfd){ .fd = conns[i]->fd,
				.events = (short)(POLLIN | (conns[i]->out_at < conns[i]->out_n && !waits ? POLLOUT : 0)) };
		}
		if (poll(fds, (nfds_t)n + 1, again == INT64_MAX ? -1 : again > now ? (int)(again - now) : 0) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		again = INT64_MAX;
		for (size_t i = n; i-- > 0;) {
			bool ok = true;

			if (fds[i + 1].revents & (POLLIN | POLLHUP | POLLERR))
				ok = take(conns[i]);
			if (!ok || !give(conns[i], &again))
				end_conn(i);
		}
		if (fds[0].revents & POLLIN)
			accept_one(listener);
		for (size_t i = n; i < n_conns; i++)
			if (!give(conns[i], &again))
				end_conn(i);
	}
}

static void
on_term(int sig)
{
	(void)sig;
	stopping = 1;
}

static int
listen_on(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0
	    || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 512) != 0
	    || getsockname(fd, (struct sockaddr *)&a, &n) != 0)
		die("cannot listen on port %d: %s", port, strerror(errno));
	printf("%d\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static void
leave_out(const char *word)
{
	for (int i = 0; i < N_WORDS; i++) {
		if (strcasecmp(words[i], word) == 0) {
			without[i] = true;
			return;
		}
	}
	die("--without: no such word '%s'", word);
}

int
main(int argc, char **argv)
{
	struct sigaction term = { .sa_handler = on_term };
	int port = -1;

	for (int i = 1; i + 1 < argc; i += 2) {
		const char *v = argv[i + 1];

		if (strcmp(argv[i], "--listen") == 0)
			port = (int)strtol(v, NULL, 10);
		else if (strcmp(argv[i], "--without") == 0)
			leave_out(v);
		else if (strcmp(argv[i], "--store") == 0)
			store_dir = v;
		else if (strcmp(argv[i], "--delay") == 0)
			delay_ms = strtoll(v, NULL, 10);
		else if (strcmp(argv[i], "--verdict-delay") == 0)
			verdict_delay_ms = strtoll(v, NULL, 10);
		else if (strcmp(argv[i], "--size") == 0)
			size_max = strtoll(v, NULL, 10);
		else if (strcmp(argv[i], "--log") == 0 && !(log_file = fopen(v, "ae")))
			die("cannot write '%s': %s", v, strerror(errno));
		else if (strcmp(argv[i], "--log") != 0)
			die("no such option '%s'", argv[i]);
	}
	if (port < 0)
		die("usage: sink --listen PORT [--without WORD]... [--store DIR] [--log FILE] [--delay MS] [--verdict-delay MS] [--size N]");
	sigaction(SIGTERM, &term, NULL);
	sigaction(SIGINT, &term, NULL);
	run(listen_on(port));
	return 0;
}
