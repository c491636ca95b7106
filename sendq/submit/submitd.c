/*
 * sendq-submitd: the listener of system mode. Two sockets that every user of
 * the machine may connect to: submit.sock speaks SMTP, control.sock carries
 * out `sendq` and `mailq` for their caller.
 *
 * A program of its own, beside sendqd: whoever decides what is sent when must
 * not parse what strangers say, and mail is taken in while sendqd is down. And
 * one process a connection: this one accepts, asks the kernel who is there,
 * counts, forks, and never reads an octet that a user wrote; so nobody who is
 * slow, or kills his own sendmail, or finds a bug in a parser, holds up
 * anybody else. Both run as the queue's user, which no plain user is.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/control.h>
#include <sendq/io.h>
#include <sendq/log.h>

#include "serve.h"
#include "submitd.h"

enum { CHILDREN_MAX = 1000, LISTENERS_MAX = 8, SYSTEMD_FIRST_FD = 3 };

enum service { SERVICE_SUBMIT, SERVICE_CONTROL };

struct child { pid_t pid; int64_t uid; };

struct daemon {
	const char *config_path;
	struct sq_config *cfg;     /* for the limits; children read it anew */
	int64_t config_stamp;
	struct { int fd; enum service what; } listeners[LISTENERS_MAX];
	size_t n_listeners;
	int signals;
	int stop[2];           /* closed at its writing end when the sessions are to end */
	struct child children[CHILDREN_MAX];
	size_t n_children;
};

/* ---- sockets ---- */

/* Those that systemd opened for us, told apart by the name of their file (sd_listen_fds(3)). */
static enum sq_err
take_listeners(struct daemon *d, struct sq_error *err)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	long n = count && pid && strtol(pid, NULL, 10) == (long)getpid() ? strtol(count, NULL, 10) : 0;

	for (int fd = SYSTEMD_FIRST_FD; fd < SYSTEMD_FIRST_FD + n && d->n_listeners < LISTENERS_MAX; fd++) {
		struct sockaddr_un a = { 0 };
		socklen_t size = sizeof(a);
		bool control;

		if (getsockname(fd, (struct sockaddr *)&a, &size) < 0 || a.sun_family != AF_UNIX)
			return sq_error_set(err, SQ_EINVAL, "descriptor %d from systemd is no Unix socket", fd);
		control = strstr(a.sun_path, "control") != NULL;
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
			return sq_error_errno(err, SQ_EIO, "cannot use descriptor %d", fd);
		d->listeners[d->n_listeners].fd = fd;
		d->listeners[d->n_listeners++].what = control ? SERVICE_CONTROL : SERVICE_SUBMIT;
	}
	return SQ_OK;
}

static enum sq_err
open_listeners(struct daemon *d, struct sq_error *err)
{
	static const enum sq_system_place places[] = { SQ_SYSTEM_SUBMIT, SQ_SYSTEM_CONTROL };
	enum sq_err e = take_listeners(d, err);

	if (e != SQ_OK || d->n_listeners > 0)
		return e;
	for (size_t i = 0; i < SQ_LEN(places); i++) {
		SQ_CLEANUP(sq_freep) char *path = sq_system_path(places[i]);

		if (!path)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		if ((e = sq_socket_listen(path, &d->listeners[i].fd, err)) != SQ_OK)
			return e;
		d->listeners[i].what = i == 0 ? SERVICE_SUBMIT : SERVICE_CONTROL;
		d->n_listeners++;
	}
	return SQ_OK;
}

/* ---- children ---- */

static int
sessions_of(const struct daemon *d, int64_t uid)
{
	int n = 0;

	for (size_t i = 0; i < d->n_children; i++)
		n += d->children[i].uid == uid;
	return n;
}

static void
reap(struct daemon *d)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		for (size_t i = 0; i < d->n_children; i++)
			if (d->children[i].pid == pid)
				d->children[i--] = d->children[--d->n_children];
}

/* In the child: the session, with nothing of the listener's but the configuration's path. */
static int
session(const struct daemon *d, int fd, enum service what, int64_t uid)
{
	SQ_CLEANUP(sq_config_freep) struct sq_config *cfg = NULL;
	static const char broken[] = "421 4.3.5 the configuration of this machine's mail is broken\r\n";
	struct sq_error err = { 0 };
	struct serve how = { .in = fd, .out = fd, .stop = d->stop[0], .source = "socket", .uid = uid, .private = true };
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (size_t i = 0; i < d->n_listeners; i++)
		close(d->listeners[i].fd);
	close(d->signals);
	close(d->stop[1]);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (fcntl(fd, F_SETFL, 0) < 0)
		return EX_OSERR;
	if (what == SERVICE_CONTROL)
		return serve_control(fd, uid, d->config_path);
	if (sq_config_load(d->config_path, &cfg, &err) != SQ_OK) {
		sq_log(SQ_LOG_ERROR, "%s", err.text);
		(void)!write(fd, broken, sizeof(broken) - 1);
		return EX_CONFIG;
	}
	cfg->autostart = false; /* the service manager's business: from here it would run without a network */
	how.cfg = cfg;
	how.open_max = uid == 0 ? 0 : cfg->user_messages_max;
	return serve_smtp(&how);
}

static void
turn_away(int fd, enum service what)
{
	static const char words[] = "421 4.3.2 too many sessions of yours at once: try later\r\n";

	if (what == SERVICE_SUBMIT)
		(void)!send(fd, words, sizeof(words) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
answer(struct daemon *d, int fd, enum service what)
{
	int64_t uid = -1;
	pid_t pid;

	if (!peer_of(fd, &uid) || uid < 0)
		return;
	/* Root is not kept out by whoever fills the house. */
	if ((uid != 0 && sessions_of(d, uid) >= d->cfg->user_connections_max) || d->n_children >= CHILDREN_MAX - (uid != 0 ? 20 : 0)) {
		sq_log(SQ_LOG_WARN, "refused uid=%lld: too many sessions", (long long)uid);
		turn_away(fd, what);
		return;
	}
	pid = fork();
	if (pid == 0)
		exit(session(d, fd, what, uid));
	if (pid > 0)
		d->children[d->n_children++] = (struct child){ pid, uid };
	else
		turn_away(fd, what);
}

/* ---- the loop ---- */

static int64_t
stamp_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec : 0;
}

/* New limits count from the next connection; a broken file changes nothing. */
static void
reload(struct daemon *d)
{
	int64_t stamp = stamp_of(d->config_path);
	struct sq_config *cfg = NULL;
	struct sq_error err = { 0 };

	if (stamp == d->config_stamp)
		return;
	d->config_stamp = stamp;
	if (sq_config_load(d->config_path, &cfg, &err) != SQ_OK) {
		sq_log(SQ_LOG_ERROR, "the changed configuration is not used: %s", err.text);
		return;
	}
	sq_config_free(d->cfg);
	d->cfg = cfg;
}

/* True: told to end. */
static bool
read_signals(struct daemon *d)
{
	struct signalfd_siginfo s;
	bool end = false;

	while (read(d->signals, &s, sizeof(s)) == (ssize_t)sizeof(s))
		end |= s.ssi_signo == SIGTERM || s.ssi_signo == SIGINT;
	reap(d);
	return end;
}

static void
loop(struct daemon *d)
{
	struct pollfd p[LISTENERS_MAX + 1];

	p[0] = (struct pollfd){ .fd = d->signals, .events = POLLIN };
	for (size_t i = 0; i < d->n_listeners; i++)
		p[i + 1] = (struct pollfd){ .fd = d->listeners[i].fd, .events = POLLIN };
	for (;;) {
		if (poll(p, (nfds_t)(d->n_listeners + 1), -1) < 0 && errno != EINTR)
			sq_bug("poll: %s", strerror(errno));
		if (p[0].revents && read_signals(d))
			return;
		for (size_t i = 0; i < d->n_listeners; i++) {
			int fd = p[i + 1].revents ? accept4(d->listeners[i].fd, NULL, NULL, SOCK_CLOEXEC) : -1;

			if (fd < 0) {
				if (p[i + 1].revents && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
					nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
				continue;
			}
			reload(d);
			answer(d, fd, d->listeners[i].what);
			close(fd);
		}
	}
}

/* Told to end: nobody is let in any more, and a message that is being taken in is finished, for as long as stop_grace. */
static void
finish(struct daemon *d)
{
	int64_t until = sq_boot_ms() + d->cfg->stop_grace_ms, left;
	struct pollfd p = { .fd = d->signals, .events = POLLIN };

	for (size_t i = 0; i < d->n_listeners; i++)
		close(d->listeners[i].fd);
	close(d->stop[1]);
	reap(d);
	while (d->n_children > 0 && (left = until - sq_boot_ms()) > 0)
		if (poll(&p, 1, (int)left) > 0 && read_signals(d))
			return;
}

static int
usage(FILE *to, int status)
{
	fputs("usage: sendq-submitd [-C FILE]\n"
		"  -C, --config FILE  the configuration (else /etc/sendq/sendq.conf)\n"
		"  --version, --help\n"
		"Takes mail from all users of this machine. Stays in the foreground, takes its\n"
		"sockets from systemd or makes them in /run/sendq, and runs as the queue's user.\n", to);
	return status;
}

int
main(int argc, char **argv)
{
	static struct daemon d = { .signals = -1 };
	SQ_CLEANUP(sq_freep) char *system = sq_system_path(SQ_SYSTEM_CONFIG);
	struct sq_error err = { 0 };
	sigset_t ours;
	enum sq_err e;

	d.config_path = system;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0)
			return usage(stdout, EX_OK);
		if (strcmp(argv[i], "--version") == 0)
			return puts("sendq-submitd " SENDQ_VERSION), EX_OK;
		if ((strcmp(argv[i], "-C") == 0 || strcmp(argv[i], "--config") == 0) && i + 1 < argc)
			d.config_path = argv[++i];
		else
			return usage(stderr, EX_USAGE);
	}
	signal(SIGPIPE, SIG_IGN);
	sq_log_init("sendq-submitd", SQ_LOG_INFO);
	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ours, NULL);
	d.signals = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
	prctl(PR_SET_DUMPABLE, 0);
	umask(077);
	if (sq_config_load(d.config_path, &d.cfg, &err) != SQ_OK) {
		fprintf(stderr, "sendq-submitd: %s\n", err.text);
		return EX_CONFIG;
	}
	e = d.signals < 0 || pipe2(d.stop, O_CLOEXEC) < 0 ? sq_error_errno(&err, SQ_EIO, "cannot wait for signals") : SQ_OK;
	if (e == SQ_OK)
		d.config_stamp = stamp_of(d.config_path);
	if (e == SQ_OK && (e = open_listeners(&d, &err)) == SQ_OK)
		loop(&d), finish(&d);
	if (e != SQ_OK)
		fprintf(stderr, "sendq-submitd: %s\n", err.text);
	sq_config_free(d.cfg);
	return e == SQ_OK ? EX_OK : sq_err_sysexit(e);
}
