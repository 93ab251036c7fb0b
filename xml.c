/*
 * xml.c: reads XML as tools write it, and text as tests print it.
 *
 * The reader pulls: xml_next() gives a start tag, an end tag or text, out of a
 * window of the file that slides along.  It is iterative and forgiving: no
 * entity is expanded, nothing is fetched, an unknown byte becomes \xNN.  A file
 * that is not well-formed is read as far as it goes, and the first thing that
 * was wrong is remembered.
 *
 * Text goes into a sink, which cleans it: UTF-8 that XML 1.0 can hold, without
 * the escape sequences of terminals, escaped where the caller wants it, and cut
 * at a limit.
 *
 * The last section makes a report of TAP.
 */
#include "prun.h"
#include <ctype.h>
#include <strings.h>

#define WINDOW 65536
#define HELD 32         /* bytes held back, so that no reference is cut */
#define ATTRIBUTES 256  /* of a tag, at most */

enum charset { RAW, LATIN1, UTF16LE, UTF16BE };

struct reader {
	int fd;
	enum charset charset;
	bool eof, empty;        /* empty: the END of an empty tag is due */
	const char *const *roots;
	int64_t limit, most;    /* bytes: of an attribute; of the file */
	int64_t at;             /* bytes read */
	char name[64];          /* of the tag, without its prefix */
	size_t nattrs, nrest;
	struct buf attrs;       /* name NUL value NUL ... */
	struct sink value;
	const char *broken;     /* the first thing that was wrong, or NULL */
	int64_t broken_at;
	char *s, *end;          /* what is left of the window */
	unsigned char raw[WINDOW / 4];  /* of another charset */
	unsigned char rest[4];  /* of a character cut by a read */
	char window[WINDOW];
};

static const char special[] = "<>&\r\"\n\t";
static const char *const reference[] = {
	"&lt;", "&gt;", "&amp;", "&#13;", "&quot;", "&#10;", "&#9;"
};

/* ---- text: whatever comes in, clean UTF-8 goes out ---- */

void
sink_begin(struct sink *t, int64_t limit, bool escape)
{
	t->b.n = t->npending = t->head = 0;
	t->limit = limit;
	t->cut = 0;
	t->escape = escape;
}

/* The last place up to i < n where text may be cut: between characters, and
 * not in a reference. */
static size_t
boundary(const char *s, size_t i)
{
	size_t k;

	while (i && ((unsigned char)s[i] & 0xc0) == 0x80)
		i--;
	for (k = 1; k < 6 && k <= i && s[i - k] != ';'; k++)
		if (s[i - k] == '&')
			return i - k;
	return i;
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

/* A terminal's escape sequence is held back, and vanishes when it is whole: CSI,
 * ESC [ ... final byte, or OSC, ESC ] ... BEL or ESC \.  What only looks like one
 * is text. */
static void
put_char(struct sink *t, const char *s, size_t n)
{
	unsigned char c = (unsigned char)*s;
	size_t i, held = t->npending;
	bool csi = held > 1 && t->pending[1] == '[', osc = held > 1 && !csi;
	bool goes_on = c == 27, whole = false;

	if (csi) {
		goes_on = c >= ' ' && c < 0x7f;
		whole = c >= '@';
	} else if (osc) {
		goes_on = c >= ' ' || c == 7 || c == 27;
		whole = c == 7 || (c == '\\' && t->pending[held - 1] == 27);
	} else if (held) {
		goes_on = c == '[' || c == ']';
	}
	if (goes_on && n == 1 && held < sizeof(t->pending)) {
		t->pending[held] = (char)c;
		t->npending = whole ? 0 : held + 1;
		return;
	}
	t->npending = 0;
	for (i = 0; i < held; i++)
		emit_char(t, t->pending + i, 1);
	if (held && c == 27)
		put_char(t, s, n);      /* another one begins */
	else
		emit_char(t, s, n);
}

static size_t
encode(char *s, unsigned long c)
{
	size_t n = 1 + (size_t)(c >= 0x80) + (c >= 0x800) + (c >= 0x10000), i;

	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return encode(s, 0xfffd);
	for (i = n - 1; i > 0; i--) {
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
	static const char *const named[] = {
		"&lt;<", "&gt;>", "&amp;&", "&quot;\"", "&apos;'"
	};
	static const char digits[] = "0123456789abcdef";
	const char *digit;
	unsigned long code = 0, base;
	size_t i, k, first;
	char utf8[4];

	for (k = 0; n > 3 && k < LEN(named); k++) {
		i = s[1] == named[k][1] ? strlen(named[k]) - 1 : SIZE_MAX;
		if (i <= n && !memcmp(s, named[k], i)) {
			put_char(t, named[k] + i, 1);
			return i;
		}
	}
	if (n < 4 || s[1] != '#')
		return 0;
	base = s[2] == 'x' ? 16 : 10;
	first = s[2] == 'x' ? 3 : 2;
	for (i = first; i < n && s[i] != ';'; i++) {
		digit = strchr(digits, tolower((unsigned char)s[i]));
		if (!digit || (unsigned long)(digit - digits) >= base)
			return 0;
		if (code < 0x200000)
			code = code * base + (unsigned long)(digit - digits);
	}
	if (i == n || i == first)
		return 0;
	k = encode(utf8, code);
	put_char(t, utf8, k);
	return i + 1;
}

/* How many bytes from s on need no thought: ASCII but controls, < > &. */
static size_t
plain(const char *s, size_t n)
{
	static const uint64_t ones = UINT64_C(0x0101010101010101);
	uint64_t v, hit;
	unsigned char c;
	size_t i = 0, end;

	/* Eight at a time.  A byte is hit when it is above 0x7f, below 0x20 or one of
	 * three; a newline, and a borrow that hits one too many, are sorted out by the
	 * second loop. */
	for (;;) {
		for (; i + 8 <= n; i += 8) {
			memcpy(&v, s + i, 8);
			hit = v | (v - ones * 0x20) | ((v ^ ones * '<') - ones)
				| ((v ^ ones * '>') - ones) | ((v ^ ones * '&') - ones);
			if (hit & ones * 0x80)
				break;
		}
		for (end = i + 8 < n ? i + 8 : n; i < end; i++) {
			c = (unsigned char)s[i];
			if ((c < ' ' && c != '\n' && c != '\t') || c >= 0x80 || c == '<'
			|| c == '>' || c == '&')
				return i;
		}
		if (i == n)
			return n;
	}
}

void
sink_text(struct sink *t, const char *s, size_t n, bool raw)
{
	size_t i, k;
	unsigned c;

	for (i = 0; i < n; i += k) {
		k = t->npending ? 0 : plain(s + i, n - i);
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
	char said[80];
	size_t i, n;

	for (i = 0; i < t->npending; i++)
		emit_char(t, t->pending + i, 1);
	buf_add(&t->b, "", 0);
	if ((int64_t)t->b.n > t->limit)
		cut_middle(t);
	if (!t->cut)
		return;
	n = (size_t)snprintf(said, sizeof(said),
		"\n[prun: %" PRId64 " bytes cut, see report-limit]\n", t->cut);
	buf_add(&t->b, said, n);        /* to have the room */
	memmove(t->b.s + t->head + n, t->b.s + t->head, t->b.n - n - t->head);
	memcpy(t->b.s + t->head, said, n);
}

void
xml_escape(struct buf *b, const char *s, bool attribute)
{
	size_t n;

	for (; *s; s += n) {
		n = strcspn(s, attribute ? special : "<>&\r");
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

/* Converts n bytes of another charset into at most three times as many. */
static size_t
convert(struct reader *r, const unsigned char *in, size_t n, char *to)
{
	/* windows-1252's 0x80 to 0x9f, which Latin-1 reports mean as well */
	static const unsigned short cp1252[32] = {
		0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021,
		0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d, 0x17d, 0x8f,
		0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
		0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178
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
			low = i + 3 < n ? (unsigned long)in[i + 2 + hi] << 8 : 0;
			low |= i + 3 < n ? in[i + 2 + !hi] : 0;
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

void
xml_breaks(struct reader *r, const char *what)
{
	if (r->broken)
		return;
	r->broken = what;
	r->broken_at = r->at - (r->end - r->s);
}

/* Slides the window and reads more; false at the end of the file. */
static bool
fill(struct reader *r)
{
	size_t left = (size_t)(r->end - r->s), room = WINDOW - left;
	ssize_t n;

	if (r->eof || room < WINDOW / 4)
		return false;
	if (r->at > r->most) {
		xml_breaks(r, "is too long, see report-limit");
		r->eof = true;
		return false;
	}
	memmove(r->window, r->s, left);
	r->s = r->window;
	r->end = r->window + left;
	if (r->charset != RAW) {
		memcpy(r->raw, r->rest, r->nrest);
		room = room / 3 < sizeof(r->raw) ? room / 3 : sizeof(r->raw);
		room -= r->nrest;
	}
	do
		n = read(r->fd, r->charset == RAW ? r->end : (char *)r->raw + r->nrest, room);
	while (n < 0 && errno == EINTR);
	if (n < 0 && !r->broken)
		r->broken = "cannot be read";
	r->eof = n <= 0;
	n = n > 0 ? n : 0;
	r->at += n;
	r->end += r->charset == RAW ? (size_t)n : convert(r, r->raw, r->nrest + (size_t)n, r->end);
	return !r->eof;
}

bool
xml_is_file(const char *name)
{
	size_t n = strlen(name);

	return n > 4 && !strcasecmp(name + n - 4, ".xml");
}

/* Sets the charset by the first bytes or by the declaration that they are; skips
 * a byte order mark of UTF-8. */
static void
find_charset(struct reader *r)
{
	static const char *const latin[] = {
		"iso-8859-1", "iso_8859-1", "latin1", "latin-1", "windows-1252", "cp1252"
	};
	char head[200], *s;
	size_t i, n = (size_t)(r->end - r->s);

	if (n >= 3 && !memcmp(r->s, "\xef\xbb\xbf", 3))
		r->s += 3;
	else if (n >= 2 && (!memcmp(r->s, "\xff\xfe", 2) || !memcmp(r->s, "<\0", 2)))
		r->charset = UTF16LE;
	else if (n >= 2 && (!memcmp(r->s, "\xfe\xff", 2) || !memcmp(r->s, "\0<", 2)))
		r->charset = UTF16BE;
	n = (size_t)(r->end - r->s);
	n = n < sizeof(head) - 1 ? n : sizeof(head) - 1;
	for (i = 0; i < n; i++)         /* a NUL ends it, which is well */
		head[i] = (char)tolower((unsigned char)r->s[i]);
	head[n] = '\0';
	s = strstr(head, "<?xml");
	s = s ? strstr(s, "encoding") : NULL;
	if (!s || r->charset != RAW)
		return;
	s += 8 + strspn(s + 8, " =\"'");
	for (i = 0; i < LEN(latin); i++)
		if (starts(s, latin[i]))
			r->charset = LATIN1;
}

struct reader *
xml_open(const char *path, const char *const *roots, int64_t limit, int64_t most)
{
	/* Another file that is not regular might never end, or never begin. */
	int fd = !strcmp(path, "/dev/stdin") ? open(path, O_RDONLY | O_CLOEXEC)
		: open_regular(path, O_RDONLY);
	struct reader *r;

	if (fd < 0)
		return NULL;
	r = xcalloc(1, sizeof(*r));
	memset(r, 0, offsetof(struct reader, window));
	r->fd = fd;
	r->roots = roots;
	r->limit = limit;
	r->most = most;
	r->s = r->end = r->window;
	fill(r);
	find_charset(r);
	if (r->charset != RAW) {        /* again, from the start */
		lseek(r->fd, (unsigned char)*r->s >= 0xfe ? 2 : 0, SEEK_SET);
		r->s = r->end = r->window;
		r->eof = false;
		fill(r);
	}
	return r;
}

const char *
xml_name(const struct reader *r)
{
	return r->name;
}

const char *
xml_broken(const struct reader *r, int64_t *at)
{
	*at = r->broken_at;
	return r->broken;
}

static bool
is_space(int c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Whether c can stand in a name; a char as unsigned, or -1. */
static bool
is_name(int c)
{
	return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
		|| (c >= 'a' && c <= 'z') || (c > 0 && strchr("_-.:", c));
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

/* Where text that goes on behind end may be cut: not in the middle of a
 * reference, a character or CR LF.  There are more than HELD bytes. */
static char *
safe_end(char *end)
{
	char *p;
	int k;

	for (p = end - 1; p > end - HELD && *p != '&'; p--)
		;
	end = *p == '&' ? p : end;
	for (k = 0; k < 3 && ((unsigned char)end[-1] & 0xc0) == 0x80; k++)
		end--;
	end -= (unsigned char)end[-1] >= 0xc0;
	return end - (end[-1] == '\r');
}

/* Reads up to the byte stop into t (NULL: nowhere), and leaves that byte. */
static void
read_until(struct reader *r, struct sink *t, int stop, bool raw)
{
	char *hit, *to;

	do {
		if (r->end - r->s <= HELD)
			fill(r);
		hit = memchr(r->s, stop, (size_t)(r->end - r->s));
		to = hit ? hit : r->end;
		if (!hit && !r->eof && to - r->s > HELD)
			to = safe_end(to);
		if (t)
			sink_text(t, r->s, (size_t)(to - r->s), raw);
		r->s = to;
	} while (!hit && (!r->eof || r->s < r->end));
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
	int quote;

	r->s++;
	skip_space(r);
	quote = peek(r);
	if (quote == '"' || quote == '\'') {
		r->s++;
		read_until(r, &r->value, quote, false);
		r->s += peek(r) == quote;
		return;
	}
	while (in_tag(r) && !is_space(*r->s))
		sink_text(&r->value, r->s++, 1, true);
}

static const char *
find_attribute(const struct reader *r, const char *name)
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

/* Reads name="value" into attrs; false at the end of the tag. */
static bool
read_attribute(struct reader *r)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"0123456789_-.";
	char name[256];
	size_t n = 0;

	skip_space(r);
	if (!in_tag(r))
		return false;
	for (; in_tag(r) && !is_space(*r->s) && !strchr("=\"'", *r->s); r->s++)
		if (n < sizeof(name) - 1)
			name[n++] = *r->s;
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
	/* Not one of a namespace; of one that is there twice the first one wins. */
	if (r->nattrs == ATTRIBUTES)
		xml_breaks(r, "has a tag with too many attributes");
	else if (n && strspn(name, letters) == n && !strchr("-.0123456789", *name)
	&& !starts(name, "xmlns") && !find_attribute(r, name)) {
		buf_add(&r->attrs, name, n + 1);
		buf_add(&r->attrs, r->value.b.s, r->value.b.n + 1);
		r->nattrs++;
	}
	return true;
}

const char *
xml_attr(const struct reader *r, const char *name)
{
	const char *value = find_attribute(r, name);

	return value ? value : "";
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
	const char *point = strrchr(s, '.'), *comma = strrchr(s, ',');
	char text[64], *end, *part = text;
	size_t n = 0;
	double v, sum = 0;

	/* The last of these is the decimal point, unless it is there twice. */
	if (comma && (!point || comma > point))
		point = comma;
	if (point && strchr(s, *point) != point)
		point = NULL;
	for (; *s && n < sizeof(text) - 1; s++)
		if (s == point || (*s != ',' && *s != '.'))
			text[n++] = (char)(s == point ? '.' : *s);
	text[n] = '\0';
	for (v = strtod(part, &end); *end == ':' && v >= 0; v = strtod(part, &end)) {
		sum = (sum + v) * 60;
		part = end + 1;
	}
	v += sum;
	if (starts(end, "ms"))
		v /= 1000;
	if (!(v > 0))                   /* NaN is not, either */
		return 0;
	return v > 31536000 ? INT64_C(31536000000000) : (int64_t)(v * 1e6 + 0.5);
}

void
xml_attributes(struct buf *b, const struct reader *r, const char *skip)
{
	const char *s = r->attrs.s, *value;
	char word[300];
	size_t i;

	for (i = 0; i < r->nattrs; i++, s = value + strlen(value) + 1) {
		value = s + strlen(s) + 1;
		snprintf(word, sizeof(word), " %s ", s);
		if (!strstr(skip, word))
			xml_attribute(b, s, value);
	}
	buf_add(b, "", 0);
}

/* Whether the tag ahead is one of a root, or its end. */
static bool
begins(struct reader *r)
{
	const char *s, *colon;
	size_t i, n;

	while (r->end - r->s < (ptrdiff_t)sizeof(r->name) && fill(r))
		;
	s = r->s + 1;
	s += s < r->end && *s == '/';
	for (n = 0; s + n < r->end && is_name((unsigned char)s[n]); n++)
		;
	colon = memchr(s, ':', n);
	n -= colon ? (size_t)(colon + 1 - s) : 0;
	s = colon ? colon + 1 : s;
	for (i = 0; r->roots[i]; i++)
		if (strlen(r->roots[i]) == n && !memcmp(s, r->roots[i], n))
			return true;
	return false;
}

/* A start or end tag at '<'; what comes of it. */
static enum event
read_tag(struct reader *r)
{
	bool end = r->s[1] == '/';
	size_t n = 0;
	int c;

	for (r->s += end ? 2 : 1; is_name(peek(r)); r->s++) {
		if (*r->s == ':')       /* a prefix, bound or not */
			n = 0;
		else if (n < sizeof(r->name) - 1)
			r->name[n++] = *r->s;
	}
	r->name[n] = '\0';
	r->nattrs = r->attrs.n = 0;
	if (end)
		skip_space(r);
	while (!end && read_attribute(r))
		;
	r->empty = !end && ahead(r, "/>");
	c = peek(r);
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

/* Whether a tag begins here: at < and not a bare one. */
static bool
at_tag(const struct reader *r)
{
	int c = r->end - r->s > 1 ? (unsigned char)r->s[1] : -1;

	return c == '/' || (is_name(c) && !strchr("-.0123456789", c));
}

enum event
xml_next(struct reader *r, bool top)
{
	if (r->empty) {
		r->empty = false;
		return END;
	}
	for (;;) {
		if (top)                /* log lines, blanks, another's tags */
			read_until(r, NULL, '<', true);
		if (peek(r) < 0)
			return EOD;
		if (*r->s != '<')
			return TEXT;
		if (ahead(r, "<!--")) {
			if (!skip_past(r, "-->"))
				xml_breaks(r, "ends in a comment");
		} else if (ahead(r, "<![CDATA[") && !top) {
			r->s += 9;
			return DATA;
		} else if (ahead(r, "<?")) {
			skip_past(r, "?>");
		} else if (ahead(r, "<!DOCTYPE")) {
			skip_doctype(r);
		} else if (top && r->roots ? begins(r) : at_tag(r)) {
			return read_tag(r);
		} else if (!top) {
			return TEXT;    /* a bare < */
		} else {
			r->s++;
		}
	}
}

void
xml_text(struct reader *r, struct sink *t, enum event kind)
{
	if (kind == TEXT) {
		if (*r->s == '<') {
			if (t)
				sink_text(t, "<", 1, true);
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
			xml_breaks(r, "ends in a CDATA section");
			return;
		}
		if (t)
			sink_text(t, "]", 1, true);
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
 * and stand for their parent, whose line follows them.  What follows a result is
 * about it.  A plan that does not fit is a case [plan], an error; where it is
 * fulfilled another program may follow.  A failure is never taken for something
 * else: "not ok" passes with a TODO of its own only.
 */

#define LEVELS 8
#define TITLE 1000              /* bytes of a name, its parents' with it */
#define DIAGNOSTICS (1 << 20)   /* bytes of a failure's text */
#define TAP_MAX (64 << 20)      /* bytes of all that is kept of a log */

struct point {
	enum { PASSED, FAILED, SKIPPED, BROKEN } verdict;
	bool todo;
	int level;
	char *title, *text, *message, *reason;  /* "": unknown */
	int64_t us;             /* 0: unknown */
};

struct tap {
	struct point *v;
	size_t n, cap, bytes;
	/* of the results at each level; planned -1: no plan */
	int64_t planned[LEVELS + 1], seen[LEVELS + 1], last[LEVELS + 1];
	const char *odd[LEVELS + 1];    /* what is wrong with a number */
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
	return shown(str("%.*s", (int)n, s));
}

/* The # of a directive in s, or its end.  A blank stands before it; a TODO is a
 * word, and the first # that there is: neither "opens #todos" nor "as in #12 #
 * TODO" is one, as other harnesses see it. */
static const char *
find_directive(const char *s, bool *todo)
{
	const char *mark, *word;
	bool first = true;
	char before = ' ';

	*todo = false;
	for (mark = s; *mark; before = *mark++) {
		if (*mark != '#' || before == '\\')
			continue;
		word = mark + 1 + strspn(mark + 1, " \t");
		*todo = first && !strncasecmp(word, "todo", 4)
			&& !isalnum((unsigned char)word[4]);
		if (is_space(before) && (*todo || !strncasecmp(word, "skip", 4)))
			return mark;
		*todo = first = false;
	}
	return mark;
}

static size_t
trim(const char *s, size_t n)
{
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	return n;
}

/* Takes how long the test took from the end of its name: "# time=12.3ms", of
 * node-tap, or "in 12ms", of bats.  The name's length without it. */
static size_t
take_time(struct point *p, const char *s, size_t n)
{
	size_t from = n;
	const char *word;
	char *end;
	double ms;

	while (from && s[from - 1] != ' ')
		from--;
	word = s + from;
	if (from > 2 && starts(word, "time=") && !memcmp(word - 2, "# ", 2))
		from -= 2;
	else if (from > 3 && !memcmp(word - 4, " in ", 4))
		from -= 4;
	else
		return n;
	ms = strtod(word + (*word == 't' ? 5 : 0), &end);
	if (end != s + n - 2 || memcmp(end, "ms", 2) || !(ms > 0 && ms < 1e10))
		return n;
	p->us = (int64_t)(ms * 1000);
	return trim(s, from);
}

static void
add_point(struct tap *t, const struct point *p)
{
	t->v = grow(t->v, &t->cap, t->n + 1, sizeof(*t->v));
	t->v[t->n++] = *p;
}

static void
add_error(struct tap *t, int level, char *message)
{
	struct point p = { .verdict = BROKEN, .level = level, .title = "[plan]", .text = "",
		.message = message, .reason = "" };

	add_point(t, &p);
}

/* The text since the last point is about that one. */
static void
end_text(struct tap *t)
{
	if (t->takes_text && t->text.n)
		t->v[t->n - 1].text = str("%s", t->text.s);     /* the sink cleans it */
	t->bytes += t->text.n;
	t->takes_text = t->message_next = false;
	t->text.n = t->yaml = 0;
}

/* A level is over: are the results those that were planned? */
static void
end_level(struct tap *t, int level)
{
	int64_t planned = t->planned[level], seen = t->seen[level];

	if (planned >= 0 && planned != seen)
		add_error(t, level, str("%" PRId64 " tests were planned, %" PRId64 " were run",
			planned, seen));
	else if (t->odd[level])
		add_error(t, level, str("%s", t->odd[level]));
	else if (planned >= 0 && t->last[level] > planned)
		add_error(t, level, str("test %" PRId64 " is beyond the plan, 1..%" PRId64,
			t->last[level], planned));
	else if (planned < 0 && seen && level == 0)
		add_error(t, level, "there is no plan");
	t->planned[level] = -1;
	t->seen[level] = t->last[level] = 0;
	t->odd[level] = NULL;
}

/* Names the points of a subtest after it; whether one of them is bad. */
static bool
name_subtest(struct tap *t, size_t first, const struct point *parent)
{
	bool is_bad = false;
	struct point *p;

	for (; first < t->n; first++) {
		p = &t->v[first];
		if (strlen(p->title) < TITLE)
			p->title = str("%s/%s", parent->title, p->title);
		t->bytes += strlen(p->title);
		p->level = parent->level;
		if (parent->todo && p->verdict == FAILED) {
			p->verdict = PASSED;
			p->todo = true;
			p->reason = parent->reason;
		}
		is_bad = is_bad || p->verdict == FAILED || p->verdict == BROKEN;
	}
	return is_bad;
}

/* Takes the number of a result from s; returns what follows it. */
static const char *
read_number(struct tap *t, const char *s, int level)
{
	char *end = (char *)s;
	int64_t id = isdigit((unsigned char)*s) ? strtoll(s, &end, 10) : 0;

	if (level == 0 && id == 1 && t->seen[0] && t->seen[0] == t->planned[0])
		end_level(t, 0);        /* another program's */
	if (level == 0 && id == 1 && !t->seen[0])
		t->is_tap = true;
	if (id && id <= t->last[level])
		t->odd[level] = "a test number is there twice, or out of order";
	t->last[level] = id ? id : t->last[level];
	t->seen[level]++;
	return end + strspn(end, " \t");
}

/* Reads the text behind "ok" or "not ok": 3 - name # SKIP why. */
static void
read_point(struct tap *t, const char *s, int level, bool ok)
{
	struct point p = { .level = level, .text = "", .message = "" };
	struct buf name = { 0 };
	const char *mark;
	size_t i, n, first;
	bool is_bad;

	end_text(t);
	for (i = LEVELS; i > (size_t)level; i--)
		end_level(t, (int)i);
	s = read_number(t, s + strspn(s, " \t"), level);
	if (*s == '-' && (!s[1] || s[1] == ' '))
		s += 1 + strspn(s + 1, " ");
	mark = find_directive(s, &p.todo);
	if (!ok)
		p.verdict = p.todo ? PASSED : FAILED;
	else if (*mark && !p.todo)
		p.verdict = SKIPPED;
	n = trim(s, (size_t)(mark - s));
	n = take_time(&p, s, n);
	for (i = 0; i < n && name.n < TITLE; i++) {
		i += s[i] == '\\' && i + 1 < n && strchr("#\\", s[i + 1]);
		buf_char(&name, s[i]);
	}
	mark += *mark == '#';
	mark += strspn(mark, " \t");
	mark += strcspn(mark, " \t");
	mark += strspn(mark, " \t");
	p.reason = keep(t, mark, strlen(mark));
	p.title = keep(t, name.n ? name.s : "", name.n);
	buf_free(&name);
	if (!*p.title && t->subtest)
		p.title = t->subtest;   /* Perl: a subtest that was skipped */
	if (!*p.title)
		p.title = str("test %" PRId64, t->seen[level]);
	t->subtest = NULL;
	for (first = t->n; first && t->v[first - 1].level > level; first--)
		;
	is_bad = name_subtest(t, first, &p);
	/* The children stand for it, unless it failed and they did not. */
	if (first == t->n || (p.verdict == FAILED && !is_bad)) {
		add_point(t, &p);
		t->takes_text = true;
	}
}

/* A plan: 1..4, or 1..0 # SKIP why; false if it is none, or not ours. */
static bool
read_plan(struct tap *t, const char *s, int level)
{
	int64_t planned;
	char *end;

	if (!starts(s, "1..") || !isdigit((unsigned char)s[3]))
		return false;
	planned = strtoll(s + 3, &end, 10);
	end += strspn(end, " ");
	if (*end && *end != '#')
		return false;           /* 1..5 of something */
	if (t->planned[level] >= 0 && (level || t->planned[0] != t->seen[0]))
		return false;           /* some output */
	if (t->planned[level] >= 0)
		end_level(t, level);
	if (level == 0 && planned == 0 && !t->seen[0]) {
		read_point(t, str("[plan] %s", *end ? end : "# SKIP"), 0, true);
		t->seen[0] = 0;
		t->is_tap = true;
	}
	t->planned[level] = planned;
	t->plan = t->plan || level == 0;
	return true;
}

/* A line about the last point: diagnostics, or YAML of which the message and how
 * long it took are taken. */
static void
read_text(struct tap *t, const char *line, size_t indent)
{
	const char *s = line + indent;
	struct point *p;
	double ms;
	size_t n;

	if (!t->takes_text)
		return;
	p = &t->v[t->n - 1];
	if (t->text.n < DIAGNOSTICS && p->verdict == FAILED)
		buf_fmt(&t->text, "%s\n", line);
	if (t->yaml == indent + 1 && !strcmp(s, "...")) {
		t->yaml = 0;
	} else if (!t->yaml && indent && !strcmp(s, "---")) {
		t->yaml = indent + 1;
	} else if (t->yaml && starts(s, "duration_ms: ")) {
		ms = strtod(s + 13, NULL);
		p->us = ms > 0 && ms < 1e10 ? (int64_t)(ms * 1000) : 0;
	} else if (!*p->message && (t->message_next || (*s == '#' && !t->yaml)
	|| (t->yaml && (starts(s, "message: ") || starts(s, "error: "))))) {
		s += t->message_next ? 0 : strcspn(s, " \t");
		s += strspn(s, " \t");
		t->message_next = t->yaml && !t->message_next && (*s == '|' || *s == '>');
		n = strlen(s);
		if (n > 1 && (*s == '"' || *s == '\'') && s[n - 1] == *s)
			p->message = keep(t, s + 1, n - 2);
		else if (!t->message_next)
			p->message = keep(t, s, n);
	}
}

/* Whether rest, behind "ok", is that of a result: below the first level only with
 * a number, for it may be any output; above it not "ok  	package", of Go. */
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

/* Reads the log's lines, and says what never came.  The rest of a very long line
 * is not looked at. */
static void
read_log(struct tap *t, FILE *f)
{
	char line[16384];
	bool whole = true, goes_on, first = true;
	size_t n, i;

	while (t->bytes <= TAP_MAX && fgets(line, sizeof(line), f)) {
		n = strlen(line);
		goes_on = n == sizeof(line) - 1 && line[n - 1] != '\n';
		line[trim(line, n)] = '\0';
		if (whole)
			read_line(t, line + (first && starts(line, "\xef\xbb\xbf") ? 3 : 0));
		whole = !goes_on;
		first = false;
	}
	end_text(t);
	t->is_tap = t->is_tap || (t->plan && t->n);
	for (i = LEVELS; i > 0; i--)
		end_level(t, (int)i);
	for (i = t->n; i && t->v[i - 1].level > 0; i--)
		if (t->subtest && *t->subtest)
			t->v[i - 1].title = str("%s/%s", t->subtest, t->v[i - 1].title);
	if (t->bytes > TAP_MAX || t->bail)
		add_error(t, 0, t->bail ? t->bail : "too much TAP; the rest was not read");
	else if (!t->n && t->planned[0] < 0)
		add_error(t, 0, "there is neither a plan nor a test");
	else if (!t->n || t->planned[0] <= 0 || t->seen[0])
		end_level(t, 0);        /* else a number behind the last result */
}

static void
write_point(struct buf *b, const struct point *p, const char *name)
{
	static const char *const element[] = { "system-out", "failure", "skipped", "error" };
	const char *is = element[p->verdict], *message = p->message, *text = p->text;
	struct sink sink;

	buf_str(b, "<testcase");
	xml_attribute(b, "name", p->title);
	xml_attribute(b, "classname", name);
	if (p->us > 0)
		buf_fmt(b, " time=\"%.6f\"", (double)p->us / 1e6);
	if (p->verdict == SKIPPED)
		message = p->reason;
	else if (p->verdict == FAILED && !*message)
		message = "not ok";
	else if (p->verdict == PASSED)
		text = p->todo ? str("TODO %s", p->reason) : "";
	buf_fmt(b, "><%s", is);
	if (p->verdict != PASSED)
		xml_attribute(b, "message", message);
	memset(&sink, 0, sizeof(sink));
	sink_begin(&sink, DIAGNOSTICS, true);
	sink_text(&sink, text, strlen(text), true);
	sink_end(&sink);
	buf_fmt(b, ">%s</%s></testcase>\n", sink.b.s, is);
	buf_free(&sink.b);
}

int
xml_from_tap(const char *log, const char *path, const char *name, int64_t ms)
{
	int fd = open_regular(log, O_RDONLY), result = 0;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	struct tap t = { .bytes = 0 };
	struct buf b = { 0 };
	int64_t us = 0;
	size_t i;

	if (!f) {
		close_keep(fd);
		return 0;
	}
	for (i = 0; i <= LEVELS; i++)
		t.planned[i] = -1;
	read_log(&t, f);
	fclose(f);                      /* only read from */
	name = shown(name);
	for (i = 0; i < t.n; i++)
		us += t.v[i].us;
	buf_str(&b, "<testsuite");
	xml_attribute(&b, "name", name);
	if (!us)                        /* no case says how long it took */
		buf_fmt(&b, " time=\"%.3f\"", (double)ms / 1000);
	buf_str(&b, ">\n");
	for (i = 0; i < t.n && t.is_tap; i++)
		write_point(&b, &t.v[i], name);
	buf_str(&b, "</testsuite>\n");
	if (t.is_tap)
		result = file_write(path, b.s, b.n, 0666) < 0 ? -1 : 1;
	free(t.v);
	buf_free(&t.text);
	buf_free(&b);
	return result;
}
