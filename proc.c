/*
 * proc.c: sessions, waiting and signals; ports and readiness.
 *
 * Every child of a worker leads a session.  It waits at a gate until its
 * process id stands in prun's pipe, and only then execs; so whoever outlives
 * the worker knows whom to kill.  The leader stays a zombie until its group is
 * dead, since as long as it is one its number cannot be a stranger's.
 *
 * On Linux a worker is a subreaper: what has left its session becomes its child
 * when its parent dies, and is killed.  Elsewhere daemons are out of reach.
 *
 * A worker blocks in proc_wait() and nowhere else.  Signals come through a pipe
 * to oneself, so that none is lost between a test and poll.
 */
#include "prun.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <regex.h>
#ifdef __linux__
#include <sys/prctl.h>
#else   /* Nowhere else do orphans come to us, or is a parent's death told. */
#define prctl(...)
#endif

/* Caught are the first CAUGHT of these, but HUP stays ignored.  That a worker
 * catches them means that they do nothing to it. */
static const int sigs[] = {
	SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGCHLD, SIGCONT,
	SIGTTOU, SIGPIPE, SIGXFSZ
};
enum { CAUGHT = 8 };

static int self[2] = { -1, -1 };
static volatile sig_atomic_t caught[64];
static sigset_t no_signals;             /* what is blocked, but around a fork */

static int children = -1;               /* the file that lists ours, Linux only */
static struct pids inherited;           /* children we had: sh -c 'x & exec prun' */

static bool
among(pid_t pid, const struct pids *s)
{
	for (size_t i = 0; s && i < s->n; i++)
		if (s->v[i] == pid)
			return true;
	return false;
}

bool
proc_add(struct pids *s, pid_t pid)
{
	if (among(pid, s))
		return false;
	s->v = grow(s->v, &s->cap, s->n + 1, sizeof(*s->v));
	s->v[s->n++] = pid;
	return true;
}

void
proc_remove(struct pids *s, pid_t pid)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i] == pid)
			s->v[i] = s->v[--s->n];
}

static void
on_signal(int sig)
{
	int saved = errno;

	caught[sig] = 1;
	/* A full pipe wakes the reader as well as one more byte would. */
	write_all(self[1], "", 1);
	errno = saved;
}

/* SA_RESTART: only poll() is ever interrupted. */
static void
handle(int sig, void (*handler)(int))
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };

	sigfillset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);      /* a signal that there is: cannot fail */
}

int
proc_pipe(int fd[2])
{
	if (pipe(fd) < 0)
		return -1;
	fcntl(fd[0], F_SETFD, FD_CLOEXEC);
	fcntl(fd[1], F_SETFD, FD_CLOEXEC);
	return 0;
}

static void
open_self(void)
{
	close_keep(self[0]);
	close_keep(self[1]);
	if (proc_pipe(self) < 0)
		fatal(EXIT_RUN, "pipe:");
	fcntl(self[0], F_SETFL, O_NONBLOCK);    /* cannot fail */
	fcntl(self[1], F_SETFL, O_NONBLOCK);
}

/* Lists our children (of a session, unless it is 0) but for the known and
 * inherited ones, and reaps the dead by their numbers: waitpid(-1) would take a
 * leader.  False where the system does not tell. */
static bool
list_children(struct pids *c, const struct pids *known, pid_t session)
{
	char text[4096], *end;
	ssize_t n = 0;

	if (children < 0)
		children = open_regular(str("/proc/self/task/%ld/children", (long)getpid()),
			O_RDONLY);
	c->n = 0;
	/* A child that ends meanwhile can hide others: so we look twice. */
	for (int tries = 0; tries < 2 && !c->n && n >= 0; tries++) {
		n = pread(children, text, sizeof(text) - 1, 0);
		text[n > 0 ? n : 0] = '\0';
		for (char *s = text; (end = strchr(s, ' ')); s = end + 1) {
			pid_t pid = (pid_t)strtol(s, NULL, 10);
			if (!among(pid, known) && !among(pid, &inherited)
			&& waitpid(pid, NULL, WNOHANG) != pid
			&& (!session || getsid(pid) == session))
				proc_add(c, pid);
		}
	}
	return children >= 0;
}

void
proc_init(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
			fatal(EXIT_RUN, "/dev/null:");
	/* Descriptors that prun was started with are not for children.  Not all
	 * systems list them, and there may be room for 10^9. */
	for (int fd = 3; fd < 1024; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	/* env --block-signal=CHLD prun: we would wait for ever. */
	sigemptyset(&no_signals);
	sigprocmask(SIG_SETMASK, &no_signals, NULL);
}

void
proc_catch(void)
{
	struct sigaction sa;

	open_self();
	for (size_t i = 0; i < CAUGHT; i++) {
		sigaction(sigs[i], NULL, &sa);
		/* nohup prun: stays deaf.  An ignored CHLD loses statuses. */
		if (sa.sa_handler != SIG_IGN || sigs[i] == SIGCHLD)
			handle(sigs[i], on_signal);
	}
	handle(SIGPIPE, SIG_IGN);       /* writes say EPIPE instead */
	handle(SIGXFSZ, SIG_IGN);       /* and EFBIG */
	list_children(&inherited, NULL, 0);
	/* Fails before Linux 3.4 only; then daemons escape as elsewhere. */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

bool
proc_caught(int sig)
{
	/* One that comes in between is the one that we report. */
	if (!caught[sig])
		return false;
	caught[sig] = 0;
	return true;
}

/* ---- a worker ---- */

/* prun's own descriptors 0 to 2, in an interactive worker. */
static int prun_fds[3];

void
proc_become_worker(const char *log, bool terminal)
{
	/* A kill of prun's group must not hit the guardian of its children,
	 * nor must pkill: prun hears of it and tells its workers. */
	if (!terminal)
		setsid();               /* cannot fail in a fresh child */
	handle(SIGTTOU, SIG_IGN);
	close_keep(children);           /* it lists prun's */
	children = -1;
	open_self();
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	/* A stopped guardian would guard nothing. */
	prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0);
	for (int fd = 0; terminal && fd < 3; fd++)
		prun_fds[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 4);   /* -1: child() says so */
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out = open_regular(log, O_WRONLY | O_CREAT | O_APPEND);
	/* A worker goes without a log where somebody has put something else. */
	if (null < 0 || dup2(null, 0) < 0 || dup2(out < 0 ? null : out, 1) < 0
	|| dup2(1, 2) < 0)
		fatal(EXIT_RUN, "/dev/null:");
	close(null);                    /* above 2: 0 to 2 are open in prun */
	close_keep(out);
}

int64_t
proc_clock(const struct worker *w)
{
	return clock_ms() - w->paused_ms;
}

/* Takes one order off the pipe, which has one or has ended. */
static void
read_order(struct worker *w)
{
	struct order o;

	if (read(w->orders, &o, sizeof(o)) != (ssize_t)sizeof(o)) {
		/* End of file without QUIT: prun is dead.  No grace. */
		close(w->orders);
		w->orders = -1;
		o = (struct order){ .type = ORDER_CANCEL };
	}
	if (o.type == ORDER_CANCEL) {
		w->cancelled = true;
		w->cancel_by = proc_clock(w) + o.ms;
	} else if (o.type == ORDER_PAUSED) {
		w->paused_ms += o.ms;
	} else if (o.type == ORDER_GO) {
		w->go = true;
	} else {
		w->next = o;
		w->ordered = true;
	}
}

bool
proc_late(struct worker *w, int64_t deadline)
{
	struct pollfd p = { w->orders, POLLIN, 0 };

	if (proc_clock(w) < deadline)
		return false;
	/* We may have been stopped: the order that says so comes first. */
	for (; poll(&p, 1, 0) > 0; p.fd = w->orders)    /* -1: nothing to poll */
		read_order(w);
	return proc_clock(w) >= deadline;
}

void
proc_wait(struct worker *w, struct pollfd *fds, size_t n, int64_t deadline)
{
	struct pollfd own[2], *all = fds ? fds : own;
	struct pids orphans = { 0 };
	bool ended = false;
	char junk[64];

	if (w && w->watch && w->watch_at < deadline)
		deadline = w->watch_at;
	int64_t left = deadline - (w ? proc_clock(w) : clock_ms());
	if (left < 0)
		left = 0;
	all[n] = (struct pollfd){ w ? w->orders : -1, POLLIN, 0 };
	all[n + 1] = (struct pollfd){ self[0], POLLIN, 0 };
	int r = poll(all, n + 2, left < INT_MAX ? (int)left : INT_MAX);
	if (r < 0 && errno != EINTR)
		fatal(EXIT_RUN, "poll of %zu descriptors:", n + 2);
	while (read(self[0], junk, sizeof(junk)) > 0)
		ended = true;
	/* A test may wait, by kill -0, for the end of a daemon that is ours. */
	if (w && ended)
		list_children(&orphans, &w->pids, 0);
	free(orphans.v);
	if (r > 0 && all[n].revents)
		read_order(w);
	if (w && w->watch && proc_clock(w) >= w->watch_at)
		w->watch(w->watched);
}

void
proc_pause(struct worker *w, int64_t deadline)
{
	while (!w->cancelled && !proc_late(w, deadline))
		proc_wait(w, NULL, 0, deadline);
}

void
proc_tell(struct worker *w, const struct news *n)
{
	/* If it fails prun is dead, which the order pipe will say. */
	write_all(w->news, (const char *)n, sizeof(*n));
}

/* ---- starting ---- */

void
proc_take_terminal(void)
{
	tcsetpgrp(prun_fds[0], getpgrp());      /* fails where it is none */
}

/* In the child: never returns.  talk opens the gate, then takes an errno. */
static void
child(const struct spawn *s, pid_t parent, int talk, int log)
{
	const int own[3] = { s->in, s->out ? s->out : log, log };
	const int *from = s->terminal ? prun_fds : own;
	bool good = true;
	char c;

	if (!s->terminal) {
		setsid();       /* cannot fail in a fresh child */
	} else {
		/* A foreground group, if there is a terminal, for ^C. */
		setpgid(0, 0);
		tcsetpgrp(prun_fds[0], getpid());
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	/* Either died before we asked, or before it could announce us. */
	if (getppid() != parent || read(talk, &c, 1) != 1)
		_exit(127);
	/* A shell ignores INT and QUIT for prun &: tests need them all the
	 * same.  HUP is ignored still, or caught, which exec ends. */
	for (size_t i = 1; i < LEN(sigs); i++)
		handle(sigs[i], SIG_DFL);
	if (s->terminal)
		handle(SIGTSTP, SIG_IGN);       /* no shell would wake it */
	sigprocmask(SIG_SETMASK, &no_signals, NULL);
	if (s->fd > 2 && talk == 3)
		talk = fcntl(talk, F_DUPFD_CLOEXEC, 4);
	for (size_t i = 0; i < 3 && good; i++)
		good = dup2(from[i], (int)i) >= 0;
	/* dup2() onto itself does nothing: close-on-exec has to go, too. */
	if (good && s->fd > 2)
		good = dup2(s->fd, 3) >= 0 && fcntl(3, F_SETFD, 0) == 0;
	environ = s->env;
	/* execvp would hand a file without #! to the shell. */
	if (good && strchr(s->argv[0], '/'))
		execve(s->argv[0], s->argv, s->env);
	else if (good)
		execvp(s->argv[0], s->argv);
	_exit(write(talk, &errno, sizeof(errno)) < 0 ? 126 : 127);
}

/* Reaps the leader, whose group is dead or never was. */
static void
forget(struct worker *w, struct proc *p)
{
	proc_remove(&w->pids, p->pid);
	/* First: once it is reaped, its number may be a stranger's. */
	proc_tell(w, &(struct news){ .type = NEWS_REAPED, .pid = p->pid });
	waitpid(p->pid, NULL, 0);       /* a zombie of ours: cannot fail */
	p->pid = 0;
}

/* Words for the errno of what was to run prog. */
static char *
why_not(const char *prog, int err)
{
	const char *why = strerror(err);

	if (err == ENOENT && strchr(prog, '/') && access(prog, F_OK) == 0)
		why = "the interpreter in its first line is missing";
	else if (err == ENOENT)
		why = "command not found";
	else if (err == ENOEXEC)
		why = "neither a program nor a script with #!";
	else if (err == EACCES)
		why = "not executable";
	return str("cannot run %s: %s", prog, why);
}

const char *
proc_start(struct worker *w, struct proc *p, const struct spawn *s)
{
	int log = s->log ? open_regular(s->log, O_WRONLY | O_CREAT | O_APPEND) : s->out;
	struct news n = { .type = NEWS_SESSION };
	pid_t parent = getpid();
	sigset_t all;
	int talk[2];

	*p = (struct proc){ .shell = !strcmp(s->argv[0], "/bin/sh") && s->argv[1]
		&& !strcmp(s->argv[1], "-c") };
	if (log < 0)
		return str("%s: %s", s->log, strerror(errno));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, talk) < 0) {
		close_keep(s->log ? log : -1);
		return why_not(s->argv[0], errno);
	}
	fcntl(talk[0], F_SETFD, FD_CLOEXEC);
	fcntl(talk[1], F_SETFD, FD_CLOEXEC);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	n.pid = fork();
	if (n.pid == 0) {
		close(talk[0]);
		child(s, parent, talk[1], log);
	}
	int err = errno;
	sigprocmask(SIG_SETMASK, &no_signals, NULL);
	close(talk[1]);                 /* the child's exec closes the last one */
	close_keep(s->log ? log : -1);
	struct pollfd gate = { talk[0], POLLIN, 0 };
	if (n.pid > 0) {
		p->pid = n.pid;
		proc_add(&w->pids, n.pid);
		proc_tell(w, &n);
		/* Who was killed at the gate is EPIPE here, as its status will
		 * say.  Who is stopped there, his prun dead, has only us. */
		bool good = write(talk[0], "", 1) == 1;
		while (good && poll(&gate, 1, 1000) <= 0)
			kill(n.pid, SIGCONT);
		if (!good || read(talk[0], &err, sizeof(err)) <= 0)
			err = 0;
		else
			forget(w, p);
	}
	close(talk[0]);
	return err ? why_not(s->argv[0], err) : NULL;
}

char **
proc_argv(const char *cmd, const struct list *args)
{
	/* Only the shell has these (POSIX, 2.14 and 1.7). */
	static const char builtin[] = " . : alias bg break cd command continue eval exec exit "
		"export fc fg getopts hash jobs read readonly return set shift times trap type "
		"ulimit umask unalias unset wait if while until for case ";
	char **argv = scratch((strlen(cmd) + 5 + (args ? args->n : 0)) * sizeof(*argv));
	size_t n = 0;

	if (!strpbrk(cmd, "|&;<>()$`\\\"'*?[]#~=%!{}\n"))
		for (char *s = strtok(str("%s", cmd), " \t"); s; s = strtok(NULL, " \t"))
			argv[n++] = s;
	if (!n || strstr(builtin, str(" %s ", argv[0]))) {
		/* The last one is $0, which begins the shell's messages. */
		char *sh[] = { "/bin/sh", "-c", str("%s", cmd), "sh" };
		memcpy(argv, sh, sizeof(sh));
		n = LEN(sh);
		for (size_t i = 0; args && i < args->n; i++)
			argv[n++] = args->v[i];
	}
	argv[n] = NULL;
	return argv;
}

/* ---- ending ---- */

bool
proc_ended(struct proc *p)
{
	siginfo_t si = { 0 };

	if (p->ended || !p->pid)
		return p->ended;
	if (waitid(P_PID, p->pid, &si, WEXITED | WNOWAIT | WNOHANG) < 0 || si.si_pid != p->pid)
		return false;
	p->ended = true;
	p->core = si.si_code == CLD_DUMPED;
	p->status = si.si_status & 0xff;        /* BSDs give all bits, macOS 24 */
	if (si.si_code != CLD_EXITED)           /* macOS 10.15 tells no signal */
		p->status = si.si_status > 0 ? -si.si_status : -SIGKILL;
	else if (p->shell && p->status > 128 && p->status <= 128 + SIGTERM)
		p->status = 128 - p->status;    /* what a shell has run was killed */
	return true;
}

size_t
proc_dead(struct proc *v, size_t n)
{
	size_t i;

	for (i = 0; i < n && (!v[i].pid || !proc_ended(&v[i])); i++)
		;
	return i;
}

/* Appends a line with a process's id and arguments. */
static void
name_process(struct buf *b, pid_t pid)
{
	struct buf args = scratch_buf();

	/* In the middle of an exec there are none; if it has gone, neither. */
	buf_read(&args, str("/proc/%ld/cmdline", (long)pid));
	for (size_t i = 0; i < args.n; i++)
		if (!args.s[i] || args.s[i] == '\n')
			args.s[i] = ' ';
	buf_fmt(b, "%ld %.200s\n", (long)pid, shown(args.s));
}

int
proc_left(struct worker *w, const struct proc *p, struct buf *names)
{
	struct pids c = { 0 };
	bool told = list_children(&c, &w->pids, p->pid);

	for (size_t i = 0; names && i < c.n; i++)
		name_process(names, c.v[i]);
	free(c.v);
	return told ? (int)c.n : -1;
}

/* Whether nothing but zombies is left of a session whose leader is dead, where
 * no list of children tells; sh -c may have gone while the server flushes. */
static bool
group_is_gone(struct worker *w, const struct proc *p)
{
	if (killpg(p->pid, 0) < 0)              /* EPERM: zombies only (macOS) */
		return true;
	/* stat is not in POSIX, but every ps has it; else nothing is said. */
	if (system(str("ps -A -o pgid= -o stat= 2>/dev/null | awk '"
			"$1 == %ld && $2 !~ /^Z/ { n++ } END { exit !NR || n }'",
			(long)p->pid)) == 0)
		return true;
	proc_wait(w, NULL, 0, 0);               /* the end of ps is none of the session */
	return false;
}

void
proc_stop(struct worker *w, struct proc *p, int64_t grace_ms, bool patient, struct buf *notes)
{
	struct pids left = { 0 }, termed = { 0 };
	int64_t now = proc_clock(w), end = grace_ms < 0 ? NEVER : now + grace_ms;
	bool ended = false, killing = false;

	if (!p->pid)
		return;
	while (!ended) {
		now = proc_clock(w);
		if (!killing && w->cancelled && w->cancel_by < end)
			end = w->cancel_by;
		if (proc_late(w, end)) {
			if (killing)
				break;
			killing = true;
			end = now + 5000;
		}
		ended = proc_ended(p);  /* asked first: its children are ours from then on */
		bool told = list_children(&left, &w->pids, p->pid);
		/* The leader's group, and those of a shell with job control. */
		for (size_t i = 0; i <= left.n; i++) {
			pid_t group = i ? getpgid(left.v[i - 1]) : p->pid;
			if (group > 0 && (killing || proc_add(&termed, group))) {
				killpg(group, killing ? SIGKILL : SIGTERM);
				killpg(group, SIGCONT);         /* else it takes no TERM */
			}
		}
		if (ended && (told || killing))
			ended = !left.n;
		else if (ended && patient)
			ended = group_is_gone(w, p);
		/* Only to a subreaper does every end tell itself. */
		if (!ended)
			proc_wait(w, NULL, 0, end < now + 100 ? end : now + 100);
	}
	killpg(p->pid, SIGKILL);        /* where we are not told of what is left */
	if (!proc_ended(p))
		proc_add(&left, p->pid);
	for (size_t i = 0; i < left.n; i++)
		buf_fmt(notes, "- process %ld could not be killed\n", (long)left.v[i]);
	free(left.v);
	free(termed.v);
	if (p->ended)
		forget(w, p);
}

int
proc_drain(const struct pids *keep, struct buf *names)
{
	struct pids c = { 0 }, named = { 0 };
	int64_t begin = clock_ms();

	while (list_children(&c, keep, 0) && c.n && clock_ms() < begin + 5000) {
		/* Who is about to end by himself has left nothing. */
		for (size_t i = 0; i < c.n && (!names || clock_ms() >= begin + 100); i++) {
			if (named.n < 20 && proc_add(&named, c.v[i]) && names)
				name_process(names, c.v[i]);
			/* Its children may fork faster than we list them. */
			pid_t group = getpgid(c.v[i]);
			if (group > 1 && group != getpgrp() && !among(group, keep))
				killpg(group, SIGKILL);
			kill(c.v[i], SIGKILL);
		}
		proc_wait(NULL, NULL, 0, clock_ms() + 5);
	}
	free(c.v);
	free(named.v);
	return (int)named.n;
}

char *
proc_how_ended(const struct proc *p)
{
	if (p->status >= 0)
		return str("exit status %d", p->status);
	return str("killed by signal %d (%s)%s", -p->status, strsignal(-p->status),
		p->core ? ", core dumped" : "");
}

const char *
proc_run(struct worker *w, const struct spawn *s, int64_t deadline,
	bool heed, int64_t grace_ms, struct buf *notes)
{
	struct proc p;
	const char *why = proc_start(w, &p, s);

	if (why)
		return why;
	while (!proc_ended(&p) && !(heed && w->cancelled) && !proc_late(w, deadline))
		proc_wait(w, NULL, 0, deadline);
	if (!p.ended)
		why = "it did not end in time and was stopped";
	else if (p.status)
		why = proc_how_ended(&p);
	proc_stop(w, &p, p.ended ? 0 : grace_ms, false, notes);
	return why;
}

/* ---- ports ---- */

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;        /* its port is where in has it, on all systems */
};

/* Fills a for the loopback address or, with any, all addresses. */
static socklen_t
address(union address *a, int family, int port, bool any)
{
	memset(a, 0, sizeof(*a));
	a->any.sa_family = (sa_family_t)family;
	a->in.sin_port = htons((uint16_t)port);
	if (family == AF_INET) {
		a->in.sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK);
		return sizeof(a->in);
	}
	a->in6.sin6_addr = any ? in6addr_any : in6addr_loopback;
	return sizeof(a->in6);
}

/* A socket bound to *port, or to a free one, which it becomes, of all of IPv6
 * and IPv4; of IPv4 alone where there is no IPv6; -1 with errno. */
static int
bind_any(int *port)
{
	static const int families[] = { AF_INET6, AF_INET };
	const int on = 1, off = 0;
	union address a;
	socklen_t len;
	int fd = -1;

	errno = 0;
	for (int i = 0; i < 2 && fd < 0 && errno != EADDRINUSE; i++) {
		len = address(&a, families[i], *port, true);
		fd = socket(families[i], SOCK_STREAM, 0);
		if (fd < 0)
			continue;
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		if ((i == 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
		|| setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0
		|| bind(fd, &a.any, len) < 0) {
			close_keep(fd);
			fd = -1;
		}
	}
	if (fd >= 0 && getsockname(fd, &a.any, &len) == 0)
		*port = ntohs(a.in.sin_port);
	return fd;
}

/* A port is held by a socket that is bound to it and never listens: the kernel
 * gives it to nobody who asks for any, yet a server that sets SO_REUSEADDR can
 * bind it.  Where a system forbids that, it is let go, and may be lost. */
int
proc_hold(struct port *p, size_t n)
{
	static int holds = -1;  /* whether this system allows holding */

	for (struct port *end = p + n; p < end; p++) {
		p->number = 0;
		p->hold = bind_any(&p->number);
		if (p->hold < 0)
			return -1;
		if (holds < 0) {
			int second = bind_any(&p->number);
			holds = second >= 0 && listen(second, 1) == 0;
			close_keep(second);
		}
		if (!holds) {
			close(p->hold);
			p->hold = 0;
		}
	}
	return 0;
}

int
proc_release(struct port *p, size_t n)
{
	int taken = 0;

	for (struct port *end = p + n; p < end; p++) {
		int fd = p->hold > 0 ? p->hold : bind_any(&p->number);
		if ((fd < 0 || listen(fd, 1) < 0) && errno == EADDRINUSE)
			taken = p->number;
		close_keep(fd);
		p->hold = 0;
	}
	return taken;
}

/* ---- readiness ---- */

enum ready_kind
proc_ready_kind(const char *value, const char **arg)
{
	static const char *const words[READIES] = {
		"http", "log", "command", "tcp", "fd", "none"
	};
	size_t n = strcspn(value, " \t");
	enum ready_kind kind = (enum ready_kind)find_word(words, READIES,
		str("%.*s", (int)n, value));
	regex_t re;

	*arg = value + n + strspn(value + n, " \t");
	if (!**arg != (kind >= READY_TCP) || (kind == READY_HTTP && **arg != '/'))
		return READIES;
	if (kind == READY_LOG && regcomp(&re, *arg, REG_EXTENDED | REG_NOSUB))
		return READIES;
	if (kind == READY_LOG)
		regfree(&re);
	return kind;
}

/* Waits for events on fd; false: a deadline, cancel or death came first. */
static bool
await(const struct readiness *r, int fd, short events, int64_t deadline)
{
	struct pollfd p[3] = { { fd, events, 0 } };

	while (!p->revents && !r->w->cancelled && proc_dead(r->stack, r->n) == r->n
	&& !proc_late(r->w, deadline))
		proc_wait(r->w, p, 1, deadline);
	return p->revents;
}

/* Asks for the path; whether the answer is 2xx or 3xx.  Any other is told. */
static bool
http_says_yes(const struct readiness *r, int fd, struct buf *why)
{
	char *request = str("GET %s HTTP/1.0\r\nHost: localhost:%d\r\n"
		"Connection: close\r\n\r\n", r->arg, r->port);
	int64_t deadline = proc_clock(r->w) + 5000;
	char answer[300] = "";
	size_t n = 0;
	ssize_t got = 1;

	if (r->deadline < deadline)
		deadline = r->deadline;
	if (write_all(fd, request, strlen(request)) < 0)
		return false;
	while (got > 0 && n < sizeof(answer) - 1 && await(r, fd, POLLIN, deadline)) {
		got = read(fd, answer + n, sizeof(answer) - 1 - n);
		n += got > 0 ? (size_t)got : 0;
		if (n < strlen("HTTP/1.1 200"))
			continue;
		if (starts(answer, "HTTP/1.") && (answer[9] == '2' || answer[9] == '3'))
			return true;
		deadline = proc_clock(r->w) + 100;
	}
	if (!n && why->n && proc_late(r->w, r->deadline))
		return false;           /* cut short; what was said before stands */
	const char *text = strstr(answer, "\r\n\r\n");
	text = text ? text + 4 : "";
	why->n = 0;
	buf_fmt(why, n ? "GET %s on port %d answers %s: %s"
		: "it does not answer GET %s on port %d", r->arg, r->port,
		shown(str("%.*s", (int)strcspn(answer, "\r\n"), answer)),
		shown(str("%.*s", (int)strcspn(text, "\r\n"), text)));
	return false;
}

/* One connection at a time: a second would hang on a backlog of 0.  One whose
 * both ends are the same is none: TCP allows it when the port that connect
 * chooses is the one that it connects to. */
static bool
try_connect(const struct readiness *r, int family, struct buf *why)
{
	union address a;
	socklen_t len = address(&a, family, r->port, false);
	int fd = socket(family, SOCK_STREAM, 0);        /* fails where there is no IPv6 */

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	bool yes = fcntl(fd, F_SETFL, O_NONBLOCK) == 0
		&& (connect(fd, &a.any, len) == 0 || errno == EINPROGRESS)
		&& await(r, fd, POLLOUT, r->deadline)
		&& getpeername(fd, &a.any, &len) == 0 && getsockname(fd, &a.any, &len) == 0
		&& ntohs(a.in.sin_port) != r->port
		&& (r->kind == READY_TCP || http_says_yes(r, fd, why));
	close_keep(fd);
	return yes;
}

/* Whether a line of the log matches; whole lines are read once. */
static bool
log_matches(struct readiness *r)
{
	int fd = open_regular(r->server.log, O_RDONLY);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	char *line = NULL;
	size_t cap = 0;
	bool yes = false;
	regex_t re;

	if (!f || regcomp(&re, r->arg, REG_EXTENDED | REG_NOSUB))
		return false;
	fseeko(f, r->log_from, SEEK_SET);       /* a regular file: cannot fail */
	for (ssize_t n = getline(&line, &cap, f); n > 0 && !yes; n = getline(&line, &cap, f)) {
		if (line[n - 1] == '\n') {
			r->log_from += n;
			line[--n] = '\0';
		}
		yes = regexec(&re, line, 0, NULL, 0) == 0;
	}
	regfree(&re);
	free(line);
	fclose(f);
	return yes;
}

static bool
ask(struct readiness *r, struct buf *why)
{
	struct spawn command = r->server;
	char chunk[64];
	ssize_t n = 0;

	switch (r->kind) {
	case READY_FD:
		if (await(r, r->fd, POLLIN, r->deadline))
			n = read(r->fd, chunk, sizeof(chunk));
		return n > 0 && memchr(chunk, '\n', (size_t)n);
	case READY_LOG:
		return log_matches(r);
	case READY_COMMAND:
		command.argv = proc_argv(r->arg, NULL);
		command.fd = 0;
		return !proc_run(r->w, &command, r->deadline, true, 0, why);
	default:
		return try_connect(r, AF_INET, why) || try_connect(r, AF_INET6, why);
	}
}

bool
proc_ready(struct readiness *r, struct buf *why)
{
	int64_t begin = proc_clock(r->w);
	bool yes = r->kind == READY_NONE || ask(r, why);

	while (!yes && !r->w->cancelled && proc_dead(r->stack, r->n) == r->n
	&& !proc_late(r->w, r->deadline)) {
		/* a fiftieth of the time so far, 1 to 25 ms */
		int64_t wait = 1 + (proc_clock(r->w) - begin) / 50;
		await(r, -1, 0, proc_clock(r->w) + (wait < 25 ? wait : 25));
		yes = ask(r, why);
	}
	if (yes)
		return true;
	if (r->kind == READY_LOG)
		buf_fmt(why, "no line of its log matches %s", r->arg);
	else if (r->kind == READY_COMMAND)
		buf_fmt(why, "%s did not exit with 0", r->arg);
	else if (r->kind == READY_FD)
		buf_str(why, "it wrote no newline to PRUN_READY_FD");
	else if (!why->n)
		buf_fmt(why, "nothing listens on port %d of 127.0.0.1 or ::1", r->port);
	return false;
}
