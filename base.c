/*
 * base.c: what every room uses: messages, growing memory, strings, lists, whole
 * files, and the names of results and causes.
 *
 * Strings that a function hands out come from scratch memory, which nobody
 * frees: it is released as a whole, by a worker after each order.
 */
#include "prun.h"
#include <dirent.h>

const char *const result_name[RESULTS] = {
	"PASS", "FLAKY", "SKIP", "NONE", "FAIL", "TIMEOUT", "ERROR", "CANCEL"
};
const char *const cause_name[CAUSES] = {
	"", "prun.exit", "prun.signal", "prun.timeout", "prun.leak", "prun.output-limit",
	"prun.server-died", "prun.server-not-ready", "prun.port", "prun.database",
	"prun.spawn", "prun.worker-died", "prun.report", "prun.cancelled"
};

/* Prints one line on standard error: prefix, then the message, which may hold
 * names of any kind.  One that ends in a colon gets the text of errno. */
static void
print_line(const char *prefix, const char *fmt, va_list ap)
{
	const char *reason = ends(fmt, ":") ? str(" %s", strerror(errno)) : "";
	struct buf text = scratch_buf();

	buf_vfmt(&text, fmt, ap);
	fprintf(stderr, "%s: %s%s\n", prefix, shown(text.s), reason);
}

void
warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_line("prun", fmt, ap);
	va_end(ap);
}

void
fatal(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_line("prun", fmt, ap);
	va_end(ap);
	exit(status);
}

void
bad(const char *where, const char *fmt, ...)
{
	char *place = shown(where);
	va_list ap;

	va_start(ap, fmt);
	print_line(strchr(where, ':') ? place : str("prun: %s", place), fmt, ap);
	va_end(ap);
	exit(EXIT_USAGE);
}

static void *
checked(void *p)
{
	static const char none[] = "prun: out of memory\n";

	if (!p) {
		write_all(2, none, sizeof(none) - 1);   /* fatal() needs memory */
		exit(EXIT_RUN);
	}
	return p;
}

void *
grow(void *p, size_t *cap, size_t need, size_t size)
{
	size_t n = *cap ? *cap : 16;

	if (need <= *cap)
		return p;
	while (n < need)
		n *= 2;
	*cap = n;
	return checked(n > SIZE_MAX / size ? NULL : realloc(p, n * size));
}

void *
xcalloc(size_t n, size_t size)
{
	return checked(calloc(n + 1, size));
}

/* What scratch() has handed out, in that order. */
static char **scratched;
static size_t nscratched, capscratched;

/* Makes p part of it. */
static void *
adopt(void *p)
{
	scratched = grow(scratched, &capscratched, nscratched + 1, sizeof(*scratched));
	return scratched[nscratched++] = p;
}

void *
scratch(size_t n)
{
	return adopt(xcalloc(n, 1));
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

struct buf
scratch_buf(void)
{
	char *s = scratch(15);

	return (struct buf){ .s = s, .cap = 16, .scratch = nscratched };
}

/* Makes room for n more bytes and a NUL; returns where they begin. */
static char *
buf_grow(struct buf *b, size_t n)
{
	b->s = grow(b->s, &b->cap, b->n + n + 1, 1);
	if (b->scratch)
		scratched[b->scratch - 1] = b->s;
	return b->s + b->n;
}

void
buf_add(struct buf *b, const char *s, size_t n)
{
	char *to = buf_grow(b, n);

	if (n)
		memcpy(to, s, n);
	to[n] = '\0';
	b->n += n;
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
buf_vfmt(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;

	va_copy(again, ap);
	size_t n = (size_t)vsnprintf(NULL, 0, fmt, ap);
	vsnprintf(buf_grow(b, n), n + 1, fmt, again);
	va_end(again);
	b->n += n;
}

void
buf_fmt(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vfmt(b, fmt, ap);
	va_end(ap);
}

char *
str(const char *fmt, ...)
{
	struct buf b = scratch_buf();
	va_list ap;

	va_start(ap, fmt);
	buf_vfmt(&b, fmt, ap);
	va_end(ap);
	return b.s;
}

char *
xstrdup(const char *s)
{
	return strcpy(xcalloc(strlen(s) + 1, 1), s);
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

void
list_words(struct list *l, const char *s, const char *blanks)
{
	size_t n;

	for (s += strspn(s, blanks); *s; s += n + strspn(s + n, blanks)) {
		n = strcspn(s, blanks);
		list_add(l, str("%.*s", (int)n, s));
	}
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
	char *line = *text;

	if (!line || !*line)
		return NULL;
	char *end = line + strcspn(line, "\n");
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
utf8_len(const char *s, size_t n, unsigned *c)
{
	static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *p = (const unsigned char *)s;
	size_t len = 0;

	while (len < 5 && *p << len & 0x80)
		len++;                  /* leading ones */
	*c = *p & (0x7fu >> len);
	if (len == 0)
		return 1;
	if (len == 1 || len > 4 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (p[i] & 0x3f);
	}
	/* overlong, surrogates, beyond Unicode: RFC 3629 */
	if (*c < least[len] || (*c >= 0xd800 && *c < 0xe000) || *c > 0x10ffff)
		return 0;
	return len;
}

/* Whether a character could change how a line is shown: controls but tabs, line
 * separators, marks that turn the direction of text; or cannot stand in XML. */
static bool
is_unsafe(unsigned c)
{
	return (c < ' ' && c != '\t') || (c >= 0x7f && c < 0xa0) || c == 0x61c
		|| c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e)
		|| (c >= 0x2066 && c <= 0x2069) || c == 0xfffe || c == 0xffff;
}

void
buf_safe(struct buf *b, const char *s, size_t n)
{
	unsigned c;

	buf_add(b, "", 0);
	while (n) {
		size_t len = utf8_len(s, n, &c);
		if (len && !is_unsafe(c))
			buf_add(b, s, len);
		else if (len > 1)
			buf_fmt(b, "\\u%04x", c);
		else
			buf_fmt(b, "\\x%02x", (unsigned char)*s);
		len = len ? len : 1;
		s += len;
		n -= len;
	}
}

void
buf_quote(struct buf *b, const char *s)
{
	buf_char(b, '\'');
	for (; *s; s++)
		if (*s == '\'')
			buf_str(b, "'\\''");
		else
			buf_char(b, *s);
	buf_char(b, '\'');
}

char *
shown(const char *s)
{
	struct buf b = scratch_buf();

	buf_safe(&b, s, strlen(s));
	return b.s;
}

void
buf_json(struct buf *b, const char *s)
{
	size_t mark = scratch_mark();

	buf_char(b, '"');
	for (s = shown(s); *s; s++) {
		if (*s == '"' || *s == '\\' || *s == '\t')
			buf_char(b, '\\');
		buf_char(b, *s == '\t' ? 't' : *s);
	}
	buf_char(b, '"');
	scratch_release(mark);
}

int
open_regular(const char *path, int flags)
{
	/* O_NONBLOCK: a FIFO that nobody else has open would be waited for. */
	int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && fcntl(fd, F_SETFL,
			flags & O_APPEND) == 0)
		return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

int
buf_read(struct buf *b, const char *path)
{
	int fd = open_regular(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -1;
	do {
		char *to = buf_grow(b, 4096);
		n = read(fd, to, b->cap - b->n - 1);
		if (n > 0)
			b->n += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	b->s[b->n] = '\0';
	close_keep(fd);
	return n < 0 ? -1 : 0;
}

char *
file_tail(const char *path, int lines)
{
	char chunk[8192], *s, *eol, *end;
	struct buf b = scratch_buf();
	int fd = open_regular(path, O_RDONLY);
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	ssize_t n = pread(fd, chunk, sizeof(chunk), size > (off_t)sizeof(chunk)
		? size - (off_t)sizeof(chunk) : 0);

	close_keep(fd);
	for (end = chunk + (n > 0 ? n : 0); end > chunk && end[-1] == '\n'; end--)
		;
	for (s = end; s > chunk && (s[-1] != '\n' || --lines > 0); s--)
		;
	for (; s < end; s = eol + 1) {
		eol = memchr(s, '\n', (size_t)(end - s));
		eol = eol ? eol : end;
		buf_safe(&b, s, (size_t)(eol - s > 500 ? 500 : eol - s));
		buf_str(&b, eol - s > 500 ? "...\n" : "\n");
	}
	return b.s;
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
	while (n) {
		ssize_t r = write(fd, s, n);
		if (r < 0 && errno != EINTR)
			return -1;
		s += r > 0 ? r : 0;
		n -= r > 0 ? (size_t)r : 0;
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

bool
is_special(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

uint64_t
random_bits(void)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	struct timespec t;
	uint64_t n;

	if (fd < 0 || read(fd, &n, sizeof(n)) != (ssize_t)sizeof(n)) {
		clock_gettime(CLOCK_REALTIME, &t);      /* cannot fail with this clock */
		n = (uint64_t)t.tv_sec * 1000000007u ^ (uint64_t)t.tv_nsec << 20
			^ (uint64_t)getpid() * 2654435761u;
	}
	close_keep(fd);
	return n;
}

/* Writes n digits of x in base 36, and a NUL. */
static void
digits36(char *to, int n, uint64_t x)
{
	for (; n--; x /= 36)
		*to++ = "0123456789abcdefghijklmnopqrstuvwxyz"[x % 36];
	*to = '\0';
}

void
id_make(char id[9])
{
	digits36(id, 5, random_bits());
	digits36(id + 5, 3, hash(HASH_BEGIN, id));
}

bool
id_valid(const char *id)
{
	char check[4];

	digits36(check, 3, hash(HASH_BEGIN, str("%.5s", id)));
	return strlen(id) == 8 && !strcmp(check, id + 5);
}

/* Copies what is in fd to path, which is no regular file. */
static int
copy_out(int fd, const char *path)
{
	int to = strcmp(path, "-") ? open(path, O_WRONLY | O_CLOEXEC) : dup(1);
	char chunk[8192];
	off_t at = 0;
	ssize_t n;

	if (to < 0)
		return -1;
	do {
		n = pread(fd, chunk, sizeof(chunk), at);
		at += n;
	} while (n > 0 && write_all(to, chunk, (size_t)n) == 0);
	if (n) {
		close_keep(to);
		return -1;
	}
	return close(to);
}

int
file_begin(const char *path, mode_t mode, char **aside)
{
	char suffix[7];

	if (!strcmp(path, "-") || is_special(path)) {
		*aside = NULL;
		FILE *spool = tmpfile();
		int fd = spool ? fcntl(fileno(spool), F_DUPFD_CLOEXEC, 0) : -1;
		if (spool)
			fclose(spool);          /* nothing was written */
		return fd;
	}
	digits36(suffix, 6, random_bits());
	*aside = str("%s.%s", path, suffix);
	/* O_EXCL: a file or symbolic link that was laid there is not used. */
	return open(*aside, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
}

int
file_end(const char *path, int fd, const char *aside, bool good)
{
	good = good && (aside || copy_out(fd, path) == 0);
	if (!good)
		close_keep(fd);
	else
		good = close(fd) == 0 && (!aside || rename(aside, path) == 0);
	if (!good && aside)
		unlink(aside);          /* what failed is told, not that it stays */
	return good ? 0 : -1;
}

int
file_write(const char *path, const char *s, size_t n, mode_t mode)
{
	char *aside;
	int fd = file_begin(path, mode, &aside);

	if (fd < 0)
		return -1;
	return file_end(path, fd, aside, write_all(fd, s, n) == 0);
}

char *
real_path(const char *path)
{
	char *name = realpath(path, NULL);

	return name ? adopt(name) : NULL;
}

int
list_dir(struct list *l, const char *path)
{
	struct dirent **e;
	int n = scandir(path, &e, NULL, alphasort);

	if (n < 0)
		return -1;
	for (int i = 0; i < n; i++) {
		if (strcmp(e[i]->d_name, ".") && strcmp(e[i]->d_name, ".."))
			list_add(l, e[i]->d_name);
		free(e[i]);
	}
	free(e);
	return 0;
}

/* ---- removing a tree ----
 *
 * Depth costs few descriptors, and no path is too long: what lies deep and is
 * not empty is moved to the top, and the walk repeated.  rmdir says EBUSY of a
 * mount, also of a bind mount, before it says ENOTEMPTY: that ends it.
 */

#define DEEP 8

/* Opens a directory, and lets its owner read and change it. */
static DIR *
enter(int at, const char *name)
{
	static const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	int fd = openat(at, name, flags);

	if (fd < 0 && errno == EACCES && fchmodat(at, name, 0700, 0) == 0)
		fd = openat(at, name, flags);
	if (fd < 0)
		return NULL;
	fchmod(fd, 0700);               /* if it fails and was needed, unlinkat() says so */
	DIR *d = fdopendir(fd);
	if (!d)
		close_keep(fd);
	return d;
}

static void
close_dir(DIR *d)
{
	int err = errno;

	closedir(d);
	errno = err;
}

/* Removes what is there by that name; 1 if something of it was moved to top. */
static int
remove_entry(int at, const char *name, int top, int depth)
{
	int r = unlinkat(at, name, AT_REMOVEDIR);
	char aside[13];

	if (r < 0 && errno == ENOTDIR)
		r = unlinkat(at, name, 0);
	if (r == 0 || errno == ENOENT)
		return 0;
	DIR *d = errno == ENOTEMPTY || errno == EEXIST ? enter(at, name) : NULL;
	if (!d)
		return -1;
	if (depth >= DEEP)
		digits36(aside, 12, random_bits());
	/* Not within overlayfs, say: then it is walked here. */
	bool away = depth >= DEEP && renameat(at, name, top, aside) == 0;
	struct dirent *e = away ? NULL : readdir(d);
	int moved = away;
	for (; e && moved >= 0; e = readdir(d))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			moved |= remove_entry(dirfd(d), e->d_name, top, depth + 1);
	close_dir(d);
	if (moved < 0 || away)
		return moved;
	/* The top has what was moved there. */
	return unlinkat(at, name, AT_REMOVEDIR) < 0 && !moved ? -1 : moved;
}

int
remove_tree(const char *path)
{
	/* The mode of a mount stays. */
	bool full = rmdir(path) < 0 && (errno == ENOTEMPTY || errno == EEXIST);
	DIR *d = full ? enter(AT_FDCWD, path) : NULL;
	int r = 1;

	while (r > 0)
		r = remove_entry(AT_FDCWD, path, d ? dirfd(d) : -1, 0);
	if (d)
		close_dir(d);
	return r;
}
