/*
 * show.c: all that people and machines read.
 *
 * Nothing else writes to standard output while files run.  Of its buffer only
 * as much is written as is taken at once: prun must not stop with a pipe's
 * reader, or a terminal after ^S.  Descriptors 0 to 2 are shared with the
 * user's shell and stay blocking: poll() is asked before each write, which is
 * small enough for a pipe; a terminal is opened once more, for us alone.
 *
 * A line of an attempt's notes begins with "! ": the cause in words, "- ":
 * worth knowing, or "x ": a failing test, its class, name, file, line and
 * message with tabs between.
 */
#include "prun.h"
#include <sys/ioctl.h>

#define TESTS_SHOWN 20          /* failing tests of one file */
#define LEFT_SHOWN 5            /* of what one attempt left */
#define NAME_CUT 500            /* longer ones are cut in the notes */
#define ANNOTATIONS 10          /* GitHub shows no more of a step */
#define PAGE_TEXTS 200          /* failures in the page with their text: */
#define PAGE_TEXT 4096          /* bytes of each */
#define PAGE_MOST 1500000       /* bytes of the page, then it has no more details */
#define STEP_MOST 440000        /* the same of the summary of a step, which has 1 MB */
#define CHUNK 512               /* a pipe takes as much after POLLOUT: _POSIX_PIPE_BUF */

/* as counted in the last line */
static const char *const result_word[RESULTS] = {
	"passed", "flaky", "skipped", "without tests", "failed", "timed out",
	"with errors", "cancelled"
};
/* On the screen, in results.jsonl and in reports. */
static const char *const phase_name[PHASES] = {
	"end", "setup", "waiting", "clone", "start", "wait", "test", "stop"
};

struct show {
	const struct plan *plan;
	const struct record *records;
	int fd;                 /* standard output, or a terminal's second opening */
	int error;              /* errno of a write to it */
	struct buf out;         /* printed */
	size_t written;         /* of out */
	int jsonl;              /* results.jsonl; -1: a line could not be written */
	bool colours;           /* on a terminal */
	bool screen;            /* and lines redrawn in place below the others */
	char **told;            /* notes of each file's last failure, or NULL */
	char *github;           /* the word that ends stop-commands, or NULL */
	int annotated;
	int lines;              /* of workers, on the screen now */
	int done;               /* files that have ended */
	int64_t drawn;
};

/* What a note says of a failing test. */
enum { CLASS, NAME, SOURCE, LINE, MESSAGE, FIELDS };

static double
seconds(int64_t ms)
{
	return (double)ms / 1000;
}

/* Formats JSON and HTML: ' is a quote, %s a string of JSON, %h text of HTML or
 * NULL, %d an int, %n an int64_t, %t milliseconds as seconds.  %h has no empty
 * lines, after which GitHub would read Markdown. */
static void
fill(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			buf_char(b, *fmt == '\'' ? '"' : *fmt);
		} else if (*++fmt == 's') {
			buf_json(b, va_arg(ap, const char *));
		} else if (*fmt == 'h') {
			const char *text = va_arg(ap, const char *);
			xml_escape(b, text ? text : "", true);
		} else if (*fmt == 'd') {
			buf_fmt(b, "%d", va_arg(ap, int));
		} else if (*fmt == 'n') {
			buf_fmt(b, "%" PRId64, va_arg(ap, int64_t));
		} else if (*fmt == 't') {
			buf_fmt(b, "%.3f", seconds(va_arg(ap, int64_t)));
		}
	}
	va_end(ap);
}

/* "15 passed, 1 failed" */
static void
put_counts(struct buf *b, const int n[RESULTS])
{
	for (int k = PASS; k < RESULTS; k++)
		if (n[k] || k == PASS)
			buf_fmt(b, "%s%d %s", k == PASS ? "" : ", ", n[k], result_word[k]);
}

/* ---- the screen ---- */

int
show_error(const struct show *s)
{
	return s->error;
}

int
show_write(struct show *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLOUT };

	while (s->written < s->out.n && !s->error) {
		size_t left = s->out.n - s->written;
		if (poll(&p, 1, 0) <= 0)
			return s->fd;
		ssize_t n = write(s->fd, s->out.s + s->written, left < CHUNK ? left : CHUNK);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return s->fd;
		s->written += n < 0 ? 0 : (size_t)n;
		s->error = n < 0 ? errno : 0;
		if (s->error && s->error != EPIPE)
			warn("standard output:");
	}
	s->out.n = s->written = 0;
	return -1;
}

static void
erase(struct show *s)
{
	if (s->lines)
		buf_fmt(&s->out, "\033[%dA\r\033[J", s->lines);
	s->lines = 0;
}

static void
put_line(struct show *s, const char *text)
{
	buf_safe(&s->out, text, strlen(text));
	buf_char(&s->out, '\n');
}

/* The name of a file, with its suite where there are several. */
static char *
title(const struct show *s, const struct file *f)
{
	return shown(str("%s%s%s%s", s->plan->nsuites > 1 ? f->suite->name : "",
		s->plan->nsuites > 1 ? ": " : "", f->test, f->copy ? str(" (%d/%" PRId64 ")",
		f->copy, s->plan->o.repeat) : ""));
}

/* The word of a result, in green, yellow or red on a terminal. */
static char *
word(const struct show *s, enum result result, int width)
{
	char *text = str("%-*s", width, result_name[result]);

	return s->colours ? str("\033[3%cm%s\033[m", "23331111"[result], text) : text;
}

void
show_say(struct show *s, const char *fmt, ...)
{
	struct buf b = scratch_buf();
	char *line;
	va_list ap;

	erase(s);
	va_start(ap, fmt);
	buf_vfmt(&b, fmt, ap);
	va_end(ap);
	while ((line = next_line(&b.s)))
		put_line(s, line);
	show_write(s);
}

/* A line below the others, which must not wrap: we go up line by line. */
static void
draw_line(struct show *s, const char *line, int width)
{
	size_t n = strlen(line);

	while (s->screen && n && (n >= (size_t)width || (line[n] & 0xc0) == 0x80))
		n--;                    /* not inside a character */
	buf_fmt(&s->out, "%.*s\n", (int)n, line);
	s->lines += s->screen;
}

/* How far the run is, and if the history knows the rest, how long it takes. */
static char *
progress(const struct show *s, const struct slot *v, int n, int64_t now)
{
	const struct plan *p = s->plan;
	int64_t left = 0;
	int failed = 0;

	for (int i = 0; i < (int)p->nfiles; i++) {
		if (s->records[i].ended)
			failed += s->records[i].o.result >= FAIL;
		else    /* far below 0 where the history does not know a file */
			left += p->files[i].expect_ms < 0 ? -(INT64_C(1) << 40)
				: p->files[i].expect_ms;
	}
	for (int i = 0; i < n; i++)
		left -= v[i].phase == IDLE ? 0 : now - v[i].since;
	return str("  %d/%zu files, %d failed, %.0fs%s", s->done, p->nfiles, failed,
		seconds(now - p->began), left / p->workers > 1000
		? str(", about %.0fs left", seconds(left / p->workers)) : "");
}

int64_t
show_draw(struct show *s, const struct slot *v, int n, bool now)
{
	int64_t t = clock_ms(), every = s->screen ? 1000 : 60000;
	int64_t pause = s->screen ? 50 : every;
	struct winsize ws = { .ws_col = 0 };
	size_t mark = scratch_mark();

	if (!now && (s->plan->o.quiet || s->plan->o.interactive))
		return NEVER;
	if (!now && t - s->drawn < pause)
		return s->drawn + pause;
	if (s->screen && s->out.n)
		return t + every;       /* the last drawing is not written yet */
	if (ioctl(1, TIOCGWINSZ, &ws) < 0 || !ws.ws_col)
		ws = (struct winsize){ .ws_col = 80, .ws_row = 24 };
	erase(s);
	for (int i = 0; i < n; i++)
		if (v[i].phase != IDLE && (!s->screen || s->lines < ws.ws_row - 3))
			draw_line(s, str("%s%-7s %s  %.0fs", s->screen ? "  " : "running: ",
				phase_name[v[i].phase], v[i].order.type == ORDER_SETUP ? ""
				: title(s, &s->plan->files[v[i].order.file]),
				seconds(t - v[i].since)), ws.ws_col);
	if (s->screen)
		draw_line(s, progress(s, v, n, t), ws.ws_col);
	s->drawn = t;
	scratch_release(mark);
	show_write(s);
	return t + every;
}

/* ---- one file ---- */

/* Text on one line, the characters of a set as %XX; scratch memory. */
static char *
percent(const char *text, const char *set)
{
	struct buf b = scratch_buf();

	for (text = shown(text); *text; text++)
		buf_fmt(&b, strchr(set, *text) ? "%%%02X" : "%c", (unsigned char)*text);
	return b.s;
}

/* A command for GitHub, which heeds no other line. */
static void
put_command(struct show *s, const char *command)
{
	if (s->github)
		buf_fmt(&s->out, "::%s::\n%s\n::stop-commands::%s\n", s->github, command,
			s->github);
}

static void
annotate(struct show *s, const struct file *f, char *const note[FIELDS])
{
	const char *source = *note[SOURCE] ? note[SOURCE] : f->path, *path = source;
	const char *top = getenv("GITHUB_WORKSPACE");

	if (!s->github || !s->records[f->index].ended || s->annotated++ >= ANNOTATIONS)
		return;
	if (*path != '/')
		path = str("%s/%s", s->plan->base, path);
	if (top && starts(path, str("%s/", top)))
		source = path + strlen(top) + 1;
	put_command(s, str("::error file=%s%s,title=%s::%s", percent(source, "%:,"),
		atoi(note[LINE]) > 0 ? str(",line=%d", atoi(note[LINE])) : "",
		percent(note[NAME], "%:,"), percent(note[MESSAGE], "%")));
}

/* The path of a file, relative to where the user stands. */
static char *
named_path(const struct file *f)
{
	return str("%.*s", (int)(strlen(f->named) + strlen(f->path) - strlen(f->test)),
		f->named);
}

/* FILE::CLASS::NAME of a failing test of pytest, else NULL.  Its report has the
 * module and the classes with dots between, from a root that we do not know. */
static char *
pytest_id(const struct file *f, char *const note[FIELDS])
{
	const char *test = f->suite->o.test, *module = strrchr(str("/%s", f->path), '/') + 1;
	char *id = named_path(f), *s = str(".%s.", note[CLASS]), *rest = NULL;

	if (!ends(module, ".py") || (test && !strstr(test, "pytest"))
	|| strlen(note[NAME]) >= NAME_CUT)
		return NULL;
	module = str(".%.*s.", (int)strlen(module) - 3, module);
	while ((s = strstr(s, module)))
		rest = s += strlen(module) - 1;
	for (; rest && *rest; rest++)
		id = str(*rest == '.' ? "%s::" : "%s%c", id, *rest);
	return rest ? str("%s%s", id, note[NAME]) : NULL;
}

/* Prints a failing test: its name, where it failed, and why.  Its id. */
static char *
show_failure(struct show *s, const struct file *f, char *const note[FIELDS])
{
	char *id = pytest_id(f, note), *at = "", *source = note[SOURCE];

	if (!*source || !strcmp(source, f->path))
		source = named_path(f);
	if (atoi(note[LINE]) > 0)
		at = str(" (%s:%d)", source, atoi(note[LINE]));
	put_line(s, str("    %s%s: %s", id ? id : str("%s%s%s", note[CLASS],
		*note[CLASS] ? " " : "", note[NAME]), at, note[MESSAGE]));
	return id;
}

/* Prints the notes, which it takes apart, unless they are as before; how many
 * tests failed, less cases such as [plan], and the last one's id, or NULL. */
static int
show_notes(struct show *s, const struct file *f, bool same, char *notes, char **id)
{
	const char *cause = cause_name[s->records[f->index].o.cause];
	char *line, *v[FIELDS] = { "", (char *)cause, "", "", "" };
	int tests = 0, ours = 0;

	while ((line = next_line(&notes))) {
		if (!starts(line, "x ")) {
			v[MESSAGE] = *line == '!' ? line + 2 : v[MESSAGE];
			if (!same)
				put_line(s, str(*line == '!' ? "    %s (%s)" : "    %s",
					line + 2, cause));
			continue;
		}
		line += 2;
		for (int i = 0; i < FIELDS; i++) {
			v[i] = line;
			line += strcspn(line, i < MESSAGE ? "\t" : "");
			if (*line)
				*line++ = '\0';
		}
		ours += *v[NAME] == '[';
		if (++tests <= TESTS_SHOWN && !same)
			*id = show_failure(s, f, v);
		annotate(s, f, v);
	}
	if (!tests && *cause)
		annotate(s, f, v);
	if (tests > TESTS_SHOWN && !same)
		buf_fmt(&s->out, "    and %d more\n", tests - TESTS_SHOWN);
	return tests - ours;
}

/* The last lines of a log, set off, if there are any. */
static void
show_tail(struct show *s, const char *dir, const char *name)
{
	char *text = file_tail(str("%s/%s.log", dir, name), 15), *line;

	if (!*text)
		return;
	put_command(s, str("::group::end of the %s log", name));
	buf_fmt(&s->out, "    end of the %s log:\n", name);
	while ((line = next_line(&text)))
		buf_fmt(&s->out, "    | %s\n", line);
	put_command(s, "::endgroup::");
}

/* Prints a blank and text so that a shell takes it for one word. */
static void
put_word(struct show *s, const char *text)
{
	text = shown(text);
	buf_char(&s->out, ' ');
	if (*text && !strpbrk(text, " \t\"'$`\\*?[](){}<>|&;#~!"))
		buf_str(&s->out, text);
	else
		buf_quote(&s->out, text);
}

/* The command line that was typed, with one path. */
static void
show_again(struct show *s, const struct file *f, const char *path)
{
	const struct plan *p = s->plan;

	buf_fmt(&s->out, "    %-11s", "again");
	for (size_t i = 0; i <= p->again.n; i++) {
		if (i == p->again_at && p->nsuites > 1 && !p->o.suite.n) {
			put_word(s, "-s");
			put_word(s, f->suite->name);
		}
		if (i == p->again_at)
			put_word(s, path);
		if (i < p->again.n)
			put_word(s, p->again.v[i]);
	}
	buf_char(&s->out, '\n');
}

/* The logs of an attempt and what its test left. */
static struct list
list_left(const char *dir)
{
	static const char *const own[] = { "db.out", "env", "junit.xml", "notes" };
	struct list all = { 0 }, names = { 0 };

	list_dir(&all, dir);
	for (size_t i = 0; i < all.n; i++)
		if (*all.v[i] != '.' && find_word(own, LEN(own), all.v[i]) == LEN(own))
			list_add(&names, all.v[i]);
	list_free(&all);
	return names;
}

/* Not the clone of a file template: it is a database, and may yet go. */
static void
show_files(struct show *s, const struct file *f, const char *dir)
{
	const char *clone = str("_w%d_%s", f->index, s->plan->id);
	struct list names = list_left(dir);
	int left = 0;

	for (size_t i = 0; i < names.n; i++) {
		char *name = names.v[i], *kind = "left";
		if (ends(name, ".log"))
			kind = str("%.*s log", (int)strlen(name) - 4, name);
		else if (strstr(name, clone) || ++left > LEFT_SHOWN)
			continue;
		put_line(s, str("    %-12s%s/%s", kind, dir, name));
	}
	if (left > LEFT_SHOWN)
		buf_fmt(&s->out, "    and %d more\n", left - LEFT_SHOWN);
	list_free(&names);
}

static void
show_details(struct show *s, const struct file *f, char *notes, const char *dir,
	const char *url)
{
	const struct outcome *o = &s->records[f->index].o;
	char *id = NULL;
	int tests = show_notes(s, f, false, notes, &id);

	if (o->cause >= CAUSE_SERVER_DIED && o->cause <= CAUSE_PORT)
		show_tail(s, dir, f->suite->o.services[o->service].name);
	else if (o->result != CANCEL && (!tests || o->result == TIMEOUT))
		show_tail(s, dir, "test");
	/* What is removed with the run directory is not named. */
	if (s->plan->o.run_dir || s->plan->o.keep == KEEP_ALWAYS
	|| (s->plan->o.keep != KEEP_NEVER && o->result != CANCEL))
		show_files(s, f, dir);
	if (url)
		buf_fmt(&s->out, "    %-12s%s\n    %-12s%s/env\n", "database", url,
			"environment", dir);
	if (o->result != CANCEL)
		show_again(s, f, id && o->cause == CAUSE_EXIT && o->failed == 1
			? id : f->named);
}

/* [ 3/16] FAIL  tests/e2e/test_login.py  12 tests, 2 failed  18.7s */
static void
show_line(struct show *s, const struct file *f, const char *end)
{
	const struct outcome *o = &s->records[f->index].o;
	int width = snprintf(NULL, 0, "%zu", s->plan->nfiles);

	buf_fmt(&s->out, "[%*d/%zu] %s  %s", width, s->done, s->plan->nfiles,
		word(s, o->result, 4), title(s, f));
	if (o->attempt > 1 || !s->records[f->index].ended)
		buf_fmt(&s->out, "  attempt %d", o->attempt);
	if (o->report)
		buf_fmt(&s->out, "  %" PRId64 " test%s", o->tests, o->tests == 1 ? "" : "s");
	if (o->report && o->failed)
		buf_fmt(&s->out, ", %" PRId64 " failed", o->failed);
	if (o->report && o->skipped)
		buf_fmt(&s->out, ", %" PRId64 " skipped", o->skipped);
	buf_fmt(&s->out, "  %.1fs%s\n", seconds(o->ms), end);
}

/* ---- results.jsonl ---- */

char *
show_phases(const struct plan *p, const struct outcome *o, const char *fmt, const char *between)
{
	char *text = "";

	for (int k = CLONING; k <= PHASES; k++)     /* and the end, which is IDLE */
		if (o->began[k % PHASES])
			text = str("%s%s%s", text, *text ? between : "", str(fmt,
				phase_name[k % PHASES],
				seconds(o->began[k % PHASES] - p->began)));
	return text;
}

/* The keys that a planned and a finished file have. */
static void
json_file(struct buf *b, const struct file *f)
{
	fill(b, "{'index':%d,'suite':%s,'path':%s,'copy':%d,'file':%s", f->index,
		f->suite->name, f->path, f->copy, f->test);
}

static void
write_result(struct show *s, const struct file *f, const char *why, const char *dir,
	const char *url)
{
	const struct outcome *o = &s->records[f->index].o;
	struct list names = list_left(dir);
	struct buf b = scratch_buf();

	json_file(&b, f);
	fill(&b, ",'attempt':%d,'start':%t,'result':%s,'cause':%s,'message':%s,'status':%d,"
		"'seconds':%t,'tests':%n,'failed':%n,'skipped':%n,'dir':%s,'worker':%d,"
		"'phases':{", o->attempt, o->begin ? o->begin - s->plan->began : 0,
		result_name[o->result], cause_name[o->cause], why, o->status, o->ms, o->tests,
		o->failed, o->skipped, strrchr(dir, '/') + 1, o->slot);
	buf_str(&b, show_phases(s->plan, o, "\"%s\":%.3f", ","));
	fill(&b, "},'logs':[");
	for (size_t i = 0; i < names.n; i++)
		if (ends(names.v[i], ".log"))
			fill(&b, b.s[b.n - 1] == '[' ? "%s" : ",%s", names.v[i]);
	buf_char(&b, ']');
	list_free(&names);
	if (url)
		fill(&b, ",'database':%s", url);
	if (o->connected || o->unused)
		fill(&b, ",'database_used':%s", o->connected ? "yes" : "no");
	buf_str(&b, "}\n");
	if (s->jsonl >= 0 && write_all(s->jsonl, b.s, b.n) < 0)
		s->jsonl = -1;          /* it stays open: closing it would unlock it */
}

/* The value of a key of ours as text, "" where there is none.  Inside a string
 * a quote has a backslash before it, so that what looks like a key is one. */
static char *
json_value(const char *object, const char *key)
{
	const char *s = strstr(object, str("\"%s\":", key));
	struct buf b = scratch_buf();

	if (!s)
		return "";
	s += strlen(key) + 3;
	if (*s != '"')
		return str("%.*s", (int)strcspn(s, ",}]"), s);
	for (s++; *s && *s != '"'; s++) {
		s += *s == '\\' && s[1];
		buf_char(&b, *s);
	}
	return b.s;
}

/* The same as a number, times scale; 0 if it is none. */
static int64_t
json_number(const char *object, const char *key, int scale)
{
	double n = strtod(json_value(object, key), NULL) * scale;

	return n > -1e15 && n < 1e15 ? (int64_t)(n < 0 ? n - 0.5 : n + 0.5) : 0;
}

static void
read_ended(struct plan *p, struct record *records, const char *object)
{
	int64_t i = json_number(object, "index", 1), n = json_number(object, "attempt", 1);

	if (i < 0 || i >= (int64_t)p->nfiles)
		return;
	struct outcome *o = &records[i].o;
	if (p->o.audit && records[i].attempts && o->result >= FAIL)
		return;                 /* the first failure stands for the file */
	records[i].attempts = o->attempt = n >= 1 && n <= 1000 ? (int)n : 1;
	/* A word that we do not know is the last one, which is the worst. */
	o->result = (enum result)find_word(result_name, RESULTS - 1,
		json_value(object, "result"));
	o->cause = (enum cause)find_word(cause_name, CAUSES - 1, json_value(object, "cause"));
	o->status = (int)json_number(object, "status", 1);
	o->ms = json_number(object, "seconds", 1000);
	o->slot = (int)json_number(object, "worker", 1);
	char *phases = strstr(object, "\"phases\":");
	for (int k = 0; phases && k < PHASES; k++)
		if (*json_value(phases, phase_name[k]))
			o->began[k] = p->began + json_number(phases, phase_name[k], 1000);
	o->notes = true;        /* they may be there, or else: */
	snprintf(o->why, sizeof(o->why), "! %.190s", json_value(object, "message"));
}

int
show_read(struct plan *p, struct record **records, const char *dir)
{
	struct buf b = scratch_buf();
	int r = buf_read(&b, str("%s/results.jsonl", dir));
	char *end = strrchr(b.s, '\n'), *line = b.s;

	p->dir = real_path(dir);
	if (r < 0 || !end || !p->dir)
		return -1;
	*end = '\0';                    /* a line without an end was cut by a crash */
	next_line(&b.s);
	snprintf(p->id, sizeof(p->id), "%s", json_value(line, "run"));
	p->hash = (uint32_t)strtoul(json_value(line, "plan"), NULL, 16);
	p->shard = (int)json_number(line, "shard", 1);
	p->shards = (int)(json_number(line, "shards", 1) % 1000000);
	snprintf(p->started, sizeof(p->started), "%s", json_value(line, "started"));
	p->base = json_value(line, "base");
	p->o.audit = json_number(line, "audit", 1);
	p->began = 1;           /* 0 is never */
	for (char *s = line; (s = strstr(s, "{\"index\"")); s++) {
		p->files = grow(p->files, &p->capfiles, p->nfiles + 1, sizeof(*p->files));
		struct file *f = &p->files[p->nfiles];
		*f = (struct file){ .index = (int)p->nfiles++, .path = json_value(s, "path"),
			.suite = scratch(sizeof(*f->suite)), .test = json_value(s, "file"),
			.copy = (int)json_number(s, "copy", 1) };
		f->suite->name = json_value(s, "suite");
		/* A damaged one that follows no other is none. */
		if (f->copy > 1 && (f->index == 0 || f[-1].copy != f->copy - 1))
			f->copy = 0;
	}
	*records = scratch(p->nfiles * sizeof(**records));
	for (size_t i = 0; i < p->nfiles; i++)
		(*records)[i].o = (struct outcome){ .result = CANCEL, .attempt = 1,
			.cause = CAUSE_CANCELLED, .why = "! the run ended before it did" };
	while ((line = next_line(&b.s)))
		read_ended(p, *records, line);
	return *p->id ? 0 : -1;
}

/* ---- the page ---- */

/* A file of the report, or a suite that no run of ours has written. */
struct row {
	struct part is;                 /* file is NULL: such a suite */
	char *name;
	int64_t tests, failed;
	int64_t end;                    /* ms since the run began; 0: unknown */
	int number;                     /* in the report */
	int listed;                     /* failures, in HTML in: */
	struct buf failures;
};

struct page {
	char *dir;                      /* absolute; NULL: no links */
	struct row *rows;
	size_t n, cap;
	int count[RESULTS];
	int texts;                      /* failures listed with their text */
	int workers;
	int64_t end;                    /* of the longest run */
};

static const char page_head[] =
	"<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><title>prun</title>\n"
	"<meta name=viewport content='width=device-width'><link rel=icon href=data:,>\n"
	"<style>:root { color-scheme: light dark }\n"
	"body { font: 15px/1.5 system-ui; max-width: 80rem; margin: auto; padding: 1rem }\n"
	"table, svg { border-collapse: collapse; width: 100% } h1, h2 { font-size: 1rem }\n"
	"th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0;\n"
	"\tborder-top: 1px solid #8885; white-space: nowrap }\n"
	"td + td + td + td { width: 100%; white-space: normal; overflow-wrap: anywhere }\n"
	"pre { background: #8882; overflow: auto; max-height: 30rem; white-space: pre-wrap }\n"
	"b { color: #d9363e } b.PASS { color: #1f883d }\n"
	"b.FLAKY, b.SKIP, b.NONE { color: #b26a00 }\n</style>\n"
	"<input type=search placeholder=Search aria-label=Search hidden><script>\n"
	"var q = document.querySelector('input[type=search]')\n"
	"q.hidden = false\n"
	"q.oninput = () => document.querySelectorAll('.f').forEach(e => e.style.display =\n"
	"\te.textContent.toLowerCase().includes(q.value.toLowerCase()) ? '' : 'none')\n"
	"</script>\n";

void
show_property(struct part *p, const struct reader *r)
{
	const char *name = xml_attr(r, "name"), *value = xml_attr(r, "value");
	struct { const char *name, **to; } texts[] = {
		{ "prun.file", &p->file }, { "prun.suite", &p->suite },
		{ "prun.plan", &p->plan }, { "prun.shard", &p->shard },
		{ "prun.started", &p->started }, { "prun.run", &p->run },
		{ "prun.phases", &p->phases }, { "prun.dir", &p->dir }
	};

	for (size_t i = 0; i < LEN(texts); i++)
		if (!strcmp(name, texts[i].name) && *value)
			*texts[i].to = str("%s", value);
	if (!strcmp(name, "prun.name"))
		p->name = p->name ? str("%s/%s", p->name, value) : str("%s", value);
	else if (!strcmp(name, "prun.result"))  /* an unknown word is CANCEL */
		p->result = (enum result)find_word(result_name, RESULTS - 1, value);
	else if (!strcmp(name, "prun.shard"))
		sscanf(value, "%6d/%6d", &p->nth, &p->shards);
	else if (!strcmp(name, "prun.worker"))
		p->worker = atoi(value);
	else if (!strcmp(name, "prun.seconds"))
		p->ms = (int64_t)(strtod(value, NULL) * 1000 + 0.5);
}

/* Reads a failure of a test into its row. */
static void
add_failure(struct page *page, struct row *row, struct reader *r, const char *test)
{
	bool listed = row->listed++ < TESTS_SHOWN;
	char *message = str("%s", xml_attr(r, "message"));
	struct sink text = { .limit = PAGE_TEXT };
	enum event e = START;

	row->failed += !starts(xml_name(r), "flaky");
	row->is.result = row->is.file ? row->is.result : FAIL;
	for (int depth = 1; depth && e != EOD; depth += e == START ? 1 : -1)
		e = xml_next(r, false, &text);
	sink_end(&text);
	message[strcspn(message, "\n")] = '\0';
	if (listed)
		fill(&row->failures, "<details><summary>%h: %h</summary><pre>%h</pre>"
			"</details>\n", shown(test), shown(message),
			page->texts++ < PAGE_TEXTS ? text.b.s : NULL);
	buf_free(&text.b);
}

/* Reads the rows of a report.  A row without file and tests is none.  The
 * properties of a file stand in its first suite, its name in all cases. */
static void
read_rows(struct page *page, struct reader *r)
{
	static const char *const kinds[] = { "failure", "error", "flakyFailure", "flakyError" };
	struct row *row = NULL;
	char *test = "";
	enum event e;

	while ((e = xml_next(r, false, NULL)) != EOD) {
		const char *tag = xml_name(r), *file = xml_attr(r, "file");
		if (e != START) {
			continue;
		} else if (!strcmp(tag, "testsuite")) {
			page->n += !row || row->is.file || row->tests;
			page->rows = grow(page->rows, &page->cap, page->n, sizeof(*row));
			row = &page->rows[page->n - 1];
			*row = (struct row){ .name = shown(xml_attr(r, "name")),
				.number = (int)page->n - 1, .failures = scratch_buf() };
		} else if (row && !strcmp(tag, "property") && !row->tests) {
			show_property(&row->is, r);
		} else if (row && !strcmp(tag, "testcase")) {
			test = str("%s", xml_attr(r, "name"));
			if (!row->tests && !row->is.file && page->n > 1 && row[-1].is.file
			&& !strcmp(file, row[-1].is.file))
				row = &page->rows[--page->n - 1];
			row->tests++;
			row->is.ms += row->is.file ? 0 : xml_time(r) / 1000;
		} else if (row && find_word(kinds, LEN(kinds), tag) < LEN(kinds)) {
			add_failure(page, row, r, test);
		}
	}
	page->n -= row && !row->is.file && !row->tests;
}

/* Makes sense of a row's properties, which are foreign, and counts it. */
static void
finish_row(struct page *page, struct row *row)
{
	struct part *is = &row->is;
	double end = 0;

	if (is->file)
		row->name = shown(str("%s%s%s%s%s", is->name ? is->name : "", is->name
			? ": " : "", is->suite ? is->suite : "", is->suite ? ": " : "",
			is->file));
	if (is->phases && is->run && is->worker >= 0 && is->worker < 10000)
		end = strtod(strrchr(str("=%s", is->phases), '=') + 1, NULL);
	row->end = end > 0 && end < 1e9 ? (int64_t)(end * 1000) : 0;
	page->end = row->end > page->end ? row->end : page->end;
	if (row->end && is->worker >= page->workers)
		page->workers = is->worker + 1;
	page->count[is->result]++;
}

/* What failed, what is flaky, then the slowest. */
static int
by_weight(const void *a, const void *b)
{
	const struct row *s = a, *t = b;
	int more = 2 * ((t->is.result >= FAIL) - (s->is.result >= FAIL))
		+ (t->is.result == FLAKY) - (s->is.result == FLAKY);

	return more ? more : (t->is.ms > s->is.ms) - (t->is.ms < s->is.ms);
}

/* Links to what is in the directory of an attempt, and the ends of its logs.  A
 * report could name any directory: it has to be one of a run. */
static void
page_files(struct buf *b, const struct page *page, const char *dir)
{
	const char *base = str("%s/", page->dir), *up;
	struct list names = { 0 };
	struct stat st;
	size_t k, same;

	if (access(str("%s/../results.jsonl", dir), F_OK) == 0)
		names = list_left(dir);
	for (size_t i = 0; i < names.n && i < TESTS_SHOWN; i++) {
		const char *path = str("%s/%s", dir, names.v[i]), *tail = "";
		if (ends(path, ".log") && lstat(path, &st) == 0 && S_ISREG(st.st_mode))
			tail = file_tail(path, 40);
		for (k = same = 0; base[k] && base[k] == path[k]; k++)
			same = path[k] == '/' ? k + 1 : same;
		for (up = ""; base[k]; k++)
			up = base[k] == '/' ? str("../%s", up) : up;
		fill(b, *tail ? "<details><summary><a href='%h%h'>%h</a></summary>"
			"<pre>%h</pre></details>\n" : "<div><a href='%h%h'>%h</a>%h</div>\n",
			up, percent(path + same, "%#?:"), shown(names.v[i]), tail);
	}
	list_free(&names);
}

/* The table's first rows, with failures while b has less than most bytes. */
static void
page_rows(struct buf *b, const struct page *page, size_t n, size_t most)
{
	const struct row *row = page->rows;

	fill(b, "<table>\n<tr><th>Result<th>Failed<th>Seconds<th>File\n");
	for (; row < page->rows + n && b->n < 2 * most; row++) {
		const char *result = result_name[row->is.result];
		fill(b, "<tr class='f %h' id=f%d><td><b class=%h>%h</b><td>%n of %n<td>%t"
			"<td>%h\n", result, row->number, result, result, row->failed,
			row->tests, row->is.ms, row->name);
		if (b->n + row->failures.n < most)
			buf_add(b, row->failures.s, row->failures.n);
		if (b->n < most && page->dir && row->is.dir)
			page_files(b, page, row->is.dir);
	}
	buf_str(b, "</table>\n");
}

/* A drawing for each machine, with a line for each of its workers and on it the
 * phases of its files: "clone=0.000 start=0.120 test=0.400 end=1.300". */
static void
page_timeline(struct buf *b, const struct page *page)
{
	static const char *const names[] = { "clone", "start", "wait", "test" };
	static const char *const fills[] = { "#8e6bbf", "#4f86d9", "#8884", "#2f9e5b", "#888" };
	double from = 0, to, hundredth = seconds(page->end) / 100;
	const char *run = "";
	char name[8];
	int n;

	for (const struct row *row = page->rows; row < page->rows + page->n; row++) {
		const struct part *is = &row->is;
		const char *colour = NULL, *s = is->phases;
		if (!row->end)
			continue;
		if (strcmp(run, is->run)) {
			buf_str(b, *run ? "</svg>\n" : "");
			fill(b, "<h2>%h shard %h, started %h</h2>\n<svg width='100%%' "
				"height='%d'>\n", is->name, is->shard, is->started,
				page->workers * 16);
			run = is->run;
		}
		fill(b, "<a class='f %h' href='#f%d'><title>%h %h %t s: %h</title>",
			result_name[is->result], row->number, row->name,
			result_name[is->result], is->ms, s);
		for (; sscanf(s, " %7[a-z]=%lf%n", name, &to, &n) == 2; s += n) {
			if (colour && to > from)
				buf_fmt(b, "<rect x='%.2f%%' y='%d' width='%.2f%%' height='14' "
					"fill='%s'/>", from / hundredth, is->worker * 16,
					(to - from) / hundredth, colour);
			colour = fills[find_word(names, LEN(names), name)];
			if (!strcmp(name, "test") && is->result != PASS)
				colour = is->result < FAIL ? "#d08a00" : "#e0483e";
			from = to;
		}
		buf_str(b, "</a>\n");
	}
	if (*run)
		fill(b, "</svg><p>%t s from left to right. Violet: clone, blue: start of the "
			"server, grey: wait and stop.\n", page->end);
}

/* Appends what did not pass and the five slowest to GitHub's step summary. */
static void
write_step(const struct page *page, const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	const int *n = page->count;
	size_t rows = (size_t)(n[FLAKY] + n[FAIL] + n[TIMEOUT] + n[ERROR] + n[CANCEL] + 5);
	struct buf b = scratch_buf();

	buf_str(&b, "\n<h3>prun: ");
	put_counts(&b, n);
	buf_str(&b, "</h3>\n");
	page_rows(&b, page, rows < page->n ? rows : page->n, STEP_MOST);
	if (fd < 0 || write_all(fd, b.s, b.n) < 0)
		warn("%s:", path);
	close_keep(fd);
}

void
show_page(const struct plan *p, const char *report)
{
	const char *step = p->o.github ? NULL : getenv("GITHUB_STEP_SUMMARY");
	const char *path = p->o.html ? p->o.html : "", *slash = strrchr(path, '/');
	struct page page = { .n = 0 };
	struct buf b = scratch_buf();
	struct reader *r = NULL;

	if (*path || step)
		r = xml_open(report, false, PAGE_TEXT, INT64_MAX);
	if (!r && *path)
		warn("a page needs a report in a file; %s:", report);
	if (!r)
		return;
	read_rows(&page, r);
	xml_close(r);
	for (size_t i = 0; i < page.n; i++)
		finish_row(&page, &page.rows[i]);
	buf_str(&b, page_head);
	buf_str(&b, "<h1>");
	put_counts(&b, page.count);
	fill(&b, "</h1>\n<input type=radio name=f id=all checked><label for=all>all</label>\n");
	for (int k = 0; k < RESULTS; k++)
		if (page.count[k])
			fill(&b, "<style>#%h:checked ~ * .f:not(.%h) { display: none }</style>"
				"<input type=radio name=f id=%h><label for=%h>%d %h</label>\n",
				result_name[k], result_name[k], result_name[k],
				result_name[k], page.count[k], result_word[k]);
	page_timeline(&b, &page);
	if (page.n)
		qsort(page.rows, page.n, sizeof(*page.rows), by_weight);
	if (step)
		write_step(&page, step);
	page.dir = real_path(str("%.*s.", (int)(slash ? slash + 1 - path : 0), path));
	page_rows(&b, &page, page.n, PAGE_MOST);
	if (*path && file_write(path, b.s, b.n, 0666) < 0)
		warn("%s:", path);
	free(page.rows);
}

/* ---- the run ---- */

struct show *
show_open(const struct plan *p, const struct record *records)
{
	static struct show show;        /* one at a time, never freed */
	struct show *s = &show;
	const char *tty = ttyname(1), *term = getenv("TERM");
	const char *actions = p->o.github ? NULL : getenv("GITHUB_ACTIONS");
	char *path = str("%s/results.jsonl", p->dir);
	struct buf b = scratch_buf();

	*s = (struct show){ .plan = p, .records = records, .out = s->out, .drawn = p->began };
	s->told = scratch(p->nfiles * sizeof(*s->told));
	s->fd = tty ? open(tty, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : 1;
	s->fd = s->fd < 0 ? 1 : s->fd;
	s->colours = isatty(1) && !getenv("NO_COLOR") && term && strcmp(term, "dumb");
	s->screen = s->colours && !p->o.quiet && !p->o.interactive;
	s->jsonl = open_regular(path, O_WRONLY | O_APPEND | O_NOFOLLOW);
	fill(&b, "{'prun':%s,'run':%s,'plan':%s,'shard':%d,'shards':%d,'audit':%n,'base':%s,"
		"'started':%s,'files':[", PRUN_VERSION, p->id, str("%08" PRIx32, p->hash),
		p->shard, p->shards, p->o.audit, p->base, p->started);
	for (size_t i = 0; i < p->nfiles; i++) {
		buf_str(&b, i ? "}," : "");
		json_file(&b, &p->files[i]);
	}
	buf_str(&b, p->nfiles ? "}]}\n" : "]}\n");
	if (s->jsonl < 0 || write_all(s->jsonl, b.s, b.n) < 0)
		fatal(EXIT_RUN, "%s:", path);
	/* Tests cannot print commands: they do not know the word. */
	if (actions && !strcmp(actions, "true") && !p->o.clean && !p->o.reopen) {
		s->github = str("%016" PRIx64, random_bits());
		buf_fmt(&s->out, "::stop-commands::%s\n", s->github);
	}
	return s;
}

/* How many of n files (copies of one) failed with these notes. */
static int
told_as(char *const *told, int n, const char *notes)
{
	int found = 0;

	while (n-- > 0)
		found += told[n] && !strcmp(told[n], notes);
	return found;
}

char *
show_why(const char *path, const struct outcome *o, struct buf *notes)
{
	if (!o->notes || buf_read(notes, path) < 0)
		buf_str(notes, o->why);
	return starts(notes->s, "! ") ? str("%.*s", (int)strcspn(notes->s + 2, "\n"),
		notes->s + 2) : "";
}

void
show_result(struct show *s, const struct file *f, const char *dir, const char *url)
{
	const struct outcome *o = &s->records[f->index].o;
	const struct opts *all = &s->plan->o;
	bool bad = o->result >= FAIL && o->result != CANCEL, same;
	char **told = &s->told[f->index], *id;
	struct buf notes = scratch_buf();

	write_result(s, f, show_why(str("%s/notes", dir), o, &notes), dir, url);
	same = bad && told_as(told - (f->copy ? f->copy - 1 : 0), (int)all->repeat, notes.s);
	if (bad) {
		free(*told);
		*told = xstrdup(notes.s);
	}
	s->done += s->records[f->index].ended;
	/* Of what never had its turn the table is enough. */
	if (bad || (!all->quiet && !all->reopen && s->records[f->index].attempts)) {
		erase(s);
		show_line(s, f, same ? "  as before" : "");
		if (!same && (bad || (o->result == CANCEL && all->verbose)))
			show_details(s, f, notes.s, dir, url);
		else if (o->result != CANCEL)
			show_notes(s, f, same, notes.s, &id);
		if (same && url)
			put_line(s, str("    %-12s%s", "database", url));
		show_write(s);
	}
}

/* How many of all copies failed, and with what messages. */
static void
show_copies(struct show *s, const struct file *last)
{
	char **told = &s->told[last->index - last->copy + 1];
	int failed = 0;

	for (int i = 0; i < last->copy; i++)
		failed += told[i] != NULL;
	if (failed)
		put_line(s, str("%s failed %d of %d", last->test, failed, last->copy));
	for (int i = 0; i < last->copy; i++) {
		char *why = told[i];
		if (!why || told_as(told, i, why))
			continue;
		char *test = strstr(why, "\nx ");     /* its message, else the cause */
		test = str("\t%s", test ? test + 3 : why + 2);
		test[strcspn(test, "\n")] = '\0';
		put_line(s, str("%5d x %s", told_as(told, last->copy, why),
			strrchr(test, '\t') + 1));
	}
}

static void
show_table(struct show *s)
{
	const struct plan *p = s->plan;
	size_t width = 4;

	for (size_t i = 0; i < p->nfiles; i++) {
		size_t n = strlen(title(s, &p->files[i]));
		width = n > width ? n : width;
	}
	width = width > 54 ? 54 : width;        /* of 80 columns */
	buf_fmt(&s->out, "\n%-*s  Result   Tests  Duration\n", (int)width, "File");
	for (size_t i = 0; i < p->nfiles; i++) {
		const struct outcome *o = &s->records[i].o;
		buf_fmt(&s->out, "%-*s  %s  %5s  %7.1fs\n", (int)width,
			title(s, &p->files[i]), word(s, o->result, 7),
			o->report ? str("%" PRId64, o->tests) : "-", seconds(o->ms));
		if (p->files[i].copy == p->o.repeat)
			show_copies(s, &p->files[i]);
	}
}

/* What has come of a suite's files, or of all. */
struct sums {
	int n[RESULTS];
	int unused, connected;  /* databases */
	int64_t ms;             /* of all together */
	int64_t wall;           /* from the first one's begin to the last one's end */
	size_t slowest;         /* index of a file */
};

/* Counts a suite's files (NULL: all, which took wall ms); adds that as JSON. */
static struct sums
sum_up(const struct show *s, const struct suite *suite, int64_t wall, struct buf *b)
{
	struct sums sums = { .ms = 0 };
	int64_t from = INT64_MAX, to = 0, tests = 0, failed = 0, skipped = 0;
	int files = 0, restarts = 0;

	for (size_t i = 0; i < s->plan->nfiles; i++) {
		const struct outcome *o = &s->records[i].o;
		if (suite && s->plan->files[i].suite != suite)
			continue;
		sums.n[o->result]++;
		files++;
		restarts += o->cause == CAUSE_WORKER_DIED;      /* another one was forked */
		tests += o->tests;
		failed += o->failed;
		skipped += o->skipped;
		sums.unused += o->unused;
		sums.connected += o->connected;
		sums.ms += o->ms;
		if (o->ms > s->records[sums.slowest].o.ms)
			sums.slowest = i;
		from = o->ms && o->begin < from ? o->begin : from;
		to = o->ms && o->begin + o->ms > to ? o->begin + o->ms : to;
	}
	sums.wall = suite && to > from ? to - from : wall;
	fill(b, ",'files':%d", files);
	for (int k = 0; k < RESULTS; k++)
		fill(b, ",%s:%d", result_name[k], sums.n[k]);
	fill(b, ",'tests':%n,'failed':%n,'skipped':%n,'restarts':%d,'seconds':%t,"
		"'test_seconds':%t", tests, failed, skipped, restarts, sums.wall, sums.ms);
	return sums;
}

void
show_end(struct show *s, int status, int64_t ms, const char *report)
{
	const struct plan *p = s->plan;
	struct buf b = scratch_buf();

	erase(s);
	if (!p->o.quiet)
		show_table(s);
	fill(&b, "{'run':%s,'status':%d", p->id, status);
	struct sums all = sum_up(s, NULL, ms, &b);
	for (struct suite *suite = p->suites; suite < p->suites + p->nsuites; suite++) {
		fill(&b, suite == p->suites ? ",'suites':[{'name':%s" : "},{'name':%s",
			suite->name);
		struct sums sums = sum_up(s, suite, 0, &b);
		if (p->nsuites > 1 && !p->o.quiet) {
			buf_fmt(&s->out, "suite %s: ", suite->name);
			put_counts(&s->out, sums.n);
			buf_fmt(&s->out, "   %.1fs\n", seconds(sums.wall));
		}
		if (sums.unused && !sums.connected)     /* all may have used another one */
			buf_fmt(&s->out, "warning: %s%sno test connected to its database; "
				"does the server read %s?\n", suite->name,
				*suite->name ? ": " : "", suite->o.db_env.n
				? suite->o.db_env.v[0] : "PRUN_DB_URL");
	}
	buf_str(&b, "}]}\n");
	if (file_write(str("%s/summary.json", p->dir), b.s, b.n, 0666) < 0)
		warn("%s/summary.json:", p->dir);
	buf_fmt(&s->out, "\n%zu file%s: ", p->nfiles, p->nfiles == 1 ? "" : "s");
	put_counts(&s->out, all.n);
	buf_fmt(&s->out, "   %.1fs (%.1fs of tests)\n", seconds(ms), seconds(all.ms));
	/* A faster run needs it split: the others would end well before. */
	int64_t longest = p->nfiles ? s->records[all.slowest].o.ms : 0;
	if (!p->o.quiet && status < 128 && p->nfiles > 2 && ms >= 2000 && longest > ms * 9 / 10
	&& longest * 3 / 4 * (p->workers - 1) > all.ms - longest)
		buf_fmt(&s->out, "the slowest file limits the run: %s, %.1fs\n",
			title(s, &p->files[all.slowest]), seconds(longest));
	if (report)
		put_line(s, str("report: %s", report));
	if (s->jsonl < 0)
		warn("%s/results.jsonl is incomplete: a write failed", p->dir);
	if (p->nfiles && all.n[NONE] == (int)p->nfiles)
		buf_str(&s->out, "warning: no file had any tests; check the test arguments\n");
	if (s->github)
		buf_fmt(&s->out, "::%s::\n", s->github);
	show_write(s);
}
