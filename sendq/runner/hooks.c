/*
 * The notify command: run for each notice, one after the other. What it is
 * told are words from mail and servers; they go by the environment, where no
 * shell reads them.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sendq/log.h>

#include "inside.h"

enum { HOOKS_MAX = 100, HOOK_VARIABLES = 10 };

/*
 * notify = "desktop". The body of a notification is markup: what mail and
 * servers say must not become some.
 */
static const char desktop[] = "command -v notify-send >/dev/null || exit 0;"
	/* A daemon that sendmail started was not told of the user's bus. */
	" export DBUS_SESSION_BUS_ADDRESS=\"${DBUS_SESSION_BUS_ADDRESS:-unix:path=/run/user/$(id -u)/bus}\";"
	" exec notify-send --app-name=sendq --icon=mail-send -- \"Mail to $SENDQ_TO\""
	" \"$(printf '%s: %s' \"$SENDQ_TEXT\" \"$SENDQ_SUBJECT\" | sed 's/&/\\&amp;/g; s/</\\&lt;/g; s/>/\\&gt;/g')\"";

static bool
has_desktop(void)
{
	char bus[64];

	snprintf(bus, sizeof(bus), "/run/user/%ld/bus", (long)getuid());
	return getenv("DBUS_SESSION_BUS_ADDRESS") || access(bus, F_OK) == 0;
}

/* What is run for a notice; NULL: nothing. */
static const char *
command_of(const struct runner *r)
{
	if (strcmp(r->cfg->notify, "none") == 0)
		return NULL;
	if (strcmp(r->cfg->notify, "desktop") != 0)
		return r->cfg->notify;
	return !r->cfg->system && has_desktop() ? desktop : NULL;
}

static void
hook_free(struct hook_run *h)
{
	for (size_t i = 0; h->env && h->env[i]; i++)
		free(h->env[i]);
	free(h->env);
	free(h);
}

void
hooks_next(struct runner *r)
{
	while (r->hooks && r->hook.pid <= 0) {
		struct hook_run *h = r->hooks;
		const char *command = command_of(r);
		struct sq_error err = { 0 };

		r->hooks = h->next;
		r->n_hooks--;
		if (command && command_start(&r->hook, command, h->env, (struct sq_str){ 0 }, false, &err) != SQ_OK)
			sq_log(SQ_LOG_WARN, "cannot run the notify command: %s", err.text);
		hook_free(h);
	}
}

void
hooks_free(struct runner *r)
{
	while (r->hooks) {
		struct hook_run *h = r->hooks;

		r->hooks = h->next;
		hook_free(h);
	}
}

static void SQ_PRINTF(2, 3)
hook_add(struct hook_run *h, const char *fmt, ...)
{
	SQ_CLEANUP(sq_freep) char *text = NULL;
	struct sq_buf b = SQ_BUF_INIT(4096);
	size_t n = 0;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	while (h->env[n])
		n++;
	/* Words from mail and servers: one line, bounded. */
	for (const char *p = text; p && *p && b.n < 2000; p++)
		sq_buf_addc(&b, (unsigned char)*p < ' ' || *p == 0x7f ? ' ' : *p);
	if (sq_buf_take(&b, &h->env[n], NULL) != SQ_OK) {
		h->env[n] = NULL;
		sq_buf_fini(&b);
	}
}

static const char *
hook_sentence(enum sq_report_kind kind)
{
	static const char *const words[] = { [SQ_REPORT_FAILED] = "not delivered", [SQ_REPORT_DOUBT] = "in doubt: the server may have it, or not",
		[SQ_REPORT_SETTLED] = "sent after all", [SQ_REPORT_RESENT] = "sent again, a second copy may arrive", [SQ_REPORT_DELAYED] = "still waiting",
		[SQ_REPORT_CUT] = "broke off on the way, goes on by itself" };

	return words[kind];
}

/* Tell the notify command, in the order in which things happened. */
void
hook_tell(struct runner *r, const struct sq_report *rep, const struct sq_message *m)
{
	struct hook_run *h, **at = &r->hooks;
	SQ_CLEANUP(sq_buf_fini) struct sq_buf to = SQ_BUF_INIT(4096);

	if (!command_of(r))
		return;
	if (r->n_hooks == HOOKS_MAX) {
		sq_log(SQ_LOG_WARN, "the notify command is too slow: not told of msg=%s, see the notices", rep->id);
		return;
	}
	if (!(h = calloc(1, sizeof(*h))) || !(h->env = calloc(HOOK_VARIABLES + 1, sizeof(*h->env)))) {
		free(h);
		return;
	}
	for (size_t i = 0; i < rep->n_recipients && to.n < 1000; i++)
		sq_buf_addf(&to, "%s%.1100s", i ? ", " : "", rep->recipients[i].address);
	hook_add(h, "SENDQ_EVENT=%s", report_name(rep->kind));
	hook_add(h, "SENDQ_TEXT=%s", hook_sentence(rep->kind));
	hook_add(h, "SENDQ_WHY=%s", rep->words ? rep->words : "");
	hook_add(h, "SENDQ_ID=%s", rep->id);
	hook_add(h, "SENDQ_SUBJECT=%s", m->subject);
	hook_add(h, "SENDQ_FROM=%s", m->sender);
	hook_add(h, "SENDQ_TO=%s", to.p ? to.p : "");
	hook_add(h, "SENDQ_RECIPIENTS=%zu", rep->n_recipients);
	hook_add(h, "SENDQ_MESSAGE_ID=%s", m->message_id);
	hook_add(h, "SENDQ_ROUTE=%s", m->route);
	while (*at)
		at = &(*at)->next;
	*at = h;
	r->n_hooks++;
	hooks_next(r);
}
