/*
 * To connect out: from a handler to somebody else, under every model, or from
 * a program of one's own.
 */
#ifndef SOCKETSERVER_CLIENT_H
#define SOCKETSERVER_CLIENT_H

#include <stdbool.h>

#include <socketserver/address.h>
#include <socketserver/common.h>

SS_BEGIN_DECLS

/* Members left out are zero, and zero is the default. */
struct ss_connect_options {
	int timeout_ms; /* of all of it; 0 = 30 s */
	/* The local address, of the same transport: "192.0.2.1", "[::1]:4000",
	 * "unix:/PATH" (the file stays, and is the caller's to remove). */
	const char *source;
	bool disable_nagle_algorithm; /* TCP_NODELAY */
	/* For socket options; before bind(2), once for each address that is
	 * tried.  < 0: that one fails so. */
	int (*prepare)(void *arg, int fd);
	void *arg;
	size_t struct_size; /* sizeof(struct ss_connect_options); 0 = 0.1's */
};

/*
 * A connected descriptor, the caller's: close-on-exec, above 2, O_NONBLOCK.
 * tcp, udp, unix and unixgram addresses; a bare one is TCP.  A name's addresses
 * are tried in the resolver's order, the next one when the last has failed or
 * has not answered for 250 ms, and the first that answers wins (RFC 8305).  A
 * unixgram socket without a source gets a name, for replies (Linux).
 *
 * With a request it waits as the handler does, and lets others run; without
 * one (NULL) by poll(2), in any thread.  Names are looked up by ss_offload, or
 * here; that cannot be cut short.  options and why may be NULL.
 *
 * -EINVAL and what ss_resolve says: the address, or the source.
 * -ETIMEDOUT: nobody has answered in time, or the request's total is over.
 * -ECANCELED, -EINTR: as ss_wait_any.  -ENOMEM, -EMFILE.
 * -ECONNREFUSED: also where the connection would have been one to itself.
 * Others: connect(2)'s and bind(2)'s.  Where several addresses fail, it is the
 * last failure that is not of the network's being unreachable, if there is one.
 */
SS_API int ss_connect(struct ss_request *req, const char *address,
		      const struct ss_connect_options *options,
		      struct ss_diag *why);

SS_END_DECLS
#endif
