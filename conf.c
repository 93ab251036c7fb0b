/*
 * conf.c: the options.
 *
 * One table defines every option once, for the command line, PRUNFLAGS and
 * prun.conf alike.  What is read becomes a list of settings, the file's first.
 * A suite's options are the table's defaults, to which are applied in this
 * order: the file's settings above the first suite, the suite's own, those of
 * PRUNFLAGS, those of the command line.  The last one wins; a list is replaced
 * by a more specific level and grows by repeats within one.
 *
 * prun.conf is searched upwards from the first path, else from the current
 * directory.  Commands run where it is found, and names are relative to that,
 * the base; paths in words are relative to where the user stands.
 *
 * Every mistake ends prun with one line, which names the place, and status 2.
 */
#include "prun.h"
#include <ctype.h>

enum type { BOOL, INT, JOBS, STR, LIST, BLANKS, DURATION, SIZE, ENUM, PATH, URL, READY };
enum level { DEFAULT, FILE_GLOBAL, SUITE, PRUNFLAGS, COMMAND_LINE };
/* ARGV: for the command line only; TOP: not in a suite; MAYBE: its value may be
 * left out; LIMITED: it cannot be none. */
enum { ARGV = 1, TOP = 2, MAYBE = 4, LIMITED = 8 };
/* Milliseconds and bytes are less: sums of several of them are numbers, too. */
#define NO_LIMIT 1e17

struct option {
	const char *name;       /* --name, and the key in prun.conf */
	int letter;
	enum type type;
	int flags;
	size_t offset;
	const char *arg;        /* for help; an ENUM has its words here */
	const char *def;
	const char *help;
};

#define AT(field) offsetof(struct opts, field)

static const struct option table[] = {
	{ "jobs", 'j', JOBS, TOP, AT(jobs), "N|max", NULL,
		"Run up to N files at once. Default: CPU count" },
	{ "config", 'f', PATH, ARGV, AT(config), "FILE", NULL,
		"Read FILE instead of prun.conf" },
	{ "chdir", 'C', PATH, ARGV, AT(chdir), "DIR", NULL, "Change to DIR first" },
	{ "junit", 'o', PATH, TOP, AT(junit), "FILE", NULL,
		"Write the merged JUnit report to FILE" },
	{ "history", 0, PATH, TOP, AT(history), "FILE", NULL,
		"History of earlier runs. Default: REPORT.history" },
	{ "run-dir", 'd', PATH, TOP, AT(run_dir), "DIR", NULL,
		"Put logs and reports in DIR and keep it" },
	{ "fail-fast", 'x', INT, TOP | MAYBE, AT(fail_fast), "N", "0",
		"Stop after N failing files. Default: 1" },
	{ "retries", 'r', INT, 0, AT(retries), "N", "0", "Retry failed files up to N times" },
	{ "timeout", 't', DURATION, 0, AT(timeout_ms), "DURATION", "none",
		"Time limit for the test command" },
	{ "timeout-signal", 0, ENUM, 0, AT(timeout_signal), "INT, TERM, QUIT, ABRT", "INT",
		"First signal to a test that has timed out" },
	{ "suite", 's', BLANKS, ARGV, AT(suite), "NAME,...", NULL, "Run only these suites" },
	{ "list", 'n', BOOL, ARGV, AT(list), NULL, "no", "Print the plan and run nothing" },
	{ "interactive", 'i', BOOL, ARGV, AT(interactive), NULL, "no",
		"Run one file, its test on the terminal" },
	{ "quiet", 'q', BOOL, TOP, AT(quiet), NULL, "no", "Print only failures and totals" },
	{ "verbose", 'v', BOOL, TOP, AT(verbose), NULL, "no",
		"Print details of cancelled files too" },
	{ "help", 'h', BOOL, ARGV, AT(help), NULL, "no", "Print this help" },
	{ "version", 'V', BOOL, ARGV, AT(version), NULL, "no", "Print the version" },
	{ "keep", 0, ENUM, 0, AT(keep), "failed, run, always, never", "failed",
		"Databases to keep" },
	{ "last-failed", 0, BOOL, TOP, AT(last_failed), NULL, "no",
		"Run only files that did not pass last time" },
	{ "shuffle", 0, STR, TOP | MAYBE, AT(shuffle), "SEED", NULL,
		"Run files in random order" },
	{ "shard", 0, STR, TOP, AT(shard), "I/N|auto", NULL,
		"Run only part I of N of the files" },
	{ "plan", 0, STR, TOP, AT(plan), "HASH", NULL,
		"Run nothing if the plan is not this one" },
	{ "repeat", 0, INT, TOP, AT(repeat), "N", "1", "Run every file N times, side by side" },
	{ "merge", 0, BOOL, ARGV, AT(merge), NULL, "no", "Merge reports and run directories" },
	{ "strict", 0, BOOL, ARGV, AT(strict), NULL, "no",
		"With --merge: exit 1 if there are failures" },
	{ "partial", 0, BOOL, ARGV, AT(partial), NULL, "no",
		"With --merge: accept missing shards" },
	{ "rerun", 0, BOOL, ARGV, AT(rerun), NULL, "no",
		"With --merge: of files that are there twice the later run counts" },
	{ "clean", 0, BOOL, ARGV, AT(clean), NULL, "no", "Drop what earlier runs left" },
	{ "reopen", 0, PATH, ARGV, AT(reopen), "DIR", NULL,
		"Start a kept attempt's server again" },
	{ "audit", 0, INT, ARGV | MAYBE, AT(audit), "ROUNDS", "0",
		"Find files that break each other. Default: 5" },
	{ "github", 0, ENUM, TOP, AT(github), "auto, no", "auto",
		"Annotate failing tests on GitHub" },
	{ "files", 0, BLANKS, 0, AT(files), "PATH", NULL,
		"Files, directories and globs to run" },
	{ "exclude", 0, BLANKS, 0, AT(exclude), "GLOB", NULL, "Files not to run" },
	{ "test", 0, STR, 0, AT(test), "CMD", NULL, "Command that runs one file, $PRUN_TEST" },
	{ "collect", 0, STR, 0, AT(collect), "CMD", NULL,
		"Command that lists the tests of files" },
	{ "server", 0, STR, 0, AT(server), "CMD", NULL, "Command that serves on $PRUN_PORT" },
	{ "setup", 0, STR, 0, AT(setup), "CMD", NULL,
		"Command to run once, before the first clone" },
	{ "after", 0, STR, 0, AT(after), "CMD", NULL, "Command to run after every attempt" },
	{ "service", 0, LIST, 0, AT(service), "NAME CMD", NULL,
		"Command to start before the server" },
	{ "ports", 0, BLANKS, 0, AT(ports), "NAME", NULL,
		"Variables that get a port of their own each" },
	{ "ready", 0, READY, 0, AT(ready), "HOW", "tcp",
		"tcp, http PATH, log ERE, command CMD, fd or none" },
	{ "ready-timeout", 0, DURATION, 0, AT(ready_timeout_ms), "DURATION", "15s",
		"Time for the server to get ready" },
	{ "grace", 0, DURATION, LIMITED, AT(grace_ms), "DURATION", "5s",
		"Time between TERM and KILL" },
	{ "db", 0, URL, 0, AT(db), "URL", NULL, "Template database, cloned for each attempt" },
	{ "db-env", 0, BLANKS, 0, AT(db_env), "NAME", "DATABASE_URL",
		"NAME gets the clone's URL" },
	{ "db-admin", 0, URL, 0, AT(db_admin), "URL", NULL,
		"URL to create and drop clones, past a pooler" },
	{ "db-clone", 0, STR, 0, AT(db_clone), "CMD", NULL,
		"Command that clones another kind of database" },
	{ "db-drop", 0, STR, 0, AT(db_drop), "CMD", NULL, "Command that drops such a clone" },
	{ "db-terminate", 0, BOOL, 0, AT(db_terminate), NULL, "yes",
		"End sessions on the template" },
	{ "db-strategy", 0, ENUM, 0, AT(db_strategy), "auto, wal_log, file_copy", "auto",
		"How PostgreSQL copies a template" },
	{ "db-unused", 0, ENUM, 0, AT(db_unused), "note, fail", "note",
		"A database that nobody connected to" },
	{ "url-env", 0, BLANKS, 0, AT(url_env), "NAME", NULL, "NAME gets the server's URL" },
	{ "port-env", 0, BLANKS, 0, AT(port_env), "NAME", NULL, "NAME gets the port" },
	{ "env", 0, LIST, 0, AT(env), "NAME=VALUE", NULL,
		"Set a variable for server and test" },
	{ "unset", 0, BLANKS, 0, AT(unset), "GLOB", NULL,
		"Hide these variables from server and test" },
	{ "serial", 0, BLANKS, 0, AT(serial), "GLOB", NULL, "Run these files one at a time" },
	{ "alone", 0, BLANKS, 0, AT(alone), "GLOB", NULL, "Run these files alone" },
	{ "lock", 0, LIST, 0, AT(lock), "NAME GLOB...", NULL,
		"Run one holder of NAME at a time" },
	{ "split", 0, ENUM, 0, AT(split), "file, suite, dir, test", "file",
		"What runs as one unit" },
	{ "enabled", 0, BOOL, 0, AT(enabled), NULL, "yes", "Whether the suite runs" },
	{ "workers", 0, INT, 0, AT(workers), "N", NULL,
		"Run up to N files of the suite at once" },
	{ "server-failure", 0, ENUM, 0, AT(server_failure), "stop, continue", "stop",
		"What to do when a server cannot start" },
	{ "server-exit", 0, ENUM, 0, AT(server_exit), "fail, pass", "fail",
		"Server that exits with 0 during the test" },
	{ "flaky", 0, ENUM, TOP, AT(flaky), "pass, fail", "pass", "How FLAKY counts" },
	{ "leak", 0, ENUM, 0, AT(leak), "note, fail", "note",
		"Processes a test leaves running" },
	{ "log-limit", 0, SIZE, 0, AT(log_limit), "SIZE", "256M",
		"Kill an attempt whose log is larger" },
	{ "report-limit", 0, SIZE, TOP, AT(report_limit), "SIZE", "1M",
		"Cut longer texts in reports" },
	{ "no-tests", 0, ENUM, TOP, AT(no_tests), "fail, pass", "fail",
		"Status when no files are found" },
	{ "max-worker-restart", 0, INT, TOP, AT(max_worker_restart), "N", "3",
		"Workers that may die" },
};

struct setting {
	const struct option *opt;
	const char *value;      /* NULL: a flag without one */
	enum level level;
	int suite;              /* of level SUITE, else NOWHERE */
	const char *where;      /* "prun.conf:7" or "--jobs" */
};

struct settings {
	struct setting *v;
	size_t n, cap;
};

enum { NOWHERE = -1 };          /* in no suite */

struct reading {
	struct plan *plan;
	struct settings *to;
	enum level level;       /* of what is being read */
	int suite;
};

static size_t
min(size_t a, size_t b)
{
	return a < b ? a : b;
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
			row[k] = a[i] == b[k - 1] ? old : 1 + min(old, min(above, row[k - 1]));
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
	size_t i, d, least = n / 2 + 2;

	for (i = 0; i < LEN(table); i++) {
		d = distance(word, table[i].name);
		if (d == 0)
			return &table[i];
		if (d < least) {
			least = d;
			near = &table[i];
		}
	}
	if (near)
		bad(where, "unknown %s \"%s%s\" (%s%s?)", what, dash, word, dash, near->name);
	bad(where, "unknown %s \"%s%s\"", what, dash, word);
	return NULL;
}

/* ---- values ---- */

static int64_t
with_unit(const struct setting *s)
{
	static const struct { enum type type; const char *name; int64_t factor; } units[] = {
		{ DURATION, "ms", 1 }, { DURATION, "s", 1000 }, { DURATION, "m", 60000 },
		{ DURATION, "h", 3600000 }, { DURATION, "", 1000 },
		{ SIZE, "K", 1 << 10 }, { SIZE, "M", 1 << 20 }, { SIZE, "G", 1 << 30 },
		{ SIZE, "", 1 },
	};
	bool bounded = s->opt->type == DURATION && strcmp(s->opt->def, "none");
	double n = -1;
	char *end = "";
	size_t i;

	/* What is always bounded gets a bound that never comes. */
	if (!strcmp(s->value, "none") && !(s->opt->flags & LIMITED))
		return bounded ? (int64_t)NO_LIMIT : -1;
	if (isdigit((unsigned char)*s->value) || *s->value == '.')
		n = strtod(s->value, &end);
	for (i = 0; n >= 0 && i < LEN(units); i++) {
		if (units[i].type != s->opt->type || strcmp(end, units[i].name))
			continue;
		n *= (double)units[i].factor;
		if (n > NO_LIMIT)
			bad(s->where, "%s is too large: %s", s->opt->name, s->value);
		return (int64_t)(n + 0.5);
	}
	bad(s->where, "%s must be %s, not \"%s\"", s->opt->name, s->opt->type == SIZE
		? "a size like 256M" : "a duration like 90s or 5m", s->value);
	return 0;
}

static int64_t
count(const struct setting *s)
{
	const char *limits = "";
	char *end = "";
	int64_t n = -1;

	if (!s->value)
		return strcmp(s->opt->name, "audit") ? 1 : 5;
	if (s->opt->type == JOBS && !strcmp(s->value, "max"))
		return INT_MAX;
	/* as a flag: yes, no */
	if (s->opt->flags & MAYBE && (!strcmp(s->value, "yes") || !strcmp(s->value, "no")))
		return *s->value == 'y';
	if (s->opt->type == INT && !strcmp(s->value, "none"))
		return s->opt->def ? strtoll(s->opt->def, NULL, 10) : INT_MAX;
	if (s->opt->type == JOBS)
		limits = " above 0, or max";
	else if (!strcmp(s->opt->name, "workers") || !strcmp(s->opt->name, "repeat"))
		limits = " above 0";
	if (isdigit((unsigned char)*s->value))
		n = strtoll(s->value, &end, 10);
	if (n < 0 || *end || n > INT_MAX || (n == 0 && *limits))
		bad(s->where, "%s must be a whole number%s, not \"%s\"", s->opt->name, limits,
			s->value);
	return n;
}

static int
one_of(const struct setting *s)
{
	const char *word = s->opt->arg;
	size_t n = strlen(s->value);
	int i;

	for (i = 0; *word; i++) {
		if (strcspn(word, ",") == n && !strncmp(word, s->value, n))
			return i;
		word += strcspn(word, ",");
		word += strspn(word, ", ");
	}
	bad(s->where, "%s must be one of: %s (not \"%s\")", s->opt->name, s->opt->arg,
		s->value);
	return 0;
}

static bool
yes(const struct setting *s)
{
	if (!s->value || !strcmp(s->value, "yes") || !strcmp(s->value, "true"))
		return true;
	if (strcmp(s->value, "no") && strcmp(s->value, "false"))
		bad(s->where, "%s must be yes or no, not \"%s\"", s->opt->name, s->value);
	return false;
}

static void
add_items(struct list *l, const struct setting *s)
{
	if (s->opt->type == BLANKS) {
		list_words(l, s->value, s->opt->letter == 's' ? ", \t" : " \t");
		return;
	}
	if (!strcmp(s->opt->name, "env") && !strchr(s->value, '='))
		bad(s->where, "env must be NAME=VALUE, not \"%s\"", s->value);
	if (!strcmp(s->opt->name, "lock") && !strpbrk(s->value, " \t"))
		bad(s->where, "lock must be NAME GLOB..., not \"%s\"", s->value);
	list_add(l, s->value);
}

/* Puts a setting's value where it belongs; again: its list grows. */
static void
apply(struct opts *o, const struct setting *s, bool again)
{
	void *at = (char *)o + s->opt->offset;
	const char *wrong;

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
		if (wrong)
			bad(s->where, "ready = %s: %s", s->value, wrong);
		*(const char **)at = s->value;
		break;
	case STR:
	case PATH:
	case URL:
		*(const char **)at = s->value ? s->value : "";
		if (s->value && !strcmp(s->value, "none"))
			*(const char **)at = NULL;
	}
}

/* ---- services ---- */

/* Whether a command has $name or ${name}. */
static bool
mentions(const char *command, const char *name)
{
	const char *s;
	size_t n = strlen(name);

	for (s = strchr(command, '$'); s; s = strchr(s + 1, '$')) {
		if (starts(s, str("${%s}", name)))
			return true;
		if (!strncmp(s + 1, name, n) && s[n + 1] != '_'
		&& !isalnum((unsigned char)s[n + 1]))
			return true;
	}
	return false;
}

/* Index of the first port that the command mentions and nobody before it was
 * awaited on; -1: none. */
static int
own_port(const struct opts *o, const struct service *v, size_t n, const char *command)
{
	size_t i, k;

	for (i = 0; i < o->ports.n; i++) {
		for (k = 0; k < n && v[k].port != (int)i; k++)
			;
		if (k == n && mentions(command, o->ports.v[i]))
			return (int)i;
	}
	return -1;
}

/* Reads "NAME[@PORT] COMMAND"; v has the n services before it.  Returns what is
 * wrong, or NULL. */
static const char *
read_service(const struct opts *o, const char *s, struct service *v, size_t n)
{
	static const char *const logs[] = { "test", "server", "after", "db", "setup", "reopen",
		"worker" };
	size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-"), i;
	char *port;

	v[n].name = str("%.*s", (int)len, s);
	v[n].port = -1;
	if (find_word(logs, LEN(logs), v[n].name) < LEN(logs))
		return str("service = %s: the name is taken", v[n].name);
	for (i = 0; i < n; i++)
		if (!strcmp(v[i].name, v[n].name))
			return str("service = %s is there twice", v[n].name);
	if (s[len] == '@') {
		s += len + 1;
		len = strcspn(s, " \t");
		port = str("%.*s", (int)len, s);
		for (i = 0; i < o->ports.n && strcmp(o->ports.v[i], port); i++)
			;
		if (i == o->ports.n)
			return str("service = %s@%s: ports = has no %s", v[n].name, port, port);
		v[n].port = (int)i;
	}
	v[n].command = str("%s", s + len + strspn(s + len, " \t"));
	if (!*v[n].name || !*v[n].command || !strchr(" \t", s[len]))
		return str("service = %s: needs NAME, of a-z, 0-9, _ and -, and COMMAND", s);
	if (v[n].port < 0)
		v[n].port = own_port(o, v, n, v[n].command);
	return NULL;
}

const char *
conf_services(const struct opts *o, struct service **list)
{
	struct service *v = scratch((o->service.n + 1) * sizeof(*v));
	const char *wrong;
	size_t i;

	for (i = 0; i < o->service.n; i++) {
		wrong = read_service(o, o->service.v[i], v, i);
		if (wrong)
			return wrong;
	}
	if (list)
		*list = v;
	return NULL;
}

/* What holds in a suite, or NOWHERE. */
static void
resolve(const struct settings *from, struct opts *o, int suite)
{
	enum level seen[LEN(table)] = { DEFAULT };
	struct setting def = { .level = DEFAULT, .suite = NOWHERE, .where = "default" };
	const struct setting *s, *db = NULL, *service = NULL;
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
	for (i = 0; i < from->n; i++) {
		s = &from->v[i];
		if (s->suite >= 0 && s->suite != suite)
			continue;
		k = (size_t)(s->opt - table);
		apply(o, s, seen[k] == s->level);
		seen[k] = s->level;
		if (!strcmp(s->opt->name, "db"))
			db = s;
		if (!strcmp(s->opt->name, "service"))
			service = s;
	}
	wrong = service && suite != NOWHERE ? conf_services(o, NULL) : NULL;
	if (wrong)
		bad(service->where, "%s", wrong);
	/* Only now is it known whether db-clone does it. */
	if (suite == NOWHERE || !o->db || o->db_clone)
		return;
	wrong = url_check(o->db);
	if (wrong)
		bad(db->where, "db = %s %s", url_masked(o->db), wrong);
	wrong = o->db_admin ? url_check(o->db_admin) : NULL;
	if (wrong)
		bad(db->where, "db-admin = %s %s", url_masked(o->db_admin), wrong);
}

/* ---- reading ---- */

static void
add_setting(struct reading *r, const struct option *opt, const char *value, const char *where)
{
	struct setting s = { opt, value ? str("%s", value) : NULL, r->level, r->suite, where };

	r->to->v = grow(r->to->v, &r->to->cap, r->to->n + 1, sizeof(s));
	r->to->v[r->to->n++] = s;
}

/* Adds an option whose value, where it is NULL, may be the next word; returns the
 * last word used. */
static char **
add_option(struct reading *r, const struct option *o, const char *value, const char *where,
	char **words)
{
	if (!value && o->type != BOOL && !(o->flags & MAYBE)) {
		value = *++words;
		if (!value)
			bad(where, "needs a value: %s", o->arg);
	}
	add_setting(r, o, value, where);
	return words;
}

/* --name, --name=VALUE or --name VALUE */
static char **
read_long(struct reading *r, char **words)
{
	const char *name = *words + 2, *eq = strchr(name, '=');
	const struct option *o = find_option(name, strcspn(name, "="),
		r->level == PRUNFLAGS ? "PRUNFLAGS" : "command line", "option", "--");

	return add_option(r, o, eq ? eq + 1 : NULL, str("--%s", o->name), words);
}

/* -xyz, -jN or -j N */
static char **
read_short(struct reading *r, char **words)
{
	const char *w, *where;
	size_t i;

	for (w = *words + 1; *w; w++) {
		where = str("-%c", *w);
		for (i = 0; i < LEN(table) && table[i].letter != *w; i++)
			;
		if (i == LEN(table))
			bad(where, "unknown option; see prun -h");
		if (table[i].type != BOOL && !(table[i].flags & MAYBE))
			return add_option(r, &table[i], w[1] ? w + 1 : NULL, where, words);
		add_setting(r, &table[i], NULL, where);
	}
	return words;
}

/* Test arguments, without those that each attempt has of its own. */
static void
read_args(struct plan *p, char **words)
{
	bool joined;

	for (; *words; words++) {
		joined = starts(*words, "--junitxml=") || starts(*words, "--junit-xml=");
		if (!joined && strcmp(*words, "--junitxml") && strcmp(*words, "--junit-xml")) {
			list_add(&p->args, *words);
			continue;
		}
		warn("%s is ignored: each attempt writes its own report; use -o FILE for the "
			"merged one", *words);
		if (!joined && words[1])
			words++;
	}
}

/* Notes words as typed, for running a file again; an option that may leave the file out
 * is not among them, and passwords are shown as ***. */
static void
note_words(struct reading *r, char **from, char **to)
{
	static const char *const choosing[] = { "shard", "plan", "last-failed" };
	const char *last = r->to->n ? r->to->v[r->to->n - 1].opt->name : "";
	bool secret;

	if (**from == '-' && find_word(choosing, LEN(choosing), last) < LEN(choosing))
		return;
	for (; from <= to; from++) {
		secret = strstr(*from, "://") || strstr(*from, "password=");
		list_add(&r->plan->again, secret ? url_masked(*from) : *from);
	}
}

/* Reads options out of words; paths and test arguments go to the plan. */
static void
read_words(struct reading *r, char **words)
{
	struct plan *p = r->plan;
	char **from;

	for (; *words; words++) {
		from = words;
		if (r->level == COMMAND_LINE && !strcmp(*words, "--")) {
			read_args(p, words + 1);
			break;
		}
		if (starts(*words, "--")) {
			words = read_long(r, words);
		} else if (**words == '-' && (*words)[1]) {
			words = read_short(r, words);
		} else if (r->level == PRUNFLAGS) {
			bad("PRUNFLAGS", "\"%s\" is not an option", *words);
		} else {
			list_add(&p->paths, *words);
			if (!p->again_at)
				p->again_at = p->again.n;
			continue;
		}
		if (r->level == COMMAND_LINE)
			note_words(r, from, words);
	}
	if (!p->again_at)
		p->again_at = p->again.n;
	for (; *words; words++)
		list_add(&p->again, *words);
}

static void
add_suite(struct plan *p, const char *name, int line_number)
{
	struct suite *s;

	p->suites = grow(p->suites, &p->capsuites, p->nsuites + 1, sizeof(*p->suites));
	s = memset(&p->suites[p->nsuites++], 0, sizeof(*s));
	s->name = str("%s", name);
	s->where = line_number;
}

static void
begin_suite(struct reading *r, char *line, int line_number, const char *where)
{
	struct plan *p = r->plan;
	char *end = strchr(line, ']'), *name;
	size_t i;

	if (!starts(line, "[suite ") || !end || end[1] || end == line + 7)
		bad(where, "expected [suite NAME], got \"%s\"", line);
	*end = '\0';
	name = line + 7 + strspn(line + 7, " ");
	if (!*name || strpbrk(name, " \t,"))
		bad(where, "a suite's name must be one word, not \"%s\"", name);
	for (i = 0; i < p->nsuites; i++)
		if (!strcmp(p->suites[i].name, name))
			bad(where, "duplicate suite \"%s\", first defined at line %d", name,
				p->suites[i].where);
	r->level = SUITE;
	r->suite = (int)p->nsuites;
	add_suite(p, name, line_number);
}

/* One key = value; the value may have come from several lines. */
static void
read_key(struct reading *r, char *text, const char *where)
{
	const struct setting *v = r->to->v;
	const struct option *o;
	const char *value;
	size_t n = strcspn(text, "="), i;
	bool list;

	if (!text[n])
		bad(where, "expected key = value, got \"%s\"", text);
	value = text + n + 1 + strspn(text + n + 1, " \t");
	while (n && strchr(" \t", text[n - 1]))
		n--;
	o = find_option(text, n, where, "key", "");
	if (o->flags & ARGV)
		bad(where, "%s can only be given on the command line", o->name);
	if (r->level == SUITE && o->flags & TOP)
		bad(where, "%s must be set before the first suite", o->name);
	list = o->type == LIST || o->type == BLANKS;
	for (i = 0; i < r->to->n && !list; i++)
		if (v[i].opt == o && v[i].suite == r->suite)
			bad(where, "%s is already set at %s", o->name, v[i].where);
	if (!*value)
		bad(where, "%s has no value; use none to unset it", o->name);
	add_setting(r, o, value, where);
}

static void
read_file(struct reading *r, const char *path)
{
	struct buf text = { 0 }, key = { 0 };
	char *rest, *line, *where, *key_where = NULL;
	size_t n;
	int line_number = 0;

	if (buf_read(&text, path) < 0)
		bad(path, "%s", errno == EINVAL ? "not a regular file" : strerror(errno));
	rest = starts(text.s, "\xef\xbb\xbf") ? text.s + 3 : text.s;  /* a BOM */
	while ((line = next_line(&rest))) {
		where = str("%s:%d", path, ++line_number);
		for (n = strlen(line); n && strchr(" \t\r", line[n - 1]); n--)
			line[n - 1] = '\0';
		if (!*line || line[strspn(line, " \t")] == '#')
			continue;
		if (strchr(" \t", *line)) {
			if (!key.n)
				bad(where, "continuation line without a key");
			buf_fmt(&key, " %s", line + strspn(line, " \t"));
			continue;
		}
		if (key.n)
			read_key(r, key.s, key_where);
		key.n = 0;
		key_where = where;
		if (*line == '[')
			begin_suite(r, line, line_number, where);
		else
			buf_str(&key, line);
	}
	if (rest < text.s + text.n)
		bad(str("%s:%d", path, line_number), "contains a NUL byte; is it UTF-8 text?");
	if (key.n)
		read_key(r, key.s, key_where);
	buf_free(&text);
	buf_free(&key);
}

/* ---- where the user stands, and the base ---- */

char *
conf_path(const struct plan *p, const char *path)
{
	return *path == '/' || !strcmp(p->cwd, p->base) ? str("%s", path)
		: str("%s/%s", p->cwd, path);
}

const char *
conf_below(const char *dir, const char *path)
{
	size_t n = strlen(dir);

	if (!strcmp(dir, "/"))
		return *path == '/' ? path + 1 : NULL;
	if (strncmp(dir, path, n) || (path[n] && path[n] != '/'))
		return NULL;
	return path + n + (path[n] == '/');
}

/* A path with .. or from the root as a name: by the real directory that it is in, whose
 * last component may be a link.  Below the base without it, else absolute. */
static char *
real_name(const struct plan *p, const char *path)
{
	char *full = str(*path == '/' ? "%s%s" : "%s/%s", *path == '/' ? "" : p->cwd, path);
	char *slash = strrchr(full, '/'), *last = slash + 1, *real;
	const char *name;

	if (!strcmp(last, "..") || !strcmp(last, ".") || !*last)
		last = "";
	else
		*slash = '\0';
	real = realpath(*full ? full : "/", NULL);
	if (!real)
		return str("%s", path);
	full = str("%s%s%s", strcmp(real, "/") ? real : "", *last || !real[1] ? "/" : "", last);
	free(real);
	name = conf_below(p->base, full);
	if (name)
		return str("%s", *name ? name : ".");
	return full;
}

char *
conf_typed(const struct plan *p, char *path)
{
	const char *prefix = conf_below(p->base, p->cwd);
	struct buf b = { 0 };

	if (!prefix || *path == '/' || starts(str("/%s/", path), "/../")
	|| strstr(str("/%s/", path), "/../"))
		return real_name(p, path);
	if (!*prefix)
		return path;
	for (; *prefix; prefix++) {
		if (strchr("*?[\\", *prefix) && strpbrk(path, "*?["))
			buf_char(&b, '\\');
		buf_char(&b, *prefix);
	}
	if (strcmp(path, "."))
		buf_fmt(&b, "/%s", path);
	path = str("%s", b.s);
	buf_free(&b);
	return path;
}

char *
conf_named(const struct plan *p, char *name)
{
	const char *prefix = conf_below(p->base, p->cwd), *rest, *s;
	char *up = "";

	if (*name == '/' || (prefix && !*prefix))
		return name;
	if (!prefix)
		return str("%s/%s", p->base, name);
	rest = conf_below(prefix, name);
	if (rest)
		return str("%s", *rest ? rest : ".");
	for (s = prefix; s; s = strchr(s + 1, '/'))
		up = str("%s../", up);
	return str("%s%s", up, name);
}

/* The directory that the first path names or is in, without symbolic links. */
static char *
first_dir(const struct plan *p)
{
	char *path, *slash, *real;
	struct stat st;
	size_t n;

	if (!p->paths.n || p->o.merge || p->o.clean || p->o.reopen)
		return p->cwd;
	path = p->paths.v[0];
	n = strcspn(path, "*?[");
	path = str("%s/%.*s", *path == '/' ? "" : p->cwd, (int)n, path);
	if (strstr(path, "::"))
		*strstr(path, "::") = '\0';
	while (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		slash = strrchr(path, '/');
		if (slash == path)
			break;
		*slash = '\0';
	}
	real = realpath(path, NULL);
	path = str("%s", real ? real : p->cwd);
	free(real);
	return path;
}

/* Whether we may take orders from path: it is ours, root's, or of the owner of the
 * directory that we stand in (a container's root on a user's files); a link as well as
 * what it leads to. */
static bool
is_trusted(const struct plan *p, const char *path)
{
	struct stat st[2], cwd;
	uid_t us = geteuid(), uid;
	int i;

	if (stat(path, &st[0]) < 0 || lstat(path, &st[1]) < 0 || stat(p->cwd, &cwd) < 0)
		return false;
	for (i = 0; i < 2; i++) {
		uid = st[i].st_uid;
		if (uid == us || uid == 0 || uid == cwd.st_uid)
			continue;
		warn("%s is skipped: it belongs to user %ld; use -f to read it", path,
			(long)uid);
		return false;
	}
	return true;
}

/* Looks for prun.conf from dir upwards, up to the first directory that holds .git. */
static char *
find_file(const struct plan *p, char *dir)
{
	char *path, *slash;

	for (;;) {
		path = str("%s/prun.conf", dir);
		if (access(path, F_OK) == 0 && is_trusted(p, path))
			return path;
		slash = strrchr(dir, '/');
		if (!*dir || access(str("%s/.git", dir), F_OK) == 0)
			return NULL;
		*slash = '\0';
	}
}

/* Finds where we are, the file to read, and the base, and goes there; the file's path
 * from there, or NULL. */
static char *
find_base(struct plan *p)
{
	char *path, *dir, *cwd, *tmp = getenv("TMPDIR");

	if (p->o.chdir && chdir(p->o.chdir) < 0)
		bad("-C", "%s: %s", p->o.chdir, strerror(errno));
	cwd = realpath(".", NULL);
	if (!cwd)
		bad("current directory", "%s", strerror(errno));
	p->cwd = p->base = str("%s", cwd);
	free(cwd);
	if (p->o.config)
		return p->o.config;
	dir = str("%s", first_dir(p));
	path = find_file(p, strcmp(dir, "/") ? dir : "");
	if (!path)
		return NULL;
	p->base = str("%.*s", (int)(strrchr(path, '/') - path), path);
	if (!*p->base)
		p->base = "/";
	if (!strcmp(p->base, p->cwd))
		return "prun.conf";
	if (tmp && *tmp && setenv("TMPDIR", conf_path(p, tmp), 1) < 0)
		fatal(EXIT_RUN, "setenv:");
	if (chdir(p->base) < 0 || setenv("PWD", p->base, 1) < 0)
		bad(p->base, "%s", strerror(errno));
	return path;
}

void
conf_read(struct plan *p, char **argv)
{
	struct settings all = { 0 }, words = { 0 };
	struct reading r = { p, &words, PRUNFLAGS, NOWHERE };
	struct list flags = { 0 };
	struct setting s;
	bool out;
	size_t i;

	if (getenv("PRUNFLAGS"))
		list_words(&flags, getenv("PRUNFLAGS"), " \t\n");
	list_add(&p->again, argv[0]);
	if (flags.n)
		read_words(&r, flags.v);
	p->again_at = 0;
	r.level = COMMAND_LINE;
	read_words(&r, argv + 1);
	resolve(&words, &p->o, NOWHERE);
	out = p->o.junit != NULL;
	if (!p->o.help && !p->o.version) {
		p->conf = find_base(p);
		r.to = &all;
		r.level = FILE_GLOBAL;
		if (p->conf)
			read_file(&r, p->conf);
		for (i = 0; i < words.n; i++) {
			s = words.v[i];
			if (s.opt->type == PATH && strcmp(s.value, "-")
			&& strcmp(s.value, "none"))
				s.value = conf_path(p, s.value);
			all.v = grow(all.v, &all.cap, all.n + 1, sizeof(s));
			all.v[all.n++] = s;
		}
		resolve(&all, &p->o, NOWHERE);
		if (p->o.merge && !out)         /* never over the last run's report */
			p->o.junit = NULL;
		if (!p->nsuites)
			add_suite(p, "", 0);
		for (i = 0; i < p->nsuites; i++)
			resolve(&all, &p->suites[i].o, (int)i);
	}
	list_free(&flags);
	free(all.v);
	free(words.v);
}

/* ---- shards ---- */

/* Which machine of how many this is, by what CI and schedulers tell theirs. */
static const struct {
	const char *index, *total, *first, *step;       /* first: a number or a variable */
} machines[] = {
	{ "TEST_SHARD_INDEX", "TEST_TOTAL_SHARDS", "0", NULL },
	{ "CI_NODE_INDEX", "CI_NODE_TOTAL", "1", NULL },
	{ "CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", "0", NULL },
	{ "BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", "0", NULL },
	{ "BITBUCKET_PARALLEL_STEP", "BITBUCKET_PARALLEL_STEP_COUNT", "0", NULL },
	{ "SYSTEM_JOBPOSITIONINPHASE", "SYSTEM_TOTALJOBSINPHASE", "1", NULL },
	{ "SEMAPHORE_JOB_INDEX", "SEMAPHORE_JOB_COUNT", "1", NULL },
	{ "SLURM_ARRAY_TASK_ID", "PRUN_SHARDS", "1", NULL },
	{ "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN",
		"SLURM_ARRAY_TASK_STEP" },
	{ "JOB_COMPLETION_INDEX", "PRUN_SHARDS", "0", NULL },
	{ "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE", "0", NULL },
	{ "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT", "0", NULL },
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

/* What the environment says, in *i and *n; returns it in words. */
static char *
find_shard(int64_t *i, int64_t *n)
{
	const char *index, *total, *first, *status = getenv("TEST_SHARD_STATUS_FILE");
	int64_t from = 0, step = 1, last;
	size_t k;

	for (k = 0; k < LEN(machines); k++) {
		index = getenv(machines[k].index);
		total = getenv(machines[k].total);
		first = isdigit((unsigned char)*machines[k].first) ? machines[k].first
			: getenv(machines[k].first);
		if (whole(index, i) && whole(total, n) && whole(first, &from)
		&& (!machines[k].step || whole(getenv(machines[k].step), &step)))
			break;
	}
	if (k == LEN(machines))
		bad("--shard", "auto found no shard in the environment, see prun(1)");
	/* A part of an array has its own count, not that of the shards. */
	if (machines[k].step && whole(getenv("SLURM_ARRAY_TASK_MAX"), &last)
	&& (last != from + (*n - 1) * step || (*n == 1 && from > 1)))
		bad("--shard", "auto needs PRUN_SHARDS, the number of shards, for a part of a "
			"Slurm array; see prun(1)");
	if (k == 0 && status && file_write(status, "", 0, 0666) < 0)
		warn("TEST_SHARD_STATUS_FILE: %s:", status);
	*i = step ? (*i - from) / step + 1 : 0;
	return str("auto (%s=%s, %s=%s)", machines[k].index, index, machines[k].total, total);
}

void
conf_shard(struct plan *p)
{
	const char *given = p->o.shard;
	int64_t i = 1, n = 1;
	size_t slash = given ? strcspn(given, "/") : 0;

	if (given && !strcmp(given, "auto"))
		given = find_shard(&i, &n);
	else if (given && (!given[slash] || !whole(given + slash + 1, &n)
	|| !whole(str("%.*s", (int)slash, given), &i)))
		i = 0;
	if (i < 1 || i > n)
		bad("--shard", "must be I/N with I from 1 to N, or auto, not \"%s\"", given);
	p->shard = (int)i;
	p->shards = (int)n;
}

int64_t
conf_number(const char *key, const char *value, const char *where)
{
	struct setting s = { find_option(key, strlen(key), where, "mark", ""), value, DEFAULT,
		NOWHERE, where };

	return s.opt->type == DURATION ? with_unit(&s) : count(&s);
}

void
conf_help(FILE *out)
{
	const struct option *o;
	const char *form;
	size_t i;

	fputs("usage: prun [options] [path ...] [-- test arguments ...]\n"
		"       prun --merge -o OUT [NAME=]path ...\n"
		"       prun --clean [-n] [run-directory ...]\n"
		"       prun --reopen DIR\n"
		"       prun --audit[=ROUNDS] [path ...]\n\n"
		"Most long options are also keys in prun.conf. See prun(1) for details.\n\n",
		out);
	for (i = 0; i < LEN(table); i++) {
		o = &table[i];
		form = o->flags & MAYBE ? "--%s[=%s]" : "--%s %s";
		if (o->type == BOOL)
			form = "--%s";
		fprintf(out, "  %3s %-24s  %s", o->letter ? str("-%c,", o->letter) : "",
			str(form, o->name, o->type == ENUM ? "WORD" : o->arg), o->help);
		if (o->type == ENUM)
			fprintf(out, ": %s", o->arg);
		fputc('.', out);
		if (o->def && strcmp(o->def, "no") && !(o->flags & MAYBE))
			fprintf(out, " Default: %s.", o->def);
		fputc('\n', out);
	}
}
