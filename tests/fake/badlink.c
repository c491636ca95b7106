/*
 * badlink: a TCP proxy that breaks on purpose, the same way every time.
 *
 * One process, poll(), loopback, unless --address names another of this machine's. Each accepted connection has a number
 * (1, 2, …) and takes the first rule that names it; a rule says where the
 * connection breaks and how. It never looks at a clock to decide *where* to
 * break: only at octets forwarded, replies seen, or TLS records seen.
 *
 *   badlink --listen PORT [--address A] --to HOST:PORT [--log FILE] [--control FILE] [--rule RULE]...
 *
 * PORT 0 takes a free one. The port is printed on stdout as one line once the
 * socket listens. A rule is `WHO KEY=VALUE...` on one line, WHO being `3`,
 * `2-5`, `4-` or `*`:
 *
 *   cut=up:K | cut=down:K     after exactly K octets client→server (up) or
 *                             server→client (down) were forwarded, break
 *   unit=up:N | unit=down:N   break where the Nth command or reply line, BDAT's content or TLS record
 *   off=-1|0|1                of that direction ends, or one octet before or behind it (0)
 *   reply=N                   break in place of the Nth reply (plain text; the greeting is 1)
 *   final=cut                 break in place of the reply to a message's terminator
 *   final=hold                that reply never comes, the connection stays
 *   pass=K                    with reply= and final=cut: let K octets of that reply through
 *   nth=N                     with final=: the Nth terminator of the connection (1)
 *   with=rst | with=fin       how it breaks (rst)
 *   side=both|client|server   who sees it break (both); the other side stays connected, and silent
 *   hole=up:K | hole=down:K   after K octets everything in that direction is read and thrown away
 *   stall=up:K | stall=down:K after K octets nothing is read any more: the window closes
 *   rate=N                    octets a second in each direction
 *   delay=MS                  every octet arrives that much later, each way
 *   refuse                    reset at once, the server is not contacted
 *   times=N                   the rule breaks N connections, after that it is passed over
 *
 * Which reply answers a terminator is found by following the client's
 * commands (DATA and its dot, BDAT … LAST). Behind STARTTLS, or with TLS from
 * the start, only record lengths are visible: a client record that holds
 * exactly ".", "CRLF.CRLF" or "BDAT 0 LAST" (TLS 1.3: 20, 22, 30 octets) is
 * taken for the terminator, which is right for a client that sends it alone.
 *
 * Rules come from --rule and, behind those, from the control file, which is
 * read anew for each connection. --log gets one JSON line a connection at its
 * end. SIGTERM logs and ends what is open.
 */
#include "badlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 16384, BUFFERED_MAX = 1 << 20, IN_FLIGHT = 32768, ROOM = 65536, CONNS_MAX = 400 };

/* Octets on their way, with the time from which they may be written. */
struct chunk {
	struct chunk *next;
	int64_t due_ms;
	size_t at, n;
	char data[CHUNK];
};

struct pipe {
	int from, to;
	struct chunk *head, *tail;
	size_t buffered;
	int64_t read, forwarded;  /* octets taken from `from`, given to `to` */
	int64_t tokens, tokens_ms;
	bool eof, closed;         /* nothing more comes; the other end was told */
	bool hole;
};

struct conn {
	struct conn *next;
	int n, client, server;
	int64_t began_ms;
	struct rule rule;
	struct pipe pipe[2];
	struct view view;
	int64_t pass_left;        /* ≥ 0: octets until the break inside a reply */
	bool over, reset, silent; /* silent: one side was cut, the other is kept open */
	char end[32];
};

static FILE *log_file;
static struct sockaddr_storage target;
static socklen_t target_n;
static struct conn *conns;
static volatile sig_atomic_t stopping;

void
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("badlink: ", stderr);
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

/* ---- connections ------------------------------------------------------ */

static void
close_way(int *fd, bool fin)
{
	struct linger hard = { .l_onoff = 1, .l_linger = 0 };

	if (*fd < 0)
		return;
	if (!fin)
		setsockopt(*fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(*fd);
	*fd = -1;
}

static void
drop_chunks(struct pipe *p)
{
	while (p->head) {
		struct chunk *next = p->head->next;

		free(p->head);
		p->head = next;
	}
	p->tail = NULL;
	p->buffered = 0;
}

static void
log_conn(const struct conn *c)
{
	if (!log_file)
		return;
	fprintf(log_file, "{\"n\":%d,\"up\":%lld,\"down\":%lld,\"units_up\":%d,\"units_down\":%d,\"terminators\":%d,\"ms\":%lld,\"end\":\"%s\"}\n", c->n,
		(long long)c->pipe[UP].forwarded, (long long)c->pipe[DOWN].forwarded, c->view.units[UP].n, c->view.units[DOWN].n,
		c->view.up.terminators,
		(long long)(now_ms() - c->began_ms), c->end);
	fflush(log_file);
}

static void
set_end(struct conn *c, const char *why)
{
	if (!c->end[0])
		snprintf(c->end, sizeof(c->end), "%s", why);
}

/* The break that the rule asked for. */
static void
cut(struct conn *c, const char *why)
{
	set_end(c, why);
	rule_fired(&c->rule);
	drop_chunks(&c->pipe[UP]);
	drop_chunks(&c->pipe[DOWN]);
	if (c->rule.side_client)
		close_way(&c->client, c->rule.fin);
	if (c->rule.side_server)
		close_way(&c->server, c->rule.fin);
	c->over = c->rule.side_client && c->rule.side_server;
	c->silent = !c->over;
}

static void
queue_octets(struct conn *c, enum way w, const char *p, size_t n)
{
	struct pipe *pipe = &c->pipe[w];

	while (n > 0) {
		struct chunk *k = malloc(sizeof(*k));

		if (!k)
			die("out of memory");
		k->next = NULL;
		k->at = 0;
		k->n = n < CHUNK ? n : CHUNK;
		k->due_ms = now_ms() + c->rule.delay;
		memcpy(k->data, p, k->n);
		if (pipe->tail)
			pipe->tail->next = k;
		else
			pipe->head = k;
		pipe->tail = k;
		pipe->buffered += k->n;
		p += k->n;
		n -= k->n;
	}
}

static void
lost(struct conn *c, enum way w, bool reset)
{
	c->pipe[w].eof = true;
	c->reset |= reset;
	set_end(c, w == UP ? (reset ? "client-reset" : "client-eof") : (reset ? "server-reset" : "server-eof"));
}

/* Take what `from` has; what the rule lets through is queued for `to`. */
static void
take(struct conn *c, enum way w)
{
	struct pipe *p = &c->pipe[w];
	char buf[CHUNK];
	int64_t room = c->rule.stall[w] >= 0 && c->rule.stall[w] > p->read ? c->rule.stall[w] - p->read : CHUNK;
	ssize_t n = read(p->from, buf, room < CHUNK ? (size_t)room : CHUNK);
	int64_t unit_end;
	size_t keep;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		lost(c, w, n < 0);
		return;
	}
	if (p->hole || (c->rule.hole[w] >= 0 && p->read >= c->rule.hole[w])) {
		if (!p->hole)
			rule_fired(&c->rule);
		p->hole = true;
		return;
	}
	keep = (size_t)n;
	unit_end = view_units(&c->view.units[w], buf, (size_t)n, c->rule.unit[w]);
	if (unit_end >= 0)
		c->rule.cut[w] = unit_end + c->rule.off;
	if (c->rule.hole[w] >= 0 && p->read + n > c->rule.hole[w])
		keep = (size_t)(c->rule.hole[w] - p->read);
	if (c->rule.cut[w] >= 0 && p->read + (int64_t)keep > c->rule.cut[w])
		keep = (size_t)(c->rule.cut[w] - p->read);
	if (w == UP) {
		view_up(&c->view, &c->rule, buf, keep);
	} else if (c->pass_left < 0) {
		size_t before = view_down(&c->view, &c->rule, buf, keep);

		if (before < keep) {
			if (c->rule.final == FINAL_HOLD && !(c->rule.reply && c->view.down.replies + 1 == c->rule.reply)) {
				rule_fired(&c->rule);
				set_end(c, "held");
				p->hole = true;
				keep = before;
			} else {
				c->pass_left = c->rule.pass < (int64_t)(keep - before) ? c->rule.pass : (int64_t)(keep - before);
				keep = before + (size_t)c->pass_left;
				c->pass_left = p->read + (int64_t)keep;
			}
		}
	} else {
		keep = 0;
	}
	p->read += (int64_t)keep;
	queue_octets(c, w, buf, keep);
}

static bool
at_cut(const struct conn *c, enum way w)
{
	return c->rule.cut[w] >= 0 && c->pipe[w].forwarded >= c->rule.cut[w];
}

/* Write what is due; returns the time at which to look again, INT64_MAX: when poll says so. */
static int64_t
give(struct conn *c, enum way w)
{
	struct pipe *p = &c->pipe[w];
	int64_t now = now_ms();

	if (c->rule.rate > 0) {
		p->tokens += (now - p->tokens_ms) * c->rule.rate / 1000;
		if (now > p->tokens_ms && (now - p->tokens_ms) * c->rule.rate >= 1000)
			p->tokens_ms = now;
		if (p->tokens > c->rule.rate / 10 + 1)
			p->tokens = c->rule.rate / 10 + 1;
	}
	while (p->head) {
		struct chunk *k = p->head;
		size_t n = k->n - k->at;
		ssize_t done;

		if (k->due_ms > now)
			return k->due_ms;
		if (c->rule.rate > 0) {
			if (p->tokens <= 0)
				return now + 10;
			n = (int64_t)n > p->tokens ? (size_t)p->tokens : n;
		}
		done = send(p->to, k->data + k->at, n, MSG_NOSIGNAL);
		if (done < 0 && (errno == EAGAIN || errno == EINTR))
			return INT64_MAX;
		if (done < 0) {
			lost(c, w == UP ? DOWN : UP, true);
			drop_chunks(p);
			return INT64_MAX;
		}
		p->tokens -= done;
		p->forwarded += done;
		p->buffered -= (size_t)done;
		k->at += (size_t)done;
		if (k->at == k->n) {
			p->head = k->next;
			if (!p->head)
				p->tail = NULL;
			free(k);
		}
	}
	return INT64_MAX;
}

/* After every turn: has this connection come to its break, or to its end? */
static void
settle(struct conn *c)
{
	if (c->over || c->silent)
		return;
	if (at_cut(c, UP) || at_cut(c, DOWN)) {
		cut(c, at_cut(c, UP) ? "cut-up" : "cut-down");
		return;
	}
	if (c->pass_left >= 0 && c->pipe[DOWN].forwarded >= c->pass_left) {
		cut(c, c->rule.final != FINAL_NONE ? "cut-final" : "cut-reply");
		return;
	}
	if (c->reset && !c->pipe[UP].head && !c->pipe[DOWN].head) {
		close_way(&c->client, false);
		close_way(&c->server, false);
		c->over = true;
		return;
	}
	for (enum way w = UP; w <= DOWN; w++) {
		struct pipe *p = &c->pipe[w];

		if (p->eof && !p->head && !p->closed) {
			shutdown(p->to, SHUT_WR);
			p->closed = true;
		}
	}
	if (c->pipe[UP].closed && c->pipe[DOWN].closed) {
		close_way(&c->client, true);
		close_way(&c->server, true);
		c->over = true;
	}
}

static void
accept_one(int listener)
{
	static int count;
	struct conn *c = calloc(1, sizeof(*c));
	int one = 1, in_flight = IN_FLIGHT;

	if (!c)
		die("out of memory");
	c->client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (c->client < 0) {
		free(c);
		return;
	}
	c->n = ++count;
	c->began_ms = now_ms();
	c->rule = rule_for(c->n);
	c->pass_left = -1;
	view_init(&c->view);
	c->server = -1;
	if (!c->rule.refuse) {
		c->server = socket(target.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (c->server < 0 || connect(c->server, (struct sockaddr *)&target, target_n) != 0)
			set_end(c, "no-server");
	}
	if (c->rule.refuse || c->end[0]) {
		set_end(c, "refused");
		rule_fired(&c->rule);
		close_way(&c->client, false);
		close_way(&c->server, false);
		log_conn(c);
		free(c);
		return;
	}
	fcntl(c->server, F_SETFL, O_NONBLOCK);
	setsockopt(c->client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(c->server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Forwarded means: on its way. What waits in this machine's kernel would be lost with an RST, and no link has megabytes in flight. */
	setsockopt(c->server, SOL_SOCKET, SO_SNDBUF, &in_flight, sizeof(in_flight));
	c->pipe[UP] = (struct pipe){ .from = c->client, .to = c->server, .tokens_ms = c->began_ms };
	c->pipe[DOWN] = (struct pipe){ .from = c->server, .to = c->client, .tokens_ms = c->began_ms };
	c->next = conns;
	conns = c;
	settle(c);
}

static bool
stalled(const struct conn *c, enum way w)
{
	/* Behind the place of a cut nothing is taken in: it would count as acknowledged. */
	if (c->rule.cut[w] >= 0 && c->pipe[w].read >= c->rule.cut[w])
		return true;
	return c->rule.stall[w] >= 0 && c->pipe[w].read >= c->rule.stall[w];
}

static short
wants(const struct conn *c, enum way reading)
{
	const struct pipe *in = &c->pipe[reading], *out = &c->pipe[reading == UP ? DOWN : UP];
	/* What a stalled side has sent stays unread; that it has left is seen all the same. */
	short e = stalled(c, reading) && !in->eof ? POLLRDHUP : 0;

	if (!in->eof && !stalled(c, reading) && in->buffered < BUFFERED_MAX)
		e |= POLLIN;
	if (out->head && out->head->due_ms <= now_ms() && (c->rule.rate == 0 || out->tokens > 0))
		e |= POLLOUT;
	return e;
}

/* One side was cut; wait until the other one leaves. */
static void
wait_leave(struct conn *c, struct pollfd *p)
{
	char buf[CHUNK];
	int *fd = c->client >= 0 ? &c->client : &c->server;
	ssize_t n;

	if (!(p->revents & (POLLIN | POLLHUP | POLLERR)))
		return;
	n = read(*fd, buf, sizeof(buf));
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		close_way(fd, true);
		c->over = true;
	}
}

static void
turn(struct conn *c, struct pollfd *p, int64_t *again)
{
	if (c->silent) {
		wait_leave(c, &p[c->client >= 0 ? 0 : 1]);
		return;
	}
	for (enum way w = UP; w <= DOWN; w++)
		if (stalled(c, w) && !c->pipe[w].eof && p[w].revents & (POLLRDHUP | POLLHUP | POLLERR))
			lost(c, w, true);
		else if (p[w].revents & (POLLIN | POLLHUP | POLLERR) && !c->pipe[w].eof && (p[w].events & POLLIN || p[w].revents & POLLERR))
			take(c, w);
	for (enum way w = UP; w <= DOWN; w++) {
		int64_t t = c->pipe[w].closed ? INT64_MAX : give(c, w);

		if (t < *again)
			*again = t;
	}
	settle(c);
}

static void
reap(void)
{
	for (struct conn **at = &conns; *at;) {
		struct conn *c = *at;

		if (!c->over) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		drop_chunks(&c->pipe[UP]);
		drop_chunks(&c->pipe[DOWN]);
		log_conn(c);
		free(c);
	}
}

static void
run(int listener)
{
	static struct pollfd fds[1 + 2 * CONNS_MAX];
	int64_t again = INT64_MAX;

	while (!stopping) {
		nfds_t n = 1;
		int64_t now = now_ms();
		int timeout = again == INT64_MAX ? -1 : again > now ? (int)(again - now) : 1;

		fds[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
		for (struct conn *c = conns; c && n + 2 <= sizeof(fds) / sizeof(fds[0]); c = c->next, n += 2) {
			fds[n] = (struct pollfd){ .fd = c->client, .events = c->silent ? POLLIN : wants(c, UP) };
			fds[n + 1] = (struct pollfd){ .fd = c->server, .events = c->silent ? POLLIN : wants(c, DOWN) };
			/* A side that has ended and has nothing to take would only wake us for its POLLHUP. */
			for (nfds_t k = n; k < n + 2; k++)
				if (!c->silent && fds[k].events == 0 && c->pipe[k - n].eof)
					fds[k].fd = -1;
		}
		if (poll(fds, n, timeout) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		again = INT64_MAX;
		n = 1;
		for (struct conn *c = conns; c && n + 2 <= sizeof(fds) / sizeof(fds[0]); c = c->next, n += 2)
			turn(c, &fds[n], &again);
		if (fds[0].revents & POLLIN)
			accept_one(listener);
		reap();
	}
	for (struct conn *c = conns; c; c = c->next) {
		set_end(c, "open");
		c->over = true;
	}
	reap();
}

/* ---- start ------------------------------------------------------------ */

static void
on_term(int sig)
{
	(void)sig;
	stopping = 1;
}

static void
resolve(char *spec)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	char *colon = strrchr(spec, ':');

	if (!colon)
		die("--to wants HOST:PORT, not '%s'", spec);
	*colon = '\0';
	if (getaddrinfo(spec, colon + 1, &hints, &found) != 0)
		die("cannot resolve '%s'", spec);
	memcpy(&target, found->ai_addr, found->ai_addrlen);
	target_n = found->ai_addrlen;
	freeaddrinfo(found);
}

static int
listen_on(struct in_addr address, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = address };
	socklen_t n = sizeof(a);
	int one = 1, room = ROOM, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* Else up to 32 MB count as acknowledged which the link has not carried yet. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0
	    || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)) != 0
	    || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 128) != 0
	    || getsockname(fd, (struct sockaddr *)&a, &n) != 0)
		die("cannot listen on port %d: %s", port, strerror(errno));
	printf("%d\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

int
main(int argc, char **argv)
{
	struct sigaction term = { .sa_handler = on_term };
	struct in_addr address = { .s_addr = htonl(INADDR_LOOPBACK) };
	int port = -1;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--listen") == 0)
			port = (int)strtol(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--address") == 0 && inet_pton(AF_INET, argv[i + 1], &address) != 1)
			die("not an address: '%s'", argv[i + 1]);
		else if (strcmp(argv[i], "--to") == 0)
			resolve(argv[i + 1]);
		else if (strcmp(argv[i], "--control") == 0)
			rule_file(argv[i + 1]);
		else if (strcmp(argv[i], "--rule") == 0)
			rule_add(argv[i + 1]);
		else if (strcmp(argv[i], "--log") == 0 && !(log_file = fopen(argv[i + 1], "ae")))
			die("cannot write '%s': %s", argv[i + 1], strerror(errno));
		else if (strcmp(argv[i], "--log") != 0 && strcmp(argv[i], "--address") != 0)
			die("no such option '%s'", argv[i]);
	}
	if (port < 0 || target_n == 0)
		die("usage: badlink --listen PORT --to HOST:PORT [--log FILE] [--control FILE] [--rule RULE]...");
	sigaction(SIGTERM, &term, NULL);
	sigaction(SIGINT, &term, NULL);
	run(listen_on(address, port));
	return 0;
}
