/*
 * sql.c: a session with a PostgreSQL server, through libpq or through psql.
 *
 * libpq is loaded when first needed.  Where it cannot be, as from a static binary,
 * one psql reads statements from a pipe: both look the same from sql_send() and
 * sql_reply() up.  All waiting is proc_wait()'s, so that orders are heard meanwhile,
 * and nothing here waits for a server without a deadline unless the caller says so.
 *
 * Whatever a server, libpq or psql says of an error has the passwords taken out.
 */
#include "prun.h"
#include <dlfcn.h>

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
	int saw;

	for (;;) {
		if (heed && t->w->cancelled)
			return STOPPED;
		if (proc_late(t->w, deadline))
			return LATE;
		t->busy++;
		saw = proc_wait(t->w, &p, 1, deadline);
		t->busy--;
		if (saw & SAW_FD)
			return REPLIED;
		if (saw && t->brief)
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
	url_secrets(url, &secrets);
	if (getenv("PGPASSWORD"))
		list_add(&secrets, getenv("PGPASSWORD"));
}
