/*
 * Memory, between its files: memory.c is the server's end, memory_client.c the
 * clients', memory_wait.c what waiting is there, and time.
 */
#ifndef SS_TRANSPORT_MEMORY_H
#define SS_TRANSPORT_MEMORY_H

#include <pthread.h>
#include <stdatomic.h>

#include <socketserver/layers.h>

#include "bytes.h"

/* A turn's deadline of which the clock shall not know. */
static const int64_t MEMORY_NEVER = INT64_MAX;

struct ss_memory_client {
	struct ss_server *server;
	struct memory *memory;
	struct ss_memory_client *next; /* waiting to be accepted */
	int references;		       /* its owner, the queue, requests */
	struct bytes to_server;	       /* datagrams: each after its size */
	struct bytes to_client;
	bool sent_all;	   /* the client's end of file */
	bool answered_all; /* the server's */
	bool closed;	   /* by its owner */
	bool unheard;	   /* nobody will read what it sends */
	bool reset;	   /* by the client */
	bool queued;
	size_t room; /* bytes that it takes before it receives; 0: any number */
	void (*changed)(void *arg);
	void *changed_arg;
	struct memory_channel *channel; /* of its stream's request */
	int status; /* of its request's end; the first that failed */
};

/* A server's; everything of its clients is under its lock. */
struct memory {
	struct ss_listener *listener;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct ss_memory_client *first, **last; /* waiting */
	bool concurrent; /* handlers run beside the clients */
	bool parks;	 /* they wait, and the clients' thread goes on */
	bool closed;
	atomic_llong clock; /* while it stands */
	atomic_bool stuck;  /* turned until MEMORY_NEVER: nothing is left */
	/* Under fiber, from when a thread of its own serves: the clock goes, so
	 * far ahead of the real one (below 0: behind). */
	atomic_bool goes;
	atomic_llong ahead;
};

struct memory_channel {
	struct ss_channel channel;
	struct ss_source source;
	struct ss_memory_client *client;
	bool half, forced; /* cancel_request; lock */
	int bell[2];	   /* under threads, for wait_any; 0: none; lock */
};

static inline struct memory *memory_of(const struct ss_server *server)
{
	return ss_layer_state(server, ss_server_transport(server));
}

static inline bool memory_is_stream(const struct ss_server *server)
{
	return ss_server_transport(server)->flags & SS_LAYER_STREAM;
}

static inline const struct ss_ops *memory_below(const struct ss_server *server)
{
	return ss_super(server, ss_server_transport(server));
}

extern const struct ss_channel_ops memory_ops;

/* With the lock held: something has changed for who waits. */
void memory_tell(struct memory *memory, struct memory_channel *channel);
/* The same for its client: there is an answer. */
void memory_tell_client(struct ss_memory_client *client);
/* With the lock held: one who refers to it fewer. */
void memory_let_go(struct ss_memory_client *client);
/* With the lock held: it waits to be accepted. */
void memory_enqueue(struct memory *memory, struct ss_memory_client *client);
/* With the lock held: how many bytes a stream's client takes now. */
size_t memory_room(const struct ss_memory_client *client);

/* Operations of the layer. */
int memory_wait(struct ss_server *server, struct ss_request *req,
		struct ss_source *source, short events, int64_t deadline);
int memory_wait_any(struct ss_server *server, struct ss_request *req,
		    struct ss_wait *waits, int count, int64_t deadline);
int64_t memory_now(struct ss_server *server);
int memory_pass_time(struct ss_server *server, int64_t until);
/* The thread that serves has a life of its own: time is real from now on. */
void memory_let_time_go(struct ss_server *server);

#endif
