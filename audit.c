/*
 * audit.c: which files hurt each other.
 *
 * An audit has run each file alone and then in several rounds beside others (run.c).
 * A file that fails alone is broken.  One that passes alone and fails in company is
 * unsafe, and suspected are the files that ran beside it in every round in which it
 * failed and in none in which it passed; of these, those that are unsafe themselves,
 * if there are any.  Who is suspected together gets a lock, who fails beside now this
 * one and now that one goes to the serial files.
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
suspected(const struct plan *p, const struct file *f, const struct file *g)
{
	const struct outcome *a, *b;
	bool beside;
	int k;

	for (k = 1; k <= p->o.audit; k++) {
		a = &f->rounds[k];
		b = &g->rounds[k];
		beside = b->attempt && a->begin <= b->begin + b->ms && b->begin <= a->begin + a->ms;
		if (f == g || (a->attempt && beside != failed(a)))
			return false;
	}
	return true;
}

/* Files whose unsafe[] is above 0, but only unsafe suspects if f has one. */
static void
find_suspects(const struct plan *p, size_t f, const int *unsafe, bool *suspect)
{
	bool worse = false;
	size_t i;

	for (i = 0; i < p->nfiles; i++) {
		suspect[i] = suspected(p, &p->files[f], &p->files[i]);
		worse = worse || (suspect[i] && unsafe[i]);
	}
	for (i = 0; i < p->nfiles; i++)
		suspect[i] = suspect[i] && (!worse || unsafe[i]);
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

void
audit(const struct plan *p)
{
	size_t *group = xmalloc((p->nfiles + 1) * sizeof(*group)), i, k, j, from, to;
	int *unsafe = xmalloc((p->nfiles + 1) * sizeof(*unsafe)), bad_alone = 0, bad_beside = 0;
	bool *suspect = xmalloc(p->nfiles + 1);
	struct buf b = { 0 };
	const struct file *f;

	for (i = 0; i < p->nfiles; i++) {
		group[i] = i;
		unsafe[i] = failures(p, &p->files[i]);
		bad_beside += unsafe[i] > 0;
	}
	for (i = 0; i < p->nfiles; i++) {
		f = &p->files[i];
		if (!unsafe[i] && !failed(&f->rounds[0]))
			continue;
		bad_alone += failed(&f->rounds[0]);
		buf_str(&b, unsafe[i] ? "unsafe: " : "broken: ");
		buf_safe(&b, f->test, strlen(f->test));
		if (unsafe[i])
			buf_fmt(&b, "  failed in %d of %d rounds beside others, and passed alone",
				unsafe[i], (int)p->o.audit);
		else
			buf_str(&b, "  fails alone");
		find_suspects(p, i, unsafe, suspect);
		for (j = k = 0; k < p->nfiles && unsafe[i]; k++) {
			if (!suspect[k])
				continue;
			buf_str(&b, j++ ? " " : "\n    whenever it ran beside: ");
			buf_safe(&b, p->files[k].test, strlen(p->files[k].test));
			from = group[i] > group[k] ? group[i] : group[k];
			to = group[i] > group[k] ? group[k] : group[i];
			for (size_t m = 0; m < p->nfiles; m++)
				group[m] = group[m] == from ? to : group[m];
		}
		if (unsafe[i] && !j)
			buf_str(&b, "\n    beside no file in particular");
		buf_char(&b, '\n');
	}
	if (bad_beside) {
		buf_str(&b, "\nTo have them run apart until they share nothing, put into prun.conf:\n\n");
		add_lines(&b, p, unsafe, group);
	}
	printf("\naudit: each of %zu files alone, then %d rounds with %d at once:\n"
		"%zu safe, %d unsafe, %d broken\n%s", p->nfiles, (int)p->o.audit, p->workers,
		p->nfiles - (size_t)(bad_alone + bad_beside), bad_beside, bad_alone, b.n ? b.s : "");
	if (b.n && file_write(str("%s/audit.txt", p->dir), b.s, b.n, 0666) < 0)
		warn("%s/audit.txt:", p->dir);
	buf_free(&b);
	free(group);
	free(unsafe);
	free(suspect);
}
