/*
 * What the suites share: servers in a process or a thread of their own,
 * clients with deadlines, the tables of models and transports, a tape that
 * every process writes to, and counts of what must not leak.
 *
 * Everything fails the test by ck_assert, never by hanging: each wait is
 * bounded by WAIT_MS.
 */
#ifndef SS_TEST_SUPPORT_H
#define SS_TEST_SUPPORT_H

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <socketserver/socketserver.h>

#include "../lib/sys.h"
#include "stack.h"

/* SOON_MS: at once, on a machine that has much else to do. */
enum { WAIT_MS = 5000, SOON_MS = 3000 };

/* How often a race is tried: 200 times, or 10,000 where SS_LONG is set. */
int rounds(int quick);

/* A part of a suite: each test with that fixture, if any, and for 20 s. */
TCase *suite_case(Suite *suite, const char *name, void (*set_up)(void),
		  void (*tear_down)(void));

/* The thread sanitizer's own thread begins with the first of ours: for suites
 * that count them, before any test does. */
void begin_threads(void);

/* ---- every model, every transport -----------------------------------------*/

struct model {
	const char *name;	 /* for -m of echo_server, but for the last */
	struct ss_use mixins[3]; /* none: sync */
	int at_once; /* requests served at a time, at least; 0: any number */
};
extern const struct model models[];
extern const int model_count;
extern const int plain_count; /* so many, the first, are echo_server's too */

struct transport {
	const char *name;
	const struct ss_layer *layer;
	bool stream;
};
extern const struct transport transports[];
extern const int transport_count;

/* Requests are served on the serving loop, one after another. */
bool model_sync(const struct model *model);
bool model_has(const struct model *model, const struct ss_layer *mixin);
/* Its workers serve: the program cannot turn it, or serve a descriptor. */
bool model_supervised(const struct model *model);
/* As ss_server_describe has it: "threading > tcp > base", with the stack
 * (stack.h) before it. */
const char *model_described(const struct model *model,
			    const struct transport *transport);
/* Puts a layer before, or behind, the mixins that are there. */
void use_first(struct ss_config *config, const struct ss_layer *layer,
	       const void *options);
void use_last(struct ss_config *config, const struct ss_layer *layer,
	      const void *options);
/* Gives the options to a mixin, if it is there. */
void use_options(struct ss_config *config, const struct ss_layer *layer,
		 const void *options);
/* Appends the model's mixins. */
void use_model(struct ss_config *config, const struct model *model);

/* A fresh address of that transport: port 0 of a loopback address that no other
 * process uses, or a path in scratch(). */
const char *fresh_address(const struct transport *transport);

/* A private directory, removed when the test's process ends well. */
const char *scratch(void);

/* Whether the serving thread itself runs the requests. */
bool on_serving_thread(const struct model *model,
		       const struct transport *transport);

/* The configuration of one model over one transport. */
struct ss_config config_of(const struct model *model,
			   const struct transport *transport,
			   const struct ss_handler *handler);

/* ---- a server in a process of its own -------------------------------------*/

struct node {
	pid_t pid;
	int lines; /* what it tells: its URLs, then anything by node_tell */
	char url[SS_ADDRESS_TEXT];
};

/*
 * Forks a process that makes this server, serves until SIGTERM, closes, frees,
 * and exits: 0 if its descriptors and threads are back to where they were,
 * 3 if not, 4 if requests were abandoned.  Returns once it accepts clients.
 */
void node_start(struct node *node, const struct ss_config *config);
/* The same, with another body than ss_serve_forever. */
void node_run(struct node *node, const struct ss_config *config,
	      int (*body)(struct ss_server *server));
/* Asks it to stop, waits, returns its exit status (128 + signal if killed). */
int node_stop(struct node *node);
int node_wait(struct node *node);

/* ---- a server in a thread of this process ---------------------------------*/

struct served {
	struct ss_server *server;
	pthread_t thread;
	char url[SS_ADDRESS_TEXT];
	int result; /* of serve_forever */
};
void served_start(struct served *served, const struct ss_config *config);
/* Shuts down, joins, closes, frees; each must succeed. */
void served_stop(struct served *served);

/* Serves one request in a thread of its own, however often somebody else is
 * just having a turn; `served` is the argument. */
void *serve_one_request(void *served);
/* Until a client waits at the first listener, for who has little time then. */
void await_client(struct ss_server *server);

/* A server that must be made, and one that must be refused with this code and
 * a text that has `part` in it. */
struct ss_server *made(const struct ss_config *config);
void refused(const struct ss_config *config, int code, const char *part);

/* ---- clients --------------------------------------------------------------*/

/* A connected socket; for unixgram bound too, so that replies find it. */
int dial(const char *url);
/* Whether others could connect to a wildcard address: its tests are left out.
 * Not where loopback is all there is, as in the network that test/main.c makes
 * for root. */
bool exposed(void);
/* -errno where that fails. */
int try_dial(const char *url);
void send_text(int fd, const char *text);
void send_bytes(int fd, const void *data, size_t n);
/* Reads exactly this text. */
void expect_text(int fd, const char *text);
/* Reads exactly n bytes. */
void expect_bytes(int fd, void *buf, size_t n);
/* End of file, or for datagrams nothing within 100 ms. */
void expect_end(int fd);
/* One datagram or what there is; -EAGAIN: nothing within ms. */
ssize_t recv_within(int fd, void *buf, size_t n, int ms);
/* Sends, reads the same back, for streams or datagrams. */
void echo_once(const char *url, const char *text);

/* ---- a tape in shared memory ----------------------------------------------*/

enum { TAPE_LINES = 4096, TAPE_TEXT = 60 };
struct tape {
	atomic_int count;
	struct {
		atomic_bool whole;
		pid_t pid;
		char text[TAPE_TEXT];
	} line[TAPE_LINES];
};
struct tape *tape_new(void);
void tape_note(struct tape *tape, const char *fmt, ...) SS_PRINTF(2, 3);
/* For struct ss_trace_options. */
void tape_tell(void *tape, struct ss_server *server, uint64_t id,
	       const char *operation);
/* Waits until there are that many lines. */
void tape_wait(struct tape *tape, int lines);
/* All of it as "a b c", in a static buffer. */
const char *tape_text(struct tape *tape);
/* Only the lines of one process, or of all others (pid < 0). */
const char *tape_text_of(struct tape *tape, pid_t pid);
int tape_find(struct tape *tape, const char *text); /* index or -1 */

/* ---- what must come back --------------------------------------------------*/

int open_descriptors(void);
int threads(void);
bool threads_back(int running); /* to as many as were running, in a second */
int children(void);
int children_of(pid_t pid); /* zombies among them */
size_t heap_in_use(void);   /* 0: the C library does not tell */
int64_t clock_ms(void);
void pause_ms(int ms);
/* Waits until the condition holds; it is not asked again once it did. */
#define eventually(condition)                                                  \
	do {                                                                   \
		int64_t until_ = clock_ms() + WAIT_MS;                         \
		for (bool late_ = false; !(condition); pause_ms(2)) {          \
			ck_assert_msg(!late_, "never: %s", #condition);        \
			late_ = clock_ms() >= until_;                          \
		}                                                              \
	} while (0)

/*
 * A clock for the library of this process and those it forks from here, which
 * between begin and end goes ten times slower: what then happens within WAIT_MS
 * was not brought on by a time-out of more than half a second.
 */
void slow_clock_install(void);
void slow_clock_begin(void);
void slow_clock_end(void);

/* A line of the log that tells of the machine, not of the test: where much else
 * goes on a fiber that hardly runs has kept its loop. */
bool log_of_a_busy_machine(const char *text);

/* A program that is on this machine. */
bool have(const char *program);
/* Or it is not, and says so: then a test has nothing to do. */
bool missing(const char *program);

#endif
