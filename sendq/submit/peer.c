/*
 * Who is at the other end of a connection on this machine: the kernel says it
 * of Unix sockets by itself, and of TCP in its table of sockets, where the
 * other end's own entry names the user. Asks; decides nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve.h"

enum { ENDPOINT_TEXT = 48 };

/* As /proc/net/tcp writes it: the address as 32-bit words in the machine's order, the port as a number. */
static bool
endpoint(const struct sockaddr_storage *a, bool as_v4, char out[ENDPOINT_TEXT])
{
	const struct sockaddr_in *four = (const void *)a;
	const struct sockaddr_in6 *six = (const void *)a;
	uint32_t w[4];

	if (a->ss_family == AF_INET && as_v4) {
		snprintf(out, ENDPOINT_TEXT, "%08" PRIX32 ":%04X", (uint32_t)four->sin_addr.s_addr, ntohs(four->sin_port));
		return true;
	}
	if (a->ss_family != AF_INET6)
		return false;
	memcpy(w, &six->sin6_addr, sizeof(w));
	if (as_v4 && !IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		return false;
	if (as_v4)
		snprintf(out, ENDPOINT_TEXT, "%08" PRIX32 ":%04X", w[3], ntohs(six->sin6_port));
	else
		snprintf(out, ENDPOINT_TEXT, "%08" PRIX32 "%08" PRIX32 "%08" PRIX32 "%08" PRIX32 ":%04X", w[0], w[1], w[2], w[3], ntohs(six->sin6_port));
	return true;
}

/* The owner of the socket that is `local` and talks to `remote`; -1: there is none on this machine. */
static int64_t
owner_in(const char *table, const char *local, const char *remote)
{
	SQ_CLEANUP(sq_fclosep) FILE *f = fopen(table, "re");
	char line[512], l[64], r[64];
	unsigned long uid;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, " %*[^:]: %63s %63s %*s %*s %*s %*s %lu", l, r, &uid) == 3 && strcmp(l, local) == 0 && strcmp(r, remote) == 0)
			return (int64_t)uid;
	return -1;
}

static int64_t
tcp_peer(const struct sockaddr_storage *us, const struct sockaddr_storage *them)
{
	char local[ENDPOINT_TEXT], remote[ENDPOINT_TEXT];
	int64_t uid = -1;

	if (endpoint(them, true, local) && endpoint(us, true, remote))
		uid = owner_in("/proc/net/tcp", local, remote);
	if (uid < 0 && endpoint(them, false, local) && endpoint(us, false, remote))
		uid = owner_in("/proc/net/tcp6", local, remote);
	return uid;
}

bool
peer_of(int fd, int64_t *uid)
{
	struct sockaddr_storage us = { 0 }, them = { 0 };
	socklen_t n = sizeof(us), m = sizeof(them), c;
	struct ucred cred;

	if (getsockname(fd, (struct sockaddr *)&us, &n) < 0)
		return false;
	*uid = -1;
	if (us.ss_family == AF_UNIX) {
		c = sizeof(cred);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &c) == 0 && cred.uid != (uid_t)-1)
			*uid = (int64_t)cred.uid;
		return true;
	}
	if (getpeername(fd, (struct sockaddr *)&them, &m) == 0)
		*uid = tcp_peer(&us, &them);
	return true;
}
