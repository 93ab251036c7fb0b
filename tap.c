/*
 * tap.c: reads a log as TAP, versions 12 to 14, and writes a JUnit report of it.
 *
 * A line is judged by its indentation, four columns for each level of subtests; what
 * is neither a result nor a plan belongs to the result before it.  Results of a
 * subtest come before that of the test which they make up: when that is read, they
 * are named parent/child and stand for it.  The parent stays only where it failed and
 * none of them did.
 */
#include "prun.h"
#include <ctype.h>
#include <strings.h>

#define LEVELS 8
#define TEXT_MAX (1 << 20)      /* bytes of a test's diagnostics */

struct result_line {
	char *title, *text, *message;   /* message: of a skip or an error */
	int level;
	bool bad, skip, error;
};

struct tap {
	struct result_line *v;
	size_t n, cap;
	struct buf text;        /* since the last result */
	bool is_tap, takes_text, yaml;
	int depth;              /* level of the last line that had one */
	int64_t planned[LEVELS + 1], seen[LEVELS + 1];  /* planned -1: no plan */
	char *subtest, *bail;
};

static char *
safe(const char *s, size_t n)
{
	struct buf b = { 0 };
	char *out;

	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	buf_safe(&b, s, n);
	out = str("%s", b.s);
	buf_free(&b);
	return out;
}

/* What has been said since the last result is about that one. */
static void
end_text(struct tap *t)
{
	if (t->takes_text && t->text.n)
		t->v[t->n - 1].text = str("%s", t->text.s);
	t->takes_text = false;
	t->text.n = 0;
}

static struct result_line *
add_line(struct tap *t, int level, char *title)
{
	t->v = grow(t->v, &t->cap, t->n + 1, sizeof(*t->v));
	memset(&t->v[t->n], 0, sizeof(*t->v));
	t->v[t->n].title = title;
	t->v[t->n].level = level;
	t->v[t->n].text = t->v[t->n].message = "";
	return &t->v[t->n++];
}

/* A level is over: as many tests as planned? */
static void
check_plan(struct tap *t, int level)
{
	struct result_line *r;

	if (t->planned[level] >= 0 && t->planned[level] != t->seen[level]) {
		r = add_line(t, level, str("[plan]"));
		r->error = true;
		r->message = str("%" PRId64 " tests were planned, %" PRId64 " were run",
			t->planned[level], t->seen[level]);
	}
	t->planned[level] = -1;
	t->seen[level] = 0;
}

/* What stands behind "ok" or "not ok": 3 - name # SKIP why. */
static void
read_result(struct tap *t, const char *s, int level, bool ok)
{
	const char *mark = s, *word;
	struct result_line *r;
	bool todo = false, skip = false, bad = false;
	char *reason = "", *title;
	size_t i, first;

	end_text(t);
	for (i = LEVELS; (int)i > level; i--)
		check_plan(t, (int)i);
	t->seen[level]++;
	s += strspn(s, " 0123456789");
	s += *s == '-' ? 1 + strspn(s + 1, " ") : 0;
	for (; !skip && !todo && (mark = strchr(mark, '#')); mark += !skip && !todo) {
		word = mark + 1 + strspn(mark + 1, " ");
		if (mark > s && mark[-1] == '\\')
			continue;
		skip = !strncasecmp(word, "skip", 4);
		todo = !strncasecmp(word, "todo", 4);
		word += strcspn(word, " ");
		reason = safe(word + strspn(word, " "), strlen(word + strspn(word, " ")));
	}
	title = safe(s, mark && mark >= s ? (size_t)(mark - s) : strlen(s));
	if (!*title && t->subtest)
		title = t->subtest;     /* Perl: a subtest that was skipped */
	if (!*title)
		title = str("test %" PRId64, t->seen[level]);
	for (first = t->n; first && t->v[first - 1].level > level; first--)
		;
	for (i = first; i < t->n; i++) {
		r = &t->v[i];
		r->title = str("%s/%s", title, r->title);
		r->level = level;
		r->bad = r->bad && !todo;
		bad = bad || r->bad || r->error;
	}
	ok = ok || todo || skip;
	t->subtest = NULL;
	if (first < t->n && (ok || bad))
		return;
	r = add_line(t, level, title);
	r->bad = !ok;
	r->skip = skip;
	r->message = reason;
	t->takes_text = true;
}

/* A plan: 1..4, or 1..0 # SKIP why; false if it is none. */
static bool
read_plan(struct tap *t, const char *s, int level)
{
	struct result_line *r;
	int64_t planned;
	char *end;

	if (!starts(s, "1..") || !isdigit((unsigned char)s[3]))
		return false;
	planned = strtoll(s + 3, &end, 10);
	if (end[strspn(end, " ")] && end[strspn(end, " ")] != '#')
		return false;           /* 1..5 of something */
	t->is_tap = t->is_tap || level == 0;
	t->planned[level] = planned;
	if (level == 0 && !t->planned[0] && (s = strchr(end, '#'))) {
		s += 1 + strspn(s + 1, " ");
		s += strcspn(s, " ");
		r = add_line(t, 0, str("[plan]"));
		r->skip = true;
		r->message = safe(s + strspn(s, " "), strlen(s + strspn(s, " ")));
	}
	return true;
}

static void
read_line(struct tap *t, char *line)
{
	size_t indent = strspn(line, " ");
	int level = indent / 4 > LEVELS ? LEVELS : (int)(indent / 4);
	const char *s = line + indent;
	bool ok = starts(s, "ok"), has_level = indent % 4 == 0 && level <= t->depth + 1 && !t->yaml;

	if (t->yaml || (t->takes_text && indent && !strcmp(s, "---")))
		t->yaml = strcmp(s, "...") != 0;
	if (has_level && !t->yaml && (ok || starts(s, "not ok"))) {
		s += ok ? 2 : 6;
		/* Below the first level only what has a number: it may be any output. */
		if (level ? *s == ' ' && isdigit((unsigned char)s[1]) : !*s || *s == ' ') {
			t->depth = level;
			read_result(t, s, level, ok);
			return;
		}
	} else if (has_level && read_plan(t, s, level)) {
		t->depth = level;
		return;
	} else if (has_level && starts(s, "# Subtest")) {
		s += strcspn(s, ":");
		s += *s == ':' ? 1 + strspn(s + 1, " ") : 0;
		t->subtest = safe(s, strlen(s));
		t->depth = level;
		return;
	} else if (has_level && starts(s, "Bail out!")) {
		t->bail = safe(s, strlen(s));
		return;
	} else if (starts(line, "TAP version ")) {
		t->is_tap = true;
		return;
	}
	if (t->takes_text && t->text.n < TEXT_MAX)
		buf_fmt(&t->text, "%s\n", line);
}

/* The log is over: what never came. */
static void
end_log(struct tap *t)
{
	struct result_line *r;
	size_t i;
	int level;

	end_text(t);
	for (level = LEVELS; level > 0; level--)
		check_plan(t, level);
	for (i = t->n; i && t->v[i - 1].level > 0; i--)
		if (t->subtest && *t->subtest)
			t->v[i - 1].title = str("%s/%s", t->subtest, t->v[i - 1].title);
	if (t->bail || (t->planned[0] < 0 && !t->seen[0])) {
		r = add_line(t, 0, str("[plan]"));
		r->error = true;
		r->message = t->bail ? t->bail : "there is neither a plan nor a test";
	} else {
		check_plan(t, 0);
	}
}

static void
write_result(struct buf *b, const struct result_line *r, const char *name)
{
	struct sink text;

	buf_str(b, "<testcase");
	xml_attribute(b, "name", r->title);
	xml_attribute(b, "classname", name);
	buf_char(b, '>');
	if (r->bad || r->error || r->skip) {
		memset(&text, 0, sizeof(text));
		sink_begin(&text, TEXT_MAX, true);
		sink_text(&text, r->text, strlen(r->text), true);
		sink_end(&text);
		buf_str(b, r->bad ? "<failure" : r->error ? "<error" : "<skipped");
		xml_attribute(b, "message", r->bad ? "not ok" : r->message);
		buf_fmt(b, ">%s%s", r->skip ? "" : text.b.s, r->bad ? "</failure>"
			: r->error ? "</error>" : "</skipped>");
		buf_free(&text.b);
	}
	buf_str(b, "</testcase>\n");
}

int
tap_read(const char *log, const char *path, const char *name)
{
	FILE *f = fopen(log, "r");
	struct tap t;
	struct buf all = { 0 };
	char line[16384];
	size_t n, i;
	bool cut = false;
	int r = 0;

	if (!f)
		return 0;
	memset(&t, 0, sizeof(t));
	for (i = 0; i <= LEVELS; i++)
		t.planned[i] = -1;
	while (fgets(line, sizeof(line), f)) {
		n = strlen(line);
		r = n == sizeof(line) - 1 && line[n - 1] != '\n';
		while (n && isspace((unsigned char)line[n - 1]))
			line[--n] = '\0';
		if (!cut)               /* the rest of a long line is not looked at */
			read_line(&t, line);
		cut = r;
	}
	r = 0;
	end_log(&t);
	if (t.is_tap) {
		name = safe(name, strlen(name));
		buf_str(&all, "<testsuite");
		xml_attribute(&all, "name", name);
		buf_str(&all, ">\n");
		for (i = 0; i < t.n; i++)
			write_result(&all, &t.v[i], name);
		buf_str(&all, "</testsuite>\n");
		r = file_write(path, all.s, all.n, 0666) < 0 ? -1 : 1;
	}
	fclose(f);
	free(t.v);
	buf_free(&t.text);
	buf_free(&all);
	return r;
}
