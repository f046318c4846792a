/*
 * Access lists: who is allowed, by the most specific entry.
 *
 * A list is a text: entries as in cidr.h, between commas or white space.  It
 * lies in memory that children and workers share, and is replaced while they
 * ask: who asks sees the old one or the new one.
 */
#ifndef SS_MIXIN_ACL_H
#define SS_MIXIN_ACL_H

#include "cidr.h"

struct acl;

/* How many entries a list has; NULL has none. */
size_t acl_count(const char *list);

/* Empty, with room for so many entries.  -ENOMEM.  NULL is ignored by free. */
int acl_new(struct acl **result, size_t room);
void acl_free(struct acl *acl);

/*
 * Replaces both lists, or leaves them as they are: -EINVAL, -ENOSPC, -ENOMEM,
 * and why, with the entry in it.  Any thread, any process.
 */
int acl_set(struct acl *acl, const char *allow, const char *deny,
	    struct ss_diag *why);

/*
 * Whether the peer may come in: the most specific entry says; of two that are
 * the same, deny; where none has it, whether there is no `allow`.  Any thread,
 * any process.
 */
bool acl_allows(const struct acl *acl, struct ss_request *req);

#endif
