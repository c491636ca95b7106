/*
 * The configuration file (libconfig). Owns the defaults. Says no to what it
 * does not know and to what would be dangerous: words in clear text off loopback.
 */
#include "gateway.h"

#include <libconfig.h>
#include <unistd.h>

#include <sendq/config.h>
#include <sendq/io.h>

enum kind { TEXT, NUMBER, SIZE, DURATION, BOOL, LISTEN };

#define AT(member) offsetof(struct gw_settings, member)

static const struct setting {
	const char *name;
	enum kind kind;
	size_t offset;
	int64_t least;
} table[] = {
	{ "hostname", TEXT, AT(hostname), 0 },
	{ "state", TEXT, AT(state), 0 },
	{ "maildir", TEXT, AT(maildir), 0 },
	{ "passwords", TEXT, AT(passwords), 0 },
	{ "certificate", TEXT, AT(certificate), 0 },
	{ "key", TEXT, AT(key), 0 },
	{ "user", TEXT, AT(user), 0 },
	{ "passthrough", TEXT, AT(passthrough), 0 },
	{ "trusted", TEXT, AT(trusted), 0 },
	{ "backend_ca", TEXT, AT(backend_ca), 0 },
	{ "backend_name", TEXT, AT(backend_name), 0 },
	{ "probe_recipient", TEXT, AT(probe_recipient), 0 },
	{ "local_server", TEXT, AT(local_server), 0 },
	{ "allow_duplicates", BOOL, AT(limits.allow_duplicates), 0 },
	{ "deliver_partial", BOOL, AT(limits.deliver_partial), 0 },
	{ "alert_after", DURATION, AT(alert_ms), 0 },
	{ "listen", LISTEN, 0, 0 },
	{ "max_size", SIZE, AT(max_size_bytes), 1024 },
	{ "retain", DURATION, AT(limits.retain_ms), 1000 },
	{ "interrupted", DURATION, AT(limits.interrupted_ms), 1000 },
	{ "duplicate_window", DURATION, AT(limits.duplicate_ms), 0 },
	{ "user_quota", SIZE, AT(limits.user_bytes), 1024 },
	{ "total_quota", SIZE, AT(limits.total_bytes), 1024 },
	{ "user_messages", NUMBER, AT(limits.user_messages), 1 },
	{ "connections", NUMBER, AT(connections), 1 },
	{ "client_connections", NUMBER, AT(client_connections), 1 },
	{ "idle", DURATION, AT(idle_ms), 1000 },
};

void
gw_settings_fini(struct gw_settings *s)
{
	for (size_t i = 0; i < SQ_LEN(table); i++)
		if (table[i].kind == TEXT)
			sq_freep((char *)s + table[i].offset);
	for (size_t i = 0; i < s->listens; i++)
		free(s->listen[i].host);
	free(s->backend_host);
	free(s->local_host);
	*s = (struct gw_settings){ 0 };
}

static bool
is_loopback(const char *host)
{
	return strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0;
}

/* smtp://127.0.0.1:25, starttls://[::]:587, smtps://0.0.0.0:465 */
static enum sq_err
parse_url(const char *text, char **host_out, char port[8], enum gw_tls *tls, struct sq_error *err)
{
	static const char *const schemes[] = { "smtp://", "starttls://", "smtps://" };
	size_t i = 0;
	const char *host, *colon;

	while (i < SQ_LEN(schemes) && strncmp(text, schemes[i], strlen(schemes[i])) != 0)
		i++;
	host = i < SQ_LEN(schemes) ? text + strlen(schemes[i]) : text;
	colon = strrchr(host, ':');
	if (i == SQ_LEN(schemes) || !colon || colon == host || strlen(colon + 1) > 5 || !colon[1] ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return sq_error_set(err, SQ_EINVAL, "'%s' is not like smtps://0.0.0.0:465", text);
	*tls = (enum gw_tls)i;
	snprintf(port, 8, "%s", colon + 1);
	*host_out = host[0] == '[' && colon[-1] == ']' ? strndup(host + 1, (size_t)(colon - host) - 2) :
							 strndup(host, (size_t)(colon - host));
	return *host_out ? SQ_OK : sq_error_set(err, SQ_ENOMEM, "out of memory");
}

static enum sq_err
parse_listen(struct gw_settings *s, const char *text, struct sq_error *err)
{
	struct gw_listen *l = &s->listen[s->listens];
	enum sq_err e = parse_url(text, &l->host, l->port, &l->tls, err);

	if (e != SQ_OK)
		return e;
	s->listens++;
	if (l->tls == GW_TLS_NONE && !is_loopback(l->host))
		return sq_error_set(err, SQ_EINVAL, "'%s': smtp:// is for 127.0.0.1 and [::1] only", text);
	return SQ_OK;
}

/* Words that log somebody in never go to the backend in the clear; who is trusted without them only on this machine. */
static enum sq_err
parse_backend(struct gw_settings *s, struct sq_error *err)
{
	const char *url = s->trusted ? s->trusted : s->passthrough;
	enum sq_err e = parse_url(url, &s->backend_host, s->backend_port, &s->backend_tls, err);

	if (e != SQ_OK)
		return e;
	if (s->backend_tls == GW_TLS_NONE && s->passthrough)
		return sq_error_set(err, SQ_EINVAL, "passthrough: '%s' would carry passwords in the clear: starttls:// or smtps://", url);
	if (s->backend_tls == GW_TLS_NONE && !is_loopback(s->backend_host))
		return sq_error_set(err, SQ_EINVAL, "trusted: '%s': smtp:// is for 127.0.0.1 and [::1] only", url);
	return SQ_OK;
}

static enum sq_err
set_listen(struct gw_settings *s, const config_setting_t *cs, struct sq_error *err)
{
	int n = config_setting_length(cs);

	if (config_setting_type(cs) == CONFIG_TYPE_STRING)
		return parse_listen(s, config_setting_get_string(cs), err);
	if (!config_setting_is_aggregate(cs) || n < 1 || n > GW_LISTEN_MAX)
		return sq_error_set(err, SQ_EINVAL, "listen must be one address or a list of 1 to %d", GW_LISTEN_MAX);
	for (int i = 0; i < n; i++) {
		const char *text = config_setting_get_string_elem(cs, i);
		enum sq_err e = text ? parse_listen(s, text, err) : sq_error_set(err, SQ_EINVAL, "listen holds no text");

		if (e != SQ_OK)
			return e;
	}
	return SQ_OK;
}

/* "10m", "25M", or a number of seconds or octets. -1: neither. */
static int64_t
number_of(const config_setting_t *cs, enum kind kind)
{
	int type = config_setting_type(cs);
	const char *text = type == CONFIG_TYPE_STRING ? config_setting_get_string(cs) : NULL;
	int64_t n = type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64 ? config_setting_get_int64(cs) : -1;

	if (text)
		return kind == DURATION ? sq_parse_duration_ms(text) : kind == SIZE ? sq_parse_size(text) : -1;
	if (kind == DURATION && n > 0)
		return n < INT64_MAX / 1000 ? n * 1000 : -1;
	return n;
}

static enum sq_err
set_one(struct gw_settings *s, const config_setting_t *cs, struct sq_error *err)
{
	static const char *const shapes[] = { "a text", "a number", "a size like \"25M\"", "a duration like \"10m\"", "", "" };
	const char *name = config_setting_name(cs);
	const struct setting *t = table;
	void *at;
	int64_t number;

	while (t < table + SQ_LEN(table) && strcmp(name, t->name) != 0)
		t++;
	if (t == table + SQ_LEN(table))
		return sq_error_set(err, SQ_EINVAL, "no such setting '%s'", name);
	at = (char *)s + t->offset;
	if (t->kind == LISTEN)
		return s->listens ? SQ_OK : set_listen(s, cs, err);
	if (t->kind == TEXT) {
		if (config_setting_type(cs) != CONFIG_TYPE_STRING || !*config_setting_get_string(cs))
			return sq_error_set(err, SQ_EINVAL, "%s must be a text", name);
		free(*(char **)at);
		if (!(*(char **)at = strdup(config_setting_get_string(cs))))
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		return SQ_OK;
	}
	if (t->kind == BOOL) {
		if (config_setting_type(cs) != CONFIG_TYPE_BOOL)
			return sq_error_set(err, SQ_EINVAL, "%s must be true or false", name);
		*(bool *)at = config_setting_get_bool(cs);
		return SQ_OK;
	}
	if ((number = number_of(cs, t->kind)) < t->least)
		return sq_error_set(err, SQ_EINVAL, "%s must be %s, and not less than %lld", name, shapes[t->kind],
		    (long long)(t->kind == DURATION ? t->least / 1000 : t->least));
	memcpy(at, &number, sizeof(number));
	return SQ_OK;
}

/* Where it keeps its things when the file does not say: with one line of configuration all of this is at work. */
static enum sq_err
defaults(struct gw_settings *s, struct sq_error *err)
{
	char name[256] = "";
	SQ_CLEANUP(sq_freep) char *home = geteuid() == 0 ? NULL : sq_home_dir();

	if (!s->listens && parse_listen(s, "smtp://127.0.0.1:587", err) != SQ_OK)
		return err ? err->code : SQ_ENOMEM;
	if (!s->state)
		s->state = home ? sq_path_suffix(home, "/.local/state/sendq-gateway") : strdup("/var/lib/sendq-gateway");
	if (!s->passwords && s->maildir)
		s->passwords = sq_path_suffix(s->maildir, "/.passwords");
	if (!s->probe_recipient)
		s->probe_recipient = strdup("postmaster@example.com");
	if (!s->hostname && gethostname(name, sizeof(name) - 1) == 0)
		s->hostname = strdup(name);
	return s->state && s->hostname && s->probe_recipient ? SQ_OK : sq_error_set(err, SQ_EINVAL, "hostname is needed");
}

static enum sq_err
check(struct gw_settings *s, struct sq_error *err)
{
	bool tls = false;
	int ways = (s->maildir != NULL) + (s->passthrough != NULL) + (s->trusted != NULL);

	for (size_t i = 0; i < s->listens; i++)
		tls |= s->listen[i].tls != GW_TLS_NONE;
	if (ways != 1)
		return sq_error_set(err, SQ_EINVAL, "one of maildir, passthrough and trusted is needed: where would mail go?");
	if (!s->passwords && !s->passthrough)
		return sq_error_set(err, SQ_EINVAL, "passwords is needed: who may send?");
	if (s->state[0] != '/' || (s->maildir && s->maildir[0] != '/'))
		return sq_error_set(err, SQ_EINVAL, "state and maildir must be whole paths");
	if (tls && (!s->certificate || !s->key))
		return sq_error_set(err, SQ_EINVAL, "certificate and key are needed for TLS");
	if (s->local_server) {
		enum sq_err e = parse_url(s->local_server, &s->local_host, s->local_port, &s->local_tls, err);

		if (e != SQ_OK)
			return e;
	}
	return s->maildir ? SQ_OK : parse_backend(s, err);
}

enum sq_err
gw_settings_load(const char *path, const char *listen, struct gw_settings *out, struct sq_error *err)
{
	SQ_CLEANUP(gw_settings_fini) struct gw_settings s = {
		.limits = { .retain_ms = INT64_C(30) * 86400000, .interrupted_ms = INT64_C(14) * 86400000,
			.duplicate_ms = INT64_C(48) * 3600000, .user_bytes = INT64_C(1) << 30, .total_bytes = INT64_C(8) << 30,
			.user_messages = 200 },
		.max_size_bytes = 50 << 20, .connections = 100, .client_connections = 20, .idle_ms = 300000, .alert_ms = 600000,
	};
	SQ_CLEANUP(config_destroy) config_t config;
	config_setting_t *root;
	enum sq_err e;

	config_init(&config);
	if (listen && (e = parse_listen(&s, listen, err)) != SQ_OK)
		return e;
	if (!config_read_file(&config, path))
		return sq_error_set(err, SQ_EINVAL, "cannot use '%s': line %d: %s", path, config_error_line(&config),
		    config_error_text(&config));
	root = config_root_setting(&config);
	for (int i = 0; i < config_setting_length(root); i++) {
		config_setting_t *cs = config_setting_get_elem(root, (unsigned)i);

		if ((e = set_one(&s, cs, err)) != SQ_OK)
			return sq_error_wrap(err, e, "cannot use '%s': line %d", path, config_setting_source_line(cs));
	}
	if ((e = defaults(&s, err)) != SQ_OK || (e = check(&s, err)) != SQ_OK)
		return sq_error_wrap(err, e, "cannot use '%s'", path);
	*out = s;
	s = (struct gw_settings){ 0 };
	return SQ_OK;
}
