/* CRC32c, four bytes at a step: a table for each of their places. */
#include "crc32c.h"

/* Of polynomial 0x1edc6f41, reflected.  It is linear: what a byte makes of it
 * is the sum of what its bits do. */
#define BYTE(i, a, b, c, d, e, f, g, h)                                        \
	(((i)&1 ? a : 0) ^ ((i)&2 ? b : 0) ^ ((i)&4 ? c : 0) ^                 \
	 ((i)&8 ? d : 0) ^ ((i)&16 ? e : 0) ^ ((i)&32 ? f : 0) ^               \
	 ((i)&64 ? g : 0) ^ ((i)&128 ? h : 0))
#define PLACE_0(i)                                                             \
	BYTE(i, 0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f,    \
	     0x20bd8ede, 0x417b1dbc, 0x82f63b78)
#define PLACE_1(i)                                                             \
	BYTE(i, 0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181,    \
	     0x7f8be302, 0xff17c604, 0xfbc3faf9)
#define PLACE_2(i)                                                             \
	BYTE(i, 0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a,    \
	     0xe144fb14, 0xc76580d9, 0x8b277743)
#define PLACE_3(i)                                                             \
	BYTE(i, 0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d,    \
	     0xd725148b, 0xaba65fe7, 0x52a0c93f)
#define FOUR(place, i) place(i), place((i) + 1), place((i) + 2), place((i) + 3)
#define SIXTEEN(place, i)                                                      \
	FOUR(place, i), FOUR(place, (i) + 4), FOUR(place, (i) + 8),            \
		FOUR(place, (i) + 12)
#define MANY(place, i)                                                         \
	SIXTEEN(place, i), SIXTEEN(place, (i) + 16), SIXTEEN(place, (i) + 32), \
		SIXTEEN(place, (i) + 48)
#define ALL(place)                                                             \
	{                                                                      \
		MANY(place, 0), MANY(place, 64), MANY(place, 128),             \
			MANY(place, 192)                                       \
	}

static const uint32_t table[4][256] = { ALL(PLACE_0), ALL(PLACE_1),
					ALL(PLACE_2), ALL(PLACE_3) };

#undef BYTE
#undef PLACE_0
#undef PLACE_1
#undef PLACE_2
#undef PLACE_3
#undef FOUR
#undef SIXTEEN
#undef MANY
#undef ALL

static uint32_t four(uint32_t crc, const unsigned char *bytes)
{
	crc ^= (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 |
	       (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
	return table[3][crc & 0xff] ^ table[2][crc >> 8 & 0xff] ^
	       table[1][crc >> 16 & 0xff] ^ table[0][crc >> 24];
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
	const unsigned char *bytes = data;
	crc = ~crc;
	for (; n >= 4; n -= 4, bytes += 4)
		crc = four(crc, bytes);
	for (; n > 0; n--, bytes++)
		crc = crc >> 8 ^ table[0][(crc ^ *bytes) & 0xff];
	return ~crc;
}
