/*
 * conf.c: the options.
 *
 * One table has every option once; command line, PRUNFLAGS and prun.conf are
 * read into a list of settings, each with its level, and a suite's options
 * are those settings applied from the farthest level to the nearest.  Every
 * mistake ends prun with one line and status 2.
 */
#include "prun.h"

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
	{ "interactive", 'i', BOOL, NOT_IN_FILE, AT(interactive), NULL, "no",
		"one file, the terminal attached to its test" },
	{ "quiet", 'q', BOOL, NOT_IN_SUITE, AT(quiet), NULL, "no", "failures and totals only" },
	{ "verbose", 'v', BOOL, NOT_IN_SUITE, AT(verbose), NULL, "no", "more about each file" },
	{ "help", 'h', BOOL, NOT_IN_FILE, AT(help), NULL, "no", "print this" },
	{ "version", 'V', BOOL, NOT_IN_FILE, AT(version), NULL, "no", "print the version" },
	{ "keep", 0, ENUM, 0, AT(keep), "failed run always never", "failed",
		"whose databases and files stay" },
	{ "last-failed", 0, BOOL, NOT_IN_SUITE, AT(last_failed), NULL, "no",
		"only what did not pass last time" },
	{ "shuffle", 0, STR, NOT_IN_SUITE | OPTIONAL, AT(shuffle), "SEED", NULL, "random order" },
	{ "shard", 0, STR, NOT_IN_SUITE, AT(shard), "I/N|auto", NULL, "this part of the files" },
	{ "merge", 0, BOOL, NOT_IN_FILE, AT(merge), NULL, "no",
		"only merge reports and run directories" },
	{ "strict", 0, BOOL, NOT_IN_FILE, AT(strict), NULL, "no",
		"--merge: status 1 if there are failures" },
	{ "partial", 0, BOOL, NOT_IN_FILE, AT(partial), NULL, "no",
		"--merge: shards may be missing" },
	{ "clean", 0, BOOL, NOT_IN_FILE, AT(clean), NULL, "no",
		"only drop what earlier runs left" },
	{ "reopen", 0, STR, NOT_IN_FILE, AT(reopen), "DIR", NULL,
		"start an attempt's server again" },
	{ "audit", 0, INT, NOT_IN_FILE | OPTIONAL, AT(audit), "ROUNDS", "0",
		"find files that hurt each other" },
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

	if (!s->value)
		return 5;               /* --audit: its rounds */
	if (s->opt->type == JOBS && !strcmp(s->value, "max"))
		return INT_MAX;
	if (s->opt->type == INT && !strcmp(s->value, "none"))
		return s->opt->def ? strtoll(s->opt->def, NULL, 10) : INT_MAX;
	n = number(s->value, &end);
	if (n < 0 || *end || n % 1000 || (!n && (s->opt->type == JOBS
		|| !strcmp(s->opt->name, "workers"))) || n / 1000 > INT_MAX)
		bad(s->where, "%s wants a whole number%s, not \"%s\"", s->opt->name,
			s->opt->type == JOBS ? " above 0, or max" : !n ? " above 0" : "", s->value);
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
		wrong = proc_ready_check(s->value);
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

/* What holds in a suite (-1: outside of any); check: what makes no sense together. */
static void
resolve(const struct reading *r, struct opts *o, int suite, bool check)
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
	if (check && o->db && !o->db_clone && (wrong = url_check(o->db)))
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
	if (!*name || strpbrk(name, " \t,"))
		bad(where, "the name of a suite is one word, not \"%s\"", name);
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
conf_read(struct plan *p, char **argv)
{
	struct reading r = { NULL, 0, 0, p };
	char *flags = getenv("PRUNFLAGS") ? str("%s", getenv("PRUNFLAGS")) : NULL, *w, *path;
	struct list words = { 0 };
	struct setting *from_file;
	struct stat st;
	size_t i, first;

	for (w = flags ? strtok(flags, " \t\n") : NULL; w; w = strtok(NULL, " \t\n"))
		list_add(&words, w);
	if (words.n)
		read_words(&r, words.v, PRUNFLAGS);
	list_free(&words);
	read_words(&r, argv + 1, COMMAND_LINE);
	resolve(&r, &p->o, -1, false);
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
	resolve(&r, &p->o, -1, false);
	p->o.config = path;
	if (!p->nsuites) {
		p->suites = grow(p->suites, &p->capsuites, 1, sizeof(*p->suites));
		memset(&p->suites[0], 0, sizeof(*p->suites));
		p->suites[p->nsuites++].name = "";
	}
	for (i = 0; i < p->nsuites; i++)
		resolve(&r, &p->suites[i].o, p->suites[i].where ? (int)i : -1, true);
}

int64_t
conf_number(const char *key, const char *value, const char *where)
{
	struct setting s = { find_option(key, strlen(key), where, "mark", ""), value, COMMAND_LINE,
		-1, where };

	return s.opt->type == DURATION ? with_unit(&s) : count(&s);
}

void
conf_help(FILE *out)
{
	const struct option *o;
	char name[64];
	size_t i;

	fputs("usage: prun [options] [path ...] [-- test arguments ...]\n"
		"       prun --merge -o OUT path ...\n"
		"       prun --clean [-n] [run directory ...]\n"
		"       prun --reopen DIR\n"
		"       prun --audit[=ROUNDS] [path ...]\n\n"
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
