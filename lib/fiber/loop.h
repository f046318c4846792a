/*
 * One loop of fibers: who runs next, on which stack, and what wakes those that
 * wait.  A loop belongs to one thread; only fiber_loop_post is for others.
 *
 * A request has a stack while its handler runs or waits within a call.  Before
 * its client's first byte, and between messages for handlers that return
 * SS_AGAIN, it waits without one.
 */
#ifndef SS_LIB_FIBER_LOOP_H
#define SS_LIB_FIBER_LOOP_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include <socketserver/layers.h>

#include "context.h"
#include "offload.h"
#include "stacks.h"
#include "timers.h"

enum task_state {
	TASK_NEW,    /* not in its loop yet */
	TASK_ASIDE,  /* waits without a stack */
	TASK_QUEUED, /* is about to be given one */
	TASK_FIBER,  /* has one */
	TASK_REPLY,  /* has had one: its reply is left */
};

enum task_mail { MAIL_NONE, MAIL_POSTED, MAIL_REFUSED };

/* A request's own: few bytes, since there may be a million. */
struct task {
	union {
		struct fiber *fiber;	 /* TASK_FIBER */
		struct ss_request *next; /* TASK_QUEUED */
	};
	int timer;	     /* its place among the timers */
	atomic_uchar loop;   /* 1 + whose it is; 0: nobody's yet */
	unsigned char state; /* enum task_state */
	atomic_uchar mail;   /* enum task_mail */
};

/* Lies at the top of its stack. */
struct fiber {
	struct context context;
	struct fiber_loop *loop;
	struct ss_request *req;
	struct task *task;
	struct fiber *next; /* about to run */
	void *base;	    /* of its stack */
	int64_t deadline;   /* of the wait it is in; SS_NONE */
	bool parked;
	bool woken; /* on its way out of that wait */
};

struct fiber_list {
	struct fiber *first, **last;
};

struct request_queue {
	struct ss_request *first, *last;
};

enum { LOOPS_MAX = 254 };

struct fiber_loop {
	int number; /* from 1 on */
	struct ss_server *server;
	size_t task_offset; /* from a request to its task */
	struct ss_poller *poller;
	struct stacks *stacks;
	struct timers timers;
	struct context context; /* the loop's own */
	struct fiber *current;
	struct fiber *done; /* has just ended: its stack is free */
	char *spare;	    /* a stack, warm, for the next to start */
	struct fiber_list ready;
	struct request_queue starting;
	struct ss_request *round; /* those of them whose turn it is */
	int64_t turn_began;	  /* debug: when who runs began to */
	int64_t starved_until;	  /* no memory for a stack; 0 */
	stack_t alternate; /* from where an overflow is told; of ss_sp NULL it
			      is not */
	struct ss_request *replies[SS_REPLIES_MAX];
	int reply_count;
	int64_t replied_at; /* when there were enough of them, or it was late */

	/* For other threads. */
	pthread_mutex_t lock;
	struct ss_request **mail; /* to be looked at: a ring; lock */
	int mail_first, mail_count, mail_room;
	struct job *finished; /* what was offloaded; lock */
	atomic_bool has_mail;
	atomic_int load; /* requests that are its */
	bool own_thread;
	atomic_bool stopping;
	bool running; /* its thread was started, and not joined */
	pthread_t thread;
	int wake[2]; /* with a thread of its own */
	struct ss_watch wake_watch;
};

/* poller NULL: it gets one of its own, and a wake pipe.  -errno. */
int fiber_loop_init(struct fiber_loop *loop, int number,
		    struct ss_server *server, struct ss_poller *poller,
		    const struct ss_fiber_options *options);
void fiber_loop_fini(struct fiber_loop *loop);

/* Its thread's body, until fiber_loop_stop. */
void fiber_loop_run(struct fiber_loop *loop);
void fiber_loop_stop(struct fiber_loop *loop);

/* Takes a new request.  The loop's own thread, which serves.  -ENOMEM: it is
 * not taken. */
int fiber_loop_take(struct fiber_loop *loop, struct ss_request *req);
/* The same where the serving thread is another one. */
int fiber_loop_hand(struct fiber_loop *loop, struct ss_request *req);
/* Any thread, of a request that is the loop's and has not ended: what it waits
 * for is to be looked at again. */
void fiber_loop_post(struct fiber_loop *loop, struct ss_request *req);
/* A helper thread: what the job's owner, a fiber, has waited for. */
void fiber_loop_finish(struct fiber_loop *loop, struct job *job);
/* The request has ended. */
void fiber_loop_leave(struct fiber_loop *loop, struct ss_request *req);

/*
 * Within a fiber: sleeps until the deadline (SS_NONE) or fiber_wake.  False:
 * there is no memory to wait with.
 */
bool fiber_park(struct fiber *fiber, int64_t deadline);
void fiber_wake(struct fiber *fiber);
/* Lets the others that are ready run first. */
void fiber_yield(struct fiber *fiber);

/* Asks whoever knows of a stream without a descriptor. */
bool fiber_source_readable(struct ss_server *server, struct ss_request *req,
			   struct ss_source *source);

static inline struct task *fiber_task(const struct fiber_loop *loop,
				      const struct ss_request *req)
{
	return (struct task *)((char *)req + loop->task_offset);
}

#endif
