#!/bin/sh
# Fifty items are fifty items.
. "${0%/*}/lib.sh"

i=0
while [ $((i += 1)) -le 50 ]; do
	http POST /items "item $i" || exit 1
done
expect "$(http GET /count)" 52
