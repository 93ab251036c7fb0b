#!/bin/sh
# What is not there cannot be deleted.
. "${0%/*}/lib.sh"

http DELETE /items/3 2>/dev/null && exit 1
http GET /nonsense 2>/dev/null && exit 1
expect "$(http GET /count)" 2
