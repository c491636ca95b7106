/*
 * sendq-gateway list, show, remove, deliver, set: partial messages and
 * duplicates, by what the index says of them. Bodies are read by `deliver` alone.
 */
#include "copies.h"

#include <inttypes.h>
#include <sysexits.h>

#include <sendq/io.h>

#define COPIES " FROM txn t WHERE t.body = 1 AND (t.kind = 1 OR t.verdict IS NULL)"

static const char *const list_json =
	"SELECT json_object('id', t.id, 'kind', iif(t.kind = 1, 'duplicate', 'partial'), 'user', t.auth, 'from', t.sender,"
	" 'to', (SELECT json_group_array(address) FROM rcpt WHERE txn = t.id), 'octets', t.octets, 'size', nullif(t.declared, 0),"
	" 'message_id', t.message_id, 'sha256', t.sha256, 'begun_ms', t.begun_ms, 'touched_ms', t.touched_ms,"
	" 'alerted_ms', t.alerted_ms, 'verdict', t.verdict)" COPIES;

enum sq_err
gw_copy_load(struct gw_store *s, int64_t id, struct gw_copy *out, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e;

	*out = (struct gw_copy){ .id = id };
	e = gw_sql(s, &row, err,
	    "SELECT t.kind, t.auth, t.ehlo, coalesce(t.transid, ''), t.sender, t.params, t.declared, t.octets, t.name,"
	    " coalesce(t.message_id, ''), t.begun_ms" COPIES " AND t.id = ?", "i", id);
	if (e != SQ_OK)
		return e;
	if (!row)
		return sq_error_set(err, SQ_ENOENT, "there is no partial message or duplicate %" PRId64, id);
	out->partial = sqlite3_column_int(row, 0) == 0;
	gw_column(row, 1, out->env.auth, sizeof(out->env.auth));
	gw_column(row, 2, out->env.ehlo, sizeof(out->env.ehlo));
	gw_column(row, 3, out->env.transid, sizeof(out->env.transid));
	gw_column(row, 4, out->env.sender, sizeof(out->env.sender));
	gw_column(row, 5, out->env.params, sizeof(out->env.params));
	out->env.declared = sqlite3_column_int64(row, 6);
	out->octets = sqlite3_column_int64(row, 7);
	gw_column(row, 8, out->name, sizeof(out->name));
	gw_column(row, 9, out->message_id, sizeof(out->message_id));
	out->begun_ms = sqlite3_column_int64(row, 10);
	gw_stmt_freep(&row);
	return gw_txn_recipients(s, id, &out->rcpt, &out->rcpts, err);
}

void
gw_copy_fini(struct gw_copy *c)
{
	free(c->rcpt);
	c->rcpt = NULL;
}

/* ---- list, show */

static void
print_age(int64_t ms)
{
	int64_t s = (sq_wall_ms() - ms) / 1000;

	if (s < 120)
		printf("%" PRId64 " s", s);
	else if (s < 7200)
		printf("%" PRId64 " min", s / 60);
	else
		printf("%" PRId64 " h", s / 3600);
}

static void
print_line(const struct gw_copy *c)
{
	printf("%-6" PRId64 " %-9s %10" PRId64, c->id, c->partial ? "partial" : "duplicate", c->octets);
	if (c->partial && c->env.declared > 0)
		printf(" %3d %%", (int)(c->octets * 100 / c->env.declared));
	else
		printf("      ");
	printf("  %s -> %s%s  ", c->env.sender, c->rcpts ? c->rcpt[0].address : "", c->rcpts > 1 ? ", …" : "");
	print_age(c->begun_ms);
	printf("\n");
}

static enum sq_err
each_json(struct gw_store *s, const char *more, const char *types, const char *text, int64_t id, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf sql = SQ_BUF_INIT(4096);
	STMT row = NULL;
	enum sq_err e;

	sq_buf_addf(&sql, "%s%s", list_json, more);
	if (sql.failed)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	e = *types == 's' ? gw_sql(s, &row, err, sql.p, types, text) : gw_sql(s, &row, err, sql.p, types, id);
	while (e == SQ_OK && row) {
		puts((const char *)sqlite3_column_text(row, 0));
		if (sqlite3_step(row) != SQLITE_ROW)
			break;
	}
	return e;
}

static enum sq_err
list(struct gw_store *s, const char *user, bool json, struct sq_error *err)
{
	STMT row = NULL;
	enum sq_err e;

	if (json)
		return each_json(s, " AND (?1 IS NULL OR t.auth = ?1) ORDER BY t.id", "s", user, 0, err);
	e = gw_sql(s, &row, err, "SELECT t.id" COPIES " AND (?1 IS NULL OR t.auth = ?1) ORDER BY t.id", "s", user);
	if (e == SQ_OK && !row)
		puts("no partial messages and no duplicates");
	while (e == SQ_OK && row) {
		struct gw_copy c;

		if ((e = gw_copy_load(s, sqlite3_column_int64(row, 0), &c, err)) == SQ_OK)
			print_line(&c);
		gw_copy_fini(&c);
		if (sqlite3_step(row) != SQLITE_ROW)
			break;
	}
	return e;
}

static enum sq_err
show(struct gw_store *s, const struct gw_settings *settings, int64_t id, bool json, struct sq_error *err)
{
	(void)settings;
	struct gw_copy c;
	enum sq_err e = gw_copy_load(s, id, &c, err);
	char since[40];

	if (e == SQ_OK && json)
		e = each_json(s, " AND t.id = ?", "i", NULL, id, err);
	else if (e == SQ_OK) {
		print_line(&c);
		sq_format_date(c.begun_ms, since);
		printf("  message-id  %s\n  user        %s\n  since       %s\n", c.message_id, c.env.auth, since);
		for (size_t i = 0; i < c.rcpts; i++)
			printf("  to          %s\n", c.rcpt[i].address);
		if (c.partial)
			printf("It waits for its rest. 'deliver %" PRId64 "' tells the recipients of it now, 'remove %" PRId64 "' drops it:\n"
			       "its sender then begins again.\n", id, id);
		else
			printf("It was answered as a duplicate. 'deliver %" PRId64 "' delivers it all the same, 'remove %" PRId64 "' drops it.\n",
			    id, id);
	}
	gw_copy_fini(&c);
	return e;
}

/* ---- deliver, remove */

struct stored {
	struct gw_store *store;
	int64_t id, octets;
};

static enum sq_err
read_stored(void *source, gw_reader *take, void *ctx, struct sq_error *err)
{
	struct stored *s = source;

	return gw_txn_read(s->store, s->id, s->octets, take, ctx, err);
}

static enum sq_err
deliver(struct gw_store *s, const struct gw_settings *settings, int64_t id, struct sq_error *err)
{
	struct gw_copy c;
	enum sq_err e = gw_copy_load(s, id, &c, err);
	struct stored source = { s, id, c.octets };
	struct gw_message m = { .name = c.name, .env = &c.env, .rcpt = c.rcpt, .rcpts = c.rcpts, .trace = "", .octets = c.octets,
		.again = true, .read = read_stored, .source = &source };

	if (e == SQ_OK && c.partial) {
		e = gw_alert_send(settings, s, &c, err);
		if (e == SQ_OK && (e = gw_store_lock(s, GW_DURABLE, err)) == SQ_OK) {
			e = gw_sql(s, NULL, err, "UPDATE txn SET alerted_ms = ? WHERE id = ?", "ii", sq_wall_ms(), id);
			e = gw_store_end(s, e, err);
		}
	} else if (e == SQ_OK) {
		if ((e = gw_deliver_local(settings, &m, NULL, err)) == SQ_OK)
			e = gw_txn_remove(s, id, err);
	}
	gw_copy_fini(&c);
	return e;
}

static enum sq_err
remove_copy(struct gw_store *s, int64_t id, struct sq_error *err)
{
	struct gw_copy c;
	enum sq_err e = gw_copy_load(s, id, &c, err);

	gw_copy_fini(&c);
	return e == SQ_OK ? gw_txn_remove(s, id, err) : e;
}

/* ---- set */

static enum sq_err
set_word(struct gw_store *s, const char *user, const char *word, struct sq_error *err)
{
	static const struct { const char *word, *sql; int64_t value; } words[] = {
		{ "allow_duplicates=on", "UPDATE user SET allow_duplicates = ? WHERE auth = ?", 1 },
		{ "allow_duplicates=off", "UPDATE user SET allow_duplicates = ? WHERE auth = ?", 0 },
		{ "partial=deliver", "UPDATE user SET partial = ? WHERE auth = ?", 1 },
		{ "partial=keep", "UPDATE user SET partial = ? WHERE auth = ?", 0 },
	};

	for (size_t i = 0; i < SQ_LEN(words); i++)
		if (strcmp(word, words[i].word) == 0)
			return gw_sql(s, NULL, err, words[i].sql, "is", words[i].value, user);
	return sq_error_set(err, SQ_EINVAL, "'%s' is none of allow_duplicates=on|off and partial=keep|deliver", word);
}

static enum sq_err
set(struct gw_store *s, int argc, char **argv, struct sq_error *err)
{
	enum sq_err e = gw_store_lock(s, GW_DURABLE, err);

	if (e != SQ_OK)
		return e;
	e = gw_sql(s, NULL, err, "INSERT OR IGNORE INTO user (auth) VALUES (?)", "s", argv[1]);
	for (int i = 2; e == SQ_OK && i < argc; i++)
		e = set_word(s, argv[1], argv[i], err);
	return gw_store_end(s, e, err);
}

/* ---- dispatch */

static enum sq_err
with_ids(struct gw_store *s, const struct gw_settings *settings, int argc, char **argv, bool json, struct sq_error *err)
{
	enum sq_err e = SQ_OK;

	for (int i = 1; e == SQ_OK && i < argc; i++) {
		char *end;
		int64_t id;

		if (!gw_parse_number(argv[i], &end, &id) || *end)
			return sq_error_set(err, SQ_EINVAL, "'%s' is no number of a message", argv[i]);
		if (strcmp(argv[0], "show") == 0)
			e = show(s, settings, id, json, err);
		else if (strcmp(argv[0], "deliver") == 0)
			e = deliver(s, settings, id, err);
		else
			e = remove_copy(s, id, err);
	}
	return e;
}

int
gw_admin(const struct gw_settings *settings, int argc, char **argv, bool json)
{
	SQ_CLEANUP(gw_store_freep) struct gw_store *s = NULL;
	struct sq_error err = { 0 };
	bool is_list = strcmp(argv[0], "list") == 0, is_set = strcmp(argv[0], "set") == 0;
	enum sq_err e;

	if ((is_list && argc > 2) || (is_set && argc < 3) || (!is_list && argc < 2))
		return EX_USAGE;
	e = gw_store_open(settings->state, &settings->limits, &s, &err);
	if (e == SQ_OK)
		e = is_list ? list(s, argc > 1 ? argv[1] : NULL, json, &err) : is_set ? set(s, argc, argv, &err) :
			with_ids(s, settings, argc, argv, json, &err);
	if (e == SQ_OK)
		return 0;
	fprintf(stderr, "sendq-gateway: %s\n", err.text);
	return e == SQ_ENOENT ? EX_NOINPUT : e == SQ_EINVAL ? EX_USAGE : sq_err_sysexit(e);
}
