/*
 * The loop: one thread, one poll. A round takes what has arrived, puts its
 * marks into one batch, commits it, and only then lets GO and content out.
 * Idle, it sleeps without a timeout unless something is due.
 *
 * When the store fails (disk full, I/O) the agents are ended, nothing more is
 * promised to anybody, and the queue is opened anew later: recovery then puts
 * every recipient where it certainly belongs.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/log.h>

#include "inside.h"

enum { AGENTS_MAX = 512, FIXED_FDS = 4 + NETWATCH_FDS, SWEEP_MS = 3600000 };

/* ---- the batch of a round ---- */

bool
runner_mark(struct runner *r)
{
	struct sq_error err = { 0 };

	if (r->store_failed)
		return false;
	if (r->batch)
		return true;
	if (sq_queue_batch_begin(r->q, true, &err) != SQ_OK) {
		sq_log(SQ_LOG_ERROR, "cannot write the queue: %s", err.text);
		return false;
	}
	r->batch = true;
	return true;
}

void
runner_store_failed(struct runner *r, const struct sq_error *err)
{
	if (!r->store_failed)
		sq_log(SQ_LOG_ERROR, "the queue failed, sessions are ended and it is opened anew: %s", err && err->text[0] ? err->text : "see above");
	r->store_failed = true;
}

static void
commit_round(struct runner *r)
{
	struct sq_error err = { 0 };

	if (!r->batch)
		return;
	r->batch = false;
	if (sq_queue_batch_commit(r->q, &err) != SQ_OK)
		runner_store_failed(r, &err);
	else if (r->verdict_due)
		SQ_FAULT(runner_after_verdict);
	r->verdict_due = false;
}

/* ---- children ---- */

static void
reap(struct runner *r)
{
	for (struct agent *a = r->agents; a; a = a->next)
		if (a->pid > 0 && waitpid(a->pid, NULL, WNOHANG) == a->pid) {
			a->pid = 0;
			if (a->fd >= 0)
				agent_events(r, a); /* what it said before it ended */
			if (a->state == AGENT_LEAVING && a->fd < 0)
				a->state = AGENT_GONE;
		}
}

static void
free_gone(struct runner *r)
{
	for (struct agent **p = &r->agents; *p; ) {
		struct agent *a = *p;

		if (a->state != AGENT_GONE) {
			p = &a->next;
			continue;
		}
		*p = a->next;
		sq_closep(&a->fd);
		sq_stream_wipe(&a->stream);
		command_fini(&a->secret);
		token_way_fini(&a->token);
		sq_work_free(a->work);
		window_free(a);
		r->doubts_due |= a->kind != SQ_JOB_DELIVER; /* the next may be asked about */
		evidence_free(a->evidence);
		free(a);
	}
}

static void
secret_over(struct runner *r, struct agent *a)
{
	const struct sq_route *route = sq_config_route(r->cfg, a->route);
	struct command c = a->secret;

	if (route && route->secret_kind == SQ_SECRET_OAUTH) {
		token_over(r, a, route);
		return;
	}
	a->secret = (struct command){ .out = -1, .err = -1 };
	secret_trim(&c.text);
	if (!route || c.text.failed || c.text.n == 0) {
		struct sq_buf words = SQ_BUF_INIT(4096);
		struct sq_end end = { .outcome = SQ_OUTCOME_SECRET, .scope = SQ_SCOPE_ROUTE };
		char *line;

		while (c.words.n > 0 && c.words.p[c.words.n - 1] == '\n')
			c.words.p[--c.words.n] = '\0';
		line = c.words.p ? strrchr(c.words.p, '\n') : NULL;
		sq_buf_addf(&words, "the password command gave no password: %s", line ? line + 1 : c.words.n > 0 ? c.words.p : "it printed nothing");
		end.reply.text = (struct sq_str){ words.p, words.n < SQ_REPLY_TEXT_MAX ? words.n : SQ_REPLY_TEXT_MAX };
		agent_failed(r, a, &end);
		sq_buf_fini(&words);
	} else {
		agent_start(r, a, route, (struct sq_str){ c.text.p, c.text.n });
	}
	command_fini(&c);
}

/* Deadlines of agents and commands. */
static void
deadlines(struct runner *r)
{
	int64_t now = sq_boot_ms();

	for (struct agent *a = r->agents; a; a = a->next) {
		if (a->state == AGENT_SECRET && a->secret.pid > 0 && now >= a->secret.deadline && command_events(&a->secret))
			secret_over(r, a);
		if (a->deadline == 0 || now < a->deadline || a->state == AGENT_IDLE)
			continue;
		if (a->state == AGENT_LEAVING && a->fd < 0) {
			if (a->pid > 0)
				kill(a->pid, SIGKILL);
			a->deadline = now + SQ_BYE_MS;
		} else if (a->state != AGENT_SECRET && a->state != AGENT_GONE) {
			agent_kill(r, a, a->state == AGENT_LEAVING ? "it did not end when told to" : a->cancelled ? "it did not let go when told to" : "it took too long");
		}
	}
	mtalog_events(r);
	if (r->hook.pid > 0 && command_events(&r->hook)) {
		command_fini(&r->hook);
		hooks_next(r);
	}
}

/* ---- configuration ---- */

static void
note_config(struct runner *r)
{
	struct stat st;

	if (stat(r->o->config_path, &st) < 0)
		return;
	r->cfg_mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	r->cfg_ino = (int64_t)st.st_ino;
}

/* Mail whose route the configuration does not name waits for a person: nothing else in the log would tell. */
static void
note_stranded(void *arg, const char *route, int64_t n)
{
	struct runner *r = arg;

	if (!sq_config_route(r->cfg, route))
		sq_log(SQ_LOG_WARN, "route=%s is not in the configuration: recipients=%lld wait for it", route, (long long)n);
}

/* A changed file is read anew; a bad one is reported and the old one kept. */
static void
reload_config(struct runner *r, bool told)
{
	int64_t mtime = r->cfg_mtime_ns, ino = r->cfg_ino;
	struct sq_config *cfg = NULL;
	struct sq_error err = { 0 };

	note_config(r);
	if (!told && mtime == r->cfg_mtime_ns && ino == r->cfg_ino)
		return;
	if (sq_config_load(r->o->config_path, &cfg, &err) != SQ_OK) {
		sq_log(SQ_LOG_ERROR, "the changed configuration is not used: %s", err.text);
		return;
	}
	if (strcmp(cfg->queue, r->cfg->queue) != 0) {
		sq_log(SQ_LOG_ERROR, "the changed configuration names another queue: restart sendqd");
		sq_config_free(cfg);
		return;
	}
	sq_config_free(r->cfg);
	r->cfg = cfg;
	r->next_warning = 0;
	r->fallback_due = true;
	netwatch_files(r);
	link_clear_waits(r, true);
	sq_log(SQ_LOG_INFO, "configuration read anew");
	(void)!sq_queue_busy_routes(r->q, note_stranded, r, NULL);
}

/* ---- opening the queue ---- */

static enum sq_err
open_store(struct runner *r, struct sq_error *err)
{
	struct sq_recovered was = { 0 };
	bool restored = false;
	int held = 0;
	enum sq_err e;

	if ((e = sq_queue_open(r->cfg->queue, SQ_QUEUE_RUN, &r->q, err)) != SQ_OK)
		return e;
	if ((e = sq_queue_check_restored(r->q, &restored, err)) != SQ_OK)
		return e;
	if (restored && (e = sq_queue_hold_restored(r->q,
		"this queue was restored from a backup: the message may have been sent after the backup was made", sq_wall_ms(), &held, err)) != SQ_OK)
		return e;
	if (restored)
		sq_log(SQ_LOG_WARN, "the queue was restored from a backup: held=%d (sendq list, sendq release ID, sendq remove ID)", held);
	if ((e = sq_queue_recover(r->q, sq_wall_ms(), &was, err)) != SQ_OK)
		return e;
	if (was.doubt + was.requeued + was.swept > 0)
		sq_log(SQ_LOG_INFO, "recovered doubt=%d requeued=%d swept=%d", was.doubt, was.requeued, was.swept);
	(void)!sq_queue_busy_routes(r->q, note_stranded, r, NULL);
	SQ_FAULT(runner_recovered);
	return SQ_OK;
}

static void
wait_for_child(pid_t pid)
{
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void
end_all_agents(struct runner *r)
{
	for (struct agent *a = r->agents; a; a = a->next) {
		if (a->pid > 0)
			kill(a->pid, SIGKILL);
		wait_for_child(a->pid);
		a->pid = 0;
		a->state = AGENT_GONE;
	}
	free_gone(r);
}

/* What was under way is whatever the last commit says: recovery finds it. */
static void
store_is_gone(struct runner *r)
{
	end_all_agents(r);
	bus_lock(r);
	if (r->batch)
		(void)!sq_queue_batch_commit(r->q, NULL);
	r->batch = false;
	sq_queue_close(r->q);
	r->q = NULL;
	links_forget(r);
	picks_forget(r, NULL);
	r->store_retry = sq_boot_ms() + SQ_STORE_RETRY_MS;
}

/* ---- housekeeping ---- */

static void
housekeeping(struct runner *r, bool all)
{
	struct sq_error err = { 0 };
	bool more = true;
	int n = 0;

	if (sq_queue_expire(r->q, sq_wall_ms(), &n, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return;
	}
	if (n > 0)
		sq_log(SQ_LOG_WARN, "expired recipients=%d", n);
	reports(r);
	alerts(r);
	delays(r);
	if (r->store_failed || sq_boot_ms() < r->next_sweep)
		return;
	while (more)
		if (sq_queue_sweep(r->q, sq_wall_ms(), r->cfg->ledger_ms, r->agents == NULL, &more, &err) != SQ_OK) {
			sq_log(SQ_LOG_WARN, "cannot tidy the queue: %s", err.text);
			break;
		} else if (!all && r->agents) {
			break; /* the rest when nobody waits for us */
		}
	r->next_sweep = sq_boot_ms() + (more && r->agents ? 1000 : SWEEP_MS);
}

/* ---- the loop ---- */

static void
set_timer(struct runner *r, int64_t at)
{
	int64_t now = sq_boot_ms(), wait = at == INT64_MAX ? 0 : at > now ? at - now : 1;
	struct itimerspec t = { .it_value = { .tv_sec = wait / 1000, .tv_nsec = (long)(wait % 1000) * 1000000 } };

	if (timerfd_settime(r->timer_fd, 0, &t, NULL) < 0)
		sq_bug("timerfd_settime: %s", strerror(errno));
}

static void
drain_fd(int fd)
{
	char octets[512];

	while (read(fd, octets, sizeof(octets)) > 0)
		;
}

static void
stop(struct runner *r)
{
	if (r->stopping)
		return;
	sq_log(SQ_LOG_INFO, "stopping");
	sq_runner_stopping();
	r->stopping = true;
	r->stop_by = sq_boot_ms() + r->cfg->stop_grace_ms;
	for (struct agent *a = r->agents; a; a = a->next) {
		if (a->state == AGENT_IDLE)
			agent_bye(r, a);
		else
			agent_cancel(r, a);
	}
}

/*
 * Another socket stands where ours did: systemd's, when somebody enabled sendqd.socket while this daemon ran. Nobody
 * can announce mail here any more, so the queue goes to whom systemd starts, who waits for the lock.
 */
void
socket_moved(struct runner *r)
{
	struct stat st;

	if (r->o->once || r->stopping || lstat(r->wake_path, &st) < 0 || st.st_ino == r->wake_inode || !sq_wake_poke(r->wake_path))
		return;
	sq_log(SQ_LOG_INFO, "new mail is announced to another runner now ('%s'): it takes over", r->wake_path);
	stop(r);
}

static void
signals(struct runner *r)
{
	struct signalfd_siginfo s;

	while (read(r->signal_fd, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
		if (s.ssi_signo == SIGTERM || s.ssi_signo == SIGINT)
			stop(r);
		else if (s.ssi_signo == SIGHUP && r->q)
			reload_config(r, true);
	}
}

/* Wait for something, then let every agent say what it has to say. */
static void
wait_and_read(struct runner *r)
{
	struct pollfd fds[FIXED_FDS + 3 * AGENTS_MAX];
	struct agent *a;
	nfds_t n = 0;

	fds[n++] = (struct pollfd){ .fd = r->signal_fd, .events = POLLIN };
	fds[n++] = (struct pollfd){ .fd = r->timer_fd, .events = POLLIN };
	fds[n++] = (struct pollfd){ .fd = r->wake_fd, .events = POLLIN };
	bus_fd(r, &fds[n++]);
	n += netwatch_fds(r, fds + n);
	for (a = r->agents; a && n + 3 < SQ_LEN(fds); a = a->next) {
		if (a->state == AGENT_SECRET) {
			fds[n++] = (struct pollfd){ .fd = a->secret.out, .events = POLLIN };
			fds[n++] = (struct pollfd){ .fd = a->secret.err, .events = POLLIN };
		} else if (a->fd >= 0) {
			fds[n++] = (struct pollfd){ .fd = a->fd, .events = (short)(POLLIN | (sq_stream_pending(&a->stream) ? POLLOUT : 0)) };
		}
	}
	/* A daemon that goes to sleep keeps no more memory than it must. */
	if (r->q && !r->agents && poll(fds, n, 0) == 0)
		sq_queue_rest(r->q);
	if (poll(fds, n, -1) < 0 && errno != EINTR)
		sq_bug("poll: %s", strerror(errno));
	signals(r);
	drain_fd(r->timer_fd);
	if (fds[2].revents)
		picks_new_mail(r);
	drain_fd(r->wake_fd);
	netwatch_events(r);
	bus_events(r);
	for (a = r->agents; a && r->q && !r->store_failed; a = a->next) {
		if (a->state == AGENT_SECRET && a->secret.pid > 0) {
			if (command_events(&a->secret))
				secret_over(r, a);
		} else if (a->fd >= 0) {
			agent_events(r, a);
		}
	}
}

/* One round behind the poll: marks, commit, what waited for the commit. */
static void
round_of_work(struct runner *r)
{
	reap(r);
	deadlines(r);
	assign_windows(r);
	commit_round(r);
	if (!r->store_failed) {
		netwatch_act(r);
		bus_act(r);
		reload_config(r, false);
		requests(r);
		doubts(r);
		fallback(r);
		assign(r);
		commit_round(r);
	}
	for (struct agent *a = r->agents; a && !r->store_failed; a = a->next)
		agent_after_commit(r, a);
	commit_round(r); /* an agent that broke while it was answered */
	free_gone(r);
	bus_lock(r);
	if (!r->store_failed)
		housekeeping(r, r->o->once);
	if (!r->store_failed)
		requests_over(r);
}

static bool
finished(struct runner *r)
{
	if (r->stopping && (!r->agents || sq_boot_ms() >= r->stop_by))
		return true;
	return r->o->once && !r->agents && !r->logs && !r->hook.pid && !r->hooks && r->q && quiet(r);
}

static enum sq_err
loop(struct runner *r, struct sq_error *err)
{
	enum sq_err e;

	for (;;) {
		if (r->q)
			round_of_work(r);
		if (r->store_failed) {
			store_is_gone(r);
			r->store_failed = false;
			if (r->o->once)
				return sq_error_set(err, SQ_EIO, "the queue '%s' cannot be written", r->cfg->queue);
		}
		if (!r->q && !r->stopping && sq_boot_ms() >= r->store_retry && (e = open_store(r, err)) != SQ_OK) {
			sq_log(SQ_LOG_ERROR, "%s", err->text);
			sq_queue_close(r->q);
			r->q = NULL;
			r->store_retry = sq_boot_ms() + SQ_STORE_RETRY_MS;
		} else if (r->q && finished(r)) {
			break;
		} else if (!r->q && r->stopping) {
			return SQ_OK;
		}
		set_timer(r, r->q ? next_wake(r) : r->store_retry);
		wait_and_read(r);
	}
	/* Whoever is still in commit is let go: its socket resets, and it is in doubt. */
	end_all_agents(r);
	if (r->stopping) {
		struct sq_recovered was;

		return sq_queue_recover(r->q, sq_wall_ms(), &was, err);
	}
	return SQ_OK;
}

static enum sq_err
begin(struct runner *r, struct sq_error *err)
{
	struct stat st;
	enum sq_err e;

	if ((e = sq_config_load(r->o->config_path, &r->cfg, err)) != SQ_OK)
		return e;
	note_config(r);
	if (r->lock_fd < 0 && (e = sq_runner_lock(r->cfg->queue, true, &r->lock_fd, err)) != SQ_OK)
		return e;
	if (!(r->wake_path = sq_path_suffix(r->cfg->queue, ".wake")))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	/* Before the first scan: a poke that comes after it is heard. */
	if ((e = sq_wake_bind(r->wake_path, &r->wake_fd, err)) != SQ_OK || (e = open_store(r, err)) != SQ_OK)
		return e;
	if (lstat(r->wake_path, &st) == 0)
		r->wake_inode = st.st_ino;
	if ((e = sq_queue_ehlo_name(r->q, &r->ehlo_name, err)) != SQ_OK)
		return e;
	if ((e = netwatch_open(r, err)) == SQ_OK)
		bus_open(r);
	return e;
}

static void
retry_named(struct runner *r)
{
	struct sq_message_id everything = { 0 };
	struct sq_error err = { 0 };
	int n;

	link_clear_waits(r, false);
	for (size_t i = 0; i < (r->o->n_flush_ids > 0 ? r->o->n_flush_ids : 1); i++)
		doubts_ask_now(r, r->o->n_flush_ids > 0 ? r->o->flush_ids[i] : everything);
	for (size_t i = 0; i < (r->o->n_flush_ids > 0 ? r->o->n_flush_ids : 1); i++)
		if (sq_queue_retry(r->q, r->o->n_flush_ids > 0 ? r->o->flush_ids[i] : everything, sq_wall_ms(), &n, &err) != SQ_OK)
			sq_log(SQ_LOG_WARN, "%s", err.text);
}

enum sq_err
sq_runner_run(const struct sq_runner_options *o, struct sq_error *err)
{
	struct runner r = { .o = o, .lock_fd = o->lock_fd, .wake_fd = -1, .signal_fd = -1, .timer_fd = -1, .hook = { .out = -1, .err = -1 },
		.doubts_due = true, .fallback_due = true, .cuts_due = true };
	sigset_t ours, before;
	enum sq_err e;

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	sigaddset(&ours, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ours, &before);
	r.signal_fd = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
	r.timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (r.signal_fd < 0 || r.timer_fd < 0)
		e = sq_error_errno(err, SQ_EIO, "cannot wait for signals");
	else
		e = begin(&r, err);
	if (e == SQ_OK && o->flush)
		retry_named(&r);
	if (e == SQ_OK && !o->once)
		sq_runner_ready();
	if (e == SQ_OK)
		e = loop(&r, err);
	end_all_agents(&r);
	command_fini(&r.hook);
	hooks_free(&r);
	doubt_free_uses(&r);
	tokens_free(&r);
	mtalog_free(&r);
	links_forget(&r);
	picks_free(&r);
	bus_close(&r);
	netwatch_close(&r);
	sq_queue_close(r.q);
	sq_config_free(r.cfg);
	free(r.ehlo_name);
	free(r.wake_path);
	free(r.flushes);
	sq_closep(&r.wake_fd);
	sq_closep(&r.signal_fd);
	sq_closep(&r.timer_fd);
	if (o->lock_fd < 0)
		sq_closep(&r.lock_fd);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return e;
}
