/*
 * tap.c: makes a JUnit report of the TAP in a test's log, versions 12 to 14.
 *
 * A log is TAP if it has a version line, a plan and results, a plan of none, or
 * results numbered from 1; anything else may have been printed by any program.
 * A subtest is indented by four; its results are named parent/child and stand
 * for their parent, whose line comes behind them (or before, with a brace).  What
 * follows a result is about it: a YAML block, diagnostics.  A plan that does not
 * fit is a case [plan], an error.  Where the first plan is fulfilled another one
 * may follow: the log of two programs.
 *
 * A failure is never taken for something else: "not ok" passes with a TODO of
 * its own only.
 */
#include "prun.h"
#include <ctype.h>
#include <strings.h>

#define LEVELS 8
#define TITLE 1000              /* bytes of a name, its parents' with it */
#define TEXT (1 << 20)          /* bytes of a failure's diagnostics */
#define ALL (64 << 20)          /* bytes of all that is kept of a log */

enum verdict { PASSED, FAILED, SKIPPED, BROKEN };

struct point {
	enum verdict verdict;
	bool todo;
	int level;
	char *title, *text, *message, *reason, *file;   /* "": unknown */
	int64_t id, line, us;   /* 0: unknown */
};

/* The results at one indentation. */
struct level {
	int64_t planned, seen;  /* planned -1: no plan */
	int64_t *ids;
	size_t nids, capids;
	struct point open;      /* its subtest follows in braces */
	bool is_open;
};

struct tap {
	struct point *v;
	size_t n, cap, bytes;
	struct level level[LEVELS + 1];
	bool version, plan, results, from_one, empty;
	bool takes_text;        /* the last point's text goes on */
	struct buf text;
	size_t yaml;            /* indentation of the block that is open, and 1 */
	char **value;           /* of a key whose text is in the next line */
	int depth;              /* level of the last line that had one */
	char *subtest, *bail;
};

static char *
keep(struct tap *t, const char *s, size_t n)
{
	t->bytes += n + sizeof(struct point);
	return safe(s, n);
}

/* ---- a result ---- */

/* The # of a directive in s, or its end.  A blank stands before it; a TODO is a
 * word, and the first # that there is: neither "opens #todos" nor "as in #12 #
 * TODO" is one, as other harnesses see it. */
static const char *
find_directive(const char *s, struct point *p)
{
	const char *mark, *word;
	bool first = true;
	char before = ' ';

	for (mark = s; *mark; before = *mark++) {
		if (*mark != '#' || before == '\\')
			continue;
		word = mark + 1 + strspn(mark + 1, " \t");
		if (before == ' ' || before == '\t') {
			p->todo = first && !strncasecmp(word, "todo", 4)
				&& !isalnum((unsigned char)word[4]);
			if (p->todo || !strncasecmp(word, "skip", 4))
				break;
		}
		first = false;
	}
	return mark;
}

/* Takes how long the test took from the end of its name: "# time=12.3ms", of
 * node-tap, or "in 12ms", of bats.  Returns the name's length without it. */
static size_t
take_time(struct point *p, const char *s, size_t n)
{
	size_t from = n;
	const char *word;
	char *end;
	double ms;

	while (from && s[from - 1] != ' ')
		from--;
	word = s + from;
	if (starts(word, "time=") && from > 2 && s[from - 2] == '#') {
		word += 5;
		from -= 2;
	} else if (from > 3 && !memcmp(s + from - 4, " in ", 4)) {
		from -= 3;
	} else {
		return n;
	}
	ms = strtod(word, &end);
	if (end == s + n - 1 && *end == 's')
		ms *= 1000;
	else if (end != s + n - 2 || memcmp(end, "ms", 2))
		return n;
	p->us = isdigit((unsigned char)*word) && ms < 1e10 ? (int64_t)(ms * 1000) : 0;
	return from;
}

static size_t
trim(const char *s, size_t n)
{
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	return n;
}

/* Reads the text behind "ok" or "not ok": 3 - name # SKIP why {. */
static void
parse_point(struct tap *t, struct point *p, const char *s, bool ok)
{
	struct buf name = { 0 };
	const char *mark, *reason;
	char *end;
	size_t i, n;

	memset(p, 0, sizeof(*p));
	p->text = p->message = p->file = "";
	s += strspn(s, " \t");
	if (isdigit((unsigned char)*s)) {
		p->id = strtoll(s, &end, 10);
		s = end + strspn(end, " \t");
	}
	if (*s == '-' && (!s[1] || s[1] == ' '))
		s += 1 + strspn(s + 1, " ");
	mark = find_directive(s, p);
	reason = mark + (*mark == '#');
	reason += strspn(reason, " \t");
	reason += strcspn(reason, " \t");
	reason += strspn(reason, " \t");
	p->reason = keep(t, reason, strlen(reason));
	if (!ok)
		p->verdict = p->todo ? PASSED : FAILED;
	else
		p->verdict = *mark && !p->todo ? SKIPPED : PASSED;
	n = trim(s, (size_t)(mark - s));
	n = trim(s, take_time(p, s, n));
	for (i = 0; i < n && name.n < TITLE; i++) {
		if (s[i] == '\\' && i + 1 < n && (s[i + 1] == '#' || s[i + 1] == '\\'))
			i++;
		buf_char(&name, s[i]);
	}
	p->title = keep(t, name.n ? name.s : "", name.n);
	buf_free(&name);
}

/* ---- plans and levels ---- */

/* The text since the last point is about that one. */
static void
end_text(struct tap *t)
{
	if (t->takes_text && t->text.n) {
		t->v[t->n - 1].text = str("%s", t->text.s);     /* the sink cleans it */
		t->bytes += t->text.n;
	}
	t->takes_text = false;
	t->text.n = 0;
	t->yaml = 0;
	t->value = NULL;
}

static struct point *
add_point(struct tap *t, const struct point *p)
{
	end_text(t);
	t->v = grow(t->v, &t->cap, t->n + 1, sizeof(*t->v));
	t->v[t->n] = *p;
	return &t->v[t->n++];
}

static void
add_error(struct tap *t, int level, const char *message)
{
	struct point p = { .verdict = BROKEN, .level = level, .title = "[plan]", .text = "",
		.reason = "", .file = "" };

	p.message = str("%s", message);
	add_point(t, &p);
}

static int
by_number(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* A level is over: are the results those that were planned? */
static void
end_level(struct tap *t, int level)
{
	struct level *l = &t->level[level];
	int64_t last;
	size_t i;

	if (l->nids)
		qsort(l->ids, l->nids, sizeof(*l->ids), by_number);
	for (i = 1; i < l->nids && l->ids[i] != l->ids[i - 1]; i++)
		;
	last = l->nids ? l->ids[l->nids - 1] : 0;
	if (l->planned >= 0 && l->planned != l->seen)
		add_error(t, level, str("%" PRId64 " tests were planned, %" PRId64 " were run",
			l->planned, l->seen));
	else if (i < l->nids)
		add_error(t, level, str("there are two tests of number %" PRId64, l->ids[i]));
	else if (l->planned >= 0 && last > l->planned)
		add_error(t, level, str("test %" PRId64 " is beyond the plan, 1..%" PRId64,
			last, l->planned));
	else if (l->planned < 0 && l->seen && level == 0)
		add_error(t, level, "there is no plan");
	l->planned = -1;
	l->seen = 0;
	l->nids = 0;
	l->is_open = false;
}

/* Names the points of a subtest after it; whether one of them is bad. */
static bool
name_subtest(struct tap *t, size_t first, const struct point *parent)
{
	bool is_bad = false;
	struct point *p;
	size_t i;

	for (i = first; i < t->n; i++) {
		p = &t->v[i];
		if (strlen(p->title) < TITLE) {
			p->title = str("%s/%s", parent->title, p->title);
			t->bytes += strlen(p->title);
		}
		p->level = parent->level;
		if (parent->todo && p->verdict == FAILED) {
			p->verdict = PASSED;
			p->todo = true;
			p->reason = parent->reason;
		}
		is_bad = is_bad || p->verdict == FAILED || p->verdict == BROKEN;
	}
	return is_bad;
}

/* A point is whole: its subtest has been read, if it has one. */
static void
end_point(struct tap *t, struct point *p)
{
	size_t first;
	bool is_bad;
	int i;

	end_text(t);
	for (i = LEVELS; i > p->level; i--)
		end_level(t, i);
	if (!*p->title && t->subtest)
		p->title = t->subtest;  /* Perl: a subtest that was skipped */
	if (!*p->title)
		p->title = str("test %" PRId64, t->level[p->level].seen);
	t->subtest = NULL;
	for (first = t->n; first && t->v[first - 1].level > p->level; first--)
		;
	is_bad = name_subtest(t, first, p);
	/* The children stand for it, unless it failed and they did not. */
	if (first < t->n && (p->verdict != FAILED || is_bad))
		return;
	add_point(t, p);
	t->takes_text = true;
}

static void
read_point(struct tap *t, const char *s, int level, bool ok)
{
	struct level *l = &t->level[level];
	struct point p;
	size_t n = strlen(s);
	bool brace = n > 1 && !strcmp(s + n - 2, " {");

	parse_point(t, &p, brace ? safe(s, n - 2) : s, ok);
	p.level = level;
	if (level == 0 && p.id == 1 && l->seen && l->seen == l->planned)
		end_level(t, 0);        /* another program's */
	if (level == 0 && p.id == 1 && !l->seen)
		t->from_one = true;
	l->seen++;
	t->results = true;
	if (p.id) {
		l->ids = grow(l->ids, &l->capids, l->nids + 1, sizeof(*l->ids));
		l->ids[l->nids++] = p.id;
	}
	if (!brace) {
		end_point(t, &p);
		return;
	}
	end_text(t);
	l->open = p;
	l->is_open = true;
}

/* A plan: 1..4, or 1..0 # SKIP why; false if it is none, or not ours. */
static bool
read_plan(struct tap *t, const char *s, int level)
{
	struct level *l = &t->level[level];
	struct point p;
	int64_t planned;
	char *end;

	if (!starts(s, "1..") || !isdigit((unsigned char)s[3]))
		return false;
	planned = strtoll(s + 3, &end, 10);
	end += strspn(end, " ");
	if (*end && *end != '#')
		return false;           /* 1..5 of something */
	if (l->planned >= 0 && (level || l->planned != l->seen))
		return false;           /* some output */
	if (l->planned >= 0)
		end_level(t, 0);
	l->planned = planned;
	if (level)
		return true;
	t->plan = true;
	if (planned == 0 && !l->seen) {
		parse_point(t, &p, str("- [plan] %s", *end ? end : "# SKIP"), true);
		p.verdict = SKIPPED;
		add_point(t, &p);
		t->empty = true;
	}
	return true;
}

/* ---- lines ---- */

/* Where a failure was: path:line:column, or a path. */
static void
set_place(struct tap *t, struct point *p, const char *s)
{
	const char *colon = strchr(s, ':');

	while (colon && !isdigit((unsigned char)colon[1]))
		colon = strchr(colon + 1, ':');
	if (!*p->file)
		p->file = keep(t, s, colon ? (size_t)(colon - s) : strlen(s));
	if (colon && !p->line)
		p->line = strtoll(colon + 1, NULL, 10);
}

/* A line of a YAML block: takes what we know of it. */
static void
read_yaml(struct tap *t, struct point *p, const char *s)
{
	static const char *const keys[] = {
		"message:", "error:", "at:", "location:", "file:", "line:", "duration_ms:"
	};
	enum { MESSAGE, ERROR_, AT, LOCATION, FILE_, LINE_, DURATION };
	size_t key, n;

	if (t->value) {                 /* of a key with | or > */
		*t->value = keep(t, s, strlen(s));
		t->value = NULL;
		return;
	}
	for (key = 0; key < LEN(keys) && !starts(s, keys[key]); key++)
		;
	if (key == LEN(keys))
		return;
	s += strlen(keys[key]);
	s += strspn(s, " ");
	n = strlen(s);
	if (n > 1 && (*s == '"' || *s == '\'') && s[n - 1] == *s)
		s = str("%.*s", (int)n - 2, s + 1);
	if (key <= ERROR_ && !*p->message && (*s == '|' || *s == '>'))
		t->value = &p->message;
	else if (key <= ERROR_ && !*p->message)
		p->message = keep(t, s, strlen(s));
	else if (key >= AT && key <= FILE_ && *s && *s != '{')
		set_place(t, p, s);
	else if (key == LINE_ && !p->line)
		p->line = strtoll(s, NULL, 10);
	else if (key == DURATION)
		p->us = strtod(s, NULL) < 1e10 ? (int64_t)(strtod(s, NULL) * 1000) : 0;
}

/* A line about the last point. */
static void
read_text(struct tap *t, const char *line, size_t indent)
{
	struct point *p;
	const char *s = line + indent;

	if (!t->takes_text || !t->n)
		return;
	p = &t->v[t->n - 1];
	if (t->text.n < TEXT && p->verdict == FAILED)
		buf_fmt(&t->text, "%s\n", line);
	if (t->yaml && indent + 1 == t->yaml && !strcmp(s, "..."))
		t->yaml = 0;
	else if (t->yaml)
		read_yaml(t, p, s);
	else if (indent && !strcmp(s, "---"))
		t->yaml = indent + 1;
	else if (*s == '#' && !*p->message) {
		s += 1 + strspn(s + 1, " \t");
		p->message = keep(t, s, strlen(s));
	}
}

/* Whether rest, behind "ok", is that of a result: below the first level only with
 * a number, for it may be any output; above it not "ok  	package", of Go. */
static bool
is_result(const char *rest, int level)
{
	if (*rest == ' ' && isdigit((unsigned char)rest[1]))
		return true;
	return level == 0 && (!*rest || (*rest == ' ' && rest[strspn(rest, " ")] != '\t'));
}

/* A line that means something at its level; false if it is text. */
static bool
read_level(struct tap *t, const char *s, int level)
{
	bool ok = starts(s, "ok");
	const char *rest = s + (ok ? 2 : 6);

	if (ok || starts(s, "not ok")) {
		if (!is_result(rest, level))
			return false;
		read_point(t, rest, level, ok);
	} else if (starts(s, "# Subtest")) {
		s += strcspn(s, ":");
		s += *s == ':' ? 1 + strspn(s + 1, " ") : 0;
		t->subtest = keep(t, s, strlen(s));
	} else if (starts(s, "Bail out!")) {
		t->bail = keep(t, s, strlen(s));
	} else if (!strcmp(s, "}") && t->level[level].is_open) {
		t->level[level].is_open = false;
		end_point(t, &t->level[level].open);
	} else {
		return read_plan(t, s, level);
	}
	return true;
}

static void
read_line(struct tap *t, const char *line)
{
	size_t indent = strspn(line, " ");
	int level = indent / 4 > LEVELS ? LEVELS : (int)(indent / 4);

	if (t->yaml && indent + 1 < t->yaml && line[indent])
		t->yaml = 0;            /* it was never ended */
	if (!t->yaml && indent % 4 == 0 && level <= t->depth + 1
	&& read_level(t, line + indent, level))
		t->depth = level;
	else if (starts(line, "TAP version "))
		t->version = true;
	else
		read_text(t, line, indent);
}

/* The log is over: what never came? */
static void
end_log(struct tap *t)
{
	struct level *l = &t->level[0];
	size_t i;
	int level;

	end_text(t);
	for (level = LEVELS; level > 0; level--)
		end_level(t, level);
	for (i = t->n; i && t->v[i - 1].level > 0; i--)
		if (t->subtest && *t->subtest)
			t->v[i - 1].title = str("%s/%s", t->subtest, t->v[i - 1].title);
	if (t->bytes > ALL)
		add_error(t, 0, "this is too much TAP; the rest was not read");
	else if (t->bail)
		add_error(t, 0, t->bail);
	else if (l->planned < 0 && !l->seen && !t->n)
		add_error(t, 0, "there is neither a plan nor a test");
	else if (l->planned <= 0 || l->seen || !t->n)
		end_level(t, 0);        /* else a number behind the last result */
}

/* ---- the report ---- */

static void
write_point(struct buf *b, const struct point *p, const char *name)
{
	static const char *const element[] = { "system-out", "failure", "skipped", "error" };
	const char *message = p->message, *is = element[p->verdict];
	struct sink text;

	buf_str(b, "<testcase");
	xml_attribute(b, "name", p->title);
	xml_attribute(b, "classname", name);
	if (p->us > 0)
		buf_fmt(b, " time=\"%.6f\"", (double)p->us / 1e6);
	if (p->verdict == FAILED && *p->file)
		xml_attribute(b, "file", p->file);
	if (p->verdict == FAILED && *p->file && p->line > 0)
		buf_fmt(b, " line=\"%" PRId64 "\"", p->line);
	buf_char(b, '>');
	memset(&text, 0, sizeof(text));
	sink_begin(&text, TEXT, true);
	if (p->verdict == PASSED && p->todo)
		sink_text(&text, p->reason, strlen(p->reason), true);
	else
		sink_text(&text, p->text, strlen(p->text), true);
	sink_end(&text);
	if (p->verdict == PASSED && p->todo) {
		buf_fmt(b, "<%s>TODO %s</%s>", is, text.b.s, is);
	} else if (p->verdict != PASSED) {
		if (p->verdict == SKIPPED)
			message = p->reason;
		if (p->verdict == FAILED && !*message)
			message = "not ok";
		buf_fmt(b, "<%s", is);
		xml_attribute(b, "message", message);
		buf_fmt(b, ">%s</%s>", text.b.s, is);
	}
	buf_str(b, "</testcase>\n");
	buf_free(&text.b);
}

static int
write_report(const struct tap *t, const char *path, const char *name, int64_t ms)
{
	struct buf b = { 0 };
	size_t i;
	int result;

	name = safe(name, strlen(name));
	for (i = 0; i < t->n && t->v[i].us <= 0; i++)
		;
	buf_str(&b, "<testsuite");
	xml_attribute(&b, "name", name);
	if (i == t->n)                  /* nobody else knows how long it took */
		buf_fmt(&b, " time=\"%.3f\"", (double)ms / 1000);
	buf_str(&b, ">\n");
	for (i = 0; i < t->n; i++)
		write_point(&b, &t->v[i], name);
	buf_str(&b, "</testsuite>\n");
	result = file_write(path, b.s, b.n, 0666);
	buf_free(&b);
	return result;
}

/* Reads the log's lines; the rest of a very long one is not looked at. */
static void
read_log(struct tap *t, FILE *f)
{
	char line[16384], *s;
	bool first = true, whole = true, goes_on;
	size_t n;

	while (t->bytes <= ALL && fgets(line, sizeof(line), f)) {
		n = strlen(line);
		goes_on = n == sizeof(line) - 1 && line[n - 1] != '\n';
		line[trim(line, n)] = '\0';
		s = line + (first && starts(line, "\xef\xbb\xbf") ? 3 : 0);
		if (whole)
			read_line(t, s);
		whole = !goes_on;
		first = false;
	}
	end_log(t);
}

int
tap_read(const char *log, const char *path, const char *name, int64_t ms)
{
	int fd = open_regular(log, O_RDONLY), i, result = 0;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	struct tap *t;

	if (!f) {
		close_keep(fd);
		return 0;
	}
	t = xcalloc(1, sizeof(*t));
	for (i = 0; i <= LEVELS; i++)
		t->level[i].planned = -1;
	read_log(t, f);
	fclose(f);                      /* only read from */
	if (t->version || t->empty || t->from_one || (t->plan && t->results))
		result = write_report(t, path, name, ms) < 0 ? -1 : 1;
	for (i = 0; i <= LEVELS; i++)
		free(t->level[i].ids);
	free(t->v);
	buf_free(&t->text);
	free(t);
	return result;
}
