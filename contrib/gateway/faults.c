/*
 * Fault points of test builds: each place where something is about to become durable, or has just. They
 * are counted, not named, so that a new one is tested as soon as it is there.
 */
#include "gateway.h"

#ifdef SENDQ_FAULTS

#include <signal.h>
#include <unistd.h>

bool gw_points_armed;

void
gw_point(void)
{
	static long left = -1;
	const char *text = getenv("SENDQ_GATEWAY_KILL");

	if (!gw_points_armed)
		return;
	if (left < 0)
		left = text ? strtol(text, NULL, 10) : 0;
	if (left > 0 && --left == 0) {
		/* The whole gateway, as the machine's end would. */
		kill(getppid(), SIGKILL);
		raise(SIGKILL);
	}
}

#else
extern int gw_nothing;
#endif
