/* A run on one thread, the first one included, makes no allocation and no system call: allocations end the program
 * (linked with --wrap), and so does every system call but write and exit (seccomp's strict mode). */
#define _GNU_SOURCE
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sinew.h"

static int armed;

#define TRAP                            \
    if (armed) {                        \
        static const char text[] = "an allocation in a run\n"; \
        (void)!write(2, text, sizeof text - 1);                \
        abort();                        \
    }

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
int __real_posix_memalign(void **, size_t, size_t);
void __real_free(void *);

void *__wrap_malloc(size_t n) { TRAP return __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t m) { TRAP return __real_calloc(n, m); }
void *__wrap_realloc(void *p, size_t n) { TRAP return __real_realloc(p, n); }
int __wrap_posix_memalign(void **p, size_t a, size_t n) { TRAP return __real_posix_memalign(p, a, n); }
void __wrap_free(void *p) { TRAP __real_free(p); }

int main(int argc, char **argv) {
    sinew_model *model;
    sinew_session *session;
    sinew_message message;
    int allow = argc == 3; /* a third argument makes a fault, to see that it is caught */
    if (argc < 2 || sinew_model_open(argv[1], NULL, &model, &message) ||
        sinew_session_new(model, NULL, &session, &message))
        return 2;
    sinew_tensor_info in, out;
    sinew_model_input(model, 0, &in);
    sinew_model_output(model, 0, &out);
    void *input = calloc(1, in.bytes), *output = calloc(1, out.bytes);
    sinew_session_bind_input(session, 0, input, in.bytes);
    sinew_session_bind_output(session, 0, output, out.bytes);
    fflush(stdout);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0)) return 3;
    armed = 1;
    if (allow && strcmp(argv[2], "allocate") == 0) {
        void *volatile planted = malloc(10); /* volatile: else the compiler removes it */
        free(planted);
    }
    if (allow && strcmp(argv[2], "call") == 0) getppid();
    sinew_status first = sinew_session_run(session);
    sinew_status second = sinew_session_run(session);
    static const char good[] = "no allocation and no system call\n", bad[] = "a run failed\n";
    int ok = first == SINEW_STATUS_OK && second == SINEW_STATUS_OK;
    (void)!write(1, ok ? good : bad, ok ? sizeof good - 1 : sizeof bad - 1);
    syscall(SYS_exit, ok ? 0 : 2);
    return 1;
}
