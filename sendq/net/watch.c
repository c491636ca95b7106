/*
 * What the kernel knows of the link: round trips, retransmissions, and how
 * much the peer has acknowledged. Figures for people and for the link model;
 * nothing here decides whether mail was accepted.
 */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <sendq/io.h>
#include <sendq/net.h>

static bool
tcp_info(const struct sq_conn *c, struct tcp_info *out)
{
	socklen_t n = sizeof(*out);

	memset(out, 0, sizeof(*out));
	return getsockopt(sq_conn_fd(c), IPPROTO_TCP, TCP_INFO, out, &n) == 0;
}

static uint32_t
bounded(uint64_t v)
{
	return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

/* tcpi_bytes_acked counts the SYN. */
static uint64_t
acked_octets(const struct tcp_info *ti)
{
	return ti->tcpi_bytes_acked > 0 ? ti->tcpi_bytes_acked - 1 : 0;
}

bool
sq_conn_drained(const struct sq_conn *c)
{
	int queued = 0;

	return ioctl(sq_conn_fd(c), SIOCOUTQ, &queued) != 0 || queued == 0;
}

/* What brings data alone does not count as an acknowledgement there. */
int64_t
sq_conn_quiet_ms(const struct sq_conn *c)
{
	struct tcp_info ti;

	if (!tcp_info(c, &ti))
		return INT64_MAX;
	/* A closed window is probed at pauses that double up to 2 min, and keepalive rests: silence counts once a probe has gone unanswered. */
	if (ti.tcpi_unacked == 0 && ti.tcpi_probes < 2 && !sq_conn_drained(c))
		return 0;
	return ti.tcpi_last_data_recv < ti.tcpi_last_ack_recv ? ti.tcpi_last_data_recv : ti.tcpi_last_ack_recv;
}

void
sq_conn_probe(const struct sq_conn *c, bool patient)
{
	/* 127 is the kernel's most. */
	int on = 1, first = SQ_PROBE_MS / 1000, every = patient ? 10 : 3, count = 127, fd = sq_conn_fd(c);

	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &first, sizeof(first));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

bool
sq_conn_homeless(const struct sq_conn *c)
{
	struct sockaddr_storage at;
	socklen_t n = sizeof(at);
	SQ_CLEANUP(sq_closep) int fd = -1;

	if (getsockname(sq_conn_fd(c), (struct sockaddr *)&at, &n) != 0 || (at.ss_family != AF_INET && at.ss_family != AF_INET6))
		return false;
	if (at.ss_family == AF_INET)
		((struct sockaddr_in *)&at)->sin_port = 0;
	else
		((struct sockaddr_in6 *)&at)->sin6_port = 0;
	fd = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && bind(fd, (struct sockaddr *)&at, n) != 0 && errno == EADDRNOTAVAIL;
}

int
sq_addresses_watch(void)
{
	return sq_netlink_open(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR);
}

void
sq_addresses_heard(int fd)
{
	char octets[8192];

	/* Its words are not read: somebody who was too slow for them must look, too (ENOBUFS). */
	while (recv(fd, octets, sizeof(octets), 0) > 0 || errno == ENOBUFS)
		;
}

bool
sq_conn_sample(const struct sq_conn *c, struct sq_link_sample *out)
{
	struct tcp_info ti;

	if (!tcp_info(c, &ti))
		return false;
	*out = (struct sq_link_sample){
		.rtt_us = ti.tcpi_rtt,
		.rttvar_us = ti.tcpi_rttvar,
		.retransmits = ti.tcpi_total_retrans,
		.goodput_bps = bounded(ti.tcpi_delivery_rate * 8),
		.unacked = ti.tcpi_unacked,
		.acked = acked_octets(&ti),
	};
	return true;
}

void
sq_watch_mark(struct sq_watch *w, const struct sq_conn *c, uint64_t plain)
{
	struct tcp_info ti;
	int queued = 0;

	if (!tcp_info(c, &ti) || ioctl(sq_conn_fd(c), SIOCOUTQ, &queued) != 0)
		return;
	if (w->n == SQ_WATCH_MARKS) { /* the newest moves on: coarser, never too high */
		w->n--;
	}
	w->marks[(w->first + w->n) % SQ_WATCH_MARKS].plain = plain;
	w->marks[(w->first + w->n) % SQ_WATCH_MARKS].wire = acked_octets(&ti) + (uint64_t)queued;
	w->n++;
}

uint64_t
sq_watch_acked(struct sq_watch *w, const struct sq_conn *c)
{
	struct tcp_info ti;

	if (!tcp_info(c, &ti))
		return w->acked;
	while (w->n > 0 && w->marks[w->first].wire <= acked_octets(&ti)) {
		w->acked = w->marks[w->first].plain;
		w->first = (w->first + 1) % SQ_WATCH_MARKS;
		w->n--;
	}
	return w->acked;
}
