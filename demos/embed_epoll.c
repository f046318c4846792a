/*
 * A server inside an epoll(7) loop of one's own, beside a timer and signals,
 * which are descriptors too.
 *
 *	embed_epoll -m fiber	tells once a second how many clients there are;
 *				elsewhere: echo_client
 */
#include "embed.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

struct host {
	struct embed embed;
	int epoll, timer, signals;
};

static int watch(const struct host *host, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	return epoll_ctl(host->epoll, EPOLL_CTL_ADD, fd, &event);
}

static int open_host(struct host *host)
{
	int ms = host->embed.tick_ms;
	const struct timespec tick = { ms / 1000, ms % 1000 * 1000000L };
	const struct itimerspec every = { tick, tick };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	host->epoll = epoll_create1(EPOLL_CLOEXEC);
	host->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	host->signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (host->epoll == -1 || host->timer == -1 || host->signals == -1 ||
	    timerfd_settime(host->timer, 0, &every, NULL) == -1 ||
	    watch(host, host->timer) == -1 ||
	    watch(host, host->signals) == -1 ||
	    watch(host, ss_server_pollfd(host->embed.server)) == -1)
		return -errno;
	return 0;
}

/* The server's own descriptor needs but a turn. */
static void look_at(const struct host *host, int fd)
{
	struct signalfd_siginfo signal;
	uint64_t ticks;

	if (fd == host->timer && read(fd, &ticks, sizeof(ticks)) > 0)
		embed_tick(&host->embed);
	if (fd == host->signals && read(fd, &signal, sizeof(signal)) > 0)
		ss_shutdown(host->embed.server);
}

/* A turn costs little where there is nothing to do. */
static int run(const struct host *host)
{
	struct epoll_event events[8];
	int n, r = 0;

	while (r >= 0) {
		n = epoll_wait(host->epoll, events, 8,
			       embed_wait_ms(&host->embed));
		if (n == -1 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++)
			look_at(host, events[i].data.fd);
		r = ss_server_turn(host->embed.server, 0);
	}
	return r;
}

static void close_host(const struct host *host)
{
	const int fds[] = { host->signals, host->timer, host->epoll };

	for (int i = 0; i < 3; i++)
		if (fds[i] != -1)
			close(fds[i]);
}

int main(int argc, char *argv[])
{
	struct host host = { .epoll = -1, .timer = -1, .signals = -1 };
	int status = embed_open(&host.embed, "embed_epoll", argc, argv);

	if (status != EXIT_SUCCESS)
		return status;
	int r = open_host(&host);

	if (r == 0)
		r = run(&host);
	close_host(&host);
	return embed_close(&host.embed, r);
}
