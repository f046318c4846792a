/* Calls that fail, and a name that has several addresses. */
#include "faults.h"

#include "support.h"

struct fault fault;

bool fails(const char *what, int code)
{
	if (!fault.left || --fault.left)
		return false;
	fault.what = what;
	errno = code;
	return true;
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
