/*
 * Memory: clients and servers in one process, streams and packets, served by
 * whoever asks (sync, fiber) or beside it (threading, pool).
 */
#include "support.h"

#include <poll.h>
#include <sys/socket.h>

enum { TEXT = 256 };

/* Memory runs under these. */
static const struct ss_layer *const models_of_memory[] = {
	NULL, &ss_threading_mixin, &ss_pool_mixin, &ss_fiber_mixin
};
enum { MODELS = sizeof(models_of_memory) / sizeof(*models_of_memory) };

static const struct ss_pool_options crowd = { .threads = 32 };

static struct ss_config memory_config(const struct ss_handler *handler,
				      const struct ss_layer *mixin)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = handler };
	if (mixin)
		config.mixins[0].layer = mixin;
	if (mixin == &ss_pool_mixin)
		config.mixins[0].options = &crowd;
	return config;
}

static struct ss_config packet_config(const struct ss_handler *handler,
				      const struct ss_layer *mixin)
{
	struct ss_config config = memory_config(handler, mixin);
	config.transport = &ss_memory_datagram_server;
	return config;
}

static struct ss_memory_client *joined(struct ss_server *server)
{
	struct ss_memory_client *client;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_ptr_nonnull(client);
	return client;
}

static void says(struct ss_memory_client *client, const char *text)
{
	ck_assert_int_eq(ss_memory_send(client, text, strlen(text)),
			 (ssize_t)strlen(text));
}

static void hears(struct ss_memory_client *client, const char *text)
{
	char got[TEXT];
	size_t n = strlen(text), have = 0;
	while (have < n) {
		ssize_t r = ss_memory_recv(client, got + have, n - have);
		ck_assert_msg(r > 0, "%zd after %zu bytes of \"%s\"", r, have,
			      text);
		have += (size_t)r;
	}
	ck_assert_mem_eq(got, text, n);
}

static void hears_end(struct ss_memory_client *client)
{
	char byte;
	ck_assert_int_eq(ss_memory_recv(client, &byte, 1), 0);
}

static int lines_after_a_turn(struct ss_server *server)
{
	const struct tape *tape = ss_server_user(server);
	ck_assert_int_ge(ss_server_turn(server, 0), 0);
	return tape->count;
}

/* Of a handler that may run in no other thread than this one. */
static void noted(struct ss_server *server, int lines)
{
	eventually(lines_after_a_turn(server) >= lines);
	tape_wait(ss_server_user(server), lines);
}

static void freed(struct ss_server *server)
{
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}

static int echo(struct ss_request *req)
{
	char buf[TEXT];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler echo_handler = { .name = "echo",
						.handle = echo };

/*
 * Clients serve where nobody does, and would be in the way of a thread that is
 * only about to: this returns once it does.
 */
static atomic_bool serving;
static int begin_serving(struct ss_server *server);
static const struct ss_layer beginner = {
	.name = "beginner",
	.ops = { .serve_forever = begin_serving },
};

static int begin_serving(struct ss_server *server)
{
	serving = true;
	return ss_super(server, &beginner)->serve_forever(server);
}

static void serve_beside(struct served *served, struct ss_config *config)
{
	config->mixins[1] = config->mixins[0];
	config->mixins[0] = (struct ss_use){ &beginner, NULL };
	serving = false;
	served_start(served, config);
	eventually(serving);
}

/* ---- every order of a client's acts, under sync ---------------------------*/

/*
 * S sends, E ends its input, R receives, T lets the server take a turn, C
 * closes.  What must come of it follows from: the first R or T serves all
 * that was sent before it, and after that the request is over.
 */
struct script {
	bool ended, served, closed;
	int sent, due; /* bytes; not yet received */
};

static void act_send(struct script *s, struct ss_memory_client *client)
{
	bool over = s->ended || s->served;
	ck_assert_int_eq(ss_memory_send(client, "ab", 2), over ? -EPIPE : 2);
	if (!over)
		s->sent += 2;
}

static void serve(struct script *s)
{
	if (!s->served)
		s->due = s->closed ? 0 : s->sent;
	s->served = true;
}

static void act_receive(struct script *s, struct ss_memory_client *client)
{
	char got[TEXT];
	serve(s);
	ck_assert_int_eq(ss_memory_recv(client, got, sizeof(got)), s->due);
	for (int i = 0; i < s->due; i++)
		ck_assert_int_eq(got[i], "ab"[i % 2]);
	s->due = 0;
}

static void act(struct script *s, char what, struct ss_server *server,
		struct ss_memory_client *client)
{
	if (what == 'T') {
		ck_assert_int_eq(ss_server_turn(server, 0), !s->served);
		serve(s);
	} else if (s->closed) {
		return;
	} else if (what == 'S') {
		act_send(s, client);
	} else if (what == 'E') {
		ss_memory_shutdown(client);
		s->ended = true;
	} else if (what == 'R') {
		act_receive(s, client);
	} else {
		ss_memory_close(client);
		s->closed = true;
	}
}

static void play(const char *acts)
{
	struct ss_config config = memory_config(&echo_handler, NULL);
	config.log_level = SS_NONE;
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	struct script script = { .sent = 0 };
	for (const char *a = acts; *a; a++)
		act(&script, *a, server, client);
	if (!script.closed)
		ss_memory_close(client);
	struct ss_stats stats;
	ck_assert_int_eq(ss_server_close(server), 0);
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.accepted, 1);
	ck_assert_uint_eq(stats.ended, 1);
	ck_assert_int_eq(ss_server_free(server), 0);
}

static int permute(char *acts, size_t from, void (*fn)(const char *))
{
	size_t n = strlen(acts);
	if (from == n) {
		fn(acts);
		return 1;
	}
	int played = 0;
	for (size_t i = from; i < n; i++) {
		char first = acts[from];
		acts[from] = acts[i];
		acts[i] = first;
		played += permute(acts, from + 1, fn);
		acts[i] = acts[from];
		acts[from] = first;
	}
	return played;
}

START_TEST(memory_streams_in_every_order)
{
	char acts[] = "SSERTC";
	ck_assert_int_eq(permute(acts, 0, play), 720);
}
END_TEST

/* The same for packets: each is a request, and has a reply. */
static void play_packets(const char *acts)
{
	struct ss_config config = packet_config(&echo_handler, NULL);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	int sent = 0, served = 0, received = 0;
	for (const char *a = acts; *a; a++) {
		char packet[4] = { 'p', (char)('0' + sent) }, got[4];
		if (*a == 'S' || *a == 's') {
			ck_assert_int_eq(ss_memory_send(client, packet, 2), 2);
			sent++;
		} else if (*a == 'T') {
			ck_assert_int_eq(ss_server_turn(server, 0),
					 served < sent);
			served += served < sent;
		} else {
			if (received == served && served < sent)
				served++;
			packet[1] = (char)('0' + received);
			bool any = received < served;
			ck_assert_int_eq(
				ss_memory_recv(client, got, sizeof(got)),
				any ? 2 : -EAGAIN);
			received += any;
			if (any)
				ck_assert_mem_eq(got, packet, 2);
		}
	}
	ss_memory_close(client);
	freed(server);
}

START_TEST(memory_packets_in_every_order)
{
	char acts[] = "SSsRRT";
	ck_assert_int_eq(permute(acts, 0, play_packets), 720);
}
END_TEST

/* ---- several clients ------------------------------------------------------*/

static int numbers(struct ss_request *req)
{
	static int number;
	char buf[TEXT];
	while (ss_read(req, buf, sizeof(buf)) > 0)
		;
	ss_printf(req, "%d", number++);
	return 0;
}

START_TEST(memory_clients_are_served_in_the_order_of_connecting)
{
	struct ss_handler handler = { .handle = numbers };
	struct ss_config config = memory_config(&handler, NULL);
	struct ss_server *server = made(&config);
	struct ss_memory_client *clients[10];
	char digit[2] = "0";
	for (int i = 0; i < 10; i++)
		clients[i] = joined(server);
	says(clients[7], "hello");
	hears(clients[9], "9");
	for (int i = 0; i < 9; i++) {
		digit[0] = (char)('0' + i);
		hears(clients[i], digit);
		hears_end(clients[i]);
	}
	for (int i = 0; i < 10; i++)
		ss_memory_close(clients[i]);
	freed(server);
}
END_TEST

enum { TALKERS = 4, CLIENTS = 5, MESSAGES = 30 };

static void *talk(void *arg)
{
	struct ss_server *server = arg;
	struct ss_memory_client *clients[CLIENTS];
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = joined(server);
	for (int m = 0; m < MESSAGES; m++)
		for (int i = 0; i < CLIENTS; i++) {
			char text[32];
			snprintf(text, sizeof(text), "%d of %d\n", m, i);
			says(clients[i], text);
			hears(clients[i], text);
		}
	for (int i = 0; i < CLIENTS; i++) {
		ss_memory_shutdown(clients[i]);
		hears_end(clients[i]);
		ss_memory_close(clients[i]);
	}
	return NULL;
}

static void talk_together(struct ss_server *server)
{
	pthread_t talkers[TALKERS];
	for (int i = 0; i < TALKERS; i++)
		ck_assert_int_eq(
			pthread_create(&talkers[i], NULL, talk, server), 0);
	for (int i = 0; i < TALKERS; i++)
		ck_assert_int_eq(pthread_join(talkers[i], NULL), 0);
}

START_TEST(memory_clients_talk_at_once_beside_the_loop)
{
	struct ss_config config =
		memory_config(&echo_handler, models_of_memory[_i]);
	struct served served;
	serve_beside(&served, &config);
	talk_together(served.server);
	struct ss_stats stats;
	eventually((ss_server_stats(served.server, &stats), stats.ended) ==
		   TALKERS * CLIENTS);
	ck_assert_uint_eq(stats.accepted, TALKERS * CLIENTS);
	ck_assert_uint_eq(stats.bytes_in, stats.bytes_out);
	served_stop(&served);
}
END_TEST

/* Nobody else serves: who receives does. */
START_TEST(memory_clients_serve_themselves_beside_the_loop)
{
	struct ss_config config =
		memory_config(&echo_handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	talk(server);
	freed(server);
}
END_TEST

/* Its place is free only after the one before it has ended, on a thread. */
START_TEST(memory_clients_wait_for_a_place_beside_the_loop)
{
	struct ss_config config =
		memory_config(&echo_handler, models_of_memory[_i]);
	config.max_active = 1;
	struct ss_server *server = made(&config);
	for (int i = 0; i < 50; i++) {
		struct ss_memory_client *first = joined(server),
					*second = joined(server);
		says(first, "first");
		says(second, "second");
		hears(first, "first");
		ss_memory_close(first);
		hears(second, "second");
		ss_memory_close(second);
	}
	freed(server);
}
END_TEST

/* It is served whenever the server likes, before it has said all or after. */
START_TEST(memory_waits_for_a_sync_server_in_another_thread)
{
	struct ss_config config = memory_config(&echo_handler, NULL);
	struct served served;
	serve_beside(&served, &config);
	for (int i = 0; i < 20; i++) {
		struct ss_memory_client *client = joined(served.server);
		ssize_t sent = ss_memory_send(client, "a", 1);
		ck_assert(sent == 1 || sent == -EPIPE);
		char got[TEXT];
		ssize_t n = ss_memory_recv(client, got, sizeof(got));
		ck_assert(n == 0 || (n == 1 && sent == 1));
		ss_memory_close(client);
	}
	served_stop(&served);
}
END_TEST

/* ---- nothing but memory ---------------------------------------------------*/

START_TEST(memory_opens_nothing_and_starts_nothing_per_client)
{
	struct ss_config config =
		memory_config(&echo_handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	struct ss_memory_client *clients[20];
	int descriptors = open_descriptors(), running = threads();
	for (int i = 0; i < 20; i++) {
		clients[i] = joined(server);
		says(clients[i], "hello");
	}
	for (int i = 0; i < 20; i++)
		hears(clients[i], "hello");
	ck_assert_int_eq(open_descriptors(), descriptors);
	if (!models_of_memory[_i])
		ck_assert_int_eq(threads(), running);
	for (int i = 0; i < 20; i++)
		ss_memory_close(clients[i]);
	freed(server);
}
END_TEST

static int has_no_socket(struct ss_request *req)
{
	struct ss_address address;
	char name[SS_ADDRESS_TEXT];
	int value = 1;
	socklen_t len = sizeof(value);
	unsigned char byte;
	ck_assert_int_eq(ss_request_fd(req), -ENOTSUP);
	ck_assert_int_eq(ss_request_peer(req, &address), -ENOTSUP);
	ck_assert_int_eq(address.len, 0);
	ck_assert_int_eq(ss_request_local(req, &address), -ENOTSUP);
	ck_assert_int_eq(address.len, 0);
	ck_assert_str_eq(ss_peer_name(req, name, sizeof(name)), "-");
	ck_assert_int_eq(
		ss_request_getsockopt(req, SOL_SOCKET, SO_TYPE, &value, &len),
		-ENOTSUP);
	ck_assert_int_eq(ss_request_setsockopt(req, SOL_SOCKET, SO_KEEPALIVE,
					       &value, len),
			 -ENOTSUP);
	ck_assert_int_eq(ss_send_oob(req, 'x'), -ENOTSUP);
	ck_assert_int_eq(ss_recv_oob(req, &byte), -ENOTSUP);
	ck_assert_int_eq(ss_detach(req), -ENOTSUP);
	ck_assert_int_eq(ss_write(req, "ok", 2), 2);
	return 0;
}

START_TEST(memory_has_no_socket)
{
	struct ss_handler handler = { .handle = has_no_socket };
	char out[2];
	ck_assert_int_eq(ss_memory_exchange(&handler, "", 0, out, 2), 2);
	ck_assert_int_eq(ss_memory_exchange_packet(&handler, "", 0, out, 2), 2);
}
END_TEST

/* Nor can it serve one: its clock is not theirs. */
START_TEST(memory_serves_no_descriptor)
{
	struct ss_config config =
		memory_config(&echo_handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	int ends[2], descriptors = open_descriptors();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	ck_assert_int_eq(ss_serve_fd(server, ends[1]), -ENOTSUP);
	expect_end(ends[0]);
	close(ends[0]);
	ck_assert_int_eq(open_descriptors(), descriptors);
	freed(server);
}
END_TEST

START_TEST(memory_takes_addresses_of_its_own)
{
	struct ss_config config = memory_config(&echo_handler, NULL);
	char url[SS_ADDRESS_TEXT];
	struct ss_address address;
	struct ss_memory_client *client;
	config.addresses[0] = "memory:test";
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_listeners(server), 1);
	ck_assert_int_eq(ss_server_fileno(server, 0), -ENOTSUP);
	ck_assert_int_eq(ss_server_address(server, 0, &address), -ENOTSUP);
	freed(server);
	config.transport = NULL;
	server = made(&config);
	ck_assert(ss_server_transport(server) == &ss_memory_server);
	freed(server);
	config.transport = &ss_memory_server;
	config.addresses[0] = "tcp://127.0.0.1:0";
	refused(&config, -EINVAL, "tcp://127.0.0.1:0");
	config.addresses[0] = "fd:0";
	refused(&config, -EINVAL, "fd:0");
	config.addresses[0] = "127.0.0.1:0";
	config.transport = &ss_tcp_server;
	server = made(&config);
	ck_assert_int_eq(ss_memory_connect(server, &client), -EINVAL);
	ck_assert_ptr_null(client);
	ck_assert_ptr_nonnull(ss_server_url(server, 0, url, sizeof(url)));
	freed(server);
}
END_TEST

/* ---- half-close -----------------------------------------------------------*/

static int reads_then_writes(struct ss_request *req)
{
	char buf[TEXT];
	ssize_t n = ss_read_full(req, buf, sizeof(buf));
	ck_assert_int_ge(n, 0);
	ck_assert_int_eq(ss_write(req, buf, (size_t)n), n);
	return 0;
}

START_TEST(memory_end_of_input_lets_the_answer_through)
{
	struct ss_handler handler = { .handle = reads_then_writes };
	struct ss_config config = memory_config(&handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	says(client, "one ");
	says(client, "two");
	ss_memory_shutdown(client);
	ck_assert_int_eq(ss_memory_send(client, "x", 1), -EPIPE);
	hears(client, "one two");
	hears_end(client);
	hears_end(client);
	ss_memory_close(client);
	freed(server);
}
END_TEST

/* The server says its end first, and reads on. */
static int ends_then_reads(struct ss_request *req)
{
	char buf[TEXT];
	ck_assert_int_eq(ss_write(req, "bye", 3), 3);
	ck_assert_int_eq(ss_shutdown_stream(req, SHUT_WR), 0);
	ck_assert_int_eq(ss_write(req, "x", 1), -EPIPE);
	ssize_t n = ss_read_full(req, buf, 5);
	tape_note(ss_server_user(ss_request_server(req)), "%.*s",
		  n > 0 ? (int)n : 0, buf);
	ck_assert_int_eq(ss_read(req, buf, 1), 0);
	return 0;
}

START_TEST(memory_end_of_output_lets_the_input_through)
{
	struct ss_handler handler = { .handle = ends_then_reads,
				      .speaks_first = true };
	struct ss_config config = memory_config(&handler, models_of_memory[_i]);
	config.user = tape_new();
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	if (!models_of_memory[_i])
		says(client, "after");
	hears(client, "bye");
	hears_end(client);
	if (models_of_memory[_i])
		says(client, "after");
	ss_memory_shutdown(client);
	noted(server, 1);
	ck_assert_str_eq(tape_text(config.user), "after");
	ss_memory_close(client);
	freed(server);
	ss_shared_free(config.user, sizeof(struct tape));
}
END_TEST

static int stops_reading(struct ss_request *req)
{
	char byte;
	ck_assert_int_eq(ss_read(req, &byte, 1), 1);
	ck_assert_int_eq(ss_shutdown_stream(req, SHUT_RD), 0);
	ck_assert_int_eq(ss_read(req, &byte, 1), 0);
	ck_assert_int_eq(ss_read(req, &byte, 1), -ENODATA);
	ck_assert_int_eq(ss_write(req, "ok", 2), 2);
	return 0;
}

START_TEST(memory_reading_can_be_shut_down)
{
	struct ss_handler handler = { .handle = stops_reading };
	struct ss_config config = memory_config(&handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	says(client, "a");
	hears(client, "ok");
	hears_end(client);
	ss_memory_close(client);
	freed(server);
}
END_TEST

/* ---- closing --------------------------------------------------------------*/

START_TEST(memory_close_serves_who_waits)
{
	struct ss_config config =
		memory_config(&echo_handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	struct ss_memory_client *clients[3], *late;
	for (int i = 0; i < 3; i++) {
		clients[i] = joined(server);
		says(clients[i], "hello");
		ss_memory_shutdown(clients[i]);
	}
	ck_assert_int_eq(ss_server_close(server), 0);
	for (int i = 0; i < 3; i++) {
		hears(clients[i], "hello");
		hears_end(clients[i]);
		ck_assert_int_eq(ss_memory_send(clients[i], "x", 1), -EPIPE);
		ss_memory_close(clients[i]);
	}
	ck_assert_int_eq(ss_memory_connect(server, &late), -EBADF);
	ck_assert_ptr_null(late);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Packets that wait are served too; later ones are refused. */
START_TEST(memory_close_serves_packets_that_wait)
{
	struct ss_config config =
		packet_config(&echo_handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	char got[2];
	says(client, "a");
	says(client, "b");
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_memory_send(client, "c", 1), -EBADF);
	int sum = 0;
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(ss_memory_recv(client, got, 2), 1);
		sum += got[0];
	}
	ck_assert_int_eq(sum, 'a' + 'b');
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Who came, and finds no place until it is over, is told so. */
START_TEST(memory_close_ends_those_who_wait_in_vain)
{
	struct ss_config config = memory_config(&echo_handler, &ss_fiber_mixin);
	config.max_active = 1;
	config.drain_ms = 10;
	struct ss_server *server = made(&config);
	struct ss_memory_client *first = joined(server), *second;
	char byte;
	says(first, "x");
	hears(first, "x");
	says(first, "y");
	hears(first, "y");
	second = joined(server);
	says(second, "z");
	ss_shutdown(server);
	ss_shutdown(server);
	ck_assert_int_eq(ss_server_turn(server, 0), -ECANCELED);
	ck_assert_int_eq(ss_server_close(server), 0);
	hears_end(second);
	ck_assert_int_eq(ss_memory_send(second, "z", 1), -EPIPE);
	ck_assert_int_eq(ss_memory_try_recv(second, &byte, 1), 0);
	ss_memory_close(first);
	ss_memory_close(second);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* A closed server takes no turn in which an answer could come. */
START_TEST(memory_closed_gives_no_answer)
{
	struct ss_config config = packet_config(&echo_handler, NULL);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	char byte;
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_memory_recv(client, &byte, 1), -EBADF);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Between messages at once, within one at the drain deadline. */
START_TEST(memory_close_ends_silent_clients)
{
	struct ss_config config =
		memory_config(&echo_handler, models_of_memory[_i]);
	config.drain_ms = 50;
	struct served served;
	serve_beside(&served, &config);
	struct ss_memory_client *idle = joined(served.server);
	struct ss_memory_client *silent = joined(served.server);
	says(idle, "a");
	hears(idle, "a");
	struct ss_stats stats;
	eventually((ss_server_stats(served.server, &stats), stats.active) == 2);
	int64_t began = clock_ms();
	served.result = -1;
	ss_shutdown(served.server);
	ck_assert_int_eq(pthread_join(served.thread, NULL), 0);
	ck_assert_int_eq(ss_server_close(served.server), 0);
	ck_assert_int_ge(clock_ms() - began, 50);
	hears_end(idle);
	hears_end(silent);
	ss_memory_close(idle);
	ss_memory_close(silent);
	ck_assert_int_eq(ss_server_free(served.server), 0);
}
END_TEST

static int writes_to_nobody(struct ss_request *req)
{
	struct tape *tape = ss_server_user(ss_request_server(req));
	char byte;
	tape_note(tape, "began");
	ssize_t n = ss_read(req, &byte, 1);
	tape_note(tape, "%d", (int)n);
	n = ss_write(req, "x", 1);
	tape_note(tape, "%s", n == -EPIPE ? "EPIPE" : "?");
	ck_assert_uint_eq(ss_sent(req), 0);
	return 0;
}

START_TEST(memory_clients_may_leave)
{
	struct ss_handler handler = { .handle = writes_to_nobody,
				      .speaks_first = true };
	struct ss_config config = memory_config(&handler, models_of_memory[_i]);
	config.user = tape_new();
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	if (models_of_memory[_i]) {
		ck_assert_int_eq(ss_server_turn(server, 0), 1);
		noted(server, 1);
	}
	ss_memory_close(client);
	if (!models_of_memory[_i])
		ck_assert_int_eq(ss_server_turn(server, 0), 1);
	noted(server, 3);
	ck_assert_str_eq(tape_text(config.user), "began 0 EPIPE");
	freed(server);
	ss_memory_close(NULL);
	ss_shared_free(config.user, sizeof(struct tape));
}
END_TEST

static int first_request(void *arg, const struct ss_snapshot *snapshot)
{
	*(uint64_t *)arg = snapshot->id;
	return 1;
}

static int is_cancelled(struct ss_request *req)
{
	struct tape *tape = ss_server_user(ss_request_server(req));
	char byte;
	tape_note(tape, "began");
	ssize_t n = ss_read(req, &byte, 1);
	tape_note(tape, "%s", n == -ECANCELED ? "ECANCELED" : "?");
	n = ss_write(req, "x", 1);
	tape_note(tape, "%s", n == -ECANCELED ? "ECANCELED" : "?");
	return (int)n;
}

START_TEST(memory_requests_can_be_cancelled)
{
	struct ss_handler handler = { .handle = is_cancelled,
				      .speaks_first = true };
	struct ss_config config = memory_config(&handler, models_of_memory[_i]);
	config.user = tape_new();
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	ck_assert_int_eq(ss_server_turn(server, 0), 1);
	noted(server, 1);
	uint64_t id = 0;
	ck_assert_int_eq(ss_each(server, first_request, &id), 1);
	ck_assert_int_eq(ss_cancel(server, id), 0);
	hears_end(client);
	ck_assert_str_eq(tape_text(config.user), "began ECANCELED ECANCELED");
	ss_memory_close(client);
	freed(server);
	ss_shared_free(config.user, sizeof(struct tape));
}
END_TEST

/* ---- the gate -------------------------------------------------------------*/

/* Greets, so that a client knows when it is being served. */
static int greets(struct ss_request *req)
{
	char byte;
	ss_write(req, "hi", 2);
	ssize_t n = ss_read(req, &byte, 1);
	return (int)(n < 0 ? n : 0);
}

static const struct ss_handler greeter = { .handle = greets,
					   .speaks_first = true };

static void serve_one_after_the_other(const struct ss_layer *model,
				      enum ss_full full)
{
	struct ss_config config = memory_config(&greeter, model);
	config.max_active = 1;
	config.full = full;
	struct served served;
	serve_beside(&served, &config);
	struct ss_memory_client *clients[5];
	struct ss_stats stats;
	for (int i = 0; i < 5; i++)
		clients[i] = joined(served.server);
	for (int i = 0; i < 5; i++) {
		hears(clients[i], "hi");
		ss_server_stats(served.server, &stats);
		ck_assert_uint_eq(stats.active, 1);
		ss_memory_shutdown(clients[i]);
		hears_end(clients[i]);
		ss_memory_close(clients[i]);
	}
	served_stop(&served);
}

START_TEST(memory_clients_beyond_the_cap_wait)
{
	serve_one_after_the_other(models_of_memory[_i], SS_FULL_WAIT);
	serve_one_after_the_other(models_of_memory[_i], SS_FULL_QUEUE);
}
END_TEST

START_TEST(memory_clients_beyond_the_cap_are_refused)
{
	struct ss_config config = memory_config(&greeter, models_of_memory[_i]);
	config.max_active = 1;
	config.full = SS_FULL_REFUSE;
	config.refusal = "busy";
	struct served served;
	serve_beside(&served, &config);
	struct ss_memory_client *first = joined(served.server);
	hears(first, "hi");
	struct ss_memory_client *second = joined(served.server);
	hears(second, "busy");
	hears_end(second);
	ss_memory_close(second);
	ss_memory_shutdown(first);
	hears_end(first);
	ss_memory_close(first);
	served_stop(&served);
}
END_TEST

/* ---- packets --------------------------------------------------------------*/

static int answers_thrice(struct ss_request *req)
{
	const void *data;
	ssize_t n = ss_packet(req, &data);
	ck_assert(ss_request_dgram(req));
	ck_assert(!ss_packet_truncated(req));
	ck_assert_int_eq(ss_send_to(req, data, (size_t)n, NULL), n);
	ck_assert_int_eq(ss_write(req, "a", 1), 1);
	ck_assert_int_eq(ss_write(req, "b", 1), 1);
	ck_assert_int_eq(ss_flush(req), 0);
	ck_assert_int_eq(ss_flush(req), 0);
	struct ss_address nowhere = { .len = 0 };
	ck_assert_int_eq(ss_send_to(req, "x", 1, &nowhere), -ENOTSUP);
	ck_assert_int_eq(ss_write(req, "c", 1), 1);
	return 0;
}

START_TEST(memory_packets_keep_their_order_and_bounds)
{
	struct ss_handler handler = { .handle = answers_thrice };
	struct ss_config config = packet_config(&handler, NULL);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	char got[8];
	says(client, "hello");
	says(client, "");
	ck_assert_int_eq(ss_memory_recv(client, got, sizeof(got)), 5);
	ck_assert_mem_eq(got, "hello", 5);
	ck_assert_int_eq(ss_memory_recv(client, got, sizeof(got)), 2);
	ck_assert_mem_eq(got, "ab", 2);
	ck_assert_int_eq(ss_memory_recv(client, got, sizeof(got)), 1);
	ck_assert_mem_eq(got, "c", 1);
	ck_assert_int_eq(ss_memory_recv(client, got, sizeof(got)), 0);
	ck_assert_int_eq(ss_memory_recv(client, got, 1), 1);
	ck_assert_mem_eq(got, "a", 1);
	ck_assert_int_eq(ss_memory_recv(client, got, sizeof(got)), 1);
	ck_assert_int_eq(ss_memory_recv(client, got, sizeof(got)), -EAGAIN);
	ss_memory_close(client);
	freed(server);
}
END_TEST

START_TEST(memory_packets_of_two_clients_do_not_mix)
{
	struct ss_config config = packet_config(&echo_handler, NULL);
	struct ss_server *server = made(&config);
	struct ss_memory_client *a = joined(server), *b = joined(server);
	says(a, "a1");
	says(b, "b1");
	says(a, "a2");
	hears(b, "b1");
	hears(a, "a1");
	hears(a, "a2");
	ss_memory_close(a);
	says(b, "b2");
	ss_memory_close(b);
	freed(server);
}
END_TEST

/* Their order is nobody's promise there; none is lost. */
START_TEST(memory_packets_all_come_back_beside_the_loop)
{
	struct ss_config config =
		packet_config(&echo_handler, models_of_memory[_i]);
	struct served served;
	serve_beside(&served, &config);
	struct ss_memory_client *client = joined(served.server);
	enum { PACKETS = 200 };
	int sum = 0;
	for (int i = 0; i < PACKETS; i++)
		ck_assert_int_eq(ss_memory_send(client, &i, sizeof(i)),
				 sizeof(i));
	for (int i = 0; i < PACKETS; i++) {
		int got = 0;
		ck_assert_int_eq(ss_memory_recv(client, &got, sizeof(got)),
				 sizeof(got));
		sum += got;
	}
	ck_assert_int_eq(sum, PACKETS * (PACKETS - 1) / 2);
	ss_memory_close(client);
	served_stop(&served);
}
END_TEST

static int says_nothing(struct ss_request *req)
{
	(void)req;
	return 0;
}

/* Under threading it waits a while first. */
START_TEST(memory_says_when_there_is_no_answer)
{
	struct ss_handler handler = { .handle = says_nothing };
	struct ss_config config = packet_config(&handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	char byte;
	int64_t began = clock_ms();
	says(client, "anybody?");
	ck_assert_int_eq(ss_memory_recv(client, &byte, 1), -EAGAIN);
	ck_assert_int_lt(clock_ms() - began, 1000 + WAIT_MS);
	ss_memory_close(client);
	freed(server);
}
END_TEST

/* ---- a handler's test in one call -----------------------------------------*/

static int answers_ten(struct ss_request *req)
{
	return (int)(ss_write(req, "0123456789", 10) < 0 ? -EIO : 0);
}

static int fails_after_writing(struct ss_request *req)
{
	ss_write(req, "some", 4);
	return ss_fail(req, -EXDEV, "on purpose");
}

static int fails_at_once(struct ss_request *req)
{
	(void)req;
	return -EDOM;
}

static int answers_emptily(struct ss_request *req)
{
	return (int)ss_write(req, NULL, 0);
}

static int counts_its_input(struct ss_request *req)
{
	char buf[1000];
	size_t total = 0;
	ssize_t n;
	while ((n = ss_read(req, buf, sizeof(buf))) > 0)
		total += (size_t)n;
	ck_assert_int_eq(n, 0);
	ss_printf(req, "%zu", total);
	return 0;
}

START_TEST(memory_exchange_tells_the_whole_length)
{
	struct ss_handler handler = { .handle = answers_ten };
	char out[12] = "";
	ck_assert_int_eq(ss_memory_exchange(&handler, "", 0, out, 12), 10);
	ck_assert_str_eq(out, "0123456789");
	memset(out, '.', sizeof(out));
	ck_assert_int_eq(ss_memory_exchange(&handler, NULL, 0, out, 4), 10);
	ck_assert_mem_eq(out, "0123........", 12);
	ck_assert_int_eq(ss_memory_exchange(&handler, "x", 1, NULL, 0), 10);

	memset(out, '.', sizeof(out));
	ck_assert_int_eq(ss_memory_exchange_packet(&handler, "", 0, out, 4),
			 10);
	ck_assert_mem_eq(out, "0123........", 12);
	ck_assert_int_eq(ss_memory_exchange_packet(&handler, "", 0, NULL, 0),
			 10);
}
END_TEST

START_TEST(memory_exchange_tells_the_failure)
{
	char out[8];
	struct ss_handler failing = { .handle = fails_after_writing };
	ck_assert_int_eq(ss_memory_exchange(&failing, "", 0, out, 8), -EXDEV);
	ck_assert_int_eq(ss_memory_exchange_packet(&failing, "", 0, out, 8),
			 -EXDEV);
	struct ss_handler in_setup = { .setup = fails_at_once,
				       .handle = answers_ten };
	ck_assert_int_eq(ss_memory_exchange(&in_setup, "", 0, out, 8), -EDOM);
	ck_assert_int_eq(ss_memory_exchange_packet(&in_setup, "", 0, out, 8),
			 -EDOM);
	struct ss_handler in_finish = { .handle = answers_ten,
					.finish = fails_at_once };
	ck_assert_int_eq(ss_memory_exchange(&in_finish, "", 0, out, 8), -EDOM);
	struct ss_handler without = { .name = "no handle" };
	ck_assert_int_eq(ss_memory_exchange(&without, "", 0, out, 8), -EINVAL);
	ck_assert_int_eq(ss_memory_exchange_packet(&without, "", 0, out, 8),
			 -EINVAL);
}
END_TEST

START_TEST(memory_exchange_of_packets_tells_empty_from_none)
{
	char out[8];
	struct ss_handler none = { .handle = says_nothing };
	ck_assert_int_eq(ss_memory_exchange_packet(&none, "x", 1, out, 8),
			 -EAGAIN);
	struct ss_handler empty = { .handle = answers_emptily };
	ck_assert_int_eq(ss_memory_exchange_packet(&empty, "x", 1, out, 8), 0);
	ck_assert_int_eq(ss_memory_exchange(&empty, "x", 1, out, 8), 0);
}
END_TEST

START_TEST(memory_exchange_takes_any_size)
{
	struct ss_handler handler = { .handle = counts_its_input };
	enum { MUCH = 1000000 };
	static char out[65507];
	char digits[8] = "", *in = ss_shared_alloc(MUCH);
	ck_assert_ptr_nonnull(in);
	ck_assert_int_eq(ss_memory_exchange(&handler, in, MUCH, digits, 8), 7);
	ck_assert_str_eq(digits, "1000000");
	struct ss_handler back = { .handle = reads_then_writes };
	ck_assert_int_eq(
		ss_memory_exchange_packet(&back, in, TEXT, out, sizeof(out)),
		TEXT);
	memset(digits, 0, sizeof(digits));
	ck_assert_int_eq(
		ss_memory_exchange_packet(&handler, in, 65507, digits, 8), 5);
	ck_assert_str_eq(digits, "65507");
}
END_TEST

/* ---- waiting --------------------------------------------------------------*/

static int waits_for_input(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct ss_wait wait = { .req = req, .events = POLLIN };
	int64_t began = ss_now(server);
	char byte;
	ck_assert_int_eq(ss_wait_any(req, &wait, 1, began + 3600000), 1);
	ck_assert_int_eq(wait.revents, POLLIN);
	ck_assert_int_eq(ss_read(req, &byte, 1), 1);
	ck_assert_int_eq(byte, 'a');
	ck_assert_int_eq(ss_write(req, "a", 1), 1);
	return 0;
}

static int waits_in_vain(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct ss_wait wait = { .req = req, .events = POLLIN };
	int64_t began = ss_now(server);
	ck_assert_int_eq(ss_wait_any(req, &wait, 1, began + 3600000), 0);
	ck_assert_int_eq(ss_now(server) - began, 3600000);
	wait.events = POLLIN | POLLOUT;
	ck_assert_int_eq(ss_wait_any(req, &wait, 1, began), 1);
	ck_assert_int_eq(wait.revents, POLLOUT);
	ck_assert_int_eq(ss_write(req, "no", 2), 2);
	return 0;
}

START_TEST(memory_streams_can_be_waited_for_under_sync)
{
	struct ss_handler handler = { .handle = waits_for_input };
	char out;
	ck_assert_int_eq(ss_memory_exchange(&handler, "a", 1, &out, 1), 1);
	handler.handle = waits_in_vain;
	struct ss_config config = memory_config(&handler, NULL);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	hears(client, "no");
	ss_memory_close(client);
	freed(server);
}
END_TEST

START_TEST(memory_streams_can_be_waited_for_beside_the_loop)
{
	struct ss_handler handler = { .handle = waits_for_input };
	struct ss_config config = memory_config(&handler, models_of_memory[_i]);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	ck_assert_int_eq(ss_server_turn(server, 0), 1);
	/* Most likely it waits by now; either way it must see this. */
	pause_ms(20);
	says(client, "a");
	hears(client, "a");
	hears_end(client);
	ss_memory_close(client);
	freed(server);
}
END_TEST

/* Beside a stream, what is a descriptor. */
static int pipe_ends[2];

static int waits_for_either(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct ss_wait waits[] = { { .req = req, .events = POLLIN },
				   { .fd = pipe_ends[0], .events = POLLIN } };
	char byte;
	/* Neither in time. */
	ck_assert_int_eq(ss_wait_any(req, waits, 2, ss_now(server) + 5), 0);
	ck_assert_int_eq(write(pipe_ends[1], "p", 1), 1);
	ck_assert_int_eq(ss_wait_any(req, waits, 2, SS_NONE), 1);
	ck_assert_int_eq(waits[0].revents, 0);
	ck_assert_int_eq(waits[1].revents, POLLIN);
	ck_assert_int_eq(read(pipe_ends[0], &byte, 1), 1);
	waits[0].events = POLLIN | POLLOUT;
	ck_assert_int_eq(ss_wait_any(req, waits, 2, SS_NONE), 1);
	ck_assert_int_eq(waits[0].revents, POLLOUT);
	ck_assert_int_eq(ss_write(req, "wait", 4), 4);
	waits[0].events = POLLIN;
	ck_assert_int_eq(ss_wait_any(req, waits, 2, SS_NONE), 1);
	ck_assert_int_eq(waits[0].revents, POLLIN);
	ck_assert_int_eq(waits[1].revents, 0);
	ssize_t n = ss_read(req, &byte, 1);
	return (int)ss_printf(req, "%zd", n) < 0;
}

/* Under sync nobody else runs who could say more: it is the end. */
START_TEST(memory_streams_are_waited_for_beside_descriptors)
{
	struct ss_handler handler = { .handle = waits_for_either,
				      .speaks_first = true };
	struct ss_config config = memory_config(&handler, models_of_memory[_i]);
	ck_assert_int_eq(pipe(pipe_ends), 0);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	hears(client, "wait");
	if (_i)
		says(client, "a");
	hears(client, _i ? "1" : "0");
	hears_end(client);
	ss_memory_close(client);
	freed(server);
	close(pipe_ends[0]);
	close(pipe_ends[1]);
}
END_TEST

static void *write_later(void *arg)
{
	pause_ms(20);
	ck_assert_int_eq(write(pipe_ends[1], arg, 1), 1);
	return NULL;
}

static int waits_for_a_thread(struct ss_request *req)
{
	static char byte[] = "t";
	pthread_t thread;
	struct ss_wait wait = { .fd = pipe_ends[0], .events = POLLIN };
	pthread_create(&thread, NULL, write_later, byte);
	ck_assert_int_eq(ss_wait_any(req, &wait, 1, SS_NONE), 1);
	ck_assert_int_eq(wait.revents, POLLIN);
	pthread_join(thread, NULL);
	return ss_write(req, "t", 1) < 0;
}

/* Whose time is not the clients' to make go by. */
START_TEST(memory_waits_for_descriptors_in_real_time)
{
	struct ss_handler handler = { .handle = waits_for_a_thread };
	char out;
	ck_assert_int_eq(pipe(pipe_ends), 0);
	ck_assert_int_eq(ss_memory_exchange(&handler, "", 0, &out, 1), 1);
	close(pipe_ends[0]);
	close(pipe_ends[1]);
}
END_TEST

/* A bell rings for input where room was waited for: it waits on. */
static atomic_bool full;

static int waits_for_room(struct ss_request *req)
{
	struct ss_wait wait = { .req = req, .events = POLLOUT };
	char byte;
	ck_assert_int_eq(ss_write(req, "1234", 4), 4);
	full = true;
	ck_assert_int_eq(ss_wait_any(req, &wait, 1, SS_NONE), 1);
	ck_assert_int_eq(wait.revents, POLLOUT);
	ck_assert_int_eq(ss_read(req, &byte, 1), 1);
	return ss_write(req, &byte, 1) < 0;
}

START_TEST(memory_input_is_no_room)
{
	struct ss_handler handler = { .handle = waits_for_room,
				      .speaks_first = true };
	struct ss_config config = memory_config(&handler, &ss_threading_mixin);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	ss_memory_limit(client, 4);
	ck_assert_int_eq(ss_server_turn(server, 0), 1);
	eventually(full);
	pause_ms(10);
	says(client, "x");
	pause_ms(10);
	hears(client, "1234x");
	hears_end(client);
	ss_memory_close(client);
	freed(server);
}
END_TEST

/* ---- parked handlers, and a clock that jumps ------------------------------*/

static struct ss_config fiber_config(const struct ss_handler *handler)
{
	return memory_config(handler, &ss_fiber_mixin);
}

enum { HOUR = 3600000 };

/* Asks, and keeps its place on its stack while the answer is awaited. */
static int talks(struct ss_request *req)
{
	char name[TEXT], answer[TEXT];
	ss_printf(req, "name?");
	ssize_t n = ss_read_line(req, name, sizeof(name));
	for (int i = 1; n > 0; i++) {
		name[strcspn(name, "\n")] = '\0';
		ss_printf(req, "%s %d?", name, i);
		n = ss_read_line(req, answer, sizeof(answer));
		if (n > 0)
			ss_printf(req, "%s", answer);
	}
	ss_printf(req, n == 0 ? "bye" : "late");
	return (int)n;
}

static const struct ss_handler talker = { .handle = talks,
					  .speaks_first = true };

START_TEST(memory_handlers_wait_for_their_clients_under_fiber)
{
	struct ss_config config = fiber_config(&talker);
	struct ss_server *server = made(&config);
	struct ss_memory_client *a = joined(server), *b = joined(server);
	char byte;
	int64_t began = ss_now(server);
	hears(a, "name?");
	says(a, "an");
	hears(b, "name?");
	says(b, "bob\n");
	ck_assert_int_eq(ss_memory_recv(a, &byte, 1), -EAGAIN);
	says(a, "n\n");
	hears(a, "ann 1?");
	says(a, "one\ntwo\n");
	hears(b, "bob 1?");
	hears(a, "one\nann 2?two\nann 3?");
	ss_memory_shutdown(a);
	hears(a, "bye");
	hears_end(a);
	says(b, "three\n");
	ss_memory_shutdown(b);
	hears(b, "three\nbob 2?bye");
	hears_end(b);
	ck_assert_int_eq(ss_now(server), began);
	ss_memory_close(a);
	ss_memory_close(b);
	freed(server);
}
END_TEST

/* Nothing tells of it afterwards. */
START_TEST(memory_ends_before_the_server_looks_are_seen_under_fiber)
{
	struct ss_handler handlers[] = { talker, echo_handler };
	for (int i = 0; i < 4; i++) {
		struct ss_config config = fiber_config(&handlers[i % 2]);
		struct ss_server *server = made(&config);
		struct ss_memory_client *client = joined(server);
		if (i > 1)
			says(client, "x\n");
		ss_memory_shutdown(client);
		char got[TEXT];
		while (ss_memory_recv(client, got, sizeof(got)) > 0)
			;
		hears_end(client);
		ss_memory_close(client);
		freed(server);
	}
}
END_TEST

/* Two handlers: the first passes on what the other has brought, when told. */
struct pair {
	uint64_t ids[2];
	char text[TEXT];
};

static int passes_on(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct pair *pair = ss_server_user(server);
	int me = pair->ids[0] != 0;
	pair->ids[me] = ss_request_id(req);
	ssize_t n;
	char line[TEXT];
	if (me == 0) {
		while (ss_wait_any(req, NULL, 0, SS_NONE) == -EINTR)
			ss_printf(req, "%s", pair->text);
		return 0;
	}
	while ((n = ss_read_line(req, line, sizeof(line))) > 0) {
		memcpy(pair->text, line, (size_t)n + 1);
		ck_assert_int_eq(ss_wake(server, pair->ids[0]), 0);
	}
	ss_cancel(server, pair->ids[0]);
	return (int)n;
}

START_TEST(memory_handlers_wake_one_another_under_fiber)
{
	struct ss_handler handler = { .handle = passes_on,
				      .speaks_first = true };
	struct ss_config config = fiber_config(&handler);
	struct pair pair = { .text = "" };
	config.user = &pair;
	struct ss_server *server = made(&config);
	struct ss_memory_client *to = joined(server), *from = joined(server);
	for (int i = 0; i < 100; i++) {
		char line[16];
		snprintf(line, sizeof(line), "%d\n", i);
		says(from, line);
		hears(to, line);
	}
	ss_memory_close(from);
	hears_end(to);
	ss_memory_close(to);
	freed(server);
}
END_TEST

/* The first waits for both streams, and relays; the other lends its own. */
struct relay {
	struct ss_request *lent;
	uint64_t lender;
	bool over;
};

static int lends(struct ss_request *req, struct relay *relay)
{
	relay->lent = req;
	relay->lender = ss_request_id(req);
	while (!relay->over)
		ss_wait_any(req, NULL, 0, SS_NONE);
	return 0;
}

static int relays(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct relay *relay = ss_server_user(server);
	if (!relay->lent)
		return lends(req, relay);
	struct ss_wait waits[] = { { .req = req, .events = POLLIN },
				   { .req = relay->lent, .events = POLLIN } };
	while (!relay->over && ss_wait_any(req, waits, 2, SS_NONE) > 0)
		for (int i = 0; i < 2; i++) {
			char buf[TEXT];
			ssize_t n = 0;
			if (!waits[i].revents)
				continue;
			n = ss_read(waits[i].req, buf, sizeof(buf));
			if (n > 0)
				n = ss_write(waits[!i].req, buf, (size_t)n);
			relay->over = relay->over || n <= 0;
		}
	ss_wake(server, relay->lender);
	return 0;
}

START_TEST(memory_streams_are_relayed_under_fiber)
{
	struct ss_handler handler = { .handle = relays, .speaks_first = true };
	struct ss_config config = fiber_config(&handler);
	struct relay relay = { NULL, 0, false };
	config.user = &relay;
	struct ss_server *server = made(&config);
	struct ss_memory_client *a = joined(server), *b = joined(server);
	char byte;
	says(a, "early");
	hears(b, "early");
	ck_assert_int_eq(ss_memory_recv(a, &byte, 1), -EAGAIN);
	for (int i = 0; i < 10; i++) {
		says(b, "b to a");
		hears(a, "b to a");
		says(a, "a to b");
		says(b, "both");
		hears(b, "a to b");
		hears(a, "both");
	}
	ss_memory_shutdown(a);
	hears_end(b);
	hears_end(a);
	ss_memory_close(a);
	ss_memory_close(b);
	freed(server);
}
END_TEST

/* Which bound strikes, and when, by the server's clock. */
/* Who waits for another's stream, and gives up before its owner does, is in
 * nobody's way: he stands behind all others in the source's list. */
static int reads_late(struct ss_request *req, struct relay *relay)
{
	char line[TEXT];
	relay->lent = req;
	ck_assert_int_eq(ss_sleep(req, 20), 0);
	ssize_t n = ss_read_line(req, line, sizeof(line));
	ck_assert(relay->over);
	return ss_printf(req, "%.*s", (int)n, line) < 0;
}

static int looks_on(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct relay *relay = ss_server_user(server);
	if (!relay->lent)
		return reads_late(req, relay);
	struct ss_wait wait = { .req = relay->lent, .events = POLLIN };
	int ms = relay->over ? 80 : 60;
	relay->over = true;
	ck_assert_int_eq(ss_wait_any(req, &wait, 1, ss_now(server) + ms), 0);
	return ss_printf(req, "nothing") < 0;
}

START_TEST(memory_streams_are_looked_at_by_others_under_fiber)
{
	struct ss_handler handler = { .handle = looks_on,
				      .speaks_first = true };
	struct ss_config config = fiber_config(&handler);
	struct relay relay = { .lent = NULL };
	config.user = &relay;
	struct ss_server *server = made(&config);
	struct ss_memory_client *lender = joined(server), *others[2];
	for (int i = 0; i < 2; i++)
		others[i] = joined(server);
	for (int i = 0; i < 2; i++) {
		hears(others[i], "nothing");
		hears_end(others[i]);
		ss_memory_close(others[i]);
	}
	says(lender, "still here\n");
	hears(lender, "still here\n");
	hears_end(lender);
	ss_memory_close(lender);
	freed(server);
}
END_TEST

START_TEST(memory_time_outs_jump_under_fiber)
{
	static const struct {
		struct ss_timeouts timeouts;
		const char *says;
		int after;
		const char *hears; /* total_ms bounds output too */
	} cases[] = {
		{ { .first_byte_ms = HOUR }, "", HOUR, "late" },
		{ { .io_ms = HOUR, .idle_ms = 2 * HOUR }, "a", HOUR, "late" },
		{ { .io_ms = HOUR, .idle_ms = 2 * HOUR },
		  "a\n",
		  2 * HOUR,
		  "late" },
		{ { .io_ms = 2 * HOUR, .total_ms = HOUR }, "a\n", HOUR, "" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ss_handler handler = talker;
		handler.timeouts = cases[i].timeouts;
		struct ss_config config = fiber_config(&handler);
		config.log_level = SS_NONE;
		struct ss_server *server = made(&config);
		struct ss_memory_client *client = joined(server);
		int64_t began = ss_now(server), real = clock_ms();
		hears(client, "name?");
		says(client, cases[i].says);
		if (strchr(cases[i].says, '\n'))
			hears(client, "a 1?");
		ck_assert_int_eq(ss_now(server), began);
		hears(client, cases[i].hears);
		hears_end(client);
		ck_assert_int_eq(ss_now(server) - began, cases[i].after);
		ck_assert_int_lt(clock_ms() - real, WAIT_MS);
		ss_memory_close(client);
		freed(server);
	}
}
END_TEST

static int sleeps_then_tells(struct ss_request *req)
{
	struct tape *tape = ss_server_user(ss_request_server(req));
	char buf[TEXT] = "";
	ssize_t n = ss_read(req, buf, sizeof(buf) - 1);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(ss_sleep(req, atoi(buf)), 0);
	tape_note(tape, "%s", buf);
	ck_assert_int_eq(ss_write(req, buf, (size_t)n), n);
	return 0;
}

/* All of them sleep at once, and wake in the order of their times. */
static void sleep_together(struct ss_config *config)
{
	static const char *const times[] = { "500", "3600000", "20", "86400000",
					     "1000" };
	enum { N = sizeof(times) / sizeof(*times) };
	struct ss_memory_client *clients[N];
	config->user = tape_new();
	struct ss_server *server = made(config);
	int64_t began = ss_now(server), real = clock_ms();
	for (int i = 0; i < N; i++) {
		clients[i] = joined(server);
		says(clients[i], times[i]);
	}
	hears(clients[3], times[3]);
	ck_assert_int_eq(ss_now(server) - began, 86400000);
	ck_assert_int_lt(clock_ms() - real, WAIT_MS);
	ck_assert_str_eq(tape_text(config->user),
			 "20 500 1000 3600000 86400000");
	for (int i = 0; i < N; i++)
		ss_memory_close(clients[i]);
	freed(server);
	ss_shared_free(config->user, sizeof(struct tape));
}

START_TEST(memory_sleepers_wake_in_order_under_fiber)
{
	struct ss_handler handler = { .handle = sleeps_then_tells };
	struct ss_config config = fiber_config(&handler);
	sleep_together(&config);
	config.transport = &ss_memory_datagram_server;
	sleep_together(&config);
}
END_TEST

/* A client that hears nothing lets the time pass that others wait for, and no
 * more. */
START_TEST(memory_time_stands_still_for_who_waits_for_ever)
{
	struct ss_config config = fiber_config(&talker);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	int64_t began = ss_now(server), real = clock_ms();
	char byte;
	hears(client, "name?");
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(ss_memory_recv(client, &byte, 1), -EAGAIN);
	ck_assert_int_eq(ss_now(server), began);
	ck_assert_int_eq(ss_server_turn(server, began + HOUR), 0);
	ck_assert_int_eq(ss_now(server), began + HOUR);
	ck_assert_int_lt(clock_ms() - real, WAIT_MS);
	ss_memory_close(client);
	freed(server);
}
END_TEST

static int doubles(void *arg)
{
	pause_ms(20);
	return *(int *)arg *= 2;
}

static int offloads(struct ss_request *req)
{
	int number = 21;
	int64_t began = ss_now(ss_request_server(req));
	ck_assert_int_eq(ss_offload(req, doubles, &number), 42);
	ck_assert_int_eq(ss_now(ss_request_server(req)), began);
	ss_printf(req, "%d", number);
	return 0;
}

/* Another's time-out must not come to pass in between. */
START_TEST(memory_time_stands_still_for_who_computes_under_fiber)
{
	struct ss_handler handler = { .handle = offloads,
				      .speaks_first = true };
	struct ss_config config = fiber_config(&handler);
	config.timeouts.total_ms = HOUR;
	struct ss_server *server = made(&config);
	struct ss_memory_client *clients[] = { joined(server), joined(server) };
	for (int i = 0; i < 2; i++) {
		hears(clients[i], "42");
		hears_end(clients[i]);
		ss_memory_close(clients[i]);
	}
	freed(server);
}
END_TEST

/* Where another thread serves, a client's silence takes its time. */
START_TEST(memory_time_is_real_beside_a_serving_thread_under_fiber)
{
	struct ss_handler handler = talker;
	handler.timeouts.io_ms = 100;
	struct ss_config config = fiber_config(&handler);
	config.log_level = SS_NONE;
	struct served served;
	serve_beside(&served, &config);
	struct ss_memory_client *client = joined(served.server);
	int64_t real = clock_ms(), began = ss_now(served.server);
	hears(client, "name?late");
	hears_end(client);
	ck_assert_int_ge(clock_ms() - real, 99);
	ck_assert_int_ge(ss_now(served.server) - began, 99);
	ck_assert_int_lt(ss_now(served.server) - began, WAIT_MS);
	ss_memory_close(client);
	served_stop(&served);
}
END_TEST

/* Handlers in the midst of something have until the drain deadline, which
 * comes at once; one that will not end is told more firmly. */
static int will_not_end(struct ss_request *req)
{
	struct tape *tape = ss_server_user(ss_request_server(req));
	char byte;
	ss_write(req, "hi", 2);
	ssize_t n = ss_read(req, &byte, 1);
	tape_note(tape, "%d", (int)n);
	while ((n = ss_sleep(req, 100)) != -ECANCELED)
		ck_assert_int_eq(n, 0);
	tape_note(tape, "cancelled");
	return 0;
}

START_TEST(memory_close_ends_parked_handlers_under_fiber)
{
	struct ss_handler handlers[] = {
		talker, { .handle = will_not_end, .speaks_first = true }
	};
	for (int i = 0; i < 2; i++) {
		struct ss_config config = fiber_config(&handlers[i]);
		config.user = tape_new();
		config.drain_ms = HOUR;
		struct ss_server *server = made(&config);
		struct ss_memory_client *client = joined(server);
		int64_t began = ss_now(server), real = clock_ms();
		hears(client, i ? "hi" : "name?");
		ck_assert_int_eq(ss_server_close(server), 0);
		ck_assert_int_ge(ss_now(server) - began, HOUR);
		ck_assert_int_lt(clock_ms() - real, WAIT_MS);
		if (i)
			ck_assert_str_eq(tape_text(config.user), "0 cancelled");
		else
			hears(client, "bye");
		hears_end(client);
		ss_memory_close(client);
		ck_assert_int_eq(ss_server_free(server), 0);
		ss_shared_free(config.user, sizeof(struct tape));
	}
}
END_TEST

/* A handler may test another. */
static int exchanges(struct ss_request *req)
{
	char in[TEXT], out[TEXT];
	ssize_t n = ss_read(req, in, sizeof(in));
	if (n <= 0)
		return (int)n;
	n = ss_memory_exchange(&echo_handler, in, (size_t)n, out, sizeof(out));
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(ss_write(req, out, (size_t)n), n);
	return SS_AGAIN;
}

START_TEST(memory_exchange_works_within_a_fiber)
{
	struct ss_handler handler = { .handle = exchanges };
	struct ss_config config = fiber_config(&handler);
	struct ss_server *server = made(&config);
	struct ss_memory_client *a = joined(server), *b = joined(server);
	for (int i = 0; i < 3; i++) {
		says(a, "from a");
		says(b, "from b");
		hears(b, "from b");
		hears(a, "from a");
	}
	ss_memory_close(a);
	ss_memory_close(b);
	freed(server);
}
END_TEST

/* ---- the same input gives the same run ------------------------------------*/

enum { CROWD = 1000, EVENTS = 20000 };

/* What happened, in its order: a hash and a length of it. */
struct transcript {
	uint64_t hash;
	unsigned long events;
};

static void note(struct transcript *t, int64_t what)
{
	t->hash = (t->hash ^ (uint64_t)what) * 1099511628211u;
	t->events++;
}

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33);
}

/* Echoes, sleeps as long as its input says, gives up after a while. */
static int one_of_a_crowd(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct transcript *t = ss_server_user(server);
	unsigned char byte;
	ssize_t n = ss_read(req, &byte, 1);
	note(t, ss_now(server));
	note(t, n == 1 ? byte : (int)n);
	if (n != 1)
		return (int)n;
	if (byte % 3 == 0)
		ss_sleep(req, byte * 10);
	n = ss_write(req, &byte, 1);
	return n < 0 ? (int)n : SS_AGAIN;
}

static void act_at_random(struct ss_server *server,
			  struct ss_memory_client **client, uint64_t *seed,
			  struct transcript *t)
{
	unsigned char byte = (unsigned char)next_random(seed);
	switch (next_random(seed) % 16) {
	case 0:
		ss_memory_close(*client);
		*client = joined(server);
		break;
	case 1:
		ss_memory_shutdown(*client);
		break;
	case 2:
	case 3:
	case 4:
		note(t, ss_memory_recv(*client, &byte, 1));
		note(t, byte);
		break;
	default:
		note(t, ss_memory_send(*client, &byte, 1));
	}
}

static void crowd_at_random(uint64_t seed, struct transcript *t)
{
	static struct ss_memory_client *clients[CROWD];
	struct ss_handler handler = { .handle = one_of_a_crowd,
				      .timeouts = { .idle_ms = 60000,
						    .total_ms = 600000 } };
	struct ss_config config = fiber_config(&handler);
	config.user = t;
	config.log_level = SS_NONE;
	*t = (struct transcript){ .hash = 14695981039346656037u };
	struct ss_server *server = made(&config);
	for (int i = 0; i < CROWD; i++)
		clients[i] = joined(server);
	for (int i = 0; i < EVENTS; i++)
		act_at_random(server, &clients[next_random(&seed) % CROWD],
			      &seed, t);
	note(t, ss_now(server));
	for (int i = 0; i < CROWD; i++)
		ss_memory_close(clients[i]);
	ck_assert_int_eq(ss_server_close(server), 0);
	note(t, ss_now(server));
	ck_assert_int_eq(ss_server_free(server), 0);
}

START_TEST(memory_runs_are_the_same_for_the_same_input_under_fiber)
{
	struct transcript first, again, other;
	crowd_at_random(1, &first);
	crowd_at_random(1, &again);
	crowd_at_random(2, &other);
	ck_assert_uint_gt(first.events, EVENTS);
	ck_assert_uint_eq(first.events, again.events);
	ck_assert_uint_eq(first.hash, again.hash);
	ck_assert_uint_ne(first.hash, other.hash);
}
END_TEST

/* ---- no memory ------------------------------------------------------------*/

static int allocations; /* until one fails; below 0: none does */

static void *failing_calloc(size_t n, size_t size)
{
	return allocations-- == 0 ? NULL : calloc(n, size);
}

static void *failing_realloc(void *memory, size_t n)
{
	return allocations-- == 0 ? NULL : realloc(memory, n);
}

static void *failing_malloc(size_t n)
{
	return allocations-- == 0 ? NULL : malloc(n);
}

/* Whether the N-th failed. */
static bool exchange_without(int nth)
{
	char out[8];
	allocations = nth;
	ssize_t r =
		ss_memory_exchange(&echo_handler, "hello", 5, out, sizeof(out));
	bool failed = allocations < 0;
	ck_assert_msg(r == (failed ? -ENOMEM : 5) || (failed && r == 5) ||
			      (failed && r == -EAGAIN),
		      "allocation %d: %zd", nth, r);
	return failed;
}

/* At most the packet that it is about is lost; the answers to the others come,
 * in their order. */
static bool packets_without(int nth)
{
	struct ss_config config = packet_config(&echo_handler, NULL);
	config.log_level = SS_NONE;
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	char got[4] = "", byte;
	int n = 0;
	says(client, "a");
	says(client, "b");
	says(client, "c");
	allocations = nth;
	while (n < 3 && ss_memory_recv(client, &byte, 1) == 1)
		got[n++] = byte;
	bool failed = allocations < 0;
	allocations = -1;
	const char *expected = failed ? "ab ac bc" : "abc";
	ck_assert_msg(n >= 2 && strstr(expected, got), "allocation %d: \"%s\"",
		      nth, got);
	says(client, "d");
	ck_assert_int_eq(ss_memory_recv(client, &byte, 1), 1);
	ck_assert_int_eq(byte, 'd');
	ss_memory_close(client);
	freed(server);
	return failed;
}

START_TEST(memory_packets_survive_having_none)
{
	allocations = -1;
	sys_table.calloc = failing_calloc;
	sys_table.realloc = failing_realloc;
	sys_table.malloc = failing_malloc;
	int nth = 0;
	while (packets_without(nth))
		nth++;
	ck_assert_int_gt(nth, 3);
	sys_table.calloc = calloc;
	sys_table.realloc = realloc;
	sys_table.malloc = malloc;
}
END_TEST

START_TEST(memory_survives_having_none)
{
	sys_table.calloc = failing_calloc;
	sys_table.realloc = failing_realloc;
	sys_table.malloc = failing_malloc;
	int descriptors = open_descriptors(), nth = 0;
	while (exchange_without(nth))
		nth++;
	ck_assert_int_gt(nth, 5);
	ck_assert_int_eq(open_descriptors(), descriptors);
	sys_table.calloc = calloc;
	sys_table.realloc = realloc;
	sys_table.malloc = malloc;
}
END_TEST

static void add_streams(TCase *tcase)
{
	tcase_add_test(tcase, memory_streams_in_every_order);
	tcase_add_test(tcase,
		       memory_clients_are_served_in_the_order_of_connecting);
	tcase_add_loop_test(tcase, memory_clients_talk_at_once_beside_the_loop,
			    1, MODELS);
	tcase_add_loop_test(tcase,
			    memory_clients_serve_themselves_beside_the_loop, 1,
			    MODELS);
	tcase_add_loop_test(tcase,
			    memory_clients_wait_for_a_place_beside_the_loop, 1,
			    MODELS);
	tcase_add_test(tcase, memory_waits_for_a_sync_server_in_another_thread);
	tcase_add_loop_test(tcase,
			    memory_opens_nothing_and_starts_nothing_per_client,
			    0, MODELS);
	tcase_add_test(tcase, memory_has_no_socket);
	tcase_add_loop_test(tcase, memory_serves_no_descriptor, 0, MODELS);
	tcase_add_test(tcase, memory_takes_addresses_of_its_own);
	tcase_add_loop_test(tcase, memory_end_of_input_lets_the_answer_through,
			    0, MODELS);
	tcase_add_loop_test(tcase, memory_end_of_output_lets_the_input_through,
			    0, MODELS);
	tcase_add_loop_test(tcase, memory_reading_can_be_shut_down, 0, MODELS);
	tcase_add_loop_test(tcase, memory_close_serves_who_waits, 0, MODELS);
	tcase_add_loop_test(tcase, memory_close_ends_silent_clients, 1, MODELS);
	tcase_add_test(tcase, memory_close_ends_those_who_wait_in_vain);
	tcase_add_test(tcase, memory_closed_gives_no_answer);
	tcase_add_loop_test(tcase, memory_clients_may_leave, 0, MODELS);
	tcase_add_loop_test(tcase, memory_requests_can_be_cancelled, 1, MODELS);
	tcase_add_loop_test(tcase, memory_clients_beyond_the_cap_wait, 1,
			    MODELS);
	tcase_add_loop_test(tcase, memory_clients_beyond_the_cap_are_refused, 1,
			    MODELS);
	tcase_add_test(tcase, memory_streams_can_be_waited_for_under_sync);
	tcase_add_loop_test(tcase,
			    memory_streams_can_be_waited_for_beside_the_loop, 1,
			    MODELS);
	tcase_add_loop_test(tcase,
			    memory_streams_are_waited_for_beside_descriptors, 0,
			    MODELS);
	tcase_add_test(tcase, memory_waits_for_descriptors_in_real_time);
	tcase_add_test(tcase, memory_input_is_no_room);
}

static void add_packets(TCase *tcase)
{
	tcase_add_test(tcase, memory_packets_in_every_order);
	tcase_add_test(tcase, memory_packets_keep_their_order_and_bounds);
	tcase_add_test(tcase, memory_packets_of_two_clients_do_not_mix);
	tcase_add_loop_test(tcase, memory_packets_all_come_back_beside_the_loop,
			    1, MODELS);
	tcase_add_loop_test(tcase, memory_close_serves_packets_that_wait, 0,
			    MODELS);
	tcase_add_loop_test(tcase, memory_says_when_there_is_no_answer, 0,
			    MODELS);
}

static void add_parked(TCase *tcase)
{
	tcase_add_test(tcase,
		       memory_handlers_wait_for_their_clients_under_fiber);
	tcase_add_test(
		tcase,
		memory_ends_before_the_server_looks_are_seen_under_fiber);
	tcase_add_test(tcase, memory_handlers_wake_one_another_under_fiber);
	tcase_add_test(tcase, memory_streams_are_relayed_under_fiber);
	tcase_add_test(tcase,
		       memory_streams_are_looked_at_by_others_under_fiber);
	tcase_add_test(tcase, memory_time_outs_jump_under_fiber);
	tcase_add_test(tcase, memory_sleepers_wake_in_order_under_fiber);
	tcase_add_test(tcase, memory_time_stands_still_for_who_waits_for_ever);
	tcase_add_test(tcase,
		       memory_time_stands_still_for_who_computes_under_fiber);
	tcase_add_test(tcase,
		       memory_time_is_real_beside_a_serving_thread_under_fiber);
	tcase_add_test(tcase, memory_close_ends_parked_handlers_under_fiber);
	tcase_add_test(tcase, memory_exchange_works_within_a_fiber);
	tcase_add_test(tcase,
		       memory_runs_are_the_same_for_the_same_input_under_fiber);
}

static void add_exchange(TCase *tcase)
{
	tcase_add_test(tcase, memory_exchange_tells_the_whole_length);
	tcase_add_test(tcase, memory_exchange_tells_the_failure);
	tcase_add_test(tcase, memory_exchange_of_packets_tells_empty_from_none);
	tcase_add_test(tcase, memory_exchange_takes_any_size);
	tcase_add_test(tcase, memory_survives_having_none);
	tcase_add_test(tcase, memory_packets_survive_having_none);
}

/* ---- what a client may be like --------------------------------------------*/

enum { MUCH = 5000 };

static int write_much(struct ss_request *req)
{
	static const char zeros[MUCH];
	ssize_t n = ss_write(req, zeros, sizeof(zeros));
	tape_note(ss_server_user(ss_request_server(req)), "%zd", n);
	return n < 0 ? (int)n : 0;
}

static int read_one(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	if (n > 0)
		n = ss_read(req, &byte, 1);
	tape_note(ss_server_user(ss_request_server(req)), "%zd", n);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler much = { .handle = write_much,
					.speaks_first = true };
static const struct ss_handler one = { .handle = read_one };

START_TEST(memory_clients_may_take_little)
{
	struct ss_config config = memory_config(&much, models_of_memory[_i]);
	config.user = tape_new();
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	char got[100];
	size_t all = 0;
	ck_assert_int_eq(ss_memory_try_recv(client, got, 1), -EAGAIN);
	ss_memory_limit(client, sizeof(got) - 1);
	for (ssize_t r; (r = ss_memory_recv(client, got, sizeof(got))) != 0;) {
		ck_assert_int_gt(r, 0);
		ck_assert_int_lt(r, sizeof(got));
		all += (size_t)r;
	}
	ck_assert_uint_eq(all, MUCH);
	noted(server, 1);
	ck_assert_str_eq(tape_text(config.user), "5000");
	ss_memory_close(client);
	freed(server);
}
END_TEST

/* Nobody else runs: there it is a time-out. */
START_TEST(memory_clients_may_take_nothing)
{
	struct ss_config config = memory_config(&much, models_of_memory[_i]);
	config.user = tape_new();
	config.timeouts.io_ms = 100;
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	char got[10];
	ss_memory_limit(client, 3);
	/* Where requests park, time goes on in turns that may last. */
	for (int i = 0; models_of_memory[_i] == &ss_fiber_mixin && i < 3; i++)
		ss_server_turn(server, ss_now(server) + 100);
	noted(server, 1);
	ck_assert_int_eq(strtol(tape_text(config.user), NULL, 10), -ETIMEDOUT);
	ck_assert_int_eq(ss_memory_recv(client, got, sizeof(got)), 3);
	ss_memory_close(client);
	freed(server);
}
END_TEST

START_TEST(memory_clients_may_reset)
{
	struct ss_config config = memory_config(&one, models_of_memory[_i]);
	config.user = tape_new();
	config.log_level = SS_NONE;
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	says(client, "lost");
	ss_memory_reset(client);
	ck_assert_int_eq(ss_memory_send(client, "x", 1), -EPIPE);
	noted(server, 1);
	ck_assert_int_eq(strtol(tape_text(config.user), NULL, 10), -ECONNRESET);
	ss_memory_close(client);
	freed(server);
}
END_TEST

static void count_news(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

START_TEST(memory_clients_may_be_told)
{
	struct ss_config config = memory_config(&much, models_of_memory[_i]);
	config.user = tape_new();
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = joined(server);
	atomic_int news = 0;
	ss_memory_watch(client, count_news, &news);
	noted(server, 1);
	/* The answer, and its end. */
	eventually(lines_after_a_turn(server) && atomic_load(&news) >= 2);
	ss_memory_watch(client, NULL, NULL);
	ss_memory_close(client);
	freed(server);
}
END_TEST

Suite *t_memory(void)
{
	Suite *suite = suite_create("t_memory");
	TCase *tcase = tcase_create("memory");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 10);
	add_streams(tcase);
	add_packets(tcase);
	add_parked(tcase);
	add_exchange(tcase);
	tcase = suite_case(suite, "kinds", NULL, NULL);
	tcase_add_loop_test(tcase, memory_clients_may_take_little, 1, MODELS);
	tcase_add_loop_test(tcase, memory_clients_may_take_nothing, 0, MODELS);
	tcase_add_loop_test(tcase, memory_clients_may_reset, 0, MODELS);
	tcase_add_loop_test(tcase, memory_clients_may_be_told, 0, MODELS);
	return suite;
}
