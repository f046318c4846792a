/* Echo with a process per connection; SIGCHLD reaps. */
#include "peer.h"

#include <sys/wait.h>

static void reap(int sig)
{
	const int saved = errno;

	(void)sig;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	errno = saved;
}

int main(int argc, char **argv)
{
	const int listener = peer_listen(argc, argv, 0);

	peer_on_signal(SIGCHLD, reap);
	for (;;) {
		const int fd = peer_accept(listener);

		if (fork() == 0) {
			close(listener);
			peer_echo(fd);
			_exit(0);
		}
		close(fd);
	}
}
