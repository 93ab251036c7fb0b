/*
 * junit.c: reads reports as tools write them, writes one that all can read.
 *
 * The reader pulls: next() gives a start tag, an end tag or text, out of a window of
 * the file that slides along.  It is iterative and forgiving: no entity is expanded,
 * nothing is fetched, an unknown byte becomes \xNN.  What is not well-formed is read as
 * far as it goes; then the report gets a case [report] that says where it broke.
 *
 * The merger keeps one test case in memory, its children sorted into buffers as the
 * dialect orders them, and streams it out when it ends.  A start tag leaves room for
 * totals, which are written there when the suite is over.  Nested suites become suites
 * of their own, named outer/inner.
 *
 * Of a file with several attempts one report is the base (the last when it ended well,
 * else the first); the failures of the others are collected first and stand in the
 * base's cases as flaky or rerun elements.
 */
#include "prun.h"
#include <dirent.h>
#include <strings.h>

#define WINDOW 65536
#define HELD 32         /* bytes held back, so that no reference is cut */
#define TOTALS 150      /* columns kept free in a start tag */

/* ---- text: whatever comes in, clean UTF-8 goes out ---- */

/* Where text goes: cleaned, escaped if wanted, at most limit bytes of it. */
struct sink {
	struct buf b;
	int64_t limit, used, cut;
	bool escape;            /* < > & CR as references */
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

/* One character, valid UTF-8, that the fast path has not taken; n 0: a wild byte. */
static void
emit_char(struct sink *t, const char *s, size_t n)
{
	unsigned char c = (unsigned char)*s;
	char hex[8];

	if (n == 0 || c == 0 || (c < ' ' && !strchr("\t\n\r", c))) {
		snprintf(hex, sizeof(hex), "\\x%02x", c);
		emit(t, hex, 4);
	} else if (n == 3 && !memcmp(s, "\xef\xbf", 2) && (unsigned char)s[2] >= 0xbe) {
		emit(t, "\xef\xbf\xbd", 3);     /* U+FFFE, U+FFFF: no XML */
	} else if (t->escape && strchr("<>&\r", c)) {
		emit(t, c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : "&#13;",
			c == '<' || c == '>' ? 4 : 5);
	} else {
		emit(t, s, n);
	}
}

/* A terminal's escape sequence, whole, vanishes: CSI, ESC [ ... final, or OSC, ESC ] ...
 * BEL or ESC \.  What only looks like one is text. */
static void
put_char(struct sink *t, const char *s, size_t n)
{
	unsigned char c = (unsigned char)*s;
	bool csi = t->npending > 1 && t->pending[1] == '[';
	size_t i, held = t->npending;

	if (!held && c != 27) {
		emit_char(t, s, n);
		return;
	}
	if (held == 0 || (held == 1 && (c == '[' || c == ']')) || (held > 1 && n == 1
	&& held < sizeof(t->pending) && (csi ? c >= ' ' && c < 0x7f
	: c >= ' ' || c == 7 || c == 27))) {
		t->pending[t->npending++] = (char)c;
		if (held > 1 && (csi ? c >= '@' : c == 7 || (c == '\\'
		&& t->pending[held - 1] == 27)))
			t->npending = 0;
		return;
	}
	t->npending = 0;
	for (i = 0; i < held; i++)
		emit_char(t, t->pending + i, 1);
	put_char(t, s, n);      /* once at most: nothing is pending now */
}

static size_t
encode(char *s, unsigned long c)
{
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4, i;

	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return encode(s, 0xfffd);
	for (i = n - 1; i > 0; i--, c >>= 6)
		s[i] = (char)(0x80 | (c & 63));
	s[0] = (char)(n == 1 ? c : (0xf00 >> n & 0xff) | c);
	return n;
}

/* A reference at s, of at most n bytes; how many it took, 0: it is none. */
static size_t
put_reference(struct sink *t, const char *s, size_t n)
{
	static const char *const named[] = { "&lt;<", "&gt;>", "&amp;&", "&quot;\"", "&apos;'" };
	unsigned long code = 0;
	size_t i, k, base = n > 2 && s[2] == 'x' ? 16 : 10, digit;
	char utf8[4];

	for (k = 0; k < LEN(named); k++) {
		i = strlen(named[k]) - 1;
		if (i <= n && !memcmp(s, named[k], i)) {
			put_char(t, named[k] + i, 1);
			return i;
		}
	}
	if (n < 4 || s[1] != '#')
		return 0;
	for (i = k = base == 16 ? 3 : 2; i < n && s[i] != ';'; i++) {
		digit = s[i] >= '0' && s[i] <= '9' ? (size_t)(s[i] - '0')
			: (s[i] | 32) >= 'a' && (s[i] | 32) <= 'f' ? (size_t)(s[i] | 32) - 'a' + 10 : 16;
		if (digit >= base)
			return 0;
		code = code < 0x200000 ? code * base + digit : code;
	}
	if (i == n || i == k)
		return 0;
	put_char(t, utf8, encode(utf8, code));
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

	/* Eight at a time.  A byte is hit when it is above 0x7f, below 0x20 or one of
	 * three; a borrow may hit one too many, which the second loop sorts out. */
	for (; i + 8 <= n; i += 8) {
		memcpy(&v, s + i, 8);
		hit = v | (v - ones * 0x20) | ((v ^ ones * '<') - ones) | ((v ^ ones * '>') - ones)
			| ((v ^ ones * '&') - ones);
		if (hit & ones * 0x80)
			break;
	}
	for (; i < n; i++) {
		c = (unsigned char)s[i];
		if ((c < ' ' && c != '\n' && c != '\t') || c >= 0x80 || c == '<' || c == '>' || c == '&')
			break;
	}
	return i;
}

/* Takes n bytes as they stand in a file, which end in the middle of nothing; raw: & is
 * no reference (CDATA). */
static void
put_text(struct sink *t, const char *s, size_t n, bool raw)
{
	size_t i, k;

	for (i = 0; i < n; i += k) {
		if (!t->npending && (k = plain(s + i, n - i))) {
			if (t->used + (int64_t)k > t->limit) {
				t->cut += t->used + (int64_t)k - t->limit;
				emit(t, s + i, (size_t)(t->limit - t->used));
			} else {
				emit(t, s + i, k);
			}
		} else if (s[i] == '\r') {      /* as XML reads line ends */
			k = 1 + (i + 1 < n && s[i + 1] == '\n');
			put_char(t, "\n", 1);
		} else if (s[i] != '&' || raw || !(k = put_reference(t, s + i, n - i))) {
			k = utf8_len(s + i, n - i);
			put_char(t, s + i, k);
			k += k == 0;
		}
	}
}

static void
sink_end(struct sink *t)
{
	size_t i;

	for (i = 0; i < t->npending; i++)
		emit_char(t, t->pending + i, 1);
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
		if (s[n])
			buf_str(b, as[strchr(special, s[n++]) - special]);
	}
	buf_add(b, "", 0);
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
	bool eof, top;          /* top: outside of all that we know */
	bool ends;              /* an empty tag's END is due */
	int64_t limit, at;      /* at: bytes read */
	char name[64];          /* of the tag, without its prefix */
	size_t nattrs, nrest;
	struct buf attrs;       /* name NUL value NUL ... */
	struct sink value;
	const char *broken;     /* the first thing that was wrong, or NULL */
	int64_t broken_at;
	char *s, *end;          /* what is left of the window */
	unsigned char rest[4];  /* of a character cut by a read */
	char window[WINDOW];
};

/* Converts n bytes of another charset into at most three times as many. */
static size_t
convert(struct reader *r, const unsigned char *in, size_t n, char *to)
{
	/* windows-1252's 0x80 to 0x9f, which Latin-1 reports mean as well */
	static const unsigned short cp1252[32] = {
		0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160,
		0x2039, 0x152, 0x8d, 0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
		0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178
	};
	size_t i = 0, made = 0, wide = r->charset == LATIN1 ? 1 : 2, hi = r->charset == UTF16LE;
	unsigned long c, low;

	for (; i + wide <= n; i += wide) {
		c = wide == 1 ? in[i] : (unsigned long)in[i + hi] << 8 | in[i + !hi];
		if (wide == 1 && c >= 0x80 && c < 0xa0)
			c = cp1252[c - 0x80];
		if (c >= 0xd800 && c < 0xdc00) {
			if (i + 3 >= n && !r->eof)
				break;
			low = i + 3 < n ? (unsigned long)in[i + 2 + hi] << 8 | in[i + 2 + !hi] : 0;
			if (low >= 0xdc00 && low < 0xe000) {
				c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
				i += 2;
			}
		}
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
	unsigned char raw[WINDOW / 4];
	size_t left = (size_t)(r->end - r->s), room = WINDOW - left;
	ssize_t n;

	if (r->eof || room < WINDOW / 4)
		return false;
	memmove(r->window, r->s, left);
	r->s = r->window;
	r->end = r->window + left;
	if (r->charset != RAW) {
		memcpy(raw, r->rest, r->nrest);
		room = room / 3 < sizeof(raw) ? room / 3 : sizeof(raw);
		room -= r->nrest;
	}
	do
		n = read(r->fd, r->charset == RAW ? r->end : (char *)raw + r->nrest, room);
	while (n < 0 && errno == EINTR);
	if (n < 0 && !r->broken)
		r->broken = "cannot be read";
	r->eof = n <= 0;
	n = n > 0 ? n : 0;
	r->at += n;
	r->end += r->charset == RAW ? (size_t)n : convert(r, raw, r->nrest + (size_t)n, r->end);
	return !r->eof;
}

static int
open_reader(struct reader *r, const char *path, int64_t limit)
{
	static const char *const latin[] = {
		"iso-8859-1", "iso_8859-1", "latin1", "latin-1", "windows-1252", "cp1252"
	};
	char head[200], *s;
	size_t i, n;

	memset(r, 0, offsetof(struct reader, window));
	r->limit = limit;
	r->s = r->end = r->window;
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0)
		return -1;
	fill(r);
	n = (size_t)(r->end - r->s);
	if (n >= 3 && !memcmp(r->s, "\xef\xbb\xbf", 3))
		r->s += 3;
	else if (n >= 2 && (!memcmp(r->s, "\xff\xfe", 2) || !memcmp(r->s, "<\0", 2)))
		r->charset = UTF16LE;
	else if (n >= 2 && (!memcmp(r->s, "\xfe\xff", 2) || !memcmp(r->s, "\0<", 2)))
		r->charset = UTF16BE;
	n = n < sizeof(head) - 1 ? n : sizeof(head) - 1;
	for (i = 0; i < n; i++)         /* a NUL ends it, which is well */
		head[i] = (char)(r->s[i] >= 'A' && r->s[i] <= 'Z' ? r->s[i] | 32 : r->s[i]);
	head[n] = '\0';
	s = strstr(head, "<?xml") ? strstr(strstr(head, "<?xml"), "encoding") : NULL;
	s = s ? s + 8 + strspn(s + 8, " =\"'") : NULL;
	for (i = 0; s && r->charset == RAW && i < LEN(latin); i++)
		if (!strncmp(s, latin[i], strlen(latin[i])))
			r->charset = LATIN1;
	if (r->charset != RAW) {        /* again, from the start */
		lseek(r->fd, (unsigned char)*r->s >= 0xfe ? 2 : 0, SEEK_SET);
		r->s = r->end = r->window;
		r->eof = false;
		fill(r);
	}
	return 0;
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
	char *hit;

	for (; peek(r) >= 0; r->s++) {
		hit = memchr(r->s, *word, (size_t)(r->end - r->s));
		r->s = hit ? hit : r->end - 1;
		if (ahead(r, word)) {
			r->s += strlen(word);
			return true;
		}
	}
	return false;
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
	while (is_space(peek(r)))
		r->s++;
}

/* Reads up to a byte of stop into t (NULL: nowhere), and leaves that byte. */
static void
read_until(struct reader *r, struct sink *t, int stop, bool raw)
{
	char *hit, *to, *p;
	int k;

	do {
		if (r->end - r->s <= HELD)
			fill(r);
		hit = memchr(r->s, stop, (size_t)(r->end - r->s));
		to = hit ? hit : r->end;
		if (!hit && !r->eof && to - r->s > HELD) {
			/* Not in the middle of a reference, a character or CR LF. */
			for (p = to - 1; p > to - HELD && *p != '&'; p--)
				;
			to = *p == '&' ? p : to;
			for (k = 0; k < 3 && ((unsigned char)to[-1] & 0xc0) == 0x80; k++)
				to--;
			to -= (unsigned char)to[-1] >= 0xc0;
			to -= to[-1] == '\r';
		}
		if (t)
			put_text(t, r->s, (size_t)(to - r->s), raw);
		r->s = to;
	} while (!hit && (!r->eof || r->s < r->end));
}

/* Reads name="value" into attrs; false at the end of the tag. */
static bool
read_attribute(struct reader *r)
{
	char name[256];
	const char *have;
	size_t n = 0, i;
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
			read_until(r, &r->value, quote, false);
			r->s += peek(r) == quote;
		} else {
			for (; (c = peek(r)) >= 0 && !is_space(c) && c != '>' && c != '<'
			&& !(c == '/' && ahead(r, "/>")); r->s++)
				put_text(&r->value, r->s, 1, true);
		}
	} else if (!n) {
		r->s++;                 /* a quote out of nowhere */
		breaks(r, "has a tag that cannot be read");
	}
	sink_end(&r->value);
	for (have = r->attrs.s, i = 0; i < r->nattrs * 2; i++, have += strlen(have) + 1)
		if (i % 2 == 0 && !strcmp(have, name))
			return true;    /* twice: the first one wins */
	/* A name that could not be written, or one of a namespace, is passed over. */
	for (i = 0; i < n && is_name(name[i]) && !((unsigned char)name[i] & 0x80) && name[i] != ':'; i++)
		;
	if (i == n && n && !strchr("-.0123456789", *name) && strncmp(name, "xmlns", 5)) {
		buf_add(&r->attrs, name, n + 1);
		buf_add(&r->attrs, r->value.b.s, r->value.b.n + 1);
		r->nattrs++;
	}
	return true;
}

/* Value of an attribute of the tag, or NULL. */
static const char *
attr(const struct reader *r, const char *name)
{
	const char *s = r->attrs.s;
	size_t i;

	for (i = 0; i < r->nattrs; i++, s += strlen(s) + 1) {
		if (!strcmp(s, name))
			return s + strlen(s) + 1;
		s += strlen(s) + 1;
	}
	return NULL;
}

/* Appends the tag's attributes, less those of the list skip: " name id ". */
static void
add_attributes(struct buf *b, const struct reader *r, const char *skip)
{
	const char *s = r->attrs.s, *value;
	char word[300];
	size_t i;

	for (i = 0; i < r->nattrs; i++, s = value + strlen(value) + 1) {
		value = s + strlen(s) + 1;
		snprintf(word, sizeof(word), " %s ", s);
		if (!strstr(skip, word))
			add_attribute(b, s, value);
	}
	buf_add(b, "", 0);
}

/* Whether the tag ahead is one with which a report can begin, or its end. */
static bool
begins(struct reader *r)
{
	const char *s, *colon;
	size_t n;

	ahead(r, "</a-namespace-prefix:testsuites");    /* fills the window */
	s = r->s + 1;
	s += s < r->end && *s == '/';
	for (n = 0; s + n < r->end && is_name(s[n]); n++)
		;
	colon = memchr(s, ':', n);
	n -= colon ? (size_t)(colon + 1 - s) : 0;
	s = colon ? colon + 1 : s;
	return (n == 9 || n == 10) && !memcmp(s, "testsuites", n);
}

/* A start or end tag at '<'; what comes of it. */
static enum event
read_tag(struct reader *r)
{
	bool end = r->s[1] == '/';
	size_t n = 0;
	int c;

	for (r->s += end ? 2 : 1; (c = peek(r)) >= 0 && is_name(c); r->s++)
		if (c == ':')           /* a prefix, bound or not */
			n = 0;
		else if (n < sizeof(r->name) - 1)
			r->name[n++] = (char)c;
	r->name[n] = '\0';
	r->nattrs = r->attrs.n = 0;
	if (end)
		skip_space(r);
	while (!end && read_attribute(r))
		;
	if (ahead(r, "/>") && !end) {
		r->s += 2;
		r->ends = true;
	} else if (peek(r) == '>') {
		r->s++;
	} else {
		breaks(r, peek(r) < 0 ? "ends in the middle of a tag" : "has a tag that does not end");
	}
	return end ? END : peek(r) < 0 && r->broken ? EOD : START;
}

/* What comes next; TEXT, or DATA in a CDATA section, is to be read by read_text(). */
static enum event
next(struct reader *r)
{
	if (r->ends) {
		r->ends = false;
		return END;
	}
	for (;;) {
		if (r->top)             /* log lines, blanks, another's tags */
			read_until(r, NULL, '<', true);
		if (peek(r) < 0)
			return EOD;
		if (*r->s != '<')
			return TEXT;
		if (ahead(r, "<!--")) {
			if (!skip_past(r, "-->"))
				breaks(r, "ends in a comment");
		} else if (ahead(r, "<![CDATA[") && !r->top) {
			r->s += 9;
			return DATA;
		} else if (ahead(r, "<?")) {
			skip_past(r, "?>");
		} else if (ahead(r, "<!DOCTYPE")) {
			skip_doctype(r);
		} else if (r->top ? begins(r) : r->end - r->s > 1 && (r->s[1] == '/'
		|| (is_name(r->s[1]) && !strchr("-.0123456789", r->s[1])))) {
			return read_tag(r);
		} else if (!r->top) {
			return TEXT;    /* a bare < */
		} else {
			r->s++;
		}
	}
}

/* Reads text up to the next tag, or to the end of CDATA, into t (NULL: nowhere). */
static void
read_text(struct reader *r, struct sink *t, enum event kind)
{
	if (kind == TEXT) {
		if (*r->s == '<') {
			if (t)
				put_text(t, "<", 1, true);
			r->s++;
		}
		read_until(r, t, '<', false);
		return;
	}
	for (;; r->s++) {
		read_until(r, t, ']', true);
		if (ahead(r, "]]>")) {
			r->s += 3;
			return;
		}
		if (peek(r) < 0) {
			breaks(r, "ends in a CDATA section");
			return;
		}
		if (t)
			put_text(t, "]", 1, true);
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
	add_attribute(b, "name", name);
	add_attribute(b, "value", value);
	buf_str(b, "/>\n");
}

static void
add_own_properties(struct merger *m)
{
	const struct part *p = m->part;
	struct buf *b = &m->props;

	add_property(b, "prun.file", p->file);
	add_property(b, "prun.result", result_name[p->result]);
	add_property(b, "prun.seconds", str("%.3f", (double)p->ms / 1000));
	add_property(b, "prun.attempts", str("%d", p->attempts));
	add_property(b, "prun.run", m->o->run);
	add_property(b, "prun.plan", str("%08" PRIx32, m->o->hash));
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
	add_attribute(&m->out, "name", here(m));
	buf_fmt(&m->out, " id=\"%d\"", m->id++);
	m->suite_at = leave_room(m);
	for (i = m->nframes; i && m->frames[i - 1].kind != K_SUITE; i--)
		;
	own = i ? m->heads.s + m->frames[i - 1].head : "";
	buf_str(&m->out, own);
	if (m->part->file && !strstr(own, " file=\""))
		add_attribute(&m->out, "file", m->part->file);
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
	buf_fmt(to, "<%s%s>%s%s%s</%s>\n", kind_name[kind], attrs, said ? "" : message,
		said || !*text ? "" : "\n", text, kind_name[kind]);
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
		buf_fmt(&m->child[kind], "<%s%s><stackTrace>%s</stackTrace></%s>\n",
			kind_name[kind], t->attrs, t->text, kind_name[kind]);
	}
}

/* A failure or an error of the case; the first one stands for it in another attempt. */
static void
add_verdict(struct merger *m, enum kind kind, const char *attrs, const char *message,
	const char *text)
{
	if (!m->child[K_FAILURE].n && !m->child[K_ERROR].n) {
		set(&m->bad_attrs, attrs);
		set(&m->bad_text, text);
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
			xstrdup(m->bad_attrs.s), xstrdup(m->bad_text.s), !c[K_FAILURE].n, false };

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
		add_attribute(&m->out, "name", m->name.s);
		add_attribute(&m->out, "classname", m->classname.s);
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
		if (m->out.n > WINDOW)
			out_flush(m);
	}
	for (k = 0; k <= K_ERR; k++)
		c[k].n = 0;
}

/* Begins a case, from its tag or (r NULL) of our own. */
static void
begin_case(struct merger *m, const struct reader *r, const char *name)
{
	const char *class = r ? attr(r, "classname") : NULL, *status, *result;

	set(&m->name, name && *name ? name : "(unnamed)");
	set(&m->classname, class && *class ? class : here(m));
	set(&m->file, r && attr(r, "file") ? attr(r, "file") : "");
	set(&m->line, r && attr(r, "line") ? attr(r, "line") : "");
	set(&m->attrs, "");
	m->case_us = r ? microseconds(attr(r, "time")) : 0;
	if (r) {
		m->in_case = true;
		status = attr(r, "status") ? attr(r, "status") : "";
		result = attr(r, "result") ? attr(r, "result") : "";
		m->not_run = !strcmp(status, "disabled") || !strcmp(status, "notrun")
			|| !strcmp(result, "suppressed");
		add_attributes(&m->attrs, r, " name classname time type ");
	}
	if (m->part->file && !(r && attr(r, "file")))
		add_attribute(&m->attrs, "file", m->part->file);
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
		add_attribute(&attrs, "message", safe.s);
		add_attribute(&attrs, "type", type);
		add_escaped(&head, safe.s, false);
		add_escaped(&body, text, false);
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
	const char *type = attr(r, "type");
	bool rename = type && *type && strstr(taken, str(" %s ", type));

	m->outer_attrs.n = 0;
	add_attributes(&m->outer_attrs, r, rename ? " type " : "");
	if (rename)
		add_attribute(&m->outer_attrs, "type", str("type %s", type));
}

static void
start_tag(struct merger *m, const struct reader *r)
{
	struct frame f = { kind_here(m, r->name), m->path.n, m->heads.n };
	const char *message = attr(r, "message"), *name = attr(r, "name"), *value = attr(r, "value");

	switch (f.kind) {
	case K_SUITE:
		close_suite(m);
		/* A name that is joined 20,000 times would be read by nobody. */
		if (name && *name && m->path.n < 1000)
			buf_fmt(&m->path, "%s%s", m->path.n ? "/" : "", name);
		add_attributes(&m->heads, r, " name id tests failures errors skipped disabled time ");
		break;
	case K_CASE:
		begin_case(m, r, name);
		break;
	case K_PROP:
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
			add_escaped(&m->message, message ? message : "", false);
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
		breaks(r, "has an end tag that nothing began");
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
	if (open_reader(&r, path, m->o->limit) < 0)
		buf_fmt(why, "the report %s cannot be read: %s", path, strerror(errno));
	else
		do {
			r.top = m->nframes == 0;
			e = next(&r);
			if (e == START)
				start_tag(m, &r);
			else if (e == END)
				end_tag(m, &r);
			else if (e != EOD)
				read_text(&r, m->inner_kind != K_OTHER ? &m->inner
					: m->outer_kind != K_OTHER ? &m->outer : NULL, e);
			seen = seen || e == START;
		} while (e != EOD);
	if (!why->n && !seen)
		breaks(&r, r.at ? "has no testsuite element" : "is empty");
	else if (m->nframes)
		breaks(&r, "ends too early");
	while (m->nframes)
		pop(m, true);
	if (!why->n && r.broken)
		buf_fmt(why, "the report %s %s (byte %" PRId64 ")", path, r.broken, r.broken_at);
	if (why->n && !m->collect)
		add_case(m, "[report]", K_ERROR, "prun.report", why->s, "", 0);
	close_suite(m);
	if (r.fd >= 0)
		close(r.fd);
	buf_free(&r.attrs);
	buf_free(&r.value.b);
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
	struct buf tail = { 0 };
	char *message = str("attempt %zu failed", attempt + 1);

	if (attempt < m->part->logs.n)
		buf_tail(&tail, m->part->logs.v[attempt], 50);
	sink_begin(&m->outer, m->o->limit, true);
	put_text(&m->outer, tail.s, tail.n, true);
	sink_end(&m->outer);
	set(&m->outer_attrs, "");
	add_attribute(&m->outer_attrs, "message", message);
	add_attribute(&m->outer_attrs, "type", "prun.exit");
	begin_case(m, NULL, "[exit]");
	add_verdict(m, K_FAILURE, m->outer_attrs.s, "", m->outer.b.s);
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
	if (p->reports.n)
		reports = read_reports(m, p->reports.v[base], &why);
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
		if (t->used)
			add_result(&m->child[kind], kind, t->attrs, "", t->text);
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
	bool spool = !strcmp(out, "-");         /* it cannot be written twice */
	char *aside = str("%s.%ld", out, (long)getpid());
	FILE *f = spool ? tmpfile() : NULL;
	struct merger m;
	char chunk[8192];
	ssize_t got = 0;
	size_t i;
	off_t root_at;
	int fd = f ? fileno(f) : spool ? -1
		: open(aside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	init_merger(&m, o, NULL, fd);
	m.error = fd < 0 ? errno : 0;
	buf_str(&m.out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites");
	add_attribute(&m.out, "name", o->name);
	root_at = leave_room(&m);
	buf_str(&m.out, ">\n");
	for (i = 0; i < n; i++)
		merge_part(&m, &parts[i]);
	buf_str(&m.out, "</testsuites>\n");
	out_flush(&m);
	fill_room(&m, root_at, &m.total, o->ms < 0 ? m.total_us : o->ms * 1000);
	*total = m.total;
	free_merger(&m);
	if (f && !m.error && lseek(fd, 0, SEEK_SET) == 0)
		while ((got = read(fd, chunk, sizeof(chunk))) > 0 && !m.error)
			m.error = write_all(1, chunk, (size_t)got) < 0 ? errno : 0;
	if (got < 0 || ((f ? fclose(f) : fd >= 0 ? close(fd) : 0) < 0 && !m.error)
	|| (!spool && !m.error && rename(aside, out) < 0))
		m.error = errno;
	if (m.error && !spool)
		unlink(aside);
	errno = m.error;
	return m.error ? -1 : 0;
}

/* ---- TAP ---- */

struct tap {
	const char *name;
	struct buf cases, text; /* text: of the case under way */
	char *title, *reason;   /* of that case; NULL: none */
	bool bad, skip, is_tap;
	int64_t planned, seen;  /* planned -1: no plan */
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
	put_text(&text, t->text.s, t->text.n, true);
	sink_end(&text);
	buf_str(&t->cases, "<testcase");
	add_attribute(&t->cases, "name", *t->title ? t->title : str("test %" PRId64, t->seen));
	add_attribute(&t->cases, "classname", t->name);
	buf_char(&t->cases, '>');
	if (t->bad)
		add_result(&t->cases, K_FAILURE, " message=\"not ok\"", "not ok", text.b.s);
	else if (t->skip) {
		buf_str(&t->cases, "<skipped");
		add_attribute(&t->cases, "message", t->reason);
		buf_str(&t->cases, "/>");
	}
	buf_str(&t->cases, "</testcase>\n");
	t->title = NULL;
	t->text.n = 0;
	buf_free(&text.b);
}

static char *
safe(const char *s, size_t n)
{
	struct buf b = { 0 };
	char *out;

	while (n && is_space(s[n - 1]))
		n--;
	buf_safe(&b, s, n);
	out = str("%s", b.s);
	buf_free(&b);
	return out;
}

/* What stands behind "ok" or "not ok": 3 - name # SKIP why. */
static void
tap_result(struct tap *t, const char *s, bool ok)
{
	const char *mark = s, *word;
	bool todo = false;

	tap_case(t);
	t->seen++;
	t->skip = false;
	s += strspn(s, " 0123456789");
	s += *s == '-' ? 1 + strspn(s + 1, " ") : 0;
	for (; !t->skip && !todo && (mark = strchr(mark, '#')); mark += !t->skip && !todo) {
		word = mark + 1 + strspn(mark + 1, " ");
		if (mark > s && mark[-1] == '\\')
			continue;
		t->skip = !strncasecmp(word, "skip", 4);
		todo = !strncasecmp(word, "todo", 4);
		word += strcspn(word, " ");
		t->reason = safe(word + strspn(word, " "), strlen(word + strspn(word, " ")));
	}
	t->title = safe(s, mark && mark >= s ? (size_t)(mark - s) : strlen(s));
	t->bad = !ok && !todo && !t->skip;
}

static void
tap_line(struct tap *t, char *line, size_t n)
{
	char *end;

	while (n && is_space(line[n - 1]))
		n--;
	line[n] = '\0';
	if (!strncmp(line, "TAP version ", 12)) {
		t->is_tap = true;
	} else if (!strncmp(line, "1..", 3) && line[3] >= '0' && line[3] <= '9') {
		t->is_tap = true;
		t->planned = strtoll(line + 3, &end, 10);
		if (!t->planned && strchr(end, '#')) {  /* 1..0 # SKIP why */
			tap_result(t, strchr(end, '#'), true);
			t->title = str("[plan]");
			t->seen = 0;
		}
	} else if (!strncmp(line, "ok", 2) && (!line[2] || is_space(line[2]))) {
		tap_result(t, line + 2, true);
	} else if (!strncmp(line, "not ok", 6) && (!line[6] || is_space(line[6]))) {
		tap_result(t, line + 6, false);
	} else if (!strncmp(line, "Bail out!", 9)) {
		t->bail = safe(line, strlen(line));
	} else if (t->title && (int64_t)t->text.n < 1 << 20) {
		buf_fmt(&t->text, "%s\n", line);
	}
}

int
junit_tap(const char *log, const char *path, const char *name)
{
	FILE *f = fopen(log, "r");
	struct tap t;
	struct buf all = { 0 };
	char line[16384];
	size_t n;
	bool cut = false;
	int r = 0;

	if (!f)
		return 0;
	memset(&t, 0, sizeof(t));
	t.name = name;
	t.planned = -1;
	while (fgets(line, sizeof(line), f)) {
		n = strlen(line);
		if (!cut)               /* the rest of a long line is not looked at */
			tap_line(&t, line, n && line[n - 1] == '\n' ? n - 1 : n);
		cut = n == sizeof(line) - 1 && line[n - 1] != '\n';
	}
	tap_case(&t);
	if (t.bail || (t.planned >= 0 && t.planned != t.seen) || (t.planned < 0 && !t.seen)) {
		buf_str(&t.cases, "<testcase name=\"[plan]\"><error");
		add_attribute(&t.cases, "message", t.bail ? t.bail : t.planned < 0
			? "there is neither a plan nor a test"
			: str("%" PRId64 " tests were planned, %" PRId64 " were run", t.planned, t.seen));
		buf_str(&t.cases, "/></testcase>\n");
	}
	if (t.is_tap) {
		buf_str(&all, "<testsuite");
		add_attribute(&all, "name", safe(name, strlen(name)));
		buf_fmt(&all, ">\n%s</testsuite>\n", t.cases.s ? t.cases.s : "");
		r = file_write(path, all.s, all.n, 0666) < 0 ? -1 : 1;
	}
	fclose(f);
	buf_free(&t.cases);
	buf_free(&t.text);
	buf_free(&all);
	return r;
}
