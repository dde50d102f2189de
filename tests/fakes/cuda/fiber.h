// The context switch of the host device: a fiber is a stack and the registers a call must keep, saved upon that stack.
// By hand, because ucontext makes a system call at each switch.
#pragma once

extern "C" {
// Saves the running context under `*save` and goes on with the one saved under `load`.
void simt_switch(void** save, void* load);
// Goes on with a saved context and forgets the running one.
[[noreturn]] void simt_resume(void* load);
}

// A context that starts with a call of `entry`, which never returns, on the stack below `top` (a multiple of 16).
void* new_context(unsigned char* top, void (*entry)());
