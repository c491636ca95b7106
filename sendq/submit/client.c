/*
 * sendmail in system mode: the client of the submission socket. The header is
 * read here (recipients of -t, Bcc taken out), everything else is decided at
 * the other end, which knows the configuration. Owns no queue; exit 0 only
 * after the other end's 250, which means that the message is on disk.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/control.h>
#include <sendq/io.h>
#include <sendq/message.h>

#include "client.h"

enum { READ_OCTETS = 65536, PATIENCE_MS = 10000, REPLY_MS = 120000, LINE_MAX_ = 2048 };

struct talk {
	const struct arguments *args;
	int fd;
	char in[LINE_MAX_];
	size_t in_n;
	bool begun;              /* the envelope was accepted */
	bool last_sent;          /* from here on the message may be queued */
	int status;              /* sysexits of a refusal; 0: that of the error's code */
	char reply[LINE_MAX_];   /* the last reply's last line, code in front */
};

/* ---- replies ---- */

static enum sq_err
gone(const struct talk *t, struct sq_error *err)
{
	if (t->last_sent)
		return sq_error_set(err, SQ_ECOMMIT, "the mail service of this machine went away while it stored the message, which may be queued: see mailq");
	return sq_error_set(err, SQ_EBUSY, "the mail service of this machine went away: nothing is queued, try later");
}

static enum sq_err
read_line(struct talk *t, int64_t until, char out[LINE_MAX_], struct sq_error *err)
{
	for (;;) {
		char *lf = memchr(t->in, '\n', t->in_n);
		struct pollfd p = { .fd = t->fd, .events = POLLIN };
		int64_t left = until - sq_boot_ms();
		ssize_t n;

		if (lf) {
			size_t k = (size_t)(lf - t->in);

			memcpy(out, t->in, k);
			out[k > 0 && out[k - 1] == '\r' ? k - 1 : k] = '\0';
			t->in_n -= k + 1;
			memmove(t->in, lf + 1, t->in_n);
			return SQ_OK;
		}
		if (t->in_n == sizeof(t->in))
			return sq_error_set(err, SQ_EPROTO, "the mail service of this machine said something odd");
		if (left <= 0 || (n = poll(&p, 1, (int)left)) == 0)
			return t->last_sent ? gone(t, err) : sq_error_set(err, SQ_ETIMEOUT, "the mail service of this machine does not answer: nothing is queued, try later");
		n = n < 0 ? n : read(t->fd, t->in + t->in_n, sizeof(t->in) - t->in_n);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return gone(t, err);
		t->in_n += (size_t)n;
	}
}

/* What a refusal means for a caller: try later, the message's fault, the administrator's. */
static enum sq_err
refused(struct talk *t, struct sq_error *err)
{
	const char *enhanced = t->reply[3] ? t->reply + 4 : "", *words = strchr(enhanced, ' ');

	if (t->reply[0] == '4')
		t->status = EX_TEMPFAIL;
	else if (strncmp(t->reply, "550 5.7", 7) == 0)
		t->status = EX_CONFIG;
	else if (strncmp(enhanced, "5.1", 3) == 0 || strncmp(enhanced, "5.6", 3) == 0 || strncmp(enhanced, "5.3.4", 5) == 0)
		t->status = EX_DATAERR;
	else
		t->status = EX_UNAVAILABLE;
	return sq_error_set(err, SQ_EINVAL, "%s", words ? words + 1 : t->reply);
}

static enum sq_err
expect(struct talk *t, char want, int64_t patience_ms, struct sq_error *err)
{
	int64_t until = sq_boot_ms() + patience_ms;
	enum sq_err e;

	do {
		if ((e = read_line(t, until, t->reply, err)) != SQ_OK)
			return e;
		if (strlen(t->reply) < 3)
			return sq_error_set(err, SQ_EPROTO, "the mail service of this machine said something odd");
	} while (t->reply[3] == '-');
	return t->reply[0] == want ? SQ_OK : refused(t, err);
}

static enum sq_err
put(struct talk *t, const void *p, size_t n, struct sq_error *err)
{
	struct sq_error why = { 0 };
	enum sq_err e = sq_write_all(t->fd, p, n, &why);

	if (e == SQ_OK)
		return SQ_OK;
	/* It may have said why before it went. */
	return expect(t, '2', 1000, err) == SQ_OK ? gone(t, err) : t->status ? SQ_EINVAL : gone(t, err);
}

static enum sq_err
say(struct talk *t, struct sq_buf *command, struct sq_error *err)
{
	struct sq_str v;
	enum sq_err e;

	sq_buf_adds(command, "\r\n");
	if ((e = sq_buf_view(command, &v, err)) != SQ_OK)
		return e;
	if ((e = put(t, v.p, v.n, err)) != SQ_OK)
		return e;
	sq_buf_clear(command);
	return expect(t, '2', REPLY_MS, err);
}

/* ---- the envelope ---- */

static void
add_xtext(const char *v, struct sq_buf *out)
{
	for (const unsigned char *p = (const unsigned char *)v; *p; p++) {
		if (*p < '!' || *p > '~' || *p == '+' || *p == '=')
			sq_buf_addf(out, "+%02X", *p);
		else
			sq_buf_addc(out, (char)*p);
	}
}

static enum sq_err
say_mail(struct talk *t, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(4000);
	const struct arguments *a = t->args;
	struct sq_address sender = { 0 };
	bool null = a->sender && (a->sender[0] == '\0' || strcmp(a->sender, "<>") == 0);
	enum sq_err e;

	if (a->sender && !null && (e = sq_address_parse(sq_str(a->sender), &sender, err)) != SQ_OK) {
		t->status = EX_DATAERR;
		return sq_error_wrap(err, e, "sender");
	}
	sq_buf_addf(&b, "MAIL FROM:<%s> BODY=8BITMIME SMTPUTF8", sender.text ? sender.text : "");
	sq_address_fini(&sender);
	if (!a->sender)
		sq_buf_adds(&b, " XNONE");
	if (a->full_name && *a->full_name) {
		sq_buf_adds(&b, " XNAME=");
		add_xtext(a->full_name, &b);
	}
	if (a->ret)
		sq_buf_addf(&b, " RET=%s", a->ret == SQ_RET_FULL ? "FULL" : "HDRS");
	if (a->envid) {
		sq_buf_adds(&b, " ENVID=");
		add_xtext(a->envid, &b);
	}
	if (a->duplicates)
		sq_buf_addf(&b, " XDUPLICATES=%d", (int)a->duplicates);
	if (a->not_before_ms)
		sq_buf_addf(&b, " XNOTBEFORE=%lld", (long long)a->not_before_ms);
	if (a->deadline_ms)
		sq_buf_addf(&b, " XDEADLINE=%lld", (long long)a->deadline_ms);
	return say(t, &b, err);
}

static enum sq_err
say_rcpt(struct talk *t, const char *address, struct sq_error *err)
{
	static const struct { uint8_t bit; const char *word; } words[] = {
		{ SQ_NOTIFY_NEVER, "NEVER" }, { SQ_NOTIFY_SUCCESS, "SUCCESS" }, { SQ_NOTIFY_FAILURE, "FAILURE" }, { SQ_NOTIFY_DELAY, "DELAY" },
	};
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(4000);
	const char *before = " NOTIFY=";
	enum sq_err e;

	sq_buf_addf(&b, "RCPT TO:<%s>", address);
	for (size_t i = 0; i < SQ_LEN(words); i++)
		if (t->args->notify & words[i].bit) {
			sq_buf_addf(&b, "%s%s", before, words[i].word);
			before = ",";
		}
	if ((e = say(t, &b, err)) != SQ_OK)
		return sq_error_wrap(err, e, "recipient '%s'", address);
	return SQ_OK;
}

static enum sq_err
say_envelope(struct talk *t, const struct sq_address_list *l, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(4000);
	enum sq_err e;

	sq_buf_adds(&b, "EHLO localhost");
	if ((e = say(t, &b, err)) != SQ_OK || (e = say_mail(t, err)) != SQ_OK)
		return e;
	for (size_t i = 0; i < l->n; i++)
		if ((e = say_rcpt(t, l->v[i].text, err)) != SQ_OK)
			return e;
	t->begun = true;
	return SQ_OK;
}

/* ---- callbacks of the intake ---- */

static enum sq_err
on_header(void *arg, const struct sq_intake_facts *facts, struct sq_intake_missing *missing, struct sq_error *err)
{
	struct talk *t = arg;
	struct sq_address_list l = { 0 };
	enum sq_err e = SQ_OK;

	(void)missing;
	for (int i = 0; e == SQ_OK && i < t->args->n_recipients; i++)
		if ((e = sq_address_parse_list(sq_str(t->args->recipients[i]), &l, err)) != SQ_OK)
			sq_error_wrap(err, e, "recipient '%s'", t->args->recipients[i]);
	for (size_t i = 0; e == SQ_OK && i < facts->recipients.n; i++)
		e = sq_address_parse_list(sq_str(facts->recipients.v[i].text), &l, err);
	if (e == SQ_OK && l.n == 0) {
		t->status = EX_USAGE;
		e = sq_error_set(err, SQ_EINVAL, "no recipients: none in To, Cc or Bcc and none given");
	}
	if (e == SQ_OK && (e = sq_address_list_unique(&l, err)) == SQ_OK)
		e = say_envelope(t, &l, err);
	sq_address_list_fini(&l);
	return e;
}

static enum sq_err
chunk(struct talk *t, const void *p, size_t n, bool last, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(64);
	enum sq_err e;

	sq_buf_addf(&b, "BDAT %zu%s\r\n", n, last ? " LAST" : "");
	t->last_sent = last;
	if ((e = put(t, b.p, b.n, err)) != SQ_OK || (n > 0 && (e = put(t, p, n, err)) != SQ_OK))
		return e;
	return expect(t, '2', REPLY_MS, err);
}

static enum sq_err
on_content(void *arg, const void *p, size_t n, struct sq_error *err)
{
	return chunk(arg, p, n, false, err);
}

static enum sq_err
read_input(struct talk *t, struct sq_intake *in, struct sq_error *err)
{
	static char octets[READ_OCTETS];
	bool ended = false;
	enum sq_err e;

	while (!ended) {
		ssize_t n = read(STDIN_FILENO, octets, sizeof(octets));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			t->status = EX_NOINPUT;
			return sq_error_errno(err, SQ_EIO, "cannot read the message");
		}
		if (n == 0)
			break;
		if ((e = sq_intake_feed(in, octets, (size_t)n, &ended, err)) != SQ_OK)
			return e;
	}
	if ((e = sq_intake_finish(in, err)) != SQ_OK)
		return e;
	if (!sq_intake_facts(in)->empty)
		return chunk(t, "", 0, true, err);
	t->status = EX_NOINPUT;
	return sq_error_set(err, SQ_EINVAL, "the message is empty: nothing came on standard input");
}

/* Connect and be greeted. A service that ends in between has heard nothing yet: the next one is asked. */
static enum sq_err
greet(struct talk *t, const char *path, struct sq_error *err)
{
	int64_t until = sq_boot_ms() + PATIENCE_MS, left = PATIENCE_MS;
	enum sq_err e;

	for (;;) {
		if ((e = sq_socket_connect(path, left, &t->fd, err)) != SQ_OK)
			return e;
		left = until - sq_boot_ms();
		e = expect(t, '2', left > 100 ? left : 100, err);
		left = until - sq_boot_ms();
		if (e != SQ_EBUSY || left <= 0)
			return e;
		sq_closep(&t->fd);
		t->in_n = 0;
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
}

static enum sq_err
submit(struct talk *t, const char *path, struct sq_error *err)
{
	SQ_CLEANUP(sq_intake_freep) struct sq_intake *in = NULL;
	struct sq_intake_options options = { .dot_ends = !t->args->ignore_dots, .want_recipients = t->args->want_recipients, .bare = true };
	struct sq_intake_ops ops = { .header = on_header, .sink = on_content, .arg = t };
	enum sq_err e;

	if ((e = greet(t, path, err)) != SQ_OK || (e = sq_intake_new(options, ops, &in, err)) != SQ_OK)
		return e;
	return read_input(t, in, err);
}

int
client_deliver(const struct arguments *args, const char *path)
{
	struct talk t = { .args = args, .fd = -1 };
	struct sq_error err = { 0 };
	enum sq_err e;

	if (!args->want_recipients && args->n_recipients == 0) {
		fprintf(stderr, "sendq-sendmail: no recipients: name them, or use -t\n");
		return EX_USAGE;
	}
	e = submit(&t, path, &err);
	sq_closep(&t.fd);
	if (e != SQ_OK) {
		fprintf(stderr, "sendq-sendmail: %s\n", err.text);
		return t.status ? t.status : e == SQ_EPROTO ? EX_TEMPFAIL : sq_err_sysexit(e);
	}
	if (strstr(t.reply, "already"))
		fprintf(stderr, "sendq-sendmail: note: %s\n", t.reply + 10);
	if (args->verbose)
		puts(t.reply + 10); /* "250 2.0.0 queued as ID" */
	return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

/* ---- -bs ---- */

/* Octets that `from` has, to `to`. False: `from` is at its end. */
static bool
carry(int from, int to, bool *broken)
{
	static char octets[READ_OCTETS];
	ssize_t n = read(from, octets, sizeof(octets));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n > 0 && sq_write_all(to, octets, (size_t)n, NULL) != SQ_OK)
		*broken = true;
	return n > 0 && !*broken;
}

int
client_relay(const char *path)
{
	SQ_CLEANUP(sq_closep) int fd = -1;
	struct sq_error err = { 0 };
	bool broken = false;
	struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .events = POLLIN } };

	if (sq_socket_connect(path, PATIENCE_MS, &fd, &err) != SQ_OK) {
		fprintf(stderr, "sendq-sendmail: %s\n", err.text);
		return EX_TEMPFAIL;
	}
	p[1].fd = fd;
	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return EX_OSERR;
		if ((p[1].revents & (POLLIN | POLLHUP | POLLERR)) && !carry(fd, STDOUT_FILENO, &broken))
			return broken ? EX_IOERR : EX_OK;
		if ((p[0].revents & (POLLIN | POLLHUP | POLLERR)) && !carry(STDIN_FILENO, fd, &broken)) {
			if (broken) /* it says why, perhaps */
				broken = false;
			shutdown(fd, SHUT_WR);
			p[0].fd = -1;
		}
	}
}

int
client_command(const char *const *words, size_t n, const char *path)
{
	struct sq_error err = { 0 };
	int status = EX_OK;
	enum sq_err e = sq_control_call(path, words, n, &status, &err);

	if (e == SQ_OK)
		return status;
	fprintf(stderr, "sendq-sendmail: %s\n", err.text);
	return e == SQ_EEOF || e == SQ_EPROTO ? EX_TEMPFAIL : sq_err_sysexit(e);
}
