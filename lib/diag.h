/* Why something was refused, told to who may want to know. */
#ifndef SS_LIB_DIAG_H
#define SS_LIB_DIAG_H

#include <socketserver/common.h>

/* Returns the code; why may be NULL. */
int diag_refuse(struct ss_diag *why, int code, const char *fmt, ...)
	SS_PRINTF(3, 4);

#endif
