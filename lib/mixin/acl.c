/*
 * An access list is a sorted table.  The last entry that is not beyond an
 * address has it, or else one of the networks that this entry lies in: each
 * knows the next larger one.
 *
 * There are two tables, of which one is in force, by a number that counts on
 * each time it is the other's turn.  Who has looked in one looks at the number
 * again: if it went on meanwhile, the table may have been written over.  Who
 * writes dies, at worst, in the table that is not in force.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "../diag.h"
#include "../sys.h"
#include "../thread.h"
#include "acl.h"

/* An entry in three words; the third is LINK, BITS, KIND, DENY. */
struct entry {
	atomic_ullong hi, lo, rest;
};

enum { LINK_SHIFT = 32, KIND_SHIFT = 16, DENY_SHIFT = 8 };

struct table {
	atomic_uint count;
	atomic_bool closed; /* there is an `allow` */
};

struct acl {
	size_t room, size;
	pthread_mutex_t lock; /* of who writes */
	atomic_uint turn;     /* the table in force: of two, its last bit */
	struct table table[2];
	struct entry entries[]; /* `room` of each table */
};

/* As it is made, in memory of its own. */
struct draft {
	struct cidr cidr;
	unsigned link; /* the next larger one's place + 1; 0: none */
	bool deny;
};

/* ---- texts ----------------------------------------------------------------*/

static bool between(char c)
{
	return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The next word, n bytes of it; 0: there is none. */
static size_t next_word(const char **text)
{
	size_t n = 0;
	while (between(**text))
		++*text;
	while ((*text)[n] && !between((*text)[n]))
		n++;
	return n;
}

size_t acl_count(const char *list)
{
	size_t count = 0;
	for (size_t n; list && (n = next_word(&list)); list += n)
		count++;
	return count;
}

/* Of an unknown text as much as is fit to be shown. */
static int refuse_word(struct ss_diag *why, const char *list, const char *word,
		       size_t n, const char *reason)
{
	char shown[64];
	size_t i = 0;
	for (; i < n && i < sizeof(shown) - 1; i++)
		shown[i] = word[i] >= ' ' && word[i] <= '~' ? word[i] : '?';
	shown[i] = '\0';
	return diag_refuse(why, -EINVAL, "%s: \"%s\": %s", list, shown, reason);
}

static int parse(const char *text, bool deny, struct draft *drafts,
		 size_t *count, struct ss_diag *why)
{
	const char *reason;
	for (size_t n; text && (n = next_word(&text)); text += n) {
		struct draft *draft = &drafts[(*count)++];
		draft->deny = deny;
		if (cidr_parse(text, n, &draft->cidr, &reason) < 0)
			return refuse_word(why, deny ? "deny" : "allow", text,
					   n, reason);
	}
	return 0;
}

/* ---- making a table -------------------------------------------------------*/

/* Of the same, the one that denies comes first. */
static int by_place(const void *one, const void *two)
{
	const struct draft *a = one, *b = two;
	int order = cidr_compare(&a->cidr, &b->cidr);
	return order ? order : b->deny - a->deny;
}

static size_t without_doubles(struct draft *drafts, size_t count)
{
	size_t kept = 0;
	for (size_t i = 0; i < count; i++)
		if (!kept ||
		    cidr_compare(&drafts[kept - 1].cidr, &drafts[i].cidr) != 0)
			drafts[kept++] = drafts[i];
	return kept;
}

static void link_up(struct draft *drafts, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		unsigned at = (unsigned)i;
		while (at &&
		       !cidr_contains(&drafts[at - 1].cidr, &drafts[i].cidr))
			at = drafts[at - 1].link;
		drafts[i].link = at;
	}
}

static void publish(struct acl *acl, const struct draft *drafts, size_t count,
		    bool closed)
{
	/* A writer that was killed has spoiled nothing that is in force. */
	thread_shared_lock(&acl->lock);
	unsigned turn = atomic_load(&acl->turn) + 1;
	struct table *table = &acl->table[turn & 1];
	struct entry *entry = &acl->entries[(turn & 1) * acl->room];
	for (size_t i = 0; i < count; i++, entry++) {
		const struct draft *d = &drafts[i];
		atomic_store(&entry->hi, d->cidr.hi);
		atomic_store(&entry->lo, d->cidr.lo);
		atomic_store(&entry->rest,
			     (uint64_t)d->link << LINK_SHIFT |
				     (uint64_t)d->cidr.kind << KIND_SHIFT |
				     (uint64_t)d->deny << DENY_SHIFT |
				     (uint64_t)d->cidr.bits);
	}
	atomic_store(&table->count, (unsigned)count);
	atomic_store(&table->closed, closed);
	atomic_store(&acl->turn, turn);
	pthread_mutex_unlock(&acl->lock);
}

int acl_set(struct acl *acl, const char *allow, const char *deny,
	    struct ss_diag *why)
{
	size_t wanted = acl_count(allow) + acl_count(deny), count = 0;
	if (wanted > acl->room)
		return diag_refuse(why, -ENOSPC,
				   "%zu entries, and there is room for %zu",
				   wanted, acl->room);
	struct draft *drafts = sys_calloc(wanted + 1, sizeof(*drafts));
	if (!drafts)
		return diag_refuse(why, -ENOMEM, "%s", strerror(ENOMEM));
	int r = parse(allow, false, drafts, &count, why);
	bool closed = count > 0;
	if (r == 0)
		r = parse(deny, true, drafts, &count, why);
	if (r == 0) {
		qsort(drafts, count, sizeof(*drafts), by_place);
		count = without_doubles(drafts, count);
		link_up(drafts, count);
		publish(acl, drafts, count, closed);
	}
	sys_free(drafts);
	return r;
}

/* ---- asking ---------------------------------------------------------------*/

static struct draft read_entry(const struct entry *entry)
{
	uint64_t rest =
		atomic_load_explicit(&entry->rest, memory_order_acquire);
	return (struct draft){
		.cidr = { .hi = atomic_load_explicit(&entry->hi,
						     memory_order_acquire),
			  .lo = atomic_load_explicit(&entry->lo,
						     memory_order_acquire),
			  .kind = (enum cidr_kind)(rest >> KIND_SHIFT & 0xff),
			  .bits = (int)(rest & 0xff) },
		.link = (unsigned)(rest >> LINK_SHIFT),
		.deny = rest >> DENY_SHIFT & 1,
	};
}

/* The place + 1 of the last entry that is not beyond it. */
static unsigned last_before(const struct entry *entries, unsigned count,
			    const struct cidr *cidr)
{
	unsigned from = 0, to = count;
	while (from < to) {
		unsigned middle = from + (to - from) / 2;
		struct draft draft = read_entry(&entries[middle]);
		if (cidr_compare(&draft.cidr, cidr) <= 0)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

/* 1: yes, 0: no, -1: nothing is said of it.  In a table that is being written
 * the answer is any of them. */
static int look_up(const struct acl *acl, unsigned turn,
		   const struct cidr *cidr)
{
	const struct table *table = &acl->table[turn & 1];
	const struct entry *entries = &acl->entries[(turn & 1) * acl->room];
	unsigned at = last_before(entries, atomic_load(&table->count), cidr);
	while (at) {
		struct draft draft = read_entry(&entries[at - 1]);
		if (cidr_contains(&draft.cidr, cidr))
			return !draft.deny;
		at = draft.link < at ? draft.link : 0;
	}
	return -1;
}

static bool judge(const struct acl *acl, unsigned turn, struct ss_request *req)
{
	const struct table *table = &acl->table[turn & 1];
	struct cidr peer[CIDR_PEER_MAX];
	int count = cidr_of_peer(req, peer);
	for (int i = 0; i < count; i++) {
		int said = look_up(acl, turn, &peer[i]);
		if (said >= 0)
			return said;
	}
	return !atomic_load(&table->closed);
}

bool acl_allows(const struct acl *acl, struct ss_request *req)
{
	for (;;) {
		unsigned turn = atomic_load(&acl->turn);
		bool allowed = judge(acl, turn, req);
		if (atomic_load(&acl->turn) == turn)
			return allowed;
	}
}

/* ---- life -----------------------------------------------------------------*/

int acl_new(struct acl **result, size_t room)
{
	size_t size = sizeof(struct acl) + 2 * room * sizeof(struct entry);
	struct acl *acl = ss_shared_alloc(size);
	*result = acl;
	if (!acl)
		return -ENOMEM;
	acl->room = room;
	acl->size = size;
	int r = thread_shared_lock_init(&acl->lock);
	if (r < 0) {
		ss_shared_free(acl, size);
		*result = NULL;
	}
	return r;
}

void acl_free(struct acl *acl)
{
	if (!acl)
		return;
	pthread_mutex_destroy(&acl->lock);
	ss_shared_free(acl, acl->size);
}
