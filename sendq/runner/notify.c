/* Readiness for systemd by its documented datagram (sd_notify(3)); silent where nobody asked. */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "inside.h"

static void
tell(const char *what)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	SQ_CLEANUP(sq_closep) int fd = -1;

	if (n < 2 || n >= sizeof(addr.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(addr.sun_path, path, n);
	if (path[0] == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)!sendto(fd, what, strlen(what), MSG_NOSIGNAL, (struct sockaddr *)&addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
}

void
sq_runner_ready(void)
{
	tell("READY=1");
}

void
sq_runner_stopping(void)
{
	tell("STOPPING=1");
}
