/*
 * Recordings.  The input: whether the checks of its records are to be made
 * right, as far as they can be, and a file.
 */
#include "fuzz.h"

#include "../../lib/mixin/crc32c.h"
#include "../../lib/mixin/record_file.h"

/* What a damaged file hardly ever has by chance. */
static void repair(unsigned char *file, size_t n)
{
	for (size_t at = RECORD_FILE_HEAD; at < n && n - at >= RECORD_HEAD;) {
		size_t left = n - at - RECORD_HEAD;
		size_t size = record_get32(file + at + 4);
		if (size > left)
			record_put32(file + at + 4,
				     (uint32_t)(size %= left + 1));
		record_put32(file + at,
			     crc32c(0, file + at + 4, RECORD_HEAD - 4 + size));
		at += RECORD_HEAD + size;
	}
}

static bool within(const unsigned char *file, size_t n, const void *at,
		   size_t size)
{
	const unsigned char *p = at;
	return !size || (p >= file && size <= n && p <= file + n - size);
}

/* Written again it is the same. */
static void must_write_back(const unsigned char *head, size_t size,
			    const struct record *record)
{
	unsigned char again[RECORD_HEAD];
	struct iovec body = { (void *)(head + RECORD_HEAD), size };
	record_put_head(again, record, &body, 1, size);
	must(memcmp(head, again, sizeof(again)) == 0, "another head");
}

/* How many records there are; where the last ends. */
static size_t walk(const unsigned char *file, size_t n, size_t *end)
{
	struct record record;
	const char *why = NULL;
	size_t count = 0, at = RECORD_FILE_HEAD, from = at;
	int r;
	while ((r = record_next(file, n, &at, &record, &why)) > 0) {
		must(at >= from + RECORD_HEAD && at <= n, "from %zu to %zu",
		     from, at);
		must(within(file, n, record.text, record.text_size) &&
			     within(file, n, record.bytes, record.kept) &&
			     within(file, n, record.hidden,
				    (size_t)record.hidden_count *
					    RECORD_STRETCH),
		     "it is beyond the file");
		must(record.kept <= record.size, "%zu of %zu", record.kept,
		     record.size);
		must_write_back(file + from, at - from - RECORD_HEAD, &record);
		from = at;
		count++;
	}
	must(r == 0 || (r == -EBADMSG && why && at == from), "%d", r);
	must(r < 0 || at == n, "it ends at %zu of %zu", at, n);
	*end = at;
	return count;
}

/* Each in its connection, and one behind the other. */
static size_t count_events(const struct ss_recording *recording)
{
	const struct ss_recorded_event *event;
	size_t i = 0;
	for (; (event = ss_recording_event(recording, i)); i++) {
		const struct ss_recorded *c =
			ss_recording_connection(recording, event->connection);
		must(c && c->first <= i && c->peer, "event %zu of nobody", i);
		must(event->kept <= event->size && event->at_us >= 0,
		     "event %zu", i);
		for (size_t k = 0; k < event->size && k < 300; k++)
			must(k < event->kept || ss_recorded_hidden(event, k),
			     "byte %zu is not there", k);
	}
	return i;
}

/* What was recorded is what was recorded, where all of it was kept. */
static void must_compare(const struct ss_recording *recording)
{
	const struct ss_recorded_event *event;
	struct ss_diag why;
	for (size_t i = 0; (event = ss_recording_event(recording, i)); i++) {
		const struct ss_recorded *c =
			ss_recording_connection(recording, event->connection);
		if (event->kind != SS_RECORDED_OUTPUT || c->dgram)
			continue;
		if (event->kept < event->size || !event->size)
			continue;
		must(ss_recording_compare(recording, event->connection,
					  event->offset, event->bytes,
					  event->size, &why) == 0,
		     "%s", why.text);
	}
}

FUZZ_TARGET(record)(const uint8_t *data, size_t n)
{
	struct input in = { data, n };
	uint8_t flags = take_byte(&in);
	unsigned char *file = exact_copy(in.at, in.left);
	struct ss_recording *recording, *again;
	struct ss_diag why = { .code = 0 };
	size_t end = 0;
	if (flags & 1 && in.left >= RECORD_FILE_HEAD) {
		record_put_file_head(file);
		repair(file, in.left);
	}
	int r = ss_recording_parse(&recording, file, in.left, &why);
	must(r == 0 || (r == -EBADMSG && !recording && *why.text), "%d", r);
	if (r == 0) {
		size_t records = walk(file, in.left, &end);
		size_t events = count_events(recording);
		must(events <= records, "%zu events of %zu records", events,
		     records);
		must(ss_recording_damage(recording) || end == in.left,
		     "it is damaged at %zu, and that is not told", end);
		must_compare(recording);
		/* What comes before the damage is all there. */
		must(ss_recording_parse(&again, file, end, &why) == 0, "%s",
		     why.text);
		must(count_events(again) == events, "%zu events before it",
		     count_events(again));
		ss_recording_free(again);
		ss_recording_free(recording);
	}
	free(file);
	return 0;
}
