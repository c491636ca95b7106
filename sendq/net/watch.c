/*
 * What the kernel knows of the link: round trips, retransmissions, and how
 * much the peer has acknowledged. Figures for people and for the link model;
 * nothing here decides whether mail was accepted.
 */
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

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

int64_t
sq_conn_quiet_ms(const struct sq_conn *c)
{
	struct tcp_info ti;

	return tcp_info(c, &ti) ? (int64_t)ti.tcpi_last_ack_recv : INT64_MAX;
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
