/*
 * sendq watch: the state of things, live. It sleeps until the queue's files
 * change (inotify), and looks once a second only while something moves or is
 * about to. On a terminal only lines that changed are written, in one write;
 * the terminal is put back however it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include <sendq/io.h>

#include "watch.h"

/* What is written shows a moment before its commit is visible; and a burst of commits is one look. */
enum { SETTLE_MS = 60, APART_MS = 200, AGAIN_MS = 1000, KEY_CTRL_C = 3 };

struct watch {
	struct cli *c;
	struct watch_view view;
	struct watch_track tracks[WATCH_ITEMS];
	char *folder, *name;       /* of the queue */
	int signal_fd, notify_fd, folder_watch;
	int64_t again;             /* boot ms: a last look after a change, for a disk that takes long over a commit; 0: none */
	bool screen, over, resized;
	struct termios before;     /* of the terminal */
	bool raw;
	char *shown;               /* the screen, the lines or the JSON of last time; NULL: none */
};

/* ---- reading ---- */

static void
copy(char *out, size_t size, const char *s)
{
	snprintf(out, size, "%s", s ? s : "");
}

static struct watch_track *
track_of(struct watch *w, int64_t message)
{
	struct watch_track *free_one = &w->tracks[0];

	for (size_t i = 0; i < SQ_LEN(w->tracks); i++) {
		if (w->tracks[i].message == message)
			return &w->tracks[i];
		/* The one that was not looked at for longest. */
		if (w->tracks[i].n == 0 || (free_one->n > 0 && w->tracks[i].sample[w->tracks[i].n - 1].ms < free_one->sample[free_one->n - 1].ms))
			free_one = &w->tracks[i];
	}
	*free_one = (struct watch_track){ .message = message };
	return free_one;
}

static bool
take_item(void *arg, const struct sq_message *m)
{
	struct watch *w = arg;
	struct watch_item *item = &w->view.items[w->view.n_items];
	size_t n = 0;

	if (w->view.n_items == WATCH_ITEMS) {
		w->view.more_items++;
		return true;
	}
	*item = (struct watch_item){ .size = m->size };
	for (size_t i = 0; i < m->n_recipients; i++) {
		const struct sq_recipient *r = &m->recipients[i];

		if (r->state != SQ_STATE_SENDING && r->state != SQ_STATE_COMMITTING)
			continue;
		if (n++ > 0)
			continue;
		copy(item->to, sizeof(item->to), r->address);
		item->acked = r->acked_octets > r->durable_octets ? r->acked_octets : r->durable_octets;
		item->durable = r->durable_octets;
		item->checking = r->state == SQ_STATE_COMMITTING;
		item->since_ms = r->state_ms;
	}
	if (n == 0)
		return true; /* it was over a moment ago */
	sq_id_format(m->id, item->id);
	item->more = n - 1;
	item->rate = watch_rate(track_of(w, m->id.v), w->view.now_ms, item->acked);
	w->view.n_items++;
	return true;
}

static bool
take_next(void *arg, const struct sq_message *m)
{
	struct watch *w = arg;
	struct watch_next *next = &w->view.next[w->view.n_next];
	size_t n = 0;

	for (size_t i = 0; i < m->n_recipients; i++) {
		const struct sq_recipient *r = &m->recipients[i];

		if (r->state != SQ_STATE_QUEUED || n++ > 0)
			continue;
		*next = (struct watch_next){ .size = m->size, .at_ms = r->next_try_ms,
			.better_link = r->waits == SQ_WAITS_BETTER_LINK || r->waits == SQ_WAITS_PARTIAL };
		copy(next->to, sizeof(next->to), r->address);
		sq_id_format(m->id, next->id);
	}
	next->more = n > 0 ? n - 1 : 0;
	w->view.n_next += n > 0;
	return w->view.n_next < WATCH_NEXT;
}

static void
take_route(struct watch *w, const char *name)
{
	struct watch_route *route = &w->view.routes[w->view.n_routes++];
	struct sq_link_row row = { 0 };

	if (w->c->q)
		link_of(w->c, name, &row);
	*route = (struct watch_route){ .since_ms = row.since_ms, .next_ms = row.next_try_ms, .rtt_us = row.rtt_us,
		.rate = (double)row.goodput_bps / 8, .stopped = row.stopped };
	copy(route->name, sizeof(route->name), name);
	copy(route->state, sizeof(route->state), row.state);
	copy(route->cause, sizeof(route->cause), row.cause);
}

static enum sq_err
look(struct watch *w)
{
	SQ_CLEANUP(sq_freep) char *wake = sq_path_suffix(w->c->cfg->queue, ".wake");
	struct watch_view *v = &w->view;
	struct cli *c = w->c;
	enum sq_err e = SQ_OK;

	*v = (struct watch_view){ .now_ms = sq_wall_ms(), .daemon = wake && sq_wake_answers(wake) };
	c->now_ms = v->now_ms;
	/* Before anything is read, so that no change falls in between. */
	if (w->folder_watch < 0)
		w->folder_watch = inotify_add_watch(w->notify_fd, w->folder, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE);
	if (!c->q && (e = sq_queue_open(c->cfg->queue, SQ_QUEUE_READ, &c->q, &c->err)) != SQ_OK && e != SQ_ENOENT)
		return e;
	for (size_t i = 0; i < c->cfg->n_routes && v->n_routes < WATCH_ROUTES; i++)
		take_route(w, c->cfg->routes[i].name);
	if (!c->q)
		return SQ_OK;
	if ((e = sq_queue_counts(c->q, (struct sq_message_id){ 0 }, v->counts, &c->err)) == SQ_OK &&
	    (e = sq_queue_moving(c->q, take_item, w, &c->err)) == SQ_OK)
		e = sq_queue_soonest(c->q, WATCH_NEXT, take_next, w, &c->err);
	return e;
}

/* ---- showing ---- */

static void
size_of_screen(struct watch_style *s)
{
	struct winsize z = { 0 };

	*s = (struct watch_style){ .columns = 80, .rows = 24 };
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &z) == 0 && z.ws_col > 0 && z.ws_row > 0) {
		s->columns = z.ws_col;
		s->rows = z.ws_row;
	}
}

static enum sq_err
show_screen(struct watch *w)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf out = SQ_BUF_INIT(1 << 20);
	struct sq_buf now = SQ_BUF_INIT(1 << 20);
	struct watch_style s;
	char *text;
	enum sq_err e;

	size_of_screen(&s);
	s.colour = w->c->colour;
	watch_draw(&w->view, &s, &now);
	/* The last line has no end: it would scroll a full screen. */
	if (now.n > 0)
		now.p[--now.n] = '\0';
	if ((e = sq_buf_take(&now, &text, &w->c->err)) != SQ_OK) {
		sq_buf_fini(&now);
		return e;
	}
	watch_redraw(w->resized ? NULL : w->shown, text, &out);
	free(w->shown);
	w->shown = text;
	w->resized = false;
	return out.n > 0 ? sq_write_all(STDOUT_FILENO, out.p, out.n, &w->c->err) : SQ_OK;
}

/* The line stands among those of last time. */
static bool
was_shown(const char *shown, const char *line, size_t n)
{
	for (const char *p = shown; p && *p; p += strcspn(p, "\n"), p += *p == '\n')
		if (strcspn(p, "\n") == n && memcmp(p, line, n) == 0)
			return true;
	return false;
}

/* Not a terminal: the lines that are new since last time. */
static enum sq_err
show_lines(struct watch *w)
{
	struct watch_style s = { .columns = 200, .plain = true };
	struct sq_buf now = SQ_BUF_INIT(1 << 20);
	char *text;
	enum sq_err e;

	watch_draw(&w->view, &s, &now);
	if ((e = sq_buf_take(&now, &text, &w->c->err)) != SQ_OK) {
		sq_buf_fini(&now);
		return e;
	}
	for (const char *p = text; *p; ) {
		size_t n = strcspn(p, "\n");

		if (!was_shown(w->shown, p, n))
			printf("%.*s\n", (int)n, p);
		p += n + (p[n] == '\n');
	}
	free(w->shown);
	w->shown = text;
	return fflush(stdout) == 0 ? SQ_OK : sq_error_errno(&w->c->err, SQ_EIO, "cannot write");
}

static enum sq_err
show_json(struct watch *w)
{
	struct json steady = JSON_INIT, whole = JSON_INIT;
	char *text;
	enum sq_err e;

	watch_json(&w->view, true, &steady);
	if ((e = sq_buf_take(&steady.b, &text, &w->c->err)) != SQ_OK) {
		sq_buf_fini(&steady.b);
		return e;
	}
	if (!w->shown || strcmp(w->shown, text) != 0) {
		watch_json(&w->view, false, &whole);
		json_line(&whole);
	}
	sq_buf_fini(&whole.b);
	free(w->shown);
	w->shown = text;
	return fflush(stdout) == 0 ? SQ_OK : sq_error_errno(&w->c->err, SQ_EIO, "cannot write");
}

/* ---- the terminal ---- */

static void
say(const char *octets)
{
	(void)!sq_write_all(STDOUT_FILENO, octets, strlen(octets), NULL);
}

static void
enter(struct watch *w)
{
	struct termios t;

	if (!w->screen)
		return;
	/* A screen of its own, no cursor; keys one by one, unseen. Ctrl-C stays a signal. */
	say("\033[?1049h\033[?25l");
	w->resized = true;
	if (tcgetattr(STDIN_FILENO, &w->before) == 0) {
		t = w->before;
		t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		t.c_cc[VMIN] = 0;
		t.c_cc[VTIME] = 0;
		w->raw = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
	}
}

static void
leave(struct watch *w)
{
	if (!w->screen)
		return;
	/* The modes first: whoever sees the old screen may type. */
	if (w->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &w->before);
	w->raw = false;
	say("\033[?25h\033[?1049l");
}

static void
keys(struct watch *w)
{
	char typed[64];
	ssize_t n = read(STDIN_FILENO, typed, sizeof(typed));

	for (ssize_t i = 0; i < n; i++)
		w->over |= typed[i] == 'q' || typed[i] == 'Q' || typed[i] == KEY_CTRL_C;
}

static void
signals(struct watch *w)
{
	struct signalfd_siginfo s;

	while (read(w->signal_fd, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
		if (s.ssi_signo == SIGWINCH) {
			w->resized = true;
		} else if (s.ssi_signo == SIGTSTP) {
			leave(w);
			raise(SIGSTOP);
			enter(w);
		} else {
			w->over = true;
		}
	}
}

/* ---- waiting ---- */

/* Something of the queue was written. */
static bool
changed(struct watch *w)
{
	_Alignas(struct inotify_event) char events[8192];
	bool ours = false;
	ssize_t n;

	while ((n = read(w->notify_fd, events, sizeof(events))) > 0)
		for (ssize_t at = 0; at < n; ) {
			const struct inotify_event *ev = (const struct inotify_event *)(const void *)(events + at);

			ours |= ev->len == 0 || strncmp(ev->name, w->name, strlen(w->name)) == 0;
			at += (ssize_t)(sizeof(*ev) + ev->len);
		}
	return ours;
}

/* Until there is something new to see. */
static void
wait_for_news(struct watch *w)
{
	int64_t now = sq_boot_ms(), began = now, by = INT64_MAX, look_in = watch_next_look(&w->view);

	if (!w->c->q)
		by = now + AGAIN_MS; /* there is nothing yet whose changes could be waited for */
	else if (look_in >= 0 && (w->screen || w->view.n_items > 0))
		by = now + look_in;
	if (w->again > 0 && w->again < by)
		by = w->again;
	while (!w->over && !w->resized && now < by) {
		struct pollfd fds[] = { { .fd = w->signal_fd, .events = POLLIN }, { .fd = w->notify_fd, .events = POLLIN },
			{ .fd = w->raw ? STDIN_FILENO : -1, .events = POLLIN } };

		if (poll(fds, SQ_LEN(fds), by - now > INT32_MAX ? -1 : (int)(by - now)) < 0 && errno != EINTR)
			sq_bug("poll: %s", strerror(errno));
		signals(w);
		if (fds[2].revents & POLLIN)
			keys(w);
		else if (fds[2].revents)
			w->over = true; /* the terminal is gone */
		now = sq_boot_ms();
		if (!changed(w))
			continue;
		w->again = now + AGAIN_MS;
		if (now + SETTLE_MS < by)
			by = now + SETTLE_MS;
		if (by < began + APART_MS)
			by = began + APART_MS;
	}
	if (w->again > 0 && now >= w->again)
		w->again = 0;
}

static enum sq_err
watch_open(struct watch *w)
{
	sigset_t ours;
	char *slash;

	if (!(w->folder = strdup(w->c->cfg->queue)))
		return sq_error_set(&w->c->err, SQ_ENOMEM, "out of memory");
	slash = strrchr(w->folder, '/');
	w->name = slash ? slash + 1 : w->folder;
	if (slash)
		*slash = '\0';
	sigemptyset(&ours);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGHUP);
	if (w->screen) {
		sigaddset(&ours, SIGWINCH);
		sigaddset(&ours, SIGTSTP);
	}
	sigprocmask(SIG_BLOCK, &ours, NULL);
	w->signal_fd = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
	w->notify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->signal_fd < 0 || w->notify_fd < 0)
		return sq_error_errno(&w->c->err, SQ_EIO, "cannot wait for changes");
	return SQ_OK;
}

static void
watch_close(struct watch *w)
{
	sq_closep(&w->signal_fd);
	sq_closep(&w->notify_fd);
	free(w->folder);
	free(w->shown);
}

int
cmd_watch(struct cli *c, int argc, char **argv)
{
	const char *term = getenv("TERM");
	struct watch w = { .c = c, .signal_fd = -1, .notify_fd = -1, .folder_watch = -1 };
	enum sq_err e;

	if (argc > 0)
		return cli_usage("watch takes no argument, not '%s'", argv[0]);
	w.screen = !c->json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO) && term && strcmp(term, "dumb") != 0;
	if (!w.screen && !c->json)
		fputs("sendq: this is no terminal: a line for each change (--json for programs)\n", stderr);
	e = watch_open(&w);
	if (e == SQ_OK)
		enter(&w);
	while (e == SQ_OK && !w.over) {
		if ((e = look(&w)) == SQ_OK)
			e = w.screen ? show_screen(&w) : c->json ? show_json(&w) : show_lines(&w);
		if (e == SQ_EBUSY)
			e = SQ_OK; /* somebody writes for long: what is shown stays */
		if (e == SQ_OK)
			wait_for_news(&w);
	}
	leave(&w);
	watch_close(&w);
	return e == SQ_OK ? EX_OK : cli_fail(c);
}
