/*
 * pg.c: databases.  Each attempt gets a clone of the suite's template.
 *
 * PostgreSQL is reached through libpq, loaded when first needed, or through one
 * psql that reads statements from a pipe: both look the same from pg_send() and
 * pg_reply() up.  A worker has one session for its life, with the database
 * "postgres"; it holds the run's advisory lock, shared, so that a later run can
 * tell the clones of the dead from those of the living.
 *
 * A clone is CREATE DATABASE ... TEMPLATE, which waits five seconds for the
 * sessions on the template and then fails; while it waits, a second session ends
 * them: CREATE holds the lock that new ones wait for.  Everything that a run made
 * is found by its name, <template>_w<index>_<run>, and nothing else is dropped.
 *
 * A template may also be a file or a directory (sqlite:, file:), copied with cp -R
 * into the attempt's directory, or anything that db-clone and db-drop can copy.
 */
#include "prun.h"
#include <dlfcn.h>

#define CLASS_RUN 1886549358    /* advisory locks: "prun", with the run's id, */
#define CLASS_TEMPLATE 1886549359       /* and with the template's hash */

/* A reply: state is "" when all went well. */
struct reply {
	char state[6];
	struct buf message;
	struct list fields;     /* of all rows, row by row */
};

struct session {
	char *admin;            /* what it connects with; NULL: not connected */
	void *conn;             /* libpq's */
	struct proc psql;
	int in, out, err;       /* psql's pipes and the file of its errors */
	int statement;
	struct buf text;        /* read from psql and not yet used */
	struct session *next;   /* last: it survives a close */
};

struct pg {
	struct worker *w;
	const char *run, *dir;
	bool crowded;
	struct session *sessions;
};

/* ---- libpq ---- */

extern char **environ;

/* libpq's enumerations, which never change. */
enum { PQ_OK = 0, PQ_BAD = 1, POLL_FAILED = 0, POLL_READING = 1, POLL_OK = 3, PQ_COMMAND = 1,
	PQ_TUPLES = 2 };

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
	void *(*setNoticeProcessor)(void *, void (*)(void *, const char *), void *);
	void *(*getCancel)(void *);
	int (*cancel)(void *, char *, int);
	void (*freeCancel)(void *);
} pq;

/* in the order of the struct */
static const char *const pq_names[] = {
	"PQconnectStartParams", "PQconnectPoll", "PQsocket", "PQstatus", "PQerrorMessage",
	"PQsetErrorVerbosity", "PQsetnonblocking", "PQsendQuery", "PQflush", "PQconsumeInput",
	"PQisBusy", "PQgetResult", "PQresultStatus", "PQresultErrorMessage", "PQntuples",
	"PQnfields", "PQgetvalue", "PQclear", "PQfinish", "PQsetNoticeProcessor", "PQgetCancel",
	"PQcancel", "PQfreeCancel"
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
	void *lib = NULL, *f = NULL;
	size_t i;

	if (have >= 0)
		return have;
	if (!wanted || !*wanted)
		for (i = 0; !lib && i < LEN(names); i++)
			lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	else if (strcmp(wanted, "none") && !(lib = dlopen(wanted, RTLD_NOW | RTLD_LOCAL)))
		warn("PRUN_LIBPQ: %s; using psql", dlerror());
	for (i = 0; lib && i < LEN(pq_names) && (f = dlsym(lib, pq_names[i])); i++)
		/* POSIX lets a function's address stand in a void *. */
		memcpy((char *)&pq + i * sizeof(f), &f, sizeof(f));
	have = lib && f;
	return have;
}

static void
reply_clear(struct reply *r)
{
	list_free(&r->fields);
	buf_free(&r->message);
	*r->state = '\0';
}

/* Fills r from an error as libpq and psql print it: "ERROR:  42P04: text", then
 * "DETAIL:  text"; without such a line the connection is the trouble. */
static void
scan_error(struct reply *r, const char *text)
{
	static const char *const levels[] = { "ERROR:  ", "FATAL:  ", "PANIC:  " };
	static const char *const crowded[] = {
		"remaining connection slots", "too many clients", "too many connections"
	};
	const char *at = NULL, *detail = strstr(text, "DETAIL:  ");
	size_t i;

	r->message.n = 0;
	strcpy(r->state, "08006");
	for (i = 0; !at && i < LEN(levels); i++)
		at = strstr(text, levels[i]);
	if (at && strlen(at) > 15 && at[13] == ':') {
		memcpy(r->state, at + 8, 5);
		text = at + 15;
	}
	/* psql does not tell the state of an error that it got as it connected. */
	for (i = 0; i < LEN(crowded); i++)
		if (!strcmp(r->state, "08006") && strstr(text, crowded[i]))
			strcpy(r->state, "53300");
	text += strspn(text, "\n");
	buf_safe(&r->message, text, strcspn(text, "\n"));
	if (detail)
		buf_fmt(&r->message, " (%.*s)", (int)strcspn(detail + 9, "\n"), detail + 9);
}

static void
quiet_notices(void *arg, const char *message)
{
	(void)arg, (void)message;
}

enum waited { REPLIED, LATE, STOPPED };

static enum waited
await_fd(struct pg *pg, int fd, int events, int64_t deadline, bool heed)
{
	struct pollfd p = { fd, (short)events, 0 };

	for (;;) {
		if (heed && pg->w->cancelled)
			return STOPPED;
		if (proc_late(pg->w, deadline))
			return LATE;
		if (proc_wait(pg->w, &p, 1, deadline) & SAW_FD)
			return REPLIED;
	}
}

static enum waited
pq_connect(struct pg *pg, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	const char *const keys[] = { "dbname", "dbname", "fallback_application_name", NULL };
	const char *const values[] = { db->admin, "postgres", "prun", NULL };
	enum waited how = REPLIED;
	int state = 2;          /* as if it had said PGRES_POLLING_WRITING */

	db->conn = pq.connectStartParams(keys, values, 1);
	if (!db->conn)
		fatal(EXIT_RUN, "out of memory");
	pq.setErrorVerbosity(db->conn, 2);      /* with SQLSTATE */
	pq.setNoticeProcessor(db->conn, quiet_notices, NULL);
	if (pq.status(db->conn) == PQ_BAD)
		state = POLL_FAILED;
	while (state != POLL_OK && state != POLL_FAILED) {
		/* Its socket may be another one after every poll. */
		how = await_fd(pg, pq.socket(db->conn), state == POLL_READING ? POLLIN : POLLOUT,
			deadline, heed);
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

static enum waited
pq_reply(struct pg *pg, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	enum waited how;
	void *result;
	int i, k, status, unsent;

	/* To the last result, NULL: an error comes well before the server is ready again,
	 * and a statement that is sent in between is not taken. */
	do {
		while ((unsent = pq.flush(db->conn)) > 0 || (unsent == 0 && pq.isBusy(db->conn))) {
			how = await_fd(pg, pq.socket(db->conn), unsent ? POLLIN | POLLOUT : POLLIN,
				deadline, heed);
			if (how != REPLIED)
				return how;
			if (!pq.consumeInput(db->conn))
				break;
		}
		result = pq.getResult(db->conn);
		status = pq.resultStatus(result);
		for (i = 0; status == PQ_TUPLES && i < pq.ntuples(result); i++)
			for (k = 0; k < pq.nfields(result); k++)
				list_add(&r->fields, pq.getvalue(result, i, k));
		if (result && status != PQ_TUPLES && status != PQ_COMMAND)
			scan_error(r, pq.resultErrorMessage(result));
		pq.clear(result);
	} while (result);
	if (pq.status(db->conn) == PQ_BAD && !*r->state)
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
	scan_error(r, *text ? text : "psql ended without a word");
	lseek(db->err, 0, SEEK_END);
}

static int
psql_start(struct pg *pg, struct session *db, struct reply *r)
{
	char *password = NULL, *file = str("%s/psql-%d-%d", pg->dir, pg->w->slot, db->in);
	char *argv[] = { "psql", "-XAtqw", "-v", "VERBOSITY=verbose", "-F", "\037", "-R", "\036",
		"-d", url_admin(db->admin, "postgres", &password), NULL };
	struct spawn s = { .argv = argv };
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, failed = -1;
	struct list env = { 0 };
	size_t i;

	for (i = 0; environ[i]; i++)
		if (!starts(environ[i], "LC_ALL=") && !(password && starts(environ[i], "PGPASSWORD=")))
			list_add(&env, environ[i]);
	list_add(&env, "LC_ALL=C");     /* we read its messages */
	if (password)
		list_add(&env, str("PGPASSWORD=%s", password));
	s.env = env.v;
	s.err = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	db->err = open(file, O_RDONLY | O_CLOEXEC);
	unlink(file);
	if (s.err >= 0 && db->err >= 0 && proc_pipe(in) == 0 && proc_pipe(out) == 0) {
		s.in = in[0];
		s.out = out[1];
		failed = proc_start(pg->w, &db->psql, &s);
	}
	if (failed) {
		strcpy(r->state, "58030");
		buf_fmt(&r->message, "cannot run psql: %s%s", strerror(errno), errno == ENOENT
			? "; install libpq or psql" : "");
	}
	db->in = in[1];
	db->out = out[0];
	close(in[0]);                   /* -1 where there is none: harmless */
	close(out[1]);
	close(s.err);
	list_free(&env);
	return failed;
}

static enum waited
psql_reply(struct pg *pg, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	char *mark = str("@@%d ", db->statement), chunk[4096], *at = NULL, *s, *end;
	enum waited how;
	ssize_t n;

	while (!(at = db->text.n ? strstr(db->text.s, mark) : NULL) || !strchr(at, '\n')) {
		how = await_fd(pg, db->out, POLLIN, deadline, heed);
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

static void
close_session(struct pg *pg, struct session *db)
{
	if (db->conn)
		pq.finish(db->conn);
	if (db->admin && !db->conn) {
		close(db->in);          /* psql ends at the end of its input */
		close(db->out);
		close(db->err);
		proc_stop(pg->w, &db->psql, 1000, false, NULL);
	}
	buf_free(&db->text);
	free(db->admin);
	memset(db, 0, offsetof(struct session, next));
}

static void
pg_send(struct session *db, const char *sql)
{
	char *s = str("%s;\n\\echo @@%d :ERROR :SQLSTATE\n", sql, db->statement + 1);

	if (db->conn)
		pq.sendQuery(db->conn, sql);            /* failure: in the reply */
	else if (write_all(db->in, s, strlen(s)) == 0)  /* failure: end of file */
		db->statement++;
}

static enum waited
pg_reply(struct pg *pg, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	enum waited how = (db->conn ? pq_reply : psql_reply)(pg, db, r, deadline, heed);

	if (how == REPLIED && (starts(r->state, "08") || starts(r->state, "57P")))
		close_session(pg, db);   /* the next one to ask opens another */
	return how;
}

/* How long housekeeping may take: not long when prun is dying. */
static int64_t
bound(const struct pg *pg)
{
	return proc_clock(pg->w) + (pg->w->cancelled ? 4000 : 60000);
}

/* Sends a statement and waits; 0 when it went well. */
static int
pg_do(struct pg *pg, struct session *db, struct reply *r, const char *sql)
{
	reply_clear(r);
	pg_send(db, sql);
	if (pg_reply(pg, db, r, bound(pg), false) != REPLIED) {
		scan_error(r, "the server does not answer");
		close_session(pg, db);
	}
	return *r->state ? -1 : 0;
}

/* Its key of the advisory lock: a positive int4. */
static int64_t
lock_key(const char *template)
{
	return hash(HASH_BEGIN, template) & 0x7fffffff;
}

/* Waits for the lock on the template as long as it takes: another run's setup. */
static int
lock_template(struct pg *pg, struct session *db, struct reply *r, const char *sql)
{
	enum waited how;

	reply_clear(r);
	pg_send(db, sql);
	how = pg_reply(pg, db, r, proc_clock(pg->w) + 1000, true);
	if (how == LATE) {
		proc_tell_phase(pg->w, WAITING);
		how = pg_reply(pg, db, r, -1, true);
	}
	if (how != REPLIED) {
		scan_error(r, "cancelled");
		close_session(pg, db);
	}
	return *r->state ? -1 : 0;
}

/* Opens a session; 0, or -1 with r filled. */
static int
open_session(struct pg *pg, struct session *db, const char *url, struct reply *r, bool heed)
{
	int64_t deadline = proc_clock(pg->w) + (pg->w->cancelled ? 2000 : 15000);
	enum waited how = REPLIED;

	reply_clear(r);
	if (have_libpq()) {
		db->admin = xstrdup(url_admin(url, "postgres", NULL));
		how = pq_connect(pg, db, r, deadline, heed);
	} else {
		db->admin = xstrdup(url);
		if (psql_start(pg, db, r) == 0) {
			pg_send(db, "SELECT 1");
			how = psql_reply(pg, db, r, deadline, heed);
		}
	}
	if (how != REPLIED)
		scan_error(r, how == LATE ? "the server does not answer within 15 s" : "cancelled");
	if (*r->state)
		close_session(pg, db);
	return *r->state ? -1 : 0;
}

/* Formats SQL: %s as it is, %I an identifier, %L a literal, %d an int64_t. */
static char *
sql(const char *fmt, ...)
{
	struct buf b = { 0 };
	const char *s;
	va_list ap;
	char *out, quote;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		if (*fmt != '%' || *++fmt == '%') {
			buf_char(&b, *fmt);
		} else if (*fmt == 'd') {
			buf_fmt(&b, "%" PRId64, va_arg(ap, int64_t));
		} else if (*fmt == 's') {
			buf_str(&b, va_arg(ap, const char *));
		} else {
			s = va_arg(ap, const char *);
			quote = *fmt == 'I' ? '"' : '\'';
			buf_str(&b, quote == '"' ? "\"" : strchr(s, '\\') ? "E'" : "'");
			for (; *s; s++)
				buf_fmt(&b, "%.*s%c", *s == quote || (quote == '\'' && *s == '\\'), s, *s);
			buf_char(&b, quote);
		}
	}
	va_end(ap);
	out = str("%s", b.s);
	buf_free(&b);
	return out;
}

/* The worker's session for a suite's server, opened and locked if need be; NULL with
 * r filled. */
static struct session *
session(struct pg *pg, const struct opts *o, struct reply *r, bool heed)
{
	const char *url = o->db_admin ? o->db_admin : o->db;
	const char *key = have_libpq() ? url_admin(url, "postgres", NULL) : url;
	struct session *db, **end = &pg->sessions;

	for (db = pg->sessions; db && !(db->admin && !strcmp(db->admin, key)); db = db->next)
		end = &db->next;
	if (db)
		return db;
	for (db = pg->sessions; db && db->admin; db = db->next)
		;                       /* one whose connection was lost? */
	if (!db)
		db = *end = memset(xmalloc(sizeof(*db)), 0, sizeof(*db));
	pg->crowded = open_session(pg, db, url, r, heed) < 0 && !strcmp(r->state, "53300");
	if (!db->admin)
		return NULL;
	/* 14 and later: without it a client that is killed during CREATE leaves a database
	 * that appears after its death. */
	pg_do(pg, db, r, "SET client_connection_check_interval = '1s'");
	return db->admin && pg_do(pg, db, r, sql("SELECT pg_advisory_lock_shared(%d, %d)",
		(int64_t)CLASS_RUN, (int64_t)strtoll(pg->run, NULL, 36))) == 0 ? db : NULL;
}

/* Whether the connection was lost or refused and another one may be had: waits a little
 * for it, longer each time; tries counts from 0. */
static bool
try_again(struct pg *pg, const struct reply *r, int tries)
{
	int64_t until = proc_clock(pg->w) + (100 << tries);

	if (tries > 4 || !(starts(r->state, "08") || starts(r->state, "57P")
	|| !strcmp(r->state, "53300")))
		return false;
	proc_pause(pg->w, until);
	return !pg->w->cancelled;
}

/* ---- the recipe ---- */

/* What the user should do about an error; passing: a further try may help. */
static const struct {
	const char *state, *advice;
	bool passing;
} errors[] = {
	{ "3D000", "; create it, or let setup do so", false },
	{ "42501", "; the role needs CREATEDB, and must own the template or the template be "
		"marked IS_TEMPLATE", false },
	{ "55006", "; somebody is connected to it", false },
	{ "42P04", "; another run has the same id", true },
	{ "23505", "; another run has the same id", true },
	{ "53300", "; raise max_connections, or lower jobs", true },
	{ "53100", "; the server's disk is full", false },
	{ "53200", "; the server is out of memory", false },
	{ "XX000", "; if it says collation version: ALTER DATABASE ... REFRESH COLLATION VERSION",
		false },
	{ "28P01", "; check the user and password of db", false },
	{ "58030", "", false },
};

/* Says in why what went wrong; whether another try may help. */
static bool
explain(const struct reply *r, const char *what, struct buf *why)
{
	size_t i;

	for (i = 0; i < LEN(errors) && strcmp(errors[i].state, r->state); i++)
		;
	buf_fmt(why, "%s: %s%s", what, r->message.s ? r->message.s : "",
		i < LEN(errors) ? errors[i].advice : "");
	return i < LEN(errors) ? errors[i].passing : starts(r->state, "08") || starts(r->state, "57");
}

/* Ends the sessions on a database, or only names them. */
static void
end_sessions(struct pg *pg, const struct opts *o, const char *name, bool only_name,
	struct buf *notes)
{
	struct session second = { 0 };
	struct reply r = { 0 };
	size_t i;

	/* Without the filter one autovacuum worker makes the whole query fail. */
	if (open_session(pg, &second, o->db_admin ? o->db_admin : o->db, &r, false) == 0
	&& pg_do(pg, &second, &r, sql("SELECT pid, usename, application_name, %s FROM "
		"pg_stat_activity WHERE datname = %L AND backend_type = 'client backend' AND "
		"pid <> pg_backend_pid()", only_name ? "1" : "pg_terminate_backend(pid)", name)) == 0)
		for (i = 0; i + 3 < r.fields.n; i += 4)
			buf_fmt(notes, "- %s session on %s: pid %s, user %s%s%s\n",
				only_name ? "there is a" : "ended a", name, r.fields.v[i],
				r.fields.v[i + 1], *r.fields.v[i + 2] ? ", " : "", r.fields.v[i + 2]);
	else
		buf_fmt(notes, "- sessions on %s cannot be ended: %s\n", name, r.message.s);
	reply_clear(&r);
	close_session(pg, &second);
}

/* CREATE waits five seconds for the sessions on the template; meanwhile they are ended
 * from aside, since whoever reconnects then waits for CREATE. */
static enum waited
create(struct pg *pg, struct session *db, const struct opts *o, struct reply *r,
	const char *statement, const char *template, struct buf *notes)
{
	enum waited how;
	char why[256];
	void *c;

	reply_clear(r);
	pg_send(db, statement);
	how = pg_reply(pg, db, r, proc_clock(pg->w) + 250, true);
	if (how == LATE && o->db_terminate)
		end_sessions(pg, o, template, false, notes);
	if (how == LATE)
		how = pg_reply(pg, db, r, -1, true);
	if (how != STOPPED)
		return how;
	if (db->conn && (c = pq.getCancel(db->conn))) {
		pq.cancel(c, why, sizeof(why));
		pq.freeCancel(c);
	} else if (db->psql.pid) {
		kill(db->psql.pid, SIGINT);     /* it asks the server, and exits */
	}
	if (pg_reply(pg, db, r, bound(pg), false) != REPLIED)
		close_session(pg, db);
	strcpy(r->state, "57014");
	return how;
}

/* Settings of the template that CREATE does not copy, as statements. */
static const char settings[] =
	"SELECT format('ALTER %%s SET %%I = %%s', CASE WHEN setrole = 0 THEN 'DATABASE %s' ELSE "
	"format('ROLE %%I IN DATABASE %s', rolname) END, k, CASE WHEN k IN ('search_path', "
	"'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries', "
	"'shared_preload_libraries') AND v <> '' THEN v ELSE quote_literal(v) END) FROM "
	"pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles u ON "
	"u.oid = setrole, unnest(setconfig) c, split_part(c, '=', 1) k, "
	"substr(c, length(k) + 2) v WHERE datname = %L";

static int
clone_postgres(struct pg *pg, const struct opts *o, const char *name, struct buf *notes,
	struct buf *why, bool *passing)
{
	char *template = url_template(o->db), *statement, *owner, *not_owners = NULL;
	struct reply r = { 0 }, q = { 0 };
	struct session *db = session(pg, o, &r, true);
	int64_t key = lock_key(template), class = CLASS_TEMPLATE;
	int tries = 3, failed = -1;
	size_t i;

	if (!db || pg_do(pg, db, &r, sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE "
			"datname = %L", template)) < 0)
		goto out;
	if (r.fields.n == 0) {
		strcpy(r.state, "3D000");
		buf_fmt(&r.message, "there is no database \"%s\"", template);
		goto out;
	}
	owner = str("%s", r.fields.v[0]);
	if (lock_template(pg, db, &r, sql("SELECT pg_advisory_lock_shared(%d, %d)", class, key)) < 0)
		goto out;
	statement = sql("CREATE DATABASE %s TEMPLATE %I OWNER %I", name, template, owner);
	while (create(pg, db, o, &r, statement, template, notes) == REPLIED && *r.state && tries--) {
		/* Whether OWNER is what may not be: the words differ by version and language. */
		if (!strcmp(r.state, "42501") && !not_owners) {
			not_owners = str("%s", r.message.s);
			statement = sql("CREATE DATABASE %s TEMPLATE %I", name, template);
		} else if (strcmp(r.state, "55006") || !o->db_terminate || pg_do(pg, db, &q,
			sql("SELECT 1 FROM pg_prepared_xacts WHERE database = %L", template)) < 0
		|| q.fields.n) {
			break;
		}
	}
	failed = *r.state ? -1 : 0;
	if (!failed && not_owners)
		buf_fmt(notes, "- the clone is ours, not %s's: %s\n", owner, not_owners);
	if (!failed && pg_do(pg, db, &q, sql(settings, name, name, template)) == 0) {
		struct reply one = { 0 };

		for (i = 0; db->admin && i < q.fields.n; i++)
			if (pg_do(pg, db, &one, q.fields.v[i]) < 0)
				buf_fmt(notes, "- a setting of the template was not copied: %s\n",
					one.message.s);
		reply_clear(&one);
	}
	if (db->admin)
		pg_do(pg, db, &q, sql("SELECT pg_advisory_unlock_shared(%d, %d)", class, key));
	if (!strcmp(r.state, "55006"))
		end_sessions(pg, o, template, true, notes);
out:
	if (failed)
		*passing = explain(&r, str("cannot clone database %s", template), why);
	reply_clear(&r);
	reply_clear(&q);
	return failed;
}

/* Drops a database of ours, whatever stands in the way but what must not be touched:
 * prepared transactions and subscriptions. */
static int
drop_postgres(struct pg *pg, struct session *db, const struct opts *o, const char *name,
	struct reply *r, struct buf *notes)
{
	int failed = pg_do(pg, db, r, sql("DROP DATABASE IF EXISTS %s WITH (FORCE)", name));

	if (failed && !strcmp(r->state, "42601"))       /* before 13 */
		end_sessions(pg, o, name, false, notes);
	if (failed && !strcmp(r->state, "42809"))
		pg_do(pg, db, r, sql("ALTER DATABASE %s IS_TEMPLATE false", name));
	if (failed && db->admin && strcmp(r->state, "55006"))
		failed = pg_do(pg, db, r, sql("DROP DATABASE IF EXISTS %s", name));
	return failed;
}

/* The clones of this template that are ours to drop: name, run, comment, whether somebody
 * uses it, size, and the age of what was kept. */
static const char clones[] =
	"SELECT datname, substring(datname from '_w[0-9]+_(.{6})(?:r[0-9]+)?$'), c, "
	"EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datid = d.oid), "
	"CASE WHEN datconnlimit = -2 THEN 'invalid' ELSE "
	"pg_size_pretty(pg_database_size(d.oid)) END, "
	"CASE WHEN c ~ '^prun keep [0-9]{4}-[0-9-]{5}T[0-9:]{8}Z ' THEN "
	"date_trunc('minute', now() - substr(c, 11, 20)::timestamptz) || ' old' END "
	"FROM (SELECT *, coalesce(shobj_description(oid, 'pg_database'), '') AS c "
	"FROM pg_database) d WHERE datname ~ ('^' || %L || '_w[0-9]+_[0-9a-z]{6}(r[0-9]+)?$') "
	"AND pg_has_role(current_user, datdba, 'USAGE') %s ORDER BY datname";
enum { C_NAME, C_RUN, C_COMMENT, C_USED, C_SIZE, C_AGE, C_FIELDS };

/* Drops a clone if its run holds no lock, nobody uses it and, unless kept ones go as
 * well, it is not marked as kept; list: only tells.  Says what it did. */
static void
sweep_one(struct pg *pg, struct session *db, const struct opts *o, char **f, bool kept, bool list,
	struct buf *notes)
{
	int64_t run = strtoll(f[C_RUN], NULL, 36), class = CLASS_RUN;
	bool marked = starts(f[C_COMMENT], "prun keep");
	struct reply r = { 0 };
	char *what;

	if (run > INT32_MAX || (marked && !kept) || (!kept && *f[C_USED] == 't') || pg_do(pg, db, &r,
			sql("SELECT pg_try_advisory_lock(%d, %d)", class, run)) < 0)
		goto out;
	if (strcmp(r.fields.v[0], "t")) {
		if (kept)
			buf_fmt(notes, "- %s: left, its run is under way\n", f[C_NAME]);
		goto out;
	}
	what = str("%s (%s%s, %s%s%s)", f[C_NAME], marked ? "kept for " : "left by a dead run",
		marked ? f[C_COMMENT] + (strlen(f[C_COMMENT]) > 31 ? 31 : 9) : "", f[C_SIZE],
		*f[C_AGE] ? ", " : "", f[C_AGE]);
	/* Since we looked, it may have been kept, or somebody looks at it. */
	if (pg_do(pg, db, &r, sql(clones, url_stem(o->db), sql("AND datname = %L", f[C_NAME]))) == 0
	&& r.fields.n == C_FIELDS) {
		if (*r.fields.v[C_USED] == 't')
			buf_fmt(notes, "- %s: left, somebody uses it\n", what);
		else if (list)
			buf_fmt(notes, "- %s\n", what);
		else if (!strcmp(r.fields.v[C_COMMENT], f[C_COMMENT])
		&& drop_postgres(pg, db, o, f[C_NAME], &r, notes) == 0)
			buf_fmt(notes, "- dropped %s\n", what);
		else if (*r.state)
			buf_fmt(notes, "- %s could not be dropped: %s\n", what, r.message.s);
	}
	if (db->admin)
		pg_do(pg, db, &r, sql("SELECT pg_advisory_unlock(%d, %d)", class, run));
out:
	reply_clear(&r);
}

/* Drops the clones of dead runs. */
static void
sweep(struct pg *pg, struct session *db, const struct opts *o, bool kept, bool list,
	struct buf *notes)
{
	struct reply r = { 0 };
	size_t i;

	if (pg_do(pg, db, &r, sql(clones, url_stem(o->db), "")) < 0)
		buf_fmt(notes, "- leftovers of other runs cannot be looked for: %s\n", r.message.s);
	for (i = 0; i + C_FIELDS <= r.fields.n && db->admin && !pg->w->cancelled; i += C_FIELDS)
		sweep_one(pg, db, o, r.fields.v + i, kept, list, notes);
	if (kept && r.fields.n == 0)
		buf_fmt(notes, "- %s has no clones that are ours\n", url_template(o->db));
	reply_clear(&r);
}

/* ---- files, and commands for anything else ---- */

static int
clone_file(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	struct buf *notes, struct buf *why)
{
	static const char *const sides[] = { "-wal", "-journal", "-shm" };
	char *from = url_file(o->db), *to = url_clone_file(o->db, name, dir);
	char *argv[] = { "cp", "-R", from, to, NULL };
	struct spawn s = { .argv = argv, .env = env, .out = 2, .err = 2 };
	struct stat st;
	int status;
	size_t i;

	for (i = 0; i < LEN(sides); i++) {
		if (i < 2 && stat(str("%s%s", from, sides[i]), &st) == 0 && st.st_size > 0) {
			buf_fmt(why, "cannot clone %s: %s%s is not empty, so it is in use or was not "
				"closed; close it, or let setup do so", from, from, sides[i]);
			return -1;
		}
		/* A stale one of another life would be read into the clone. */
		unlink(str("%s%s", to, sides[i]));
	}
	remove_tree(to);
	if (stat(from, &st) < 0) {
		buf_fmt(why, "cannot clone %s: %s; create it, or let setup do so", from,
			strerror(errno));
		return -1;
	}
	status = proc_run(pg->w, &s, -1, true, o->grace_ms, notes);
	if (status)
		buf_fmt(why, "cannot clone %s: cp -R %s", from, status == SPAWN_FAILED
			? strerror(errno) : status == RUN_STOPPED ? "was stopped"
			: "failed, see worker.log");
	return status ? -1 : 0;
}

/* Runs db-clone (line is not NULL: gets its last line) or db-drop. */
static int
run_command(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	char **line, struct buf *notes, struct buf *why)
{
	char *out = str("%s/db.out", dir), *log = str("%s/db.log", dir);
	const char *command = line ? o->db_clone : o->db_drop, *what = line ? "db-clone" : "db-drop";
	struct list all = { 0 };
	struct buf b = { 0 };
	struct spawn s = { .argv = proc_argv(command, NULL) };
	int status = SPAWN_FAILED;

	for (; *env; env++)
		if (!starts(*env, "PRUN_DB="))
			list_add(&all, *env);
	list_add(&all, str("PRUN_TEMPLATE_URL=%s", o->db));
	list_add(&all, str("PRUN_DB=%s", name));
	s.env = all.v;
	s.out = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	s.err = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (s.out >= 0 && s.err >= 0)
		status = proc_run(pg->w, &s, line ? -1 : bound(pg), line != NULL, o->grace_ms, notes);
	if (status == SPAWN_FAILED)
		buf_fmt(why, "%s: %s: %s", what, command, strerror(errno));
	else if (status)
		buf_fmt(why, "%s: %s failed, see %s", what, command, log);
	else if (line)
		buf_tail(&b, out, 1);
	if (b.n)
		*line = xstrdup(str("%.*s", (int)b.n - 1, b.s));
	else if (line && !status)
		buf_fmt(why, "db-clone: %s printed no URL", command);
	unlink(out);
	close(s.out);
	close(s.err);
	list_free(&all);
	status = status || (line && !b.n) ? -1 : 0;
	buf_free(&b);
	return status;
}

/* ---- what workers ask for ---- */

struct pg *
pg_open(struct worker *w, const char *run, const char *dir)
{
	struct pg *pg = xcalloc(1, sizeof(*pg));

	pg->w = w;
	pg->run = run;
	pg->dir = dir;
	return pg;
}

void
pg_close(struct pg *pg)
{
	struct session *db;

	while ((db = pg->sessions)) {
		pg->sessions = db->next;
		if (db->admin)
			close_session(pg, db);
		free(db);
	}
	free(pg);
}

int
pg_clone(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	char **url, struct buf *notes, struct buf *why, bool *passing)
{
	int failed;

	*passing = false;
	if (o->db_clone)
		return run_command(pg, o, name, dir, env, url, notes, why);
	failed = url_kind(o->db) == URL_FILE ? clone_file(pg, o, name, dir, env, notes, why)
		: clone_postgres(pg, o, name, notes, why, passing);
	if (!failed)
		*url = xstrdup(url_clone(o->db, name, dir));
	return failed;
}

int
pg_drop(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	struct buf *notes)
{
	struct reply r = { 0 };
	struct buf why = { 0 };
	struct session *db;
	int failed = 0, tries = 0;

	if (o->db_clone) {
		failed = o->db_drop ? run_command(pg, o, name, dir, env, NULL, notes, &why) : 0;
	} else if (url_kind(o->db) == URL_FILE) {
		failed = remove_tree(url_clone_file(o->db, name, dir));
		if (failed)
			buf_fmt(&why, "cannot remove it: %s", strerror(errno));
	} else {
		do {
			db = session(pg, o, &r, false);
			failed = db ? drop_postgres(pg, db, o, name, &r, notes) : -1;
		} while (failed && try_again(pg, &r, tries++));
		if (failed)
			explain(&r, "cannot drop database", &why);
		reply_clear(&r);
	}
	if (failed)
		buf_fmt(notes, "- %s (%s is left)\n", why.s, name);
	buf_free(&why);
	return failed;
}

void
pg_keep(struct pg *pg, const struct opts *o, const char *name, const char *file,
	struct buf *notes)
{
	struct reply r = { 0 };
	struct session *db;
	time_t now = time(NULL);
	char when[32];
	int failed, tries = 0;

	if (o->db_clone || url_kind(o->db) == URL_FILE)
		return;
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	do {
		db = session(pg, o, &r, false);
		failed = db ? pg_do(pg, db, &r, sql("COMMENT ON DATABASE %s IS %L", name,
			str("prun keep %s %s", when, file))) : -1;
	} while (failed && try_again(pg, &r, tries++));
	if (failed)
		buf_fmt(notes, "- %s could not be marked as kept, so the next run drops it: %s\n",
			name, r.message.s);
	reply_clear(&r);
}

int
pg_setup(struct pg *pg, const struct opts *o, bool begin, struct buf *notes, struct buf *why)
{
	struct reply r = { 0 };
	struct session *db;
	int failed = 0, tries = 0;

	if (!o->db || o->db_clone || url_kind(o->db) == URL_FILE)
		return 0;
	if (begin && !o->db_admin && strstr(o->db, "pgbouncer=true"))
		buf_str(notes, "- db leads through pgbouncer; where that pools transactions, locks "
			"are void: db-admin = names the way around it\n");
	do
		db = session(pg, o, &r, true);
	while (!db && strcmp(r.state, "08006") && try_again(pg, &r, tries++));
	if (db && begin)
		sweep(pg, db, o, false, false, notes);
	if (db && !db->admin)           /* lost meanwhile */
		db = session(pg, o, &r, true);
	/* Exclusive, so that no other run clones what setup is changing. */
	if (!db || (o->setup && lock_template(pg, db, &r, sql("SELECT pg_advisory_%s(%d, %d)",
			begin ? "lock" : "unlock", (int64_t)CLASS_TEMPLATE, lock_key(url_template(o->db)))) < 0)) {
		explain(&r, "the database server", why);
		failed = -1;
	}
	reply_clear(&r);
	return failed;
}

int
pg_clean(struct pg *pg, const struct opts *o, bool list, struct buf *notes, struct buf *why)
{
	struct reply r = { 0 };
	struct session *db;

	if (o->db_clone || url_kind(o->db) == URL_FILE) {
		buf_fmt(notes, "- %s: its clones are %s\n", url_masked(o->db), o->db_clone
			? "made by db-clone: what they leave is not known" : "in the run directories");
		return 0;
	}
	db = session(pg, o, &r, true);
	if (db)
		sweep(pg, db, o, true, list, notes);
	else
		explain(&r, "the database server", why);
	reply_clear(&r);
	return db ? 0 : -1;
}

bool
pg_gone(struct pg *pg, const struct opts *o, const char *name, const char *url)
{
	struct reply r = { 0 };
	struct session *db;
	struct stat st;
	bool gone = false;

	if (o->db_clone)
		return false;           /* who knows */
	if (!url || !*url)
		return true;            /* it never was */
	if (url_kind(o->db) == URL_FILE)
		return stat(url_file(url), &st) < 0;
	db = session(pg, o, &r, true);
	if (db && pg_do(pg, db, &r, sql("SELECT 1 FROM pg_database WHERE datname = %L", name)) == 0)
		gone = r.fields.n == 0;
	reply_clear(&r);
	return gone;
}

bool
pg_crowded(const struct pg *pg)
{
	return pg->crowded;
}
