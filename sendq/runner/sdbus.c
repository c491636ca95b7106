/*
 * The system bus by libsystemd (bus.h). The connection is made without
 * waiting. While nobody listens on the bus's socket its folder is watched, and
 * nothing else (sd_bus_set_watch_bind() watches all folders above too, and we
 * would wake up for whatever happens there). A connection that was lost is
 * made anew after a second, then two, and so on up to an hour, where it does
 * not last.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include <sendq/log.h>

#include "bus.h"

enum { AT_ONCE = 64, AGAIN_MS = 1000, AGAIN_MAX_MS = 3600000, LASTING_MS = 60000 };

#define NETWORK_MANAGER "org.freedesktop.NetworkManager"
#define NETWORK_MANAGER_PATH "/org/freedesktop/NetworkManager"
#define LOGIN "org.freedesktop.login1"
#define LOGIN_PATH "/org/freedesktop/login1"
#define LOGIN_MANAGER "org.freedesktop.login1.Manager"
#define DBUS "org.freedesktop.DBus"
#define DBUS_PATH "/org/freedesktop/DBus"
#define PROPERTIES "org.freedesktop.DBus.Properties"

/* The connection that owns a name, as the bus says; "": none. */
struct peer { const char *name; char owner[64]; };

struct sq_bus {
	sd_bus *sd;                /* NULL: lost */
	char *address;
	struct sq_bus_news news;
	struct peer network, login;
	bool asking, stale;        /* for the connectivity; it changed meanwhile */
	bool hold, taking, refused; /* the lock: wanted; being taken; not to be had for this message */
	int lock_fd;
	int watch_fd;              /* inotify, while the connection is lost; else -1 */
	int64_t opened, again;     /* ms of CLOCK_MONOTONIC; again INT64_MAX: when the folder says so */
	int64_t pause;
};

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- NetworkManager ---- */

static void ask_connectivity(struct sq_bus *b);

static int
on_connectivity(sd_bus_message *m, void *arg, sd_bus_error *e)
{
	struct sq_bus *b = arg;
	uint32_t value = 0;

	(void)e;
	b->asking = false;
	if (sd_bus_message_is_method_error(m, NULL) || sd_bus_message_read(m, "v", "u", &value) < 0 || value > SQ_CONNECTIVITY_FULL)
		value = SQ_CONNECTIVITY_UNKNOWN;
	if (b->network.owner[0])
		b->news.connectivity = (enum sq_connectivity)value;
	if (b->stale)
		ask_connectivity(b);
	return 0;
}

static void
ask_connectivity(struct sq_bus *b)
{
	b->stale = b->asking;
	if (b->asking || !b->network.owner[0])
		return;
	b->asking = sd_bus_call_method_async(b->sd, NULL, b->network.owner, NETWORK_MANAGER_PATH, PROPERTIES, "Get", on_connectivity, b,
		"ss", NETWORK_MANAGER, "Connectivity") >= 0;
}

static bool
from(sd_bus_message *m, const struct peer *p)
{
	const char *sender = sd_bus_message_get_sender(m);

	return sender && p->owner[0] && strcmp(sender, p->owner) == 0;
}

/* What has changed is not read from here: it is asked for. */
static int
on_properties(sd_bus_message *m, void *arg, sd_bus_error *e)
{
	struct sq_bus *b = arg;

	(void)e;
	if (from(m, &b->network))
		ask_connectivity(b);
	return 0;
}

/* ---- login1 ---- */

static int
on_lock(sd_bus_message *m, void *arg, sd_bus_error *e)
{
	struct sq_bus *b = arg;
	int fd = -1;

	(void)e;
	b->taking = false;
	if (sd_bus_message_is_method_error(m, NULL))
		sq_log(SQ_LOG_DEBUG, "sleep cannot be delayed: %s", sd_bus_message_get_error(m)->name);
	else if (b->hold && sd_bus_message_read(m, "h", &fd) >= 0 && b->lock_fd < 0)
		b->lock_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the message keeps its own */
	/* The answer wakes us up: to ask again at once would go on as fast as it can. */
	b->refused = b->hold && b->lock_fd < 0;
	return 0;
}

static void
take_lock(struct sq_bus *b)
{
	if (!b->hold || b->taking || b->refused || b->lock_fd >= 0 || !b->login.owner[0] || b->news.sleeping)
		return;
	b->taking = sd_bus_call_method_async(b->sd, NULL, b->login.owner, LOGIN_PATH, LOGIN_MANAGER, "Inhibit", on_lock, b,
		"ssss", "sleep", "sendq", "A message is being sent", "delay") >= 0;
}

static void
bus_lock(struct sq_bus *b, bool hold)
{
	b->hold = hold;
	b->refused &= hold;
	if (!hold)
		sq_closep(&b->lock_fd);
	else if (b->sd)
		take_lock(b);
}

static int
on_sleep(sd_bus_message *m, void *arg, sd_bus_error *e)
{
	struct sq_bus *b = arg;
	int going = 0;

	(void)e;
	if (from(m, &b->login) && sd_bus_message_read(m, "b", &going) >= 0) {
		b->news.sleeping = going != 0;
		b->refused = false;
		take_lock(b);
	}
	return 0;
}

/* ---- who is there ---- */

static void
set_owner(struct sq_bus *b, struct peer *p, const char *owner)
{
	bool same = strcmp(p->owner, owner) == 0;

	snprintf(p->owner, sizeof(p->owner), "%s", strlen(owner) < sizeof(p->owner) ? owner : "");
	if (same)
		return;
	if (p == &b->network) {
		b->news.connectivity = SQ_CONNECTIVITY_UNKNOWN;
		ask_connectivity(b);
	} else {
		/* Whoever said that we would sleep is gone, and its lock with it. */
		b->news.sleeping = b->refused = false;
		sq_closep(&b->lock_fd);
		take_lock(b);
	}
}

static int
on_owner(sd_bus_message *m, void *arg, sd_bus_error *e)
{
	struct sq_bus *b = arg;
	const char *name, *before, *owner, *sender = sd_bus_message_get_sender(m);

	(void)e;
	if (!sender || strcmp(sender, DBUS) != 0 || sd_bus_message_read(m, "sss", &name, &before, &owner) < 0)
		return 0;
	if (strcmp(name, b->network.name) == 0)
		set_owner(b, &b->network, owner);
	else if (strcmp(name, b->login.name) == 0)
		set_owner(b, &b->login, owner);
	return 0;
}

/* The answer to GetNameOwner: an error is that nobody owns it. */
static int
first_owner(struct sq_bus *b, struct peer *p, sd_bus_message *m)
{
	const char *owner = "";

	if (sd_bus_message_is_method_error(m, NULL) || sd_bus_message_read(m, "s", &owner) < 0)
		owner = "";
	set_owner(b, p, owner);
	return 0;
}

static int
on_network_owner(sd_bus_message *m, void *arg, sd_bus_error *e)
{
	struct sq_bus *b = arg;

	(void)e;
	return first_owner(b, &b->network, m);
}

static int
on_login_owner(sd_bus_message *m, void *arg, sd_bus_error *e)
{
	struct sq_bus *b = arg;

	(void)e;
	return first_owner(b, &b->login, m);
}

/* ---- the connection ---- */

static int
match(struct sq_bus *b, const char *sender, const char *path, const char *interface, const char *member, const char *first, sd_bus_message_handler_t heard)
{
	char rule[512];
	int n = snprintf(rule, sizeof(rule), "type='signal',sender='%s',path='%s',interface='%s',member='%s'%s%s%s", sender, path, interface, member,
		first ? ",arg0='" : "", first ? first : "", first ? "'" : "");

	return n < (int)sizeof(rule) ? sd_bus_add_match_async(b->sd, NULL, rule, heard, NULL, b) : -1;
}

/* First the ears, then the questions: nothing falls between. */
static int
introduce(struct sq_bus *b)
{
	int r;

	if ((r = match(b, DBUS, DBUS_PATH, DBUS, "NameOwnerChanged", NETWORK_MANAGER, on_owner)) < 0 ||
	    (r = match(b, DBUS, DBUS_PATH, DBUS, "NameOwnerChanged", LOGIN, on_owner)) < 0 ||
	    (r = match(b, NETWORK_MANAGER, NETWORK_MANAGER_PATH, PROPERTIES, "PropertiesChanged", NETWORK_MANAGER, on_properties)) < 0 ||
	    (r = match(b, LOGIN, LOGIN_PATH, LOGIN_MANAGER, "PrepareForSleep", NULL, on_sleep)) < 0 ||
	    (r = sd_bus_call_method_async(b->sd, NULL, DBUS, DBUS_PATH, DBUS, "GetNameOwner", on_network_owner, b, "s", NETWORK_MANAGER)) < 0)
		return r;
	return sd_bus_call_method_async(b->sd, NULL, DBUS, DBUS_PATH, DBUS, "GetNameOwner", on_login_owner, b, "s", LOGIN);
}

/* Tell of what appears in the socket's folder, where there is one. */
static void
watch_folder(struct sq_bus *b)
{
	char path[256];
	const char *slash;

	if (sscanf(b->address, "unix:path=%255[^,;%%]", path) != 1 || !(slash = strrchr(path, '/')))
		return;
	path[slash == path ? 1 : slash - path] = '\0';
	if (b->watch_fd < 0)
		b->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	/* A socket is there before somebody listens; then its mode is set. */
	if (b->watch_fd >= 0)
		(void)inotify_add_watch(b->watch_fd, path, IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR);
}

static bool
folder_spoke(struct sq_bus *b)
{
	_Alignas(struct inotify_event) char octets[4096];
	bool spoke = false;

	while (b->watch_fd >= 0 && read(b->watch_fd, octets, sizeof(octets)) > 0)
		spoke = true;
	return spoke;
}

static void
lost(struct sq_bus *b)
{
	int64_t now = now_ms();

	b->sd = sd_bus_close_unref(b->sd);
	b->news = (struct sq_bus_news){ .connectivity = SQ_CONNECTIVITY_UNKNOWN };
	b->network.owner[0] = b->login.owner[0] = '\0';
	b->asking = b->stale = b->taking = b->refused = false;
	b->pause = b->pause == 0 || now - b->opened >= LASTING_MS ? AGAIN_MS : b->pause < AGAIN_MAX_MS / 2 ? 2 * b->pause : AGAIN_MAX_MS;
	b->again = now + b->pause;
}

/* `spoke`: the folder did, so that somebody may listen in a moment. */
static void
connect_bus(struct sq_bus *b, bool spoke)
{
	int64_t pause = b->pause;
	int r;

	/* First the ear: a bus that comes meanwhile is heard of. */
	watch_folder(b);
	b->opened = now_ms();
	if ((r = sd_bus_new(&b->sd)) >= 0 && (r = sd_bus_set_address(b->sd, b->address)) >= 0 && (r = sd_bus_set_bus_client(b->sd, 1)) >= 0 &&
	    (r = sd_bus_start(b->sd)) >= 0 && (r = introduce(b)) >= 0) {
		sq_closep(&b->watch_fd);
		return;
	}
	sq_log(SQ_LOG_DEBUG, "the system bus cannot be reached: %s", strerror(-r));
	lost(b);
	/* Nobody is there, or it is no address: only the folder can say more. Too many at once (EAGAIN) is worth a wait. */
	if (r != -EAGAIN) {
		b->pause = pause;
		b->again = spoke ? now_ms() + AGAIN_MS : INT64_MAX;
	}
}

static void
bus_close(struct sq_bus *b)
{
	sd_bus_close_unref(b->sd);
	sq_closep(&b->lock_fd);
	sq_closep(&b->watch_fd);
	free(b->address);
	free(b);
}

/* Without a folder for the socket there is no bus, nor will there be one without a reboot. */
static struct sq_bus *
bus_open(void)
{
	const char *address = secure_getenv("DBUS_SYSTEM_BUS_ADDRESS");
	struct sq_bus *b;

	if (!address && access("/run/dbus", X_OK) < 0)
		return NULL;
	if (!(b = calloc(1, sizeof(*b))))
		return NULL;
	b->lock_fd = b->watch_fd = -1;
	b->network.name = NETWORK_MANAGER;
	b->login.name = LOGIN;
	if (!(b->address = strdup(address ? address : "unix:path=/run/dbus/system_bus_socket"))) {
		bus_close(b);
		return NULL;
	}
	connect_bus(b, false);
	return b;
}

static void
bus_fd(struct sq_bus *b, struct pollfd *out)
{
	int fd = b->sd ? sd_bus_get_fd(b->sd) : b->watch_fd, events = b->sd && fd >= 0 ? sd_bus_get_events(b->sd) : POLLIN;

	*out = (struct pollfd){ .fd = fd >= 0 ? fd : -1, .events = (short)(events > 0 ? events : 0) };
}

static int64_t
bus_wait_ms(struct sq_bus *b)
{
	int64_t now = now_ms(), at = b->again;
	uint64_t us;

	if (b->sd) {
		if (sd_bus_get_timeout(b->sd, &us) < 0)
			return 0; /* lost: events() finds out */
		if (us == UINT64_MAX)
			return INT64_MAX;
		at = (int64_t)((us + 999) / 1000);
	}
	return at == INT64_MAX ? at : at > now ? at - now : 0;
}

static void
bus_events(struct sq_bus *b, struct sq_bus_news *out)
{
	bool spoke = folder_spoke(b);
	int r = 1;

	if (!b->sd && (spoke || now_ms() >= b->again))
		connect_bus(b, spoke);
	for (int i = 0; b->sd && r > 0 && i < AT_ONCE; i++)
		r = sd_bus_process(b->sd, NULL);
	if (b->sd && (r < 0 || sd_bus_is_open(b->sd) <= 0)) {
		sq_log(SQ_LOG_DEBUG, "the system bus is lost");
		lost(b);
	}
	*out = b->news;
}

const struct sq_bus_driver sq_system_bus = { .open = bus_open, .fd = bus_fd, .wait_ms = bus_wait_ms, .events = bus_events, .lock = bus_lock,
	.close = bus_close };
