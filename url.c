/*
 * url.c: the URLs of databases: what they name, and the same for a clone, for whoever
 * administers the server, and for the screen.
 *
 * Userinfo ends at the first @ before a slash; ? and # are legal in a password; there are
 * no fragments.  A clone's URL has another name in the place of the database, all else
 * byte for byte, for drivers read more into URLs than libpq knows of.
 */
#include "prun.h"
#include <ctype.h>
#include <pwd.h>

#define STEM_MAX 44             /* 63 less _w999999_abcdefr999 */

enum mode { URL_CLONE, URL_ADMIN, URL_MASK };

enum url_kind
url_kind(const char *url)
{
	static const char *const pg[] = {
		"postgres", "postgresql", "postgis", "pgsql", "ecto", "jdbc:postgresql"
	};
	size_t i, n = strcspn(url, "+:");

	if (starts(url, "jdbc:sqlite:") || starts(url, "file:") || (n == 6 && starts(url, "sqlite")))
		return URL_FILE;
	if (starts(url, "jdbc:"))
		n = strcspn(url + 5, "+:") + 5;
	for (i = 0; strstr(url, "://") && i < LEN(pg); i++)
		if (strlen(pg[i]) == n && starts(url, pg[i]))
			return URL_PG;
	return !strstr(url, "://") && strchr(url, '=') ? URL_DSN : URL_OTHER;
}

/* The next parameter of a query or DSN, as slices; *s moves behind it. */
static bool
next_param(const char **s, enum url_kind kind, const char **key, size_t *nkey, const char **value,
	size_t *nvalue)
{
	const char *p = *s, *blank = " \t\n";

	p += strspn(p, kind == URL_PG ? "?&" : blank);
	if (!*p)
		return false;
	*key = p;
	*nkey = strcspn(p, kind == URL_PG ? "=&" : "= \t\n");
	p += *nkey;
	p += kind == URL_PG ? 0 : strspn(p, blank);
	p += *p == '=';
	p += kind == URL_PG ? 0 : strspn(p, blank);
	*value = p;
	if (kind == URL_PG) {
		p += strcspn(p, "&");
	} else if (*p == '\'') {
		for (p++; *p && *p != '\''; p++)
			p += *p == '\\' && p[1];
		p += *p == '\'';
	} else {
		for (; *p && !strchr(blank, *p); p++)
			p += *p == '\\' && p[1];
	}
	*nvalue = (size_t)(p - *value);
	*s = p;
	return true;
}

static bool
is_key(const char *key, size_t n, const char *word)
{
	return strlen(word) == n && !memcmp(key, word, n);
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

/* Where a URL's parts begin; user..host is user:password@, or nothing. */
struct url {
	enum url_kind kind;
	const char *user, *host, *path, *query;
};

static struct url
split_url(const char *url)
{
	struct url u = { url_kind(url), url, url, url, url };

	if (u.kind != URL_PG)
		return u;
	u.user = u.host = strstr(url, "://") + 3;
	/* ? and # are legal in a password; libpq reads it so, too. */
	if (u.user[strcspn(u.user, "@/")] == '@')
		u.host = strchr(u.user, '@') + 1;
	u.path = u.host + strcspn(u.host, "/?");
	u.query = u.path + strcspn(u.path, "?");
	return u;
}

static char *
param(const struct url *u, const char *name)
{
	const char *s = u->query, *key, *value;
	size_t nkey, nvalue;
	char *found = NULL;

	while (next_param(&s, u->kind, &key, &nkey, &value, &nvalue))
		if (is_key(key, nkey, name))
			found = decode(value, nvalue, u->kind);
	return found;
}

/* Drivers have parameters that libpq does not know, and words of their own. */
static void
admin_param(struct buf *b, const char *key, size_t nkey, const char *value, size_t nvalue)
{
	static const char known[] = " host hostaddr port user password passfile channel_binding "
		"connect_timeout client_encoding options application_name keepalives "
		"keepalives_idle keepalives_interval keepalives_count tcp_user_timeout gssencmode "
		"sslmode sslcert sslkey sslpassword sslrootcert sslcrl sslcrldir sslsni requirepeer "
		"ssl_min_protocol_version ssl_max_protocol_version krbsrvname gsslib service "
		"target_session_attrs ";
	char *word = str(" %.*s ", (int)nkey, key), *v = str("%.*s", (int)nvalue, value);
	bool ssl = is_key(key, nkey, "ssl");

	if (ssl || (is_key(key, nkey, "sslmode") && !strcmp(v, "no-verify")))
		v = !strcmp(v, "true") || !strcmp(v, "TRUE") || !strcmp(v, "no-verify") ? "require"
			: !strcmp(v, "false") ? "disable" : v;
	if (ssl || strstr(known, word))
		buf_fmt(b, "%c%.*s=%s", strchr(b->s, '?') ? '&' : '?', ssl ? 7 : (int)nkey,
			ssl ? "sslmode" : key, v);
}

/* Writes a PostgreSQL URL or DSN anew.  CLONE: for the app, name instead of the
 * database, all else byte for byte.  ADMIN: for libpq or psql, database name; where
 * password is not NULL it is taken out into it.  MASK: for the screen. */
static char *
rewrite(const char *url, enum mode mode, const char *name, char **password)
{
	struct url u = split_url(url);
	struct buf b = { 0 };
	const char *s = u.query, *key, *value, *from = u.query;
	size_t nkey, nvalue;
	bool dbname = param(&u, "dbname") != NULL, secret;
	int colon = (int)strcspn(u.user, ":@");
	char *out;

	if (u.kind == URL_PG) {
		buf_add(&b, mode == URL_ADMIN ? "postgresql://" : url, mode == URL_ADMIN ? 13
			: (size_t)(u.user - url));
		secret = u.host > u.user && u.user[colon] == ':' && (mode == URL_MASK || password);
		if (secret && mode == URL_ADMIN)
			*password = decode(u.user + colon + 1, (size_t)(u.host - u.user) - 2
				- (size_t)colon, URL_PG);
		if (secret)
			buf_fmt(&b, "%.*s%s@", colon, u.user, mode == URL_MASK ? ":***" : "");
		else
			buf_add(&b, u.user, (size_t)(u.host - u.user));
		buf_add(&b, u.host, (size_t)(u.path - u.host));
		if (mode == URL_ADMIN || (mode == URL_CLONE && (!dbname || u.query > u.path + 1)))
			buf_fmt(&b, "/%s", name);
		else
			buf_add(&b, u.path, (size_t)(u.query - u.path));
	}
	while (next_param(&s, u.kind, &key, &nkey, &value, &nvalue)) {
		secret = is_key(key, nkey, "password") || is_key(key, nkey, "sslpassword");
		if (mode == URL_ADMIN && password && secret) {
			if (nkey == 8)
				*password = decode(value, nvalue, u.kind);
		} else if (mode == URL_ADMIN && u.kind == URL_PG) {
			admin_param(&b, key, nkey, value, nvalue);
		} else if (mode == URL_ADMIN && !is_key(key, nkey, "dbname")) {
			buf_fmt(&b, "%.*s=%.*s ", (int)nkey, key, (int)nvalue, value);
		} else if (mode != URL_ADMIN) {
			buf_add(&b, from, (size_t)(value - from));
			if (mode == URL_CLONE && is_key(key, nkey, "dbname"))
				buf_str(&b, name);
			else if (mode == URL_MASK && secret)
				buf_str(&b, "***");
			else
				buf_add(&b, value, nvalue);
			from = s;
		}
	}
	if (mode != URL_ADMIN)
		buf_str(&b, from);
	if (u.kind == URL_DSN && (mode == URL_ADMIN || (mode == URL_CLONE && !dbname)))
		buf_fmt(&b, "%sdbname=%s", b.n && b.s[b.n - 1] != ' ' ? " " : "", name);
	out = str("%s", b.s ? b.s : "");
	buf_free(&b);
	return out;
}

char *
url_admin(const char *url, const char *name, char **password)
{
	return rewrite(url, URL_ADMIN, name, password);
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

char *
url_template(const char *url)
{
	struct url u = split_url(url);
	struct passwd *pw;
	char *name = NULL, *dot;

	if (u.kind == URL_FILE || u.kind == URL_OTHER) {
		name = u.kind == URL_FILE ? url_file(url) : str("%.*s", (int)strcspn(url, "?"), url);
		while (*name && name[strlen(name) - 1] == '/')
			name[strlen(name) - 1] = '\0';
		name = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
		dot = u.kind == URL_FILE ? strrchr(name, '.') : NULL;
		if (dot && dot != name)
			*dot = '\0';
		return name;
	}
	/* As libpq chooses: dbname, path, PGDATABASE, then the user's name. */
	name = param(&u, "dbname");
	if (!name && u.query > u.path + 1)
		name = decode(u.path + 1, (size_t)(u.query - u.path) - 1, URL_PG);
	if (!name)
		name = getenv("PGDATABASE");
	if (!name && u.host > u.user)
		name = decode(u.user, strcspn(u.user, ":@"), URL_PG);
	if (!name)
		name = param(&u, "user");
	if (!name)
		name = getenv("PGUSER");
	if (!name)
		name = (pw = getpwuid(geteuid())) ? pw->pw_name : "";
	return str("%s", name);
}

const char *
url_check(const char *url)
{
	struct url u = split_url(url);

	if (starts(url, "prisma+postgres:"))
		return "names Prisma's proxy; give the database's own URL";
	if (u.kind == URL_PG && u.host[strcspn(u.host, "/?@")] == '@')
		return "has two @ before the host; write %40 in the password";
	if (u.kind == URL_FILE && (!*url_file(url) || strstr(url, ":memory:")))
		return "names no file that could be copied";
	if (u.kind == URL_OTHER)
		return "is of no kind that prun can copy; set db-clone and db-drop";
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
url_clone(const char *url, const char *name, const char *dir)
{
	const char *rest;
	size_t n;

	if (url_kind(url) != URL_FILE)
		return rewrite(url, URL_CLONE, name, NULL);
	rest = file_part(url, &n) + n;
	return str("%.*s%s%s%s", (int)strcspn(url, ":") + 1, url, starts(url, "jdbc:") ? "sqlite:"
		: starts(url, "sqlite") ? "///" : "", url_clone_file(url, name, dir), rest);
}

char *
url_masked(const char *url)
{
	const char *at = strrchr(url, '@'), *colon = strstr(url, "://");

	if (url_kind(url) == URL_PG || url_kind(url) == URL_DSN)
		return rewrite(url, URL_MASK, NULL, NULL);
	colon = colon ? strchr(colon + 3, ':') : NULL;  /* of any shape: user:password@ */
	return at && colon && colon < at ? str("%.*s***%s", (int)(colon + 1 - url), url, at)
		: str("%s", url);
}
