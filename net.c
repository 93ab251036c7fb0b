/*
 * net.c: a port for each server, and when it answers.
 *
 * A port is held: a socket is bound to it, never listens, and stays until the
 * attempt is over.  While it is held the kernel gives the port to nobody who
 * asks for any, neither as a listener nor as the near end of a connection;
 * yet a server that sets SO_REUSEADDR, as nearly all do, can bind it.  Where
 * a system does not allow that second bind, the port is let go at once and
 * luck must do; a lost port is noticed and the attempt tries another.
 *
 * Readiness is asked for at intervals of a fiftieth of the time that the
 * server has taken so far, 1 to 25 ms: whoever is fast is noticed at once,
 * and nobody waits 2 % longer than it has to.
 */
#include "prun.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#ifdef __TINYC__
#define __STDC_NO_VLA__ 1       /* tcc cannot read glibc's prototype of regexec else */
#endif
#include <regex.h>

enum { READY_TCP, READY_HTTP, READY_LOG, READY_COMMAND, READY_FD, READY_NONE };

static const char *const ready_word[] = {
	"tcp", "http", "log", "command", "fd", "none"
};

const char *
net_ready_parse(const char *value, struct ready *r)
{
	regex_t re;
	size_t n = strcspn(value, " \t");
	int i;

	for (i = 0; i < (int)LEN(ready_word); i++)
		if (strlen(ready_word[i]) == n && !strncmp(value, ready_word[i], n))
			break;
	r->kind = i;
	r->arg = value + n + strspn(value + n, " \t");
	switch (i) {
	case READY_HTTP:
		return *r->arg == '/' ? NULL : "http needs a path: http /";
	case READY_LOG:
		if (!*r->arg || regcomp(&re, r->arg, REG_EXTENDED | REG_NOSUB))
			return "log needs an extended regular expression";
		regfree(&re);
		return NULL;
	case READY_COMMAND:
		return *r->arg ? NULL : "command needs a command";
	case READY_TCP:
	case READY_FD:
	case READY_NONE:
		return *r->arg ? "takes no argument" : NULL;
	}
	return "not one of: tcp, http PATH, log ERE, command CMD, fd, none";
}

bool
net_ready_fd(const struct ready *r)
{
	return r->kind == READY_FD;
}

/* Fills a for 127.0.0.1, ::1 or, with any, all addresses. */
static socklen_t
address(struct sockaddr_storage *a, int family, int port, bool any)
{
	struct sockaddr_in *in = (struct sockaddr_in *)a;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)a;

	memset(a, 0, sizeof(*a));
	if (family == AF_INET) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		in->sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK);
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	in6->sin6_addr = any ? in6addr_any : in6addr_loopback;
	return sizeof(*in6);
}

/* A socket bound to port, or to a free one for 0; -1 with errno. */
static int
bound(int family, int port, bool reuse)
{
	struct sockaddr_storage a;
	socklen_t len = address(&a, family, port, true);
	int fd, on = 1, off = 0, err;

	fd = socket(family, SOCK_STREAM, 0);
	if (fd < 0)
		return -1;
	set_cloexec(fd);
	if ((family == AF_INET || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY,
			&off, sizeof(off)) == 0)
	&& (!reuse || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on,
			sizeof(on)) == 0)
	&& bind(fd, (struct sockaddr *)&a, len) == 0)
		return fd;
	err = errno;
	close(fd);
	errno = err;
	return -1;
}

static int
port_of(int fd)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return -1;
	return ntohs(a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port
		: ((struct sockaddr_in6 *)&a)->sin6_port);
}

int
net_hold(int *port, int *hold)
{
	static int holds = -1;  /* whether this system allows holding */
	int family = AF_INET6, fd, second;

	fd = bound(family, 0, true);
	if (fd < 0)
		fd = bound(family = AF_INET, 0, true);
	if (fd < 0)
		return -1;
	*port = port_of(fd);
	if (holds < 0) {
		second = bound(family, *port, true);
		holds = second >= 0 && listen(second, 1) == 0;
		if (second >= 0)
			close(second);
	}
	*hold = holds ? fd : -1;
	if (!holds)
		close(fd);
	return 0;
}

bool
net_taken(int *hold, int port)
{
	int fd = *hold;
	bool taken;

	if (fd < 0) {
		fd = bound(AF_INET6, port, true);
		if (fd < 0 && errno != EADDRINUSE)
			fd = bound(AF_INET, port, true);
		if (fd < 0)
			return errno == EADDRINUSE;
	}
	taken = listen(fd, 1) < 0 && errno == EADDRINUSE;
	close(fd);
	*hold = -1;
	return taken;
}

/* ---- readiness ---- */

struct probe {
	struct worker *w;
	struct proc *server;
	const struct ready *ready;
	int64_t deadline;
	int port;
};

/* Waits for events on fd; false when the deadline, a cancel or the server's
 * end came first. */
static bool
await(const struct probe *p, int fd, short events, int64_t deadline)
{
	struct pollfd pfd;

	pfd.fd = fd;
	pfd.events = events;
	for (;;) {
		if (p->w->cancelled || proc_ended(p->server) || proc_late(p->w, deadline))
			return false;
		if (proc_wait(p->w, &pfd, fd >= 0, deadline) & SAW_FD)
			return true;
	}
}

/* A connection whose both ends are one socket: TCP allows it when the port
 * that connect chooses is the one that it connects to. */
static bool
to_itself(int fd)
{
	struct sockaddr_storage a, b;
	socklen_t la = sizeof(a), lb = sizeof(b);

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	return getsockname(fd, (struct sockaddr *)&a, &la) < 0
		|| getpeername(fd, (struct sockaddr *)&b, &lb) < 0
		|| (la == lb && !memcmp(&a, &b, la));
}

/* Asks for the path; whether the answer is 2xx or 3xx. */
static bool
http_says_yes(const struct probe *p, int fd)
{
	char *request = str("GET %s HTTP/1.0\r\nHost: localhost:%d\r\n"
		"Connection: close\r\n\r\n", p->ready->arg, p->port);
	int64_t deadline = proc_clock(p->w) + 5000;
	char answer[16];
	size_t n = 0;
	ssize_t r = 0;

	if (deadline > p->deadline)
		deadline = p->deadline;
	/* A fresh socket's buffer takes so short a request whole. */
	if (write(fd, request, strlen(request)) == (ssize_t)strlen(request))
		while (n < 12 && await(p, fd, POLLIN, deadline)
		&& (r = read(fd, answer + n, 12 - n)) > 0)
			n += (size_t)r;
	return n == 12 && !memcmp(answer, "HTTP/1.", 7)
		&& (answer[9] == '2' || answer[9] == '3');
}

static bool
try_connect(const struct probe *p, int family)
{
	struct sockaddr_storage a;
	socklen_t len = address(&a, family, p->port, false);
	int fd = socket(family, SOCK_STREAM, 0), err = 0;
	socklen_t errlen = sizeof(err);
	bool yes = false;

	if (fd < 0)
		return false;   /* no IPv6 here, say */
	set_cloexec(fd);
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		goto out;
	if (connect(fd, (struct sockaddr *)&a, len) < 0) {
		if (errno != EINPROGRESS)
			goto out;
		/* One at a time: a second would hang on a backlog of 0. */
		if (!await(p, fd, POLLOUT, p->deadline)
		|| getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &errlen) < 0 || err)
			goto out;
	}
	yes = !to_itself(fd) && (p->ready->kind == READY_TCP || http_says_yes(p, fd));
out:
	close(fd);
	return yes;
}

/* Whether a line of the log matches; *at is how far whole lines were read. */
static bool
log_matches(const char *log, const regex_t *re, off_t *at)
{
	struct buf line = { 0 };
	char chunk[4096];
	bool yes = false;
	int fd = open(log, O_RDONLY);
	ssize_t n = 0, i;

	if (fd < 0 || lseek(fd, *at, SEEK_SET) < 0)
		goto out;
	while (!yes && (n = read(fd, chunk, sizeof(chunk))) > 0) {
		for (i = 0; i < n && !yes; i++) {
			if (chunk[i] != '\n') {
				/* NUL would end the string for regexec. */
				buf_char(&line, chunk[i] ? chunk[i] : ' ');
				continue;
			}
			*at += (off_t)line.n + 1;
			buf_char(&line, '\0');
			yes = regexec(re, line.s, 0, NULL, 0) == 0;
			line.n = 0;
		}
	}
	if (!yes && line.n)
		yes = regexec(re, line.s, 0, NULL, 0) == 0;
out:
	if (fd >= 0)
		close(fd);
	buf_free(&line);
	return yes;
}

/* Waits for a newline on fd; what is wrong where none will come, or NULL. */
static const char *
await_newline(const struct probe *p, int fd)
{
	char chunk[64];
	ssize_t n;

	while (await(p, fd, POLLIN, p->deadline)) {
		n = read(fd, chunk, sizeof(chunk));
		if (n > 0 && memchr(chunk, '\n', (size_t)n))
			return NULL;
		if (n == 0)
			return "closed PRUN_READY_FD without a newline";
	}
	return "wrote no newline to PRUN_READY_FD";
}

static bool
ask(const struct probe *p, const regex_t *re, const char *log, off_t *at,
	const struct spawn *command, struct buf *why)
{
	switch (p->ready->kind) {
	case READY_LOG:
		return log_matches(log, re, at);
	case READY_COMMAND:
		return proc_run(p->w, command, p->deadline, true, why) == 0;
	default:
		return try_connect(p, AF_INET) || try_connect(p, AF_INET6);
	}
}

enum cause
net_ready(struct worker *w, struct proc *server, const struct ready *r,
	int port, int64_t timeout_ms, const char *log, int fd,
	const struct spawn *command, struct buf *why)
{
	struct probe p = { w, server, r, 0, port };
	int64_t begin = proc_clock(w), next, wait;
	const char *wrong = NULL;
	regex_t re;
	off_t at = 0;
	bool yes = false;

	p.deadline = begin + timeout_ms;
	if (r->kind == READY_NONE)
		return CAUSE_NONE;
	if (r->kind == READY_LOG && regcomp(&re, r->arg, REG_EXTENDED | REG_NOSUB))
		fatal(EXIT_RUN, "ready = log %s: bad expression", r->arg);
	if (r->kind == READY_FD) {
		wrong = await_newline(&p, fd);
		yes = !wrong;
	} else do {
		yes = ask(&p, &re, log, &at, command, why);
		wait = (proc_clock(w) - begin) / 50;
		wait = wait < 1 ? 1 : wait > 25 ? 25 : wait;
		next = proc_clock(w) + wait;
	} while (!yes && (await(&p, -1, 0, next), !w->cancelled)
	&& !proc_ended(server) && !proc_late(w, p.deadline));
	if (r->kind == READY_LOG)
		regfree(&re);
	if (w->cancelled)
		return CAUSE_CANCELLED;
	/* Whoever answered for a dead server is not ours. */
	if (proc_ended(server))
		return CAUSE_SERVER_DIED;
	if (yes)
		return CAUSE_NONE;
	if (wrong)
		buf_fmt(why, "it %s", wrong);
	else if (r->kind == READY_LOG)
		buf_fmt(why, "no line of its log matches %s", r->arg);
	else if (r->kind == READY_COMMAND)
		buf_fmt(why, "%s did not exit with 0", r->arg);
	else
		buf_fmt(why, "nothing %s on port %d of 127.0.0.1 or ::1",
			r->kind == READY_HTTP ? "says 2xx or 3xx" : "answers",
			port);
	return CAUSE_SERVER_NOT_READY;
}
