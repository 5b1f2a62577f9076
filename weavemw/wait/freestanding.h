/* What wait.c and enter.c need instead of a C library: a start, system calls, and lines to print.
 *
 * No C library, because the programs must run in images that have none, and because one of them waits
 * in every container: a static libc would multiply its size and memory.
 * No writable globals either: without .data and .bss, the program is one page that all containers share.
 */
#ifndef FREESTANDING_H
#define FREESTANDING_H

#include <asm/errno.h>
#include <asm/unistd.h>
#include <linux/types.h>
#include <linux/uio.h>

enum { NOT_EXECUTABLE = 126, NOT_FOUND = 127 };  /* Docker's exit codes, and the shell's */

/* The kernel leaves argc, argv and the environment on the stack: begin() gets their address, and an aligned stack.
 * call() enters the kernel, which answers with a result or a negative errno. */
#if defined(__x86_64__)

__asm__(".globl _start\n_start:\n"
        "xor %ebp, %ebp\n"
        "mov %rsp, %rdi\n"
        "and $-16, %rsp\n"
        "call begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return number;
}

#elif defined(__aarch64__)

__asm__(".globl _start\n_start:\n"
        "mov x29, #0\n"
        "mov x30, #0\n"
        "mov x0, sp\n"
        "and sp, x0, #-16\n"
        "b begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}

#elif defined(__arm__)

__asm__(".globl _start\n.type _start, %function\n_start:\n"
        "mov fp, #0\n"
        "mov lr, #0\n"
        "mov r0, sp\n"
        "bic sp, sp, #7\n"
        "b begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r7 __asm__("r7") = number;
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    register long r4 __asm__("r4") = e;
    register long r5 __asm__("r5") = f;
    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
    return r0;
}

#elif defined(__riscv) && __riscv_xlen == 64

__asm__(".globl _start\n_start:\n"
        "mv a0, sp\n"
        "andi sp, sp, -16\n"
        "tail begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long a7 __asm__("a7") = number;
    register long a0 __asm__("a0") = a;
    register long a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c;
    register long a3 __asm__("a3") = d;
    register long a4 __asm__("a4") = e;
    register long a5 __asm__("a5") = f;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
    return a0;
}

#else
#error "no system calls for this machine yet"
#endif

#define SYSTEM_CALL(name, a, b, c, d, e, f, ...) \
    call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define sys(...) SYSTEM_CALL(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static int run(int argc, char **argv, char **environment);

static _Noreturn void leave(int status)
{
    for (;;)
        sys(exit_group, status);
}

__attribute__((used)) _Noreturn void begin(long *stack)
{
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    leave(run(argc, argv, argv + argc + 1));
}

static unsigned long length(const char *text)
{
    unsigned long n = 0;
    while (text[n])
        n++;
    return n;
}

/* One writev for the whole line, so that lines of several processes don't mix. */
static long print(int fd, const char *const *texts)
{
    struct iovec parts[8];
    int n = 0;
    for (; texts[n] && n < 8; n++) {
        parts[n].iov_base = (void *)texts[n];
        parts[n].iov_len = length(texts[n]);
    }
    return sys(writev, fd, parts, n);
}

#define say(...) print(2, (const char *const[]){__VA_ARGS__, "\n", 0})
#define complain(...) say("weavemw: ", __VA_ARGS__)

/* The words for what execve and chroot answer most; numbers for the rest. */
static const char *reason(long error, char number[12])
{
    char *digit = number + 11;
    switch (-error) {
    case ENOENT: return "no such file or directory";
    case ENOTDIR: return "not a directory";
    case EACCES: return "permission denied";
    case EPERM: return "operation not permitted";
    case ENOEXEC: return "exec format error";
    case E2BIG: return "argument list too long";
    }
    *digit = 0;
    for (unsigned n = (unsigned)-error; n; n /= 10)
        *--digit = (char)('0' + n % 10);
    for (const char *word = " rorre"; *word; word++)
        *--digit = *word;
    return digit;
}

static int status_of(long error)
{
    return error == -ENOENT || error == -ENOTDIR ? NOT_FOUND : NOT_EXECUTABLE;
}

#endif
