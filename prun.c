/*
 * prun.c: runs test files side by side, each with a database, a port and a
 * server of its own.
 *
 * Here are main() and its modes, the run directory, and a merge's parts.
 *
 * A run directory that the user names is emptied before the run, so it has to
 * be empty or that of an earlier run: one whose results.jsonl begins as ours
 * do.  That file is locked while the run lasts.
 */
#include "prun.h"
#include <strings.h>

/* The parts of a merge, or its units: the files and empty shards in them. */
struct parts {
	struct part *v;
	size_t n, cap;
};

/* ---- the plan ---- */

/* How much will be run. */
static char *
headline(const struct plan *p)
{
	return str("%zu file%s, %d at once%s%s%s", p->nfiles, p->nfiles == 1 ? "" : "s",
		p->workers, p->o.shuffle ? ", shuffle seed " : "",
		p->o.shuffle ? shown(p->o.shuffle) : "", p->o.shard ? str("; shard %d/%d of "
		"%zu files, plan %08" PRIx32, p->shard, p->shards, p->all, p->hash) : "");
}

static void
print_plan(const struct plan *p)
{
	int *order = plan_order(p, p->o.shuffle);
	const char *last = "";

	if (!p->o.quiet)
		printf("config: %s\n", p->conf ? shown(p->conf) : "none");
	for (size_t i = 0; i < p->nfiles; i++) {
		const struct file *f = &p->files[order[i]];
		if (p->o.quiet) {
			puts(shown(f->named));
			continue;
		}
		printf("%s%s%s", shown(f->suite->name), *f->suite->name ? ": " : "",
			shown(f->test));
		for (size_t k = 0; k < f->more.n; k++)
			printf(" %s", shown(f->more.v[k]));
		if (f->copy)
			printf(" (%d/%" PRId64 ")", f->copy, p->o.repeat);
		if (f->expect_ms >= 0)
			printf("  %.1fs", (double)f->expect_ms / 1000);
		fputs(f->alone ? "  alone" : "", stdout);
		for (size_t k = 0; k < f->nlocks; k++)
			printf("  lock=%s", shown(p->locks.v[f->locks[k]]));
		const char *command = plan_command(f);
		if (command && strcmp(command, last)) {
			printf("\n    %s", shown(command));
			last = command;
		}
		putchar('\n');
	}
	if (!p->o.quiet)
		puts(headline(p));
}

/* As strcmp(); NULL is "". */
static int
compare(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "");
}

/* Which suites need their setup: those that have a file to run (--clean: all),
 * but one setup is enough for several suites with the same setup and db. */
static void
find_setups(struct plan *p)
{
	for (size_t i = 0; i < p->nsuites; i++)
		p->suites[i].no_setup = !p->o.clean;
	for (size_t i = 0; i < p->nfiles && !p->o.reopen; i++)
		p->files[i].suite->no_setup = false;
	for (struct suite *s = p->suites; s < p->suites + p->nsuites; s++) {
		if (!s->o.setup && !s->o.db && !s->pytest)
			s->no_setup = true;
		for (struct suite *a = p->suites; a < s; a++)
			if (!a->no_setup && !compare(a->o.setup, s->o.setup)
			&& !compare(a->o.db, s->o.db) && (a->pytest || !s->pytest))
				s->no_setup = true;
	}
}

/* ---- the run directory ---- */

/* Another user could lay traps there, and read what tests write. */
static void
refuse_foreign(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		fatal(EXIT_USAGE, "%s:", path);
	if (st.st_uid != geteuid())
		bad(path, "belongs to another user");
}

/* Locks the run directory while the descriptor is open; -1, with a line, if a
 * run has it.  Ends prun if it is none: other tools may write a results.jsonl.
 * empty: that may be so, as after a kill at the wrong moment. */
static int
lock_run(const char *path, bool empty)
{
	static const char begin[] = "{\"prun\":\"";
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char head[sizeof(begin)] = "", *name = str("%s/results.jsonl", path);
	int fd = open_regular(name, O_RDWR | O_NOFOLLOW | (empty ? O_CREAT : 0));
	ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof(head) - 1);

	if (fd < 0 && empty && errno != EINVAL)
		fatal(EXIT_RUN, "%s:", name);
	if (strcmp(head, begin) && !(n == 0 && empty))
		bad(path, "is not a run directory");
	int r = fcntl(fd, F_SETLK, &lock);
	bool used = r < 0 && (errno == EACCES || errno == EAGAIN);
	if (used)
		warn("%s is in use by another run", path);
	else if (r < 0)
		warn("%s cannot be locked, so another run could take the directory:", name);
	return used ? -1 : fd;
}

/* Makes the directories above path, which will be written at the end. */
static void
make_parents(const char *option, const char *path)
{
	char *dir = str("%s", path ? path : "");

	if (!path || !strcmp(path, "-"))
		return;
	for (char *slash = dir; (slash = strchr(slash + 1, '/')); *slash = '/') {
		*slash = '\0';
		if (mkdir(dir, 0777) < 0 && errno != EEXIST)
			bad(option, "cannot make directory %s: %s", dir, strerror(errno));
	}
	char *slash = strrchr(dir, '/');
	*(slash ? slash + 1 : dir) = '\0';
	if (access(*dir ? dir : ".", W_OK) < 0 && access(path, W_OK) < 0)
		bad(option, "cannot write %s: %s", path, strerror(errno));
}

/* Whether the entry (of a directory's real path) is the file, or holds it. */
static bool
holds(const char *entry, const char *file)
{
	char *real = file ? real_path(file) : NULL;

	return real && conf_below(entry, real);
}

/* Makes the run directory, a fresh one where path is NULL, or empties that of
 * an earlier run, in which the report and the history may be. */
static void
make_dir(struct plan *p, const char *path)
{
	const char *tmp = getenv("TMPDIR");
	struct list names = { 0 };
	bool fresh = !path;

	if (fresh)
		path = str("%s/prun-%s", tmp && *tmp ? tmp : "/tmp", p->id);
	if (mkdir(path, 0700) < 0 && (errno != EEXIST || fresh))
		fatal(EXIT_RUN, "%s:", path);
	refuse_foreign(path);
	p->dir = real_path(path);
	if (!p->dir || list_dir(&names, path) < 0)
		fatal(EXIT_RUN, "%s:", path);
	/* Killed as it began or emptied one, a run left results.jsonl alone. */
	bool empty = !names.n || (names.n == 1 && !strcmp(*names.v, "results.jsonl"));
	int fd = lock_run(path, empty);
	if (fd < 0)
		exit(EXIT_USAGE);
	for (size_t i = 0; i < names.n; i++) {
		char *name = str("%s/%s", p->dir, names.v[i]);
		/* By results.jsonl we know it again, should we be killed. */
		if (strcmp(names.v[i], "results.jsonl") && !holds(name, p->o.junit)
		&& !holds(name, p->o.history) && remove_tree(name) < 0)
			fatal(EXIT_RUN, "%s:", name);
	}
	list_free(&names);
	if (ftruncate(fd, 0) < 0)
		fatal(EXIT_RUN, "%s/results.jsonl:", path);
}

/* ---- reports ---- */

static struct part *
add_part(struct parts *parts, struct part part)
{
	parts->v = grow(parts->v, &parts->cap, parts->n + 1, sizeof(part));
	parts->v[parts->n] = part;
	return &parts->v[parts->n++];
}

/* The path of a file in an attempt's directory; one that cannot be opened where
 * a run directory that is not this run's (other) leads elsewhere. */
static char *
own_file(const struct plan *p, const struct file *f, int attempt, const char *name, bool other)
{
	char *path = str("%s/%s", plan_dir(p, f, attempt), name);

	if (!other || access(path, F_OK) < 0 || holds(p->dir, path))
		return path;
	warn("%s is not in its run directory, and not read", path);
	return "";
}

/* Tells in its part what has come of a file, or of one more copy of it. */
static void
fill_part(struct part *part, const struct plan *p, const struct file *f, const struct record *c)
{
	const struct outcome *o = &c->o;
	struct buf notes = scratch_buf();

	/* of copies the worst that was run */
	if (f->copy < 2 || part->result == CANCEL
	|| (o->result > part->result && o->result != CANCEL)) {
		part->result = o->result;
		part->cause = o->cause;
		part->ms = o->ms;
		part->worker = o->slot;
		part->phases = o->began[IDLE] ? show_phases(p, o, "%s=%.3f", " ") : NULL;
		char *dir = plan_dir(p, f, o->attempt - (o->result == FLAKY));
		if ((o->result >= FAIL || o->result == FLAKY) && p->o.keep != KEEP_NEVER
		&& access(dir, F_OK) == 0)
			part->dir = shown(dir);
		char *path = own_file(p, f, o->attempt, "notes", part->input);
		char *why = show_why(path, o, &notes);
		part->why = *why ? why : NULL;
	}
	part->file = shown(f->test);
	part->suite = shown(f->suite->name);
	part->attempts += c->attempts;
	for (int k = 1; k == 1 || k <= c->attempts; k++) {
		/* The rounds of an audit are not retries.  Nobody knows how
		 * long the report of a killed attempt takes to read. */
		if ((p->o.audit && k != o->attempt)
		|| (!part->input && o->result == CANCEL && !o->report))
			continue;
		if (f->copy) {
			part->copies = grow(part->copies, &part->capcopies,
				part->reports.n + 1, sizeof(*part->copies));
			part->copies[part->reports.n] = o;
		}
		list_add(&part->reports, own_file(p, f, k, "junit.xml", part->input));
		list_add(&part->logs, own_file(p, f, k, "test.log", part->input));
	}
}

/* Adds all files of a run, under a name or NULL; input NULL: of this run.  An
 * empty shard has a part without a file, which says so. */
static void
add_run(struct parts *parts, const struct plan *p, const struct record *records,
	const char *name, const char *input)
{
	struct part part = { .name = name, .input = input, .run = p->id, .started = p->started,
		.nth = p->shard, .shards = p->shards, .synthetic = true, .result = NONE };

	part.plan = str("%08" PRIx32, p->hash);
	part.shard = str("%d/%d", p->shard, p->shards);
	for (size_t i = 0; i < p->nfiles; i++)
		fill_part(p->files[i].copy > 1 ? &parts->v[parts->n - 1]
			: add_part(parts, part), p, &p->files[i], &records[i]);
	if (!p->nfiles && p->shards > 1)
		add_part(parts, part);
}

/* Merges the parts into path, and makes a page of it; false after a message. */
static bool
merge(const struct plan *p, struct parts *parts, const char *path, int64_t ms,
	struct counts *total)
{
	struct merge m = { .name = "prun", .ms = ms,
		.limit = p->o.report_limit < 0 ? INT64_MAX / 2 : p->o.report_limit };

	if (junit_merge(&m, parts->v, parts->n, path, total) < 0) {
		warn("%s cannot be written, the previous file is unchanged:", path);
		return false;
	}
	show_page(p, path);
	return true;
}

/* Adds the files of runs that a report has.  False if it is whole XML of
 * another kind; but HTML says that something went wrong.  Another tool's report
 * is read up to its first case: another pass merges it. */
static bool
read_report(const struct part *report, struct parts *units)
{
	struct reader *r = xml_open(report->input, false, 65536, INT64_MAX);
	bool known = false, ours = false, past = false; /* past: the suite's properties */
	struct part *now = NULL;
	size_t number = 0, tags = 0;
	int depth = 0;
	enum event e;

	for (; r && (e = xml_next(r, false, NULL)) != EOD; tags++) {
		const char *tag = xml_name(r), *name = xml_attr(r, "name");
		depth += e == START ? 1 : -1;
		if (e != START)
			continue;
		ours = ours || (!known && starts(tag, "testsuite") && !strcmp(name, "prun"));
		known = known || starts(tag, "testsuite")
			|| (!tags && !strcasecmp(tag, "html"));
		if (!strcmp(tag, "testsuite")) {
			now = NULL;
			past = false;
		} else if (!strcmp(tag, "testcase")) {
			past = true;
			if (known && !number && !ours)
				break;
		} else if (known && !past && !strcmp(tag, "property")
		&& starts(name, "prun.")) {
			if (!now) {
				now = add_part(units, *report);
				now->number = number++;
				now->shard = now->plan = "none";
			}
			show_property(now, r);
		}
	}
	if (r)
		xml_close(r);
	return known || depth || !tags; /* what is not there is told when it is merged */
}

/* Adds what path names: a report, a run directory, or all reports and run
 * directories below a directory (found); returns how many there were. */
static size_t
add_input(struct parts *parts, struct parts *units, const char *name, const char *path,
	const char *out, bool found)
{
	struct part part = { .name = name, .input = path, .of = parts->n };
	struct list names = { 0 };
	struct record *records;
	struct stat st, old;
	size_t count = 0;

	if ((found ? lstat(path, &st) : stat(path, &st)) < 0 || !S_ISDIR(st.st_mode)) {
		/* not what an earlier merge left */
		if (found && (!xml_is_file(path) || (stat(out, &old) == 0
		&& st.st_ino == old.st_ino && st.st_dev == old.st_dev)))
			return 0;
		if (!read_report(&part, units) && found)
			warn("%s is XML, but not a test report; skipped", path);
		else
			list_add(&add_part(parts, part)->reports, path);
		return 1;
	}
	struct plan *run = scratch(sizeof(*run));
	if (show_read(run, &records, path) == 0) {
		add_run(parts, run, records, name, path);
		for (size_t i = part.of; i < parts->n; i++) {
			parts->v[i].of = i;
			add_part(units, parts->v[i]);
		}
		return 1;
	}
	if (access(str("%s/results.jsonl", path), F_OK) == 0)
		warn("%s/results.jsonl cannot be read; merging only the reports", path);
	if (list_dir(&names, path) < 0)
		warn("%s:", path);
	for (size_t i = 0; i < names.n; i++)
		count += add_input(parts, units, name, str("%s/%s", path, names.v[i]), out,
			true);
	list_free(&names);
	return count;
}

/* By file, then name; the last counts: of the later run, or named later. */
static int
by_file(const void *a, const void *b)
{
	const struct part *s = a, *t = b;
	int order = compare(s->suite, t->suite);

	order = order ? order : compare(s->file, t->file);
	order = order ? order : compare(s->name, t->name);
	order = order ? order : compare(s->started, t->started);
	return order ? order : (int)s->of - (int)t->of;
}

static void
tell_twice(const char *what, const struct part *a, const struct part *b)
{
	warn("%s%s is there twice, in %s and in %s: name the inputs (NAME=PATH) if they "
		"are platforms; give --rerun if one repeats the other",
		a->name ? str("%s: ", a->name) : "", what, a->input, b->input);
}

/* By name, then number of the shard. */
static int
by_shard(const void *a, const void *b)
{
	const struct part *s = a, *t = b;
	int order = compare(s->name, t->name);

	order = order ? order : s->shards - t->shards;
	order = order ? order : s->nth - t->nth;
	return order ? order : (int)s->of - (int)t->of;
}

/* Ends prun if shards are missing or double; whether all are of one plan. */
static bool
check_shards(const struct plan *p, struct parts *units)
{
	int missing = 0, twice = 0;
	bool one = true;

	if (units->n)
		qsort(units->v, units->n, sizeof(*units->v), by_shard);
	for (size_t i = 0; i < units->n; i++) {
		const struct part *b = &units->v[i];
		const struct part *a = i && !compare(b[-1].name, b->name) ? b - 1 : NULL;
		bool sharded = a && a->shards > 1;           /* else a was all there was */
		bool other = a && compare(a->plan, b->plan);
		one = one && !other;
		if (sharded && (other || a->shards != b->shards)) {
			warn("shard %s of plan %s (%s) does not go with shard %s of plan %s "
				"(%s): their machines had other files or another history",
				b->shard, b->plan, b->input, a->shard, a->plan, a->input);
			missing++;
			break;
		}
		if (sharded && a->nth == b->nth && a->input != b->input && !p->o.rerun
		&& twice++ < 10)
			tell_twice(str("shard %s", b->shard), a, b);
		int next = sharded ? a->nth + 1 : 1, last = b->nth;
		if (i + 1 == units->n || compare(b->name, b[1].name))
			last = b->shards;
		for (; next <= last && b->shards > 1; next++)
			if (next != b->nth && missing++ < 10)
				warn("%sshard %d/%d is missing", b->name ? str("%s: ",
					b->name) : "", next, b->shards);
	}
	if (twice || (missing && !p->o.partial))
		fatal(EXIT_RUN, "%s is not written%s", p->o.junit,
			twice ? "" : "; --partial merges incomplete shards");
	return one;
}

/* Ends prun if a file is there twice under one name; of a rerun the last one
 * counts.  Appends the history of what had ended: of several names' the longest
 * time and the worst result. */
static void
check_files(const struct plan *p, struct parts *parts, struct parts *units, struct list *lines)
{
	enum result worst = PASS;
	size_t twice = 0;
	int64_t most = -1;

	if (units->n)
		qsort(units->v, units->n, sizeof(*units->v), by_file);
	for (size_t i = 0; i < units->n; i++) {
		struct part *a = &units->v[i], *b = a + 1, *part = &parts->v[a->of];
		bool again = a->file && i + 1 < units->n && !compare(a->file, b->file)
			&& !compare(a->suite, b->suite);
		if (again && !compare(a->name, b->name)) {
			if (!p->o.rerun && twice++ < 10)
				tell_twice(a->file, a, b);
			part->skip = part->synthetic;
			if (!part->replaced) {          /* it has no more than all have */
				part->replaced = xcalloc(units->n, sizeof(*part->replaced));
				part->nreplaced = units->n;
			}
			part->replaced[a->number] = true;
			continue;
		}
		if (a->file && a->result != NONE && a->result != CANCEL) {
			most = a->ms > most ? a->ms : most;
			worst = a->result > worst ? a->result : worst;
		}
		if (!again && most >= 0) {
			list_add(lines, plan_history_line(most, worst, a->suite, a->file));
			most = -1;
			worst = PASS;
		}
	}
	if (twice)
		fatal(EXIT_RUN, "%s is not written", p->o.junit);
}

/* prun --merge -o OUT [NAME=]path ... */
static int
merge_mode(const struct plan *p)
{
	static struct parts parts, units;       /* never freed */
	static struct list history;             /* the same */
	struct counts total;
	size_t n = 0;

	if (!p->o.junit || !p->paths.n)
		bad("--merge", "needs -o OUT and the reports or run directories to merge");
	make_parents("-o", p->o.junit);
	make_parents("--html", p->o.html);
	for (size_t i = 0; i < p->paths.n; i++) {
		const char *path = p->paths.v[i], *name = NULL;
		size_t end = strspn(path, WORD ".-");
		if (end && path[end] == '=' && access(conf_path(p, path), F_OK) < 0) {
			name = str("%.*s", (int)end, path);
			path += end + 1;
		}
		if (!add_input(&parts, &units, name, conf_path(p, path), p->o.junit, false))
			warn("%s: no reports found", path);
	}
	bool one_plan = check_shards(p, &units);
	check_files(p, &parts, &units, &history);
	for (size_t i = 0; i < parts.n; i++)
		n += !parts.v[i].skip;
	if (!merge(p, &parts, p->o.junit, -1, &total))
		return EXIT_RUN;
	if (p->o.rerun || one_plan)
		plan_history_write(p, &history);
	const char *what = parts.n && parts.v->synthetic ? "file" : "report";
	if (strcmp(p->o.junit, "-") && !p->o.quiet)
		printf("%s: %" PRId64 " test%s from %zu %s%s, %" PRId64 " failed, %" PRId64
			" with errors, %" PRId64 " skipped\n", p->o.junit, total.tests,
			total.tests == 1 ? "" : "s", n, what, n == 1 ? "" : "s",
			total.failures, total.errors, total.skipped);
	return p->o.strict && total.failures + total.errors ? EXIT_FAILED : 0;
}

/* ---- the run ---- */

/* The run is over: reports, history, and what stays. */
static int
finish(const struct plan *p, const struct record *records, struct show *show, int status,
	int sig, int64_t ms)
{
	bool failed = (status == EXIT_FAILED || status == EXIT_RUN) && !sig;
	bool stays = p->o.run_dir || p->o.keep == KEEP_ALWAYS;
	char *inside = str("%s/report.xml", p->dir);
	const char *path = p->o.junit ? p->o.junit : inside, *report = NULL;
	static struct parts parts;      /* never freed */
	struct list ended = { 0 };
	struct counts total;

	for (size_t i = 0; i < p->nfiles; i++) {
		const struct outcome *o = &records[i].o;
		failed = failed || o->result == FLAKY
			|| (o->result >= FAIL && o->result != CANCEL);
		stays = stays || records[i].kept;
		if (records[i].attempts && o->result != NONE && o->result != CANCEL)
			list_add(&ended, plan_history_line(o->ms, o->result,
				p->files[i].suite->name, p->files[i].test));
	}
	stays = stays || (failed && p->o.keep != KEEP_NEVER);
	if (p->o.junit || p->o.html || getenv("GITHUB_STEP_SUMMARY") || stays) {
		add_run(&parts, p, records, NULL, NULL);
		report = merge(p, &parts, path, ms, &total) ? path : NULL;
		status = report ? status : EXIT_RUN;
		stays = stays || !report;       /* --merge can still make it */
		char *target = report && p->o.junit && stays ? real_path(path) : NULL;
		if (target && strcmp(target, inside) && symlink(target, inside) < 0)
			warn("%s:", inside);
	}
	/* With test arguments only a part of each file may have been run. */
	if (!p->o.audit && p->shards == 1 && !p->args.n && p->o.repeat == 1)
		plan_history_write(p, &ended);
	list_free(&ended);
	if (stays)
		show_say(show, "\nkept: %s", p->dir);
	show_end(show, sig ? 128 + sig : status, ms, report);
	if (p->o.audit && !sig)
		run_audit(p, records, show);
	if (!stays && remove_tree(p->dir) < 0)
		warn("%s could not be removed:", p->dir);
	return status;
}

/* Writes what was printed until the deadline or a signal: that one, or sig. */
static int
drain(struct show *show, int64_t deadline, int sig)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct pollfd out[3] = { { .fd = show_write(show), .events = POLLOUT } };

	while (out->fd >= 0 && clock_ms() < deadline) {
		for (size_t i = 0; i < LEN(sigs); i++)
			if (proc_caught(sigs[i]))
				return sig ? sig : sigs[i];
		if (proc_caught(SIGTSTP))
			raise(SIGSTOP);
		proc_wait(NULL, out, 1, deadline);
		out->fd = show_write(show);
	}
	return sig;
}

static void
die(int sig)
{
	signal(sig, SIG_DFL);
	raise(sig);
	_exit(128 + sig);               /* process 1 of a container survives raise */
}

/* A run.  One aside has no report and leaves nothing. */
static int
run(struct plan *p, bool aside)
{
	time_t now = time(NULL);
	int sig;

	proc_catch();
	if (!aside) {
		make_parents("-d", p->o.run_dir);
		/* The report's may lie in it; make_dir() says what is wrong. */
		if (p->o.run_dir)
			mkdir(p->o.run_dir, 0700);
		make_parents("-o", p->o.junit);
		make_parents("--html", p->o.html);
		make_parents("--history", p->o.history);
	}
	p->began = clock_ms();
	strftime(p->started, sizeof(p->started), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	make_dir(p, aside ? NULL : p->o.run_dir);
	struct record *records = scratch(p->nfiles * sizeof(*records));
	struct show *show = show_open(p, records);
	if (!p->o.quiet && !aside)
		show_say(show, "config: %s\n%s", p->conf ? shown(p->conf) : "none",
			headline(p));
	int status = run_files(p, records, show, &sig);
	if (p->asked && !status && !sig)
		plan_collect(p);
	if (!aside)
		status = finish(p, records, show, status, sig, clock_ms() - p->began);
	else if (remove_tree(p->dir) < 0)
		warn("%s could not be removed:", p->dir);
	sig = drain(show, sig ? clock_ms() + 1000 : NEVER, sig);
	if (show_error(show) && show_error(show) != EPIPE)
		status = EXIT_RUN;
	if (sig && !p->o.reopen)
		die(sig);
	return sig ? 0 : status;
}

/* ---- other modes ---- */

/* Adds the run directories below TMPDIR that runs of this project have left. */
static void
find_runs(struct plan *p)
{
	const char *tmp = getenv("TMPDIR");
	struct list names = { 0 };
	struct record *records;
	struct stat st;

	tmp = tmp && *tmp ? tmp : "/tmp";
	if (list_dir(&names, tmp) < 0)
		warn("%s:", tmp);
	for (size_t i = 0; i < names.n; i++) {
		char *path = str("%s/%s", tmp, names.v[i]);
		char *log = str("%s/results.jsonl", path);
		struct plan *run = scratch(sizeof(*run));
		int fd = -1;
		if (starts(names.v[i], "prun-") && id_valid(names.v[i] + 5)
		&& lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid()
		&& access(log, R_OK | W_OK) == 0 && lstat(log, &st) == 0 && S_ISREG(st.st_mode)
		&& show_read(run, &records, path) == 0 && !strcmp(run->base, p->base))
			fd = lock_run(path, false);
		if (fd >= 0)
			list_add(&p->paths, path);
		close_keep(fd);
	}
	list_free(&names);
}

/* prun --clean [run directory ...] */
static int
clean_mode(struct plan *p)
{
	struct list dirs = { 0 };
	bool dbs = false;
	int status = 0;

	for (size_t i = 0; i < p->nsuites; i++)
		dbs = dbs || p->suites[i].o.db;
	if (!p->paths.n)
		find_runs(p);
	if (!dbs && !p->paths.n && !p->conf)
		bad("--clean", "needs db in prun.conf, or a run directory to remove");
	for (size_t i = 0; i < p->paths.n; i++) {
		list_add(&dirs, conf_path(p, p->paths.v[i]));
		refuse_foreign(dirs.v[i]);
		int fd = lock_run(dirs.v[i], false);
		if (fd < 0)
			exit(EXIT_USAGE);
		close(fd);
	}
	list_free(&p->paths);
	p->paths = dirs;                /* a worker looks for clones in them, from the base */
	if (dbs)
		status = run(p, true);
	for (size_t i = 0; i < dirs.n; i++) {
		if (p->o.list) {
			printf("%s\n", dirs.v[i]);
		} else if (status) {
			printf("%s stays, because not all databases could be dropped\n",
				dirs.v[i]);
		} else if (remove_tree(dirs.v[i]) < 0) {
			warn("%s:", dirs.v[i]);
			status = EXIT_RUN;
		} else {
			printf("removed %s\n", dirs.v[i]);
		}
	}
	return status;
}

/* Makes prun --reopen DIR a run of that attempt's file and suite. */
static void
find_attempt(struct plan *p)
{
	static const char *const names[] = { "PRUN_TEST", "PRUN_SUITE", "PRUN_DB",
		"PRUN_DB_URL" };
	char *dir = real_path(p->o.reopen);
	struct buf env = scratch_buf();

	if (!dir || buf_read(&env, str("%s/env", dir)) < 0)
		bad("--reopen", "%s has no env file; name the directory of a kept attempt",
			p->o.reopen);
	refuse_foreign(dir);
	p->o.reopen = dir;
	for (size_t i = 0; i < LEN(names); i++) {
		char *s = strstr(env.s, str("export %s='", names[i]));
		struct buf value = scratch_buf();
		unsetenv(names[i]);     /* cannot fail: it is a name */
		if (!s)
			continue;
		s = strchr(s, '\'') + 1;
		for (; *s && (*s != '\'' || starts(s, "'\\''")); s += *s == '\'' ? 4 : 1)
			buf_char(&value, *s);
		if (setenv(names[i], value.s, 1) < 0)
			fatal(EXIT_RUN, "setenv:");
	}
	if (!getenv("PRUN_TEST") || !getenv("PRUN_SUITE"))
		bad("--reopen", "%s/env does not name a test", dir);
	p->cwd = p->base;               /* the test is named from there */
	list_free(&p->paths);
	list_add(&p->paths, getenv("PRUN_TEST"));
	list_free(&p->o.suite);
	list_words(&p->o.suite, getenv("PRUN_SUITE"), " ");
}

/* How many workers the descriptors suffice for: two each, and some. */
static int
count_workers(const struct plan *p)
{
	int64_t n = p->o.jobs < (int64_t)p->nfiles ? p->o.jobs : (int64_t)p->nfiles;
	int64_t most = (sysconf(_SC_OPEN_MAX) - 24) / 2;

	if (sysconf(_SC_OPEN_MAX) > 0 && n > most) {
		n = most > 0 ? most : 1;
		warn("running only %" PRId64 " files at once: ulimit -n allows %ld file "
			"descriptors", n, sysconf(_SC_OPEN_MAX));
	}
	return n > 0 ? (int)n : 1;
}

/* Does the setups, and asks for the tests of files. */
static void
collect(struct plan *p)
{
	p->workers = 1;
	find_setups(p);
	p->nfiles = 0;
	int status = run(p, true);
	if (status)
		exit(status);
	/* They are done.  The run still takes its copy of the templates. */
	for (size_t i = 0; i < p->nsuites; i++)
		if (p->suites[i].o.setup)
			p->suites[i].o.setup = ":";
}

int
main(int argc, char **argv)
{
	static struct plan p;   /* lives as long as the process: never freed */
	int status = 0;

	(void)argc;
	proc_init();
	conf_read(&p, argv);
	id_make(p.id);
	if (p.o.audit ? !p.o.shuffle : p.o.shuffle && !*p.o.shuffle)
		p.o.shuffle = p.id;
	if (p.o.help) {
		conf_help(stdout);
	} else if (p.o.version) {
		puts("prun " PRUN_VERSION);
	} else if (p.o.merge) {
		status = merge_mode(&p);
	} else {
		if (p.o.repeat > 1 && (p.o.shard || p.o.audit || p.o.interactive
		|| p.o.last_failed))
			bad("--repeat", "does not go with --shard, --audit, -i or "
				"--last-failed");
		if (p.o.reopen)
			find_attempt(&p);
		plan_find(&p);
		if (p.asked && p.o.list)
			warn("split = test: the tests of a file are asked for when it is run");
		else if (p.asked)
			collect(&p);
		plan_make(&p);
		find_setups(&p);
		p.workers = count_workers(&p);
		if (p.o.interactive && p.nfiles != 1)
			bad("-i", "needs exactly one file, got %zu", p.nfiles);
		if (p.o.audit && p.workers == 1)
			bad("--audit", "needs at least two files and jobs greater than 1");
		if (p.o.clean)
			status = clean_mode(&p);
		else if (p.o.reopen)
			status = run(&p, true);
		else if (p.o.list)
			print_plan(&p);
		else if (p.nfiles || p.all)
			status = run(&p, false);
		if (!status && p.incomplete && !p.o.no_tests)
			status = EXIT_NO_FILES;
	}
	if (fflush(stdout) == EOF && errno == EPIPE)
		die(SIGPIPE);
	if (ferror(stdout))
		fatal(EXIT_RUN, "standard output:");
	return status;
}
