#!/bin/sh
# At the limits: a clear message, other files unharmed, never a hang.
. "${0%/*}/lib.sh"

for i in 1 2 3 4 5 6; do echo 'exit 0' | script t/test_$i.sh; done

# Descriptors.
(ulimit -n 32; "$PRUN" -j64 t >out 2>err </dev/null; echo $? >status)
is 'with 32 descriptors -j64 runs' "$(cat status)" 0
for i in $(awk 'BEGIN { for (i = 10; i < 40; i++) print i }'); do echo 'exit 0' | script many/test_$i.sh; done
(ulimit -n 32; "$PRUN" -j64 many >out 2>err </dev/null; echo $? >status)
is 'also more files than there are descriptors' "$(cat status)" 0
[ -n "$PRUN_VALGRIND" ] || # which keeps some for itself
	has 'and says how many run at once, and why' err 'running only [0-9]+ files at once: ulimit -n allows 32'

# What cannot be had: faults are injected into prun, not into its children.
cat >fault.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>
extern char *program_invocation_short_name;
/* FAULT=name:nth:errno: the nth call and all after it fail, in each process */
static int due(const char *name)
{
	static int calls;
	const char *f = getenv("FAULT");
	size_t n = strlen(name);
	if (!f || strncmp(f, name, n) || f[n] != ':' || strncmp(program_invocation_short_name, "prun", 4))
		return 0;
	if (++calls < atoi(f + n + 1))
		return 0;
	errno = atoi(strrchr(f, ':') + 1);
	return 1;
}
static pid_t first;
static void __attribute__((constructor)) begin(void)
{
	first = getpid();
}
/* refork: only of the process that was started */
pid_t fork(void)
{
	pid_t (*real)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "fork");
	return due("fork") || (getpid() == first && due("refork")) ? -1 : real();
}
int mkdir(const char *p, mode_t m)
{
	int (*real)(const char *, mode_t) = (int (*)(const char *, mode_t))dlsym(RTLD_NEXT, "mkdir");
	return due("mkdir") ? -1 : real(p, m);
}
ssize_t write(int fd, const void *s, size_t n)
{
	ssize_t (*real)(int, const void *, size_t) = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
	struct stat st;
	/* only into files, as a full disk would */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && due("write"))
		return -1;
	return real(fd, s, n);
}
int fcntl(int fd, int cmd, ...)
{
	int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl");
	va_list ap;
	void *arg;
	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return cmd == F_SETLK && due("fcntl") ? -1 : real(fd, cmd, arg);
}
void *realloc(void *p, size_t n)
{
	static void *(*real)(void *, size_t);
	if (!real)
		real = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
	return n > 16 && due("realloc") ? NULL : real(p, n);
}
int clock_gettime(clockid_t id, struct timespec *t)
{
	int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	static int n;
	int r = real(id, t);
	/* the wall clock jumps back and forth by a day; the monotonic one never does */
	if (id == CLOCK_REALTIME && getenv("FAULT") && !strncmp(getenv("FAULT"), "clock", 5))
		t->tv_sec += n++ % 2 ? 86400 : -86400;
	return r;
}
END
if [ -z "$PRUN_VALGRIND" ] && cc -shared -fPIC -o fault.so fault.c -ldl 2>cc.err &&
		LD_PRELOAD=$dir/fault.so "$PRUN" -V >/dev/null 2>&1; then
	# fault WHAT NAME...: sets FAULT and runs with a bound on time
	fault() {
		FAULT=$1
		export FAULT
		shift
		LD_PRELOAD=$dir/fault.so timeout 60 "$PRUN" "$@" >out 2>err </dev/null
		status=$?
		unset FAULT
	}
	fault fork:1:11 -j4 t
	is 'no process at all: status 3' $status 3
	has 'and why' err 'cannot start a worker: Resource temporarily unavailable'
	fault fork:3:11 -j4 t
	has 'room for two workers: two at once' out 'only 2 at once: Resource temporarily unavailable'
	has 'whose tests cannot be started, which is told' out 'ERROR  t/test_.*'
	has 'with the reason' out 'cannot run t/test_[0-9].sh: Resource temporarily unavailable'
	echo 'kill -9 $PPID; sleep 3000.12' | script dead/test_1.sh
	cp t/test_1.sh dead/test_2.sh
	fault refork:2:11 -j1 dead
	is 'a worker that dies and cannot be forked again ends the run: its file is in error, the next one is cancelled' \
		"$status $(sed -n 's/^dead\/test_.*sh *\([A-Z]*\) .*/\1/p' out | tr '\n' ' ')" '3 ERROR CANCEL '
	has 'which is told, with the reason' out 'no worker could take its place: Resource temporarily unavailable'
	is 'and nothing is left of it' "$(gone 'sleep 3000[.]12')" ''
	fault refork:3:11 -j2 dead t
	has 'where another worker lives, that one does the rest' out '^8 files: 7 passed, 1 with errors'
	fault realloc:30:12 -j2 t
	is 'out of memory: status 3, or a file in error' "$([ $status = 3 ] || [ $status = 1 ]; echo $?)" 0
	cat out err >both
	has 'and it says so' both 'out of memory|worker [0-9] died'
	for n in 20 40 60 80 100 150; do
		fault realloc:$n:12 -j2 t
		[ $status -lt 124 ] || echo "hang or crash at $n: $status"
	done >hangs
	is 'out of memory anywhere: never a hang or a crash' "$(cat hangs)" ''
	fault mkdir:1:28 -j2 t
	is 'no space for the run directory: status 3' $status 3
	has 'and why' err 'No space left on device'
	fault mkdir:5:28 -j1 t -d full.d
	has 'no space for an attempt: that file is in error' out 'ERROR  t/test_2.sh'
	has 'with the reason' out 'No space left on device \(prun'
	has 'and those before it passed' out '^t/test_1.sh +PASS'
	echo old >report.xml
	fault write:6:28 -j1 t -o report.xml
	is 'no space for the report: status 3' $status 3
	has 'which is told' err 'report.xml cannot be written, the previous file is unchanged: No space'
	is 'and true' "$(cat report.xml)" old
	fault fcntl:1:37 -j1 t -d unlocked
	is 'a file system without locks is not a directory in use' $status 0
	has 'which is told' err 'results.jsonl cannot be locked.*: No locks available'
	fault fcntl:1:11 -j1 t -d unlocked
	is 'one that is locked is' "$status $(grep -c 'in use by another run' err)" '2 1'
	fault clock:0:0 -j2 -t 20 t
	is 'a wall clock that jumps is not looked at' $status 0
elif [ -z "$PRUN_VALGRIND$PRUN_ASAN" ]; then    # which do without it
	skip 'no LD_PRELOAD here' 'faults: no process, memory, space'
fi

# What other systems do, each in prun only.
cat >other.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
extern char *program_invocation_short_name;
static int on(const char *what)
{
	const char *s = getenv("OTHER");
	return s && !strcmp(s, what) && !strncmp(program_invocation_short_name, "prun", 4);
}
int waitid(idtype_t type, id_t id, siginfo_t *si, int options)
{
	int (*real)(idtype_t, id_t, siginfo_t *, int) =
		(int (*)(idtype_t, id_t, siginfo_t *, int))dlsym(RTLD_NEXT, "waitid");
	int r = real(type, id, si, options);
	/* macOS 10.15 tells no signal; the BSDs tell all of the status that exit() got */
	if (on("status") && r == 0 && si->si_code == CLD_KILLED)
		si->si_status = 0;
	if (on("status") && r == 0 && si->si_code == CLD_EXITED)
		si->si_status |= 0x5500;
	return r;
}
int setsockopt(int fd, int level, int name, const void *value, socklen_t n)
{
	int (*real)(int, int, int, const void *, socklen_t) =
		(int (*)(int, int, int, const void *, socklen_t))dlsym(RTLD_NEXT, "setsockopt");
	/* no second socket may be bound, whatever it sets */
	if (on("port") && level == SOL_SOCKET && name == SO_REUSEADDR)
		return 0;
	return real(fd, level, name, value, n);
}
END
if [ -z "$PRUN_VALGRIND" ] && cc -shared -fPIC -o other.so other.c -ldl 2>cc.err &&
		LD_PRELOAD=$dir/other.so "$PRUN" -V >/dev/null 2>&1; then
	echo 'kill -9 $$' | script end/test_9.sh
	echo 'exit 255' | script end/test_255.sh
	echo 'exit 0' | script end/test_0.sh
	other() {
		OTHER=$1
		export OTHER
		shift
		LD_PRELOAD=$dir/other.so "$PRUN" "$@" >out 2>err </dev/null 7<"$top/prun.h"
		status=$?
		unset OTHER
	}
	other status end
	has 'a signal of which no number is told is no exit status of 0' out '^end/test_9.sh +FAIL'
	has 'of a status the last eight bits count' out 'exit status 255 '
	has 'also of one that passes' out '^end/test_0.sh +PASS'
	echo 'echo start >>starts; exit 3' | script dies.sh
	other port --server ./dies.sh t/test_1.sh
	is 'a server whose port could not be held is started once' "$(grep -c start starts)" 1
	lacks 'and nothing is said of a port that was held' out 'held'
elif [ -z "$PRUN_VALGRIND$PRUN_ASAN" ]; then    # which do without it
	skip 'no LD_PRELOAD here' 'a signal of which no number is told is no exit status of 0'
fi

# A descriptor that prun was started with, which FreeBSD's /dev/fd would not list.
if [ -d /proc/self/fd ]; then
	# shellcheck disable=SC2012
	echo 'ls /proc/$$/fd | tr "\n" " " >fds' | script fd/test_fd.sh
	"$PRUN" fd 7<"$top/prun.h" >out 2>err
	lacks 'is not for tests' fds '(^| )7 '
fi

# A full disk, really.
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=256k none small 2>/dev/null; then
	echo 'head -c 300000 /dev/zero; exit 1' | script f/test_1.sh
	echo 'exit 0' | script f/test_2.sh
	run -j1 f -d small/run -o small.xml
	is 'a run on a full disk ends' "$([ $status = 1 ] || [ $status = 3 ]; echo $?)" 0
	has 'and says what it could not write' err 'No space left on device|cannot be written'
	umount small
fi

# A run directory that vanishes, or cannot be written.
echo 'rm -rf "${PRUN_DIR%/*}"' | script v/test_1.sh
echo 'exit 0' | script v/test_2.sh
run -j1 v -d v.d
has 'in a run directory that has vanished the next file is in error' out 'ERROR  v/test_2.sh'
has 'with the reason' out 'v.d/1-test_2.sh: No such file'
# (Nobody else may write valgrind's logs.)
if [ "$(id -u)" = 0 ] && have setpriv && [ -z "$PRUN_VALGRIND" ]; then
	chmod 755 "$dir"
	mkdir locked
	for where in locked/run /proc/run; do
		setpriv --reuid nobody --regid nogroup --clear-groups "$PRUN" -d $where t >out 2>err
		is "a run directory that cannot be made gives status 2 ($where)" $? 2
		has 'in one line' err 'Permission denied|No such file'
	done
	# RLIMIT_NPROC does not hold for root.
	open=$(mktemp -d /tmp/prun-limits.XXXXXX)       # ours is private
	chmod 777 "$open"
	cp -R many "$open"
	prlimit --nproc=12 setpriv --reuid 54321 --regid 54321 --clear-groups \
		"$PRUN" -C "$open" -j30 many -d run >out 2>err
	is 'with 12 processes -j30 ends' "$([ $? -le 3 ]; echo $?)" 0
	cat err >>out
	has 'and says what was wrong' out 'Resource temporarily unavailable'
	rm -rf "$open"
fi

# A thousand files.
mkdir big
(cd big && awk 'BEGIN { for (i = 0; i < 1000; i++) print "test_" i }' | xargs touch && chmod +x test_*)
run -q -j2 --test true big
is 'a thousand files run' "$status $(grep -c '1000 files: 1000 passed' out)" '0 1'

# Standard descriptors that are closed, signals that are ignored.
"$PRUN" t <&- >out 2>err
is 'with a closed standard input it runs' $? 0
"$PRUN" t <&- >&- 2>&-
is 'with all three closed, too' $? 0
(trap '' CHLD PIPE HUP; exec "$PRUN" t >out 2>err)
is 'when its parent ignores CHLD, PIPE and HUP, too' $? 0
finish
