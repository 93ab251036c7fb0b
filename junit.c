/*
 * junit.c: merges the reports that tools wrote into one that all can read.
 *
 * What a tag means depends on its place (kind_here).  A report that is not
 * well-formed is read as far as it goes; a case [report] says where it broke.
 * One case is in memory, its children in the dialect's order.  Start tags leave
 * room for totals.  Nested suites become suites of their own: outer/inner.
 *
 * Of a file with several attempts one report is the base: the last if it passed
 * at last, else the first.  A first pass collects the failures of the other
 * attempts, which the base's cases carry as flaky or rerun elements.
 */
#include "prun.h"

#define TOTALS 150              /* columns kept free in a start tag */
#define CHUNK 65536             /* bytes written at once */
#define FIELD 500               /* bytes of a name or message on the screen */
#define NOTES 1000              /* failing cases listed, at most */
#define REPORT_MAX (30 << 20)   /* bytes; GitLab's limit */

/* How many texts of report-limit a case holds, or a suite beside its cases; the
 * failures of a file's other attempts; a report of a run, in bytes. */
enum { CASE_TEXTS = 4, RETRY_TEXTS = 16, REPORT_TEXTS = 256 };

/* Up to K_ERR: the children of a case, in the dialect's order. */
enum kind {
	K_PROPS, K_FAILURE, K_RERUN, K_FLAKY, K_SKIPPED, K_ERROR, K_RERUN_ERROR, K_FLAKY_ERROR,
	K_OUT, K_ERR, K_PROP, K_STACK, K_CASE, K_SUITE, K_SUITES, K_OTHER, KINDS
};

static const char *const kind_name[KINDS] = {
	"properties", "failure", "rerunFailure", "flakyFailure", "skipped", "error",
	"rerunError", "flakyError", "system-out", "system-err", "property", "stackTrace",
	"testcase", "testsuite", "testsuites", ""
};

#define NO_LOG SIZE_MAX         /* a case is not of an attempt that has one */

/* The case for what no report tells, by cause. */
static const char *const synthetic[CAUSES] = {
	"[exit]", "[exit]", "[signal]", "[timeout]", "[leak]", "[output]", "[server]",
	"[server]", "[port]", "[database]", "[spawn]", "[worker]", "[report]", "[cancelled]"
};

/* What is written, with the end of it still in memory. */
struct output {
	int fd;                 /* -1: only count */
	int error;              /* errno of the first write that failed, or 0 */
	struct buf b;
	off_t flushed;
};

/* How many there were so far; bad: failing cases. */
struct seen {
	int64_t suites, cases, bad;
};

struct frame {
	enum kind kind;
	size_t path, head;      /* lengths of place.path and .heads before it */
	size_t suite;           /* frames up to the innermost suite; 0: there is none */
	int64_t us;             /* its own time, until it is used */
	int64_t declared;       /* failures and errors, by its attributes */
	struct seen before;
};

/* Where in a report we are: the elements that are open. */
struct place {
	struct frame *v;
	size_t n, cap, nkind[KINDS];
	struct buf path, heads; /* suites' names; their other attributes */
	struct buf sibling;     /* of one without cases: the next have its file (Cypress) */
};

/* Behind a case's children.  BAD_ is of its first failure or error. */
enum {
	CLASS = K_ERR + 1, NAME, PATH, LINE, ATTRS, BAD_ATTRS, BAD_TEXT, CASE_BUFS
};

/* A case, or what a suite has beside its cases. */
struct testcase {
	bool open, not_run;     /* not_run: its attributes say so */
	bool used;              /* of another attempt: it is written */
	bool todo;              /* its failure is known, and skipped */
	bool hanging;           /* it has no name in a report that a time-out cut */
	bool full;              /* there was no room for an element */
	struct buf b[CASE_BUFS];
	int64_t us;
};

/* A failure or its like, and a leaf below it or elsewhere: an output, say. */
struct text {
	enum kind outer, inner; /* K_OTHER: none is open */
	struct sink outer_text, inner_text;
	struct buf attrs, message, property, nested;
};

struct merger {
	const struct merge *o;
	const struct part *part;
	const char *where;      /* directory of the report, from the current one */
	struct buf *notes;      /* where failing cases are listed, or NULL */
	struct output out;
	struct place at;
	struct testcase c;
	struct text t;

	struct seen seen;
	bool open, first;       /* a suite is; none of this part was yet */
	bool told;              /* a case tells of the part's time-out */
	int id;                 /* of the next suite */
	off_t suite_at;
	struct counts total, suite;
	int64_t total_us, suite_us, own_us;     /* own: as the suite itself says */
	struct testcase beside; /* the suite's cases */

	bool collect;           /* failing cases go to retries */
	bool promote;           /* one of those takes the place of a case that passed */
	struct testcase *retries;       /* of the attempts that are not the base */
	size_t nretries, capretries, retry_bytes;
	bool in_unit;           /* the suite has said of which file of a run it is */
	bool after_unit;        /* such a suite has been written */
	bool dropping;          /* it is of a file that a rerun has replaced */
	size_t unit;            /* its number in this part */
};

static void
set(struct buf *b, const char *s)
{
	b->n = 0;
	buf_str(b, s);
}

/* s, or "" if there is nothing to read in it. */
static const char *
unless_blank(const char *s)
{
	return s[strspn(s, " \t\n")] ? s : "";
}

/* ---- output ---- */

static void
out_flush(struct output *o)
{
	if (o->fd >= 0 && !o->error && write_all(o->fd, o->b.s, o->b.n) < 0)
		o->error = errno;
	o->flushed += (off_t)o->b.n;
	o->b.n = 0;
}

static off_t
leave_room(struct output *o)
{
	off_t at = o->flushed + (off_t)o->b.n;

	buf_fmt(&o->b, "%*s", TOTALS, "");
	return at;
}

static void
fill_room(struct output *o, off_t at, const struct counts *c, int64_t us)
{
	char s[2 * TOTALS];             /* of which TOTALS are used */

	snprintf(s, sizeof(s), " tests=\"%" PRId64 "\" failures=\"%" PRId64 "\" "
		"errors=\"%" PRId64 "\" skipped=\"%" PRId64 "\" time=\"%.3f\"%*s", c->tests,
		c->failures, c->errors, c->skipped, (double)us / 1e6, TOTALS, "");
	errno = ENOSPC;                 /* of a short write */
	if (at >= o->flushed)
		memcpy(o->b.s + (at - o->flushed), s, TOTALS);
	else if (o->fd >= 0 && !o->error && pwrite(o->fd, s, TOTALS, at) != TOTALS)
		o->error = errno;
}

static void
add_property(struct buf *b, const char *name, const char *value)
{
	if (!value)
		return;
	buf_str(b, "   <property");
	xml_attribute(b, "name", name);
	xml_attribute(b, "value", value);
	buf_str(b, "/>\n");
}

static void
add_element(struct buf *to, enum kind kind, const struct buf *text)
{
	if (!text->n)
		return;
	buf_fmt(to, "<%s>", kind_name[kind]);
	buf_add(to, text->s, text->n);
	buf_fmt(to, "</%s>", kind_name[kind]);
}

/* Adds an output.  [[ATTACHMENT|x]] is relative to its report, not to ours. */
static void
add_output(struct buf *to, const char *s, const char *where)
{
	static const char mark[] = "[[ATTACHMENT|";

	if (to->n && *s)
		buf_char(to, '\n');
	for (const char *hit = strstr(s, mark); hit; hit = strstr(s, mark)) {
		hit += sizeof(mark) - 1;
		buf_add(to, s, (size_t)(hit - s));
		buf_str(to, *hit == '/' ? "" : where);
		s = hit;
	}
	buf_str(to, s);
}

/* ---- limits ---- */

static const char left_out[] = "[prun: elements left out, see report-limit]";

static bool
has_room(const struct merger *m, size_t used, int texts)
{
	return (int64_t)used / texts < m->o->limit;
}

/* How long the children are. */
static size_t
children(const struct testcase *c)
{
	size_t n = 0;

	for (int k = 0; k <= K_ERR; k++)
		n += c->b[k].n;
	return n;
}

/* Where one more element goes, to the case or outside of one to the suite; NULL
 * where there is no room, as its output says then. */
static struct testcase *
find_room(struct merger *m)
{
	struct testcase *c = m->c.open ? &m->c : &m->beside;

	if (has_room(m, children(c), CASE_TEXTS))
		return c;
	if (!c->full)
		add_output(&c->b[K_OUT], left_out, "");
	c->full = true;
	return NULL;
}

static void
clear(struct testcase *c)
{
	for (int k = 0; k <= K_ERR; k++)
		c->b[k].n = 0;
	c->full = false;
}

/* ---- suites ---- */

static void
add_own_properties(struct merger *m)
{
	const struct part *p = m->part;
	struct buf *b = &m->beside.b[K_PROPS];

	if (p->file) {          /* else of an empty shard */
		add_property(b, "prun.file", p->file);
		add_property(b, "prun.suite", p->suite);
		add_property(b, "prun.result", result_name[p->result]);
		add_property(b, "prun.seconds", str("%.3f", (double)p->ms / 1000));
		add_property(b, "prun.attempts", str("%d", p->attempts));
	}
	add_property(b, "prun.run", p->run);
	add_property(b, "prun.plan", p->plan);
	add_property(b, "prun.shard", p->shard);
	add_property(b, "prun.started", p->started);
	if (p->phases)
		add_property(b, "prun.worker", str("%d", p->worker));
	add_property(b, "prun.phases", p->phases);
	add_property(b, "prun.dir", p->dir);
	add_property(b, "prun.name", p->name);
	m->after_unit = true;
}

/* Name for what has none: the suites that are open, else the file or report. */
static const char *
here(const struct merger *m)
{
	if (m->at.path.n)
		return m->at.path.s;
	if (m->part->file)
		return m->part->file;
	return m->part->reports.n ? m->part->reports.v[0] : "tests";
}

/* Whether what is read is not written. */
static bool
is_silent(const struct merger *m)
{
	return m->collect || m->dropping;
}

static void
write_properties(struct merger *m)
{
	struct buf *b = &m->beside.b[K_PROPS];

	if (b->n)
		buf_fmt(&m->out.b, "  <properties>\n%s  </properties>\n", b->s);
	b->n = 0;
}

/* Begins a suite in the output, named as the suites that are open. */
static void
open_suite(struct merger *m)
{
	size_t i = m->at.n ? m->at.v[m->at.n - 1].suite : 0;
	struct frame *f = i ? &m->at.v[i - 1] : NULL;   /* of the innermost one */
	struct buf *b = &m->out.b, *properties = &m->beside.b[K_PROPS];
	const char *own = f ? m->at.heads.s + f->head : "";
	const struct part *p = m->part;

	if (m->open || is_silent(m))
		return;
	m->open = true;
	buf_fmt(b, " <testsuite name=\"%s%s", p->name ? p->name : "", p->name ? "/" : "");
	xml_escape(b, here(m), true);
	buf_fmt(b, "\" id=\"%d\"", m->id++);
	m->suite_at = leave_room(&m->out);
	m->own_us = f ? f->us : 0;
	if (f)
		f->us = 0;              /* once, should it go on after another one */
	buf_str(b, own);
	if (p->file && !strstr(own, " file=\""))
		xml_attribute(b, "file", p->file);
	buf_str(b, ">\n");
	if (m->first && p->synthetic)
		add_own_properties(m);
	else if (m->first && m->after_unit && !properties->n)
		add_property(properties, "prun.file", "");      /* the run's suites end here */
	m->first = false;
	write_properties(m);
	m->suite = (struct counts){ 0 };
	m->suite_us = 0;
}

static void
close_suite(struct merger *m)
{
	struct buf *b = m->beside.b;

	if (is_silent(m))
		clear(&m->beside);
	if (b[K_PROPS].n || b[K_OUT].n || b[K_ERR].n)
		open_suite(m);
	if (!m->open)
		return;
	m->open = false;
	write_properties(m);            /* those that came after a case */
	add_element(&m->out.b, K_OUT, &b[K_OUT]);
	add_element(&m->out.b, K_ERR, &b[K_ERR]);
	clear(&m->beside);
	buf_str(&m->out.b, " </testsuite>\n");
	if (m->own_us && m->suite.tests)        /* setup and teardown count */
		m->suite_us = m->own_us;
	fill_room(&m->out, m->suite_at, &m->suite, m->suite_us);
	m->total_us += m->suite_us;
}

/* ---- cases ---- */

static struct testcase
new_case(void)
{
	struct testcase c = { .us = 0 };

	for (size_t i = 0; i < CASE_BUFS; i++)
		c.b[i] = scratch_buf();
	return c;
}

static bool
is_bad(const struct testcase *c)
{
	return c->b[K_FAILURE].n || c->b[K_ERROR].n;
}

/* A failure or its like: attributes, then text that begins with the message.
 * The first failure stands for the case in another attempt. */
static void
add_result(struct testcase *c, enum kind kind, const char *attrs, const char *message,
	const char *text)
{
	bool first = !is_bad(c) && (kind == K_FAILURE || kind == K_ERROR);
	struct buf *to = &c->b[kind];

	buf_fmt(to, "<%s%s>", kind_name[kind], attrs);
	size_t from = to->n;
	text = unless_blank(text);      /* dorny's parser dies of a blank text */
	message = unless_blank(message);
	if (!starts(text, message))
		buf_fmt(to, "%s%s", message, *text ? "\n" : "");
	buf_str(to, text);
	if (to->n == from && kind != K_SKIPPED)
		buf_str(to, kind_name[kind]);
	if (first) {
		set(&c->b[BAD_ATTRS], attrs);
		set(&c->b[BAD_TEXT], to->s + from);
	}
	buf_fmt(to, "</%s>\n", kind_name[kind]);
}

static void
add_rerun(struct testcase *c, enum kind kind, const char *attrs, const char *text,
	const char *outputs)
{
	buf_fmt(&c->b[kind], "<%s%s><stackTrace>%s</stackTrace>%s</%s>\n",
		kind_name[kind], attrs, text, outputs, kind_name[kind]);
}

/* Adds other attempts' failures to the case: flaky if it passed, or reruns. */
static void
add_retries(struct merger *m)
{
	static const enum kind as[] = { K_FLAKY, K_FLAKY_ERROR, K_RERUN, K_RERUN_ERROR };
	struct testcase *c = &m->c;

	for (size_t i = 0; i < m->nretries; i++) {
		struct testcase *t = &m->retries[i];
		if (t->used || strcmp(t->b[NAME].s, c->b[NAME].s)
		|| strcmp(t->b[CLASS].s, c->b[CLASS].s))
			continue;
		if (m->promote && !is_bad(c)) {
			struct testcase passed = *c;
			*c = *t;
			*t = passed;
			t->used = true;
			continue;
		}
		t->used = true;
		if (t->us >= 0 && !strstr(t->b[BAD_ATTRS].s, " time=\""))
			buf_fmt(&t->b[BAD_ATTRS], " time=\"%.3f\"", (double)t->us / 1e6);
		struct buf outputs = scratch_buf();
		for (int k = K_OUT; k <= K_ERR; k++)
			add_element(&outputs, (enum kind)k, &t->b[k]);
		add_rerun(c, as[2 * is_bad(c) + !t->b[K_FAILURE].n], t->b[BAD_ATTRS].s,
			t->b[BAD_TEXT].s, outputs.s);
	}
}

/* Keeps the case, whose buffers are no longer the merger's. */
static void
collect_case(struct merger *m)
{
	if (!has_room(m, m->retry_bytes, RETRY_TEXTS))
		return;
	m->retries = grow(m->retries, &m->capretries, m->nretries + 1, sizeof(m->c));
	m->retries[m->nretries++] = m->c;
	m->retry_bytes += sizeof(m->c) + m->c.b[BAD_TEXT].n + children(&m->c);
	m->c = new_case();
}

static void
write_case(struct merger *m)
{
	struct testcase *c = &m->c;
	struct buf *b = &m->out.b;

	buf_str(b, "  <testcase");
	xml_attribute(b, "name", c->b[NAME].s);
	xml_attribute(b, "classname", c->b[CLASS].s);
	buf_fmt(b, " time=\"%" PRId64 ".%06" PRId64 "\"%s>", c->us / 1000000, c->us % 1000000,
		c->b[ATTRS].s);
	for (int k = 0; k <= K_ERR; k++)
		if (k == K_PROPS || k >= K_OUT)
			add_element(b, (enum kind)k, &c->b[k]);
		else
			buf_add(b, c->b[k].s, c->b[k].n);
	buf_str(b, "</testcase>\n");
	if (b->n > CHUNK)
		out_flush(&m->out);
}

/* Appends the first line of s for the screen.  Tabs separate such fields. */
static void
add_field(struct buf *b, const char *s, char end)
{
	char *line = str("%.*s", FIELD, s + strspn(s, " \t\n")), *tab;

	while ((tab = strchr(line, '\t')))
		*tab = ' ';
	buf_safe(b, line, strcspn(line, "\n"));
	buf_char(b, end);
}

/* The line number behind what announces one at s, or 0.  A trace has it behind
 * the file; YAML, as node-tap writes it, under a key of its own. */
static int
read_line_number(const char *s)
{
	static const char *const before[] = {
		":", " line ", ", line ", "line: ", "lineNumber: "
	};

	for (size_t i = 0; i < LEN(before); i++) {
		const char *number = s + strlen(before[i]);
		if (starts(s, before[i]) && *number > '0' && *number <= '9')
			return atoi(number);
	}
	return 0;
}

/* Finds the line of file that failed in the failure's text. */
static void
find_line(struct testcase *c, const char *file)
{
	const char *text = c->b[BAD_TEXT].s, *first = strstr(text, file);

	for (const char *at = first; at; at = strstr(at + 1, file)) {
		int line = read_line_number(at + strlen(file));
		/* Attributes have the line of the test. */
		if (line > 0 && (at == text || at[-1] == '\n' || !*c->b[LINE].s)) {
			set(&c->b[PATH], file);
			set(&c->b[LINE], str("%d", line));
		}
	}
	for (const char *s = first ? text : NULL; s && !*c->b[LINE].s; s = strchr(s, '\n')) {
		s += strspn(s, " \n");
		int line = read_line_number(s);
		if (line > 0)
			set(&c->b[LINE], str("%d", line));
	}
}

/* Lists a failing case in the notes. */
static void
note_failure(struct merger *m)
{
	struct testcase *c = &m->c;
	struct sink *said = &m->t.inner_text;
	int64_t count = m->total.failures + m->total.errors;

	if (count == NOTES + 1)
		buf_str(m->notes, "- more tests failed than are listed here\n");
	if (count > NOTES)
		return;
	find_line(c, m->part->file);
	sink_begin(said, m->o->limit, false);
	sink_text(said, c->b[BAD_TEXT].s, c->b[BAD_TEXT].n, false);
	sink_end(said);
	const char *reason = said->b.s;
	if (starts(reason, "collection failure") || starts(reason, "failed on setup with"))
		/* pytest, which marks the reason */
		for (const char *s = strstr(reason, "\nE "); s; s = strstr(s + 1, "\nE "))
			reason = s + 2;
	buf_str(m->notes, "x ");
	for (size_t i = CLASS; i <= LINE; i++)
		add_field(m->notes, c->b[i].s, '\t');
	add_field(m->notes, reason, '\n');
}

static void
count_case(struct counts *n, const struct testcase *c)
{
	n->tests++;
	n->failures += c->b[K_FAILURE].n > 0;
	n->errors += is_bad(c) && !c->b[K_FAILURE].n;
	n->skipped += c->b[K_SKIPPED].n > 0;
}

/* The case is over: counts and writes it, or collects it. */
static void
end_case(struct merger *m)
{
	struct testcase *c = &m->c;

	m->seen.cases++;
	m->seen.bad += is_bad(c);
	c->open = false;
	if (is_bad(c) && c->todo) {     /* it is known, and told in the output */
		add_output(&c->b[K_OUT], c->b[BAD_TEXT].s, "");
		c->b[K_FAILURE].n = c->b[K_ERROR].n = 0;
	}
	if (m->collect && is_bad(c))
		collect_case(m);
	if (!is_silent(m)) {
		add_retries(m);
		if (is_bad(c))
			c->b[K_SKIPPED].n = 0;
		else if (c->not_run && !c->b[K_SKIPPED].n)
			add_result(c, K_SKIPPED, "", "", "");
		open_suite(m);
		count_case(&m->suite, c);
		count_case(&m->total, c);
		if (m->notes && is_bad(c))
			note_failure(m);
		m->suite_us += c->us;
		write_case(m);
	}
	clear(c);
}

/* Begins a case of our own. */
static void
begin_case(struct merger *m, const char *name)
{
	struct testcase *c = &m->c;

	set(&c->b[NAME], *name ? name : "(unnamed)");
	set(&c->b[CLASS], here(m));
	set(&c->b[PATH], "");
	set(&c->b[LINE], "");
	set(&c->b[ATTRS], "");
	c->us = 0;
	c->not_run = c->todo = c->hanging = false;
	if (m->part->file)
		xml_attribute(&c->b[ATTRS], "file", m->part->file);
}

/* Whether the report was cut by a time-out: its last case hangs. */
static bool
is_late(const struct merger *m)
{
	return m->part->cause == CAUSE_TIMEOUT && !m->collect;
}

/* Begins a case from its tag. */
static void
read_case(struct merger *m, const struct reader *r)
{
	static const char *const not_run[] = { "disabled", "notrun" };
	struct testcase *c = &m->c;

	begin_case(m, xml_attr(r, "name"));
	m->in_unit = true;
	c->open = true;
	c->hanging = is_late(m) && !*xml_attr(r, "name");
	if (c->hanging)
		set(&c->b[NAME], synthetic[CAUSE_TIMEOUT]);
	if (*xml_attr(r, "classname"))
		set(&c->b[CLASS], xml_attr(r, "classname"));
	set(&c->b[PATH], xml_attr(r, "file"));
	set(&c->b[LINE], xml_attr(r, "line"));
	c->us = xml_time(r);
	c->not_run = find_word(not_run, LEN(not_run), xml_attr(r, "status")) < LEN(not_run)
		|| !strcmp(xml_attr(r, "result"), "suppressed");
	if (*c->b[PATH].s) {
		c->b[ATTRS].n = 0;
		xml_attribute(&c->b[ATTRS], "file", c->b[PATH].s);
	}
	xml_attributes(&c->b[ATTRS], r, " name classname time type file ");
}

/* A failure or error of our own, which ends as its attempt's log does. */
static void
add_own_result(struct merger *m, enum cause cause, const char *message, size_t attempt)
{
	const struct list *logs = &m->part->logs;
	const char *text = attempt < logs->n ? file_tail(logs->v[attempt], 50) : "";
	struct text *t = &m->t;
	char *said = shown(message);

	t->attrs.n = t->message.n = 0;
	xml_attribute(&t->attrs, "message", said);
	xml_attribute(&t->attrs, "type", cause_name[cause]);
	xml_escape(&t->message, said, false);
	sink_begin(&t->outer_text, m->o->limit, true);
	sink_text(&t->outer_text, text, strlen(text), true);
	sink_end(&t->outer_text);
	add_result(&m->c, cause == CAUSE_EXIT ? K_FAILURE : K_ERROR, t->attrs.s, t->message.s,
		t->outer_text.b.s);
}

/* A case of our own; without a cause it passed, or was skipped. */
static void
add_case(struct merger *m, const char *name, enum cause cause, const char *why, size_t attempt,
	int64_t us)
{
	begin_case(m, name);
	m->c.us = us;
	if (cause)
		add_own_result(m, cause, why, attempt);
	else if (m->part->result == SKIP)
		add_result(&m->c, K_SKIPPED, " message=\"exit status 77\"", "exit status 77",
			"");
	end_case(m);
}

/* ---- from events to cases ---- */

/* A failure or its like is over. */
static void
end_result(struct merger *m)
{
	struct text *t = &m->t;
	struct testcase *c = &m->c;
	const char *text;
	enum kind kind = t->outer;
	bool in_suite = !c->open, bad = kind == K_FAILURE || kind == K_ERROR;

	t->outer = K_OTHER;
	sink_end(&t->outer_text);
	text = t->outer_text.b.s;
	if (in_suite && !bad)
		return;
	if (in_suite)           /* an error of the suite's own */
		begin_case(m, "[suite error]");
	if (in_suite || (bad && !is_bad(c)) || find_room(m)) {
		if (bad || kind == K_SKIPPED)
			add_result(c, kind, t->attrs.s, t->message.s, text);
		else
			add_rerun(c, kind, t->attrs.s, unless_blank(text), t->nested.s);
	}
	if (in_suite)
		end_case(m);
}

/* A leaf is over: text of a property or an output. */
static void
end_leaf(struct merger *m)
{
	struct text *t = &m->t;
	const struct buf *text = &t->inner_text.b;
	enum kind kind = t->inner;

	t->inner = K_OTHER;
	sink_end(&t->inner_text);
	if (t->outer != K_OTHER) {
		if (has_room(m, t->nested.n, 2))
			add_element(&t->nested, kind, text);
		return;
	}
	struct testcase *to = find_room(m);
	if (to && kind == K_PROP)
		add_property(&to->b[K_PROPS], t->property.s, text->s);
	else if (to)
		add_output(&to->b[kind], text->s, m->where);
}

/* What a tag is where it stands; K_OTHER: nothing to us. */
static enum kind
kind_here(const struct merger *m, const char *name)
{
	enum kind kind = (enum kind)find_word(kind_name, K_OTHER, name);
	enum kind outer = m->t.outer;

	if (m->t.inner == K_OTHER && outer == K_OTHER)
		return kind == K_STACK ? K_OTHER : kind;
	if (m->t.inner != K_OTHER || (kind != K_STACK && kind != K_OUT && kind != K_ERR)
	|| outer == K_FAILURE || outer == K_ERROR || outer == K_SKIPPED)
		return K_OTHER;         /* only reruns carry anything but text */
	return kind;
}

/* Begins a failure or its like.  GitLab misreads types that YAML has. */
static void
begin_result(struct merger *m, const struct reader *r, enum kind kind)
{
	static const char *const taken[] = { "yaml", "symbol", "array", "file" };
	const char *type = xml_attr(r, "type");
	bool rename = find_word(taken, LEN(taken), type) < LEN(taken);
	struct text *t = &m->t;

	t->outer = kind;
	sink_begin(&t->outer_text, m->o->limit, true);
	set(&t->nested, "");
	t->attrs.n = t->message.n = 0;
	if (kind == K_SKIPPED)
		m->c.todo = !strcmp(type, "todo");
	xml_attributes(&t->attrs, r, rename ? " type " : "");
	if (rename)
		buf_fmt(&t->attrs, " type=\"type %s\"", type);
	xml_escape(&t->message, xml_attr(r, "message"), false);
}

/* A property; true if its text is the value. */
static bool
read_property(struct merger *m, const struct reader *r)
{
	const char *name = xml_attr(r, "name"), *value = xml_attr(r, "value");
	const struct part *p = m->part;

	if (!m->in_unit && starts(name, "prun.")) {     /* from here on it is of another file */
		m->in_unit = m->after_unit = true;
		m->dropping = m->unit < p->nreplaced && p->replaced[m->unit];
		m->unit++;
		add_property(&m->beside.b[K_PROPS], "prun.name", p->name);
	}
	set(&m->t.property, name);
	struct testcase *to = *value ? find_room(m) : NULL;
	if (to)
		add_property(&to->b[K_PROPS], name, value);
	return !*value;
}

/* Gives a suite, whose attributes begin at own, from's by that name, if new. */
static void
inherit(struct buf *heads, size_t own, const char *from, const char *name)
{
	const char *hit = strstr(from, name);
	size_t mark = scratch_mark();

	if (hit && !strstr(heads->s + own, name))       /* no value has a quote in it */
		buf_str(heads, str("%s%.*s\"", name,
			(int)strcspn(hit + strlen(name), "\""), hit + strlen(name)));
	scratch_release(mark);
}

/* Adds name and attributes of a suite; if it does not say when and where it
 * ran, the suite around it may, or one before it. */
static void
begin_suite(struct merger *m, const struct reader *r)
{
	static const char *const names[] = { " timestamp=\"", " hostname=\"", " file=\"" };
	struct place *at = &m->at;
	size_t own = at->heads.n, outer = at->n ? at->v[at->n - 1].suite : 0;

	/* A name that is joined 20,000 times would be read by nobody. */
	if (*xml_attr(r, "name") && at->path.n < 1000)
		buf_fmt(&at->path, "%s%s", at->path.n ? "/" : "", xml_attr(r, "name"));
	if (!has_room(m, own, CASE_TEXTS))
		return;
	xml_attributes(&at->heads, r, " name id tests failures errors skipped disabled time ");
	for (size_t i = 0; outer && i < LEN(names); i++)
		inherit(&at->heads, own, at->heads.s + at->v[outer - 1].head, names[i]);
	if (at->sibling.n)
		inherit(&at->heads, own, at->sibling.s, names[2]);
}

/* Ends a suite, or all; declared failures that no case has become a case. */
static void
end_suite(struct merger *m, const struct frame *f, bool forced)
{
	struct place *at = &m->at;
	bool inner = m->seen.suites > f->before.suites;

	if (f->declared && m->seen.bad == f->before.bad && !forced
	&& (f->kind == K_SUITE || !inner))
		add_case(m, "[suite error]", CAUSE_REPORT, str("%" PRId64
			" failures or errors are declared, and no case failed", f->declared),
			NO_LOG, 0);
	if (f->kind == K_SUITES)
		return;
	const char *head = at->heads.s + f->head;
	if (inner)
		at->sibling.n = 0;
	if (m->seen.cases == f->before.cases && !inner && (strstr(head, " file=\"")
	|| strstr(head, " timestamp=\"") || strstr(head, " hostname=\""))) {
		open_suite(m);          /* nobody else says so */
		set(&at->sibling, head);
	}
	close_suite(m);
	at->path.n = f->path;
	at->heads.n = f->head;
	at->path.s[f->path] = '\0';
	at->heads.s[f->head] = '\0';
}

/* Ends the innermost element; forced: its end tag never came. */
static void
pop(struct merger *m, bool forced)
{
	bool late = is_late(m);
	const char *why = late && m->part->why ? m->part->why : "the report ends in this case";
	struct place *at = &m->at;
	struct frame f = at->v[at->n - 1];

	if (f.kind == K_CASE) {
		if ((forced || m->c.hanging) && !is_bad(&m->c)) {
			add_own_result(m, late ? CAUSE_TIMEOUT : CAUSE_REPORT, why,
				late ? m->part->logs.n - 1 : NO_LOG);
			m->told = m->told || late;
		}
		end_case(m);
	} else if (f.kind == K_SUITE || f.kind == K_SUITES) {
		end_suite(m, &f, forced);
	} else if (f.kind == m->t.inner && f.kind != K_OTHER) {
		end_leaf(m);
	} else if (f.kind == m->t.outer && f.kind != K_OTHER) {
		end_result(m);
	}
	at->n--;
	at->nkind[f.kind]--;
}

static void
start_tag(struct merger *m, const struct reader *r)
{
	struct place *at = &m->at;
	struct frame f = { .kind = kind_here(m, xml_name(r)) };
	struct sink *text = &m->t.outer_text;

	while (m->c.open && f.kind >= K_CASE && f.kind <= K_SUITES)
		pop(m, true);           /* whose end tag never came */
	f.path = at->path.n;
	f.head = at->heads.n;
	f.suite = at->n ? at->v[at->n - 1].suite : 0;
	switch (f.kind) {
	case K_SUITE:
		f.suite = at->n + 1;
		m->in_unit = false;
		close_suite(m);
		begin_suite(m, r);
		m->seen.suites++;
		/* FALLTHROUGH */
	case K_SUITES:
		f.us = xml_time(r);
		f.declared = xml_number(r, "failures") + xml_number(r, "errors");
		f.before = m->seen;
		break;
	case K_CASE:
		read_case(m, r);
		break;
	case K_PROP:
		if (!read_property(m, r)) {
			f.kind = K_OTHER;
			break;
		}
		/* FALLTHROUGH */
	case K_OUT:
	case K_ERR:
		m->t.inner = f.kind;
		sink_begin(&m->t.inner_text, m->o->limit, f.kind != K_PROP);
		break;
	case K_STACK:
		/* The text of its rerun, after what text there is. */
		if (text->b.n && *unless_blank(text->b.s))
			sink_text(text, "\n", 1, true);
		else
			sink_begin(text, m->o->limit, true);
		break;
	case K_PROPS:
	case K_OTHER:
		break;
	default:
		begin_result(m, r, f.kind);
	}
	at->v = grow(at->v, &at->cap, at->n + 1, sizeof(f));
	at->v[at->n++] = f;
	at->nkind[f.kind]++;
}

static void
end_tag(struct merger *m, struct reader *r)
{
	const struct place *at = &m->at;
	enum kind kind = (enum kind)find_word(kind_name, K_OTHER, xml_name(r));
	enum kind top = at->n ? at->v[at->n - 1].kind : KINDS;

	if (top != kind && top != K_OTHER) {
		xml_breaks(r, "has an end tag that nothing began");
		if (!at->nkind[kind])
			return;
		while (at->v[at->n - 1].kind != kind)
			pop(m, true);
	}
	pop(m, false);
}

/* Reads all events of a report, and whatever is still open at its end. */
static void
read_events(struct merger *m, struct reader *r)
{
	struct text *t = &m->t;
	bool seen = false;
	enum event e;

	do {
		struct sink *to = t->outer != K_OTHER ? &t->outer_text : NULL;
		to = t->inner != K_OTHER ? &t->inner_text : to;
		e = xml_next(r, m->at.n == 0, to);
		seen = seen || e == START;
		if (e == START)
			start_tag(m, r);
		else if (e == END)
			end_tag(m, r);
	} while (e != EOD);
	if (!seen || m->at.n)
		xml_breaks(r, seen ? "ends too early" : "has no testsuite element");
	while (m->at.n)
		pop(m, true);
}

/* The directory of a report, with a slash; "" for the current one. */
static const char *
where(const char *path)
{
	char cwd[PATH_MAX];
	size_t n = getcwd(cwd, sizeof(cwd)) ? strlen(cwd) : 0;
	const char *from = n && !strncmp(path, cwd, n) && path[n] == '/' ? path + n + 1 : path;
	const char *slash = strrchr(from, '/');

	return slash ? str("%.*s/", (int)(slash - from), from) : "";
}

/* Reads one report; false when it is broken, and why. */
static bool
read_report(struct merger *m, const char *path, const char **why)
{
	/* What the user names may be as long as it is; a test's may not. */
	bool limited = m->part->file && m->o->limit < INT64_MAX / REPORT_TEXTS;
	int64_t most = limited ? REPORT_TEXTS * m->o->limit : INT64_MAX;
	struct reader *r = xml_open(path, true, m->o->limit, most);
	const char *broken;

	m->at.sibling.n = 0;
	m->where = where(path);
	if (!r) {
		broken = str("the report %s cannot be read: %s", path, strerror(errno));
	} else {
		read_events(m, r);
		broken = xml_broken(r);
		broken = broken ? str("the report %s %s", path, broken) : NULL;
		xml_close(r);
	}
	if (broken && !m->collect && !is_late(m))
		add_case(m, "[report]", CAUSE_REPORT, broken, NO_LOG, 0);
	close_suite(m);
	*why = broken ? broken : *why;
	return !broken;
}

/* Reads a report or all in a directory; their number, -1 if one is broken. */
static int
read_reports(struct merger *m, const char *path, const char **why)
{
	struct list names = { 0 };
	bool good = true;
	int n = 0;

	if (list_dir(&names, path) < 0 && errno == ENOTDIR)
		return read_report(m, path, why) ? 1 : -1;
	for (size_t i = 0; i < names.n; i++) {
		if (*names.v[i] == '.' || !xml_is_file(names.v[i]))
			continue;
		good = read_report(m, str("%s/%s", path, names.v[i]), why) && good;
		n++;
	}
	list_free(&names);
	return good ? n : -1;
}

/* ---- the merger ---- */

/* A merger; its memory is scratch, but for two arrays. */
static struct merger
new_merger(const struct merge *o, int fd)
{
	struct merger m = { .o = o, .out.fd = fd, .c = new_case(), .beside = new_case(),
		.t.outer = K_OTHER, .t.inner = K_OTHER };
	struct buf *all[] = { &m.out.b, &m.at.path, &m.at.heads, &m.at.sibling,
		&m.t.outer_text.b, &m.t.inner_text.b, &m.t.attrs, &m.t.message, &m.t.property,
		&m.t.nested };

	for (size_t i = 0; i < LEN(all); i++)
		*all[i] = scratch_buf();
	return m;
}

int
junit_count(const char *path, const char *file, struct counts *c, struct buf *notes,
	const char **why)
{
	struct part part = { .file = file };
	struct merge o = { .limit = 1 << 20 };
	struct merger m = new_merger(&o, -1);

	m.part = &part;
	m.notes = notes;
	m.first = true;
	int n = read_reports(&m, path, why);
	*c = m.total;
	c->failures += c->errors;
	c->errors = 0;
	free(m.retries);
	free(m.at.v);
	return n;
}

/* Makes the base's reports agree with the file's result.  reports: how many
 * there were, -1: one is broken; attempt: that of the cause; failed: a case. */
static void
synthesise(struct merger *m, int reports, size_t attempt, bool failed)
{
	const struct part *p = m->part;

	if (m->told || p->result == NONE || (p->cause == CAUSE_EXIT && failed)
	|| (p->cause == CAUSE_NONE && reports) || (p->cause == CAUSE_REPORT && reports < 0))
		return;
	add_case(m, synthetic[p->cause], p->cause, p->why ? p->why : cause_name[p->cause],
		attempt, p->ms * 1000);
}

/* Collects the failing cases of all attempts, or copies, but the base's. */
static void
collect_attempts(struct merger *m, size_t base, const char **why)
{
	const struct part *p = m->part;
	/* Of the last attempt cause and time are known, of others nothing. */
	enum cause cause = p->cause ? p->cause : CAUSE_EXIT;

	m->collect = true;
	for (size_t i = 0; i < p->reports.n; i++) {
		size_t before = m->nretries;
		if (i != base)
			read_reports(m, p->reports.v[i], why);
		if (i == base || m->nretries > before || !p->synthetic)
			continue;
		int64_t ms = i + 1 == p->reports.n ? p->ms : -1;
		if (p->copies) {
			cause = p->copies[i]->cause;
			ms = p->copies[i]->ms;
		}
		if (cause)
			add_case(m, synthetic[cause], cause, str("%s %zu failed",
				p->copies ? "copy" : "attempt", i + 1), i,
				ms < 0 ? ms : ms * 1000);
	}
	m->collect = false;
}

/* Writes cases that other attempts alone have: as failures, or as flaky. */
static void
write_unused(struct merger *m)
{
	m->promote = m->part->result >= FAIL;
	for (size_t i = 0; i < m->nretries; i++) {
		struct testcase *t = &m->retries[i];
		if (t->used)
			continue;
		begin_case(m, t->b[NAME].s);
		set(&m->c.b[CLASS], t->b[CLASS].s);
		m->c.us = t->us > 0 ? t->us : 0;
		end_case(m);            /* which finds it, and others of that name */
	}
}

static void
merge_part(struct merger *m, const struct part *p)
{
	size_t base = 0;
	size_t mark = scratch_mark();
	const char *why = "";
	int reports = 0;

	m->part = p;
	m->first = true;
	m->told = m->dropping = false;
	m->unit = m->nretries = m->retry_bytes = 0;
	m->c = new_case();              /* those that are collected end with the part */
	if (p->result < FAIL && p->reports.n)
		base = p->reports.n - 1;
	if (p->copies)          /* what the part says is of the first one like it */
		for (base = 0; base + 1 < p->reports.n; base++)
			if (p->copies[base]->result == p->result)
				break;
	m->promote = p->copies != NULL;
	collect_attempts(m, base, &why);
	int64_t before = m->total.failures + m->total.errors;
	if (!p->synthetic) {
		if (!read_report(m, p->reports.v[base], &why))
			warn("%s", why);
	} else {
		if (p->reports.n)
			reports = read_reports(m, p->reports.v[base], &why);
		synthesise(m, reports, p->copies ? base : p->logs.n - 1,
			m->total.failures + m->total.errors > before);
		if (m->first)           /* NONE: its properties at least */
			open_suite(m);
		close_suite(m);
	}
	if (!has_room(m, m->retry_bytes, RETRY_TEXTS))
		add_output(&m->beside.b[K_OUT], left_out, "");
	write_unused(m);
	close_suite(m);
	scratch_release(mark);
}

int
junit_merge(const struct merge *o, const struct part *parts, size_t n, const char *out,
	struct counts *total)
{
	char *aside;
	int fd = file_begin(out, 0666, &aside);
	struct merger m = new_merger(o, fd);

	*total = (struct counts){ 0 };
	if (fd < 0)
		return -1;
	buf_str(&m.out.b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites");
	xml_attribute(&m.out.b, "name", o->name);
	off_t root_at = leave_room(&m.out);
	buf_str(&m.out.b, ">\n");
	for (size_t i = 0; i < n; i++)
		if (!parts[i].skip)
			merge_part(&m, &parts[i]);
	buf_str(&m.out.b, "</testsuites>\n");
	out_flush(&m.out);
	fill_room(&m.out, root_at, &m.total, o->ms < 0 ? m.total_us : o->ms * 1000);
	*total = m.total;
	free(m.retries);
	free(m.at.v);
	errno = m.out.error;
	if (file_end(out, fd, aside, !m.out.error) < 0)
		return -1;
	if (m.out.flushed > REPORT_MAX)
		warn("%s has %" PRId64 " MB; GitLab reads no more than 30: see report-limit",
			out, (int64_t)m.out.flushed >> 20);
	return 0;
}
