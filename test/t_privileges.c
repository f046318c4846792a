/*
 * Privileges: dropped for good, in a child of the test that was root; and by
 * the echo server, which goes on serving.
 */
#include "program.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

Suite *t_privileges(void);

enum { NOBODY = 65534, OTHER = 12345 };

/* Linux has that alone; elsewhere an option that changes nothing. */
#ifdef SS_LINUX
#define NO_NEW_PRIVS "--no-new-privs"
#else
#define NO_NEW_PRIVS "--log=warning"
#endif

static struct ended got;

static bool not_root(void)
{
	if (geteuid() == 0)
		return false;
	printf("skipped: the tests do not run as root\n");
	return true;
}

/* ---- in a child -----------------------------------------------------------*/

#define must(condition)                                                        \
	do {                                                                   \
		if (!(condition)) {                                            \
			dprintf(2, "%s: %s\n", #condition, strerror(errno));   \
			_exit(1);                                              \
		}                                                              \
	} while (0)

static void in_child(void (*body)(void))
{
	int status = 0;
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		body();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}

static void are(uid_t uid, gid_t gid)
{
	uid_t u[3];
	gid_t g[3], groups[8];
	must(getresuid(&u[0], &u[1], &u[2]) == 0);
	must(getresgid(&g[0], &g[1], &g[2]) == 0);
	for (int i = 0; i < 3; i++)
		must(u[i] == uid && g[i] == gid);
	must(getgroups(8, groups) == 1 && groups[0] == gid);
	must(uid == 0 || (setuid(0) == -1 && seteuid(0) == -1));
	must(gid == 0 || uid == 0 || setgid(0) == -1);
}

static int drop(const char *user, const char *group, struct ss_diag *why)
{
	const struct ss_privileges p = { .user = user, .group = group };
	return ss_drop_privileges(&p, why);
}

static void by_name(void)
{
	struct ss_diag why;
	const struct passwd *entry = getpwuid(NOBODY);
	const gid_t some[] = { 0, 1, 2 };
	must(entry != NULL);
	must(setgroups(3, some) == 0);
	must(drop(entry->pw_name, NULL, &why) == 0);
	must(why.code == 0);
	are(NOBODY, entry->pw_gid);
	/* Again, and there is nothing to do. */
	must(drop(entry->pw_name, NULL, &why) == 0);
	must(drop("0", "0", &why) == -EPERM);
}

static void by_number(void)
{
	must(drop("12345", "54321", NULL) == 0);
	are(OTHER, 54321);
}

static void group_alone(void)
{
	must(drop(NULL, "54321", NULL) == 0);
	are(0, 54321);
}

/* Root it stays, but not in root's own groups. */
static void root_again(void)
{
	const gid_t some[] = { 0, 1, 2 };
	must(setgroups(3, some) == 0);
	must(drop("0", "0", NULL) == 0);
	are(0, 0);
}

static void nothing(void)
{
	gid_t before[64], after[64];
	int n = getgroups(64, before);
	must(drop(NULL, NULL, NULL) == 0);
	must(getuid() == 0 && getgid() == 0);
	must(getgroups(64, after) == n);
}

#ifdef SS_LINUX
static void no_more(void)
{
	char text[4096] = "";
	const struct ss_privileges p = { .no_new_privs = true };
	must(ss_drop_privileges(&p, NULL) == 0);
	int fd = open("/proc/self/status", O_RDONLY);
	must(read(fd, text, sizeof(text) - 1) > 0);
	must(strstr(text, "NoNewPrivs:\t1") != NULL);
	sys_exit(0);
}
#endif

static const char *new_root; /* the test's scratch() */

static void other_root(void)
{
	const struct ss_privileges p = { .user = "12345",
					 .group = "12345",
					 .chroot = new_root };
	char cwd[256];
	must(access("/proc/self", F_OK) == 0);
	must(ss_drop_privileges(&p, NULL) == 0);
	must(getcwd(cwd, sizeof(cwd)) && strcmp(cwd, "/") == 0);
	must(access("/proc", F_OK) == -1);
	are(OTHER, OTHER);
}

static void (*const ways[])(void) = {
	by_name, by_number, group_alone, root_again, nothing, other_root,
#ifdef SS_LINUX
	no_more,
#endif
};

START_TEST(privileges_are_dropped)
{
	if (not_root())
		return;
	new_root = scratch();
	in_child(ways[_i]);
}
END_TEST

/* ---- in which order -------------------------------------------------------*/

/* A kernel's rules, for who is not root, too. */
static struct {
	uid_t uid;
	gid_t gid;
	bool grouped, rooted, entered, sealed;
	const char *fails; /* that call */
} kernel;

static int may(const char *call, bool allowed)
{
	bool fails = kernel.fails && strcmp(kernel.fails, call) == 0;
	errno = fails ? EAGAIN : EPERM;
	return allowed && !fails ? 0 : -1;
}

static uid_t its_uid(void)
{
	return kernel.uid;
}

static gid_t its_gid(void)
{
	return kernel.gid;
}

static int its_setgroups(size_t n, const gid_t *groups)
{
	if (may("setgroups", kernel.uid == 0 && !kernel.sealed) == -1)
		return -1;
	kernel.grouped = n == 1 && groups[0] == OTHER;
	return 0;
}

static int its_setgid(gid_t gid)
{
	bool same = gid == kernel.gid;
	if (may("setgid", same || kernel.uid == 0) == -1)
		return -1;
	kernel.gid = gid;
	return 0;
}

static int its_setuid(uid_t uid)
{
	bool same = uid == kernel.uid;
	if (may("setuid", same || kernel.uid == 0) == -1)
		return -1;
	if (!kernel.fails || strcmp(kernel.fails, "in pretence") != 0)
		kernel.uid = uid;
	return 0;
}

static int its_chroot(const char *path)
{
	kernel.rooted = strcmp(path, "/somewhere") == 0;
	return may("/somewhere", kernel.uid == 0);
}

static int its_chdir(const char *path)
{
	kernel.entered = kernel.rooted && strcmp(path, "/") == 0;
	return may("chdir", true);
}

static int its_no_new_privs(void)
{
	kernel.sealed = true;
	return may("no_new_privs", true);
}

static void *no_malloc(size_t n)
{
	(void)n;
	errno = ENOMEM;
	return NULL;
}

static int drop_in(const char *fails, uid_t uid, gid_t gid,
		   const struct ss_privileges *p, struct ss_diag *why)
{
	const struct sys_table real = sys_table;
	memset(&kernel, 0, sizeof(kernel));
	kernel.fails = fails;
	kernel.uid = uid;
	kernel.gid = gid;
	sys_table.getuid = sys_table.geteuid = its_uid;
	sys_table.getgid = sys_table.getegid = its_gid;
	sys_table.setgroups = its_setgroups;
	sys_table.setgid = its_setgid;
	sys_table.setuid = its_setuid;
	sys_table.chroot = its_chroot;
	sys_table.chdir = its_chdir;
	sys_table.no_new_privs = its_no_new_privs;
	int r = ss_drop_privileges(p, why);
	sys_table = real;
	return r;
}

static const struct ss_privileges all_of_them = { .user = "12345",
						  .group = "12345",
						  .chroot = "/somewhere",
						  .no_new_privs = true };

START_TEST(privileges_are_dropped_in_order)
{
	struct ss_diag why;
	ck_assert_int_eq(drop_in(NULL, 0, 0, &all_of_them, &why), 0);
	ck_assert_str_eq(why.text, "");
	ck_assert_int_eq((int)kernel.uid, OTHER);
	ck_assert_int_eq((int)kernel.gid, OTHER);
	ck_assert(kernel.grouped && kernel.entered && kernel.sealed);
	/* A user who is known brings his group. */
	const struct ss_privileges known = { .user = "nobody" };
	const struct passwd *nobody = getpwnam("nobody");
	if (!nobody)
		return;
	uid_t uid = nobody->pw_uid;
	gid_t gid = nobody->pw_gid;
	ck_assert_int_eq(drop_in(NULL, 0, 0, &known, &why), 0);
	ck_assert_int_eq((int)kernel.uid, (int)uid);
	ck_assert_int_eq((int)kernel.gid, (int)gid);
}
END_TEST

/* Whichever step fails: it is named, and none comes after it. */
START_TEST(privileges_that_cannot_be_dropped_are_named)
{
	static const struct {
		const char *call, *named;
	} steps[] = {
		{ "/somewhere", "/somewhere" }, { "chdir", "/somewhere" },
		{ "setgroups", "setgroups" },	{ "setgid", "setgid" },
		{ "setuid", "setuid" },
	};
	char text[100];
	struct ss_diag why;
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		ck_assert_int_eq(
			drop_in(steps[i].call, 0, 0, &all_of_them, &why),
			-EAGAIN);
		snprintf(text, sizeof(text), "%s: %s", steps[i].named,
			 strerror(EAGAIN));
		ck_assert_str_eq(why.text, text);
		ck_assert_int_eq((int)kernel.uid, 0);
		ck_assert(!kernel.sealed);
	}
	ck_assert_int_eq(drop_in("no_new_privs", 0, 0, &all_of_them, &why),
			 -EAGAIN);
	ck_assert_str_eq(why.text, "no_new_privs: Resource temporarily "
				   "unavailable");
	sys_table.malloc = no_malloc;
	ck_assert_int_eq(ss_check_privileges(&all_of_them, &why), -ENOMEM);
	sys_table.malloc = malloc;
	ck_assert_str_eq(why.text, "privileges: Cannot allocate memory");
	/* A success that is none. */
	ck_assert_int_eq(drop_in("in pretence", 0, 0, &all_of_them, &why),
			 -EPERM);
	ck_assert_str_eq(why.text, "privileges: they could not be dropped");
	/* Who is that user already needs none of it. */
	struct ss_privileges p = all_of_them;
	p.chroot = NULL;
	ck_assert_int_eq(drop_in("setgroups", OTHER, OTHER, &p, &why), 0);
	ck_assert(kernel.sealed);
	ck_assert_int_eq(drop_in(NULL, OTHER, 1, &p, &why), -EPERM);
	ck_assert_int_eq(drop_in(NULL, 1, OTHER, &p, &why), -EPERM);
}
END_TEST

/* ---- what goes wrong ------------------------------------------------------*/

static int fails_gid(gid_t gid)
{
	(void)gid;
	errno = EAGAIN;
	return -1;
}

static int fails_uid(uid_t uid)
{
	(void)uid;
	errno = EAGAIN;
	return -1;
}

static int fails_groups(size_t n, const gid_t *groups)
{
	(void)n, (void)groups;
	errno = EAGAIN;
	return -1;
}

static int pretends_gid(gid_t gid)
{
	(void)gid;
	return 0;
}

static int pretends_uid(uid_t uid)
{
	(void)uid;
	return 0;
}

static void expect(int code, const char *text)
{
	struct ss_diag why;
	int r = drop("12345", "12345", &why);
	if (r != code || strcmp(why.text, text) != 0) {
		dprintf(2, "%d, \"%s\"\n", r, why.text);
		_exit(1);
	}
}

static void without_groups(void)
{
	sys_table.setgroups = fails_groups;
	expect(-EAGAIN, "setgroups: Resource temporarily unavailable");
}

static void without_gid(void)
{
	sys_table.setgid = fails_gid;
	expect(-EAGAIN, "setgid: Resource temporarily unavailable");
}

static void without_uid(void)
{
	sys_table.setuid = fails_uid;
	expect(-EAGAIN, "setuid: Resource temporarily unavailable");
}

/* A success that is none. */
static void in_pretence(void)
{
	sys_table.setuid = pretends_uid;
	expect(-EPERM, "privileges: they could not be dropped");
}

static void in_pretence_of_a_group(void)
{
	sys_table.setgid = pretends_gid;
	expect(-EPERM, "privileges: they could not be dropped");
}

/* The saved user is still there: it is gone back to. */
static int lets_back(uid_t uid)
{
	return setresuid(uid, uid, (uid_t)-1);
}

static void with_a_way_back(void)
{
	sys_table.setuid = lets_back;
	expect(-EPERM, "privileges: they could not be dropped");
}

static int fails_no_new_privs(void)
{
	errno = EINVAL;
	return -1;
}

static void without_no_new_privs(void)
{
	const struct ss_privileges p = { .no_new_privs = true };
	struct ss_diag why;
	sys_table.no_new_privs = fails_no_new_privs;
	must(ss_drop_privileges(&p, &why) == -EINVAL);
	must(strcmp(why.text, "no_new_privs: Invalid argument") == 0);
}

static void (*const failures[])(void) = {
	without_groups,
	without_gid,
	without_uid,
	in_pretence,
	in_pretence_of_a_group,
	with_a_way_back,
	without_no_new_privs,
};

START_TEST(privileges_that_stay_are_told)
{
	if (not_root())
		return;
	in_child(failures[_i]);
}
END_TEST

static void unprivileged(void)
{
	const struct ss_privileges p = { .chroot = "/" };
	struct ss_diag why;
	must(setuid(OTHER) == 0);
	must(drop("12346", "12345", &why) == -EPERM);
	must(strstr(why.text, "setgroups: ") == why.text);
	must(ss_drop_privileges(&p, &why) == -EPERM);
	must(strcmp(why.text, "/: Operation not permitted") == 0);
}

START_TEST(privileges_are_root_s_to_drop)
{
	if (not_root())
		return;
	in_child(unprivileged);
}
END_TEST

static const struct {
	const char *user, *group;
	int code;
	const char *text;
} unknown[] = {
	{ "no-such-user", NULL, -ENOENT, "no-such-user: no such user" },
	{ NULL, "no-such-group", -ENOENT, "no-such-group: no such group" },
	{ "12345", NULL, -EINVAL, "12345: this user has no group: name one" },
	{ "", NULL, -ENOENT, "\"\": no such user" },
	{ "4294967295", NULL, -ENOENT, "4294967295: no such user" },
};

START_TEST(privileges_of_unknown_users)
{
	const struct ss_privileges p = { .user = unknown[_i].user,
					 .group = unknown[_i].group };
	struct ss_diag checked, dropped;
	ck_assert_int_eq(ss_check_privileges(&p, &checked), unknown[_i].code);
	ck_assert_int_eq(ss_drop_privileges(&p, &dropped), unknown[_i].code);
	ck_assert_str_eq(checked.text, unknown[_i].text);
	ck_assert_str_eq(dropped.text, unknown[_i].text);
	ck_assert_int_eq(checked.code, unknown[_i].code);
	ck_assert_int_eq(dropped.code, unknown[_i].code);
}
END_TEST

/* Whether there is such a user cannot be known. */
START_TEST(privileges_of_users_that_cannot_be_looked_up)
{
	struct rlimit before, none = { 0 };
	const struct ss_privileges p = { .user = "no-such-user" };
	struct ss_diag why;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	none.rlim_max = before.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	int r = ss_check_privileges(&p, &why);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_int_eq(r, -EMFILE);
	ck_assert_str_eq(why.text, "no-such-user: Too many open files");
}
END_TEST

START_TEST(privileges_are_checked_and_nothing_is_changed)
{
	const struct ss_privileges good = { .user = "12345",
					    .group = "12345",
					    .chroot = "/",
					    .no_new_privs = true };
	const struct ss_privileges bad = { .chroot = "/dev/null" };
	struct ss_diag why;
	uid_t uid = getuid();
	gid_t gid = getgid();
	int descriptors = open_descriptors();
	ck_assert_int_eq(ss_check_privileges(&good, &why), 0);
	ck_assert_str_eq(why.text, "");
	ck_assert_int_eq(ss_check_privileges(&bad, &why), -ENOTDIR);
	ck_assert_str_eq(why.text, "/dev/null: Not a directory");
	/* To an older program that is no member. */
	ck_assert_int_eq(
		ss_check_privileges_sized(
			&bad, offsetof(struct ss_privileges, chroot), &why),
		0);
	ck_assert_int_eq((int)getuid(), (int)uid);
	ck_assert_int_eq((int)getgid(), (int)gid);
	ck_assert_int_eq(open_descriptors(), descriptors);
}
END_TEST

static char told[256];

static void note(void *arg, int level, struct ss_server *server, uint64_t id,
		 const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	snprintf(told, sizeof(told), "%s", text);
}

static int unserved(struct ss_request *req)
{
	(void)req;
	return 0;
}

static int too_soon(void *arg)
{
	*(bool *)arg = true;
	return -ECANCELED;
}

START_TEST(privileges_are_needed_to_run)
{
	bool ready = false;
	const struct ss_privileges p = { .user = "no-such-user" };
	const struct ss_run_options options = { .arg = &ready,
						.ready = too_soon,
						.privileges = &p };
	static const struct ss_handler handler = { .handle = unserved };
	struct ss_config config =
		config_of(&models[0], &transports[0], &handler);
	config.log = note;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_run(&server, 1, &options), 1);
	ck_assert_str_eq(told, "no-such-user: no such user");
	ck_assert(!ready);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- the echo server ------------------------------------------------------*/

static uid_t uid_of(pid_t pid)
{
	char path[64], text[4096] = "";
	unsigned uid = 0;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
	close(fd);
	ck_assert_int_eq(sscanf(strstr(text, "\nUid:"), " Uid: %u", &uid), 1);
	return (uid_t)uid;
}

/* Under every model; in an empty directory, where it finds nothing more. */
START_TEST(privileges_are_dropped_by_the_echo_server)
{
	char url[SS_ADDRESS_TEXT];
	struct program server = { 0 };
	if (not_root())
		return;
#ifdef SS_COVERAGE
	printf("skipped: below chroot(2) coverage cannot be written\n");
	return;
#endif
	/* Nobody may look into it then, its own leak checker neither. */
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
	program_start(&server,
		      ARGV(demo("echo_server"), "-m", models[_i].name, "--user",
			   "12345", "--group", "12345", "--chroot", scratch(),
			   NO_NEW_PRIVS, "tcp://127.0.0.1:0"));
	const char *line = program_line(&server);
	ck_assert_int_eq(sscanf(line, "listening on %400s (", url), 1);
	ck_assert_int_eq((int)uid_of(server.pid), OTHER);
	for (int i = 0; i < 3; i++)
		echo_once(url, "hello\n");
	program_stop(&server, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
}
END_TEST

/* Before it listens. */
START_TEST(privileges_are_options_to_be_checked)
{
	static const char *const wrong[][3] = {
		{ "--user", "no-such-user", "no such user" },
		{ "--group", "no-such-group", "no such group" },
		{ "--chroot", "/no/such/place", "No such file or directory" },
	};
	char expected[100];
	snprintf(expected, sizeof(expected), "echo_server: %s: %s\n",
		 wrong[_i][1], wrong[_i][2]);
	program_run(&got, "",
		    ARGV(demo("echo_server"), wrong[_i][0], wrong[_i][1],
			 "tcp://127.0.0.1:0"));
	ck_assert_str_eq(got.out, "");
	ck_assert_str_eq(got.err, expected);
	ck_assert_int_eq(got.status, 2);
}
END_TEST

Suite *t_privileges(void)
{
	const int most = (int)(sizeof(ways) / sizeof(*ways));
	const int wrong = (int)(sizeof(failures) / sizeof(*failures));
	const int names = (int)(sizeof(unknown) / sizeof(*unknown));
	Suite *suite = suite_create("t_privileges");
	TCase *tcase = suite_case(suite, "dropping", NULL, NULL);
	tcase_add_loop_test(tcase, privileges_are_dropped, 0, most);
	tcase_add_test(tcase, privileges_are_dropped_in_order);
	tcase_add_test(tcase, privileges_that_cannot_be_dropped_are_named);
	tcase_add_loop_test(tcase, privileges_that_stay_are_told, 0, wrong);
	tcase_add_test(tcase, privileges_are_root_s_to_drop);
	tcase_add_loop_test(tcase, privileges_of_unknown_users, 0, names);
	tcase_add_test(tcase, privileges_of_users_that_cannot_be_looked_up);
	tcase_add_test(tcase, privileges_are_checked_and_nothing_is_changed);
	tcase_add_test(tcase, privileges_are_needed_to_run);
	tcase = suite_case(suite, "echo server", NULL, NULL);
	tcase_add_loop_test(tcase, privileges_are_dropped_by_the_echo_server, 0,
			    plain_count);
	tcase_add_loop_test(tcase, privileges_are_options_to_be_checked, 0, 3);
	return suite;
}
