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

# Systems that do not list a process's children: macOS, the BSDs, some Linux.
cat >blind.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
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
elif [ -z "$PRUN_VALGRIND$PRUN_ASAN" ]; then    # which do without it
	skip 'no LD_PRELOAD here' 'where the kernel lists no children it runs as well'
fi
finish
