/* What a run leaves behind. */
#ifndef SS_LIB_TESTING_FAULT_LEFT_H
#define SS_LIB_TESTING_FAULT_LEFT_H

#include <socketserver/fault.h>

/* ss_fault_look, once calls are counted. */
void look(struct ss_fault_state *state);

/* ss_fault_left, by the options' `unchecked` and `patience_ms`. */
int left_of(const struct ss_fault_state *before,
	    const struct ss_fault_options *options, struct ss_diag *why);

#endif
