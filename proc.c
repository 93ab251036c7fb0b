/*
 * proc.c: sessions, waiting and signals; ports and readiness.  Nothing outlives a run.
 *
 * Every child of a worker leads a session.  It is forked with all signals
 * blocked, waits at a gate until its process id stands in prun's pipe, and
 * only then execs; so whoever outlives the worker knows whom to kill.  The
 * leader stays a zombie until its group is dead: as long as it is one, its
 * number cannot be given to a stranger, and killpg() hits nobody else.
 *
 * Stopping is TERM, CONT (a stopped group takes no TERM), at most the grace,
 * KILL.  On Linux a worker is a subreaper: what leaves its session becomes
 * the worker's child when its parent dies, stands in /proc/self/task/.../
 * children, and is killed there after the sessions.  Elsewhere such daemons
 * are out of reach, as the man page says.
 *
 * A worker blocks in proc_wait() and nowhere else: a child's end, a
 * descriptor, the nearest deadline or an order ends the wait.  Signals come
 * through a pipe to oneself, so that none is lost between test and poll.
 *
 * A server's port is held: a socket is bound to it, never listens, and stays
 * until the attempt is over.  While it is held the kernel gives the port to
 * nobody who asks for any, neither as a listener nor as the near end of a
 * connection; yet a server that sets SO_REUSEADDR, as nearly all do, can bind
 * it.  Where a system does not allow that second bind, the port is let go at
 * once and luck must do; a lost port is noticed and the attempt tries another.
 *
 * Readiness is asked for at intervals of a fiftieth of the time that the
 * server has taken so far, 1 to 25 ms: whoever is fast is noticed at once,
 * and nobody waits 2 % longer than it has to.
 */
#include "prun.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#ifdef __TINYC__
#define __STDC_NO_VLA__ 1       /* tcc cannot read glibc's prototype of regexec else */
#endif
#include <regex.h>

extern char **environ;

static int self[2] = { -1, -1 };
static volatile sig_atomic_t caught[64];
static bool ignored[64];                /* when prun was started */
static struct rlimit files_limit;       /* likewise; children get it back */
static pid_t *inherited;                /* children we had: sh -c 'x & exec prun' */
static int ninherited;

/* What Linux alone offers stands here; everywhere else it is nothing. */
#ifdef __linux__
#include <sys/prctl.h>

static void
become_subreaper(void)
{
	/* Fails before Linux 3.4 only; then daemons escape as elsewhere. */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

static void
die_with_parent(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != parent)        /* it died before we asked */
		_exit(127);
}
#else
static void
become_subreaper(void)
{
}

static void
die_with_parent(pid_t parent)
{
	(void)parent;
}
#endif

static void
on_signal(int sig)
{
	int saved = errno;

	caught[sig] = 1;
	/* A full pipe wakes the reader as well as one more byte would. */
	if (write(self[1], "", 1) < 0)
		errno = 0;
	errno = saved;
}

static void
handle(int sig, void (*handler)(int))
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = handler;
	sa.sa_flags = SA_RESTART;
	sigfillset(&sa.sa_mask);
	if (sigaction(sig, &sa, NULL) < 0)
		fatal(EXIT_RUN, "sigaction %d:", sig);
}

int
proc_pipe(int fd[2])
{
	if (pipe(fd) < 0)
		return -1;
	/* Cannot fail: the descriptors are open. */
	set_cloexec(fd[0]);
	set_cloexec(fd[1]);
	return 0;
}

static void
open_self(void)
{
	int i;

	if (self[0] >= 0) {
		close(self[0]);
		close(self[1]);
	}
	if (proc_pipe(self) < 0)
		fatal(EXIT_RUN, "pipe:");
	for (i = 0; i < 2; i++)
		if (fcntl(self[i], F_SETFL, O_NONBLOCK) < 0)
			fatal(EXIT_RUN, "fcntl:");
}

/* Descriptors that were open when prun was started are not for children. */
static void
close_on_exec_inherited(void)
{
	DIR *d = opendir("/dev/fd");
	struct dirent *e;
	int fd;

	if (!d) {
		for (fd = 3; fd < 256; fd++)
			set_cloexec(fd);
		return;
	}
	while ((e = readdir(d)))
		if ((fd = atoi(e->d_name)) > 2)
			set_cloexec(fd);
	closedir(d);
}

/* Lists our children; their number, or -1 where no file tells. */
static int
list_children(struct buf *b, pid_t **pids, size_t *cap)
{
	char path[64], *s;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/children", (long)getpid());
	b->n = 0;
	if (buf_read(b, path) < 0)
		return -1;
	for (s = b->s; s && *s; s += *s == ' ') {
		*pids = grow(*pids, cap, n + 1, sizeof(**pids));
		(*pids)[n++] = (pid_t)strtol(s, &s, 10);
		if (*s && *s != ' ')
			break;
	}
	return n;
}

void
proc_init(void)
{
	static const int sigs[] = {
		SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGUSR1, SIGCHLD, SIGCONT
	};
	struct sigaction sa;
	struct buf b = { 0 };
	struct rlimit r;
	size_t i, cap = 0;
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0)
			fatal(EXIT_RUN, "/dev/null:");
	} while (fd <= 2);
	close(fd);
	close_on_exec_inherited();
	if (getrlimit(RLIMIT_NOFILE, &files_limit) == 0) {
		/* We need a few per worker, never more than this. */
		r = files_limit;
		if (r.rlim_cur != RLIM_INFINITY && r.rlim_cur < 65536) {
			r.rlim_cur = 65536;
			if (r.rlim_max != RLIM_INFINITY && r.rlim_cur > r.rlim_max)
				r.rlim_cur = r.rlim_max;
			setrlimit(RLIMIT_NOFILE, &r);   /* else as it is */
		}
	}
	open_self();
	for (i = 0; i < LEN(sigs); i++) {
		if (sigaction(sigs[i], NULL, &sa) < 0)
			fatal(EXIT_RUN, "sigaction %d:", sigs[i]);
		ignored[sigs[i]] = sa.sa_handler == SIG_IGN;
		/* nohup prun: stays deaf.  An ignored CHLD loses statuses. */
		if (!ignored[sigs[i]] || sigs[i] == SIGCHLD)
			handle(sigs[i], on_signal);
	}
	handle(SIGPIPE, SIG_IGN);       /* writes say EPIPE instead */
	ninherited = list_children(&b, &inherited, &cap);
	buf_free(&b);
	become_subreaper();
}

bool
proc_caught(int sig)
{
	bool was = caught[sig];

	caught[sig] = 0;
	return was;
}

int
proc_poll(struct pollfd *fds, size_t n, int64_t deadline)
{
	struct pollfd few[8], *all = few;
	char junk[64];
	int64_t left = -1;
	size_t i;
	int r, saw = 0;

	if (n + 1 > LEN(few))
		all = xmalloc((n + 1) * sizeof(*all));
	if (n)
		memcpy(all, fds, n * sizeof(*fds));
	all[n].fd = self[0];
	all[n].events = POLLIN;
	if (deadline >= 0) {
		left = deadline - clock_ms();
		left = left < 0 ? 0 : left > INT_MAX ? INT_MAX : left;
	}
	r = poll(all, n + 1, (int)left);
	if (r < 0 && errno != EINTR)
		fatal(EXIT_RUN, "poll of %zu descriptors:", n + 1);
	for (i = 0; i < n; i++) {
		fds[i].revents = r > 0 ? all[i].revents : 0;
		if (fds[i].revents)
			saw |= SAW_FD;
	}
	while (read(self[0], junk, sizeof(junk)) > 0)
		saw |= SAW_CHILD;
	if (all != few)
		free(all);
	return saw;
}

/* ---- a worker ---- */

/* prun's own descriptors 0 to 2, in an interactive worker. */
static int prun_fds[3];

void
proc_become_worker(const char *log, bool terminal)
{
	static const int deaf[] = {
		SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGUSR1, SIGTTOU
	};
	size_t i;
	int fd;

	/* A kill of prun's group must not hit the guardian of its children,
	 * nor must pkill: prun hears of it and tells its workers. */
	if (!terminal && setsid() < 0)
		fatal(EXIT_RUN, "setsid:");
	for (i = 0; i < LEN(deaf); i++)
		handle(deaf[i], SIG_IGN);
	memset((void *)caught, 0, sizeof(caught));
	open_self();
	become_subreaper();
	for (fd = 0; terminal && fd < 3; fd++)
		if ((prun_fds[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 4)) < 0)
			fatal(EXIT_RUN, "fcntl:");
	fd = open("/dev/null", O_RDONLY);
	if (fd < 0 || dup2(fd, 0) < 0)
		fatal(EXIT_RUN, "/dev/null:");
	if (fd > 2)
		close(fd);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		fatal(EXIT_RUN, "%s:", log);
	if (fd > 2)
		close(fd);
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
	ssize_t n;

	do
		n = read(w->orders, &o, sizeof(o));
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(o)) {
		/* End of file without QUIT: prun is dead.  No grace. */
		close(w->orders);
		w->orders = -1;
		o.type = ORDER_CANCEL;
		o.ms = 0;
	}
	switch (o.type) {
	case ORDER_CANCEL:
		w->cancelled = true;
		w->cancel_by = proc_clock(w) + o.ms;
		break;
	case ORDER_PAUSED:
		w->paused_ms += o.ms;
		break;
	default:
		w->next = o;
		w->ordered = true;
	}
}

bool
proc_late(struct worker *w, int64_t deadline)
{
	struct pollfd p = { w->orders, POLLIN, 0 };

	if (deadline < 0 || proc_clock(w) < deadline)
		return false;
	/* We may have been stopped: the order that says so comes first. */
	while (w->orders >= 0 && poll(&p, 1, 0) > 0) {
		read_order(w);
		p.fd = w->orders;
	}
	return proc_clock(w) >= deadline;
}

int
proc_wait(struct worker *w, struct pollfd *fds, size_t n, int64_t deadline)
{
	struct pollfd all[6];
	size_t i;
	int saw;

	if (n > LEN(all) - 1)
		fatal(EXIT_RUN, "proc_wait: too many descriptors");
	if (n)
		memcpy(all, fds, n * sizeof(*fds));
	all[n].fd = w->orders;          /* poll passes over a negative one */
	all[n].events = POLLIN;
	/* SAW_FD is for the caller's: who reads because of an order would block. */
	saw = proc_poll(all, n + 1, deadline < 0 ? -1 : deadline + w->paused_ms) & ~SAW_FD;
	for (i = 0; i < n; i++) {
		fds[i].revents = all[i].revents;
		saw |= fds[i].revents ? SAW_FD : 0;
	}
	if (all[n].revents) {
		read_order(w);
		saw |= SAW_ORDER;
	}
	return saw;
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
	ssize_t r;

	do
		r = write(w->news, n, sizeof(*n));
	while (r < 0 && errno == EINTR);
	/* EPIPE: prun is dead, which the order pipe will say. */
}

void
proc_tell_phase(struct worker *w, enum phase phase)
{
	struct news n;

	memset(&n, 0, sizeof(n));
	n.type = NEWS_PHASE;
	n.phase = phase;
	n.o.file = w->file;
	proc_tell(w, &n);
}

static void
tell_pid(struct worker *w, enum news_type type, pid_t pid)
{
	struct news n;

	memset(&n, 0, sizeof(n));
	n.type = type;
	n.pid = pid;
	proc_tell(w, &n);
}

/* ---- starting ---- */

void
proc_take_terminal(void)
{
	tcsetpgrp(prun_fds[0], getpgrp());      /* fails where it is none */
}

/* In the child: never returns. */
static void
child(const struct spawn *s, pid_t parent, int gate[2], int report)
{
	static const int sigs[] = {
		SIGTERM, SIGUSR1, SIGCHLD, SIGCONT, SIGPIPE
	};
	const char *prog = s->argv[0];
	int in = s->terminal ? prun_fds[0] : s->in, out = s->terminal ? prun_fds[1] : s->out;
	sigset_t none;
	size_t i;
	ssize_t n;
	char c;
	int err = s->terminal ? prun_fds[2] : s->err;

	if (!s->terminal) {
		setsid();       /* cannot fail in a fresh child */
	} else {
		/* A foreground group: ^C is for it alone.  Where there is no terminal this
		 * fails, and does no harm. */
		setpgid(0, 0);
		tcsetpgrp(prun_fds[0], getpid());
	}
	die_with_parent(parent);
	close(gate[1]);
	do
		n = read(gate[0], &c, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)             /* the worker died before it could announce us */
		_exit(127);
	close(gate[0]);
	for (i = 0; i < LEN(sigs); i++)
		handle(sigs[i], SIG_DFL);
	handle(SIGTTOU, SIG_DFL);
	handle(SIGTSTP, s->terminal ? SIG_IGN : SIG_DFL);       /* no shell would wake it */
	handle(SIGINT, ignored[SIGINT] ? SIG_IGN : SIG_DFL);
	handle(SIGHUP, ignored[SIGHUP] ? SIG_IGN : SIG_DFL);
	setrlimit(RLIMIT_NOFILE, &files_limit);
	if (s->fd && report == 3)
		report = fcntl(report, F_DUPFD_CLOEXEC, 4);
	if (dup2(in, 0) == 0 && dup2(out, 1) == 1 && dup2(err, 2) == 2
	&& (!s->fd || (s->fd == 3 ? fcntl(3, F_SETFD, 0) == 0
			: dup2(s->fd, 3) == 3))) {
		environ = s->env;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		/* execvp would hand a file without #! to the shell. */
		if (strchr(prog, '/'))
			execve(prog, s->argv, s->env);
		else
			execvp(prog, s->argv);
	}
	err = errno;
	if (write(report, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

static bool
is_ours(const struct worker *w, pid_t pid)
{
	size_t i;

	for (i = 0; i < w->npids; i++)
		if (w->pids[i] == pid)
			return true;
	return false;
}

/* Reaps the leader, whose group is dead or never was. */
static void
forget(struct worker *w, struct proc *p)
{
	size_t i;

	for (i = 0; i < w->npids; i++)
		if (w->pids[i] == p->pid)
			w->pids[i] = w->pids[--w->npids];
	/* First: once it is reaped, its number may be a stranger's. */
	tell_pid(w, NEWS_REAPED, p->pid);
	while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
		;
	p->pid = 0;
}

int
proc_start(struct worker *w, struct proc *p, const struct spawn *s)
{
	sigset_t all, old;
	int gate[2], report[2], err = 0;
	pid_t parent = getpid();
	ssize_t n;

	memset(p, 0, sizeof(*p));
	if (proc_pipe(gate) < 0)
		return -1;
	if (proc_pipe(report) < 0)
		goto err_gate;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	p->pid = fork();
	if (p->pid == 0)
		child(s, parent, gate, report[1]);
	err = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (p->pid < 0) {
		p->pid = 0;
		errno = err;
		goto err_report;
	}
	w->pids = grow(w->pids, &w->cappids, w->npids + 1, sizeof(*w->pids));
	w->pids[w->npids++] = p->pid;
	tell_pid(w, NEWS_SESSION, p->pid);
	close(gate[0]);
	close(report[1]);
	/* Signals a child that was killed at the gate: then exec never is. */
	n = write(gate[1], "", 1);
	close(gate[1]);
	do
		n = read(report[0], &err, sizeof(err));
	while (n < 0 && errno == EINTR);
	close(report[0]);
	if (n == (ssize_t)sizeof(err)) {
		forget(w, p);
		errno = err;
		return -1;
	}
	return 0;

err_report:
	close_keep(report[0]);
	close_keep(report[1]);
err_gate:
	close_keep(gate[0]);
	close_keep(gate[1]);
	return -1;
}

char **
proc_argv(const char *cmd, const struct list *args)
{
	/* Only the shell has these (POSIX, 2.14 and 1.7). */
	static const char builtin[] = " . : alias bg break cd command continue eval exec exit "
		"export fc fg getopts hash jobs read readonly return set shift times trap type "
		"ulimit umask unalias unset wait if while until for case ";
	char *text = str("%s", cmd), *s;
	const char *word = cmd + strspn(cmd, " \t");
	char **argv = scratch((strlen(cmd) + 5 + (args ? args->n : 0)) * sizeof(*argv));
	size_t n = 0, i;

	if (!strpbrk(cmd, "|&;<>()$`\\\"'*?[]#~=%!{}\n") && *word
	&& !strstr(builtin, str(" %.*s ", (int)strcspn(word, " \t"), word))) {
		for (s = strtok(text, " \t"); s; s = strtok(NULL, " \t"))
			argv[n++] = s;
	} else {
		argv[n++] = "/bin/sh";
		argv[n++] = "-c";
		argv[n++] = text;
		argv[n++] = "prun";     /* $0: begins the shell's messages */
		for (i = 0; args && i < args->n; i++)
			argv[n++] = args->v[i];
	}
	argv[n] = NULL;
	return argv;
}

/* ---- ending ---- */

bool
proc_ended(struct proc *p)
{
	siginfo_t si;

	if (p->ended || !p->pid)
		return p->ended;
	memset(&si, 0, sizeof(si));
	if (waitid(P_PID, p->pid, &si, WEXITED | WNOWAIT | WNOHANG) < 0 || si.si_pid != p->pid)
		return false;
	p->ended = true;
	p->status = si.si_code == CLD_EXITED ? si.si_status : -si.si_status;
	p->core = si.si_code == CLD_DUMPED;
	return true;
}

static void
name_process(struct buf *b, pid_t pid)
{
	struct buf args = { 0 };
	size_t i;

	/* In the middle of an exec there are no arguments. */
	if (buf_read(&args, str("/proc/%ld/cmdline", (long)pid)) < 0 || !args.n)
		buf_read(&args, str("/proc/%ld/comm", (long)pid));
	args.n = args.n > 200 ? 200 : args.n;
	while (args.n && strchr("\n", args.s[args.n - 1]))
		args.n--;
	for (i = 0; i < args.n; i++)
		args.s[i] = args.s[i] ? args.s[i] : ' ';
	buf_fmt(b, "%ld ", (long)pid);
	buf_safe(b, args.s, args.n);
	buf_char(b, '\n');
	buf_free(&args);
}

/*
 * Counts those of our children that we have not started ourselves, and reaps
 * the dead among them, each by its number: waitpid(-1) would take a leader.
 * Orphans of p's session come to us, the subreaper, when their parent dies.
 * -1 where the system does not tell.
 */
int
proc_left(struct worker *w, const struct proc *p, struct buf *names)
{
	struct buf b = { 0 };
	pid_t *pids = NULL;
	size_t cap = 0;
	int i, left = 0, n = list_children(&b, &pids, &cap);

	for (i = 0; i < n; i++) {
		if (is_ours(w, pids[i]) || waitpid(pids[i], NULL, WNOHANG) == pids[i]
		|| getsid(pids[i]) != p->pid)
			continue;
		left++;
		if (names)
			name_process(names, pids[i]);
	}
	free(pids);
	buf_free(&b);
	return n < 0 ? -1 : left;
}

/* Asks ps whether a group has members besides its leader, other than zombies; 10 ms or
 * so.  stat is not of POSIX, but of every ps; where not, nothing is said. */
static bool
ps_says_gone(pid_t leader)
{
	FILE *f = popen("ps -A -o pid= -o pgid= -o stat= 2>/dev/null", "r");
	long pid, group;
	char stat[16];
	bool any = false, others = false;

	while (f && fscanf(f, "%ld %ld %15s", &pid, &group, stat) == 3) {
		any = true;
		others = others || (group == leader && pid != leader && *stat != 'Z');
	}
	if (f)
		pclose(f);
	return any && !others;
}

/* Whether nothing of the session is left but the leader's zombie. */
static bool
all_gone(struct worker *w, struct proc *p, bool patient)
{
	int n;

	if (!proc_ended(p))
		return false;
	n = proc_left(w, p, NULL);
	/* Where the kernel does not tell: sh -c may be gone while the server flushes. */
	return n == 0 || (n < 0 && (!patient || ps_says_gone(p->pid)));
}

int
proc_stop(struct worker *w, struct proc *p, int64_t grace_ms, bool patient, struct buf *notes)
{
	int64_t now = proc_clock(w), end = now + grace_ms;

	if (!p->pid)
		return 0;
	if (grace_ms > 0 && (!w->cancelled || w->cancel_by > now)) {
		killpg(p->pid, SIGTERM);
		killpg(p->pid, SIGCONT);
		while (!all_gone(w, p, patient)) {
			if (w->cancelled && w->cancel_by < end)
				end = w->cancel_by;
			if (proc_late(w, end))
				break;
			/* Only where we are the subreaper does every end tell itself. */
			proc_wait(w, NULL, 0, proc_clock(w) + 100 < end
				? proc_clock(w) + 100 : end);
		}
	}
	/* What has left the group, not the session, is for proc_drain(). */
	killpg(p->pid, SIGKILL);
	end = proc_clock(w) + 5000;
	while (!proc_ended(p)) {
		if (proc_late(w, end)) {
			buf_fmt(notes, "- process %ld could not be killed\n", (long)p->pid);
			return -1;
		}
		proc_wait(w, NULL, 0, end);
	}
	forget(w, p);
	return 0;
}

static bool
was_inherited(pid_t pid)
{
	int i;

	for (i = 0; i < ninherited; i++)
		if (inherited[i] == pid)
			return true;
	return false;
}

/* Kills our children but those in keep, until there are none or 5 s are
 * over; lists each that lived in names. */
static int
kill_children(const pid_t *keep, size_t nkeep, struct buf *names)
{
	struct buf b = { 0 };
	pid_t *pids = NULL, g;
	size_t cap = 0, k;
	int i, n, left, killed = 0;
	int64_t end = clock_ms() + 5000;
	bool first = true;

	do {
		left = 0;
		n = list_children(&b, &pids, &cap);
		for (i = 0; i < n; i++) {
			for (k = 0; k < nkeep && keep[k] != pids[i]; k++)
				;
			if (k < nkeep || was_inherited(pids[i])
			|| waitpid(pids[i], NULL, WNOHANG) == pids[i])
				continue;
			left++;
			if (first) {
				killed++;
				if (names)
					name_process(names, pids[i]);
			}
			/* Its group too: what forks faster than we list. */
			g = getpgid(pids[i]);
			for (k = 0; k < nkeep && keep[k] != g; k++)
				;
			if (g > 1 && g != getpgrp() && k == nkeep)
				killpg(g, SIGKILL);
			kill(pids[i], SIGKILL);
		}
		first = false;
		if (left)
			proc_poll(NULL, 0, clock_ms() + 5);
	} while (left && clock_ms() < end);
	free(pids);
	buf_free(&b);
	return killed;
}

int
proc_drain(struct worker *w, struct buf *names)
{
	return kill_children(w->pids, w->npids, names);
}

void
proc_sweep(const pid_t *keep, size_t n)
{
	kill_children(keep, n, NULL);
}

void
proc_kill(pid_t leader, int sig)
{
	/* Both: right after fork the group does not exist yet. */
	kill(leader, sig);
	killpg(leader, sig);
}

int
proc_run(struct worker *w, const struct spawn *s, int64_t deadline,
	bool heed, int64_t grace_ms, struct buf *notes)
{
	struct proc p;

	if (proc_start(w, &p, s) < 0)
		return SPAWN_FAILED;
	while (!proc_ended(&p)) {
		if (heed && w->cancelled)
			break;
		if (proc_late(w, deadline))
			break;
		proc_wait(w, NULL, 0, deadline);
	}
	if (!p.ended)
		p.status = RUN_STOPPED;
	proc_stop(w, &p, p.ended ? 0 : grace_ms, false, notes);
	return p.status;
}

char *
proc_how_ended(const struct proc *p)
{
	return p->status >= 0 ? str("exit status %d", p->status)
		: str("killed by signal %d (%s)%s", -p->status, strsignal(-p->status),
		p->core ? ", core dumped" : "");
}

char *
proc_why_not(const char *prog, int err)
{
	struct stat st;

	return str("cannot run %s: %s", prog, err == ENOENT && strchr(prog, '/')
		&& stat(prog, &st) == 0 ? "the interpreter in its first line is missing"
		: err == ENOEXEC ? "neither a program nor a script with #!"
		: err == EACCES ? "not executable"
		: err == ENOENT ? "command not found" : strerror(err));
}

/* ---- ports ---- */

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
	int fd, on = 1, off = 0;

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
	close_keep(fd);
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
proc_hold(int *port, int *hold)
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
proc_taken(int *hold, int port)
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

enum ready { READY_TCP, READY_HTTP, READY_LOG, READY_COMMAND, READY_FD, READY_NONE, READIES };

/* The kind of a ready = value; *arg is its path, expression or command. */
static enum ready
ready_kind(const char *value, const char **arg)
{
	static const char *const words[READIES] = {
		"tcp", "http", "log", "command", "fd", "none"
	};
	size_t n = strcspn(value, " \t");

	*arg = value + n + strspn(value + n, " \t");
	return (enum ready)find_word(words, READIES, str("%.*s", (int)n, value));
}

const char *
proc_ready_check(const char *value)
{
	const char *arg;
	enum ready kind = ready_kind(value, &arg);
	regex_t re;

	switch (kind) {
	case READY_HTTP:
		return *arg == '/' ? NULL : "http needs a path: http /";
	case READY_LOG:
		if (!*arg || regcomp(&re, arg, REG_EXTENDED | REG_NOSUB))
			return "log needs an extended regular expression";
		regfree(&re);
		return NULL;
	case READY_COMMAND:
		return *arg ? NULL : "command needs a command";
	case READY_TCP:
	case READY_FD:
	case READY_NONE:
		return *arg ? "takes no argument" : NULL;
	case READIES:
		break;
	}
	return "not one of: tcp, http PATH, log ERE, command CMD, fd, none";
}

bool
proc_ready_fd(const char *value)
{
	return ready_kind(value, &value) == READY_FD;
}

const char *
proc_ready_command(const char *value)
{
	return ready_kind(value, &value) == READY_COMMAND ? value : NULL;
}

struct probe {
	struct worker *w;
	struct proc *server;
	enum ready kind;
	const char *arg;        /* path, expression or command */
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
		"Connection: close\r\n\r\n", p->arg, p->port);
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
	yes = !to_itself(fd) && (p->kind == READY_TCP || http_says_yes(p, fd));
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
	switch (p->kind) {
	case READY_LOG:
		return log_matches(log, re, at);
	case READY_COMMAND:
		return proc_run(p->w, command, p->deadline, true, 0, why) == 0;
	default:
		return try_connect(p, AF_INET) || try_connect(p, AF_INET6);
	}
}

/* Asks again and again until it is ready, or cannot be any more. */
static bool
ask_until_ready(const struct probe *p, const regex_t *re, const char *log,
	const struct spawn *command, struct buf *why)
{
	int64_t begin = proc_clock(p->w), wait;
	off_t at = 0;

	for (;;) {
		if (ask(p, re, log, &at, command, why))
			return true;
		wait = (proc_clock(p->w) - begin) / 50;
		if (wait < 1)
			wait = 1;
		if (wait > 25)
			wait = 25;
		await(p, -1, 0, proc_clock(p->w) + wait);
		if (p->w->cancelled || proc_ended(p->server) || proc_late(p->w, p->deadline))
			return false;
	}
}

enum cause
proc_ready(struct worker *w, struct proc *server, const char *value, int port,
	int64_t timeout_ms, const char *log, int fd, const struct spawn *command,
	struct buf *why)
{
	struct probe p = { w, server, READY_NONE, NULL, proc_clock(w) + timeout_ms, port };
	const char *wrong = NULL;
	regex_t re;
	bool yes;

	p.kind = ready_kind(value, &p.arg);
	if (p.kind == READY_NONE)
		return CAUSE_NONE;
	if (p.kind == READY_LOG && regcomp(&re, p.arg, REG_EXTENDED | REG_NOSUB))
		fatal(EXIT_RUN, "ready = log %s: bad expression", p.arg);
	if (p.kind == READY_FD) {
		wrong = await_newline(&p, fd);
		yes = !wrong;
	} else {
		yes = ask_until_ready(&p, &re, log, command, why);
	}
	if (p.kind == READY_LOG)
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
	else if (p.kind == READY_LOG)
		buf_fmt(why, "no line of its log matches %s", p.arg);
	else if (p.kind == READY_COMMAND)
		buf_fmt(why, "%s did not exit with 0", p.arg);
	else
		buf_fmt(why, "nothing %s on port %d of 127.0.0.1 or ::1",
			p.kind == READY_HTTP ? "says 2xx or 3xx" : "answers", port);
	return CAUSE_SERVER_NOT_READY;
}
