/*
 * prun: runs test files side by side, each with a database, a port and a
 * server of its own.
 *
 * main() reads the options, makes the plan, runs it and reports.  The run is
 * one loop: it waits for news from the workers, notes them down, gives every
 * idle worker the next file that may run, and draws.  It never blocks and
 * touches no database; all that takes time is done by the workers (work.c),
 * which are forked here, once each, and talked to through a pair of pipes.
 * A worker that dies is noticed by waitid; its news are read to the end, the
 * sessions it had announced are killed, and another takes its place.
 */
#include "prun.h"

struct slot {
	pid_t pid;              /* 0: nobody */
	int orders, news;       /* our ends of the pipes */
	pid_t *sessions;        /* announced and not reaped */
	size_t nsessions, capsessions;
	bool busy;              /* an order is under way */
	struct order order;
};

struct drop {
	int file, attempt;
};

struct run {
	struct plan *p;
	struct show *show;
	struct slot *slots;
	struct slot_view *views;
	struct pollfd *fds;
	int nslots;
	int *order;             /* files in the order of their turn; -1: had it */
	size_t first;           /* in order: all before it are -1 */
	struct drop *drops;     /* clones to be dropped */
	size_t ndrops, capdrops;
	size_t next_setup;      /* suite; nsuites: all done */
	size_t running;         /* files */
	bool alone;             /* one of them wants nothing beside it */
	bool stopping;          /* no more files */
	bool settled;           /* what waited for the end of the run is queued */
	int sig, signals, status, restarts;
};

/* ---- workers ---- */

static void
order(struct slot *s, enum order_type type, int file, int attempt, int64_t ms)
{
	struct order o;

	memset(&o, 0, sizeof(o));
	o.type = type;
	o.file = file;
	o.attempt = attempt;
	o.ms = ms;
	if (type < ORDER_CANCEL) {
		s->busy = true;
		s->order = o;
	}
	/* EPIPE: it has died, which waitid will say. */
	if (write(s->orders, &o, sizeof(o)) < 0 && errno != EPIPE)
		warn("order to a worker:");
}

/* Forks a worker; -1 with errno when the system has no room for one more. */
static int
start_worker(struct run *r, int i)
{
	struct slot *s = &r->slots[i];
	int orders[2], news[2], k;
	char *log = str("%s/worker.log", r->p->dir);

	s->pid = 0;
	if (proc_pipe(orders) < 0)
		return -1;
	if (proc_pipe(news) < 0)
		goto err_orders;
	fflush(NULL);
	s->pid = fork();
	if (s->pid < 0)
		goto err_news;
	if (s->pid == 0) {
		/* Ends that are open here would hide another's end of file. */
		for (k = 0; k < r->nslots; k++)
			if (r->slots[k].orders >= 0) {
				close(r->slots[k].orders);
				close(r->slots[k].news);
			}
		close(orders[1]);
		close(news[0]);
		proc_become_worker(log, false);
		work_run(r->p, i, orders[0], news[1]);
	}
	close(orders[0]);
	close(news[1]);
	if (fcntl(news[0], F_SETFL, O_NONBLOCK) < 0)
		fatal(EXIT_RUN, "fcntl:");
	s->orders = orders[1];
	s->news = news[0];
	s->busy = false;
	r->views[i].phase = IDLE;
	return 0;

err_news:
	k = errno;
	close(news[0]);
	close(news[1]);
	errno = k;
err_orders:
	k = errno;
	close(orders[0]);
	close(orders[1]);
	s->pid = 0;
	errno = k;
	return -1;
}

static void
forget_session(struct slot *s, pid_t pid)
{
	size_t i;

	for (i = 0; i < s->nsessions; i++)
		if (s->sessions[i] == pid)
			s->sessions[i--] = s->sessions[--s->nsessions];
}

static void
cancel(struct run *r, int64_t grace_ms)
{
	int i;

	r->stopping = true;
	for (i = 0; i < r->nslots; i++)
		if (r->slots[i].pid)
			order(&r->slots[i], ORDER_CANCEL, 0, 0, grace_ms);
}

static bool
counts_as_failed(const struct plan *p, enum result r)
{
	return r >= FAIL || (r == FLAKY && p->o.flaky);
}

static void
queue_drop(struct run *r, int file, int attempt)
{
	r->drops = grow(r->drops, &r->capdrops, r->ndrops + 1, sizeof(*r->drops));
	r->drops[r->ndrops].file = file;
	r->drops[r->ndrops++].attempt = attempt;
}

/* Tells of an attempt that is over; again: another will follow. */
static void
tell(struct run *r, const struct file *f, bool again)
{
	size_t mark = scratch_mark();
	const struct opts *o = &f->suite->o;
	char *dir = work_dir(r->p, f, f->o.attempt), *name = work_clone(r->p, f, f->o.attempt);

	show_result(r->show, f, again, dir, !f->o.kept ? NULL : o->db_clone ? name
		: pg_masked(pg_clone_url(o->db, name, dir)));
	scratch_release(mark);
}

/* An attempt is over: decides whether another follows, tells, goes on. */
static void
take_result(struct run *r, const struct outcome *o)
{
	struct file *f = &r->p->files[o->file];
	struct outcome before = f->o;
	bool again, bad;
	size_t i;

	f->o = *o;
	f->attempts = o->attempt;
	if (o->result == CANCEL && before.attempt)
		f->o = before;          /* a retry that was cut short */
	else if (o->attempt > 1 && o->result <= NONE)
		f->o.result = FLAKY;
	if (before.kept && f->o.attempt != before.attempt)
		queue_drop(r, o->file, before.attempt);
	bad = o->result >= FAIL && o->result < CANCEL;
	again = bad && !r->stopping && !r->p->o.fail_fast && o->attempt <= f->retries
		&& !o->fatal;
	f->ended = !again;
	for (i = 0; i < f->nlocks; i++)
		r->p->held[f->locks[i]] = false;
	f->suite->running--;
	r->running--;
	if (f->alone || o->attempt > 1)
		r->alone = false;
	tell(r, f, again);
	if (o->fatal && !r->stopping) {
		show_say(r->show, "prun: %s: the run cannot go on", f->test);
		r->status = EXIT_RUN;
		cancel(r, r->p->o.grace_ms);
	} else if (bad && r->p->o.fail_fast && !r->stopping) {
		show_say(r->show, "prun: stopping the rest at the first failure");
		cancel(r, r->p->o.grace_ms);
	}
}

/* Text of the notes that a setup has left; failed: they say why. */
static void
take_setup(struct run *r, bool failed)
{
	char *path = str("%s/notes", r->p->dir), *log = str("%s/setup.log", r->p->dir), *s;
	struct buf b = { 0 };

	buf_read(&b, path);
	for (s = strtok(b.s, "\n"); s; s = strtok(NULL, "\n"))
		show_say(r->show, "prun: %s", s + 2);
	unlink(path);
	r->next_setup++;
	if (failed && !r->stopping) {
		b.n = 0;
		buf_tail(&b, log, 15);
		if (b.n)
			show_say(r->show, "%s", b.s);
		r->status = EXIT_RUN;
		cancel(r, 0);
	}
	buf_free(&b);
}

static void
read_news(struct run *r, int i)
{
	struct slot *s = &r->slots[i];
	struct slot_view *v = &r->views[i];
	struct news n;

	while (s->news >= 0 && read(s->news, &n, sizeof(n)) == (ssize_t)sizeof(n)) {
		switch (n.type) {
		case NEWS_PHASE:
			v->phase = n.phase;
			v->file = n.o.file;
			if (n.phase == WAITING)
				show_say(r->show, "prun: waiting for the setup of another run");
			continue;
		case NEWS_SESSION:
			s->sessions = grow(s->sessions, &s->capsessions, s->nsessions + 1,
				sizeof(*s->sessions));
			s->sessions[s->nsessions++] = n.pid;
			continue;
		case NEWS_REAPED:
			forget_session(s, n.pid);
			continue;
		case NEWS_RESULT:
			take_result(r, &n.o);
			break;
		case NEWS_SETUP:
			take_setup(r, n.bad);
			break;
		case NEWS_DONE:
			break;
		}
		s->busy = false;
		v->phase = IDLE;
	}
}

/* The worker is dead, and still a zombie: its children are ours now. */
static void
bury(struct run *r, int i)
{
	struct slot *s = &r->slots[i];
	struct outcome o;
	pid_t *keep = xmalloc((size_t)r->nslots * sizeof(*keep));
	struct order was = s->order;
	char *dir, *path, *text;
	int status = 0, k;
	bool busy;

	read_news(r, i);
	while (s->nsessions)
		proc_kill(s->sessions[--s->nsessions], SIGKILL);
	for (k = 0; k < r->nslots; k++)
		keep[k] = r->slots[k].pid;
	proc_sweep(keep, (size_t)r->nslots);
	free(keep);
	while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(s->orders);
	close(s->news);
	s->pid = 0;
	s->orders = s->news = -1;
	busy = s->busy;
	s->busy = false;
	r->views[i].phase = IDLE;
	if (r->settled && !busy && !r->ndrops)
		return;                 /* it was told to go */
	text = WIFSIGNALED(status) ? str("signal %d (%s)", WTERMSIG(status),
		strsignal(WTERMSIG(status))) : str("exit status %d", WEXITSTATUS(status));
	show_say(r->show, "prun: worker %d died: %s; see %s/worker.log", i, text, r->p->dir);
	if (busy && was.type == ORDER_RUN) {
		memset(&o, 0, sizeof(o));
		o.file = was.file;
		o.attempt = was.attempt;
		o.result = ERROR;
		o.cause = CAUSE_WORKER_DIED;
		o.begin = r->views[i].since;
		o.ms = clock_ms() - o.begin;
		dir = work_dir(r->p, &r->p->files[was.file], was.attempt);
		path = str("%s/notes", dir);
		text = str("! the worker died: %s\n", WIFSIGNALED(status)
			? strsignal(WTERMSIG(status)) : "it exited");
		if (mkdir(dir, 0777) < 0 && errno != EEXIST)
			warn("%s:", dir);
		o.notes = file_write(path, text, strlen(text), 0666) == 0;
		take_result(r, &o);
	} else if (busy && was.type == ORDER_SETUP) {
		take_setup(r, true);
	}
	if (++r->restarts > r->p->o.max_worker_restart && !r->stopping) {
		show_say(r->show, "prun: too many workers died (max-worker-restart)");
		r->status = EXIT_RUN;
		cancel(r, r->p->o.grace_ms);
	}
	if (start_worker(r, i) < 0) {
		show_say(r->show, "prun: no worker could take its place: %s", strerror(errno));
		return;
	}
	if (r->stopping)
		order(&r->slots[i], ORDER_CANCEL, 0, 0, 0);
	if (busy && was.type == ORDER_RUN && r->p->files[was.file].suite->o.db)
		order(&r->slots[i], ORDER_DROP, was.file, was.attempt, 0);
}

static void
bury_the_dead(struct run *r)
{
	siginfo_t si;
	int i;

	for (i = 0; i < r->nslots; i++) {
		memset(&si, 0, sizeof(si));
		if (r->slots[i].pid && waitid(P_PID, r->slots[i].pid, &si,
				WEXITED | WNOHANG | WNOWAIT) == 0
		&& si.si_pid == r->slots[i].pid)
			bury(r, i);
	}
}

/* ---- whose turn it is ---- */

static bool
may_run(const struct run *r, const struct file *f)
{
	size_t i;

	if (r->alone || (f->alone && r->running) || f->suite->running >= f->suite->o.workers)
		return false;
	for (i = 0; i < f->nlocks; i++)
		if (r->p->held[f->locks[i]])
			return false;
	return true;
}

static void
run_file(struct run *r, int slot, struct file *f)
{
	size_t i;

	for (i = 0; i < f->nlocks; i++)
		r->p->held[f->locks[i]] = true;
	r->alone = f->alone || f->attempts > 0;
	f->suite->running++;
	r->running++;
	r->views[slot].file = f->index;
	r->views[slot].phase = CLONING;
	r->views[slot].since = clock_ms();
	order(&r->slots[slot], ORDER_RUN, f->index, f->attempts + 1, 0);
}

/* The next file that may run now, or NULL. */
static struct file *
next_file(struct run *r)
{
	struct file *f;
	size_t i;

	while (r->first < r->p->nfiles && r->order[r->first] < 0)
		r->first++;
	for (i = r->first; i < r->p->nfiles && !r->alone; i++) {
		f = r->order[i] < 0 ? NULL : &r->p->files[r->order[i]];
		if (f && may_run(r, f)) {
			r->order[i] = -1;
			return f;
		}
	}
	if (r->first < r->p->nfiles || r->running)
		return NULL;
	/* All have had their turn: retries, one at a time, alone. */
	for (i = 0; i < r->p->nfiles; i++)
		if (!r->p->files[i].ended)
			return &r->p->files[i];
	return NULL;
}

/* Queues what had to wait for the end: keep = run, and nothing failed. */
static void
settle(struct run *r)
{
	const struct file *f;
	bool bad = false;
	size_t i;

	r->settled = true;
	for (i = 0; i < r->p->nfiles; i++)
		bad = bad || counts_as_failed(r->p, r->p->files[i].o.result);
	for (i = 0; i < r->p->nfiles && !bad; i++) {
		f = &r->p->files[i];
		if (f->suite->o.keep == KEEP_RUN && f->o.kept)
			queue_drop(r, f->index, f->o.attempt);
	}
}

/* Gives every idle worker something to do; false when there is nothing. */
static bool
hand_out(struct run *r)
{
	struct file *f;
	bool busy = false;
	int i;

	for (i = 0; i < r->nslots; i++) {
		struct slot *s = &r->slots[i];

		if (s->busy || !s->pid) {
			busy = busy || s->busy;
			continue;
		}
		if (!r->stopping && r->next_setup < r->p->nsuites) {
			if (i > 0)
				continue;
			while (r->next_setup < r->p->nsuites
			&& r->p->suites[r->next_setup].no_setup)
				r->next_setup++;
			if (r->next_setup < r->p->nsuites) {
				r->views[0].phase = SETUP;
				r->views[0].file = -1;
				r->views[0].since = clock_ms();
				order(s, ORDER_SETUP, (int)r->next_setup, 0, 0);
				busy = true;
				continue;
			}
		}
		if (r->ndrops) {
			r->ndrops--;
			order(s, ORDER_DROP, r->drops[r->ndrops].file,
				r->drops[r->ndrops].attempt, 0);
		} else if (!r->stopping && (f = next_file(r))) {
			run_file(r, i, f);
		}
		busy = busy || s->busy;
	}
	if (!busy && !r->settled) {
		settle(r);
		return r->ndrops ? hand_out(r) : false;
	}
	return busy;
}

/* ---- signals ---- */

/* ^Z: everything stands still, clocks too, until we are continued. */
static void
suspend(struct run *r)
{
	int64_t begin = clock_ms();
	struct slot *s;
	siginfo_t si;
	size_t k;
	int i;

	for (i = 0; i < r->nslots; i++) {
		s = &r->slots[i];
		if (!s->pid)
			continue;
		/* First the worker, so that it starts nothing meanwhile. */
		kill(s->pid, SIGSTOP);
		/* WNOWAIT: should it be dead instead, that is for bury_the_dead(). */
		waitid(P_PID, (id_t)s->pid, &si, WSTOPPED | WEXITED | WNOWAIT);
		read_news(r, i);
		for (k = 0; k < s->nsessions; k++)
			kill(-s->sessions[k], SIGSTOP);
	}
	raise(SIGSTOP);
	for (i = 0; i < r->nslots; i++) {
		s = &r->slots[i];
		if (!s->pid)
			continue;
		order(s, ORDER_PAUSED, 0, 0, clock_ms() - begin);
		for (k = 0; k < s->nsessions; k++)
			kill(-s->sessions[k], SIGCONT);
		kill(s->pid, SIGCONT);
	}
}

static void
heed_signals(struct run *r)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP };
	size_t i;
	int sig = 0, k;

	for (i = 0; i < LEN(sigs); i++)
		if (proc_caught(sigs[i]))
			sig = sigs[i];
	if (!sig && !r->sig && show_broken(r->show))
		sig = SIGPIPE;
	if (sig && r->signals++ > 1) {
		/* The third one: a worker does not listen; we end its sessions. */
		for (k = 0; k < r->nslots; k++)
			if (r->slots[k].pid)
				kill(r->slots[k].pid, SIGKILL);
	} else if (sig && r->sig) {
		cancel(r, 0);           /* the second one: at once */
	} else if (sig) {
		r->sig = sig;
		show_say(r->show, "prun: %s: stopping; once more kills at once",
			strsignal(sig));
		cancel(r, r->p->o.grace_ms < 2000 ? r->p->o.grace_ms : 2000);
	}
	if (proc_caught(SIGTSTP))
		suspend(r);
	if (proc_caught(SIGUSR1))
		show_draw(r->show, r->views, r->nslots, true);
}

static void
loop(struct run *r)
{
	int64_t next;
	int i;

	while (hand_out(r)) {
		next = show_draw(r->show, r->views, r->nslots, false);
		for (i = 0; i < r->nslots; i++) {
			r->fds[i].fd = r->slots[i].news;
			r->fds[i].events = POLLIN;
		}
		proc_poll(r->fds, (size_t)r->nslots, next);
		for (i = 0; i < r->nslots; i++)
			read_news(r, i);
		bury_the_dead(r);
		heed_signals(r);
	}
}

/* Sends the workers home; whoever does not go is killed. */
static void
dismiss(struct run *r)
{
	int64_t end = clock_ms() + 10000;
	int i, left;

	for (i = 0; i < r->nslots; i++)
		if (r->slots[i].pid)
			order(&r->slots[i], ORDER_QUIT, 0, 0, 0);
	do {
		left = 0;
		bury_the_dead(r);
		for (i = 0; i < r->nslots; i++)
			if (r->slots[i].pid && ++left && clock_ms() >= end)
				kill(r->slots[i].pid, SIGKILL);
		if (left)
			proc_poll(NULL, 0, clock_ms() < end ? end : clock_ms() + 50);
	} while (left);
	proc_sweep(NULL, 0);
}

/* ---- the run ---- */

static void
make_id(struct plan *p)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	uint64_t n;
	struct timespec t;
	int i, fd = open("/dev/urandom", O_RDONLY);

	if (fd < 0 || read(fd, &n, sizeof(n)) != (ssize_t)sizeof(n)) {
		clock_gettime(CLOCK_REALTIME, &t);
		n = (uint64_t)t.tv_sec * 1000000007u ^ (uint64_t)t.tv_nsec << 20
			^ (uint64_t)getpid() * 2654435761u;
	}
	if (fd >= 0)
		close(fd);
	for (i = 0; i < 6; i++, n /= 36)
		p->id[i] = digits[n % 36];
	if (p->id[0] == 'z')    /* else too large for a lock's 31 bits */
		p->id[0] = 'y';
}

/* Makes the run directory, or takes one that a run of ours has left. */
static void
make_dir(struct plan *p)
{
	const char *tmp = getenv("TMPDIR");
	char *path = p->o.run_dir ? p->o.run_dir
		: str("%s/prun-%s", tmp && *tmp ? tmp : "/tmp", p->id);
	char *mark = str("%s/results.jsonl", path), *real;
	struct flock lock;
	int fd;

	memset(&lock, 0, sizeof(lock));
	lock.l_type = F_WRLCK;
	if (mkdir(path, 0777) < 0 && (errno != EEXIST || !p->o.run_dir))
		fatal(EXIT_RUN, "%s:", path);
	if (rmdir(path) < 0 && access(mark, F_OK) < 0)
		fatal(EXIT_USAGE, "%s is neither empty nor the run directory of an earlier run",
			path);
	fd = open(mark, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && fcntl(fd, F_SETLK, &lock) < 0)
		fatal(EXIT_USAGE, "%s is in use by another run", path);
	if (remove_tree(path) < 0 || mkdir(path, 0777) < 0)
		fatal(EXIT_RUN, "%s:", path);
	if (fd >= 0)
		close(fd);
	real = realpath(path, NULL);
	if (!real)
		fatal(EXIT_RUN, "%s:", path);
	p->dir = real;
	/* Held until our end, so that nobody else takes the directory. */
	mark = str("%s/results.jsonl", p->dir);
	fd = open(mark, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0)
		fatal(EXIT_RUN, "%s:", mark);
}

/* Longest first; what is unknown counts as the median; then plan order. */
struct turn {
	int64_t ms;
	int suite, file;
};

static int
by_turn(const void *a, const void *b)
{
	const struct turn *s = a, *t = b;

	if (s->suite != t->suite)
		return s->suite < t->suite ? -1 : 1;
	if (s->ms != t->ms)
		return s->ms > t->ms ? -1 : 1;
	return s->file < t->file ? -1 : s->file > t->file;
}

static int
by_ms(const void *a, const void *b)
{
	int64_t s = *(const int64_t *)a, t = *(const int64_t *)b;

	return s < t ? -1 : s > t;
}

static int *
turns(const struct plan *p)
{
	struct turn *t = xmalloc((p->nfiles + 1) * sizeof(*t));
	int *v = xmalloc((p->nfiles + 1) * sizeof(*v)), swap;
	int64_t *known = xmalloc((p->nfiles + 1) * sizeof(*known)), median = 0;
	size_t i, k, n = 0;
	uint64_t seed = p->o.shuffle ? strtoull(p->o.shuffle, NULL, 10) : 0;

	for (i = 0; i < p->nfiles; i++)
		if (p->files[i].expect_ms >= 0)
			known[n++] = p->files[i].expect_ms;
	qsort(known, n, sizeof(*known), by_ms);
	median = n ? known[n / 2] : 0;
	for (i = 0; i < p->nfiles; i++) {
		t[i].file = (int)i;
		t[i].suite = p->workers == 1 ? (int)(p->files[i].suite - p->suites) : 0;
		t[i].ms = p->files[i].expect_ms < 0 ? median : p->files[i].expect_ms;
	}
	qsort(t, p->nfiles, sizeof(*t), by_turn);
	for (i = 0; i < p->nfiles; i++)
		v[i] = t[i].file;
	for (i = p->nfiles; p->o.shuffle && i > 1; i--) {
		/* xorshift: any order will do, the same for the same seed */
		seed = seed ? seed : 88172645463325252u;
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		k = seed % i;
		swap = v[i - 1];
		v[i - 1] = v[k];
		v[k] = swap;
	}
	free(t);
	free(known);
	return v;
}

static void
print_plan(const struct plan *p, const int *order)
{
	struct buf b = { 0 };
	const struct file *f;
	char *command;
	size_t i, k;

	for (i = 0; i < p->nfiles; i++) {
		f = &p->files[order[i]];
		command = work_command(f);
		b.n = 0;
		buf_safe(&b, f->test, strlen(f->test));
		printf("%s%s%s", f->suite->name, *f->suite->name ? ": " : "", b.s);
		if (f->expect_ms >= 0)
			printf("  %.1fs", (double)f->expect_ms / 1000);
		if (f->alone)
			fputs("  alone", stdout);
		for (k = 0; k < f->nlocks; k++)
			printf("  lock=%s", p->locks.v[f->locks[k]]);
		printf("\n    %s\n", command);
	}
	printf("%zu file%s, %d at once\n", p->nfiles, p->nfiles == 1 ? "" : "s", p->workers);
	buf_free(&b);
}

/* Whether suite i's setup is done when that of an earlier one was. */
static void
find_setups(struct plan *p)
{
	const struct opts *o, *q;
	size_t i, k;

	for (i = 0; i < p->nsuites; i++) {
		o = &p->suites[i].o;
		p->suites[i].no_setup = !o->setup && !o->db;
		for (k = 0; k < i; k++) {
			q = &p->suites[k].o;
			if (!strcmp(o->setup ? o->setup : "", q->setup ? q->setup : "")
			&& !strcmp(o->db ? o->db : "", q->db ? q->db : ""))
				p->suites[i].no_setup = true;
		}
	}
}

static struct part *
make_parts(const struct plan *p)
{
	struct part *parts = calloc(p->nfiles + 1, sizeof(*parts));
	struct buf notes = { 0 };
	char *dir, *path;
	size_t i;
	int k;

	if (!parts)
		fatal(EXIT_RUN, "out of memory");
	for (i = 0; i < p->nfiles; i++) {
		const struct file *f = &p->files[i];
		struct part *part = &parts[i];

		notes.n = 0;
		buf_safe(&notes, f->test, strlen(f->test));
		part->file = str("%s", notes.s);
		part->result = f->o.result;
		part->cause = f->o.cause;
		part->ms = f->o.ms;
		part->attempts = f->attempts;
		part->synthetic = true;
		for (k = 1; k <= f->attempts; k++) {
			dir = work_dir(p, f, k);
			path = str("%s/junit.xml", dir);
			list_add(&part->reports, path);
			path = str("%s/test.log", dir);
			list_add(&part->logs, path);
			if (k == f->o.attempt) {
				path = str("%s/notes", dir);
				notes.n = 0;
				if (!f->o.notes || buf_read(&notes, path) < 0)
					buf_str(&notes, f->o.why);
				if (notes.n && *notes.s == '!')
					part->why = str("%.*s", (int)strcspn(notes.s + 2, "\n"),
						notes.s + 2);
			}
		}
	}
	buf_free(&notes);
	return parts;
}

static int
write_report(const struct plan *p, const char *path, int64_t ms)
{
	struct merge m = { 0 };
	struct counts total;
	struct part *parts = make_parts(p);
	size_t i;
	int r;

	m.run = p->id;
	m.hash = p->hash;
	m.limit = p->o.report_limit < 0 ? INT64_MAX / 2 : p->o.report_limit;
	m.name = "prun";
	m.ms = ms;
	r = junit_merge(&m, parts, p->nfiles, path, &total);
	if (r < 0)
		warn("%s could not be written, what was there is untouched:", path);
	for (i = 0; i < p->nfiles; i++) {
		list_free(&parts[i].reports);
		list_free(&parts[i].logs);
	}
	free(parts);
	return r;
}

/* Files that never had their turn, and the status. */
static void
judge(struct run *r)
{
	struct file *f;
	size_t i;
	bool failed = false, cut = false;

	for (i = 0; i < r->p->nfiles; i++) {
		f = &r->p->files[i];
		if (!f->ended && !f->attempts) {
			cut = true;
			f->o.file = f->index;
			f->o.attempt = 1;
			f->o.result = CANCEL;
			f->o.cause = CAUSE_CANCELLED;
			tell(r, f, false);
		}
		failed = failed || counts_as_failed(r->p, f->o.result);
	}
	if (cut && !r->stopping)        /* no worker was left to run them */
		r->status = EXIT_RUN;
	if (!r->status)
		r->status = failed ? EXIT_FAILED : 0;
}

static int
finish(struct run *r, int64_t ms)
{
	struct plan *p = r->p;
	bool failed = r->status == EXIT_FAILED || r->status == EXIT_RUN, stays;
	char *report = NULL;

	stays = p->o.run_dir || p->o.keep == KEEP_ALWAYS
		|| (failed && !r->sig && p->o.keep != KEEP_NEVER);
	for (size_t i = 0; i < p->nfiles && !stays; i++)
		stays = p->files[i].o.kept;
	if (p->o.junit || stays)
		report = p->o.junit ? p->o.junit : str("%s/report.xml", p->dir);
	if (report && write_report(p, report, ms) < 0) {
		r->status = EXIT_RUN;
		report = NULL;
	}
	if (report && p->o.junit && stays) {
		char *link_to = realpath(report, NULL), *path = str("%s/report.xml", p->dir);

		if (link_to && symlink(link_to, path) < 0)
			warn("%s:", path);
		free(link_to);
	}
	conf_history_write(p);
	if (stays)
		show_say(r->show, "\nkept: %s", p->dir);
	show_end(r->show, r->status, ms, report);
	if (!stays && remove_tree(p->dir) < 0)
		warn("%s could not be removed:", p->dir);
	return r->status;
}

static int
run(struct plan *p, int *order_of)
{
	struct run r;
	int64_t begin = clock_ms();
	int i, status;

	memset(&r, 0, sizeof(r));
	r.p = p;
	r.order = order_of;
	r.nslots = p->workers;
	r.slots = calloc((size_t)r.nslots, sizeof(*r.slots));
	r.views = calloc((size_t)r.nslots, sizeof(*r.views));
	r.fds = calloc((size_t)r.nslots, sizeof(*r.fds));
	if (!r.slots || !r.views || !r.fds)
		fatal(EXIT_RUN, "out of memory");
	make_id(p);
	make_dir(p);
	find_setups(p);
	r.show = show_open(p);
	if (!p->o.quiet)
		show_say(r.show, "%zu file%s, %d at once", p->nfiles, p->nfiles == 1 ? "" : "s",
			p->workers);
	for (i = 0; i < r.nslots; i++)
		r.slots[i].orders = r.slots[i].news = -1;
	for (i = 0; i < r.nslots && start_worker(&r, i) == 0; i++)
		;
	if (i == 0)
		fatal(EXIT_RUN, "cannot start a worker:");
	if (i < r.nslots)
		show_say(r.show, "prun: only %d at once: %s", i, strerror(errno));
	r.nslots = i;
	loop(&r);
	dismiss(&r);
	judge(&r);
	status = finish(&r, clock_ms() - begin);
	for (i = 0; i < r.nslots; i++)
		free(r.slots[i].sessions);
	free(r.slots);
	free(r.views);
	free(r.fds);
	free(r.drops);
	if (r.sig) {
		signal(r.sig, SIG_DFL);
		raise(r.sig);
		_exit(128 + r.sig);     /* process 1 of a container survives raise */
	}
	return status;
}

/* How many workers the descriptors suffice for: two each, and some. */
static int
count_workers(const struct plan *p)
{
	int64_t n = p->o.jobs < (int64_t)p->nfiles ? p->o.jobs : (int64_t)p->nfiles;
	int64_t most = (sysconf(_SC_OPEN_MAX) - 24) / 2;

	if (sysconf(_SC_OPEN_MAX) > 0 && n > most) {
		n = most > 0 ? most : 1;
		warn("only %" PRId64 " files at once: ulimit -n allows %ld descriptors", n,
			sysconf(_SC_OPEN_MAX));
	}
	return n > 0 ? (int)n : 1;
}

int
main(int argc, char **argv)
{
	static struct plan p;   /* lives as long as the process: never freed */
	int *order_of;
	int status = 0;

	proc_init();
	conf_read(&p, argc, argv);
	if (p.o.help)
		conf_help(stdout);
	else if (p.o.version)
		puts("prun " PRUN_VERSION);
	else {
		conf_plan(&p);
		p.workers = count_workers(&p);
		order_of = turns(&p);
		if (p.o.list)
			print_plan(&p, order_of);
		else if (p.nfiles)
			status = run(&p, order_of);
		else if (!p.o.no_tests) {
			warn("no test files found");
			status = EXIT_NO_FILES;
		}
		free(order_of);
	}
	if (fflush(stdout) == EOF && !status)
		fatal(EXIT_RUN, "standard output:");
	return status;
}
