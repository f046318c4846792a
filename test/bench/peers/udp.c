/* Echo of datagrams, one at a time: recvfrom, sendto. */
#include "peer.h"

int main(int argc, char **argv)
{
	static char buf[65536];
	const int fd = peer_listen(argc, argv, 0);

	for (;;) {
		struct sockaddr_storage from;
		socklen_t len = sizeof(from);
		const ssize_t n = recvfrom(fd, buf, sizeof(buf), 0,
					   (struct sockaddr *)&from, &len);

		if (n >= 0)
			sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from,
			       len);
	}
}
