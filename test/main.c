/*
 * Runs all suites, or the one that SS_SUITE names (t_NAME or NAME).  Each
 * test/t_NAME.c defines `Suite *t_NAME(void)`; the Makefile lists them in
 * suites.inc, a line SUITE(t_NAME) each.  check's environment is honoured:
 * CK_RUN_SUITE (by the name given to suite_create), CK_RUN_CASE, CK_FORK=no
 * (for valgrind and debuggers), CK_VERBOSITY.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUITE(name) Suite *name(void);
#include "suites.inc"
#undef SUITE

static bool wanted(const char *name)
{
	const char *only = getenv("SS_SUITE");
	return !only || strcmp(only, name) == 0 ||
	       strcmp(only, name + strlen("t_")) == 0;
}

int main(void)
{
	SRunner *runner = srunner_create(NULL);
#define SUITE(name)                                                            \
	if (wanted(#name))                                                     \
		srunner_add_suite(runner, name());
#include "suites.inc"
#undef SUITE
	srunner_run_all(runner, CK_ENV);
	int run = srunner_ntests_run(runner);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	if (run == 0)
		fputs("no such test: nothing was run\n", stderr);
	return run > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
