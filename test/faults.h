/* What a suite makes the system say: the n-th call of some fails, a name has
 * several addresses. */
#ifndef SS_TEST_FAULTS_H
#define SS_TEST_FAULTS_H

#include <netdb.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

struct ss_config;
struct ss_server;

struct fault {
	int left; /* this many calls but one succeed, and then one fails */
	const char *what; /* the one that did */
};
extern struct fault fault;

/* For the stand-in of a call: whether it is the one that fails; sets errno. */
bool fails(const char *what, int code);

/* Stand-ins, for sys_table. */
int fail_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int fail_getsockname(int fd, struct sockaddr *sa, socklen_t *len);
int fail_pipe(int fds[2]);
void *fail_malloc(size_t n);
void *fail_calloc(size_t n, size_t size);
void *fail_realloc(void *memory, size_t n);
void *fail_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
/* Puts malloc, calloc and realloc there. */
void fail_memory(void);

/* Makes a server without its first allocation, without its second, ..., each of
 * which must refuse it for that, until it is made.  The calls are put back. */
struct ss_server *made_at_last(const struct ss_config *config);

/* In the place of getaddrinfo: several.test has these addresses, up to a NULL;
 * other names are looked up.  glibc's lists are joined as this one is. */
extern const char *const *several_addresses;
int several_getaddrinfo(const char *host, const char *service,
			const struct addrinfo *hints, struct addrinfo **result);

/* 127.0.0.66 and .67, for who has the system say that they are elsewhere. */
bool elsewhere(const struct sockaddr *sa);

#endif
