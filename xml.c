/*
 * xml.c: reads XML as tools write it, and text as tests print it.
 *
 * The reader pulls: xml_next() gives a start tag, an end tag or text, out of a
 * window that slides along the file.  It is iterative and forgiving: it expands
 * no entity, fetches nothing, and remembers the first thing that was wrong.
 *
 * A sink cleans text: UTF-8 that XML 1.0 can hold (else \xNN), less the escape
 * sequences of terminals, escaped where wanted, and cut at a limit.
 *
 * The last section makes a report of TAP.
 */
#include "prun.h"
#include <ctype.h>
#include <strings.h>

#define WINDOW 65536
#define REFERENCE 32    /* bytes of one, at most */
#define ATTRIBUTES 256  /* of a tag, at most */

enum charset { UNKNOWN, RAW, LATIN1, UTF16LE, UTF16BE };

struct reader {
	int fd;
	enum charset charset;
	unsigned unit, high;    /* of UTF-16: bytes of a unit, and 1 before them; half a pair */
	bool eof, empty;        /* empty: the END of an empty tag is due */
	bool report;            /* only testsuites and testsuite begin it */
	int64_t limit, most;    /* bytes: of an attribute; of the file */
	int64_t at;             /* bytes read */
	char name[64];          /* of the tag, without its prefix */
	size_t nattrs;
	struct buf attrs;       /* name NUL value NUL ... */
	struct sink value;
	const char *broken;     /* the first thing that was wrong, or NULL */
	char *s, *end;          /* what is left of the window */
	char window[WINDOW];
};

/* The first four are written as references everywhere, the others in
 * attributes; ' is only read. */
static const char special[] = "<>&\r\"\n\t'";
static const char *const reference[] = {
	"&lt;", "&gt;", "&amp;", "&#13;", "&quot;", "&#10;", "&#9;", "&apos;"
};

static const char absent[] = "";        /* an attribute that is not there */

/* ---- text: whatever comes in, clean UTF-8 goes out ---- */

void
sink_begin(struct sink *t, int64_t limit, bool escape)
{
	t->b.n = 0;
	*t = (struct sink){ .b = t->b, .limit = limit, .escape = escape };
}

/* The last place up to i where text that goes on there may be cut: not in a
 * character, a reference or CR LF. */
static size_t
boundary(const char *s, size_t i)
{
	for (int k = 0; k < 3 && i && ((unsigned char)s[i] & 0xc0) == 0x80; k++)
		i--;
	for (size_t k = 1; k < REFERENCE && k <= i && s[i - k] != ';'; k++)
		if (s[i - k] == '&')
			return i - k;
	return i - (i && s[i - 1] == '\r');
}

/* Takes out the middle of a text that is too long: its head and its last lines
 * are what is read. */
static void
cut_middle(struct sink *t)
{
	size_t half = (size_t)(t->limit / 2), to = boundary(t->b.s, t->b.n - half);

	if (!t->cut)
		t->head = boundary(t->b.s, half);
	if (to <= t->head)
		return;
	memmove(t->b.s + t->head, t->b.s + to, t->b.n - to + 1);
	t->b.n -= to - t->head;
	t->cut += (int64_t)(to - t->head);
	t->sequence = 0;
}

static void
emit(struct sink *t, const char *s, size_t n)
{
	buf_add(&t->b, s, n);
	if ((int64_t)t->b.n > t->limit + t->limit / 2)
		cut_middle(t);
}

/* One character, valid UTF-8, that the fast path has not taken; n 0: a wild
 * byte. */
static void
emit_char(struct sink *t, const char *s, size_t n)
{
	unsigned char c = (unsigned char)*s;
	const char *hit = t->escape && n == 1 ? memchr(special, c, 4) : NULL;
	char hex[8];

	if (n == 0 || c == 0 || (c < ' ' && !strchr("\t\n\r", c))) {
		snprintf(hex, sizeof(hex), "\\x%02x", c);
		emit(t, hex, 4);
	} else if (n == 3 && !memcmp(s, "\xef\xbf", 2) && (unsigned char)s[2] >= 0xbe) {
		emit(t, "\xef\xbf\xbd", 3);     /* U+FFFE, U+FFFF: no XML */
	} else if (hit) {
		emit(t, reference[hit - special], strlen(reference[hit - special]));
	} else {
		emit(t, s, n);
	}
}

/* Takes out a terminal's escape sequence once it is whole: CSI, ESC [ ... final
 * byte, or OSC, ESC ] ... BEL or ESC \.  What only looks like one is text. */
static void
put_char(struct sink *t, const char *s, size_t n)
{
	unsigned char c = (unsigned char)*s;
	bool csi = t->sequence == '[', osc = t->sequence == ']' || t->sequence == '\\';

	if ((csi && c >= '@' && c < 0x7f) || (osc && c == 7)
	|| (t->sequence == '\\' && c == '\\')) {
		t->b.n = t->from;
		t->sequence = 0;
		return;
	}
	if (c == 27) {
		t->from = osc ? t->from : t->b.n;
		t->sequence = osc ? '\\' : c;  /* which may end it */
	} else if (t->sequence == 27) {
		t->sequence = c == '[' || c == ']' ? c : 0;
	} else if (c < ' ' || (csi && c >= 0x7f)) {
		t->sequence = 0;
	} else if (osc) {
		t->sequence = ']';
	}
	emit_char(t, s, n);
}

static size_t
encode(char *s, unsigned long c)
{
	size_t n = 1 + (size_t)(c >= 0x80) + (c >= 0x800) + (c >= 0x10000);

	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return encode(s, 0xfffd);
	for (size_t i = n - 1; i > 0; i--) {
		s[i] = (char)(0x80 | (c & 63));
		c >>= 6;
	}
	s[0] = (char)(n == 1 ? c : (0xf00 >> n & 0xff) | c);
	return n;
}

/* A reference at s, of at most n bytes; how many it took, 0: it is none. */
static size_t
put_reference(struct sink *t, const char *s, size_t n)
{
	char copy[REFERENCE], utf8[4], *end;

	for (size_t k = 0; k < LEN(reference); k++) {
		size_t i = strlen(reference[k]);
		if (i <= n && s[1] == reference[k][1] && !memcmp(s, reference[k], i)) {
			put_char(t, &special[k], 1);
			return i;
		}
	}
	if (n < 4 || s[1] != '#')
		return 0;
	snprintf(copy, sizeof(copy), "%.*s", n < REFERENCE ? (int)n : REFERENCE, s);
	bool hex = copy[2] == 'x';
	unsigned long code = strtoul(copy + 2 + hex, &end, hex ? 16 : 10);
	if (!isxdigit((unsigned char)copy[2 + hex]) || *end != ';')
		return 0;
	size_t k = encode(utf8, code);
	put_char(t, utf8, k);
	return (size_t)(end + 1 - copy);
}

/* How many bytes from s on need no thought: ASCII but controls, < > &. */
static size_t
plain(const char *s, size_t n)
{
	/* a bit a character: tab and newline; those from ' ', '@' and '`' on */
	static const uint32_t easy[8] = { 0x600, 0xafffffbf, 0xffffffff, 0xffffffff };
	size_t i = 0;

	while (i < n && easy[(unsigned char)s[i] >> 5] >> (s[i] & 31) & 1)
		i++;
	return i;
}

void
sink_text(struct sink *t, const char *s, size_t n, bool raw)
{
	size_t k;
	unsigned c;

	for (size_t i = 0; t && i < n; i += k) {
		k = t->sequence ? 0 : plain(s + i, n - i);
		if (k) {
			emit(t, s + i, k);
			continue;
		}
		if (s[i] == '\r') {             /* as XML reads line ends */
			k = 1 + (i + 1 < n && s[i + 1] == '\n');
			put_char(t, "\n", 1);
			continue;
		}
		if (s[i] == '&' && !raw)
			k = put_reference(t, s + i, n - i);
		if (!k) {
			k = utf8_len(s + i, n - i, &c);
			put_char(t, s + i, k);
			k += k == 0;
		}
	}
}

void
sink_end(struct sink *t)
{
	buf_add(&t->b, "", 0);
	if ((int64_t)t->b.n > t->limit)
		cut_middle(t);
	if (!t->cut)
		return;
	char *tail = xstrdup(t->b.s + t->head);
	t->b.n = t->head;
	buf_fmt(&t->b, "\n[prun: %" PRId64 " bytes cut, see report-limit]\n%s", t->cut, tail);
	free(tail);
}

void
xml_escape(struct buf *b, const char *s, bool attribute)
{
	size_t n;

	for (; *s; s += n) {
		n = strcspn(s, attribute ? "<>&\r\"\n\t" : "<>&\r");
		buf_add(b, s, n);
		if (s[n])
			buf_str(b, reference[strchr(special, s[n++]) - special]);
	}
	buf_add(b, "", 0);
}

void
xml_attribute(struct buf *b, const char *name, const char *value)
{
	buf_fmt(b, " %s=\"", name);
	xml_escape(b, value, true);
	buf_char(b, '"');
}

/* ---- the reader ---- */

/* Appends a byte of another charset to the window, in UTF-8. */
static void
convert(struct reader *r, unsigned char byte)
{
	/* windows-1252's 0x80 to 0x9f, which Latin-1 reports mean as well */
	static const unsigned short cp1252[32] = {
		0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021,
		0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d, 0x17d, 0x8f,
		0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
		0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178
	};
	unsigned c = byte;

	if (r->charset == LATIN1) {
		c = c >= 0x80 && c < 0xa0 ? cp1252[c - 0x80] : c;
	} else if (!r->unit) {
		r->unit = 0x100 | c;
		return;
	} else {
		unsigned first = r->unit & 0xff;
		c = r->charset == UTF16LE ? c << 8 | first : first << 8 | c;
		r->unit = 0;
		if (r->high && c >= 0xdc00 && c < 0xe000)
			c = 0x10000 + ((r->high - 0xd800) << 10) + (c - 0xdc00);
		else if (r->high)
			r->end += encode(r->end, r->high);
		r->high = c >= 0xd800 && c < 0xdc00 ? c : 0;
		if (r->high)
			return;
	}
	r->end += encode(r->end, c);
}

void
xml_breaks(struct reader *r, const char *what)
{
	if (!r->broken)
		r->broken = str("%s (byte %" PRId64 ")", what, r->at - (r->end - r->s));
}

bool
xml_is_file(const char *name)
{
	return ends(name, ".xml") || ends(name, ".XML");
}

/* The charset by the first n bytes, or by the declaration that they are. */
static enum charset
find_charset(const unsigned char *s, size_t n)
{
	static const char *const latin[] = {
		"iso-8859-1", "iso_8859-1", "latin1", "latin-1", "windows-1252", "cp1252"
	};
	char head[200];
	size_t i;

	if (n >= 2 && (!memcmp(s, "\xff\xfe", 2) || !memcmp(s, "<\0", 2)))
		return UTF16LE;
	if (n >= 2 && (!memcmp(s, "\xfe\xff", 2) || !memcmp(s, "\0<", 2)))
		return UTF16BE;
	for (i = 0; i < n && i < sizeof(head) - 1; i++) /* a NUL ends it, which is well */
		head[i] = (char)tolower(s[i]);
	head[i] = '\0';
	char *name = strstr(head, "<?xml");
	name = name ? strstr(name, "encoding") : NULL;
	if (name)
		name += 8 + strspn(name + 8, " =\"'");
	for (i = 0; name && i < LEN(latin); i++)
		if (starts(name, latin[i]))
			return LATIN1;
	return RAW;
}

/* Slides the window and reads more; false at the end of the file. */
static bool
fill(struct reader *r)
{
	size_t left = (size_t)(r->end - r->s), room = WINDOW - left;
	ssize_t n;

	if (r->eof || room < WINDOW / 4)
		return false;
	memmove(r->window, r->s, left);
	r->s = r->window;
	r->end = r->window + left;
	/* A byte becomes three at most, which do not overtake it there. */
	size_t want = r->charset == RAW ? room : WINDOW / 16;
	char *from = r->end + room - want;
	do
		n = read(r->fd, from, want);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		xml_breaks(r, "cannot be read");
	else if (r->at > r->most)
		xml_breaks(r, "is too long, see report-limit");
	r->eof = n <= 0 || r->at > r->most;
	n = r->eof ? 0 : n;
	r->at += n;
	if (r->charset == UNKNOWN)
		r->charset = find_charset((unsigned char *)from, (size_t)n);
	for (ssize_t i = 0; i < n && r->charset != RAW; i++)
		convert(r, (unsigned char)from[i]);
	if (r->charset == RAW) {
		memmove(r->end, from, (size_t)n);       /* the first time it is elsewhere */
		r->end += n;
	}
	return !r->eof;
}

struct reader *
xml_open(const char *path, bool report, int64_t limit, int64_t most)
{
	/* Another file that is not regular might never end, or never begin. */
	int fd = !strcmp(path, "/dev/stdin") ? open(path, O_RDONLY | O_CLOEXEC)
		: open_regular(path, O_RDONLY);

	if (fd < 0)
		return NULL;
	struct reader *r = xcalloc(1, sizeof(*r));
	r->fd = fd;
	r->report = report;
	r->limit = limit;
	r->most = most;
	r->s = r->end = r->window;
	return r;
}

const char *
xml_name(const struct reader *r)
{
	return r->name;
}

const char *
xml_broken(const struct reader *r)
{
	return r->broken;
}

/* Whether c can stand in a name; a char as unsigned, or -1. */
static bool
is_name(int c)
{
	return c >= 0x80 || isalnum(c) || (c > 0 && strchr("_-.:", c));
}

/* The next byte without taking it; -1 at the end. */
static int
peek(struct reader *r)
{
	while (r->s == r->end && fill(r))
		;                       /* half a character of UTF-16 is none yet */
	return r->s < r->end ? (unsigned char)*r->s : -1;
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

static void
skip_space(struct reader *r)
{
	while (isspace(peek(r)))
		r->s++;
}

/* Reads into t (NULL: nowhere) up to the word stop; false if it never comes. */
static bool
read_until(struct reader *r, struct sink *t, const char *stop, bool raw)
{
	while (!ahead(r, stop) && peek(r) >= 0) {
		if (r->end - r->s <= 2 * REFERENCE)
			fill(r);
		char *hit = memchr(r->s + 1, *stop, (size_t)(r->end - r->s) - 1);
		char *to = hit ? hit : r->end;
		if (!hit && !r->eof && to - r->s > 2 * REFERENCE)
			to = r->s + boundary(r->s, (size_t)(to - r->s) - 1);
		sink_text(t, r->s, (size_t)(to - r->s), raw);
		r->s = to;
	}
	return peek(r) >= 0;
}

/* Whether the tag under way goes on: no end of it is ahead. */
static bool
in_tag(struct reader *r)
{
	int c = peek(r);

	return c >= 0 && c != '>' && c != '<' && (c != '/' || !ahead(r, "/>"));
}

/* Reads the value behind '=', in quotes or not. */
static void
read_value(struct reader *r)
{
	r->s++;
	skip_space(r);
	if (ahead(r, "\"") || ahead(r, "'")) {
		char quote[] = { *r->s++, '\0' };
		r->s += read_until(r, &r->value, quote, false);
		return;
	}
	while (in_tag(r) && !isspace((unsigned char)*r->s))
		sink_text(&r->value, r->s++, 1, true);
}

const char *
xml_attr(const struct reader *r, const char *name)
{
	const char *s = r->attrs.s;

	for (size_t i = 0; i < r->nattrs; i++) {
		const char *value = s + strlen(s) + 1;
		if (!strcmp(s, name))
			return value;
		s = value + strlen(value) + 1;
	}
	return absent;
}

/* Reads name="value" into attrs; false at the end of the tag. */
static bool
read_attribute(struct reader *r)
{
	bool good = true;       /* it is ASCII, and not one of a namespace */
	char name[256];
	size_t n = 0;

	skip_space(r);
	if (!in_tag(r))
		return false;
	for (; in_tag(r) && !isspace(peek(r)) && !strchr("=\"'", *r->s); r->s++) {
		int c = (unsigned char)*r->s;
		good = good && c < 0x80 && c != ':' && is_name(c);
		if (n < sizeof(name) - 1)
			name[n++] = (char)c;
	}
	name[n] = '\0';
	skip_space(r);
	/* All of a tag's attributes together: twice what one may have. */
	sink_begin(&r->value, r->attrs.n < (size_t)r->limit ? r->limit : 0, false);
	if (peek(r) == '=') {
		read_value(r);
	} else if (!n) {
		r->s++;                 /* a quote out of nowhere */
		xml_breaks(r, "has a tag that cannot be read");
	}
	sink_end(&r->value);
	/* Of one that is there twice the first one wins. */
	if (r->nattrs == ATTRIBUTES)
		xml_breaks(r, "has a tag with too many attributes");
	else if (n && good && !strchr("-.0123456789", *name) && !starts(name, "xmlns")
	&& xml_attr(r, name) == absent) {
		buf_add(&r->attrs, name, n + 1);
		buf_add(&r->attrs, r->value.b.s, r->value.b.n + 1);
		r->nattrs++;
	}
	return true;
}

int64_t
xml_number(const struct reader *r, const char *name)
{
	int64_t n = strtoll(xml_attr(r, name), NULL, 10);

	return n > 0 && n < INT32_MAX ? n : 0;
}

/* It may be written as 1,134.193 1.134,193 0,288 1,234,567 00:01:02.5 250ms or
 * 1e-5. */
int64_t
xml_time(const struct reader *r)
{
	const char *s = xml_attr(r, "time");
	const char *point = NULL;
	char text[64], *end, *part = text;
	size_t n = 0;
	double v;

	/* The last of these is the decimal point, unless it is there twice. */
	for (const char *p = s; (p = strpbrk(p, ".,")); p++)
		point = p;
	if (point && strchr(s, *point) != point)
		point = NULL;
	for (; *s && n < sizeof(text) - 1; s++)
		if (s == point || (*s != ',' && *s != '.'))
			text[n++] = (char)(s == point ? '.' : *s);
	text[n] = '\0';
	for (v = strtod(part, &end); *end == ':' && v >= 0; v = v * 60 + strtod(part, &end))
		part = end + 1;
	if (starts(end, "ms"))
		v /= 1000;
	if (!(v > 0))                   /* NaN is not, either */
		return 0;
	return v > 31536000 ? INT64_C(31536000000000) : (int64_t)(v * 1e6 + 0.5);
}

void
xml_attributes(struct buf *b, const struct reader *r, const char *skip)
{
	const char *s = r->attrs.s;
	char word[300];

	for (size_t i = 0; i < r->nattrs; i++) {
		const char *value = s + strlen(s) + 1;
		snprintf(word, sizeof(word), " %s ", s);
		if (!strstr(skip, word))
			xml_attribute(b, s, value);
		s = value + strlen(value) + 1;
	}
	buf_add(b, "", 0);
}

/* Reads the name of the tag ahead, less its prefix, and returns its end; the
 * name is "" where no tag begins: at a bare <. */
static char *
read_name(struct reader *r)
{
	size_t n = 0;

	while (r->end - r->s < 4 * (ptrdiff_t)sizeof(r->name) && fill(r))
		;
	char *s = r->s + 1;
	s += s < r->end && *s == '/';
	if (s < r->end && strchr("-.0123456789", *s))
		s = r->end;
	for (; s < r->end && is_name((unsigned char)*s); s++) {
		if (*s == ':')          /* a prefix, bound or not */
			n = 0;
		else if (n < sizeof(r->name) - 1)
			r->name[n++] = *s;
	}
	r->name[n] = '\0';
	return s;
}

/* Whether a tag begins at <; at the top one that may. */
static bool
at_tag(struct reader *r, bool top)
{
	read_name(r);
	if (top && r->report)
		return !strcmp(r->name, "testsuites") || !strcmp(r->name, "testsuite");
	return *r->name;
}

/* A start or end tag at '<'; what comes of it. */
static enum event
read_tag(struct reader *r)
{
	bool end = r->s[1] == '/';

	r->s = read_name(r);
	r->nattrs = r->attrs.n = 0;
	if (end)
		skip_space(r);
	while (!end && read_attribute(r))
		;
	r->empty = !end && ahead(r, "/>");
	int c = peek(r);
	if (r->empty)
		r->s += 2;
	else if (c == '>')
		r->s++;
	else
		xml_breaks(r, c < 0 ? "ends in the middle of a tag"
			: "has a tag that does not end");
	if (end)
		return END;
	return peek(r) < 0 && r->broken ? EOD : START;
}

/* Reads up to word into t, and skips that. */
static void
read_past(struct reader *r, struct sink *t, const char *word)
{
	if (read_until(r, t, word, true))
		r->s += strlen(word);
	else
		xml_breaks(r, "ends in a comment or in CDATA");
}

enum event
xml_next(struct reader *r, bool top, struct sink *t)
{
	if (r->empty) {
		r->empty = false;
		return END;
	}
	t = top ? NULL : t;             /* log lines, blanks, another's tags */
	for (;;) {
		if (!read_until(r, t, "<", top))
			return EOD;
		if (ahead(r, "<!--")) {
			read_past(r, NULL, "-->");
		} else if (ahead(r, "<![CDATA[") && !top) {
			r->s += 9;
			read_past(r, t, "]]>");
		} else if (ahead(r, "<?")) {
			read_past(r, NULL, "?>");
		} else if (at_tag(r, top)) {
			return read_tag(r);
		} else {
			sink_text(t, r->s++, 1, true);          /* a bare < */
		}
	}
}

void
xml_close(struct reader *r)
{
	close(r->fd);           /* only read from */
	buf_free(&r->attrs);
	buf_free(&r->value.b);
	free(r);
}

/* ---- TAP ----
 *
 * A log is TAP if it has a version line, a plan and results, a plan of none, or
 * results numbered from 1; anything else may have been printed by any program.
 * The results of a subtest, which is indented by four, are named parent/child
 * and stand for their parent, whose line follows them.  What follows a result
 * is about it.  A plan that does not fit is a case [plan], an error; where it
 * is fulfilled another program may follow.  A failure is never taken for
 * something else: "not ok" passes with a TODO of its own only.
 */

#define LEVELS 8
#define TITLE 1000              /* bytes of a name, its parents' with it */
#define DIAGNOSTICS (1 << 20)   /* bytes of a failure's text */
#define TAP_MAX (64 << 20)      /* bytes of all that is kept of a log */

struct point {
	enum { PASSED, FAILED, SKIPPED, BROKEN } verdict;
	int level;
	const char *title, *message, *text;     /* NULL: unknown */
	double ms;              /* 0: unknown */
};

/* The results at one level of indentation. */
struct level {
	int64_t planned, seen, last;    /* last number; -1: there is no plan */
	const char *odd;                /* what is wrong with a number */
};

struct tap {
	struct point *v;
	size_t n, cap, bytes;
	struct level at[LEVELS + 1];
	bool is_tap, plan;
	bool takes_text;        /* the last point's text goes on */
	struct buf text;
	size_t yaml;            /* indentation of the block that is open, and 1 */
	bool message_next;      /* the message stands in the next line of it */
	int depth;              /* level of the last line that had one */
	char *subtest, *bail;
};

static char *
keep(struct tap *t, const char *s, size_t n)
{
	t->bytes += n + sizeof(struct point);
	return str("%.*s", (int)n, s);
}

static size_t
trim(const char *s, size_t n)
{
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	return n;
}

/* The # of a directive in s, or its end.  A blank stands before it; a TODO is a
 * word, and the first # that there is: neither "opens #todos" nor "as in #12 #
 * TODO" is one, as other harnesses see it. */
static const char *
find_directive(const char *s, bool *todo)
{
	const char *mark = s;

	for (bool first = true; (mark = strchr(mark, '#')); mark++) {
		if (mark > s && mark[-1] == '\\')
			continue;
		const char *word = mark + 1 + strspn(mark + 1, " \t");
		*todo = first && !strncasecmp(word, "todo", 4)
			&& !isalnum((unsigned char)word[4]);
		if ((*todo || !strncasecmp(word, "skip", 4))
		&& (mark == s || isspace((unsigned char)mark[-1])))
			return mark;
		first = false;
	}
	*todo = false;
	return s + strlen(s);
}

/* Takes how long the test took from the end of its name: "# time=12.3ms", of
 * node-tap, or "in 12ms", of bats. */
static double
take_time(char *name)
{
	static const char *const before[] = { "# time=", " in " };
	char *end;

	for (size_t i = 0; i < LEN(before); i++)
		for (char *s = strstr(name, before[i]); s; s = strstr(s, before[i])) {
			s += strlen(before[i]);
			double ms = strtod(s, &end);
			if (strcmp(end, "ms") || !(ms > 0 && ms < 1e10))
				continue;
			name[trim(name, (size_t)(s - name) - strlen(before[i]))] = '\0';
			return ms;
		}
	return 0;
}

static void
add_point(struct tap *t, struct point p)
{
	t->v = grow(t->v, &t->cap, t->n + 1, sizeof(p));
	t->v[t->n++] = p;
	t->bytes += sizeof(p);
}

/* The text since the last point is about that one. */
static void
end_text(struct tap *t)
{
	if (t->takes_text && t->text.n)
		t->v[t->n - 1].text = keep(t, t->text.s, t->text.n);
	t->takes_text = t->message_next = false;
	t->text.n = t->yaml = 0;
}

/* A level is over: are the results those that were planned? */
static void
end_level(struct tap *t, int level)
{
	struct level *l = &t->at[level];
	struct point p = { .verdict = BROKEN, .level = level, .title = "[plan]" };

	if (l->planned >= 0 && l->planned != l->seen)
		p.message = str("%" PRId64 " tests were planned, %" PRId64 " were run",
			l->planned, l->seen);
	else if (l->odd)
		p.message = l->odd;
	else if (l->planned >= 0 && l->last > l->planned)
		p.message = str("test %" PRId64 " is beyond the plan, 1..%" PRId64, l->last,
			l->planned);
	else if (l->planned < 0 && l->seen && level == 0)
		p.message = "there is no plan";
	if (p.message)
		add_point(t, p);
	*l = (struct level){ .planned = -1 };
}

/* Names the points of a subtest after it; whether one is bad. */
static bool
name_subtest(struct tap *t, const struct point *parent)
{
	bool is_bad = false;

	for (size_t i = t->n; i && t->v[i - 1].level > parent->level; i--) {
		struct point *p = &t->v[i - 1];
		if (strlen(p->title) < TITLE)
			p->title = str("%s/%s", parent->title, p->title);
		t->bytes += strlen(p->title);
		p->level = parent->level;
		if (parent->verdict == PASSED && parent->text && p->verdict == FAILED) {
			p->verdict = PASSED;    /* the parent's TODO is theirs */
			p->text = parent->text;
		}
		is_bad = is_bad || p->verdict == FAILED || p->verdict == BROKEN;
	}
	return is_bad;
}

/* Takes the number of a result and what stands before its name from s. */
static const char *
read_number(struct tap *t, const char *s, int level)
{
	struct level *l = &t->at[level];
	char *end = (char *)s + strspn(s, " \t");
	int64_t id = isdigit((unsigned char)*end) ? strtoll(end, &end, 10) : 0;

	if (level == 0 && id == 1 && l->seen && l->seen == l->planned)
		end_level(t, 0);        /* another program's */
	if (level == 0 && id == 1 && !l->seen)
		t->is_tap = true;
	if (id && id <= l->last)
		l->odd = "a test number is there twice, or out of order";
	l->last = id ? id : l->last;
	l->seen++;
	end += strspn(end, " \t");
	return *end == '-' && (!end[1] || end[1] == ' ') ? end + 1 + strspn(end + 1, " ") : end;
}

/* Sets the point's name from s, less a time and the \ of escapes. */
static void
read_title(struct tap *t, struct point *p, const char *s, size_t n)
{
	char *title = keep(t, s, trim(s, n)), *to;

	p->title = title;
	p->ms = take_time(title);
	for (char *from = to = title; *from && to < title + TITLE; *to++ = *from++)
		from += *from == '\\' && from[1] && strchr("#\\", from[1]);
	*to = '\0';
	if (!*p->title && t->subtest)
		p->title = t->subtest;  /* Perl: a subtest that was skipped */
	if (!*p->title)
		p->title = str("test %" PRId64, t->at[p->level].seen);
	t->subtest = NULL;
}

/* Reads the text behind "ok" or "not ok": 3 - name # SKIP why. */
static void
read_point(struct tap *t, const char *s, int level, bool ok)
{
	struct point p = { .level = level, .verdict = ok ? PASSED : FAILED };
	bool todo;

	end_text(t);
	for (int i = LEVELS; i > level; i--)
		end_level(t, i);
	s = read_number(t, s, level);
	const char *mark = find_directive(s, &todo);
	const char *why = mark + strspn(mark, "# \t");
	why += strcspn(why, " \t");
	why += strspn(why, " \t");
	if (todo) {
		p.verdict = PASSED;
		p.text = str("TODO %s", keep(t, why, strlen(why)));
	} else if (*mark && ok) {
		p.verdict = SKIPPED;
		p.message = keep(t, why, strlen(why));
	}
	read_title(t, &p, s, (size_t)(mark - s));
	bool alone = !t->n || t->v[t->n - 1].level <= level;
	/* The children stand for it, unless it failed and they did not. */
	if (!name_subtest(t, &p) && (alone || p.verdict == FAILED)) {
		add_point(t, p);
		t->takes_text = true;
	}
}

/* A plan: 1..4, or 1..0 # SKIP why; false if it is none, or not ours. */
static bool
read_plan(struct tap *t, const char *s, int level)
{
	struct level *l = &t->at[level];
	char *end;

	if (!starts(s, "1..") || !isdigit((unsigned char)s[3]))
		return false;
	int64_t planned = strtoll(s + 3, &end, 10);
	end += strspn(end, " ");
	if (*end && *end != '#')
		return false;           /* 1..5 of something */
	if (l->planned >= 0 && (level || l->planned != l->seen))
		return false;           /* some output */
	if (l->planned >= 0)
		end_level(t, level);
	if (level == 0 && planned == 0 && !l->seen) {
		read_point(t, str("[plan] %s", *end ? end : "# SKIP"), 0, true);
		l->seen = 0;
		t->is_tap = true;
	}
	l->planned = planned;
	t->plan = t->plan || level == 0;
	return true;
}

/* A line about the last point: diagnostics, or YAML of which the message and
 * how long it took are taken. */
static void
read_text(struct tap *t, const char *line, size_t indent)
{
	static const char *const keys[] = { "message: ", "error: " };
	const char *s = line + indent;
	bool here = t->message_next || (!t->yaml && *s == '#');

	if (!t->takes_text)
		return;
	struct point *p = &t->v[t->n - 1];
	if (t->text.n < DIAGNOSTICS && p->verdict == FAILED)
		buf_fmt(&t->text, "%s\n", line);
	if (t->yaml == indent + 1 && !strcmp(s, "..."))
		t->yaml = 0;
	else if (!t->yaml && indent && !strcmp(s, "---"))
		t->yaml = indent + 1;
	else if (t->yaml && starts(s, "duration_ms: "))
		p->ms = strtod(s + 13, NULL);
	for (size_t i = 0; t->yaml && i < LEN(keys); i++)
		if (starts(s, keys[i])) {
			s += strlen(keys[i]);
			here = true;
		}
	s += strspn(s, "# \t");
	size_t n = strlen(s);
	if (!here || !n || p->message)
		return;
	t->message_next = t->yaml && !t->message_next && (*s == '|' || *s == '>');
	if (n > 1 && (*s == '"' || *s == '\'') && s[n - 1] == *s)
		p->message = keep(t, s + 1, n - 2);
	else if (!t->message_next)
		p->message = keep(t, s, n);
}

/* Whether rest, behind "ok", is that of a result: below the first level, where
 * it may be any output, only with a number; above it not Go's, with a tab. */
static bool
is_result(const char *rest, int level)
{
	if (*rest == ' ' && isdigit((unsigned char)rest[1]))
		return true;
	return level == 0 && (!*rest || (*rest == ' ' && rest[strspn(rest, " ")] != '\t'));
}

static void
read_line(struct tap *t, const char *line)
{
	size_t indent = strspn(line, " ");
	int level = indent / 4 > LEVELS ? LEVELS : (int)(indent / 4);
	const char *s = line + indent;
	bool ok = starts(s, "ok");

	if (indent + 1 < t->yaml && *s)
		t->yaml = 0;            /* it was never ended */
	if (t->yaml || indent % 4 || level > t->depth + 1) {
		read_text(t, line, indent);
	} else if ((ok || starts(s, "not ok")) && is_result(s + (ok ? 2 : 6), level)) {
		t->depth = level;
		read_point(t, s + (ok ? 2 : 6), level, ok);
	} else if (starts(s, "# Subtest")) {
		t->depth = level;
		s += strcspn(s, ":");
		s += *s == ':' ? 1 + strspn(s + 1, " ") : 0;
		t->subtest = keep(t, s, strlen(s));
	} else if (starts(s, "Bail out!")) {
		t->bail = keep(t, s, strlen(s));
	} else if (read_plan(t, s, level)) {
		t->depth = level;
	} else if (starts(line, "TAP version ")) {
		t->is_tap = true;
	} else {
		read_text(t, line, indent);
	}
}

/* Reads the log's lines, and says what never came. */
static void
read_log(struct tap *t, FILE *f)
{
	struct sink clean = { .limit = 0 };
	char line[16384];

	while (t->bytes <= TAP_MAX && fgets(line, sizeof(line), f)) {
		sink_begin(&clean, INT32_MAX, false);
		sink_text(&clean, line, trim(line, strlen(line)), true);
		sink_end(&clean);
		read_line(t, clean.b.s + (starts(clean.b.s, "\xef\xbb\xbf") ? 3 : 0));
	}
	buf_free(&clean.b);
	end_text(t);
	t->is_tap = t->is_tap || (t->plan && t->n);
	for (int i = LEVELS; i > 0; i--)
		end_level(t, i);
	if (t->subtest && *t->subtest)
		name_subtest(t, &(struct point){ .verdict = FAILED, .title = t->subtest });
	struct point p = { .verdict = BROKEN, .title = "[plan]", .message = t->bail };
	if (t->bytes > TAP_MAX && !t->bail)
		p.message = "too much TAP; the rest was not read";
	else if (!t->n && t->at[0].planned < 0 && !t->bail)
		p.message = "there is neither a plan nor a test";
	if (p.message)
		add_point(t, p);
	else if (!t->n || t->at[0].planned <= 0 || t->at[0].seen)
		end_level(t, 0);        /* else a number behind the last result */
}

static void
write_point(struct buf *b, const struct point *p, const char *name)
{
	static const char *const element[] = { "system-out", "failure", "skipped", "error" };

	buf_str(b, "<testcase");
	xml_attribute(b, "name", p->title);
	xml_attribute(b, "classname", name);
	if (p->ms > 0 && p->ms < 1e10)
		buf_fmt(b, " time=\"%.6f\"", p->ms / 1e3);
	buf_fmt(b, "><%s", element[p->verdict]);
	if (p->verdict != PASSED)
		xml_attribute(b, "message", p->message ? p->message : "not ok");
	buf_char(b, '>');
	xml_escape(b, p->text ? p->text : "", false);
	buf_fmt(b, "</%s></testcase>\n", element[p->verdict]);
}

int
xml_from_tap(const char *log, const char *path, const char *name, int64_t ms)
{
	int fd = open_regular(log, O_RDONLY), result = 0;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	struct tap t = { .bytes = 0 };
	struct buf b = scratch_buf();

	if (!f) {
		close_keep(fd);
		return 0;
	}
	for (size_t i = 0; i <= LEVELS; i++)
		t.at[i].planned = -1;
	read_log(&t, f);
	fclose(f);                      /* only read from */
	name = shown(name);
	buf_str(&b, "<testsuite");
	xml_attribute(&b, "name", name);
	buf_fmt(&b, " time=\"%.3f\">\n", (double)ms / 1000);
	for (size_t i = 0; i < t.n; i++)
		write_point(&b, &t.v[i], name);
	buf_str(&b, "</testsuite>\n");
	if (t.is_tap)
		result = file_write(path, b.s, b.n, 0666) < 0 ? -1 : 1;
	free(t.v);
	buf_free(&t.text);
	return result;
}
