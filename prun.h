/*
 * prun.h: what the rooms promise each other, in the order of the calls: every
 * function is called by rooms above it only (t/24-rooms.t).  It comes first in
 * every file, for it makes libc's names visible.
 *
 * Times are monotonic milliseconds in int64_t unless a name says otherwise.
 * Functions that return int give 0, or -1 with errno set, unless said.
 */
#define _XOPEN_SOURCE 700       /* POSIX.1-2008 with XSI */
/* Elsewhere that hides INADDR_LOOPBACK, _SC_NPROCESSORS_ONLN, SIGWINCH. */
#define _DARWIN_C_SOURCE
#define _NETBSD_SOURCE
#define __EXTENSIONS__          /* illumos */
#if defined(__FreeBSD__) || defined(__DragonFly__)
#define __BSD_VISIBLE 1
#endif

#ifdef __TINYC__
#define __STDC_NO_VLA__ 1       /* else tcc cannot read glibc's regexec() */
#endif

#include <sys/types.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;          /* POSIX leaves it to us */

#define PRUN_VERSION "0.1.0"
#define LEN(a) (sizeof(a) / sizeof((a)[0]))
#define NEVER INT64_MAX         /* a deadline */
/* The bytes of a name in C, Python, the shell. */
#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

#ifdef __GNUC__
#define NORETURN __attribute__((__noreturn__))
#else
#define NORETURN
#endif

/* ---- words ---- */

enum result { PASS, FLAKY, SKIP, NONE, FAIL, TIMEOUT, ERROR, CANCEL, RESULTS };

enum cause {
	CAUSE_NONE, CAUSE_EXIT, CAUSE_SIGNAL, CAUSE_TIMEOUT, CAUSE_LEAK,
	CAUSE_OUTPUT_LIMIT, CAUSE_SERVER_DIED, CAUSE_SERVER_NOT_READY,
	CAUSE_PORT, CAUSE_DATABASE, CAUSE_SPAWN, CAUSE_WORKER_DIED,
	CAUSE_REPORT, CAUSE_CANCELLED, CAUSES
};

enum phase { IDLE, SETUP, WAITING, CLONING, STARTING, PREPARED, TESTING, STOPPING, PHASES };

/* exit statuses of prun */
enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_RUN = 3, EXIT_NO_FILES = 4 };

/* A growing string (base.c): s is NULL, or ends in a NUL beyond n bytes. */
struct buf {
	char *s;
	size_t n, cap, scratch;
};

/* Strings (base.c); v[n] is NULL once something was added. */
struct list {
	char **v;
	size_t n, cap;
};

/* A child that leads a session of its own (proc.c). */
struct proc {
	pid_t pid;              /* 0: none */
	bool ended;             /* the leader is dead, and a zombie still */
	int status;             /* exit status, or -signal */
	bool core;              /* it dumped core */
	bool shell;             /* sh -c: 128 + signal is a signal */
};

/* What runs beside the test. */
struct service {
	char *name, *command;
	const char *title, *ready;
	int port;               /* 0: the first one, or none; then those of ports = */
};

/* Every option's value (conf.c).  Durations in ms, sizes in bytes, -1: none. */
struct opts {
	int64_t jobs, ahead, retries, workers, max_worker_restart;
	int64_t timeout_ms, ready_timeout_ms, grace_ms;
	int64_t log_limit, report_limit;
	int keep, db_unused, db_strategy, split, server_failure, server_exit;
	int timeout_signal, flaky, leak, no_tests, github;
	int64_t audit;          /* rounds; 0: no audit */
	int64_t repeat;         /* copies of each file */
	int64_t fail_fast;      /* failing files that end the run; 0: none does */
	bool list, quiet, verbose, help, version;
	bool last_failed, enabled, db_terminate;
	bool by_worker;         /* a value mentions PRUN_WORKER */
	bool merge, strict, partial, rerun, clean, interactive;
	char *config, *chdir, *junit, *html, *history, *run_dir;
	char *shuffle, *shard, *plan, *reopen;
	char *test, *collect, *server, *setup, *after, *ready;
	char *db, *db_admin, *db_clone, *db_drop;
	struct list suite, files, exclude, db_env, url_env, port_env, env;
	struct list unset, serial, alone, lock, ports, service;
	struct service *services;       /* of a suite, service.n and the server */
};
enum { AHEAD_AUTO = -1 };
enum { STRATEGY_AUTO, STRATEGY_WAL_LOG, STRATEGY_FILE_COPY };
enum { KEEP_FAILED, KEEP_RUN, KEEP_ALWAYS, KEEP_NEVER };
enum { SPLIT_FILE, SPLIT_SUITE, SPLIT_DIR, SPLIT_TEST };

struct suite {
	char *name;             /* "" for the unnamed one */
	struct opts o;          /* what holds in this suite */
	const char *where;      /* "prun.conf:7", or NULL */
	bool pytest;            /* it runs a file of it because nothing else was said */
	bool no_setup;          /* another suite's setup does for this one */
	struct list whole;      /* files whose tests are to be asked for */
};

struct file {
	char *path;             /* PRUN_FILE */
	char *test;             /* PRUN_TEST: path, or path::node */
	struct list more;       /* with split = suite: its paths after this one */
	char *named;            /* test, relative to where the user stands */
	struct suite *suite;
	int index;
	int copy;               /* from 1, with repeat; else 0 */
	int64_t timeout_ms, retries;
	bool alone;
	int *locks;             /* indices into plan.locks */
	size_t nlocks, caplocks;
	int64_t expect_ms;      /* from the history; -1: unknown */
};

/* What is to be run (conf.c, plan.c); nothing of it changes during the run. */
struct plan {
	struct opts o;          /* what holds outside any suite */
	struct suite *suites;
	size_t nsuites, capsuites;
	struct file *files;     /* in suite order, then plan order */
	size_t nfiles, capfiles;
	size_t asked;           /* files; their tests are to be asked for before the run */
	struct list locks;      /* names */
	struct list args;       /* test arguments, after -- */
	struct list paths;      /* of the command line */
	struct list again;      /* its words, less the paths, which go */
	size_t again_at;        /* here among them */
	char *cwd;              /* where the user stands; absolute */
	char *base;             /* where commands run, and what names are relative to */
	char *conf;             /* the prun.conf in use, or NULL */
	uint32_t hash;          /* of the suites' and files' names, and their shards */
	int shard, shards;      /* ours, from 1, of how many */
	size_t all;             /* files in all shards */
	bool incomplete;        /* nothing was found somewhere: see no-tests */
	int64_t median_ms;      /* of what the history knows */
	int workers;            /* how many tests run side by side */
	char id[9];             /* of the run */
	char started[21];       /* when it began, UTC */
	int64_t began;          /* the same by the clock of outcomes */
	char *dir;              /* run directory, absolute */
};

/* One attempt's end, as the worker tells it (work.c). */
struct outcome {
	int file, attempt;      /* attempts count from 1 */
	enum result result;
	enum cause cause;
	int status;             /* of the test: exit status, or -signal */
	bool tested;            /* the test command was started */
	bool report;            /* there is a JUnit report */
	bool kept;              /* its clone was kept */
	bool connected;         /* somebody has connected to the clone */
	bool unused;            /* nobody has; neither: that is not known */
	bool notes;             /* there is a file of notes to read */
	bool fatal;             /* the run cannot go on */
	bool crowded;           /* the database server has no room for this worker */
	int room;               /* for as many such clones, or 0; see pg_room() */
	int service;            /* of the suite's, that died or was not ready */
	int slot;               /* of the worker */
	int64_t begin, ms;
	int64_t began[PHASES];  /* when each phase began, by the clock of begin; 0: never */
	int64_t tests, failed, skipped;
	char why[200];          /* the cause in words, where notes cannot be written */
};

/* What has come of a file so far (run.c). */
struct record {
	struct outcome o;       /* of the last attempt */
	struct outcome *rounds; /* of an audit: of all, alone first */
	int attempts;
	int failed;             /* of them */
	int kept;               /* the last attempt whose clone stays; 0: none */
	bool ended;
};

/* ---- run.c: the run ---- */

struct show;
struct part;
struct reader;
/* Runs the plan's files; the exit status.  *sig: the signal that ended it. */
int run_files(const struct plan *p, struct record *records, struct show *show, int *sig);
/* Says, in audit.txt as well, which files hurt each other. */
void run_audit(const struct plan *p, const struct record *records, struct show *show);

/* ---- work.c: the life of an attempt ---- */

/* A worker's whole life, in the process forked for it. */
void work_run(const struct plan *p, int slot, int orders, int news) NORETURN;

/* ---- plan.c: suites, files, marks, history, shards ---- */

/* First the suites' files; then, for split = test, their tests, which workers
 * have asked for; then history, marks, and the files of this shard. */
void plan_find(struct plan *p);
void plan_collect(struct plan *p);
void plan_make(struct plan *p);
/* The files' order, longest first or shuffled by seed; scratch memory. */
int *plan_order(const struct plan *p, const char *seed);
/* A line of the history; writes such lines, and leaves those of other files. */
char *plan_history_line(int64_t ms, enum result result, const char *suite, const char *test);
void plan_history_write(const struct plan *p, const struct list *fresh);
/* Directory of an attempt; name of its clone, <template>_w<index>_<run>[r<n>],
 * or NULL.  Scratch memory. */
char *plan_dir(const struct plan *p, const struct file *f, int attempt);
char *plan_clone(const struct plan *p, const struct file *f, int attempt);
/* The command that runs f; NULL: f is a program. */
const char *plan_command(const struct file *f);
bool plan_matches(char *const *globs, const char *name);     /* globs: NULL, or ended by it */
/* How messages about a suite begin. */
char *plan_label(const struct suite *s);

/* ---- conf.c: the options ---- */

/* Reads command line, PRUNFLAGS and prun.conf into p; changes to the base. */
void conf_read(struct plan *p, char **argv);
void conf_shard(struct plan *p);
/* What follows dir in path: "" for dir itself; NULL if it is not below dir. */
const char *conf_below(const char *dir, const char *path);
/* A typed path as a name from the base; back; a typed path to be opened. */
char *conf_typed(const struct plan *p, char *path);
char *conf_named(const struct plan *p, char *name);
char *conf_path(const struct plan *p, const char *path);
/* A value as the number that the option key takes. */
int64_t conf_number(const char *key, const char *value, const char *where);
void conf_help(FILE *out);

/* ---- pg.c: databases ---- */

struct worker;
struct pg;                      /* a worker's sessions with database servers */

/* What an error of the server means to us. */
enum trouble {
	SQL_FINE, SQL_OTHER, SQL_FORBIDDEN, SQL_IN_USE, SQL_LATE,
	SQL_PASSING,            /* from here on another try may succeed */
	SQL_NOT_YET, SQL_CROWDED, SQL_LOST
};

struct pg *pg_open(struct worker *w, const struct plan *p);
/* Drops this worker's copies, and what two looks, 5 s apart, found of dead
 * runs; closes all.  Whether it has to wait for the second one. */
void pg_end(struct pg *pg, struct buf *notes);
bool pg_waits(const struct pg *pg);
/* What the functions below are about: a suite's database, the name of its
 * clone, the attempt's directory; notes is told what there is to say. */
void pg_begin(struct pg *pg, const struct opts *o, const char *name, const char *dir,
	struct buf *notes);
/* NULL, or in scratch memory why not:
 * Clones the template; *url is the clone's.  env: for cp, db-clone. */
const char *pg_clone(struct pg *pg, char **env, char **url, enum trouble *trouble);
/* Before setup: notes what dead runs left, and locks the template for the
 * setup; after it: copies it for the run's clones, and unlocks. */
const char *pg_setup(struct pg *pg, bool begin);
/* Lists or drops leftovers and kept clones; "" where the notes say why not. */
const char *pg_clean(struct pg *pg, const char *suite, bool list);
/* Drops a clone, or what there is of it; marks it, so that no run drops it. */
int pg_drop(struct pg *pg, char **env);
void pg_keep(struct pg *pg, const char *file);
/* Notes the sessions on the template that began since the clone was made. */
void pg_strangers(struct pg *pg);
/* Whether anybody but us has connected to the clone; -1: unknown. */
int pg_used(struct pg *pg);
/* How many clones with as many sessions as this one take 70 % of the server's
 * connections; 0: unknown. */
int pg_room(struct pg *pg);
/* Lists the clone's sessions, what they do and who blocks them. */
void pg_sessions(struct pg *pg, struct buf *b);
bool pg_gone(struct pg *pg, const char *url);     /* of a kept clone */

/* ---- sql.c: URLs of databases, and sessions with PostgreSQL ---- */

enum url_kind { URL_PG, URL_DSN, URL_FILE, URL_OTHER };

enum url_kind url_kind(const char *url);
/* What is wrong with a db = URL, or NULL.  url_...() return scratch memory. */
const char *url_check(const char *url);
/* The DSN of another database there, without some parameters: " password ". */
char *url_admin(const char *url, const char *name, const char *less);
/* Adds libpq's variables for a URL, if it is PostgreSQL's: PGHOST=... */
void url_env(const char *url, struct list *env);
/* A parameter ("dbname") or NULL; the template, a database or file; its part of
 * its clones' names, which needs no quoting anywhere. */
char *url_param(const char *url, const char *name);
char *url_template(const char *url);
char *url_file(const char *url);
char *url_stem(const char *url);
/* A clone's path, in the attempt's directory; its URL. */
char *url_clone_file(const char *url, const char *name, const char *dir);
char *url_clone(const char *url, const char *name, const char *dir);
/* The URL as it may be shown: password as ***. */
char *url_masked(const char *url);

/* Scratch memory. */
struct reply {
	enum trouble trouble;
	const char *message, *advice;
	char **v;               /* fields of all rows, row by row */
	size_t n;
};

struct session {
	struct worker *w;
	char *url;              /* what it connects with */
	bool open;
	void *conn;             /* libpq's, or: */
	struct proc psql;
	int in, out;            /* psql's pipes */
	struct buf text;        /* read from psql and not yet used */
	int version;            /* of the server: 150004; 0: it never was open */
	bool reflinks;          /* its file_copy_method is clone (18 and later) */
	struct session *next;
};

bool sql_libpq(void);
/* Opens the session that db->url says.  heed: a cancel ends it. */
struct reply sql_open(struct session *db, bool heed);
void sql_close(struct session *db);     /* never waits */
void sql_send(struct session *db, const char *text);
/* Waits for the reply, which may be late.  A lost session is closed. */
struct reply sql_reply(struct session *db, int64_t deadline, bool heed);
struct reply sql_do(struct session *db, const char *text);
/* Formats SQL: %s as it is, %I an identifier, %L a literal.  Scratch memory. */
char *sql_fmt(const char *fmt, ...);

/* ---- proc.c: sessions, waiting, signals, ports, readiness ---- */

/* Talk between prun and its workers: fixed-size records in pipes. */
enum order_type {
	ORDER_SETUP, ORDER_RUN, ORDER_DROP, ORDER_CANCEL, ORDER_PAUSED, ORDER_GO, ORDER_QUIT
};

struct order {
	enum order_type type;
	int file;               /* SETUP: the suite */
	int64_t attempt;        /* as wide as ms: padding would be written, too */
	int64_t ms;             /* CANCEL: the grace; PAUSED: how long */
};

enum news_type {
	NEWS_PHASE, NEWS_SESSION, NEWS_REAPED, NEWS_OPEN, NEWS_RESULT, NEWS_DONE
};

/* Below PIPE_BUF (512 at least, POSIX): a write is whole or not at all. */
struct news {
	enum news_type type;
	enum phase phase;
	pid_t pid;              /* SESSION, REAPED: of the leader */
	struct outcome o;       /* RESULT; DONE: the cause; why: URL in OPEN */
};

/* Process ids, each once. */
struct pids {
	pid_t *v;
	size_t n, cap;
};

/* The worker's side of the talk, and the sessions it must not lose sight of. */
struct worker {
	int slot;
	int orders, news;       /* pipe ends; orders is -1 once prun is dead */
	bool cancelled;         /* the attempt under way is to end */
	int64_t cancel_by;      /* and by when; all graces end then */
	int64_t paused_ms;      /* how long ^Z has stood still in all */
	bool go;                /* the test of the attempt under way may begin */
	bool ordered;           /* next holds an order not yet taken */
	struct order next;
	struct pids pids;       /* leaders started and not reaped */
	/* Called by proc_wait() when it is time; sets its next time itself. */
	void (*watch)(void *);
	void *watched;
	int64_t watch_at;
};

/* prun's side of it, and what the worker is doing. */
struct slot {
	struct proc worker;
	int orders, news;       /* our ends of the pipes */
	struct pids sessions;   /* announced and not reaped */
	struct order order;     /* SETUP, RUN or DROP: under way unless it is IDLE */
	enum phase phase;
	int64_t since;          /* when the order was given */
	bool parked;            /* the database server has no room for it */
	bool testing;           /* its test was told to begin, and has not ended */
};

/* How a child is started. */
struct spawn {
	char **argv;
	char **env;
	int in, out;            /* in 0: the worker's /dev/null; out 0: the log */
	const char *log;        /* 2 is appended to it; NULL: 2 goes where 1 goes */
	int fd;                 /* one more for the child, as 3; below: none */
	bool terminal;          /* stay in the session; prun's 0 to 2 instead of these */
};

/* How a server tells that it is ready. */
enum ready_kind {
	READY_HTTP, READY_LOG, READY_COMMAND, READY_TCP, READY_FD, READY_NONE, READIES
};

struct readiness {
	struct worker *w;
	struct proc *stack;     /* n of them; the last one is asked */
	size_t n;
	enum ready_kind kind;
	const char *arg;        /* path, expression or command */
	int64_t deadline;
	int port;
	int fd;                 /* read end of PRUN_READY_FD */
	off_t log_from;         /* where the lines of this server begin, not yet read */
	struct spawn server;
};

bool proc_add(struct pids *s, pid_t pid);       /* false: it was there */
void proc_remove(struct pids *s, pid_t pid);
/* The signal mask, descriptors 0 to 2 and those that are not for children. */
void proc_init(void);
/* Has signals caught; whether sig has come since this was last asked. */
void proc_catch(void);
bool proc_caught(int sig);
/* Makes the process a worker's.  terminal: it stays in prun's session. */
void proc_become_worker(const char *log, bool terminal);
/* Waits for a signal, one of fds (with room for two more), an order, which it
 * reads, or the deadline by the worker's clock.  prun has no w. */
void proc_wait(struct worker *w, struct pollfd *fds, size_t n, int64_t deadline);
/* Waits until the deadline or a cancel. */
void proc_pause(struct worker *w, int64_t deadline);
/* Whether the deadline has passed.  Reads orders that are there. */
bool proc_late(struct worker *w, int64_t deadline);
int64_t proc_clock(const struct worker *w);     /* stands still while prun is stopped */
void proc_tell(struct worker *w, const struct news *n);
/* argv of cmd, scratch memory: sh -c where it needs a shell; args are "$@". */
char **proc_argv(const char *cmd, const struct list *args);
/* Starts a session; NULL, or in scratch memory why not. */
const char *proc_start(struct worker *w, struct proc *p, const struct spawn *s);
void proc_take_terminal(void);  /* back, from what was started with it */
/* Whether the leader is dead; fills status.  Leaves the zombie. */
bool proc_ended(struct proc *p);
size_t proc_dead(struct proc *v, size_t n);      /* index of the first such, or n */
/* TERM, up to grace_ms (-1: no limit), KILL; then the session is gone, its
 * leader reaped.  notes: what could not be killed.  patient: it gets the grace
 * where the system does not tell whether it is empty. */
void proc_stop(struct worker *w, struct proc *p, int64_t grace_ms,
	bool patient, struct buf *notes);
/* How many of p's session are left besides the leader, with a line for each in
 * names (may be NULL); reaps the dead.  -1 where the system does not tell. */
int proc_left(struct worker *w, const struct proc *p, struct buf *names);
/* Kills our children but those in keep (or NULL): what left its session, or was
 * a dead worker's.  How many there were.  With names, which gets a line for
 * each, twenty at most, they have 100 ms to end by themselves. */
int proc_drain(const struct pids *keep, struct buf *names);
/* Runs a command to its end, the deadline or (heed) a cancel; NULL, or what
 * went wrong. */
const char *proc_run(struct worker *w, const struct spawn *s, int64_t deadline,
	bool heed, int64_t grace_ms, struct buf *notes);
char *proc_how_ended(const struct proc *p);
int proc_pipe(int fd[2]);       /* no child inherits it */
struct port {
	int number, hold;       /* the socket that holds it; 0: none */
};
/* Holds n free ports; lets them go: one that somebody else listens on, or 0. */
int proc_hold(struct port *p, size_t n);
int proc_release(struct port *p, size_t n);
/* The kind of a ready = value, or READIES; *arg: its path, ERE or command. */
enum ready_kind proc_ready_kind(const char *value, const char **arg);
/* Waits until the last of the stack is ready or one has died; or why not. */
bool proc_ready(struct readiness *r, struct buf *why);

/* ---- show.c: what people and machines read ---- */

/* Writes the plan to results.jsonl. */
struct show *show_open(const struct plan *p, const struct record *records);
/* Reads results.jsonl of a run directory back; files without an end are CANCEL.
 * *records, scratch memory: one for each file.  -1 where it cannot be read. */
int show_read(struct plan *p, struct record **records, const char *dir);
/* When an attempt's phases began, each formatted with its name and seconds. */
char *show_phases(const struct plan *p, const struct outcome *o, const char *fmt,
	const char *between);
/* Prints a line about the run, above the moving lines. */
void show_say(struct show *s, const char *fmt, ...);
/* Reads an attempt's notes, or the line of them in o; the cause in words,
 * scratch memory, or "". */
char *show_why(const char *path, const struct outcome *o, struct buf *notes);
/* An attempt, maybe the file's last, has ended.  url: of the kept database. */
void show_result(struct show *s, const struct file *f, const char *dir, const char *url);
/* Draws the workers' lines if they are due; when next. */
int64_t show_draw(struct show *s, const struct slot *v, int n, bool now);
/* The table and the last lines, and summary.json; status: 128 + a signal. */
void show_end(struct show *s, int status, int64_t ms, const char *report);
/* Writes without waiting; the descriptor to be polled for the rest, or -1. */
int show_write(struct show *s);
/* Takes a property of a suite into the part of its file. */
void show_property(struct part *part, const struct reader *r);
/* Writes a merged report's page and, for GitHub, the summary of the step. */
void show_page(const struct plan *p, const char *report);
/* 0, or why standard output cannot be written: EPIPE if nobody reads. */
int show_error(const struct show *s);

/* ---- junit.c: reports ---- */

struct counts {
	int64_t tests, failures, errors, skipped;
};

/* One file's part of a merged report. */
struct part {
	const char *file;       /* as shown; NULL where only a report is known */
	const char *name;       /* NAME of NAME=PATH, or NULL */
	/* what its suite says of the run */
	const char *suite, *run, *plan, *shard, *started;
	int nth, shards;        /* of shard */
	int worker;
	const char *dir;        /* of the last attempt, where it stays; or NULL */
	const char *phases;     /* name=SECONDS ..., since started; NULL: unknown */
	struct list reports;    /* files or directories, an attempt each */
	struct list logs;       /* test logs, an attempt each; may be absent */
	enum result result;
	enum cause cause;
	const char *why;        /* the cause in words, or NULL */
	int64_t ms;
	int attempts;
	const struct outcome **copies;  /* of repeat: each report's; NULL: attempts */
	size_t capcopies;
	bool synthetic;         /* the result counts, not only the reports */
	const char *input;      /* where it comes from; NULL: this run */
	size_t of, number;      /* a unit: of which part it is which one; see prun.c */
	bool skip;              /* it is not merged */
	bool *replaced;         /* by number, the report's files that a rerun replaces */
	size_t nreplaced;
};

struct merge {
	int64_t limit;          /* report-limit, bytes */
	const char *name;       /* of the testsuites */
	int64_t ms;             /* wall clock; -1: sum of the cases */
};

/* Counts the cases of the reports at path, a file or a directory, and notes
 * those that failed.  How many reports there are, or -1 and why one is bad. */
int junit_count(const char *path, const char *file, struct counts *c, struct buf *notes,
	const char **why);
/* Merges parts into out ("-": standard output), replacing it as a whole. */
int junit_merge(const struct merge *m, const struct part *parts, size_t n,
	const char *out, struct counts *total);

/* ---- xml.c: text, the reader of XML, TAP ---- */

/* Where text goes, cleaned and maybe escaped; its middle is cut at a limit. */
struct sink {
	struct buf b;
	int64_t limit, cut;
	size_t head;            /* bytes before the cut */
	bool escape;            /* < > & CR as references */
	char sequence;          /* state of an escape sequence that began at from */
	size_t from;
};

enum event { START, END, EOD };

/* sink_text() takes whole characters; raw: & is no reference.  b.s is whole
 * after sink_end(). */
void sink_begin(struct sink *t, int64_t limit, bool escape);
void sink_text(struct sink *t, const char *s, size_t n, bool raw);
void sink_end(struct sink *t);
/* Appends s, which is clean, as text or, quoted, as an attribute's value. */
void xml_escape(struct buf *b, const char *s, bool attribute);
void xml_attribute(struct buf *b, const char *name, const char *value);
bool xml_is_file(const char *name);
/* Opens a regular file or /dev/stdin; NULL with errno.  report: only testsuites
 * or testsuite begins it.  Attributes are cut at limit; a file of more than
 * most bytes is broken. */
struct reader *xml_open(const char *path, bool report, int64_t limit, int64_t most);
void xml_close(struct reader *r);
/* Reads to the next tag, the text before it into t (NULL: nowhere); top:
 * outside of all roots. */
enum event xml_next(struct reader *r, bool top, struct sink *t);
/* The tag's name without its prefix; an attribute or ""; the same as a number,
 * and "time" in microseconds, 0 if it is none. */
const char *xml_name(const struct reader *r);
const char *xml_attr(const struct reader *r, const char *name);
int64_t xml_number(const struct reader *r, const char *name);
int64_t xml_time(const struct reader *r);
/* Appends the tag's attributes, less those of the list skip: " name id ". */
void xml_attributes(struct buf *b, const struct reader *r, const char *skip);
/* Notes what is wrong; what was wrong first (scratch), or NULL. */
void xml_breaks(struct reader *r, const char *what);
const char *xml_broken(const struct reader *r);
/* Writes a TAP log's JUnit report to path: 1; 0: it is no TAP; -1: failed. */
int xml_from_tap(const char *log, const char *path, const char *name, int64_t ms);

/* ---- base.c: helpers, and the names of results and causes ---- */

extern const char *const result_name[RESULTS];
extern const char *const cause_name[CAUSES];

/* Warns: "prun: " and the message, with errno's text if it ends in a colon. */
void warn(const char *fmt, ...);
void fatal(int status, const char *fmt, ...) NORETURN;
/* Ends prun for bad input: one line, where ("file:7", "--jobs") first. */
void bad(const char *where, const char *fmt, ...) NORETURN;
/* These never return NULL; xcalloc() zeroes. */
void *grow(void *p, size_t *cap, size_t need, size_t size);
void *xcalloc(size_t n, size_t size);
char *xstrdup(const char *s);
/* Zeroed memory, an empty buffer, a formatted string.  They last until all that
 * came after a mark is released: by a worker after each order. */
void *scratch(size_t n);
struct buf scratch_buf(void);
char *str(const char *fmt, ...);
size_t scratch_mark(void);
void scratch_release(size_t mark);
void buf_add(struct buf *b, const char *s, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_char(struct buf *b, int c);
void buf_fmt(struct buf *b, const char *fmt, ...);
void buf_vfmt(struct buf *b, const char *fmt, va_list ap);
void buf_free(struct buf *b);   /* not of scratch_buf() */
/* s for a screen: controls (but tabs), marks that turn the direction of text,
 * what is no UTF-8 as \xNN or \uNNNN.  shown() is scratch memory. */
void buf_safe(struct buf *b, const char *s, size_t n);
char *shown(const char *s);
/* s in quotes, as JSON and the shell read it. */
void buf_json(struct buf *b, const char *s);
void buf_quote(struct buf *b, const char *s);
/* A file's last lines, made safe, 8 KiB at most, scratch memory; all of it. */
char *file_tail(const char *path, int lines);
int buf_read(struct buf *b, const char *path);
/* Length of the valid UTF-8 character at s, in at most n > 0 bytes; 0: none. */
size_t utf8_len(const char *s, size_t n, unsigned *c);
bool starts(const char *s, const char *prefix);
bool ends(const char *s, const char *suffix);
/* Cuts the next line, less its newline, off *text; NULL when there is none. */
char *next_line(char **text);
size_t find_word(const char *const *words, size_t n, const char *s);    /* or n */
#define HASH_BEGIN 2166136261u
uint32_t hash(uint32_t h, const char *s);       /* FNV-1a, going on from h */
/* Appends a copy of s, or of each of its words. */
void list_add(struct list *l, const char *s);
void list_words(struct list *l, const char *s, const char *blanks);
void list_free(struct list *l);
int64_t clock_ms(void);
int write_all(int fd, const char *s, size_t n);
void close_keep(int fd);        /* keeps errno; -1: nothing */
bool is_special(const char *path);      /* it is there and no regular file */
/* open(2) of a regular file, which never waits; EINVAL for anything else. */
int open_regular(const char *path, int flags);
/* Begins to write path: aside, to be renamed, or ("-", or no regular file) to
 * be copied.  Then path has it all, or (not good) is as it was. */
int file_begin(const char *path, mode_t mode, char **aside);
int file_end(const char *path, int fd, const char *aside, bool good);
int file_write(const char *path, const char *s, size_t n, mode_t mode);
/* realpath(3) in scratch memory; appends the sorted names in a directory. */
char *real_path(const char *path);
int list_dir(struct list *l, const char *path);
/* Removes a file or a directory with all that is in it; EBUSY at a mount. */
int remove_tree(const char *path);
uint64_t random_bits(void);
/* A run's id: five random characters [0-9a-z] and a check of three. */
void id_make(char id[9]);
bool id_valid(const char *id);
