/*
 * The library's calls that can fail, by number; their stand-ins in the table
 * of sys.h; and what the library has taken by them in this process.
 */
#ifndef SS_LIB_TESTING_FAULT_CALLS_H
#define SS_LIB_TESTING_FAULT_CALLS_H

#include "../sys.h"

#define CALL_NUMBER_FD(name, params, args) CALL_##name,
#define CALL_NUMBER(type, name, params, args) CALL_##name,
/* clang-format off */
enum call {
	CALL_none,
	SYS_DESCRIPTORS(CALL_NUMBER_FD)
	SYS_WRAPPED(CALL_NUMBER)
	SYS_PLAIN(CALL_NUMBER)
	SYS_LINUX(CALL_NUMBER)
	CALLS
};
/* clang-format on */
#undef CALL_NUMBER_FD
#undef CALL_NUMBER

/* As sys.h has it; "no call". */
const char *call_name(enum call call);
/* The first n bytes of the text are its name; CALL_none: there is no such. */
enum call call_named(const char *text, size_t n);

/* The error of that number, from 0 on, that it may plausibly answer; of those
 * that may last, if they are to.  0: there are not so many. */
int call_error(enum call call, int way, bool lasting);

/* Whether that error may be for ever. */
bool call_lasts(enum call call, int error);

/* From the first time on, every call asks faults_strike. */
void calls_install(void);

/* Of memory: what was allocated and mapped, less what was given back. */
long calls_bytes(void);

/* Whether this call is to fail now; sets errno then.  On any thread. */
bool faults_strike(enum call call);

#endif
