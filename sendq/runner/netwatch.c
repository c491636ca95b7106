/*
 * The world outside, as far as it ends waits: addresses and default routes
 * (rtnetlink), waking up from suspend and jumps of the clock (a timer that a
 * set clock cancels), the configuration and the password files (inotify).
 * Nothing here asks again and again: an idle daemon sleeps.
 *
 * A network is known by a hash of its gateway's address, that gateway's link
 * address where it is known, and the interface; with the queue's own random
 * name in it, so that nobody learns from it where a machine has been.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sha2.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/log.h>

#include "inside.h"

enum { FILES_MAX = 32, SLEPT_MS = 2000, ANSWER_WAIT_MS = 1000 };

struct file { char *path; int file, folder; };  /* watches; -1: none */

struct netwatch {
	int net, clock, files;       /* descriptors, -1 where the system has none */
	bool stirred, moved, changed, woke;
	bool announced;              /* something new stands where mail is announced */
	int wake_folder;             /* the watch on its folder */
	const char *wake_name;
	bool rough;                  /* the gateway's own address is not in the network's name yet */
	int64_t asleep_ms;           /* time spent in suspend up to the last look */
	size_t n_watched;
	struct file watched[FILES_MAX];
};

/* ---- asking the kernel ---- */

struct gateway {
	int family, interface;
	uint32_t metric;
	unsigned char address[16];
	size_t address_n;
	unsigned char link[16];
	size_t link_n;
};

/* Every message of a dump to `each`. */
static void
dump(int type, int family, void (*each)(void *arg, const struct nlmsghdr *h), void *arg)
{
	SQ_CLEANUP(sq_closep) int fd = sq_netlink_open(0);
	struct timeval wait = { .tv_sec = ANSWER_WAIT_MS / 1000 };
	struct { struct nlmsghdr h; struct rtmsg r; } ask = { .h = { .nlmsg_len = sizeof(ask), .nlmsg_type = (uint16_t)type,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1 }, .r = { .rtm_family = (unsigned char)family } };
	static _Alignas(struct nlmsghdr) char octets[32768];

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 || send(fd, &ask, sizeof(ask), 0) < 0)
		return;
	for (;;) {
		ssize_t n = recv(fd, octets, sizeof(octets), 0);
		size_t left = n > 0 ? (size_t)n : 0;

		if (n <= 0)
			return;
		for (const struct nlmsghdr *h = (const struct nlmsghdr *)octets; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
				return;
			each(arg, h);
		}
	}
}

static bool
is_default(const struct rtmsg *m)
{
	return m->rtm_dst_len == 0 && m->rtm_type == RTN_UNICAST && m->rtm_table == RT_TABLE_MAIN && !(m->rtm_flags & RTM_F_CLONED);
}

static void
take_octets(const struct rtattr *a, unsigned char *out, size_t max, size_t *n)
{
	*n = RTA_PAYLOAD(a) <= max ? RTA_PAYLOAD(a) : 0;
	memcpy(out, RTA_DATA(a), *n);
}

/* The default route with the lowest metric; of IPv4 before IPv6. */
static void
each_route(void *arg, const struct nlmsghdr *h)
{
	struct gateway *best = arg, g = { 0 };
	const struct rtmsg *m = NLMSG_DATA(h);
	size_t left = RTM_PAYLOAD(h);

	if (h->nlmsg_type != RTM_NEWROUTE || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || !is_default(m))
		return;
	g.family = m->rtm_family;
	for (const struct rtattr *a = RTM_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == RTA_GATEWAY)
			take_octets(a, g.address, sizeof(g.address), &g.address_n);
		else if (a->rta_type == RTA_OIF && RTA_PAYLOAD(a) >= sizeof(int))
			memcpy(&g.interface, RTA_DATA(a), sizeof(int));
		else if (a->rta_type == RTA_PRIORITY && RTA_PAYLOAD(a) >= sizeof(uint32_t))
			memcpy(&g.metric, RTA_DATA(a), sizeof(uint32_t));
	}
	if (best->family == 0 || (g.family == AF_INET && best->family != AF_INET) || (g.family == best->family && g.metric < best->metric))
		*best = g;
}

static void
each_neighbour(void *arg, const struct nlmsghdr *h)
{
	struct gateway *g = arg;
	const struct ndmsg *m = NLMSG_DATA(h);
	size_t left = h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) ? 0 : h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)), link_n = 0;
	unsigned char link[sizeof(g->link)] = { 0 };
	bool same = false;

	if (h->nlmsg_type != RTM_NEWNEIGH || left == 0 || m->ndm_ifindex != g->interface || (m->ndm_state & (NUD_INCOMPLETE | NUD_FAILED)))
		return;
	for (const struct rtattr *a = (const struct rtattr *)((const char *)m + NLMSG_ALIGN(sizeof(*m))); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == NDA_DST)
			same = RTA_PAYLOAD(a) == g->address_n && memcmp(RTA_DATA(a), g->address, g->address_n) == 0;
		else if (a->rta_type == NDA_LLADDR)
			take_octets(a, link, sizeof(link), &link_n);
	}
	if (same && link_n > 0) {
		memcpy(g->link, link, sizeof(link));
		g->link_n = link_n;
	}
}

/* Where this machine is; id "": nowhere. True: the gateway's link address is in the name, or never will be. */
static bool
network_now(struct runner *r, struct sq_network *out)
{
	struct gateway g = { 0 };
	char interface[IF_NAMESIZE] = "";
	uint8_t hash[SHA256_DIGEST_LENGTH];
	SHA2_CTX ctx;

	*out = (struct sq_network){ 0 };
	dump(RTM_GETROUTE, AF_INET, each_route, &g);
	if (g.family == 0)
		dump(RTM_GETROUTE, AF_INET6, each_route, &g);
	if (g.family == 0)
		return true;
	if (g.address_n > 0)
		dump(RTM_GETNEIGH, g.family, each_neighbour, &g);
	if (!if_indextoname((unsigned)g.interface, interface))
		interface[0] = '\0';
	SHA256Init(&ctx);
	SHA256Update(&ctx, (const uint8_t *)r->ehlo_name, strlen(r->ehlo_name) + 1);
	SHA256Update(&ctx, (const uint8_t *)interface, strlen(interface) + 1);
	SHA256Update(&ctx, g.address, g.address_n);
	SHA256Update(&ctx, g.link, g.link_n);
	SHA256Final(hash, &ctx);
	sq_hex(hash, 8, out->id);
	snprintf(out->interface, sizeof(out->interface), "%s", interface);
	return g.link_n > 0 || g.address_n == 0;
}

/* ---- networks ---- */

static void
settle_on(struct runner *r, struct sq_network *n, bool same)
{
	struct sq_error err = { 0 };

	n->since_ms = same && r->network.since_ms > 0 ? r->network.since_ms : sq_wall_ms();
	n->portal_ms = same ? r->network.portal_ms : bus_portal_ms(r);
	if (sq_queue_network_put(r->q, n, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot note the network: %s", err.text);
	links_moved(r, n, same);
	sq_log(SQ_LOG_INFO, "network=%s interface=%s %s", n->id, n->interface, same ? "is the same by its full name" : "is new here");
}

/* A default route may have come, gone or changed. No route is no network: on return to the same one nothing is new. */
static void
look_around(struct runner *r)
{
	struct sq_network n;
	bool whole = network_now(r, &n);

	if (n.id[0] == '\0')
		return;
	if (strcmp(n.id, r->network.id) != 0) {
		settle_on(r, &n, false);
		r->watch->rough = !whole;
	}
}

void
netwatch_refine(struct runner *r)
{
	struct sq_network n;

	if (!r->watch || !r->watch->rough || !network_now(r, &n) || n.id[0] == '\0')
		return;
	r->watch->rough = false;
	if (strcmp(n.id, r->network.id) != 0)
		settle_on(r, &n, strcmp(n.interface, r->network.interface) == 0);
}

/* An address that is told again because its lifetime was extended is no news. */
static bool
address_is_new(const struct nlmsghdr *h)
{
	const struct ifaddrmsg *m = NLMSG_DATA(h);
	size_t left = IFA_PAYLOAD(h);

	if (m->ifa_scope == RT_SCOPE_HOST)
		return false;
	for (const struct rtattr *a = IFA_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == IFA_CACHEINFO && RTA_PAYLOAD(a) >= sizeof(struct ifa_cacheinfo)) {
			struct ifa_cacheinfo c;

			memcpy(&c, RTA_DATA(a), sizeof(c));
			return c.cstamp == c.tstamp;
		}
	return true;
}

static void
hear_network(struct netwatch *w)
{
	static _Alignas(struct nlmsghdr) char octets[32768];
	ssize_t n;

	while (w->net >= 0 && ((n = recv(w->net, octets, sizeof(octets), 0)) > 0 || errno == ENOBUFS)) {
		size_t left = n > 0 ? (size_t)n : 0;

		/* More came than there was room for: whatever it was, look. */
		if (n <= 0)
			w->moved = w->stirred = true;
		for (const struct nlmsghdr *h = (const struct nlmsghdr *)octets; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if ((h->nlmsg_type == RTM_NEWROUTE || h->nlmsg_type == RTM_DELROUTE) && is_default(NLMSG_DATA(h))) {
				w->moved = true;
				w->stirred |= h->nlmsg_type == RTM_NEWROUTE;
			} else if (h->nlmsg_type == RTM_NEWADDR) {
				w->stirred |= address_is_new(h);
			}
		}
	}
}

/* ---- suspend ---- */

/* Armed for a time that does not come: what ends it is a clock that was set, which waking up does too. */
static void
arm_clock(struct netwatch *w)
{
	struct itimerspec never = { .it_value = { .tv_sec = INT64_C(1) << 40 } };
	uint64_t ticks;

	if (w->clock < 0)
		return;
	(void)!read(w->clock, &ticks, sizeof(ticks));
	if (timerfd_settime(w->clock, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0)
		sq_closep(&w->clock);
}

static bool
slept(struct netwatch *w)
{
	int64_t asleep = sq_boot_ms() - sq_awake_ms();
	bool long_enough = asleep - w->asleep_ms >= SLEPT_MS;

	w->asleep_ms = asleep;
	return long_enough;
}

/* ---- files ---- */

static void
unwatch(struct netwatch *w)
{
	for (size_t i = 0; i < w->n_watched; i++) {
		if (w->watched[i].file >= 0)
			inotify_rm_watch(w->files, w->watched[i].file);
		if (w->watched[i].folder >= 0)
			inotify_rm_watch(w->files, w->watched[i].folder);
		free(w->watched[i].path);
	}
	w->n_watched = 0;
}

/* The file itself; while it is not there, its folder. */
static void
watch_file(struct netwatch *w, struct file *f)
{
	char *slash = strrchr(f->path, '/');

	f->folder = -1;
	f->file = inotify_add_watch(w->files, f->path, IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF);
	if (f->file >= 0 || !slash)
		return;
	*slash = '\0';
	f->folder = inotify_add_watch(w->files, slash == f->path ? "/" : f->path, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
	*slash = '/';
}

static void
watch_path(struct netwatch *w, const char *path)
{
	struct file *f = &w->watched[w->n_watched];

	if (!path || w->files < 0 || w->n_watched == FILES_MAX || !(f->path = sq_str_dup(sq_str(path))))
		return;
	watch_file(w, f);
	w->n_watched++;
}

void
netwatch_files(struct runner *r)
{
	const char *slash = r->wake_path ? strrchr(r->wake_path, '/') : NULL;
	SQ_CLEANUP(sq_freep) char *folder = slash ? sq_str_dup((struct sq_str){ r->wake_path, (size_t)(slash - r->wake_path) }) : NULL;

	if (!r->watch)
		return;
	unwatch(r->watch);
	watch_path(r->watch, r->o->config_path);
	for (size_t i = 0; i < r->cfg->n_routes; i++)
		if (r->cfg->routes[i].secret_kind == SQ_SECRET_FILE)
			watch_path(r->watch, r->cfg->routes[i].secret);
	/* Behind the others: a watch of theirs on the same folder goes with them. */
	r->watch->wake_name = slash ? slash + 1 : "";
	r->watch->wake_folder = folder && r->watch->files >= 0 ? inotify_add_watch(r->watch->files, folder, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR | IN_MASK_ADD) : -1;
}

/* About one of our files? In a folder others come and go; a watch that was taken off says so too. */
static bool
concerns_us(const struct netwatch *w, const struct inotify_event *e)
{
	if (e->mask & IN_Q_OVERFLOW)
		return true;
	for (size_t i = 0; i < w->n_watched && !(e->mask & IN_IGNORED); i++) {
		const char *slash = strrchr(w->watched[i].path, '/');

		if (w->watched[i].file == e->wd)
			return true;
		if (w->watched[i].folder == e->wd && e->len > 0 && slash && strcmp(slash + 1, e->name) == 0)
			return true;
	}
	return false;
}

static void
hear_files(struct netwatch *w)
{
	_Alignas(struct inotify_event) char octets[4096];
	ssize_t n;

	while (w->files >= 0 && (n = read(w->files, octets, sizeof(octets))) > 0)
		for (ssize_t at = 0; at < n; ) {
			const struct inotify_event *e = (const struct inotify_event *)(octets + at);

			w->changed |= concerns_us(w, e);
			w->announced |= e->wd == w->wake_folder && e->len > 0 && strcmp(w->wake_name, e->name) == 0;
			at += (ssize_t)(sizeof(*e) + e->len);
		}
}

/* ---- as the loop sees it ---- */

enum sq_err
netwatch_open(struct runner *r, struct sq_error *err)
{
	struct netwatch *w = calloc(1, sizeof(*w));
	struct sq_network last, now;
	enum sq_err e;

	if (!w)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	r->watch = w;
	/* First the ear, then the look: nothing falls between. */
	w->net = sq_netlink_open(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE);
	w->clock = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	w->files = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	arm_clock(w);
	(void)slept(w);
	netwatch_files(r);
	if ((e = sq_queue_network_get(r->q, &last, err)) != SQ_OK)
		return e;
	r->network = last;
	w->rough = !network_now(r, &now);
	if (now.id[0] && strcmp(now.id, last.id) != 0)
		settle_on(r, &now, false);
	return SQ_OK;
}

size_t
netwatch_fds(const struct runner *r, struct pollfd *fds)
{
	const int all[NETWATCH_FDS] = { r->watch->net, r->watch->clock, r->watch->files };

	for (size_t i = 0; i < NETWATCH_FDS; i++) /* poll passes over those that are -1 */
		fds[i] = (struct pollfd){ .fd = all[i], .events = POLLIN };
	return NETWATCH_FDS;
}

void
netwatch_events(struct runner *r)
{
	struct netwatch *w = r->watch;
	uint64_t ticks;

	hear_network(w);
	hear_files(w);
	if (w->clock >= 0 && read(w->clock, &ticks, sizeof(ticks)) < 0 && errno == ECANCELED)
		arm_clock(w);
	w->woke |= slept(w);
}

void
netwatch_act(struct runner *r)
{
	struct netwatch *w = r->watch;

	if (w->woke)
		sq_log(SQ_LOG_INFO, "awake after a suspend");
	if (w->moved)
		look_around(r);
	if (w->stirred || w->woke)
		links_stirred(r);
	if (w->changed) {
		/* An editor replaces a file: its successor is watched. */
		netwatch_files(r);
		link_clear_waits(r, true);
	}
	if (w->announced)
		socket_moved(r);
	w->stirred = w->moved = w->changed = w->woke = w->announced = false;
}

void
netwatch_close(struct runner *r)
{
	if (!r->watch)
		return;
	unwatch(r->watch);
	sq_closep(&r->watch->net);
	sq_closep(&r->watch->clock);
	sq_closep(&r->watch->files);
	free(r->watch);
	r->watch = NULL;
}
