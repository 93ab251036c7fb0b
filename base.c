/*
 * base.c: what every room uses: messages, growing memory, strings, lists, whole files,
 * and the names of results and causes.
 *
 * Strings that a function hands out come from scratch memory, which nobody frees: it is
 * released as a whole, by a worker after each order.
 */
#include "prun.h"
#include <ftw.h>

const char *const result_name[RESULTS] = {
	"PASS", "FLAKY", "SKIP", "NONE", "FAIL", "TIMEOUT", "ERROR", "CANCEL"
};
const char *const cause_name[CAUSES] = {
	"", "prun.exit", "prun.signal", "prun.timeout", "prun.leak", "prun.output-limit",
	"prun.server-died", "prun.server-not-ready", "prun.port", "prun.database",
	"prun.spawn", "prun.worker-died", "prun.report", "prun.cancelled"
};

static void
vwarn(const char *fmt, va_list ap)
{
	int err = errno;
	size_t n = strlen(fmt);

	fputs("prun: ", stderr);
	vfprintf(stderr, fmt, ap);
	if (n && fmt[n - 1] == ':')
		fprintf(stderr, " %s", strerror(err));
	fputc('\n', stderr);
}

void
warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vwarn(fmt, ap);
	va_end(ap);
}

void
fatal(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vwarn(fmt, ap);
	va_end(ap);
	exit(status);
}

void
bad(const char *where, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, strchr(where, ':') ? "%s: " : "prun: %s: ", where);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(EXIT_USAGE);
}

void *
grow(void *p, size_t *cap, size_t need, size_t size)
{
	size_t n = *cap ? *cap : 16;

	if (need <= *cap)
		return p;
	while (n < need)
		n *= 2;
	if (n > SIZE_MAX / size || !(p = realloc(p, n * size)))
		fatal(EXIT_RUN, "out of memory");
	*cap = n;
	return p;
}

void *
xmalloc(size_t n)
{
	size_t cap = 0;

	return grow(NULL, &cap, n, 1);
}

void *
xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		fatal(EXIT_RUN, "out of memory");
	return p;
}

void
buf_add(struct buf *b, const char *s, size_t n)
{
	b->s = grow(b->s, &b->cap, b->n + n + 1, 1);
	if (n)
		memcpy(b->s + b->n, s, n);
	b->n += n;
	b->s[b->n] = '\0';
}

void
buf_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void
buf_char(struct buf *b, int c)
{
	char ch = (char)c;

	buf_add(b, &ch, 1);
}

void
buf_fmt(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	b->s = grow(b->s, &b->cap, b->n + (size_t)n + 1, 1);
	va_start(ap, fmt);
	vsnprintf(b->s + b->n, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->n += (size_t)n;
}

/* What scratch() has handed out, in that order. */
static char **scratched;
static size_t nscratched, capscratched;

void *
scratch(size_t n)
{
	char *p = xmalloc(n);

	scratched = grow(scratched, &capscratched, nscratched + 1, sizeof(*scratched));
	return scratched[nscratched++] = p;
}

size_t
scratch_mark(void)
{
	return nscratched;
}

void
scratch_release(size_t mark)
{
	while (nscratched > mark)
		free(scratched[--nscratched]);
}

char *
str(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	s = scratch((size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf(s, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return s;
}

char *
xstrdup(const char *s)
{
	return strcpy(xmalloc(strlen(s) + 1), s);
}

void
buf_free(struct buf *b)
{
	free(b->s);
	memset(b, 0, sizeof(*b));
}

void
list_add(struct list *l, const char *s)
{
	l->v = grow(l->v, &l->cap, l->n + 2, sizeof(*l->v));
	l->v[l->n++] = xstrdup(s);
	l->v[l->n] = NULL;
}

void
list_free(struct list *l)
{
	while (l->n)
		free(l->v[--l->n]);
	free(l->v);
	memset(l, 0, sizeof(*l));
}

bool
starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool
ends(const char *s, const char *suffix)
{
	size_t n = strlen(s), k = strlen(suffix);

	return n >= k && !strcmp(s + n - k, suffix);
}

char *
next_line(char **text)
{
	char *line = *text, *end;

	if (!line || !*line)
		return NULL;
	end = line + strcspn(line, "\n");
	*text = end + (*end == '\n');
	*end = '\0';
	return line;
}

size_t
find_word(const char *const *words, size_t n, const char *s)
{
	size_t i;

	for (i = 0; i < n && strcmp(words[i], s); i++)
		;
	return i;
}

uint32_t
hash(uint32_t h, const char *s)
{
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h;
}

size_t
utf8_len(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t len, i;

	if (n == 0 || *p < 0x80)
		return n > 0;
	len = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
	if (*p < 0xc2 || *p > 0xf4 || len > n)
		return 0;
	for (i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* overlong, surrogates, beyond Unicode: RFC 3629 */
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f)
	|| (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

void
buf_safe(struct buf *b, const char *s, size_t n)
{
	size_t len;

	buf_add(b, "", 0);
	for (; n; s += len, n -= len) {
		len = utf8_len(s, n);
		if ((len == 1 && ((unsigned char)*s < ' ' || *s == 0x7f))
		|| (len == 3 && !memcmp(s, "\xef\xbf", 2) && (unsigned char)s[2] > 0xbd))
			len = 0;        /* nor U+FFFE and U+FFFF: XML has not these */
		if (len)
			buf_add(b, s, len);
		else
			buf_fmt(b, "\\x%02x", (unsigned char)*s);
		len += len == 0;
	}
}

char *
safe(const char *s, size_t n)
{
	struct buf b = { 0 };
	char *out;

	buf_safe(&b, s, n);
	out = str("%s", b.s);
	buf_free(&b);
	return out;
}

void
buf_json(struct buf *b, const char *s)
{
	struct buf safe = { 0 };
	size_t i;

	buf_safe(&safe, s, strlen(s));
	buf_char(b, '"');
	for (i = 0; i < safe.n; i++) {
		if (safe.s[i] == '"' || safe.s[i] == '\\')
			buf_char(b, '\\');
		buf_char(b, safe.s[i]);
	}
	buf_char(b, '"');
	buf_free(&safe);
}

int
buf_read(struct buf *b, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	do {
		b->s = grow(b->s, &b->cap, b->n + 4096, 1);
		n = read(fd, b->s + b->n, b->cap - b->n - 1);
		if (n > 0)
			b->n += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	b->s[b->n] = '\0';
	close_keep(fd);
	return n < 0 ? -1 : 0;
}

void
buf_tail(struct buf *b, const char *path, int lines)
{
	char chunk[8192], *s;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	ssize_t n = 0;

	if (end > 0)
		n = pread(fd, chunk, sizeof(chunk), end > (off_t)sizeof(chunk)
			? end - (off_t)sizeof(chunk) : 0);
	if (fd >= 0)
		close(fd);
	while (n > 0 && chunk[n - 1] == '\n')
		n--;
	for (s = chunk + (n > 0 ? n : 0); s > chunk; s--)
		if (s[-1] == '\n' && --lines == 0)
			break;
	for (; s < chunk + n; s++) {
		char *eol = memchr(s, '\n', (size_t)(chunk + n - s));

		eol = eol ? eol : chunk + n;
		buf_safe(b, s, (size_t)(eol - s > 500 ? 500 : eol - s));
		buf_str(b, eol - s > 500 ? "...\n" : "\n");
		s = eol;
	}
}

int64_t
clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);     /* cannot fail with this clock */
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int
write_all(int fd, const char *s, size_t n)
{
	ssize_t r;

	for (; n; s += r, n -= (size_t)r) {
		r = write(fd, s, n);
		if (r < 0 && errno == EINTR)
			r = 0;
		if (r < 0)
			return -1;
	}
	return 0;
}

void
close_keep(int fd)
{
	int err = errno;

	if (fd >= 0)
		close(fd);
	errno = err;
}

int
set_cloexec(int fd)
{
	return fcntl(fd, F_SETFD, FD_CLOEXEC);
}

bool
is_special(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

int
file_write(const char *path, const char *s, size_t n, mode_t mode)
{
	bool special = is_special(path);
	const char *aside = special ? path : str("%s.%ld", path, (long)getpid());
	int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode), bad = -1, err;

	if (fd >= 0) {
		bad = write_all(fd, s, n);
		bad |= close(fd);
		if (!bad && !special)
			bad = rename(aside, path);
		err = errno;
		if (bad && !special)
			unlink(aside);
		errno = err;
	}
	return bad;
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	/* A directory that nobody may read keeps its files: try to. */
	if (type == FTW_DNR && chmod(path, 0700) == 0)
		return remove_tree(path);
	return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

int
remove_tree(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -1;
	return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
