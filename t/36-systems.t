#!/bin/sh
# Facts of other systems, which a library loaded before libc's stands in for.  More of
# them: t/10-stubborn.t (no list of children; EPERM for a group of zombies), t/04-ending.t
# (a ps without -g), t/long (macOS's headers).
. "${0%/*}/lib.sh"
[ -x "$APP" ] || skip_all 'no demo app (make t/demo/app)'
[ -z "$PRUN_VALGRIND$PRUN_ASAN" ] || skip_all 'a library of its own comes first'

cat >strange.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>

static void *
real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static int
is(const char *system)
{
	const char *s = getenv("SYSTEM");

	return s && *s == *system;
}

/* macOS up to 10.15 tells no signal; FreeBSD and OpenBSD give all bits of a status. */
int
waitid(idtype_t type, id_t id, siginfo_t *si, int options)
{
	int (*f)(idtype_t, id_t, siginfo_t *, int) = real("waitid");
	int r = f(type, id, si, options);

	if (r == 0 && si->si_pid && si->si_code != CLD_EXITED && is("macOS"))
		si->si_status = 0;
	if (r == 0 && si->si_pid && si->si_code == CLD_EXITED && is("FreeBSD"))
		si->si_status |= 0x7fffff00;
	return r;
}

static int
port_of(int fd)
{
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);

	getsockname(fd, (struct sockaddr *)&a, &len);
	return ((struct sockaddr_in *)&a)->sin_port;      /* sin6_port has the same place; 0: fd is not open */
}

/* Only on Linux can a port be bound beside a socket that is bound to it. */
int
bind(int fd, const struct sockaddr *a, socklen_t len)
{
	static int first = -1;
	int (*f)(int, const struct sockaddr *, socklen_t) = real("bind");
	int port = ((const struct sockaddr_in *)a)->sin_port;

	if ((is("FreeBSD") || is("OpenBSD")) && port && port_of(first) == port) {
		errno = EADDRINUSE;
		return -1;
	}
	if (!port)
		first = fd;
	return f(fd, a, len);
}

/* OpenBSD's IPv6 sockets never take IPv4. */
int
setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	int (*f)(int, int, int, const void *, socklen_t) = real("setsockopt");

	if (is("OpenBSD") && level == IPPROTO_IPV6) {
		errno = EINVAL;
		return -1;
	}
	return f(fd, level, name, value, len);
}
END
cc -shared -fPIC -o strange.so strange.c -ldl 2>cc.err &&
	LD_PRELOAD=$dir/strange.so "$PRUN" -V >/dev/null 2>&1 || skip_all 'no LD_PRELOAD here'

# on SYSTEM ARGUMENTS...: prun believes to be there; what it starts does not.
on() {
	system=$1
	shift
	SYSTEM=$system LD_PRELOAD=$dir/strange.so "$PRUN" --unset SYSTEM --unset LD_PRELOAD "$@" \
		>out 2>err </dev/null
	status=$?
}

echo 'kill -9 $$' | script crash/test_1.sh
echo 'exit 0' | script good/test_1.sh
echo 'exit 3' | script bad/test_1.sh
: >data

on macOS crash good
has 'macOS: a test that a signal ends fails, though waitid says 0' out 'FAIL  crash/test_1.sh'
has 'macOS: the other one passes' out 'PASS  good/test_1.sh'

on FreeBSD good bad
has 'FreeBSD: of a status eight bits count: 0' out 'PASS  good/test_1.sh'
has 'FreeBSD: and 3' out 'exit status 3 '

for system in FreeBSD OpenBSD; do
	on $system --server "'$APP' \$PRUN_PORT data" --ready 'http /items' good
	is "$system: where no port can be held, a server has one all the same" $status 0
	rm -f starts
	on $system --server 'echo x >>starts; exit 3' good
	is "$system: a server that dies is started once" "$(wc -l <starts)" 1
	lacks "$system: and nothing is said of SO_REUSEADDR" out 'REUSEADDR'
done
rm -f starts
run --server 'echo x >>starts; exit 3' good
is 'here it is started twice, since its port was held' "$(wc -l <starts)" 2
finish
