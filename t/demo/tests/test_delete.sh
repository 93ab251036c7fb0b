#!/bin/sh
# What is deleted is gone, and only that.
. "${0%/*}/lib.sh"

http DELETE /items/1 || exit 1
expect "$(http GET /items)" "write tests"
