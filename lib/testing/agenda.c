/* A binary heap. */
#include "agenda.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "../sys.h"

static bool before(const struct entry *a, const struct entry *b)
{
	return a->at != b->at ? a->at < b->at : a->lot < b->lot;
}

int agenda_add(struct agenda *agenda, const struct entry *entry)
{
	if (agenda->count + 1 >= agenda->room) {
		int room = agenda->room ? 2 * agenda->room : 64;
		struct entry *more =
			sys_realloc(agenda->heap, (size_t)room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		agenda->heap = more;
		agenda->room = room;
	}
	int at = ++agenda->count;
	for (; at > 1 && before(entry, &agenda->heap[at / 2]); at /= 2)
		agenda->heap[at] = agenda->heap[at / 2];
	agenda->heap[at] = *entry;
	return 0;
}

const struct entry *agenda_first(const struct agenda *agenda)
{
	return agenda->count ? &agenda->heap[1] : NULL;
}

struct entry agenda_take(struct agenda *agenda)
{
	struct entry *heap = agenda->heap, first = heap[1];
	struct entry last = heap[agenda->count--];
	int at = 1;
	for (int child; (child = 2 * at) <= agenda->count; at = child) {
		if (child < agenda->count &&
		    before(&heap[child + 1], &heap[child]))
			child++;
		if (!before(&heap[child], &last))
			break;
		heap[at] = heap[child];
	}
	heap[at] = last;
	return first;
}

void agenda_free(struct agenda *agenda)
{
	sys_free(agenda->heap);
	agenda->heap = NULL;
	agenda->count = agenda->room = 0;
}
