/*
 * base.c: what every room uses: messages, growing memory, strings, lists, whole files,
 * and the names of results and causes.
 *
 * Strings that a function hands out come from scratch memory, which nobody frees: it is
 * released as a whole, by a worker after each order.
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
	struct buf text = { 0 };

	buf_vfmt(&text, fmt, ap);
	fprintf(stderr, "%s: %s%s\n", prefix, safe(text.s, text.n), reason);
	buf_free(&text);
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
	char *place = safe(where, strlen(where));
	va_list ap;

	va_start(ap, fmt);
	print_line(strchr(where, ':') ? place : str("prun: %s", place), fmt, ap);
	va_end(ap);
	exit(EXIT_USAGE);
}

/* fatal() would need some. */
static void NORETURN
no_memory(void)
{
	static const char text[] = "prun: out of memory\n";

	write_all(2, text, sizeof(text) - 1);
	exit(EXIT_RUN);
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
		no_memory();
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
		no_memory();
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
buf_vfmt(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	b->s = grow(b->s, &b->cap, b->n + (size_t)n + 1, 1);
	vsnprintf(b->s + b->n, (size_t)n + 1, fmt, again);
	va_end(again);
	b->n += (size_t)n;
}

void
buf_fmt(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vfmt(b, fmt, ap);
	va_end(ap);
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
	return adopt(xmalloc(n));
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
	struct buf b = { 0 };
	va_list ap;

	va_start(ap, fmt);
	buf_vfmt(&b, fmt, ap);
	va_end(ap);
	return adopt(b.s);
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
utf8_len(const char *s, size_t n, unsigned *c)
{
	static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *p = (const unsigned char *)s;
	size_t len = 0, i;

	while (n && len < 5 && *p << len & 0x80)
		len++;                  /* leading ones */
	*c = n ? *p & (0x7fu >> len) : 0;
	if (len == 0)
		return n > 0;
	if (len == 1 || len > 4 || len > n)
		return 0;
	for (i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (p[i] & 0x3f);
	}
	/* overlong, surrogates, beyond Unicode: RFC 3629 */
	if (*c < least[len] || (*c >= 0xd800 && *c < 0xe000) || *c > 0x10ffff)
		return 0;
	return len;
}

/* Whether a character could change how a line is shown: controls (C0, DEL,
 * C1), line separators, marks that turn the direction of text; and U+FFFE and
 * U+FFFF, which XML cannot hold. */
static bool
is_unsafe(unsigned c)
{
	return c < ' ' || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f
		|| (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069)
		|| c == 0xfffe || c == 0xffff;
}

void
buf_safe(struct buf *b, const char *s, size_t n)
{
	size_t len;
	unsigned c;

	buf_add(b, "", 0);
	for (; n; s += len, n -= len) {
		len = utf8_len(s, n, &c);
		if (len && !is_unsafe(c))
			buf_add(b, s, len);
		else if (len > 1)
			buf_fmt(b, "\\u%04x", c);
		else
			buf_fmt(b, "\\x%02x", (unsigned char)*s);
		if (!len)
			len = 1;
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
safe(const char *s, size_t n)
{
	struct buf b = { 0 };

	buf_safe(&b, s, n);
	return adopt(b.s);
}

char *
shown(const char *s)
{
	return safe(s, strlen(s));
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
		b->s = grow(b->s, &b->cap, b->n + 4096, 1);
		n = read(fd, b->s + b->n, b->cap - b->n - 1);
		if (n > 0)
			b->n += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	b->s[b->n] = '\0';
	close_keep(fd);
	return n < 0 ? -1 : 0;
}

/* As buf_safe(), but tabs stay what they are. */
static void
add_safe_line(struct buf *b, const char *s, size_t n)
{
	const char *tab;

	while ((tab = memchr(s, '\t', n))) {
		buf_safe(b, s, (size_t)(tab - s));
		buf_char(b, '\t');
		n -= (size_t)(tab + 1 - s);
		s = tab + 1;
	}
	buf_safe(b, s, n);
}

void
buf_tail(struct buf *b, const char *path, int lines)
{
	char chunk[8192], *s;
	int fd = open_regular(path, O_RDONLY);
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
		add_safe_line(b, s, (size_t)(eol - s > 500 ? 500 : eol - s));
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

uint64_t
random_bits(void)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	struct timespec t;
	uint64_t n = 0;
	ssize_t got = fd < 0 ? 0 : read(fd, &n, sizeof(n));

	if (fd >= 0)
		close(fd);
	if (got == (ssize_t)sizeof(n))
		return n;
	clock_gettime(CLOCK_REALTIME, &t);      /* cannot fail with this clock */
	return (uint64_t)t.tv_sec * 1000000007u ^ (uint64_t)t.tv_nsec << 20
		^ (uint64_t)getpid() * 2654435761u;
}

/* Writes n digits of x in base 36. */
static void
digits36(char *to, int n, uint64_t x)
{
	for (; n--; x /= 36)
		*to++ = "0123456789abcdefghijklmnopqrstuvwxyz"[x % 36];
}

void
id_make(char id[9])
{
	digits36(id, 5, random_bits());
	id[5] = '\0';
	digits36(id + 5, 3, hash(HASH_BEGIN, id));
	id[8] = '\0';
}

bool
id_valid(const char *id)
{
	char head[6] = "", check[3];

	if (strlen(id) != 8)
		return false;
	memcpy(head, id, 5);
	digits36(check, 3, hash(HASH_BEGIN, head));
	return !memcmp(check, id + 5, 3);
}

/* Opens a new file beside path, of another name, to be renamed to path. */
static int
open_aside(const char *path, mode_t mode, char **aside)
{
	char suffix[7] = "";
	int fd, tries = 0;

	do {
		digits36(suffix, 6, random_bits());
		*aside = str("%s.%s", path, suffix);
		/* O_EXCL: a file or symbolic link that was laid there is not used. */
		fd = open(*aside, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	} while (fd < 0 && errno == EEXIST && ++tries < 100);
	return fd;
}

/* A file without a name. */
static int
open_spool(void)
{
	FILE *f = tmpfile();
	int fd = f ? dup(fileno(f)) : -1;

	if (f)
		fclose(f);              /* nothing was written */
	if (fd >= 0 && set_cloexec(fd) < 0) {
		close_keep(fd);
		fd = -1;
	}
	return fd;
}

/* Copies what was spooled in fd to path, which is no regular file. */
static int
copy_out(int fd, const char *path)
{
	int to = strcmp(path, "-") ? open(path, O_WRONLY | O_CLOEXEC) : 1;
	int result = to < 0 ? -1 : 0;
	char chunk[8192];
	off_t at = 0;
	ssize_t n = 1;

	while (!result && n > 0) {
		n = pread(fd, chunk, sizeof(chunk), at);
		at += n;
		result = n < 0 ? -1 : write_all(to, chunk, (size_t)n);
	}
	if (to > 1 && result)
		close_keep(to);
	else if (to > 1)
		result = close(to);
	return result;
}

int
file_begin(const char *path, mode_t mode, char **aside)
{
	*aside = NULL;
	if (!strcmp(path, "-") || is_special(path))
		return open_spool();
	return open_aside(path, mode, aside);
}

int
file_end(const char *path, int fd, const char *aside, bool good)
{
	int result = good ? 0 : -1, err;

	if (!result && !aside)
		result = copy_out(fd, path);
	if (result)
		close_keep(fd);
	else
		result = close(fd);
	if (!result && aside)
		result = rename(aside, path);
	if (result && aside) {
		err = errno;
		unlink(aside);
		errno = err;
	}
	return result;
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

/* ---- removing a tree ----
 *
 * One directory is open at a time, so depth costs no descriptors and no path is
 * too long.  A directory that is empty is removed where it stands in its parent;
 * one that is not is entered, emptied, and left through "..", which must be the
 * directory that it was entered from.  rmdir says EBUSY of a mount before it says
 * ENOTEMPTY, also of a bind mount of the same file system: that ends the walk.
 */
struct place {
	dev_t dev;
	ino_t ino;
};

static void
close_dir_keep(DIR *d)
{
	int err = errno;

	closedir(d);
	errno = err;
}

/* Opens a directory; one that its owner may not read is made readable. */
static DIR *
enter(int at, const char *name, struct place *place)
{
	static const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(at, name, flags);
	struct stat st;
	DIR *d;

	if (fd < 0 && errno == EACCES && fchmodat(at, name, 0700, 0) == 0)
		fd = openat(at, name, flags);
	if (fd < 0)
		return NULL;
	d = fstat(fd, &st) < 0 ? NULL : fdopendir(fd);
	if (!d) {
		close_keep(fd);
		return NULL;
	}
	place->dev = st.st_dev;
	place->ino = st.st_ino;
	return d;
}

/* unlinkat(2) in an open directory, which is made writable if it is not. */
static int
remove_entry(DIR *d, const char *name, int flag)
{
	int r = unlinkat(dirfd(d), name, flag);

	if (r < 0 && errno == EACCES && fchmod(dirfd(d), 0700) == 0)
		r = unlinkat(dirfd(d), name, flag);
	return r;
}

/* Removes what is in d; 1 with the name of the first directory that is not
 * empty, 0 when nothing is left. */
static int
remove_entries(DIR *d, char **name)
{
	struct dirent *e;
	struct stat st;

	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0
		&& !(errno == EACCES && fchmod(dirfd(d), 0700) == 0 && fstatat(dirfd(d),
				e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)) {
			if (errno == ENOENT)
				continue;
			return -1;
		}
		if (remove_entry(d, e->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) == 0
		|| errno == ENOENT)
			continue;
		if (!S_ISDIR(st.st_mode) || (errno != ENOTEMPTY && errno != EEXIST))
			return -1;
		*name = str("%s", e->d_name);
		return 1;
	}
	return 0;
}

/* Empties the directory d, whose place is at, and closes it. */
static int
empty_tree(DIR *d, struct place at)
{
	struct place *above = NULL, next;
	size_t depth = 0, cap = 0;
	size_t mark = scratch_mark();
	char *name;
	DIR *other;
	int r;

	for (;;) {
		r = remove_entries(d, &name);
		if (r < 0 || (r == 0 && depth == 0))
			break;
		other = enter(dirfd(d), r > 0 ? name : "..", &next);
		scratch_release(mark);
		if (!other) {
			r = -1;
			break;
		}
		closedir(d);
		d = other;
		if (r > 0) {
			above = grow(above, &cap, depth + 1, sizeof(*above));
			above[depth++] = at;
		} else {
			depth--;
		}
		/* Another file system, or a directory that was moved meanwhile. */
		if (next.dev != at.dev || (r == 0 && next.ino != above[depth].ino)) {
			errno = EBUSY;
			r = -1;
			break;
		}
		at = next;
	}
	close_dir_keep(d);
	free(above);
	return r;
}

int
remove_tree(const char *path)
{
	struct place at;
	struct stat st;
	DIR *d;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -1;
	if (!S_ISDIR(st.st_mode))
		return unlink(path);
	if (rmdir(path) == 0)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return -1;
	d = enter(AT_FDCWD, path, &at);
	if (!d || empty_tree(d, at) < 0)
		return -1;
	return rmdir(path);
}
