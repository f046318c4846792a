#include "diag.h"

#include <stdarg.h>
#include <stdio.h>

int diag_refuse(struct ss_diag *why, int code, const char *fmt, ...)
{
	va_list args;
	if (!why)
		return code;
	why->code = code;
	va_start(args, fmt);
	vsnprintf(why->text, sizeof(why->text), fmt, args);
	va_end(args);
	return code;
}
