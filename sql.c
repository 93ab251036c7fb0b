/*
 * sql.c: how a database is reached: its URL, then a session with PostgreSQL.
 *
 * Userinfo of a URL ends at the first @ before a slash; ? and # are legal in a
 * password, and there are no fragments.  In a clone's URL only the database is
 * another: drivers read more into URLs than libpq.  What libpq, psql and the
 * environment get is written anew, as a DSN (host='h' dbname='x') of what libpq
 * knows: it finds nothing to complain of, which might show a password.
 *
 * libpq is loaded when first needed.  Where it cannot be, as from a static
 * binary, one psql reads statements from a pipe; from sql_send() up it is one.
 */
#include "prun.h"
#include <ctype.h>
#include <dlfcn.h>
#include <libgen.h>
#include <pwd.h>

/* ---- URLs ---- */

#define STEM_MAX 42             /* 63 less _w999999_abcdefghr999, see plan_clone() */

/* Where a URL's parts begin; user..host is user:password@, or nothing, but a
 * file's scheme.  What we do not know is all path, a DSN is all query. */
struct url {
	enum url_kind kind;
	const char *user, *host, *path, *query;
};

/* A parameter of a query or DSN, decoded; its value's text begins at from. */
struct param {
	char *key, *value;
	const char *from;
};

static const char blank[] = " \t\n";

/* Whether a word is one of words: " host port ". */
static bool
is_one(const char *word, const char *words)
{
	return strstr(words, str(" %s ", word)) != NULL;
}

/* What follows the :// of a URL, or NULL: a DSN may have one in a password. */
static const char *
after_scheme(const char *url)
{
	const char *s = strstr(url, "://");

	return s && strcspn(url, "= \t\n'") > (size_t)(s - url) ? s + 3 : NULL;
}

enum url_kind
url_kind(const char *url)
{
	static const char pg[] = " postgres postgresql postgis pgsql ecto jdbc:postgresql ";
	const char *rest = starts(url, "jdbc:") ? url + 5 : url;
	char *scheme = str("%.*s", (int)(rest - url + strcspn(rest, "+:")), url);

	if (strchr(rest, ':') && is_one(scheme, " sqlite jdbc:sqlite file "))
		return URL_FILE;
	if (!after_scheme(url))
		return strchr(url, '=') ? URL_DSN : URL_OTHER;
	return is_one(scheme, pg) ? URL_PG : URL_OTHER;
}

static struct url
split_url(const char *url)
{
	struct url u = { url_kind(url), url, url, url, url };

	if (u.kind == URL_DSN)
		return u;
	if (u.kind == URL_FILE) {
		u.host = strchr(starts(url, "jdbc:") ? url + 5 : url, ':') + 1;
		u.path = u.host + (starts(u.host, "//") ? 2 : 0);
	} else if (u.kind == URL_PG) {
		u.user = u.host = after_scheme(url);
		if (u.user[strcspn(u.user, "@/")] == '@')
			u.host = strchr(u.user, '@') + 1;
		u.path = u.host + strcspn(u.host, "/?");
	}
	u.query = u.path + strcspn(u.path, "?");
	return u;
}

/* The text up to one of stop, where *at is then; undoes %41, or in a DSN \A. */
static char *
read_text(const char **at, const char *stop, bool dsn)
{
	const char *s = *at;
	char *start = scratch(strlen(s) + 1), *out = start;

	for (; *s && !strchr(stop, *s); s++) {
		unsigned c = (unsigned char)*s;
		if (dsn && c == '\\' && s[1]) {
			c = (unsigned char)*++s;
		} else if (!dsn && c == '%' && strspn(s + 1, "0123456789abcdefABCDEF") > 1) {
			sscanf(s + 1, "%2x", &c);
			s += 2;
		}
		*out++ = (char)c;
	}
	*at = s;
	return start;
}

/* Reads the next parameter at *s, which moves behind it; false: none. */
static bool
next_param(const char **s, enum url_kind kind, struct param *p)
{
	bool dsn = kind == URL_DSN;

	*s += strspn(*s, dsn ? blank : "?&");
	const char *key = *s, *end = key;
	p->key = read_text(&end, dsn ? "= \t\n" : "=&", dsn);
	end += strspn(end, dsn ? blank : "");
	if (dsn && *end != '=')
		return false;
	end += *end == '=';
	end += strspn(end, dsn ? blank : "");
	p->from = end;
	if (dsn && *end == '\'') {
		end++;
		p->value = read_text(&end, "'", true);
		if (!*end || !strchr(blank, *++end))
			return false;
	} else {
		p->value = read_text(&end, dsn ? blank : "&", dsn);
	}
	*s = end;
	return *key;
}

/* Appends s in quotes; escape goes before these and before itself. */
static void
quote(struct buf *b, const char *s, char mark, char escape)
{
	buf_char(b, mark);
	for (; *s; s++) {
		if (*s == mark || *s == escape)
			buf_char(b, escape);
		buf_char(b, *s);
	}
	buf_char(b, mark);
}

static void
add_param(struct buf *b, const char *key, const char *value)
{
	buf_fmt(b, "%s%s=", b->n ? " " : "", key);
	quote(b, value, '\'', '\\');
}

/* Appends a URL's parameter to a DSN in libpq's words, if libpq knows it. */
static void
add_known(struct buf *b, const char *key, const char *value)
{
	static const char known[] = " host hostaddr port dbname user password passfile "
		"channel_binding options gssencmode sslmode sslcert sslkey sslpassword "
		"sslrootcert sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version "
		"ssl_max_protocol_version krbsrvname gsslib service target_session_attrs ";

	if (!strcmp(key, "ssl"))
		key = "sslmode";
	if (!strcmp(key, "sslmode") && is_one(value, " true TRUE no-verify "))
		value = "require";
	else if (!strcmp(key, "sslmode") && !strcmp(value, "false"))
		value = "disable";
	if (*value && is_one(key, known))
		add_param(b, key, value);
}

/* A URL or DSN of PostgreSQL as a DSN, in which the last of equal keys holds;
 * "" for any other. */
static const char *
to_dsn(const char *url)
{
	struct url u = split_url(url);
	const char *s = u.user;
	struct buf b = scratch_buf(), hosts = scratch_buf(), ports = scratch_buf();
	struct param p;

	if (u.kind != URL_PG)
		return u.kind == URL_DSN ? url : "";
	if (u.host > u.user) {
		add_known(&b, "user", read_text(&s, ":@", false));
		if (*s++ == ':')
			add_known(&b, "password", read_text(&s, "@", false));
	}
	/* libpq takes two lists. */
	for (s = u.host; s < u.path; s++) {
		bool bracket = *s == '[';
		s += bracket;
		buf_str(&hosts, read_text(&s, bracket ? "],/?" : ":,/?", false));
		s += *s == ']';
		s += *s == ':';
		buf_str(&ports, read_text(&s, ",/?", false));
		buf_str(&hosts, *s == ',' ? "," : "");
		buf_str(&ports, *s == ',' ? "," : "");
	}
	add_known(&b, "host", hosts.s);
	add_known(&b, "port", ports.s);
	s = u.path + 1;
	if (u.query > u.path)
		add_known(&b, "dbname", read_text(&s, "?", false));
	while (next_param(&u.query, URL_PG, &p))
		add_known(&b, p.key, p.value);
	return b.s;
}

char *
url_param(const char *url, const char *name)
{
	const char *dsn = to_dsn(url);
	struct param p;
	char *found = NULL;

	while (next_param(&dsn, URL_DSN, &p))
		if (!strcmp(p.key, name))
			found = p.value;
	return found;
}

char *
url_admin(const char *url, const char *name, const char *less)
{
	const char *dsn = to_dsn(url);
	struct buf b = scratch_buf();
	struct param p;

	while (next_param(&dsn, URL_DSN, &p))
		if (strcmp(p.key, "dbname") && !is_one(p.key, less))
			add_param(&b, p.key, p.value);
	add_param(&b, "dbname", name);
	return b.s;
}

void
url_env(const char *url, struct list *env)
{
	const char *dsn = to_dsn(url);
	struct param p;

	while (next_param(&dsn, URL_DSN, &p)) {
		struct buf b = scratch_buf();
		buf_str(&b, "PG");
		for (const char *s = strcmp(p.key, "dbname") ? p.key : "database"; *s; s++)
			if (*s != '_')
				buf_char(&b, toupper((unsigned char)*s));
		list_add(env, str("%s=%s", b.s, p.value));
	}
}

char *
url_file(const char *url)
{
	struct url u = split_url(url);
	char *path = str("%.*s", (int)(u.query - u.path), u.path);
	struct stat st;

	/* sqlite:///r.db is relative, sqlite:////r.db is not (SQLAlchemy);
	 * where only the file at the root exists, that one is meant. */
	if (starts(url, "sqlite") && path[0] == '/'
	&& (path[1] == '/' || stat(path + 1, &st) == 0 || stat(path, &st) < 0))
		path++;
	return path;
}

char *
url_clone_file(const char *url, const char *name, const char *dir)
{
	char *base = basename(url_file(url));

	return str("%s/%s%s", dir, name, base + 1 + strcspn(base + 1, "."));
}

char *
url_template(const char *url)
{
	enum url_kind kind = url_kind(url);

	if (kind == URL_OTHER || kind == URL_FILE) {
		char *base = basename(url_file(url));
		return str("%.*s", 1 + (int)strcspn(base + 1, "."), base);
	}
	/* As libpq chooses. */
	char *name = url_param(url, "dbname");
	name = name ? name : getenv("PGDATABASE");
	name = name ? name : url_param(url, "user");
	name = name ? name : getenv("PGUSER");
	if (!name && getpwuid(geteuid()))
		name = getpwuid(geteuid())->pw_name;
	return str("%s", name ? name : "");
}

const char *
url_check(const char *url)
{
	struct url u = split_url(url);
	struct param p;

	if (starts(url, "prisma+postgres:"))
		return "is the URL of Prisma's proxy; use the database's own URL";
	if (u.kind == URL_PG && (u.host[strcspn(u.host, "/?@")] == '@'
	|| (u.host == u.user && memchr(u.host, ':', u.path - u.host) && strchr(u.path, '@'))))
		return "has an @ or / in its password; write %40 or %2F";
	while (u.kind == URL_DSN && next_param(&u.query, URL_DSN, &p))
		;
	if (u.kind == URL_DSN && *u.query)
		return "is not a list of key=value; put a value with blanks in quotes";
	if (u.kind == URL_FILE && (!*url_file(url) || strstr(url, ":memory:")))
		return "does not name a file to copy";
	if (u.kind == URL_OTHER)
		return "is a kind of database that prun cannot clone; set db-clone and db-drop";
	return NULL;
}

char *
url_stem(const char *url)
{
	static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyz_";
	char *name = url_template(url);
	unsigned h = hash(HASH_BEGIN, name) & 0xffff;

	if (strlen(name) <= STEM_MAX && !name[strspn(name, plain)])
		return name;
	for (char *s = name; *s; s++)
		if (!strchr(plain, *s))
			*s = isupper((unsigned char)*s) ? (char)(*s | 32) : '_';
	return str("%.*s_%04x", STEM_MAX - 5, name, h);
}

/* Appends the query with value in the place of the values of these keys. */
static bool
replace_params(struct buf *b, const struct url *u, const char *keys, const char *value)
{
	const char *s = u->query, *from = s;
	struct param p;

	while (next_param(&s, u->kind, &p))
		if (is_one(p.key, keys)) {
			buf_add(b, from, (size_t)(p.from - from));
			buf_str(b, value);
			from = s;
		}
	buf_str(b, from);
	return from != u->query;
}

char *
url_clone(const char *url, const char *name, const char *dir)
{
	struct url u = split_url(url);
	struct buf query = scratch_buf();

	if (u.kind == URL_FILE)
		return str("%.*s%s%s%s", (int)(u.host - url), url, starts(url, "sqlite")
			? "///" : "", url_clone_file(url, name, dir), u.query);
	bool given = replace_params(&query, &u, " dbname ", name);
	if (u.kind == URL_DSN)
		return given ? query.s : str("%s dbname=%s", url, name);
	if (given && u.query <= u.path + 1)
		return str("%.*s%s", (int)(u.query - url), url, query.s);
	return str("%.*s/%s%s", (int)(u.path - url), url, name, query.s);
}

char *
url_masked(const char *url)
{
	struct url u = split_url(url);
	const char *scheme = after_scheme(url), *at = strrchr(url, '@');
	const char *colon = scheme ? strchr(scheme, ':') : NULL;
	struct buf b = scratch_buf();

	/* Who knows where its password ends? */
	if (u.kind == URL_DSN && url_check(url))
		return str("%.*s...", (int)strcspn(url, "="), url);
	if (scheme)
		u.query = scheme + strcspn(scheme, "?");
	/* With a bare @ or / in it, all before the last @ may be secret. */
	if (colon && at && colon < at) {
		buf_fmt(&b, "%.*s***", (int)(colon - url) + 1, url);
		url = at;
		u.query = at + strcspn(at, "?");
	}
	buf_add(&b, url, (size_t)(u.query - url));
	replace_params(&b, &u, " password sslpassword ", "***");
	return b.s;
}

/* ---- errors ---- */

/* Also our own: 08001 there never was contact, 08006 it was lost, 57014
 * cancelled, 58030 no psql, late. */
static const struct error {
	const char *state;      /* an SQLSTATE or its beginning */
	enum trouble trouble;
	const char *advice;
} errors[] = {
	{ "08001", SQL_PASSING, "" },
	{ "08", SQL_LOST, "" },
	{ "57P03", SQL_NOT_YET, "" },
	{ "57", SQL_LOST, "" },
	{ "late", SQL_LATE, "" },
	{ "3D000", SQL_OTHER, "; create it, or let setup create it" },
	{ "42501", SQL_FORBIDDEN, "; the role needs CREATEDB and must own the template, "
		"unless it is marked IS_TEMPLATE" },
	{ "55006", SQL_IN_USE, "" },
	{ "25006", SQL_OTHER, "; it is a standby or read-only, so set db-admin to the "
		"server that writes" },
	{ "42P04", SQL_PASSING, "; another run has the same id" },
	{ "23505", SQL_PASSING, "; another run has the same id" },
	{ "42809", SQL_FORBIDDEN, "" },
	{ "53300", SQL_CROWDED, "; raise max_connections, or lower jobs" },
	{ "XX000", SQL_OTHER, "; if the collation version is the problem, run "
		"ALTER DATABASE ... REFRESH COLLATION VERSION" },
	{ "28", SQL_OTHER, "; check the user and password of db" },
	{ "", SQL_OTHER, "" }
};

/* An error of an SQLSTATE; of the message its first line. */
static struct reply
sql_error(const char *state, const char *message)
{
	char *line = str("%.*s", (int)strcspn(message, "\n"), message);
	const struct error *e = errors;

	while (!starts(state, e->state))
		e++;
	return (struct reply){ e->trouble, shown(line), e->advice, NULL, 0 };
}

/* An error as libpq and psql print it: "ERROR:  42P04: text", then "DETAIL:
 * text"; without such a line the connection is the trouble. */
static struct reply
scan_error(const char *text)
{
	/* psql does not tell the state of an error that it got connecting. */
	static const char *const words[][2] = {
		{ "FATAL:  ", "28000" }, { "the database system is", "57P03" },
		{ "too many", "53300" }, { "remaining connection slots", "53300" }
	};
	const char *level = strstr(text, ":  "), *detail = strstr(text, "DETAIL:  ");
	const char *state = "08006";

	for (size_t i = 0; i < LEN(words); i++)
		if (strstr(text, words[i][0]))
			state = words[i][1];
	if (level && strlen(level) > 10 && level[8] == ':') {
		state = level + 3;
		text = level + 10;
	}
	text += strspn(text, "\n");
	if (detail)
		text = str("%.*s (%.*s)", (int)strcspn(text, "\n"), text,
			(int)strcspn(detail + 9, "\n"), detail + 9);
	return sql_error(state, text);
}

/* Waits for a descriptor; no error, or late, or cancelled. */
static struct reply
await_fd(struct session *db, int fd, int events, int64_t deadline, bool heed)
{
	struct worker *w = db->w;
	struct pollfd p[3] = { { fd, (short)events, 0 } };

	while (!p->revents && !(heed && w->cancelled) && !proc_late(w, deadline))
		proc_wait(w, p, 1, deadline);
	if (p->revents)
		return (struct reply){ 0 };
	return heed && w->cancelled ? sql_error("57014", "cancelled")
		: sql_error("late", "the server did not answer");
}

/* ---- libpq ---- */

/* libpq's; they never change. */
enum { POLL_FAILED, POLL_READING, POLL_WRITING, POLL_OK };

static struct {
	void *(*connectStart)(const char *);
	int (*connectPoll)(void *);
	int (*socket)(void *);
	char *(*errorMessage)(void *);
	int (*setErrorVerbosity)(void *, int);
	int (*sendQuery)(void *, const char *);
	int (*consumeInput)(void *);
	int (*isBusy)(void *);
	void *(*getResult)(void *);
	int (*ntuples)(void *);
	int (*nfields)(void *);
	char *(*getvalue)(void *, int, int);
	void (*clear)(void *);
	void (*finish)(void *);
	int (*backendPID)(const void *);
} pq;

/* in the order of the struct */
static const char *const pq_names[] = {
	"PQconnectStart", "PQconnectPoll", "PQsocket", "PQerrorMessage", "PQsetErrorVerbosity",
	"PQsendQuery", "PQconsumeInput", "PQisBusy", "PQgetResult", "PQntuples", "PQnfields",
	"PQgetvalue", "PQclear", "PQfinish", "PQbackendPID"
};

bool
sql_libpq(void)
{
	/* Not that of macOS, which can crash in a forked process. */
	static const char *const names[] = { "libpq.so.5", "libpq.so",
		"/usr/pkg/lib/libpq.so.5" };
	static int have = -1;
	const char *wanted = getenv("PRUN_LIBPQ");
	void *lib = NULL;

	if (have >= 0)
		return have;
	if (!wanted || !*wanted) {
		for (size_t i = 0; !lib && i < LEN(names); i++)
			lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	} else if (strcmp(wanted, "none")) {
		lib = dlopen(wanted, RTLD_NOW | RTLD_LOCAL);
		if (!lib)
			warn("PRUN_LIBPQ: %s; using psql", dlerror());
	}
	have = lib != NULL;
	for (size_t i = 0; have && i < LEN(pq_names); i++) {
		void *f = dlsym(lib, pq_names[i]);
		/* POSIX lets a function's address stand in a void *. */
		memcpy((char *)&pq + i * sizeof(f), &f, sizeof(f));
		have = f != NULL;
	}
	return have;
}

static struct reply
pq_connect(struct session *db, int64_t deadline, bool heed)
{
	struct reply r = { 0 };

	db->conn = pq.connectStart(str("%s fallback_application_name=prun", db->url));
	if (!db->conn)
		fatal(EXIT_RUN, "out of memory");
	pq.setErrorVerbosity(db->conn, 2);      /* with SQLSTATE */
	int state = pq.socket(db->conn) < 0 ? POLL_FAILED : POLL_WRITING;
	while (state != POLL_OK && state != POLL_FAILED && !r.trouble) {
		/* Its socket may be another one after every poll. */
		r = await_fd(db, pq.socket(db->conn), state == POLL_READING ? POLLIN : POLLOUT,
			deadline, heed);
		if (!r.trouble)
			state = pq.connectPoll(db->conn);
	}
	return state == POLL_FAILED ? scan_error(pq.errorMessage(db->conn)) : r;
}

static struct reply
pq_reply(struct session *db, int64_t deadline, bool heed)
{
	struct reply r = { 0 }, wait;
	void *result;

	/* To the last result, NULL: an error comes well before the server is
	 * ready again, and a statement that is sent in between is not taken. */
	do {
		while (pq.isBusy(db->conn)) {
			wait = await_fd(db, pq.socket(db->conn), POLLIN, deadline, heed);
			if (wait.trouble)
				return wait;
			if (!pq.consumeInput(db->conn))
				break;
		}
		result = pq.getResult(db->conn);
		int columns = pq.nfields(result), fields = pq.ntuples(result) * columns;
		if (fields)
			r.v = scratch(sizeof(*r.v) * (size_t)fields);
		for (int i = 0; i < fields; i++)
			r.v[r.n++] = str("%s", pq.getvalue(result, i / columns, i % columns));
		pq.clear(result);
	} while (result);
	/* Each statement begins without one. */
	return *pq.errorMessage(db->conn) ? scan_error(pq.errorMessage(db->conn)) : r;
}

/* ---- psql ---- */

static struct reply
psql_start(struct session *db)
{
	char *name = url_param(db->url, "dbname"), *password = url_param(db->url, "password");
	/* Everybody can see its arguments. */
	char *url = url_admin(db->url, name, " password sslpassword ");
	char *argv[] = { "psql", "-XAtqw", "-v", "VERBOSITY=verbose",
		"-F", "\037", "-R", "\036", "-d", url, NULL };
	struct list env = { 0 };
	struct spawn s = { .argv = argv };
	int in[2] = { -1, -1 }, out[2] = { -1, -1 };
	const char *why = "cannot run psql: no pipe";

	for (size_t i = 0; environ[i]; i++)
		if (!starts(environ[i], "LC_ALL=")
		&& !(password && starts(environ[i], "PGPASSWORD=")))
			list_add(&env, environ[i]);
	list_add(&env, "LC_ALL=C");     /* we read its messages */
	if (password)
		list_add(&env, str("PGPASSWORD=%s", password));
	s.env = env.v;
	if (proc_pipe(in) == 0 && proc_pipe(out) == 0) {
		s.in = in[0];
		s.out = out[1];
		why = proc_start(db->w, &db->psql, &s);
	}
	db->in = in[1];
	db->out = out[0];
	close_keep(in[0]);
	close_keep(out[1]);
	list_free(&env);
	return why ? sql_error("58030", str("%s; install libpq or psql", why))
		: (struct reply){ 0 };
}

#define MARK "@@prun "

/* The rows, or the error, that stand before the mark. */
static struct reply
psql_reply(struct session *db, int64_t deadline, bool heed)
{
	char chunk[4096], *at;
	struct reply r = { 0 };

	for (;;) {
		at = db->text.n ? strstr(db->text.s, MARK) : NULL;
		if (at && strchr(at, '\n'))
			break;
		r = await_fd(db, db->out, POLLIN, deadline, heed);
		if (r.trouble)
			return r;
		ssize_t n = read(db->out, chunk, sizeof(chunk));
		if (n <= 0)
			return scan_error(db->text.n ? db->text.s
				: "psql exited without a message");
		buf_add(&db->text, chunk, (size_t)n);
	}
	char *s = str("%.*s", (int)(at - db->text.s), db->text.s);
	db->text.n = 0;
	if (starts(at, MARK "true"))
		return scan_error(s);
	r.v = scratch(sizeof(*r.v) * (strlen(s) + 1));
	if (*s)
		s[strlen(s) - 1] = '\036';      /* psql ends the last row with a newline */
	while (*s) {
		r.v[r.n++] = s;
		s += strcspn(s, "\036\037");
		*s++ = '\0';
	}
	return r;
}

/* ---- either ---- */

/* Never waits for the server, which hears of it in its own time. */
void
sql_close(struct session *db)
{
	struct buf notes = scratch_buf();

	if (db->conn) {
		pq.finish(db->conn);
	} else if (db->open) {
		close_keep(db->in);     /* psql ends at the end of its input */
		close_keep(db->out);
		proc_stop(db->w, &db->psql, 1000, false, &notes);
	}
	buf_free(&db->text);
	db->conn = NULL;
	db->open = false;
}

void
sql_send(struct session *db, const char *sql)
{
	char *s = str("%s;\n\\echo " MARK ":ERROR\n", sql);

	if (db->conn)
		pq.sendQuery(db->conn, sql);
	else if (db->open)
		write_all(db->in, s, strlen(s));
	/* The reply tells of a failure. */
}

struct reply
sql_reply(struct session *db, int64_t deadline, bool heed)
{
	if (!db->open)
		return sql_error("08006", "the connection was lost");
	struct reply r = (db->conn ? pq_reply : psql_reply)(db, deadline, heed);
	if (r.trouble == SQL_LOST)
		sql_close(db);
	return r;
}

struct reply
sql_do(struct session *db, const char *sql)
{
	/* A test must not wait for the server. */
	int64_t most = db->w->watch ? 2000 : 60000;

	sql_send(db, sql);
	struct reply r = sql_reply(db, proc_clock(db->w) + most, false);
	if (r.trouble == SQL_LATE) {
		sql_close(db);
		r = sql_error("08006", r.message);
	}
	return r;
}

struct reply
sql_open(struct session *db, bool heed)
{
	int64_t deadline = proc_clock(db->w) + (db->w->watch ? 2000 : 15000);

	db->open = true;
	struct reply r = sql_libpq() ? pq_connect(db, deadline, heed) : psql_start(db);
	/* It is to live as long as the run, whatever the role's settings. */
	sql_send(db, "SET statement_timeout = 0");
	if (!r.trouble)
		r = sql_reply(db, deadline, heed);
	if (r.trouble) {
		sql_close(db);
		if (r.trouble == SQL_FORBIDDEN)
			return sql_error("28000", r.message);
		if (r.trouble == SQL_LOST || r.trouble == SQL_LATE)
			return sql_error(db->version ? "08006" : "08001", r.message);
		return r;
	}
	/* 14 and later: without it a client that is killed during CREATE leaves
	 * a database that appears after its death. */
	sql_do(db, "SET client_connection_check_interval = '1s'");
	r = sql_do(db, "SELECT pg_backend_pid(), current_setting('server_version_num'), "
		"current_setting('file_copy_method', true), count(set_config(name, v, false)) "
		"FROM pg_settings JOIN (VALUES ('client_min_messages', 'error'), "
		"('tcp_keepalives_idle', '20'), ('standard_conforming_strings', 'on'), "
		"('idle_session_timeout', '0'), ('lock_timeout', '0'), "
		"('transaction_timeout', '0')) AS wanted (k, v) ON k = name");
	if (r.n < 3)
		return r;
	db->version = atoi(r.v[1]);
	db->reflinks = !strcmp(r.v[2], "clone");
	if (!db->conn || pq.backendPID(db->conn) == atoi(r.v[0]))
		return r;
	sql_close(db);
	return sql_error("58030", "db goes through a pooler, where locks do not work; set "
		"db-admin to the URL of the server itself");
}

char *
sql_fmt(const char *fmt, ...)
{
	struct buf b = scratch_buf();
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		if (*fmt != '%' || *++fmt == '%')
			buf_char(&b, *fmt);
		else if (*fmt == 's')
			buf_str(&b, va_arg(ap, const char *));
		else if (*fmt == 'I')
			quote(&b, va_arg(ap, const char *), '"', '"');
		else
			quote(&b, va_arg(ap, const char *), '\'', '\'');
	}
	va_end(ap);
	return b.s;
}
