/*
 * AUTH PLAIN and LOGIN against the password file: `user:hash` lines, hashes as
 * crypt(3) makes them. Owns no copy of any password. The file is read at each
 * login, so that a change counts at once.
 */
#include "gateway.h"

#include <crypt.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX_BYTES = 1 << 20, PLAIN, LOGIN_USER, LOGIN_PASSWORD };

int
gw_base64(const char *s, char *out, size_t room)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned bits = 0, have = 0;
	size_t n = 0;

	for (; *s && *s != '='; s++) {
		const char *d = strchr(digits, *s);

		if (!d || n + 1 >= room)
			return -1;
		bits = (bits << 6 | (unsigned)(d - digits)) & 0xffffff;
		if ((have += 6) >= 8)
			out[n++] = (char)(bits >> (have -= 8) & 0xff);
	}
	out[n] = 0;
	return strspn(s, "=") == strlen(s) ? (int)n : -1;
}

static enum sq_err
load(const char *path, struct sq_buf *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	enum sq_err e;

	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open '%s'", path);
	if (fstat(fd, &st) != 0 || st.st_mode & 07)
		return sq_error_set(err, SQ_EPERM, "'%s' can be read by everybody: chmod o= it", path);
	if ((e = sq_buf_read_fd(out, fd, err)) != SQ_OK)
		return sq_error_wrap(err, e, "cannot read '%s'", path);
	return SQ_OK;
}

enum sq_err
gw_passwords_check(const char *path, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf text = SQ_BUF_INIT(FILE_MAX_BYTES);

	return load(path, &text, err);
}

/* The hash that belongs to `user`, or empty. */
static struct sq_str
find(const struct sq_buf *passwords, const char *user)
{
	const char *p = passwords->p ? passwords->p : "";
	size_t n = strlen(user);

	while (*p) {
		size_t line = strcspn(p, "\r\n");

		if (*p != '#' && line > n && p[n] == ':' && memcmp(p, user, n) == 0)
			return (struct sq_str){ p + n + 1, line - n - 1 };
		p += line + strspn(p + line, "\r\n");
	}
	return (struct sq_str){ NULL, 0 };
}

/* Some hash of the file, so that unknown users cost what known ones do. */
static struct sq_str
any(const struct sq_buf *passwords)
{
	const char *colon = passwords->p ? strchr(passwords->p, ':') : NULL;

	return colon ? (struct sq_str){ colon + 1, strcspn(colon + 1, "\r\n") } : (struct sq_str){ NULL, 0 };
}

static bool
password_good(const char *path, const char *user, const char *password)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf passwords = SQ_BUF_INIT(FILE_MAX_BYTES);
	struct crypt_data *data = calloc(1, sizeof(*data));
	struct sq_str hash = { NULL, 0 };
	bool good = false;
	char *setting = NULL;

	if (load(path, &passwords, NULL) == SQ_OK) {
		hash = find(&passwords, user);
		setting = sq_str_dup(hash.n > 0 ? hash : any(&passwords));
	}
	if (data && setting) {
		const char *made = crypt_rn(password, setting, data, sizeof(*data));

		if (made && strlen(made) == strlen(setting)) {
			unsigned char differ = 0;

			for (size_t i = 0; made[i]; i++)
				differ |= (unsigned char)(made[i] ^ setting[i]);
			good = hash.n > 0 && differ == 0;
		}
	}
	if (data)
		sq_wipe(data, sizeof(*data));
	free(data);
	free(setting);
	return good;
}

static enum gw_step
login(struct gw_auth *a, const char *user, const char *password, char identity[GW_NAME_MAX + 1], struct gw_reply *reply)
{
	size_t n = strlen(user);

	if (n == 0 || n > GW_NAME_MAX || strpbrk(user, ":\r\n#") || !password_good(a->passwords, user, password)) {
		gw_reply_set(reply, "535 5.7.8 user or password is wrong");
		return GW_NO;
	}
	memcpy(identity, user, n + 1);
	gw_reply_set(reply, "235 2.7.0 welcome");
	return GW_YES;
}

/* NUL user NUL password; who acts for somebody else is nobody here. */
static enum gw_step
plain(struct gw_auth *a, const char *words, int n, char identity[GW_NAME_MAX + 1], struct gw_reply *reply)
{
	const char *end = words + n, *user = memchr(words, 0, (size_t)n);
	const char *password = user ? memchr(user + 1, 0, (size_t)(end - user - 1)) : NULL;

	if (!password || memchr(password + 1, 0, (size_t)(end - password - 1)) || (words[0] && strcmp(words, user + 1) != 0))
		return login(a, "", "", identity, reply);
	return login(a, user + 1, password + 1, identity, reply);
}

enum gw_step
gw_auth_local(struct gw_auth *a, const char *mech, const char *line, char identity[GW_NAME_MAX + 1],
    struct gw_reply *reply)
{
	char words[1024];
	enum gw_step step = GW_MORE;
	int n = line ? gw_base64(line, words, sizeof(words)) : 0;

	if (mech)
		a->step = strcasecmp(mech, "LOGIN") == 0 ? LOGIN_USER : PLAIN;
	if (!line) {
		gw_reply_set(reply, a->step == LOGIN_USER ? "334 VXNlcm5hbWU6" : "334 ");
	} else if (n < 0 || strcmp(line, "*") == 0) {
		gw_reply_set(reply, "501 5.5.2 not base64, or given up");
		step = GW_NO;
	} else if (a->step == PLAIN) {
		step = plain(a, words, n, identity, reply);
	} else if (a->step == LOGIN_USER) {
		a->step = LOGIN_PASSWORD;
		memcpy(a->user, n <= GW_NAME_MAX ? words : "", n <= GW_NAME_MAX ? (size_t)n + 1 : 1);
		gw_reply_set(reply, "334 UGFzc3dvcmQ6");
	} else {
		step = login(a, a->user, words, identity, reply);
	}
	sq_wipe(words, sizeof(words));
	return step;
}
