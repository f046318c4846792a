/*
 * What every header here shares: the export mark, the two words for "none"
 * and "again", and the diagnosis that a refused call hands back.
 */
#ifndef SOCKETSERVER_COMMON_H
#define SOCKETSERVER_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
#define SS_BEGIN_DECLS extern "C" {
#define SS_END_DECLS }
#else
#define SS_BEGIN_DECLS
#define SS_END_DECLS
#endif

#if defined(__GNUC__)
#define SS_API __attribute__((visibility("default")))
#define SS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define SS_API
#define SS_PRINTF(fmt, args)
#endif

#define SS_VERSION "0.1.0"

/*
 * Wherever a time-out, deadline or limit is asked for: 0 is the default and
 * SS_NONE is none or unlimited.  Time-outs are relative, in milliseconds, and
 * end in _ms; deadlines are absolute, in milliseconds of ss_now().
 */
#define SS_NONE (-1)

/* What handle() returns to be called again when there is input. */
#define SS_AGAIN 0x53535341

SS_BEGIN_DECLS

struct ss_server;
struct ss_request;
struct ss_listener;
struct ss_layer;
struct ss_channel;
struct ss_handler;

/* Why a call was refused: in the caller's memory, NULL where not wanted. */
struct ss_diag {
	int code;	/* -errno; 0 after success */
	char text[256]; /* one line without a newline */
};

/* The library's version, as "0.1.0"; compare it with SS_VERSION. */
SS_API const char *ss_version(void);

SS_END_DECLS
#endif
