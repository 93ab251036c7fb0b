# What the tests share: TAP, a directory of their own, and prun to try.
# Each test is named by the sentence that it proves.

# A test file that sets own_pg, to lines for postgresql.conf, gets a server of its own.
if [ "${own_pg+set}" ] && [ "${PG_CONF-}" != "$own_pg" ]; then
	PG_CONF=$own_pg
	export PG_CONF
	unset PRUN_TEST_PG
	exec "${0%/*}/with-pg" "$0"
fi

top=${0%/*}
top=$(cd "${top%/kinds}/.." && pwd)
PRUN=${PRUN:-$top/prun}
APP=$top/t/demo/app
HTTP=$top/t/demo/http
unset PRUNFLAGS GITHUB_ACTIONS GITHUB_STEP_SUMMARY PRUN_LIBPQ
tests=0 failed=0
dir=$(mktemp -d "${TMPDIR:-/tmp}/t.XXXXXX") && dir=$(cd "$dir" && pwd -P) && cd "$dir" || exit 3
TMPDIR=$dir
export TMPDIR
mkdir .git      # no prun.conf above it is searched for
trap 'cd /; rm -rf "$dir"' EXIT

have() { command -v "$1" >/dev/null 2>&1; }

# skip_all WHY: nothing of this file can be tried here.
skip_all() {
	echo "skip: $1"
	echo "1..0 # SKIP $1"
	exit 0
}

# skip WHY NAME...: these cannot.
skip() {
	why=$1
	shift
	for name; do
		echo "ok $((tests += 1)) - $name # SKIP $why"
	done
}

# ok NAME COMMAND...: the command succeeds.
ok() {
	name=$1
	shift
	if "$@" >"$dir/.output" 2>&1; then
		echo "ok $((tests += 1)) - $name"
	else
		echo "not ok $((tests += 1)) - $name"
		echo "# failed: $*"
		sed 's/^/#   /' "$dir/.output"
		failed=$((failed + 1))
	fi
}

not() { ! "$@"; }

# is NAME GOT WANTED
is() {
	if [ "$2" = "$3" ]; then
		echo "ok $((tests += 1)) - $1"
	else
		echo "not ok $((tests += 1)) - $1"
		printf '%s\n' "wanted: $3" "got: $2" | sed 's/^/#   /'
		failed=$((failed + 1))
	fi
}

# has NAME FILE ERE: a line of the file matches.
has() {
	if grep -Eq -e "$3" "$2"; then
		echo "ok $((tests += 1)) - $1"
	else
		echo "not ok $((tests += 1)) - $1"
		echo "#   no line matches: $3"
		sed 's/^/#   | /' "$2"
		failed=$((failed + 1))
	fi
}

# lacks NAME FILE ERE: none does.
lacks() {
	if grep -E -e "$3" "$2" >"$dir/.output"; then
		echo "not ok $((tests += 1)) - $1"
		sed 's/^/#   | /' "$dir/.output"
		failed=$((failed + 1))
	else
		echo "ok $((tests += 1)) - $1"
	fi
}

# run ARGUMENTS...: prun; output in out and err, exit status in $status.
run() {
	"$PRUN" "$@" >out 2>err </dev/null
	status=$?
}

# script NAME: makes an executable shell script of standard input.
script() {
	case $1 in */*) mkdir -p "${1%/*}" ;; esac
	{ echo '#!/bin/sh'; cat; } >"$1"
	chmod +x "$1"
}

# await COMMAND...: until it succeeds, ten seconds at most.
await() {
	i=0
	until "$@" >/dev/null 2>&1; do
		[ $((i += 1)) -lt 200 ] || { echo "# never: $*"; return 1; }
		sleep 0.05
	done
}

# alive ERE: processes of this test whose arguments match.  Whoever runs the same
# test at the same time has a directory of its own.
alive() {
	ps -A -o pid= -o args= | grep -E -e "$1" | grep -v grep | while read -r pid args; do
		if [ -d /proc/self/fd ]; then
			case $(readlink "/proc/$pid/cwd" 2>/dev/null) in
			"$dir"*) ;;
			*) continue ;;
			esac
		fi
		echo "$pid $args"
	done
}
gone() { survivors=$(alive "$1"); echo "$survivors"; [ -z "$survivors" ]; }

# use_postgres: skips the file where there is none; $server is the URL without a database.
use_postgres() {
	have psql || skip_all 'no psql'
	[ "${PRUN_TEST_PG-}" ] || skip_all 'no PostgreSQL (t/with-pg starts one)'
	server=${PRUN_TEST_PG%/postgres}
}
sql() { psql -XAtq "$PRUN_TEST_PG" -c "$1"; }
# Those of a server of the test's own.
databases() { sql "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1" | tr '\n' ' '; }

# rooms: what a test's own program is linked with, all but prun's main(): what make has
# made of it, or the source.
rooms() {
	for room in "$top"/*.c; do
		[ "${room##*/}" != prun.c ] || continue
		object=$(find "${room%.c}.o" -newer "$room" -newer "$top/prun.h" 2>/dev/null)
		echo "${object:-$room}"
	done
}

# aside COMMAND...: a function in a directory of its own, beside all that follows, for
# what waits most of the time.  collect: waits for all of them, and takes their results.
asides=0
aside() {
	mkdir "$dir/aside.$((asides += 1))"
	(cd "$dir/aside.$asides" && dir=$PWD && TMPDIR=$PWD && "$@") >"$dir/aside.$asides.tap" 2>&1 &
}
collect() {
	wait
	n=0
	while [ $((n += 1)) -le $asides ]; do
		while IFS= read -r line; do
			case $line in
			'ok '*) echo "ok $((tests += 1)) ${line#ok * }" ;;
			'not ok '*) echo "not ok $((tests += 1)) ${line#not ok * }"; failed=$((failed + 1)) ;;
			*) echo "$line" ;;
			esac
		done <"$dir/aside.$n.tap"
	done
}

finish() {
	echo "1..$tests"
	[ $failed = 0 ]
	exit
}
