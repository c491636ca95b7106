/*
 * The configuration file (libconfig). Owns the defaults. Says no to what it
 * does not know and to what would be dangerous: words in clear text off loopback.
 */
#include "gateway.h"

#include <libconfig.h>
#include <unistd.h>

enum kind { TEXT, NUMBER, LISTEN };

static const struct setting {
	const char *name;
	enum kind kind;
	size_t offset;
	int64_t least;
} table[] = {
	{ "hostname", TEXT, offsetof(struct gw_settings, hostname), 0 },
	{ "state", TEXT, offsetof(struct gw_settings, state), 0 },
	{ "maildir", TEXT, offsetof(struct gw_settings, maildir), 0 },
	{ "passwords", TEXT, offsetof(struct gw_settings, passwords), 0 },
	{ "certificate", TEXT, offsetof(struct gw_settings, certificate), 0 },
	{ "key", TEXT, offsetof(struct gw_settings, key), 0 },
	{ "user", TEXT, offsetof(struct gw_settings, user), 0 },
	{ "listen", LISTEN, 0, 0 },
	{ "max_size_bytes", NUMBER, offsetof(struct gw_settings, max_size_bytes), 1024 },
	{ "retain_s", NUMBER, offsetof(struct gw_settings, limits.retain_s), 1 },
	{ "interrupted_s", NUMBER, offsetof(struct gw_settings, limits.interrupted_s), 1 },
	{ "duplicate_s", NUMBER, offsetof(struct gw_settings, limits.duplicate_s), 0 },
	{ "user_bytes", NUMBER, offsetof(struct gw_settings, limits.user_bytes), 1 },
	{ "total_bytes", NUMBER, offsetof(struct gw_settings, limits.total_bytes), 1 },
	{ "user_messages", NUMBER, offsetof(struct gw_settings, limits.user_messages), 1 },
	{ "connections", NUMBER, offsetof(struct gw_settings, connections), 1 },
	{ "idle_s", NUMBER, offsetof(struct gw_settings, idle_s), 1 },
};

void
gw_settings_fini(struct gw_settings *s)
{
	for (size_t i = 0; i < SQ_LEN(table); i++)
		if (table[i].kind == TEXT)
			sq_freep((char *)s + table[i].offset);
	for (size_t i = 0; i < s->listens; i++)
		free(s->listen[i].host);
	*s = (struct gw_settings){ 0 };
}

/* smtp://127.0.0.1:25, starttls://[::]:587, smtps://0.0.0.0:465 */
static enum sq_err
parse_listen(struct gw_settings *s, const char *text, struct sq_error *err)
{
	static const char *const schemes[] = { "smtp://", "starttls://", "smtps://" };
	struct gw_listen *l = &s->listen[s->listens];
	size_t i = 0;
	const char *host, *colon;

	while (i < SQ_LEN(schemes) && strncmp(text, schemes[i], strlen(schemes[i])) != 0)
		i++;
	host = i < SQ_LEN(schemes) ? text + strlen(schemes[i]) : text;
	colon = strrchr(host, ':');
	if (i == SQ_LEN(schemes) || !colon || colon == host || strlen(colon + 1) >= sizeof(l->port) || !colon[1] ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return sq_error_set(err, SQ_EINVAL, "'%s' is not like smtps://0.0.0.0:465", text);
	l->tls = (enum gw_tls)i;
	snprintf(l->port, sizeof(l->port), "%s", colon + 1);
	l->host = host[0] == '[' && colon[-1] == ']' ? strndup(host + 1, (size_t)(colon - host) - 2) :
						       strndup(host, (size_t)(colon - host));
	if (!l->host)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	s->listens++;
	if (l->tls == GW_TLS_NONE && strncmp(l->host, "127.", 4) != 0 && strcmp(l->host, "::1") != 0)
		return sq_error_set(err, SQ_EINVAL, "'%s': smtp:// is for 127.0.0.1 and [::1] only", text);
	return SQ_OK;
}

static enum sq_err
set_listen(struct gw_settings *s, const config_setting_t *cs, struct sq_error *err)
{
	int n = config_setting_length(cs);

	if (!config_setting_is_aggregate(cs) || n < 1 || n > GW_LISTEN_MAX)
		return sq_error_set(err, SQ_EINVAL, "listen must be a list of 1 to %d addresses", GW_LISTEN_MAX);
	for (int i = 0; i < n; i++) {
		const char *text = config_setting_get_string_elem(cs, i);
		enum sq_err e = text ? parse_listen(s, text, err) : sq_error_set(err, SQ_EINVAL, "listen holds no text");

		if (e != SQ_OK)
			return e;
	}
	return SQ_OK;
}

static enum sq_err
set_one(struct gw_settings *s, const config_setting_t *cs, struct sq_error *err)
{
	const char *name = config_setting_name(cs);
	int type = config_setting_type(cs);
	int64_t number;

	for (size_t i = 0; i < SQ_LEN(table); i++) {
		void *at = (char *)s + table[i].offset;

		if (strcmp(name, table[i].name) != 0)
			continue;
		if (table[i].kind == LISTEN)
			return set_listen(s, cs, err);
		if (table[i].kind == TEXT) {
			if (type != CONFIG_TYPE_STRING || !*config_setting_get_string(cs))
				return sq_error_set(err, SQ_EINVAL, "%s must be a text", name);
			if (!(*(char **)at = strdup(config_setting_get_string(cs))))
				return sq_error_set(err, SQ_ENOMEM, "out of memory");
			return SQ_OK;
		}
		number = config_setting_get_int64(cs);
		if ((type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64) || number < table[i].least)
			return sq_error_set(err, SQ_EINVAL, "%s must be a number", name);
		if (at == (void *)&s->connections || at == (void *)&s->idle_s)
			*(int *)at = number > 100000 ? 100000 : (int)number;
		else
			*(int64_t *)at = number;
		return SQ_OK;
	}
	return sq_error_set(err, SQ_EINVAL, "no such setting '%s'", name);
}

static enum sq_err
finish(struct gw_settings *s, struct sq_error *err)
{
	char name[256] = "";
	bool tls = false;

	for (size_t i = 0; i < s->listens; i++)
		tls |= s->listen[i].tls != GW_TLS_NONE;
	if (!s->listens || !s->state || !s->maildir || !s->passwords)
		return sq_error_set(err, SQ_EINVAL, "listen, state, maildir and passwords are needed");
	if (tls && (!s->certificate || !s->key))
		return sq_error_set(err, SQ_EINVAL, "certificate and key are needed for TLS");
	if (!s->hostname && (gethostname(name, sizeof(name) - 1) != 0 || !(s->hostname = strdup(name))))
		return sq_error_set(err, SQ_EINVAL, "hostname is needed");
	return SQ_OK;
}

enum sq_err
gw_settings_load(const char *path, struct gw_settings *out, struct sq_error *err)
{
	SQ_CLEANUP(gw_settings_fini) struct gw_settings s = {
		.limits = { .retain_s = 30 * 86400, .interrupted_s = 14 * 86400, .duplicate_s = 48 * 3600,
			.user_bytes = INT64_C(1) << 30, .total_bytes = INT64_C(8) << 30, .user_messages = 200 },
		.max_size_bytes = 50 << 20, .connections = 50, .idle_s = 300,
	};
	SQ_CLEANUP(config_destroy) config_t config;
	config_setting_t *root;
	enum sq_err e;

	config_init(&config);
	if (!config_read_file(&config, path))
		return sq_error_set(err, SQ_EINVAL, "cannot use '%s': line %d: %s", path, config_error_line(&config),
		    config_error_text(&config));
	root = config_root_setting(&config);
	for (int i = 0; i < config_setting_length(root); i++) {
		config_setting_t *cs = config_setting_get_elem(root, (unsigned)i);

		if ((e = set_one(&s, cs, err)) != SQ_OK)
			return sq_error_wrap(err, e, "cannot use '%s': line %d", path, config_setting_source_line(cs));
	}
	if ((e = finish(&s, err)) != SQ_OK)
		return sq_error_wrap(err, e, "cannot use '%s'", path);
	*out = s;
	s = (struct gw_settings){ 0 };
	return SQ_OK;
}
