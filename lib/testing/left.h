/* What a run leaves behind. */
#ifndef SS_LIB_TESTING_LEFT_H
#define SS_LIB_TESTING_LEFT_H

#include "fault.h"

/* ss_fault_look, once calls are counted. */
void look(struct ss_fault_state *state);

/* ss_fault_left, but for those of enum ss_fault_check. */
int left_of(const struct ss_fault_state *before, int unchecked,
	    struct ss_diag *why);

#endif
