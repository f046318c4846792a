/*
 * Leaks planted into a server, for the soak test to find: preloaded, with
 * SOAK_LEAK one of memory (100 bytes for each client or datagram), descriptors
 * and threads (one for each hundred).
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BYTES = 100, SELDOM = 100 };

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void leak(void)
{
	static atomic_int clients;
	const char *what = getenv("SOAK_LEAK");
	if (!what)
		return;
	if (!strcmp(what, "memory")) {
		char *volatile bytes = malloc(BYTES);
		if (bytes)
			bytes[0] = 1;
	}
	if (++clients % SELDOM)
		return;
	pthread_t thread;
	if (!strcmp(what, "descriptors"))
		fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	if (!strcmp(what, "threads"))
		pthread_create(&thread, NULL, idle, NULL);
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
	int (*next)(int, struct sockaddr *, socklen_t *, int);
	*(void **)&next = dlsym(RTLD_NEXT, "accept4");
	int client = next(fd, address, size, flags);
	if (client != -1)
		leak();
	return client;
}

int recvmmsg(int fd, struct mmsghdr *packets, unsigned n, int flags,
	     struct timespec *timeout)
{
	int (*next)(int, struct mmsghdr *, unsigned, int, struct timespec *);
	*(void **)&next = dlsym(RTLD_NEXT, "recvmmsg");
	int count = next(fd, packets, n, flags, timeout);
	for (int i = 0; i < count; i++)
		leak();
	return count;
}
