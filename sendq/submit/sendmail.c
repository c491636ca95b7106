/*
 * sendq-sendmail: read a message, freeze it, queue it, exit. Exit 0 means
 * that it is on disk; anything else that nothing was queued, with one line
 * that says why. It links neither libcurl nor a crypto library: its whole
 * life is a few milliseconds.
 */
#include <errno.h>
#include <signal.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/fault.h>
#include <sendq/io.h>

#include "aliases.h"
#include "client.h"
#include "serve.h"
#include "submission.h"
#include "submit.h"

enum { READ_OCTETS = 65536 };

static enum sq_err
read_input(struct submission *s, int *status, struct sq_error *err)
{
	static char octets[READ_OCTETS];
	bool ended = false;
	enum sq_err e;

	while (!ended) {
		ssize_t n = read(STDIN_FILENO, octets, sizeof(octets));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			*status = EX_NOINPUT;
			return sq_error_errno(err, SQ_EIO, "cannot read the message");
		}
		if (n == 0)
			break;
		if ((e = submission_feed(s, octets, (size_t)n, &ended, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

static void
say_result(const struct arguments *args, const struct sq_submitted *done)
{
	char id[SQ_ID_TEXT], same[SQ_ID_TEXT];

	sq_id_format(done->id.v ? done->id : done->same_as, id);
	sq_id_format(done->same_as, same);
	if (done->n_duplicates > 0)
		fprintf(stderr, "sendq-sendmail: %s the same message is already in the queue or was just sent, as %s; not queued again\n",
			done->id.v ? "for some recipients" : "note:", same);
	if (args->verbose) {
		printf("queued as %s\n", id);
		fflush(stdout);
	}
}

static int
fail(int status, const struct sq_submitted *done, enum sq_err e, const struct sq_error *err)
{
	char id[SQ_ID_TEXT];

	if (e == SQ_ECOMMIT && done->id.v) {
		sq_id_format(done->id, id);
		fprintf(stderr, "sendq-sendmail: the disk failed while the message was being stored; it may be queued as %s: %s\n", id, err->text);
		return EX_IOERR;
	}
	fprintf(stderr, "sendq-sendmail: %s\n", err->text);
	return status ? status : sq_err_sysexit(e);
}

static enum sq_err
submit(struct submitter *by, const struct arguments *args, struct sq_submitted *done, int *status, struct sq_error *err)
{
	SQ_CLEANUP(submission_freep) struct submission *s = NULL;
	struct wish wish = { .sender = args->sender, .full_name = args->full_name, .envid = args->envid, .ret = args->ret, .duplicates = args->duplicates, .notify = args->notify,
		.dot_ends = !args->ignore_dots, .want_recipients = args->want_recipients,
		.not_before_ms = args->not_before_ms, .deadline_ms = args->deadline_ms };
	char mended[160];
	enum sq_err e;

	if ((e = submission_new(by, &wish, &s, err)) != SQ_OK)
		return e;
	for (int i = 0; i < args->n_recipients && e == SQ_OK; i++)
		if ((e = submission_add(s, sq_str(args->recipients[i]), args->notify, (struct sq_str){ 0 }, err)) != SQ_OK)
			sq_error_wrap(err, e, "recipient '%s'", args->recipients[i]);
	if (e == SQ_OK && (e = read_input(s, status, err)) == SQ_OK)
		e = submission_commit(s, done, err);
	if (e == SQ_OK && submission_mended(s, mended))
		fprintf(stderr, "sendq-sendmail: %s\n", mended);
	if (!*status)
		*status = submission_exit(s);
	return e;
}

static int
deliver(const struct arguments *args, const struct sq_config *cfg)
{
	struct submitter by = { .cfg = cfg, .source = "argv", .uid = (int64_t)getuid() };
	struct sq_submitted done = { 0 };
	struct sq_error err = { 0 };
	int status = 0;
	enum sq_err e;

	if (!args->want_recipients && args->n_recipients == 0) {
		fprintf(stderr, "sendq-sendmail: no recipients: name them, or use -t\n");
		return EX_USAGE;
	}
	SQ_FAULT(submit_start);
	e = submit(&by, args, &done, &status, &err);
	if (e == SQ_OK) {
		say_result(args, &done);
		if (done.id.v)
			wake_daemon(cfg);
	}
	submitter_fini(&by);
	return e == SQ_OK ? EX_OK : fail(status, &done, e, &err);
}

/* -bs: on a pipe or terminal whoever started us speaks; on a socket it must be the same user. */
static int
speak_smtp(const struct sq_config *cfg)
{
	struct serve how = { .cfg = cfg, .in = STDIN_FILENO, .out = STDOUT_FILENO, .stop = -1, .source = "bs", .uid = (int64_t)getuid() };
	int64_t uid = 0;

	if (peer_of(STDIN_FILENO, &uid) && uid != (int64_t)getuid() && uid != 0)
		return serve_refusal(STDOUT_FILENO, "this queue belongs to another user");
	return serve_smtp(&how);
}

/* -bv: where would mail to these go? In the words of sendmail, which scripts look for. */
static int
verify(const struct arguments *args, const struct sq_config *cfg)
{
	struct submitter by = { .cfg = cfg, .source = "argv", .uid = (int64_t)getuid() };
	struct wish wish = { .sender = args->sender };
	int status = EX_OK;

	if (args->n_recipients == 0) {
		fprintf(stderr, "sendq-sendmail: -bv needs addresses\n");
		return EX_USAGE;
	}
	for (int i = 0; i < args->n_recipients; i++) {
		struct to_list to = { 0 };
		struct sq_error err = { 0 };
		char route[65];

		if (submission_where(&by, &wish, sq_str(args->recipients[i]), &to, route, &err) != SQ_OK) {
			printf("%s... undeliverable: %s\n", args->recipients[i], err.text);
			status = EX_NOUSER;
			continue;
		}
		for (size_t k = 0; k < to.n; k++)
			printf("%s... deliverable: route %s, address %s\n", args->recipients[i], route, to.v[k].address.text);
		to_list_fini(&to);
	}
	submitter_fini(&by);
	return fflush(stdout) == 0 ? status : EX_IOERR;
}

/* -bi, newaliases: there is nothing to build, but a mistake is better found now. */
static int
check_aliases(const struct sq_config *cfg, bool quiet)
{
	struct aliases *al = NULL;
	struct sq_error err = { 0 };
	enum sq_err e = SQ_OK;

	if (!cfg->aliases)
		return EX_OK;
	if ((e = aliases_load(cfg->aliases, &al, &err)) == SQ_OK && (e = aliases_check(al, &err)) == SQ_OK && !quiet)
		printf("%s: %zu aliases, longest %zu bytes, %zu bytes total\n", cfg->aliases, aliases_count(al), aliases_longest(al), aliases_octets(al));
	aliases_free(al);
	if (e == SQ_OK)
		return EX_OK;
	fprintf(stderr, "sendq-sendmail: %s\n", err.text);
	return e == SQ_EINVAL ? EX_DATAERR : e == SQ_ENOENT ? EX_NOINPUT : sq_err_sysexit(e);
}

/* ---- -q ---- */

struct chosen {
	const struct arguments *args;
	struct sq_message_id *v;
	size_t n, cap;
	bool failed;
};

static bool
is_chosen(const struct arguments *args, const struct sq_message *m)
{
	char id[SQ_ID_TEXT];
	bool has = args->flush_by == FLUSH_ALL;

	sq_id_format(m->id, id);
	if (args->flush_by == FLUSH_BY_ID)
		has = strstr(id, args->flush_text) != NULL;
	else if (args->flush_by == FLUSH_BY_SENDER)
		has = strcasestr(m->sender, args->flush_text) != NULL;
	for (size_t i = 0; args->flush_by == FLUSH_BY_RECIPIENT && i < m->n_recipients && !has; i++)
		has = !sq_state_is_final(m->recipients[i].state) && strcasestr(m->recipients[i].address, args->flush_text) != NULL;
	return has != args->flush_inverse;
}

static bool
choose(void *arg, const struct sq_message *m)
{
	struct chosen *c = arg;

	if (!is_chosen(c->args, m))
		return true;
	if (c->n == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 64;
		struct sq_message_id *v = reallocarray(c->v, cap, sizeof(*v));

		if (!v) {
			c->failed = true;
			return false;
		}
		c->v = v;
		c->cap = cap;
	}
	c->v[c->n++] = m->id;
	return true;
}

static enum sq_err
request_chosen(struct sq_queue *q, const struct arguments *args, struct sq_error *err)
{
	struct chosen c = { .args = args };
	int64_t id;
	enum sq_err e = sq_queue_list(q, false, choose, &c, err);

	if (e == SQ_OK && c.failed)
		e = sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (size_t i = 0; e == SQ_OK && i < c.n; i++)
		e = sq_queue_request_add(q, sq_queue_is_restricted(q) ? SQ_REQUEST_RETRY : SQ_REQUEST_FLUSH, c.v[i], "", sq_wall_ms(), &id, err);
	free(c.v);
	return e;
}

/* -q: ask the daemon to try now; it does so by itself, we do not wait. */
static int
flush(const struct arguments *args, const struct sq_config *cfg)
{
	SQ_CLEANUP(sq_queue_closep) struct sq_queue *q = NULL;
	struct sq_error err = { 0 };
	int64_t id;
	enum sq_err e = sq_queue_open(cfg->queue, SQ_QUEUE_READ, &q, &err);

	if (e == SQ_ENOENT)
		return EX_OK;
	if (e == SQ_OK)
		restrict_queue(q);
	if (e == SQ_OK)
		e = args->flush_by != FLUSH_ALL || sq_queue_is_restricted(q) ? request_chosen(q, args, &err)
			: sq_queue_request_add(q, SQ_REQUEST_FLUSH, (struct sq_message_id){ 0 }, "", sq_wall_ms(), &id, &err);
	if (e != SQ_OK) {
		fprintf(stderr, "sendq-sendmail: %s\n", err.text);
		return sq_err_sysexit(e);
	}
	wake_daemon(cfg);
	return EX_OK;
}

static int
run(const struct arguments *args, const struct sq_config *cfg)
{
	switch (args->mode) {
	case MODE_DELIVER: return deliver(args, cfg);
	case MODE_LIST: return print_mailq(cfg, false);
	case MODE_COUNT: return print_mailq(cfg, true);
	case MODE_INIT: return check_aliases(cfg, false);
	case MODE_CHECK: return check_aliases(cfg, true);
	case MODE_FLUSH: return flush(args, cfg);
	case MODE_SMTP: return speak_smtp(cfg);
	case MODE_VERIFY: return verify(args, cfg);
	case MODE_DONE: break;
	}
	return EX_OK;
}

/* System mode: the queue is another user's, and what is asked for is asked of him. */
static int
run_system(const struct arguments *args)
{
	SQ_CLEANUP(sq_freep) char *submit_path = sq_system_path(SQ_SYSTEM_SUBMIT);
	SQ_CLEANUP(sq_freep) char *control = sq_system_path(SQ_SYSTEM_CONTROL);
	const char *words[256];
	size_t n = 0;

	if (!submit_path || !control)
		return EX_OSERR;
	switch (args->mode) {
	case MODE_DELIVER: return client_deliver(args, submit_path);
	case MODE_SMTP: return client_relay(submit_path);
	case MODE_LIST: words[n++] = "mailq"; break;
	case MODE_COUNT: words[n++] = "count"; break;
	case MODE_FLUSH: words[n++] = "runq"; break;
	case MODE_VERIFY:
		words[n++] = "verify";
		for (int i = 0; i < args->n_recipients && n < SQ_LEN(words); i++)
			words[n++] = args->recipients[i];
		break;
	case MODE_INIT:
	case MODE_CHECK:
		if (access(control, F_OK) < 0) /* while packages are set up */
			return EX_OK;
		words[n++] = "newaliases";
		break;
	case MODE_DONE: return EX_OK;
	}
	return client_command(words, n, control);
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
	if (args.mode == MODE_DONE)
		return EX_OK;
	e = sq_config_find(args.config, &path, &err);
	if (e == SQ_ENOENT && sq_system_is_meant(args.config))
		return run_system(&args);
	/* Packages call newaliases before anything is configured. */
	if (e == SQ_ENOENT && args.mode == MODE_INIT && !args.config)
		return EX_OK;
	if (e != SQ_OK || (e = sq_config_load(path, &cfg, &err)) != SQ_OK) {
		fprintf(stderr, "sendq-sendmail: %s\n", err.text);
		return EX_CONFIG;
	}
	return run(&args, cfg);
}
