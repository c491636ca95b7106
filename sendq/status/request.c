/*
 * What a person asks for: written as a row, carried out by the daemon, or,
 * where none runs, by this program itself under the runner lock.
 */
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/runner.h>

#include "status.h"

enum { FIRST_WAIT_MS = 5, LONGEST_WAIT_MS = 200, POKE_EVERY_MS = 1000, PATIENCE_MS = 1000, DEAF_MS = 10000, REQUESTS_MAX = 1000 };

static void
sleep_ms(int ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 }, NULL);
}

static bool
poke(struct cli *c)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(c->cfg->queue, ".wake");

	return path && sq_wake_poke(path);
}

/* No daemon holds the lock (we do): do what waits, here. */
static enum sq_err
carry_out_here(struct cli *c, int lock_fd, bool flush, const struct sq_message_id *ids, size_t n_ids)
{
	SQ_CLEANUP(sq_queue_closep) struct sq_queue *run = NULL;
	struct sq_runner_options o = { .config_path = c->cfg->path, .lock_fd = lock_fd, .once = true, .flush = flush,
		.flush_ids = ids, .n_flush_ids = n_ids, .interactive = c->terminal };
	int n = 0;
	enum sq_err e;

	if (flush)
		return sq_runner_run(&o, &c->err);
	if ((e = sq_queue_open(c->cfg->queue, SQ_QUEUE_RUN, &run, &c->err)) != SQ_OK)
		return e;
	return sq_runner_carry_out(run, sq_wall_ms(), &n, &c->err);
}

static enum sq_err
all_done(struct cli *c, const int64_t *requests, size_t n, bool *done)
{
	struct sq_request r;
	enum sq_err e;

	*done = true;
	for (size_t i = 0; i < n; i++) {
		if ((e = sq_queue_request_get(c->q, requests[i], &r, &c->err)) != SQ_OK)
			return e;
		if (r.done_ms == 0)
			*done = false;
	}
	return SQ_OK;
}

/* Said once on a terminal when it takes long, so that nobody thinks it hangs. */
static void
tell_waiting(const struct cli *c, bool flush, int64_t waited_ms, bool *told)
{
	if (*told || !c->terminal || waited_ms < PATIENCE_MS)
		return;
	fputs(flush ? "sendq: trying; interrupt to stop waiting (mail goes on by itself)\n" : "sendq: waiting for the daemon\n", stderr);
	*told = true;
}

/*
 * Wait until every request is done, by a daemon or, in its absence, by
 * ourselves. Who holds the lock without listening is a daemon that starts or
 * stops, or the last session of one that died: a matter of seconds.
 */
static enum sq_err
see_done(struct cli *c, const int64_t *requests, size_t n, bool flush, const struct sq_message_id *ids, size_t n_ids)
{
	int64_t began = sq_boot_ms(), now = began, poked = 0;
	int wait = FIRST_WAIT_MS;
	bool done = false, told = false, listens = false;
	enum sq_err e;

	for (;;) {
		int lock = -1;

		if (!listens || now - poked >= POKE_EVERY_MS) { /* a poke may be lost, a daemon may go away */
			listens = poke(c);
			poked = now;
		}
		if ((e = all_done(c, requests, n, &done)) != SQ_OK || done)
			return e;
		if (!listens && !c->remote && (e = sq_runner_lock(c->cfg->queue, false, &lock, &c->err)) == SQ_OK) {
			e = carry_out_here(c, lock, flush, ids, n_ids);
			close(lock);
			if (e != SQ_OK || flush)
				return e;
			continue;
		} else if (!listens && !c->remote && e != SQ_EBUSY) {
			return e;
		}
		sleep_ms(wait);
		wait = wait * 2 < LONGEST_WAIT_MS ? wait * 2 : LONGEST_WAIT_MS;
		now = sq_boot_ms();
		tell_waiting(c, flush, now - began, &told);
		if ((!flush || !listens) && now - began > DEAF_MS)
			return sq_error_set(&c->err, SQ_EBUSY, "somebody has the queue but does not answer; the request stays and is done by the next daemon");
	}
}

enum sq_err
requests_done(struct cli *c, const int64_t *requests, size_t n)
{
	return see_done(c, requests, n, false, NULL, 0);
}

/* Say each answer; EX_OK when all were done, EX_UNAVAILABLE when one was refused. */
static int
print_answers(struct cli *c, const int64_t *requests, size_t n)
{
	int status = EX_OK;

	for (size_t i = 0; i < n; i++) {
		struct sq_request r;
		struct json j = JSON_INIT;
		char id[SQ_ID_TEXT];

		if (sq_queue_request_get(c->q, requests[i], &r, &c->err) != SQ_OK)
			return cli_fail(c);
		if (r.done_ms > 0 && !r.ok)
			status = EX_UNAVAILABLE;
		sq_id_format(r.message, id);
		if (c->json) {
			json_open(&j, NULL, '{');
			json_text(&j, "id", r.message.v ? id : NULL);
			json_bool(&j, "ok", r.ok);
			json_text(&j, "result", r.result);
			json_close(&j, '}');
			json_line(&j);
			sq_buf_fini(&j.b);
		} else {
			fprintf(r.ok ? stdout : stderr, "%s%s%s%s\n", r.ok ? "" : "sendq: ", r.message.v ? id : "", r.message.v ? ": " : "", r.result);
		}
	}
	return status;
}

int
cli_settle(struct cli *c, const int64_t *requests, size_t n)
{
	if (see_done(c, requests, n, false, NULL, 0) != SQ_OK)
		return cli_fail(c);
	return print_answers(c, requests, n);
}

/* One request for each ID (all of its recipients, or the one given by --to). */
static int
ask(struct cli *c, enum sq_request_kind kind, int argc, char **argv)
{
	int64_t requests[REQUESTS_MAX];
	const char *to = "";
	size_t n = 0;

	for (int i = 0; i < argc; i++) {
		struct sq_message_id id;

		if (strcmp(argv[i], "--to") == 0) {
			if (++i >= argc)
				return cli_usage("'--to' needs an address");
			to = argv[i];
			if (strlen(to) >= SQ_ADDRESS_MAX)
				return cli_usage("'--to': the address is too long");
			continue;
		}
		if (argv[i][0] == '-')
			return cli_usage("unknown option '%s'", argv[i]);
		if (n == SQ_LEN(requests))
			return cli_usage("at most %d messages at once", REQUESTS_MAX);
		if (!cli_id(c, argv[i], &id))
			return EX_NOINPUT;
		requests[n++] = id.v; /* the request's own number replaces it below: nothing is asked before all IDs are known to be right */
	}
	if (n == 0)
		return cli_usage("which message? Give an ID of `sendq list`");
	for (size_t i = 0; i < n; i++)
		if (sq_queue_request_add(c->q, kind, (struct sq_message_id){ requests[i] }, to, c->now_ms, &requests[i], &c->err) != SQ_OK)
			return cli_fail(c);
	return cli_settle(c, requests, n);
}

int
cmd_hold(struct cli *c, int argc, char **argv)
{
	return ask(c, SQ_REQUEST_HOLD, argc, argv);
}

int
cmd_release(struct cli *c, int argc, char **argv)
{
	return ask(c, SQ_REQUEST_RELEASE, argc, argv);
}

int
cmd_remove(struct cli *c, int argc, char **argv)
{
	return ask(c, SQ_REQUEST_REMOVE, argc, argv);
}

int
cmd_resend(struct cli *c, int argc, char **argv)
{
	return ask(c, SQ_REQUEST_RESEND, argc, argv);
}

int
cmd_settle(struct cli *c, int argc, char **argv)
{
	const char *how = NULL;
	char *rest[64];
	int n = 0;

	if (argc > 0 && strcmp(argv[0], "--from-mail") == 0)
		return argc == 1 ? settle_from_mail(c) : cli_usage("--from-mail takes nothing else, not '%s'", argv[1]);
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "sent") == 0 || strcmp(argv[i], "unsent") == 0)
			how = argv[i];
		else if (n < (int)SQ_LEN(rest))
			rest[n++] = argv[i];
		else
			return cli_usage("at most %d words", (int)SQ_LEN(rest));
	}
	if (!how)
		return cli_usage("settle needs an ID and `sent` or `unsent`%s%s%s", n > 1 ? ", not '" : "", n > 1 ? rest[n - 1] : "", n > 1 ? "'" : "");
	return ask(c, strcmp(how, "sent") == 0 ? SQ_REQUEST_SETTLE_SENT : SQ_REQUEST_SETTLE_UNSENT, n, rest);
}

int
cmd_forget(struct cli *c, int argc, char **argv)
{
	struct sq_request req = { .kind = SQ_REQUEST_FORGET, .asked_ms = c->now_ms };
	struct sq_message_id ids[REQUESTS_MAX];
	int64_t requests[REQUESTS_MAX];
	bool all = false, some = false;
	size_t n = 0;

	for (int i = 0; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--all") == 0) {
			all = true;
			continue;
		}
		if (argv[i][0] != '-') {
			if (n == SQ_LEN(ids))
				return cli_usage("at most %d messages at once", REQUESTS_MAX);
			if (!cli_id(c, argv[i], &ids[n++]))
				return EX_NOINPUT;
			continue;
		}
		if (!value)
			return cli_usage("'%s' is no option here, or lacks its value", argv[i]);
		if (strcmp(argv[i], "--to") == 0 && value[0] && strlen(value) < sizeof(req.address))
			snprintf(req.address, sizeof(req.address), "%s", value);
		else if (strcmp(argv[i], "--message-id") == 0 && value[0] && strlen(value) + 3 < sizeof(req.words))
			snprintf(req.words, sizeof(req.words), value[0] == '<' ? "%s" : "<%s>", value);
		else if (strcmp(argv[i], "--before") == 0 && sq_parse_duration_ms(value) > 0)
			req.number = sq_parse_duration_ms(value);
		else
			return cli_usage("forget takes IDs, --to ADDRESS, --message-id ID, --before DURATION (like 30d) and --all, not '%s %s'", argv[i], value);
		some = true;
		i++;
	}
	if (all ? some || n > 0 : !some && n == 0)
		return cli_usage(all ? "--all stands alone" : "forget what? Give an ID, --to, --message-id, --before or --all");
	if (!c->q)
		return puts("0 entries forgotten"), EX_OK;
	for (size_t i = 0; i < (n > 0 ? n : 1); i++) {
		req.message.v = n > 0 ? ids[i].v : 0;
		if (sq_queue_request_put(c->q, &req, &requests[i], &c->err) != SQ_OK)
			return cli_fail(c);
	}
	n = n > 0 ? n : 1;
	if (see_done(c, requests, n, false, NULL, 0) != SQ_OK)
		return cli_fail(c);
	return print_answers(c, requests, n);
}

/* 75 while something of these messages (all: none given) is queued, sending, committing or in doubt. */
static int
left_over(struct cli *c, const struct sq_message_id *ids, size_t n)
{
	struct sq_message_id everything = { 0 };
	int64_t left = 0;

	for (size_t i = 0; i < (n > 0 ? n : 1); i++) {
		int64_t counts[SQ_STATE_COUNT];

		if (sq_queue_counts(c->q, n > 0 ? ids[i] : everything, counts, &c->err) != SQ_OK)
			return cli_fail(c);
		left += counts[SQ_STATE_QUEUED] + counts[SQ_STATE_SENDING] + counts[SQ_STATE_COMMITTING] + counts[SQ_STATE_DOUBT];
	}
	if (c->json) {
		struct json j = JSON_INIT;

		json_open(&j, NULL, '{');
		json_int(&j, "left", left);
		json_close(&j, '}');
		json_line(&j);
		sq_buf_fini(&j.b);
	} else if (left > 0) {
		printf("%lld recipient%s left in the queue: `sendq` shows why\n", (long long)left, left == 1 ? " is" : "s are");
	} else if (!c->quiet && isatty(STDOUT_FILENO)) {
		puts("Nothing is left to send.");
	}
	return left > 0 ? EX_TEMPFAIL : EX_OK;
}

struct own { struct sq_message_id *ids; size_t n; };

static bool
own_each(void *arg, const struct sq_message *m)
{
	struct own *o = arg;

	o->ids[o->n++] = m->id;
	return o->n < REQUESTS_MAX;
}

/* Who sees only his own messages moves only them: a flush moves the waits of routes, which others share. */
static int
retry_own(struct cli *c, struct sq_message_id *ids, size_t n)
{
	struct own all = { .ids = ids };
	int64_t requests[REQUESTS_MAX];

	if (n == 0 && sq_queue_list(c->q, false, own_each, &all, &c->err) != SQ_OK)
		return cli_fail(c);
	n = n > 0 ? n : all.n;
	for (size_t i = 0; i < n; i++)
		if (sq_queue_request_add(c->q, SQ_REQUEST_RETRY, ids[i], "", c->now_ms, &requests[i], &c->err) != SQ_OK)
			return cli_fail(c);
	return n > 0 ? cli_settle(c, requests, n) : EX_OK;
}

int
cmd_flush(struct cli *c, int argc, char **argv)
{
	struct sq_message_id ids[REQUESTS_MAX], everything = { 0 };
	int64_t requests[REQUESTS_MAX];
	size_t n = 0;

	if (argc > (int)SQ_LEN(ids))
		return cli_usage("at most %d messages at once", REQUESTS_MAX);
	if (!c->q)
		return argc > 0 && !cli_id(c, argv[0], &ids[0]) ? EX_NOINPUT : EX_OK;
	for (int i = 0; i < argc; i++)
		if (!cli_id(c, argv[i], &ids[n++]))
			return EX_NOINPUT;
	if (c->restricted)
		return retry_own(c, ids, n);
	for (size_t i = 0; i < (n > 0 ? n : 1); i++)
		if (sq_queue_request_add(c->q, SQ_REQUEST_FLUSH, n > 0 ? ids[i] : everything, "", c->now_ms, &requests[i], &c->err) != SQ_OK)
			return cli_fail(c);
	if (see_done(c, requests, n > 0 ? n : 1, true, ids, n) != SQ_OK)
		return cli_fail(c);
	return left_over(c, ids, n);
}
