/* Queues of bytes. */
#include "bytes.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "../sys.h"

size_t bytes_held(const struct bytes *bytes)
{
	return bytes->tail - bytes->head;
}

int bytes_make_room(struct bytes *bytes, size_t n)
{
	size_t kept = bytes_held(bytes);
	if (bytes->head) {
		memmove(bytes->data, bytes->data + bytes->head, kept);
		bytes->head = 0;
		bytes->tail = kept;
	}
	if (bytes->room - kept >= n)
		return 0;
	size_t room = 2 * (kept + n);
	unsigned char *data = sys_realloc(bytes->data, room);
	if (!data)
		return -ENOMEM;
	bytes->data = data;
	bytes->room = room;
	return 0;
}

void bytes_append(struct bytes *bytes, const void *data, size_t n)
{
	assert(!n || bytes->data);
	if (n)
		memcpy(bytes->data + bytes->tail, data, n);
	bytes->tail += n;
}

size_t bytes_take(struct bytes *bytes, void *buf, size_t n)
{
	if (n > bytes_held(bytes))
		n = bytes_held(bytes);
	if (n)
		memcpy(buf, bytes->data + bytes->head, n);
	bytes->head += n;
	return n;
}

size_t bytes_of(const struct iovec *iov, int count)
{
	size_t total = 0;
	for (int i = 0; i < count; i++)
		total += iov[i].iov_len;
	return total;
}

int bytes_append_packet(struct bytes *bytes, const struct iovec *iov, int count)
{
	size_t n = bytes_of(iov, count);
	if (bytes_make_room(bytes, sizeof(n) + n) < 0)
		return -ENOMEM;
	bytes_append(bytes, &n, sizeof(n));
	for (int i = 0; i < count; i++)
		bytes_append(bytes, iov[i].iov_base, iov[i].iov_len);
	return 0;
}

size_t bytes_packet_size(const struct bytes *bytes)
{
	size_t n;
	memcpy(&n, bytes->data + bytes->head, sizeof(n));
	return n;
}

size_t bytes_take_packet(struct bytes *bytes, void *buf, size_t n)
{
	size_t size = bytes_packet_size(bytes);
	bytes->head += sizeof(size);
	size_t taken = bytes_take(bytes, buf, n < size ? n : size);
	bytes->head += size - taken;
	return taken;
}
