/*
 * The control protocol.  The input: how it is cut (up to a NUL), and lines of
 * commands, where '@' stands for the id of a client that is being served.
 */
#include "fuzz.h"

#include <ctype.h>
#include <stdio.h>

#include "../../handlers/handlers.h"

enum { SERVERS = 2, LINE = 512 };

static struct ss_server *servers[SERVERS];
static struct ss_memory_client *client;
static int drained;

static void drain(void *arg)
{
	(void)arg;
	drained++;
}

/* ---- those that are controlled --------------------------------------------*/

static int echo(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	return n > 0 ? SS_AGAIN : (int)n;
}

static int note_id(void *arg, const struct ss_snapshot *snapshot)
{
	*(uint64_t *)arg = snapshot->id;
	return 0;
}

/* One with all layers and a client, and one without any.  The client's id. */
static uint64_t begin(void)
{
	static const struct ss_handler handler = { .handle = echo };
	static const struct ss_fiber_options one_loop = { .loops = 1 };
	static const struct ss_config plain = {
		.transport = &ss_memory_server,
		.handler = &handler,
		.log_level = SS_NONE,
	};
	uint64_t id = 0;
	struct ss_config config = plain;
	config.mixins[0] = (struct ss_use){ &ss_metrics_mixin, NULL };
	config.mixins[1] = (struct ss_use){ &ss_limits_mixin, NULL };
	config.mixins[2] = (struct ss_use){ &ss_fiber_mixin, &one_loop };
	drained = 0;
	must(ss_server_new(&servers[0], &config, NULL) == 0, "server");
	must(ss_server_new(&servers[1], &plain, NULL) == 0, "server");
	must(ss_memory_connect(servers[0], &client) == 0, "connect");
	must(ss_memory_send(client, "x", 1) == 1, "send");
	must(ss_server_turn(servers[0], 0) == 1, "turn");
	ss_each(servers[0], note_id, &id);
	must(id, "it has no client");
	return id;
}

static void end(void)
{
	for (int i = 0; i < SERVERS; i++) {
		struct ss_limits_options now;
		must(ss_active_limit(servers[i]) >= 0, "max_active %d",
		     ss_active_limit(servers[i]));
		must(i || (ss_limits_current(servers[i], &now) == 0 &&
			   now.rate >= 0 && now.burst >= 0 && now.per_ms > 0),
		     "limits");
	}
	ss_memory_close(client);
	for (int i = 0; i < SERVERS; i++)
		must(ss_server_free(servers[i]) == 0, "free");
}

/* ---- what is said ---------------------------------------------------------*/

/* With ids in it. */
static char *make_lines(struct input in, uint64_t id, size_t *n)
{
	char *lines = malloc(24 * in.left + 1);
	must(lines, "no memory");
	for (*n = 0; in.left;) {
		uint8_t c = take_byte(&in);
		if (c == '@')
			*n += (size_t)snprintf(lines + *n, 24, "%llu",
					       (unsigned long long)id);
		else
			lines[(*n)++] = (char)c;
	}
	return lines;
}

static bool drains(struct input line)
{
	char words[LINE], *rest = NULL;
	memcpy(words, line.at, line.left);
	words[line.left] = '\0';
	const char *word = strtok_r(words, " \t\r\n", &rest);
	return word && !strcmp(word, "drain") &&
	       !strtok_r(NULL, " \t\r\n", &rest);
}

/* How many answers there are to be; the last line may be refused. */
static int count_answers(struct input in, int *drain_count)
{
	int count = 0;
	for (*drain_count = 0; in.left; count++) {
		size_t before = in.left;
		struct input line = take_until(&in, '\n');
		line.left += before - line.left > in.left;
		if (line.left >= LINE || line.at[line.left - 1] != '\n' ||
		    memchr(line.at, '\0', line.left))
			return count + 1;
		*drain_count += drains(line);
	}
	return count;
}

static void must_answer(const struct served *served, int answers)
{
	struct input in = { served->answer, served->n };
	bool ended = true;
	must(served->status == 0, "%d", served->status);
	while (in.left) {
		struct input line = take_until(&in, '\n');
		const char *text = (const char *)line.at;
		must(plain_text(text, line.left), "'%.*s'", (int)line.left,
		     text);
		ended = (line.left == 2 && !memcmp(text, "ok", 2)) ||
			(line.left > 7 && !memcmp(text, "error: ", 7));
		answers -= ended;
	}
	must(ended && answers == 0, "%d answers are missing in '%.*s'", answers,
	     (int)served->n, (const char *)served->answer);
}

/* Ids and what was counted differ from time to time. */
static void mask_numbers(struct served *served)
{
	size_t to = 0;
	for (size_t i = 0; i < served->n; i++) {
		bool digit = isdigit(served->answer[i]);
		if (!digit || to == 0 || served->answer[to - 1] != '#')
			served->answer[to++] = digit ? '#' : served->answer[i];
	}
	served->n = to;
}

static struct served command(enum way way, struct input cuts, struct input in)
{
	struct ss_handler handler = ss_control_handler;
	const struct ss_control control = { .servers = servers,
					    .count = SERVERS,
					    .drain = drain };
	const struct ss_config config = { .handler = &handler,
					  .user = (void *)&control };
	int drains_wanted;
	size_t n;
	uint64_t id = begin();
	char *lines = make_lines(in, id, &n);
	struct input all = { (const uint8_t *)lines, n };
	int answers = count_answers(all, &drains_wanted);
	handler.setup = NULL; /* memory has no credentials */
	struct served served = serve_one(&config, way, cuts, lines, n);
	must_answer(&served, answers);
	must(drained == drains_wanted, "drained %d times instead of %d",
	     drained, drains_wanted);
	mask_numbers(&served);
	free(lines);
	end();
	return served;
}

FUZZ_TARGET(control)(const uint8_t *data, size_t n)
{
	struct input in = { data, n };
	struct input cuts = take_until(&in, '\0');
	struct served whole = command(WHOLE, cuts, in);
	struct served other = command(way_of(cuts), cuts, in);
	must_be_same(&whole, &other, way_of(cuts));
	served_free(&whole);
	served_free(&other);
	return 0;
}
