/* The first failure that means anything: does it serve at all? */
#include "support.h"

static int echo(struct ss_request *req)
{
	char buf[4096];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler echo_handler = { .name = "echo",
						.handle = echo };

START_TEST(smoke_every_model_and_transport_echoes)
{
	const struct model *model = &models[_i / transport_count];
	const struct transport *transport = &transports[_i % transport_count];
	struct ss_config config = config_of(model, transport, &echo_handler);
	struct node node;
	node_start(&node, &config);
	for (int i = 0; i < 5; i++)
		echo_once(node.url, "hello");
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(smoke_memory_echoes)
{
	char out[16];
	ck_assert_int_eq(
		ss_memory_exchange(&echo_handler, "hello", 5, out, sizeof(out)),
		5);
	ck_assert_mem_eq(out, "hello", 5);
	ck_assert_int_eq(ss_memory_exchange_packet(&echo_handler, "packet", 6,
						   out, sizeof(out)),
			 6);
	ck_assert_mem_eq(out, "packet", 6);
}
END_TEST

Suite *t_smoke(void)
{
	Suite *suite = suite_create("t_smoke");
	TCase *tcase = tcase_create("smoke");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase, smoke_every_model_and_transport_echoes, 0,
			    model_count * transport_count);
	tcase_add_test(tcase, smoke_memory_echoes);
	return suite;
}
