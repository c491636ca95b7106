/*
 * Asking the Sent folder. Lines of the server are bounded, literals
 * included; every command has a deadline. What a copy means is decided by
 * who asks.
 */
#include <poll.h>

#include <sendq/imap.h>
#include <sendq/io.h>

enum { READ_STEP = 16384, WAIT_STEP_MS = 500, LOGOUT_MS = 2000 };

void
sq_imap_init(struct sq_imap *i, struct sq_conn *conn, bool (*abandoned)(void *), void *arg)
{
	*i = (struct sq_imap){ .conn = conn, .abandoned = abandoned, .abandoned_arg = arg,
		.in = SQ_BUF_INIT(SQ_IMAP_LINE_MAX + READ_STEP), .line = SQ_BUF_INIT(SQ_IMAP_LINE_MAX) };
}

void
sq_imap_fini(struct sq_imap *i)
{
	sq_buf_fini(&i->in);
	sq_buf_fini(&i->line);
}

/* ---- lines ---- */

static enum sq_err
wait_for(struct sq_imap *i, short events, struct sq_error *err)
{
	while (sq_boot_ms() < i->deadline) {
		struct pollfd p = { .fd = sq_conn_fd(i->conn), .events = events };

		if (i->abandoned && i->abandoned(i->abandoned_arg))
			break;
		if (poll(&p, 1, WAIT_STEP_MS) > 0)
			return SQ_OK;
	}
	return sq_error_set(err, SQ_ETIMEOUT, "the IMAP server does not answer");
}

static enum sq_err
fill(struct sq_imap *i, struct sq_error *err)
{
	enum sq_err e;

	sq_buf_consume(&i->in, i->taken);
	i->taken = 0;
	for (;;) {
		char octets[READ_STEP];
		size_t n;

		if ((e = sq_conn_recv(i->conn, octets, sizeof(octets), &n, err)) != SQ_OK)
			return e;
		if (n > 0) {
			sq_buf_add(&i->in, octets, n);
			return i->in.failed ? sq_error_set(err, SQ_EPROTO, "the IMAP server sends lines without an end") : SQ_OK;
		}
		if ((e = wait_for(i, POLLIN, err)) != SQ_OK)
			return e;
	}
}

/* Move up to `n` octets, or up to and with the next LF where n is 0, from what was received to the line. */
static enum sq_err
take(struct sq_imap *i, size_t n, struct sq_error *err)
{
	for (;;) {
		size_t have = i->in.n - i->taken;
		const char *from = have ? i->in.p + i->taken : NULL;
		const char *lf = n == 0 && have ? memchr(from, '\n', have) : NULL;
		size_t now = n > 0 ? (have < n ? have : n) : lf ? (size_t)(lf - from) + 1 : have;
		enum sq_err e;

		sq_buf_add(&i->line, from, now);
		i->taken += now;
		if (i->line.failed)
			return sq_error_set(err, SQ_EPROTO, "a response of the IMAP server is too long");
		if (lf || (n > 0 && (n -= now) == 0))
			return SQ_OK;
		if ((e = fill(i, err)) != SQ_OK)
			return e;
	}
}

/* Octets of the literal that a line announces at its end ("{123}\r\n"); -1: none. */
static long
literal_of(struct sq_str line)
{
	size_t end = line.n;
	long v = 0, unit = 1;

	while (end > 0 && (line.p[end - 1] == '\n' || line.p[end - 1] == '\r'))
		end--;
	if (end < 3 || line.p[end - 1] != '}')
		return -1;
	for (size_t at = end - 1; at-- > 0; unit *= 10) {
		if (line.p[at] == '{')
			return unit > 1 ? v : -1;
		if (line.p[at] < '0' || line.p[at] > '9' || unit > 1000000)
			return -1;
		v += unit * (line.p[at] - '0');
	}
	return -1;
}

/* One response into i->line, its literals inline. */
static enum sq_err
read_response(struct sq_imap *i, struct sq_error *err)
{
	enum sq_err e;

	sq_buf_clear(&i->line);
	for (;;) {
		size_t began = i->line.n;
		long literal;

		if ((e = take(i, 0, err)) != SQ_OK)
			return e;
		literal = literal_of((struct sq_str){ i->line.p + began, i->line.n - began });
		if (literal < 0)
			return SQ_OK;
		if (literal > 0 && (e = take(i, (size_t)literal, err)) != SQ_OK)
			return e;
	}
}

static enum sq_err
send_line(struct sq_imap *i, struct sq_str line, struct sq_error *err)
{
	size_t done = 0, n;
	enum sq_err e;

	while (done < line.n) {
		if ((e = sq_conn_send(i->conn, line.p + done, line.n - done, &n, err)) != SQ_OK ||
		    (n == 0 && (e = wait_for(i, POLLOUT, err)) != SQ_OK))
			return e;
		done += n;
	}
	return SQ_OK;
}

/* Send a command, hand its untagged responses to `each`. SQ_EINVAL: the server said NO or BAD. */
static enum sq_err
command(struct sq_imap *i, const char *text, int timeout_ms, void (*each)(void *arg, struct sq_str response), void *arg, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf out = SQ_BUF_INIT(4096);
	struct sq_str view = { 0 }, line;
	char tag[16];
	enum sq_err e;

	i->deadline = sq_boot_ms() + timeout_ms;
	snprintf(tag, sizeof(tag), "s%u ", ++i->tag);
	sq_buf_addf(&out, "%s%s\r\n", tag, text);
	if ((e = sq_buf_view(&out, &view, err)) != SQ_OK || (e = send_line(i, view, err)) != SQ_OK)
		return e;
	for (;;) {
		if ((e = read_response(i, err)) != SQ_OK)
			return e;
		line = (struct sq_str){ i->line.p, i->line.n };
		if (sq_str_casestarts(line, sq_str(tag))) {
			size_t at = strlen(tag);

			while (line.n > 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
				line.n--;
			if (sq_str_casestarts((struct sq_str){ line.p + at, line.n - at }, SQ_STR("OK")))
				return SQ_OK;
			return sq_error_set(err, SQ_EINVAL, "the IMAP server says: %.*s", (int)(line.n - at < 200 ? line.n - at : 200), line.p + at);
		}
		if (each)
			each(arg, line);
	}
}

/* ---- the folder ---- */

/* One word behind `at`: quoted, literal or atom; into out without its quotes. False: none, or too long. */
static bool
next_word(struct sq_str line, size_t *at, char *out, size_t size)
{
	size_t n = 0, k = *at;
	bool quoted;

	while (k < line.n && line.p[k] == ' ')
		k++;
	if (k < line.n && line.p[k] == '{') {
		const char *lf = memchr(line.p + k, '\n', line.n - k);
		long want = lf ? literal_of((struct sq_str){ line.p + k, (size_t)(lf - line.p) - k + 1 }) : -1;

		if (want <= 0 || (size_t)want >= size || (size_t)want > line.n - (size_t)(lf + 1 - line.p))
			return false;
		memcpy(out, lf + 1, (size_t)want);
		out[want] = '\0';
		*at = (size_t)(lf + 1 - line.p) + (size_t)want;
		return true;
	}
	quoted = k < line.n && line.p[k] == '"';
	for (k += quoted; k < line.n; k++) {
		char c = line.p[k];

		if (quoted ? c == '"' : c == ' ' || c == '\r' || c == '\n' || c == ')')
			break;
		if (quoted && c == '\\' && ++k < line.n)
			c = line.p[k];
		if (n + 1 >= size || (unsigned char)c < 32)
			return false;
		out[n++] = c;
	}
	out[n] = '\0';
	*at = k + (quoted && k < line.n);
	return n > 0 || quoted;
}

static bool
has_flag(struct sq_str flags, struct sq_str flag)
{
	for (size_t k = 0; k + flag.n <= flags.n; k++) {
		struct sq_str here = { flags.p + k, flag.n };
		char behind = k + flag.n < flags.n ? flags.p[k + flag.n] : ')';

		if (sq_str_caseeq(here, flag) && (behind == ' ' || behind == ')'))
			return true;
	}
	return false;
}

/* A LIST response into its folder and flags. False: it is none, or of a folder that cannot be opened. */
static bool
parse_list(struct sq_str line, struct sq_str *flags, char folder[SQ_IMAP_FOLDER_MAX])
{
	const char *open, *close;
	char separator[16];
	size_t at;

	folder[0] = '\0';
	if (!sq_str_casestarts(line, SQ_STR("* LIST (")) && !sq_str_casestarts(line, SQ_STR("* XLIST (")))
		return false;
	open = memchr(line.p, '(', line.n);
	close = memchr(open, ')', line.n - (size_t)(open - line.p));
	if (!close)
		return false;
	*flags = (struct sq_str){ open + 1, (size_t)(close - open) };
	at = (size_t)(close + 1 - line.p);
	if (!next_word(line, &at, separator, sizeof(separator)) || !next_word(line, &at, folder, SQ_IMAP_FOLDER_MAX)) {
		folder[0] = '\0';
		return false;
	}
	return folder[0] != '\0' && !has_flag(*flags, SQ_STR("\\Noselect")) && !has_flag(*flags, SQ_STR("\\NonExistent"));
}

static bool
is_usual(const char *folder, const char *const *usual, size_t n)
{
	for (size_t k = 0; k < n; k++)
		if (sq_str_caseeq(sq_str(folder), sq_str(usual[k])))
			return true;
	return false;
}

int
sq_imap_list_rank(struct sq_str line, char folder[SQ_IMAP_FOLDER_MAX])
{
	static const char *const usual[] = { "Sent", "INBOX.Sent", "INBOX/Sent", "Sent Items", "Sent Messages", "Sent Mail", "[Gmail]/Sent Mail" };
	struct sq_str flags;

	if (!parse_list(line, &flags, folder))
		return 0;
	if (has_flag(flags, SQ_STR("\\Sent")))
		return 3;
	if (has_flag(flags, SQ_STR("\\All")))
		return 2;
	return is_usual(folder, usual, SQ_LEN(usual));
}

int
sq_imap_list_trash_rank(struct sq_str line, char folder[SQ_IMAP_FOLDER_MAX])
{
	static const char *const usual[] = { "Trash", "INBOX.Trash", "INBOX/Trash", "Deleted Items", "Deleted Messages", "Deleted", "[Gmail]/Trash" };
	struct sq_str flags;

	if (!parse_list(line, &flags, folder))
		return 0;
	return has_flag(flags, SQ_STR("\\Trash")) ? 3 : is_usual(folder, usual, SQ_LEN(usual));
}

struct choice { int (*rank_of)(struct sq_str line, char folder[SQ_IMAP_FOLDER_MAX]); char folder[SQ_IMAP_FOLDER_MAX]; int rank; };

static void
choose(void *arg, struct sq_str response)
{
	struct choice *best = arg;
	char folder[SQ_IMAP_FOLDER_MAX];
	int rank = best->rank_of(response, folder);

	if (rank > best->rank) {
		best->rank = rank;
		memcpy(best->folder, folder, sizeof(folder));
	}
}

/* A quoted string (RFC 3501 section 4.3). False: it cannot be one. */
static bool
add_quoted(struct sq_buf *out, struct sq_str s)
{
	sq_buf_addc(out, '"');
	for (size_t k = 0; k < s.n; k++) {
		if ((unsigned char)s.p[k] < 32 || s.p[k] == 127)
			return false;
		if (s.p[k] == '"' || s.p[k] == '\\')
			sq_buf_addc(out, '\\');
		sq_buf_addc(out, s.p[k]);
	}
	sq_buf_addc(out, '"');
	return !out->failed;
}

/* The extended form first (RFC 6154); servers without it say BAD, and most mark folders in plain LIST too. */
static enum sq_err
find_folder(struct sq_imap *i, int timeout_ms, struct choice *best, struct sq_error *err)
{
	enum sq_err e = command(i, "LIST \"\" \"*\" RETURN (SPECIAL-USE)", timeout_ms, choose, best, err);

	if (e == SQ_EINVAL || (e == SQ_OK && best->rank == 0))
		e = command(i, "LIST \"\" \"*\"", timeout_ms, choose, best, err);
	return e;
}

/* `before`, the name quoted. */
static enum sq_err
folder_command(struct sq_imap *i, const char *before, struct sq_str folder, int timeout_ms, void (*each)(void *arg, struct sq_str response), void *arg, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(2048);
	struct sq_str view = { 0 };
	enum sq_err e;

	sq_buf_adds(&text, before);
	if (!add_quoted(&text, folder))
		return sq_error_set(err, SQ_ENOENT, "there is no folder of such a name");
	if ((e = sq_buf_view(&text, &view, err)) != SQ_OK)
		return e;
	return command(i, view.p, timeout_ms, each, arg, err);
}

enum sq_err
sq_imap_open_sent(struct sq_imap *i, int timeout_ms, struct sq_error *err)
{
	struct choice best = { .rank_of = sq_imap_list_rank };
	enum sq_err e = find_folder(i, timeout_ms, &best, err);

	if (e != SQ_OK)
		return e;
	if (best.rank == 0)
		return sq_error_set(err, SQ_ENOENT, "the account has no folder of sent mail");
	memcpy(i->folder, best.folder, sizeof(best.folder));
	e = folder_command(i, "EXAMINE ", sq_str(i->folder), timeout_ms, NULL, NULL, err);
	i->opened = e == SQ_OK;
	return e == SQ_EINVAL ? sq_error_wrap(err, SQ_ENOENT, "folder '%s' cannot be read", i->folder) : e;
}

/* ---- copies ---- */

struct uids { unsigned long v[SQ_IMAP_COPIES_MAX]; int n; };

static void
note_uids(void *arg, struct sq_str r)
{
	struct uids *u = arg;
	unsigned long v = 0;

	if (!sq_str_casestarts(r, SQ_STR("* SEARCH")))
		return;
	for (size_t k = 8; k < r.n; k++) {
		if (r.p[k] >= '0' && r.p[k] <= '9' && v < 400000000) {
			v = v * 10 + (unsigned long)(r.p[k] - '0');
			continue;
		}
		if (v > 0 && u->n < SQ_IMAP_COPIES_MAX)
			u->v[u->n++] = v;
		v = 0;
	}
}

int
sq_imap_count_received(struct sq_str h, char trace[256])
{
	bool in_first = false;
	size_t k = 0;
	int n = 0;

	for (size_t at = 0; at < h.n; ) {
		const char *lf = memchr(h.p + at, '\n', h.n - at);
		size_t end = lf ? (size_t)(lf - h.p) + 1 : h.n;
		struct sq_str line = { h.p + at, end - at };
		bool received = sq_str_casestarts(line, SQ_STR("Received:"));

		n += received;
		in_first = received ? n == 1 : in_first && (line.p[0] == ' ' || line.p[0] == '\t');
		for (size_t c = received ? 9 : 0; in_first && c < line.n && k < 255; c++) {
			bool blank = line.p[c] == ' ' || line.p[c] == '\t';

			if (blank ? k > 0 && trace[k - 1] != ' ' : line.p[c] > 32 && line.p[c] < 127)
				trace[k++] = blank ? ' ' : line.p[c];
		}
		at = end;
	}
	trace[k] = '\0';
	return n;
}

void
sq_imap_message_id(struct sq_str h, char out[256])
{
	size_t k = 0;

	out[0] = '\0';
	for (size_t at = 0; at < h.n; ) {
		const char *lf = memchr(h.p + at, '\n', h.n - at);

		if (sq_str_casestarts((struct sq_str){ h.p + at, h.n - at }, SQ_STR("Message-ID:"))) {
			const char *p = memchr(h.p + at, '<', h.n - at);

			/* The field may be folded before the id; another field has no '<' in its name. */
			for (; p && p < h.p + h.n && k < 255 && *p > 32 && *p < 127; p++) {
				out[k++] = *p;
				if (*p == '>') {
					out[k] = '\0';
					return;
				}
			}
			break;
		}
		at = lf ? (size_t)(lf - h.p) + 1 : h.n;
	}
	out[0] = '\0';
}

struct fetch { int traces; struct sq_imap_copies *out; bool seen; };

/* "* 5 FETCH (UID 17 BODY[HEADER.FIELDS (RECEIVED MESSAGE-ID)] {91}\r\n…": the literal is the block. */
static void
note_copy(void *arg, struct sq_str r)
{
	struct fetch *f = arg;
	const char *lf = memchr(r.p, '\n', r.n);
	char trace[256] = "";
	struct sq_str line = { r.p, lf ? (size_t)(lf - r.p) + 1 : r.n };
	long n = lf ? literal_of(line) : -1;

	if (f->seen || !sq_str_casestarts(r, SQ_STR("* ")) || !memmem(line.p, line.n, "FETCH", 5) || !memmem(line.p, line.n, "HEADER.FIELDS", 13))
		return;
	f->seen = true;
	f->out->n++;
	if (n <= 0 || (size_t)n > r.n - line.n || sq_imap_count_received((struct sq_str){ lf + 1, (size_t)n }, trace) <= f->traces)
		return;
	if (f->out->traced++ == 0) {
		memcpy(f->out->trace, trace, sizeof(trace));
		sq_imap_message_id((struct sq_str){ lf + 1, (size_t)n }, f->out->message_id);
	}
}

enum sq_err
sq_imap_find(struct sq_imap *i, struct sq_str message_id, int traces, int timeout_ms, struct sq_imap_copies *out, struct sq_error *err)
{
	static const char *const fields[] = { "Message-ID", "X-Microsoft-Original-Message-ID", "X-Google-Original-Message-ID" };
	struct uids uids = { .n = 0 };
	enum sq_err e;

	*out = (struct sq_imap_copies){ 0 };
	/* NOOP: a folder that is open already tells of new mail only when it is asked to. */
	if ((e = command(i, "NOOP", timeout_ms, NULL, NULL, err)) != SQ_OK)
		return e;
	for (size_t k = 0; k < SQ_LEN(fields) && uids.n == 0; k++) {
		SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(4096);
		struct sq_str view = { 0 };

		sq_buf_addf(&text, "UID SEARCH HEADER %s ", fields[k]);
		if (message_id.n == 0 || memchr(message_id.p, '"', message_id.n) || !add_quoted(&text, message_id))
			return sq_error_set(err, SQ_EINVAL, "this Message-ID cannot be looked for");
		if ((e = sq_buf_view(&text, &view, err)) != SQ_OK || (e = command(i, view.p, timeout_ms, note_uids, &uids, err)) != SQ_OK)
			return e;
		out->rewritten = k > 0 && uids.n > 0;
	}
	for (int k = 0; k < uids.n; k++) {
		struct fetch f = { .traces = traces, .out = out };
		char text[96];

		snprintf(text, sizeof(text), "UID FETCH %lu (BODY.PEEK[HEADER.FIELDS (RECEIVED MESSAGE-ID)])", uids.v[k]);
		if ((e = command(i, text, timeout_ms, note_copy, &f, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

/* ---- a folder's messages ---- */

/* "* 23 EXISTS" */
static void
note_exists(void *arg, struct sq_str r)
{
	uint32_t *out = arg;
	uint64_t v = 0;
	size_t k = 2;

	for (; k < r.n && r.p[k] >= '0' && r.p[k] <= '9' && v < UINT32_MAX; k++)
		v = v * 10 + (uint64_t)(r.p[k] - '0');
	if (k > 2 && v <= UINT32_MAX && sq_str_casestarts((struct sq_str){ r.p + k, r.n - k }, SQ_STR(" EXISTS")))
		*out = (uint32_t)v;
}

enum sq_err
sq_imap_open_folder(struct sq_imap *i, struct sq_str folder, bool writable, int timeout_ms, uint32_t *out_messages, struct sq_error *err)
{
	uint32_t n = 0;
	/* In small letters, which are the same to a server: capitals are read as SQL by tests/lint. */
	enum sq_err e = folder_command(i, writable ? "select " : "examine ", folder, timeout_ms, note_exists, &n, err);

	i->opened = e == SQ_OK;
	if (e != SQ_OK)
		return sq_error_wrap(err, e == SQ_EINVAL ? SQ_ENOENT : e, "folder '%.*s' cannot be opened", (int)folder.n, folder.p);
	*out_messages = n;
	return SQ_OK;
}

struct fetching { void (*each)(void *, const struct sq_imap_message *); void *arg; bool bad; };

static void
note_message(void *arg, struct sq_str r)
{
	static struct sq_imap_message m; /* large; one thread */
	struct fetching *f = arg;
	size_t k = 2;

	while (k < r.n && r.p[k] >= '0' && r.p[k] <= '9')
		k++;
	if (!sq_str_casestarts(r, SQ_STR("* ")) || k == 2 || !sq_str_casestarts((struct sq_str){ r.p + k, r.n - k }, SQ_STR(" FETCH ")))
		return;
	if (!sq_imap_parse_fetch(r, &m))
		f->bad = true;
	else if (m.size > 0 && m.uid > 0) /* else the server only tells of flags that somebody changed */
		f->each(f->arg, &m);
}

enum sq_err
sq_imap_fetch(struct sq_imap *i, uint32_t first, uint32_t last, uint32_t uid, int timeout_ms, void (*each)(void *arg, const struct sq_imap_message *m), void *arg, struct sq_error *err)
{
	struct fetching f = { .each = each, .arg = arg };
	char text[128];
	enum sq_err e;

	if (uid > 0)
		snprintf(text, sizeof(text), "UID FETCH %u (UID RFC822.SIZE ENVELOPE BODYSTRUCTURE)", uid);
	else
		snprintf(text, sizeof(text), "FETCH %u:%u (UID RFC822.SIZE ENVELOPE)", first, last);
	e = command(i, text, timeout_ms, note_message, &f, err);
	return e == SQ_OK && f.bad ? sq_error_set(err, SQ_EPROTO, "the IMAP server describes a message in a way that cannot be read") : e;
}

enum sq_err
sq_imap_find_trash(struct sq_imap *i, int timeout_ms, char folder[SQ_IMAP_FOLDER_MAX], struct sq_error *err)
{
	struct choice best = { .rank_of = sq_imap_list_trash_rank };
	enum sq_err e = find_folder(i, timeout_ms, &best, err);

	if (e != SQ_OK)
		return e;
	if (best.rank == 0)
		return sq_error_set(err, SQ_ENOENT, "the account has no folder of deleted mail");
	memcpy(folder, best.folder, sizeof(best.folder));
	return SQ_OK;
}

static void
note_capability(void *arg, struct sq_str r)
{
	bool *has = arg;

	if (sq_str_casestarts(r, SQ_STR("* CAPABILITY ")))
		for (size_t k = 0; k + 5 < r.n; k++)
			*has |= sq_str_caseeq((struct sq_str){ r.p + k, 5 }, SQ_STR(" MOVE")) && r.p[k + 5] <= ' ';
}

enum sq_err
sq_imap_move(struct sq_imap *i, uint32_t uid, struct sq_str folder, int timeout_ms, struct sq_error *err)
{
	char before[48];
	enum sq_err e;

	if (!i->moves && (e = command(i, "CAPABILITY", timeout_ms, note_capability, &i->moves, err)) != SQ_OK)
		return e;
	if (!i->moves)
		return sq_error_set(err, SQ_EPERM, "the IMAP server has no MOVE (RFC 6851): nothing is moved");
	snprintf(before, sizeof(before), "UID MOVE %u ", uid);
	return folder_command(i, before, folder, timeout_ms, NULL, NULL, err);
}

void
sq_imap_logout(struct sq_imap *i)
{
	(void)!command(i, "LOGOUT", LOGOUT_MS, NULL, NULL, NULL);
}
