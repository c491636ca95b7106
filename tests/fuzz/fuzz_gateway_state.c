/*
 * What the gateway finds in its store after any crash, or after somebody else
 * wrote there: rows and files that do not fit each other. It takes a
 * transaction up only at an offset whose octets it can read back, at a line's
 * start for DATA, and its alert about it is a message.
 */
#include <store.h>
#include <alert.h>

#include <fcntl.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct gw_store *store;

static void
setup(void)
{
	static const struct gw_limits limits = { .retain_ms = 1000000, .interrupted_ms = 1000000, .duplicate_ms = 1000000,
		.user_bytes = 1 << 30, .total_bytes = 1 << 30, .user_messages = 1000000 };
	static char dir[64];
	struct sq_error err = { 0 };

	snprintf(dir, sizeof(dir), "%s/gw-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(dir) || gw_store_open(dir, &limits, &store, &err) != SQ_OK)
		sq_bug("no store: %s", err.text);
}

/* One file of the spool, with what the input says; sometimes none. */
static void
write_file(const char *name, const uint8_t *p, size_t n, bool there)
{
	int fd;

	gw_spool_remove(store, name);
	if (!there)
		return;
	fd = openat(store->spool, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		sq_bug("no file");
	close(fd);
}

static enum sq_err
last_two(void *ctx, const char *p, size_t n, struct sq_error *err)
{
	char *last = ctx;

	(void)err;
	for (size_t i = n > 2 ? n - 2 : 0; i < n; i++)
		last[0] = last[1], last[1] = p[i];
	return SQ_OK;
}

static void
check_alert(const uint8_t *data, size_t size)
{
	struct gw_alert a = { .hostname = "gw.test", .name = "n", .sender = "s@test", .message_id = "<m@test>", .octets = (int64_t)size,
		.declared = size ? data[0] * 10 : 0, .head = { (const char *)data, size } };
	struct sq_buf out = SQ_BUF_INIT(2 * GW_ALERT_MAX);

	gw_alert_write(&a, &out);
	for (size_t i = 0; i < out.n; i++)
		if ((unsigned char)out.p[i] >= 0x80 || out.p[i] == 0 || (out.p[i] == '\n' && (i == 0 || out.p[i - 1] != '\r')))
			sq_bug("no mail: octet %zu", i);
	if (out.failed)
		sq_bug("an alert without end");
	sq_buf_fini(&out);
}

static void
check_taken(const struct gw_txn *t)
{
	struct gw_seen seen;
	char last[2] = "\r\n", hash[65];
	enum sq_err e;

	if (t->octets < 0)
		sq_bug("a negative offset");
	if (gw_seen_init(&seen, NULL) != SQ_OK)
		sq_bug("no hash");
	e = gw_txn_read(store, t->id, t->octets, gw_seen_take, &seen, NULL);
	if (e == SQ_OK && (gw_seen_hash(&seen, hash, NULL) != SQ_OK || strlen(hash) != 64))
		sq_bug("no hash of it");
	if (e == SQ_OK && !t->complete && t->verb == GW_VERB_DATA && t->octets > 0 &&
	    (gw_txn_read(store, t->id, t->octets, last_two, last, NULL) != SQ_OK || last[0] != '\r' || last[1] != '\n'))
		sq_bug("DATA would go on in the middle of a line");
	gw_seen_fini(&seen);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gw_envelope env = { .auth = "a", .ehlo = "e", .transid = "<t@t>", .sender = "s" };
	static uint8_t first[1 << 16];
	struct gw_txn t;
	enum gw_found found;
	size_t cut;
	enum sq_err e;

	if (!store)
		setup();
	if (size < 8 || size > sizeof(first))
		return 0;
	if (data[0] & 1) {
		check_alert(data + 1, size - 1);
		return 0;
	}
	cut = 8 + (size - 8) * data[1] / 256;
	/* One octet is no line: what was closed before is then nothing. */
	if (data[4] % 3 == GW_VERB_DATA && cut == 9)
		cut = 8;
	memcpy(first, data + 8, cut - 8);
	/* What was closed before ends in a line. */
	if (data[4] % 3 == GW_VERB_DATA && cut >= 10)
		memcpy(first + cut - 10, "\r\n", 2);
	write_file("one", first, cut - 8, data[2] % 8);
	write_file("two", data + cut, size - cut, data[3] % 8);
	e = gw_sql(store, NULL, NULL, "DELETE FROM txn", "");
	if (e == SQ_OK)
		e = gw_sql(store, NULL, NULL,
		    "INSERT INTO txn (id, auth, ehlo, transid, sender, params, declared, resend, owner, verb, octets, name, settling,"
		    " verdict, begun_ms, touched_ms) VALUES (1, 'a', 'e', '<t@t>', 's', '', 0, 0, 5, ?, ?, 'n', ?,"
		    " iif(?, '250 ok', NULL), 0, unixepoch() * 1000)",
		    "iiii", (int64_t)(data[4] % 3), (int64_t)(data[5] % 2 ? (int64_t)(size - 8) : (int64_t)data[5]), (int64_t)(data[4] / 3 % 4 == 3),
		    (int64_t)(data[4] / 16 % 8 == 7));
	if (e == SQ_OK)
		e = gw_sql(store, NULL, NULL, "INSERT INTO segment VALUES (1, 0, ?, 'one')", "i", (int64_t)(cut - 8) + (data[6] % 4 == 3));
	if (e == SQ_OK && data[6] / 4 % 4)
		e = gw_sql(store, NULL, NULL, "INSERT OR IGNORE INTO segment VALUES (1, ?, iif(?, NULL, ?), 'two')", "iii",
		    (int64_t)(cut - 8) + (data[7] % 8 == 7), (int64_t)(data[4] % 3 == GW_VERB_DATA || data[7] / 8 % 2), (int64_t)(size - cut));
	if (e != SQ_OK)
		sq_bug("no rows");
	if (gw_txn_take(store, &env, &found, &t, NULL) == SQ_OK && found == GW_RESUMED && !t.settled)
		check_taken(&t);
	return 0;
}
