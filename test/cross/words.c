/*
 * What errors are called by the GNU C library, whose words the tests compare:
 * linked with the programs of targets that have another one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>

static const struct {
	int error;
	const char *text;
} words[] = {
	{ EADDRINUSE, "Address already in use" },
	{ EADDRNOTAVAIL, "Cannot assign requested address" },
	{ EAGAIN, "Resource temporarily unavailable" },
	{ EBADF, "Bad file descriptor" },
	{ EBUSY, "Device or resource busy" },
	{ ECONNABORTED, "Software caused connection abort" },
	{ ECONNREFUSED, "Connection refused" },
	{ ECONNRESET, "Connection reset by peer" },
	{ EDEADLK, "Resource deadlock avoided" },
	{ EINVAL, "Invalid argument" },
	{ EIO, "Input/output error" },
	{ EMFILE, "Too many open files" },
	{ EMSGSIZE, "Message too long" },
	{ ENFILE, "Too many open files in system" },
	{ ENOBUFS, "No buffer space available" },
	{ ENOENT, "No such file or directory" },
	{ ENOMEM, "Cannot allocate memory" },
	{ ENOSPC, "No space left on device" },
	{ ENOTCONN, "Transport endpoint is not connected" },
	{ ENOTSOCK, "Socket operation on non-socket" },
	{ ENOTSUP, "Operation not supported" },
	{ EPERM, "Operation not permitted" },
	{ EPIPE, "Broken pipe" },
	{ EPROTO, "Protocol error" },
	{ ETIMEDOUT, "Connection timed out" },
	{ EACCES, "Permission denied" },
	{ ECANCELED, "Operation canceled" },
	{ ENOTDIR, "Not a directory" },
	{ EROFS, "Read-only file system" },
	{ EAFNOSUPPORT, "Address family not supported by protocol" },
};

char *strerror(int error)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (words[i].error == error)
			return (char *)words[i].text;
	char *(*others)(int error);
	*(void **)&others = dlsym(RTLD_NEXT, "strerror");
	return others(error);
}

const char *gai_strerror(int error)
{
	const char *(*others)(int error);
	*(void **)&others = dlsym(RTLD_NEXT, "gai_strerror");
	return error == EAI_MEMORY  ? "Memory allocation failure"
	       : error == EAI_AGAIN ? "Temporary failure in name resolution"
				    : others(error);
}
