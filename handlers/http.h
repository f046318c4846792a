/*
 * As much of HTTP/1.1 (RFC 9112) as a page about a server needs: one request a
 * connection, small, read strictly, and one answer.  Not for the open internet.
 */
#ifndef HTTP_H
#define HTTP_H

#include <socketserver/handler.h>

enum { HTTP_TARGET = 256, HTTP_HOST = 256 };

struct http {
	char method[8];
	char path[HTTP_TARGET]; /* without what is behind a '?' */
	char host[HTTP_HOST];	/* "": none was sent */
	char origin[HTTP_HOST]; /* the same */
	bool asked;		/* X-Drain was sent: by no form, no image */
	size_t body;		/* bytes, which are not kept */
};

struct http_answer {
	int status;
	const char *type;  /* NULL: text/plain */
	const char *extra; /* header lines, each with its CRLF; NULL: none */
	const void *body;  /* NULL: a line that says the status */
	size_t size;
};

/*
 * 200, or the status of what is wrong with it; 0: nobody has asked.  What a
 * read answers, -errno.
 */
int http_read(struct ss_request *req, struct http *http);

/* 0 or -errno.  http may be NULL: then it is not known what was asked. */
int http_reply(struct ss_request *req, const struct http *http,
	       const struct http_answer *answer);

/* Whether a page of ours has asked, of an address that no name can be made to
 * stand for: an IP address or localhost. */
bool http_own_page(const struct http *http);

#endif
