/*
 * work.c: one worker, and the life of an attempt, top to bottom.
 *
 * A worker reads an order, does it, says so, and reads the next.  attempt()
 * is the life: directories, clone, ports, services and server until they are
 * ready, a wait for GO, test, verdict, stop test and stack, the after command,
 * keep or drop the clone, report.  A step that fails sets a.out.cause, and the
 * next ones have nothing to do but to clean up.  Words for people go into the
 * notes (show.c), numbers up the pipe.
 */
#include "prun.h"

struct attempt {
	struct worker *w;
	const struct plan *plan;
	struct pg *pg;
	const struct file *f;   /* NULL: a setup */
	const struct suite *suite;
	const struct opts *o;
	struct outcome out;
	char *dir, *tmp, *junit, *log, *db, *db_url;
	struct port *ports;     /* PRUN_PORT, then those of ports =; NULL: a setup's */
	size_t nports;
	struct proc *procs;     /* of the stack: o->services, the server if there is one */
	char **logs;
	size_t nstack;
	struct list env;        /* of the test; first what is ours */
	size_t ours;
	struct proc test;
	int64_t waited;         /* for its turn, with its stack ready */
	const char *why;        /* the cause in words, or NULL */
	struct buf notes;
};

/* ---- environment ---- */

/* Index of a variable in the environment, or env.n. */
static size_t
env_find(const struct attempt *a, const char *name, size_t n)
{
	size_t i = 0;

	while (i < a->env.n && (strncmp(a->env.v[i], name, n) || a->env.v[i][n] != '='))
		i++;
	return i;
}

static void
env_set(struct attempt *a, const char *setting)
{
	size_t i = env_find(a, setting, strcspn(setting, "="));

	if (i == a->env.n) {
		list_add(&a->env, setting);
	} else {
		free(a->env.v[i]);
		a->env.v[i] = xstrdup(setting);
	}
}

static void
env_all(struct attempt *a, const struct list *names, const char *value)
{
	for (size_t i = 0; i < names->n; i++)
		env_set(a, str("%s=%s", names->v[i], value));
}

/* Sets NAME=VALUE with $PRUN_... in the value expanded. */
static void
env_expand(struct attempt *a, const char *setting)
{
	const char *s = strchr(setting, '=') + 1;
	struct buf b = scratch_buf();

	buf_add(&b, setting, (size_t)(s - setting));
	while (*s) {
		bool brace = starts(s, "${PRUN_");
		if (!brace && !starts(s, "$PRUN_")) {
			buf_char(&b, *s++);
			continue;
		}
		s += 1 + brace;
		size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
		size_t i = env_find(a, s, n);
		if (i < a->env.n)
			buf_str(&b, a->env.v[i] + n + 1);
		s += n + (brace && s[n] == '}');
	}
	env_set(a, b.s);
}

/* Makes the environment of the attempt, or of a setup, which has no file. */
static void
make_env(struct attempt *a)
{
	const struct plan *p = a->plan;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	const char *db_url = a->f ? a->db_url : a->o->db;
	char *url = a->ports ? str("http://localhost:%d", a->ports->number) : NULL;

	list_free(&a->env);
	env_set(a, str("PRUN_RUN=%s", p->id));
	env_set(a, str("PRUN_SUITE=%s", a->suite->name));
	if (a->f) {
		env_set(a, str("PRUN_FILE=%s", a->f->path));
		env_set(a, str("PRUN_TEST=%s", a->f->test));
		env_set(a, str("PRUN_INDEX=%d", a->f->index));
		env_set(a, str("PRUN_WORKER=%d", a->w->slot));
		env_set(a, str("PRUN_ATTEMPT=%d", a->out.attempt));
		env_set(a, str("PRUN_REPEAT=%d", a->f->copy ? a->f->copy : 1));
		for (size_t i = 1; i < a->nports; i++)
			env_set(a, str("%s=%d", a->o->ports.v[i - 1], a->ports[i].number));
		env_set(a, str("PRUN_CPUS=%ld", cpus > p->workers ? cpus / p->workers : 1));
		env_set(a, str("PRUN_DIR=%s", a->dir));
		env_set(a, str("PRUN_JUNIT=%s", a->junit));
		env_set(a, str("TMPDIR=%s", a->tmp));
	}
	if (url) {
		env_set(a, str("PRUN_PORT=%d", a->ports->number));
		env_all(a, &a->o->port_env, str("%d", a->ports->number));
		env_set(a, str("PRUN_URL=%s", url));
	}
	if (url && a->o->server) {      /* else they may name a server of the user's own */
		env_set(a, str("PLAYWRIGHT_TEST_BASE_URL=%s", url));
		env_all(a, &a->o->url_env, url);
		if (!strcmp(a->o->ready, "fd"))
			env_set(a, "PRUN_READY_FD=3");
	}
	if (a->db)
		env_set(a, str("PRUN_DB=%s", a->db));
	if (a->db && a->o->db_clone)
		env_set(a, str("PRUN_TEMPLATE_URL=%s", a->o->db));
	if (a->db || (!a->f && db_url)) {
		env_set(a, str("PRUN_DB_URL=%s", db_url ? db_url : ""));
		env_all(a, &a->o->db_env, db_url ? db_url : "");
	}
	for (size_t i = 0; i < a->o->env.n; i++)
		env_expand(a, a->o->env.v[i]);
	a->ours = a->env.n;
	for (size_t i = 0; environ[i]; i++) {
		size_t n = strcspn(environ[i], "=");
		const char *name = str("%.*s", (int)n, environ[i]);
		/* not ours, nor of an outer run's database, nor hidden */
		if (env_find(a, name, n) == a->env.n && !starts(name, "PRUN_DB")
		&& !plan_matches(a->o->unset.v, name))
			list_add(&a->env, environ[i]);
	}
}

/* Writes what we have set as a script to be sourced; it may hold secrets. */
static void
write_env(struct attempt *a)
{
	char *path = str("%s/env", a->dir);
	struct buf b = scratch_buf();
	struct list more = { 0 };

	/* For psql and its like, which cannot read a driver's URL. */
	if (a->db_url)
		url_env(a->db_url, &more);
	for (size_t i = 0; i < a->ours + more.n; i++) {
		char *s = i < a->ours ? a->env.v[i] : more.v[i - a->ours];
		size_t n = strcspn(s, "=") + 1;
		buf_fmt(&b, "export %.*s", (int)n, s);
		buf_quote(&b, s + n);
		buf_char(&b, '\n');
	}
	if (file_write(path, b.s, b.n, 0600) < 0)
		buf_fmt(&a->notes, "- %s: %s\n", path, strerror(errno));
	list_free(&more);
}

/* ---- the steps ---- */

/* Notes the first cause and the result that follows; false, for a step. */
static bool
fails(struct attempt *a, enum cause cause, const char *why)
{
	if (a->out.cause != CAUSE_NONE)
		return false;
	a->out.cause = a->w->cancelled ? CAUSE_CANCELLED : cause;
	a->why = a->w->cancelled ? "cancelled" : str("%s", why);
	a->out.result = a->out.cause <= CAUSE_OUTPUT_LIMIT ? FAIL : ERROR;
	if (a->out.cause == CAUSE_TIMEOUT)
		a->out.result = TIMEOUT;
	if (a->out.cause == CAUSE_CANCELLED)
		a->out.result = CANCEL;
	return false;
}

static void
enter(struct attempt *a, enum phase phase)
{
	a->out.began[phase] = proc_clock(a->w);
	proc_tell(a->w, &(struct news){ .type = NEWS_PHASE, .phase = phase });
}

/* Runs a command, its output going to log; NULL, or what went wrong. */
static const char *
run_command(struct attempt *a, const char *command, const char *log, int64_t deadline,
	bool heed)
{
	struct spawn s = { .argv = proc_argv(command, NULL), .env = a->env.v, .log = log };

	return proc_run(a->w, &s, deadline, heed, a->o->grace_ms, &a->notes);
}

static bool
prepare(struct attempt *a)
{
	if (a->w->cancelled)
		return false;
	if (remove_tree(a->dir) < 0 || remove_tree(a->tmp) < 0
	|| mkdir(a->dir, 0777) < 0 || mkdir(a->tmp, 0700) < 0)
		return fails(a, CAUSE_SPAWN, str("%s: %s", a->dir, strerror(errno)));
	if (proc_hold(a->ports, a->nports) < 0)
		return fails(a, CAUSE_PORT, str("no free port: %s", strerror(errno)));
	return true;
}

static bool
clone(struct attempt *a)
{
	enum trouble trouble;

	if (!a->db)
		return true;
	enter(a, CLONING);
	make_env(a);
	if (a->o->db_clone)
		write_env(a);           /* for --clean, should we die */
	const char *why = pg_clone(a->pg, a->env.v, &a->db_url, &trouble);
	/* Then another worker makes it. */
	a->out.crowded = trouble == SQL_CROWDED && !a->w->cancelled
		&& (a->plan->workers > 1 || a->plan->o.ahead);
	if (why) {
		a->out.fatal = !a->w->cancelled && trouble < SQL_PASSING;
		fails(a, CAUSE_DATABASE, why);
	}
	return !why && !a->w->cancelled;
}

/* Notes it if one of the stack has died.  may_end: the server may exit 0. */
static bool
has_died(struct attempt *a, bool may_end, const char *when)
{
	size_t i = proc_dead(a->procs, a->nstack);
	const struct proc *p = &a->procs[i];

	if (i == a->nstack || (may_end && i == a->o->service.n && p->status == 0))
		return false;
	a->out.service = (int)i;
	fails(a, CAUSE_SERVER_DIED, str("%s died%s: %s%s", a->o->services[i].title, when,
		proc_how_ended(p), p->status || a->w->go ? ""
		: ": it must stay in the foreground"));
	return true;
}

/* Starts one of the stack and waits until it is ready. */
static bool
start_member(struct attempt *a, size_t i)
{
	const struct service *m = &a->o->services[i];
	int64_t most = a->o->ready_timeout_ms;
	struct readiness r = { .w = a->w, .stack = a->procs, .n = i + 1,
		.deadline = most < 0 ? NEVER : proc_clock(a->w) + most,
		.port = a->ports[m->port].number, .server = { .log = a->logs[i],
		.argv = proc_argv(m->command, NULL), .env = a->env.v } };
	struct buf reason = scratch_buf();
	int fd[2] = { -1, -1 };
	struct stat st;

	a->out.service = (int)i;
	r.kind = proc_ready_kind(m->ready, &r.arg);
	r.log_from = stat(r.server.log, &st) < 0 ? 0 : st.st_size;
	if (r.kind == READY_FD && proc_pipe(fd) < 0)
		return fails(a, CAUSE_SPAWN, str("pipe: %s", strerror(errno)));
	r.fd = fd[0];
	r.server.fd = fd[1];
	const char *why = proc_start(a->w, &a->procs[i], &r.server);
	close_keep(fd[1]);
	bool ready = !why && proc_ready(&r, &reason);
	close_keep(fd[0]);
	if (why)
		return fails(a, CAUSE_SPAWN, why);
	/* An answer for a dead server is not its own. */
	if (!has_died(a, false, " before it was ready") && !ready)
		fails(a, CAUSE_SERVER_NOT_READY, str("%s is not ready after %.1fs "
			"(ready-timeout): %s", m->title, (double)most / 1000, reason.s));
	return a->out.cause == CAUSE_NONE && !a->w->cancelled;
}

/* The stack is ready: waits until prun says that the test may begin. */
static bool
await_go(struct attempt *a, bool may_end, const char *when)
{
	int64_t begin = proc_clock(a->w);

	enter(a, PREPARED);
	while (!has_died(a, may_end, when) && !a->w->go && !a->w->cancelled)
		proc_wait(a->w, NULL, 0, NEVER);
	a->waited += proc_clock(a->w) - begin;
	if (a->w->cancelled)
		fails(a, CAUSE_CANCELLED, "");
	return a->out.cause == CAUSE_NONE;
}

static void
stop_stack(struct attempt *a)
{
	for (size_t i = a->nstack; i > 0; i--)
		proc_stop(a->w, &a->procs[i - 1], a->o->grace_ms, true, &a->notes);
}

/* Starts the stack, each member when the one before it is ready, and awaits GO.
 * A server that dies at once may have found its port taken: that costs other
 * ports, three times.  Or it cannot bind a port that is held: the stack gets
 * one more try with the ports released.  And one if it dies while it waits. */
static bool
serve(struct attempt *a)
{
	bool released = !a->ports->hold, waited = false;
	int lost = 0;
	size_t i;

	for (;;) {
		a->out.cause = CAUSE_NONE;
		a->why = NULL;
		make_env(a);
		if (a->nstack) {
			write_env(a);
			enter(a, STARTING);
		}
		for (i = 0; i < a->nstack && start_member(a, i); i++)
			;
		if (i == a->nstack && await_go(a, a->o->server_exit, " before the test began"))
			return true;
		if (a->out.cause != CAUSE_SERVER_DIED)
			break;
		const struct service *dead = &a->o->services[a->out.service];
		int status = a->procs[a->out.service].status;
		stop_stack(a);
		if (a->out.began[PREPARED] >= a->out.began[STARTING]) {
			if (waited)
				break;
			waited = true;
			buf_fmt(&a->notes, "- %s; started again\n", a->why);
			continue;
		}
		int taken = proc_release(a->ports, a->nports);
		/* It went to the background, or the shell could not run it. */
		if (status == 0 || status == 126 || status == 127 || (released && !taken))
			break;
		if (taken) {
			a->out.cause = CAUSE_PORT;
			a->why = str("port %d was taken by another process", taken);
			if (++lost > 3 || proc_hold(a->ports, a->nports) < 0)
				break;
			buf_fmt(&a->notes, "- %s; tried another\n", a->why);
		} else {
			buf_fmt(&a->notes, "- %s died at once; tried once more%s\n",
				dead->title, dead->port || !strcmp(dead->name, "server")
				? " with its port released: does it set SO_REUSEADDR?" : "");
			released = true;
		}
	}
	a->out.fatal = !a->out.began[PREPARED] && !a->w->cancelled && a->o->server_failure == 0;
	return false;
}

/* Whether one of the attempt's logs has grown beyond log-limit. */
static bool
wrote_too_much(const struct attempt *a)
{
	struct stat st;

	for (size_t i = 0; i <= a->nstack; i++)
		if (stat(i < a->nstack ? a->logs[i] : a->log, &st) == 0
		&& st.st_size > a->o->log_limit)
			return true;
	return false;
}

/* Writes the session's processes as they stand into the test's log. */
static void
log_processes(struct attempt *a)
{
	/* -g means a group here, a session there, and nothing on the BSDs. */
	char *ps = str("echo; echo 'prun: timed out; these were its processes:'; "
		"ps -A -o pid,ppid,pgid,etime,time,args | awk 'NR == 1 || $3 == %ld "
		"|| $2 in seen { seen[$1]; print } END { exit NR < 2 }'", (long)a->test.pid);
	int fd = open_regular(a->log, O_WRONLY | O_APPEND);
	struct buf b = scratch_buf();

	if (run_command(a, ps, a->log, proc_clock(a->w) + 2000, true))
		buf_str(&a->notes, "- its processes could not be listed (is there a ps?)\n");
	if (a->db_url)
		pg_sessions(a->pg, &b);
	if (b.n && write_all(fd, b.s, b.n) < 0)
		buf_fmt(&a->notes, "- %s: %s\n", a->log, strerror(errno));
	close_keep(fd);
}

/* A test that has timed out gets the signal at which its runner writes what it
 * knows, and 2 s for that: pytest its report and where it hung. */
static void
interrupt(struct attempt *a)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGQUIT, SIGABRT };

	enter(a, STOPPING);
	log_processes(a);
	killpg(a->test.pid, sigs[a->o->timeout_signal]);
	killpg(a->test.pid, SIGCONT);
	int64_t until = proc_clock(a->w) + 2000;
	/* sh -c dies of INT at once, pytest in it writes. */
	while ((!proc_ended(&a->test) || proc_left(a->w, &a->test, NULL))
	&& !a->w->cancelled && !proc_late(a->w, until))
		proc_wait(a->w, NULL, 0, until);
}

/* Waits for the end of the test, or for a cause to end it. */
static void
await_test(struct attempt *a)
{
	struct worker *w = a->w;
	int64_t end = a->f->timeout_ms < 0 ? NEVER : proc_clock(w) + a->f->timeout_ms;

	while (a->out.cause == CAUSE_NONE
	&& !has_died(a, a->o->server_exit, " during the test")) {
		int64_t next = proc_clock(w) + 100;     /* to look at the logs */
		if (w->cancelled || proc_ended(&a->test))
			return;
		if (proc_late(w, end))
			fails(a, CAUSE_TIMEOUT, str("timed out after %.1fs",
				(double)a->f->timeout_ms / 1000));
		else if (a->o->log_limit >= 0 && wrote_too_much(a))
			fails(a, CAUSE_OUTPUT_LIMIT, str("wrote more than %" PRId64
				" bytes (log-limit)", a->o->log_limit));
		else
			proc_wait(w, NULL, 0, end < next ? end : next);
	}
}

static void
run_test(struct attempt *a)
{
	const char *command = plan_command(a->f), *path = a->f->path;
	struct spawn s = { .env = a->env.v, .terminal = a->plan->o.interactive };
	struct list args = { 0 };

	enter(a, TESTING);
	if (!command)
		list_add(&args, str("%s%s", strchr(path, '/') ? "" : "./", path));
	for (size_t i = 0; i < a->f->more.n; i++)
		list_add(&args, a->f->more.v[i]);
	for (size_t i = 0; i < a->plan->args.n; i++)
		list_add(&args, a->plan->args.v[i]);
	s.argv = command ? proc_argv(command, &args) : args.v;
	s.log = s.terminal ? NULL : a->log;
	const char *why = proc_start(a->w, &a->test, &s);
	if (why) {
		fails(a, CAUSE_SPAWN, why);
	} else {
		a->out.tested = true;
		await_test(a);
	}
	if (a->out.cause == CAUSE_TIMEOUT)
		interrupt(a);
	proc_take_terminal();
	list_free(&args);
}

/* ---- the verdict ---- */

/* Judges a test that has ended by itself: how it went well, or a cause. */
static void
judge_test(struct attempt *a, int reports, const struct counts *c, const char *why)
{
	int status = a->test.status;
	const char *command = plan_command(a->f);

	a->out.result = c->tests && c->skipped == c->tests ? SKIP : PASS;
	if (status < 0) {
		fails(a, CAUSE_SIGNAL, proc_how_ended(&a->test));
	} else if (a->test.shell && (status == 126 || status == 127) && !reports) {
		fails(a, CAUSE_SPAWN, str("exit status %d: %s", status, file_tail(a->log, 1)));
	} else if ((status == 0 || status == 5) && reports > 0 && !c->tests && !c->failures) {
		a->out.result = NONE;
	} else if ((status == 77 && !reports)
	|| (status == 5 && reports > 0 && c->skipped == c->tests)) {
		a->out.result = SKIP;   /* 5: pytest, of a module that is skipped as a whole */
	} else if (status == 5 && !reports && command && strstr(command, "pytest")) {
		fails(a, CAUSE_EXIT, "exit status 5; if pytest has found no tests, "
			"--junitxml=\"$PRUN_JUNIT\" would tell");
	} else if (status > 0) {
		fails(a, CAUSE_EXIT, str("exit status %d", status));
	} else if (reports < 0) {
		fails(a, CAUSE_REPORT, why);
	} else if (c->failures) {
		fails(a, CAUSE_EXIT, "exit status 0, but its report has failures");
	} else if (!reports && command && strstr(command, "PRUN_JUNIT")) {
		fails(a, CAUSE_REPORT, "exit status 0, but no report was written to "
			"PRUN_JUNIT");
	}
}

/* What there is to see when the test is over, before anything is stopped. */
static void
look(struct attempt *a)
{
	struct counts c = { 0 };
	const char *why = "";
	int64_t ms = proc_clock(a->w) - a->out.begin - a->waited;
	struct stat st;
	int reports = 0;

	/* A report, or one made of TAP. */
	if (a->out.tested && (stat(a->junit, &st) == 0
	|| (a->out.cause != CAUSE_OUTPUT_LIMIT && stat(a->log, &st) == 0 && st.st_size > 0
	&& xml_from_tap(a->log, a->junit, a->f->test, ms) > 0)))
		reports = junit_count(a->junit, a->f->path, &c, &a->notes, &why);
	a->out.report = reports != 0;
	a->out.tests = c.tests;
	a->out.failed = c.failures;
	a->out.skipped = c.skipped;
	if (a->plan->o.ahead == AHEAD_AUTO && a->out.tested && a->db_url)
		a->out.room = pg_room(a->pg);
	if (!a->out.tested || !a->test.ended)
		fails(a, CAUSE_SPAWN, "the test was not run to its end");
	if (a->out.cause == CAUSE_NONE)
		judge_test(a, reports, &c, why);
}

/* ---- the end of an attempt ---- */

/* Whether the test had its own database and not, unnoticed, somebody else's. */
static void
judge_isolation(struct attempt *a)
{
	if (!a->db_url || !a->out.tested || a->w->cancelled)
		return;
	int used = pg_used(a->pg);
	a->out.connected = used > 0;
	if (used != 0 || a->out.result != PASS)
		return;
	a->out.unused = true;
	const char *why = str("nobody has connected to its database %s: does the server read "
		"%s?", a->db, a->o->db_env.n ? a->o->db_env.v[0] : "PRUN_DB_URL");
	if (a->o->db_unused)
		fails(a, CAUSE_DATABASE, why);
	else if (a->plan->o.verbose)    /* else a line for the suite says so */
		buf_fmt(&a->notes, "- %s\n", why);
}

static void
add_lines(struct buf *to, const char *what, char *lines)
{
	for (char *line; (line = next_line(&lines));)
		buf_fmt(to, "- %s: %s\n", what, line);
}

/* Stops the test and the stack.  What outlives the test by 100 ms is a leak. */
static void
stop(struct attempt *a)
{
	int64_t until = proc_clock(a->w) + 100;
	struct buf left = scratch_buf(), escaped = scratch_buf();
	bool leaked = false;

	enter(a, STOPPING);
	if (a->test.ended && !a->w->cancelled && a->out.cause != CAUSE_TIMEOUT) {
		while (proc_left(a->w, &a->test, NULL) > 0 && !proc_late(a->w, until))
			proc_wait(a->w, NULL, 0, until);
		leaked = proc_left(a->w, &a->test, &left) > 0;
		add_lines(&a->notes, "left running by the test, stopped", left.s);
	}
	proc_stop(a->w, &a->test, a->o->grace_ms, false, &a->notes);
	a->out.status = a->test.status;
	stop_stack(a);
	leaked |= proc_drain(&a->w->pids, &escaped) > 0;
	add_lines(&a->notes, "had left its session, killed", escaped.s);
	if (leaked && a->o->leak)
		fails(a, CAUSE_LEAK, "processes were left running");
}

/* Runs the after command, also for an attempt that was cancelled. */
static void
after(struct attempt *a)
{
	int64_t most = a->w->cancelled ? 1500 : 60000;  /* prun waits 2 s and the grace */
	char *log = str("%s/after.log", a->dir);

	if (!a->o->after || !a->env.n)
		return;
	const char *why = run_command(a, a->o->after, log, proc_clock(a->w) + most, false);
	proc_drain(&a->w->pids, NULL);
	if (why) {              /* not the log's path: it goes if the test passed */
		buf_fmt(&a->notes, "- after failed: %s\n", why);
		add_lines(&a->notes, "after's last line", file_tail(log, 1));
	}
}

static void
keep_or_drop(struct attempt *a)
{
	enum result r = a->out.result;
	int keep = a->o->keep;

	if (!a->out.began[CLONING] || a->out.crowded)
		return;
	a->out.kept = r != CANCEL && a->db_url && (keep == KEEP_ALWAYS || keep == KEEP_RUN
		|| (keep == KEEP_FAILED && r >= FAIL && a->out.tested));
	if (a->out.kept)
		pg_keep(a->pg, a->f->test);
	else    /* what db-drop could not drop is for --clean, which needs the directory */
		a->out.kept = pg_drop(a->pg, a->env.v) < 0 && a->o->db_clone;
}

/* Tells prun that an order is done.  What there is to say of it goes into a
 * file, or up the pipe if there is no directory for that (--reopen). */
static void
tell(struct attempt *a, enum news_type type)
{
	struct news n = { .type = type, .o = a->out };
	struct buf b = scratch_buf();
	char *path = type == NEWS_DONE ? str("%s/notes%d", a->plan->dir, a->w->slot)
		: str("%s/notes", plan_dir(a->plan, a->f, a->out.attempt));

	if (a->why && *a->why)
		buf_fmt(&b, "! %.*s\n", (int)strcspn(a->why, "\n"), a->why);
	buf_add(&b, a->notes.s, a->notes.n);
	n.o.notes = b.n && file_write(path, b.s, b.n, 0666) == 0;
	if (b.n && !n.o.notes)
		snprintf(n.o.why, sizeof(n.o.why), "%s", b.s);
	n.o.began[IDLE] = proc_clock(a->w);
	n.o.ms = n.o.began[IDLE] - n.o.begin - a->waited;
	proc_tell(a->w, &n);
	buf_free(&a->notes);
}

static void
begin(struct attempt *a, const struct file *f, int number)
{
	char *reopened = a->plan->o.reopen;
	size_t n = f->suite->o.service.n;

	a->f = f;
	a->suite = f->suite;
	a->o = &f->suite->o;
	a->w->go = false;
	a->out = (struct outcome){ .file = f->index, .attempt = number, .slot = a->w->slot,
		.begin = proc_clock(a->w), .result = ERROR };
	a->dir = reopened ? reopened : plan_dir(a->plan, f, number);
	a->tmp = str("%s/t%d", a->plan->dir, f->index);
	a->junit = str("%s/junit.xml", a->dir);
	a->log = str("%s/test.log", a->dir);
	a->db = reopened ? getenv("PRUN_DB") : plan_clone(a->plan, f, number);
	pg_begin(a->pg, a->o, a->db, a->dir, &a->notes);
	a->nports = 1 + a->o->ports.n;
	a->ports = scratch(a->nports * sizeof(*a->ports));
	a->nstack = n + (a->o->server != NULL);
	a->procs = scratch((n + 1) * sizeof(*a->procs));
	a->logs = scratch((n + 1) * sizeof(*a->logs));
	for (size_t i = 0; i <= n; i++)
		a->logs[i] = str("%s/%s.log", a->dir, a->o->services[i].name);
}

static void
attempt(struct attempt *a)
{
	if (prepare(a) && clone(a) && serve(a))
		run_test(a);
	look(a);
	if (a->out.tested && a->db_url)
		pg_strangers(a->pg);
	stop(a);
	judge_isolation(a);
	after(a);
	keep_or_drop(a);
	if ((a->out.result > NONE || a->out.kept) && !a->nstack && a->env.n)
		write_env(a);
	if (a->out.result <= NONE && remove_tree(a->tmp) < 0)
		buf_fmt(&a->notes, "- cannot remove %s: %s\n", a->tmp, strerror(errno));
}

/* ---- orders ---- */

/* Asks for the tests of a suite's files, for plan_collect(). */
static void
collect(struct attempt *a, const char *log)
{
	char *names = str("%s/collect%d", a->plan->dir, (int)(a->suite - a->plan->suites));
	struct spawn s = { .argv = proc_argv(a->o->collect, &a->suite->whole), .log = log,
		.out = open_regular(names, O_WRONLY | O_CREAT) };

	a->ports = &(struct port){ .number = 1 };       /* where nobody listens */
	make_env(a);
	s.env = a->env.v;
	const char *why = proc_run(a->w, &s, NEVER, true, a->o->grace_ms, &a->notes);
	close_keep(s.out);
	if (why && !a->w->cancelled) {
		buf_fmt(&a->notes, "- %s: collect failed: %s, so whole files are run\n",
			plan_label(a->suite), why);
		add_lines(&a->notes, "collect", file_tail(log, 5));
		add_lines(&a->notes, "collect", file_tail(names, 15));
		unlink(names);
	}
}

/* Before a suite's first clone: looks for pytest, sweeps, runs the setup
 * command with the template locked, and asks for the tests of its files. */
static void
setup(struct attempt *a, const struct suite *s)
{
	static const char ask[] = "exec \"${PYTHON:-python3}\" -c 'import importlib.util as u; "
		"raise SystemExit(u.find_spec(\"pytest\") is None)'";
	char *log = str("%s/setup.log", a->plan->dir);
	const char *why = NULL;

	a->suite = s;
	a->o = &s->o;
	pg_begin(a->pg, a->o, NULL, a->plan->dir, &a->notes);
	make_env(a);
	if (a->plan->o.clean) {
		why = a->o->db ? pg_clean(a->pg, s->name, a->plan->o.list) : NULL;
	} else if (s->pytest && run_command(a, ask, log, NEVER, true)) {
		fails(a, CAUSE_SPAWN, "no pytest for $PYTHON (default: python3): install it, "
			"set PYTHON to a Python that has it, or set test");
	} else if (!s->no_setup) {
		why = pg_setup(a->pg, true);
		if (!why && a->o->setup) {
			const char *how = run_command(a, a->o->setup, log, NEVER, true);
			proc_drain(&a->w->pids, NULL);
			if (how)
				fails(a, CAUSE_EXIT, str("setup failed: %s; see %s", how, log));
			else
				why = pg_setup(a->pg, false);
		}
	}
	if (why)
		fails(a, CAUSE_DATABASE, why);
	if (a->out.cause == CAUSE_NONE && s->whole.n)
		collect(a, log);
}

/* Starts the server of a kept attempt again, on its database. */
static void
reopen(struct attempt *a)
{
	struct news n = { .type = NEWS_OPEN };
	char *log = str("%s/reopen.log", a->dir);

	a->db_url = getenv("PRUN_DB_URL");
	a->logs[a->o->service.n] = log;
	unlink(log);                    /* its earlier lines are not of this server */
	if (a->o->db && a->db && pg_gone(a->pg, a->db_url)) {
		fails(a, CAUSE_DATABASE, str("its database %s is gone", a->db));
	} else if (mkdir(a->tmp, 0700) < 0 || proc_hold(a->ports, a->nports) < 0) {
		fails(a, CAUSE_SPAWN, str("%s: %s", a->tmp, strerror(errno)));
	} else if (serve(a)) {
		if (a->o->server)
			snprintf(n.o.why, sizeof(n.o.why), "http://localhost:%d",
				a->ports->number);
		proc_tell(a->w, &n);
		a->out.result = PASS;
		a->w->go = false;       /* what comes next is a cancel */
		if (a->nstack)
			await_go(a, false, "");
	}
	stop(a);
	after(a);
}

/* Drops the clone of an attempt that is over, or died with its worker. */
static void
drop(struct attempt *a)
{
	if (!a->o->db_clone)
		a->db_url = url_clone(a->o->db, a->db, a->dir);
	make_env(a);
	pg_drop(a->pg, a->env.v);
}

void
work_run(const struct plan *p, int slot, int orders, int news)
{
	struct worker w = { .slot = slot, .orders = orders, .news = news };
	struct attempt self = { .w = &w, .plan = p, .pg = pg_open(&w, p) };
	size_t mark = scratch_mark();

	for (;;) {
		while (!w.ordered && w.orders >= 0)
			proc_wait(&w, NULL, 0, NEVER);
		/* Without an order: prun is dead, and nothing is under way. */
		struct order o = w.next;
		if (!w.ordered || o.type == ORDER_QUIT)
			break;
		w.ordered = false;
		struct attempt a = self;
		if (o.type != ORDER_SETUP)
			begin(&a, &p->files[o.file], o.attempt);
		if (o.type == ORDER_SETUP)
			setup(&a, &p->suites[o.file]);
		else if (o.type == ORDER_DROP)
			drop(&a);
		else if (p->o.reopen)
			reopen(&a);
		else
			attempt(&a);
		tell(&a, o.type == ORDER_RUN ? NEWS_RESULT : NEWS_DONE);
		for (size_t i = 0; i < a.nports && a.ports[i].hold > 0; i++)
			close(a.ports[i].hold);
		list_free(&a.env);
		scratch_release(mark);
	}
	if (pg_waits(self.pg)) {
		buf_str(&self.notes, "- waiting 5s before dropping databases that another run "
			"left, in case it is still alive\n");
		tell(&self, NEWS_DONE);
	}
	pg_end(self.pg, &self.notes);
	if (self.notes.n)
		tell(&self, NEWS_DONE);
	proc_drain(&w.pids, NULL);
	_exit(0);
}
