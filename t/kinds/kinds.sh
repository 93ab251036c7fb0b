# What the tests of other kinds of project share.  Each tries one kind with its
# real tool; prun.1 has no recipe that is not tried here.

. "$top/t/lib.sh"

# python MODULE...: python3 is the system's, and has these modules.
python() {
	for PYTHON in ${PYTHON-} /usr/bin/python3 python3; do
		"$PYTHON" -c "import $(echo "$*" | tr ' ' ,)" 2>/dev/null && break
		PYTHON=
	done
	[ "$PYTHON" ] || skip_all "no python3 with $*"
	mkdir -p "$dir/bin"
	printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v "$PYTHON")" >"$dir/bin/python3"
	chmod +x "$dir/bin/python3"
	PATH=$dir/bin:$PATH
	unset PYTHON
	export PATH
}

# npm PACKAGE...: they are in node_modules, which npm ci in t/npm fills.
npm() {
	have node || skip_all 'no node'
	modules=${PRUN_TEST_NPM:-$top/t/npm}/node_modules
	for package; do
		[ -d "$modules/$package" ] || skip_all "no $package (npm ci --prefix t/npm)"
	done
	ln -s "$modules" node_modules
}

# postgres: a database of its own, $url, whose clones are dropped at the end.
postgres() {
	have psql || skip_all 'no psql'
	[ "${PRUN_TEST_PG-}" ] || skip_all 'no PostgreSQL (t/with-pg starts one)'
	name=kind_$(basename "$dir" | tr 'A-Z.' 'a-z_')
	server=${PRUN_TEST_PG%/postgres}
	url=$server/$name
	sql "CREATE DATABASE $name"
	trap 'cd /; drop_all; rm -rf "$dir"' EXIT
}
sql() { psql -XAtq "$PRUN_TEST_PG" -c "$1"; }
databases() { sql "SELECT datname FROM pg_database WHERE datname LIKE '%$name%' ORDER BY 1"; }
drop_all() {
	for database in $(databases); do
		sql "DROP DATABASE IF EXISTS \"$database\" WITH (FORCE)"
	done
}
