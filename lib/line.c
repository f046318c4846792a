/* The forms of a line of the log: plain, journald's, syslog's, JSON. */
#include "sink.h"

#include <stdarg.h>
#include <string.h>
#include <syslog.h>

/* As far as there is room, less what is kept for the end. */
struct text {
	char *at;
	size_t n, room;
};

static void add_bytes(struct text *to, const char *bytes, size_t n)
{
	if (n > to->room - to->n)
		n = to->room - to->n;
	memcpy(to->at + to->n, bytes, n);
	to->n += n;
}

SS_PRINTF(2, 3)
static void add(struct text *to, const char *fmt, ...)
{
	char part[128];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(part, sizeof(part), fmt, args);
	va_end(args);
	if (n > 0)
		add_bytes(to, part,
			  (size_t)n < sizeof(part) ? (size_t)n
						   : sizeof(part) - 1);
}

static const char *level_name(int level)
{
	switch (level) {
	case SS_LOG_ERROR:
		return "error";
	case SS_LOG_WARNING:
		return "warning";
	case SS_LOG_INFO:
		return "info";
	default:
		return "debug";
	}
}

static int priority(int level)
{
	switch (level) {
	case SS_LOG_ERROR:
		return LOG_ERR;
	case SS_LOG_WARNING:
		return LOG_WARNING;
	case SS_LOG_INFO:
		return LOG_INFO;
	default:
		return LOG_DEBUG;
	}
}

/* ---- lines ----------------------------------------------------------------*/

/* What a client sent may be in it: no second line, no escape sequences. */
static void make_plain(char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c < ' ' || c == '\177')
			text[i] = '?';
	}
}

static void add_message(struct text *to, const struct told *told)
{
	if (told->id)
		add(to, "#%llu ", (unsigned long long)told->id);
	add_bytes(to, told->text, strlen(told->text));
}

static void line_plain(struct text *to, const struct sink *sink, bool journal,
		       const struct told *told)
{
	if (journal)
		add(to, "<%d>", priority(told->level));
	add(to, "%s: %s: ", sink->ident, level_name(told->level));
	add_message(to, told);
}

/*
 * As syslog(3) sends it, but for the time: the daemon has its own, and in ours
 * would be the time zone, whose lock a forked child may find taken.
 */
static void line_syslog(struct text *to, const struct sink *sink,
			const struct told *told)
{
	add(to, "<%d>%s[%ld]: ", sink->facility | priority(told->level),
	    sink->ident, (long)sys_getpid());
	add_message(to, told);
}

/* ---- JSON -----------------------------------------------------------------*/

/* The ranges of a sequence's second byte (Unicode, table 3-7). */
static bool utf8_second(unsigned char first, unsigned char second)
{
	switch (first) {
	case 0xe0:
		return second >= 0xa0 && second <= 0xbf;
	case 0xed:
		return second >= 0x80 && second <= 0x9f;
	case 0xf0:
		return second >= 0x90 && second <= 0xbf;
	case 0xf4:
		return second >= 0x80 && second <= 0x8f;
	default:
		return second >= 0x80 && second <= 0xbf;
	}
}

/* How many bytes the character here has; 0: it is none.  NUL ends the text. */
static size_t utf8_length(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t n = s[0] < 0x80	 ? 1
		   : s[0] < 0xc2 ? 0
		   : s[0] < 0xe0 ? 2
		   : s[0] < 0xf0 ? 3
		   : s[0] < 0xf5 ? 4
				 : 0;
	if (n > 1 && !utf8_second(s[0], s[1]))
		return 0;
	for (size_t i = 2; i < n; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return n;
}

/* A character as it is in a string; how many bytes of the text it was. */
static size_t json_character(const char *text, char *buf, size_t *size)
{
	size_t n = utf8_length(text);
	if (n == 0)
		*size = (size_t)snprintf(buf, 8, "\\ufffd");
	else if (*text == '"' || *text == '\\')
		*size = (size_t)snprintf(buf, 8, "\\%c", *text);
	else if (n == 1 && (*text < ' ' || *text == '\177'))
		*size = (size_t)snprintf(buf, 8, "\\u%04x", *text);
	else
		memcpy(buf, text, *size = n);
	return n ? n : 1;
}

/* At most so many bytes, cut before a character that has no room. */
static void json_string(struct text *to, const char *key, const char *text,
			size_t most)
{
	char buf[8];
	size_t size;
	add(to, "\"%s\":\"", key);
	if (most > to->room - to->n)
		most = to->room - to->n;
	for (; *text; most -= size) {
		text += json_character(text, buf, &size);
		if (size > most)
			break;
		add_bytes(to, buf, size);
	}
}

/*
 * RFC 3339, in UTC.  gmtime_r(3) may take the time zone's lock, which a forked
 * child may find taken; so days become a date here (years begin in March: the
 * day that some have more is the last).
 */
static void json_time(struct text *to, int64_t ms)
{
	enum { DAY_MS = 86400000, ERA = 146097, TO_1970 = 719468 };
	int64_t days = ms / DAY_MS + TO_1970;
	int of_day = (int)(ms % DAY_MS), of_era = (int)(days % ERA);
	int year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) /
		   365;
	int of_year = of_era - (365 * year + year / 4 - year / 100);
	int month = (5 * of_year + 2) / 153;
	add(to, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\",",
	    year + (int)(days / ERA) * 400 + (month >= 10),
	    month < 10 ? month + 3 : month - 9,
	    of_year - (153 * month + 2) / 5 + 1, of_day / 3600000,
	    of_day / 60000 % 60, of_day / 1000 % 60, of_day % 1000);
}

static const char *server_name(const struct ss_server *server, char *buf,
			       size_t size)
{
	const char *url = ss_server_url(server, 0, buf, size);
	return url ? url : ss_server_describe(server);
}

/* Apart for its address: as write_json. */
APART static void line_json(struct text *to, const struct sink *sink,
			    const struct told *told)
{
	enum { IDENT = 96, SERVER = 288 };
	int64_t ms = sys_wall_ms();
	json_time(to, ms > 0 ? ms : 0);
	add(to, "\"level\":\"%s\",", level_name(told->level));
	json_string(to, "ident", sink->ident, IDENT);
	add(to, "\",\"pid\":%ld,", (long)sys_getpid());
	if (told->id)
		add(to, "\"id\":%llu,", (unsigned long long)told->id);
	if (told->server) {
		char name[SS_ADDRESS_TEXT];
		json_string(to, "server",
			    server_name(told->server, name, sizeof(name)),
			    SERVER);
		add(to, "\",");
	}
	json_string(to, "msg", told->text, to->room);
}

size_t line_make(char *buf, size_t size, const struct sink *sink, bool journal,
		 const struct told *told)
{
	const char *end = sink->to == SS_LOG_TO_JSON	 ? "\"}\n"
			  : sink->to == SS_LOG_TO_SYSLOG ? ""
							 : "\n";
	size_t kept = strlen(end);
	struct text to = { .at = buf, .room = size - kept };
	if (sink->to == SS_LOG_TO_JSON)
		line_json(&to, sink, told);
	else if (sink->to == SS_LOG_TO_SYSLOG)
		line_syslog(&to, sink, told);
	else
		line_plain(&to, sink, journal, told);
	if (sink->to != SS_LOG_TO_JSON)
		make_plain(buf, to.n);
	to.room = size;
	add_bytes(&to, end, kept);
	return to.n;
}
