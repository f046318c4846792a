/* What a suite makes the system say: the n-th call of some fails, a name has
 * several addresses. */
#ifndef SS_TEST_FAULTS_H
#define SS_TEST_FAULTS_H

#include <netdb.h>
#include <stdbool.h>

struct fault {
	int left; /* this many calls but one succeed, and then one fails */
	const char *what; /* the one that did */
};
extern struct fault fault;

/* For the stand-in of a call: whether it is the one that fails; sets errno. */
bool fails(const char *what, int code);

/* In the place of getaddrinfo: several.test has these addresses, up to a NULL;
 * other names are looked up.  glibc's lists are joined as this one is. */
extern const char *const *several_addresses;
int several_getaddrinfo(const char *host, const char *service,
			const struct addrinfo *hints, struct addrinfo **result);

#endif
