/*
 * Echo with a thread per connection, blocking: detached, on small stacks, so
 * that glibc keeps them for the next connection instead of mapping new ones.
 */
#include "peer.h"

#include <pthread.h>

#define STACK_SIZE (64 * 1024)

static void *serve(void *arg)
{
	peer_echo((int)(intptr_t)arg);
	return NULL;
}

int main(int argc, char **argv)
{
	const int listener = peer_listen(argc, argv, 0);
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	for (;;) {
		const int fd = peer_accept(listener);

		if (pthread_create(&thread, &attr, serve,
				   (void *)(intptr_t)fd) != 0)
			close(fd);
	}
}
