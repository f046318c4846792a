/*
 * Crowds: while clients wait to be taken, or for their threads to begin, who
 * has been served before makes way, but not for long.
 *
 * The library's clock stands still an hour ahead, so that nobody who holds back
 * goes on by himself, and none does in vain because the machine is slow.
 */
#include "support.h"

#include <semaphore.h>

enum { CROWD = 4, PHASE_MS = 50, FREE_READS = 2, SILENCE_MS = 40 };
enum { CROWD_MS = 20 * PHASE_MS, HOUR_MS = 3600 * 1000 };

static struct sys_table real;
static struct served served;
static int old; /* a client who was there before the crowd */
static int crowd[CROWD];

/* ---- what is held up ------------------------------------------------------*/

static sem_t door;	   /* the serving thread goes on, */
static sem_t start;	   /* a thread begins */
static atomic_int to_take; /* accepts until it does not; < 0: it may */
static atomic_int at_door; /* it waits */
static atomic_int accepts; /* that have returned */
static atomic_int reads;   /* that have begun */
static atomic_bool no_thread;
static atomic_llong clock_at;

static void pass(sem_t *sem)
{
	while (sem_wait(sem) == -1 && errno == EINTR)
		;
}

static int guarded_accept(int fd, struct sockaddr *sa, socklen_t *len,
			  int flags)
{
	if (atomic_fetch_sub(&to_take, 1) == 0) {
		atomic_fetch_add(&at_door, 1);
		pass(&door);
	}
	int r = real.accept(fd, sa, len, flags), error = errno;
	atomic_fetch_add(&accepts, 1);
	errno = error;
	return r;
}

static ssize_t counted_recv(int fd, void *buf, size_t n, int flags)
{
	atomic_fetch_add(&reads, 1);
	return real.recv(fd, buf, n, flags);
}

static int64_t stopped_clock(void)
{
	return atomic_load(&clock_at);
}

struct late {
	void *(*run)(void *);
	void *arg;
};

static void *begin_late(void *arg)
{
	struct late late = *(struct late *)arg;
	free(arg);
	pass(&start);
	return late.run(late.arg);
}

static int late_create(pthread_t *thread, const pthread_attr_t *attr,
		       void *(*run)(void *), void *arg)
{
	if (atomic_load(&no_thread))
		return EAGAIN;
	struct late *late = malloc(sizeof(*late));
	*late = (struct late){ run, arg };
	return real.pthread_create(thread, attr, begin_late, late);
}

/* ---- a server and its clients ---------------------------------------------*/

static void set_up(void)
{
	stack_without(&ss_proxy_mixin); /* whose reads count, too */
	real = sys_table;
	sem_init(&door, 0, 0);
	sem_init(&start, 0, 0);
	atomic_store(&to_take, -1);
	atomic_store(&at_door, 0);
	atomic_store(&accepts, 0);
	atomic_store(&reads, 0);
	atomic_store(&no_thread, false);
	atomic_store(&clock_at, real.now_ms() + HOUR_MS);
	sys_table.accept = guarded_accept;
	sys_table.recv = counted_recv;
	sys_table.now_ms = stopped_clock;
}

static void tear_down(void)
{
	sys_table = real;
}

static int echo(struct ss_request *req)
{
	char line[16];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n > 0)
		n = ss_write(req, line, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static int echo_on(struct ss_request *req)
{
	int r;
	while ((r = echo(req)) == SS_AGAIN)
		;
	return r;
}

static const struct ss_handler handlers[] = {
	{ .name = "echo", .handle = echo },
	{ .name = "echo_on", .handle = echo_on },
};

/* A balancer's word comes before the client's. */
static const struct ss_layer headed;
static atomic_int heads; /* that were read */

static int hd_finish_request(struct ss_server *server, struct ss_request *req)
{
	char line[16];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	atomic_fetch_add(&heads, 1);
	return n < 0 ? (int)n
		     : ss_super(server, &headed)->finish_request(server, req);
}

static const struct ss_layer headed = {
	.name = "headed",
	.ops = { .finish_request = hd_finish_request },
};

static void talk(int fd)
{
	send_text(fd, "hi\n");
	expect_text(fd, "hi\n");
}

static void expect_silence(int fd)
{
	char byte;
	ck_assert_int_eq(recv_within(fd, &byte, 1, SILENCE_MS), -EAGAIN);
}

static void serve_config(const struct ss_config *config, const char *head)
{
	served_start(&served, config);
	old = dial(served.url);
	send_text(old, head);
	talk(old);
}

static void serve(const struct ss_layer *mixin,
		  const struct ss_handler *handler, int max_active)
{
	struct ss_config config = {
		.addresses = { "127.0.0.1:0" },
		.transport = &ss_tcp_server,
		.mixins = { { mixin, NULL } },
		.handler = handler,
		.max_active = max_active,
		.log_level = SS_NONE,
	};
	serve_config(&config, "");
	eventually(atomic_load(&reads) == 2);
	/* The serving thread has seen that there is nobody else. */
	eventually(atomic_load(&accepts) == 2);
}

/* They all wait at the door when the serving thread looks. */
static void gather(void)
{
	ss_hold(served.server, SS_HOLD_USER);
	for (int i = 0; i < CROWD; i++)
		crowd[i] = dial(served.url);
}

/* The serving thread takes them, and would look for more. */
static void let_in(void)
{
	gather();
	atomic_store(&to_take, CROWD);
	ss_release(served.server, SS_HOLD_USER);
	eventually(atomic_load(&at_door) == 1);
}

/* Who waits in read has one message to come, and then those that are free. */
static void use_up(int fd)
{
	for (int i = 0; i < 1 + FREE_READS; i++)
		talk(fd);
}

static void expect_held(int fd)
{
	send_text(fd, "held\n");
	expect_silence(fd);
}

static void leave(void)
{
	for (int i = 0; i < CROWD; i++)
		close(crowd[i]);
	close(old);
	served_stop(&served);
}

/* ---- tests ----------------------------------------------------------------*/

START_TEST(crowd_goes_first)
{
	serve(&ss_threading_mixin, &handlers[_i], 0);
	let_in();
	use_up(old);
	expect_held(old);
	/* A message, and then its end, is what most have to say. */
	for (int i = 0; i < CROWD; i++)
		for (int n = 0; n < FREE_READS; n++)
			talk(crowd[i]);
	sem_post(&door);
	expect_text(old, "held\n");
	for (int i = 0; i < 10; i++)
		talk(old);
	leave();
}
END_TEST

/* What says who they are is none of what they have to say. */
START_TEST(crowd_goes_first_behind_a_balancer)
{
	struct ss_config config = {
		.addresses = { "127.0.0.1:0" },
		.mixins = { { &headed, NULL }, { &ss_threading_mixin, NULL } },
		.handler = &handlers[0],
	};
	atomic_store(&heads, 0);
	serve_config(&config, "head\n");
	eventually(atomic_load(&accepts) == 2);
	let_in();
	for (int i = 0; i < CROWD; i++) {
		send_text(crowd[i], "head\n");
		eventually(atomic_load(&heads) == 2 + i);
		for (int n = 0; n < FREE_READS; n++)
			talk(crowd[i]);
	}
	sem_post(&door);
	leave();
}
END_TEST

START_TEST(crowd_lasts_until_its_threads_have_begun)
{
	serve(&ss_threading_mixin, &handlers[0], 0);
	sys_table.pthread_create = late_create;
	let_in();
	sem_post(&door);
	use_up(old);
	expect_held(old);
	for (int i = 0; i < CROWD; i++)
		sem_post(&start);
	expect_text(old, "held\n");
	leave();
}
END_TEST

START_TEST(crowd_without_threads_is_none)
{
	serve(&ss_threading_mixin, &handlers[0], 0);
	sys_table.pthread_create = late_create;
	atomic_store(&no_thread, true);
	let_in();
	sem_post(&door);
	for (int i = 0; i < CROWD; i++)
		expect_end(crowd[i]);
	use_up(old);
	talk(old);
	leave();
}
END_TEST

START_TEST(crowd_has_every_other_moment)
{
	serve(&ss_threading_mixin, &handlers[0], 0);
	let_in();
	atomic_fetch_add(&clock_at, PHASE_MS);
	for (int i = 0; i < 10; i++)
		talk(old);
	sem_post(&door);
	leave();
}
END_TEST

/* Whoever drives the loop may have other things to do. */
START_TEST(crowd_ends_where_nobody_takes_it)
{
	serve(&ss_threading_mixin, &handlers[0], 0);
	let_in();
	atomic_fetch_add(&clock_at, CROWD_MS);
	use_up(old);
	talk(old);
	atomic_fetch_sub(&clock_at, CROWD_MS);
	for (int i = 0; i < 10; i++)
		talk(old);
	sem_post(&door);
	leave();
}
END_TEST

START_TEST(crowd_holds_nobody_for_long)
{
	serve(&ss_threading_mixin, &handlers[0], 0);
	sys_table.now_ms = real.now_ms;
	let_in();
	for (int i = 0; i < 20; i++)
		talk(old);
	sem_post(&door);
	leave();
}
END_TEST

START_TEST(crowd_at_a_full_gate_holds_nobody)
{
	serve(&ss_threading_mixin, &handlers[0], CROWD);
	gather();
	ss_release(served.server, SS_HOLD_USER);
	for (int i = 0; i < CROWD - 1; i++)
		talk(crowd[i]);
	for (int i = 0; i < 10; i++)
		talk(old);
	expect_held(crowd[CROWD - 1]);
	close(old);
	expect_text(crowd[CROWD - 1], "held\n");
	old = dial(served.url);
	leave();
}
END_TEST

/* Those who are taken may wait there for those who hold back. */
START_TEST(crowd_in_a_pool_holds_nobody)
{
	serve(&ss_pool_mixin, &handlers[0], 0);
	let_in();
	for (int i = 0; i < 10; i++)
		talk(old);
	sem_post(&door);
	leave();
}
END_TEST

Suite *t_crowd(void)
{
	Suite *suite = suite_create("t_crowd");
	TCase *tcase = suite_case(suite, "crowd", set_up, tear_down);
	tcase_add_loop_test(tcase, crowd_goes_first, 0, 2);
	tcase_add_test(tcase, crowd_goes_first_behind_a_balancer);
	tcase_add_test(tcase, crowd_lasts_until_its_threads_have_begun);
	tcase_add_test(tcase, crowd_without_threads_is_none);
	tcase_add_test(tcase, crowd_has_every_other_moment);
	tcase_add_test(tcase, crowd_ends_where_nobody_takes_it);
	tcase_add_test(tcase, crowd_holds_nobody_for_long);
	tcase_add_test(tcase, crowd_at_a_full_gate_holds_nobody);
	tcase_add_test(tcase, crowd_in_a_pool_holds_nobody);
	return suite;
}
