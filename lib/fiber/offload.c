/* Helper threads, and the queue of what they are to do. */
#include "offload.h"

#include <errno.h>
#include <stddef.h>

#include "../thread.h"

enum { THREADS_MAX = 32, IDLE_MS = 1000 };

/* With the lock held: the next job; NULL: time to leave. */
static struct job *next_job(struct helpers *helpers)
{
	int64_t until = sys_now_ms() + IDLE_MS;
	struct timespec at = { .tv_sec = (time_t)(until / 1000),
			       .tv_nsec = (long)(until % 1000) * 1000000 };
	int error = 0;
	helpers->idle++;
	while (!helpers->first && !helpers->closing && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&helpers->wanted, &helpers->lock,
					       &at);
	helpers->idle--;
	struct job *job = helpers->first;
	if (!job)
		return NULL;
	helpers->first = job->next;
	if (!helpers->first)
		helpers->last = &helpers->first;
	return job;
}

static void *help(void *arg)
{
	struct helpers *helpers = arg;
	struct job *job;
	pthread_mutex_lock(&helpers->lock);
	while ((job = next_job(helpers))) {
		pthread_mutex_unlock(&helpers->lock);
		job->result = job->fn(job->arg);
		job->tell(job); /* and it is gone */
		pthread_mutex_lock(&helpers->lock);
	}
	helpers->threads--;
	pthread_cond_signal(&helpers->gone);
	pthread_mutex_unlock(&helpers->lock);
	return NULL;
}

/* With the lock held.  Nobody joins them: their end is counted. */
static int add_thread(struct helpers *helpers)
{
	pthread_t thread;
	int r = thread_create(&thread, 0, help, helpers);
	if (r < 0)
		return r;
	sys_pthread_detach(thread);
	helpers->threads++;
	return 0;
}

int helpers_do(struct helpers *helpers, struct job *job)
{
	int r = 0;
	pthread_mutex_lock(&helpers->lock);
	int queued = 0;
	for (const struct job *j = helpers->first; j; j = j->next)
		queued++;
	if (helpers->idle <= queued && helpers->threads < THREADS_MAX)
		r = add_thread(helpers);
	/* One that is busy will come to it. */
	if (helpers->threads > 0)
		r = 0;
	if (r == 0) {
		job->next = NULL;
		*helpers->last = job;
		helpers->last = &job->next;
		pthread_cond_signal(&helpers->wanted);
	}
	pthread_mutex_unlock(&helpers->lock);
	return r;
}

int helpers_init(struct helpers *helpers)
{
	helpers->last = &helpers->first;
	int r = thread_cond_init(&helpers->wanted);
	if (r < 0)
		return r;
	r = thread_cond_init(&helpers->gone);
	if (r < 0)
		goto no_gone;
	r = -sys_pthread_mutex_init(&helpers->lock, NULL);
	if (r == 0)
		return 0;
	pthread_cond_destroy(&helpers->gone);
no_gone:
	pthread_cond_destroy(&helpers->wanted);
	return r;
}

void helpers_fini(struct helpers *helpers)
{
	pthread_mutex_lock(&helpers->lock);
	helpers->closing = true;
	pthread_cond_broadcast(&helpers->wanted);
	while (helpers->threads > 0)
		pthread_cond_wait(&helpers->gone, &helpers->lock);
	pthread_mutex_unlock(&helpers->lock);
	pthread_mutex_destroy(&helpers->lock);
	pthread_cond_destroy(&helpers->wanted);
	pthread_cond_destroy(&helpers->gone);
}
