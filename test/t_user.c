/*
 * A user's own transport, models, filter and handler, written from the public
 * headers alone; composed with one another and with ours.
 */
#include <socketserver/socketserver.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* For the clients and the servers' processes. */
#include "support.h"

/* ---- a transport: SOCK_SEQPACKET over Unix paths --------------------------*/

/* A listener's; what it has made it removes. */
struct seq_file {
	bool ours;
};

static int seq_open(struct ss_server *server, const char *text)
{
	struct ss_endpoint at;
	struct ss_diag why;
	ssize_t n = ss_resolve(text, SS_SCHEME_UNIX, &at, 1, &why);
	if (n < 0)
		return ss_refuse(server, (int)n, "%s", why.text);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0);
	if (fd == -1)
		return -errno;
	if (bind(fd, &at.address.u.sa, at.address.len) == -1) {
		int error = errno;
		close(fd);
		return ss_refuse(server, -error, "%s: %s", text,
				 strerror(error));
	}
	struct ss_listener *listener;
	int r = ss_listener_add(server, fd, SS_SCHEME_UNIX, &at.address, 0,
				sizeof(struct seq_file), &listener);
	if (r < 0)
		return r;
	((struct seq_file *)ss_listener_data(listener))->ours = true;
	return 0;
}

static int seq_server_bind(struct ss_server *server)
{
	const char *const *addresses = ss_server_addresses(server);
	int r = 0;
	for (int i = 0; r >= 0 && addresses[i]; i++)
		r = seq_open(server, addresses[i]);
	return r;
}

static int seq_server_activate(struct ss_server *server)
{
	for (int i = 0; i < ss_server_listeners(server); i++)
		if (listen(ss_server_fileno(server, i), SOMAXCONN) == -1)
			return -errno;
	return 0;
}

static void seq_listener_close(struct ss_server *server,
			       struct ss_listener *listener)
{
	struct seq_file *file = ss_listener_data(listener);
	if (file->ours)
		unlink(ss_listener_address(listener)->u.un.sun_path);
	file->ours = false;
	ss_super(server, ss_server_transport(server))
		->listener_close(server, listener);
}

static int seq_accept(struct ss_listener *listener)
{
	int fd = accept4(ss_listener_fd(listener), NULL, NULL, SOCK_CLOEXEC);
	return fd == -1 ? -errno : fd;
}

/* The short way: the library's socket channel. */
static int seq_get_request(struct ss_server *server,
			   struct ss_listener *listener,
			   struct ss_request **req)
{
	int fd = seq_accept(listener);
	if (fd < 0)
		return fd;
	return ss_request_accept(server, listener, fd, 0, NULL, req);
}

enum {
	SEQ_FLAGS = SS_LAYER_TRANSPORT | SS_LAYER_STREAM | SS_LAYER_UNIX |
		    SS_LAYER_SOCKET,
};

static const struct ss_layer seq_server = {
	.name = "seqpacket",
	.flags = SEQ_FLAGS,
	.ops = {
		.server_bind = seq_server_bind,
		.server_activate = seq_server_activate,
		.listener_close = seq_listener_close,
		.get_request = seq_get_request,
	},
};

/* The long way: a channel of its own. */
struct seq {
	struct ss_channel channel;
	struct ss_source source;
};

static ssize_t seq_answer(struct seq *seq, ssize_t r, short events,
			  struct ss_block *block)
{
	if (r >= 0)
		return r;
	if (errno != EAGAIN)
		return -errno;
	*block = (struct ss_block){ .source = &seq->source,
				    .events = events,
				    .until = SS_NONE };
	return -EAGAIN;
}

static ssize_t seq_read(struct ss_channel *channel, void *buf, size_t n,
			struct ss_block *block)
{
	struct seq *seq = (struct seq *)channel;
	return seq_answer(seq, recv(seq->source.fd, buf, n, MSG_DONTWAIT),
			  POLLIN, block);
}

static ssize_t seq_writev(struct ss_channel *channel, const struct iovec *iov,
			  int count, struct ss_block *block)
{
	struct seq *seq = (struct seq *)channel;
	struct msghdr msg = { .msg_iov = (struct iovec *)iov,
			      .msg_iovlen = (size_t)count };
	return seq_answer(
		seq, sendmsg(seq->source.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL),
		POLLOUT, block);
}

static int seq_shutdown(struct ss_channel *channel, int how,
			struct ss_block *block)
{
	(void)block;
	struct seq *seq = (struct seq *)channel;
	return shutdown(seq->source.fd, how) == -1 ? -errno : 0;
}

static void seq_close(struct ss_channel *channel)
{
	struct seq *seq = (struct seq *)channel;
	struct ss_server *server = ss_request_server(channel->req);
	if (seq->source.fd < 0)
		return;
	ss_self(server)->forget(server, &seq->source);
	ss_source_close(server, &seq->source);
}

static const struct ss_channel_ops seq_ops = {
	.read = seq_read,
	.writev = seq_writev,
	.shutdown = seq_shutdown,
	.close = seq_close,
};

static int own_get_request(struct ss_server *server,
			   struct ss_listener *listener,
			   struct ss_request **req)
{
	int fd = seq_accept(listener);
	if (fd < 0)
		return fd;
	int r = ss_request_new(server, listener, sizeof(struct seq), req);
	if (r < 0) {
		close(fd);
		return r;
	}
	struct seq *seq = ss_request_space(*req);
	seq->source.fd = fd;
	ss_channel_push(*req, &seq->channel, &seq_ops);
	ss_request_set_source(*req, &seq->source);
	return 0;
}

static const struct ss_layer own_server = {
	.name = "own-seqpacket",
	.flags = SEQ_FLAGS,
	.ops = {
		.server_bind = seq_server_bind,
		.server_activate = seq_server_activate,
		.listener_close = seq_listener_close,
		.get_request = own_get_request,
	},
};

/* ---- a model: two threads and a queue -------------------------------------*/

enum { WORKERS = 2, QUEUE = 64 };

struct crew {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct ss_request *queue[QUEUE];
	int first, count;
	bool leaving;
	pthread_t thread[WORKERS];
	int started;
};

static int crew_process_request(struct ss_server *server,
				struct ss_request *req);
static int crew_server_activate(struct ss_server *server);
static int crew_server_close(struct ss_server *server);
static int crew_init(struct ss_server *server, const void *options);
static void crew_fini(struct ss_server *server);

static const struct ss_layer crew_mixin = {
	.name = "crew",
	.flags = SS_LAYER_DISPATCHES | SS_LAYER_THREADS,
	.server_size = sizeof(struct crew),
	.init = crew_init,
	.fini = crew_fini,
	.ops = {
		.server_activate = crew_server_activate,
		.process_request = crew_process_request,
		.server_close = crew_server_close,
	},
};

static struct crew *crew_of(struct ss_server *server)
{
	return ss_layer_state(server, &crew_mixin);
}

static int crew_init(struct ss_server *server, const void *options)
{
	(void)options;
	struct crew *crew = crew_of(server);
	pthread_mutex_init(&crew->lock, NULL);
	pthread_cond_init(&crew->more, NULL);
	return 0;
}

static void crew_fini(struct ss_server *server)
{
	struct crew *crew = crew_of(server);
	pthread_cond_destroy(&crew->more);
	pthread_mutex_destroy(&crew->lock);
}

static struct ss_request *crew_take(struct crew *crew)
{
	struct ss_request *req = NULL;
	pthread_mutex_lock(&crew->lock);
	while (!crew->count && !crew->leaving)
		pthread_cond_wait(&crew->more, &crew->lock);
	if (crew->count) {
		req = crew->queue[crew->first];
		crew->first = (crew->first + 1) % QUEUE;
		crew->count--;
	}
	pthread_mutex_unlock(&crew->lock);
	return req;
}

static void *crew_work(void *arg)
{
	struct ss_request *req;
	while ((req = crew_take(arg)))
		ss_request_run(req);
	return NULL;
}

static int crew_server_activate(struct ss_server *server)
{
	struct crew *crew = crew_of(server);
	int r = ss_super(server, &crew_mixin)->server_activate(server);
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (r == 0 && crew->started < WORKERS) {
		r = -pthread_create(&crew->thread[crew->started], NULL,
				    crew_work, crew);
		crew->started += r == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

static int crew_process_request(struct ss_server *server,
				struct ss_request *req)
{
	struct crew *crew = crew_of(server);
	int r = -EAGAIN;
	pthread_mutex_lock(&crew->lock);
	if (crew->count < QUEUE) {
		crew->queue[(crew->first + crew->count++) % QUEUE] = req;
		pthread_cond_signal(&crew->more);
		r = 0;
	}
	pthread_mutex_unlock(&crew->lock);
	return r;
}

static int crew_server_close(struct ss_server *server)
{
	struct crew *crew = crew_of(server);
	int abandoned = ss_super(server, &crew_mixin)->server_close(server);
	pthread_mutex_lock(&crew->lock);
	crew->leaving = true;
	pthread_cond_broadcast(&crew->more);
	pthread_mutex_unlock(&crew->lock);
	while (crew->started > 0)
		pthread_join(crew->thread[--crew->started], NULL);
	return abandoned;
}

/* ---- another: a detached thread for each ----------------------------------*/

static void *loose_run(void *req)
{
	ss_request_run(req);
	return NULL;
}

static int loose_process_request(struct ss_server *server,
				 struct ss_request *req)
{
	(void)server;
	pthread_t thread;
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int error = pthread_create(&thread, &attr, loose_run, req);
	pthread_attr_destroy(&attr);
	return -error;
}

static const struct ss_layer loose_mixin = {
	.name = "loose",
	.flags = SS_LAYER_DISPATCHES | SS_LAYER_THREADS,
	.ops = { .process_request = loose_process_request },
};

/* ---- a filter: the bytes below the stream, turned -------------------------*/

struct turn {
	struct ss_channel channel;
	unsigned char *bytes;
};

static int turn_finish_request(struct ss_server *server,
			       struct ss_request *req);

/* On the wire all letters are 13 places on. */
static const struct ss_layer turn_mixin = {
	.name = "rot13",
	.flags = SS_NEEDS_STREAM,
	.request_size = sizeof(struct turn),
	.ops = { .finish_request = turn_finish_request },
};

static void turn_bytes(unsigned char *to, const unsigned char *from, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = from[i], base = c >= 'a' ? 'a' : 'A';
		bool letter = c >= base && c < base + 26;
		to[i] = letter ? (unsigned char)((c - base + 13) % 26 + base)
			       : c;
	}
}

static ssize_t turn_read(struct ss_channel *channel, void *buf, size_t n,
			 struct ss_block *block)
{
	ssize_t r = ss_channel_read(channel->next, buf, n, block);
	if (r > 0)
		turn_bytes(buf, buf, (size_t)r);
	return r;
}

static ssize_t turn_writev(struct ss_channel *channel, const struct iovec *iov,
			   int count, struct ss_block *block)
{
	struct turn *turn = (struct turn *)channel;
	(void)count;
	size_t n = iov->iov_len < 4096 ? iov->iov_len : 4096;
	turn_bytes(turn->bytes, iov->iov_base, n);
	struct iovec turned = { turn->bytes, n };
	return ss_channel_writev(channel->next, &turned, 1, block);
}

static void turn_close(struct ss_channel *channel)
{
	free(((struct turn *)channel)->bytes);
}

static const struct ss_channel_ops turn_ops = {
	.read = turn_read,
	.writev = turn_writev,
	.close = turn_close,
};

static int turn_finish_request(struct ss_server *server, struct ss_request *req)
{
	struct turn *turn = ss_request_layer_state(req, &turn_mixin);
	turn->bytes = malloc(4096);
	if (!turn->bytes)
		return -ENOMEM;
	ss_channel_push(req, &turn->channel, &turn_ops);
	return ss_super(server, &turn_mixin)->finish_request(server, req);
}

/* ---- a handler ------------------------------------------------------------*/

/* It greets, answers each line in capitals, and says how many there were. */
struct talk {
	int lines;
};

static int talk_setup(struct ss_request *req)
{
	ssize_t n = ss_printf(req, "welcome\n");
	return n < 0 ? (int)n : 0;
}

static int talk_handle(struct ss_request *req)
{
	struct talk *talk = ss_state(req);
	char line[128];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	talk->lines++;
	for (ssize_t i = 0; i < n; i++)
		if (line[i] >= 'a' && line[i] <= 'z')
			line[i] = (char)(line[i] - 'a' + 'A');
	n = ss_write(req, line, (size_t)n);
	return n < 0 ? (int)n : SS_AGAIN;
}

static int talk_finish(struct ss_request *req)
{
	const struct talk *talk = ss_state(req);
	ssize_t n = ss_printf(req, "%d lines\n", talk->lines);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler talker = {
	.name = "talk",
	.size = sizeof(struct talk),
	.setup = talk_setup,
	.handle = talk_handle,
	.finish = talk_finish,
	.speaks_first = true,
};

/* ---- its clients ----------------------------------------------------------*/

/* Of these all the streams serve alike. */
struct kind {
	const char *name;
	const struct ss_layer *layer;
	bool packets; /* a client of SOCK_SEQPACKET */
};
static const struct kind kinds[] = {
	{ "seqpacket", &seq_server, true },
	{ "own-seqpacket", &own_server, true },
	{ "tcp", &ss_tcp_server, false },
	{ "unix", &ss_unix_stream_server, false },
};
enum { KINDS = sizeof(kinds) / sizeof(*kinds) };

static const char *address_of(const struct kind *kind)
{
	return fresh_address(
		&transports[kind->layer == &ss_tcp_server ? 0 : 2]);
}

static int visit(const struct kind *kind, const char *url)
{
	if (!kind->packets)
		return dial(url);
	struct ss_endpoint to;
	ck_assert_int_eq(ss_resolve(url, SS_SCHEME_UNIX, &to, 1, NULL), 1);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct timeval patience = { .tv_sec = WAIT_MS / 1000 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	ck_assert_int_eq(connect(fd, &to.address.u.sa, to.address.len), 0);
	return fd;
}

/* Record by record. */
static void converse(const struct kind *kind, const char *url, bool turned)
{
	int fd = visit(kind, url);
	expect_text(fd, turned ? "jrypbzr\n" : "welcome\n");
	send_text(fd, turned ? "uryyb\n" : "hello\n");
	expect_text(fd, turned ? "URYYB\n" : "HELLO\n");
	send_text(fd, turned ? "n1\na2\n" : "a1\nn2\n");
	expect_text(fd, turned ? "N1\n" : "A1\n");
	expect_text(fd, turned ? "A2\n" : "N2\n");
	ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
	expect_text(fd, turned ? "3 yvarf\n" : "3 lines\n");
	expect_end(fd);
	close(fd);
}

static void converse_much(const struct kind *kind, const char *url, bool turned)
{
	enum { TOGETHER = 10, TIMES = 3 };
	int idle[TOGETHER];
	for (int i = 0; i < TIMES; i++)
		converse(kind, url, turned);
	for (int i = 0; i < TOGETHER; i++)
		idle[i] = visit(kind, url);
	for (int i = 0; i < TOGETHER; i++)
		close(idle[i]);
	converse(kind, url, turned);
}

static void use(struct ss_config *config, const struct ss_layer *layer,
		const void *options)
{
	int i = 0;
	while (config->mixins[i].layer)
		i++;
	config->mixins[i] = (struct ss_use){ layer, options };
}

static struct ss_config talking(const struct kind *kind)
{
	return (struct ss_config){
		.addresses = { address_of(kind) },
		.transport = kind->layer,
		.handler = &talker,
		.log_level = SS_NONE,
	};
}

/* ---- theirs under ours, ours under theirs ---------------------------------*/

/* Our models, and theirs. */
static const struct ss_layer *const mixins[] = {
	NULL,		&ss_threading_mixin, &ss_forking_mixin,
	&ss_pool_mixin, &crew_mixin,
};
enum { MIXINS = sizeof(mixins) / sizeof(*mixins) };

START_TEST(users_layers_serve_in_every_combination)
{
	const struct kind *kind = &kinds[_i % KINDS];
	const struct ss_layer *mixin = mixins[_i / KINDS % MIXINS];
	bool turned = _i / KINDS / MIXINS;
	struct ss_config config = talking(kind);
	struct node node;
	if (turned)
		use(&config, &turn_mixin, NULL);
	if (mixin)
		use(&config, mixin, NULL);
	node_start(&node, &config);
	converse_much(kind, node.url, turned);
	ck_assert_int_eq(node_stop(&node), 0);
	if (kind->packets)
		ck_assert_int_eq(access(strchr(node.url, ':') + 1, F_OK), -1);
}
END_TEST

/* Its threads are nobody's, so that no count of them is asked for. */
START_TEST(users_detached_threads_serve)
{
	const struct kind *kind = &kinds[_i];
	struct ss_config config = talking(kind);
	struct served served;
	use(&config, &loose_mixin, NULL);
	served_start(&served, &config);
	converse_much(kind, served.url, false);
	served_stop(&served);
}
END_TEST

/* Silent clients do not hold a close, whoever made the transport. */
START_TEST(users_layers_stop_gracefully)
{
	const struct kind *kind = &kinds[_i % KINDS];
	const struct ss_layer *mixin = _i / KINDS ? &crew_mixin : &loose_mixin;
	struct ss_config config = talking(kind);
	struct served served;
	use(&config, mixin, NULL);
	served_start(&served, &config);
	int fd = visit(kind, served.url);
	expect_text(fd, "welcome\n");
	send_text(fd, "hello\n");
	expect_text(fd, "HELLO\n");
	int64_t from = clock_ms();
	served_stop(&served);
	ck_assert_int_lt(clock_ms() - from, SOON_MS);
	expect_text(fd, "1 lines\n");
	expect_end(fd);
	close(fd);
}
END_TEST

/* A queue that is full is an error of process_request, and costs one. */
static int wait_for_end(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler waiter = { .name = "wait",
					  .handle = wait_for_end };

START_TEST(users_models_may_turn_clients_away)
{
	const struct kind *kind = &kinds[_i];
	struct ss_config config = talking(kind);
	struct served served;
	struct ss_stats stats;
	int fd[WORKERS + QUEUE], served_first = 0;
	config.handler = &waiter;
	use(&config, &crew_mixin, NULL);
	served_start(&served, &config);
	for (int i = 0; i < WORKERS; i++)
		fd[served_first++] = visit(kind, served.url);
	struct crew *crew = crew_of(served.server);
	for (bool taken = false; !taken;) {
		ss_server_stats(served.server, &stats);
		pthread_mutex_lock(&crew->lock);
		taken = stats.active == WORKERS && !crew->count;
		pthread_mutex_unlock(&crew->lock);
	}
	for (int i = 0; i < QUEUE; i++)
		fd[WORKERS + i] = visit(kind, served.url);
	int more = visit(kind, served.url);
	expect_end(more);
	close(more);
	for (int i = 0; i < WORKERS + QUEUE; i++)
		close(fd[i]);
	eventually((ss_server_stats(served.server, &stats),
		    stats.ended == WORKERS + QUEUE + 1 && stats.active == 0));
	ck_assert_uint_eq(stats.refused[SS_REFUSED_PROCESS], 1);
	served_stop(&served);
}
END_TEST

/* ---- traced above and below -----------------------------------------------*/

static const char above[] =
	"get_request verify_request process_request finish_request setup "
	"handle handle finish shutdown_request close_request end_request";
/* The end of the chain is above it. */
static const char below[] =
	"get_request verify_request finish_request setup handle handle finish "
	"shutdown_request close_request end_request";

START_TEST(users_layers_are_traced_like_ours)
{
	const struct kind *kind = &kinds[_i % KINDS];
	bool first = _i / KINDS % 2;
	struct tape *tape = tape_new();
	struct ss_trace_options options = { .kinds = SS_TRACE_REQUEST,
					    .tell = tape_tell,
					    .arg = tape };
	struct ss_config config = talking(kind);
	struct node node;
	if (first)
		use(&config, &ss_trace_mixin, &options);
	use(&config, &crew_mixin, NULL);
	if (!first)
		use(&config, &ss_trace_mixin, &options);
	node_start(&node, &config);
	int fd = visit(kind, node.url);
	expect_text(fd, "welcome\n");
	send_text(fd, "hello\n");
	expect_text(fd, "HELLO\n");
	shutdown(fd, SHUT_WR);
	expect_text(fd, "1 lines\n");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_str_eq(tape_text(tape), first ? above : below);
}
END_TEST

START_TEST(users_layers_are_described_and_checked_like_ours)
{
	stack_nothing();
	struct ss_config config = talking(&kinds[0]);
	use(&config, &turn_mixin, NULL);
	use(&config, &crew_mixin, NULL);
	struct ss_server *server = made(&config);
	ck_assert_str_eq(ss_server_describe(server),
			 "rot13 > crew > seqpacket > base");
	ck_assert_int_eq(ss_server_free(server), 0);
	config.transport = &ss_unix_datagram_server;
	config.addresses[0] = fresh_address(&transports[3]);
	refused(&config, -EINVAL, "rot13 needs a stream transport");
	config = talking(&kinds[0]);
	use(&config, &ss_threading_mixin, NULL);
	use(&config, &crew_mixin, NULL);
	refused(&config, -EINVAL, "both run the requests");
	config = talking(&kinds[0]);
	use(&config, &crew_mixin, NULL);
	use(&config, &crew_mixin, NULL);
	refused(&config, -EINVAL, "named twice");
}
END_TEST

/* A place that is taken is said by their transport's own words. */
START_TEST(users_transports_say_why_they_fail)
{
	struct ss_config config = talking(&kinds[_i]);
	char address[SS_ADDRESS_TEXT];
	snprintf(address, sizeof(address), "%s", config.addresses[0]);
	config.addresses[0] = address;
	struct ss_server *server = made(&config);
	refused(&config, -EADDRINUSE, strerror(EADDRINUSE));
	ck_assert_int_eq(ss_server_free(server), 0);
	server = made(&config);
	ck_assert_int_eq(ss_server_free(server), 0);
	config.addresses[0] = "tcp://127.0.0.1:0";
	refused(&config, -EINVAL, "tcp://127.0.0.1:0");
}
END_TEST

/* ---- datagrams under their models -----------------------------------------*/

static int echo_packet(struct ss_request *req)
{
	const void *data;
	ssize_t n = ss_packet(req, &data);
	if (n >= 0)
		n = ss_write(req, data, (size_t)n);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler packets = { .name = "packets",
					   .handle = echo_packet };

START_TEST(users_models_serve_datagrams)
{
	const struct transport *transport =
		_i % 2 ? &transports[3] : &transports[1];
	struct ss_config config = {
		.addresses = { fresh_address(transport) },
		.transport = transport->layer,
		.handler = &packets,
	};
	struct served served;
	use(&config, _i / 2 ? &crew_mixin : &loose_mixin, NULL);
	served_start(&served, &config);
	for (int i = 0; i < 10; i++)
		echo_once(served.url, "hello");
	served_stop(&served);
}
END_TEST

Suite *t_user(void)
{
	Suite *suite = suite_create("t_user");
	TCase *tcase = tcase_create("user");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase, users_layers_serve_in_every_combination, 0,
			    2 * MIXINS * KINDS);
	tcase_add_loop_test(tcase, users_detached_threads_serve, 0, KINDS);
	tcase_add_loop_test(tcase, users_layers_stop_gracefully, 0, 2 * KINDS);
	tcase_add_loop_test(tcase, users_models_may_turn_clients_away, 0,
			    KINDS);
	tcase_add_loop_test(tcase, users_layers_are_traced_like_ours, 0,
			    2 * KINDS);
	tcase_add_test(tcase, users_layers_are_described_and_checked_like_ours);
	tcase_add_loop_test(tcase, users_transports_say_why_they_fail, 0, 2);
	tcase_add_loop_test(tcase, users_models_serve_datagrams, 0, 4);
	return suite;
}
