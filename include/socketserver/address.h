/*
 * Addresses as text and as the kernel has them: one parser, one printer.
 *
 *	tcp://HOST:PORT  udp://HOST:PORT   internet; PORT may be a service name
 *	HOST:PORT  [::1]:80  :80           the same, of the transport at hand
 *	unix:/PATH  unixgram:/PATH         in the file system; unix:///PATH too
 *	unix:@NAME  unixgram:@NAME         abstract (Linux)
 *	fd:N                               a descriptor that is already open
 *	memory:NAME                        the memory transport
 *
 * ":80" and "[::]:80" are every interface, IPv6 and IPv4; "0.0.0.0:80" is
 * IPv4 alone.  PORT is decimal digits, 0..65535 (RFC 3986 3.2.3), or begins
 * with a letter and is the name of a service.
 */
#ifndef SOCKETSERVER_ADDRESS_H
#define SOCKETSERVER_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <socketserver/common.h>

SS_BEGIN_DECLS

enum ss_scheme {
	SS_SCHEME_ANY, /* not said; as an expectation: whatever is said */
	SS_SCHEME_TCP,
	SS_SCHEME_UDP,
	SS_SCHEME_UNIX,
	SS_SCHEME_UNIXGRAM,
	SS_SCHEME_FD,
	SS_SCHEME_MEMORY,
};

/* An address as the kernel has it; len 0: none. */
struct ss_address {
	socklen_t len;
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	} u;
};

/* One place to listen at, or to connect to. */
struct ss_endpoint {
	enum ss_scheme scheme;
	int fd;		 /* SS_SCHEME_FD: the descriptor; else -1 */
	bool dual_stack; /* an IPv6 wildcard that takes IPv4 too */
	bool fallback;	 /* use only if the endpoint before it has no family */
	struct ss_address address;
};

#define SS_ADDRESS_TEXT 460 /* room for any address as text, NUL included */

/*
 * Parses `text` strictly and resolves names, which may block (getaddrinfo(3)).
 * `expect` is the scheme of a bare address and refuses others; SS_SCHEME_ANY
 * takes all, and a bare address is TCP.  "fd:N" passes under every expectation;
 * whether it is such a socket is tested by who adopts it.
 * Returns how many endpoints there are, at most `room` of them stored, or
 * -EINVAL (malformed or of another scheme), -ENAMETOOLONG, -ENOENT (no such
 * host or service), -EAGAIN (the resolver failed for now), -ENOMEM, or what
 * the system refused the resolver.  `why`
 * quotes the text and names what is wrong.
 */
SS_API ssize_t ss_resolve(const char *text, enum ss_scheme expect,
			  struct ss_endpoint *list, size_t room,
			  struct ss_diag *why);

/*
 * Prints HOST:PORT, /PATH, @NAME, or "-" for an unnamed socket.  IPv4-mapped
 * addresses print as IPv4, non-printing bytes of Unix names as \xHH.  At most
 * `size` bytes, always terminated (size > 0).  Returns buf.
 */
SS_API char *ss_address_format(const struct ss_address *address, char *buf,
			       size_t size);

/* The same with its scheme: "tcp://127.0.0.1:80", "unix:/run/x". */
SS_API char *ss_url_format(enum ss_scheme scheme,
			   const struct ss_address *address, char *buf,
			   size_t size);

/* The host alone, without brackets; for Unix sockets the path.  Returns buf. */
SS_API char *ss_address_host(const struct ss_address *address, char *buf,
			     size_t size);

/* The port, 0..65535; -EAFNOSUPPORT where the family has none. */
SS_API int ss_address_port(const struct ss_address *address);

/*
 * Whether both name the same place: IPv4-mapped equals IPv4, and what has no
 * name equals what has none.
 */
SS_API bool ss_address_equal(const struct ss_address *a,
			     const struct ss_address *b);

SS_END_DECLS
#endif
