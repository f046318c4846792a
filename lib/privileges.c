/*
 * To be somebody else than root, for good: once the listeners are bound.
 *
 * In the order in which one step does not forbid the next, each looked at
 * afterwards: a process that goes on as root unawares is what this is against.
 */
#include "internal.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>

enum { ENTRY = 1 << 16 };

struct identity {
	uid_t uid;
	gid_t gid;
	bool has_uid, has_gid;
};

static int failed(struct ss_diag *why, const char *what, int code)
{
	return address_refuse(why, what, code, "%s", strerror(-code));
}

static bool is_number(const char *text, unsigned long *number)
{
	if (!*text || strspn(text, "0123456789") != strlen(text))
		return false;
	errno = 0;
	*number = strtoul(text, NULL, 10);
	return !errno && *number < (uid_t)-1;
}

/* ---- names ----------------------------------------------------------------*/

static int no_such(struct ss_diag *why, const char *name, int error,
		   const char *what)
{
	if (!error)
		return address_refuse(why, name, -ENOENT, "no such %s", what);
	return failed(why, name, -error);
}

/* A user's group goes with it, unless another one is asked for. */
static int find_user(const char *name, char *room, struct identity *id,
		     struct ss_diag *why)
{
	struct passwd entry, *found = NULL;
	unsigned long number;
	bool numeric = is_number(name, &number);
	int error =
		numeric ? getpwuid_r((uid_t)number, &entry, room, ENTRY, &found)
			: getpwnam_r(name, &entry, room, ENTRY, &found);
	if (!found && !numeric)
		return no_such(why, name, error, "user");
	id->has_uid = true;
	id->uid = found ? found->pw_uid : (uid_t)number;
	if (found) {
		id->has_gid = true;
		id->gid = found->pw_gid;
	}
	return 0;
}

static int find_group(const char *name, char *room, struct identity *id,
		      struct ss_diag *why)
{
	struct group entry, *found = NULL;
	unsigned long number;
	bool numeric = is_number(name, &number);
	int error = numeric ? 0 : getgrnam_r(name, &entry, room, ENTRY, &found);
	if (!found && !numeric)
		return no_such(why, name, error, "group");
	id->has_gid = true;
	id->gid = found ? found->gr_gid : (gid_t)number;
	return 0;
}

static int identify(const struct ss_privileges *p, struct identity *id,
		    struct ss_diag *why)
{
	char *room = sys_malloc(ENTRY);
	if (!room)
		return failed(why, "privileges", -ENOMEM);
	int r = p->user ? find_user(p->user, room, id, why) : 0;
	if (r >= 0 && p->group)
		r = find_group(p->group, room, id, why);
	sys_free(room);
	if (r >= 0 && id->has_uid && !id->has_gid)
		r = address_refuse(why, p->user, -EINVAL,
				   "this user has no group: name one");
	return r;
}

/* ---- becoming it ----------------------------------------------------------*/

static int enter_root(const char *directory, struct ss_diag *why)
{
	if (sys_chroot(directory) == -1 || sys_chdir("/") == -1)
		return failed(why, directory, -errno);
	return 0;
}

static bool is_already(const struct identity *id)
{
	return sys_geteuid() != 0 &&
	       (!id->has_uid ||
		(sys_getuid() == id->uid && sys_geteuid() == id->uid)) &&
	       (!id->has_gid ||
		(sys_getgid() == id->gid && sys_getegid() == id->gid));
}

/* Root's own groups do not stay either. */
static int become(const struct identity *id, struct ss_diag *why)
{
	if (is_already(id))
		return 0;
	if (id->has_gid && sys_setgroups(1, &id->gid) == -1)
		return failed(why, "setgroups", -errno);
	if (id->has_gid && sys_setgid(id->gid) == -1)
		return failed(why, "setgid", -errno);
	if (id->has_uid && sys_setuid(id->uid) == -1)
		return failed(why, "setuid", -errno);
	return 0;
}

/* Nor is there a way back. */
static int check(const struct identity *id, struct ss_diag *why)
{
	bool wrong = false;
	if (id->has_gid)
		wrong |= sys_getgid() != id->gid || sys_getegid() != id->gid;
	if (id->has_uid)
		wrong |= sys_getuid() != id->uid || sys_geteuid() != id->uid;
	if (id->has_uid && id->uid != 0)
		wrong |= sys_setuid(0) == 0 || sys_geteuid() == 0 ||
			 (id->gid != 0 && sys_setgid(0) == 0);
	return wrong ? address_refuse(why, "privileges", -EPERM,
				      "they could not be dropped")
		     : 0;
}

/* Names are looked up before anything changes. */
static int begin(const struct ss_privileges *given, size_t size,
		 struct ss_privileges *p, struct identity *id,
		 struct ss_diag *why)
{
	memset(p, 0, sizeof(*p));
	memset(id, 0, sizeof(*id));
	memcpy(p, given, size < sizeof(*p) ? size : sizeof(*p));
	if (why)
		memset(why, 0, sizeof(*why));
	return identify(p, id, why);
}

int ss_check_privileges_sized(const struct ss_privileges *given, size_t size,
			      struct ss_diag *why)
{
	struct ss_privileges p;
	struct identity id;
	int r = begin(given, size, &p, &id, why);
	if (r < 0 || !p.chroot)
		return r;
	int fd = sys_open(p.chroot, O_RDONLY | O_DIRECTORY, 0);
	if (fd == -1)
		return failed(why, p.chroot, -errno);
	sys_close(fd);
	return 0;
}

int ss_drop_privileges_sized(const struct ss_privileges *given, size_t size,
			     struct ss_diag *why)
{
	struct ss_privileges p;
	struct identity id;
	int r = begin(given, size, &p, &id, why);
	if (r >= 0 && p.chroot)
		r = enter_root(p.chroot, why);
	if (r >= 0)
		r = become(&id, why);
	if (r >= 0)
		r = check(&id, why);
	if (r >= 0 && p.no_new_privs && sys_no_new_privs() == -1)
		r = failed(why, "no_new_privs", -errno);
	return r;
}
