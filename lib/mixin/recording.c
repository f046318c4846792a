/*
 * Recordings, read: a file's records as events, by connection.
 *
 * What a file says is not believed: each event must belong to a connection that
 * was opened before it and has not ended.  At the first that does not the
 * reading ends, as it does where a record is damaged.
 */
#include <errno.h>
#include <string.h>

#include <socketserver/record.h>

#include "../diag.h"
#include "../sys.h"
#include "record_file.h"

enum { EXCERPT = 70, LARGEST = 1 << 30, HEADROOM = 4 };

/* A connection, and its outputs among `outputs`. */
struct connection {
	struct ss_recorded told; /* first */
	size_t outputs, output_count;
	bool ended, broken, left_out;
};

/* Who has which number, by id. */
struct entry {
	uint64_t id;
	uint32_t number;
};

struct ss_recording {
	unsigned char *bytes;
	size_t size;
	struct connection *connections;
	size_t connection_count;
	struct ss_recorded_event *events;
	size_t event_count;
	size_t *outputs; /* events, those of a connection one after another */
	struct entry *entries;
	size_t entry_count;
	char *texts, *text_end;
	const char *server;
	uint64_t began_ms;
	char damage[160]; /* "": none */
};

/* ---- how much there is ----------------------------------------------------*/

static void damaged(struct ss_recording *recording, size_t at, const char *why)
{
	if (!recording->damage[0])
		snprintf(recording->damage, sizeof(recording->damage),
			 "damaged at offset %zu: %s", at, why);
}

struct amounts {
	size_t events, connections, texts;
};

static struct amounts measure(const struct ss_recording *recording)
{
	struct amounts amounts = { 0 };
	struct record record;
	const char *why;
	size_t at = RECORD_FILE_HEAD;
	while (record_next(recording->bytes, recording->size, &at, &record,
			   &why) > 0) {
		amounts.events++;
		amounts.connections += record.kind == SS_RECORDED_OPEN;
		if (record.kind == SS_RECORDED_OPEN ||
		    record.kind == RECORD_BEGIN)
			amounts.texts += record.text_size + 1;
	}
	return amounts;
}

static int make_room(struct ss_recording *recording)
{
	struct amounts n = measure(recording);
	recording->events =
		sys_calloc(n.events + 1, sizeof(*recording->events));
	recording->outputs =
		sys_calloc(n.events + 1, sizeof(*recording->outputs));
	recording->connections =
		sys_calloc(n.connections + 1, sizeof(*recording->connections));
	recording->entries =
		sys_calloc(n.connections + 1, sizeof(*recording->entries));
	recording->texts = sys_malloc(n.texts + 1);
	recording->text_end = recording->texts;
	return recording->events && recording->outputs &&
			       recording->connections && recording->entries &&
			       recording->texts
		       ? 0
		       : -ENOMEM;
}

/* ---- who is who -----------------------------------------------------------*/

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

static void list_entries(struct ss_recording *recording)
{
	struct record record;
	const char *why;
	size_t at = RECORD_FILE_HEAD;
	while (record_next(recording->bytes, recording->size, &at, &record,
			   &why) > 0) {
		size_t n = recording->entry_count;
		if (record.kind != SS_RECORDED_OPEN)
			continue;
		recording->entries[n] =
			(struct entry){ record.id, (uint32_t)n };
		recording->entry_count++;
	}
	if (recording->entry_count > 1)
		qsort(recording->entries, recording->entry_count,
		      sizeof(*recording->entries), compare_entries);
}

/* The first that has the id, be it open or yet to be; NULL: none. */
static struct connection *find(struct ss_recording *recording, uint64_t id)
{
	size_t low = 0, high = recording->entry_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (recording->entries[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == recording->entry_count || recording->entries[low].id != id)
		return NULL;
	return &recording->connections[recording->entries[low].number];
}

/* ---- events ---------------------------------------------------------------*/

static const char *keep_text(struct ss_recording *recording,
			     const struct record *record)
{
	char *text = recording->text_end;
	if (record->text_size)
		memcpy(text, record->text, record->text_size);
	text[record->text_size] = '\0';
	recording->text_end = text + record->text_size + 1;
	return text;
}

static const char *open_connection(struct ss_recording *recording,
				   const struct record *record)
{
	struct connection *c =
		&recording->connections[recording->connection_count];
	if (find(recording, record->id) != c)
		return "a connection is opened twice";
	recording->connection_count++;
	c->told.id = record->id;
	c->told.dgram = record->flags & RECORD_IS_DGRAM;
	c->told.peer = keep_text(recording, record);
	c->told.first = recording->event_count;
	return NULL;
}

static void take_chunk(struct connection *c, struct ss_recorded_event *event,
		       const struct record *record)
{
	event->bytes = record->bytes;
	event->size = record->size;
	event->kept = record->kept;
	event->hidden = record->hidden;
	event->hidden_count = record->hidden_count;
	if (record->kind == SS_RECORDED_INPUT) {
		event->offset = c->told.input;
		c->told.input += record->size;
	} else if (record->kind == SS_RECORDED_OUTPUT) {
		event->offset = c->told.output;
		c->told.output += record->size;
		c->output_count++;
	}
}

/* NULL, or what is wrong with it. */
static const char *take_event(struct ss_recording *recording,
			      const struct record *record)
{
	const char *wrong = record->kind == SS_RECORDED_OPEN
				    ? open_connection(recording, record)
				    : NULL;
	if (wrong)
		return wrong;
	struct connection *c = find(recording, record->id);
	size_t number = c ? (size_t)(c - recording->connections) : SIZE_MAX;
	if (number >= recording->connection_count)
		return "a connection's record before it was opened";
	if (c->ended)
		return "a connection's record behind its end";
	struct ss_recorded_event *event =
		&recording->events[recording->event_count++];
	*event = (struct ss_recorded_event){
		.kind = (enum ss_recorded_kind)record->kind,
		.connection = (uint32_t)number,
		.at_us = (int64_t)record->at_us,
		.error = record->error,
		.reason = (enum ss_recorded_reason)record->reason,
		.left_in = record->left_in,
		.left_out = record->left_out,
	};
	take_chunk(c, event, record);
	c->broken |= record->kind == SS_RECORDED_BROKEN;
	c->left_out |= record->kind == SS_RECORDED_LEFT_OUT;
	if (record->kind != SS_RECORDED_END)
		return NULL;
	event->stopping = record->flags & RECORD_STOPPING;
	c->ended = true;
	c->told.whole = !c->left_out && record->error != -ECHILD;
	return NULL;
}

/* What is told of the file: it has no connection. */
static const char *take_whole(struct ss_recording *recording,
			      const struct record *record, bool first)
{
	if (record->kind == RECORD_BEGIN) {
		if (!first)
			return "the beginning comes once more";
		recording->server = keep_text(recording, record);
		recording->began_ms = record->began_ms;
		return NULL;
	}
	if (first)
		return "it does not begin with its beginning";
	if (record->kind == SS_RECORDED_LEFT_OUT && record->id == 0)
		return NULL;
	return take_event(recording, record);
}

static void take_records(struct ss_recording *recording)
{
	struct record record;
	const char *why = NULL;
	size_t at = RECORD_FILE_HEAD;
	for (bool first = true;; first = false) {
		size_t from = at;
		int r = record_next(recording->bytes, recording->size, &at,
				    &record, &why);
		if (r == 0 && first)
			damaged(recording, at, "nothing was recorded");
		if (r == 0)
			return;
		if (r > 0)
			why = take_whole(recording, &record, first);
		if (why) {
			damaged(recording, from, why);
			return;
		}
	}
}

/* Those of a connection one after another. */
static void list_outputs(struct ss_recording *recording)
{
	size_t at = 0;
	for (size_t i = 0; i < recording->connection_count; i++) {
		struct connection *c = &recording->connections[i];
		c->outputs = at;
		at += c->output_count;
		c->output_count = 0;
	}
	for (size_t i = 0; i < recording->event_count; i++) {
		const struct ss_recorded_event *event = &recording->events[i];
		struct connection *c =
			&recording->connections[event->connection];
		if (event->kind == SS_RECORDED_OUTPUT)
			recording->outputs[c->outputs + c->output_count++] = i;
	}
}

/* ---- life -----------------------------------------------------------------*/

/* Its bytes are there. */
static int read_all(struct ss_recording *recording, struct ss_diag *why)
{
	const char *wrong;
	int r = record_check_file_head(recording->bytes, recording->size,
				       &wrong);
	if (r < 0)
		return diag_refuse(why, r, "%s", wrong);
	r = make_room(recording);
	if (r < 0)
		return diag_refuse(why, r, "%s", strerror(-r));
	list_entries(recording);
	take_records(recording);
	list_outputs(recording);
	if (!recording->server)
		recording->server = "";
	return 0;
}

static struct ss_recording *new_recording(size_t n, struct ss_diag *why)
{
	struct ss_recording *recording = sys_calloc(1, sizeof(*recording));
	if (recording)
		recording->bytes = sys_malloc(n ? n : 1);
	if (recording && recording->bytes)
		return recording;
	ss_recording_free(recording);
	diag_refuse(why, -ENOMEM, "%s", strerror(ENOMEM));
	return NULL;
}

static int finish(struct ss_recording *recording, struct ss_recording **result,
		  struct ss_diag *why)
{
	int r = read_all(recording, why);
	if (r < 0)
		ss_recording_free(recording);
	else
		*result = recording;
	if (r == 0 && why)
		*why = (struct ss_diag){ .code = 0 };
	return r;
}

int ss_recording_parse(struct ss_recording **result, const void *bytes,
		       size_t n, struct ss_diag *why)
{
	*result = NULL;
	struct ss_recording *recording = new_recording(n, why);
	if (!recording)
		return -ENOMEM;
	if (n)
		memcpy(recording->bytes, bytes, n);
	recording->size = n;
	return finish(recording, result, why);
}

/* Up to n bytes; -errno. */
static ssize_t read_file(int fd, unsigned char *to, size_t n)
{
	size_t got = 0;
	while (got < n) {
		ssize_t r = sys_read(fd, to + got, n - got);
		if (r == -1 && errno == EINTR)
			continue;
		if (r == -1)
			return -errno;
		if (r == 0)
			break;
		got += (size_t)r;
	}
	return (ssize_t)got;
}

/* Its size; -errno. */
static int64_t look_at(int fd)
{
	struct stat st;
	if (sys_fstat(fd, &st) == -1)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	return st.st_size > LARGEST ? -EFBIG : st.st_size;
}

static int open_recording(int fd, struct ss_recording **result,
			  struct ss_diag *why)
{
	int64_t size = look_at(fd);
	if (size < 0)
		return diag_refuse(why, (int)size, "%s",
				   size == -EBADMSG ? "this is no recording"
						    : strerror((int)-size));
	struct ss_recording *recording = new_recording((size_t)size, why);
	if (!recording)
		return -ENOMEM;
	ssize_t n = read_file(fd, recording->bytes, (size_t)size);
	if (n < 0) {
		ss_recording_free(recording);
		return diag_refuse(why, (int)n, "%s", strerror((int)-n));
	}
	recording->size = (size_t)n;
	return finish(recording, result, why);
}

int ss_recording_open(struct ss_recording **result, const char *path,
		      struct ss_diag *why)
{
	struct ss_diag reason;
	*result = NULL;
	int fd = sys_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd == -1)
		return diag_refuse(why, -errno, "%s: %s", path,
				   strerror(errno));
	int r = open_recording(fd, result, &reason);
	sys_close(fd);
	if (r < 0)
		return diag_refuse(why, r, "%s: %s", path, reason.text);
	if (why)
		*why = reason;
	return r;
}

void ss_recording_free(struct ss_recording *recording)
{
	if (!recording)
		return;
	sys_free(recording->bytes);
	sys_free(recording->connections);
	sys_free(recording->events);
	sys_free(recording->outputs);
	sys_free(recording->entries);
	sys_free(recording->texts);
	sys_free(recording);
}

/* ---- what there is --------------------------------------------------------*/

const char *ss_recording_damage(const struct ss_recording *recording)
{
	return recording->damage[0] ? recording->damage : NULL;
}

const char *ss_recording_server(const struct ss_recording *recording)
{
	return recording->server;
}

int64_t ss_recording_began(const struct ss_recording *recording)
{
	return (int64_t)recording->began_ms;
}

const struct ss_recorded *
ss_recording_connection(const struct ss_recording *recording, size_t i)
{
	return i < recording->connection_count ? &recording->connections[i].told
					       : NULL;
}

const struct ss_recorded_event *
ss_recording_event(const struct ss_recording *recording, size_t i)
{
	return i < recording->event_count ? &recording->events[i] : NULL;
}

bool ss_recorded_hidden(const struct ss_recorded_event *event, size_t i)
{
	for (uint32_t n = 0; n < event->hidden_count; n++) {
		const unsigned char *stretch =
			event->hidden + (size_t)n * RECORD_STRETCH;
		size_t from = record_get32(stretch);
		if (i >= from && i - from < record_get32(stretch + 4))
			return true;
	}
	return i >= event->kept;
}

/* ---- comparing ------------------------------------------------------------*/

static const struct ss_recorded_event *
output_of(const struct ss_recording *recording, const struct connection *c,
	  size_t i)
{
	if (i >= c->output_count)
		return NULL;
	return &recording->events[recording->outputs[c->outputs + i]];
}

/* The output in which that byte is, the first behind all where it is not. */
static size_t output_at(const struct ss_recording *recording,
			const struct connection *c, uint64_t offset)
{
	size_t low = 0, high = c->output_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct ss_recorded_event *event =
			output_of(recording, c, middle);
		if (event->offset + event->size <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* How many of the bytes from the event's byte `from` on are the same. */
static size_t same_in(const struct ss_recorded_event *event, size_t from,
		      const unsigned char *bytes, size_t n)
{
	size_t i = 0;
	for (; i < n && from + i < event->size; i++) {
		bool equal = from + i < event->kept &&
			     event->bytes[from + i] == bytes[i];
		if (!equal && !ss_recorded_hidden(event, from + i))
			break;
	}
	return i;
}

/* In quotes, as C has them. */
static void excerpt(char *to, const unsigned char *bytes, size_t n)
{
	static const char plain[] = { '\n', '\r', '\t', '\\', '"' };
	static const char named[] = { 'n', 'r', 't', '\\', '"' };
	size_t used = 0;
	to[used++] = '"';
	for (size_t i = 0; i < n; i++) {
		const char *special = memchr(plain, bytes[i], sizeof(plain));
		if (used >= EXCERPT - 2 * HEADROOM) {
			used += (size_t)snprintf(to + used, HEADROOM, "...");
			break;
		}
		if (special)
			used += (size_t)snprintf(to + used, HEADROOM, "\\%c",
						 named[special - plain]);
		else if (bytes[i] >= ' ' && bytes[i] <= '~')
			to[used++] = (char)bytes[i];
		else
			used += (size_t)snprintf(to + used, HEADROOM + 1,
						 "\\x%02x", bytes[i]);
	}
	to[used++] = '"';
	to[used] = '\0';
}

/* No event, no bytes: the end. */
static int differs(const struct connection *c, uint64_t at,
		   const struct ss_recorded_event *event, size_t from,
		   const unsigned char *bytes, size_t n, struct ss_diag *why)
{
	char recorded[EXCERPT] = "the end", answered[EXCERPT] = "the end";
	size_t there = event && event->kept > from ? event->kept - from : 0;
	if (event)
		excerpt(recorded, there ? event->bytes + from : NULL, there);
	if (bytes)
		excerpt(answered, bytes, n);
	diag_refuse(why, 1,
		    "connection #%llu, %s %llu: recorded %s, answered %s",
		    (unsigned long long)c->told.id,
		    c->told.dgram ? "reply" : "output byte",
		    (unsigned long long)at, recorded, answered);
	return 1;
}

/* Whether what goes on behind the recorded output is no difference. */
static bool goes_on(const struct connection *c)
{
	return !c->told.whole || c->broken;
}

static int compare_packet(const struct ss_recording *recording,
			  const struct connection *c, uint64_t number,
			  const unsigned char *bytes, size_t n,
			  struct ss_diag *why)
{
	const struct ss_recorded_event *event =
		output_of(recording, c, (size_t)number);
	if (!event && (!bytes || goes_on(c)))
		return 0;
	if (event && bytes && n == event->size &&
	    same_in(event, 0, bytes, n) == n)
		return 0;
	return differs(c, number, event, 0, bytes, n, why);
}

static int compare_bytes(const struct ss_recording *recording,
			 const struct connection *c, uint64_t offset,
			 const unsigned char *bytes, size_t n,
			 struct ss_diag *why)
{
	for (size_t i = output_at(recording, c, offset); n > 0; i++) {
		const struct ss_recorded_event *event =
			output_of(recording, c, i);
		if (!event && goes_on(c))
			return 0;
		if (!event)
			return differs(c, offset, NULL, 0, bytes, n, why);
		size_t from = (size_t)(offset - event->offset);
		size_t wanted = event->size - from < n ? event->size - from : n;
		size_t same = same_in(event, from, bytes, wanted);
		if (same < wanted)
			return differs(c, offset + same, event, from + same,
				       bytes + same, n - same, why);
		offset += same;
		bytes += same;
		n -= same;
	}
	return 0;
}

int ss_recording_compare(const struct ss_recording *recording, size_t i,
			 uint64_t offset, const void *bytes, size_t n,
			 struct ss_diag *why)
{
	if (i >= recording->connection_count)
		return diag_refuse(why, -EINVAL, "there is no such connection");
	const struct connection *c = &recording->connections[i];
	if (c->told.dgram)
		return compare_packet(recording, c, offset, bytes, n, why);
	if (bytes)
		return compare_bytes(recording, c, offset, bytes, n, why);
	const struct ss_recorded_event *event =
		output_of(recording, c, output_at(recording, c, offset));
	if (!event || offset >= c->told.output)
		return 0;
	return differs(c, offset, event, (size_t)(offset - event->offset), NULL,
		       0, why);
}
