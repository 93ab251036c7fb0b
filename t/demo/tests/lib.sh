# What the demo's tests share: a client, and a way to say what they expect.
http() { "${0%/*}/../http" "$1" "$APP_URL$2" ${3+"$3"}; }
expect() {
	[ "$1" = "$2" ] && return
	printf '%s: expected:\n%s\nbut got:\n%s\n' "${0##*/}" "$2" "$1" >&2
	exit 1
}
