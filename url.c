/*
 * url.c: the URLs of databases: what they name, and the same URL for a clone,
 * for whoever administers the server, and for the screen.
 *
 * A URL is split once, into slices: user:password@, host, path, query.  A DSN
 * (host=h dbname=x) is nothing but a query.  Userinfo ends at the first @
 * before a slash; ? and # are legal in a password, and there are no fragments.
 *
 * A clone's URL has another name in the place of the database, all else byte
 * for byte, because drivers read more into URLs than libpq knows of.  What libpq
 * and psql get is written anew, with the parameters that libpq knows.
 */
#include "prun.h"
#include <ctype.h>
#include <pwd.h>

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

void
url_secrets(const char *url, struct list *l)
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
