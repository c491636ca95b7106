/*
 * Loading and checking the configuration. Everything that can be wrong is
 * said here, with file and line; the rest of sendq meets only checked values.
 * Owns libconfig; nothing else includes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <libconfig.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

#include "settings.h"
#include "config_inside.h"

enum { FILE_MAX = 1024 * 1024, ROUTES_MAX = 1000 };

#define SHORTEST "routes = ( { name = \"home\"; server = \"smtps://smtp.example.org\"; " \
	"user = \"me@example.org\"; password_command = \"secret-tool lookup mail me@example.org\"; } );"

/* ---- which file ---- */

static const char *
environment(const char *name)
{
	const char *v = getauxval(AT_SECURE) ? NULL : getenv(name);

	return v && *v ? v : NULL;
}

/* `path` is `folder` or lies below it. */
static bool
lies_in(const char *path, const char *folder)
{
	size_t n = folder ? strlen(folder) : 0;

	return n > 0 && strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static bool
is_ours(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_uid == geteuid();
}

/* `<base>/sendq/<leaf>`, base being the variable's value or a folder under home. NULL: no home. */
static char *
user_path(const char *variable, const char *under_home, const char *leaf)
{
	const char *base = environment(variable);
	SQ_CLEANUP(sq_freep) char *home = NULL;
	struct sq_buf b = SQ_BUF_INIT(4096);
	char *out = NULL;

	/* Another user's environment (sudo) must not lead into his folders: home says whose it is. */
	home = sq_home_dir();
	if (base && base[0] == '/' && (lies_in(base, home) || is_ours(base)))
		sq_buf_addf(&b, "%s/sendq/%s", base, leaf);
	if (b.n == 0) {
		if (!home)
			return NULL;
		sq_buf_addf(&b, "%s/%s/sendq/%s", home, under_home, leaf);
	}
	if (sq_buf_take(&b, &out, NULL) != SQ_OK) {
		sq_buf_fini(&b);
		return NULL;
	}
	return out;
}

static enum sq_err
no_memory(struct sq_error *err)
{
	return sq_error_set(err, SQ_ENOMEM, "out of memory");
}

enum sq_err
sq_config_find(const char *option, char **out, struct sq_error *err)
{
	const char *chosen = option ? option : environment("SENDQ_CONFIG");
	SQ_CLEANUP(sq_freep) char *own = NULL;

	if (chosen) {
		if (!(own = sq_str_dup(sq_str(chosen))))
			return no_memory(err);
		if (access(own, F_OK) < 0)
			return sq_error_errno(err, errno == ENOENT ? SQ_ENOENT : SQ_EPERM, "cannot use the configuration '%s' (from %s)",
				own, option ? "the command line" : "SENDQ_CONFIG");
	} else {
		own = user_path("XDG_CONFIG_HOME", ".config", "sendq.conf");
		if (!own)
			return sq_error_set(err, SQ_ENOENT, "no configuration: SENDQ_CONFIG is not set and this user has no home directory");
		if (access(own, F_OK) < 0)
			return sq_error_set(err, SQ_ENOENT, "no configuration yet: `sendq setup ADDRESS` finds your servers and writes one "
				"(tried -C, SENDQ_CONFIG (not set) and '%s')", own);
	}
	*out = own;
	own = NULL;
	return SQ_OK;
}

char *
sq_config_place(const char *option)
{
	const char *chosen = option ? option : environment("SENDQ_CONFIG");

	return chosen ? sq_str_dup(sq_str(chosen)) : user_path("XDG_CONFIG_HOME", ".config", "sendq.conf");
}

char *
sq_system_path(enum sq_system_place which)
{
	static const char *const places[] = {
		[SQ_SYSTEM_CONFIG] = "/etc/sendq/sendq.conf", [SQ_SYSTEM_QUEUE] = "/var/lib/sendq/queue.db", [SQ_SYSTEM_NOTICES] = "/var/lib/sendq/notices",
		[SQ_SYSTEM_MAIL] = "/var/mail", [SQ_SYSTEM_SUBMIT] = "/run/sendq/submit.sock", [SQ_SYSTEM_CONTROL] = "/run/sendq/control.sock",
		[SQ_SYSTEM_CREDENTIALS] = "/etc/credstore.encrypted", [SQ_SYSTEM_DROP_INS] = "/etc/systemd/system/sendqd.service.d",
	};
#ifdef SENDQ_FAULTS
	const char *root = environment("SENDQ_SYSTEM_ROOT");

	if (root)
		return sq_path_suffix(root, places[which]);
#endif
	return sq_str_dup(sq_str(places[which]));
}

bool
sq_system_is_meant(const char *option)
{
	SQ_CLEANUP(sq_freep) char *config = sq_system_path(SQ_SYSTEM_CONFIG);
	SQ_CLEANUP(sq_freep) char *socket = sq_system_path(SQ_SYSTEM_SUBMIT);

	return !option && !environment("SENDQ_CONFIG") && config && socket && (access(config, F_OK) == 0 || access(socket, F_OK) == 0);
}

/* ---- one value ---- */

struct load {
	const char *path;
	const char *route;    /* being read, or NULL */
};

static enum sq_err
bad(const struct load *l, int line, struct sq_error *err, const char *fmt, ...) SQ_PRINTF(4, 5);

static enum sq_err
bad(const struct load *l, int line, struct sq_error *err, const char *fmt, ...)
{
	char what[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (l->route)
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: %s in route '%s'", l->path, line, what, l->route);
	return sq_error_set(err, SQ_EINVAL, "'%s': line %d: %s", l->path, line, what);
}

static enum sq_err
need_string(const struct load *l, config_setting_t *s, const char **out, struct sq_error *err)
{
	const char *v = config_setting_get_string(s);

	if (!v)
		return bad(l, (int)config_setting_source_line(s), err, "'%s' must be a string in quotes", config_setting_name(s));
	if (!*v)
		return bad(l, (int)config_setting_source_line(s), err, "'%s' is empty", config_setting_name(s));
	for (const char *p = v; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return bad(l, (int)config_setting_source_line(s), err, "control character in '%s'", config_setting_name(s));
	*out = v;
	return SQ_OK;
}

static enum sq_err
store_string(char **to, const char *v, struct sq_error *err)
{
	free(*to);
	*to = sq_str_dup(sq_str(v));
	return *to ? SQ_OK : no_memory(err);
}

static enum sq_err
set_path(const struct load *l, config_setting_t *s, char **to, struct sq_error *err)
{
	const char *v = NULL;
	enum sq_err e = need_string(l, s, &v, err);

	if (e != SQ_OK)
		return e;
	if (v[0] == '~' && v[1] == '/') {
		SQ_CLEANUP(sq_freep) char *home = sq_home_dir();

		if (!home)
			return bad(l, (int)config_setting_source_line(s), err, "'%s' begins with ~ but there is no home directory", config_setting_name(s));
		free(*to);
		*to = sq_path_suffix(home, v + 1);
		return *to ? SQ_OK : no_memory(err);
	}
	if (v[0] != '/')
		return bad(l, (int)config_setting_source_line(s), err, "'%s' must be an absolute path", config_setting_name(s));
	return store_string(to, v, err);
}

/* Durations, sizes, days and integers, in the unit of the member. */
static enum sq_err
number_of(const struct load *l, config_setting_t *s, const struct sq_setting *t, int64_t *out, struct sq_error *err)
{
	int line = (int)config_setting_source_line(s), type = config_setting_type(s);
	int64_t v, scale = t->type == SQ_SETTING_DURATION ? 1000 : t->type == SQ_SETTING_DAYS ? INT64_C(86400000) : 1;

	if (type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64) {
		v = config_setting_get_int64(s);
		if (v < 0 || v > INT64_MAX / scale)
			return bad(l, line, err, "'%s' is out of range", t->name);
		v *= scale;
	} else if (type == CONFIG_TYPE_STRING && t->type == SQ_SETTING_DURATION) {
		if ((v = sq_parse_duration_ms(config_setting_get_string(s))) < 0)
			return bad(l, line, err, "'%s' is not a duration like \"10m\" or \"1h30m\" in '%s'", config_setting_get_string(s), t->name);
	} else if (type == CONFIG_TYPE_STRING && t->type == SQ_SETTING_SIZE) {
		if ((v = sq_parse_size(config_setting_get_string(s))) < 0)
			return bad(l, line, err, "'%s' is not a size like \"25M\" in '%s'", config_setting_get_string(s), t->name);
	} else {
		return bad(l, line, err, "'%s' must be a number%s", t->name,
			t->type == SQ_SETTING_DURATION ? " of seconds, or a string like \"10m\"" : t->type == SQ_SETTING_SIZE ? " of octets, or a string like \"25M\"" : "");
	}
	if (v < t->min || (t->max > 0 && v > t->max)) {
		char range[80];

		sq_setting_range(t, range);
		return bad(l, line, err, "'%s' is out of range (%s)", t->name, range);
	}
	*out = v;
	return SQ_OK;
}

static enum sq_err
word_of(const struct load *l, config_setting_t *s, const struct sq_setting *t, int *out, struct sq_error *err)
{
	const char *v = NULL;
	enum sq_err e = need_string(l, s, &v, err);
	char all[128] = "";

	if (e != SQ_OK)
		return e;
	for (int i = 0; t->words[i]; i++) {
		if (strcmp(t->words[i], v) == 0) {
			*out = i;
			return SQ_OK;
		}
		size_t n = strlen(all);
		snprintf(all + n, sizeof(all) - n, "%s\"%s\"", i ? ", " : "", t->words[i]);
	}
	return bad(l, (int)config_setting_source_line(s), err, "'%s' is \"%s\" but must be one of %s", t->name, v, all);
}

static void
free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

static enum sq_err
set_list(const struct load *l, config_setting_t *s, char ***to, struct sq_error *err)
{
	bool one = config_setting_type(s) == CONFIG_TYPE_STRING;
	int n = one ? 1 : config_setting_length(s);
	char **list;
	enum sq_err e = SQ_OK;

	if (!one && config_setting_type(s) != CONFIG_TYPE_LIST && config_setting_type(s) != CONFIG_TYPE_ARRAY)
		return bad(l, (int)config_setting_source_line(s), err, "'%s' must be a string or a list of strings", config_setting_name(s));
	if (!(list = calloc((size_t)n + 1, sizeof(*list))))
		return no_memory(err);
	for (int i = 0; i < n && e == SQ_OK; i++) {
		const char *v = NULL;
		config_setting_t *item = one ? s : config_setting_get_elem(s, (unsigned)i);

		if (!config_setting_get_string(item) || !*config_setting_get_string(item))
			e = bad(l, (int)config_setting_source_line(s), err, "'%s' must hold strings only", config_setting_name(s));
		else if (!(list[i] = sq_str_dup(sq_str(v = config_setting_get_string(item)))))
			e = no_memory(err);
	}
	if (e != SQ_OK) {
		free_list(list);
		return e;
	}
	free_list(*to);
	*to = list;
	return SQ_OK;
}

/* A name as a file of systemd's: nothing that leads out of its folder. */
static bool
credential_ok(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n > 0 && n <= SQ_CREDENTIAL_MAX && s[n] == '\0' && s[0] != '.';
}

static enum sq_err
set_secret(const struct load *l, config_setting_t *s, const struct sq_setting *t, struct sq_route *r, struct sq_error *err)
{
	int line = (int)config_setting_source_line(s);
	const char *v = NULL;
	enum sq_err e;

	if (r->secret_kind != SQ_SECRET_NONE)
		return bad(l, line, err, "'%s' is a second secret", t->name);
	if (t->min == SQ_SECRET_FILE) {
		if ((e = set_path(l, s, &r->secret, err)) != SQ_OK)
			return e;
	} else if ((e = need_string(l, s, &v, err)) != SQ_OK) {
		return e;
	} else if (t->min == SQ_SECRET_CREDENTIAL && !credential_ok(v)) {
		return bad(l, line, err, "'%s' may hold letters, digits, '.', '_' and '-', at most %d, no '.' in front", t->name, SQ_CREDENTIAL_MAX);
	} else if ((e = store_string(&r->secret, v, err)) != SQ_OK) {
		return e;
	}
	r->secret_kind = (enum sq_secret_kind)t->min;
	return SQ_OK;
}

/* Read one setting into its member; `base` is the configuration or the route. */
static enum sq_err
set_member(const struct load *l, config_setting_t *s, const struct sq_setting *t, void *base, struct sq_error *err)
{
	void *member = (char *)base + t->offset;
	const char *text = NULL;
	int64_t number = 0;
	int word = 0;
	enum sq_err e = SQ_OK;

	switch (t->type) {
	case SQ_SETTING_STRING:
		if (t->words)
			e = word_of(l, s, t, &word, err);
		if (e == SQ_OK && (e = need_string(l, s, &text, err)) == SQ_OK)
			e = store_string(member, text, err);
		return e;
	case SQ_SETTING_PATH:
		return set_path(l, s, member, err);
	case SQ_SETTING_BOOL:
		if (config_setting_type(s) != CONFIG_TYPE_BOOL)
			return bad(l, (int)config_setting_source_line(s), err, "'%s' must be true or false", t->name);
		*(bool *)member = config_setting_get_bool(s);
		return SQ_OK;
	case SQ_SETTING_INT:
		if ((e = number_of(l, s, t, &number, err)) == SQ_OK)
			*(int *)member = (int)number;
		return e;
	case SQ_SETTING_DURATION:
	case SQ_SETTING_DAYS:
	case SQ_SETTING_SIZE:
		if ((e = number_of(l, s, t, &number, err)) == SQ_OK)
			*(int64_t *)member = number;
		return e;
	case SQ_SETTING_WORD:
		if ((e = word_of(l, s, t, &word, err)) != SQ_OK)
			return e;
		if (t->offset == offsetof(struct sq_route, eightbit_send))
			*(bool *)member = word == 1;
		else
			*(int *)member = word; /* every such enum counts its words from 0 */
		return SQ_OK;
	case SQ_SETTING_LIST:
		return set_list(l, s, member, err);
	case SQ_SETTING_SECRET:
		return set_secret(l, s, t, base, err);
	case SQ_SETTING_ROUTES:
		return SQ_OK; /* read by its own loop */
	}
	return SQ_OK;
}

static void
set_defaults(const struct sq_setting *table, size_t n, void *base)
{
	for (size_t i = 0; i < n; i++) {
		void *member = (char *)base + table[i].offset;

		if (table[i].type == SQ_SETTING_BOOL)
			*(bool *)member = table[i].fallback != 0;
		else if (table[i].type == SQ_SETTING_INT)
			*(int *)member = (int)table[i].fallback;
		else if (table[i].type == SQ_SETTING_DURATION || table[i].type == SQ_SETTING_DAYS || table[i].type == SQ_SETTING_SIZE)
			*(int64_t *)member = table[i].fallback;
	}
}

static enum sq_err
unknown(const struct load *l, config_setting_t *s, const struct sq_setting *table, size_t n, struct sq_error *err)
{
	const char *names[64] = { NULL }, *near;

	for (size_t i = 0; i < n && i < SQ_LEN(names) - 1; i++)
		names[i] = table[i].name;
	near = sq_nearest_name(config_setting_name(s), names);
	if (l->route)
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: unknown setting '%s' in route '%s'%s%s%s", l->path,
			(int)config_setting_source_line(s), config_setting_name(s), l->route, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
	return sq_error_set(err, SQ_EINVAL, "'%s': line %d: unknown setting '%s'%s%s%s", l->path,
		(int)config_setting_source_line(s), config_setting_name(s), near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static enum sq_err
read_group(const struct load *l, config_setting_t *group, const struct sq_setting *table, size_t n, void *base, struct sq_error *err)
{
	for (int i = 0; i < config_setting_length(group); i++) {
		config_setting_t *s = config_setting_get_elem(group, (unsigned)i);
		size_t k = 0;
		enum sq_err e;

		while (k < n && strcmp(table[k].name, config_setting_name(s)) != 0)
			k++;
		e = k < n ? set_member(l, s, &table[k], base, err) : unknown(l, s, table, n, err);
		if (e != SQ_OK)
			return e;
	}
	return SQ_OK;
}

/* ---- routes ---- */

static enum sq_err
read_routes(struct load *l, config_setting_t *root, struct sq_config *cfg, struct sq_error *err)
{
	config_setting_t *list = config_setting_get_member(root, "routes");
	int n = list ? config_setting_length(list) : 0;

	if (list && config_setting_type(list) != CONFIG_TYPE_LIST)
		return bad(l, (int)config_setting_source_line(list), err, "'routes' must be a list of groups: " SHORTEST);
	if (n == 0)
		return sq_error_set(err, SQ_EINVAL, "'%s' names no route; the shortest configuration that works: " SHORTEST, l->path);
	if (n > ROUTES_MAX)
		return bad(l, (int)config_setting_source_line(list), err, "more than %d routes", ROUTES_MAX);
	if (!(cfg->routes = calloc((size_t)n, sizeof(*cfg->routes))))
		return no_memory(err);
	for (int i = 0; i < n; i++) {
		config_setting_t *group = config_setting_get_elem(list, (unsigned)i);
		struct sq_route *r = &cfg->routes[cfg->n_routes++];
		const char *name = NULL;
		enum sq_err e;

		r->line = (int)config_setting_source_line(group);
		if (config_setting_type(group) != CONFIG_TYPE_GROUP)
			return bad(l, r->line, err, "a route must be a group in braces");
		set_defaults(sq_route_settings, sq_n_route_settings, r);
		l->route = config_setting_lookup_string(group, "name", &name) ? name : "?";
		e = read_group(l, group, sq_route_settings, sq_n_route_settings, r, err);
		if (e == SQ_OK)
			e = sq_route_check(l->path, r, err);
		l->route = NULL;
		if (e != SQ_OK)
			return e;
		for (size_t k = 0; k + 1 < cfg->n_routes; k++)
			if (strcmp(cfg->routes[k].name, r->name) == 0)
				return bad(l, r->line, err, "a second route is named '%s'", r->name);
	}
	for (size_t i = 0; i < cfg->n_routes; i++)
		if (cfg->routes[i].fallback && (!sq_config_route(cfg, cfg->routes[i].fallback) || strcmp(cfg->routes[i].fallback, cfg->routes[i].name) == 0))
			return sq_error_set(err, SQ_EINVAL, "'%s': line %d: the fallback '%s' of route '%s' is not another route",
				l->path, cfg->routes[i].line, cfg->routes[i].fallback, cfg->routes[i].name);
	return SQ_OK;
}

/* ---- the file ---- */

static enum sq_err
check_secrets_private(const struct sq_config *cfg, const struct stat *st, struct sq_error *err)
{
	for (size_t i = 0; i < cfg->n_routes; i++) {
		const struct sq_route *r = &cfg->routes[i];
		struct stat file;

		/* In system mode the file may be root's, and readable by the group that the daemon runs as. */
		bool ours = cfg->system && st->st_uid == 0 && st->st_gid == getegid();

		if (r->secret_kind == SQ_SECRET_LITERAL && (st->st_mode & (ours ? 037 : 077)))
			return sq_error_set(err, SQ_EPERM, "'%s' holds the password of route '%s' and others may read it: chmod 600 '%s'",
				cfg->path, r->name, cfg->path);
		if (r->secret_kind != SQ_SECRET_FILE || stat(r->secret, &file) < 0)
			continue; /* a file that is not there is the daemon's to report, when it needs it */
		if (file.st_mode & 077)
			return sq_error_set(err, SQ_EPERM, "'%s' holds the password of route '%s' and others may read it: chmod 600 '%s'",
				r->secret, r->name, r->secret);
		/* Root looks at the machine's configuration: the file is the daemon's user's, who judges for himself. */
		if (file.st_uid != geteuid() && file.st_uid != 0 && !(cfg->system && geteuid() == 0))
			return sq_error_set(err, SQ_EPERM, "'%s' holds the password of route '%s' and belongs to another user", r->secret, r->name);
	}
	return SQ_OK;
}

/* Read the text: owner and mode are those of the descriptor that is read, not of a name. */
static enum sq_err
read_text(const char *path, struct sq_buf *text, struct stat *st, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	enum sq_err e;

	if (fd < 0 || fstat(fd, st) < 0)
		return sq_error_errno(err, errno == ENOENT ? SQ_ENOENT : errno == EACCES ? SQ_EPERM : SQ_EIO, "cannot open the configuration '%s'", path);
	if (!S_ISREG(st->st_mode))
		return sq_error_set(err, SQ_EINVAL, "the configuration '%s' is not a regular file", path);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return sq_error_set(err, SQ_EPERM, "the configuration '%s' belongs to uid %u: it must be yours or root's, for it names commands to run",
			path, (unsigned)st->st_uid);
	if (st->st_mode & 022)
		return sq_error_set(err, SQ_EPERM, "others may write the configuration '%s': chmod go-w '%s'", path, path);
	if ((e = sq_buf_read_fd(text, fd, err)) != SQ_OK)
		return sq_error_wrap(err, e, "the configuration '%s'", path);
	if (text->n > 0 && memchr(text->p, 0, text->n))
		return sq_error_set(err, SQ_EINVAL, "the configuration '%s' holds a NUL octet", path);
	return SQ_OK;
}

/* An included file would escape the checks of owner and mode. */
static enum sq_err
refuse_includes(const char *path, const char *text, struct sq_error *err)
{
	int line = 1;

	for (const char *p = text; p && *p; line++) {
		p += strspn(p, " \t");
		if (strncmp(p, "@include", 8) == 0)
			return sq_error_set(err, SQ_EINVAL, "'%s': line %d: @include is not supported: write the settings into this file", path, line);
		p = strchr(p, '\n');
		p = p ? p + 1 : NULL;
	}
	return SQ_OK;
}

static enum sq_err
fill_paths(struct sq_config *cfg, struct sq_error *err)
{
	if (cfg->system && !cfg->queue)
		cfg->queue = sq_system_path(SQ_SYSTEM_QUEUE);
	if (cfg->system && !cfg->notices)
		cfg->notices = sq_system_path(SQ_SYSTEM_NOTICES);
	if (!cfg->queue)
		cfg->queue = user_path("XDG_STATE_HOME", ".local/state", "queue.db");
	if (!cfg->notices)
		cfg->notices = user_path("XDG_STATE_HOME", ".local/state", "notices");
	if (!cfg->queue || !cfg->notices)
		return sq_error_set(err, SQ_EINVAL, "'%s': this user has no home directory: set `queue` and `notices`", cfg->path);
	if (!cfg->log && !(cfg->log = sq_str_dup(SQ_STR("info"))))
		return no_memory(err);
	if (!cfg->notify && !(cfg->notify = sq_str_dup(SQ_STR("desktop"))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (!cfg->report_to && !(cfg->report_to = sq_str_dup(SQ_STR("local"))))
		return no_memory(err);
	return sq_oauth_files(cfg, err);
}

static enum sq_err
parse(config_t *lib, struct sq_config *cfg, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf text = SQ_BUF_INIT(FILE_MAX);
	struct load l = { .path = cfg->path };
	config_setting_t *root;
	struct stat st;
	enum sq_err e;

	if ((e = read_text(cfg->path, &text, &st, err)) != SQ_OK || (e = refuse_includes(cfg->path, text.p, err)) != SQ_OK)
		return e;
	if (!config_read_string(lib, text.p ? text.p : ""))
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: %s", cfg->path, config_error_line(lib), config_error_text(lib));
	root = config_root_setting(lib);
	set_defaults(sq_global_settings, sq_n_global_settings, cfg);
	if ((e = read_group(&l, root, sq_global_settings, sq_n_global_settings, cfg, err)) != SQ_OK ||
	    (e = read_routes(&l, root, cfg, err)) != SQ_OK ||
	    (e = fill_paths(cfg, err)) != SQ_OK)
		return e;
	return check_secrets_private(cfg, &st, err);
}

enum sq_err
sq_config_load(const char *path, struct sq_config **out, struct sq_error *err)
{
	SQ_CLEANUP(sq_config_freep) struct sq_config *cfg = calloc(1, sizeof(*cfg));
	SQ_CLEANUP(sq_freep) char *system = sq_system_path(SQ_SYSTEM_CONFIG);
	config_t lib;
	enum sq_err e;

	if (!cfg || !system || !(cfg->path = sq_str_dup(sq_str(path))))
		return no_memory(err);
	cfg->system = strcmp(path, system) == 0;
	config_init(&lib);
	e = parse(&lib, cfg, err);
	config_destroy(&lib);
	if (e != SQ_OK)
		return e;
	*out = cfg;
	cfg = NULL;
	return SQ_OK;
}

static void
free_strings(const struct sq_setting *table, size_t n, void *base)
{
	for (size_t i = 0; i < n; i++) {
		void *member = (char *)base + table[i].offset;

		if (table[i].type == SQ_SETTING_STRING || table[i].type == SQ_SETTING_PATH)
			sq_freep(member);
		else if (table[i].type == SQ_SETTING_LIST) {
			free_list(*(char ***)member);
			*(char ***)member = NULL;
		}
	}
}

void
sq_config_free(struct sq_config *cfg)
{
	if (!cfg)
		return;
	for (size_t i = 0; i < cfg->n_routes; i++) {
		struct sq_route *r = &cfg->routes[i];

		free_strings(sq_route_settings, sq_n_route_settings, r);
		if (r->secret)
			sq_wipe(r->secret, strlen(r->secret));
		free(r->secret);
		free(r->host);
	}
	free(cfg->routes);
	free_strings(sq_global_settings, sq_n_global_settings, cfg);
	free(cfg->path);
	free(cfg);
}

void
sq_config_freep(struct sq_config **cfg)
{
	int saved = errno;

	sq_config_free(*cfg);
	*cfg = NULL;
	errno = saved;
}
