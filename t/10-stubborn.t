#!/bin/sh
# Servers and tests that do not want to go.  Each is tried as a server and as
# a test; afterwards nothing of it lives, and its neighbour has passed.
. "${0%/*}/lib.sh"
[ -x "$APP" ] || skip_all 'no demo app (make t/demo/app)'

cat >fork.c <<'END'
/* forks for ever: each process lives 20 ms and leaves a child behind */
#include <signal.h>
#include <unistd.h>
int main(void)
{
	signal(SIGTERM, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		if (fork() > 0)
			_exit(0);
		usleep(20000);
	}
}
END
cc -o forker4000 fork.c || exit 3
: >data

# stubborn NAME: the script is standard input; it ends with the work to do as
# a server ("$@" runs the app) or as a test ("$@" waits).
stubborn() {
	what=$1
	{
		echo "mark=4000.$((n += 1))"
		cat
	} | script "bad$n.sh"
	mkdir -p "as-test$n" good
	printf 'exec ./bad%s.sh sleep 4000\n' $n | script "as-test$n/test_bad.sh"
	echo 'exit 0' | script good/test_good.sh
	run -j2 --grace=0.5 -t 1 "as-test$n" good
	has "a test that $what: its neighbour passes" out '^good/test_good.sh +PASS'
	ok "a test that $what: nothing lives" await gone '[ r]4000'
	run -j2 --grace=0.5 --server "exec ./bad$n.sh $APP \$PRUN_PORT data" good
	is "a server that $what: the test passes" $status 0
	ok "a server that $what: nothing lives" await gone '[ r]4000'
	ok "a server that $what: nor does the app" await gone "$APP"
}
n=0
stubborn 'ignores TERM' <<'END'
trap '' TERM
exec "$@"
END
stubborn 'has grandchildren that ignore TERM' <<'END'
sh -c 'trap "" TERM; sh -c "sleep 4000; sleep 4000" & sleep 4000 & wait' &
exec "$@"
END
stubborn 'has children that outlive their leader' <<'END'
sh -c 'trap "" TERM; sleep 4000; sleep 4000' &
trap 'exit 0' TERM
"$@" &
wait
END
stubborn 'stops itself' <<'END'
sh -c 'kill -STOP $$; sleep 4000' &
(sleep 0.4; kill -STOP $$) &
exec "$@"
END
stubborn 'closes all its descriptors' <<'END'
exec sh -c 'sleep 4000 <&- >&- 2>&- & exec "$@" <&- >&- 2>&-' sh "$@"
END
stubborn 'forks continuously' <<'END'
./forker4000 &
exec "$@"
END
if have setsid && [ -r "/proc/$$/task/$$/children" ]; then
	stubborn 'forks daemons that leave the session' <<'END'
setsid sh -c 'trap "" TERM; setsid sleep 4000 & sleep 4000' &
(setsid sleep 4000 &)
env -i setsid "$(command -v sleep)" 4000 <&- >&- 2>&- &
exec "$@"
END
	if have python3; then
		stubborn 'starts sessions from Python and double-forks' <<'END'
python3 -c '
import os, subprocess
subprocess.Popen(["sleep", "4000"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "4000"])
    os._exit(0)
os.wait()'
exec "$@"
END
	fi
fi

# A leader that is gone at once must not cut short a child that tidies up.
cat <<'END' | script tidy.sh
rm -f tidy.ready
sh -c 'trap "sleep 0.3; echo flushed >>tidy.out; exit" TERM; : >tidy.ready; while :; do sleep 0.05; done' &
until [ -e tidy.ready ]; do sleep 0.02; done
trap 'exit 0' TERM
"$@" &
wait
END
run --server "./tidy.sh $APP \$PRUN_PORT data" good
is 'a child that needs 0.3 s on TERM gets them' "$(cat tidy.out)" flushed
start=$(date +%s)
run --grace=20 --server "./tidy.sh $APP \$PRUN_PORT data" good
ok 'but not the full grace' test $(($(date +%s) - start)) -lt 20

# Whose fault a leftover is.
[ -r "/proc/$$/task/$$/children" ] && list=yes || list=
if [ "$list" ]; then
	# Many processes take a while to die.
	cat <<-'END' | script crowd.sh
	trap '' TERM
	i=0
	while [ $((i += 1)) -le 40 ]; do sleep 4000 & done
	"$@" &
	wait
	END
	run --leak=fail --grace=0.2 --server "./crowd.sh $APP \$PRUN_PORT data; exit" good
	is 'a server that is killed in its session has leaked nothing' "$status" 0
	lacks 'and nothing is said to have left it' out 'had left'
	ok 'its crowd is gone' gone '[ r]4000'
	if have setsid; then
		cat <<-'END' | script chain/test_chain.sh
		setsid sh -c 'setsid sleep 4000.7 & : >chained; wait' &
		until [ -e chained ] && ps -A -o args | grep -v grep | grep -q '^sleep 4000[.]7'; do sleep 0.02; done
		exit 0
		END
		run chain
		has 'a daemon of a daemon is named' out 'had left its session, killed: [0-9]+ sleep 4000.7'
	fi
fi
if have perl && [ "$list" ]; then
	cat >group.pl <<-'END'
	setpgrp(0, 0);
	$SIG{TERM} = sub { select undef, undef, undef, 0.3; open F, ">>tidy.out"; print F "flushed\n"; exit };
	open F, ">>tidy.ready";
	sleep 4000 while 1;
	END
	cat <<-'END' | script jobs.sh
	rm -f tidy.ready
	perl group.pl 4000 &
	until [ -e tidy.ready ]; do sleep 0.02; done
	"$@"
	END
	rm -f tidy.out
	mkdir job
	echo 'exec ./jobs.sh true' | script job/test_job.sh
	start=$(date +%s)
	run --grace=30 job
	is 'a job in a group of its own has TERM and its grace after a test' "$(cat tidy.out)" flushed
	has 'and is in the session that the test left' out 'left running by the test, stopped: [0-9]+ perl'
	lacks 'which it has not left' out 'had left'
	rm -f tidy.out
	run --grace=30 --server "exec ./jobs.sh $APP \$PRUN_PORT data" good
	is 'after a server, too' "$(cat tidy.out)" flushed
	ok 'without waiting for all of the grace' test $(($(date +%s) - start)) -lt 25
fi

# Systems that do not list a process's children: macOS, the BSDs, some Linux.
cat >blind.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
int open(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	va_list ap;
	int mode;
	va_start(ap, flags);
	mode = flags & O_CREAT ? va_arg(ap, int) : 0;
	va_end(ap);
	if (strlen(path) > 9 && !strcmp(path + strlen(path) - 9, "/children")) {
		errno = ENOENT;
		return -1;
	}
	return real(path, flags, mode);
}
/* macOS: a group of zombies only may not be signalled */
int killpg(pid_t group, int sig)
{
	siginfo_t si;
	memset(&si, 0, sizeof(si));
	if (sig == 0 && getenv("ZOMBIES_EPERM") && waitid(P_PID, group, &si, WEXITED | WNOWAIT | WNOHANG) == 0 &&
			si.si_pid == group) {
		errno = EPERM;
		return -1;
	}
	return kill(-group, sig);
}
END
if [ -z "$PRUN_VALGRIND" ] && cc -shared -fPIC -o blind.so blind.c -ldl 2>cc.err &&
		LD_PRELOAD=$dir/blind.so "$PRUN" -V >/dev/null 2>&1; then
	start=$(date +%s)
	LD_PRELOAD=$dir/blind.so "$PRUN" --grace=20 --server "$APP \$PRUN_PORT data" good >out 2>err
	is 'where the kernel lists no children it runs as well' $? 0
	ok 'and ps saves the grace' test $(($(date +%s) - start)) -lt 20
	rm tidy.out tidy.ready
	LD_PRELOAD=$dir/blind.so "$PRUN" --grace=3 --server "./tidy.sh $APP \$PRUN_PORT data" good >out 2>err
	is 'a child that needs 0.3 s on TERM gets them there, too' "$(cat tidy.out)" flushed
	ok 'and nothing lives' gone 'tidy.sh'
	mkdir bin
	echo 'echo asked >>asked; exec '"$(command -v ps)"' "$@"' | script bin/ps
	LD_PRELOAD=$dir/blind.so PATH=$dir/bin:$PATH "$PRUN" --grace=2 --ready=none \
		--server 'sh -c "trap \"\" TERM; sleep 4000 & wait" & exec sleep 4000' good >out 2>err
	ok 'it pauses before it asks ps again' test "$(wc -l <asked)" -lt 40
	ok 'and kills what ignores TERM there' await gone '[ r]4000'
	echo 'exit 1' | script bin/ps
	start=$(date +%s)
	ZOMBIES_EPERM=1 LD_PRELOAD=$dir/blind.so PATH=$dir/bin:$PATH "$PRUN" --grace=20 \
		--server "$APP \$PRUN_PORT data" good >out 2>err
	ok 'EPERM for a group says that only zombies are left' test $(($(date +%s) - start)) -lt 15
elif [ -z "$PRUN_VALGRIND$PRUN_ASAN" ]; then    # which do without it
	skip 'no LD_PRELOAD here' 'where the kernel lists no children it runs as well'
fi
finish
