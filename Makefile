.POSIX:

CC = cc
CFLAGS = -O2 -std=c99 -pedantic -Wall -Wextra -Wshadow
LDLIBS =
PREFIX = /usr/local
DESTDIR =
MANDIR = $(PREFIX)/share/man

OBJ = prun.o conf.o work.o net.o pg.o proc.o junit.o show.o

all: prun

prun: $(OBJ)
	$(CC) $(LDFLAGS) -o $@ $(OBJ) $(LDLIBS)

$(OBJ): prun.h

.c.o:
	$(CC) $(CFLAGS) -c -o $@ $<

clean:
	rm -f prun $(OBJ)
