/*
 * Static probes for tracers (USDT): a nop each, and a note in the library of
 * where it is and where its arguments are found, which are at hand there.
 * Where sys/sdt.h was missing they are nothing.  ss_probes(7) has the list.
 */
#ifndef SS_LIB_PROBES_H
#define SS_LIB_PROBES_H

#ifdef SS_PROBES
#include <sys/sdt.h>
#ifdef __clang__ /* some macros of that file leave their "..." empty */
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif
#define PROBE(n, ...) STAP_PROBE##n(socketserver, __VA_ARGS__)
#else
#define PROBE(n, ...) ((void)0)
#endif

#endif
