#!/bin/sh
# An empty item is refused and changes nothing.
. "${0%/*}/lib.sh"

http POST /items '' 2>/dev/null && exit 1
expect "$(http GET /items)" "buy milk
write tests"
