#!/bin/sh
# The page shows what was added.
. "${0%/*}/lib.sh"

http POST /items 'paint the fence' || exit 1
http GET / | grep '<li>paint the fence</li>' || exit 1
expect "$(http GET / | grep -c '<li>')" 3
