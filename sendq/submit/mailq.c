/* mailq, sendmail -bp: the listing that scripts and monitors know, with its summary line. */
#include <inttypes.h>
#include <sysexits.h>

#include "submit.h"

struct listing { int64_t requests; uint64_t octets; bool silent; };

static void
print_clean(const char *s)
{
	for (const unsigned char *p = (const unsigned char *)s; *p; p++)
		putchar(*p < ' ' || *p == 0x7f ? '?' : *p);
}

/* The mark behind the id: '*' being sent, '!' held, '?' in doubt. */
static char
mark_of(const struct sq_message *m)
{
	char mark = ' ';

	for (size_t i = 0; i < m->n_recipients; i++) {
		enum sq_state s = m->recipients[i].state;

		if (s == SQ_STATE_DOUBT)
			return '?';
		if (s == SQ_STATE_SENDING || s == SQ_STATE_COMMITTING)
			mark = '*';
		else if (s == SQ_STATE_HELD && mark == ' ')
			mark = '!';
	}
	return mark;
}

static void
print_reason(const struct sq_recipient *r)
{
	if (r->state == SQ_STATE_DOUBT) {
		printf("  (in doubt: sent, but the answer was lost)\n");
	} else if (r->reply.code || r->reply.text.n > 0) {
		printf("  (");
		if (r->reply.code)
			printf("%d ", r->reply.code);
		print_clean(r->reply.text.p ? r->reply.text.p : "");
		printf(")\n");
	}
}

static bool
each(void *arg, const struct sq_message *m)
{
	struct listing *l = arg;
	time_t t = (time_t)(m->submitted_ms / 1000);
	char id[SQ_ID_TEXT], when[32];
	struct tm tm;

	l->requests++;
	if (l->silent)
		return true;
	if (l->requests == 1)
		puts("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------");
	l->octets += m->size;
	sq_id_format(m->id, id);
	localtime_r(&t, &tm);
	strftime(when, sizeof(when), "%a %b %e %H:%M:%S", &tm);
	printf("%s%-*c %8" PRIu64 " %s  ", id, (int)(11 - strlen(id)), mark_of(m), m->size, when);
	print_clean(m->sender[0] ? m->sender : "MAILER-DAEMON");
	putchar('\n');
	for (size_t i = 0; i < m->n_recipients; i++) {
		if (sq_state_is_final(m->recipients[i].state))
			continue;
		print_reason(&m->recipients[i]);
		printf("%41s", "");
		print_clean(m->recipients[i].address);
		putchar('\n');
	}
	putchar('\n');
	return !ferror(stdout);
}

void
restrict_queue(struct sq_queue *q)
{
	const char *who = getenv("SENDQ_FOR_UID");
	char *end;
	long long uid = who ? strtoll(who, &end, 10) : 0;

	if (who && strcmp(end, " all") != 0)
		sq_queue_restrict(q, *end ? -1 : (int64_t)uid);
}

int
print_mailq(const struct sq_config *cfg, bool only_count)
{
	SQ_CLEANUP(sq_queue_closep) struct sq_queue *q = NULL;
	struct listing l = { .silent = only_count };
	struct sq_error err = { 0 };
	enum sq_err e = sq_queue_open(cfg->queue, SQ_QUEUE_READ, &q, &err);

	if (e == SQ_OK) {
		restrict_queue(q);
		e = sq_queue_list(q, false, each, &l, &err);
	}
	if (e != SQ_OK && e != SQ_ENOENT) {
		fprintf(stderr, "mailq: %s\n", err.text);
		return sq_err_sysexit(e);
	}
	if (only_count)
		printf("%" PRId64 "\n", l.requests);
	else if (l.requests == 0)
		puts("Mail queue is empty");
	else
		printf("-- %" PRIu64 " Kbytes in %" PRId64 " Request%s.\n", (l.octets + 1023) / 1024, l.requests, l.requests == 1 ? "" : "s");
	return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}
