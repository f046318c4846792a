/*
 * What `make install` leaves: programs in C and C++ build against it and run.
 * test/install/run.sh does it, and says what is wrong.
 */
#include "support.h"

#include <stdlib.h>

START_TEST(programs_build_against_what_is_installed)
{
	ck_assert_int_eq(system("test/install/run.sh"), 0);
}
END_TEST

Suite *t_install(void)
{
	Suite *suite = suite_create("t_install");
	TCase *tcase = suite_case(suite, "installed", NULL, NULL);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, programs_build_against_what_is_installed);
	return suite;
}
