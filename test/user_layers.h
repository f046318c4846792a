/*
 * Layers such as users write, which several suites put into their servers.
 */
#ifndef SS_TEST_USER_LAYERS_H
#define SS_TEST_USER_LAYERS_H

#include <socketserver/layer.h>

/* Asks verify_request again once it has let somebody in, as a layer does that
 * has found out more of it. */
extern const struct ss_layer twice_layer;

/* Pushes a channel that overrides nothing. */
extern const struct ss_layer pass_layer;

#endif
