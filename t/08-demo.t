#!/bin/sh
# The demo: a suite that needs nothing but cc, make and sh.
. "${0%/*}/lib.sh"
[ -x "$APP" ] && [ -x "$HTTP" ] || skip_all 'no demo app (make t/demo/app t/demo/http)'

for how in -j1 '-j max' '-j3 --shuffle=1' '-j3 --shuffle=2'; do
	# shellcheck disable=SC2086
	run -C "$top/t/demo" $how
	is "$how: all eight pass" "$status $(grep -c PASS out)" '0 16'
done
is 'the template is as it was' "$(wc -l <"$top/t/demo/template.txt" | tr -d ' ')" 2
ok 'on one shared server they would not' "$top/t/demo/shared"
finish
