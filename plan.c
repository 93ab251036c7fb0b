/*
 * plan.c: what is to be run, and in which order.
 *
 * The suites that were chosen are searched for files; paths on the command line
 * select among them.  Each file's marks are read, then what the history knows of
 * it.  With shards all files are dealt out, the same on every machine, before the
 * others' are dropped; the plan's hash has each file's shard, so that reports of
 * one plan can be told from those of another.
 *
 * The history is a text file, a line for each file: seconds, result, suite, path.
 */
#include "prun.h"
#include <ctype.h>
#include <dirent.h>
#include <fnmatch.h>
#include <glob.h>

/* ---- an attempt's names, and its command ---- */

char *
plan_dir(const struct plan *p, const struct file *f, int attempt)
{
	const char *base = strrchr(f->path, '/');
	char *dir, *s;

	if (f->dir)
		dir = str("%s/%s", p->dir, f->dir);
	else
		dir = str("%s/%d-%.100s", p->dir, f->index, base ? base + 1 : f->path);
	for (s = dir + strlen(p->dir) + 1; *s; s++)
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f
		|| strchr("/\\\"'`$:*?", *s))
			*s = '_';
	return attempt < 2 ? dir : str("%s-%d", dir, attempt);
}

char *
plan_clone(const struct plan *p, const struct file *f, int attempt)
{
	return f->suite->o.db ? url_clone_name(f->suite->o.db, f->index, p->id, attempt) : NULL;
}

/* The default command of a kind of file, or NULL. */
static const char *
default_test(const char *path)
{
	if (ends(path, ".py"))
		return "\"${PYTHON:-python3}\" -m pytest \"$PRUN_TEST\" "
			"--junitxml=\"$PRUN_JUNIT\" \"$@\"";
	if (ends(path, ".bats"))
		return "bats --tap \"$PRUN_TEST\" \"$@\"";
	if (ends(path, ".js") || ends(path, ".ts"))
		return "PLAYWRIGHT_JUNIT_OUTPUT_NAME=\"$PRUN_JUNIT\" npx playwright test "
			"\"$PRUN_TEST\" --reporter=junit --output=\"$PRUN_DIR/test-results\" \"$@\"";
	return NULL;
}

char *
plan_command(const struct file *f, bool *program)
{
	const char *test = f->suite->o.test ? f->suite->o.test : default_test(f->path);

	*program = !test;
	if (test)
		return str("%s", test);
	if (access(f->path, X_OK) == 0)
		return str("%s%s", strchr(f->path, '/') ? "" : "./", f->path);
	return NULL;
}

/* ---- finding files ---- */

static bool
is_test(const char *dir, const char *name)
{
	static const char *const globs[] = { "test_*.py", "*_test.py", "*.bats", "*.t",
		"test_*.sh", "*_test.sh", "test-*.sh" };
	static const char *const playwright[] = { "*.spec.[jt]s", "*.test.[jt]s" };
	static int have_playwright = -1;
	char *path;
	glob_t g;
	size_t i;
	bool is;

	for (i = 0; i < LEN(globs); i++)
		if (fnmatch(globs[i], name, 0) == 0)
			return true;
	for (i = 0; i < LEN(playwright); i++) {
		if (fnmatch(playwright[i], name, 0) != 0)
			continue;
		if (have_playwright < 0) {
			have_playwright = glob("playwright.config.*", 0, NULL, &g) == 0;
			if (have_playwright)
				globfree(&g);
		}
		return have_playwright;
	}
	if (strncmp(name, "test_", 5) && strncmp(name, "test-", 5))
		return false;
	path = str("%s/%s", dir, name);
	is = access(path, X_OK) == 0;
	return is;
}

static void
walk(const char *dir, struct list *found)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	struct stat st;
	char *path;

	if (!d)
		bad(dir, "%s", strerror(errno));
	while ((e = readdir(d))) {
		if (*e->d_name == '.' || !strcmp(e->d_name, "node_modules")
		|| !strcmp(e->d_name, "__pycache__"))
			continue;
		path = strcmp(dir, ".") ? str("%s/%s", dir, e->d_name) : str("%s", e->d_name);
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			walk(path, found);
		else if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && is_test(dir, e->d_name))
			list_add(found, path);
	}
	closedir(d);
}

static int
by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void
add_file(struct plan *p, struct suite *s, const char *path, const char *test)
{
	struct file *f;
	size_t i;

	for (i = 0; i < s->o.exclude.n; i++)
		if (fnmatch(s->o.exclude.v[i], path, 0) == 0)
			return;
	p->files = grow(p->files, &p->capfiles, p->nfiles + 1, sizeof(*p->files));
	f = &p->files[p->nfiles];
	memset(f, 0, sizeof(*f));
	f->path = str("%s", path);
	f->test = str("%s", test);
	f->suite = s;
	f->index = (int)p->nfiles++;
	f->timeout_ms = s->o.timeout_ms;
	f->retries = s->o.retries;
	f->expect_ms = -1;
}

/* Adds what a path, a glob or FILE::NODE names; false if it is nothing. */
static bool
add_path(struct plan *p, struct suite *s, const char *given)
{
	const char *node = strstr(given, "::");
	char *path = str("%.*s", node ? (int)(node - given) : (int)strlen(given), given), *start;
	struct list found = { 0 };
	struct stat st;
	glob_t g;
	size_t i, n = strlen(path);
	bool is;

	while (n > 1 && path[n - 1] == '/')
		path[--n] = '\0';
	for (start = path; !strncmp(start, "./", 2) && start[2];)
		start += 2;
	is = stat(start, &st) == 0;
	if (is && s->o.split == SPLIT_SUITE) {
		add_file(p, s, start, given);
	} else if (is && S_ISDIR(st.st_mode)) {
		walk(start, &found);
		if (found.n)
			qsort(found.v, found.n, sizeof(*found.v), by_bytes);
		for (i = 0; i < found.n; i++)
			add_file(p, s, found.v[i], found.v[i]);
	} else if (is) {
		add_file(p, s, start, node ? given + (start - path) : start);
	} else if (strpbrk(start, "*?[") && glob(start, 0, NULL, &g) == 0) {
		for (i = 0; i < g.gl_pathc; i++)
			add_path(p, s, g.gl_pathv[i]);
		globfree(&g);
		is = true;
	}
	list_free(&found);
	return is;
}

/* Whether path is f or a directory above it, or a glob that matches it. */
static bool
covers(const char *path, const struct file *f)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	return (!strncmp(path, f->path, n) && (f->path[n] == '\0' || f->path[n] == '/'))
		|| (n == 1 && *path == '.') || fnmatch(path, f->path, 0) == 0;
}

/* Keeps only the files that paths select, or nodes of them; each must select one. */
static void
select_paths(struct plan *p)
{
	struct file *all = p->files, f;
	size_t i, k, n = p->nfiles;
	char *path, *node, *hit = xmalloc(p->paths.n + 1);

	memset(hit, 0, p->paths.n + 1);
	p->files = NULL;
	p->nfiles = p->capfiles = 0;
	for (i = 0; i < n; i++)
		for (k = 0; k < p->paths.n; k++) {
			f = all[i];
			path = p->paths.v[k];
			while (starts(path, "./") && path[2])
				path += 2;
			node = strstr(path, "::");
			if (node) {
				f.test = path;
				path = str("%.*s", (int)(node - path), path);
			}
			if (node ? strcmp(path, f.path) != 0 : !covers(path, &f))
				continue;
			hit[k] = 1;
			p->files = grow(p->files, &p->capfiles, p->nfiles + 1, sizeof(f));
			p->files[p->nfiles++] = f;
		}
	free(all);
	for (k = 0; k < p->paths.n; k++)
		if (!hit[k])
			bad(p->paths.v[k], access(p->paths.v[k], F_OK) == 0
				|| strstr(p->paths.v[k], "::") ? "is in no suite" : "%s",
				strerror(ENOENT));
	free(hit);
}

/* Takes out what stands in a suite twice; the first one stays. */
static int
by_place(const void *a, const void *b)
{
	const struct file *f = *(struct file *const *)a, *g = *(struct file *const *)b;
	int by = f->suite == g->suite ? strcmp(f->test, g->test) : f->suite < g->suite ? -1 : 1;

	return by ? by : f->index - g->index;
}

static void
remove_twins(struct plan *p)
{
	struct file **sorted = xmalloc((p->nfiles + 1) * sizeof(*sorted));
	size_t i, n = 0;

	for (i = 0; i < p->nfiles; i++) {
		p->files[i].index = (int)i;
		sorted[i] = &p->files[i];
	}
	qsort(sorted, p->nfiles, sizeof(*sorted), by_place);
	for (i = 1; i < p->nfiles; i++)
		if (sorted[i]->suite == sorted[i - 1]->suite
		&& !strcmp(sorted[i]->test, sorted[i - 1]->test))
			sorted[i]->index = -1;
	free(sorted);
	for (i = 0; i < p->nfiles; i++)
		if (p->files[i].index >= 0) {
			p->files[n] = p->files[i];
			p->files[n].index = (int)n;
			n++;
		}
	p->nfiles = n;
}

/* ---- marks and locks ---- */

static void
add_lock(struct plan *p, struct file *f, const char *name, size_t n)
{
	char *lock = str("%.*s", (int)n, name);
	size_t i, k;

	for (i = 0; i < p->locks.n && strcmp(p->locks.v[i], lock); i++)
		;
	if (i == p->locks.n)
		list_add(&p->locks, lock);
	for (k = 0; k < f->nlocks; k++)
		if (f->locks[k] == (int)i)
			return;
	f->locks = grow(f->locks, &f->caplocks, f->nlocks + 1, sizeof(*f->locks));
	f->locks[f->nlocks++] = (int)i;
}

/* One mark, what stands behind "prun:". */
static void
read_mark(struct plan *p, struct file *f, const char *mark)
{
	size_t n = strcspn(mark, " \t\r\n*");
	char *word = str("%.*s", (int)n, mark);

	if (!strcmp(word, "serial"))
		add_lock(p, f, "serial", 6);
	else if (!strcmp(word, "alone"))
		f->alone = true;
	else if (starts(word, "lock=") && word[5])
		add_lock(p, f, word + 5, n - 5);
	else if (starts(word, "timeout="))
		f->timeout_ms = conf_number("timeout", word + 8, f->path);
	else if (starts(word, "retries="))
		f->retries = conf_number("retries", word + 8, f->path);
}

static void
read_marks(struct plan *p, struct file *f)
{
	struct buf text = { 0 };
	char *line, *hit;
	size_t n = strlen(f->path);
	bool py = n > 3 && !strcmp(f->path + n - 3, ".py");
	FILE *in = fopen(f->path, "r");
	char head[4097];

	if (!in)
		return;         /* running it will say why */
	n = fread(head, 1, sizeof(head) - 1, in);
	head[n] = '\0';
	fclose(in);
	for (line = head; line; line = strchr(line, '\n'), line += line != NULL) {
		hit = line + strspn(line, " \t#/*-;%!\"'<>(");
		if (hit > line && !strncmp(hit, "prun:", 5)) {
			hit += 5 + strspn(hit + 5, " ");
			read_mark(p, f, hit);
		}
	}
	if (py && buf_read(&text, f->path) == 0)
		for (line = text.s; line; line = strchr(line, '\n'), line += line != NULL) {
			hit = strstr(line, "pytest.mark.");
			if (!hit)
				break;
			while ((line = strchr(line, '\n')) && line < hit)
				line++;
			for (line = hit; line > text.s && line[-1] != '\n'; line--)
				;
			if (line[strspn(line, " \t")] != '#' && (!strncmp(hit + 12, "serial", 6)
			|| !strncmp(hit + 12, "parallel_unsafe", 15)))
				add_lock(p, f, "serial", 6);
			line = hit;
		}
	buf_free(&text);
}

static bool
matches(const struct list *globs, const char *path)
{
	size_t i;

	for (i = 0; i < globs->n; i++)
		if (fnmatch(globs->v[i], path, 0) == 0)
			return true;
	return false;
}

static void
find_locks(struct plan *p, struct file *f)
{
	const struct opts *o = &f->suite->o;
	char *text, *name, *glob_word;
	size_t i;

	if (matches(&o->serial, f->path))
		add_lock(p, f, "serial", 6);
	f->alone = f->alone || matches(&o->alone, f->path);
	for (i = 0; i < o->lock.n; i++) {
		text = str("%s", o->lock.v[i]);
		name = strtok(text, " \t");
		while ((glob_word = strtok(NULL, " \t")))
			if (fnmatch(glob_word, f->path, 0) == 0)
				add_lock(p, f, name, strlen(name));
	}
}

/* ---- the history ---- */

static char *
history_path(const struct plan *p)
{
	if (p->o.history)
		return str("%s", p->o.history);
	return p->o.junit && strcmp(p->o.junit, "-") && !is_special(p->o.junit)
		? str("%s.history", p->o.junit) : NULL;
}

/* One line: seconds, result, suite, path; the last may hold blanks. */
static void
history_line(struct buf *b, int64_t ms, const char *result, const struct file *f)
{
	buf_fmt(b, "%.3f %s ", (double)ms / 1000, result);
	buf_safe(b, *f->suite->name ? f->suite->name : "-", *f->suite->name
		? strlen(f->suite->name) : 1);
	buf_char(b, ' ');
	buf_safe(b, f->test, strlen(f->test));
}

static int
by_line(const void *a, const void *b)
{
	const char *s = *(char *const *)a, *t = *(char *const *)b;

	/* by what stands behind seconds and result */
	s += strcspn(s, " ");
	t += strcspn(t, " ");
	s += strcspn(s + (*s != 0), " ") + (*s != 0);
	t += strcspn(t + (*t != 0), " ") + (*t != 0);
	return strcmp(s, t);
}

static void
read_history(const struct plan *p, struct list *lines)
{
	char *path = history_path(p), *s, *end;
	struct buf text = { 0 };

	if (path && buf_read(&text, path) == 0)
		for (s = strtok(text.s, "\n"); s; s = strtok(NULL, "\n")) {
			strtod(s, &end);
			if (end > s && *end == ' ' && strchr(end + 1, ' '))
				list_add(lines, s);
		}
	if (lines->n)
		qsort(lines->v, lines->n, sizeof(*lines->v), by_line);
	buf_free(&text);
}

static char **
find_line(const struct list *lines, const char *like)
{
	return lines->n ? bsearch(&like, lines->v, lines->n, sizeof(*lines->v), by_line) : NULL;
}

static int
by_ms(const void *a, const void *b)
{
	int64_t s = *(const int64_t *)a, t = *(const int64_t *)b;

	return s < t ? -1 : s > t;
}

static void
use_history(struct plan *p)
{
	struct list lines = { 0 };
	struct buf key = { 0 };
	char **hit, *result;
	size_t i, n = 0, known = 0;
	struct file *f;
	int64_t *ms = xmalloc((p->nfiles + 1) * sizeof(*ms));

	read_history(p, &lines);
	for (i = 0; i < p->nfiles; i++) {
		f = &p->files[i];
		key.n = 0;
		history_line(&key, 0, "PASS", f);
		hit = find_line(&lines, key.s);
		if (hit)
			ms[known++] = f->expect_ms = (int64_t)(strtod(*hit, NULL) * 1000 + 0.5);
		result = hit ? strchr(*hit, ' ') : NULL;
		if (p->o.last_failed && (!result || starts(result, " PASS ")
		|| starts(result, " FLAKY ") || starts(result, " SKIP ")
		|| starts(result, " NONE ")))
			continue;
		p->files[n++] = *f;
	}
	p->nfiles = n;
	qsort(ms, known, sizeof(*ms), by_ms);
	p->median_ms = known ? ms[known / 2] : 0;
	free(ms);
	list_free(&lines);
	buf_free(&key);
}

int
plan_history_write(const struct plan *p, const struct record *records)
{
	char *path = history_path(p);
	struct list lines = { 0 };
	struct buf b = { 0 }, all = { 0 };
	const struct outcome *o;
	char **hit, *replaced;
	size_t i;
	int r = 0;

	if (!path)
		return 0;
	read_history(p, &lines);
	replaced = xmalloc(lines.n + 1);
	memset(replaced, 0, lines.n + 1);
	for (i = 0; i < p->nfiles; i++) {
		o = &records[i].o;
		if (!records[i].ended || o->result == CANCEL)
			continue;
		b.n = 0;
		history_line(&b, o->ms, result_name[o->result], &p->files[i]);
		hit = find_line(&lines, b.s);
		/* all of its lines: a merge of two branches may have brought more than one */
		while (hit && hit > lines.v && !by_line(hit - 1, hit))
			hit--;
		for (; hit && hit < lines.v + lines.n && !by_line(hit, &b.s); hit++)
			replaced[hit - lines.v] = 1;
		buf_fmt(&all, "%s\n", b.s);
	}
	for (i = 0; i < lines.n; i++)
		if (!replaced[i])
			buf_fmt(&all, "%s\n", lines.v[i]);
	if (all.n)
		r = file_write(path, all.s, all.n, 0666);
	if (r < 0)
		warn("%s:", path);
	list_free(&lines);
	free(replaced);
	buf_free(&b);
	buf_free(&all);
	return r;
}

/* ---- order and shards ---- */

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

static int64_t
expected(const struct plan *p, size_t file)
{
	int64_t ms = p->files[file].expect_ms < 0 ? p->median_ms : p->files[file].expect_ms;

	return ms > 0 ? ms : 1;         /* else files without a history were no load */
}

/* Files longest first; with one worker suite by suite. */
static struct turn *
turns(const struct plan *p, bool by_suite)
{
	struct turn *t = xmalloc((p->nfiles + 1) * sizeof(*t));
	size_t i;

	for (i = 0; i < p->nfiles; i++) {
		t[i].file = (int)i;
		t[i].suite = by_suite ? (int)(p->files[i].suite - p->suites) : 0;
		t[i].ms = expected(p, i);
	}
	qsort(t, p->nfiles, sizeof(*t), by_turn);
	return t;
}

int *
plan_order(const struct plan *p, const char *seed)
{
	struct turn *t = turns(p, p->workers == 1);
	int *v = xmalloc((p->nfiles + 1) * sizeof(*v)), swap;
	uint64_t x = seed ? hash(HASH_BEGIN, seed) : 0;
	size_t i, k;

	for (i = 0; i < p->nfiles; i++)
		v[i] = t[i].file;
	for (i = p->nfiles; seed && i > 1; i--) {
		/* xorshift: any order will do, the same for the same seed */
		x = x ? x : 1;
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		k = x % i;
		swap = v[i - 1];
		v[i - 1] = v[k];
		v[k] = swap;
	}
	free(t);
	return v;
}

/* Moves a file out of the fullest shard, or swaps it for a shorter one, where that
 * evens it out; false when nothing does. */
static bool
even_out(const struct plan *p, int *shard, int64_t *load)
{
	size_t i, k, best_i = 0, best_k = 0;
	int64_t now, d, best;
	int full = 0, s;

	for (s = 1; s < p->shards; s++)
		full = load[s] > load[full] ? s : full;
	best = load[full];
	for (i = 0; i < p->nfiles; i++)
		for (k = 0; shard[i] == full && k < p->nfiles + (size_t)p->shards; k++) {
			s = k < p->nfiles ? shard[k] : (int)(k - p->nfiles);
			d = expected(p, i) - (k < p->nfiles ? expected(p, k) : 0);
			now = load[s] + d > load[full] - d ? load[s] + d : load[full] - d;
			if (s != full && d > 0 && now < best) {
				best = now;
				best_i = i;
				best_k = k;
			}
		}
	if (best == load[full])
		return false;
	s = best_k < p->nfiles ? shard[best_k] : (int)(best_k - p->nfiles);
	d = expected(p, best_i) - (best_k < p->nfiles ? expected(p, best_k) : 0);
	load[full] -= d;
	load[s] += d;
	shard[best_i] = s;
	if (best_k < p->nfiles)
		shard[best_k] = full;
	return true;
}

/* Deals the files out, longest first, each to the shard with the least to do; keeps
 * ours.  Few files are then evened out, many are even. */
static void
deal(struct plan *p)
{
	int *shard = xmalloc((p->nfiles + 1) * sizeof(*shard)), s, least;
	int64_t *load = calloc((size_t)p->shards, sizeof(*load));
	struct turn *t = turns(p, false);
	size_t i, n = 0;

	if (!load)
		fatal(EXIT_RUN, "out of memory");
	for (i = 0; i < p->nfiles; i++) {
		for (least = 0, s = 1; s < p->shards; s++)
			least = load[s] < load[least] ? s : least;
		shard[t[i].file] = least;
		load[least] += t[i].ms;
	}
	for (i = 0; p->shards > 1 && p->nfiles <= 500 && i < p->nfiles && even_out(p, shard, load); i++)
		;
	p->all = p->nfiles;
	p->hash = HASH_BEGIN;
	for (i = 0; i < p->nfiles; i++) {
		size_t mark = scratch_mark();

		p->hash = hash(p->hash, str("%s/%s\n%d\n", p->files[i].suite->name,
			p->files[i].test, shard[i]));
		scratch_release(mark);
		if (shard[i] == p->shard - 1) {
			p->files[n] = p->files[i];
			p->files[n].index = (int)n;
			n++;
		}
	}
	p->nfiles = n;
	free(shard);
	free(load);
	free(t);
}

/* Which machine of how many this is, by what CI and schedulers tell theirs. */
static const struct {
	const char *index, *total, *first, *step;       /* first: a number or a variable */
} machines[] = {
	{ "TEST_SHARD_INDEX", "TEST_TOTAL_SHARDS", "0", NULL },
	{ "CI_NODE_INDEX", "CI_NODE_TOTAL", "1", NULL },
	{ "CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", "0", NULL },
	{ "BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", "0", NULL },
	{ "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN",
		"SLURM_ARRAY_TASK_STEP" },
	{ "JOB_COMPLETION_INDEX", "PRUN_SHARDS", "0", NULL },
};

static bool
whole(const char *s, int64_t *n)
{
	char *end;

	if (!s || !isdigit((unsigned char)*s))
		return false;
	errno = 0;
	*n = strtoll(s, &end, 10);
	return !*end && !errno && *n <= INT_MAX;
}

static void
read_shard(struct plan *p)
{
	const char *given = p->o.shard, *slash = given ? strchr(given, '/') : NULL, *first, *status;
	int64_t i = 1, n = 1, from, step = 1;
	size_t k;

	if (given && !strcmp(given, "auto")) {
		for (k = 0; k < LEN(machines); k++) {
			first = machines[k].first;
			if (whole(getenv(machines[k].index), &i) && whole(getenv(machines[k].total), &n)
			&& whole(strchr("01", *first) ? first : getenv(first), &from)
			&& (!machines[k].step || whole(getenv(machines[k].step), &step)))
				break;
		}
		if (k == LEN(machines))
			bad("--shard", "auto finds no shard in the environment, see prun(1)");
		i = step ? (i - from) / step + 1 : 0;
		given = str("auto (%s=%s, %s=%s)", machines[k].index, getenv(machines[k].index),
			machines[k].total, getenv(machines[k].total));
		status = getenv("TEST_SHARD_STATUS_FILE");
		if (k == 0 && status && file_write(status, "", 0, 0666) < 0)
			warn("TEST_SHARD_STATUS_FILE: %s:", status);
	} else if (given && !(slash && whole(slash + 1, &n)
	&& whole(str("%.*s", (int)(slash - given), given), &i))) {
		i = 0;
	}
	if (i < 1 || i > n)
		bad("--shard", "wants I/N with I from 1 to N, or auto; not \"%s\"", given);
	p->shard = (int)i;
	p->shards = (int)n;
}

/* ---- the plan ---- */

static void
choose_suites(struct plan *p)
{
	size_t i, k, n = 0;

	for (k = 0; k < p->o.suite.n; k++) {
		for (i = 0; i < p->nsuites && strcmp(p->suites[i].name, p->o.suite.v[k]); i++)
			;
		if (i == p->nsuites)
			bad("-s", "there is no suite \"%s\"", p->o.suite.v[k]);
		p->suites[i].chosen = true;
	}
	for (i = 0; i < p->nsuites; i++)
		if (p->suites[i].o.enabled && (p->suites[i].chosen || !p->o.suite.n)) {
			struct suite s = p->suites[n];

			p->suites[n++] = p->suites[i];
			p->suites[i] = s;
		}
	p->nsuites = n;
}

void
plan_make(struct plan *p)
{
	bool in_suites = p->nsuites && p->suites[0].where;
	struct suite *s;
	size_t i, k;
	bool program;

	read_shard(p);
	choose_suites(p);
	if (p->o.clean)
		return;
	for (i = 0; i < p->nsuites; i++) {
		s = &p->suites[i];
		if (!in_suites && p->paths.n) {
			list_free(&s->o.files);
			s->o.files = p->paths;
		}
		if (!s->o.files.n)
			bad(*s->name ? s->name : "command line", "no path is given, and no files = "
				"in prun.conf");
		for (k = 0; k < s->o.files.n && (k == 0 || s->o.split == SPLIT_FILE); k++)
			if (!add_path(p, s, s->o.files.v[k]))
				bad(s->o.files.v[k], "%s", strerror(ENOENT));
	}
	if (in_suites && p->paths.n)
		select_paths(p);
	remove_twins(p);
	use_history(p);
	deal(p);
	for (i = 0; i < p->nfiles; i++) {
		p->files[i].index = (int)i;
		if (p->files[i].suite->o.split == SPLIT_FILE)
			read_marks(p, &p->files[i]);
		find_locks(p, &p->files[i]);
		if (!plan_command(&p->files[i], &program))
			bad(p->files[i].path, "nothing says how to run it: make it executable, or "
				"set test = in prun.conf");
	}
}

/* ---- what an audit found ---- */

static bool
failed(const struct outcome *o)
{
	return o->attempt && o->result >= FAIL && o->result < CANCEL;
}

/* In how many rounds the file failed in company. */
static int
failures(const struct plan *p, const struct record *f)
{
	int k, n = 0;

	for (k = 1; k <= p->o.audit; k++)
		n += failed(&f->rounds[k]);
	return n;
}

static bool
beside(const struct outcome *a, const struct outcome *b)
{
	return a->attempt && b->attempt && a->begin < b->begin + (b->ms ? b->ms : 1)
		&& b->begin < a->begin + (a->ms ? a->ms : 1);
}

/* What speaks against a file, strongest first. */
enum evidence { WHENEVER, EVERY, SOME, EVIDENCES };

static const char *const words[EVIDENCES] = {
	"whenever it ran beside",
	"each time beside, though it also passed beside",
	"beside no one file; unsafe, and running when it failed"
};

/* Whether g ran beside f whenever f failed (and never when both passed); SOME: at least
 * once. */
static bool
suspected(const struct plan *p, const struct record *f, const struct record *g,
	enum evidence e)
{
	const struct outcome *a, *b;
	int k;

	for (k = 1; k <= p->o.audit && f != g; k++) {
		a = &f->rounds[k];
		b = &g->rounds[k];
		if (e == SOME && failed(a) && beside(a, b))
			return true;
		if (e != SOME && failed(a) && !beside(a, b))
			return false;
		if (e == WHENEVER && !failed(a) && !failed(b) && beside(a, b))
			return false;
	}
	return f != g && e != SOME;
}

/* Fills suspect[] with the files against which there is the strongest evidence. */
static enum evidence
find_suspects(const struct plan *p, const struct record *records, size_t f,
	const int *unsafe, bool *suspect)
{
	bool any = false;
	int e;
	size_t i;

	for (e = WHENEVER; e < EVIDENCES && !any; e++)
		for (i = 0; i < p->nfiles; i++) {
			suspect[i] = suspected(p, &records[f], &records[i], (enum evidence)e)
				&& (e != SOME || unsafe[i]);
			any = any || suspect[i];
		}
	return (enum evidence)(e - 1);
}

/* Appends a path so that it is a glob that matches nothing else. */
static void
add_glob(struct buf *b, const char *path)
{
	for (; *path; path++) {
		if (strchr("*?[\\", *path))
			buf_char(b, '\\');
		buf_char(b, *path);
	}
}

/* The lines to paste into prun.conf; group[i] is the first file of i's group. */
static void
add_lines(struct buf *b, const struct plan *p, const int *unsafe, const size_t *group)
{
	struct buf serial = { 0 }, lock = { 0 };
	int locks = 0;
	size_t i, k, n;

	for (i = 0; i < p->nfiles; i++) {
		lock.n = n = 0;
		for (k = 0; k < p->nfiles && group[i] == i; k++)
			if (group[k] == i) {
				n++;
				buf_char(&lock, ' ');
				add_glob(&lock, p->files[k].path);
			}
		if (n > 1)
			buf_fmt(b, "lock = audit-%d%s\n", ++locks, lock.s);
		else if (n && unsafe[i])
			buf_str(&serial, lock.s);
	}
	if (serial.n)
		buf_fmt(b, "serial =%s\n", serial.s);
	buf_free(&serial);
	buf_free(&lock);
}

/* Names an unsafe file's suspects, and puts them into its group. */
static void
add_suspects(struct buf *b, const struct plan *p, const struct record *records, size_t f,
	const int *unsafe, size_t *group)
{
	bool *suspect = xmalloc(p->nfiles + 1);
	enum evidence e = find_suspects(p, records, f, unsafe, suspect);
	size_t i, k, from, to, n = 0;

	for (i = 0; i < p->nfiles; i++) {
		if (!suspect[i])
			continue;
		if (!n++)
			buf_fmt(b, "\n    %s:", words[e]);
		buf_char(b, ' ');
		buf_safe(b, p->files[i].test, strlen(p->files[i].test));
		from = group[f] > group[i] ? group[f] : group[i];
		to = group[f] > group[i] ? group[i] : group[f];
		for (k = 0; k < p->nfiles; k++)
			group[k] = group[k] == from ? to : group[k];
	}
	buf_str(b, n ? "\n" : "\n    beside no file in particular\n");
	free(suspect);
}

void
plan_audit(const struct plan *p, const struct record *records, struct buf *b)
{
	size_t *group = xmalloc((p->nfiles + 1) * sizeof(*group)), i, broken = 0, nunsafe = 0;
	size_t nsafe = 0, k;
	int *unsafe = xmalloc((p->nfiles + 1) * sizeof(*unsafe));
	struct buf found = { 0 };

	for (i = 0; i < p->nfiles; i++) {
		group[i] = i;
		unsafe[i] = failures(p, &records[i]);
		nunsafe += unsafe[i] > 0;
		for (k = 0; (int64_t)k <= p->o.audit && records[i].rounds[k].attempt
		&& records[i].rounds[k].result <= NONE; k++)
			;
		nsafe += (int64_t)k > p->o.audit;
	}
	for (i = 0; i < p->nfiles; i++) {
		const struct file *f = &p->files[i];

		if (!unsafe[i] && !failed(&records[i].rounds[0]))
			continue;
		buf_str(&found, unsafe[i] ? "unsafe: " : "broken: ");
		buf_safe(&found, f->test, strlen(f->test));
		if (unsafe[i]) {
			buf_fmt(&found, "  failed in %d of %d rounds beside others, and passed alone",
				unsafe[i], (int)p->o.audit);
			add_suspects(&found, p, records, i, unsafe, group);
		} else {
			broken++;
			buf_str(&found, "  fails alone\n");
		}
	}
	if (nunsafe) {
		buf_str(&found, "\nUntil they share nothing, these lines in prun.conf keep them apart:\n\n");
		add_lines(&found, p, unsafe, group);
	}
	buf_fmt(b, "\naudit: each of %zu files alone, then %d rounds with %d at once:\n"
		"%zu safe, %zu unsafe, %zu broken", p->nfiles, (int)p->o.audit, p->workers,
		nsafe, nunsafe, broken);
	if (nsafe + nunsafe + broken < p->nfiles)
		buf_fmt(b, ", %zu not run to the end", p->nfiles - nsafe - nunsafe - broken);
	buf_fmt(b, "\n%s", found.n ? found.s : "");
	if (found.n && file_write(str("%s/audit.txt", p->dir), found.s, found.n, 0666) < 0)
		warn("%s/audit.txt:", p->dir);
	buf_free(&found);
	free(group);
	free(unsafe);
}
