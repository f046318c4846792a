/*
 * Slabs of stacks.  A slab is one mapping: a record of each stack, so that
 * looking for a free one touches none, then [guard page, stack] again and
 * again.
 *
 * Free stacks are warm (given lately, their pages still there: taken first, the
 * latest first), cold (their pages went back to the system) or fresh (in the
 * newest slab, never taken: their guard is made when they are).
 */
#include "stacks.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "../sys.h"
#include "tools.h"

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif
#ifndef MAP_STACK
#define MAP_STACK 0
#endif
#if defined(SS_LINUX) && !defined(MADV_GUARD_INSTALL)
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

enum {
	SLAB_FIRST = 64,  /* stacks in the first slab; each next has twice */
	SLAB_MOST = 4096, /* as many, up to that: a million are 250 mappings, */
	SLAB_BYTES = 256 << 20, /* or as fit, but one at least */
	WARM_LEAST = 256, /* free stacks that may keep their pages, at least */
	WARM_SHARE = 4,	  /* or one for so many in use */
};

/* Few bytes, since there may be a million. */
struct stack {
	struct stack *newer, *older; /* in the list of free ones */
	uint16_t index;		     /* among its slab's */
	bool used, warm;
	struct tools_stack tools;
};
static_assert(SLAB_MOST <= UINT16_MAX + 1, "an index for each");

struct slab {
	char *memory;	/* the first guard page */
	unsigned count; /* of its stacks */
	unsigned made;	/* have their guard; the rest is fresh */
	unsigned held;	/* in use or warm */
	struct stack stack[];
};

struct stacks {
	size_t page, size;
	unsigned shift;	 /* page == 1 << shift */
	unsigned stride; /* from stack to stack, in pages */
	unsigned used, free, warm_count;
	unsigned idle;		 /* slabs of which no stack is in use or warm */
	bool protect;		 /* MADV_GUARD_INSTALL is refused */
	struct stack warm, cold; /* heads of rings */
	struct slab **slab;	 /* by their address */
	unsigned slabs, room;
	struct slab *growing; /* has fresh ones, or NULL */
	struct slab *last;    /* where something was found last, or NULL */
	unsigned next_count;
};

/* ---- lists ----------------------------------------------------------------*/

static void list_init(struct stack *head)
{
	head->newer = head->older = head;
}

static void list_push(struct stack *head, struct stack *stack)
{
	stack->newer = head;
	stack->older = head->older;
	head->older->newer = stack;
	head->older = stack;
}

static void list_remove(struct stack *stack)
{
	stack->newer->older = stack->older;
	stack->older->newer = stack->newer;
}

/* ---- slabs ----------------------------------------------------------------*/

static struct slab *slab_of(const struct stack *stack)
{
	return (struct slab *)((char *)(stack - stack->index) -
			       offsetof(struct slab, stack));
}

static size_t slab_bytes(const struct stacks *stacks, unsigned count)
{
	return (size_t)count * stacks->stride * stacks->page;
}

static char *guard_of(const struct stacks *stacks, const struct stack *stack)
{
	return slab_of(stack)->memory + slab_bytes(stacks, stack->index);
}

static char *base_of(const struct stacks *stacks, const struct stack *stack)
{
	return guard_of(stacks, stack) + stacks->page;
}

static bool slab_has(const struct stacks *stacks, const struct slab *slab,
		     const void *address)
{
	return (uintptr_t)address - (uintptr_t)slab->memory <
	       slab_bytes(stacks, slab->count);
}

/* The index of the first slab that ends above the address. */
static unsigned slab_index(const struct stacks *stacks, const void *address)
{
	unsigned low = 0, high = stacks->slabs;
	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		const struct slab *slab = stacks->slab[middle];
		if ((uintptr_t)address < (uintptr_t)slab->memory ||
		    slab_has(stacks, slab, address))
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* The stack whose guard page or memory has the address, which is the slab's. */
static struct stack *stack_in(const struct stacks *stacks, struct slab *slab,
			      const void *address)
{
	size_t offset = (uintptr_t)address - (uintptr_t)slab->memory;
	return &slab->stack[(unsigned)(offset >> stacks->shift) /
			    stacks->stride];
}

/* Of the slab itself: whole pages. */
static size_t head_bytes(const struct stacks *stacks, unsigned count)
{
	size_t bytes = sizeof(struct slab) + count * sizeof(struct stack);
	return (bytes + stacks->page - 1) & ~(stacks->page - 1);
}

static struct slab *slab_map(const struct stacks *stacks, unsigned count)
{
	size_t head = head_bytes(stacks, count);
	size_t bytes = head + slab_bytes(stacks, count);
	struct slab *slab = sys_mmap(
		NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (slab == MAP_FAILED)
		return NULL;
#ifdef MADV_NOHUGEPAGE
	/* Or a huge page would make every stack of its range resident. */
	sys_madvise(slab, bytes, MADV_NOHUGEPAGE);
#endif
	slab->memory = (char *)slab + head;
	slab->count = count;
	return slab;
}

static int slab_room(struct stacks *stacks)
{
	if (stacks->slabs < stacks->room)
		return 0;
	unsigned room = stacks->room ? stacks->room * 2 : 8;
	struct slab **slab =
		sys_realloc(stacks->slab, room * sizeof(struct slab *));
	if (!slab)
		return -ENOMEM;
	stacks->slab = slab;
	stacks->room = room;
	return 0;
}

static struct slab *slab_new(struct stacks *stacks, unsigned count)
{
	if (slab_room(stacks) < 0)
		return NULL;
	struct slab *slab = slab_map(stacks, count);
	if (!slab)
		return NULL;
	unsigned at = slab_index(stacks, slab->memory);
	for (unsigned i = stacks->slabs++; i > at; i--)
		stacks->slab[i] = stacks->slab[i - 1];
	stacks->slab[at] = slab;
	return slab;
}

static void slab_free(struct stacks *stacks, struct slab *slab)
{
	unsigned at = slab_index(stacks, slab->memory);
	for (unsigned i = 0; i < slab->made; i++) {
		struct stack *stack = &slab->stack[i];
		if (stack->used)
			tools_stack_given(base_of(stacks, stack), stacks->size);
		tools_stack_gone(&stack->tools);
	}
	if (stacks->growing == slab)
		stacks->growing = NULL;
	stacks->last = NULL;
	stacks->slabs--;
	for (unsigned i = at; i < stacks->slabs; i++)
		stacks->slab[i] = stacks->slab[i + 1];
	sys_munmap(slab, head_bytes(stacks, slab->count) +
				 slab_bytes(stacks, slab->count));
}

/* ---- stacks ---------------------------------------------------------------*/

static int guard_make(struct stacks *stacks, char *guard)
{
#ifdef MADV_GUARD_INSTALL
	/* Does not split the mapping, as mprotect(2) does.  (Refused by older
	 * kernels, and for what mlockall(2) has locked.) */
	if (!stacks->protect) {
		if (sys_madvise(guard, stacks->page, MADV_GUARD_INSTALL) != -1)
			return 0;
		if (errno == ENOMEM)
			return -ENOMEM;
		stacks->protect = true;
	}
#endif
	return sys_mprotect(guard, stacks->page, PROT_NONE) == -1 ? -errno : 0;
}

/* A new slab, smaller where the system refuses (limits, no overcommit). */
static struct slab *grow(struct stacks *stacks)
{
	unsigned most = SLAB_BYTES / slab_bytes(stacks, 1);
	unsigned count = stacks->next_count < most ? stacks->next_count : most;
	struct slab *slab = NULL;
	for (count += !count; count && !slab; count /= 2)
		slab = slab_new(stacks, count);
	if (slab)
		stacks->next_count = slab->count < SLAB_MOST / 2
					     ? slab->count * 2
					     : SLAB_MOST;
	return slab;
}

static struct stack *fresh(struct stacks *stacks)
{
	if (!stacks->growing)
		stacks->growing = grow(stacks);
	struct slab *slab = stacks->growing;
	if (!slab)
		return NULL;
	struct stack *stack = &slab->stack[slab->made];
	stack->index = (uint16_t)slab->made;
	if (guard_make(stacks, guard_of(stacks, stack)) < 0)
		return NULL;
	tools_stack_made(&stack->tools, base_of(stacks, stack), stacks->size);
	slab->held++;
	if (++slab->made == slab->count)
		stacks->growing = NULL;
	return stack;
}

static struct stack *reuse(struct stacks *stacks)
{
	struct stack *stack = stacks->warm.older;
	if (stack == &stacks->warm)
		stack = stacks->cold.older;
	if (stack == &stacks->cold)
		return NULL;
	list_remove(stack);
	stacks->free--;
	if (stack->warm)
		stacks->warm_count--;
	else if (slab_of(stack)->held++ == 0)
		stacks->idle--;
	return stack;
}

void *stacks_take(struct stacks *stacks)
{
	struct stack *stack = reuse(stacks);
	if (!stack)
		stack = fresh(stacks);
	if (!stack)
		return NULL;
	stack->used = true;
	stacks->used++;
	char *base = base_of(stacks, stack);
	tools_stack_taken(&stack->tools, base, stacks->size);
	return base;
}

static unsigned warm_most(const struct stacks *stacks)
{
	unsigned share = stacks->used / WARM_SHARE;
	return share > WARM_LEAST ? share : WARM_LEAST;
}

/* Unmaps the slabs that are cold as a whole, as long as there stay as many free
 * stacks as are in use: the next slab is far, then. */
static void trim(struct stacks *stacks)
{
	unsigned keep = stacks->used > WARM_LEAST ? stacks->used : WARM_LEAST;
	for (unsigned i = stacks->slabs; i-- > 0 && stacks->idle;) {
		struct slab *slab = stacks->slab[i];
		if (slab->held || !slab->made ||
		    stacks->free - slab->made < keep)
			continue;
		for (unsigned k = 0; k < slab->made; k++)
			list_remove(&slab->stack[k]);
		stacks->free -= slab->made;
		stacks->idle--;
		slab_free(stacks, slab);
	}
}

/* Releases the pages of the one that was given back longest ago. */
static void cool(struct stacks *stacks)
{
	struct stack *stack = stacks->warm.newer;
	list_remove(stack);
	stack->warm = false;
	stacks->warm_count--;
	list_push(&stacks->cold, stack);
	sys_madvise(base_of(stacks, stack), stacks->size, MADV_DONTNEED);
	stacks->idle += --slab_of(stack)->held == 0;
	if (stacks->idle && stacks->free > stacks->used + WARM_LEAST)
		trim(stacks);
}

static struct stack *stack_at(struct stacks *stacks, const void *base)
{
	struct slab *slab = stacks->last;
	if (!slab || !slab_has(stacks, slab, base))
		slab = stacks->slab[slab_index(stacks, base)];
	stacks->last = slab;
	return stack_in(stacks, slab, base);
}

void stacks_give(struct stacks *stacks, void *base)
{
	struct stack *stack = stack_at(stacks, base);
	assert(stack->used && base_of(stacks, stack) == base);
	tools_stack_given(base, stacks->size);
	stack->used = false;
	stack->warm = true;
	list_push(&stacks->warm, stack);
	stacks->warm_count++;
	stacks->free++;
	stacks->used--;
	while (stacks->warm_count > warm_most(stacks))
		cool(stacks);
}

size_t stacks_size(const struct stacks *stacks)
{
	return stacks->size;
}

bool stacks_guard_hit(const struct stacks *stacks, const void *address,
		      void **base)
{
	unsigned at = slab_index(stacks, address);
	if (at == stacks->slabs)
		return false;
	struct slab *slab = stacks->slab[at];
	if (!slab_has(stacks, slab, address))
		return false;
	const struct stack *stack = stack_in(stacks, slab, address);
	if (stack >= slab->stack + slab->made ||
	    (const char *)address >= base_of(stacks, stack))
		return false;
	*base = base_of(stacks, stack);
	return true;
}

/* ---- all of them ----------------------------------------------------------*/

int stacks_new(struct stacks **result, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t pages = size / page + (size % page || !size);
	if (pages > UINT32_MAX / 2 || pages > SIZE_MAX / page / 2)
		return -ENOMEM;
	struct stacks *stacks = sys_calloc(1, sizeof *stacks);
	if (!stacks)
		return -ENOMEM;
	stacks->page = page;
	while ((size_t)1 << stacks->shift < page)
		stacks->shift++;
	stacks->size = pages * page;
	stacks->stride = (unsigned)pages + 1;
	stacks->next_count = SLAB_FIRST;
	list_init(&stacks->warm);
	list_init(&stacks->cold);
	*result = stacks;
	return 0;
}

void stacks_free(struct stacks *stacks)
{
	if (!stacks)
		return;
	while (stacks->slabs)
		slab_free(stacks, stacks->slab[stacks->slabs - 1]);
	sys_free(stacks->slab);
	sys_free(stacks);
}
