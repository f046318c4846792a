/*
 * The units of demos/systemd, run by a systemd: test/systemd/run.sh boots one,
 * and says what is wrong.
 */
#include "support.h"

#include <stdlib.h>
#include <sys/utsname.h>
#include <sys/wait.h>

enum { NOT_HERE = 77 };

static bool of_64_bits(void)
{
	struct utsname machine;
	return uname(&machine) == 0 && strstr(machine.machine, "64");
}

static const char *why_not(void)
{
	const char *variant = getenv("SS_VARIANT");
	if (geteuid() != 0)
		return "the tests do not run as root";
	if (access("/lib/systemd/systemd", X_OK) != 0)
		return "systemd is not here";
	/* Its filters of system calls, and of memory, are not for those. */
	if (variant && (!strcmp(variant, "asan") || !strcmp(variant, "tsan")))
		return "sanitizers cannot do with as little as the units allow";
	if (sizeof(void *) == 4 && of_64_bits())
		return "the units allow the machine's own calls alone";
	return NULL;
}

START_TEST(systemd_runs_the_units)
{
	char command[1024];
	if (why_not()) {
		printf("skipped: %s\n", why_not());
		return;
	}
	snprintf(command, sizeof(command), "test/systemd/run.sh '%s/demos'",
		 getenv("SS_BUILD"));
	int status = system(command);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_HERE)
		printf("skipped: systemd does not boot here\n");
	else
		ck_assert_int_eq(status, 0);
}
END_TEST

Suite *t_systemd(void)
{
	Suite *suite = suite_create("t_systemd");
	TCase *tcase = suite_case(suite, "units", NULL, NULL);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, systemd_runs_the_units);
	return suite;
}
