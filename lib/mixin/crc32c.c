/* CRC32c, bit by bit: headers are short. */
#include "crc32c.h"

static const uint32_t polynomial = 0x82f63b78; /* 0x1edc6f41, reflected */

static uint32_t shifted(uint32_t crc)
{
	for (int i = 0; i < 8; i++)
		crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
	return crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
	const unsigned char *bytes = data;
	crc = ~crc;
	for (size_t i = 0; i < n; i++)
		crc = shifted(crc ^ bytes[i]);
	return ~crc;
}
