/*
 * Signals of the process, while ss_run runs: taken, told of, given back.
 *
 * A handler stops every server (ss_shutdown is made for that) or notes what
 * was asked and has the loops turn; run_look does the rest on the serving
 * thread.  A process that was forked from this one has nothing to say.
 */
#include "internal.h"

enum { LEAVE_MS = 1 };

static const struct signal {
	int number;
	unsigned asks;
} known[] = {
	{ SIGTERM, RUN_STOP },
	{ SIGINT, RUN_STOP },
	{ SIGHUP, RUN_RELOAD },
	{ SIGUSR2, RUN_RESTART },
};

enum { SIGNALS = sizeof(known) / sizeof(*known) };

static struct {
	atomic_bool taken;
	_Atomic(struct run *) run;
	atomic_int inside; /* handlers that may have loaded `run` */
	unsigned minded;   /* enum run_ask */
	struct sigaction old[SIGNALS];
	sigset_t old_mask;
} signals;

static void ask(struct run *run, unsigned what)
{
	if (run->pid != sys_getpid())
		return;
	atomic_fetch_or(&run->asked, what);
	for (int i = 0; i < run->count; i++) {
		if (what == RUN_STOP)
			ss_shutdown(run->servers[i]);
		else
			ss_turn_now(run->servers[i]);
	}
}

static void on_signal(int number)
{
	int error = errno;
	atomic_fetch_add(&signals.inside, 1);
	struct run *run = atomic_load(&signals.run);
	for (int i = 0; run && i < SIGNALS; i++)
		if (known[i].number == number)
			ask(run, known[i].asks);
	atomic_fetch_sub(&signals.inside, 1);
	errno = error;
}

static bool minds(int i)
{
	return signals.minded & known[i].asks;
}

int signals_take(struct run *run, unsigned minded)
{
	if (atomic_exchange(&signals.taken, true))
		return -EBUSY;
	struct sigaction action = { .sa_handler = on_signal,
				    .sa_flags = SA_RESTART };
	sigset_t mask;
	sigemptyset(&action.sa_mask);
	sigemptyset(&mask);
	signals.minded = minded;
	atomic_store(&signals.run, run);
	for (int i = 0; i < SIGNALS; i++) {
		if (!minds(i))
			continue;
		sigaddset(&mask, known[i].number);
		sys_sigaction(known[i].number, &action, &signals.old[i]);
	}
	sys_pthread_sigmask(SIG_UNBLOCK, &mask, &signals.old_mask);
	return 0;
}

void signals_reset(void)
{
	for (int i = 0; i < SIGNALS; i++)
		if (minds(i))
			sys_sigaction(known[i].number, &signals.old[i], NULL);
	sys_pthread_sigmask(SIG_SETMASK, &signals.old_mask, NULL);
}

void signals_give_back(void)
{
	signals_reset();
	atomic_store(&signals.run, NULL);
	/* Another thread may be in the handler. */
	while (atomic_load(&signals.inside))
		sys_poll(NULL, 0, LEAVE_MS);
	atomic_store(&signals.taken, false);
}
