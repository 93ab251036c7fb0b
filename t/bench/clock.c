/* clock COMMAND...: runs it, prints its wall clock in ms on standard error. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	struct timespec a, b;
	int status = 1;
	pid_t pid;

	if (argc < 2)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &a);
	pid = fork();
	if (pid == 0) {
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	fprintf(stderr, "%.1f\n", (double)(b.tv_sec - a.tv_sec) * 1e3
		+ (double)(b.tv_nsec - a.tv_nsec) / 1e6);
	return status != 0;
}
