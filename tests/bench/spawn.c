/*
 * spawn: run a program many times and say how long each took, without an
 * interpreter in between.
 *
 *   spawn COUNT JOBS STDIN PROGRAM [ARGUMENT...]
 *
 * Prints one JSON object: median_ms, p95_ms, wall_ms, cpu_ms (all children),
 * rss_kb (the largest child), failed.
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

enum { JOBS_MAX = 64 };

static double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	struct { pid_t pid; double began; } run[JOBS_MAX] = { { 0, 0 } };
	int count, jobs, started = 0, ended = 0, failed = 0;
	posix_spawn_file_actions_t files;
	double *took, began;
	struct rusage u;

	if (argc < 5 || (count = atoi(argv[1])) < 1 || (jobs = atoi(argv[2])) < 1 || jobs > JOBS_MAX)
		return 64;
	took = calloc((size_t)count, sizeof(*took));
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, argv[3], O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	began = now_ms();
	while (took && ended < count) {
		int status, slot;
		pid_t pid;

		for (slot = 0; slot < jobs && started < count; slot++)
			if (run[slot].pid == 0) {
				run[slot].began = now_ms();
				if (posix_spawnp(&run[slot].pid, argv[4], &files, NULL, argv + 4, environ) != 0)
					return 71;
				started++;
			}
		pid = wait(&status);
		for (slot = 0; slot < jobs; slot++)
			if (pid > 0 && run[slot].pid == pid) {
				took[ended++] = now_ms() - run[slot].began;
				run[slot].pid = 0;
				failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
			}
	}
	began = now_ms() - began;
	if (!took)
		return 71;
	qsort(took, (size_t)count, sizeof(*took), by_size);
	getrusage(RUSAGE_CHILDREN, &u);
	printf("{\"median_ms\": %.3f, \"p95_ms\": %.3f, \"wall_ms\": %.1f, \"cpu_ms\": %.1f, \"rss_kb\": %ld, \"failed\": %d}\n",
		took[count / 2], took[count * 95 / 100], began,
		(double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3, u.ru_maxrss, failed);
	posix_spawn_file_actions_destroy(&files);
	free(took);
	return failed ? 1 : 0;
}
