/* Configuration files: loaded whole, or refused with a sentence that names the file. */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/config.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("sendq.conf", MFD_CLOEXEC);
	struct sq_config *cfg = NULL;
	struct sq_error err = { 0 };
	char path[64];

	if (fd < 0 || fchmod(fd, 0600) < 0 || write(fd, data, size) != (ssize_t)size)
		sq_bug("no file to load from");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (sq_config_load(path, &cfg, &err) == SQ_OK) {
		if (!cfg || cfg->n_routes == 0 || !cfg->routes[0].server || !cfg->routes[0].host)
			sq_bug("a configuration that is not whole");
		(void)sq_config_route_for(cfg, "ann@example.org", NULL);
		sq_config_free(cfg);
	} else if (err.text[0] == '\0') {
		sq_bug("refused without a sentence");
	}
	close(fd);
	return 0;
}
