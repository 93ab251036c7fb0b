/* caught ROUNDS: sends itself a signal, waits until proc_caught() has told of it,
 * and so on.  Fails when one was never told of. */
#include "../prun.h"

int
main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 1000, ask[2], i;
	int64_t end;
	pid_t sender;
	char c;

	proc_init();
	if (pipe(ask) < 0)
		return 2;
	sender = fork();
	if (sender < 0)
		return 2;
	if (sender == 0) {
		close(ask[1]);
		while (read(ask[0], &c, 1) == 1)
			kill(getppid(), SIGUSR1);
		_exit(0);
	}
	proc_catch();
	for (i = 0; i < rounds; i++) {
		end = clock_ms() + 2000;
		if (write(ask[1], "", 1) < 0)
			return 2;
		while (!proc_caught(SIGUSR1))
			if (clock_ms() > end) {
				printf("signal %d was lost\n", i);
				return 1;
			}
	}
	return 0;
}
