/*
 * The metrics handler: what it answers, to whom, and how little it takes from
 * those who ask badly; and its page, as a browser shows it.
 */
#include "program.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>

#include "handlers.h"

Suite *t_page(void);

enum { ANSWER = 1 << 18, BROWSER_MS = 55000 };

/* ---- asking ---------------------------------------------------------------*/

static char answer[ANSWER];

/* All that is sent back, until the end; its status, or 0 where that is nothing.
 */
static int ask_bytes(const char *url, const char *text, size_t n)
{
	int fd = dial(url);
	size_t got = 0;
	ssize_t r;
	send(fd, text, n, MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	while (got < ANSWER - 1 &&
	       (r = recv_within(fd, answer + got, ANSWER - 1 - got, WAIT_MS)) >
		       0)
		got += (size_t)r;
	answer[got] = '\0';
	close(fd);
	return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : 0;
}

static int ask(const char *url, const char *text)
{
	return ask_bytes(url, text, strlen(text));
}

static int get(const char *url, const char *path)
{
	char text[200];
	snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n",
		 path);
	return ask(url, text);
}

static bool told(const char *text)
{
	return strstr(answer, text) != NULL;
}

/* ---- a server that shows itself -------------------------------------------*/

static struct ss_server *shown[1];
static const char *names[] = { "a\"b\\c\nd" };
static struct ss_metrics_page page = { shown, names, 1, NULL, NULL };
static atomic_int drained;

static void note_drain(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void page_start(struct served *served, const struct ss_handler *handler)
{
	struct ss_config config =
		config_of(&models[1], &transports[0], handler);
	config.user = &page;
	config.log_level = SS_NONE;
	use_first(&config, &ss_metrics_mixin, NULL);
	served_start(served, &config);
	shown[0] = served->server;
}

static uint64_t ended(void)
{
	struct ss_stats stats;
	ss_server_stats(shown[0], &stats);
	return stats.ended;
}

START_TEST(each_place_has_its_answer)
{
	struct served served;
	page_start(&served, &ss_metrics_handler);
	ck_assert_int_eq(get(served.url, "/"), 200);
	ck_assert(told("Content-Type: text/html; charset=utf-8\r\n"));
	ck_assert(told("\r\nContent-Security-Policy: default-src 'none'"));
	ck_assert(told("</html>"));
	eventually(ended() == 1);
	ck_assert_int_eq(get(served.url, "/metrics?now=1"), 200);
	ck_assert(told("\r\nContent-Type: text/plain; version=0.0.4"));
	ck_assert(told("accepted_total{server=\"a\\\"b\\\\c\\nd\"} 2\n"));
	ck_assert(
		told("handler_seconds_count{server=\"a\\\"b\\\\c\\nd\"} 1\n"));
	ck_assert(told("le=\"+Inf\"} 1\n"));
	ck_assert_int_eq(get(served.url, "/status.json"), 200);
	ck_assert(told("\"name\":\"a\\\"b\\\\c\\u000ad\""));
	ck_assert(told("\"waits\":\"running\""));
	ck_assert(told("\"drain\":false"));
	ck_assert_int_eq(get(served.url, "/favicon.ico"), 404);
	ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\n404 Not Found\n"));
	ck_assert_int_eq(get(served.url, "//metrics"), 404);
	ck_assert_int_eq(get(served.url, "/metrics/"), 404);
	served_stop(&served);
}
END_TEST

/* As GET, but for the body. */
START_TEST(head_is_answered_without_a_body)
{
	struct served served;
	page_start(&served, &ss_metrics_handler);
	ck_assert_int_eq(ask(served.url, "HEAD / HTTP/1.0\r\n\r\n"), 200);
	const char *end = strstr(answer, "\r\n\r\n");
	ck_assert_ptr_nonnull(end);
	ck_assert_str_eq(end, "\r\n\r\n");
	ck_assert(!told("\r\nContent-Length: 0\r\n"));
	served_stop(&served);
}
END_TEST

#define HOST "Host: localhost\r\n"

static const struct {
	const char *text;
	int status; /* 0: no answer */
} bad[] = {
	{ "", 0 },
	{ "\r\n", 400 },
	{ "\n", 400 },
	{ "GET", 400 },
	{ "GET / HTTP/1.1\n\n", 400 },
	{ "GET / HTTP/1.1\r\n", 400 },
	{ "GET / HTTP/1.1\r\n\r\n", 400 }, /* no Host */
	{ "GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400 },
	{ "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n" HOST, 400 },
	{ "GET / HTTP/1.1\r\n" HOST " folded\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n" HOST "name : x\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n" HOST ": x\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n" HOST "a: b\001c\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n" HOST "a: b\rc\r\n\r\n", 400 },
	{ "GET  / HTTP/1.1\r\n" HOST "\r\n", 400 },
	{ "GET /  HTTP/1.1\r\n" HOST "\r\n", 400 },
	{ "GET / HTTP/1.1 \r\n" HOST "\r\n", 400 },
	{ "GET /\t HTTP/1.1\r\n" HOST "\r\n", 400 },
	{ "GET metrics HTTP/1.1\r\n" HOST "\r\n", 400 },
	{ "GET http://x/ HTTP/1.1\r\n" HOST "\r\n", 400 },
	{ "G(T / HTTP/1.1\r\n" HOST "\r\n", 400 },
	{ " GET / HTTP/1.1\r\n" HOST "\r\n", 400 },
	{ "GET / HTTP/2.0\r\n" HOST "\r\n", 505 },
	{ "GET / HTTP/1.2\r\n" HOST "\r\n", 505 },
	{ "GET / HTTP/11\r\n" HOST "\r\n", 400 },
	{ "GET / http/1.1\r\n" HOST "\r\n", 400 },
	{ "get / HTTP/1.1\r\n" HOST "\r\n", 405 },
	{ "POST / HTTP/1.1\r\n" HOST "\r\n", 405 },
	{ "DELETE /metrics HTTP/1.1\r\n" HOST "\r\n", 405 },
	{ "PROPPATCH /x HTTP/1.1\r\n" HOST "\r\n", 405 },
	{ "OPTIONS / HTTP/1.1\r\n" HOST "\r\n", 405 },
	{ "POST /drain HTTP/1.1\r\n" HOST "X-Drain: y\r\n\r\n", 404 },
	{ "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", 501 },
	{ "GET / HTTP/1.1\r\n" HOST "Content-Length: 4096\r\n\r\n", 413 },
	{ "GET / HTTP/1.1\r\n" HOST "Content-Length: 99999999999\r\n\r\n",
	  413 },
	{ "GET / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n" HOST "Content-Length: 1x\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nab", 400 },
	{ "GET / HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", 200 },
	{ "GET / HTTP/1.1\r\n" HOST
	  "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
	  400 },
	{ "GET /metrics HTTP/1.1\r\n" HOST "a:\tb c \r\n\r\nmore", 200 },
	{ "GET /?q HTTP/1.0\r\n\r\n", 200 },
};
enum { BAD = sizeof(bad) / sizeof(*bad) };

START_TEST(what_is_wrong_is_told)
{
	struct served served;
	page_start(&served, &ss_metrics_handler);
	for (int i = 0; i < BAD; i++)
		ck_assert_msg(ask(served.url, bad[i].text) == bad[i].status,
			      "%s: %.20s", bad[i].text, answer);
	static const char nul[] = "GET / HTTP/1.0\r\na: b\0c\r\n\r\n";
	ck_assert_int_eq(ask_bytes(served.url, nul, sizeof(nul) - 1), 400);
	ck_assert_int_eq(get(served.url, "/"), 200);
	served_stop(&served);
}
END_TEST

/* A line, a header's lines, all of them together. */
START_TEST(what_is_too_long_is_refused)
{
	static char text[1 << 16];
	struct served served;
	page_start(&served, &ss_metrics_handler);
	snprintf(text, sizeof(text), "GET /%0400d HTTP/1.0\r\n\r\n", 0);
	ck_assert_int_eq(ask(served.url, text), 414);
	snprintf(text, sizeof(text), "GET /%05000d HTTP/1.0\r\n\r\n", 0);
	ck_assert_int_eq(ask(served.url, text), 414);
	snprintf(text, sizeof(text), "GET / HTTP/1.0\r\na: %05000d\r\n\r\n", 0);
	ck_assert_int_eq(ask(served.url, text), 431);
	snprintf(text, sizeof(text), "GET / HTTP/1.0\r\nHost: %0300d\r\n\r\n",
		 0);
	ck_assert_int_eq(ask(served.url, text), 400);
	for (int lines = 64; lines <= 65; lines++) {
		strcpy(text, "GET / HTTP/1.0\r\n");
		for (int i = 0; i < lines; i++)
			strcat(text, "a: b\r\n");
		strcat(text, "\r\n");
		ck_assert_int_eq(ask(served.url, text),
				 lines == 64 ? 200 : 431);
	}
	strcpy(text, "GET / HTTP/1.0\r\n");
	for (int i = 0; i < 20; i++)
		sprintf(text + strlen(text), "a: %01000d\r\n", 0);
	strcat(text, "\r\n");
	ck_assert_int_eq(ask(served.url, text), 431);
	served_stop(&served);
}
END_TEST

/* Byte by byte; and who stops in the midst of it is told. */
START_TEST(slow_clients_are_waited_for_a_while)
{
	static const char text[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
	struct ss_handler quick = ss_metrics_handler;
	struct served served;
	char status[13] = "";
	quick.timeouts.io_ms = 1000;
	page_start(&served, &quick);
	int fd = dial(served.url);
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		send_bytes(fd, text + i, 1);
		pause_ms(1);
	}
	expect_bytes(fd, status, 12);
	ck_assert_str_eq(status, "HTTP/1.1 200");
	close(fd);
	fd = dial(served.url);
	send_text(fd, "GET / HT");
	expect_bytes(fd, status, 12);
	ck_assert_str_eq(status, "HTTP/1.1 408");
	close(fd);
	served_stop(&served);
}
END_TEST

/* ---- the button -----------------------------------------------------------*/

#define ASKED "X-Drain: yes\r\n"
static const struct {
	const char *text;
	int status;
} asks[] = {
	{ "GET /drain HTTP/1.1\r\nHost: 127.0.0.1\r\n" ASKED "\r\n", 405 },
	{ "POST /drain HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 403 },
	{ "POST /drain HTTP/1.0\r\n" ASKED "\r\n", 403 },
	{ "POST /drain HTTP/1.1\r\nHost: evil.example\r\n" ASKED "\r\n", 403 },
	{ "POST /drain HTTP/1.1\r\nHost: localhost.evil.example\r\n" ASKED
	  "\r\n",
	  403 },
	{ "POST /drain HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n" ASKED
	  "\r\n",
	  403 },
	{ "POST /drain HTTP/1.1\r\nHost: evil.example:80\r\n" ASKED
	  "Origin: http://evil.example:80\r\n\r\n",
	  403 },
	{ "POST /drain HTTP/1.1\r\nHost: 127.0.0.1:80\r\n" ASKED
	  "Origin: http://evil.example\r\n\r\n",
	  403 },
	{ "POST /drain HTTP/1.1\r\nHost: 127.0.0.1:80\r\n" ASKED
	  "Origin: null\r\n\r\n",
	  403 },
	{ "POST /drain HTTP/1.1\r\nHost: 127.0.0.1:80\r\n" ASKED
	  "Origin: http://127.0.0.1:81\r\n\r\n",
	  403 },
	{ "POST /drain HTTP/1.1\r\nHost: 127.0.0.1:80\r\n" ASKED
	  "Origin: http://127.0.0.1:80\r\n\r\n",
	  202 },
	{ "POST /drain HTTP/1.1\r\nHost: [::1]:80\r\n" ASKED
	  "Origin: https://[::1]:80\r\n\r\n",
	  202 },
	{ "POST /drain HTTP/1.1\r\nHost: localhost\r\n" ASKED "\r\n", 202 },
};
enum { ASKS = sizeof(asks) / sizeof(*asks) };

START_TEST(only_the_page_may_drain)
{
	struct served served;
	int times = 0;
	page.drain = note_drain;
	page.drain_arg = &drained;
	page_start(&served, &ss_metrics_handler);
	for (int i = 0; i < ASKS; i++) {
		ck_assert_msg(ask(served.url, asks[i].text) == asks[i].status,
			      "%s: %.20s", asks[i].text, answer);
		times += asks[i].status == 202;
		eventually(atomic_load(&drained) == times);
	}
	ck_assert_int_eq(get(served.url, "/status.json"), 200);
	ck_assert(told("\"drain\":true"));
	served_stop(&served);
	page.drain = NULL;
}
END_TEST

START_TEST(without_servers_to_show_it_fails)
{
	char text[100];
	const char *get = "GET / HTTP/1.0\r\n\r\n";
	ck_assert_int_eq(ss_memory_exchange(&ss_metrics_handler, get,
					    strlen(get), text, sizeof(text)),
			 -EINVAL);
}
END_TEST

/* ---- the echo server's, by other people's programs ------------------------*/

static struct ended got;

struct echo {
	struct program program;
	char url[SS_ADDRESS_TEXT], figures[SS_ADDRESS_TEXT];
};

static void echo_start(struct echo *echo, const char *model,
		       const char *further)
{
	memset(echo, 0, sizeof(*echo));
	program_start(&echo->program,
		      ARGV(demo("echo_server"), "-m", model, "--metrics",
			   "127.0.0.1:0", "--log", "error", "--per-source",
			   "100", "tcp://127.0.0.1:0", further));
	strcpy(echo->url, program_listening(&echo->program));
	strcpy(echo->figures, program_listening(&echo->program));
}

static int connected(const struct echo *echo)
{
	int fd = dial(echo->url);
	send_text(fd, "hello");
	expect_text(fd, "hello");
	return fd;
}

static bool eventually_told(const struct echo *echo, const char *text)
{
	return get(echo->figures, "/metrics") == 200 && told(text);
}

/* While a client is served, whoever serves him; and in /metrics once he has
 * gone. */
START_TEST(the_page_is_served_beside_every_model)
{
	struct echo echo;
	char text[SS_ADDRESS_TEXT + 60];
	echo_start(&echo, models[_i].name, NULL);
	int fd = connected(&echo);
	eventually(get(echo.figures, "/status.json") == 200 &&
		   told("\"waits\":\"idle\""));
	close(fd);
	snprintf(text, sizeof(text), "handler_seconds_count{server=\"%s\"} 1\n",
		 echo.url);
	eventually(eventually_told(&echo, text));
	program_stop(&echo.program, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
}
END_TEST

/* Sockets that say nothing keep nobody from the page, or from the server. */
START_TEST(silent_clients_keep_nobody_waiting)
{
	struct echo echo;
	int fd[20];
	echo_start(&echo, models[_i].name, NULL);
	for (int i = 0; i < 20; i++)
		fd[i] = dial(echo.figures);
	send_text(fd[0], "GET / HTTP/1.1\r\n");
	ck_assert_int_eq(get(echo.figures, "/"), 200);
	close(connected(&echo));
	for (int i = 0; i < 20; i++)
		close(fd[i]);
	program_stop(&echo.program, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
}
END_TEST

static const char *place_of(const struct echo *echo)
{
	return strstr(echo->figures, "://") + 3;
}

/* Debian's python, which has the packages that apt installs. */
static const char *python(void)
{
	return access("/usr/bin/python3", X_OK) == 0 ? "/usr/bin/python3"
						     : "python3";
}

START_TEST(figures_are_as_prometheus_reads_them)
{
	struct echo echo;
	if (!have(python())) {
		printf("skipped: python3 is not here\n");
		return;
	}
	echo_start(&echo, "threading", NULL);
	int fd = connected(&echo);
	for (int i = 0; i < 20; i++)
		close(connected(&echo));
	program_run(&got, "",
		    ARGV(python(), "test/peers/metrics.py", place_of(&echo)));
	ck_assert_msg(got.status == 0, "%s", got.err);
	ck_assert_str_eq(strtok(got.out, ","), "well");
	close(fd);
	program_stop(&echo.program, SIGTERM, &got);
}
END_TEST

START_TEST(curl_understands_it)
{
	struct echo echo;
	char url[SS_ADDRESS_TEXT];
	if (!have("curl")) {
		printf("skipped: curl is not here\n");
		return;
	}
	echo_start(&echo, "fiber", NULL);
	snprintf(url, sizeof(url), "http://%s/metrics", place_of(&echo));
	program_run(&got, "", ARGV("curl", "-fsS", "--noproxy", "*", url));
	ck_assert_int_eq(got.status, 0);
	ck_assert_ptr_nonnull(strstr(got.out, "# TYPE socketserver_active"));
	program_run(&got, "", ARGV("curl", "-sSI", "--noproxy", "*", url));
	ck_assert_int_eq(got.status, 0);
	ck_assert_ptr_nonnull(strstr(got.out, "HTTP/1.1 200 OK"));
	program_stop(&echo.program, SIGTERM, &got);
}
END_TEST

/* ---- a browser ------------------------------------------------------------*/

static bool plain_debug(void)
{
	const char *build = getenv("SS_BUILD");
	size_t n = build ? strlen(build) : 0;
	return n > 12 && strcmp(build + n - 12, "/build/debug") == 0;
}

START_TEST(a_browser_shows_who_is_connected)
{
	static const char *const buttons[] = { "none", "drain" };
	struct echo echo;
	char peer[SS_ADDRESS_TEXT];
	if (!have("chromium") || !have(python()) || !plain_debug()) {
		printf("skipped: no chromium, or another variant\n");
		return;
	}
	echo_start(&echo, "prefork,fiber", _i ? "--metrics-drain" : NULL);
	int fd = connected(&echo);
	struct ss_address own = { .len = sizeof(own.u) };
	ck_assert_int_eq(getsockname(fd, &own.u.sa, &own.len), 0);
	ss_address_format(&own, peer, sizeof(peer));
	struct program browser = { .pid = 0 };
	program_start(&browser,
		      ARGV(python(), "test/peers/browser.py", place_of(&echo),
			   peer, "idle", buttons[_i]));
	struct pollfd told = { .fd = browser.out, .events = POLLIN };
	ck_assert_int_eq(poll(&told, 1, BROWSER_MS), 1);
	program_wait(&browser, &got);
	ck_assert_msg(got.status == 0, "%s", got.err);
	if (!_i)
		kill(echo.program.pid, SIGTERM);
	close(fd);
	program_wait(&echo.program, &got);
	ck_assert_int_eq(got.status, 0);
}
END_TEST

Suite *t_page(void)
{
	Suite *suite = suite_create("page");
	TCase *tcase = suite_case(suite, "answers", NULL, NULL);
	tcase_add_test(tcase, each_place_has_its_answer);
	tcase_add_test(tcase, head_is_answered_without_a_body);
	tcase_add_test(tcase, what_is_wrong_is_told);
	tcase_add_test(tcase, what_is_too_long_is_refused);
	tcase_add_test(tcase, slow_clients_are_waited_for_a_while);
	tcase_add_test(tcase, only_the_page_may_drain);
	tcase_add_test(tcase, without_servers_to_show_it_fails);

	tcase = suite_case(suite, "programs", NULL, NULL);
	tcase_add_loop_test(tcase, the_page_is_served_beside_every_model, 0,
			    plain_count);
	tcase_add_loop_test(tcase, silent_clients_keep_nobody_waiting, 0,
			    plain_count);
	tcase_add_test(tcase, figures_are_as_prometheus_reads_them);
	tcase_add_test(tcase, curl_understands_it);

	tcase = suite_case(suite, "browser", NULL, NULL);
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, a_browser_shows_who_is_connected, 0, 2);
	return suite;
}
