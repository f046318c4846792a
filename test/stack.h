/*
 * All layers that come with the library, beside those that a server has anyway:
 * linked in front of ss_server_new (--wrap, ld(1)), they come into each server
 * of a program where SS_STACKED is set, whoever makes it.
 *
 * SS_STACKED=1: record, metrics, access and limits, none of which shows.
 * SS_STACKED=proxy: trace and the PROXY layer, too, for whom clients that
 * dial() come through a balancer.  Both override finish_request.
 */
#ifndef SS_TEST_STACK_H
#define SS_TEST_STACK_H

#include <stdbool.h>

struct ss_layer;

bool stacked(void);
/* Whether it is put into this process's servers. */
bool stack_has(const struct ss_layer *layer);
/* For tests that are about servers without them: from here on none of them is
 * put into this process's servers; or not that one. */
void stack_nothing(void);
void stack_without(const struct ss_layer *layer);
/* As ss_server_describe begins by it: "record > ... > ". */
const char *stack_described(const struct ss_layer *transport);

#endif
