/*
 * sendq-sendmail: read a message, freeze it, queue it, exit. Exit 0 means
 * that it is on disk; anything else that nothing was queued, with one line
 * that says why. It links neither libcurl nor a crypto library: its whole
 * life is a few milliseconds.
 */
#include <errno.h>
#include <signal.h>
#include <sys/statvfs.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/message.h>

#include "submit.h"

enum { READ_OCTETS = 65536 };

/* One submission under way. */
struct submission {
	const struct arguments *args;
	const struct sq_config *cfg;
	const struct sq_route *route;
	struct sq_queue *q;
	struct sq_ingest *ingest;
	struct sq_address sender;          /* envelope; text NULL: the null sender */
	struct sq_address_list recipients;
	const char *id_domain;
	char *from;                        /* address for a From that is missing */
	int64_t now_ms;
	int exit_hint;                     /* sysexits code where the error's own does not fit; 0: none */
};

static enum sq_err
refuse(struct submission *s, int status, struct sq_error *err, const char *fmt, ...) SQ_PRINTF(4, 5);

static enum sq_err
refuse(struct submission *s, int status, struct sq_error *err, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	s->exit_hint = status;
	return sq_error_set(err, SQ_EINVAL, "%s", text);
}

/* ---- who sends ---- */

static bool
null_sender(const char *f)
{
	return f && (f[0] == '\0' || strcmp(f, "<>") == 0);
}

/*
 * The envelope sender: -f; else the header's From; else the route's user if it
 * is an address, else `identity` (DESIGN §4). An unqualified one (cron's
 * "root") cannot be sent anywhere and counts as none given; a From that
 * cannot be read is refused, for a guess could take the wrong account.
 * The null sender says nothing of the account, so From chooses the route.
 */
static enum sq_err
choose_sender(struct submission *s, const struct sq_intake_facts *facts, struct sq_error *err)
{
	const char *given = s->args->sender, *header_from = facts->from;
	bool from_qualified = header_from && facts->from_qualified;
	struct sq_address a = { 0 };
	const char *fallback;
	enum sq_err e;

	if (given && !null_sender(given)) {
		if ((e = sq_address_parse(sq_str(given), &a, err)) != SQ_OK) {
			s->exit_hint = EX_DATAERR;
			return sq_error_wrap(err, e, "sender");
		}
		if (!sq_address_is_qualified(&a)) {
			sq_address_fini(&a);
			given = NULL;
		}
	}
	if (!given && !header_from && facts->from_fault)
		return refuse(s, EX_DATAERR, err, "the From field: %s", facts->from_fault);
	s->route = sq_config_route_for(s->cfg, a.text, from_qualified ? header_from : NULL);
	if (!s->route) {
		sq_address_fini(&a);
		return refuse(s, EX_CONFIG, err, "no route in '%s' matches the sender '%s'", s->cfg->path, given ? given : header_from ? header_from : "(none)");
	}
	if (null_sender(given) || a.text) {
		s->sender = a;
		return SQ_OK;
	}
	fallback = from_qualified ? header_from : s->route->user && strchr(s->route->user, '@') ? s->route->user : s->cfg->identity;
	if (!fallback)
		return refuse(s, EX_CONFIG, err, "no sender: give -f, a From field, or set `identity` in '%s'", s->cfg->path);
	if ((e = sq_address_parse(sq_str(fallback), &s->sender, err)) != SQ_OK) {
		s->exit_hint = fallback == header_from ? EX_DATAERR : EX_CONFIG;
		return sq_error_wrap(err, e, "sender");
	}
	return SQ_OK;
}

/* The domain that completes names without one and stands in Message-IDs. */
static const char *
sender_domain(struct submission *s)
{
	const char *identity = s->cfg->identity ? strrchr(s->cfg->identity, '@') : NULL, *user = s->route->user ? strrchr(s->route->user, '@') : NULL;

	if (s->sender.text && sq_address_is_qualified(&s->sender))
		return sq_address_domain(&s->sender);
	return identity ? identity + 1 : user ? user + 1 : "localhost.invalid";
}

/* ---- callbacks of the intake ---- */

static enum sq_err
on_header(void *arg, const struct sq_intake_facts *facts, struct sq_intake_missing *missing, struct sq_error *err)
{
	struct submission *s = arg;
	enum sq_err e = choose_sender(s, facts, err);

	if (e != SQ_OK)
		return e;
	s->id_domain = sender_domain(s);
	if (s->sender.text)
		s->from = sq_str_dup(sq_str(s->sender.text));
	else if (s->cfg->identity || s->route->user)
		s->from = sq_str_dup(sq_str(s->cfg->identity ? s->cfg->identity : s->route->user));
	*missing = (struct sq_intake_missing){ .from = s->from, .full_name = s->args->full_name, .id_domain = s->id_domain, .now_ms = s->now_ms };
	return SQ_OK;
}

static enum sq_err
too_large(struct submission *s, struct sq_error *err)
{
	int64_t max = s->cfg->message_size_max;
	bool whole_k = max % 1024 == 0;

	return refuse(s, EX_DATAERR, err, "the message is larger than message_size_max allows (%lld%s)", (long long)(whole_k ? max / 1024 : max), whole_k ? "K" : " octets");
}

static enum sq_err
on_content(void *arg, const void *p, size_t n, struct sq_error *err)
{
	struct submission *s = arg;

	SQ_FAULT(submit_chunk);
	if (s->cfg->message_size_max > 0 && sq_ingest_size(s->ingest) + n > (uint64_t)s->cfg->message_size_max)
		return too_large(s, err);
	return sq_ingest_write(s->ingest, p, n, err);
}

/* ---- recipients ---- */

/* Names without a domain get the sender's. */
static enum sq_err
collect_recipients(struct submission *s, const struct sq_intake_facts *facts, struct sq_error *err)
{
	enum sq_err e;

	for (int i = 0; i < s->args->n_recipients; i++)
		if ((e = sq_address_parse_list(sq_str(s->args->recipients[i]), &s->recipients, err)) != SQ_OK) {
			s->exit_hint = EX_DATAERR;
			return sq_error_wrap(err, e, "recipient '%s'", s->args->recipients[i]);
		}
	for (size_t i = 0; i < facts->recipients.n; i++)
		if ((e = sq_address_parse_list(sq_str(facts->recipients.v[i].text), &s->recipients, err)) != SQ_OK)
			return e;
	for (size_t i = 0; i < s->recipients.n; i++)
		if ((e = sq_address_qualify(&s->recipients.v[i], s->id_domain, err)) != SQ_OK)
			return e;
	if ((e = sq_address_list_unique(&s->recipients, err)) != SQ_OK)
		return e;
	if (s->recipients.n == 0)
		return refuse(s, EX_USAGE, err, s->args->want_recipients ? "no recipients: none in To, Cc or Bcc and none given" : "no recipients: name them, or use -t");
	if (s->recipients.n > SQ_RECIPIENTS_MAX)
		return refuse(s, EX_DATAERR, err, "%zu recipients are too many (%d)", s->recipients.n, SQ_RECIPIENTS_MAX);
	return SQ_OK;
}

/* ---- the way in ---- */

static enum sq_err
check_disk(struct submission *s, struct sq_error *err)
{
	struct statvfs v;
	SQ_CLEANUP(sq_freep) char *dir = sq_str_dup(sq_str(s->cfg->queue));
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash || s->cfg->free_disk_min == 0)
		return SQ_OK;
	*(slash == dir ? slash + 1 : slash) = '\0';
	if (statvfs(dir, &v) < 0 || (uint64_t)v.f_bavail * v.f_frsize >= (uint64_t)s->cfg->free_disk_min)
		return SQ_OK;
	return sq_error_set(err, SQ_ENOSPC, "the disk of the queue '%s' is nearly full (%llu octets free; free_disk_min): try later",
		s->cfg->queue, (unsigned long long)v.f_bavail * v.f_frsize);
}

static enum sq_err
read_input(struct submission *s, struct sq_intake *in, struct sq_error *err)
{
	static char octets[READ_OCTETS];
	bool ended = false;
	enum sq_err e;

	while (!ended) {
		ssize_t n = read(STDIN_FILENO, octets, sizeof(octets));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			s->exit_hint = EX_NOINPUT;
			return sq_error_errno(err, SQ_EIO, "cannot read the message");
		}
		if (n == 0)
			break;
		if ((e = sq_intake_feed(in, octets, (size_t)n, &ended, err)) != SQ_OK)
			return e;
	}
	return sq_intake_finish(in, err);
}

/* RFC 3461 §4: printable ASCII but for '+' and '='. */
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
commit(struct submission *s, const struct sq_intake_facts *facts, struct sq_submitted *done, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_new_recipient *to = calloc(s->recipients.n, sizeof(*to));
	SQ_CLEANUP(sq_buf_fini) struct sq_buf envid = SQ_BUF_INIT(400);
	SQ_CLEANUP(sq_buf_fini) struct sq_buf orcpts = SQ_BUF_INIT(256 * 1024 * 1024);
	struct sq_ingest *ingest = s->ingest;
	size_t orcpt_octets = 0;
	bool utf8 = facts->smtputf8 || s->sender.utf8;
	struct sq_submission sub;

	for (size_t i = 0; i < s->recipients.n; i++)
		orcpt_octets += s->args->notify ? 3 * strlen(s->recipients.v[i].text) + 8 : 0;
	/* All at once: the views into it must not move. */
	if (!to || !sq_buf_reserve(&orcpts, orcpt_octets))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (size_t i = 0; i < s->recipients.n; i++) {
		const char *begin = orcpts.p + orcpts.n;

		to[i] = (struct sq_new_recipient){ .address = sq_str(s->recipients.v[i].text), .notify = s->args->notify };
		utf8 |= s->recipients.v[i].utf8;
		/* Who asks for reports wants to know the address as it was given (RFC 3461 §4.2). */
		if (s->args->notify == 0 || s->recipients.v[i].utf8)
			continue;
		sq_buf_adds(&orcpts, "rfc822;");
		add_xtext(s->recipients.v[i].text, &orcpts);
		to[i].orcpt = (struct sq_str){ begin, (size_t)(orcpts.p + orcpts.n - begin) };
	}
	if (s->args->envid)
		add_xtext(s->args->envid, &envid);
	sub = (struct sq_submission){
		.message_id = sq_str(facts->message_id),
		.sender = sq_str(s->sender.text),
		.header_from = sq_str(facts->from ? facts->from : s->from),
		.subject = sq_str(facts->subject),
		.route = s->route->name,
		.source = "argv",
		.uid = (int64_t)getuid(),
		.submitted_ms = s->now_ms,
		.not_before_ms = s->cfg->undo_window_ms > 0 ? s->now_ms + s->cfg->undo_window_ms : 0,
		.expires_ms = s->now_ms + s->route->expire_ms,
		.duplicate_window_ms = s->cfg->duplicate_window_ms,
		.queue_size_max = s->cfg->queue_size_max,
		.ret = s->args->ret,
		.envid = { envid.p, envid.n },
		.duplicates = s->args->duplicates,
		.flags = (facts->eightbit ? SQ_TXN_8BIT : 0u) | (utf8 ? SQ_TXN_SMTPUTF8 : 0u),
		.auto_submitted = facts->auto_submitted,
		.recipients = to,
		.n_recipients = s->recipients.n,
	};
	s->ingest = NULL; /* commit frees it in every case */
	SQ_FAULT(submit_before_commit);
	return sq_ingest_commit(ingest, &sub, done, err);
}

static enum sq_err
submit(struct submission *s, struct sq_submitted *done, struct sq_error *err)
{
	SQ_CLEANUP(sq_intake_freep) struct sq_intake *in = NULL;
	struct sq_intake_options options = { .dot_ends = !s->args->ignore_dots, .want_recipients = s->args->want_recipients };
	struct sq_intake_ops ops = { .header = on_header, .sink = on_content, .arg = s };
	const struct sq_intake_facts *facts;
	enum sq_err e;

	if ((e = sq_queue_open(s->cfg->queue, SQ_QUEUE_SUBMIT, &s->q, err)) != SQ_OK ||
	    (e = check_disk(s, err)) != SQ_OK ||
	    (e = sq_ingest_begin(s->q, &s->ingest, err)) != SQ_OK ||
	    (e = sq_intake_new(options, ops, &in, err)) != SQ_OK ||
	    (e = read_input(s, in, err)) != SQ_OK)
		return e;
	facts = sq_intake_facts(in);
	if (facts->empty)
		return refuse(s, EX_NOINPUT, err, "the message is empty: nothing came on standard input");
	if (facts->nuls + facts->bare_cr > 0)
		fprintf(stderr, "sendq-sendmail: mended in the body: %llu bare CR made line ends, %llu NUL dropped\n",
			(unsigned long long)facts->bare_cr, (unsigned long long)facts->nuls);
	if ((e = collect_recipients(s, facts, err)) != SQ_OK)
		return e;
	return commit(s, facts, done, err);
}

static void
say_result(const struct submission *s, const struct sq_submitted *done)
{
	char id[SQ_ID_TEXT], same[SQ_ID_TEXT];

	sq_id_format(done->id.v ? done->id : done->same_as, id);
	sq_id_format(done->same_as, same);
	if (done->n_duplicates > 0)
		fprintf(stderr, "sendq-sendmail: %s the same message is already in the queue or was just sent, as %s; not queued again\n",
			done->id.v ? "for some recipients" : "note:", same);
	if (s->args->verbose) {
		printf("queued as %s\n", id);
		fflush(stdout);
	}
}

static int
fail(const struct submission *s, const struct sq_submitted *done, enum sq_err e, const struct sq_error *err)
{
	char id[SQ_ID_TEXT];

	if (e == SQ_ECOMMIT && done->id.v) {
		sq_id_format(done->id, id);
		fprintf(stderr, "sendq-sendmail: the disk failed while the message was being stored; it may be queued as %s: %s\n", id, err->text);
		return EX_IOERR;
	}
	fprintf(stderr, "sendq-sendmail: %s\n", err->text);
	return s->exit_hint ? s->exit_hint : sq_err_sysexit(e);
}

static int
deliver(const struct arguments *args, const struct sq_config *cfg)
{
	struct submission s = { .args = args, .cfg = cfg, .now_ms = sq_wall_ms() };
	struct sq_submitted done = { 0 };
	struct sq_error err = { 0 };
	enum sq_err e;

	if (!args->want_recipients && args->n_recipients == 0) {
		fprintf(stderr, "sendq-sendmail: no recipients: name them, or use -t\n");
		return EX_USAGE;
	}
	SQ_FAULT(submit_start);
	e = submit(&s, &done, &err);
	if (e == SQ_OK)
		SQ_FAULT(submit_after_commit);
	sq_ingest_abort(s.ingest);
	if (e == SQ_OK) {
		say_result(&s, &done);
		if (done.id.v)
			wake_daemon(cfg);
	}
	sq_queue_close(s.q);
	free(s.from);
	sq_address_fini(&s.sender);
	sq_address_list_fini(&s.recipients);
	return e == SQ_OK ? EX_OK : fail(&s, &done, e, &err);
}

/* -q: ask the daemon to try everything now; it does so by itself, we do not wait. */
static int
flush(const struct sq_config *cfg)
{
	SQ_CLEANUP(sq_queue_closep) struct sq_queue *q = NULL;
	struct sq_error err = { 0 };
	int64_t id;
	enum sq_err e = sq_queue_open(cfg->queue, SQ_QUEUE_READ, &q, &err);

	if (e == SQ_ENOENT)
		return EX_OK;
	if (e == SQ_OK)
		e = sq_queue_request_add(q, SQ_REQUEST_FLUSH, (struct sq_message_id){ 0 }, "", sq_wall_ms(), &id, &err);
	if (e != SQ_OK) {
		fprintf(stderr, "sendq-sendmail: %s\n", err.text);
		return sq_err_sysexit(e);
	}
	wake_daemon(cfg);
	return EX_OK;
}

int
main(int argc, char **argv)
{
	SQ_CLEANUP(sq_config_freep) struct sq_config *cfg = NULL;
	SQ_CLEANUP(sq_freep) char *path = NULL;
	struct arguments args;
	struct sq_error err = { 0 };
	enum sq_err e;

	signal(SIGPIPE, SIG_IGN);
	if ((e = sq_options_parse(argc, argv, &args, &err)) != SQ_OK) {
		fprintf(stderr, "sendq-sendmail: %s\n", err.text);
		return e == SQ_EPERM ? EX_UNAVAILABLE : EX_USAGE;
	}
	if (args.mode == MODE_DONE || args.mode == MODE_INIT)
		return EX_OK;
	if ((e = sq_config_find(args.config, &path, &err)) != SQ_OK || (e = sq_config_load(path, &cfg, &err)) != SQ_OK) {
		fprintf(stderr, "sendq-sendmail: %s\n", err.text);
		return EX_CONFIG;
	}
	if (args.mode == MODE_LIST)
		return print_mailq(cfg);
	return args.mode == MODE_FLUSH ? flush(cfg) : deliver(&args, cfg);
}
