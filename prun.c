/*
 * prun: runs test files side by side, each with a database, a port and a
 * server of its own.
 *
 * main() reads the options, makes the plan, has it run (run.c) and reports.
 * Other modes need less of that: --merge only reports, --clean only the
 * databases' sweep, --reopen one server, -n the plan.
 */
#include "prun.h"
#include <dirent.h>

struct parts {
	struct part *v;
	size_t n, cap;
};

/* ---- the plan ---- */

static void
print_plan(const struct plan *p)
{
	int *order = plan_order(p, p->o.shuffle);
	struct buf b = { 0 };
	const struct file *f;
	size_t i, k;
	bool program;

	for (i = 0; i < p->nfiles; i++) {
		f = &p->files[order[i]];
		b.n = 0;
		if (*f->suite->name)
			buf_fmt(&b, "%s: ", f->suite->name);
		buf_safe(&b, f->test, strlen(f->test));
		if (f->expect_ms >= 0)
			buf_fmt(&b, "  %.1fs", (double)f->expect_ms / 1000);
		if (f->alone)
			buf_str(&b, "  alone");
		for (k = 0; k < f->nlocks; k++)
			buf_fmt(&b, "  lock=%s", p->locks.v[f->locks[k]]);
		printf("%s\n    %s\n", b.s, plan_command(f, &program));
	}
	printf("%zu file%s, %d at once", p->nfiles, p->nfiles == 1 ? "" : "s", p->workers);
	if (p->o.shard)
		printf("; shard %d/%d of %zu files", p->shard, p->shards, p->all);
	putchar('\n');
	free(order);
	buf_free(&b);
}

/* Which suites need their setup done: those that have a file to run, and of whose kind
 * there is no earlier one. */
static void
find_setups(struct plan *p)
{
	const struct opts *o, *q;
	size_t i, k;

	for (i = 0; i < p->nsuites; i++)
		p->suites[i].no_setup = !p->o.clean;
	for (i = 0; i < p->nfiles; i++)
		p->files[i].suite->no_setup = p->o.reopen != NULL;
	for (i = 0; i < p->nsuites; i++) {
		o = &p->suites[i].o;
		for (k = 0; k < i; k++) {
			q = &p->suites[k].o;
			if (!p->suites[k].no_setup && !strcmp(o->setup ? o->setup : "",
				q->setup ? q->setup : "")
			&& !strcmp(o->db ? o->db : "", q->db ? q->db : ""))
				p->suites[i].no_setup = true;
		}
		if (!o->setup && !o->db)
			p->suites[i].no_setup = true;
	}
}

/* ---- the run directory ---- */

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

/* Whether path has what a run of ours has left, and not only a file of that name. */
static bool
is_run(const char *path)
{
	char head[9] = "";
	int fd = open(str("%s/results.jsonl", path), O_RDONLY | O_CLOEXEC);
	bool is = fd >= 0 && read(fd, head, sizeof(head)) == (ssize_t)sizeof(head)
		&& !memcmp(head, "{\"prun\":\"", sizeof(head));

	if (fd >= 0)
		close(fd);
	return is;
}

/* Locks the run directory path for as long as we live; a descriptor.  Ends prun if
 * another run has it. */
static int
lock_run(const char *path)
{
	int fd = open(str("%s/results.jsonl", path), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	struct flock lock;

	memset(&lock, 0, sizeof(lock));
	lock.l_type = F_WRLCK;
	if (fd < 0)
		fatal(EXIT_RUN, "%s/results.jsonl:", path);
	if (fcntl(fd, F_SETLK, &lock) < 0)
		fatal(EXIT_USAGE, "%s is in use by another run", path);
	return fd;
}

static int
is_entry(const struct dirent *e)
{
	return strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
}

/* Makes the run directory, or empties one that a run of ours has left. */
static void
make_dir(struct plan *p)
{
	const char *tmp = getenv("TMPDIR");
	char *path = p->o.run_dir ? p->o.run_dir
		: str("%s/prun-%s", tmp && *tmp ? tmp : "/tmp", p->id);
	struct dirent **e;
	int i, n, fd = -1;

	if (mkdir(path, 0777) < 0 && (errno != EEXIST || !p->o.run_dir))
		fatal(EXIT_RUN, "%s:", path);
	n = scandir(path, &e, is_entry, NULL);
	if (n > 0 && !is_run(path))
		fatal(EXIT_USAGE, "%s is neither empty nor the run directory of an earlier run",
			path);
	p->dir = realpath(path, NULL);
	if (n < 0 || !p->dir)
		fatal(EXIT_RUN, "%s:", path);
	if (n)
		fd = lock_run(path);
	for (i = 0; i < n; i++) {
		if (remove_tree(str("%s/%s", path, e[i]->d_name)) < 0)
			fatal(EXIT_RUN, "%s/%s:", path, e[i]->d_name);
		free(e[i]);
	}
	free(e);
	if (fd >= 0)
		close(fd);
	lock_run(path);
}

/* ---- reports ---- */

/* Adds the files of a run, ours (source 0) or what is known of another. */
static void
add_run(struct parts *parts, const struct plan *p, const struct record *records, int source)
{
	struct buf notes = { 0 };
	struct part *part;
	const struct record *c;
	const struct file *f;
	char *path;
	size_t i;
	int k;

	/* A shard may be empty; its report is of no file, but says so. */
	for (i = 0; i < p->nfiles || (i == 0 && p->shards > 1); i++) {
		parts->v = grow(parts->v, &parts->cap, parts->n + 1, sizeof(*part));
		part = memset(&parts->v[parts->n++], 0, sizeof(*part));
		part->source = source;
		part->run = p->id;
		part->plan = str("%08" PRIx32, p->hash);
		part->shard = str("%d/%d", p->shard, p->shards);
		part->synthetic = true;
		part->result = NONE;
		if (!p->nfiles)
			continue;
		f = &p->files[i];
		notes.n = 0;
		buf_safe(&notes, f->test, strlen(f->test));
		part->file = str("%s", notes.s);
		c = &records[i];
		part->result = c->o.result;
		part->cause = c->o.cause;
		part->ms = c->o.ms;
		part->attempts = c->attempts;
		for (k = 1; k == 1 || k <= c->attempts; k++) {
			if (p->o.audit && k != c->o.attempt)
				continue;       /* its rounds are no retries */
			list_add(&part->reports, str("%s/junit.xml", plan_dir(p, f, k)));
			list_add(&part->logs, str("%s/test.log", plan_dir(p, f, k)));
		}
		path = str("%s/notes", plan_dir(p, f, c->o.attempt));
		notes.n = 0;
		if (!c->o.notes || buf_read(&notes, path) < 0)
			buf_str(&notes, c->o.why);
		if (starts(notes.s, "! "))
			part->why = str("%.*s", (int)strcspn(notes.s + 2, "\n"), notes.s + 2);
	}
	buf_free(&notes);
}

/* Merges the parts into path, and frees them; -1 with what there is to say said. */
static int
merge(const struct plan *p, struct parts *parts, const char *path, int64_t ms,
	struct counts *total)
{
	struct merge m = { p->o.report_limit < 0 ? INT64_MAX / 2 : p->o.report_limit, "prun", ms,
		p->o.partial };
	int r = junit_merge(&m, parts->v, parts->n, path, total);

	if (r < 0 && errno)
		warn("%s could not be written, what was there is untouched:", path);
	while (parts->n) {
		list_free(&parts->v[--parts->n].reports);
		list_free(&parts->v[parts->n].logs);
	}
	free(parts->v);
	return r;
}

/* Whether path is the report that is to be written: what an earlier merge left. */
static bool
is_out(const char *path, const char *out)
{
	struct stat a, b;

	return stat(path, &a) == 0 && stat(out, &b) == 0 && a.st_dev == b.st_dev
		&& a.st_ino == b.st_ino;
}

/* Adds what path names: a report, a run directory, or all that is below a directory.
 * The number of reports and runs that were found. */
static size_t
add_input(struct parts *parts, const char *path, const char *out)
{
	struct plan *run = memset(scratch(sizeof(*run)), 0, sizeof(*run));
	struct record *records;
	struct dirent **e;
	struct stat st;
	struct part *part;
	size_t found = 0, len;
	char *name;
	int i, n;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		parts->v = grow(parts->v, &parts->cap, parts->n + 1, sizeof(*part));
		part = memset(&parts->v[parts->n++], 0, sizeof(*part));
		part->source = (int)parts->n;
		list_add(&part->reports, path);
		return 1;
	}
	if (access(str("%s/results.jsonl", path), F_OK) == 0) {
		n = show_read(run, &records, path);
		if (n == 0)
			add_run(parts, run, records, (int)parts->n + 1);
		free(records);
		if (n == 0)
			return 1;
		warn("%s/results.jsonl cannot be read; only reports are merged", path);
	}
	n = scandir(path, &e, is_entry, alphasort);
	if (n < 0)
		warn("%s:", path);
	for (i = 0; i < n; i++) {
		name = str("%s/%s", path, e[i]->d_name);
		len = strlen(name);
		if (lstat(name, &st) == 0 && (S_ISDIR(st.st_mode) || (len > 4
		&& !strcmp(name + len - 4, ".xml") && !is_out(name, out))))
			found += add_input(parts, name, out);
		free(e[i]);
	}
	if (n >= 0)
		free(e);
	return found;
}

/* prun --merge -o OUT path ... */
static int
merge_mode(const struct plan *p)
{
	struct parts parts = { 0 };
	struct counts total;
	size_t i, n, runs;

	/* There is no run that would have to be ended. */
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	signal(SIGTSTP, SIG_DFL);
	if (!p->o.junit || !p->paths.n)
		bad("--merge", "wants -o OUT and the reports or run directories to merge");
	for (i = 0; i < p->paths.n; i++)
		if (!add_input(&parts, p->paths.v[i], p->o.junit))
			warn("%s: no report is below it", p->paths.v[i]);
	for (runs = 0, n = parts.n; n; n--)
		runs += parts.v[n - 1].synthetic;
	n = parts.n;
	if (merge(p, &parts, p->o.junit, -1, &total) < 0)
		return EXIT_RUN;
	if (strcmp(p->o.junit, "-") && !p->o.quiet)
		printf("%s: %" PRId64 " test%s of %zu %s, %" PRId64 " failed, %" PRId64
			" in error, %" PRId64 " skipped\n", p->o.junit, total.tests,
			total.tests == 1 ? "" : "s", n, runs ? n == 1 ? "file" : "files"
			: n == 1 ? "report" : "reports", total.failures, total.errors, total.skipped);
	return p->o.strict && total.failures + total.errors ? EXIT_FAILED : 0;
}

/* ---- the run ---- */

/* The run is over: reports, history, what stays. */
static int
finish(const struct plan *p, const struct record *records, struct show *show, int status,
	bool cut, int64_t ms)
{
	struct parts parts = { 0 };
	struct buf found = { 0 };
	struct counts total;
	char *report = NULL, *path, *target;
	size_t i;
	bool failed = (status == EXIT_FAILED || status == EXIT_RUN) && !cut;
	bool stays = p->o.run_dir || p->o.keep == KEEP_ALWAYS;

	for (i = 0; i < p->nfiles; i++) {
		failed = failed || (records[i].o.result >= FAIL && records[i].o.result < CANCEL);
		stays = stays || records[i].o.kept;
	}
	stays = stays || (failed && p->o.keep != KEEP_NEVER);
	if (p->o.junit || stays)
		report = p->o.junit ? p->o.junit : str("%s/report.xml", p->dir);
	if (report) {
		add_run(&parts, p, records, 0);
		if (merge(p, &parts, report, ms, &total) < 0) {
			status = EXIT_RUN;
			report = NULL;
			stays = true;   /* --merge can still make it */
		}
	}
	if (report && p->o.junit && stays && (target = realpath(report, NULL))) {
		path = str("%s/report.xml", p->dir);
		if (symlink(target, path) < 0)
			warn("%s:", path);
		free(target);
	}
	if (!p->o.audit && p->shards == 1)
		plan_history_write(p, records);
	if (stays)
		show_say(show, "\nkept: %s", p->dir);
	show_end(show, status, ms, report);
	if (p->o.audit && !cut) {
		plan_audit(p, records, &found);
		fputs(found.s, stdout);
		buf_free(&found);
	}
	if (!stays && remove_tree(p->dir) < 0)
		warn("%s could not be removed:", p->dir);
	return status;
}

static void
die(int sig)
{
	signal(sig, SIG_DFL);
	raise(sig);
	_exit(128 + sig);               /* process 1 of a container survives raise */
}

static void
free_records(const struct plan *p, struct record *records)
{
	size_t i;

	for (i = 0; i < p->nfiles; i++)
		free(records[i].rounds);
	free(records);
}

static int
run(struct plan *p)
{
	struct record *records;
	int64_t begin = clock_ms();
	int status, sig;
	struct show *show;

	make_dir(p);
	find_setups(p);
	records = xcalloc(p->nfiles, sizeof(*records));
	show = show_open(p, records);
	if (!p->o.quiet) {
		show_say(show, "%zu file%s, %d at once%s%s", p->nfiles, p->nfiles == 1 ? "" : "s",
			p->workers, p->o.shuffle ? ", shuffle seed " : "",
			p->o.shuffle ? p->o.shuffle : "");
		if (p->o.shard)
			show_say(show, "shard %d/%d of %zu files", p->shard, p->shards, p->all);
	}
	status = run_files(p, records, show, &sig);
	status = finish(p, records, show, status, sig, clock_ms() - begin);
	free_records(p, records);
	if (sig)
		die(sig);
	return status;
}

/* ---- other modes ---- */

/* A run that has no report and leaves nothing, of --clean or --reopen. */
static int
run_aside(struct plan *p)
{
	struct record *records;
	struct show *show;
	int status, sig;

	p->o.run_dir = NULL;
	make_dir(p);
	find_setups(p);
	records = xcalloc(p->nfiles, sizeof(*records));
	show = show_open(p, records);
	status = run_files(p, records, show, &sig);
	show_close(show);
	free_records(p, records);
	if (remove_tree(p->dir) < 0)
		warn("%s could not be removed:", p->dir);
	if (sig && !p->o.reopen)
		die(sig);
	return sig ? 0 : status;
}

/* prun --clean [run directory ...] */
static int
clean_mode(struct plan *p)
{
	size_t i, dbs = 0;
	int status = 0, fd;

	for (i = 0; i < p->nsuites; i++)
		dbs += p->suites[i].o.db != NULL;
	if (!dbs && !p->paths.n)
		bad("--clean", "no db = names a template, and no run directory is given");
	for (i = 0; i < p->paths.n; i++) {
		if (!is_run(p->paths.v[i]))
			bad(p->paths.v[i], "is no run directory");
		fd = lock_run(p->paths.v[i]);
		close(fd);
	}
	if (dbs)
		status = run_aside(p);
	for (i = 0; i < p->paths.n; i++)
		if (p->o.list)
			puts(p->paths.v[i]);
		else if (remove_tree(p->paths.v[i]) < 0)
			fatal(EXIT_RUN, "%s:", p->paths.v[i]);
		else
			printf("removed %s\n", p->paths.v[i]);
	return status;
}

/* The value of a variable in an attempt's env file, or NULL. */
static char *
env_value(const char *env, const char *name)
{
	const char *s = strstr(env, str("export %s='", name));
	struct buf b = { 0 };
	char *value;

	if (!s)
		return NULL;
	for (s = strchr(s, '\'') + 1; *s && (*s != '\'' || starts(s, "'\\''")); s++) {
		buf_char(&b, *s);
		s += *s == '\'' ? 3 : 0;
	}
	value = str("%s", b.s ? b.s : "");
	buf_free(&b);
	return value;
}

/* Makes prun --reopen DIR a run of that attempt's file and suite. */
static void
find_attempt(struct plan *p)
{
	static const char *const inherited[] = { "PRUN_DB", "PRUN_DB_URL" };
	char *dir = realpath(p->o.reopen, NULL), *test, *suite, *value;
	struct buf env = { 0 };
	size_t i;

	if (!dir || buf_read(&env, str("%s/env", dir)) < 0)
		bad("--reopen", "%s has no env file: an attempt's directory that was kept has one",
			p->o.reopen);
	p->o.reopen = dir;
	test = env_value(env.s, "PRUN_TEST");
	suite = env_value(env.s, "PRUN_SUITE");
	if (!test || !suite)
		bad("--reopen", "%s/env names no test", dir);
	for (i = 0; i < LEN(inherited); i++) {
		value = env_value(env.s, inherited[i]);
		if ((value ? setenv(inherited[i], value, 1) : unsetenv(inherited[i])) < 0)
			fatal(EXIT_RUN, "setenv:");
	}
	list_free(&p->paths);
	list_add(&p->paths, test);
	list_free(&p->o.suite);
	if (*suite)
		list_add(&p->o.suite, suite);
	buf_free(&env);
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
	int status = 0;

	(void)argc;
	proc_init();
	conf_read(&p, argv);
	make_id(&p);
	if (p.o.audit ? !p.o.shuffle : p.o.shuffle && !*p.o.shuffle)
		p.o.shuffle = p.id;
	if (p.o.help) {
		conf_help(stdout);
	} else if (p.o.version) {
		puts("prun " PRUN_VERSION);
	} else if (p.o.merge) {
		status = merge_mode(&p);
	} else {
		if (p.o.reopen)
			find_attempt(&p);
		plan_make(&p);
		p.workers = count_workers(&p);
		if (p.o.interactive && p.nfiles != 1)
			bad("-i", "wants one file, these are %zu", p.nfiles);
		if (p.o.audit && p.workers == 1)
			bad("--audit", "wants two files at least, and jobs above 1");
		if (p.o.clean)
			status = clean_mode(&p);
		else if (p.o.reopen)
			status = run_aside(&p);
		else if (p.o.list)
			print_plan(&p);
		else if (p.nfiles || p.all)
			status = run(&p);
		else if (!p.o.no_tests) {
			warn(p.o.last_failed ? "no test file is known to have failed"
				: "no test files found");
			status = EXIT_NO_FILES;
		}
	}
	if (fflush(stdout) == EOF && !status)
		fatal(EXIT_RUN, "standard output:");
	return status;
}
