/* One HTTP request and its answer. */
#include "http.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	LINE = 2048,	 /* with its end */
	LINES = 64,	 /* of a header */
	HEADER = 16384,	 /* bytes of it */
	BODY = 1024,	 /* bytes; there is nothing to send */
	HEAD_ROOM = 2048 /* of an answer */
};

/* ---- reading --------------------------------------------------------------*/

/* RFC 9110 5.6.2. */
static bool is_token(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)text[i]) &&
		    !strchr("!#$%&'*+-.^_`|~", text[i]))
			return false;
	return n > 0;
}

static bool copy(char *to, size_t room, const char *from, size_t n)
{
	if (n >= room)
		return false;
	memcpy(to, from, n);
	to[n] = '\0';
	return true;
}

/* A line without its CRLF; its length, or as http_read says. */
static ssize_t read_line(struct ss_request *req, char *line, int too_long,
			 int *status)
{
	ssize_t n = ss_read_line(req, line, LINE);

	*status = 200;
	if (n == -EMSGSIZE) {
		*status = too_long;
		return 0;
	}
	if (n <= 0)
		return n;
	if (n < 2 || line[n - 2] != '\r' || line[n - 1] != '\n') {
		*status = 400;
		return 0;
	}
	line[n -= 2] = '\0';
	/* RFC 9110 5.5: none of these is in a field or a request line. */
	for (ssize_t i = 0; i < n; i++)
		if ((unsigned char)line[i] < ' ' && line[i] != '\t')
			*status = 400;
	if (memchr(line, 0x7f, (size_t)n) != NULL)
		*status = 400;
	return n;
}

/* METHOD SP /PATH[?QUERY] SP HTTP/1.x */
static int parse_request_line(struct http *http, const char *line, int *minor)
{
	const char *target = strchr(line, ' ');
	const char *version = target != NULL ? strchr(target + 1, ' ') : NULL;

	if (version == NULL || !is_token(line, (size_t)(target - line)) ||
	    target[1] != '/')
		return 400;
	if (strncmp(version, " HTTP/", 6) != 0)
		return 400;
	if (strcmp(version, " HTTP/1.1") != 0 &&
	    strcmp(version, " HTTP/1.0") != 0)
		return strlen(version) == 9 &&
				       isdigit((unsigned char)version[6])
			       ? 505
			       : 400;
	*minor = version[8] - '0';
	target++;
	for (const char *c = target; c < version; c++)
		if ((unsigned char)*c <= ' ' || (unsigned char)*c > '~')
			return 400;
	size_t n = strcspn(target, "? ");

	if (!copy(http->path, sizeof(http->path), target, n))
		return 414;
	/* One that is too long is none that is known. */
	copy(http->method, sizeof(http->method), line,
	     (size_t)(target - 1 - line));
	return 200;
}

static int parse_length(struct http *http, const char *value)
{
	size_t digits = strspn(value, "0123456789");

	if (digits == 0 || value[digits] != '\0')
		return 400;
	for (size_t i = 0; i < digits && http->body <= BODY; i++)
		http->body = 10 * http->body + (size_t)(value[i] - '0');
	return http->body > BODY ? 413 : 200;
}

static int once(char *to, const char *value)
{
	if (to[0] != '\0' || value[0] == '\0')
		return 400;
	return copy(to, HTTP_HOST, value, strlen(value)) ? 200 : 400;
}

static int parse_field(struct http *http, char *line, bool *sized)
{
	char *colon = strchr(line, ':');

	if (colon == NULL || !is_token(line, (size_t)(colon - line)))
		return 400;
	*colon = '\0';
	char *value = colon + 1 + strspn(colon + 1, " \t");
	size_t n = strlen(value);

	while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'))
		value[--n] = '\0';
	if (strcasecmp(line, "Host") == 0)
		return once(http->host, value);
	if (strcasecmp(line, "Origin") == 0)
		return once(http->origin, value);
	if (strcasecmp(line, "X-Drain") == 0)
		http->asked = true;
	if (strcasecmp(line, "Transfer-Encoding") == 0)
		return 501;
	if (strcasecmp(line, "Content-Length") != 0)
		return 200;
	if (*sized)
		return 400;
	*sized = true;
	return parse_length(http, value);
}

static int read_fields(struct ss_request *req, struct http *http, char *line)
{
	size_t left = HEADER;
	bool sized = false;

	for (int i = 0; i <= LINES; i++) {
		int status;
		ssize_t n = read_line(req, line, 431, &status);

		if (n < 0)
			return (int)n;
		if (status != 200)
			return status;
		if (n == 0)
			return line[0] == '\0' ? 200 : 400;
		if ((size_t)n > left)
			return 431;
		left -= (size_t)n;
		status = parse_field(http, line, &sized);
		if (status != 200)
			return status;
	}
	return 431;
}

static int read_all(struct ss_request *req, struct http *http, char *line)
{
	int status, minor = 0;

	/* Where the input ends instead of a line, this is left as it is. */
	line[0] = 'x';
	ssize_t n = read_line(req, line, 414, &status);

	if (n < 0)
		return (int)n;
	if (status != 200)
		return status;
	if (n == 0)
		return line[0] == '\0' ? 400 : 0;
	status = parse_request_line(http, line, &minor);
	if (status != 200)
		return status;
	status = read_fields(req, http, line);
	if (status == 200 && minor == 1 && http->host[0] == '\0')
		return 400;
	return status;
}

int http_read(struct ss_request *req, struct http *http)
{
	char *line = malloc(LINE);

	memset(http, 0, sizeof(*http));
	if (line == NULL)
		return -ENOMEM;
	int status = read_all(req, http, line);

	free(line);
	if (status == 200 && http->body > 0 &&
	    ss_skip(req, http->body) != (ssize_t)http->body)
		return 400;
	return status;
}

/* ---- answering ------------------------------------------------------------*/

static const char *reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = {
		{ 200, "OK" },
		{ 202, "Accepted" },
		{ 400, "Bad Request" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 413, "Content Too Large" },
		{ 414, "URI Too Long" },
		{ 431, "Request Header Fields Too Large" },
		{ 501, "Not Implemented" },
		{ 503, "Service Unavailable" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unknown";
}

int http_reply(struct ss_request *req, const struct http *http,
	       const struct http_answer *answer)
{
	char head[HEAD_ROOM], line[64];
	const void *body = answer->body;
	size_t size = answer->size;
	bool headless = http != NULL && strcmp(http->method, "HEAD") == 0;

	if (body == NULL) {
		size = (size_t)snprintf(line, sizeof(line), "%d %s\n",
					answer->status, reason(answer->status));
		body = line;
	}
	int n = snprintf(head, sizeof(head),
			 "HTTP/1.1 %d %s\r\n"
			 "Content-Type: %s\r\n"
			 "Content-Length: %zu\r\n"
			 "Cache-Control: no-store\r\n"
			 "X-Content-Type-Options: nosniff\r\n"
			 "Connection: close\r\n"
			 "%s\r\n",
			 answer->status, reason(answer->status),
			 answer->type != NULL ? answer->type
					      : "text/plain; charset=utf-8",
			 size, answer->extra != NULL ? answer->extra : "");
	if (n >= HEAD_ROOM)
		return -EMSGSIZE;
	struct iovec parts[] = {
		{ head, (size_t)n },
		{ (void *)body, size },
	};
	ssize_t r = ss_writev(req, parts, headless ? 1 : 2);

	return r < 0 ? (int)r : 0;
}

/* ---- who asks -------------------------------------------------------------*/

static bool is_port(const char *text)
{
	return text[0] == '\0' ||
	       (text[0] == ':' &&
		text[1 + strspn(text + 1, "0123456789")] == '\0');
}

/* Another site's name may be made to lead here (DNS rebinding): its pages'
 * origin would then be that of ours. */
static bool is_literal(const char *host)
{
	if (strncmp(host, "localhost", 9) == 0)
		return is_port(host + 9);
	if (host[0] == '[')
		return strchr(host, ']') != NULL &&
		       is_port(strchr(host, ']') + 1);
	size_t n = strspn(host, "0123456789.");

	return n > 0 && is_port(host + n);
}

bool http_own_page(const struct http *http)
{
	const char *origin = http->origin;

	if (!http->asked || !is_literal(http->host))
		return false;
	if (origin[0] == '\0')
		return true;
	if (strncmp(origin, "http://", 7) == 0)
		return strcasecmp(origin + 7, http->host) == 0;
	return strncmp(origin, "https://", 8) == 0 &&
	       strcasecmp(origin + 8, http->host) == 0;
}
