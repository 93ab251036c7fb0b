/*
 * show.c: all that people and machines read.
 *
 * On a terminal the finished files scroll up and below them one line for each
 * worker is redrawn in place: before anything is printed the cursor goes up
 * over those lines and clears them.  Elsewhere there is a line for each file
 * that has ended and, once a minute, what runs.  Nothing but this file writes
 * to standard output.
 *
 * What a worker has to say in words stands in its attempt's directory, in a
 * file of notes, a line each, by the first character: "! " the cause in
 * words, "- " something worth knowing, "x " a failing test: class, name,
 * file, line and message, with tabs between.
 */
#include "prun.h"
#include <sys/ioctl.h>

/* as counted in the last line */
static const char *const result_word[RESULTS] = {
	"passed", "flaky", "skipped", "without tests", "failed", "timed out", "in error",
	"cancelled"
};
static const char *const phase_name[PHASES] = {
	"idle", "setup", "waiting", "clone", "server", "test", "stop"
};

struct show {
	const struct plan *plan;
	const struct record *records;
	FILE *jsonl;            /* results.jsonl */
	bool screen;            /* a terminal: redraw in place */
	bool github;
	bool broken;            /* nobody reads us any more */
	int width, height;
	int lines;              /* of workers, on the screen now */
	int done;               /* files that have ended */
	int64_t began, drawn, told;
};

/* ---- the screen ---- */

static void
flush(struct show *s)
{
	if (fflush(stdout) == EOF && errno != EAGAIN)
		s->broken = true;
}

static void
erase(struct show *s)
{
	if (s->lines)
		printf("\033[%dA\r\033[J", s->lines);
	s->lines = 0;
}

static void
put_safe(const char *text)
{
	struct buf b = { 0 };

	buf_safe(&b, text, strlen(text));
	fputs(b.s ? b.s : "", stdout);
	buf_free(&b);
}

/* As put_safe(), so that a shell takes it for one word. */
static void
put_word(const char *text)
{
	const char *s;

	if (!strpbrk(text, " \t\"'$`\\*?[](){}<>|&;#~!")) {
		put_safe(text);
		return;
	}
	putchar('\'');
	for (s = text; *s; s += strcspn(s, "'"), s += *s == '\'') {
		put_safe(str("%.*s", (int)strcspn(s, "'"), s));
		fputs(s[strcspn(s, "'")] ? "'\\''" : "", stdout);
	}
	putchar('\'');
}

static const char *
colour(const struct show *s, enum result r)
{
	if (!s->screen)
		return "";
	return r < FLAKY ? "\033[32m" : r < FAIL ? "\033[33m" : "\033[31m";
}

void
show_say(struct show *s, const char *fmt, ...)
{
	va_list ap;

	erase(s);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	flush(s);
}

static void
measure(struct show *s)
{
	s->width = 80;
	s->height = 24;
#ifdef TIOCGWINSZ
	struct winsize ws;

	if (ioctl(1, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0) {
		s->width = ws.ws_col;
		s->height = ws.ws_row;
	}
#endif
}

int64_t
show_draw(struct show *s, const struct slot_view *v, int n, bool now)
{
	int64_t t = clock_ms(), every = s->screen ? 1000 : 60000;
	struct buf b = { 0 };
	const struct file *f;
	int i, lines = 0;

	if (s->plan->o.quiet || s->plan->o.interactive)
		return -1;
	if (!s->screen && !now && t - s->told < every)
		return s->told + every;
	if (s->screen && !now && t - s->drawn < 50)
		return s->drawn + 50;
	if (s->screen)
		measure(s);
	erase(s);
	for (i = 0; i < n; i++) {
		if (v[i].phase == IDLE || (s->screen && lines >= s->height - 2))
			continue;
		f = v[i].file < 0 ? NULL : &s->plan->files[v[i].file];
		b.n = 0;
		buf_fmt(&b, "%s%-7s ", s->screen ? "  " : "running: ", phase_name[v[i].phase]);
		if (f)
			buf_safe(&b, f->test, strlen(f->test));
		buf_fmt(&b, "  %.0fs", (double)(t - v[i].since) / 1000);
		/* A line that wraps would be one too many to go up. */
		if (s->screen && b.n > (size_t)s->width - 1)
			b.s[s->width - 1] = '\0';
		puts(b.s);
		lines++;
	}
	s->lines = s->screen ? lines : 0;
	s->drawn = s->told = t;
	buf_free(&b);
	flush(s);
	return t + every;
}

bool
show_broken(const struct show *s)
{
	return s->broken;
}

/* ---- one file ---- */

/* Prints s for a workflow command of GitHub: property or message. */
static void
put_github(const char *s, size_t n, bool property)
{
	for (; n; n--, s++)
		if (strchr("%\r\n", *s) || (property && strchr(":,", *s)))
			printf("%%%02X", (unsigned char)*s);
		else
			putchar(*s);
}

/* Splits a note of a failing test; the fields are slices, last to the end. */
static void
split_note(const char *line, const char *field[5], size_t n[5])
{
	int i;

	for (i = 0; i < 5; i++) {
		field[i] = line;
		n[i] = i < 4 ? strcspn(line, "\t\n") : strcspn(line, "\n");
		line += n[i] + (line[n[i]] == '\t');
	}
}

static void
show_notes(const struct show *s, const struct file *f, bool again, const char *notes)
{
	const char *line, *v[5];
	size_t n[5];
	int shown = 0;

	for (line = notes; line && *line; line += strcspn(line, "\n"), line += *line == '\n') {
		if (*line == 'x' && ++shown <= 20) {
			split_note(line + 2, v, n);
			fputs("    ", stdout);
			if (n[0])
				printf("%.*s ", (int)n[0], v[0]);
			printf("%.*s: %.*s\n", (int)n[1], v[1], (int)n[4], v[4]);
		} else if (*line != 'x') {
			printf("    %.*s%s%s%s\n", (int)strcspn(line + 2, "\n"), line + 2,
				*line == '!' ? " (" : "", *line == '!' ? cause_name[s->records[f->index].o.cause] : "",
				*line == '!' ? ")" : "");
		}
		if (*line == 'x' && s->github && !again) {
			split_note(line + 2, v, n);
			fputs("::error file=", stdout);
			if (n[2])
				put_github(v[2], n[2], true);
			else
				put_github(f->path, strlen(f->path), true);
			if (n[3])
				printf(",line=%.*s", (int)n[3], v[3]);
			fputs(",title=", stdout);
			put_github(v[1], n[1], true);
			fputs("::", stdout);
			put_github(v[4], n[4], false);
			putchar('\n');
		}
	}
	if (shown > 20)
		printf("    and %d more\n", shown - 20);
}

/* The last lines of a log, set off; the heading only if there are any. */
static void
show_tail(const char *path, const char *name)
{
	struct buf b = { 0 };
	char *line, *end;

	buf_tail(&b, path, 15);
	for (line = b.s; line && *line; line = end) {
		end = line + strcspn(line, "\n");
		if (line == b.s)
			printf("    end of the %s's log:\n", name);
		printf("    | %.*s\n", (int)(end - line), line);
		end += *end == '\n';
	}
	buf_free(&b);
}

static void
show_path(const char *what, const char *dir, const char *name)
{
	char *path = str("%s/%s", dir, name);

	if (access(path, F_OK) == 0)
		printf("    %-12s%s\n", what, path);
}

static void
show_details(const struct show *s, const struct file *f, bool again, const char *notes,
	const char *dir, const char *url)
{
	const struct outcome *o = &s->records[f->index].o;

	show_notes(s, f, again, notes);
	if (o->cause == CAUSE_SERVER_DIED || o->cause == CAUSE_SERVER_NOT_READY
	|| o->cause == CAUSE_PORT)
		show_tail(str("%s/server.log", dir), "server");
	else if (o->result != CANCEL && !strstr(notes, "\nx ") && strncmp(notes, "x ", 2))
		show_tail(str("%s/test.log", dir), "test");
	show_path("test log", dir, "test.log");
	show_path("server log", dir, "server.log");
	if (url) {
		printf("    %-12s%s\n", "database", url);
		show_path("environment", dir, "env");
	}
	if (o->result != CANCEL) {
		printf("    %-12sprun ", "again");
		if (s->plan->o.config) {
			fputs("-f ", stdout);
			put_word(s->plan->o.config);
			putchar(' ');
		}
		put_word(f->test);
		putchar('\n');
	}
}

static void
write_json(struct show *s, const struct file *f, const char *why, const char *dir,
	const char *url)
{
	const struct outcome *o = &s->records[f->index].o;
	struct buf b = { 0 };

	buf_fmt(&b, "{\"index\":%d,\"suite\":", f->index);
	buf_json(&b, f->suite->name);
	buf_str(&b, ",\"file\":");
	buf_json(&b, f->test);
	buf_fmt(&b, ",\"attempt\":%d,\"start\":%.3f,\"result\":\"%s\",\"cause\":", o->attempt,
		(double)(o->begin ? o->begin - s->began : 0) / 1000, result_name[o->result]);
	buf_json(&b, cause_name[o->cause]);
	buf_str(&b, ",\"message\":");
	buf_json(&b, why);
	buf_fmt(&b, ",\"status\":%d,\"seconds\":%.3f,\"tests\":%" PRId64 ",\"failed\":%" PRId64
		",\"skipped\":%" PRId64 ",\"dir\":", o->status, (double)o->ms / 1000, o->tests,
		o->failed, o->skipped);
	buf_json(&b, strrchr(dir, '/') + 1);
	if (url) {
		buf_str(&b, ",\"database\":");
		buf_json(&b, url);
	}
	buf_str(&b, "}\n");
	fwrite(b.s, 1, b.n, s->jsonl);
	fflush(s->jsonl);
	buf_free(&b);
}

void
show_result(struct show *s, const struct file *f, bool again, const char *dir, const char *url)
{
	const struct outcome *o = &s->records[f->index].o;
	const struct opts *all = &s->plan->o;
	int width = snprintf(NULL, 0, "%zu", s->plan->nfiles);
	struct buf notes = { 0 };
	char *why = NULL;
	bool bad = o->result >= FAIL;

	if (o->notes)
		buf_read(&notes, str("%s/notes", dir));
	else
		buf_str(&notes, o->why);
	if (notes.n && *notes.s == '!')
		why = str("%.*s", (int)strcspn(notes.s + 2, "\n"), notes.s + 2);
	write_json(s, f, why ? why : "", dir, url);
	s->done += !again;
	if ((!all->quiet && !all->reopen) || (bad && o->result != CANCEL)) {
		erase(s);
		printf("[%*d/%zu] %s%-4s%s  ", width, s->done, s->plan->nfiles,
			colour(s, o->result), result_name[o->result], s->screen ? "\033[m" : "");
		put_safe(f->test);
		if (o->attempt > 1 || again)
			printf("  attempt %d", o->attempt);
		if (o->report) {
			printf("  %" PRId64 " test%s", o->tests, o->tests == 1 ? "" : "s");
			if (o->failed)
				printf(", %" PRId64 " failed", o->failed);
			if (o->skipped)
				printf(", %" PRId64 " skipped", o->skipped);
		}
		printf("  %.1fs\n", (double)o->ms / 1000);
		if (bad && (o->result != CANCEL || all->verbose))
			show_details(s, f, again, notes.s ? notes.s : "", dir, url);
		else if (o->result != CANCEL)
			show_notes(s, f, again, notes.s);
		flush(s);
	}
	buf_free(&notes);
}

/* ---- the run ---- */

struct show *
show_open(const struct plan *p, const struct record *records)
{
	struct show *s = xcalloc(1, sizeof(*s));
	const char *term = getenv("TERM"), *github = getenv("GITHUB_ACTIONS");
	char *path = str("%s/results.jsonl", p->dir);
	struct buf b = { 0 };
	size_t i;

	s->plan = p;
	s->records = records;
	s->screen = isatty(1) && !p->o.quiet && !getenv("NO_COLOR") && term
		&& strcmp(term, "dumb");
	s->github = p->o.github == 0 && github && !strcmp(github, "true");
	s->began = s->told = clock_ms();
	buf_fmt(&b, "{\"prun\":\"%s\",\"run\":\"%s\",\"plan\":\"%08" PRIx32 "\","
		"\"shard\":\"%d/%d\",\"files\":[", PRUN_VERSION, p->id, p->hash, p->shard, p->shards);
	for (i = 0; i < p->nfiles; i++) {
		buf_fmt(&b, "%s{\"index\":%zu,\"suite\":", i ? "," : "", i);
		buf_json(&b, p->files[i].suite->name);
		buf_str(&b, ",\"file\":");
		buf_json(&b, p->files[i].test);
		buf_char(&b, '}');
	}
	buf_str(&b, "]}\n");
	s->jsonl = fopen(path, "a");
	if (!s->jsonl || set_cloexec(fileno(s->jsonl)) < 0
	|| fwrite(b.s, 1, b.n, s->jsonl) != b.n || fflush(s->jsonl) == EOF)
		fatal(EXIT_RUN, "%s:", path);
	buf_free(&b);
	return s;
}

/* The value of a key of ours as text, "" where there is none.  In a string of ours a
 * quote has a backslash, so that what looks like a key is one. */
static char *
json_value(const char *object, const char *key)
{
	const char *s = strstr(object, str("\"%s\":", key)), *end;
	char *value, *to;

	if (!s)
		return "";
	s += strlen(key) + 3;
	if (*s != '"')
		return str("%.*s", (int)strcspn(s, ",}]"), s);
	for (end = ++s; *end && *end != '"'; end++)
		end += *end == '\\' && end[1];
	value = to = str("%.*s", (int)(end - s), s);
	for (; s < end; s++) {
		s += *s == '\\';
		*to++ = *s;
	}
	*to = '\0';
	return value;
}

/* Index of s in words; the last one if it is none of them. */
static size_t
word(const char *const *words, size_t n, const char *s)
{
	return find_word(words, n - 1, s);
}

/* A file of the plan: {"index":0,"suite":"","file":"t/a.sh"} */
static void
read_planned(struct plan *p, struct record **records, size_t *cap, const char *object)
{
	struct record *r;
	struct file *f;
	char *node;

	p->files = grow(p->files, &p->capfiles, p->nfiles + 1, sizeof(*p->files));
	f = memset(&p->files[p->nfiles], 0, sizeof(*f));
	f->index = (int)p->nfiles++;
	f->test = json_value(object, "file");
	f->path = str("%s", f->test);
	if ((node = strstr(f->path, "::")))
		*node = '\0';
	*records = grow(*records, cap, p->nfiles, sizeof(**records));
	r = memset(&(*records)[f->index], 0, sizeof(*r));
	r->o.result = CANCEL;
	r->o.cause = CAUSE_CANCELLED;
	r->o.attempt = 1;
	snprintf(r->o.why, sizeof(r->o.why), "! the run ended before it did");
}

static void
read_ended(struct plan *p, struct record *records, const char *object)
{
	long i = strtol(json_value(object, "index"), NULL, 10);
	struct outcome *o;
	char *message, *dash;

	if (i < 0 || (size_t)i >= p->nfiles)
		return;
	o = &records[i].o;
	o->attempt = (int)strtol(json_value(object, "attempt"), NULL, 10);
	o->attempt = o->attempt < 1 ? 1 : o->attempt > 1000 ? 1000 : o->attempt;
	o->result = (enum result)word(result_name, RESULTS, json_value(object, "result"));
	o->cause = (enum cause)word(cause_name, CAUSES, json_value(object, "cause"));
	o->status = (int)strtol(json_value(object, "status"), NULL, 10);
	o->ms = (int64_t)(strtod(json_value(object, "seconds"), NULL) * 1000 + 0.5);
	o->notes = true;        /* they may be there, or else: */
	message = json_value(object, "message");
	*o->why = '\0';
	if (*message)
		snprintf(o->why, sizeof(o->why), "! %.190s", message);
	records[i].attempts = o->attempt;
	/* The name may hold what JSON cannot: the directory's is safe. */
	p->files[i].dir = json_value(object, "dir");
	if (o->attempt > 1 && (dash = strrchr(p->files[i].dir, '-')))
		*dash = '\0';
}

int
show_read(struct plan *p, struct record **records, const char *dir)
{
	struct buf b = { 0 };
	char *line, *end, *s;
	int line_number = 0, r;
	size_t cap = 0;

	*records = NULL;
	r = buf_read(&b, str("%s/results.jsonl", dir));
	for (line = b.s; r == 0 && (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';            /* a line without an end was cut by a crash */
		if (line_number++) {
			read_ended(p, *records, line);
			continue;
		}
		snprintf(p->id, sizeof(p->id), "%s", json_value(line, "run"));
		p->hash = (uint32_t)strtoul(json_value(line, "plan"), NULL, 16);
		s = json_value(line, "shard");
		p->shard = (int)strtol(s, &s, 10);
		p->shards = (int)strtol(s + (*s == '/'), NULL, 10);
		for (s = strstr(line, "{\"index\""); s; s = strstr(s + 1, "{\"index\""))
			read_planned(p, records, &cap, s);
	}
	p->dir = str("%s", dir);
	buf_free(&b);
	return r == 0 && *p->id ? 0 : -1;
}

static void
show_table(const struct plan *p, const struct record *records)
{
	size_t i, width = 4, n;
	struct buf b = { 0 };

	for (i = 0; i < p->nfiles; i++) {
		n = strlen(p->files[i].test);
		width = n > width ? n : width;
	}
	width = width > 60 ? 60 : width;
	printf("\n%-*s  Result   Tests  Duration\n", (int)width, "File");
	for (i = 0; i < p->nfiles; i++) {
		const struct outcome *o = &records[i].o;

		b.n = 0;
		buf_safe(&b, p->files[i].test, strlen(p->files[i].test));
		printf("%-*s  %-7s  ", (int)width, b.s, result_name[o->result]);
		if (o->report)
			printf("%5" PRId64, o->tests);
		else
			fputs("    -", stdout);
		printf("  %7.1fs\n", (double)o->ms / 1000);
	}
	buf_free(&b);
}

/* Counts by result of a suite's files, or of all; "15 passed, 1 failed". */
static void
count_results(const struct show *s, const struct suite *suite, int n[RESULTS], int64_t *sum,
	struct buf *b)
{
	size_t i;
	int k, first = 1;

	memset(n, 0, RESULTS * sizeof(*n));
	*sum = 0;
	for (i = 0; i < s->plan->nfiles; i++)
		if (!suite || s->plan->files[i].suite == suite) {
			n[s->records[i].o.result]++;
			*sum += s->records[i].o.ms;
		}
	for (k = 0; k < RESULTS; k++)
		if (n[k] || k == PASS) {
			buf_fmt(b, "%s%d %s", first ? "" : ", ", n[k], result_word[k]);
			first = 0;
		}
}

static void
show_suites(const struct show *s)
{
	const struct plan *p = s->plan;
	int64_t sum, from, to;
	struct buf b = { 0 };
	int n[RESULTS];
	size_t i, k;

	for (i = 0; i < p->nsuites; i++) {
		b.n = 0;
		count_results(s, &p->suites[i], n, &sum, &b);
		from = INT64_MAX, to = 0;
		for (k = 0; k < p->nfiles; k++) {
			const struct outcome *o = &s->records[k].o;

			if (p->files[k].suite != &p->suites[i] || !o->ms)
				continue;
			from = o->begin < from ? o->begin : from;
			to = o->begin + o->ms > to ? o->begin + o->ms : to;
		}
		printf("suite %s: %s   %.1fs\n", p->suites[i].name, b.s,
			(double)(to > from ? to - from : 0) / 1000);
	}
	buf_free(&b);
}

void
show_end(struct show *s, int status, int64_t ms, const char *report)
{
	const struct plan *p = s->plan;
	struct buf b = { 0 }, json = { 0 };
	char *path = str("%s/summary.json", p->dir);
	int n[RESULTS], k;
	int64_t sum, longest = 0;
	size_t i, slow = 0;

	erase(s);
	if (!p->o.quiet)
		show_table(p, s->records);
	if (!p->o.quiet && p->nsuites > 1)
		show_suites(s);
	count_results(s, NULL, n, &sum, &b);
	for (i = 0; i < p->nfiles; i++)
		if (s->records[i].o.ms > longest) {
			slow = i;
			longest = s->records[i].o.ms;
		}
	printf("\n%zu file%s: %s   %.1fs (%.1fs of tests)\n", p->nfiles, p->nfiles == 1 ? "" : "s",
		b.s, (double)ms / 1000, (double)sum / 1000);
	if (p->nfiles > 2 && !p->o.quiet && ms >= 2000 && longest > ms * 9 / 10
	&& sum > longest * 3 / 2) {
		fputs("one file bounds the run: ", stdout);
		put_safe(p->files[slow].test);
		printf(", %.1fs\n", (double)longest / 1000);
	}
	if (report)
		printf("report: %s\n", report);
	buf_fmt(&json, "{\"run\":\"%s\",\"status\":%d,\"files\":%zu", p->id, status, p->nfiles);
	for (k = 0; k < RESULTS; k++)
		buf_fmt(&json, ",\"%s\":%d", result_name[k], n[k]);
	buf_fmt(&json, ",\"seconds\":%.3f,\"test_seconds\":%.3f}\n", (double)ms / 1000,
		(double)sum / 1000);
	if (file_write(path, json.s, json.n, 0666) < 0)
		warn("%s:", path);
	if (ferror(s->jsonl) | (fclose(s->jsonl) == EOF))
		warn("%s/results.jsonl: could not be written whole", p->dir);
	if (p->nfiles && n[NONE] == (int)p->nfiles)
		puts("warning: no file had any tests; is the selection right?");
	flush(s);
	buf_free(&b);
	buf_free(&json);
	free(s);
}

void
show_close(struct show *s)
{
	erase(s);
	fclose(s->jsonl);
	free(s);
}
