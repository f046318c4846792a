/* The checksum of RFC 4960, appendix B (Castagnoli). */
#ifndef SS_MIXIN_CRC32C_H
#define SS_MIXIN_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* In steps: of what comes first with `crc` 0, of the rest with what that was.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t n);

#endif
