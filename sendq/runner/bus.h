/*
 * The system bus: what NetworkManager says of the network and login1 of
 * sleep, and a lock that delays sleep. bus.c decides with it; sdbus.c speaks
 * D-Bus, by libsystemd, and is linked into sendqd alone: no other program pays
 * for loading that library.
 *
 * The bus and whoever owns the two names there are trusted as the system's
 * own. What others send us is not heard: every word's sender is compared with
 * the owner that the bus names.
 */
#ifndef SENDQ_RUNNER_BUS_H
#define SENDQ_RUNNER_BUS_H

#include <sendq/base.h>

/* NetworkManager's NMConnectivityState; UNKNOWN too while it or the bus is not there. */
enum sq_connectivity { SQ_CONNECTIVITY_UNKNOWN, SQ_CONNECTIVITY_NONE, SQ_CONNECTIVITY_PORTAL, SQ_CONNECTIVITY_LIMITED, SQ_CONNECTIVITY_FULL };

struct sq_bus_news {
	enum sq_connectivity connectivity;
	bool sleeping;             /* login1 said PrepareForSleep(true), and not yet false */
};

struct sq_bus;
struct pollfd;

/* Nothing here blocks. All times are milliseconds. */
struct sq_bus_driver {
	struct sq_bus *(*open)(void);                   /* NULL: this machine has no bus, or memory is out */
	void (*fd)(struct sq_bus *b, struct pollfd *out); /* -1: nothing to wait for */
	int64_t (*wait_ms)(struct sq_bus *b);           /* until events() is due without the descriptor; INT64_MAX: never */
	void (*events)(struct sq_bus *b, struct sq_bus_news *out); /* take what came; news as they are now. Opens a lost connection anew */
	void (*lock)(struct sq_bus *b, bool hold);      /* delay sleep, or no more; as often as one likes */
	void (*close)(struct sq_bus *b);
};

extern const struct sq_bus_driver sq_system_bus;        /* sdbus.c */

#endif
