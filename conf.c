/*
 * conf.c: what is to be run, and how.
 *
 * One table has every option once; command line, PRUNFLAGS and prun.conf are
 * read into a list of settings, each with its level, and a suite's options
 * are those settings applied from the farthest level to the nearest.  Then
 * the suites' files are found, their marks read, and what the history knows
 * of them.  Every mistake ends prun with one line and status 2.
 */
#include "prun.h"
#include <dirent.h>
#include <fnmatch.h>
#include <glob.h>

enum type { BOOL, INT, JOBS, STR, LIST, BLANKS, DURATION, SIZE, ENUM, URL, READY };
enum level { DEFAULT, FILE_GLOBAL, SUITE, PRUNFLAGS, COMMAND_LINE };
enum { NOT_IN_FILE = 1, NOT_IN_SUITE = 2, OPTIONAL = 4 };

struct option {
	const char *name;       /* --name, and the key in prun.conf */
	int letter;
	enum type type;
	int flags;
	size_t offset;
	const char *arg;        /* for help; of an ENUM its words */
	const char *def;
	const char *help;
};

#define AT(field) offsetof(struct opts, field)

static const struct option table[] = {
	{ "jobs", 'j', JOBS, NOT_IN_SUITE, AT(jobs), "N|max", NULL, "attempts at once [CPUs]" },
	{ "config", 'f', STR, NOT_IN_FILE, AT(config), "FILE", NULL, "instead of prun.conf" },
	{ "chdir", 'C', STR, NOT_IN_FILE, AT(chdir), "DIR", NULL, "change to DIR first" },
	{ "junit", 'o', STR, NOT_IN_SUITE, AT(junit), "FILE", NULL, "write the merged report" },
	{ "history", 0, STR, NOT_IN_SUITE, AT(history), "FILE", NULL,
		"durations and results [REPORT.history]" },
	{ "run-dir", 'd', STR, NOT_IN_SUITE, AT(run_dir), "DIR", NULL,
		"logs and reports; a named one stays" },
	{ "fail-fast", 'x', BOOL, NOT_IN_SUITE, AT(fail_fast), NULL, "no",
		"stop the rest at the first failure" },
	{ "retries", 'r', INT, 0, AT(retries), "N", "0", "further attempts, at the end, alone" },
	{ "timeout", 't', DURATION, 0, AT(timeout_ms), "DURATION", "none",
		"of the test command: 90s, 5m" },
	{ "suite", 's', BLANKS, NOT_IN_FILE, AT(suite), "NAME,...", NULL, "only these suites" },
	{ "list", 'n', BOOL, NOT_IN_FILE, AT(list), NULL, "no", "print the plan, run nothing" },
	{ "quiet", 'q', BOOL, NOT_IN_SUITE, AT(quiet), NULL, "no", "failures and totals only" },
	{ "verbose", 'v', BOOL, NOT_IN_SUITE, AT(verbose), NULL, "no", "more about each file" },
	{ "help", 'h', BOOL, NOT_IN_FILE, AT(help), NULL, "no", "print this" },
	{ "version", 'V', BOOL, NOT_IN_FILE, AT(version), NULL, "no", "print the version" },
	{ "keep", 0, ENUM, 0, AT(keep), "failed run always never", "failed",
		"whose databases and files stay" },
	{ "last-failed", 0, BOOL, NOT_IN_SUITE, AT(last_failed), NULL, "no",
		"only what did not pass last time" },
	{ "shuffle", 0, STR, NOT_IN_SUITE | OPTIONAL, AT(shuffle), "SEED", NULL, "random order" },
	{ "github", 0, ENUM, NOT_IN_SUITE, AT(github), "auto no", "auto",
		"annotations in GitHub's log" },
	{ "files", 0, BLANKS, 0, AT(files), "PATH", NULL, "files, directories, globs" },
	{ "exclude", 0, BLANKS, 0, AT(exclude), "GLOB", NULL, "but not these" },
	{ "test", 0, STR, 0, AT(test), "CMD", NULL, "runs one file; see PRUN_TEST" },
	{ "server", 0, STR, 0, AT(server), "CMD", NULL, "serves on $PRUN_PORT" },
	{ "setup", 0, STR, 0, AT(setup), "CMD", NULL, "once, before the first clone" },
	{ "after", 0, STR, 0, AT(after), "CMD", NULL, "after every attempt" },
	{ "ready", 0, READY, 0, AT(ready), "HOW", "tcp",
		"tcp, http PATH, log ERE, command CMD, fd, none" },
	{ "ready-timeout", 0, DURATION, 0, AT(ready_timeout_ms), "DURATION", "15s",
		"how long the server may take" },
	{ "grace", 0, DURATION, 0, AT(grace_ms), "DURATION", "5s", "between TERM and KILL" },
	{ "db", 0, URL, 0, AT(db), "URL", NULL, "template database" },
	{ "db-env", 0, BLANKS, 0, AT(db_env), "NAME", "DATABASE_URL", "gets the clone's URL" },
	{ "db-admin", 0, URL, 0, AT(db_admin), "URL", NULL, "way around a connection pooler" },
	{ "db-clone", 0, STR, 0, AT(db_clone), "CMD", NULL, "clones any other database" },
	{ "db-drop", 0, STR, 0, AT(db_drop), "CMD", NULL, "and drops it" },
	{ "db-terminate", 0, BOOL, 0, AT(db_terminate), NULL, "yes",
		"end sessions on the template" },
	{ "url-env", 0, BLANKS, 0, AT(url_env), "NAME", NULL, "gets the server's URL" },
	{ "port-env", 0, BLANKS, 0, AT(port_env), "NAME", NULL, "gets the port" },
	{ "env", 0, LIST, 0, AT(env), "NAME=VALUE", NULL, "set for server and test" },
	{ "unset", 0, BLANKS, 0, AT(unset), "GLOB", NULL, "not inherited by the server" },
	{ "serial", 0, BLANKS, 0, AT(serial), "GLOB", NULL, "one of these at a time" },
	{ "alone", 0, BLANKS, 0, AT(alone), "GLOB", NULL, "nothing beside these" },
	{ "lock", 0, LIST, 0, AT(lock), "NAME GLOB...", NULL, "one holder of NAME at a time" },
	{ "split", 0, ENUM, 0, AT(split), "file suite", "file", "a unit is a file or the suite" },
	{ "enabled", 0, BOOL, 0, AT(enabled), NULL, "yes", "whether the suite runs" },
	{ "workers", 0, INT, 0, AT(workers), "N", NULL, "most attempts of the suite at once" },
	{ "server-failure", 0, ENUM, 0, AT(server_failure), "stop continue", "stop",
		"when a server cannot start" },
	{ "flaky", 0, ENUM, NOT_IN_SUITE, AT(flaky), "pass fail", "pass", "how FLAKY counts" },
	{ "leak", 0, ENUM, 0, AT(leak), "note fail", "note", "processes left by a test" },
	{ "log-limit", 0, SIZE, 0, AT(log_limit), "SIZE", "256M", "a log above is killed" },
	{ "report-limit", 0, SIZE, NOT_IN_SUITE, AT(report_limit), "SIZE", "1M",
		"longest text in a report" },
	{ "no-tests", 0, ENUM, NOT_IN_SUITE, AT(no_tests), "fail pass", "fail",
		"when there are no files" },
	{ "max-worker-restart", 0, INT, NOT_IN_SUITE, AT(max_worker_restart), "N", "3",
		"workers that may die" },
};

struct setting {
	const struct option *opt;
	const char *value;      /* NULL: a flag without one */
	enum level level;
	int suite;              /* of level SUITE, -1 else */
	const char *where;      /* "prun.conf:7" or "--jobs" */
};

struct reading {
	struct setting *v;
	size_t n, cap;
	struct plan *plan;
};

/* Bad input: one line, where first. */
static void
bad(const char *where, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, strchr(where, ':') ? "%s: " : "prun: %s: ", where);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(EXIT_USAGE);
}

/* How many edits make b of a; the table's words are short. */
static size_t
distance(const char *a, const char *b)
{
	size_t row[64], i, k, n = strlen(b), old, above;

	if (n >= LEN(row))
		return n;
	for (k = 0; k <= n; k++)
		row[k] = k;
	for (i = 0; a[i]; i++) {
		old = row[0]++;
		for (k = 1; k <= n; k++) {
			above = row[k];
			row[k] = a[i] == b[k - 1] ? old : 1 + (old < above
				? old < row[k - 1] ? old : row[k - 1]
				: above < row[k - 1] ? above : row[k - 1]);
			old = above;
		}
	}
	return row[n];
}

static const struct option *
find_option(const char *name, size_t n, const char *where, const char *what, const char *dash)
{
	const struct option *near = NULL;
	char *word = str("%.*s", (int)n, name);
	size_t i, d, least = n / 2 + 1;

	for (i = 0; i < LEN(table); i++) {
		if (!strcmp(table[i].name, word))
			return &table[i];
		d = distance(word, table[i].name);
		if (d < least || (d <= least && !near)) {
			least = d;
			near = &table[i];
		}
	}
	bad(where, "unknown %s \"%s%s\"%s%s%s%s", what, dash, word, near ? " (" : "",
		near ? dash : "", near ? near->name : "", near ? "?)" : "");
	return NULL;
}

/* ---- values ---- */

/* In thousandths, for 1.5s and 0.5M; -1 where there is none. */
static int64_t
number(const char *s, const char **end)
{
	char *e;
	double v = strtod(s, &e);

	*end = e;
	return e == s || !(v >= 0) || v > 9e12 ? -1 : (int64_t)(v * 1000 + 0.5);
}

static int64_t
with_unit(const struct setting *s)
{
	static const struct { const char *unit; int64_t factor; } units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "", 1000 },
	}, sizes[] = {
		{ "K", 1 << 10 }, { "M", 1 << 20 }, { "G", 1 << 30 }, { "", 1 },
	};
	const char *end;
	int64_t n;
	size_t i;
	bool size = s->opt->type == SIZE;

	if (!strcmp(s->value, "none"))
		return -1;
	n = number(s->value, &end);
	for (i = 0; n >= 0 && i < (size ? LEN(sizes) : LEN(units)); i++)
		if (!strcmp(end, size ? sizes[i].unit : units[i].unit))
			return n * (size ? sizes[i].factor : units[i].factor) / 1000;
	bad(s->where, "%s wants %s, not \"%s\"", s->opt->name, size ? "a size like 256M"
		: "a duration like 90s or 5m", s->value);
	return 0;
}

static int64_t
count(const struct setting *s)
{
	const char *end;
	int64_t n;

	if (s->opt->type == JOBS && !strcmp(s->value, "max"))
		return INT_MAX;
	if (s->opt->type == INT && !strcmp(s->value, "none"))
		return s->opt->def ? strtoll(s->opt->def, NULL, 10) : INT_MAX;
	n = number(s->value, &end);
	if (n < 0 || *end || n % 1000 || (s->opt->type == JOBS && !n) || n / 1000 > INT_MAX)
		bad(s->where, "%s wants a whole number%s, not \"%s\"", s->opt->name,
			s->opt->type == JOBS ? " above 0, or max" : "", s->value);
	return n / 1000;
}

static int
one_of(const struct setting *s)
{
	const char *word = s->opt->arg;
	size_t n = strlen(s->value);
	int i;

	for (i = 0; *word; i++) {
		if (strcspn(word, " ") == n && !strncmp(word, s->value, n))
			return i;
		word += strcspn(word, " ");
		word += strspn(word, " ");
	}
	bad(s->where, "%s is one of: %s; not \"%s\"", s->opt->name, s->opt->arg, s->value);
	return 0;
}

static bool
yes(const struct setting *s)
{
	if (!s->value || !strcmp(s->value, "yes") || !strcmp(s->value, "true"))
		return true;
	if (strcmp(s->value, "no") && strcmp(s->value, "false"))
		bad(s->where, "%s is yes or no, not \"%s\"", s->opt->name, s->value);
	return false;
}

static void
add_items(struct list *l, const struct setting *s)
{
	const char *p = s->value, *blanks = s->opt->letter == 's' ? ", \t" : " \t";
	char *item;
	size_t n;

	if (s->opt->type == LIST) {
		if (!strcmp(s->opt->name, "env") && !strchr(p, '='))
			bad(s->where, "env wants NAME=VALUE, not \"%s\"", p);
		if (!strcmp(s->opt->name, "lock") && !p[strcspn(p, blanks)])
			bad(s->where, "lock wants NAME GLOB..., not \"%s\"", p);
		list_add(l, p);
		return;
	}
	for (p += strspn(p, blanks); *p; p += strspn(p, blanks)) {
		n = strcspn(p, blanks);
		item = str("%.*s", (int)n, p);
		list_add(l, item);
		p += n;
	}
}

/* Puts a setting's value where it belongs; again: the list goes on. */
static void
apply(struct opts *o, const struct setting *s, bool again)
{
	void *at = (char *)o + s->opt->offset;
	const char *wrong = NULL;
	struct ready ready;

	switch (s->opt->type) {
	case BOOL:
		*(bool *)at = yes(s);
		break;
	case INT:
	case JOBS:
		*(int64_t *)at = count(s);
		break;
	case DURATION:
	case SIZE:
		*(int64_t *)at = with_unit(s);
		break;
	case ENUM:
		*(int *)at = one_of(s);
		break;
	case LIST:
	case BLANKS:
		if (!again)
			list_free(at);
		if (strcmp(s->value, "none"))
			add_items(at, s);
		break;
	case READY:
		wrong = net_ready_parse(s->value, &ready);
		*(const char **)at = s->value;
		break;
	case STR:
	case URL:
		*(const char **)at = s->value && strcmp(s->value, "none") ? s->value : NULL;
		if (!s->value)
			*(const char **)at = "";
	}
	if (wrong)
		bad(s->where, "ready = %s: %s", s->value, wrong);
}

/* What holds in a suite (-1: outside of any). */
static void
resolve(const struct reading *r, struct opts *o, int suite)
{
	enum level seen[LEN(table)] = { DEFAULT };
	const struct setting *s, *db = NULL;
	struct setting def = { NULL, NULL, DEFAULT, -1, "default" };
	const char *wrong;
	size_t i, k;

	for (i = 0; i < LEN(table); i++)
		if (table[i].type == LIST || table[i].type == BLANKS)
			list_free((struct list *)(void *)((char *)o + table[i].offset));
	memset(o, 0, sizeof(*o));
	o->workers = INT_MAX;
	o->jobs = sysconf(_SC_NPROCESSORS_ONLN);
	for (i = 0; i < LEN(table); i++) {
		def.opt = &table[i];
		def.value = table[i].def;
		if (def.value)
			apply(o, &def, false);
	}
	for (i = 0; i < r->n; i++) {
		s = &r->v[i];
		if (s->suite >= 0 && s->suite != suite)
			continue;
		k = (size_t)(s->opt - table);
		if (s->level < seen[k])
			continue;       /* cannot be: they stand in order */
		apply(o, s, seen[k] == s->level);
		seen[k] = s->level;
		if (!strcmp(s->opt->name, "db"))
			db = s;
	}
	if (o->db && !o->db_clone && (wrong = pg_check(o->db)))
		bad(db->where, "db = %s %s", o->db, wrong);
}

/* ---- reading ---- */

static void
add_setting(struct reading *r, const struct option *opt, const char *value, enum level level,
	int suite, const char *where)
{
	struct setting s = { opt, value, level, suite, where };
	struct opts scratch;

	r->v = grow(r->v, &r->cap, r->n + 1, sizeof(*r->v));
	r->v[r->n++] = s;
	memset(&scratch, 0, sizeof(scratch));
	apply(&scratch, &s, false);     /* for its messages */
	if (opt->type == LIST || opt->type == BLANKS)
		list_free((struct list *)(void *)((char *)&scratch + opt->offset));
}

/* Reads options out of words; paths and test arguments go to the plan. */
static void
read_words(struct reading *r, char **words, enum level level)
{
	const struct option *o;
	const char *w, *value;
	size_t n, i;

	for (; (w = *words); words++) {
		if (level == COMMAND_LINE && !strcmp(w, "--")) {
			while (*++words)
				list_add(&r->plan->args, *words);
			return;
		}
		if (*w != '-' || !w[1]) {
			if (level != COMMAND_LINE)
				bad("PRUNFLAGS", "\"%s\" is no option", w);
			list_add(&r->plan->paths, w);
			continue;
		}
		if (w[1] == '-') {
			n = strcspn(w + 2, "=");
			o = find_option(w + 2, n, level == PRUNFLAGS ? "PRUNFLAGS"
				: "command line", "option", "--");
			value = w[2 + n] ? w + 3 + n : NULL;
			if (!value && o->type != BOOL && !(o->flags & OPTIONAL)
			&& !(value = *++words))
				bad(w, "wants a value: %s", o->arg);
			add_setting(r, o, value ? str("%s", value) : NULL, level, -1,
				str("--%s", o->name));
			continue;
		}
		for (w++; *w; w++) {
			for (i = 0; i < LEN(table) && table[i].letter != *w; i++)
				;
			if (i == LEN(table))
				bad(str("-%c", *w), "unknown option; see prun -h");
			o = &table[i];
			value = NULL;
			if (o->type != BOOL) {
				value = w[1] ? w + 1 : *++words;
				if (!value)
					bad(str("-%c", *w), "wants a value: %s", o->arg);
			}
			add_setting(r, o, value ? str("%s", value) : NULL, level, -1,
				str("-%c", o->letter));
			if (value)
				break;
		}
	}
}

static int
begin_suite(struct plan *p, char *line, int number, const char *where)
{
	char *end = strchr(line, ']'), *name;
	size_t i;

	if (strncmp(line, "[suite ", 7) || !end || end[1] || end == line + 7)
		bad(where, "wants [suite NAME], not \"%s\"", line);
	*end = '\0';
	name = line + 7 + strspn(line + 7, " ");
	for (i = 0; i < p->nsuites; i++)
		if (!strcmp(p->suites[i].name, name))
			bad(where, "suite \"%s\" is there already, at line %d", name,
				p->suites[i].where);
	p->suites = grow(p->suites, &p->capsuites, p->nsuites + 1, sizeof(*p->suites));
	memset(&p->suites[p->nsuites], 0, sizeof(*p->suites));
	p->suites[p->nsuites].name = str("%s", name);
	p->suites[p->nsuites].where = number;
	return (int)p->nsuites++;
}

/* One key = value; the value may have come from several lines. */
static void
read_key(struct reading *r, char *text, int suite, const char *where)
{
	const struct option *o;
	char *eq = strchr(text, '='), *end;
	size_t i;

	if (!eq)
		bad(where, "wants key = value, not \"%s\"", text);
	for (end = eq; end > text && strchr(" \t", end[-1]); end--)
		;
	o = find_option(text, (size_t)(end - text), where, "key", "");
	if (o->flags & NOT_IN_FILE)
		bad(where, "%s is for the command line only", o->name);
	if (suite >= 0 && o->flags & NOT_IN_SUITE)
		bad(where, "%s belongs above the first suite", o->name);
	for (i = 0; i < r->n; i++)
		if (r->v[i].opt == o && r->v[i].suite == suite
		&& (r->v[i].level == FILE_GLOBAL || r->v[i].level == SUITE) && o->type != LIST
		&& o->type != BLANKS)
			bad(where, "%s is given twice, see %s", o->name, r->v[i].where);
	eq++;
	eq += strspn(eq, " \t");
	if (!*eq)
		bad(where, "%s has no value; none takes one back", o->name);
	add_setting(r, o, str("%s", eq), suite < 0 ? FILE_GLOBAL : SUITE, suite, where);
}

static void
read_file(struct reading *r, const char *path)
{
	FILE *f = fopen(path, "r");
	const char *base = strrchr(path, '/');
	struct buf key = { 0 };
	char *line = NULL, *where = NULL;
	size_t cap = 0;
	ssize_t n;
	int number = 0, suite = -1;

	if (!f)
		bad(path, "%s", strerror(errno));
	base = base && !strncmp(path, "./", 2) ? base + 1 : path;
	for (;;) {
		n = getline(&line, &cap, f);
		number++;
		while (n > 0 && strchr(" \t\r\n", line[n - 1]))
			line[--n] = '\0';
		if (n >= 0 && (line[strspn(line, " \t")] == '#' || !*line))
			continue;
		if (n > 0 && strchr(" \t", *line)) {
			if (!key.n)
				bad(str("%s:%d", base, number), "continues no value");
			buf_fmt(&key, " %s", line + strspn(line, " \t"));
			continue;
		}
		if (key.n)
			read_key(r, key.s, suite, where);
		key.n = 0;
		if (n < 0)
			break;
		where = str("%s:%d", base, number);
		if (*line == '[')
			suite = begin_suite(r->plan, line, number, where);
		else
			buf_str(&key, line);
	}
	if (ferror(f))
		bad(path, "%s", strerror(errno));
	fclose(f);
	free(line);
	buf_free(&key);
}

/* Notices and drops what each attempt has of its own. */
static void
drop_junitxml(struct list *args)
{
	static const char *const forms[] = { "--junitxml", "--junit-xml" };
	size_t i, k, n, take;

	for (i = 0; i < args->n;) {
		take = 0;
		for (k = 0; k < LEN(forms); k++) {
			n = strlen(forms[k]);
			if (!strncmp(args->v[i], forms[k], n) && args->v[i][n] == '=')
				take = 1;
			else if (!strcmp(args->v[i], forms[k]))
				take = i + 1 < args->n ? 2 : 1;
		}
		if (!take) {
			i++;
			continue;
		}
		warn("%s is dropped: each attempt has its own report; use -o FILE for the merged "
			"one", args->v[i]);
		for (k = 0; k < take; k++)
			free(args->v[i + k]);
		memmove(args->v + i, args->v + i + take, (args->n - i - take + 1)
			* sizeof(*args->v));
		args->n -= take;
	}
}

void
conf_read(struct plan *p, int argc, char **argv)
{
	struct reading r = { NULL, 0, 0, p };
	char *flags = getenv("PRUNFLAGS") ? str("%s", getenv("PRUNFLAGS")) : NULL, *w, *path;
	struct list words = { 0 };
	struct setting *from_file;
	struct stat st;
	size_t i, first;

	(void)argc;
	for (w = flags ? strtok(flags, " \t\n") : NULL; w; w = strtok(NULL, " \t\n"))
		list_add(&words, w);
	if (words.n)
		read_words(&r, words.v, PRUNFLAGS);
	list_free(&words);
	read_words(&r, argv + 1, COMMAND_LINE);
	resolve(&r, &p->o, -1);
	if (p->o.help || p->o.version) {
		free(r.v);
		return;
	}
	if (p->o.chdir && chdir(p->o.chdir) < 0)
		bad("-C", "%s: %s", p->o.chdir, strerror(errno));
	drop_junitxml(&p->args);
	first = r.n;
	path = p->o.config;
	if (!path && stat("prun.conf", &st) == 0)
		path = "prun.conf";
	if (!path && p->paths.n) {
		path = str("%s", p->paths.v[0]);
		if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
			*(strrchr(path, '/') ? strrchr(path, '/') : path) = '\0';
		path = str("%s%sprun.conf", path, *path ? "/" : "");
		if (stat(path, &st) < 0)
			path = NULL;
	}
	if (path)
		read_file(&r, path);
	p->o.config = path && strcmp(path, "prun.conf") ? path : NULL;
	/* The file's settings are farther away: they come first. */
	from_file = scratch((r.n + 1) * sizeof(*from_file));
	for (i = 0; i < r.n; i++)
		from_file[i] = r.v[(first + i) % r.n];
	free(r.v);
	r.v = from_file;
	path = p->o.config;
	resolve(&r, &p->o, -1);
	p->o.config = path;
	if (!p->nsuites) {
		p->suites = grow(p->suites, &p->capsuites, 1, sizeof(*p->suites));
		memset(&p->suites[0], 0, sizeof(*p->suites));
		p->suites[p->nsuites++].name = "";
	}
	for (i = 0; i < p->nsuites; i++)
		resolve(&r, &p->suites[i].o, p->suites[i].where ? (int)i : -1);
}

void
conf_help(FILE *out)
{
	const struct option *o;
	char name[64];
	size_t i;

	fputs("usage: prun [options] [path ...] [-- test arguments ...]\n\n"
		"Each long option is a key of prun.conf, too; prun(1) tells more.\n\n", out);
	for (i = 0; i < LEN(table); i++) {
		o = &table[i];
		snprintf(name, sizeof(name), o->type == BOOL ? "--%s" : o->flags & OPTIONAL
			? "--%s[=%s]" : "--%s %s", o->name, o->type == ENUM ? "WORD" : o->arg);
		fprintf(out, "  %c%c%c %-28s %s%s%s%s%s%s%s\n", o->letter ? '-' : ' ',
			o->letter ? o->letter : ' ', o->letter ? ',' : ' ', name, o->help,
			o->type == ENUM ? ": " : "", o->type == ENUM ? o->arg : "",
			o->def && strcmp(o->def, "no") ? " [" : "",
			o->def && strcmp(o->def, "no") ? o->def : "",
			o->def && strcmp(o->def, "no") ? "]" : "", "");
	}
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

/* Whether path is f or a directory above it. */
static bool
covers(const char *path, const struct file *f)
{
	size_t n;

	while (!strncmp(path, "./", 2) && path[2])
		path += 2;
	n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	return !strncmp(path, f->path, n) && (f->path[n] == '\0' || f->path[n] == '/'
		|| !strcmp(path, "."));
}

/* Keeps only the files that paths select; each must select one. */
static void
select_paths(struct plan *p)
{
	size_t i, k, n = 0;
	char *path, *node, *hit = xmalloc(p->paths.n + 1);
	bool keep;

	memset(hit, 0, p->paths.n + 1);
	for (i = 0; i < p->nfiles; i++) {
		keep = false;
		for (k = 0; k < p->paths.n; k++) {
			path = str("%s", p->paths.v[k]);
			node = strstr(path, "::");
			if (node)
				*node = '\0';
			if (covers(path, &p->files[i])) {
				keep = true;
				hit[k] = 1;
				if (node)
					p->files[i].test = str("%s", p->paths.v[k]);
			}
		}
		if (keep)
			p->files[n++] = p->files[i];
	}
	for (k = 0; k < p->paths.n; k++)
		if (!hit[k])
			bad(p->paths.v[k], access(p->paths.v[k], F_OK) == 0
				|| strstr(p->paths.v[k], "::") ? "is in no suite" : "%s",
				strerror(ENOENT));
	free(hit);
	p->nfiles = n;
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
read_mark(struct plan *p, struct file *f, const char *mark, const char *where)
{
	static const char *const keys[] = { "timeout=", "retries=" };
	struct setting s = { NULL, NULL, COMMAND_LINE, -1, where };
	size_t n = strcspn(mark, " \t\r\n*"), i;
	char *text;

	if (n == 6 && !strncmp(mark, "serial", n))
		add_lock(p, f, "serial", 6);
	else if (n == 5 && !strncmp(mark, "alone", n))
		f->alone = true;
	else if (n > 5 && !strncmp(mark, "lock=", 5))
		add_lock(p, f, mark + 5, n - 5);
	for (i = 0; i < LEN(keys); i++) {
		if (strncmp(mark, keys[i], 8))
			continue;
		text = str("%.*s", (int)n - 8, mark + 8);
		s.value = text;
		s.opt = find_option(keys[i], 7, where, "mark", "");
		if (i == 0)
			f->timeout_ms = with_unit(&s);
		else
			f->retries = count(&s);
	}
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
			read_mark(p, f, hit, f->path);
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
	return p->o.junit ? str("%s.history", p->o.junit) : NULL;
}

/* One line: seconds, result, suite, path; the last may hold blanks. */
static void
history_line(struct buf *b, int64_t ms, const char *result, const struct file *f)
{
	buf_fmt(b, "%.3f %s ", (double)ms / 1000, result);
	buf_safe(b, *f->suite->name ? f->suite->name : "-", *f->suite->name
		? strcspn(f->suite->name, " ") : 1);
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

static void
use_history(struct plan *p)
{
	struct list lines = { 0 };
	struct buf key = { 0 };
	char **hit;
	size_t i, n = 0;
	struct file *f;

	read_history(p, &lines);
	for (i = 0; i < p->nfiles; i++) {
		f = &p->files[i];
		key.n = 0;
		history_line(&key, 0, "PASS", f);
		hit = find_line(&lines, key.s);
		if (hit)
			f->expect_ms = (int64_t)(strtod(*hit, NULL) * 1000 + 0.5);
		if (p->o.last_failed && (!hit || strstr(*hit, " PASS ") || strstr(*hit, " FLAKY ")
		|| strstr(*hit, " SKIP ") || strstr(*hit, " NONE ")))
			continue;
		p->files[n++] = *f;
	}
	p->nfiles = n;
	list_free(&lines);
	buf_free(&key);
}

int
conf_history_write(const struct plan *p)
{
	char *path = history_path(p);
	struct list lines = { 0 };
	struct buf b = { 0 }, all = { 0 };
	const struct file *f;
	char **hit, *replaced;
	size_t i;
	int r = 0;

	if (!path)
		return 0;
	read_history(p, &lines);
	replaced = xmalloc(lines.n + 1);
	memset(replaced, 0, lines.n + 1);
	for (i = 0; i < p->nfiles; i++) {
		f = &p->files[i];
		if (!f->ended || f->o.result == CANCEL)
			continue;
		b.n = 0;
		history_line(&b, f->o.ms, result_name[f->o.result], f);
		hit = find_line(&lines, b.s);
		if (hit)
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
conf_plan(struct plan *p)
{
	bool in_suites = p->nsuites && p->suites[0].where;
	struct suite *s;
	size_t i, k;
	char *command, *c;

	choose_suites(p);
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
	for (i = 0; i < p->nfiles; i++) {
		p->files[i].index = (int)i;
		if (p->files[i].suite->o.split == SPLIT_FILE)
			read_marks(p, &p->files[i]);
		find_locks(p, &p->files[i]);
		command = work_command(&p->files[i]);
		if (!command)
			bad(p->files[i].path, "nothing says how to run it: make it executable, or "
				"set test = in prun.conf");
	}
	p->hash = 2166136261u;          /* FNV-1a over all names */
	for (i = 0; i < p->nfiles; i++)
		for (c = str("%s/%s\n", p->files[i].suite->name, p->files[i].test); *c; c++)
			p->hash = (p->hash ^ (unsigned char)*c) * 16777619u;
	p->held = xmalloc(p->locks.n + 1);
	memset(p->held, 0, p->locks.n + 1);
}
