/*
 * Reading delivery reports. Everything is bounded: octets, nesting, parts,
 * recipients, words; what does not fit is left out. Nothing of the message
 * that a report returns is looked at but its header.
 */
#include <sendq/bounce.h>
#include <sendq/message.h>

enum { DEPTH_MAX = 4, PARTS_MAX = 64 };

struct reading {
	struct sq_bounce *b;
	bool ours;          /* a notice of sendq */
	bool status;        /* a delivery-status part was read */
	bool no_memory;
};

void
sq_bounce_fini(struct sq_bounce *b)
{
	free(b->recipients);
	*b = (struct sq_bounce){ 0 };
}

/* ---- small things ---- */

/* One line of printable octets; cut to fit. */
static void
keep(char *out, size_t size, struct sq_str s)
{
	size_t n = 0;

	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	for (size_t i = 0; i < s.n && n + 1 < size; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c < ' ' || c == 0x7f) /* folds and controls */
			c = ' ';
		if (c == ' ' && n > 0 && out[n - 1] == ' ')
			continue;
		out[n++] = (char)c;
	}
	while (n > 0 && out[n - 1] == ' ')
		n--;
	/* Not in the middle of a character. */
	if (n + 1 == size)
		while (n > 0 && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
			n--;
	if (n + 1 == size && n > 0 && (unsigned char)out[n - 1] >= 0xc0)
		n--;
	out[n] = '\0';
}

static bool
name_is(const struct sq_field *f, const char *name)
{
	return sq_str_caseeq(f->name, sq_str(name));
}

static int
hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "rfc822; bob@example.org" (or utf-8), xtext where it is an original recipient. */
static void
address_of(struct sq_str body, bool xtext, char out[SQ_BOUNCE_ADDRESS_MAX])
{
	const char *semicolon = body.n ? memchr(body.p, ';', body.n) : NULL;
	char plain[SQ_BOUNCE_ADDRESS_MAX];
	size_t n = 0;

	if (semicolon)
		body = (struct sq_str){ semicolon + 1, body.n - (size_t)(semicolon + 1 - body.p) };
	keep(plain, sizeof(plain), body);
	for (const char *p = plain; *p; p++) {
		if (xtext && *p == '+' && hex(p[1]) >= 0 && hex(p[2]) >= 0) {
			out[n++] = (char)(hex(p[1]) * 16 + hex(p[2]));
			p += 2;
		} else if (*p != '<' && *p != '>') {
			out[n++] = *p;
		}
	}
	out[n] = '\0';
	for (const char *p = out; *p; p++)
		if ((unsigned char)*p < ' ')
			out[0] = '\0'; /* xtext may hide anything */
}

/* "dns; mx.example.org" */
static void
reporter(struct sq_str body, char *out, size_t size)
{
	const char *semicolon = body.n ? memchr(body.p, ';', body.n) : NULL;

	keep(out, size, semicolon ? (struct sq_str){ semicolon + 1, body.n - (size_t)(semicolon + 1 - body.p) } : body);
}

static bool
digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "5.1.1", as far as there is one. */
static size_t
enhanced_length(const char *p)
{
	size_t n = 0;

	if (!digit(p[0]) || p[1] != '.' || !digit(p[2]))
		return 0;
	for (n = 2; digit(p[n]); n++)
		;
	if (p[n] != '.' || !digit(p[n + 1]))
		return 0;
	for (n++; digit(p[n]); n++)
		;
	return n < SQ_ENHANCED_MAX ? n : 0;
}

/* "smtp; 550 5.1.1 no such user": code, enhanced code and words. */
static void
diagnostic(struct sq_str body, struct sq_bounce_recipient *r)
{
	const char *semicolon = body.n ? memchr(body.p, ';', body.n) : NULL;
	char text[sizeof(r->words)];
	const char *p = text;
	size_t n;

	if (semicolon)
		body = (struct sq_str){ semicolon + 1, body.n - (size_t)(semicolon + 1 - body.p) };
	keep(text, sizeof(text), body);
	if (p[0] >= '4' && p[0] <= '5' && digit(p[1]) && digit(p[2]) && (p[3] == ' ' || p[3] == '-' || p[3] == '\0')) {
		r->code = (p[0] - '0') * 100 + (p[1] - '0') * 10 + (p[2] - '0');
		p += p[3] ? 4 : 3;
	}
	if ((n = enhanced_length(p)) > 0 && (p[n] == ' ' || p[n] == '\0')) {
		snprintf(r->enhanced, sizeof(r->enhanced), "%.*s", (int)n, p);
		p += n + (p[n] == ' ');
	}
	snprintf(r->words, sizeof(r->words), "%s", p);
}

static struct sq_bounce_recipient *
add_recipient(struct reading *rd)
{
	struct sq_bounce *b = rd->b;

	if (b->n_recipients == SQ_BOUNCE_RECIPIENTS_MAX)
		return NULL;
	if (!b->recipients && !(b->recipients = calloc(SQ_BOUNCE_RECIPIENTS_MAX, sizeof(*b->recipients)))) {
		rd->no_memory = true;
		return NULL;
	}
	b->recipients[b->n_recipients] = (struct sq_bounce_recipient){ 0 };
	return &b->recipients[b->n_recipients++];
}

/* "<…@…>" anywhere in the value. */
static void
add_message_id(struct reading *rd, struct sq_str body)
{
	const char *from = body.n ? memchr(body.p, '<', body.n) : NULL, *to;
	struct sq_bounce *b = rd->b;
	size_t n;

	if (!from || !(to = memchr(from, '>', body.n - (size_t)(from - body.p))) || b->n_message_ids == SQ_BOUNCE_IDS_MAX)
		return;
	n = (size_t)(to + 1 - from);
	if (n < 4 || n >= sizeof(b->message_ids[0]))
		return;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)from[i] <= ' ' || from[i] == 0x7f)
			return;
	for (size_t i = 0; i < b->n_message_ids; i++)
		if (strlen(b->message_ids[i]) == n && memcmp(b->message_ids[i], from, n) == 0)
			return;
	memcpy(b->message_ids[b->n_message_ids], from, n);
	b->message_ids[b->n_message_ids++][n] = '\0';
}

/* ---- the header of a message or part ---- */

struct head {
	char type[128];         /* "message/delivery-status", lower case, "" */
	char boundary[80];      /* "" */
	bool null_sender, daemon_sent;
	struct sq_str failed;   /* X-Failed-Recipients */
};

static void
content_type(struct sq_str body, struct head *h)
{
	char text[1024], *p, *end;
	size_t n;

	keep(text, sizeof(text), body);
	n = strcspn(text, "; \t");
	if (n >= sizeof(h->type))
		return;
	for (size_t i = 0; i < n; i++)
		h->type[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
	h->type[n] = '\0';
	for (p = text + n; (p = strchr(p, ';')) != NULL; ) {
		p += 1 + strspn(p + 1, " \t");
		if (!sq_str_casestarts(sq_str(p), SQ_STR("boundary=")))
			continue;
		p += 9;
		end = *p == '"' ? strchr(p + 1, '"') : p + strcspn(p, "; \t");
		p += *p == '"';
		if (end && end > p && (size_t)(end - p) < sizeof(h->boundary))
			snprintf(h->boundary, sizeof(h->boundary), "%.*s", (int)(end - p), p);
		return;
	}
}

/* Fields up to the empty line; `rest` is what stands behind it. */
static void
read_head(struct reading *rd, struct sq_str *rest, struct head *h, bool top)
{
	struct sq_field f;

	*h = (struct head){ 0 };
	while (sq_field_next(rest, &f)) {
		char text[256];

		keep(text, sizeof(text), f.body);
		if (name_is(&f, "Content-Type"))
			content_type(f.body, h);
		if (!top)
			continue;
		if (name_is(&f, "Return-Path"))
			h->null_sender = strcmp(text, "<>") == 0;
		else if (name_is(&f, "From"))
			h->daemon_sent = strcasestr(text, "mailer-daemon@") || sq_str_casestarts(sq_str(text), SQ_STR("mailer-daemon"));
		else if (name_is(&f, "X-Failed-Recipients"))
			h->failed = f.body;
		else if (name_is(&f, "Message-ID"))
			rd->ours |= strstr(text, "@sendq.invalid>") != NULL;
	}
	if (rest->n >= 2 && rest->p[0] == '\r' && rest->p[1] == '\n') {
		rest->p += 2;
		rest->n -= 2;
	}
}

/* ---- message/delivery-status (RFC 3464 §2) ---- */

static void
status_group(struct reading *rd, struct sq_str *rest)
{
	struct sq_bounce_recipient r = { 0 }, *slot;
	char action[32] = "", status[SQ_ENHANCED_MAX] = "";
	struct sq_field f;

	while (sq_field_next(rest, &f)) {
		if (name_is(&f, "Original-Envelope-Id") && !rd->b->envid[0])
			keep(rd->b->envid, sizeof(rd->b->envid), f.body);
		else if (name_is(&f, "Reporting-MTA") && !rd->b->by[0])
			reporter(f.body, rd->b->by, sizeof(rd->b->by));
		else if (name_is(&f, "Original-Recipient"))
			address_of(f.body, true, r.original);
		else if (name_is(&f, "Final-Recipient"))
			address_of(f.body, false, r.final);
		else if (name_is(&f, "Action"))
			keep(action, sizeof(action), f.body);
		else if (name_is(&f, "Status"))
			keep(status, sizeof(status), f.body);
		else if (name_is(&f, "Diagnostic-Code"))
			diagnostic(f.body, &r);
		else if (name_is(&f, "X-Sendq-State"))
			rd->ours = true;
	}
	if (!r.original[0] && !r.final[0])
		return;
	r.failed = sq_str_caseeq(sq_str(action), SQ_STR("failed"));
	/* An action that nobody knows proves nothing. */
	if (!r.failed && !sq_str_caseeq(sq_str(action), SQ_STR("delayed")) && !sq_str_caseeq(sq_str(action), SQ_STR("delivered")) &&
	    !sq_str_caseeq(sq_str(action), SQ_STR("relayed")) && !sq_str_caseeq(sq_str(action), SQ_STR("expanded")))
		return;
	if (enhanced_length(status) > 0 && !r.enhanced[0])
		snprintf(r.enhanced, sizeof(r.enhanced), "%.*s", (int)enhanced_length(status), status);
	if (!r.words[0])
		snprintf(r.words, sizeof(r.words), "%s", action);
	if ((slot = add_recipient(rd)) != NULL)
		*slot = r;
}

static void
delivery_status(struct reading *rd, struct sq_str part)
{
	rd->status = true;
	while (part.n > 0) {
		size_t before = part.n;

		status_group(rd, &part);
		while (part.n >= 2 && part.p[0] == '\r' && part.p[1] == '\n') {
			part.p += 2;
			part.n -= 2;
		}
		if (part.n == before) {
			/* A line that is no field: skip it. */
			const char *lf = memchr(part.p, '\n', part.n);
			size_t n = lf ? (size_t)(lf + 1 - part.p) : part.n;

			part.p += n;
			part.n -= n;
		}
	}
}

/* The header of what is returned. */
static void
returned(struct reading *rd, struct sq_str part)
{
	struct sq_field f;

	while (sq_field_next(&part, &f))
		if (name_is(&f, "Message-ID"))
			add_message_id(rd, f.body);
}

/* ---- multipart ---- */

static void entity(struct reading *rd, struct sq_str whole, int depth);

/* The line that begins at p is "--boundary" (1) or "--boundary--" (2), else 0. */
static int
delimiter(struct sq_str rest, const char *boundary)
{
	size_t n = strlen(boundary);

	if (rest.n < n + 2 || rest.p[0] != '-' || rest.p[1] != '-' || memcmp(rest.p + 2, boundary, n) != 0)
		return 0;
	if (rest.n >= n + 4 && rest.p[n + 2] == '-' && rest.p[n + 3] == '-')
		return 2;
	for (size_t i = n + 2; i < rest.n && rest.p[i] != '\r'; i++)
		if (rest.p[i] != ' ' && rest.p[i] != '\t')
			return 0;
	return 1;
}

static void
parts(struct reading *rd, struct sq_str body, const char *boundary, int depth)
{
	const char *begin = NULL;

	for (int n = 0; body.n > 0 && n <= PARTS_MAX; ) {
		const char *lf = memchr(body.p, '\n', body.n);
		size_t line = lf ? (size_t)(lf + 1 - body.p) : body.n;
		int kind = delimiter((struct sq_str){ body.p, line }, boundary);

		if (kind != 0) {
			/* The line end in front of it belongs to it. */
			size_t length = begin ? (size_t)(body.p - begin) : 0;

			if (begin)
				entity(rd, (struct sq_str){ begin, length >= 2 ? length - 2 : 0 }, depth);
			n++;
			begin = body.p + line;
			if (kind == 2)
				return;
		}
		body.p += line;
		body.n -= line;
	}
	if (begin && begin < body.p)
		entity(rd, (struct sq_str){ begin, (size_t)(body.p - begin) }, depth); /* cut: by its end, or by our limit */
}

static void
entity(struct reading *rd, struct sq_str whole, int depth)
{
	struct head h;

	read_head(rd, &whole, &h, false);
	if (strcmp(h.type, "message/delivery-status") == 0 || strcmp(h.type, "message/global-delivery-status") == 0)
		delivery_status(rd, whole);
	else if (strcmp(h.type, "text/rfc822-headers") == 0 || strcmp(h.type, "message/rfc822") == 0 || strcmp(h.type, "message/global") == 0 ||
		 strcmp(h.type, "message/global-headers") == 0)
		returned(rd, whole);
	else if (strncmp(h.type, "multipart/", 10) == 0 && h.boundary[0] && depth < DEPTH_MAX)
		parts(rd, whole, h.boundary, depth + 1);
}

/* ---- bounces without a report ---- */

static void
failed_recipients(struct reading *rd, struct sq_str list)
{
	while (list.n > 0) {
		const char *comma = memchr(list.p, ',', list.n);
		size_t n = comma ? (size_t)(comma - list.p) : list.n;
		char address[SQ_BOUNCE_ADDRESS_MAX];
		struct sq_bounce_recipient *r;

		address_of((struct sq_str){ list.p, n }, false, address);
		if (strchr(address, '@') && (r = add_recipient(rd)) != NULL) {
			memcpy(r->final, address, sizeof(address));
			r->failed = true;
			snprintf(r->words, sizeof(r->words), "a bounce names it as failed");
		}
		list.p += comma ? n + 1 : n;
		list.n -= comma ? n + 1 : n;
	}
}

/* qmail's form: "<bob@example.org>:" and lines of words up to an empty one. */
static void
qmail_paragraph(struct reading *rd, struct sq_str line, struct sq_str rest)
{
	const char *end = memchr(line.p, '>', line.n);
	const char *blank = rest.n ? memmem(rest.p, rest.n, "\r\n\r\n", 4) : NULL;
	struct sq_bounce_recipient *r;
	struct sq_str words = { rest.p, blank ? (size_t)(blank - rest.p) : rest.n };

	if (!end || end + 1 >= line.p + line.n || end[1] != ':' || !memchr(line.p, '@', (size_t)(end - line.p)) || !(r = add_recipient(rd)))
		return;
	address_of((struct sq_str){ line.p, (size_t)(end - line.p) }, false, r->final);
	r->failed = true;
	diagnostic(words, r);
	if (!r->words[0])
		snprintf(r->words, sizeof(r->words), "a bounce names it as failed");
}

static void
plain(struct reading *rd, struct sq_str body, bool named)
{
	bool qmail = !named && body.n > 15 && memcmp(body.p, "Hi. This is the", 15) == 0;

	while (body.n > 0) {
		const char *lf = memchr(body.p, '\n', body.n);
		size_t n = lf ? (size_t)(lf + 1 - body.p) : body.n;
		struct sq_str line = { body.p, n };

		body.p += n;
		body.n -= n;
		while (line.n > 0 && (line.p[0] == '>' || line.p[0] == ' ')) {
			line.p++;
			line.n--;
		}
		if (sq_str_casestarts(line, SQ_STR("Message-ID:")))
			add_message_id(rd, (struct sq_str){ line.p + 11, line.n - 11 });
		else if (qmail && rd->b->n_message_ids == 0 && line.n > 0 && line.p[0] == '<')
			qmail_paragraph(rd, line, body);
	}
}

/* ---- the whole ---- */

/* One kind of line end, and no "From " line of an mbox. */
static void
canonical(struct sq_str mail, struct sq_buf *out)
{
	if (mail.n > SQ_BOUNCE_MAX)
		mail.n = SQ_BOUNCE_MAX;
	if (mail.n > 5 && memcmp(mail.p, "From ", 5) == 0) {
		const char *lf = memchr(mail.p, '\n', mail.n);
		size_t n = lf ? (size_t)(lf + 1 - mail.p) : mail.n;

		mail.p += n;
		mail.n -= n;
	}
	while (mail.n > 0) {
		const char *lf = memchr(mail.p, '\n', mail.n);
		size_t n = lf ? (size_t)(lf - mail.p) : mail.n, text = n > 0 && mail.p[n - 1] == '\r' ? n - 1 : n;

		sq_buf_add(out, mail.p, text);
		sq_buf_add(out, "\r\n", 2);
		mail.p += lf ? n + 1 : n;
		mail.n -= lf ? n + 1 : n;
	}
}

enum sq_err
sq_bounce_read(struct sq_str mail, struct sq_bounce *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(3 * SQ_BOUNCE_MAX + 16);
	struct reading rd = { .b = out };
	struct sq_str rest = { 0 };
	struct head h;
	enum sq_err e;

	*out = (struct sq_bounce){ 0 };
	canonical(mail, &text);
	if ((e = sq_buf_view(&text, &rest, err)) != SQ_OK)
		return e;
	read_head(&rd, &rest, &h, true);
	if (strncmp(h.type, "multipart/", 10) == 0 && h.boundary[0])
		parts(&rd, rest, h.boundary, 1);
	out->is_report = rd.status && out->n_recipients > 0;
	if (!rd.status && (h.failed.n > 0 || h.null_sender || h.daemon_sent)) {
		failed_recipients(&rd, h.failed);
		plain(&rd, rest, h.failed.n > 0);
		out->is_report = out->n_message_ids > 0;
	}
	if (out->is_report && !rd.ours && !rd.no_memory)
		return SQ_OK;
	sq_bounce_fini(out);
	return rd.no_memory ? sq_error_set(err, SQ_ENOMEM, "out of memory") : SQ_OK;
}
