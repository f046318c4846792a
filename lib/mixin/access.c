/*
 * Access: clients are let in by lists, which may be replaced while the server
 * serves, in whichever process.
 */
#include <errno.h>
#include <stdatomic.h>

#include <socketserver/layers.h>

#include "../diag.h"
#include "acl.h"

enum { MAX_ENTRIES = 1024 };

struct access {
	struct acl *acl;
	atomic_ullong *refused; /* shared, too */
};

static struct access *access_of(const struct ss_server *server)
{
	return ss_layer_state(server, &ss_access_mixin);
}

/* Room for max_entries; where that is not said, for what there is at least. */
static size_t room_for(const struct ss_access_options *options)
{
	size_t count = acl_count(options->allow) + acl_count(options->deny);
	if (options->max_entries)
		return (size_t)options->max_entries;
	return count > MAX_ENTRIES ? count : MAX_ENTRIES;
}

static int acc_init(struct ss_server *server, const void *given)
{
	static const struct ss_access_options defaults = { NULL, NULL, 0 };
	const struct ss_access_options *options = given ? given : &defaults;
	struct access *access = access_of(server);
	struct ss_diag why;
	if (options->max_entries < 0)
		return ss_refuse(server, -EINVAL, "access: max_entries is %d",
				 options->max_entries);
	access->refused = ss_shared_alloc(sizeof(*access->refused));
	if (!access->refused)
		return -ENOMEM;
	int r = acl_new(&access->acl, room_for(options));
	if (r < 0)
		goto failed;
	r = acl_set(access->acl, options->allow, options->deny, &why);
	if (r == 0)
		return 0;
	ss_refuse(server, r, "access: %s", why.text);

failed:
	acl_free(access->acl);
	ss_shared_free(access->refused, sizeof(*access->refused));
	return r;
}

static void acc_fini(struct ss_server *server)
{
	struct access *access = access_of(server);
	acl_free(access->acl);
	ss_shared_free(access->refused, sizeof(*access->refused));
}

static int acc_verify_request(struct ss_server *server, struct ss_request *req)
{
	struct access *access = access_of(server);
	if (acl_allows(access->acl, req))
		return ss_super(server, &ss_access_mixin)
			->verify_request(server, req);
	char peer[SS_ADDRESS_TEXT];
	atomic_fetch_add(access->refused, 1);
	ss_log(server, SS_LOG_INFO, ss_request_id(req),
	       "%s is not allowed to come in",
	       ss_peer_name(req, peer, sizeof(peer)));
	return 0;
}

int ss_access_set(struct ss_server *server, const char *allow, const char *deny,
		  struct ss_diag *why)
{
	struct ss_diag unwanted;
	if (!why)
		why = &unwanted;
	*why = (struct ss_diag){ 0 };
	if (ss_server_has(server, &ss_access_mixin))
		return acl_set(access_of(server)->acl, allow, deny, why);
	return diag_refuse(why, -ENOTSUP,
			   "the server does not have the layer access");
}

uint64_t ss_access_refused(const struct ss_server *server)
{
	if (!ss_server_has(server, &ss_access_mixin))
		return 0;
	return atomic_load(access_of(server)->refused);
}

const struct ss_layer ss_access_mixin = {
	.name = "access",
	.server_size = sizeof(struct access),
	.init = acc_init,
	.fini = acc_fini,
	.ops = { .verify_request = acc_verify_request },
};
