/*
 * What the fuzz targets share.  A target is one file, NAME.c, with a function
 * FUZZ_TARGET(NAME) of libFuzzer's form, and inputs to begin with in
 * corpus/NAME; a dictionary may be beside it, NAME.dict.  `make fuzz` makes it
 * a program that looks for inputs of its own, and test/t_corpus.c replays those
 * of the corpus, with any compiler.
 *
 * A target says more than that nothing crashes: what `must` hold.
 */
#ifndef SS_TEST_FUZZ_H
#define SS_TEST_FUZZ_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <socketserver/socketserver.h>

#ifdef SS_FUZZ
#define FUZZ_TARGET(name) int LLVMFuzzerTestOneInput
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
#else
#define FUZZ_TARGET(name) int fuzz_##name
#endif

/* Fails the input, and says why in a line. */
#define must(condition, ...)                                                   \
	do {                                                                   \
		if (!(condition))                                              \
			fuzz_fail(__FILE__, __LINE__, #condition,              \
				  __VA_ARGS__);                                \
	} while (0)
_Noreturn void fuzz_fail(const char *file, int line, const char *condition,
			 const char *fmt, ...) SS_PRINTF(4, 5);

/* ---- an input, taken apart ------------------------------------------------*/

struct input {
	const uint8_t *at;
	size_t left;
};

/* 0 where nothing is left. */
uint8_t take_byte(struct input *in);
/* Up to the next such byte, which is taken too, or else all that is left. */
struct input take_until(struct input *in, uint8_t end);

/* On the heap and no byte longer, so that the sanitizer sees who reads on; to
 * be freed. */
void *exact_copy(const void *bytes, size_t n);
/* The same as a string, which ends at a NUL of it. */
char *exact_text(struct input text);

/* Whether all of it is printable ASCII. */
bool plain_text(const char *text, size_t n);

/* How many of the n bytes are one JSON value (RFC 8259), in UTF-8; 0: there is
 * none. */
size_t json_value(const char *text, size_t n);

/* ---- a client over memory -------------------------------------------------*/

/* How its bytes reach the handler. */
enum way {
	WHOLE,	/* all at once, under sync */
	PIECES, /* reads stop short, and would block in between */
	PARKED, /* sent in pieces, and in between a fiber is parked */
	WAYS
};
extern const char *const way_names[];
/* Besides WHOLE, the one that such an input is to go. */
enum way way_of(struct input cuts);

struct served {
	unsigned char *answer;
	size_t n;
	int status; /* as end_request has it */
};

/*
 * Serves one client, who sends n bytes and their end, in pieces as long as the
 * bytes of `cuts` say.  The configuration's transport, addresses and log level
 * are not regarded.  Nothing may be left behind.
 */
struct served serve_one(const struct ss_config *config, enum way way,
			struct input cuts, const void *bytes, size_t n);
void served_free(struct served *served);

/* A layer whose clients come from wherever a target says. */
extern struct ss_address fuzz_peer;
extern const struct ss_layer fuzz_peer_layer;

/* Whichever way they came, the answer is the same. */
void must_be_same(const struct served *one, const struct served *other,
		  enum way way);

#endif
