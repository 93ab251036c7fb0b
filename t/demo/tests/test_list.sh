#!/bin/sh
# The list begins as the template has it.
. "${0%/*}/lib.sh"

expect "$(http GET /items)" "buy milk
write tests"
expect "$(http GET /count)" 2
