/*
 * aliases(5): read whole, kept as lines, expanded when a name is asked for.
 * Owns the text; never writes, never runs or delivers anything.
 */
#include "aliases.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct alias {
	struct sq_str name, list;
	int line;
};

struct aliases {
	char *path;
	char *text;
	struct alias *v;
	size_t n, cap;
};

/* The way to where an expansion stands: for loops, and to show them. */
struct way {
	const struct way *from;
	struct sq_str name;
	int depth;
};

static bool
is_blank(char ch)
{
	return ch == ' ' || ch == '\t' || ch == '\r';
}

static struct sq_str
trim(struct sq_str s)
{
	while (s.n > 0 && is_blank(s.p[0]))
		s.p++, s.n--;
	while (s.n > 0 && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

static enum sq_err
read_file(const char *path, struct sq_buf *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	enum sq_err e;

	if (fd < 0 || fstat(fd, &st) < 0)
		return sq_error_errno(err, errno == ENOENT ? SQ_ENOENT : errno == EACCES ? SQ_EPERM : SQ_EIO, "cannot open the aliases '%s'", path);
	if (!S_ISREG(st.st_mode))
		return sq_error_set(err, SQ_EINVAL, "the aliases '%s' are not a regular file", path);
	if (st.st_mode & 002)
		return sq_error_set(err, SQ_EPERM, "others may write the aliases '%s': chmod o-w '%s'", path, path);
	if ((e = sq_buf_read_fd(out, fd, err)) != SQ_OK)
		return sq_error_wrap(err, e, "the aliases '%s'", path);
	if (out->n > 0 && memchr(out->p, '\0', out->n))
		return sq_error_set(err, SQ_EINVAL, "the aliases '%s' hold a NUL octet", path);
	return SQ_OK;
}

static const struct alias *
find(const struct aliases *al, struct sq_str name)
{
	for (size_t i = 0; i < al->n; i++)
		if (sq_str_caseeq(al->v[i].name, name))
			return &al->v[i];
	return NULL;
}

/* The colon behind a name, which may stand in quotes. */
static size_t
colon_of(struct sq_str s)
{
	bool quoted = false;
	size_t i = 0;

	for (; i < s.n && (quoted || s.p[i] != ':'); i++) {
		if (s.p[i] == '\\' && i + 1 < s.n)
			i++;
		else if (s.p[i] == '"')
			quoted = !quoted;
	}
	return i;
}

static enum sq_err
add_entry(struct aliases *al, struct sq_str entry, int line, struct sq_error *err)
{
	size_t colon = colon_of(entry);
	struct alias a = { .line = line };

	if (colon == entry.n)
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: no colon behind the name", al->path, line);
	a.name = trim((struct sq_str){ entry.p, colon });
	a.list = trim((struct sq_str){ entry.p + colon + 1, entry.n - colon - 1 });
	if (a.name.n >= 2 && a.name.p[0] == '"' && a.name.p[a.name.n - 1] == '"')
		a.name = (struct sq_str){ a.name.p + 1, a.name.n - 2 };
	if (a.name.n == 0 || a.name.n > SQ_LOCAL_PART_MAX)
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: the name must have 1 to %d octets", al->path, line, SQ_LOCAL_PART_MAX);
	if (a.list.n == 0)
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: '%.*s' stands for nothing", al->path, line, (int)a.name.n, a.name.p);
	if (find(al, a.name))
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: a second '%.*s'", al->path, line, (int)a.name.n, a.name.p);
	if (al->n == ALIASES_MAX)
		return sq_error_set(err, SQ_ELIMIT, "'%s': line %d: more than %d aliases", al->path, line, ALIASES_MAX);
	if (al->n == al->cap) {
		size_t cap = al->cap ? al->cap * 2 : 16;
		struct alias *v = reallocarray(al->v, cap, sizeof(*v));

		if (!v)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		al->v = v;
		al->cap = cap;
	}
	al->v[al->n++] = a;
	return SQ_OK;
}

/* A line that begins with a blank continues the one before it; its line end becomes blanks. */
static size_t
entry_length(char *p, size_t n, int *lines)
{
	size_t end = 0;

	for (*lines = 1;; ++*lines) {
		char *lf = memchr(p + end, '\n', n - end);

		end = lf ? (size_t)(lf - p) + 1 : n;
		if (end == n || !is_blank(p[end]))
			return end;
		p[end - 1] = ' ';
	}
}

static enum sq_err
parse(struct aliases *al, size_t n, struct sq_error *err)
{
	int line = 1, lines;
	enum sq_err e;

	for (size_t at = 0, used; at < n; at += used, line += lines) {
		struct sq_str entry;
		char *p = al->text + at;

		if (*p == '#') { /* a comment has no continuation */
			char *lf = memchr(p, '\n', n - at);

			used = lf ? (size_t)(lf - p) + 1 : n - at;
			lines = 1;
			continue;
		}
		used = entry_length(p, n - at, &lines);
		entry = (struct sq_str){ p, used };
		if (used > 0 && p[used - 1] == '\n')
			entry.n--;
		entry = trim(entry);
		if (entry.n > 0 && entry.p[0] != '#' && (e = add_entry(al, entry, line, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

enum sq_err
aliases_load(const char *path, struct aliases **out, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(ALIASES_FILE_MAX);
	struct aliases *al;
	size_t n;
	enum sq_err e;

	if ((e = read_file(path, &text, err)) != SQ_OK)
		return e;
	n = text.n;
	if (!(al = calloc(1, sizeof(*al))) || !(al->path = sq_str_dup(sq_str(path))))
		e = sq_error_set(err, SQ_ENOMEM, "out of memory");
	else if ((e = sq_buf_take(&text, &al->text, err)) == SQ_OK)
		e = parse(al, n, err);
	if (e != SQ_OK) {
		aliases_free(al);
		return e;
	}
	*out = al;
	return SQ_OK;
}

void
aliases_free(struct aliases *al)
{
	if (!al)
		return;
	free(al->path);
	free(al->text);
	free(al->v);
	free(al);
}

size_t
aliases_count(const struct aliases *al)
{
	return al->n;
}

size_t
aliases_longest(const struct aliases *al)
{
	size_t most = 0;

	for (size_t i = 0; i < al->n; i++)
		most = al->v[i].list.n > most ? al->v[i].list.n : most;
	return most;
}

size_t
aliases_octets(const struct aliases *al)
{
	size_t sum = 0;

	for (size_t i = 0; i < al->n; i++)
		sum += al->v[i].list.n;
	return sum;
}

/* ---- expanding ---- */

static enum sq_err expand_list(const struct aliases *al, struct sq_str list, const char *file, int line, const struct way *way,
	struct sq_address_list *out, struct sq_error *err);

static enum sq_err
loop(const struct aliases *al, struct sq_str name, const struct way *way, struct sq_error *err)
{
	struct sq_buf b = SQ_BUF_INIT(300);
	enum sq_err e;

	for (const struct way *w = way; w; w = w->from) {
		struct sq_buf next = SQ_BUF_INIT(300);

		sq_buf_addf(&next, "%.*s -> %s", (int)w->name.n, w->name.p, b.p ? b.p : "");
		if (next.failed) {
			sq_buf_fini(&next);
			break;
		}
		sq_buf_fini(&b);
		b = next;
		if (sq_str_caseeq(w->name, name))
			break;
	}
	e = sq_error_set(err, SQ_EINVAL, "'%s': the aliases go round in a circle: %s%.*s", al->path, b.p ? b.p : "", (int)name.n, name.p);
	sq_buf_fini(&b);
	return e;
}

static enum sq_err
expand_alias(const struct aliases *al, const struct alias *a, const struct way *from, struct sq_address_list *out, struct sq_error *err)
{
	struct way here = { .from = from, .name = a->name, .depth = from ? from->depth + 1 : 1 };

	for (const struct way *w = from; w; w = w->from)
		if (sq_str_caseeq(w->name, a->name))
			return loop(al, a->name, from, err);
	if (here.depth > ALIASES_DEPTH_MAX)
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: aliases of aliases, more than %d deep", al->path, a->line, ALIASES_DEPTH_MAX);
	return expand_list(al, a->list, al->path, a->line, &here, out, err);
}

/* Lines of addresses and comments; a file that includes itself is a loop like any other. */
static enum sq_err
expand_include(const struct aliases *al, struct sq_str path, const struct way *from, struct sq_address_list *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *file = sq_str_dup(path);
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(ALIASES_FILE_MAX);
	struct way here = { .from = from, .name = path, .depth = from->depth + 1 };
	int line = 0;
	enum sq_err e;

	if (!file)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (file[0] != '/')
		return sq_error_set(err, SQ_EINVAL, "'%s': ':include:%s' is no absolute path", al->path, file);
	for (const struct way *w = from; w; w = w->from)
		if (sq_str_eq(w->name, path))
			return loop(al, path, from, err);
	if (here.depth > ALIASES_DEPTH_MAX)
		return sq_error_set(err, SQ_EINVAL, "'%s': ':include:%s' is more than %d deep", al->path, file, ALIASES_DEPTH_MAX);
	if ((e = read_file(file, &text, err)) != SQ_OK)
		return e == SQ_ENOENT ? sq_error_wrap(err, SQ_EINVAL, "'%s'", al->path) : e;
	for (char *p = text.p; p && *p;) {
		char *lf = strchr(p, '\n');
		struct sq_str one = trim((struct sq_str){ p, lf ? (size_t)(lf - p) : strlen(p) });

		line++;
		if (one.n > 0 && one.p[0] != '#' && (e = expand_list(al, one, file, line, &here, out, err)) != SQ_OK)
			return e;
		p = lf ? lf + 1 : NULL;
	}
	return SQ_OK;
}

static enum sq_err
add_address(const char *file, int line, struct sq_str item, struct sq_address_list *out, struct sq_error *err)
{
	enum sq_err e;

	if (out->n >= ALIASES_ADDRESSES_MAX)
		return sq_error_set(err, SQ_ELIMIT, "'%s': line %d: more than %d addresses", file, line, ALIASES_ADDRESSES_MAX);
	if ((e = sq_address_parse_list(item, out, err)) != SQ_OK)
		return sq_error_wrap(err, e, "'%s': line %d", file, line);
	return SQ_OK;
}

static enum sq_err
expand_item(const struct aliases *al, struct sq_str item, const char *file, int line, const struct way *way, struct sq_address_list *out, struct sq_error *err)
{
	struct sq_str plain = item;
	const struct alias *a;

	if (item.n >= 2 && item.p[0] == '"' && item.p[item.n - 1] == '"' && (item.p[1] == '|' || item.p[1] == '/' || item.p[1] == ':'))
		plain = (struct sq_str){ item.p + 1, item.n - 2 };
	if (plain.p[0] == '|')
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: '%.*s' would run a command, which sendq does not do", file, line, (int)(plain.n < 60 ? plain.n : 60), plain.p);
	if (plain.p[0] == '/')
		return sq_error_set(err, SQ_EINVAL, "'%s': line %d: '%.*s' is a file, into which sendq does not deliver", file, line, (int)(plain.n < 60 ? plain.n : 60), plain.p);
	if (sq_str_casestarts(plain, SQ_STR(":include:")))
		return expand_include(al, trim((struct sq_str){ plain.p + 9, plain.n - 9 }), way, out, err);
	if (item.p[0] == '\\') /* this name itself, whatever aliases there are */
		return add_address(file, line, (struct sq_str){ item.p + 1, item.n - 1 }, out, err);
	if ((a = find(al, item)) != NULL)
		return expand_alias(al, a, way, out, err);
	return add_address(file, line, item, out, err);
}

static enum sq_err
expand_list(const struct aliases *al, struct sq_str list, const char *file, int line, const struct way *way, struct sq_address_list *out, struct sq_error *err)
{
	bool quoted = false;
	size_t begin = 0;
	enum sq_err e;

	for (size_t i = 0; i <= list.n; i++) {
		if (i < list.n && list.p[i] == '\\' && quoted) {
			i++;
			continue;
		}
		if (i < list.n && list.p[i] == '"')
			quoted = !quoted;
		if (i < list.n && (quoted || list.p[i] != ','))
			continue;
		{
			struct sq_str item = trim((struct sq_str){ list.p + begin, i - begin });

			begin = i + 1;
			if (item.n > 0 && (e = expand_item(al, item, file, line, way, out, err)) != SQ_OK)
				return e;
		}
	}
	return SQ_OK;
}

enum sq_err
aliases_expand(const struct aliases *al, struct sq_str name, bool use_default, struct sq_address_list *out, bool *found, struct sq_error *err)
{
	const struct alias *a = find(al, name);

	if (!a && use_default)
		a = find(al, SQ_STR("default"));
	*found = a != NULL;
	return a ? expand_alias(al, a, NULL, out, err) : SQ_OK;
}

enum sq_err
aliases_check(const struct aliases *al, struct sq_error *err)
{
	for (size_t i = 0; i < al->n; i++) {
		struct sq_address_list l = { 0 };
		enum sq_err e = expand_alias(al, &al->v[i], NULL, &l, err);

		sq_address_list_fini(&l);
		if (e != SQ_OK)
			return e;
	}
	return SQ_OK;
}
