/* sendq undo, sendq edit: what a person takes back or changes while a message waits. Requests, as all changes are. */
#include <sysexits.h>

#include <sendq/message.h>

#include "status.h"

enum { UNDO_MAX = 100 };

struct newest { int64_t uid; struct sq_message_id id; };

static bool
newest_each(void *arg, const struct sq_message *m)
{
	struct newest *n = arg;

	if (m->uid == n->uid)
		n->id = m->id;
	return true;
}

int
cmd_undo(struct cli *c, int argc, char **argv)
{
	struct newest newest = { .uid = c->uid };
	struct sq_message_id ids[UNDO_MAX];
	int64_t requests[UNDO_MAX];
	size_t n = 0;

	if (argc > UNDO_MAX)
		return cli_usage("at most %d messages at once", UNDO_MAX);
	for (int i = 0; i < argc; i++)
		if (!cli_id(c, argv[i], &ids[n++]))
			return EX_NOINPUT;
	if (argc == 0) {
		if (c->q && sq_queue_list(c->q, false, newest_each, &newest, &c->err) != SQ_OK)
			return cli_fail(c);
		if (!newest.id.v) {
			fputs("sendq: there is nothing to undo: no message of yours waits\n", stderr);
			return EX_NOINPUT;
		}
		ids[n++] = newest.id;
	}
	for (size_t i = 0; i < n; i++)
		if (sq_queue_request_add(c->q, SQ_REQUEST_UNDO, ids[i], "", c->now_ms, &requests[i], &c->err) != SQ_OK)
			return cli_fail(c);
	return cli_settle(c, requests, n);
}

/* An address with its domain, in its normal form. False: said why. */
static bool
address(struct cli *c, const char *text, char out[SQ_ADDRESS_MAX], bool *utf8)
{
	struct sq_address a = { 0 };
	enum sq_err e = sq_address_parse(sq_str(text), &a, &c->err);

	if (e == SQ_OK && !sq_address_is_qualified(&a))
		e = sq_error_set(&c->err, SQ_EINVAL, "'%s' has no domain", a.text);
	if (e == SQ_OK) {
		snprintf(out, SQ_ADDRESS_MAX, "%s", a.text);
		if (utf8)
			*utf8 = a.utf8;
	} else {
		cli_fail(c);
	}
	sq_address_fini(&a);
	return e == SQ_OK;
}

static int
bad_time(const char *option, const char *value)
{
	return cli_usage("'%s' in %s is no time to come: write 2h, 18:00, 2026-12-24 18:00 or @1798131600", value, option);
}

int
cmd_edit(struct cli *c, int argc, char **argv)
{
	struct sq_request r = { .kind = SQ_REQUEST_EDIT, .asked_ms = c->now_ms };
	int64_t request;

	for (int i = 0; i < argc; i++) {
		const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (a[0] != '-') {
			if (r.message.v)
				return cli_usage("one message at a time");
			if (!cli_id(c, a, &r.message))
				return EX_NOINPUT;
			continue;
		}
		if (!value)
			return cli_usage("'%s' is no option here, or lacks its value", a);
		i++;
		if (strcmp(a, "--at") == 0) {
			if ((r.edit.at_ms = sq_parse_when(value, c->now_ms)) < c->now_ms)
				return bad_time(a, value);
		} else if (strcmp(a, "--deadline") == 0) {
			if ((r.edit.deadline_ms = sq_parse_when(value, c->now_ms)) <= c->now_ms)
				return bad_time(a, value);
		} else if (strcmp(a, "--to") == 0) {
			if (!address(c, value, r.edit.to, &r.edit.utf8))
				return EX_DATAERR;
		} else if (strcmp(a, "--instead-of") == 0) {
			if (!address(c, value, r.edit.instead_of, NULL))
				return EX_DATAERR;
		} else {
			return cli_usage("unknown option '%s'", a);
		}
	}
	if (!r.message.v)
		return cli_usage("which message? Give an ID of `sendq list`");
	if (!r.edit.at_ms && !r.edit.deadline_ms && !r.edit.to[0])
		return cli_usage("edit needs --at, --deadline or --to");
	if (r.edit.instead_of[0] && !r.edit.to[0])
		return cli_usage("--instead-of needs --to");
	if (sq_queue_request_put(c->q, &r, &request, &c->err) != SQ_OK)
		return cli_fail(c);
	return cli_settle(c, &request, 1);
}
