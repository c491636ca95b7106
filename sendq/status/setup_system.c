/*
 * The machine's own configuration (system mode): the password as a credential
 * of systemd, files that the daemon's user may read, the services.
 */
#include <errno.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>

#include "setup.h"

enum { NAMES = 100 };

bool
setup_has_creds(void)
{
	return geteuid() == 0 && system("command -v systemd-creds >/dev/null 2>&1") == 0;
}

int
setup_system_check(struct setup *s)
{
	SQ_CLEANUP(sq_freep) char *machine = sq_system_path(SQ_SYSTEM_CONFIG);

	s->system = machine && strcmp(s->config, machine) == 0;
	if (s->store == STORE_CREDENTIAL && !s->system)
		return cli_usage("--store credential is for the machine's configuration (sendq --config %s setup ADDRESS): services of users get no "
			"encrypted credentials before systemd 256; a user's places are file and keyring", machine ? machine : "");
	if (s->system && s->test)
		return cli_usage("no --test with the machine's configuration: send a message by sendmail when its services run");
	if (s->store == STORE_CREDENTIAL && !setup_has_creds()) {
		fprintf(stderr, geteuid() == 0 ? "sendq: there is no systemd-creds(1), which systemd 250 brought: say --store file\n"
			: "sendq: only root can keep a credential for the service\n");
		return geteuid() == 0 ? EX_UNAVAILABLE : EX_NOPERM;
	}
	return EX_OK;
}

/* ---- files ---- */

/* The folder of the queue is the daemon's. False: it is not there yet. */
static bool
daemon_is(struct stat *st)
{
	SQ_CLEANUP(sq_freep) char *queue = sq_system_path(SQ_SYSTEM_QUEUE);
	char *slash = queue ? strrchr(queue, '/') : NULL;

	if (!slash)
		return false;
	*slash = '\0';
	return stat(queue, st) == 0 && st->st_uid != 0;
}

void
setup_share(struct setup *s, const char *path, bool whole)
{
	SQ_CLEANUP(sq_freep) char *folder = sq_str_dup((struct sq_str){ path, (size_t)(strrchr(path, '/') - path) });
	struct stat daemon, st;

	if (!s->system)
		return;
	/* Made just now, for root alone. */
	if (folder && stat(folder, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 07777) == 0700)
		(void)!chmod(folder, 0755);
	if (!daemon_is(&daemon))
		say(s, "sendqd's user is not known yet: give it the file: chown %s_sendq %s; chmod %s %s\n", whole ? "" : "root:", path, whole ? "600" : "640", path);
	else if (chown(path, whole ? daemon.st_uid : 0, daemon.st_gid) < 0 || chmod(path, whole ? 0600 : 0640) < 0)
		say(s, "%s cannot be given to sendqd's user: %s\n", path, strerror(errno));
}

/* ---- the credential ---- */

/* The secret goes in on standard input, and comes out encrypted with this machine's key. */
static enum sq_err
encrypt(const char *name, char *path, struct sq_str secret, struct sq_error *err)
{
	char option[SQ_CREDENTIAL_MAX + 16];
	char *argv[] = { (char *)(uintptr_t)"systemd-creds", (char *)(uintptr_t)"encrypt", option, (char *)(uintptr_t)"-", path, NULL };
	mode_t before;
	int status;

	snprintf(option, sizeof(option), "--name=%s", name);
	before = umask(077);
	status = setup_run(argv, secret);
	umask(before);
	if (status != 0)
		return sq_error_set(err, SQ_EIO, "systemd-creds did not encrypt the password");
	return sq_fsync_parent(path, err);
}

static enum sq_err
drop_in(const char *name, const char *credential, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *folder = sq_system_path(SQ_SYSTEM_DROP_INS);
	SQ_CLEANUP(sq_buf_fini) struct sq_buf path = SQ_BUF_INIT(4096), text = SQ_BUF_INIT(8192);
	enum sq_err e;

	if (!folder)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	sq_buf_addf(&path, "%s/%s.conf", folder, name);
	sq_buf_addf(&text, "# Written by `sendq setup`.\n[Service]\nLoadCredentialEncrypted=%s:%s\n", name, credential);
	if (path.failed || text.failed)
		return sq_error_set(err, SQ_ELIMIT, "the path is too long");
	if ((e = sq_mkdirs(folder, err)) != SQ_OK || (e = sq_write_private(path.p, (struct sq_str){ text.p, text.n }, err)) != SQ_OK)
		return e;
	/* Nothing in it is secret, and people look at units. */
	if (chmod(folder, 0755) < 0 || chmod(path.p, 0644) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot set the mode of '%s'", path.p);
	return SQ_OK;
}

enum sq_err
setup_keep_credential(struct setup *s, char name[SQ_CREDENTIAL_MAX + 1], struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *folder = sq_system_path(SQ_SYSTEM_CREDENTIALS);
	SQ_CLEANUP(sq_buf_fini) struct sq_buf path = SQ_BUF_INIT(4096);
	enum sq_err e;

	if (!folder)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = sq_mkdirs(folder, err)) != SQ_OK)
		return e;
	for (int i = 1; i < NAMES && (i == 1 || access(path.p, F_OK) == 0); i++) {
		snprintf(name, SQ_CREDENTIAL_MAX + 1, i == 1 ? "sendq-%s" : "sendq-%s-%d", s->route, i);
		sq_buf_clear(&path);
		sq_buf_addf(&path, "%s/%s", folder, name);
		if (path.failed)
			return sq_error_set(err, SQ_ELIMIT, "the path is too long");
	}
	if ((e = encrypt(name, path.p, (struct sq_str){ s->secret.p, s->secret.n }, err)) != SQ_OK || (e = drop_in(name, path.p, err)) != SQ_OK)
		return e;
	say(s, "The password is kept as the credential %s, encrypted for this machine: %s\n", name, path.p);
	return SQ_OK;
}

/* ---- the services ---- */

int
setup_system_after(struct setup *s)
{
	static const char *const steps[][4] = { { "systemctl", "daemon-reload" }, { "systemctl", "enable", "sendqd.service", "sendq-submit.socket" },
		{ "systemctl", "restart", "sendqd.service", "sendq-submit.socket" } };

	if (!s->service && !(!s->no_service && s->terminal && ask_yes(s, true, "Start the machine's services with it?"))) {
		say(s, "Then: systemctl daemon-reload; systemctl enable sendqd.service sendq-submit.socket; systemctl restart sendqd.service sendq-submit.socket\n");
		return EX_OK;
	}
	for (size_t i = 0; i < SQ_LEN(steps); i++) {
		char *argv[5] = { NULL };

		for (size_t k = 0; k < SQ_LEN(steps[i]); k++)
			argv[k] = (char *)(uintptr_t)steps[i][k];
		if (setup_run(argv, (struct sq_str){ "", 0 }) != 0) {
			fprintf(stderr, "sendq: `systemctl %s` failed; the configuration is written\n", steps[i][1]);
			return EX_UNAVAILABLE;
		}
	}
	say(s, "The services run. Whoever has an account here sends by `sendmail`; `sendq` shows the state of things.\n");
	return EX_OK;
}
