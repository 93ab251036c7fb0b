#!/bin/sh
# prun builds with any C99 compiler and any make, and installs.  Those that take longest
# are tried by t/09-build-more.long, which reads this file.
. "${0%/*}/lib.sh"
flags='-std=c99 -pedantic -Wall -Wextra -Wshadow -Werror'
libs=
echo 'int main(void) { return 0; }' >x.c
# glibc before 2.34 has dlopen in a library of its own
cc -o x x.c -ldl 2>/dev/null && libs=-ldl

# With little optimisation: t/long builds with more.
for cc in ${compilers:-gcc tcc}; do
	have $cc || { skip "no $cc" "$cc builds it without a warning" "$cc: and it runs"; continue; }
	case $cc in
	gcc) f="$flags -O1" ;;                  # some of its warnings come with it only
	tcc) f='-std=c99 -Wall -Werror' ;;
	*) f=$flags ;;
	esac
	# shellcheck disable=SC2086
	ok "$cc builds it without a warning" $cc $f -o prun-$cc "$top"/*.c $libs
	echo 'exit 0' | script "t/test_$cc.sh"
	ok "$cc: and it runs" ./prun-$cc "t/test_$cc.sh"
done
cp "$top"/*.c "$top"/*.h "$top/Makefile" "$top/prun.1" .
rm -f x.c
# shellcheck disable=SC2086
ok 'cc -o prun *.c works' cc -o prun *.c $libs
rm -f prun
for make in ${makes:-make}; do
	have $make || { skip "no $make" "$make builds, installs and uninstalls it"; continue; }
	# A make above us must not lend us its jobs.
	ok "$make builds, installs and uninstalls it" env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL sh -c "
		$make clean && $make prun CFLAGS= && $make install DESTDIR=$dir/root PREFIX=/usr &&
		test -x root/usr/bin/prun && test -f root/usr/share/man/man1/prun.1 &&
		$make uninstall DESTDIR=$dir/root PREFIX=/usr && ! test -e root/usr/bin/prun"
done
if have mandoc; then
	ok 'the man page is clean' mandoc -Tlint -Wwarning "$top/prun.1"
else
	skip 'no mandoc' 'the man page is clean'
fi
for o in $("$PRUN" -h | sed -n 's/^ .*--\([a-z-]*\).*/\1/p'); do
	grep -Eq "^\.It .*Fl -$o( |\$)" "$top/prun.1" || echo "$o"
done >missing
is 'the man page has each option' "$(cat missing)" ''
finish
