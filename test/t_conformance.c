/*
 * One suite for every model over every transport: a handler written once must
 * not be able to tell them apart.  A command of one letter says what the
 * handler is to do with the rest of its message.
 */
#include "support.h"

struct state {
	int handled;
	char zeroes[100];
};

static int set_up(struct ss_request *req)
{
	const struct state *state = ss_state(req);
	for (size_t i = 0; i < sizeof(state->zeroes); i++)
		if (state->zeroes[i] || state->handled)
			return ss_fail(req, -EUCLEAN, "state is not zeroed");
	return 0;
}

static int tell_peer(struct ss_request *req)
{
	struct ss_address peer, local;
	char peer_text[SS_ADDRESS_TEXT], local_text[SS_ADDRESS_TEXT];
	if (ss_request_peer(req, &peer) < 0 ||
	    ss_request_local(req, &local) < 0)
		return -EUCLEAN;
	return (int)ss_printf(
		req, "%s %s",
		ss_address_format(&peer, peer_text, sizeof(peer_text)),
		ss_address_format(&local, local_text, sizeof(local_text)));
}

static int answer(struct ss_request *req, char *message, size_t n)
{
	struct state *state = ss_state(req);
	switch (message[0]) {
	case 'e': /* echo */
		return (int)ss_write(req, message, n);
	case 'n': /* how often */
		return (int)ss_printf(req, "%d", ++state->handled);
	case 'p':
		return tell_peer(req);
	case 'f':
		return ss_fail(req, -EPROTO, "as asked");
	case 's': /* several writes, one answer */
		return ss_printf(req, "%s-", "a") < 0 ||
				       ss_write(req, "b", 1) < 0
			       ? -EIO
			       : 1;
	case 'i': /* the ids differ */
		return (int)ss_printf(req, "%llu",
				      (unsigned long long)ss_request_id(req));
	default:
		return -EINVAL;
	}
}

static int obey(struct ss_request *req)
{
	static _Thread_local char message[65536];
	ssize_t n = ss_read(req, message, sizeof(message));
	if (n <= 0)
		return (int)n;
	int r = answer(req, message, (size_t)n);
	return r < 0 ? r : SS_AGAIN;
}

static int obey_in_loop(struct ss_request *req)
{
	int r;
	while ((r = obey(req)) == SS_AGAIN)
		if (ss_request_dgram(req))
			return 0;
	return r;
}

static const struct ss_handler handlers[] = {
	{ .name = "again",
	  .size = sizeof(struct state),
	  .setup = set_up,
	  .handle = obey },
	{ .name = "loop",
	  .size = sizeof(struct state),
	  .setup = set_up,
	  .handle = obey_in_loop },
};
enum { HANDLERS = sizeof(handlers) / sizeof(*handlers) };

/* The combination that the loop index stands for. */
static struct node node;
static const struct transport *transport;

static void start(int index)
{
	const struct ss_handler *handler = &handlers[index % HANDLERS];
	index /= HANDLERS;
	const struct model *model = &models[index % model_count];
	transport = &transports[index / model_count];
	struct ss_config config = config_of(model, transport, handler);
	config.log_level = SS_NONE;
	node_start(&node, &config);
}

static void stop(void)
{
	ck_assert_int_eq(node_stop(&node), 0);
}

static void ask(int fd, const char *command, const char *expected)
{
	send_text(fd, command);
	expect_text(fd, expected);
}

START_TEST(conformance_many_requests_one_after_another)
{
	start(_i);
	for (int i = 0; i < 30; i++) {
		int fd = dial(node.url);
		ask(fd, "echo", "echo");
		ask(fd, "e2", "e2");
		close(fd);
	}
	stop();
}
END_TEST

/* A stream's request lasts; each datagram is one of its own. */
START_TEST(conformance_state_is_the_requests)
{
	start(_i);
	int fd = dial(node.url);
	ask(fd, "n", "1");
	ask(fd, "n", transport->stream ? "2" : "1");
	int other = dial(node.url);
	if (transport->stream)
		shutdown(fd, SHUT_WR), expect_end(fd);
	ask(other, "n", "1");
	close(other);
	close(fd);
	stop();
}
END_TEST

START_TEST(conformance_clients_at_once)
{
	enum { CLIENTS = 20 };
	int fds[CLIENTS];
	int at_once = models[_i / HANDLERS % model_count].at_once;
	if (!at_once)
		at_once = CLIENTS;
	start(_i);
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial(node.url);
	for (int i = 0; i < at_once; i++)
		ask(fds[i], "e", "e");
	for (int i = at_once - 1; i >= 0; i--)
		ask(fds[i], "e again", "e again");
	for (int i = 0; i < CLIENTS; i++) {
		ask(fds[i], "e last", "e last");
		close(fds[i]);
	}
	stop();
}
END_TEST

/* As large as a datagram of each kind may be, and more for streams. */
START_TEST(conformance_large_messages)
{
	start(_i);
	size_t n = transport->stream ? 50000 : 40000;
	char *out = calloc(1, n), *in = calloc(1, n);
	for (size_t i = 0; i < n; i++)
		out[i] = (char)('a' + i % 26);
	for (size_t i = 0; i < n; i += 1000)
		out[i] = 'e';
	int fd = dial(node.url);
	/* By pieces of one segment each: a stream cuts larger ones anywhere. */
	size_t piece = transport->stream ? 1000 : n;
	for (size_t i = 0; i < n; i += piece) {
		send_bytes(fd, out + i, piece);
		expect_bytes(fd, in + i, piece);
	}
	ck_assert_mem_eq(in, out, n);
	close(fd);
	free(in);
	free(out);
	stop();
}
END_TEST

START_TEST(conformance_several_writes_are_one_answer)
{
	start(_i);
	int fd = dial(node.url);
	ask(fd, "s", "a-b");
	close(fd);
	stop();
}
END_TEST

START_TEST(conformance_addresses_are_the_peers)
{
	start(_i);
	int fd = dial(node.url);
	struct ss_address mine = { .len = sizeof(mine.u) };
	ck_assert_int_eq(getsockname(fd, &mine.u.sa, &mine.len), 0);
	char peer[SS_ADDRESS_TEXT], expected[2 * SS_ADDRESS_TEXT];
	const char *there = strchr(node.url, ':') + 1;
	snprintf(expected, sizeof(expected), "%s %s",
		 ss_address_format(&mine, peer, sizeof(peer)),
		 there + 2 * !strncmp(there, "//", 2));
	ask(fd, "p", expected);
	close(fd);
	stop();
}
END_TEST

START_TEST(conformance_a_failing_handler_costs_its_client_alone)
{
	start(_i);
	for (int i = 0; i < (transport->stream ? 5 : 1); i++) {
		int fd = dial(node.url);
		send_text(fd, "fail");
		expect_end(fd);
		close(fd);
	}
	echo_once(node.url, "e still there");
	stop();
}
END_TEST

/* Who stays has its port before datagram clients vanish: a later one could get
 * the port of one of those, and its answer. */
START_TEST(conformance_clients_that_vanish_cost_nothing)
{
	start(_i);
	int stays = transport->stream ? -1 : dial(node.url);
	for (int i = 0; i < 10; i++) {
		int fd = dial(node.url);
		struct linger reset = { .l_onoff = 1 };
		if (i % 2)
			send_text(fd, "e");
		if (i % 3)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset,
				   sizeof(reset));
		close(fd);
	}
	if (transport->stream)
		stays = dial(node.url);
	send_text(stays, "e still there");
	expect_text(stays, "e still there");
	close(stays);
	stop();
}
END_TEST

START_TEST(conformance_ids_are_unique)
{
	start(_i);
	char seen[10][24];
	for (int i = 0; i < 10; i++) {
		int fd = dial(node.url);
		send_text(fd, "i");
		ssize_t n =
			recv_within(fd, seen[i], sizeof(seen[i]) - 1, WAIT_MS);
		ck_assert_int_gt(n, 0);
		seen[i][n] = '\0';
		for (int k = 0; k < i; k++)
			ck_assert_str_ne(seen[i], seen[k]);
		close(fd);
	}
	stop();
}
END_TEST

Suite *t_conformance(void)
{
	Suite *suite = suite_create("t_conformance");
	TCase *tcase = tcase_create("every model over every transport");
	int all = HANDLERS * model_count * transport_count;
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
#define EVERYWHERE(test) tcase_add_loop_test(tcase, test, 0, all)
	EVERYWHERE(conformance_many_requests_one_after_another);
	EVERYWHERE(conformance_state_is_the_requests);
	EVERYWHERE(conformance_clients_at_once);
	EVERYWHERE(conformance_large_messages);
	EVERYWHERE(conformance_several_writes_are_one_answer);
	EVERYWHERE(conformance_addresses_are_the_peers);
	EVERYWHERE(conformance_a_failing_handler_costs_its_client_alone);
	EVERYWHERE(conformance_clients_that_vanish_cost_nothing);
	EVERYWHERE(conformance_ids_are_unique);
#undef EVERYWHERE
	return suite;
}
