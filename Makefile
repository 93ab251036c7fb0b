.POSIX:

CC = cc
CFLAGS = -O2
LDLIBS =
TESTS =
PREFIX = /usr/local
DESTDIR =

# glibc before 2.34 has dlopen in a library of its own: make LDLIBS=-ldl
ALL_CFLAGS = -std=c99 -pedantic -Wall -Wextra -Wshadow $(CFLAGS)
OBJ = prun.o run.o work.o plan.o conf.o pg.o sql.o proc.o show.o junit.o xml.o base.o
DEMO = t/demo/app t/demo/http

all: prun

prun: $(OBJ)
	$(CC) $(LDFLAGS) -o $@ $(OBJ) $(LDLIBS)

$(OBJ): prun.h

.c.o:
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

t/demo/app: t/demo/app.c
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ t/demo/app.c

t/demo/http: t/demo/http.c
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ t/demo/http.c

# Eight end-to-end tests, each with its own copy of the data and its own server.
demo: prun $(DEMO)
	./prun -C t/demo -j max

# The same tests on one shared server, where they hurt each other.
demo-shared: prun $(DEMO)
	t/demo/shared

test: prun $(DEMO)
	t/run

# All tests with a prun that is watched; what it does wrong makes it abort.  Two
# preload a library before it, where the sanitizers want to be first.
check-asan: prun $(DEMO)
	$(CC) $(ALL_CFLAGS) -g -fsanitize=address,undefined -fno-sanitize-recover=all \
		-o t/prun-asan *.c $(LDLIBS)
	PRUN_ASAN=1 PRUN=$$PWD/t/prun-asan t/run -j6 \
		--exclude 't/36-systems.t t/38-records.t'

# The same under valgrind, which takes minutes; TESTS are all, or some.
check-valgrind: prun $(DEMO)
	$(CC) $(ALL_CFLAGS) -g -o t/prun-debug *.c $(LDLIBS)
	t/valgrind $(TESTS)

# What takes minutes: compilers, macOS, analysers, shells, sanitizers, kills, fuzzing.
check-long: prun $(DEMO)
	t/long

# One table, ratio first, which is kept in t/bench/RESULTS.
bench: prun
	t/with-pg t/bench/all

install: prun
	mkdir -p $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	cp prun $(DESTDIR)$(PREFIX)/bin/prun
	cp prun.1 $(DESTDIR)$(PREFIX)/share/man/man1/prun.1

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/prun $(DESTDIR)$(PREFIX)/share/man/man1/prun.1

clean:
	rm -f prun $(OBJ) $(DEMO) t/prun-asan t/prun-debug t/bench/clock
