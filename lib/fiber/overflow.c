/* The handler: what it calls is async-signal-safe. */
#include "overflow.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "../sys.h"
#include "loop.h"

enum { STACK = 64 << 10, LINE = 256 };

/* A disposition is the process's, so that this is too. */
static struct {
	pthread_mutex_t lock;
	int watchers;
	struct sigaction before;
	bool mute;	     /* standard error is nobody's, or a client's */
	ino_t stderr_socket; /* or 0 */
} overflow = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Whose fibers run on this thread.  The handler reads it on any thread, and
 * must not be the first to, as other models of thread-local storage allocate
 * then. */
static _Thread_local
	__attribute__((tls_model("initial-exec"))) struct fiber_loop *armed;

/* ---- the line -------------------------------------------------------------*/

struct line {
	size_t n;
	char text[LINE];
};

/* Of a name so much that all the rest fits, too. */
static void add(struct line *line, const char *text)
{
	size_t n = strnlen(text, sizeof(line->text) / 2);
	assert(n <= sizeof(line->text) - line->n);
	memcpy(line->text + line->n, text, n);
	line->n += n;
}

static void add_number(struct line *line, uint64_t number, unsigned base)
{
	char digits[24];
	char *at = digits + sizeof(digits) - 1;
	*at = '\0';
	do
		*--at = "0123456789abcdef"[number % base];
	while (number /= base);
	add(line, at);
}

static void compose(struct line *line, const struct fiber *fiber)
{
	const struct ss_handler *handler = ss_request_handler(fiber->req);
	add(line, "socketserver: error: #");
	add_number(line, ss_request_id(fiber->req), 10);
	add(line, " handler ");
	if (handler->name) {
		add(line, handler->name);
	} else {
		add(line, "0x");
		add_number(line, (uintptr_t)handler->handle, 16);
	}
	add(line, " overflowed its stack: raise fiber.stack_size, which is ");
	add_number(line, stacks_size(fiber->loop->stacks), 10);
	add(line, "\n");
}

/* Neither blocks nor kills, and never reaches a client (see log.c). */
static void tell(const struct line *line)
{
	struct pollfd err = { .fd = STDERR_FILENO, .events = POLLOUT };
	struct stat st;
	if (overflow.mute || sys_fstat(STDERR_FILENO, &st) == -1 ||
	    (S_ISSOCK(st.st_mode) && st.st_ino != overflow.stderr_socket) ||
	    sys_poll(&err, 1, 0) != 1 || !(err.revents & POLLOUT))
		return;
	struct sys_sigpipe saved;
	sys_sigpipe_block(&saved);
	(void)!sys_write(STDERR_FILENO, line->text, line->n);
	sys_sigpipe_restore(&saved);
}

/* ---- the signal -----------------------------------------------------------*/

/* Not by kill(2) and the like. */
static bool by_a_fault(const siginfo_t *info)
{
	return info->si_code > 0;
}

/* The loop's own doings are not on a fiber's stack, so that what they change
 * can be read here. */
static const struct fiber *overflowed(const siginfo_t *info)
{
	const struct fiber *fiber = armed ? armed->current : NULL;
	void *base;
	if (!fiber || !by_a_fault(info) ||
	    !stacks_guard_hit(armed->stacks, info->si_addr, &base))
		return NULL;
	return base == fiber->base ? fiber : NULL;
}

/* A fault strikes again once the handler returns, a signal that was sent is
 * sent again. */
static void give_back(int signal, const siginfo_t *info)
{
	sys_sigaction(signal, &overflow.before, NULL);
	if (!by_a_fault(info))
		sys_kill(sys_getpid(), signal);
}

static void pass_on(int signal, siginfo_t *info, void *context)
{
	const struct sigaction *before = &overflow.before;
	if (before->sa_handler == SIG_IGN && !by_a_fault(info))
		return;
	if (before->sa_handler == SIG_DFL || before->sa_handler == SIG_IGN)
		give_back(signal, info);
	else if (before->sa_flags & SA_SIGINFO)
		before->sa_sigaction(signal, info, context);
	else
		before->sa_handler(signal);
}

static void faulted(int signal, siginfo_t *info, void *context)
{
	int error = errno;
	const struct fiber *fiber = overflowed(info);
	if (fiber) {
		struct line line = { .n = 0 };
		compose(&line, fiber);
		tell(&line);
		give_back(signal, info);
	} else {
		pass_on(signal, info, context);
	}
	errno = error;
}

static bool is_ours(const struct sigaction *action)
{
	return (action->sa_flags & SA_SIGINFO) &&
	       action->sa_sigaction == faulted;
}

static void look_at_stderr(void)
{
	struct stat st;
	overflow.mute = sys_fstat(STDERR_FILENO, &st) == -1;
	overflow.stderr_socket =
		!overflow.mute && S_ISSOCK(st.st_mode) ? st.st_ino : 0;
}

/* What was there before is known before the handler can run. */
static int install(void)
{
	const int kept = SA_NODEFER | SA_RESTART;
	struct sigaction now;
	if (sys_sigaction(SIGSEGV, NULL, &now) == -1)
		return -errno;
	/* Who had set another one over it may have brought it back. */
	if (is_ours(&now))
		return 0;
	look_at_stderr();
	overflow.before = now;
	struct sigaction action = {
		.sa_sigaction = faulted,
		.sa_mask = now.sa_mask,
		.sa_flags = SA_SIGINFO | SA_ONSTACK | (now.sa_flags & kept),
	};
	return sys_sigaction(SIGSEGV, &action, NULL) == -1 ? -errno : 0;
}

int overflow_watch(void)
{
	pthread_mutex_lock(&overflow.lock);
	int r = overflow.watchers ? 0 : install();
	if (r == 0)
		overflow.watchers++;
	pthread_mutex_unlock(&overflow.lock);
	return r;
}

/* Unless the program has set another one meanwhile. */
void overflow_unwatch(void)
{
	struct sigaction now;
	pthread_mutex_lock(&overflow.lock);
	if (--overflow.watchers == 0 &&
	    sys_sigaction(SIGSEGV, NULL, &now) != -1 && is_ours(&now))
		sys_sigaction(SIGSEGV, &overflow.before, NULL);
	pthread_mutex_unlock(&overflow.lock);
}

/* ---- threads --------------------------------------------------------------*/

int overflow_stack_new(stack_t *stack)
{
	void *memory = sys_mmap(NULL, STACK, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	*stack = (stack_t){ .ss_sp = memory, .ss_size = STACK };
	return 0;
}

void overflow_stack_free(stack_t *stack)
{
	if (stack->ss_sp)
		sys_munmap(stack->ss_sp, stack->ss_size);
	stack->ss_sp = NULL;
}

static bool change_mask(int how)
{
	sigset_t segv, old;
	sigemptyset(&segv);
	sigaddset(&segv, SIGSEGV);
	sys_pthread_sigmask(how, &segv, &old);
	return sigismember(&old, SIGSEGV) == 1;
}

/* A fault whose signal is blocked kills at once (Linux). */
void overflow_arm(struct fiber_loop *loop, struct overflow_saved *saved)
{
	stack_t stack;
	saved->loop = armed;
	saved->own_stack = sys_sigaltstack(NULL, &stack) != -1 &&
			   !(stack.ss_flags & SS_DISABLE);
	if (!saved->own_stack)
		sys_sigaltstack(&loop->alternate, NULL);
	armed = loop;
	saved->blocked = change_mask(SIG_UNBLOCK);
}

void overflow_disarm(const struct overflow_saved *saved)
{
	static const stack_t none = { .ss_flags = SS_DISABLE };
	if (saved->blocked)
		change_mask(SIG_BLOCK);
	armed = saved->loop;
	if (!saved->own_stack)
		sys_sigaltstack(&none, NULL);
}
