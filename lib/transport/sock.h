/*
 * What the four socket transports share: their tables are filled from these.
 * Each has a struct sock_state as its server state; what differs follows from
 * the transport's flags.
 */
#ifndef SS_TRANSPORT_SOCK_H
#define SS_TRANSPORT_SOCK_H

#include <socketserver/layers.h>

struct sock_state {
	struct ss_socket_options options;
	struct inbox *inbox; /* datagrams: those that have arrived */
};

struct sock_state *sock_state(const struct ss_server *server);

/* Whether it is every address of the machine. */
bool sock_is_wildcard(const struct ss_address *address);

/* The layer's init and fini. */
int sock_init(struct ss_server *server, const void *options);
void sock_fini(struct ss_server *server);

/* The operations. */
int sock_server_bind(struct ss_server *server);
int sock_server_activate(struct ss_server *server);
int sock_get_request(struct ss_server *server, struct ss_listener *listener,
		     struct ss_request **req);
struct inbox *dgram_inbox_new(struct ss_server *server, size_t size);
int dgram_get_request(struct ss_server *server, struct ss_listener *listener,
		      struct ss_request **req);

/*
 * server_bind, with the transport's own way of opening one endpoint: it binds
 * and adds a listener, of which `data_size` bytes are the transport's: then it
 * has a file that goes when it is closed.  Adopted ones have as many.
 */
int sock_bind_all(struct ss_server *server,
		  int (*open)(struct ss_server *server,
			      const struct ss_endpoint *endpoint),
		  size_t data_size);
int sock_open(struct ss_server *server, const struct ss_endpoint *endpoint,
	      size_t data_size, struct ss_listener **listener);

#endif
