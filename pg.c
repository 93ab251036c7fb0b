/*
 * pg.c: databases.  Each attempt gets a clone of the suite's template.
 *
 * A worker has one session with a server for its life (sql.c), with the database
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

extern char **environ;

#define CLASS_RUN 1886549358    /* advisory locks: "prun", with the run's id, */
#define CLASS_TEMPLATE 1886549359       /* and with the template's hash */
#define ANSWER_MS 60000         /* for answers that should take no time */
#define SWEEP_MS 5000           /* between the two looks for leftovers */

/* A clone that a first look has found without a living run; or a copy of ours. */
struct leftover {
	const struct opts *o;
	char *name;
	int64_t when;
};

struct pg {
	struct worker *w;
	struct sql sql;         /* the same worker's */
	const struct plan *plan;
	bool crowded;
	char *made;             /* the last clone whose CREATE is known to be over */
	bool unbroken;          /* the session has lived since then */
	bool undropped;         /* the sweep has met a clone that cannot be dropped */
	const struct opts *watched;     /* of the clone in use */
	struct session *sessions;
	struct leftover *leftovers, *copies;
	size_t nleftovers, capleftovers, ncopies, capcopies;
};

/* Waits for the lock on the template as long as it takes: another run's setup. */
static int
lock_template(struct pg *pg, struct session *db, struct reply *r, const char *function,
	const char *template)
{
	enum waited how;

	sql_clear(r);
	/* The key must be a positive int4. */
	sql_send(db, str("SELECT pg_advisory_%s(%d, %" PRIu32 ")", function, CLASS_TEMPLATE,
		hash(HASH_BEGIN, template) & 0x7fffffff));
	how = sql_reply(&pg->sql, db, r, proc_clock(pg->w) + 1000, true);
	if (how == LATE) {
		proc_tell_phase(pg->w, WAITING);
		how = sql_reply(&pg->sql, db, r, -1, true);
	}
	if (how != REPLIED) {
		sql_error(r, "08006", "cancelled");
		sql_close(&pg->sql, db);
	}
	return r->error ? -1 : 0;
}

/* Calls a function for the advisory lock of a run; the key is the id less its check. */
static int
lock_run(struct pg *pg, struct session *db, struct reply *r, const char *function,
	const char *run)
{
	return sql_do(&pg->sql, db, r, str("SELECT pg_%s(%d, %" PRId64 ")", function, CLASS_RUN,
		(int64_t)strtoll(str("%.5s", run), NULL, 36)));
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
		sql_hide(url);
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
	pg->crowded = sql_open(&pg->sql, db, r, heed) < 0 && r->error->trouble == SQL_CROWDED;
	if (db->open)
		lock_run(pg, db, r, "advisory_lock_shared", pg->plan->id);
	return r->error ? NULL : db;
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
	enum trouble trouble;
	int tries;

	for (tries = 0;; tries++) {
		db = session(pg, o, r, false);
		if (db && sql_do(&pg->sql, db, r, statement) == 0)
			return 0;
		trouble = r->error->trouble;
		if (tries == 5 || (trouble != SQL_LOST && trouble != SQL_CROWDED
		&& trouble != SQL_NOT_YET))
			return -1;
		proc_pause(pg->w, proc_clock(pg->w) + (100 << tries));
		if (pg->w->cancelled)
			return -1;
	}
}

/* Looks after the session of a clone that is in use: another run drops the clone if
 * it is without our lock for five seconds. */
static void
watch(void *arg)
{
	struct pg *pg = arg;
	struct session *db;
	struct reply r = { 0 };
	size_t mark = scratch_mark();

	pg->w->watch_at = proc_clock(pg->w) + 200;
	if (pg->sql.busy)
		return;
	db = find_session(pg, pg->watched);
	pg->sql.busy++;
	if (db->open && !sql_alive(&pg->sql, db))
		sql_close(&pg->sql, db);
	pg->sql.brief = true;
	pg->sql.answer_ms = 1000;
	session(pg, pg->watched, &r, true);
	pg->sql.answer_ms = ANSWER_MS;
	pg->sql.brief = false;
	pg->sql.busy--;
	sql_clear(&r);
	pg->w->watch_at = proc_clock(pg->w) + 200;
	if (db->open)
		pg->w->watch_at += db->conn ? 300 : 800;
	scratch_release(mark);
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
	if (sql_open(&pg->sql, &second, &r, false) < 0
	|| sql_do(&pg->sql, &second, &r, sql_fmt("SELECT pid, usename, application_name, "
		"CASE WHEN %s THEN pg_terminate_backend(pid) END "
		"FROM pg_stat_activity JOIN pg_roles u ON u.oid = usesysid "
		"WHERE datname = %L "
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
	sql_clear(&r);
	sql_close(&pg->sql, &second);
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

	sql_clear(r);
	sql_send(db, statement);
	how = sql_reply(&pg->sql, db, r, proc_clock(pg->w) + 250, true);
	*left = 0;
	if (how == LATE && o->db_terminate)
		*left = end_sessions(pg, o, template, false, notes);
	if (how == LATE)
		how = sql_reply(&pg->sql, db, r, -1, true);
	if (how != REPLIED) {
		sql_close(&pg->sql, db);  /* whoever drops the clone ends this CREATE */
		return sql_error(r, "57014", "cancelled");
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
	statement = sql_fmt("CREATE DATABASE %I TEMPLATE %I OWNER %I%s", name, template, owner,
		strategy);
	for (tries = 0; create(pg, db, o, r, statement, template, &left, notes) < 0; tries++) {
		switch (r->error->trouble) {
		case SQL_FORBIDDEN:
			/* Whether it is for OWNER: the words differ by version and language. */
			if (not_owners)
				return -1;
			not_owners = str("%s", r->message.s);
			statement = sql_fmt("CREATE DATABASE %I TEMPLATE %I%s", name, template,
				strategy);
			break;
		case SQL_IN_USE:
			/* Nobody can end a prepared transaction. */
			failed = sql_do(&pg->sql, db, &q, sql_fmt("SELECT 1 FROM "
				"pg_prepared_xacts WHERE database = %L", template)) < 0
				|| q.fields.n;
			sql_clear(&q);
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
	char *clone = sql_fmt("DATABASE %I", name), *ask[2];
	size_t i, k;

	ask[0] = sql_fmt(settings, clone, clone, template);
	ask[1] = sql_fmt(grants, clone, template, clone, template);
	for (k = 0; k < 2 && db->open && !pg->w->cancelled; k++) {
		sql_do(&pg->sql, db, &r, ask[k]);
		for (i = 0; db->open && !pg->w->cancelled && i < r.fields.n; i++)
			if (sql_do(&pg->sql, db, &one, r.fields.v[i]) < 0)
				buf_fmt(notes, "- not copied from the template: %s: %s\n",
					r.fields.v[i], one.message.s);
	}
	sql_clear(&one);
	sql_clear(&r);
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

	if (sql_do(&pg->sql, db, r, sql_fmt("SELECT pg_get_userbyid(datdba) "
		"FROM pg_database WHERE datname = %L", from)) < 0)
		return -1;
	if (r->fields.n == 0)
		return sql_error(r, "3D000", str("database \"%s\" does not exist", from));
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
	if (failed && r->error->trouble == SQL_IN_USE)
		end_sessions(pg, o, copy ? copy : template, true, notes);
	sql_clear(&unlocked);
	return failed;
}

/* Ends the session that still creates a database, which DROP would not see. */
static void
end_creation(struct pg *pg, const struct opts *o, const char *name)
{
	char *statement = sql_fmt("SELECT pg_terminate_backend(pid) "
		"FROM pg_stat_activity WHERE state = 'active' AND position(%L in query) = 1",
		sql_fmt("CREATE DATABASE %I ", name));
	struct reply r = { 0 };
	int tries;

	for (tries = 0; tries < 100; tries++) {
		if (pg_insist(pg, o, &r, statement) < 0 || r.fields.n == 0)
			break;
		wait_ms(pg, 50);
	}
	sql_clear(&r);
}

/* Drops what pytest-django and Django's own runner have made of a clone and left:
 * test_NAME, test_NAME_gw1, test_NAME_1. */
static void
drop_derived(struct pg *pg, const struct opts *o, const char *name)
{
	struct reply r = { 0 }, one = { 0 };
	size_t i;

	pg_insist(pg, o, &r, sql_fmt("SELECT "
		"format('DROP DATABASE IF EXISTS %%I WITH (FORCE)', datname) "
		"FROM pg_database WHERE pg_has_role(datdba, 'USAGE') AND datname ~ %L",
		str("^test_%s(_(gw)?[0-9]+)?$", name)));
	for (i = 0; i < r.fields.n; i++)
		pg_insist(pg, o, &one, r.fields.v[i]);  /* the sweep finds what stays */
	sql_clear(&one);
	sql_clear(&r);
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
	if (pg_insist(pg, o, r, sql_fmt("DROP DATABASE IF EXISTS %I WITH (FORCE)", name)) == 0)
		return 0;
	if (r->error->trouble == SQL_LOST || r->error->trouble == SQL_IN_USE)
		return -1;
	if (r->error->trouble == SQL_SYNTAX)                /* before 13 */
		end_sessions(pg, o, name, false, notes);
	if (r->error->trouble == SQL_IS_TEMPLATE)
		pg_insist(pg, o, r, sql_fmt("ALTER DATABASE %I IS_TEMPLATE false", name));
	return pg_insist(pg, o, r, sql_fmt("DROP DATABASE IF EXISTS %I", name));
}

/* The clones of this template that are ours to drop: name, run, comment, whether
 * somebody uses it, size, and the age of what was kept. */
static const char clones[] =
	"SELECT datname, "
	"substring(datname from '_[sw][0-9]+_([0-9a-z]{8})(?:r[0-9]+)?(?:_(?:gw)?[0-9]+)?$'), "
	"c, "
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
	if (sql_do(&pg->sql, db, &r, sql_fmt(clones, url_stem(o->db),
		sql_fmt("AND datname = %L", f[C_NAME]))) < 0 || r.fields.n != C_FIELDS)
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
	sql_clear(&r);
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
			buf_fmt(notes, "- %s: not dropped, its run is in progress\n",
				f[C_NAME]);
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
	sql_clear(&r);
}

/* Looks for clones of dead runs; name: only for this one. */
static void
sweep(struct pg *pg, struct session *db, const struct opts *o, enum sweep how, const char *name,
	struct buf *notes)
{
	struct reply r = { 0 };
	size_t i;

	if (sql_do(&pg->sql, db, &r, sql_fmt(clones, url_stem(o->db),
		name ? sql_fmt("AND datname = %L", name) : "")) < 0)
		buf_fmt(notes, "- cannot look for leftovers of other runs: %s\n", r.message.s);
	for (i = 0; i + C_FIELDS <= r.fields.n && db->open && !pg->w->cancelled; i += C_FIELDS)
		sweep_one(pg, db, o, r.fields.v + i, how, notes);
	if (how >= CLEAN && r.fields.n == 0 && !r.error)
		buf_fmt(notes, "- %s has no clones to drop\n", url_template(o->db));
	sql_clear(&r);
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
	pg->sql.w = w;
	pg->sql.dir = p->dir;
	pg->plan = p;
	pg->sql.answer_ms = ANSWER_MS;
	return pg;
}

void
pg_close(struct pg *pg)
{
	struct session *db;

	while ((db = pg->sessions)) {
		pg->sessions = db->next;
		sql_close(&pg->sql, db);
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
		pg_drop(pg, pg->copies[i].o, pg->copies[i].name, "", environ, notes);
	for (i = 0; i < pg->nleftovers; i++) {
		l = &pg->leftovers[i];
		proc_pause(pg->w, l->when + SWEEP_MS);
		if (pg->w->cancelled)
			break;
		db = session(pg, l->o, &r, true);
		if (db)
			sweep(pg, db, l->o, DROP, l->name, notes);
	}
	sql_clear(&r);
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
		sql_clear(&r);
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
		sql_clear(&r);
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
	if (pg_insist(pg, o, &r, sql_fmt("COMMENT ON DATABASE %I IS %L", name,
		str("prun keep %s %s", when, file))) < 0)
		buf_fmt(notes, "- %s could not be marked as kept, so the next run will drop "
			"it: %s\n", name, r.message.s);
	sql_clear(&r);
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
	if (failed && r->error->trouble == SQL_IN_USE)
		end_sessions(pg, o, url_template(o->db), true, notes);
	sql_clear(&unlocked);
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
	if (begin && !o->db_admin && !sql_libpq() && strstr(o->db, "pgbouncer=true"))
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
	sql_clear(&r);
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
	sql_clear(&r);
	return db && !pg->undropped ? 0 : -1;
}

int
pg_used(struct pg *pg, const struct opts *o, const char *name)
{
	char *now = sql_fmt("SELECT 1 FROM pg_stat_activity WHERE datname = %L "
		"AND coalesce(backend_type, 'client backend') = 'client backend'", name);
	char *ever = sql_fmt("SELECT 1 FROM pg_stat_database "
		"WHERE datname = %L AND sessions > 0", name);
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
	sql_clear(&r);
	if (used)
		return 1;
	return pg->unbroken && !pg->w->cancelled ? 0 : -1;
}

void
pg_sessions(struct pg *pg, const struct opts *o, const char *name, struct buf *b)
{
	char *statement = sql_fmt("SELECT concat_ws(', ', 'pid ' || pid, 'user ' || usename, "
		"nullif(application_name, ''), state, "
		"'waits for ' || wait_event_type || ' ' || wait_event, 'blocked by ' || "
		"nullif(array_to_string(pg_blocking_pids(pid), ' '), ''), "
		"'for ' || date_trunc('second', now() - coalesce(query_start, "
		"backend_start))), query FROM pg_stat_activity WHERE datname = %L "
		"ORDER BY backend_start", name);
	struct reply r = { 0 };
	size_t i;

	if (!is_postgres(o))
		return;
	pg->sql.answer_ms = 2000;
	if (pg_insist(pg, o, &r, statement) < 0)
		buf_fmt(b, "its database %s cannot be asked: %s\n", name, r.message.s);
	else
		buf_fmt(b, "and these sessions of its database %s:\n", name);
	for (i = 0; i + 1 < r.fields.n; i += 2)
		buf_fmt(b, "%s\n\t%s\n", r.fields.v[i],
			shown(r.fields.v[i + 1]));
	pg->sql.answer_ms = ANSWER_MS;
	sql_clear(&r);
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
	if (db && sql_do(&pg->sql, db, &r, sql_fmt("SELECT 1 FROM pg_database "
		"WHERE datname = %L", name)) == 0)
		gone = r.fields.n == 0;
	sql_clear(&r);
	return gone;
}

bool
pg_crowded(const struct pg *pg)
{
	return pg->crowded;
}
