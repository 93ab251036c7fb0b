#!/bin/sh
# The last item can be deleted, too.
. "${0%/*}/lib.sh"

http DELETE /items/2 || exit 1
http DELETE /items/1 || exit 1
expect "$(http GET /count)" 0
