/*
 * What fibers stand on: the switch from one stack to another, and the stacks.
 */
#include "program.h"

#include <setjmp.h>
#include <sys/wait.h>
#include <unwind.h>

#include "fiber/context.h"
#include "fiber/stacks.h"

enum {
	STACK = 64 << 10,
#if defined(TOOLS_TSAN)
	MANY = 1000, /* it has 8128 threads at most, fibers included */
	TIMES = 100000,
#elif defined(TOOLS_ASAN) || !defined(CONTEXT_ASSEMBLY)
	MANY = 10000,
	TIMES = 100000,
#else
	MANY = 10000,
	TIMES = 1000000,
#endif
	GUARD_INSTALL = 102,
};

static struct sys_table real;
static struct stacks *stacks;
static struct context thread;

static void made_stacks(void)
{
	ck_assert_int_eq(stacks_new(&stacks, STACK), 0);
}

static void set_up(void)
{
	real = sys_table;
	thread = (struct context){ .sp = NULL };
	made_stacks();
}

static void tear_down(void)
{
	stacks_free(stacks);
	sys_table = real;
}

static void *taken(void)
{
	void *base = stacks_take(stacks);
	if (!base)
		ck_abort_msg("no stack");
	return base;
}

static bool under_valgrind(void)
{
#ifdef TOOLS_VALGRIND
	return RUNNING_ON_VALGRIND;
#else
	return false;
#endif
}

static int many(void)
{
	return under_valgrind() ? 500 : MANY;
}

static int times(void)
{
	return under_valgrind() ? 10000 : TIMES;
}

/* ---- the switch -----------------------------------------------------------*/

struct fiber {
	struct context context;
	void *base;
	uint64_t seed, turns;
	bool ended;
};

static void begin(struct fiber *fiber, void (*entry)(void *arg))
{
	*fiber = (struct fiber){ .base = taken(), .seed = 1 };
	context_init(&fiber->context, fiber->base, stacks_size(stacks), entry,
		     fiber);
}

static void resume(struct fiber *fiber)
{
	context_switch(&thread, &fiber->context);
}

static void end(struct fiber *fiber)
{
	fiber->ended = true;
	context_exit(&fiber->context, &thread);
}

/* In registers before and after a switch, more of them than it could keep. */
#define HELD(a, b, c, d, e)                                                    \
	__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e))

/* (Each assertion of check is a write to a file: one for all.) */
#define SWITCHING(from, to, first)                                             \
	uintptr_t a = (first), b = a + 1, c = a + 2, d = a + 3, e = a + 4;     \
	uintptr_t f = a + 5, g = a + 6, h = a + 7, i = a + 8, j = a + 9;       \
	bool kept = true;                                                      \
	for (int n = times(); n-- && kept;) {                                  \
		HELD(a, b, c, d, e);                                           \
		HELD(f, g, h, i, j);                                           \
		context_switch(from, to);                                      \
		HELD(a, b, c, d, e);                                           \
		HELD(f, g, h, i, j);                                           \
		kept = a == (first) && b == a + 1 && c == a + 2 &&             \
		       d == a + 3 && e == a + 4 && f == a + 5 && g == a + 6 && \
		       h == a + 7 && i == a + 8 && j == a + 9;                 \
	}                                                                      \
	ck_assert(kept)

static void register_fiber(void *arg)
{
	struct fiber *fiber = arg;
	SWITCHING(&fiber->context, &thread, (uintptr_t)0xfedcba9876543210);
	end(fiber);
}

START_TEST(registers_survive)
{
	struct fiber fiber;
	begin(&fiber, register_fiber);
	SWITCHING(&thread, &fiber.context, (uintptr_t)0x0123456789abcdef);
	ck_assert(!fiber.ended);
	resume(&fiber);
	ck_assert(fiber.ended);
}
END_TEST

#ifdef __aarch64__
#define FLOAT "+w"
#elif defined(__SSE2__)
#define FLOAT "+x"
#else
#define FLOAT "+m"
#endif
#define HELD_FLOATS(a, b, c, d)                                                \
	__asm__ volatile("" : FLOAT(a), FLOAT(b), FLOAT(c), FLOAT(d))

#define FLOATING(from, to, first)                                              \
	double a = (first), b = a + 1, c = a + 2, d = a + 3;                   \
	double e = a + 4, f = a + 5, g = a + 6, h = a + 7, sum = 0;            \
	for (int n = 1000; n--;) {                                             \
		HELD_FLOATS(a, b, c, d);                                       \
		HELD_FLOATS(e, f, g, h);                                       \
		context_switch(from, to);                                      \
		HELD_FLOATS(a, b, c, d);                                       \
		HELD_FLOATS(e, f, g, h);                                       \
		sum += a + b + c + d + e + f + g + h;                          \
	}                                                                      \
	ck_assert_double_eq(sum, 1000 * (8 * (first) + 28))

static void float_fiber(void *arg)
{
	struct fiber *fiber = arg;
	FLOATING(&fiber->context, &thread, 0.25);
	/* The stack is aligned for what the compiler stores at once. */
	_Alignas(16) char aligned[16];
	char *at = aligned;
	__asm__ volatile("" : "+r"(at));
	ck_assert_uint_eq((uintptr_t)at % 16, 0);
	end(fiber);
}

START_TEST(floats_survive)
{
	struct fiber fiber;
	begin(&fiber, float_fiber);
	FLOATING(&thread, &fiber.context, 1024.5);
	resume(&fiber);
	ck_assert(fiber.ended);
}
END_TEST

static uint64_t next(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407U;
	return *seed >> 33;
}

/* Down to the last page; each frame finds what it left. */
static int descend(struct fiber *fiber, int depth)
{
	volatile uint64_t words[16];
	uint64_t seed = fiber->seed + (uint64_t)depth;
	uint64_t again = seed;
	for (int i = 0; i < 16; i++)
		words[i] = next(&seed);
	char *here = __builtin_frame_address(0);
	int deepest = depth;
	if (here - (char *)fiber->base > 4096)
		deepest = descend(fiber, depth + 1);
	else
		context_switch(&fiber->context, &thread);
	bool kept = true;
	for (int i = 0; i < 16; i++)
		kept &= words[i] == next(&again);
	ck_assert(kept);
	return deepest;
}

static void deep_fiber(void *arg)
{
	struct fiber *fiber = arg;
	fiber->turns = (uint64_t)descend(fiber, 0);
	end(fiber);
}

START_TEST(all_of_the_stack_is_usable)
{
	struct fiber fiber[2];
	for (int i = 0; i < 2; i++) {
		begin(&fiber[i], deep_fiber);
		fiber[i].seed = (uint64_t)i * 1000;
		resume(&fiber[i]);
	}
	for (int i = 0; i < 2; i++) {
		resume(&fiber[i]);
		ck_assert(fiber[i].ended);
		ck_assert_uint_gt(fiber[i].turns, 10);
	}
}
END_TEST

static void count_fiber(void *arg)
{
	struct fiber *fiber = arg;
	volatile char local[256];
	for (fiber->turns = 1; fiber->turns < 3; fiber->turns++) {
		memset((char *)local, (int)fiber->seed, sizeof local);
		context_switch(&fiber->context, &thread);
		bool kept = true;
		for (size_t i = 0; i < sizeof local; i++)
			kept &= local[i] == (char)fiber->seed;
		ck_assert(kept);
	}
	end(fiber);
}

START_TEST(many_at_once)
{
	int n = many();
	struct fiber *fibers = calloc((size_t)n, sizeof *fibers);
	for (int i = 0; i < n; i++) {
		begin(&fibers[i], count_fiber);
		fibers[i].seed = (uint64_t)i;
	}
	for (uint64_t turn = 1; turn <= 3; turn++)
		for (int i = 0; i < n; i++) {
			resume(&fibers[i]);
			if (fibers[i].turns != turn)
				ck_abort_msg("fiber %d did not run", i);
		}
	for (int i = 0; i < n; i++) {
		ck_assert(fibers[i].ended);
		stacks_give(stacks, fibers[i].base);
	}
	free(fibers);
}
END_TEST

/* Exits with all its frames in place; what they leave must not matter. */
static void leave_deep(struct fiber *fiber, int depth)
{
	volatile char local[200];
	memset((char *)local, depth, sizeof local);
	if (fiber->ended)
		return;
	if (depth)
		leave_deep(fiber, depth - 1);
	else
		end(fiber);
	local[0] = 0;
}

static void leaving_fiber(void *arg)
{
	leave_deep(arg, 20);
}

static void writing_fiber(void *arg)
{
	volatile char local[STACK / 2];
	memset((char *)local, 1, sizeof local);
	end(arg);
}

START_TEST(a_stack_is_as_new_after_each_use)
{
	void *first = NULL;
	for (int i = 0; i < (under_valgrind() ? 100 : 5000); i++) {
		struct fiber fiber;
		begin(&fiber, i % 2 ? writing_fiber : leaving_fiber);
		ck_assert(!first || fiber.base == first);
		first = fiber.base;
		resume(&fiber);
		ck_assert(fiber.ended);
		/* On the same stack without giving it back, too. */
		fiber.ended = false;
		context_init(&fiber.context, fiber.base, STACK - 1000,
			     writing_fiber, &fiber);
		resume(&fiber);
		ck_assert(fiber.ended);
		memset((char *)fiber.base + STACK / 2, 2, STACK / 2);
		stacks_give(stacks, fiber.base);
	}
}
END_TEST

static void parking_fiber(void *arg)
{
	struct fiber *fiber = arg;
	context_switch(&fiber->context, &thread);
	fiber->turns++;
	end(fiber);
}

START_TEST(begun_and_never_gone_back_to)
{
	struct fiber fiber;
	begin(&fiber, count_fiber);
	stacks_give(stacks, fiber.base);
	/* Parked with frames in place, then dropped: given back, */
	begin(&fiber, count_fiber);
	resume(&fiber);
	stacks_give(stacks, fiber.base);
	memset(fiber.base, 1, STACK);
	/* or at once used again. */
	begin(&fiber, count_fiber);
	resume(&fiber);
	context_init(&fiber.context, fiber.base, STACK, writing_fiber, &fiber);
	resume(&fiber);
	ck_assert(fiber.ended);
	stacks_give(stacks, fiber.base);
	begin(&fiber, parking_fiber);
	resume(&fiber);
	resume(&fiber);
	ck_assert_uint_eq(fiber.turns, 1);
}
END_TEST

/* A thread's: its own context, and a fiber that goes back to it. */
struct pair {
	struct context thread, fiber;
	int turns;
};

static void pair_fiber(void *arg)
{
	struct pair *pair = arg;
	while (++pair->turns < 10)
		context_switch(&pair->fiber, &pair->thread);
	context_exit(&pair->fiber, &pair->thread);
}

static void *own_loop(void *arg)
{
	enum { PAIRS = 100 };
	static _Thread_local struct pair pairs[PAIRS];
	struct stacks *own;
	int *turns = arg;
	if (stacks_new(&own, STACK) < 0)
		return NULL;
	for (int i = 0; i < PAIRS; i++) {
		void *base = stacks_take(own);
		if (!base)
			break;
		context_init(&pairs[i].fiber, base, STACK, pair_fiber,
			     &pairs[i]);
	}
	for (int turn = 0; turn < 10; turn++)
		for (int i = 0; i < PAIRS; i++, ++*turns)
			context_switch(&pairs[i].thread, &pairs[i].fiber);
	stacks_free(own);
	return pairs[PAIRS - 1].turns == 10 ? arg : NULL;
}

START_TEST(threads_have_their_own)
{
	pthread_t other[4];
	int turns[4] = { 0 };
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(
			pthread_create(&other[i], NULL, own_loop, &turns[i]),
			0);
	for (int i = 0; i < 4; i++) {
		void *done;
		ck_assert_int_eq(pthread_join(other[i], &done), 0);
		ck_assert_ptr_eq(done, &turns[i]);
		ck_assert_int_eq(turns[i], 1000);
	}
}
END_TEST

/* 32-bit ARM has unwind tables of its own, and none for C; musl-gcc brings an
 * unwinder along that glibc alone can do with. */
#if defined(__GLIBC__) && !defined(__ARM_EABI_UNWINDER__)
#define UNWINDS 1
static _Unwind_Reason_Code count_frame(struct _Unwind_Context *frame, void *arg)
{
	(void)frame;
	return ++*(int *)arg < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

static void unwinding_fiber(void *arg)
{
	struct fiber *fiber = arg;
	int frames = 0;
	_Unwind_Reason_Code code = _Unwind_Backtrace(count_frame, &frames);
	ck_assert_int_eq(code, _URC_END_OF_STACK);
	/* This one and context_start; begin() for sanitizers; start() and the
	 * C library's for ucontext. */
	ck_assert_int_ge(frames, 1);
	ck_assert_int_le(frames, 5);
	end(fiber);
}

START_TEST(unwinding_ends_at_the_entry)
{
	struct fiber fiber;
	begin(&fiber, unwinding_fiber);
	resume(&fiber);
	ck_assert(fiber.ended);
}
END_TEST
#endif

#ifdef TOOLS_ASAN
static void owning_fiber(void *arg)
{
	struct fiber *fiber = arg;
	char *volatile memory = malloc(100);
	context_switch(&fiber->context, &thread);
	free(memory);
	end(fiber);
}

START_TEST(what_a_parked_fiber_holds_is_no_leak)
{
	struct fiber fiber;
	begin(&fiber, owning_fiber);
	resume(&fiber);
	ck_assert_int_eq(__lsan_do_recoverable_leak_check(), 0);
	resume(&fiber);
}
END_TEST
#endif

/* ---- guard pages ----------------------------------------------------------*/

static sigjmp_buf faulted;
static void *volatile fault_stack;
static volatile sig_atomic_t overflowing;

static void on_fault(int signal, siginfo_t *info, void *more)
{
	void *base = NULL;
	(void)signal, (void)more;
	if (!stacks_guard_hit(stacks, info->si_addr, &base))
		_exit(41);
	if (overflowing)
		_exit(fault_stack == base ? 42 : 43);
	fault_stack = base;
	siglongjmp(faulted, 1);
}

static void catch_faults(void)
{
	static char alternate[64 << 10];
	stack_t stack = { .ss_sp = alternate, .ss_size = sizeof alternate };
	struct sigaction action = { .sa_sigaction = on_fault,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK };
	ck_assert_int_eq(sigaltstack(&stack, NULL), 0);
	ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
	ck_assert_int_eq(sigaction(SIGBUS, &action, NULL), 0);
}

__attribute__((no_sanitize("address"), no_sanitize("thread"))) static bool
faults(volatile char *address, const void *base)
{
	fault_stack = NULL;
	if (sigsetjmp(faulted, 1) == 0)
		*address = 1;
	return fault_stack == base;
}

static int refuse_guards(void *memory, size_t n, int advice)
{
	if (advice == GUARD_INSTALL) {
		errno = EINVAL;
		return -1;
	}
	return real.madvise(memory, n, advice);
}

static const struct guard {
	const char *name;
	int (*madvise)(void *memory, size_t n, int advice);
} guards[] = { { "installed", NULL }, { "protected", refuse_guards } };

static void use_guard(int i)
{
	if (guards[i].madvise)
		sys_table.madvise = guards[i].madvise;
}

START_TEST(each_guard_page_faults)
{
	enum { N = 300 };
	void *base[N], *of;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	use_guard(_i);
	catch_faults();
	for (int i = 0; i < N; i++)
		base[i] = taken();
	for (int i = 0; i < N; i += under_valgrind() ? 50 : 1) {
		char *stack = base[i];
		ck_assert(faults(stack - 1, stack));
		ck_assert(faults(stack - page, stack));
		ck_assert(faults(stack - page / 2, stack));
		ck_assert(!stacks_guard_hit(stacks, stack, &of));
		ck_assert(!stacks_guard_hit(stacks, stack + STACK - 1, &of));
		stack[0] = stack[STACK - 1] = 1;
	}
	ck_assert(!stacks_guard_hit(stacks, &page, &of));
	ck_assert(!stacks_guard_hit(stacks, NULL, &of));
	ck_assert(!stacks_guard_hit(stacks, (void *)UINTPTR_MAX, &of));
}
END_TEST

__attribute__((no_sanitize("address"), no_sanitize("thread"),
	       noinline)) static int
overflow(volatile int *above)
{
	volatile int here[64];
	here[0] = *above + 1;
	return here[0] ? overflow(here) + here[0] : 0;
}

static void overflow_fiber(void *arg)
{
	volatile int zero = 0;
	(void)arg;
	overflow(&zero);
}

START_TEST(an_overflow_is_told)
{
	use_guard(_i);
	pid_t pid = fork();
	if (pid == 0) {
		struct fiber fiber[2];
		catch_faults();
		begin(&fiber[0], parking_fiber);
		begin(&fiber[1], overflow_fiber);
		fault_stack = fiber[1].base;
		overflowing = 1;
		resume(&fiber[1]);
		_exit(40);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 42);
}
END_TEST

/* ---- stacks ---------------------------------------------------------------*/

START_TEST(sizes_are_whole_pages)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t sizes[][2] = {
		{ 0, page },	      { 1, page },
		{ page, page },	      { page + 1, 2 * page },
		{ 1 << 20, 1 << 20 }, { 64 << 20, 64 << 20 }
	};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		stacks_free(stacks);
		ck_assert_int_eq(stacks_new(&stacks, sizes[i][0]), 0);
		ck_assert_uint_eq(stacks_size(stacks), sizes[i][1]);
		char *one = taken(), *two = taken();
		one[0] = one[sizes[i][1] - 1] = 1;
		ck_assert_uint_ge((size_t)(one > two ? one - two : two - one),
				  sizes[i][1] + page);
	}
	stacks_free(stacks);
	ck_assert_int_eq(stacks_new(&stacks, SIZE_MAX), -ENOMEM);
	ck_assert_int_eq(stacks_new(&stacks, SIZE_MAX / 2), -ENOMEM);
	stacks_free(NULL);
	made_stacks();
}
END_TEST

START_TEST(the_last_given_is_taken_first)
{
	void *a = taken(), *b = taken(), *c = taken();
	stacks_give(stacks, a);
	stacks_give(stacks, c);
	stacks_give(stacks, b);
	ck_assert_ptr_eq(taken(), b);
	ck_assert_ptr_eq(taken(), c);
	stacks_give(stacks, b);
	ck_assert_ptr_eq(taken(), b);
	ck_assert_ptr_eq(taken(), a);
	void *d = taken();
	ck_assert(d != a && d != b && d != c);
}
END_TEST

/* Pages of these stacks that are in memory; none of what is unmapped. */
static size_t resident(void *const bases[], int n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = 0;
	unsigned char in[STACK / 4096];
	for (int i = 0; i < n; i++) {
		if (mincore(bases[i], STACK, in) == -1)
			continue;
		for (size_t k = 0; k < STACK / page; k++)
			pages += in[k] & 1;
	}
	return pages;
}

START_TEST(pages_go_back_after_a_storm)
{
	enum { N = 1000, KEPT = 256 };
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	static void *base[N];
	for (int i = 0; i < N; i++)
		base[i] = taken();
#ifndef TOOLS_TSAN /* which has a word in each */
	ck_assert_uint_eq(resident(base, N), 0);
#endif
	for (int i = 0; i < N; i++)
		memset(base[i], 1, STACK);
	ck_assert_uint_eq(resident(base, N), N * (STACK / page));
	for (int i = 0; i < N; i++)
		stacks_give(stacks, base[i]);
	ck_assert_uint_eq(resident(base, N), KEPT * (STACK / page));
	/* The last given are those that were kept. */
	ck_assert_uint_eq(resident(base + N - KEPT, KEPT),
			  KEPT * (STACK / page));
	for (int i = 0; i < N; i++)
		ck_assert_ptr_nonnull(memset(taken(), 1, STACK));
}
END_TEST

/* What the library has mapped, and how often it asked. */
static size_t mapped;
static int mappings, unmappings, advices;

static void *count_mmap(void *at, size_t n, int prot, int flags, int fd,
			off_t offset)
{
	void *memory = real.mmap(at, n, prot, flags, fd, offset);
	if (memory != MAP_FAILED)
		mapped += n;
	mappings++;
	return memory;
}

static int count_munmap(void *memory, size_t n)
{
	mapped -= n;
	unmappings++;
	return real.munmap(memory, n);
}

static int count_madvise(void *memory, size_t n, int advice)
{
	advices++;
	return real.madvise(memory, n, advice);
}

static void count_calls(void)
{
	sys_table.mmap = count_mmap;
	sys_table.munmap = count_munmap;
	sys_table.madvise = count_madvise;
}

START_TEST(slabs_go_back_after_a_storm)
{
	int n = many();
	void **base = calloc((size_t)n, sizeof *base);
	count_calls();
	for (int i = 0; i < n; i++)
		base[i] = taken();
	size_t most = mapped;
	int calls = mappings;
	ck_assert_uint_ge(most, (size_t)n * STACK);
	ck_assert_int_lt(mappings, 10);
	/* Around where it stands nothing moves. */
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 100; k++)
			stacks_give(stacks, base[k]);
		for (int k = 0; k < 100; k++)
			base[k] = taken();
	}
	ck_assert_int_eq(mappings, calls);
	ck_assert_int_eq(unmappings, 0);
	for (int i = 0; i < n; i++)
		stacks_give(stacks, base[i]);
	if (n >= 10000)
		ck_assert_uint_lt(mapped, most / 2);
	advices = calls = mappings = 0;
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 100; k++)
			base[k] = taken();
		for (int k = 0; k < 100; k++)
			stacks_give(stacks, base[k]);
	}
	ck_assert_int_eq(mappings, 0);
	ck_assert_int_eq(advices, 0);
	stacks_free(stacks);
	stacks = NULL;
	ck_assert_uint_eq(mapped, 0);
	free(base);
}
END_TEST

/* A slab that nobody uses is used again before it goes, and goes then, too. */
START_TEST(slabs_are_used_again)
{
	enum { ALL = 1000, SOME = 400 };
	static void *base[ALL];
	count_calls();
	for (int i = 0; i < ALL; i++)
		base[i] = taken();
	size_t most = mapped;
	int calls = mappings;
	for (int times = 0; times < 3; times++) {
		for (int i = 0; i < SOME; i++)
			stacks_give(stacks, base[i]);
		for (int i = 0; i < SOME; i++)
			memset(base[i] = taken(), 1, STACK);
	}
	ck_assert_int_eq(mappings, calls);
	ck_assert_int_eq(unmappings, 0);
	ck_assert_uint_eq(mapped, most);
	for (int i = 0; i < ALL; i++)
		stacks_give(stacks, base[i]);
	ck_assert_uint_lt(mapped, most);
	for (int i = 0; i < ALL; i++)
		memset(base[i] = taken(), 1, STACK);
	for (int i = 0; i < ALL; i++)
		stacks_give(stacks, base[i]);
	stacks_free(stacks);
	stacks = NULL;
	ck_assert_uint_eq(mapped, 0);
}
END_TEST

/* ---- out of memory --------------------------------------------------------*/

static int countdown; /* calls until one fails; < 0: none does */
static bool from_then_on;

static bool fails(void)
{
	if (countdown < 0)
		return false;
	if (countdown > 0)
		return --countdown == 0;
	return from_then_on;
}

static void *failing_mmap(void *at, size_t n, int prot, int flags, int fd,
			  off_t offset)
{
	if (!fails())
		return count_mmap(at, n, prot, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}

static int failing_madvise(void *memory, size_t n, int advice)
{
	if (!fails())
		return real.madvise(memory, n, advice);
	errno = ENOMEM;
	return -1;
}

static int failing_mprotect(void *memory, size_t n, int prot)
{
	if (!fails())
		return real.mprotect(memory, n, prot);
	errno = ENOMEM;
	return -1;
}

static void *failing_calloc(size_t n, size_t size)
{
	return fails() ? NULL : real.calloc(n, size);
}

static void *failing_realloc(void *memory, size_t n)
{
	return fails() ? NULL : real.realloc(memory, n);
}

/* A storm; how many stacks it got.  Each that it got must be good. */
static int storm(void)
{
	enum { N = 400 };
	static void *base[N];
	int got = 0;
	if (stacks_new(&stacks, STACK) < 0) {
		stacks = NULL;
		return -1;
	}
	for (int i = 0; i < N; i++)
		if ((base[got] = stacks_take(stacks)))
			memset(base[got++], 1, 100);
	for (int i = 0; i < got; i++)
		stacks_give(stacks, base[i]);
	stacks_free(stacks);
	stacks = NULL;
	return got;
}

START_TEST(any_failure_costs_a_stack_at_most)
{
	from_then_on = _i % 2;
	count_calls();
	use_guard(_i / 2);
	sys_table.mmap = failing_mmap;
	if (!guards[_i / 2].madvise)
		sys_table.madvise = failing_madvise;
	sys_table.mprotect = failing_mprotect;
	sys_table.calloc = failing_calloc;
	sys_table.realloc = failing_realloc;
	stacks_free(stacks);
	stacks = NULL;
	mapped = 0;
	int tries = 0;
	/* Those that fail at once take 20 steps to the next. */
	for (int n = 1;; n += n < 30 || n > 380 ? 1 : 20) {
		countdown = n;
		int got = storm();
		ck_assert_uint_eq(mapped, 0);
		ck_assert_int_le(got, 400);
		if (countdown > 0)
			break;
		if (!from_then_on && got >= 0)
			ck_assert_int_ge(got, 399);
		tries++;
	}
	ck_assert_int_gt(tries, 30);
	countdown = -1;
	ck_assert_int_eq(storm(), 400);
}
END_TEST

/* Where a large mapping is refused, a smaller one will do. */
static void *small_mmap(void *at, size_t n, int prot, int flags, int fd,
			off_t offset)
{
	if (n <= 3 * (STACK + 4096))
		return real.mmap(at, n, prot, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}

START_TEST(small_slabs_will_do)
{
	sys_table.mmap = small_mmap;
	for (int i = 0; i < 100; i++)
		memset(taken(), 1, STACK);
}
END_TEST

/* ---- a debugger -----------------------------------------------------------*/

/* Frames of sanitizers are others, and ucontext's parked ones are elsewhere. */
#if !defined(TOOLS_SWITCH) && defined(CONTEXT_ASSEMBLY)
#define WITH_GDB 1
START_TEST(gdb_sees_fibers)
{
	static struct ended ended;
	char path[4096];
	if (!have("gdb")) {
		printf("skipped: gdb is not here\n");
		return;
	}
	snprintf(path, sizeof path, "%s/test/peers/fiber", getenv("SS_BUILD"));
	program_run(&ended, "",
		    ARGV("gdb", "-nx", "-batch", "-ex", "break deepest", "-ex",
			 "run", "-ex", "backtrace", "-ex", "break parked",
			 "-ex", "continue", "-ex", "set $pc = &context_parked",
			 "-ex", "set $sp = fiber.sp", "-ex", "echo PARKED\\n",
			 "-ex", "backtrace", path));
	char *running = strstr(ended.out, "#0  deepest");
	char *parked = strstr(ended.out, "PARKED");
	if (!running && strstr(ended.err, "ptrace")) {
		printf("skipped: gdb may not trace\n");
		return;
	}
	ck_assert_msg(running && parked, "%s%s", ended.out, ended.err);
	const char *const frames[] = { "#0 ", "deepest", "middle",
				       "fiber_entry", "context_start" };
	for (int half = 0; half < 2; half++) {
		const char *at = half ? parked : running;
		for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
			at = strstr(at, frames[i]);
			ck_assert_msg(at, "%s: %s", frames[i], ended.out);
		}
		/* Nothing called context_start. */
		at = strchr(at, '\n');
		ck_assert_msg(at && at[1] != '#', "%s", ended.out);
	}
}
END_TEST
#endif

static void add_switch(Suite *suite)
{
	TCase *tcase = tcase_create("switch");
	tcase_set_timeout(tcase, 20);
	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_test(tcase, registers_survive);
	tcase_add_test(tcase, floats_survive);
	tcase_add_test(tcase, all_of_the_stack_is_usable);
	tcase_add_test(tcase, many_at_once);
	tcase_add_test(tcase, a_stack_is_as_new_after_each_use);
	tcase_add_test(tcase, begun_and_never_gone_back_to);
	tcase_add_test(tcase, threads_have_their_own);
#ifdef UNWINDS
	tcase_add_test(tcase, unwinding_ends_at_the_entry);
#endif
#ifdef TOOLS_ASAN
	tcase_add_test(tcase, what_a_parked_fiber_holds_is_no_leak);
#endif
#ifdef WITH_GDB
	tcase_add_test(tcase, gdb_sees_fibers);
#endif
	suite_add_tcase(suite, tcase);
}

static void add_stacks(Suite *suite)
{
	enum { GUARDS = sizeof guards / sizeof *guards };
	TCase *tcase = tcase_create("stacks");
	tcase_set_timeout(tcase, 20);
	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_test(tcase, sizes_are_whole_pages);
	tcase_add_test(tcase, the_last_given_is_taken_first);
	tcase_add_test(tcase, pages_go_back_after_a_storm);
	tcase_add_test(tcase, slabs_go_back_after_a_storm);
	tcase_add_test(tcase, slabs_are_used_again);
	tcase_add_loop_test(tcase, each_guard_page_faults, 0, GUARDS);
	tcase_add_loop_test(tcase, an_overflow_is_told, 0, GUARDS);
	tcase_add_loop_test(tcase, any_failure_costs_a_stack_at_most, 0,
			    2 * GUARDS);
	tcase_add_test(tcase, small_slabs_will_do);
	suite_add_tcase(suite, tcase);
}

Suite *t_context(void)
{
	Suite *suite = suite_create("context");
	add_switch(suite);
	add_stacks(suite);
	return suite;
}
