/*
 * conf.c: the options.
 *
 * One table defines every option once, for the command line, PRUNFLAGS and
 * prun.conf alike.  What is read becomes a list of settings, each with a level:
 * default, prun.conf above the first suite, suite, PRUNFLAGS, command line.
 * The last one wins; a list is replaced by the next level, grows within one.
 *
 * Commands run where prun.conf is found, and names are relative to that, the
 * base; paths on the command line are relative to where the user stands.
 * Every mistake ends prun with one line, which names the place, and status 2.
 */
#include "prun.h"
#include <ctype.h>
#include <fnmatch.h>

enum type { BOOL, INT, COUNT, JOBS, STR, LIST, BLANKS, TIME, SIZE, ENUM, PATH };
/* Where a setting holds, from less than 0: in the suite of that number. */
enum { NOWHERE = -5, DEFAULT, FILE_GLOBAL, PRUNFLAGS, COMMAND_LINE };
/* ARGV: for the command line only; TOP: not in a suite; MAYBE: its value may be
 * left out; LIMITED: none does not unset it.  Below them: its letter. */
enum { ARGV = 256, TOP = 512, MAYBE = 1024, LIMITED = 2048, LETTER = 255 };

struct option {
	const char *name;       /* --name, and the key in prun.conf */
	enum type type;
	int flags;              /* and its letter */
	size_t offset;
	const char *arg;        /* for help; an ENUM has its words here */
	const char *help;
	const char *def;        /* an ENUM's is its first word */
};

#define AT(field) offsetof(struct opts, field)

static const struct option table[] = {
	{ "jobs", JOBS, TOP | LIMITED | 'j', AT(jobs), "N|max",
		"Run up to N files at once. Default: CPU count", NULL },
	{ "ahead", INT, TOP, AT(ahead), "N|auto", "Make stacks ready while tests run", "0" },
	{ "config", PATH, ARGV | 'f', AT(config), "FILE", "Read FILE, not prun.conf", NULL },
	{ "chdir", PATH, ARGV | 'C', AT(chdir), "DIR", "Change to DIR first", NULL },
	{ "junit", PATH, TOP | 'o', AT(junit), "FILE", "Write the JUnit report to FILE", NULL },
	{ "html", PATH, TOP, AT(html), "FILE", "Write the report as a page to FILE", NULL },
	{ "history", PATH, TOP, AT(history), "FILE",
		"History of earlier runs. Default: REPORT.history", NULL },
	{ "run-dir", PATH, TOP | 'd', AT(run_dir), "DIR", "Keep logs and report in DIR", NULL },
	{ "fail-fast", INT, TOP | MAYBE | 'x', AT(fail_fast), "N",
		"Stop after N failing files. Default: 1", "0" },
	{ "retries", INT, 'r', AT(retries), "N", "Retry failed files up to N times", "0" },
	{ "timeout", TIME, 't', AT(timeout_ms), "TIME", "Time limit of the test", "none" },
	{ "timeout-signal", ENUM, 0, AT(timeout_signal), "INT, TERM, QUIT, ABRT",
		"First signal to a test that has timed out", NULL },
	{ "suite", BLANKS, ARGV | 's', AT(suite), "NAME,...", "Run only these suites", NULL },
	{ "list", BOOL, ARGV | 'n', AT(list), NULL, "Print the plan and run nothing", NULL },
	{ "interactive", BOOL, ARGV | 'i', AT(interactive), NULL,
		"Run one file, its test on the terminal", NULL },
	{ "quiet", BOOL, TOP | 'q', AT(quiet), NULL, "Print only failures and totals", NULL },
	{ "verbose", BOOL, TOP | 'v', AT(verbose), NULL, "Print cancelled files, too", NULL },
	{ "help", BOOL, ARGV | 'h', AT(help), NULL, "Print this help", NULL },
	{ "version", BOOL, ARGV | 'V', AT(version), NULL, "Print the version", NULL },
	{ "keep", ENUM, 0, AT(keep), "failed, run, always, never", "Databases to keep", NULL },
	{ "last-failed", BOOL, TOP, AT(last_failed), NULL, "Run what failed last time", NULL },
	{ "shuffle", STR, TOP | MAYBE, AT(shuffle), "SEED", "Run files in random order", NULL },
	{ "shard", STR, TOP, AT(shard), "I/N|auto", "Run only part I of N of the files", NULL },
	{ "plan", STR, TOP, AT(plan), "HASH", "Run nothing if the plan is not this one", NULL },
	{ "repeat", COUNT, TOP, AT(repeat), "N", "Run every file N times, side by side", "1" },
	{ "no-tests", ENUM, TOP, AT(no_tests), "fail, pass", "Status without any file", NULL },
	{ "flaky", ENUM, TOP, AT(flaky), "pass, fail", "How FLAKY counts", NULL },
	{ "github", ENUM, TOP, AT(github), "auto, no", "Annotate failures on GitHub", NULL },
	{ "report-limit", SIZE, TOP, AT(report_limit), "SIZE", "Cut texts beyond this", "1M" },
	{ "max-worker-restart", INT, TOP, AT(max_worker_restart), "N",
		"Restarts of workers that have died", "3" },
	{ "merge", BOOL, ARGV, AT(merge), NULL, "Merge reports and run directories", NULL },
	{ "strict", BOOL, ARGV, AT(strict), NULL, "With --merge: exit 1 on failures", NULL },
	{ "partial", BOOL, ARGV, AT(partial), NULL, "Merge though shards are missing", NULL },
	{ "rerun", BOOL, ARGV, AT(rerun), NULL, "With --merge: the later run counts", NULL },
	{ "clean", BOOL, ARGV, AT(clean), NULL, "Drop what earlier runs left", NULL },
	{ "reopen", PATH, ARGV, AT(reopen), "DIR", "Start a kept attempt's server", NULL },
	{ "audit", INT, ARGV | MAYBE, AT(audit), "ROUNDS",
		"Find files that break each other. Default: 5", "0" },
	{ "files", BLANKS, 0, AT(files), "PATH", "Files, directories and globs to run", NULL },
	{ "exclude", BLANKS, 0, AT(exclude), "GLOB", "Files not to run", NULL },
	{ "test", STR, 0, AT(test), "CMD", "Command that runs one file, $PRUN_TEST", NULL },
	{ "collect", STR, 0, AT(collect), "CMD", "Command that lists files' tests", NULL },
	{ "server", STR, 0, AT(server), "CMD", "Command that serves on $PRUN_PORT", NULL },
	{ "setup", STR, 0, AT(setup), "CMD", "Command to run once, before clones", NULL },
	{ "after", STR, 0, AT(after), "CMD", "Command to run after every attempt", NULL },
	{ "service", LIST, 0, AT(service), "NAME CMD", "Start CMD before the server", NULL },
	{ "ports", BLANKS, 0, AT(ports), "NAME", "Variables that get a port each", NULL },
	{ "ready", STR, LIMITED, AT(ready), "HOW",
		"tcp, http PATH, log ERE, command CMD, fd or none", "tcp" },
	{ "ready-timeout", TIME, 0, AT(ready_timeout_ms), "TIME", "Time to get ready", "15s" },
	{ "grace", TIME, LIMITED, AT(grace_ms), "TIME", "Time between TERM and KILL", "5s" },
	{ "server-failure", ENUM, 0, AT(server_failure), "stop, continue",
		"What to do when a server cannot start", NULL },
	{ "server-exit", ENUM, 0, AT(server_exit), "fail, pass", "Server that exits 0", NULL },
	{ "url-env", BLANKS, 0, AT(url_env), "NAME", "NAME gets the server's URL", NULL },
	{ "port-env", BLANKS, 0, AT(port_env), "NAME", "NAME gets the port", NULL },
	{ "env", LIST, 0, AT(env), "NAME=VALUE", "Set a variable for server and test", NULL },
	{ "unset", BLANKS, 0, AT(unset), "GLOB", "Hide variables from server and test", NULL },
	{ "leak", ENUM, 0, AT(leak), "note, fail", "Processes that a test leaves", NULL },
	{ "log-limit", SIZE, 0, AT(log_limit), "SIZE", "Limit of an attempt's log", "256M" },
	{ "db", STR, 0, AT(db), "URL", "Template database, cloned for each attempt", NULL },
	{ "db-env", BLANKS, 0, AT(db_env), "NAME", "Gets the clone's URL", "DATABASE_URL" },
	{ "db-admin", STR, 0, AT(db_admin), "URL", "URL to clone with, past a pooler", NULL },
	{ "db-clone", STR, 0, AT(db_clone), "CMD", "Command to clone other databases", NULL },
	{ "db-drop", STR, 0, AT(db_drop), "CMD", "Command to drop such a clone", NULL },
	{ "db-terminate", BOOL, 0, AT(db_terminate), NULL, "End template's sessions", "yes" },
	{ "db-strategy", ENUM, 0, AT(db_strategy), "auto, wal_log, file_copy",
		"How PostgreSQL copies a template", NULL },
	{ "db-unused", ENUM, 0, AT(db_unused), "note, fail", "Database nobody used", NULL },
	{ "split", ENUM, 0, AT(split), "file, suite, dir, test", "What is one unit", NULL },
	{ "enabled", BOOL, 0, AT(enabled), NULL, "Whether the suite runs", "yes" },
	{ "workers", COUNT, 0, AT(workers), "N", "Run up to N of its files at once", NULL },
	{ "serial", BLANKS, 0, AT(serial), "GLOB", "Run these files one at a time", NULL },
	{ "alone", BLANKS, 0, AT(alone), "GLOB", "Run these files alone", NULL },
	{ "lock", LIST, 0, AT(lock), "NAME GLOB...", "Run one holder of NAME at a time", NULL },
};

struct setting {
	const struct option *opt;
	const char *value;
	int level;
	const char *where;      /* "prun.conf:7" or "--jobs" */
};

/* What was read, and what is being read. */
struct reading {
	struct plan *plan;
	struct setting *v;
	size_t n, cap;
	int level;
};

/* How much of two words is not the same at their beginnings and ends. */
static size_t
distance(const char *a, const char *b)
{
	size_t n = strlen(a), k = strlen(b), head = 0, tail = 0;

	while (a[head] && a[head] == b[head])
		head++;
	while (head + tail < n && head + tail < k && a[n - tail - 1] == b[k - tail - 1])
		tail++;
	return (n > k ? n : k) - head - tail;
}

/* By its name, or behind a single dash by its letter. */
static const struct option *
find_option(const char *name, size_t n, const char *where, const char *what, const char *dash)
{
	bool letter = !strcmp(dash, "-");
	const struct option *near = table, *o;
	char *word = str("%.*s", (int)n, name);

	for (o = table; o < table + LEN(table); o++) {
		if (letter ? (o->flags & LETTER) == (unsigned char)*word
		: !strcmp(o->name, word))
			break;
		if (distance(word, o->name) < distance(word, near->name))
			near = o;
	}
	bool far = letter || distance(word, near->name) > n / 2 + 1;
	if (o == table + LEN(table))
		bad(where, "unknown %s \"%s%s\"%s", what, dash, word,
			far ? "; see prun -h" : str(" (%s%s?)", dash, near->name));
	return o;
}

/* ---- values ---- */

static void NORETURN
unfit(const struct setting *s)
{
	static const char *const form[] = {
		[BOOL] = "yes or no", [INT] = "a whole number",
		[COUNT] = "a whole number above 0", [JOBS] = "a whole number above 0, or max",
		[TIME] = "a duration like 90s or 5m", [SIZE] = "a size like 256M"
	};

	bad(s->where, "%s must be %s, not \"%s\"", s->opt->name, s->opt->type == ENUM
		? str("one of: %s", s->opt->arg) : form[s->opt->type], s->value);
}

static int64_t
number(const struct setting *s)
{
	static const struct { const char *name, *word; int n; } words[] = {
		{ "jobs", "max", INT_MAX }, { "workers", "none", INT_MAX },
		{ "ahead", "auto", AHEAD_AUTO }, { "audit", "yes", 5 }, { "audit", "no", 0 },
		{ "fail-fast", "yes", 1 }, { "fail-fast", "no", 0 }
	};
	static const struct { enum type type; const char *name; double factor; } units[] = {
		{ TIME, "ms", 1 }, { TIME, "s", 1000 }, { TIME, "m", 60000 },
		{ TIME, "h", 3600000 }, { TIME, "", 1000 },
		{ SIZE, "K", 1 << 10 }, { SIZE, "M", 1 << 20 }, { SIZE, "G", 1 << 30 },
		{ SIZE, "", 1 }, { INT, "", 1 }, { COUNT, "", 1 }, { JOBS, "", 1 }
	};
	const struct option *o = s->opt;
	bool whole = o->type != TIME && o->type != SIZE;
	double n = 0, factor = 0;
	char *end = "?";

	for (size_t i = 0; i < LEN(words); i++)
		if (!strcmp(words[i].name, o->name) && !strcmp(words[i].word, s->value))
			return words[i].n;
	if (!strcmp(s->value, "none") && !(o->flags & LIMITED))
		return whole ? strtoll(o->def, NULL, 10) : -1;
	if (isdigit((unsigned char)*s->value) || *s->value == '.')
		n = strtod(s->value, &end);
	for (size_t i = 0; i < LEN(units); i++)
		if (units[i].type == o->type && !strcmp(end, units[i].name))
			factor = units[i].factor;
	n *= factor;
	/* sums of several milliseconds or bytes are numbers, too */
	if (!factor || n > (whole ? INT_MAX : 1e17)
	|| (whole && (n > (double)(int)n || n < (o->type != INT))))
		unfit(s);
	return (int64_t)(n + 0.5);
}

/* Index of the value among the words of an ENUM, or of a BOOL's. */
static int
one_of(const struct setting *s)
{
	struct list words = { 0 };

	list_words(&words, s->opt->type == BOOL ? "no yes false true" : s->opt->arg, ", ");
	size_t i = find_word((const char *const *)words.v, words.n, s->value);
	if (i == words.n)
		unfit(s);
	list_free(&words);
	return (int)i;
}

static void
add_items(struct list *l, const struct setting *s)
{
	if (!strcmp(s->opt->name, "env") && (!strchr(s->value, '=') || *s->value == '='))
		bad(s->where, "env must be NAME=VALUE, not \"%s\"", s->value);
	if (!strcmp(s->opt->name, "lock") && !strpbrk(s->value, " \t"))
		bad(s->where, "lock must be NAME GLOB..., not \"%s\"", s->value);
	if (s->opt->type == LIST)
		list_add(l, s->value);
	else
		list_words(l, s->value, !strcmp(s->opt->name, "suite") ? ", \t" : " \t");
	for (size_t i = 0; i < l->n && !strcmp(s->opt->arg, "NAME"); i++)
		if (l->v[i][strspn(l->v[i], WORD)] || isdigit((unsigned char)*l->v[i])
		|| starts(l->v[i], "PRUN_"))
			bad(s->where, "%s must be names of variables other than PRUN_..., "
				"not \"%s\"", s->opt->name, l->v[i]);
}

/* Puts a setting's value where it belongs; again: its list grows. */
static void
apply(struct opts *o, const struct setting *s, bool again)
{
	bool unset = !strcmp(s->value, "none") && !(s->opt->flags & LIMITED);
	void *at = (char *)o + s->opt->offset;
	const char *arg;

	o->by_worker = o->by_worker || strstr(s->value, "PRUN_WORKER");
	switch (s->opt->type) {
	case BOOL:
		*(bool *)at = one_of(s) % 2;
		break;
	case ENUM:
		*(int *)at = one_of(s);
		break;
	case LIST:
	case BLANKS:
		if (!again)
			list_free(at);
		if (!unset)
			add_items(at, s);
		break;
	case STR:
	case PATH:
		if (!strcmp(s->opt->name, "ready")
		&& proc_ready_kind(s->value, &arg) == READIES)
			bad(s->where, "ready = %s: http needs a path (http /), log an ERE, "
				"command a command, others nothing", s->value);
		*(const char **)at = unset ? NULL : s->value;
		break;
	default:
		*(int64_t *)at = number(s);
	}
}

/* ---- services ---- */

/* Whether a command has $name or ${name}. */
static bool
mentions(const char *command, const char *name)
{
	char *text = str("%s ", command);

	return fnmatch(str("*$%s[!a-zA-Z0-9_]*", name), text, 0) == 0
		|| fnmatch(str("*${%s[!a-zA-Z0-9_]*", name), text, 0) == 0;
}

/* Reads service n, "NAME[@PORT] COMMAND"; those before it have been read. */
static void
read_service(const struct opts *o, size_t n, const char *where)
{
	struct service *v = o->services;
	char *s = o->service.v[n];
	size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-");
	size_t end = strcspn(s, " \t");
	char *name = str("%.*s", (int)len, s), *port = str("%.*s", (int)(end - len), s + len);
	char *command = s + end + strspn(s + end, " \t");
	bool *taken = scratch(o->ports.n + 1);
	int number = 0;

	if (!*name || !*command || (*port && *port != '@'))
		bad(where, "service = %s: needs NAME, of a-z, 0-9, _ and -, and COMMAND", s);
	if (strstr(" test server after db setup reopen worker ", str(" %s ", name)))
		bad(where, "service = %s: the name is taken", name);
	for (size_t k = 0; k < n; k++) {
		taken[v[k].port] = true;
		if (!strcmp(v[k].name, name))
			bad(where, "service = %s is there twice", name);
	}
	/* else the first port that it mentions and nobody is awaited on */
	for (int i = 0; i < (int)o->ports.n && !number; i++)
		if (*port ? !strcmp(o->ports.v[i], port + 1)
		: !taken[i + 1] && mentions(command, o->ports.v[i]))
			number = i + 1;
	if (*port && !number)
		bad(where, "service = %s%s: ports = has no %s", name, port, port + 1);
	v[n] = (struct service){ name, command, str("service %s", name),
		number ? "tcp" : "none", number };
}

/* What holds in a suite, or NOWHERE. */
static void
resolve(const struct reading *r, struct opts *o, int suite)
{
	const int levels[] = { DEFAULT, FILE_GLOBAL, suite, PRUNFLAGS, COMMAND_LINE };
	size_t seen[LEN(table)] = { 0 }, i;
	const struct setting *db = NULL, *service = NULL;

	o->workers = INT_MAX;
	o->jobs = sysconf(_SC_NPROCESSORS_ONLN);
	for (i = 0; i < LEN(levels); i++) {
		for (const struct setting *s = r->v; s < r->v + r->n; s++) {
			if (s->level != levels[i])
				continue;
			apply(o, s, seen[s->opt - table] == i);
			seen[s->opt - table] = i;
			if (!strcmp(s->opt->name, "db"))
				db = s;
			if (!strcmp(s->opt->name, "service"))
				service = s;
		}
	}
	if (suite == NOWHERE)
		return;
	o->services = scratch((o->service.n + 1) * sizeof(*o->services));
	for (i = 0; i < o->service.n; i++)
		read_service(o, i, service->where);
	o->services[i] = (struct service){ "server", o->server, "the server", o->ready, 0 };
	/* Only now is it known whether db-clone does it. */
	const char *urls[] = { o->db, o->db_admin };
	for (i = 0; i < LEN(urls) && o->db && !o->db_clone; i++)
		if (urls[i] && url_check(urls[i]))
			bad(db->where, "%s = %s %s", i ? "db-admin" : "db", url_masked(urls[i]),
				url_check(urls[i]));
}

/* ---- reading ---- */

static void
add_setting(struct reading *r, const struct option *opt, const char *value, const char *where)
{
	r->v = grow(r->v, &r->cap, r->n + 1, sizeof(*r->v));
	r->v[r->n++] = (struct setting){ opt, value, r->level, where };
}

/* Reads --name[=VALUE], --name VALUE, -xyz, -jN, -j N; the last word. */
static char **
read_option(struct reading *r, char **words)
{
	const char *from = r->level == PRUNFLAGS ? "PRUNFLAGS" : "command line";
	bool name = (*words)[1] == '-', flag;
	const char *dash = name ? "--" : "-", *w = *words + strlen(dash), *value;

	do {
		size_t n = name ? strcspn(w, "=") : 1;
		const struct option *o = find_option(w, n, from, "option", dash);
		flag = o->type == BOOL || o->flags & MAYBE;
		if (flag && !(name && w[n]))
			value = o->type == STR ? "" : "yes";
		else if (w[n])
			value = w + n + name;
		else
			value = *++words;
		const char *where = str("%s%.*s", dash, (int)n, w);
		if (!value)
			bad(where, "needs a value: %s", o->arg);
		add_setting(r, o, value, where);
		w++;
	} while (!name && flag && *w);
	return words;
}

/* Test arguments, without those that each attempt has of its own. */
static void
read_args(struct plan *p, char **words)
{
	for (; *words; words++) {
		if (!starts(*words, "--junitxml") && !starts(*words, "--junit-xml")) {
			list_add(&p->args, *words);
			continue;
		}
		warn("%s is ignored: each attempt writes its own report; use -o FILE for the "
			"merged one", *words);
		if (!strchr(*words, '=') && words[1])
			words++;
	}
}

/* Reads options out of words; paths and test arguments go to the plan.  Notes
 * them for running a file again, but not those that may leave it out. */
static void
read_words(struct reading *r, char **words)
{
	struct plan *p = r->plan;

	for (; *words; words++) {
		if (r->level == COMMAND_LINE && !strcmp(*words, "--")) {
			read_args(p, words + 1);
			break;
		}
		if (**words != '-' || !(*words)[1]) {
			if (r->level == PRUNFLAGS)
				bad("PRUNFLAGS", "\"%s\" is not an option", *words);
			list_add(&p->paths, *words);
			continue;
		}
		char **from = words;
		words = read_option(r, words);
		const char *name = str(" %s ", r->v[r->n - 1].opt->name);
		if (r->level == PRUNFLAGS || strstr(" shard plan last-failed audit ", name))
			continue;
		for (; from <= words; from++) {
			bool secret = strstr(*from, "://") || strstr(*from, "password=");
			list_add(&p->again, secret ? url_masked(*from) : *from);
		}
	}
	p->again_at = p->again.n;
	for (; *words; words++)
		list_add(&p->again, *words);
}

static void
add_suite(struct plan *p, char *name, const char *where)
{
	p->suites = grow(p->suites, &p->capsuites, p->nsuites + 1, sizeof(*p->suites));
	p->suites[p->nsuites++] = (struct suite){ .name = name, .where = where };
}

static void
begin_suite(struct reading *r, char *line, const char *where)
{
	char *end = strchr(line, ']'), *name = line + 7;
	const struct suite *s = r->plan->suites;

	if (!starts(line, "[suite ") || !end || end[1])
		bad(where, "expected [suite NAME], got \"%s\"", line);
	*end = '\0';
	name += strspn(name, " ");
	if (!*name || strpbrk(name, " \t,"))
		bad(where, "a suite's name must be one word, not \"%s\"", name);
	for (; s < r->plan->suites + r->plan->nsuites; s++)
		if (!strcmp(s->name, name))
			bad(where, "duplicate suite \"%s\", first defined at %s", name,
				s->where);
	r->level = (int)r->plan->nsuites;
	add_suite(r->plan, name, where);
}

/* Reads key = value; the value may go on in the next line. */
static void
read_entry(struct reading *r, const char *line, const char *where)
{
	size_t n = strcspn(line, " \t=");
	const char *value = line + n + strspn(line + n, " \t");

	if (*value != '=')
		bad(where, "expected key = value, got \"%s\"", line);
	const struct option *o = find_option(line, n, where, "key", "");
	if (o->flags & ARGV)
		bad(where, "%s can only be given on the command line", o->name);
	if (r->level >= 0 && o->flags & TOP)
		bad(where, "%s must be set before the first suite", o->name);
	for (const struct setting *s = r->v; s < r->v + r->n; s++)
		if (s->opt == o && s->level == r->level && o->type != LIST && o->type != BLANKS)
			bad(where, "%s is already set at %s", o->name, s->where);
	add_setting(r, o, value + 1 + strspn(value + 1, " \t"), where);
}

static void
read_file(struct reading *r, const char *path)
{
	struct buf text = scratch_buf();
	size_t first = r->n;
	bool key = false;       /* what was read last, and may go on */
	int number = 0, lines = 1;
	char *line;

	if (buf_read(&text, path) < 0)
		bad(path, "%s", errno == EINVAL ? "not a regular file" : strerror(errno));
	for (line = text.s; *line; line++)
		lines += *line == '\n';
	if (line < text.s + text.n)
		bad(str("%s:%d", path, lines), "contains a NUL byte; is it UTF-8 text?");
	char *rest = starts(text.s, "\xef\xbb\xbf") ? text.s + 3 : text.s;  /* a BOM */
	while ((line = next_line(&rest))) {
		char *where = str("%s:%d", path, ++number);
		for (size_t n = strlen(line); n && strchr(" \t\r", line[n - 1]); n--)
			line[n - 1] = '\0';
		char *s = line + strspn(line, " \t");
		if (!*s || *s == '#')
			continue;
		if (s > line && !key)
			bad(where, "continuation line without a key");
		if (s > line) {
			struct setting *last = &r->v[r->n - 1];
			last->value = str("%s%s%s", last->value, *last->value ? " " : "", s);
			continue;
		}
		key = *line != '[';
		if (key)
			read_entry(r, line, where);
		else
			begin_suite(r, line, where);
	}
	for (struct setting *s = r->v + first; s < r->v + r->n; s++)
		if (!*s->value)
			bad(s->where, "%s has no value; use none to unset it", s->opt->name);
}

/* ---- where the user stands, and the base ---- */

/* A path from the root.  musl's realpath() keeps two slashes before it. */
static char *
rooted(const struct plan *p, const char *path)
{
	return *path == '/' ? str("%s", path) : str("%s/%s", p->cwd, path);
}

char *
conf_path(const struct plan *p, const char *path)
{
	return strcmp(p->cwd, p->base) ? rooted(p, path) : str("%s", path);
}

const char *
conf_below(const char *dir, const char *path)
{
	size_t n = strcmp(dir, "/") ? strlen(dir) : 0;

	if (strncmp(dir, path, n) || (path[n] && path[n] != '/'))
		return NULL;
	return path + n + (path[n] == '/');
}

/* A path with .. or from the root as a name, by the real directory that it is
 * in; it may be a link.  Below the base without it, else absolute. */
static char *
real_name(const struct plan *p, char *path)
{
	char *full = rooted(p, path), *last = strrchr(full, '/');

	if (!last[1] || !strcmp(last, "/..") || !strcmp(last, "/."))
		last += strlen(last);
	char *dir = real_path(str("%.*s/.", (int)(last - full), full));
	if (!dir)
		return path;
	full = str("%s%s", strcmp(dir, "/") || !*last ? dir : "", last);
	const char *name = conf_below(p->base, full);
	return name ? str("%s", *name ? name : ".") : full;
}

char *
conf_typed(const struct plan *p, char *path)
{
	const char *prefix = conf_below(p->base, p->cwd);
	struct buf b = scratch_buf();

	if (!prefix || *path == '/' || strstr(str("/%s/", path), "/../"))
		return real_name(p, path);
	if (!*prefix)
		return path;
	/* Where the user stands is no glob: app/[id], say. */
	for (; *prefix; prefix++) {
		if (strchr("*?[\\", *prefix) && strpbrk(path, "*?["))
			buf_char(&b, '\\');
		buf_char(&b, *prefix);
	}
	if (strcmp(path, "."))
		buf_fmt(&b, "/%s", path);
	return b.s;
}

char *
conf_named(const struct plan *p, char *name)
{
	const char *prefix = conf_below(p->base, p->cwd);
	char *up = "";

	if (*name == '/' || (prefix && !*prefix))
		return name;
	if (!prefix)
		return str("%s/%s", p->base, name);
	const char *rest = conf_below(prefix, name);
	if (rest)
		return str("%s", *rest ? rest : ".");
	for (const char *s = prefix; s; s = strchr(s + 1, '/'))
		up = str("%s../", up);
	return str("%s%s", up, name);
}

/* Whether path is there and we may take orders from it: it is ours, root's, or
 * of the owner of the directory that we stand in (a container's root on a
 * user's files); a link as well as what it leads to. */
static bool
is_trusted(const struct plan *p, const char *path)
{
	struct stat file, link, cwd;
	uid_t us = geteuid();

	if (stat(path, &file) < 0 || lstat(path, &link) < 0 || stat(p->cwd, &cwd) < 0)
		return false;
	if (file.st_uid == us || file.st_uid == 0 || file.st_uid == cwd.st_uid)
		file = link;
	if (file.st_uid == us || file.st_uid == 0 || file.st_uid == cwd.st_uid)
		return true;
	warn("%s is skipped: it belongs to user %ld; use -f to read it", path,
		(long)file.st_uid);
	return false;
}

/* Finds prun.conf, from the first path upwards as far as the first directory
 * that holds .git, and goes to the base; its path from there, or NULL. */
static char *
find_base(struct plan *p)
{
	char *tmp = getenv("TMPDIR");

	if (p->o.chdir && chdir(p->o.chdir) < 0)
		bad("-C", "%s: %s", p->o.chdir, strerror(errno));
	p->cwd = p->base = real_path(".");
	if (!p->cwd)
		bad("current directory", "%s", strerror(errno));
	if (p->o.config)
		return p->o.config;
	char *dir = p->cwd;
	if (p->paths.n && !p->o.merge && !p->o.clean && !p->o.reopen) {
		char *path = rooted(p, p->paths.v[0]);
		while (!(dir = real_path(str("%s/.", path))))
			*strrchr(path, '/') = '\0';
	}
	dir = strcmp(dir, "/") ? dir : "";
	while (!is_trusted(p, str("%s/prun.conf", dir))) {
		if (!*dir || access(str("%s/.git", dir), F_OK) == 0)
			return NULL;
		dir = str("%.*s", (int)(strrchr(dir, '/') - dir), dir);
	}
	p->base = *dir ? dir : "/";
	if (!strcmp(p->base, p->cwd))
		return "prun.conf";
	if ((tmp && *tmp && setenv("TMPDIR", conf_path(p, tmp), 1) < 0)
	|| chdir(p->base) < 0 || setenv("PWD", p->base, 1) < 0)
		bad(p->base, "%s", strerror(errno));
	return str("%s/prun.conf", dir);
}

void
conf_read(struct plan *p, char **argv)
{
	static struct reading r = { .level = DEFAULT };
	static struct list flags;       /* values are in it */

	r.plan = p;
	for (size_t i = 0; i < LEN(table); i++)
		if (table[i].def)
			add_setting(&r, &table[i], table[i].def, "default");
	r.level = PRUNFLAGS;
	if (getenv("PRUNFLAGS"))
		list_words(&flags, getenv("PRUNFLAGS"), " \t\n");
	list_add(&p->again, argv[0]);
	if (flags.n)
		read_words(&r, flags.v);
	r.level = COMMAND_LINE;
	read_words(&r, argv + 1);
	resolve(&r, &p->o, NOWHERE);
	if (p->o.help || p->o.version)
		return;
	bool out = p->o.junit != NULL;
	p->conf = find_base(p);
	for (struct setting *s = r.v; s < r.v + r.n; s++)
		if (s->opt->type == PATH && strcmp(s->value, "-") && strcmp(s->value, "none"))
			s->value = conf_path(p, s->value);
	r.level = FILE_GLOBAL;
	if (p->conf)
		read_file(&r, p->conf);
	resolve(&r, &p->o, NOWHERE);
	if (p->o.merge && !out)         /* never over the last run's report */
		p->o.junit = NULL;
	if (!p->o.history && p->o.junit && strcmp(p->o.junit, "-") && !is_special(p->o.junit))
		p->o.history = str("%s.history", p->o.junit);
	if (!p->nsuites)
		add_suite(p, "", NULL);
	for (size_t i = 0; i < p->nsuites; i++)
		resolve(&r, &p->suites[i].o, (int)i);
}

/* ---- shards ---- */

/* Which machine of how many this is, by what CI and schedulers tell theirs. */
static const struct {
	const char *index, *total, *first, *step;       /* numbers, or variables */
} machines[] = {
	{ "TEST_SHARD_INDEX", "TEST_TOTAL_SHARDS", "0", "1" },
	{ "CI_NODE_INDEX", "CI_NODE_TOTAL", "1", "1" },
	{ "CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", "0", "1" },
	{ "BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", "0", "1" },
	{ "BITBUCKET_PARALLEL_STEP", "BITBUCKET_PARALLEL_STEP_COUNT", "0", "1" },
	{ "SYSTEM_JOBPOSITIONINPHASE", "SYSTEM_TOTALJOBSINPHASE", "1", "1" },
	{ "SEMAPHORE_JOB_INDEX", "SEMAPHORE_JOB_COUNT", "1", "1" },
	{ "SLURM_ARRAY_TASK_ID", "PRUN_SHARDS", "1", "1" },
	{ "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN",
		"SLURM_ARRAY_TASK_STEP" },
	{ "JOB_COMPLETION_INDEX", "PRUN_SHARDS", "0", "1" },
	{ "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE", "0", "1" },
	{ "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT", "0", "1" },
};

/* Reads a whole number, or the variable of that name. */
static bool
whole(const char *word, int64_t *n)
{
	const char *s = isdigit((unsigned char)*word) ? word : getenv(word);
	char more;

	return s && isdigit((unsigned char)*s) && sscanf(s, "%9" SCNd64 "%c", n, &more) == 1;
}

/* What the environment says, in *i and *n; returns it in words. */
static char *
find_shard(int64_t *i, int64_t *n)
{
	const char *status = getenv("TEST_SHARD_STATUS_FILE");
	int64_t from, step, last;
	size_t k = 0;

	while (k < LEN(machines) && !(whole(machines[k].index, i) && whole(machines[k].total, n)
	&& whole(machines[k].first, &from) && whole(machines[k].step, &step)))
		k++;
	if (k == LEN(machines))
		bad("--shard", "auto found no shard in the environment, see prun(1)");
	/* A part of an array has its own count, not that of the shards. */
	if (starts(machines[k].step, "SLURM") && whole("SLURM_ARRAY_TASK_MAX", &last)
	&& (last != from + (*n - 1) * step || (*n == 1 && from > 1)))
		bad("--shard", "auto needs PRUN_SHARDS, the number of shards, for a part of a "
			"Slurm array; see prun(1)");
	if (k == 0 && status && file_write(status, "", 0, 0666) < 0)
		warn("TEST_SHARD_STATUS_FILE: %s:", status);
	*i = step ? (*i - from) / step + 1 : 0;
	return str("auto (%s=%s, %s=%s)", machines[k].index, getenv(machines[k].index),
		machines[k].total, getenv(machines[k].total));
}

void
conf_shard(struct plan *p)
{
	const char *given = p->o.shard;
	int64_t i = 1, n = 1;
	char more;

	if (given && !strcmp(given, "auto"))
		given = find_shard(&i, &n);
	else if (given && sscanf(given, "%9" SCNd64 "/%9" SCNd64 "%c", &i, &n, &more) != 2)
		i = 0;
	if (i < 1 || i > n)
		bad("--shard", "must be I/N with I from 1 to N, or auto, not \"%s\"", given);
	p->shard = (int)i;
	p->shards = (int)n;
}

int64_t
conf_number(const char *key, const char *value, const char *where)
{
	struct setting s = { .value = value, .where = where,
		.opt = find_option(key, strlen(key), where, "mark", "") };

	return number(&s);
}

void
conf_help(FILE *out)
{
	static const char *const title[][2] = {
		{ "jobs", "The run" }, { "merge", "Other modes" },
		{ "files", "Files and commands" }, { "db", "Databases" },
		{ "split", "Suites and order" }
	};
	size_t next = 0;

	fputs("usage: prun [options] [path ...] [-- test arguments ...]\n"
		"       prun --merge -o OUT [NAME=]path ...\n"
		"       prun --clean [-n] [run-directory ...]\n"
		"       prun --reopen DIR\n"
		"       prun --audit[=ROUNDS] [path ...]\n\n"
		"Most long options are also keys in prun.conf. See prun(1) for details.\n",
		out);
	for (const struct option *o = table; o < table + LEN(table); o++) {
		if (next < LEN(title) && !strcmp(o->name, title[next][0]))
			fprintf(out, "\n%s:\n", title[next++][1]);
		const char *form = o->flags & MAYBE ? "--%s[=%s]" : "--%s %s";
		if (o->type == BOOL)
			form = "--%s";
		const char *letter = o->flags & LETTER ? str("-%c,", o->flags & LETTER) : "";
		fprintf(out, "  %3s %-24s  %s", letter,
			str(form, o->name, o->type == ENUM ? "WORD" : o->arg), o->help);
		if (o->type == ENUM)
			fprintf(out, ": %s. Default: %.*s", o->arg, (int)strcspn(o->arg, ","),
				o->arg);
		else if (o->def && !(o->flags & MAYBE))
			fprintf(out, ". Default: %s", o->def);
		fputs(".\n", out);
	}
}
