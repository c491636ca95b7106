/* See harness.h. Linked into every unit test. */
#include "harness.h"

#include <ftw.h>
#include <unistd.h>

static char dir[128];

const char *
test_dir(void)
{
	return dir;
}

void
test_path(char out[256], const char *name)
{
	unsigned char r[6];
	char hex[13];

	FILE *f = fopen("/dev/urandom", "rb");
	ck_assert(f && fread(r, sizeof(r), 1, f) == 1);
	fclose(f);
	for (size_t i = 0; i < sizeof(r); i++)
		snprintf(hex + 2 * i, 3, "%02x", r[i]);
	snprintf(out, 256, "%s/%s-%s", dir, hex, name);
}

const char *
test_data_dir(void)
{
	const char *d = getenv("SENDQ_TEST_DATA");

	return d ? d : "tests/data";
}

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

int
test_main(Suite *suite)
{
	const char *tmp = getenv("TMPDIR");
	SRunner *sr;
	int failed;

	snprintf(dir, sizeof(dir), "%s/sendq-unit-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return 1;
	sr = srunner_create(suite);
	srunner_set_tap(sr, "-");
	srunner_run_all(sr, CK_SILENT);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return failed ? 1 : 0;
}
