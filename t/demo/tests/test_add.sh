#!/bin/sh
# What is added stands at the end.
. "${0%/*}/lib.sh"

http POST /items 'call home' || exit 1
expect "$(http GET /items)" "buy milk
write tests
call home"
