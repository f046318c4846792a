/*
 * Where the switch is written in assembly (switch.S); elsewhere, and where
 * SS_UCONTEXT is defined, it is made of ucontext(3) (ucontext.c), which costs
 * two rt_sigprocmask(2) there and back.  Read by the assembler too.
 */
#ifndef SS_LIB_FIBER_MACHINE_H
#define SS_LIB_FIBER_MACHINE_H

#if !defined(SS_UCONTEXT) && defined(__ELF__) && defined(__LP64__) &&          \
	(defined(__x86_64__) || defined(__aarch64__))
#define CONTEXT_ASSEMBLY 1
#endif

/* The words of a parked frame, the lowest first; see switch.S. */
#ifdef __x86_64__
#define CONTEXT_WORDS 8 /* r15 r14 r13 r12 rbx rbp, where to return, a pad */
#define CONTEXT_ENTRY 3 /* r12 */
#define CONTEXT_ARG 2	/* r13 */
#define CONTEXT_RETURN 6
#else
#define CONTEXT_WORDS 20 /* x29 x30 x19..x28 d8..d15 */
#define CONTEXT_ENTRY 2	 /* x19 */
#define CONTEXT_ARG 3	 /* x20 */
#define CONTEXT_RETURN 1
#endif

#endif
