/*
 * What can be seen of an SMTP conversation from between: which reply answers
 * a message's terminator. In plain text the client's commands are followed
 * and replies counted; in TLS only the lengths of records are there to go by.
 * And where a direction's units end: lines, a BDAT's octets, TLS records.
 * Octets pass through; nothing is kept but the line or record under way.
 */
#include "badlink.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void
view_init(struct view *v)
{
	memset(v, 0, sizeof(*v));
	v->up.expected = 1;  /* the greeting */
}

static void
note_terminator(struct view *v, const struct rule *r)
{
	v->up.expected++;
	if (++v->up.terminators == r->nth)
		v->up.final_reply = v->up.expected;
}

static void
see_command(struct view *v, const struct rule *r)
{
	struct command_view *s = &v->up;

	s->line[s->line_n] = '\0';
	s->line_n = 0;
	if (strncasecmp(s->line, "BDAT ", 5) == 0) {
		char *end;

		s->bdat_left = strtoll(s->line + 5, &end, 10);
		s->bdat_last = strcasestr(end, "LAST") != NULL;
		s->state = BDAT;
		if (s->bdat_left > 0)
			return;
		s->state = COMMANDS;
		if (s->bdat_last)
			note_terminator(v, r);
		else
			s->expected++;
		return;
	}
	s->expected++;
	if (strncasecmp(s->line, "DATA", 4) == 0)
		s->state = DATA_ASKED;
}

static void
see_up_tls(struct view *v, const struct rule *r, const char *p, size_t n)
{
	struct command_view *s = &v->up;

	for (size_t i = 0; i < n;) {
		if (s->record_left > 0) {
			int64_t take = s->record_left < (int64_t)(n - i) ? s->record_left : (int64_t)(n - i);

			s->record_left -= take;
			i += (size_t)take;
			if (s->record_left > 0 || s->record[0] != 23)
				continue;
			int len = s->record[3] << 8 | s->record[4];

			if ((len == 20 || len == 22 || len == 30) && ++s->terminators == r->nth)
				s->final_due = true;
			continue;
		}
		s->record[s->record_n++] = (uint8_t)p[i++];
		if (s->record_n == 5) {
			s->record_n = 0;
			s->record_left = s->record[3] << 8 | s->record[4];
		}
	}
}

void
view_up(struct view *v, const struct rule *r, const char *p, size_t n)
{
	static const char end[] = "\r\n.\r\n";
	struct command_view *s = &v->up;

	for (size_t i = 0; i < n; i++) {
		if (s->state == COMMANDS && s->line_n == 0 && p[i] == 0x16) {
			s->state = TLS;
			v->down.tls = true;
		}
		switch (s->state) {
		case TLS:
			see_up_tls(v, r, p + i, n - i);
			return;
		case DATA_ASKED:
			/* The client waits for 354; anything it sends now is another command or content. */
			s->state = v->down.replies >= s->expected ? DOT : COMMANDS;
			s->dot = 2;
			i--;
			break;
		case DOT:
			s->dot = p[i] == end[s->dot] ? s->dot + 1 : p[i] == '\r' ? 1 : 0;
			if (s->dot == 5) {
				s->state = COMMANDS;
				note_terminator(v, r);
			}
			break;
		case BDAT:
			if (--s->bdat_left > 0)
				break;
			s->state = COMMANDS;
			if (s->bdat_last)
				note_terminator(v, r);
			else
				s->expected++;
			break;
		case COMMANDS:
			if (p[i] == '\n')
				see_command(v, r);
			else if (s->line_n < sizeof(s->line) - 1)
				s->line[s->line_n++] = p[i];
			break;
		}
	}
}

size_t
view_down(struct view *v, const struct rule *r, const char *p, size_t n)
{
	struct reply_view *d = &v->down;

	if (d->tls)
		return v->up.final_due && r->final != FINAL_NONE ? 0 : n;
	for (size_t i = 0; i < n; i++) {
		int number = d->replies + 1;

		if (d->line_n == 0 && ((r->reply && number == r->reply)
		    || (r->final != FINAL_NONE && v->up.final_reply && number == v->up.final_reply)))
			return i;
		if (p[i] == '\n') {
			if (d->line_n < 4 || d->line[3] != '-') {
				d->replies++;
				/* A refused DATA has no content behind it. */
				if (v->up.state == DATA_ASKED && d->replies == v->up.expected && d->line[0] != '3')
					v->up.state = COMMANDS;
			}
			d->line_n = 0;
		} else if (d->line_n < sizeof(d->line)) {
			d->line[d->line_n++] = p[i];
		}
	}
	return n;
}

static void
unit_over(struct unit_view *u)
{
	char *end;

	/* What a BDAT announced is one unit. */
	u->left = 0;
	if (strncasecmp((const char *)u->head, "BDAT ", 5) == 0)
		u->left = strtoll((const char *)u->head + 5, &end, 10);
	memset(u->head, 0, sizeof(u->head));
	u->size = 0;
	u->n++;
}

int64_t
view_units(struct unit_view *u, const char *p, size_t n, int wanted)
{
	int64_t found = NEVER;

	for (size_t i = 0; i < n; i++) {
		bool over;

		if (u->left == 0 && u->size < (int64_t)sizeof(u->head) - 1)
			u->head[u->size] = (uint8_t)p[i];
		u->size++;
		u->at++;
		if (u->left > 0)
			over = --u->left == 0;
		else if (u->head[0] >= 0x14 && u->head[0] <= 0x17)
			over = u->size == 5 && (u->left = u->head[3] << 8 | u->head[4]) == 0;
		else
			over = p[i] == '\n';
		if (!over)
			continue;
		unit_over(u);
		if (u->n == wanted)
			found = u->at;
	}
	return found;
}
