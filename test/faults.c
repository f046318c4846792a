/* Calls that fail, and a name that has several addresses. */
#include "faults.h"

#include "support.h"

#include <netinet/in.h>
#include <sys/mman.h>

struct fault fault;

bool fails(const char *what, int code)
{
	if (!fault.left || --fault.left)
		return false;
	fault.what = what;
	errno = code;
	return true;
}

int fail_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	return fails("getsockopt", ENOBUFS)
		       ? -1
		       : getsockopt(fd, level, name, value, len);
}

int fail_getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
	return fails("getsockname", ENOBUFS) ? -1 : getsockname(fd, sa, len);
}

int fail_pipe(int fds[2])
{
	return fails("pipe", EMFILE) ? -1 : sys_do_pipe(fds);
}

void *fail_malloc(size_t n)
{
	return fails("malloc", ENOMEM) ? NULL : malloc(n);
}

void *fail_calloc(size_t n, size_t size)
{
	return fails("calloc", ENOMEM) ? NULL : calloc(n, size);
}

void *fail_realloc(void *memory, size_t n)
{
	return fails("realloc", ENOMEM) ? NULL : realloc(memory, n);
}

void *fail_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	return fails("mmap", ENOMEM) ? MAP_FAILED
				     : mmap(at, n, prot, flags, fd, offset);
}

void fail_memory(void)
{
	sys_table.malloc = fail_malloc;
	sys_table.calloc = fail_calloc;
	sys_table.realloc = fail_realloc;
}

struct ss_server *made_at_last(const struct ss_config *config)
{
	struct sys_table before = sys_table;
	struct ss_server *server;
	int n = 0, r;
	fail_memory();
	sys_table.mmap = fail_mmap;
	do {
		fault.left = ++n;
		r = ss_server_new(&server, config, NULL);
		ck_assert_int_eq(r, fault.left ? 0 : -ENOMEM);
	} while (r < 0);
	ck_assert_int_gt(n, 3);
	fault.left = 0;
	sys_table = before;
	return server;
}

const char *const *several_addresses;

int several_getaddrinfo(const char *host, const char *service,
			const struct addrinfo *hints, struct addrinfo **result)
{
	struct addrinfo numeric = *hints;
	if (strcmp(host, "several.test") != 0)
		return getaddrinfo(host, service, hints, result);
	numeric.ai_flags = AI_NUMERICHOST;
	int r = 0;
	for (int i = 0; several_addresses[i] && r == 0; i++) {
		r = getaddrinfo(several_addresses[i], service, &numeric,
				result);
		if (r == 0)
			result = &(*result)->ai_next;
	}
	return r;
}

bool elsewhere(const struct sockaddr *sa)
{
	uint32_t host =
		ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr);
	return host == 0x7f000042 || host == 0x7f000043;
}
