/*
 * Control: who is being served, ended one by one; taking clients suspended,
 * limits and levels changed, while they are served, in every process; by the
 * library's calls, by the handler's lines, and by ssctl.
 */
#include "guards.h"

#include "handlers.h"

Suite *t_control(void);

enum { QUIET_MS = 100 };

/* ---- clients --------------------------------------------------------------*/

/* Tells its id, then echoes. */
static int say_id(struct ss_request *req)
{
	ssize_t n = ss_printf(req, "%llu\n",
			      (unsigned long long)ss_request_id(req));
	return n < 0 ? (int)n : 0;
}

static int echo(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler telling = {
	.name = "telling", .setup = say_id, .handle = echo, .speaks_first = true
};

struct visitor {
	int fd;
	unsigned long long id;
};

static void line_of(int fd, char *line, size_t size)
{
	size_t n = 0;
	do {
		ck_assert_uint_lt(n, size - 1);
		expect_bytes(fd, line + n, 1);
	} while (line[n++] != '\n');
	line[n - 1] = '\0';
}

static struct visitor visit(const char *url)
{
	char line[64];
	struct visitor visitor = { .fd = dial(url) };
	line_of(visitor.fd, line, sizeof(line));
	visitor.id = strtoull(line, NULL, 10);
	ck_assert_uint_gt(visitor.id, 0);
	return visitor;
}

static void still_served(const struct visitor *visitor)
{
	send_text(visitor->fd, "still");
	expect_text(visitor->fd, "still");
}

/* What is asked of workers takes a moment to reach them: a client who is not
 * served, though others may have been meanwhile. */
static int left_waiting(const char *url)
{
	char byte;
	int fd;
	eventually((fd = dial(url),
		    recv_within(fd, &byte, 1, QUIET_MS) == -EAGAIN ||
			    (close(fd), false)));
	return fd;
}

static void is_served_now(int fd)
{
	char line[64];
	line_of(fd, line, sizeof(line));
}

/* Its connection ends, by a reset or not. */
static void has_ended(int fd)
{
	char buf[64];
	ssize_t n;
	while ((n = recv_within(fd, buf, sizeof(buf), WAIT_MS)) > 0)
		;
	ck_assert_msg(n == 0 || n == -ECONNRESET, "%zd", n);
}

/* ---- the library's calls --------------------------------------------------*/

static void start(struct served *served, int model, int active)
{
	struct ss_config config =
		config_of(&models[model], &transports[0], &telling);
	config.max_active = active;
	served_start_ahead(served, &config);
}

static int cancel(struct ss_server *server, uint64_t id)
{
	int r;
	eventually((r = ss_cancel(server, id)) != -EINPROGRESS);
	return r;
}

START_TEST(a_request_is_cancelled_wherever_it_runs)
{
	const struct model *model = &models[_i];
	struct served served;
	start(&served, _i, 0);
	struct visitor a = visit(served.url), b = { .fd = -1 };
	if (model->at_once != 1)
		b = visit(served.url);
	ck_assert_int_eq(cancel(served.server, 12345), -ENOENT);
	still_served(&a);
	ck_assert_int_eq(cancel(served.server, a.id), 0);
	has_ended(a.fd);
	if (b.fd >= 0) {
		still_served(&b);
		close(b.fd);
	}
	eventually(cancel(served.server, a.id) == -ENOENT);
	/* More of them than are remembered. */
	for (int i = 0; i < 100; i++) {
		int r;
		eventually((r = ss_cancel(served.server, 1u << 20 | i)) !=
			   -EBUSY);
		ck_assert(r == -EINPROGRESS || r == -ENOENT);
	}
	struct visitor c = visit(served.url);
	ck_assert_int_eq(cancel(served.server, c.id), 0);
	has_ended(c.fd);
	close(a.fd);
	close(c.fd);
	served_stop(&served);
}
END_TEST

START_TEST(suspended_clients_wait_and_others_go_on)
{
	bool alone = models[_i].at_once == 1;
	struct served served;
	start(&served, _i, 0);
	struct visitor a = visit(served.url);
	ss_hold(served.server, SS_HOLD_SUSPENDED);
	if (alone)
		close(a.fd);
	int fd = left_waiting(served.url);
	if (!alone)
		still_served(&a);
	ck_assert(ss_holding(served.server, SS_HOLD_SUSPENDED));
	ss_release(served.server, SS_HOLD_SUSPENDED);
	is_served_now(fd);
	close(fd);
	if (!alone)
		close(a.fd);
	served_stop(&served);
}
END_TEST

START_TEST(max_active_changes_while_it_serves)
{
	if (models[_i].at_once == 1)
		return;
	struct served served;
	start(&served, _i, 1);
	struct visitor a = visit(served.url);
	ck_assert_int_eq(ss_active_limit(served.server), 1);
	int fd = left_waiting(served.url);
	ck_assert_int_eq(ss_limit_active(served.server, 2), 0);
	is_served_now(fd);
	ck_assert_int_eq(ss_limit_active(served.server, 1), 0);
	int further = left_waiting(served.url);
	/* Two leave, and one may come. */
	close(fd);
	still_served(&a);
	ck_assert_int_eq(ss_limit_active(served.server, 0), 0);
	is_served_now(further);
	struct visitor b = visit(served.url);
	still_served(&a);
	still_served(&b);
	ck_assert_int_eq(ss_limit_active(served.server, -1), -EINVAL);
	close(a.fd);
	close(b.fd);
	close(further);
	served_stop(&served);
}
END_TEST

/* Those of a pool are not more than it has threads for. */
START_TEST(a_pool_keeps_its_own_cap)
{
	static const struct ss_pool_options two = { .threads = 2,
						    .ahead = SS_NONE };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .mixins = { { &ss_pool_mixin, &two } },
				    .handler = &telling };
	struct served served;
	served_start(&served, &config);
	ck_assert_int_eq(ss_active_limit(served.server), 2);
	ck_assert_int_eq(ss_limit_active(served.server, 5), 0);
	ck_assert_int_eq(ss_active_limit(served.server), 2);
	struct visitor a = visit(served.url), b = visit(served.url);
	int fd = left_waiting(served.url);
	ck_assert_int_eq(ss_limit_active(served.server, 1), 0);
	ck_assert_int_eq(ss_active_limit(served.server), 1);
	close(a.fd);
	still_served(&b);
	close(b.fd);
	is_served_now(fd);
	close(fd);
	served_stop(&served);
}
END_TEST

Suite *t_control(void)
{
	Suite *suite = suite_create("control");
	TCase *calls = suite_case(suite, "calls", begin_threads, NULL);
	tcase_add_loop_test(calls, a_request_is_cancelled_wherever_it_runs, 0,
			    model_count);
	tcase_add_loop_test(calls, suspended_clients_wait_and_others_go_on, 0,
			    model_count);
	tcase_add_loop_test(calls, max_active_changes_while_it_serves, 0,
			    model_count);
	tcase_add_test(calls, a_pool_keeps_its_own_cap);
	return suite;
}
