/*
 * Lines of the log, in all their forms.  The input: level, the time, the
 * request's id, and then the program's name and the message, up to a NUL each.
 */
#include "fuzz.h"

#include <stdio.h>
#include <syslog.h>
#include <time.h>

#include "../../lib/sink.h"

/* Up to the year 9999, as RFC 3339 has it. */
static const int64_t LAST_MS = INT64_C(253402300799999);

static int64_t wall_ms;

static int64_t fake_wall_ms(void)
{
	return wall_ms;
}

/* ---- JSON -----------------------------------------------------------------*/

/* What a string of ours means, byte by byte; where it ends. */
static const char *unescape(const char *s, char *to)
{
	unsigned value;
	for (; *s != '"'; s++) {
		if (*s != '\\') {
			*to++ = *s;
			continue;
		}
		if (*++s != 'u') {
			*to++ = *s;
			continue;
		}
		must(sscanf(s + 1, "%4x", &value) == 1, "'%s'", s);
		if (value == 0xfffd)
			*to++ = '\1';
		else
			*to++ = (char)value;
		s += 4;
	}
	*to = '\0';
	return s;
}

static bool valid_sequence(const char *text)
{
	char quoted[16];
	size_t n = (unsigned char)*text < 0xe0	 ? 2
		   : (unsigned char)*text < 0xf0 ? 3
						 : 4;
	if (strnlen(text, n) < n)
		return false;
	snprintf(quoted, sizeof(quoted), "\"%.*s\"", (int)n, text);
	return json_value(quoted, n + 2) == n + 2;
}

/* It is the message's beginning, with \1 for each byte that is no character
 * (and for those that were \1 themselves). */
static void must_say(const char *meant, const char *text, bool whole)
{
	for (; *meant; meant++, text++) {
		bool broken = (unsigned char)*text >= 0x80 && *meant == '\1';
		must(*text &&
			     (broken ? !valid_sequence(text) : *meant == *text),
		     "'%s' is not '%s'", meant, text);
		if ((unsigned char)*text >= 0x80 && !broken)
			for (; (meant[1] & 0xc0) == 0x80 && meant[1] == text[1];
			     meant++)
				text++;
	}
	must(!*text || !whole, "'%s' is missing", text);
}

static void must_be_the_time(const char *line)
{
	char text[64];
	struct tm tm;
	time_t seconds = (time_t)(wall_ms / 1000);
	must(gmtime_r(&seconds, &tm), "no time");
	size_t n = strftime(text, sizeof(text), "{\"time\":\"%Y-%m-%dT%H:%M:%S",
			    &tm);
	snprintf(text + n, sizeof(text) - n, ".%03dZ\",",
		 (int)(wall_ms % 1000));
	must(strncmp(line, text, strlen(text)) == 0, "%.40s is not %s", line,
	     text);
}

static void must_be_json(char *line, size_t n, size_t size,
			 const struct told *told, const char *ident)
{
	char *meant = malloc(n + 1);
	must(meant, "no memory");
	must(n > 1 && json_value(line, n - 1) == n - 1, "'%.*s'", (int)n, line);
	line[n - 1] = '\0';
	must_be_the_time(line);
	const char *at = strstr(line, "\"ident\":\"");
	must(at, "'%s'", line);
	at = unescape(at + strlen("\"ident\":\""), meant);
	must_say(meant, ident, strlen(meant) < 16 && strlen(ident) < 16);
	at = strstr(at, "\"msg\":\"");
	must(at, "'%s'", line);
	at = unescape(at + strlen("\"msg\":\""), meant);
	must(!strcmp(at, "\"}"), "'%s'", at);
	/* A character has at most six bytes there. */
	must_say(meant, told->text, n + 6 < size);
	free(meant);
}

/* ---- lines ----------------------------------------------------------------*/

static void must_be_plain(const char *line, size_t n, size_t size,
			  const struct told *told)
{
	for (size_t i = 0; i < n; i++)
		must((unsigned char)line[i] >= ' ' && line[i] != '\177',
		     "byte %d at %zu", line[i], i);
	size_t text = strlen(told->text);
	must(n + 2 >= size || n >= text, "%zu bytes of %zu", n, text);
	for (size_t i = 0; n + 2 < size && i < text; i++) {
		char c = line[n - text + i];
		must(c == told->text[i] || c == '?', "'%.*s'", (int)n, line);
	}
}

static void must_make(const struct sink *sink, size_t size, bool journal,
		      const struct told *told)
{
	char *line = malloc(size);
	must(line, "no memory");
	size_t n = line_make(line, size, sink, journal, told);
	bool ends = sink->to != SS_LOG_TO_SYSLOG;
	must(n <= size && n > ends, "%zu bytes of %zu", n, size);
	must(!ends || line[n - 1] == '\n', "no end");
	if (sink->to == SS_LOG_TO_JSON)
		must_be_json(line, n, size, told, sink->ident);
	else
		must_be_plain(line, n - ends, size, told);
	free(line);
}

/* Its first of March. */
static struct tm year_of(int64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm, march = { .tm_mon = 2, .tm_mday = 1 };
	must(gmtime_r(&seconds, &tm), "no time");
	march.tm_year = tm.tm_year;
	return march;
}

FUZZ_TARGET(line)(const uint8_t *data, size_t n)
{
	static const enum ss_log_to kinds[] = { SS_LOG_TO_STDERR,
						SS_LOG_TO_SYSLOG,
						SS_LOG_TO_JSON };
	struct input in = { data, n };
	struct told told = { .level = take_byte(&in) % 6 };
	uint64_t numbers[2] = { 0 };
	for (size_t i = 0; i < sizeof(numbers); i++)
		numbers[i / 8] = numbers[i / 8] << 8 | take_byte(&in);
	wall_ms = (int64_t)(numbers[0] % (uint64_t)(LAST_MS + 1));
	told.id = numbers[1];
	char *ident = exact_text(take_until(&in, '\0'));
	char *text = exact_text(in);
	told.text = text;
	struct tm first_of_march = year_of(wall_ms);
	sys_table.wall_ms = fake_wall_ms;
	const struct sink json = { .to = SS_LOG_TO_JSON, .ident = ident };
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		bool longer = kinds[i] == SS_LOG_TO_JSON;
		struct sink sink = { .to = kinds[i],
				     .facility = LOG_DAEMON,
				     .ident = ident };
		must_make(&sink, longer ? NOTE_JSON : NOTE_PLAIN, false, &told);
		must_make(&sink, longer ? LINE_JSON : LINE_PLAIN, true, &told);
	}
	/* Where the calendar is a difficult one. */
	wall_ms = (int64_t)timegm(&first_of_march) * 1000;
	must_make(&json, LINE_JSON, false, &told);
	wall_ms--;
	if (wall_ms >= 0)
		must_make(&json, LINE_JSON, false, &told);
	sys_table.wall_ms = sys_do_wall_ms;
	free(ident);
	free(text);
	return 0;
}
