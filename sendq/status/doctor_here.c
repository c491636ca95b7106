/*
 * This machine: who may read what, how the queue is, whether a daemon runs
 * and of which version, what systemd was told, what the clock says.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include <sendq/io.h>

#include "doctor.h"

enum { CHECK_MS = 20000, LINE = 512 };

/* The first line that a command prints; "" where there is none. Five seconds at most. */
static int
first_line(const char *command, char out[LINE])
{
	char shell[1024];
	FILE *f;
	int status = -1;

	out[0] = '\0';
	snprintf(shell, sizeof(shell), "timeout 5 %s </dev/null 2>/dev/null", command);
	if (!(f = popen(shell, "r")))
		return -1;
	if (!fgets(out, LINE, f))
		out[0] = '\0';
	out[strcspn(out, "\n")] = '\0';
	status = pclose(f);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void
doctor_machine(struct doctor *d)
{
	struct utsname u = { 0 };
	char name[LINE], when[40];

	uname(&u);
	first_line("sh -c '. /etc/os-release && echo \"$PRETTY_NAME\"'", name);
	sq_format_date(d->c->now_ms, when);
	doctor_sayf(d, "report", VERDICT_OK, -1, NULL, "sendq %s, %s, %s %s %s, %s", SENDQ_VERSION, name[0] ? name : "unknown system", u.sysname, u.release, u.machine, when);
}

/* ---- files ---- */

static char *
folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash != path ? sq_str_dup((struct sq_str){ path, (size_t)(slash - path) }) : sq_str_dup(SQ_STR("/"));
}

/* Nobody else may write `path`. True: so it is. */
static bool
only_ours(struct doctor *d, const char *path)
{
	struct stat st;
	char mend[LINE];

	if (stat(path, &st) < 0)
		return true;
	if (st.st_uid != geteuid() && st.st_uid != 0) {
		doctor_sayf(d, "permissions", VERDICT_FAILED, -1, "make it yours", "'%s' belongs to uid %u", path, (unsigned)st.st_uid);
		return false;
	}
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX))) {
		snprintf(mend, sizeof(mend), "chmod go-w '%.400s'", path);
		doctor_sayf(d, "permissions", VERDICT_FAILED, -1, mend, "others may write '%s'", path);
		return false;
	}
	return true;
}

static bool
secret_file_ours(struct doctor *d, const char *path)
{
	struct stat st;
	char mend[LINE];

	if (stat(path, &st) < 0) {
		doctor_sayf(d, "permissions", VERDICT_FAILED, -1, "make the file, with mode 0600", "the secret file '%s': %s", path, strerror(errno));
		return false;
	}
	if (st.st_mode & 077) {
		snprintf(mend, sizeof(mend), "chmod 600 '%.400s'", path);
		doctor_sayf(d, "permissions", VERDICT_FAILED, -1, mend, "others may read the secret file '%s'", path);
		return false;
	}
	return only_ours(d, path);
}

void
doctor_files(struct doctor *d)
{
	const struct sq_config *cfg = d->c->cfg;
	SQ_CLEANUP(sq_freep) char *folder = folder_of(cfg->path);
	SQ_CLEANUP(sq_freep) char *notices = sq_path_suffix(cfg->notices, "/new");
	int failed = d->failed;

	only_ours(d, cfg->path);
	if (folder)
		only_ours(d, folder);
	for (size_t i = 0; i < cfg->n_routes; i++)
		if (cfg->routes[i].secret_kind == SQ_SECRET_FILE)
			secret_file_ours(d, cfg->routes[i].secret);
	for (size_t i = 0; i < cfg->n_routes; i++)
		if (cfg->routes[i].oauth_client_secret_file)
			secret_file_ours(d, cfg->routes[i].oauth_client_secret_file);
	if (notices && access(notices, F_OK) == 0 && access(notices, W_OK) < 0)
		doctor_sayf(d, "permissions", VERDICT_FAILED, -1, "make it yours, or set `notices`", "reports cannot be written to '%s'", cfg->notices);
	if (d->failed == failed)
		doctor_sayf(d, "permissions", VERDICT_OK, -1, NULL, "configuration and secrets are nobody else's to write or read");
}

/* ---- the queue ---- */

static bool
in_time(void *arg)
{
	return sq_boot_ms() < *(int64_t *)arg;
}

static int64_t
size_of(const char *path, const char *suffix)
{
	SQ_CLEANUP(sq_freep) char *p = sq_path_suffix(path, suffix);
	struct stat st;

	return p && stat(p, &st) == 0 ? (int64_t)st.st_size : 0;
}

static void
disk(struct doctor *d)
{
	SQ_CLEANUP(sq_freep) char *folder = folder_of(d->c->cfg->queue);
	struct statvfs fs;
	char have[16], want[16];
	int64_t left;

	if (!folder || statvfs(folder, &fs) < 0)
		return;
	left = (int64_t)(fs.f_bavail * fs.f_frsize);
	text_size((uint64_t)left, have);
	text_size((uint64_t)d->c->cfg->free_disk_min, want);
	if (left < d->c->cfg->free_disk_min)
		doctor_sayf(d, "disk", VERDICT_FAILED, -1, "make room on the disk of the queue", "%s are free, less than free_disk_min (%s): sendmail takes no mail", have, want);
	else
		doctor_sayf(d, "disk", left < 4 * d->c->cfg->free_disk_min ? VERDICT_WARNING : VERDICT_OK, -1, NULL, "%s are free for the queue", have);
}

static void
mail(struct doctor *d)
{
	int64_t n[SQ_STATE_COUNT] = { 0 };
	struct sq_error err = { 0 };

	if (sq_queue_counts(d->c->q, (struct sq_message_id){ 0 }, n, &err) != SQ_OK) {
		doctor_sayf(d, "mail", VERDICT_FAILED, -1, NULL, "%s", err.text);
		return;
	}
	doctor_sayf(d, "mail", n[SQ_STATE_DOUBT] > 0 ? VERDICT_WARNING : VERDICT_OK, -1, n[SQ_STATE_DOUBT] > 0 ? "sendq why ID tells about those in doubt" : NULL,
		"recipients: %" PRId64 " wait, %" PRId64 " being sent, %" PRId64 " held, %" PRId64 " in doubt", n[SQ_STATE_QUEUED],
		n[SQ_STATE_SENDING] + n[SQ_STATE_COMMITTING], n[SQ_STATE_HELD], n[SQ_STATE_DOUBT]);
}

void
doctor_queue(struct doctor *d)
{
	struct cli *c = d->c;
	int64_t began = sq_boot_ms(), until = began + CHECK_MS, log = size_of(c->cfg->queue, "-wal");
	struct sq_queue_health h;
	struct sq_error err = { 0 };
	char size[16], extra[16];
	enum sq_err e = sq_queue_open(c->cfg->queue, SQ_QUEUE_READ, &c->q, &err);

	if (e == SQ_ENOENT) {
		doctor_sayf(d, "queue", VERDICT_OK, -1, NULL, "'%s' is not there yet: nothing was ever queued", c->cfg->queue);
		disk(d);
		return;
	}
	if (e == SQ_OK)
		e = sq_queue_health(c->q, in_time, &until, &h, &err);
	if (e != SQ_OK) {
		doctor_sayf(d, "queue", VERDICT_FAILED, sq_boot_ms() - began, e == SQ_ECORRUPT ? "keep a copy of the file; sqlite3's .recover saves what can be read" : NULL, "%s", err.text);
		return;
	}
	text_size((uint64_t)h.octets, size);
	text_size((uint64_t)log, extra);
	if (h.problem[0]) {
		struct finding f = { "queue", VERDICT_FAILED, sq_boot_ms() - began, "the database is damaged", h.problem,
			"stop the daemon, keep a copy of the file; sqlite3's .recover saves what can be read" };

		doctor_say(d, &f);
	} else {
		doctor_sayf(d, "queue", h.checked ? VERDICT_OK : VERDICT_WARNING, sq_boot_ms() - began, NULL, "'%s', %s and a log of %s, version %d, %s",
			c->cfg->queue, size, extra, h.version, h.checked ? "no damage found" : "too large to be checked in 20 s");
	}
	disk(d);
	mail(d);
}

/* ---- the daemon ---- */

/* Who holds the runner lock, by the kernel's list: "1: FLOCK  ADVISORY  WRITE 4711 fd:00:123456 0 EOF". 0: nobody, or not to be seen. */
static pid_t
lock_holder(const char *queue)
{
	SQ_CLEANUP(sq_freep) char *path = sq_path_suffix(queue, ".lock");
	SQ_CLEANUP(sq_fclosep) FILE *f = fopen("/proc/locks", "re");
	char line[256];
	struct stat st;
	long pid = 0;

	if (!f || !path || stat(path, &st) < 0)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		unsigned major_no, minor_no;
		unsigned long inode;
		long holder;

		if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%lu", &holder, &major_no, &minor_no, &inode) == 4 && inode == (unsigned long)st.st_ino &&
		    major_no == major(st.st_dev) && minor_no == minor(st.st_dev))
			pid = holder;
	}
	return pid > 0 ? (pid_t)pid : 0;
}

static void
running_daemon(struct doctor *d, pid_t pid)
{
	char link[64], exe[LINE] = "", version[LINE] = "", command[128];
	const char *restart = "systemctl --user restart sendqd, or stop it (it lets go of messages under way) and start it again";
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%ld/exe", (long)pid);
	if (pid > 0 && (n = readlink(link, exe, sizeof(exe) - 1)) > 0) {
		exe[n] = '\0';
		if (strstr(exe, "/sendqd")) {
			snprintf(command, sizeof(command), "%s --version", link);
			first_line(command, version);
		}
	}
	if (version[0] && strcmp(version, "sendqd " SENDQ_VERSION) != 0)
		doctor_sayf(d, "daemon", VERDICT_WARNING, -1, restart, "%s runs (pid %ld), but this is sendq %s", version, (long)pid, SENDQ_VERSION);
	else if (strstr(exe, " (deleted)"))
		doctor_sayf(d, "daemon", VERDICT_WARNING, -1, restart, "it runs (pid %ld), and its program was replaced since", (long)pid);
	else if (pid > 0)
		doctor_sayf(d, "daemon", VERDICT_OK, -1, NULL, "%s runs (pid %ld)", version[0] ? version : "sendqd", (long)pid);
	else
		doctor_sayf(d, "daemon", VERDICT_OK, -1, NULL, "sendqd runs");
}

void
doctor_daemon(struct doctor *d)
{
	const struct sq_config *cfg = d->c->cfg;
	SQ_CLEANUP(sq_freep) char *wake = sq_path_suffix(cfg->queue, ".wake");
	pid_t pid = lock_holder(cfg->queue);

	if (wake && sq_wake_poke(wake))
		running_daemon(d, pid);
	else if (pid > 0)
		doctor_sayf(d, "daemon", VERDICT_WARNING, -1, "look again in a minute; then end that process", "process %ld has the queue but does not listen", (long)pid);
	else if (cfg->autostart)
		doctor_sayf(d, "daemon", VERDICT_OK, -1, NULL, "none runs; it starts with the next message");
	else
		doctor_sayf(d, "daemon", VERDICT_WARNING, -1, "systemctl --user enable --now sendqd.socket, or start sendqd", "none runs, and autostart is off: mail waits");
}

/* ---- units ---- */

static bool
has_systemd(void)
{
	char path[1024];
	const char *root = "";

#ifdef SENDQ_FAULTS
	root = getenv("SENDQ_SYSTEM_ROOT") ? getenv("SENDQ_SYSTEM_ROOT") : "";
#endif
	snprintf(path, sizeof(path), "%.900s/run/systemd/system", root);
	return access(path, F_OK) == 0;
}

void
doctor_units(struct doctor *d)
{
	const bool whole = d->c->cfg->system;
	const char *who = whole ? "--system" : "--user", *unit = whole ? "sendqd.service" : "sendqd.socket";
	char command[128], enabled[LINE], failed[LINE], mend[LINE];

	if (!has_systemd()) {
		doctor_sayf(d, "units", VERDICT_SKIPPED, -1, NULL, "this machine is not run by systemd");
		return;
	}
	snprintf(command, sizeof(command), "systemctl %s is-enabled %s", who, unit);
	first_line(command, enabled);
	snprintf(command, sizeof(command), "systemctl %s is-failed sendqd.service", who);
	first_line(command, failed);
	if (strcmp(failed, "failed") == 0) {
		snprintf(mend, sizeof(mend), "systemctl %s status sendqd.service says why; then restart it", who);
		doctor_sayf(d, "units", VERDICT_FAILED, -1, mend, "sendqd.service has failed");
	} else if (strcmp(enabled, "enabled") == 0) {
		doctor_sayf(d, "units", VERDICT_OK, -1, NULL, "%s is enabled", unit);
	} else {
		snprintf(mend, sizeof(mend), "systemctl %s enable --now %s", who, unit);
		doctor_sayf(d, "units", d->c->cfg->autostart ? VERDICT_OK : VERDICT_WARNING, -1, mend, "%s is %s: after a restart of the machine mail waits for the next message",
			unit, enabled[0] ? enabled : "not there");
	}
}

/* ---- the clock ---- */

void
doctor_clock(struct doctor *d)
{
	struct timex t = { 0 };
	struct stat st;
	bool synchronised = adjtimex(&t) >= 0 && !(t.status & STA_UNSYNC);

	/* What this machine wrote earlier does not lie in the future. */
	if (stat(d->c->cfg->path, &st) == 0 && (int64_t)st.st_mtime * 1000 > sq_wall_ms() + 86400000) {
		doctor_sayf(d, "clock", VERDICT_FAILED, -1, "set the clock, and let it be kept (timedatectl set-ntp true)", "it is behind: the configuration was written later than now");
		return;
	}
	doctor_sayf(d, "clock", VERDICT_OK, -1, NULL, synchronised ? "kept by the kernel" : "nobody says that it is kept; compared with the servers below where they tell the time");
}
