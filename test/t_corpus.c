/*
 * The inputs in test/fuzz/corpus, each through its target, as `make fuzz` does
 * it: those that it found stay tests, with any compiler.
 */
#include "support.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>

Suite *t_corpus(void);

/* The one that is in a manual has its name there. */
#define fuzz_example LLVMFuzzerTestOneInput

#define TARGET(name) int fuzz_##name(const uint8_t *data, size_t n);
#include "targets.inc"
#undef TARGET

#define TARGET(target) { .name = #target, .run = fuzz_##target },
static const struct target {
	const char *name;
	int (*run)(const uint8_t *data, size_t n);
} targets[] = {
#include "targets.inc"
};
#undef TARGET

enum { TARGETS = sizeof(targets) / sizeof(*targets), INPUT_MAX = 1 << 20 };

#define CORPUS "test/fuzz/corpus"

/* ---- who was it -----------------------------------------------------------*/

static char current[300];

static void tell_input(void)
{
	ssize_t ignored = write(STDERR_FILENO, current, strlen(current));
	(void)ignored;
}

static void aborted(int signal)
{
	tell_input();
	raise(signal);
}

/* Of the sanitizers, where there are any. */
void __sanitizer_set_death_callback(void (*callback)(void))
	__attribute__((weak));

static void watch_out(void)
{
	struct sigaction once = { .sa_handler = aborted,
				  .sa_flags = (int)SA_RESETHAND };
	sigaction(SIGABRT, &once, NULL);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(tell_input);
}

/* ---- the corpus -----------------------------------------------------------*/

static void replay(const struct target *target, const char *path)
{
	FILE *file = fopen(path, "r");
	ck_assert_msg(file != NULL, "%s", path);
	uint8_t *data = malloc(INPUT_MAX);
	ck_assert_ptr_nonnull(data);
	size_t n = fread(data, 1, INPUT_MAX, file);
	fclose(file);
	/* No longer than it is, for who looks at its end. */
	uint8_t *exact = malloc(n ? n : 1);
	ck_assert_ptr_nonnull(exact);
	memcpy(exact, data, n);
	free(data);
	snprintf(current, sizeof(current), "input: %s\n", path);
	ck_assert_int_eq(target->run(exact, n), 0);
	free(exact);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

START_TEST(inputs_of_a_corpus_pass)
{
	const struct target *target = &targets[_i];
	char path[280], place[280];
	struct dirent **names;
	snprintf(place, sizeof(place), CORPUS "/%s", target->name);
	int count = scandir(place, &names, NULL, by_name), inputs = 0;
	ck_assert_msg(count > 0, "%s: there is none", place);
	watch_out();
	for (int i = 0; i < count; i++) {
		struct stat st;
		int n = snprintf(path, sizeof(path), "%s/%s", place,
				 names[i]->d_name);
		free(names[i]);
		ck_assert_int_lt(n, (int)sizeof(path));
		if (stat(path, &st) == -1 || !S_ISREG(st.st_mode))
			continue;
		replay(target, path);
		inputs++;
	}
	free(names);
	ck_assert_msg(inputs > 0, "%s is empty", place);
}
END_TEST

START_TEST(every_corpus_has_a_target)
{
	struct dirent **names;
	int count = scandir(CORPUS, &names, NULL, by_name);
	ck_assert_int_gt(count, 0);
	for (int i = 0; i < count; i++) {
		bool known = names[i]->d_name[0] == '.';
		for (int k = 0; k < TARGETS; k++)
			known |= !strcmp(targets[k].name, names[i]->d_name);
		ck_assert_msg(known, CORPUS "/%s: no target", names[i]->d_name);
		free(names[i]);
	}
	free(names);
}
END_TEST

Suite *t_corpus(void)
{
	Suite *suite = suite_create("corpus");
	TCase *tcase = suite_case(suite, "inputs", NULL, NULL);
	tcase_add_test(tcase, every_corpus_has_a_target);
	tcase_add_loop_test(tcase, inputs_of_a_corpus_pass, 0, TARGETS);
	return suite;
}
