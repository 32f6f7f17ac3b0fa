/* Lets the kernel decide calls by a filter all of whose answers are errnos, so that no call is ever carried out.
 *
 * Standard input: bytes of the filter (u32), the filter, number of calls (u32), the calls. Standard output: what each
 * call returned, as u32. The filter also forbids what ends a process, so the parent does that.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct call {
    uint32_t i386, number;
    uint64_t args[6];
};

static uint64_t by_syscall(const struct call *c) {
    register uint64_t a4 __asm__("r10") = c->args[3], a5 __asm__("r8") = c->args[4], a6 __asm__("r9") = c->args[5];
    uint64_t result = c->number;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(c->args[0]), "S"(c->args[1]), "d"(c->args[2]), "r"(a4), "r"(a5), "r"(a6)
                     : "rcx", "r11", "memory");
    return result;
}

static uint64_t by_interrupt(const struct call *c) {
    uint64_t result = c->number;
    /* In a register that takes no part in the call. */
    register const uint64_t *args __asm__("r8") = c->args;
    __asm__ volatile("push %%rbp\n\tpush %%rbx\n\t"
                     "mov 0(%1), %%rbx\n\tmov 8(%1), %%rcx\n\tmov 16(%1), %%rdx\n\t"
                     "mov 24(%1), %%rsi\n\tmov 32(%1), %%rdi\n\tmov 40(%1), %%rbp\n\t"
                     "int $0x80\n\tpop %%rbx\n\tpop %%rbp"
                     : "+a"(result), "+r"(args)
                     :
                     : "rcx", "rdx", "rsi", "rdi", "r9", "r10", "r11", "memory");
    return result;
}

static void take(void *to, size_t size) {
    if (fread(to, 1, size, stdin) != size) exit(2);
}

int main(void) {
    uint32_t length, count;
    take(&length, sizeof length);
    struct sock_filter *filter = malloc(length);
    take(filter, length);
    take(&count, sizeof count);
    struct call *calls = calloc(count, sizeof *calls);
    take(calls, count * sizeof *calls);
    size_t size = (count + 1) * sizeof(uint32_t);
    volatile uint32_t *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 3;
    pid_t child = fork();
    if (child == 0) {
        struct sock_fprog program = {.len = length / sizeof *filter, .filter = filter};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
            _exit(4);
        for (uint32_t i = 0; i < count; i++)
            shared[1 + i] = -(uint32_t)(calls[i].i386 ? by_interrupt(&calls[i]) : by_syscall(&calls[i]));
        shared[0] = 1;
        for (;;) __asm__ volatile("pause");
    }
    int status;
    /* Refused filters end the child by themselves; a minute is far more than the calls take. */
    for (int i = 0; i < 60000 && !shared[0]; i++) {
        struct timespec wait = {0, 1000000};
        nanosleep(&wait, NULL);
        if (waitpid(child, &status, WNOHANG) == child) {
            uint32_t done = 0;
            while (done < count && shared[1 + done]) done++;
            fprintf(stderr, "the process that calls has ended with status %#x after %u calls\n", status, done);
            return 5;
        }
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (!shared[0]) return 6;
    fwrite((const void *)(shared + 1), sizeof(uint32_t), count, stdout);
    return fflush(stdout) ? 7 : 0;
}
