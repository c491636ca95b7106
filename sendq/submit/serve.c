/*
 * Between the SMTP machine and the queue: reads and writes the descriptors,
 * makes submissions of what the session says. One session a process.
 */
#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/fault.h>
#include <sendq/io.h>

#include "session.h"
#include "submission.h"
#include "submit.h"

enum { READ_OCTETS = 65536, PATIENCE_MS = 300000, STOP_MS = 1000, LINGER_MS = 2000, BEHIND_EVERY = 20, BEHIND_MOST = 100 };

struct serving {
	const struct serve *how;
	struct submitter by;
	struct submission *under_way;
	char *sender, *envid, *full_name;
};

static void
drop(struct serving *s)
{
	submission_free(s->under_way);
	s->under_way = NULL;
	free(s->sender);
	free(s->envid);
	free(s->full_name);
	s->sender = s->envid = s->full_name = NULL;
}

/* What an error means for the session: after a failure of the store nothing of the handle can be relied on. */
static enum sq_err
failed(struct serving *s, enum sq_err e, struct sq_error *err)
{
	/* The administrator's mistake, not the message's. */
	if (e == SQ_EINVAL && submission_exit(s->under_way) == EX_CONFIG)
		return err->code = SQ_EPERM;
	if (e != SQ_EIO && e != SQ_ECORRUPT)
		return e;
	drop(s);
	sq_queue_close(s->by.q);
	s->by.q = NULL;
	return err ? err->code : e;
}

static enum sq_err
copy(struct sq_str from, char **to, struct sq_error *err)
{
	if (from.n == 0)
		return SQ_OK;
	*to = sq_str_dup(from);
	return *to ? SQ_OK : sq_error_set(err, SQ_ENOMEM, "out of memory");
}

/*
 * Room for one more of this user, and its place: each score of waiting
 * messages puts the next ones further behind those of people who have few, so
 * that nobody waits for a flood of somebody else's.
 */
static enum sq_err
check_room(struct serving *s, struct sq_error *err)
{
	int64_t n = 0;
	enum sq_err e;

	if (s->how->open_max <= 0)
		return SQ_OK;
	if ((e = sq_queue_open_of(s->by.q, s->how->uid, &n, err)) != SQ_OK)
		return e;
	s->by.priority = n / BEHIND_EVERY < BEHIND_MOST ? -(int)(n / BEHIND_EVERY) : -BEHIND_MOST;
	if (n >= s->how->open_max)
		return sq_error_set(err, SQ_ENOSPC, "%lld of your messages wait already, which is the limit (user_messages_max): try later", (long long)n);
	return SQ_OK;
}

static enum sq_err
on_mail(void *arg, const struct smtp_mail *m, struct sq_error *err)
{
	struct serving *s = arg;
	struct wish wish = { .ret = m->ret, .duplicates = (enum sq_own_duplicates)m->duplicates, .not_before_ms = m->not_before_ms, .deadline_ms = m->deadline_ms };
	struct sq_address a = { 0 };
	enum sq_err e;

	if (m->sender.n > 0 && (e = sq_address_parse(m->sender, &a, err)) != SQ_OK)
		return e;
	sq_address_fini(&a);
	drop(s);
	if ((e = copy(m->sender, &s->sender, err)) != SQ_OK || (e = copy(m->envid, &s->envid, err)) != SQ_OK ||
	    (e = copy(m->full_name, &s->full_name, err)) != SQ_OK)
		return e;
	wish.sender = m->none ? NULL : s->sender ? s->sender : "<>";
	wish.envid = s->envid;
	wish.full_name = s->full_name;
	SQ_FAULT(submit_start);
	if ((e = submission_new(&s->by, &wish, &s->under_way, err)) != SQ_OK || (e = check_room(s, err)) != SQ_OK) {
		drop(s);
		return failed(s, e, err);
	}
	return SQ_OK;
}

static enum sq_err
on_rcpt(void *arg, const struct smtp_rcpt *r, struct sq_error *err)
{
	struct serving *s = arg;
	struct sq_address a = { 0 };
	enum sq_err e = sq_address_parse(r->address, &a, err);

	sq_address_fini(&a);
	return e != SQ_OK ? e : submission_add(s->under_way, r->address, r->notify, r->orcpt, err);
}

static enum sq_err
on_content(void *arg, const void *p, size_t n, struct sq_error *err)
{
	struct serving *s = arg;

	if (!s->under_way)
		return sq_error_set(err, SQ_EIO, "the queue failed");
	return failed(s, submission_feed(s->under_way, p, n, NULL, err), err);
}

static enum sq_err
on_commit(void *arg, char words[200], struct sq_error *err)
{
	struct serving *s = arg;
	struct sq_submitted done = { 0 };
	char id[SQ_ID_TEXT];
	enum sq_err e;

	if (!s->under_way)
		return sq_error_set(err, SQ_EIO, "the queue failed");
	e = submission_commit(s->under_way, &done, err);
	if (e == SQ_ECOMMIT && done.id.v) {
		sq_id_format(done.id, id);
		e = sq_error_wrap(err, SQ_ECOMMIT, "the disk failed while the message was being stored; it may be queued as %s", id);
	}
	if (e == SQ_OK && done.id.v)
		wake_daemon(s->how->cfg);
	if (e != SQ_OK)
		return failed(s, e, err);
	sq_id_format(done.id.v ? done.id : done.same_as, id);
	snprintf(words, 200, done.id.v ? "queued as %s" : "the same message is queued already, as %s", id);
	if (done.id.v && done.n_duplicates > 0) {
		size_t n = strlen(words);

		snprintf(words + n, 200 - n, " (%zu recipients had it already)", done.n_duplicates);
	}
	drop(s);
	return SQ_OK;
}

static void
on_reset(void *arg)
{
	drop(arg);
}

/* Everything that is to be said. False: the other side does not read, or is gone. */
static bool
send_out(int fd, struct sq_buf *out)
{
	while (out->n > 0) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		int ready = poll(&p, 1, PATIENCE_MS);
		ssize_t n;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0)
			return false;
		n = write(fd, out->p, out->n < 4096 ? out->n : 4096);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return false;
		sq_buf_consume(out, (size_t)n);
	}
	return true;
}

/*
 * Octets read, 0 at the end, -1 where nobody spoke for too long or the reading
 * failed. Between messages a service that is to end waits a moment only, for
 * those who have just come in.
 */
static ssize_t
take_in(const struct serve *how, bool busy, bool *stopping, char *to, size_t size)
{
	for (;;) {
		struct pollfd p[2] = { { .fd = how->in, .events = POLLIN }, { .fd = busy || *stopping ? -1 : how->stop, .events = POLLIN } };
		int ready = poll(p, 2, *stopping && !busy ? STOP_MS : PATIENCE_MS);
		ssize_t n;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0)
			return -1;
		if (!p[0].revents) {
			*stopping = true;
			continue;
		}
		n = read(how->in, to, size);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		return n < 0 && errno == ECONNRESET ? 0 : n;
	}
}

static int
speak(const struct serve *how, struct smtp *smtp)
{
	static char octets[READ_OCTETS];
	size_t used = 0, have = 0;
	bool stopping = false;

	for (;;) {
		if (!send_out(how->out, smtp_out(smtp)))
			return EX_IOERR;
		if (smtp_over(smtp))
			return EX_OK;
		if (used == have) {
			ssize_t n = take_in(how, smtp_busy(smtp), &stopping, octets, sizeof(octets));

			if (n == 0)
				return smtp_busy(smtp) ? EX_NOINPUT : EX_OK;
			if (n < 0) {
				smtp_end(smtp, stopping ? "this service is ending: try again" : "nothing was said for five minutes");
				continue;
			}
			have = (size_t)n;
			used = 0;
		}
		used += smtp_feed(smtp, octets + used, have - used);
	}
}

int
serve_smtp(const struct serve *how)
{
	struct serving s = { .how = how, .by = { .cfg = how->cfg, .source = how->source, .uid = how->uid } };
	struct smtp_ops ops = { on_mail, on_rcpt, on_content, on_commit, on_reset, &s };
	struct smtp_options options = { .size_max = (uint64_t)how->cfg->message_size_max, .private = how->private };
	struct sq_error err = { 0 };
	struct smtp *smtp = NULL;
	int status;

	if (smtp_new(options, ops, &smtp, &err) != SQ_OK)
		return EX_OSERR;
	status = speak(how, smtp);
	smtp_free(smtp);
	drop(&s);
	submitter_fini(&s.by);
	return status;
}

int
serve_refusal(int out, const char *words)
{
	struct sq_buf b = SQ_BUF_INIT(600);
	bool said;

	sq_buf_addf(&b, "554 5.7.1 %s\r\n", words);
	said = send_out(out, &b);
	sq_buf_fini(&b);
	/* What it has said already is read: a reset would take our words away. */
	if (shutdown(out, SHUT_WR) == 0)
		for (char rest[4096]; poll(&(struct pollfd){ .fd = out, .events = POLLIN }, 1, LINGER_MS) > 0 && read(out, rest, sizeof(rest)) > 0;)
			;
	return said ? EX_NOPERM : EX_IOERR;
}
