/*
 * context_swap(void **save, void *sp): parks the running context and goes on
 * in the one parked at `sp`.
 *
 * A parked frame, from `sp` up: the registers that a callee keeps, and where to
 * return.  The unwind tables (CFI) describe it from the stack pointer alone, so
 * that they hold on both sides of the exchange: a debugger that takes `sp` for
 * the stack pointer and context_parked for the program counter sees the parked
 * function.  context_start is where a new context "returns" to: there the
 * tables say that nobody called, and backtraces end.
 *
 * Pure leaves, nothing is called through the PLT; hidden.  Shadow stacks (x86
 * SHSTK, arm GCS) are not switched: the objects do not claim to support them.
 */
#include "machine.h"

#ifdef CONTEXT_ASSEMBLY
	.text

#ifdef __x86_64__
#ifdef __CET__
#define LANDING endbr64
#else
#define LANDING
#endif
	.globl context_swap
	.hidden context_swap
	.type context_swap, @function
	.p2align 4
context_swap:
	.cfi_startproc
	LANDING
	pushq %rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbp, 0
	pushq %rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	pushq %r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r12, 0
	pushq %r13
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r13, 0
	pushq %r14
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r14, 0
	pushq %r15
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r15, 0
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	.globl context_parked
	.hidden context_parked
context_parked:
	popq %r15
	.cfi_adjust_cfa_offset -8
	.cfi_same_value %r15
	popq %r14
	.cfi_adjust_cfa_offset -8
	.cfi_same_value %r14
	popq %r13
	.cfi_adjust_cfa_offset -8
	.cfi_same_value %r13
	popq %r12
	.cfi_adjust_cfa_offset -8
	.cfi_same_value %r12
	popq %rbx
	.cfi_adjust_cfa_offset -8
	.cfi_same_value %rbx
	popq %rbp
	.cfi_adjust_cfa_offset -8
	.cfi_same_value %rbp
	ret
	.cfi_endproc
	.size context_swap, . - context_swap

	/* The nop: unwinders look for a caller one byte before. */
	.type context_begin, @function
	.p2align 4
context_begin:
	.cfi_startproc
	.cfi_undefined %rip
	nop
	.globl context_start
	.hidden context_start
context_start:
	movq %r13, %rdi
	call *%r12
	ud2
	.cfi_endproc
	.size context_begin, . - context_begin
#endif

#endif

#ifdef __ELF__
	.section .note.GNU-stack, "", %progbits
#endif
