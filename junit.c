/*
 * junit.c: reads reports as tools write them, writes one that all can read.
 *
 * The reader pulls: next() gives a start tag, an end tag or text, out of a
 * window of the file that slides along.  It is iterative and forgiving: no
 * entity is expanded, nothing is fetched, an unknown byte becomes \xNN.  What
 * is not well-formed is read as far as it goes; then the report gets a case
 * [report] that says where it broke.
 *
 * The merger keeps one test case in memory, its children sorted into buffers
 * as the dialect orders them, and streams it out when it ends.  A suite's
 * start tag leaves room for totals, which are written there when it is over.
 * Nested suites become suites of their own, named outer/inner.
 *
 * Of a file with several attempts one report is the base (the last when it
 * ended well, else the first); the failures of the others are collected
 * first and stand in the base's cases as flaky or rerun elements.
 */
#include "prun.h"
#include <dirent.h>
#include <strings.h>

#define WINDOW 65536
#define KEEP 32         /* bytes held back, so that no reference is cut */

/* ---- text: whatever comes in, clean UTF-8 comes out ---- */

/* Where text goes: cleaned, escaped if wanted, at most limit bytes of it. */
struct sink {
	struct buf b;
	int64_t limit, used, cut;
	bool escape;            /* < > & as references; CR too */
	char pending[256];      /* an escape sequence that has not ended */
	size_t npending;
};

static void
sink_begin(struct sink *t, int64_t limit, bool escape)
{
	t->b.n = t->npending = 0;
	t->limit = limit;
	t->used = t->cut = 0;
	t->escape = escape;
}

static void
emit(struct sink *t, const char *s, size_t n)
{
	if (t->used + (int64_t)n > t->limit) {
		t->cut += (int64_t)n;
		return;
	}
	t->used += (int64_t)n;
	buf_add(&t->b, s, n);
}

/* One character, valid UTF-8, that the fast path has not taken. */
static void
emit_char(struct sink *t, const char *s, size_t n)
{
	char hex[8];
	unsigned char c = (unsigned char)*s;

	if (n == 3 && !memcmp(s, "\xef\xbf", 2) && (unsigned char)s[2] >= 0xbe)
		emit(t, "\xef\xbf\xbd", 3);     /* U+FFFE, U+FFFF: no XML */
	else if (c < ' ' && !strchr("\t\n\r", c)) {
		snprintf(hex, sizeof(hex), "\\x%02x", c);
		emit(t, hex, 4);
	} else if (t->escape && strchr("<>&\r", c))
		emit(t, c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : "&#13;",
			c == '<' || c == '>' ? 4 : 5);
	else
		emit(t, s, n);
}

static void
emit_pending(struct sink *t)
{
	size_t i, n = t->npending;

	t->npending = 0;
	for (i = 0; i < n; i++)
		emit_char(t, t->pending + i, 1);
}

/* A character inside of what may be a terminal's escape sequence: CSI, ESC [
 * ... final, or OSC, ESC ] ... BEL or ESC \.  Whole ones vanish. */
static void
in_escape(struct sink *t, const char *s, size_t n)
{
	unsigned char c = (unsigned char)*s;
	bool csi = t->npending > 1 && t->pending[1] == '[';

	if (t->npending == 1 ? c == '[' || c == ']'
	: n == 1 && t->npending < sizeof(t->pending) - 1
	&& (csi ? c >= ' ' && c < 0x7f : c >= ' ' || c == 7 || c == 27)) {
		t->pending[t->npending++] = (char)c;
		if (t->npending > 2 && (csi ? c >= '@' : c == 7
		|| (c == '\\' && t->pending[t->npending - 2] == 27)))
			t->npending = 0;
		return;
	}
	emit_pending(t);
	if (c == 27)
		t->pending[t->npending++] = 27;
	else
		emit_char(t, s, n);
}

static void
put_char(struct sink *t, const char *s, size_t n)
{
	if (t->npending || *s == 27) {
		if (!t->npending)
			t->pending[t->npending++] = 27;
		else
			in_escape(t, s, n);
	} else {
		emit_char(t, s, n);
	}
}

static void
put_code(struct sink *t, unsigned long c)
{
	char s[4];

	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		c = 0xfffd;
	if (c < 0x80) {
		s[0] = (char)c;
		put_char(t, s, 1);
	} else if (c < 0x800) {
		s[0] = (char)(0xc0 | c >> 6);
		s[1] = (char)(0x80 | (c & 63));
		put_char(t, s, 2);
	} else if (c < 0x10000) {
		s[0] = (char)(0xe0 | c >> 12);
		s[1] = (char)(0x80 | (c >> 6 & 63));
		s[2] = (char)(0x80 | (c & 63));
		put_char(t, s, 3);
	} else {
		s[0] = (char)(0xf0 | c >> 18);
		s[1] = (char)(0x80 | (c >> 12 & 63));
		s[2] = (char)(0x80 | (c >> 6 & 63));
		s[3] = (char)(0x80 | (c & 63));
		put_char(t, s, 4);
	}
}

/* A reference at s, of at most n bytes; how many it took, 0: it is none. */
static size_t
put_reference(struct sink *t, const char *s, size_t n)
{
	static const struct { const char *name; char c; } named[] = {
		{ "&lt;", '<' }, { "&gt;", '>' }, { "&amp;", '&' }, { "&quot;", '"' },
		{ "&apos;", '\'' }
	};
	unsigned long code = 0;
	size_t i, k;
	int base = 10, digit;

	for (k = 0; k < LEN(named); k++) {
		i = strlen(named[k].name);
		if (i <= n && !memcmp(s, named[k].name, i)) {
			put_char(t, &named[k].c, 1);
			return i;
		}
	}
	if (n < 4 || s[1] != '#')
		return 0;
	i = 2;
	if (s[2] == 'x')
		base = 16, i = 3;
	for (k = i; i < n && s[i] != ';'; i++) {
		digit = s[i] >= '0' && s[i] <= '9' ? s[i] - '0'
			: base == 16 && (s[i] | 32) >= 'a' && (s[i] | 32) <= 'f'
			? (s[i] | 32) - 'a' + 10 : -1;
		if (digit < 0)
			return 0;
		if (code < 0x200000)
			code = code * (unsigned long)base + (unsigned long)digit;
	}
	if (i == n || i == k)
		return 0;
	put_code(t, code);
	return i + 1;
}

/* How many bytes from s on need no thought: ASCII but controls, < > &. */
static size_t
plain(const char *s, size_t n)
{
	static const uint64_t ones = UINT64_C(0x0101010101010101);
	uint64_t v, hit;
	unsigned char c;
	size_t i = 0;

	/* Eight at a time.  A byte is hit when it is above 0x7f, below 0x20
	 * or one of three; borrows may hit a byte too many, never too few. */
	for (; i + 8 <= n; i += 8) {
		memcpy(&v, s + i, 8);
		hit = v | (v - ones * 0x20) | ((v ^ ones * '<') - ones)
			| ((v ^ ones * '>') - ones) | ((v ^ ones * '&') - ones);
		if (hit & ones * 0x80)
			break;
	}
	for (; i < n; i++) {
		c = (unsigned char)s[i];
		if ((c < ' ' && c != '\n' && c != '\t') || c >= 0x80 || c == '<' || c == '>'
		|| c == '&')
			break;
	}
	return i;
}

/* Takes n bytes as they stand in a file; raw: without references (CDATA).
 * They end neither in a reference nor in a character. */
static void
put_text(struct sink *t, const char *s, size_t n, bool raw)
{
	size_t i = 0, k;
	char hex[8];

	while (i < n) {
		if (!t->npending && (k = plain(s + i, n - i))) {
			if (t->used + (int64_t)k > t->limit) {
				emit(t, s + i, (size_t)(t->limit - t->used));
				t->cut -= t->limit - t->used - (int64_t)k;
				i += k;
				continue;
			}
			emit(t, s + i, k);
		} else if (s[i] == '\r') {      /* as XML reads line ends */
			k = 1 + (i + 1 < n && s[i + 1] == '\n');
			put_char(t, "\n", 1);
		} else if (s[i] == '&' && !raw && (k = put_reference(t, s + i, n - i))) {
			;
		} else if ((k = utf8_len(s + i, n - i))) {
			put_char(t, s + i, k);
		} else {
			k = 1;
			emit_pending(t);
			snprintf(hex, sizeof(hex), "\\x%02x", (unsigned char)s[i]);
			emit(t, hex, 4);
		}
		i += k;
	}
}

static void
sink_end(struct sink *t)
{
	emit_pending(t);
	if (t->cut)
		buf_fmt(&t->b, "\n[prun: %" PRId64 " bytes cut, see report-limit]", t->cut);
	buf_add(&t->b, "", 0);
}

/* Appends s, which is clean, as text or, quoted, as an attribute's value. */
static void
add_escaped(struct buf *b, const char *s, bool attribute)
{
	static const char special[] = "<>&\r\"\n\t";
	static const char *const as[] = {
		"&lt;", "&gt;", "&amp;", "&#13;", "&quot;", "&#10;", "&#9;"
	};
	size_t n;

	for (; *s; s += n) {
		n = strcspn(s, attribute ? special : "<>&\r");
		buf_add(b, s, n);
		if (s[n]) {
			buf_str(b, as[strchr(special, s[n]) - special]);
			n++;
		}
	}
}

static void
add_attribute(struct buf *b, const char *name, const char *value)
{
	buf_fmt(b, " %s=\"", name);
	add_escaped(b, value, true);
	buf_char(b, '"');
}

/* ---- the reader ---- */

enum event { START, END, TEXT, DATA, EOD };
enum charset { RAW, LATIN1, UTF16LE, UTF16BE };

struct reader {
	int fd;
	enum charset charset;
	char *s, *end;          /* what is left of the window */
	char window[WINDOW + KEEP];
	unsigned char rest[4];  /* of a character cut by a read */
	size_t nrest;
	bool eof, cdata, top;   /* top: outside of all that we know */
	bool ends;              /* an empty tag's END is due */
	int64_t limit;
	char name[64];          /* of the tag, without its prefix */
	struct sink attrs;      /* name NUL value NUL ... */
	size_t nattrs;
	struct sink value;
	const char *broken;     /* the first thing that was wrong, or NULL */
	int64_t at, broken_at;  /* bytes read; where it was wrong */
};

/* windows-1252's 0x80 to 0x9f, which Latin-1 reports mean as well. */
static const unsigned short cp1252[32] = {
	0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039,
	0x152, 0x8d, 0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
	0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178
};

static size_t
encode(char *to, unsigned long c)
{
	struct sink t;

	memset(&t, 0, sizeof(t));
	t.limit = 8;
	if (c < ' ') {          /* as it is: put_text() sees to it */
		*to = (char)c;
		return 1;
	}
	put_code(&t, c);
	memcpy(to, t.b.s, t.b.n);
	c = t.b.n;
	buf_free(&t.b);
	return c;
}

/* Converts n bytes of another charset; returns how many bytes it made. */
static size_t
convert(struct reader *r, const unsigned char *in, size_t n, char *to)
{
	size_t i = 0, made = 0;
	unsigned long c, low;
	int hi = r->charset == UTF16BE ? 0 : 1;

	if (r->charset == LATIN1) {
		for (; i < n; i++)
			if (in[i] < 0x80)
				to[made++] = (char)in[i];
			else
				made += encode(to + made, in[i] < 0xa0 ? cp1252[in[i] - 0x80]
					: in[i]);
		return made;
	}
	for (; i + 1 < n; i += 2) {
		c = (unsigned long)in[i + !hi] | (unsigned long)in[i + hi] << 8;
		if (c >= 0xd800 && c < 0xdc00) {
			if (i + 3 >= n && !r->eof)
				break;
			low = i + 3 < n ? (unsigned long)in[i + 2 + !hi]
				| (unsigned long)in[i + 2 + hi] << 8 : 0;
			if (low >= 0xdc00 && low < 0xe000) {
				c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
				i += 2;
			}
		}
		if (c < 0x80)
			to[made++] = (char)c;
		else
			made += encode(to + made, c);
	}
	r->nrest = n - i;
	memcpy(r->rest, in + i, r->nrest);
	return made;
}

/* Slides the window and reads more; false at the end of the file. */
static bool
fill(struct reader *r)
{
	unsigned char raw[WINDOW / 4 + 4];
	size_t left = (size_t)(r->end - r->s), room = WINDOW - left;
	ssize_t n;

	if (r->eof || room < WINDOW / 4 + KEEP)
		return false;
	memmove(r->window, r->s, left);
	r->s = r->window;
	r->end = r->window + left;
	do {
		if (r->charset == RAW) {
			n = read(r->fd, r->end, room);
		} else {        /* at most three bytes come of one */
			memcpy(raw, r->rest, r->nrest);
			n = read(r->fd, raw + r->nrest, WINDOW / 4 > room / 3 ? room / 3
				: WINDOW / 4);
		}
	} while (n < 0 && errno == EINTR);
	if (n < 0 && !r->broken)
		r->broken = "cannot be read";
	r->eof = n <= 0;
	r->at += n > 0 ? n : 0;
	if (r->charset == RAW)
		r->end += n > 0 ? n : 0;
	else
		r->end += convert(r, raw, r->nrest + (size_t)(n > 0 ? n : 0), r->end);
	return !r->eof;
}

static int
open_reader(struct reader *r, const char *path, int64_t limit)
{
	static const char *const latin[] = { "iso-8859-1", "iso_8859-1", "latin1", "latin-1",
		"windows-1252", "cp1252" };
	char head[200], *s;
	size_t i, n;

	memset(r, 0, offsetof(struct reader, window));
	memset(&r->rest, 0, sizeof(*r) - offsetof(struct reader, rest));
	r->limit = limit;
	r->s = r->end = r->window;
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0)
		return -1;
	fill(r);
	n = (size_t)(r->end - r->s);
	if (n >= 3 && !memcmp(r->s, "\xef\xbb\xbf", 3)) {
		r->s += 3;
	} else if (n >= 2 && (!memcmp(r->s, "\xff\xfe", 2) || !memcmp(r->s, "<\0", 2)
	|| !memcmp(r->s, "\xfe\xff", 2) || !memcmp(r->s, "\0<", 2))) {
		r->charset = *r->s == '<' || *r->s == '\xff' ? UTF16LE : UTF16BE;
	} else {
		n = n < sizeof(head) - 1 ? n : sizeof(head) - 1;
		for (i = 0; i < n; i++)         /* NUL ends it, which is well */
			head[i] = (char)(r->s[i] >= 'A' && r->s[i] <= 'Z' ? r->s[i] | 32
				: r->s[i]);
		head[n] = '\0';
		s = strstr(head, "<?xml");
		s = s ? strstr(s, "encoding") : NULL;
		s = s ? s + 8 + strspn(s + 8, " =\"'") : NULL;
		for (i = 0; s && i < LEN(latin); i++)
			if (!strncmp(s, latin[i], strlen(latin[i])))
				r->charset = LATIN1;
	}
	if (r->charset != RAW) {        /* again, from the start */
		if (lseek(r->fd, r->s[0] == '\xff' || r->s[0] == '\xfe' ? 2 : 0, SEEK_SET) < 0)
			r->broken = "cannot be read";
		r->s = r->end = r->window;
		r->eof = false;
		fill(r);
	}
	return 0;
}

static void
close_reader(struct reader *r)
{
	close(r->fd);
	buf_free(&r->attrs.b);
	buf_free(&r->value.b);
}

static void
breaks(struct reader *r, const char *what)
{
	if (r->broken)
		return;
	r->broken = what;
	r->broken_at = r->at - (r->end - r->s);
}

static bool
is_space(int c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool
is_name(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
		|| (c && strchr("_-.:", c)) || (unsigned char)c >= 0x80;
}

/* The next byte without taking it; -1 at the end. */
static int
peek(struct reader *r)
{
	if (r->s == r->end && !fill(r) && r->s == r->end)
		return -1;
	return (unsigned char)*r->s;
}

/* Whether the file goes on with word. */
static bool
ahead(struct reader *r, const char *word)
{
	size_t n = strlen(word);

	while ((size_t)(r->end - r->s) < n && fill(r))
		;
	return (size_t)(r->end - r->s) >= n && !memcmp(r->s, word, n);
}

/* Skips to behind word; false when it does not come. */
static bool
skip_past(struct reader *r, const char *word)
{
	size_t n = strlen(word);
	char *hit;

	for (;;) {
		hit = memchr(r->s, *word, (size_t)(r->end - r->s));
		r->s = hit ? hit : r->end;
		if (ahead(r, word)) {
			r->s += n;
			return true;
		}
		if (peek(r) < 0)
			return false;
		r->s++;
	}
}

/* Skips <!DOCTYPE with its internal subset: entities are not for us. */
static void
skip_doctype(struct reader *r)
{
	int c, quote = 0, depth = 0;

	while ((c = peek(r)) >= 0) {
		if (!quote && ahead(r, "<!--")) {
			skip_past(r, "-->");
			continue;
		}
		r->s++;
		if (quote)
			quote = c == quote ? 0 : quote;
		else if (c == '"' || c == '\'')
			quote = c;
		else if (c == '[' || c == ']')
			depth += c == '[' ? 1 : -1;
		else if (c == '>' && depth <= 0)
			return;
	}
}

static void
skip_space(struct reader *r)
{
	int c;

	while ((c = peek(r)) >= 0 && is_space(c))
		r->s++;
}

/* Where the window can be cut: in no character, reference or line end. */
static size_t
whole(const struct reader *r, const char *end)
{
	const char *s, *p;

	if (r->eof || end != r->end || end - r->s <= KEEP)
		return (size_t)(end - r->s);
	s = end - KEEP;
	for (p = end - 1; p > s; p--)
		if (*p == '&')
			return (size_t)(p - r->s);
	for (p = end; p > s && ((unsigned char)p[-1] & 0xc0) == 0x80; p--)
		;
	p -= p > s && (unsigned char)p[-1] >= 0xc0;
	p -= p > s && p[-1] == '\r';
	return (size_t)(p - r->s);
}

/* Reads up to a byte of stop into t, and leaves that byte. */
static void
read_until(struct reader *r, struct sink *t, int stop)
{
	char *hit;
	size_t n;

	for (;;) {
		if (r->end - r->s <= KEEP)
			fill(r);
		hit = memchr(r->s, stop, (size_t)(r->end - r->s));
		n = whole(r, hit ? hit : r->end);
		if (t)
			put_text(t, r->s, n, false);
		r->s += n;
		if (hit || (r->eof && r->s == r->end))
			return;
	}
}

/* Reads name="value"; false at the end of the tag. */
static bool
read_attribute(struct reader *r)
{
	char name[256];
	const char *have;
	size_t n = 0;
	int c, quote;

	skip_space(r);
	c = peek(r);
	if (c < 0 || c == '>' || c == '<' || (c == '/' && ahead(r, "/>")))
		return false;
	while ((c = peek(r)) >= 0 && !is_space(c) && !strchr("=<>\"'", c)
	&& !(c == '/' && ahead(r, "/>"))) {
		if (n < sizeof(name) - 1)
			name[n++] = (char)c;
		r->s++;
	}
	name[n] = '\0';
	skip_space(r);
	sink_begin(&r->value, r->limit, false);
	if (peek(r) == '=') {
		r->s++;
		skip_space(r);
		quote = peek(r);
		if (quote == '"' || quote == '\'') {
			r->s++;
			read_until(r, &r->value, quote);
			if (peek(r) == quote)
				r->s++;
		} else {
			while ((c = peek(r)) >= 0 && !is_space(c) && c != '>' && c != '<') {
				put_text(&r->value, r->s, 1, true);
				r->s++;
			}
		}
	} else if (!n) {
		r->s++;                 /* a quote out of nowhere */
		breaks(r, "has a tag that cannot be read");
	}
	sink_end(&r->value);
	have = r->attrs.b.s;
	for (c = 0; c < (int)r->nattrs; c++) {
		if (!strcmp(have, name))
			return true;    /* twice: the first one wins */
		have += strlen(have) + 1;
		have += strlen(have) + 1;
	}
	for (have = name; *have && is_name(*have); have++)
		;
	if (!*name || *have || (*name >= '0' && *name <= '9') || *name == '-' || *name == '.')
		return true;            /* no name that could be written */
	buf_add(&r->attrs.b, name, n + 1);
	buf_add(&r->attrs.b, r->value.b.s, r->value.b.n + 1);
	r->nattrs++;
	return true;
}

/* Value of an attribute of the tag, or NULL. */
static const char *
attr(const struct reader *r, const char *name)
{
	const char *s = r->attrs.b.s;
	size_t i;

	for (i = 0; i < r->nattrs; i++) {
		if (!strcmp(s, name))
			return s + strlen(s) + 1;
		s += strlen(s) + 1;
		s += strlen(s) + 1;
	}
	return NULL;
}

/* Reads a tag's name, local part only, as far as it fits. */
static void
read_name(struct reader *r)
{
	size_t n = 0;
	int c;

	while ((c = peek(r)) >= 0 && is_name(c)) {
		if (c == ':')
			n = 0;
		else if (n < sizeof(r->name) - 1)
			r->name[n++] = (char)c;
		r->s++;
	}
	r->name[n] = '\0';
}

/* Whether the tag ahead is one with which a report can begin. */
static bool
begins(struct reader *r)
{
	static const char *const roots[] = { "testsuites", "testsuite" };
	const char *s, *colon;
	size_t i, n;

	ahead(r, "</a-namespace-prefix:testsuites");    /* fills the window */
	s = r->s + 1;
	s += s < r->end && *s == '/';
	for (n = 0; s + n < r->end && is_name(s[n]); n++)
		;
	colon = memchr(s, ':', n);
	if (colon) {
		n -= (size_t)(colon + 1 - s);
		s = colon + 1;
	}
	for (i = 0; i < LEN(roots); i++)
		if (n == strlen(roots[i]) && !memcmp(s, roots[i], n))
			return true;
	return false;
}

/* A start or end tag at '<'; what comes of it. */
static enum event
read_tag(struct reader *r)
{
	bool end = r->s[1] == '/';

	r->s += end ? 2 : 1;
	read_name(r);
	r->nattrs = 0;
	r->attrs.b.n = 0;
	if (end) {
		skip_space(r);
		if (peek(r) == '>')
			r->s++;
		else
			breaks(r, "has an end tag that does not end");
		return END;
	}
	while (read_attribute(r))
		;
	if (ahead(r, "/>")) {
		r->s += 2;
		r->ends = true;
	} else if (peek(r) == '>') {
		r->s++;
	} else if (peek(r) < 0) {
		breaks(r, "ends in the middle of a tag");
		return EOD;
	} else {
		breaks(r, "has a tag that does not end");
	}
	return START;
}

/* What comes next.  TEXT: read_text() or skip it; DATA: the same in CDATA. */
static enum event
next(struct reader *r)
{
	if (r->ends) {
		r->ends = false;
		return END;
	}
	for (;;) {
		if (r->top)             /* log lines, blanks, another's tags */
			read_until(r, NULL, '<');
		if (peek(r) < 0)
			return EOD;
		if (*r->s != '<')
			return TEXT;
		if (ahead(r, "<!--")) {
			r->s += 4;
			if (!skip_past(r, "-->"))
				breaks(r, "ends in a comment");
		} else if (ahead(r, "<![CDATA[") && !r->top) {
			r->s += 9;
			return DATA;
		} else if (ahead(r, "<?")) {
			skip_past(r, "?>");
		} else if (ahead(r, "<!DOCTYPE")) {
			skip_doctype(r);
		} else if (r->top ? begins(r) : r->end - r->s > 1
		&& (r->s[1] == '/' || (is_name(r->s[1]) && !strchr("-.0123456789", r->s[1])))) {
			return read_tag(r);
		} else if (r->top) {
			r->s++;
		} else {
			return TEXT;    /* a bare < */
		}
	}
}

/* Reads text up to the next tag into t (NULL: nowhere). */
static void
read_text(struct reader *r, struct sink *t, enum event kind)
{
	char *end;
	size_t n;

	if (kind == TEXT) {
		if (*r->s == '<') {
			if (t)
				put_text(t, r->s, 1, true);
			r->s++;
		}
		read_until(r, t, '<');
		return;
	}
	for (;;) {
		if (r->end - r->s <= KEEP)
			fill(r);
		end = memchr(r->s, ']', (size_t)(r->end - r->s));
		n = whole(r, end ? end : r->end);
		if (t)
			put_text(t, r->s, n, true);
		r->s += n;
		if (end && ahead(r, "]]>")) {
			r->s += 3;
			return;
		}
		if (peek(r) < 0) {
			breaks(r, "ends in a CDATA section");
			return;
		}
		if (end) {
			if (t)
				put_text(t, "]", 1, true);
			r->s++;
		}
	}
}

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
	char *classname, *name, *attrs, *text;
	bool error, used;
};

struct merger {
	const struct merge *o;
	const struct part *part;
	int fd;                 /* -1: only count */
	struct buf out;
	off_t flushed, root_at, suite_at;
	int error;              /* errno of the first write that failed, or 0 */
	struct counts total, suite, sum;        /* sum: of the part */
	int64_t total_us, suite_us;
	bool open, first;       /* a suite is; none of this part was yet */
	int id;
	const char *report;     /* path of the one being read */

	struct frame *frames;
	size_t nframes, capframes, nkind[KINDS];
	struct buf path, heads; /* suites' names; their other attributes */
	struct buf props, suite_out, suite_err;
	bool in_case;
	struct buf classname, name, attrs, child[K_ERR + 1];
	struct buf outer_attrs, message, property, nested;
	struct buf file, line;  /* of the case */
	enum kind outer_kind, inner_kind;       /* K_OTHER: none */
	struct sink outer, inner;
	int64_t case_us;
	bool not_run;           /* its attributes say so */
	struct buf *notes;      /* where failing cases are listed, or NULL */
	bool collect;           /* failing cases go to retries */
	struct retry *retries;
	size_t nretries, capretries;
};

static void
out_flush(struct merger *m)
{
	if (m->fd >= 0 && !m->error && write_all(m->fd, m->out.s, m->out.n) < 0)
		m->error = errno;
	m->flushed += (off_t)m->out.n;
	m->out.n = 0;
}

#define TOTALS 150      /* columns kept free in a start tag */

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
	int n = snprintf(s, sizeof(s), " tests=\"%" PRId64 "\" failures=\"%" PRId64
		"\" errors=\"%" PRId64 "\" skipped=\"%" PRId64 "\" time=\"%.3f\"", c->tests,
		c->failures, c->errors, c->skipped, (double)us / 1e6);

	memset(s + n, ' ', sizeof(s) - (size_t)n);      /* of which TOTALS count */
	if (at >= m->flushed)
		memcpy(m->out.s + (at - m->flushed), s, TOTALS);
	else if (m->fd >= 0 && !m->error && pwrite(m->fd, s, TOTALS, at) != TOTALS)
		m->error = errno;
}

static void
add_property(struct buf *b, const char *name, const char *value)
{
	buf_str(b, "<property");
	add_attribute(b, "name", name);
	add_attribute(b, "value", value);
	buf_str(b, "/>\n");
}

static void
add_own_properties(struct merger *m)
{
	const struct part *p = m->part;
	char text[64];

	if (!p->synthetic)
		return;
	add_property(&m->props, "prun.file", p->file);
	add_property(&m->props, "prun.result", result_name[p->result]);
	snprintf(text, sizeof(text), "%.3f", (double)p->ms / 1000);
	add_property(&m->props, "prun.seconds", text);
	snprintf(text, sizeof(text), "%d", p->attempts);
	add_property(&m->props, "prun.attempts", text);
	add_property(&m->props, "prun.run", m->o->run);
	snprintf(text, sizeof(text), "%08" PRIx32, m->o->hash);
	add_property(&m->props, "prun.plan", text);
	snprintf(text, sizeof(text), "%d/%d", m->o->shard, m->o->shards);
	if (m->o->shards)
		add_property(&m->props, "prun.shard", text);
}

/* Begins a suite in the output, named as the suites that are open. */
static void
open_suite(struct merger *m)
{
	const char *file = m->part->file ? m->part->file : m->report;

	if (m->open || m->collect)
		return;
	m->open = true;
	buf_str(&m->out, " <testsuite");
	add_attribute(&m->out, "name", m->path.n ? m->path.s : file ? file : "tests");
	buf_fmt(&m->out, " id=\"%d\"", m->id++);
	m->suite_at = leave_room(m);
	if (m->nframes)
		buf_str(&m->out, m->heads.s + m->frames[m->nframes - 1].head);
	if (m->part->file && !(m->heads.n && strstr(m->heads.s, " file=\"")))
		add_attribute(&m->out, "file", m->part->file);
	buf_str(&m->out, ">\n");
	if (m->first)
		add_own_properties(m);
	m->first = false;
	if (m->props.n)
		buf_fmt(&m->out, "  <properties>\n%s  </properties>\n", m->props.s);
	m->props.n = 0;
	memset(&m->suite, 0, sizeof(m->suite));
	m->suite_us = 0;
}

static void
add_output(struct merger *m, const char *name, struct buf *b)
{
	if (b->n)
		buf_fmt(&m->out, "  <%s>", name);
	buf_add(&m->out, b->s, b->n);
	if (b->n)
		buf_fmt(&m->out, "</%s>\n", name);
	b->n = 0;
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
	add_output(m, "system-out", &m->suite_out);
	add_output(m, "system-err", &m->suite_err);
	buf_str(&m->out, " </testsuite>\n");
	fill_room(m, m->suite_at, &m->suite, m->suite_us);
	m->total.tests += m->suite.tests;
	m->total.failures += m->suite.failures;
	m->total.errors += m->suite.errors;
	m->total.skipped += m->suite.skipped;
	m->total_us += m->suite_us;
	m->open = false;
	if (m->out.n > WINDOW)
		out_flush(m);
}

/* Microseconds of a time attribute, however it is written. */
static int64_t
microseconds(const char *s)
{
	char plain_text[64];
	size_t n = 0;
	double v;

	for (; s && *s && n < sizeof(plain_text) - 1; s++) {
		if (*s != ',')
			plain_text[n++] = *s;
		else if (!strchr(s, '.'))       /* 1,134.193 but 0,288 */
			plain_text[n++] = '.';
	}
	plain_text[n] = '\0';
	v = strtod(plain_text, NULL);
	if (!(v > 0))                   /* NaN too */
		return 0;
	return v > 31536000 ? INT64_C(31536000000000) : (int64_t)(v * 1e6 + 0.5);
}

/* A failure or its like: attributes, then text that begins with the message.
 * Renames types that make GitLab take the text for something else. */
static void
add_result(struct buf *to, enum kind kind, const char *attrs, const char *message,
	const char *text)
{
	bool said = !*message || !strncmp(text, message, strlen(message));

	buf_fmt(to, "   <%s%s>", kind_name[kind], attrs);
	if (kind == K_RERUN || kind >= K_RERUN_ERROR || kind == K_FLAKY)
		buf_str(to, text);
	else
		buf_fmt(to, "%s%s%s", said ? "" : message, said || !*text ? "" : "\n",
			*text ? text : *message ? "" : kind == K_SKIPPED ? "" : kind_name[kind]);
	buf_fmt(to, "</%s>\n", kind_name[kind]);
}

/* Attributes of a failure, as text; type is always there. */
static void
result_attrs(struct buf *b, const struct reader *r)
{
	static const char *const taken[] = { "yaml", "symbol", "array", "file" };
	const char *s = r->attrs.b.s, *value;
	size_t i, k;

	b->n = 0;
	for (i = 0; i < r->nattrs; i++, s = value + strlen(value) + 1) {
		value = s + strlen(s) + 1;
		if (strchr(s, ':') || !strncmp(s, "xmlns", 5))
			continue;
		for (k = 0; !strcmp(s, "type") && k < LEN(taken); k++)
			if (!strcmp(value, taken[k]))
				break;
		buf_fmt(b, " %s=\"%s", s, !strcmp(s, "type") && k < LEN(taken) ? "type " : "");
		add_escaped(b, value, true);
		buf_char(b, '"');
	}
	buf_add(b, "", 0);
}

/* [[ATTACHMENT|x]] is relative to its report; ours lies elsewhere. */
static void
add_attachments(struct buf *to, const char *report, const struct buf *text)
{
	static const char mark[] = "[[ATTACHMENT|";
	const char *s = text->s, *hit, *slash = report ? strrchr(report, '/') : NULL;
	char cwd[PATH_MAX];
	size_t n;

	if (!getcwd(cwd, sizeof(cwd)))
		*cwd = '\0';
	n = strlen(cwd);
	while (slash && (hit = strstr(s, mark))) {
		hit += sizeof(mark) - 1;
		buf_add(to, s, (size_t)(hit - s));
		if (*hit != '/') {
			if (!strncmp(report, cwd, n) && report[n] == '/' && report + n < slash)
				buf_add(to, report + n + 1, (size_t)(slash - report) - n);
			else if (strncmp(report, cwd, n) || report[n] != '/')
				buf_add(to, report, (size_t)(slash - report) + 1);
		}
		s = hit;
	}
	buf_add(to, s, text->n - (size_t)(s - text->s));
}

/* Hangs the failures of other attempts on the case: it passed, so they were
 * flaky; or it failed, so they were reruns. */
static void
add_retries(struct merger *m)
{
	bool bad = m->child[K_FAILURE].n || m->child[K_ERROR].n;
	struct retry *t;
	struct buf text = { 0 };
	enum kind kind;
	size_t i;

	for (i = 0; i < m->nretries; i++) {
		t = &m->retries[i];
		if (t->used || strcmp(t->name, m->name.s) || strcmp(t->classname, m->classname.s))
			continue;
		t->used = true;
		kind = bad ? t->error ? K_RERUN_ERROR : K_RERUN
			: t->error ? K_FLAKY_ERROR : K_FLAKY;
		text.n = 0;
		buf_fmt(&text, "<stackTrace>%s</stackTrace>", t->text);
		add_result(&m->child[kind], kind, t->attrs, "", text.s);
	}
	buf_free(&text);
}

static void
note_failure(struct merger *m, const char *message)
{
	buf_str(m->notes, "x ");
	buf_safe(m->notes, m->classname.s, m->classname.n);
	buf_char(m->notes, '\t');
	buf_safe(m->notes, m->name.s, m->name.n);
	buf_char(m->notes, '\t');
	buf_safe(m->notes, m->file.s, m->file.n);
	buf_fmt(m->notes, "\t%s\t", m->line.s[strspn(m->line.s, "0123456789")] ? ""
		: m->line.s);
	message += strspn(message, " \n");
	buf_safe(m->notes, message, strcspn(message, "\n"));
	buf_char(m->notes, '\n');
}

/* The case is over: counts it, and writes or collects it. */
static void
end_case(struct merger *m)
{
	struct buf *c = m->child;
	struct retry *t;
	bool bad;
	int k;

	m->in_case = false;
	bad = c[K_FAILURE].n || c[K_ERROR].n;
	if (m->not_run && !bad && !c[K_SKIPPED].n)
		add_result(&c[K_SKIPPED], K_SKIPPED, "", "", "");
	m->not_run = false;
	if (m->collect) {
		if (bad) {
			m->retries = grow(m->retries, &m->capretries, m->nretries + 1,
				sizeof(*m->retries));
			t = &m->retries[m->nretries++];
			t->classname = xstrdup(m->classname.s);
			t->name = xstrdup(m->name.s);
			t->attrs = xstrdup(m->outer_attrs.s);
			t->text = xstrdup(m->outer.b.s);
			t->error = !c[K_FAILURE].n;
			t->used = false;
		}
	} else {
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
		add_attribute(&m->out, "name", m->name.s);
		add_attribute(&m->out, "classname", m->classname.s);
		buf_fmt(&m->out, " time=\"%" PRId64 ".%06" PRId64 "\"", m->case_us / 1000000,
			m->case_us % 1000000);
		buf_add(&m->out, m->attrs.s, m->attrs.n);
		buf_char(&m->out, '>');
		if (c[K_PROPS].n)
			buf_fmt(&m->out, "<properties>\n%s</properties>", c[K_PROPS].s);
		for (k = K_FAILURE; k <= K_FLAKY_ERROR; k++)
			buf_add(&m->out, c[k].s, c[k].n);
		for (k = K_OUT; k <= K_ERR; k++) {
			if (!c[k].n)
				continue;
			buf_fmt(&m->out, "<%s>", kind_name[k]);
			add_attachments(&m->out, m->report, &c[k]);
			buf_fmt(&m->out, "</%s>", kind_name[k]);
		}
		buf_str(&m->out, "</testcase>\n");
		if (m->out.n > WINDOW)
			out_flush(m);
	}
	for (k = 0; k <= K_ERR; k++)
		c[k].n = 0;
}

static void
begin_case(struct merger *m, const struct reader *r)
{
	static const char *const ours[] = { "name", "classname", "time", "type" };
	const char *s = r->attrs.b.s, *value, *file = m->part->file ? m->part->file : m->report;
	size_t i, k;

	m->in_case = true;
	m->name.n = m->classname.n = m->attrs.n = 0;
	value = attr(r, "name");
	buf_str(&m->name, value && *value ? value : "(unnamed)");
	value = attr(r, "classname");
	buf_str(&m->classname, value && *value ? value : m->path.n ? m->path.s : file);
	m->case_us = microseconds(attr(r, "time"));
	for (i = 0; i < r->nattrs; i++, s = value + strlen(value) + 1) {
		value = s + strlen(s) + 1;
		for (k = 0; k < LEN(ours) && strcmp(s, ours[k]); k++)
			;
		if (k == LEN(ours) && !strchr(s, ':') && strncmp(s, "xmlns", 5))
			add_attribute(&m->attrs, s, value);
	}
	if (!attr(r, "file") && m->part->file)
		add_attribute(&m->attrs, "file", m->part->file);
	m->file.n = m->line.n = 0;
	buf_str(&m->file, attr(r, "file") ? attr(r, "file") : "");
	buf_str(&m->line, attr(r, "line") ? attr(r, "line") : "");
	value = attr(r, "status");
	s = attr(r, "result");
	m->not_run = (value && (!strcmp(value, "disabled") || !strcmp(value, "notrun")))
		|| (s && !strcmp(s, "suppressed"));
}

/* Begins a case that stands in no report. */
static void
name_case(struct merger *m, const char *name)
{
	m->name.n = m->classname.n = m->attrs.n = m->file.n = m->line.n = 0;
	buf_str(&m->name, name);
	buf_str(&m->classname, m->path.n ? m->path.s : m->part->file ? m->part->file
		: m->report);
	if (m->part->file)
		add_attribute(&m->attrs, "file", m->part->file);
	buf_str(&m->file, m->part->file ? m->part->file : "");
	buf_str(&m->line, "");
	m->case_us = 0;
}

/* A case of our own; kind K_OTHER: it passed. */
static void
add_case(struct merger *m, const char *name, enum kind kind, const char *type,
	const char *message, const char *text, int64_t us)
{
	struct buf safe = { 0 }, attrs = { 0 }, head = { 0 }, body = { 0 };

	name_case(m, name);
	m->case_us = us;
	if (kind != K_OTHER) {
		buf_safe(&safe, message, strlen(message));
		add_attribute(&attrs, "message", safe.s ? safe.s : "");
		add_attribute(&attrs, "type", type);
		add_escaped(&head, safe.s ? safe.s : "", false);
		add_escaped(&body, text, false);
		if (m->notes)
			note_failure(m, message);
		add_result(&m->child[kind], kind, attrs.s, head.s ? head.s : "",
			body.s ? body.s : "");
	}
	end_case(m);
	buf_free(&safe);
	buf_free(&attrs);
	buf_free(&head);
	buf_free(&body);
}

/* ---- from events to cases ---- */

static enum kind
kind_of(const char *name)
{
	int k;

	for (k = 0; k < K_OTHER; k++)
		if (!strcmp(kind_name[k], name))
			break;
	return (enum kind)k;
}

static void
push_suite(struct merger *m, const struct reader *r)
{
	static const char *const ours[] = { "name", "id", "tests", "failures", "errors",
		"skipped", "disabled", "time" };
	const char *s = r->attrs.b.s, *value, *name = attr(r, "name");
	size_t i, k;

	close_suite(m);
	/* A name that is joined 20,000 times would be read by nobody. */
	if (name && *name && m->path.n < 1000) {
		if (m->path.n)
			buf_char(&m->path, '/');
		buf_str(&m->path, name);
	}
	for (i = 0; i < r->nattrs; i++, s = value + strlen(value) + 1) {
		value = s + strlen(s) + 1;
		for (k = 0; k < LEN(ours) && strcmp(s, ours[k]); k++)
			;
		if (k == LEN(ours) && !strchr(s, ':') && strncmp(s, "xmlns", 5))
			add_attribute(&m->heads, s, value);
	}
	buf_add(&m->heads, "", 0);
}

/* A failure or its like is over. */
static void
end_result(struct merger *m)
{
	enum kind kind = m->outer_kind;
	bool in_suite = !m->in_case, bad = kind == K_FAILURE || kind == K_ERROR;
	struct buf text = { 0 };

	m->outer_kind = K_OTHER;
	sink_end(&m->outer);
	if (in_suite && !bad)
		return;
	if (in_suite)           /* an error of the suite's own */
		name_case(m, "[suite error]");
	if (bad && m->notes && !m->child[K_FAILURE].n && !m->child[K_ERROR].n)
		note_failure(m, m->message.n ? m->message.s : m->outer.b.s);
	if (bad || kind == K_SKIPPED) {
		add_result(&m->child[kind], kind, m->outer_attrs.s, m->message.s, m->outer.b.s);
	} else {
		if (!m->nested.n || !strstr(m->nested.s, "<stackTrace>"))
			buf_fmt(&text, "<stackTrace>%s</stackTrace>", m->outer.b.s);
		buf_add(&text, m->nested.s, m->nested.n);
		add_result(&m->child[kind], kind, m->outer_attrs.s, "", text.s);
		buf_free(&text);
	}
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
		buf_fmt(&m->nested, "<%s>%s</%s>", kind_name[kind], m->inner.b.s, kind_name[kind]);
		return;
	}
	if (kind == K_PROP) {
		to = m->in_case ? &m->child[K_PROPS] : &m->props;
		buf_str(to, "<property");
		buf_add(to, m->property.s, m->property.n);
		buf_fmt(to, " value=\"%s\"/>\n", m->inner.b.s);
		return;
	}
	to = m->in_case ? &m->child[kind] : kind == K_OUT ? &m->suite_out : &m->suite_err;
	if (to->n && m->inner.b.n)
		buf_char(to, '\n');
	if ((int64_t)to->n < m->o->limit)
		buf_add(to, m->inner.b.s, m->inner.b.n);
}

/* What a start tag is where it stands; K_OTHER: nothing to us. */
static enum kind
kind_here(const struct merger *m, const char *name)
{
	enum kind kind = kind_of(name);
	bool verdict = m->outer_kind == K_FAILURE || m->outer_kind == K_ERROR
		|| m->outer_kind == K_SKIPPED;

	if (m->inner_kind != K_OTHER)
		return K_OTHER;
	if (m->outer_kind != K_OTHER)   /* only reruns carry anything but text */
		return !verdict && (kind == K_STACK || kind == K_OUT || kind == K_ERR)
			? kind : K_OTHER;
	if (kind == K_STACK || (kind != K_SUITE && kind != K_SUITES && !m->nframes))
		return K_OTHER;
	return kind;
}

static void
start_tag(struct merger *m, const struct reader *r)
{
	struct frame f = { kind_here(m, r->name), m->path.n, m->heads.n };
	const char *message = attr(r, "message"), *name = attr(r, "name");
	const char *value = attr(r, "value");

	switch (f.kind) {
	case K_SUITE:
		push_suite(m, r);
		break;
	case K_CASE:
		begin_case(m, r);
		break;
	case K_PROP:
		m->property.n = 0;
		add_attribute(&m->property, "name", name ? name : "");
		m->inner_kind = value ? K_OTHER : K_PROP;       /* its text is the value */
		f.kind = m->inner_kind;
		sink_begin(&m->inner, m->o->limit, true);
		if (value)
			add_property(m->in_case ? &m->child[K_PROPS] : &m->props,
				name ? name : "", value);
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
		/* When only counting, it is for the screen. */
		sink_begin(&m->outer, m->o->limit, !m->notes);
		result_attrs(&m->outer_attrs, r);
		m->nested.n = m->message.n = 0;
		if (m->notes)
			buf_str(&m->message, message ? message : "");
		else
			add_escaped(&m->message, message ? message : "", false);
		buf_add(&m->message, "", 0);
	}
	m->frames = grow(m->frames, &m->capframes, m->nframes + 1, sizeof(*m->frames));
	m->frames[m->nframes++] = f;
	m->nkind[f.kind]++;
}

/* Ends the innermost element; forced: its end tag never came. */
static void
pop(struct merger *m, bool forced)
{
	struct frame f = m->frames[m->nframes - 1];

	if (f.kind == K_CASE) {
		if (forced && !m->child[K_FAILURE].n && !m->child[K_ERROR].n)
			add_result(&m->child[K_ERROR], K_ERROR,
				" message=\"the report ends in this case\" type=\"prun.report\"",
				"the report ends in this case", "");
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
	if (f.kind == K_SUITE) {
		m->path.n = f.path;
		m->heads.n = f.head;
		buf_add(&m->path, "", 0);
		buf_add(&m->heads, "", 0);
	}
}

static void
end_tag(struct merger *m, struct reader *r)
{
	enum kind kind = kind_of(r->name);
	enum kind top = m->nframes ? m->frames[m->nframes - 1].kind : KINDS;

	if (top == kind || top == K_OTHER) {
		pop(m, false);
		return;
	}
	breaks(r, "has an end tag that nothing began");
	if (!m->nkind[kind])
		return;
	while (m->frames[m->nframes - 1].kind != kind)
		pop(m, true);
	pop(m, false);
}

/* Reads one report; false when it is broken, which stands in why. */
static bool
read_report(struct merger *m, const char *path, struct buf *why)
{
	struct reader r;
	enum event e;
	bool seen = false;

	m->report = path;
	why->n = 0;
	if (open_reader(&r, path, m->o->limit) < 0) {
		buf_fmt(why, "the report %s cannot be read: %s", path, strerror(errno));
		if (!m->collect)
			add_case(m, "[report]", K_ERROR, "prun.report", why->s, "", 0);
		return false;
	}
	for (;;) {
		r.top = m->nframes == 0;
		e = next(&r);
		if (e == START)
			start_tag(m, &r);
		else if (e == END)
			end_tag(m, &r);
		else if (e != EOD)
			read_text(&r, m->inner_kind != K_OTHER ? &m->inner
				: m->outer_kind != K_OTHER ? &m->outer : NULL, e);
		else
			break;
		seen = seen || e == START;
	}
	if (!seen && !r.at)
		breaks(&r, "is empty");
	else if (!seen)
		breaks(&r, "has no testsuite element");
	else if (m->nframes)
		breaks(&r, "ends too early");
	while (m->nframes)
		pop(m, true);
	if (r.broken)
		buf_fmt(why, "the report %s %s (byte %" PRId64 ")", path, r.broken, r.broken_at);
	if (r.broken && !m->collect)
		add_case(m, "[report]", K_ERROR, "prun.report", why->s, "", 0);
	close_suite(m);
	close_reader(&r);
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
	char *file;
	int i, n = 0, bad = 0;

	if (stat(path, &st) < 0)
		return 0;
	if (!S_ISDIR(st.st_mode))
		return read_report(m, path, why) ? 1 : -1;
	n = scandir(path, &e, is_xml, alphasort);
	for (i = 0; i < n; i++) {
		file = str("%s/%s", path, e[i]->d_name);
		bad |= !read_report(m, file, why);
		free(file);
		free(e[i]);
	}
	if (n >= 0)
		free(e);
	return bad ? -1 : n < 0 ? 0 : n;
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
	}
}

static void
free_merger(struct merger *m)
{
	struct buf *all[] = { &m->out, &m->path, &m->heads, &m->props, &m->suite_out,
		&m->suite_err, &m->classname, &m->name, &m->attrs, &m->outer_attrs, &m->message,
		&m->property, &m->nested, &m->file, &m->line, &m->outer.b, &m->inner.b };
	size_t i;

	for (i = 0; i < LEN(all); i++)
		buf_free(all[i]);
	for (i = 0; i <= K_ERR; i++)
		buf_free(&m->child[i]);
	free_retries(m);
	free(m->retries);
	free(m->frames);
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
	buf_add(&m->heads, "", 0);
	buf_add(&m->outer_attrs, "", 0);
}

int
junit_count(const char *path, const char *file, struct counts *c, struct buf *notes,
	struct buf *why)
{
	static const struct part none;
	struct part part = none;
	struct merge o = { 0 };
	struct merger m;
	int n;

	part.file = file;
	o.limit = 1 << 20;
	init_merger(&m, &o, &part, -1);
	m.notes = notes;
	n = read_reports(&m, path, why);
	*c = m.sum;
	free_merger(&m);
	return n;
}

/* The case that stands for what no report tells: name by cause. */
static const struct {
	const char *name;
	enum kind kind;
} synthetic[CAUSES] = {
	[CAUSE_NONE] = { "[exit]", K_OTHER }, [CAUSE_EXIT] = { "[exit]", K_FAILURE },
	[CAUSE_SIGNAL] = { "[signal]", K_ERROR }, [CAUSE_TIMEOUT] = { "[timeout]", K_ERROR },
	[CAUSE_LEAK] = { "[leak]", K_ERROR }, [CAUSE_OUTPUT_LIMIT] = { "[output]", K_ERROR },
	[CAUSE_SERVER_DIED] = { "[server]", K_ERROR },
	[CAUSE_SERVER_NOT_READY] = { "[server]", K_ERROR }, [CAUSE_PORT] = { "[port]", K_ERROR },
	[CAUSE_DATABASE] = { "[database]", K_ERROR }, [CAUSE_SPAWN] = { "[spawn]", K_ERROR },
	[CAUSE_WORKER_DIED] = { "[worker]", K_ERROR }, [CAUSE_REPORT] = { "[report]", K_ERROR },
	[CAUSE_CANCELLED] = { "[cancelled]", K_ERROR },
};

/* Squares the reports with the result: what it says and they do not. */
static void
synthesise(struct merger *m, int reports)
{
	const struct part *p = m->part;
	struct buf tail = { 0 };
	const char *why = p->why ? p->why : cause_name[p->cause];
	bool said = (p->cause == CAUSE_EXIT && m->sum.failures)
		|| (p->cause == CAUSE_NONE && (reports || p->result == NONE))
		|| (p->cause == CAUSE_REPORT && reports < 0);

	if (!said && p->result != NONE) {
		if (p->logs.n)
			buf_tail(&tail, p->logs.v[p->logs.n - 1], 50);
		if (p->result == SKIP)
			add_case(m, "[exit]", K_SKIPPED, "prun.skip", "exit status 77", "", p->ms * 1000);
		else
			add_case(m, synthetic[p->cause].name, synthetic[p->cause].kind,
				cause_name[p->cause], why, tail.s ? tail.s : "", p->ms * 1000);
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
	char *message = str("attempt %zu failed", attempt + 1);
	struct buf tail = { 0 };

	if (attempt < m->part->logs.n)
		buf_tail(&tail, m->part->logs.v[attempt], 50);
	sink_begin(&m->outer, m->o->limit, true);
	put_text(&m->outer, tail.s ? tail.s : "", tail.n, true);
	sink_end(&m->outer);
	m->outer_attrs.n = 0;
	add_attribute(&m->outer_attrs, "message", message);
	add_attribute(&m->outer_attrs, "type", "prun.exit");
	name_case(m, "[exit]");
	buf_str(&m->child[K_FAILURE], message);
	end_case(m);
	free(message);
	buf_free(&tail);
}

/* Cases that failed in another attempt and are not in the base. */
static void
add_unmatched(struct merger *m)
{
	size_t i;

	for (i = 0; i < m->nretries; i++) {
		struct retry *t = &m->retries[i];

		if (t->used)
			continue;
		name_case(m, t->name);
		m->classname.n = 0;
		buf_str(&m->classname, t->classname);
		if (m->part->result >= FAIL) {
			t->used = true;
			add_result(&m->child[t->error ? K_ERROR : K_FAILURE], t->error ? K_ERROR
				: K_FAILURE, t->attrs, "", t->text);
		}
		end_case(m);
	}
}

static void
merge_part(struct merger *m, const struct part *p)
{
	struct buf why = { 0 };
	size_t i, before, base = p->result < FAIL && p->reports.n ? p->reports.n - 1 : 0;
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
	if (p->reports.n)
		reports = read_reports(m, p->reports.v[base], &why);
	if (p->synthetic)
		synthesise(m, reports);
	add_unmatched(m);
	close_suite(m);
	free_retries(m);
	buf_free(&why);
}

int
junit_merge(const struct merge *o, const struct part *parts, size_t n, const char *out,
	struct counts *total)
{
	bool spool = !strcmp(out, "-");
	char *aside = spool ? NULL : str("%s.%ld", out, (long)getpid());
	FILE *f = spool ? tmpfile() : NULL;
	struct merger m;
	char chunk[8192];
	ssize_t got;
	size_t i;
	int fd = spool ? f ? fileno(f) : -1
		: open(aside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	init_merger(&m, o, NULL, fd);
	m.error = fd < 0 ? errno : 0;
	buf_str(&m.out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites");
	add_attribute(&m.out, "name", o->name);
	m.root_at = leave_room(&m);
	buf_str(&m.out, ">\n");
	for (i = 0; i < n; i++)
		merge_part(&m, &parts[i]);
	buf_str(&m.out, "</testsuites>\n");
	out_flush(&m);
	fill_room(&m, m.root_at, &m.total, o->ms < 0 ? m.total_us : o->ms * 1000);
	*total = m.total;
	free_merger(&m);
	if (spool && !m.error && lseek(fd, 0, SEEK_SET) == 0) {
		while ((got = read(fd, chunk, sizeof(chunk))) > 0)
			if (write_all(1, chunk, (size_t)got) < 0)
				break;
		m.error = got ? errno : 0;
	}
	if (f)
		fclose(f);
	else if (fd >= 0 && close(fd) < 0 && !m.error)
		m.error = errno;
	if (!spool && !m.error && rename(aside, out) < 0)
		m.error = errno;
	if (m.error && !spool)
		unlink(aside);
	free(aside);
	errno = m.error;
	return m.error ? -1 : 0;
}

/* ---- TAP ---- */

struct tap {
	const char *name;
	struct buf cases, text; /* text: of the case under way */
	char *title;            /* of that case, NULL: none */
	bool bad, skip;
	char *reason;
	int64_t tests, failures, skipped, planned, seen;
	bool is_tap;
	char *bail;
};

static void
tap_case(struct tap *t)
{
	struct sink text;

	if (!t->title)
		return;
	memset(&text, 0, sizeof(text));
	sink_begin(&text, 1 << 20, true);
	put_text(&text, t->text.s ? t->text.s : "", t->text.n, true);
	sink_end(&text);
	buf_str(&t->cases, "<testcase");
	add_attribute(&t->cases, "name", t->title);
	add_attribute(&t->cases, "classname", t->name);
	buf_char(&t->cases, '>');
	if (t->bad) {
		buf_str(&t->cases, "<failure");
		add_attribute(&t->cases, "message", "not ok");
		buf_fmt(&t->cases, ">%s</failure>", text.b.s);
	} else if (t->skip) {
		buf_str(&t->cases, "<skipped");
		add_attribute(&t->cases, "message", t->reason ? t->reason : "");
		buf_str(&t->cases, "/>");
	}
	buf_str(&t->cases, "</testcase>\n");
	free(t->title);
	free(t->reason);
	t->title = t->reason = NULL;
	t->text.n = 0;
	buf_free(&text.b);
}

static char *
clean(const char *s, size_t n)
{
	struct buf b = { 0 };

	while (n && is_space(s[n - 1]))
		n--;
	buf_safe(&b, s, n);
	buf_add(&b, "", 0);
	return b.s;
}

/* "ok 3 - name # SKIP why" or "not ok ...", behind its ok. */
static void
tap_result(struct tap *t, const char *s, bool ok)
{
	const char *mark;
	size_t n;
	bool todo = false;

	tap_case(t);
	s += strspn(s, " ");
	s += strspn(s, "0123456789");
	s += strspn(s, " ");
	s += *s == '-' ? 1 + strspn(s + 1, " ") : 0;
	for (mark = s; (mark = strchr(mark, '#')); mark++) {
		const char *word = mark + 1 + strspn(mark + 1, " ");

		if ((mark > s && mark[-1] == '\\'))
			continue;
		t->skip = !strncasecmp(word, "skip", 4);
		todo = !strncasecmp(word, "todo", 4);
		if (t->skip || todo) {
			word += strcspn(word, " ");
			word += strspn(word, " ");
			t->reason = clean(word, strlen(word));
			break;
		}
	}
	n = mark ? (size_t)(mark - s) : strlen(s);
	t->title = clean(s, n);
	t->seen++;
	if (!*t->title) {
		free(t->title);
		t->title = str(t->planned ? "test %" PRId64 : "[plan]", t->seen);
	}
	t->bad = !ok && !todo && !t->skip;
	t->skip = mark && !todo && t->skip;
}

static void
tap_line(struct tap *t, const char *line)
{
	char *end;

	if (!strncmp(line, "TAP version ", 12)) {
		t->is_tap = true;
	} else if (!strncmp(line, "1..", 3) && line[3] >= '0' && line[3] <= '9') {
		t->is_tap = true;
		t->planned = strtoll(line + 3, &end, 10);
		if (!t->planned && strchr(end, '#')) {  /* 1..0 # SKIP why */
			tap_result(t, strchr(end, '#'), true);
			t->seen = 0;
		}
	} else if (!strncmp(line, "ok", 2) && (!line[2] || is_space(line[2]))) {
		tap_result(t, line + 2, true);
	} else if (!strncmp(line, "not ok", 6) && (!line[6] || is_space(line[6]))) {
		tap_result(t, line + 6, false);
	} else if (!strncmp(line, "Bail out!", 9)) {
		t->bail = clean(line, strlen(line));
	} else if (t->title) {
		buf_str(&t->text, line);
		buf_char(&t->text, '\n');
	}
}

int
junit_tap(const char *log, const char *path, const char *name)
{
	FILE *f = fopen(log, "r");
	struct tap t = { 0 };
	struct buf all = { 0 };
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int r = 0;

	if (!f)
		return 0;
	t.name = name;
	t.planned = -1;
	while ((n = getline(&line, &cap, f)) >= 0) {
		while (n && is_space(line[n - 1]))
			line[--n] = '\0';
		tap_line(&t, line);
	}
	tap_case(&t);
	if (t.is_tap && (t.bail || (t.planned >= 0 && t.planned != t.seen)
	|| (t.planned < 0 && !t.seen))) {
		buf_str(&t.cases, "<testcase name=\"[plan]\"><error");
		buf_fmt(&all, "%" PRId64 " tests were planned, %" PRId64 " were run", t.planned,
			t.seen);
		add_attribute(&t.cases, "message", t.bail ? t.bail : t.planned < 0
			? "there is neither a plan nor a test" : all.s);
		buf_str(&t.cases, "/></testcase>\n");
	}
	if (t.is_tap) {
		all.n = 0;
		buf_str(&all, "<testsuite");
		add_attribute(&all, "name", name);
		buf_str(&all, ">\n");
		buf_add(&all, t.cases.s, t.cases.n);
		buf_str(&all, "</testsuite>\n");
		r = file_write(path, all.s, all.n, 0666) < 0 ? -1 : 1;
	}
	fclose(f);
	free(line);
	free(t.bail);
	buf_free(&t.cases);
	buf_free(&t.text);
	buf_free(&all);
	return r;
}
