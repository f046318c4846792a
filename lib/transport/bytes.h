/*
 * Queues of bytes in memory: they grow at one end and are taken at the other.
 * Or of packets, each of which stands after its size.
 */
#ifndef SS_TRANSPORT_BYTES_H
#define SS_TRANSPORT_BYTES_H

#include <stddef.h>
#include <sys/uio.h>

/* Zeroed, it is empty; data is to be freed. */
struct bytes {
	unsigned char *data;
	size_t head, tail, room;
};

size_t bytes_held(const struct bytes *bytes);

/* For n more; -ENOMEM. */
int bytes_make_room(struct bytes *bytes, size_t n);
/* Where there is room. */
void bytes_append(struct bytes *bytes, const void *data, size_t n);
/* Up to n; how many. */
size_t bytes_take(struct bytes *bytes, void *buf, size_t n);

/* Makes room itself; -ENOMEM. */
int bytes_append_packet(struct bytes *bytes, const struct iovec *iov,
			int count);
/* Of the first one, which is there. */
size_t bytes_packet_size(const struct bytes *bytes);
/* Of it up to n bytes, and all of it is gone; how many. */
size_t bytes_take_packet(struct bytes *bytes, void *buf, size_t n);

/* What all of them have together. */
size_t bytes_of(const struct iovec *iov, int count);

#endif
