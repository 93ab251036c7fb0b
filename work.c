/*
 * work.c: one worker, and the life of an attempt, top to bottom.
 *
 * A worker reads an order, does it, says so, and reads the next.  attempt()
 * is the life: directories, clone, port, server until it is ready, test,
 * verdict, stop test and server, the after command, keep or drop the clone,
 * report.  Each step sets a.out.cause when it fails, and the next ones then
 * have nothing to do but to clean up.  Words for people go into the notes
 * (show.c), numbers up the pipe.
 */
#include "prun.h"
#include <dirent.h>
#include <fnmatch.h>

extern char **environ;

/* What a worker keeps from one order to the next. */
struct self {
	struct worker w;
	const struct plan *plan;
	struct pg *pg;
	char *spare_tmp;        /* of an earlier attempt, or NULL */
};

struct attempt {
	struct self *self;
	struct worker *w;       /* of self */
	const struct plan *plan;
	const struct file *f;
	const struct opts *o;
	struct outcome out;
	char *dir, *tmp, *junit, *log, *server_log, *url, *db, *db_url;
	int port, hold;
	struct list env;        /* of the test; what stands from ours on is ours */
	size_t ours;
	struct proc server, test;
	bool cloned, shell;     /* shell: the test runs under sh -c */
	const char *why;        /* the cause in words, or NULL */
	struct buf notes;
};

/* ---- environment ---- */

static void
env_set(struct attempt *a, const char *name, const char *value)
{
	size_t i, n = strlen(name);
	char *s = str("%s=%s", name, value);

	for (i = 0; i < a->env.n; i++)
		if (!strncmp(a->env.v[i], name, n) && a->env.v[i][n] == '=')
			break;
	if (i < a->env.n) {
		free(a->env.v[i]);
		memmove(a->env.v + i, a->env.v + i + 1, (a->env.n - i) * sizeof(*a->env.v));
		a->env.n--;
		a->ours -= i < a->ours;
	}
	list_add(&a->env, s);
}

static void
env_num(struct attempt *a, const char *name, int64_t n)
{
	char s[32];

	snprintf(s, sizeof(s), "%" PRId64, n);
	env_set(a, name, s);
}

static void
env_all(struct attempt *a, const struct list *names, const char *value)
{
	size_t i;

	for (i = 0; i < names->n; i++)
		env_set(a, names->v[i], value);
}

/* Sets NAME=VALUE with $PRUN_... in the value expanded. */
static void
env_expand(struct attempt *a, const char *setting)
{
	size_t i, n, eq = strcspn(setting, "=");
	char *name = str("%.*s", (int)eq, setting);
	const char *s = setting + eq + 1;
	struct buf b = { 0 };

	for (; *s; s++) {
		bool brace = !strncmp(s, "${PRUN_", 7);

		n = strspn(s + 1 + brace, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
		if (!brace && strncmp(s, "$PRUN_", 6)) {
			buf_char(&b, *s);
			continue;
		}
		s += 1 + brace;
		for (i = a->ours; i < a->env.n; i++)
			if (!strncmp(a->env.v[i], s, n) && a->env.v[i][n] == '=')
				buf_str(&b, a->env.v[i] + n + 1);
		s += n - 1 + (brace && s[n] == '}');
	}
	env_set(a, name, b.s ? b.s : "");
	buf_free(&b);
}

static void
make_env(struct attempt *a)
{
	const struct plan *p = a->plan;
	const struct file *f = a->f;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	size_t i;

	list_free(&a->env);
	for (i = 0; environ[i]; i++)
		list_add(&a->env, environ[i]);
	a->ours = a->env.n;
	env_set(a, "PRUN_RUN", p->id);
	env_set(a, "PRUN_SUITE", f->suite->name);
	env_set(a, "PRUN_FILE", f->path);
	env_set(a, "PRUN_TEST", f->test);
	env_num(a, "PRUN_INDEX", f->index);
	env_num(a, "PRUN_WORKER", a->w->slot);
	env_num(a, "PRUN_ATTEMPT", a->out.attempt);
	env_num(a, "PRUN_PORT", a->port);
	env_num(a, "PRUN_CPUS", cpus > p->workers ? cpus / p->workers : 1);
	env_set(a, "PRUN_DIR", a->dir);
	env_set(a, "PRUN_JUNIT", a->junit);
	env_set(a, "TMPDIR", a->tmp);
	env_all(a, &a->o->port_env, strrchr(a->url, ':') + 1);
	env_set(a, "PRUN_URL", a->url);
	if (a->o->server)       /* else they may name a server of the user's own */
		env_all(a, &a->o->url_env, a->url);
	if (a->db) {
		env_set(a, "PRUN_DB", a->db);
		env_set(a, "PRUN_DB_URL", a->db_url ? a->db_url : "");
		env_all(a, &a->o->db_env, a->db_url ? a->db_url : "");
	}
	for (i = 0; i < a->o->env.n; i++)
		env_expand(a, a->o->env.v[i]);
}

/* The server's: as the test's, less what unset names of the inherited. */
static struct list
server_env(const struct attempt *a)
{
	struct list env = { 0 };
	size_t i, k, hit;
	char *name;

	for (i = 0; i < a->env.n; i++) {
		hit = i >= a->ours ? a->o->unset.n : 0;
		name = str("%.*s", (int)strcspn(a->env.v[i], "="), a->env.v[i]);
		for (k = hit; k < a->o->unset.n; k++)
			if (fnmatch(a->o->unset.v[k], name, 0) == 0)
				break;
		if (k == a->o->unset.n)
			list_add(&env, a->env.v[i]);
	}
	return env;
}

/* Writes what we have set as a script to be sourced; it may hold secrets. */
static void
write_env(struct attempt *a)
{
	char *path = str("%s/env", a->dir);
	struct buf b = { 0 };
	const char *s;
	size_t i;

	for (i = a->ours; i < a->env.n; i++) {
		s = a->env.v[i];
		buf_fmt(&b, "export %.*s='", (int)strcspn(s, "="), s);
		for (s += strcspn(s, "=") + 1; *s; s++)
			if (*s == '\'')
				buf_str(&b, "'\\''");
			else
				buf_char(&b, *s);
		buf_str(&b, "'\n");
	}
	if (file_write(path, b.s, b.n, 0600) < 0)
		buf_fmt(&a->notes, "- %s: %s\n", path, strerror(errno));
	buf_free(&b);
}

/* Makes a TMPDIR, if it can be of the empty one that the last attempt has
 * left: ext4 is slow to reuse an inode that was freed within minutes. */
static int
make_tmp(struct attempt *a)
{
	struct self *self = a->self;
	int made = -1;

	if (self->spare_tmp) {
		made = rename(self->spare_tmp, a->tmp);
		free(self->spare_tmp);
		self->spare_tmp = NULL;
	}
	return made == 0 ? 0 : remove_tree(a->tmp) < 0 ? -1 : mkdir(a->tmp, 0700);
}

static void
leave_tmp(struct attempt *a)
{
	struct stat st;
	DIR *d = opendir(a->tmp);
	int n = 0;

	while (d && n < 3 && readdir(d))
		n++;
	if (d)
		closedir(d);
	/* . and .. only, and nobody has changed its mode.  In an audit the file's next
	 * attempt may be another worker's, which makes one of this name. */
	if (n == 2 && !a->plan->o.audit && stat(a->tmp, &st) == 0 && (st.st_mode & 07777) == 0700)
		a->self->spare_tmp = xstrdup(a->tmp);
	else if (remove_tree(a->tmp) < 0)
		buf_fmt(&a->notes, "- %s could not be removed: %s\n", a->tmp, strerror(errno));
}

/* ---- the steps ---- */

/* Notes the cause, if it is the first; false, for whoever goes no further. */
static bool
fails(struct attempt *a, enum cause cause, const char *why)
{
	if (a->out.cause != CAUSE_NONE)
		return false;
	a->out.cause = a->w->cancelled ? CAUSE_CANCELLED : cause;
	a->why = a->w->cancelled ? "stopped before its end" : str("%s", why);
	return false;
}

static bool
prepare(struct attempt *a)
{
	if (a->w->cancelled)
		return fails(a, CAUSE_CANCELLED, "never ran");
	if (mkdir(a->dir, 0777) < 0 || make_tmp(a) < 0)
		return fails(a, CAUSE_SPAWN, str("%s: %s", a->dir, strerror(errno)));
	if (proc_hold(&a->port, &a->hold) < 0)
		return fails(a, CAUSE_PORT, str("no free port: %s", strerror(errno)));
	a->url = str("http://localhost:%d", a->port);
	return true;
}

static bool
clone(struct attempt *a)
{
	struct buf why = { 0 };
	bool passing = false;
	int failed;

	if (!a->db)
		return true;
	proc_tell_phase(a->w, CLONING);
	make_env(a);
	a->cloned = true;
	failed = pg_clone(a->self->pg, a->o, a->db, a->dir, a->env.v, &a->db_url, &a->notes,
		&why, &passing);
	if (failed && pg_crowded(a->self->pg) && a->plan->workers > 1 && !a->w->cancelled) {
		a->out.crowded = true;
		a->cloned = false;      /* another worker makes it */
	}
	if (failed) {
		a->out.fatal = !a->w->cancelled && !passing;
		fails(a, CAUSE_DATABASE, why.s ? why.s : "");
	}
	buf_free(&why);
	return !failed && !a->w->cancelled;
}

/* Starts the server once and awaits it; the cause if it is not to be had. */
static enum cause
start_server(struct attempt *a, struct buf *why)
{
	struct list env = server_env(a);
	struct spawn s = { .argv = proc_argv(a->o->server, NULL), .env = env.v };
	struct spawn ask = { .env = a->env.v };
	int fd[2] = { -1, -1 };
	enum cause cause = CAUSE_SPAWN;

	if (proc_ready_command(a->o->ready))
		ask.argv = proc_argv(proc_ready_command(a->o->ready), NULL);
	s.out = s.err = ask.out = ask.err = open(a->server_log,
		O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (s.out < 0 || (proc_ready_fd(a->o->ready) && proc_pipe(fd) < 0)) {
		buf_fmt(why, "%s: %s", a->server_log, strerror(errno));
		goto out;
	}
	if (fd[0] >= 0) {
		s.fd = fd[1];
		list_add(&env, "PRUN_READY_FD=3");
		s.env = env.v;
	}
	if (proc_start(a->w, &a->server, &s) < 0) {
		buf_str(why, proc_why_not(s.argv[0], errno));
		goto out;
	}
	close_keep(fd[1]);
	fd[1] = -1;
	cause = proc_ready(a->w, &a->server, a->o->ready, a->port, a->o->ready_timeout_ms,
		a->server_log, fd[0], &ask, why);
	if (cause == CAUSE_SERVER_DIED)
		buf_fmt(why, "the server died before it was ready: %s", proc_how_ended(&a->server));
out:
	close_keep(s.out);
	close_keep(fd[0]);
	close_keep(fd[1]);
	list_free(&env);
	return cause;
}

static bool
serve(struct attempt *a)
{
	struct buf why = { 0 };
	enum cause cause;
	int lost = 0;
	bool released = false;

	make_env(a);
	if (!a->o->server)
		return true;
	write_env(a);
	proc_tell_phase(a->w, STARTING);
	for (;;) {
		why.n = 0;
		cause = start_server(a, &why);
		if (cause != CAUSE_SERVER_DIED || a->w->cancelled)
			break;
		proc_stop(a->w, &a->server, a->o->grace_ms, true, &a->notes);
		if (proc_taken(&a->hold, a->port)) {
			cause = CAUSE_PORT;
			if (++lost > 3)
				break;
			buf_fmt(&a->notes, "- port %d was taken by another process; tried "
				"another\n", a->port);
			if (proc_hold(&a->port, &a->hold) < 0)
				break;
			a->url = str("http://localhost:%d", a->port);
			make_env(a);
			write_env(a);
		} else if (released) {
			break;
		} else {
			released = true;        /* proc_taken() has let it go */
		}
	}
	if (cause == CAUSE_NONE && released && !lost)
		buf_str(&a->notes, "- the server died while its port was held for it and came up "
			"when it was not: does it set SO_REUSEADDR?\n");
	if (cause == CAUSE_SERVER_DIED && released)
		buf_str(&a->notes, "- it was tried twice, the second time with its port not held\n");
	if (cause == CAUSE_SERVER_NOT_READY)
		fails(a, cause, str("the server is not ready after %.1fs: %s",
			(double)a->o->ready_timeout_ms / 1000, why.s));
	else if (cause == CAUSE_PORT)
		fails(a, cause, str("port %d was taken by another process", a->port));
	else if (cause != CAUSE_NONE)
		fails(a, cause, why.s ? why.s : "");
	if (cause != CAUSE_NONE && !a->w->cancelled)
		a->out.fatal = a->o->server_failure == 0;
	buf_free(&why);
	return cause == CAUSE_NONE;
}

/* Waits for the end of the test, whatever brings it. */
static void
await_test(struct attempt *a)
{
	struct worker *w = a->w;
	int64_t end = a->f->timeout_ms < 0 ? -1 : proc_clock(w) + a->f->timeout_ms;
	int64_t next = proc_clock(w);
	struct stat st;

	for (;;) {
		if (w->cancelled) {
			fails(a, CAUSE_CANCELLED, "");
			return;
		}
		if (a->server.pid && proc_ended(&a->server)) {
			fails(a, CAUSE_SERVER_DIED, str("the server died during the test: %s",
				proc_how_ended(&a->server)));
			return;
		}
		if (proc_ended(&a->test))
			return;
		if (proc_late(w, end)) {
			fails(a, CAUSE_TIMEOUT, str("not over after %.1fs",
				(double)a->f->timeout_ms / 1000));
			return;
		}
		if (a->o->log_limit >= 0 && proc_clock(w) >= next) {
			if ((stat(a->log, &st) == 0 && st.st_size > a->o->log_limit)
			|| (stat(a->server_log, &st) == 0 && st.st_size > a->o->log_limit)) {
				fails(a, CAUSE_OUTPUT_LIMIT, str("wrote more than %" PRId64
					" bytes (log-limit)", a->o->log_limit));
				return;
			}
			next = proc_clock(w) + 100;
		}
		proc_wait(w, NULL, 0, a->o->log_limit < 0 ? end
			: end >= 0 && end < next ? end : next);
	}
}

static void
run_test(struct attempt *a)
{
	struct spawn s = { .env = a->env.v };
	bool program;
	char *command = plan_command(a->f, &program);
	size_t i, n = 0;

	proc_tell_phase(a->w, TESTING);
	if (command && !program) {
		s.argv = proc_argv(command, &a->plan->args);
		a->shell = !strcmp(s.argv[0], "/bin/sh");
	} else {
		s.argv = scratch((a->plan->args.n + 2) * sizeof(*s.argv));
		s.argv[n++] = command;
		for (i = 0; i < a->plan->args.n; i++)
			s.argv[n++] = a->plan->args.v[i];
		s.argv[n] = NULL;
	}
	s.terminal = a->plan->o.interactive;
	if (!s.terminal)
		s.out = s.err = open(a->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (!s.terminal && s.out < 0) {
		fails(a, CAUSE_SPAWN, str("%s: %s", a->log, strerror(errno)));
	} else if (!s.argv[0]) {
		fails(a, CAUSE_SPAWN, str("%s: not executable, and no test = says how to run it",
			a->f->path));
	} else if (proc_start(a->w, &a->test, &s) < 0) {
		fails(a, CAUSE_SPAWN, proc_why_not(s.argv[0], errno));
	} else {
		a->out.tested = true;
		await_test(a);
	}
	if (s.terminal)
		proc_take_terminal();
	else if (s.out >= 0)
		close(s.out);
}

/* Reads the test's report, or makes one of a TAP log. */
static int
read_test_report(struct attempt *a, struct counts *c, struct buf *why)
{
	struct stat st;

	memset(c, 0, sizeof(*c));
	if (stat(a->junit, &st) < 0) {
		if (a->out.cause == CAUSE_OUTPUT_LIMIT || stat(a->log, &st) < 0 || st.st_size == 0
		|| junit_tap(a->log, a->junit, a->f->test) <= 0)
			return 0;
	}
	return junit_count(a->junit, a->f->path, c, &a->notes, why);
}

/* What the test's end means.  The server has been looked at before. */
static void
classify(struct attempt *a)
{
	struct outcome *o = &a->out;
	bool program;
	const char *command = plan_command(a->f, &program);
	struct buf why = { 0 };
	struct counts c = { 0 };
	int status = a->test.status, reports = o->tested ? read_test_report(a, &c, &why) : 0;

	o->report = reports != 0;
	o->tests = c.tests;
	o->failed = c.failures;
	o->skipped = c.skipped;
	o->status = status;
	if (o->cause != CAUSE_NONE) {
		o->result = o->cause == CAUSE_CANCELLED ? CANCEL
			: o->cause == CAUSE_TIMEOUT ? TIMEOUT
			: o->cause == CAUSE_OUTPUT_LIMIT ? FAIL : ERROR;
	} else if (status < 0) {
		fails(a, CAUSE_SIGNAL, proc_how_ended(&a->test));
		o->result = FAIL;
	} else if (a->shell && (status == 126 || status == 127) && !reports) {
		buf_tail(&why, a->log, 1);
		fails(a, CAUSE_SPAWN, str("exit status %d: %.*s", status, why.n ? (int)why.n - 1 : 0,
			why.s ? why.s : ""));
		o->result = ERROR;
	} else if (status == 77 && !reports) {
		o->result = SKIP;
	} else if (status == 5 && reports > 0 && c.tests == 0) {
		o->result = NONE;
	} else if (status > 0) {
		fails(a, CAUSE_EXIT, str("exit status %d%s", status, reports > 0 && !c.failures
			? ", though its report has no failure" : ""));
		o->result = FAIL;
	} else if (reports < 0) {
		fails(a, CAUSE_REPORT, why.s);
		o->result = ERROR;
	} else if (c.failures) {
		fails(a, CAUSE_EXIT, "exit status 0, but its report has failures");
		o->result = FAIL;
	} else if (!reports && command && strstr(command, "PRUN_JUNIT")) {
		fails(a, CAUSE_REPORT, "exit status 0, but no report was written to PRUN_JUNIT");
		o->result = ERROR;
	} else {
		o->result = c.tests && c.skipped == c.tests ? SKIP : PASS;
	}
	buf_free(&why);
}

/* Writes the session's processes as they stand into the test's log. */
static void
log_processes(struct attempt *a)
{
	char sid[32];
	char *argv[] = { "ps", "-o", "pid,ppid,pgid,etime,time,args", "-g", sid, NULL };
	struct spawn s = { .argv = argv, .env = environ };
	static const char head[] = "\nprun: timed out; these were its processes:\n";

	snprintf(sid, sizeof(sid), "%ld", (long)a->test.pid);
	s.out = s.err = open(a->log, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (s.out < 0)
		return;
	if (write_all(s.out, head, sizeof(head) - 1) < 0
	|| proc_run(a->w, &s, proc_clock(a->w) + 2000, true, 0, &a->notes) != 0)
		buf_str(&a->notes, "- its processes could not be listed (is there a ps?)\n");
	close(s.out);
}

static void
add_lines(struct buf *to, const char *what, struct buf *lines)
{
	char *s = lines->s, *end;

	for (; s && *s; s = end + 1) {
		end = s + strcspn(s, "\n");
		buf_fmt(to, "- %s: %.*s\n", what, (int)(end - s), s);
	}
}

static void
stop(struct attempt *a)
{
	struct buf left = { 0 };
	bool leaked = false;
	int64_t until;

	if (a->server.pid || !a->test.ended)    /* else it takes no time */
		proc_tell_phase(a->w, STOPPING);
	if (a->out.cause == CAUSE_TIMEOUT)
		log_processes(a);
	/* What runs on when the test has ended by itself is a leak, if it does
	 * so for longer than it takes to go. */
	if (a->test.ended && !a->w->cancelled && proc_left(a->w, &a->test, NULL) > 0) {
		until = proc_clock(a->w) + 100;
		while (proc_left(a->w, &a->test, NULL) > 0 && !proc_late(a->w, until))
			proc_wait(a->w, NULL, 0, until);
		leaked = proc_left(a->w, &a->test, &left) > 0;
		add_lines(&a->notes, "left running by the test, stopped", &left);
	}
	proc_stop(a->w, &a->test, a->o->grace_ms, false, &a->notes);
	proc_stop(a->w, &a->server, a->o->grace_ms, true, &a->notes);
	left.n = 0;
	if (proc_drain(a->w, &left) > 0) {
		leaked = true;
		add_lines(&a->notes, "had left its session, killed", &left);
	}
	if (leaked && a->o->leak && a->out.result <= NONE) {
		fails(a, CAUSE_LEAK, "processes were left running");
		a->out.result = FAIL;
	}
	buf_free(&left);
}

/* Runs setup = or after = under the shell; its status, output to log. */
static int
run_hook(struct worker *w, const char *command, char **env, const char *log, int64_t deadline,
	bool heed, int64_t grace_ms, struct buf *notes)
{
	struct spawn s = { .argv = proc_argv(command, NULL), .env = env };
	int status = SPAWN_FAILED;

	s.out = s.err = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (s.out >= 0)
		status = proc_run(w, &s, deadline, heed, grace_ms, notes);
	if (status == SPAWN_FAILED)
		buf_fmt(notes, "- %s\n", proc_why_not(s.out < 0 ? log : s.argv[0], errno));
	if (s.out >= 0)
		close(s.out);
	proc_drain(w, NULL);
	return status;
}

static void
after(struct attempt *a)
{
	char *log;
	int status;

	if (!a->o->after || !a->env.n)
		return;
	log = str("%s/after.log", a->dir);
	status = run_hook(a->w, a->o->after, a->env.v, log, a->w->cancelled
		? proc_clock(a->w) + 2000 : proc_clock(a->w) + 60000, false, a->o->grace_ms,
		&a->notes);
	if (status == RUN_STOPPED)
		buf_fmt(&a->notes, "- after did not end and was stopped, see %s\n", log);
	else if (status)
		buf_fmt(&a->notes, "- after failed, see %s\n", log);
}

static void
keep_or_drop(struct attempt *a)
{
	enum result r = a->out.result;
	bool keep;

	if (!a->cloned)
		return;
	keep = r != CANCEL && a->db_url && (a->o->keep == KEEP_ALWAYS || a->o->keep == KEEP_RUN
		|| (a->o->keep == KEEP_FAILED && r >= FAIL && a->out.tested));
	if (keep)
		pg_keep(a->self->pg, a->o, a->db, a->f->test, &a->notes);
	else
		pg_drop(a->self->pg, a->o, a->db, a->dir, a->env.v, &a->notes);
	a->out.kept = keep;
}

static void
tell_result(struct attempt *a)
{
	char *path = str("%s/notes", a->dir);
	struct buf b = { 0 };
	struct news n;

	if (a->why)
		buf_fmt(&b, "! %.*s\n", (int)strcspn(a->why, "\n"), a->why);
	buf_add(&b, a->notes.s, a->notes.n);
	a->out.notes = b.n && file_write(path, b.s, b.n, 0666) == 0;
	if (b.n && !a->out.notes)
		snprintf(a->out.why, sizeof(a->out.why), "%s", b.s);
	memset(&n, 0, sizeof(n));
	n.type = NEWS_RESULT;
	n.o = a->out;
	n.o.ms = proc_clock(a->w) - a->out.begin;
	proc_tell(a->w, &n);
	buf_free(&b);
}

static void
begin(struct attempt *a, struct self *self, const struct file *f, int number)
{
	struct worker *w = &self->w;

	memset(a, 0, sizeof(*a));
	a->self = self;
	a->w = w;
	a->plan = self->plan;
	a->f = f;
	a->o = &f->suite->o;
	a->hold = -1;
	w->file = a->out.file = f->index;
	a->out.attempt = number;
	a->out.begin = proc_clock(w);
}

static void
attempt(struct self *self, const struct file *f, int number)
{
	struct attempt a;

	begin(&a, self, f, number);
	a.dir = plan_dir(self->plan, f, number);
	a.tmp = str("%s/t%d", self->plan->dir, f->index);
	a.junit = str("%s/junit.xml", a.dir);
	a.log = str("%s/test.log", a.dir);
	a.server_log = str("%s/server.log", a.dir);
	a.db = plan_clone(self->plan, f, number);

	if (prepare(&a) && clone(&a) && serve(&a))
		run_test(&a);
	classify(&a);
	stop(&a);
	after(&a);
	keep_or_drop(&a);
	if ((a.out.result > NONE || a.out.kept) && !a.o->server && a.env.n)
		write_env(&a);
	if (a.out.result <= NONE)
		leave_tmp(&a);
	/* Another worker will have it, if there is one. */
	if (a.out.crowded && (remove_tree(a.dir) < 0 || remove_tree(a.tmp) < 0))
		warn("%s:", a.dir);
	tell_result(&a);

	if (a.hold >= 0)
		close(a.hold);
	free(a.db_url);
	list_free(&a.env);
	buf_free(&a.notes);
}

/* ---- orders ---- */

/* Sweeps, then runs a suite's setup with the template locked. */
static void
setup(struct self *self, const struct suite *s)
{
	struct worker *w = &self->w;
	struct attempt a;
	struct buf why = { 0 };
	struct news n;
	char *log = str("%s/setup.log", self->plan->dir), *path = str("%s/notes", self->plan->dir);
	int status = 0;

	memset(&a, 0, sizeof(a));
	memset(&n, 0, sizeof(n));
	a.self = self;
	a.w = w;
	a.plan = self->plan;
	a.o = &s->o;
	n.type = NEWS_SETUP;
	if (self->plan->o.clean) {
		n.bad = s->o.db && pg_clean(self->pg, &s->o, self->plan->o.list, &a.notes, &why) < 0;
	} else if (pg_setup(self->pg, &s->o, true, &a.notes, &why) < 0) {
		n.bad = true;
	} else if (s->o.setup) {
		for (a.ours = 0; environ[a.ours]; a.ours++)
			list_add(&a.env, environ[a.ours]);
		env_set(&a, "PRUN_RUN", self->plan->id);
		env_set(&a, "PRUN_SUITE", s->name);
		if (s->o.db) {
			env_set(&a, "PRUN_DB_URL", s->o.db);
			env_all(&a, &s->o.db_env, s->o.db);
		}
		status = run_hook(w, s->o.setup, a.env.v, log, -1, true, s->o.grace_ms,
			&a.notes);
		if (status)
			buf_fmt(&why, "setup failed: %s%d; see %s", status == SPAWN_FAILED
				? "it could not be run, " : status < 0 ? "signal " : "exit status ",
				status < 0 ? -status : status, log);
		n.bad = status != 0 || pg_setup(self->pg, &s->o, false, &a.notes, &why) < 0;
	}
	if (why.n)
		buf_fmt(&a.notes, "! %s\n", why.s);
	if (file_write(path, a.notes.n ? a.notes.s : "", a.notes.n, 0666) < 0)
		warn("%s:", path);
	proc_tell(w, &n);
	list_free(&a.env);
	buf_free(&a.notes);
	buf_free(&why);
}

/* Starts the server of a kept attempt again, on its database, until it is cancelled. */
static void
reopen(struct self *self, const struct file *f)
{
	struct worker *w = &self->w;
	struct attempt a;
	struct news n;

	begin(&a, self, f, 1);
	a.dir = self->plan->o.reopen;
	a.tmp = str("%s/t0", self->plan->dir);
	a.junit = str("%s/junit.xml", a.dir);
	a.server_log = str("%s/reopen.log", a.dir);
	a.db = getenv("PRUN_DB");
	a.db_url = getenv("PRUN_DB_URL");
	unlink(a.server_log);           /* its earlier lines are not of this server */
	if (a.o->db && a.db && pg_gone(self->pg, a.o, a.db, a.db_url))
		fails(&a, CAUSE_DATABASE, str("its database %s is gone", a.db));
	else if (mkdir(a.tmp, 0700) < 0 || proc_hold(&a.port, &a.hold) < 0)
		fails(&a, CAUSE_SPAWN, str("%s: %s", a.tmp, strerror(errno)));
	a.url = str("http://localhost:%d", a.port);
	memset(&n, 0, sizeof(n));
	if (a.out.cause == CAUSE_NONE && serve(&a)) {
		n.type = NEWS_OPEN;
		snprintf(n.o.why, sizeof(n.o.why), "%s", a.server.pid ? a.url : "");
		proc_tell(w, &n);
		while (a.server.pid && !w->cancelled && !proc_ended(&a.server))
			proc_wait(w, NULL, 0, -1);
		if (a.server.pid && !w->cancelled)
			fails(&a, CAUSE_SERVER_DIED, str("the server died: %s",
				proc_how_ended(&a.server)));
	}
	stop(&a);
	after(&a);
	n.type = NEWS_RESULT;
	n.o = a.out;
	n.o.result = w->cancelled ? CANCEL : a.why ? ERROR : PASS;
	snprintf(n.o.why, sizeof(n.o.why), "! %s", a.why ? a.why : "stopped");
	proc_tell(w, &n);
	list_free(&a.env);
	buf_free(&a.notes);
}

/* Drops the clone of an attempt that is over, or died with its worker. */
static void
drop(struct self *self, const struct file *f, int number)
{
	char *dir = plan_dir(self->plan, f, number), *name = plan_clone(self->plan, f, number);
	struct buf notes = { 0 };
	struct news n;

	if (name && pg_drop(self->pg, &f->suite->o, name, dir, environ, &notes) < 0)
		fprintf(stderr, "%s", notes.s);
	memset(&n, 0, sizeof(n));
	n.type = NEWS_DONE;
	proc_tell(&self->w, &n);
	buf_free(&notes);
}

void
work_run(const struct plan *p, int slot, int orders, int news)
{
	struct self self = { .plan = p };
	struct worker *w = &self.w;
	struct order o;
	size_t mark = scratch_mark();

	w->slot = slot;
	w->orders = orders;
	w->news = news;
	self.pg = pg_open(w, p);
	for (;;) {
		while (!w->ordered && w->orders >= 0)
			proc_wait(w, NULL, 0, -1);
		if (!w->ordered)
			break;          /* prun is dead, and nothing is under way */
		w->ordered = false;
		o = w->next;
		if (o.type == ORDER_QUIT)
			break;
		if (o.type == ORDER_SETUP)
			setup(&self, &p->suites[o.file]);
		else if (o.type == ORDER_RUN && p->o.reopen)
			reopen(&self, &p->files[o.file]);
		else if (o.type == ORDER_RUN)
			attempt(&self, &p->files[o.file], o.attempt);
		else
			drop(&self, &p->files[o.file], o.attempt);
		scratch_release(mark);
	}
	pg_close(self.pg);
	proc_drain(w, NULL);
	free(w->pids);
	_exit(0);
}
