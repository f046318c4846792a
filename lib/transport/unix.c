/*
 * Unix sockets: streams and datagrams, in the file system or abstract.
 *
 * A socket file outlives its server.  So a file in the way is probed, under a
 * lock, by connecting to it: a dead one is replaced, a living one refused, and
 * anything that is no socket left alone.  The lock is kept until the socket
 * listens, since until then it looks dead.  At close the file goes, if it is
 * still the one that this process made.
 */
#include "sock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../sys.h"

enum { LOCK_TRIES = 100, LOCK_PAUSE_MS = 10 };

struct unix_file {
	int lock; /* until it listens; -1: none */
	pid_t owner;
	dev_t device;
	ino_t inode;
};

static const char *path_of(const struct ss_address *address)
{
	const char *path = address->u.un.sun_path;
	return address->len > sizeof(sa_family_t) && *path ? path : NULL;
}

/* ---- the lock -------------------------------------------------------------*/

/* The descriptor, or -errno.  Bounded: who holds it is only starting. */
static int take_lock(const char *path, int tries)
{
	char name[sizeof(struct sockaddr_un) + sizeof(".lock")];
	snprintf(name, sizeof(name), "%s.lock", path);
	int fd = sys_open(name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	if (fd == -1)
		return -errno;
	while (sys_flock(fd, LOCK_EX | LOCK_NB) == -1) {
		int r = -errno;
		if ((r == -EWOULDBLOCK || r == -EINTR) && --tries > 0) {
			sys_poll(NULL, 0, LOCK_PAUSE_MS);
			continue;
		}
		sys_close(fd);
		return r;
	}
	return fd;
}

static void drop_lock(int *lock)
{
	if (*lock >= 0)
		sys_close(*lock);
	*lock = -1;
}

/* "unixgram:/PATH: STEP: REASON", the step as it is given. */
static int refuse(struct ss_server *server, const struct ss_address *address,
		  int code, const char *step, const char *reason)
{
	bool stream = ss_server_transport(server)->flags & SS_LAYER_STREAM;
	char where[SS_ADDRESS_TEXT];
	ss_url_format(stream ? SS_SCHEME_UNIX : SS_SCHEME_UNIXGRAM, address,
		      where, sizeof(where));
	return ss_refuse(server, code, "%s: %s%s", where, step, reason);
}

/* ---- what is in the way ---------------------------------------------------*/

/* 0: nobody answers there; -EADDRINUSE: somebody does. */
static int probe(const struct ss_address *address)
{
	enum { TYPES = 3 };
	static const int types[TYPES] = { SOCK_STREAM, SOCK_DGRAM,
					  SOCK_SEQPACKET };
	int error = EPROTOTYPE;
	for (int i = 0; i < TYPES && error == EPROTOTYPE; i++) {
		int fd = sys_socket(AF_UNIX, types[i] | SOCK_NONBLOCK, 0);
		if (fd == -1)
			return -errno;
		int r = sys_connect(fd, &address->u.sa, address->len);
		error = r == -1 ? errno : 0;
		sys_close(fd);
	}
	return error == ECONNREFUSED || error == ENOENT ? 0 : -EADDRINUSE;
}

static int clear_way(struct ss_server *server, const struct ss_address *address)
{
	const char *path = path_of(address);
	struct stat st;
	if (sys_lstat(path, &st) == -1)
		return errno == ENOENT ? 0
				       : refuse(server, address, -errno, "",
						strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return refuse(server, address, -EADDRINUSE, "",
			      "a file that is no socket is in the way");
	int r = probe(address);
	if (r < 0)
		return refuse(server, address, r, "",
			      r == -EADDRINUSE ? "another server lives there"
					       : strerror(-r));
	if (sys_unlink(path) == -1 && errno != ENOENT)
		return refuse(server, address, -errno,
			      "unlink: ", strerror(errno));
	return 0;
}

/* ---- binding --------------------------------------------------------------*/

static int set_owner(struct ss_server *server, const struct ss_address *address)
{
	const char *path = path_of(address);
	const struct ss_socket_options *o = &sock_state(server)->options;
	uid_t uid = o->set_uid ? o->uid : (uid_t)-1;
	gid_t gid = o->set_gid ? o->gid : (gid_t)-1;
	if ((o->set_uid || o->set_gid) && sys_chown(path, uid, gid) == -1)
		return refuse(server, address, -errno,
			      "chown: ", strerror(errno));
	if (o->set_mode && sys_chmod(path, o->mode) == -1)
		return refuse(server, address, -errno,
			      "chmod: ", strerror(errno));
	return 0;
}

static int bind_file(struct ss_server *server,
		     const struct ss_endpoint *endpoint, int *lock)
{
	int r = clear_way(server, &endpoint->address);
	if (r < 0)
		return r;
	const char *path = path_of(&endpoint->address);
	struct ss_listener *listener;
	r = sock_open(server, endpoint, sizeof(struct unix_file), &listener);
	/* It may have failed with the socket bound already, and left a file. */
	if (r < 0 && r != -EADDRINUSE && probe(&endpoint->address) == 0)
		sys_unlink(path);
	if (r < 0)
		return r;
	struct unix_file *file = ss_listener_data(listener);
	struct stat st;
	if (sys_lstat(path, &st) == -1) {
		r = refuse(server, &endpoint->address, -errno,
			   "lstat: ", strerror(errno));
		sys_unlink(path);
		return r;
	}
	*file = (struct unix_file){ .lock = *lock,
				    .owner = sys_getpid(),
				    .device = st.st_dev,
				    .inode = st.st_ino };
	*lock = -1;
	if (ss_listener_flags(listener) & SS_LISTENER_DGRAM)
		drop_lock(&file->lock);
	return set_owner(server, &endpoint->address);
}

static int unix_open(struct ss_server *server,
		     const struct ss_endpoint *endpoint)
{
	const char *path = path_of(&endpoint->address);
	if (!path) {
		struct ss_listener *listener;
		return sock_open(server, endpoint, 0, &listener);
	}
	int lock = take_lock(path, LOCK_TRIES);
	if (lock < 0)
		return refuse(server, &endpoint->address, lock, "lock: ",
			      lock == -EWOULDBLOCK
				      ? "another server is starting there"
				      : strerror(-lock));
	int r = bind_file(server, endpoint, &lock);
	drop_lock(&lock);
	return r;
}

/* Whose file it is that is adopted, in case it is to be removed. */
static void note_file(struct ss_listener *listener)
{
	const char *path = path_of(ss_listener_address(listener));
	struct unix_file *file = ss_listener_data(listener);
	struct stat st;
	*file = (struct unix_file){ .lock = -1 };
	if (!path || sys_lstat(path, &st) == -1)
		return;
	file->owner = sys_getpid();
	file->device = st.st_dev;
	file->inode = st.st_ino;
}

static int unix_server_bind(struct ss_server *server)
{
	int r = sock_bind_all(server, unix_open, sizeof(struct unix_file));
	for (int i = 0; i < ss_server_listeners(server); i++) {
		struct ss_listener *listener = ss_server_listener(server, i);
		if (ss_listener_flags(listener) & SS_LISTENER_ADOPTED)
			note_file(listener);
	}
	return r;
}

static int unix_server_activate(struct ss_server *server)
{
	int r = sock_server_activate(server);
	for (int i = 0; i < ss_server_listeners(server); i++) {
		struct unix_file *file =
			ss_listener_data(ss_server_listener(server, i));
		if (file)
			drop_lock(&file->lock);
	}
	return r;
}

/* ---- closing --------------------------------------------------------------*/

static void remove_file(const char *path, struct unix_file *file)
{
	if (file->lock < 0)
		file->lock = take_lock(path, 1);
	struct stat st;
	if (sys_lstat(path, &st) == 0 && st.st_dev == file->device &&
	    st.st_ino == file->inode)
		sys_unlink(path);
	drop_lock(&file->lock);
}

static void unix_listener_close(struct ss_server *server,
				struct ss_listener *listener)
{
	struct unix_file *file = ss_listener_data(listener);
	if (file && file->owner == sys_getpid()) {
		if (ss_listener_flags(listener) & SS_LISTENER_REMOVES)
			remove_file(path_of(ss_listener_address(listener)),
				    file);
		file->owner = 0;
	}
	ss_super(server, ss_server_transport(server))
		->listener_close(server, listener);
}

const struct ss_layer ss_unix_stream_server = {
	.name = "unix",
	.flags = SS_LAYER_TRANSPORT | SS_LAYER_STREAM | SS_LAYER_UNIX |
		 SS_LAYER_SOCKET,
	.server_size = sizeof(struct sock_state),
	.init = sock_init,
	.fini = sock_fini,
	.ops = {
		.server_bind = unix_server_bind,
		.server_activate = unix_server_activate,
		.listener_close = unix_listener_close,
		.get_request = sock_get_request,
	},
};

const struct ss_layer ss_unix_datagram_server = {
	.name = "unixgram",
	.flags = SS_LAYER_TRANSPORT | SS_LAYER_UNIX | SS_LAYER_SOCKET,
	.server_size = sizeof(struct sock_state),
	.init = sock_init,
	.fini = sock_fini,
	.ops = {
		.server_bind = unix_server_bind,
		.listener_close = unix_listener_close,
		.get_request = dgram_get_request,
	},
};
