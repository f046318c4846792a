/*
 * Where the switch is written in assembly (switch.S); elsewhere, and where
 * SS_UCONTEXT is defined, it is made of ucontext(3) (ucontext.c), which costs
 * a sigprocmask(2) a switch.  Read by the assembler too.
 */
#ifndef SS_LIB_FIBER_MACHINE_H
#define SS_LIB_FIBER_MACHINE_H

#if !defined(SS_UCONTEXT) && defined(__ELF__) && defined(__LP64__) &&          \
	(defined(__x86_64__) || defined(__aarch64__))
#define CONTEXT_ASSEMBLY 1
#endif

/*
 * A parked frame, in words, the lowest first (switch.S):
 *
 *	x86-64	r15 r14 r13 r12 rbx rbp, where to return, two pads
 *	aarch64	x29 x30 (where to return) x19 to x28 d8 to d15
 *
 * and what the first instruction of context_start is in bytes.
 */
#ifdef __x86_64__
#define CONTEXT_WORDS 9
#define CONTEXT_ENTRY 3
#define CONTEXT_ARG 2
#define CONTEXT_RETURN 6
#define CONTEXT_SKIP 1
#else
#define CONTEXT_WORDS 20
#define CONTEXT_ENTRY 2
#define CONTEXT_ARG 3
#define CONTEXT_RETURN 1
#define CONTEXT_SKIP 4
#endif

#endif
