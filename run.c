/*
 * run.c: the run, which is one loop in the parent.
 *
 * The loop gives every idle worker the next file that may run, draws, waits for
 * news, and notes them down.  It never blocks and touches no database: what
 * takes time is done by the workers (work.c), which are forked here, once each,
 * and talked to through a pair of pipes.
 *
 * Files have their turn in the plan's order, as locks allow.  A worker whose
 * stack is ready waits for GO, for there may be more workers than tests at once
 * (ahead).  Retries follow when all have had their turn.  An audit's rounds are
 * attempts, the first one alone, each in an order of its own.
 */
#include "prun.h"

struct run {
	const struct plan *p;
	struct record *records; /* of the files */
	int64_t failed;         /* attempts so far */
	struct show *show;
	struct slot *slots, *end;       /* workers now */
	struct pollfd *fds;
	int most;               /* workers that there may be */
	int begun;              /* tests */
	bool freed;             /* an attempt has ended */
	int *order;             /* files in the order of their turn */
	size_t first;           /* in order: of those that have not had it */
	struct order *drops;    /* clones to be dropped */
	size_t ndrops, capdrops;
	size_t next_setup;      /* suite; nsuites: all done */
	int running;            /* files */
	bool stopping;          /* no more files */
	bool quits;             /* the workers were told to exit */
	int round;              /* of an audit or of retries, after the first */
	int sig, status, restarts;
	int64_t deadline;       /* for the workers to exit */
	bool killed;            /* it has come */
};

/* ---- workers ---- */

static void
order(struct slot *s, struct order o)
{
	static const enum phase first[] = { SETUP, CLONING, STOPPING };

	if (o.type < ORDER_CANCEL) {
		s->order = o;
		s->phase = first[o.type];
		s->since = clock_ms();
	}
	/* Fails if it has died, which waitid will say, or stopped reading. */
	write_all(s->orders, (const char *)&o, sizeof(o));
}

/* Forks a worker; -1 with errno when the system has no room for one more. */
static int
start_worker(struct run *r, struct slot *s)
{
	int orders[2] = { -1, -1 }, news[2] = { -1, -1 };
	bool piped = proc_pipe(orders) == 0 && proc_pipe(news) == 0;

	fflush(NULL);
	s->worker = (struct proc){ .pid = piped ? fork() : -1 };
	if (s->worker.pid == 0) {
		close(orders[1]);
		close(news[0]);
		/* Ends that are open here would hide another's end of file. */
		for (struct slot *t = r->slots; t < r->end; t++) {
			close_keep(t->orders);
			close_keep(t->news);
		}
		proc_become_worker(str("%s/worker.log", r->p->dir), r->p->o.interactive);
		work_run(r->p, (int)(s - r->slots), orders[0], news[1]);
	}
	close_keep(orders[0]);
	close_keep(news[1]);
	if (s->worker.pid < 0) {
		close_keep(orders[1]);
		close_keep(news[0]);
		s->worker.pid = 0;
		return -1;
	}
	/* Cannot fail: the descriptors are open. */
	fcntl(orders[1], F_SETFL, O_NONBLOCK);
	fcntl(news[0], F_SETFL, O_NONBLOCK);
	s->orders = orders[1];
	s->news = news[0];
	return 0;
}

/* Tells all workers to end what they do, and starts no more files. */
static void
cancel(struct run *r, int64_t grace_ms)
{
	r->stopping = true;
	for (struct slot *s = r->slots; s < r->end; s++)
		order(s, (struct order){ .type = ORDER_CANCEL, .ms = grace_ms });
}

/* Says why the run cannot go on, and ends it. */
static void
give_up(struct run *r, const char *why)
{
	show_say(r->show, "prun: %s", why);
	r->status = EXIT_RUN;
	cancel(r, r->p->o.grace_ms);
}

/* ---- stacks that are ready ahead of their turn ---- */

/* How many stacks may be ready beyond the tests that run. */
static int
most_ahead(const struct plan *p)
{
	int64_t n = p->o.ahead, most = (sysconf(_SC_OPEN_MAX) - 24) / 2 - p->workers;

	for (size_t i = 0; i < p->nsuites && p->o.ahead == AHEAD_AUTO; i++) {
		const struct opts *o = &p->suites[i].o;
		if (o->by_worker)
			return 0;
		if (o->server || o->db || o->service.n)
			n = p->workers;
	}
	if (n > (int64_t)p->nfiles - p->workers)
		n = (int64_t)p->nfiles - p->workers;
	if (sysconf(_SC_OPEN_MAX) > 0 && n > most)
		n = most;
	return n < 0 || p->o.audit ? 0 : (int)n;
}

/* Lets the test begin whose turn came first, if fewer than jobs run.  With
 * ahead = auto there is another worker when a place was left free. */
static void
begin_test(struct run *r)
{
	struct slot *first = NULL;
	int testing = 0;

	for (struct slot *s = r->slots; s < r->end; s++) {
		testing += s->testing;
		if (s->phase == PREPARED && !s->testing && (!first || s->since < first->since))
			first = s;
	}
	if (first && testing < r->p->workers) {
		first->testing = true;
		r->begun++;
		order(first, (struct order){ .type = ORDER_GO });
	} else if (r->freed && !first && r->end < r->slots + r->most
	&& r->first < r->p->nfiles && start_worker(r, r->end) == 0) {
		r->end++;
	}
	r->freed = false;
}

/* ---- results ---- */

static bool
is_failure(const struct outcome *o)
{
	return o->result >= FAIL && o->result < CANCEL;
}

static void
queue_drop(struct run *r, int file, int attempt)
{
	r->drops = grow(r->drops, &r->capdrops, r->ndrops + 1, sizeof(*r->drops));
	r->drops[r->ndrops++] = (struct order){ ORDER_DROP, file, attempt, 0 };
}

/* What there is to say of the clone of an attempt: its URL without the
 * password, or its name where db-clone made it.  Scratch memory. */
static char *
clone_url(const struct run *r, const struct file *f, int attempt)
{
	const struct opts *o = &f->suite->o;
	char *name = plan_clone(r->p, f, attempt);

	return o->db_clone ? name
		: url_masked(url_clone(o->db, name, plan_dir(r->p, f, attempt)));
}

/* Tells of an attempt and a clone that stays.  again: another follows. */
static void
tell(struct run *r, const struct file *f, bool again)
{
	size_t mark = scratch_mark();
	struct record *c = &r->records[f->index];
	bool stays = c->o.kept && c->kept == c->o.attempt
		&& (!again || r->p->o.audit || f->suite->o.keep != KEEP_FAILED);

	show_result(r->show, f, plan_dir(r->p, f, c->o.attempt),
		stays ? clone_url(r, f, c->o.attempt) : NULL);
	scratch_release(mark);
}

/* Lists the kept clones that were not named with a failure. */
static void
list_clones(struct run *r)
{
	for (const struct file *f = r->p->files; f < r->p->files + r->p->nfiles; f++) {
		const struct record *c = &r->records[f->index];
		if (c->kept && !(c->ended && is_failure(&c->o) && c->kept == c->o.attempt))
			show_say(r->show, "database of %s: %s", shown(f->test),
				clone_url(r, f, c->kept));
	}
}

/* Gives the file of a worker that got no session with the database server back
 * to the others, and the worker no more; false if it is the last one. */
static bool
give_back(struct run *r, struct slot *s, const struct outcome *o)
{
	int left = 0;

	for (struct slot *t = r->slots; t < r->end; t++)
		left += t != s && t->worker.pid && !t->parked;
	if (!left || r->stopping)
		return false;
	s->parked = true;
	r->most = 0;                    /* auto grows no more */
	if (left < r->p->workers)       /* else it has cost a stack that was ahead */
		show_say(r->show, "prun: the database server has no connection left: %d at "
			"once (see max_connections)", left);
	r->order[--r->first] = o->file;
	return true;
}

/* Whether nothing may run beside f: also in a retry, or an audit's round 0. */
static bool
wants_alone(const struct run *r, const struct file *f)
{
	return f->alone || (r->p->o.audit ? r->round == 0 : r->round > 0);
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
	return is_failure(o) && !opts->fail_fast && !opts->interactive
		&& o->attempt <= f->retries;
}

/* Notes an attempt's outcome.  Of a file's kept clones that of its last failure
 * stays, in an audit of its first; the others are dropped. */
static void
record(struct run *r, struct record *c, const struct outcome *o)
{
	bool audit = r->p->o.audit;
	bool other = c->kept && r->p->files[o->file].suite->o.keep == KEEP_FAILED;

	if (o->kept && other)
		queue_drop(r, o->file, audit ? o->attempt : c->kept);
	if (o->kept && !(other && audit))
		c->kept = o->attempt;
	if (audit)
		c->rounds[o->attempt - 1] = *o;
	else if (o->result == CANCEL && c->attempts)
		return;                 /* a retry that was cut short */
	c->o = *o;
	c->attempts = o->attempt;
	if (!audit && o->attempt > 1 && o->result <= NONE)
		c->o.result = FLAKY;
}

/* An attempt is over: notes it, tells, and decides how the run goes on. */
static void
take_result(struct run *r, struct slot *s, const struct outcome *o)
{
	const struct file *f = &r->p->files[o->file];
	struct record *c = &r->records[o->file];
	struct outcome before = c->o;
	bool audit = r->p->o.audit;

	r->running--;
	s->testing = false;
	r->freed = true;
	if (o->room && o->room < r->most)
		r->most = o->room;      /* for so many has the database server room */
	if (o->crowded && give_back(r, s, o))
		return;
	bool again = wants_another(r, f, o);
	c->ended = !again;
	c->failed += is_failure(o);
	record(r, c, o);
	tell(r, f, again);
	if (audit && is_failure(&before))
		c->o = before;          /* the first failure stands for it */
	r->failed += is_failure(o);
	if (r->stopping)
		return;
	if (o->fatal) {
		give_up(r, str("%s: the run cannot go on", f->test));
	} else if (is_failure(o) && r->failed == r->p->o.fail_fast && !audit) {
		show_say(r->show, "prun: stopping after %" PRId64 " failing file%s", r->failed,
			r->failed == 1 ? "" : "s");
		cancel(r, r->p->o.grace_ms);
	}
}

/* The attempt of a worker that cannot tell what came of it. */
static void
lose_attempt(struct run *r, struct slot *s, const char *why)
{
	const struct file *f = &r->p->files[s->order.file];
	struct outcome o = {
		.file = f->index, .attempt = s->order.attempt, .slot = (int)(s - r->slots),
		.result = r->killed ? CANCEL : ERROR, .begin = s->since,
		.ms = clock_ms() - s->since,
		.cause = r->killed ? CAUSE_CANCELLED : CAUSE_WORKER_DIED
	};
	char *clone = plan_clone(r->p, f, o.attempt);

	snprintf(o.why, sizeof(o.why), "! %s%s", why, r->killed && clone
		? str("; its database %s may be left", clone) : "");
	take_result(r, s, &o);
}

/* Shows what a worker says of its order.  A setup that failed ends the run. */
static void
take_done(struct run *r, const struct slot *s, bool failed)
{
	char *path = str("%s/notes%d", r->p->dir, (int)(s - r->slots)), *line;
	bool was_setup = s->order.type == ORDER_SETUP;
	struct buf b = scratch_buf();

	buf_read(&b, path);
	unlink(path);
	while ((line = next_line(&b.s)))
		show_say(r->show, "%s%s", r->p->o.clean ? "" : "prun: ", line + 2);
	r->next_setup += was_setup;
	if (was_setup && failed && !r->stopping) {
		show_say(r->show, "%s", file_tail(str("%s/setup.log", r->p->dir), 15));
		r->status = EXIT_RUN;
		cancel(r, 0);
	}
}

/* The server of a kept attempt is up again. */
static void
tell_reopened(struct run *r, const char *url)
{
	const char *dir = r->p->o.reopen, *db = getenv("PRUN_DB_URL");

	show_say(r->show, *url ? "%-12s%s" : "the suite has no server", "server", url);
	if (db && *db)
		show_say(r->show, "database    %s", url_masked(db));
	show_say(r->show, *url ? "environment %s/env\nserver log  %s/reopen.log\n^C stops it"
		: "environment %s/env", dir, dir);
}

/* ---- news, and a worker's death ---- */

/* Whether a worker's word can be true: without a test that has ended there is
 * only ERROR or CANCEL, and what is green has no cause. */
static bool
is_sound(const struct outcome *o, const struct order *given)
{
	bool well = o->result > NONE || (!o->cause && (o->result != PASS || !o->status));

	return o->file == given->file && o->attempt == given->attempt
		&& (o->result >= ERROR || (o->tested && well));
}

/* Takes a piece of news; whether it ends the order that is under way. */
static bool
take_news(struct run *r, struct slot *s, const struct news *n)
{
	switch (n->type) {
	case NEWS_PHASE:
		s->phase = n->phase;
		/* Another may begin; with -x only once this one has passed. */
		if (n->phase == STOPPING && !r->p->o.fail_fast)
			s->testing = false;
		if (n->phase == WAITING)
			show_say(r->show, "prun: waiting for the setup of another run");
		return false;
	case NEWS_SESSION:
		proc_add(&s->sessions, n->pid);
		return false;
	case NEWS_REAPED:
		proc_remove(&s->sessions, n->pid);
		return false;
	case NEWS_OPEN:
		tell_reopened(r, n->o.why);
		return false;
	case NEWS_RESULT:
		if (r->p->o.reopen || is_sound(&n->o, &s->order))
			take_result(r, s, &n->o);
		else
			lose_attempt(r, s, "its worker contradicts itself");
		return true;
	case NEWS_DONE:
		take_done(r, s, n->o.cause != CAUSE_NONE);
	}
	return true;
}

static void
read_news(struct run *r, struct slot *s)
{
	struct news n;

	while (s->news >= 0) {
		ssize_t got = read(s->news, &n, sizeof(n));
		if (got == 0) {         /* it is about to end, which a signal will tell */
			close(s->news);
			s->news = -1;
		}
		if (got != (ssize_t)sizeof(n))
			return;
		if (take_news(r, s, &n))
			s->phase = IDLE;
	}
}

/* A worker is dead: its file is an error, another one takes its place. */
static void
replace_worker(struct run *r, struct slot *s)
{
	const char *how = proc_how_ended(&s->worker);
	struct pids keep = { 0 };

	read_news(r, s);
	/* As long as it is a zombie its children are ours. */
	for (; s->sessions.n; s->sessions.n--) {
		/* Right after fork there is no group yet. */
		kill(s->sessions.v[s->sessions.n - 1], SIGKILL);
		killpg(s->sessions.v[s->sessions.n - 1], SIGKILL);
	}
	for (struct slot *t = r->slots; t < r->end; t++)
		proc_add(&keep, t->worker.pid);
	proc_drain(&keep, NULL);
	free(keep.v);
	waitpid(s->worker.pid, NULL, 0);
	close(s->orders);
	close_keep(s->news);
	s->orders = s->news = -1;
	s->worker = (struct proc){ .pid = 0 };
	enum order_type lost = s->phase == IDLE ? ORDER_QUIT : s->order.type;
	s->phase = IDLE;
	if (lost == ORDER_RUN)
		lose_attempt(r, s, r->killed ? "did not stop in time and was killed"
			: str("the worker died: %s", how));
	if (r->quits)
		return;
	show_say(r->show, "prun: worker %d died: %s; see %s/worker.log",
		(int)(s - r->slots), how, r->p->dir);
	if (lost == ORDER_RUN && r->p->files[s->order.file].suite->o.db && !r->p->o.reopen)
		queue_drop(r, s->order.file, s->order.attempt);
	if (lost == ORDER_SETUP)
		take_done(r, s, true);
	if (++r->restarts > r->p->o.max_worker_restart && !r->stopping)
		give_up(r, "too many workers died (max-worker-restart)");
	if (start_worker(r, s) < 0)
		show_say(r->show, "prun: no worker could take its place: %s", strerror(errno));
	else if (r->stopping)
		order(s, (struct order){ .type = ORDER_CANCEL });
}

/* ---- whose turn it is ---- */

/* Whether f may run beside all that runs now. */
static bool
may_run(const struct run *r, const struct file *f)
{
	int64_t room = f->suite->o.workers;

	for (const struct slot *s = r->slots; s < r->end; s++) {
		if (s->phase == IDLE || s->order.type != ORDER_RUN)
			continue;
		const struct file *g = &r->p->files[s->order.file];
		if (wants_alone(r, f) || wants_alone(r, g))
			return false;
		room -= g->suite == f->suite;
		for (size_t i = 0; i < f->nlocks * g->nlocks; i++)
			if (f->locks[i % f->nlocks] == g->locks[i / f->nlocks])
				return false;
	}
	return room > 0;
}

/* All have had their turn: for a retry or an audit's round they get another. */
static bool
begin_round(struct run *r)
{
	const struct plan *p = r->p;

	if (r->first < p->nfiles || (p->o.audit && r->round >= p->o.audit))
		return false;
	r->round++;
	r->order = plan_order(p, p->o.audit ? str("%s-%d", p->o.shuffle, r->round)
		: p->o.shuffle);
	for (size_t i = p->nfiles; i > 0; i--)
		if (!r->records[r->order[i - 1]].ended)
			r->order[--r->first] = r->order[i - 1];
	if (p->o.audit && r->first < p->nfiles)
		show_say(r->show, "audit: round %d of %d", r->round, (int)p->o.audit);
	return r->first < p->nfiles;
}

/* Gives an idle worker something to do, or false if there is nothing.  Setups
 * are the first one's, and the others wait for them. */
static bool
give_work(struct run *r, struct slot *s)
{
	while (r->next_setup < r->p->nsuites && r->p->suites[r->next_setup].no_setup
	&& !r->p->suites[r->next_setup].whole.n)
		r->next_setup++;
	if (!r->stopping && r->next_setup < r->p->nsuites) {
		if (s == r->slots)
			order(s, (struct order){ ORDER_SETUP, (int)r->next_setup, 0, 0 });
		return s == r->slots;
	}
	if (r->ndrops) {
		order(s, r->drops[--r->ndrops]);
		return true;
	}
	/* The first stacks come before any that are ahead. */
	if (r->stopping || (r->running >= r->p->workers && r->begun < r->p->workers))
		return false;
	for (size_t i = r->first; i < r->p->nfiles; i++) {
		int file = r->order[i];
		if (!may_run(r, &r->p->files[file]))
			continue;
		memmove(&r->order[r->first + 1], &r->order[r->first],
			(i - r->first) * sizeof(*r->order));
		r->first++;
		r->running++;
		order(s, (struct order){ ORDER_RUN, file, r->records[file].attempts + 1, 0 });
		return true;
	}
	return false;
}

/* Gives every idle worker something to do; false when the run is over. */
static bool
hand_out(struct run *r)
{
	bool busy = false, more = true;

	if (!r->stopping)
		begin_test(r);
	for (struct slot *s = r->slots; s < r->end; s++) {
		/* With no other at work there is room for a parked one. */
		if (more && s->worker.pid && s->phase == IDLE && (!s->parked || !r->running))
			more = give_work(r, s);
		busy = busy || s->phase != IDLE;
	}
	if (busy || r->stopping)
		return busy;
	if (begin_round(r))
		return hand_out(r);
	/* What had to wait for the end: keep = run, and nothing failed. */
	for (size_t i = 0; i < r->p->nfiles && !r->failed; i++) {
		if (r->p->files[i].suite->o.keep == KEEP_RUN && r->records[i].kept) {
			queue_drop(r, (int)i, r->records[i].kept);
			r->records[i].kept = 0;
		}
	}
	return r->ndrops && hand_out(r);
}

/* ---- signals ---- */

/* ^Z: everything stands still, clocks too, until we are continued. */
static void
suspend(struct run *r)
{
	int64_t begin = clock_ms();
	siginfo_t si;

	for (struct slot *s = r->slots; s < r->end; s++) {
		if (!s->worker.pid)
			continue;
		/* First the worker, so that it starts nothing meanwhile. */
		kill(s->worker.pid, SIGSTOP);
		/* WNOWAIT: if it is dead, replace_worker() sees to that. */
		waitid(P_PID, (id_t)s->worker.pid, &si, WSTOPPED | WEXITED | WNOWAIT);
		read_news(r, s);
		for (size_t k = 0; k < s->sessions.n; k++)
			killpg(s->sessions.v[k], SIGSTOP);
	}
	raise(SIGSTOP);
	for (struct slot *s = r->slots; s < r->end; s++) {
		order(s, (struct order){ ORDER_PAUSED, .ms = clock_ms() - begin });
		for (size_t k = 0; k < s->sessions.n; k++)
			killpg(s->sessions.v[k], SIGCONT);
		if (s->worker.pid)
			kill(s->worker.pid, SIGCONT);
	}
}

static void
end_within(struct run *r, int64_t ms)
{
	if (r->deadline > clock_ms() + ms)
		r->deadline = clock_ms() + ms;
}

/* Ends the run because of a signal, a second one without grace.  Whatever the
 * workers wait for, they are killed when the deadline comes. */
static void
stop_for_signal(struct run *r, int sig)
{
	int64_t grace = r->p->o.grace_ms;

	if (r->killed)
		return;
	if (grace < 0 || grace > 2000)
		grace = 2000;
	if (!r->sig)
		show_say(r->show, "prun: %s: stopping; once more kills at once",
			strsignal(sig));
	end_within(r, r->sig ? 1000 : 2000 + grace);
	cancel(r, r->sig ? 0 : grace);
	r->sig = r->sig ? r->sig : sig;
}

static void
heed_signals(struct run *r)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };

	for (size_t i = 0; i < LEN(sigs); i++)
		if (proc_caught(sigs[i]))
			stop_for_signal(r, sigs[i]);
	if (!r->sig && show_error(r->show) == EPIPE)
		stop_for_signal(r, SIGPIPE);
	if (proc_caught(SIGTSTP))
		suspend(r);
	if (proc_caught(SIGUSR1))
		show_draw(r->show, r->slots, (int)(r->end - r->slots), true);
}

/* ---- the loop, and its end ---- */

/* Waits until then, or the deadline, for anything to happen, and sees to it. */
static void
await_news(struct run *r, int64_t until)
{
	struct pollfd *fd = r->fds;

	for (struct slot *s = r->slots; s < r->end; s++)
		*fd++ = (struct pollfd){ s->news, POLLIN, 0 };
	*fd++ = (struct pollfd){ show_write(r->show), POLLOUT, 0 };
	proc_wait(NULL, r->fds, (size_t)(fd - r->fds),
		until < r->deadline ? until : r->deadline);
	for (struct slot *s = r->slots; s < r->end; s++) {
		read_news(r, s);
		if (proc_ended(&s->worker))
			replace_worker(r, s);
	}
	heed_signals(r);
}

/* Whether a worker lives, and the deadline has not come. */
static bool
goes_on(const struct run *r)
{
	for (const struct slot *s = r->slots; s < r->end; s++)
		if (s->worker.pid)
			return clock_ms() < r->deadline;
	return false;
}

/* Kills the workers that have not ended by the deadline, with all that they
 * have started.  What hangs in a system call for half a second is given up. */
static void
kill_workers(struct run *r)
{
	r->killed = true;
	for (struct slot *s = r->slots; s < r->end; s++) {
		r->stopping = r->stopping || s->worker.pid;
		if (s->worker.pid)
			kill(s->worker.pid, SIGKILL);
	}
	r->deadline = clock_ms() + 500;
	while (goes_on(r))
		await_news(r, NEVER);
	for (struct slot *s = r->slots; s < r->end; s++)
		if (s->worker.pid && s->phase != IDLE && s->order.type == ORDER_RUN)
			lose_attempt(r, s, "could not be killed");
}

/* Sets the results of files that never had their turn, and the status. */
static void
end_files(struct run *r)
{
	bool failed = false, cut = false;

	for (size_t i = 0; i < r->p->nfiles; i++) {
		struct record *c = &r->records[i];
		c->ended = c->attempts; /* also if it waited for a retry */
		if (!c->attempts) {
			cut = true;
			tell(r, &r->p->files[i], false);
		}
		failed |= c->o.result >= FAIL || (c->o.result == FLAKY && r->p->o.flaky);
	}
	if (cut && !r->stopping)        /* no worker was left to run them */
		r->status = EXIT_RUN;
	else if (!r->status && failed)
		r->status = EXIT_FAILED;
}

int
run_files(const struct plan *p, struct record *records, struct show *show, int *sig)
{
	int ahead = most_ahead(p);
	size_t n = (size_t)(p->workers + ahead);
	struct run r = {
		.p = p, .records = records, .show = show, .most = p->workers + ahead,
		.order = plan_order(p, p->o.shuffle), .deadline = NEVER,
		.slots = scratch(n * sizeof(*r.slots)),
		.fds = scratch((n + 3) * sizeof(*r.fds))
	};

	if (ahead && p->o.ahead == AHEAD_AUTO)
		n -= (size_t)ahead - 1;
	for (r.end = r.slots; r.end < r.slots + n && start_worker(&r, r.end) == 0; r.end++)
		;
	if (r.end == r.slots)
		fatal(EXIT_RUN, "cannot start a worker:");
	if (r.end < r.slots + p->workers)
		show_say(show, "prun: only %d at once: %s", (int)(r.end - r.slots),
			strerror(errno));
	/* No file has run.  The forks need not copy that. */
	for (size_t k = 0; k < p->nfiles; k++) {
		struct record *c = &records[k];
		c->o = (struct outcome){ .file = (int)k, .attempt = 1, .result = CANCEL,
			.cause = CAUSE_CANCELLED };
		if (p->o.audit)
			c->rounds = xcalloc((size_t)p->o.audit + 1, sizeof(*c->rounds));
	}
	while (goes_on(&r) && hand_out(&r))
		await_news(&r, show_draw(show, r.slots, (int)(r.end - r.slots), false));
	/* Nothing is left to do. */
	end_within(&r, 10000);
	r.quits = true;
	for (struct slot *s = r.slots; s < r.end; s++)
		order(s, (struct order){ .type = ORDER_QUIT });
	while (goes_on(&r))
		await_news(&r, NEVER);
	kill_workers(&r);
	proc_drain(NULL, NULL);
	list_clones(&r);
	end_files(&r);
	free(r.drops);
	*sig = r.sig;
	return r.status;
}

/* ---- what an audit found ---- */

/* What there may be against a file, strongest first. */
static const char *const evidence[] = {
	"beside it whenever it failed, and never when both passed:",
	"beside it whenever it failed, but also when both passed:",
	"not always beside the same file; these unsafe files ran beside it when it failed:",
	"no file in particular ran beside it"
};
#define NO_EVIDENCE (LEN(evidence) - 1)

/* Index in evidence of what there is against g where f failed. */
static size_t
weigh(const struct plan *p, const struct record *f, const struct record *g)
{
	int failed = 0, harmless = 0;

	for (int k = 1; k <= p->o.audit; k++) {
		const struct outcome *a = &f->rounds[k];
		const struct outcome *b = &g->rounds[k];
		if (a->attempt && b->attempt && a->begin < b->begin + b->ms
		&& b->begin < a->begin + a->ms) {
			failed += is_failure(a);
			harmless += !is_failure(a) && !is_failure(b);
		}
	}
	if (f == g || !failed || (failed < f->failed && !g->failed))
		return NO_EVIDENCE;
	if (failed < f->failed)
		return 2;
	return harmless ? 1 : 0;
}

/* The lines to paste into prun.conf.  Files of a group have its number. */
static void
add_lines(struct buf *b, const struct plan *p, const struct record *records,
	const size_t *group)
{
	struct buf names = scratch_buf();
	int locks = 0;

	for (size_t i = 0; i < p->nfiles; i++) {
		int n = 0;
		for (size_t k = 0; k < p->nfiles; k++) {
			if (group[k] != i)
				continue;
			buf_str(&names, n++ ? " " : "");
			for (const char *s = p->files[k].path; *s; s++) /* as a glob */
				buf_str(&names, str(strchr("*?[\\", *s) ? "\\%c" : "%c", *s));
		}
		if (n > 1)
			buf_fmt(b, "lock = audit-%d %s\n", ++locks, names.s);
		else if (n && records[i].failed && !is_failure(records[i].rounds))
			buf_fmt(b, "serial = %s\n", names.s);
		names.n = 0;
	}
}

/* Names an unsafe file's suspects, and puts them into its group. */
static void
add_suspects(struct buf *b, const struct plan *p, const struct record *records, size_t f,
	size_t *group)
{
	size_t k, from, strongest = NO_EVIDENCE;

	for (size_t i = 0; i < p->nfiles; i++) {
		size_t e = weigh(p, &records[f], &records[i]);
		strongest = e < strongest ? e : strongest;
	}
	buf_fmt(b, "\n    %s", evidence[strongest]);
	for (size_t i = 0; i < p->nfiles && strongest < NO_EVIDENCE; i++) {
		if (weigh(p, &records[f], &records[i]) != strongest)
			continue;
		buf_fmt(b, " %s", shown(p->files[i].test));
		for (from = group[i], k = 0; k < p->nfiles; k++)
			if (group[k] == from)
				group[k] = group[f];
	}
	buf_char(b, '\n');
}

void
run_audit(const struct plan *p, const struct record *records, struct show *show)
{
	size_t *group = xcalloc(p->nfiles, sizeof(*group)), n[4] = { 0 };
	struct buf found = scratch_buf();

	for (size_t i = 0; i < p->nfiles; i++)
		group[i] = i;
	for (size_t i = 0; i < p->nfiles; i++) {
		const char *name = shown(p->files[i].test);
		const struct record *c = &records[i];
		if (is_failure(c->rounds)) {
			n[2]++;
			buf_fmt(&found, "broken: %s  fails alone\n", name);
		} else if (c->failed) {
			n[1]++;
			buf_fmt(&found, "unsafe: %s  passed alone, failed in %d of %d rounds "
				"beside others", name, c->failed, (int)p->o.audit);
			add_suspects(&found, p, records, i, group);
		} else {
			n[c->attempts > p->o.audit && c->o.result <= NONE ? 0 : 3]++;
		}
	}
	if (n[1]) {
		buf_str(&found, "\nUntil they no longer share anything, these lines in "
			"prun.conf keep them apart:\n\n");
		add_lines(&found, p, records, group);
	}
	show_say(show, "\naudit: ran each of %zu files alone, then %d round%s with %d at "
		"once:\n%zu safe, %zu unsafe, %zu broken%s\n%s", p->nfiles, (int)p->o.audit,
		p->o.audit == 1 ? "" : "s", p->workers, n[0], n[1], n[2],
		n[3] ? str(", %zu not finished", n[3]) : "", found.s);
	if (found.n && file_write(str("%s/audit.txt", p->dir), found.s, found.n, 0666) < 0)
		warn("%s/audit.txt:", p->dir);
	free(group);
}
