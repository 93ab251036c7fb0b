/*
 * plan.c: what is to be run.
 *
 * The chosen suites are searched for files; paths on the command line select
 * among them.  A file's name is its path from the base, whatever was typed.
 * With split = test a command is asked for their tests.  With shards, all are
 * dealt out, the same on every machine.  At last, marks are read in the files
 * that are ours.  What is not there or cannot be run is said.
 *
 * The history is a text file, a line a file: seconds, result, suite, path.
 */
#include "prun.h"
#include <fnmatch.h>
#include <glob.h>
#include <libgen.h>
#include <search.h>

/* ---- an attempt's names, and its command ---- */

char *
plan_dir(const struct plan *p, const struct file *f, int attempt)
{
	/* As results.jsonl has the name. */
	char *name = str("%d-%.100s", f->index, shown(basename(str("%s", f->path))));

	for (char *s = name; *s; s++)
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f
		|| strchr("/\\\"'`$:*?", *s))
			*s = '_';
	return str(attempt < 2 ? "%s/%s" : "%s/%s-%d", p->dir, name, attempt);
}

char *
plan_clone(const struct plan *p, const struct file *f, int attempt)
{
	const char *db = f->suite->o.db;
	char *name = db ? str("%s_w%d_%s", url_stem(db), f->index, p->id) : NULL;

	return name && attempt > 1 ? str("%sr%d", name, attempt) : name;
}

/* The first playwright.config.* here, or NULL. */
static const char *
playwright_config(void)
{
	glob_t g;

	if (glob("playwright.config.*", 0, NULL, &g) != 0)
		return NULL;
	const char *config = str("%s", g.gl_pathv[0]);
	globfree(&g);
	return config;
}

bool
plan_matches(char *const *globs, const char *name)
{
	for (; globs && *globs; globs++)
		if (fnmatch(*globs, name, 0) == 0)
			return true;
	return false;
}

/* Whether it is in JavaScript or TypeScript. */
static bool
is_script(const char *path)
{
	static char *const scripts[] = { "*.[jt]s", "*.[cm][jt]s", "*.[jt]sx", NULL };

	return plan_matches(scripts, path);
}

static const char pytest[] = "exec \"${PYTHON:-python3}\" -m pytest "
	"-o cache_dir=\"$TMPDIR/cache\" \"$PRUN_TEST\" --junitxml=\"$PRUN_JUNIT\" \"$@\"";

/* Playwright takes regular expressions, which heed the case only between
 * slashes.  It compares absolute paths, and titles with the names of file and
 * groups before them; reports write "group > title", with an angle mark.  A
 * suite that runs as one may be a directory. */
static const char playwright[] =
	"re() { printf '%s\\n' \"$1\" | LC_ALL=C sed 's,[][\\/^$.*+?(){}|],\\\\&,g'; }; "
	"case $PRUN_FILE in /*) d= ;; *) d=$(pwd -P)/ ;; esac; "
	"f=\"/^$(re \"$d$PRUN_FILE\")\\$/\" n=${PRUN_TEST#\"$PRUN_FILE\"}; "
	"[ ! -d \"$PRUN_FILE\" ] || f=$PRUN_FILE; "
	"case $n in ::*) n=$(re \"${n#::}\" | LC_ALL=C sed 's, \xe2\x80\xba , ,g'); "
	"set -- -g \"/$(re \"${PRUN_FILE##*/}\") $n( |\\$)/\" \"$@\"; n= ;; esac; "
	"p=node_modules/.bin/playwright; [ -x $p ] || p='npx --no-install playwright'; "
	"PLAYWRIGHT_JUNIT_OUTPUT_NAME=\"$PRUN_JUNIT\" exec $p test \"$f$n\" "
	"--pass-with-no-tests --workers=$PRUN_CPUS --reporter=junit "
	"--output=\"$PRUN_DIR/test-results\" \"$@\"";

/* The default command of a kind of file, or NULL. */
static const char *
default_test(const char *path)
{
	if (ends(path, ".py"))
		return pytest;
	if (ends(path, ".bats"))
		return "exec bats --tap \"$PRUN_TEST\" \"$@\"";
	return is_script(path) && playwright_config() ? playwright : NULL;
}

const char *
plan_command(const struct file *f)
{
	return f->suite->o.test ? f->suite->o.test : default_test(f->path);
}

/* ---- finding files ---- */

/* Whether path is a test; units: or makes its directory one of split = dir. */
static bool
is_test(const char *path, const char *name, bool units)
{
	static char *const tests[] = { "test_*.py", "*_test.py", "*.bats", "*.t", "test_*.sh",
		"*_test.sh", "test-*.sh", NULL };
	static char *const scripts[] = { "*.spec.*", "*.test.*", NULL };
	static char *const programs[] = { "test_*", "test-*", NULL };
	static char *const packages[] = { "*_test.go", "Cargo.toml", NULL };

	return plan_matches(tests, name) || (plan_matches(scripts, name) && is_script(name))
		|| (plan_matches(programs, name) && access(path, X_OK) == 0)
		|| (units && plan_matches(packages, name));
}

/* Finds the tests below dir. */
static void
walk(const char *dir, bool units, struct list *found)
{
	struct list names = { 0 };
	struct stat st;

	if (list_dir(&names, dir) < 0)
		bad(dir, "%s", strerror(errno));
	for (size_t i = 0; i < names.n; i++) {
		char *name = names.v[i];
		if (*name == '.' || strstr(" node_modules __pycache__ ", str(" %s ", name)))
			continue;
		char *path = strcmp(dir, ".") ? str("%s/%s", dir, name) : name;
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			walk(path, units, found);
		else if (stat(path, &st) == 0 && S_ISREG(st.st_mode)
		&& is_test(path, name, units))
			list_add(found, path);
	}
	list_free(&names);
}

char *
plan_label(const struct suite *s)
{
	return *s->name ? str("suite %s", shown(s->name)) : "files";
}

/* Adds a copy of f. */
static struct file *
push_file(struct plan *p, struct file f)
{
	p->files = grow(p->files, &p->capfiles, p->nfiles + 1, sizeof(f));
	p->files[p->nfiles] = f;
	return &p->files[p->nfiles++];
}

/* The name of a path, FILE::NODE or FILE:LINE; *test has node or line, too. */
static char *
plain_path(const struct plan *p, const char *given, bool typed, char **test)
{
	const char *node = strstr(given, "::"), *line = strrchr(given, ':');

	if (!node && line && line[1] && !line[1 + strspn(line + 1, "0123456789")]
	&& access(given, F_OK) < 0)
		node = line;
	char *path = str("%.*s", (int)(node ? node - given : (ptrdiff_t)strlen(given)), given);
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		path[--n] = '\0';
	while (starts(path, "./") && path[2])
		path += 2;
	if (typed || *path == '/')
		path = conf_typed(p, path);
	*test = str("%s%s", path, node ? node : "");
	return path;
}

/* Why there is no command for path, and what to do. */
static const char *
how_to_run(const char *path)
{
	return is_script(path) ? "there is no playwright.config.* here, and other runners need "
		"test; see KINDS OF PROJECT in prun(1)"
		: "not executable, and no test command is set";
}

static int
by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The tests at or below a path that something can run, or with split = dir the
 * directories that hold them; says which cannot be. */
static void
find_tests(const struct suite *s, const char *dir, struct list *tests)
{
	bool units = s->o.split == SPLIT_DIR;
	struct list found = { 0 };
	const char *first = NULL;
	struct stat st;
	size_t skipped = 0;

	if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode)) {
		list_add(tests, units ? dirname(str("%s", dir)) : dir);
		return;
	}
	walk(dir, units, &found);
	if (found.n)
		qsort(found.v, found.n, sizeof(*found.v), by_bytes);
	for (size_t i = 0; i < found.n; i++) {
		const char *path = units ? dirname(found.v[i]) : found.v[i];
		if (s->o.test || default_test(path) || access(path, X_OK) == 0)
			list_add(tests, path);
		else if (!skipped++)
			first = str("%s", path);
	}
	/* beside other tests, those of another runner are no surprise */
	if (skipped && !(tests->n && is_script(first)))
		warn("%s is skipped%s: %s", shown(first), skipped > 1 ? str(", and %zu more",
			skipped - 1) : "", how_to_run(first));
	if (!found.n) {
		walk(dir, true, &found);
		if (found.n)
			warn("%s is skipped: set split = dir and test; see KINDS OF PROJECT in "
				"prun(1)", shown(found.v[0]));
	}
	list_free(&found);
}

/* Adds what a path, a glob or FILE::NODE names; how many files, -1: no path. */
static int
add_path(struct plan *p, struct suite *s, const char *given, bool typed)
{
	char *test, *path = plain_path(p, given, typed, &test);
	struct file f = { .suite = s, .timeout_ms = s->o.timeout_ms, .retries = s->o.retries,
		.expect_ms = -1 };
	bool node = strcmp(path, test);
	struct list found = { 0 };
	size_t earlier = p->nfiles;
	struct stat st;
	glob_t g;
	int n = 0;

	if (stat(path, &st) < 0) {
		if (!strpbrk(path, "*?[") || glob(path, 0, NULL, &g) != 0)
			return -1;
		for (size_t i = 0; i < g.gl_pathc; i++)
			n += add_path(p, s, g.gl_pathv[i], false) > 0;
		globfree(&g);
		return n;
	}
	if (node || s->o.split == SPLIT_SUITE)
		list_add(&found, path);
	else
		find_tests(s, path, &found);
	for (; n < (int)found.n; n++) {
		f.path = str("%s", found.v[n]);
		f.test = node ? test : f.path;
		/* what one path finds is there once, but for directories */
		if (s->o.split == SPLIT_DIR)
			earlier = p->nfiles;
		size_t k = 0;
		while (k < earlier && (p->files[k].suite != s
		|| strcmp(p->files[k].test, f.test)))
			k++;
		if (k == earlier && !plan_matches(s->o.exclude.v, f.path))
			push_file(p, f);
	}
	list_free(&found);
	return n;
}

/* Makes the files from first on one with more paths, and finds a command. */
static void
join_paths(struct plan *p, struct suite *s, size_t first)
{
	struct file *f = &p->files[first];
	const char *command = s->o.test;
	struct list found = { 0 };

	for (size_t i = first; i < p->nfiles; i++) {
		if (i > first)
			list_add(&f->more, p->files[i].path);
		if (!s->o.test)
			find_tests(s, p->files[i].path, &found);
	}
	for (size_t k = 0; k < found.n; k++) {
		const char *other = default_test(found.v[k]);
		if (!other || (command && strcmp(command, other)))
			bad(plan_label(s), "split = suite needs test: no one command runs %s",
				shown(found.v[k]));
		command = other;
	}
	if (f->more.n && s->o.test && !strstr(s->o.test, "$@") && !strstr(s->o.test, "$*"))
		bad(plan_label(s), "test must have \"$@\", to get the paths after the first "
			"one");
	if (command)
		s->o.test = str("%s", command);
	else
		warn("%s: no test files found in %s", plan_label(s), shown(f->path));
	p->nfiles = first + (command != NULL);
	list_free(&found);
}

/* Finds a suite's files.  What is not there is an error where it was typed. */
static void
find_files(struct plan *p, struct suite *s, bool typed)
{
	static const char *const usual[] = { "tests", "test", "t", "e2e", "spec", "." };
	size_t i, first = p->nfiles;

	for (i = 0; i < LEN(usual) - 1 && access(usual[i], F_OK) < 0; i++)
		;
	if (!s->o.files.n)
		bad(*s->name ? plan_label(s) : "command line", "no path given%s; try: prun %s",
			p->conf ? ", and files is not set in prun.conf" : "", usual[i]);
	if (s->o.split == SPLIT_DIR && !s->o.test)
		bad(plan_label(s), "split = dir needs test, a command that runs the directory "
			"$PRUN_TEST");
	for (i = 0; i < s->o.files.n; i++) {
		const char *path = shown(s->o.files.v[i]);
		int n = add_path(p, s, s->o.files.v[i], typed);
		if (n < 0 && typed)
			bad(path, "%s", strerror(ENOENT));
		if (n <= 0)
			warn("%s: %s", plan_label(s), n < 0 ? str("%s: %s", path,
				strerror(ENOENT)) : str("no test files found in %s", path));
		p->incomplete = p->incomplete || n <= 0;
		if (typed && p->o.shard && p->nfiles > first
		&& *p->files[p->nfiles - 1].path == '/')
			bad(path, "is outside of %s; a shard's files must be below it",
				p->base);
	}
	if (s->o.split == SPLIT_SUITE && p->nfiles > first)
		join_paths(p, s, first);
	if (s->o.split == SPLIT_SUITE && p->nfiles == first)
		p->incomplete = true;
}

struct target {
	char *path, *test;      /* without and with a node */
	bool hit;
};

/* Adds the part of f that a path selects; false if that is nothing. */
static bool
select_file(struct plan *p, struct file f, const struct target *t, size_t first)
{
	bool there = access(t->path, F_OK) == 0, part = !strcmp(t->path, f.path);

	/* it, a directory above it, or a glob */
	bool whole = !strcmp(t->path, t->test) && (!strcmp(t->path, ".")
		|| conf_below(t->path, f.path) || (!there && !fnmatch(t->path, f.path, 0)));
	for (size_t i = 0; there && f.suite->o.split == SPLIT_SUITE && i <= f.more.n; i++)
		part = part || conf_below(i ? f.more.v[i - 1] : f.path, t->path);
	if (f.suite->o.split == SPLIT_DIR && !strcmp(dirname(str("%s", t->path)), f.path))
		whole = there;          /* a file in it */
	if (!whole && !part)
		return false;
	if (!whole) {
		f.path = t->path;
		f.test = t->test;
		f.more.n = 0;
	}
	while (first < p->nfiles && strcmp(p->files[first].test, f.test))
		first++;
	if (first == p->nfiles)
		push_file(p, f);
	return true;
}

/* Keeps the files that paths select, or nodes of them; each must select one. */
static void
select_paths(struct plan *p)
{
	struct target *t = scratch(p->paths.n * sizeof(*t));
	struct plan all = *p;

	p->files = NULL;
	p->nfiles = p->capfiles = 0;
	for (size_t k = 0; k < p->paths.n; k++)
		t[k].path = plain_path(p, p->paths.v[k], true, &t[k].test);
	for (size_t i = 0; i < all.nfiles; i++) {
		size_t first = p->nfiles;
		for (size_t k = 0; k < p->paths.n; k++)
			t[k].hit |= select_file(p, all.files[i], &t[k], first);
	}
	free(all.files);
	p->incomplete = false;
	for (size_t k = 0; k < p->paths.n; k++) {
		if (t[k].hit)
			continue;
		const char *why = "is not in any suite";
		for (size_t i = 0; i < p->nsuites; i++)
			if (p->suites[i].o.exclude.n)
				why = "is not in any suite, or exclude has all of it";
		if (*t[k].path == '/')
			why = str("is outside of %s, where the suites are", p->base);
		if (access(t[k].path, F_OK) < 0 && !strpbrk(t[k].path, "*?["))
			why = strerror(errno);
		bad(shown(p->paths.v[k]), "%s", why);
	}
}

/* ---- marks and locks ---- */

static void
add_lock(struct plan *p, struct file *f, const char *name)
{
	size_t lock = find_word((const char *const *)p->locks.v, p->locks.n, name);

	if (lock == p->locks.n)
		list_add(&p->locks, name);
	for (size_t i = 0; i < f->nlocks; i++)
		if (f->locks[i] == (int)lock)
			return;
	f->locks = grow(f->locks, &f->caplocks, f->nlocks + 1, sizeof(*f->locks));
	f->locks[f->nlocks++] = (int)lock;
}

/* The marks of a line, if it is a comment that begins with prun:. */
static void
read_comment(struct plan *p, struct file *f, const char *line, int number, bool first)
{
	const char *text = line + strspn(line, " \t#/*-;%!\"'<>(");
	char *where = str("%s:%d", shown(f->path), number);
	struct list marks = { 0 };

	if (text == line || !starts(text, "prun:"))
		return;
	list_words(&marks, text + 5, " \t\r,;*\"'>");
	for (size_t i = 0; i < marks.n; i++) {
		const char *mark = marks.v[i];
		if (!strcmp(mark, "serial"))
			add_lock(p, f, mark);
		else if (!strcmp(mark, "alone"))
			f->alone = true;
		else if (starts(mark, "lock=") && mark[5])
			add_lock(p, f, mark + 5);
		else if (starts(mark, "timeout="))
			f->timeout_ms = conf_number("timeout", mark + 8, where);
		else if (starts(mark, "retries="))
			f->retries = conf_number("retries", mark + 8, where);
		else if (i > 0 && !strchr(mark, '='))
			break;
		else if (first)
			warn("%s: unknown mark \"%s\"; known are serial, alone, lock=NAME, "
				"timeout=DURATION and retries=N", where, shown(mark));
	}
	list_free(&marks);
}

/* The end of Python's token at s: a comment, string, dotted name, character. */
static const char *
token_end(const char *s)
{
	const char *quote = s;
	size_t n = strspn(s, WORD "."), quotes = s[0] == s[1] && s[1] == s[2] ? 3 : 1;

	if (*s == '#')
		return s + strcspn(s, "\n");
	if (*s != '"' && *s != '\'')
		return s + (n ? n : 1);
	for (s += quotes; *s && strncmp(s, quote, quotes); s++) {
		if (quotes == 1 && *s == '\n')
			return s;
		s += *s == '\\' && s[1];
	}
	return *s ? s + quotes : s;
}

/* The function whose decorator ends at s, or NULL where it is a class's. */
static char *
decorated(const char *s)
{
	while ((s = strchr(s, '\n'))) {
		s += 1 + strspn(s + 1, " \t");
		s += starts(s, "async ") ? 6 : 0;
		if (starts(s, "class "))
			return NULL;
		if (starts(s, "def "))
			return str("%.*s", (int)strcspn(s + 4, " ("), s + 4);
	}
	return NULL;
}

/* The name of an xdist_group whose arguments begin at s, or NULL. */
static char *
group_name(const char *s)
{
	s += strspn(s, " \t\r\n(");
	if (starts(s, "name"))
		s += 4 + strspn(s + 4, " \t\r\n=");
	if (*s != '"' && *s != '\'')
		return NULL;
	return str("%.*s", (int)strcspn(s + 1, "\"'\n"), s + 1);
}

/* Finds pytest.mark.NAME and mark.NAME outside of comments and strings.  Of a
 * test's own marks only those of the test that f is, if it is one. */
static void
read_python(struct plan *p, struct file *f, const char *text, bool first)
{
	const char *node = f->test + strlen(f->path), *end;
	const char *own = strrchr(str(":%.*s", (int)strcspn(node, "["), node), ':') + 1;
	bool other = strstr(text, str("def %s(", own)) != NULL;

	for (const char *s = text; *s; s = end) {
		end = token_end(s);
		const char *test = s > text && s[-1] == '@' ? decorated(end) : NULL;
		s += starts(s, "pytest.") ? 7 : 0;
		if (!starts(s, "mark.") || (test && other && strcmp(own, test)))
			continue;
		const char *mark = str(" %.*s ", (int)(end - s - 5), s + 5);
		const char *lock = strstr(" serial parallel_unsafe ", mark) ? "serial" : NULL;
		if (!strcmp(mark, " xdist_group ")) {
			lock = group_name(end);
			if (!lock && first)
				warn("%s: the name of xdist_group is not a string here, so it "
					"is not a lock", shown(f->path));
		}
		size_t n = f->nlocks;
		if (lock)
			add_lock(p, f, lock);
		if (p->o.list && test && f->nlocks > n && f->suite->o.split == SPLIT_FILE
		&& !*node)
			warn("%s: lock %s, a mark of %s, holds for the whole file; with split "
				"= test it holds only for tests that have it", shown(f->path),
				shown(lock), shown(test));
	}
}

/* first: of the tests of its file, of which what is wrong is said. */
static void
read_marks(struct plan *p, struct file *f, bool first)
{
	size_t mark = scratch_mark();
	struct buf text = scratch_buf();
	int fd = open_regular(f->path, O_RDONLY), number = 0;
	char head[4097], *rest = head, *line;
	ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof(head) - 1);

	close_keep(fd);
	head[n < 0 ? 0 : n] = '\0';     /* running it will say why */
	if (n == sizeof(head) - 1 && strrchr(head, '\n'))
		*strrchr(head, '\n') = '\0';   /* the last line is cut */
	while ((line = next_line(&rest)))
		read_comment(p, f, line, ++number, first);
	if (ends(f->path, ".py") && buf_read(&text, f->path) == 0)
		read_python(p, f, text.s, first);
	scratch_release(mark);
}

static void
find_locks(struct plan *p, struct file *f)
{
	const struct opts *o = &f->suite->o;
	struct list words = { 0 };

	if (plan_matches(o->serial.v, f->path))
		add_lock(p, f, "serial");
	f->alone = f->alone || plan_matches(o->alone.v, f->path);
	for (size_t i = 0; i < o->lock.n; i++) {
		list_words(&words, o->lock.v[i], " \t");
		if (words.n && plan_matches(words.v + 1, f->path))
			add_lock(p, f, words.v[0]);
		list_free(&words);
	}
}

/* ---- the tests of files ---- */

/* Whether f is a whole file of the suite, no test of one. */
static bool
is_whole(const struct file *f, const struct suite *s)
{
	return f->suite == s && !strcmp(f->path, f->test);
}

/* The file that a tool's name means, by their longest common end; or nfiles. */
static size_t
find_named(const struct plan *p, const struct suite *s, const char *name)
{
	size_t best = p->nfiles, most = 0, k = strlen(name);

	for (size_t i = 0; i < p->nfiles; i++) {
		const char *path = p->files[i].path;
		size_t n = strlen(path), len = n < k ? n : k;
		const char *end = n > k ? path + n - len : name + k - len;
		if (len > most && is_whole(&p->files[i], s) && !strcmp(end, n > k ? name : path)
		&& (n == k || end[-1] == '/')) {
			most = len;
			best = i;
		}
	}
	return best;
}

/* What collect is to be asked for: the tests of a suite's whole files. */
static void
find_whole(struct plan *p, struct suite *s)
{
	for (size_t i = 0; i < p->nfiles; i++)
		if (is_whole(&p->files[i], s))
			list_add(&s->whole, p->files[i].path);
	if (!s->o.collect && !s->o.test && s->whole.n && ends(s->whole.v[0], ".py"))
		s->o.collect = "exec \"${PYTHON:-python3}\" -m pytest --collect-only "
			"--verbosity=-1 -o cache_dir=/dev/null \"$@\"";
	if (!s->o.collect && s->whole.n)
		bad(plan_label(s), "split = test needs collect, a command that lists tests as "
			"FILE::NODE");
	if (s->whole.n)
		p->asked = p->nfiles;
}

/* Adds the tests that a suite's collect has named to those of each file. */
static void
read_tests(const struct plan *p, const struct suite *s, struct list *tests)
{
	char *line, *last = "";
	struct buf names = scratch_buf();
	size_t k = 0, without = 0;

	if (buf_read(&names, str("%s/collect%d", p->dir, (int)(s - p->suites))) < 0)
		return;         /* it has failed, or was not asked */
	for (char *text = names.s; (line = next_line(&text));) {
		char *node = strstr(line, "::");
		if (!node)
			continue;
		*node = '\0';
		if (strcmp(line, last))
			k = find_named(p, s, line);
		last = line;
		if (k < p->nfiles)
			list_add(&tests[k], str("%s::%s", p->files[k].path, node + 2));
	}
	for (size_t i = 0; i < p->nfiles; i++)
		without += is_whole(&p->files[i], s) && !tests[i].n;
	if (without)
		warn("%s: collect named no tests of %zu file%s, which run whole", plan_label(s),
			without, without == 1 ? "" : "s");
}

void
plan_collect(struct plan *p)
{
	struct list *tests = scratch(p->asked * sizeof(*tests));

	p->nfiles = p->asked;
	for (size_t i = 0; i < p->nsuites; i++) {
		read_tests(p, &p->suites[i], tests);
		list_free(&p->suites[i].whole);
	}
	struct plan all = *p;
	p->files = NULL;
	p->nfiles = p->capfiles = 0;
	for (size_t i = 0; i < all.nfiles; i++) {
		if (!tests[i].n)
			push_file(p, all.files[i]);
		for (size_t k = 0; k < tests[i].n; k++)
			push_file(p, all.files[i])->test = str("%s", tests[i].v[k]);
		list_free(&tests[i]);
	}
	free(all.files);
	p->asked = 0;
}

/* ---- the history, and the order that it makes ---- */

char *
plan_history_line(int64_t ms, enum result result, const char *suite, const char *test)
{
	return str("%.3f %s %s %s", (double)ms / 1000, result_name[result],
		suite && *suite ? shown(suite) : "-", shown(test));
}

/* What a line is about, its suite and path: what follows seconds and result. */
static const char *
subject(const char *line)
{
	line += strcspn(line, " ");
	line += *line == ' ';
	return line + strcspn(line, " ");
}

static int
by_subject(const void *a, const void *b)
{
	uint32_t s = hash(HASH_BEGIN, subject(a)), t = hash(HASH_BEGIN, subject(b));

	/* The lines come sorted, and not every tsearch() balances its tree. */
	return s != t ? (s > t) - (s < t) : strcmp(subject(a), subject(b));
}

/* All lines, or "". */
static char *
read_history(const struct plan *p)
{
	struct buf text = scratch_buf();

	if (p->o.history)
		buf_read(&text, p->o.history);
	return text.s;
}

struct turn {
	int64_t ms;
	int file;
};

/* Longest first, then in plan order. */
static int
by_turn(const void *a, const void *b)
{
	const struct turn *s = a, *t = b;

	if (s->ms != t->ms)
		return s->ms > t->ms ? -1 : 1;
	return s->file < t->file ? -1 : s->file > t->file;
}

/* What the history knows; with --last-failed, keeps what did not pass. */
static void
use_history(struct plan *p)
{
	static void *lines;     /* a tree */
	struct turn *t = scratch(p->nfiles * sizeof(*t));
	size_t n = 0, known = 0;
	char *line;

	for (char *text = read_history(p); (line = next_line(&text));)
		tsearch(line, &lines, by_subject);
	for (size_t i = 0; i < p->nfiles; i++) {
		struct file *f = &p->files[i];
		line = plan_history_line(0, PASS, f->suite->name, f->test);
		char **old = tfind(line, &lines, by_subject), result[8] = "PASS";
		if (old) {
			sscanf(*old, "%*s %7s", result);
			f->expect_ms = (int64_t)(strtod(*old, NULL) * 1000 + 0.5);
			t[known++].ms = f->expect_ms;
		}
		/* with -n the tests of a file are not known */
		if (!p->o.last_failed || find_word(result_name, RESULTS, result) > NONE
		|| (p->o.list && f->suite->o.split == SPLIT_TEST))
			p->files[n++] = *f;
	}
	p->nfiles = n;
	if (p->o.last_failed && !p->o.history)
		bad("--last-failed", "there is no history; set junit or history, and run once");
	if (p->o.last_failed && !n)
		warn("--last-failed: %s", lines ? "the history has no file that did not pass"
			: str("%s has no results yet; run once without --last-failed",
			shown(p->o.history)));
	p->incomplete = p->incomplete || !n;
	qsort(t, known, sizeof(*t), by_turn);
	p->median_ms = known ? t[(known - 1) / 2].ms : 0;
}

void
plan_history_write(const struct plan *p, const struct list *fresh)
{
	static void *lines;     /* the fresh ones, as a tree */
	char *path = p->o.history, *line;
	struct buf b = scratch_buf();

	for (size_t i = 0; i < fresh->n; i++) {
		tsearch(fresh->v[i], &lines, by_subject);
		buf_fmt(&b, "%s\n", fresh->v[i]);
	}
	for (char *text = read_history(p); (line = next_line(&text));)
		if (!tfind(line, &lines, by_subject))
			buf_fmt(&b, "%s\n", line);
	if (path && b.n && file_write(path, b.s, b.n, 0666) < 0)
		warn("%s:", path);
}

/* ---- order and shards ---- */

/* Longest first, what is unknown counts as the median; or shuffled by seed. */
static struct turn *
turns(const struct plan *p, const char *seed)
{
	struct turn *t = scratch(p->nfiles * sizeof(*t));

	for (size_t i = 0; i < p->nfiles; i++) {
		const struct file *f = &p->files[i];
		t[i].ms = f->expect_ms < 0 ? p->median_ms : f->expect_ms;
		if (t[i].ms <= 0)
			t[i].ms = 1;    /* else files without a history were no load */
		if (seed)
			/* its end spreads the names' last bits */
			t[i].ms = hash(HASH_BEGIN, str("%s%s%s-shuffled", f->suite->name,
				f->test, seed));
		t[i].file = (int)i;
	}
	qsort(t, p->nfiles, sizeof(*t), by_turn);
	return t;
}

int *
plan_order(const struct plan *p, const char *seed)
{
	struct turn *t = turns(p, seed);
	int *v = scratch(p->nfiles * sizeof(*v));
	size_t n = 0, rounds = p->workers == 1 && !seed ? p->nsuites : 1;

	for (size_t k = 0; k < rounds; k++)
		for (size_t i = 0; i < p->nfiles; i++)
			if (rounds == 1 || p->files[t[i].file].suite == &p->suites[k])
				v[n++] = t[i].file;
	return v;
}

/* Deals the files to the shard with the least to do, longest first; keeps ours,
 * or ends prun if all this is not what --plan says. */
static void
deal(struct plan *p)
{
	int *shard = scratch(p->nfiles * sizeof(*shard));
	int64_t *load = scratch((size_t)p->shards * sizeof(*load));
	struct turn *t = turns(p, NULL);
	size_t n = 0;

	for (size_t i = 0; i < p->nfiles; i++) {
		int least = 0;
		for (int s = 1; s < p->shards; s++)
			least = load[s] < load[least] ? s : least;
		shard[t[i].file] = least;
		load[least] += t[i].ms;
	}
	p->hash = HASH_BEGIN;
	for (size_t i = 0; i < p->nfiles; i++) {
		p->hash = hash(p->hash, str("%s/%s\n%d\n", p->files[i].suite->name,
			p->files[i].test, shard[i]));
		if (shard[i] == p->shard - 1)
			p->files[n++] = p->files[i];
	}
	if (p->o.plan && strcmp(p->o.plan, str("%08" PRIx32, p->hash)))
		bad("--plan", "is %s, but here it is %08" PRIx32 ": other files, another "
			"history or number of shards than where it was made", p->o.plan,
			p->hash);
	p->all = p->nfiles;
	p->nfiles = n;
}

/* ---- the plan ---- */

static void
choose_suites(struct plan *p)
{
	size_t i, n = 0;

	for (size_t k = 0; k < p->o.suite.n; k++) {
		for (i = 0; i < p->nsuites && strcmp(p->suites[i].name, p->o.suite.v[k]); i++)
			;
		if (i == p->nsuites)
			bad("-s", "unknown suite \"%s\"", p->o.suite.v[k]);
	}
	for (i = 0; i < p->nsuites; i++) {
		struct suite s = p->suites[i];
		size_t k = find_word((const char *const *)p->o.suite.v, p->o.suite.n, s.name);
		if (!s.o.enabled || (p->o.suite.n && k == p->o.suite.n))
			continue;
		p->suites[i] = p->suites[n];
		p->suites[n++] = s;
	}
	p->nsuites = n;
}

void
plan_find(struct plan *p)
{
	bool typed = p->paths.n && !(p->nsuites && p->suites->where);

	conf_shard(p);
	choose_suites(p);
	if (p->o.clean)
		return;
	if (typed && p->nsuites) {
		list_free(&p->suites->o.files);
		p->suites->o.files = p->paths;
	}
	for (size_t i = 0; i < p->nsuites; i++)
		find_files(p, &p->suites[i], typed);
	if (p->paths.n && !typed)
		select_paths(p);
	if (!p->nfiles && !p->incomplete)       /* else that is said already */
		warn("no test files found");
	for (size_t i = 0; i < p->nsuites && !p->o.reopen; i++)
		if (p->suites[i].o.split == SPLIT_TEST)
			find_whole(p, &p->suites[i]);
}

/* Puts the files into the plan as often as repeat says, the last one first. */
static void
repeat(struct plan *p)
{
	size_t times = (size_t)p->o.repeat;

	p->nfiles *= times;
	p->files = grow(p->files, &p->capfiles, p->nfiles, sizeof(*p->files));
	for (size_t i = p->nfiles; i--;) {
		struct file *f = &p->files[i];
		*f = p->files[i / times];
		f->index = (int)i;
		f->copy = times > 1 ? (int)(i % times) + 1 : 0;
		f->retries = f->copy ? 0 : f->retries;
	}
}

void
plan_make(struct plan *p)
{
	struct buf text = scratch_buf();
	bool scripts = false;

	if (p->o.clean)
		return;
	use_history(p);
	deal(p);
	for (size_t i = 0; i < p->nfiles; i++) {
		struct file *f = &p->files[i];
		f->named = conf_named(p, f->test);
		if (f->suite->o.split == SPLIT_FILE || f->suite->o.split == SPLIT_TEST)
			read_marks(p, f, i == 0 || strcmp(f[-1].path, f->path));
		find_locks(p, f);
		scripts = scripts || (f->suite->o.server && is_script(f->path));
		f->suite->pytest = f->suite->pytest || plan_command(f) == pytest;
		if (!plan_command(f) && access(f->path, X_OK) < 0)
			bad(shown(f->path), "no command to run it: %s", how_to_run(f->path));
	}
	const char *config = scripts ? playwright_config() : NULL;
	if (config && buf_read(&text, config) == 0 && !strstr(text.s, "process.env.")
	&& (strstr(text.s, "webServer") || strstr(text.s, "baseURL")))
		warn("%s has a webServer or baseURL without PRUN_URL, so tests may use "
			"another server than prun's; see KINDS OF PROJECT in prun(1)", config);
	repeat(p);
}
