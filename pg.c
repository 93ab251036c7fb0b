/*
 * pg.c: databases.  Each attempt gets a clone of the suite's template.
 *
 * PostgreSQL is reached through libpq, loaded when first needed, or through
 * one psql that reads statements from a pipe: both look the same from
 * pg_send() and pg_reply() up.  A worker has one session for its life, with
 * the database "postgres"; it holds the run's advisory lock, shared, so that
 * a later run can tell the clones of the dead from those of the living.
 *
 * A clone is CREATE DATABASE ... TEMPLATE, which waits five seconds for the
 * sessions on the template and then fails; while it waits, a second session
 * ends them: CREATE holds the lock that new ones wait for.  Everything that
 * a run made is found by its name, <template>_w<index>_<run>, and nothing
 * else is ever dropped.
 *
 * A template may also be a file or a directory (sqlite:, file:), copied with
 * cp -R into the attempt's directory, or anything that the commands db-clone
 * and db-drop know how to copy.
 */
#include "prun.h"
#include <ctype.h>
#include <dlfcn.h>
#include <pwd.h>

#define CLASS_RUN 1886549358    /* advisory locks: "prun", the run's id */
#define CLASS_TEMPLATE 1886549359       /* and the template's hash */
#define STEM_MAX 44             /* 63 less _w999999_abcdefr999 */

enum kind { DB_BAD, DB_PG, DB_DSN, DB_FILE, DB_OTHER };

/* A reply: state is "" when all went well. */
struct reply {
	char state[6];
	struct buf message;
	struct list fields;     /* of all rows, row by row */
};

struct pg {
	char *admin;            /* what it connects with; NULL: not connected */
	void *conn;             /* libpq's */
	struct proc psql;
	int in, out, err;       /* psql's pipes and the file of its errors */
	int statement;
	struct buf text;        /* read from psql and not yet used */
	struct pg *next;        /* last: it survives a close */
};

/* ---- URLs ---- */

static const char *const pg_schemes[] = {
	"postgres", "postgresql", "postgis", "pgsql", "ecto", "jdbc:postgresql"
};

/* The parts of a URL as offsets into it; all but the database stay. */
struct url {
	enum kind kind;
	size_t authority, userinfo_end, path, query, end;
};

static bool
starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static enum kind
kind_of(const char *url)
{
	size_t i, n = strcspn(url, "+:");
	const char *sep = strstr(url, "://");

	if (starts(url, "jdbc:sqlite:") || starts(url, "file:")
	|| (n == 6 && starts(url, "sqlite")))
		return DB_FILE;
	if (starts(url, "jdbc:"))
		n = strcspn(url + 5, "+:") + 5;
	for (i = 0; sep && i < LEN(pg_schemes); i++)
		if (strlen(pg_schemes[i]) == n && starts(url, pg_schemes[i]))
			return DB_PG;
	if (!sep && strchr(url, '='))
		return DB_DSN;
	return DB_OTHER;
}

static struct url
split_url(const char *url)
{
	struct url u = { 0 };
	size_t slash, at;

	u.kind = kind_of(url);
	u.end = strlen(url);
	if (u.kind != DB_PG)
		return u;
	u.authority = (size_t)(strstr(url, "://") - url) + 3;
	slash = u.authority + strcspn(url + u.authority, "/");
	at = u.authority + strcspn(url + u.authority, "@");
	/* ? and # are legal in a password, libpq reads it so too. */
	u.userinfo_end = at < slash ? at + 1 : u.authority;
	u.path = u.userinfo_end + strcspn(url + u.userinfo_end, "/?");
	u.query = u.path + strcspn(url + u.path, "?");
	return u;
}

/* The next parameter of a query or DSN: key and value as slices, or false.
 * In a query *s stands behind the ? or &, in a DSN anywhere. */
static bool
next_param(const char **s, enum kind kind, const char **key, size_t *nkey,
	const char **value, size_t *nvalue)
{
	const char *p = *s;

	if (kind == DB_PG) {
		p += strspn(p, "&");
		if (!*p)
			return false;
		*key = p;
		*nkey = strcspn(p, "=&");
		p += *nkey;
		p += *p == '=';
		*value = p;
		*nvalue = strcspn(p, "&");
		p += *nvalue;
	} else {
		p += strspn(p, " \t\n");
		if (!*p)
			return false;
		*key = p;
		*nkey = strcspn(p, "= \t\n");
		p += *nkey;
		p += strspn(p, " \t\n");
		p += *p == '=';
		p += strspn(p, " \t\n");
		*value = p;
		if (*p == '\'') {
			for (p++; *p && *p != '\''; p++)
				p += *p == '\\' && p[1];
			p += *p == '\'';
		} else {
			for (; *p && !strchr(" \t\n", *p); p++)
				p += *p == '\\' && p[1];
		}
		*nvalue = (size_t)(p - *value);
	}
	*s = p;
	return true;
}

static bool
is_key(const char *key, size_t n, const char *word)
{
	return strlen(word) == n && !memcmp(key, word, n);
}

/* Decodes %41 of a URL, or quotes and backslashes of a DSN. */
static char *
decode(const char *s, size_t n, enum kind kind)
{
	struct buf b = { 0 };
	char hex[3] = "";
	size_t i = 0;

	if (kind == DB_DSN && n >= 2 && *s == '\'')
		s++, n -= 2;
	for (; i < n; i++) {
		if (kind == DB_DSN && s[i] == '\\' && i + 1 < n) {
			buf_char(&b, s[++i]);
		} else if (kind == DB_PG && s[i] == '%' && i + 2 < n
		&& isxdigit((unsigned char)s[i + 1])
		&& isxdigit((unsigned char)s[i + 2])) {
			memcpy(hex, s + i + 1, 2);
			buf_char(&b, (int)strtol(hex, NULL, 16));
			i += 2;
		} else {
			buf_char(&b, s[i]);
		}
	}
	return b.s ? b.s : xstrdup("");
}

/* A parameter's decoded value, to be freed, or NULL. */
static char *
param(const char *url, const struct url *u, const char *name)
{
	const char *s = url + u->query, *key, *value;
	size_t nkey, nvalue;
	char *found = NULL;

	if (u->kind == DB_PG)
		s += *s == '?';
	while (next_param(&s, u->kind, &key, &nkey, &value, &nvalue))
		if (is_key(key, nkey, name)) {
			free(found);
			found = decode(value, nvalue, u->kind);
		}
	return found;
}

/* The part of a file template's URL that is its path; *n its length. */
static const char *
file_part(const char *url, size_t *n)
{
	const char *p = strchr(url, ':') + 1;

	if (starts(url, "jdbc:"))
		p = strchr(p, ':') + 1;
	if (starts(url, "file://") && p[2] == '/')
		p += 2;
	else if (starts(p, "//"))
		p += 2;
	*n = strcspn(p, "?");
	return p;
}

/* Path of a file template; to be freed. */
static char *
file_path(const char *url)
{
	size_t n;
	const char *p = file_part(url, &n);
	char *path = str("%.*s", (int)n, p);
	struct stat st;

	/* sqlite:///r.db is relative, sqlite:////r.db is not (SQLAlchemy);
	 * where only the file at the root exists, that one is meant. */
	if (starts(url, "sqlite") && path[0] == '/'
	&& (path[1] == '/' || stat(path + 1, &st) == 0 || stat(path, &st) < 0))
		memmove(path, path + 1, strlen(path));
	return path;
}

/* Name of the template database; to be freed. */
static char *
template_name(const char *url)
{
	struct url u = split_url(url);
	struct passwd *pw;
	char *name = NULL, *dot;
	const char *env;

	if (u.kind == DB_FILE) {
		name = file_path(url);
		while (strlen(name) > 1 && name[strlen(name) - 1] == '/')
			name[strlen(name) - 1] = '\0';
		dot = strrchr(name, '/');
		if (dot)
			memmove(name, dot + 1, strlen(dot));
		dot = strrchr(name, '.');
		if (dot && dot != name)
			*dot = '\0';
		return name;
	}
	if (u.kind == DB_OTHER) {
		env = strrchr(url, '/');
		env = env ? env + 1 : url;
		return str("%.*s", (int)strcspn(env, "?"), env);
	}
	/* As libpq chooses: dbname, path, PGDATABASE, then the user's name. */
	name = param(url, &u, "dbname");
	if (!name && u.kind == DB_PG && u.query > u.path + 1)
		name = decode(url + u.path + 1, u.query - u.path - 1, DB_PG);
	if (!name && (env = getenv("PGDATABASE")) && *env)
		name = xstrdup(env);
	if (!name && u.userinfo_end > u.authority)
		name = decode(url + u.authority,
			strcspn(url + u.authority, ":@"), DB_PG);
	if (!name)
		name = param(url, &u, "user");
	if (!name && (env = getenv("PGUSER")) && *env)
		name = xstrdup(env);
	if (!name)
		name = xstrdup((pw = getpwuid(geteuid())) ? pw->pw_name : "");
	return name;
}

const char *
pg_check(const char *url)
{
	struct url u = split_url(url);
	char *path;
	const char *wrong = NULL;
	size_t rest;

	if (starts(url, "prisma+postgres:"))
		return "names Prisma's proxy; give the database's own URL";
	if (u.kind == DB_PG) {
		rest = strcspn(url + u.userinfo_end, "/?@");
		if (url[u.userinfo_end + rest] == '@')
			return "has two @ before the host; write %40 in the "
				"password";
	} else if (u.kind == DB_FILE) {
		path = file_path(url);
		if (!*path || strstr(path, ":memory:"))
			wrong = "names no file that could be copied";
		free(path);
	} else if (u.kind == DB_OTHER) {
		return "is of no kind that prun can copy; set db-clone and "
			"db-drop";
	}
	return wrong;
}

static uint32_t
hash(const char *s)
{
	uint32_t h = 2166136261u;       /* FNV-1a */

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h;
}

/* The template's part of its clones' names; to be freed. */
static char *
stem_of(const char *url)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	char *name = template_name(url), *s;
	uint32_t h = hash(name);
	bool altered = false;
	size_t n = strlen(name);
	int i;

	for (s = name; *s; s++)
		if (!islower((unsigned char)*s) && !isdigit((unsigned char)*s)
		&& *s != '_') {
			*s = isupper((unsigned char)*s)
				? (char)tolower((unsigned char)*s) : '_';
			altered = true;
		}
	if (altered || n > STEM_MAX) {
		if (n > STEM_MAX - 5)
			n = STEM_MAX - 5;
		s = str("%.*s_0000", (int)n, name);
		for (i = 1; i <= 4; i++, h /= 36)
			s[n + (size_t)i] = digits[h % 36];
		free(name);
		name = s;
	}
	return name;
}

char *
pg_clone_name(const char *url, int index, const char *run, int attempt)
{
	char *stem = stem_of(url), *name;

	name = str("%s_w%d_%s", stem, index, run);
	free(stem);
	if (attempt > 1) {
		stem = name;
		name = str("%sr%d", stem, attempt);
		free(stem);
	}
	return name;
}

/* Path of a file template's clone; to be freed. */
static char *
clone_path(const char *url, const char *name, const char *dir)
{
	char *path = file_path(url), *dot = strrchr(path, '.'), *clone;
	char *slash = strrchr(path, '/');

	if (dot && (dot == path || (slash && dot <= slash + 1)))
		dot = NULL;
	clone = str("%s/%s%s", dir, name, dot ? dot : "");
	free(path);
	return clone;
}

char *
pg_clone_url(const char *url, const char *name, const char *dir)
{
	struct url u = split_url(url);
	struct buf b = { 0 };
	const char *s, *key, *value, *from;
	char *path;
	size_t nkey, nvalue;
	bool named = false;

	if (u.kind == DB_FILE) {
		path = clone_path(url, name, dir);
		s = file_part(url, &nvalue);
		buf_add(&b, url, strcspn(url, ":") + 1);
		if (starts(url, "jdbc:"))
			buf_str(&b, "sqlite:");
		else if (starts(url, "sqlite"))
			buf_str(&b, "///");
		buf_str(&b, path);
		buf_str(&b, s + nvalue);
		free(path);
		return b.s;
	}
	/* dbname values in a query or DSN; all else byte for byte. */
	from = s = url + (u.kind == DB_PG ? u.query + (url[u.query] == '?') : 0);
	path = NULL;
	while (next_param(&s, u.kind, &key, &nkey, &value, &nvalue))
		named = named || is_key(key, nkey, "dbname");
	if (u.kind == DB_PG) {
		buf_add(&b, url, u.path);
		if (!named || u.query > u.path + 1)
			buf_fmt(&b, "/%s", name);
		else
			buf_add(&b, url + u.path, u.query - u.path);
		buf_add(&b, url + u.query, (size_t)(from - url) - u.query);
	}
	for (s = from; next_param(&s, u.kind, &key, &nkey, &value, &nvalue);) {
		if (is_key(key, nkey, "dbname")) {
			buf_add(&b, from, (size_t)(value - from));
			buf_str(&b, name);
			from = value + nvalue;
		}
	}
	buf_str(&b, from);
	if (u.kind == DB_DSN && !named)
		buf_fmt(&b, "%sdbname=%s", b.n && !isspace((unsigned char)
			b.s[b.n - 1]) ? " " : "", name);
	return b.s;
}

char *
pg_masked(const char *url)
{
	struct url u = split_url(url);
	struct buf b = { 0 };
	const char *s, *key, *value, *from = url;
	size_t nkey, nvalue, colon;

	if (u.kind == DB_OTHER) {       /* of any shape: user:password@ */
		s = strstr(url, "://");
		u.authority = s ? (size_t)(s - url) + 3 : u.end;
		nvalue = strcspn(url + u.authority, "/");
		colon = strcspn(url + u.authority, "@");
		u.userinfo_end = u.authority + (colon < nvalue ? colon + 1 : 0);
		u.query = strcspn(url, "?");
		u.kind = DB_PG;
	}
	if (u.kind == DB_PG) {
		colon = u.authority + strcspn(url + u.authority, ":");
		if (colon < u.userinfo_end) {
			buf_add(&b, url, colon + 1);
			buf_str(&b, "***");
			from = url + u.userinfo_end - 1;
		}
		s = url + u.query + (url[u.query] == '?');
	} else {
		s = u.kind == DB_DSN ? url : url + u.end;
	}
	while (next_param(&s, u.kind, &key, &nkey, &value, &nvalue))
		if (is_key(key, nkey, "password")
		|| is_key(key, nkey, "sslpassword")) {
			buf_add(&b, from, (size_t)(value - from));
			buf_str(&b, "***");
			from = value + nvalue;
		}
	buf_str(&b, from);
	return b.s ? b.s : xstrdup("");
}

/* Appends a parameter as libpq wants it; drivers have words of their own. */
static void
admin_param(struct buf *b, const char *key, size_t nkey, const char *value,
	size_t nvalue)
{
	static const char *const known[] = {
		"host", "hostaddr", "port", "user", "password", "passfile",
		"channel_binding", "connect_timeout", "client_encoding",
		"options", "application_name", "fallback_application_name",
		"keepalives", "keepalives_idle", "keepalives_interval",
		"keepalives_count", "tcp_user_timeout", "gssencmode",
		"sslmode", "sslcompression", "sslcert", "sslkey",
		"sslpassword", "sslrootcert", "sslcrl", "sslcrldir", "sslsni",
		"requirepeer", "ssl_min_protocol_version",
		"ssl_max_protocol_version", "krbsrvname", "gsslib", "service",
		"target_session_attrs"
	};
	char sep = b->n && strchr(b->s, '?') ? '&' : '?';
	size_t i;

	if (is_key(key, nkey, "ssl")) {
		if (nvalue == 4 && (!memcmp(value, "true", 4)
				|| !memcmp(value, "TRUE", 4)))
			buf_fmt(b, "%csslmode=require", sep);
		else if (nvalue == 5 && !memcmp(value, "false", 5))
			buf_fmt(b, "%csslmode=disable", sep);
		else
			buf_fmt(b, "%csslmode=%.*s", sep, (int)nvalue, value);
		return;
	}
	if (is_key(key, nkey, "sslmode") && nvalue == 9
	&& !memcmp(value, "no-verify", 9)) {
		buf_fmt(b, "%csslmode=require", sep);
		return;
	}
	for (i = 0; i < LEN(known); i++)
		if (is_key(key, nkey, known[i]))
			buf_fmt(b, "%c%.*s=%.*s", sep, (int)nkey, key,
				(int)nvalue, value);
}

/* What libpq and psql get: the same server, the database postgres.  With
 * password, the passwords are taken out and the last one put there (psql's
 * arguments can be seen by everybody).  To be freed. */
static char *
admin_url(const char *url, char **password)
{
	struct url u = split_url(url);
	struct buf b = { 0 };
	const char *s, *key, *value;
	size_t nkey, nvalue, colon;
	char *clone;

	if (u.kind == DB_DSN) {
		clone = pg_clone_url(url, "postgres", "");
		for (s = clone; next_param(&s, u.kind, &key, &nkey, &value,
				&nvalue);) {
			if (password && is_key(key, nkey, "password"))
				*password = decode(value, nvalue, u.kind);
			else if (!password || !is_key(key, nkey, "sslpassword"))
				buf_fmt(&b, "%s%.*s=%.*s", b.n ? " " : "",
					(int)nkey, key, (int)nvalue, value);
		}
		free(clone);
		return b.s;
	}
	buf_str(&b, "postgresql://");
	colon = u.authority + strcspn(url + u.authority, ":");
	if (password && colon < u.userinfo_end) {
		*password = decode(url + colon + 1, u.userinfo_end - colon - 2,
			DB_PG);
		buf_add(&b, url + u.authority, colon - u.authority);
		buf_char(&b, '@');
	} else {
		buf_add(&b, url + u.authority, u.userinfo_end - u.authority);
	}
	buf_add(&b, url + u.userinfo_end, u.path - u.userinfo_end);
	buf_str(&b, "/postgres");
	s = url + u.query + (url[u.query] == '?');
	while (next_param(&s, DB_PG, &key, &nkey, &value, &nvalue)) {
		if (password && is_key(key, nkey, "password")) {
			free(*password);
			*password = decode(value, nvalue, DB_PG);
		} else if (!password || !is_key(key, nkey, "sslpassword")) {
			admin_param(&b, key, nkey, value, nvalue);
		}
	}
	return b.s;
}

/* ---- libpq ---- */

extern char **environ;

/* libpq's enumerations, which its header numbers and never renumbers. */
enum { PQ_OK = 0, PQ_BAD = 1 };
enum { PQ_POLL_FAILED = 0, PQ_POLL_READING = 1, PQ_POLL_OK = 3 };
enum { PQ_COMMAND_OK = 1, PQ_TUPLES_OK = 2 };

static struct {
	void *(*connectStartParams)(const char *const *, const char *const *,
		int);
	int (*connectPoll)(void *);
	int (*socket)(void *);
	int (*status)(void *);
	char *(*errorMessage)(void *);
	int (*setErrorVerbosity)(void *, int);
	int (*setnonblocking)(void *, int);
	int (*sendQuery)(void *, const char *);
	int (*flush)(void *);
	int (*consumeInput)(void *);
	int (*isBusy)(void *);
	void *(*getResult)(void *);
	int (*resultStatus)(void *);
	char *(*resultErrorMessage)(void *);
	int (*ntuples)(void *);
	int (*nfields)(void *);
	char *(*getvalue)(void *, int, int);
	void (*clear)(void *);
	void (*finish)(void *);
	void *(*setNoticeProcessor)(void *, void (*)(void *, const char *),
		void *);
	void *(*getCancel)(void *);
	int (*cancel)(void *, char *, int);
	void (*freeCancel)(void *);
} pq;

static const struct {
	const char *name;
	void *slot;
} pq_names[] = {
	{ "PQconnectStartParams", &pq.connectStartParams },
	{ "PQconnectPoll", &pq.connectPoll },
	{ "PQsocket", &pq.socket },
	{ "PQstatus", &pq.status },
	{ "PQerrorMessage", &pq.errorMessage },
	{ "PQsetErrorVerbosity", &pq.setErrorVerbosity },
	{ "PQsetnonblocking", &pq.setnonblocking },
	{ "PQsendQuery", &pq.sendQuery },
	{ "PQflush", &pq.flush },
	{ "PQconsumeInput", &pq.consumeInput },
	{ "PQisBusy", &pq.isBusy },
	{ "PQgetResult", &pq.getResult },
	{ "PQresultStatus", &pq.resultStatus },
	{ "PQresultErrorMessage", &pq.resultErrorMessage },
	{ "PQntuples", &pq.ntuples },
	{ "PQnfields", &pq.nfields },
	{ "PQgetvalue", &pq.getvalue },
	{ "PQclear", &pq.clear },
	{ "PQfinish", &pq.finish },
	{ "PQsetNoticeProcessor", &pq.setNoticeProcessor },
	{ "PQgetCancel", &pq.getCancel },
	{ "PQcancel", &pq.cancel },
	{ "PQfreeCancel", &pq.freeCancel },
};

/* Whether libpq can be had; tried once per process. */
static bool
have_libpq(void)
{
	static const char *const names[] = {
		"libpq.so.5", "libpq.so", "libpq.5.dylib",
		"/opt/homebrew/opt/libpq/lib/libpq.5.dylib",
		"/usr/local/opt/libpq/lib/libpq.5.dylib"
	};
	static int have = -1;
	const char *wanted = getenv("PRUN_LIBPQ");
	void *lib = NULL, *f;
	size_t i;

	if (have >= 0)
		return have;
	have = 0;
	if (wanted && *wanted && strcmp(wanted, "none")) {
		lib = dlopen(wanted, RTLD_NOW | RTLD_LOCAL);
		if (!lib)
			warn("PRUN_LIBPQ: %s; using psql", dlerror());
	}
	for (i = 0; !lib && !(wanted && *wanted) && i < LEN(names); i++)
		lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return false;
	for (i = 0; i < LEN(pq_names); i++) {
		f = dlsym(lib, pq_names[i].name);
		if (!f) {
			dlclose(lib);
			return false;
		}
		/* POSIX lets a function's address stand in a void *. */
		memcpy(pq_names[i].slot, &f, sizeof(f));
	}
	have = 1;
	return true;
}

static void
reply_clear(struct reply *r)
{
	size_t i;

	for (i = 0; i < r->fields.n; i++)
		free(r->fields.v[i]);
	free(r->fields.v);
	buf_free(&r->message);
	memset(r, 0, sizeof(*r));
}

/* Fills r from an error as libpq and psql print it: "ERROR:  42P04: text",
 * then "DETAIL:  text"; without such a line the connection is the trouble. */
static void
scan_error(struct reply *r, const char *text)
{
	static const char *const levels[] = { "ERROR:  ", "FATAL:  ", "PANIC:  " };
	const char *at = NULL, *detail;
	size_t i;

	r->message.n = 0;
	strcpy(r->state, "08006");
	for (i = 0; !at && i < LEN(levels); i++)
		at = strstr(text, levels[i]);
	if (at && strlen(at) > 15 && at[13] == ':') {
		memcpy(r->state, at + 8, 5);
		text = at + 15;
	}
	text += strspn(text, "\n");
	buf_safe(&r->message, text, strcspn(text, "\n"));
	detail = strstr(text, "DETAIL:  ");
	if (detail && (detail += 9))
		buf_fmt(&r->message, " (%.*s)", (int)strcspn(detail, "\n"),
			detail);
}

static void
quiet_notices(void *arg, const char *message)
{
	(void)arg;
	(void)message;
}

enum waited { REPLIED, LATE, STOPPED };

/* Waits for a descriptor of a session. */
static enum waited
await_fd(struct worker *w, int fd, short events, int64_t deadline, bool heed)
{
	struct pollfd p;

	p.fd = fd;
	p.events = events;
	for (;;) {
		if (heed && w->cancelled)
			return STOPPED;
		if (deadline >= 0 && proc_clock(w) >= deadline)
			return LATE;
		if (proc_wait(w, &p, 1, deadline) & SAW_FD)
			return REPLIED;
	}
}

static enum waited
pq_connect(struct worker *w, struct pg *pg, struct reply *r, int64_t deadline,
	bool heed)
{
	static const char *const keys[] = {
		"dbname", "dbname", "fallback_application_name", NULL
	};
	const char *values[] = { pg->admin, "postgres", "prun", NULL };
	enum waited how = REPLIED;
	int state = 2;          /* as if it were PGRES_POLLING_WRITING */

	pg->conn = pq.connectStartParams(keys, values, 1);
	if (!pg->conn)
		fatal(EXIT_RUN, "out of memory");
	pq.setErrorVerbosity(pg->conn, 2);      /* with SQLSTATE */
	pq.setNoticeProcessor(pg->conn, quiet_notices, NULL);
	if (pq.status(pg->conn) == PQ_BAD)
		state = PQ_POLL_FAILED;
	while (state != PQ_POLL_OK && state != PQ_POLL_FAILED) {
		/* Its socket may be another one after every poll. */
		how = await_fd(w, pq.socket(pg->conn), state == PQ_POLL_READING
			? POLLIN : POLLOUT, deadline, heed);
		if (how != REPLIED)
			return how;
		state = pq.connectPoll(pg->conn);
	}
	if (state == PQ_POLL_OK)
		pq.setnonblocking(pg->conn, 1);
	else
		scan_error(r, pq.errorMessage(pg->conn));
	return REPLIED;
}

static enum waited
pq_reply(struct worker *w, struct pg *pg, struct reply *r, int64_t deadline,
	bool heed)
{
	enum waited how;
	void *result;
	int i, k, status, unsent;

	for (;;) {
		unsent = pq.flush(pg->conn);
		if (unsent <= 0 && !pq.isBusy(pg->conn))
			break;
		how = await_fd(w, pq.socket(pg->conn),
			(short)(unsent > 0 ? POLLIN | POLLOUT : POLLIN),
			deadline, heed);
		if (how != REPLIED)
			return how;
		if (!pq.consumeInput(pg->conn))
			break;
	}
	while (!pq.isBusy(pg->conn) && (result = pq.getResult(pg->conn))) {
		status = pq.resultStatus(result);
		if (status == PQ_TUPLES_OK)
			for (i = 0; i < pq.ntuples(result); i++)
				for (k = 0; k < pq.nfields(result); k++)
					list_add(&r->fields,
						pq.getvalue(result, i, k));
		else if (status != PQ_COMMAND_OK)
			scan_error(r, pq.resultErrorMessage(result));
		pq.clear(result);
	}
	if (pq.status(pg->conn) == PQ_BAD && !*r->state)
		scan_error(r, pq.errorMessage(pg->conn));
	return REPLIED;
}

/* ---- psql ---- */

/* What psql has written to its standard error since last asked. */
static void
psql_error(struct pg *pg, struct reply *r)
{
	struct buf b = { 0 };
	char chunk[1024];
	ssize_t n;

	while ((n = read(pg->err, chunk, sizeof(chunk))) > 0)
		buf_add(&b, chunk, (size_t)n);
	scan_error(r, b.n ? b.s : "psql ended without a word");
	buf_free(&b);
}

static int
psql_start(struct worker *w, struct pg *pg, struct reply *r)
{
	char *argv[] = { "psql", "-XAtqw", "-v", "VERBOSITY=verbose",
		"-F", "\037", "-R", "\036", "-d", NULL, NULL };
	char *password = NULL, *file, *secret = NULL;
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err = -1, ok = -1;
	struct spawn s = { argv, NULL, -1, -1, -1, -1, false };
	struct list env = { 0 };
	size_t i;

	argv[9] = admin_url(pg->admin, &password);
	for (i = 0; environ[i]; i++)
		if (!starts(environ[i], "LC_ALL=")
		&& !(password && starts(environ[i], "PGPASSWORD=")))
			list_add(&env, environ[i]);
	list_add(&env, "LC_ALL=C");     /* we read its messages */
	if (password) {
		secret = str("PGPASSWORD=%s", password);
		list_add(&env, secret);
	}
	s.env = env.v;
	file = str("%s/psql-%d-%p", w->plan->dir, w->slot, (void *)pg);
	err = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
	pg->err = open(file, O_RDONLY);
	if (err >= 0 && pg->err >= 0 && pipe(in) == 0 && pipe(out) == 0) {
		unlink(file);
		set_cloexec(pg->err);
		set_cloexec(err);
		for (i = 0; i < 2; i++) {
			set_cloexec(in[i]);
			set_cloexec(out[i]);
		}
		s.in = in[0];
		s.out = out[1];
		s.err = err;
		ok = proc_start(w, &pg->psql, &s);
	}
	if (ok < 0) {
		strcpy(r->state, "58030");
		buf_fmt(&r->message, "cannot run psql: %s%s", strerror(errno),
			errno == ENOENT ? "; install libpq or psql" : "");
		pg->psql.pid = 0;
	}
	pg->in = in[1];
	pg->out = out[0];
	if (in[0] >= 0)
		close(in[0]);
	if (out[1] >= 0)
		close(out[1]);
	if (err >= 0)
		close(err);
	for (i = 0; i < env.n; i++)
		free(env.v[i]);
	free(env.v);
	free(argv[9]);
	free(password);
	free(secret);
	free(file);
	return ok;
}

/* The fields of what psql printed before its mark. */
static void
psql_fields(struct reply *r, char *s, size_t n)
{
	char *end;

	if (!n)
		return;
	s[n - 1] = '\036';      /* psql ends the last row with a newline */
	for (; n; n -= (size_t)(end - s), s = end) {
		end = s + strcspn(s, "\036\037") + 1;
		end[-1] = '\0';
		list_add(&r->fields, s);
	}
}

static enum waited
psql_reply(struct worker *w, struct pg *pg, struct reply *r, int64_t deadline,
	bool heed)
{
	char *mark = str("@@%d ", pg->statement), chunk[4096], *at = NULL;
	enum waited how = REPLIED;
	ssize_t n = 1;

	for (;;) {
		at = pg->text.n ? strstr(pg->text.s, mark) : NULL;
		if (at && strchr(at, '\n'))
			break;
		how = await_fd(w, pg->out, POLLIN, deadline, heed);
		if (how != REPLIED)
			break;
		n = read(pg->out, chunk, sizeof(chunk));
		if (n <= 0)
			break;
		buf_add(&pg->text, chunk, (size_t)n);
	}
	if (how == REPLIED && n <= 0) {
		psql_error(pg, r);
	} else if (how == REPLIED) {
		if (starts(at + strlen(mark), "true"))
			psql_error(pg, r);
		else
			psql_fields(r, pg->text.s, (size_t)(at - pg->text.s));
		pg->text.n = 0;
	}
	free(mark);
	return how;
}

/* ---- either ---- */

static void
close_session(struct worker *w, struct pg *pg)
{
	if (pg->conn)
		pq.finish(pg->conn);
	if (pg->psql.pid) {
		close(pg->in);  /* psql ends at the end of its input */
		close(pg->out);
		proc_stop(w, &pg->psql, 1000, false, NULL);
	}
	if (pg->err > 0)
		close(pg->err);
	buf_free(&pg->text);
	free(pg->admin);
	memset(pg, 0, offsetof(struct pg, next));
}

static void
pg_send(struct pg *pg, const char *sql)
{
	struct buf b = { 0 };

	if (pg->conn) {
		pq.sendQuery(pg->conn, sql);    /* failure: in the reply */
		return;
	}
	buf_fmt(&b, "%s;\n\\echo @@%d :ERROR :SQLSTATE\n", sql,
		++pg->statement);
	write_all(pg->in, b.s, b.n);            /* failure: end of file */
	buf_free(&b);
}

static enum waited
pg_reply(struct worker *w, struct pg *pg, struct reply *r, int64_t deadline,
	bool heed)
{
	enum waited how = pg->conn ? pq_reply(w, pg, r, deadline, heed)
		: psql_reply(w, pg, r, deadline, heed);
	bool dead = how == REPLIED && (starts(r->state, "08")
		|| starts(r->state, "57P"));

	if (dead)
		close_session(w, pg);   /* the next one to ask opens another */
	return how;
}

/* How long housekeeping may take: not long when prun is dying. */
static int64_t
bound(const struct worker *w)
{
	return proc_clock(w) + (w->cancelled ? 4000 : 60000);
}

/* Sends a statement and waits; 0 when it went well. */
static int
pg_do(struct worker *w, struct pg *pg, struct reply *r, const char *sql)
{
	reply_clear(r);
	pg_send(pg, sql);
	if (pg_reply(w, pg, r, bound(w), false) != REPLIED) {
		strcpy(r->state, "08006");
		buf_str(&r->message, "the server does not answer");
		close_session(w, pg);
	}
	return *r->state ? -1 : 0;
}

/* Opens a session; 0, or -1 with r filled. */
static int
open_session(struct worker *w, struct pg *pg, const struct opts *o,
	struct reply *r, bool heed)
{
	const char *url = o->db_admin ? o->db_admin : o->db;
	int64_t deadline = proc_clock(w) + 15000;
	enum waited how;

	reply_clear(r);
	if (have_libpq()) {
		pg->admin = admin_url(url, NULL);
		how = pq_connect(w, pg, r, deadline, heed);
	} else {
		pg->admin = xstrdup(url);
		if (psql_start(w, pg, r) < 0) {
			how = REPLIED;
		} else {
			pg_send(pg, "SELECT 1");
			how = psql_reply(w, pg, r, deadline, heed);
		}
	}
	if (how != REPLIED) {
		strcpy(r->state, how == LATE ? "08001" : "57014");
		buf_str(&r->message, how == LATE
			? "the server does not answer within 15 s"
			: "cancelled");
	}
	if (*r->state) {
		close_session(w, pg);
		return -1;
	}
	return 0;
}

static int64_t
run_number(const char *id)
{
	return strtoll(id, NULL, 36);
}

/* The worker's session for a suite's server, opened and locked if need be;
 * NULL with r filled. */
static struct pg *
session(struct worker *w, const struct opts *o, struct reply *r, bool heed)
{
	const char *url = o->db_admin ? o->db_admin : o->db;
	struct pg *pg, **end = &w->pg;
	char *key = have_libpq() ? admin_url(url, NULL) : xstrdup(url), *sql;

	for (pg = w->pg; pg; end = &pg->next, pg = pg->next)
		if (pg->admin && !strcmp(pg->admin, key))
			break;
	free(key);
	if (pg)
		return pg;
	for (pg = w->pg; pg && pg->admin; pg = pg->next)
		;               /* one whose connection was lost? */
	if (!pg) {
		pg = *end = calloc(1, sizeof(*pg));
		if (!pg)
			fatal(EXIT_RUN, "out of memory");
	}
	if (open_session(w, pg, o, r, heed) < 0)
		return NULL;
	/* 14 and later: without it a client that is killed during CREATE
	 * leaves a database that appears after its death. */
	pg_do(w, pg, r, "SET client_connection_check_interval = '1s'");
	sql = str("SELECT pg_advisory_lock_shared(%d, %" PRId64 ")",
		CLASS_RUN, run_number(w->plan->id));
	if (pg->admin && pg_do(w, pg, r, sql) < 0)
		pg = NULL;
	free(sql);
	return pg && pg->admin ? pg : NULL;
}

/* Asks the server to give up what the session waits for. */
static void
cancel(struct pg *pg)
{
	char why[256];
	void *c;

	if (pg->conn && (c = pq.getCancel(pg->conn))) {
		pq.cancel(c, why, sizeof(why));
		pq.freeCancel(c);
	} else if (pg->psql.pid) {
		kill(pg->psql.pid, SIGINT);
	}
}

/* ---- the recipe ---- */

static void
add_quoted(struct buf *b, const char *s, char quote)
{
	if (quote == '\'' && strchr(s, '\\'))
		buf_char(b, 'E');
	buf_char(b, quote);
	for (; *s; s++) {
		if (*s == quote || (quote == '\'' && *s == '\\'))
			buf_char(b, *s);
		buf_char(b, *s);
	}
	buf_char(b, quote);
}

/* Formats SQL: %s as it is, %I an identifier, %L a literal, %d an int64_t. */
static char *
sql(const char *fmt, ...)
{
	struct buf b = { 0 };
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		if (*fmt != '%')
			buf_char(&b, *fmt);
		else if (*++fmt == 's')
			buf_str(&b, va_arg(ap, const char *));
		else if (*fmt == 'd')
			buf_fmt(&b, "%" PRId64, va_arg(ap, int64_t));
		else if (*fmt == '%')
			buf_char(&b, '%');
		else
			add_quoted(&b, va_arg(ap, const char *), *fmt == 'I' ? '"' : '\'');
	}
	va_end(ap);
	return b.s;
}

/* pg_do() with a statement of sql()'s, which it frees. */
static int
pg_doing(struct worker *w, struct pg *pg, struct reply *r, char *statement)
{
	int failed = pg_do(w, pg, r, statement);

	free(statement);
	return failed;
}

/* What the user should know and do about an error; passing: try again. */
static const struct {
	const char *state, *advice;
	bool passing;
} errors[] = {
	{ "3D000", "create it, or let setup do so", false },
	{ "42501", "the role needs CREATEDB, and must own the template or the template "
		"be marked IS_TEMPLATE", false },
	{ "55006", "somebody is connected to it", false },
	{ "42P04", "another run has the same id", true },
	{ "23505", "another run has the same id", true },
	{ "53300", "raise max_connections, or lower jobs", true },
	{ "53100", "the server's disk is full", false },
	{ "53200", "the server is out of memory", false },
	{ "XX000", "if it says collation version: ALTER DATABASE ... REFRESH COLLATION "
		"VERSION", false },
	{ "28P01", "check the user and password of db", false },
	{ "58030", NULL, false },
	{ "57014", NULL, false },
};

/* Says in why what went wrong; whether another try may help. */
static bool
explain(const struct reply *r, const char *what, struct buf *why)
{
	size_t i;

	for (i = 0; i < LEN(errors); i++)
		if (!strcmp(errors[i].state, r->state))
			break;
	buf_fmt(why, "%s: %s", what, r->message.s ? r->message.s : "");
	if (i < LEN(errors) && errors[i].advice)
		buf_fmt(why, "; %s", errors[i].advice);
	return i < LEN(errors) ? errors[i].passing
		: starts(r->state, "08") || starts(r->state, "57");
}

/* Ends the sessions on database name, or with only_list names them. */
static void
end_sessions(struct worker *w, const struct opts *o, const char *name, bool only_list,
	struct buf *notes)
{
	struct pg second = { 0 };
	struct reply r = { 0 };
	size_t i;

	/* Without the filter one autovacuum worker makes the whole query fail. */
	if (open_session(w, &second, o, &r, false) == 0
	&& pg_doing(w, &second, &r, sql("SELECT pid, usename, application_name%s "
		"FROM pg_stat_activity WHERE datname = %L AND backend_type = "
		"'client backend' AND pid <> pg_backend_pid()",
		only_list ? "" : ", pg_terminate_backend(pid)", name)) == 0)
		for (i = 0; i + 2 < r.fields.n; i += only_list ? 3 : 4)
			buf_fmt(notes, "- %s session on %s: pid %s, user %s%s%s\n",
				only_list ? "there is a" : "ended a", name,
				r.fields.v[i], r.fields.v[i + 1],
				*r.fields.v[i + 2] ? ", " : "", r.fields.v[i + 2]);
	else
		buf_fmt(notes, "- sessions on %s could not be ended: %s\n", name,
			r.message.s);
	reply_clear(&r);
	close_session(w, &second);
}

/* CREATE waits five seconds for the sessions on the template; meanwhile they
 * are ended from aside, since whoever reconnects then waits for CREATE. */
static enum waited
create(struct worker *w, struct pg *pg, const struct opts *o, struct reply *r,
	const char *statement, const char *template, struct buf *notes)
{
	int64_t begin = proc_clock(w);
	enum waited how;

	reply_clear(r);
	pg_send(pg, statement);
	how = pg_reply(w, pg, r, begin + 250, true);
	if (how == LATE && o->db_terminate)
		end_sessions(w, o, template, false, notes);
	if (how == LATE)
		how = pg_reply(w, pg, r, -1, true);
	if (how == STOPPED) {
		cancel(pg);
		if (pg_reply(w, pg, r, bound(w), false) != REPLIED)
			close_session(w, pg);
		strcpy(r->state, "57014");
	}
	return how;
}

/* Settings of the template that CREATE does not copy, as statements. */
static const char settings_sql[] =
	"SELECT format('ALTER %%s SET %%I = %%s', CASE WHEN setrole = 0 THEN "
	"'DATABASE %s' ELSE format('ROLE %%I IN DATABASE %s', rolname) END, k, "
	"CASE WHEN k IN ('search_path', 'temp_tablespaces', 'local_preload_libraries', "
	"'session_preload_libraries', 'shared_preload_libraries') AND v <> '' THEN v "
	"ELSE quote_literal(v) END) FROM pg_db_role_setting s "
	"JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles u ON u.oid = setrole, "
	"unnest(setconfig) c, split_part(c, '=', 1) k, substr(c, length(k) + 2) v "
	"WHERE datname = %L";

static void
replay_settings(struct worker *w, struct pg *pg, const char *template, const char *name,
	struct buf *notes)
{
	struct reply list = { 0 }, r = { 0 };
	size_t i;

	pg_doing(w, pg, &list, sql(settings_sql, name, name, template));
	for (i = 0; pg->admin && i < list.fields.n; i++)
		if (pg_do(w, pg, &r, list.fields.v[i]) < 0)
			buf_fmt(notes, "- a setting of the template was not copied: %s\n",
				r.message.s);
	reply_clear(&list);
	reply_clear(&r);
}

static int
clone_postgres(struct worker *w, const struct opts *o, const char *name, struct buf *notes,
	struct buf *why, bool *passing)
{
	char *template = template_name(o->db), *statement = NULL, *owner = NULL;
	struct reply r = { 0 };
	struct pg *pg = session(w, o, &r, true);
	int64_t key = (int32_t)(hash(template) & 0x7fffffff);
	int tries = 3, failed = -1;

	if (!pg || pg_doing(w, pg, &r, sql("SELECT pg_get_userbyid(datdba) FROM "
			"pg_database WHERE datname = %L", template)) < 0)
		goto out;
	if (r.fields.n == 0) {
		strcpy(r.state, "3D000");
		buf_fmt(&r.message, "there is no database \"%s\"", template);
		goto out;
	}
	owner = xstrdup(r.fields.v[0]);
	if (pg_doing(w, pg, &r, sql("SELECT pg_advisory_lock_shared(%d, %d)",
			(int64_t)CLASS_TEMPLATE, key)) < 0)
		goto out;
	statement = sql("CREATE DATABASE %s TEMPLATE %I OWNER %I", name, template, owner);
	while (create(w, pg, o, &r, statement, template, notes) == REPLIED && *r.state
	&& tries--) {
		if (!strcmp(r.state, "42501") && strstr(r.message.s, "role")) {
			buf_fmt(notes, "- the clone belongs to us, not to %s: %s\n", owner,
				r.message.s);
			free(statement);
			statement = sql("CREATE DATABASE %s TEMPLATE %I", name, template);
		} else if (strcmp(r.state, "55006") || !o->db_terminate
		|| strstr(r.message.s, "prepared transaction")) {
			break;
		}
	}
	failed = *r.state ? -1 : 0;
	if (!failed)
		replay_settings(w, pg, template, name, notes);
	if (pg->admin) {
		struct reply unlock = { 0 };

		pg_doing(w, pg, &unlock, sql("SELECT pg_advisory_unlock_shared(%d, %d)",
			(int64_t)CLASS_TEMPLATE, key));
		reply_clear(&unlock);
	}
	if (!strcmp(r.state, "55006"))
		end_sessions(w, o, template, true, notes);
out:
	if (failed) {
		free(statement);
		statement = str("cannot clone database %s", template);
		*passing = explain(&r, statement, why);
	}
	free(statement);
	free(owner);
	free(template);
	reply_clear(&r);
	return failed;
}

/* Drops a database of ours, whatever stands in the way but what must not be
 * touched: prepared transactions and subscriptions. */
static int
drop_postgres(struct worker *w, struct pg *pg, const struct opts *o, const char *name,
	struct reply *r, struct buf *notes)
{
	int failed = pg_doing(w, pg, r, sql("DROP DATABASE IF EXISTS %s WITH (FORCE)", name));

	if (failed && !strcmp(r->state, "42601"))       /* before 13 */
		end_sessions(w, o, name, false, notes);
	if (failed && !strcmp(r->state, "42809"))
		pg_doing(w, pg, r, sql("ALTER DATABASE %s IS_TEMPLATE false", name));
	if (failed && pg->admin && strcmp(r->state, "55006"))
		failed = pg_doing(w, pg, r, sql("DROP DATABASE IF EXISTS %s", name));
	return failed;
}

/* ---- files, and commands for anything else ---- */

static int
clone_file(struct worker *w, const struct opts *o, const char *name, const char *dir, char **env,
	struct buf *notes, struct buf *why)
{
	static const char *const siblings[] = { "-wal", "-journal", "-shm" };
	char *from = file_path(o->db), *to = clone_path(o->db, name, dir), *side;
	char *argv[] = { "cp", "-R", from, to, NULL };
	struct spawn s = { argv, env, -1, 2, 2, -1, false };
	struct stat st;
	int failed = -1, status;
	size_t i;

	for (i = 0; i < LEN(siblings); i++) {
		side = str("%s%s", from, siblings[i]);
		if (i < 2 && stat(side, &st) == 0 && st.st_size > 0) {
			buf_fmt(why, "cannot clone %s: %s is not empty, so the database is in "
				"use or was not closed; close it, or let setup do so", from, side);
			free(side);
			goto out;
		}
		free(side);
		/* A stale one of another life would be read into the clone. */
		side = str("%s%s", to, siblings[i]);
		unlink(side);
		free(side);
	}
	remove_tree(to);
	if (stat(from, &st) < 0) {
		buf_fmt(why, "cannot clone %s: %s; create it, or let setup do so", from,
			strerror(errno));
		goto out;
	}
	status = proc_run(w, &s, -1, true, notes);
	if (status == 0)
		failed = 0;
	else
		buf_fmt(why, "cannot clone %s: cp -R %s", from, status == SPAWN_FAILED
			? strerror(errno) : status == RUN_STOPPED ? "was cancelled"
			: "failed, see worker.log");
out:
	free(from);
	free(to);
	return failed;
}

/* Runs db-clone or db-drop; its last line of output goes to *line. */
static int
run_command(struct worker *w, const struct opts *o, const char *command, const char *name,
	const char *dir, char **env, char **line, struct buf *notes, struct buf *why)
{
	char *out = str("%s/db.out", dir), *log = str("%s/db.log", dir), *text, *url, *db;
	struct list all = { 0 };
	struct buf b = { 0 };
	struct spawn s = { proc_argv(command, NULL, &text), NULL, -1, -1, -1, -1, false };
	int status, failed = -1;
	size_t i;

	for (i = 0; env[i]; i++)
		if (!starts(env[i], "PRUN_DB="))
			list_add(&all, env[i]);
	url = str("PRUN_TEMPLATE_URL=%s", o->db);
	db = str("PRUN_DB=%s", name);
	list_add(&all, url);
	list_add(&all, db);
	s.env = all.v;
	s.out = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	s.err = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (s.out < 0 || s.err < 0) {
		buf_fmt(why, "%s: %s", s.out < 0 ? out : log, strerror(errno));
		goto out;
	}
	status = proc_run(w, &s, line ? -1 : bound(w), line != NULL, notes);
	if (status != 0) {
		buf_fmt(why, "db-%s: %s failed, see %s", line ? "clone" : "drop", command, log);
		buf_tail(why, log, 1);
		goto out;
	}
	failed = 0;
	if (line && buf_read(&b, out) == 0) {
		while (b.n && strchr("\n\r ", b.s[b.n - 1]))
			b.s[--b.n] = '\0';
		*line = b.n ? xstrdup(strrchr(b.s, '\n') ? strrchr(b.s, '\n') + 1 : b.s) : NULL;
		if (!*line) {
			buf_fmt(why, "db-clone: %s printed no URL", command);
			failed = -1;
		}
	}
	unlink(out);
out:
	if (s.out >= 0)
		close(s.out);
	if (s.err >= 0)
		close(s.err);
	for (i = 0; i < all.n; i++)
		free(all.v[i]);
	free(all.v);
	free(s.argv);
	free(text);
	free(url);
	free(db);
	free(out);
	free(log);
	buf_free(&b);
	return failed;
}

/* ---- what workers ask for ---- */

int
pg_clone(struct worker *w, const struct opts *o, const char *name, const char *dir, char **env,
	char **url, struct buf *notes, struct buf *why, bool *passing)
{
	enum kind kind = kind_of(o->db);
	int failed;

	*passing = false;
	if (o->db_clone)
		return run_command(w, o, o->db_clone, name, dir, env, url, notes, why);
	failed = kind == DB_FILE ? clone_file(w, o, name, dir, env, notes, why)
		: clone_postgres(w, o, name, notes, why, passing);
	if (!failed)
		*url = pg_clone_url(o->db, name, dir);
	return failed;
}

int
pg_drop(struct worker *w, const struct opts *o, const char *name, const char *dir, char **env,
	struct buf *notes)
{
	struct reply r = { 0 };
	struct buf why = { 0 };
	struct pg *pg;
	int failed = 0;
	char *path;

	if (o->db_clone) {
		failed = o->db_drop ? run_command(w, o, o->db_drop, name, dir, env, NULL, notes,
			&why) : 0;
	} else if (kind_of(o->db) == DB_FILE) {
		path = clone_path(o->db, name, dir);
		failed = remove_tree(path);
		if (failed)
			buf_fmt(&why, "cannot remove %s: %s", path, strerror(errno));
		free(path);
	} else {
		pg = session(w, o, &r, false);
		failed = pg ? drop_postgres(w, pg, o, name, &r, notes) : -1;
		if (failed)
			explain(&r, "cannot drop database", &why);
		reply_clear(&r);
	}
	if (failed)
		buf_fmt(notes, "- %s (%s is left)\n", why.s, name);
	buf_free(&why);
	return failed;
}

int
pg_keep(struct worker *w, const struct opts *o, const char *name, const char *file,
	struct buf *notes)
{
	struct reply r = { 0 };
	struct pg *pg;
	time_t now = time(NULL);
	char when[32], *text;
	int failed;

	if (o->db_clone || kind_of(o->db) == DB_FILE)
		return 0;
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	text = str("prun keep %s %s", when, file);
	pg = session(w, o, &r, false);
	failed = pg ? pg_doing(w, pg, &r, sql("COMMENT ON DATABASE %s IS %L", name, text)) : -1;
	if (failed)
		buf_fmt(notes, "- %s could not be marked as kept, so the next run drops it: %s\n",
			name, r.message.s);
	free(text);
	reply_clear(&r);
	return failed;
}

/* Drops the clones of dead runs: those of this template, ours to drop, that
 * nobody uses, that are not marked as kept and whose run holds no lock. */
static void
sweep(struct worker *w, struct pg *pg, const struct opts *o, struct buf *notes)
{
	static const char dead[] = "SELECT datname, substr(regexp_replace(datname, 'r[0-9]+$', "
		"''), length(regexp_replace(datname, 'r[0-9]+$', '')) - 5) FROM pg_database d "
		"WHERE datname ~ ('^' || %L || '_w[0-9]+_[0-9a-z]{6}(r[0-9]+)?$') "
		"AND pg_has_role(current_user, datdba, 'USAGE') AND coalesce(shobj_description("
		"d.oid, 'pg_database'), '') NOT LIKE 'prun keep%%' AND NOT EXISTS (SELECT 1 "
		"FROM pg_stat_activity a WHERE a.datid = d.oid) %s";
	char *stem = stem_of(o->db), *again;
	struct reply list = { 0 }, r = { 0 };
	const char *name;
	int64_t run;
	size_t i;

	pg_doing(w, pg, &list, sql(dead, stem, ""));
	for (i = 0; i + 1 < list.fields.n && pg->admin && !w->cancelled; i += 2) {
		name = list.fields.v[i];
		run = run_number(list.fields.v[i + 1]);
		if (run > INT32_MAX || pg_doing(w, pg, &r, sql("SELECT pg_try_advisory_lock("
				"%d, %d)", (int64_t)CLASS_RUN, run)) < 0
		|| strcmp(r.fields.v[0], "t"))
			continue;
		/* Since we looked, it may have been kept. */
		again = sql("AND datname = %L", name);
		if (pg_doing(w, pg, &r, sql(dead, stem, again)) == 0 && r.fields.n
		&& drop_postgres(w, pg, o, name, &r, notes) == 0)
			buf_fmt(notes, "- dropped %s, which a dead run had left\n", name);
		free(again);
		if (pg->admin)
			pg_doing(w, pg, &r, sql("SELECT pg_advisory_unlock(%d, %d)",
				(int64_t)CLASS_RUN, run));
	}
	free(stem);
	reply_clear(&list);
	reply_clear(&r);
}

int
pg_setup(struct worker *w, const struct opts *o, bool begin, struct buf *notes, struct buf *why)
{
	char *template;
	struct reply r = { 0 };
	struct pg *pg;
	int failed = 0;

	if (!o->db || o->db_clone || kind_of(o->db) == DB_FILE)
		return 0;
	template = template_name(o->db);
	pg = session(w, o, &r, true);
	if (pg && begin)
		sweep(w, pg, o, notes);
	if (pg && !pg->admin)
		pg = session(w, o, &r, true);
	/* Exclusive, so that no other run clones what setup is changing. */
	if (!pg || (o->setup && pg_doing(w, pg, &r, sql("SELECT pg_advisory_%s(%d, %d)",
			begin ? "lock" : "unlock", (int64_t)CLASS_TEMPLATE,
			(int64_t)(hash(template) & 0x7fffffff))) < 0)) {
		explain(&r, "the database server", why);
		failed = -1;
	}
	reply_clear(&r);
	free(template);
	return failed;
}

void
pg_close(struct worker *w)
{
	struct pg *pg, *next;

	for (pg = w->pg; pg; pg = next) {
		next = pg->next;
		if (pg->admin)
			close_session(w, pg);
		free(pg);
	}
	w->pg = NULL;
}
