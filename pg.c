/*
 * pg.c: databases.  Each attempt gets a clone of the suite's template.
 *
 * PostgreSQL is reached through libpq, loaded when first needed, or through one
 * psql that reads statements from a pipe: both look the same from pg_send() and
 * pg_reply() up.  A worker has one session for its life, with the database
 * "postgres"; it holds the run's advisory lock, shared, so that a later run can
 * tell the clones of the dead from those of the living.  While a clone is in use
 * the session is watched, and opened again when it was lost.  Should that take a
 * moment, no other run drops the clone: it must find it without a lock twice,
 * five seconds apart.
 *
 * A clone is CREATE DATABASE ... TEMPLATE, which waits five seconds for the
 * sessions on the template and then fails; while it waits, a second session ends
 * them: CREATE holds the lock that new ones wait for.  A CREATE that is no longer
 * wanted loses its connection.  The server may not have noticed when the clone is
 * dropped, so whoever drops it first ends the session that still creates it.
 *
 * Everything that a run made is found by its name, <template>_w<index>_<run>.  A
 * run's id ends in a check over its beginning, so no other database has such a name.
 *
 * A template may also be a file or a directory (sqlite:, file:), copied with cp -R
 * into the attempt's directory, or anything that db-clone and db-drop can copy.
 */
#include "prun.h"
#include <dlfcn.h>

#define CLASS_RUN 1886549358    /* advisory locks: "prun", with the run's id, */
#define CLASS_TEMPLATE 1886549359       /* and with the template's hash */
#define ANSWER_MS 60000         /* for what should take no time */
#define SWEEP_MS 5000           /* between the two looks for leftovers */

/* What an error of the server means to us. */
enum trouble { OTHER, LOST, CROWDED, NOT_YET, FORBIDDEN, IN_USE, MISSING, IS_TEMPLATE, SYNTAX };

/* state: an SQLSTATE or its beginning; passing: a further try may help. */
struct error {
	const char *state;
	enum trouble trouble;
	bool passing;
	const char *advice;
};

/* Also our own: 08001 there never was contact, 08006 it was lost, 57014 cancelled,
 * 58030 no psql. */
static const struct error errors[] = {
	{ "08001", OTHER, true, "" },
	{ "08", LOST, true, "" },
	{ "57P03", NOT_YET, true, "" },
	{ "57P", LOST, true, "" },
	{ "57", OTHER, true, "" },
	{ "3D000", MISSING, false, "; create it, or let setup create it" },
	{ "42501", FORBIDDEN, false, "; the role needs CREATEDB and must own the template, "
		"unless it is marked IS_TEMPLATE" },
	{ "55006", IN_USE, false, "" },
	{ "25006", OTHER, false, "; it is a standby or read-only, so set db-admin to the "
		"server that writes" },
	{ "42P04", OTHER, true, "; another run has the same id" },
	{ "23505", OTHER, true, "; another run has the same id" },
	{ "42601", SYNTAX, false, "" },
	{ "42809", IS_TEMPLATE, false, "" },
	{ "53300", CROWDED, true, "; raise max_connections, or lower jobs" },
	{ "53100", OTHER, false, "; the server's disk is full" },
	{ "53200", OTHER, false, "; the server is out of memory" },
	{ "XX000", OTHER, false, "; if the collation version is the problem, run "
		"ALTER DATABASE ... REFRESH COLLATION VERSION" },
	{ "28", OTHER, false, "; check the user and password of db" },
	{ "", OTHER, false, "" }
};

struct reply {
	const struct error *error;      /* NULL: all went well */
	struct buf message;
	struct list fields;             /* of all rows, row by row */
};

struct session {
	char *url;              /* what it connects with */
	bool open, seen;        /* seen: it was open once */
	void *conn;             /* libpq's, or: */
	struct proc psql;
	int in, out, err;       /* psql's pipes and the file of its errors */
	int statement;
	struct buf text;        /* read from psql and not yet used */
	int version;            /* of the server: 150004 */
	bool reflinks;          /* its file_copy_method is clone (18 and later) */
	struct session *next;
};

/* A clone that a first look has found without a living run; or a copy of ours. */
struct leftover {
	const struct opts *o;
	char *name;
	int64_t when;
};

struct pg {
	struct worker *w;
	const struct plan *plan;
	bool crowded;
	char *made;             /* the last clone whose CREATE is known to be over */
	bool unbroken;          /* the session has lived since then */
	bool undropped;         /* the sweep has met a clone that cannot be dropped */
	const struct opts *watched;     /* of the clone in use */
	int busy;               /* no time for watch() */
	bool brief;             /* in watch(): whatever happens comes first */
	int64_t answer_ms;      /* how long an answer may take */
	struct session *sessions;
	struct leftover *leftovers, *copies;
	size_t nleftovers, capleftovers, ncopies, capcopies;
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

static void
reply_clear(struct reply *r)
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
static int
set_error(struct reply *r, const char *state, const char *message)
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
	set_error(r, state, !detail ? text : str("%.*s (%.*s)", (int)n, text,
		(int)strcspn(detail + 9, "\n"), detail + 9));
}

enum waited { REPLIED, LATE, STOPPED };

static enum waited
await_fd(struct pg *pg, int fd, int events, int64_t deadline, bool heed)
{
	struct pollfd p = { fd, (short)events, 0 };
	int saw;

	for (;;) {
		if (heed && pg->w->cancelled)
			return STOPPED;
		if (proc_late(pg->w, deadline))
			return LATE;
		pg->busy++;
		saw = proc_wait(pg->w, &p, 1, deadline);
		pg->busy--;
		if (saw & SAW_FD)
			return REPLIED;
		if (saw && pg->brief)
			return STOPPED;
	}
}

static enum waited
pq_connect(struct pg *pg, struct session *db, struct reply *r, int64_t deadline, bool heed)
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
		how = await_fd(pg, pq.socket(db->conn), events, deadline, heed);
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
pq_await(struct pg *pg, struct session *db, int64_t deadline, bool heed)
{
	enum waited how = REPLIED;
	int unsent = pq.flush(db->conn);

	while (how == REPLIED && (unsent > 0 || (unsent == 0 && pq.isBusy(db->conn)))) {
		how = await_fd(pg, pq.socket(db->conn), unsent ? POLLIN | POLLOUT : POLLIN,
			deadline, heed);
		if (how == REPLIED && !pq.consumeInput(db->conn))
			break;
		unsent = pq.flush(db->conn);
	}
	return how;
}

static enum waited
pq_reply(struct pg *pg, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	enum waited how;
	void *result;
	int i, k, status;

	/* To the last result, NULL: an error comes well before the server is ready
	 * again, and a statement that is sent in between is not taken. */
	do {
		how = pq_await(pg, db, deadline, heed);
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
psql_start(struct pg *pg, struct session *db, struct reply *r)
{
	static int number;
	char *file = str("%s/psql-%d-%d", pg->plan->dir, pg->w->slot, number++);
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
		failed = proc_start(pg->w, &db->psql, &s);
	}
	if (failed)
		set_error(r, "58030", str("cannot run psql: %s%s", strerror(errno),
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
psql_reply(struct pg *pg, struct session *db, struct reply *r, int64_t deadline, bool heed)
{
	char *mark = str("@@%d ", db->statement), chunk[4096], *at = NULL, *s, *end;
	enum waited how;
	ssize_t n;

	for (;;) {
		at = db->text.n ? strstr(db->text.s, mark) : NULL;
		if (at && strchr(at, '\n'))
			break;
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

/* Never waits for the server, which hears of it in its own time. */
static void
close_session(struct pg *pg, struct session *db)
{
	struct buf notes = { 0 };

	pg->busy++;
	if (db->conn) {
		pq.finish(db->conn);
	} else if (db->open) {
		close_keep(db->in);     /* psql ends at the end of its input */
		close_keep(db->out);
		close_keep(db->err);
		proc_stop(pg->w, &db->psql, 1000, false, &notes);
		if (notes.n)
			warn("psql: %s", notes.s);
	}
	buf_free(&notes);
	buf_free(&db->text);
	db->conn = NULL;
	db->open = false;
	pg->busy--;
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

	if (how == REPLIED && r->error && r->error->trouble == LOST)
		close_session(pg, db);   /* the next one to ask opens another */
	return how;
}

/* Sends a statement and waits; 0 when it went well.  A cancel does not end it: what
 * is to be dropped is to be dropped.  prun kills those who take too long over it. */
static int
pg_do(struct pg *pg, struct session *db, struct reply *r, const char *sql)
{
	reply_clear(r);
	pg_send(db, sql);
	if (pg_reply(pg, db, r, proc_clock(pg->w) + pg->answer_ms, false) != REPLIED) {
		set_error(r, "08006", "the server did not answer");
		close_session(pg, db);
	}
	return r->error ? -1 : 0;
}

/* Waits for the lock on the template as long as it takes: another run's setup. */
static int
lock_template(struct pg *pg, struct session *db, struct reply *r, const char *function,
	const char *template)
{
	enum waited how;

	reply_clear(r);
	/* The key must be a positive int4. */
	pg_send(db, str("SELECT pg_advisory_%s(%d, %" PRIu32 ")", function, CLASS_TEMPLATE,
		hash(HASH_BEGIN, template) & 0x7fffffff));
	how = pg_reply(pg, db, r, proc_clock(pg->w) + 1000, true);
	if (how == LATE) {
		proc_tell_phase(pg->w, WAITING);
		how = pg_reply(pg, db, r, -1, true);
	}
	if (how != REPLIED) {
		set_error(r, "08006", "cancelled");
		close_session(pg, db);
	}
	return r->error ? -1 : 0;
}

/* Opens a session; 0, or -1 with r filled. */
static int
open_session(struct pg *pg, struct session *db, struct reply *r, bool heed)
{
	int64_t deadline = proc_clock(pg->w) + (pg->brief ? 1000 : 15000);
	enum waited how = REPLIED;

	reply_clear(r);
	db->open = true;
	if (have_libpq()) {
		how = pq_connect(pg, db, r, deadline, heed);
	} else if (psql_start(pg, db, r) == 0) {
		pg_send(db, "SELECT 1");
		how = psql_reply(pg, db, r, deadline, heed);
	}
	if (how != REPLIED)
		set_error(r, "08006", how == LATE ? "the server did not answer within 15s"
			: "cancelled");
	if (r->error)
		close_session(pg, db);
	if (r->error && r->error->trouble == FORBIDDEN)
		set_error(r, "28000", str("%s", r->message.s));
	if (r->error && r->error->trouble == LOST && !db->seen)
		set_error(r, "08001", str("%s", r->message.s));
	db->seen = db->seen || !r->error;
	return r->error ? -1 : 0;
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
static char *
sql(const char *fmt, ...)
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

/* Calls a function for the advisory lock of a run; the key is the id less its check. */
static int
lock_run(struct pg *pg, struct session *db, struct reply *r, const char *function,
	const char *run)
{
	return pg_do(pg, db, r, str("SELECT pg_%s(%d, %" PRId64 ")", function, CLASS_RUN,
		(int64_t)strtoll(str("%.5s", run), NULL, 36)));
}

/* Makes a fresh session fit to live as long as the run, whatever the role's settings
 * are, and takes the run's lock. */
static int
make_ours(struct pg *pg, struct session *db, struct reply *r)
{
	/* 14 and later: without it a client that is killed during CREATE leaves a
	 * database that appears after its death. */
	pg_do(pg, db, r, "SET client_connection_check_interval = '1s'");
	if (db->open)
		pg_do(pg, db, r, "SET statement_timeout = 0");
	if (!db->open || pg_do(pg, db, r, "SELECT pg_backend_pid(), "
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
		close_session(pg, db);
		return set_error(r, "58030", "db goes through a pooler, where locks do not "
			"work; set db-admin to the URL of the server itself");
	}
	return lock_run(pg, db, r, "advisory_lock_shared", pg->plan->id);
}

/* What sessions for a suite connect with. */
static char *
admin_url(const struct opts *o)
{
	char *name = o->db_admin ? url_database(o->db_admin) : NULL;

	/* A session on the template would be in the way of its clones. */
	if (!name || !strcmp(name, url_template(o->db)))
		name = "postgres";
	return url_admin(o->db_admin ? o->db_admin : o->db, name, NULL);
}

/* The worker's session for a suite's server, open or not. */
static struct session *
find_session(struct pg *pg, const struct opts *o)
{
	char *url = admin_url(o);
	struct session *db;

	for (db = pg->sessions; db && strcmp(db->url, url); db = db->next)
		;
	if (!db) {
		db = xcalloc(1, sizeof(*db));
		db->url = xstrdup(url);
		url_secrets(url, &secrets);
		if (getenv("PGPASSWORD"))
			list_add(&secrets, getenv("PGPASSWORD"));
		db->next = pg->sessions;
		pg->sessions = db;
	}
	return db;
}

/* The same, opened and locked if need be; NULL with r filled. */
static struct session *
session(struct pg *pg, const struct opts *o, struct reply *r, bool heed)
{
	struct session *db = find_session(pg, o);

	if (db->open)
		return db;
	pg->unbroken = false;
	pg->crowded = open_session(pg, db, r, heed) < 0 && r->error->trouble == CROWDED;
	return db->open && make_ours(pg, db, r) == 0 ? db : NULL;
}

/* Waits, whether or not the run is cancelled. */
static void
wait_ms(struct pg *pg, int64_t ms)
{
	int64_t until = proc_clock(pg->w) + ms;

	while (!proc_late(pg->w, until))
		proc_wait(pg->w, NULL, 0, until);
}

/* Does a statement that may be done twice, on another session if one is lost, and
 * later if that may help. */
static int
pg_insist(struct pg *pg, const struct opts *o, struct reply *r, const char *statement)
{
	struct session *db;
	int tries;

	for (tries = 0;; tries++) {
		db = session(pg, o, r, false);
		if (db && pg_do(pg, db, r, statement) == 0)
			return 0;
		if (tries == 5 || (r->error->trouble != LOST && r->error->trouble != CROWDED
		&& r->error->trouble != NOT_YET))
			return -1;
		proc_pause(pg->w, proc_clock(pg->w) + (100 << tries));
		if (pg->w->cancelled)
			return -1;
	}
}

/* Whether the session still stands: libpq's socket says so, psql must be asked. */
static bool
is_alive(struct pg *pg, struct session *db)
{
	struct pollfd p = { 0 };
	struct reply r = { 0 };
	bool alive = true;

	if (!db->conn) {
		pg_send(db, "SELECT 1");
		alive = pg_reply(pg, db, &r, proc_clock(pg->w) + 2000, false) == REPLIED;
		reply_clear(&r);
		return alive && db->open;
	}
	p.fd = pq.socket(db->conn);
	p.events = POLLIN;
	if (poll(&p, 1, 0) > 0)
		alive = pq.consumeInput(db->conn) && pq.status(db->conn) == PQ_OK;
	return alive;
}

/* Looks after the session of a clone that is in use: another run drops the clone if
 * it is without our lock for five seconds. */
static void
watch(void *arg)
{
	struct pg *pg = arg;
	struct session *db = find_session(pg, pg->watched);
	struct reply r = { 0 };

	pg->w->watch_at = proc_clock(pg->w) + 200;
	if (pg->busy)
		return;
	pg->busy++;
	if (db->open && !is_alive(pg, db))
		close_session(pg, db);
	pg->brief = true;
	pg->answer_ms = 1000;
	session(pg, pg->watched, &r, true);
	pg->answer_ms = ANSWER_MS;
	pg->brief = false;
	pg->busy--;
	reply_clear(&r);
	pg->w->watch_at = proc_clock(pg->w) + 200;
	if (db->open)
		pg->w->watch_at += db->conn ? 300 : 800;
}

/* ---- the recipe ---- */

/* Says in why what went wrong; whether another try may help. */
static bool
explain(const struct reply *r, const char *what, struct buf *why)
{
	buf_fmt(why, "%s: %s%s", what, r->message.s ? r->message.s : "", r->error->advice);
	return r->error->passing;
}

/* Ends the sessions on a database that we may end, or only names them all; returns
 * how many are left. */
static int
end_sessions(struct pg *pg, const struct opts *o, const char *name, bool only_name,
	struct buf *notes)
{
	static const char may_end[] = "(pg_has_role(usesysid, 'USAGE') "
		"OR pg_has_role('pg_signal_backend', 'USAGE')) AND (NOT rolsuper OR "
		"current_setting('is_superuser')::bool)";
	struct session second = { .url = admin_url(o) };
	struct reply r = { 0 };
	bool ended;
	int left = 0;
	size_t i;

	/* Without the filter one autovacuum worker makes the whole query fail; it is
	 * NULL for sessions of roles that are not ours, which have a user. */
	if (open_session(pg, &second, &r, false) < 0
	|| pg_do(pg, &second, &r, sql("SELECT pid, usename, application_name, "
		"CASE WHEN %s THEN pg_terminate_backend(pid) END "
		"FROM pg_stat_activity a JOIN pg_roles u ON u.oid = usesysid WHERE datname = %L "
		"AND coalesce(backend_type, 'client backend') = 'client backend' "
		"AND pid <> pg_backend_pid()", only_name ? "false" : may_end, name)) < 0)
		buf_fmt(notes, "- cannot end the sessions on %s: %s\n", name, r.message.s);
	for (i = 0; i + 3 < r.fields.n; i += 4) {
		ended = *r.fields.v[i + 3] == 't';
		left += !ended;
		if (ended || only_name)
			buf_fmt(notes, "- %s session on %s: pid %s, user %s%s%s\n",
				ended ? "ended a" : "there is a", name, r.fields.v[i],
				r.fields.v[i + 1], *r.fields.v[i + 2] ? ", " : "",
				r.fields.v[i + 2]);
	}
	reply_clear(&r);
	close_session(pg, &second);
	return left;
}

/* CREATE waits five seconds for the sessions on the template; meanwhile they are
 * ended from aside, since whoever reconnects then waits for CREATE.  *left: how many
 * could not be ended. */
static int
create(struct pg *pg, struct session *db, const struct opts *o, struct reply *r,
	const char *statement, const char *template, int *left, struct buf *notes)
{
	enum waited how;

	reply_clear(r);
	pg_send(db, statement);
	how = pg_reply(pg, db, r, proc_clock(pg->w) + 250, true);
	*left = 0;
	if (how == LATE && o->db_terminate)
		*left = end_sessions(pg, o, template, false, notes);
	if (how == LATE)
		how = pg_reply(pg, db, r, -1, true);
	if (how != REPLIED) {
		close_session(pg, db);  /* whoever drops the clone ends this CREATE */
		return set_error(r, "57014", "cancelled");
	}
	return r->error ? -1 : 0;
}

/* Creates the clone for the template's owner or, where that may not be, as ours. */
static int
create_clone(struct pg *pg, struct session *db, const struct opts *o, const char *name,
	const char *template, const char *owner, struct reply *r, struct buf *notes)
{
	const char *strategy = "";
	char *statement;
	struct reply q = { 0 };
	char *not_owners = NULL;
	bool failed;
	int tries, left;

	if (db->version >= 150000 && o->db_strategy == STRATEGY_WAL_LOG)
		strategy = " STRATEGY wal_log";
	if (db->version >= 150000 && (o->db_strategy == STRATEGY_FILE_COPY
	|| (o->db_strategy == STRATEGY_AUTO && db->reflinks)))
		strategy = " STRATEGY file_copy";
	statement = sql("CREATE DATABASE %I TEMPLATE %I OWNER %I%s", name, template, owner,
		strategy);
	for (tries = 0; create(pg, db, o, r, statement, template, &left, notes) < 0; tries++) {
		switch (r->error->trouble) {
		case FORBIDDEN:
			/* Whether it is for OWNER: the words differ by version and language. */
			if (not_owners)
				return -1;
			not_owners = str("%s", r->message.s);
			statement = sql("CREATE DATABASE %I TEMPLATE %I%s", name, template,
				strategy);
			break;
		case IN_USE:
			/* Nobody can end a prepared transaction. */
			failed = pg_do(pg, db, &q, sql("SELECT 1 FROM pg_prepared_xacts WHERE "
				"database = %L", template)) < 0 || q.fields.n;
			reply_clear(&q);
			if (tries == 3 || !o->db_terminate || left || failed)
				return -1;
			break;
		default:
			return -1;
		}
	}
	if (not_owners)
		buf_fmt(notes, "- the clone belongs to the connecting role, not to %s: %s\n",
			owner, not_owners);
	return 0;
}

/* Settings of the template that CREATE does not copy, as statements. */
static const char settings[] =
	"SELECT format('ALTER %%s SET %%I = %%s', CASE WHEN setrole = 0 THEN %L "
	"ELSE format('ROLE %%I IN %%s', rolname, %L) END, k, CASE WHEN k IN ("
	"'search_path', 'temp_tablespaces', 'local_preload_libraries', "
	"'session_preload_libraries', 'shared_preload_libraries') AND v NOT IN ('', '\"\"') "
	"THEN v ELSE quote_literal(replace(v, '\"\"', '')) END) FROM pg_db_role_setting s "
	"JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles u ON u.oid = setrole, "
	"unnest(setconfig) c, split_part(c, '=', 1) k, substr(c, length(k) + 2) v "
	"WHERE datname = %L";

/* And its privileges, where they are not those that a new database has. */
static const char grants[] =
	"SELECT 'REVOKE ALL ON ' || %L || ' FROM PUBLIC' FROM pg_database "
	"WHERE datname = %L AND datacl IS NOT NULL UNION ALL "
	"SELECT format('GRANT %%s ON %%s TO %%s%%s', privilege_type, %L, CASE grantee "
	"WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, "
	"CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) "
	"FROM pg_database, aclexplode(datacl) WHERE datname = %L";

static void
copy_settings(struct pg *pg, struct session *db, const char *name, const char *template,
	struct buf *notes)
{
	struct reply r = { 0 }, one = { 0 };
	char *clone = sql("DATABASE %I", name), *ask[2];
	size_t i, k;

	ask[0] = sql(settings, clone, clone, template);
	ask[1] = sql(grants, clone, template, clone, template);
	for (k = 0; k < 2 && db->open && !pg->w->cancelled; k++) {
		pg_do(pg, db, &r, ask[k]);
		for (i = 0; db->open && !pg->w->cancelled && i < r.fields.n; i++)
			if (pg_do(pg, db, &one, r.fields.v[i]) < 0)
				buf_fmt(notes, "- not copied from the template: %s: %s\n",
					r.fields.v[i], one.message.s);
	}
	reply_clear(&one);
	reply_clear(&r);
}

/* The run's copy of the template as the setup has left it, the same for all suites
 * with this setup and template; NULL where there is no setup. */
static char *
copy_name(const struct pg *pg, const struct opts *o)
{
	const struct opts *other;
	size_t i;

	for (i = 0; o->setup && i < pg->plan->nsuites; i++) {
		other = &pg->plan->suites[i].o;
		if (other->setup && other->db && !strcmp(other->setup, o->setup)
		&& !strcmp(other->db, o->db))
			return url_copy_name(o->db, i, pg->plan->id);
	}
	return NULL;
}

/* Creates name as a copy of from, which keeps as it is meanwhile. */
static int
copy_database(struct pg *pg, struct session *db, const struct opts *o, const char *from,
	const char *name, struct reply *r, struct buf *notes)
{
	char *owner;

	if (pg_do(pg, db, r, sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE "
		"datname = %L", from)) < 0)
		return -1;
	if (r->fields.n == 0)
		return set_error(r, "3D000", str("database \"%s\" does not exist", from));
	owner = str("%s", r->fields.v[0]);
	if (create_clone(pg, db, o, name, from, owner, r, notes) < 0)
		return -1;
	copy_settings(pg, db, name, from, notes);
	return 0;
}

/* Clones the run's own copy, or else the template, while no other run's setup may
 * change it. */
static int
clone_postgres(struct pg *pg, const struct opts *o, const char *name, struct reply *r,
	struct buf *notes)
{
	char *copy = copy_name(pg, o), *template = url_template(o->db);
	struct session *db = session(pg, o, r, true);
	struct reply unlocked = { 0 };
	int failed;

	if (!db || (!copy && lock_template(pg, db, r, "lock_shared", template) < 0))
		return -1;
	failed = copy_database(pg, db, o, copy ? copy : template, name, r, notes);
	if (!failed) {
		free(pg->made);
		pg->made = xstrdup(name);
		pg->unbroken = true;
	}
	if (!copy && db->open)
		lock_template(pg, db, &unlocked, "unlock_shared", template);
	if (failed && r->error->trouble == IN_USE)
		end_sessions(pg, o, copy ? copy : template, true, notes);
	reply_clear(&unlocked);
	return failed;
}

/* Ends the session that still creates a database, which DROP would not see. */
static void
end_creation(struct pg *pg, const struct opts *o, const char *name)
{
	char *statement = sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
		"state = 'active' AND position(%L in query) = 1",
		sql("CREATE DATABASE %I ", name));
	struct reply r = { 0 };
	int tries;

	for (tries = 0; tries < 100; tries++) {
		if (pg_insist(pg, o, &r, statement) < 0 || r.fields.n == 0)
			break;
		wait_ms(pg, 50);
	}
	reply_clear(&r);
}

/* Drops what pytest-django and Django's own runner have made of a clone and left:
 * test_NAME, test_NAME_gw1, test_NAME_1. */
static void
drop_derived(struct pg *pg, const struct opts *o, const char *name)
{
	struct reply r = { 0 }, one = { 0 };
	size_t i;

	pg_insist(pg, o, &r, sql("SELECT format('DROP DATABASE IF EXISTS %%I WITH (FORCE)', "
		"datname) FROM pg_database WHERE pg_has_role(datdba, 'USAGE') AND datname ~ %L",
		str("^test_%s(_(gw)?[0-9]+)?$", name)));
	for (i = 0; i < r.fields.n; i++)
		pg_insist(pg, o, &one, r.fields.v[i]);  /* the sweep finds what stays */
	reply_clear(&one);
	reply_clear(&r);
}

/* Drops a database of ours, whatever stands in the way but what must not be touched:
 * prepared transactions and subscriptions. */
static int
drop_postgres(struct pg *pg, const struct opts *o, const char *name, struct reply *r,
	struct buf *notes)
{
	if (!pg->made || strcmp(pg->made, name))
		end_creation(pg, o, name);
	drop_derived(pg, o, name);
	if (pg_insist(pg, o, r, sql("DROP DATABASE IF EXISTS %I WITH (FORCE)", name)) == 0)
		return 0;
	if (r->error->trouble == LOST || r->error->trouble == IN_USE)
		return -1;
	if (r->error->trouble == SYNTAX)                /* before 13 */
		end_sessions(pg, o, name, false, notes);
	if (r->error->trouble == IS_TEMPLATE)
		pg_insist(pg, o, r, sql("ALTER DATABASE %I IS_TEMPLATE false", name));
	return pg_insist(pg, o, r, sql("DROP DATABASE IF EXISTS %I", name));
}

/* The clones of this template that are ours to drop: name, run, comment, whether
 * somebody uses it, size, and the age of what was kept. */
static const char clones[] =
	"SELECT datname, substring(datname from '_[sw][0-9]+_([0-9a-z]{8})(?:r[0-9]+)?(?:_(?:gw)?[0-9]+)?$'), c, "
	"EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datid = d.oid), "
	"CASE WHEN datconnlimit = -2 THEN 'invalid' ELSE "
	"pg_size_pretty(pg_database_size(d.oid)) END, "
	"CASE WHEN c ~ '^prun keep [0-9]{4}-[0-9-]{5}T[0-9:]{8}Z ' THEN "
	"date_trunc('minute', now() - substr(c, 11, 20)::timestamptz) || ' old' END "
	"FROM (SELECT *, coalesce(shobj_description(oid, 'pg_database'), '') AS c "
	"FROM pg_database) d WHERE datname ~ "
	"('^(test_)?' || %L || '_[sw][0-9]+_[0-9a-z]{8}(r[0-9]+)?(_(gw)?[0-9]+)?$') "
	"AND pg_has_role(current_user, datdba, 'USAGE') %s ORDER BY datname";
enum { C_NAME, C_RUN, C_COMMENT, C_USED, C_SIZE, C_AGE, C_FIELDS };

/* Looks again at a clone whose run is locked out now, and drops or lists it. */
static void
drop_leftover(struct pg *pg, struct session *db, const struct opts *o, char **f, bool list,
	struct buf *notes)
{
	const char *comment = f[C_COMMENT], *why = "left by a dead run";
	struct reply r = { 0 };
	char *what;

	if (starts(comment, "prun keep"))       /* ... 2026-01-31T12:00:00Z FILE */
		why = str("kept for %s", comment + (strlen(comment) > 31 ? 31 : 9));
	what = str("%s (%s, %s%s%s)", f[C_NAME], why, f[C_SIZE], *f[C_AGE] ? ", " : "",
		f[C_AGE]);
	/* Since we looked, it may have been kept, or somebody looks at it. */
	if (pg_do(pg, db, &r, sql(clones, url_stem(o->db),
		sql("AND datname = %L", f[C_NAME]))) < 0 || r.fields.n != C_FIELDS)
		goto out;
	if (*r.fields.v[C_USED] == 't')
		buf_fmt(notes, "- %s: not dropped, it is in use\n", what);
	else if (list)
		buf_fmt(notes, "- %s\n", what);
	else if (strcmp(r.fields.v[C_COMMENT], comment))
		goto out;
	else if (drop_postgres(pg, o, f[C_NAME], &r, notes) == 0)
		buf_fmt(notes, "- dropped %s\n", what);
out:
	if (r.error)
		buf_fmt(notes, "- cannot drop %s: %s\n", what, r.message.s);
	pg->undropped = pg->undropped || r.error;
	reply_clear(&r);
}

/* NOTE is the first look and DROP the second; CLEAN and LIST are for --clean, to
 * which kept clones are leftovers, too. */
enum sweep { NOTE, DROP, CLEAN, LIST };

/* Looks at a clone: is it a leftover, one whose run holds no lock, that nobody uses
 * and that is not marked as kept?  Says what it does about it. */
static void
sweep_one(struct pg *pg, struct session *db, const struct opts *o, char **f, enum sweep how,
	struct buf *notes)
{
	struct leftover l = { o, NULL, proc_clock(pg->w) };
	struct reply r = { 0 };

	/* A database of the user's own may have a name of this form, but not a valid id. */
	if (!id_valid(f[C_RUN])
	|| (how < CLEAN && (starts(f[C_COMMENT], "prun keep") || *f[C_USED] == 't')))
		return;
	if (lock_run(pg, db, &r, "try_advisory_lock", f[C_RUN]) < 0)
		goto out;
	if (*r.fields.v[0] != 't') {
		if (how >= CLEAN)
			buf_fmt(notes, "- %s: not dropped, its run is in progress\n", f[C_NAME]);
		goto out;
	}
	if (how == NOTE) {
		l.name = xstrdup(f[C_NAME]);
		pg->leftovers = grow(pg->leftovers, &pg->capleftovers, pg->nleftovers + 1,
			sizeof(l));
		pg->leftovers[pg->nleftovers++] = l;
	} else {
		drop_leftover(pg, db, o, f, how == LIST, notes);
	}
	if (db->open)
		lock_run(pg, db, &r, "advisory_unlock", f[C_RUN]);
out:
	reply_clear(&r);
}

/* Looks for clones of dead runs; name: only for this one. */
static void
sweep(struct pg *pg, struct session *db, const struct opts *o, enum sweep how, const char *name,
	struct buf *notes)
{
	struct reply r = { 0 };
	size_t i;

	if (pg_do(pg, db, &r, sql(clones, url_stem(o->db),
		name ? sql("AND datname = %L", name) : "")) < 0)
		buf_fmt(notes, "- cannot look for leftovers of other runs: %s\n", r.message.s);
	for (i = 0; i + C_FIELDS <= r.fields.n && db->open && !pg->w->cancelled; i += C_FIELDS)
		sweep_one(pg, db, o, r.fields.v + i, how, notes);
	if (how >= CLEAN && r.fields.n == 0 && !r.error)
		buf_fmt(notes, "- %s has no clones to drop\n", url_template(o->db));
	reply_clear(&r);
}

/* ---- files, and commands for anything else ---- */

/* Runs cp, db-clone or db-drop.  What it prints goes to db.out in dir, its errors
 * to db.log; what went wrong to why. */
static int
run_command(struct pg *pg, const struct opts *o, const char *what, const struct spawn *command,
	const char *dir, bool heed, struct buf *notes, struct buf *why)
{
	char *out = str("%s/db.out", dir), *log = str("%s/db.log", dir);
	struct spawn s = *command;
	int status = SPAWN_FAILED;

	s.out = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	s.err = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (s.out >= 0 && s.err >= 0)
		status = proc_run(pg->w, &s, heed ? -1 : proc_clock(pg->w) + ANSWER_MS, heed,
			o->grace_ms, notes);
	if (status == SPAWN_FAILED)
		buf_fmt(why, "%s: %s", what, strerror(errno));
	else if (status == RUN_STOPPED)
		buf_fmt(why, "%s was stopped", what);
	else if (status)
		buf_fmt(why, "%s failed, see %s", what, log);
	close_keep(s.out);
	close_keep(s.err);
	return status ? -1 : 0;
}

static int
clone_file(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	struct buf *notes, struct buf *why)
{
	static const char *const sides[] = { "-wal", "-journal", "-shm" };
	/* Of a symlink cp -R would copy the link. */
	char *from = url_file(o->db), *real = realpath(from, NULL), *side;
	char *to = url_clone_file(o->db, name, dir);
	char *argv[] = { "cp", "-R", "--", real, to, NULL };
	struct spawn s = { .argv = argv, .env = env };
	struct stat st;
	size_t i;
	int failed = -1;

	if (!real) {
		buf_fmt(why, "cannot clone %s: %s; create it, or let setup create it", from,
			strerror(errno));
		return -1;
	}
	for (i = 0; i < LEN(sides); i++) {
		side = str("%s%s", real, sides[i]);
		if (i < 2 && stat(side, &st) == 0 && st.st_size > 0) {
			buf_fmt(why, "cannot clone %s: %s is not empty, so the database is "
				"open or was not closed; close it, or let setup close it",
				from, side);
			goto out;
		}
		/* A stale one of another life would be read into the clone. */
		unlink(str("%s%s", to, sides[i]));
	}
	remove_tree(to);                /* what stays is cp's to complain of */
	failed = run_command(pg, o, str("cannot clone %s: cp -R", from), &s, dir, true, notes,
		why);
	unlink(str("%s/db.out", dir));
out:
	free(real);
	return failed;
}

/* Runs db-clone, whose last line becomes *url, or db-drop (url is NULL). */
static int
run_hook(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	char **url, struct buf *notes, struct buf *why)
{
	const char *command = url ? o->db_clone : o->db_drop;
	char *what = str("%s: %s", url ? "db-clone" : "db-drop", command), *out;
	struct list all = { 0 };
	struct buf line = { 0 };
	struct spawn s = { .argv = proc_argv(command, NULL) };
	int failed;

	for (; *env; env++)
		if (!starts(*env, "PRUN_DB="))
			list_add(&all, *env);
	list_add(&all, str("PRUN_TEMPLATE_URL=%s", o->db));
	list_add(&all, str("PRUN_DB=%s", name));
	s.env = all.v;
	out = str("%s/db.out", dir);
	failed = run_command(pg, o, what, &s, dir, url != NULL, notes, why);
	if (url && !failed) {
		buf_tail(&line, out, 1);
		if (line.n)
			*url = xstrdup(str("%.*s", (int)line.n - 1, line.s));
		else
			failed = -1;
		if (failed)
			buf_fmt(why, "%s printed no URL", what);
	}
	unlink(out);
	list_free(&all);
	buf_free(&line);
	return failed;
}

/* ---- what workers ask for ---- */

/* Whether the databases of a suite are PostgreSQL's, and not files or for commands. */
static bool
is_postgres(const struct opts *o)
{
	return o->db && !o->db_clone && url_kind(o->db) != URL_FILE;
}

struct pg *
pg_open(struct worker *w, const struct plan *p)
{
	struct pg *pg = xcalloc(1, sizeof(*pg));

	pg->w = w;
	pg->plan = p;
	pg->answer_ms = ANSWER_MS;
	return pg;
}

void
pg_close(struct pg *pg)
{
	struct session *db;

	while ((db = pg->sessions)) {
		pg->sessions = db->next;
		close_session(pg, db);
		free(db->url);
		free(db);
	}
	free(pg->leftovers);            /* their names go with the process */
	free(pg->copies);
	free(pg->made);
	free(pg);
}

bool
pg_waits(const struct pg *pg)
{
	return !pg->w->cancelled && pg->nleftovers
		&& proc_clock(pg->w) < pg->leftovers[pg->nleftovers - 1].when + SWEEP_MS;
}

void
pg_end(struct pg *pg, struct buf *notes)
{
	struct reply r = { 0 };
	struct leftover *l;
	struct session *db;
	size_t i;

	for (i = 0; i < pg->ncopies; i++)
		pg_drop(pg, pg->copies[i].o, pg->copies[i].name, "", NULL, notes);
	for (i = 0; i < pg->nleftovers; i++) {
		l = &pg->leftovers[i];
		proc_pause(pg->w, l->when + SWEEP_MS);
		if (pg->w->cancelled)
			break;
		db = session(pg, l->o, &r, true);
		if (db)
			sweep(pg, db, l->o, DROP, l->name, notes);
	}
	reply_clear(&r);
}

static int
clone_once(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	char **url, struct buf *notes, struct buf *why, bool *passing)
{
	struct reply r = { 0 };
	int failed;

	*passing = false;
	if (o->db_clone)
		return run_hook(pg, o, name, dir, env, url, notes, why);
	if (is_postgres(o)) {
		failed = clone_postgres(pg, o, name, &r, notes);
		if (failed)
			*passing = explain(&r, str("cannot clone database %s",
				url_template(o->db)), why);
		reply_clear(&r);
	} else {
		failed = clone_file(pg, o, name, dir, env, notes, why);
	}
	if (!failed)
		*url = xstrdup(url_clone(o->db, name, dir));
	return failed;
}

int
pg_clone(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	char **url, struct buf *notes, struct buf *why, bool *passing)
{
	int tries;

	for (tries = 0;; tries++) {
		if (clone_once(pg, o, name, dir, env, url, notes, why, passing) == 0) {
			pg->watched = o;
			pg->w->watch = is_postgres(o) ? watch : NULL;
			pg->w->watched = pg;
			pg->w->watch_at = proc_clock(pg->w) + 500;
			return 0;
		}
		if (!*passing || tries == 3)
			return -1;
		if (pg->crowded && tries > 0 && pg->plan->workers > 1)
			return -1;      /* it is for another worker */
		proc_pause(pg->w, proc_clock(pg->w) + (500 << tries));
		if (pg->w->cancelled)
			return -1;
		/* An answer may have been lost, or the name is taken: drop what is there. */
		if (find_session(pg, o)->seen)
			pg_drop(pg, o, name, dir, env, notes);
		why->n = 0;
	}
}

int
pg_drop(struct pg *pg, const struct opts *o, const char *name, const char *dir, char **env,
	struct buf *notes)
{
	struct reply r = { 0 };
	struct buf why = { 0 };
	int failed = 0;

	pg->w->watch = NULL;
	if (is_postgres(o)) {
		failed = drop_postgres(pg, o, name, &r, notes);
		if (failed)
			explain(&r, "cannot drop database", &why);
		reply_clear(&r);
	} else if (!o->db_clone) {
		failed = remove_tree(url_clone_file(o->db, name, dir));
		if (failed)
			buf_fmt(&why, "cannot remove it: %s", strerror(errno));
	} else if (o->db_drop) {
		failed = run_hook(pg, o, name, dir, env, NULL, notes, &why);
	}
	if (failed)
		buf_fmt(notes, "- %s (%s was not dropped)\n", why.s, name);
	buf_free(&why);
	return failed;
}

void
pg_keep(struct pg *pg, const struct opts *o, const char *name, const char *file,
	struct buf *notes)
{
	struct reply r = { 0 };
	time_t now = time(NULL);
	char when[32];

	pg->w->watch = NULL;
	if (!is_postgres(o))
		return;
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	if (pg_insist(pg, o, &r, sql("COMMENT ON DATABASE %I IS %L", name,
		str("prun keep %s %s", when, file))) < 0)
		buf_fmt(notes, "- %s could not be marked as kept, so the next run will drop "
			"it: %s\n", name, r.message.s);
	reply_clear(&r);
}

/* Copies a template that setup has finished, so that no other run's setup changes it
 * under this run, and unlocks it. */
static int
make_copy(struct pg *pg, struct session *db, const struct opts *o, struct reply *r,
	struct buf *notes)
{
	struct leftover copy = { o, copy_name(pg, o), 0 };
	struct reply unlocked = { 0 };
	int failed;

	copy.name = xstrdup(copy.name);
	pg->copies = grow(pg->copies, &pg->capcopies, pg->ncopies + 1, sizeof(copy));
	pg->copies[pg->ncopies++] = copy;
	failed = copy_database(pg, db, o, url_template(o->db), copy.name, r, notes);
	if (db->open)
		lock_template(pg, db, &unlocked, "unlock", url_template(o->db));
	if (failed && r->error->trouble == IN_USE)
		end_sessions(pg, o, url_template(o->db), true, notes);
	reply_clear(&unlocked);
	return failed;
}

int
pg_setup(struct pg *pg, const struct opts *o, bool begin, struct buf *notes, struct buf *why)
{
	struct reply r = { 0 };
	struct session *db = NULL;
	char *template;
	int failed = 0;

	if (!is_postgres(o))
		return 0;
	template = url_template(o->db);
	/* psql does not tell what would show it. */
	if (begin && !o->db_admin && !have_libpq() && strstr(o->db, "pgbouncer=true"))
		buf_str(notes, "- db goes through pgbouncer, and locks do not work with "
			"transaction pooling: set db-admin to the server's own URL\n");
	if (pg_insist(pg, o, &r, "SELECT 1") == 0) {
		if (begin)
			sweep(pg, session(pg, o, &r, true), o, NOTE, NULL, notes);
		db = session(pg, o, &r, true);  /* another, if that was lost meanwhile */
	}
	/* Exclusive, so that no other run clones what setup is changing. */
	if (!db || (begin && o->setup && lock_template(pg, db, &r, "lock", template) < 0)) {
		explain(&r, "the database server", why);
		failed = -1;
	} else if (!begin) {
		failed = make_copy(pg, db, o, &r, notes);
		if (failed)
			explain(&r, str("cannot copy database %s", template), why);
	}
	reply_clear(&r);
	return failed;
}

int
pg_clean(struct pg *pg, const struct opts *o, bool list, struct buf *notes, struct buf *why)
{
	struct reply r = { 0 };
	struct session *db;

	if (!is_postgres(o)) {
		buf_fmt(notes, "- %s: its clones are %s\n", url_masked(o->db), o->db_clone
			? "made by db-clone, so prun cannot list them"
			: "in the run directories");
		return 0;
	}
	db = session(pg, o, &r, true);
	if (db)
		sweep(pg, db, o, list ? LIST : CLEAN, NULL, notes);
	else
		explain(&r, "the database server", why);
	reply_clear(&r);
	return db && !pg->undropped ? 0 : -1;
}

int
pg_used(struct pg *pg, const struct opts *o, const char *name)
{
	char *now = sql("SELECT 1 FROM pg_stat_activity WHERE datname = %L "
		"AND coalesce(backend_type, 'client backend') = 'client backend'", name);
	char *ever = sql("SELECT 1 FROM pg_stat_database WHERE datname = %L AND sessions > 0",
		name);
	struct session *db = is_postgres(o) ? find_session(pg, o) : NULL;
	struct reply r = { 0 };
	bool used = false;
	int tries, most;

	/* After a crash of the server its figures begin anew. */
	if (!db || !pg->unbroken || db->version < 140000)
		return -1;
	/* From 15 on a session has counted itself when it goes, before in a while. */
	most = db->version < 150000 ? 20 : 2;
	for (tries = 0; !used && tries < most && pg->unbroken && !pg->w->cancelled; tries++) {
		if (tries > 0 && most > 2)
			wait_ms(pg, 50);
		used = pg_insist(pg, o, &r, ever) == 0 && r.fields.n;
		used = used || (pg_insist(pg, o, &r, now) == 0 && r.fields.n);
	}
	reply_clear(&r);
	if (used)
		return 1;
	return pg->unbroken && !pg->w->cancelled ? 0 : -1;
}

void
pg_sessions(struct pg *pg, const struct opts *o, const char *name, struct buf *b)
{
	char *statement = sql("SELECT concat_ws(', ', 'pid ' || pid, 'user ' || usename, "
		"nullif(application_name, ''), state, "
		"'waits for ' || wait_event_type || ' ' || wait_event, 'blocked by ' || "
		"nullif(array_to_string(pg_blocking_pids(pid), ' '), ''), "
		"'for ' || date_trunc('second', now() - coalesce(query_start, backend_start))), "
		"query FROM pg_stat_activity WHERE datname = %L ORDER BY backend_start", name);
	struct reply r = { 0 };
	size_t i;

	if (!is_postgres(o))
		return;
	pg->answer_ms = 2000;
	if (pg_insist(pg, o, &r, statement) < 0)
		buf_fmt(b, "its database %s cannot be asked: %s\n", name, r.message.s);
	else
		buf_fmt(b, "and these sessions of its database %s:\n", name);
	for (i = 0; i + 1 < r.fields.n; i += 2)
		buf_fmt(b, "%s\n\t%s\n", r.fields.v[i],
			safe(r.fields.v[i + 1], strlen(r.fields.v[i + 1])));
	pg->answer_ms = ANSWER_MS;
	reply_clear(&r);
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
	if (!is_postgres(o))
		return stat(url_file(url), &st) < 0;
	db = session(pg, o, &r, true);
	if (db && pg_do(pg, db, &r, sql("SELECT 1 FROM pg_database WHERE datname = %L",
		name)) == 0)
		gone = r.fields.n == 0;
	reply_clear(&r);
	return gone;
}

bool
pg_crowded(const struct pg *pg)
{
	return pg->crowded;
}
