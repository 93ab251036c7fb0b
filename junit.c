/*
 * junit.c: merges the reports that tools wrote into one that all can read.
 *
 * The meaning of a tag depends on where it stands (kind_here).  A report that
 * is not well-formed is read as far as it goes; then it gets a case [report]
 * that says where it broke.  The merger keeps one test case in memory, its
 * children sorted into buffers as the dialect orders them, and writes it when it
 * ends.  A start tag leaves room for totals, which are filled in when its suite
 * is over.  Nested suites become suites of their own, named outer/inner.
 *
 * Of a file with several attempts one report is the base: the last if it passed
 * at last, else the first.  A first pass collects the failures of the other
 * attempts; then the base's cases are written, and each carries its failures
 * elsewhere as flaky or rerun elements.
 */
#include "prun.h"
#include <dirent.h>

#define TOTALS 150              /* columns kept free in a start tag */
#define CHUNK 65536             /* bytes written at once */
#define LINE 500                /* bytes of a name or message on the screen */
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

static const char *const roots[] = { "testsuites", "testsuite", NULL };

/* What is written, with the end of it still in memory. */
struct output {
	int fd;                 /* -1: only count */
	int error;              /* errno of the first write that failed, or 0 */
	struct buf b;
	off_t flushed;
};

struct frame {
	enum kind kind;
	size_t path, head;      /* lengths of place.path and .heads before it */
	int64_t us;             /* its own time, until it is used */
	int64_t declared;       /* failures and errors, by its attributes */
	int64_t nsuites, nbad, ncases;  /* those of the merger when it began */
};

/* Where in a report we are: the elements that are open. */
struct place {
	struct frame *v;
	size_t n, cap, nkind[KINDS];
	struct buf path, heads; /* suites' names; their other attributes */
};

struct testcase {
	bool open, not_run;     /* not_run: its attributes say so */
	bool todo;              /* its failure is known, and skipped */
	bool hanging;           /* it has no name in a report that a time-out cut */
	struct buf classname, name, file, line, attrs, child[K_ERR + 1];
	/* its first failure or error: attributes, text, and as it is shown */
	struct buf bad_attrs, bad_text, said;
	int64_t us;
	int64_t left_out;       /* elements for which there was no room */
};

/* A failure or its like, and the leaf below it or elsewhere: a property, an
 * output, a stack trace. */
struct text {
	enum kind outer, inner; /* K_OTHER: none is open */
	struct sink outer_text, inner_text;
	struct buf attrs, message, property, stack, nested;
};

/* A failing case of an attempt that is not the base. */
enum { CLASS, NAME, ATTRS, BODY, OUT, ERR, STRINGS };
struct retry {
	char *s[STRINGS];
	int64_t us;
	bool error, used;
};

/* The case for what no report tells, by cause. */
static const char *const synthetic[CAUSES] = {
	"[exit]", "[exit]", "[signal]", "[timeout]", "[leak]", "[output]", "[server]",
	"[server]", "[port]", "[database]", "[spawn]", "[worker]", "[report]", "[cancelled]"
};

struct merger {
	const struct merge *o;
	const struct part *part;
	const char *report;     /* path of the one being read */
	struct buf *notes;      /* where failing cases are listed, or NULL */
	struct output out;
	struct place at;
	struct testcase c;
	struct text t;

	int64_t nsuites, nbad, ncases;  /* suites, failing cases, cases so far */
	bool open, first;       /* a suite is; none of this part was yet */
	bool told;              /* a case tells of the part's time-out */
	int id;                 /* of the next suite */
	off_t suite_at;
	struct counts total, suite, sum;        /* sum: of the part */
	int64_t total_us, suite_us, own_us;     /* own: as the suite itself says */
	struct buf props, suite_out, suite_err;
	int64_t left_out;       /* of the suite, as of a case */

	bool collect;           /* failing cases go to retries */
	struct retry *retries;
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
	char s[2 * TOTALS];
	int n = snprintf(s, sizeof(s), " tests=\"%" PRId64 "\" failures=\"%" PRId64 "\" "
		"errors=\"%" PRId64 "\" skipped=\"%" PRId64 "\" time=\"%.3f\"", c->tests,
		c->failures, c->errors, c->skipped, (double)us / 1e6);

	memset(s + n, ' ', sizeof(s) - (size_t)n);      /* TOTALS are used */
	errno = ENOSPC;                 /* of a short write */
	if (at >= o->flushed)
		memcpy(o->b.s + (at - o->flushed), s, TOTALS);
	else if (o->fd >= 0 && !o->error && pwrite(o->fd, s, TOTALS, at) != TOTALS)
		o->error = errno;
}

static void
add_property(struct buf *b, const char *name, const char *value)
{
	buf_str(b, "   <property");
	xml_attribute(b, "name", name);
	xml_attribute(b, "value", value);
	buf_str(b, "/>\n");
}

static void
add_element(struct buf *to, enum kind kind, const char *attrs, const struct buf *text)
{
	buf_fmt(to, "<%s%s>", kind_name[kind], attrs);
	buf_add(to, text->s, text->n);
	buf_fmt(to, "</%s>", kind_name[kind]);
}

/* ---- limits ---- */

static bool
has_room(const struct merger *m, size_t used, int texts)
{
	return (int64_t)used / texts < m->o->limit;
}

/* Whether the case, or outside of one the suite, takes one more element; if not
 * it is counted. */
static bool
takes(struct merger *m)
{
	size_t used = m->props.n + m->suite_out.n + m->suite_err.n;
	int k;

	if (m->c.open)
		for (used = k = 0; k <= K_ERR; k++)
			used += m->c.child[k].n;
	if (has_room(m, used, CASE_TEXTS))
		return true;
	if (m->c.open)
		m->c.left_out++;
	else
		m->left_out++;
	return false;
}

/* Says in an output how many elements were left out. */
static void
tell_left_out(struct buf *out, int64_t *n)
{
	if (*n)
		buf_fmt(out, "%s[prun: %" PRId64 " elements left out, see report-limit]",
			out->n ? "\n" : "", *n);
	*n = 0;
}

/* ---- suites ---- */

static void
add_own_properties(struct merger *m)
{
	const struct part *p = m->part;
	struct buf *b = &m->props;

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
	if (p->phases) {
		add_property(b, "prun.worker", str("%d", p->worker));
		add_property(b, "prun.phases", p->phases);
	}
	if (p->name)
		add_property(b, "prun.name", p->name);
	m->after_unit = true;
}

/* Name for what has none: the suites that are open, else the file. */
static const char *
here(const struct merger *m)
{
	if (m->at.path.n)
		return m->at.path.s;
	if (m->part->file)
		return m->part->file;
	return m->report ? m->report : "tests";
}

/* Whether what is read is not written. */
static bool
is_silent(const struct merger *m)
{
	return m->collect || m->dropping;
}

/* Begins a suite in the output, named as the suites that are open. */
static void
open_suite(struct merger *m)
{
	const char *own = "";
	size_t i;

	if (m->open || is_silent(m))
		return;
	m->open = true;
	buf_fmt(&m->out.b, " <testsuite name=\"%s%s", m->part->name ? m->part->name : "",
		m->part->name ? "/" : "");
	xml_escape(&m->out.b, here(m), true);
	buf_fmt(&m->out.b, "\" id=\"%d\"", m->id++);
	m->suite_at = leave_room(&m->out);
	for (i = m->at.n; i && m->at.v[i - 1].kind != K_SUITE; i--)
		;
	m->own_us = 0;
	if (i) {
		own = m->at.heads.s + m->at.v[i - 1].head;
		m->own_us = m->at.v[i - 1].us;
		m->at.v[i - 1].us = 0;  /* once, should it go on after another one */
	}
	buf_str(&m->out.b, own);
	if (m->part->file && !strstr(own, " file=\""))
		xml_attribute(&m->out.b, "file", m->part->file);
	buf_str(&m->out.b, ">\n");
	if (m->first && m->part->synthetic)
		add_own_properties(m);
	else if (m->first && m->after_unit && !m->props.n)
		add_property(&m->props, "prun.file", "");       /* the run's suites end here */
	m->first = false;
	if (m->props.n)
		buf_fmt(&m->out.b, "  <properties>\n%s  </properties>\n", m->props.s);
	m->props.n = 0;
	memset(&m->suite, 0, sizeof(m->suite));
	m->suite_us = 0;
}

static void
close_suite(struct merger *m)
{
	tell_left_out(&m->suite_out, &m->left_out);
	if (is_silent(m))
		m->props.n = m->suite_out.n = m->suite_err.n = 0;
	if (m->props.n || m->suite_out.n || m->suite_err.n)
		open_suite(m);
	if (!m->open)
		return;
	m->open = false;
	if (m->suite_out.n)
		add_element(&m->out.b, K_OUT, "", &m->suite_out);
	if (m->suite_err.n)
		add_element(&m->out.b, K_ERR, "", &m->suite_err);
	m->suite_out.n = m->suite_err.n = 0;
	buf_str(&m->out.b, " </testsuite>\n");
	if (m->own_us && m->suite.tests)        /* setup and teardown count */
		m->suite_us = m->own_us;
	fill_room(&m->out, m->suite_at, &m->suite, m->suite_us);
	m->total.tests += m->suite.tests;
	m->total.failures += m->suite.failures;
	m->total.errors += m->suite.errors;
	m->total.skipped += m->suite.skipped;
	m->total_us += m->suite_us;
}

/* ---- cases ---- */

static bool
is_bad(const struct testcase *c)
{
	return c->child[K_FAILURE].n || c->child[K_ERROR].n;
}

/* A failure or its like: attributes, then text that begins with the message. */
static void
add_result(struct testcase *c, enum kind kind, const char *attrs, const char *message,
	const char *text)
{
	struct buf *to = &c->child[kind];
	bool said;

	/* dorny's parser dies of a blank text */
	text = text[strspn(text, " \t\n")] ? text : "";
	message = message[strspn(message, " \t\n")] ? message : "";
	if (kind != K_SKIPPED && !*text && !*message)
		text = kind_name[kind];
	said = starts(text, message);
	buf_fmt(to, "<%s%s>%s%s", kind_name[kind], attrs, said ? "" : message,
		said || !*text ? "" : "\n");
	buf_str(to, text);
	buf_fmt(to, "</%s>\n", kind_name[kind]);
}

/* A failure or an error of the case; the first one stands for it in another
 * attempt. */
static void
add_verdict(struct testcase *c, enum kind kind, const char *attrs, const char *message,
	const char *text)
{
	if (!is_bad(c)) {
		set(&c->bad_attrs, attrs);
		set(&c->bad_text, starts(text, message) ? "" : message);
		if (c->bad_text.n && *text)
			buf_char(&c->bad_text, '\n');
		buf_str(&c->bad_text, text);
		set(&c->said, message[strspn(message, " \t\n")] ? message : text);
	}
	add_result(c, kind, attrs, message, text);
}

/* [[ATTACHMENT|x]] is relative to its report; ours lies elsewhere. */
static void
add_attachments(struct buf *to, const char *report, const struct buf *text)
{
	static const char mark[] = "[[ATTACHMENT|";
	const char *slash = report ? strrchr(report, '/') : NULL;
	const char *s = text->s, *hit = strstr(s, mark);
	char cwd[PATH_MAX];
	size_t n;

	for (; hit && slash; hit = strstr(s, mark)) {
		hit += sizeof(mark) - 1;
		buf_add(to, s, (size_t)(hit - s));
		s = hit;
		n = getcwd(cwd, sizeof(cwd)) ? strlen(cwd) : 0;
		n = n && !strncmp(report, cwd, n) && report[n] == '/' ? n + 1 : 0;
		if (*hit != '/' && report + n < slash)
			buf_add(to, report + n, (size_t)(slash + 1 - report) - n);
	}
	buf_str(to, s);
}

/* Hangs the failures of other attempts on the case: it passed, so they were
 * flaky; or it failed, so they were reruns. */
static void
add_retries(struct merger *m)
{
	static const enum kind as[] = { K_FLAKY, K_FLAKY_ERROR, K_RERUN, K_RERUN_ERROR };
	struct testcase *c = &m->c;
	bool bad = is_bad(c);
	struct retry *t;
	struct buf *to;
	enum kind kind;
	size_t i;

	for (i = 0; i < m->nretries; i++) {
		t = &m->retries[i];
		if (t->used || strcmp(t->s[NAME], c->name.s)
		|| strcmp(t->s[CLASS], c->classname.s))
			continue;
		t->used = true;
		kind = as[2 * bad + t->error];
		to = &c->child[kind];
		buf_fmt(to, "<%s%s", kind_name[kind], t->s[ATTRS]);
		if (t->us >= 0 && !strstr(t->s[ATTRS], " time=\""))
			buf_fmt(to, " time=\"%.3f\"", (double)t->us / 1e6);
		buf_fmt(to, "><stackTrace>%s</stackTrace>", t->s[BODY]);
		if (*t->s[OUT])
			buf_fmt(to, "<system-out>%s</system-out>", t->s[OUT]);
		if (*t->s[ERR])
			buf_fmt(to, "<system-err>%s</system-err>", t->s[ERR]);
		buf_fmt(to, "</%s>\n", kind_name[kind]);
	}
}

static void
collect_case(struct merger *m)
{
	const struct testcase *c = &m->c;
	const struct buf *from[STRINGS] = { &c->classname, &c->name, &c->bad_attrs,
		&c->bad_text, &c->child[K_OUT], &c->child[K_ERR] };
	struct retry *t;
	size_t i;

	if (!has_room(m, m->retry_bytes, RETRY_TEXTS)) {
		m->left_out++;
		return;
	}
	m->retries = grow(m->retries, &m->capretries, m->nretries + 1, sizeof(*t));
	t = &m->retries[m->nretries++];
	for (i = 0; i < STRINGS; i++) {
		t->s[i] = xstrdup(from[i]->n ? from[i]->s : "");
		m->retry_bytes += from[i]->n + sizeof(*t);
	}
	t->us = c->us;
	t->error = !c->child[K_FAILURE].n;
	t->used = false;
}

static void
write_case(struct merger *m)
{
	struct testcase *c = &m->c;
	struct buf *b = &m->out.b;
	int k;

	buf_str(b, "  <testcase");
	xml_attribute(b, "name", c->name.s);
	xml_attribute(b, "classname", c->classname.s);
	buf_fmt(b, " time=\"%" PRId64 ".%06" PRId64 "\"%s>", c->us / 1000000, c->us % 1000000,
		c->attrs.s);
	if (c->child[K_PROPS].n)
		add_element(b, K_PROPS, "", &c->child[K_PROPS]);
	for (k = K_FAILURE; k <= K_FLAKY_ERROR; k++)
		buf_add(b, c->child[k].s, c->child[k].n);
	for (k = K_OUT; k <= K_ERR; k++) {
		if (!c->child[k].n)
			continue;
		buf_fmt(b, "<%s>", kind_name[k]);
		add_attachments(b, m->report, &c->child[k]);
		buf_fmt(b, "</%s>", kind_name[k]);
	}
	buf_str(b, "</testcase>\n");
	if (b->n > CHUNK)
		out_flush(&m->out);
}

/* Appends the first line of s for the screen, without tabs: they are between
 * such fields. */
static void
add_field(struct buf *b, const char *s)
{
	char *line = str("%.*s", LINE, s + strspn(s, " \t\n")), *tab;

	while ((tab = strchr(line, '\t')))
		*tab = ' ';
	buf_safe(b, line, strcspn(line, "\n"));
}

/* Lists a failing case in the notes. */
static void
note_failure(struct merger *m)
{
	struct testcase *c = &m->c;
	const struct buf *field[] = { &c->classname, &c->name, &c->file, &c->line, &c->said };
	char *name = str("\n%s:", m->part->file), *at = c->bad_text.s;
	size_t i;

	if (m->sum.failures == NOTES)
		buf_str(m->notes, "- more tests failed than are listed here\n");
	if (m->sum.failures >= NOTES)
		return;
	/* A trace has the line that failed, attributes have that of the test. */
	while ((at = strstr(at, name))) {
		at += strlen(name);
		if (*at > '0' && *at <= '9') {
			set(&c->file, m->part->file);
			set(&c->line, str("%d", atoi(at)));
		}
	}
	buf_str(m->notes, "x ");
	for (i = 0; i < LEN(field); i++) {
		add_field(m->notes, field[i]->s);
		buf_char(m->notes, i + 1 < LEN(field) ? '\t' : '\n');
	}
}

static void
count_case(struct merger *m, bool bad)
{
	struct testcase *c = &m->c;

	m->suite.tests++;
	m->suite.failures += c->child[K_FAILURE].n > 0;
	m->suite.errors += bad && !c->child[K_FAILURE].n;
	m->suite.skipped += c->child[K_SKIPPED].n > 0;
	m->suite_us += c->us;
	m->sum.tests++;
	m->sum.failures += bad;
	m->sum.skipped += c->child[K_SKIPPED].n > 0;
}

/* The case is over: counts and writes it, or collects it. */
static void
end_case(struct merger *m)
{
	struct testcase *c = &m->c;
	bool bad = is_bad(c);
	int k;

	m->ncases++;
	m->nbad += bad;
	if (bad && c->todo) {           /* it is known, and told in the output */
		if (c->child[K_OUT].n)
			buf_char(&c->child[K_OUT], '\n');
		buf_add(&c->child[K_OUT], c->bad_text.s, c->bad_text.n);
		c->child[K_FAILURE].n = c->child[K_ERROR].n = 0;
		bad = false;
	}
	tell_left_out(&c->child[K_OUT], &c->left_out);
	c->open = false;
	if (bad)
		c->child[K_SKIPPED].n = 0;
	else if (c->not_run && !c->child[K_SKIPPED].n)
		add_result(c, K_SKIPPED, "", "", "");
	if (m->collect && bad)
		collect_case(m);
	if (!is_silent(m)) {
		if (m->notes && bad)
			note_failure(m);
		add_retries(m);
		open_suite(m);
		count_case(m, bad);
		write_case(m);
	}
	for (k = 0; k <= K_ERR; k++)
		c->child[k].n = 0;
}

/* Value of the tag's attribute, or "". */
static const char *
attr(const struct reader *r, const char *name)
{
	const char *value = xml_attr(r, name);

	return value ? value : "";
}

/* Begins a case of our own. */
static void
begin_case(struct merger *m, const char *name)
{
	struct testcase *c = &m->c;

	set(&c->name, *name ? name : "(unnamed)");
	set(&c->classname, here(m));
	set(&c->file, "");
	set(&c->line, "");
	set(&c->attrs, "");
	c->us = 0;
	c->not_run = c->todo = c->hanging = false;
	if (m->part->file)
		xml_attribute(&c->attrs, "file", m->part->file);
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

	begin_case(m, attr(r, "name"));
	m->in_unit = true;
	c->open = true;
	c->hanging = is_late(m) && !*attr(r, "name");
	if (c->hanging)
		set(&c->name, synthetic[CAUSE_TIMEOUT]);
	if (*attr(r, "classname"))
		set(&c->classname, attr(r, "classname"));
	set(&c->file, attr(r, "file"));
	set(&c->line, attr(r, "line"));
	c->us = xml_time(r);
	c->not_run = find_word(not_run, LEN(not_run), attr(r, "status")) < LEN(not_run)
		|| !strcmp(attr(r, "result"), "suppressed");
	if (xml_attr(r, "file"))
		c->attrs.n = 0;
	xml_attributes(&c->attrs, r, " name classname time type ");
}

/* Makes ready a failure of our own in m->t; the text is clean. */
static void
own_result(struct merger *m, const char *type, const char *message, const char *text)
{
	struct text *t = &m->t;
	char *said = safe(message, strlen(message));

	t->attrs.n = t->message.n = 0;
	xml_attribute(&t->attrs, "message", said);
	xml_attribute(&t->attrs, "type", type);
	if (m->notes)           /* for the screen */
		set(&t->message, said);
	else
		xml_escape(&t->message, said, false);
	sink_begin(&t->outer_text, m->o->limit, !m->notes);
	sink_text(&t->outer_text, text, strlen(text), true);
	sink_end(&t->outer_text);
}

/* A case of our own; kind K_OTHER: it passed. */
static void
add_case(struct merger *m, const char *name, enum kind kind, const char *type,
	const char *message, const char *text, int64_t us)
{
	begin_case(m, name);
	m->c.us = us;
	if (kind != K_OTHER) {
		own_result(m, type, message, text);
		add_verdict(&m->c, kind, m->t.attrs.s, m->t.message.s, m->t.outer_text.b.s);
	}
	end_case(m);
}

/* ---- from events to cases ---- */

/* A flaky or rerun element: text and stack trace are one. */
static void
add_rerun(struct merger *m, enum kind kind)
{
	const struct text *t = &m->t;
	struct buf *to = &m->c.child[kind];
	const char *text = t->outer_text.b.s;
	bool blank = !text[strspn(text, " \t\n")];

	buf_fmt(to, "<%s%s><stackTrace>", kind_name[kind], t->attrs.s);
	if (!blank || !t->stack.n)
		buf_str(to, text);
	if (!blank && t->stack.n)
		buf_char(to, '\n');
	buf_add(to, t->stack.s, t->stack.n);
	buf_str(to, "</stackTrace>");
	buf_add(to, t->nested.s, t->nested.n);
	buf_fmt(to, "</%s>\n", kind_name[kind]);
}

/* A failure or its like is over. */
static void
end_result(struct merger *m)
{
	struct text *t = &m->t;
	struct testcase *c = &m->c;
	enum kind kind = t->outer;
	bool in_suite = !c->open, bad = kind == K_FAILURE || kind == K_ERROR;

	t->outer = K_OTHER;
	sink_end(&t->outer_text);
	if (in_suite && !bad)
		return;
	if (in_suite)           /* an error of the suite's own */
		begin_case(m, "[suite error]");
	if (in_suite || (bad && !is_bad(c)) || takes(m)) {
		if (bad)
			add_verdict(c, kind, t->attrs.s, t->message.s, t->outer_text.b.s);
		else if (kind == K_SKIPPED)
			add_result(c, kind, t->attrs.s, t->message.s, t->outer_text.b.s);
		else
			add_rerun(m, kind);
	}
	if (in_suite)
		end_case(m);
}

/* A leaf is over: text of a property, an output or a stack trace. */
static void
end_leaf(struct merger *m)
{
	struct text *t = &m->t;
	const struct buf *text = &t->inner_text.b;
	enum kind kind = t->inner;
	struct buf *to = kind == K_OUT ? &m->suite_out : &m->suite_err;

	t->inner = K_OTHER;
	sink_end(&t->inner_text);
	if (t->outer != K_OTHER) {
		if (kind == K_STACK)
			buf_add(&t->stack, text->s, text->n);
		else if (has_room(m, t->nested.n, 2))
			add_element(&t->nested, kind, "", text);
		return;
	}
	if (!takes(m))
		return;
	if (kind == K_PROP) {
		to = m->c.open ? &m->c.child[K_PROPS] : &m->props;
		add_property(to, t->property.s, text->s);
		return;
	}
	if (m->c.open)
		to = &m->c.child[kind];
	if (to->n && text->n)
		buf_char(to, '\n');
	buf_add(to, text->s, text->n);
}

/* What a tag is where it stands; K_OTHER: nothing to us. */
static enum kind
kind_here(const struct merger *m, const char *name)
{
	enum kind kind = (enum kind)find_word(kind_name, K_OTHER, name);
	enum kind outer = m->t.outer;

	if (m->t.inner != K_OTHER)
		return K_OTHER;
	if (outer == K_FAILURE || outer == K_ERROR || outer == K_SKIPPED)
		return K_OTHER;         /* only reruns carry anything but text */
	if (outer != K_OTHER)
		return kind == K_STACK || kind == K_OUT || kind == K_ERR ? kind : K_OTHER;
	if (kind == K_STACK || (kind != K_SUITE && kind != K_SUITES && !m->at.n))
		return K_OTHER;
	return kind;
}

/* Begins a failure or its like.  GitLab takes its text for something else if its
 * type is one of YAML's. */
static void
begin_result(struct merger *m, const struct reader *r, enum kind kind)
{
	static const char *const taken[] = { "yaml", "symbol", "array", "file" };
	const char *type = attr(r, "type");
	bool rename = find_word(taken, LEN(taken), type) < LEN(taken);
	struct text *t = &m->t;

	t->outer = kind;
	sink_begin(&t->outer_text, m->o->limit, !m->notes);     /* notes are for the screen */
	t->attrs.n = t->stack.n = t->nested.n = t->message.n = 0;
	if (kind == K_SKIPPED)
		m->c.todo = !strcmp(type, "todo");
	xml_attributes(&t->attrs, r, rename ? " type " : "");
	if (rename)
		buf_fmt(&t->attrs, " type=\"type %s\"", type);
	if (m->notes)
		set(&t->message, attr(r, "message"));
	else
		xml_escape(&t->message, attr(r, "message"), false);
}

/* Begins a leaf, whose text is wanted. */
static void
begin_leaf(struct merger *m, enum kind kind)
{
	m->t.inner = kind;
	sink_begin(&m->t.inner_text, m->o->limit, kind != K_PROP);
}

/* The suites from here on are of another file of a run. */
static void
begin_unit(struct merger *m)
{
	const struct part *p = m->part;

	m->in_unit = m->after_unit = true;
	m->dropping = m->unit < p->nreplaced && p->replaced[m->unit];
	m->unit++;
	if (p->name)
		add_property(&m->props, "prun.name", p->name);
}

/* A property; true if its text is the value. */
static bool
read_property(struct merger *m, const struct reader *r)
{
	const char *name = attr(r, "name"), *value = xml_attr(r, "value");

	if (!m->in_unit && starts(name, "prun."))
		begin_unit(m);
	if (!value)
		set(&m->t.property, name);
	else if (takes(m))
		add_property(m->c.open ? &m->c.child[K_PROPS] : &m->props, name, value);
	return !value;
}

/* Adds name and attributes of a suite; if it does not say when and where it ran,
 * the suite around it may. */
static void
begin_suite(struct merger *m, const struct reader *r)
{
	static const char *const inherited[] = { " timestamp=\"", " hostname=\"", " file=\"" };
	struct place *at = &m->at;
	size_t i, own = at->heads.n, outer = own;
	struct buf copy = { 0 };
	const char *hit;

	/* A name that is joined 20,000 times would be read by nobody. */
	if (*attr(r, "name") && at->path.n < 1000)
		buf_fmt(&at->path, "%s%s", at->path.n ? "/" : "", attr(r, "name"));
	if (!has_room(m, own, CASE_TEXTS))
		return;
	xml_attributes(&at->heads, r, " name id tests failures errors skipped disabled time ");
	for (i = at->n; i && at->v[i - 1].kind != K_SUITE; i--)
		;
	if (i)
		outer = at->v[i - 1].head;
	for (i = 0; i < LEN(inherited); i++) {
		hit = strstr(at->heads.s + outer, inherited[i]);
		if (!hit || hit >= at->heads.s + own || strstr(at->heads.s + own, inherited[i]))
			continue;
		copy.n = 0;             /* the value has no quote in it */
		buf_add(&copy, hit, strlen(inherited[i]));
		hit += copy.n;
		buf_add(&copy, hit, strcspn(hit, "\"") + 1);
		buf_str(&at->heads, copy.s);
	}
	buf_free(&copy);
}

static void
start_tag(struct merger *m, const struct reader *r)
{
	struct place *at = &m->at;
	struct frame f = {
		.kind = kind_here(m, xml_name(r)), .path = at->path.n, .head = at->heads.n
	};

	switch (f.kind) {
	case K_SUITE:
	case K_SUITES:
		if (f.kind == K_SUITE) {
			m->in_unit = false;
			close_suite(m);
			begin_suite(m, r);
			m->nsuites++;
		}
		f.us = xml_time(r);
		f.declared = xml_number(r, "failures") + xml_number(r, "errors");
		f.nsuites = m->nsuites;
		f.nbad = m->nbad;
		f.ncases = m->ncases;
		break;
	case K_CASE:
		read_case(m, r);
		break;
	case K_PROP:
		if (read_property(m, r))
			begin_leaf(m, f.kind);
		else
			f.kind = K_OTHER;
		break;
	case K_OUT:
	case K_ERR:
	case K_STACK:
		begin_leaf(m, f.kind);
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

/* Ends a suite, or all; if it declares failures that none of its cases has, as
 * where a browser was lost, it gets one. */
static void
end_suite(struct merger *m, const struct frame *f, bool forced)
{
	struct place *at = &m->at;
	bool inner = m->nsuites > f->nsuites;
	const char *head;

	if (f->declared && m->nbad == f->nbad && !forced && (f->kind == K_SUITE || !inner))
		add_case(m, "[suite error]", K_ERROR, cause_name[CAUSE_REPORT], str("%" PRId64
			" failures or errors are declared, and no case failed", f->declared),
			"", 0);
	if (f->kind == K_SUITES)
		return;
	head = at->heads.s + f->head;
	if (m->ncases == f->ncases && !inner && (strstr(head, " file=\"")
	|| strstr(head, " timestamp=\"") || strstr(head, " hostname=\"")))
		open_suite(m);          /* nobody else says so */
	close_suite(m);
	at->path.n = f->path;
	at->heads.n = f->head;
	buf_add(&at->path, "", 0);
	buf_add(&at->heads, "", 0);
}

/* Ends the innermost element; forced: its end tag never came. */
static void
pop(struct merger *m, bool forced)
{
	bool late = is_late(m);
	const char *why = late && m->part->why ? m->part->why
		: "the report ends in this case";
	struct place *at = &m->at;
	struct frame f = at->v[at->n - 1];

	if (f.kind == K_CASE) {
		if ((forced || m->c.hanging) && !is_bad(&m->c)) {
			own_result(m, cause_name[late ? CAUSE_TIMEOUT : CAUSE_REPORT], why, "");
			add_verdict(&m->c, K_ERROR, m->t.attrs.s, m->t.message.s, "");
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

/* Reads all events of a report; false if there is no suite in it. */
static bool
read_events(struct merger *m, struct reader *r)
{
	const struct text *t = &m->t;
	bool seen = false;
	enum event e;

	while ((e = xml_next(r, m->at.n == 0)) != EOD) {
		if (e == START)
			start_tag(m, r);
		else if (e == END)
			end_tag(m, r);
		else if (t->inner != K_OTHER)
			xml_text(r, &m->t.inner_text, e);
		else
			xml_text(r, t->outer != K_OTHER ? &m->t.outer_text : NULL, e);
		seen = seen || e == START;
	}
	return seen;
}

/* Reads one report; false when it is broken, with the reason in why. */
static bool
read_report(struct merger *m, const char *path, struct buf *why)
{
	/* What the user names may be as long as it is; a test's may not. */
	int64_t most = m->part->file ? REPORT_TEXTS * m->o->limit : INT64_MAX;
	struct reader *r = xml_open(path, roots, m->o->limit, most);
	const char *broken;
	int64_t byte;

	m->report = path;
	why->n = 0;
	if (!r) {
		buf_fmt(why, "the report %s cannot be read: %s", path, strerror(errno));
	} else {
		if (!read_events(m, r))
			xml_breaks(r, "has no testsuite element");
		else if (m->at.n)
			xml_breaks(r, "ends too early");
		while (m->at.n)
			pop(m, true);
		broken = xml_broken(r, &byte);
		if (broken)
			buf_fmt(why, "the report %s %s (byte %" PRId64 ")", path, broken, byte);
		xml_close(r);
	}
	if (why->n && !m->collect && !is_late(m))
		add_case(m, "[report]", K_ERROR, cause_name[CAUSE_REPORT], why->s, "", 0);
	close_suite(m);
	return !why->n;
}

static int
is_xml(const struct dirent *e)
{
	return *e->d_name != '.' && xml_is_file(e->d_name);
}

/* Reads a report or all in a directory; their number, -1 if one is broken. */
static int
read_reports(struct merger *m, const char *path, struct buf *why)
{
	struct dirent **e;
	struct stat st;
	bool good = true;
	int i, n;

	if (stat(path, &st) < 0)
		return 0;
	if (!S_ISDIR(st.st_mode))
		return read_report(m, path, why) ? 1 : -1;
	n = scandir(path, &e, is_xml, alphasort);
	if (n < 0)
		return 0;
	for (i = 0; i < n; i++) {
		good = read_report(m, str("%s/%s", path, e[i]->d_name), why) && good;
		free(e[i]);
	}
	free(e);
	return good ? n : -1;
}

/* ---- the merger ---- */

static void
merger_init(struct merger *m, const struct merge *o, const struct part *part, int fd)
{
	memset(m, 0, sizeof(*m));
	m->o = o;
	m->part = part;
	m->out.fd = fd;
	m->first = true;
	m->t.outer = m->t.inner = K_OTHER;
	set(&m->at.heads, "");
	set(&m->t.attrs, "");
}

static void
free_retries(struct merger *m)
{
	size_t i;

	for (; m->nretries; m->nretries--)
		for (i = 0; i < STRINGS; i++)
			free(m->retries[m->nretries - 1].s[i]);
}

static void
merger_free(struct merger *m)
{
	struct testcase *c = &m->c;
	struct text *t = &m->t;
	struct buf *all[] = { &m->out.b, &m->at.path, &m->at.heads, &m->props, &m->suite_out,
		&m->suite_err, &c->classname, &c->name, &c->file, &c->line, &c->attrs,
		&c->bad_attrs, &c->bad_text, &c->said, &t->outer_text.b, &t->inner_text.b,
		&t->attrs, &t->message, &t->property, &t->stack, &t->nested };
	size_t i;

	for (i = 0; i < LEN(all); i++)
		buf_free(all[i]);
	for (i = 0; i <= K_ERR; i++)
		buf_free(&c->child[i]);
	free_retries(m);
	free(m->retries);
	free(m->at.v);
}

int
junit_count(const char *path, const char *file, struct counts *c, struct buf *notes,
	struct buf *why)
{
	struct part part = { .file = file };
	struct merge o = { .limit = 1 << 20 };
	struct merger m;
	int n;

	merger_init(&m, &o, &part, -1);
	m.notes = notes;
	n = read_reports(&m, path, why);
	*c = m.sum;
	merger_free(&m);
	return n;
}

/* The end of an attempt's log, in scratch memory. */
static char *
log_tail(const struct part *p, size_t attempt)
{
	struct buf tail = { 0 };
	char *s;

	if (attempt < p->logs.n)
		buf_tail(&tail, p->logs.v[attempt], 50);
	s = str("%s", tail.n ? tail.s : "");
	buf_free(&tail);
	return s;
}

/* Makes the reports agree with the file's result: adds a case for what they do
 * not tell.  reports: how many there were, -1: one is broken. */
static void
synthesise(struct merger *m, int reports)
{
	const struct part *p = m->part;
	bool told = m->told || (p->cause == CAUSE_EXIT && m->sum.failures) || p->result == NONE
		|| (p->cause == CAUSE_NONE && reports)
		|| (p->cause == CAUSE_REPORT && reports < 0);
	const char *type = cause_name[p->cause], *why = type;
	enum kind kind = K_ERROR;

	if (told)
		return;
	if (p->result == SKIP) {
		kind = K_SKIPPED;
		type = "prun.skip";
		why = "exit status 77";
	} else if (p->cause == CAUSE_NONE) {
		kind = K_OTHER;
	} else if (p->cause == CAUSE_EXIT) {
		kind = K_FAILURE;
	}
	add_case(m, synthetic[p->cause], kind, type, p->why ? p->why : why,
		kind == K_SKIPPED ? "" : log_tail(p, p->logs.n - 1), p->ms * 1000);
}

/* Collects an attempt that failed without a failing case in a report. */
static void
collect_exit(struct merger *m, size_t attempt)
{
	/* The last one's cause is known; if it passed, the others failed somehow. */
	enum cause cause = m->part->cause ? m->part->cause : CAUSE_EXIT;
	enum kind kind = cause == CAUSE_EXIT ? K_FAILURE : K_ERROR;

	/* Of an attempt before the last one nobody knows how long it took. */
	add_case(m, synthetic[cause], kind, cause_name[cause],
		str("attempt %zu failed", attempt + 1), log_tail(m->part, attempt),
		attempt + 1 == m->part->reports.n ? m->part->ms * 1000 : -1);
}

/* Collects the failing cases of all attempts but the base's. */
static void
collect_attempts(struct merger *m, size_t base, struct buf *why)
{
	const struct part *p = m->part;
	size_t i, before;

	m->collect = true;
	for (i = 0; i < p->reports.n; i++) {
		if (i == base)
			continue;
		before = m->nretries;
		read_reports(m, p->reports.v[i], why);
		if (m->nretries == before && p->synthetic)
			collect_exit(m, i);
	}
	m->collect = false;
}

/* Writes the cases that failed in another attempt and are not in the base: as
 * failures, or as flaky if the file passed. */
static void
write_unused(struct merger *m)
{
	struct testcase *c = &m->c;
	struct retry *t;
	enum kind kind;
	size_t i;

	for (i = 0; i < m->nretries; i++) {
		t = &m->retries[i];
		if (t->used)
			continue;
		begin_case(m, t->s[NAME]);
		set(&c->classname, t->s[CLASS]);
		c->us = t->us > 0 ? t->us : 0;
		if (m->part->result >= FAIL) {
			t->used = true;
			kind = t->error ? K_ERROR : K_FAILURE;
			add_result(c, kind, t->s[ATTRS], "", t->s[BODY]);
			buf_str(&c->child[K_OUT], t->s[OUT]);
			buf_str(&c->child[K_ERR], t->s[ERR]);
		}
		end_case(m);            /* which finds those that are not used yet */
	}
}

static void
merge_part(struct merger *m, const struct part *p)
{
	size_t base = p->result < FAIL && p->reports.n ? p->reports.n - 1 : 0;
	size_t mark = scratch_mark();
	struct buf why = { 0 };
	int reports = 0;

	m->part = p;
	m->first = true;
	m->told = m->dropping = false;
	m->unit = 0;
	m->retry_bytes = 0;
	memset(&m->sum, 0, sizeof(m->sum));
	collect_attempts(m, base, &why);
	if (!p->synthetic) {
		if (!read_report(m, p->reports.v[base], &why))
			warn("%s", why.s);
	} else {
		if (p->reports.n)
			reports = read_reports(m, p->reports.v[base], &why);
		synthesise(m, reports);
		if (m->first)           /* NONE: its properties at least */
			open_suite(m);
		close_suite(m);
	}
	write_unused(m);
	close_suite(m);
	free_retries(m);
	buf_free(&why);
	scratch_release(mark);
}

int
junit_merge(const struct merge *o, const struct part *parts, size_t n, const char *out,
	struct counts *total)
{
	char *aside;
	int fd = file_begin(out, 0666, &aside);
	struct merger m;
	off_t root_at;
	size_t i;

	*total = (struct counts){ 0 };
	if (fd < 0)
		return -1;
	merger_init(&m, o, NULL, fd);
	buf_str(&m.out.b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites");
	xml_attribute(&m.out.b, "name", o->name);
	root_at = leave_room(&m.out);
	buf_str(&m.out.b, ">\n");
	for (i = 0; i < n; i++)
		if (!parts[i].skip)
			merge_part(&m, &parts[i]);
	buf_str(&m.out.b, "</testsuites>\n");
	out_flush(&m.out);
	fill_room(&m.out, root_at, &m.total, o->ms < 0 ? m.total_us : o->ms * 1000);
	*total = m.total;
	merger_free(&m);
	errno = m.out.error;
	if (file_end(out, fd, aside, !m.out.error) < 0)
		return -1;
	if (m.out.flushed > REPORT_MAX)
		warn("%s has %" PRId64 " MB; GitLab reads no more than 30: see report-limit",
			out, (int64_t)m.out.flushed >> 20);
	return 0;
}
