/*
 * sendq-gateway: listens, and gives each connection a process. Owns the
 * listening sockets, the count of connections, and the drop of privileges:
 * after the start nothing here is root.
 */
#include "store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/log.h>

enum { ROUND_MS = 60000, CONNECTIONS_MAX = 10000 };

struct child {
	pid_t pid;
	char client[INET6_ADDRSTRLEN];
};

struct server {
	struct gw_settings settings;
	struct ssl_ctx_st *tls;
	int fd[GW_LISTEN_MAX];
	struct child *child;   /* settings.connections of them; pid 0: free */
	pid_t self, worker;
	sigset_t mask;         /* of signals, outside the loop */
};

static volatile sig_atomic_t ended;

static void
on_signal(int sig)
{
	if (sig != SIGCHLD)
		ended = 1;
}

/* ---- listening */

static enum sq_err
listen_one(const struct gw_listen *l, int *out, struct sq_error *err)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
	struct addrinfo *a = NULL;
	int on = 1, rc = getaddrinfo(l->host, l->port, &hints, &a);
	int fd = rc == 0 ? socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
	bool good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
		    bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 100) == 0;
	enum sq_err e = SQ_OK;

	if (rc != 0)
		e = sq_error_set(err, SQ_EINVAL, "cannot listen on '%s': %s", l->host, gai_strerror(rc));
	else if (!good)
		e = sq_error_errno(err, SQ_EIO, "cannot listen on '%s' port %s", l->host, l->port);
	if (a)
		freeaddrinfo(a);
	if (e != SQ_OK)
		sq_closep(&fd);
	else
		*out = fd;
	return e;
}

/* For people, and for tests that asked for port 0. */
static void
say_listening(int fd)
{
	struct sockaddr_storage sa;
	socklen_t n = sizeof(sa);
	char host[INET6_ADDRSTRLEN], port[8];

	if (getsockname(fd, (struct sockaddr *)&sa, &n) == 0 &&
	    getnameinfo((struct sockaddr *)&sa, n, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		printf(sa.ss_family == AF_INET6 ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host, port);
	fflush(stdout);
}

/* ---- privileges */

static enum sq_err
become(const struct gw_settings *s, struct sq_error *err)
{
	struct passwd *pw;
	enum sq_err e;

	if (!s->user)
		return SQ_OK;
	if (!(pw = getpwnam(s->user)))
		return sq_error_set(err, SQ_EINVAL, "there is no user '%s'", s->user);
	if (geteuid() != 0)
		return geteuid() == pw->pw_uid ? SQ_OK : sq_error_set(err, SQ_EPERM, "only root can become '%s'", s->user);
	if ((e = sq_mkdirs(s->state, err)) != SQ_OK)
		return e;
	if (chown(s->state, pw->pw_uid, pw->pw_gid) != 0)
		return sq_error_errno(err, SQ_EPERM, "cannot give '%s' away", s->state);
	if (initgroups(s->user, pw->pw_gid) != 0 || setgid(pw->pw_gid) != 0 || setuid(pw->pw_uid) != 0)
		return sq_error_errno(err, SQ_EPERM, "cannot become '%s'", s->user);
	return setuid(0) == 0 && pw->pw_uid != 0 ? sq_error_set(err, SQ_EPERM, "still root") : SQ_OK;
}

/* ---- children */

static void
in_child(struct server *v)
{
	sigprocmask(SIG_SETMASK, &v->mask, NULL);
	for (size_t i = 0; i < v->settings.listens; i++)
		close(v->fd[i]);
	/* With the parent gone a session ends in order: what came is kept. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != v->self)
		raise(SIGTERM);
}

static struct child *
slot_for(struct server *v, const char *client)
{
	struct child *free_one = NULL;
	int64_t same = 0;

	for (int64_t i = 0; i < v->settings.connections; i++) {
		if (v->child[i].pid == 0)
			free_one = &v->child[i];
		else
			same += strcmp(v->child[i].client, client) == 0;
	}
	return same < v->settings.client_connections ? free_one : NULL;
}

static void
take_connection(struct server *v, size_t listener)
{
	static const char full[] = "421 4.3.2 too many connections, come back later\r\n";
	struct sockaddr_storage sa;
	socklen_t n = sizeof(sa);
	char client[INET6_ADDRSTRLEN] = "unknown";
	SQ_CLEANUP(sq_closep) int fd = accept4(v->fd[listener], (struct sockaddr *)&sa, &n, SOCK_CLOEXEC);
	struct child *slot;
	int on = 1;
	pid_t pid;

	if (fd < 0)
		return;
	(void)getnameinfo((struct sockaddr *)&sa, n, client, sizeof(client), NULL, 0, NI_NUMERICHOST);
	if (!(slot = slot_for(v, client))) {
		if (v->settings.listen[listener].tls != GW_TLS_IMPLICIT)
			(void)!send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if ((pid = fork()) == 0) {
		in_child(v);
		gw_serve(&v->settings, v->tls, fd, client, v->settings.listen[listener].tls);
		_exit(0);
	}
	if (pid < 0) {
		sq_log(SQ_LOG_ERROR, "unserved error=fork errno=%d", errno);
		return;
	}
	slot->pid = pid;
	memcpy(slot->client, client, sizeof(client));
}

static void
reap(struct server *v)
{
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (WIFSIGNALED(status))
			sq_log(SQ_LOG_ERROR, "died pid=%d signal=%d", (int)pid, WTERMSIG(status));
		if (pid == v->worker)
			v->worker = 0;
		for (int64_t i = 0; i < v->settings.connections; i++)
			if (v->child[i].pid == pid)
				v->child[i].pid = 0;
	}
}

static void
start_worker(struct server *v)
{
	struct sq_error err = { 0 };

	if (v->worker || (v->worker = fork()) != 0)
		return;
	in_child(v);
	signal(SIGTERM, SIG_DFL);
	if (gw_worker_round(&v->settings, &err) != SQ_OK)
		sq_log(SQ_LOG_ERROR, "unswept error=%s text=\"%s\"", sq_err_name(err.code), err.text);
	_exit(0);
}

static void
loop(struct server *v)
{
	struct pollfd p[GW_LISTEN_MAX];
	int64_t next_round = 0;

	while (!ended) {
		struct timespec wait = { .tv_sec = 1 };

		if (sq_boot_ms() >= next_round) {
			start_worker(v);
			next_round = sq_boot_ms() + ROUND_MS;
		}
		for (size_t i = 0; i < v->settings.listens; i++)
			p[i] = (struct pollfd){ .fd = v->fd[i], .events = POLLIN };
		if (ppoll(p, v->settings.listens, &wait, &v->mask) > 0)
			for (size_t i = 0; i < v->settings.listens; i++)
				if (p[i].revents & POLLIN)
					take_connection(v, i);
		reap(v);
	}
	/* Sessions store what they have and say 421. */
	for (int64_t i = 0; i < v->settings.connections; i++)
		if (v->child[i].pid > 0)
			kill(v->child[i].pid, SIGTERM);
	if (v->worker > 0)
		kill(v->worker, SIGTERM);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

/* ---- start */

static enum sq_err
start(struct server *v, struct sq_error *err)
{
	struct gw_settings *s = &v->settings;
	SQ_CLEANUP(gw_store_freep) struct gw_store *store = NULL;
	enum sq_err e;

	for (size_t i = 0; i < s->listens; i++) {
		if ((e = listen_one(&s->listen[i], &v->fd[i], err)) != SQ_OK)
			return e;
		if (s->listen[i].tls != GW_TLS_NONE && !v->tls && (e = gw_tls_context(s, &v->tls, err)) != SQ_OK)
			return e;
	}
	if ((e = become(s, err)) != SQ_OK || (!s->passthrough && (e = gw_passwords_check(s->passwords, err)) != SQ_OK))
		return e;
	if (!s->maildir && (e = gw_relay_probe(s, err)) != SQ_OK)
		return e;
	if (s->local_server && (e = gw_relay_local_probe(s, err)) != SQ_OK)
		return e;
	if ((e = gw_store_open(s->state, &s->limits, &store, err)) != SQ_OK || (e = gw_store_check_mark(store, err)) != SQ_OK)
		return e;
	if (s->connections > CONNECTIONS_MAX)
		s->connections = CONNECTIONS_MAX;
	if (!(v->child = calloc((size_t)s->connections, sizeof(*v->child))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	return SQ_OK;
}

static int
serve_all(const char *config, const char *listen)
{
	struct server v = { .self = getpid() };
	struct sigaction act = { .sa_handler = on_signal };
	struct sq_error err = { 0 };
	sigset_t mask;
	enum sq_err e;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, &v.mask);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGCHLD, &act, NULL);
	if ((e = gw_settings_load(config, listen, &v.settings, &err)) != SQ_OK || (e = start(&v, &err)) != SQ_OK) {
		fprintf(stderr, "sendq-gateway: %s\n", err.text);
		return e == SQ_EINVAL ? EX_CONFIG : sq_err_sysexit(e);
	}
	for (size_t i = 0; i < v.settings.listens; i++)
		say_listening(v.fd[i]);
	loop(&v);
	free(v.child);
	gw_settings_fini(&v.settings);
	return 0;
}

/* ---- command line */

static int
administer(const char *config, int argc, char **argv, bool json)
{
	struct gw_settings settings;
	struct sq_error err = { 0 };
	enum sq_err e = gw_settings_load(config, NULL, &settings, &err);
	int status;

	/* As the service's own user: files that root makes in the store would lock it out. */
	if (e == SQ_OK)
		e = become(&settings, &err);
	if (e != SQ_OK) {
		fprintf(stderr, "sendq-gateway: %s\n", err.text);
		return e == SQ_EINVAL ? EX_CONFIG : sq_err_sysexit(e);
	}
	status = gw_admin(&settings, argc, argv, json);
	gw_settings_fini(&settings);
	return status;
}

static const char usage[] =
	"usage: sendq-gateway [--config FILE] [--listen URL]\n"
	"       sendq-gateway [--config FILE] list [USER] [--json]\n"
	"       sendq-gateway [--config FILE] show ID... [--json]\n"
	"       sendq-gateway [--config FILE] deliver ID...\n"
	"       sendq-gateway [--config FILE] remove ID...\n"
	"       sendq-gateway [--config FILE] set USER allow_duplicates=on|off | partial=keep|deliver ...\n"
	"\n"
	"Without a command: serve SMTP submission that can be taken up again after a cut (CHECKPOINT), in the\n"
	"foreground. With one: partial messages and duplicates, by what the index says of them.\n"
	"\n"
	"  -c, --config FILE   settings, /etc/sendq/gateway.conf (see sendq-gateway(8))\n"
	"  -l, --listen URL    instead of the setting: smtp://127.0.0.1:0, starttls://[::]:587, smtps://0.0.0.0:465\n"
	"      --json          one object a line\n"
	"      --help, --version\n";

static bool
is_command(const char *word)
{
	static const char *const words[] = { "list", "show", "deliver", "remove", "set" };

	for (size_t i = 0; i < SQ_LEN(words); i++)
		if (strcmp(word, words[i]) == 0)
			return true;
	return false;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "listen", required_argument, NULL, 'l' }, { "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'v' }, { NULL, 0, NULL, 0 },
	};
	const char *config = "/etc/sendq/gateway.conf", *listen = NULL;
	bool json = false;
	int c, status;

	while ((c = getopt_long(argc, argv, "c:l:", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			config = optarg;
			break;
		case 'l':
			listen = optarg;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'v':
			puts("sendq-gateway " SENDQ_VERSION);
			return 0;
		default:
			fputs(usage, stderr);
			return EX_USAGE;
		}
	}
	sq_log_init("sendq-gateway", SQ_LOG_INFO);
	if (optind == argc)
		return serve_all(config, listen);
	status = is_command(argv[optind]) ? administer(config, argc - optind, argv + optind, json) : EX_USAGE;
	if (status == EX_USAGE)
		fputs(usage, stderr);
	return status;
}
