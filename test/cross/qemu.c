/*
 * qemu says yes to any advice about memory and does nothing: guards would not
 * be there.  So it is as before Linux 6.13, which did not know of them: linked
 * with emulated programs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GUARD_INSTALL = 102 };

int madvise(void *memory, size_t n, int advice)
{
	if (advice != GUARD_INSTALL)
		return (int)syscall(SYS_madvise, memory, n, advice);
	errno = EINVAL;
	return -1;
}
