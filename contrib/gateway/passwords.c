/*
 * The password file: `user:hash` lines, hashes as crypt(3) makes them. Owns
 * no copy of any password.
 */
#include "gateway.h"

#include <crypt.h>
#include <fcntl.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20 };

enum sq_err
gw_passwords_load(const char *path, struct sq_buf *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum sq_err e;

	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot open '%s'", path);
	*out = (struct sq_buf)SQ_BUF_INIT(FILE_MAX);
	if ((e = sq_buf_read_fd(out, fd, err)) != SQ_OK)
		return sq_error_wrap(err, e, "cannot read '%s'", path);
	return SQ_OK;
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

bool
gw_passwords_check(const struct sq_buf *passwords, const char *user, const char *password)
{
	struct crypt_data *data = calloc(1, sizeof(*data));
	struct sq_str hash = find(passwords, user);
	bool known = hash.n > 0, good = false;
	char *setting = sq_str_dup(known ? hash : any(passwords));

	if (data && setting) {
		const char *made = crypt_r(password, setting, data);

		/* "*0" and its like are crypt's failures, never a hash. */
		if (made && made[0] != '*' && strlen(made) == strlen(setting)) {
			unsigned char differ = 0;

			for (size_t i = 0; made[i]; i++)
				differ |= (unsigned char)(made[i] ^ setting[i]);
			good = known && differ == 0;
		}
	}
	if (data)
		sq_wipe(data, sizeof(*data));
	free(data);
	free(setting);
	return good;
}
