#!/bin/sh
# What prun is told by its workers, and what stands in the way of what it writes:
# faults that are injected into prun, not into its children.
. "${0%/*}/lib.sh"
[ -z "${PRUN_VALGRIND-}${PRUN_ASAN-}" ] || skip_all 'it is preloaded itself'
cat >forge.c <<'END'
#define _GNU_SOURCE
#include "prun.h"
#include <dlfcn.h>
extern char *program_invocation_short_name;
static bool wanted(const char *what)
{
	const char *s = getenv("FORGE");
	return s && !strcmp(s, what) && !strncmp(program_invocation_short_name, "prun", 4);
}
/* A worker that lies: what it tells of an attempt's end is PASS. */
ssize_t write(int fd, const void *s, size_t n)
{
	ssize_t (*real)(int, const void *, size_t) =
		(ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
	struct news news;
	bool whole = n == sizeof(news);
	if (whole)
		memcpy(&news, s, n);
	if (whole && news.type == NEWS_RESULT && wanted("pass")) {
		news.o.result = PASS;
		return real(fd, &news, n);
	}
	if (whole && news.type == NEWS_RESULT && wanted("cause")) {
		news.o.result = PASS;
		news.o.cause = CAUSE_NONE;
		return real(fd, &news, n);
	}
	if (whole && news.type == NEWS_RESULT && wanted("untested")) {
		news.o.tested = false;
		return real(fd, &news, n);
	}
	if (whole && news.type == NEWS_RESULT && wanted("file")) {
		news.o.file += 1000;
		return real(fd, &news, n);
	}
	return real(fd, s, n);
}
ssize_t pwrite(int fd, const void *s, size_t n, off_t at)
{
	ssize_t (*real)(int, const void *, size_t, off_t) =
		(ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
	return real(fd, s, wanted("pwrite") ? n - 1 : n, at);
}
/* Somebody knows what a new file will be called, and has laid a link there. */
int open(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	va_list ap;
	int mode;
	va_start(ap, flags);
	mode = flags & O_CREAT ? va_arg(ap, int) : 0;
	va_end(ap);
	if (flags & O_CREAT && strstr(path, "report.xml.") && wanted("link")
	&& symlink(getenv("VICTIM"), path) < 0)
		abort();
	return real(path, flags, mode);
}
END
cc -std=c99 -shared -fPIC -I"$top" -o forge.so forge.c -ldl 2>cc.err &&
	LD_PRELOAD=$dir/forge.so "$PRUN" -V >/dev/null 2>&1 || skip_all 'no LD_PRELOAD here'
forge() {
	FORGE=$1
	export FORGE
	shift
	LD_PRELOAD=$dir/forge.so "$PRUN" "$@" >out 2>err </dev/null
	status=$?
	unset FORGE
}
# green: how many files are called good, in all places where that is said.
green() {
	echo "$status $(grep -c '^t/test_.*PASS' out) $(grep -c '"result":"PASS"' run/results.jsonl)" \
		"$(grep -c ' PASS ' report.xml.history)" \
		"$(sed -n 's/^<testsuites .*failures="\([0-9]*\)" errors="\([0-9]*\)".*/\1 \2/p' report.xml)"
}
echo 'exit 0' | script t/test_good.sh
echo 'exit 7' | script bad/test_bad.sh
forge nothing -d run -o report.xml t
is 'a good test is green' "$(green)" '0 1 1 1 0 0'
for how in pass cause; do
	rm -rf run report.xml*
	forge $how -d run -o report.xml --test 'exit 7' t
	is "$how: PASS of a test that ended with 7 is believed nowhere" "$(green)" '1 0 0 0 0 1'
	has "$how: it is an error of the worker's" out 'prun.worker-died'
	rm -rf run report.xml*
	forge $how -d run -o report.xml --server 'exit 3' t
	is "$how: nor PASS of a test that never began" "${status%[13]} $(green | cut -d' ' -f2-)" ' 0 0 0 0 1'
done
rm -rf run report.xml*
forge untested -d run -o report.xml t
is 'nor PASS of one that is said not to have been started' "$(green)" '1 0 0 0 0 1'
rm -rf run report.xml*
forge untested -d run -o report.xml --test 'exit 7' t
has 'nor FAIL' out 'ERROR  t/test_good.sh'
forge file t
is 'a record of a file that there is not is no result, and nothing hangs' "$([ $status -ge 1 ] && [ $status -le 3 ]; echo $?)" 0

rm -rf run report.xml*
echo old >report.xml
forge pwrite -o report.xml t
is 'a short pwrite: status 3' $status 3
has 'which is told' err 'report.xml cannot be written, the previous file is unchanged: No space left on device'
is 'and true' "$(cat report.xml)" old
is 'and nothing is left beside it' "$(echo report.xml.[0-9a-z]*)" 'report.xml.history'

VICTIM=$dir/victim
export VICTIM
echo precious >victim
forge link -o report.xml t
is 'a link in the place of a new file is not followed' "$status $(cat victim)" '3 precious'
has 'which is told' err 'report.xml cannot be written, the previous file is unchanged: File exists'
finish
