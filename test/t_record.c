/*
 * Recordings: that every model writes what was said, of each connection its own
 * and not a byte more than is allowed; and what a reader makes of files that
 * are cut, spoilt or made up.
 */
#include "guards.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "faults.h"
#include "handlers.h"
#include "mixin/crc32c.h"
#include "mixin/record_file.h"
#include "recordings.h"
#include "user_layers.h"

Suite *t_record(void);

/* ---- a file, and what it has ----------------------------------------------*/

static char path[100];

static void begin(void)
{
	snprintf(path, sizeof(path), "%s/r.ssr", scratch());
	tally_begin();
	pretended = NULL;
}

static struct ss_recording *reopen(void)
{
	struct ss_recording *recording;
	struct ss_diag why;
	ck_assert_msg(ss_recording_open(&recording, path, &why) == 0, "%s",
		      why.text);
	const char *damage = ss_recording_damage(recording);
	ck_assert_msg(!damage, "%s", damage);
	return recording;
}

/* All that a connection said in one direction, with a NUL; static. */
static const char *said(const struct ss_recording *recording, size_t number,
			enum ss_recorded_kind kind)
{
	static char text[4][1 << 16];
	static int turn;
	char *to = text[turn++ % 4];
	size_t used = 0;
	const struct ss_recorded_event *event;
	for (size_t i = 0; (event = ss_recording_event(recording, i)); i++)
		if (event->connection == number && event->kind == kind) {
			ck_assert_uint_lt(used + event->kept, sizeof(text[0]));
			memcpy(to + used, event->bytes, event->kept);
			used += event->kept;
		}
	to[used] = '\0';
	return to;
}

/* A letter for each event: Open, In, oUt, Elsewhere, Shut, Half-closed,
 * Broken, Left out, eNd. */
static const char *shape(const struct ss_recording *recording, size_t number)
{
	static char text[200];
	size_t used = 0;
	const struct ss_recorded_event *event;
	for (size_t i = 0; (event = ss_recording_event(recording, i)); i++)
		if (event->connection == number && used < sizeof(text) - 1)
			text[used++] = "?OIUESHBLN"[event->kind];
	text[used] = '\0';
	return text;
}

static size_t connections(const struct ss_recording *recording)
{
	size_t n = 0;
	while (ss_recording_connection(recording, n))
		n++;
	return n;
}

static const struct ss_recorded_event *
first_of(const struct ss_recording *recording, enum ss_recorded_kind kind)
{
	const struct ss_recorded_event *event;
	for (size_t i = 0; (event = ss_recording_event(recording, i)); i++)
		if (event->kind == kind)
			return event;
	return NULL;
}

static int64_t file_size(void)
{
	struct stat st;
	return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

static bool file_has(const char *text)
{
	static char bytes[1 << 17];
	FILE *file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	size_t n = fread(bytes, 1, sizeof(bytes), file);
	fclose(file);
	return memmem(bytes, n, text, strlen(text)) != NULL;
}

static void replays(const struct ss_handler *handler, int expected)
{
	struct ss_config config = { .handler = handler };
	struct ss_diag why;
	int r = ss_replay(path, &config, &why);
	ck_assert_msg(r == expected, "%d: %s", r, why.text);
	ck_assert_msg((r == 0) == (why.text[0] == '\0'), "%s", why.text);
}

/* ---- every model over every transport -------------------------------------*/

START_TEST(all_that_is_said_is_recorded)
{
	const struct model *model = &models[_i % model_count];
	const struct transport *transport = &transports[_i / model_count];
	struct ss_record_options options = { .path = path };
	struct ss_config config = config_of(model, transport, &ss_echo_handler);
	struct node node;
	struct stat st;
	char peer[SS_ADDRESS_TEXT];
	use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	int fd = dial(node.url);
	struct ss_address mine = { .len = sizeof(mine.u) };
	ck_assert_int_eq(getsockname(fd, &mine.u.sa, &mine.len), 0);
	send_text(fd, "one\n");
	expect_text(fd, "one\n");
	if (transport->stream) {
		send_text(fd, "two");
		expect_text(fd, "two");
		shutdown(fd, SHUT_WR);
		expect_end(fd);
	}
	close(fd);
	for (int i = 0; i < 2; i++)
		echo_once(node.url, "again");
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);

	struct ss_recording *recording = reopen();
	ck_assert_uint_eq(connections(recording), 3);
	ck_assert_ptr_nonnull(strstr(ss_recording_server(recording),
				     model_described(model, transport)));
	const struct ss_recorded *first = ss_recording_connection(recording, 0);
	ck_assert(first->whole);
	ck_assert_int_eq(first->dgram, !transport->stream);
	ck_assert_str_eq(first->peer,
			 ss_address_format(&mine, peer, sizeof(peer)));
	const char *all = transport->stream ? "one\ntwo" : "one\n";
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_INPUT), all);
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_OUTPUT), all);
	ck_assert_str_eq(said(recording, 2, SS_RECORDED_OUTPUT), "again");
	const char *events = shape(recording, 0);
	ck_assert_msg(strcmp(events, transport->stream ? "OIUIUSN" : "OIUN") ==
				      0 ||
			      strcmp(events, "OIUIUSHN") == 0,
		      "%s", events);
	ss_recording_free(recording);
	replays(&ss_echo_handler, 0);
	replays(&ss_upper_handler, 1);
}
END_TEST

/* Without a socket, too. */
START_TEST(memory_is_recorded)
{
	static const struct ss_layer *const mixins[] = {
		NULL, &ss_threading_mixin, &ss_pool_mixin, &ss_fiber_mixin
	};
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_upper_handler };
	if (mixins[_i])
		use_first(&config, mixins[_i], NULL);
	use_first(&config, &ss_record_mixin, &options);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	char text[20] = "";
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ss_memory_send(client, "hello\n", 6);
	ss_memory_shutdown(client);
	ck_assert_int_eq(ss_memory_recv(client, text, sizeof(text)), 6);
	ck_assert_str_eq(text, "HELLO\n");
	ck_assert_int_eq(ss_memory_recv(client, text, sizeof(text)), 0);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_OUTPUT), "HELLO\n");
	ck_assert_str_eq(ss_recording_connection(recording, 0)->peer, "-");
	ss_recording_free(recording);
	replays(&ss_upper_handler, 0);
}
END_TEST

/* ---- many at once ---------------------------------------------------------*/

enum { CLIENTS = 12, BYTES = 3000, ROUNDS = 8 };

static void *chat(void *arg)
{
	const struct node *node = arg;
	static atomic_int number;
	char out[BYTES], in[BYTES];
	int fd = dial(node->url);
	memset(out, 'a' + atomic_fetch_add(&number, 1) % CLIENTS, BYTES);
	for (int i = 0; i < ROUNDS; i++) {
		send_bytes(fd, out, BYTES);
		expect_bytes(fd, in, BYTES);
	}
	close(fd);
	return NULL;
}

/* Each connection has letters of its own. */
START_TEST(processes_and_threads_do_not_mix)
{
	static const struct ss_prefork_options four = { .workers = 4 };
	const struct model *model = &models[_i];
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(model, &transports[0], &ss_echo_handler);
	pthread_t threads[CLIENTS];
	struct node node;
	use_options(&config, &ss_prefork_mixin, &four);
	use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	for (int i = 0; i < CLIENTS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, chat, &node),
				 0);
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_recording *recording = reopen();
	ck_assert_uint_eq(connections(recording), CLIENTS);
	for (size_t i = 0; i < CLIENTS; i++) {
		const char *in = said(recording, i, SS_RECORDED_INPUT);
		const char *out = said(recording, i, SS_RECORDED_OUTPUT);
		ck_assert_uint_eq(strlen(in), BYTES * ROUNDS);
		ck_assert_uint_eq(strspn(in, (char[]){ in[0], 0 }),
				  BYTES * ROUNDS);
		ck_assert_str_eq(in, out);
		ck_assert(ss_recording_connection(recording, i)->whole);
	}
	ss_recording_free(recording);
	replays(&ss_echo_handler, 0);
}
END_TEST

/* ---- what is beyond the limits --------------------------------------------*/

static char lines[2000];
static atomic_int line_count;

static void keep_line(void *arg, int level, struct ss_server *server,
		      uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	size_t used = strlen(lines);
	if (strncmp(text, "record: ", 8) != 0)
		return;
	snprintf(lines + used, sizeof(lines) - used, "%s\n", text);
	atomic_fetch_add(&line_count, 1);
}

static struct ss_server *in_memory(const struct ss_record_options *options,
				   const struct ss_handler *handler)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = handler,
				    .mixins = { { &ss_record_mixin, options } },
				    .log = keep_line };
	lines[0] = '\0';
	atomic_store(&line_count, 0);
	return made(&config);
}

/* A client that says it and ends; the answer's length. */
static size_t exchange(struct ss_server *server, const char *text, size_t n)
{
	struct ss_memory_client *client;
	static char answer[1 << 16];
	size_t got = 0;
	ssize_t r;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ss_memory_send(client, text, n);
	ss_memory_shutdown(client);
	while ((r = ss_memory_recv(client, answer, sizeof(answer))) > 0)
		got += (size_t)r;
	ss_memory_close(client);
	return got;
}

static struct ss_record_stats stats_of(struct ss_server *server)
{
	struct ss_record_stats stats;
	ck_assert_int_eq(ss_record_get(server, &stats), 0);
	return stats;
}

START_TEST(a_connection_has_so_many_bytes)
{
	struct ss_record_options options = { .path = path,
					     .max_connection = 15 };
	struct ss_server *server = in_memory(&options, &ss_echo_handler);
	ck_assert_uint_eq(exchange(server, "0123456789", 10), 10);
	ck_assert_uint_eq(exchange(server, "01234567890123456789", 20), 20);
	ck_assert_uint_eq(exchange(server, "0123456", 7), 7);
	struct ss_record_stats stats = stats_of(server);
	ck_assert_uint_eq(stats.connections, 3);
	ck_assert_uint_eq(stats.bytes, 15 + 15 + 14);
	ck_assert_uint_eq(stats.left_out_bytes, 5 + 25);
	ck_assert_uint_eq(stats.left_out_connections, 0);
	ck_assert_int_eq((int64_t)stats.file_size, file_size());
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_str_eq(lines, "record: 30 bytes were left out, and 0 "
				"connections wholly\n");
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(shape(recording, 0), "OIULN");
	ck_assert_str_eq(shape(recording, 1), "OILN");
	ck_assert_str_eq(shape(recording, 2), "OIUSN");
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_OUTPUT), "01234");
	ck_assert(!ss_recording_connection(recording, 0)->whole);
	ck_assert(ss_recording_connection(recording, 2)->whole);
	const struct ss_recorded_event *left =
		first_of(recording, SS_RECORDED_LEFT_OUT);
	ck_assert_uint_eq(left->left_in, 0);
	ck_assert_uint_eq(left->left_out, 5);
	ck_assert_int_eq(left->reason, SS_RECORDED_ENOUGH);
	ss_recording_free(recording);
	replays(&ss_echo_handler, 0);
	replays(&ss_upper_handler, 0);
}
END_TEST

/* A datagram is there or not. */
START_TEST(datagrams_are_whole)
{
	struct ss_record_options options = { .path = path,
					     .max_connection = 15 };
	struct ss_config config = { .transport = &ss_memory_datagram_server,
				    .handler = &ss_echo_handler,
				    .log_level = SS_NONE,
				    .mixins = {
					    { &ss_record_mixin, &options } } };
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	char answer[40];
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ss_memory_send(client, "0123456789", 10);
	ck_assert_int_eq(ss_memory_recv(client, answer, 40), 10);
	ss_memory_send(client, "", 0);
	ck_assert_int_eq(ss_memory_recv(client, answer, 40), 0);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(shape(recording, 0), "OILN");
	ck_assert_str_eq(shape(recording, 1), "OIUN");
	ss_recording_free(recording);
	replays(&ss_echo_handler, 0);
}
END_TEST

START_TEST(a_file_has_so_many_bytes)
{
	struct ss_record_options options = { .path = path,
					     .max_file = 2000 + 10 * _i };
	struct ss_server *server = in_memory(&options, &ss_echo_handler);
	char text[100];
	memset(text, 't', sizeof(text));
	for (int i = 0; i < 20; i++)
		ck_assert_uint_eq(exchange(server, text, sizeof(text)),
				  sizeof(text));
	struct ss_record_stats stats = stats_of(server);
	ck_assert_uint_gt(stats.connections, 1);
	ck_assert_uint_eq(stats.connections + stats.left_out_connections, 20);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_le(file_size(), options.max_file);
	ck_assert_int_eq(atomic_load(&line_count), 1);
	struct ss_recording *recording = reopen();
	ck_assert_uint_eq(connections(recording), stats.connections);
	ss_recording_free(recording);
	replays(&ss_echo_handler, 0);
}
END_TEST

/* A connection that was let in, but not with all that it says. */
START_TEST(a_long_message_may_find_no_place)
{
	static char text[3000];
	struct ss_record_options options = { .path = path, .max_file = 2000 };
	struct ss_server *server = in_memory(&options, &ss_echo_loop_handler);
	memset(text, 't', sizeof(text));
	ck_assert_uint_eq(exchange(server, text, sizeof(text)), sizeof(text));
	struct ss_record_stats stats = stats_of(server);
	ck_assert_uint_eq(stats.connections, 1);
	ck_assert_uint_eq(stats.left_out_bytes + stats.bytes, 2 * sizeof(text));
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_le(file_size(), options.max_file);
	struct ss_recording *recording = reopen();
	const struct ss_recorded_event *left =
		first_of(recording, SS_RECORDED_LEFT_OUT);
	ck_assert_int_eq(left->reason, SS_RECORDED_FULL);
	ck_assert_uint_eq(left->left_in + left->left_out, stats.left_out_bytes);
	ck_assert(!ss_recording_connection(recording, 0)->whole);
	ss_recording_free(recording);
	replays(&ss_echo_loop_handler, 0);
}
END_TEST

/* Longer than a record. */
START_TEST(long_chunks_are_several_records)
{
	enum { LONG = 2 * RECORD_MOST + 10 };
	struct ss_record_options options = { .path = path,
					     .max_connection = SS_NONE,
					     .max_file = SS_NONE };
	struct ss_server *server = in_memory(&options, &ss_discard_handler);
	char *text = malloc(LONG);
	ck_assert_ptr_nonnull(text);
	memset(text, 'l', LONG);
	ck_assert_uint_eq(exchange(server, text, LONG), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	ck_assert_uint_eq(ss_recording_connection(recording, 0)->input, LONG);
	ss_recording_free(recording);
	free(text);
	replays(&ss_discard_handler, 0);
}
END_TEST

static struct sys_table real;

START_TEST(who_is_asked_for_twice_is_opened_once)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler,
				    .mixins = {
					    { &twice_layer, NULL },
					    { &ss_record_mixin, &options } } };
	struct ss_server *server = made(&config);
	ck_assert_uint_eq(exchange(server, "hello", 5), 5);
	ck_assert_uint_eq(stats_of(server).connections, 1);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(shape(recording, 0), "OIUSN");
	ck_assert_uint_eq(connections(recording), 1);
	ss_recording_free(recording);
}
END_TEST

/* Each byte of a write as a piece of its own, with empty ones between. */
static ssize_t split_writev(struct ss_channel *channel, const struct iovec *iov,
			    int count, struct ss_block *block)
{
	struct iovec pieces[120];
	int used = 0;
	for (int i = 0; i < count; i++)
		for (size_t k = 0; k < iov[i].iov_len; k++) {
			char *byte = (char *)iov[i].iov_base + k;
			ck_assert_int_lt(used + 2, 120);
			pieces[used++] = (struct iovec){ byte, 1 };
			pieces[used++] = (struct iovec){ byte, 0 };
		}
	return ss_channel_writev(channel->next, pieces, used, block);
}

static const struct ss_channel_ops split_ops = { .writev = split_writev };

static int split_verify(struct ss_server *server, struct ss_request *req);

/* To the right of the recorder: its channel is above. */
static const struct ss_layer splitting = {
	.name = "splitting",
	.request_size = sizeof(struct ss_channel),
	.ops = { .verify_request = split_verify },
};

static int split_verify(struct ss_server *server, struct ss_request *req)
{
	ss_channel_push(req, ss_request_layer_state(req, &splitting),
			&split_ops);
	return ss_super(server, &splitting)->verify_request(server, req);
}

static const char fifty[] =
	"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";

START_TEST(many_pieces_are_all_recorded)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler,
				    .mixins = { { &ss_record_mixin, &options },
						{ &splitting, NULL } } };
	struct ss_server *server = made(&config);
	ck_assert_uint_eq(exchange(server, fifty, 50), 50);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_OUTPUT), fifty);
	ck_assert_uint_eq(ss_recording_connection(recording, 0)->output, 50);
	ss_recording_free(recording);
	replays(&ss_echo_handler, 0);
}
END_TEST

/* As one datagram, or not at all. */
START_TEST(many_pieces_of_a_datagram_are_one_record)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_datagram_server,
				    .handler = &ss_echo_handler,
				    .mixins = { { &ss_record_mixin, &options },
						{ &splitting, NULL } },
				    .log_level = SS_NONE };
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	char answer[60];
	int n = 0;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	real = sys_table;
	sys_table.malloc = fail_malloc;
	do {
		ck_assert_int_eq(ss_memory_send(client, fifty, 50), 50);
		fault.left = ++n;
		fault.what = NULL;
		ssize_t got = ss_memory_recv(client, answer, sizeof(answer));
		fault.left = 0;
		ck_assert(got == 50 || fault.what);
	} while (fault.what);
	sys_table = real;
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	const struct ss_recorded_event *left =
		first_of(recording, SS_RECORDED_LEFT_OUT);
	ck_assert_ptr_nonnull(left);
	ck_assert_int_eq(left->reason, SS_RECORDED_NO_MEMORY);
	ck_assert_uint_eq(left->left_out, 50);
	ck_assert_uint_eq(left->left_in, 0);
	size_t last = connections(recording) - 1;
	ck_assert_str_eq(shape(recording, last), "OIUN");
	ck_assert_str_eq(said(recording, last, SS_RECORDED_OUTPUT), fifty);
	ss_recording_free(recording);
}
END_TEST

enum { GULP = 2 * RECORD_MOST + 10 };

/* Reads and writes more than a record holds, by one call each. */
static int gulp(struct ss_request *req)
{
	char *text = malloc(GULP);
	ssize_t n = ss_read_full(req, text, GULP);
	if (n > 0)
		n = ss_write(req, text, (size_t)n);
	free(text);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler gulping = { .handle = gulp };

START_TEST(what_no_record_holds_is_several)
{
	struct ss_record_options options = { .path = path,
					     .max_connection = SS_NONE };
	struct ss_server *server = in_memory(&options, &gulping);
	char *text = malloc(GULP);
	for (size_t i = 0; i < GULP; i++)
		text[i] = (char)('a' + i % 23);
	ck_assert_uint_eq(exchange(server, text, GULP), GULP);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	struct ss_diag why;
	ck_assert_int_eq(
		ss_recording_compare(recording, 0, 0, text, GULP, &why), 0);
	ck_assert_uint_eq(ss_recording_connection(recording, 0)->input, GULP);
	ck_assert_str_eq(shape(recording, 0), "OIIIUUUN");
	const struct ss_recorded_event *event;
	for (size_t i = 0; (event = ss_recording_event(recording, i)); i++)
		ck_assert_uint_le(event->size, RECORD_MOST);
	ss_recording_free(recording);
	free(text);
	replays(&gulping, 0);
}
END_TEST

/* A write that its client takes by parts, of which each is more than a record
 * holds. */
START_TEST(what_went_is_recorded_and_no_more)
{
	static const struct ss_fiber_options one_loop = { .loops = 1 };
	struct ss_record_options options = { .path = path,
					     .max_connection = SS_NONE };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &gulping,
				    .mixins = {
					    { &ss_record_mixin, &options },
					    { &ss_fiber_mixin, &one_loop } } };
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	char *text = malloc(GULP);
	size_t n = 0;
	ssize_t r;
	for (size_t i = 0; i < GULP; i++)
		text[i] = (char)('a' + i % 23);
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ss_memory_limit(client, RECORD_MOST + 5);
	ck_assert_int_eq(ss_memory_send(client, text, GULP), GULP);
	while ((r = ss_memory_recv(client, text + n, GULP - n)) > 0)
		n += (size_t)r;
	ck_assert_uint_eq(n, GULP);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	struct ss_diag why;
	ck_assert_int_eq(ss_recording_compare(recording, 0, 0, text, n, &why),
			 0);
	ck_assert_uint_eq(ss_recording_connection(recording, 0)->output, n);
	ss_recording_free(recording);
	free(text);
}
END_TEST

/* ---- redacting ------------------------------------------------------------*/

static void hide_digits(void *arg, struct ss_record_chunk *chunk)
{
	(void)arg;
	for (size_t i = 0; i < chunk->size; i++)
		if (chunk->bytes[i] >= '0' && chunk->bytes[i] <= '9')
			chunk->bytes[i] = '#';
	const unsigned char *end = memchr(chunk->bytes, '!', chunk->size);
	if (end)
		chunk->size = (size_t)(end - chunk->bytes);
}

START_TEST(redacted_bytes_are_not_written)
{
	static const char text[] = "pin 4711 and 12 - 34!secret";
	struct ss_record_options options = { .path = path,
					     .redact = hide_digits };
	struct ss_server *server = in_memory(&options, &ss_echo_handler);
	ck_assert_uint_eq(exchange(server, text, sizeof(text) - 1), 27);
	ck_assert_uint_eq(exchange(server, "plain", 5), 5);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert(!file_has("4711"));
	ck_assert(!file_has("secret"));
	struct ss_recording *recording = reopen();
	const struct ss_recorded_event *out =
		first_of(recording, SS_RECORDED_OUTPUT);
	ck_assert_uint_eq(out->size, 27);
	ck_assert_uint_eq(out->kept, 20);
	ck_assert_mem_eq(out->bytes, "pin #### and ## - ##", 20);
	ck_assert(!ss_recorded_hidden(out, 3));
	ck_assert(ss_recorded_hidden(out, 4));
	ck_assert(ss_recorded_hidden(out, 7));
	/* Near ones are one. */
	ck_assert(ss_recorded_hidden(out, 9));
	ck_assert(ss_recorded_hidden(out, 19));
	ck_assert(ss_recorded_hidden(out, 20));
	ck_assert(ss_recorded_hidden(out, 26));
	ck_assert_uint_eq(ss_recording_connection(recording, 0)->output, 27);
	/* The same, or not, around what is hidden. */
	struct ss_diag why;
	static const struct {
		const char *text;
		int differs;
	} answers[] = { { "pin 4711 and 12 - 34!secret", 0 },
			{ "pin abcd and xx - yyzzzzzzz", 0 },
			{ "pan 4711 and 12 - 34!secret", 1 },
			{ "pin4 711 and 12 - 34!secret", 1 } };
	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(ss_recording_compare(recording, 0, 0,
						      answers[i].text, 27,
						      &why),
				 answers[i].differs);
	ss_recording_free(recording);
	replays(&ss_echo_handler, 0);
}
END_TEST

START_TEST(many_redacted_stretches_become_one)
{
	struct ss_record_options options = { .path = path,
					     .redact = hide_digits };
	struct ss_server *server = in_memory(&options, &ss_echo_handler);
	static char text[300 * 10];
	memset(text, 'x', sizeof(text));
	for (size_t i = 0; i < sizeof(text); i += 10)
		text[i] = '7';
	ck_assert_uint_eq(exchange(server, text, sizeof(text)), sizeof(text));
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert(!file_has("7xxxx"));
	struct ss_recording *recording = reopen();
	const struct ss_recorded_event *in =
		first_of(recording, SS_RECORDED_INPUT);
	ck_assert_uint_eq(in->hidden_count, RECORD_STRETCHES);
	ck_assert(!ss_recorded_hidden(in, 1));
	ck_assert(ss_recorded_hidden(in, 2990));
	ck_assert(ss_recorded_hidden(in, 2985));
	ss_recording_free(recording);
}
END_TEST

/* Then it is left out, and not written as it is. */
START_TEST(without_memory_nothing_is_written_unredacted)
{
	struct ss_record_options options = { .path = path,
					     .redact = hide_digits };
	struct ss_server *server = in_memory(&options, &ss_echo_loop_handler);
	int n = 0;
	real = sys_table;
	sys_table.malloc = fail_malloc;
	do {
		struct ss_memory_client *client;
		char answer[20];
		ck_assert_int_eq(ss_memory_connect(server, &client), 0);
		ss_memory_send(client, "pin 4711", 8);
		ss_memory_shutdown(client);
		fault.left = ++n;
		fault.what = NULL;
		ss_memory_recv(client, answer, sizeof(answer));
		fault.left = 0;
		ss_memory_close(client);
	} while (fault.what);
	sys_table = real;
	ck_assert_int_gt(n, 2);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert(!file_has("4711"));
	struct ss_recording *recording = reopen();
	const struct ss_recorded_event *left =
		first_of(recording, SS_RECORDED_LEFT_OUT);
	ck_assert_ptr_nonnull(left);
	ck_assert_int_eq(left->reason, SS_RECORDED_NO_MEMORY);
	ss_recording_free(recording);
}
END_TEST

/* ---- where the file cannot be ---------------------------------------------*/

START_TEST(options_that_make_no_sense_are_refused)
{
	static const struct {
		struct ss_record_options options;
		int code;
		const char *why;
	} wrong[] = {
		{ { .path = NULL }, -EINVAL, "takes the path" },
		{ { .path = "" }, -EINVAL, "takes the path" },
		{ { .path = "x", .max_connection = -2 },
		  -EINVAL,
		  "max_connection is -2" },
		{ { .path = "x", .max_file = -7 }, -EINVAL, "max_file is -7" },
		{ { .path = "x", .stall_ms = -2 }, -EINVAL, "stall_ms is -2" },
		{ { .path = "/nowhere/at/all" },
		  -ENOENT,
		  "/nowhere/at/all: No such file" },
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct ss_config config = { .transport = &ss_memory_server,
					    .mixins = { { &ss_record_mixin,
							  &wrong[i].options } },
					    .handler = &ss_echo_handler };
		refused(&config, wrong[i].code, wrong[i].why);
	}
	struct ss_record_options small = { .path = path, .max_file = 50 };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_record_mixin, &small } },
				    .handler = &ss_echo_handler };
	refused(&config, -EINVAL, "max_file is 50: too little");
	ck_assert_int_eq(file_size(), -1);
	config.mixins[0].options = NULL;
	refused(&config, -EINVAL, "takes the path");
}
END_TEST

START_TEST(what_is_there_is_left_alone)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_record_mixin,
						  &options } },
				    .handler = &ss_echo_handler };
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fputs("dear diary", file);
	fclose(file);
	refused(&config, -EEXIST, "r.ssr: File exists");
	ck_assert_int_eq(file_size(), 10);
	unlink(path);
	ck_assert_int_eq(symlink("/tmp/ss-nowhere", path), 0);
	refused(&config, -EEXIST, "r.ssr: File exists");
	unlink(path);
}
END_TEST

static int stay_inactive(struct ss_server *server)
{
	(void)server;
	return -EUCLEAN;
}

static const struct ss_layer inactive = {
	.name = "inactive",
	.ops = { .server_activate = stay_inactive },
};

/* Nor does a server that is not made leave one. */
START_TEST(servers_that_are_refused_leave_no_file)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(&models[1], &transports[0], &ss_echo_handler);
	struct served served;
	served_start(&served, &config);
	struct ss_config second = config;
	second.addresses[0] = served.url;
	use_first(&second, &ss_record_mixin, &options);
	refused(&second, -EADDRINUSE, "in use");
	ck_assert_int_eq(file_size(), -1);
	served_stop(&served);
	/* Nor one that is bound and not activated. */
	config = config_of(&models[0], &transports[0], &ss_echo_handler);
	use_first(&config, &ss_record_mixin, &options);
	use_last(&config, &inactive, NULL);
	refused(&config, -EUCLEAN, "");
	ck_assert_int_eq(file_size(), -1);
	/* One that was bound does, though nobody came. */
	struct ss_server *server = in_memory(&options, &ss_echo_handler);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_gt(file_size(), 0);
}
END_TEST

START_TEST(the_path_has_the_process_in_it)
{
	char pattern[100], number[24];
	struct ss_record_options options = { .path = pattern };
	snprintf(pattern, sizeof(pattern), "%s/%%p.ssr", scratch());
	struct ss_server *server = in_memory(&options, &ss_echo_handler);
	pattern[0] = '?';
	ck_assert_int_eq(ss_server_free(server), 0);
	snprintf(number, sizeof(number), "%ld", (long)getpid());
	snprintf(path, sizeof(path), "%s/%s.ssr", scratch(), number);
	ck_assert_int_gt(file_size(), 0);
}
END_TEST

START_TEST(servers_without_the_layer_say_so)
{
	stack_nothing();
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler };
	struct ss_server *server = made(&config);
	struct ss_record_stats stats = { .bytes = 5 };
	ck_assert_int_eq(ss_record_get(server, &stats), -ENOTSUP);
	ck_assert_uint_eq(stats.bytes, 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static const struct ss_layer long_named = {
	.name = "a layer that has a name which is much longer than names of "
		"layers are, so that two of them are more than there is room "
		"for where a server is described in its recording, and which "
		"goes on and on, as names of layers never do",
};

static const struct ss_layer same_name = {
	.name = "a layer that has a name which is much longer than names of "
		"layers are, so that two of them are more than there is room "
		"for where a server is described in its recording, and which "
		"is the second one of the two that there are",
};

START_TEST(long_descriptions_are_cut)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_record_mixin, &options },
						{ &long_named, NULL },
						{ &same_name, NULL } },
				    .handler = &ss_echo_handler };
	struct ss_server *server = made(&config);
	const char *whole = ss_server_describe(server);
	ck_assert_uint_ge(strlen(whole), SS_ADDRESS_TEXT);
	struct ss_recording *recording = reopen();
	const char *kept = ss_recording_server(recording);
	ck_assert_uint_eq(strlen(kept), SS_ADDRESS_TEXT - 1);
	ck_assert_mem_eq(kept, whole, SS_ADDRESS_TEXT - 1);
	ss_recording_free(recording);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- a disk that fails ----------------------------------------------------*/

static atomic_int writes;
static enum { FULL, SHORT, SLOW, INTERRUPTED } trouble;
static atomic_llong behind; /* the clock is that much late */

static ssize_t troubled_writev(int fd, const struct iovec *iov, int count)
{
	if (atomic_fetch_add(&writes, 1) != 3)
		return real.writev(fd, iov, count);
	switch (trouble) {
	case FULL:
		errno = ENOSPC;
		return -1;
	case SHORT:
		return real.write(fd, iov[0].iov_base, iov[0].iov_len);
	case INTERRUPTED:
		errno = EINTR;
		return -1;
	default:
		atomic_fetch_add(&behind, 2001);
		return real.writev(fd, iov, count);
	}
}

static ssize_t no_writev(int fd, const struct iovec *iov, int count)
{
	(void)fd, (void)iov, (void)count;
	errno = ENOSPC;
	return -1;
}

START_TEST(a_disk_that_fails_at_once_refuses_the_server)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_record_mixin,
						  &options } },
				    .handler = &ss_echo_handler,
				    .log_level = SS_NONE };
	real = sys_table;
	sys_table.writev = no_writev;
	refused(&config, -ENOSPC, "r.ssr: No space left on device");
	sys_table = real;
	ck_assert_int_eq(file_size(), -1);
}
END_TEST

static int64_t late_now(void)
{
	return real.now_ms() + atomic_load(&behind);
}

START_TEST(a_disk_that_fails_stops_the_recording_alone)
{
	static const struct {
		int error;
		const char *text, *damage;
	} expected[] = {
		[FULL] = { -ENOSPC, "No space left on device", NULL },
		[SHORT] = { -ENOSPC, "No space left on device",
			    "the file ends in a record" },
		[SLOW] = { -ETIMEDOUT, "the disk does not keep up", NULL },
		[INTERRUPTED] = { 0, NULL, NULL },
	};
	struct ss_record_options options = { .path = path };
	char line[200] = "";
	real = sys_table;
	trouble = _i;
	atomic_store(&writes, 0);
	sys_table.writev = troubled_writev;
	sys_table.now_ms = late_now;
	struct ss_server *server = in_memory(&options, &ss_echo_handler);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(exchange(server, "hello", 5), 5);
	ck_assert_int_eq(stats_of(server).error, expected[_i].error);
	if (expected[_i].text)
		snprintf(line, sizeof(line),
			 "record: %s: nothing is written from here on\n",
			 expected[_i].text);
	ck_assert_msg(strncmp(lines, line, strlen(line)) == 0, "%s", lines);
	ck_assert_int_eq(ss_server_free(server), 0);
	sys_table = real;
	struct ss_recording *recording;
	ck_assert_int_eq(ss_recording_open(&recording, path, NULL), 0);
	const char *damage = ss_recording_damage(recording);
	if (expected[_i].damage)
		ck_assert_ptr_nonnull(strstr(damage, expected[_i].damage));
	else
		ck_assert_ptr_null(damage);
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_INPUT), "hello");
	ss_recording_free(recording);
}
END_TEST

/* ---- what else happens to connections -------------------------------------*/

static int half_close(struct ss_request *req)
{
	char byte;
	ss_printf(req, "bye\n");
	ss_shutdown_stream(req, SHUT_WR);
	while (ss_read(req, &byte, 1) > 0)
		;
	return 0;
}

static const struct ss_handler half_closing = { .name = "half-closing",
						.handle = half_close,
						.speaks_first = true };

START_TEST(ends_are_told_apart)
{
	const struct model *model = &models[_i];
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(model, &transports[0], &half_closing);
	const struct linger reset = { .l_onoff = 1 };
	struct node node;
	use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	/* The server first. */
	int fd = dial(node.url);
	expect_text(fd, "bye\n");
	expect_end(fd);
	send_text(fd, "later");
	shutdown(fd, SHUT_WR);
	close(fd);
	/* A client who resets the connection. */
	fd = dial(node.url);
	expect_text(fd, "bye\n");
	expect_end(fd);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(shape(recording, 0), "OUHISN");
	ck_assert_str_eq(shape(recording, 1), "OUHBN");
	const struct ss_recorded_event *broken =
		first_of(recording, SS_RECORDED_BROKEN);
	ck_assert_int_eq(broken->error, -ECONNRESET);
	ss_recording_free(recording);
	replays(&half_closing, 0);
}
END_TEST

/* The server's stop is not the client's end. */
START_TEST(clients_that_a_stop_sends_away)
{
	const struct model *model = &models[_i];
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(model, &transports[0], &ss_echo_handler);
	struct node node;
	use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "stay");
	expect_text(fd, "stay");
	ck_assert_int_eq(node_stop(&node), 0);
	close(fd);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_OUTPUT), "stay");
	ck_assert(ss_recording_connection(recording, 0)->whole);
	ss_recording_free(recording);
	replays(&ss_echo_handler, 0);
}
END_TEST

/* A child that is killed has not said all. */
static int tell_pid(struct ss_request *req)
{
	char byte;
	ss_printf(req, "%9ld\n", (long)getpid());
	return ss_read(req, &byte, 1) > 0 ? SS_AGAIN : 0;
}

static const struct ss_handler telling = { .name = "telling",
					   .handle = tell_pid,
					   .speaks_first = true };

START_TEST(children_that_are_killed_leave_what_they_wrote)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(&models[2], &transports[0], &telling);
	struct node node;
	char text[11] = "";
	config.log_level = SS_NONE;
	use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_bytes(fd, text, 10);
	/* When it answers again what was before is there. */
	send_text(fd, "x");
	expect_bytes(fd, text, 10);
	kill((pid_t)strtol(text, NULL, 10), SIGKILL);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_recording *recording = reopen();
	ck_assert_msg(strncmp(shape(recording, 0), "OUI", 3) == 0, "%s",
		      shape(recording, 0));
	ck_assert(!ss_recording_connection(recording, 0)->whole);
	ck_assert(strncmp(said(recording, 0, SS_RECORDED_OUTPUT), text, 10) ==
		  0);
	ck_assert_int_eq(first_of(recording, SS_RECORDED_END)->error, -ECHILD);
	ss_recording_free(recording);
}
END_TEST

/* By copying, where the file goes out as it would by sendfile(2). */
static int send_a_file(struct ss_request *req)
{
	int fd = open(ss_server_user(ss_request_server(req)),
		      O_RDONLY | O_CLOEXEC);
	ssize_t n = ss_sendfile(req, fd, 1, 4);
	close(fd);
	return n == 4 ? 0 : -EIO;
}

static const struct ss_handler sending = { .name = "sending",
					   .handle = send_a_file,
					   .speaks_first = true };

START_TEST(files_that_are_sent_are_recorded)
{
	char other[100];
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(&models[_i], &transports[0], &sending);
	struct node node;
	snprintf(other, sizeof(other), "%s/file", scratch());
	FILE *file = fopen(other, "w");
	ck_assert_ptr_nonnull(file);
	fputs("abcdefg", file);
	fclose(file);
	config.user = other;
	use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, "bcde");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_OUTPUT), "bcde");
	ss_recording_free(recording);
}
END_TEST

/* It writes until nobody takes it. */
static int write_on(struct ss_request *req)
{
	char text[100];
	ssize_t r = 1;
	memset(text, 'w', sizeof(text));
	while (r > 0)
		r = ss_write(req, text, sizeof(text));
	return (int)r;
}

static const struct ss_handler writing_on = { .name = "writing on",
					      .handle = write_on,
					      .speaks_first = true };

/* Clients that a write finds gone. */
START_TEST(writes_that_fail_are_recorded)
{
	static const struct ss_fiber_options one_loop = { .loops = 1 };
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &writing_on,
				    .mixins = { { &ss_record_mixin, &options },
						{ &ss_fiber_mixin,
						  &one_loop } },
				    .log_level = SS_NONE };
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	char answer[100];
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ss_memory_limit(client, 250);
	ck_assert_int_gt(ss_memory_recv(client, answer, sizeof(answer)), 0);
	ss_memory_reset(client);
	while (ss_memory_recv(client, answer, sizeof(answer)) > 0)
		;
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
	struct ss_recording *recording = reopen();
	const char *events = shape(recording, 0);
	ck_assert_msg(strspn(events + 1, "U") == strlen(events) - 3 &&
			      !strcmp(strchr(events, 'B'), "BN"),
		      "%s", events);
	ck_assert_int_eq(first_of(recording, SS_RECORDED_BROKEN)->error,
			 -EPIPE);
	ss_recording_free(recording);
}
END_TEST

/* To the client, to another, and the reply. */
static int send_around(struct ss_request *req)
{
	struct ss_address peer;
	ss_request_peer(req, &peer);
	ss_send_to(req, "now", 3, NULL);
	ss_send_to(req, "other", 5, &peer);
	ss_write(req, "reply", 5);
	return 0;
}

static const struct ss_handler around = { .name = "around",
					  .handle = send_around };

START_TEST(datagrams_go_elsewhere_too)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(&models[_i], &transports[1], &around);
	struct node node;
	use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "q");
	expect_text(fd, "now");
	expect_text(fd, "other");
	expect_text(fd, "reply");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(shape(recording, 0), "OIUEUN");
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_ELSEWHERE), "other");
	ss_recording_free(recording);
	replays(&around, 0);
}
END_TEST

/* Nowhere: nothing was said to anybody. */
static int send_nowhere(struct ss_request *req)
{
	struct ss_address nowhere = { .len = sizeof(sa_family_t) };
	nowhere.u.sa.sa_family = AF_UNIX;
	return (int)ss_send_to(req, "lost", 4, &nowhere) < 0
		       ? (int)ss_write(req, "reply", 5) * 0
		       : -EUCLEAN;
}

static const struct ss_handler nowhere = { .name = "nowhere",
					   .handle = send_nowhere };

START_TEST(datagrams_that_are_not_sent_are_not_recorded)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(&models[_i], &transports[1], &nowhere);
	struct node node;
	use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "q");
	expect_text(fd, "reply");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(shape(recording, 0), "OIUN");
	ss_recording_free(recording);
}
END_TEST

/* Below it is one that knows of neither ends nor other addresses. */
START_TEST(channels_below_may_know_less)
{
	static const struct ss_chaos_options calm = { .short_read = SS_NONE,
						      .short_write = SS_NONE,
						      .would_block = SS_NONE,
						      .interrupted = SS_NONE };
	struct ss_record_options options = { .path = path };
	struct ss_config config =
		config_of(&models[0], &transports[_i], &half_closing);
	if (_i)
		config.handler = &around;
	use_first(&config, &ss_record_mixin, &options);
	use_first(&config, &ss_chaos_mixin, &calm);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	if (_i)
		send_text(fd, "q");
	expect_text(fd, _i ? "now" : "bye\n");
	if (_i) {
		expect_text(fd, "other");
		expect_text(fd, "reply");
	} else {
		expect_end(fd);
	}
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(shape(recording, 0), _i ? "OIUEUN" : "OUHSN");
	ss_recording_free(recording);
}
END_TEST

static const struct ss_proxy_options trusting = { .trusted = "127.0.0.0/8" };

/* Left of the layer that reads it the header is there, right of it not, but all
 * that was read with it (a buffered handler's). */
START_TEST(the_place_among_layers_counts)
{
	const struct model *model = &models[_i / 3];
	struct ss_record_options options = { .path = path };
	struct ss_handler handler = ss_echo_handler;
	struct ss_config config = config_of(model, &transports[0], &handler);
	struct node node;
	static const char header[] =
		"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n";
	char text[100];
	bool left = _i % 3 == 1;
	if (_i % 3 == 2)
		handler.rbufsize = 0;
	if (!left)
		use_first(&config, &ss_record_mixin, &options);
	use_first(&config, &ss_proxy_mixin, &trusting);
	if (left)
		use_first(&config, &ss_record_mixin, &options);
	node_start(&node, &config);
	int fd = dial(node.url);
	snprintf(text, sizeof(text), "%shello", header);
	send_text(fd, text);
	expect_text(fd, "hello");
	shutdown(fd, SHUT_WR);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	struct ss_recording *recording = reopen();
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_INPUT),
			 left ? text : "hello");
	ck_assert_int_eq(strcmp(ss_recording_connection(recording, 0)->peer,
				"192.0.2.7:1234") == 0,
			 !left);
	ss_recording_free(recording);
	struct ss_config again = { .handler = &ss_echo_handler };
	struct ss_diag why;
	if (left)
		use_first(&again, &ss_proxy_mixin, &trusting);
	ck_assert_msg(ss_replay(path, &again, &why) == 0, "%s", why.text);
}
END_TEST

/* ---- files that are cut, spoilt, made up ----------------------------------*/

static unsigned char bytes[1 << 16];
static size_t size;

static void read_file(void)
{
	FILE *file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	size = fread(bytes, 1, sizeof(bytes), file);
	fclose(file);
	ck_assert_uint_lt(size, sizeof(bytes));
}

static void make_sample(void)
{
	struct ss_record_options options = { .path = path,
					     .redact = hide_digits };
	struct ss_server *server = in_memory(&options, &ss_upper_handler);
	exchange(server, "a 1\nb\n", 6);
	exchange(server, "second!\n", 8);
	ck_assert_int_eq(ss_server_free(server), 0);
	read_file();
}

static size_t events_in(const void *from, size_t n, bool *damaged)
{
	struct ss_recording *recording;
	struct ss_diag why;
	size_t count = 0;
	int r = ss_recording_parse(&recording, from, n, &why);
	*damaged = true;
	ck_assert_msg(r == 0 || (r == -EBADMSG && why.text[0]), "%d", r);
	if (r < 0)
		return 0;
	while (ss_recording_event(recording, count))
		count++;
	const char *damage = ss_recording_damage(recording);
	*damaged = damage != NULL;
	ck_assert(!damage || strncmp(damage, "damaged at offset ", 18) == 0);
	ss_recording_free(recording);
	return count;
}

/* What comes before is there, and no more. */
START_TEST(files_cut_anywhere_are_read_up_to_there)
{
	bool damaged;
	make_sample();
	size_t all = events_in(bytes, size, &damaged), before = 0, whole = 0;
	ck_assert(!damaged);
	ck_assert_uint_ge(all, 10);
	for (size_t n = 0; n < size; n++) {
		size_t count = events_in(bytes, n, &damaged);
		ck_assert_uint_ge(count, before);
		ck_assert_uint_le(count, before + 1);
		whole += !damaged;
		before = count;
	}
	ck_assert_uint_eq(before, all - 1);
	/* Only between records nothing can be seen. */
	ck_assert_uint_eq(whole, all);
}
END_TEST

START_TEST(a_changed_bit_is_seen)
{
	bool damaged;
	make_sample();
	for (size_t bit = 0; bit < 8 * size; bit++) {
		bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
		events_in(bytes, size, &damaged);
		ck_assert_msg(damaged, "bit %zu", bit);
		bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
}
END_TEST

#define BODY(text) text, sizeof(text) - 1

static const char no_address[SS_ADDRESS_TEXT] = "longer than any";

static const struct {
	unsigned kind, flags;
	uint64_t id;
	const char *body;
	size_t n;
	const char *why;
} odd[] = {
	{ 77, 0, 1, BODY(""), "a kind that is not known" },
	{ SS_RECORDED_INPUT, 2, 1, BODY("x"), "head has what is not known" },
	{ SS_RECORDED_INPUT, 0, 2, BODY("x"), "before it was opened" },
	{ SS_RECORDED_INPUT, 0, 8, BODY("x"), "before it was opened" },
	{ SS_RECORDED_INPUT, 0, 9, BODY("x"), "behind its end" },
	{ SS_RECORDED_OPEN, 0, 1, BODY("-"), "opened twice" },
	{ SS_RECORDED_OPEN, 0, 3, BODY("a\0b"), "text has a NUL" },
	{ SS_RECORDED_OPEN, 0, 3, no_address, sizeof(no_address),
	  "not as long" },
	{ RECORD_BEGIN, 0, 0, BODY("\0\0\0\0\0\0\0\0\0\0\0\0"), "once more" },
	{ SS_RECORDED_INPUT_END, 0, 1, BODY("x"), "longer than it should" },
	{ SS_RECORDED_END, 0, 1, BODY("xxx"), "its error is none" },
	{ SS_RECORDED_END, 0, 1, BODY("\0\0\x10\0"), "its error is none" },
	{ SS_RECORDED_LEFT_OUT, 0, 1, BODY("short"), "not as long" },
	{ SS_RECORDED_LEFT_OUT, 0, 1,
	  BODY("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\4"), "reason" },
	{ SS_RECORDED_ELSEWHERE, 0, 1, BODY("\0"), "too short" },
	{ SS_RECORDED_ELSEWHERE, 0, 1, BODY("\0\5addr"), "too short" },
	{ SS_RECORDED_OUTPUT, 1, 1, BODY("\0\0\0\1\0\0\0"), "too short" },
	{ SS_RECORDED_OUTPUT, 1, 1, BODY("\0\0\0\1\0\0\0\1xxxxxxx"),
	  "too short for what was redacted" },
	{ SS_RECORDED_OUTPUT, 1, 1, BODY("\0\0\0\1\xff\xff\xff\xff"),
	  "too short for what was redacted" },
	{ SS_RECORDED_OUTPUT, 1, 1, BODY("\0\0\0\1\0\0\0\0xx"),
	  "more was kept" },
	{ SS_RECORDED_OUTPUT, 1, 1, BODY("\xff\0\0\1\0\0\0\0xx"),
	  "more was kept" },
	{ SS_RECORDED_OUTPUT, 1, 1, BODY("\0\0\0\2\0\0\0\1\0\0\0\1\0\0\0\2xx"),
	  "not in its place" },
	{ SS_RECORDED_OUTPUT, 1, 1, BODY("\0\0\0\2\0\0\0\1\0\0\0\1\0\0\0\0xx"),
	  "not in its place" },
	{ SS_RECORDED_OUTPUT, 1, 1,
	  BODY("\0\0\0\2\0\0\0\1\xff\xff\xff\xff\0\0\0\1xx"),
	  "not in its place" },
	{ SS_RECORDED_OUTPUT, 1, 1,
	  BODY("\0\0\0\2\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0\1xx"),
	  "not in its place" },
};
enum { ODD = sizeof(odd) / sizeof(*odd) };

/* Though their checks are right. */
START_TEST(records_that_cannot_be_are_named)
{
	struct ss_recording *recording;
	char at[100];
	make_up();
	add_open(9);
	add_end(9);
	add_open(1);
	add(SS_RECORDED_OUTPUT, 0, 1, "good", 4);
	snprintf(at, sizeof(at), "damaged at offset %zu: ", made_up.size);
	add(odd[_i].kind, odd[_i].flags, odd[_i].id, odd[_i].body, odd[_i].n);
	add_open(2);
	add(SS_RECORDED_OUTPUT, 0, 1, "more", 4);
	ck_assert_int_eq(ss_recording_parse(&recording, made_up.bytes,
					    made_up.size, NULL),
			 0);
	const char *damage = ss_recording_damage(recording);
	ck_assert_ptr_nonnull(damage);
	ck_assert_msg(strncmp(damage, at, strlen(at)) == 0, "%s", damage);
	ck_assert_msg(strstr(damage, odd[_i].why) != NULL, "%s", damage);
	ck_assert_str_eq(said(recording, 1, SS_RECORDED_OUTPUT), "good");
	ck_assert_uint_eq(connections(recording), 2);
	ss_recording_free(recording);
}
END_TEST

START_TEST(what_is_no_recording_is_refused)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *why;
	} wrong[] = {
		{ BODY(""), "no recording" },
		{ BODY("SSRECOR"), "no recording" },
		{ BODY("#!/bin/sh\nexit\n\n\n"), "no recording" },
		{ BODY("SSRECORD\0\0"), "ends in its head" },
		{ BODY("SSRECORD\0\0\0\2\0\0\0\0"), "another version" },
		{ BODY("SSRECORD\0\0\0\1\0\0\0\1"), "not known" },
	};
	struct ss_recording *recording;
	struct ss_diag why;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		ck_assert_int_eq(ss_recording_parse(&recording, wrong[i].bytes,
						    wrong[i].n, &why),
				 -EBADMSG);
		ck_assert_ptr_null(recording);
		ck_assert_msg(strstr(why.text, wrong[i].why) != NULL, "%s",
			      why.text);
	}
	ck_assert_int_eq(ss_recording_open(&recording, "/nowhere", NULL),
			 -ENOENT);
	ck_assert_int_eq(ss_recording_open(&recording, "/nowhere", &why),
			 -ENOENT);
	ck_assert_str_eq(why.text, "/nowhere: No such file or directory");
	ck_assert_int_eq(ss_recording_open(&recording, "/tmp", &why), -EBADMSG);
	ck_assert_int_eq(ss_recording_open(&recording, "/dev/null", &why),
			 -EBADMSG);
	make_up();
	ck_assert_int_eq(ss_recording_parse(&recording, made_up.bytes,
					    RECORD_FILE_HEAD, &why),
			 0);
	ck_assert_str_eq(ss_recording_damage(recording),
			 "damaged at offset 16: nothing was recorded");
	ck_assert_str_eq(ss_recording_server(recording), "");
	ss_recording_free(recording);
}
END_TEST

START_TEST(recordings_have_a_beginning)
{
	struct ss_recording *recording;
	make_up();
	made_up.size = RECORD_FILE_HEAD;
	add_open(1);
	add_end(1);
	ck_assert_int_eq(ss_recording_parse(&recording, made_up.bytes,
					    made_up.size, NULL),
			 0);
	ck_assert_str_eq(ss_recording_damage(recording),
			 "damaged at offset 16: it does not begin with its "
			 "beginning");
	ck_assert_uint_eq(connections(recording), 0);
	ss_recording_free(recording);
}
END_TEST

static int reads;

/* By few bytes, and now and then by none; and, once, no more of them. */
static ssize_t odd_read(int fd, void *buf, size_t n)
{
	reads++;
	if (reads % 3 == 1) {
		errno = EINTR;
		return -1;
	}
	return real.read(fd, buf, n < 10 ? n : 10);
}

static ssize_t short_read(int fd, void *buf, size_t n)
{
	return reads++ ? 0 : real.read(fd, buf, n - 1);
}

START_TEST(files_are_read_however_they_come)
{
	struct ss_recording *recording;
	struct ss_diag why;
	make_up();
	add_open(1);
	add_text(SS_RECORDED_OUTPUT, 1, "what it was told");
	add_end(1);
	made_up_write(path);
	real = sys_table;
	reads = 0;
	sys_table.read = odd_read;
	recording = reopen();
	ck_assert_str_eq(said(recording, 0, SS_RECORDED_OUTPUT),
			 "what it was told");
	ss_recording_free(recording);
	ck_assert_int_gt(reads, 10);
	/* Somebody cuts it meanwhile. */
	reads = 0;
	sys_table.read = short_read;
	ck_assert_int_eq(ss_recording_open(&recording, path, &why), 0);
	ck_assert_ptr_nonnull(strstr(ss_recording_damage(recording),
				     "the file ends in a record"));
	ss_recording_free(recording);
	sys_table = real;
}
END_TEST

/* ---- comparing ------------------------------------------------------------*/

START_TEST(answers_are_compared)
{
	static const struct {
		size_t number;
		uint64_t offset;
		const char *answer; /* NULL: the end */
		const char *why;    /* NULL: the same */
	} cases[] = {
		{ 0, 0, "one two", NULL },
		{ 0, 0, "one", NULL },
		{ 0, 3, " t", NULL },
		{ 0, 7, NULL, NULL },
		{ 0, 0, "one, two",
		  "connection #5, output byte 3: recorded \" two\", answered "
		  "\", two\"" },
		{ 0, 2, "e tWo",
		  "connection #5, output byte 5: recorded \"wo\", answered "
		  "\"Wo\"" },
		{ 0, 0, "one two\n",
		  "connection #5, output byte 7: recorded the end, answered "
		  "\"\\n\"" },
		{ 0, 4, NULL,
		  "connection #5, output byte 4: recorded \"two\", answered "
		  "the end" },
		/* Not all of it is there. */
		{ 1, 0, "abc and more", NULL },
		{ 1, 0, "abx", "output byte 2: recorded \"c\"" },
		{ 1, 2, NULL, "answered the end" },
		/* Datagrams, whose second reply is empty. */
		{ 2, 0, "r1", NULL },
		{ 2, 0, "r", "reply 0: recorded \"r1\", answered \"r\"" },
		{ 2, 0, "r1x", "reply 0" },
		{ 2, 1, "", NULL },
		{ 2, 1, "x", "reply 1: recorded \"\", answered \"x\"" },
		{ 2, 1, NULL, "reply 1: recorded \"\", answered the end" },
		{ 2, 2, NULL, NULL },
		{ 2, 2, "", "reply 2: recorded the end, answered \"\"" },
	};
	struct ss_recording *recording;
	struct ss_diag why;
	make_up();
	add_open(5);
	add_open(6);
	add(SS_RECORDED_OPEN, 1, 4, "-", 1);
	add(SS_RECORDED_OUTPUT, 0, 5, "one", 3);
	add(SS_RECORDED_OUTPUT, 0, 6, "abc", 3);
	add(SS_RECORDED_OUTPUT, 0, 5, "", 0);
	add(SS_RECORDED_OUTPUT, 0, 5, " two", 4);
	add(SS_RECORDED_OUTPUT, 0, 4, "r1", 2);
	add(SS_RECORDED_OUTPUT, 0, 4, "", 0);
	add_end(5);
	add_end(4);
	ck_assert_int_eq(ss_recording_parse(&recording, made_up.bytes,
					    made_up.size, NULL),
			 0);
	ck_assert_ptr_null(ss_recording_damage(recording));
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *answer = cases[i].answer;
		int r = ss_recording_compare(recording, cases[i].number,
					     cases[i].offset, answer,
					     answer ? strlen(answer) : 0, &why);
		ck_assert_msg(r == (cases[i].why != NULL), "case %zu", i);
		ck_assert_msg(!r || strstr(why.text, cases[i].why),
			      "case %zu: %s", i, why.text);
	}
	ck_assert_int_eq(ss_recording_compare(recording, 3, 0, "", 0, &why),
			 -EINVAL);
	ss_recording_free(recording);
}
END_TEST

START_TEST(checks_are_those_of_the_standard)
{
	static const char digits[] = "123456789";
	unsigned char ones[32];
	memset(ones, 0xff, sizeof(ones));
	ck_assert_uint_eq(crc32c(0, digits, 9), 0xe3069283);
	ck_assert_uint_eq(crc32c(0, ones, 32), 0x62a8ab43); /* RFC 3720, B.4 */
	for (size_t i = 0; i <= 9; i++)
		ck_assert_uint_eq(
			crc32c(crc32c(0, digits, i), digits + i, 9 - i),
			0xe3069283);
}
END_TEST

/* ---- without memory -------------------------------------------------------*/

static ssize_t failing_read(int fd, void *buf, size_t n)
{
	return fails("read", EIO) ? -1 : real.read(fd, buf, n);
}

static int failing_fstat(int fd, struct stat *st)
{
	return fails("fstat", EIO) ? -1 : real.fstat(fd, st);
}

static void install_failing(void)
{
	real = sys_table;
	fail_memory();
	sys_table.mmap = fail_mmap;
	sys_table.read = failing_read;
	sys_table.fstat = failing_fstat;
}

START_TEST(servers_without_memory_are_not_made)
{
	struct ss_record_options options = { .path = path };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_record_mixin,
						  &options } },
				    .handler = &ss_echo_handler };
	struct ss_server *server;
	int n = 0, r;
	real = sys_table;
	fail_memory();
	sys_table.mmap = fail_mmap;
	do {
		fault.left = ++n;
		r = ss_server_new(&server, &config, NULL);
		ck_assert(r == 0 || r == -ENOMEM);
		ck_assert_int_eq(file_size() > 0, r == 0);
	} while (r < 0);
	ck_assert_int_gt(n, 3);
	fault.left = 0;
	sys_table = real;
	ck_assert_uint_eq(exchange(server, "x", 1), 1);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(a_parse_without_memory_says_so)
{
	struct ss_recording *recording;
	struct ss_diag why;
	int n = 0, r;
	make_sample();
	make_up();
	install_failing();
	do {
		fault.left = ++n;
		fault.what = NULL;
		r = ss_recording_parse(&recording, made_up.bytes, made_up.size,
				       n % 2 ? &why : NULL);
		ck_assert_int_eq(r, fault.what ? -ENOMEM : 0);
		ck_assert(!r == !!recording);
		if (r < 0 && n % 2)
			ck_assert_str_eq(why.text, "Cannot allocate memory");
	} while (fault.what);
	ck_assert_int_gt(n, 6);
	fault.left = 0;
	sys_table = real;
	ss_recording_free(recording);
}
END_TEST

/* Datagrams, which are sent whole. */
static void make_up_datagram(void)
{
	make_up();
	add(SS_RECORDED_OPEN, RECORD_IS_DGRAM, 1, "192.0.2.1:9", 11);
	add_text(SS_RECORDED_INPUT, 1, "one");
	add_text(SS_RECORDED_OUTPUT, 1, "ONE");
	add_end(1);
	made_up_write(path);
}

START_TEST(a_replay_without_memory_says_so)
{
	struct ss_config config = { .handler = &ss_upper_handler,
				    .log_level = SS_NONE };
	struct ss_diag why;
	int n = 0, r, descriptors = open_descriptors();
	if (_i)
		make_up_datagram();
	else
		make_sample();
	install_failing();
	do {
		fault.left = ++n;
		fault.what = NULL;
		r = ss_replay(path, &config, &why);
		ck_assert_msg(r == 0 || why.text[0], "%d", r);
		ck_assert_msg(r != 0 || !fault.left || !fault.what, "%s",
			      fault.what);
		ck_assert_int_eq(open_descriptors(), descriptors);
	} while (fault.what);
	ck_assert_msg(r == 0, "%s", why.text);
	ck_assert_int_gt(n, 10);
	fault.left = 0;
	sys_table = real;
}
END_TEST

Suite *t_record(void)
{
	Suite *suite = suite_create("record");
	TCase *tcase = suite_case(suite, "models", begin, NULL);
	tcase_add_loop_test(tcase, all_that_is_said_is_recorded, 0,
			    model_count * transport_count);
	tcase_add_loop_test(tcase, memory_is_recorded, 0, 4);
	tcase_add_loop_test(tcase, processes_and_threads_do_not_mix, 1,
			    model_count);

	tcase = suite_case(suite, "limits", begin, NULL);
	tcase_add_test(tcase, a_connection_has_so_many_bytes);
	tcase_add_test(tcase, datagrams_are_whole);
	tcase_add_loop_test(tcase, a_file_has_so_many_bytes, 0, 30);
	tcase_add_test(tcase, long_chunks_are_several_records);
	tcase_add_test(tcase, a_long_message_may_find_no_place);
	tcase_add_test(tcase, who_is_asked_for_twice_is_opened_once);
	tcase_add_test(tcase, many_pieces_are_all_recorded);
	tcase_add_test(tcase, many_pieces_of_a_datagram_are_one_record);
	tcase_add_test(tcase, what_no_record_holds_is_several);
	tcase_add_test(tcase, what_went_is_recorded_and_no_more);

	tcase = suite_case(suite, "redacting", begin, NULL);
	tcase_add_test(tcase, redacted_bytes_are_not_written);
	tcase_add_test(tcase, many_redacted_stretches_become_one);
	tcase_add_test(tcase, without_memory_nothing_is_written_unredacted);

	tcase = suite_case(suite, "the file", begin, NULL);
	tcase_add_test(tcase, options_that_make_no_sense_are_refused);
	tcase_add_test(tcase, what_is_there_is_left_alone);
	tcase_add_test(tcase, servers_that_are_refused_leave_no_file);
	tcase_add_test(tcase, the_path_has_the_process_in_it);
	tcase_add_test(tcase, servers_without_the_layer_say_so);
	tcase_add_test(tcase, a_disk_that_fails_at_once_refuses_the_server);
	tcase_add_test(tcase, long_descriptions_are_cut);
	tcase_add_loop_test(tcase, a_disk_that_fails_stops_the_recording_alone,
			    FULL, INTERRUPTED + 1);

	tcase = suite_case(suite, "events", begin, NULL);
	tcase_add_loop_test(tcase, ends_are_told_apart, 0, model_count);
	tcase_add_loop_test(tcase, clients_that_a_stop_sends_away, 0,
			    model_count);
	tcase_add_test(tcase, children_that_are_killed_leave_what_they_wrote);
	tcase_add_loop_test(tcase, files_that_are_sent_are_recorded, 0,
			    model_count);
	tcase_add_loop_test(tcase, datagrams_go_elsewhere_too, 0, model_count);
	tcase_add_loop_test(tcase, datagrams_that_are_not_sent_are_not_recorded,
			    0, model_count);
	tcase_add_test(tcase, writes_that_fail_are_recorded);
	tcase_add_loop_test(tcase, channels_below_may_know_less, 0, 2);
	tcase_add_loop_test(tcase, the_place_among_layers_counts, 0,
			    3 * model_count);

	tcase = suite_case(suite, "reading", begin, NULL);
	tcase_add_test(tcase, files_cut_anywhere_are_read_up_to_there);
	tcase_add_test(tcase, a_changed_bit_is_seen);
	tcase_add_loop_test(tcase, records_that_cannot_be_are_named, 0, ODD);
	tcase_add_test(tcase, what_is_no_recording_is_refused);
	tcase_add_test(tcase, recordings_have_a_beginning);
	tcase_add_test(tcase, files_are_read_however_they_come);
	tcase_add_test(tcase, answers_are_compared);
	tcase_add_test(tcase, checks_are_those_of_the_standard);

	tcase = suite_case(suite, "without memory", begin, NULL);
	tcase_add_test(tcase, servers_without_memory_are_not_made);
	tcase_add_test(tcase, a_parse_without_memory_says_so);
	tcase_add_loop_test(tcase, a_replay_without_memory_says_so, 0, 2);
	return suite;
}
