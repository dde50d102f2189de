// The context switch for x86-64 and aarch64 (System V calling conventions).

#include "fiber.h"

#if defined(__x86_64__)

asm(R"(
.text
.globl simt_switch, simt_resume
.hidden simt_switch, simt_resume
.type simt_switch, @function
.type simt_resume, @function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rdi
simt_resume:
    movq %rdi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

void* new_context(unsigned char* top, void (*entry)()) {
    void** at = reinterpret_cast<void**>(top) - 8;
    for (int kept = 0; kept < 6; ++kept) at[kept] = nullptr;
    at[6] = reinterpret_cast<void*>(entry);
    at[7] = nullptr;  // where `entry` would return to
    return at;
}

#elif defined(__aarch64__)

asm(R"(
.text
.globl simt_switch, simt_resume
.hidden simt_switch, simt_resume
.type simt_switch, %function
.type simt_resume, %function
simt_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov x0, x1
simt_resume:
    mov sp, x0
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");

void* new_context(unsigned char* top, void (*entry)()) {
    void** at = reinterpret_cast<void**>(top) - 20;
    for (int kept = 0; kept < 20; ++kept) at[kept] = nullptr;
    at[11] = reinterpret_cast<void*>(entry);
    return at;
}

#endif
