#!/bin/sh
# What a test leaves below TMPDIR goes with the attempt, and nothing else does.
. "${0%/*}/lib.sh"

script test_readonly.sh <<'END'
mkdir -p "$TMPDIR/mod/cache/deep" && : >"$TMPDIR/mod/cache/deep/file" &&
chmod -R a-w "$TMPDIR/mod" && mkdir "$TMPDIR/closed" && : >"$TMPDIR/closed/file" &&
chmod 0 "$TMPDIR/closed"
END
# root may remove anything, so that this is for somebody else, who may not enter
# our directory.
open=$dir
if [ "$(id -u)" = 0 ] && have setpriv && [ -z "${PRUN_VALGRIND-}" ]; then  # whose logs are private
	open=$(mktemp -d /tmp/prun-open.XXXXXX) && chmod 777 "$open" && cp test_readonly.sh "$open" &&
		cp "$PRUN" "$open/prun" || exit 3
	trap 'cd /; rm -rf "$dir" "$open"' EXIT
	(cd "$open" && TMPDIR=$open setpriv --reuid 65534 --regid 65534 --clear-groups \
		./prun test_readonly.sh) >out 2>err </dev/null
	status=$?
else
	run test_readonly.sh
fi
is 'a test may leave read-only directories' $status 0
is 'they are gone afterwards' "$(echo "$open"/prun-*)" "$open/prun-*"
is 'and nothing was said of them' "$(cat err)" ''

script test_link.sh <<'END'
ln -s "$KEEP" "$TMPDIR/link"
END
mkdir keep && echo precious >keep/file
KEEP=$dir/keep run test_link.sh
is 'a symbolic link is removed, what it leads to stays' "$(echo prun-*; cat keep/file)" 'prun-*
precious'

if have perl; then
	script test_deep.sh <<'END'
exec perl -e 'chdir $ENV{TMPDIR}; for (1 .. 3000) { mkdir "a" x 50 or die; chdir "a" x 50 or die }'
END
	run test_deep.sh
	is 'a tree 3,000 directories deep is removed' "$status $(echo prun-*)" '0 prun-*'
else
	skip 'no perl' 'a tree 3,000 directories deep is removed'
fi

if [ "$(id -u)" = 0 ] && have unshare && unshare -m true 2>/dev/null; then
	script test_mount.sh <<'END'
mkdir "$TMPDIR/a" "$TMPDIR/a/mount" && mount --bind "$KEEP" "$TMPDIR/a/mount"
END
	KEEP=$dir/keep unshare -m "$PRUN" test_mount.sh >out 2>err
	is 'a mount below TMPDIR is not emptied' "$(cat keep/file)" precious
	has 'what was left because of it is said' out 'cannot remove .*busy'
	echo "exit 0" | script test_ok.sh
	run -q -d named test_ok.sh
	mkdir named/mount
	PRUN=$PRUN unshare -m sh -c 'mount -t tmpfs -o mode=755 none named/mount && "$PRUN" -d named test_ok.sh
		ls -ld named/mount' >out 2>err
	has 'nor is its mode changed' out '^drwxr-xr-x'
else
	skip 'no mounts without root' 'a mount below TMPDIR is not emptied' \
		'what was left because of it is said' 'nor is its mode changed'
fi
mkdir upper work merged
run -q -d lower/run test_ok.sh
mkdir -p lower/run/a/b/c/d/e/f/g/h/i/j/k/l
overlay='mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged'
if have unshare && unshare -m sh -c "$overlay" 2>/dev/null; then
	PRUN=$PRUN unshare -m sh -c "$overlay"' && "$PRUN" -q -d merged/run test_ok.sh' >out 2>err
	is 'a deep tree is removed where it cannot be moved' $? 0
else
	skip 'no overlayfs' 'a deep tree is removed where it cannot be moved'
fi
finish
