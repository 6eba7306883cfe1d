/* Prints what a program with a large model needs: milliseconds to load, and peak resident memory against weights and
 * arena. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sinew.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static long peak_kib(void) {
    char line[256];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) sscanf(line, "VmHWM: %ld", &kib);
    if (status) fclose(status);
    return kib;
}

int main(int argc, char **argv) {
    sinew_model *model;
    sinew_session *session;
    sinew_message message;
    if (argc != 2) return 2;
    double best = 1e9;
    for (int i = 0; i < 20; i++) {
        double before = now();
        if (sinew_model_open(argv[1], NULL, &model, &message)) {
            fprintf(stderr, "%s\n", message.text);
            return 2;
        }
        double took = now() - before;
        if (took < best) best = took;
        if (i < 19) sinew_model_free(model);
    }
    sinew_memory memory;
    sinew_model_memory(model, &memory);
    sinew_tensor_info in, out;
    sinew_model_input(model, 0, &in);
    sinew_model_output(model, 0, &out);
    if (sinew_session_new(model, NULL, &session, &message)) return 2;
    void *input = calloc(1, in.bytes), *output = calloc(1, out.bytes);
    sinew_session_bind_input(session, 0, input, in.bytes);
    sinew_session_bind_output(session, 0, output, out.bytes);
    if (sinew_session_run(session) || sinew_session_run(session)) return 2;
    printf("load_ms %.3f weights %zu owned %zu arena %zu operands %zu peak %ld\n", best, memory.weights_bytes,
           memory.owned_weights_bytes, memory.arena_bytes, in.bytes + out.bytes, peak_kib() * 1024);
    free(input);
    free(output);
    sinew_session_free(session);
    sinew_model_free(model);
    return 0;
}
