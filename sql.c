/*
 * sql.c: how a database is named and reached: its URL, then a session with
 * PostgreSQL.
 *
 * A URL is split once, into slices: user:password@, host, path, query.  A DSN
 * (host=h dbname=x) is nothing but a query.  Userinfo ends at the first @
 * before a slash; ? and # are legal in a password, and there are no fragments.
 * A clone's URL has another name in the place of the database, all else byte
 * for byte, because drivers read more into URLs than libpq knows of.  What libpq
 * and psql get is written anew, with the parameters that libpq knows.
 *
 * libpq is loaded when first needed.  Where it cannot be, as from a static
 * binary, one psql reads statements from a pipe: both look the same from
 * sql_send() and sql_reply() up.  All waiting is proc_wait()'s, so that orders
 * are heard meanwhile, and nothing here waits for a server without a deadline
 * unless the caller says so.  Whatever a server, libpq or psql says of an error
 * has the passwords taken out.
 */
#include "prun.h"
#include <ctype.h>
#include <dlfcn.h>
#include <pwd.h>

/* ---- URLs ---- */

#define STEM_MAX 42             /* 63 less _w999999_abcdefghr999 */

/* Where a URL's parts begin; user..host is user:password@, or nothing. */
struct url {
	enum url_kind kind;
	const char *user, *host, *path, *query;
};

/* A parameter of a query or DSN, as slices. */
struct param {
	const char *key, *value;
	size_t nkey, nvalue;
};

/* The string in b, in scratch memory; b is freed. */
static char *
take(struct buf *b)
{
	char *s = str("%s", b->s ? b->s : "");

	buf_free(b);
	return s;
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
	static const char *const pg[] = {
		"postgres", "postgresql", "postgis", "pgsql", "ecto", "jdbc:postgresql"
	};
	size_t n = strcspn(url, "+:");

	if (starts(url, "jdbc:sqlite:") || starts(url, "file:")
	|| (n == 6 && starts(url, "sqlite")))
		return URL_FILE;
	if (!after_scheme(url))
		return strchr(url, '=') ? URL_DSN : URL_OTHER;
	if (starts(url, "jdbc:"))
		n = strcspn(url + 5, "+:") + 5;
	return find_word(pg, LEN(pg), str("%.*s", (int)n, url)) < LEN(pg) ? URL_PG : URL_OTHER;
}

static struct url
split_url(const char *url)
{
	struct url u = { url_kind(url), url, url, url, url };

	u.user = u.host = after_scheme(url);
	if (!u.user) {
		u.user = u.host = url;
		return u;
	}
	if (u.user[strcspn(u.user, "@/")] == '@')
		u.host = strchr(u.user, '@') + 1;
	u.path = u.host + strcspn(u.host, "/?");
	u.query = u.path + strcspn(u.path, "?");
	return u;
}

/* Length of a value of a DSN, which may be quoted. */
static size_t
dsn_value(const char *value)
{
	const char *p = value;
	bool quoted = *p == '\'';

	for (p += quoted; *p && !(quoted ? *p == '\'' : strchr(" \t\n", *p) != NULL); p++)
		p += *p == '\\' && p[1];
	return (size_t)(p - value) + (quoted && *p);
}

/* The next parameter at *s, which moves behind it. */
static bool
next_param(const char **s, enum url_kind kind, struct param *p)
{
	const char *blank = kind == URL_PG ? "" : " \t\n";

	p->key = *s + strspn(*s, kind == URL_PG ? "?&" : blank);
	if (!*p->key)
		return false;
	p->nkey = strcspn(p->key, kind == URL_PG ? "=&" : "= \t\n");
	p->value = p->key + p->nkey;
	p->value += strspn(p->value, blank);
	p->value += *p->value == '=';
	p->value += strspn(p->value, blank);
	p->nvalue = kind == URL_PG ? strcspn(p->value, "&") : dsn_value(p->value);
	*s = p->value + p->nvalue;
	return true;
}

static bool
is_key(const struct param *p, const char *word)
{
	return strlen(word) == p->nkey && !memcmp(p->key, word, p->nkey);
}

/* Undoes %41 of a URL, quotes and backslashes of a DSN. */
static char *
decode(const char *s, size_t n, enum url_kind kind)
{
	char *to = str("%.*s", (int)n, s), *start = to, hex[3] = "";

	for (s = to; *s; s++) {
		if (kind == URL_PG && *s == '%' && isxdigit((unsigned char)s[1])
		&& isxdigit((unsigned char)s[2])) {
			memcpy(hex, s + 1, 2);
			*to++ = (char)strtol(hex, NULL, 16);
			s += 2;
		} else if (kind == URL_PG || *s != '\'') {
			s += kind == URL_DSN && *s == '\\' && s[1];
			*to++ = *s;
		}
	}
	*to = '\0';
	return start;
}

/* The last value of a parameter, or NULL. */
static char *
param(const struct url *u, const char *name)
{
	const char *s = u->query;
	struct param p;
	char *found = NULL;

	while (next_param(&s, u->kind, &p))
		if (is_key(&p, name))
			found = decode(p.value, p.nvalue, u->kind);
	return found;
}

/* Appends the query with value in the place of the values of these keys. */
static void
replace_params(struct buf *b, const struct url *u, const char *const keys[2], const char *value)
{
	const char *s = u->query, *from = s;
	struct param p;

	while (next_param(&s, u->kind, &p))
		if (is_key(&p, keys[0]) || is_key(&p, keys[1])) {
			buf_add(b, from, (size_t)(p.value - from));
			buf_str(b, value);
			from = s;
		}
	buf_str(b, from);
}

/* Where the password of user:password@ begins, or NULL. */
static const char *
password_of(const struct url *u)
{
	const char *s = u->user + strcspn(u->user, ":@");

	return s < u->host && *s == ':' ? s + 1 : NULL;
}

/* Drivers have parameters that libpq does not know, and words of their own. */
static void
admin_param(struct buf *b, const struct param *p)
{
	static const char known[] = " host hostaddr port user password passfile "
		"channel_binding connect_timeout client_encoding options application_name "
		"keepalives keepalives_idle keepalives_interval keepalives_count "
		"tcp_user_timeout gssencmode sslmode sslcert sslkey sslpassword sslrootcert "
		"sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version "
		"ssl_max_protocol_version krbsrvname gsslib service target_session_attrs ";
	char *key = str("%.*s", (int)p->nkey, p->key);
	char *v = str("%.*s", (int)p->nvalue, p->value);
	bool ssl = !strcmp(key, "ssl");

	if (!ssl && !strstr(known, str(" %s ", key)))
		return;
	if (!strcmp(v, "no-verify") || (ssl && (!strcmp(v, "true") || !strcmp(v, "TRUE"))))
		v = "require";
	else if (ssl && !strcmp(v, "false"))
		v = "disable";
	buf_fmt(b, "%c%s=%s", strchr(b->s, '?') ? '&' : '?', ssl ? "sslmode" : key, v);
}

/* The parameters that libpq or psql gets, less the database's name and, where it
 * is to be taken out, the password. */
static void
admin_params(struct buf *b, const struct url *u, char **password)
{
	const char *s = u->query;
	struct param p;

	while (next_param(&s, u->kind, &p)) {
		if (password && is_key(&p, "password"))
			*password = decode(p.value, p.nvalue, u->kind);
		else if ((password && is_key(&p, "sslpassword")) || is_key(&p, "dbname"))
			continue;
		else if (u->kind == URL_PG)
			admin_param(b, &p);
		else
			buf_fmt(b, "%.*s=%.*s ", (int)p.nkey, p.key, (int)p.nvalue, p.value);
	}
}

char *
url_admin(const char *url, const char *name, char **password)
{
	struct url u = split_url(url);
	const char *secret = password ? password_of(&u) : NULL;
	struct buf b = { 0 };

	if (u.kind == URL_PG) {
		buf_str(&b, "postgresql://");
		if (secret) {
			*password = decode(secret, (size_t)(u.host - secret) - 1, URL_PG);
			buf_fmt(&b, "%.*s@", (int)(secret - u.user) - 1, u.user);
		} else {
			buf_add(&b, u.user, (size_t)(u.host - u.user));
		}
		buf_fmt(&b, "%.*s/%s", (int)(u.path - u.host), u.host, name);
	}
	admin_params(&b, &u, password);
	if (u.kind == URL_DSN)
		buf_fmt(&b, "dbname=%s", name);
	return take(&b);
}

/* The path of a file template as its URL has it; *n its length. */
static const char *
file_part(const char *url, size_t *n)
{
	const char *p = strchr(url, ':') + 1;

	if (starts(url, "jdbc:"))
		p = strchr(p, ':') + 1;
	if (starts(p, "//"))
		p += 2;
	*n = strcspn(p, "?");
	return p;
}

char *
url_file(const char *url)
{
	size_t n;
	const char *p = file_part(url, &n);
	char *path = str("%.*s", (int)n, p);
	struct stat st;

	/* sqlite:///r.db is relative, sqlite:////r.db is not (SQLAlchemy); where only the
	 * file at the root exists, that one is meant. */
	if (starts(url, "sqlite") && path[0] == '/'
	&& (path[1] == '/' || stat(path + 1, &st) == 0 || stat(path, &st) < 0))
		path++;
	return path;
}

char *
url_clone_file(const char *url, const char *name, const char *dir)
{
	char *base = url_file(url), *slash = strrchr(base, '/'), *dot;

	base = slash ? slash + 1 : base;
	dot = strrchr(base, '.');
	return str("%s/%s%s", dir, name, dot && dot > base ? dot : "");
}

/* The name of a template that is a file, or that we know nothing of. */
static char *
file_name(const char *url, enum url_kind kind)
{
	char *dot, *name = kind == URL_FILE ? url_file(url)
		: str("%.*s", (int)strcspn(url, "?"), url);

	while (*name && ends(name, "/"))
		name[strlen(name) - 1] = '\0';
	name = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
	dot = kind == URL_FILE ? strrchr(name, '.') : NULL;
	if (dot && dot != name)
		*dot = '\0';
	return name;
}

/* The database that a URL names, or NULL. */
static char *
database(const struct url *u)
{
	char *name = param(u, "dbname");

	if (!name && u->query > u->path + 1)
		name = decode(u->path + 1, (size_t)(u->query - u->path) - 1, URL_PG);
	return name;
}

char *
url_database(const char *url)
{
	struct url u = split_url(url);

	return database(&u);
}

char *
url_template(const char *url)
{
	struct url u = split_url(url);
	struct passwd *pw;
	char *name;

	if (u.kind == URL_FILE || u.kind == URL_OTHER)
		return file_name(url, u.kind);
	/* As libpq chooses: dbname, path, PGDATABASE, then the user's name. */
	name = database(&u);
	if (!name)
		name = getenv("PGDATABASE");
	if (!name && u.host > u.user)
		name = decode(u.user, strcspn(u.user, ":@"), URL_PG);
	if (!name)
		name = param(&u, "user");
	if (!name)
		name = getenv("PGUSER");
	if (!name) {
		pw = getpwuid(geteuid());
		name = pw ? pw->pw_name : "";
	}
	return str("%s", name);
}

/* Whether each parameter has a value; libpq's words for one that has not show it. */
static bool
is_dsn(const struct url *u)
{
	const char *s = u->query;
	struct param p;

	while (next_param(&s, u->kind, &p)) {
		if (!memchr(p.key, '=', (size_t)(p.value - p.key)))
			return false;
		if (*p.value == '\'' && (p.nvalue < 2 || p.value[p.nvalue - 1] != '\''))
			return false;
		if (*s && !strchr(" \t\n", *s))
			return false;
	}
	return true;
}

const char *
url_check(const char *url)
{
	struct url u = split_url(url);

	if (starts(url, "prisma+postgres:"))
		return "is the URL of Prisma's proxy; use the database's own URL";
	if (u.kind == URL_PG && u.host[strcspn(u.host, "/?@")] == '@')
		return "has two @ before the host; write @ as %40 in the password";
	if (u.kind == URL_PG && u.host == u.user && memchr(u.host, ':', u.path - u.host)
	&& *u.path && strchr(u.path, '@'))
		return "has a / before its @; write / as %2F in the password";
	if (u.kind == URL_DSN && !is_dsn(&u))
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
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	char *name = url_template(url), *s;
	uint32_t h = hash(HASH_BEGIN, name);
	bool altered = strlen(name) > STEM_MAX;

	for (s = name; *s; s++)
		if (!strchr(digits, *s) && *s != '_') {
			*s = isupper((unsigned char)*s) ? (char)(*s | 32) : '_';
			altered = true;
		}
	return !altered ? name : str("%.*s_%c%c%c%c", STEM_MAX - 5, name, digits[h % 36],
		digits[h / 36 % 36], digits[h / 1296 % 36], digits[h / 46656 % 36]);
}

char *
url_clone_name(const char *url, int index, const char *run, int attempt)
{
	char *name = str("%s_w%d_%s", url_stem(url), index, run);

	return attempt > 1 ? str("%sr%d", name, attempt) : name;
}

char *
url_copy_name(const char *url, size_t setup, const char *run)
{
	return str("%s_s%zu_%s", url_stem(url), setup, run);
}

/* A URL or DSN of PostgreSQL with another database. */
static char *
clone_pg(const char *url, const char *name)
{
	static const char *const key[2] = { "dbname", "dbname" };
	struct url u = split_url(url);
	struct buf b = { 0 };
	bool given = param(&u, "dbname") != NULL;

	buf_add(&b, url, (size_t)(u.path - url));
	if (u.kind == URL_PG && (!given || u.query > u.path + 1))
		buf_fmt(&b, "/%s", name);
	else
		buf_add(&b, u.path, (size_t)(u.query - u.path));
	replace_params(&b, &u, key, name);
	if (u.kind == URL_DSN && !given)
		buf_fmt(&b, "%sdbname=%s", b.s && !ends(b.s, " ") ? " " : "", name);
	return take(&b);
}

char *
url_clone(const char *url, const char *name, const char *dir)
{
	const char *rest, *slashes = starts(url, "sqlite") ? "///" : "";
	size_t n;

	if (url_kind(url) != URL_FILE)
		return clone_pg(url, name);
	rest = file_part(url, &n) + n;
	return str("%.*s%s%s%s", (int)strcspn(url, ":") + 1, url, starts(url, "jdbc:")
		? "sqlite:" : slashes, url_clone_file(url, name, dir), rest);
}

char *
url_masked(const char *url)
{
	static const char *const secrets[2] = { "password", "sslpassword" };
	struct url u = split_url(url);
	const char *last = strrchr(url, '@'), *secret = password_of(&u);
	struct buf b = { 0 };

	if (last && u.user > url
	&& (u.host == u.user || u.host[strcspn(u.host, "@?")] == '@')) {
		/* Whoever forgot to write %40 or %2F: all before the last @ may be secret. */
		u.host = last + 1;
		u.path = u.query = u.host + strcspn(u.host, "?");
		secret = strchr(u.user, ':');
		secret = secret && secret < last ? secret + 1 : NULL;
	}
	if (u.kind == URL_DSN && !is_dsn(&u))   /* who knows where the password ends */
		return str("%.*s...", (int)strcspn(url, "="), url);
	if (u.user > url)
		u.kind = URL_PG;        /* its query is one of a URL, whatever it names */
	buf_add(&b, url, (size_t)((secret ? secret : u.host) - url));
	if (secret)
		buf_str(&b, "***@");
	buf_add(&b, u.host, (size_t)(u.query - u.host));
	replace_params(&b, &u, secrets, "***");
	return take(&b);
}

/* Adds the hosts of a URL and their ports as libpq's variables have them. */
static void
host_env(const struct url *u, struct list *env)
{
	const char *s = u->host, *end;
	struct buf hosts = { 0 }, ports = { 0 };
	size_t n;

	for (; s < u->path; s = end + 1) {
		end = s + strcspn(s, ",/?");
		n = *s == '[' ? strcspn(s, "]") + 1 : strcspn(s, ":,/?");
		buf_fmt(&hosts, "%s%s", hosts.n ? "," : "", *s == '['
			? decode(s + 1, n - 2, URL_PG) : decode(s, n, URL_PG));
		if (ports.n || s > u->host)
			buf_char(&ports, ',');
		if (s + n < end)
			buf_add(&ports, s + n + 1, (size_t)(end - s - n) - 1);
	}
	if (hosts.n)
		list_add(env, str("PGHOST=%s", hosts.s));
	if (ports.n)
		list_add(env, str("PGPORT=%s", ports.s));
	buf_free(&hosts);
	buf_free(&ports);
}

void
url_env(const char *url, struct list *env)
{
	static const char *const names[][2] = {
		{ "host", "PGHOST" }, { "hostaddr", "PGHOSTADDR" }, { "port", "PGPORT" },
		{ "user", "PGUSER" }, { "password", "PGPASSWORD" }, { "service", "PGSERVICE" },
		{ "passfile", "PGPASSFILE" }, { "options", "PGOPTIONS" },
		{ "sslmode", "PGSSLMODE" }, { "sslcert", "PGSSLCERT" }, { "sslkey", "PGSSLKEY" },
		{ "sslrootcert", "PGSSLROOTCERT" }, { "gssencmode", "PGGSSENCMODE" },
		{ "channel_binding", "PGCHANNELBINDING" },
		{ "target_session_attrs", "PGTARGETSESSIONATTRS" }
	};
	char *name = url_database(url), *value;
	struct url u = split_url(url_admin(url, name ? name : "", NULL));
	const char *secret = password_of(&u);
	size_t i;

	if (u.host > u.user) {
		list_add(env, str("PGUSER=%s", decode(u.user, strcspn(u.user, ":@"), URL_PG)));
		if (secret)
			list_add(env, str("PGPASSWORD=%s", decode(secret,
				(size_t)(u.host - secret) - 1, URL_PG)));
	}
	host_env(&u, env);
	for (i = 0; i < LEN(names); i++) {
		value = param(&u, names[i][0]);
		if (value)
			list_add(env, str("%s=%s", names[i][1], value));
	}
	if (name)
		list_add(env, str("PGDATABASE=%s", name));
}

/* Adds its passwords to l, as they stand in the URL and decoded. */
static void
add_secrets(const char *url, struct list *l)
{
	struct url u = split_url(url);
	const char *secret = password_of(&u), *s = u.query;
	struct param p;

	if (secret) {
		list_add(l, str("%.*s", (int)(u.host - secret) - 1, secret));
		list_add(l, decode(secret, (size_t)(u.host - secret) - 1, URL_PG));
	}
	while (next_param(&s, u.kind, &p))
		if (is_key(&p, "password") || is_key(&p, "sslpassword")) {
			list_add(l, str("%.*s", (int)p.nvalue, p.value));
			list_add(l, decode(p.value, p.nvalue, u.kind));
		}
}

/* ---- errors ---- */

/* Also our own: 08001 there never was contact, 08006 it was lost, 57014 cancelled,
 * 58030 no psql. */
static const struct error errors[] = {
	{ "08001", SQL_OTHER, true, "" },
	{ "08", SQL_LOST, true, "" },
	{ "57P03", SQL_NOT_YET, true, "" },
	{ "57P", SQL_LOST, true, "" },
	{ "57", SQL_OTHER, true, "" },
	{ "3D000", SQL_MISSING, false, "; create it, or let setup create it" },
	{ "42501", SQL_FORBIDDEN, false, "; the role needs CREATEDB and must own the template, "
		"unless it is marked IS_TEMPLATE" },
	{ "55006", SQL_IN_USE, false, "" },
	{ "25006", SQL_OTHER, false, "; it is a standby or read-only, so set db-admin to the "
		"server that writes" },
	{ "42P04", SQL_OTHER, true, "; another run has the same id" },
	{ "23505", SQL_OTHER, true, "; another run has the same id" },
	{ "42601", SQL_SYNTAX, false, "" },
	{ "42809", SQL_IS_TEMPLATE, false, "" },
	{ "53300", SQL_CROWDED, true, "; raise max_connections, or lower jobs" },
	{ "53100", SQL_OTHER, false, "; the server's disk is full" },
	{ "53200", SQL_OTHER, false, "; the server is out of memory" },
	{ "XX000", SQL_OTHER, false, "; if the collation version is the problem, run "
		"ALTER DATABASE ... REFRESH COLLATION VERSION" },
	{ "28", SQL_OTHER, false, "; check the user and password of db" },
	{ "", SQL_OTHER, false, "" }
};

/* ---- libpq ---- */

extern char **environ;

/* libpq's enumerations, which never change. */
enum {
	PQ_OK = 0, PQ_BAD = 1, POLL_FAILED = 0, POLL_READING = 1, POLL_WRITING = 2, POLL_OK = 3,
	PQ_COMMAND = 1, PQ_TUPLES = 2
};

static struct {
	void *(*connectStartParams)(const char *const *, const char *const *, int);
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
	int (*backendPID)(const void *);
} pq;

/* in the order of the struct */
static const char *const pq_names[] = {
	"PQconnectStartParams", "PQconnectPoll", "PQsocket", "PQstatus", "PQerrorMessage",
	"PQsetErrorVerbosity", "PQsetnonblocking", "PQsendQuery", "PQflush", "PQconsumeInput",
	"PQisBusy", "PQgetResult", "PQresultStatus", "PQresultErrorMessage", "PQntuples",
	"PQnfields", "PQgetvalue", "PQclear", "PQfinish",
	"PQbackendPID"
};

/* Whether libpq can be had; tried once per process. */
bool
sql_libpq(void)
{
	static const char *const names[] = {
		"libpq.so.5", "libpq.so", "libpq.5.dylib",
		"/opt/homebrew/opt/libpq/lib/libpq.5.dylib",
		"/usr/local/opt/libpq/lib/libpq.5.dylib"
	};
	static int have = -1;
	const char *wanted = getenv("PRUN_LIBPQ");
	bool any = !wanted || !*wanted;
	void *lib = NULL, *f = NULL;
	size_t i;

	if (have >= 0)
		return have;
	for (i = 0; any && !lib && i < LEN(names); i++)
		lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (!any && strcmp(wanted, "none")) {
		lib = dlopen(wanted, RTLD_NOW | RTLD_LOCAL);
		if (!lib)
			warn("PRUN_LIBPQ: %s; using psql", dlerror());
	}
	have = lib != NULL;
	for (i = 0; have && i < LEN(pq_names); i++) {
		f = dlsym(lib, pq_names[i]);
		/* POSIX lets a function's address stand in a void *. */
		memcpy((char *)&pq + i * sizeof(f), &f, sizeof(f));
		have = f != NULL;
	}
	return have;
}

void
sql_clear(struct reply *r)
{
	list_free(&r->fields);
	buf_free(&r->message);
	r->error = NULL;
}

/* Passwords of all that was connected with, which no reply may show. */
static struct list secrets;

/* text with to in the place of each from. */
static char *
replace(char *text, const char *from, const char *to)
{
	struct buf b = { 0 };
	char *at, *out;

	if (!*from || !strstr(text, from))
		return text;
	while ((at = strstr(text, from))) {
		buf_add(&b, text, (size_t)(at - text));
		buf_str(&b, to);
		text = at + strlen(from);
	}
	out = str("%s%s", b.s, text);
	buf_free(&b);
	return out;
}

/* Makes r an error; of the message its first line. */
int
sql_error(struct reply *r, const char *state, const char *message)
{
	char *text = str("%.*s", (int)strcspn(message, "\n"), message);
	size_t i;

	for (i = 0; !starts(state, errors[i].state); i++)
		;
	r->error = &errors[i];
	for (i = 0; i < secrets.n; i++)
		text = replace(text, secrets.v[i], "***");
	r->message.n = 0;
	buf_safe(&r->message, text, strlen(text));
	return -1;
}

/* Fills r from an error as libpq and psql print it: "ERROR:  42P04: text", then
 * "DETAIL:  text"; without such a line the connection is the trouble. */
static void
scan_error(struct reply *r, const char *text)
{
	static const char *const levels[] = { "ERROR:  ", "FATAL:  ", "PANIC:  " };
	/* psql does not tell the state of an error that it got as it connected. */
	static const char *const words[][2] = {
		{ "remaining connection slots", "53300" }, { "too many clients", "53300" },
		{ "too many connections", "53300" }, { "the database system is", "57P03" },
		{ "FATAL:  ", "28000" }
	};
	const char *at = NULL, *detail = strstr(text, "DETAIL:  "), *state = "08006";
	size_t i, n;

	for (i = 0; !at && i < LEN(levels); i++)
		at = strstr(text, levels[i]);
	for (i = LEN(words); i-- > 0;)
		if (strstr(text, words[i][0]))
			state = words[i][1];
	if (at && strlen(at) > 15 && at[13] == ':') {
		state = str("%.5s", at + 8);
		text = at + 15;
	}
	text += strspn(text, "\n");
	n = strcspn(text, "\n");
	sql_error(r, state, !detail ? text : str("%.*s (%.*s)", (int)n, text,
		(int)strcspn(detail + 9, "\n"), detail + 9));
}

static enum waited
await_fd(struct sql *t, int fd, int events, int64_t deadline, bool heed)
{
	struct pollfd p = { fd, (short)events, 0 };
	bool came;

	for (;;) {
		if (heed && t->w->cancelled)
			return STOPPED;
		if (proc_late(t->w, deadline))
			return LATE;
		t->busy++;
		came = proc_wait(t->w, &p, 1, deadline);
		t->busy--;
		if (p.revents)
			return REPLIED;
		if (came && t->brief)
			return STOPPED;
	}
}

static enum waited
pq_connect(struct sql *t, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	const char *const keys[] = { "dbname", "fallback_application_name", NULL };
	const char *const values[] = { db->url, "prun", NULL };
	enum waited how = REPLIED;
	int state = POLL_WRITING, events;       /* as libpq wants it to begin */

	db->conn = pq.connectStartParams(keys, values, 1);
	if (!db->conn)
		fatal(EXIT_RUN, "out of memory");
	pq.setErrorVerbosity(db->conn, 2);      /* with SQLSTATE */
	if (pq.status(db->conn) == PQ_BAD)
		state = POLL_FAILED;
	while (state != POLL_OK && state != POLL_FAILED) {
		/* Its socket may be another one after every poll. */
		events = state == POLL_READING ? POLLIN : POLLOUT;
		how = await_fd(t, pq.socket(db->conn), events, deadline, heed);
		if (how != REPLIED)
			return how;
		state = pq.connectPoll(db->conn);
	}
	if (state == POLL_OK)
		pq.setnonblocking(db->conn, 1);
	else
		scan_error(r, pq.errorMessage(db->conn));
	return REPLIED;
}

/* Waits until a result can be had without blocking. */
static enum waited
pq_await(struct sql *t, struct session *db, int64_t deadline, bool heed)
{
	enum waited how = REPLIED;
	int unsent = pq.flush(db->conn);

	while (how == REPLIED && (unsent > 0 || (unsent == 0 && pq.isBusy(db->conn)))) {
		how = await_fd(t, pq.socket(db->conn), unsent ? POLLIN | POLLOUT : POLLIN,
			deadline, heed);
		if (how == REPLIED && !pq.consumeInput(db->conn))
			break;
		unsent = pq.flush(db->conn);
	}
	return how;
}

static enum waited
pq_reply(struct sql *t, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	enum waited how;
	void *result;
	int i, k, status;

	/* To the last result, NULL: an error comes well before the server is ready
	 * again, and a statement that is sent in between is not taken. */
	do {
		how = pq_await(t, db, deadline, heed);
		if (how != REPLIED)
			return how;
		result = pq.getResult(db->conn);
		status = pq.resultStatus(result);
		for (i = 0; status == PQ_TUPLES && i < pq.ntuples(result); i++)
			for (k = 0; k < pq.nfields(result); k++)
				list_add(&r->fields, pq.getvalue(result, i, k));
		if (result && status != PQ_TUPLES && status != PQ_COMMAND)
			scan_error(r, pq.resultErrorMessage(result));
		pq.clear(result);
	} while (result);
	if (pq.status(db->conn) == PQ_BAD && !r->error)
		scan_error(r, pq.errorMessage(db->conn));
	return REPLIED;
}

/* ---- psql ---- */

/* What psql has written to its standard error since last asked. */
static void
psql_error(struct session *db, struct reply *r)
{
	char text[4096];
	ssize_t n = read(db->err, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	scan_error(r, *text ? text : "psql exited without a message");
	lseek(db->err, 0, SEEK_END);    /* a regular file of ours */
}

static int
psql_start(struct sql *t, struct session *db, struct reply *r)
{
	static int number;
	char *file = str("%s/psql-%d-%d", t->dir, t->w->slot, number++);
	char *password = NULL, *url = url_admin(db->url, url_database(db->url), &password);
	char *argv[] = { "psql", "-XAtqw", "-v", "VERBOSITY=verbose",
		"-F", "\037", "-R", "\036", "-d", url, NULL };
	struct list env = { 0 };
	struct spawn s = { .argv = argv };
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, failed = -1;
	size_t i;

	for (i = 0; environ[i]; i++)
		if (!starts(environ[i], "LC_ALL=")
		&& !(password && starts(environ[i], "PGPASSWORD=")))
			list_add(&env, environ[i]);
	list_add(&env, "LC_ALL=C");     /* we read its messages */
	if (password)
		list_add(&env, str("PGPASSWORD=%s", password));
	s.env = env.v;
	s.err = open(file, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
	db->err = open(file, O_RDONLY | O_CLOEXEC);
	unlink(file);                   /* if it is not there, open has said so */
	if (s.err >= 0 && db->err >= 0 && proc_pipe(in) == 0 && proc_pipe(out) == 0) {
		s.in = in[0];
		s.out = out[1];
		failed = proc_start(t->w, &db->psql, &s);
	}
	if (failed)
		sql_error(r, "58030", str("cannot run psql: %s%s", strerror(errno),
			errno == ENOENT ? "; install libpq or psql" : ""));
	db->in = in[1];
	db->out = out[0];
	close_keep(in[0]);
	close_keep(out[1]);
	close_keep(s.err);
	list_free(&env);
	return failed;
}

static enum waited
psql_reply(struct sql *t, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	char *mark = str("@@%d ", db->statement), chunk[4096], *at = NULL, *s, *end;
	enum waited how;
	ssize_t n;

	for (;;) {
		at = db->text.n ? strstr(db->text.s, mark) : NULL;
		if (at && strchr(at, '\n'))
			break;
		how = await_fd(t, db->out, POLLIN, deadline, heed);
		if (how != REPLIED)
			return how;
		n = read(db->out, chunk, sizeof(chunk));
		if (n <= 0) {
			psql_error(db, r);
			return REPLIED;
		}
		buf_add(&db->text, chunk, (size_t)n);
	}
	if (starts(at + strlen(mark), "true")) {
		psql_error(db, r);
	} else if (at > db->text.s) {
		at[-1] = '\036';        /* psql ends the last row with a newline */
		for (s = db->text.s; s < at; s = end) {
			end = s + strcspn(s, "\036\037") + 1;
			end[-1] = '\0';
			list_add(&r->fields, s);
		}
	}
	db->text.n = 0;
	return REPLIED;
}

/* ---- either ---- */

/* Never waits for the server, which hears of it in its own time. */
void
sql_close(struct sql *t, struct session *db)
{
	struct buf notes = { 0 };

	t->busy++;
	if (db->conn) {
		pq.finish(db->conn);
	} else if (db->open) {
		close_keep(db->in);     /* psql ends at the end of its input */
		close_keep(db->out);
		close_keep(db->err);
		proc_stop(t->w, &db->psql, 1000, false, &notes);
		if (notes.n)
			warn("psql: %s", notes.s);
	}
	buf_free(&notes);
	buf_free(&db->text);
	db->conn = NULL;
	db->open = false;
	t->busy--;
}

void
sql_send(struct session *db, const char *sql)
{
	char *s = str("%s;\n\\echo @@%d :ERROR :SQLSTATE\n", sql, db->statement + 1);

	if (db->conn)
		pq.sendQuery(db->conn, sql);            /* failure: in the reply */
	else if (write_all(db->in, s, strlen(s)) == 0)  /* failure: end of file */
		db->statement++;
}

enum waited
sql_reply(struct sql *t, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	enum waited how = (db->conn ? pq_reply : psql_reply)(t, db, r, deadline, heed);

	if (how == REPLIED && r->error && r->error->trouble == SQL_LOST)
		sql_close(t, db);   /* the next one to ask opens another */
	return how;
}

/* Sends a statement and waits; 0 when it went well.  A cancel does not end it: what
 * is to be dropped is to be dropped.  prun kills those who take too long over it. */
int
sql_do(struct sql *t, struct session *db, struct reply *r, const char *sql)
{
	sql_clear(r);
	sql_send(db, sql);
	if (sql_reply(t, db, r, proc_clock(t->w) + t->answer_ms, false) != REPLIED) {
		sql_error(r, "08006", "the server did not answer");
		sql_close(t, db);
	}
	return r->error ? -1 : 0;
}

/* Makes a fresh session fit to live as long as the run, whatever the role's settings
 * are. */
static int
make_fit(struct sql *t, struct session *db, struct reply *r)
{
	/* 14 and later: without it a client that is killed during CREATE leaves a
	 * database that appears after its death. */
	sql_do(t, db, r, "SET client_connection_check_interval = '1s'");
	if (db->open)
		sql_do(t, db, r, "SET statement_timeout = 0");
	if (!db->open || sql_do(t, db, r, "SELECT pg_backend_pid(), "
		"current_setting('server_version_num'), "
		"current_setting('file_copy_method', true), count(set_config(name, CASE name "
		"WHEN 'client_min_messages' THEN 'error' WHEN 'tcp_keepalives_idle' THEN '20' "
		"ELSE '0' END, false)) FROM pg_settings WHERE name IN ('client_min_messages', "
		"'tcp_keepalives_idle', 'idle_session_timeout', 'lock_timeout', "
		"'transaction_timeout')") < 0)
		return -1;
	db->version = atoi(r->fields.v[1]);
	db->reflinks = !strcmp(r->fields.v[2], "clone");
	if (db->conn && pq.backendPID(db->conn) != atoi(r->fields.v[0])) {
		sql_close(t, db);
		return sql_error(r, "58030", "db goes through a pooler, where locks do not "
			"work; set db-admin to the URL of the server itself");
	}
	return 0;
}

int
sql_open(struct sql *t, struct session *db, struct reply *r, bool heed)
{
	int64_t deadline = proc_clock(t->w) + (t->brief ? 1000 : 15000);
	enum waited how = REPLIED;

	sql_clear(r);
	db->open = true;
	if (sql_libpq()) {
		how = pq_connect(t, db, r, deadline, heed);
	} else if (psql_start(t, db, r) == 0) {
		sql_send(db, "SELECT 1");
		how = psql_reply(t, db, r, deadline, heed);
	}
	if (how != REPLIED)
		sql_error(r, "08006", how == LATE ? "the server did not answer within 15s"
			: "cancelled");
	if (r->error)
		sql_close(t, db);
	if (r->error && r->error->trouble == SQL_FORBIDDEN)
		sql_error(r, "28000", str("%s", r->message.s));
	if (r->error && r->error->trouble == SQL_LOST && !db->seen)
		sql_error(r, "08001", str("%s", r->message.s));
	db->seen = db->seen || !r->error;
	return r->error ? -1 : make_fit(t, db, r);
}

/* Appends s in quotes, " for an identifier or ' for a literal. */
static void
quote(struct buf *b, const char *s, char mark)
{
	if (mark == '\'' && strchr(s, '\\'))
		buf_char(b, 'E');
	buf_char(b, mark);
	for (; *s; s++) {
		if (*s == mark || (mark == '\'' && *s == '\\'))
			buf_char(b, *s);
		buf_char(b, *s);
	}
	buf_char(b, mark);
}

/* Formats SQL: %s as it is, %I an identifier, %L a literal. */
char *
sql_fmt(const char *fmt, ...)
{
	struct buf b = { 0 };
	va_list ap;
	char *out;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		if (*fmt != '%' || *++fmt == '%')
			buf_char(&b, *fmt);
		else if (*fmt == 's')
			buf_str(&b, va_arg(ap, const char *));
		else
			quote(&b, va_arg(ap, const char *), *fmt == 'I' ? '"' : '\'');
	}
	va_end(ap);
	out = str("%s", b.s);
	buf_free(&b);
	return out;
}

/* Whether the session still stands: libpq's socket says so, psql must be asked. */
bool
sql_alive(struct sql *t, struct session *db)
{
	struct pollfd p = { 0 };
	struct reply r = { 0 };
	bool alive = true;

	if (!db->conn) {
		sql_send(db, "SELECT 1");
		alive = sql_reply(t, db, &r, proc_clock(t->w) + 2000, false) == REPLIED;
		sql_clear(&r);
		return alive && db->open;
	}
	p.fd = pq.socket(db->conn);
	p.events = POLLIN;
	if (poll(&p, 1, 0) > 0)
		alive = pq.consumeInput(db->conn) && pq.status(db->conn) == PQ_OK;
	return alive;
}

void
sql_hide(const char *url)
{
	add_secrets(url, &secrets);
	if (getenv("PGPASSWORD"))
		list_add(&secrets, getenv("PGPASSWORD"));
}
