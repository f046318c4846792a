/* What the suites of the guards share. */
#include "guards.h"

struct tally *tally;

void tally_begin(void)
{
	if (!tally)
		tally = ss_shared_alloc(sizeof(*tally));
	ck_assert_ptr_nonnull(tally);
	memset(tally, 0, sizeof(*tally));
}

static int tally_verify(struct ss_server *server, struct ss_request *req)
{
	atomic_fetch_add(&tally->begun, 1);
	return ss_super(server, &tally_layer)->verify_request(server, req);
}

static void tally_end(struct ss_server *server, struct ss_request *req,
		      int status)
{
	ss_super(server, &tally_layer)->end_request(server, req, status);
	atomic_fetch_add(&tally->ended, 1);
}

const struct ss_layer tally_layer = {
	.name = "tally",
	.ops = { .verify_request = tally_verify, .end_request = tally_end },
};

void tally_even(int begun)
{
	eventually(atomic_load(&tally->begun) == atomic_load(&tally->ended) &&
		   (begun == SS_NONE || atomic_load(&tally->ended) == begun));
}

/* ---- clients from elsewhere -----------------------------------------------*/

const char *pretended;

struct ss_address address_of(const char *text)
{
	struct ss_endpoint place;
	struct ss_diag why;
	ck_assert_msg(ss_resolve(text, SS_SCHEME_ANY, &place, 1, &why) >= 1,
		      "%s", why.text);
	return place.address;
}

static int pretend_verify(struct ss_server *server, struct ss_request *req)
{
	if (pretended) {
		struct ss_address peer = address_of(pretended);
		ck_assert_int_eq(ss_request_set_peer(req, &peer), 0);
	}
	return ss_super(server, &pretend_layer)->verify_request(server, req);
}

const struct ss_layer pretend_layer = {
	.name = "pretend",
	.ops = { .verify_request = pretend_verify },
};

/* ---- workers
 * ----------------------------------------------------------------*/

static atomic_int *born; /* in shared memory */

static void note_worker(struct ss_server *server)
{
	if (ss_worker(server))
		atomic_fetch_add(born, 1);
}

static const struct ss_layer births = { .name = "births",
					.after_fork = note_worker };

void served_start_ahead(struct served *served, struct ss_config *config)
{
	born = ss_shared_alloc(sizeof(*born));
	ck_assert_ptr_nonnull(born);
	use_first(config, &births, NULL);
	served_start(served, config);
	if (ss_workers(served->server))
		eventually(atomic_load(born));
}

/* ---- whether they are served ----------------------------------------------*/

bool served_in_memory(struct ss_server *server)
{
	struct ss_memory_client *client;
	char byte;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ss_memory_send(client, "x", 1);
	ss_memory_shutdown(client);
	ssize_t n = ss_memory_recv(client, &byte, 1);
	ss_memory_close(client);
	return n == 1;
}

bool served_at(const char *url)
{
	int fd = dial(url), type = 0;
	socklen_t len = sizeof(type);
	char byte;
	ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len), 0);
	send(fd, "x", 1, MSG_NOSIGNAL);
	ssize_t n =
		recv_within(fd, &byte, 1, type == SOCK_DGRAM ? 100 : WAIT_MS);
	ck_assert_msg(n == 1 || type == SOCK_DGRAM || n == 0 ||
			      n == -ECONNRESET,
		      "%zd", n);
	close(fd);
	return n == 1;
}
