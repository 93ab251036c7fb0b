/*
 * audit.c: which files hurt each other.
 *
 * An audit has run each file alone and then in several rounds beside others (run.c).
 * A file that fails alone is broken.  One that passes alone and fails in company is
 * unsafe, and suspected are the files that ran beside it whenever it failed and never
 * when both passed.  (Where two collide only the second one fails: that the first one
 * passed beside it proves nothing.)  Where there are none, two collide only at times:
 * then those that ran beside it whenever it failed; or, for it fails now beside this
 * one and now beside that one, those of them that are unsafe.  Files that are
 * suspected get a lock together, who has no suspect goes to the serial files.
 */
#include "prun.h"

static bool
failed(const struct outcome *o)
{
	return o->attempt && o->result >= FAIL && o->result < CANCEL;
}

/* In how many rounds the file failed in company. */
static int
failures(const struct plan *p, const struct file *f)
{
	int k, n = 0;

	for (k = 1; k <= p->o.audit; k++)
		n += failed(&f->rounds[k]);
	return n;
}

static bool
beside(const struct outcome *a, const struct outcome *b)
{
	return a->attempt && b->attempt && a->begin < b->begin + (b->ms ? b->ms : 1)
		&& b->begin < a->begin + (a->ms ? a->ms : 1);
}

/* What speaks against a file, strongest first. */
enum evidence { WHENEVER, EVERY, SOME, EVIDENCES };

static const char *const words[EVIDENCES] = {
	"whenever it ran beside",
	"each time beside, though it also passed beside",
	"beside no one file; unsafe, and running when it failed"
};

/* Whether g ran beside f whenever f failed (and never when both passed); SOME: at least
 * once. */
static bool
suspected(const struct plan *p, const struct file *f, const struct file *g, enum evidence e)
{
	const struct outcome *a, *b;
	int k;

	for (k = 1; k <= p->o.audit && f != g; k++) {
		a = &f->rounds[k];
		b = &g->rounds[k];
		if (e == SOME && failed(a) && beside(a, b))
			return true;
		if (e != SOME && failed(a) && !beside(a, b))
			return false;
		if (e == WHENEVER && !failed(a) && !failed(b) && beside(a, b))
			return false;
	}
	return f != g && e != SOME;
}

/* Fills suspect[] with the files against which there is the strongest evidence. */
static enum evidence
find_suspects(const struct plan *p, size_t f, const int *unsafe, bool *suspect)
{
	bool any = false;
	int e;
	size_t i;

	for (e = WHENEVER; e < EVIDENCES && !any; e++)
		for (i = 0; i < p->nfiles; i++) {
			suspect[i] = suspected(p, &p->files[f], &p->files[i], (enum evidence)e)
				&& (e != SOME || unsafe[i]);
			any = any || suspect[i];
		}
	return (enum evidence)(e - 1);
}

/* Appends a path so that it is a glob that matches nothing else. */
static void
add_glob(struct buf *b, const char *path)
{
	for (; *path; path++) {
		if (strchr("*?[\\", *path))
			buf_char(b, '\\');
		buf_char(b, *path);
	}
}

/* The lines to paste into prun.conf; group[i] is the first file of i's group. */
static void
add_lines(struct buf *b, const struct plan *p, const int *unsafe, const size_t *group)
{
	struct buf serial = { 0 }, lock = { 0 };
	int locks = 0;
	size_t i, k, n;

	for (i = 0; i < p->nfiles; i++) {
		lock.n = n = 0;
		for (k = 0; k < p->nfiles && group[i] == i; k++)
			if (group[k] == i) {
				n++;
				buf_char(&lock, ' ');
				add_glob(&lock, p->files[k].path);
			}
		if (n > 1)
			buf_fmt(b, "lock = audit-%d%s\n", ++locks, lock.s);
		else if (n && unsafe[i])
			buf_str(&serial, lock.s);
	}
	if (serial.n)
		buf_fmt(b, "serial =%s\n", serial.s);
	buf_free(&serial);
	buf_free(&lock);
}

/* Names an unsafe file's suspects, and puts them into its group. */
static void
add_suspects(struct buf *b, const struct plan *p, size_t f, const int *unsafe, size_t *group)
{
	bool *suspect = xmalloc(p->nfiles + 1);
	enum evidence e = find_suspects(p, f, unsafe, suspect);
	size_t i, k, from, to, n = 0;

	for (i = 0; i < p->nfiles; i++) {
		if (!suspect[i])
			continue;
		if (!n++)
			buf_fmt(b, "\n    %s:", words[e]);
		buf_char(b, ' ');
		buf_safe(b, p->files[i].test, strlen(p->files[i].test));
		from = group[f] > group[i] ? group[f] : group[i];
		to = group[f] > group[i] ? group[i] : group[f];
		for (k = 0; k < p->nfiles; k++)
			group[k] = group[k] == from ? to : group[k];
	}
	buf_str(b, n ? "\n" : "\n    beside no file in particular\n");
	free(suspect);
}

void
audit(const struct plan *p)
{
	size_t *group = xmalloc((p->nfiles + 1) * sizeof(*group)), i, broken = 0, bad = 0;
	size_t safe = 0, k;
	int *unsafe = xmalloc((p->nfiles + 1) * sizeof(*unsafe));
	struct buf b = { 0 };

	for (i = 0; i < p->nfiles; i++) {
		group[i] = i;
		unsafe[i] = failures(p, &p->files[i]);
		bad += unsafe[i] > 0;
		for (k = 0; (int64_t)k <= p->o.audit && p->files[i].rounds[k].attempt
		&& p->files[i].rounds[k].result <= NONE; k++)
			;
		safe += (int64_t)k > p->o.audit;
	}
	for (i = 0; i < p->nfiles; i++) {
		const struct file *f = &p->files[i];

		if (!unsafe[i] && !failed(&f->rounds[0]))
			continue;
		buf_str(&b, unsafe[i] ? "unsafe: " : "broken: ");
		buf_safe(&b, f->test, strlen(f->test));
		if (unsafe[i]) {
			buf_fmt(&b, "  failed in %d of %d rounds beside others, and passed alone",
				unsafe[i], (int)p->o.audit);
			add_suspects(&b, p, i, unsafe, group);
		} else {
			broken++;
			buf_str(&b, "  fails alone\n");
		}
	}
	if (bad) {
		buf_str(&b, "\nUntil they share nothing, these lines in prun.conf keep them apart:\n\n");
		add_lines(&b, p, unsafe, group);
	}
	printf("\naudit: each of %zu files alone, then %d rounds with %d at once:\n"
		"%zu safe, %zu unsafe, %zu broken", p->nfiles, (int)p->o.audit, p->workers,
		safe, bad, broken);
	if (safe + bad + broken < p->nfiles)
		printf(", %zu not run to the end", p->nfiles - safe - bad - broken);
	printf("\n%s", b.n ? b.s : "");
	if (b.n && file_write(str("%s/audit.txt", p->dir), b.s, b.n, 0666) < 0)
		warn("%s/audit.txt:", p->dir);
	buf_free(&b);
	free(group);
	free(unsafe);
}
