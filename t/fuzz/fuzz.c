/*
 * fuzz: throws mutated reports at the reader and merger of junit.c.
 * usage: fuzz SECONDS SEED REPORT...
 *
 * Reads the reports, mutates and splices them, merges each result as a run's
 * report and as a bare one, and counts; what crashes aborts, and the input is
 * left in fuzz-input.xml.  The last 500 outputs are left in fuzz-out/, for
 * xmllint.  Built with -DLIBFUZZER by clang it is a libFuzzer target instead,
 * and checks each output with libxml2 if built with -DLIBXML2.
 */
#include "../../prun.h"
#ifdef LIBXML2
#include <libxml/parser.h>
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char *out;               /* where the merged report goes */

/* Another attempt or copy, whose cases are in many of the seeds. */
static const char known[] = "<testsuite name=\"s\"><testcase classname=\"c\" name=\"n\">"
	"<failure message=\"m\">t</failure></testcase><testcase name=\"z\"><error/></testcase>"
	"<testcase classname=\"c\" name=\"a\"/></testsuite>";

static void
must(bool true_, const char *what)
{
	if (true_)
		return;
	fprintf(stderr, "fuzz: %s\n", what);
	abort();
}

#ifdef LIBXML2
static void
must_be_xml(void)
{
	xmlDocPtr doc = xmlReadFile(out, NULL, XML_PARSE_NONET | XML_PARSE_HUGE);

	must(doc != NULL, "the output is not well-formed");
	xmlFreeDoc(doc);
}
#endif

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static char in[64];
	struct merge m = { 0 };
	static struct outcome ended[2];
	static const struct outcome *copies[] = { &ended[0], &ended[1] };
	static char other[64];
	struct part part[2];
	struct counts total, twice, counted;
	struct buf notes = { 0 };
	const char *why;
	size_t mark = scratch_mark();
	int kind, fd;

	if (!out) {
		snprintf(in, sizeof(in), "fuzz-input-%ld.xml", (long)getpid());
		snprintf(other, sizeof(other), "fuzz-other-%ld.xml", (long)getpid());
		must(file_write(other, known, strlen(known), 0666) == 0, "disk");
		out = xstrdup(str("fuzz-output-%ld.xml", (long)getpid()));
		mark = scratch_mark();
	}
	fd = open(in, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	must(fd >= 0 && write_all(fd, (const char *)data, n) == 0 && close(fd) == 0, "disk");
	m.limit = n % 3 ? 1 << 20 : 40;
	m.name = "fuzz";
	/* Attempts that failed, that passed at last, copies; a report of who knows what. */
	for (kind = 0; kind < 4; kind++) {
		memset(part, 0, sizeof(part));
		part[0].synthetic = kind < 3;
		part[0].run = part[0].plan = part[0].shard = "abcdef";
		part[0].suite = part[0].started = "abcdef";
		part[0].file = kind < 3 ? "t/fuzz.py" : NULL;
		part[0].result = kind == 1 ? FLAKY : FAIL;
		part[0].cause = kind == 1 ? CAUSE_NONE : CAUSE_EXIT;
		part[0].copies = kind == 2 ? copies : NULL;
		ended[0].result = n % 2 ? PASS : FAIL;
		ended[0].cause = n % 2 ? CAUSE_NONE : CAUSE_EXIT;
		ended[1].result = FAIL;
		ended[1].cause = CAUSE_EXIT;
		list_add(&part[0].reports, in);
		if (kind < 3)
			list_add(&part[0].reports, other);
		part[1] = part[0];
		must(junit_merge(&m, part, 2, out, &twice) == 0, "not written");
		must(junit_merge(&m, part, 1, out, &total) == 0, "not written");
		must(twice.tests == 2 * total.tests && twice.failures == 2 * total.failures
			&& twice.errors == 2 * total.errors && twice.skipped == 2 * total.skipped,
			"a part counts otherwise behind another");
#ifdef LIBXML2
		must_be_xml();
#endif
		list_free(&part[0].reports);
	}
	/* What we have written, we read, and count as we did. */
	must(junit_count(out, "t/fuzz.py", &counted, &notes, &why) == 1,
		"its own output is broken");
	must(counted.tests == total.tests && counted.failures == total.failures + total.errors
		&& counted.skipped == total.skipped, "its own output counts otherwise");
	if (n < 65536) {
		must(xml_from_tap(in, out, "fuzz", 0) >= 0, "TAP not written");
#ifdef LIBXML2
		must_be_xml();
#endif
	}
	buf_free(&notes);
	scratch_release(mark);
	return 0;
}

#ifndef LIBFUZZER
static uint64_t state;

static size_t
random_below(size_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return n ? state % n : 0;
}

/* Changes b in one of the ways in which reports go wrong. */
static void
mutate(struct buf *b, const struct buf *other)
{
	static const char *const bits[] = {
		"<", ">", "&", "\"", "'", "]]>", "<![CDATA[", "<!--", "-->", "<?", "<testcase",
		"</testcase>", "<testsuite>", "</testsuite>", "<failure message='x'>", "</failure>",
		"<system-out>", "&#27;[31m", "\033[", "&#x10ffff;", "&amp;", "\xff", "\xe2\x82",
		"\xef\xbf\xbf", "\r\n", "<flakyFailure>", "<stackTrace>", "<property name='a'>",
		"1..3\n", "not ok 1 - x\n", "ok # SKIP", "    ok 1 - y\n",
		"# Subtest: s\n", "\nok 2 - z # TODO\n", "\n  ---\n", "\n  ...\n", "Bail out!",
		"<property name='prun.shard' value='2/3'/>", "[[ATTACHMENT|a]]", "/>", "=", "<!DOCTYPE a ["
	};
	size_t at = random_below(b->n + 1), n, from;
	const char *bit;
	struct buf c = { 0 };

	buf_add(&c, b->s, at);
	switch (random_below(6)) {
	case 0:                 /* put something in */
		bit = bits[random_below(LEN(bits))];
		buf_str(&c, bit);
		buf_add(&c, b->s + at, b->n - at);
		break;
	case 1:                 /* take something out */
		n = random_below(b->n - at + 1) / 4;
		buf_add(&c, b->s + at + n, b->n - at - n);
		break;
	case 2:                 /* cut off */
		break;
	case 3:                 /* go on as another one */
		from = random_below(other->n + 1);
		buf_add(&c, other->s + from, other->n - from);
		break;
	case 4:                 /* say it again */
		n = random_below(b->n - at + 1) % 2000;
		buf_add(&c, b->s + at, n);
		buf_add(&c, b->s + at, b->n - at);
		break;
	default:                /* another byte */
		if (at < b->n) {
			buf_char(&c, (int)random_below(256));
			buf_add(&c, b->s + at + 1, b->n - at - 1);
		}
	}
	buf_free(b);
	*b = c;
	buf_add(b, "", 0);
}

int
main(int argc, char **argv)
{
	struct buf *seeds, b = { 0 };
	int64_t end, n = 0, k;
	int i, nseeds = 0;

	if (argc < 4)
		fatal(2, "usage: fuzz SECONDS SEED REPORT...");
	seeds = calloc((size_t)argc, sizeof(*seeds));
	for (i = 3; i < argc; i++)
		if (buf_read(&seeds[nseeds], argv[i]) == 0 && seeds[nseeds].n < 200000)
			nseeds++;
	state = strtoull(argv[2], NULL, 10) * 2654435761u + 88172645463325252u;
	mkdir("fuzz-out", 0777);
	for (end = clock_ms() + atoll(argv[1]) * 1000; clock_ms() < end; n++) {
		b.n = 0;
		i = (int)random_below((size_t)nseeds);
		buf_add(&b, seeds[i].s, seeds[i].n);
		for (k = (int64_t)random_below(6); k >= 0; k--)
			mutate(&b, &seeds[random_below((size_t)nseeds)]);
		LLVMFuzzerTestOneInput((const uint8_t *)b.s, b.n);
		if (n % 7 == 0)
			rename(out, str("fuzz-out/%d.xml", (int)(n / 7 % 500)));
	}
	printf("%" PRId64 " inputs\n", n);
	while (nseeds)
		buf_free(&seeds[--nseeds]);
	free(seeds);
	buf_free(&b);
	free(out);
	return 0;
}
#endif
