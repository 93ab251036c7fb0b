/*
 * pg.c: databases.  Each attempt gets a clone of the suite's template.
 *
 * A worker has one session with a server for its life (sql.c).  It holds the
 * run's advisory lock, shared: a later run drops only clones whose run it has
 * found without a lock twice, five seconds apart.  While a clone is in use its
 * session is watched, and opened again.
 *
 * A CREATE DATABASE that is no longer wanted loses its connection; whoever
 * drops the clone first ends what still creates it.
 */
#include "prun.h"

#define CLASS_RUN 1886549358    /* advisory locks: "prun", with the run's id, */
#define CLASS_TEMPLATE 1886549359       /* and with the template's hash */
#define SWEEP_MS 5000           /* between the two looks for leftovers */

struct pg {
	struct worker *w;
	const struct plan *plan;
	struct session *sessions;
	/* what pg_begin() was told; db is NULL where it is not PostgreSQL's */
	const struct opts *o;
	const char *name, *dir;
	struct buf *notes;
	struct session *db;
	bool unbroken;          /* the session has lived since the clone was made */
	int64_t cloned_at;
	struct list noted;      /* clones that a first look found without a living run */
	int64_t noted_at;
};

/* ---- sessions ---- */

void
pg_begin(struct pg *pg, const struct opts *o, const char *name, const char *dir,
	struct buf *notes)
{
	pg->o = o;
	pg->name = name;
	pg->dir = dir;
	pg->notes = notes;
	pg->db = NULL;
	if (!o->db || o->db_clone || url_kind(o->db) == URL_FILE)
		return;
	const char *url = o->db_admin ? o->db_admin : o->db, *base = url_param(url, "dbname");
	/* A session on the template would be in the way of its clones. */
	if (!base || !strcmp(base, url_template(o->db)))
		base = "postgres";
	url = url_admin(url, base, "");
	pg->db = pg->sessions;
	while (pg->db && strcmp(pg->db->url, url))
		pg->db = pg->db->next;
	if (!pg->db) {
		pg->db = xcalloc(1, sizeof(*pg->db));
		*pg->db = (struct session){ .w = pg->w, .url = xstrdup(url),
			.next = pg->sessions };
		pg->sessions = pg->db;
	}
}

/* Calls an advisory lock function; the key is a run's id without its check. */
static struct reply
lock_run(struct pg *pg, const char *function, const char *run)
{
	return sql_do(pg->db, str("SELECT pg_%s(%d, %" PRId64 ")", function, CLASS_RUN,
		(int64_t)strtoll(str("%.5s", run), NULL, 36)));
}

/* Opens the session and locks, if need be. */
static struct reply
attach(struct pg *pg, bool heed)
{
	if (pg->db->open)
		return (struct reply){ 0 };
	pg->unbroken = false;
	struct reply r = sql_open(pg->db, heed);
	return r.trouble ? r : lock_run(pg, "advisory_lock_shared", pg->plan->id);
}

/* Does a statement that may be done twice, on another session if one is lost,
 * and later if that may help.  Without PostgreSQL the reply is empty. */
static struct reply
ask(struct pg *pg, const char *statement)
{
	int64_t watch_at = pg->w->watch_at;
	struct reply r = { 0 };

	pg->w->watch_at = NEVER;        /* it would talk in between */
	for (int tries = 0; pg->db; tries++) {
		r = attach(pg, false);
		if (!r.trouble)
			r = sql_do(pg->db, statement);
		if (r.trouble < SQL_NOT_YET || tries == 5 || pg->w->cancelled)
			break;
		proc_pause(pg->w, proc_clock(pg->w) + (100 << tries));
	}
	pg->w->watch_at = watch_at;
	return r;
}

/* Looks after the session of a clone that is in use: another run drops the
 * clone if it is without our lock for five seconds. */
static void
watch(void *arg)
{
	struct pg *pg = arg;
	size_t mark = scratch_mark();

	pg->w->watch_at = NEVER;
	if (pg->db->open)
		sql_do(pg->db, "SELECT 1");
	attach(pg, true);
	pg->w->watch_at = proc_clock(pg->w) + (pg->db->open ? 800 : 200);
	scratch_release(mark);
}

/* Locks or unlocks the template; another run's setup may take long. */
static struct reply
lock_template(struct pg *pg, const char *function)
{
	/* The key must be a positive int4. */
	sql_send(pg->db, str("SELECT pg_advisory_%s(%d, %" PRIu32 ")", function, CLASS_TEMPLATE,
		hash(HASH_BEGIN, url_template(pg->o->db)) & 0x7fffffff));
	struct reply r = sql_reply(pg->db, proc_clock(pg->w) + 1000, true);
	if (r.trouble == SQL_LATE) {
		proc_tell(pg->w, &(struct news){ .type = NEWS_PHASE, .phase = WAITING });
		r = sql_reply(pg->db, NEVER, true);
	}
	return r;
}

/* ---- the recipe ---- */

/* Who a session is, in words; the clients' on a database, which follows. */
#define WHO "concat_ws(', ', 'pid ' || pid, 'user ' || usename, " \
	"nullif(application_name, ''), host(client_addr))"
#define CLIENTS "coalesce(backend_type, 'client backend') = 'client backend' AND datname = "

/* What went wrong, or NULL. */
static const char *
explain(struct reply r, const char *what)
{
	return r.trouble ? str("%s: %s%s", what, r.message, r.advice) : NULL;
}

/* Ends the sessions on a database that we may end, or only names them all. */
static void
end_sessions(struct pg *pg, const char *name, bool only_name)
{
	static const char may_end[] = "(pg_has_role(usesysid, 'USAGE') "
		"OR pg_has_role('pg_signal_backend', 'USAGE')) AND (NOT rolsuper OR "
		"current_setting('is_superuser')::bool)";
	struct session second = { .w = pg->w, .url = pg->db->url };
	struct reply r = sql_open(&second, false);

	/* Without the filter one autovacuum worker makes the query fail; it is
	 * NULL for sessions of roles that are not ours, which have a user. */
	if (!r.trouble)
		r = sql_do(&second, sql_fmt("SELECT " WHO ", CASE WHEN %s THEN "
			"pg_terminate_backend(pid) END FROM pg_stat_activity "
			"JOIN pg_roles u ON u.oid = usesysid WHERE " CLIENTS "%L "
			"AND pid <> pg_backend_pid()", only_name ? "false" : may_end, name));
	if (r.trouble)
		buf_fmt(pg->notes, "- cannot end the sessions on %s: %s\n", name, r.message);
	for (size_t i = 0; i + 1 < r.n; i += 2)
		if (only_name || *r.v[i + 1] == 't')
			buf_fmt(pg->notes, "- %s session on %s: %s\n",
				only_name ? "there is a" : "ended a", name, r.v[i]);
	sql_close(&second);
}

/* Statements for the template's owner and settings, which CREATE does not copy,
 * and for its privileges, where they are not those that a new database has. */
static const char settings[] =
	"WITH d AS (SELECT *, %L AS clone FROM pg_database WHERE datname = %L) "
	"SELECT format('ALTER %%s OWNER TO %%I', clone, pg_get_userbyid(datdba)) "
	"FROM d WHERE pg_get_userbyid(datdba) <> current_user UNION ALL "
	"SELECT format('ALTER %%s SET %%I = %%s', CASE WHEN setrole = 0 THEN clone "
	"ELSE format('ROLE %%I IN %%s', rolname, clone) END, k, CASE WHEN k IN ("
	"'search_path', 'temp_tablespaces', 'local_preload_libraries', "
	"'session_preload_libraries', 'shared_preload_libraries') AND v NOT IN ('', '\"\"') "
	"THEN v ELSE quote_literal(replace(v, '\"\"', '')) END) FROM pg_db_role_setting s "
	"JOIN d ON d.oid = setdatabase LEFT JOIN pg_roles u ON u.oid = setrole, "
	"unnest(setconfig) c, split_part(c, '=', 1) k, substr(c, length(k) + 2) v UNION ALL "
	"SELECT 'REVOKE ALL ON ' || clone || ' FROM PUBLIC' FROM d "
	"WHERE datacl IS NOT NULL UNION ALL "
	"SELECT format('GRANT %%s ON %%s TO %%s%%s', privilege_type, clone, CASE grantee "
	"WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, "
	"CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) "
	"FROM d, aclexplode(datacl)";

/* Creates name as a copy of from, for its owner where that may be.  CREATE
 * waits five seconds for the sessions on the template; meanwhile they are ended
 * from aside, since whoever reconnects then waits for CREATE. */
static struct reply
copy_database(struct pg *pg, const char *from, const char *name)
{
	static const char *const words[] = { "", " STRATEGY wal_log", " STRATEGY file_copy" };
	int strategy = pg->o->db_strategy;

	if (strategy == STRATEGY_AUTO && pg->db->reflinks)
		strategy = STRATEGY_FILE_COPY;
	sql_send(pg->db, sql_fmt("CREATE DATABASE %I TEMPLATE %I%s", name, from,
		pg->db->version < 150000 ? "" : words[strategy]));
	struct reply r = sql_reply(pg->db, proc_clock(pg->w) + 250, true);
	if (r.trouble == SQL_LATE) {
		if (pg->o->db_terminate)
			end_sessions(pg, from, false);
		r = sql_reply(pg->db, NEVER, true);
	}
	if (r.trouble == SQL_IN_USE)
		end_sessions(pg, from, true);
	if (r.trouble)
		return r;
	r = sql_do(pg->db, sql_fmt(settings, sql_fmt("DATABASE %I", name), from));
	for (size_t i = 0; i < r.n; i++) {
		struct reply one = sql_do(pg->db, r.v[i]);
		if (one.trouble)
			buf_fmt(pg->notes, "- not copied from the template: %s: %s\n", r.v[i],
				one.message);
	}
	return r;
}

/* The run's copy of the template as the setup has left it, the same for all
 * suites with this setup and template; NULL where there is no setup. */
static char *
copy_name(const struct pg *pg)
{
	if (!pg->db || !pg->o->setup)
		return NULL;
	return str("%s_s%" PRIu32 "_%s", url_stem(pg->o->db), hash(hash(HASH_BEGIN,
		pg->o->setup), pg->o->db) % 1000000, pg->plan->id);
}

/* Clones the run's own copy, or the template while no setup may change it. */
static struct reply
clone_postgres(struct pg *pg)
{
	char *copy = copy_name(pg);
	struct reply r = attach(pg, true);

	if (!r.trouble && !copy)
		r = lock_template(pg, "lock_shared");
	if (r.trouble)
		return r;
	r = copy_database(pg, copy ? copy : url_template(pg->o->db), pg->name);
	if (!copy)
		lock_template(pg, "unlock_shared");
	pg->unbroken = pg->db->open;
	pg->cloned_at = proc_clock(pg->w);
	return r;
}

/* Drops a clone and what pytest-django and Django's own runner have made of it
 * and left: test_NAME, test_NAME_gw1, test_NAME_1.  Prepared transactions and
 * subscriptions must not be touched. */
static struct reply
drop_clone(struct pg *pg, const char *name)
{
	/* First ends a session that still creates it, which DROP ignores. */
	char *end_creation = sql_fmt("SELECT pg_terminate_backend(pid), pg_sleep(0.05) "
		"FROM pg_stat_activity WHERE state = 'active' AND position(%L in query) = 1",
		sql_fmt("CREATE DATABASE %I ", name));
	struct reply r = { .n = 1 };

	for (int tries = 0; r.n && tries < 100; tries++)
		r = ask(pg, end_creation);
	struct reply all = ask(pg, sql_fmt("SELECT datname FROM pg_database WHERE datname = %L "
		"OR (datname ~ %L AND pg_has_role(datdba, 'USAGE'))", name,
		str("^test_%s(_(gw)?[0-9]+)?$", name)));
	r = all;
	for (size_t i = 0; i < all.n; i++) {
		struct reply one = ask(pg, sql_fmt("DROP DATABASE IF EXISTS %I WITH (FORCE)",
			all.v[i]));
		/* It is marked as a template, or we may not end a session. */
		if (one.trouble == SQL_FORBIDDEN) {
			ask(pg, sql_fmt("ALTER DATABASE %I IS_TEMPLATE false", all.v[i]));
			one = ask(pg, sql_fmt("DROP DATABASE IF EXISTS %I", all.v[i]));
		}
		r = one.trouble ? one : r;
	}
	return r;
}

/* ---- what dead runs left ---- */

/* NOTE is the first look and DROP the second; CLEAN and LIST are for --clean,
 * to which kept clones are leftovers, too. */
enum sweep { NOTE, DROP, CLEAN, LIST };

/* The clones of this template that are ours to drop: name, run, why it stays if
 * it is in use; in words why it is there, its size, and if kept, its age. */
static const char clones[] =
	"SELECT datname, run, (SELECT max('it is in use') FROM pg_stat_activity a "
	"WHERE a.datid = d.oid), "
	"concat_ws(', ', coalesce('kept for ' || substring(c from '^prun keep \\S+ (.*)'), "
	"'left by a dead run'), pg_size_pretty(pg_database_size(d.oid)), "
	"date_trunc('minute', now() - substring(c from '^prun keep "
	"([0-9]{4}-[0-9-]{5}T[0-9:]{8}Z) ')::timestamptz) || ' old') "
	"FROM (SELECT *, coalesce(shobj_description(oid, 'pg_database'), '') AS c, "
	"substring(datname from '^(?:test_)?' || %L || '_[sw][0-9]+_([0-9a-z]{8})"
	"(?:r[0-9]+)?(?:_(?:gw)?[0-9]+)?$') AS run FROM pg_database) d WHERE run IS NOT NULL "
	"AND pg_has_role(current_user, datdba, 'USAGE') %s %s ORDER BY datname";
enum { C_NAME, C_RUN, C_STAYS, C_WORDS, C_FIELDS };

/* Looks for clones whose run holds no lock, that nobody uses, and that are not
 * marked as kept.  Says what it does about them; -1 where one stays. */
static int
sweep(struct pg *pg, enum sweep how)
{
	const char *stem = url_stem(pg->o->db);
	const char *kept = how < CLEAN ? "AND c NOT LIKE 'prun keep%'" : "";
	struct reply all = ask(pg, sql_fmt(clones, stem, kept, ""));

	if (all.trouble)
		buf_fmt(pg->notes, "- cannot look for leftovers of other runs: %s\n",
			all.message);
	int failed = all.trouble ? -1 : 0;
	for (char **f = all.v; f < all.v + all.n && !pg->w->cancelled; f += C_FIELDS) {
		char *name = str("%s (%s)", *f, f[C_WORDS]);
		/* A user's own database may be named so, without a valid id. */
		if (!id_valid(f[C_RUN]) || (how == DROP && find_word(
		(const char *const *)pg->noted.v, pg->noted.n, *f) == pg->noted.n))
			continue;
		struct reply r = lock_run(pg, "try_advisory_lock", f[C_RUN]);
		bool locked = r.n && *r.v[0] == 't';
		/* Since we looked, it may have been kept, or put to use. */
		if (locked)
			r = ask(pg, sql_fmt(clones, stem, kept,
				sql_fmt("AND datname = %L", *f)));
		if (r.n && (!locked || *r.v[C_STAYS])) {
			if (how >= CLEAN)
				buf_fmt(pg->notes, "- %s: not dropped, %s\n", *f,
					locked ? r.v[C_STAYS] : "its run is in progress");
		} else if (r.n && how == LIST) {
			buf_fmt(pg->notes, "- %s\n", name);
		} else if (r.n && how == NOTE) {
			list_add(&pg->noted, *f);
			pg->noted_at = proc_clock(pg->w);
		} else if (r.n) {
			r = drop_clone(pg, *f);
			if (!r.trouble)
				buf_fmt(pg->notes, "- dropped %s\n", name);
		}
		if (locked)
			lock_run(pg, "advisory_unlock", f[C_RUN]);
		if (r.trouble) {
			buf_fmt(pg->notes, "- cannot drop %s: %s\n", name, r.message);
			failed = -1;
		}
	}
	return failed;
}

/* ---- files, and commands for anything else ---- */

/* Runs cp, db-clone or db-drop (out is NULL); what they say goes to db.log in
 * the attempt's directory.  NULL, or what went wrong. */
static const char *
run_command(struct pg *pg, const char *what, char **argv, char **env, const char *out)
{
	int64_t deadline = out ? NEVER : proc_clock(pg->w) + 60000;
	char *log = str("%s/db.log", pg->dir);
	struct spawn s = { .argv = argv, .env = env, .log = log };
	struct stat st;

	/* A command may print a password. */
	close_keep(open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	s.out = open(out ? out : log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	const char *why = s.out < 0 ? strerror(errno)
		: proc_run(pg->w, &s, deadline, out != NULL, pg->o->grace_ms, pg->notes);
	close_keep(s.out);
	if (!why && stat(log, &st) == 0 && st.st_size == 0)
		unlink(log);    /* nothing to show; if it cannot go, it is shown empty */
	return why ? str("%s failed, see %s (%s)", what, log, why) : NULL;
}

static const char *
clone_file(struct pg *pg, char **env)
{
	static const char *const sides[] = { "-wal", "-journal" };
	/* Of a symlink cp -R would copy the link. */
	char *from = url_file(pg->o->db), *real = real_path(from);
	char *argv[] = { "cp", "-R", "--", real,
		url_clone_file(pg->o->db, pg->name, pg->dir), NULL };
	struct stat st;

	if (!real)
		return str("cannot clone %s: %s; create it, or let setup create it", from,
			strerror(errno));
	for (size_t i = 0; i < LEN(sides); i++) {
		char *side = str("%s%s", real, sides[i]);
		if (stat(side, &st) == 0 && st.st_size > 0)
			return str("cannot clone %s: %s is not empty, so the database is "
				"open or was not closed; close it, or let setup close it",
				from, side);
	}
	return run_command(pg, str("cannot clone %s: cp -R", from), argv, env, "/dev/null");
}

/* Runs db-clone; its last line is *url.  An empty db.out marks the clone. */
static const char *
run_db_clone(struct pg *pg, char **env, char **url)
{
	char *what = str("db-clone: %s", pg->o->db_clone), *out = str("%s/db.out", pg->dir);
	const char *why = run_command(pg, what, proc_argv(pg->o->db_clone, NULL), env, out);

	if (why)
		return why;
	char *line = file_tail(out, 1);
	if (truncate(out, 0) < 0)       /* only env has its password */
		unlink(out);
	*url = next_line(&line);
	return *url ? NULL : str("%s printed no URL", what);
}

/* ---- what workers ask for ---- */

struct pg *
pg_open(struct worker *w, const struct plan *p)
{
	struct pg *pg = xcalloc(1, sizeof(*pg));

	*pg = (struct pg){ .w = w, .plan = p };
	return pg;
}

bool
pg_waits(const struct pg *pg)
{
	return !pg->w->cancelled && pg->noted.n && proc_clock(pg->w) < pg->noted_at + SWEEP_MS;
}

void
pg_end(struct pg *pg, struct buf *notes)
{
	if (pg->noted.n)
		proc_pause(pg->w, pg->noted_at + SWEEP_MS);
	for (size_t i = 0; i < pg->plan->nsuites; i++) {
		pg_begin(pg, &pg->plan->suites[i].o, NULL, NULL, notes);
		pg->name = copy_name(pg);
		if (!pg->db || !pg->db->version)
			continue;
		if (pg->name && pg->w->slot == 0)
			pg_drop(pg, NULL);
		if (pg->noted.n && !pg->w->cancelled)
			sweep(pg, DROP);
	}
	for (struct session *db = pg->sessions; db; db = db->next)
		sql_close(db);          /* the memory goes with the process */
}

const char *
pg_clone(struct pg *pg, char **env, char **url, enum trouble *trouble)
{
	const char *why = NULL;

	*trouble = SQL_FINE;
	if (pg->o->db_clone)
		return run_db_clone(pg, env, url);
	if (!pg->db)
		why = clone_file(pg, env);
	for (int tries = 0; pg->db; tries++) {
		struct reply r = clone_postgres(pg);
		*trouble = r.trouble;
		if (!r.trouble)
			break;
		/* Where it is crowded, it is for another worker. */
		int most = r.trouble == SQL_CROWDED
			&& (pg->plan->workers > 1 || pg->plan->o.ahead) ? 1 : 3;
		bool again = r.trouble >= SQL_PASSING && tries < most;
		if (again)
			proc_pause(pg->w, proc_clock(pg->w) + (500 << tries));
		if (!again || pg->w->cancelled)
			return explain(r, str("cannot clone database %s",
				url_template(pg->o->db)));
		/* The answer was lost, or the name is taken: drop that. */
		if (pg->db->version)
			pg_drop(pg, env);
	}
	if (why)
		return why;
	*url = url_clone(pg->o->db, pg->name, pg->dir);
	pg->w->watch = pg->db ? watch : NULL;
	pg->w->watched = pg;
	pg->w->watch_at = proc_clock(pg->w) + 500;
	return NULL;
}

int
pg_drop(struct pg *pg, char **env)
{
	const char *why = NULL;

	pg->w->watch = NULL;
	if (pg->db) {
		why = explain(drop_clone(pg, pg->name), "cannot drop database");
	} else if (!pg->o->db_clone) {
		if (remove_tree(url_clone_file(pg->o->db, pg->name, pg->dir)) < 0)
			why = str("cannot remove it: %s", strerror(errno));
	} else if (pg->o->db_drop) {
		why = run_command(pg, str("db-drop: %s", pg->o->db_drop),
			proc_argv(pg->o->db_drop, NULL), env, NULL);
	}
	if (why)
		buf_fmt(pg->notes, "- %s (%s was not dropped)\n", why, pg->name);
	else if (pg->o->db_clone)
		unlink(str("%s/db.out", pg->dir));
	return why ? -1 : 0;
}

void
pg_keep(struct pg *pg, const char *file)
{
	pg->w->watch = NULL;
	struct reply r = ask(pg, sql_fmt("COMMENT ON DATABASE %I IS %L", pg->name,
		str("prun keep %s %s", pg->plan->started, file)));
	if (r.trouble)
		buf_fmt(pg->notes, "- %s could not be marked as kept, so the next run will "
			"drop it: %s\n", pg->name, r.message);
}

const char *
pg_setup(struct pg *pg, bool begin)
{
	char *copy = copy_name(pg);

	if (!pg->db)
		return NULL;
	/* psql does not tell what would show it. */
	if (begin && !pg->o->db_admin && !sql_libpq() && strstr(pg->o->db, "pgbouncer=true"))
		buf_str(pg->notes, "- db goes through pgbouncer, and locks do not work with "
			"transaction pooling: set db-admin to the server's own URL\n");
	struct reply r = ask(pg, "SELECT 1");
	if (!r.trouble && begin)
		sweep(pg, NOTE);
	/* Exclusive, so that no other run clones what setup is changing. */
	if (!r.trouble && begin && copy)
		r = lock_template(pg, "lock");
	if (r.trouble || begin)
		return explain(r, "the database server");
	/* So that no other run's setup changes it under this run. */
	r = copy_database(pg, url_template(pg->o->db), copy);
	lock_template(pg, "unlock");
	return explain(r, str("cannot copy database %s", url_template(pg->o->db)));
}

const char *
pg_clean(struct pg *pg, const char *suite, bool list)
{
	/* Runs db-drop for what db-clone has made in run directories. */
	static const char script[] =
		"for run; do for o in \"$run\"/*/db.out; do (dir=${o%%/*}\n"
		"[ -e \"$o\" ] && . \"$dir/env\" && [ \"$PRUN_SUITE\" = '%s' ] || exit 0\n"
		"db=\"$PRUN_DB (of $PRUN_FILE)\"\n"
		"if %s; then echo \"- $db\"; exit; fi\n"
		"(%s\n) >>\"$dir/db.log\" 2>&1 && rm \"$o\" && echo \"- dropped $db\" && exit\n"
		"echo \"- cannot drop $db: db-drop failed, see $dir/db.log\"; exit 1\n"
		") || status=1; done; done; exit ${status-0}";
	char *out = str("%s/db.out", pg->dir);
	struct reply r = pg->db ? attach(pg, true) : (struct reply){ 0 };

	if (r.trouble)
		return explain(r, "the database server");
	if (pg->db)
		return sweep(pg, list ? LIST : CLEAN) < 0 ? "" : NULL;
	if (!pg->o->db_clone)
		return NULL;            /* a file is in its run directory */
	char *command = str(script, suite, list ? "true" : "false",
		pg->o->db_drop ? pg->o->db_drop : ":");
	const char *why = run_command(pg, "db-drop", proc_argv(command, &pg->plan->paths),
		environ, out);
	buf_read(pg->notes, out);
	return why ? "" : NULL;         /* the notes say more */
}

void
pg_strangers(struct pg *pg)
{
	struct reply r = ask(pg, sql_fmt("SELECT " WHO " FROM pg_stat_activity WHERE " CLIENTS
		"%L AND backend_start > now() - %s * interval '1 ms'", url_template(pg->o->db),
		str("%" PRId64, proc_clock(pg->w) - pg->cloned_at)));

	for (size_t i = 0; i < r.n; i++)
		buf_fmt(pg->notes, "- a session on the template %s began during the attempt: "
			"%s\n", url_template(pg->o->db), r.v[i]);
}

int
pg_used(struct pg *pg)
{
	struct reply r = { 0 };

	if (!pg->db || pg->db->version < 140000)
		return -1;
	/* Before 15 a session that has gone is counted a while later. */
	int most = pg->db->version < 150000 ? 20 : 2;
	for (int tries = 0; !r.n && pg->unbroken && tries < most; tries++) {
		if (tries && most > 2)
			proc_pause(pg->w, proc_clock(pg->w) + 50);
		r = ask(pg, sql_fmt("SELECT 1 FROM pg_stat_database WHERE datname = %L "
			"AND sessions > 0 UNION ALL SELECT 1 FROM pg_stat_activity WHERE "
			CLIENTS "%L", pg->name, pg->name));
	}
	/* After a crash of the server its figures begin anew. */
	return pg->unbroken && !r.trouble && (r.n || !pg->w->cancelled) ? r.n > 0 : -1;
}

int
pg_room(struct pg *pg)
{
	struct reply r = ask(pg, sql_fmt("SELECT current_setting('max_connections')::int "
		"* 7 / 10 / (1 + count(*)) FROM pg_stat_activity WHERE datname = %L",
		pg->name));

	return r.n ? atoi(r.v[0]) : 0;
}

void
pg_sessions(struct pg *pg, struct buf *b)
{
	struct reply r = ask(pg, sql_fmt("SELECT concat_ws(', ', " WHO ", state, "
		"'waits for ' || wait_event_type || ' ' || wait_event, 'blocked by ' || "
		"nullif(array_to_string(pg_blocking_pids(pid), ' '), ''), "
		"'for ' || date_trunc('second', now() - coalesce(query_start, "
		"backend_start))), query FROM pg_stat_activity WHERE datname = %L "
		"ORDER BY backend_start", pg->name));

	if (r.trouble)
		buf_fmt(b, "its database %s cannot be asked: %s\n", pg->name, r.message);
	else if (r.n)
		buf_fmt(b, "and these sessions of its database %s:\n", pg->name);
	for (size_t i = 0; i + 1 < r.n; i += 2)
		buf_fmt(b, "%s\n\t%s\n", r.v[i], shown(r.v[i + 1]));
}

bool
pg_gone(struct pg *pg, const char *url)
{
	if (pg->o->db_clone)
		return false;           /* of those nobody knows */
	if (!pg->db)
		return access(url_file(url ? url : ""), F_OK) < 0;
	struct reply r = ask(pg, sql_fmt("SELECT 1 FROM pg_database WHERE datname = %L",
		pg->name));
	return !r.trouble && r.n == 0;
}
