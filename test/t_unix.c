/*
 * Unix sockets: whose file it is, from the probe of a stale one to the removal
 * of our own, and what else the file system has to say (PROMISES 15).
 */
#include "faults.h"
#include "handlers.h"
#include "support.h"

#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct sys_table real;
static const struct transport *const stream = &transports[2];
static const struct transport *const dgram = &transports[3];

static void set_up(void)
{
	real = sys_table;
}

static void tear_down(void)
{
	sys_table = real;
}

/* ---- places ---------------------------------------------------------------*/

/* A path that nobody uses, and it as the address of either transport. */
struct place {
	char path[SS_ADDRESS_TEXT];
	char lock[SS_ADDRESS_TEXT + 8];
	char url[SS_ADDRESS_TEXT + 16];
};

static struct place new_place(const struct transport *transport)
{
	static int number;
	struct place place;
	snprintf(place.path, sizeof(place.path), "%s/p%d", scratch(), number++);
	snprintf(place.lock, sizeof(place.lock), "%s.lock", place.path);
	snprintf(place.url, sizeof(place.url), "%s:%s", transport->name,
		 place.path);
	return place;
}

static struct ss_config config_at(const struct place *place,
				  const struct transport *transport)
{
	return (struct ss_config){
		.addresses = { place->url },
		.transport = transport->layer,
		.handler = &ss_echo_handler,
	};
}

static bool exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}

static struct stat status_of(const char *path)
{
	struct stat st;
	ck_assert_msg(lstat(path, &st) == 0, "%s: %s", path, strerror(errno));
	return st;
}

static struct sockaddr_un name_of(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t n = strlen(path);
	ck_assert_uint_lt(n, sizeof(un.sun_path));
	memcpy(un.sun_path, path, n);
	return un;
}

/* A socket of that type, bound there; stream sockets do not listen yet. */
static int bound_at(const char *path, int type)
{
	struct sockaddr_un un = name_of(path);
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

/* Whether a connection can be made; never waits. */
static bool answers(const char *path, int type)
{
	struct sockaddr_un un = name_of(path);
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool good = connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0;
	close(fd);
	return good;
}

static int type_of(const struct transport *transport)
{
	return transport == stream ? SOCK_STREAM : SOCK_DGRAM;
}

static const struct transport *transport_of(int i)
{
	return i % 2 ? dgram : stream;
}
enum { BOTH = 2 };

static void expect_free(struct ss_server *server)
{
	ck_assert_int_eq(ss_server_free(server), 0);
}

/* ---- who is there ---------------------------------------------------------*/

/* Left behind by a socket of either type. */
START_TEST(stale_files_are_replaced)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	const struct transport *transport = transport_of(_i);
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	int fd = bound_at(place.path, types[_i / BOTH]);
	if (types[_i / BOTH] != SOCK_DGRAM)
		listen(fd, 1);
	close(fd);
	struct stat before = status_of(place.path);
	struct ss_server *server = made(&config);
	struct stat after = status_of(place.path);
	ck_assert(before.st_ino != after.st_ino ||
		  before.st_ctim.tv_nsec != after.st_ctim.tv_nsec);
	ck_assert(answers(place.path, type_of(transport)));
	expect_free(server);
	ck_assert(!exists(place.path));
}
END_TEST

START_TEST(files_of_a_killed_server_are_replaced)
{
	const struct transport *transport = transport_of(_i);
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	struct node node;
	for (int i = 0; i < 3; i++) {
		node_start(&node, &config);
		echo_once(node.url, "hello");
		kill(node.pid, SIGKILL);
		ck_assert_int_eq(node_wait(&node), 128 + SIGKILL);
		ck_assert(exists(place.path));
	}
	node_start(&node, &config);
	echo_once(node.url, "hello");
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert(!exists(place.path));
}
END_TEST

/* Ours, of either type, against ours of either type. */
START_TEST(living_servers_are_left_alone)
{
	const struct transport *old = transport_of(_i / BOTH);
	struct place place = new_place(old), same = place;
	struct ss_config config = config_at(&place, old);
	struct node node;
	node_start(&node, &config);
	struct stat before = status_of(place.path);
	snprintf(same.url, sizeof(same.url), "%s:%s", transport_of(_i)->name,
		 place.path);
	config = config_at(&same, transport_of(_i));
	for (int i = 0; i < 3; i++)
		refused(&config, -EADDRINUSE, "another server lives there");
	refused(&config, -EADDRINUSE, place.path);
	struct stat after = status_of(place.path);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	echo_once(node.url, "still here");
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* Other programs' ways of being there. */
START_TEST(living_sockets_of_any_kind_are_left_alone)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	int type = types[_i / BOTH];
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	int fd = bound_at(place.path, type);
	if (type != SOCK_DGRAM)
		ck_assert_int_eq(listen(fd, 5), 0);
	refused(&config, -EADDRINUSE, "another server lives there");
	ck_assert(exists(place.path));
	ck_assert(answers(place.path, type));
	close(fd);
}
END_TEST

/* A server whose backlog is full is alive, though it does not answer. */
START_TEST(busy_servers_are_left_alone)
{
	struct place place = new_place(stream);
	struct ss_config config = config_at(&place, stream);
	struct sockaddr_un un = name_of(place.path);
	int fd = bound_at(place.path, SOCK_STREAM), client[4];
	ck_assert_int_eq(listen(fd, 0), 0);
	for (int i = 0; i < 4; i++) {
		client[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(client[i], (struct sockaddr *)&un, sizeof(un));
	}
	ck_assert(!answers(place.path, SOCK_STREAM));
	refused(&config, -EADDRINUSE, "another server lives there");
	ck_assert(exists(place.path));
	for (int i = 0; i < 4; i++)
		close(client[i]);
	close(fd);
}
END_TEST

static void put_file(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0644);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "precious", 8), 8);
	close(fd);
}

static void put_directory(const char *path)
{
	ck_assert_int_eq(mkdir(path, 0755), 0);
}

static void put_fifo(const char *path)
{
	ck_assert_int_eq(mkfifo(path, 0644), 0);
}

/* Even one to a dead socket, or to nothing. */
static void put_symlink(const char *path)
{
	char target[SS_ADDRESS_TEXT + 8];
	snprintf(target, sizeof(target), "%s.target", path);
	close(bound_at(target, SOCK_STREAM));
	ck_assert_int_eq(symlink(target, path), 0);
}

static void put_dangling(const char *path)
{
	ck_assert_int_eq(symlink("/nonexistent/target", path), 0);
}

static void (*const foreign[])(const char *path) = {
	put_file, put_directory, put_fifo, put_symlink, put_dangling,
};
enum { FOREIGN = sizeof(foreign) / sizeof(*foreign) };

START_TEST(foreign_files_are_kept)
{
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	foreign[_i / BOTH](place.path);
	struct stat before = status_of(place.path);
	refused(&config, -EADDRINUSE, "a file that is no socket is in the way");
	refused(&config, -EADDRINUSE, place.path);
	struct stat after = status_of(place.path);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	ck_assert_uint_eq(before.st_mode, after.st_mode);
	ck_assert_int_eq(before.st_size, after.st_size);
	if (S_ISDIR(after.st_mode))
		rmdir(place.path);
}
END_TEST

/* ---- removing -------------------------------------------------------------*/

START_TEST(own_files_go_at_close)
{
	const struct transport *transport = transport_of(_i);
	struct place one = new_place(transport), two = new_place(transport);
	struct ss_config config = config_at(&one, transport);
	config.addresses[1] = two.url;
	struct ss_server *server = made(&config);
	ck_assert(exists(one.path) && exists(two.path));
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert(!exists(one.path) && !exists(two.path));
	expect_free(server);
}
END_TEST

/* The place was cleared by force, and somebody else has taken it. */
START_TEST(files_of_a_successor_are_kept)
{
	const struct transport *transport = transport_of(_i);
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	struct ss_server *first = made(&config);
	ck_assert_int_eq(unlink(place.path), 0);
	struct ss_server *second = made(&config);
	expect_free(first);
	ck_assert(exists(place.path));
	ck_assert(answers(place.path, type_of(transport)));
	expect_free(second);
	ck_assert(!exists(place.path));
}
END_TEST

START_TEST(files_that_have_gone_are_not_missed)
{
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	struct ss_server *server = made(&config);
	ck_assert_int_eq(unlink(place.path), 0);
	expect_free(server);
	server = made(&config);
	unlink(place.path);
	put_file(place.path);
	expect_free(server);
	ck_assert_int_eq(status_of(place.path).st_size, 8);
}
END_TEST

START_TEST(children_that_served_remove_nothing)
{
	const struct transport *transport = transport_of(_i);
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	config.mixins[0].layer = &ss_forking_mixin;
	struct node node;
	node_start(&node, &config);
	for (int i = 0; i < 3; i++) {
		echo_once(node.url, "hello");
		ck_assert(exists(place.path));
	}
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert(!exists(place.path));
}
END_TEST

/* A program may fork, and its child give back all that it inherited. */
START_TEST(children_of_the_program_remove_nothing)
{
	const struct transport *transport = transport_of(_i);
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	struct ss_server *server = made(&config);
	int status = -1;
	pid_t pid = fork();
	if (pid == 0)
		sys_exit(ss_server_free(server) == 0 ? 0 : 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert(exists(place.path));
	ck_assert(answers(place.path, type_of(transport)));
	expect_free(server);
	ck_assert(!exists(place.path));
}
END_TEST

/* What was bound by somebody else is his to remove. */
START_TEST(files_of_adopted_listeners_are_kept)
{
	const struct transport *transport = transport_of(_i);
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	int fd = bound_at(place.path, type_of(transport));
	if (transport == stream)
		listen(fd, 5);
	char address[16];
	snprintf(address, sizeof(address), "fd:%d", fd);
	config.addresses[0] = address;
	struct ss_server *server = made(&config);
	ck_assert(answers(place.path, type_of(transport)));
	expect_free(server);
	ck_assert(exists(place.path));
	ck_assert(!answers(place.path, type_of(transport)));
}
END_TEST

/* An abstract name is the kernel's to remove, a file that has gone nobody's,
 * and one that has come in its place another one's. */
START_TEST(adopted_listeners_need_no_file)
{
	struct place place = new_place(stream);
	struct ss_config config = config_at(&place, stream);
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t); /* a name of the kernel's choice */
	char address[16];
	int fd = _i ? bound_at(place.path, SOCK_STREAM)
		    : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (_i)
		ck_assert_int_eq(unlink(place.path), 0);
	else
		ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, len), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	snprintf(address, sizeof(address), "fd:%d", fd);
	config.addresses[0] = address;
	struct ss_server *server = made(&config);
	if (_i)
		close(bound_at(place.path, SOCK_STREAM));
	expect_free(server);
	ck_assert_int_eq(exists(place.path), _i);
}
END_TEST

/* ---- what goes wrong leaves nothing ---------------------------------------*/

/* Fails every allocation in turn, until none is left to fail. */
START_TEST(failed_starts_leave_no_file)
{
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	struct ss_server *server = NULL;
	int n = 0, descriptors = open_descriptors();
	fail_memory();
	while (!server) {
		fault.left = ++n;
		int r = ss_server_new(&server, &config, NULL);
		if (r == 0)
			break;
		ck_assert_int_eq(r, -ENOMEM);
		ck_assert_msg(!exists(place.path), "allocation %d", n);
		ck_assert_int_eq(open_descriptors(), descriptors);
	}
	fault.left = 0;
	ck_assert_int_gt(n, 4);
	expect_free(server);
}
END_TEST

static int failing_chown(const char *path, uid_t uid, gid_t gid)
{
	(void)path, (void)uid, (void)gid;
	errno = EPERM;
	return -1;
}

static int failing_chmod(const char *path, mode_t mode)
{
	(void)path, (void)mode;
	errno = EROFS;
	return -1;
}

START_TEST(failed_options_leave_no_file)
{
	static const struct ss_socket_options options = {
		.set_gid = true,
		.gid = 1,
		.set_mode = true,
		.mode = 0600,
	};
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	config.transport_options = &options;
	sys_table.chown = failing_chown;
	refused(&config, -EPERM, "chown: Operation not permitted");
	ck_assert(!exists(place.path));
	sys_table.chown = real.chown;
	sys_table.chmod = failing_chmod;
	if (geteuid() == 0) {
		refused(&config, -EROFS, "chmod: Read-only file system");
		ck_assert(!exists(place.path));
	}
}
END_TEST

START_TEST(failed_second_addresses_remove_the_first_file)
{
	struct place one = new_place(transport_of(_i));
	struct place two = new_place(transport_of(_i));
	struct ss_config config = config_at(&one, transport_of(_i));
	config.addresses[1] = two.url;
	put_file(two.path);
	refused(&config, -EADDRINUSE, two.path);
	ck_assert(!exists(one.path));
	ck_assert(exists(two.path));
}
END_TEST

START_TEST(missing_directories_are_named)
{
	struct ss_config config = {
		.addresses = { "unix:/nonexistent/directory/socket" },
		.handler = &ss_echo_handler,
	};
	refused(&config, -ENOENT, "/nonexistent/directory/socket");
}
END_TEST

/* ---- names ----------------------------------------------------------------*/

/* A path in scratch() of n bytes. */
static void long_path(char *path, size_t n)
{
	int used = snprintf(path, n + 1, "%s/", scratch());
	memset(path + used, 'l', n - (size_t)used);
	path[n] = '\0';
}

START_TEST(paths_have_a_longest_length)
{
	enum { MOST = sizeof(((struct sockaddr_un *)0)->sun_path) - 1 };
	const struct transport *transport = transport_of(_i);
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	char path[MOST + 2];
	long_path(path, MOST);
	snprintf(place.url, sizeof(place.url), "%s:%s", transport->name, path);
	struct ss_server *server = made(&config);
	ck_assert(answers(path, type_of(transport)));
	expect_free(server);
	ck_assert(!exists(path));
	long_path(path, MOST + 1);
	snprintf(place.url, sizeof(place.url), "%s:%s", transport->name, path);
	refused(&config, -ENAMETOOLONG, "unix");
	ck_assert(!exists(path));
}
END_TEST

START_TEST(abstract_names_have_no_file)
{
	const struct transport *transport = transport_of(_i);
	char name[64], url[96], shown[SS_ADDRESS_TEXT];
	snprintf(name, sizeof(name), "@ss-test-%d-%d", (int)getpid(), _i);
	snprintf(url, sizeof(url), "%s:%s", transport->name, name);
	struct ss_config config = { .addresses = { url },
				    .handler = &ss_echo_handler };
	struct node node;
	node_start(&node, &config);
	ck_assert_str_eq(node.url, url);
	echo_once(url, "hello");
	refused(&config, -EADDRINUSE, name);
	echo_once(url, "hello");
	ck_assert(!exists(name));
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_server *server = made(&config);
	ck_assert_str_eq(ss_server_url(server, 0, shown, sizeof(shown)), url);
	expect_free(server);
}
END_TEST

/* ---- mode, owner, credentials ---------------------------------------------*/

START_TEST(modes_are_as_asked_whatever_the_umask)
{
	static const mode_t modes[] = { 0600, 0660, 0666, 0777, 0 };
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	umask(0077);
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		struct ss_socket_options options = { .set_mode = true,
						     .mode = modes[i] };
		config.transport_options = &options;
		struct ss_server *server = made(&config);
		ck_assert_uint_eq(status_of(place.path).st_mode & 07777,
				  modes[i]);
		ck_assert_uint_eq(status_of(place.lock).st_mode & 07777, 0600);
		expect_free(server);
	}
	config.transport_options = NULL;
	umask(0027);
	struct ss_server *server = made(&config);
	ck_assert_uint_eq(status_of(place.path).st_mode & 07777, 0750);
	expect_free(server);
}
END_TEST

/* Others than one's own only for root. */
START_TEST(owners_are_as_asked)
{
	bool root = geteuid() == 0;
	uid_t uid = root ? 12345 : geteuid();
	gid_t gid = root ? 23456 : getegid();
	struct ss_socket_options options[] = {
		{ .set_uid = true, .uid = uid },
		{ .set_gid = true, .gid = gid },
		{ .set_uid = true, .uid = uid, .set_gid = true, .gid = gid },
	};
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	for (int i = 0; i < 3; i++) {
		config.transport_options = &options[i];
		struct ss_server *server = made(&config);
		struct stat st = status_of(place.path);
		ck_assert_uint_eq(st.st_uid, i == 1 ? geteuid() : uid);
		ck_assert_uint_eq(st.st_gid, i == 0 ? getegid() : gid);
		expect_free(server);
	}
}
END_TEST

static int tell_peer(struct ss_request *req)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);
	int r = ss_request_getsockopt(req, SOL_SOCKET, SO_PEERCRED, &peer,
				      &len);
	if (r < 0)
		return r;
	ss_printf(req, "%ld %ld %ld\n", (long)peer.pid, (long)peer.uid,
		  (long)peer.gid);
	return 0;
}

static const struct ss_handler telling = { .name = "peer",
					   .handle = tell_peer,
					   .speaks_first = true };

START_TEST(peers_are_known_by_their_credentials)
{
	char expected[64];
	struct ss_config config = config_of(&models[_i], stream, &telling);
	struct node node;
	node_start(&node, &config);
	snprintf(expected, sizeof(expected), "%ld %ld %ld\n", (long)getpid(),
		 (long)geteuid(), (long)getegid());
	int fd = dial(node.url);
	expect_text(fd, expected);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- the lock -------------------------------------------------------------*/

static int open_lock(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static bool is_locked(const char *path)
{
	int fd = open_lock(path);
	bool locked = flock(fd, LOCK_EX | LOCK_NB) == -1;
	close(fd);
	return locked;
}

/* Until it listens: before that it would look dead. */
START_TEST(locks_are_kept_until_the_server_listens)
{
	const struct transport *transport = transport_of(_i);
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	config.no_bind = true;
	struct ss_server *server = made(&config);
	ck_assert(!exists(place.lock));
	umask(0);
	ck_assert_int_eq(ss_server_bind(server, NULL), 0);
	ck_assert_uint_eq(status_of(place.lock).st_mode & 07777, 0600);
	ck_assert(is_locked(place.lock) == (transport == stream));
	ck_assert_int_eq(ss_server_activate(server, NULL), 0);
	ck_assert(!is_locked(place.lock));
	expect_free(server);
	ck_assert(exists(place.lock));
	ck_assert(!is_locked(place.lock));
}
END_TEST

START_TEST(locks_are_no_way_into_other_files)
{
	char target[SS_ADDRESS_TEXT + 16];
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	snprintf(target, sizeof(target), "%s.precious", place.path);
	put_file(target);
	chmod(target, 0644);
	ck_assert_int_eq(symlink(target, place.lock), 0);
	refused(&config, -ELOOP, place.path);
	ck_assert(!exists(place.path));
	ck_assert_int_eq(status_of(target).st_size, 8);
	ck_assert_uint_eq(status_of(target).st_mode & 07777, 0644);
}
END_TEST

static int pauses;	/* how often it waited for the lock */
static int holder = -1; /* let go at the fifth */

static int hasty_poll(struct pollfd *fds, nfds_t n, int ms)
{
	if (fds)
		return real.poll(fds, n, ms);
	ck_assert_int_le(ms, 100);
	if (++pauses == 5 && holder >= 0) {
		close(holder);
		holder = -1;
	}
	return 0;
}

START_TEST(locks_of_others_are_waited_for)
{
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	sys_table.poll = hasty_poll;
	holder = open_lock(place.lock);
	ck_assert_int_eq(flock(holder, LOCK_EX), 0);
	struct ss_server *server = made(&config);
	ck_assert_int_eq(pauses, 5);
	expect_free(server);
}
END_TEST

START_TEST(locks_of_others_are_not_waited_for_forever)
{
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	sys_table.poll = hasty_poll;
	int other = open_lock(place.lock);
	ck_assert_int_eq(flock(other, LOCK_EX), 0);
	refused(&config, -EWOULDBLOCK, "another server is starting there");
	refused(&config, -EWOULDBLOCK, place.path);
	ck_assert_int_le(pauses, 400);
	ck_assert(!exists(place.path));
	close(other);
}
END_TEST

static const char *lock_of_file;
static int removed; /* under its lock */

static int locked_unlink(const char *path)
{
	removed += is_locked(lock_of_file);
	return unlink(path);
}

/* Between the look whether it is still ours and its end nobody replaces it. */
START_TEST(files_are_removed_under_their_lock)
{
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	struct ss_server *server = made(&config);
	lock_of_file = place.lock;
	sys_table.unlink = locked_unlink;
	expect_free(server);
	ck_assert_int_eq(removed, 1);
	ck_assert(!exists(place.path));
	ck_assert(!is_locked(place.lock));
}
END_TEST

/* The file goes all the same when nobody lets go of the lock. */
START_TEST(locks_of_others_do_not_hold_a_close)
{
	struct place place = new_place(transport_of(_i));
	struct ss_config config = config_at(&place, transport_of(_i));
	struct ss_server *server = made(&config);
	int other = open_lock(place.lock);
	ck_assert_int_eq(flock(other, LOCK_EX), 0);
	sys_table.poll = hasty_poll;
	expect_free(server);
	ck_assert_int_eq(pauses, 0);
	ck_assert(!exists(place.path));
	close(other);
}
END_TEST

/* ---- races ----------------------------------------------------------------*/

enum { RACERS = 4 };

struct racer {
	pid_t pid;
	int gate; /* a byte begins it, the end of file ends it */
	int news; /* what ss_server_new said */
};

static _Noreturn void race(const struct ss_config *config, int gate, int news)
{
	struct ss_server *server = NULL;
	char byte;
	if (read(gate, &byte, 1) != 1)
		_exit(9);
	int r = ss_server_new(&server, config, NULL);
	if (write(news, &r, sizeof(r)) != sizeof(r))
		_exit(9);
	while (read(gate, &byte, 1) > 0)
		;
	sys_exit(ss_server_free(server) == 0 ? 0 : 8);
}

static void line_up(struct racer *racers, const struct ss_config *config)
{
	int gate[RACERS][2], news[RACERS][2];
	for (int i = 0; i < RACERS; i++) {
		ck_assert_int_eq(pipe(gate[i]), 0);
		ck_assert_int_eq(pipe(news[i]), 0);
	}
	for (int i = 0; i < RACERS; i++) {
		racers[i].pid = fork();
		if (racers[i].pid == 0) {
			for (int k = 0; k < RACERS; k++)
				close(gate[k][1]);
			race(config, gate[i][0], news[i][1]);
		}
	}
	for (int i = 0; i < RACERS; i++) {
		close(gate[i][0]);
		close(news[i][1]);
		racers[i].gate = gate[i][1];
		racers[i].news = news[i][0];
	}
}

static int result_of(const struct racer *racer)
{
	int r = 1;
	struct pollfd fd = { .fd = racer->news, .events = POLLIN };
	ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
	ck_assert_int_eq(read(racer->news, &r, sizeof(r)), sizeof(r));
	return r;
}

static void dismiss(struct racer *racer)
{
	int status = -1;
	close(racer->gate);
	ck_assert_int_eq(waitpid(racer->pid, &status, 0), racer->pid);
	ck_assert_int_eq(status, 0);
	close(racer->news);
}

static void race_once(const struct transport *transport, bool stale)
{
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	struct racer racers[RACERS];
	int winners = 0;
	if (stale)
		close(bound_at(place.path, type_of(transport)));
	line_up(racers, &config);
	for (int i = 0; i < RACERS; i++)
		ck_assert_int_eq(write(racers[i].gate, "", 1), 1);
	for (int i = 0; i < RACERS; i++) {
		int r = result_of(&racers[i]);
		winners += r == 0;
		ck_assert_msg(r == 0 || r == -EADDRINUSE, "%s", strerror(-r));
	}
	ck_assert_int_eq(winners, 1);
	ck_assert(answers(place.path, type_of(transport)));
	for (int i = 0; i < RACERS; i++)
		dismiss(&racers[i]);
	ck_assert(!exists(place.path));
}

START_TEST(races_have_one_winner)
{
	for (int i = 0; i < rounds(20); i++)
		race_once(transport_of(_i), i % 2);
}
END_TEST

/* One that closes never removes the file of the one that begins. */
static void relieve_once(const struct transport *transport)
{
	struct place place = new_place(transport);
	struct ss_config config = config_at(&place, transport);
	struct racer racers[RACERS];
	line_up(racers, &config);
	ck_assert_int_eq(write(racers[0].gate, "", 1), 1);
	ck_assert_int_eq(result_of(&racers[0]), 0);
	for (int i = 1; i < RACERS; i++)
		ck_assert_int_eq(write(racers[i].gate, "", 1), 1);
	dismiss(&racers[0]);
	int winners = 0;
	for (int i = 1; i < RACERS; i++)
		winners += result_of(&racers[i]) == 0;
	ck_assert_int_le(winners, 1);
	ck_assert_int_eq(exists(place.path), winners);
	ck_assert_int_eq(answers(place.path, type_of(transport)), winners);
	for (int i = 1; i < RACERS; i++)
		dismiss(&racers[i]);
	ck_assert(!exists(place.path));
}

START_TEST(races_of_a_close_and_a_start_lose_no_file)
{
	for (int i = 0; i < rounds(20); i++)
		relieve_once(transport_of(_i));
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_presence(Suite *suite)
{
	TCase *tcase = suite_case(suite, "presence", set_up, tear_down);
	tcase_add_loop_test(tcase, stale_files_are_replaced, 0, 3 * BOTH);
	tcase_add_loop_test(tcase, files_of_a_killed_server_are_replaced, 0,
			    BOTH);
	tcase_add_loop_test(tcase, living_servers_are_left_alone, 0,
			    BOTH * BOTH);
	tcase_add_loop_test(tcase, living_sockets_of_any_kind_are_left_alone, 0,
			    3 * BOTH);
	tcase_add_test(tcase, busy_servers_are_left_alone);
	tcase_add_loop_test(tcase, foreign_files_are_kept, 0, FOREIGN * BOTH);
}

static void add_removal(Suite *suite)
{
	TCase *tcase = suite_case(suite, "removal", set_up, tear_down);
	tcase_add_loop_test(tcase, own_files_go_at_close, 0, BOTH);
	tcase_add_loop_test(tcase, files_of_a_successor_are_kept, 0, BOTH);
	tcase_add_loop_test(tcase, files_that_have_gone_are_not_missed, 0,
			    BOTH);
	tcase_add_loop_test(tcase, children_that_served_remove_nothing, 0,
			    BOTH);
	tcase_add_loop_test(tcase, children_of_the_program_remove_nothing, 0,
			    BOTH);
	tcase_add_loop_test(tcase, files_of_adopted_listeners_are_kept, 0,
			    BOTH);
	tcase_add_loop_test(tcase, adopted_listeners_need_no_file, 0, 2);
	tcase_add_loop_test(tcase, failed_starts_leave_no_file, 0, BOTH);
	tcase_add_loop_test(tcase, failed_options_leave_no_file, 0, BOTH);
	tcase_add_loop_test(
		tcase, failed_second_addresses_remove_the_first_file, 0, BOTH);
}

static void add_names(Suite *suite)
{
	TCase *tcase = suite_case(suite, "names", set_up, tear_down);
	tcase_add_test(tcase, missing_directories_are_named);
	tcase_add_loop_test(tcase, paths_have_a_longest_length, 0, BOTH);
	tcase_add_loop_test(tcase, abstract_names_have_no_file, 0, BOTH);
	tcase_add_loop_test(tcase, modes_are_as_asked_whatever_the_umask, 0,
			    BOTH);
	tcase_add_loop_test(tcase, owners_are_as_asked, 0, BOTH);
	tcase_add_loop_test(tcase, peers_are_known_by_their_credentials, 0,
			    model_count);
}

static void add_locks(Suite *suite)
{
	TCase *tcase = suite_case(suite, "locks", set_up, tear_down);
	tcase_add_loop_test(tcase, locks_are_kept_until_the_server_listens, 0,
			    BOTH);
	tcase_add_loop_test(tcase, locks_are_no_way_into_other_files, 0, BOTH);
	tcase_add_loop_test(tcase, locks_of_others_are_waited_for, 0, BOTH);
	tcase_add_loop_test(tcase, locks_of_others_are_not_waited_for_forever,
			    0, BOTH);
	tcase_add_loop_test(tcase, files_are_removed_under_their_lock, 0, BOTH);
	tcase_add_loop_test(tcase, locks_of_others_do_not_hold_a_close, 0,
			    BOTH);
	tcase_add_loop_test(tcase, races_have_one_winner, 0, BOTH);
	tcase_add_loop_test(tcase, races_of_a_close_and_a_start_lose_no_file, 0,
			    BOTH);
}

Suite *t_unix(void)
{
	Suite *suite = suite_create("t_unix");
	add_presence(suite);
	add_removal(suite);
	add_names(suite);
	add_locks(suite);
	return suite;
}
