#!/bin/sh
# Go, cargo, ctest: a package, a test target or a build is a unit.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"

# Go tests packages.
if have go; then
	GOCACHE=$dir/.cache GOPATH=$dir/.go GOFLAGS=-mod=mod GOTOOLCHAIN=local
	export GOCACHE GOPATH GOFLAGS GOTOOLCHAIN
	mkdir -p go/cart go/search
	echo 'module kinds' >go/go.mod
	for package in cart search; do
		cat >go/$package/${package}_test.go <<-END
		package $package
		import ("os"; "testing")
		func TestPort(t *testing.T) { if os.Getenv("PRUN_PORT") == "" { t.Fatal("no port") } }
		func TestBad(t *testing.T) { if "$package" == "search" { t.Fatal("search is bad") } }
		END
	done
	sed 's/TestPort/TestMore/; s/TestBad/TestOther/' go/cart/cart_test.go >go/cart/more_test.go
	cat >go/prun.conf <<-'END'
	files = .
	split = dir
	test = go test -count=1 "$@" "./$PRUN_TEST"
	env = GOMAXPROCS=$PRUN_CPUS
	END
	run -C go
	is 'Go: a failing package fails the run' $status 1
	has 'the other passes, with all of its files' out '^2 files: 1 passed, 1 failed'
	has 'its log says why' "$(sed -n 's/^ *test log *//p' out)" 'search is bad'
	run -C go -- -run Port
	is 'arguments reach it' $status 0
	if have gotestsum; then
		run -C go --test 'gotestsum --junitfile "$PRUN_JUNIT" -- -count=1 "$@" "./$PRUN_TEST"'
		has 'gotestsum counts its tests' out '^cart +PASS +4 '
	else
		skip 'no gotestsum' 'gotestsum counts its tests'
	fi
else
	skip 'no go' 'Go: a failing package fails the run' \
		'the other passes, with all of its files' 'its log says why' \
		'arguments reach it' 'gotestsum counts its tests'
fi

# cargo builds once, before anything runs.  A file in tests/ is a target.
if cargo --version >/dev/null 2>&1; then
	mkdir -p cargo/src cargo/tests
	cat >cargo/Cargo.toml <<-'END'
	[package]
	name = "kinds"
	version = "0.1.0"
	edition = "2021"
	END
	echo 'pub fn one() -> i32 { 1 }' >cargo/src/lib.rs
	for target in cart search; do
		cat >cargo/tests/$target.rs <<-END
		#[test] fn port() { std::env::var("PRUN_PORT").unwrap(); }
		#[test] fn bad() { assert!("$target" == "cart", "search is bad"); }
		END
	done
	cat >cargo/prun.conf <<-'END'
	files = tests/*.rs
	setup = cargo test --offline --no-run
	test = name=${PRUN_TEST##*/}; cargo test --offline -q --test "${name%.rs}" --
	  --test-threads=$PRUN_CPUS "$@"
	END
	run -C cargo
	is 'cargo: a failing target fails the run' $status 1
	has 'the other passes' out '^tests/cart.rs +PASS'
	has 'its log says why' "$(sed -n 's/^ *test log *//p' out)" 'search is bad'
	run -C cargo -- port
	is 'arguments reach it' $status 0
else
	skip 'no cargo' 'cargo: a failing target fails the run' 'the other passes' \
		'its log says why' 'arguments reach it'
fi

# ctest knows its tests by number; the whole is one unit that runs in parallel itself, and
# writes a report.
if have ctest && have cmake && have make; then
	mkdir ctest
	cat >ctest/CMakeLists.txt <<-'END'
	cmake_minimum_required(VERSION 3.21)
	project(kinds NONE)
	enable_testing()
	add_test(NAME port COMMAND sh -c "test -n \"$PRUN_PORT\"")
	add_test(NAME bad COMMAND sh -c "echo this is bad; exit 1")
	END
	cat >ctest/prun.conf <<-'END'
	files = build
	split = suite
	test = ctest --test-dir "$PRUN_TEST" -j$PRUN_CPUS --output-on-failure
	  --output-junit "$PRUN_JUNIT" "$@"
	END
	(cd ctest && cmake -B build) >cmake.log 2>&1
	run -C ctest
	has 'ctest: its tests are counted' out '^build +FAIL +2 '
	has 'and named' out 'bad'
	run -C ctest -- -R port
	has 'arguments reach it' out '^build +PASS +1 '
else
	skip 'no ctest' 'ctest: its tests are counted' 'and named' 'arguments reach it'
fi
finish
