/*
 * What the sanitizers and valgrind want to be told of stacks and switches;
 * without them every function here is empty.
 */
#ifndef SS_LIB_FIBER_TOOLS_H
#define SS_LIB_FIBER_TOOLS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define TOOLS_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define TOOLS_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define TOOLS_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define TOOLS_TSAN 1
#endif
#if defined(TOOLS_ASAN) || defined(TOOLS_TSAN)
#define TOOLS_SWITCH 1 /* they are told of each switch */
#endif

#if !defined(NVALGRIND) && !defined(TOOLS_SWITCH) && defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#define TOOLS_VALGRIND 1
#include <valgrind/valgrind.h>
#endif
#endif

#ifdef TOOLS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef TOOLS_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* What they know of one stack; kept beside it, for as long as its memory. */
struct tools_stack {
	unsigned id; /* valgrind's */
	unsigned runs;
	void *fiber; /* the thread sanitizer's */
};

#endif
