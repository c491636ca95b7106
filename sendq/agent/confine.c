/*
 * Confinement by Landlock and prctl.
 */
#include "confine.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <sendq/base.h>

#define WRITES (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | \
	LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | \
	LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)
#define READS (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

static void
permit(int rules, const char *path, uint64_t access)
{
	struct landlock_path_beneath_attr beneath = { .allowed_access = access, .parent_fd = open(path, O_PATH | O_CLOEXEC) };

	if (beneath.parent_fd < 0)
		return;
	(void)!syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
	close(beneath.parent_fd);
}

#ifdef SENDQ_FAULTS
/* A test may go on turning the clock. */
static void
leave_clock(int rules)
{
	char folder[4096];
	const char *path = getenv("SENDQ_TEST_CLOCK"), *slash = path ? strrchr(path, '/') : NULL;

	if (!slash || (size_t)(slash - path) >= sizeof(folder))
		return;
	snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	permit(rules, folder, LANDLOCK_ACCESS_FS_READ_FILE);
}
#endif

/* Give up the named kinds of access to every file, but for reading below `kept`. */
static void
give_up(uint64_t access, const char *const *kept, size_t n, const char *file)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = access };
	int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (fd < 0)
		return;
	for (size_t i = 0; i < n; i++)
		permit(fd, kept[i], LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE);
	if (file && *file)
		permit(fd, file, LANDLOCK_ACCESS_FS_READ_FILE);
#ifdef SENDQ_FAULTS
	if (access & LANDLOCK_ACCESS_FS_READ_FILE)
		leave_clock(fd);
#endif
	(void)!syscall(SYS_landlock_restrict_self, fd, 0);
	close(fd);
}

void
confine_process(void)
{
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

void
confine_writes(void)
{
	give_up(WRITES, NULL, 0, NULL);
}

void
confine_files(void)
{
	give_up(WRITES | READS, NULL, 0, NULL);
}

void
confine_to_system(const char *also)
{
	static const char *const system[] = { "/etc", "/usr", "/lib", "/lib64", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager" };

	give_up(WRITES | READS, system, SQ_LEN(system), also);
}
