/*
 * junit.c: merges the reports that tools wrote into one that all can read.
 *
 * What xml.c reads is taken for what it means by where it stands.  A report that is not
 * well-formed is read as far as it goes; then it gets a case [report] that says where it
 * broke.  The merger keeps one test case in memory, its children sorted into buffers as the
 * dialect orders them, and streams it out when it ends.  A start tag leaves room for
 * totals, which are written there when the suite is over.  Nested suites become suites
 * of their own, named outer/inner.
 *
 * Of a file with several attempts one report is the base (the last when it ended well,
 * else the first); the failures of the others are collected first and stand in the
 * base's cases as flaky or rerun elements.
 */
#include "prun.h"
#include <ctype.h>
#include <dirent.h>
#include <strings.h>

#define TOTALS 150      /* columns kept free in a start tag */
#define REPORT_MAX (30 << 20)   /* bytes; GitLab's limit */

/* ---- the merger ---- */

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

struct frame {
	enum kind kind;
	size_t path, head;      /* lengths of merger.path and .heads before it */
};

/* A failing case of an attempt that is not the base. */
struct retry {
	char *classname, *name, *attrs, *text, *out, *err;
	int64_t us;
	bool error, used;
};

/* Of which something was in an input. */
struct shard {
	char plan[16];
	long i, n;
	long source;            /* of the part */
};

struct merger {
	const struct merge *o;
	const struct part *part;
	int fd;                 /* -1: only count */
	int error;              /* errno of the first write that failed, or 0 */
	struct buf out;
	off_t flushed, suite_at;
	struct counts total, suite, sum;        /* sum: of the part */
	int64_t total_us, suite_us;
	bool open, first;       /* a suite is; none of this part was yet */
	int id;
	const char *report;     /* path of the one being read */
	struct buf *notes;      /* where failing cases are listed, or NULL */
	bool collect;           /* failing cases go to retries */
	struct retry *retries;
	size_t nretries, capretries;
	struct shard *shards;
	size_t nshards, capshards;
	char plan[16];          /* prun.plan of the suite under way */

	struct frame *frames;
	size_t nframes, capframes, nkind[KINDS];
	struct buf path, heads; /* suites' names; their other attributes */
	struct buf props, suite_out, suite_err;
	enum kind outer_kind, inner_kind;       /* K_OTHER: none */
	struct sink outer, inner;       /* text of a failure; of what is a leaf */
	struct buf outer_attrs, message, property, nested, bad_attrs, bad_text;
	bool in_case, not_run;  /* not_run: its attributes say so */
	struct buf classname, name, file, line, attrs, child[K_ERR + 1];
	int64_t case_us;
};

static void
out_flush(struct merger *m)
{
	if (m->fd >= 0 && !m->error && write_all(m->fd, m->out.s, m->out.n) < 0)
		m->error = errno;
	m->flushed += (off_t)m->out.n;
	m->out.n = 0;
}

static off_t
leave_room(struct merger *m)
{
	off_t at = m->flushed + (off_t)m->out.n;

	buf_fmt(&m->out, "%*s", TOTALS, "");
	return at;
}

static void
fill_room(struct merger *m, off_t at, const struct counts *c, int64_t us)
{
	char s[2 * TOTALS];
	int n = snprintf(s, sizeof(s), " tests=\"%" PRId64 "\" failures=\"%" PRId64 "\" errors=\"%"
		PRId64 "\" skipped=\"%" PRId64 "\" time=\"%.3f\"", c->tests, c->failures, c->errors,
		c->skipped, (double)us / 1e6);

	memset(s + n, ' ', sizeof(s) - (size_t)n);      /* of which TOTALS count */
	if (at >= m->flushed)
		memcpy(m->out.s + (at - m->flushed), s, TOTALS);
	else if (m->fd >= 0 && !m->error && pwrite(m->fd, s, TOTALS, at) != TOTALS)
		m->error = errno;
}

static void
add_property(struct buf *b, const char *name, const char *value)
{
	buf_str(b, "   <property");
	xml_attribute(b, "name", name);
	xml_attribute(b, "value", value);
	buf_str(b, "/>\n");
}

/* Notes of which shard of which plan the input under way has something. */
static void
note_shard(struct merger *m, const char *plan, const char *shard)
{
	struct shard s;
	char *end;
	size_t i;

	memset(&s, 0, sizeof(s));
	s.source = m->part->source;
	s.i = strtol(shard, &end, 10);
	s.n = *end == '/' ? strtol(end + 1, NULL, 10) : 0;
	snprintf(s.plan, sizeof(s.plan), "%s", plan);
	if (s.n == 1 || !s.source)      /* all there was; or the run's own report */
		return;
	for (i = 0; i < m->nshards; i++)
		if (!memcmp(&m->shards[i], &s, sizeof(s)))
			return;
	m->shards = grow(m->shards, &m->capshards, m->nshards + 1, sizeof(s));
	m->shards[m->nshards++] = s;
}

/* Says what is wrong with the shards that were merged; false if anything is. */
static bool
check_shards(const struct merger *m)
{
	const struct shard *s = m->shards;
	size_t i, k, missing = 0;
	bool good = true;
	long n;

	for (i = 0; i < m->nshards; i++) {
		if (strcmp(s[i].plan, s->plan) || s[i].n != s->n || s[i].i < 1 || s[i].i > s[i].n) {
			warn("shard %ld/%ld of plan %s does not go with shard %ld/%ld of plan %s: "
				"their machines had other files or another history", s[i].i, s[i].n,
				s[i].plan, s->i, s->n, s->plan);
			return false;
		}
		for (k = 0; k < i && s[k].i != s[i].i; k++)
			;
		if (k < i)
			warn("shard %ld/%ld is there twice", s[i].i, s[i].n);
		good = good && k == i;
	}
	for (n = 1; m->nshards && n <= s->n && missing < 10; n++) {
		for (i = 0; i < m->nshards && s[i].i != n; i++)
			;
		if (i == m->nshards && ++missing)
			warn("shard %ld/%ld is missing", n, s->n);
	}
	return good && !missing;
}

static void
add_own_properties(struct merger *m)
{
	const struct part *p = m->part;
	struct buf *b = &m->props;

	if (p->file) {          /* else of an empty shard */
		add_property(b, "prun.file", p->file);
		add_property(b, "prun.result", result_name[p->result]);
		add_property(b, "prun.seconds", str("%.3f", (double)p->ms / 1000));
		add_property(b, "prun.attempts", str("%d", p->attempts));
	}
	add_property(b, "prun.run", p->run);
	add_property(b, "prun.plan", p->plan);
	add_property(b, "prun.shard", p->shard);
	note_shard(m, p->plan, p->shard);
}

/* Name for what has none: the suites that are open, else the file. */
static const char *
here(const struct merger *m)
{
	return m->path.n ? m->path.s : m->part->file ? m->part->file : m->report ? m->report : "tests";
}

/* Begins a suite in the output, named as the suites that are open. */
static void
open_suite(struct merger *m)
{
	const char *own;
	size_t i;

	if (m->open || m->collect)
		return;
	m->open = true;
	buf_str(&m->out, " <testsuite");
	xml_attribute(&m->out, "name", here(m));
	buf_fmt(&m->out, " id=\"%d\"", m->id++);
	m->suite_at = leave_room(m);
	for (i = m->nframes; i && m->frames[i - 1].kind != K_SUITE; i--)
		;
	own = i ? m->heads.s + m->frames[i - 1].head : "";
	buf_str(&m->out, own);
	if (m->part->file && !strstr(own, " file=\""))
		xml_attribute(&m->out, "file", m->part->file);
	buf_str(&m->out, ">\n");
	if (m->first && m->part->synthetic)
		add_own_properties(m);
	m->first = false;
	if (m->props.n)
		buf_fmt(&m->out, "  <properties>\n%s  </properties>\n", m->props.s);
	m->props.n = 0;
	memset(&m->suite, 0, sizeof(m->suite));
	m->suite_us = 0;
}

static void
add_element(struct buf *to, enum kind kind, const char *attrs, const struct buf *text)
{
	buf_fmt(to, "<%s%s>", kind_name[kind], attrs);
	buf_add(to, text->s, text->n);
	buf_fmt(to, "</%s>", kind_name[kind]);
}

static void
close_suite(struct merger *m)
{
	if (m->collect)
		m->props.n = m->suite_out.n = m->suite_err.n = 0;
	if (m->props.n || m->suite_out.n || m->suite_err.n)
		open_suite(m);
	if (!m->open)
		return;
	m->open = false;
	if (m->suite_out.n)
		add_element(&m->out, K_OUT, "", &m->suite_out);
	if (m->suite_err.n)
		add_element(&m->out, K_ERR, "", &m->suite_err);
	m->suite_out.n = m->suite_err.n = 0;
	buf_str(&m->out, " </testsuite>\n");
	fill_room(m, m->suite_at, &m->suite, m->suite_us);
	m->total.tests += m->suite.tests;
	m->total.failures += m->suite.failures;
	m->total.errors += m->suite.errors;
	m->total.skipped += m->suite.skipped;
	m->total_us += m->suite_us;
}

/* Microseconds of a time attribute, however it is written. */
static int64_t
microseconds(const char *s)
{
	char text[64];
	size_t n = 0;
	double v;

	for (; s && *s && n < sizeof(text) - 1; s++)
		if (*s != ',' || !strchr(s, '.'))       /* 1,134.193 but 0,288 */
			text[n++] = (char)(*s == ',' ? '.' : *s);
	text[n] = '\0';
	v = strtod(text, NULL);
	return !(v > 0) ? 0 : v > 31536000 ? INT64_C(31536000000000) : (int64_t)(v * 1e6 + 0.5);
}

/* A failure or its like: attributes, then text that begins with the message. */
static void
add_result(struct buf *to, enum kind kind, const char *attrs, const char *message,
	const char *text)
{
	bool said = !strncmp(text, message, strlen(message));

	if (kind != K_SKIPPED && !*text && !*message)
		text = kind_name[kind];
	buf_fmt(to, "<%s%s>%s%s", kind_name[kind], attrs, said ? "" : message,
		said || !*text ? "" : "\n");
	buf_str(to, text);
	buf_fmt(to, "</%s>\n", kind_name[kind]);
}

/* [[ATTACHMENT|x]] is relative to its report; ours lies elsewhere. */
static void
add_attachments(struct buf *to, const char *report, const struct buf *text)
{
	static const char mark[] = "[[ATTACHMENT|";
	const char *s = text->s, *hit, *slash = report ? strrchr(report, '/') : NULL;
	char cwd[PATH_MAX];
	size_t n;

	while (slash && (hit = strstr(s, mark))) {
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

static void
set(struct buf *b, const char *s)
{
	b->n = 0;
	buf_str(b, s);
}

/* Hangs the failures of other attempts on the case: it passed, so they were flaky; or it
 * failed, so they were reruns. */
static void
add_retries(struct merger *m)
{
	bool bad = m->child[K_FAILURE].n || m->child[K_ERROR].n;
	struct retry *t;
	enum kind kind;
	size_t i;

	for (i = 0; i < m->nretries; i++) {
		t = &m->retries[i];
		if (t->used || strcmp(t->name, m->name.s) || strcmp(t->classname, m->classname.s))
			continue;
		t->used = true;
		kind = bad ? t->error ? K_RERUN_ERROR : K_RERUN : t->error ? K_FLAKY_ERROR : K_FLAKY;
		buf_fmt(&m->child[kind], "<%s%s", kind_name[kind], t->attrs);
		if (!strstr(t->attrs, " time=\""))
			buf_fmt(&m->child[kind], " time=\"%.3f\"", (double)t->us / 1e6);
		buf_fmt(&m->child[kind], "><stackTrace>%s</stackTrace>", t->text);
		if (*t->out)
			buf_fmt(&m->child[kind], "<system-out>%s</system-out>", t->out);
		if (*t->err)
			buf_fmt(&m->child[kind], "<system-err>%s</system-err>", t->err);
		buf_fmt(&m->child[kind], "</%s>\n", kind_name[kind]);
	}
}

/* A failure or an error of the case; the first one stands for it in another attempt. */
static void
add_verdict(struct merger *m, enum kind kind, const char *attrs, const char *message,
	const char *text)
{
	if (!m->child[K_FAILURE].n && !m->child[K_ERROR].n) {
		set(&m->bad_attrs, attrs);
		set(&m->bad_text, starts(text, message) ? "" : message);
		if (m->bad_text.n && *text)
			buf_char(&m->bad_text, '\n');
		buf_str(&m->bad_text, text);
	}
	add_result(&m->child[kind], kind, attrs, message, text);
}

/* The case is over: counts it, and writes or collects it. */
static void
end_case(struct merger *m)
{
	struct buf *c = m->child;
	bool bad = c[K_FAILURE].n || c[K_ERROR].n;
	int k;

	m->in_case = false;
	if (m->collect && bad) {
		struct retry t = { xstrdup(m->classname.s), xstrdup(m->name.s),
			xstrdup(m->bad_attrs.s), xstrdup(m->bad_text.s),
			xstrdup(c[K_OUT].n ? c[K_OUT].s : ""),
			xstrdup(c[K_ERR].n ? c[K_ERR].s : ""), m->case_us, !c[K_FAILURE].n, false };

		m->retries = grow(m->retries, &m->capretries, m->nretries + 1, sizeof(t));
		m->retries[m->nretries++] = t;
	}
	if (m->not_run && !bad && !c[K_SKIPPED].n)
		add_result(&c[K_SKIPPED], K_SKIPPED, "", "", "");
	m->not_run = false;
	if (!m->collect) {
		add_retries(m);
		if (bad)
			c[K_SKIPPED].n = 0;
		open_suite(m);
		m->suite.tests++;
		m->suite.failures += c[K_FAILURE].n > 0;
		m->suite.errors += !c[K_FAILURE].n && c[K_ERROR].n;
		m->suite.skipped += c[K_SKIPPED].n > 0;
		m->suite_us += m->case_us;
		m->sum.tests++;
		m->sum.failures += bad;
		m->sum.skipped += c[K_SKIPPED].n > 0;
		buf_str(&m->out, "  <testcase");
		xml_attribute(&m->out, "name", m->name.s);
		xml_attribute(&m->out, "classname", m->classname.s);
		buf_fmt(&m->out, " time=\"%" PRId64 ".%06" PRId64 "\"%s>", m->case_us / 1000000,
			m->case_us % 1000000, m->attrs.s);
		if (c[K_PROPS].n)
			add_element(&m->out, K_PROPS, "", &c[K_PROPS]);
		for (k = K_FAILURE; k <= K_FLAKY_ERROR; k++)
			buf_add(&m->out, c[k].s, c[k].n);
		for (k = K_OUT; k <= K_ERR; k++)
			if (c[k].n) {
				buf_fmt(&m->out, "<%s>", kind_name[k]);
				add_attachments(&m->out, m->report, &c[k]);
				buf_fmt(&m->out, "</%s>", kind_name[k]);
			}
		buf_str(&m->out, "</testcase>\n");
		if (m->out.n > XML_WINDOW)
			out_flush(m);
	}
	for (k = 0; k <= K_ERR; k++)
		c[k].n = 0;
}

/* Begins a case, from its tag or (r NULL) of our own. */
static void
begin_case(struct merger *m, const struct reader *r, const char *name)
{
	const char *class = r ? xml_attr(r, "classname") : NULL, *status, *result;

	set(&m->name, name && *name ? name : "(unnamed)");
	set(&m->classname, class && *class ? class : here(m));
	set(&m->file, r && xml_attr(r, "file") ? xml_attr(r, "file") : "");
	set(&m->line, r && xml_attr(r, "line") ? xml_attr(r, "line") : "");
	set(&m->attrs, "");
	m->case_us = r ? microseconds(xml_attr(r, "time")) : 0;
	if (r) {
		m->in_case = true;
		status = xml_attr(r, "status") ? xml_attr(r, "status") : "";
		result = xml_attr(r, "result") ? xml_attr(r, "result") : "";
		m->not_run = !strcmp(status, "disabled") || !strcmp(status, "notrun")
			|| !strcmp(result, "suppressed");
		xml_attributes(&m->attrs, r, " name classname time type ");
	}
	if (m->part->file && !(r && xml_attr(r, "file")))
		xml_attribute(&m->attrs, "file", m->part->file);
}

static void
note_failure(struct merger *m, const char *message)
{
	const char *line = m->line.s[strspn(m->line.s, "0123456789")] ? "" : m->line.s;
	struct buf *b = m->notes;

	buf_str(b, "x ");
	buf_safe(b, m->classname.s, m->classname.n);
	buf_char(b, '\t');
	buf_safe(b, m->name.s, m->name.n);
	buf_char(b, '\t');
	buf_safe(b, m->file.s, m->file.n);
	buf_fmt(b, "\t%s\t", line);
	message += strspn(message, " \n");
	buf_safe(b, message, strcspn(message, "\n"));
	buf_char(b, '\n');
}

/* A case of our own; kind K_OTHER: it passed. */
static void
add_case(struct merger *m, const char *name, enum kind kind, const char *type,
	const char *message, const char *text, int64_t us)
{
	struct buf safe = { 0 }, attrs = { 0 }, head = { 0 }, body = { 0 };

	begin_case(m, NULL, name);
	m->case_us = us;
	if (kind != K_OTHER) {
		buf_safe(&safe, message, strlen(message));
		xml_attribute(&attrs, "message", safe.s);
		xml_attribute(&attrs, "type", type);
		xml_escape(&head, safe.s, false);
		xml_escape(&body, text, false);
		if (m->notes)
			note_failure(m, message);
		add_result(&m->child[kind], kind, attrs.s, head.s, body.s);
	}
	end_case(m);
	buf_free(&safe);
	buf_free(&attrs);
	buf_free(&head);
	buf_free(&body);
}

/* ---- from events to cases ---- */

/* A failure or its like is over. */
static void
end_result(struct merger *m)
{
	enum kind kind = m->outer_kind;
	bool in_suite = !m->in_case, bad = kind == K_FAILURE || kind == K_ERROR;

	m->outer_kind = K_OTHER;
	sink_end(&m->outer);
	if (in_suite && !bad)
		return;
	if (in_suite)           /* an error of the suite's own */
		begin_case(m, NULL, "[suite error]");
	if (bad && m->notes && !m->child[K_FAILURE].n && !m->child[K_ERROR].n)
		note_failure(m, m->message.n ? m->message.s : m->outer.b.s);
	if (bad)
		add_verdict(m, kind, m->outer_attrs.s, m->message.s, m->outer.b.s);
	else if (kind == K_SKIPPED)
		add_result(&m->child[kind], kind, m->outer_attrs.s, m->message.s, m->outer.b.s);
	else if (m->nested.n && strstr(m->nested.s, "<stackTrace>"))
		add_element(&m->child[kind], kind, m->outer_attrs.s, &m->nested);
	else
		buf_fmt(&m->child[kind], "<%s%s><stackTrace>%s</stackTrace>%s</%s>\n",
			kind_name[kind], m->outer_attrs.s, m->outer.b.s,
			m->nested.n ? m->nested.s : "", kind_name[kind]);
	if (in_suite)
		end_case(m);
}

/* A leaf is over: text of a property, an output or a stack trace. */
static void
end_leaf(struct merger *m)
{
	enum kind kind = m->inner_kind;
	struct buf *to;

	m->inner_kind = K_OTHER;
	sink_end(&m->inner);
	if (m->outer_kind != K_OTHER) {
		add_element(&m->nested, kind, "", &m->inner.b);
		return;
	}
	if (kind == K_PROP) {
		add_property(m->in_case ? &m->child[K_PROPS] : &m->props, m->property.s,
			m->inner.b.s);
		return;
	}
	to = m->in_case ? &m->child[kind] : kind == K_OUT ? &m->suite_out : &m->suite_err;
	if ((int64_t)to->n < m->o->limit) {
		if (to->n && m->inner.b.n)
			buf_char(to, '\n');
		buf_add(to, m->inner.b.s, m->inner.b.n);
	}
}

/* What a start tag is where it stands; K_OTHER: nothing to us. */
static enum kind
kind_here(const struct merger *m, const char *name)
{
	bool verdict = m->outer_kind == K_FAILURE || m->outer_kind == K_ERROR
		|| m->outer_kind == K_SKIPPED;
	int k;

	for (k = 0; k < K_OTHER && strcmp(kind_name[k], name); k++)
		;
	if (m->inner_kind != K_OTHER)
		return K_OTHER;
	if (m->outer_kind != K_OTHER)   /* only reruns carry anything but text */
		return !verdict && (k == K_STACK || k == K_OUT || k == K_ERR) ? (enum kind)k : K_OTHER;
	if (k == K_STACK || (k != K_SUITE && k != K_SUITES && !m->nframes))
		return K_OTHER;
	return (enum kind)k;
}

/* Attributes of a failure.  GitLab takes the text for something else if its type is one of
 * YAML's. */
static void
result_attrs(struct merger *m, const struct reader *r)
{
	static const char taken[] = " yaml symbol array file ";
	const char *type = xml_attr(r, "type");
	bool rename = type && *type && strstr(taken, str(" %s ", type));

	m->outer_attrs.n = 0;
	xml_attributes(&m->outer_attrs, r, rename ? " type " : "");
	if (rename)
		xml_attribute(&m->outer_attrs, "type", str("type %s", type));
}

static void
start_tag(struct merger *m, const struct reader *r)
{
	struct frame f = { kind_here(m, r->name), m->path.n, m->heads.n };
	const char *message = xml_attr(r, "message"), *name = xml_attr(r, "name");
	const char *value = xml_attr(r, "value");

	switch (f.kind) {
	case K_SUITE:
		close_suite(m);
		/* A name that is joined 20,000 times would be read by nobody. */
		if (name && *name && m->path.n < 1000)
			buf_fmt(&m->path, "%s%s", m->path.n ? "/" : "", name);
		xml_attributes(&m->heads, r, " name id tests failures errors skipped disabled time ");
		break;
	case K_CASE:
		begin_case(m, r, name);
		break;
	case K_PROP:
		if (value && !m->in_case && name && !strcmp(name, "prun.plan"))
			snprintf(m->plan, sizeof(m->plan), "%s", value);
		if (value && !m->in_case && name && !strcmp(name, "prun.shard"))
			note_shard(m, m->plan, value);
		if (value) {
			add_property(m->in_case ? &m->child[K_PROPS] : &m->props, name ? name : "", value);
			f.kind = K_OTHER;
			break;
		}
		set(&m->property, name ? name : "");
		m->inner_kind = f.kind;         /* its text is the value */
		sink_begin(&m->inner, m->o->limit, false);
		break;
	case K_OUT:
	case K_ERR:
	case K_STACK:
		m->inner_kind = f.kind;
		sink_begin(&m->inner, m->o->limit, true);
		break;
	case K_PROPS:
	case K_SUITES:
	case K_OTHER:
		break;
	default:
		m->outer_kind = f.kind;
		sink_begin(&m->outer, m->o->limit, !m->notes);  /* notes are for the screen */
		result_attrs(m, r);
		m->nested.n = m->message.n = 0;
		if (m->notes)
			set(&m->message, message ? message : "");
		else
			xml_escape(&m->message, message ? message : "", false);
	}
	m->frames = grow(m->frames, &m->capframes, m->nframes + 1, sizeof(*m->frames));
	m->frames[m->nframes++] = f;
	m->nkind[f.kind]++;
}

/* Ends the innermost element; forced: its end tag never came. */
static void
pop(struct merger *m, bool forced)
{
	static const char cut[] = "the report ends in this case";
	struct frame f = m->frames[m->nframes - 1];

	if (f.kind == K_CASE) {
		if (forced && !m->child[K_FAILURE].n && !m->child[K_ERROR].n)
			add_verdict(m, K_ERROR, " message=\"the report ends in this case\" "
				"type=\"prun.report\"", cut, cut);
		end_case(m);
	} else if (f.kind == K_SUITE) {
		close_suite(m);
	} else if (f.kind == m->inner_kind && f.kind != K_OTHER) {
		end_leaf(m);
	} else if (f.kind == m->outer_kind && f.kind != K_OTHER) {
		end_result(m);
	}
	m->nframes--;
	m->nkind[f.kind]--;
	m->path.n = f.kind == K_SUITE ? f.path : m->path.n;
	m->heads.n = f.kind == K_SUITE ? f.head : m->heads.n;
	buf_add(&m->path, "", 0);
	buf_add(&m->heads, "", 0);
}

static void
end_tag(struct merger *m, struct reader *r)
{
	enum kind top = m->nframes ? m->frames[m->nframes - 1].kind : KINDS;
	int k;

	for (k = 0; k < K_OTHER && strcmp(kind_name[k], r->name); k++)
		;
	if ((int)top != k && top != K_OTHER) {
		xml_breaks(r, "has an end tag that nothing began");
		if (!m->nkind[k])
			return;
		while ((int)m->frames[m->nframes - 1].kind != k)
			pop(m, true);
	}
	pop(m, false);
}

/* Reads one report; false when it is broken, which stands in why. */
static bool
read_report(struct merger *m, const char *path, struct buf *why)
{
	struct reader r;
	enum event e = EOD;
	bool seen = false;

	m->report = path;
	why->n = 0;
	if (xml_open(&r, path, m->o->limit) < 0)
		buf_fmt(why, "the report %s cannot be read: %s", path, strerror(errno));
	else
		do {
			r.top = m->nframes == 0;
			e = xml_next(&r);
			if (e == START)
				start_tag(m, &r);
			else if (e == END)
				end_tag(m, &r);
			else if (e != EOD)
				xml_text(&r, m->inner_kind != K_OTHER ? &m->inner
					: m->outer_kind != K_OTHER ? &m->outer : NULL, e);
			seen = seen || e == START;
		} while (e != EOD);
	if (!why->n && !seen)
		xml_breaks(&r, r.at ? "has no testsuite element" : "is empty");
	else if (m->nframes)
		xml_breaks(&r, "ends too early");
	while (m->nframes)
		pop(m, true);
	if (!why->n && r.broken)
		buf_fmt(why, "the report %s %s (byte %" PRId64 ")", path, r.broken, r.broken_at);
	if (why->n && !m->collect)
		add_case(m, "[report]", K_ERROR, "prun.report", why->s, "", 0);
	close_suite(m);
	xml_close(&r);
	return !why->n;
}

static int
is_xml(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return *e->d_name != '.' && n > 4 && !strcmp(e->d_name + n - 4, ".xml");
}

/* Reads a report or all in a directory; their number, -1 if one is broken. */
static int
read_reports(struct merger *m, const char *path, struct buf *why)
{
	struct dirent **e;
	struct stat st;
	int i, n, bad = 0;

	if (stat(path, &st) < 0)
		return 0;
	if (!S_ISDIR(st.st_mode))
		return read_report(m, path, why) ? 1 : -1;
	n = scandir(path, &e, is_xml, alphasort);
	for (i = 0; i < n; i++) {
		bad |= !read_report(m, str("%s/%s", path, e[i]->d_name), why);
		free(e[i]);
	}
	if (n >= 0)
		free(e);
	return bad ? -1 : n < 0 ? 0 : n;
}

static void
init_merger(struct merger *m, const struct merge *o, const struct part *part, int fd)
{
	memset(m, 0, sizeof(*m));
	m->o = o;
	m->part = part;
	m->fd = fd;
	m->first = true;
	m->outer_kind = m->inner_kind = K_OTHER;
	set(&m->heads, "");
	set(&m->outer_attrs, "");
}

static void
free_retries(struct merger *m)
{
	struct retry *t;

	while (m->nretries) {
		t = &m->retries[--m->nretries];
		free(t->classname);
		free(t->name);
		free(t->attrs);
		free(t->text);
		free(t->out);
		free(t->err);
	}
}

static void
free_merger(struct merger *m)
{
	struct buf *all[] = { &m->out, &m->path, &m->heads, &m->props, &m->suite_out,
		&m->suite_err, &m->classname, &m->name, &m->attrs, &m->outer_attrs, &m->message,
		&m->property, &m->nested, &m->bad_attrs, &m->bad_text, &m->file, &m->line,
		&m->outer.b, &m->inner.b };
	size_t i;

	for (i = 0; i < LEN(all); i++)
		buf_free(all[i]);
	for (i = 0; i <= K_ERR; i++)
		buf_free(&m->child[i]);
	free_retries(m);
	free(m->retries);
	free(m->shards);
	free(m->frames);
}

int
junit_count(const char *path, const char *file, struct counts *c, struct buf *notes,
	struct buf *why)
{
	struct part part;
	struct merge o;
	struct merger m;
	int n;

	memset(&part, 0, sizeof(part));
	memset(&o, 0, sizeof(o));
	part.file = file;
	o.limit = 1 << 20;
	init_merger(&m, &o, &part, -1);
	m.notes = notes;
	n = read_reports(&m, path, why);
	*c = m.sum;
	free_merger(&m);
	return n;
}

/* The case that stands for what no report tells, by cause. */
static const char *const synthetic[CAUSES] = {
	"[exit]", "[exit]", "[signal]", "[timeout]", "[leak]", "[output]", "[server]", "[server]",
	"[port]", "[database]", "[spawn]", "[worker]", "[report]", "[cancelled]"
};

/* Squares the reports with the result: adds what it says and they do not. */
static void
synthesise(struct merger *m, int reports)
{
	const struct part *p = m->part;
	struct buf tail = { 0 };
	bool said = (p->cause == CAUSE_EXIT && m->sum.failures) || p->result == NONE
		|| (p->cause == CAUSE_NONE && reports) || (p->cause == CAUSE_REPORT && reports < 0);
	enum kind kind = p->result == SKIP ? K_SKIPPED : p->cause == CAUSE_NONE ? K_OTHER
		: p->cause == CAUSE_EXIT ? K_FAILURE : K_ERROR;

	if (!said) {
		if (p->logs.n && kind != K_SKIPPED)
			buf_tail(&tail, p->logs.v[p->logs.n - 1], 50);
		add_case(m, synthetic[p->cause], kind, kind == K_SKIPPED ? "prun.skip"
			: cause_name[p->cause], p->why ? p->why : kind == K_SKIPPED ? "exit status 77"
			: cause_name[p->cause], tail.n ? tail.s : "", p->ms * 1000);
		buf_free(&tail);
	}
	if (m->first)           /* NONE: its properties at least */
		open_suite(m);
	close_suite(m);
}

/* An attempt that failed without a failing case in a report. */
static void
collect_exit(struct merger *m, size_t attempt)
{
	/* The last one's cause is known; what passed at last had failed somehow. */
	enum cause cause = m->part->cause ? m->part->cause : CAUSE_EXIT;
	struct buf tail = { 0 };
	char *message = str("attempt %zu failed", attempt + 1);

	if (attempt < m->part->logs.n)
		buf_tail(&tail, m->part->logs.v[attempt], 50);
	sink_begin(&m->outer, m->o->limit, true);
	sink_text(&m->outer, tail.s, tail.n, true);
	sink_end(&m->outer);
	set(&m->outer_attrs, "");
	xml_attribute(&m->outer_attrs, "message", message);
	xml_attribute(&m->outer_attrs, "type", cause_name[cause]);
	begin_case(m, NULL, synthetic[cause]);
	add_verdict(m, cause == CAUSE_EXIT ? K_FAILURE : K_ERROR, m->outer_attrs.s, message,
		m->outer.b.s);
	end_case(m);
	buf_free(&tail);
}

static void
merge_part(struct merger *m, const struct part *p)
{
	struct buf why = { 0 };
	size_t i, before, base = p->result < FAIL && p->reports.n ? p->reports.n - 1 : 0;
	struct retry *t;
	enum kind kind;
	int reports = 0;

	m->part = p;
	m->first = true;
	memset(&m->sum, 0, sizeof(m->sum));
	for (i = 0; i < p->reports.n; i++) {
		if (i == base)
			continue;
		m->collect = true;
		before = m->nretries;
		read_reports(m, p->reports.v[i], &why);
		if (m->nretries == before && p->synthetic)
			collect_exit(m, i);
	}
	m->collect = false;
	if (!p->synthetic) {
		if (!read_report(m, p->reports.v[base], &why))
			warn("%s", why.s);
	} else if (p->reports.n) {
		reports = read_reports(m, p->reports.v[base], &why);
	}
	if (p->synthetic)
		synthesise(m, reports);
	/* Cases that failed in another attempt and are not in the base. */
	for (i = 0; i < m->nretries; i++) {
		t = &m->retries[i];
		if (t->used)
			continue;
		begin_case(m, NULL, t->name);
		set(&m->classname, t->classname);
		kind = t->error ? K_ERROR : K_FAILURE;
		t->used = p->result >= FAIL;
		m->case_us = t->us;
		if (t->used) {
			add_result(&m->child[kind], kind, t->attrs, "", t->text);
			buf_str(&m->child[K_OUT], t->out);
			buf_str(&m->child[K_ERR], t->err);
		}
		end_case(m);
	}
	close_suite(m);
	free_retries(m);
	buf_free(&why);
}

int
junit_merge(const struct merge *o, const struct part *parts, size_t n, const char *out,
	struct counts *total)
{
	/* What is no file cannot be replaced, nor written twice. */
	bool spool = !strcmp(out, "-") || is_special(out);
	bool refused = false;
	char *aside = str("%s.%ld", out, (long)getpid());
	FILE *f = spool ? tmpfile() : NULL;
	struct merger m;
	char chunk[8192];
	ssize_t got = 0;
	size_t i;
	off_t root_at;
	int to = strcmp(out, "-") ? -1 : 1;
	int fd = f ? fileno(f) : spool ? -1
		: open(aside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	init_merger(&m, o, NULL, fd);
	m.error = fd < 0 ? errno : 0;
	buf_str(&m.out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites");
	xml_attribute(&m.out, "name", o->name);
	root_at = leave_room(&m);
	buf_str(&m.out, ">\n");
	for (i = 0; i < n; i++)
		merge_part(&m, &parts[i]);
	buf_str(&m.out, "</testsuites>\n");
	out_flush(&m);
	fill_room(&m, root_at, &m.total, o->ms < 0 ? m.total_us : o->ms * 1000);
	*total = m.total;
	if (!check_shards(&m) && !o->partial) {
		warn("%s is not written; --partial would merge them all the same", out);
		refused = true;
	}
	free_merger(&m);
	if (f && !m.error && !refused && lseek(fd, 0, SEEK_SET) == 0) {
		if (to < 0 && (to = open(out, O_WRONLY | O_CLOEXEC)) < 0)
			m.error = errno;
		while (!m.error && (got = read(fd, chunk, sizeof(chunk))) > 0)
			m.error = write_all(to, chunk, (size_t)got) < 0 ? errno : 0;
		if (to > 1 && close(to) < 0 && !m.error)
			m.error = errno;
	}
	if (got < 0 || ((f ? fclose(f) : fd >= 0 ? close(fd) : 0) < 0 && !m.error)
	|| (!spool && !m.error && !refused && rename(aside, out) < 0))
		m.error = errno;
	if ((m.error || refused) && !spool)
		unlink(aside);
	else if (m.flushed > REPORT_MAX)
		warn("%s has %" PRId64 " MB; GitLab reads no more than 30: see report-limit", out,
			(int64_t)m.flushed >> 20);
	errno = m.error;
	return m.error || refused ? -1 : 0;
}

/* ---- TAP ---- */

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
	size_t i, first, n;

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
	n = mark ? (size_t)(mark - s) : strlen(s);
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	title = safe(s, n);
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
junit_tap(const char *log, const char *path, const char *name)
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
