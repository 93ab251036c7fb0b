/*
 * run.c: the run, which is one loop in the parent.
 *
 * It waits for news from the workers, notes them down, gives every idle worker
 * the next file that may run, and draws.  It never blocks and touches no
 * database; all that takes time is done by the workers (work.c), which are
 * forked here, once each, and talked to through a pair of pipes.  A worker that
 * dies is noticed by waitid; its news are read to the end, the sessions it had
 * announced are killed, and another takes its place.
 *
 * Files have their turn in the plan's order, as locks allow; retries follow when
 * all have had it.  An audit gives them all another turn, in another order, as
 * often as it was asked for: its rounds are attempts, the first one alone.
 */
#include "prun.h"

struct slot {
	pid_t pid;              /* 0: nobody */
	int orders, news;       /* our ends of the pipes */
	pid_t *sessions;        /* announced and not reaped */
	size_t nsessions, capsessions;
	bool busy;              /* an order is under way */
	bool parked;            /* the database server has no room for it */
	struct order order;
};

struct drop {
	int file, attempt;
};

struct run {
	const struct plan *p;
	struct record *records; /* of the files */
	bool *held;             /* locks that are taken */
	int *in_suite;          /* attempts under way in each suite */
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
	int round;              /* of an audit; 0: each file alone */
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
		proc_become_worker(log, r->p->o.interactive);
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
	close_keep(news[0]);
	close_keep(news[1]);
err_orders:
	close_keep(orders[0]);
	close_keep(orders[1]);
	s->pid = 0;
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
	const struct outcome *o = &r->records[f->index].o;
	const struct opts *opts = &f->suite->o;
	char *dir = plan_dir(r->p, f, o->attempt), *name = plan_clone(r->p, f, o->attempt);
	char *url = NULL;

	if (o->kept && opts->db_clone)
		url = name;
	else if (o->kept)
		url = url_masked(url_clone(opts->db, name, dir));
	show_result(r->show, f, again, dir, url);
	scratch_release(mark);
}

/* The file of a worker that got no session with the database server goes to another
 * one, and it gets no more; false if there is no other. */
static bool
give_back(struct run *r, int slot, const struct outcome *o)
{
	int i, left = 0;
	size_t k;

	for (i = 0; i < r->nslots; i++)
		left += i != slot && r->slots[i].pid && !r->slots[i].parked;
	if (!left || r->stopping)
		return false;
	r->slots[slot].parked = true;
	show_say(r->show, "prun: the database server has no connection left: %d at once (see "
		"max_connections)", left);
	for (k = 0; (o->attempt == 1 || r->p->o.audit) && r->order[k] >= 0; k++)
		;
	if (o->attempt == 1 || r->p->o.audit)
		r->order[k] = o->file;
	r->first = k < r->first ? k : r->first;
	return true;
}

/* The attempt holds nothing any more: neither locks nor a place. */
static void
release(struct run *r, const struct file *f)
{
	size_t i;

	for (i = 0; i < f->nlocks; i++)
		r->held[f->locks[i]] = false;
	r->in_suite[f->suite - r->p->suites]--;
	r->running--;
	r->alone = false;
}

static bool
is_failure(const struct outcome *o)
{
	return o->result >= FAIL && o->result < CANCEL;
}

/* Whether another attempt of the file follows this one. */
static bool
wants_another(const struct run *r, const struct file *f, const struct outcome *o)
{
	const struct opts *opts = &r->p->o;

	if (r->stopping || o->fatal || opts->reopen)
		return false;
	if (opts->audit)        /* a file that fails alone is not run in company */
		return o->attempt <= opts->audit && !(is_failure(o) && o->attempt == 1);
	return is_failure(o) && !opts->fail_fast && !opts->interactive && o->attempt <= f->retries;
}

/* Queues the kept clones of all attempts but that which stands for the file. */
static void
drop_others(struct run *r, const struct outcome *before, const struct outcome *o)
{
	int stands = r->records[o->file].o.attempt;

	if (before->kept && before->attempt != stands)
		queue_drop(r, o->file, before->attempt);
	if (o->kept && o->attempt != stands)
		queue_drop(r, o->file, o->attempt);
}

/* An attempt is over: decides whether another follows, tells, goes on. */
static void
take_result(struct run *r, int slot, const struct outcome *o)
{
	const struct file *f = &r->p->files[o->file];
	struct record *c = &r->records[o->file];
	struct outcome before = c->o;
	bool again, audit = r->p->o.audit;

	release(r, f);
	if (o->crowded && give_back(r, slot, o))
		return;
	again = wants_another(r, f, o);
	c->ended = !again;
	c->o = *o;
	c->attempts = o->attempt;
	if (audit) {
		c->rounds[o->attempt - 1] = *o;
	} else if (o->result == CANCEL && before.attempt) {
		c->o = before;          /* a retry that was cut short */
		c->attempts = before.attempt;
	} else if (o->attempt > 1 && o->result <= NONE) {
		c->o.result = FLAKY;
	}
	tell(r, f, again);
	if (audit && before.attempt && before.result >= FAIL)
		c->o = before;          /* the first failure stands for it */
	drop_others(r, &before, o);
	if (o->fatal && !r->stopping) {
		show_say(r->show, "prun: %s: the run cannot go on", f->test);
		r->status = EXIT_RUN;
		cancel(r, r->p->o.grace_ms);
	} else if (is_failure(o) && r->p->o.fail_fast && !audit && !r->stopping) {
		show_say(r->show, "prun: stopping the rest at the first failure");
		cancel(r, r->p->o.grace_ms);
	}
}

/* Text of the notes that a setup has left; failed: they say why. */
static void
take_setup(struct run *r, bool failed)
{
	char *path = str("%s/notes", r->p->dir), *log = str("%s/setup.log", r->p->dir);
	char *text, *line;
	struct buf b = { 0 };

	buf_read(&b, path);
	text = b.s;
	while ((line = next_line(&text)))
		show_say(r->show, "%s%s", r->p->o.clean ? "" : "prun: ", line + 2);
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

/* The server of a kept attempt answers again. */
static void
tell_reopened(struct run *r, const char *url)
{
	const char *dir = r->p->o.reopen, *db = getenv("PRUN_DB_URL");

	show_say(r->show, *url ? "%-12s%s" : "the suite has no server", "server", url);
	if (db && *db)
		show_say(r->show, "%-12s%s", "database", url_masked(db));
	show_say(r->show, "%-12s%s/env", "environment", dir);
	if (*url)
		show_say(r->show, "%-12s%s/reopen.log\n^C stops it", "server log", dir);
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
		case NEWS_OPEN:
			tell_reopened(r, n.o.why);
			continue;
		case NEWS_RESULT:
			take_result(r, i, &n.o);
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
		dir = plan_dir(r->p, &r->p->files[was.file], was.attempt);
		path = str("%s/notes", dir);
		text = str("! the worker died: %s\n", WIFSIGNALED(status)
			? strsignal(WTERMSIG(status)) : "it exited");
		if (mkdir(dir, 0777) < 0 && errno != EEXIST)
			warn("%s:", dir);
		o.notes = file_write(path, text, strlen(text), 0666) == 0;
		take_result(r, i, &o);
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
wants_alone(const struct run *r, const struct file *f)
{
	return f->alone || (r->p->o.audit ? r->round == 0 : r->records[f->index].attempts > 0);
}

static bool
may_run(const struct run *r, const struct file *f)
{
	size_t i;

	if (r->alone || (r->running && wants_alone(r, f)) || r->in_suite[f->suite - r->p->suites] >= f->suite->o.workers)
		return false;
	for (i = 0; i < f->nlocks; i++)
		if (r->held[f->locks[i]])
			return false;
	return true;
}

static void
run_file(struct run *r, int slot, const struct file *f)
{
	size_t i;

	for (i = 0; i < f->nlocks; i++)
		r->held[f->locks[i]] = true;
	r->alone = wants_alone(r, f);
	r->in_suite[f->suite - r->p->suites]++;
	r->running++;
	r->views[slot].file = f->index;
	r->views[slot].phase = CLONING;
	r->views[slot].since = clock_ms();
	order(&r->slots[slot], ORDER_RUN, f->index, r->records[f->index].attempts + 1, 0);
}

/* Another round of an audit: all that have not ended, in another order. */
static bool
begin_round(struct run *r)
{
	size_t i;

	if (r->round >= r->p->o.audit)
		return false;
	r->round++;
	free(r->order);
	r->order = plan_order(r->p, str("%s-%d", r->p->o.shuffle, r->round));
	for (i = 0; i < r->p->nfiles; i++)
		if (r->records[r->order[i]].ended)
			r->order[i] = -1;
	r->first = 0;
	show_say(r->show, "audit: round %d of %d", r->round, (int)r->p->o.audit);
	return true;
}

/* The next file that may run now, or NULL. */
static const struct file *
next_file(struct run *r)
{
	const struct file *f;
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
	if (r->p->o.audit)
		return begin_round(r) ? next_file(r) : NULL;
	/* All have had their turn: retries, one at a time, alone. */
	for (i = 0; i < r->p->nfiles; i++)
		if (!r->records[i].ended)
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
		bad = bad || counts_as_failed(r->p, r->records[i].o.result);
	for (i = 0; i < r->p->nfiles && !bad; i++) {
		f = &r->p->files[i];
		if (f->suite->o.keep == KEEP_RUN && r->records[i].o.kept)
			queue_drop(r, f->index, r->records[i].o.attempt);
	}
}

/* Gives every idle worker something to do; false when there is nothing. */
static bool
hand_out(struct run *r)
{
	const struct file *f;
	bool busy = false;
	int i;

	for (i = 0; i < r->nslots; i++) {
		struct slot *s = &r->slots[i];

		if (s->busy || !s->pid || s->parked) {
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
			killpg(s->sessions[k], SIGSTOP);
	}
	raise(SIGSTOP);
	for (i = 0; i < r->nslots; i++) {
		s = &r->slots[i];
		if (!s->pid)
			continue;
		order(s, ORDER_PAUSED, 0, 0, clock_ms() - begin);
		for (k = 0; k < s->nsessions; k++)
			killpg(s->sessions[k], SIGCONT);
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

/* ---- the end ---- */

/* Files that never had their turn, and the status. */
static void
judge(struct run *r)
{
	struct outcome *o;
	size_t i;
	bool failed = false, cut = false;

	for (i = 0; i < r->p->nfiles; i++) {
		o = &r->records[i].o;
		if (!r->records[i].ended && !r->records[i].attempts) {
			cut = true;
			o->file = (int)i;
			o->attempt = 1;
			o->result = CANCEL;
			o->cause = CAUSE_CANCELLED;
			tell(r, &r->p->files[i], false);
		}
		failed = failed || counts_as_failed(r->p, o->result);
	}
	if (cut && !r->stopping)        /* no worker was left to run them */
		r->status = EXIT_RUN;
	if (!r->status)
		r->status = failed ? EXIT_FAILED : 0;
}

int
run_files(const struct plan *p, struct record *records, struct show *show, int *sig)
{
	struct run r;
	size_t k;
	int i;

	memset(&r, 0, sizeof(r));
	r.p = p;
	r.records = records;
	r.show = show;
	r.order = plan_order(p, p->o.shuffle);
	r.nslots = p->workers;
	for (k = 0; p->o.audit && k < p->nfiles; k++)
		records[k].rounds = xcalloc((size_t)p->o.audit + 1, sizeof(struct outcome));
	r.held = xcalloc(p->locks.n, sizeof(*r.held));
	r.in_suite = xcalloc(p->nsuites, sizeof(*r.in_suite));
	r.slots = xcalloc((size_t)r.nslots, sizeof(*r.slots));
	r.views = xcalloc((size_t)r.nslots, sizeof(*r.views));
	r.fds = xcalloc((size_t)r.nslots, sizeof(*r.fds));
	for (i = 0; i < r.nslots; i++)
		r.slots[i].orders = r.slots[i].news = -1;
	for (i = 0; i < r.nslots && start_worker(&r, i) == 0; i++)
		;
	if (i == 0)
		fatal(EXIT_RUN, "cannot start a worker:");
	if (i < r.nslots)
		show_say(show, "prun: only %d at once: %s", i, strerror(errno));
	r.nslots = i;
	loop(&r);
	dismiss(&r);
	judge(&r);
	for (i = 0; i < r.nslots; i++)
		free(r.slots[i].sessions);
	free(r.held);
	free(r.in_suite);
	free(r.slots);
	free(r.views);
	free(r.fds);
	free(r.drops);
	free(r.order);
	*sig = r.sig;
	return r.status;
}
